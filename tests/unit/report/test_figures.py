"""Figures show what the data hold, no text overlaps, and equal data give equal bytes.

To make the expected pictures again, for example after changing a label:
pytest tests/unit/report/test_figures.py -k equals_its_picture \
    --mpl-generate-path=tests/unit/report/pictures
Then look at each picture that changed.
"""

import functools
import itertools
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.colors
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text
from scipy.stats import rankdata
from tiers import slow_except

from plasticity.config import quantities, registry
from plasticity.config.models import FAMILIES, Curvature, Statistics
from plasticity.curvature import measure
from plasticity.errors import StudyError
from plasticity.report import panels, publish
from plasticity.report.drawing import draw_pages
from plasticity.report.style import Style, as_line_options, lay_out, save
from plasticity.statistics import (
    associations,
    comparisons,
    intervention_models,
    interventions,
    lead_lag,
    merge,
    meta_analysis,
    population,
    prediction,
    resampling,
    summaries,
    treatment_effects,
)
from plasticity.statistics.hypotheses import adjust_p_values
from plasticity.statistics.resampling import Draws
from plasticity.statistics.setting_arrays import SettingArrays
from plasticity.statistics.treated_arrays import TreatedArrays, has_interventions
from plasticity.storage import netcdf
from plasticity.training import outcomes

ROOT = Path(__file__).parents[3]
STYLE_FILE = ROOT / "workflow/style.yaml"
STYLE = Style.read(STYLE_FILE)
NAMES = registry.names("figures")
OPERATORS = re.compile("(treated_)?(fisher|hessian)")
BLOCKS = ["hidden_1", "hidden_2", "output", "last_two", "all"]
CURVATURE = Curvature.of(
    {
        "operators": ["fisher", "hessian"],
        "samples": 9,
        "evaluation_points": ["previous", "next"],
        "every": 1,
    }
)
COPIES = {  # family and strength of each treatment
    "none": ("control", np.nan),
    "fresh": ("control", np.nan),
    "reset_optimizer": ("control", np.nan),
    "shrink(strength=0.3)": ("restoring", 0.3),
    "shrink(strength=0.6)": ("restoring", 0.6),
    "shrink(strength=0.8)": ("restoring", 0.8),
    "reset_last_layer": ("restoring", np.nan),
    "low_rank(strength=0.05)": ("harmful", 0.05),
    "low_rank(strength=0.9)": ("harmful", 0.9),
    "rescale_layers(strength=2)": ("preserving", 2.0),
    "rescale_layers(strength=5)": ("preserving", 5.0),
}
COPY_STATUSES = ("trained", "diverged", "run_diverged", "unchanged")
ARMS = ["none", "l2(strength=0.001)", "l2(strength=0.01)", "wasserstein(strength=0.01)", "fresh"]
DPI = 60
TOLERANCE = 3  # root mean square difference of pictures; swapped colours and lost axes exceed it


# Studies


def setting(
    seed=0, arms=ARMS, seeds=4, tasks=6, evaluation_points=("previous", "next"), blocks=BLOCKS
):
    """Make a setting's dataset with all variables of the contract and random numbers."""
    coordinates = {
        "arm": arms,
        "seed": range(seeds),
        "task": range(tasks),
        "evaluation_point": list(evaluation_points),
        "block": blocks,
        "rank": range(5),
        "step": range(5, 25, 5),
        "grid": 0.01 * np.sinh(np.linspace(-1.05, 1.05, 7) * np.arcsinh(100)),
    }
    table = outcomes.TABLE | measure.table(CURVATURE)
    del table["test_error"]
    values = {}
    for name, variable in table.items():
        # each has its own draw, so that a new variable changes no picture
        draw = np.random.default_rng([seed, *name.encode()])
        shape = [len(coordinates[dim]) for dim in variable.dims]
        values[name] = draw.uniform(0.1, 0.9, shape)
    values["fisher_eigenvalue"][:] = -np.sort(-values["fisher_eigenvalue"], axis=-1)
    values["feature_rank"][..., 2:] = np.nan
    data = netcdf.dataset(table, values, coordinates, "random", {})
    of_baseline = data.sel(arm=["fresh"] * len(arms)).assign_coords(arm=arms)
    baseline = {
        name: of_baseline[name.removeprefix("fresh_")]
        for name in outcomes.FRESH
        if name != "fresh_test_error"
    }
    data = merge.add_gaps(data.assign(baseline))
    has_interventions = "none" in arms and tasks > 1
    return with_copies(data, table, seed) if has_interventions else data


def with_copies(data, table, seed):
    """Add treated copies of checkpoints of the arm none, at the first and the last task boundary.

    Each treatment has an effect of its own on all quantities, and each copy has noise.
    """
    treated = {
        "arm": ["none"],
        "seed": data.seed.values,
        "task": [1, data.sizes["task"] - 1],
        "treatment": list(COPIES),
        "block": data.block.values,
    }
    families = list(FAMILIES)
    effects = np.random.default_rng(seed).uniform(size=len(COPIES))
    variables = {}
    for name, variable in table.items():
        dims = [dim for dim in treated if dim in (*variable.dims, "treatment")]
        if {"rank", "grid", "step"} & set(variable.dims) or name.endswith("status"):
            continue
        draw = np.random.default_rng([seed, *name.encode()])
        noise = draw.uniform(size=[len(treated[dim]) for dim in dims])
        sign = quantities.describe(name).claimed_sign or 1
        signal = effects if sign > 0 else 1 - effects
        along = [-1 if dim == "treatment" else 1 for dim in dims]
        values = 0.1 + 0.6 * signal.reshape(along) + 0.2 * noise
        if name == "feature_rank":
            values[..., 2:] = np.nan
        names = [f"treated_{dim}" if dim in ("arm", "task") else dim for dim in dims]
        variables[f"treated_{name}"] = (names, values)
    shape = variables["treated_final_error"][1].shape
    flags = {"flag_meanings": " ".join(COPY_STATUSES), "flag_values": range(4)}
    copy_dims = ("treated_arm", "seed", "treated_task", "treatment")
    variables["treated_copy_status"] = (copy_dims, np.zeros(shape, np.int8), flags)
    codes = [families.index(family) for family, _ in COPIES.values()]
    flags = {"flag_meanings": " ".join(families), "flag_values": range(len(families))}
    variables["treatment_family"] = ("treatment", codes, flags)
    variables["treatment_strength"] = ("treatment", [strength for _, strength in COPIES.values()])
    coordinates = {
        "treated_arm": treated["arm"],
        "treated_task": treated["task"],
        "treatment": treated["treatment"],
    }
    return data.assign(variables).assign_coords(coordinates)


def without_copies(data, is_missing):
    """Copy a dataset in which the copies diverged where `is_missing(data)` holds."""
    status = data["treated_copy_status"]
    treated = {
        name: data[name].where(~is_missing(data))
        for name in data
        if str(name).startswith("treated_") and name != "treated_copy_status"
    }
    missing = is_missing(data).broadcast_like(status).transpose(*status.dims)
    diverged = COPY_STATUSES.index("diverged")
    return data.assign(treated | {"treated_copy_status": status.where(~missing, diverged)})


def without_interventions(data):
    """Copy a dataset without treated copies."""
    return data.drop_vars([name for name in data.variables if str(name).startswith("treat")])


def without(data, is_missing):
    """Copy a dataset with NaN where `is_missing(data)` holds."""

    def blank(values):
        if "arm" not in values.dims:
            return values
        return values.where(~is_missing(data)).transpose(*values.dims)

    return data.map(blank)


def constant(data, *names):
    """Copy a dataset with measures that never change."""
    return data.assign({name: data[name] * 0 + 0.5 for name in names})


def without_curvature(data):
    """Copy a dataset without the measures of operators."""
    return data.drop_vars([name for name in data if OPERATORS.match(str(name))])


def with_operator(data, operator):
    """Copy a dataset with the Fisher's measures for a further operator, too."""
    fisher = [str(name) for name in data.data_vars if str(name).startswith("fisher_")]
    return data.assign({name.replace("fisher", operator, 1): data[name] for name in fisher})


def tables_of(datasets):
    """Compute the tables that figures are drawn from."""
    settings, draws = (
        [SettingArrays.from_dataset(name, data) for name, data in datasets.items()],
        Draws(49),
    )
    explanations = [panel.explanations() for panel in settings]
    within, null_rows = associations.associations(explanations, draws, 0.3)
    tested = {
        "associations": within,
        "null_models": null_rows,
        "lead_lag": lead_lag.lead_lag(settings, draws, 0.3),
        "consistency": meta_analysis.consistency(settings, draws, 0.3),
        "comparisons": comparisons.comparisons(settings, draws, 0.05),
        "population": population.population(settings, draws, "fisher_effective_rank"),
    }
    treated = tables_of_interventions(datasets, draws)
    tested |= {name: treated[name] for name in ("interventions", "intervention_models")}
    counterexamples = meta_analysis.find_counterexamples(settings, draws, 0.05, 0.2)
    others = {
        "counterexamples": counterexamples,
        "arms": meta_analysis.rank_arms(counterexamples, {name: name for name in datasets}, draws),
        "redundancy": prediction.redundancy(settings, draws, "effective_rank"),
        "outcomes": summaries.outcomes(datasets),
        "tuning": pd.DataFrame(columns=summaries.TUNING_COLUMNS),
    }
    return others | treated | adjust_p_values(tested, Statistics())


def tables_of_interventions(datasets, draws):
    """Compute the tables of treated copies."""
    settings = [
        TreatedArrays.from_dataset(name, data)
        for name, data in datasets.items()
        if has_interventions(data)
    ]
    problems = {arrays.setting: arrays.setting for arrays in settings}
    return {
        "treatments": treatment_effects.treatments(settings, draws),
        "interventions": interventions.interventions(
            settings, problems, draws, 0.3, "fisher_effective_rank"
        ),
        "intervention_models": intervention_models.intervention_models(settings, draws, 0.3),
        "intervention_counterexamples": treatment_effects.find_intervention_counterexamples(
            settings, draws, 0.05, 0.2
        ),
    }


def draw(name, datasets, tables=None, style=STYLE):
    """Draw a figure and lay it out; every warning is an error."""
    needed = registry.constant("figures", name, "TABLES")
    if tables is None:
        tables = tables_of(datasets) if needed else {}
    with style.applied():
        plugin = registry.load("figures", name)
        figure = plugin.draw(datasets, {table: tables[table] for table in needed}, style)
        lay_out(figure)
    return figure


def draw_all_pages(name, datasets, tables):
    """Draw and lay out all pages of a figure; every warning is an error."""
    with STYLE.applied():
        figures = list(draw_pages(name, datasets, tables, STYLE))
        for figure in figures:
            lay_out(figure)
    return figures


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def lines(axis):
    """Return the lines of a panel by label."""
    return {line.get_label(): line for line in axis.lines}


TWO_SETTINGS = {
    f"digits_labels_{activation}": setting(seed, tasks=12)
    for seed, activation in enumerate(["relu", "tanh"])
}
FOUR_SETTINGS = {f"digits_labels_{k}": setting(k) for k in range(4)}
LONG_NAMES = [f"digits_labels_some_rather_long_name_{k}" for k in range(9)]
INTERVENTIONS = [
    f"{method}(strength=0.1)"
    for method in registry.names("methods")
    if method not in ("none", "fresh")
]
SPECIAL_CHARACTERS = ["none", "l2(kind=$a_b$ & <c> 100% #1 ^~{}\\)", "fresh"]
TWELVE_LAYERS = [*(f"conv_{k}" for k in range(11)), "output", "last_two", "all"]
STUDIES = {
    "two settings": TWO_SETTINGS,
    "nine settings with long names": {
        name: setting(k, ARMS[::2]) for k, name in enumerate(LONG_NAMES)
    },
    "every method": {"a_b_relu": setting(arms=["none", *INTERVENTIONS, "fresh"])},
    "one seed": {"a_b_relu": setting(seeds=1)},
    "one task": {"a_b_relu": setting(tasks=1)},
    "no interventions": {"a_b_relu": setting(arms=["none", "fresh"])},
    "only the baseline and one method": {"a_b_relu": setting(arms=["l2(strength=1)", "fresh"])},
    "only the previous task's data": {"a_b_relu": setting(evaluation_points=("previous",))},
    "only the whole network": {"a_b_relu": setting(blocks=["all"])},
    "twelve layers": {"a_b_relu": setting(blocks=TWELVE_LAYERS)},
    "no curvature": {"a_b_relu": without_curvature(setting())},
    "one run diverged": {
        "a_b_relu": without(
            setting(), lambda data: (data.arm == "none") & (data.seed == 1) & (data.task >= 2)
        )
    },
    "all runs of an arm diverged": {
        "a_b_relu": without(setting(), lambda data: data.arm == "none")
    },
    "every second task measured": {"a_b_relu": without(setting(), lambda data: data.task % 2 == 1)},
    "constant measures": {
        "a_b_relu": constant(setting(), "fisher_effective_rank", "dead_fraction")
    },
    "some copies diverged": {
        "a_b_relu": without_copies(
            setting(), lambda data: (data.treatment != "none") & (data.seed == 1)
        )
    },
    "all copies diverged": {"a_b_relu": without_copies(setting(), lambda data: data.seed >= 0)},
    "no treated copies": {"a_b_relu": without_interventions(setting())},
    "special characters in an arm": {"a_b_relu": setting(arms=SPECIAL_CHARACTERS)},
}


@pytest.fixture(
    scope="module", params=slow_except(["two settings", "all runs of an arm diverged"], STUDIES)
)
def study(request):
    """Datasets and tables of a study."""
    datasets = STUDIES[request.param]
    return datasets, tables_of(datasets)


@functools.cache
def tables_of_four():
    """Compute the tables of treated copies of four settings; tests do not change them."""
    return tables_of_interventions(FOUR_SETTINGS, Draws(49))


@pytest.fixture(scope="module")
def treated():
    """Tables of treated copies of the study with two settings."""
    return tables_of_interventions(TWO_SETTINGS, Draws(49))


@pytest.fixture(scope="module")
def tables():
    """Tables of the study with two settings."""
    return tables_of(TWO_SETTINGS)


# Pictures


def visible_texts(figure):
    """List titles, labels, remarks and legends, without tick labels, with their extents."""
    renderer = figure.canvas.get_renderer()
    tick_labels = {
        label
        for axis in figure.axes
        for label in (*axis.get_xticklabels(), *axis.get_yticklabels())
    }
    texts = [
        text
        for text in figure.findobj(Text)
        if text.get_text() and text.get_visible() and text not in tick_labels
    ]
    # an annotation's own method adds the line to its point
    return [(text.get_text(), Text.get_window_extent(text, renderer).padded(-1)) for text in texts]


def overlapping_texts(figure):
    """List pairs of texts that overlap."""
    return [
        (text, other_text)
        for (text, extent), (other_text, other_extent) in itertools.combinations(
            visible_texts(figure), 2
        )
        if extent.overlaps(other_extent)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_figure_stays_on_its_page_and_no_texts_overlap(name, study):
    for figure in draw_all_pages(name, *study):
        with STYLE.applied():  # ticks depend on the style
            figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
        assert (pixels < 128).any()
        for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
            assert (edge == 255).all(), "something reaches over the edge of the page"
        assert not overlapping_texts(figure)


# Pages


@functools.cache
def many_settings(count):
    """Make the datasets of this many settings; tests do not change them."""
    return {f"mnist_labels_{k}": setting(k, ARMS[::2], seeds=2) for k in range(count)}


@functools.cache
def tables_of_many(count):
    """Compute the tables of `many_settings`; tests do not change them."""
    return tables_of(many_settings(count))


@pytest.mark.parametrize(
    ("name", "setting_count"),
    slow_except(
        [(name, 1) for name in NAMES] + [(name, 14) for name in ("spectra", "layers")],
        itertools.product(NAMES, (1, 14)),
    ),
)
def test_no_page_is_too_tall(name, setting_count):
    needed = registry.constant("figures", name, "TABLES")
    tables = tables_of_many(setting_count) if needed else {}
    for figure in draw_all_pages(name, many_settings(setting_count), tables):
        width, height = figure.get_size_inches()
        assert height <= panels.MAX_HEIGHT * width * (1 + 1e-9)


def test_title_of_a_setting_does_not_depend_on_its_page():
    described = {
        "problem": {"dataset": "mnist", "shift": "shuffle_labels"},
        "network": {"kind": "mlp", "activation": "relu"},
        "optimizer": {"kind": "adam"},
    }
    datasets = {
        name: data.assign_attrs(settings=json.dumps({"setting": described}))
        for name, data in many_settings(5).items()
    }
    figures = draw_all_pages("curvature", datasets, {})
    titles = [figure.axes[0].get_title() for figure in figures]
    assert titles == ["mnist labels 0", "mnist labels 4"], "not twice the same description"


LOST = "lost, and the measure moves as claimed"
KEPT = "kept, and nothing against the claim"


def with_verdicts(tables, **verdicts):
    """Give all rows of the arm without an intervention a verdict.

    Args:
        tables: of `TWO_SETTINGS`.
        verdicts: by the end of the setting's name, ``relu`` or ``tanh``.
    """
    table = tables["counterexamples"].copy()
    for ending, verdict in verdicts.items():
        is_chosen = table["setting"].str.endswith(ending) & (table["arm"] == "none")
        table.loc[is_chosen, "verdict"] = verdict
    return tables | {"counterexamples": table}


def tables_of_picture(name, tables):
    """Return the tables of a picture; random numbers have no verdict for the summary."""
    return with_verdicts(tables, relu=LOST, tanh=KEPT) if name == "summary" else tables


@pytest.mark.mpl_image_compare(
    baseline_dir="pictures",
    tolerance=TOLERANCE,
    savefig_kwargs={"dpi": DPI},
    style="default",
    deterministic=True,
)
@pytest.mark.parametrize("name", NAMES)
def test_figure_equals_its_picture(name, tables):
    return draw(name, TWO_SETTINGS, tables_of_picture(name, tables))


def write_picture(figure, path):
    with STYLE.applied():
        figure.savefig(path, dpi=DPI)
    plt.close(figure)
    return str(path)


def rotate_values(looks):
    """Give each key the value of the next."""
    values = list(looks.values())
    return dict(zip(looks, [*values[1:], values[0]], strict=True))


SWAPPED_COLOURS = replace(
    STYLE,
    methods=rotate_values(STYLE.methods),
    operators=rotate_values(STYLE.operators),
    evaluation_points=rotate_values(STYLE.evaluation_points),
    stages=rotate_values(STYLE.stages),
    families=rotate_values(STYLE.families),
    sequence="cool",
    signed="RdBu",
    quiet="#ff0000",
)


@pytest.mark.parametrize("name", slow_except(["scatter"], NAMES))
def test_comparison_of_pictures_finds_swapped_colours_and_lost_axes(name, tables, tmp_path):
    tables = tables_of_picture(name, tables)
    expected = write_picture(draw(name, TWO_SETTINGS, tables), tmp_path / "expected.png")
    swapped = draw(name, TWO_SETTINGS, tables, SWAPPED_COLOURS)
    swapped = write_picture(swapped, tmp_path / "swapped.png")
    lost = draw(name, TWO_SETTINGS, tables)
    lost.axes[0].set_axis_off()
    lost = write_picture(lost, tmp_path / "lost.png")
    assert compare_images(expected, expected, TOLERANCE) is None
    assert compare_images(expected, swapped, TOLERANCE) is not None
    assert compare_images(expected, lost, TOLERANCE) is not None


# Contents of panels


def test_line_is_the_mean_over_seeds_and_band_is_its_interval():
    data = setting()
    axis = draw("explanations", {"a_b_relu": data}).axes[0]
    runs = data["final_error"].sel(arm="none").values
    line = lines(axis)["no intervention"]
    np.testing.assert_allclose(line.get_ydata(), runs.mean(axis=0), rtol=1e-6)
    band = axis.collections[0].get_paths()[0].vertices[:, 1]
    low, high = np.array([resampling.t_interval(column) for column in runs.T]).T
    assert band.min() == pytest.approx(low.min())
    assert band.max() == pytest.approx(high.max())


def test_panel_has_room_for_all_seeds_but_not_for_wide_bands():
    data = setting()
    axis = draw("explanations", {"a_b_relu": data}).axes[0]
    runs = data["final_error"].sel(arm=["none", "fresh"])
    band_tops = [resampling.t_interval(column)[1] for column in runs.sel(arm="none").values.T]
    bottom, top = axis.get_ylim()
    assert bottom < runs.min()
    assert runs.max() < top < max(band_tops)


def test_one_seed_has_no_band():
    assert not draw("explanations", {"a_b_relu": setting(seeds=1)}).axes[0].collections


def test_one_task_is_drawn_as_a_dot():
    axis = draw("explanations", {"a_b_relu": setting(tasks=1)}).axes[0]
    assert lines(axis)["no intervention"].get_marker() == "o"


def test_panel_counts_the_seeds_that_did_not_diverge():
    datasets = STUDIES["one run diverged"]
    axis = draw("explanations", datasets).axes[0]
    assert "no intervention: 3 of 4 seeds" in axis.get_title()
    expected = datasets["a_b_relu"]["final_error"].sel(arm="none", seed=[0, 2, 3]).mean("seed")
    np.testing.assert_allclose(lines(axis)["no intervention"].get_ydata(), expected, rtol=1e-6)


def test_last_row_of_explanations_is_the_primary_rank_of_curvature():
    data = setting()
    axis = draw("explanations", {"a_b_relu": data}).axes[-1]
    selected = data["fisher_effective_rank"].sel(arm="none", evaluation_point="next", block="all")
    line = lines(axis)["no intervention"]
    np.testing.assert_allclose(line.get_ydata(), selected.mean("seed"), rtol=1e-6)
    assert axis.get_ylabel() == "Fisher\neffective rank"


def test_feature_rank_is_that_of_the_last_hidden_layer_on_the_next_task():
    data = setting()
    axis = draw("explanations", {"a_b_relu": data}).axes[1]
    selected = data["feature_rank"].sel(arm="none", evaluation_point="next", block="hidden_2")
    line = lines(axis)["no intervention"]
    np.testing.assert_allclose(line.get_ydata(), selected.mean("seed"), rtol=1e-6)


def test_panel_of_a_missing_measure_says_not_measured():
    data = setting().drop_vars("dead_fraction")
    axis = draw("explanations", {"a_b_relu": data}).axes[3]
    assert not axis.lines
    assert [text.get_text() for text in axis.texts] == ["not measured"]


def test_counterexamples_of_the_table_are_marked(tables):
    table = tables["counterexamples"].assign(
        verdict="lost, and the measure moves as claimed", counterexample=False
    )
    row = (
        (table["arm"] == "none")
        & (table["measure"] == "dead_fraction")
        & (table["setting"] == "digits_labels_tanh")
    )
    table.loc[row, "counterexample"] = True
    figure = draw("explanations", TWO_SETTINGS, tables | {"counterexamples": table})
    remarks = [axis.get_title(loc="right") for axis in figure.axes]
    marked = [index for index, text in enumerate(remarks) if "counter-example" in text]
    assert marked == [3 * 2 + 1], "the fourth row, the second column"
    assert remarks[marked[0] - 1] == "✓ as claimed"


def test_scatter_has_a_point_per_seed_and_task_and_the_verdict_of_the_table(tables):
    axis = draw("scatter", TWO_SETTINGS, tables).axes[1]
    data = TWO_SETTINGS["digits_labels_tanh"].sel(arm="none")
    rank = data["fisher_effective_rank"].sel(evaluation_point="next", block="all")
    expected = np.column_stack([rank.values.ravel(), data["final_error"].values.ravel()])
    later = np.asarray(axis.collections[0].get_offsets())
    first = np.column_stack(lines(axis)["task 0: the untrained network"].get_data())
    is_first = np.broadcast_to(data.task.values == 0, rank.shape).ravel()
    np.testing.assert_allclose(later, expected[~is_first], rtol=1e-6)
    np.testing.assert_allclose(first, expected[is_first], rtol=1e-6)
    row = (
        tables["associations"]
        .query("setting == 'digits_labels_tanh' and level == 'within_run' and arm == 'none'")
        .query("outcome == 'final_error' and measure == 'fisher_effective_rank'")
        .iloc[0]
    )
    correlation = f"ρ = {row['estimate']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
    texts = [text.get_text() for text in axis.texts]
    assert correlation.replace("-", "−") in texts
    assert {"may be a shared trend", "more than a shared trend"} & set(texts)


@pytest.mark.parametrize(
    ("rejected", "verdict"),
    [
        ("none", "may be a shared trend"),
        ("", "too few seeds to tell"),
        ("task", "more than a shared trend"),
        ("mismatched", "more than a shared trend"),
    ],
)
def test_scatter_says_whether_a_null_model_of_a_shared_trend_is_rejected(tables, rejected, verdict):
    associations = tables["associations"].assign(strongest_null_model=rejected)
    axis = draw("scatter", TWO_SETTINGS, {"associations": associations}).axes[0]
    assert verdict in [text.get_text() for text in axis.texts]


def test_each_layer_has_a_line_with_a_label_of_its_colour_at_the_end():
    data = setting()
    axis = draw("layers", {"a_b_relu": data}).axes[0]
    selected = data["fisher_effective_rank"].sel(
        arm="none", evaluation_point="next", block="output"
    )
    line = lines(axis)["output"]
    np.testing.assert_allclose(line.get_ydata(), selected.mean("seed"), rtol=1e-6)
    assert sorted(text.get_text() for text in axis.texts) == ["hidden 1", "hidden 2", "output"]
    for text in axis.texts:
        colour = lines(axis)[text.get_text()].get_color()
        assert matplotlib.colors.same_color(text.get_color(), colour)


def test_labels_at_the_ends_keep_order_and_distance():
    wanted = np.array([0.5, 0.1, 0.52, 0.51, 0.9])
    positions = panels.spread_apart(wanted, 0.1)
    assert np.array_equal(np.argsort(positions), np.argsort(wanted))
    assert np.diff(np.sort(positions)).min() >= 0.1 - 1e-12
    assert positions[[1, 4]] == pytest.approx([0.1, 0.9])
    assert positions[[0, 3, 2]] == pytest.approx([0.41, 0.51, 0.61]), "least squares"


def test_arms_of_a_method_share_its_colour_and_differ_in_width():
    drawn = lines(draw("methods", {"a_b_relu": setting()}).axes[0])
    references = {"no intervention", "fresh network per task"}
    assert set(drawn) == {*references, "L2 0.001", "L2 0.01", "Wasserstein 0.01"}
    assert drawn["L2 0.01"].get_color() == STYLE.methods["l2"][0]
    assert grey(drawn["L2 0.01"]) < grey(drawn["L2 0.001"]) - 0.1
    assert drawn["L2 0.01"].get_linewidth() > drawn["L2 0.001"].get_linewidth()


def grey(line):
    """Return the brightness of a line's colour."""
    return float(np.dot(matplotlib.colors.to_rgb(line.get_color()), (0.299, 0.587, 0.114)))


def test_many_arms_continue_in_further_rows():
    figure = draw("methods", STUDIES["every method"])
    references = {"no intervention", "fresh network per task"}
    arms_of_rows = [set(lines(axis)) - references for axis in figure.axes[::3]]
    assert set().union(*arms_of_rows) == {panels.short(arm) for arm in INTERVENTIONS}
    assert sum(map(len, arms_of_rows)) == len(INTERVENTIONS)
    assert max(map(len, arms_of_rows)) <= 4, "with both references at most six lines"
    for axis in figure.axes[::3]:
        colours = [line.get_color() for line in axis.lines]
        assert len(set(colours)) == len(colours)


def test_methods_leave_out_settings_without_a_method():
    datasets = {"a_b_relu": setting(arms=["none", "fresh"]), "a_b_tanh": setting(seed=1)}
    text = texts_of(draw("methods", datasets))
    assert "a b tanh" in text
    assert "a b relu" not in text
    figure = draw("methods", {"a_b_relu": datasets["a_b_relu"]})
    assert texts_of(figure).strip() == "No method was trained in these settings."


def test_methods_have_one_heading_per_column_and_a_title_per_setting():
    """Three rows for each of four settings: panels are low, and texts must not overlap."""
    arms = ["none", *INTERVENTIONS[:9], "fresh"]
    figure = draw("methods", {f"a_b_{k}": setting(k, arms) for k in range(4)})
    text = texts_of(figure)
    for heading in ("final error", "gap to a fresh network", "Fisher effective rank"):
        assert text.count(heading) == 1
    assert all(text.count(f"a b {k}") == 1 for k in range(4))
    assert len(figure.axes) == 3 * 3 * 4
    assert not overlapping_texts(figure)


def test_panels_of_sensitivity_have_axes_of_their_own_if_their_errors_differ(tables):
    outcomes = tables["outcomes"].copy()
    of_tanh = (outcomes["setting"] == "digits_labels_tanh") & (outcomes["outcome"] == "final_error")
    outcomes.loc[of_tanh, ["mean", "low", "high"]] *= 0.1
    relu, tanh = draw("sensitivity", TWO_SETTINGS, tables | {"outcomes": outcomes}).axes[:2]
    assert tanh.get_ylim()[1] < 0.2 < relu.get_ylim()[1]
    for axis in (relu, tanh):
        low, high = axis.get_ylim()
        values = [line.get_ydata() for line in axis.lines]
        assert low < np.min(np.concatenate(values)) < np.max(np.concatenate(values)) < high


def test_panels_of_sensitivity_share_their_axis_if_their_errors_are_alike(tables):
    relu, tanh = draw("sensitivity", TWO_SETTINGS, tables).axes[:2]
    assert relu.get_ylim() == tanh.get_ylim()


def test_study_without_several_values_says_so():
    datasets = {"a_b_relu": setting(arms=["none", "fresh"])}
    figure = draw("sensitivity", datasets)
    assert "No hyperparameter of a method has two values." in texts_of(figure)


def test_sensitivity_has_a_line_per_method_with_several_values(tables):
    axis = draw("sensitivity", TWO_SETTINGS, tables).axes[0]
    assert axis.get_xscale() == "log"
    by_label = {container.get_label(): container for container in axis.containers}
    line = by_label["L2"][0]
    row = (
        tables["outcomes"]
        .query("setting == 'digits_labels_relu' and arm == 'l2(strength=0.01)'")
        .query("outcome == 'final_error' and stage == 'late'")
        .iloc[0]
    )
    assert line.get_xdata() == pytest.approx([0.001, 0.01])
    assert line.get_ydata()[1] == pytest.approx(row["mean"])
    assert "Wasserstein" not in by_label, "it has only one value"


@pytest.mark.parametrize(("seeds", "bar_count"), [(2, 0), (3, 2)])
def test_sensitivity_shows_tuning_seeds_and_no_bar_of_two_seeds(tables, seeds, bar_count):
    rows = [
        {
            "setting": "digits_labels_relu",
            "method": "redo",
            "arm": f"redo(threshold={threshold}, every=5)",
            "outcome": "final_error",
            "stage": "late",
            "hyperparameters": json.dumps({"threshold": threshold, "every": 5}),
            "mean": threshold,
            "low": threshold - 0.01,
            "high": threshold + 0.01,
            "seeds": seeds,
        }
        for threshold in (0.1, 0.3)
    ]
    tuning = pd.DataFrame(rows, columns=summaries.TUNING_COLUMNS)
    figure = draw("sensitivity", TWO_SETTINGS, tables | {"tuning": tuning})
    axis = next(axis for axis in figure.axes if axis.get_xlabel() == "threshold")
    line, _, (bars,) = axis.containers[0]
    assert axis.containers[0].get_label() == "ReDo (every 5)"
    assert line.get_ydata() == pytest.approx([0.1, 0.3])
    assert len([segment for segment in bars.get_segments() if segment.size]) == bar_count


def test_spectra_show_every_measured_task_and_the_first_and_last():
    data = setting()
    densities, ends, hessian = draw("spectra", {"a_b_relu": data}).axes[:3]
    assert densities.collections[0].get_array().shape[1] == data.sizes["task"]
    selected = data["fisher_eigenvalue"].sel(arm="none", evaluation_point="next", block="all")
    for task, label in ((0, "first measured task"), (-1, "last measured task")):
        expected = selected.mean("seed").isel(task=task)
        np.testing.assert_allclose(lines(ends)[label].get_ydata(), expected, rtol=1e-6)
    assert densities.get_ylim()[0] > -0.2
    assert hessian.get_ylim()[0] < -1, "the Hessian has negative eigenvalues"


def test_spectra_have_one_colour_bar_and_the_same_ticks_in_a_row():
    figure = draw("spectra", TWO_SETTINGS, {})
    assert [axis.get_ylabel() for axis in figure.axes].count("density / largest of the panel") == 1
    for row in range(4):
        left, right = figure.axes[2 * row : 2 * row + 2]
        assert list(left.get_yticks()) == list(right.get_yticks())
        assert left.get_ylim() == right.get_ylim()
        assert left.get_xlim() == right.get_xlim()
    norms = {axis.collections[0].norm.vmax for axis in figure.axes[:2]}
    assert norms == {1.0}, "one colour bar holds for all panels"


def test_density_of_known_eigenvalues_lies_at_their_positions():
    data = setting()
    spectra = registry.load("figures", "spectra")
    data["fisher_eigenvalue"][:] = np.array([1, 0.1, 0.1, np.nan, np.nan])
    tasks, positions, density = spectra._density(data, "fisher")
    assert len(tasks) == 6
    # the kernel moves a little beyond the ends of the axis
    assert density.sum(axis=1) == pytest.approx([3] * 6, rel=0.1)
    expected = float(np.arcsinh(10) / np.arcsinh(100))
    assert abs(positions[density[0].argmax()] - expected) < positions[1] - positions[0]


def test_overlap_shows_eigenvectors_of_the_next_and_the_previous_task():
    data = setting()
    axis = draw("overlap", {"a_b_relu": data}).axes[0]
    overlap = data["fisher_gradient_overlap"].sel(arm="none", block="all").mean("seed")
    for evaluation_point, label in (
        ("next", "eigenvectors on the next task"),
        ("previous", "eigenvectors on the previous task"),
    ):
        expected = overlap.sel(evaluation_point=evaluation_point)
        np.testing.assert_allclose(lines(axis)[label].get_ydata(), expected, rtol=1e-6)


def test_late_learning_curve_is_the_mean_of_the_last_eighth():
    data = setting(tasks=16)
    axis = draw("learning", {"a_b_relu": data}).axes[0]
    expected = data["error_curve"].sel(arm="none").isel(task=slice(14, 16)).mean(["seed", "task"])
    late = lines(axis)["late tasks"]
    np.testing.assert_allclose(late.get_ydata(), expected, rtol=1e-6)
    assert list(late.get_xdata()) == [5, 10, 15, 20]


def test_learning_curves_of_published_data_are_those_of_all_data():
    data = setting(tasks=16)
    part = publish.reduced(data, "fisher", has_spectra=False)
    assert part["error_curve"].dims == ("stage", "arm", "seed", "step")
    figures = [draw("learning", {"a_b_relu": each}) for each in (data, part)]
    for full_axis, axis in zip(*(figure.axes for figure in figures), strict=True):
        full, drawn = lines(full_axis), lines(axis)
        assert full.keys() == drawn.keys()
        for label, line in full.items():
            np.testing.assert_array_equal(line.get_ydata(), drawn[label].get_ydata())


def test_association_has_its_cell_and_the_mark_of_its_strongest_null(tables):
    table = tables["associations"].copy()
    row = (
        table.query("level == 'within_run' and arm == 'none' and outcome == 'final_error_gap'")
        .query("setting == 'digits_labels_tanh' and measure == 'weight_norm'")
        .iloc[0]
    )
    table.loc[row.name, "strongest_null_model"] = "mismatched"
    figure = draw("associations", TWO_SETTINGS, tables | {"associations": table})
    cells = figure.axes[0]
    y = [label.get_text() for label in cells.get_yticklabels()].index("weight norm")
    (dot,) = [line for line in cells.lines if line.get_marker() == "D"]
    assert dot.get_ydata()[0] == y
    assert dot.get_xdata()[0] == pytest.approx(1 + 0.42 * row["estimate"])


def test_forest_plot_shows_the_estimate_over_settings(tables):
    cells, forest = draw("associations", TWO_SETTINGS, tables).axes[:2]
    y = [label.get_text() for label in cells.get_yticklabels()].index("weight norm")
    row = (
        tables["consistency"]
        .query("measure == 'weight_norm' and outcome == 'final_error_gap'")
        .query("association == 'within_run'")
        .iloc[0]
    )
    dots = [line for line in forest.lines if line.get_marker() == "o"]
    (dot,) = [dot for dot in dots if dot.get_ydata()[0] == y]
    assert dot.get_xdata()[0] == pytest.approx(row["estimate"])


def gap_and_measure_change(data, measure):
    """Find by brute force the task at which the gap and a measure change, by run."""

    def change(values):
        ranks = rankdata(values)
        gains = [
            k * (len(ranks) - k) * (ranks[:k].mean() - ranks[k:].mean()) ** 2
            for k in range(1, len(ranks))
        ]
        return int(np.argmax(gains)) + 1

    gap = data["final_error_gap"].sel(arm="none").transpose("seed", "task").values
    x = data[measure].sel(arm="none", block="all").transpose("seed", "task").values
    return [change(run) for run in gap], [change(run) for run in x]


def dots_of_line(axis, label, line):
    """Return the x coordinates of the dots with a label in a line of a panel."""
    drawn = [dots for dots in axis.lines if dots.get_label() == label]
    (dots,) = [dots for dots in drawn if (np.round(dots.get_ydata()) == line).all()]
    return list(dots.get_xdata())


def test_timing_shows_the_change_of_every_run_and_its_difference_to_the_gap(tables):
    axes = draw("timing", TWO_SETTINGS, tables).axes
    events, leads = axes[0], axes[2]
    of_gap, of_measure = gap_and_measure_change(TWO_SETTINGS[RELU], "weight_norm")
    names = [text.get_text() for text in events.get_yticklabels()]
    assert names[0] == "gap to a fresh network"
    assert dots_of_line(events, "gap in a run", 0) == of_gap
    assert dots_of_line(events, "measure in a run", names.index("weight norm")) == of_measure
    y = [text.get_text() for text in leads.get_yticklabels()].index("weight norm")
    differences = list(np.subtract(of_gap, of_measure))
    assert dots_of_line(leads, "measure in a run", y) == differences


def test_mean_lead_is_that_of_the_table(tables):
    leads = draw("timing", TWO_SETTINGS, tables).axes[2]
    row = (
        tables["lead_lag"]
        .query("setting == 'digits_labels_relu' and arm == 'none' and outcome == 'final_error_gap'")
        .query("measure == 'weight_norm' and question == 'change_point'")
        .iloc[0]
    )
    y = [text.get_text() for text in leads.get_yticklabels()].index("weight norm")
    (mean,) = [
        line for line in leads.lines if line.get_marker() == "D" and line.get_ydata()[0] == y
    ]
    assert mean.get_xdata()[0] == pytest.approx(row["estimate"])
    runs = dots_of_line(leads, "measure in a run", y)
    assert np.mean(runs) == pytest.approx(row["estimate"]), "the dots are those of the table"


def test_measure_that_never_changes_has_a_note_instead_of_dots():
    datasets = TWO_SETTINGS | {RELU: constant(TWO_SETTINGS[RELU], "dead_fraction")}
    axes = draw("timing", datasets).axes
    for of_relu, of_tanh in (axes[:2], axes[2:]):
        y = [text.get_text() for text in of_relu.get_yticklabels()].index("dead units (share)")
        (note,) = of_relu.texts
        assert note.get_text() == "constant"
        assert note.get_position()[1] == y
        assert not of_tanh.texts


def test_operators_have_lines_and_bars_for_errors_of_estimates():
    data = setting()
    axis = draw("operators", {"a_b_relu": data}).axes[0]
    assert {"Fisher", "Hessian"} <= set(lines(axis))
    (_, _, (bars,)) = axis.containers[0]
    assert len(axis.containers) == 1, "only the Hessian is estimated"
    tops = np.array([segment[:, 1].max() for segment in bars.get_segments()])
    name = "hessian_effective_rank"
    selected = data[[name, f"{name}_margin"]].sel(arm="none", evaluation_point="next", block="all")
    means = selected.mean("seed")
    np.testing.assert_allclose(tops, means[name] + means[f"{name}_margin"], rtol=1e-6)


def test_bars_of_wide_margins_stay_above_zero_and_in_the_panel():
    data = setting()
    data["hessian_effective_rank_margin"][:] = 100.0
    axis = draw("operators", {"a_b_relu": data}).axes[0]
    (_, _, (bars,)) = axis.containers[0]
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    low, high = axis.get_ylim()
    assert low <= ends.min()
    assert ends.max() <= high


def test_operator_without_a_line_has_no_bars():
    data = setting()
    data["hessian_effective_rank"][:, :, 0] = np.nan
    data["hessian_effective_rank"][:, 0, 0] = 0.5
    data["hessian_effective_rank"][:, 0, 1] = np.nan
    axis = draw("operators", {"a_b_relu": data}).axes[0]
    assert "Hessian" not in lines(axis)
    assert not axis.containers


def test_pairs_of_ranks_without_a_correlation_are_left_out(tables):
    table = tables["redundancy"].copy()
    is_hessian = table["first"].str.startswith("hessian") | table["second"].str.startswith(
        "hessian"
    )
    table.loc[is_hessian, "estimate"] = np.nan
    axis = draw("operators", TWO_SETTINGS, tables | {"redundancy": table}).axes[8]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["features – Fisher"]


# Summary


def texts_of(figure):
    """Join all texts of a figure."""
    return " ".join(text.get_text() for text in figure.findobj(Text)).replace("\n", " ")


def test_summary_has_settings_that_lose_plasticity_left_and_others_right(tables):
    figure = draw("summary", TWO_SETTINGS, with_verdicts(tables, relu=KEPT, tanh=LOST))
    titles = [axis.get_title() for axis in figure.axes[:4]]
    assert titles[:2] == ["Plasticity is lost: 1 setting", "Plasticity is kept: 1 setting"]
    assert titles[2:] == [
        "The rank clearly falls in 1 of 1 setting",
        "The rank clearly falls in 0 of 1 setting",
    ]
    for axis, name in zip(figure.axes, ["digits_labels_tanh", "digits_labels_relu"], strict=False):
        for arm, line in zip(("none", "fresh"), axis.lines, strict=True):
            expected = TWO_SETTINGS[name]["final_error"].sel(arm=arm).mean("seed")
            np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-6)
            assert line.get_linestyle() == STYLE.methods[arm][1]


def test_summary_has_the_rank_as_a_share_of_its_largest_value(tables):
    figure = draw("summary", TWO_SETTINGS, with_verdicts(tables, relu=LOST, tanh=KEPT))
    rank = TWO_SETTINGS["digits_labels_relu"]["fisher_effective_rank"]
    means = rank.sel(evaluation_point="next", block="all", arm=["none", "fresh"]).mean("seed")
    for arm, line in zip(("none", "fresh"), figure.axes[2].lines, strict=True):
        np.testing.assert_allclose(line.get_ydata(), means.sel(arm=arm) / means.max(), rtol=1e-6)


def test_summary_has_the_mean_over_settings_and_thin_lines_of_single_ones(tables):
    figure = draw("summary", TWO_SETTINGS, with_verdicts(tables, relu=LOST, tanh=LOST))
    *singles, mean, baseline = figure.axes[0].lines
    values = [data["final_error"].sel(arm="none").mean("seed") for data in TWO_SETTINGS.values()]
    assert len(singles) == 2
    for line, expected in zip(singles, values, strict=True):
        np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-6)
    np.testing.assert_allclose(mean.get_ydata(), np.mean(values, axis=0), rtol=1e-6)
    assert baseline.get_linestyle() == ":"
    assert "No setting is clearly on this side." in texts_of(figure)


def test_settings_with_different_numbers_of_tasks_share_an_axis_in_percent(tables):
    datasets = {
        name: data.isel(task=slice(tasks))
        for (name, data), tasks in zip(TWO_SETTINGS.items(), (12, 5), strict=True)
    }
    figure = draw("summary", datasets, with_verdicts(tables, relu=LOST, tanh=LOST))
    assert "tasks done (%)" in texts_of(figure)
    mean = figure.axes[0].lines[2]
    assert (mean.get_xdata()[0], mean.get_xdata()[-1]) == (0, 100)
    ends = [data["final_error"].sel(arm="none").mean("seed")[-1] for data in datasets.values()]
    assert mean.get_ydata()[-1] == pytest.approx(np.mean(ends), rel=1e-6)


def test_summary_counts_settings_on_neither_side(tables):
    figure = draw("summary", TWO_SETTINGS, with_verdicts(tables, relu=LOST, tanh="unclear"))
    assert "1 setting is unclear, and not drawn: digits labels tanh" in texts_of(figure)


def test_verdict_of_the_summary_is_that_of_the_primary_rank(tables):
    tables = with_verdicts(tables, relu="unclear", tanh="unclear")
    table = tables["counterexamples"]
    is_primary = (table["measure"] == "fisher_effective_rank") & (table["arm"] == "none")
    table.loc[is_primary, "verdict"] = LOST
    figure = draw("summary", TWO_SETTINGS, tables)
    assert figure.axes[0].get_title() == "Plasticity is lost: 2 settings"


def row_of(axis, name):
    """Return the line of an explanation in a panel of the summary's strip."""
    return [label.get_text() for label in axis.get_yticklabels()].index(name)


@pytest.mark.parametrize(
    ("measure", "name", "sign", "marker"),
    [
        ("fisher_stable_rank", "Fisher stable rank", -1, "D"),
        ("weight_norm", "weight norm", 1, "o"),
    ],
)
def test_summary_has_the_auc_and_the_tau_of_the_tables(tables, measure, name, sign, marker):
    auc, tau = draw("summary", TWO_SETTINGS, tables).axes[4:]
    y = row_of(auc, name)
    (row,) = tables["arms"][tables["arms"]["measure"] == measure].to_dict("records")
    expected = [row["estimate"]] if np.isfinite(row["estimate"]) else []
    dots = [line for line in auc.lines if line.get_marker() == marker and line.get_ydata()[0] == y]
    assert [dot.get_xdata()[0] for dot in dots] == pytest.approx(expected)
    of_all = (
        tables["interventions"]
        .query("setting == 'all' and task == 'all' and outcome == 'final_error'")
        .query(f"statistic == 'tau' and measure == '{measure}'")
        .iloc[0]
    )
    dots = [line for line in tau.lines if line.get_marker() == marker and line.get_ydata()[0] == y]
    assert [dot.get_xdata()[0] for dot in dots] == pytest.approx([sign * of_all["estimate"]])


def test_summary_of_one_setting_has_its_tau_with_its_interval():
    datasets = {"a_b_relu": setting()}
    tables = tables_of(datasets)
    tau = draw("summary", datasets, tables).axes[-1]
    row = (
        tables["interventions"]
        .query("task == 'all' and outcome == 'final_error' and statistic == 'tau'")
        .query("measure == 'weight_norm'")
        .iloc[0]
    )
    bars = [line for line in tau.lines if len(line.get_xdata()) == 2]
    ends = [sorted(line.get_xdata()) for line in bars]
    assert any(end == pytest.approx([row["low"], row["high"]]) for end in ends)


def test_explanations_of_the_summary_are_sorted_by_tau(tables):
    tau = draw("summary", TWO_SETTINGS, tables).axes[-1]
    dots = [line for line in tau.lines if line.get_marker() in ("D", "o")]
    by_row = sorted((line.get_ydata()[0], line.get_xdata()[0]) for line in dots)
    values = [value for _, value in by_row]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize(
    ("lost", "kept", "words"),
    [
        (3, 2, "3 arms that lose plasticity, 2 that keep it"),
        (1, 1, "1 arm that loses plasticity, 1 that keeps it"),
    ],
)
def test_summary_counts_arms_on_both_sides(tables, lost, kept, words):
    arms = pd.DataFrame({"measure": ["fisher_effective_rank"], "estimate": 0.9, "low": 0.8})
    arms = arms.assign(high=1.0, lost=lost, kept=kept)
    assert words in texts_of(draw("summary", TWO_SETTINGS, tables | {"arms": arms}))


def test_summary_without_interventions_says_so_and_sorts_by_auc(tables):
    tables = tables | {"interventions": tables["interventions"].iloc[:0]}
    names = ["weight_norm", "fisher_stable_rank", "dead_fraction"]
    arms = pd.DataFrame({"measure": names, "estimate": [0.4, 0.9, 0.7], "low": 0.3, "high": 0.95})
    arms = arms.assign(lost=3, kept=2)
    figure = draw("summary", TWO_SETTINGS, tables | {"arms": arms})
    assert "No treated copy of a checkpoint was measured." in " ".join(texts_of(figure).split())
    labels = [label.get_text() for label in figure.axes[4].get_yticklabels()]
    assert labels == ["Fisher stable rank", "dead units (share)", "weight norm"]


def test_summary_without_arms_of_both_kinds_says_so(tables):
    arms = tables["arms"].assign(estimate=np.nan)
    figure = draw("summary", TWO_SETTINGS, tables | {"arms": arms})
    assert "No arm clearly loses plasticity, or none clearly keeps it." in texts_of(figure)
    assert row_of(figure.axes[-1], "weight norm") >= 0


# Interventions


RELU = "digits_labels_relu"
INTERVENTION_FIGURES = [
    name for name in NAMES if registry.constant("figures", name, "CATEGORY") == "4 Interventions"
]


def copies_of(name, block="all"):
    """Return the treated values of a quantity in the ReLU setting: seed, task, treatment."""
    values = TWO_SETTINGS[RELU][f"treated_{name}"].sel(treated_arm="none")
    return values.sel(block=block) if "block" in values.dims else values


def changes_of(name, block="all"):
    """Return the changes to the copy without a treatment: seed, task, treatment."""
    values = copies_of(name, block)
    return values - values.sel(treatment="none")


def points_of(axis, **look):
    """Return the points of lines with this look, sorted, shape (point, 2)."""
    chosen = [
        line
        for line in axis.lines
        if all(plt.getp(line, name) == value for name, value in look.items())
    ]
    points = [np.column_stack(line.get_data()) for line in chosen]
    return np.array(sorted(map(tuple, np.concatenate(points))))


def test_four_figures_show_interventions():
    assert INTERVENTION_FIGURES == ["doses", "necessity", "rivals", "treatments"]


@pytest.mark.parametrize("name", INTERVENTION_FIGURES)
def test_study_without_interventions_says_so_in_one_sentence(name):
    datasets = STUDIES["no treated copies"]
    figure = draw(name, datasets, tables_of_interventions(datasets, Draws(49)))
    (axis,) = figure.axes
    assert not axis.axison
    assert [text.get_text() for text in axis.texts] == [
        "No treated copy of a checkpoint was measured."
    ]
    assert figure.get_figheight() < 1


@pytest.mark.parametrize("name", [*INTERVENTION_FIGURES, "summary"])
def test_study_with_copies_of_methods_alone_says_so(name, tables):
    others = tables_of_four()
    for table in ("interventions", "treatments"):
        others = others | {table: others[table].assign(arm="l2_init")}
    figure = draw(name, FOUR_SETTINGS, tables | others)
    text = " ".join(texts_of(figure).split())
    assert "No treated copy of a run without an intervention was measured." in text


@pytest.mark.parametrize("name", INTERVENTION_FIGURES)
def test_figure_of_four_settings_fits_on_a_page(name):
    width, height = draw(name, FOUR_SETTINGS, tables_of_four()).get_size_inches()
    assert height <= 1.4 * width


def test_treated_copies_of_the_late_task_are_filled_points(treated):
    axis = draw("treatments", TWO_SETTINGS, treated).axes[0]
    restoring = [copy for copy, (family, _) in COPIES.items() if family == "restoring"]
    colour = STYLE.families["restoring"]
    x, y = copies_of("fisher_effective_rank"), copies_of("final_error")
    for task, marker, fill in ((1, "o", "none"), (11, "o", colour)):
        wanted = {"treated_task": task, "treatment": restoring}
        expected = [values.sel(wanted).mean("seed").values for values in (x, y)]
        drawn = points_of(axis, color=colour, marker=marker, markerfacecolor=fill)
        np.testing.assert_allclose(drawn, np.array(sorted(zip(*expected, strict=True))), rtol=1e-6)


def test_each_setting_has_its_own_last_treated_task(treated):
    treatments = treated["treatments"].copy()
    is_late = (treatments["setting"] == list(TWO_SETTINGS)[1]) & (treatments["task"] == "11")
    assert is_late.any()
    treatments.loc[is_late, "task"] = "9"
    figure = draw("treatments", TWO_SETTINGS, treated | {"treatments": treatments})
    colour = STYLE.families["restoring"]
    for axis in figure.axes[:2]:
        for fill in ("none", colour):
            assert len(points_of(axis, color=colour, marker="o", markerfacecolor=fill))
    text = texts_of(figure)
    assert "open: before an earlier task" in text
    assert "filled: before the last treated task" in text


def test_families_of_treatments_differ_in_their_markers(treated):
    axis = draw("treatments", TWO_SETTINGS, treated).axes[0]
    looks = {(line.get_color(), line.get_marker()) for line in axis.lines}
    assert {(STYLE.families["harmful"], "v"), (STYLE.families["preserving"], "D")} < looks


def test_share_that_no_treatment_changes_has_an_axis_from_zero_to_one():
    datasets = {"a_b_relu": constant(setting(), "treated_dead_fraction")}
    figure = draw("treatments", datasets, tables_of_interventions(datasets, Draws(49)))
    assert figure.axes[2].get_xlim() == pytest.approx((-0.05, 1.05))


def test_measure_with_a_wide_range_is_logarithmic():
    data = setting()
    data["treated_weight_norm"][..., 0, :] *= 1000
    datasets = {"a_b_relu": data}
    figure = draw("treatments", datasets, tables_of_interventions(datasets, Draws(49)))
    assert [axis.get_xscale() for axis in figure.axes[:4]] == [*3 * ["linear"], "log"]


@pytest.mark.parametrize(("treatment", "marker"), [("none", "X"), ("fresh", "*")])
def test_two_controls_have_markers_of_their_own(treated, treatment, marker):
    axis = draw("treatments", TWO_SETTINGS, treated).axes[2]
    rank = copies_of("feature_rank", "hidden_2").sel(treatment=treatment)
    error = copies_of("final_error").sel(treatment=treatment)
    expected = np.column_stack([values.mean("seed").values for values in (rank, error)])
    drawn = points_of(axis, marker=marker)
    np.testing.assert_allclose(drawn, np.array(sorted(map(tuple, expected))), rtol=1e-6)


def test_panel_of_treatments_states_the_correlation_of_the_table(treated):
    axes = draw("treatments", TWO_SETTINGS, treated).axes
    table = treated["interventions"]
    wanted = {
        "setting": RELU,
        "task": "all",
        "measure": "weight_norm",
        "outcome": "final_error",
        "statistic": "tau",
    }
    (row,) = table[(table[list(wanted)] == pd.Series(wanted)).all(axis=1)].to_dict("records")
    text = f"τ = {row['estimate']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
    assert axes[6].get_title(loc="right") == text


def line_of(axis, heading, name):
    """Return the height of a line of a forest plot: the first with this name below a heading."""
    labels = [label.get_text() for label in axis.get_yticklabels()]
    index = labels.index(name, labels.index(heading))
    return axis.get_yticks()[index]


@pytest.mark.parametrize(
    ("panel", "measure", "heading", "sign"),
    [
        (0, "fisher_effective_rank", "Fisher effective rank", -1),
        (1, "weight_norm", "weight norm", 1),
        (1, "fisher_top_eigenvalue", "Fisher top eigenvalue (no claim)", 1),
    ],
)
@pytest.mark.parametrize(
    ("setting_name", "label"), [(RELU, "digits labels relu"), ("all", "all settings")]
)
def test_rival_that_orders_copies_as_claimed_lies_on_the_right(
    treated, panel, measure, heading, sign, setting_name, label
):
    axis = draw("rivals", TWO_SETTINGS, treated).axes[panel]
    row = (
        treated["interventions"]
        .query("task == 'all' and outcome == 'final_error' and statistic == 'tau'")
        .query(f"setting == '{setting_name}' and measure == '{measure}'")
        .iloc[0]
    )
    y = line_of(axis, heading, label)
    (bar, dot) = [line for line in axis.lines if (np.array(line.get_ydata()) == y).all()]
    assert dot.get_xdata()[0] == pytest.approx(sign * row["estimate"])
    interval = sign * np.array([row["low"], row["high"]])
    assert np.array(bar.get_xdata()) == pytest.approx(interval, nan_ok=True)
    is_grey = dot.get_color() == STYLE.quiet
    assert is_grey == (measure == "fisher_top_eigenvalue")


def test_rival_that_is_constant_is_undefined():
    datasets = {"a_b_relu": constant(setting(), "treated_dead_fraction")}
    axis = draw("rivals", datasets, tables_of_interventions(datasets, Draws(49))).axes[0]
    (text,) = axis.texts
    assert text.get_text() == "undefined"
    assert text.get_position()[1] == line_of(axis, "dead units (share)", "a b relu")


@pytest.mark.parametrize(
    ("column", "treatment", "task"),
    [(0, "shrink", 11), (1, "low_rank", 1), (2, "rescale_layers", 11)],
)
@pytest.mark.parametrize(("row", "quantity"), [(0, "final_error"), (1, "fisher_effective_rank")])
def test_dose_response_is_the_mean_change_to_the_untreated_copy(
    treated, column, treatment, task, row, quantity
):
    axis = draw("doses", TWO_SETTINGS, treated).axes[3 * row + column]
    copies = [copy for copy in COPIES if copy.startswith(f"{treatment}(")]
    changes = changes_of(quantity).sel(treated_task=task, treatment=copies)
    line = lines(axis)["digits labels relu"]
    assert list(line.get_xdata()) == [COPIES[copy][1] for copy in copies]
    np.testing.assert_allclose(line.get_ydata(), changes.mean("seed"), rtol=1e-6)
    low, high = resampling.t_interval(changes.transpose("treatment", "seed").values)
    band = axis.collections[0].get_paths()[0].vertices[:, 1]
    assert [band.min(), band.max()] == pytest.approx([low.min(), high.max()])


def test_strengths_over_a_wide_range_are_logarithmic(treated):
    axes = draw("doses", TWO_SETTINGS, treated).axes
    assert [axis.get_xscale() for axis in axes[:3]] == ["linear", "log", "linear"]
    assert [text.get_text() for text in axes[4].get_xticklabels()] == ["0.05", "0.9"]


def test_map_has_a_point_per_treatment_with_its_intervals(treated):
    axis = draw("necessity", TWO_SETTINGS, treated).axes[0]
    drawn = [np.column_stack(line.get_data()) for line in axis.lines]
    for copy, (family, _) in COPIES.items():
        of_copy = {"treatment": copy, "treated_task": 1 if family == "harmful" else 11}
        x = changes_of("fisher_effective_rank").sel(of_copy).values
        y = changes_of("final_error").sel(of_copy).values
        expected = [
            np.array([[x.mean(), y.mean()]]),
            np.array([[end, y.mean()] for end in resampling.t_interval(x)]),
            np.array([[x.mean(), end] for end in resampling.t_interval(y)]),
        ]
        for line in expected:
            same = [other for other in drawn if other.shape == line.shape]
            assert np.abs(np.array(same) - line).max(axis=(1, 2)).min() < 1e-6, copy


def test_map_names_the_counterexamples_of_the_table_only(treated):
    table = treated["intervention_counterexamples"].assign(kind="both")
    of_panel = (
        (table["setting"] == RELU)
        & (table["measure"] == "fisher_effective_rank")
        & (table["outcome"] == "final_error")
    )
    table.loc[of_panel & (table["treatment"] == "reset_last_layer"), "kind"] = "not_necessary"
    is_harmful_late = (table["treatment"] == "low_rank(strength=0.9)") & (table["task"] == "11")
    table.loc[of_panel & is_harmful_late, "kind"] = "not_sufficient"
    shown = draw("necessity", TWO_SETTINGS, treated | {"intervention_counterexamples": table})
    names = {"plasticity\nwithout curvature", "curvature\nwithout plasticity"}
    names |= {"both restored", "both lost"}
    assert {text.get_text() for text in shown.axes[0].texts} == names | {"reset last layer"}
    (ring,) = points_of(shown.axes[0], markerfacecolor="none", marker="o")
    of_copy = {"treatment": "reset_last_layer", "treated_task": 11}
    changes = [changes_of(name).sel(of_copy) for name in ("fisher_effective_rank", "final_error")]
    np.testing.assert_allclose(ring, [values.mean() for values in changes], rtol=1e-6)
    assert {text.get_text() for text in shown.axes[1].texts} == names


def test_map_names_each_quadrant_by_what_happens_there(treated):
    axis = draw("necessity", TWO_SETTINGS, treated).axes[0]
    corners = {text.get_text(): text.get_position() for text in axis.texts}
    x, y = corners["plasticity\nwithout curvature"]
    assert x < 0.5, "the rank falls"
    assert y < 0.5, "the error falls"
    x, y = corners["curvature\nwithout plasticity"]
    assert x > 0.5
    assert y > 0.5
    assert axis.get_xlim()[0] < 0 < axis.get_xlim()[1]
    assert axis.get_ylim()[0] < 0 < axis.get_ylim()[1]


def test_names_of_many_counterexamples_do_not_overlap():
    tables = tables_of_four()
    table = tables["intervention_counterexamples"].assign(kind="not_necessary")
    tables = tables | {"intervention_counterexamples": table}
    with STYLE.applied():
        figure = draw("necessity", FOUR_SETTINGS, tables)
        figure.canvas.draw()
    texts = visible_texts(figure)
    assert len(texts) > 4 * (len(COPIES) - 1)
    for (text, extent), (other_text, other_extent) in itertools.combinations(texts, 2):
        assert not extent.overlaps(other_extent), (text, other_text)


# Operators of users


@pytest.fixture
def own_operator(tmp_path, monkeypatch):
    """Add an operator's file to those of the library, and return its name."""
    for name in registry.names("operators"):
        text = registry.path("operators", name).read_text(encoding="utf-8")
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    source = 'class Operator:\n    NAME = "My operator"\n    MEANING = "a matrix of mine"\n'
    (tmp_path / "my_fisher.py").write_text(source)
    monkeypatch.setitem(registry.FOLDERS, "operators", str(tmp_path))
    return "my_fisher"


@pytest.mark.parametrize("name", ["operators", "overlap", "spectra"])
def test_figure_shows_an_operator_of_the_users_own_by_the_name_in_its_file(name, own_operator):
    datasets = {"a_b_relu": with_operator(setting(), own_operator)}
    figure = draw(name, datasets, {"redundancy": tables_of({"a_b_relu": setting()})["redundancy"]})
    labels = {line for axis in figure.axes for line in lines(axis)}
    labels |= {re.split("[:\n]", axis.get_ylabel())[0] for axis in figure.axes}
    assert {"My operator", "Fisher", "Hessian"} <= labels


def test_operator_without_a_look_in_the_stylealways_has_the_same_one():
    looks = [as_line_options(look) for look in STYLE.others]
    assert STYLE.of_operator("my_fisher") == STYLE.of_operator("my_fisher")
    assert STYLE.of_operator("my_fisher") in looks


# Style


def test_every_method_has_a_look_of_its_own():
    assert set(registry.names("methods")) == set(STYLE.methods)
    looks = [tuple(look) for look in STYLE.methods.values()]
    assert len(set(looks)) == len(looks)


def test_every_family_of_treatments_has_a_colour_of_its_own():
    assert set(STYLE.families) == set(FAMILIES)
    assert len(set(STYLE.families.values())) == len(FAMILIES)


def test_methods_can_be_told_apart_in_grey():
    grey = {
        method: float(np.dot(matplotlib.colors.to_rgb(colour), (0.299, 0.587, 0.114)))
        for method, (colour, _) in STYLE.methods.items()
    }
    for first, second in itertools.combinations(STYLE.methods, 2):
        has_same_dashes = STYLE.methods[first][1] == STYLE.methods[second][1]
        assert not has_same_dashes or abs(grey[first] - grey[second]) > 0.02, (first, second)
    assert grey["none"] < 0.05 < min(value for method, value in grey.items() if method != "none")


def test_method_without_a_look_in_the_stylealways_has_the_same_one():
    looks = [as_line_options(look) for look in STYLE.others]
    assert STYLE.of_arm("mine(strength=1)") == STYLE.of_arm("mine")
    assert STYLE.of_arm("mine") in looks


def test_figures_are_as_wide_as_a_column_or_a_page():
    one = {"a_b_relu": setting()}
    four = {f"a_b_{k}": setting() for k in range(4)}
    assert draw("scatter", one).get_figwidth() == STYLE.widths["column"]
    assert draw("curvature", four).get_figwidth() == STYLE.widths["page"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("panels: 4", "panles: 4"), "panles"),
        (lambda text: text.replace("font.size: 7", "font.sise: 7"), "font.sise"),
        (lambda text: text.replace("signed: RdBu_r", ""), "signed"),
        (lambda text: "a: [", "is not a valid style file"),
    ],
    ids=["unknown key", "unknown setting of matplotlib", "missing key", "no YAML"],
)
def test_mistake_in_the_stylefile_is_explained(change, message, tmp_path):
    path = tmp_path / "style.yaml"
    path.write_text(change(STYLE_FILE.read_text()))
    with pytest.raises(StudyError, match=re.escape(message)):
        Style.read(path)


# Files


def draw_unfinished(name):
    """Draw a figure without laying it out."""
    return registry.load("figures", name).draw(TWO_SETTINGS, {}, STYLE)


@pytest.mark.parametrize("suffix", ["svg", "pdf", "png"])
def test_equal_data_give_equal_bytes_with_provenance_and_no_date(suffix, tmp_path):
    paths = [tmp_path / f"{k}.{suffix}" for k in range(2)]
    for path in paths:
        with STYLE.applied():
            save(draw_unfinished("spectra"), [path], {"code": '{"a.py": "0"}'})
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert b"a.py" in first
    assert b"Date" not in first.replace(b"dc:date", b"")


def test_every_format_has_the_size_of_the_style(tmp_path):
    dpi = STYLE.matplotlib["figure.dpi"]
    paths = [tmp_path / f"a.{suffix}" for suffix in ("svg", "pdf", "png")]
    with STYLE.applied():
        figure = draw_unfinished("curvature")
        inches = figure.get_size_inches()
        save(figure, paths, {"code": "{}"})
    height, width = plt.imread(tmp_path / "a.png").shape[:2]
    assert (width, height) == pytest.approx(tuple(inches * dpi), abs=1)
    points = re.search(r'width="([\d.]+)pt"', (tmp_path / "a.svg").read_text())[1]
    assert float(points) == pytest.approx(72 * inches[0], abs=1)


def test_pdf_embeds_its_fonts_as_outlines(tmp_path):
    with STYLE.applied():
        save(draw_unfinished("curvature"), [tmp_path / "a.pdf"], {"code": "{}"})
    content = (tmp_path / "a.pdf").read_bytes()
    assert b"/FontFile2" in content
    assert b"/Type3" not in content


def test_figures_do_not_import_torch():
    script = (
        "import sys; from plasticity.config import registry;"
        "[registry.load('figures', name) for name in registry.names('figures')];"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT / "workflow/scripts", check=True)
