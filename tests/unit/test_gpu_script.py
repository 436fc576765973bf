"""The script for a GPU runs from end to end on a CPU, with four packages only."""

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import gpu.__main__ as gpu
import pytest
import yaml

ROOT = Path(__file__).parents[2]
# of those that the script needs: torch, numpy, xarray and h5py, and what these import
NEEDED = {
    *("torch", "torchgen", "functorch", "numpy", "xarray", "h5py", "pandas", "packaging", "six"),
    *("dateutil", "pytz", "tzdata", "typing_extensions", "filelock", "sympy", "mpmath", "networkx"),
    *("jinja2", "markupsafe", "fsspec", "triton", "nvidia", "cuda", "setuptools", "pkg_resources"),
}
BLOCK = f"""
import sys
from importlib.machinery import PathFinder

class WithoutOtherPackages(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = PathFinder.find_spec(name, path, target)
        is_hidden = path is None and name not in {NEEDED!r} and not name.startswith("_")
        if is_hidden and spec and "site-packages" in str(spec.origin):
            return None
        return spec

sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutOtherPackages
"""


@pytest.mark.slow
def test_script_runs_on_a_cpu_with_four_packages(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BLOCK)
    env = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHON": sys.executable}
    output = tmp_path / "gpu.json"
    done = subprocess.run(
        [ROOT / "benchmarks/gpu.sh", "--device", "cpu", "--output", output],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(output.read_text())
    assert results["card"] is None
    assert results["note"] == gpu.NO_GPU
    assert gpu.NO_GPU in done.stdout
    assert list(results["parts"]) == [part.__name__ for part in gpu.PARTS]
    for name, part in results["parts"].items():
        assert part["items"], name
    assert len(results["parts"]["study"]["items"]) == 11


@pytest.mark.parametrize("page", ["README.md", "docs/development/performance.md"])
def test_documents_say_that_nothing_ran_on_a_gpu(page):
    """Until the results of a card are published."""
    assert "never run on a GPU" in " ".join((ROOT / page).read_text().split())


def test_parts_take_less_than_six_minutes():
    assert sum(gpu.PARTS.values()) < 6 * 60


def test_failing_item_is_reported_and_the_others_run(monkeypatch, capsys):
    def part(scale):
        yield "bad", lambda: {}["key"]
        yield "good", lambda: {"number": 1}

    monkeypatch.setattr(gpu, "PARTS", {part: 1})
    gpu.run_part("part", gpu.CPU)
    bad, good, end = map(json.loads, capsys.readouterr().out.splitlines())
    assert (bad["passed"], bad["error"]) == (False, "KeyError: 'key'")
    assert (good["passed"], good["number"]) == (True, 1)
    assert end == {"end": "part"}


def test_part_that_exceeds_its_limit_fails():
    outcome = gpu.run_in_process("study", gpu.CPU, 0.01)
    assert not outcome["passed"]
    assert outcome["error"] == "stopped after 0.01 s"


def test_study_of_the_script_is_the_default_study():
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    assert config["seeds"] == {"tune": 0, "report": gpu.STUDY_SEEDS}
    assert config["seeds_per_job"] == gpu.STUDY_SEEDS
    jobs = []
    for name, setting in config["settings"].items():
        problem = setting["problem"]
        assert {key: problem[key] for key in gpu.STUDY_PROBLEM} == gpu.STUDY_PROBLEM
        network = setting["network"]
        assert (network["kind"], network["width"], network["depth"]) == ("mlp", 64, 3)
        assert setting["optimizer"] == {"kind": "adam", "lr": 0.001}
        jobs.append((network["activation"], "fresh", [{}]))
        for method, values in config["methods"].items():
            if name in values.get("settings", [name]):
                options = {key: values[key] for key in values if key != "settings"}
                arms = [dict(zip(options, arm, strict=True)) for arm in product(*options.values())]
                jobs.append((network["activation"], method, arms))
    assert sorted(map(str, jobs)) == sorted(map(str, gpu.STUDY_JOBS))
