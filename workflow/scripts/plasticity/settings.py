"""Settings as typed values. They cross from the launcher to a job as JSON, and nobody else looks into a dictionary."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

YARDSTICK = "fresh"  # the method that every arm is compared to


@dataclass(frozen=True)
class Choice:
    """Something that a config chooses by the name of a file; `options` are those that the file itself declares."""

    options: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Build from a mapping: as a config holds it, options beside the other keys, or as `dataclasses.asdict` gives it back."""
        own = {key: value for key, value in values.items() if key in cls.common()}
        others = {key: value for key, value in values.items() if key not in {*own, "options"}}
        return cls(**own, options=others | values.get("options", {}))

    @classmethod
    def common(cls) -> list[str]:
        """The keys that a config may set whatever the file."""
        return [one.name for one in fields(cls) if one.name != "options"]


@dataclass(frozen=True)
class Dataset(Choice):
    """Where images and labels come from: a file of `datasets/`."""

    kind: str


@dataclass(frozen=True)
class Problem(Choice):
    """A dataset, how its tasks change (a file of `changes/`), and the budget per task: in epochs or in steps."""

    dataset: str
    change: str
    samples: int
    batch: int
    epochs: int | None = None
    tasks: int = 1
    steps_per_task: int | None = None
    test_samples: int = 0
    separable: bool = False
    head: str = "kept"

    @property
    def steps(self) -> int:
        """Optimizer steps per task: whole batches only."""
        return self.steps_per_task or (self.epochs or 0) * self.steps_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass over the samples."""
        return self.samples // self.batch


@dataclass(frozen=True)
class Network(Choice):
    """The network that learns: a file of `networks/`."""

    kind: str
    activation: str
    initialization: str = "he"
    matched: bool = False


@dataclass(frozen=True)
class Optimizer(Choice):
    """How it learns: a file of `optimizers/`."""

    kind: str
    at_switch: str = "kept"


@dataclass(frozen=True)
class Setting:
    """A row of the study: problem + network + optimizer."""

    problem: Problem
    network: Network
    optimizer: Optimizer

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Setting":
        """Build from the nested mapping that a config holds, or that `dataclasses.asdict` gives back."""
        return cls(Problem.of(values["problem"]), Network.of(values["network"]), Optimizer.of(values["optimizer"]))


@dataclass(frozen=True)
class Training:
    """What training records, and in which precision its products are computed."""

    checkpoint_every: int = 1
    curve_points: int = 10
    precision: str = "float32"


@dataclass(frozen=True)
class Curvature:
    """What is computed from the checkpoints, and when."""

    operators: tuple[str, ...]
    samples: int
    moments: tuple[str, ...]
    every: int


@dataclass(frozen=True)
class Criterion:
    """What a method's arm is chosen by: the least mean of an outcome over the tasks of a stage."""

    outcome: str = "final_error"
    stage: str = "all"


def parts(method: str) -> list[str]:
    """The methods that a name composes, in their order: ``layer_norm+l2`` → ``["layer_norm", "l2"]``."""
    return [part.strip() for part in method.split("+")]


def hyper_parameters(method: str, part: str, arm: Mapping[str, Any]) -> dict[str, Any]:
    """Those of one part of a method: in a composition they are named ``l2.strength``."""
    prefix = f"{part}." if "+" in method else ""
    return {key.removeprefix(prefix): value for key, value in arm.items() if key.startswith(prefix)}


def arm_name(method: str, arm: Mapping[str, float | str]) -> str:
    """How files and figures call an arm: ``l2(strength=0.001)``, or the bare method where it has no hyper-parameters."""
    values = ", ".join(f"{key}={value if isinstance(value, str) else _written(value)}" for key, value in arm.items())
    return f"{method}({values})" if values else method


def _written(number: float) -> str:
    """In twelve digits where they say it all, so that two numbers are never written alike."""
    short = f"{number:.12g}"
    return short if float(short) == number else repr(number)
