"""What training needs of memory, counted; and what there is. An ensemble that does not fit goes in waves."""

import copy
import math
import os
import resource

import torch
import xarray as xr
from torch import Tensor, nn

from plasticity.config.models import Setting
from plasticity.models import architecture
from plasticity.training.trainer import CHUNK

BASE = 700 * 2**20  # bytes of a process that has imported everything and trains nothing
COPIES = 22  # of its parameters that a run needs: gradient, optimizer's means, a method's, those that come and go, and a heap with holes


def per_run(setting: Setting, data: xr.Dataset) -> int:
    """Bytes that one run takes while it trains in float32: parameters with their copies, its task's data, activations."""
    problem, network = setting.problem, architecture.fitting(setting, data)
    pixels = math.prod(data.sizes[dim] for dim in ("channel", "row", "column"))
    parameters = sum(tensor.numel() for tensor in network.parameters())
    looked_at = min(
        CHUNK, problem.samples
    )  # without gradients, which while learning are there beside what they are made of
    at_once = max(problem.batch, looked_at) * pixels + max(
        3 * problem.batch, looked_at
    ) * activations(network, data)
    # the next task's data is made while the last one's is there; the order of a task's samples is int64
    return 4 * (
        COPIES * parameters
        + 5 * (problem.samples + problem.test_samples) * pixels
        + at_once
        + 2 * problem.steps * problem.batch
    )


def activations(network: nn.Module, data: xr.Dataset) -> int:
    """Numbers that a network's layers put out for one image, counted on blank ones: torch's device `meta` takes a second to start."""
    counted = 0

    def count(layer: nn.Module, inputs: object, outputs: Tensor) -> None:
        nonlocal counted
        counted += 0 if list(layer.children()) else outputs.numel() // 2

    shadow = copy.deepcopy(network)
    for layer in shadow.modules():
        layer.register_forward_hook(count)
    with torch.no_grad():
        shadow(torch.zeros(2, *(data.sizes[dim] for dim in ("channel", "row", "column"))))
    return counted


def available(device: torch.device, granted: int | None, held: int) -> int:
    """Bytes that runs may take.

    Those of a GPU that are free; on a CPU those that the job was granted, or all of the machine's, less `BASE` and what is `held` already.
    """
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    return max(
        0, (granted or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) - BASE - held
    )


def peak(device: torch.device) -> str:
    """The most that this process has held so far, for the log."""
    said = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"
    return (
        f"{said}, and {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB on the GPU"
        if device.type == "cuda"
        else said
    )
