"""Speed of `transform`: many rows against the bare matrix products, one row against PCA.

    python benchmarks/bench_transform.py [--repeats 20] [--threads 2] [--out FOLDER]

The bare products write to tensors that exist already, check nothing and leave the activation out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from _report import add_threads, interleaved, median_ratio, parser, pin_threads, table, write
from sklearn.decomposition import PCA
from torch import nn

from skae import Autoencoder

# (n_features, hidden_layer_sizes, n_components)
LARGE = [(784, (), 500), (784, (500,), 64)]
SINGLE = [(30, (), 16), (784, (), 64), (784, (500,), 64)]
LARGE_FLOOR = 0.8  # of the products' speed
SINGLE_CEILING = 2.0  # times PCA's time, where both multiply one matrix


def fitted(X: np.ndarray, hidden: tuple[int, ...], k: int) -> Autoencoder:
    """A ReLU autoencoder of these widths; what it learned does not matter here."""
    model = Autoencoder(n_components=k, hidden_layer_sizes=hidden, max_iter=1, tol=None)
    return model.set_params(random_state=0).fit(X)


def products(encoder: nn.Module, X: np.ndarray, activate: bool) -> Callable[[], torch.Tensor]:
    """The encoder's ``addmm`` calls into ready tensors, with ReLU in place or without."""
    layers = [part for part in encoder.modules() if isinstance(part, nn.Linear)]
    weights = [(layer.bias.detach(), layer.weight.detach().t()) for layer in layers]
    outputs = [torch.empty(len(X), layer.out_features) for layer in layers]
    last_is_active = isinstance(list(encoder.children())[-1], nn.ReLU)

    def run() -> torch.Tensor:
        x = torch.from_numpy(X)
        for i, ((b, W), out) in enumerate(zip(weights, outputs, strict=True)):
            x = torch.addmm(b, x, W, out=out)
            if activate and (last_is_active or i < len(layers) - 1):
                x.relu_()
        return x

    return run


def many_rows(widths: tuple[int, tuple[int, ...], int], n: int, repeats: int) -> dict[str, Any]:
    """Seconds of `transform` and of the products on n rows."""
    d, hidden, k = widths
    X = np.random.default_rng(0).standard_normal((n, d), dtype=np.float32)
    model = fitted(X[:256], hidden, k)
    calls: dict[str, Callable[[], Any]] = {
        "transform": lambda: model.transform(X),
        "products": products(model.encoder_, X, activate=False),
        "products and ReLU": products(model.encoder_, X, activate=True),
    }
    difference = np.abs(calls["transform"]() - calls["products and ReLU"]().numpy()).max()
    seconds = interleaved({name: _timer(call, 1) for name, call in calls.items()}, repeats)
    return {
        "network": _name(widths),
        "rows": n,
        "largest_difference": float(difference),
        "seconds": {name: median(times) for name, times in seconds.items()},
        "speed_of_products": median_ratio(seconds["products"], seconds["transform"]),
        "speed_with_relu": median_ratio(seconds["products and ReLU"], seconds["transform"]),
        "floor": LARGE_FLOOR,
        "every_repeat": seconds,
    }


def one_row(widths: tuple[int, tuple[int, ...], int], repeats: int, calls: int) -> dict[str, Any]:
    """Seconds of `transform` of a single row, and of PCA's to as many components."""
    d, hidden, k = widths
    X = np.random.default_rng(0).standard_normal((1000, d), dtype=np.float32)
    model, pca, row = fitted(X, hidden, k), PCA(k).fit(X), X[:1]
    seconds = interleaved(
        {
            "transform": _timer(lambda: model.transform(row), calls),
            "PCA": _timer(lambda: pca.transform(row), calls),
        },
        repeats,
    )
    return {
        "network": _name(widths),
        "calls": calls,
        "seconds": {name: median(times) for name, times in seconds.items()},
        "times_pca": median_ratio(seconds["transform"], seconds["PCA"]),
        "ceiling": None if hidden else SINGLE_CEILING,
        "every_repeat": seconds,
    }


def _timer(call: Callable[[], Any], calls: int) -> Callable[[int], float]:
    """Seconds a call, the mean over `calls` in a row, after one that is not counted."""

    def timed(repeat: int) -> float:
        call()
        began = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - began) / calls

    return timed


def _name(widths: tuple[int, tuple[int, ...], int]) -> str:
    d, hidden, k = widths
    return "-".join(map(str, (d, *hidden, k)))


def markdown(many: Sequence[dict[str, Any]], one: Sequence[dict[str, Any]]) -> str:
    """A table for many rows and one for a single row."""
    many_table = table(
        ["network", "rows", "transform, ms", "products, ms", "with ReLU, ms",
         "speed / products'", "floor", "speed / products' with ReLU"],
        [[r["network"], r["rows"], *(f"{s * 1e3:.1f}" for s in r["seconds"].values()),
          f"{r['speed_of_products']:.2f}", r["floor"], f"{r['speed_with_relu']:.2f}"]
         for r in many],
    )  # fmt: skip
    one_table = table(
        ["network", "one row, µs", "PCA, µs", "times PCA's", "ceiling"],
        [[r["network"], *(f"{s * 1e6:.0f}" for s in r["seconds"].values()),
          f"{r['times_pca']:.2f}", "" if r["ceiling"] is None else r["ceiling"]]
         for r in one],
    )  # fmt: skip
    return f"{many_table}\n\n{one_table}"


def main() -> None:
    options = parser(__doc__ or "", repeats=20)
    options.add_argument("--rows", type=int, default=20_000, help="default: %(default)s")
    options.add_argument("--calls", type=int, default=300, help="single rows a repeat")
    add_threads(options)
    given = options.parse_args()
    pin_threads(given.threads)
    many = [many_rows(widths, given.rows, given.repeats) for widths in LARGE]
    one = [one_row(widths, given.repeats, given.calls) for widths in SINGLE]
    write("transform", given.out, {"many_rows": many, "one_row": one}, markdown(many, one))


if __name__ == "__main__":
    main()
