"""A setting as arrays of measures and outcomes."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from plasticity.config import titles
from plasticity.config.models import is_baseline
from plasticity.config.quantities import OUTCOMES, preference, split_operator
from plasticity.statistics.resampling import TAILS
from plasticity.statistics.summaries import series

MIN_PROBLEMS = 3  # for an interval over problems
MIN_TASKS = 6  # a correlation over fewer tasks is too uncertain to report


@dataclass(frozen=True)
class Variant:
    """A measure, the evaluation point at which it was taken and the block of the network.

    Attributes:
        measure: name of the measure.
        evaluation_point: empty for measures that use no data.
        block: name of the block.
    """

    measure: str
    evaluation_point: str
    block: str


@dataclass(frozen=True)
class CompleteSeries:
    """Measures of one arm that were taken at the same tasks, for the seeds that have all of them.

    Attributes:
        variants: of the measures.
        x: measures, shape ``(measure, seed, task)``.
        y: outcomes, shape ``(outcome, seed, task)``.
        seeds: indices of the complete seeds among all seeds of the setting.
        tasks: indices of the measured tasks.
        runs: number of all seeds, including those that diverged or have gaps.
        errors: standard errors of estimated measures, by variant, shapes ``(seed, task)``; exact
            measures have none.
    """

    variants: Sequence[Variant]
    x: np.ndarray
    y: np.ndarray
    seeds: np.ndarray
    tasks: np.ndarray
    runs: int
    errors: Mapping[Variant, np.ndarray] = field(default_factory=dict)

    @property
    def note(self) -> str:
        """State how many seeds are left out; empty if none is."""
        return incomplete_note(self.runs - len(self.seeds))


@dataclass(frozen=True)
class SettingArrays:
    """The measures and outcomes of all runs of a setting.

    Attributes:
        setting: name of the setting.
        arms: names of the arms.
        variants: of the measures.
        measures: at the start of each task, shape ``(measure, arm, seed, task)``, float64; NaN
            where not measured.
        outcome_names: names of the outcomes.
        outcomes: at the end of each task, shape ``(outcome, arm, seed, task)``, float64.
        problem: the same text for settings with the same problem, which share their data. A setting
            without it is a problem of its own.
        errors: standard errors of estimated measures, by variant, shapes ``(arm, seed, task)``;
            exact measures have none.
    """

    setting: str
    arms: list[str]
    variants: list[Variant]
    measures: np.ndarray
    outcome_names: list[str]
    outcomes: np.ndarray
    problem: str = ""
    errors: Mapping[Variant, np.ndarray] = field(default_factory=dict)

    @classmethod
    def from_dataset(cls, setting: str, data: xr.Dataset) -> Self:
        """Collect the arrays of a setting's dataset.

        Measures at the evaluation point `fresh` are left out: they describe another network than
        the one that continues to learn.

        Args:
            setting: name of the setting.
            data: dims ``(arm, seed, task, …)``, from `merge.merge_ensembles`.
        """
        variants = []
        measures = []
        errors = {}
        for keys, values in series(data):
            if keys["evaluation_point"] == "fresh":
                continue
            variant = Variant(**keys)
            variants.append(variant)
            measures.append(values.values)
            if f"{variant.measure}_margin" in data:
                errors[variant] = _standard_errors(data, variant)
        names = [name for name in OUTCOMES if name in data]
        outcomes = [data[name].transpose("arm", "seed", "task").values for name in names]
        return cls(
            setting=setting,
            arms=[str(arm) for arm in data.arm.values],
            variants=variants,
            measures=np.stack(measures).astype(np.float64),
            outcome_names=names,
            outcomes=np.stack(outcomes).astype(np.float64),
            problem=_problem_of(data),
            errors=errors,
        )

    def explanations(self) -> Self:
        """Keep one variant of each measure.

        It is the one on the next task's data if there is a choice, then the one of the whole
        network, then the one of the last layer.
        """
        best: dict[str, tuple[bool, bool, int]] = {}
        for index, variant in enumerate(self.variants):
            candidate = (*preference(variant.evaluation_point, variant.block), index)
            best[variant.measure] = max(best.get(variant.measure, (False, False, 0)), candidate)
        indices = sorted(index for _, _, index in best.values())
        variants = [self.variants[index] for index in indices]
        return replace(self, variants=variants, measures=self.measures[indices])

    def without_baselines(self) -> Self:
        """Leave out the baselines: their networks do not continue to learn, and their gap is 0."""
        indices = [index for index, arm in enumerate(self.arms) if not is_baseline(arm)]
        return replace(
            self,
            arms=[self.arms[index] for index in indices],
            measures=self.measures[:, indices],
            outcomes=self.outcomes[:, indices],
            errors={variant: values[indices] for variant, values in self.errors.items()},
        )

    def gaps(self, arm: int) -> np.ndarray:
        """Select the gaps of an arm to the baseline, of the final error, shape ``(seed, task)``."""
        gaps: np.ndarray = self.outcomes[self.outcome_names.index("final_error_gap"), arm]
        return gaps

    def complete_series(self, arm: int) -> Iterator[CompleteSeries]:
        """Group the measures of an arm that have the same tasks and the same complete seeds.

        Args:
            arm: index of the arm.
        """
        has_outcomes = np.isfinite(self.outcomes[:, arm]).all(axis=(0, 2))
        groups: dict[tuple[bytes, bytes], list[int]] = {}
        for index, is_measured in enumerate(np.isfinite(self.measures[:, arm])):
            tasks = is_measured.any(axis=0)
            if tasks.any():
                seeds = has_outcomes & is_measured[:, tasks].all(axis=1)
                groups.setdefault((tasks.tobytes(), seeds.tobytes()), []).append(index)
        for (task_mask, seed_mask), indices in groups.items():
            tasks = mask_indices(task_mask)
            seeds = mask_indices(seed_mask)
            variants = [self.variants[index] for index in indices]
            errors = {
                variant: self.errors[variant][arm][seeds][:, tasks]
                for variant in variants
                if variant in self.errors
            }
            yield CompleteSeries(
                variants=variants,
                errors=errors,
                x=self.measures[indices, arm][:, seeds][:, :, tasks],
                y=self.outcomes[:, arm][:, seeds][:, :, tasks],
                seeds=seeds,
                tasks=tasks,
                runs=self.measures.shape[2],
            )


def preferred_variants(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Keep one row per key in a table of tests, by the rule of `SettingArrays.explanations`.

    Args:
        table: with the columns ``evaluation_point`` and ``block``.
        keys: columns that tell rows apart which are not variants of each other.
    """
    variants = zip(table["evaluation_point"], table["block"], strict=True)
    order = [preference(point, block) for point, block in variants]
    ordered = table.assign(order=order).sort_values("order", kind="stable").drop(columns="order")
    return ordered.drop_duplicates(list(keys), keep="last").sort_index()


def _standard_errors(data: xr.Dataset, variant: Variant) -> np.ndarray:
    """Turn the 95 % margins of an estimated measure into standard errors.

    A margin is the standard error over probes times Student's quantile for their number, plus what
    the estimate lacks in steps. So the quotient is a standard error that is rather too large.

    Args:
        data: dataset of a setting.
        variant: of the measure.

    Returns:
        Shape ``(arm, seed, task)``.
    """
    keys = {"evaluation_point": variant.evaluation_point, "block": variant.block}
    margins = data[f"{variant.measure}_margin"].sel(keys).transpose("arm", "seed", "task")
    settings = json.loads(data.attrs.get("settings", "{}"))
    operators = settings.get("curvature", {}).get("operators", {})
    options = operators.get(split_operator(variant.measure)[0])
    quantile = stats.t.ppf(TAILS[1], options["probes"] - 1) if options else stats.norm.ppf(TAILS[1])
    return np.asarray(margins.values / quantile)


def problems_of(settings: Sequence[SettingArrays]) -> dict[str, str]:
    """Name the problem of each setting, by the name of the setting.

    Settings of one problem share their data, so they are no independent tests of a claim.
    """
    return {arrays.setting: arrays.problem or arrays.setting for arrays in settings}


def _problem_of(data: xr.Dataset) -> str:
    """Write everything in ``setting.problem`` of a dataset's settings as text; empty if unknown."""
    settings = json.loads(data.attrs.get("settings", "{}"))
    if "setting" not in settings:
        return ""
    return json.dumps(settings["setting"]["problem"], sort_keys=True)


def setting_titles(datasets: Mapping[str, xr.Dataset]) -> dict[str, str]:
    """Return the title of each setting in one line, from the config that its dataset stores."""
    stored = {name: json.loads(data.attrs.get("settings", "{}")) for name, data in datasets.items()}
    described = {name: values["setting"] for name, values in stored.items() if "setting" in values}
    chosen = {name: values["title"] for name, values in stored.items() if "title" in values}
    known = titles.setting_titles(described, chosen)
    return {name: known.get(name, name.replace("_", " ")) for name in datasets}


def mask_indices(mask: bytes) -> np.ndarray:
    """Find the indices at which a mask is true.

    Args:
        mask: bytes of a Boolean array.
    """
    return np.flatnonzero(np.frombuffer(mask, bool))


def incomplete_note(runs: int) -> str:
    """State how many runs are left out because they diverged or have gaps; empty if none is."""
    return f"{runs} diverged or with gaps" if runs else ""
