"""Ensembles: many runs of one network, computed together as batched matrix products.

All parameters lie in one matrix with a row per run, and the network's tensors are views into it. So
the optimizer updates one tensor, a penalty can use all weights at once, and a checkpoint is a copy
of rows.
"""

import copy
import ctypes
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from plasticity.models import activations, convolutions, normalization

# Numbers in the widest vector register. Rows start at whole vectors, so that the rounding of a
# number does not depend on the row it is in.
LANES = 16
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
ELEMENTWISE = (*activations.ACTIVATION_CLASSES, nn.GELU, nn.SiLU, nn.Sigmoid)


class QuadraticPenalty(NamedTuple):
    """The penalty strength · ½ ‖θ − target‖², whose gradient needs no autograd.

    Attributes:
        strength: shape ``(run,)``.
        target: shape ``(run, parameter)``; None means 0.
    """

    strength: Tensor
    target: Tensor | None = None


Penalty = Tensor | QuadraticPenalty
Objective = Callable[[], tuple[Tensor, Sequence[Penalty]]]


class Parameters:
    """The parameters of all runs and their gradients.

    Attributes:
        shapes: shape of each parameter in one run, by name, in the order of a row.
        flat: all parameters, shape ``(run, parameter)``; a leaf, for penalties.
        tensors: views into `flat` by name, shapes ``(run, …)``; leaves, for the network.
        padded, padded_gradient: contiguous matrices for the optimizer. Their first columns are
            `flat` and its gradient; the other columns are zero.
    """

    def __init__(self, flat: Tensor, shapes: Mapping[str, Sequence[int]]) -> None:
        """Copy the parameters.

        Args:
            flat: shape ``(run, parameter)``.
            shapes: shape of each parameter in one run, by name, in the order of a row.
        """
        width = flat.shape[1]
        self.shapes = shapes
        self.padded = nn.functional.pad(flat.detach(), (0, -width % LANES))
        self.padded_gradient = torch.zeros_like(self.padded)
        self.flat = self.padded[:, :width].requires_grad_()
        views = self.split(self.padded[:, :width])
        self.tensors = {name: view.requires_grad_() for name, view in views.items()}
        self._gradient: Tensor = self.padded_gradient[:, :width]
        self._gradients = self.split(self._gradient)
        self._calls: dict[str, _LinearCall] | None = None

    def split(self, matrix: Tensor) -> dict[str, Tensor]:
        """Return views by parameter, ``(run, parameter)`` → ``(run, …)``."""
        sizes = [torch.Size(shape).numel() for shape in self.shapes.values()]
        parts = matrix.split(sizes, dim=1)
        return {
            name: part.unflatten(1, tuple(shape))
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def bind(self, network: nn.Module) -> Callable[..., Tensor]:
        """Return the network with these parameters as a function ``(inputs, watch=None)``.

        The function computes the same as `forward`, but nothing is swapped in and out at a call.
        Its linear layers let `gradient` write their gradients where they belong. On a CPU, the
        linear layers behind convolutions do so too.
        """
        if not is_batchable(network):
            parts = _split_at_flatten(network) if self.flat.device.type == "cpu" else None
            return partial(forward, network, self.tensors) if parts is None else self._join(*parts)
        bound = copy.deepcopy(network)
        for name, layer in bound.named_modules():
            if isinstance(layer, nn.Linear):
                layer.forward = partial(  # type: ignore[method-assign]
                    self._linear, f"{name}.weight", f"{name}.bias"
                )
            elif isinstance(layer, nn.LayerNorm):
                layer.forward = partial(  # type: ignore[method-assign]
                    _stacked_layer_norm,
                    normalized_shape=layer.normalized_shape,
                    weight=self.tensors[f"{name}.weight"],
                    bias=self.tensors[f"{name}.bias"],
                    eps=layer.eps,
                )

        def call(inputs: Tensor, watch: Watch | None = None) -> Tensor:
            if watch is None:
                outputs: Tensor = bound(inputs)
                return outputs
            with record_activations(bound, watch.masks) as hidden:
                outputs = bound(inputs)
            watch.hidden = {layer: as_units(values) for layer, values in hidden.items()}
            return outputs

        return call

    def _join(self, features: nn.Sequential, head: nn.Sequential) -> Callable[..., Tensor]:
        """Return two parts of a network as one function; the second part is batchable."""
        names = [name for name, _ in features.named_parameters()]
        tensors = {name: self.tensors[name] for name in names}
        compute_head = self.bind(head)

        def call(inputs: Tensor, watch: Watch | None = None) -> Tensor:
            if watch is None:
                return compute_head(forward(features, tensors, inputs))
            of_features, of_head = Watch(watch.masks), Watch(watch.masks)
            outputs = compute_head(forward(features, tensors, inputs, of_features), of_head)
            watch.hidden = of_features.hidden | of_head.hidden
            return outputs

        return call

    def gradient(self, objective: Objective) -> Tensor:
        """Compute the gradient of each run's own loss plus its penalties.

        The weights of a bound network's linear layers are hidden from autograd. Their gradient is
        the product of the layer's output gradients and inputs, written straight into its columns:
        one pass over all parameters less than autograd needs. Autograd differentiates everything
        else.

        Args:
            objective: called once; returns the losses and the penalties. The losses have shape
                ``(run, n)`` and come from a bound network or from `tensors`. The loss of a run is
                their mean. A penalty has shape ``(run,)`` and comes from `flat`, from `tensors` or
                from hidden activations; or it is a `QuadraticPenalty`.

        Returns:
            A view into `padded_gradient`, shape ``(run, parameter)``; the next call overwrites it.

        Raises:
            RuntimeError: the objective calls a bound network twice with gradients enabled.
        """
        losses, penalties, calls = self._evaluate(objective)
        quadratic = [penalty for penalty in penalties if isinstance(penalty, QuadraticPenalty)]
        others = [
            penalty
            for penalty in penalties
            if isinstance(penalty, Tensor) and penalty.requires_grad
        ]
        linear = {*calls, *(call.bias for call in calls.values())}
        visible = [name for name in self.tensors if name not in linear]
        pairs = [(self.tensors[name], self._gradients[name]) for name in visible]
        if others:  # the losses use detached weights and never `flat`, but a penalty may use them
            hidden = [name for name in self.tensors if name in linear]
            pairs.append((self.flat, self._gradient))
            pairs += [(self.tensors[name], self._gradients[name]) for name in hidden]

        gradients = torch.autograd.grad(
            # sums over runs, because torch imports sympy (2 s) if the gradient of a loss is given
            [losses.sum() / losses.shape[1], *(penalty.sum() for penalty in others)],
            [*(call.outputs for call in calls.values()), *(source for source, _ in pairs)],
            allow_unused=True,
        )
        accumulate = self._write_quadratic(quadratic)
        self._write_linear(calls, gradients[: len(calls)], accumulate)
        if not accumulate:
            for name in visible:
                self._gradients[name].zero_()
        for (_, target), values in zip(pairs, gradients[len(calls) :], strict=True):
            if values is not None:
                target += values
        return self._gradient

    def _evaluate(
        self, objective: Objective
    ) -> tuple[Tensor, Sequence[Penalty], "dict[str, _LinearCall]"]:
        """Call the objective and record the calls of linear layers by the name of their weight."""
        calls = self._calls = {}
        try:
            losses, penalties = objective()
        finally:
            self._calls = None
        return losses, penalties, calls

    def _write_quadratic(self, penalties: Sequence[QuadraticPenalty]) -> bool:
        """Overwrite the gradient with that of the penalties; return whether there are any."""
        flat = self.flat.detach()
        for index, (strength, target) in enumerate(penalties):
            gradient = torch.empty_like(self._gradient) if index else self._gradient
            if target is None:
                torch.mul(flat, strength[:, None], out=gradient)
            else:
                # the difference first: it is exactly 0 at the target, and Adam would turn a
                # rounding error there into full steps of weights without any other gradient
                torch.sub(flat, target, out=gradient).mul_(strength[:, None])
            if index:
                self._gradient += gradient
        return bool(penalties)

    def _write_linear(
        self,
        calls: "Mapping[str, _LinearCall]",
        of_outputs: Sequence[Tensor],
        accumulate: bool,
    ) -> None:
        """Add the gradients of linear layers to what is there, or overwrite it."""
        for (weight, call), delta in zip(calls.items(), of_outputs, strict=True):
            self._gradients[weight].baddbmm_(delta.mT, call.inputs, beta=accumulate)
            if call.bias not in self._gradients:
                continue
            bias = self._gradients[call.bias]
            if accumulate:
                bias.add_(delta.sum(1))
            else:
                torch.sum(delta, 1, out=bias)

    def _linear(self, weight: str, bias: str, inputs: Tensor) -> Tensor:
        """Compute a linear layer; within `gradient`, record the call and hide the weights."""
        W, b = self.tensors[weight], self.tensors.get(bias)
        # under autocast only autograd knows the dtype in which a product was computed
        lower_precision = torch.is_autocast_enabled(inputs.device.type)
        if self._calls is None or lower_precision or not torch.is_grad_enabled():
            return _stacked_linear(inputs, W, b)
        if weight in self._calls:
            raise RuntimeError(
                "the objective called a bound network twice: use torch.no_grad() for calls whose "
                "outputs are not part of the loss"
            )
        outputs = _stacked_linear(inputs, W.detach(), None if b is None else b.detach())
        outputs.requires_grad_()
        self._calls[weight] = _LinearCall(bias, inputs.detach(), outputs)
        return outputs


class _LinearCall(NamedTuple):
    """What the gradient of a linear layer is made of.

    Attributes:
        bias: name of the layer's bias, which need not exist.
        inputs: shape ``(run, n, input)``.
        outputs: shape ``(run, n, output)``.
    """

    bias: str
    inputs: Tensor
    outputs: Tensor


def rows(runs: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """Stack the tensors of each run, given by name, into rows ``(run, parameter)``."""
    flat = [torch.cat([tensor.flatten() for tensor in tensors.values()]) for tensors in runs]
    return torch.stack(flat)


def make_deterministic() -> None:
    """Make results independent of the number of cores and of memory addresses. Call it first.

    - By default Intel's MKL is fast, but on AMD processors its rounding depends on an array's
      address. Its reproducible mode costs at most a tenth more.
    - Denormal numbers are flushed to zero, because weights near zero would be slow.
    - A GPU computes products in full precision, not in TF32, and chooses algorithms that give the
      same numbers in every run. Where torch has no such algorithm, it warns.
    - By default glibc returns large arrays to the system, and each new array costs a page fault
      every 4 kB. If glibc keeps them, curvature of convolutions takes half the time.
    """
    os.environ["MKL_CBWR"] = "AUTO"
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
        # each new tensor would be filled by a kernel of its own
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def default_device() -> torch.device:
    """Choose the device of a job: a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass
class Watch:
    """Hidden activations of one call of a network.

    Attributes:
        masks: multiplied with a layer's activations, by layer, shapes ``(run, n, …)``.
        with_slopes: whether to compute the slopes, too.
        hidden: the masked activations, by layer, shapes ``(run, row, unit)``. Units of a
            convolution are its channels, with a row for every place of every image. Tokens are
            rows, too.
        slopes: derivatives of the activations by their inputs, in the same shapes.
    """

    masks: Mapping[str, Tensor] = field(default_factory=dict)
    with_slopes: bool = False
    hidden: dict[str, Tensor] = field(default_factory=dict)
    slopes: dict[str, Tensor] = field(default_factory=dict)


def forward(
    network: nn.Module, tensors: dict[str, Tensor], inputs: Tensor, watch: Watch | None = None
) -> Tensor:
    """Compute the outputs of all runs, each on its own inputs.

    Linear layers, layer norms and element-wise functions are computed for all runs at once. Any
    other network is vmapped on a GPU. On a CPU grouped convolutions are slower than single ones, so
    there the runs of such a network are computed one after the other, see `convolutions`.

    Args:
        network: a plain module.
        tensors: parameters by name, shapes ``(run, …)``.
        inputs: shape ``(run, n, …)``.
        watch: its masks are applied, and what it recorded is replaced.

    Returns:
        Shape ``(run, n, …)``.
    """

    def compute(
        tensors: dict[str, Tensor], inputs: Tensor, masks: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        if watch is None:
            return functional_call(network, tensors, (inputs,)), {}, {}
        slopes: dict[str, Tensor] = {}
        with record_activations(network, masks, slopes if watch.with_slopes else None) as hidden:
            return functional_call(network, tensors, (inputs,)), hidden, slopes

    masks = {} if watch is None else dict(watch.masks)
    hidden: dict[str, Tensor]
    if is_batchable(network):
        with _StackedFunctions():
            outputs, hidden, slopes = compute(tensors, inputs, masks)
    elif inputs.device.type != "cpu":
        outputs, hidden, slopes = torch.vmap(compute)(tensors, inputs, masks)
    else:
        runs = len(inputs)
        fits_onednn = [False] * runs
        if watch is None and convolutions.supports(network, inputs):
            fits_onednn = convolutions.cannot_overflow(network, tensors, inputs)
        arguments = zip(
            fits_onednn, _unbind(tensors, runs), inputs.unbind(), _unbind(masks, runs), strict=True
        )
        results = [
            (convolutions.forward(network, run_tensors, images), {}, {})
            if fits
            else compute(run_tensors, convolutions.with_fast_layout(network, images), run_masks)
            for fits, run_tensors, images, run_masks in arguments
        ]
        outputs = torch.stack([run_outputs for run_outputs, _, _ in results])
        hidden = _stack_by_layer([run_hidden for _, run_hidden, _ in results])
        slopes = _stack_by_layer([run_slopes for _, _, run_slopes in results])
    if watch is not None:
        watch.hidden = {layer: as_units(values) for layer, values in hidden.items()}
        watch.slopes = {layer: as_units(values) for layer, values in slopes.items()}
    return outputs


def _stack_by_layer(runs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Stack the tensors of each run, given by layer."""
    return {layer: torch.stack([run[layer] for run in runs]) for layer in runs[0]}


@contextmanager
def record_activations(
    network: nn.Module, masks: Mapping[str, Tensor], slopes: dict[str, Tensor] | None = None
) -> Iterator[dict[str, Tensor]]:
    """Record the outputs of the network's activations while it is called.

    The key is the name of the layer before the activation; a norm between the two does not count.

    Args:
        network: a plain module.
        masks: multiplied with the activations, by the same keys.
        slopes: is filled with the activations' derivatives by their inputs, by the same keys.

    Yields:
        The masked activations; a call of the network fills the dictionary.
    """
    hidden: dict[str, Tensor] = {}
    last_layer = ""

    def record(name: str, module: nn.Module, inputs: Tensor, outputs: Tensor) -> Tensor | None:
        nonlocal last_layer
        if isinstance(module, activations.ACTIVATION_CLASSES):
            if slopes is not None:
                slopes[last_layer] = activations.slopes(module, inputs)
            mask = masks.get(last_layer)
            hidden[last_layer] = outputs if mask is None else outputs * mask
            return hidden[last_layer]
        has_parameters = next(module.parameters(recurse=False), None) is not None
        if has_parameters and not isinstance(module, normalization.NORM_CLASSES):
            last_layer = name
        return None

    hooks = [
        module.register_forward_hook(
            lambda module, inputs, outputs, name=name: record(name, module, inputs[0], outputs)
        )
        for name, module in network.named_modules()
    ]
    try:
        yield hidden
    finally:
        for hook in hooks:
            hook.remove()


def _unbind(tensors: Mapping[str, Tensor], runs: int) -> list[dict[str, Tensor]]:
    """Return the tensors of each run, by name."""
    if not tensors:
        return [{}] * runs
    values = zip(*(tensor.unbind() for tensor in tensors.values()), strict=True)
    return [dict(zip(tensors, run_values, strict=True)) for run_values in values]


def as_units(outputs: Tensor) -> Tensor:
    """Move units to the last dim and flatten the others into rows, shape ``(run, row, unit)``.

    Args:
        outputs: shape ``(run, n, unit)``, ``(run, n, token, unit)`` or
            ``(run, n, channel, row, column)``, where channels are units.
    """
    is_convolution = outputs.ndim == 5
    return (outputs.movedim(2, -1) if is_convolution else outputs).flatten(1, -2)


def is_batchable(network: nn.Module) -> bool:
    """Answer whether the network can be computed for all runs at once.

    So it is if no two layers share parameters and every layer takes a leading dim of runs. Linear
    layers and layer norms do so after `_StackedFunctions` replaced them.
    """
    all_names = list(network.named_parameters(remove_duplicate=False))
    if len(all_names) != len(list(network.parameters())):
        return False
    return all(_layer_broadcasts(layer) for layer in network.modules())


def _split_at_flatten(network: nn.Module) -> tuple[nn.Sequential, nn.Sequential] | None:
    """Split a sequence before its first `nn.Flatten`, if the rest is batchable.

    Returns:
        None if there is no such part, or if a layer or parameter appears in the network twice.
    """
    names = [name for name, _ in network.named_parameters(remove_duplicate=False)]
    if type(network) is not nn.Sequential or len(names) != len(list(network.parameters())):
        return None
    layers = list(network.named_children())
    flattens = [isinstance(layer, nn.Flatten) for _, layer in layers]
    if len(layers) < len(network) or not any(flattens):
        return None
    first = flattens.index(True)
    features = nn.Sequential(OrderedDict(layers[:first]))
    head = nn.Sequential(OrderedDict(layers[first:]))
    return (features, head) if is_batchable(head) else None


def _layer_broadcasts(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Flatten):
        return layer.start_dim < 0
    if isinstance(layer, nn.LayerNorm):
        return len(layer.normalized_shape) == 1 and layer.bias is not None
    return isinstance(layer, (nn.Sequential, nn.Linear, *ELEMENTWISE))


class _StackedFunctions(TorchFunctionMode):
    """Replace functions of one set of weights by functions of one set per run."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return _STACKED.get(func, func)(*args, **(kwargs or {}))


def _stacked_linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute `torch.nn.functional.linear` with a weight per run.

    The product is weights times inputs, which is faster than the transpose for few inputs.
    """
    if inputs.shape[1] == 1:
        # one sample of one run would go to another routine, which rounds differently
        return _stacked_linear(inputs.expand(-1, 2, -1), weight, bias)[:, :1]
    if bias is None:
        return (weight @ inputs.mT).mT
    return torch.baddbmm(bias[..., None], weight, inputs.mT).mT


def _stacked_layer_norm(
    inputs: Tensor, normalized_shape: Sequence[int], weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    """Compute `torch.nn.functional.layer_norm` with a weight and a bias per run.

    `torch.addcmul` would be one call, but it may round the last few numbers of a tensor
    differently.
    """
    normalized = nn.functional.layer_norm(inputs, normalized_shape, eps=eps)
    return normalized * weight[:, None] + bias[:, None]


_STACKED: dict[Callable[..., Any], Callable[..., Any]] = {
    nn.functional.linear: _stacked_linear,
    nn.functional.layer_norm: _stacked_layer_norm,
}
