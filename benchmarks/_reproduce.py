"""What every reproduction shares: its data, its options, and a table that grows row by row."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from _report import HERE, pin_threads, table, write


def parser(description: str) -> argparse.ArgumentParser:
    """The options that all reproductions take."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    options.add_argument("--quick", action="store_true", help="few rows and epochs: a trial")
    options.add_argument("--only", default="", help="rows whose name contains this")
    options.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results")
    return options


def data_path(*parts: str) -> Path:
    """A file below ``$SKAE_DATA``."""
    folder = os.environ.get("SKAE_DATA")
    if not folder:
        raise SystemExit("Set SKAE_DATA to the folder of the data (benchmarks/README.md).")
    path = Path(folder, *parts)
    if not path.is_file():
        raise SystemExit(f"There is no {path}. See benchmarks/README.md for the data.")
    return path


def mnist() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """X_train, y_train, X_test, y_test: pixels in [0, 1] as float32, of shape (n, 784)."""
    data = np.load(data_path("images", "mnist.npz"))
    pixels = (
        data[name].reshape(-1, 784).astype(np.float32) / 255 for name in ("X_train", "X_test")
    )
    X_train, X_test = pixels
    return X_train, data["y_train"].astype(int), X_test, data["y_test"].astype(int)


@dataclass
class Table:
    """Rows of a reproduction, written to ``results/`` whenever one is added: a run may be cut.

    With `--only`, rows that an earlier run wrote are kept.
    """

    name: str  # of the two files
    header: Sequence[str]  # the first column is the row's name
    options: argparse.Namespace
    notes: str = ""  # below the table: protocol, budget, seeds
    rows: dict[str, list[Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    order: Sequence[str] = ()  # of the rows, where they may come in another
    kind: str = "reproduce"  # what the script's name begins with

    def __post_init__(self) -> None:
        pin_threads(self.options.threads)

    @property
    def _file(self) -> str:
        return self.name + ("_quick" if self.options.quick else "")

    def _keep_earlier(self) -> None:
        """Take over what other runs have written by now."""
        earlier = self.options.out / f"{self._file}.json"
        if self.options.only and earlier.is_file():
            known = json.loads(earlier.read_text())
            self.rows, self.seconds = (
                known[name] | getattr(self, name) for name in ("rows", "seconds")
            )

    def wants(self, row: str) -> bool:
        """Whether `--only` asks for this row."""
        return self.options.only in row

    def add(self, row: str, make: Callable[[], Sequence[Any]]) -> None:
        """Run `make`, which gives the row's cells, and write the table anew."""
        if not self.wants(row):
            return
        began = time.perf_counter()
        cells = list(make())
        self.seconds[row] = time.perf_counter() - began
        self.rows[row] = cells
        print(f"{row}: {cells} in {self.seconds[row]:.0f} s", flush=True)
        self.write()

    def write(self) -> None:
        """The table, with versions, machine, threads and the seconds of every row."""
        self._keep_earlier()
        rank = {name: i for i, name in enumerate(self.order)}
        self.rows = dict(sorted(self.rows.items(), key=lambda row: rank.get(row[0], len(rank))))
        lines = [[row, *map(_cell, cells), f"{self.seconds[row]:.0f}"]
                 for row, cells in self.rows.items()]  # fmt: skip
        text = table([*self.header, "seconds"], lines)
        facts = {"rows": self.rows, "seconds": self.seconds, "notes": self.notes} | self.facts
        text = f"{text}\n\n{self.notes}".rstrip()
        write(self._file, self.options.out, facts, text, kind=self.kind)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
