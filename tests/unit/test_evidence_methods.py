"""The claims about methods follow from the published runs, computed by other routes."""

import itertools
import json
import re

import evidence_methods
import numpy as np
import pages
import pandas as pd
import pytest
import scipy.stats
import xarray as xr
import yaml

from plasticity.config.quantities import one_line_name

FOLDER = pages.DOCS / "evidence_methods"
LOST = 0.05
CELL = re.compile(r"(\*\*)?([\d.]+)(?:\*\*)?, rank (\d+)")  # of the table of methods


def runs_of(setting):
    """Return a setting's gap, error and rank by arm, shapes ``(seed, task)``."""
    with xr.open_dataset(FOLDER / "drawn" / f"{setting}.nc") as data:
        arms = [str(arm) for arm in data["arm"].values if not str(arm).startswith("fresh")]
        ranks = data["fisher_effective_rank"].sel(block="all", evaluation_point="next")
        baselines = data["fresh_final_error"].transpose("arm", "seed", "task")
        errors = data["final_error"].transpose("arm", "seed", "task")
        ranks = ranks.transpose("arm", "seed", "task")
        return {
            arm: [
                (errors.sel(arm=arm) - baselines.sel(arm=arm)).values.astype(float),
                errors.sel(arm=arm).values.astype(float),
                ranks.sel(arm=arm).values.astype(float),
            ]
            for arm in arms
        }


def late(values):
    """Return the mean over the last eighth of the tasks, shape ``(seed,)``."""
    return values[:, -max(1, values.shape[1] // 8) :].mean(axis=1)


def verdict_of(setting, arm, gap):
    """Judge an arm by the published interval, whose estimate must be that of the runs."""
    table = pd.read_csv(FOLDER / "tables" / "counterexamples.csv")
    is_arm = (table["setting"] == setting) & (table["arm"] == arm)
    (row,) = table[is_arm & (table["measure"] == "fisher_effective_rank")].to_dict("records")
    assert (late(gap) - gap[:, 0]).mean() == pytest.approx(row["loss"], abs=1e-5)
    if row["loss_low"] > LOST:
        return "lost"
    return "kept" if row["loss_high"] < LOST else "unclear"


def fall_of(rank):
    """Return how far the rank falls from the second task to late ones, as a share of the larger."""
    first, last = rank[:, 1], late(rank)
    return ((first - last) / np.maximum(first, last)).mean()


def judged_arms(without=""):
    """Return setting, verdict and fall of the rank for each arm without baselines."""
    rows = []
    for setting in evidence_methods.setting_names():
        for arm, (gap, _, rank) in runs_of(setting).items():
            if arm != without:
                rows.append((setting, verdict_of(setting, arm, gap), fall_of(rank)))
    return rows


def share_of_wins(rows):
    """Return in which share of pairs the rank falls more in the arm that loses plasticity."""
    lost = [fall for _, verdict, fall in rows if verdict == "lost"]
    kept = [fall for _, verdict, fall in rows if verdict == "kept"]
    wins = [(a > b) + (a == b) / 2 for a, b in itertools.product(lost, kept)]
    return np.mean(wins), len(lost), len(kept)


def test_claim_c4_has_the_auc_of_the_published_runs():
    auc, lost, kept = share_of_wins(judged_arms())
    _, found = evidence_methods.arms_claim()
    assert f"rank's change {pages.format_number(auc)}" in found
    assert f"over {lost} arms that lose plasticity and {kept} that keep it" in found


def test_claim_c4_has_the_auc_within_each_problem():
    rows = judged_arms()
    for problem in evidence_methods.problems():
        own = [row for row in rows if evidence_methods.problem_of(row[0]) == problem]
        auc, lost, kept = share_of_wins(own) if own else (np.nan, 0, 0)
        if lost and kept:
            assert evidence_methods.auc_within(problem) == pytest.approx(auc, abs=1e-6)
        else:
            assert np.isnan(evidence_methods.auc_within(problem))


@pytest.mark.parametrize(("lost", "kept"), [(3, 5), (4, 4), (6, 2)])
def test_exact_p_of_one_stratum_is_that_of_scipy(lost, kept):
    generator = np.random.default_rng(lost)
    for _ in range(20):
        samples = generator.normal(0.5, size=lost), generator.normal(size=kept)
        reference = scipy.stats.mannwhitneyu(*samples, alternative="greater", method="exact")
        p = evidence_methods.exact_p([samples])
        assert p == pytest.approx(reference.pvalue, rel=1e-12)


def test_exact_p_of_strata_is_the_share_of_all_choices():
    """Within each stratum all choices are equally likely; also with ties and an empty side."""
    # a tie that counts nothing, or one, would change p
    values = [([1, 1], [0, 1]), ([1, 2], [2]), ([], [1, 9])]
    strata = [(np.array(lost), np.array(kept)) for lost, kept in values]

    def wins(pairs):
        return sum((a > b) + (a == b) / 2 for a, b in pairs)

    observed = sum(wins(itertools.product(lost, kept)) for lost, kept in strata)
    orders = [itertools.permutations(np.concatenate(stratum)) for stratum in strata]
    totals = [
        sum(
            wins(itertools.product(order[: lost.size], order[lost.size :]))
            for order, (lost, _) in zip(chosen, strata, strict=True)
        )
        for chosen in itertools.product(*orders)
    ]
    expected = np.mean(np.array(totals) >= observed)
    assert evidence_methods.exact_p(strata) == pytest.approx(expected, rel=1e-12)


def test_second_test_of_c4_has_the_arms_of_the_published_runs():
    setting = evidence_methods.SECOND_TEST
    rows = [row for row in judged_arms() if row[0] == setting]
    lost, kept = (
        [fall for _, verdict, fall in rows if verdict == fate] for fate in ("lost", "kept")
    )
    verdict, found = evidence_methods.second_test()
    assert f"{len(lost)} lost and {len(kept)} kept" in found
    if min(len(lost), len(kept)) < 2:
        assert verdict == "not decided"
        return
    reference = scipy.stats.mannwhitneyu(lost, kept, alternative="greater", method="exact")
    assert f"exact p {reference.pvalue:.2g};" in found
    assert verdict == f"{'holds' if reference.pvalue < 0.05 else 'fails'} in a second test"


def test_arm_that_the_second_test_leaves_out_has_the_runs_of_another_setting():
    setting, arm = evidence_methods.SECOND_TEST, evidence_methods.SAME_ARM
    own = runs_of(setting)[arm]
    others = [runs_of(name)[arm] for name in evidence_methods.setting_names() if name != setting]
    assert any(np.array_equal(own, other) for other in others if len(own[0]) == len(other[0]))
    rows = [row for row in judged_arms(without=arm) if row[0] == setting]
    lost, kept = (
        [fall for _, verdict, fall in rows if verdict == fate] for fate in ("lost", "kept")
    )
    reference = scipy.stats.mannwhitneyu(lost, kept, alternative="greater", method="exact")
    _, found = evidence_methods.second_test()
    assert f"another activation, {reference.pvalue:.2g}." in found


def test_aucs_by_other_definitions_are_those_of_the_published_runs():
    arms = []
    for setting in evidence_methods.setting_names():
        for gap, _, rank in runs_of(setting).values():
            growth, late_gap = (late(gap) - gap[:, 0]).mean(), late(gap).mean()
            arms.append((growth, late_gap, fall_of(rank)))
    aucs = evidence_methods.aucs_by_definition()
    found = aucs[aucs["measure"] == "fisher_effective_rank"]
    for (_, row), (column, limit) in zip(
        found.iterrows(), ((0, 0.05), (0, 0.2), (1, 0.2)), strict=True
    ):
        rows = [("", "lost" if arm[column] > limit else "kept", arm[2]) for arm in arms]
        assert share_of_wins(rows) == (pytest.approx(row["auc"]), row["lost"], row["kept"])
        assert f"{pages.format_number(row['auc'])} if" in evidence_methods.definition_words()
    wins = sum(
        row["auc"] >= aucs.loc[aucs["definition"] == row["definition"], "auc"].max()
        for _, row in found.iterrows()
    )
    sentence = evidence_methods.arms_sentence()
    assert f"it is {pages.format_range(found['auc'])}, and the best of all measures in {wins}." in (
        sentence
    )


def test_best_measure_of_each_definition_is_named():
    words = evidence_methods.definition_words()
    aucs = evidence_methods.aucs_by_definition()
    best_of = aucs.sort_values("auc").groupby("definition").tail(1)
    for _, row in best_of[best_of["measure"] != "fisher_effective_rank"].iterrows():
        name, number = one_line_name(row["measure"]), pages.format_number(row["auc"])
        assert re.search(rf"{re.escape(row['definition'])} [^)]*{re.escape(name)}, {number}", words)


def test_claim_c5_has_the_differences_of_the_published_runs():
    differences = []
    for setting in evidence_methods.setting_names():
        runs = runs_of(setting)
        differences.append((late(runs["wasserstein"][1]) - late(runs["none"][1])).mean())
    _, found = evidence_methods.wasserstein_claim()
    assert f"(late error {pages.format_range(differences)})" in found


def test_claim_c5_counts_the_strengths_that_are_close_to_the_best():
    tuning = pd.read_csv(FOLDER / "tables" / "tuning.csv")
    _, found = evidence_methods.wasserstein_claim()
    for setting in evidence_methods.setting_names():
        counts = []
        for method in ("wasserstein", "l2_init"):
            is_all_error = (tuning["outcome"] == "final_error") & (tuning["stage"] == "all")
            is_method = (tuning["setting"] == setting) & (tuning["method"] == method)
            rows = tuning[is_method & is_all_error]
            by_strength = sorted(
                (json.loads(text)["strength"], mean)
                for text, mean in zip(rows["hyperparameters"], rows["mean"], strict=True)
            )
            is_close = "".join(
                "x" if mean <= rows["mean"].min() + 0.05 else "-" for _, mean in by_strength
            )
            best = min(range(len(by_strength)), key=lambda i: by_strength[i][1])
            (length,) = [
                match.end() - match.start()
                for match in re.finditer("x+", is_close)
                if match.start() <= best < match.end()
            ]
            counts.append(length)
        assert f"{evidence_methods.setting_title(setting)}: {counts[0]} and {counts[1]}" in found


def test_table_of_methods_has_late_errors_and_ranks_and_marks_losses():
    head, _, *rows = evidence_methods.methods_table().splitlines()
    titles = [evidence_methods.setting_title(name) for name in evidence_methods.setting_names()]
    assert [text.strip() for text in head.split("|")[2:-1]] == titles
    cells = {row.split("`")[1]: [text.strip() for text in row.split("|")[2:-1]] for row in rows}
    for index, setting in enumerate(evidence_methods.setting_names()):
        runs = runs_of(setting)
        assert set(runs) == set(cells) - {"fresh"}
        for arm, (gap, error, rank) in runs.items():
            is_lost, shown_error, shown_rank = CELL.fullmatch(cells[arm][index]).groups()
            assert bool(is_lost) == (verdict_of(setting, arm, gap) == "lost")
            assert float(shown_error) == pytest.approx(late(error).mean(), abs=0.00501)
            assert float(shown_rank) == pytest.approx(late(rank).mean(), abs=0.501)


def test_good_strengths_are_neighbours_of_the_best_one(monkeypatch):
    """A strength that is good again beyond a bad one does not count."""
    errors = {0.001: 0.30, 0.01: 0.52, 0.1: 0.31, 1: 0.27, 10: 0.32, 100: 0.33}
    tuning = pd.DataFrame(
        {
            "setting": "s",
            "method": "m",
            "hyperparameters": [json.dumps({"strength": key}) for key in reversed(errors)],
            "mean": list(reversed(errors.values())),
        }
    )
    monkeypatch.setattr(
        evidence_methods, "select_rows", lambda name, study, **values: tuning.copy()
    )
    assert evidence_methods.good_strengths("s", "m") == [0.1, 1, 10]


def test_stated_budgets_are_shares_of_the_published_steps_within_a_task():
    text = (pages.ROOT / "studies/evidence_methods.yaml").read_text(encoding="utf-8")
    stated = dict(re.findall(r"^  (\w+): # ([\d.]+) %", text, flags=re.MULTILINE))
    published = yaml.safe_load((pages.ROOT / "studies/paper.yaml").read_text(encoding="utf-8"))
    problems = {name: setting["problem"] for name, setting in published["settings"].items()}
    problems["mnist_labels_tanh"] = problems["mnist_labels_relu"]
    settings = evidence_methods.declared()["settings"]
    assert set(stated) == set(settings)
    for name, setting in settings.items():
        own, full = setting["problem"], problems[name]
        assert {**own, "epochs": 0, "tasks": 0} == {**full, "epochs": 0, "tasks": 0}
        assert float(stated[name]) == pytest.approx(100 * own["epochs"] / full["epochs"])
