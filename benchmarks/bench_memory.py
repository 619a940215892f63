"""Memory that fitting a memory map larger than it adds, and rows a second. Linux only.

    python benchmarks/bench_memory.py [--gigabytes 4] [--threads 2] [--folder FOLDER] [--out FOLDER]

One epoch over a float32 file of 784 columns, in an interpreter of its own. Counted is anonymous
memory (RssAnon) at its highest, less what it was with torch and skae loaded: pages of the file are
the system's to take back.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from _report import add_threads, parser, pin_threads, table, write

from skae import Autoencoder

N_FEATURES = 784
CEILING_MB = 600
_BLOCK = 8192  # rows
_EVERY = 0.002  # seconds


def make_file(path: Path, gigabytes: float) -> int:
    """Write blocks of random rows; the number of rows."""
    rng = np.random.default_rng(0)
    block = rng.standard_normal((_BLOCK, N_FEATURES), dtype=np.float32)
    blocks = max(1, round(gigabytes * 2**30 / block.nbytes))
    with path.open("wb") as file:
        for _ in range(blocks):
            file.write(np.roll(block, rng.integers(N_FEATURES), axis=1).tobytes())
    return blocks * _BLOCK


def anonymous_mb() -> float:
    """Anonymous memory of this process, in 10^6 bytes."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1024 / 1e6  # type: ignore[index]


class Peak(threading.Thread):
    """Watches anonymous memory while it is open."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest, self.done = anonymous_mb(), threading.Event()

    def run(self) -> None:
        while not self.done.wait(_EVERY):
            self.highest = max(self.highest, anonymous_mb())

    def __enter__(self) -> Peak:
        self.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.done.set()
        self.join()


def fit(path: Path, early_stopping: bool) -> dict[str, float]:
    """Fit the file in this process."""
    X = np.memmap(path, dtype=np.float32, mode="r").reshape(-1, N_FEATURES)
    model = Autoencoder(
        n_components=64,
        hidden_layer_sizes=(),
        batch_size=1024,
        max_iter=1,
        tol=None,
        early_stopping=early_stopping,
        random_state=0,
    )
    before, began = anonymous_mb(), time.perf_counter()
    with Peak() as peak:
        model.fit(X)
    seconds = time.perf_counter() - began
    return {
        "before_mb": before,
        "added_mb": peak.highest - before,
        "seconds": seconds,
        "rows_per_second": len(X) / seconds,
        "loss": model.loss_,
    }


def fit_alone(path: Path, threads: int, early_stopping: bool) -> dict[str, float]:
    """`fit` in an interpreter of its own."""
    command = [sys.executable, __file__, "--fit", str(path), "--threads", str(threads)]
    command += ["--early-stopping"] * early_stopping
    return json.loads(subprocess.check_output(command, text=True))


def measure(gigabytes: float, folder: Path | None, threads: int) -> dict[str, Any]:
    """All runs on one file, which is deleted afterwards."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        path = Path(temporary, "X.float32")
        rows = make_file(path, gigabytes)
        size = path.stat().st_size
        print(f"{rows} rows, {size / 2**30:.2f} GiB in {path}", flush=True)
        runs = {
            name: fit_alone(path, threads, early_stopping)
            for name, early_stopping in (("fit", False), ("fit, early_stopping", True))
        }
    return {"rows": rows, "bytes": size, "ceiling_mb": CEILING_MB, "runs": runs}


def main() -> None:
    options = parser(__doc__ or "", repeats=1)
    options.add_argument("--gigabytes", type=float, default=4.0, help="default: %(default)s")
    options.add_argument("--folder", type=Path, help="for the file; default: the temporary folder")
    options.add_argument("--fit", type=Path, help="fit this file, here, and print the figures")
    options.add_argument("--early-stopping", action="store_true", help="with --fit")
    add_threads(options)
    given = options.parse_args()
    pin_threads(given.threads)
    if given.fit:
        print(json.dumps(fit(given.fit, given.early_stopping)))
        return
    results = measure(given.gigabytes, given.folder, given.threads)
    lines = [
        [name, f"{r['before_mb']:.0f}", f"{r['added_mb']:.0f}", CEILING_MB, f"{r['seconds']:.1f}",
         f"{r['rows_per_second']:.0f}"]
        for name, r in results["runs"].items()
    ]  # fmt: skip
    header = ["run", "before, MB", "added, MB", "ceiling, MB", "seconds", "rows / s"]
    title = f"{results['rows']} x {N_FEATURES} float32, {results['bytes'] / 2**30:.2f} GiB"
    write("memory", given.out, results, f"{title}\n\n{table(header, lines)}")


if __name__ == "__main__":
    main()
