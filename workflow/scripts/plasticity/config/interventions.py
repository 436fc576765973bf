"""Checks of the section `interventions` of a config. Each mistake is one sentence."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from plasticity.config import registry
from plasticity.config.models import (
    FAMILIES,
    UNTREATED,
    is_baseline,
    method_of,
    parts,
)
from plasticity.config.spelling import hint

SECTION = "interventions"
OPTIMIZER_STATES = ("kept", "cleared", "cleared_where_changed")


class Range(NamedTuple):
    """Allowed strengths of a treatment.

    Attributes:
        above: every strength is larger.
        maximum: the largest strength.
    """

    above: float
    maximum: float = math.inf

    def __contains__(self, strength: object) -> bool:
        """Tell whether a strength is allowed."""
        return isinstance(strength, int | float) and self.above < strength <= self.maximum

    def __str__(self) -> str:
        """Describe the range in words."""
        limit = "" if self.maximum == math.inf else f" and at most {self.maximum:g}"
        return f"above {self.above:g}{limit}"


# by the literal STRENGTH of a treatment's file
RANGES = {"share": Range(0, 1), "positive": Range(0), "above_one": Range(1)}


def check_names_and_values(config: Mapping[str, Any]) -> Iterator[str]:
    """Check treatments, methods and operators, each by itself.

    Args:
        config: with valid types.

    Yields:
        One sentence per mistake.
    """
    section = config.get(SECTION)
    if section is None:
        return
    yield from _check_treatments(section["treatments"], list(config["settings"]))
    yield from _check_arms(section, config["methods"])
    yield from _check_operators(section.get("operators", ()), config)


def _check_treatments(treatments: Mapping[str, Any], settings: list[str]) -> Iterator[str]:
    known = registry.names("treatments")
    for name, options in treatments.items():
        key = f"{SECTION}.treatments.{name}"
        if name not in known:
            yield (f"{SECTION}.treatments has an unknown treatment {name!r}. {hint(name, known)}")
            continue
        yield from _check_file(name)
        yield from _check_strength(key, name, options)
        for setting in options.get("settings", ()):
            if setting not in settings:
                suggestion = hint(setting, settings)
                yield f"{key}.settings names {setting!r}, which is unknown. {suggestion}"
    if "settings" in treatments.get(UNTREATED, {}):
        yield (
            f"{SECTION}.treatments.{UNTREATED} has `settings`, but the copy {UNTREATED} is made in "
            "every setting. Remove them."
        )
    if set(treatments) == {UNTREATED}:
        yield (
            f"{SECTION}.treatments has only {UNTREATED}, which changes nothing. "
            "Add another treatment."
        )


def _check_file(name: str) -> Iterator[str]:
    """Check the literals that the file of a treatment declares."""
    for constant, allowed, is_required in (
        ("FAMILY", FAMILIES, True),
        ("OPTIMIZER_STATE", OPTIMIZER_STATES, True),
        ("STRENGTH", tuple(RANGES), False),
    ):
        value = registry.constant("treatments", name, constant)
        if value not in allowed and (is_required or value is not None):
            found = "is not defined" if value is None else f"is {value!r}"
            yield f"treatments/{name}.py: {constant} {found}. Write one of {', '.join(allowed)}."


def _check_strength(key: str, name: str, options: Mapping[str, Any]) -> Iterator[str]:
    """Check that a treatment has the strength that its file asks for, within the range.

    Args:
        key: of the treatment in the config.
        name: of the treatment.
        options: strength and settings.
    """
    declared = registry.constant("treatments", name, "STRENGTH")
    if declared is None:
        if "strength" in options:
            yield f"{key} has a strength, but {name} takes none. Remove it."
        return
    if declared not in RANGES:
        return  # a mistake in the file, which is reported by itself
    allowed = RANGES[declared]
    if "strength" not in options:
        yield f"{key} lacks 'strength', which must be {allowed}. Add it."
        return
    values = options["strength"]
    for value in values if isinstance(values, list) else [values]:
        if value not in allowed:
            yield f"{key}.strength is {value}. It must be {allowed}."


def _check_arms(section: Mapping[str, Any], methods: Mapping[str, Any]) -> Iterator[str]:
    """Check that the treated methods are methods of the study."""
    known = ["+".join(parts(name)) for name in methods if not is_baseline(name)]
    if "arms" not in section and UNTREATED not in known:
        yield (
            f"{SECTION}.arms is [{UNTREATED}] if it is left out, but methods has no {UNTREATED}. "
            "Add it there, or name other methods."
        )
    for arm in section.get("arms", ()):
        if is_baseline(arm):
            yield (
                f"{SECTION}.arms names {arm!r}, a baseline, which starts every task from scratch. "
                "Remove it."
            )
        elif "+".join(parts(arm)) not in known:
            yield (
                f"{SECTION}.arms names {arm!r}, which is no method of the study. "
                f"{hint(method_of(arm), known)}"
            )


def _check_operators(operators: Any, config: Mapping[str, Any]) -> Iterator[str]:
    """Check that the study has the operators of the copies, and enough samples for them.

    Args:
        operators: a list of names, or keys by name.
        config: the whole config.
    """
    known = list(config["curvature"]["operators"])
    for name in operators:
        if name not in known:
            yield (
                f"{SECTION}.operators has {name!r}, which is not among curvature.operators. "
                f"{hint(name, known)}"
            )
        own_keys = operators[name] if isinstance(operators, Mapping) else {}
        for setting, values in config["settings"].items():
            samples = values["problem"]["samples"]
            if own_keys.get("samples", 0) > samples:
                yield (
                    f"{SECTION}.operators.{name}.samples is {own_keys['samples']}, but a task of "
                    f"{setting} has only {samples} samples. Lower it."
                )


def check_treated_settings(config: Mapping[str, Any]) -> Iterator[str]:
    """Check that the settings can take their treatments, and have some of the treated tasks.

    A setting is treated if it trains a method of `arms`.

    Args:
        config: with valid names.

    Yields:
        One sentence per mistake.
    """
    section = config.get(SECTION)
    if section is None:
        return
    networks = _treated_networks(config)
    first = min(section["tasks"])
    last_tasks = {name: config["settings"][name]["problem"]["tasks"] - 1 for name in networks}
    for setting, last in last_tasks.items():
        if first > last:
            yield (
                f"{SECTION}.tasks begins with {first}, but the last task of {setting} is {last}. "
                "Add one that it has."
            )
    for task in section["tasks"]:
        if networks and task > max(last_tasks.values()) and task > first:
            yield (
                f"{SECTION}.tasks has {task}, but the last task of each treated setting is at most "
                f"{max(last_tasks.values())}. Lower it."
            )
    for name, options in section["treatments"].items():
        if name != UNTREATED:
            yield from _check_networks(name, options.get("settings", list(networks)), networks)


def _treated_networks(config: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Find the networks whose checkpoints are treated.

    Returns:
        The section `network` for each setting and method, with the keys that the method sets.
    """
    treated = ["+".join(parts(arm)) for arm in config[SECTION].get("arms", [UNTREATED])]
    networks: dict[str, dict[str, dict[str, Any]]] = {}
    for setting, values in config["settings"].items():
        for method, options in config["methods"].items():
            trained = setting in options.get("settings", [setting])
            if trained and "+".join(parts(method)) in treated:
                network = dict(values["network"])
                for part in parts(method):
                    network |= registry.network_of(part)
                networks.setdefault(setting, {})[method] = network
    return networks


def _check_networks(
    name: str, settings: list[str], networks: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> Iterator[str]:
    """Check that a treatment works with each network that gets it.

    Args:
        name: of the treatment.
        settings: in which it is applied.
        networks: from `_treated_networks`.
    """
    key = f"{SECTION}.treatments.{name}"
    treated = [setting for setting in settings if setting in networks]
    if not treated:
        yield (
            f"{key} is limited to {' and '.join(settings)}, where no method of {SECTION}.arms is "
            "trained. Choose other settings, or remove the treatment."
        )
        return
    sentences = []
    for setting in treated:
        for method, network in networks[setting].items():
            if reason := _reason_against(name, network):
                runs = setting if method == UNTREATED else f"{setting} with the method {method}"
                sentences.append(f"{key} cannot be applied in {runs}: {reason}.")
                break
    remedy = "Remove it." if len(sentences) == len(treated) else "Limit it by `settings`."
    for sentence in sentences:
        yield f"{sentence} {remedy}"


def _reason_against(name: str, network: Mapping[str, Any]) -> str | None:
    """Say why a treatment does not work with a network, or return None if it does.

    Args:
        name: of the treatment.
        network: the section of the config.
    """
    activations = registry.constant("treatments", name, "ACTIVATIONS")
    activation = network["activation"]
    if activations is not None and activation not in activations:
        return (
            f"its network.activation is {activation}, and {name} works only with "
            f"{', '.join(activations)}"
        )
    for key, refused in (registry.constant("treatments", name, "REFUSES") or {}).items():
        if network.get(key) in refused:
            return f"{name} does not work with network.{key}: {network[key]}"
    return None
