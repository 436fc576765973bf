"""The example of docs/curvature.md does what the page says, and the page names every operator and every number."""

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


def printed(example):
    where = os.environ | {"PYTHONPATH": str(ROOT / "workflow" / "scripts"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", example], env=where, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()


@pytest.fixture(scope="module")
def lines():
    return printed(EXAMPLE)


def test_the_example_is_short():
    assert len(EXAMPLE.splitlines()) <= 30


def test_the_example_prints_what_the_page_shows(lines):
    shown = SHOWN.strip().splitlines()
    assert [NUMBER.sub("#", line) for line in lines] == [NUMBER.sub("#", line) for line in shown]
    for line, expected in zip(lines, shown, strict=True):
        found, wanted = (
            [float(number) for number in NUMBER.findall(one)] for one in (line, expected)
        )
        digits = [
            0.5 if re.search(rf"± {re.escape(number)}", expected) else 0.03
            for number in NUMBER.findall(expected)
        ]
        for one, other, tolerance in zip(found, wanted, digits, strict=True):
            assert one == pytest.approx(other, rel=tolerance), expected


@pytest.mark.slow
def test_estimates_are_within_their_errors_of_the_exact_numbers(lines):
    exact = printed(EXAMPLE.replace("exact_up_to=256", "exact_up_to=4096"))
    estimated = [place for place, line in enumerate(lines) if "estimated" in line]
    assert len(estimated) == 3
    said = PAGE.partition("the last three blocks are exact, too: traces ")[2].partition(".\n")[0]
    traces, ranks = (
        [float(number) for number in NUMBER.findall(part)] for part in said.split("stable ranks")
    )
    for place, trace, rank in zip(estimated, traces, ranks, strict=True):
        block, pattern = (
            lines[place].partition(",")[0],
            r"trace (\S+) ± (\S+), stable rank (\S+) ± (\S+),",
        )
        assert exact[place].startswith(f"{block}, exact")
        found, true = (
            [float(number) for number in re.search(pattern, one).groups()]
            for one in (lines[place], exact[place])
        )
        assert abs(found[0] - true[0]) < 3 * found[1]
        assert abs(found[2] - true[2]) < 3 * found[3]
        assert (true[0], true[2]) == pytest.approx((trace, rank), rel=0.005)


def test_every_operator_and_every_number_is_named():
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert rows == {*registry.names("operators"), *spectrum.meanings([0.99])}
