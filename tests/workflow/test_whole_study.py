"""The tiny study from an empty folder to its report: its files, their contract, and its targets."""

import hashlib
import html
import itertools
import json
import os
import platform
import re
from dataclasses import asdict, replace
from importlib.metadata import version

import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from edits import (
    ENSEMBLES,
    FIGURE_JOBS,
    FIGURES,
    GATHER_JOBS,
    MEASURE_JOBS,
    METHODS,
    PREPARE_JOBS,
    RELU,
    SEEDS,
    TANH,
    TRAIN_JOBS,
    TREAT_JOBS,
    TREATED,
    TREATED_ENSEMBLES,
)
from tiers import slow_except

from plasticity.config.models import Curvature, Setting
from plasticity.config.targets import check_targets
from plasticity.provenance import code_digest
from plasticity.report import captions
from plasticity.report.reader_tables import for_readers
from plasticity.statistics.table_files import read_table

TABLES = [
    "statements",
    "hypotheses",
    "summary",
    "consistency",
    "population",
    "counterexamples",
    "arms",
    "associations",
    "null_models",
    "lead_lag",
    "prediction",
    "early_warning",
    "explanations",
    "redundancy",
    "treatments",
    "interventions",
    "intervention_models",
    "mediation",
    "intervention_counterexamples",
    "comparisons",
    "profiles",
    "outcomes",
    "measures",
    "tuning",
]
TYPESET = ["settings", "methods", "cost"]
LONG_TABLES = {
    "associations",
    "null_models",
    "lead_lag",
    "measures",
    "treatments",
    "intervention_models",
    "mediation",
    "intervention_counterexamples",
}  # the report does not show them
ARMS = {
    RELU: ["none", "l2(strength=0.001)", "l2(strength=0.01)", "l2_init(strength=0.001)", "fresh"],
    TANH: ["none", "l2_init(strength=0.001)", "fresh"],
}
ARM_OPTIONS = {
    "none": [{}],
    "l2": [{"strength": 0.001}, {"strength": 0.01}],
    "l2_init": [{"strength": 0.001}],
    "fresh": [{}],
}
SOURCE_OF_RUN_FILE = {
    "outcomes.nc": "train",
    "checkpoints.nc": "train",
    "measures.nc": "curvature",
    "interventions.nc": "intervene",
}
TREATED_TASK = 3
TREATMENTS = {
    TANH: ["none", "shrink(strength=0.3)", "shrink(strength=0.8)", "low_rank(strength=0.5)"],
}
TREATMENTS[RELU] = [*TREATMENTS[TANH], "rescale_layers(strength=2)"]
SOURCE_OF_FOLDER = {"data": "prepare", "datasets": "gather"}

RUN_FILES = [
    f"runs/{ensemble}/{name}"
    for ensemble, name in itertools.product(ENSEMBLES, SOURCE_OF_RUN_FILE)
    if name != "interventions.nc" or ensemble in TREATED_ENSEMBLES
]
DATASET_FILES = [f"datasets/{setting}.nc" for setting in METHODS]
FIGURE_FILES = [
    f"figures/{figure}.{suffix}"
    for figure, suffix in itertools.product(FIGURES, ("svg", "pdf", "png"))
]
FILES = [
    "data/digits.nc",
    *RUN_FILES,
    *DATASET_FILES,
    *(f"tables/{table}.csv" for table in TABLES + TYPESET),
    *(f"tables/{table}.tex" for table in TYPESET),
    "checks.txt",
    *FIGURE_FILES,
    "report.html",
]
JOBS = [
    "data/digits",
    *(f"runs/{ensemble}/train" for ensemble in ENSEMBLES),
    *(f"runs/{ensemble}/curvature" for ensemble in ENSEMBLES),
    *(f"runs/{ensemble}/intervene" for ensemble in TREATED_ENSEMBLES),
    *(f"datasets/{setting}" for setting in METHODS),
    "tables",
    "typeset",
    "checks",
    *(f"figures/{figure}" for figure in FIGURES),
    "report",
]
TASKS = 5
STEPS_PER_TASK = 4
PARAMETERS = 64 * 8 + 8 + 8 * 8 + 8 + 8 * 10 + 10
DIM_ORDER = ["arm", "seed", "task", "evaluation_point", "block", "rank", "step"]
CURVES = {"error_curve", "loss_curve"}
DATA_TYPES = {"float32", "float64", "int64", "int8", "uint8"}
COMPRESSED_ABOVE = 2**20  # bytes


# Files


def test_study_has_exactly_the_files_of_the_design(tiny_study):
    records = [f"provenance/{name}.json" for name in FILES]
    logs = [f"logs/{job}.log" for job in JOBS]
    benchmarks = [f"benchmarks/{job}.tsv" for job in JOBS]
    names = [*FILES, *records, *logs, *benchmarks]
    assert sorted(tiny_study.digests()) == sorted(names)
    for name in names:
        assert (tiny_study.results / name).stat().st_size, name


def netcdf_paths(project):
    """Return the paths of all netCDF files of the study."""
    paths = sorted(project.results.rglob("*.nc"))
    assert len(paths) == 1 + len(RUN_FILES) + len(METHODS)
    return paths


def check_variable(file, name):
    """Check the attributes, the type and the compression of a variable of a netCDF file."""
    variable = file.variables[name]
    attributes = variable.ncattrs()
    label = (file.filepath(), name)
    assert len(variable.long_name.split()) >= 1, label
    assert variable.units == "1", label
    assert "standard_name" not in attributes, label
    is_coordinate = name in file.dimensions
    assert not (is_coordinate and "_FillValue" in attributes), label
    is_text = variable.dtype is str
    assert is_text or variable.dtype.name in DATA_TYPES, label
    is_large = not is_text and variable.size * variable.dtype.itemsize > COMPRESSED_ABOVE
    filters = variable.filters()
    assert filters is None or filters["zlib"] == is_large, label


def test_variables_are_described_and_coordinates_have_no_fill_value(tiny_study):
    for path in netcdf_paths(tiny_study):
        with netCDF4.Dataset(path) as file:
            for name in file.variables:
                check_variable(file, name)


def test_netcdf_files_record_their_source_but_no_machine_path_or_time(tiny_study):
    for path in netcdf_paths(tiny_study):
        with netCDF4.Dataset(path) as file:
            check_source(tiny_study, path, file)
            check_no_machine_path_or_time(tiny_study, path, file)


def check_source(project, path, file):
    """Check the attributes that record the job, code, versions and inputs of a netCDF file."""
    names = {"title", "source", "contract", "settings", "code", "versions", "inputs"}
    assert set(file.ncattrs()) == names, path
    source = SOURCE_OF_RUN_FILE.get(path.name) or SOURCE_OF_FOLDER[path.parent.name]
    assert file.source == source, path
    assert isinstance(json.loads(file.settings), dict), path
    check_code(project, path, json.loads(file.code), source)
    for name, digest in json.loads(file.inputs).items():
        content = (project.results / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest, (path, name)
    assert bool(json.loads(file.inputs)) != (source == "prepare"), path
    assert {"python", "numpy", "torch", "xarray"} <= set(json.loads(file.versions)), path


def check_code(project, path, code, source):
    """Check the digests of code files and the versions of packages of a netCDF file."""
    assert f"workflow/scripts/{source}.py" in code, path
    packages = set(code) & set(code_digest.COMPUTING_PACKAGES.values())
    assert packages, path
    for name, digest in code.items():
        if name in packages:
            assert digest == version(name), (path, name)
        else:
            assert (project.root / name).is_file(), (path, name)
            assert re.fullmatch("[0-9a-f]{12}", digest), (path, name)


def check_no_machine_path_or_time(project, path, file):
    """Check that no attribute of a netCDF file names the machine, a path, a job or a time."""
    names = [
        rf"\b{re.escape(platform.node())}\b",
        re.escape(str(project.root)),
        r"\d{4}-\d\d-\d\d",
        r"\d\d:\d\d:\d\d",
        "slurm",
        "job_?id",
    ]
    texts = [file.getncattr(name) for name in file.ncattrs()]
    for variable in file.variables.values():
        texts += [str(variable.getncattr(name)) for name in variable.ncattrs()]
    match = re.search("|".join(names), "\n".join(texts), re.IGNORECASE)
    assert match is None, (path, match)


def test_run_files_record_their_settings_and_only_the_code_of_their_method(tiny_study):
    config = yaml.safe_load((tiny_study.root / "config.yaml").read_text())
    curvature = json.loads(json.dumps(asdict(Curvature.of(config["curvature"]))))
    for ensemble in ENSEMBLES:
        setting, method, seed = ensemble.split("/")
        with xr.open_dataset(tiny_study.results / "runs" / ensemble / "outcomes.nc") as outcomes:
            assert json.loads(outcomes.settings) == {
                "setting": asdict(Setting.of(config["settings"][setting])),
                "training": {"checkpoint_every": 1, "curve_points": 10, "precision": "float32"},
                "method": method,
                "arms": ARM_OPTIONS[method],
                "seeds": [int(seed)],
            } | ({"state_tasks": [TREATED_TASK]} if ensemble in TREATED_ENSEMBLES else {})
            assert f"workflow/scripts/plasticity/training/methods/{method}.py" in outcomes.code
            other_methods = {"none", "l2", "l2_init", "fresh", "wasserstein"} - {method}
            for other_method in other_methods:
                assert f"methods/{other_method}.py" not in outcomes.code, ensemble
        with xr.open_dataset(tiny_study.results / "runs" / ensemble / "measures.nc") as measures:
            assert json.loads(measures.settings) == curvature


def check_outcomes(outcomes, arm_count):
    """Check the variables, dims and sizes of an outcomes file."""
    of_tasks = {"final_error", "final_loss", "online_error", "update_norm", "status"}
    assert set(outcomes.data_vars) == of_tasks | CURVES
    for name in of_tasks:
        assert outcomes[name].dims == ("arm", "seed", "task"), name
    for name in CURVES:
        assert outcomes[name].dims == ("arm", "seed", "task", "step"), name
    sizes = {"arm": arm_count, "seed": 1, "task": TASKS, "step": STEPS_PER_TASK}
    assert dict(outcomes.sizes) == sizes
    assert list(outcomes.step.values) == [1, 2, 3, 4], "not every step of a task has a point"
    mean_error = outcomes.error_curve.mean("step")
    np.testing.assert_allclose(mean_error, outcomes.online_error, rtol=1e-6)
    assert list(outcomes.status.flag_values) == [0, 1]
    assert outcomes.status.flag_meanings.split() == ["trained", "diverged"]


def check_measures(measures, arm_count):
    """Check the dims and sizes of a measures file."""
    sizes = {"arm": arm_count, "seed": 1, "task": TASKS}
    sizes |= {"evaluation_point": 2, "block": 5, "rank": 32}
    assert dict(measures.sizes) == sizes
    for name, variable in measures.data_vars.items():
        assert list(variable.dims) == [dim for dim in DIM_ORDER if dim in variable.dims], name
        assert {"arm", "seed", "task"} <= set(variable.dims), name
        assert "block" in variable.dims or name == "curvature_status", name
    assert list(measures.evaluation_point.values) == ["previous", "next"]
    assert list(measures.block.values) == ["hidden_1", "hidden_2", "output", "last_two", "all"]


def check_checkpoints(path):
    """Check the parameters of a checkpoints file, and that one task can be read alone."""
    with netCDF4.Dataset(path) as checkpoints:
        parameters = [values for values in checkpoints.variables.values() if values.ndim > 1]
        assert sum(np.prod(values.shape[3:]) for values in parameters) == PARAMETERS
        for values in parameters:
            assert values.dimensions[:3] == ("arm", "seed", "task")
            assert values.chunking()[2] == 1, "a chunk has more than one task"


@pytest.mark.parametrize("ensemble", [f"{RELU}/l2/1", f"{TANH}/fresh/0"])
def test_run_files_have_the_dims_of_the_contract(tiny_study, ensemble):
    setting, method, seed = ensemble.split("/")
    arms = [arm for arm in ARMS[setting] if arm.partition("(")[0] == method]
    folder = tiny_study.results / "runs" / ensemble
    with xr.open_dataset(folder / "outcomes.nc") as outcomes:
        check_outcomes(outcomes, len(arms))
    with xr.open_dataset(folder / "measures.nc") as measures:
        check_measures(measures, len(arms))
    check_checkpoints(folder / "checkpoints.nc")
    for name in ("outcomes.nc", "checkpoints.nc", "measures.nc"):
        with xr.open_dataset(folder / name) as data:
            assert list(data.arm.values) == arms
            assert list(data.seed.values) == [int(seed)]
            assert list(data.task.values) == list(range(TASKS))


def check_values_of_ensemble(dataset, path):
    """Check that a dataset has the values of all variables of an outcomes or measures file."""
    with xr.open_dataset(path) as ensemble:
        for name, values in ensemble.data_vars.items():
            gathered = dataset[name].sel(arm=ensemble.arm, seed=ensemble.seed)
            assert gathered.reset_coords(drop=True).equals(values), (path, name)


@pytest.mark.parametrize("setting", METHODS)
def test_dataset_has_the_values_of_every_run(tiny_study, setting):
    with xr.open_dataset(tiny_study.results / "datasets" / f"{setting}.nc") as dataset:
        assert list(dataset.arm.values) == ARMS[setting]
        assert list(dataset.seed.values) == [0, 1]
        for outcome in ("final_error", "online_error", "final_loss"):
            baseline = dataset[f"fresh_{outcome}"]
            assert baseline.dims == ("arm", "seed", "task")
            for arm in ARMS[setting]:
                assert np.array_equal(baseline.sel(arm=arm), dataset[outcome].sel(arm="fresh"))
        final_error = dataset.final_error
        assert not final_error.sel(arm="none").equals(final_error.sel(arm="fresh"))
        runs = tiny_study.results / "runs" / setting
        for method, seed in itertools.product(METHODS[setting], SEEDS):
            check_values_of_ensemble(dataset, runs / method / seed / "outcomes.nc")
            check_values_of_ensemble(dataset, runs / method / seed / "measures.nc")
        for seed in SEEDS:
            check_copies_of_ensemble(dataset, runs / TREATED / seed / "interventions.nc", setting)


def check_copies_of_ensemble(dataset, path, setting):
    """Check that a dataset has the values of all variables of a file of interventions."""
    with xr.open_dataset(path) as copies:
        assert list(copies.treatment.values) == TREATMENTS[setting]
        assert list(copies.task.values) == [TREATED_TASK]
        for name, values in copies.data_vars.items():
            if "seed" not in values.dims:
                assert dataset[name].equals(values), (path, name)
                continue
            gathered = dataset[f"treated_{name}"].sel(seed=copies.seed)
            assert gathered.dims[:4] == ("treated_arm", "seed", "treated_task", "treatment")
            assert np.array_equal(gathered.values, values.values, equal_nan=True), (path, name)


@pytest.mark.parametrize("setting", METHODS)
def test_untreated_copy_of_a_study_repeats_its_run(tiny_study, setting):
    with xr.open_dataset(tiny_study.results / "datasets" / f"{setting}.nc") as dataset:
        for name in ("final_error", "final_loss", "online_error", "update_norm"):
            of_runs = dataset[name].sel(arm=TREATED, task=TREATED_TASK).values
            of_copies = dataset[f"treated_{name}"].sel(treatment="none").values
            assert np.array_equal(of_copies.ravel(), of_runs), name


def test_prepared_digits_equal_those_of_scikit_learn(tiny_study):
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    with xr.open_dataset(tiny_study.results / "data" / "digits.nc") as data:
        assert np.array_equal(data.image[:, 0], digits.images)
        assert np.array_equal(data.label, digits.target)


def losses_of_runs(dataset):
    """Return the losses over tasks of each run, one tuple per run."""
    losses = dataset.final_loss.stack(run=["arm", "seed"]).transpose("run", "task")
    return [tuple(values) for values in losses.values]


def test_eigenvalues_descend_and_no_two_runs_have_the_same_losses(tiny_study):
    folder = tiny_study.results / "datasets"
    with (
        xr.open_dataset(folder / f"{RELU}.nc") as relu,
        xr.open_dataset(folder / f"{TANH}.nc") as tanh,
    ):
        assert (relu.fisher_eigenvalue.diff("rank").fillna(-1) <= 0).all()
        losses = [*losses_of_runs(relu), *losses_of_runs(tanh)]
    run_count = len(SEEDS) * (len(ARMS[RELU]) + len(ARMS[TANH]))
    assert len(set(losses)) == run_count


# Report


def words_of_html(text):
    """Return the words of a piece of HTML without its tags."""
    return html.unescape(re.sub(r"<[^>]+>", " ", text)).split()


def read_json_after(page, key):
    """Read the JSON value that follows a key in the report of Snakemake."""
    assert key in page, f"{key} is not in the report"
    value, _ = json.JSONDecoder().raw_decode(page, page.index(key) + len(key))
    return value


def test_report_has_every_figure_table_and_sentence(tiny_study):
    page = (tiny_study.results / "report.html").read_text()
    for name in FIGURES:
        assert page.count(f'<figure id="figure-{name}">') == 1, name
    shown_tables = re.findall(r'<details class="table[^"]*" id="table-(\w+)"', page)
    with_rows = [
        name
        for name in {*TABLES, *TYPESET} - LONG_TABLES
        if for_readers(name, read_table(tiny_study.results / f"tables/{name}.csv"), {}) is not None
    ]
    assert sorted(shown_tables) == sorted(with_rows)
    statements = read_table(tiny_study.results / "tables/statements.csv")
    words = " ".join(words_of_html(page))
    is_shown = statements["rank"].notna() | statements["about"].isin([*FIGURES, *shown_tables])
    for sentence in statements[is_shown]["statement"]:
        assert " ".join(sentence.split()) in words, sentence


def test_links_of_the_report_point_to_results(tiny_study):
    page = (tiny_study.results / "report.html").read_text()
    links = set(re.findall(r'<a href="([^#"][^"]*)"', page))
    assert {"tables/outcomes.csv", "tables/measures.csv", "figures/scatter.pdf"} <= links
    assert not [link for link in links if not (tiny_study.results / link).exists()]


def test_report_of_snakemake_has_captions_without_params(tiny_study, tmp_path):
    path = tmp_path / "snakemake.html"
    done = tiny_study.snakemake("--nolock", "--report", str(path), "--quiet")
    assert done.returncode == 0, done.stdout[-3000:]
    page = path.read_text()
    config = yaml.safe_load((tiny_study.root / "config.yaml").read_text())
    statements = read_table(tiny_study.results / "tables/statements.csv")
    config["quoted"] = captions.quoted(config, statements)
    for name in FIGURES:
        entry = read_json_after(page, f'"results/tiny/figures/{name}.svg": ')
        caption_file = tiny_study.root / f"workflow/report/figure_{name}.rst"
        caption = captions.html(caption_file, config)
        assert words_of_html(entry["caption"]) == words_of_html(caption), name
        assert "{" not in entry["job_properties"]["params"], name


def test_table_of_costs_counts_the_jobs(tiny_study):
    table = pd.read_csv(tiny_study.results / "tables/cost.csv").set_index("stage")
    assert table.loc["train", "jobs"] == len(ENSEMBLES)
    assert table.loc["curvature", "jobs"] == len(ENSEMBLES)
    assert table.loc["gather", "jobs"] == len(METHODS)
    assert (table["longest seconds"] >= table["median seconds"]).all()


# Second builds


def test_second_build_has_no_jobs(built_copy):
    assert built_copy.plan() == set()


@pytest.mark.slow
def test_study_built_in_another_folder_has_the_same_bytes(tiny_study, resumed_study):
    resumed_study.build()
    digests = tiny_study.reproducible_digests()
    netcdf_count = 1 + len(RUN_FILES) + len(METHODS)
    table_count = len(TABLES) + len(TYPESET) - 1  # the table of costs differs in every build
    assert len(digests) == netcdf_count + table_count + 3 * len(FIGURES)
    assert resumed_study.reproducible_digests() == digests


def test_moved_study_has_no_jobs(built_copy):
    moved = built_copy.root.with_name("moved")
    built_copy.root.rename(moved)
    built_copy.root = moved
    assert built_copy.plan() == set()


def test_another_data_root_reruns_nothing(built_copy):
    assert built_copy.plan(env={"PLASTICITY_DATA": "/nowhere"}) == set()


@pytest.mark.parametrize(
    "options", [["--attempt", "2"], ["--set-resources", "train_ensemble:mem_mb=1234"]], ids=" ".join
)
def test_another_memory_limit_reruns_nothing(built_copy, options):
    assert built_copy.plan(*options) == set()


# Targets

RUN_JOBS = PREPARE_JOBS | TRAIN_JOBS | MEASURE_JOBS
TRAIN_JOBS_OF_TREATED = {job for job in TRAIN_JOBS if f"/{TREATED}/" in job}
ALL_RUN_JOBS = RUN_JOBS | TREAT_JOBS
ANALYSIS_JOBS = ALL_RUN_JOBS | GATHER_JOBS | {"analyse"}
CHECK_JOBS = ANALYSIS_JOBS | {"check"}
TABLE_JOBS = {"typeset"}
TARGETS = {
    "data": PREPARE_JOBS,
    "cost": PREPARE_JOBS,
    "tune": set(),
    "train": PREPARE_JOBS | TRAIN_JOBS,
    "curvature": RUN_JOBS,
    "intervene": PREPARE_JOBS | TRAIN_JOBS_OF_TREATED | TREAT_JOBS,
    "datasets": ALL_RUN_JOBS | GATHER_JOBS,
    "tables": ANALYSIS_JOBS | TABLE_JOBS,
    "checks": CHECK_JOBS,
    "figure_scatter": CHECK_JOBS,
    "figures": CHECK_JOBS | FIGURE_JOBS,
    "report": CHECK_JOBS | TABLE_JOBS | FIGURE_JOBS,
}


@pytest.mark.parametrize("target", slow_except(["train", "figure_scatter", "report"], TARGETS))
def test_target_plans_only_its_jobs(project_without_results, target):
    jobs = project_without_results.plan(target)
    assert jobs == TARGETS[target] | {target}
    check_targets([job.split()[0] for job in jobs])  # `make run` refuses the name of no rule


RULES_OF_RUNS = ["train_ensemble", "measure_ensemble", "treat_ensemble"]


def planned_resources(project, *options):
    """Return the resources of each planned job of training, curvature and copies, by rule."""
    process = project.snakemake("--dry-run", "curvature", "intervene", *options)
    assert process.returncode == 0, process.stdout[-6000:]
    job = re.compile(r"^rule (\w+):\n(?: {4}.*\n)*? {4}resources: (.*)\n", re.MULTILINE)
    resources = {}
    for rule, text in job.findall(process.stdout):
        pairs = [pair.split("=", 1) for pair in text.split(", ")]
        resources.setdefault(rule, []).append(dict(pairs))
    return resources


def test_cluster_profile_requests_a_gpu_for_training_and_more_memory_and_time_for_a_retry(
    project_without_results,
):
    first = planned_resources(project_without_results, "--profile", "slurm", "--attempt", "1")
    second = planned_resources(project_without_results, "--profile", "slurm", "--attempt", "2")
    assert len(first["train_ensemble"]) == len(TRAIN_JOBS)
    assert len(first["measure_ensemble"]) == len(MEASURE_JOBS)
    assert len(first["treat_ensemble"]) == len(TREAT_JOBS)
    for rule in ("train_ensemble", "treat_ensemble"):
        assert all(job["gres"].strip("'") == "gpu:1" for job in first[rule])
    assert not any("gres" in job for job in first["measure_ensemble"])
    assert {job["gpu"] for job in first["measure_ensemble"]} == {"0"}
    for rule in RULES_OF_RUNS:
        for job, retry in zip(first[rule], second[rule], strict=True):
            assert int(retry["mem_mb"]) == 2 * int(job["mem_mb"])
            assert int(retry["runtime"]) == 2 * int(job["runtime"])


def test_curvature_requests_a_gpu_where_the_site_says_so(project_without_results):
    env = project_without_results.env | {
        "PLASTICITY_PARTITION": "gpus",
        "PLASTICITY_CPU_PARTITION": "cpus",
        "PLASTICITY_CURVATURE": "gpu",
    }
    jobs = planned_resources(replace(project_without_results, env=env), "--profile", "slurm")
    for rule in ("measure_ensemble", "train_ensemble"):
        assert {job["gres"].strip("'") for job in jobs[rule]} == {"gpu:1"}
        assert {job["slurm_partition"] for job in jobs[rule]} == {"gpus"}
        assert {job["gpu"] for job in jobs[rule]} == {"0"}


def with_gpu(project, folder):
    """Return the project on a machine whose driver lists a GPU; PyTorch still finds none."""
    tool = folder / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: a card'\n")
    tool.chmod(0o755)
    env = {"PATH": f"{folder}{os.pathsep}{project.env['PATH']}", "CUDA_VISIBLE_DEVICES": "0"}
    return replace(project, env=project.env | env)


def test_jobs_declare_a_gpu_only_where_the_driver_lists_one(project_without_results, tmp_path):
    hidden = replace(
        project_without_results, env=project_without_results.env | {"CUDA_VISIBLE_DEVICES": ""}
    )
    without = planned_resources(hidden)
    assert not any("gpu" in job for jobs in without.values() for job in jobs)
    machine = planned_resources(with_gpu(project_without_results, tmp_path))
    for rule in ("train_ensemble", "measure_ensemble", "treat_ensemble"):
        assert {job["gpu"] for job in machine[rule]} == {"1"}


@pytest.mark.slow
def test_training_jobs_take_turns_on_a_gpu_and_fill_the_cores_without_one(new_project, tmp_path):
    project = new_project()
    targets = [f"results/tiny/runs/digits_labels_relu/none/{seed}/outcomes.nc" for seed in (0, 1)]
    project.build("data")
    for machine, at_once in ((with_gpu(project, tmp_path), 1), (project, 2)):
        done = machine.snakemake(*targets, "--forcerun", "train_ensemble")
        assert done.returncode == 0, done.stdout[-6000:]
        events = re.findall(
            r"^(localrule train_ensemble|Finished jobid)", done.stdout, re.MULTILINE
        )
        running = np.cumsum([1 if event.startswith("local") else -1 for event in events])
        assert running.max() == at_once, done.stdout[-6000:]


@pytest.mark.parametrize(
    ("options", "megabytes"), [((), 3000), (("--attempt", "2"), 6000)], ids=str
)
def test_command_of_a_training_job_has_its_memory_limit(
    project_without_results, options, megabytes
):
    process = project_without_results.snakemake("--dry-run", "--printshellcmds", "train", *options)
    command = rf"train\.py. .* --memory {megabytes}$"
    commands = re.findall(command, process.stdout, re.MULTILINE)
    assert len(commands) == len(TRAIN_JOBS)


def test_cost_lists_every_method_and_writes_only_its_log_and_benchmark(built_copy, tiny_study):
    process = built_copy.snakemake("cost")
    assert process.returncode == 0, process.stdout
    for setting, methods in METHODS.items():
        for method in methods:
            assert re.search(rf"\b{setting}\b.*\b{method}\b", process.stdout), process.stdout
    contents = built_copy.digests()
    for name in ("logs/cost.log", "benchmarks/cost.tsv"):
        del contents[name]
    assert contents == tiny_study.digests()


def test_configfile_replaces_the_default_study(project_without_results):
    jobs = project_without_results.plan("--configfile", "studies/mnist.yaml")
    mnist_jobs = {
        "prepare mnist",
        "train_ensemble mnist_labels_relu/none/0-9",
        "gather mnist_labels_relu",
        "all",
    }
    assert mnist_jobs < jobs
    assert not any("digits" in job for job in jobs)


# Both seeds in one job, and an arm that diverges

DIVERGED_ARM = "l2_init(strength=1e+39)"


@pytest.mark.slow
def test_run_does_not_depend_on_the_other_runs_of_its_ensemble(tiny_study, packed_study):
    ensembles = (packed_study.results / "runs").glob("*/*/*")
    assert [path.name for path in ensembles] == ["0-1"] * 4
    with (
        xr.open_dataset(tiny_study.results / f"datasets/{RELU}.nc") as separate,
        xr.open_dataset(packed_study.results / f"datasets/{RELU}.nc") as together,
    ):
        assert set(together.arm.values) == {*ARMS[RELU], DIVERGED_ARM}
        assert set(together.data_vars) == set(separate.data_vars)
        same_arms = together.sel(arm=separate.arm)
        for name, values in separate.data_vars.items():
            assert same_arms[name].equals(values), name


def read_text_table(project, name):
    """Read a table without a conversion of its numbers."""
    path = project.results / f"tables/{name}.csv"
    return pd.read_csv(path, dtype=str, keep_default_na=False)


# The p-values of the other tables are adjusted over the study, so they depend on its settings.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["summary", "outcomes", "measures", "tuning"])
def test_table_does_not_depend_on_the_number_of_seeds_per_job(tiny_study, packed_study, name):
    separate = read_text_table(tiny_study, name)
    together = read_text_table(packed_study, name)
    separate = separate[separate["setting"] == RELU]
    together = together[together["arm"] != DIVERGED_ARM]
    assert len(separate) == len(together)
    assert len(separate) or name == "tuning"
    rows = sorted(map(tuple, separate.values))
    assert rows == sorted(map(tuple, together.values))


@pytest.mark.slow
def test_diverged_runs_are_marked_and_the_study_has_its_report(packed_study):
    results = packed_study.results
    with xr.open_dataset(results / f"datasets/{RELU}.nc") as data:
        assert (data.status.sel(arm=DIVERGED_ARM) == 1).all()
        assert (data.status.drop_sel(arm=DIVERGED_ARM) == 0).all()
        for name in ("final_error", "final_loss", "online_error", "update_norm", *CURVES):
            assert data[name].sel(arm=DIVERGED_ARM).isnull().all(), name
            assert data[name].drop_sel(arm=DIVERGED_ARM).notnull().all(), name
    table = pd.read_csv(results / "tables/outcomes.csv", keep_default_na=False)
    is_diverged = table["arm"] == DIVERGED_ARM
    has_note = table["note"].str.contains("diverged")
    assert (has_note == is_diverged).all()
    assert (table.loc[is_diverged, "mean"] == "").all()
    for figure in FIGURES:
        assert (results / f"figures/{figure}.svg").stat().st_size > 5000, figure
    assert DIVERGED_ARM in (results / "tables/associations.csv").read_text()
    assert (results / "report.html").exists()


# Fewer checkpoints and curve points, and bfloat16


@pytest.fixture(scope="module")
def sparse(build_study):
    """Build a study with fewer checkpoints and curve points and with bfloat16, to read only."""

    def record_less(config):
        del config["settings"][TANH]
        config["seeds_per_job"] = 2
        config["methods"] = {"none": {}}
        config["training"] = {"checkpoint_every": 2, "curve_points": 2, "precision": "bfloat16"}
        config["curvature"]["every"] = 2

    return build_study("sparse", record_less)


@pytest.mark.slow
def test_study_with_a_checkpoint_at_every_second_task_has_its_report(sparse):
    assert (sparse.results / "report.html").exists()
    for path in sparse.results.glob("runs/*/*/*/checkpoints.nc"):
        with xr.open_dataset(path) as checkpoints:
            assert list(checkpoints.task.values) == [0, 2, 4]
    with xr.open_dataset(sparse.results / f"datasets/{RELU}.nc") as data:
        assert list(data.task.values) == [0, 1, 2, 3, 4]
        assert data.final_error.notnull().all()
        has_trace = data.fisher_trace.sel(evaluation_point="next").notnull()
        is_measured = has_trace.all(["arm", "seed", "block"])
        assert list(is_measured.values) == [True, False, True, False, True]


@pytest.mark.slow
def test_learning_curves_have_the_number_of_points_of_the_config(sparse):
    with xr.open_dataset(sparse.results / f"datasets/{RELU}.nc") as data:
        assert list(data.step.values) == [2, 4]
        for name in CURVES:
            assert data[name].dims == ("arm", "seed", "task", "step")
            assert data[name].notnull().all()


@pytest.mark.slow
def test_products_in_bfloat16_change_the_losses_by_less_than_five_percent(tiny_study, sparse):
    with (
        xr.open_dataset(tiny_study.results / f"datasets/{RELU}.nc") as in_float32,
        xr.open_dataset(sparse.results / f"datasets/{RELU}.nc") as in_bfloat16,
    ):
        expected = in_float32.final_loss.sel(arm="none")
        losses = in_bfloat16.final_loss.sel(arm="none")
        assert not losses.equals(expected)
        np.testing.assert_allclose(losses, expected, rtol=0.05)
