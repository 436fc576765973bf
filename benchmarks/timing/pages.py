"""Draw the results of the benchmarks into the pages of the documentation.

Usage: PYTHONPATH=benchmarks python -m timing.pages
"""

import json
from pathlib import Path

from timing import tables

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
# page by the name of the benchmark whose tables it shows
PAGES = {
    "training": ROOT / "docs" / "development" / "performance.md",
    "curvature": ROOT / "docs" / "development" / "performance.md",
    "inference": ROOT / "docs" / "statistics.md",
    "planning": ROOT / "docs" / "slurm.md",
}


def draw(name: str, page: str) -> str:
    """Replace the part of a page that shows one benchmark, which comments enclose."""
    start = f"<!-- {name}: benchmarks/results/{name}.json -->\n"
    end = f"<!-- end of {name} -->"
    assert page.count(start) == page.count(end) == 1, name
    before, _, rest = page.partition(start)
    after = rest.partition(end)[2]
    content = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    return f"{before}{start}\n```text\n{tables.text(content)}\n```\n\n{end}{after}"


def update(name: str) -> None:
    """Draw one benchmark into its page again."""
    path = PAGES[name]
    path.write_text(draw(name, path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    for benchmark in PAGES:
        update(benchmark)
