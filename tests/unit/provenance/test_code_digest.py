"""Code by meaning: which files a job's digest takes in, what changes it, and that the library keeps the rules it rests on."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from plasticity.errors import StudyError
from plasticity.provenance import code_digest

LIBRARY = code_digest.SCRIPTS / "plasticity"
MODULES = sorted(LIBRARY.rglob("*.py"))
ENTRIES = [
    *sorted(code_digest.SCRIPTS.glob("*.py")),
    *sorted((code_digest.ROOT / "tests" / "results").glob("*.py")),
]

TREE = {
    "train.py": "import plasticity.a\nimport numpy\n",
    "plasticity/__init__.py": '"""The package."""\n',
    "plasticity/a.py": '"""A."""\n\nfrom plasticity import b\nfrom plasticity.rooms.c import thing\n',
    "plasticity/b.py": "X = 1\n",
    "plasticity/rooms/__init__.py": "import plasticity.d\n",
    "plasticity/rooms/c.py": "def thing():\n    import plasticity.e as late\n\n    return late\n",
    "plasticity/rooms/named.py": "from plasticity.f import *\n",
    "plasticity/d.py": "from plasticity import a\n",
    "plasticity/e.py": "",
    "plasticity/f.py": "",
    "plasticity/unrelated.py": "import plasticity.b\n",
}
REACHED = [
    "train.py",
    *(
        f"plasticity/{name}.py"
        for name in ("__init__", "a", "b", "d", "e", "rooms/__init__", "rooms/c")
    ),
]


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A small repository, whose scripts lie in ``workflow/scripts``."""
    root = tmp_path.resolve()
    scripts = root / "workflow" / "scripts"
    monkeypatch.setattr(code_digest, "ROOT", root)
    monkeypatch.setattr(code_digest, "SCRIPTS", scripts)
    monkeypatch.setattr(code_digest, "PARSED", root / "parsed")
    for name, text in TREE.items():
        path = scripts / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return scripts


def digest(tree, named=()):
    code = code_digest.code_digest(tree / "train.py", [tree / name for name in named])
    return {name.removeprefix("workflow/scripts/"): value for name, value in code.items()}


def test_imports_are_followed_through_every_form_of_import_and_the_packages_they_lie_in(tree):
    code = digest(tree)
    assert sorted(code) == sorted(["numpy", *REACHED])
    assert list(code) == [*sorted(REACHED), "numpy"]
    assert all(
        len(value) == 12 and int(value, 16) >= 0 for name, value in code.items() if name != "numpy"
    )


def test_named_files_come_with_their_own_imports(tree):
    code = digest(tree, ["plasticity/rooms/named.py"])
    assert sorted(code) == sorted(
        ["numpy", *REACHED, "plasticity/rooms/named.py", "plasticity/f.py"]
    )


@pytest.fixture
def installed(monkeypatch):
    """Versions of packages, to be changed."""
    versions = {"numpy": "2.0", "scikit-learn": "1.0", "torch": "2.0"}
    monkeypatch.setattr(code_digest, "version", versions.__getitem__)
    return versions


def test_weighty_packages_are_there_with_their_versions_by_the_name_they_are_installed_under(
    tree, installed
):
    (tree / "plasticity/e.py").write_text(
        "from sklearn.datasets import load_digits\nimport tqdm, json\n"
    )
    code = digest(tree)
    assert {name: value for name, value in code.items() if not name.endswith(".py")} == {
        "numpy": "2.0",
        "scikit-learn": "1.0",
    }
    installed["torch"] = "3.0"
    assert digest(tree) == code
    installed["scikit-learn"] = "1.1"
    assert {name for name, value in digest(tree).items() if value != code[name]} == {"scikit-learn"}


def test_a_package_that_changed_while_a_job_waited_is_refused_by_name(tree, installed):
    code = code_digest.code_digest(tree / "train.py")
    code_digest.check_code_unchanged(code)
    installed["numpy"] = "2.1"
    with pytest.raises(
        StudyError,
        match=r"numpy has another version than when this job was planned.*start snakemake again",
    ):
        code_digest.check_code_unchanged(code)


def test_every_package_that_the_library_computes_or_draws_with_is_known():
    roots = {name.partition(".")[0] for path in MODULES for _, name in imported(path)}
    assert {"plasticity"} <= roots
    idle = {
        "docutils",
        "hvplot",
        "itables",
        "jinja2",
        "netCDF4",
        "panel",
        "pydantic",
        "pydantic_core",
        "rocrate",
        "snakemake",
        "tqdm",
        "xarray",
        "yaml",
    }  # they store, ask and show
    assert roots - set(sys.stdlib_module_names) - {"plasticity"} - idle == set(code_digest.WEIGHTY)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x = 1\n", "# a comment\nx = 1  # another\n"),
        ("x = f(1, 2)\n", "x = f(\n    1,\n    2,\n)\n"),
        ("x = 'a'\n", 'x = "a"\n'),
        ('"""One."""\nx = 1\n', '"""Two."""\nx = 1\n'),
        ("x = 1\n", '"""New."""\n\nx = 1\n'),
        ('def f():\n    """One."""\n    return 1\n', "def f():\n    return 1\n"),
        (
            'class A:\n    """One."""\n\n    x = 1\n',
            'class A:\n    """Two,\n    longer."""\n\n    x = 1\n',
        ),
        ('async def f():\n    """One."""\n', 'async def f():\n    """Two."""\n'),
        (
            'class A:\n    def f(self):\n        """One."""\n        return 1\n',
            "class A:\n    def f(self):\n        return 1\n",
        ),
        (
            "def f(a: int, *b: str, c: int = 1) -> int:\n    return a\n",
            "def f(a, *b: int, c=1):\n    return a\n",
        ),
        ("x: int = 1\ndef f():\n    y: str\n    z: int = 2\n", "x = 1\ndef f():\n    z = 2\n"),
        ("async def f(a: int) -> int:\n    return a\n", "async def f(a):\n    return a\n"),
        (
            "class A:\n    def f(self) -> int:\n        x: int = 1\n",
            "class A:\n    def f(self):\n        x = 1\n",
        ),
        (
            "f = lambda a: a\ndef g(a: 'B' = 1): return a\n",
            "f = lambda a: a\ndef g(a=1): return a\n",
        ),
    ],
)
def test_comments_docstrings_and_layout_keep_a_digest(tree, before, after):
    (tree / "plasticity/b.py").write_text(before)
    known = digest(tree)
    (tree / "plasticity/b.py").write_text(after)
    assert digest(tree) == known


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x = 1\n", "x = 2\n"),
        ("x = 1\n", "x = 1.0\n"),
        ("x = 'a'\n", "x = b'a'\n"),
        ("def f(a, b): return a\n", "def f(b, a): return a\n"),
        ("def f():\n    return 1\n", "def f():\n    pass\n    return 1\n"),
        ("x = 1\ny = 2\n", "y = 2\nx = 1\n"),
        ("if x:\n    y = 1\nz = 1\n", "if x:\n    y = 1\n    z = 1\n"),
        ("x = 1\n'a string that is no docstring'\n", "x = 1\n'another'\n"),
        ("def f():\n    return 'One.'\n", "def f():\n    return 'Two.'\n"),
        ("class A:\n    x: int\n", "class A:\n    x: str\n"),
        ("class A:\n    x: int = 1\n", "class A:\n    x = 1\n"),
        ("class A:\n    class B:\n        x: int\n", "class A:\n    class B:\n        x: str\n"),
        ("x: int = 1\n", "x: int = 2\n"),
        ("def f(a: int = 1): return a\n", "def f(a: int = 2): return a\n"),
    ],
)
def test_a_change_of_meaning_changes_that_files_entry_alone(tree, before, after):
    (tree / "plasticity/b.py").write_text(before)
    known = digest(tree)
    (tree / "plasticity/b.py").write_text(after)
    assert {name for name, value in digest(tree).items() if value != known[name]} == {
        "plasticity/b.py"
    }


def test_a_change_elsewhere_changes_nothing(tree):
    known = digest(tree)
    (tree / "plasticity/unrelated.py").write_text("X = 2\n")
    (tree / "plasticity/new.py").write_text("X = 2\n")
    assert digest(tree) == known


def test_code_that_was_not_changed_goes_on(tree):
    code = code_digest.code_digest(tree / "train.py")
    (tree / "plasticity/b.py").write_text("# only a comment\nX = 1\n")
    (tree / "plasticity/unrelated.py").write_text("X = 3\n")
    code_digest.check_code_unchanged(code)


@pytest.mark.parametrize("text", ["X = 2\n", "X = (\n", None], ids=["edited", "broken", "removed"])
def test_code_that_was_changed_while_a_job_waited_is_refused_by_name(tree, text):
    code = code_digest.code_digest(tree / "train.py")
    path = tree / "plasticity/b.py"
    path.write_text(text) if text else path.unlink()
    with pytest.raises(
        StudyError,
        match=r"workflow/scripts/plasticity/b\.py was edited after this job was planned.*start snakemake again",
    ):
        code_digest.check_code_unchanged(code)


def test_each_version_of_a_file_is_parsed_once(tree, monkeypatch):
    code = digest(tree)
    assert len(list(code_digest.PARSED.iterdir())) == len({TREE[name] for name in REACHED})
    code_digest._parsed.cache_clear()
    monkeypatch.setattr(code_digest, "_parse", None)
    assert digest(tree) == code


@pytest.mark.parametrize("content", ["", "[]", '["0123456789ab"'])
def test_a_damaged_file_of_the_cache_is_parsed_again(tree, content):
    code = digest(tree)
    for path in code_digest.PARSED.iterdir():
        path.write_text(content)
    code_digest._parsed.cache_clear()
    assert digest(tree) == code
    assert content not in [path.read_text() for path in code_digest.PARSED.iterdir()]


def test_a_folder_that_cannot_be_written_to_has_no_cache(tree):
    code_digest.PARSED.write_text("a file in the way")
    code_digest._parsed.cache_clear()
    assert digest(tree) == digest(tree)
    assert code_digest.PARSED.read_text() == "a file in the way"


def test_a_stamp_is_sorted_json_and_knows_neither_host_nor_time():
    stamp = code_digest.stamp("train", {"b": 1, "a": 2}, {"z.py": "1", "a.py": "2"})
    assert stamp == code_digest.stamp("train", {"a": 2, "b": 1}, {"a.py": "2", "z.py": "1"})
    assert set(stamp) == {"source", "contract", "settings", "code", "versions"}
    assert stamp["settings"] == '{"a": 2, "b": 1}'
    assert set(json.loads(stamp["versions"])) == {"python", "numpy", "torch", "xarray"}


@pytest.mark.parametrize("method", ["l2", "wasserstein"])
def test_training_with_a_method_takes_in_its_file_and_no_other_method(method):
    code = code_digest.code_digest(
        code_digest.SCRIPTS / "train.py", [LIBRARY / "methods" / f"{method}.py"]
    )
    names = {Path(name).name for name in code if "/methods/" in name}
    assert names == {"__init__.py", f"{method}.py"}
    assert not [name for name in code if "/figures/" in name]
    assert {"trainer.py", "ensemble.py", "tasks.py", "rng.py", "checkpoints.py"} <= {
        Path(name).name for name in code
    }


# the rules of the house that the digest rests on


def imported(path):
    """Modules that a file imports by statement, wherever the statement stands, as ``(level, dotted name)``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.level, f"{node.module}.{alias.name}") for alias in node.names)


@pytest.mark.parametrize(
    "path", [*MODULES, *ENTRIES], ids=lambda path: str(path.relative_to(code_digest.ROOT))
)
def test_imports_are_absolute_and_none_is_dynamic_but_the_registrys(path):
    assert not [name for level, name in imported(path) if level]
    if path.name != "registry.py":
        words = {
            node.id
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Name)
        }
        roots = {name.removeprefix("importlib.metadata") for _, name in imported(path)}
        assert not {"__import__", "exec", "eval"} & words
        assert not [
            name for name in roots if name.split(".")[0] in ("importlib", "runpy", "imp", "pkgutil")
        ]


def test_hints_of_types_are_read_of_fields_only_so_that_no_digest_may_leave_them_out():
    readers = {
        "get_type_hints",
        "singledispatch",
        "singledispatchmethod",
        "get_annotations",
        "signature",
        "__annotations__",
    }
    for path in [*MODULES, *ENTRIES]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        words = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | {
            node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
        }
        assert readers & words <= (
            {"get_type_hints"} if path == LIBRARY / "methods/__init__.py" else set()
        ), path


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_no_module_that_a_job_may_import_reads_a_file_of_the_repository_that_its_digest_would_not_know(
    path,
):
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "__file__" in line]
    assert not lines or path.stem in (
        "registry",
        "provenance",
    )  # where modules are; other files are inputs of rules


def test_the_commit_is_that_of_git_and_knows_of_files_that_differ(tmp_path, monkeypatch):
    monkeypatch.setattr(code_digest, "ROOT", tmp_path)
    assert code_digest.commit() == ("", False), "no repository"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    (tmp_path / ".gitignore").write_text("results\n")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "one"], check=True)
    head = subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    (tmp_path / "results").mkdir()
    (tmp_path / "results/a").touch()
    assert code_digest.commit() == (head, False)
    (tmp_path / "new.py").touch()
    assert code_digest.commit() == (head, True)
    monkeypatch.setenv("PATH", "")
    assert code_digest.commit() == ("", False), "no git"


@pytest.mark.parametrize("module", ["provenance", "registry", "errors", "settings"])
def test_what_the_launcher_rests_on_imports_the_standard_library_and_each_other_only(module):
    for _, name in imported(LIBRARY / f"{module}.py"):
        root, *rest = name.split(".")
        assert root in sys.stdlib_module_names or (
            root == "plasticity" and rest[0] in ("provenance", "registry", "errors", "settings")
        )


def test_reading_a_config_imports_no_heavy_package():
    code = "import sys, plasticity.config.study, plasticity.provenance.code_digest; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=code_digest.SCRIPTS,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "plasticity.config.study" in done.stdout.split()
    assert not {"torch", "xarray", "numpy", "matplotlib", "scipy", "netCDF4", "pandas"} & set(
        done.stdout.split()
    )
