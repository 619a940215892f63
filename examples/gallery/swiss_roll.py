"""
Unrolling a swiss roll
======================

An embedding asks codes to keep distances between rows. Which distances decides what it does: in
space the roll stays rolled up, along the surface it unrolls. Unlike most manifold methods this one
has an encoder for new rows and a decoder for the way back.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_swiss_roll
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression

from skae import Autoencoder, EmbeddingAutoencoder

X, position = make_swiss_roll(1500, random_state=0)
X_new, position_new = make_swiss_roll(500, random_state=1)

common = {"n_components": 2, "hidden_layer_sizes": (64, 64), "activation": "tanh",
          "batch_size": 150, "learning_rate_init": 3e-3, "learning_rate": "linear", "tol": None,
          "max_iter": 150, "random_state": 0}  # fmt: skip
models = {
    "PCA": PCA(2),
    "plain autoencoder": Autoencoder(**common),
    "distances in space": EmbeddingAutoencoder(affinity="distance", gamma=0.1, **common),
    "distances along the surface": EmbeddingAutoencoder(affinity="geodesic", gamma=0.1, **common),
}

# %%
# Codes of rows that no model was trained on, coloured by their position along the roll. The
# coefficient of determination in each title is that of a linear regression of the position on the
# two numbers.

fig = plt.figure(figsize=(13, 3.2), layout="constrained")
ax = fig.add_subplot(1, 5, 1, projection="3d")
ax.scatter(*X_new.T, c=position_new, s=6)
ax.view_init(10, -75)
ax.set_box_aspect(None, zoom=1.15)
ax.set(xticks=[], yticks=[], zticks=[])
ax.set_title("new rows\n", size=10)
for i, (name, model) in enumerate(models.items(), start=2):
    codes = model.fit(X).transform(X_new)
    straight = LinearRegression().fit(model.transform(X), position)
    ax = fig.add_subplot(1, 5, i)
    ax.scatter(*codes.T, c=position_new, s=6)
    ax.set(xticks=[], yticks=[])
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_title(f"{name}\n$R^2$ = {straight.score(codes, position_new):.2f}", size=10)

# %%
# The way back: a straight line in the plane of the codes, through the decoder, runs along the roll.

unrolled = models["distances along the surface"]
codes = unrolled.transform(X)
ends = [codes[np.argsort(position)[part]].mean(axis=0) for part in (slice(30), slice(-30, None))]
line = np.linspace(*ends, 60)
path = unrolled.inverse_transform(line)

fig = plt.figure(figsize=(8, 3.6), layout="constrained")
ax = fig.add_subplot(1, 2, 1)
ax.scatter(*codes.T, c=position, s=4, alpha=0.5)
ax.plot(*line.T, color="black")
ax.set(xticks=[], yticks=[], aspect="equal", title="a line between codes")
ax = fig.add_subplot(1, 2, 2, projection="3d")
ax.scatter(*X.T, c=position, s=4, alpha=0.3)
ax.plot(*path.T, color="black")
ax.view_init(10, -75)
ax.set_box_aspect(None, zoom=1.15)
ax.set(xticks=[], yticks=[], zticks=[], title="and what it decodes to")

plt.show()
