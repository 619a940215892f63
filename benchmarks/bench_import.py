"""Time to import skae against torch and scikit-learn alone, in fresh interpreters.

python benchmarks/bench_import.py [--repeats 15] [--out FOLDER]
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from statistics import median

from _report import interleaved, median_ratio, parser, table, write

BASE = "torch and sklearn"
STATEMENTS = {
    BASE: "import torch, sklearn",
    # What an estimator of any package needs; `import sklearn` loads most of it already.
    "and what estimators need": "import torch, sklearn.base, sklearn.utils.validation, "
    "sklearn.utils.metaestimators",
    # Part of every estimator; it imports rich, where that is installed.
    "and scikit-learn's callbacks": "import torch, sklearn.callback",
    "one estimator": "from skae import Autoencoder",
    "every public name": "from skae import *",
}
CEILING = 1.1

_TIMED = """
import time
began = time.perf_counter()
{}
print(time.perf_counter() - began)
"""


def importing(statement: str) -> Callable[[int], float]:
    """Seconds of an import statement in an interpreter of its own."""

    # All with their bytecode on disk, as pip leaves it, also where Python is told to write none.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

    def run(repeat: int) -> float:
        command = [sys.executable, "-c", _TIMED.format(statement)]
        return float(subprocess.check_output(command, text=True, env=environment))

    return run


def main() -> None:
    given = parser(__doc__ or "", repeats=15).parse_args()
    runs = {name: importing(statement) for name, statement in STATEMENTS.items()}
    interleaved(runs, 1)  # files into the page cache, bytecode to disk
    seconds = interleaved(runs, given.repeats)
    ratios = {name: median_ratio(seconds[name], seconds[BASE]) for name in seconds}
    results = {
        "statements": STATEMENTS,
        "seconds": {name: median(times) for name, times in seconds.items()},
        "ratios": ratios,
        "ceiling": CEILING,
        "every_repeat": seconds,
    }
    lines = [
        [name, f"`{STATEMENTS[name]}`", f"{median(seconds[name]):.2f}", f"{ratios[name]:.3f}",
         CEILING if name == "one estimator" else ""]
        for name in seconds
    ]  # fmt: skip
    header = ["what", "statement", "seconds", "ratio", "ceiling"]
    write("import", given.out, {"results": results}, table(header, lines))


if __name__ == "__main__":
    main()
