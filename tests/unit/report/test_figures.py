"""Figures of drawn studies of every shape: they show what the data hold, nothing collides, the same data give the same bytes."""

import itertools
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
from tiers import slow_except

from plasticity.config import registry
from plasticity.config.models import Curvature
from plasticity.curvature import measure
from plasticity.errors import StudyError
from plasticity.report import figures
from plasticity.report.panels import short, spread
from plasticity.report.style import Style, lay_out, save
from plasticity.statistics import (
    associations,
    comparisons,
    lead_lag,
    meta_analysis,
    prediction,
    resampling,
    summaries,
)
from plasticity.statistics.hypotheses import adjusted
from plasticity.statistics.resampling import Draws
from plasticity.statistics.setting_arrays import SettingArrays
from plasticity.storage import netcdf
from plasticity.training import outcomes

ROOT = Path(__file__).parents[3]
STYLE = Style.read(ROOT / "workflow/style.yaml")
NAMES = registry.names("figures")
BLOCKS = ["hidden_1", "hidden_2", "output", "last_two", "all"]
CURVATURE = Curvature.of(
    {
        "operators": ["fisher", "hessian"],
        "samples": 9,
        "evaluation_points": ["previous", "next"],
        "every": 1,
    }
)
ARMS = ["none", "l2(strength=0.001)", "l2(strength=0.01)", "wasserstein(strength=0.01)", "fresh"]
DPI = 60
TOLERANCE = 3  # of the pictures' root mean square difference: what a swapped colour or a lost axis is beyond


def setting(
    seed=0, arms=ARMS, seeds=4, tasks=6, evaluation_points=("previous", "next"), blocks=BLOCKS
):
    """A setting's dataset as the contract has it, with drawn numbers."""
    draw = np.random.default_rng(seed)
    grid = 0.01 * np.sinh(np.linspace(-1.05, 1.05, 7) * np.arcsinh(100))
    sizes = {
        "arm": len(arms),
        "seed": seeds,
        "task": tasks,
        "evaluation_point": len(evaluation_points),
        "block": len(blocks),
        "rank": 5,
        "step": 4,
        "grid": 7,
    }
    table = {
        name: variable
        for name, variable in (outcomes.TABLE | measure.table(CURVATURE)).items()
        if name != "test_error"
    }
    values = {
        name: draw.uniform(0.1, 0.9, [sizes[dim] for dim in variable.dims])
        for name, variable in table.items()
    }
    values["fisher_eigenvalue"][:] = -np.sort(-values["fisher_eigenvalue"], axis=-1)
    values["feature_rank"][..., 2:] = np.nan
    coordinates = {
        "arm": arms,
        "seed": range(seeds),
        "task": range(tasks),
        "evaluation_point": list(evaluation_points),
        "block": blocks,
    }
    coordinates |= {"rank": range(5), "step": range(5, 25, 5), "grid": grid}
    data = netcdf.dataset(table, values, coordinates, "drawn", {})
    fresh = {
        name: data[name.removeprefix("fresh_")].sel(arm="fresh", drop=True)
        for name in outcomes.FRESH
        if name != "fresh_test_error"
    }
    return summaries.with_gaps(data.assign(fresh))


def without(data, missing):
    """The same dataset with NaN where `missing` holds."""
    return data.map(
        lambda values: (
            values.where(~missing(data)).transpose(*values.dims) if "arm" in values.dims else values
        )
    )


def constant(data, name):
    """The same dataset with a measure that never changes."""
    return data.assign({name: data[name] * 0 + 0.5})


def tables_of(datasets):
    """The tables that figures are drawn from."""
    panels = [SettingArrays.from_dataset(name, data) for name, data in datasets.items()]
    draws = Draws(49)
    within, beside = associations.associations([panel.explanations() for panel in panels], draws)
    tested = {"associations": within, "nulls": beside, "lead_lag": lead_lag.lead_lag(panels, draws)}
    tested |= {"consistency": meta_analysis.consistency(panels, draws)}
    found = adjusted(tested | {"comparisons": comparisons.comparisons(panels, draws)}, ())
    found |= {"counterexamples": meta_analysis.counterexamples(panels, draws, 0.05, 0.2)}
    found |= {
        "redundancy": prediction.redundancy(panels, draws),
        "outcomes": summaries.outcomes(datasets),
    }
    return found | {"tuning": pd.DataFrame(columns=summaries.TUNING)}


def drawn(name, datasets, tables=None, style=STYLE):
    """The figure, laid out, with every warning an error."""
    needed = registry.constant("figures", name, "TABLES")
    tables = tables or (tables_of(datasets) if needed else {})
    with style.used():
        figure = registry.load("figures", name).draw(
            datasets, {table: tables[table] for table in needed}, style
        )
        lay_out(figure)
    return figure


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def lines(axis):
    return {line.get_label(): line for line in axis.lines}


PLAIN = {
    f"digits_labels_{activation}": setting(seed, tasks=12)
    for seed, activation in enumerate(["relu", "tanh"])
}
MANY = [
    f"{method}(strength=0.1)"
    for method in registry.names("methods")
    if method not in ("none", "fresh")
]
ODD = ["none", "l2(kind=$a_b$ & <c> 100% #1 ^~{}\\)", "fresh"]
SHAPES = {
    "two settings": PLAIN,
    "nine settings with long names": {
        f"digits_labels_some_rather_long_name_{k}": setting(k, ARMS[::2]) for k in range(9)
    },
    "every method": {"a_b_relu": setting(arms=["none", *MANY, "fresh"])},
    "one seed": {"a_b_relu": setting(seeds=1)},
    "one task": {"a_b_relu": setting(tasks=1)},
    "no interventions": {"a_b_relu": setting(arms=["none", "fresh"])},
    "nothing but the baseline and one method": {
        "a_b_relu": setting(arms=["l2(strength=1)", "fresh"])
    },
    "old data only": {"a_b_relu": setting(evaluation_points=("previous",))},
    "the whole network only": {"a_b_relu": setting(blocks=["all"])},
    "twelve layers": {
        "a_b_relu": setting(blocks=[*(f"conv_{k}" for k in range(11)), "output", "last_two", "all"])
    },
    "no curvature": {
        "a_b_relu": setting().drop_vars(
            [name for name in setting() if name.startswith(("fisher", "hessian"))]
        )
    },
    "a diverged member": {
        "a_b_relu": without(
            setting(), lambda data: (data.arm == "none") & (data.seed == 1) & (data.task >= 2)
        )
    },
    "an arm that diverged whole": {"a_b_relu": without(setting(), lambda data: data.arm == "none")},
    "every other task measured": {"a_b_relu": without(setting(), lambda data: data.task % 2 == 1)},
    "a measure that is constant": {
        "a_b_relu": constant(constant(setting(), "fisher_effective_rank"), "dead_fraction")
    },
    "an arm with every odd sign in its name": {"a_b_relu": setting(arms=ODD)},
}


@pytest.fixture(
    scope="module", params=slow_except(["two settings", "an arm that diverged whole"], SHAPES)
)
def study(request):
    """A study's datasets and tables."""
    return SHAPES[request.param], tables_of(SHAPES[request.param])


def texts(figure):
    """Every piece of text that is seen, and where: headings, labels, remarks, legends."""
    renderer = figure.canvas.get_renderer()
    hidden = {
        label
        for axis in figure.axes
        for label in (*axis.get_xticklabels(), *axis.get_yticklabels())
    }
    seen = [
        text
        for text in figure.findobj(Text)
        if text.get_text() and text.get_visible() and text not in hidden
    ]
    return [(text.get_text(), text.get_window_extent(renderer).padded(-1)) for text in seen]


@pytest.mark.parametrize("name", NAMES)
def test_any_study_is_drawn_inside_its_page_and_no_text_touches_another(name, study):
    with STYLE.used():  # on which ticks depend, too
        figure = drawn(name, *study)
        figure.canvas.draw()
    page = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    assert (page < 128).any()
    for edge in (page[0], page[-1], page[:, 0], page[:, -1]):
        assert (edge == 255).all(), "something reaches over the edge of the page"
    touching = [
        (one, other)
        for (one, a), (other, b) in itertools.combinations(texts(figure), 2)
        if a.overlaps(b)
    ]
    assert not touching


def picture(figure, path):
    with STYLE.used():
        figure.savefig(path, dpi=DPI)
    plt.close(figure)
    return str(path)


@pytest.fixture(scope="module")
def plain():
    """The tables of two settings."""
    return tables_of(PLAIN)


@pytest.mark.mpl_image_compare(
    baseline_dir="pictures",
    tolerance=TOLERANCE,
    savefig_kwargs={"dpi": DPI},
    style="default",
    deterministic=True,
)
@pytest.mark.parametrize("name", NAMES)
def test_a_figure_looks_as_it_did(name, plain):
    return drawn(name, PLAIN, plain)


def turned(looks):
    """Looks with the colours of one for another."""
    return dict(zip(looks, [*list(looks.values())[1:], next(iter(looks.values()))], strict=True))


SWAPPED = replace(
    STYLE,
    methods=turned(STYLE.methods),
    operators=turned(STYLE.operators),
    evaluation_points=turned(STYLE.evaluation_points),
    stages=turned(STYLE.stages),
    sequence="cool",
    signed="RdBu",
    quiet="#ff0000",
)


@pytest.mark.parametrize("name", slow_except(["scatter"], NAMES))
def test_that_comparison_sees_swapped_colours_and_a_lost_axis(name, plain, tmp_path):
    expected = picture(drawn(name, PLAIN, plain), tmp_path / "expected.png")
    swapped = picture(drawn(name, PLAIN, plain, SWAPPED), tmp_path / "swapped.png")
    lost = drawn(name, PLAIN, plain)
    lost.axes[0].set_axis_off()
    for other in (swapped, picture(lost, tmp_path / "lost.png")):
        assert compare_images(expected, other, TOLERANCE) is not None, other
    assert compare_images(expected, expected, TOLERANCE) is None


# What panels show


def test_a_line_is_the_mean_over_seeds_and_the_band_its_interval():
    data = setting()
    axis = drawn("explanations", {"a_b_relu": data}).axes[0]
    runs = data["final_error"].sel(arm="none").values
    np.testing.assert_allclose(
        lines(axis)["no intervention"].get_ydata(), runs.mean(axis=0), rtol=1e-6
    )
    corners = axis.collections[0].get_paths()[0].vertices[:, 1]
    low, high = np.array([resampling.t_interval(column) for column in runs.T]).T
    assert corners.min() == pytest.approx(low.min())
    assert corners.max() == pytest.approx(high.max())
    both = data["final_error"].sel(arm=["none", "fresh"])
    bottom, top = axis.get_ylim()
    assert bottom < both.min()
    assert both.max() < top < high.max(), (
        "a panel is as high as the seeds reach, not as its bands do"
    )


def test_one_seed_has_no_band_and_one_task_a_dot():
    assert not drawn("explanations", {"a_b_relu": setting(seeds=1)}).axes[0].collections
    assert (
        lines(drawn("explanations", {"a_b_relu": setting(tasks=1)}).axes[0])[
            "no intervention"
        ].get_marker()
        == "o"
    )


def test_a_panel_says_how_many_seeds_are_left_where_some_diverged():
    datasets = SHAPES["a diverged member"]
    axis = drawn("explanations", datasets).axes[0]
    assert "no intervention: 3 of 4 seeds" in axis.get_title()
    expected = datasets["a_b_relu"]["final_error"].sel(arm="none", seed=[0, 2, 3]).mean("seed")
    np.testing.assert_allclose(lines(axis)["no intervention"].get_ydata(), expected, rtol=1e-6)


def test_the_feature_rank_is_that_of_the_last_hidden_layer_on_new_data():
    data = setting()
    axis = drawn("explanations", {"a_b_relu": data}).axes[1]
    expected = (
        data["feature_rank"].sel(arm="none", evaluation_point="next", block="hidden_2").mean("seed")
    )
    np.testing.assert_allclose(lines(axis)["no intervention"].get_ydata(), expected, rtol=1e-6)


def test_a_measure_that_the_study_lacks_leaves_a_gap_that_says_so():
    axis = drawn("explanations", {"a_b_relu": setting().drop_vars("dead_fraction")}).axes[3]
    assert not axis.lines
    assert [text.get_text() for text in axis.texts] == ["not measured"]


def test_counterexamples_are_marked_where_the_table_has_them(plain):
    table = plain["counterexamples"].assign(
        verdict="lost, and the measure moves as claimed", counterexample=False
    )
    row = (
        (table["arm"] == "none")
        & (table["measure"] == "dead_fraction")
        & (table["setting"] == "digits_labels_tanh")
    )
    table.loc[row, "counterexample"] = True
    figure = drawn("explanations", PLAIN, plain | {"counterexamples": table})
    marks = {(axis.get_ylabel(), axis.get_title(loc="right")) for axis in figure.axes}
    assert sum("counter-example" in mark for _, mark in marks) == 1
    place = next(
        number
        for number, axis in enumerate(figure.axes)
        if "counter-example" in axis.get_title(loc="right")
    )
    assert place == 3 * 2 + 1, "the fourth row, the second column"
    assert figure.axes[place - 1].get_title(loc="right") == "✓ as claimed"


def test_the_scatter_shows_each_seed_and_task_and_the_tables_verdict(plain):
    axis = drawn("scatter", PLAIN, plain).axes[1]
    data = PLAIN["digits_labels_tanh"]
    points = axis.collections[0].get_offsets()
    rank, error = (
        data["fisher_effective_rank"].sel(arm="none", evaluation_point="next", block="all"),
        data["final_error"].sel(arm="none"),
    )
    np.testing.assert_allclose(
        np.asarray(points), np.column_stack([rank.values.ravel(), error.values.ravel()]), rtol=1e-6
    )
    keys = "setting == 'digits_labels_tanh' and level == 'within_run' and outcome == 'final_error' and arm == 'none'"
    row = plain["associations"].query(f"{keys} and measure == 'fisher_effective_rank'").iloc[0]
    assert f"ρ = {row['estimate']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" in axis.get_title()
    assert axis.get_title().splitlines()[-1].startswith("beats")


def test_layers_are_drawn_each_by_itself_and_named_at_their_ends():
    data = setting()
    axis = drawn("layers", {"a_b_relu": data}).axes[0]
    expected = (
        data["fisher_effective_rank"]
        .sel(arm="none", evaluation_point="next", block="output")
        .mean("seed")
    )
    np.testing.assert_allclose(lines(axis)["output"].get_ydata(), expected, rtol=1e-6)
    assert sorted(text.get_text() for text in axis.texts) == ["hidden 1", "hidden 2", "output"]
    named = {text.get_text(): text.get_color() for text in axis.texts}
    assert all(
        matplotlib.colors.same_color(color, lines(axis)[name].get_color())
        for name, color in named.items()
    )


def test_labels_at_the_ends_keep_their_order_and_their_distance():
    wanted = np.array([0.5, 0.1, 0.52, 0.51, 0.9])
    found = spread(wanted, 0.1)
    assert np.array_equal(np.argsort(found), np.argsort(wanted))
    assert np.diff(np.sort(found)).min() >= 0.1 - 1e-12
    assert found[[1, 4]] == pytest.approx([0.1, 0.9])
    assert found[[0, 3, 2]] == pytest.approx([0.41, 0.51, 0.61]), (
        "as near to where they want to be as least squares has it"
    )


def test_a_methods_panels_hold_its_arms_in_its_colour_and_look():
    first = drawn("methods", {"a_b_relu": setting()}).axes[0]
    assert set(lines(first)) == {"none", "fresh", "l2 0.001", "l2 0.01", "wasserstein 0.01"}
    assert lines(first)["l2 0.01"].get_color() == STYLE.methods["l2"][0]
    assert lines(first)["l2 0.01"].get_linewidth() > lines(first)["l2 0.001"].get_linewidth()


def test_many_arms_go_on_in_further_rows_and_none_is_left_out():
    figure = drawn("methods", SHAPES["every method"])
    shown = [set(lines(axis)) - {"none", "fresh"} for axis in figure.axes[::3]]
    assert set().union(*shown) == {short(arm) for arm in MANY}
    assert sum(map(len, shown)) == len(MANY)
    assert max(map(len, shown)) <= 6


def test_sensitivity_has_a_point_per_value_and_a_line_per_method(plain):
    axis = drawn("sensitivity", PLAIN, plain).axes[0]
    assert axis.get_xscale() == "log"
    row = plain["outcomes"].query(
        "setting == 'digits_labels_relu' and arm == 'l2(strength=0.01)' and outcome == 'final_error'"
    )
    found = next(container for container in axis.containers if container.get_label() == "l2")[0]
    assert found.get_xdata() == pytest.approx([0.001, 0.01])
    assert found.get_ydata()[1] == pytest.approx(row.query("stage == 'late'")["mean"].iloc[0])
    assert not [
        container for container in axis.containers if container.get_label() == "wasserstein"
    ], "one value is no sweep"


@pytest.mark.parametrize("seeds", [2, 3])
def test_sensitivity_takes_tuning_seeds_where_there_are_such_and_draws_no_bar_of_two(plain, seeds):
    rows = [
        {
            "setting": "digits_labels_relu",
            "method": "redo",
            "arm": f"redo(threshold={t}, every=5)",
            "outcome": "final_error",
            "stage": "late",
        }
        | {
            "hyper_parameters": f'{{"threshold": {t}, "every": 5}}',
            "mean": t,
            "low": t - 0.01,
            "high": t + 0.01,
            "seeds": seeds,
        }
        for t in (0.1, 0.3)
    ]
    figure = drawn(
        "sensitivity", PLAIN, plain | {"tuning": pd.DataFrame(rows, columns=summaries.TUNING)}
    )
    axis = next(axis for axis in figure.axes if axis.get_xlabel() == "threshold")
    assert axis.containers[0].get_label() == "redo (every 5)"
    assert axis.containers[0][0].get_ydata() == pytest.approx([0.1, 0.3])
    bars = [segment for segment in axis.containers[0][2][0].get_segments() if segment.size]
    assert len(bars) == (2 if seeds > 2 else 0)


def test_spectra_show_each_measured_task_and_the_first_beside_the_last():
    data = setting()
    figure = drawn("spectra", {"a_b_relu": data})
    heat, ends, hessian = figure.axes[:3]
    assert heat.collections[0].get_array().shape[1] == data.sizes["task"]
    values = (
        data["fisher_eigenvalue"].sel(arm="none", evaluation_point="next", block="all").mean("seed")
    )
    np.testing.assert_allclose(
        lines(ends)["first task"].get_ydata(), values.isel(task=0), rtol=1e-6
    )
    np.testing.assert_allclose(
        lines(ends)["last measured task"].get_ydata(), values.isel(task=-1), rtol=1e-6
    )
    assert heat.get_ylim()[0] > -0.2
    assert hessian.get_ylim()[0] < -1, "an operator with signs shows the negative part"


def test_a_density_of_known_eigenvalues_lies_where_they_are():
    data = setting()
    spectra = registry.load("figures", "spectra")
    data["fisher_eigenvalue"][:] = np.array([1, 0.1, 0.1, np.nan, np.nan])
    tasks, grid, density = spectra._density(data, "fisher")
    assert len(tasks) == 6
    assert density.sum(axis=1) == pytest.approx([3] * 6, rel=0.1), (
        "as many as there are, but for what the kernel puts beyond the axis"
    )
    bent = float(np.arcsinh(10) / np.arcsinh(100))
    assert abs(grid[density[0].argmax()] - bent) < grid[1] - grid[0]


def test_overlap_shows_old_and_new_directions():
    data = setting()
    axis = drawn("overlap", {"a_b_relu": data}).axes[0]
    for evaluation_point, label in (
        ("next", "directions of the coming task"),
        ("previous", "directions of the ended task"),
    ):
        expected = (
            data["fisher_gradient_overlap"]
            .sel(arm="none", evaluation_point=evaluation_point, block="all")
            .mean("seed")
        )
        np.testing.assert_allclose(lines(axis)[label].get_ydata(), expected, rtol=1e-6)


def test_learning_curves_are_those_of_the_first_and_last_eighth():
    data = setting(tasks=16)
    axis = drawn("learning", {"a_b_relu": data}).axes[0]
    expected = data["error_curve"].sel(arm="none").isel(task=slice(14, 16)).mean(["seed", "task"])
    np.testing.assert_allclose(lines(axis)["late tasks"].get_ydata(), expected, rtol=1e-6)
    assert list(lines(axis)["late tasks"].get_xdata()) == [5, 10, 15, 20]


def test_every_association_has_its_cell_its_interval_and_the_mark_of_the_null(plain):
    table = plain["associations"]
    chosen = (
        (table["level"] == "within_run")
        & (table["arm"] == "none")
        & (table["outcome"] == "final_error_gap")
    )
    rows = table[
        chosen & (table["setting"] == "digits_labels_tanh") & (table["measure"] == "weight_norm")
    ]
    table = table.copy()
    table.loc[rows.index, "strongest_null"] = "mismatched"
    cells, forest = drawn("associations", PLAIN, plain | {"associations": table}).axes[:2]
    y = [label.get_text() for label in cells.get_yticklabels()].index("weight norm")
    (dot,) = [line for line in cells.lines if line.get_marker() == "D"]
    assert dot.get_ydata()[0] == y
    assert dot.get_xdata()[0] == pytest.approx(1 + 0.42 * rows["estimate"].iloc[0])
    pooled = plain["consistency"].query(
        "measure == 'weight_norm' and outcome == 'final_error_gap' and association == 'within_run'"
    )
    (dot,) = [
        line for line in forest.lines if line.get_marker() == "o" and line.get_ydata()[0] == y
    ]
    assert dot.get_xdata()[0] == pytest.approx(pooled["estimate"].iloc[0])


def test_lead_and_lag_are_those_of_the_table(plain):
    figure = drawn("timing", PLAIN, plain)
    table = plain["lead_lag"].query(
        "setting == 'digits_labels_relu' and arm == 'none' and outcome == 'final_error_gap'"
    )
    upper, lower = figure.axes[0], figure.axes[2]
    y = [label.get_text() for label in upper.get_yticklabels()].index("weight norm")
    of = table[table["measure"] == "weight_norm"].set_index("question")
    places = lines(upper)["change point, with quartiles over seeds"]
    assert places.get_xdata()[list(places.get_ydata()).index(y)] == pytest.approx(
        of.loc["change_point", "estimate"]
    )
    places = lines(lower)["the measure helps to predict the gap"]
    assert places.get_xdata()[list(places.get_ydata()).index(y)] == pytest.approx(
        of.loc["measure_first", "p_adjusted"]
    )


def test_operators_stand_side_by_side_with_the_errors_of_their_estimates():
    data = setting()
    axis = drawn("operators", {"a_b_relu": data}).axes[0]
    assert {"Fisher", "Hessian"} <= set(lines(axis))
    (bars,) = axis.containers
    middle = np.array([segment.mean(axis=0)[1] for segment in bars[2][0].get_segments()])
    expected = (
        data["hessian_effective_rank"]
        .sel(arm="none", evaluation_point="next", block="all")
        .mean("seed")
    )
    np.testing.assert_allclose(middle, expected, rtol=1e-6)


# Looks


def test_every_method_has_a_look_of_its_own_and_it_can_be_told_in_grey():
    assert set(registry.names("methods")) == set(STYLE.methods)
    looks = list(STYLE.methods.values())
    assert len({tuple(look) for look in looks}) == len(looks)
    grey = {
        method: float(np.dot(matplotlib.colors.to_rgb(look[0]), (0.299, 0.587, 0.114)))
        for method, look in STYLE.methods.items()
    }
    for one, other in itertools.combinations(STYLE.methods, 2):
        assert (
            STYLE.methods[one][1] != STYLE.methods[other][1] or abs(grey[one] - grey[other]) > 0.02
        ), (one, other)
    assert grey["none"] < 0.05 < min(value for method, value in grey.items() if method != "none")


def test_a_method_of_your_own_has_always_the_same_look():
    assert (
        STYLE.of_arm("mine(strength=1)")
        == STYLE.of_arm("mine")
        in [{"color": c, "linestyle": d} for c, d in STYLE.others]
    )


def test_columns_and_pages_are_as_wide_as_the_style_says():
    assert drawn("curvature", {"a_b_relu": setting()}).get_figwidth() == STYLE.widths["column"]
    assert (
        drawn("curvature", {f"a_b_{k}": setting() for k in range(4)}).get_figwidth()
        == STYLE.widths["page"]
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("panels: 4", "panles: 4"), "panles"),
        (lambda text: text.replace("font.size: 7", "font.sise: 7"), "font.sise"),
        (lambda text: text.replace("signed: RdBu_r", ""), "signed"),
        (lambda text: "a: [", "no style"),
    ],
)
def test_a_mistake_in_the_style_file_is_a_sentence(change, said, tmp_path):
    path = tmp_path / "style.yaml"
    path.write_text(change((ROOT / "workflow/style.yaml").read_text()))
    with pytest.raises(StudyError, match=re.escape(said)):
        Style.read(path)


# Files


@pytest.mark.parametrize("suffix", ["svg", "pdf", "png"])
def test_the_same_data_give_the_same_bytes_and_no_date(suffix, tmp_path, plain):
    paths = [tmp_path / f"{k}.{suffix}" for k in range(2)]
    for path in paths:
        with STYLE.used():
            save(
                registry.load("figures", "spectra").draw(PLAIN, {}, STYLE),
                [path],
                {"code": '{"a.py": "0"}'},
            )
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert b"a.py" in paths[0].read_bytes()
    assert b"Date" not in paths[0].read_bytes().replace(b"dc:date", b"")


def test_a_picture_is_as_sharp_as_the_style_says_whatever_was_written_before_it(tmp_path):
    with STYLE.used():
        figure = registry.load("figures", "curvature").draw(PLAIN, {}, STYLE)
        size = figure.get_size_inches() * STYLE.matplotlib["figure.dpi"]
        save(figure, [tmp_path / f"a.{suffix}" for suffix in ("svg", "pdf", "png")], {"code": "{}"})
    height, width = plt.imread(tmp_path / "a.png").shape[:2]
    assert (width, height) == pytest.approx(tuple(size), abs=1)
    points = re.search(r'width="([\d.]+)pt"', (tmp_path / "a.svg").read_text())[1]
    assert float(points) == pytest.approx(72 * size[0] / STYLE.matplotlib["figure.dpi"], abs=1)


def test_a_pdf_embeds_its_fonts_as_outlines(tmp_path):
    with STYLE.used():
        save(
            registry.load("figures", "curvature").draw(PLAIN, {}, STYLE),
            [tmp_path / "a.pdf"],
            {"code": "{}"},
        )
    text = (tmp_path / "a.pdf").read_bytes()
    assert b"/FontFile2" in text
    assert b"/Type3" not in text


def test_figures_never_import_torch():
    script = "import sys; from plasticity import figures, registry; [registry.load('figures', n) for n in registry.names('figures')]"
    there = Path(figures.__file__).parents[3]
    subprocess.run(
        [sys.executable, "-c", f"{script}; assert 'torch' not in sys.modules"],
        cwd=there,
        check=True,
    )
