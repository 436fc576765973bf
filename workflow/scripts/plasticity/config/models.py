"""Typed sections of a config. They reach jobs as JSON.

The fields of a class are the keys of a section, with their types, ranges and defaults. The part
`Attributes` of its docstring describes the keys for users. `schema.py` builds the schema of the
whole file from both, so nothing is described twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

BASELINE = "fresh"  # a network initialised from scratch for every task
EVALUATION_POINTS = ("previous", "next", "fresh")  # in the order of results
UNTREATED = "none"  # the treatment that changes nothing
FAMILIES = ("control", "restoring", "harmful", "preserving")  # of treatments, in order of results

Value = TypeVar("Value")


def check_distinct(values: tuple[Value, ...]) -> tuple[Value, ...]:
    """Refuse a list in which a value occurs twice."""
    if len(set(values)) < len(values):
        raise PydanticCustomError("duplicate", "a value occurs twice")
    return values


Count = Annotated[int, Field(ge=1, le=10**9)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]
Distinct = Annotated[
    tuple[Value, ...],
    Field(min_length=1, json_schema_extra={"uniqueItems": True}),
    AfterValidator(check_distinct),
]
EvaluationPoint = Literal["previous", "next", "fresh"]
Block = Literal["layers", "last_two", "all"]


@dataclass(frozen=True)
class Choice:
    """Something that a config chooses by the name of a file.

    Attributes:
        options: Values of the options that the file itself declares.
    """

    options: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Build from a section of a config, or from what `dataclasses.asdict` returned.

        In a config, options stand next to the common keys. `asdict` collects them in `options`.
        """
        common = {key: values[key] for key in cls.common() if key in values}
        options = {
            key: value for key, value in values.items() if key not in common and key != "options"
        }
        return cls(**common, options=options | values.get("options", {}))

    @classmethod
    def common(cls) -> list[str]:
        """List the keys that a config may set whichever file it chooses."""
        return [key.name for key in fields(cls) if key.name != "options"]


@dataclass(frozen=True)
class Dataset(Choice):
    """The file that reads a dataset, and its options.

    Attributes:
        kind: A file of data/datasets (default: the name of the dataset).
    """

    kind: str


@dataclass(frozen=True)
class Problem(Choice):
    """A dataset, how its tasks change, and the budget per task.

    Attributes:
        dataset: A name of `datasets`, or a file of data/datasets.
        shift: How a task differs from the previous one: a file of data/shifts.
        samples: Training images per task.
        batch: Images per step. The last partial batch of an epoch is dropped.
        epochs: Passes over the images of a task. Alternative: steps_per_task.
        tasks: Number of tasks in a run.
        steps_per_task: Optimizer steps per task. Alternative: epochs.
        test_samples: Test images per task, for the outcome test_error.
        scaling: Scale of the pixels: standardize (mean 0 and standard deviation 1 per channel, over
            the dataset), symmetric (from -1 to 1) or unit (from 0 to 1). It decides how well the
            first task is learned.
        separable: Refuse images that a linear map cannot give arbitrary labels.
        head: The output layer at a task boundary. With fresh, its weights are drawn again and the
            optimizer's state for them is cleared.
    """

    dataset: str
    shift: str
    samples: Annotated[int, Field(ge=2)]
    batch: Count
    epochs: Count | None = None
    tasks: Annotated[int, Field(ge=1, le=10**6)] = 1
    steps_per_task: Count | None = None
    test_samples: Annotated[int, Field(ge=0)] = 0
    scaling: Literal["standardize", "symmetric", "unit"] = "standardize"
    separable: bool = False
    head: Literal["kept", "fresh"] = "kept"

    @property
    def steps(self) -> int:
        """Optimizer steps per task. Only whole batches count."""
        return self.steps_per_task or (self.epochs or 0) * self.steps_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass over the samples."""
        return self.samples // self.batch


@dataclass(frozen=True)
class Network(Choice):
    """The network that learns.

    Attributes:
        kind: A file of models/architectures.
        activation: Non-linearity after each hidden layer. identity makes a deep linear network;
            crelu and fourier return two values per unit.
        initialization: Distribution of the initial weights.
        matched: With crelu or fourier, use fewer units, so that there are as many parameters as
            with relu.
    """

    kind: str
    activation: Literal["relu", "leaky_relu", "tanh", "identity", "gelu", "sin", "crelu", "fourier"]
    initialization: Literal["he", "he_uniform", "xavier", "orthogonal", "pytorch"] = "he"
    matched: bool = False


@dataclass(frozen=True)
class Optimizer(Choice):
    """The optimizer.

    Attributes:
        kind: A file of training/optimizers.
        at_task_boundary: What happens to the optimizer's state (running means, number of steps) at
            a task boundary.
    """

    kind: str
    at_task_boundary: Literal["kept", "reset"] = "kept"


@dataclass(frozen=True)
class Setting:
    """A row of the study: a problem, a network and an optimizer."""

    problem: Problem
    network: Network
    optimizer: Optimizer

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Setting":
        """Build from a section of a config, or from what `dataclasses.asdict` returned."""
        return cls(
            Problem.of(values["problem"]),
            Network.of(values["network"]),
            Optimizer.of(values["optimizer"]),
        )


@dataclass(frozen=True)
class Training:
    """What training records, and the precision of its computations.

    Attributes:
        checkpoint_every: Take a checkpoint at the start of every n-th task. curvature.every must be
            a multiple.
        curve_points: Points of a learning curve within a task, at most one per step.
        precision: Precision of matrix products. bfloat16 is faster on a GPU; parameters, losses and
            optimizer state stay in float32.
    """

    checkpoint_every: Count = 1
    curve_points: Count = 10
    precision: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True)
class Spectra:
    """How the spectra of an operator are computed: on which data, how exactly, how often.

    Attributes:
        samples: Images of a task that an operator is averaged over.
        every: Measure at every n-th task. The value of an operator must be a multiple of
            curvature.every.
        tasks: Alternative to every: the numbers of the tasks at which an operator is measured, from
            0. They must be multiples of curvature.every.
        evaluation_points: Network and data at a task boundary: previous (checkpoint, data of the
            previous task), next (checkpoint, data of the next task), fresh (a newly initialised
            network, data of the next task). Those of an operator must be among
            curvature.evaluation_points.
        blocks: Parameters of which spectra are computed: each layer, the last two layers together,
            or all layers.
        exact_up_to: Compute all eigenvalues of matrices with at most so many rows. The rows are
            samples (fisher), samples times outputs (ggn, ntk) or parameters of the block (hessian).
        estimate: Estimate the spectrum of a larger matrix, or of one that does not fit into memory,
            by stochastic Lanczos quadrature. fisher is always exact.
        steps: Lanczos steps per probe of an estimate. Half of them give its error.
        probes: Random starts that an estimate is averaged over.
        probe_block: Vectors of a probe that share a Krylov space. Eigenvalues of this multiplicity
            are then resolved.
    """

    samples: Annotated[int, Field(ge=2)]
    every: Count
    evaluation_points: Distinct[EvaluationPoint]
    blocks: Distinct[Block] = ("layers", "last_two", "all")
    exact_up_to: Count = 2048
    estimate: bool = True
    steps: Annotated[int, Field(ge=4)] = 64
    probes: Annotated[int, Field(ge=2)] = 4
    probe_block: Count = 1
    tasks: Distinct[Annotated[int, Field(ge=0)]] | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Build from a mapping. Evaluation points and blocks get a fixed order.

        So the order in which a config lists them reruns nothing.
        """
        points = sorted(values["evaluation_points"], key=EVALUATION_POINTS.index)
        blocks = sorted(values.get("blocks", cls.blocks), key=cls.blocks.index)
        tasks = values.get("tasks")
        ordered = {
            "evaluation_points": tuple(points),
            "blocks": tuple(blocks),
            "tasks": None if tasks is None else tuple(sorted(tasks)),
        }
        return cls(**{**values, **ordered})

    def is_due(self, task: int) -> bool:
        """Tell whether the operator is measured at a task."""
        return task % self.every == 0 if self.tasks is None else task in self.tasks


@dataclass(frozen=True)
class Curvature:
    """What is computed from the checkpoints, and when.

    Attributes:
        operators: Names of operators, or a mapping from each name to the keys that it has of its
            own ({} for none). fisher: outer product of per-sample gradients on the given labels.
            ggn: generalised Gauss-Newton. hessian: of the mean loss. ntk: products of the outputs'
            derivatives. Others: files of curvature/operators.
        evaluation_points: All evaluation points that are measured.
        every: All measures but the spectra are computed at every n-th task.
        levels: Shares of the total that the largest eigenvalues must reach, for effective ranks.
            Figures show the first.
        top: Number of leading eigenvectors in whose span the gradient's share is measured. An
            estimate keeps so many eigenvalues of each end.
    """

    operators: Mapping[str, Spectra]
    evaluation_points: tuple[str, ...]
    every: int
    levels: Distinct[Annotated[float, Field(gt=0, le=1)]] = (0.99,)
    top: Count = 10

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Build from a section of a config, or from what `dataclasses.asdict` returned.

        The keys of an operator override the keys of the section.
        """
        common = {key.name: values[key.name] for key in fields(Spectra) if key.name in values}
        own_keys = values["operators"]
        if not isinstance(own_keys, Mapping):
            own_keys = {name: {} for name in own_keys}
        return cls(
            operators={name: Spectra.of(common | own_keys[name]) for name in sorted(own_keys)},
            evaluation_points=tuple(
                sorted(values["evaluation_points"], key=EVALUATION_POINTS.index)
            ),
            every=values["every"],
            levels=tuple(values.get("levels", cls.levels)),
            top=values.get("top", cls.top),
        )


@dataclass(frozen=True)
class Interventions:
    """Experiments that change copies of checkpoints and train each copy for one task.

    Attributes:
        treatments: Changes of a checkpoint, by the name of their file in interventions/treatments.
            Each copy gets one treatment, and a list of strengths makes one copy per value. The copy
            none is always among them and is not changed.
        tasks: The numbers of the tasks at whose start checkpoints are copied, from 1. A setting
            with fewer tasks is treated at those that it has.
        arms: Methods whose runs are copied. The copies are trained with the same method. Baselines
            cannot be copied.
        operators: Operators that are measured on the copies: names, or a mapping from each name to
            the keys that differ from those of the study (default: all of curvature.operators).
            Copies are always measured at the evaluation point next.
    """

    treatments: Mapping[str, Mapping[str, Any]]
    tasks: Distinct[Annotated[int, Field(ge=1)]]
    arms: Distinct[str] = ("none",)
    operators: Mapping[str, Mapping[str, Any]] | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Build from a section of a config.

        Tasks are sorted, so the order in which a config lists them reruns nothing.
        """
        operators = values.get("operators")
        if operators is not None and not isinstance(operators, Mapping):
            operators = {name: {} for name in operators}
        return cls(
            treatments=values["treatments"],
            tasks=tuple(sorted(values["tasks"])),
            arms=tuple("+".join(parts(arm)) for arm in values.get("arms", cls.arms)),
            operators=operators,
        )

    def treatments_in(self, setting: str) -> list[tuple[str, float | None]]:
        """List the treatments of a setting with their strengths, without the untreated copy.

        Args:
            setting: its name.

        Returns:
            Name and strength of each copy, sorted. The strength is None if a treatment takes none.
        """
        copies: list[tuple[str, float | None]] = []
        for name, options in sorted(self.treatments.items()):
            if name == UNTREATED or setting not in options.get("settings", [setting]):
                continue
            strengths = options.get("strength")
            if strengths is None:
                copies.append((name, None))
            else:
                values = strengths if isinstance(strengths, list) else [strengths]
                copies += [(name, float(value)) for value in sorted(values)]
        return copies


@dataclass(frozen=True)
class Tuning:
    """How the tuning seeds select an arm of a method: by the least mean of an outcome.

    Attributes:
        outcome: The outcome that is averaged.
        stage: The tasks that it is averaged over: all, late (the last eighth) or early (as many
            tasks, from the second one on).
        lengthen: How many values may be added to a hyperparameter, one after the other. A value is
            added next to the best arm if this arm lies at an end of the values.
    """

    outcome: Literal["final_error", "online_error", "final_loss", "test_error"] = "final_error"
    stage: Literal["all", "early", "late"] = "all"
    lengthen: Annotated[int, Field(ge=0, le=10)] = 0

    @property
    def criterion(self) -> dict[str, str]:
        """What is averaged, and over which tasks."""
        return {"outcome": self.outcome, "stage": self.stage}


def parts(method: str) -> list[str]:
    """Split a name into the methods that it composes: ``layer_norm+l2`` → two names."""
    return [part.strip() for part in method.split("+")]


def method_of(arm: str) -> str:
    """Return the method of an arm, without its hyperparameters: ``l2(strength=0.1)`` → ``l2``."""
    return arm.partition("(")[0]


def is_baseline(method: str) -> bool:
    """Tell whether a method is a baseline.

    A method that changes the network has its own, such as ``fresh+layer_norm``.
    """
    return parts(method)[0] == BASELINE


def baseline_of(arm: str, arms: Sequence[str]) -> str:
    """Return the baseline of an arm: networks of the same architecture, initialised from scratch.

    Args:
        arm: its name.
        arms: all arms of the setting, with the baselines.
    """
    own_parts = parts(method_of(arm))
    fitting = [
        other for other in arms if is_baseline(other) and set(parts(other)[1:]) <= set(own_parts)
    ]
    return max(fitting, key=lambda other: len(parts(other)), default=BASELINE)


def hyperparameters(method: str, part: str, arm: Mapping[str, Any]) -> dict[str, Any]:
    """Select the hyperparameters of one part of a method, without the prefix of the part.

    In a composition, names have a prefix: ``l2.strength``.
    """
    prefix = f"{part}." if "+" in method else ""
    return {key.removeprefix(prefix): value for key, value in arm.items() if key.startswith(prefix)}


def arm_name(method: str, arm: Mapping[str, float | str]) -> str:
    """Name an arm as in files and figures: ``l2(strength=0.001)``, or ``none`` without values."""
    values = ", ".join(f"{key}={_format_value(value)}" for key, value in arm.items())
    return f"{method}({values})" if values else method


def _format_value(value: float | str) -> str:
    """Write a number in at most twelve digits if these are exact, so that names are unique."""
    if isinstance(value, str):
        return value
    short = f"{value:.12g}"
    return short if float(short) == value else repr(value)


@dataclass(frozen=True)
class Hypothesis:
    """A claim made before the data are seen: about a measure and an outcome, or about two arms.

    Attributes:
        name: A short name, such as H1.
        outcome: The outcome. A gap is the difference to a network initialised from scratch for the
            same task and seed.
        direction: Sign of the correlation, or of the difference of arm minus versus.
        measure: A measure, such as fisher_effective_rank. Alternative: versus.
        test: What measure and outcome are correlated over: tasks of a run (association), or treated
            copies of a checkpoint (interventions).
        evaluation_point: The data on which the measure is taken (default: next, if the measure has
            evaluation points).
        block: A layer, last_two or all (default: all, or the last layer that has the measure).
        against: The null model: task (the curve that all seeds share), shifted, differenced, or
            mismatched, which assumes least.
        arm: The arm that the claim is about.
        versus: The arm that it is compared with. Alternative: measure.
        stage: For a comparison of arms, the last eighth of the tasks (late) or all tasks.
        settings: Names of settings (default: all).
        family: Hypotheses of a family are adjusted together by Holm's method.
    """

    name: Text
    outcome: Literal["final_error", "online_error", "final_error_gap", "test_error"]
    direction: Literal["positive", "negative"]
    measure: str | None = None
    test: Literal["association", "interventions"] = "association"
    evaluation_point: Literal["previous", "next"] | None = None
    block: str | None = None
    against: Literal["task", "shifted", "differenced", "mismatched"] = "mismatched"
    arm: str = "none"
    versus: str | None = None
    stage: Literal["late", "all"] = "late"
    settings: Distinct[str] = ()
    family: Text = "confirmatory"

    @property
    def table(self) -> str:
        """The table that contains its test."""
        if self.test == "interventions":
            return "interventions"
        return "null_models" if self.measure else "comparisons"

    @property
    def row(self) -> dict[str, str]:
        """Values of the columns that identify its rows in the table."""
        columns: dict[str, str | None] = {"arm": self.arm, "outcome": self.outcome}
        if self.test == "interventions":
            columns |= {
                "measure": self.measure,
                "block": self.block,
                "statistic": "tau",
                "task": "all",
            }
        elif self.measure:
            columns |= {
                "measure": self.measure,
                "evaluation_point": self.evaluation_point,
                "block": self.block,
                "null_model": self.against,
            }
        else:
            columns |= {
                "versus": self.versus,
                "stage": self.stage,
                "statistic": "mean_difference",
            }
        return {column: value for column, value in columns.items() if value is not None}

    @property
    def claim(self) -> str:
        """The claim in words."""
        words = {name: value.replace("_", " ") for name, value in self.row.items()}
        if self.test == "interventions":
            return (
                f"{words['measure']} orders treated copies of {self.arm} by {words['outcome']} "
                f"({self.direction})"
            )
        if self.measure:
            return (
                f"{words['measure']} and {words['outcome']} of {self.arm} go together "
                f"({self.direction}), compared with the null model {self.against}"
            )
        side = "above" if self.direction == "positive" else "below"
        return f"{words['outcome']} ({self.stage}) of {self.arm} is {side} that of {self.versus}"


@dataclass(frozen=True)
class Statistics:
    """What is tested, with how many draws, and which changes count.

    Attributes:
        hypotheses: Claims made before the data are seen. Each is one test per setting. Everything
            else in the tables is exploratory.
        draws: Number of resamples and of permutations of seeds.
        primary: The rank that stands for curvature where there is room for one: in some figures,
            and where measures are compared with curvature. Tables have all three ranks.
        lost: Plasticity is lost if the gap to the baseline grows by more than this from the first
            task to late tasks, with confidence.
        moved: A measure moves if it changes by more than this from the first trained network to
            late tasks, with confidence: absolutely for a share, otherwise relative to the larger
            of the two values.
        relevant: The correlation for which power is computed: how probably a test finds it. Between
            arms it is computed for a difference of errors as large as lost.
        negligible: A correlation is negligible if its 95 % interval lies within plus or minus this.
        negligible_difference: The same for a difference of errors between two arms. Errors have
            another scale than correlations, since a loss of plasticity is an error of 0.05.
    """

    hypotheses: tuple[Hypothesis, ...] = ()
    draws: Annotated[int, Field(ge=99)] = 1999
    primary: Literal["effective_rank", "entropy_rank", "stable_rank"] = "effective_rank"
    lost: NonNegative = 0.05
    moved: NonNegative = 0.2
    relevant: Annotated[float, Field(gt=0, lt=1)] = 0.3
    negligible: NonNegative = 0.1
    negligible_difference: NonNegative = 0.02

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Build from a section of a config, or from what `dataclasses.asdict` returned."""
        hypotheses = tuple(
            Hypothesis(**{**hypothesis, "settings": tuple(hypothesis.get("settings", ()))})
            for hypothesis in values.get("hypotheses", ())
        )
        return cls(**{**values, "hypotheses": hypotheses})
