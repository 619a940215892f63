"""
Denoising and imputation
========================

A denoising autoencoder sees a corrupted row and is held against the clean one. Afterwards it
cleans rows that are noisy, and fills in what is missing.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from skae import DenoisingAutoencoder

rng = np.random.default_rng(0)

# %%
# Noisy images
# ------------
#
# Training needs clean rows only: the noise is drawn anew at every step. PCA, of as many components
# as suits the noisy test rows best, is the comparison.

X = load_digits().data / 16
X_train, X_test = train_test_split(X, random_state=0)
noise = 0.3
X_noisy = X_test + rng.normal(0, noise, X_test.shape)

denoising = DenoisingAutoencoder(
    n_components=128, hidden_layer_sizes=(), activation="relu", corruption="gaussian",
    noise_level=noise, batch_size=32, max_iter=100, tol=None, random_state=0,
).fit(X_train)  # fmt: skip


def error(X_hat):
    """Mean squared error of a pixel."""
    return np.mean((X_hat - X_test) ** 2)


def by_components(k):
    pca = PCA(k, random_state=0).fit(X_train)
    return pca.inverse_transform(pca.transform(X_noisy))


best = min(range(2, 40, 2), key=lambda k: error(by_components(k)))
cleaned = {
    "clean": X_test,
    "noisy": X_noisy,
    f"PCA, {best} components": by_components(best),
    "denoising autoencoder": denoising.reconstruct(X_noisy),
}

fig, axes = plt.subplots(4, 9, figsize=(9, 4.6), layout="constrained")
for row, (name, images) in zip(axes, cleaned.items(), strict=True):
    for ax, image in zip(row, images, strict=False):
        ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
    said = "" if images is X_test else f": mean squared error {error(images):.3f}"
    row[4].set_title(name + said, size=10)

# %%
# Missing values
# --------------
#
# NaN in X is a value never seen. Here 20 % of the cells of a table are hidden from everyone, in
# training as well, and filled in afterwards. Values are in standard deviations of their column.

table = StandardScaler().fit_transform(load_breast_cancer().data)
hidden = rng.random(table.shape) < 0.2
holes = np.where(hidden, np.nan, table)

network = DenoisingAutoencoder(
    n_components=128, hidden_layer_sizes=(), activation="tanh", noise_level=0.4, batch_size=32,
    max_iter=150, tol=None, random_state=0,
)  # fmt: skip
filled = {
    "mean": SimpleImputer().fit_transform(holes),
    "5 nearest neighbours": KNNImputer().fit_transform(holes),
    "IterativeImputer": IterativeImputer(max_iter=10, tol=0.1, random_state=0).fit_transform(holes),
    "DenoisingAutoencoder": network.fit(holes).impute(holes),
}
rms = {name: np.sqrt(np.mean((X_hat - table)[hidden] ** 2)) for name, X_hat in filled.items()}

fig, ax = plt.subplots(figsize=(6.5, 2.8), layout="constrained")
bars = ax.barh(list(rms), list(rms.values()), color=["0.75"] * 3 + ["C0"])
ax.bar_label(bars, fmt="%.3f", padding=4)
ax.invert_yaxis()
ax.set(xlabel="root mean squared error of hidden cells", xlim=(0, 1.15))
ax.spines[["top", "right"]].set_visible(False)

# %%
# Imputation by an autoencoder pays where columns are related in ways that are not linear, and rows
# are many. On a table like this one, whose columns are nearly linear in each other, a chain of
# regressions is hard to beat: compare before choosing. (On California housing it is the other way
# round: see ``reproduce_missing`` in :doc:`/measured`.)

plt.show()
