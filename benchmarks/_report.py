"""What every benchmark shares: where it ran, interleaved repeats, and its two result files."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from threadpoolctl import threadpool_limits

HERE = Path(__file__).resolve().parent
PACKAGES = ("skae", "torch", "scikit-learn", "numpy", "scipy", "skorch", "pyod", "pythae")


def parser(description: str, repeats: int) -> argparse.ArgumentParser:
    """The options that all benchmarks take."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--repeats", type=int, default=repeats, help="default: %(default)s")
    options.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results")
    return options


def add_threads(options: argparse.ArgumentParser) -> None:
    """An option for the number of threads."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    options.add_argument("--threads", type=int, default=cores, help="default: all cores")


def pin_threads(n: int) -> None:
    """Give torch and the libraries under NumPy n threads each."""
    threadpool_limits(n)
    torch.set_num_threads(n)


def has_amx() -> bool:
    """Whether the processor multiplies bfloat16 matrices in hardware."""
    return "amx_bf16" in _cpu_info("flags").split()


def interleaved(runs: dict[str, Callable[[int], Any]], repeats: int) -> dict[str, list[Any]]:
    """Results of ``run(repeat)``, in the order A B C, A B C: a slow minute slows all alike."""
    results: dict[str, list[Any]] = {name: [] for name in runs}
    for repeat in range(repeats):
        for name, run in runs.items():
            results[name].append(run(repeat))
            print(".", end="", flush=True)
    print(flush=True)
    return results


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median of the ratios within each repeat."""
    return median(a / b for a, b in zip(above, below, strict=True))


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def write(
    name: str, out: Path, results: dict[str, Any], markdown: str, kind: str = "bench"
) -> None:
    """Write ``name.json`` (every repeat) and ``name.md``, and print the latter."""
    facts: dict[str, Any] = {
        "command": ["python", *sys.argv],
        "commit": _commit(),
        "machine": _machine(),
        "versions": _versions(),
        "threads": torch.get_num_threads(),
    }
    where = ", ".join(f"{k} {v}" for k, v in facts["versions"].items())
    machine = "{cpu}, {cores} cores, {memory_gb} GB, {system}".format(**facts["machine"])
    head = f"{machine}; {facts['threads']} threads; {where}; commit {facts['commit']}."
    text = f"# {kind}_{name}\n\n{head}\n\n{markdown}\n"
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(facts | results, indent=1) + "\n")
    (out / f"{name}.md").write_text(text)
    if kind == "bench":
        print(text)


def _machine() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu_info("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "amx": has_amx(),
        "memory_gb": round(memory / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "load_at_end": os.getloadavg(),
    }


def _cpu_info(key: str) -> str:
    """A field of Linux's list of processors; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    """The commit that is checked out, "+" if files other than results differ from it."""
    git, others = ["git", "-C", str(HERE)], [":(top)", ":(exclude)results"]
    try:
        commit = subprocess.check_output([*git, "rev-parse", "--short", "HEAD"], text=True).strip()
        differs = subprocess.call([*git, "diff", "--quiet", "HEAD", "--", *others])
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + "+" * bool(differs)
