"""The generalized Gauss–Newton matrix G = (1/n) Σ Jᵢᵀ Hᵢ Jᵢ (Schraudolph 2002).

Hᵢ is the Hessian of the loss of sample i at its outputs. With Hᵢ = Sᵢ Sᵢᵀ, G is a mean of outer
products. Some losses do not change when a constant is added to all outputs, for example the
cross-entropy with H = diag(p) − p pᵀ. Then S needs one column fewer than there are outputs.

Source: Schraudolph 2002, Neural Computation 14:1723.
"""

import torch
from torch import Tensor

from plasticity.curvature.batch_loss import Loss
from plasticity.curvature.operator import OuterProducts
from plasticity.errors import StudyError

ROUND_OFF = 1e3  # tolerance, in machine precisions


class Operator(OuterProducts):
    """The generalized Gauss–Newton matrix (curvature of the loss at the outputs)."""

    NAME = "GGN"
    MEANING = (
        "generalised Gauss–Newton matrix "
        "(mean curvature of the loss at the outputs, as the parameters see it)"
    )

    def columns(self, outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
        """Return a root S of the Hessian of the loss at the outputs, H = S Sᵀ.

        Raises:
            StudyError: if the loss is not convex in the outputs.
        """
        z = outputs.detach().double().requires_grad_()
        H = _output_hessian(z, targets, loss)
        noise = ROUND_OFF * torch.finfo(z.dtype).eps
        basis = torch.eye(z.shape[-1]).to(H)
        with torch.no_grad():
            if _is_shift_invariant(z, targets, loss, noise):
                basis = _basis_without_shift(basis)
                H = _with_zero_row_sums(H)
        diverged = ~H.isfinite().all(dim=(-2, -1))
        finite_H = H.where(~diverged[..., None, None], 0)
        values, vectors = torch.linalg.eigh(basis.mT @ finite_H @ basis)
        if (values[..., 0] < -noise * values.abs().amax()).any():
            raise StudyError(
                "the GGN needs a loss that is convex in the outputs, and this one is not: "
                "use the Hessian instead"
            )
        S: Tensor = basis @ (vectors * values.clamp(min=0).sqrt()[..., None, :])
        return S.where(~diverged[..., None, None], torch.nan).to(outputs.dtype)


def _output_hessian(z: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    """Compute the Hessian of each sample's loss at its outputs, shape ``(…, output, output)``."""
    with torch.enable_grad():
        gradient = torch.autograd.grad(loss(z, targets).sum(), z, create_graph=True)[0]
        # The gradient of a linear loss does not depend on z; adding 0·z keeps it differentiable.
        gradient = gradient + 0 * z
    rows = [
        torch.autograd.grad(entry, z, torch.ones_like(entry), retain_graph=True)[0]
        for entry in gradient.unbind(-1)
    ]
    return torch.stack(rows, dim=-2)


def _is_shift_invariant(z: Tensor, targets: Tensor, loss: Loss, noise: float) -> bool:
    """Check whether the loss stays the same when a constant is added to all outputs."""
    if z.shape[-1] == 1:
        return False
    shift = 1 + z.nan_to_num(0, 0, 0).abs().max()
    try:
        differences = (loss(z + shift, targets) - loss(z, targets)).abs()
    except RuntimeError:
        return False  # shifted outputs are outside the loss's domain, for example `nn.BCELoss`
    return not (differences > noise * shift).any()


def _basis_without_shift(identity: Tensor) -> Tensor:
    """Return an orthonormal basis of the outputs that sum to zero, shape ``(C, C − 1)``."""
    ones = torch.ones(len(identity), 1).to(identity)
    basis: Tensor = torch.linalg.qr(torch.cat([ones, identity[:, 1:]], dim=1)).Q
    return basis[:, 1:]


def _with_zero_row_sums(H: Tensor) -> Tensor:
    """Recompute the diagonal of a Hessian from the other entries of its rows.

    Round-off destroys p (1 − p) where p is almost 1, but not the other entries.
    """
    off_diagonal = H - torch.diag_embed(H.diagonal(dim1=-2, dim2=-1))
    return off_diagonal - torch.diag_embed(off_diagonal.sum(dim=-1))
