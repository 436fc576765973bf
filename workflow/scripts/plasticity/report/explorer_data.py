"""Select what the explorer shows of a setting: tables of runs, curves, spectra and copies."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from plasticity.config import quantities
from plasticity.config.models import FAMILIES
from plasticity.errors import StudyError
from plasticity.report import panels
from plasticity.statistics import summaries
from plasticity.statistics.changes import growth_of_gap
from plasticity.statistics.estimate import Estimate
from plasticity.statistics.meta_analysis import EXPLAINED_ARM
from plasticity.statistics.resampling import t_interval
from plasticity.training.outcomes import LOWER_IS_BETTER

LOSS = "final_error_gap"  # its growth since the first task is the loss of plasticity
RUN_DIMS = ("arm", "seed", "task")
RUN_COLUMNS = [*RUN_DIMS, "outcome", "measure"]
CURVE_COLUMNS = ["arm", "task", "mean", "low", "high", "seeds"]
SPECTRUM_COLUMNS = ["arm", "seed", "index", "eigenvalue"]
MEAN_COLUMNS = ["arm", "index", "mean", "low", "high", "seeds"]
COPY_COLUMNS = ["arm", "seed", "task", "treatment", "family"]
STAGES = ("early", "late", "change")
SPECTRUM_DIMS = ("rank", "grid", "step")  # of large variables, which are read when they are shown

Variant = tuple[str, str]  # evaluation point, empty where a measure has none, and block
READ_ERRORS = (OSError, RuntimeError, ValueError)  # of the netCDF library


@dataclass(frozen=True)
class Choice:
    """What a reader chose to see.

    Attributes:
        arms: their names.
        outcome: its name.
        measure: its name; empty if the study has none.
        evaluation_point: of the measure; empty where a measure has none.
        block: of the measure.
    """

    arms: tuple[str, ...]
    outcome: str
    measure: str
    evaluation_point: str
    block: str


class SettingData:
    """The numbers of a setting; its spectra stay in the file.

    Attributes:
        numbers: all variables without the dims of spectra and learning curves, in memory.
        outcomes: names of outcomes, each followed by its gap to the baseline.
        variants: of each measure: those that have values.
        operator: the operator that stands for curvature.
    """

    def __init__(self, data: xr.Dataset) -> None:
        """Load the numbers.

        Args:
            data: dataset of the setting, opened from its file.

        Raises:
            StudyError: the file can no longer be read.
        """
        try:
            self.numbers = data.drop_dims(SPECTRUM_DIMS, errors="ignore").load()
        except READ_ERRORS as error:
            raise unreadable(error) from error
        self._data = data
        has_measures = "update_norm" in self.numbers  # training records it in every study
        self._measures = {
            (keys["measure"], keys["evaluation_point"], keys["block"]): values
            for keys, values in (summaries.series(self.numbers) if has_measures else ())
        }
        self.outcomes = outcomes_of(self.numbers)
        self.variants: dict[str, list[Variant]] = {}
        for name, point, block in self._measures:
            self.variants.setdefault(name, []).append((point, block))
        self.operator = panels.main_operator({"": data})

    @property
    def arms(self) -> list[str]:
        """The arms of the setting."""
        return [str(arm) for arm in self.numbers.arm.values]

    def outcome(self, choice: Choice) -> xr.DataArray:
        """Select the chosen outcome, dims ``(arm, seed, task)``."""
        return self.numbers[choice.outcome].sel(arm=list(choice.arms)).transpose(*RUN_DIMS)

    def measure(self, choice: Choice) -> xr.DataArray | None:
        """Select the chosen measure at the start of tasks, dims ``(arm, seed, task)``.

        Returns:
            None if the study did not measure it.
        """
        values = self._measures.get((choice.measure, choice.evaluation_point, choice.block))
        return None if values is None else values.sel(arm=list(choice.arms))

    def table(self, choice: Choice) -> pd.DataFrame:
        """Join the measure at the start of tasks with the outcome of the same tasks.

        Returns:
            One row per arm, seed and task, with `RUN_COLUMNS`.
        """
        outcome = self.outcome(choice)
        measure = self.measure(choice)
        joined = xr.Dataset({"outcome": outcome.reset_coords(drop=True)})
        joined["measure"] = (
            joined["outcome"] * np.nan if measure is None else measure.reset_coords(drop=True)
        )
        rows = joined.to_dataframe(dim_order=list(RUN_DIMS))
        return rows.reset_index()[RUN_COLUMNS]

    def stage_means(self, values: xr.DataArray) -> pd.DataFrame:
        """Average over early and over late tasks, as the table of outcomes does.

        Args:
            values: dims ``(arm, seed, task)``.

        Returns:
            One row per arm and stage: mean, low, high, seeds and note.
        """
        rows = []
        tasks = values.task.values
        for arm, of_arm in zip(values.arm.values, values.values, strict=True):
            is_measured = ~np.isnan(of_arm).all(axis=0)
            means = summaries.stage_means(of_arm[:, is_measured], tasks[is_measured], len(tasks))
            rows += [{"arm": str(arm), **mean.row()} for mean in means if mean.stage in STAGES]
        return pd.DataFrame(rows, columns=["arm", "stage", "mean", "low", "high", "seeds", "note"])

    def spectrum_operator(self, measure: str) -> str:
        """Name the operator whose spectrum belongs to a measure."""
        return quantities.split_operator(measure)[0] or self.operator

    def spectrum_place(self, choice: Choice) -> Variant:
        """Choose evaluation point and block of the spectrum that belongs to a measure.

        They are those of the measure where it has a spectrum, and else those of the explanation.
        """
        places = self.variants.get(f"{self.spectrum_operator(choice.measure)}_trace", [])
        chosen = (choice.evaluation_point, choice.block)
        wanted = (chosen[0] or quantities.EXPLANATION["evaluation_point"], chosen[1])
        if chosen in places or not places:
            return chosen
        if wanted in places:
            return wanted
        return max(places, key=lambda place: quantities.preference(*place))

    def spectrum_tasks(self, choice: Choice) -> list[int]:
        """List the tasks at which the spectrum that belongs to a measure was taken."""
        operator = self.spectrum_operator(choice.measure)
        values = self._measures.get((f"{operator}_trace", *self.spectrum_place(choice)))
        if values is None or f"{operator}_eigenvalue" not in self._data:
            return []
        is_measured = values.sel(arm=list(choice.arms)).notnull().any(["arm", "seed"])
        return [int(task) for task in values.task.values[is_measured.values]]

    def is_estimate(self, choice: Choice) -> bool:
        """Tell whether the spectrum is an estimate, whose values are no eigenvalues."""
        name = f"{self.spectrum_operator(choice.measure)}_trace_margin"
        if name not in self.numbers:
            return False
        point, block = self.spectrum_place(choice)
        margin = self.numbers[name].sel(arm=list(choice.arms), evaluation_point=point, block=block)
        return bool((margin > 0).any())

    def spectra(self, choice: Choice, task: int) -> pd.DataFrame:
        """Read the eigenvalues of every run at the start of a task.

        Returns:
            One row per arm, seed and ``index``, counted from 1; no rows if the study has no
            eigenvalues for this choice.

        Raises:
            StudyError: the file can no longer be read.
        """
        point, block = self.spectrum_place(choice)
        name = f"{self.spectrum_operator(choice.measure)}_eigenvalue"
        if name not in self._data:
            return pd.DataFrame(columns=SPECTRUM_COLUMNS)
        try:
            selected = (
                self._data[name]
                .sel(arm=list(choice.arms), task=task, evaluation_point=point, block=block)
                .load()
            )
        except READ_ERRORS as error:
            raise unreadable(error) from error
        values = selected.rename("eigenvalue").reset_coords(drop=True)
        rows = values.to_dataframe(dim_order=["arm", "seed", "rank"]).reset_index()
        rows["index"] = rows["rank"] + 1
        return rows.dropna()[SPECTRUM_COLUMNS].reset_index(drop=True)

    def copies(self, choice: Choice) -> pd.DataFrame:
        """Join a measure of treated copies with their outcome; copies have no gap to the baseline.

        Returns:
            One row per arm, seed, task and treatment, with its family; no rows if the study did
            not measure this on copies.
        """
        data = self.numbers
        own_outcome = choice.outcome.removesuffix("_gap")
        new_names = {
            f"treated_{choice.measure}": "measure",
            f"treated_{own_outcome}": "outcome",
        }
        columns = [*COPY_COLUMNS, "measure", "outcome"]
        treated_arms = (
            [arm for arm in choice.arms if arm in data.treated_arm] if "treated_arm" in data else []
        )
        if not treated_arms or any(name not in data for name in new_names):
            return pd.DataFrame(columns=columns)
        values = data[list(new_names)].sel(block=choice.block, treated_arm=treated_arms)
        is_trained = data["treated_copy_status"] == 0
        rows = values.where(is_trained).reset_coords(drop=True).to_dataframe().reset_index()
        families = dict(zip(data.treatment.values, data["treatment_family"].values, strict=True))
        rows["family"] = [FAMILIES[int(families[name])] for name in rows["treatment"]]
        new_names |= {"treated_arm": "arm", "treated_task": "task"}
        return rows.rename(columns=new_names)[columns]


def unreadable(error: Exception) -> StudyError:
    """Create the exception for a dataset that can be read no longer."""
    return StudyError(
        f"The dataset of this setting can no longer be read ({error}). It is probably being "
        "replaced. Wait until its job is finished, then press “Look for new results”."
    )


def check_dataset(path: Path, data: xr.Dataset) -> None:
    """Raise if a netCDF file is no dataset of a setting.

    Args:
        path: of the file, for the message.
        data: its content.

    Raises:
        StudyError: a dim or all outcomes are missing.
    """
    missing = [dim for dim in RUN_DIMS if not data.sizes.get(dim)]
    if missing or not outcomes_of(data):
        lack = f"the dim {missing[0]}" if missing else "all outcomes"
        raise StudyError(
            f"{path} is no dataset of a setting: it lacks {lack}. Delete it, then start snakemake "
            "again to recompute it."
        )


def loss_of_plasticity(data: xr.Dataset) -> Estimate:
    """Compute how much the gap to the baseline grows without an intervention since the first task.

    Args:
        data: dataset of a setting.

    Returns:
        The mean over seeds with Student's interval; NaN if it is not known.

    Raises:
        StudyError: the file can no longer be read.
    """
    if LOSS not in data or EXPLAINED_ARM not in data.arm:
        return Estimate()
    try:
        values = data[LOSS].sel(arm=EXPLAINED_ARM).transpose("seed", "task").values
    except READ_ERRORS as error:
        raise unreadable(error) from error
    growth = growth_of_gap(values[np.isfinite(values).all(axis=1)])
    if not len(growth):
        return Estimate()
    low, high = t_interval(growth)
    return Estimate(growth.mean(), float(low), float(high))


def outcomes_of(data: xr.Dataset) -> list[str]:
    """List the outcomes, each followed by its gap to the baseline."""
    names = [name for outcome in LOWER_IS_BETTER for name in (outcome, f"{outcome}_gap")]
    return [name for name in names if name in data]


def curves(values: xr.DataArray) -> pd.DataFrame:
    """Average over seeds, with the 95 % interval of that mean, as curves of figures show it.

    Tasks that were not measured are left out. So are seeds with a gap where others have none (a
    diverged run).

    Args:
        values: dims ``(arm, seed, task)``.

    Returns:
        One row per arm and task with `CURVE_COLUMNS`; low and high are NaN for one seed.
    """
    tables = []
    for arm in values.arm.values:
        measured = values.sel(arm=arm).dropna("task", how="all")
        complete = measured.dropna("seed", how="any").transpose("task", "seed")
        if complete.size:
            tables.append(_with_interval(str(arm), "task", complete.task.values, complete.values))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=CURVE_COLUMNS)


def mean_spectra(spectra: pd.DataFrame) -> pd.DataFrame:
    """Average eigenvalues over seeds, with the 95 % interval of that mean.

    Args:
        spectra: one row per arm, seed and index.

    Returns:
        One row per arm and each index at which all its seeds have an eigenvalue.
    """
    tables = []
    for arm, of_arm in spectra.groupby("arm", sort=False):
        by_seed = of_arm.pivot_table(index="index", columns="seed", values="eigenvalue").dropna()
        tables.append(_with_interval(str(arm), "index", by_seed.index.values, by_seed.values))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=MEAN_COLUMNS)


def _with_interval(arm: str, along: str, x: np.ndarray, values: np.ndarray) -> pd.DataFrame:
    """Average values of shape ``(along, seed)`` over seeds."""
    low, high = t_interval(values)
    return pd.DataFrame(
        {
            "arm": arm,
            along: x,
            "mean": values.mean(axis=1),
            "low": low,
            "high": high,
            "seeds": values.shape[1],
        }
    )


def remarks(values: xr.DataArray, titles: Sequence[str]) -> list[str]:
    """Say which arms have no curve, a curve without some seeds, or no interval.

    Args:
        values: dims ``(arm, seed, task)``.
        titles: of the arms, in the same order.
    """
    sentences = []
    count = values.sizes["seed"]
    table = curves(values)
    for arm, title in zip(values.arm.values, titles, strict=True):
        of_arm = table[table["arm"] == arm]
        if values.sel(arm=arm).isnull().all():
            sentences.append(f"{title}: not measured, or every run diverged")
        elif of_arm.empty:
            sentences.append(f"{title}: no run was measured at all tasks (diverged runs)")
        elif of_arm["seeds"].iloc[0] < count:
            left = of_arm["seeds"].iloc[0]
            sentences.append(f"{title}: {left} of {count} seeds, the others diverged or have gaps")
    if count == 1:
        sentences.append("one seed, so no intervals")
    return sentences
