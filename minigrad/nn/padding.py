"""Padding layers: what `pad` of `ops/arrange.py` does, with the amounts kept.

`padding` is one number for all borders, or (left, right) for each dimension of space, the last dimension first:
(left, right, top, bottom, front, back). A negative number cuts elements off.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core.shape import fail
from ..core.tensor import Tensor
from ..ops.arrange import pad
from .module import Module

Padding = int | Sequence[int]


def _amounts(padding: Padding, dims: int, name: str) -> tuple[int, ...]:
    """(before, after) for each of `dims` dimensions; ValueError for another number of amounts."""
    if isinstance(padding, (int, np.integer)):
        return (int(padding),) * (2 * dims)
    amounts = tuple(padding)
    if len(amounts) != 2 * dims:
        fail(name, f"padding must be a whole number or {2 * dims} of them", f"padding {padding!r}", kind=ValueError)
    return amounts


class _Pad(Module):
    """What padding layers share: the amounts; a class says for how many dimensions of space, and which mode."""

    _dims = 1
    _mode = "constant"

    def __init__(self, padding: Padding) -> None:
        super().__init__()
        self.padding = _amounts(padding, self._dims, type(self).__name__)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, *) or (C, *) -> same, each dimension of space larger by what is added to it."""
        if self._mode != "constant" and input.ndim not in (self._dims + 1, self._dims + 2):
            fail(type(self).__name__, f"input must have {self._dims + 1} or {self._dims + 2} dimensions",
                 input.layout, kind=ValueError)
        return pad(input, self.padding, self._mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    """Padding with the number `value`."""

    def __init__(self, padding: Padding, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        """(*, L), (*, H, W) or (*, D, H, W) -> same, each dimension of space larger by what is added to it."""
        return pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class _ZeroPad(_ConstantPad):
    """Padding with zeros."""

    def __init__(self, padding: Padding) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ConstantPad1d(_ConstantPad):
    """Pads (*, L) with `value`; `padding`: a number or (left, right)."""


class ConstantPad2d(_ConstantPad):
    """Pads (*, H, W) with `value`; `padding`: a number or (left, right, top, bottom)."""

    _dims = 2


class ConstantPad3d(_ConstantPad):
    """Pads (*, D, H, W) with `value`; `padding`: a number or (left, right, top, bottom, front, back)."""

    _dims = 3


class ZeroPad1d(_ZeroPad):
    """Pads (*, L) with 0; `padding`: a number or (left, right).

        >>> nn.ZeroPad1d(1)(minigrad.ones(1, 2)).tolist()
        [[0.0, 1.0, 1.0, 0.0]]
    """


class ZeroPad2d(_ZeroPad):
    """Pads (*, H, W) with 0; `padding`: a number or (left, right, top, bottom)."""

    _dims = 2


class ZeroPad3d(_ZeroPad):
    """Pads (*, D, H, W) with 0; `padding`: a number or (left, right, top, bottom, front, back)."""

    _dims = 3


class ReflectionPad1d(_Pad):
    """Pads (N, C, L) or (C, L) with what is mirrored at the border element, which is not repeated."""

    _mode = "reflect"


class ReflectionPad2d(_Pad):
    """Pads (N, C, H, W) or (C, H, W) with what is mirrored at the border elements, which are not repeated.

        >>> nn.ReflectionPad2d((1, 0, 0, 0))(minigrad.arange(3.0).reshape(1, 1, 3)).tolist()
        [[[1.0, 0.0, 1.0, 2.0]]]
    """

    _dims, _mode = 2, "reflect"


class ReflectionPad3d(_Pad):
    """Pads (N, C, D, H, W) or (C, D, H, W) with what is mirrored at the border elements, which are not repeated."""

    _dims, _mode = 3, "reflect"


class ReplicationPad1d(_Pad):
    """Pads (N, C, L) or (C, L) with the border element."""

    _mode = "replicate"


class ReplicationPad2d(_Pad):
    """Pads (N, C, H, W) or (C, H, W) with the border elements."""

    _dims, _mode = 2, "replicate"


class ReplicationPad3d(_Pad):
    """Pads (N, C, D, H, W) or (C, D, H, W) with the border elements."""

    _dims, _mode = 3, "replicate"


class CircularPad1d(_Pad):
    """Pads (N, C, L) or (C, L) with the elements of the other end."""

    _mode = "circular"


class CircularPad2d(_Pad):
    """Pads (N, C, H, W) or (C, H, W) with the elements of the other end."""

    _dims, _mode = 2, "circular"


class CircularPad3d(_Pad):
    """Pads (N, C, D, H, W) or (C, D, H, W) with the elements of the other end."""

    _dims, _mode = 3, "circular"
