"""What might explain a loss of plasticity, measured on checkpoints: curvature, features, units, weights.

All runs of an ensemble at once, in float64. A block is a layer by its name, the last two layers, or `all`; a measure that a block does not
have is NaN there (the output layer has no units to be dead, several layers have no single feature matrix).
"""

import functools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, cast

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from plasticity.config import registry
from plasticity.config.models import Curvature, Setting
from plasticity.curvature import spectrum, spectrum_variables
from plasticity.curvature.lanczos import Quadrature
from plasticity.curvature.operator import ALL, LAST_TWO, Operator, blocks_of
from plasticity.data import shift, tasks
from plasticity.log import log
from plasticity.models import architecture, losses
from plasticity.models.ensemble import Parameters, Watch, broadcasts, forward
from plasticity.storage.netcdf import RUN, Variable

DORMANT = 0.025  # Sokar et al. 2023 (ReDo), arXiv 2302.12902
AT_ONCE = 2**25  # pixels of tasks' data, or numbers of matrices, that are in memory at a time
STATUS = {"measured": 0, "diverged": 1, "no_data": 2, "not_asked_for": 3}

_DATA, _BLOCK = (*RUN, "evaluation_point", "block"), (*RUN, "block")
UNITS = {
    "weight_norm": Variable(_BLOCK, "Euclidean norm of the parameters at the task's start"),
    "feature_rank": Variable(
        _DATA, "effective rank (0.99) of the layer's activations on the task's data"
    ),
    "dead_fraction": Variable(_DATA, "share of units that are zero on all of the task's data"),
    "dormant_fraction": Variable(_DATA, "share of units with a ReDo score of at most 0.025"),
    "curvature_status": Variable(
        (*RUN, "evaluation_point"), "whether there was something to measure", "int8", STATUS
    ),
}


def table(curvature: Curvature) -> dict[str, Variable]:
    """What is measured: that of units and weights, and of operators."""
    return UNITS | spectrum_variables.table(curvature)


class Standing(Protocol):
    """Where runs of an ensemble stood at the start of tasks: `checkpoints.Checkpoints`, or what has the same."""

    arms: list[str]
    seeds: list[int]
    tasks: list[int]
    shapes: dict[str, tuple[int, ...]]

    def at(self, task: int) -> Tensor:
        """Parameters in float64, shape ``(run, parameter)``, arms outermost."""


class Keeping(Protocol):
    """Where the measures of a task are kept until all are there: `resume.Resume`."""

    def save(self, place: int, state: Mapping[str, np.ndarray], /) -> None:
        """Keep a state."""

    def load(self, place: int, /) -> dict[str, np.ndarray] | None:
        """The state that was kept, or None."""


def measure(
    checkpoints: Standing,
    setting: Setting,
    curvature: Curvature,
    data: xr.Dataset,
    progress: Callable[[list[int]], Iterable[int]] = iter,
    kept: Keeping | None = None,
    memory: float = float("inf"),
) -> tuple[dict[str, np.ndarray], dict[str, list[object]]]:
    """Measures of an ensemble at the start of every measured task.

    Args:
        checkpoints: of the ensemble.
        setting: that it was trained in.
        curvature: which operators, on how many samples of which evaluation_points' data, at which tasks.
        data: the prepared dataset.
        progress: wraps the loop over tasks.
        kept: where each task's measures are kept, and found again by a job that is started anew.
        memory: bytes that the matrix of an exact spectrum, with what its eigenvalues take, may take.

    Returns:
        Variables by name, dims as the netCDF contract has them, and their coordinates. NaN where there is nothing to
        measure: no old data at task 0, a diverged run, an operator that is not asked for at that task.

    Raises:
        StudyError: a network of which no operator can be taken; an exact spectrum that does not fit, where none may be estimated.
    """
    network = (
        architecture.fitting(setting, data).double().eval()
    )  # batch norm's statistics are constants where curvature is taken
    loss = losses.KINDS[shift.of(setting.problem).LOSS].loss
    blocks = blocks_of(network)
    matrix = max(
        (
            how.samples**2
            for name, how in curvature.operators.items()
            if spectrum_variables.always_exact(name)
        ),
        default=1,
    )
    some = max(1, AT_ONCE // max(matrix, setting.problem.samples * data["image"][0].size))
    checked: set[str] = set()

    @functools.lru_cache(maxsize=2)
    def data_of(task: int, seeds: tuple[int, ...]) -> _Data:
        """A task's samples to train on, of some seeds."""
        inputs, labels = tasks.stacked(setting.problem, data, list(seeds), task)
        return inputs[:, : setting.problem.samples].double(), labels[:, : setting.problem.samples]

    def taken(
        name: str, data: _Data, tensors: dict[str, Tensor] | None, check: bool = False
    ) -> Operator:
        """An operator of runs, or of the network itself, on the first samples of a task."""
        few = slice(0, curvature.operators[name].samples)
        inputs, targets = (values[:, few].clone() if tensors else values[few] for values in data)
        operator: Operator = registry.load("operators", name).Operator(
            network, inputs, targets, loss, tensors, check=check
        )
        return operator

    def spectra_of(
        name: str,
        task: int,
        seeds: Sequence[int],
        here: _Data,
        coming: _Data,
        tensors: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Numbers of an operator, shapes ``(…, block)`` and more: of runs, or of the network itself."""
        how, estimated = (
            curvature.operators[name],
            spectrum_variables.may_be_estimated(name, curvature.operators[name]),
        )
        found = taken(name, here, tensors, check=name not in checked).spectra(
            {
                block: layers
                for block, layers in blocks.items()
                if (block if block in (LAST_TWO, ALL) else "layers") in how.blocks
            },
            exact_up_to=sys.maxsize if spectrum_variables.always_exact(name) else how.exact_up_to,
            estimate=Quadrature(how.steps, how.probes, how.probe_block) if estimated else None,
            starts=lambda block, vectors, d: spectrum_variables.probes(
                seeds[0], task, block, vectors, d
            ),
            gradient=taken(name, coming, tensors).gradient(),
            top=curvature.top,
            memory=memory,
        )
        checked.add(name)
        numbers = spectrum_variables.side_by_side(found, blocks, curvature.levels, estimated)
        return {f"{name}_{number}": values for number, values in numbers.items()}

    def curvature_at(
        evaluation_point: str,
        task: int,
        seeds: Sequence[int],
        here: _Data,
        coming: _Data,
        parameters: Parameters,
    ) -> dict[str, Tensor]:
        """Numbers of all operators that are asked for there, shapes ``(run, block)`` and more.

        An estimate's last bits depend on what is computed beside it, so runs go one by one where there may be one; it takes no longer.
        """
        due = [
            name
            for name, how in curvature.operators.items()
            if task % how.every == 0 and evaluation_point in how.evaluation_points
        ]
        together = [
            name for name in due if broadcasts(network) and spectrum_variables.always_exact(name)
        ]
        found: dict[str, Tensor] = {}
        for name in together:
            found |= spectra_of(name, task, seeds, here, coming, parameters.tensors)
        one_by_one: list[dict[str, Tensor]] = []
        for run, seed in enumerate(seeds if len(together) < len(due) else []):
            network.load_state_dict(
                {name: tensor[run] for name, tensor in parameters.tensors.items()}
            )
            own, next_ = ((inputs[run], targets[run]) for inputs, targets in (here, coming))
            one_by_one.append({})
            for name in (name for name in due if name not in together):
                one_by_one[-1] |= spectra_of(name, task, [seed], own, next_)
        return found | {
            name: torch.stack([one[name] for one in one_by_one])
            for name in (one_by_one[0] if one_by_one else [])
        }

    def on_data_of(
        evaluation_point: str, task: int, seeds: list[int], rows: Tensor
    ) -> dict[str, Tensor]:
        """Measures of some seeds of all arms, by name, shapes ``(arm, seed, block)`` and more; NaN before the first task."""
        here, coming, found = (
            data_of(max(task - (evaluation_point == "previous"), 0), tuple(seeds)),
            data_of(task, tuple(seeds)),
            [],
        )
        for of_arm in rows:
            alive = of_arm.isfinite().all(dim=-1)
            parameters = Parameters(of_arm.where(alive[:, None], 0), checkpoints.shapes)
            values = unit_measures(hidden_activations(network, parameters.tensors, here[0]), blocks)
            values |= curvature_at(evaluation_point, task, seeds, here, coming, parameters)
            there = alive & (evaluation_point != "previous" or task > 0)
            values = {
                name: number.detach().where(there.view(-1, *[1] * (number.ndim - 1)), torch.nan)
                for name, number in values.items()
            }
            status = torch.full_like(
                alive,
                STATUS["measured" if evaluation_point != "previous" or task else "no_data"],
                dtype=torch.int8,
            )
            found.append(values | {"curvature_status": status.where(alive, STATUS["diverged"])})
        return {name: torch.stack([values[name] for values in found]) for name in found[0]}

    def at(task: int) -> dict[str, np.ndarray]:
        """All measures of a task, shapes ``(arm, seed, …)``; only some seeds' data are in memory at a time."""
        rows, found = checkpoints.at(task).unflatten(0, (len(checkpoints.arms), -1)), []
        for seeds, of_seeds in zip(
            torch.tensor(checkpoints.seeds).split(some), rows.split(some, dim=1), strict=True
        ):
            evaluation_points = []
            for evaluation_point in curvature.evaluation_points:
                if evaluation_point == "fresh":  # the same for every arm
                    drawn = [
                        architecture.initial(network, setting.network, seed, task)
                        for seed in seeds.tolist()
                    ]
                    fresh = (
                        torch.stack(
                            [
                                torch.cat([tensor.flatten() for tensor in one.values()])
                                for one in drawn
                            ]
                        )
                        .float()
                        .double()
                    )
                    values = on_data_of(evaluation_point, task, seeds.tolist(), fresh[None])
                    evaluation_points.append(
                        {
                            name: number.expand(len(rows), *number.shape[1:])
                            for name, number in values.items()
                        }
                    )
                else:
                    evaluation_points.append(
                        on_data_of(evaluation_point, task, seeds.tolist(), of_seeds)
                    )
            found.append(
                _stacked(
                    [
                        {name: number.numpy() for name, number in values.items()}
                        for values in evaluation_points
                    ]
                )
            )
        measured = {
            name: np.concatenate([values[name] for values in found], axis=1) for name in found[0]
        }
        norms = weight_norm(Parameters(rows.flatten(0, 1), checkpoints.shapes), blocks)
        return measured | {"weight_norm": norms.unflatten(0, rows.shape[:2]).numpy()}

    chosen, known = [task for task in checkpoints.tasks if task % curvature.every == 0], 0
    found: list[dict[str, np.ndarray]] = []
    for task in progress(chosen):
        values = None if kept is None else kept.load(task)
        if values is not None:
            known += 1
        else:
            if 0 < known == len(found):
                log.info("going on after task %d of %d", known, len(chosen))
            values = at(task)
            if diverged := int(
                (values["curvature_status"] == STATUS["diverged"]).any(axis=2).sum()
            ):
                log.warning(
                    "task %d: %d runs have parameters that are not finite, and are not measured",
                    task,
                    diverged,
                )
            if kept is not None:
                kept.save(task, values)
        found.append(values)
    described = table(curvature)
    variables = {name: array for name, array in _stacked(found).items() if name in described}
    ranked = [name for name in variables if "rank" in described[name].dims]
    width = max((variables[name].shape[-1] for name in ranked), default=0)
    variables |= {name: _padded(variables[name], width) for name in ranked}
    coordinates: dict[str, list[object]] = {
        "arm": list(checkpoints.arms),
        "seed": list(checkpoints.seeds),
        "task": list(chosen),
        "evaluation_point": list(curvature.evaluation_points),
        "block": list(blocks),
        "rank": list(range(width)),
        "grid": spectrum.grid().tolist(),
    }
    dims = {dim for name in variables for dim in described[name].dims}
    return variables, {dim: values for dim, values in coordinates.items() if dim in dims}


_Data = tuple[Tensor, Tensor]  # inputs and targets of a task


def _stacked(found: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays ``(arm, seed, …)`` of each evaluation point, or of each task, as one, ``(arm, seed, evaluation point, …)``; NaN for one that lacks them."""
    stacked = {}
    for name in dict.fromkeys(name for values in found for name in values):
        there = [values[name] for values in found if name in values]
        width = max(array.shape[-1] for array in there)
        missing = np.full_like(there[0], np.nan) if there[0].dtype.kind == "f" else there[0]
        stacked[name] = np.stack(
            [_padded(values.get(name, missing), width) for values in found], axis=2
        )
    return stacked


def _padded(array: np.ndarray, width: int) -> np.ndarray:
    """With NaN behind its last dim, so that it has some width."""
    missing = width - array.shape[-1]
    return (
        np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, missing)], constant_values=np.nan)
        if missing
        else array
    )


@torch.no_grad()
def hidden_activations(
    network: nn.Module, tensors: dict[str, Tensor], inputs: Tensor
) -> dict[str, Tensor]:
    """Outputs of each activation, keyed by the layer before it, one column a unit.

    Args:
        network: a plain module.
        tensors: parameters by name, shapes ``(run, …)``.
        inputs: shape ``(run, n, …)``.

    Returns:
        Shapes ``(run, row, unit)``, as `ensemble.Watch` has them.
    """
    watch = Watch()
    forward(network, tensors, inputs, watch)
    return watch.hidden


def unit_measures(
    activations: dict[str, Tensor], blocks: Mapping[str, Sequence[str]]
) -> dict[str, Tensor]:
    """Feature rank, dead and dormant fraction of each block that has units, shape ``(run, block)``.

    A layer's feature rank is the effective rank of its ``(n, unit)`` matrix of activations, uncentred. Over several layers, the
    fractions are of all hidden units; a rank of several layers together is not defined.
    """
    magnitudes = {name: a.abs().mean(dim=1) for name, a in activations.items()}
    ranks = {name: feature_rank(a) for name, a in activations.items()}
    missing = torch.full_like(next(iter(ranks.values())), torch.nan)

    def fraction(is_counted: Callable[[Tensor], Tensor], block: str) -> Tensor:
        names = [name for name in magnitudes if name in blocks[block]]
        if not names:
            return missing
        share = (
            torch.cat([is_counted(magnitudes[name]) for name in names], dim=1)
            .to(missing.dtype)
            .mean(dim=1)
        )
        return share.where(
            torch.cat([magnitudes[name] for name in names], dim=1).isfinite().all(dim=1), torch.nan
        )

    return {
        "feature_rank": torch.stack([ranks.get(block, missing) for block in blocks], dim=1),
        "dead_fraction": torch.stack([fraction(dead, block) for block in blocks], dim=1),
        "dormant_fraction": torch.stack([fraction(dormant, block) for block in blocks], dim=1),
    }


def dead(magnitudes: Tensor) -> Tensor:
    """Units that are zero on every input; mean magnitudes of a layer's units, shape ``(run, unit)`` → booleans."""
    return magnitudes == 0


def dormant(magnitudes: Tensor) -> Tensor:
    """Units whose mean magnitude is at most 0.025 of their layer's (ReDo, arXiv 2302.12902, equation 1).

    Args:
        magnitudes: means over the inputs of a layer's activations' magnitudes, shape ``(run, unit)``.

    Returns:
        Booleans of the same shape; true for all units of a layer that is silent.
    """
    return magnitudes <= DORMANT * magnitudes.mean(dim=1, keepdim=True)


def feature_rank(activations: Tensor) -> Tensor:
    """Effective rank of each run's ``(n, unit)`` matrix, from the eigenvalues σ² of the smaller of its two Gram matrices."""
    n, units = activations.shape[-2:]
    gram = activations.mT @ activations if units <= n else activations @ activations.mT
    return spectrum.effective_rank(spectrum.eigenvalues(gram).sqrt())


def weight_norm(parameters: Parameters, blocks: Mapping[str, Sequence[str]]) -> Tensor:
    """Euclidean norm of each block's parameters, shape ``(run, block)``."""
    squares = {
        name: tensor.detach().flatten(1).square().sum(dim=1)
        for name, tensor in parameters.tensors.items()
    }
    return torch.stack(
        [
            cast(
                Tensor, sum(square for name, square in squares.items() if _layer(name) in layers)
            ).sqrt()
            for layers in blocks.values()
        ],
        dim=1,
    )


def _layer(parameter: str) -> str:
    """The layer that a parameter belongs to: ``hidden_1.weight`` → ``hidden_1``."""
    return parameter.rpartition(".")[0]
