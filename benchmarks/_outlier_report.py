"""What the rows of `bench_outlier.py` come to: means, paired tests, bootstrap, selection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from _report import table
from scipy.stats import wilcoxon

Rows = Mapping[str, Mapping[str, float]]
TITLES = {
    "random": "Random half of the normal rows for training",
    "file": "First half of the normal rows in the order of the file",
    "contaminated": "Trained on all rows, outliers among them, without labels",
}
MEASURES = ("auroc", "ap")
BOOTSTRAPS, HALVES = 10_000, 1_000


def per_set(rows: Rows, mode: str, detector: str, measure: str) -> dict[str, float]:
    """Means over seeds, by set."""
    found: dict[str, list[float]] = {}
    for key, row in rows.items():
        of_mode, name, _, of_detector = key.split("/")
        if (of_mode, of_detector) == (mode, detector):
            found.setdefault(name, []).append(row[measure])
    return {name: float(np.mean(values)) for name, values in found.items()}


def common_sets(rows: Rows, mode: str, detectors: Sequence[str]) -> list[str]:
    """The sets that all of these detectors have a row of."""
    each = [set(per_set(rows, mode, detector, "auroc")) for detector in detectors]
    return sorted(set.intersection(*each)) if each else []


def matrix(
    rows: Rows, mode: str, detectors: Sequence[str], sets: Sequence[str], measure: str
) -> np.ndarray:
    """Means over seeds, of shape (detectors, sets)."""
    each = [per_set(rows, mode, detector, measure) for detector in detectors]
    return np.array([[known[name] for name in sets] for known in each])


def interval(differences: np.ndarray) -> tuple[float, float]:
    """95 % of the means of sets drawn with replacement."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(differences), size=(BOOTSTRAPS, len(differences)))
    low, high = np.quantile(differences[drawn].mean(1), [0.025, 0.975])
    return float(low), float(high)


def compared(ours: np.ndarray, theirs: np.ndarray) -> list[str]:
    """Mean difference over sets with its interval, sets won, and Wilcoxon's p-value."""
    difference = ours - theirs
    if not difference.any():
        return ["0", "", "", ""]
    low, high = interval(difference)
    p = wilcoxon(difference).pvalue
    won = f"{(difference > 0).sum()} of {len(difference)}"
    return [f"{difference.mean():+.3f}", f"{low:+.3f} .. {high:+.3f}", won, f"{p:.2g}"]


def comparison(rows: Rows, mode: str, detectors: Sequence[str], sets: Sequence[str]) -> str:
    """Every detector's means, and ours less its."""
    values = {measure: matrix(rows, mode, detectors, sets, measure) for measure in MEASURES}
    seconds = {part: matrix(rows, mode, detectors, sets, part).mean(1) for part in ("fit", "score")}
    lines = []
    for i, name in enumerate(detectors):
        line = [name]
        for measure in MEASURES:
            ours, theirs = values[measure][0], values[measure][i]
            line += [f"{theirs.mean():.3f}", *(compared(ours, theirs) if i else ["", "", "", ""])]
        lines.append([*line, f"{seconds['fit'][i]:.2f}", f"{seconds['score'][i]:.2f}"])
    header = ["detector"]
    for measure in ("AUROC", "AP"):
        header += [measure, f"{detectors[0]} less it", "95 %", "sets won", "p"]
    return table([*header, "fit, s", "score, s"], lines)


def by_set(rows: Rows, mode: str, detectors: Sequence[str], sets: Sequence[str]) -> str:
    """AUROC / AP of every set."""
    auroc, ap = (matrix(rows, mode, detectors, sets, measure) for measure in MEASURES)
    lines = [
        [name, *(f"{auroc[i, j]:.3f} / {ap[i, j]:.3f}" for i in range(len(detectors)))]
        for j, name in enumerate(sets)
    ]
    return table(["AUROC / AP", *detectors], lines)


def selection(
    rows: Rows, mode: str, variants: Sequence[str], sets: Sequence[str], against: str
) -> str:
    """What choosing a variant on some sets is worth on the others."""
    values = sum(matrix(rows, mode, variants, sets, measure) for measure in MEASURES) / 2
    margin = {
        measure: matrix(rows, mode, variants, sets, measure)
        - matrix(rows, mode, [against], sets, measure)
        for measure in MEASURES
    }
    rng, chosen, won = np.random.default_rng(0), np.zeros(len(variants)), []
    for _ in range(HALVES):
        order = rng.permutation(len(sets))
        kept, left = order[: len(sets) // 2], order[len(sets) // 2 :]
        best = int(values[:, kept].mean(1).argmax())
        chosen[best] += 1
        won.append([margin[measure][best, left].mean() for measure in MEASURES])
    shares = ", ".join(f"{v} {c / HALVES:.0%}" for v, c in zip(variants, chosen, strict=True))
    auroc, ap = np.mean(won, 0)
    return (
        f"Selection with sets left out: of the variants ({', '.join(variants)}), the one with the "
        f"best mean of AUROC and AP on a random half of the sets is above {against} on the other "
        f"half by {auroc:+.3f} AUROC and {ap:+.3f} AP, on average over {HALVES} halvings. Chosen: "
        f"{shares}."
    )


def markdown(
    rows: Rows, detectors: Sequence[str], published: Mapping[str, float], max_rows: int
) -> str:
    """All modes."""
    limit = f"at most {max_rows} rows of a set" if max_rows else "all rows"
    text = [
        f"Means over sets of means over seeds; {limit}. Intervals: bootstrap over sets; p: "
        "Wilcoxon's signed-rank test over sets, two-sided. Seconds are means over sets. The "
        "defaults of skae were chosen among some tens of configurations on the 21 sets of ADBench "
        "that this benchmark is made for (docs/parameters.md), so that its means on them are "
        "optimistic: other sets are the fair test. Rows of one detector may be of an earlier "
        "commit than the last."
    ]
    for mode, title in TITLES.items():
        here = [name for name in detectors if per_set(rows, mode, name, "auroc")]
        sets = common_sets(rows, mode, here)
        if not sets:
            continue
        text += [f"## {title}", f"{len(sets)} sets; {_seeds(rows, mode)}."]
        text.append(comparison(rows, mode, here, sets))
        variants = [name for name in here if name.startswith("skae")]
        if len(variants) > 1 and "kNN" in here:
            text.append(selection(rows, mode, variants, sets, "kNN"))
        if mode == "file" and published:
            best = sorted(published.items(), key=lambda item: -item[1])
            means = ", ".join(f"{name} {value:.3f}" for name, value in best)
            text.append(f"Published means of AUROC on these sets (all their rows): {means}.")
        text.append(by_set(rows, mode, here, sets))
    return "\n\n".join(text)


def _seeds(rows: dict[str, dict[str, float]], mode: str) -> str:
    """How many seeds each detector has: "3 seeds (LOF, PCA: 1)"."""
    seeds: dict[str, set[str]] = {}
    for key in rows:
        of_mode, _, seed, detector = key.split("/")
        if of_mode == mode:
            seeds.setdefault(detector, set()).add(seed)
    most = max(map(len, seeds.values()))
    fewer = {n: [d for d in seeds if len(seeds[d]) == n] for n in range(1, most)}
    said = "; ".join(f"{', '.join(names)}: {n}" for n, names in fewer.items() if names)
    return f"{most} seeds" + (f" ({said})" if said else "")
