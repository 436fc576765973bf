"""Mistakes and failures give a message without a traceback, and leave results unchanged."""

import fcntl
import json
import os
import re
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import netCDF4
import pytest
import yaml

from plasticity.config import layers

RELU = "digits_labels_relu"
SETTING = f"settings.{RELU}"
ENSEMBLE = f"runs/{RELU}/none/0"
OUTCOMES = f"results/tiny/{ENSEMBLE}/outcomes.nc"
MEASURES = f"results/tiny/{ENSEMBLE}/measures.nc"

MNIST_IMAGES = "train-images-idx3-ubyte.gz"
MNIST_LABELS = "train-labels-idx1-ubyte.gz"
GZIP_MAGIC = b"\x1f\x8b"

TASKS = 5


def check_refusal(process, *parts):
    """Check that a command failed without a traceback; return the line that has all parts."""
    assert process.returncode != 0, process.stdout[-3000:]
    assert "Traceback" not in process.stdout, process.stdout[-3000:]
    assert "mistake in the code" not in process.stdout
    assert "unexpected error" not in process.stdout, process.stdout[-3000:]
    lines = process.stdout.splitlines()
    matches = [line for line in lines if all(part in line for part in parts)]
    assert matches, f"no line has all of {parts}:\n{process.stdout[-3000:]}"
    return matches[0]


# Configs


def put(key, value):
    """Return a function that sets the value at a dotted key of a config."""

    def change(config):
        *path, last = key.split(".")
        section = config
        for name in path:
            section = section[name]
        section[last] = value

    return change


def measure_unsaved_checkpoints(config):
    """Save a checkpoint at every third task, but measure every second task."""
    config["training"] = {"checkpoint_every": 3}
    config["curvature"]["every"] = 2


MISTAKES = {
    "misspelt key": (
        put(f"{SETTING}.problem.sampels", 9),
        [f"{SETTING}.problem", "'sampels'", "Did you mean 'samples'?"],
    ),
    "number that YAML reads as text": (
        put(f"{SETTING}.optimizer.lr", "1e-3"),
        [f"{SETTING}.optimizer.lr", "'1e-3'", "Write 1.0e-03"],
    ),
    "unknown method": (
        put("methods.l3", {}),
        ["methods", "'l3'", "l2, l2_er, l2_init, last_layer_reset"],
    ),
    "negative number of seeds": (put("seeds.report", -2), ["seeds.report", "-2", "at least 1"]),
    "no methods": (put("methods", {}), ["methods", "empty", "Name at least one"]),
    "unknown hyperparameter": (
        put("methods.l2.strenght", 1),
        ["methods.l2", "'strenght'", "Did you mean 'strength'?"],
    ),
    "negative strength": (
        put("methods.l2_init.strength", -0.5),
        ["methods.l2_init.strength", "-0.5", "at least 0"],
    ),
    "step size that is NaN": (
        put(f"{SETTING}.optimizer.lr", float("nan")),
        [f"{SETTING}.optimizer.lr"],
    ),
    "infinite step size": (
        put(f"{SETTING}.optimizer.lr", float("inf")),
        [f"{SETTING}.optimizer.lr"],
    ),
    "strength that is NaN": (
        put("methods.l2_init.strength", float("nan")),
        ["methods.l2_init.strength"],
    ),
    "batch larger than the samples": (
        put(f"{SETTING}.problem.batch", 257),
        [f"{SETTING}.problem.batch", "257", "256", "Lower batch"],
    ),
    "misspelt key of training": (
        put("training", {"curve_point": 5}),
        ["training", "'curve_point'", "Did you mean 'curve_points'?"],
    ),
    "unknown precision": (
        put("training", {"precision": "float16"}),
        ["training.precision", "float16", "Did you mean 'bfloat16'?", "float32, bfloat16"],
    ),
    "learning curve without points": (
        put("training", {"curve_points": 0}),
        ["training.curve_points", "0", "at least 1"],
    ),
    "checkpoints that are measured but not saved": (
        measure_unsaved_checkpoints,
        ["curvature.every is 2", "only every 3 tasks", "training.checkpoint_every", "multiple"],
    ),
    "misspelt key of an operator": (
        put("curvature.operators", {"fisher": {}, "hessian": {"prboes": 3}}),
        ["curvature.operators.hessian", "'prboes'", "Did you mean 'probes'?"],
    ),
    "operator on more images than a task has": (
        put("curvature.operators", {"ggn": {"samples": 300}}),
        [
            "curvature.operators.ggn.samples is 300",
            "only 256 samples",
            "Lower curvature.operators.ggn.samples",
        ],
    ),
    "unknown dataset": (
        put(f"{SETTING}.problem.dataset", "mnits"),
        [f"{SETTING}.problem.dataset", "'mnits'", "Did you mean 'mnist'?"],
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_config_with_a_mistake_is_refused_before_any_job_runs(built_copy, tiny_study, name):
    change, parts = MISTAKES[name]
    built_copy.config(change)
    message = check_refusal(built_copy.snakemake(), "config.yaml: ", *parts)
    assert not re.search(r"<class|NoneType|OrderedDict", message)
    assert built_copy.digests() == tiny_study.digests()


INVALID_FILES = {
    "syntax error": ("study: tiny\nseeds: {report: 2\nmethods: [\n", "line 3, column 8"),
    "empty file": ("", "config.yaml is empty"),
    "only comments": ("# nothing yet\n", "config.yaml is empty"),
    "list": ("- study\n- seeds\n", "the file has a list"),
}


@pytest.mark.parametrize("name", INVALID_FILES)
def test_file_that_is_not_a_config_is_refused(built_copy, tiny_study, name):
    text, words = INVALID_FILES[name]
    (built_copy.root / "config.yaml").write_text(text)
    check_refusal(built_copy.snakemake(), words)
    assert built_copy.digests() == tiny_study.digests()


def test_study_without_settings_is_refused_and_not_merged_with_the_default(built_copy, tiny_study):
    (built_copy.root / "part.yaml").write_text("study: tiny\nseeds: {report: 1}\n")
    process = built_copy.snakemake("--configfile", "part.yaml")
    check_refusal(process, "part.yaml: ", "'settings'", "Add them")
    assert built_copy.digests() == tiny_study.digests()


def test_more_samples_than_the_dataset_has_are_refused(built_copy):
    built_copy.config(put(f"{SETTING}.problem.samples", 1798))
    key = f"{SETTING}.problem.samples is 1798"
    check_refusal(built_copy.snakemake(OUTCOMES), key, "1797 images", "Lower it")


# Data


def prepare_mnist(project, root):
    """Prepare MNIST from a data root."""
    environment = {"PLASTICITY_DATA": str(root)}
    return project.snakemake("data", "--configfile", "studies/mnist.yaml", env=environment)


def has_mnist_results(project):
    """Return whether the MNIST study has a result or a partial one."""
    paths = (project.root / "results" / "mnist").rglob("*")
    return any(path.suffix in {".nc", ".part"} for path in paths)


def test_missing_data_root_is_refused(project_without_results, tmp_path):
    root = tmp_path / "away"
    process = prepare_mnist(project_without_results, root)
    check_refusal(process, str(root), "data_root", "PLASTICITY_DATA", MNIST_IMAGES)
    assert not has_mnist_results(project_without_results)


def test_missing_data_root_of_one_dataset_is_refused_before_any_job(
    project_without_results, tmp_path
):
    """The study also has digits, whose job could start."""
    config = yaml.safe_load((project_without_results.root / "config.yaml").read_text())
    relu = config["settings"][RELU]
    config["settings"]["mnist_relu"] = relu | {"problem": relu["problem"] | {"dataset": "mnist"}}
    root = tmp_path / "away"
    (project_without_results.root / "two.yaml").write_text(yaml.safe_dump(config))
    environment = {"PLASTICITY_DATA": str(root)}
    process = project_without_results.snakemake("--configfile", "two.yaml", env=environment)
    check_refusal(process, str(root), "data_root", MNIST_IMAGES)
    assert "Finished jobid" not in process.stdout
    assert not list(project_without_results.results.rglob("*.nc"))


def test_message_without_data_and_network_names_the_files_and_their_folder(
    project_without_results, tmp_path
):
    process = prepare_mnist(project_without_results, tmp_path)
    check_refusal(process, MNIST_IMAGES, MNIST_LABELS, str(tmp_path / "MNIST/raw"))
    assert not has_mnist_results(project_without_results)
    assert not list(tmp_path.rglob("*.gz"))


def test_invalid_mnist_files_are_refused(project_without_results, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in (MNIST_IMAGES, MNIST_LABELS):
        (raw / name).write_bytes(GZIP_MAGIC + bytes(100))
    process = prepare_mnist(project_without_results, tmp_path)
    check_refusal(process, str(raw / MNIST_IMAGES), "truncated or altered", "replace it")
    assert not has_mnist_results(project_without_results)
    assert len(list(raw.iterdir())) == 2


@pytest.fixture
def original_mnist_folder():
    """Return the folder with the original files of MNIST, or skip the test."""
    folder = Path(os.environ.get("PLASTICITY_DATA", "")) / "MNIST" / "raw"
    if "PLASTICITY_DATA" not in os.environ or not (folder / MNIST_LABELS).exists():
        pytest.skip("PLASTICITY_DATA does not name a folder with MNIST/raw/*.gz")
    return folder


@pytest.mark.data
@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_damaged_original_mnist_file_is_refused(
    project_without_results, original_mnist_folder, tmp_path, damage
):
    raw = tmp_path / "MNIST" / "raw"
    shutil.copytree(original_mnist_folder, raw, copy_function=shutil.copyfile)
    content = bytearray((raw / MNIST_LABELS).read_bytes())
    if damage == "truncated":
        del content[-1:]
    else:
        content[len(content) // 2] ^= 1
    (raw / MNIST_LABELS).write_bytes(content)
    process = prepare_mnist(project_without_results, tmp_path)
    check_refusal(process, str(raw / MNIST_LABELS), "truncated or altered")
    assert not has_mnist_results(project_without_results)


# Results that are damaged or read-only


def mount_tmpfs(folder, options):
    """Mount a file system in memory on a folder, or skip the test."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this user has no right to mount")


def unmount(folder):
    subprocess.run(["umount", folder], check=True)


@contextmanager
def read_only(folder):
    """Make a folder read-only, for root by a mount, because root ignores permissions."""
    is_root = os.geteuid() == 0
    if is_root:
        mount_tmpfs(folder, "ro")
    else:
        folder.chmod(0o555)
    try:
        yield
    finally:
        if is_root:
            unmount(folder)
        else:
            folder.chmod(0o755)


def test_file_in_place_of_the_results_folder_is_refused(new_project):
    project = new_project()
    results = project.root / "results"
    shutil.rmtree(results)
    results.write_text("in the way")
    check_refusal(project.snakemake(), str(results), "cannot be written to")
    assert results.read_text() == "in the way"


def test_read_only_results_folder_is_refused_before_any_job_runs(new_project):
    project = new_project()
    results = project.root / "results"
    with read_only(results):
        check_refusal(project.snakemake(), str(results), "cannot be written to", "permissions")
        assert {path.name for path in results.iterdir()} <= {"README.md"}


def test_truncated_dataset_is_refused_until_it_is_deleted(built_copy):
    shutil.rmtree(built_copy.results / "runs")
    dataset = built_copy.results / "data" / "digits.nc"
    dataset.write_bytes(dataset.read_bytes()[:5000])
    tables = built_copy.digests("results/tiny/tables")
    figures = built_copy.digests("results/tiny/figures")
    check_refusal(
        built_copy.snakemake(OUTCOMES),
        "results/tiny/data/digits.nc differs from the file that prepare wrote",
        "copied incompletely",
        "delete it",
    )
    assert not list(built_copy.results.glob("runs/**/*.nc*"))
    assert built_copy.digests("results/tiny/tables") == tables
    assert built_copy.digests("results/tiny/figures") == figures
    dataset.unlink()
    built_copy.build(OUTCOMES)


def test_truncated_checkpoints_are_refused_and_equal_the_original_once_recomputed(
    built_copy, tiny_study
):
    checkpoints = built_copy.results / ENSEMBLE / "checkpoints.nc"
    measures = built_copy.root / MEASURES
    measures.unlink()
    content = checkpoints.read_bytes()
    checkpoints.write_bytes(content[: len(content) // 2])
    check_refusal(
        built_copy.snakemake(MEASURES),
        f"results/tiny/{ENSEMBLE}/checkpoints.nc differs from the file that train wrote",
        "delete it",
    )
    assert not measures.exists()
    checkpoints.unlink()
    built_copy.build(MEASURES)
    folder = f"results/tiny/{ENSEMBLE}"
    assert built_copy.digests(folder) == tiny_study.digests(folder)


def test_spectrum_too_large_for_the_exact_method_is_refused_by_its_job(built_copy):
    operators = {"hessian": {"estimate": False, "exact_up_to": 90}}
    built_copy.config(put("curvature.operators", operators))
    sentence = (
        "the exact spectrum of the Hessian on hidden_1 takes a matrix of 520 rows, more than 90: "
        "set curvature.estimate to true"
    )
    process = built_copy.snakemake(MEASURES)
    check_refusal(process, sentence)
    log = f"results/tiny/logs/{ENSEMBLE}/curvature.log"
    assert sentence in (built_copy.root / log).read_text()
    summary = process.stdout.partition(f"failed. {log} ends:\n")[2]
    assert sentence in summary, "the end of the output does not repeat the message"
    assert not (built_copy.root / MEASURES).exists()


# Training without Snakemake


def train_by_hand(project, folder, changed_code=None, **network_options):
    """Train the ensemble into another folder with the command of its rule.

    Args:
        project: a built project.
        folder: where the outcomes and the checkpoints are written.
        changed_code: digests of files, which replace those of the rule.
        network_options: options of the network, which replace those of the study.
    """
    with netCDF4.Dataset(project.root / OUTCOMES) as outcomes:
        settings = json.loads(outcomes.settings)
        code = json.loads(outcomes.code)
    settings["setting"]["network"]["options"] |= network_options
    code |= changed_code or {}
    return project.run(
        "python",
        "workflow/scripts/train.py",
        *("--data", project.results / "data/digits.nc"),
        *("--outcomes", folder / "outcomes.nc"),
        *("--checkpoints", folder / "checkpoints.nc"),
        *("--settings", json.dumps(settings)),
        *("--code", json.dumps(code)),
    )


def test_training_by_hand_writes_the_same_bytes_as_snakemake(tiny_study, tmp_path):
    process = train_by_hand(tiny_study, tmp_path)
    assert process.returncode == 0, process.stdout
    for name in ("outcomes.nc", "checkpoints.nc"):
        expected = (tiny_study.results / ENSEMBLE / name).read_bytes()
        assert (tmp_path / name).read_bytes() == expected, name


@pytest.mark.parametrize(
    "name",
    [
        "workflow/scripts/plasticity/models/architectures/mlp.py",
        "workflow/scripts/plasticity/gone.py",
    ],
)
def test_job_stops_if_its_code_was_edited_after_it_was_planned(tiny_study, tmp_path, name):
    process = train_by_hand(tiny_study, tmp_path, changed_code={name: "0" * 12})
    check_refusal(process, name, "was edited after this job was planned", "start snakemake again")
    assert process.returncode == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
@pytest.mark.parametrize("kilobytes", [4, 16, 128])
def test_full_disk_is_reported_and_no_partial_file_remains(tiny_study, tmp_path, kilobytes):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount_tmpfs(disk, f"size={kilobytes}k")
    try:
        process = train_by_hand(tiny_study, disk, width=64)
        check_refusal(process, str(disk), "could not be written", "free space")
        assert not list(disk.rglob("*.part"))
        assert not (disk / "checkpoints.nc").exists()
    finally:
        unmount(disk)


# Killed and locked studies


def test_resumed_study_equals_uninterrupted_study(resumed_study, tiny_study):
    for folder in ("data", "runs", "datasets"):
        path = f"results/tiny/{folder}"
        assert resumed_study.digests(path) == tiny_study.digests(path), (
            "a file differs, is missing or remains"
        )
    assert resumed_study.plan("datasets") == set()


def test_resumed_run_continues_after_the_last_finished_task(killed_study, resumed_study):
    _, last_tasks = killed_study
    for ensemble, task in last_tasks.items():
        assert 1 <= task <= TASKS
        log = (resumed_study.results / "logs" / ensemble / "train.log").read_text()
        assert f"going on after task {task} of {TASKS}" in log, ensemble


def test_ensemble_that_another_process_trains_is_refused(built_copy, tiny_study):
    outcomes = built_copy.root / OUTCOMES
    outcomes.unlink()
    lock = built_copy.results / ENSEMBLE / "resume" / "lock"
    lock.parent.mkdir()
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("process 1 on another, slurm job 2")
        file.flush()
        message = f"{ENSEMBLE} is being worked on by process 1 on another, slurm job 2: wait"
        check_refusal(built_copy.snakemake(OUTCOMES), message)
        assert not outcomes.exists()
    built_copy.build(OUTCOMES)
    folder = f"results/tiny/{ENSEMBLE}"
    assert built_copy.digests(folder) == tiny_study.digests(folder)


def test_message_for_a_locked_folder_names_the_option_that_unlocks_it(built_copy):
    locks = built_copy.root / ".snakemake" / "locks"
    locks.mkdir(exist_ok=True)
    (locks / "0.output.lock").write_text("results/tiny/report.html\n")
    built_copy.append("workflow/scripts/plasticity/report/figures/scatter.py", "\nADDED = 1\n")
    before = built_copy.digests()
    check_refusal(built_copy.snakemake(), "--unlock")
    assert built_copy.digests() == before


# Shipped configs


def test_shipped_configs_have_a_relative_data_root(project_without_results):
    studies = (project_without_results.root / "studies").glob("*.yaml")
    for path in [project_without_results.root / "config.yaml", *studies]:
        data_root = layers.read_config([path])["data_root"]
        assert not Path(data_root).is_absolute(), path
