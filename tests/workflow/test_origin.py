"""Trace figures and numbers back to the data, and compare a study with its reference.

All tests use the whole tiny study.
"""

import hashlib
import json
import os
import re
import zlib

import pytest
from edits import ENSEMBLES, RELU

from plasticity.config import registry


def print_origin(project, *arguments):
    """Return what `origin.py` prints."""
    done = project.run("python", "workflow/scripts/origin.py", *arguments)
    assert done.returncode == 0, done.stdout
    return done.stdout


def file_names(report):
    """Return the names of the files in a report of `origin.py`."""
    return re.findall(r"^[0-9a-f]{12}  (.*)$", report, re.MULTILINE)


def test_figure_leads_back_to_every_run_and_to_the_checksum_of_the_data(built):
    report = print_origin(built, "results/tiny/figures/scatter.svg")
    names = file_names(report)
    assert names[0] == "figures/scatter.svg"
    assert {"tables/associations.csv", "workflow/style.yaml", "data/digits.nc"} <= set(names)
    assert {name for name in names if name.startswith("runs/")} == {
        f"runs/{ensemble}/{file}.nc"
        for ensemble in ENSEMBLES
        for file in ("outcomes", "measures", "checkpoints")
    }
    data = hashlib.sha256((built.results / "data/digits.nc").read_bytes()).hexdigest()
    assert re.search(
        rf"^{data[:12]}  data/digits\.nc\n +made by prepare, commit .*scikit-learn \d",
        report,
        re.MULTILINE,
    )
    assert "!" not in report


def test_number_leads_back_to_its_own_setting_and_arm(built):
    report = print_origin(
        built,
        "results/tiny/tables/outcomes.csv",
        f"setting={RELU}",
        "arm=none",
        "outcome=final_error",
        "stage=late",
    )
    row, *_ = report.splitlines()
    assert row.startswith(f"setting {RELU}, arm none, outcome final_error, stage late, mean 0.")
    names = file_names(report)
    runs = {name.rsplit("/", 1)[0] for name in names if name.startswith("runs/")}
    assert runs == {
        f"runs/{RELU}/{method}/{seed}" for method in ("none", "fresh") for seed in (0, 1)
    }
    assert [name for name in names if name.startswith("datasets/")] == [f"datasets/{RELU}.nc"]


def test_edited_file_is_marked_where_it_is_and_where_it_was_used(copy):
    copy.append(f"results/tiny/runs/{RELU}/l2/0/outcomes.nc", " ")
    report = print_origin(copy, "results/tiny/tables/outcomes.csv")
    assert re.search(
        rf"runs/{RELU}/l2/0/outcomes\.nc\n +! its checksum differs from its record", report
    )
    assert re.search(
        rf"datasets/{RELU}\.nc\n +! its input runs/{RELU}/l2/0/outcomes\.nc has changed", report
    )
    assert report.count("!") == 2


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
def test_file_without_origin_is_refused_in_one_sentence(built, arguments, message):
    done = built.run("python", "workflow/scripts/origin.py", *arguments)
    assert done.returncode == 1
    assert message in done.stdout
    assert "Traceback" not in done.stdout


def test_every_result_has_a_record_of_the_config_the_code_and_its_inputs(built):
    results = {
        name
        for name in built.contents()
        if name.split("/")[0] not in ("provenance", "logs", "benchmarks")
    }
    recorded = {
        name.removeprefix("provenance/").removesuffix(".json")
        for name in built.contents()
        if name.startswith("provenance/")
    }
    assert recorded == results
    for name in results:
        record = json.loads((built.results / "provenance" / f"{name}.json").read_text())
        assert record["sha256"] == hashlib.sha256((built.results / name).read_bytes()).hexdigest()
        assert record["commit"] == "", "the copy is no git repository"
        assert bool(record["inputs"]) == (record["source"] != "prepare")
        for input_name, digest in record["inputs"].items():
            path = built.results / input_name
            if not path.exists():
                path = built.root / input_name
            content = path.read_bytes()
            assert hashlib.sha256(content).hexdigest() == digest, (name, input_name)


def test_figure_names_its_inputs_in_every_format(built):
    for figure in registry.names("figures"):
        record = json.loads((built.results / f"provenance/figures/{figure}.svg.json").read_text())
        svg = (built.results / f"figures/{figure}.svg").read_text()
        assert f"{figure}&quot;" in svg or f'{figure}"' in svg
        pdf = (built.results / f"figures/{figure}.pdf").read_bytes()
        png = (built.results / f"figures/{figure}.png").read_bytes()
        for digest in record["inputs"].values():
            assert digest in svg
            assert digest.encode() in pdf or digest.encode() in b"".join(inflated_streams(pdf))
            assert digest.encode() in png


def inflated_streams(pdf):
    """Decompress the streams of a PDF file."""
    for match in re.finditer(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL):
        try:
            yield zlib.decompress(match[1])
        except zlib.error:
            continue


# Results edited by hand


@pytest.mark.slow
def test_edited_result_stops_its_readers_and_is_computed_again_once_deleted(copy, built):
    table = copy.results / "tables/outcomes.csv"
    edited = table.read_text().replace("0.", "0.0", 1)
    os.utime(table)
    table.write_text(edited)
    done = copy.snakemake("--keep-going", "tables")
    assert done.returncode == 1
    assert (
        "results/tiny/tables/outcomes.csv differs from the file that analyse wrote" in done.stdout
    )
    assert "Traceback" not in done.stdout
    assert table.read_text() == edited, "nothing is overwritten"
    table.unlink()
    copy.build("tables")
    assert copy.lasting() == built.lasting()


# The reference


@pytest.mark.slow
def test_study_that_differs_from_its_reference_fails_on_the_same_machine(copy):
    missing_reference = copy.run("python", "workflow/scripts/reproduce.py", "tiny")
    assert missing_reference.returncode == 1
    assert copy.run("python", "workflow/scripts/reproduce.py", "tiny", "--publish").returncode == 0
    assert copy.run("python", "workflow/scripts/reproduce.py", "tiny").returncode == 0
    copy.config(lambda config: config.setdefault("statistics", {}).update(draws=499))
    done = copy.run("python", "workflow/scripts/reproduce.py", "tiny")
    assert done.returncode == 1
    assert "on this kind of machine they should be the same" in done.stdout
    assert re.search(
        r"^tables/comparisons\.csv: p differs in \d+ of \d+ rows, at most by 0\.",
        done.stdout,
        re.MULTILINE,
    ), done.stdout[-2000:]
