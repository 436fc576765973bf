"""Selection of an arm on tuning seeds, and the table of scores."""

import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from plasticity.config.models import Tuning, arm_name
from plasticity.errors import StudyError
from plasticity.statistics import resampling, summaries
from plasticity.statistics.table_files import read_table
from plasticity.training.outcomes import STATUS
from plasticity.training.selection import choose, scores

STRENGTHS, TASKS = [0.001, 0.01, 0.1], 16


def block(errors, seeds=(1000,), diverged=()):
    """Make the outcomes of a tuning job.

    Args:
        errors: final error of each arm, a number or one per task; the online error is 1 minus it.
        seeds: all have the same errors.
        diverged: pairs (arm, seed) that diverge in the middle.
    """
    arms = [{"strength": strength} for strength in STRENGTHS[: len(errors)]]
    shape = (len(errors), len(seeds), TASKS)
    final = np.broadcast_to(
        np.reshape(np.asarray(errors, np.float32), (len(errors), 1, -1)), shape
    ).copy()
    status = np.zeros(shape, np.int8)
    for place in diverged:
        status[place][TASKS // 2 :] = STATUS["diverged"]
        final[place][TASKS // 2 :] = np.nan
    dims = ("arm", "seed", "task")
    return xr.Dataset(
        {
            "final_error": (dims, final),
            "online_error": (dims, 1 - final),
            "final_loss": (dims, 2 * final),
            "status": (dims, status),
        },
        {"arm": [arm_name("l2", arm) for arm in arms], "seed": list(seeds), "task": range(TASKS)},
        {"settings": json.dumps({"method": "l2", "arms": arms})},
    )


def chosen(*blocks, **criterion):
    return choose(blocks, Tuning(**criterion), "row")["arm"]["strength"]


def test_arm_with_lowest_mean_is_selected():
    assert chosen(block([0.3, 0.2, 0.4])) == 0.01


def test_score_is_the_mean_over_tasks_and_seeds_of_all_blocks():
    one, two = block([0.3, 0.2], seeds=(1000, 1001)), block([0.1, 0.6], seeds=(1002,))
    found = choose([one, two], Tuning(), "row")
    assert found["arm"] == {"strength": 0.001}
    assert found["score"] == pytest.approx((0.3 + 0.3 + 0.1) / 3)
    assert [compared["score"] for compared in found["compared"]] == pytest.approx([0.7 / 3, 1 / 3])
    assert [compared["arm"] for compared in found["compared"]] == [
        {"strength": 0.001},
        {"strength": 0.01},
    ]
    assert found["seeds"] == [1000, 1001, 1002]
    assert found["criterion"] == {"outcome": "final_error", "stage": "all"}


def test_criterion_sets_outcome_and_stage():
    early, late = [0.9] + [0.1] * 2 + [0.9] * 13, [0.5] * 14 + [0.2] * 2
    data = block([early, [0.45] * TASKS, late])
    assert chosen(data, stage="early") == 0.001
    assert chosen(data, stage="late") == 0.1
    assert chosen(data, stage="all") == 0.01
    assert chosen(data, outcome="online_error") == 0.001
    assert chosen(data, outcome="final_loss") == 0.01


def test_first_of_equal_arms_is_selected():
    assert chosen(block([0.4, 0.2, 0.2])) == 0.01
    assert chosen(block([0.2, 0.2, 0.2])) == 0.001


def test_arm_with_a_diverged_seed_is_never_selected():
    data = block([0.1, 0.9, 0.95], seeds=(1000, 1001), diverged=[(0, 1)])
    for stage in ("all", "early", "late"):
        assert chosen(data, stage=stage) == 0.01
    found = choose([data], Tuning(), "row")["compared"]
    assert found[0]["score"] is None
    assert json.dumps(found)


def test_divergence_of_every_arm_is_an_error():
    with pytest.raises(
        StudyError,
        match=r"^every arm of l2 diverged on some tuning seed of row, so none can be chosen: "
        r"[^\n]+$",
    ):
        chosen(block([0.1, 0.2], seeds=(1000, 1001), diverged=[(0, 0), (1, 1)]))


@given(
    errors=st.lists(st.floats(0, 1, width=32, allow_subnormal=False), min_size=1, max_size=3),
    seeds=st.integers(1, 4),
)
def test_no_arm_is_better_than_the_selected_one(errors, seeds):
    data = block(errors, seeds=range(1000, 1000 + seeds))
    assert STRENGTHS.index(chosen(data)) == int(np.argmin(scores(data, Tuning())))


# The table


@pytest.fixture
def table():
    draw = np.random.default_rng(0)
    blocks = [
        block(draw.uniform(0, 1, (3, TASKS)), seeds=(seed,), diverged=[(2, 0)] * (seed == 1001))
        for seed in (1000, 1001, 1002)
    ]
    choice = choose(blocks, Tuning("online_error", "late"), "row")
    return blocks, choice, summaries.tuning({("row", "l2"): blocks}, {("row", "l2"): choice})


def test_table_has_a_row_for_every_arm_outcome_and_stage(table):
    _, _, found = table
    assert list(found.columns) == summaries.TUNING_COLUMNS
    keys = found[["arm", "outcome", "stage"]].apply(tuple, axis=1)
    arms = [arm_name("l2", {"strength": strength}) for strength in STRENGTHS]
    outcomes, stages = ("final_error", "online_error", "final_loss"), ("early", "late", "all")
    assert set(keys) == {
        (arm, outcome, stage) for arm in arms for outcome in outcomes for stage in stages
    }
    assert keys.is_unique
    assert set(found["setting"]) == {"row"}
    assert set(found["method"]) == {"l2"}
    assert [json.loads(text)["strength"] for text in found["hyperparameters"].unique()] == STRENGTHS


def test_table_marks_criterion_and_selected_arm_with_its_score(
    table,
):
    _, choice, found = table
    assert set(found[found["criterion"]][["outcome", "stage"]].apply(tuple, axis=1)) == {
        ("online_error", "late")
    }
    assert set(found[found["chosen"]]["arm"]) == {arm_name("l2", choice["arm"])}
    by = found[found["criterion"]].set_index("arm")
    assert by.loc[arm_name("l2", choice["arm"]), "mean"] == pytest.approx(choice["score"])
    for compared in choice["compared"][:2]:
        assert by.loc[arm_name("l2", compared["arm"]), "mean"] == pytest.approx(compared["score"])


def test_table_has_t_intervals_over_seeds_and_notes_divergence(table):
    blocks, _, found = table
    runs = np.concatenate([block["final_error"].values[0] for block in blocks]).astype(float)
    row = found[
        (found["arm"] == "l2(strength=0.001)")
        & (found["outcome"] == "final_error")
        & (found["stage"] == "late")
    ].iloc[0]
    assert row["mean"] == pytest.approx(runs[:, -2:].mean())
    assert (row["low"], row["high"]) == pytest.approx(
        resampling.t_interval(runs[:, -2:].mean(axis=1))
    )
    assert (row["seeds"], row["tasks"], row["note"]) == (3, 2, "")
    diverged = found[found["arm"] == "l2(strength=0.1)"]
    assert set(diverged["seeds"]) == {2}
    assert diverged["note"].str.contains("1 diverged").all()


def test_table_without_tuning_is_its_header(tmp_path):
    found = summaries.tuning({}, {})
    found.to_csv(tmp_path / "tuning.csv", index=False)
    assert (tmp_path / "tuning.csv").read_text() == ",".join(summaries.TUNING_COLUMNS) + "\n"
    assert list(read_table(tmp_path / "tuning.csv").columns) == summaries.TUNING_COLUMNS
