"""Estimates of the memory that training needs, and of the memory that is available."""

import copy
import math
import os
import resource

import torch
import xarray as xr
from torch import Tensor, nn

from plasticity.config.models import Setting
from plasticity.models import architecture
from plasticity.training.recorder import EVALUATION_BATCH

BASE = 700 * 2**20  # bytes of a process that has imported everything and trains nothing
# Copies of a run's parameters: its gradient, the optimizer's means, the state of a method,
# temporary tensors, and gaps in the heap.
COPIES = 22


def per_run(setting: Setting, data: xr.Dataset) -> int:
    """Estimate the bytes that one run needs while it trains in float32."""
    problem = setting.problem
    network = architecture.build_for(setting, data)
    pixels = math.prod(_image_shape(data))
    parameters = sum(tensor.numel() for tensor in network.parameters())
    evaluated = min(EVALUATION_BATCH, problem.samples)
    # a training step keeps activations, their gradients and what these are computed from; an
    # evaluation keeps activations only
    inputs = max(problem.batch, evaluated) * pixels
    hidden = max(3 * problem.batch, evaluated) * activations(network, data)
    # the next task's data is made while that of the previous task is in memory
    task_data = 5 * (problem.samples + problem.test_samples) * pixels
    order = 2 * problem.steps * problem.batch  # int64
    return 4 * (COPIES * parameters + task_data + inputs + hidden + order)


def activations(network: nn.Module, data: xr.Dataset) -> int:
    """Count the numbers that the network's layers output for one image.

    They are counted on blank images. The device `meta` would need no memory, but torch takes a
    second to start it.
    """
    count = 0

    def add(layer: nn.Module, inputs: object, outputs: Tensor) -> None:
        nonlocal count
        is_leaf = not list(layer.children())
        count += outputs.numel() // 2 if is_leaf else 0

    shadow = copy.deepcopy(network)
    for layer in shadow.modules():
        layer.register_forward_hook(add)
    with torch.no_grad():
        shadow(torch.zeros(2, *_image_shape(data)))
    return count


def available(device: torch.device, limit: int | None, used: int) -> int:
    """Return the bytes that runs may use.

    Args:
        device: for a GPU, its free memory is returned, with what this process no longer uses.
        limit: bytes that the job may use on a CPU; None means all memory of the machine.
        used: bytes that are used already, in addition to `BASE`.
    """
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        # torch keeps what it freed, and uses it again
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(0, (limit or machine) - BASE - used)


def peak(device: torch.device) -> str:
    """Describe the largest memory that this process has used so far, for the log."""
    cpu = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"
    if device.type != "cuda":
        return cpu
    return f"{cpu}, and {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB on the GPU"


def _image_shape(data: xr.Dataset) -> list[int]:
    return [data.sizes[dim] for dim in ("channel", "row", "column")]
