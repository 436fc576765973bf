"""Each mistake in a config gives one line with the key, its value and what to do."""

import math
import re
import shutil

import pytest
import yaml
from configs import (
    ABSENT,
    CNN,
    HYPOTHESIS,
    OPERATORS,
    OPTIMIZER,
    PROBLEM,
    VIT,
    changed,
    refusals,
)

from plasticity.config import registry, study, validation
from plasticity.errors import StudyError

MISTAKES = {
    "misspelt key": (
        [(f"{PROBLEM}.sampels", 3)],
        [PROBLEM, "'sampels'", "Did you mean 'samples'?"],
    ),
    "misspelt key at the top": ([("curvatur", {})], ["curvatur", "Did you mean 'curvature'?"]),
    "missing key": ([(f"{PROBLEM}.batch", ABSENT)], [PROBLEM, "lacks 'batch'", "Add it"]),
    "text for a number": (
        [(f"{OPTIMIZER}.lr", "1e-3")],
        [f"{OPTIMIZER}.lr", "'1e-3'", "Write 1.0e-"],
    ),
    "text for a strength": (
        [("methods.l2.strength", "1e-3")],
        ["methods.l2.strength", "'1e-3'", "Write 1.0e-"],
    ),
    "text in a list of strengths": (
        [("methods.l2.strength", [0.1, "1e-3"])],
        ["methods.l2.strength.1", "'1e-3'", "Write 1.0e-"],
    ),
    "word for a number": ([("seeds_per_job", "all")], ["seeds_per_job", '"all"', "It must be"]),
    "truth for a number": ([("seeds_per_job", True)], ["seeds_per_job", "true", "It must be"]),
    "nothing for a number": ([("seeds_per_job", None)], ["seeds_per_job", "null", "It must be"]),
    "fraction for a count": (
        [(f"{PROBLEM}.epochs", 2.5)],
        [f"{PROBLEM}.epochs", "2.5", "It must be"],
    ),
    "nothing for a method": ([("methods.none", None)], ["methods.none", "null", "It must be"]),
    "negative seeds": ([("seeds.report", -1)], ["seeds.report", "-1", "at least 1"]),
    "no steps": ([(f"{OPTIMIZER}.lr", 0)], [f"{OPTIMIZER}.lr", "0"]),
    "negative strength": (
        [("methods.l2.strength", -0.5)],
        ["methods.l2.strength", "-0.5", "at least 0"],
    ),
    "negative strength in a list": (
        [("methods.l2.strength", [0.1, -0.5])],
        ["methods.l2.strength.1", "-0.5"],
    ),
    "no methods": ([("methods", {})], ["methods", "empty", "Name at least one"]),
    "no strengths": (
        [("methods.l2.strength", [])],
        ["methods.l2.strength", "empty", "Name at least one"],
    ),
    "no settings": ([("settings", {})], ["settings", "empty", "Name at least one"]),
    "strength twice": (
        [("methods.l2.strength", [0.1, 0.1])],
        ["methods.l2.strength", "0.1", "Remove one"],
    ),
    "unknown activation": (
        [("settings.row.network.activation", "rleu")],
        ["row.network.activation", '"rleu"', "Did you mean 'relu'?"],
    ),
    "unknown operator": (
        [("curvature.operators", ["ggm"])],
        [OPERATORS, "'ggm'", "Did you mean 'ggn'?"],
    ),
    "unknown operator with keys of its own": (
        [(f"{OPERATORS}", {"hesian": {}})],
        [OPERATORS, "'hesian'", "Did you mean 'hessian'?"],
    ),
    "no operator": ([(OPERATORS, [])], [f"{OPERATORS} is empty", "Name at least one"]),
    "no operator in a mapping": ([(OPERATORS, {})], [f"{OPERATORS} is empty", "Name at least one"]),
    "an operator twice": (
        [(OPERATORS, ["ggn", "ggn"])],
        [OPERATORS, "A value occurs twice", "Remove one"],
    ),
    "an operator that is not in a list": (
        [(OPERATORS, "ggn")],
        [f'{OPERATORS} is "ggn"', "It must be a list or a mapping"],
    ),
    "nothing for an operator": (
        [(OPERATORS, {"ggn": None})],
        [f"{OPERATORS}.ggn is null", "mapping ({} is an empty one)"],
    ),
    "an operator's key misspelt": (
        [(OPERATORS, {"ggn": {"sampels": 9}})],
        [f"{OPERATORS}.ggn", "'sampels'", "Did you mean 'samples'?"],
    ),
    "a key of all operators in one": (
        [(OPERATORS, {"ggn": {"levels": [0.9]}})],
        [f"{OPERATORS}.ggn", "unknown key 'levels'"],
    ),
    "an operator on one image": (
        [(OPERATORS, {"ggn": {"samples": 1}})],
        [f"{OPERATORS}.ggn.samples is 1. It must be at least 2"],
    ),
    "an operator at some of the tasks between": (
        [("curvature.every", 2), (OPERATORS, {"ggn": {"every": 3}})],
        [f"{OPERATORS}.ggn.every is 3", "at every 2 (curvature.every)", "multiple"],
    ),
    "an operator at listed tasks between": (
        [("curvature.every", 2), (OPERATORS, {"ggn": {"tasks": [0, 1, 2, 5]}})],
        [f"{OPERATORS}.ggn.tasks has 1 and 5", "at every 2 (curvature.every)", "multiples"],
    ),
    "a listed task that occurs twice": (
        [(OPERATORS, {"ggn": {"tasks": [0, 1, 1]}})],
        [f"{OPERATORS}.ggn.tasks", "A value occurs twice"],
    ),
    "an operator at an evaluation point of its own": (
        [(OPERATORS, {"ggn": {"evaluation_points": ["fresh", "next"]}})],
        [
            f"{OPERATORS}.ggn.evaluation_points has fresh, which curvature.evaluation_points lacks",
            "Add it there",
        ],
    ),
    "an unknown evaluation_point": (
        [("curvature.evaluation_points", ["freshly"])],
        ["curvature.evaluation_points.0", "Did you mean 'fresh'?"],
    ),
    "an unknown block": (
        [("curvature.blocks", ["layer"])],
        ["curvature.blocks.0", "Did you mean 'layers'?"],
    ),
    "no block": ([("curvature.blocks", [])], ["curvature.blocks is empty", "Name at least one"]),
    "more than the whole spectrum": (
        [("curvature.levels", [0.9, 1.5])],
        ["curvature.levels.1 is 1.5. It must be at most 1"],
    ),
    "nothing of the spectrum": (
        [("curvature.levels", [0])],
        ["curvature.levels.0 is 0. It must be above 0"],
    ),
    "a level that is not in a list": (
        [("curvature.levels", 0.9)],
        ["curvature.levels is 0.9", "It must be a list"],
    ),
    "a level twice": (
        [("curvature.levels", [0.9, 0.9])],
        ["curvature.levels", "A value occurs twice"],
    ),
    "a level as text": (
        [("curvature.levels", ["9e-1"])],
        ["curvature.levels.0", "'9e-1'", "Write 9.0e-01"],
    ),
    "one probe": ([("curvature.probes", 1)], ["curvature.probes is 1. It must be at least 2"]),
    "one probe of an operator": (
        [(OPERATORS, {"ggn": {"probes": 1}})],
        [f"{OPERATORS}.ggn.probes is 1. It must be at least 2"],
    ),
    "two steps": ([("curvature.steps", 2)], ["curvature.steps is 2. It must be at least 4"]),
    "rows as text": (
        [(OPERATORS, {"ggn": {"exact_up_to": "1e3"}})],
        [f"{OPERATORS}.ggn.exact_up_to", "'1e3'", "Write 1000"],
    ),
    "an estimate of a word": (
        [("curvature.estimate", "no")],
        ['curvature.estimate is "no"', "It must be true or false"],
    ),
    "no eigenvector": ([("curvature.top", 0)], ["curvature.top is 0. It must be at least 1"]),
    "bad name": ([("study", "My Study")], ["study", '"My Study"', "Rename it"]),
    "unknown method": (
        [("methods.wasserstien", {"strength": 1})],
        ["methods", "'wasserstien'", "Did you mean 'wasserstein'?"],
    ),
    "unknown hyperparameter": (
        [("methods.l2.strenght", 1)],
        ["methods.l2", "'strenght'", "Did you mean 'strength'?"],
    ),
    "hyperparameter of a method without": (
        [("methods.none.strength", 1)],
        ["methods.none", "'strength'", "Known: settings"],
    ),
    "missing hyperparameter": ([("methods.l2", {})], ["methods.l2", "lacks", "'strength'", "Add"]),
    "unknown setting of a method": (
        [("methods.l2.settings", ["rwo"])],
        ["methods.l2.settings", "'rwo'", "Did you mean 'row'?"],
    ),
    "unknown dataset": (
        [(f"{PROBLEM}.dataset", "minst")],
        [f"{PROBLEM}.dataset", "'minst'", "Did you mean 'mnist'?"],
    ),
    "batch above samples": (
        [(f"{PROBLEM}.batch", 65)],
        [f"{PROBLEM}.batch", "65", "64 samples", "Lower batch or raise samples"],
    ),
    "curvature on too many": (
        [(f"{PROBLEM}.samples", 31)],
        ["curvature.samples", "32", "row", "31 samples", "Lower curvature.samples"],
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
        ["training", "'curve_point'", "Did you mean 'curve_points'?"],
    ),
    "checkpoints never": (
        [("training", {"checkpoint_every": 0})],
        ["training.checkpoint_every", "0", "at least 1"],
    ),
    "no point in a curve": (
        [("training", {"curve_points": 0})],
        ["training.curve_points", "0", "at least 1"],
    ),
    "text for a number of points": (
        [("training", {"curve_points": "1e1"})],
        ["training.curve_points", "'1e1'", "Write 10"],
    ),
    "unknown precision": (
        [("training", {"precision": "bfloat"})],
        ["training.precision", '"bfloat"', "Did you mean 'bfloat16'?"],
    ),
    "precision of another kind": (
        [("training", {"precision": 16})],
        ["training.precision", "16", "Known: float32, bfloat16"],
    ),
    "nothing for training": ([("training", None)], ["training", "null", "It must be"]),
    "curvature where there is no checkpoint": (
        [("training", {"checkpoint_every": 2}), ("curvature.every", 3)],
        ["curvature.every", "3", "only every 2 tasks", "training.checkpoint_every", "multiple"],
    ),
    "curvature at each task and checkpoints at some": (
        [("training", {"checkpoint_every": 2})],
        ["curvature.every", "1", "only every 2 tasks", "training.checkpoint_every", "multiple"],
    ),
    "missing key under another name": (
        [(f"{PROBLEM}.samples", ABSENT), (f"{PROBLEM}.sampels", 64)],
        ["lacks 'samples'", "misspell it as 'sampels'?"],
    ),
    "unknown change": (
        [(f"{PROBLEM}.shift", "shuffle_label")],
        [f"{PROBLEM}.shift", "Did you mean 'shuffle_labels'?"],
    ),
    "option of another change": (
        [(f"{PROBLEM}.fraction", 0.5)],
        [PROBLEM, "unknown key 'fraction'", "first_task"],
    ),
    "missing option of a change": (
        [(f"{PROBLEM}.shift", "redraw_labels")],
        [PROBLEM, "lacks 'fraction'", "redraw_labels", "Add it"],
    ),
    "more than all": (
        [(f"{PROBLEM}.shift", "redraw_labels"), (f"{PROBLEM}.fraction", 1.5)],
        [f"{PROBLEM}.fraction", "1.5", "at most 1"],
    ),
    "two budgets": (
        [(f"{PROBLEM}.steps_per_task", 5)],
        [PROBLEM, "both epochs and steps_per_task", "Remove one of them"],
    ),
    "no budget": (
        [(f"{PROBLEM}.epochs", ABSENT)],
        [PROBLEM, "neither epochs nor steps_per_task", "Add one of them"],
    ),
    "unknown network": (
        [("settings.row.network.kind", "mpl")],
        ["row.network.kind", "'mpl'", "Did you mean 'mlp'?"],
    ),
    "option of another network": (
        [("settings.row.network.patch", 4)],
        ["row.network", "unknown key 'patch'", "depth"],
    ),
    "missing option of a network": (
        [("settings.row.network.width", ABSENT)],
        ["row.network", "lacks 'width'", "mlp", "Add it"],
    ),
    "unknown initialisation": (
        [("settings.row.network.initialization", "kaiming")],
        ["row.network.initialization", "he, he_uniform, xavier, orthogonal, pytorch"],
    ),
    "unknown optimizer": (
        [(f"{OPTIMIZER}.kind", "adamm")],
        [f"{OPTIMIZER}.kind", "'adamm'", "Did you mean 'adam'?"],
    ),
    "option of another optimizer": (
        [(f"{OPTIMIZER}.momentum", 0.5)],
        [OPTIMIZER, "unknown key 'momentum'", "betas"],
    ),
    "a mean that never moves": (
        [(f"{OPTIMIZER}.betas", [0.9, 1])],
        [f"{OPTIMIZER}.betas.1", "1", "must be below 1"],
    ),
    "one beta": (
        [(f"{OPTIMIZER}.betas", [0.9])],
        [f"{OPTIMIZER}.betas", "[0.9]", "It must have 2 values"],
    ),
    "side 0": (
        [("datasets", {"imagenet": {"side": 0}})],
        ["datasets.imagenet.side", "0", "at least 1"],
    ),
    "side of text": (
        [("datasets", {"imagenet": {"side": "8"}})],
        ["datasets.imagenet.side", "'8'", "Write 8"],
    ),
    "no classes": (
        [("datasets", {"imagenet": {"side": 8, "classes": 0}})],
        ["datasets.imagenet.classes", "0"],
    ),
    "a list of no classes": (
        [("datasets", {"imagenet": {"side": 8, "classes": []}})],
        ["datasets.imagenet.classes", "empty", "Name at least one"],
    ),
    "a class as text": (
        [("datasets", {"imagenet": {"side": 8, "classes": "ant"}})],
        ["datasets.imagenet.classes", '"ant"', "It must be a whole number or a list"],
    ),
    "a class twice": (
        [("datasets", {"imagenet": {"side": 8, "classes": ["a", "a"]}})],
        ["datasets.imagenet.classes", "Remove one"],
    ),
    "another way with flaws": (
        [("datasets", {"imagenet": {"side": 8, "unreadable": "ignore"}})],
        ["datasets.imagenet.unreadable", '"ignore"', "Known: refuse, skip"],
    ),
    "no checksum": (
        [("datasets", {"imagenet": {"side": 8, "md5": "abc"}})],
        ["datasets.imagenet.md5", '"abc"'],
    ),
    "a dataset without what it needs": (
        [("datasets", {"birds": {"kind": "folder", "side": 8}})],
        ["datasets.birds", "lacks 'path'", "folder", "Add it"],
    ),
    "no files": (
        [("datasets", {"cifar10": {"files": []}})],
        ["datasets.cifar10.files", "empty", "Name at least one"],
    ),
    "a file twice": (
        [("datasets", {"cifar10": {"files": ["a", "a"]}})],
        ["datasets.cifar10.files", "Remove one"],
    ),
    "a file for a list": (
        [("datasets", {"cifar10": {"files": "data_batch_1"}})],
        ["datasets.cifar10.files", "It must be a list"],
    ),
    "one bit": (
        [("datasets", {"bits": {"inputs": 1}})],
        ["datasets.bits.inputs", "1", "at least 2"],
    ),
    "options of a dataset without": (
        [("datasets", {"digits": {"side": 3}})],
        ["datasets.digits", "unknown key 'side'", "Remove it"],
    ),
    "a dataset of an unknown kind": (
        [("datasets", {"mine": {"kind": "foldr"}})],
        ["datasets.mine.kind", "'foldr'", "Did you mean 'folder'?"],
    ),
    "an unknown outcome to choose by": (
        [("seeds.tune", 2), ("tuning", {"outcome": "final_eror"})],
        [
            "tuning.outcome",
            '"final_eror"',
            "Did you mean 'final_error'?",
            "final_error, online_error, final_loss, test_error",
        ],
    ),
    "an outcome that has no better": (
        [("seeds.tune", 2), ("tuning", {"outcome": "update_norm"})],
        ["tuning.outcome", "Known: final_error"],
    ),
    "an unknown stage": (
        [("seeds.tune", 2), ("tuning", {"stage": "change"})],
        ["tuning.stage", '"change"', "Known: all, early, late"],
    ),
    "a criterion without tuning seeds": (
        [("tuning", {})],
        ["tuning", "seeds.tune is 0", "Raise seeds.tune or remove tuning"],
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
    "fewer tuning seeds than none": ([("seeds.tune", -1)], ["seeds.tune", "-1"]),
    "as many reporting seeds as would be tuning seeds": (
        [("seeds.report", 1001)],
        ["seeds.report", "1001", "at most 1000"],
    ),
    "infinite count": (
        [(f"{PROBLEM}.tasks", math.inf)],
        [f"{PROBLEM}.tasks", "Infinity", "It must be"],
    ),
}


@pytest.mark.parametrize(("changes", "fragments"), MISTAKES.values(), ids=MISTAKES)
def test_message_names_key_value_and_remedy(changes, fragments):
    (line,) = refusals(*changes)
    for fragment in fragments:
        assert fragment in line, line


REDO, BACKPROP = {"redo.threshold": 0.1, "redo.period": 3}, {"continual_backprop.rate": 0.1}
ACTIVATION = "settings.row.network.activation"
METHODS = {
    "unknown part": ({"l2 + l2int": {}}, [], ["unknown method 'l2int'", "Did you mean 'l2_init'?"]),
    "nothing after a plus": (
        {"l2 +": {"l2.strength": 1}},
        [],
        ["unknown method ''", "Known: continual_backprop, "],
    ),
    "unknown key of a part": (
        {"l2 + dropout": {"l2.strength": 1, "dropout.rate": 0.1, "dropout.rat": 0.1}},
        [],
        [
            "'dropout.rat'",
            "Did you mean 'dropout.rate'?",
            "Known: settings, l2.strength, dropout.rate",
        ],
    ),
    "missing key of a part": ({"l2 + crelu": {}}, [], ["lacks 'l2.strength'", "Add it"]),
    "negative period": (
        {"full_reset": {"period": -1}},
        [],
        ["methods.full_reset.period", "-1", "at least 0"],
    ),
    "rate above one": (
        {"dropout": {"rate": 1.5}},
        [],
        ["methods.dropout.rate", "1.5", "at most 1"],
    ),
    "rate above one in a list": (
        {"dropout": {"rate": [0.5, 1.5]}},
        [],
        ["methods.dropout.rate", "1.5", "at most 1"],
    ),
    "rate of a part above one": (
        {"l2 + dropout": {"l2.strength": 2, "dropout.rate": 2}},
        [],
        ["dropout.rate is 2", "at most 1"],
    ),
    "text for a number": (
        {"redo": {"threshold": "1e-3", "period": 3}},
        [],
        ["redo.threshold", "'1e-3'", "Write 1.0e-03"],
    ),
    "word for a number": (
        {"redo": {"threshold": "low", "period": 3}},
        [],
        ["redo.threshold", "'low'", "not a number", "Write a number"],
    ),
    "text in a list": (
        {"redo": {"threshold": [0.1, "1e-3"], "period": 3}},
        [],
        ["redo.threshold.1", "'1e-3'", "Write 1.0e-03"],
    ),
    "truth for a number": (
        {"redo": {"threshold": True, "period": 3}},
        [],
        ["redo.threshold", "true", "It must be"],
    ),
    "number for a text": (
        {"spectral": {"strength": 1, "kernels": 3}},
        [],
        ["spectral.kernels", "3", "Known: flat, places"],
    ),
    "unknown text": (
        {"spectral": {"strength": 1, "kernels": "flt"}},
        [],
        ["spectral.kernels", "'flt'", "Did you mean 'flat'?"],
    ),
    "a list for a text": (
        {"parseval": {"strength": 1, "kernels": ["flat"]}},
        [],
        ["parseval.kernels.0", '"flat"', "It must be"],
    ),
    "half a step": (
        {"redo": {"threshold": 0.1, "period": [2, 2.5]}},
        [],
        ["redo.period", "2.5", "It must be a whole number"],
    ),
    "two that reset units": (
        {"redo + continual_backprop": REDO | BACKPROP},
        [],
        ["contradict", "which units are reset", "Choose one"],
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
        ["contradict", "shrinking", "Choose one"],
    ),
    "none and another": (
        {"none + l2": {"l2.strength": 1}},
        [],
        ["none + l2: none cannot be combined with another method", "Remove it"],
    ),
    "fresh and another": (
        {"l2 + fresh": {"l2.strength": 1}},
        [],
        ["l2 + fresh: fresh cannot be combined with another method", "Remove it"],
    ),
    "twice the same": ({"l2 + l2": {"l2.strength": 1}}, [], ["names l2 twice", "Remove one"]),
    "once more with other spaces": (
        {f"crelu{plus}l2": {"l2.strength": 1} for plus in ("+", " + ")},
        [],
        ["repeats methods.crelu+l2", "Remove one"],
    ),
    "crelu where nothing bends": (
        {"crelu": {}},
        [(ACTIVATION, "identity")],
        ["crelu", "row", "network.activation: identity", "Limit the method by `settings`"],
    ),
    "resets of silent units with tanh": (
        {"self_normalized_resets": {"rejection": 0.1}},
        [],
        [
            "self_normalized_resets",
            "in other",
            "network.activation: tanh",
            "Limit the method by `settings`",
        ],
    ),
    "resets of silent units and crelu": (
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
            "Choose one",
        ],
    ),
    "layer norm where there is one": (
        {"layer_norm": {}},
        [("settings.row.network.norm", "layer")],
        ["layer_norm", "in row", "network.norm: layer", "Limit the method by `settings`"],
    ),
    "a baseline of some settings": (
        {"fresh": {"settings": ["row"]}},
        [],
        ["methods.fresh", "`settings`", "baseline", "Remove them"],
    ),
    "singular values of convolutions": (
        {"spectral": {"strength": 1}},
        [("settings.row.network", CNN)],
        ["methods.spectral", "in row", "network.kind: cnn", "needs 'kernels'", "Add it"],
    ),
    "orthogonal convolutions and a norm": (
        {"layer_norm + parseval": {"parseval.strength": 1}},
        [("settings.row.network", {**CNN, "kind": "resnet18"})],
        [
            "methods.layer_norm + parseval",
            "in row",
            "network.kind: resnet18",
            "needs 'parseval.kernels'",
            "Add it",
        ],
    ),
    "layer norm where there is no norm": (
        {"layer_norm": {}},
        [("settings.row.network", VIT)],
        ["layer_norm", "row", "vit has no option 'norm'", "Limit the method by `settings`"],
    ),
}


@pytest.mark.parametrize(("methods", "changes", "fragments"), METHODS.values(), ids=METHODS)
def test_message_about_method_names_remedy(methods, changes, fragments):
    (line,) = refusals(("methods", methods), *changes)
    for fragment in fragments:
        assert fragment in line, line


def test_option_needed_for_convolutions_is_optional_elsewhere():
    spectral, network = {"spectral": {"strength": 1}}, ("settings.row.network", CNN)
    assert study.read(changed(("methods", spectral)))
    assert study.read(
        changed(("methods", {"spectral": {"strength": 1, "kernels": "flat"}}), network)
    )
    assert study.read(
        changed(("methods", {"spectral": {"strength": 1, "settings": ["other"]}}), network)
    )


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"settings": ["rwo"]}, ["statistics.hypotheses.0.settings", "'rwo'", "row"]),
        ({"arm": "l2_inti"}, ["statistics.hypotheses.0.arm", "'l2_inti'", "Write one of none"]),
        ({"direction": "down"}, ["statistics.hypotheses.0.direction", '"down"', "positive"]),
        ({"against": "trend"}, ["statistics.hypotheses.0.against", '"trend"', "task"]),
        ({"versus": "none"}, ["statistics.hypotheses.0"]),
        (
            {"measure": "fisher_efective_rank"},
            ["statistics.hypotheses.0.measure", "does not measure", "'fisher_effective_rank'"],
        ),
        ({"measure": "ntk_trace"}, ["statistics.hypotheses.0.measure", "does not measure"]),
        (
            {"measure": "accuracy"},
            ["statistics.hypotheses.0.measure", "Known: cloned_fraction, dead_fraction"],
        ),
        ({"stgae": "late"}, ["statistics.hypotheses.0", "unknown key 'stgae'", "stage"]),
    ],
)
def test_message_about_hypothesis_names_remedy(changes, fragments):
    (line,) = refusals(("statistics", {"hypotheses": [HYPOTHESIS | changes]}))
    assert all(fragment in line for fragment in fragments), line


def test_hypothesis_about_interventions_needs_the_section():
    hypothesis = HYPOTHESIS | {"test": "interventions"}
    (line,) = refusals(("statistics", {"hypotheses": [hypothesis]}))
    assert line == (
        "config.yaml: statistics.hypotheses.0.test is interventions, but the config has no section "
        "interventions. Add the section, or remove the hypothesis."
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"against": "task"}, "H has both test: interventions and against. Remove against."),
        (
            {"evaluation_point": "next"},
            "H has both test: interventions and evaluation_point. Remove evaluation_point.",
        ),
        ({"stage": "late"}, "H has both test: interventions and stage. Remove stage."),
        (
            {"outcome": "final_error_gap"},
            (
                "H.outcome is final_error_gap, but treated copies of a checkpoint have no gap. Use "
                "final_error: all of them learn the same task."
            ),
        ),
        (
            {"arm": "l2(strength=0.1)"},
            (
                "H.arm is l2(strength=0.1), whose checkpoints are not treated. Add l2 to "
                "interventions.arms."
            ),
        ),
        (
            {"measure": ABSENT},
            "H.test is interventions, which tests a measure. Replace versus by measure.",
        ),
    ],
)
def test_hypothesis_about_interventions_has_only_keys_that_it_uses(changes, message):
    hypothesis = HYPOTHESIS | {"test": "interventions"} | changes
    hypothesis = {key: value for key, value in hypothesis.items() if value is not ABSENT}
    config = {"interventions": {"treatments": {"none": {}}, "tasks": [4]}}
    lines = list(validation._check_test_of_interventions("H", hypothesis, config))
    assert lines == [message]


def test_hypothesis_about_interventions_may_name_any_treated_arm():
    config = {"interventions": {"arms": ["none", "l2"]}}
    for arm in ("none", "l2(strength=0.1)"):
        hypothesis = HYPOTHESIS | {"test": "interventions", "arm": arm}
        assert not list(validation._check_test_of_interventions("H", hypothesis, config))


@pytest.mark.parametrize(
    ("figures", "fragment"),
    [
        (
            {"scater": ["row"]},
            "figures names 'scater', which is unknown. Write one of associations, ",
        ),
        (
            {"scatter": ["rwo"]},
            "figures.scatter names 'rwo', which is unknown. Write one of other, row",
        ),
        ({"scatter": []}, "figures.scatter"),
        ({"scatter": "row"}, "figures.scatter"),
    ],
)
def test_unknown_figure_or_setting_is_refused(figures, fragment):
    (line,) = refusals(("figures", figures))
    assert fragment in line


@pytest.fixture
def method_file(tmp_path, monkeypatch):
    """Return a function that writes the class of a method `mine` into a copy of the library."""
    shutil.copytree(registry.LIBRARY, tmp_path / "library")
    monkeypatch.setattr(registry, "LIBRARY", tmp_path / "library")

    def write(*body):
        (tmp_path / "library/training/methods/mine.py").write_text(
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
def test_method_field_that_no_config_can_set_is_refused(method_file, body, fragments):
    method_file(*body)
    with pytest.raises(StudyError) as refused:
        study.read(changed(("methods", {"mine": {"mode": 1}})))
    (line,) = str(refused.value).splitlines()
    assert all(fragment in line for fragment in fragments), line


def test_class_variables_are_constants_and_not_fields(method_file):
    method_file(
        "CHOICES: ClassVar[dict[str, list[str]]] = {'mode': ['a', 'b']}",
        "USES_ACTIVATIONS: typing.ClassVar[bool]",
        "mode: str",
        "rate: torch.Tensor",
    )
    assert registry.fields("methods", "mine") == {
        "mode": ("str", True),
        "rate": ("torch.Tensor", True),
    }
    assert registry.constant("methods", "mine", "CHOICES") == {"mode": ["a", "b"]}
    assert registry.constant("methods", "mine", "USES_ACTIVATIONS") is None
    (line,) = refusals(("methods", {"mine": {"mode": "c", "rate": 1}}))
    assert "methods.mine.mode is 'c'" in line


@pytest.mark.parametrize("value", ["1 / 2", "LARGEST", "{[]: 1}"])
def test_constant_that_is_not_literal_is_refused(method_file, value):
    method_file(f"AT_MOST = {value}")
    with pytest.raises(
        StudyError,
        match=rf"^methods/mine\.py: AT_MOST is {re.escape(value)}, .*\. Write its value out\.$",
    ):
        study.read(changed(("methods", {"mine": {}})))


def test_each_mistake_has_its_own_line():
    lines = refusals(
        (f"{OPTIMIZER}.lr", "1e-3"),
        ("seeds.report", -1),
        ("curvature.evry", 2),
        ("seeds_per_job", 0),
    )
    assert len(lines) == 4
    for key in (f"{OPTIMIZER}.lr", "seeds.report", "'evry'", "seeds_per_job"):
        assert sum(key in line for line in lines) == 1
    lines = refusals(
        (f"{PROBLEM}.batch", 65),
        ("methods.l2.strenght", 1),
        ("methods.nune", {}),
        ("settings.other.problem.dataset", "x"),
    )
    assert len(lines) == 4


def test_too_many_samples_are_reported_at_key_that_sets_them():
    own = {"fisher": {}, "ggn": {"samples": 80}, "hessian": {"samples": 8}}
    lines = refusals((OPERATORS, own), ("settings.other", ABSENT), ("curvature.samples", 70))
    assert lines == [
        (
            "config.yaml: curvature.samples is 70, but a task of row has only 64 samples. "
            "Lower curvature.samples."
        ),
        (
            "config.yaml: curvature.operators.ggn.samples is 80, but a task of row has only 64 "
            "samples. Lower curvature.operators.ggn.samples."
        ),
    ]
    (line,) = refusals(
        (OPERATORS, {"ggn": {"probes": 3}}), ("settings.other", ABSENT), ("curvature.samples", 70)
    )
    assert "curvature.samples is 70" in line


def with_dataset(name, options, problem):
    """Return the changes that let the setting `row` use a dataset."""
    changes = [(f"{PROBLEM}.{key}", value) for key, value in problem.items()]
    return [("datasets", {name: {"kind": name, **options}}), (f"{PROBLEM}.dataset", name), *changes]


@pytest.mark.parametrize(
    ("dataset", "options", "problem", "message"),
    [
        ("mnist", {}, {"samples": 60_001}, "samples is 60001, but mnist has only 60000 images"),
        (
            "digits",
            {},
            {"samples": 1700, "test_samples": 98},
            "samples + test_samples is 1798, but digits has only 1797 images",
        ),
        (
            "cifar10",
            {"files": ["data_batch_1"]},
            {"samples": 10_001},
            "samples is 10001, but cifar10 has only 10000 images",
        ),
    ],
)
def test_more_images_than_the_dataset_has_are_refused(dataset, options, problem, message):
    lines = refusals(*with_dataset(dataset, options, problem))
    assert lines == [f"config.yaml: settings.row.problem.{message}. Lower it."]


@pytest.mark.parametrize(
    ("dataset", "samples"), [("mnist", 60_000), ("cifar10", 50_000), ("bits", 10**6)]
)
def test_all_images_of_a_dataset_may_be_used(dataset, samples):
    study.read(changed(*with_dataset(dataset, {}, {"samples": samples})))


def test_config_that_is_not_mapping_is_refused():
    for nothing in (None, [], "text"):
        with pytest.raises(StudyError, match=r"studies/x\.yaml: the config is "):
            study.read(nothing, where="studies/x.yaml")


def suggested_number(line):
    """Read the number that a message suggests, as YAML does."""
    (number,) = re.findall(r"Write (\S+) instead", line)
    return yaml.safe_load(number)


@pytest.mark.parametrize("text", ["1e-3", "1e3", "1.25e-4", "3e-05", "1E-3", "64", "0.5"])
def test_suggested_number_equals_text_and_is_number_in_yaml(text):
    (line,) = refusals((f"{OPTIMIZER}.lr", text))
    assert suggested_number(line) == float(text)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_nonfinite_text_is_not_suggested(text):
    (line,) = refusals((f"{OPTIMIZER}.lr", text))
    assert f"Write {text}" not in line


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
def test_count_with_decimal_point_is_refused(key):
    (line,) = refusals((key, 64.0))
    assert f"{key} is 64.0" in line
    assert "It must be" in line


def test_suggested_count_is_integer():
    (line,) = refusals((f"{PROBLEM}.epochs", "1e2"))
    value = suggested_number(line)
    assert study.read(changed((f"{PROBLEM}.epochs", value))).settings["row"].problem.epochs == 100
    assert type(value) is int


OLD_NAMES = {
    "shift": (
        [(f"{PROBLEM}.shift", ABSENT), (f"{PROBLEM}.change", "shuffle_labels")],
        "settings.row.problem.change is now called shift. Rename the key.",
    ),
    "at_task_boundary": (
        [(f"{OPTIMIZER}.at_switch", "reset")],
        "settings.row.optimizer.at_switch is now called at_task_boundary. Rename the key.",
    ),
    "evaluation_points": (
        [("curvature.evaluation_points", ABSENT), ("curvature.moments", ["next"])],
        "curvature.moments is now called evaluation_points. Rename the key.",
    ),
    "evaluation_points of an operator": (
        [(OPERATORS, {"ggn": {"moments": ["next"]}})],
        "curvature.operators.ggn.moments is now called evaluation_points. Rename the key.",
    ),
    "previous": (
        [("curvature.evaluation_points", ["old", "next"])],
        "curvature.evaluation_points has the value old, which is now called previous. Rename it.",
    ),
    "next": (
        [("curvature.evaluation_points", ["previous", "new", "fresh"])],
        "curvature.evaluation_points has the value new, which is now called next. Rename it.",
    ),
    "next of an operator": (
        [(OPERATORS, {"ggn": {"evaluation_points": ["new"]}})],
        (
            "curvature.operators.ggn.evaluation_points has the value new, which is now called "
            "next. Rename it."
        ),
    ),
    "evaluation_point of a hypothesis": (
        [("statistics", {"hypotheses": [HYPOTHESIS | {"moment": "next"}]})],
        "statistics.hypotheses.0.moment is now called evaluation_point. Rename the key.",
    ),
    "previous of a hypothesis": (
        [("statistics", {"hypotheses": [HYPOTHESIS | {"evaluation_point": "old"}]})],
        (
            "statistics.hypotheses.0.evaluation_point has the value old, which is now called "
            "previous. Rename it."
        ),
    ),
}


@pytest.mark.parametrize(("changes", "sentence"), OLD_NAMES.values(), ids=OLD_NAMES)
def test_old_name_is_refused_with_new_name(changes, sentence):
    assert refusals(*changes) == [f"config.yaml: {sentence}"]


def test_old_names_and_old_values_are_reported_together():
    lines = refusals(("curvature.evaluation_points", ABSENT), ("curvature.moments", ["old", "new"]))
    value_of = "curvature.moments has the value"
    assert lines == [
        "config.yaml: curvature.moments is now called evaluation_points. Rename the key.",
        f"config.yaml: {value_of} old, which is now called previous. Rename it.",
        f"config.yaml: {value_of} new, which is now called next. Rename it.",
    ]


@pytest.mark.parametrize("key", ["settings", "curvature", f"{OPERATORS}", "statistics", PROBLEM])
@pytest.mark.parametrize("value", [None, "text", 3, [None]])
def test_section_that_is_not_mapping_is_refused(key, value):
    (line, *_) = refusals((key, value))
    assert key in line


def test_name_of_setting_with_capitals_is_refused():
    (line,) = refusals(
        ("settings", {"My Row": changed()["settings"]["row"]}), ("methods", {"none": {}})
    )
    assert "settings is 'My Row'. It must match ^[a-z0-9]" in line
    assert "Rename it" in line


def test_missing_keys_of_section_share_one_line():
    hypothesis = {"name": "H1", "measure": "weight_norm"}
    (line,) = refusals(("statistics", {"hypotheses": [hypothesis]}))
    assert line == "config.yaml: statistics.hypotheses.0 lacks 'outcome' and 'direction'. Add them."


def test_hypothesis_without_measure_and_versus_is_refused():
    hypothesis = {key: value for key, value in HYPOTHESIS.items() if key != "measure"}
    (line,) = refusals(("statistics", {"hypotheses": [hypothesis]}))
    assert "statistics.hypotheses.0 has neither measure nor versus. Add one of them." in line


def test_message_quotes_description_of_key():
    (line,) = refusals((f"{PROBLEM}.batch", 0))
    assert line == (
        "config.yaml: settings.row.problem.batch is 0. It must be at least 1. "
        "Meaning: Images per step. The last partial batch of an epoch is dropped."
    )


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        (("settings.row.problem.tasks", 10**18), ["settings.row.problem.tasks", "at most"]),
        (("settings.row.problem.epochs", 10**18), ["settings.row.problem.epochs", "at most"]),
        (("study", "s" * 300), ["study", "100"]),
        (("study", "mine\n"), ["study"]),
        (("study", "../mine"), ["study"]),
        (("study", "mine; rm -r x"), ["study"]),
    ],
)
def test_value_that_no_study_needs_is_refused(change, fragments):
    (line,) = refusals(change)
    for fragment in fragments:
        assert fragment in line, line


@pytest.mark.parametrize("name", ["row\n", "row 2", "$(row)", "r" * 300])
def test_name_that_a_shell_could_read_in_another_way_is_refused(name):
    config = changed()
    config["settings"] = {name: config["settings"]["row"]}
    assert any("settings" in line for line in validation.mistakes(config))


def test_methods_that_give_a_network_different_values_are_refused(monkeypatch):
    values = {"l2": {"activation": "tanh"}, "l2_init": {"activation": "gelu"}}
    monkeypatch.setattr(validation.registry, "network_of", lambda method: values.get(method, {}))
    composed = {"l2+l2_init": {"l2.strength": 0.1, "l2_init.strength": 0.1}}
    (line,) = refusals(("methods", composed))
    assert "l2 and l2_init contradict each other, because both set network.activation" in line
    values["l2_init"]["activation"] = "tanh"
    study.read(changed(("methods", composed)))
