"""README and docs agree with the published tables, and name only existing files and commands."""

import itertools
import re
from pathlib import Path

import evidence
import pandas as pd
import pytest

from plasticity.config import registry

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
CONFIGURATION = (ROOT / "docs/configuration.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "results/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
REGENERATE = "run: python tests/unit/evidence.py"
# decimal numbers in README that come from no table: the arXiv number and the Python version
OTHER_DECIMALS = {"2312.00246", "3.11"}
LINK = re.compile(r"(?:\]\(|src=\")(?!https?:)([^)#\"]*)(#[^)\"]+)?")


def test_pages_of_the_evidence_are_generated_from_its_tables():
    assert evidence.PAGE.read_text() == evidence.page(), REGENERATE
    assert evidence.DETAILS.read_text() == evidence.details(), REGENERATE


def test_generated_parts_of_readme_agree_with_the_tables():
    assert evidence.update_readme(README) == README, REGENERATE


def test_readme_has_no_decimal_number_without_a_table():
    written = re.sub(r"<!-- (\w+): .*?<!-- end of \1 -->", "", README, flags=re.DOTALL)
    assert set(re.findall(r"\d+\.\d+", written)) <= OTHER_DECIMALS


def test_readme_has_at_most_150_lines():
    assert len(README.splitlines()) <= 150


def test_stated_budgets_are_the_shares_of_the_published_budgets():
    text = (ROOT / "studies/evidence.yaml").read_text()
    names = evidence.declared_settings("evidence")
    shares = {name: 100 * evidence.share_of_budget(name) for name in names}
    comments = re.findall(r"^  (\w+): # .*?([\d.]+) %", text, flags=re.MULTILINE)
    stated = {name: float(share) for name, share in comments}
    assert len(stated) > 6
    assert stated == pytest.approx({name: shares[name] for name in stated}, abs=0.05)


def test_counts_in_readme_agree_with_the_plug_in_folders():
    counts = re.search(
        r"(\d+) methods, (\d+) shifts, (\d+) datasets, (\d+) architectures, (\d+) operators",
        " ".join(README.split()),
    )
    kinds = ("methods", "shifts", "datasets", "architectures", "operators")
    files = [len(registry.names(kind)) for kind in kinds]
    assert list(map(int, counts.groups())) == [files[0] - 2, *files[1:]], (
        "methods without none and fresh"
    )


def test_quoted_sentences_about_the_default_study_are_in_its_table():
    statements = pd.read_csv(ROOT / "docs/digits/tables/statements.csv", keep_default_na=False)
    lines = (ROOT / "docs/results/digits.md").read_text().splitlines()
    quoted = [line[2:] for line in lines if line.startswith("- ")]
    assert len(quoted) > 10
    assert set(quoted) <= set(statements["statement"])


def table_rows(page, head):
    """Return the cells of the Markdown table with this head."""
    lines = iter((ROOT / "docs/results" / page).read_text().splitlines())
    assert head in lines
    next(lines)
    rows = itertools.takewhile(bool, lines)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_table_of_methods_agrees_with_the_published_study():
    table = pd.read_csv(ROOT / "docs/methods/summary.csv").set_index("arm")
    head = (
        "| method | selected arm | error early | error late | gap early | gap late "
        "| rank early | rank late |"
    )
    rows = table_rows("methods.md", head)
    assert {row[0].strip("`").replace(" ", "") for row in rows} == set(table.index)
    for method, _, *cells in rows:
        published = table.loc[method.strip("`").replace(" ", "")]
        for name, digits, (early, late) in zip(
            ("final_error", "final_error_gap", "fisher_effective_rank"),
            (3, 3, 1),
            (cells[:2], cells[2:4], cells[4:]),
            strict=True,
        ):
            tolerance = 0.51 * 10**-digits
            assert float(early) == pytest.approx(published[f"{name}_early"], abs=tolerance)
            numbers = [float(number) for number in re.findall(r"-?[\d.]+", late)]
            expected = [published[f"{name}_late{end}"] for end in ("", "_low", "_high")]
            assert numbers == pytest.approx(expected, abs=tolerance)


def test_table_of_arms_agrees_with_the_published_selection():
    table = pd.read_csv(ROOT / "docs/methods/tuning.csv")
    rows = table_rows("methods.md", "| method | hyperparameters | mean final error of each arm |")
    assert [row[0].strip("`").replace(" ", "") for row in rows] == list(
        dict.fromkeys(table["method"])
    )
    for (_, arms), (_, _, cell) in zip(table.groupby("method", sort=False), rows, strict=True):
        shown = cell.split("; ")
        assert [arm.startswith("**") for arm in shown] == list(arms["chosen"])
        errors = [float(arm.rpartition(": ")[2].strip("*")) for arm in shown]
        assert errors == pytest.approx(list(arms["mean"]), abs=0.00051)


def anchors(page):
    """Return the anchors of a page's titles, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_point_to_existing_files_and_titles(page):
    for link, anchor in LINK.findall(page.read_text()):
        target = page.parent / link if link else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            assert anchor[1:] in anchors(target), f"{page.name} links to {link}{anchor}"


def test_architecture_page_names_only_existing_files():
    text = (ROOT / "docs/development/architecture.md").read_text()
    library = ROOT / "workflow/scripts/plasticity"
    named = set(re.findall(r"`([\w/.-]+\.(?:py|smk|yaml|rst|md))`", text))
    missing = {
        name for name in named if not (ROOT / name).exists() and not (library / name).exists()
    }
    assert missing == set()


def test_configuration_page_names_every_method():
    for method in registry.names("methods"):
        assert f"`{method}`" in CONFIGURATION, method


def test_every_named_make_target_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    text = "\n".join(page.read_text() for page in PAGES)
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", text, flags=re.MULTILINE))
    assert {"run", "test", "env", "help"} <= named <= targets
