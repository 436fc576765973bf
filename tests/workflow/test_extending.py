"""The files of docs/extend.md work as written: method, dataset, shift, network, operator and figure."""

import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extend.md"
BLOCKS = re.findall(
    r"^```(\w+)\n# (\S+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
FILES = {path: text for language, path, text in BLOCKS if language in ("python", "rst")}
(CONFIG,) = (yaml.safe_load(text) for language, path, text in BLOCKS if path == "config.yaml")
SETTING = "mine_rotated_residual"


@pytest.mark.parametrize("path", FILES)
def test_each_is_one_file_of_less_than_thirty_lines(path):
    assert len(FILES[path].strip().splitlines()) < 30


@pytest.fixture(scope="module")
def extended(another):
    """A built study to which all that the page shows was added; and what would then run, before and after the config names it."""
    project = another
    for path, text in FILES.items():
        (project.root / path).write_text(text, encoding="utf-8")
    draw, root = np.random.default_rng(0), project.root / "data"
    root.mkdir()
    np.savez(
        root / "mine.npz",
        images=draw.integers(0, 256, (300, 3, 6, 6), np.uint8),
        labels=np.arange(300) % 5,
    )
    before = project.plan()

    def add(config):
        config["settings"] |= CONFIG["settings"]
        config["datasets"] = CONFIG["datasets"]
        config["methods"] |= CONFIG["methods"]
        config["curvature"]["operators"] = CONFIG["curvature"]["operators"]

    project.config(add)
    return project, before, project.plan("train")


def test_new_files_rerun_nothing_and_a_new_setting_and_method_run_themselves_alone(extended):
    _, before, after = extended
    assert before == {"figure_norms", "report", "all"}, "the new figure alone"
    new = {f"{SETTING}/{method}" for method in ("none", "l2_init", "fresh", "l1")}
    new |= {"digits_labels_relu/l1", "digits_labels_tanh/l1", "digits_labels_relu/layer_norm+l1"}
    assert {job for job in after if job != "train"} == {"prepare mine"} | {
        f"train_ensemble {ensemble}/{seed}" for ensemble in new for seed in "01"
    }


def test_the_new_method_does_what_it_says_alone_and_composed(extended):
    project, _, _ = extended
    runs = project.results / "runs" / "digits_labels_relu"
    project.build(
        *(
            f"results/tiny/runs/digits_labels_relu/{method}/0/measures.nc"
            for method in ("l1", "layer_norm+l1")
        )
    )
    with (
        xr.open_dataset(runs / "l1" / "0" / "checkpoints.nc") as alone,
        xr.open_dataset(runs / "none" / "0" / "checkpoints.nc") as none,
    ):
        assert list(alone.arm.values) == ["l1(strength=0.001)", "l1(strength=0.01)"]
        weak, strong, unbounded = (
            abs(weights.isel(task=-1, seed=0)).sum()
            for weights in (*alone["hidden_1.weight"], *none["hidden_1.weight"])
        )
        assert strong < weak < unbounded
    with xr.open_dataset(runs / "layer_norm+l1" / "0" / "measures.nc") as composed:
        assert list(composed.arm.values) == ["layer_norm+l1(l1.strength=0.01)"]
        assert "norm_1" in composed.block.values
        assert composed.feature_rank.sel(block="hidden_1", evaluation_point="next").notnull().all()


def test_the_new_setting_comes_to_its_dataset(extended):
    project, _, _ = extended
    project.build(f"results/tiny/datasets/{SETTING}.nc")
    with xr.open_dataset(project.results / "datasets" / f"{SETTING}.nc") as found:
        assert (found.status == 0).all()
        assert found.test_error.notnull().all()
        assert list(found.block.values) == ["hidden_1", "hidden_2", "output", "last_two", "all"]
        given, predicted = (
            found[f"{operator}_trace"].sel(evaluation_point="next", block="all")
            for operator in ("fisher", "predicted_fisher")
        )
        assert (predicted > 0).all()
        assert (
            predicted < given
        ).mean() > 0.9  # the likeliest label has the least loss, and its gradient is small
    with xr.open_dataset(project.results / "data" / "mine.nc") as data:
        assert data.sizes["class"] == 5


def test_what_is_wrong_with_the_new_file_of_data_is_said_in_a_sentence(extended):
    project, _, _ = extended
    (project.root / "data" / "mine.npz").write_bytes(b"torn")
    done = project.snakemake("--forcerun", "prepare", "--", "results/tiny/data/mine.nc")
    assert done.returncode != 0
    assert re.search(
        r"data/mine\.npz is not an npz file with images and labels .*Put one there", done.stdout
    ), done.stdout[-3000:]
    assert "Traceback" not in done.stdout


def test_an_option_that_the_new_file_needs_is_asked_for(extended):
    project, _, _ = extended
    project.config(lambda config: config["settings"][SETTING]["network"].pop("width"))
    done = project.snakemake("--dry-run")
    assert (
        f"settings.{SETTING}.network lacks 'width', which residual needs. Add it." in done.stdout
    ), done.stdout[-3000:]


def test_the_new_figure_is_drawn_and_comes_to_the_report_with_its_caption(copy):
    for path in (
        "workflow/scripts/plasticity/report/figures/norms.py",
        "workflow/report/figure_norms.rst",
    ):
        (copy.root / path).write_text(FILES[path], encoding="utf-8")
    copy.build()
    assert (copy.results / "figures/norms.svg").stat().st_size > 5000
    page = (copy.results / "report.html").read_text()
    assert '"results/tiny/figures/norms.svg": ' in page
    assert "<strong>Weight norms</strong>, every arm. Line: mean over 2 seeds" in page
