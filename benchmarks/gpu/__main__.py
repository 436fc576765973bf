"""Check and measure training and curvature on a GPU; benchmarks/gpu.sh starts it.

It is in a folder of its own, so `make bench` does not run it.

Each part runs in a process of its own, so an error, a hang or a broken CUDA context of one part
does not stop the others. A part prints one JSON line per result. What it printed before its time
limit counts. The parts are:

- checks: the bodies of the tests marked `gpu`, which need no pytest;
- training: ensembles of 1, 30 and 100 runs, microseconds per seed and step;
- methods: every method for one task;
- curvature: every operator against the CPU, in float64;
- study: the training of the whole default study, on images of noise.
"""

import argparse
import importlib
import json
import platform
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "workflow/scripts"), str(ROOT / "tests/unit")]

NO_GPU = "No GPU was found: every number here is the CPU's, and only a small part ran."
# of the default study, config.yaml: shared values of its settings, and what its jobs train
STUDY_PROBLEM = {"samples": 1280, "batch": 64, "epochs": 10, "tasks": 40}
STUDY_SEEDS = 5
STUDY_JOBS = [
    *(
        (activation, method, [{}])
        for activation in ("relu", "leaky_relu", "tanh", "identity")
        for method in ("none", "fresh")
    ),
    *(
        ("relu", method, [{"strength": 0.001}, {"strength": 0.01}])
        for method in ("l2", "l2_init", "wasserstein")
    ),
]
Item = tuple[str, Callable[[], dict[str, Any]]]


@dataclass(frozen=True)
class Scale:
    """How much of each part runs.

    Attributes:
        device: cuda or cpu.
        methods: how many methods are checked.
        runs: sizes of the measured ensembles.
        epochs: of a measured task, and of a task of the study.
        tasks: of the study.
    """

    device: str
    methods: int
    runs: tuple[int, ...]
    epochs: int
    tasks: int


GPU = Scale("cuda", methods=1000, runs=(1, 30, 100), epochs=10, tasks=STUDY_PROBLEM["tasks"])
CPU = Scale("cpu", methods=2, runs=(1, 3), epochs=1, tasks=1)


def checks(scale: Scale) -> Iterator[Item]:
    """Yield the bodies of the tests marked `gpu`."""
    import gpu_checks
    import torch

    device = torch.device(scale.device)
    methods = gpu_checks.METHODS[: scale.methods]

    def item(name: str, check: Callable[..., float], *arguments: object) -> Item:
        return name, lambda: {"largest_difference": check(*arguments)}

    for method in methods:
        if method not in gpu_checks.methods_that_wait():
            yield item(f"no wait: {method}", gpu_checks.check_no_step_waits, method, device)
        yield item(
            f"captured = plain: {method}",
            gpu_checks.check_captured_step_equals_plain_step,
            method,
            device,
        )
        if method not in gpu_checks.DRAW_ON_DEVICE:
            yield item(f"= CPU: {method}", gpu_checks.check_run_equals_cpu_run, method, device)
    for kind in ("cnn", "resnet18"):
        check = gpu_checks.check_run_equals_cpu_run
        yield item(f"= CPU: {kind}", check, "l2_init", device, kind)


def training(scale: Scale) -> Iterator[Item]:
    """Yield ensembles of several sizes, of the network and batch of L2 Init."""
    from plasticity.config.models import Network, Optimizer, Problem, Setting

    setting = Setting(
        Problem("noise", "shuffle_labels", samples=1280, batch=16, epochs=scale.epochs, tasks=2),
        Network("mlp", "relu", options={"width": 100, "depth": 2}),
        Optimizer("adam", options={"lr": 0.001}),
    )
    data = noise(28)
    for runs in scale.runs:
        yield f"{runs} runs", lambda runs=runs: time_task(scale, setting, "none", [{}], runs, data)


def methods(scale: Scale) -> Iterator[Item]:
    """Yield every method for one task of the default study, with 2 arms and 5 seeds."""
    import ensembles
    from ensembles import ARMS

    setting = study_setting("relu", scale.epochs, tasks=2)
    data = noise(8)
    for method, arms in ARMS.items():
        changed = ensembles.with_network_of(setting, method)
        yield (
            method,
            lambda changed=changed, method=method, arms=arms: time_task(
                scale, changed, method, arms, STUDY_SEEDS, data
            ),
        )


def curvature(scale: Scale) -> Iterator[Item]:
    """Yield every operator against the CPU."""
    import gpu_checks
    import torch

    def compare(operator: str, kind: str) -> dict[str, Any]:
        check = gpu_checks.check_curvature_equals_that_of_a_cpu
        return {"largest_difference": check(operator, torch.device(scale.device), kind)}

    for kind in ("mlp", "cnn"):
        for operator in gpu_checks.OPERATORS:
            yield (
                f"{operator}, {kind}",
                lambda operator=operator, kind=kind: compare(operator, kind),
            )


def study(scale: Scale) -> Iterator[Item]:
    """Yield the training of each job of the default study."""
    import torch

    from plasticity.training.trainer import Trainer, train

    data = noise(8)

    def train_job(activation: str, method: str, arms: list[dict[str, float]]) -> dict[str, Any]:
        setting = study_setting(activation, scale.epochs, scale.tasks)
        runs = [(arm, seed) for arm in arms for seed in range(STUDY_SEEDS)]
        trainer = Trainer(setting, method, runs, data, device=torch.device(scale.device))
        train(trainer)
        diverged = int(trainer.recorder.outcomes["status"][:, -1].sum())
        assert not diverged, f"{diverged} runs diverged"
        return {"runs": len(runs), "steps": setting.problem.steps * scale.tasks}

    for job in STUDY_JOBS:
        yield f"{job[0]}/{job[1]}", lambda job=job: train_job(*job)


# what each part may take, in seconds; together less than 6 minutes
PARTS = {checks: 110, training: 50, methods: 60, curvature: 50, study: 80}


def noise(size: int) -> Any:
    """Prepare 1797 square images of noise in ten classes, as many as scikit-learn's digits."""
    import numpy as np

    from plasticity.data import dataset

    pixels = np.random.default_rng(0).integers(0, 17, (1797, 1, size, size), np.uint8)
    labels = np.arange(1797) % 10
    return dataset.describe("noise", dataset.Images(pixels, labels, list("0123456789"), 16), {})


def study_setting(activation: str, epochs: int, tasks: int) -> Any:
    """Build a setting of the default study, for images of noise."""
    from plasticity.config.models import Network, Optimizer, Problem, Setting

    problem = STUDY_PROBLEM | {"epochs": epochs, "tasks": tasks}
    return Setting(
        Problem("noise", "shuffle_labels", **problem),
        Network("mlp", activation, options={"width": 64, "depth": 3}),
        Optimizer("adam", options={"lr": 0.001}),
    )


def time_task(
    scale: Scale, setting: Any, method: str, arms: list[dict[str, float]], seeds: int, data: Any
) -> dict[str, Any]:
    """Time the second task of an ensemble; the first one captures the step."""
    import torch

    from plasticity.training.trainer import Trainer

    runs = [(arm, seed) for arm in arms for seed in range(seeds)]
    trainer = Trainer(setting, method, runs, data, device=torch.device(scale.device))
    for _ in range(2):
        trainer.on_task_start()
        start = time.perf_counter()
        trainer.learn()  # ends with outcomes on the CPU
        seconds = time.perf_counter() - start
    microseconds = seconds / setting.problem.steps * 1e6
    return {"µs_per_step": microseconds, "µs_per_seed_and_step": microseconds / len(runs)}


def allow_missing_pydantic() -> None:
    """Replace pydantic, which only checks the types of a config file."""
    try:
        importlib.import_module("pydantic")
    except ImportError:
        pydantic, core = types.ModuleType("pydantic"), types.ModuleType("pydantic_core")
        for name in ("Field", "AfterValidator"):
            setattr(pydantic, name, lambda *_, **__: None)
        core.PydanticCustomError = ValueError  # type: ignore[attr-defined]
        sys.modules |= {"pydantic": pydantic, "pydantic_core": core}


def run_part(name: str, scale: Scale) -> None:
    """Run the items of a part in this process, and print a line of JSON for each."""
    allow_missing_pydantic()
    from plasticity.models.ensemble import make_deterministic

    make_deterministic()
    part = next(part for part in PARTS if part.__name__ == name)
    for item, action in part(scale):
        start = time.perf_counter()
        result: dict[str, Any] = {"item": item, "passed": True}
        try:
            result |= action()
        except Exception as error:  # noqa: BLE001 - the other items must run
            result |= {"passed": False, "error": f"{type(error).__name__}: {error}"[:1000]}
        result["seconds"] = time.perf_counter() - start
        print(json.dumps(result), flush=True)
    print(json.dumps({"end": name}), flush=True)


def run_in_process(name: str, scale: Scale, limit: float) -> dict[str, Any]:
    """Run a part in a process of its own, for at most `limit` seconds."""
    command = [sys.executable, __file__, "--part", name, "--device", scale.device]
    start = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
        output, errors = done.stdout, done.stderr
        error = "" if done.returncode == 0 else errors[-1000:]
    except subprocess.TimeoutExpired as expired:
        output = expired.stdout.decode() if isinstance(expired.stdout, bytes) else ""
        error = f"stopped after {limit} s"
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    items = [line for line in lines if "item" in line]
    failed = [item["item"] for item in items if not item["passed"]]
    return {
        "passed": not failed and {"end": name} in lines,
        "seconds": time.perf_counter() - start,
        "failed": failed,
        "error": error,
        "items": items,
    }


def main() -> None:
    """Run all parts, print a line for each, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--device", choices=["cuda", "cpu"], help="by default a GPU if there is one"
    )
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    parser.add_argument("--part", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        run_part(arguments.part, GPU if arguments.device == "cuda" else CPU)
        return

    import torch

    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    scale = GPU if device == "cuda" else CPU
    results: dict[str, Any] = {
        "card": torch.cuda.get_device_name() if device == "cuda" else None,
        "processor": platform.machine(),
        "torch": torch.__version__,
        "note": "" if device == "cuda" else NO_GPU,
        "parts": {},
    }
    print(f"torch {results['torch']}, {results['card'] or NO_GPU}", flush=True)
    for part, limit in PARTS.items():
        outcome = run_in_process(part.__name__, scale, limit)
        results["parts"][part.__name__] = outcome
        state = "passed" if outcome["passed"] else "FAILED"
        print(
            f"{part.__name__:10} {state}  {len(outcome['items']):3} items  "
            f"{outcome['seconds']:5.1f} s  {', '.join(outcome['failed'])} {outcome['error']}",
            flush=True,
        )
        arguments.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    sys.exit(0 if all(part["passed"] for part in results["parts"].values()) else 1)


if __name__ == "__main__":
    main()
