"""Time of `fit` of variational autoencoders against the peers, at equal work and final bound.

python benchmarks/bench_variational.py [--only 30-16] [--repeats 5] [--threads 2] [--out FOLDER]

Also against the plain autoencoder with the same layers: what a random code costs in a step.
"""

from __future__ import annotations

import dataclasses
import gc
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median
from typing import Any

import _reproduce
import datasets
import numpy as np
from _report import add_threads, interleaved, median_ratio, parser, pin_threads, table, write
from sklearn.exceptions import ConvergenceWarning
from variational_competitors import COMPETITORS, LEARNED, Fitted, Task

OURS, REFERENCE, PYTHAE, PLAIN = "skae", "torch loop", "pythae", "plain autoencoder"
TOLERANCE = 0.05  # how far a peer's bound may be from ours, as a fraction
FLOOR = 3.0  # how many times faster than a peer skae has to be on small networks
CEILING = 1.6  # what a step may cost, times the plain autoencoder's


@dataclass(frozen=True)
class Network:
    """Sizes, data in {0, 1} and data of variance 1, and what is asked of skae."""

    name: str
    width: int
    code: int
    binary: Callable[[], np.ndarray]
    scaled: Callable[[], np.ndarray]
    batches: dict[int, int]  # batch size: epochs
    floor: float | None = None
    ceiling: float | None = None


@dataclass(frozen=True)
class Row:
    """One task, and those who take it."""

    network: Network
    likelihood: str
    batch_size: int
    samples: int = 1

    @property
    def name(self) -> str:
        """Of the row in the table."""
        bound = "" if self.samples == 1 else f", S = {self.samples}"
        return f"{self.network.name}, batch {self.batch_size}, {self.likelihood}{bound}"

    @property
    def competitors(self) -> list[str]:
        """skae and the peers that have this model and are installed."""
        names = [OURS, REFERENCE, "torch loop, tuned"]
        if self.samples > 1:
            return names
        if self.likelihood != LEARNED and find_spec(PYTHAE):
            names.append(PYTHAE)
        return [*names, PLAIN]

    def limit(self, competitor: str) -> str:
        """What skae is held to, in the words of the table."""
        if self.samples > 1:
            return ""
        if competitor in (REFERENCE, PYTHAE) and self.network.floor:
            return f"at least {self.network.floor}"
        if competitor == PLAIN and self.network.ceiling:
            return f"at least {1 / self.network.ceiling:.3f}"
        return ""

    def task(self, epochs: int | None) -> Task:
        """What to train."""
        n = self.network
        X = n.binary() if self.likelihood == "bernoulli" else n.scaled()
        epochs = epochs or n.batches[self.batch_size]
        return Task(X, self.likelihood, n.width, n.code, self.batch_size, epochs, self.samples)


def above_the_median() -> np.ndarray:
    """Where the small table's values lie above their column's median."""
    X = datasets.breast_cancer()
    return np.greater(X, np.median(X, 0)).astype(np.float32)


def dark_pixels() -> np.ndarray:
    """The first 10,000 digits of MNIST in black and white."""
    return (_reproduce.mnist()[0][:10_000] > 0.5).astype(np.float32)


NETWORKS = [
    Network("30-16-(4)-16-30", 16, 4, above_the_median, datasets.breast_cancer, {32: 200, 200: 600},
            floor=FLOOR),
    Network("784-500-(20)-500-784", 500, 20, dark_pixels, datasets.mnist, {256: 10},
            ceiling=CEILING),
]  # fmt: skip
LIKELIHOODS = ("bernoulli", "gaussian", LEARNED)
ROWS = [
    Row(network, likelihood, batch_size, samples)
    for network in NETWORKS
    for samples in (1, 5)
    for batch_size in network.batches
    for likelihood in LIKELIHOODS
]


def run(row: Row, repeats: int, epochs: int | None) -> dict[str, Any]:
    """Every repeat of every competitor, and their summaries."""
    task = row.task(epochs)
    print(f"{row.name}: {task.epochs} epochs, {task.steps} steps, {len(task.X)} rows", flush=True)
    once = dataclasses.replace(task, epochs=1)
    for name in row.competitors:  # what is loaded or compiled at a first use is not counted
        COMPETITORS[name](once, 0)
    runs = interleaved({name: _runner(name, task) for name in row.competitors}, repeats)
    return {
        "row": row.name,
        "rows": len(task.X),
        "epochs": task.epochs,
        "steps": task.steps,
        "learning_rate": task.learning_rate,
        "seeds": list(range(repeats)),
        "competitors": {name: _summary(name, row, task, runs) for name in runs},
    }


def _runner(name: str, task: Task) -> Callable[[int], Fitted]:
    def fit(seed: int) -> Fitted:
        gc.collect()
        return COMPETITORS[name](task, seed)

    return fit


def _summary(name: str, row: Row, task: Task, runs: dict[str, list[Fitted]]) -> dict[str, Any]:
    """A competitor's line: medians over the repeats."""
    seconds, ours = ([fitted.seconds for fitted in runs[each]] for each in (name, OURS))
    bound, our_bound = (median(fitted.bound for fitted in runs[each]) for each in (name, OURS))
    return {
        "seconds": median(seconds),
        "microseconds_per_step": median(seconds) / task.steps * 1e6,
        "times_skae": median_ratio(seconds, ours),
        "limit": row.limit(name),
        "bound": bound,
        "difference": None if name == PLAIN else bound / our_bound - 1,
        "every_repeat": [fitted._asdict() for fitted in runs[name]],
    }


def _said(difference: float | None) -> str:
    """How a peer's bound compares with ours."""
    if difference is None:
        return ""
    if abs(difference) <= TOLERANCE:
        return f"{difference:+.1%}"
    return f"{difference:+.1%} ({'worse' if difference > 0 else 'better'})"


def markdown(results: list[dict[str, Any]]) -> str:
    """All rows in one table."""
    lines = [
        [result["row"], name, f"{s['seconds']:.3f}", f"{s['microseconds_per_step']:.0f}",
         f"{s['times_skae']:.2f}", s["limit"], "" if name == PLAIN else f"{s['bound']:.3f}",
         _said(s["difference"])]
        for result in results
        for name, s in result["competitors"].items()
    ]  # fmt: skip
    header = ["network", "trained by", "seconds", "µs per step", "times skae's", "asked",
              "negative bound, nats", "against skae's"]  # fmt: skip
    return table(header, lines)


def main() -> None:
    options = parser(__doc__ or "", repeats=5)
    options.add_argument("--only", default="", help="rows whose name contains this")
    options.add_argument("--epochs", type=int, help="for a trial; bounds then differ")
    add_threads(options)
    given = options.parse_args()
    pin_threads(given.threads)
    warnings.simplefilter("ignore", ConvergenceWarning)
    if not find_spec(PYTHAE):
        print(f"{PYTHAE} is left out: pip install {PYTHAE}")
    results = [run(row, given.repeats, given.epochs) for row in ROWS if given.only in row.name]
    write("variational", given.out, {"results": results}, markdown(results))


if __name__ == "__main__":
    main()
