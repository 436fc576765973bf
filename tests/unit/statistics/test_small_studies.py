"""Tables of studies that are as small or as bad as the config allows."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from treated_settings import TREATMENTS, Truth, treated_setting

from plasticity.config.models import Statistics
from plasticity.statistics import tables
from plasticity.statistics.merge import add_gaps
from plasticity.statistics.table_files import TEXT_COLUMNS, read_table

RUN = ("arm", "seed", "task")
MEASURES = ("fisher_effective_rank", "fisher_trace", "feature_rank", "dead_fraction")


def draw_dataset(arms=("none", "l2(strength=0.1)", "fresh"), seeds=5, tasks=16, value=None, draw=0):
    """Draw a setting's dataset; with a value, all outcomes and measures have it."""
    random = np.random.default_rng(draw)
    shape = (len(arms), seeds, tasks)

    def numbers(more=()):
        if value is not None:
            return np.full((*shape, *more), value)
        return random.uniform(0.1, 0.9, (*shape, *more))

    variables = {}
    for name in ("final_error", "online_error", "final_loss", "update_norm"):
        variables[name] = (RUN, numbers())
    variables["status"] = (RUN, np.full(shape, int(value is not None and np.isnan(value)), np.int8))
    variables["weight_norm"] = ((*RUN, "block"), numbers((1,)))
    for name in MEASURES:
        variables[name] = ((*RUN, "evaluation_point", "block"), numbers((1, 1)))
    coordinates = {
        "arm": list(arms),
        "seed": range(seeds),
        "task": range(tasks),
        "evaluation_point": ["next"],
        "block": ["all"],
    }
    data = xr.Dataset(variables, coordinates)
    baseline = data.sel(arm="fresh", drop=True)
    names = ("final_error", "online_error", "final_loss")
    return add_gaps(data.assign({f"fresh_{name}": baseline[name] for name in names}))


def with_one_diverged_seed():
    data = draw_dataset()
    for name in data.data_vars:
        if data[name].dtype.kind == "f" and "arm" in data[name].dims:
            data[name][{"arm": 0, "seed": 1}] = np.nan
    return data


FEW_TREATMENTS = {name: TREATMENTS[name] for name in ("none", "fresh", "shrink", "low_rank")}


def all_copies(status="run_diverged", seeds=range(5)):
    """Give all copies of some seeds a status; an unchanged copy has a trained `none`."""
    copies = [str(copy) for copy in treated_setting().treatment.values]
    trained = {"none"} if status == "unchanged" else set()
    return {(copy, seed): status for copy in copies if copy not in trained for seed in seeds}


STUDIES = {
    "many seeds": lambda: {"s": draw_dataset(seeds=9)},
    "one seed": lambda: {"s": draw_dataset(seeds=1)},
    "two seeds": lambda: {"s": draw_dataset(seeds=2)},
    "one task": lambda: {"s": draw_dataset(tasks=1)},
    "two tasks": lambda: {"s": draw_dataset(tasks=2)},
    "one seed and task": lambda: {"s": draw_dataset(seeds=1, tasks=1)},
    "only the baseline": lambda: {"s": draw_dataset(arms=("fresh",))},
    "no other arm": lambda: {"s": draw_dataset(arms=("none", "fresh"))},
    "constant values": lambda: {"s": draw_dataset(value=0.5)},
    "zeros": lambda: {"s": draw_dataset(value=0.0)},
    "all runs diverged": lambda: {"s": draw_dataset(value=np.nan)},
    "one diverged run": lambda: {"s": with_one_diverged_seed()},
    "two settings": lambda: {"s": draw_dataset(), "t": draw_dataset(seeds=1, tasks=1)},
    "one of two settings diverged": lambda: {"s": draw_dataset(), "t": draw_dataset(value=np.nan)},
    "test error in one of two settings": lambda: {
        "s": with_test_error(draw_dataset()),
        "t": draw_dataset(draw=1),
    },
    "interventions": lambda: {"s": treated_setting()},
    "interventions in one of two settings": lambda: {"s": treated_setting(), "t": draw_dataset()},
    "interventions with one seed": lambda: {"s": treated_setting(seeds=1)},
    "interventions with two seeds": lambda: {"s": treated_setting(seeds=2)},
    "interventions with many seeds": lambda: {"s": treated_setting(seeds=9, draw=1)},
    "interventions with one task": lambda: {"s": treated_setting(treated_tasks=(4,))},
    "interventions in two arms": lambda: {
        "s": treated_setting(treated_arms=("none", "l2(strength=0.1)"))
    },
    "only the treatment none": lambda: {"s": treated_setting(treatments={"none": ("control", ())})},
    "a few treatments": lambda: {"s": treated_setting(treatments=FEW_TREATMENTS)},
    "constant measures of copies": lambda: {"s": treated_setting(Truth(constant=MEASURES))},
    "all copies diverged": lambda: {"s": treated_setting(statuses=all_copies("diverged"))},
    "all copies unchanged": lambda: {"s": treated_setting(statuses=all_copies("unchanged"))},
    "one diverged checkpoint": lambda: {"s": treated_setting(statuses=all_copies(seeds=[1]))},
    "two equal settings": lambda: {"s": draw_dataset(), "t": draw_dataset()},
}


def with_test_error(data):
    return add_gaps(
        data.assign(test_error=data["final_error"], fresh_test_error=data["fresh_final_error"])
    )


@pytest.fixture(scope="module", params=STUDIES)
def all_tables(request):
    return tables.build_tables(STUDIES[request.param](), Statistics.of({"draws": 99}))


def test_every_cell_is_a_number_a_truth_value_or_a_text(all_tables):
    for name, table in all_tables.items():
        for column in table:
            kinds = {type(value) for value in table[column] if not isinstance(value, str)}
            if table[column].dtype == object and len(table):
                assert not kinds - {bool}, f"{name}.{column} has {kinds}"


def test_columns_have_the_same_type_after_they_are_read_from_a_file(all_tables, tmp_path):
    for name, table in all_tables.items():
        table.to_csv(tmp_path / "table.csv", index=False, float_format="%.6g")
        read = read_table(tmp_path / "table.csv")
        assert list(read) == list(table)
        for column in read:
            if not len(table) or column in TEXT_COLUMNS:
                continue
            is_number = pd.api.types.is_numeric_dtype(table[column])
            assert pd.api.types.is_numeric_dtype(read[column]) == is_number, f"{name}.{column}"


def test_statements_are_sentences_without_missing_numbers(all_tables):
    sentences = all_tables["statements"]["statement"]
    assert len(sentences)
    for sentence in sentences:
        assert "nan" not in sentence.lower(), sentence


def test_too_few_seeds_are_noted():
    one_seed = tables.build_tables(STUDIES["one seed"](), Statistics.of({"draws": 99}))
    rows = one_seed["null_models"]
    assert not rows["p"].notna().any()
    within = one_seed["associations"].query("level == 'within_run'")
    assert within["note"].str.contains("too few seeds").all()
