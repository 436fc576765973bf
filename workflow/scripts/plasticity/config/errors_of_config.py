"""What is wrong with a config, in sentences that name the key, its value and what to do. Imports no torch."""

import difflib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from plasticity.config import registry
from plasticity.config.models import BASELINE, Dataset, Network, Optimizer, Problem, parts

TYPE_NAMES = {
    "object": "mapping ({} is an empty one)",
    "array": "list",
    "string": "text",
    "integer": "whole number without a point",
    "number": "finite number",
    "boolean": "true or false",
}


def of(config: Mapping[str, Any], schema: Path) -> list[str]:
    """Every mistake in a config; where the schema finds some, or names are unknown, what these would lead to is not looked for.

    Args:
        config: as YAML gives it.
        schema: the JSON schema of a study, in YAML.
    """
    return (
        list(_unfit(config, schema))
        or [*_misnamed(config), *_contradictions(config)]
        or list(_opposed(config))
    )


def _is_count(_: object, value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(_: object, value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# JSON takes 64.0 for a count, YAML takes .inf for a number; neither can be trained with
_Validator = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", _is_count
    ).redefine("number", _is_number),
)


def _unfit(config: Mapping[str, Any], schema: Path) -> Iterator[str]:
    """Sentences for what the schema refuses."""
    validator = _Validator(yaml.safe_load(schema.read_text(encoding="utf-8")))
    for error in sorted(
        validator.iter_errors(config), key=lambda error: list(map(str, error.absolute_path))
    ):
        key = ".".join(map(str, error.absolute_path)) or "the config"
        value = json.dumps(error.instance, default=str)
        meaning = f" ({error.schema['description']})" if "description" in error.schema else ""
        match error.validator:
            case "additionalProperties":
                known = list(error.schema["properties"])
                for unknown in sorted(set(error.instance) - set(known)):
                    yield f"{key} has an unknown key {unknown!r}: {_hint(unknown, known)}"
            case "required":
                missing = [name for name in error.validator_value if name not in error.instance]
                others = [name for name in error.instance if name not in error.schema["properties"]]
                close = [
                    f", or is it {other!r}?"
                    for name in missing
                    for other in difflib.get_close_matches(name, others, n=1)
                ]
                yield f"{key} lacks {' and '.join(map(repr, missing))}: add it{''.join(close)}"
            case "type" if number := _meant(error.instance, error.validator_value):
                yield f"{key} is the text {error.instance!r} to YAML, not a number: write {number}"
            case "type":
                types = (
                    error.validator_value
                    if isinstance(error.validator_value, list)
                    else [error.validator_value]
                )
                yield f"{key} is {value}, which is no {' or '.join(TYPE_NAMES[name] for name in types)}{meaning}: change it"
            case "enum":
                yield f"{key} is {value}, which is unknown: {_hint(error.instance, error.validator_value)}"
            case "minimum":
                yield f"{key} is {value}, below {error.validator_value}{meaning}: raise it"
            case "exclusiveMinimum":
                yield f"{key} is {value}, not above {error.validator_value}{meaning}: raise it"
            case "maximum":
                yield f"{key} is {value}, above {error.validator_value}{meaning}: lower it"
            case "exclusiveMaximum":
                yield f"{key} is {value}, not below {error.validator_value}{meaning}: lower it"
            case "minItems" | "maxItems" if error.validator_value > 1:
                yield f"{key} is {value}, and not {error.validator_value} values{meaning}: change it"
            case "minProperties" | "minItems":
                yield f"{key} is empty{meaning}: name at least one"
            case "uniqueItems":
                yield f"{key} is {value}, with a value twice: remove one"
            case "pattern":
                yield f"{key} has {value}, but only names of the form {error.validator_value} are allowed: rename it"
            case _:
                yield f"{key} is {value}: {error.message}{meaning}"


def _misnamed(config: Mapping[str, Any]) -> Iterator[str]:
    """Sentences for names that no file has, and for options that the file behind a name does not have, or needs."""
    known = registry.names("operators")
    for name in (name for name in config["curvature"]["operators"] if name not in known):
        yield f"curvature.operators has an unknown operator {name!r}: {_hint(name, known)}"
    described = config.get("datasets", {})
    for name, values in described.items():
        yield from _misfits(
            "datasets", f"datasets.{name}", "kind", {"kind": name} | values, Dataset.common()
        )
    for name, setting in config["settings"].items():
        where, dataset = f"settings.{name}", setting["problem"]["dataset"]
        if dataset not in described:
            yield from _misfits(
                "datasets",
                f"{where}.problem",
                "dataset",
                {"dataset": dataset},
                ["dataset"],
                list(described),
            )
        yield from _misfits(
            "shifts", f"{where}.problem", "shift", setting["problem"], Problem.common()
        )
        yield from _misfits(
            "architectures", f"{where}.network", "kind", setting["network"], Network.common()
        )
        yield from _misfits(
            "optimizers", f"{where}.optimizer", "kind", setting["optimizer"], Optimizer.common()
        )
    for name, options in config["methods"].items():
        yield from _misnamed_method(name, options)
        for setting in options.get("settings", []):
            if setting not in config["settings"]:
                yield f"methods.{name}.settings names {setting!r}, which is unknown: {_hint(setting, list(config['settings']))}"


def _misnamed_method(name: str, options: Mapping[str, Any]) -> Iterator[str]:
    """Sentences for a method, or a composition of some, and its hyper-parameters."""
    where, known = f"methods.{name}", registry.names("methods")
    if unknown := [part for part in parts(name) if part not in known]:
        yield from (
            f"methods has an unknown method {part!r}: {_hint(part, known)}" for part in unknown
        )
        return
    fields: dict[str, registry.Field] = {}
    most: dict[str, float] = {}
    choices: dict[str, list[str]] = {}
    whole: list[str] = []
    for part in parts(name):
        prefix = f"{part}." if "+" in name else ""
        fields |= {prefix + key: field for key, field in registry.fields("methods", part).items()}
        most |= {
            prefix + key: value
            for key, value in (registry.constant("methods", part, "AT_MOST") or {}).items()
        }
        choices |= {
            prefix + key: values
            for key, values in (registry.constant("methods", part, "CHOICES") or {}).items()
        }
        whole += [prefix + key for key in registry.constant("methods", part, "WHOLE") or []]
        for key, field in registry.fields("methods", part).items():
            if field.type not in ("Tensor", "torch.Tensor", "str"):
                yield f"methods/{part}.py: {key} is of type {field.type}: make it a Tensor (a number of each arm) or a str (of all)"
            elif field.type == "str" and prefix + key not in choices:
                yield f"methods/{part}.py does not say which texts {key} may be: name them in CHOICES"
    for option in sorted(options.keys() - fields.keys() - {"settings"}):
        yield f"{where} has an unknown key {option!r}: {_hint(option, ['settings', *fields])}"
    for option, field in fields.items():
        values = options.get(option, [])
        for value in values if isinstance(values, list) else [values]:
            if field.type == "str" and value not in choices.get(option, [value]):
                yield f"{where}.{option} is {value!r}, which is unknown: {_hint(value, choices[option])}"
            elif field.type != "str" and isinstance(value, str):
                yield f"{where}.{option} is the text {value!r} to YAML, not a number: write {_meant(value, 'number') or 'one'}"
            elif field.type != "str" and value > most.get(option, math.inf):
                yield f"{where}.{option} is {value}, above {most[option]}: lower it"
            elif option in whole and value != int(value):
                yield f"{where}.{option} is {value}, and not a whole number: change it"
        if field.required and option not in options:
            yield f"{where} lacks {option!r}, which {name} needs: add it"


def _misfits(
    folder: str,
    where: str,
    key: str,
    values: Mapping[str, Any],
    common: list[str],
    others: Sequence[str] = (),
) -> Iterator[str]:
    """Sentences for one choice: its name, at `key`, has no file in the folder; the file lacks an option, or needs one that is not given."""
    name = values[key]
    if name not in registry.names(folder):
        yield f"{where}.{key} is {name!r}, which is unknown: {_hint(name, [*registry.names(folder), *others])}"
        return
    known = registry.fields(folder, name)
    for option in sorted(values.keys() - known.keys() - set(common)):
        yield f"{where} has an unknown key {option!r}: {_hint(option, [*(one for one in common if one != key), *known])}"
    for option in (
        option for option, field in known.items() if field.required and option not in values
    ):
        yield f"{where} lacks {option!r}, which {name} needs: add it"


def _opposed(config: Mapping[str, Any]) -> Iterator[str]:
    """Sentences for methods that cannot be composed, or not with the network of a setting."""
    seen: dict[tuple[str, ...], str] = {}
    if "settings" in config["methods"].get(BASELINE, {}):
        yield f"methods.{BASELINE} is limited by `settings`, but it is the baseline of every setting: remove them"
    for name, options in config["methods"].items():
        chosen = parts(name)
        if (same := tuple(chosen)) in seen:
            yield f"methods.{name} is methods.{seen[same]} once more: remove one"
        seen[same] = name
        for one, other in itertools.combinations(chosen, 2):
            claims = [registry.constant("methods", part, "CLAIM") for part in (one, other)]
            if one == other:
                yield f"methods.{name} names {one} twice: remove one"
            elif "everything" in claims:
                yield f"methods.{name}: {one if claims[0] == 'everything' else other} goes with no other method: remove it"
            elif claims[0] and claims[0] == claims[1]:
                yield f"methods.{name}: {one} and {other} contradict each other, since both decide about {claims[0]}: choose one"
        for part, other in itertools.permutations(chosen, 2):
            refused = registry.constant("methods", part, "REFUSES") or {}
            for key, value in (
                (key, value)
                for key, value in registry.network_of(other).items()
                if value in refused.get(key, [])
            ):
                yield f"methods.{name}: {part} does not work with network.{key}: {value}, which {other} sets: choose one"
        for part, setting in itertools.product(chosen, options.get("settings", config["settings"])):
            network = config["settings"][setting]["network"]
            where = f"methods.{name} cannot be trained in {setting}"
            for key in registry.network_of(part).keys() - {
                *Network.common(),
                *registry.fields("architectures", network["kind"]),
            }:
                yield f"{where}, whose {network['kind']} has no option {key!r} that {part} could set: limit it by `settings`"
            for key, values in (registry.constant("methods", part, "REFUSES") or {}).items():
                if network.get(key) in values:
                    yield f"{where}: {part} does not work with network.{key}: {network[key]}; limit it by `settings`"
            for key, kinds in (registry.constant("methods", part, "NEEDS") or {}).items():
                option = f"{part}.{key}" if "+" in name else key
                if network["kind"] in kinds and option not in options:
                    yield f"{where}: with network.kind: {network['kind']} it needs {option!r}; add it, or limit it by `settings`"


def _contradictions(config: Mapping[str, Any]) -> Iterator[str]:
    """Sentences for what fits the schema and still cannot be."""
    curvature, recorded = config["curvature"], config.get("training", {}).get("checkpoint_every", 1)
    for name, setting in config["settings"].items():
        problem = setting["problem"]
        if ("epochs" in problem) == ("steps_per_task" in problem):
            has = "both epochs and" if "epochs" in problem else "neither epochs nor"
            yield f"settings.{name}.problem has {has} steps_per_task: give one of them"
        if problem["batch"] > problem["samples"]:
            yield (
                f"settings.{name}.problem.batch is {problem['batch']}, more than its {problem['samples']} samples, "
                "so no step would be taken: lower batch or raise samples"
            )
        for key, samples in _of_operators(curvature, "samples").items():
            if samples > problem["samples"]:
                yield f"{key} is {samples}, but a task of {name} has only {problem['samples']} samples: lower {key}"
    if "tuning" in config and not config["seeds"].get("tune", 0):
        yield "tuning says what arms are chosen by, but seeds.tune is 0, so none are chosen: raise seeds.tune or remove tuning"
    elif config.get("tuning", {}).get("outcome") == "test_error":
        tuned = [options for options in config["methods"].values() if _has_arms(options)]
        where = {name for options in tuned for name in options.get("settings", config["settings"])}
        for name in sorted(where & config["settings"].keys()):
            if not config["settings"][name]["problem"].get("test_samples", 0):
                yield f"tuning.outcome is test_error, but settings.{name}.problem has no test_samples: add some, or choose another outcome"
    if curvature["every"] % recorded:
        yield (
            f"curvature.every is {curvature['every']}, but there is a checkpoint only every {recorded} tasks "
            "(training.checkpoint_every): make the one a multiple of the other"
        )
    for key, evaluation_points in _of_operators(curvature, "evaluation_points").items():
        if unmeasured := [
            evaluation_point
            for evaluation_point in evaluation_points
            if evaluation_point not in curvature["evaluation_points"]
        ]:
            yield f"{key} has {' and '.join(unmeasured)}, which curvature.evaluation_points lacks: add it there"
    for key, every in _of_operators(curvature, "every").items():
        if every % curvature["every"]:
            yield (
                f"{key} is {every}, but tasks are measured at every {curvature['every']} (curvature.every): "
                "make the one a multiple of the other"
            )


def _of_operators(curvature: Mapping[str, Any], key: str) -> dict[str, Any]:
    """What the operators have for a key, by where that is written: of their own, or for all that have none."""
    named = curvature["operators"]
    own: Mapping[str, Any] = named if isinstance(named, dict) else {name: {} for name in named}
    places = {
        name: (f"curvature.operators.{name}.{key}", keys)
        if key in keys
        else (f"curvature.{key}", curvature)
        for name, keys in own.items()
    }
    return {place: where[key] for place, where in places.values()}


def _has_arms(options: Mapping[str, Any]) -> bool:
    """Whether a method has several arms: a list of several values for a hyper-parameter."""
    return any(
        isinstance(values, list) and len(values) > 1
        for key, values in options.items()
        if key != "settings"
    )


def _meant(value: object, kind: str | list[str]) -> str | None:
    """The number that a text was meant to be, as YAML reads it: 1e-3 → 1.0e-03, or 100 where a count is asked for."""
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    if "number" not in kind:
        return str(int(number)) if number.is_integer() else None
    return next(text for digits in range(1, 18) if float(text := f"{number:.{digits}e}") == number)


def _hint(word: object, known: list[str]) -> str:
    """What the writer may have meant."""
    close = difflib.get_close_matches(str(word), known, n=1)
    return (
        f"did you mean {close[0]!r}? Known: {', '.join(known)}"
        if close
        else f"known: {', '.join(known)}"
    )
