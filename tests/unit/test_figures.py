"""Figures of drawn studies of every shape: what they show is what the data hold, and the same data give the same bytes."""

import subprocess
import sys
from pathlib import Path

import matplotlib.colors
import matplotlib.pyplot as plt
import numpy as np
import pytest

from plasticity import contracts, figures, measures, outcomes, registry
from plasticity.settings import Curvature
from plasticity.statistics import associations, resampling
from plasticity.statistics.panels import Panel
from plasticity.statistics.resampling import Draws

STYLE = Path(figures.__file__).with_name("style.mplstyle")
BLOCKS = ["hidden_1", "hidden_2", "output", "all"]
CURVATURE = Curvature.of({"operators": ["fisher"], "samples": 9, "moments": ["old", "new"], "every": 1})
ARMS = ["none", "l2(strength=0.001)", "l2(strength=0.01)", "wasserstein(strength=0.01)", "fresh"]


def setting(seed=0, arms=ARMS, seeds=3, tasks=6, moments=("old", "new")):
    """A setting's dataset as the contract has it, with drawn numbers."""
    draw = np.random.default_rng(seed)
    sizes = {"arm": len(arms), "seed": seeds, "task": tasks, "moment": len(moments), "block": len(BLOCKS), "rank": 5, "step": 4}
    table = outcomes.TABLE | measures.table(CURVATURE)
    values = {name: draw.uniform(0.1, 0.9, [sizes[dim] for dim in variable.dims]) for name, variable in table.items()}
    values["feature_rank"][..., 2:] = np.nan
    coordinates = {"arm": arms, "seed": range(seeds), "task": range(tasks), "moment": list(moments), "block": BLOCKS}
    coordinates |= {"rank": range(5), "step": range(5, 25, 5)}
    data = contracts.dataset(table, values, coordinates, "drawn", {})
    return data.assign({name: data[name.removeprefix("fresh_")].sel(arm="fresh", drop=True) for name in outcomes.FRESH})


def without(data, missing):
    """The same dataset with NaN where `missing` holds."""
    return data.map(lambda values: values.where(~missing(data)).transpose(*values.dims) if "arm" in values.dims else values)


def tables_of(datasets):
    panels = [Panel.of(name, data) for name, data in datasets.items()]
    return {"associations": associations.associations(panels, Draws(99))[0]}


def drawn(name, datasets, tables=None):
    """The figure, with every warning an error."""
    with figures.style(STYLE):
        figure = registry.load("figures", name).draw(datasets, tables or tables_of(datasets))
        figure.draw_without_rendering()  # as `save` does before it draws
    return figure


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def lines(axis):
    return {line.get_label(): line for line in axis.lines}


SHAPES = {
    "one setting": {"a_b_relu": setting()},
    "seven settings": {f"digits_labels_{k}": setting(k) for k in range(7)},
    "one seed": {"a_b_relu": setting(seeds=1)},
    "one task": {"a_b_relu": setting(tasks=1)},
    "no interventions": {"a_b_relu": setting(arms=["none", "fresh"])},
    "nothing but the yardstick and one method": {"a_b_relu": setting(arms=["l2(strength=1)", "fresh"])},
    "old data only": {"a_b_relu": setting(moments=("old",))},
    "a diverged member": {"a_b_relu": without(setting(), lambda data: (data.arm == "none") & (data.seed == 1) & (data.task >= 2))},
    "an arm that diverged whole": {"a_b_relu": without(setting(), lambda data: data.arm == "none")},
    "every other task measured": {"a_b_relu": without(setting(), lambda data: data.task % 2 == 1)},
}


@pytest.fixture(scope="module", params=SHAPES)
def study(request):
    """A study's datasets and tables."""
    return SHAPES[request.param], tables_of(SHAPES[request.param])


@pytest.mark.parametrize("name", registry.names("figures"))
def test_any_study_is_drawn_inside_its_page(name, study):
    figure = drawn(name, *study)
    figure.canvas.draw()
    page = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    assert (page < 128).any()
    for edge in (page[0], page[-1], page[:, 0], page[:, -1]):
        assert (edge == 255).all(), "something reaches over the edge of the page"


def test_a_line_is_the_mean_over_seeds_and_the_band_its_interval():
    data = setting()
    axis = drawn("explanations", {"a_b_relu": data}).axes[0]
    runs = data["final_error"].sel(arm="none").values
    np.testing.assert_allclose(lines(axis)["no intervention"].get_ydata(), runs.mean(axis=0), rtol=1e-6)
    corners = axis.collections[0].get_paths()[0].vertices[:, 1]
    low, high = np.array([resampling.student(column) for column in runs.T]).T
    assert corners.min() == pytest.approx(low.min())
    assert corners.max() == pytest.approx(high.max())


def test_the_feature_rank_is_that_of_the_last_hidden_layer_on_new_data():
    data = setting()
    axis = drawn("explanations", {"a_b_relu": data}).axes[1]
    expected = data["feature_rank"].sel(arm="none", moment="new", block="hidden_2").mean("seed")
    np.testing.assert_allclose(lines(axis)["no intervention"].get_ydata(), expected, rtol=1e-6)


def test_a_measure_that_the_study_lacks_leaves_a_gap_that_says_so():
    axis = drawn("explanations", {"a_b_relu": setting().drop_vars("dead_fraction")}).axes[3]
    assert not axis.lines
    assert [text.get_text() for text in axis.texts] == ["not measured"]


def test_the_scatter_shows_each_seed_and_task_and_the_tables_verdict():
    data = setting()
    datasets = {"a_b_relu": data}
    axis = drawn("scatter", datasets).axes[0]
    points = axis.collections[0].get_offsets()
    expected = np.column_stack(
        [
            data["fisher_effective_rank"].sel(arm="none", moment="new", block="all").values.ravel(),
            data["final_error"].sel(arm="none").values.ravel(),
        ]
    )
    np.testing.assert_allclose(np.asarray(points), expected, rtol=1e-6)
    table = tables_of(datasets)["associations"]
    keys = "level == 'within_run' and outcome == 'final_error' and arm == 'none' and measure == 'fisher_effective_rank'"
    row = table.query(f"{keys} and moment == 'new' and block == 'all'").iloc[0]
    assert f"ρ = {row['estimate']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" in axis.get_title()


def test_layers_are_drawn_each_by_itself():
    data = setting()
    axis = drawn("curvature", {"a_b_relu": data}).axes[3]
    assert set(lines(axis)) >= {"hidden 1", "hidden 2", "output"}
    expected = data["fisher_effective_rank"].sel(arm="none", moment="new", block="output").mean("seed")
    np.testing.assert_allclose(lines(axis)["output"].get_ydata(), expected, rtol=1e-6)


def test_a_method_has_its_column_its_arms_and_its_colour():
    figure = drawn("regularizers", {"a_b_relu": setting()})
    first, second = figure.axes[0], figure.axes[1]
    assert set(lines(first)) == {"none", "fresh", "l2(strength=0.001)", "l2(strength=0.01)"}
    assert set(lines(second)) == {"none", "fresh", "wasserstein(strength=0.01)"}
    assert lines(first)["l2(strength=0.01)"].get_color() == figures.COLOURS["l2"]
    assert lines(first)["l2(strength=0.01)"].get_linewidth() > lines(first)["l2(strength=0.001)"].get_linewidth()


def test_lines_of_many_arms_grow_no_thicker_than_the_fourth():
    arms = [f"l2(strength={place})" for place in range(7)]
    widths = [
        lines(drawn("regularizers", {"a_b_relu": setting(arms=["none", *arms, "fresh"])}).axes[0])[arm].get_linewidth() for arm in arms
    ]
    assert widths[:4] == sorted(set(widths))
    assert set(widths[3:]) == {widths[3]}


def test_every_method_of_the_house_has_a_colour_and_a_dash_of_its_own():
    methods = list(figures.COLOURS)
    assert len({figures.COLOURS[method] for method in methods}) == len(methods)
    assert len({str(figures.DASHES[method]) for method in methods}) == len(methods)
    light = sorted(float(np.dot(matplotlib.colors.to_rgb(figures.COLOURS[method]), (0.299, 0.587, 0.114))) for method in methods)
    assert light[0] < 0.05 < light[1], "no intervention must be the darkest line in grey"


@pytest.mark.parametrize("suffix", ["svg", "pdf", "png"])
def test_the_same_data_give_the_same_bytes_and_no_date(suffix, tmp_path):
    paths = [tmp_path / f"{k}.{suffix}" for k in range(2)]
    for path in paths:
        figure = drawn("curvature", {"a_b_relu": setting()})
        with figures.style(STYLE):
            figures.save(figure, [path], {"code": '{"a.py": "0"}'})
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert b"a.py" in paths[0].read_bytes()
    assert b"Date" not in paths[0].read_bytes().replace(b"dc:date", b"")


def test_figures_never_import_torch():
    script = "import sys; from plasticity import figures, registry; [registry.load('figures', n) for n in registry.names('figures')]"
    there = Path(figures.__file__).parents[2]
    subprocess.run([sys.executable, "-c", f"{script}; assert 'torch' not in sys.modules"], cwd=there, check=True)
