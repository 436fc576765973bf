"""A small valid config, and changes to it."""

import copy
import re

import pytest
import yaml

from plasticity.config import study
from plasticity.errors import StudyError

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
curvature: {operators: [fisher], samples: 32, evaluation_points: [previous, next], every: 1}
""")
ABSENT = object()  # as a new value, it removes the key

TYPES_OF_PYTHON = r"<class|NoneType|OrderedDict|Traceback|\b(dict|str|int|float|bool|tuple)\b"
REMEDIES = (
    r"It must|Did you mean|Known: |Add |Name at least|Remove |Rename |Write |Lower |Raise |Make |"
    r"Choose |Limit "
)

# dotted keys that many tests change
PROBLEM, OPTIMIZER = "settings.row.problem", "settings.row.optimizer"
OPERATORS = "curvature.operators"
CNN = {"kind": "cnn", "activation": "relu"}
VIT = {"kind": "vit", "activation": "relu"}
HYPOTHESIS = {
    "name": "H1",
    "measure": "weight_norm",
    "outcome": "final_error",
    "direction": "positive",
}


def changed(*changes):
    """Copy the config with new values at dotted keys."""
    config = copy.deepcopy(CONFIG)
    for key, value in changes:
        *path, last = key.split(".")
        section = config
        for name in path:
            section = section[name]
        if value is ABSENT:
            del section[last]
        else:
            section[last] = value
    return config


def refusals(*changes):
    """Return the lines that refuse the changed config. Each says what to do, in words of YAML."""
    with pytest.raises(StudyError) as refused:
        study.read(changed(*changes))
    lines = str(refused.value).splitlines()
    for line in lines:
        assert line.startswith("config.yaml: ")
        assert not re.search(TYPES_OF_PYTHON, line), line
        assert re.search(rf"\. ({REMEDIES})", line), line
    return lines
