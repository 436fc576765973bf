"""What is published says what the tables beside it say, and README's commands and files exist."""

import itertools
import math
import re
from pathlib import Path

import evidence
import pandas as pd
import pytest
import yaml

from plasticity.config import registry

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
USING = (ROOT / "docs/using.md").read_text()
REDRAW = "python tests/unit/evidence.py"
# numbers of README that no table has: arXiv, versions, what was compared once, years; and what another test counts
OF_NO_TABLE = {"2312.00246", "3.11", "0.01", "0.6"}


def test_the_page_of_the_evidence_is_what_its_tables_say():
    assert (ROOT / "docs/evidence.md").read_text() == evidence.page(), REDRAW


def test_what_readme_says_of_the_evidence_and_of_costs_is_what_the_tables_say():
    assert evidence.within_readme(README) == README, REDRAW


def test_no_other_number_stands_in_readme():
    rest = re.sub(r"<!-- (\w+): .*?<!-- end of \1 -->", "", README, flags=re.DOTALL)
    assert set(re.findall(r"\d+\.\d+", rest)) <= OF_NO_TABLE


def steps(setting):
    """How many steps of training a setting has, over all its tasks."""
    problem = setting["problem"]
    return problem["tasks"] * problem["epochs"] * math.ceil(problem["samples"] / problem["batch"])


def test_budgets_are_the_shares_that_are_said():
    text = (ROOT / "studies/evidence.yaml").read_text()
    ours, whole = (
        yaml.safe_load(one)["settings"] for one in (text, (ROOT / "studies/paper.yaml").read_text())
    )
    shares = {name: 100 * steps(ours[name]) / steps(whole[name]) for name in ours}
    stated = {
        name: float(share)
        for name, share in re.findall(r"^  (\w+): # .*?([\d.]+) %", text, flags=re.MULTILINE)
    }
    assert len(stated) > 6
    assert stated == pytest.approx({name: shares[name] for name in stated}, abs=0.05)
    said = f"{min(shares.values()):.1g} to {max(shares.values()):.1g} %"
    assert said in evidence.page()
    assert said in evidence.result()


def test_what_readme_counts_is_there():
    counts = re.search(
        r"(\d+) methods, (\d+) ways for tasks to change, (\d+) kinds of data, (\d+) networks, (\d+) operators",
        README,
    )
    kinds = ("methods", "shifts", "datasets", "architectures", "operators")
    there = [len(registry.names(kind)) for kind in kinds]
    assert list(map(int, counts.groups())) == [there[0] - 2, *there[1:]], (
        "methods but for none and fresh"
    )


def test_sentences_about_the_default_study_are_those_of_the_table():
    statements = pd.read_csv(ROOT / "docs/digits/tables/statements.csv", keep_default_na=False)
    said = [
        line[2:]
        for line in (ROOT / "docs/digits.md").read_text().splitlines()
        if line.startswith("- ")
    ]
    assert len(said) > 10
    assert set(said) <= set(statements["statement"])


def rows_of(page, head):
    """The cells of the table below a head, without its rule."""
    lines = iter((ROOT / "docs" / page).read_text().splitlines())
    assert head in lines
    next(lines)
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in itertools.takewhile(bool, lines)
    ]


def test_the_table_of_methods_is_that_of_the_study():
    table = pd.read_csv(ROOT / "docs/methods/summary.csv").set_index("arm")
    rows = rows_of(
        "methods.md",
        "| method | tuned arm | error early | error late | gap early | gap late | rank early | rank late |",
    )
    assert {row[0].strip("`").replace(" ", "") for row in rows} == set(table.index)
    for method, _, *cells in rows:
        numbers = table.loc[method.strip("`").replace(" ", "")]
        for name, digits, (early, late) in zip(
            ("final_error", "final_error_gap", "fisher_effective_rank"),
            (3, 3, 1),
            (cells[:2], cells[2:4], cells[4:]),
            strict=True,
        ):
            assert float(early) == pytest.approx(numbers[f"{name}_early"], abs=0.51 * 10**-digits)
            found = [float(number) for number in re.findall(r"-?[\d.]+", late)]
            assert found == pytest.approx(
                [numbers[f"{name}_late{end}"] for end in ("", "_low", "_high")],
                abs=0.51 * 10**-digits,
            )


def test_the_arms_of_methods_are_those_that_the_study_chose():
    table = pd.read_csv(ROOT / "docs/methods/tuning.csv")
    rows = rows_of("methods.md", "| method | hyper-parameters | mean final error of each arm |")
    assert [row[0].strip("`").replace(" ", "") for row in rows] == list(
        dict.fromkeys(table["method"])
    )
    for (_, arms), (_, _, cell) in zip(table.groupby("method", sort=False), rows, strict=True):
        shown = cell.split("; ")
        assert [one.startswith("**") for one in shown] == list(arms["chosen"])
        assert [float(one.rpartition(": ")[2].strip("*")) for one in shown] == pytest.approx(
            list(arms["mean"]), abs=0.00051
        )


def test_every_file_that_is_linked_is_there():
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "results/README.md"):
        for link in re.findall(r"(?:\]\(|src=\")(?!https?:)([^)#\"]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_every_method_is_named():
    assert all(f"`{method}`" in USING for method in registry.names("methods"))


def test_every_make_target_that_is_named_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", README + USING, flags=re.MULTILINE))
    assert {"run", "test", "env", "help"} <= named <= targets
