"""Numbers in the README are those of the tables beside its picture, and its commands and files exist."""

import itertools
import re
from pathlib import Path

import pandas as pd
import pytest

from plasticity import registry

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
RESULT = " ".join(README.partition("*The default study")[2].partition("## Two commands")[0].split())
OUTCOMES = pd.read_csv(ROOT / "docs/digits/tables/outcomes.csv").set_index(["setting", "arm", "outcome", "stage"])
STATEMENTS = pd.read_csv(ROOT / "docs/digits/tables/statements.csv", keep_default_na=False)
SAID = STATEMENTS.query("about == 'scatter' and setting == 'digits_labels_relu'")["statement"].iloc[0]


def error(setting, arm, stage):
    return OUTCOMES.loc[(f"digits_labels_{setting}", arm, "final_error", stage)]


@pytest.mark.parametrize(
    ("sentence", "numbers"),
    [
        ("from {:.3f} on the first five tasks", [error("relu", "none", "early")["mean"]]),
        ("to {:.3f} [{:.3f}, {:.3f}] on the last five", error("relu", "none", "late")[["mean", "low", "high"]]),
        ("stays at {:.3f}", [error("relu", "fresh", "late")["mean"]]),
        ("({:.3f} late, {:.3f} early)", [error("identity", "none", stage)["mean"] for stage in ("late", "early")]),
        ("the error rises to {:.3f} all the same", [error("leaky_relu", "none", "late")["mean"]]),
        ("keeps both the rank and the error ({:.3f} late)", [error("relu", "l2_init(strength=0.01)", "late")["mean"]]),
        (
            "keeps neither at the two strengths tried ({:.3f}, {:.3f})",
            [error("relu", f"wasserstein(strength={strength})", "late")["mean"] for strength in (0.001, 0.01)],
        ),
        ("its error rises to {:.3f}", [error("relu", "l2(strength=0.001)", "late")["mean"]]),
        ("ρ = {:.2f} within a run", [float(SAID.partition("ρ = ")[2].partition(" (")[0])]),
    ],
)
def test_a_number_is_that_of_the_table(sentence, numbers):
    assert sentence.format(*numbers).replace("-", "−") in RESULT


def test_what_readme_says_of_the_nulls_is_what_the_statement_says():
    assert "the strongest null that it beats: the curve over tasks that all seeds of the arm share." in SAID
    assert "is more than the curve that all seeds share" in RESULT


def test_sentences_about_the_default_study_are_those_of_the_table():
    said = [line[2:] for line in (ROOT / "docs/digits.md").read_text().splitlines() if line.startswith("- ")]
    assert len(said) > 10
    assert set(said) <= set(STATEMENTS["statement"])


def rows_of(page, head):
    """The cells of the table below a head, without its rule."""
    lines = iter((ROOT / "docs" / page).read_text().splitlines())
    assert head in lines
    next(lines)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in itertools.takewhile(bool, lines)]


def test_the_table_of_methods_is_that_of_the_study():
    table = pd.read_csv(ROOT / "docs/methods/summary.csv").set_index("arm")
    rows = rows_of("methods.md", "| method | tuned arm | error early | error late | gap early | gap late | rank early | rank late |")
    assert {row[0].strip("`").replace(" ", "") for row in rows} == set(table.index)
    for method, _, *cells in rows:
        numbers = table.loc[method.strip("`").replace(" ", "")]
        for name, digits, (early, late) in zip(
            ("final_error", "final_error_gap", "fisher_effective_rank"), (3, 3, 1), (cells[:2], cells[2:4], cells[4:]), strict=True
        ):
            assert float(early) == pytest.approx(numbers[f"{name}_early"], abs=0.51 * 10**-digits)
            found = [float(number) for number in re.findall(r"-?[\d.]+", late)]
            assert found == pytest.approx([numbers[f"{name}_late{end}"] for end in ("", "_low", "_high")], abs=0.51 * 10**-digits)


def test_the_arms_of_methods_are_those_that_the_study_chose():
    table = pd.read_csv(ROOT / "docs/methods/tuning.csv")
    rows = rows_of("methods.md", "| method | hyper-parameters | mean final error of each arm |")
    assert [row[0].strip("`").replace(" ", "") for row in rows] == list(dict.fromkeys(table["method"]))
    for (_, arms), (_, _, cell) in zip(table.groupby("method", sort=False), rows, strict=True):
        shown = cell.split("; ")
        assert [one.startswith("**") for one in shown] == list(arms["chosen"])
        assert [float(one.rpartition(": ")[2].strip("*")) for one in shown] == pytest.approx(list(arms["mean"]), abs=0.00051)


def test_every_file_that_is_linked_is_there():
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "results/README.md"):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_every_method_is_named():
    assert all(f"`{method}`" in README for method in registry.names("methods"))


def test_every_make_target_that_is_named_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", README, flags=re.MULTILINE))
    assert {"run", "test", "env", "help"} <= named <= targets
