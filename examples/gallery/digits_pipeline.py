"""
Codes in front of a classifier
==============================

Replace the pixels by the activations of a narrow layer, keep the labels, and train any classifier
on them. The code is learned without labels; how wide it should be, the classifier says.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from skae import Autoencoder
from skae.inspection import ReconstructionDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)


def classifier_on(*steps):
    """A pipeline of these steps under a logistic regression, fitted."""
    return make_pipeline(MinMaxScaler(), *steps, LogisticRegression(max_iter=1000)).fit(
        X_train, y_train
    )


# %%
# The same number of principal components and of code units, and all 64 pixels for comparison:

sizes = [2, 4, 8, 16]
accuracy = {"principal components": [], "code units": []}
for k in sizes:
    autoencoder = Autoencoder(n_components=k, batch_size=32, max_iter=60, tol=None, random_state=0)
    for name, step in zip(accuracy, (PCA(k, random_state=0), autoencoder), strict=True):
        accuracy[name].append(classifier_on(step).score(X_test, y_test))
pixels = classifier_on().score(X_test, y_test)

fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
for name, values in accuracy.items():
    ax.plot(sizes, values, "o-", label=name)
ax.axhline(pixels, color="0.5", linestyle=":", label="64 pixels")
ax.set(xlabel="numbers per image", ylabel="accuracy on new images", xscale="log", ylim=(None, 1))
ax.set_xticks(sizes, labels=sizes)
ax.minorticks_off()
ax.legend(frameon=False)

# %%
# The autoencoder has a hidden layer, so that its few units can bend along the data where principal
# components are straight. With many units both keep nearly all of the information.
#
# What 8 units keep, seen through the decoder:

model = classifier_on(
    Autoencoder(n_components=8, batch_size=32, max_iter=60, tol=None, random_state=0)
)
first_of_each = [int(np.flatnonzero(y_test == digit)[0]) for digit in range(10)]
scaled = model[0].transform(X_test)
ReconstructionDisplay.from_estimator(model[1], scaled, rows=first_of_each, image_shape=(8, 8))

plt.show()
