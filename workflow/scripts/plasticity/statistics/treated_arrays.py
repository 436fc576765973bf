"""The copies of a setting's checkpoints as arrays, and how their treatments are permuted.

A treatment acts alike on all seeds, so seeds are no independent tests of it. What is random in an
experiment is which treatments were chosen. Null distributions therefore exchange whole treatments,
with all their doses, in all seeds and tasks at once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import xarray as xr

from plasticity.config.models import UNTREATED, method_of
from plasticity.config.quantities import OUTCOMES, preference
from plasticity.statistics.merge import TREATED
from plasticity.statistics.resampling import Draws, interval
from plasticity.statistics.summaries import NO_MEASURES

EVALUATION_POINT = "next"  # where copies are measured
ALL_TASKS = "all"  # the mean over all treated tasks
MIN_COPIES = 6  # a rank correlation over fewer copies is too uncertain to report
COPY_DIMS = ("treated_arm", "seed", "treated_task", "treatment")


@dataclass(frozen=True)
class TreatedArrays:
    """The outcomes and measures of all copies of a setting.

    Values are float64, and NaN for copies that were not trained: they diverged, or their treatment
    changed nothing.

    Attributes:
        setting: name of the setting.
        arms: names of the arms whose checkpoints are treated.
        tasks: numbers of the task boundaries whose checkpoints are treated.
        copies: treatments with their doses, such as ``shrink(strength=0.3)``.
        families: of the treatments, by copy.
        strengths: doses, shape ``(copy,)``; NaN without a dose.
        statuses: words for what became of a copy, shape ``(arm, seed, task, copy)``.
        measures: names of the measures.
        blocks: of the measures.
        x: measures before training, shape ``(measure, arm, seed, task, copy)``.
        outcomes: names of the outcomes that are tested.
        y: these outcomes, shape ``(outcome, arm, seed, task, copy)``.
        other_outcomes: further outcomes by name, shapes ``(arm, seed, task, copy)``.
    """

    setting: str
    arms: list[str]
    tasks: list[int]
    copies: list[str]
    families: list[str]
    strengths: np.ndarray
    statuses: np.ndarray
    measures: list[str]
    blocks: list[str]
    x: np.ndarray
    outcomes: list[str]
    y: np.ndarray
    other_outcomes: Mapping[str, np.ndarray]

    @classmethod
    def from_dataset(cls, setting: str, data: xr.Dataset) -> Self:
        """Collect the copies of a setting's dataset, with one block of each measure.

        It is the block of the whole network, or that of the last layer that has the measure.

        Args:
            setting: name of the setting.
            data: from `merge.merge_ensembles`, with interventions.
        """
        statuses = _words(data[f"{TREATED}copy_status"].transpose(*COPY_DIMS))
        is_trained = statuses == "trained"
        measures: dict[str, tuple[str, np.ndarray]] = {}
        outcomes: dict[str, np.ndarray] = {}
        for full_name, values in data.data_vars.items():
            name = str(full_name).removeprefix(TREATED)
            if name == full_name or name == "copy_status":
                continue
            if "block" not in values.dims:
                of_copies = values.transpose(*COPY_DIMS).values.astype(np.float64)
                outcomes[name] = np.where(is_trained, of_copies, np.nan)
                continue
            if name.endswith(NO_MEASURES):
                continue
            by_block = values.transpose("block", *COPY_DIMS).values.astype(np.float64)
            by_block = np.where(is_trained, by_block, np.nan)
            block = _best_block([str(block) for block in data.block.values], by_block)
            if block is not None:
                measures[name] = (str(data.block.values[block]), by_block[block])
        tested = [name for name in OUTCOMES if name in outcomes]
        shape = (0, *is_trained.shape)
        x = [values for _, values in measures.values()]
        return cls(
            setting=setting,
            arms=[str(arm) for arm in data.treated_arm.values],
            tasks=[int(task) for task in data.treated_task.values],
            copies=[str(copy) for copy in data.treatment.values],
            families=[str(family) for family in _words(data["treatment_family"])],
            strengths=data["treatment_strength"].values.astype(np.float64),
            statuses=statuses,
            measures=list(measures),
            blocks=[block for block, _ in measures.values()],
            x=np.stack(x) if x else np.empty(shape),
            outcomes=tested,
            y=np.stack([outcomes[name] for name in tested]) if tested else np.empty(shape),
            other_outcomes={
                name: values for name, values in outcomes.items() if name not in tested
            },
        )

    def without_family(self, family: str) -> Self:
        """Leave out the copies whose treatments are of a family."""
        kept = [index for index, own in enumerate(self.families) if own != family]
        return replace(
            self,
            copies=[self.copies[index] for index in kept],
            families=[self.families[index] for index in kept],
            strengths=self.strengths[kept],
            statuses=self.statuses[..., kept],
            x=self.x[..., kept],
            y=self.y[..., kept],
            other_outcomes={
                name: values[..., kept] for name, values in self.other_outcomes.items()
            },
        )

    @property
    def reference(self) -> int:
        """Index of the copy that nothing was done to."""
        return self.copies.index(UNTREATED)

    @property
    def treatments(self) -> list[str]:
        """Names of the treatments without doses, in the order of the copies."""
        return list(dict.fromkeys(method_of(copy) for copy in self.copies))

    @property
    def treatment_of_copy(self) -> np.ndarray:
        """Index of the treatment of each copy, shape ``(copy,)``."""
        treatments = self.treatments
        return np.array([treatments.index(method_of(copy)) for copy in self.copies])

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(self.statuses[0])

    @property
    def task_labels(self) -> list[str]:
        """Names of the rows of an arm: each treated task, and all of them."""
        return [*map(str, self.tasks), ALL_TASKS]

    def orders(self, draws: Draws) -> np.ndarray:
        """Permute the treatments with their doses, see `permute_treatments`."""
        return permute_treatments(self.treatment_of_copy, self.strengths, draws)

    def comparable_measures(self, arm: int) -> Iterator[tuple[list[int], np.ndarray]]:
        """Group the measures that the same copies of an arm have.

        Args:
            arm: index of the arm.

        Yields:
            Indices of measures, and which copies have them and all outcomes, shape
            ``(seed, task, copy)``.
        """
        has_outcomes = np.isfinite(self.y[:, arm]).all(axis=0)
        groups: dict[bytes, list[int]] = {}
        masks = has_outcomes & np.isfinite(self.x[:, arm])
        for index, mask in enumerate(masks):
            groups.setdefault(mask.tobytes(), []).append(index)
        for indices in groups.values():
            yield indices, masks[indices[0]]


def has_interventions(data: xr.Dataset) -> bool:
    """Tell whether a setting's dataset has treated copies."""
    return f"{TREATED}copy_status" in data


def _words(codes: xr.DataArray) -> np.ndarray:
    """Translate the codes of a variable into the words of its attribute ``flag_meanings``."""
    meanings = np.array(str(codes.attrs["flag_meanings"]).split())
    flags = list(np.atleast_1d(codes.attrs.get("flag_values", range(len(meanings)))))
    positions = np.searchsorted(flags, codes.values)
    return meanings[positions]


def _best_block(blocks: Sequence[str], values: np.ndarray) -> int | None:
    """Choose the block that stands for a measure, as `SettingArrays.explanations` does.

    Args:
        blocks: their names.
        values: shape ``(block, …)``.

    Returns:
        Its index; None if nothing was measured.
    """
    known = [index for index in range(len(blocks)) if np.isfinite(values[index]).any()]
    order = {index: (*preference(EVALUATION_POINT, blocks[index]), index) for index in known}
    return max(known, key=order.__getitem__, default=None)


def permute_treatments(
    treatment_of_copy: np.ndarray, strengths: np.ndarray, draws: Draws
) -> np.ndarray:
    """Permute treatments; the doses of a treatment stay together.

    Doses of a treatment act alike, so they are not exchangeable one by one: that would reject a
    true null model in up to 15 % of studies. If a treatment takes the place of one with another
    number of doses, its smallest to largest doses are spread over the copies there.

    Args:
        treatment_of_copy: index of the treatment of each copy, shape ``(copy,)``.
        strengths: doses, shape ``(copy,)``.
        draws: of permutations; all permutations are used for few treatments.

    Returns:
        For each copy, the copy that takes its place, shape ``(draw, copy)``. The first row is the
        identity. A copy can be there twice.
    """
    treatments = int(treatment_of_copy.max()) + 1
    members = []
    position = np.zeros(len(treatment_of_copy), int)
    for treatment in range(treatments):
        copies = np.flatnonzero(treatment_of_copy == treatment)
        by_dose = copies[np.argsort(strengths[copies], kind="stable")]
        position[by_dose] = np.arange(len(by_dose))
        members.append(by_dose)
    sizes = np.array([len(copies) for copies in members])
    padded = np.zeros((treatments, sizes.max()), int)
    for treatment, copies in enumerate(members):
        padded[treatment, : len(copies)] = copies
    share = (position + 1) / sizes[treatment_of_copy]
    replacing = draws.permutations(treatments)[:, treatment_of_copy]
    # Round-off must not move the largest dose beyond the last copy.
    places = np.ceil(share * sizes[replacing] - 1e-9).astype(int) - 1
    return np.asarray(padded[replacing, places])


def mean_over_tasks(values: np.ndarray) -> np.ndarray:
    """Average over the tasks at which any seed has a value.

    Args:
        values: shape ``(…, seed, task)``.

    Returns:
        Shape ``(…, seed)``; NaN for seeds that lack one of these tasks.
    """
    is_defined = np.isfinite(values).any(axis=-2, keepdims=True)
    counts = is_defined.sum(axis=-1)
    total = np.where(is_defined, values, 0).sum(axis=-1)
    return np.asarray(total / np.where(counts, counts, np.nan))


def by_task_label(values: np.ndarray) -> np.ndarray:
    """Add the mean over tasks to values per task, in the order of `TreatedArrays.task_labels`.

    Args:
        values: shape ``(…, seed, task)``.

    Returns:
        Shape ``(label, …, seed)``.
    """
    per_task = np.moveaxis(values, -1, 0)
    return np.concatenate([per_task, mean_over_tasks(values)[None]])


def label_weights(values: np.ndarray) -> np.ndarray:
    """Compute the weight of each seed and task in the means of `by_task_label` over seeds.

    Args:
        values: shape ``(…, seed, task)``.

    Returns:
        Shape ``(label, …, seed, task)``. The weights of a label add up to 1, or are all 0 if it has
        no value.
    """
    is_known = np.isfinite(values)
    tasks = values.shape[-1]
    per_task = is_known[None] & np.eye(tasks, dtype=bool).reshape(
        (tasks,) + (1,) * (values.ndim - 1) + (tasks,)
    )
    is_complete = np.isfinite(mean_over_tasks(values))[..., None]
    weights = np.concatenate([per_task, (is_complete & is_known)[None]]).astype(np.float64)
    totals = weights.sum(axis=(-2, -1), keepdims=True)
    return np.asarray(weights / np.where(totals, totals, 1))


@dataclass(frozen=True)
class SeedMeans:
    """Means over the seeds that have a value, with their intervals, as arrays of one shape.

    Attributes:
        value: the means; NaN without a seed.
        low: lower ends of the 95 % intervals; NaN without one.
        high: upper ends.
        method: how each interval was computed; empty without one.
        seeds: number of seeds with a value.
        error: standard errors; NaN for fewer than two seeds.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    method: np.ndarray
    seeds: np.ndarray
    error: np.ndarray


def average_over_seeds(values: np.ndarray, draws: Draws) -> SeedMeans:
    """Average over the seeds that have a value.

    Args:
        values: shape ``(…, seed)``; NaN for seeds without a value.
        draws: of seeds.
    """
    flat = values.reshape(-1, values.shape[-1])
    is_known = np.isfinite(flat)
    numbers = {name: np.full(len(flat), np.nan) for name in ("value", "low", "high", "error")}
    method = np.full(len(flat), "", dtype=object)
    patterns, pattern_of = np.unique(is_known, axis=0, return_inverse=True)
    for index, pattern in enumerate(patterns):
        seeds = int(pattern.sum())
        rows = np.flatnonzero(pattern_of.ravel() == index)
        if not seeds:
            continue
        known = flat[rows][:, pattern]
        low, high, name = interval(known, draws)
        numbers["value"][rows] = known.mean(axis=-1)
        numbers["low"][rows] = low
        numbers["high"][rows] = high
        method[rows] = np.where(np.isfinite(low), name, "")
        if seeds > 1:
            numbers["error"][rows] = known.std(axis=-1, ddof=1) / np.sqrt(seeds)
    shape = values.shape[:-1]
    return SeedMeans(
        **{name: array.reshape(shape) for name, array in numbers.items()},
        method=method.reshape(shape),
        seeds=is_known.sum(axis=-1).reshape(shape),
    )
