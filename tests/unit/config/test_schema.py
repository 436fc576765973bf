"""The schema of a config is built from the typed models, and the file for editors is up to date."""

import json
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path

import jsonschema
import pytest
import yaml
from configs import ABSENT, CONFIG, OPERATORS, PROBLEM, changed

from plasticity.config import models, registry, schema, study
from plasticity.config.models import (
    Curvature,
    Dataset,
    Network,
    Optimizer,
    Problem,
    Spectra,
    Statistics,
    Training,
    Tuning,
)
from plasticity.training import outcomes

ROOT = Path(__file__).resolve().parents[3]
STUDIES = [ROOT / "config.yaml", *sorted((ROOT / "studies").rglob("*.yaml"))]
NESTED = ("additionalProperties", "items")
ALTERNATIVES = ("oneOf", "anyOf")


def resolved(part):
    """Replace a reference by the definition that it names. Keys next to it override."""
    if "$ref" not in part:
        return part
    name = part["$ref"].rpartition("/")[2]
    return schema.json_schema()["$defs"][name] | {
        key: value for key, value in part.items() if key != "$ref"
    }


def properties(part, path=()):
    """Yield all keys that a schema knows, as ``(path, schema of the key)``."""
    part = resolved(part)
    for name, inner in part.get("properties", {}).items():
        yield (*path, name), resolved(inner)
        yield from properties(inner, (*path, name))
    for inner in [*part.get("patternProperties", {}).values(), *map(part.get, NESTED)]:
        if isinstance(inner, dict):
            yield from properties(inner, (*path, "*"))
    for key in ALTERNATIVES:
        for inner in part.get(key, []):
            yield from properties(inner, path)


PROPERTIES = dict(properties(schema.json_schema()))


def defaults_in(*path):
    """Return the defaults of the keys of a section."""
    return {
        key[-1]: part["default"]
        for key, part in PROPERTIES.items()
        if key[:-1] == path and "default" in part
    }


def keys_in(*path):
    return {key[-1] for key in PROPERTIES if key[:-1] == path}


def test_file_for_editors_is_up_to_date():
    assert json.loads(schema.FILE.read_text(encoding="utf-8")) == schema.json_schema_of_files(), (
        "run: PYTHONPATH=workflow/scripts python -m plasticity.config.schema"
    )


def test_json_schema_is_valid():
    jsonschema.Draft202012Validator.check_schema(schema.json_schema())
    jsonschema.Draft202012Validator.check_schema(schema.json_schema_of_files())


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: str(path.relative_to(ROOT)))
def test_json_schema_accepts_shipped_studies(path):
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema.json_schema_of_files()).validate(config)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seeds_per_job", 0),
        ("curvatur", {}),
        (f"{PROBLEM}.head", "new"),
        (f"{PROBLEM}.batch", ABSENT),
        (OPERATORS, []),
        (OPERATORS, ["ggn", "ggn"]),
        (OPERATORS, {"ggn": {"steps": 2}}),
        ("methods.l2.strength", -1),
        ("methods.l2.strength", True),
        ("methods.l2.settings", []),
        ("datasets", {"imagenet": {"classes": 0}}),
        ("statistics", {"hypotheses": [{"name": "H1"}]}),
    ],
    ids=lambda value: "absent" if value is ABSENT else str(value),
)
def test_json_schema_refuses_mistakes(key, value):
    for json_schema in (schema.json_schema(), schema.json_schema_of_files()):
        validator = jsonschema.Draft202012Validator(json_schema)
        assert validator.is_valid(CONFIG)
        assert not validator.is_valid(changed((key, value)))


@pytest.mark.parametrize(
    ("changes", "is_accepted"),
    [
        ({}, True),
        ({"seeds": {"report": 2}, "methods": {"l2": None}, "interventions": None}, True),
        ({"settings": {"row": {"problem": {"samples": 9}, "optimizer": {"lr": None}}}}, True),
        ({"curvature": {"operators": {"fisher": {"every": None}}}}, True),
        ({"study": None}, False),
        ({"sedes": {"report": 2}}, False),
        ({"seeds": {"reprot": 2}}, False),
        ({"seeds": {"report": 0}}, False),
        ({"settings": {"row": {"problem": {"samples": "9"}}}}, False),
        ({"extends": 3}, False),
    ],
    ids=str,
)
def test_file_that_extends_a_study_needs_only_a_name_and_valid_changes(changes, is_accepted):
    validator = jsonschema.Draft202012Validator(schema.json_schema_of_files())
    config = {"extends": "mnist", "study": "mine"} | changes
    assert validator.is_valid(config) == is_accepted
    assert not validator.is_valid({"extends": "mnist"}), "its results need a name"
    assert not validator.is_valid({"study": "mine"}), "it extends no study"


def test_every_key_of_schema_has_description_and_type():
    assert {
        ("seeds", "report"),
        ("settings", "*", "problem", "batch"),
        ("methods", "*", "settings"),
        ("curvature", "every"),
        ("curvature", "operators", "*", "every"),
        ("statistics", "hypotheses", "*", "arm"),
    } <= set(PROPERTIES)
    for path, part in {(): schema.json_schema(), **PROPERTIES}.items():
        assert len(part.get("description", "").split()) >= 2, path
        assert {"type", "enum", "const", "oneOf"} & set(part), path
        if part.get("type") == "object":
            assert "additionalProperties" in part or "patternProperties" in part, path


@pytest.mark.parametrize(
    "name", [name for name in vars(models) if is_dataclass(vars(models)[name])]
)
def test_every_field_of_model_has_description(name):
    model = vars(models)[name]
    sections = {"problem", "network", "optimizer"} if name == "Setting" else set()
    inherited = {"options"} if issubclass(model, models.Choice) and name != "Choice" else set()
    names = {field.name for field in fields(model)}
    assert set(schema.descriptions(model)) == names - sections - inherited


def test_schema_of_operator_has_all_keys_of_spectra():
    spectra = {field.name for field in fields(Spectra)}
    assert keys_in("curvature", "operators", "*") == spectra
    assert keys_in("curvature") == spectra | {"operators", "levels", "top"}
    for key in spectra:
        common = dict(PROPERTIES["curvature", key])
        common.pop("default", None)
        assert PROPERTIES["curvature", "operators", "*", key] == common


def test_defaults_of_curvature_equal_defaults_of_classes():
    written = {"samples": 8, "every": 1, "evaluation_points": ["next"], "operators": ["ggn"]}
    assert Curvature.of(written | defaults_in("curvature")) == Curvature.of(written)
    assert set(defaults_in("curvature")) == {
        *("blocks", "exact_up_to", "estimate", "steps", "probes", "probe_block"),
        *("levels", "top"),
    }
    assert defaults_in("curvature", "operators", "*") == {}


def test_defaults_of_sections_equal_defaults_of_classes():
    assert defaults_in("training") == asdict(Training())
    assert defaults_in("tuning") == asdict(Tuning())
    assert Statistics.of(defaults_in("statistics")) == Statistics()
    assert set(defaults_in("statistics")) == set(asdict(Statistics()))
    assert defaults_in("seeds") == {"tune": 0}


def test_sections_with_only_defaults_may_be_left_out():
    required = set(schema.json_schema()["required"])
    assert required == {*CONFIG}
    optional = {"tuning", "datasets", "training", "interventions", "figures", "statistics"}
    assert keys_in() - required == optional
    read = study.read(CONFIG)
    assert study.read(changed(("training", {}))) == read
    assert study.read(changed(("training", defaults_in("training")))) == read
    assert study.read(changed(("statistics", {"hypotheses": []}))) == read
    assert study.read(changed(("seeds.tune", ABSENT))) == read


@pytest.mark.parametrize(
    ("folder", "section", "model"),
    [
        ("datasets", ("datasets", "*"), Dataset),
        ("shifts", ("settings", "*", "problem"), Problem),
        ("architectures", ("settings", "*", "network"), Network),
        ("optimizers", ("settings", "*", "optimizer"), Optimizer),
    ],
)
def test_schema_describes_options_of_shipped_files_with_their_defaults(folder, section, model):
    modules = [registry.load(folder, name) for name in registry.names(folder)]
    plug_ins = [getattr(module, registry.CLASSES[folder]) for module in modules]
    defaults = {}
    for plug_in in filter(is_dataclass, [model, *plug_ins]):
        for field in fields(plug_in):
            defaults.setdefault(field.name, set()).add(field.default)
    assert defaults.keys() - {"options"} <= keys_in(*section)
    for key, value in defaults_in(*section).items():
        assert defaults[key] == {tuple(value) if isinstance(value, list) else value}, key


def test_tuning_allows_every_outcome_to_minimise_and_every_stage():
    assert tuple(PROPERTIES["tuning", "outcome"]["enum"]) == outcomes.LOWER_IS_BETTER
    assert set(outcomes.LOWER_IS_BETTER) <= set(outcomes.TABLE)
    assert set(PROPERTIES["tuning", "stage"]["enum"]) == set(outcomes.stages(16))
