"""The generalised Gauss–Newton matrix G = (1/n) Σ Jᵢᵀ Hᵢ Jᵢ, with Hᵢ the Hessian of sample i's loss at its outputs (Schraudolph 2002).

With H = S Sᵀ it is an outer product. A loss that does not change when all outputs are shifted, such as the cross-entropy with
H = diag(p) − p pᵀ, needs one column less than there are outputs.
"""

import torch
from torch import Tensor

from plasticity.curvature.gram import Loss
from plasticity.curvature.operator import OuterProducts
from plasticity.errors import StudyError

ROUND_OFF = 1e3  # machine precisions


class Operator(OuterProducts):
    """The generalised Gauss–Newton matrix (curvature of the loss at the outputs, as the parameters see it)."""

    NAME = "GGN"
    MEANING = "generalised Gauss–Newton matrix (mean curvature of the loss at the outputs, as the parameters see it)"

    def columns(self, outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
        """A root of the loss's Hessian at the outputs.

        Raises:
            StudyError: a loss that is not convex in the outputs.
        """
        z = outputs.detach().double().requires_grad_()
        with torch.enable_grad():
            slopes = torch.autograd.grad(loss(z, targets).sum(), z, create_graph=True)[0]
        slopes = slopes + 0 * z  # a linear loss has slopes that know nothing of z
        rows = [
            torch.autograd.grad(slope, z, torch.ones_like(slope), retain_graph=True)[0]
            for slope in slopes.unbind(-1)
        ]
        H, C, noise = torch.stack(rows, dim=-2), z.shape[-1], ROUND_OFF * torch.finfo(z.dtype).eps
        basis = torch.eye(C).to(H)
        with torch.no_grad():
            shift = 1 + z.nan_to_num(0, 0, 0).abs().max()
            if (
                C > 1
                and not ((loss(z + shift, targets) - loss(z, targets)).abs() > noise * shift).any()
            ):
                basis = torch.linalg.qr(torch.cat([torch.ones(C, 1).to(H), basis[:, 1:]], dim=1)).Q[
                    :, 1:
                ]  # orthogonal to shifts
                # p (1 − p) is lost where p is 1 but for round-off; the others of its row are not
                others = H - torch.diag_embed(H.diagonal(dim1=-2, dim2=-1))
                H = others - torch.diag_embed(others.sum(dim=-1))
        broken = ~H.isfinite().all(dim=(-2, -1))
        values, vectors = torch.linalg.eigh(basis.mT @ H.where(~broken[..., None, None], 0) @ basis)
        if (values[..., 0] < -noise * values.abs().amax()).any():
            raise StudyError(
                "the GGN is of a loss that is convex in the outputs, and this one is not: take its Hessian"
            )
        S: Tensor = basis @ (vectors * values.clamp(min=0).sqrt()[..., None, :])
        return S.where(~broken[..., None, None], torch.nan).to(outputs.dtype)
