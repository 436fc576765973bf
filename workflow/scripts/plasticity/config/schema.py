"""The schema of a config file, built with pydantic from the typed sections in `models.py`.

This module adds what only the file has: the top level, and the options of the files that a config
names. Jobs do not import it. Write the JSON schema for editors with::

    PYTHONPATH=workflow/scripts python -m plasticity.config.schema
"""

import dataclasses
import functools
import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, create_model
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from plasticity.config.models import (
    Count,
    Curvature,
    Dataset,
    Decay,
    Distinct,
    Hypothesis,
    Interventions,
    Network,
    NonNegative,
    Optimizer,
    Positive,
    Problem,
    Share,
    Spectra,
    Statistics,
    Text,
    Training,
    Tuning,
)

FILE = Path(__file__).resolve().parents[3] / "schemas" / "config.schema.json"
FIRST_TUNING_SEED = 1000  # more seeds of either kind never change the numbers of the other kind

CHANGES = "Changes"  # begins the names of definitions for files that extend a study
EXTENDS = {
    "type": "string",
    "minLength": 1,
    "description": "The study that this file changes: a name in studies/, default, or a path "
    "relative to this file. Mappings are merged key by key; lists and single values replace the "
    "old ones; null removes a key.",
}

MAX_NAME = 100  # letters; file systems allow 255
MAX_TITLE = 60  # letters, which fit above a panel
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$", max_length=MAX_NAME)]
StudyName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=MAX_NAME)]
AnySection = TypeVar("AnySection", bound="Section")


class Section(BaseModel):
    """A section of a config. Unknown keys are errors, and text is never read as a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def descriptions(model: type) -> dict[str, str]:
    """Read the description of each field from the part `Attributes` of a docstring."""
    _, _, attributes = (inspect.getdoc(model) or "").partition("Attributes:\n")
    entries = re.findall(r"^ {4}(\w+): (.+(?:\n {5,}.+)*)", attributes, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def optional(description: str) -> Any:
    """Describe a key that may be left out. It has no default in the JSON schema."""
    return Field(default=None, description=description)


def keys_of(
    model: type,
    only: Iterable[str] | None = None,
    required: Sequence[str] = (),
    without_defaults: bool = False,
) -> dict[str, Any]:
    """Turn the fields of a typed model into keys of a section.

    Args:
        model: a dataclass of `models.py`.
        only: fields to use; all but `options` if None.
        required: keys that the file must have although the model has a default.
        without_defaults: whether each key may be left out, with no default.

    Returns:
        Type and pydantic field by key, for `pydantic.create_model`.
    """
    types = get_type_hints(model, include_extras=True)
    texts = descriptions(model)
    keys: dict[str, Any] = {}
    for field in dataclasses.fields(model):
        if field.name == "options" or (only is not None and field.name not in only):
            continue
        has_default = field.default is not dataclasses.MISSING
        if without_defaults or (has_default and field.default in (None, ())):
            key = optional(texts[field.name])
        elif has_default and field.name not in required:
            key = Field(default=field.default, description=texts[field.name])
        else:
            key = Field(description=texts[field.name])
        keys[field.name] = (_without_none(types[field.name]), key)
    return keys


def _without_none(type_hint: Any) -> Any:
    """Remove None from a type: a key is left out, it is not null."""
    if NoneType not in get_args(type_hint):
        return type_hint
    return Union[tuple(kind for kind in get_args(type_hint) if kind is not NoneType)]  # noqa: UP007


def section_of(model: type, **arguments: Any) -> Callable[[type[AnySection]], type[AnySection]]:
    """Add the fields of a typed model to a section. Arguments are those of `keys_of`."""

    def add_keys(section: type[AnySection]) -> type[AnySection]:
        return create_model(
            section.__name__,
            __base__=section,
            __module__=section.__module__,
            __doc__=inspect.getdoc(section),
            **keys_of(model, **arguments),
        )

    return add_keys


def _by_kind(expected: str, kinds: Mapping[str, tuple[type, ...]]) -> Discriminator:
    """Tag the alternatives of a value by its type in JSON.

    Args:
        expected: what a message says that the value must be.
        kinds: Python types by tag. Tags have angle brackets, so that no key is equal to a tag.
    """

    def tag_of(value: object) -> str | None:
        for tag, types in kinds.items():
            if isinstance(value, types) and not isinstance(value, bool):
                return tag
        return None

    return Discriminator(
        tag_of,
        custom_error_type="wrong_kind",
        custom_error_message="wrong kind",
        custom_error_context={"expected": expected},
    )


# The options of the files that ship with the repository. A new file needs no entry here: its
# options are then checked by name only.


@section_of(Dataset, without_defaults=True)
class DatasetSection(Section):
    """Which file reads a dataset, and the options that this file declares."""

    model_config = ConfigDict(extra="allow")

    files: Distinct[str] = optional("cifar10: original batch files (default: all five).")
    path: Text = optional(
        "imagenet, folder: folder or tar archive with one folder of images per class, below "
        "data_root (imagenet: default imagenet)."
    )
    side: Count = optional("imagenet, folder: rows and columns that images are cropped to.")
    classes: Annotated[
        Annotated[Count, Tag("<number>")] | Annotated[Distinct[str], Tag("<list>")],
        _by_kind("a whole number or a list", {"<number>": (int, float), "<list>": (list,)}),
    ] = optional(
        "imagenet, folder: names of classes, or the number of first classes (default: all)."
    )
    per_class: Count = optional("imagenet, folder: first images of each class (default: all).")
    unreadable: Literal["refuse", "skip"] = Field(
        "refuse", description="imagenet, folder: what to do with images that cannot be read."
    )
    md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] = optional(
        "imagenet, folder: checksum of the archive (default: that of the original ILSVRC archive, "
        "if the archive has its name)."
    )
    inputs: Annotated[int, Field(ge=2)] = Field(20, description="bits: bits per image.")
    images: Annotated[int, Field(ge=2)] = Field(10_000, description="bits: number of images.")


@section_of(Problem, required=["tasks"])
class ProblemSection(Section):
    """A dataset, how its tasks change, and the budget per task; with the options of the shift."""

    model_config = ConfigDict(extra="allow")

    first_task: Literal["changed", "original"] = Field(
        "changed",
        description="shuffle_labels, redraw_labels, remap_labels, permute_pixels: whether task 0 "
        "is changed like the others.",
    )
    fraction: Share = optional(
        "redraw_labels: share of the images whose labels are drawn again at a task boundary."
    )
    new_classes: Count = Field(1, description="class_incremental: classes that each task adds.")
    flipping: Count = Field(15, description="flip_bits: inputs that stay the same within a task.")


@section_of(Network)
class NetworkSection(Section):
    """The network that learns; with the options of the architecture."""

    model_config = ConfigDict(extra="allow")

    width: Count = optional(
        "Units per hidden layer (cnn: default 100; resnet18: channels of the first stage, "
        "default 64; vit: default 64)."
    )
    depth: Count = optional("Number of hidden layers (vit: number of blocks, default 4).")
    norm: Literal["none", "layer", "batch"] = optional(
        "mlp, cnn, resnet18: normalisation before each activation (default none; resnet18: batch)."
    )
    heads: Count = Field(4, description="vit: attention heads; width must be a multiple.")
    patch: Count = Field(
        4, description="vit: rows and columns of a patch; those of the image must be multiples."
    )


@section_of(Optimizer)
class OptimizerSection(Section):
    """The optimizer; with its options."""

    model_config = ConfigDict(extra="allow")

    lr: Positive = optional("Learning rate.")
    momentum: Decay = Field(0.0, description="sgd: share of the velocity that a step keeps.")
    betas: Annotated[tuple[Decay, ...], Field(min_length=2, max_length=2)] = Field(
        (0.9, 0.999), description="adam, adamw: shares of the running means that a step keeps."
    )
    weight_decay: NonNegative = Field(0.01, description="adamw: decoupled weight decay, times lr.")


class SettingSection(Section):
    """A row of the study: a problem, a network and an optimizer."""

    problem: ProblemSection = Field(description="A dataset, how its tasks change, and the budget.")
    network: NetworkSection = Field(description="The network that learns.")
    optimizer: OptimizerSection = Field(description="The optimizer.")
    title: Annotated[Text, Field(max_length=MAX_TITLE)] = optional(
        "Name in figures, tables and the report (default: dataset, shift and activation, such as "
        "MNIST, shuffled labels, ReLU). It reruns no training and no measurement."
    )


Hyperparameter = Annotated[
    Annotated[NonNegative, Tag("<number>")]
    | Annotated[str, Tag("<text>")]
    | Annotated[Distinct[NonNegative], Tag("<list>")],
    _by_kind(
        "a finite number, a text or a list",
        {"<number>": (int, float), "<text>": (str,), "<list>": (list,)},
    ),
]


class MethodSection(Section):
    """The hyperparameters that the file of a method declares; a list makes one arm per value."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Hyperparameter]

    settings: Distinct[str] = optional(
        "Names of the settings that train the method (default: all)."
    )


@section_of(Spectra, without_defaults=True)
class OperatorSection(Section):
    """Keys of one operator that differ from the keys of all operators."""


@section_of(Curvature, only=["levels", "top"])
@section_of(Spectra)
class CurvatureSection(Section):
    """What is computed from the checkpoints, and when."""

    operators: Annotated[
        Annotated[Distinct[str], Tag("<list>")]
        | Annotated[dict[str, OperatorSection], Field(min_length=1), Tag("<mapping>")],
        _by_kind(
            "a list or a mapping ({} is an empty one)", {"<list>": (list,), "<mapping>": (dict,)}
        ),
    ] = Field(description=descriptions(Curvature)["operators"])


Strength = Annotated[
    Annotated[Positive, Tag("<number>")] | Annotated[Distinct[Positive], Tag("<list>")],
    # a text is checked as a number, so that the message says how to write it
    _by_kind("a number or a list", {"<number>": (int, float, str), "<list>": (list,)}),
]


class TreatmentSection(Section):
    """How strongly a treatment changes a copy of a checkpoint; a list makes one copy per value."""

    strength: Strength = optional(
        "How much the treatment changes: more with a larger value. The file of the treatment "
        "declares the range. Some treatments take no strength."
    )
    settings: Distinct[str] = optional(
        "Names of the settings whose checkpoints get the treatment (default: all)."
    )


@section_of(
    Spectra,
    only=["samples", "blocks", "exact_up_to", "estimate", "steps", "probes", "probe_block"],
    without_defaults=True,
)
class OperatorOfCopiesSection(Section):
    """Keys of an operator that differ on the copies from those of the study."""


@section_of(Interventions, only=["tasks", "arms"])
class InterventionsSection(Section):
    """Experiments that change copies of checkpoints and train each copy for one task."""

    treatments: Annotated[dict[str, TreatmentSection], Field(min_length=1)] = Field(
        description=descriptions(Interventions)["treatments"]
    )
    operators: Annotated[
        Annotated[Distinct[str], Tag("<list>")]
        | Annotated[dict[str, OperatorOfCopiesSection], Field(min_length=1), Tag("<mapping>")],
        _by_kind(
            "a list or a mapping ({} is an empty one)", {"<list>": (list,), "<mapping>": (dict,)}
        ),
    ] = optional(descriptions(Interventions)["operators"])


@section_of(Training)
class TrainingSection(Section):
    """What training records, and the precision of its computations."""


@section_of(Tuning)
class TuningSection(Section):
    """How the tuning seeds select an arm of a method: by the least mean of an outcome."""


@section_of(Hypothesis)
class HypothesisSection(Section):
    """A claim made before the data are seen: about a measure and an outcome, or about two arms."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["measure"]}, {"required": ["versus"]}]}
    )


@section_of(
    Statistics,
    only=[
        "draws",
        "primary",
        "lost",
        "moved",
        "relevant",
        "negligible",
        "negligible_difference",
    ],
)
class StatisticsSection(Section):
    """What is tested, with how many draws, and which changes count."""

    hypotheses: tuple[HypothesisSection, ...] = Field(
        (), description=descriptions(Statistics)["hypotheses"]
    )


class SeedsSection(Section):
    """How many seeds the study has."""

    tune: int = Field(
        0,
        ge=0,
        description="Number of seeds that select an arm of each method with several arms, numbered "
        "from 1000; with 0, every arm is reported.",
    )
    report: int = Field(
        ge=1,
        le=FIRST_TUNING_SEED,
        description="Number of reporting seeds, numbered from 0. Intervals are over them.",
    )


class StudyConfig(Section):
    """A study: settings × methods × seeds, and what to measure."""

    study: StudyName = Field(
        description="Name of the study and of its folder below results/ (lower-case letters, "
        "digits, _ and -)."
    )
    data_root: Text = Field(
        description="Folder of the original data files (MNIST/raw/*.gz …); the environment "
        "variable PLASTICITY_DATA overrides it. Moving the files reruns nothing."
    )
    seeds: SeedsSection = Field(description="How many seeds the study has.")
    tuning: TuningSection = optional(
        "How the tuning seeds select an arm of a method. Only if seeds.tune is above 0."
    )
    seeds_per_job: Count = Field(
        description="How many seeds one job trains as an ensemble. It changes the number of jobs, "
        "not the random draws. Finished blocks of seeds stay as they are, so more seeds cost only "
        "the new ones."
    )
    datasets: dict[Name, DatasetSection] = Field(
        {},
        description="Datasets with options, under a name of your own or that of a file of "
        "data/datasets; a problem may also name such a file directly.",
    )
    settings: dict[Name, SettingSection] = Field(
        min_length=1,
        description="Rows of the study, each a problem, a network and an optimizer under a name "
        "(lower-case letters, digits and _).",
    )
    methods: dict[str, MethodSection] = Field(
        min_length=1,
        description="Interventions, by the name of their file in training/methods, or several "
        "joined by + (hyperparameters then have a prefix: layer_norm + l2: {l2.strength: 0.001}). "
        "Every setting also trains the baseline.",
    )
    training: TrainingSection = optional("What training records, and its precision.")
    curvature: CurvatureSection = Field(
        description="What is computed from the checkpoints, and when."
    )
    interventions: InterventionsSection = optional(
        "Experiments that change copies of checkpoints and train each copy for one task (default: "
        "none)."
    )
    figures: dict[str, Distinct[str]] = optional(
        "The settings that a figure shows, in this order, by the name of the figure, as in "
        "{scatter: [mnist_labels_relu]} (default: every figure shows all)."
    )
    statistics: StatisticsSection = optional(
        "What is tested, with how many draws, and which changes count."
    )


class _Generator(GenerateJsonSchema):
    """Leave out titles, which repeat the keys, and the default of keys that have none."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: Any) -> JsonSchemaValue:
        json_schema = super().default_schema(schema)
        if json_schema.get("default", False) is None:
            del json_schema["default"]
        return json_schema


@functools.cache
def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a study, whose file extends no other."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return dialect | StudyConfig.model_json_schema(schema_generator=_Generator)


def json_schema_of_files() -> dict[str, Any]:
    """Return the JSON schema of a config file, which may extend another study.

    A file with the key `extends` has changes only: no other key is required but its name, and
    null removes a key. The result of the changes is checked by `json_schema`, before any job runs.
    """
    study = dict(json_schema())
    dialect, definitions = study.pop("$schema"), study.pop("$defs")
    changes = _as_changes(study)
    changes["properties"] |= {"study": study["properties"]["study"], "extends": EXTENDS}
    changes["required"] = ["extends", "study"]
    of_changes = {f"{CHANGES}{name}": _as_changes(part) for name, part in definitions.items()}
    return {
        "$schema": dialect,
        "description": study["description"],
        "type": "object",
        "if": {"required": ["extends"]},
        "then": {"$ref": f"#/$defs/{CHANGES}"},
        "else": {"$ref": "#/$defs/Study"},
        "$defs": {"Study": study, **definitions, CHANGES: changes, **of_changes},
    }


def _as_changes(schema: Any) -> Any:
    """Turn a schema into one of changes: nothing is required, and null is allowed for keys."""
    if isinstance(schema, list):
        return [_as_changes(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    changes: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "$ref":
            changes[key] = value.replace("#/$defs/", f"#/$defs/{CHANGES}")
        elif key in ("properties", "patternProperties"):
            changes[key] = {name: _or_null(_as_changes(part)) for name, part in value.items()}
        elif key == "additionalProperties" and isinstance(value, dict):
            changes[key] = _or_null(_as_changes(value))
        elif key not in ("required", "minProperties", "default"):
            changes[key] = _as_changes(value)
    return changes


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Allow null, which removes a key."""
    description = {key: schema[key] for key in ("description",) if key in schema}
    return description | {"anyOf": [schema, {"type": "null"}]}


def schemas_at(path: Iterable[str | int]) -> list[dict[str, Any]]:
    """Find the parts of the JSON schema that describe a key.

    Args:
        path: keys and places in lists, from the top of the config.

    Returns:
        All alternatives if the key may hold values of several types. Empty for an unknown key.
    """
    schemas = _alternatives(json_schema())
    for key in path:
        inner: list[dict[str, Any]] = []
        for schema in schemas:
            inner += _alternatives(_schema_of_key(schema, key))
        schemas = inner
    return schemas


def _schema_of_key(schema: Mapping[str, Any], key: str | int) -> Any:
    if isinstance(key, int):
        return schema.get("items")
    properties = schema.get("properties", {})
    if key in properties:
        return properties[key]
    patterns = list(schema.get("patternProperties", {}).values())
    return patterns[0] if patterns else schema.get("additionalProperties")


def _alternatives(schema: Any) -> list[dict[str, Any]]:
    """Follow references and alternatives. The schema itself comes first."""
    if not isinstance(schema, dict):
        return []
    schemas = [schema]
    if "$ref" in schema:
        schemas += _alternatives(json_schema()["$defs"][schema["$ref"].rpartition("/")[2]])
    for alternative in [*schema.get("oneOf", []), *schema.get("anyOf", [])]:
        schemas += _alternatives(alternative)
    return schemas


def main() -> None:
    """Write the JSON schema for editors."""
    text = json.dumps(json_schema_of_files(), indent=2, ensure_ascii=False)
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
