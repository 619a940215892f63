"""Cost of a training step of every variant, against the plain autoencoder of the same network.

python benchmarks/bench_variants.py [--only 784] [--repeats 5] [--threads 2] [--out FOLDER]

A step's cost is the time of a fit over many epochs less that over one, divided by the steps
between: what is done once (validation, neighbour searches) does not count.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
from _report import add_threads, interleaved, median_ratio, parser, pin_threads, table, write
from sklearn.exceptions import ConvergenceWarning

import skae

CLOSED, MORE_ARITHMETIC = 1.3, 2.0  # what a step may cost, times the plain autoencoder's


@dataclass(frozen=True)
class Variant:
    """A variant's class and parameters, and those that its plain counterpart shares."""

    cls: str
    parameters: dict[str, Any] = field(default_factory=dict)
    shared: dict[str, Any] = field(default_factory=dict)
    ceiling: float = CLOSED
    y: bool = False


LOGISTIC = {"code_activation": "logistic"}
TIED = {"tied_weights": True}
VARIANTS = {
    "sparse, KL": Variant("SparseAutoencoder", {"beta": 0.1}, LOGISTIC),
    "k-sparse": Variant(
        "KSparseAutoencoder", {"k": 8}, TIED | {"code_activation": "identity"}, MORE_ARITHMETIC
    ),
    "denoising, gaussian": Variant("DenoisingAutoencoder", {"corruption": "gaussian"}),
    "denoising, masking": Variant("DenoisingAutoencoder", {"corruption": "masking"}),
    "contractive": Variant(
        "ContractiveAutoencoder", {"contraction": 0.1}, LOGISTIC | TIED, MORE_ARITHMETIC
    ),
    "generalized, class": Variant("GeneralizedAutoencoder", {"relation": "class"}, y=True),
    "split-brain": Variant("SplitBrainAutoencoder"),
    "embedding, MDS": Variant("EmbeddingAutoencoder", {"embedding": "mds"}),
}


@dataclass(frozen=True)
class Row:
    """A network and its data."""

    name: str
    data: Callable[[], np.ndarray]
    width: int
    batch_size: int
    epochs: int
    asked: bool  # whether the ceilings are of this network


ROWS = [
    Row("784-500-784, batch 256", datasets.mnist, 500, 256, 6, True),
    Row("30-16-30, batch 200", datasets.breast_cancer, 16, 200, 200, False),
]


def step_timer(
    row: Row, X: np.ndarray, y: np.ndarray | None, cls: str, parameters: dict[str, Any]
) -> Callable[[int], float]:
    """Microseconds of a step, as a function of the repeat."""
    kind = getattr(skae, cls)
    width = row.width // 2 if cls == "SplitBrainAutoencoder" else row.width  # of each half
    steps = -(-len(X) // row.batch_size) * row.epochs

    def seconds(epochs: int, seed: int) -> float:
        model = kind(
            n_components=width, hidden_layer_sizes=(), batch_size=row.batch_size, max_iter=epochs,
            tol=None, random_state=seed, **parameters,
        )  # fmt: skip
        began = time.perf_counter()
        model.fit(X, y)
        return time.perf_counter() - began

    def timed(repeat: int) -> float:
        return (seconds(row.epochs + 1, repeat) - seconds(1, repeat)) / steps * 1e6

    return timed


def run(row: Row, repeats: int) -> list[dict[str, Any]]:
    """Every variant that the package has, beside its plain counterpart."""
    X = row.data()
    y = np.arange(len(X)) % 10
    lines = []
    for name, v in VARIANTS.items():
        if not hasattr(skae, v.cls):
            continue
        print(f"{row.name}: {name}", flush=True)
        timers = {
            "variant": step_timer(row, X, y if v.y else None, v.cls, v.shared | v.parameters),
            "plain": step_timer(row, X, None, "Autoencoder", v.shared),
        }
        for timer in timers.values():
            timer(0)
        took = interleaved(timers, repeats)
        lines.append({
            "network": row.name,
            "variant": name,
            "microseconds": float(np.median(took["variant"])),
            "plain": float(np.median(took["plain"])),
            "ratio": median_ratio(took["variant"], took["plain"]),
            "ceiling": v.ceiling if row.asked else None,
            "every_repeat": took,
        })  # fmt: skip
    return lines


def markdown(lines: list[dict[str, Any]]) -> str:
    """All variants in one table."""
    header = ["network", "variant", "µs per step", "plain, µs", "times plain", "ceiling"]
    return table(
        header,
        [[r["network"], r["variant"], f"{r['microseconds']:.0f}", f"{r['plain']:.0f}",
          f"{r['ratio']:.2f}", "" if r["ceiling"] is None else r["ceiling"]] for r in lines],
    )  # fmt: skip


def main() -> None:
    options = parser(__doc__ or "", repeats=5)
    options.add_argument("--only", default="", help="networks whose name contains this")
    add_threads(options)
    given = options.parse_args()
    pin_threads(given.threads)
    warnings.simplefilter("ignore", ConvergenceWarning)
    lines = [line for row in ROWS if given.only in row.name for line in run(row, given.repeats)]
    write("variants", given.out, {"results": lines}, markdown(lines))


if __name__ == "__main__":
    main()
