"""Keep track of the datasets of a study that may still be running.

A dataset appears when its setting is finished. Snakemake removes it before it computes it again,
and then the former numbers stay until the new ones are there.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import xarray as xr

from plasticity.config.study import Study
from plasticity.config.titles import setting_titles
from plasticity.errors import StudyError
from plasticity.report import explorer_data, panels
from plasticity.report.explorer_data import SettingData
from plasticity.statistics.estimate import Estimate
from plasticity.storage import netcdf

Stamp = tuple[int, int, int]  # inode, time of change and size of a file


class StudyFiles:
    """The datasets of a study, by setting.

    Attributes:
        results: folder of the study's results.
        datasets: of the settings that are finished and can be read, in the order of the config.
        losses: change of the final error's gap to the baseline, for the same settings.
        unfinished: settings without a dataset.
        problems: a sentence for each dataset that cannot be read.
        recomputed: settings whose dataset was removed after it was read.
        version: grows with each change of the files.
    """

    def __init__(self, results: Path, study: Study | None = None) -> None:
        """Read what is there.

        Args:
            results: folder of the study's results.
            study: names its settings; without it, the folders in ``runs/`` do.
        """
        self.results = results
        self.datasets: dict[str, xr.Dataset] = {}
        self.losses: dict[str, Estimate] = {}
        self.unfinished: list[str] = []
        self.problems: dict[str, str] = {}
        self.recomputed: set[str] = set()
        self.version = 0
        self._study = study
        self._stamps: dict[str, Stamp] = {}
        self._loaded: dict[str, SettingData] = {}
        self.refresh()

    def refresh(self) -> None:
        """Take in datasets that are new or replaced."""
        paths = {path.stem: path for path in sorted(self.results.glob("datasets/*.nc"))}
        state_before = (self.unfinished, set(self.recomputed))
        names = self._names(paths)
        for name in names:
            stamp = _stamp(paths[name]) if name in paths else None
            if stamp and stamp != self._stamps.get(name):
                self._stamps[name] = stamp
                self._read(name, paths[name])
                self.version += 1
        self.recomputed = {name for name in self.datasets if name not in paths}
        self.problems = {name: text for name, text in self.problems.items() if name in paths}
        self._stamps = {name: stamp for name, stamp in self._stamps.items() if name in paths}
        self.unfinished = [
            name for name in names if name not in self.datasets and name not in self.problems
        ]
        self.datasets = {name: self.datasets[name] for name in names if name in self.datasets}
        if state_before != (self.unfinished, self.recomputed):
            self.version += 1

    def load(self, name: str) -> SettingData:
        """Load the numbers of a setting.

        Raises:
            StudyError: its file can no longer be read.
        """
        if name not in self._loaded:
            self._loaded[name] = SettingData(self.datasets[name])
        return self._loaded[name]

    def most_lost(self) -> str | None:
        """Name the setting with the largest loss of plasticity.

        Returns:
            The first setting if no loss is known, and None without settings.
        """
        known = {name: loss.value for name, loss in self.losses.items() if loss.value == loss.value}
        if known:
            return max(known, key=lambda name: known[name])
        return next(iter(self.datasets), None)

    def titles(self) -> dict[str, str]:
        """Return a title for each setting, also for those that are not finished."""
        known: dict[str, str] = {}
        if self._study:
            settings = {name: asdict(setting) for name, setting in self._study.settings.items()}
            known = setting_titles(settings, self._study.titles)
        known |= panels.setting_titles(self.datasets)
        names = [*self.datasets, *self.problems, *self.unfinished]
        return {name: known.get(name, name.replace("_", " ")) for name in names}

    def _names(self, paths: Mapping[str, Path]) -> list[str]:
        """List all settings: those of the config, then others that have files."""
        runs = sorted(path.name for path in self.results.glob("runs/*") if path.is_dir())
        declared = self._study.settings if self._study else {}
        return list(dict.fromkeys([*declared, *runs, *paths, *self.datasets]))

    def _read(self, name: str, path: Path) -> None:
        """Read a new file. If it cannot be read, former numbers of the setting stay."""
        former = self.datasets.get(name)
        if former is not None:
            # else the netCDF library could mix a file that was overwritten with its former content
            former.close()
        try:
            data = netcdf.open_dataset(path)
            explorer_data.check_dataset(path, data)
            loss = explorer_data.loss_of_plasticity(data)
        except StudyError as error:
            self.problems[name] = str(error)
            return
        self.problems.pop(name, None)
        self._loaded.pop(name, None)
        self.datasets[name] = data
        self.losses[name] = loss


def _stamp(path: Path) -> Stamp | None:
    """Identify the content of a file; None if it was just removed."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
