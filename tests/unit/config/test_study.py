"""A config is checked once, and what is wrong with it is said in sentences; a right one becomes ensembles."""

import copy
import json
import math
import re
import shutil
from dataclasses import MISSING, asdict, is_dataclass, replace
from dataclasses import fields as dataclass_fields
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from plasticity.config import registry, study
from plasticity.config.models import (
    Criterion,
    Curvature,
    Dataset,
    Network,
    Optimizer,
    Problem,
    Setting,
    Spectra,
    Statistics,
    Training,
    arm_name,
)
from plasticity.errors import StudyError
from plasticity.training import outcomes

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"
SHIPPED = [ROOT / "config.yaml", *sorted((ROOT / "studies").rglob("*.yaml"))]

CONFIG = yaml.safe_load("""
study: small
data_root: data
seeds: {tune: 0, report: 5}
seeds_per_job: 2
settings:
  row:
    problem: {dataset: digits, shift: shuffle_labels, samples: 64, batch: 16, epochs: 2, tasks: 3}
    network: {kind: mlp, width: 8, depth: 2, activation: relu}
    optimizer: {kind: adam, lr: 0.001}
  other:
    problem: {dataset: digits, shift: shuffle_labels, samples: 64, batch: 16, epochs: 2, tasks: 3}
    network: {kind: mlp, width: 8, depth: 2, activation: tanh}
    optimizer: {kind: adam, lr: 0.001}
methods:
  none: {}
  l2: {strength: [0.001, 0.01]}
  wasserstein: {strength: 0.1, settings: [row]}
curvature: {operators: [fisher], samples: 32, evaluation_points: [old, new], every: 1}
""")
GONE = object()


def changed(*changes):
    """The config above with values at dotted keys replaced, or taken out."""
    config = copy.deepcopy(CONFIG)
    for key, value in changes:
        *path, last = key.split(".")
        place = config
        for name in path:
            place = place[name]
        if value is GONE:
            del place[last]
        else:
            place[last] = value
    return config


def refusal(*changes):
    """The lines that refuse the changed config."""
    with pytest.raises(StudyError) as refused:
        study.read(changed(*changes), SCHEMA)
    lines = str(refused.value).splitlines()
    for line in lines:
        assert line.startswith("config.yaml: ")
        assert not re.search(
            r"<class|NoneType|OrderedDict|Traceback|\b(dict|str|int|float|bool|tuple)\b", line
        ), line
    return lines


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_studies_are_valid(path):
    config = yaml.safe_load(path.read_text())
    found = study.read(config, SCHEMA)
    assert found.name == config["study"]
    assert len(found.ensembles()) == sum(
        len(found.methods_of(name)) for name in found.settings
    ) * len(study.packed(range(found.seeds), found.seeds_per_job))


STUDIES = ROOT / "studies"
WHOLE = [path for path in sorted(STUDIES.glob("*.yaml")) if path.name != "evidence.yaml"]
TWINS = [(path, STUDIES / "small" / path.name, 0.01) for path in WHOLE] + [
    (STUDIES / "paper.yaml", STUDIES / "evidence.yaml", 0.05)
]


@pytest.mark.parametrize(
    ("path", "scaled", "share"),
    TWINS,
    ids=[f"{scaled.parent.name}-{scaled.name}" for _, scaled, _ in TWINS],
)
def test_a_scaled_study_has_the_same_settings_and_less_of_them(path, scaled, share):
    study, twin = (yaml.safe_load(one.read_text(encoding="utf-8")) for one in (path, scaled))
    assert twin["study"] == (
        f"{study['study']}_small" if scaled.parent.name == "small" else scaled.stem
    )
    assert list(twin["settings"]) == list(study["settings"])
    assert set(twin["methods"]) <= set(study["methods"]) or scaled.stem == "evidence"
    budget = {"samples", "batch", "epochs", "tasks"}
    for name, setting in study["settings"].items():
        large, small = setting["problem"], twin["settings"][name]["problem"]
        assert twin["settings"][name] == setting | {
            "problem": large | {key: small[key] for key in budget}
        }, name
        assert (
            small["samples"] * small["epochs"] * small["tasks"]
            <= share * large["samples"] * large["epochs"] * large["tasks"]
        ), name


def test_the_papers_settings_are_there():
    settings = yaml.safe_load((ROOT / "studies" / "paper.yaml").read_text(encoding="utf-8"))[
        "settings"
    ]
    separable = {
        values["network"]["activation"]
        for values in settings.values()
        if values["problem"].get("separable")
    }
    assert separable == {"relu", "leaky_relu", "tanh", "identity"}
    found = {
        (
            values["problem"]["dataset"],
            values["problem"]["shift"],
            values["network"]["kind"],
            values["optimizer"]["kind"],
        )
        for values in settings.values()
        if "separable" not in values["problem"]
    }
    assert found >= {
        ("mnist", "shuffle_labels", "mlp", "adam"),
        ("mnist", "shuffle_labels", "mlp", "sgd"),
        ("mnist", "permute_pixels", "mlp", "adam"),
        ("mnist", "remap_labels", "mlp", "adam"),
        ("cifar10", "shuffle_labels", "mlp", "adam"),
        ("cifar10", "shuffle_labels", "cnn", "adam"),
        ("cifar10", "permute_pixels", "mlp", "adam"),
        ("imagenet", "class_pairs", "cnn", "adam"),
    }


def test_a_config_is_typed_as_it_is_written():
    found = study.read(CONFIG, SCHEMA)
    assert (found.name, found.seeds, found.seeds_per_job) == ("small", 5, 2)
    assert list(found.settings) == ["other", "row"]  # by name, whatever the order in the config
    assert found.settings["other"] == Setting.of(CONFIG["settings"]["other"])
    assert found.training == Training()
    assert found.curvature == Curvature(
        {"fisher": Spectra(32, 1, ("previous", "next"))}, ("previous", "next"), 1
    )


def test_an_operators_own_keys_come_before_the_common_ones_and_those_before_the_defaults():
    own = {"ggn": {"samples": 8, "evaluation_points": ["next"], "steps": 9}, "fisher": {}}
    found = study.read(
        changed((OPERATORS, own), ("curvature.probes", 7), ("curvature.levels", [0.9])), SCHEMA
    ).curvature
    assert list(found.operators) == ["fisher", "ggn"]
    assert found.operators["fisher"] == Spectra(32, 1, ("previous", "next"), probes=7)
    assert found.operators["ggn"] == Spectra(8, 1, ("next",), steps=9, probes=7)
    assert (found.evaluation_points, found.every, found.levels, found.top) == (
        ("previous", "next"),
        1,
        (0.9,),
        10,
    )
    assert Curvature.of(json.loads(json.dumps(asdict(found)))) == found
    as_list, as_mapping = (
        study.read(changed((OPERATORS, names)), SCHEMA).curvature
        for names in (["ntk", "ggn"], {"ggn": {}, "ntk": {}})
    )
    assert as_list == as_mapping


def test_the_defaults_of_curvature_are_what_the_schema_says():
    described = dict(properties(yaml.safe_load(SCHEMA.read_text())))
    fields = [*dataclass_fields(Spectra), *dataclass_fields(Curvature)]
    defaults = {field.name: field.default for field in fields if field.default is not MISSING}
    assert defaults.pop("blocks") == ("layers", "last_two", "all")
    assert "(default all three)" in described["curvature", "blocks"]["description"]
    for key, default in defaults.items():
        value = json.dumps(list(default) if isinstance(default, tuple) else default)
        assert re.search(
            rf"\(default {re.escape(value)}\b|\(default {re.escape(value)}\)",
            described["curvature", key]["description"],
        ), key
    assert set(described["curvature", "operators", "*", "samples"]) == set(
        described["curvature", "samples"]
    )
    own = {
        path[-1]
        for path in described
        if path[:3] == ("curvature", "operators", "*") and len(path) == 4
    }
    assert own == {field.name for field in dataclass_fields(Spectra)}
    assert {path[1] for path in described if path[0] == "curvature" and len(path) == 2} == own | {
        "operators",
        "levels",
        "top",
    }


def test_every_operator_that_has_a_file_may_be_named():
    for names in (registry.names("operators"), {name: {} for name in registry.names("operators")}):
        assert list(
            study.read(changed((OPERATORS, names)), SCHEMA).curvature.operators
        ) == registry.names("operators")


def test_what_training_records_and_its_precision_are_typed_as_they_are_written():
    written = {"checkpoint_every": 4, "curve_points": 3, "precision": "bfloat16"}
    assert study.read(
        changed(("training", written), ("curvature.every", 8)), SCHEMA
    ).training == Training(4, 3, "bfloat16")


def properties(schema, path=()):
    """All keys that a schema knows, as ``(path, sub-schema)``."""
    for name, inner in schema.get("properties", {}).items():
        yield (*path, name), inner
        yield from properties(inner, (*path, name))
    for key in ("additionalProperties", "items", "if", "then", "else"):
        if isinstance(schema.get(key), dict):
            yield from properties(schema[key], (*path, "*"))


def test_every_key_of_the_schema_says_what_it_means_and_is_closed_to_unknown_ones():
    schema = yaml.safe_load(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    known = dict(properties(schema))
    assert {
        ("seeds", "report"),
        ("settings", "*", "problem", "batch"),
        ("methods", "*", "settings"),
        ("curvature", "every"),
    } <= set(known)
    for path, inner in {(): schema, **known}.items():
        assert len(inner.get("description", "").split()) >= 2, path
        assert {"type", "enum", "const"} & set(inner), path
        if inner.get("type") == "object":
            assert "additionalProperties" in inner, path


def test_defaults_that_the_schema_names_may_be_left_out_and_are_what_it_says():
    schema = yaml.safe_load(SCHEMA.read_text())
    defaults = {path: inner["default"] for path, inner in properties(schema) if "default" in inner}
    recorded = {
        path[1]: value
        for path, value in defaults.items()
        if path[0] == "training" and len(path) == 2
    }
    assert recorded == asdict(Training())
    folders = {"datasets": Dataset, "problem": Problem, "network": Network, "optimizer": Optimizer}
    left_out = {
        name
        for name in defaults
        if name[0] not in {"training", "settings"} and not (name[0] == "datasets" and len(name) > 1)
    }
    tested = {
        path[1]: value
        for path, value in defaults.items()
        if path[0] == "statistics" and len(path) == 2
    }
    assert Statistics.of(tested) == Statistics()
    assert set(tested) == set(asdict(Statistics()))
    tuning = {path[1]: value for path, value in defaults.items() if path[0] == "tuning"}
    assert tuning == asdict(Criterion())
    assert left_out - {("tuning", key) for key in tuning} - {
        ("statistics", key) for key in tested
    } == {
        ("seeds", "tune"),
        ("datasets",),
        ("statistics",),
    }
    for part, typed in folders.items():
        told = {
            path[-1]: value for path, value in defaults.items() if part in path and len(path) > 1
        }
        folder = {"problem": "shifts", "network": "architectures"}.get(
            part, part if part == "datasets" else f"{part}s"
        )
        classes = [
            typed,
            *(
                getattr(registry.load(folder, name), registry.CLASSES[folder])
                for name in registry.names(folder)
            ),
        ]
        fields = [field for one in classes if is_dataclass(one) for field in dataclass_fields(one)]
        for key, value in told.items():
            found = {field.default for field in fields if field.name == key}
            assert found == {tuple(value) if isinstance(value, list) else value}, (part, key)
        described = dict(properties(schema))
        keys = {path[-1] for path in described if part in path}
        assert {field.name for field in fields} - {"options"} <= keys, part
    assert (
        study.read(changed(("training", {})), SCHEMA)
        == study.read(changed(("training", recorded)), SCHEMA)
        == study.read(CONFIG, SCHEMA)
    )
    assert study.read(changed(("seeds.tune", GONE)), SCHEMA) == study.read(
        changed(("statistics", {"hypotheses": []})), SCHEMA
    )


PROBLEM, OPTIMIZER = "settings.row.problem", "settings.row.optimizer"
OPERATORS = "curvature.operators"
MISTAKES = {
    "misspelt key": (
        [(f"{PROBLEM}.sampels", 3)],
        [PROBLEM, "'sampels'", "did you mean 'samples'?"],
    ),
    "misspelt key at the top": ([("curvatur", {})], ["curvatur", "did you mean 'curvature'?"]),
    "missing key": ([(f"{PROBLEM}.batch", GONE)], [PROBLEM, "lacks 'batch'", "add it"]),
    "text for a number": (
        [(f"{OPTIMIZER}.lr", "1e-3")],
        [f"{OPTIMIZER}.lr", "'1e-3'", "write 1.0e-"],
    ),
    "text for a strength": (
        [("methods.l2.strength", "1e-3")],
        ["methods.l2.strength", "'1e-3'", "write 1.0e-"],
    ),
    "text in a list of strengths": (
        [("methods.l2.strength", [0.1, "1e-3"])],
        ["methods.l2.strength.1", "'1e-3'", "write 1.0e-"],
    ),
    "word for a number": ([("seeds_per_job", "all")], ["seeds_per_job", '"all"', "change it"]),
    "truth for a number": ([("seeds_per_job", True)], ["seeds_per_job", "true", "change it"]),
    "nothing for a number": ([("seeds_per_job", None)], ["seeds_per_job", "null", "change it"]),
    "fraction for a count": (
        [(f"{PROBLEM}.epochs", 2.5)],
        [f"{PROBLEM}.epochs", "2.5", "change it"],
    ),
    "nothing for a method": ([("methods.none", None)], ["methods.none", "null", "change it"]),
    "negative seeds": ([("seeds.report", -1)], ["seeds.report", "-1", "below 1", "raise it"]),
    "no steps": ([(f"{OPTIMIZER}.lr", 0)], [f"{OPTIMIZER}.lr", "0", "raise it"]),
    "negative strength": (
        [("methods.l2.strength", -0.5)],
        ["methods.l2.strength", "-0.5", "below 0", "raise it"],
    ),
    "negative strength in a list": (
        [("methods.l2.strength", [0.1, -0.5])],
        ["methods.l2.strength.1", "-0.5", "raise it"],
    ),
    "no methods": ([("methods", {})], ["methods", "empty", "name at least one"]),
    "no strengths": (
        [("methods.l2.strength", [])],
        ["methods.l2.strength", "empty", "name at least one"],
    ),
    "no settings": ([("settings", {})], ["settings", "empty", "name at least one"]),
    "strength twice": (
        [("methods.l2.strength", [0.1, 0.1])],
        ["methods.l2.strength", "0.1", "remove one"],
    ),
    "unknown activation": (
        [("settings.row.network.activation", "rleu")],
        ["row.network.activation", '"rleu"', "did you mean 'relu'?"],
    ),
    "unknown operator": (
        [("curvature.operators", ["ggm"])],
        [OPERATORS, "'ggm'", "did you mean 'ggn'?"],
    ),
    "unknown operator with keys of its own": (
        [(f"{OPERATORS}", {"hesian": {}})],
        [OPERATORS, "'hesian'", "did you mean 'hessian'?"],
    ),
    "no operator": ([(OPERATORS, [])], [f"{OPERATORS} is empty", "name at least one"]),
    "no operator in a mapping": ([(OPERATORS, {})], [f"{OPERATORS} is empty", "name at least one"]),
    "an operator twice": (
        [(OPERATORS, ["ggn", "ggn"])],
        [OPERATORS, "with a value twice", "remove one"],
    ),
    "an operator that is not in a list": (
        [(OPERATORS, "ggn")],
        [f'{OPERATORS} is "ggn"', "no list or mapping"],
    ),
    "nothing for an operator": (
        [(OPERATORS, {"ggn": None})],
        [f"{OPERATORS}.ggn is null", "mapping ({} is an empty one)"],
    ),
    "an operator's key misspelt": (
        [(OPERATORS, {"ggn": {"sampels": 9}})],
        [f"{OPERATORS}.ggn", "'sampels'", "did you mean 'samples'?"],
    ),
    "a key of all operators in one": (
        [(OPERATORS, {"ggn": {"levels": [0.9]}})],
        [f"{OPERATORS}.ggn", "unknown key 'levels'"],
    ),
    "an operator on one image": (
        [(OPERATORS, {"ggn": {"samples": 1}})],
        [f"{OPERATORS}.ggn.samples is 1, below 2", "raise it"],
    ),
    "an operator at some of the tasks between": (
        [("curvature.every", 2), (OPERATORS, {"ggn": {"every": 3}})],
        [f"{OPERATORS}.ggn.every is 3", "at every 2 (curvature.every)", "multiple"],
    ),
    "an operator at an evaluation point of its own": (
        [(OPERATORS, {"ggn": {"evaluation_points": ["fresh", "next"]}})],
        [
            f"{OPERATORS}.ggn.evaluation_points has fresh, which curvature.evaluation_points lacks",
            "add it there",
        ],
    ),
    "an unknown evaluation_point": (
        [("curvature.evaluation_points", ["freshly"])],
        ["curvature.evaluation_points.0", "did you mean 'fresh'?"],
    ),
    "an unknown block": (
        [("curvature.blocks", ["layer"])],
        ["curvature.blocks.0", "did you mean 'layers'?"],
    ),
    "no block": ([("curvature.blocks", [])], ["curvature.blocks is empty", "name at least one"]),
    "more than the whole spectrum": (
        [("curvature.levels", [0.9, 1.5])],
        ["curvature.levels.1 is 1.5, above 1", "lower it"],
    ),
    "nothing of the spectrum": (
        [("curvature.levels", [0])],
        ["curvature.levels.0 is 0, not above 0", "raise it"],
    ),
    "a level that is not in a list": (
        [("curvature.levels", 0.9)],
        ["curvature.levels is 0.9", "no list"],
    ),
    "a level twice": (
        [("curvature.levels", [0.9, 0.9])],
        ["curvature.levels", "with a value twice"],
    ),
    "a level as text": (
        [("curvature.levels", ["9e-1"])],
        ["curvature.levels.0", "'9e-1'", "write 9.0e-01"],
    ),
    "one probe": ([("curvature.probes", 1)], ["curvature.probes is 1, below 2", "raise it"]),
    "one probe of an operator": (
        [(OPERATORS, {"ggn": {"probes": 1}})],
        [f"{OPERATORS}.ggn.probes is 1, below 2", "raise it"],
    ),
    "two steps": ([("curvature.steps", 2)], ["curvature.steps is 2, below 4", "raise it"]),
    "rows as text": (
        [(OPERATORS, {"ggn": {"exact_up_to": "1e3"}})],
        [f"{OPERATORS}.ggn.exact_up_to", "'1e3'", "write 1000"],
    ),
    "an estimate of a word": (
        [("curvature.estimate", "no")],
        ['curvature.estimate is "no"', "no true or false"],
    ),
    "no eigenvector": ([("curvature.top", 0)], ["curvature.top is 0, below 1", "raise it"]),
    "bad name": ([("study", "My Study")], ["study", '"My Study"', "rename it"]),
    "unknown method": (
        [("methods.wasserstien", {"strength": 1})],
        ["methods", "'wasserstien'", "did you mean 'wasserstein'?"],
    ),
    "unknown hyper-parameter": (
        [("methods.l2.strenght", 1)],
        ["methods.l2", "'strenght'", "did you mean 'strength'?"],
    ),
    "hyper-parameter of a method without": (
        [("methods.none.strength", 1)],
        ["methods.none", "'strength'", "known: settings"],
    ),
    "missing hyper-parameter": ([("methods.l2", {})], ["methods.l2", "lacks", "'strength'", "add"]),
    "unknown setting of a method": (
        [("methods.l2.settings", ["rwo"])],
        ["methods.l2.settings", "'rwo'", "did you mean 'row'?"],
    ),
    "unknown dataset": (
        [(f"{PROBLEM}.dataset", "minst")],
        [f"{PROBLEM}.dataset", "'minst'", "did you mean 'mnist'?"],
    ),
    "batch above samples": (
        [(f"{PROBLEM}.batch", 65)],
        [f"{PROBLEM}.batch", "65", "64 samples", "lower batch or raise samples"],
    ),
    "curvature on too many": (
        [(f"{PROBLEM}.samples", 31)],
        ["curvature.samples", "32", "row", "31 samples", "lower curvature.samples"],
    ),
    "not a number": ([(f"{OPTIMIZER}.lr", math.nan)], [f"{OPTIMIZER}.lr", "NaN"]),
    "infinite lr": ([(f"{OPTIMIZER}.lr", math.inf)], [f"{OPTIMIZER}.lr", "Infinity"]),
    "strength not a number": ([("methods.l2.strength", math.nan)], ["methods.l2.strength", "NaN"]),
    "infinite strength in a list": (
        [("methods.l2.strength", [0.1, math.inf])],
        ["methods.l2.strength.1", "Infinity"],
    ),
    "misspelt key of training": (
        [("training", {"curve_point": 5})],
        ["training", "'curve_point'", "did you mean 'curve_points'?"],
    ),
    "checkpoints never": (
        [("training", {"checkpoint_every": 0})],
        ["training.checkpoint_every", "0", "below 1", "raise it"],
    ),
    "no point in a curve": (
        [("training", {"curve_points": 0})],
        ["training.curve_points", "0", "below 1", "raise it"],
    ),
    "text for a number of points": (
        [("training", {"curve_points": "1e1"})],
        ["training.curve_points", "'1e1'", "write 10"],
    ),
    "unknown precision": (
        [("training", {"precision": "bfloat"})],
        ["training.precision", '"bfloat"', "did you mean 'bfloat16'?"],
    ),
    "precision of another kind": (
        [("training", {"precision": 16})],
        ["training.precision", "16", "known: float32, bfloat16"],
    ),
    "nothing for training": ([("training", None)], ["training", "null", "change it"]),
    "curvature where there is no checkpoint": (
        [("training", {"checkpoint_every": 2}), ("curvature.every", 3)],
        ["curvature.every", "3", "only every 2 tasks", "training.checkpoint_every", "multiple"],
    ),
    "curvature at each task and checkpoints at some": (
        [("training", {"checkpoint_every": 2})],
        ["curvature.every", "1", "only every 2 tasks", "training.checkpoint_every", "multiple"],
    ),
    "missing key under another name": (
        [(f"{PROBLEM}.samples", GONE), (f"{PROBLEM}.sampels", 64)],
        ["lacks 'samples'", "is it 'sampels'?"],
    ),
    "unknown change": (
        [(f"{PROBLEM}.shift", "shuffle_label")],
        [f"{PROBLEM}.shift", "did you mean 'shuffle_labels'?"],
    ),
    "option of another change": (
        [(f"{PROBLEM}.fraction", 0.5)],
        [PROBLEM, "unknown key 'fraction'", "first_task"],
    ),
    "missing option of a change": (
        [(f"{PROBLEM}.shift", "redraw_labels")],
        [PROBLEM, "lacks 'fraction'", "redraw_labels", "add it"],
    ),
    "more than all": (
        [(f"{PROBLEM}.shift", "redraw_labels"), (f"{PROBLEM}.fraction", 1.5)],
        [f"{PROBLEM}.fraction", "1.5", "above 1", "lower it"],
    ),
    "two budgets": (
        [(f"{PROBLEM}.steps_per_task", 5)],
        [PROBLEM, "both epochs and steps_per_task", "give one of them"],
    ),
    "no budget": (
        [(f"{PROBLEM}.epochs", GONE)],
        [PROBLEM, "neither epochs nor steps_per_task", "give one of them"],
    ),
    "unknown network": (
        [("settings.row.network.kind", "mpl")],
        ["row.network.kind", "'mpl'", "did you mean 'mlp'?"],
    ),
    "option of another network": (
        [("settings.row.network.patch", 4)],
        ["row.network", "unknown key 'patch'", "depth"],
    ),
    "missing option of a network": (
        [("settings.row.network.width", GONE)],
        ["row.network", "lacks 'width'", "mlp", "add it"],
    ),
    "unknown initialisation": (
        [("settings.row.network.initialization", "kaiming")],
        ["row.network.initialization", "he, xavier, orthogonal, pytorch"],
    ),
    "unknown optimizer": (
        [(f"{OPTIMIZER}.kind", "adamm")],
        [f"{OPTIMIZER}.kind", "'adamm'", "did you mean 'adam'?"],
    ),
    "option of another optimizer": (
        [(f"{OPTIMIZER}.momentum", 0.5)],
        [OPTIMIZER, "unknown key 'momentum'", "betas"],
    ),
    "a mean that never moves": (
        [(f"{OPTIMIZER}.betas", [0.9, 1])],
        [f"{OPTIMIZER}.betas.1", "1", "not below 1", "lower it"],
    ),
    "one beta": ([(f"{OPTIMIZER}.betas", [0.9])], [f"{OPTIMIZER}.betas", "[0.9]", "not 2 values"]),
    "side 0": (
        [("datasets", {"imagenet": {"side": 0}})],
        ["datasets.imagenet.side", "0", "below 1", "raise it"],
    ),
    "side of text": (
        [("datasets", {"imagenet": {"side": "8"}})],
        ["datasets.imagenet.side", "'8'", "write 8"],
    ),
    "no classes": (
        [("datasets", {"imagenet": {"side": 8, "classes": 0}})],
        ["datasets.imagenet.classes", "0", "raise it"],
    ),
    "a list of no classes": (
        [("datasets", {"imagenet": {"side": 8, "classes": []}})],
        ["datasets.imagenet.classes", "empty", "name at least one"],
    ),
    "a class as text": (
        [("datasets", {"imagenet": {"side": 8, "classes": "ant"}})],
        ["datasets.imagenet.classes", '"ant"', "whole number", "or list"],
    ),
    "a class twice": (
        [("datasets", {"imagenet": {"side": 8, "classes": ["a", "a"]}})],
        ["datasets.imagenet.classes", "remove one"],
    ),
    "another way with flaws": (
        [("datasets", {"imagenet": {"side": 8, "unreadable": "ignore"}})],
        ["datasets.imagenet.unreadable", '"ignore"', "known: refuse, skip"],
    ),
    "no checksum": (
        [("datasets", {"imagenet": {"side": 8, "md5": "abc"}})],
        ["datasets.imagenet.md5", '"abc"'],
    ),
    "a dataset without what it needs": (
        [("datasets", {"birds": {"kind": "folder", "side": 8}})],
        ["datasets.birds", "lacks 'path'", "folder", "add it"],
    ),
    "no files": (
        [("datasets", {"cifar10": {"files": []}})],
        ["datasets.cifar10.files", "empty", "name at least one"],
    ),
    "a file twice": (
        [("datasets", {"cifar10": {"files": ["a", "a"]}})],
        ["datasets.cifar10.files", "remove one"],
    ),
    "a file for a list": (
        [("datasets", {"cifar10": {"files": "data_batch_1"}})],
        ["datasets.cifar10.files", "list", "change it"],
    ),
    "one bit": (
        [("datasets", {"bits": {"inputs": 1}})],
        ["datasets.bits.inputs", "1", "below 2", "raise it"],
    ),
    "options of a dataset without": (
        [("datasets", {"digits": {"side": 3}})],
        ["datasets.digits", "unknown key 'side'"],
    ),
    "a dataset of an unknown kind": (
        [("datasets", {"mine": {"kind": "foldr"}})],
        ["datasets.mine.kind", "'foldr'", "did you mean 'folder'?"],
    ),
    "an unknown outcome to choose by": (
        [("seeds.tune", 2), ("tuning", {"outcome": "final_eror"})],
        [
            "tuning.outcome",
            '"final_eror"',
            "did you mean 'final_error'?",
            "final_error, online_error, final_loss, test_error",
        ],
    ),
    "an outcome that has no better": (
        [("seeds.tune", 2), ("tuning", {"outcome": "update_norm"})],
        ["tuning.outcome", "known: final_error"],
    ),
    "an unknown stage": (
        [("seeds.tune", 2), ("tuning", {"stage": "change"})],
        ["tuning.stage", '"change"', "known: all, early, late"],
    ),
    "a criterion without tuning seeds": (
        [("tuning", {})],
        ["tuning", "seeds.tune is 0", "raise seeds.tune or remove tuning"],
    ),
    "a choice by test images that are not there": (
        [
            ("seeds.tune", 2),
            ("tuning", {"outcome": "test_error"}),
            ("settings.other.problem.test_samples", 9),
        ],
        [
            "tuning.outcome is test_error",
            "settings.row.problem has no test_samples",
            "choose another outcome",
        ],
    ),
    "fewer tuning seeds than none": ([("seeds.tune", -1)], ["seeds.tune", "-1", "raise it"]),
    "as many reporting seeds as would be tuning seeds": (
        [("seeds.report", 1001)],
        ["seeds.report", "1001", "above 1000", "lower it"],
    ),
    "infinite count": (
        [(f"{PROBLEM}.tasks", math.inf)],
        [f"{PROBLEM}.tasks", "Infinity", "change it"],
    ),
}


@pytest.mark.parametrize(("changes", "fragments"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_with_key_value_and_what_to_do(changes, fragments):
    (line,) = refusal(*changes)
    for fragment in fragments:
        assert fragment in line, line


REDO, BACKPROP = {"redo.threshold": 0.1, "redo.period": 3}, {"continual_backprop.rate": 0.1}
CNN = {"kind": "cnn", "activation": "relu"}
VIT = {"kind": "vit", "activation": "relu"}
ACTIVATION = "settings.row.network.activation"
METHODS = {
    "unknown part": ({"l2 + l2int": {}}, [], ["unknown method 'l2int'", "did you mean 'l2_init'?"]),
    "nothing after a plus": (
        {"l2 +": {"l2.strength": 1}},
        [],
        ["unknown method ''", "known: continual_backprop, "],
    ),
    "unknown key of a part": (
        {"l2 + dropout": {"l2.strength": 1, "dropout.rate": 0.1, "dropout.rat": 0.1}},
        [],
        [
            "'dropout.rat'",
            "did you mean 'dropout.rate'?",
            "Known: settings, l2.strength, dropout.rate",
        ],
    ),
    "missing key of a part": ({"l2 + crelu": {}}, [], ["lacks 'l2.strength'", "add it"]),
    "negative period": (
        {"full_reset": {"period": -1}},
        [],
        ["methods.full_reset.period", "-1", "below 0", "raise it"],
    ),
    "rate above one": (
        {"dropout": {"rate": 1.5}},
        [],
        ["methods.dropout.rate", "1.5", "above 1", "lower it"],
    ),
    "rate above one in a list": (
        {"dropout": {"rate": [0.5, 1.5]}},
        [],
        ["methods.dropout.rate", "1.5", "above 1", "lower it"],
    ),
    "rate of a part above one": (
        {"l2 + dropout": {"l2.strength": 2, "dropout.rate": 2}},
        [],
        ["dropout.rate is 2", "above 1", "lower it"],
    ),
    "text for a number": (
        {"redo": {"threshold": "1e-3", "period": 3}},
        [],
        ["redo.threshold", "'1e-3'", "write 1.0e-03"],
    ),
    "word for a number": (
        {"redo": {"threshold": "low", "period": 3}},
        [],
        ["redo.threshold", "'low'", "not a number", "write one"],
    ),
    "text in a list": (
        {"redo": {"threshold": [0.1, "1e-3"], "period": 3}},
        [],
        ["redo.threshold.1", "'1e-3'", "write 1.0e-03"],
    ),
    "truth for a number": (
        {"redo": {"threshold": True, "period": 3}},
        [],
        ["redo.threshold", "true", "change it"],
    ),
    "number for a text": (
        {"spectral": {"strength": 1, "kernels": 3}},
        [],
        ["spectral.kernels", "3", "known: flat, places"],
    ),
    "unknown text": (
        {"spectral": {"strength": 1, "kernels": "flt"}},
        [],
        ["spectral.kernels", "'flt'", "did you mean 'flat'?"],
    ),
    "a list for a text": (
        {"parseval": {"strength": 1, "kernels": ["flat"]}},
        [],
        ["parseval.kernels.0", '"flat"', "change it"],
    ),
    "half a step": (
        {"redo": {"threshold": 0.1, "period": [2, 2.5]}},
        [],
        ["redo.period", "2.5", "not a whole number", "change it"],
    ),
    "two that reset units": (
        {"redo + continual_backprop": REDO | BACKPROP},
        [],
        ["contradict", "which units start anew", "choose one"],
    ),
    "two that shrink": (
        {
            "shrink_perturb + shrink_perturb_switch": {
                f"shrink_perturb{at}.{key}": 0
                for at in ("", "_switch")
                for key in ("shrink", "perturb")
            }
        },
        [],
        ["contradict", "shrinking", "choose one"],
    ),
    "none and another": (
        {"none + l2": {"l2.strength": 1}},
        [],
        ["none + l2: none goes with no other method", "remove it"],
    ),
    "fresh and another": (
        {"l2 + fresh": {"l2.strength": 1}},
        [],
        ["l2 + fresh: fresh goes with no other method", "remove it"],
    ),
    "twice the same": ({"l2 + l2": {"l2.strength": 1}}, [], ["names l2 twice", "remove one"]),
    "once more with other spaces": (
        {f"crelu{plus}l2": {"l2.strength": 1} for plus in ("+", " + ")},
        [],
        ["is methods.crelu+l2 once more", "remove one"],
    ),
    "crelu where nothing bends": (
        {"crelu": {}},
        [(ACTIVATION, "identity")],
        ["crelu", "row", "network.activation: identity", "limit it by `settings`"],
    ),
    "resets of silent units with tanh": (
        {"self_normalized_resets": {"rejection": 0.1}},
        [],
        [
            "self_normalized_resets",
            "in other",
            "network.activation: tanh",
            "limit it by `settings`",
        ],
    ),
    "resets of silent units beside crelu": (
        {
            "crelu + self_normalized_resets": {
                "self_normalized_resets.rejection": 0.1,
                "settings": ["row"],
            }
        },
        [],
        [
            "self_normalized_resets does not work with network.activation: crelu",
            "which crelu sets",
            "choose one",
        ],
    ),
    "layer norm where there is one": (
        {"layer_norm": {}},
        [("settings.row.network.norm", "layer")],
        ["layer_norm", "in row", "network.norm: layer", "limit it by `settings`"],
    ),
    "a baseline of some settings": (
        {"fresh": {"settings": ["row"]}},
        [],
        ["methods.fresh", "`settings`", "baseline", "remove them"],
    ),
    "singular values of convolutions": (
        {"spectral": {"strength": 1}},
        [("settings.row.network", CNN)],
        ["methods.spectral", "in row", "network.kind: cnn", "needs 'kernels'", "add it"],
    ),
    "orthogonal convolutions beside a norm": (
        {"layer_norm + parseval": {"parseval.strength": 1}},
        [("settings.row.network", {**CNN, "kind": "resnet18"})],
        [
            "methods.layer_norm + parseval",
            "in row",
            "network.kind: resnet18",
            "needs 'parseval.kernels'",
            "add it",
        ],
    ),
    "layer norm where there is no norm": (
        {"layer_norm": {}},
        [("settings.row.network", VIT)],
        ["layer_norm", "row", "vit has no option 'norm'", "limit it by `settings`"],
    ),
}


@pytest.mark.parametrize(("methods", "changes", "fragments"), METHODS.values(), ids=METHODS)
def test_a_mistake_about_methods_is_one_line_with_what_to_do(methods, changes, fragments):
    (line,) = refusal(("methods", methods), *changes)
    for fragment in fragments:
        assert fragment in line, line


def test_what_convolutions_need_is_not_asked_of_other_networks_and_may_be_given():
    spectral, network = {"spectral": {"strength": 1}}, ("settings.row.network", CNN)
    assert study.read(changed(("methods", spectral)), SCHEMA)
    assert study.read(
        changed(("methods", {"spectral": {"strength": 1, "kernels": "flat"}}), network), SCHEMA
    )
    assert study.read(
        changed(("methods", {"spectral": {"strength": 1, "settings": ["other"]}}), network), SCHEMA
    )


HYPOTHESIS = {
    "name": "H1",
    "measure": "weight_norm",
    "outcome": "final_error",
    "direction": "positive",
}


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"settings": ["rwo"]}, ["statistics.hypotheses.0.settings", "'rwo'", "row"]),
        ({"arm": "l2_inti"}, ["statistics.hypotheses.0.arm", "'l2_inti'", "write one of none"]),
        ({"direction": "down"}, ["statistics.hypotheses.0.direction", '"down"', "positive"]),
        ({"against": "trend"}, ["statistics.hypotheses.0.against", '"trend"', "task"]),
        ({"versus": "none"}, ["statistics.hypotheses.0"]),
        ({"stgae": "late"}, ["statistics.hypotheses.0", "unknown key 'stgae'", "stage"]),
    ],
)
def test_a_mistake_in_a_hypothesis_is_one_line_with_what_to_do(changes, fragments):
    with pytest.raises(StudyError) as refused:
        study.read(changed(("statistics", {"hypotheses": [HYPOTHESIS | changes]})), SCHEMA)
    (line,) = str(refused.value).splitlines()
    assert all(fragment in line for fragment in fragments), line


def test_two_hypotheses_of_one_name_are_refused_and_others_reach_the_tables():
    with pytest.raises(StudyError, match=r"hypotheses\.1\.name is 'H1', as another's is"):
        study.read(changed(("statistics", {"hypotheses": [HYPOTHESIS, HYPOTHESIS]})), SCHEMA)
    read = study.read(changed(("statistics", {"hypotheses": [HYPOTHESIS], "draws": 199})), SCHEMA)
    again = Statistics.of(json.loads(read.analysing()))
    assert again == read.statistics
    assert again.hypotheses[0].against == "mismatched"


def test_a_figure_shows_the_settings_that_the_config_names_in_that_order_and_else_all():
    read = study.read(changed(("figures", {"scatter": ["row"]})), SCHEMA)
    assert read.drawn("scatter") == ["row"]
    assert read.drawn("curvature") == list(read.settings)


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        (
            {"scater": ["row"]},
            "figures names 'scater', which is unknown: write one of associations, ",
        ),
        (
            {"scatter": ["rwo"]},
            "figures.scatter names 'rwo', which is unknown: write one of other, row",
        ),
        ({"scatter": []}, "figures.scatter"),
        ({"scatter": "row"}, "figures.scatter"),
    ],
)
def test_a_figure_or_a_setting_that_there_is_not_is_refused_in_a_line(figures, said):
    with pytest.raises(StudyError) as refused:
        study.read(changed(("figures", figures)), SCHEMA)
    (line,) = str(refused.value).splitlines()
    assert said in line


@pytest.fixture
def method_file(tmp_path, monkeypatch):
    """Writes the body of the class of a method `mine`, in a copy of the library's files that the launcher reads."""
    shutil.copytree(registry.LIBRARY, tmp_path / "library")
    monkeypatch.setattr(registry, "LIBRARY", tmp_path / "library")

    def write(*body):
        (tmp_path / "library/methods/mine.py").write_text(
            "\n    ".join(["class Method(Intervention):", *body]), encoding="utf-8"
        )

    return write


@pytest.mark.parametrize(
    ("body", "fragments"),
    [
        (["mode: str"], ["methods/mine.py", "mode", "CHOICES"]),
        (["mode: str = 'a'", "CHOICES = {'mod': ['a']}"], ["methods/mine.py", "mode", "CHOICES"]),
        (["mode: bool"], ["methods/mine.py", "mode is of type bool", "Tensor", "str"]),
    ],
)
def test_a_field_of_a_method_that_no_config_could_set_is_a_line_too(method_file, body, fragments):
    method_file(*body)
    with pytest.raises(StudyError) as refused:
        study.read(changed(("methods", {"mine": {"mode": 1}})), SCHEMA)
    (line,) = str(refused.value).splitlines()
    assert all(fragment in line for fragment in fragments), line


def test_constants_may_say_that_they_are_of_the_class_and_are_no_fields(method_file):
    method_file(
        "CHOICES: ClassVar[dict[str, list[str]]] = {'mode': ['a', 'b']}",
        "WATCHES: typing.ClassVar[bool]",
        "mode: str",
        "rate: torch.Tensor",
    )
    assert registry.fields("methods", "mine") == {
        "mode": ("str", True),
        "rate": ("torch.Tensor", True),
    }
    assert registry.constant("methods", "mine", "CHOICES") == {"mode": ["a", "b"]}
    assert registry.constant("methods", "mine", "WATCHES") is None
    (line,) = refusal(("methods", {"mine": {"mode": "c", "rate": 1}}))
    assert "methods.mine.mode is 'c'" in line


@pytest.mark.parametrize("value", ["1 / 2", "LARGEST", "{[]: 1}"])
def test_a_constant_that_must_be_run_to_be_known_is_a_sentence(method_file, value):
    method_file(f"AT_MOST = {value}")
    with pytest.raises(
        StudyError,
        match=rf"^methods/mine\.py: AT_MOST is {re.escape(value)}, .*: write its value out$",
    ):
        study.read(changed(("methods", {"mine": {}})), SCHEMA)


def test_what_is_refused_in_one_setting_may_be_limited_to_another():
    resets = {
        "self_normalized_resets": {"rejection": 0.1, "settings": ["row"]},
        "layer_norm": {"settings": ["other"]},
    }
    found = study.read(changed(("methods", resets), ("settings.row.network", VIT)), SCHEMA)
    assert found.methods_of("row") == ["self_normalized_resets", "fresh"]
    assert found.methods_of("other") == ["layer_norm", "fresh"]


def test_methods_are_composed_whatever_the_spaces_and_change_the_network_of_their_ensembles_alone():
    composed = {"layer_norm + crelu+l2": {"l2.strength": [0.1, 0.2]}, "l2": {"strength": 0.1}}
    found = study.read(changed(("methods", composed)), SCHEMA)
    assert found.methods_of("row") == ["l2", "layer_norm+crelu+l2", "fresh"]
    row = found.settings["row"]
    assert found.setting("row", "l2") == found.setting("row") == row
    network = found.setting("row", "layer_norm+crelu+l2").network
    assert network == replace(
        row.network, activation="crelu", options=row.network.options | {"norm": "layer"}
    )
    assert found.arms("layer_norm+crelu+l2") == [{"l2.strength": 0.1}, {"l2.strength": 0.2}]
    job = json.loads(found.training_job("row", "layer_norm+crelu+l2", "0"))
    assert job["setting"]["network"] == asdict(network)
    assert Setting.of(job["setting"]) == found.setting("row", "layer_norm+crelu+l2")


def test_each_mistake_has_a_line_of_its_own():
    lines = refusal(
        (f"{OPTIMIZER}.lr", "1e-3"),
        ("seeds.report", -1),
        ("curvature.evry", 2),
        ("seeds_per_job", 0),
    )
    assert len(lines) == 4
    for key in (f"{OPTIMIZER}.lr", "seeds.report", "'evry'", "seeds_per_job"):
        assert sum(key in line for line in lines) == 1
    lines = refusal(
        (f"{PROBLEM}.batch", 65),
        ("methods.l2.strenght", 1),
        ("methods.nune", {}),
        ("settings.other.problem.dataset", "x"),
    )
    assert len(lines) == 4


def test_too_many_images_for_an_operator_are_said_where_they_are_written():
    own = {"fisher": {}, "ggn": {"samples": 80}, "hessian": {"samples": 8}}
    lines = refusal((OPERATORS, own), ("settings.other", GONE), ("curvature.samples", 70))
    assert lines == [
        "config.yaml: curvature.samples is 70, but a task of row has only 64 samples: lower curvature.samples",
        "config.yaml: curvature.operators.ggn.samples is 80, but a task of row has only 64 samples: lower curvature.operators.ggn.samples",
    ]
    (line,) = refusal(
        (OPERATORS, {"ggn": {"probes": 3}}), ("settings.other", GONE), ("curvature.samples", 70)
    )
    assert "curvature.samples is 70" in line


def test_images_that_no_operator_takes_may_be_any_number():
    assert (
        study.read(
            changed((OPERATORS, {"ggn": {"samples": 8}}), ("curvature.samples", 100)), SCHEMA
        )
        .curvature.operators["ggn"]
        .samples
        == 8
    )


def test_a_file_that_is_no_mapping_is_refused_too():
    for nothing in (None, [], "text"):
        with pytest.raises(StudyError, match=r"studies/x\.yaml: the config is "):
            study.read(nothing, SCHEMA, where="studies/x.yaml")


@pytest.mark.parametrize("text", ["1e-3", "1e3", "1.25e-4", "3e-05", "1E-3", "64", "0.5"])
def test_the_number_to_write_for_a_text_is_the_same_number_and_no_text_to_yaml(text):
    (line,) = refusal((f"{OPTIMIZER}.lr", text))
    assert yaml.safe_load(line.rpartition("write ")[2]) == float(text)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_a_text_that_python_takes_for_a_number_is_not_to_be_written(text):
    (line,) = refusal((f"{OPTIMIZER}.lr", text))
    assert f"write {text}" not in line


@pytest.mark.parametrize(
    "key",
    [
        f"{PROBLEM}.samples",
        f"{PROBLEM}.tasks",
        "seeds.report",
        "seeds_per_job",
        "settings.row.network.width",
        "curvature.samples",
    ],
)
def test_a_count_written_with_a_point_is_refused_since_nothing_can_be_counted_by_it(key):
    (line,) = refusal((key, 64.0))
    assert f"{key} is 64.0" in line
    assert "change it" in line


def test_the_number_to_write_for_a_count_is_a_count():
    (line,) = refusal((f"{PROBLEM}.epochs", "1e2"))
    value = yaml.safe_load(line.rpartition("write ")[2])
    assert (
        study.read(changed((f"{PROBLEM}.epochs", value)), SCHEMA).settings["row"].problem.epochs
        == 100
    )
    assert type(value) is int


def drawn_study(seeds, per_job, methods=None):
    return study.read(
        changed(
            ("seeds.report", seeds),
            ("seeds_per_job", per_job),
            ("methods", methods or CONFIG["methods"]),
        ),
        SCHEMA,
    )


@given(seeds=st.integers(1, 60), per_job=st.integers(1, 80))
def test_blocks_partition_the_seeds_in_order(seeds, per_job):
    blocks = [study.block_seeds(block) for block in study.packed(range(seeds), per_job)]
    assert [seed for block in blocks for seed in block] == list(range(seeds))
    assert all(len(block) == per_job for block in blocks[:-1])
    assert 1 <= len(blocks[-1]) <= per_job


def test_blocks_are_named_by_their_first_and_last_seed():
    assert study.packed(range(5), 2) == ["0-1", "2-3", "4"]
    assert study.packed(range(3), 1) == ["0", "1", "2"]
    assert study.packed(range(12), 20) == ["0-11"]
    assert study.block_seeds("9-11") == [9, 10, 11]


@pytest.mark.parametrize(
    ("seeds", "per_job", "done", "blocks"),
    [
        (10, 5, ["0-4", "5-6"], ["0-4", "5-6", "7-9"]),
        (7, 1, ["0-4"], ["0-4", "5", "6"]),
        (5, 5, ["1", "3"], ["0", "1", "2", "3", "4"]),
        (4, 2, ["0", "1", "0-1"], ["0-1", "2-3"]),
        (4, 4, ["0-2", "1-3", "0"], ["0", "1-3"]),
        (4, 2, ["2-5"], ["0-1", "2-3"]),
        (12, 5, ["10-11"], ["0-4", "5-9", "10-11"]),
    ],
    ids=str,
)
def test_blocks_that_are_done_stay_and_only_seeds_between_them_are_packed(
    seeds, per_job, done, blocks
):
    assert study.packed(range(seeds), per_job, done) == blocks


@given(data=st.data(), seeds=st.integers(1, 30), per_job=st.integers(1, 8))
def test_finishing_the_blocks_of_a_plan_in_any_order_changes_no_plan(data, seeds, per_job):
    done = data.draw(
        st.lists(
            st.tuples(st.integers(0, 29), st.integers(1, 9)).map(
                lambda one: study._named([range(one[0], sum(one))])[0]
            )
        )
    )
    plan = study.packed(range(seeds), per_job, done)
    assert [seed for block in plan for seed in study.block_seeds(block)] == list(range(seeds))
    some = data.draw(st.lists(st.sampled_from(plan)))
    assert study.packed(range(seeds), per_job, [*done, *some]) == plan


def test_finished_blocks_are_found_by_their_outcomes_and_a_strange_folder_is_none(tmp_path):
    for name in (
        "runs/a/l2/0-4",
        "runs/a/l2/5",
        "runs/a/l2/old",
        "runs/a/l2/7-6",
        "tuning/a/l2/1000",
    ):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "outcomes.nc").touch()
    (tmp_path / "runs/a/none/0-4/resume").mkdir(parents=True)
    assert study.finished(tmp_path) == {"runs/a/l2": ["0-4", "5"], "tuning/a/l2": ["1000"]}
    made = replace(drawn_study(6, 2), finished={"runs/row/l2": ["0-4"], "tuning/row/l2": ["1000"]})
    assert [ensemble.seeds for ensemble in made.ensembles("row") if ensemble.method == "l2"] == [
        "0-4",
        "5",
    ]
    assert [ensemble.seeds for ensemble in made.ensembles("row") if ensemble.method == "none"] == [
        "0-1",
        "2-3",
        "4-5",
    ]


def test_methods_are_trained_where_they_are_limited_to_and_a_fresh_network_everywhere():
    found = study.read(CONFIG, SCHEMA)
    assert found.methods_of("row") == ["none", "l2", "wasserstein", "fresh"]
    assert found.methods_of("other") == ["none", "l2", "fresh"]
    assert drawn_study(1, 1, {"fresh": {}, "none": {}}).methods_of("row") == ["none", "fresh"]


def test_ensembles_are_every_setting_method_and_block_once():
    found = study.read(CONFIG, SCHEMA)
    folders = [ensemble.folder for ensemble in found.ensembles()]
    methods = {"other": ["none", "l2", "fresh"], "row": ["none", "l2", "wasserstein", "fresh"]}
    expected = [
        f"{setting}/{method}/{block}"
        for setting in methods
        for method in methods[setting]
        for block in ("0-1", "2-3", "4")
    ]
    assert folders == expected
    assert [ensemble.folder for ensemble in found.ensembles("row")] == expected[9:]


@given(
    values=st.lists(st.floats(0, 10, allow_subnormal=False), min_size=1, max_size=5, unique=True)
)
def test_a_list_of_values_makes_one_arm_of_each_and_a_number_one_arm(values):
    found = drawn_study(
        1,
        1,
        {
            "l2": {"strength": values},
            "l2_init": {"strength": values[0], "settings": ["row"]},
            "none": {},
        },
    )
    assert found.arms("l2") == [{"strength": value} for value in sorted(values)]
    assert found.arms("l2_init") == [{"strength": values[0]}]
    assert found.arms("none") == found.arms("fresh") == [{}]


@given(
    values=st.lists(st.floats(0, 10, allow_subnormal=False), min_size=2, max_size=2, unique=True)
)
def test_two_arms_have_two_names(values):
    first, second = (arm_name("l2", {"strength": value}) for value in values)
    assert first != second


def test_arms_are_named_by_method_and_values():
    assert arm_name("l2", {"strength": 0.001}) == "l2(strength=0.001)"
    assert arm_name("none", {}) == "none"
    assert arm_name("l2+redo", {"l2.strength": 1e-5, "redo.period": 1000, "kernels": "flat"}) == (
        "l2+redo(l2.strength=1e-05, redo.period=1000, kernels=flat)"
    )


def test_two_arms_that_differ_in_the_thirteenth_digit_have_two_names():
    assert arm_name("l2", {"strength": 0.1}) != arm_name("l2", {"strength": 0.1 + 1e-14})


def several(methods):
    """A study with a method of several hyper-parameters, which none of the shipped ones has."""
    return replace(study.read(CONFIG, SCHEMA), methods=methods)


def test_several_lists_make_an_arm_of_each_combination():
    arms = several({"l2": {"a": [1, 2], "b": [3, 4], "c": 5}}).arms("l2")
    assert len(arms) == 4
    assert {(arm["a"], arm["b"], arm["c"]) for arm in arms} == {
        (1, 3, 5),
        (1, 4, 5),
        (2, 3, 5),
        (2, 4, 5),
    }


def turned(value):
    """The same value with the keys of every mapping in the opposite order."""
    return (
        {key: turned(inner) for key, inner in reversed(value.items())}
        if isinstance(value, dict)
        else value
    )


def test_what_a_training_job_knows_does_not_depend_on_the_order_of_keys():
    one, other = study.read(CONFIG, SCHEMA), study.read(turned(CONFIG), SCHEMA)
    for ensemble in one.ensembles():
        text = one.training_job(ensemble.setting, ensemble.method, ensemble.seeds)
        assert text == other.training_job(ensemble.setting, ensemble.method, ensemble.seeds)
    grid = {"l2": {"a": [1, 2], "b": [3, 4]}}
    assert several(grid).training_job("row", "l2", "0") == several(turned(grid)).training_job(
        "row", "l2", "0"
    )


def test_a_training_job_knows_just_what_it_uses():
    found = study.read(CONFIG, SCHEMA)
    known = json.loads(found.training_job("row", "l2", "2-3"))
    assert known == {
        "setting": asdict(Setting.of(CONFIG["settings"]["row"])),
        "training": {"checkpoint_every": 1, "curve_points": 10, "precision": "float32"},
        "method": "l2",
        "arms": [{"strength": 0.001}, {"strength": 0.01}],
        "seeds": [2, 3],
    }
    elsewhere = changed(
        ("study", "x"),
        ("seeds.report", 4),
        ("curvature.every", 2),
        ("methods.none", GONE),
        ("settings.other.network.width", 9),
    )
    assert study.read(elsewhere, SCHEMA).training_job("row", "l2", "2-3") == found.training_job(
        "row", "l2", "2-3"
    )
    for key, value in [
        (f"{PROBLEM}.epochs", 3),
        (f"{OPTIMIZER}.lr", 0.1),
        ("methods.l2.strength", 0.5),
        ("settings.row.network.width", 9),
        ("training", {"curve_points": 3}),
    ]:
        assert study.read(changed((key, value)), SCHEMA).training_job(
            "row", "l2", "2-3"
        ) != found.training_job("row", "l2", "2-3")


# Tuning


def tuned(*changes):
    return study.read(changed(("seeds.tune", 3), *changes), SCHEMA)


def test_without_tuning_seeds_nothing_is_tuned():
    found = study.read(CONFIG, SCHEMA)
    assert found.tunings() == []
    assert found.tuning_blocks("row", "l2") == []
    assert found.reported("l2") == ["l2(strength=0.001)", "l2(strength=0.01)"]


def test_methods_with_several_arms_are_tuned_where_they_are_trained_and_reported_by_their_bare_name():
    found = tuned()
    assert found.tunings() == [("other", "l2"), ("row", "l2")]
    assert tuned(("methods.l2.settings", ["row"])).tunings() == [("row", "l2")]
    assert [found.reported(method) for method in ("none", "l2", "wasserstein", "fresh")] == [
        ["none"],
        ["l2"],
        ["wasserstein(strength=0.1)"],
        ["fresh"],
    ]
    assert json.loads(found.gathering("row"))["arms"] == [
        "none",
        "l2",
        "wasserstein(strength=0.1)",
        "fresh",
    ]


@given(tune=st.integers(0, 9), report=st.integers(1, 1000), per_job=st.integers(1, 7))
def test_tuning_seeds_are_never_reporting_seeds_and_neither_move_when_the_other_grow(
    tune, report, per_job
):
    found = study.read(
        changed(("seeds", {"tune": tune, "report": report}), ("seeds_per_job", per_job)), SCHEMA
    )
    tuning, reporting = (
        [seed for block in blocks for seed in study.block_seeds(block)]
        for blocks in (found.tuning_blocks("row", "l2"), found.blocks("row", "l2"))
    )
    assert reporting == list(range(report))
    assert tuning == list(range(1000, 1000 + tune))
    assert not set(tuning) & set(reporting)


def test_what_the_criterion_is_is_in_no_training_job():
    one, other = (
        tuned(),
        tuned(("tuning", {"outcome": "final_loss", "stage": "late"}), ("seeds.tune", 4)),
    )
    assert (one.criterion, other.criterion) == (Criterion(), Criterion("final_loss", "late"))
    for ensemble in one.ensembles():
        assert one.training_job(*vars(ensemble).values()) == other.training_job(
            *vars(ensemble).values()
        )
    assert one.tuning_job("row", "l2", "1000-1001") == other.tuning_job("row", "l2", "1000-1001")


def test_a_tuned_methods_training_job_knows_everything_but_the_arm():
    known = json.loads(study.read(CONFIG, SCHEMA).training_job("row", "l2", "0-1"))
    assert json.loads(tuned().training_job("row", "l2", "0-1")) == {
        key: value for key, value in known.items() if key != "arms"
    }
    for method in ("none", "wasserstein", "fresh"):
        assert tuned().training_job("row", method, "0") == study.read(CONFIG, SCHEMA).training_job(
            "row", method, "0"
        )


def test_a_tuning_job_knows_all_arms_and_nothing_of_checkpoints():
    known = json.loads(tuned().tuning_job("row", "l2", "1000-1001"))
    assert known == {
        "setting": asdict(Setting.of(CONFIG["settings"]["row"])),
        "training": {"curve_points": 10, "precision": "float32"},
        "method": "l2",
        "arms": [{"strength": 0.001}, {"strength": 0.01}],
        "seeds": [1000, 1001],
    }


def test_the_cost_of_a_study_counts_all_arms_on_tuning_seeds_and_one_on_reporting_seeds():
    runs = json.loads(tuned().costing())["runs"]
    found = {
        (one["name"], one["method"], one["tuning"]): (len(one["arms"]), one["blocks"])
        for one in runs
    }
    assert len(found) == len(runs) == 7 + 2
    assert found["row", "l2", False] == (1, [[0, 1], [2, 3], [4]])
    assert found["row", "l2", True] == (2, [[1000, 1001], [1002]])
    assert found["row", "wasserstein", False] == (1, [[0, 1], [2, 3], [4]])
    assert not any(
        one["tuning"] for one in json.loads(study.read(CONFIG, SCHEMA).costing())["runs"]
    )


def test_an_arm_can_be_chosen_by_every_outcome_of_which_less_is_better_and_every_stage():
    tuning = yaml.safe_load(SCHEMA.read_text())["properties"]["tuning"]["properties"]
    assert tuple(tuning["outcome"]["enum"]) == outcomes.LOWER_IS_BETTER
    assert set(outcomes.LOWER_IS_BETTER) <= set(outcomes.TABLE)
    assert set(tuning["stage"]["enum"]) == set(outcomes.stages(16))
