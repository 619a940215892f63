"""Time of fine-tuning a pretrained classifier, against the same network in other hands.

python benchmarks/bench_fine_tune.py [--only 784] [--repeats 5] [--threads 2] [--out FOLDER]

A stack is pretrained and a logistic regression put on its codes. Then `fine_tune`, scikit-learn's
MLPClassifier and a plain torch loop train the same network from the same weights, for the same
epochs, batches and Adam. Quality is the mean cross-entropy of the training rows afterwards.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from _report import add_threads, interleaved, median_ratio, parser, pin_threads, table, write
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline

from skae import Autoencoder, StackedAutoencoder, fine_tune

RATE, TOLERANCE, FLOOR = 1e-3, 1.05, 1.5  # the floor is of MLPClassifier's time over ours


@dataclass(frozen=True)
class Row:
    """A network, its data and its training."""

    name: str
    data: Callable[[], tuple[np.ndarray, np.ndarray]]
    layers: tuple[int, ...]
    batch_size: int
    epochs: int


def digits() -> tuple[np.ndarray, np.ndarray]:
    """1,797 rows of 64 pixels, centred, with a mean variance of 1."""
    X, y = load_digits(return_X_y=True)
    X = X - X.mean(0)
    return (X / np.sqrt(X.var(0).mean())).astype(np.float32), y


def mnist() -> tuple[np.ndarray, np.ndarray]:
    """The first 10,000 training images and their labels."""
    X = datasets.mnist(10_000)
    return X, datasets.mnist_labels(len(X))


ROWS = [
    Row("64-64-32-10, batch 32", digits, (64, 32), 32, 40),
    Row("64-64-32-10, batch 200", digits, (64, 32), 200, 100),
    Row("784-500-500-10, batch 100", mnist, (500, 500), 100, 2),
    Row("784-1000-1000-1000-10, batch 100", mnist, (1000, 1000, 1000), 100, 2),
]


def pretrained(row: Row, X: np.ndarray, y: np.ndarray) -> Any:
    """The pipeline that all start from."""
    layer = Autoencoder(hidden_layer_sizes=(), activation="relu", max_iter=2, tol=None)
    stack = StackedAutoencoder(layers=row.layers, estimator=layer, random_state=0)
    return make_pipeline(stack, LogisticRegression(max_iter=30)).fit(X, y)


def ours(row: Row, pipeline: Any, X: np.ndarray, y: np.ndarray) -> Callable[[int], Any]:
    """skae: seconds and loss."""

    def run(repeat: int) -> tuple[float, float]:
        began = time.perf_counter()
        model = fine_tune(
            pipeline, X, y, learning_rate_init=RATE, batch_size=row.batch_size,
            max_iter=row.epochs, tol=None, random_state=repeat,
        )  # fmt: skip
        return time.perf_counter() - began, log_loss(y, model.predict_proba(X))

    return run


def same_network(pipeline: Any, X: np.ndarray, y: np.ndarray) -> Any:
    """The fine-tuned classifier before any step."""
    return fine_tune(pipeline, X, y, solver="sgd", learning_rate_init=1e-30, max_iter=1, tol=None)


def mlp(row: Row, pipeline: Any, X: np.ndarray, y: np.ndarray) -> Callable[[int], Any]:
    """MLPClassifier: seconds and loss."""
    start = same_network(pipeline, X, y).to_mlp(
        solver="adam", learning_rate_init=RATE, batch_size=row.batch_size, max_iter=row.epochs,
        tol=0.0, n_iter_no_change=np.inf,
    )  # fmt: skip

    def run(repeat: int) -> tuple[float, float]:
        model = copy.deepcopy(start).set_params(random_state=repeat)
        began = time.perf_counter()
        model.fit(X, y)
        return time.perf_counter() - began, log_loss(y, model.predict_proba(X))

    return run


def torch_loop(row: Row, pipeline: Any, X: np.ndarray, y: np.ndarray) -> Callable[[int], Any]:
    """What most people write: seconds and loss."""
    start = same_network(pipeline, X, y).to_torch()
    x, t = torch.from_numpy(X), torch.from_numpy(y)

    def run(repeat: int) -> tuple[float, float]:
        model, generator = copy.deepcopy(start), torch.Generator().manual_seed(repeat)
        began = time.perf_counter()
        adam = torch.optim.Adam(model.parameters(), lr=RATE)
        for _ in range(row.epochs):
            for index in torch.randperm(len(x), generator=generator).split(row.batch_size):
                adam.zero_grad()
                torch.nn.functional.cross_entropy(model(x[index]), t[index]).backward()
                adam.step()
        seconds = time.perf_counter() - began
        with torch.no_grad():
            return seconds, float(torch.nn.functional.cross_entropy(model(x), t))

    return run


PEERS = {"MLPClassifier": mlp, "torch loop": torch_loop}


def run(row: Row, repeats: int) -> list[dict[str, Any]]:
    """Every peer of a row, beside skae."""
    print(row.name, flush=True)
    X, y = row.data()
    pipeline = pretrained(row, X, y)
    runs = {name: make(row, pipeline, X, y) for name, make in ({"skae": ours} | PEERS).items()}
    for each in runs.values():
        each(0)
    found = interleaved(runs, repeats)
    times = {name: [seconds for seconds, _ in each] for name, each in found.items()}
    losses = {name: float(np.median([loss for _, loss in each])) for name, each in found.items()}
    return [
        {
            "network": row.name,
            "peer": peer,
            "seconds": float(np.median(times[peer])),
            "skae": float(np.median(times["skae"])),
            "ratio": median_ratio(times[peer], times["skae"]),
            "loss": losses[peer],
            "loss_skae": losses["skae"],
            "is_equal": losses["skae"] <= TOLERANCE * losses[peer],
            "every_repeat": found,
        }
        for peer in PEERS
    ]


def markdown(lines: list[dict[str, Any]]) -> str:
    """All rows in one table."""
    header = ["network", "peer", "peer, s", "skae, s", "times skae's", "floor", "loss of the peer",
              "loss of skae"]  # fmt: skip
    return table(
        header,
        [[r["network"], r["peer"], f"{r['seconds']:.3f}", f"{r['skae']:.3f}", f"{r['ratio']:.2f}",
          FLOOR if r["peer"] == "MLPClassifier" else "", f"{r['loss']:.4f}",
          f"{r['loss_skae']:.4f}" + ("" if r["is_equal"] else " (not equal)")]
         for r in lines],
    )  # fmt: skip


def main() -> None:
    options = parser(__doc__ or "", repeats=5)
    options.add_argument("--only", default="", help="networks whose name contains this")
    add_threads(options)
    given = options.parse_args()
    pin_threads(given.threads)
    warnings.simplefilter("ignore", ConvergenceWarning)
    lines = [line for row in ROWS if given.only in row.name for line in run(row, given.repeats)]
    write("fine_tune", given.out, {"results": lines}, markdown(lines))


if __name__ == "__main__":
    main()
