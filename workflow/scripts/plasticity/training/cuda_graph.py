"""CUDA graphs: all kernels of a step launched at once, without Python between them."""

from collections.abc import Callable

import torch
from torch import Tensor

WARM = 3  # calls before capture, in which libraries choose their kernels and reserve their memory


class Captured:
    """A function of one tensor whose shape never changes; after a few calls it is captured as a CUDA graph and replayed.

    The first calls are real ones, not a rehearsal, so no state has to be put back. All that the function reads and writes must stay
    where it is, and it may not wait for the device.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        """Capture nothing yet: `function` is called as ``function(argument)``."""
        self.function = function
        self.calls = 0
        self.stream = torch.cuda.Stream()
        self.graph = torch.cuda.CUDAGraph()

    def __call__(self, argument: Tensor) -> Tensor:
        """The function's result, a copy of its own."""
        self.calls += 1
        if self.calls <= WARM:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                result = self.function(argument).clone()
            torch.cuda.current_stream().wait_stream(self.stream)
            return result
        if self.calls == WARM + 1:
            self.argument = argument.clone()
            with torch.cuda.graph(self.graph, stream=self.stream):
                self.result = self.function(self.argument)
        self.argument.copy_(argument)
        self.graph.replay()
        return self.result.clone()
