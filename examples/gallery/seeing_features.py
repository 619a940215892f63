"""
Seeing what was learned
=======================

What does a code unit respond to? For one layer it is the input of norm 1 that activates it the
most, its weights divided by their length. Four autoencoders of 8 x 8 digits, and what their units
look for: red asks for ink, blue for none.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skae import Autoencoder, DenoisingAutoencoder, KSparseAutoencoder, SparseAutoencoder
from skae.inspection import FeatureDisplay, LatentSpaceDisplay

X, y = load_digits(return_X_y=True)
X = X / 16

common = {"n_components": 25, "hidden_layer_sizes": (), "random_state": 0, "tol": None}
steps = {"batch_size": 32, "max_iter": 60}
decay = {"alpha": 1e-3}  # pixels without ink get no weight
models = {
    "plain, tanh": Autoencoder(activation="tanh", **steps, **decay, **common),
    "denoising, tanh": DenoisingAutoencoder(
        activation="tanh", corruption="gaussian", noise_level=0.5, **steps, **decay, **common
    ),
    "sparse": SparseAutoencoder(rho=0.1, solver="lbfgs", max_iter=300, alpha=3e-4, **common),
    "k-sparse, 5 of 25": KSparseAutoencoder(k=5, **steps, **decay, **common),
}
for model in models.values():
    model.fit(X)

fig, axes = plt.subplots(2, 2, figsize=(9.2, 7), layout="compressed")
for ax, (name, model) in zip(axes.flat, models.items(), strict=True):
    # All four have the same scale, so that one colour bar in each line is enough.
    FeatureDisplay.from_estimator(model, image_shape=(8, 8), colorbar=ax in axes[:, 1], ax=ax)
    ax.set_title(name)

# %%
# A plain code is any basis of what it keeps: its units go up and down across the image. Of the
# sparse and k-sparse units more look for one stroke, or a piece of one.
#
# The data's representation in the hidden layer: digits by units, in the order of the digits. Above
# them is each unit's mean activation, which the penalty draws to 0.1.

some = np.random.default_rng(0).choice(len(X), 300, replace=False)
LatentSpaceDisplay.from_estimator(models["sparse"], X[some], y[some], kind="activations")

plt.show()
