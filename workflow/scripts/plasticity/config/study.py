"""A study: its config, checked before anything runs, and the jobs that follow from it."""

import functools
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from plasticity.config import registry, validation
from plasticity.config.models import (
    BASELINE,
    FAMILIES,
    UNTREATED,
    Curvature,
    Dataset,
    Hypothesis,
    Interventions,
    Network,
    Setting,
    Spectra,
    Statistics,
    Training,
    Tuning,
    arm_name,
    is_baseline,
    parts,
)
from plasticity.config.schema import FIRST_TUNING_SEED
from plasticity.errors import StudyError

BLOCK = r"\d+(-\d+)?"  # the name of a block of seeds


@dataclass(frozen=True)
class Ensemble:
    """The runs that one job trains together: a setting, the arms of a method, a block of seeds."""

    setting: str
    method: str
    seeds: str

    @property
    def folder(self) -> str:
        """The folder of its results below ``runs/``."""
        return f"{self.setting}/{self.method}/{self.seeds}"


@dataclass(frozen=True)
class Study:
    """Settings × arms × seeds, and what to measure.

    Texts that reach jobs are sorted JSON, so the order of keys in a config reruns nothing.

    Attributes:
        titles: names of settings for readers, of those that the config gives one.
        finished: blocks of seeds that are trained already, by folder below the results, as
            `finished_blocks` returns them. They are not packed again.
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
    tuning: Tuning = Tuning()  # noqa: RUF009 - it is frozen
    interventions: Interventions | None = None
    statistics: Statistics = Statistics()  # noqa: RUF009 - it is frozen
    figures: Mapping[str, Sequence[str]] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)
    finished: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def methods_of(self, setting: str) -> list[str]:
        """List the methods that a setting trains: none first, then by name, baselines last.

        Each architecture has its own baseline.
        """
        return list(self._methods_by_setting[setting])

    @functools.cached_property  # each job asks for it, and `baseline_of_method` reads a file
    def _methods_by_setting(self) -> dict[str, list[str]]:
        methods: dict[str, set[str]] = {setting: {BASELINE} for setting in self.settings}
        for name, options in self.methods.items():
            both = {name, baseline_of_method(name)}
            for setting in self.settings:
                if setting in options.get("settings", self.settings):
                    methods[setting] |= both

        def order(name: str) -> tuple[bool, bool, str]:
            return (is_baseline(name), name != "none", name)

        return {setting: sorted(names, key=order) for setting, names in methods.items()}

    def trained_methods(self) -> list[str]:
        """List the methods of all settings."""
        methods = itertools.chain.from_iterable(map(self.methods_of, self.settings))
        return list(dict.fromkeys(methods))

    def setting(self, name: str, method: str = "none") -> Setting:
        """Return a setting with the changes that a method makes to the network."""
        setting = self.settings[name]
        changes: dict[str, Any] = {}
        for part in parts(method):
            changes |= registry.network_of(part)
        if not changes:
            return setting
        return replace(setting, network=Network.of(asdict(setting.network) | changes))

    def arms(self, method: str) -> list[dict[str, Any]]:
        """List the arms of a method: each combination of its hyperparameters.

        Names and values are sorted, so the order in a config reruns nothing.
        """
        options = dict(sorted(self.methods.get(method, {}).items()))
        options.pop("settings", None)
        values = [_sorted_values(value) for value in options.values()]
        combinations = itertools.product(*values)
        return [dict(zip(options, combination, strict=True)) for combination in combinations]

    def is_tuned(self, method: str) -> bool:
        """Return whether the tuning seeds select one of the method's arms.

        The reporting seeds then train the selected arm under the name of the method.
        """
        return bool(self.tuning_seeds) and len(self.arms(method)) > 1

    def reported_arms(self, method: str) -> list[str]:
        """Name the arms that the reporting seeds train."""
        if self.is_tuned(method):
            return [method]
        return [arm_name(method, arm) for arm in self.arms(method)]

    def blocks(self, setting: str, method: str) -> list[str]:
        """Pack the reporting seeds into jobs: ``["0-4", "5-9"]``. Finished blocks stay."""
        finished = self.finished.get(f"runs/{setting}/{method}", ())
        return pack_seeds(range(self.seeds), self.seeds_per_job, finished)

    def tuning_blocks(self, setting: str, method: str) -> list[str]:
        """Pack the tuning seeds into jobs. Finished blocks stay."""
        seeds = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + self.tuning_seeds)
        finished = self.finished.get(f"tuning/{setting}/{method}", ())
        return pack_seeds(seeds, self.seeds_per_job, finished)

    def ensembles(self, setting: str | None = None) -> list[Ensemble]:
        """List the ensembles of the study, or of one of its settings."""
        return [
            Ensemble(name, method, block)
            for name in ([setting] if setting else self.settings)
            for method in self.methods_of(name)
            for block in self.blocks(name, method)
        ]

    def treated_methods(self, setting: str) -> list[str]:
        """List the methods of a setting whose checkpoints are treated.

        There are none if no treatment of the config is for this setting.
        """
        if self.interventions is None or not self.interventions.treatments_in(setting):
            return []
        return [name for name in self.methods_of(setting) if name in self.interventions.arms]

    def treated_ensembles(self, setting: str | None = None) -> list[Ensemble]:
        """List the ensembles of the study, or of a setting, whose checkpoints are treated."""
        return [
            Ensemble(name, method, block)
            for name in ([setting] if setting else self.settings)
            for method in self.treated_methods(name)
            for block in self.blocks(name, method)
        ]

    def treated_tasks(self, setting: str) -> list[int]:
        """List the tasks of a setting at whose start checkpoints are treated."""
        if self.interventions is None:
            return []
        count = self.settings[setting].problem.tasks
        return [task for task in self.interventions.tasks if task < count]

    def treatments_of(self, setting: str) -> list[dict[str, Any]]:
        """List the copies of each treated checkpoint of a setting.

        Returns:
            For each copy its name, the treatment, its strength (None if it takes none) and the
            family of the treatment. The untreated copy is first. The others are sorted by family,
            treatment and strength, so the order in a config reruns nothing.
        """
        if self.interventions is None:
            return []
        copies = []
        for treatment, strength in [(UNTREATED, None), *self.interventions.treatments_in(setting)]:
            copies.append(
                {
                    "name": arm_name(treatment, {} if strength is None else {"strength": strength}),
                    "treatment": treatment,
                    "strength": strength,
                    "family": registry.constant("treatments", treatment, "FAMILY"),
                }
            )
        # the sort is stable: none, a control, stays first, and families stay sorted by name
        return sorted(copies, key=lambda copy: FAMILIES.index(copy["family"]))

    def curvature_of_copies(self) -> Curvature:
        """Return what is measured on the copies: at the evaluation point next of every checkpoint.

        Keys that the section `interventions` does not give an operator are those of the study.
        """
        own_keys = self.interventions.operators if self.interventions else None
        operators: dict[str, Spectra] = {}
        for name, spectra in self.curvature.operators.items():
            if own_keys is None or name in own_keys:
                keys = {**asdict(spectra), **(own_keys or {}).get(name, {})}
                keys |= {"evaluation_points": ["next"], "every": 1, "tasks": None}
                operators[name] = Spectra.of(keys)
        return replace(self.curvature, operators=operators, evaluation_points=("next",), every=1)

    def tuned_methods(self) -> list[tuple[str, str]]:
        """List the pairs of setting and method that tuning seeds are trained for."""
        return [
            (setting, method)
            for setting in self.settings
            for method in self.methods_of(setting)
            if self.is_tuned(method)
        ]

    def training_job(self, setting: str, method: str, seeds: str) -> str:
        """Describe a training job as JSON.

        The arm of a tuned method is not part of it: the job reads the selected arm from a file.
        """
        values: dict[str, Any] = {
            "setting": asdict(self.setting(setting, method)),
            "training": asdict(self.training),
            "method": method,
            "seeds": block_seeds(seeds),
        }
        if not self.is_tuned(method):
            values["arms"] = self.arms(method)
        if method in self.treated_methods(setting):
            values["state_tasks"] = self.treated_tasks(setting)
        return as_json(values)

    def intervention_job(self, setting: str) -> str:
        """Describe a job that treats the checkpoints of an ensemble of a setting as JSON.

        The checkpoints themselves name their setting, method and seeds.
        """
        return as_json(
            {
                "treatments": self.treatments_of(setting),
                "tasks": self.treated_tasks(setting),
                "curvature": asdict(self.curvature_of_copies()),
            }
        )

    def tuning_job(self, setting: str, method: str, seeds: str) -> str:
        """Describe a job that trains all arms of a method on tuning seeds as JSON.

        It takes no checkpoints.
        """
        training = asdict(self.training)
        del training["checkpoint_every"]
        return as_json(
            {
                "setting": asdict(self.setting(setting, method)),
                "training": training,
                "method": method,
                "arms": self.arms(method),
                "seeds": block_seeds(seeds),
            }
        )

    def lengthening_job(self, setting: str, method: str) -> str:
        """Describe the job that adds arms beyond an end of a method's grid as JSON."""
        values: dict[str, Any] = json.loads(self.tuning_job(setting, method, "0"))
        del values["seeds"]
        return as_json(values | {"tuning": asdict(self.tuning)})

    def prepare_job(self, dataset: str) -> str:
        """Describe the job that prepares a dataset as JSON."""
        return as_json({"name": dataset, "dataset": asdict(self.datasets[dataset])})

    def cost_job(self) -> str:
        """Describe as JSON what the cost of the study depends on.

        The first arm of a tuned method represents the arm that will be selected.
        """
        runs = []
        for setting in self.settings:
            for method in self.methods_of(setting):
                arms = self.arms(method)[: len(self.reported_arms(method))]
                runs.append(self._runs(setting, method, arms, tuning=False))
        for setting, method in self.tuned_methods():
            runs.append(self._runs(setting, method, self.arms(method), tuning=True))
        values = {
            "runs": runs,
            "training": asdict(self.training),
            "curvature": asdict(self.curvature),
        }
        if self.treated_ensembles():
            values["curvature_of_copies"] = asdict(self.curvature_of_copies())
        return as_json(values)

    def _runs(
        self, setting: str, method: str, arms: list[dict[str, Any]], *, tuning: bool
    ) -> dict[str, Any]:
        """Describe the runs of a setting and method on tuning or reporting seeds."""
        blocks = self.tuning_blocks if tuning else self.blocks
        values: dict[str, Any] = {
            "name": setting,
            "setting": asdict(self.setting(setting, method)),
            "method": method,
            "arms": arms,
            "blocks": [block_seeds(block) for block in blocks(setting, method)],
            "tuning": tuning,
        }
        if method in self.treated_methods(setting) and not tuning:
            values["experiment"] = {
                "copies": len(self.treatments_of(setting)),
                "tasks": len(self.treated_tasks(setting)),
            }
        return values

    def gather_job(self, setting: str) -> str:
        """Describe the job that merges the ensembles of a setting as JSON. Arms are in order."""
        arms = [arm for method in self.methods_of(setting) for arm in self.reported_arms(method)]
        values: dict[str, Any] = {
            "setting": asdict(self.settings[setting]),
            "arms": arms,
            "seeds": self.seeds,
            "curvature": asdict(self.curvature),
            "primary": self.statistics.primary,
        }
        if setting in self.titles:
            values["title"] = self.titles[setting]
        if self.treated_methods(setting):
            values["treatments"] = self.treatments_of(setting)
            values["treated_tasks"] = self.treated_tasks(setting)
        return as_json(values)

    def analyse_job(self) -> str:
        """Describe the job that computes the tables as JSON."""
        return as_json(asdict(self.statistics))

    def drawn(self, figure: str) -> list[str]:
        """List the settings that a figure shows."""
        return list(self.figures.get(figure, self.settings))

    def mistakes(self) -> Iterator[str]:
        """Find unknown names in figures and hypotheses. Yield one sentence per mistake."""
        yield from self._mistakes_in_figures()
        names = [hypothesis.name for hypothesis in self.statistics.hypotheses]
        for index, hypothesis in enumerate(self.statistics.hypotheses):
            key = f"statistics.hypotheses.{index}"
            if names.index(hypothesis.name) < index:
                yield (
                    f"{key}.name is {hypothesis.name!r}, but another hypothesis has this name. "
                    "Rename one."
                )
            yield from self._unknown_settings(f"{key}.settings", hypothesis.settings)
            yield from self._unknown_arms(key, hypothesis)

    def _mistakes_in_figures(self) -> Iterator[str]:
        known = registry.names("figures")
        for figure, settings in self.figures.items():
            if figure not in known:
                yield (
                    f"figures names {figure!r}, which is unknown. Write one of {', '.join(known)}."
                )
            yield from self._unknown_settings(f"figures.{figure}", settings)

    def _unknown_settings(self, key: str, settings: Sequence[str]) -> Iterator[str]:
        for setting in settings:
            if setting not in self.settings:
                known = ", ".join(self.settings)
                yield f"{key} names {setting!r}, which is unknown. Write one of {known}."

    def _unknown_arms(self, key: str, hypothesis: Hypothesis) -> Iterator[str]:
        """Check that every setting of a hypothesis has its arms. Name the first that has not."""
        settings = [name for name in hypothesis.settings or self.settings if name in self.settings]
        for role, arm in (("arm", hypothesis.arm), ("versus", hypothesis.versus)):
            for setting in settings:
                known: list[str] = []
                for method in self.methods_of(setting):
                    known += self.reported_arms(method)
                if arm is not None and arm not in known:
                    yield (
                        f"{key}.{role} is {arm!r}, which {setting} does not have. "
                        f"Write one of {', '.join(known)}, or limit the hypothesis by settings."
                    )
                    break


def baseline_of_method(method: str) -> str:
    """Name the baseline of a method: ``layer_norm+l2`` → ``fresh+layer_norm``.

    Parts are sorted, so that methods with the same network share a baseline.
    """
    if is_baseline(method):
        return method
    return "+".join([BASELINE, *sorted(filter(registry.network_of, parts(method)))])


def _sorted_values(value: Any) -> list[Any]:
    """Sort the values of a hyperparameter, numbers before texts. A single value makes a list."""
    if not isinstance(value, list):
        return [value]
    return sorted(value, key=lambda item: (isinstance(item, str), item))


def as_json(value: object) -> str:
    """Write sorted JSON, the form in which a config reaches a rule's params."""
    return json.dumps(value, sort_keys=True)


def block_seeds(block: str) -> list[int]:
    """List the seeds of a block: ``"3-5"`` → ``[3, 4, 5]``."""
    first, _, last = block.partition("-")
    return list(range(int(first), int(last or first) + 1))


def read(config: Mapping[str, Any], where: str = "config.yaml") -> Study:
    """Check a config and build the study.

    Args:
        config: as YAML returns it.
        where: the file to name in messages.

    Raises:
        StudyError: with one line per mistake that names the key, its value and what to do.
    """
    _raise_mistakes(validation.mistakes(config), where)
    settings = {name: Setting.of(values) for name, values in sorted(config["settings"].items())}
    described = config.get("datasets", {})
    datasets = {
        name: Dataset.of({"kind": name} | described.get(name, {}))
        for name in sorted({setting.problem.dataset for setting in settings.values()})
    }
    interventions = config.get("interventions")
    study = Study(
        name=config["study"],
        seeds=config["seeds"]["report"],
        seeds_per_job=config["seeds_per_job"],
        datasets=datasets,
        settings=settings,
        methods={"+".join(parts(name)): dict(values) for name, values in config["methods"].items()},
        training=Training(**config.get("training", {})),
        curvature=Curvature.of(config["curvature"]),
        tuning_seeds=config["seeds"].get("tune", 0),
        tuning=Tuning(**config.get("tuning", {})),
        interventions=None if interventions is None else Interventions.of(interventions),
        statistics=Statistics.of(config.get("statistics", {})),
        figures=config.get("figures", {}),
        titles={
            name: values["title"]
            for name, values in config["settings"].items()
            if "title" in values
        },
    )
    _raise_mistakes(list(study.mistakes()), where)
    return study


def _raise_mistakes(mistakes: Sequence[str], where: str) -> None:
    if mistakes:
        raise StudyError("\n".join(f"{where}: {mistake}" for mistake in mistakes))


def finished_blocks(results: Path) -> dict[str, list[str]]:
    """Find the blocks of seeds that are trained already.

    Returns:
        Blocks by folder below the results, such as ``{"runs/digits_labels_relu/l2": ["0-4"]}``.
    """
    blocks: dict[str, list[str]] = {}
    for stage in ("runs", "tuning"):
        for outcomes in sorted((results / stage).glob("*/*/*/outcomes.nc")):
            block = outcomes.parent.name
            if re.fullmatch(BLOCK, block) and block_seeds(block):
                folder = str(outcomes.parents[1].relative_to(results))
                blocks.setdefault(folder, []).append(block)
    return blocks


def pack_seeds(seeds: range, per_job: int, done: Sequence[str] = ()) -> list[str]:
    """Pack seeds into blocks: ``["0-4", "5-6"]``.

    Finished blocks stay as they are, whatever `per_job` is now. Only the seeds between them are
    packed, so more seeds cost only the new ones. If finished blocks overlap, a block that would be
    packed without them is preferred, else the first.

    Args:
        seeds: consecutive seeds.
        per_job: largest number of seeds in a new block.
        done: names of finished blocks.
    """
    regular = _split(seeds, per_job)
    blocks_to_keep = sorted(
        set(done), key=lambda block: (block not in regular, block_seeds(block)[0], block)
    )
    blocks: list[str] = []
    packed_seeds: set[int] = set()
    for block in blocks_to_keep:
        runs = set(block_seeds(block))
        if runs <= set(seeds) and not runs & packed_seeds:
            blocks.append(block)
            packed_seeds |= runs
    for is_packed, group in itertools.groupby(seeds, key=packed_seeds.__contains__):
        if not is_packed:
            gap = list(group)
            blocks += _split(range(gap[0], gap[-1] + 1), per_job)
    return sorted(blocks, key=lambda block: block_seeds(block)[0])


def _split(seeds: range, per_job: int) -> list[str]:
    """Name the blocks of at most `per_job` consecutive seeds."""
    return [block_name(seeds[first : first + per_job]) for first in range(0, len(seeds), per_job)]


def block_name(seeds: range) -> str:
    """Name a block of consecutive seeds: ``"3-5"``, or ``"3"`` if it has one seed."""
    return f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]}-{seeds[-1]}"
