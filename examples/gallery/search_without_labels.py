"""
Searching parameters without labels
===================================

An autoencoder's `score` is minus the reconstruction error of new rows, so `GridSearchCV` needs no
labels. It finds what reconstructs best. Is that also what the code is good for?
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from skae import Autoencoder

X, y = load_digits(return_X_y=True)
cv = KFold(3, shuffle=True, random_state=0)
autoencoder = Autoencoder(n_components=8, batch_size=64, max_iter=40, tol=None, random_state=0)
code = make_pipeline(MinMaxScaler(), autoencoder)

# %%
# Parameters of training: here new rows are a fair judge, and no label is needed.

grid = {
    "autoencoder__activation": ["relu", "tanh"],
    "autoencoder__learning_rate_init": [1e-3, 3e-3, 1e-2],
}
search = GridSearchCV(code, grid, cv=cv).fit(X)
print(search.best_params_)

scores = -search.cv_results_["mean_test_score"].reshape(2, 3)
fig, ax = plt.subplots(figsize=(5, 2.8), layout="constrained")
ax.imshow(scores, cmap="Blues", vmin=scores.min(), vmax=2 * scores.max(), aspect="auto")
ax.set_xticks(range(3), labels=grid["autoencoder__learning_rate_init"])
ax.set_yticks(range(2), labels=grid["autoencoder__activation"])
for (i, j), value in np.ndenumerate(scores):
    ax.text(j, i, f"{value:.4f}", ha="center", va="center")
ax.set(xlabel="learning rate", ylabel="activation", title="squared error of new rows")

# %%
# The width of the code is another matter. More units always reconstruct better, so that the error
# alone asks for the widest code. Look for where the curve flattens, or ask what comes behind: with
# labels, the same search chooses for the classifier.

sizes = [2, 4, 8, 16, 32]
width = {"autoencoder__n_components": sizes}
unlabelled = GridSearchCV(code, width, cv=cv).fit(X)
labelled = GridSearchCV(
    make_pipeline(*[step for _, step in code.steps], LogisticRegression(max_iter=1000)),
    width,
    cv=cv,
).fit(X, y)

fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.2), layout="constrained")
axes[0].plot(sizes, -unlabelled.cv_results_["mean_test_score"], "o-")
axes[0].set(ylabel="squared error of new rows", ylim=(0, None))
axes[1].plot(sizes, labelled.cv_results_["mean_test_score"], "o-", color="C1")
axes[1].set(ylabel="accuracy of a logistic regression")
for ax in axes:
    ax.set(xlabel="code units", xscale="log")
    ax.set_xticks(sizes, labels=sizes)
    ax.minorticks_off()

plt.show()
