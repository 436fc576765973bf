"""After a killed launcher, an altered file or a wrong config, one command continues the study."""

import os
import shutil
import signal
import subprocess

import pytest
from projects import wait_for

ENSEMBLE = "digits_labels_relu/none/0"
OUTCOMES = f"results/tiny/runs/{ENSEMBLE}/outcomes.nc"


def run(project, *options):
    """Run a study as `make run` does. Its Python is replaced by Snakemake, so it is not forked."""
    return project.unforked.run("python", "workflow/scripts/run.py", *options)


@pytest.fixture
def interrupted(built_copy):
    """A study whose launcher was killed while an ensemble trained; the job went on to its end."""
    folder = built_copy.root / f"results/tiny/runs/{ENSEMBLE}"
    shutil.rmtree(folder)
    log = built_copy.root / "killed.out"
    with built_copy.unforked.start_snakemake("--cores", "1", OUTCOMES, log=log) as launcher:
        wait_for((folder / "resume").exists, launcher)
        os.kill(launcher.pid, signal.SIGKILL)
    with subprocess.Popen(["sleep", "600"]) as clock:
        wait_for(lambda: not (folder / "resume").exists(), clock, pause=0.1)
        clock.kill()
    return built_copy


def test_job_that_outlives_its_launcher_is_not_trained_again(interrupted, tiny_study):
    done = run(interrupted, OUTCOMES)
    assert done.returncode == 0, done.stdout
    assert "is dead. Its lock is removed." in done.stdout
    log = interrupted.root / f"results/tiny/logs/runs/{ENSEMBLE}/train.log"
    assert "restored from" in log.read_text()
    assert (
        interrupted.digests(f"results/tiny/runs/{ENSEMBLE}").items()
        >= {
            name: digest
            for name, digest in tiny_study.digests(f"results/tiny/runs/{ENSEMBLE}").items()
            if name in ("outcomes.nc", "checkpoints.nc")
        }.items()
    )


@pytest.mark.slow
def test_commands_that_only_read_work_after_a_kill(interrupted):
    for entry in ("why", "audit"):
        done = interrupted.run("python", f"workflow/scripts/{entry}.py")
        assert "Traceback" not in done.stdout, done.stdout
        assert "IncompleteFiles" not in done.stdout, done.stdout
    assert (
        f"train_ensemble {ENSEMBLE}"
        in interrupted.run("python", "workflow/scripts/why.py", OUTCOMES).stdout
    )


def test_altered_figure_is_computed_again_by_the_commands_that_audit_names(built_copy, tiny_study):
    figure = built_copy.results / "figures/scatter.png"
    shutil.copy(built_copy.results / "figures/timing.png", figure)
    done = built_copy.run("python", "workflow/scripts/audit.py")
    assert done.returncode == 1
    assert "figures/scatter.png: its checksum differs from its record" in done.stdout
    assert "make audit ARGS=--repair, then make run" in done.stdout

    done = built_copy.run("python", "workflow/scripts/audit.py", "--repair")
    assert done.returncode == 0, done.stdout
    assert not figure.exists()
    done = run(built_copy, "figures")
    assert done.returncode == 0, done.stdout
    assert figure.read_bytes() == (tiny_study.results / "figures/scatter.png").read_bytes()


@pytest.mark.parametrize(
    ("name", "job"),
    [
        ("data/digits.nc", "prepare digits"),
        (f"runs/{ENSEMBLE}/checkpoints.nc", f"train_ensemble {ENSEMBLE}"),
        (f"runs/{ENSEMBLE}/measures.nc", f"measure_ensemble {ENSEMBLE}"),
    ],
)
def test_altered_intermediate_result_is_computed_again_although_figures_exist(
    built_copy, name, job
):
    """Snakemake alone makes no missing file whose products all exist."""
    path = built_copy.results / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    done = built_copy.run("python", "workflow/scripts/audit.py", "--repair")
    assert done.returncode == 0, done.stdout
    assert not path.exists()
    planned = built_copy.plan()
    assert job in planned
    assert "report" in planned


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("study: a\n\tseeds: 3\n", "line 2, column 1: a tab is in the indentation"),
        ("study: a\nstudy: b\n", "line 2, column 1: the key 'study' occurs twice"),
        ("a: &a\n  b: *a\n", "an alias refers to what contains it"),
    ],
)
def test_config_file_that_cannot_be_meant_is_refused(built_copy, text, words):
    (built_copy.root / "wrong.yaml").write_text(text)
    done = run(built_copy, "--configfile", "wrong.yaml")
    assert done.returncode == 1
    assert done.stdout.count("\n") == 1
    assert f"wrong.yaml, {words}" in done.stdout or words in done.stdout


def test_config_yaml_with_a_repeated_key_is_refused_by_snakemake(built_copy):
    built_copy.append("config.yaml", "study: other\n")
    done = built_copy.snakemake("--dry-run")
    assert done.returncode == 1
    assert "the key 'study' occurs twice; the first is in line 1" in done.stdout


def test_missing_config_file_is_refused(built_copy):
    done = run(built_copy, "--configfile", "missing.yaml")
    assert done.stdout == "missing.yaml does not exist. Correct the name of the config file.\n"


@pytest.mark.parametrize("script", ["run", "why"])
def test_misspelt_target_is_refused_with_the_closest_one(built_copy, script):
    done = built_copy.unforked.run("python", f"workflow/scripts/{script}.py", "figurs")
    assert done.returncode == 1
    assert done.stdout.startswith(
        "'figurs' is neither a target nor a file. Did you mean 'figures'?"
    )
    assert done.stdout.count("\n") == 1


def test_missing_folder_of_temporary_files_is_refused(built_copy):
    folder = {"TMPDIR": str(built_copy.root / "away")}
    message = f"temporary files cannot be written to {folder['TMPDIR']} (No such file or directory)"
    done = built_copy.unforked.run("python", "workflow/scripts/run.py", env=folder)
    assert done.stdout.startswith(message)
    assert done.stdout.count("\n") == 1
    done = built_copy.unforked.snakemake(env=folder)
    assert message in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.slow
def test_study_with_one_seed_is_finished(built_copy):
    def use_one_seed(config):
        config["seeds"] = {"tune": 0, "report": 1}

    built_copy.config(use_one_seed)
    built_copy.build()
    assert (built_copy.results / "report.html").exists()
    statements = (built_copy.results / "tables/statements.csv").read_text()
    assert "no interval" in statements
    assert "nan" not in statements
