"""Synthetic settings with interventions, whose truth is known.

A treatment has a latent effect, which is the same for all seeds. It moves the final error, and with
it the measures that the truth names. Other measures have effects of their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from plasticity.config.models import arm_name
from plasticity.statistics.merge import add_gaps

FAMILIES = ("control", "restoring", "harmful", "preserving")
COPY_STATUS = {"trained": 0, "diverged": 1, "run_diverged": 2, "unchanged": 3}
OUTCOMES = ("final_error", "online_error", "final_loss", "update_norm")
# The size of each measure in a network that lost plasticity, and how far a latent effect of 1 moves
# it; the sign is that of a restored network.
MEASURES = {
    "fisher_effective_rank": (40.0, 25.0),
    "fisher_entropy_rank": (20.0, 12.0),
    "fisher_stable_rank": (3.0, 1.5),
    "fisher_top_eigenvalue": (5.0, -2.0),
    "feature_rank": (10.0, 6.0),
    "dead_fraction": (0.5, -0.3),
    "weight_norm": (30.0, -10.0),
}
BLOCKS = ("hidden_1", "all")
# family and doses; no dose is a treatment without strength
TREATMENTS: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "none": ("control", ()),
    "fresh": ("control", ()),
    "reset_optimizer": ("control", ()),
    "shrink": ("restoring", (0.3, 0.6, 0.8)),
    "perturb": ("restoring", (0.1, 0.3, 1.0)),
    "rescale_norms": ("restoring", ()),
    "reset_first_layer": ("restoring", ()),
    "restore_spectrum": ("restoring", ()),
    "low_rank": ("harmful", (0.2, 0.5, 0.9)),
    "saturate": ("harmful", (2.0, 5.0)),
    "rescale_layers": ("preserving", (2.0, 5.0)),
    "split_units": ("preserving", ()),
}


@dataclass(frozen=True)
class Truth:
    """How treatments act.

    Attributes:
        ordering: measures that move with the error of a copy.
        effect: how far a latent effect of 1 lowers the error.
        noise: standard deviation of the latent effect of a copy that is its own, independently for
            the error and for each measure.
        family_offsets: added to the error of all copies of a family.
        constant: measures that no treatment changes.
    """

    ordering: tuple[str, ...] = ("fisher_effective_rank",)
    effect: float = 0.25
    noise: float = 0.1
    family_offsets: Mapping[str, float] = field(default_factory=dict)
    constant: tuple[str, ...] = ()


def treated_setting(
    truth: Truth = Truth(),
    *,
    seeds: int = 5,
    tasks: int = 16,
    treated_tasks: tuple[int, ...] = (4, 12),
    treated_arms: tuple[str, ...] = ("none",),
    treatments: Mapping[str, tuple[str, tuple[float, ...]]] = TREATMENTS,
    statuses: Mapping[tuple[str, int], str] | None = None,
    draw: int = 0,
) -> xr.Dataset:
    """Draw the gathered dataset of a setting, as `merge` gives it.

    Args:
        truth: how treatments act.
        seeds: number of seeds.
        tasks: number of tasks of a run.
        treated_tasks: task boundaries whose checkpoints are treated.
        treated_arms: arms whose checkpoints are treated.
        treatments: family and doses by name; `none` must be among them.
        statuses: of copies that were not trained, by treatment and index of the seed, at all tasks.
            Their values are NaN, or those of `none` where the treatment changed nothing.
        draw: random seed.
    """
    random = np.random.default_rng(draw)
    data = _runs(random, treated_arms, seeds, tasks)
    names, families, strengths = _copies(treatments)
    latent = _latent_effects(random, names, families, strengths)
    shape = (len(treated_arms), seeds, len(treated_tasks), len(names))
    status = np.zeros(shape, np.int8)
    dims = ("treated_arm", "seed", "treated_task", "treatment")
    of_runs = data.sel(arm=list(treated_arms), task=list(treated_tasks))
    is_none = np.array(names) == "none"
    variables = {}

    def own_effects(effects: np.ndarray) -> np.ndarray:
        noisy = effects + truth.noise * random.normal(size=shape)
        return np.where(is_none, 0, noisy)

    offsets = np.array([truth.family_offsets.get(family, 0.0) for family in families])
    change = np.where(is_none, 0, offsets) - truth.effect * own_effects(latent)
    errors = np.clip(of_runs["final_error"].values[..., None] + change, 0.001, 0.999)
    variables["final_error"] = (dims, errors)
    variables["online_error"] = (dims, 0.3 + 0.7 * errors)
    variables["final_loss"] = (dims, 2 * errors)
    variables["update_norm"] = (dims, np.exp(0.1 * random.normal(size=shape)))
    for measure, (size, slope) in MEASURES.items():
        effects = latent if measure in truth.ordering else random.permutation(latent)
        moved = 0 * latent if measure in truth.constant else own_effects(effects)
        base = of_runs[measure]
        if "evaluation_point" in base.dims:
            base = base.sel(evaluation_point="next")
        base = base.transpose("arm", "seed", "task", "block").values[..., None, :]
        values = base + slope * moved[..., None]
        low = 0.0 if measure == "dead_fraction" else 0.01 * size
        high = 1.0 if measure == "dead_fraction" else np.inf
        variables[measure] = ((*dims, "block"), np.clip(values, low, high))
    for (treatment, seed), word in (statuses or {}).items():
        index = names.index(treatment)
        status[:, seed, :, index] = COPY_STATUS[word]
        for _, values in variables.values():
            unchanged = values[:, seed, :, names.index("none")]
            values[:, seed, :, index] = unchanged if word == "unchanged" else np.nan
    flags = {"flag_values": np.array(list(COPY_STATUS.values()), np.int8)}
    meanings = {"flag_meanings": " ".join(COPY_STATUS)}
    variables["copy_status"] = (dims, status, flags | meanings)
    treated = {f"treated_{name}": variable for name, variable in variables.items()}
    family_codes = np.array([FAMILIES.index(family) for family in families], np.int8)
    family_flags = {
        "flag_values": np.arange(len(FAMILIES), dtype=np.int8),
        "flag_meanings": " ".join(FAMILIES),
    }
    treated["treatment_family"] = ("treatment", family_codes, family_flags)
    treated["treatment_strength"] = ("treatment", np.array(strengths))
    coordinates = {
        "treated_arm": list(treated_arms),
        "treated_task": list(treated_tasks),
        "treatment": names,
    }
    return data.assign(treated).assign_coords(coordinates)


def _copies(
    treatments: Mapping[str, tuple[str, tuple[float, ...]]],
) -> tuple[list[str], list[str], list[float]]:
    """List the names, families and strengths of all copies of a checkpoint."""
    names: list[str] = []
    families: list[str] = []
    strengths: list[float] = []
    for treatment, (family, doses) in treatments.items():
        for dose in doses or (None,):
            names.append(arm_name(treatment, {} if dose is None else {"strength": dose}))
            families.append(family)
            strengths.append(np.nan if dose is None else dose)
    return names, families, strengths


def _latent_effects(
    random: np.random.Generator, names: list[str], families: list[str], strengths: list[float]
) -> np.ndarray:
    """Draw the latent effect of each treatment: it grows with the dose, and `none` has none.

    Returns:
        Shape ``(treatment,)``: 1 restores plasticity, negative effects are harmful.
    """
    ranges = {
        "control": (0, 1),
        "restoring": (0.2, 1.2),
        "harmful": (-0.7, 0),
        "preserving": (-0.3, 0.3),
    }
    effects: dict[str, float] = {}
    for name, family in zip(names, families, strict=True):
        effects.setdefault(name.partition("(")[0], random.uniform(*ranges[family]))
    largest: dict[str, float] = {}
    for name, strength in zip(names, strengths, strict=True):
        treatment = name.partition("(")[0]
        largest[treatment] = np.fmax(largest.get(treatment, np.nan), strength)
    latent = []
    for name, strength in zip(names, strengths, strict=True):
        treatment = name.partition("(")[0]
        share = 1.0 if np.isnan(strength) else strength / largest[treatment]
        latent.append(0.0 if name == "none" else effects[treatment] * share)
    return np.array(latent)


def _runs(
    random: np.random.Generator, treated_arms: tuple[str, ...], seeds: int, tasks: int
) -> xr.Dataset:
    """Draw the runs without treatments: the arms lose plasticity, and the baseline does not."""
    arms = [*dict.fromkeys(("none", *treated_arms)), "fresh"]
    run = ("arm", "seed", "task")
    shape = (len(arms), seeds, tasks)
    is_learning = np.array([arm == "fresh" for arm in arms])[:, None, None]
    lost = np.where(is_learning, 0, np.linspace(0, 1, tasks)) + 0.05 * random.normal(size=shape)
    variables = {}
    error = np.clip(0.1 + 0.5 * lost, 0.001, 0.999)
    variables["final_error"] = (run, error)
    variables["online_error"] = (run, 0.3 + 0.7 * error)
    variables["final_loss"] = (run, 2 * error)
    variables["update_norm"] = (run, np.exp(0.1 * random.normal(size=shape)))
    variables["status"] = (run, np.zeros(shape, np.int8))
    for measure, (size, slope) in MEASURES.items():
        values = size + slope * (1 - lost - 0.05 * random.normal(size=shape))
        values = np.clip(values, 0.0 if measure == "dead_fraction" else 0.01 * size, np.inf)
        if measure == "dead_fraction":
            values = np.clip(values, 0, 1)
        values = np.stack([0.9 * values, values], axis=-1)
        if measure == "feature_rank":
            values[..., 1] = np.nan  # the whole network has no feature rank
        if measure == "weight_norm":
            variables[measure] = ((*run, "block"), values)
        else:
            variables[measure] = ((*run, "evaluation_point", "block"), values[..., None, :])
    coordinates = {
        "arm": arms,
        "seed": range(seeds),
        "task": range(tasks),
        "evaluation_point": ["next"],
        "block": list(BLOCKS),
    }
    data = xr.Dataset(variables, coordinates)
    baseline = data.sel(arm="fresh", drop=True)
    names = ("final_error", "online_error", "final_loss")
    return add_gaps(data.assign({f"fresh_{name}": baseline[name] for name in names}))
