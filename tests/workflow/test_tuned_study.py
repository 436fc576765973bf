"""Studies with tuning seeds: their files, the selected arm, and what a new criterion reruns."""

import json
import os
import re
import signal

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from projects import copy_project, wait_for

from plasticity.storage import netcdf

SETTING = "digits_labels_relu"
TUNED = f"{SETTING}/l2_init"
STRENGTHS = [0.001, 0.1]
TASKS = 3
TUNING_SEEDS = [1000, 1001]
REPORTING_SEEDS = [0, 1]
RUN_FILES = ("outcomes.nc", "checkpoints.nc", "measures.nc")
FOLDER = f"results/tuned/runs/{TUNED}"

# Patterns of files in the results of the study
FILES_OF_TUNED_METHOD = f"runs/{TUNED}/*/*.nc"
FILES_OF_OTHER_METHODS = f"runs/{SETTING}/[nf]*/*/*.nc"
FILES_OF_ALL_RUNS = "[rt]un*/**/*.nc"

LONG_RUN_TASKS = 600


def add_tuning(config):
    """Reduce the tiny study to one setting, and tune a method with two arms."""
    config["study"] = "tuned"
    config["seeds"] = {"tune": len(TUNING_SEEDS), "report": len(REPORTING_SEEDS)}
    del config["settings"]["digits_labels_tanh"]
    config["settings"][SETTING]["problem"]["tasks"] = TASKS
    config["methods"] = {"none": {}, "l2_init": {"strength": STRENGTHS}}
    treatments = {"shrink": {"strength": 0.5}}
    config["interventions"] = {"treatments": treatments, "tasks": [1], "arms": ["l2_init"]}


@pytest.fixture(scope="module")
def tuned_study(build_study):
    """Build the tables of the tuned study once, to read only."""
    return build_study("tuned", add_tuning, "tables")


@pytest.fixture
def tuned_copy(tuned_study, tmp_path):
    """Copy the tuned study with its hard links, to change it."""
    with copy_project(tuned_study, tmp_path / "copy") as project:
        yield project


def results(project):
    """Return the folder of the results."""
    return project.root / "results" / "tuned"


def read_choice(project):
    """Read which arm was selected, by which criterion."""
    return json.loads((results(project) / "tuning" / TUNED / "choice.json").read_text())


def tuning_outcomes(project, seed):
    """Return the path of the outcomes of a tuning seed."""
    return results(project) / "tuning" / TUNED / str(seed) / "outcomes.nc"


def read_inodes(project, pattern):
    """Return the inodes of files; a file that a job has written again has another inode."""
    folder = results(project)
    return {str(path.relative_to(folder)): path.stat().st_ino for path in folder.glob(pattern)}


def read_log(project, seed, stage):
    """Read the log of the last job of the tuned method for a reporting seed."""
    return (results(project) / "logs" / "runs" / TUNED / str(seed) / f"{stage}.log").read_text()


def was_computed(project, seed, stage):
    """Return whether the last job computed all tasks; otherwise it restored an earlier result."""
    log = read_log(project, seed, stage)
    was_restored = "restored from" in log and "nothing is computed" in log
    has_computed = f": task {TASKS}/{TASKS}, " in log
    assert was_restored != has_computed, log
    return has_computed


def computed_seeds(project, stage="train"):
    """Return the reporting seeds for which the last job of the tuned method computed a result."""
    return {seed for seed in REPORTING_SEEDS if was_computed(project, seed, stage)}


# Files and arms


def test_tuned_study_has_the_files_of_its_stages(tuned_study):
    folder = results(tuned_study)
    paths = [path for path in folder.rglob("*.*") if path.is_file()]
    names = {str(path.relative_to(folder)) for path in paths}
    of_earlier_arms = {name for name in names if "/cache/" in name}
    of_stages = {name for name in names if name.partition("/")[0] in {"tuning", "runs"}}

    expected = {f"tuning/{TUNED}/choice.json"}
    expected |= {f"tuning/{TUNED}/{seed}/outcomes.nc" for seed in TUNING_SEEDS}
    for method in ("none", "l2_init", "fresh"):
        for seed in REPORTING_SEEDS:
            expected |= {f"runs/{SETTING}/{method}/{seed}/{name}" for name in RUN_FILES}
    expected |= {f"runs/{TUNED}/{seed}/interventions.nc" for seed in REPORTING_SEEDS}
    assert of_stages - of_earlier_arms == expected

    folders_with_earlier_arms = {name.partition("/cache/")[0] for name in of_earlier_arms}
    assert folders_with_earlier_arms == {f"runs/{TUNED}/{seed}" for seed in REPORTING_SEEDS}
    assert "tables/tuning.csv" in names
    assert f"logs/tuning/{TUNED}/1000/tune.log" in names
    assert f"logs/tuning/{TUNED}/choose.log" in names
    assert tuned_study.plan("tables") == set()


def test_tuning_seeds_train_all_arms_and_reporting_seeds_the_selected_arm(tuned_study):
    for seed in TUNING_SEEDS:
        with xr.open_dataset(tuning_outcomes(tuned_study, seed)) as data:
            arms = [f"l2_init(strength={strength})" for strength in STRENGTHS]
            assert list(data.arm.values) == arms
            assert list(data.seed.values) == [seed]
    with xr.open_dataset(results(tuned_study) / "datasets" / f"{SETTING}.nc") as data:
        arms = ["none", "l2_init", "fresh"]
        assert list(data.arm.values) == arms
        assert json.loads(data.settings)["arms"] == arms
        assert list(data.seed.values) == REPORTING_SEEDS
    selected_arm = read_choice(tuned_study)["arm"]
    for seed in REPORTING_SEEDS:
        for name in ("outcomes.nc", "checkpoints.nc"):
            with xr.open_dataset(tuned_study.root / FOLDER / str(seed) / name) as data:
                assert list(data.arm.values) == ["l2_init"]
                assert json.loads(data.settings)["arms"] == [selected_arm]


def test_selected_arm_has_the_smallest_mean_error_and_is_marked_in_the_table(tuned_study):
    errors = []
    for seed in TUNING_SEEDS:
        error = netcdf.read(tuning_outcomes(tuned_study, seed)).final_error
        errors.append(error.astype(float).mean("task").values[:, 0])
    scores = np.mean(errors, axis=0)
    selected_strength = STRENGTHS[int(scores.argmin())]
    assert read_choice(tuned_study)["arm"] == {"strength": selected_strength}

    table = pd.read_csv(results(tuned_study) / "tables" / "tuning.csv")
    assert len(table) == 2 * 3 * 3, "not a row for every arm, outcome and stage"
    criterion = table[table["criterion"]]
    outcomes_and_stages = set(zip(criterion["outcome"], criterion["stage"], strict=True))
    assert outcomes_and_stages == {("final_error", "all")}
    np.testing.assert_allclose(criterion["mean"], scores, rtol=1e-5)
    is_selected = [strength == selected_strength for strength in STRENGTHS]
    assert list(criterion["chosen"]) == is_selected


@pytest.mark.slow
def test_reporting_runs_equal_those_of_a_study_of_the_selected_arm(tuned_copy):
    selected_arm = read_choice(tuned_copy)["arm"]

    def use_selected_arm(config):
        config["study"] = "single_arm"
        config["seeds"]["tune"] = 0
        config["methods"]["l2_init"] = selected_arm

    tuned_copy.config(use_selected_arm)
    names = ("0/outcomes.nc", *(f"1/{name}" for name in (*RUN_FILES, "interventions.nc")))
    paths = [f"runs/{TUNED}/{name}" for name in names]
    tuned_copy.build(*(f"results/single_arm/{path}" for path in paths))
    for path in paths:
        tuned = xr.load_dataset(results(tuned_copy) / path)
        untuned = xr.load_dataset(tuned_copy.root / "results/single_arm" / path)
        assert list(untuned.arm.values) == [f"l2_init(strength={selected_arm['strength']:g})"]
        # `inputs` has the digest of the checkpoints, which contain the name of the arm.
        renamed = untuned.assign_coords(arm=tuned.arm).assign_attrs(inputs=tuned.inputs)
        assert tuned.identical(renamed), path


def read_losses(paths):
    """Return the losses of all arms, seeds and tasks of some outcomes files."""
    return np.concatenate([netcdf.read(path).final_loss.values.ravel() for path in paths])


def test_runs_of_tuning_seeds_differ_from_reporting_runs(tuned_study):
    tuning_paths = [tuning_outcomes(tuned_study, seed) for seed in TUNING_SEEDS]
    folder = tuned_study.root / FOLDER
    reporting_paths = [folder / str(seed) / "outcomes.nc" for seed in REPORTING_SEEDS]
    tuning_losses = read_losses(tuning_paths)
    reporting_losses = read_losses(reporting_paths)
    assert len(np.unique(tuning_losses)) == len(STRENGTHS) * len(TUNING_SEEDS) * TASKS
    assert not np.isin(tuning_losses, reporting_losses).any()


# Longer grids


def read_errors(project, name):
    """Return the final errors of all arms on the tuning seeds, dims ``(arm, seed, task)``."""
    paths = sorted((results(project) / "tuning" / TUNED).glob(name))
    return xr.concat([netcdf.read(path).final_error for path in paths], "seed")


@pytest.mark.slow
def test_lengthened_grid_equals_a_grid_that_had_the_added_arm_from_the_start(tuned_copy):
    first_choice = read_choice(tuned_copy)["arm"]["strength"]
    tuned_copy.config(lambda config: config.update(tuning={"lengthen": 1}))
    tuned_copy.build("tables")

    # The values continue at the end where the best arm lies, with the same ratio.
    added_strength = {0.001: 1e-05, 0.1: 10.0}[first_choice]
    strengths = [*STRENGTHS, added_strength]
    lengthened = read_errors(tuned_copy, "lengthened/outcomes.nc")
    assert [float(name.partition("=")[2][:-1]) for name in lengthened.arm.values] == strengths
    assert list(lengthened.seed) == TUNING_SEEDS
    scores = lengthened.astype(float).mean(("seed", "task")).values
    assert read_choice(tuned_copy)["arm"] == {"strength": strengths[int(scores.argmin())]}
    table = pd.read_csv(results(tuned_copy) / "tables" / "tuning.csv")
    assert set(table["arm"]) == set(lengthened.arm.values)
    names = {path.name for path in (results(tuned_copy) / "tuning" / TUNED).glob("lengthened/*")}
    assert names == {"outcomes.nc"}, "files for a restart remain"

    def list_all_arms(config):
        del config["tuning"]
        config["methods"]["l2_init"]["strength"] = strengths

    tuned_copy.config(list_all_arms)
    tuned_copy.build("tune")
    wide = read_errors(tuned_copy, "1???/outcomes.nc").sel(arm=lengthened.arm)
    np.testing.assert_array_equal(wide, lengthened)


# Criteria


def set_criterion(outcome, stage="all"):
    """Return a change of the config that selects by an outcome at a stage of training."""
    return lambda config: config.update(tuning={"outcome": outcome, "stage": stage})


def favor_arm(project, outcome, arm_index):
    """Change an outcome of the tuning seeds so that one arm has the smallest values."""
    for seed in TUNING_SEEDS:
        path = tuning_outcomes(project, seed)
        data = netcdf.read(path)
        data[outcome].values[...] = 1
        data[outcome].values[arm_index] = 0
        netcdf.write(data, path)
        # With its record, the file would be refused because of its checksum.
        record = results(project) / "provenance/tuning" / TUNED / str(seed) / "outcomes.nc.json"
        record.unlink(missing_ok=True)


def check_same_arm_computes_nothing(project, first_arm, first_inodes, first_contents):
    """Select the same arm by another criterion, and check that its files stay."""
    project.config(set_criterion("final_loss"))
    train_jobs = {f"train_ensemble {TUNED}/{seed}" for seed in REPORTING_SEEDS}
    assert project.plan("train") == {f"choose_arm {TUNED}", *train_jobs, "train"}
    project.build("curvature")
    choice = read_choice(project)
    assert choice["arm"] == first_arm
    assert choice["criterion"]["outcome"] == "final_loss"
    assert computed_seeds(project) == set()
    assert computed_seeds(project, "curvature") == set()
    assert read_inodes(project, FILES_OF_TUNED_METHOD) == first_inodes
    assert project.digests(FOLDER) == first_contents
    assert project.plan("curvature") == set()


def check_other_arm_is_computed(project, first_arm):
    """Select the other arm, and check that jobs train and measure it."""
    project.config(set_criterion("online_error"))
    project.build("curvature")
    other_arm = read_choice(project)["arm"]
    assert other_arm != first_arm
    assert computed_seeds(project) == set(REPORTING_SEEDS)
    assert computed_seeds(project, "curvature") == set(REPORTING_SEEDS)
    for seed in REPORTING_SEEDS:
        with xr.open_dataset(project.root / FOLDER / str(seed) / "outcomes.nc") as data:
            assert json.loads(data.settings)["arms"] == [other_arm]
    assert project.plan("curvature") == set()


def flip_bit_of_stored_file(project, inode):
    """Alter the stored outcomes of the arm that was selected before, for seed 0."""
    stored_paths = results(project).glob(f"runs/{TUNED}/0/cache/train/*/outcomes.nc")
    (path,) = (path for path in stored_paths if path.stat().st_ino == inode)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def check_altered_file_alone_is_computed(project, first_arm, first_inodes, first_contents):
    """Alter a stored file of the first arm, select this arm again, and check what is computed."""
    flip_bit_of_stored_file(project, first_inodes[f"runs/{TUNED}/0/outcomes.nc"])
    project.config(lambda config: config.pop("tuning"))
    project.build("curvature")
    assert read_choice(project)["arm"] == first_arm
    assert computed_seeds(project) == {0}
    assert re.search(r"WARNING .*outcomes\.nc was altered", read_log(project, 0, "train"))
    assert computed_seeds(project, "curvature") == set(), "the new checkpoints differ"

    inodes = read_inodes(project, FILES_OF_TUNED_METHOD)
    changed = {name for name, inode in first_inodes.items() if inodes[name] != inode}
    assert changed == {f"runs/{TUNED}/0/outcomes.nc", f"runs/{TUNED}/0/checkpoints.nc"}
    contents = project.digests(FOLDER)
    for name, digest in first_contents.items():
        assert "/cache/" in name or contents[name] == digest, name
    assert project.plan("curvature") == set()


@pytest.mark.slow
def test_another_criterion_computes_only_an_arm_that_was_not_selected_before(tuned_copy):
    first_arm = read_choice(tuned_copy)["arm"]
    first_index = STRENGTHS.index(first_arm["strength"])
    inodes = read_inodes(tuned_copy, FILES_OF_TUNED_METHOD)
    inodes_of_others = read_inodes(tuned_copy, FILES_OF_OTHER_METHODS)
    contents = tuned_copy.digests(FOLDER)
    # The criterion final_loss then selects the same arm, and online_error the other arm.
    favor_arm(tuned_copy, "final_loss", first_index)
    favor_arm(tuned_copy, "online_error", 1 - first_index)

    check_same_arm_computes_nothing(tuned_copy, first_arm, inodes, contents)
    check_other_arm_is_computed(tuned_copy, first_arm)
    assert read_inodes(tuned_copy, FILES_OF_OTHER_METHODS) == inodes_of_others
    check_altered_file_alone_is_computed(tuned_copy, first_arm, inodes, contents)


# Seeds


def test_additional_tuning_seed_trains_only_this_seed(tuned_copy):
    selected_arm = read_choice(tuned_copy)["arm"]
    favor_arm(tuned_copy, "final_loss", STRENGTHS.index(selected_arm["strength"]))
    # With these losses, the new seed does not change which arm is selected.
    tuned_copy.config(set_criterion("final_loss"))
    tuned_copy.config(lambda config: config["seeds"].update(tune=3))
    before = read_inodes(tuned_copy, FILES_OF_ALL_RUNS)
    jobs = {f"tune_ensemble {TUNED}/1002", f"choose_arm {TUNED}", "tune"}
    assert tuned_copy.plan("tune") == jobs
    tuned_copy.build("train")
    assert read_choice(tuned_copy)["seeds"] == [1000, 1001, 1002]
    assert computed_seeds(tuned_copy) == set()
    after = read_inodes(tuned_copy, FILES_OF_ALL_RUNS)
    changed = {name for name, inode in after.items() if before.get(name) != inode}
    assert changed == {f"tuning/{TUNED}/1002/outcomes.nc"}


def test_additional_reporting_seed_tunes_nothing(tuned_copy):
    tuned_copy.config(lambda config: config["seeds"].update(report=3))
    methods = ("none", "l2_init", "fresh")
    jobs = {f"train_ensemble {SETTING}/{method}/2" for method in methods}
    assert tuned_copy.plan("train") == {*jobs, "train"}


@pytest.mark.slow
def test_killed_tuning_job_continues_after_its_last_finished_task(tuned_copy):
    problem = {"tasks": LONG_RUN_TASKS}
    tuned_copy.config(lambda config: config["settings"][SETTING]["problem"].update(problem))
    outcomes = tuning_outcomes(tuned_copy, 1000)
    target = str(outcomes.relative_to(tuned_copy.root))
    options = ["--cores", "1", "--rerun-incomplete", target]

    process = tuned_copy.unforked.start_snakemake(*options, log=tuned_copy.root / "killed.out")
    wait_for((outcomes.parent / "resume" / "state_0.npz").exists, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    tuned_copy.build("--unlock")
    tuned_copy.build(*options)

    log = (results(tuned_copy) / "logs" / "tuning" / TUNED / "1000" / "tune.log").read_text()
    assert re.search(rf"going on after task [1-9]\d* of {LONG_RUN_TASKS}", log)
    assert netcdf.read(outcomes).final_error.notnull().all()
    names = [path.name for path in outcomes.parent.iterdir()]
    assert names == ["outcomes.nc"], "checkpoints or files for a restart remain"


# Messages, cost and cluster


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (
            set_criterion("final_eror"),
            [
                "tuning.outcome",
                "Did you mean 'final_error'?",
                "final_error, online_error, final_loss, test_error",
            ],
        ),
        (
            set_criterion("final_error", "last"),
            ["tuning.stage", "Did you mean 'late'? Known: all, early, late"],
        ),
        (
            set_criterion("test_error"),
            ["tuning.outcome is test_error", f"settings.{SETTING}.problem has no test_samples"],
        ),
    ],
)
def test_invalid_criterion_is_refused(tuned_copy, change, parts):
    tuned_copy.config(change)
    process = tuned_copy.snakemake("--dry-run")
    assert process.returncode != 0
    assert "Traceback" not in process.stdout
    messages = [line for line in process.stdout.splitlines() if "config.yaml: " in line]
    assert any(all(part in line for part in parts) for line in messages), process.stdout


def test_study_whose_arms_all_diverge_is_refused(tuned_copy):
    strengths = [1.0e38, 1.0e39]
    tuned_copy.config(lambda config: config["methods"]["l2_init"].update(strength=strengths))
    process = tuned_copy.snakemake("train")
    assert process.returncode != 0
    message = (
        f"every arm of l2_init diverged on some tuning seed of {SETTING}, so none can be chosen"
    )
    assert message in process.stdout
    assert "Traceback" not in process.stdout


@pytest.mark.slow
def test_cost_of_a_study_includes_its_tuning(tuned_copy):
    process = tuned_copy.snakemake("cost")
    assert process.returncode == 0, process.stdout
    jobs_and_runs = {}
    for method in ("l2_init", "l2_init tuning"):
        row = re.search(rf"^{SETTING} +{method} +(\d+) +(\d+) ", process.stdout, re.MULTILINE)
        jobs_and_runs[method] = (int(row[1]), int(row[2]))
    assert jobs_and_runs == {"l2_init": (2, 2), "l2_init tuning": (2, 4)}


def test_cluster_profile_requests_a_gpu_for_tuning(tuned_copy):
    tuned_copy.config(lambda config: config["seeds"].update(tune=3))
    process = tuned_copy.snakemake("--dry-run", "--profile", "slurm", "tune")
    assert process.returncode == 0, process.stdout
    request = r"^rule tune_ensemble:\n(?: {4}.*\n)*? {4}resources: .*gres='?gpu:1"
    assert re.search(request, process.stdout, re.MULTILINE), process.stdout
