"""Generalized autoencoders on MNIST: what their codes do for nearest neighbours.

Wang et al. (CVPR Workshops 2014) hold that a code learnt by reconstructing neighbours or classmates
classifies better than one learnt by reconstructing the row itself. One network, 784-500-200-30,
one budget of epochs and one set of training options for all relations; codes of 10,000 training
rows, scored on the 10,000 test rows:

- error: of a vote of the k nearest training rows in the code, k = 1, 5 and 18;
- impurity: the mean share of other classes among the 18 nearest training rows.

The source's k for the error is not known to us; its impurity is said to be of 18.

python benchmarks/reproduce_generalized.py [--quick] [--only neighbors] [--threads 1]
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from _reproduce import Table, mnist, parser
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import NearestNeighbors

from skae import GeneralizedAutoencoder

ROWS, EPOCHS, SEED = 10_000, 50, 0
VOTERS = (1, 5, 18)
IMPURITY = 18  # neighbours, as in the accounts of the source

# The same for all. Chosen on 2,000 of the training rows: sigmoid layers, as in the source, are
# still far from trained after these epochs; dropping inputs helps codes of new rows.
NETWORK: dict[str, Any] = {
    "n_components": 30, "hidden_layer_sizes": (500, 200), "activation": "relu",
    "output_activation": "logistic", "input_dropout": 0.2, "batch_size": 100,
}  # fmt: skip

# Name, parameters, the source's error in % (from memory: orientation only).
MODELS: list[tuple[str, dict[str, Any], str]] = [
    ("plain", {"relation": "self"}, "5.3"),
    ("neighbors", {"relation": "neighbors", "n_neighbors": 5, "max_outer": 2}, "4.3"),
    ("class", {"relation": "class"}, "4.4"),
    ("margin", {"relation": "margin", "max_outer": 2}, "3.9"),
    ("lle", {"relation": "lle", "n_neighbors": 10, "max_outer": 2}, "5.7"),
]

NOTES = f"""\
Errors in % of the test rows, by a vote of the k nearest of the {ROWS} training rows; impurity in %
of their {IMPURITY} nearest. All autoencoders: 784-500-200-30, relu, logistic output, squared
error, input dropout 0.2, Adam, batches of 100, {EPOCHS} epochs in all (over their passes), seed
{SEED}. Options were chosen on 2,000 training rows left out of training. "paper": errors of Wang et
al. (2014) as remembered, not checked against the source; its PCA has 55 components, and its LDA 9.
Their protocol is not known in full, so only the order can be compared. The isomap relation (paper:
6.4) is left out: its dense weights are limited to 5,000 rows.
"""


def main() -> None:
    """Run every row."""
    options = parser(__doc__ or "").parse_args()
    errors = [f"error (k={k})" for k in VOTERS]
    header = ["codes", *errors, f"impurity (k={IMPURITY})", "epochs of passes", "paper"]
    shown = Table("generalized", header, options, NOTES)
    X, y, X_test, y_test = mnist()
    rows, epochs = (1500, 4) if options.quick else (ROWS, EPOCHS)
    X, y = X[:rows], y[:rows]
    shown.facts = {"settings": NETWORK, "epochs": epochs, "rows": rows, "seed": SEED}
    if options.quick:
        X_test, y_test = X_test[:1000], y_test[:1000]

    def scored(codes: Callable, passes: str, paper: str) -> Callable[[], Sequence[Any]]:
        return lambda: [*score(codes(X), y, codes(X_test), y_test), passes, paper]

    shown.add("pixels", scored(lambda x: x, "", ""))
    pca, lda = PCA(30, random_state=SEED), LinearDiscriminantAnalysis()
    shown.add("PCA, 30", lambda: scored(pca.fit(X).transform, "", "6.2")())
    shown.add("LDA, 9", lambda: scored(lda.fit(X, y).transform, "", "16.1")())
    for name, relation, paper in MODELS:

        def make(relation=relation, paper=paper):
            model = fitted(relation, X, y, epochs)
            passes = " ".join(f"{p.n_iter}" for p in model.outer_history_)
            return scored(model.transform, passes, paper)()

        shown.add(name, make)


def fitted(relation: dict[str, Any], X: np.ndarray, y: np.ndarray, epochs: int) -> Any:
    """A trained autoencoder."""
    model = GeneralizedAutoencoder(
        **NETWORK, **relation, max_iter=epochs, tol=None, random_state=SEED
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X, y)


def score(Z: np.ndarray, y: np.ndarray, Z_test: np.ndarray, y_test: np.ndarray) -> list[float]:
    """Error of every number of voters, and the impurity, in %."""
    near = y[NearestNeighbors(n_neighbors=IMPURITY).fit(Z).kneighbors(Z_test)[1]]
    votes = [[np.bincount(row[:k]).argmax() for row in near] for k in VOTERS]
    errors = [float(np.mean(vote != y_test)) for vote in votes]
    return [100 * value for value in (*errors, float(np.mean(near != y_test[:, None])))]


if __name__ == "__main__":
    main()
