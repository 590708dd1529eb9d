"""Dropout: random zeros in training, the identity in evaluation."""
from __future__ import annotations

from ..core.tensor import Tensor
from ..core.warning import warn
from ..ops.random import dropout as dropout_op
from ..ops.random import feature_dropout
from .arguments import check_probability, write_back
from .module import Module


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """In training, x mask / (1 - p), where mask is 1 with probability 1 - p; else x (Srivastava et al. 2014).

    Any shape. Raises ValueError unless 0 <= p <= 1.
    """
    check_probability(p)
    if not training or p == 0.0:
        return input
    return write_back("dropout", input, dropout_op, p) if inplace else dropout_op(input, p)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`dropout` of whole channels: one mask value for each (n, c) of an input (N, C, H, W) (Tompson et al. 2015).

    An input that has not four dimensions gives a warning, as in PyTorch; three dimensions are read as (N, C, L).
    """
    check_probability(p)
    if input.ndim not in (3, 4):
        warn(f"dropout2d: Received a {input.ndim}-D input, which is deprecated; use dropout, or an input (N, C, H, W)")
    if input.ndim == 3:
        warn("dropout2d: Received a 3D input, which is read as (N, C, L)")
    if not training or p == 0.0:
        return input
    return write_back("dropout", input, feature_dropout, p) if inplace else feature_dropout(input, p)


class _Dropout(Module):
    """What the two layers share: the options `p` and `inplace`."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        check_probability(p)
        self.p, self.inplace = p, inplace

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """Zeros each element with probability `p` and scales the others by 1 / (1 - p) (Srivastava et al. 2014)."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape -> same."""
        return dropout(input, self.p, self.training, self.inplace)


class Dropout2d(_Dropout):
    """Zeros whole channels with probability `p` and scales the others by 1 / (1 - p) (Tompson et al. 2015)."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> same."""
        return dropout2d(input, self.p, self.training, self.inplace)
