"""The treatment of docs/extend.md works as written, and docs/configuration.md lists all."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from subjects import EXAMPLES, make_subject

from plasticity.config import registry

DOCS = Path(__file__).parents[3] / "docs"
FILE = "workflow/scripts/plasticity/interventions/treatments/sparsify.py"
STATES = {"kept": "kept", "cleared": "cleared", "cleared_where_changed": "where changed"}


@pytest.fixture
def sparsify(tmp_path, monkeypatch):
    """Make the file of the page a plug-in, and import it."""
    page = (DOCS / "extend.md").read_text(encoding="utf-8")
    (text,) = re.findall(rf"^```python\n# {FILE}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    folder = tmp_path / registry.FOLDERS["treatments"]
    folder.mkdir(parents=True)
    (folder / "sparsify.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(registry, "LIBRARY", tmp_path)
    namespace = {}
    exec(compile(text, FILE, "exec"), namespace)
    return namespace["treat"]


@pytest.mark.parametrize("example", ["mlp", "cnn", "vit"])
@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_treatment_of_the_page_prunes_the_smallest_weights(sparsify, example, strength):
    subject = make_subject(EXAMPLES[example], "sparsify")
    treated = sparsify(subject, strength)
    for name, tensor in subject.parameters.items():
        expected = tensor.numpy().flatten()
        is_pruned = name.endswith("weight") and "norm" not in name and name != "positions.weight"
        for _ in range(round(strength * math.prod(tensor.shape)) if is_pruned else 0):
            expected[np.nanargmin(abs(expected))] = np.nan
        np.testing.assert_equal(treated[name].flatten().numpy(), np.nan_to_num(expected))
        assert treated[name].shape == tensor.shape


def test_treatment_of_the_page_declares_its_constants(sparsify):
    names = ["FAMILY", "STRENGTH", "OPTIMIZER_STATE", "ACTIVATIONS"]
    assert registry.names("treatments") == ["sparsify"]
    assert [registry.constant("treatments", "sparsify", name) for name in names] == [
        "harmful",
        "share",
        "cleared_where_changed",
        None,
    ]


def test_page_lists_every_treatment_as_its_file_declares_it():
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    section = page.split("\n## Interventions: treatments\n")[1]
    listed = {}
    for row in re.findall(r"^\| `.*\|$", section, re.MULTILINE):
        name, family, effect, strength, state = (cell.strip() for cell in row.split("|")[1:-1])
        only = re.findall(r"\(only ([a-z_, ]*)", effect)
        allowed = only[0].split(", no ")[0].split(", ") if only else None
        listed[name.strip("`")] = (family, strength, state, allowed)
    declared = {}
    for name in registry.names("treatments"):
        family, strength, state, allowed = (
            registry.constant("treatments", name, constant)
            for constant in ("FAMILY", "STRENGTH", "OPTIMIZER_STATE", "ACTIVATIONS")
        )
        declared[name] = (family, (strength or "").replace("_", " "), STATES[state], allowed)
    assert listed == declared
