"""CUDA graphs: launch all kernels of a step at once, without Python between them."""

from collections.abc import Callable

import torch
from torch import Tensor

WARMUP = 3  # calls before capture, in which libraries choose kernels and reserve memory


class Captured:
    """A function of one tensor that is captured as a CUDA graph after a few calls, then replayed.

    The first calls are real ones and not a rehearsal, so no state has to be restored.

    Attributes:
        function: called as ``function(argument)``. The shape of its argument never changes, all
            that it reads and writes stays at the same addresses, and it never waits for the device.
        calls: number of calls.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        """Prepare a stream and an empty graph."""
        self.function = function
        self.calls = 0
        self._stream = torch.cuda.Stream()
        self._graph = torch.cuda.CUDAGraph()

    def __call__(self, argument: Tensor) -> Tensor:
        """Return a copy of the function's result."""
        self.calls += 1
        if self.calls <= WARMUP:
            return self._warm_up(argument)
        if self.calls == WARMUP + 1:
            self._capture(argument)
        self._argument.copy_(argument)
        self._graph.replay()
        return self._result.clone()

    def _warm_up(self, argument: Tensor) -> Tensor:
        """Call the function on the stream of the capture."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            result = self.function(argument).clone()
        torch.cuda.current_stream().wait_stream(self._stream)
        return result

    def _capture(self, argument: Tensor) -> None:
        """Capture the function without running it."""
        self._argument = argument.clone()
        with torch.cuda.graph(self._graph, stream=self._stream):
            self._result = self.function(self._argument)
