"""The page about the evidence has the numbers of the published runs, computed by other routes."""

import re

import evidence
import numpy as np
import pytest
import scipy.stats
import xarray as xr

PAGE = evidence.PAGE.read_text(encoding="utf-8")
DETAILS = evidence.DETAILS.read_text(encoding="utf-8")
LOST = 0.05


def published_gaps(setting):
    """Return final error minus that of the network from scratch, shape ``(seed, task)``."""
    with xr.open_dataset(evidence.DOCS / "evidence/drawn" / f"{setting}.nc") as data:
        error, baseline = data["final_error"], data["fresh_final_error"]
        gap = error.sel(arm="none") - baseline.sel(arm="none")
        return gap.transpose("seed", "task").values.astype(float)


def cells_of_claim(name):
    """Return the verdict and the finding of a claim on the page."""
    (row,) = re.findall(rf"^\| {name}: (.*) \|$", PAGE, flags=re.MULTILINE)
    _, verdict, found = row.split(" | ")
    return verdict.strip("*"), found.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize("claim", ["C1", "C2", "C3", "C4", "C5"])
def test_each_declared_claim_is_answered(claim):
    verdict, found = cells_of_claim(claim)
    assert verdict
    assert found


def test_losses_of_claim_c1_are_those_of_the_published_runs():
    _, found = cells_of_claim("C1")
    names = [name for name in evidence.setting_names() if "separable" in name]
    assert len(names) >= 2
    for name in names:
        late = published_gaps(name)[:, -6:].mean()  # the last eighth of 50 tasks
        written = evidence.format_number(late)
        assert f"{evidence.activation(name)} {written} [" in found


def growth_of_gap(setting):
    """Return the mean gap over the last eighth of the tasks minus the first, shape ``(seed,)``."""
    gaps = published_gaps(setting)
    return gaps[:, -max(1, gaps.shape[1] // 8) :].mean(axis=1) - gaps[:, 0]


def test_plasticity_is_lost_where_the_gap_of_the_published_runs_grows():
    for name in evidence.setting_names():
        growth = growth_of_gap(name)
        reach = 2.262 * growth.std(ddof=1) / np.sqrt(10)  # Student's quantile for ten seeds
        low, high = growth.mean() - reach, growth.mean() + reach
        verdict = "lost" if low > LOST else "kept" if high < LOST else "unclear"
        assert f"| {evidence.setting_title(name)} | " in DETAILS
        assert evidence.fate(name)["verdict"].partition(",")[0] == verdict


def test_rivals_of_claim_c3_fail_in_the_published_runs():
    """Units do not die where plasticity is lost; the others move where it is kept."""
    verdict, _ = cells_of_claim("C3")
    failed = 0
    for measure, name in evidence.RIVALS_FAIL.items():
        block = "hidden_2" if measure == "feature_rank" else "all"
        with xr.open_dataset(evidence.DOCS / "evidence/drawn" / f"{name}.nc") as data:
            values = data[measure].sel(arm="none", block=block).mean("seed").squeeze()
        first = values.sel(task=1).item()
        late = values.values[-max(1, values.sizes["task"] // 8) :].mean()
        growth = (late - first) / max(abs(late), abs(first), 1e-12)
        is_lost = growth_of_gap(name).mean() > LOST
        if measure.endswith("fraction"):
            failed += is_lost and abs(late - first) < 0.2
        else:
            failed += not is_lost and (growth > 0.2 if measure == "weight_norm" else growth < -0.2)
    assert verdict == f"holds for {failed} of 4"


def test_example_in_the_page_about_statistics_has_the_published_gaps():
    text = " ".join((evidence.DOCS / "statistics.md").read_text(encoding="utf-8").split())
    gaps = published_gaps("mnist_separable_relu").mean(axis=0)
    early, late = (f"{stage.mean():.2f}"[1:] for stage in (gaps[1:7], gaps[-6:]))
    assert f"the gap is {early} early and {late} late" in text


def text_of_page(page=PAGE):
    """Return a page on one line, with plain spaces."""
    return " ".join(page.replace("\N{NO-BREAK SPACE}", " ").split())


def test_gaps_in_the_last_quarter_are_those_of_the_published_runs():
    gaps = {}
    for name in evidence.setting_names():
        values = published_gaps(name)
        verdict = evidence.fate(name)["verdict"].partition(",")[0]
        gaps.setdefault(verdict, []).append(values[:, -(values.shape[1] // 4) :].mean())
    lost, kept = (evidence.format_range(gaps[verdict]) for verdict in ("lost", "kept"))
    expected = f"the gap is {lost} where plasticity is lost, and {kept} where it is kept"
    assert expected in text_of_page(DETAILS)


def test_falls_from_the_untrained_network_are_those_of_the_published_runs():
    falls = {"lost": [], "kept": []}
    for name in evidence.setting_names():
        with xr.open_dataset(evidence.DOCS / "evidence/drawn" / f"{name}.nc") as data:
            rank = data["fisher_effective_rank"].sel(arm="none", block="all").mean("seed").squeeze()
        late = rank.isel(task=slice(-max(1, rank.sizes["task"] // 8), None)).mean().item()
        first = rank.sel(task=0).item()
        verdict = evidence.fate(name)["verdict"].partition(",")[0]
        falls[verdict].append((first - late) / max(first, late))
    wins = [lost > kept for lost in falls["lost"] for kept in falls["kept"]]
    text = text_of_page()
    assert f"({sum(fall > 0.2 for fall in falls['kept'])} from the untrained network on)" in text
    expected = evidence.format_number(np.mean(wins))
    assert f"untrained network, the rank's AUC over settings is {expected}." in text


def test_tau_among_copies_that_keep_the_state_is_that_of_the_published_copies():
    cleared = ("fresh", "clone_units", "shuffle_within_tensor")
    copies = {}
    for _, row in evidence.select_rows("treatments", "evidence", arm="none").iterrows():
        if row["quantity"] == "final_error" or (row["quantity"], row["block"]) == (
            "fisher_effective_rank",
            "all",
        ):
            of_task = copies.setdefault((row["setting"], row["task"]), {})
            of_task.setdefault(row["treatment"], {})[row["quantity"]] = row["mean"]
    for only_kept in (False, True):
        taus = {}
        for (setting, _), of_task in copies.items():
            rows = [
                (values["fisher_effective_rank"], values["final_error"])
                for treatment, values in of_task.items()
                if not (only_kept and treatment.partition("(")[0] in cleared)
            ]
            tau = scipy.stats.kendalltau(*zip(*rows, strict=True)).statistic
            taus.setdefault(setting, []).append(-tau)  # positive: as claimed
        means = {setting: np.mean(values) for setting, values in taus.items()}
        expected = {setting: mean for setting, mean in means.items() if np.isfinite(mean)}
        assert evidence.taus_of_means(only_kept) == pytest.approx(expected)
        assert evidence.format_range(expected.values()) in text_of_page()


def test_settings_in_which_copies_agree_are_those_of_the_published_table():
    """A τ below 0 means that a larger rank comes with a smaller error; the page turns it."""
    as_claimed, others = [], []
    for _, row in evidence.table("interventions", "evidence").iterrows():
        is_pooled = (row["arm"], row["task"]) == ("none", "all") and row["setting"] != "all"
        what = (row["measure"], row["outcome"], row["statistic"])
        if is_pooled and what == ("fisher_effective_rank", "final_error", "tau"):
            if row["high"] < 0:
                as_claimed.append(-row["estimate"])
            elif row["high"] >= 0:
                shown = evidence.format_number(-row["estimate"])
                others.append(f"{evidence.setting_title(row['setting'])} ({shown})")
    text = text_of_page()
    expected = f"in {len(as_claimed)} of {len(as_claimed) + len(others)} settings (Kendall's τ"
    assert f"{expected} {evidence.format_range(as_claimed)})" in text
    for words in others:
        assert words in text


def mean_errors(study, setting, treatment):
    """Return the mean final error of treated copies at each task, from the rows of the table."""
    rows = evidence.table("treatments", study).to_dict("records")
    return {
        row["task"]: row["mean"]
        for row in rows
        if (row["setting"], row["arm"]) == (setting, "none")
        and (row["treatment"], row["quantity"]) == (treatment, "final_error")
    }


def test_copies_with_initial_weights_learn_again_where_the_published_copies_do():
    like_new, lost, excess = 0, 0, []
    for name in evidence.setting_names():
        has_state = evidence.declared_settings("evidence")[name]["optimizer"]["kind"] == "adam"
        if growth_of_gap(name).mean() <= LOST or not has_state:
            continue
        initial = mean_errors("evidence", name, "toward_initial(strength=1)")
        new = mean_errors("evidence", name, "fresh")
        if all(initial[task] <= new[task] + LOST for task in new):
            like_new += 1
        else:
            excess.extend(initial[task] - new[task] for task in new)
            lost += 1
    text = text_of_page()
    assert f"in {like_new} of {like_new + lost} settings that lost plasticity" in text
    assert f"elsewhere their error is up to {evidence.format_number(max(excess))} larger." in text


def test_optimizer_state_in_the_default_study_is_that_of_the_published_copies():
    names = evidence.table("settings", "digits")["setting"]
    changes = [
        abs(error - mean_errors("digits", name, "none")[task])
        for name in names
        for task, error in mean_errors("digits", name, "reset_optimizer").items()
    ]
    assert f"changes the error by at most {evidence.format_number(max(changes))}." in text_of_page()


def test_measure_that_few_settings_have_is_not_compared_with_others():
    """Two convolutional networks have a feature rank per image: its AUC of 1 would say little."""
    rows = evidence.table("explanations", "evidence").set_index("measure")
    assert rows.loc["flattened_feature_rank", "judged_arms"] == 2
    assert "feature rank (per image)" not in PAGE


def test_page_counts_the_settings():
    counts = re.search(r"Plasticity is lost in (\d+) of (\d+) settings", " ".join(PAGE.split()))
    names = evidence.setting_names()
    lost = sum(growth_of_gap(name).mean() > LOST for name in names)
    assert counts.groups() == (str(lost), str(len(names)))


def test_page_is_short():
    """Two screens: about 100 lines."""
    assert len(PAGE.splitlines()) <= 100
