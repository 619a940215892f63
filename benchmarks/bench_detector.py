"""Time of the ready-made outlier detector, and memory that scoring many rows adds.

python benchmarks/bench_detector.py [--repeats 3] [--threads 2] [--out FOLDER]

Rows of 20 features from six factors and noise: fit and score with the defaults, and scores of many
rows with the defaults and with the smallest setting. Memory is anonymous (RssAnon), at its highest
while they are first scored, less what it was before. Linux only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from _report import add_threads, parser, pin_threads, table, write
from bench_memory import Peak, anonymous_mb

from skae import AutoencoderOutlierDetector

N_FEATURES, N_FIT = 20, 5_000
SMALLEST: dict[str, Any] = {
    "n_estimators": 2, "hidden_layer_sizes": (16,), "n_kernel_denoisers": 0,
}  # fmt: skip
SETTINGS = {"defaults": ({}, 200_000), "two networks of 16 units": (SMALLEST, 1_000_000)}
HEADER = ["setting", "fit 5,000 rows, s", "score them, s", "rows scored", "rows/s", "MB added"]


def rows(n: int) -> np.ndarray:
    """Six factors and noise, of shape (n, 20)."""
    mixing = np.random.default_rng(0).normal(size=(6, N_FEATURES))
    rng = np.random.default_rng(n)
    return rng.normal(size=(n, 6)) @ mixing + 0.3 * rng.normal(size=(n, N_FEATURES))


def seconds(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def measured(name: str, repeats: int) -> dict[str, Any]:
    """A row's figures: medians over the repeats, and all of them."""
    options, n = SETTINGS[name]
    X, many = rows(N_FIT), rows(n)
    detector = AutoencoderOutlierDetector(random_state=0, **options)
    detector.fit(X[:100])  # what is loaded at a first use is not counted
    fit = [seconds(lambda: detector.fit(X)) for _ in range(repeats)]
    score = [seconds(lambda: detector.score_samples(X)) for _ in range(repeats)]
    before = anonymous_mb()
    with Peak() as peak:  # on its own: the watching takes time
        detector.score_samples(many)
    added = peak.highest - before
    scored = [seconds(lambda: detector.score_samples(many)) for _ in range(repeats)]
    return {
        "name": name,
        "rows": n,
        "fit": fit,
        "score": score,
        "scored": scored,
        "added_mb": added,
    }


def main() -> None:
    options = parser(__doc__ or "", repeats=3)
    add_threads(options)
    given = options.parse_args()
    pin_threads(given.threads)
    results = [measured(name, given.repeats) for name in SETTINGS]
    lines = [
        [r["name"], f"{median(r['fit']):.2f}", f"{median(r['score']):.2f}", r["rows"],
         f"{r['rows'] / median(r['scored']):,.0f}", f"{r['added_mb']:.0f}"]
        for r in results
    ]  # fmt: skip
    write("detector", given.out, {"results": results}, table(HEADER, lines))


if __name__ == "__main__":
    main()
