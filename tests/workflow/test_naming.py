"""A study may extend another one or be changed on the command line, and a run says how it ended."""

import pandas as pd
import pytest
import yaml

RUN = ("python", "workflow/scripts/run.py")


def seeds_of(jobs):
    """Return the seeds of the training jobs of a plan."""
    return {job.rpartition("/")[2] for job in jobs if job.startswith("train_ensemble ")}


def test_key_after_config_changes_the_jobs(project_without_results):
    assert seeds_of(project_without_results.plan("tables")) == {"0", "1"}
    assert seeds_of(project_without_results.plan("tables", "--config", "seeds={report: 1}")) == {
        "0"
    }


def test_key_with_dots_changes_the_jobs(project_without_results):
    process = project_without_results.run(*RUN, "--dry-run", "tables", "--config", "seeds.report=1")
    assert "seeds=0" in process.stdout
    assert "seeds=1" not in process.stdout


def test_study_that_extends_another_has_its_jobs_and_its_own_results(
    project_without_results, tmp_path
):
    study = {"study": "mine", "extends": "default", "methods": {"l2": None}}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(study))
    process = project_without_results.run(*RUN, "--study", path, "--dry-run", "tables")
    assert "output: results/mine/runs/digits_labels_relu/l2_init/0/outcomes.nc" in process.stdout
    assert "results/mine/runs/digits_labels_relu/l2/0" not in process.stdout


def test_unknown_study_is_refused_before_snakemake_starts(project_without_results):
    process = project_without_results.run(*RUN, "--study", "mnits")
    assert process.returncode != 0
    assert process.stdout.startswith("There is no study 'mnits'. Did you mean 'mnist'? Known: ")
    assert len(process.stdout.splitlines()) == 1


def test_extended_study_reruns_nothing_of_the_one_that_is_written_out(built_copy):
    config = built_copy.root / "config.yaml"
    config.rename(built_copy.root / "base.yaml")
    config.write_text("study: tiny\nextends: base.yaml\n")
    assert not built_copy.plan()


def test_run_ends_with_the_report_its_first_results_and_the_next_commands(built_copy):
    process = built_copy.snakemake()
    assert "Nothing to be done" in process.stdout
    end = process.stdout.partition("The study is complete. Its report: ")[2]
    assert end.startswith("results/tiny/report.html\n")
    statements = pd.read_csv(built_copy.results / "tables/statements.csv")
    assert end.count("\n- ") == min(3, statements["rank"].notna().sum()) > 0
    assert "make explore " in end
    assert "The study is complete" not in built_copy.snakemake("--dry-run").stdout


@pytest.mark.slow
def test_output_of_a_run_has_no_settings(built_copy):
    (built_copy.results / "tables/settings.csv").unlink()
    process = built_copy.snakemake("--printshellcmds")
    assert "--code .snakemake/params/" in process.stdout
    assert '{"' not in process.stdout
