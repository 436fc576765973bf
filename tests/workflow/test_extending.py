"""The files and the config of docs/extend.md work as written."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import xarray as xr
import yaml
from projects import Project

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extend.md"
CODE_BLOCKS = re.findall(
    r"^```(\w+)\n# (\S+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
FILES = {path: text for language, path, text in CODE_BLOCKS if language in ("python", "rst")}
(CONFIG_TEXT,) = (text for language, path, text in CODE_BLOCKS if path == "config.yaml")
CONFIG = yaml.safe_load(CONFIG_TEXT)
SETTING = "mine_rotated_residual"
RELU = "digits_labels_relu"
FIGURE_FILES = [
    "workflow/scripts/plasticity/report/figures/norms.py",
    "workflow/report/figure_norms.rst",
]


@pytest.mark.parametrize("path", FILES)
def test_file_has_less_than_thirty_lines(path):
    assert len(FILES[path].strip().splitlines()) < 30


class ExtendedStudy(NamedTuple):
    """A built study with the files and the config of the page.

    Attributes:
        project: the project of the study.
        jobs_for_files: jobs that the new files rerun, before the config names them.
        jobs_for_config: jobs of training that the new config adds.
    """

    project: Project
    jobs_for_files: set[str]
    jobs_for_config: set[str]


def write_images(path):
    """Write random images of five classes."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (300, 3, 6, 6), np.uint8)
    np.savez(path, images=images, labels=np.arange(300) % 5)


def add_page_config(config):
    """Add the config of the page to the config of the tiny study."""
    config["settings"] |= CONFIG["settings"]
    config["datasets"] = CONFIG["datasets"]
    config["methods"] |= CONFIG["methods"]
    config["curvature"]["operators"] = CONFIG["curvature"]["operators"]


@pytest.fixture(scope="module")
def extended(changed_copy):
    """Add the files and the config of the page to a built study, and plan its jobs."""
    for path, text in FILES.items():
        (changed_copy.root / path).write_text(text, encoding="utf-8")
    data_root = changed_copy.root / "data"
    data_root.mkdir()
    write_images(data_root / "mine.npz")
    jobs_for_files = changed_copy.plan()
    changed_copy.config(add_page_config)
    return ExtendedStudy(changed_copy, jobs_for_files, changed_copy.plan("train"))


def test_new_files_rerun_no_run_and_a_new_config_adds_only_its_runs(extended):
    assert extended.jobs_for_files == {"figure_norms", "report", "all"}
    methods = {f"{SETTING}/{method}" for method in ("none", "l2_init", "fresh", "l1")}
    methods |= {
        f"{RELU}/l1",
        "digits_labels_tanh/l1",
        f"{RELU}/layer_norm+l1",
        f"{RELU}/fresh+layer_norm",
    }
    jobs = {"prepare mine"}
    for method in methods:
        jobs |= {f"train_ensemble {method}/0", f"train_ensemble {method}/1"}
    assert extended.jobs_for_config - {"train"} == jobs


def final_weight_norm(checkpoints, arm_index):
    """Return the sum of the absolute weights of the first layer at the last task."""
    weights = checkpoints["hidden_1.weight"]
    return abs(weights.isel(arm=arm_index, task=-1, seed=0)).sum()


def test_new_method_shrinks_weights_and_works_in_a_composition(extended):
    project = extended.project
    runs = project.results / "runs" / RELU
    folder = f"results/tiny/runs/{RELU}"
    project.build(f"{folder}/l1/0/measures.nc", f"{folder}/layer_norm+l1/0/measures.nc")
    with (
        xr.open_dataset(runs / "l1/0/checkpoints.nc") as l1,
        xr.open_dataset(runs / "none/0/checkpoints.nc") as none,
    ):
        assert list(l1.arm.values) == ["l1(strength=0.001)", "l1(strength=0.01)"]
        assert none.sizes["arm"] == 1
        weakly_shrunk = final_weight_norm(l1, 0)
        strongly_shrunk = final_weight_norm(l1, 1)
        assert strongly_shrunk < weakly_shrunk < final_weight_norm(none, 0)
    with xr.open_dataset(runs / "layer_norm+l1/0/measures.nc") as composed:
        assert list(composed.arm.values) == ["layer_norm+l1(l1.strength=0.01)"]
        assert "norm_1" in composed.block.values
        feature_rank = composed.feature_rank.sel(block="hidden_1", evaluation_point="next")
        assert feature_rank.notnull().all()


def check_traces(dataset):
    """Check that the Fisher on predicted labels is positive and mostly less than the Fisher.

    The predicted label has the smallest loss, and so a small gradient.
    """
    point = {"evaluation_point": "next", "block": "all"}
    trace = dataset["fisher_trace"].sel(point)
    predicted_trace = dataset["predicted_fisher_trace"].sel(point)
    assert (predicted_trace > 0).all()
    assert (predicted_trace < trace).mean() > 0.9


def test_new_setting_has_a_dataset_with_the_new_operator(extended):
    project = extended.project
    project.build(f"results/tiny/datasets/{SETTING}.nc")
    with xr.open_dataset(project.results / "datasets" / f"{SETTING}.nc") as dataset:
        assert (dataset.status == 0).all()
        assert dataset.test_error.notnull().all()
        assert list(dataset.block.values) == ["hidden_1", "hidden_2", "output", "last_two", "all"]
        check_traces(dataset)
    with xr.open_dataset(project.results / "data" / "mine.nc") as images:
        assert images.sizes["class"] == 5


def test_invalid_file_of_the_new_dataset_is_refused(extended):
    project = extended.project
    (project.root / "data" / "mine.npz").write_bytes(b"no arrays")
    process = project.snakemake("--forcerun", "prepare", "--", "results/tiny/data/mine.nc")
    assert process.returncode != 0
    message = r"data/mine\.npz is not an npz file with images and labels .*Put one there"
    assert re.search(message, process.stdout), process.stdout[-3000:]
    assert "Traceback" not in process.stdout


def test_missing_option_of_the_new_architecture_is_refused(extended):
    project = extended.project
    project.config(lambda config: config["settings"][SETTING]["network"].pop("width"))
    process = project.snakemake("--dry-run")
    message = f"settings.{SETTING}.network lacks 'width', which residual needs. Add it."
    assert message in process.stdout, process.stdout[-3000:]


def test_new_figure_is_in_the_report_with_its_caption(built_copy):
    for path in FIGURE_FILES:
        (built_copy.root / path).write_text(FILES[path], encoding="utf-8")
    built_copy.build()
    assert (built_copy.results / "figures/norms.svg").stat().st_size > 5000
    report = (built_copy.results / "report.html").read_text()
    assert '<figure id="figure-norms">' in report
    assert "<strong>Weight norms</strong>, every arm. Line: mean over 2 seeds" in report
