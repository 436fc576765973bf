"""Check the example of docs/curvature.md, and that the page names all operators and numbers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from plasticity.config import registry
from plasticity.curvature import spectrum

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "curvature.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
(SHOWN,) = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?")


def run_example(example):
    """Run a program, and return the lines that it prints."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "workflow" / "scripts"),
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.run(
        [sys.executable, "-c", example],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.strip().splitlines()


def numbers_in(text):
    return [float(number) for number in NUMBER.findall(text)]


@pytest.fixture(scope="module")
def lines():
    return run_example(EXAMPLE)


def test_example_is_short():
    assert len(EXAMPLE.splitlines()) <= 30


def test_example_prints_what_the_page_shows(lines):
    shown = SHOWN.strip().splitlines()
    assert [NUMBER.sub("#", line) for line in lines] == [NUMBER.sub("#", line) for line in shown]
    for line, expected in zip(lines, shown, strict=True):
        for number, text in zip(numbers_in(line), NUMBER.findall(expected), strict=True):
            is_error = re.search(rf"± {re.escape(text)}", expected)
            tolerance = 0.5 if is_error else 0.03
            assert number == pytest.approx(float(text), rel=tolerance), expected


ESTIMATED_LINE = re.compile(r"trace (\S+) ± (\S+), stable rank (\S+) ± (\S+),")


def numbers_of_line(line):
    """Parse trace, its error, stable rank and its error."""
    return [float(number) for number in ESTIMATED_LINE.search(line).groups()]


@pytest.mark.slow
def test_estimates_are_within_their_margins_of_the_exact_numbers(lines):
    exact_lines = run_example(EXAMPLE.replace("exact_up_to=256", "exact_up_to=4096"))
    estimated = [index for index, line in enumerate(lines) if "estimated" in line]
    assert len(estimated) == 3
    sentence = PAGE.partition("the last three blocks are exact, too: traces ")[2]
    traces, ranks = map(numbers_in, sentence.partition(".\n")[0].split("stable ranks"))
    for index, shown_trace, shown_rank in zip(estimated, traces, ranks, strict=True):
        block = lines[index].partition(",")[0]
        assert exact_lines[index].startswith(f"{block}, exact")
        trace, trace_error, rank, rank_error = numbers_of_line(lines[index])
        exact_trace, _, exact_rank, _ = numbers_of_line(exact_lines[index])
        assert abs(trace - exact_trace) <= trace_error
        assert abs(rank - exact_rank) <= rank_error
        assert (exact_trace, exact_rank) == pytest.approx((shown_trace, shown_rank), rel=0.005)


def test_page_names_every_operator_and_every_number():
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert rows == {*registry.names("operators"), *spectrum.meanings([0.99])}
