"""What a person gets who made a mistake, or had bad luck: one sentence, no traceback, and nothing lost that was computed before."""

import fcntl
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import netCDF4
import pytest
import yaml

RELU = "digits_labels_relu"
SETTING = f"settings.{RELU}"
NONE = f"runs/{RELU}/none/0"


def refused(done, *parts):
    """The one line that says what is wrong, which must hold all parts; with no traceback beside it."""
    assert done.returncode != 0, done.stdout[-3000:]
    assert "Traceback" not in done.stdout, done.stdout[-3000:]
    assert "mistake in the code" not in done.stdout
    assert "unexpected error" not in done.stdout, done.stdout[-3000:]
    lines = [line for line in done.stdout.splitlines() if all(part in line for part in parts)]
    assert lines, f"no line has all of {parts}:\n{done.stdout[-3000:]}"
    return lines[0]


def put(key, value):
    """A change of a config: the value at a dotted key."""

    def change(config):
        *path, last = key.split(".")
        for name in path:
            config = config[name]
        config[last] = value

    return change


MISTAKES = {
    "a misspelt key": (
        put(f"{SETTING}.problem.sampels", 9),
        [f"{SETTING}.problem", "'sampels'", "Did you mean 'samples'?"],
    ),
    "a number that YAML reads as text": (
        put(f"{SETTING}.optimizer.lr", "1e-3"),
        [f"{SETTING}.optimizer.lr", "'1e-3'", "Write 1.0e-03"],
    ),
    "an unknown method": (
        put("methods.l3", {}),
        ["methods", "'l3'", "l2, l2_er, l2_init, last_layer_reset"],
    ),
    "a negative number of seeds": (put("seeds.report", -2), ["seeds.report", "-2", "at least 1"]),
    "no methods": (put("methods", {}), ["methods", "empty", "Name at least one"]),
    "an unknown hyper-parameter": (
        put("methods.l2.strenght", 1),
        ["methods.l2", "'strenght'", "Did you mean 'strength'?"],
    ),
    "a negative strength": (
        put("methods.l2_init.strength", -0.5),
        ["methods.l2_init.strength", "-0.5", "at least 0"],
    ),
    "a step size that is no number": (
        put(f"{SETTING}.optimizer.lr", float("nan")),
        [f"{SETTING}.optimizer.lr"],
    ),
    "an infinite step size": (
        put(f"{SETTING}.optimizer.lr", float("inf")),
        [f"{SETTING}.optimizer.lr"],
    ),
    "a strength that is no number": (
        put("methods.l2_init.strength", float("nan")),
        ["methods.l2_init.strength"],
    ),
    "a batch larger than the samples": (
        put(f"{SETTING}.problem.batch", 257),
        [f"{SETTING}.problem.batch", "257", "256", "Lower batch"],
    ),
    "a misspelt key of training": (
        put("training", {"curve_point": 5}),
        ["training", "'curve_point'", "Did you mean 'curve_points'?"],
    ),
    "an unknown precision": (
        put("training", {"precision": "float16"}),
        ["training.precision", "float16", "Did you mean 'bfloat16'?", "float32, bfloat16"],
    ),
    "a learning curve without points": (
        put("training", {"curve_points": 0}),
        ["training.curve_points", "0", "at least 1"],
    ),
    "checkpoints that are measured but not taken": (
        lambda config: config.update(
            training={"checkpoint_every": 3}, curvature=config["curvature"] | {"every": 2}
        ),
        ["curvature.every is 2", "only every 3 tasks", "training.checkpoint_every", "multiple"],
    ),
    "a misspelt key of an operator": (
        put("curvature.operators", {"fisher": {}, "hessian": {"prboes": 3}}),
        ["curvature.operators.hessian", "'prboes'", "Did you mean 'probes'?"],
    ),
    "an operator on more images than a task has": (
        put("curvature.operators", {"ggn": {"samples": 300}}),
        [
            "curvature.operators.ggn.samples is 300",
            "only 256 samples",
            "Lower curvature.operators.ggn.samples",
        ],
    ),
    "an unknown dataset": (
        put(f"{SETTING}.problem.dataset", "mnits"),
        [f"{SETTING}.problem.dataset", "'mnits'", "Did you mean 'mnist'?"],
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_config_is_said_in_a_sentence_before_anything_runs(copy, built, name):
    change, parts = MISTAKES[name]
    copy.config(change)
    line = refused(copy.snakemake(), "config.yaml: ", *parts)
    assert not re.search(r"<class|NoneType|OrderedDict", line)
    assert copy.contents() == built.contents()


BROKEN = {
    "a syntax error": "study: tiny\nseeds: {report: 2\nmethods: [\n",
    "an empty file": "",
    "only comments": "# nothing yet\n",
    "a list": "- study\n- seeds\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_config_that_is_none_is_said_in_a_sentence(copy, built, name):
    (copy.root / "config.yaml").write_text(BROKEN[name])
    refused(copy.snakemake(), "Config file")
    assert copy.contents() == built.contents()


def test_a_study_that_lacks_its_settings_is_refused_and_not_mixed_with_the_default_one(copy, built):
    (copy.root / "part.yaml").write_text("study: tiny\nseeds: {report: 1}\n")
    refused(copy.snakemake("--configfile", "part.yaml"), "part.yaml: ", "'settings'", "Add them")
    assert copy.contents() == built.contents()


def test_more_images_than_the_dataset_has_are_refused_by_name_and_number(copy):
    copy.config(put(f"{SETTING}.problem.samples", 1798))
    refused(
        copy.snakemake(f"results/tiny/{NONE}/outcomes.nc"), "samples", "1798", "1797", "lower it"
    )


# Data


def mnist(project, root, *options):
    """Prepare MNIST from a data root."""
    return project.snakemake(
        "data", "--configfile", "studies/mnist.yaml", *options, env={"PLASTICITY_DATA": str(root)}
    )


def nothing_new(project):
    """No result of the MNIST study, whole or in part."""
    return not [
        path
        for path in (project.root / "results" / "mnist").rglob("*")
        if path.suffix in {".nc", ".part"}
    ]


def test_a_data_root_that_is_not_there_is_named(unbuilt, tmp_path):
    refused(
        mnist(unbuilt, tmp_path / "away"),
        str(tmp_path / "away"),
        "data_root",
        "PLASTICITY_DATA",
        "train-images-idx3-ubyte.gz",
    )
    assert nothing_new(unbuilt)


def test_without_files_and_network_it_is_said_which_files_to_put_where(unbuilt, tmp_path):
    refused(
        mnist(unbuilt, tmp_path),
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        str(tmp_path / "MNIST/raw"),
    )
    assert nothing_new(unbuilt)
    assert not list(tmp_path.rglob("*.gz"))


def test_altered_files_of_mnist_are_refused_by_name(unbuilt, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
        (raw / name).write_bytes(b"\x1f\x8b" + bytes(100))
    refused(
        mnist(unbuilt, tmp_path),
        str(raw / "train-images-idx3-ubyte.gz"),
        "truncated or altered",
        "replace it",
    )
    assert nothing_new(unbuilt)
    assert len(list(raw.iterdir())) == 2


@pytest.mark.data
@pytest.mark.parametrize("harm", ["truncated", "altered"])
def test_a_real_file_of_mnist_with_a_flaw_is_refused(unbuilt, tmp_path, harm):
    given = Path(os.environ.get("PLASTICITY_DATA", "")) / "MNIST" / "raw"
    if "PLASTICITY_DATA" not in os.environ or not (given / "train-labels-idx1-ubyte.gz").exists():
        pytest.skip("PLASTICITY_DATA does not name a folder with MNIST/raw/*.gz")
    raw = tmp_path / "MNIST" / "raw"
    shutil.copytree(given, raw, copy_function=shutil.copyfile)
    labels = bytearray((raw / "train-labels-idx1-ubyte.gz").read_bytes())
    if harm == "truncated":
        del labels[-1:]
    else:
        labels[len(labels) // 2] ^= 1
    (raw / "train-labels-idx1-ubyte.gz").write_bytes(labels)
    refused(
        mnist(unbuilt, tmp_path), str(raw / "train-labels-idx1-ubyte.gz"), "truncated or altered"
    )
    assert nothing_new(unbuilt)


# Results that are broken, or cannot be written


def test_a_file_where_the_results_go_is_named(clone):
    project = clone()
    shutil.rmtree(project.root / "results")
    (project.root / "results").write_text("in the way")
    refused(project.snakemake(), str(project.root / "results"), "cannot be written to")
    assert (project.root / "results").read_text() == "in the way"


def test_results_that_may_not_be_written_are_named_before_anything_runs(clone):
    project = clone()
    results = project.root / "results"
    if os.geteuid():
        results.chmod(0o555)
    elif subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", results], capture_output=True, check=False
    ).returncode:
        pytest.skip("root may write anywhere, and has no right to mount")
    try:
        refused(project.snakemake(), str(results), "cannot be written to", "permissions")
        assert not [path for path in results.iterdir() if path.name != "README.md"]
    finally:
        if os.geteuid():
            results.chmod(0o755)
        else:
            subprocess.run(["umount", results], check=True)


def test_a_damaged_dataset_is_named_with_what_to_do(copy):
    shutil.rmtree(copy.results / "runs")
    data = copy.results / "data" / "digits.nc"
    data.write_bytes(data.read_bytes()[:5000])
    kept = copy.contents("results/tiny/tables") | copy.contents("results/tiny/figures")
    refused(
        copy.snakemake(f"results/tiny/{NONE}/outcomes.nc"),
        "results/tiny/data/digits.nc differs from the file that prepare wrote",
        "copied incompletely",
        "delete it",
    )
    assert not list(copy.results.glob("runs/**/*.nc*"))
    assert copy.contents("results/tiny/tables") | copy.contents("results/tiny/figures") == kept
    data.unlink()
    copy.build(f"results/tiny/{NONE}/outcomes.nc")


def test_truncated_checkpoints_are_named_with_what_to_do_and_come_back_as_they_were(copy, built):
    ensemble = copy.results / NONE
    checkpoints = ensemble / "checkpoints.nc"
    (ensemble / "measures.nc").unlink()
    whole = checkpoints.read_bytes()
    checkpoints.write_bytes(whole[: len(whole) // 2])
    refused(
        copy.snakemake(f"results/tiny/{NONE}/measures.nc"),
        f"results/tiny/{NONE}/checkpoints.nc differs from the file that train wrote",
        "delete it",
    )
    assert not (ensemble / "measures.nc").exists()
    checkpoints.unlink()
    copy.build(f"results/tiny/{NONE}/measures.nc")
    assert copy.contents(f"results/tiny/{NONE}") == built.contents(f"results/tiny/{NONE}")


def test_a_spectrum_that_is_too_large_and_may_not_be_estimated_is_said_in_a_sentence_by_its_job(
    copy,
):
    copy.config(
        lambda config: config["curvature"].update(
            operators={"hessian": {"estimate": False, "exact_up_to": 90}}
        )
    )
    sentence = "the exact spectrum of the Hessian on hidden_1 takes a matrix of 520 rows, more than 90: set curvature.estimate to true"
    done = copy.snakemake(f"results/tiny/{NONE}/measures.nc")
    refused(done, sentence)
    log = f"results/tiny/logs/{NONE}/curvature.log"
    assert sentence in (copy.root / log).read_text()
    again = done.stdout.partition(f"failed. {log} ends:\n")[2]
    assert sentence in again, "at the end, where it is not overlooked, it is said once more"
    assert not (copy.results / NONE / "measures.nc").exists()


# Training by hand


def by_hand(project, folder, code=None, **network):
    """Train the ensemble of `NONE` into another folder, as its rule would."""
    with netCDF4.Dataset(project.results / NONE / "outcomes.nc") as outcomes:
        settings, digest = json.loads(outcomes.settings), json.loads(outcomes.code)
    settings["setting"]["network"]["options"] |= network
    given = {
        "--data": project.results / "data/digits.nc",
        "--outcomes": folder / "outcomes.nc",
        "--checkpoints": folder / "checkpoints.nc",
    }
    given |= {"--settings": json.dumps(settings), "--code": json.dumps(digest | (code or {}))}
    return project.run(
        "python", "workflow/scripts/train.py", *(word for pair in given.items() for word in pair)
    )


def test_an_entry_can_be_started_by_hand_and_makes_the_same_bytes(built, tmp_path):
    done = by_hand(built, tmp_path)
    assert done.returncode == 0, done.stdout
    for name in ("outcomes.nc", "checkpoints.nc"):
        assert (tmp_path / name).read_bytes() == (built.results / NONE / name).read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "workflow/scripts/plasticity/models/architectures/mlp.py",
        "workflow/scripts/plasticity/gone.py",
    ],
)
def test_a_job_whose_code_was_edited_while_it_was_queued_says_so_and_stops(built, tmp_path, name):
    done = by_hand(built, tmp_path, code={name: "0" * 12})
    refused(done, name, "was edited after this job was planned", "start snakemake again")
    assert done.returncode == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
@pytest.mark.parametrize("kilobytes", [4, 16, 128])
def test_a_full_disk_is_said_in_a_sentence_and_leaves_no_half_file(built, tmp_path, kilobytes):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", disk],
        capture_output=True,
        check=False,
    ).returncode:
        pytest.skip("no right to mount")
    try:
        refused(by_hand(built, disk, width=64), str(disk), "could not be written", "free space")
        assert not list(disk.rglob("*.part"))
        assert not (disk / "checkpoints.nc").exists()
    finally:
        subprocess.run(["umount", disk], check=True)


# Killed


def test_a_study_that_was_killed_is_taken_up_again_and_ends_as_if_it_had_not_been(again, built):
    """No .part file and nothing to resume is left, nothing is missing, and nothing is left to do."""
    folders = ("data", "runs", "datasets")
    assert all(
        again.contents(f"results/tiny/{folder}") == built.contents(f"results/tiny/{folder}")
        for folder in folders
    )
    assert again.plan("datasets") == set()


def test_a_ensemble_that_was_killed_goes_on_after_the_last_task_that_it_finished(killed, again):
    _, left = killed
    for ensemble, task in left.items():
        assert 1 <= task <= 5
        assert (
            f"going on after task {task} of 5"
            in (again.results / "logs" / ensemble / "train.log").read_text()
        ), ensemble


def test_a_ensemble_that_another_process_trains_is_left_to_it_and_said_in_a_sentence(copy, built):
    outcomes, lock = copy.results / NONE / "outcomes.nc", copy.results / NONE / "resume" / "lock"
    outcomes.unlink()
    lock.parent.mkdir()
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("process 1 on another, slurm job 2")
        file.flush()
        refused(
            copy.snakemake(str(outcomes.relative_to(copy.root))),
            f"{NONE} is being worked on by process 1 on another, slurm job 2: wait",
        )
        assert not outcomes.exists()
    copy.build(str(outcomes.relative_to(copy.root)))
    assert copy.contents(f"results/tiny/{NONE}") == built.contents(f"results/tiny/{NONE}")


def test_after_a_kill_it_is_said_that_the_folder_is_locked_and_how_to_unlock_it(copy):
    locks = copy.root / ".snakemake" / "locks"
    locks.mkdir(exist_ok=True)
    (locks / "0.output.lock").write_text("results/tiny/report.html\n")
    copy.append("workflow/scripts/plasticity/report/figures/scatter.py", "\nADDED = 1\n")
    before = copy.contents()
    refused(copy.snakemake(), "--unlock")
    assert copy.contents() == before


def test_shipped_configs_name_no_folder_of_this_machine(unbuilt):
    for path in [unbuilt.root / "config.yaml", *(unbuilt.root / "studies").glob("*.yaml")]:
        assert not Path(yaml.safe_load(path.read_text())["data_root"]).is_absolute(), path
