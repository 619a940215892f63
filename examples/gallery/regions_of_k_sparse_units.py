"""
The regions of k-sparse units
=============================

A k-sparse code is linear but for one thing: of its units only the k largest stay. That alone cuts
the space into regions, one for each set of units that stay, and within a region the reconstruction
is a linear map. Three units in the plane are enough to see it.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from sklearn.datasets import make_blobs

from skae import KSparseAutoencoder

X, _ = make_blobs(
    600, centers=[(-2, -1), (2, -1), (0, 2.5)], cluster_std=0.7, random_state=0
)  # three clusters

side = np.linspace(-5, 5, 300)
grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
colours = ListedColormap(plt.get_cmap("Pastel1").colors[:3])


def three_units(k):
    """Three units, of which k stay; training begins with all of them, so that none dies at once."""
    return KSparseAutoencoder(
        n_components=3, k=k, batch_size=32, learning_rate_init=1e-2, learning_rate="linear",
        max_iter=60, tol=None, random_state=1,
    ).fit(X)  # fmt: skip


# %%
# For k = 1 a region is where one unit is the largest; for k = 2 where one is the *smallest*, and
# the other two stay. Arrows are the units' weights: the directions that they respond to, and, as
# weights are tied, what they decode to.

fig, axes = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
for ax, k in zip(axes, (1, 2), strict=True):
    model = three_units(k)
    kept = model.transform(grid) != 0
    region = np.unique(kept, axis=0, return_inverse=True)[1].reshape(300, 300)
    ax.imshow(region, origin="lower", extent=(-5, 5, -5, 5), cmap=colours, vmin=0, vmax=2)
    ax.plot(*X.T, ".", color="0.35", markersize=2)
    for weights in model.components_:
        ax.annotate(
            "", 2 * weights / np.linalg.norm(weights), (0, 0),
            arrowprops={"arrowstyle": "->", "linewidth": 1.8},
        )  # fmt: skip
    ax.set(xticks=[], yticks=[], title=f"k = {k}: {len(np.unique(kept, axis=0))} regions")

# %%
# With k = 1 every region is reconstructed by a line, one unit's direction; together they are three
# lines, which one linear unit could never be.

model = three_units(1)
X_hat = model.reconstruct(X)
active = (model.transform(X) != 0).argmax(axis=1)
fig, ax = plt.subplots(figsize=(4.6, 4.4), layout="constrained")
for unit in range(3):
    ours = active == unit
    ax.plot(*X[ours].T, ".", color=f"C{unit}", alpha=0.25, markersize=4)
    ax.plot(*X_hat[ours].T, ".", color=f"C{unit}", markersize=4)
ax.set(xticks=[], yticks=[], aspect="equal", title="rows (pale) and reconstructions")

plt.show()
