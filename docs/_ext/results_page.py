"""The page of measured tables: every `benchmarks/results/*.md`, as the scripts wrote it."""

from pathlib import Path

from sphinx.application import Sphinx

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"

HEAD = """\
# Measured

The tables as the scripts wrote them, times first, then papers' claims. The first line of each is
the script: `python benchmarks/<script>.py` writes it again.
"""


def tables() -> list[Path]:
    """The tables, those of `bench_*.py` first."""
    return sorted(
        RESULTS.glob("*.md"), key=lambda file: (not file.read_text().startswith("# bench_"), file)
    )


def shown(file: Path) -> str:
    """A table, and the pictures that belong to it."""
    included = f"```{{include}} ../benchmarks/results/{file.name}\n:heading-offset: 1\n```\n"
    pictures = sorted(RESULTS.glob(f"{file.stem}*.png"))
    return included + "".join(
        f"\n![{picture.stem}](../benchmarks/results/{picture.name})\n" for picture in pictures
    )


def setup(app: Sphinx) -> dict:
    page = Path(app.srcdir) / "measured.md"
    text = "\n".join([HEAD, *map(shown, tables())])
    if not page.exists() or page.read_text() != text:
        page.write_text(text)
    return {"parallel_read_safe": True}
