"""`Linear`, `Bilinear`, and the layers that only pass on or reshape: `Identity`, `Flatten`, `Unflatten`."""
from __future__ import annotations

import math
from typing import Any

from ..core.half import rounds_once
from ..core.shape import fail
from ..core.tensor import Tensor
from ..ops.creation import empty
from ..ops.einsum import einsum
from ..ops.matmul import linear as linear_op
from . import init
from .arguments import DeviceLike, DtypeLike
from .module import Module, Parameter


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input W^T + bias.

    Shapes: input (*, in), weight (out, in), bias (out) or None -> (*, out).
    """
    return linear_op(input, weight, bias)


class Linear(Module):
    """y = x W^T + b: (*, in_features) -> (*, out_features).

    `weight` (out_features, in_features) and `bias` (out_features) start in U(-k, k), k = 1 / sqrt(in_features).

        >>> nn.Linear(3, 2)(minigrad.ones(4, 3)).shape
        Size([4, 2])
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, device: DeviceLike = None,
                 dtype: DtypeLike = None) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(empty((out_features, in_features), device=device, dtype=dtype))
        self.register_parameter("bias", Parameter(empty(out_features, device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws weight and bias anew, from U(-k, k), k = 1 / sqrt(in_features)."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features > 0 else 0
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        """(*, in_features) -> (*, out_features)."""
        return linear_op(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


@rounds_once
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input1^T W_k input2 + bias_k for each k.

    Shapes: input1 (*, in1), input2 (*, in2), weight (out, in1, in2), bias (out) or None -> (*, out).
    """
    if input1.shape[:-1] != input2.shape[:-1] or weight.ndim != 3 \
            or (input1.shape[-1:], input2.shape[-1:]) != (weight.shape[1:2], weight.shape[2:]):
        fail("bilinear", "input1 must be (*, in1), input2 (*, in2) and weight (out, in1, in2)",
             [input1.layout, input2.layout, weight.layout])
    found = einsum("...i,kij,...j->...k", input1, weight, input2)
    return found if bias is None else found + bias


class Bilinear(Module):
    """y_k = x1^T W_k x2 + b_k: (*, in1_features), (*, in2_features) -> (*, out_features).

    `weight` (out_features, in1_features, in2_features) and `bias` start in U(-k, k), k = 1 / sqrt(in1_features).
    ValueError unless in1_features is positive.
    """

    def __init__(self, in1_features: int, in2_features: int, out_features: int, bias: bool = True,
                 device: DeviceLike = None, dtype: DtypeLike = None) -> None:
        super().__init__()
        if in1_features <= 0:
            raise ValueError(f"in1_features must be > 0, but got (in1_features={in1_features})")
        self.in1_features, self.in2_features, self.out_features = in1_features, in2_features, out_features
        self.weight = Parameter(empty((out_features, in1_features, in2_features), device=device, dtype=dtype))
        self.register_parameter("bias", Parameter(empty(out_features, device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws weight and bias anew, from U(-k, k), k = 1 / sqrt(in1_features)."""
        bound = 1 / math.sqrt(self.in1_features)
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        """(*, in1_features), (*, in2_features) -> (*, out_features)."""
        return bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
                f"out_features={self.out_features}, bias={self.bias is not None}")


class Identity(Module):
    """Returns its input. The constructor takes any arguments and ignores them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        """The input itself."""
        return input


class Flatten(Module):
    """Merges the dimensions from `start_dim` to `end_dim` into one: (N, C, H, W) -> (N, C * H * W) by default."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        """`input.flatten(start_dim, end_dim)`."""
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Splits dimension `dim` into the dimensions `unflattened_size`, one of which may be -1."""

    def __init__(self, dim: int, unflattened_size: tuple[int, ...]) -> None:
        super().__init__()
        if not isinstance(unflattened_size, tuple | list):
            raise TypeError("[nn.Unflatten] unflattened_size must be a tuple of ints; "
                            f"got {type(unflattened_size).__name__}")
        for i, n in enumerate(unflattened_size):
            if not isinstance(n, int):
                raise TypeError("[nn.Unflatten] unflattened_size must be a tuple of ints; "
                                f"got {type(n).__name__} at position {i}")
        self.dim, self.unflattened_size = dim, unflattened_size

    def forward(self, input: Tensor) -> Tensor:
        """`input.unflatten(dim, unflattened_size)`."""
        return input.unflatten(self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
