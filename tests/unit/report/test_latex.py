"""Tables of a paper: they hold what the others and Snakemake's records say, and LaTeX minds no sign in them."""

import numpy as np
import pandas as pd
import pytest

from plasticity.report import latex
from plasticity.report import page as pages

HEAD = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
ODD = "l2(kind=$a_b$ & <c> 100% #1 ^~{}\\)"
LATEX = r"l2(kind=\$a\_b\$ \& <c> 100\% \#1 \textasciicircum \textasciitilde \{\}\textbackslash )"


def outcomes():
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
        for arm, mean in (("none", 0.5), (ODD, 0.25))
        for outcome in ("final_error", "final_error_gap")
        for stage in ("early", "late")
    ]
    return pd.DataFrame(rows)


def comparisons():
    row = {
        "setting": "a_b_c",
        "arm": ODD,
        "versus": "none",
        "outcome": "final_error",
        "stage": "late",
        "statistic": "mean_difference",
    }
    return pd.DataFrame(
        [
            row | {"estimate": -0.25, "low": -0.3, "high": -0.2, "p_adjusted": 0.01},
            row | {"stage": "all", "estimate": 9},
        ]
    )


def test_methods_have_their_late_outcomes_and_their_test_against_none():
    table = latex.methods(outcomes(), comparisons()).set_index("arm")
    assert list(table.index) == ["none", ODD]
    assert table.loc[
        ODD, ["final_error", "final_error_low", "final_error_high"]
    ].tolist() == pytest.approx([0.25, 0.15, 0.35])
    assert table.loc[ODD, ["difference_to_none", "adjusted_p", "seeds"]].tolist() == [
        -0.25,
        0.01,
        5,
    ]
    assert np.isnan(table.loc["none", "difference_to_none"])


def test_latex_has_an_estimate_with_its_bounds_in_one_cell_and_every_sign_escaped():
    text = latex.latex(latex.methods(outcomes(), comparisons()))
    (row,) = [line for line in text.splitlines() if "l2" in line]
    cells = row.removesuffix(r" \\").split(" & ")
    assert r"\&" in row
    assert row.startswith(rf"a\_b\_c & {LATEX} & 0.25 [0.15, 0.35] & ")
    assert cells[-3:] == ["-0.25 [-0.3, -0.2]", "0.01", "5"]
    (none,) = [line for line in text.splitlines() if "& none &" in line]
    assert "& – & – & 5" in none
    assert "_low" not in text
    assert text.startswith(r"\begin{tabular}{lllllll}")


def test_settings_say_problem_budget_network_and_optimizer():
    problem = {
        "dataset": "digits",
        "shift": "redraw_labels",
        "options": {"fraction": 0.5},
        "samples": 100,
        "batch": 30,
        "tasks": 7,
        "epochs": 3,
    }
    setting = {
        "problem": problem | {"steps_per_task": None},
        "network": {"kind": "mlp", "options": {"depth": 3, "width": 64}, "activation": "relu"},
        "optimizer": {"kind": "adam", "options": {"lr": 0.001}},
    }
    stamps = {"a": {"setting": setting, "arms": ["none", "fresh"], "seeds": 5}}
    stamps["b"] = {
        "setting": setting | {"problem": problem | {"steps_per_task": 11}},
        "arms": ["fresh"],
        "seeds": 5,
    }
    table = latex.settings(stamps)
    assert table["steps a task"].tolist() == [12, 11], "an epoch has its last, smaller batch"
    first = table.iloc[0]
    assert first[["shift", "network", "activation", "optimizer"]].tolist() == [
        "redraw_labels fraction 0.5",
        "mlp depth 3 width 64",
        "relu",
        "adam lr 0.001",
    ]
    assert first[["arms", "seeds", "tasks"]].tolist() == [2, 5, 7]


def test_costs_are_those_of_the_records_by_stage(tmp_path):
    for place, seconds, memory, cpu in (
        ("runs/a/none/0-4/train.tsv", 10, 100, 20),
        ("runs/a/l2/0-4/train.tsv", 30, 300, 40),
        ("runs/a/l2/0-4/curvature.tsv", 7, "-", 7),
        ("datasets/a.tsv", 1, 50, 1),
        ("tables.tsv", 5, 60, 5),
        ("figures/scatter.tsv", 3, 60, 3),
        ("tables/outcomes.tsv", 1, 60, 1),
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(
            f"{HEAD}{seconds}\t0:00:01\t{memory}\t0\t0\t0\t0\t0\t0\t{cpu}\n"
        )
    table = latex.cost(tmp_path).set_index("stage")
    assert list(table.index) == ["train", "curvature", "gather", "analyse"], (
        "in the order of the stages, and none that comes later"
    )
    assert table.loc["train"].tolist() == pytest.approx([2, 20, 30, 40 / 3600, 60 / 3600, 300])
    assert np.isnan(table.loc["curvature", "largest MB"])
    assert list(latex.cost(tmp_path, latex.ALL_STAGES)["stage"])[-2:] == ["page", "draw"]
    assert latex.cost(tmp_path / "nothing").empty


def test_a_page_shows_every_table_with_its_caption_and_loads_nothing():
    table = pd.DataFrame({"arm": [ODD, "none"], "mean": [0.123456789, np.nan], "seeds": [5, 5]})
    sections = [
        pages.Section(name, f"of {name}", f"<p>Caption of {name}.</p>", table)
        for name in ("one", "two")
    ]
    page = pages.page("Study <a>", sections)
    assert page == pages.page("Study <a>", sections)
    assert "<h1>Study &lt;a&gt;</h1>" in page
    for name in ("one", "two"):
        assert f'<section id="{name}">' in page
        assert f"Caption of {name}." in page
        assert f'id="table_{name}"' in page
    assert "0.1235" in page
    assert "0.123456" not in page
    assert "<c>" not in page, "a name is no markup"
    assert 'src="http' not in page
    assert "@import" not in page


def test_a_page_stays_below_what_a_browser_takes_as_an_address():
    long = pd.DataFrame(
        {
            "setting": ["digits_labels_relu"] * 20_000,
            "estimate": np.linspace(0, 1, 20_000),
            "note": ["a note"] * 20_000,
        }
    )
    page = pages.page(
        "Study",
        [pages.Section(f"t{k}", "", "<p>" + "words " * 400 + "</p>", long) for k in range(6)],
    )
    assert len(page) * 4 / 3 < 2**21
    assert "downsampled" in page, "and says that it does not show all"
