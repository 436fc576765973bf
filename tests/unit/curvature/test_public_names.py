"""`plasticity.curvature` re-exports the operators, and imports them only when they are used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import plasticity.curvature
from plasticity.config import registry
from plasticity.curvature.operators import fisher, ggn, hessian, ntk
from plasticity.provenance import code_digest

PACKAGE = Path(plasticity.curvature.__file__)


def test_names_are_the_operators():
    from plasticity.curvature import NTK, Fisher, GaussNewton, Hessian

    modules = [fisher, ggn, hessian, ntk]
    assert [Fisher, GaussNewton, Hessian, NTK] == [module.Operator for module in modules]
    assert len(plasticity.curvature.__all__) == len(registry.names("operators"))


def test_unknown_name_is_no_attribute():
    message = r"module 'plasticity\.curvature' has no attribute 'Fischer'"
    with pytest.raises(AttributeError, match=message):
        _ = plasticity.curvature.Fischer
    with pytest.raises(ImportError, match="cannot import name 'Fischer'"):
        from plasticity.curvature import Fischer  # noqa: F401


def test_package_imports_no_torch_before_a_name_is_used():
    program = "import sys, plasticity.curvature; sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", program]
    subprocess.run(command, cwd=code_digest.SCRIPTS, check=True)


def test_code_digest_of_an_operator_has_no_other_operator():
    code = code_digest.code_digest(registry.path("operators", "fisher"))
    names = {Path(name).name for name in code if "/operators/" in name}
    assert names == {"__init__.py", "fisher.py"}


def test_stub_for_type_checkers_has_the_same_names():
    stub = ast.parse(PACKAGE.with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = {
        statement.names[0].asname: statement.module.rpartition(".")[2]
        for statement in stub.body
        if isinstance(statement, ast.ImportFrom)
    }
    assert imports == plasticity.curvature._FILES
    assert set(imports) == set(plasticity.curvature.__all__)
