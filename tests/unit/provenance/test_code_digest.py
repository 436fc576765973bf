"""Code digests: which files they cover, what changes them, and the rules on which they rely."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import plasticity
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
    "plasticity/a.py": (
        '"""A."""\n\nfrom plasticity import b\nfrom plasticity.rooms.c import thing\n'
    ),
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
    """A small repository with scripts in ``workflow/scripts``."""
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
    """Return the code digest of the entry, by path relative to the scripts."""
    code = code_digest.code_digest(tree / "train.py", [tree / name for name in named])
    return {name.removeprefix("workflow/scripts/"): value for name, value in code.items()}


def test_digest_follows_every_form_of_import_and_the_packages_around_a_module(tree):
    code = digest(tree)
    assert sorted(code) == sorted(["numpy", *REACHED])
    assert list(code) == [*sorted(REACHED), "numpy"]
    digests = [value for name, value in code.items() if name != "numpy"]
    assert all(re.fullmatch("[0-9a-f]{12}", value) for value in digests)


def test_named_files_and_their_imports_are_part_of_the_digest(tree):
    code = digest(tree, ["plasticity/rooms/named.py"])
    assert sorted(code) == sorted(
        ["numpy", *REACHED, "plasticity/rooms/named.py", "plasticity/f.py"]
    )


@pytest.fixture
def installed(monkeypatch):
    """Versions of packages, which a test may change."""
    versions = {"numpy": "2.0", "scikit-learn": "1.0", "torch": "2.0"}
    monkeypatch.setattr(code_digest, "version", versions.__getitem__)
    return versions


def test_digest_has_the_versions_of_imported_packages_that_compute(tree, installed):
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


def test_package_that_changed_while_a_job_was_queued_is_refused_by_name(tree, installed):
    code = code_digest.code_digest(tree / "train.py")
    code_digest.check_code_unchanged(code)
    installed["numpy"] = "2.1"
    with pytest.raises(
        StudyError,
        match=r"numpy has another version than when this job was planned.*start snakemake again",
    ):
        code_digest.check_code_unchanged(code)


def test_every_imported_package_is_known_to_compute_or_not():
    roots = {name.partition(".")[0] for path in MODULES for _, name in imported(path)}
    assert {"plasticity"} <= roots
    storing_or_showing = {
        "docutils",
        "bokeh",
        "itables",
        "jinja2",
        "markupsafe",
        "netCDF4",
        "panel",
        "pydantic",
        "pydantic_core",
        "snakemake",
        "xarray",
        "yaml",
    }
    installed_roots = roots - set(sys.stdlib_module_names) - {"plasticity"}
    assert installed_roots - storing_or_showing == set(code_digest.COMPUTING_PACKAGES)


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
def test_comments_docstrings_type_hints_and_layout_leave_the_digest(tree, before, after):
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
def test_other_edits_change_the_digest_of_their_file_only(tree, before, after):
    (tree / "plasticity/b.py").write_text(before)
    known = digest(tree)
    (tree / "plasticity/b.py").write_text(after)
    assert {name for name, value in digest(tree).items() if value != known[name]} == {
        "plasticity/b.py"
    }


MESSAGE = 'raise StudyError(f"the task {task} has no image: {reason(1)}", 2)'


@pytest.mark.parametrize(
    ("text", "is_same"),
    [
        (MESSAGE.replace("has no image", "lacks images"), True),
        (MESSAGE.replace("{task}", "{seed}"), False),
        (MESSAGE.replace("reason(1)", "reason(2)"), False),
        (MESSAGE.replace(", 2", ", 3"), False),
        (MESSAGE.replace("StudyError", "KeyError"), False),
    ],
)
def test_text_of_a_message_leaves_the_digest_but_its_values_stay(tree, text, is_same):
    path = tree / "train.py"
    path.write_text(MESSAGE, encoding="utf-8")
    before = code_digest.file_digest(path)
    path.write_text(text, encoding="utf-8")
    assert (code_digest.file_digest(path) == before) == is_same


@pytest.mark.parametrize(
    ("before", "after", "is_same"),
    [
        ('log.log.info("task %d", task)', 'log.log.info("task number %d", task)', True),
        ('log.warning("low on memory")', 'log.warning("little memory")', True),
        ('log.warn_once("slow")', 'log.warn_once("slower")', True),
        ('log.log.info("task %d", task)', 'log.log.info("task %d", seed)', False),
        ('values.log("a")', 'values.log("b")', False),
        ('table.info("a")', 'table.info("b")', False),
    ],
)
def test_text_of_a_log_line_leaves_the_digest(tree, before, after, is_same):
    path = tree / "train.py"
    path.write_text(before, encoding="utf-8")
    digest_before = code_digest.file_digest(path)
    path.write_text(after, encoding="utf-8")
    assert (code_digest.file_digest(path) == digest_before) == is_same


def test_byte_order_mark_leaves_the_digest(tree):
    path = tree / "train.py"
    path.write_text("x = 1", encoding="utf-8")
    before = code_digest.file_digest(path)
    path.write_text("\ufeffx = 1", encoding="utf-8")
    assert code_digest.file_digest(path) == before


@pytest.mark.parametrize("content", [b"def broken(:", "größe = 1".encode("latin-1"), b"x = '\0'"])
def test_file_that_is_not_python_is_named(tree, content):
    path = tree / "train.py"
    path.write_bytes(content)
    with pytest.raises(StudyError, match=r"train\.py.*: Python cannot read this file.*Correct it"):
        code_digest.code_digest(path)


def test_file_that_is_not_imported_is_no_part_of_the_digest(tree):
    known = digest(tree)
    (tree / "plasticity/unrelated.py").write_text("X = 2\n")
    (tree / "plasticity/new.py").write_text("X = 2\n")
    assert digest(tree) == known


def test_job_with_unchanged_code_runs(tree):
    code = code_digest.code_digest(tree / "train.py")
    (tree / "plasticity/b.py").write_text("# only a comment\nX = 1\n")
    (tree / "plasticity/unrelated.py").write_text("X = 3\n")
    code_digest.check_code_unchanged(code)


@pytest.mark.parametrize("text", ["X = 2\n", "X = (\n", None], ids=["edited", "broken", "removed"])
def test_file_that_changed_while_a_job_was_queued_is_refused_by_name(tree, text):
    code = code_digest.code_digest(tree / "train.py")
    path = tree / "plasticity/b.py"
    path.write_text(text) if text else path.unlink()
    message = r"plasticity/b\.py was edited after this job was planned.*start snakemake again"
    with pytest.raises(StudyError, match=message):
        code_digest.check_code_unchanged(code)


def test_each_version_of_a_file_is_parsed_once(tree, monkeypatch):
    code = digest(tree)
    assert len(list(code_digest.PARSED.iterdir())) == len({TREE[name] for name in REACHED})
    code_digest._parse_cached.cache_clear()
    monkeypatch.setattr(code_digest, "_parse", None)
    assert digest(tree) == code


@pytest.mark.parametrize("content", ["", "[]", '["0123456789ab"'])
def test_damaged_file_of_the_cache_is_parsed_again(tree, content):
    code = digest(tree)
    for path in code_digest.PARSED.iterdir():
        path.write_text(content)
    code_digest._parse_cached.cache_clear()
    assert digest(tree) == code
    assert content not in [path.read_text() for path in code_digest.PARSED.iterdir()]


def test_folder_that_is_not_writable_has_no_cache(tree):
    code_digest.PARSED.write_text("a file in the way")
    code_digest._parse_cached.cache_clear()
    assert digest(tree) == digest(tree)
    assert code_digest.PARSED.read_text() == "a file in the way"


def test_stamp_is_sorted_json_without_host_or_time():
    stamp = code_digest.stamp("train", {"b": 1, "a": 2}, {"z.py": "1", "a.py": "2"})
    assert stamp == code_digest.stamp("train", {"a": 2, "b": 1}, {"a.py": "2", "z.py": "1"})
    assert set(stamp) == {"source", "contract", "settings", "code", "versions"}
    assert stamp["settings"] == '{"a": 2, "b": 1}'
    assert set(json.loads(stamp["versions"])) == {"python", "numpy", "torch", "xarray"}


@pytest.mark.parametrize("method", ["l2", "wasserstein"])
def test_digest_of_training_has_the_file_of_its_method_and_of_no_other(method):
    code = code_digest.code_digest(
        code_digest.SCRIPTS / "train.py", [LIBRARY / "training" / "methods" / f"{method}.py"]
    )
    names = {Path(name).name for name in code if "/methods/" in name}
    assert names == {"__init__.py", f"{method}.py"}
    assert not [name for name in code if "/figures/" in name]
    assert {"trainer.py", "ensemble.py", "tasks.py", "rng.py", "checkpoints.py"} <= {
        Path(name).name for name in code
    }


# Rules of the library on which the digest relies


def imported(path):
    """Yield all imports of a file, also those inside functions, as ``(level, dotted name)``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.level, f"{node.module}.{alias.name}") for alias in node.names)


@pytest.mark.parametrize(
    "path", [*MODULES, *ENTRIES], ids=lambda path: str(path.relative_to(code_digest.ROOT))
)
def test_imports_are_absolute_and_two_modules_import_dynamically(path):
    assert not [name for level, name in imported(path) if level]
    # the fork server imports packages, and runs the entry of a job, whose digest is that of the job
    if path.name not in ("registry.py", "fork_server.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        words = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert not {"__import__", "exec", "eval"} & words
        names = {name.removeprefix("importlib.metadata") for _, name in imported(path)}
        roots = {name.split(".")[0] for name in names}
        assert not {"importlib", "runpy", "imp", "pkgutil"} & roots


def test_code_reads_no_type_hints_except_those_of_fields():
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
        words = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        words |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        # the second builds the schema from the fields of dataclasses, whose hints are in the digest
        reads_fields = {LIBRARY / "training/method.py", LIBRARY / "config/schema.py"}
        allowed = {"get_type_hints"} if path in reads_fields else set()
        assert readers & words <= allowed, path


def test_release_is_in_no_code_digest():
    assert (LIBRARY / "VERSION").read_text().strip() == plasticity.__version__
    for entry in sorted(code_digest.SCRIPTS.glob("*.py")):
        digest = code_digest.code_digest(entry)
        assert all(name.endswith(".py") for name in digest if "/" in name)
        assert "plasticity" not in digest


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_no_module_reads_a_file_of_the_repository_that_the_digest_does_not_cover(
    path,
):
    # two look for modules, one writes the schema for editors, one starts itself as a server, and
    # the package reads its version, which changes no number; other files are inputs of rules
    known = ("registry", "code_digest", "schema", "fork_server")
    if path.stem not in known and path != LIBRARY / "__init__.py":
        assert "__file__" not in path.read_text(encoding="utf-8")


def test_commit_comes_from_git_with_whether_files_differ(tmp_path, monkeypatch):
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


BASIC_MODULES = ["provenance.code_digest", "config.registry", "config.models", "errors", "atomic"]


@pytest.mark.parametrize("module", BASIC_MODULES)
def test_basic_modules_of_the_launcher_import_little(module):
    path = LIBRARY.joinpath(*module.split(".")).with_suffix(".py")
    allowed = tuple(f"plasticity.{name}." for name in BASIC_MODULES)
    if module == "config.models":
        allowed += ("pydantic.", "pydantic_core.")
    for _, name in imported(path):
        is_standard = name.split(".")[0] in sys.stdlib_module_names
        assert is_standard or f"{name}.".startswith(allowed), name


def test_reading_a_config_imports_no_heavy_package():
    modules = (
        "plasticity.config.study, plasticity.provenance.code_digest, plasticity.provenance.audit"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {modules}; print(*sys.modules)"],
        cwd=code_digest.SCRIPTS,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert "plasticity.config.study" in loaded
    heavy = {"torch", "xarray", "numpy", "matplotlib", "scipy", "netCDF4", "pandas"}
    assert not heavy & loaded
