"""
Codes with a distribution of your choice
========================================

An adversarial autoencoder plays a game: a discriminator learns to tell codes from draws of a prior,
the encoder learns to pass its codes off as such draws. The prior may be anything that can be drawn.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from skae import AdversarialAutoencoder
from skae.inspection import LatentSpaceDisplay

X, y = load_digits(return_X_y=True)
X = X / 16
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)
common = {"n_components": 2, "batch_size": 50, "learning_rate": "linear", "max_iter": 100,
          "tol": None, "random_state": 0}  # fmt: skip

# %%
# Three priors in the plane
# -------------------------
#
# The step sizes of the players say how much the prior counts beside the reconstruction. No label is
# used; colours are the digits.

players = {"generator_learning_rate_init": 3e-3, "discriminator_learning_rate_init": 3e-3}
priors = ("gaussian", "gaussian_mixture", "swiss_roll")
models = {p: AdversarialAutoencoder(prior=p, **players, **common).fit(X_train) for p in priors}

fig, axes = plt.subplots(1, 3, figsize=(11, 3.7), layout="constrained")
for ax, (prior, model) in zip(axes, models.items(), strict=True):
    LatentSpaceDisplay.from_estimator(model, X_train, y_train, scatter_kw={"s": 8}, ax=ax)
    ax.set_title(prior)
    ax.set_aspect("equal", adjustable="datalim")
    if ax is not axes[-1]:
        ax.get_legend().remove()

# %%
# How did the game end? A discriminator that cannot tell codes from draws has a loss of log 4 = 1.39
# nats, and the spread of every unit is that of the prior.

for prior, model in models.items():
    print(f"{prior:16s} loss {model.discriminator_curve_[-1]:.2f}, spread {model.spread_.round(2)}")

# %%
# A walk along the spiral, decoded: neighbours on the curve look alike.

t = np.sqrt(np.linspace(0.05, 1, 24))
angle = 4 * np.pi * t
walk = models["swiss_roll"].inverse_transform(2 * np.c_[t * np.cos(angle), t * np.sin(angle)])
fig, axes = plt.subplots(2, 12, figsize=(10, 1.9), layout="constrained")
for ax, image in zip(axes.flat, walk, strict=True):
    ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])

# %%
# Few labels
# ----------
#
# With ``n_clusters="classes"`` the code has two parts: a category, which the few labels name, and a
# style, on the prior. Here 10 images of each digit have a label, and -1 marks the others.

labelled = np.concatenate([np.flatnonzero(y_train == digit)[:10] for digit in range(10)])
few = np.full(len(y_train), -1)
few[labelled] = y_train[labelled]

styled = AdversarialAutoencoder(
    n_clusters="classes", unlabeled=-1, hidden_layer_sizes=(200,), **common
).fit(X_train, few)  # fmt: skip
plain = LogisticRegression(max_iter=1000).fit(X_train[labelled], y_train[labelled])
print(f"logistic regression on 100 images: {plain.score(X_test, y_test):.1%} of new digits right")
print(f"the categories: {(styled.predict(X_test) == y_test).mean():.1%}")

# %%
# Category and style are told apart: each row below is a digit, each column one style.

styles = np.random.default_rng(0).normal(size=(12, 2))
fig, axes = plt.subplots(10, 12, figsize=(6.4, 5.6), layout="constrained")
for digit, row in enumerate(axes):
    codes = np.c_[styles, np.eye(10)[[digit] * 12]]
    for ax, image in zip(row, styled.inverse_transform(codes), strict=True):
        ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
    row[0].set_ylabel(digit, rotation=0, ha="right", va="center")

plt.show()
