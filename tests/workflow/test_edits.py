"""What runs again after an edit, exactly; why; and that nothing is hidden from Snakemake: modules, copies, edits under running jobs."""

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from edits import EDITS, LIBRARY, METHODS, OF_L2, RELU, SEEDS, adopt, edit, page
from tiers import slow_except

from plasticity.config.models import (
    Criterion,
    Curvature,
    Network,
    Problem,
    Spectra,
    Statistics,
    Training,
)
from plasticity.config.schema import StudyConfig
from plasticity.provenance import audit

ROOT = Path(__file__).resolve().parents[2]
OPTIONAL = {"options", "kind"}


# one of each kind: no meaning, code of each stage, packages, each section of the config, results
QUICK = [
    "Edits without meaning: a comment in every module and every file of rules",
    "Edits without meaning: all files touched, including results",
    "Edits without meaning: config keys in reverse order",
    "Code: a new method that is not used",
    "Code: a method that is used",
    "Code: the dataset",
    "Code: the operator",
    "Code: a check",
    "Code: one figure",
    "Code: the style",
    "Packages: a newer scipy",
    "Config: settings, methods and seeds: another seeds_per_job",
    "Config: settings, methods and seeds: a tuning seed",
    "Config: settings, methods and seeds: one more method",
    "Config: one setting: epochs and tasks swapped",
    "Config: training, curvature and statistics: fewer blocks",
    "Config: training, curvature and statistics: a hypothesis",
    "Results: deleted checkpoints, then another operator",
    "Results: all results copied into another clone and adopted",
]


@pytest.mark.parametrize("name", slow_except(QUICK, EDITS))
def test_an_edit_runs_again_just_what_it_concerns(copy, name):
    EDITS[name].change(copy)
    assert copy.plan() == EDITS[name].jobs


def test_the_page_is_drawn_from_these_edits():
    assert (ROOT / "docs/development/incremental.md").read_text() == page()


def flat(values, at=""):
    """Dotted keys and values of nested mappings."""
    if not isinstance(values, dict) or not values:
        return {at: values}
    return {
        key: value
        for name, inner in values.items()
        for key, value in flat(inner, f"{at}.{name}" if at else name).items()
    }


class Paper:
    """A project that is only its config: what do edits change of it?"""

    def __init__(self):
        self.values = yaml.safe_load((ROOT / "tests/workflow/study.yaml").read_text())

    def config(self, change):
        change(self.values)


def test_every_key_of_a_config_is_edited_by_one_of_them():
    touched = set()
    for one in EDITS.values():
        paper = Paper()
        before = flat(paper.values)
        try:
            one.change(paper)
        except (AttributeError, AssertionError):  # an edit of files
            continue
        after = flat(paper.values)
        touched |= {key for key in {*before, *after} if before.get(key) != after.get(key)}
    last = {key.rsplit(".", 1)[-1] for key in touched}
    known = {
        field.name
        for kind in (Problem, Network, Spectra, Curvature, Training, Criterion, Statistics)
        for field in fields(kind)
    } | set(StudyConfig.model_fields)
    sections = {key.split(".")[0] for key in touched}
    assert known - last - sections - OPTIONAL == set()


def test_what_jobs_import_is_what_their_digests_name(built, imports):
    """Over the whole tiny study: no job has loaded a module of the library that its param `code` does not have."""
    seen = imports()
    entries = {Path(entry).stem for entry, _ in seen}
    assert {
        "prepare",
        "train",
        "curvature",
        "gather",
        "analyse",
        "typeset",
        "page",
        "draw",
        "report",
    } <= entries
    assert {entry: missing for entry, missing in seen if missing} == {}


# Why


def test_each_job_is_named_with_what_changed_and_what_it_took(copy):
    edit(f"{LIBRARY}/training/methods/l2.py")(copy)
    copy.config(lambda config: config["curvature"].update(samples=64))
    copy.append("workflow/style.yaml", "\n# a word\n")
    before = copy.contents()
    done = copy.run("python", "workflow/scripts/why.py")
    assert done.returncode == 0, done.stdout
    *lines, last = done.stdout.splitlines()
    assert {re.sub(r" {2,}.*", "", line) for line in lines} == copy.plan() - {"all"}
    said = {re.sub(r" {2,}.*", "", line): line for line in lines}
    assert said[f"train_ensemble {RELU}/l2/0"].endswith(f"{LIBRARY}/training/methods/l2.py changed")
    assert "curvature.operators" not in said[f"measure_ensemble {RELU}/none/1"]
    assert said[f"measure_ensemble {RELU}/none/1"].endswith("operators.fisher.samples: 32 → 64")
    assert "curvature.operators.fisher.samples: 32 → 64" in said[f"gather {RELU}"]
    assert said["typeset"].endswith(
        "after analyse, gather digits_labels_relu, gather digits_labels_tanh"
    )
    assert said["analyse"].endswith(f"after gather {RELU}, gather digits_labels_tanh")
    assert all(re.search(r"  +\d+ s  ", line) for line in lines)
    assert re.fullmatch(
        rf"{len(lines)} jobs, about \d+\.\d minutes of one core, as they took the last time", last
    )
    assert copy.contents() == before


def test_what_is_new_or_missing_is_said_and_nothing_where_nothing_would_run(copy, unbuilt):
    assert copy.run("python", "workflow/scripts/why.py").stdout.startswith("Nothing would run")
    (copy.results / "figures/scatter.pdf").unlink()
    done = copy.run("python", "workflow/scripts/why.py", "figures")
    assert re.match(r"figure_scatter +\d+ s  scatter\.pdf is missing\n1 jobs, ", done.stdout), (
        done.stdout
    )
    done = unbuilt.run("python", "workflow/scripts/why.py", "train")
    assert re.search(
        rf"^train_ensemble {RELU}/l2/0 +new  outcomes\.nc is missing$", done.stdout, re.MULTILINE
    )
    assert done.stdout.endswith("none of which ran before\n")


def test_a_mistake_in_the_config_is_said_by_why_and_audit_too(copy):
    copy.config(lambda config: config.update(seed=1))
    for entry in ("why", "audit"):
        done = copy.run("python", f"workflow/scripts/{entry}.py")
        assert done.returncode == 1
        assert "'seed'" in done.stdout
        assert "Traceback" not in done.stdout


# Copies


def test_results_without_snakemakes_records_are_refused_until_they_are_adopted(copy):
    shutil.rmtree(copy.root / ".snakemake")
    before = copy.contents()
    for options in ((), ("--dry-run",)):
        done = copy.snakemake(*options)
        assert done.returncode == 1
        assert re.search(
            r"results, such as results/tiny/data/digits\.nc, came without .* make audit ARGS=--adopt",
            done.stdout,
        )
    done = copy.run("python", "workflow/scripts/audit.py")
    assert done.returncode == 0, done.stdout
    assert re.fullmatch(r"(\d+) results, of which \1 fit this config and this code\n", done.stdout)
    adopt(copy)
    assert copy.contents() == before
    assert copy.plan() == set()


@pytest.mark.slow
def test_what_does_not_fit_is_laid_aside_and_made_anew_to_the_same_bytes(copy, built):
    folder = copy.results / "runs" / RELU / "none" / "0"
    os.truncate(folder / "checkpoints.nc", 5000)  # copied by half
    (
        copy.results / "provenance/tables/prediction.csv.json"
    ).unlink()  # of an older version, which had no records
    shutil.copy(
        copy.results / "figures/scatter.png", copy.results / "figures/timing.png"
    )  # not what was made
    adopted = copy.root / "said"
    shutil.rmtree(copy.root / ".snakemake")
    done = copy.run("python", "workflow/scripts/audit.py", "--adopt")
    assert done.returncode == 0, done.stdout
    assert re.search(
        rf"{RELU}/none/0/checkpoints\.nc: its checksum differs from its record",
        done.stdout,
    )
    assert re.search(
        rf"{RELU}/none/0/measures\.nc: its input runs/{RELU}/none/0/checkpoints\.nc has changed",
        done.stdout,
    )
    assert re.search(r"tables/prediction\.csv: has no provenance record", done.stdout)
    assert re.search(r"figures/timing\.png: its checksum differs from its record", done.stdout)
    aside = copy.results / "aside"
    assert (aside / "runs" / RELU / "none" / "0" / "checkpoints.nc").stat().st_size == 5000
    assert not adopted.exists()
    assert "datasets/" not in done.stdout
    assert re.search(
        r"^\d+ results, of which \d+ fit this .*, and \d+ with inputs that do not$",
        done.stdout,
        re.MULTILINE,
    )
    assert [path.name for path in sorted((aside / "datasets").iterdir())] == [
        f"{RELU}.nc",
        f"{RELU}.nc.json",
    ]
    copy.build()
    assert copy.plan() == set()
    shutil.rmtree(aside)
    assert copy.lasting() == built.lasting()


def test_what_a_cluster_finished_though_no_launcher_saw_it_is_taken_back(copy, built):
    folder = f"results/tiny/runs/{RELU}/none/0"
    results = [f"{folder}/{name}.nc" for name in ("outcomes", "checkpoints")]
    (copy.root / results[0]).unlink()
    copy.build(results[0], env={"SLURM_JOB_ID": "7"})
    assert (copy.root / folder / "kept").exists()
    for path in results:  # as a node leaves it whose launcher is dead
        (copy.root / ".snakemake/metadata" / audit._key(Path(path))).unlink()
    done = copy.snakemake("--dry-run")
    assert "rerun-incomplete" in done.stdout
    assert "Traceback" not in done.stdout
    assert f"train_ensemble {RELU}/none/0" in copy.plan("--rerun-incomplete")
    copy.build("--rerun-incomplete", "datasets")
    assert (
        "restored from"
        in (copy.root / f"results/tiny/logs/runs/{RELU}/none/0/train.log").read_text()
    )
    assert copy.plan("datasets") == set()
    shutil.rmtree(copy.root / folder / "kept")
    assert copy.lasting() == built.lasting()


# Edits under running jobs


@pytest.mark.slow
def test_an_edit_while_jobs_run_spoils_none_and_the_next_start_runs_just_what_it_concerns(clone):
    project = clone()
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--keep-going", "train"]
    with (project.root / "said").open("w") as out:
        running = subprocess.Popen(
            command, cwd=project.root, env=project.env, stdout=out, stderr=out
        )
        limit = time.monotonic() + 120
        while not any(project.results.glob("runs/*/*/*/resume")):
            assert running.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.01)
        edit(f"{LIBRARY}/training/methods/l2.py")(project)
        running.wait(timeout=300)
    said = (project.root / "said").read_text()
    trained = {f"train_ensemble {RELU}/l2/{seed}" for seed in SEEDS}
    refused = set(re.findall(rf"^train_ensemble {RELU} l2 \d failed", said, re.MULTILINE))
    assert 1 <= len(refused) <= 2, said[
        -3000:
    ]  # the first job may have been one of them, and runs on with the code that it has
    assert f"{LIBRARY}/training/methods/l2.py was edited after this job was planned" in said
    assert running.returncode == 1
    assert project.plan("train") == trained | {"train"}
    assert trained <= OF_L2
    assert len(list(project.results.glob("runs/*/*/*/outcomes.nc"))) == len(SEEDS) * sum(
        map(len, METHODS.values())
    ) - len(refused)
