"""The workflow runs in another folder, through a symbolic link, and as a module of another one."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from projects import ROOT, STUDY

DATASET = "results/tiny/datasets/digits_labels_relu.nc"
MODULE = """
configfile: "tiny.yaml"


module plasticity:
    snakefile: "{snakefile}"
    config: config
{more}

use rule * from plasticity{names}


rule summary:
    input: "{dataset}"
    output: "summary.txt"
    shell: "wc -c {{input}} > {{output}}"
"""


@pytest.fixture
def elsewhere(project_without_results, tmp_path):
    """An empty folder outside the repository, with the environment of a project."""
    return replace(project_without_results, root=tmp_path.resolve())


@pytest.fixture
def snakefile(project_without_results):
    """The Snakefile of a repository without results."""
    return project_without_results.root / "Snakefile"


def use_as_module(folder: Path, snakefile: Path, names: str = "", more: str = "") -> None:
    """Write a workflow that uses this one as a module."""
    shutil.copy(STUDY, folder / "tiny.yaml")
    text = MODULE.format(snakefile=snakefile, names=names, more=more, dataset=DATASET)
    (folder / "Snakefile").write_text(text)


def link_results(folder: Path) -> None:
    """Make `results` a symbolic link to a folder on another disk, as it were."""
    (folder / "store").mkdir()
    (folder / "results").symlink_to("store")


@pytest.mark.slow
def test_study_in_another_folder_has_the_bytes_and_records_of_one_in_the_repository(
    elsewhere, snakefile, tiny_study
):
    shutil.copy(STUDY, elsewhere.root / "config.yaml")
    link_results(elsewhere.root)
    repository = snakefile.parent
    before = {path.name for path in repository.iterdir()}

    in_repository = replace(elsewhere, root=repository)
    in_repository.build("--directory", str(elsewhere.root))

    expected = tiny_study.reproducible_digests()
    assert elsewhere.reproducible_digests() == expected
    records = tiny_study.digests("results/tiny/provenance")
    own_records = elsewhere.digests("results/tiny/provenance")
    for name in expected:
        assert own_records[f"{name}.json"] == records[f"{name}.json"], name
    assert (elsewhere.root / "store/tiny/report.html").exists()
    assert {path.name for path in repository.iterdir()} - before <= {".snakemake"}

    why, audit, origin = (
        elsewhere.run("python", repository / f"workflow/scripts/{entry}", *arguments)
        for entry, *arguments in (
            ("why.py",),
            ("audit.py",),
            ("origin.py", "results/tiny/figures/scatter.svg"),
        )
    )
    assert why.stdout.startswith("Nothing would run"), why.stdout
    assert audit.returncode == 0, audit.stdout
    assert "workflow/style.yaml" in origin.stdout
    assert "!" not in origin.stdout


def test_other_folder_without_a_config_is_refused_in_one_sentence(elsewhere, snakefile):
    done = elsewhere.snakemake("--snakefile", str(snakefile), "--dry-run")
    assert done.returncode == 1
    assert f"{elsewhere.root} has no config.yaml: write a study into it" in done.stdout
    assert "Traceback" not in done.stdout


def test_other_folder_runs_the_study_of_its_config_file(elsewhere, snakefile):
    shutil.copy(STUDY, elsewhere.root / "mine.yaml")
    plan = elsewhere.plan("datasets", "--snakefile", str(snakefile), "--configfile", "mine.yaml")
    assert "train_ensemble digits_labels_relu/none/0" in plan


def test_link_to_a_missing_folder_is_refused_with_its_name(elsewhere, snakefile):
    shutil.copy(STUDY, elsewhere.root / "config.yaml")
    (elsewhere.root / "results").symlink_to("removed")
    done = elsewhere.snakemake("--snakefile", str(snakefile), "--dry-run")
    assert done.returncode == 1
    assert "results is a symbolic link to removed, which does not exist" in done.stdout


# As a module


@pytest.mark.parametrize("names", ["", pytest.param(" as plasticity_*", marks=pytest.mark.slow)])
def test_other_workflow_plans_the_jobs_of_the_module(elsewhere, snakefile, names):
    use_as_module(elsewhere.root, snakefile, names)
    prefix = names.removeprefix(" as ").removesuffix("*")
    plan = elsewhere.plan("summary")
    assert {f"{prefix}gather digits_labels_relu", "summary"} <= plan
    assert f"{prefix}measure_ensemble digits_labels_relu/l2/1" in plan
    assert f"{prefix}gather digits_labels_tanh" not in plan


@pytest.mark.slow
def test_other_workflow_computes_the_bytes_of_this_one(elsewhere, snakefile, tiny_study):
    use_as_module(elsewhere.root, snakefile, " as plasticity_*")
    elsewhere.build("summary")
    assert (elsewhere.root / DATASET).read_bytes() == (tiny_study.root / DATASET).read_bytes()
    assert DATASET in (elsewhere.root / "summary.txt").read_text()
    assert elsewhere.plan("summary") == set()


@pytest.mark.slow
def test_module_with_a_prefix_is_refused(elsewhere, snakefile):
    use_as_module(elsewhere.root, snakefile, more='    prefix: "below"')
    done = elsewhere.snakemake("--dry-run", "summary")
    assert done.returncode == 1
    assert "`prefix` and `replace_prefix` are not supported" in done.stdout


# The catalog of Snakemake workflows


def test_repository_has_what_the_workflow_catalog_asks_for():
    """See "Adding workflows" in the documentation of the catalog."""
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(usage) <= {"mandatory-flags", "software-stack-deployment", "report"}
    deployment = usage["software-stack-deployment"]
    assert set(deployment) == {"conda", "apptainer", "apptainer+conda"}
    assert deployment["conda"] == (ROOT / "envs/environment.yaml").exists()
    assert (ROOT / "workflow/Snakefile").is_file()
    assert list((ROOT / "workflow/rules").glob("*.smk"))
    readme = (ROOT / "README.md").read_text().lower()
    assert "snakemake" in readme
    assert "workflow" in readme


def test_instructions_for_the_catalog_link_to_existing_pages():
    instructions = ROOT / "config/README.md"
    links = [part.partition(")")[0] for part in instructions.read_text().split("](")[1:]]
    assert links
    for link in links:
        path = link.partition("#")[0]
        assert (instructions.parent / path).exists(), link


@pytest.mark.slow
def test_snakefile_of_the_catalog_plans_the_same_study(elsewhere, snakefile):
    shutil.copy(STUDY, elsewhere.root / "config.yaml")
    plans = [
        elsewhere.plan("--snakefile", str(path))
        for path in (snakefile, snakefile.parent / "workflow/Snakefile")
    ]
    assert plans[1] == plans[0] - {"all"} | {"everything"}
