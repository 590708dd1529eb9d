"""Dropout: random zeros in training, the identity in evaluation."""
from __future__ import annotations

import math

from ..core.half import rounds_once
from ..core.shape import fail
from ..core.tensor import Tensor
from ..core.warning import warn
from ..ops.creation import empty
from ..ops.random import bernoulli, check_probability, feature_dropout
from ..ops.random import dropout as dropout_op
from .arguments import write_back
from .module import Module


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """In training, x mask / (1 - p), where mask is 1 with probability 1 - p; else x (Srivastava et al. 2014).

    Any shape. Raises ValueError unless 0 <= p <= 1.
    """
    check_probability("dropout", p)
    if not training or p == 0.0:
        return input
    return write_back("dropout", input, dropout_op, p) if inplace else dropout_op(input, p)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`dropout` of whole channels: one mask value for each (n, c) of an input (N, C, H, W) (Tompson et al. 2015).

    An input that has not four dimensions gives a warning, as in PyTorch; three dimensions are read as (N, C, L).
    """
    check_probability("dropout", p)
    if input.ndim not in (3, 4):
        warn(f"dropout2d: Received a {input.ndim}-D input, which is deprecated; use dropout, or an input (N, C, H, W)")
    if input.ndim == 3:
        warn("dropout2d: Received a 3D input, which is read as (N, C, L)")
    if not training or p == 0.0:
        return input
    return _feature_dropout(input, p, inplace)


def _feature_dropout(input: Tensor, p: float, inplace: bool) -> Tensor:
    return write_back("dropout", input, feature_dropout, p) if inplace else feature_dropout(input, p)


def _one_mask(input: Tensor, p: float) -> Tensor:
    """Dropout of channels without a batch: (C, *) -> same."""
    return feature_dropout(input.unsqueeze(0), p).squeeze(0)


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`dropout` of whole channels: one mask value for each (n, c) of (N, C, L) or (C, L) (Tompson et al. 2015).

    RuntimeError for another number of dimensions.
    """
    check_probability("dropout", p)
    if input.ndim not in (2, 3):
        fail("dropout1d", "expected 2D or 3D input, (N, C, L) or (C, L)", input.layout)
    if not training or p == 0.0:
        return input
    if input.ndim == 2:
        return write_back("dropout", input, _one_mask, p) if inplace else _one_mask(input, p)
    return _feature_dropout(input, p, inplace)


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`dropout` of whole channels: one mask value for each (n, c) of an input (N, C, D, H, W), or of (C, D, H, W)
    (Tompson et al. 2015). Another number of dimensions gives a warning, and is read as without N, as in PyTorch.
    """
    check_probability("dropout", p)
    if input.ndim not in (4, 5):
        warn(f"dropout3d: Received a {input.ndim}-D input, which is deprecated; use dropout, or (N, C, D, H, W)")
    if not training or p == 0.0:
        return input
    if input.ndim != 5:
        return write_back("dropout", input, _one_mask, p) if inplace else _one_mask(input, p)
    return _feature_dropout(input, p, inplace)


_SELU_LOW = -1.7580993408473766             # what selu tends to at -inf: -scale alpha


@rounds_once
def _alpha_dropped(input: Tensor, p: float, features: bool) -> Tensor:
    if p == 1.0:
        return input * 0.0
    shape = (*input.shape[:2], *(1,) * (input.ndim - 2)) if features else input.shape
    kept = bernoulli(empty(shape, dtype=input.dtype, device=input.device), 1 - p)
    a = 1 / math.sqrt((_SELU_LOW * _SELU_LOW * p + 1) * (1 - p))
    return input * (kept * a) + (1 - kept) * (a * _SELU_LOW) - a * _SELU_LOW * p


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """In training, a (x mask + s (1 - mask)) + b, where mask is 1 with probability 1 - p and s = -1.7581 the value of
    `selu` at -inf; a and b keep mean 0 and variance 1 (Klambauer et al. 2017, section 3). Else x. Any shape -> same.
    """
    check_probability("dropout", p)
    if not training or p == 0.0 or not input.numel():
        return input
    return write_back("alpha_dropout", input, _alpha_dropped, p, False) if inplace else _alpha_dropped(input, p, False)


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """`alpha_dropout` of whole channels: one mask value for each (n, c) of an input (N, C, *) -> same.

    RuntimeError for fewer than two dimensions.
    """
    check_probability("dropout", p)
    if not training or p == 0.0 or not input.numel():
        return input
    if input.ndim < 2:
        fail("feature_alpha_dropout", "requires at least 2 dimensions in the input", input.layout)
    return write_back("alpha_dropout", input, _alpha_dropped, p, True) if inplace else _alpha_dropped(input, p, True)


class _Dropout(Module):
    """What the layers share: the options `p` and `inplace`."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        check_probability("dropout", p)
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


class Dropout1d(_Dropout):
    """Zeros whole channels with probability `p` and scales the others by 1 / (1 - p) (Tompson et al. 2015)."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, L) or (C, L) -> same."""
        return dropout1d(input, self.p, self.training, self.inplace)


class Dropout3d(_Dropout):
    """Zeros whole channels with probability `p` and scales the others by 1 / (1 - p) (Tompson et al. 2015)."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, D, H, W) or (C, D, H, W) -> same."""
        return dropout3d(input, self.p, self.training, self.inplace)


class AlphaDropout(_Dropout):
    """Dropout for nets with `SELU`: sets elements to the lowest value of selu and keeps mean 0 and variance 1
    (Klambauer et al. 2017)."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape -> same."""
        return alpha_dropout(input, self.p, self.training, self.inplace)


class FeatureAlphaDropout(_Dropout):
    """`AlphaDropout` of whole channels."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, *) -> same."""
        return feature_alpha_dropout(input, self.p, self.training, self.inplace)
