"""A device that is not the CPU, without a GPU: fake tensors, which have shapes but no values.

Under torch's `FakeTensorMode` the device ``meta`` does what a GPU would do in two respects:

- An operation on tensors of two devices raises an exception.
- So does everything that needs a value on the host (`item`, `tolist`, `bool`, `nonzero`, a mask as
  an index), and would therefore wait for a GPU.

Fake tensors of the device ``cuda`` cannot be differentiated without a driver.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor, FakeTensorMode

DEVICE = torch.device("meta")


@contextmanager
def fake_device() -> Iterator[torch.device]:
    """Make every tensor a fake one inside the context, and yield a device for them."""
    with warnings.catch_warnings():
        # `copy.deepcopy` of a network looks at addresses, which fake tensors do not have
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
        # autocast does not know the device
        with (
            mock.patch.object(torch, "is_autocast_enabled", return_value=False),
            mock.patch.object(nn.Module, "_apply", _replace_parameters),
            FakeTensorMode(allow_non_fake_inputs=True),
        ):
            yield DEVICE


def _replace_parameters(module: nn.Module, change: Callable[[Tensor], Tensor]) -> nn.Module:
    """Change a module as `nn.Module.to` does, which cannot exchange fake tensors."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(change(parameter.detach()))
    return module


@contextmanager
def recorded_lists() -> Iterator[list[list[float]]]:
    """Record the lists that tensors are asked for inside the context."""
    lists, real = [], torch.Tensor.tolist

    def record(tensor: Tensor) -> list[float]:
        lists.append(real(tensor))
        return lists[-1]

    with mock.patch.object(Tensor, "tolist", record):
        yield lists


@contextmanager
def values_of_lists(lists: list[list[float]]) -> Iterator[None]:
    """Return recorded lists, in their order, where fake tensors are asked for theirs.

    What is done once, when a method is built, may wait for the device.
    """
    with mock.patch.object(FakeTensor, "tolist", side_effect=lists):
        yield


@contextmanager
def decided_values() -> Iterator[None]:
    """Let fake tensors answer where code asks for a value: no, 2, zeros, and equal.

    So code that may wait for the device runs to its end, and only mixed devices raise.
    """

    def zeros(tensor: Tensor) -> np.ndarray:
        if tensor.device == DEVICE:
            raise TypeError("only a tensor on the CPU becomes an array")
        return np.zeros(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))

    with (
        mock.patch.object(FakeTensor, "__bool__", return_value=False),
        mock.patch.object(FakeTensor, "__int__", return_value=2),
        mock.patch.object(FakeTensor, "numpy", zeros),
        mock.patch.object(FakeTensor, "tolist", lambda tensor: zeros(tensor.cpu()).tolist()),
        mock.patch.object(torch, "allclose", return_value=True),
    ):
        yield
