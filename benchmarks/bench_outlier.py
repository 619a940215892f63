"""One-class detection on every set of a folder: the ready-made detector beside its peers.

SKAE_DATA=... python benchmarks/bench_outlier.py [FOLDER] [--seeds 5] [--only skae kNN] [--again]
    [--sets cardio] [--modes random file contaminated] [--max-rows 10000] [--out FOLDER]

FOLDER holds ``.npz`` files with X and y, y = 1 for anomalies; the default is
``$SKAE_DATA/adbench``. One configuration of ours, the default, for all sets. Every mode scales X to
mean 0 and variance 1 by its training rows alone, and takes at most `max_rows` rows of a set, drawn
at random (0 lifts the limit).

- random: a random half of the normal rows for training, the other half and all anomalies for
  testing.
- file: the same, but the first half in the order of the file, and sets of fewer than 1,000 rows
  are first drawn to 1,000 with replacement: the split behind the published means
  (Livernoche et al., "On diffusion modeling for anomaly detection", ICLR 2024).
- contaminated: all rows, unlabelled, for training, and the same rows for testing.

Results are kept row by row in ``outlier.json``: what is there already is not run again without
`--again`, so that a run may be cut, and peers run once.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _detectors import OURS, PEERS, Outcome
from _outlier_report import markdown
from _report import HERE, pin_threads, write
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

MODES = ("random", "file", "contaminated")
DETECTORS = OURS | PEERS
SELECTED_IN = ("random",)  # modes in which the variants of ours run too
RESAMPLED_BELOW = 1000


def options() -> argparse.Namespace:
    given = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    given.add_argument("folder", type=Path, nargs="?", help="default: $SKAE_DATA/adbench")
    given.add_argument("--seeds", type=int, default=5, help="default: %(default)s")
    given.add_argument("--only", nargs="+", choices=list(DETECTORS), default=list(DETECTORS),
                       metavar="DETECTOR", help=f"of {', '.join(DETECTORS)}")  # fmt: skip
    given.add_argument("--again", action="store_true", help="run anew what is there already")
    given.add_argument("--sets", default="", help="sets whose name contains this")
    given.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    given.add_argument("--max-rows", type=int, default=10_000, help="default: %(default)s")
    given.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    given.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results")
    given.add_argument("--name", default="outlier", help="of the result files")
    found = given.parse_args()
    if found.folder is None:
        if "SKAE_DATA" not in os.environ:
            raise SystemExit("Give a folder, or set SKAE_DATA (benchmarks/README.md).")
        found.folder = Path(os.environ["SKAE_DATA"], "adbench")
    if not list(found.folder.glob("*.npz")):
        raise SystemExit(f"There are no .npz files in {found.folder}.")
    return found


def split(
    path: Path, mode: str, seed: int, max_rows: int
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Scaled training rows, scaled rows to test (None: the same), and labels of the latter."""
    data = np.load(path, allow_pickle=False)
    X, y = data["X"].astype(np.float64), data["y"].astype(int)
    rng = np.random.default_rng([seed, zlib.crc32(path.stem.encode())])
    if mode == "file" and len(X) < RESAMPLED_BELOW:
        drawn = np.sort(rng.integers(len(X), size=RESAMPLED_BELOW))
        X, y = X[drawn], y[drawn]
    if max_rows and len(X) > max_rows:
        kept = np.sort(rng.permutation(len(X))[:max_rows])
        X, y = X[kept], y[kept]
    if mode == "contaminated":
        return StandardScaler().fit_transform(X), None, y
    normal = np.flatnonzero(y == 0)
    if mode == "random":
        normal = rng.permutation(normal)
    half = round(len(normal) / 2)
    train, test = normal[:half], np.r_[normal[half:], np.flatnonzero(y == 1)]
    scaler = StandardScaler().fit(X[train])
    return scaler.transform(X[train]), scaler.transform(X[test]), y[test]


def measure(outcome: Outcome, y: np.ndarray) -> dict[str, float]:
    """What a row of results holds."""
    return {
        "auroc": float(roc_auc_score(y, outcome.scores)),
        "ap": float(average_precision_score(y, outcome.scores)),
        "fit": outcome.fit,
        "score": outcome.score,
    }


def wanted(given: argparse.Namespace) -> Iterator[tuple[str, Path, int, str]]:
    """(mode, set, seed, detector) of all rows: a set's detectors run one after the other."""
    paths = [path for path in sorted(given.folder.glob("*.npz")) if given.sets in path.stem]
    for mode in given.modes:
        for seed in range(given.seeds):
            for path in paths:
                for name in DETECTORS:
                    is_variant = name in OURS and name != "skae"
                    if is_variant and mode not in SELECTED_IN:
                        continue
                    if name in given.only:
                        yield mode, path, seed, name


def run(given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """All rows, those of earlier runs included, by "mode/set/seed/detector"."""
    file = given.out / f"{given.name}.json"
    earlier = json.loads(file.read_text()) if file.is_file() else {}
    if earlier and earlier["max_rows"] != given.max_rows:
        raise SystemExit(
            f"{file} has rows of --max-rows {earlier['max_rows']}. Give another --name or --out."
        )
    rows: dict[str, dict[str, float]] = earlier.get("rows", {})
    at, parts = None, None
    for mode, path, seed, name in wanted(given):
        key = f"{mode}/{path.stem}/{seed}/{name}"
        if key in rows and not given.again:
            continue
        if at != (mode, path, seed):
            at, parts = (mode, path, seed), split(path, mode, seed, given.max_rows)
            save(given, rows)
        train, test, y = parts  # type: ignore[misc]
        rows[key] = measure(DETECTORS[name](train, test, seed), y)
        print(key, {k: round(v, 3) for k, v in rows[key].items()}, flush=True)
    return rows


def save(given: argparse.Namespace, rows: dict[str, Any]) -> None:
    """Keep what is there: a run may be cut."""
    given.out.mkdir(parents=True, exist_ok=True)
    kept = {"max_rows": given.max_rows, "rows": rows}
    (given.out / f"{given.name}.json").write_text(json.dumps(kept, indent=0) + "\n")


def published(names: Sequence[str]) -> dict[str, float]:
    """Mean AUROC in [0, 1] that others report on these sets, by detector; empty where unknown."""
    folder = Path(os.environ.get("SKAE_DATA", "."), "published")
    found = sorted(folder.glob("*semisupervised_auroc.csv"))
    if not found:
        return {}
    with found[0].open() as lines:
        known = {row.pop("Dataset").lower(): row for row in csv.DictReader(lines)}
    wanted_rows = [known[key] for name in names if (key := name.split("_", 1)[-1].lower()) in known]
    if len(wanted_rows) < len(names):
        return {}
    return {
        peer: float(np.mean([float(row[peer]) for row in wanted_rows])) / 100
        for peer in wanted_rows[0]
    }


def main() -> None:
    given = options()
    pin_threads(given.threads)
    rows = run(given)
    names = sorted({key.split("/")[1] for key in rows})
    # PyOD's may have been run where it was installed.
    detectors = list(dict.fromkeys([*DETECTORS, *(key.split("/")[3] for key in rows)]))
    text = markdown(rows, detectors, published(names), given.max_rows)
    write(given.name, given.out, {"max_rows": given.max_rows, "rows": rows}, text)


if __name__ == "__main__":
    main()
