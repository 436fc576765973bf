"""Edits rerun exactly the jobs that depend on them, and commands explain and audit the results."""

import os
import re
import shutil
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from edits import EDITS, ENSEMBLES, L2_CHANGED, LIBRARY, RELU, SEEDS, TANH, add_code, adopt, page
from projects import ROOT, STUDY, wait_for
from tiers import slow_except

from plasticity.config import models
from plasticity.config.schema import StudyConfig
from plasticity.provenance import audit

L2_METHOD = f"{LIBRARY}/training/methods/l2.py"
CONFIG_SECTIONS = (
    models.Problem,
    models.Network,
    models.Spectra,
    models.Curvature,
    models.Interventions,
    models.Training,
    models.Tuning,
    models.Statistics,
)
UNEDITED_KEYS = {"options", "kind"}

# at least one edit of each section; of the code, one for most stages
QUICK = [
    "Edits without meaning: a comment in every module and every file of rules",
    "Edits without meaning: all files touched, including results",
    "Edits without meaning: config keys in reverse order",
    "Code: a new method that is not used",
    "Code: a method that is used",
    "Code: the dataset",
    "Code: the operator",
    "Code: a treatment that is used in one setting",
    "Code: a check",
    "Code: one figure",
    "Code: the style",
    "Packages: a newer scipy",
    "Config: settings, methods and seeds: another seeds_per_job",
    "Config: settings, methods and seeds: a tuning seed",
    "Config: settings, methods and seeds: one more method",
    "Config: one setting: epochs",
    "Config: interventions: one more treated task",
    "Config: training, curvature and statistics: fewer blocks",
    "Config: training, curvature and statistics: a hypothesis",
    "Results: deleted checkpoints, then another operator",
    "Results: all results copied into another clone and adopted",
]


@pytest.mark.parametrize("name", slow_except(QUICK, EDITS))
def test_edit_reruns_exactly_the_jobs_that_depend_on_it(built_copy, name):
    EDITS[name].change(built_copy)
    assert built_copy.plan() == EDITS[name].jobs


def test_documentation_page_lists_these_edits():
    assert (ROOT / "docs/development/incremental.md").read_text() == page()


def flatten(value, prefix=""):
    """Return the values of nested mappings by their dotted keys."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    flat = {}
    for name, child in value.items():
        flat |= flatten(child, f"{prefix}.{name}" if prefix else name)
    return flat


class ConfigOnly:
    """A project without files, whose config edits can change."""

    def __init__(self):
        self.values = yaml.safe_load(STUDY.read_text())

    def config(self, change):
        """Change the config in place."""
        change(self.values)


def changed_keys(edit):
    """Return the dotted keys of the config that an edit changes."""
    project = ConfigOnly()
    before = flatten(project.values)
    try:
        edit.change(project)
    except (AttributeError, AssertionError):  # the edit changes files
        return set()
    after = flatten(project.values)
    return {key for key in {*before, *after} if before.get(key) != after.get(key)}


def test_every_key_of_the_config_has_an_edit():
    edited = set()
    for edit in EDITS.values():
        for key in changed_keys(edit):
            edited |= set(key.split("."))
    known = set(StudyConfig.model_fields)
    for section in CONFIG_SECTIONS:
        known |= {field.name for field in fields(section)}
    assert known - edited - UNEDITED_KEYS == set()


def test_code_digest_of_each_job_has_all_modules_that_the_job_imports(tiny_study, read_imports):
    """The jobs are those of the tiny study, and of all other studies so far."""
    records = read_imports()
    scripts = {"prepare", "train", "curvature", "intervene", "gather", "analyse"}
    scripts |= {"typeset", "draw", "report"}
    assert scripts <= {Path(entry).stem for entry, _ in records}
    assert {entry: missing for entry, missing in records if missing} == {}


# Explanations of reruns


def test_each_job_is_explained_with_its_cause_and_its_last_time(built_copy):
    add_code(L2_METHOD)(built_copy)
    built_copy.config(lambda config: config["curvature"].update(samples=64))
    built_copy.append("workflow/style.yaml", "\n# a comment\n")
    before = built_copy.digests()

    done = built_copy.run("python", "workflow/scripts/why.py")
    assert done.returncode == 0, done.stdout
    *lines, summary = done.stdout.splitlines()
    reasons = {re.sub(r" {2,}.*", "", line): line for line in lines}
    assert set(reasons) == built_copy.plan() - {"all"}
    samples = "operators.fisher.samples: 32 → 64"
    gather_jobs = f"gather {RELU}, gather {TANH}"
    assert reasons[f"train_ensemble {RELU}/l2/0"].endswith(f"{L2_METHOD} changed")
    assert "curvature.operators" not in reasons[f"measure_ensemble {RELU}/none/1"]
    assert reasons[f"measure_ensemble {RELU}/none/1"].endswith(samples)
    assert f"curvature.{samples}" in reasons[f"gather {RELU}"]
    assert reasons["typeset"].endswith(f"after analyse, {gather_jobs}")
    assert reasons["analyse"].endswith(f"after {gather_jobs}")

    assert all(re.search(r"  +\d+ s  ", line) for line in lines)
    assert re.fullmatch(
        rf"{len(lines)} jobs, about \d+\.\d minutes of one core, as they took the last time",
        summary,
    )
    assert built_copy.digests() == before


def test_new_and_missing_results_have_a_cause_and_a_finished_study_has_none(
    built_copy, project_without_results
):
    finished = built_copy.run("python", "workflow/scripts/why.py")
    assert finished.stdout.startswith("Nothing would run")

    (built_copy.results / "figures/scatter.pdf").unlink()
    missing = built_copy.run("python", "workflow/scripts/why.py", "figures")
    expected = r"figure_scatter +\d+ s  scatter\.pdf is missing\n1 jobs, "
    assert re.match(expected, missing.stdout), missing.stdout

    new = project_without_results.run("python", "workflow/scripts/why.py", "train")
    expected = rf"^train_ensemble {RELU}/l2/0 +new  outcomes\.nc is missing$"
    assert re.search(expected, new.stdout, re.MULTILINE), new.stdout
    assert new.stdout.endswith("none of which ran before\n")


def test_why_and_audit_report_an_error_in_the_config(built_copy):
    built_copy.config(lambda config: config.update(seed=1))
    for entry in ("why", "audit"):
        done = built_copy.run("python", f"workflow/scripts/{entry}.py")
        assert done.returncode == 1
        assert "'seed'" in done.stdout
        assert "Traceback" not in done.stdout


# Copied results


def copied(project):
    """Remove Snakemake's metadata, as in a copy of the results; return a digest of each file."""
    shutil.rmtree(project.root / ".snakemake")
    return project.digests()


def test_copied_results_that_match_are_accepted_without_a_question(built_copy):
    before = copied(built_copy)
    assert built_copy.plan() == set()
    assert built_copy.digests() == before


def test_copied_results_are_redrawn_if_the_style_changed(built_copy):
    copied(built_copy)
    style = built_copy.root / "workflow/style.yaml"
    style.write_text(style.read_text().replace("lines.linewidth: 1.2", "lines.linewidth: 1.3"))
    os.utime(style, (0, 0))  # older than every result, so Snakemake alone would redraw nothing
    why = built_copy.run("python", "workflow/scripts/why.py", "figures")
    assert re.search(
        r"^figure_scatter +\d+ s  its input workflow/style\.yaml has changed$",
        why.stdout,
        re.MULTILINE,
    ), why.stdout
    planned = built_copy.plan()
    assert {"figure_scatter", "figure_timing", "report"} <= planned
    assert not [job for job in planned if "ensemble" in job or "gather" in job]


def test_copied_results_of_other_code_are_used_but_not_replaced(built_copy):
    """They would take hours to recompute. So a job that reads or replaces them stops."""
    add_code(L2_METHOD)(built_copy)
    before = copied(built_copy)
    done = built_copy.snakemake("--dry-run", "figures")
    assert "Nothing to be done" in done.stdout, done.stdout
    outcomes = f"results/tiny/runs/{RELU}/l2/0/outcomes.nc: {L2_METHOD} changed"
    sentence = (
        rf"^\d+ copied results do not match .*, such as {re.escape(outcomes)}\. They are used"
    )
    assert re.search(sentence, done.stdout, re.MULTILINE), done.stdout

    (built_copy.results / f"runs/{RELU}/l2/1/outcomes.nc").unlink()
    for _ in range(2):  # the first start has not made them known
        done = built_copy.snakemake("train")
        assert done.returncode == 1
        assert f"train_ensemble {RELU}/l2/1 would read or replace " in done.stdout
        assert "Nothing was started. Move such results away: make audit" in done.stdout
        assert "Traceback" not in done.stdout
    del before[f"runs/{RELU}/l2/1/outcomes.nc"]
    assert built_copy.digests() == before


def test_damaged_copy_is_not_read_by_a_job(built_copy):
    table = built_copy.results / "tables/outcomes.csv"
    table.write_text(table.read_text()[:100])
    copied(built_copy)
    (built_copy.results / "tables/methods.csv").unlink()
    done = built_copy.snakemake("typeset")
    assert done.returncode == 1
    assert "such as results/tiny/tables/outcomes.csv: its checksum differs" in done.stdout
    assert (
        "results/tiny/tables/outcomes.csv differs from the file that analyse wrote" in done.stdout
    )


def test_audit_of_copied_results_lists_no_fault(built_copy):
    before = copied(built_copy)
    done = built_copy.run("python", "workflow/scripts/audit.py")
    assert done.returncode == 0, done.stdout
    assert re.fullmatch(r"(\d+) results, of which \1 fit this config and this code\n", done.stdout)

    adopt(built_copy)
    assert built_copy.digests() == before
    assert built_copy.plan() == set()


def damage(project):
    """Truncate a checkpoint file, delete a record, replace a figure, and remove the metadata."""
    results = project.results
    os.truncate(results / f"runs/{RELU}/none/0/checkpoints.nc", 5000)
    # older versions wrote no records
    (results / "provenance/tables/prediction.csv.json").unlink()
    shutil.copy(results / "figures/scatter.png", results / "figures/timing.png")
    shutil.rmtree(project.root / ".snakemake")


@pytest.mark.slow
def test_damaged_results_are_moved_aside_and_recomputed_to_the_same_bytes(built_copy, tiny_study):
    top_level = {path.name for path in built_copy.root.iterdir()}
    damage(built_copy)
    done = built_copy.run("python", "workflow/scripts/audit.py", "--adopt")
    assert done.returncode == 0, done.stdout
    ensemble = f"{RELU}/none/0"
    for fault in (
        rf"{ensemble}/checkpoints\.nc: its checksum differs from its record",
        rf"{ensemble}/measures\.nc: its input runs/{ensemble}/checkpoints\.nc has changed",
        r"tables/prediction\.csv: has no provenance record",
        r"figures/timing\.png: its checksum differs from its record",
    ):
        assert re.search(fault, done.stdout)
    assert "datasets/" not in done.stdout
    summary = r"^\d+ results, of which \d+ fit this .*, and \d+ with inputs that do not$"
    assert re.search(summary, done.stdout, re.MULTILINE)

    aside = built_copy.results / "aside"
    assert (aside / "runs" / ensemble / "checkpoints.nc").stat().st_size == 5000
    names = sorted(path.name for path in (aside / "datasets").iterdir())
    assert names == [f"{RELU}.nc", f"{RELU}.nc.json"]
    assert {path.name for path in built_copy.root.iterdir()} == top_level

    built_copy.build()
    assert built_copy.plan() == set()
    shutil.rmtree(aside)
    assert built_copy.reproducible_digests() == tiny_study.reproducible_digests()


def remove_metadata(project, path):
    """Remove the metadata of a result, as if the launcher was killed before its job ended."""
    (project.root / ".snakemake/metadata" / audit._key(Path(path))).unlink()


def test_results_of_a_cluster_job_whose_launcher_was_killed_are_restored(built_copy, tiny_study):
    folder = f"results/tiny/runs/{RELU}/none/0"
    outcomes, checkpoints = f"{folder}/outcomes.nc", f"{folder}/checkpoints.nc"
    cache = built_copy.root / folder / "cache"
    log = built_copy.root / f"results/tiny/logs/runs/{RELU}/none/0/train.log"
    (built_copy.root / outcomes).unlink()
    built_copy.build(outcomes, env={"SLURM_JOB_ID": "7"})
    assert cache.exists()

    remove_metadata(built_copy, outcomes)
    remove_metadata(built_copy, checkpoints)
    done = built_copy.snakemake("--dry-run")
    assert "rerun-incomplete" in done.stdout
    assert "Traceback" not in done.stdout
    assert f"train_ensemble {RELU}/none/0" in built_copy.plan("--rerun-incomplete")

    built_copy.build("--rerun-incomplete", "datasets")
    assert "restored from" in log.read_text()
    assert built_copy.plan("datasets") == set()
    shutil.rmtree(cache)
    assert built_copy.reproducible_digests() == tiny_study.reproducible_digests()


# Edits while jobs run


def start_training(project, log):
    """Start Snakemake on one core, and wait until its first job trains."""
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--keep-going", "train"]
    launcher = project.start(*command, log=log)
    wait_for(lambda: any(project.results.glob("runs/*/*/*/resume")), launcher, log)
    return launcher


@pytest.mark.slow
def test_edit_while_jobs_run_stops_the_waiting_jobs_that_depend_on_it(new_project):
    project = new_project()
    log = project.root / "train.out"
    launcher = start_training(project, log)
    add_code(L2_METHOD)(project)
    launcher.wait(timeout=900)
    assert launcher.returncode == 1

    output = log.read_text()
    assert f"{L2_METHOD} was edited after this job was planned" in output
    refused = set(re.findall(rf"^train_ensemble {RELU} l2 \d failed", output, re.MULTILINE))
    # if the first job depends on the method, it continues with the old code
    assert 1 <= len(refused) <= 2, output[-3000:]
    trained = list(project.results.glob("runs/*/*/*/outcomes.nc"))
    assert len(trained) == len(ENSEMBLES) - len(refused)

    dependent_jobs = {f"train_ensemble {RELU}/l2/{seed}" for seed in SEEDS}
    assert dependent_jobs <= L2_CHANGED
    assert project.plan("train") == {*dependent_jobs, "train"}
