"""A device that is not the CPU, without a GPU: fake tensors, which have shapes but no values.

Under torch's `FakeTensorMode` the device ``meta`` does what a GPU would do in two respects:

- An operation on tensors of two devices raises an exception.
- So does everything that needs a value on the host (`item`, `tolist`, `bool`, `nonzero`, a mask as
  an index), and would therefore wait for a GPU.

Fake tensors of the device ``cuda`` cannot be differentiated without a driver.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
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
            mock.patch.object(torch, "is_autocast_enabled", lambda device="": False),
            FakeTensorMode(allow_non_fake_inputs=False),
        ):
            yield DEVICE


@contextmanager
def recorded_lists() -> Iterator[list[list[float]]]:
    """Record the lists that tensors are asked for inside the context."""
    lists, real = [], torch.Tensor.tolist

    def record(tensor: torch.Tensor) -> list[float]:
        lists.append(real(tensor))
        return lists[-1]

    with mock.patch.object(torch.Tensor, "tolist", record):
        yield lists


@contextmanager
def values_of_lists(lists: list[list[float]]) -> Iterator[None]:
    """Return recorded lists, in their order, where fake tensors are asked for theirs.

    What is done once, when a method is built, may wait for the device.
    """
    with mock.patch.object(FakeTensor, "tolist", lambda tensor: lists.pop(0)):
        yield
