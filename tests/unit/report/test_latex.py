"""Tables of a paper hold the numbers of other tables and benchmark files, and are valid LaTeX."""

import numpy as np
import pandas as pd
import pytest

from plasticity.report import latex
from plasticity.report import page as pages

BENCHMARK_HEADER = (
    "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
)
SPECIAL = "l2(kind=$a_b$ & <c> 100% #1 ^~{}\\)"
ESCAPED = r"l2(kind=\$a\_b\$ \& <c> 100\% \#1 \textasciicircum \textasciitilde \{\}\textbackslash )"


def outcomes():
    """Make a table of outcomes with two arms, two outcomes and two stages."""
    rows = [
        {
            "setting": "a_b_c",
            "arm": arm,
            "outcome": outcome,
            "stage": stage,
            "mean": mean,
            "low": mean - 0.1,
            "high": mean + 0.1,
            "seeds": 5,
        }
        for arm, mean in (("none", 0.5), (SPECIAL, 0.25))
        for outcome in ("final_error", "final_error_gap")
        for stage in ("early", "late")
    ]
    return pd.DataFrame(rows)


def comparisons():
    """Make a table of comparisons with the late one, and one over all tasks."""
    row = {
        "setting": "a_b_c",
        "arm": SPECIAL,
        "versus": "none",
        "outcome": "final_error",
        "stage": "late",
        "statistic": "mean_difference",
    }
    late = row | {"estimate": -0.25, "low": -0.3, "high": -0.2, "p_adjusted": 0.01}
    all_tasks = row | {"stage": "all", "estimate": 9}
    return pd.DataFrame([late, all_tasks])


def test_methods_have_late_outcomes_and_the_test_against_none():
    table = latex.methods(outcomes(), comparisons()).set_index("arm")
    assert list(table.index) == ["none", SPECIAL]
    error = table.loc[SPECIAL, ["final_error", "final_error_low", "final_error_high"]]
    assert error.tolist() == pytest.approx([0.25, 0.15, 0.35])
    test = table.loc[SPECIAL, ["difference_to_none", "adjusted_p", "seeds"]]
    assert test.tolist() == [-0.25, 0.01, 5]
    assert np.isnan(table.loc["none", "difference_to_none"])


def test_latex_puts_bounds_into_the_cell_and_escapes_special_characters():
    text = latex.latex(latex.methods(outcomes(), comparisons()))
    (row,) = [line for line in text.splitlines() if "l2" in line]
    cells = row.removesuffix(r" \\").split(" & ")
    assert r"\&" in row
    assert row.startswith(rf"a\_b\_c & {ESCAPED} & 0.25 [0.15, 0.35] & ")
    assert cells[-3:] == ["-0.25 [-0.3, -0.2]", "0.01", "5"]
    assert "_low" not in text
    assert text.startswith(r"\begin{tabular}{lllllll}")


def test_latex_shows_missing_numbers_as_dashes():
    text = latex.latex(latex.methods(outcomes(), comparisons()))
    (none,) = [line for line in text.splitlines() if "& none &" in line]
    assert "& – & – & 5" in none


def test_settings_describe_problem_budget_network_and_optimizer():
    problem = {
        "dataset": "digits",
        "shift": "redraw_labels",
        "options": {"fraction": 0.5},
        "samples": 100,
        "batch": 30,
        "tasks": 7,
        "epochs": 3,
        "steps_per_task": None,
    }
    setting = {
        "problem": problem,
        "network": {"kind": "mlp", "options": {"depth": 3, "width": 64}, "activation": "relu"},
        "optimizer": {"kind": "adam", "options": {"lr": 0.001}},
    }
    in_steps = setting | {"problem": problem | {"steps_per_task": 11}}
    table = latex.settings(
        {
            "a": {"setting": setting, "arms": ["none", "fresh"], "seeds": 5},
            "b": {"setting": in_steps, "arms": ["fresh"], "seeds": 5},
        }
    )
    assert table["steps a task"].tolist() == [9, 11], "training drops the partial batch"
    first = table.iloc[0]
    assert first[["shift", "network", "activation", "optimizer"]].tolist() == [
        "redraw_labels fraction 0.5",
        "mlp depth 3 width 64",
        "relu",
        "adam lr 0.001",
    ]
    assert first[["arms", "seeds", "tasks"]].tolist() == [2, 5, 7]


@pytest.fixture
def benchmarks(tmp_path):
    """Write benchmark files of several stages."""
    for name, seconds, memory, cpu_seconds in (
        ("runs/a/none/0-4/train.tsv", 10, 100, 20),
        ("runs/a/l2/0-4/train.tsv", 30, 300, 40),
        ("runs/a/l2/0-4/curvature.tsv", 7, "-", 7),
        ("runs/a/none/0-4/intervene.tsv", 4, 80, 4),
        ("datasets/a.tsv", 1, 50, 1),
        ("tables.tsv", 5, 60, 5),
        ("figures/scatter.tsv", 3, 60, 3),
        ("tables/outcomes.tsv", 1, 60, 1),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        row = f"{seconds}\t0:00:01\t{memory}\t0\t0\t0\t0\t0\t0\t{cpu_seconds}\n"
        path.write_text(BENCHMARK_HEADER + row)
    return tmp_path


def test_cost_sums_up_the_jobs_of_each_stage(benchmarks):
    table = latex.cost(benchmarks).set_index("stage")
    train = table.loc["train"].tolist()
    assert train == pytest.approx([2, 20, 30, 40 / 3600, 60 / 3600, 300])
    assert np.isnan(table.loc["curvature", "largest MB"])


def test_cost_lists_stages_in_order_and_by_default_only_those_before_the_table(benchmarks):
    stages = ["train", "curvature", "intervene", "gather", "analyse"]
    assert latex.cost(benchmarks)["stage"].tolist() == stages
    assert latex.cost(benchmarks, latex.ALL_STAGES)["stage"].tolist()[-2:] == ["page", "draw"]


def test_cost_without_benchmark_files_is_empty(tmp_path):
    assert latex.cost(tmp_path / "nothing").empty


def test_page_shows_every_table_with_its_caption():
    table = pd.DataFrame({"arm": [SPECIAL, "none"], "mean": [0.123456789, np.nan], "seeds": [5, 5]})
    sections = [
        pages.Section(name, f"of {name}", f"<p>Caption of {name}.</p>", table)
        for name in ("one", "two")
    ]
    page = pages.page("Study <a>", sections, {})
    assert page == pages.page("Study <a>", sections, {})
    assert "<h1>Study &lt;a&gt;</h1>" in page
    for name in ("one", "two"):
        assert f'<section id="{name}">' in page
        assert f"Caption of {name}." in page
        assert f'id="table_{name}"' in page
    assert "0.1235" in page
    assert "0.123456" not in page
    assert "<c>" not in page, "names are escaped"
    assert 'src="http' not in page, "the page loads nothing"
    assert "@import" not in page, "the page loads nothing"


def test_page_of_long_tables_fits_into_an_address():
    long_table = pd.DataFrame(
        {
            "setting": ["digits_labels_relu"] * 20_000,
            "estimate": np.linspace(0, 1, 20_000),
            "note": ["a note"] * 20_000,
        }
    )
    caption = "<p>" + "words " * 400 + "</p>"
    sections = [pages.Section(f"t{k}", "", caption, long_table) for k in range(6)]
    page = pages.page("Study", sections, {})
    assert len(page) * 4 / 3 < 2**21
    assert "downsampled" in page, "the page says that it does not show all rows"
