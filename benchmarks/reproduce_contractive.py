"""Table 1 of Rifai et al. (ICML 2011): how much five autoencoders contract around their data.

SKAE_DATA=FOLDER python benchmarks/reproduce_contractive.py [--quick] [--only CAE] [--threads 1]

MNIST; 1000 logistic units, tied weights, cross-entropy; the same solver, batches and epochs for
all. After training, on validation rows: the mean of |J_f(x)|_F, and the saturation, the share of
units below 0.05 or above 0.95. Then a softmax is put on the codes and the whole is fine-tuned.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from _reproduce import Table, mnist, parser
from sklearn.linear_model import RidgeClassifier

import skae

NOTES = """Trained on {train} images of MNIST in [0, 1], measured on {held} others of its \
training set (validation, as in the paper). 784-1000-784, tied \
weights, logistic units, cross-entropy; {solver}, {epochs} epochs, random state 0. The strengths \
of CAE, DAE-g and AE+wd are the best of two or three by the linear classifier's error after 10 \
epochs on 10,000 rows. *Validation loss*: nats a pixel, without noise or penalty. *Linear \
classifier*: ridge regression to the classes on the codes. *Fine-tuned*: 784-1000-10, the softmax \
alone for {head} epochs and then all layers for {tuning}, by the same Adam for all (1e-3 falling \
linearly to 0, batches of 100), no dropout or weight decay, nothing chosen; the test set is met \
once. *Paper*: MNIST part of Table 1, its models chosen by validation error after fine-tuning, its \
norms in a scale of its own (they are far too small to be those of a 1000 x 784 Jacobian; only \
their order is a target), its test error after fine-tuning."""


Split = tuple[np.ndarray, np.ndarray]  # rows and their classes


class Kind(NamedTuple):
    """An autoencoder of the table, and the paper's row."""

    estimator: str
    parameters: dict[str, Any]
    norm: str
    saturation: str
    error: str


# The lecture's and the paper's lambda of the CAE is 784 times `contraction`.
STRENGTHS = {
    "CAE": {"contraction": 0.3 / 784},
    "DAE-g": {"corruption": "gaussian", "noise_level": 0.5},
    "DAE-b": {"corruption": "masking", "noise_level": 0.25},
    "AE+wd": {"alpha": 1e-5},
    "AE": {},
}
KINDS = {
    "CAE": Kind("ContractiveAutoencoder", STRENGTHS["CAE"], "0.73e-4", "86.36", "1.14"),
    "DAE-g": Kind("DenoisingAutoencoder", STRENGTHS["DAE-g"], "0.86e-4", "17.77", "1.18"),
    "DAE-b": Kind("DenoisingAutoencoder", STRENGTHS["DAE-b"], "7.87e-4", "68.19", "1.57"),
    "AE+wd": Kind("Autoencoder", STRENGTHS["AE+wd"], "5.00e-4", "12.97", "1.68"),
    "AE": Kind("Autoencoder", STRENGTHS["AE"], "17.5e-4", "49.90", "1.78"),
}
SHARED = {
    "n_components": 1000, "hidden_layer_sizes": (), "code_activation": "logistic",
    "tied_weights": True, "loss": "binary_cross_entropy", "tol": None, "random_state": 0,
    "batch_size": 100, "learning_rate_init": 1e-2, "learning_rate": "linear",
}  # fmt: skip
HEADER = ["", "strength", "mean norm of J", "saturation, %", "validation loss",
          "linear classifier's error, %", "fine-tuned: validation error, %",
          "fine-tuned: test error, %", "paper: norm of J", "paper: saturation, %",
          "paper: test error, %"]  # fmt: skip
HEAD, TUNING = 2, 20  # epochs of the softmax alone, and of all layers


def jacobian_norms(model: Any, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """|J_f(x)|_F = sqrt(sum_j (h_j (1 - h_j))^2 |W_j|^2) of every row, and the codes.

    Of all five kinds alike: `ContractiveAutoencoder.jacobian_norm` gives the same.
    """
    H = model.transform(X)
    return np.sqrt((H * (1 - H)) ** 2 @ (model.coefs_[0] ** 2).sum(0)), H


def linear_error(Z: np.ndarray, y: np.ndarray, Z_held: np.ndarray, y_held: np.ndarray) -> float:
    """Error in % of ridge regression to the classes, on codes."""
    return 100 * (1 - float(RidgeClassifier(alpha=1.0).fit(Z, y).score(Z_held, y_held)))


def run(kind: Kind, train: Split, held: Split, test: Split, epochs: int, tuning: int) -> list[Any]:
    """Fit a kind, measure it, and fine-tune it."""
    (X, y), (X_held, y_held) = train, held
    layer = getattr(skae, kind.estimator)(max_iter=epochs, **SHARED, **kind.parameters)
    classifier = skae.StackedAutoencoderClassifier(
        layers=(layer,), learning_rate="linear", batch_size=100, max_iter=tuning, tol=None,
        unfreeze_epochs=HEAD, random_state=0,
    ).fit(X, y)  # fmt: skip
    model = classifier.stack_[0]
    norms, H = jacobian_norms(model, X_held)
    saturated = float(((H < 0.05) | (H > 0.95)).mean())
    strength = ", ".join(f"{k}={_short(v)}" for k, v in kind.parameters.items()) or "-"
    error = linear_error(model.transform(X), y, H, y_held)
    tuned = [100 * (1 - float(classifier.score(*split))) for split in (held, test)]
    return [strength, float(norms.mean()), 100 * saturated, -float(model.score(X_held)), error,
            *tuned, kind.norm, kind.saturation, kind.error]  # fmt: skip


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    """One row a kind."""
    options = parser(__doc__ or "")
    options.add_argument("--epochs", type=int, default=25, help="default: %(default)s")
    options = options.parse_args()
    warnings.simplefilter("ignore")
    n, n_held, epochs = (5000, 1000, 5) if options.quick else (50_000, 10_000, options.epochs)
    X, y, *test = mnist()
    tuning = 2 if options.quick else TUNING
    train, held = (X[:n], y[:n]), (X[50_000 : 50_000 + n_held], y[50_000 : 50_000 + n_held])
    solver = "adam, learning rate 0.01 falling linearly to 0, batches of 100, float32"
    notes = NOTES.format(
        train=n, held=n_held, epochs=epochs, solver=solver, head=HEAD, tuning=tuning
    )
    table = Table("contractive", HEADER, options, notes)
    for name, kind in KINDS.items():
        table.add(name, lambda kind=kind: run(kind, train, held, tuple(test), epochs, tuning))


if __name__ == "__main__":
    main()
