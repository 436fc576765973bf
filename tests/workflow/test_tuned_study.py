"""Tuned arms, with real runs: stages and files, what a criterion retrains, and that nobody is tuned on the seeds that report."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from plasticity.storage import netcdf

SETTING = "digits_labels_relu"
TUNED = f"{SETTING}/l2_init"
STRENGTHS = [0.001, 0.1]
RESULTS = ("outcomes.nc", "checkpoints.nc", "measures.nc")


def tuning(config):
    """The tiny study with one setting, and a method of two arms to choose from."""
    config["study"] = "tuned"
    config["seeds"] = {"tune": 2, "report": 2}
    del config["settings"]["digits_labels_tanh"]
    config["settings"][SETTING]["problem"]["tasks"] = 3
    config["methods"] = {"none": {}, "l2_init": {"strength": STRENGTHS}}


@pytest.fixture(scope="module")
def tuned_study(study):
    """The tuned study, from nothing to its tables: to look at, not to change."""
    return study("tuned", tuning, "tables")


@pytest.fixture
def changing(tuned_study, tmp_path):
    """The same in another folder, to be changed, with its hard links."""
    subprocess.run(["cp", "-a", tuned_study.root, tmp_path / "copy"], check=True)
    yield replace(tuned_study, root=tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy", ignore_errors=True)


def results(project):
    return project.root / "results" / "tuned"


def choice(project):
    return json.loads((results(project) / "tuning" / TUNED / "choice.json").read_text())


def by(outcome, stage="all"):
    return lambda config: config.update(tuning={"outcome": outcome, "stage": stage})


def inodes(project, pattern):
    """Which files lie where: a file that was made anew is another one."""
    return {
        str(path.relative_to(results(project))): path.stat().st_ino
        for path in results(project).glob(pattern)
    }


def log(project, seed, stage="train"):
    return (results(project) / "logs" / "runs" / TUNED / seed / f"{stage}.log").read_text()


def computed(project, stage="train"):
    """The seeds for which the last job of the tuned method computed something; for the others it took back what was made before."""
    said = {seed: log(project, seed, stage) for seed in ("0", "1")}
    taken = {
        seed
        for seed, text in said.items()
        if "restored from" in text and "nothing is computed" in text
    }
    assert not any(": 3 of 3, " in said[seed] for seed in taken)
    assert all(": 3 of 3, " in said[seed] for seed in set(said) - taken)
    return set(said) - taken


def prefer(project, outcome, place):
    """Alter an outcome in the files of the tuning seeds so that one arm has least of it."""
    for seed in ("1000", "1001"):
        path = results(project) / "tuning" / TUNED / seed / "outcomes.nc"
        data = netcdf.read(path)
        data[outcome].values[...] = 1
        data[outcome].values[place] = 0
        netcdf.write(data, path)
        (results(project) / "provenance/tuning" / TUNED / seed / "outcomes.nc.json").unlink(
            missing_ok=True
        )  # else it is refused for its checksum


def test_a_tuned_study_leaves_the_files_of_its_stages(tuned_study):
    files = {
        str(path.relative_to(results(tuned_study)))
        for path in results(tuned_study).rglob("*.*")
        if path.is_file()
    }
    made = {
        name
        for name in files
        if name.partition("/")[0] in {"tuning", "runs"} and "/kept/" not in name
    }
    ensembles = [
        f"runs/{SETTING}/{method}/{seed}"
        for method in ("none", "l2_init", "fresh")
        for seed in (0, 1)
    ]
    assert made == {
        *(f"tuning/{TUNED}/{seed}/outcomes.nc" for seed in (1000, 1001)),
        f"tuning/{TUNED}/choice.json",
        *(f"{ensemble}/{name}" for ensemble in ensembles for name in RESULTS),
    }
    assert {name.partition("/kept/")[0] for name in files if "/kept/" in name} == {
        f"runs/{TUNED}/{seed}" for seed in (0, 1)
    }
    assert {
        "tables/tuning.csv",
        f"logs/tuning/{TUNED}/1000/tune.log",
        f"logs/tuning/{TUNED}/choose.log",
    } <= files
    assert '<section id="tuning">' in (results(tuned_study) / "tables/methods.html").read_text()
    assert tuned_study.plan("tables") == set()


def test_all_arms_are_trained_on_tuning_seeds_and_the_chosen_one_alone_reports(tuned_study):
    for seed in (1000, 1001):
        with xr.open_dataset(
            results(tuned_study) / "tuning" / TUNED / str(seed) / "outcomes.nc"
        ) as data:
            assert list(data.arm.values) == [
                f"l2_init(strength={strength})" for strength in STRENGTHS
            ]
            assert list(data.seed.values) == [seed]
    with xr.open_dataset(results(tuned_study) / "datasets" / f"{SETTING}.nc") as data:
        assert (
            list(data.arm.values)
            == json.loads(data.settings)["arms"]
            == ["none", "l2_init", "fresh"]
        )
        assert list(data.seed.values) == [0, 1]
    for seed in ("0", "1"):
        for name in ("outcomes.nc", "checkpoints.nc"):
            with xr.open_dataset(results(tuned_study) / "runs" / TUNED / seed / name) as data:
                assert list(data.arm.values) == ["l2_init"]
                assert json.loads(data.settings)["arms"] == [choice(tuned_study)["arm"]]


def test_the_choice_is_the_least_mean_over_the_tuning_seeds_and_the_table_says_so(tuned_study):
    errors = [
        netcdf.read(results(tuned_study) / "tuning" / TUNED / seed / "outcomes.nc").final_error
        for seed in ("1000", "1001")
    ]
    scores = np.mean([error.astype(float).mean("task").values[:, 0] for error in errors], axis=0)
    assert choice(tuned_study)["arm"] == {"strength": STRENGTHS[int(scores.argmin())]}
    table = pd.read_csv(results(tuned_study) / "tables" / "tuning.csv")
    assert len(table) == 2 * 3 * 3
    criterion = table[table["criterion"]]
    assert set(zip(criterion["outcome"], criterion["stage"], strict=True)) == {
        ("final_error", "all")
    }
    np.testing.assert_allclose(criterion["mean"], scores, rtol=1e-5)
    assert list(criterion["chosen"]) == [
        strength == choice(tuned_study)["arm"]["strength"] for strength in STRENGTHS
    ]


@pytest.mark.slow
def test_reporting_members_are_those_of_a_study_of_that_arm_alone(changing):
    def alone(config):
        config["study"], config["seeds"]["tune"] = "alone", 0
        config["methods"]["l2_init"] = choice(changing)["arm"]

    changing.config(alone)
    paths = [
        f"runs/{TUNED}/{name}"
        for name in ("0/outcomes.nc", "1/outcomes.nc", "1/checkpoints.nc", "1/measures.nc")
    ]
    changing.build(*(f"results/alone/{path}" for path in paths))
    for path in paths:
        one, other = (
            xr.load_dataset(changing.root / "results" / study / path)
            for study in ("tuned", "alone")
        )
        assert list(other.arm.values) == [
            f"l2_init(strength={choice(changing)['arm']['strength']:g})"
        ]
        assert one.identical(other.assign_coords(arm=one.arm).assign_attrs(inputs=one.inputs)), (
            path
        )  # an arm's name is in checkpoints


def test_members_on_tuning_seeds_are_none_that_report(tuned_study):
    tuned_on, reported = (
        np.concatenate(
            [
                netcdf.read(
                    results(tuned_study) / path / TUNED / seed / "outcomes.nc"
                ).final_loss.values.ravel()
                for seed in seeds
            ]
        )
        for path, seeds in (("tuning", ("1000", "1001")), ("runs", ("0", "1")))
    )
    assert len(np.unique(tuned_on)) == 2 * 2 * 3
    assert not np.isin(tuned_on, reported).any()


@pytest.mark.slow
def test_a_criterion_retrains_nothing_but_an_arm_that_was_not_chosen_before(changing):
    first = choice(changing)["arm"]
    before, others = (
        inodes(changing, f"runs/{TUNED}/*/*.nc"),
        inodes(changing, f"runs/{SETTING}/[nf]*/*/*.nc"),
    )
    prefer(changing, "final_loss", STRENGTHS.index(first["strength"]))
    prefer(changing, "online_error", 1 - STRENGTHS.index(first["strength"]))
    kept = changing.contents(f"results/tuned/runs/{TUNED}")

    # another criterion that chooses the same arm
    changing.config(by("final_loss"))
    planned = changing.plan("train")
    assert planned == {
        f"choose_arm {TUNED}",
        *(f"train_ensemble {TUNED}/{seed}" for seed in (0, 1)),
        "train",
    }
    changing.build("curvature")
    assert (choice(changing)["arm"], choice(changing)["criterion"]["outcome"]) == (
        first,
        "final_loss",
    )
    assert computed(changing) == computed(changing, "curvature") == set()
    assert inodes(changing, f"runs/{TUNED}/*/*.nc") == before
    assert changing.contents(f"results/tuned/runs/{TUNED}") == kept
    assert changing.plan("curvature") == set()

    # one that chooses the other arm
    changing.config(by("online_error"))
    changing.build("curvature")
    assert choice(changing)["arm"] != first
    assert computed(changing) == computed(changing, "curvature") == {"0", "1"}
    for seed in ("0", "1"):
        with xr.open_dataset(results(changing) / "runs" / TUNED / seed / "outcomes.nc") as data:
            assert json.loads(data.settings)["arms"] == [choice(changing)["arm"]]
    assert inodes(changing, f"runs/{SETTING}/[nf]*/*/*.nc") == others
    assert changing.plan("curvature") == set()

    # back to the first, of which a file was altered meanwhile
    kept_there = results(changing).glob(f"runs/{TUNED}/0/kept/train/*/outcomes.nc")
    (altered,) = (
        path for path in kept_there if path.stat().st_ino == before[f"runs/{TUNED}/0/outcomes.nc"]
    )
    content = bytearray(altered.read_bytes())
    content[-1] ^= 1
    altered.write_bytes(content)
    changing.config(lambda config: config.pop("tuning"))
    changing.build("curvature")
    assert choice(changing)["arm"] == first
    assert computed(changing) == {"0"}
    assert re.search(r"WARNING .*outcomes\.nc was altered", log(changing, "0"))
    assert computed(changing, "curvature") == set(), "the same checkpoints were made once more"
    after = inodes(changing, f"runs/{TUNED}/*/*.nc")
    assert {name for name in before if after[name] != before[name]} == {
        f"runs/{TUNED}/0/{name}" for name in ("outcomes.nc", "checkpoints.nc")
    }
    made = changing.contents(f"results/tuned/runs/{TUNED}")
    assert all(made[name] == digest for name, digest in kept.items() if "/kept/" not in name)
    assert changing.plan("curvature") == set()


def test_one_more_tuning_seed_trains_itself_alone(changing):
    prefer(changing, "final_loss", STRENGTHS.index(choice(changing)["arm"]["strength"]))
    changing.config(by("final_loss"))
    changing.config(lambda config: config["seeds"].update(tune=3))
    before = inodes(changing, "[rt]un*/**/*.nc")
    assert changing.plan("tune") == {f"tune_ensemble {TUNED}/1002", f"choose_arm {TUNED}", "tune"}
    changing.build("train")
    assert choice(changing)["seeds"] == [1000, 1001, 1002]
    assert computed(changing) == set()
    assert {
        name: inode
        for name, inode in inodes(changing, "[rt]un*/**/*.nc").items()
        if before.get(name) != inode
    }.keys() == {f"tuning/{TUNED}/1002/outcomes.nc"}


def test_one_more_reporting_seed_tunes_nothing(changing):
    changing.config(lambda config: config["seeds"].update(report=3))
    assert changing.plan("train") == {
        f"train_ensemble {SETTING}/{method}/2" for method in ("none", "l2_init", "fresh")
    } | {"train"}


@pytest.mark.slow
def test_a_tuning_job_that_was_killed_goes_on(changing):
    changing.config(lambda config: config["settings"][SETTING]["problem"].update(tasks=600))
    path = results(changing) / "tuning" / TUNED / "1000"
    job = [
        "python",
        "-m",
        "snakemake",
        "--cores",
        "1",
        "--rerun-incomplete",
        str((path / "outcomes.nc").relative_to(changing.root)),
    ]
    running = subprocess.Popen(
        job,
        cwd=changing.root,
        env=changing.unforked.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    limit = time.monotonic() + 120
    while not (path / "resume" / "state_0.npz").exists():
        assert running.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    changing.build("--unlock")
    changing.build(*job[3:])
    said = (results(changing) / "logs" / "tuning" / TUNED / "1000" / "tune.log").read_text()
    assert re.search(r"going on after task [1-9]\d* of 600", said)
    assert netcdf.read(path / "outcomes.nc").final_error.notnull().all()
    assert [file.name for file in path.iterdir()] == ["outcomes.nc"], (
        "no checkpoints, and the resume folder is gone"
    )


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (
            by("final_eror"),
            [
                "tuning.outcome",
                "Did you mean 'final_error'?",
                "final_error, online_error, final_loss, test_error",
            ],
        ),
        (
            by("final_error", "last"),
            ["tuning.stage", "Did you mean 'late'? Known: all, early, late"],
        ),
        (
            by("test_error"),
            ["tuning.outcome is test_error", f"settings.{SETTING}.problem has no test_samples"],
        ),
    ],
)
def test_a_wrong_criterion_is_refused_in_a_sentence(changing, change, parts):
    changing.config(change)
    done = changing.snakemake("--dry-run")
    assert done.returncode != 0
    assert "Traceback" not in done.stdout
    assert any(
        all(part in line for part in ["config.yaml: ", *parts]) for line in done.stdout.splitlines()
    ), done.stdout


def test_where_every_arm_diverged_it_is_said_in_a_sentence_and_nothing_reports(changing):
    changing.config(lambda config: config["methods"]["l2_init"].update(strength=[1.0e38, 1.0e39]))
    done = changing.snakemake("train")
    assert done.returncode != 0
    assert (
        f"every arm of l2_init diverged on some tuning seed of {SETTING}, so none can be chosen"
        in done.stdout
    )
    assert "Traceback" not in done.stdout


@pytest.mark.slow
def test_the_cost_of_a_study_counts_its_tuning(changing):
    done = changing.snakemake("cost")
    assert done.returncode == 0, done.stdout
    rows = {
        method: re.search(rf"^{SETTING} +{method} +(\d+) +(\d+) ", done.stdout, re.MULTILINE)
        for method in ("l2_init", "l2_init tuning")
    }
    assert {method: tuple(map(int, found.groups())) for method, found in rows.items()} == {
        "l2_init": (2, 2),
        "l2_init tuning": (2, 4),
    }


def test_the_cluster_profile_asks_for_a_gpu_to_tune(changing):
    changing.config(lambda config: config["seeds"].update(tune=3))
    done = changing.snakemake("--dry-run", "--profile", "slurm", "tune")
    assert done.returncode == 0, done.stdout
    assert re.search(
        r"^rule tune_ensemble:\n(?: {4}.*\n)*? {4}resources: .*gres='?gpu:1",
        done.stdout,
        re.MULTILINE,
    ), done.stdout
