"""A setting as arrays: what might explain, and what is to be explained."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import xarray as xr

from plasticity.statistics.summaries import series, with_gaps

OUTCOMES = ("final_error", "online_error", "final_error_gap", "test_error")  # what plasticity is
FEWEST_TASKS = 6  # a correlation over fewer says nothing


@dataclass(frozen=True)
class Key:
    """Which variant of a measure: on which data, of which block; no evaluation point where data play no part."""

    measure: str
    evaluation_point: str
    block: str


@dataclass(frozen=True)
class Batch:
    """Measures of an arm that were taken at the same tasks, of the seeds that have all of them.

    Attributes:
        keys: of the measures.
        x: the measures, shape ``(measure, seed, task)``.
        y: the outcomes, shape ``(outcome, seed, task)``.
        seeds: places of the seeds among those of the setting.
        tasks: the measured ones.
        runs: how many seeds there are, those with gaps or diverged included.
    """

    keys: Sequence[Key]
    x: np.ndarray
    y: np.ndarray
    seeds: np.ndarray
    tasks: np.ndarray
    runs: int

    @property
    def note(self) -> str:
        """What a reader must know of the seeds."""
        return (
            f"{self.runs - len(self.seeds)} diverged or with gaps"
            if len(self.seeds) < self.runs
            else ""
        )


@dataclass(frozen=True)
class Panel:
    """A setting.

    Attributes:
        setting: its name.
        arms: names.
        keys: of the measures.
        measures: at the tasks' starts, shape ``(measure, arm, seed, task)``, float64; NaN where not measured.
        outcomes: names.
        values: of the outcomes, shape ``(outcome, arm, seed, task)``.
    """

    setting: str
    arms: list[str]
    keys: list[Key]
    measures: np.ndarray
    outcomes: list[str]
    values: np.ndarray

    @classmethod
    def of(cls, setting: str, data: xr.Dataset) -> Self:
        """From the dataset of a setting. The curvature of a network drawn anew explains nothing of the one that learns: it is left out."""
        data = with_gaps(data)
        found = [
            (Key(**key), values)
            for key, values in series(data)
            if key["evaluation_point"] != "fresh"
        ]
        outcomes = [name for name in OUTCOMES if name in data]
        return cls(
            setting,
            [str(arm) for arm in data.arm.values],
            [key for key, _ in found],
            np.stack([values.values for _, values in found]).astype(np.float64),
            outcomes,
            np.stack(
                [data[name].transpose("arm", "seed", "task").values for name in outcomes]
            ).astype(np.float64),
        )

    def explanations(self) -> Self:
        """Each measure once: on the coming task's data where there is a choice, of the whole network, or of the last layer that has it."""
        best: dict[str, tuple[bool, bool, int]] = {}
        for place, key in enumerate(self.keys):
            best[key.measure] = max(
                best.get(key.measure, (False, False, 0)),
                (key.evaluation_point == "next", key.block == "all", place),
            )
        places = sorted(place for *_, place in best.values())
        return replace(
            self, keys=[self.keys[place] for place in places], measures=self.measures[places]
        )

    def batches(self, arm: int) -> Iterator[Batch]:
        """The measures that an arm has, put together where they have the same tasks and seeds."""
        alive = np.isfinite(self.values[:, arm]).all(axis=(0, 2))
        groups: dict[tuple[bytes, bytes], list[int]] = {}
        for place, values in enumerate(np.isfinite(self.measures[:, arm])):
            tasks = values.any(axis=0)
            if tasks.any():
                seeds = alive & values[:, tasks].all(axis=1)
                groups.setdefault((tasks.tobytes(), seeds.tobytes()), []).append(place)
        for (tasks_held, seeds_held), places in groups.items():
            tasks, seeds = (
                np.flatnonzero(np.frombuffer(held, bool)) for held in (tasks_held, seeds_held)
            )
            yield Batch(
                [self.keys[place] for place in places],
                self.measures[places, arm][:, seeds][:, :, tasks],
                self.values[:, arm][:, seeds][:, :, tasks],
                seeds,
                tasks,
                self.measures.shape[2],
            )
