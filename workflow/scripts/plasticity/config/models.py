"""Settings as typed values. They cross from the launcher to a job as JSON, and nobody else looks into a dictionary."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

BASELINE = "fresh"  # the method that every arm is compared to
EVALUATION_POINTS = ("previous", "next", "fresh")  # in the order of results


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
    shift: str
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
    at_task_boundary: str = "kept"


@dataclass(frozen=True)
class Setting:
    """A row of the study: problem + network + optimizer."""

    problem: Problem
    network: Network
    optimizer: Optimizer

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Setting":
        """Build from the nested mapping that a config holds, or that `dataclasses.asdict` gives back."""
        return cls(
            Problem.of(values["problem"]),
            Network.of(values["network"]),
            Optimizer.of(values["optimizer"]),
        )


@dataclass(frozen=True)
class Training:
    """What training records, and in which precision its products are computed."""

    checkpoint_every: int = 1
    curve_points: int = 10
    precision: str = "float32"


@dataclass(frozen=True)
class Spectra:
    """How an operator's spectra are taken: on what, how exactly, and how often."""

    samples: int
    every: int
    evaluation_points: tuple[str, ...]
    blocks: tuple[str, ...] = ("layers", "last_two", "all")
    exact_up_to: int = 2048
    estimate: bool = True
    steps: int = 64
    probes: int = 4
    probe_block: int = 1


@dataclass(frozen=True)
class Curvature:
    """What is computed from the checkpoints, and when: at every so many tasks each operator, and all other measures at `every`."""

    operators: Mapping[str, Spectra]
    evaluation_points: tuple[str, ...]
    every: int
    levels: tuple[float, ...] = (0.99,)
    top: int = 10

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Build from a mapping: as a config holds it, an operator's own keys before the common ones, or as `asdict` gives it back.

        Moments and blocks are put into an order of our own, so that a turned list reruns nothing; of levels the first has the plain name.
        """
        common = {one.name: values[one.name] for one in fields(Spectra) if one.name in values}
        named = (
            values["operators"]
            if isinstance(values["operators"], Mapping)
            else {name: {} for name in values["operators"]}
        )
        taken = {name: common | own for name, own in sorted(named.items())}
        operators = {
            name: Spectra(
                **own
                | {
                    "evaluation_points": tuple(
                        sorted(own["evaluation_points"], key=EVALUATION_POINTS.index)
                    )
                }
                | {
                    "blocks": tuple(
                        sorted(own.get("blocks", Spectra.blocks), key=Spectra.blocks.index)
                    )
                }
            )
            for name, own in taken.items()
        }
        levels, top = tuple(values.get("levels", cls.levels)), values.get("top", cls.top)
        return cls(
            operators,
            tuple(sorted(values["evaluation_points"], key=EVALUATION_POINTS.index)),
            values["every"],
            levels,
            top,
        )


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
    values = ", ".join(
        f"{key}={value if isinstance(value, str) else _written(value)}"
        for key, value in arm.items()
    )
    return f"{method}({values})" if values else method


def _written(number: float) -> str:
    """In twelve digits where they say it all, so that two numbers are never written alike."""
    short = f"{number:.12g}"
    return short if float(short) == number else repr(number)


@dataclass(frozen=True)
class Hypothesis:
    """What is claimed before the data: how a measure goes with an outcome, or how an arm's outcome compares to another's."""

    name: str
    outcome: str
    direction: str
    measure: str | None = None
    evaluation_point: str | None = None
    block: str | None = None
    against: str = "mismatched"
    arm: str = "none"
    versus: str | None = None
    stage: str = "late"
    settings: tuple[str, ...] = ()
    family: str = "confirmatory"

    @property
    def table(self) -> str:
        """The table that has its test."""
        return "nulls" if self.measure else "comparisons"

    @property
    def row(self) -> dict[str, str]:
        """What its rows there have in these columns."""
        of_measure = {
            "measure": self.measure,
            "evaluation_point": self.evaluation_point,
            "block": self.block,
            "null": self.against,
        }
        of_arms = {"versus": self.versus, "stage": self.stage, "statistic": "mean_difference"}
        values = {"arm": self.arm, "outcome": self.outcome} | (
            of_measure if self.measure else of_arms
        )
        return {column: value for column, value in values.items() if value is not None}

    @property
    def claim(self) -> str:
        """In words."""
        words = {name: value.replace("_", " ") for name, value in self.row.items()}
        if self.measure:
            return f"{words['measure']} and {words['outcome']} of {self.arm} go together ({self.direction}), beside the null {self.against}"
        side = "above" if self.direction == "positive" else "below"
        return f"{words['outcome']} ({self.stage}) of {self.arm} is {side} that of {self.versus}"


@dataclass(frozen=True)
class Statistics:
    """What is tested, on how many draws, and from where a change counts."""

    hypotheses: tuple[Hypothesis, ...] = ()
    draws: int = 1999
    lost: float = 0.05
    moved: float = 0.2

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Build from a mapping, as a config holds it or as `dataclasses.asdict` gives it back."""
        declared = tuple(
            Hypothesis(**one | {"settings": tuple(one.get("settings", ()))})
            for one in values.get("hypotheses", ())
        )
        return cls(**dict(values) | {"hypotheses": declared})
