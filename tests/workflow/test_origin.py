"""Trace figures and numbers of the tiny study to its data, and compare it with its reference."""

import hashlib
import itertools
import json
import os
import re
import zlib

import pytest
from edits import ENSEMBLES, RELU, TREATED_ENSEMBLES

import origin
from plasticity.config import registry


def read_digest(path):
    """Return the SHA-256 digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run_origin(project, *arguments):
    """Run `origin.py`, and return its output."""
    process = project.run("python", "workflow/scripts/origin.py", *arguments)
    assert process.returncode == 0, process.stdout
    return process.stdout


def file_names(output):
    """Return the names of the files in the output of `origin.py`."""
    return re.findall(r"^[0-9a-f]{12}  (.*)$", output, re.MULTILINE)


def test_figure_leads_back_to_every_run_and_to_the_checksum_of_the_data(tiny_study):
    output = run_origin(tiny_study, "results/tiny/figures/scatter.svg")
    names = file_names(output)
    assert names[0] == "figures/scatter.svg"
    assert {"tables/associations.csv", "workflow/style.yaml", "data/digits.nc"} <= set(names)
    stages = ("outcomes", "measures", "checkpoints")
    run_files = itertools.product(ENSEMBLES, stages)
    expected_runs = {f"runs/{ensemble}/{stage}.nc" for ensemble, stage in run_files}
    expected_runs |= {f"runs/{ensemble}/interventions.nc" for ensemble in TREATED_ENSEMBLES}
    assert {name for name in names if name.startswith("runs/")} == expected_runs
    digest = read_digest(tiny_study.results / "data/digits.nc")
    source = rf"^{digest[:12]}  data/digits\.nc\n +made by prepare, commit .*scikit-learn \d"
    assert re.search(source, output, re.MULTILINE)
    assert "!" not in output


def test_number_leads_back_to_its_setting_its_arm_and_the_baseline(tiny_study):
    output = run_origin(
        tiny_study,
        "results/tiny/tables/outcomes.csv",
        f"setting={RELU}",
        "arm=none",
        "outcome=final_error",
        "stage=late",
    )
    row = output.splitlines()[0]
    assert row.startswith(f"setting {RELU}, arm none, outcome final_error, stage late, mean 0.")
    names = file_names(output)
    runs = {name.rsplit("/", 1)[0] for name in names if name.startswith("runs/")}
    expected_runs = {f"runs/{RELU}/none/0", f"runs/{RELU}/none/1"}
    expected_runs |= {f"runs/{RELU}/fresh/0", f"runs/{RELU}/fresh/1"}
    assert runs == expected_runs
    assert [name for name in names if name.startswith("datasets/")] == [f"datasets/{RELU}.nc"]


def test_edited_file_and_the_file_computed_from_it_are_marked(built_copy):
    built_copy.append(f"results/tiny/runs/{RELU}/l2/0/outcomes.nc", " ")
    output = run_origin(built_copy, "results/tiny/tables/outcomes.csv")
    run_file = rf"runs/{RELU}/l2/0/outcomes\.nc"
    assert re.search(rf"{run_file}\n +! its checksum differs from its record", output)
    dataset = rf"datasets/{RELU}\.nc"
    assert re.search(rf"{dataset}\n +! its input {run_file} has changed", output)
    assert output.count("!") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["results/tiny/figures/none.svg"], "does not exist"),
        (["README.md"], "has no provenance record"),
        (["results/tiny/tables/outcomes.csv", "setting=none"], "has no row with setting=none"),
        (
            ["results/tiny/tables/outcomes.csv", "seting=x"],
            "has no column 'seting'. Its columns are setting, arm",
        ),
        (["results/tiny/figures/scatter.png", "arm=none"], "has no column 'arm'"),
    ],
)
def test_file_or_row_without_an_origin_is_refused(tiny_study, arguments, message):
    process = tiny_study.run("python", "workflow/scripts/origin.py", *arguments)
    assert process.returncode == 1
    assert message in process.stdout
    assert "Traceback" not in process.stdout


def check_inputs(project, record):
    """Check that the digests of a provenance record equal those of its inputs."""
    for name, digest in record["inputs"].items():
        result = project.results / name
        path = result if result.exists() else project.root / name
        assert read_digest(path) == digest, name


def test_every_result_has_a_record_of_the_config_the_code_and_its_inputs(tiny_study):
    results = set()
    recorded = set()
    for name in tiny_study.digests():
        folder = name.split("/")[0]
        if folder == "provenance":
            recorded.add(name.removeprefix("provenance/").removesuffix(".json"))
        elif folder not in ("logs", "benchmarks"):
            results.add(name)
    assert recorded == results
    for name in results:
        record = json.loads((tiny_study.results / "provenance" / f"{name}.json").read_text())
        assert record["sha256"] == read_digest(tiny_study.results / name), name
        assert record["commit"] == "", "a project of the tests is not a git repository"
        assert bool(record["inputs"]) == (record["source"] != "prepare"), name
        check_inputs(tiny_study, record)


def inflated_streams(pdf):
    """Decompress the streams of a PDF file."""
    for match in re.finditer(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL):
        try:
            yield zlib.decompress(match[1])
        except zlib.error:
            continue


def test_figure_names_its_inputs_in_every_format(tiny_study):
    for figure in registry.names("figures"):
        record = json.loads(
            (tiny_study.results / f"provenance/figures/{figure}.svg.json").read_text()
        )
        svg = (tiny_study.results / f"figures/{figure}.svg").read_text()
        assert f"{figure}&quot;" in svg or f'{figure}"' in svg
        pdf = (tiny_study.results / f"figures/{figure}.pdf").read_bytes()
        png = (tiny_study.results / f"figures/{figure}.png").read_bytes()
        pdf_text = pdf + b"".join(inflated_streams(pdf))
        for digest in record["inputs"].values():
            assert digest in svg
            assert digest.encode() in pdf_text
            assert digest.encode() in png


# Results edited by hand


@pytest.mark.slow
def test_edited_result_stops_jobs_that_read_it_until_it_is_deleted(built_copy, tiny_study):
    table = built_copy.results / "tables/outcomes.csv"
    edited = table.read_text().replace("0.", "0.0", 1)
    os.utime(table)
    table.write_text(edited)
    process = built_copy.snakemake("--keep-going", "tables")
    assert process.returncode == 1
    message = "results/tiny/tables/outcomes.csv differs from the file that analyse wrote"
    assert message in process.stdout
    assert "Traceback" not in process.stdout
    assert table.read_text() == edited, "a job has overwritten the edited table"
    table.unlink()
    built_copy.build("tables")
    assert built_copy.reproducible_digests() == tiny_study.reproducible_digests()


# The reference


def reproduce(project, *options):
    """Compare the tiny study with its reference."""
    return project.run("python", "workflow/scripts/reproduce.py", *options)


def use_fewer_draws(config):
    """Lower the number of permutations, so that the p-values change."""
    config.setdefault("statistics", {}).update(draws=499)


@pytest.mark.slow
def test_study_that_differs_from_its_reference_fails_on_the_same_machine(built_copy):
    without_reference = reproduce(built_copy)
    assert without_reference.returncode == 1
    assert reproduce(built_copy, "--publish").returncode == 0
    assert reproduce(built_copy).returncode == 0
    built_copy.config(use_fewer_draws)
    changed = reproduce(built_copy)
    assert changed.returncode == 1
    assert "on this kind of machine they should be the same" in changed.stdout
    difference = r"^tables/comparisons\.csv: p differs in \d+ of \d+ rows, at most by 0\."
    assert re.search(difference, changed.stdout, re.MULTILINE), changed.stdout[-2000:]
    dataset = reproduce(built_copy, "--setting", RELU)
    assert dataset.returncode == 0
    assert "1 of 1 tables and datasets hold what the reference holds" in dataset.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--setting", f"{RELU}x"], f"Did you mean {RELU!r}?"),
        (["--setting", RELU], "Only studies that are published below docs can be compared"),
        (["--setting", RELU, "--publish"], "--publish needs the whole study"),
    ],
)
def test_setting_that_cannot_be_compared_is_refused_before_the_run(tiny_study, options, message):
    refused = reproduce(tiny_study, *options)
    assert refused.returncode != 0
    assert message in refused.stdout
    assert "Traceback" not in refused.stdout


@pytest.mark.parametrize(
    ("arm", "methods"),
    [
        ("l2(strength=0.1)", {"l2", "fresh"}),
        ("layer_norm", {"layer_norm", "fresh+layer_norm"}),
        ("layer_norm+l2(l2.strength=0.1)", {"layer_norm+l2", "fresh+layer_norm"}),
    ],
)
def test_runs_of_an_arm_and_of_its_own_baseline_are_relevant(arm, methods):
    trained = ["none", "l2", "layer_norm", "layer_norm+l2", "fresh", "fresh+layer_norm"]
    relevant = {
        method
        for method in trained
        if origin.is_relevant(f"runs/digits_labels_relu/{method}/0/outcomes.nc", {"arm": arm})
    }
    assert relevant == methods
