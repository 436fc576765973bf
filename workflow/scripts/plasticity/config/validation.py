"""Checks of a config. Each mistake is one sentence with the key, its value and what to do."""

import difflib
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from plasticity.config import interventions, quantities, registry
from plasticity.config.models import (
    BASELINE,
    Dataset,
    Network,
    Optimizer,
    Problem,
    method_of,
    parts,
)
from plasticity.config.schema import MAX_NAME, StudyConfig, schemas_at
from plasticity.config.spelling import hint

KeyPath = tuple[str | int, ...]

# patterns of keys, in which * is any key; then the old and the new word
RENAMED_KEYS = {
    "settings.*.problem": ("change", "shift"),
    "settings.*.optimizer": ("at_switch", "at_task_boundary"),
    "curvature": ("moments", "evaluation_points"),
    "curvature.operators.*": ("moments", "evaluation_points"),
    "statistics.hypotheses.*": ("moment", "evaluation_point"),
}
RENAMED_EVALUATION_POINTS = {"old": "previous", "new": "next"}

# by type of pydantic's error
KINDS = {
    "bool_type": "true or false",
    "dict_type": "a mapping ({} is an empty one)",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "a whole number without a decimal point",
    "list_type": "a list",
    "model_type": "a mapping ({} is an empty one)",
    "string_type": "a text",
    "tuple_type": "a list",
}
BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}


def mistakes(config: Any) -> list[str]:
    """Find the mistakes in a config.

    Checks run in stages: old names, types and ranges, names of files and combinations of values,
    sizes of datasets, combinations of methods, treated settings. A stage runs only if the earlier
    ones found nothing, because it relies on them.

    Args:
        config: as YAML returns it; any type.

    Returns:
        One sentence per mistake.
    """
    stages: list[Callable[[Any], Iterator[str]]] = [
        _check_old_names,
        _check_types_and_ranges,
        _check_names_and_values,
        _check_samples,
        _check_combinations_of_methods,
        interventions.check_treated_settings,
    ]
    for stage in stages:
        if sentences := list(stage(config)):
            return sentences
    return []


# Old names


def _check_old_names(config: Any) -> Iterator[str]:
    for pattern, (old, new) in RENAMED_KEYS.items():
        for path, section in _sections_at(config, pattern):
            if not isinstance(section, Mapping):
                continue
            if old in section:
                yield f"{path}.{old} is now called {new}. Rename the key."
            if new in ("evaluation_point", "evaluation_points"):
                yield from _check_old_evaluation_points(path, section, (old, new))


def _check_old_evaluation_points(
    path: str, section: Mapping[str, Any], keys: Sequence[str]
) -> Iterator[str]:
    for key in keys:
        values = section.get(key)
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, str) and value in RENAMED_EVALUATION_POINTS:
                new = RENAMED_EVALUATION_POINTS[value]
                yield f"{path}.{key} has the value {value}, which is now called {new}. Rename it."


def _sections_at(config: Any, pattern: str) -> list[tuple[str, Any]]:
    """List the sections that a pattern of keys matches, each with its key."""
    sections = [("", config)]
    for name in pattern.split("."):
        inner = []
        for path, section in sections:
            for key, value in _items(section):
                if name in ("*", key):
                    inner.append((f"{path}.{key}".removeprefix("."), value))
        sections = inner
    return sections


def _items(section: Any) -> list[tuple[Any, Any]]:
    if isinstance(section, Mapping):
        return list(section.items())
    return list(enumerate(section)) if isinstance(section, list) else []


# Types and ranges


def _check_types_and_ranges(config: Any) -> Iterator[str]:
    try:
        StudyConfig.model_validate_json(json.dumps(config, default=str))
    except ValidationError as error:
        errors = error.errors(include_url=False)
    else:
        return
    missing: dict[KeyPath, list[str]] = {}
    sentences: list[tuple[KeyPath, str]] = []
    for details in errors:
        path, value = _locate(config, details["loc"])
        if details["type"] == "too_short" and len(value) >= details["ctx"]["min_length"]:
            continue  # pydantic counts only valid values, and reports the others by themselves
        if details["type"] == "missing":
            missing.setdefault(path, []).append(str(details["loc"][-1]))
        else:
            sentences.append((path, _describe_error(path, value, details)))
    for path, keys in missing.items():
        sentences.append((path, _describe_missing_keys(path, keys, _locate(config, path)[1])))
    for _, sentence in sorted(sentences, key=lambda item: [str(key) for key in item[0]]):
        yield sentence


def _locate(config: Any, location: KeyPath) -> tuple[KeyPath, Any]:
    """Follow the location of an error in a config.

    Returns:
        The keys and the value. Parts of the location that are no keys, such as pydantic's names of
        alternatives, are left out.
    """
    path: list[str | int] = []
    value = config
    for part in location:
        is_key = isinstance(value, Mapping) and part in value
        is_index = isinstance(value, list) and isinstance(part, int)
        if is_key or is_index:
            path.append(part)
            value = value[part]
    return tuple(path), value


def _describe_error(path: KeyPath, value: Any, details: ErrorDetails) -> str:
    """Say what is wrong with a value, and what to write."""
    key, kind, context = _dotted(path), details["type"], details.get("ctx", {})
    written = json.dumps(value, default=str)
    if kind == "extra_forbidden":
        suggestion = hint(path[-1], _keys_at(path[:-1]))
        return f"{_dotted(path[:-1])} has an unknown key {path[-1]!r}. {suggestion}"
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"])
        return f"{key} is {written}, which is unknown. {hint(value, known)}"
    if kind == "string_pattern_mismatch":
        if details["loc"][-1] == "[key]":
            key, written = f"A name in {_dotted(path[:-1])}", repr(path[-1])
        return f"{key} is {written}. It must match {context['pattern']}. Rename it."
    if kind == "string_too_long":
        if details["loc"][-1] == "[key]":
            key, written = f"A name in {_dotted(path[:-1])}", repr(path[-1])
        return f"{key} is {written[:40]} …. It must have at most {MAX_NAME} letters. Rename it."
    if kind == "duplicate":
        return f"{key} is {written}. A value occurs twice. Remove one."
    if kind == "too_short" and not value:
        return f"{key} is empty. Name at least one.{_meaning(path)}"
    number = _number_meant(value, kind)
    if kind in ("int_type", "float_type") and number:
        return f"{key} is the text {value!r} to YAML, not a number. Write {number} instead."
    return f"{key} is {written}. {_requirement(details)}{_meaning(path)}"


def _requirement(details: ErrorDetails) -> str:
    """Say what a value must be."""
    kind, context = details["type"], details.get("ctx", {})
    if kind in KINDS:
        return f"It must be {KINDS[kind]}."
    if kind == "wrong_kind":
        return f"It must be {context['expected']}."
    if kind in BOUNDS:
        name, words = BOUNDS[kind]
        return f"It must be {words} {context[name]:g}."
    if kind == "too_short":
        return f"It must have {context['min_length']} values."
    if kind == "too_long":
        return f"It must have {context['max_length']} values."
    if kind == "string_too_short":
        return "It must not be empty."
    return f"{details['msg']}."


def _describe_missing_keys(path: KeyPath, keys: list[str], section: Any) -> str:
    """Name missing keys, and unknown keys that may be misspellings."""
    others = [str(name) for name in section if name not in _keys_at(path)]
    hints = ""
    for key in keys:
        for other in difflib.get_close_matches(key, others, n=1):
            hints += f" Or did you misspell it as {other!r}?"
    remedy = "Add it." if len(keys) == 1 else "Add them."
    return f"{_dotted(path)} lacks {' and '.join(map(repr, keys))}. {remedy}{hints}"


def _dotted(path: KeyPath) -> str:
    return ".".join(map(str, path)) or "the config"


def _meaning(path: KeyPath) -> str:
    """Quote the description of a key, or of the section that contains a list's value."""
    for schema in schemas_at(path):
        if "description" in schema:
            return f" Meaning: {schema['description']}"
    return ""


def _keys_at(path: KeyPath) -> list[str]:
    """List the keys that the schema knows in a section."""
    known: list[str] = []
    for schema in schemas_at(path):
        known += schema.get("properties", {})
    return known


# Names of files, and combinations of values


def _check_names_and_values(config: Mapping[str, Any]) -> Iterator[str]:
    yield from _check_operators(config["curvature"])
    yield from _check_datasets(config)
    yield from _check_files_of_settings(config)
    yield from _check_methods(config)
    yield from _check_budgets(config)
    yield from _check_tuning(config)
    yield from _check_curvature(config)
    yield from _check_hypotheses(config)
    yield from interventions.check_names_and_values(config)


def _check_operators(curvature: Mapping[str, Any]) -> Iterator[str]:
    known = registry.names("operators")
    for name in curvature["operators"]:
        if name not in known:
            yield f"curvature.operators has an unknown operator {name!r}. {hint(name, known)}"


def _check_datasets(config: Mapping[str, Any]) -> Iterator[str]:
    for name, values in config.get("datasets", {}).items():
        section = {"kind": name} | values
        yield from _check_choice("datasets", f"datasets.{name}", "kind", section, Dataset.common())


def _check_files_of_settings(config: Mapping[str, Any]) -> Iterator[str]:
    named_datasets = config.get("datasets", {})
    for name, setting in config["settings"].items():
        problem, key = setting["problem"], f"settings.{name}"
        if problem["dataset"] not in named_datasets:
            yield from _check_choice(
                "datasets",
                f"{key}.problem",
                "dataset",
                {"dataset": problem["dataset"]},
                ["dataset"],
                other_names=list(named_datasets),
            )
        yield from _check_choice("shifts", f"{key}.problem", "shift", problem, Problem.common())
        yield from _check_choice(
            "architectures", f"{key}.network", "kind", setting["network"], Network.common()
        )
        yield from _check_choice(
            "optimizers", f"{key}.optimizer", "kind", setting["optimizer"], Optimizer.common()
        )


def _check_choice(
    folder: str,
    section: str,
    key: str,
    values: Mapping[str, Any],
    common_keys: list[str],
    other_names: Sequence[str] = (),
) -> Iterator[str]:
    """Check the choice of a file, and the options given to it.

    Args:
        folder: kind of file, a key of `registry.FOLDERS`.
        section: name of the section in the config.
        key: key of the section that names the file.
        values: the section.
        common_keys: keys of the section that are no options of the file.
        other_names: valid names that are no files.
    """
    name = values[key]
    if name not in registry.names(folder):
        known = [*registry.names(folder), *other_names]
        yield f"{section}.{key} is {name!r}, which is unknown. {hint(name, known)}"
        return
    options = registry.fields(folder, name)
    for option in sorted(values.keys() - options.keys() - set(common_keys)):
        known = [*(common for common in common_keys if common != key), *options]
        yield f"{section} has an unknown key {option!r}. {hint(option, known)}"
    for option, field in options.items():
        if field.required and option not in values:
            yield f"{section} lacks {option!r}, which {name} needs. Add it."


def _check_methods(config: Mapping[str, Any]) -> Iterator[str]:
    known_settings, known_methods = list(config["settings"]), registry.names("methods")
    for name, values in config["methods"].items():
        unknown = [part for part in parts(name) if part not in known_methods]
        for part in unknown:
            yield f"methods has an unknown method {part!r}. {hint(part, known_methods)}"
        if not unknown:
            yield from _check_fields_of_method(name)
            yield from _check_hyperparameters(name, values)
        for setting in values.get("settings", []):
            if setting not in known_settings:
                suggestion = hint(setting, known_settings)
                yield f"methods.{name}.settings names {setting!r}, which is unknown. {suggestion}"


class Hyperparameter(NamedTuple):
    """What a method's file declares about a hyperparameter.

    Attributes:
        field: type, and whether it is required.
        maximum: largest allowed number.
        choices: allowed texts, None if the file does not list them.
        whole: whether it must be a whole number.
    """

    field: registry.Field
    maximum: float
    choices: list[str] | None
    whole: bool

    @property
    def is_text(self) -> bool:
        """Whether its values are texts."""
        return self.field.type == "str"


def _hyperparameters_of(part: str) -> dict[str, Hyperparameter]:
    """Read the hyperparameters that the file of a method declares."""
    maxima = registry.constant("methods", part, "AT_MOST") or {}
    choices = registry.constant("methods", part, "CHOICES") or {}
    whole = registry.constant("methods", part, "WHOLE") or []
    return {
        key: Hyperparameter(field, maxima.get(key, math.inf), choices.get(key), key in whole)
        for key, field in registry.fields("methods", part).items()
    }


def _check_fields_of_method(name: str) -> Iterator[str]:
    """Check that a config can set every field of a method's class."""
    for part in parts(name):
        for key, declared in _hyperparameters_of(part).items():
            if declared.field.type not in ("Tensor", "torch.Tensor", "str"):
                yield (
                    f"methods/{part}.py: {key} is of type {declared.field.type}. Make it a Tensor "
                    "(one number per arm) or a str (one text for all arms)."
                )
            elif declared.is_text and declared.choices is None:
                yield (
                    f"methods/{part}.py does not list the allowed texts of {key}. "
                    "List them in CHOICES."
                )


def _check_hyperparameters(name: str, values: Mapping[str, Any]) -> Iterator[str]:
    """Check the names and values of a method's hyperparameters."""
    known: dict[str, Hyperparameter] = {}
    for part in parts(name):
        prefix = f"{part}." if "+" in name else ""
        known |= {prefix + key: item for key, item in _hyperparameters_of(part).items()}
    for key in sorted(values.keys() - known.keys() - {"settings"}):
        yield f"methods.{name} has an unknown key {key!r}. {hint(key, ['settings', *known])}"
    for key, declared in known.items():
        if key in values:
            yield from _check_hyperparameter(f"methods.{name}.{key}", values[key], declared)
        elif declared.field.required:
            yield f"methods.{name} lacks {key!r}, which {name} needs. Add it."


def _check_hyperparameter(key: str, values: Any, declared: Hyperparameter) -> Iterator[str]:
    """Check one value, or each of a list."""
    for value in values if isinstance(values, list) else [values]:
        if declared.is_text:
            if declared.choices is not None and value not in declared.choices:
                yield f"{key} is {value!r}, which is unknown. {hint(value, declared.choices)}"
        elif isinstance(value, str):
            number = _number_meant(value, "float_type") or "a number"
            yield f"{key} is the text {value!r} to YAML, not a number. Write {number} instead."
        elif value > declared.maximum:
            yield f"{key} is {value}. It must be at most {declared.maximum}."
        elif declared.whole and value != int(value):
            yield f"{key} is {value}. It must be a whole number."


def _check_budgets(config: Mapping[str, Any]) -> Iterator[str]:
    for name, setting in config["settings"].items():
        problem, key = setting["problem"], f"settings.{name}.problem"
        if "epochs" in problem and "steps_per_task" in problem:
            yield f"{key} has both epochs and steps_per_task. Remove one of them."
        if "epochs" not in problem and "steps_per_task" not in problem:
            yield f"{key} has neither epochs nor steps_per_task. Add one of them."
        if problem["batch"] > problem["samples"]:
            yield (
                f"{key}.batch is {problem['batch']}, but a task has only {problem['samples']} "
                "samples, so no step would be taken. Lower batch or raise samples."
            )
        for operator_key, samples in _values_of_operators(config["curvature"], "samples").items():
            if samples > problem["samples"]:
                yield (
                    f"{operator_key} is {samples}, but a task of {name} has only "
                    f"{problem['samples']} samples. Lower {operator_key}."
                )


def _check_tuning(config: Mapping[str, Any]) -> Iterator[str]:
    if "tuning" not in config:
        return
    if not config["seeds"].get("tune", 0):
        yield (
            "tuning says how arms are selected, but seeds.tune is 0, so none are selected. "
            "Raise seeds.tune or remove tuning."
        )
    elif config["tuning"].get("outcome") == "test_error":
        tuned: set[str] = set()
        for values in config["methods"].values():
            if _has_several_arms(values):
                tuned.update(values.get("settings", config["settings"]))
        for name in sorted(tuned & config["settings"].keys()):
            if not config["settings"][name]["problem"].get("test_samples", 0):
                yield (
                    f"tuning.outcome is test_error, but settings.{name}.problem has no "
                    "test_samples. Add some, or choose another outcome."
                )


def _has_several_arms(values: Mapping[str, Any]) -> bool:
    """Return whether a hyperparameter of a method has a list of several values."""
    return any(
        isinstance(value, list) and len(value) > 1
        for key, value in values.items()
        if key != "settings"
    )


def _check_curvature(config: Mapping[str, Any]) -> Iterator[str]:
    curvature = config["curvature"]
    checkpoint_every = config.get("training", {}).get("checkpoint_every", 1)
    if curvature["every"] % checkpoint_every:
        yield (
            f"curvature.every is {curvature['every']}, but checkpoints are taken only every "
            f"{checkpoint_every} tasks (training.checkpoint_every). Make the first a multiple of "
            "the second."
        )
    for key, points in _values_of_operators(curvature, "evaluation_points").items():
        unknown = [point for point in points if point not in curvature["evaluation_points"]]
        if unknown:
            yield (
                f"{key} has {' and '.join(unknown)}, which curvature.evaluation_points lacks. "
                "Add it there."
            )
    for key, tasks in _values_of_operators(curvature, "tasks").items():
        unmeasured = [str(task) for task in tasks if task % curvature["every"]]
        if unmeasured:
            yield (
                f"{key} has {' and '.join(unmeasured)}, but tasks are measured only at every "
                f"{curvature['every']} (curvature.every). Choose multiples of it."
            )
    for key, every in _values_of_operators(curvature, "every").items():
        if every % curvature["every"]:
            yield (
                f"{key} is {every}, but tasks are measured only at every {curvature['every']} "
                "(curvature.every). Make the first a multiple of the second."
            )


def _values_of_operators(curvature: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Collect the values that operators have for a key, by the full key where each is written."""
    operators = curvature["operators"]
    values = {}
    for name in operators:
        own_keys = operators[name] if isinstance(operators, Mapping) else {}
        if key in own_keys:
            values[f"curvature.operators.{name}.{key}"] = own_keys[key]
        elif key in curvature:
            values[f"curvature.{key}"] = curvature[key]
    return values


def _check_hypotheses(config: Mapping[str, Any]) -> Iterator[str]:
    for index, hypothesis in enumerate(config.get("statistics", {}).get("hypotheses", ())):
        key = f"statistics.hypotheses.{index}"
        if "measure" in hypothesis and "versus" in hypothesis:
            yield f"{key} has both measure and versus. Remove one of them."
        if "measure" not in hypothesis and "versus" not in hypothesis:
            yield f"{key} has neither measure nor versus. Add one of them."
        if "measure" in hypothesis:
            yield from _check_measure(key, hypothesis, config["curvature"])
        if hypothesis.get("test") == "interventions":
            yield from _check_test_of_interventions(key, hypothesis, config)


def _check_test_of_interventions(
    key: str, hypothesis: Mapping[str, Any], config: Mapping[str, Any]
) -> Iterator[str]:
    """Check that a hypothesis about treated copies fits the section `interventions`.

    Args:
        key: of the hypothesis.
        hypothesis: with the test `interventions`.
        config: of the study.
    """
    if "measure" not in hypothesis:
        yield f"{key}.test is interventions, which tests a measure. Replace versus by measure."
    for other in ("against", "evaluation_point", "stage"):
        if other in hypothesis:
            yield f"{key} has both test: interventions and {other}. Remove {other}."
    if hypothesis["outcome"].endswith("_gap"):
        yield (
            f"{key}.outcome is {hypothesis['outcome']}, but treated copies of a checkpoint have no "
            "gap. Use final_error: all of them learn the same task."
        )
    if "interventions" not in config:
        yield (
            f"{key}.test is interventions, but the config has no section interventions. Add the "
            "section, or remove the hypothesis."
        )
        return
    methods = config["interventions"].get("arms", ["none"])
    arm = hypothesis.get("arm", "none")
    if method_of(arm) not in methods:
        yield (
            f"{key}.arm is {arm}, whose checkpoints are not treated. Add {method_of(arm)} to "
            "interventions.arms."
        )


def _check_measure(
    key: str, hypothesis: Mapping[str, Any], curvature: Mapping[str, Any]
) -> Iterator[str]:
    """Check that the study takes the measure of a hypothesis, where the hypothesis needs it.

    Args:
        key: of the hypothesis.
        hypothesis: with a measure.
        curvature: the section of the config.
    """
    measure = hypothesis["measure"]
    measured = {*quantities.MEASURES}
    for operator in curvature["operators"]:
        measured.update(f"{operator}_{number}" for number in quantities.SPECTRUM_NUMBERS)
        if measure.startswith(f"{operator}_effective_rank_at_"):
            measured.add(measure)  # a further level of the effective rank
    if measure not in measured:
        yield (
            f"{key}.measure is {measure!r}, which this study does not measure. "
            f"{hint(measure, sorted(measured))}"
        )
    point = hypothesis.get("evaluation_point")
    if point and point not in curvature["evaluation_points"]:
        yield (
            f"{key}.evaluation_point is {point}, which curvature.evaluation_points lacks. Add it "
            "there."
        )


# Sizes of datasets


def _check_samples(config: Mapping[str, Any]) -> Iterator[str]:
    """Check that datasets of a known size have enough images."""
    for name, setting in config["settings"].items():
        problem = setting["problem"]
        dataset = {"kind": problem["dataset"]} | config.get("datasets", {}).get(
            problem["dataset"], {}
        )
        images = registry.images_of(dataset)
        needed = problem["samples"] + problem.get("test_samples", 0)
        if images is not None and needed > images:
            keys = "samples" + (" + test_samples" if problem.get("test_samples") else "")
            yield (
                f"settings.{name}.problem.{keys} is {needed}, but {problem['dataset']} has only "
                f"{images} images. Lower it."
            )


# Combinations of methods


def _check_combinations_of_methods(config: Mapping[str, Any]) -> Iterator[str]:
    methods = config["methods"]
    if "settings" in methods.get(BASELINE, {}):
        yield (
            f"methods.{BASELINE} has `settings`, but it is the baseline of every setting. "
            "Remove them."
        )
    first_names: dict[tuple[str, ...], str] = {}
    for name, values in methods.items():
        composed = tuple(parts(name))
        if composed in first_names:
            yield f"methods.{name} repeats methods.{first_names[composed]}. Remove one."
        first_names[composed] = name
        yield from _check_parts(name)
        for part in composed:
            for setting in values.get("settings", config["settings"]):
                network = config["settings"][setting]["network"]
                yield from _check_part_in_setting(name, part, values, setting, network)


def _check_parts(name: str) -> Iterator[str]:
    """Check that the parts of a composed method fit together."""
    for first, second in itertools.combinations(parts(name), 2):
        claims = [registry.constant("methods", part, "CLAIM") for part in (first, second)]
        if first == second:
            yield f"methods.{name} names {first} twice. Remove one."
        elif "everything" in claims:
            alone = first if claims[0] == "everything" else second
            yield f"methods.{name}: {alone} cannot be combined with another method. Remove it."
        elif claims[0] and claims[0] == claims[1]:
            yield (
                f"methods.{name}: {first} and {second} contradict each other, because both decide "
                f"about {claims[0]}. Choose one."
            )
    for first, second in itertools.combinations(parts(name), 2):
        networks = registry.network_of(first), registry.network_of(second)
        for key in networks[0].keys() & networks[1].keys():
            if first != second and networks[0][key] != networks[1][key]:
                yield (
                    f"methods.{name}: {first} and {second} contradict each other, because both set "
                    f"network.{key}. Choose one."
                )
    for part, other in itertools.permutations(parts(name), 2):
        refused = registry.constant("methods", part, "REFUSES") or {}
        for key, value in registry.network_of(other).items():
            if value in refused.get(key, []):
                yield (
                    f"methods.{name}: {part} does not work with network.{key}: {value}, "
                    f"which {other} sets. Choose one."
                )


def _check_part_in_setting(
    name: str, part: str, values: Mapping[str, Any], setting: str, network: Mapping[str, Any]
) -> Iterator[str]:
    """Check that a part of a method can be trained with the network of a setting."""
    subject = f"methods.{name} cannot be trained in {setting}"
    kind = network["kind"]
    options = {*Network.common(), *registry.fields("architectures", kind)}
    for key in registry.network_of(part).keys() - options:
        yield (
            f"{subject}: its {kind} has no option {key!r}, which {part} sets. "
            "Limit the method by `settings`."
        )
    for key, refused in (registry.constant("methods", part, "REFUSES") or {}).items():
        if network.get(key) in refused:
            yield (
                f"{subject}: {part} does not work with network.{key}: {network[key]}. "
                "Limit the method by `settings`."
            )
    for key, kinds in (registry.constant("methods", part, "NEEDS") or {}).items():
        option = f"{part}.{key}" if "+" in name else key
        if kind in kinds and option not in values:
            yield (
                f"{subject}: with network.kind: {kind} it needs {option!r}. Add it, or limit the "
                "method by `settings`."
            )


# Hints


def _number_meant(value: object, kind: str) -> str | None:
    """Write the number that a text stands for so that YAML reads a number.

    Args:
        value: a value of the config, such as the text ``1e-3``, which YAML does not read as a
            number.
        kind: ``int_type`` or ``float_type``.

    Returns:
        ``1.0e-03``, or ``100`` if a whole number is needed. None if the text is not such a number.
    """
    if not isinstance(value, str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    if kind == "int_type":
        return str(int(number)) if number.is_integer() else None
    candidates = (f"{number:.{digits}e}" for digits in range(1, 18))
    return next(text for text in candidates if float(text) == number)
