"""A whole study from nothing to its report: what it leaves, what its files promise, and what runs again after a change."""

import base64
import hashlib
import html
import json
import platform
import re
from dataclasses import asdict
from importlib.metadata import version

import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from edits import (
    DRAW,
    ENSEMBLES,
    FIGURES,
    GATHER,
    MEASURE,
    METHODS,
    PAGES,
    PREPARE,
    RELU,
    SEEDS,
    SHOW,
    TANH,
    TRAIN,
)
from tiers import slow_except

from plasticity.config.models import Curvature, Setting
from plasticity.provenance import code_digest
from plasticity.report import captions
from plasticity.statistics.table_files import read_table

TABLES = [
    "statements",
    "hypotheses",
    "summary",
    "consistency",
    "counterexamples",
    "associations",
    "nulls",
    "lead_lag",
    "prediction",
    "redundancy",
]
TABLES += ["comparisons", "profiles", "outcomes", "measures", "tuning"]
TYPESET = ["settings", "methods", "cost"]
LONG = {"associations", "nulls", "lead_lag", "measures"}  # the report leaves them out
ARMS = {
    RELU: ["none", "l2(strength=0.001)", "l2(strength=0.01)", "l2_init(strength=0.001)", "fresh"],
    TANH: ["none", "l2_init(strength=0.001)", "fresh"],
}
STAGES = {"outcomes.nc": "train", "checkpoints.nc": "train", "measures.nc": "curvature"}
FILES = [
    "data/digits.nc",
    *(f"runs/{ensemble}/{name}" for ensemble in ENSEMBLES for name in STAGES),
    *(f"datasets/{setting}.nc" for setting in METHODS),
    *(f"tables/{table}.csv" for table in TABLES + TYPESET),
    *(f"tables/{table}.tex" for table in TYPESET),
    *(f"tables/{page}.html" for page in PAGES),
    "checks.txt",
    *(f"figures/{figure}.{suffix}" for figure in FIGURES for suffix in ("svg", "pdf", "png")),
    "report.html",
]
JOBS = [
    "data/digits",
    *(f"runs/{ensemble}/{stage}" for ensemble in ENSEMBLES for stage in ("train", "curvature")),
    *(f"datasets/{setting}" for setting in METHODS),
    "tables",
    "typeset",
    *(f"tables/{page}" for page in PAGES),
    "checks",
    *(f"figures/{figure}" for figure in FIGURES),
    "report",
]
ORDER = ["arm", "seed", "task", "evaluation_point", "block", "rank", "step"]
CURVES = {"error_curve", "loss_curve"}

# What is there


def test_a_study_leaves_just_the_files_of_the_design(built):
    files = [*FILES, *(f"provenance/{name}.json" for name in FILES)]
    files += [
        f"{folder}/{job}.{suffix}"
        for folder, suffix in (("logs", "log"), ("benchmarks", "tsv"))
        for job in JOBS
    ]
    assert sorted(built.contents()) == sorted(files)
    assert all((built.results / name).stat().st_size for name in files)


def every_file(built):
    paths = sorted(built.results.rglob("*.nc"))
    assert len(paths) == 1 + 3 * len(ENSEMBLES) + len(METHODS)
    return paths


def test_every_variable_and_coordinate_says_what_it_is_and_no_coordinate_has_a_fill_value(built):
    for path in every_file(built):
        with netCDF4.Dataset(path) as file:
            for name, values in file.variables.items():
                assert len(values.long_name.split()) >= 1, (path, name)
                assert values.units == "1", (path, name)
                assert "standard_name" not in values.ncattrs(), (path, name)
                assert not (name in file.dimensions and "_FillValue" in values.ncattrs()), (
                    path,
                    name,
                )
                assert values.dtype is str or values.dtype.name in {
                    "float32",
                    "float64",
                    "int64",
                    "int8",
                    "uint8",
                }, (path, name)
                large = values.dtype is not str and values.size * values.dtype.itemsize > 2**20
                assert values.filters() is None or values.filters()["zlib"] == large, (path, name)


def test_every_file_says_what_it_was_made_of_and_nothing_of_where_or_when(built):
    told = re.compile(
        rf"\b{re.escape(platform.node())}\b|{re.escape(str(built.root))}|\d{{4}}-\d\d-\d\d|\d\d:\d\d:\d\d|slurm|job_?id",
        re.IGNORECASE,
    )
    for path in every_file(built):
        with netCDF4.Dataset(path) as file:
            assert {"title", "source", "contract", "settings", "code", "versions", "inputs"} == set(
                file.ncattrs()
            ), path
            settings, code, versions = (
                json.loads(file.getncattr(name)) for name in ("settings", "code", "versions")
            )
            source = STAGES.get(
                path.name, {"data": "prepare", "datasets": "gather"}.get(path.parent.name)
            )
            assert file.source == source, path
            assert f"workflow/scripts/{source}.py" in code, path
            files = {
                name: digest
                for name, digest in code.items()
                if name not in code_digest.COMPUTING_PACKAGES.values()
            }
            assert all(
                (built.root / name).is_file() and re.fullmatch("[0-9a-f]{12}", digest)
                for name, digest in files.items()
            ), path
            assert all(
                digest == version(name) for name, digest in code.items() if name not in files
            ), path
            assert set(code) > set(files), path
            for name, digest in json.loads(file.inputs).items():
                assert hashlib.sha256((built.results / name).read_bytes()).hexdigest() == digest, (
                    path,
                    name,
                )
            assert bool(json.loads(file.inputs)) != (source == "prepare"), path
            assert {"python", "numpy", "torch", "xarray"} <= set(versions), path
            texts = [file.getncattr(name) for name in file.ncattrs()]
            texts += [
                str(values.getncattr(name))
                for values in file.variables.values()
                for name in values.ncattrs()
            ]
            assert not told.search("\n".join(texts)), (path, told.search("\n".join(texts)))
            assert isinstance(settings, dict), path


def test_the_settings_in_a_ensembles_files_are_those_of_the_config(built):
    config = yaml.safe_load((built.root / "config.yaml").read_text())
    for ensemble in ENSEMBLES:
        setting, method, seed = ensemble.split("/")
        strengths = {"l2": [0.001, 0.01], "l2_init": [0.001]}.get(method)
        arms = [{"strength": strength} for strength in strengths] if strengths else [{}]
        with xr.open_dataset(built.results / "runs" / ensemble / "outcomes.nc") as outcomes:
            assert json.loads(outcomes.settings) == {
                "setting": asdict(Setting.of(config["settings"][setting])),
                "training": {"checkpoint_every": 1, "curve_points": 10, "precision": "float32"},
                "method": method,
                "arms": arms,
                "seeds": [int(seed)],
            }
            assert f"workflow/scripts/plasticity/training/methods/{method}.py" in outcomes.code
            others = {"none", "l2", "l2_init", "fresh", "wasserstein"} - {method}
            assert not any(f"methods/{other}.py" in outcomes.code for other in others)
        with xr.open_dataset(built.results / "runs" / ensemble / "measures.nc") as measures:
            assert json.loads(measures.settings) == json.loads(
                json.dumps(asdict(Curvature.of(config["curvature"])))
            )


@pytest.mark.parametrize("ensemble", [f"{RELU}/l2/1", f"{TANH}/fresh/0"])
def test_a_ensembles_files_have_the_dims_of_the_contract(built, ensemble):
    arms = [
        arm
        for arm in ARMS[ensemble.split("/")[0]]
        if arm.partition("(")[0] == ensemble.split("/")[1]
    ]
    sizes = {"arm": len(arms), "seed": 1, "task": 5}
    folder = built.results / "runs" / ensemble
    with xr.open_dataset(folder / "outcomes.nc") as outcomes:
        assert set(outcomes.data_vars) == {
            "final_error",
            "final_loss",
            "online_error",
            "update_norm",
            "status",
            *CURVES,
        }
        for name, values in outcomes.data_vars.items():
            assert values.dims == (
                ("arm", "seed", "task", "step") if name in CURVES else ("arm", "seed", "task")
            ), name
        assert dict(outcomes.sizes) == {**sizes, "step": 4}
        assert list(outcomes.step.values) == [1, 2, 3, 4], "a task has no more steps than that"
        np.testing.assert_allclose(
            outcomes.error_curve.mean("step"), outcomes.online_error, rtol=1e-6
        )
        assert list(outcomes.status.flag_values) == [0, 1]
        assert outcomes.status.flag_meanings.split() == ["trained", "diverged"]
    with xr.open_dataset(folder / "measures.nc") as measures:
        assert dict(measures.sizes) == {**sizes, "evaluation_point": 2, "block": 5, "rank": 32}
        for name, values in measures.data_vars.items():
            assert list(values.dims) == [dim for dim in ORDER if dim in values.dims], name
            assert {"arm", "seed", "task"} <= set(values.dims), name
            assert "block" in values.dims or name == "curvature_status", name
        assert list(measures.evaluation_point.values) == ["previous", "next"]
        assert list(measures.block.values) == ["hidden_1", "hidden_2", "output", "last_two", "all"]
    with netCDF4.Dataset(folder / "checkpoints.nc") as checkpoints:
        parameters = [values for values in checkpoints.variables.values() if values.ndim > 1]
        assert (
            sum(np.prod(values.shape[3:]) for values in parameters)
            == 64 * 8 + 8 + 8 * 8 + 8 + 8 * 10 + 10
        )
        for values in parameters:
            assert values.dimensions[:3] == ("arm", "seed", "task")
            assert values.chunking()[2] == 1, "a chunk is one task"
    for name in STAGES:
        with xr.open_dataset(folder / name) as data:
            assert list(data.arm.values) == arms
            assert list(data.seed.values) == [int(ensemble.split("/")[2])]
            assert list(data.task.values) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("setting", METHODS)
def test_a_dataset_holds_every_member_as_its_ensemble_has_it(built, setting):
    with xr.open_dataset(built.results / "datasets" / f"{setting}.nc") as data:
        assert list(data.arm.values) == ARMS[setting]
        assert list(data.seed.values) == [0, 1]
        for outcome in ("final_error", "online_error", "final_loss"):
            assert data[f"fresh_{outcome}"].dims == ("seed", "task")
            assert np.array_equal(data[f"fresh_{outcome}"], data[outcome].sel(arm="fresh"))
        assert not data.final_error.sel(arm="none").equals(data.final_error.sel(arm="fresh"))
        for method in METHODS[setting]:
            for seed in SEEDS:
                for name in ("outcomes.nc", "measures.nc"):
                    with xr.open_dataset(
                        built.results / "runs" / setting / method / seed / name
                    ) as ensemble:
                        for variable, values in ensemble.data_vars.items():
                            assert (
                                data[variable]
                                .sel(arm=ensemble.arm, seed=ensemble.seed)
                                .equals(values)
                            ), (method, seed, variable)


def test_the_prepared_dataset_is_the_one_that_scikit_learn_ships(built):
    sklearn = pytest.importorskip("sklearn.datasets")
    digits = sklearn.load_digits()
    with xr.open_dataset(built.results / "data" / "digits.nc") as data:
        assert np.array_equal(data.image[:, 0], digits.images)
        assert np.array_equal(data.label, digits.target)


def test_eigenvalues_descend_and_seeds_arms_and_settings_differ(built):
    with (
        xr.open_dataset(built.results / "datasets" / f"{RELU}.nc") as data,
        xr.open_dataset(built.results / "datasets" / f"{TANH}.nc") as tanh,
    ):
        assert (data.fisher_eigenvalue.diff("rank").fillna(-1) <= 0).all()
        losses = [
            *data.final_loss.stack(run=["arm", "seed"]).T.values,
            *tanh.final_loss.stack(run=["arm", "seed"]).T.values,
        ]
        assert len({tuple(run) for run in losses}) == 2 * (5 + 3)


def test_the_report_holds_every_figure_and_page_of_tables_with_its_caption(built):
    page, config = (
        (built.root / name).read_text() for name in ("results/tiny/report.html", "config.yaml")
    )
    statements = read_table(built.results / "tables/statements.csv")
    assert {"loss", "scatter", "comparisons"} <= set(statements["about"])
    config = yaml.safe_load(config)
    config |= {"quoted": captions.quoted(config, statements)}
    held = {f"figures/{name}.svg": f"figure_{name}.rst" for name in FIGURES} | {
        f"tables/{name}.html": "tables.rst" for name in PAGES
    }
    for name, source in held.items():
        key = f'"results/tiny/{name}": '
        assert key in page, f"{name} is not in the report"
        entry, _ = json.JSONDecoder().raw_decode(page, page.index(key) + len(key))
        data = base64.b64decode(entry["data_uri"].partition("base64,")[2])
        assert data == (built.results / name).read_bytes(), f"{name} is not the file that was made"
        caption = captions.html(built.root / "workflow" / "report" / source, config)
        assert "{" not in caption
        assert words(entry["caption"]) == words(caption), name
    first = json.JSONDecoder().raw_decode(
        page, page.index("var workflow_desc = ") + len("var workflow_desc = ")
    )[0]
    for sentence in statements[statements["about"] == "loss"]["statement"]:
        assert " ".join(sentence.split()) in " ".join(words(first)), sentence


def words(text):
    """Of a piece of HTML."""
    return html.unescape(re.sub(r"<[^>]+>", " ", text)).split()


def test_pages_of_tables_hold_every_table_but_the_longest(built):
    pages = {name: (built.results / f"tables/{name}.html").read_text() for name in PAGES}
    shown = [
        table for page in pages.values() for table in re.findall(r'<section id="(\w+)">', page)
    ]
    assert sorted(shown) == sorted({*TABLES, *TYPESET} - LONG)
    for page in pages.values():
        assert len(page) * 4 / 3 < 2**21, "what a browser takes as an address"


def test_the_table_of_costs_counts_the_jobs(built):
    table = pd.read_csv(built.results / "tables/cost.csv").set_index("stage")
    assert table.loc["train", "jobs"] == table.loc["curvature", "jobs"] == len(ENSEMBLES)
    assert table.loc["gather", "jobs"] == len(METHODS)
    assert (table["longest seconds"] >= table["median seconds"]).all()


# The same again


def test_a_second_call_has_nothing_to_do(copy):
    assert copy.plan() == set()


@pytest.mark.slow
def test_a_study_built_elsewhere_has_the_same_bytes(built, again):
    again.build()
    assert len(built.lasting()) == 1 + 3 * len(ENSEMBLES) + len(METHODS) + len(
        TABLES
    ) + 2 + 3 * len(FIGURES)
    assert again.lasting() == built.lasting()


def test_a_study_that_moved_has_nothing_to_do(copy):
    moved = copy.root.with_name("moved")
    copy.root.rename(moved)
    copy.root = moved
    assert copy.plan() == set()


# What runs again


def test_another_place_of_the_data_runs_nothing_again(copy):
    assert copy.plan(env={"PLASTICITY_DATA": "/nowhere"}) == set()


@pytest.mark.parametrize(
    "options", [["--attempt", "2"], ["--set-resources", "train_ensemble:mem_mb=1234"]], ids=" ".join
)
def test_another_memory_runs_nothing_again(copy, options):
    assert copy.plan(*options) == set()


# Targets


TARGETS = {
    "data": PREPARE,
    "cost": PREPARE,
    "tune": set(),
    "train": PREPARE | TRAIN,
    "curvature": PREPARE | TRAIN | MEASURE,
    "datasets": PREPARE | TRAIN | MEASURE | GATHER,
    "tables": PREPARE | TRAIN | MEASURE | GATHER | {"analyse", "typeset", *SHOW},
    "checks": PREPARE | TRAIN | MEASURE | GATHER | {"analyse", "check"},
    "figure_scatter": PREPARE | TRAIN | MEASURE | GATHER | {"analyse", "check"},
    "figures": PREPARE | TRAIN | MEASURE | GATHER | {"analyse", "check", *DRAW},
    "report": PREPARE | TRAIN | MEASURE | GATHER | {"analyse", "typeset", *SHOW, "check", *DRAW},
}


@pytest.mark.parametrize("target", slow_except(["train", "figure_scatter", "report"], TARGETS))
def test_a_target_plans_just_its_part(unbuilt, target):
    assert unbuilt.plan(target) == TARGETS[target] | {target}


RULES = ["train_ensemble", "measure_ensemble"]


def resources(project, *options):
    """What each planned job of training and of curvature asks for, by rule."""
    done = project.snakemake("--dry-run", "curvature", *options)
    assert done.returncode == 0, done.stdout[-6000:]
    found = {}
    for rule, values in re.findall(
        r"^rule (\w+):\n(?: {4}.*\n)*? {4}resources: (.*)\n", done.stdout, re.MULTILINE
    ):
        found.setdefault(rule, []).append(dict(pair.split("=", 1) for pair in values.split(", ")))
    return found


def test_the_cluster_profile_asks_for_a_gpu_to_train_and_for_more_memory_and_time_at_each_attempt(
    unbuilt,
):
    first, second = (
        resources(unbuilt, "--profile", "slurm", "--attempt", attempt) for attempt in ("1", "2")
    )
    assert {rule: len(first[rule]) for rule in RULES} == {
        "train_ensemble": len(TRAIN),
        "measure_ensemble": len(MEASURE),
    }
    assert all(job["gres"].strip("'") == "gpu:1" for job in first["train_ensemble"])
    assert not any("gres" in job for job in first["measure_ensemble"])
    for rule in RULES:
        for one, other in zip(first[rule], second[rule], strict=True):
            assert int(other["mem_mb"]) == 2 * int(one["mem_mb"])
            assert int(other["runtime"]) == 2 * int(one["runtime"])


@pytest.mark.parametrize(
    ("options", "memory"), {(): 3000, ("--attempt", "2"): 6000}.items(), ids=str
)
def test_a_training_job_is_told_the_memory_that_it_asked_for(unbuilt, options, memory):
    done = unbuilt.snakemake("--dry-run", "--printshellcmds", "train", *options)
    assert len(re.findall(rf"train\.py .* --memory {memory}$", done.stdout, re.MULTILINE)) == len(
        TRAIN
    )


def test_what_a_study_costs_is_said_and_nothing_is_made(copy, built):
    done = copy.snakemake("cost")
    assert done.returncode == 0, done.stdout
    for setting, methods in METHODS.items():
        for method in methods:
            assert re.search(rf"\b{setting}\b.*\b{method}\b", done.stdout), done.stdout
    after = copy.contents()
    assert (copy.results / "logs" / "cost.log").exists()
    del after["logs/cost.log"]
    assert after == built.contents()


def test_a_configfile_takes_the_place_of_the_default_study(unbuilt):
    jobs = unbuilt.plan("--configfile", "studies/mnist.yaml")
    assert {
        "prepare mnist",
        "train_ensemble mnist_labels_relu/none/0-9",
        "gather mnist_labels_relu",
        "all",
    } < jobs
    assert not any("digits" in job for job in jobs)


# Packed otherwise, and a run that diverges


DIVERGED = "l2_init(strength=1e+39)"


@pytest.mark.slow
def test_a_members_numbers_do_not_depend_on_the_members_beside_it(built, packed):
    assert sorted(path.name for path in (packed.results / "runs").glob("*/*/*")) == ["0-1"] * 4
    with (
        xr.open_dataset(built.results / f"datasets/{RELU}.nc") as one,
        xr.open_dataset(packed.results / f"datasets/{RELU}.nc") as two,
    ):
        assert set(two.arm.values) == {*ARMS[RELU], DIVERGED}
        two = two.sel(arm=one.arm)
        assert set(two.data_vars) == set(one.data_vars)
        for name, values in one.data_vars.items():
            assert two[name].equals(values), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "table", ["summary", "outcomes", "measures", "tuning"]
)  # others are adjusted over all of the study
def test_tables_do_not_depend_on_how_seeds_are_packed(built, packed, table):
    one, two = (
        pd.read_csv(project.results / f"tables/{table}.csv", dtype=str, keep_default_na=False)
        for project in (built, packed)
    )
    one, two = one[one["setting"] == RELU], two[two["arm"] != DIVERGED]
    assert len(one) == len(two)
    assert len(one) or table == "tuning"
    assert sorted(map(tuple, one.values)) == sorted(map(tuple, two.values))


@pytest.mark.slow
def test_a_member_that_diverges_is_flagged_and_the_study_is_finished(packed):
    with xr.open_dataset(packed.results / f"datasets/{RELU}.nc") as data:
        assert (data.status.sel(arm=DIVERGED) == 1).all()
        assert (data.status.drop_sel(arm=DIVERGED) == 0).all()
        for name in ("final_error", "final_loss", "online_error", "update_norm", *CURVES):
            assert data[name].sel(arm=DIVERGED).isnull().all()
            assert data[name].drop_sel(arm=DIVERGED).notnull().all()
    table = pd.read_csv(packed.results / "tables/outcomes.csv", keep_default_na=False)
    assert table.loc[table["arm"] == DIVERGED, "note"].str.contains("diverged").all()
    assert not table.loc[table["arm"] != DIVERGED, "note"].str.contains("diverged").any()
    assert (table.loc[table["arm"] == DIVERGED, "mean"] == "").all()
    for figure in FIGURES:
        assert (packed.results / f"figures/{figure}.svg").stat().st_size > 5000
    assert DIVERGED in (packed.results / "tables/associations.csv").read_text()
    assert (packed.results / "report.html").exists()


# Less recorded


@pytest.fixture(scope="module")
def sparse(study):
    """A study with a checkpoint at every second task, two points a learning curve, and products in bfloat16."""

    def change(config):
        del config["settings"][TANH]
        config |= {
            "seeds_per_job": 2,
            "methods": {"none": {}},
            "training": {"checkpoint_every": 2, "curve_points": 2, "precision": "bfloat16"},
        }
        config["curvature"]["every"] = 2

    return study("sparse", change)


@pytest.mark.slow
def test_checkpoints_at_every_second_task_come_to_the_report(sparse):
    assert (sparse.results / "report.html").exists()
    for path in sparse.results.glob("runs/*/*/*/checkpoints.nc"):
        with xr.open_dataset(path) as checkpoints:
            assert list(checkpoints.task.values) == [0, 2, 4]
    with xr.open_dataset(sparse.results / f"datasets/{RELU}.nc") as data:
        assert list(data.task.values) == [0, 1, 2, 3, 4]
        assert data.final_error.notnull().all()
        measured = (
            data.fisher_trace.sel(evaluation_point="next").notnull().all(["arm", "seed", "block"])
        )
        assert list(measured.values) == [True, False, True, False, True]


@pytest.mark.slow
def test_learning_curves_have_as_many_points_as_asked_for(sparse):
    with xr.open_dataset(sparse.results / f"datasets/{RELU}.nc") as data:
        assert list(data.step.values) == [2, 4]
        for name in CURVES:
            assert data[name].dims == ("arm", "seed", "task", "step")
            assert data[name].notnull().all()


@pytest.mark.slow
def test_products_in_bfloat16_change_numbers_but_little(built, sparse):
    with (
        xr.open_dataset(built.results / f"datasets/{RELU}.nc") as one,
        xr.open_dataset(sparse.results / f"datasets/{RELU}.nc") as two,
    ):
        one, two = one.final_loss.sel(arm="none"), two.final_loss.sel(arm="none")
        assert not one.equals(two)
        np.testing.assert_allclose(two, one, rtol=0.05)
