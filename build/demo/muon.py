"""The Muon optimiser: momentum whose update is made orthogonal, for the matrices inside the layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon:
    """One momentum buffer per matrix; the caller sets `rate` before every step.

    Matrices of one shape are updated together, which is faster.
    """

    def __init__(self, matrices: Sequence[Tensor], rate: float, momentum: float = 0.95) -> None:
        self.rate, self.momentum = rate, momentum
        shapes = dict.fromkeys(tuple(matrix.shape) for matrix in matrices)
        self._groups = [[matrix for matrix in matrices if tuple(matrix.shape) == shape] for shape in shapes]
        self._buffers = [torch.zeros(len(group), *group[0].shape) for group in self._groups]

    @torch.no_grad()
    def step(self) -> None:
        """Move every matrix, with Nesterov momentum."""
        for group, buffer in zip(self._groups, self._buffers, strict=True):
            gradient = torch.stack([matrix.grad for matrix in group if matrix.grad is not None])
            buffer.lerp_(gradient, 1 - self.momentum)
            update = _orthogonal(gradient.lerp(buffer, self.momentum))
            height, width = group[0].shape
            for matrix, change in zip(group, update, strict=True):
                matrix.sub_(change, alpha=self.rate * max(1.0, height / width) ** 0.5)


def _orthogonal(stack: Tensor) -> Tensor:
    """The nearest matrices with equal singular values, roughly: five steps of a quintic Newton-Schulz iteration."""
    a, b, c = _COEFFICIENTS
    x = stack / (stack.norm(dim=(1, 2), keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    for _ in range(5):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    out: Tensor = x.mT if tall else x
    return out
