"""
Sampling a variational autoencoder
==================================

A variational autoencoder is a density model: it draws new rows and says how likely a row is.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skae import VariationalAutoencoder
from skae.inspection import LatentSpaceDisplay

X, y = load_digits(return_X_y=True)
X = X / 16
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)

model = VariationalAutoencoder(
    n_components=12, hidden_layer_sizes=(128,), likelihood="bernoulli", batch_size=32, max_iter=100,
    tol=None, random_state=0,
).fit(X_train)  # fmt: skip

# %%
# New digits: codes from N(0, I), decoded. The likelihood is that of pixels that are black or white:
# `sample` draws these, and `inverse_transform` gives the probabilities, which look more like the
# grey images of the data. In the last row the training image that is nearest to each, so that one
# sees that it is no copy.

rng = np.random.default_rng(0)
probabilities = model.inverse_transform(rng.normal(size=(12, model.n_components_)))
nearest = X_train[((probabilities[:, None] - X_train) ** 2).sum(-1).argmin(1)]
shown = {
    "sample": model.sample(12, random_state=1),
    "decoded": probabilities,
    "nearest": nearest,
}
fig, axes = plt.subplots(3, 12, figsize=(10, 3), layout="constrained")
for row, (name, images) in zip(axes, shown.items(), strict=True):
    for ax, image in zip(row, images, strict=True):
        ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
    row[0].set_ylabel(name)

# %%
# How likely is a row? `score_samples` is a lower bound on log p(x), in nats, and tightens with the
# number of codes drawn. Noise is less likely than digits that the model has not seen.

for n in (1, 10, 100):
    model.set_params(n_importance_samples=n)
    print(f"{n:3d} codes a row: {model.score(X_test):.2f} nats on new digits")
shuffled = rng.permuted(X_test, axis=1)  # the same pixels, in any order
fig, ax = plt.subplots(figsize=(6, 3), layout="constrained")
rows_of = {"training": X_train, "new": X_test, "pixels shuffled": shuffled}
bounds = {name: model.score_samples(rows) for name, rows in rows_of.items()}
edges = np.histogram_bin_edges(np.concatenate(list(bounds.values())), 100)
for name, values in bounds.items():
    ax.hist(values, edges, density=True, alpha=0.6, label=name)
ax.set(xlabel="bound on log p(x), nats", yticks=[])
ax.legend(frameon=False)

# %%
# A code of two units can be drawn as a whole: what the plane decodes to, and where the digits are.

plane = VariationalAutoencoder(
    n_components=2, hidden_layer_sizes=(128,), likelihood="bernoulli", batch_size=32, max_iter=100,
    tol=None, random_state=0,
).fit(X_train)  # fmt: skip
fig, axes = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
LatentSpaceDisplay.from_estimator(plane, X_test, y_test, ax=axes[0])
LatentSpaceDisplay.from_estimator(
    plane, X_test, y_test, kind="decoded", image_shape=(8, 8), im_kw={"cmap": "gray_r"}, ax=axes[1]
)

plt.show()
