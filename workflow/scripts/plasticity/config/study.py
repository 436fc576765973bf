"""A study: its config checked once, at the launcher, before anything runs, and laid out as ensembles. Imports no torch."""

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from plasticity.config import errors_of_config, registry
from plasticity.config.models import (
    BASELINE,
    Criterion,
    Curvature,
    Dataset,
    Network,
    Setting,
    Statistics,
    Training,
    arm_name,
    parts,
)
from plasticity.errors import StudyError

BLOCK = r"\d+(-\d+)?"  # the name of a block of seeds
FIRST_TUNING_SEED = (
    1000  # reporting seeds stay below, so that neither kind moves when the other grows
)


@dataclass(frozen=True)
class Ensemble:
    """The runs that one job trains as one ensemble: one setting, one method with its arms, one block of seeds."""

    setting: str
    method: str
    seeds: str

    @property
    def folder(self) -> str:
        """Where its results lie, below ``runs/``."""
        return f"{self.setting}/{self.method}/{self.seeds}"


@dataclass(frozen=True)
class Study:
    """One config: settings × arms × seeds, and what to measure.

    Attributes:
        finished: blocks of seeds that were trained, by folder of the results, as `finished` finds them: they stay as they are.
    """

    name: str
    seeds: int
    seeds_per_job: int
    datasets: dict[str, Dataset]
    settings: dict[str, Setting]
    methods: dict[str, dict[str, Any]]
    training: Training
    curvature: Curvature
    tuning_seeds: int = 0
    criterion: Criterion = Criterion()  # noqa: RUF009 - it is frozen
    statistics: Statistics = Statistics()  # noqa: RUF009 - it is frozen
    figures: Mapping[str, Sequence[str]] = field(default_factory=dict)
    finished: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def methods_of(self, setting: str) -> list[str]:
        """Methods trained in a setting, the baseline last; in an order of our own, so that a turned config reruns nothing."""
        chosen = [
            name
            for name, options in self.methods.items()
            if setting in options.get("settings", self.settings)
        ]
        return sorted(
            {*chosen, BASELINE}, key=lambda name: (name == BASELINE, name != "none", name)
        )

    def setting(self, name: str, method: str = "none") -> Setting:
        """A setting as a method sees it, with what the method changes of the network."""
        setting = self.settings[name]
        changed = {
            key: value for part in parts(method) for key, value in registry.network_of(part).items()
        }
        return (
            replace(setting, network=Network.of(asdict(setting.network) | changed))
            if changed
            else setting
        )

    def arms(self, method: str) -> list[dict[str, Any]]:
        """Each combination of a method's hyper-parameters, by name, the values of each ascending, so that a turned list reruns nothing."""
        grid = {
            key: value
            for key, value in sorted(self.methods.get(method, {}).items())
            if key != "settings"
        }
        values = [
            sorted(value, key=lambda one: (isinstance(one, str), one))
            if isinstance(value, list)
            else [value]
            for value in grid.values()
        ]
        return [
            dict(zip(grid, combination, strict=True)) for combination in itertools.product(*values)
        ]

    def tuned(self, method: str) -> bool:
        """Whether the tuning seeds choose one of its arms, which the reporting seeds then train as the bare method."""
        return bool(self.tuning_seeds) and len(self.arms(method)) > 1

    def reported(self, method: str) -> list[str]:
        """Names of the arms that reporting seeds train."""
        return (
            [method] if self.tuned(method) else [arm_name(method, arm) for arm in self.arms(method)]
        )

    def blocks(self, setting: str, method: str) -> list[str]:
        """The reporting seeds, packed into jobs: ``["0-4", "5-9"]``, or ``["0", "1"]`` with one seed per job; finished blocks stay."""
        return packed(
            range(self.seeds), self.seeds_per_job, self.finished.get(f"runs/{setting}/{method}", ())
        )

    def tuning_blocks(self, setting: str, method: str) -> list[str]:
        """The tuning seeds, packed as the reporting seeds are."""
        seeds = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + self.tuning_seeds)
        return packed(
            seeds, self.seeds_per_job, self.finished.get(f"tuning/{setting}/{method}", ())
        )

    def ensembles(self, setting: str | None = None) -> list[Ensemble]:
        """All ensembles of the study, or of one of its settings."""
        return [
            Ensemble(name, method, block)
            for name in ([setting] if setting else self.settings)
            for method in self.methods_of(name)
            for block in self.blocks(name, method)
        ]

    def tunings(self) -> list[tuple[str, str]]:
        """Each setting and method that is tuned there."""
        return [
            (setting, method)
            for setting in self.settings
            for method in self.methods_of(setting)
            if self.tuned(method)
        ]

    def training_job(self, setting: str, method: str, seeds: str) -> str:
        """What a training job must know, as sorted JSON: the same text whatever the order of the config's keys.

        A tuned method's arm is not in it: the choice is a file.
        """
        runs = {"method": method, "seeds": block_seeds(seeds)} | (
            {} if self.tuned(method) else {"arms": self.arms(method)}
        )
        return as_json(
            {
                "setting": asdict(self.setting(setting, method)),
                "training": asdict(self.training),
                **runs,
            }
        )

    def tuning_job(self, setting: str, method: str, seeds: str) -> str:
        """What a job that trains all arms of a method on tuning seeds must know, as sorted JSON; it takes no checkpoints."""
        runs = {"method": method, "arms": self.arms(method), "seeds": block_seeds(seeds)}
        training = {
            key: value for key, value in asdict(self.training).items() if key != "checkpoint_every"
        }
        return as_json(
            {"setting": asdict(self.setting(setting, method)), "training": training, **runs}
        )

    def preparing(self, dataset: str) -> str:
        """What preparing a dataset must know, as sorted JSON."""
        return as_json({"name": dataset, "dataset": asdict(self.datasets[dataset])})

    def costing(self) -> str:
        """What the cost of a study depends on, as sorted JSON: for each setting and method its network, arms and blocks of seeds.

        Of a tuned method, the first arm stands for the one that will be chosen.
        """
        ensembles = [
            (
                name,
                method,
                self.arms(method)[: len(self.reported(method))],
                self.blocks(name, method),
                False,
            )
            for name in self.settings
            for method in self.methods_of(name)
        ]
        ensembles += [
            (name, method, self.arms(method), self.tuning_blocks(name, method), True)
            for name, method in self.tunings()
        ]
        runs = [
            {
                "name": name,
                "setting": asdict(self.setting(name, method)),
                "method": method,
                "arms": arms,
                "blocks": [block_seeds(block) for block in blocks],
                "tuning": tuning,
            }
            for name, method, arms, blocks, tuning in ensembles
        ]
        return as_json(
            {"runs": runs, "training": asdict(self.training), "curvature": asdict(self.curvature)}
        )

    def gathering(self, setting: str) -> str:
        """What a setting's dataset must say of itself, as sorted JSON: its problem, network and optimizer, its arms in order, its seeds."""
        arms = [arm for method in self.methods_of(setting) for arm in self.reported(method)]
        values = {
            "setting": asdict(self.settings[setting]),
            "arms": arms,
            "seeds": self.seeds,
            "curvature": asdict(self.curvature),
        }
        return as_json(values)

    def analysing(self) -> str:
        """What the tables must know, as sorted JSON."""
        return as_json(asdict(self.statistics))

    def drawn(self, figure: str) -> list[str]:
        """The settings that a figure shows."""
        return list(self.figures.get(figure, self.settings))

    def misdeclared(self) -> Iterator[str]:
        """Sentences for figures, and hypotheses about settings and arms, that the study does not have."""
        for figure, settings in self.figures.items():
            if figure not in registry.names("figures"):
                yield f"figures names {figure!r}, which is unknown: write one of {', '.join(registry.names('figures'))}"
            for setting in (name for name in settings if name not in self.settings):
                yield f"figures.{figure} names {setting!r}, which is unknown: write one of {', '.join(self.settings)}"
        names = [one.name for one in self.statistics.hypotheses]
        for place, one in enumerate(self.statistics.hypotheses):
            where = f"statistics.hypotheses.{place}"
            if names.index(one.name) < place:
                yield f"{where}.name is {one.name!r}, as another's is: change one"
            for setting in (name for name in one.settings if name not in self.settings):
                yield f"{where}.settings names {setting!r}, which is unknown: write one of {', '.join(self.settings)}"
            for key, arm in (("arm", one.arm), ("versus", one.versus)):
                for setting in (
                    name
                    for name in one.settings or self.settings
                    if name in self.settings and arm is not None
                ):
                    known = [
                        known
                        for method in self.methods_of(setting)
                        for known in self.reported(method)
                    ]
                    if arm not in known:
                        others = ", ".join(known)
                        yield f"{where}.{key} is {arm!r}, which {setting} does not have: write one of {others}, or limit its settings"
                        break


def as_json(value: object) -> str:
    """Sorted JSON, the form in which a config reaches a rule's params."""
    return json.dumps(value, sort_keys=True)


def block_seeds(block: str) -> list[int]:
    """The seeds of a block: ``"3-5"`` → ``[3, 4, 5]``."""
    first, _, last = block.partition("-")
    return list(range(int(first), int(last or first) + 1))


def read(config: Mapping[str, Any], schema: Path, where: str = "config.yaml") -> Study:
    """Check a config and type it.

    Args:
        config: as YAML gives it.
        schema: the JSON schema of a study, in YAML.
        where: the file to name in messages.

    Raises:
        StudyError: naming the key, its value and what to do, one line per mistake.
    """
    if found := errors_of_config.of(config, schema):
        raise StudyError("\n".join(f"{where}: {mistake}" for mistake in found))
    used = sorted({setting["problem"]["dataset"] for setting in config["settings"].values()})
    study = Study(
        name=config["study"],
        seeds=config["seeds"]["report"],
        seeds_per_job=config["seeds_per_job"],
        datasets={
            name: Dataset.of({"kind": name} | config.get("datasets", {}).get(name, {}))
            for name in used
        },
        settings={name: Setting.of(values) for name, values in sorted(config["settings"].items())},
        methods={
            "+".join(parts(name)): dict(options) for name, options in config["methods"].items()
        },
        training=Training(**config.get("training", {})),
        curvature=Curvature.of(config["curvature"]),
        tuning_seeds=config["seeds"].get("tune", 0),
        criterion=Criterion(**config.get("tuning", {})),
        statistics=Statistics.of(config.get("statistics", {})),
        figures=config.get("figures", {}),
    )
    if found := list(study.misdeclared()):
        raise StudyError("\n".join(f"{where}: {mistake}" for mistake in found))
    return study


def finished(results: Path) -> dict[str, list[str]]:
    """Blocks of seeds that were trained, by folder: ``{"runs/digits_labels_relu/l2": ["0-4"]}``."""
    found: dict[str, list[str]] = {}
    for stage in ("runs", "tuning"):
        for path in sorted((results / stage).glob("*/*/*/outcomes.nc")):
            if re.fullmatch(BLOCK, path.parent.name) and block_seeds(path.parent.name):
                found.setdefault(str(path.parents[1].relative_to(results)), []).append(
                    path.parent.name
                )
    return found


def packed(seeds: range, per_job: int, done: Sequence[str] = ()) -> list[str]:
    """Names of the blocks that seeds are packed into: ``["0-4", "5-6"]``.

    Blocks that are done stay as they are, whatever the config says now, and only the seeds between them are packed: so more seeds cost
    only the new ones. Of blocks that share seeds, one that the config would make is preferred, else the first.
    """
    anew = _named(seeds[first : first + per_job] for first in range(0, len(seeds), per_job))
    taken: dict[int, str] = {}
    for block in sorted(
        {*done}, key=lambda block: (block not in anew, block_seeds(block)[0], block)
    ):
        runs = block_seeds(block)
        if set(runs) <= set(seeds) and not set(runs) & set(taken):
            taken |= dict.fromkeys(runs, block)
    gaps = [
        list(gap)
        for there, gap in itertools.groupby(seeds, key=lambda seed: seed in taken)
        if not there
    ]
    rest = _named(
        range(gap[0], gap[-1] + 1)[first : first + per_job]
        for gap in gaps
        for first in range(0, len(gap), per_job)
    )
    return sorted({*taken.values(), *rest}, key=lambda block: block_seeds(block)[0])


def _named(blocks: Iterable[range]) -> list[str]:
    return [f"{block[0]}" if len(block) == 1 else f"{block[0]}-{block[-1]}" for block in blocks]
