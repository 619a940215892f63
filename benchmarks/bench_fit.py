"""Time of `fit` against the peers, at equal architecture, epochs, batch size and final loss.

python benchmarks/bench_fit.py [--only 30-16-30] [--repeats 5] [--threads 2] [--out FOLDER]
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median
from typing import Any

import datasets
import numpy as np
from _report import (
    add_threads,
    has_amx,
    interleaved,
    median_ratio,
    parser,
    pin_threads,
    table,
    write,
)
from competitors import COMPETITORS, Fitted, Task

REFERENCE = "torch loop"
OPTIONAL = {"skorch": "skorch", "PyOD": "pyod"}


@dataclass(frozen=True)
class Row:
    """One task, who takes it, and what is asked of skae."""

    name: str
    data: Callable[[], np.ndarray]
    width: int
    batch_size: int
    epochs: int
    floors: dict[str, float]  # how many times faster than a peer skae has to be
    others: tuple[str, ...] = ()  # peers that are only reported
    skae: str = "skae"
    tolerance: float = 0.05  # how far losses may be from the reference's
    needs_amx: bool = False

    @property
    def competitors(self) -> list[str]:
        """skae and those of the peers that are installed."""
        names = (self.skae, *self.floors, *self.others)
        return [n for n in names if n not in OPTIONAL or find_spec(OPTIONAL[n])]


@dataclass(frozen=True)
class Summary:
    """A competitor's line: medians over the repeats."""

    seconds: float
    microseconds_per_step: float
    times_skae: float  # its seconds / skae's, median over the repeats of their ratio
    floor: float | None
    loss: float
    loss_ratio: float  # to the reference's median
    is_equal: bool
    every_repeat: list[dict[str, float]]


_SMALL = {"scikit-learn MLPRegressor": 3.5, REFERENCE: 7.0, "skorch": 10.0, "PyOD": 10.0}
_ALL_OTHERS = ("scikit-learn MLPRegressor", "torch loop, tuned", "skorch", "PyOD")

ROWS = [
    Row("30-16-30, batch 32", datasets.breast_cancer, 16, 32, 200, _SMALL, ("torch loop, tuned",)),
    Row("30-16-30, batch 200", datasets.breast_cancer, 16, 200, 200, _SMALL,
        ("torch loop, tuned",)),
    Row("784-500-784, batch 256", datasets.mnist, 500, 256, 15, {REFERENCE: 1.6}, _ALL_OTHERS),
    Row("784-500-784, batch 256, bfloat16", datasets.mnist, 500, 256, 15, {REFERENCE: 3.0},
        ("torch loop, autocast",), "skae, bfloat16", 0.02, needs_amx=True),
]  # fmt: skip


def run(row: Row, X: np.ndarray, repeats: int, epochs: int | None) -> dict[str, Any]:
    """Every repeat of every competitor, and their summaries."""
    task = Task(X, row.width, row.batch_size, epochs or row.epochs)
    print(f"{row.name}: {task.epochs} epochs, {task.steps} steps, {len(task.X)} rows", flush=True)
    once = dataclasses.replace(task, epochs=1)
    for name in row.competitors:  # what is loaded or compiled at a first use is not counted
        COMPETITORS[name](once, 0)
    runs = interleaved({n: _runner(n, task) for n in row.competitors}, repeats)
    return {
        "row": row.name,
        "rows": len(task.X),
        "epochs": task.epochs,
        "steps": task.steps,
        "learning_rate": task.learning_rate,
        "seeds": list(range(repeats)),
        "competitors": {n: dataclasses.asdict(_summary(n, row, task, runs)) for n in runs},
    }


def _runner(name: str, task: Task) -> Callable[[int], Fitted]:
    def fit(seed: int) -> Fitted:
        gc.collect()
        return COMPETITORS[name](task, seed)._replace(model=None)

    return fit


def _summary(name: str, row: Row, task: Task, runs: dict[str, list[Fitted]]) -> Summary:
    seconds = [fitted.seconds for fitted in runs[name]]
    loss = median(fitted.loss for fitted in runs[name])
    loss_ratio = loss / median(fitted.loss for fitted in runs[REFERENCE])
    return Summary(
        seconds=median(seconds),
        microseconds_per_step=median(seconds) / task.steps * 1e6,
        times_skae=median_ratio(seconds, [fitted.seconds for fitted in runs[row.skae]]),
        floor=row.floors.get(name),
        loss=loss,
        loss_ratio=loss_ratio,
        is_equal=abs(loss_ratio - 1) <= row.tolerance,
        every_repeat=[{"seconds": f.seconds, "loss": f.loss} for f in runs[name]],
    )


def markdown(results: list[dict[str, Any]]) -> str:
    """All rows in one table."""
    lines = []
    for result in results:
        for name, s in result["competitors"].items():
            lines.append([
                result["row"],
                name,
                f"{s['seconds']:.3f}",
                f"{s['microseconds_per_step']:.0f}",
                f"{s['times_skae']:.2f}",
                "" if s["floor"] is None else s["floor"],
                f"{s['loss']:.5f}",
                f"{s['loss_ratio'] - 1:+.1%}" + ("" if s["is_equal"] else " (not equal)"),
            ])  # fmt: skip
    header = ["network", "trained by", "seconds", "µs per step", "times skae's", "floor",
              "final loss", f"against {REFERENCE}"]  # fmt: skip
    return table(header, lines)


def main() -> None:
    options = parser(__doc__ or "", repeats=5)
    options.add_argument("--only", default="", help="rows whose name contains this")
    options.add_argument("--epochs", type=int, help="for a trial; losses then differ")
    add_threads(options)
    given = options.parse_args()
    pin_threads(given.threads)
    for name, package in OPTIONAL.items():
        if not find_spec(package):
            print(f"{name} is left out: pip install {package}")
    results = []
    for row in ROWS:
        if given.only not in row.name:
            continue
        if row.needs_amx and not has_amx():
            print(f"{row.name}: left out, this processor has no AMX")
            continue
        try:
            X = row.data()
        except OSError as error:
            print(f"{row.name}: left out, its data cannot be read: {error}")
            continue
        results.append(run(row, X, given.repeats, given.epochs))
    write("fit", given.out, {"results": results}, markdown(results))


if __name__ == "__main__":
    main()
