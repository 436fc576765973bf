"""From a figure or a number back to the data; into an archive and out of it; and beside a reference: on the whole tiny study."""

import hashlib
import json
import os
import re
import shutil
import zipfile
import zlib

import pytest
from edits import ENSEMBLES, METHODS, RELU, edit

from plasticity.config import registry


def origin(project, *arguments):
    done = project.run("python", "workflow/scripts/origin.py", *arguments)
    assert done.returncode == 0, done.stdout
    return done.stdout


def named(said):
    return re.findall(r"^[0-9a-f]{12}  (.*)$", said, re.MULTILINE)


def test_a_figure_leads_back_to_every_run_and_to_the_datas_checksum(built):
    said = origin(built, "results/tiny/figures/scatter.svg")
    names = named(said)
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
        said,
        re.MULTILINE,
    )
    assert "!" not in said


def test_a_number_leads_back_to_its_setting_and_arm_only(built):
    said = origin(
        built,
        "results/tiny/tables/outcomes.csv",
        f"setting={RELU}",
        "arm=none",
        "outcome=final_error",
        "stage=late",
    )
    row, *_ = said.splitlines()
    assert row.startswith(f"setting {RELU}, arm none, outcome final_error, stage late, mean 0.")
    assert {name.rsplit("/", 1)[0] for name in named(said) if name.startswith("runs/")} == {
        f"runs/{RELU}/{method}/{seed}" for method in ("none", "fresh") for seed in (0, 1)
    }
    assert [name for name in named(said) if name.startswith("datasets/")] == [f"datasets/{RELU}.nc"]


def test_what_was_edited_is_marked_on_the_way(copy):
    copy.append(f"results/tiny/runs/{RELU}/l2/0/outcomes.nc", " ")
    said = origin(copy, "results/tiny/tables/outcomes.csv")
    assert re.search(
        rf"runs/{RELU}/l2/0/outcomes\.nc\n +! is not what was made: edited, or copied by half", said
    )
    assert re.search(
        rf"datasets/{RELU}\.nc\n +! was made of another runs/{RELU}/l2/0/outcomes\.nc", said
    )
    assert said.count("!") == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["results/tiny/figures/none.svg"], "is not there"),
        (["README.md"], "has no record"),
        (["results/tiny/tables/outcomes.csv", "setting=none"], "has no row with setting=none"),
        (
            ["results/tiny/tables/outcomes.csv", "seting=x"],
            "has no column 'seting': it has setting, arm",
        ),
        (["results/tiny/figures/scatter.png", "arm=none"], "has no column 'arm'"),
    ],
)
def test_what_has_no_origin_is_said_in_a_sentence(built, arguments, said):
    done = built.run("python", "workflow/scripts/origin.py", *arguments)
    assert done.returncode == 1
    assert said in done.stdout
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
        assert record["commit"] == "", "the copy is no repository"
        assert bool(record["inputs"]) == (record["source"] != "prepare")
        for one, digest in record["inputs"].items():
            path = built.results / one if (built.results / one).exists() else built.root / one
            assert hashlib.sha256(path.read_bytes()).hexdigest() == digest, (name, one)


def test_a_figure_says_in_every_format_what_it_was_made_of(built):
    for figure in registry.names("figures"):
        record = json.loads((built.results / f"provenance/figures/{figure}.svg.json").read_text())
        svg = (built.results / f"figures/{figure}.svg").read_text()
        assert f"{figure}&quot;" in svg or f'{figure}"' in svg
        pdf = (built.results / f"figures/{figure}.pdf").read_bytes()
        png = (built.results / f"figures/{figure}.png").read_bytes()
        for digest in record["inputs"].values():
            assert digest in svg
            assert digest.encode() in pdf or digest.encode() in b"".join(inflated(pdf))
            assert digest.encode() in png


def inflated(pdf):
    for match in re.finditer(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL):
        try:
            yield zlib.decompress(match[1])
        except zlib.error:
            continue


# A hand in the results


@pytest.mark.slow
def test_a_result_edited_by_hand_stops_who_would_use_it_and_is_made_anew_when_deleted(copy, built):
    table = copy.results / "tables/outcomes.csv"
    altered = table.read_text().replace("0.", "0.0", 1)
    os.utime(table)
    table.write_text(altered)
    done = copy.snakemake("--keep-going", "tables")
    assert done.returncode == 1
    assert (
        "results/tiny/tables/outcomes.csv is not what analyse made (its checksum is another)"
        in done.stdout
    )
    assert "Traceback" not in done.stdout
    assert table.read_text() == altered, "nothing is overwritten"
    table.unlink()
    copy.build("tables")
    assert copy.lasting() == built.lasting()


# The archive


@pytest.fixture(scope="module")
def archived(another):
    another.build("archive")
    return another


@pytest.fixture
def unpacked(archived, tmp_path):
    """The archive where nothing else is."""
    with zipfile.ZipFile(archived.results / "archive.zip") as archive:
        archive.extractall(tmp_path / "crate")
    project = type(archived)(tmp_path / "crate", archived.env)
    yield project
    shutil.rmtree(project.root)


def test_an_archive_describes_all_that_is_in_it_and_its_checksums_are_right(unpacked):
    crate = json.loads((unpacked.root / "ro-crate-metadata.json").read_text())
    entities = {entity["@id"]: entity for entity in crate["@graph"]}
    files = set(unpacked.contents("."))
    described = {name for name, entity in entities.items() if "File" in entity["@type"]}
    assert files - described <= {"ro-crate-metadata.json", "ro-crate-preview.html"}
    assert described <= files
    assert {
        "Snakefile",
        "envs/requirements.txt",
        "results/tiny/config.yaml",
        "results/tiny/report.html",
    } <= described
    assert {f"results/tiny/datasets/{setting}.nc" for setting in METHODS} <= described
    assert not any("checkpoints" in name and name.endswith(".nc") for name in files)
    sums = {name: entity["sha256"] for name, entity in entities.items() if "sha256" in entity}
    assert len(sums) > 50
    assert all(
        hashlib.sha256((unpacked.root / name).read_bytes()).hexdigest() == digest
        for name, digest in sums.items()
    )
    made = {
        one["@id"]
        for entity in entities.values()
        if entity["@type"] == "CreateAction"
        for one in entity["result"]
    }
    assert made == set(sums)
    assert entities["./"]["mainEntity"] == {"@id": "Snakefile"}
    assert "ComputationalWorkflow" in entities["Snakefile"]["@type"]


def test_an_archive_is_adopted_and_a_change_of_style_draws_again_without_training(unpacked):
    done = unpacked.run(
        "python", "workflow/scripts/audit.py", "--adopt", "--configfile", "results/tiny/config.yaml"
    )
    assert done.returncode == 0, done.stdout
    config = ("--configfile", "results/tiny/config.yaml")
    assert unpacked.plan(*config) == set()
    edit("workflow/scripts/plasticity/report/figures/timing.py")(unpacked)
    assert unpacked.plan(*config) == {"figure_timing", "report", "all"}


@pytest.mark.slow
def test_an_archive_can_be_trained_anew_and_compared(unpacked):
    shutil.move(unpacked.results / "config.yaml", unpacked.root / "config.yaml")
    shutil.rmtree(unpacked.root / "results")
    done = unpacked.run("python", "workflow/scripts/reproduce.py", "tiny")
    assert done.returncode == 0, done.stdout
    assert re.search(
        r"^(\d+) of \1 tables and datasets hold what the reference holds, bit for bit$",
        done.stdout,
        re.MULTILINE,
    ), done.stdout[-3000:]


# The reference


@pytest.mark.slow
def test_a_study_that_comes_out_otherwise_is_said_and_is_no_success_on_the_same_machine(copy):
    assert copy.run("python", "workflow/scripts/reproduce.py", "tiny").returncode == 1, (
        "no reference yet"
    )
    assert copy.run("python", "workflow/scripts/reproduce.py", "tiny", "--publish").returncode == 0
    assert copy.run("python", "workflow/scripts/reproduce.py", "tiny").returncode == 0
    copy.config(
        lambda config: (
            config["statistics"].update(draws=499)
            if "statistics" in config
            else config.update(statistics={"draws": 499})
        )
    )
    done = copy.run("python", "workflow/scripts/reproduce.py", "tiny")
    assert done.returncode == 1
    assert "on this kind of machine they should be the same" in done.stdout
    assert re.search(
        r"^tables/comparisons\.csv: p differs in \d+ of \d+ rows, at most by 0\.",
        done.stdout,
        re.MULTILINE,
    ), done.stdout[-2000:]
