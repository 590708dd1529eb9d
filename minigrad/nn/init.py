"""Initial values of parameters: every function fills its tensor in place, unrecorded, and returns it.

`fan_in` is the number of inputs that one output sums over (columns of a `Linear` weight times the kernel elements of a
convolution), `fan_out` the number of outputs that one input reaches. `generator` draws the numbers, by default the
global one.
"""
from __future__ import annotations

import math

import numpy as np

from ..core.modes import no_grad
from ..core.tensor import Tensor
from ..core.warning import warn
from ..ops.creation import as_tensor, empty_like, eye
from ..ops.math import where
from ..ops.random import Generator, randperm

__all__ = ["calculate_gain", "uniform_", "normal_", "trunc_normal_", "constant_", "ones_", "zeros_", "eye_", "dirac_",
           "xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_", "orthogonal_", "sparse_"]

_LINEAR = ("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
           "sigmoid")


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The gain that keeps the variance of activations: 1 for linear maps and sigmoid, 5/3 for tanh, sqrt(2) for relu,
    sqrt(2 / (1 + slope^2)) for leaky_relu, 3/4 for selu."""
    if nonlinearity in _LINEAR:
        return 1.0
    if nonlinearity == "tanh":
        return 5.0 / 3.0
    if nonlinearity == "relu":
        return math.sqrt(2.0)
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, int | float):
            raise ValueError(f"[calculate_gain] the slope of leaky_relu must be a number; got {param!r}")
        return math.sqrt(2.0 / (1.0 + slope**2))
    if nonlinearity == "selu":
        return 0.75
    known = ", ".join((*_LINEAR, "tanh", "relu", "leaky_relu", "selu"))
    raise ValueError(f"[calculate_gain] nonlinearity must be one of {known}; got {nonlinearity!r}")


@no_grad()
def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """U(a, b)."""
    return tensor.uniform_(a, b, generator=generator)


@no_grad()
def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """N(mean, std^2)."""
    return tensor.normal_(mean, std, generator=generator)


@no_grad()
def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
                  generator: Generator | None = None) -> Tensor:
    """N(mean, std^2) cut to [a, b], by rejection: from the normal where that keeps most draws, else from U(a, b)."""
    if mean < a - 2 * std or mean > b + 2 * std:
        warn("nn.init.trunc_normal_: mean is more than 2 std from [a, b]; "
             "the distribution of values may be incorrect")

    def cdf(x: float) -> float:
        return 0.5 * (1.0 + math.erf((x - mean) / (std * math.sqrt(2.0))))

    def draw() -> tuple[Tensor, Tensor]:        # values, and which of them are accepted
        x = empty_like(tensor)
        if cdf(b) - cdf(a) > 0.3:
            x.normal_(mean, std, generator=generator)
            return x, (x >= a) & (x <= b)
        x.uniform_(a, b, generator=generator)
        peak = ((min(max(mean, a), b) - mean) / std) ** 2
        return x, empty_like(tensor).uniform_(generator=generator).log() <= (peak - ((x - mean) / std) ** 2) * 0.5

    if not (math.isfinite(mean) and 0 < std < math.inf and a < b):
        raise ValueError("[trunc_normal_] expected a finite mean, std > 0 and a < b; "
                         f"got mean {mean}, std {std}, a {a}, b {b}")
    values, good = draw()
    for _ in range(10_000):
        if bool(good.all()):
            break
        again, accepted = draw()
        values, good = where(good, values, again), good | accepted
    else:
        raise RuntimeError(f"[trunc_normal_] [{a}, {b}] lies too far from mean {mean}, std {std} to draw from")
    return tensor.copy_(values)


@no_grad()
def constant_(tensor: Tensor, val: float) -> Tensor:
    """All values `val`."""
    return tensor.fill_(val)


@no_grad()
def ones_(tensor: Tensor) -> Tensor:
    """All values 1."""
    return tensor.fill_(1.0)


@no_grad()
def zeros_(tensor: Tensor) -> Tensor:
    """All values 0."""
    return tensor.zero_()


@no_grad()
def eye_(tensor: Tensor) -> Tensor:
    """The identity matrix, cut or zero-padded to the shape of a 2-d tensor."""
    if tensor.ndim != 2:
        raise ValueError(f"[eye_] Only tensors with 2 dimensions are supported; got {tensor.layout}")
    return tensor.copy_(eye(*tensor.shape, dtype=tensor.dtype, device=tensor.device))


@no_grad()
def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """A convolution weight (out, in, *kernel) that passes its input channels through, in each of `groups` groups."""
    if tensor.ndim not in (3, 4, 5):
        raise ValueError(f"[dirac_] Only tensors with 3, 4, or 5 dimensions are supported; got {tensor.layout}")
    if tensor.shape[0] % groups != 0:
        raise ValueError(f"[dirac_] dim 0 must be divisible by groups; got {tensor.layout}, groups {groups}")
    values = np.zeros(tuple(tensor.shape), np.float64)
    centre = tuple(k // 2 for k in tensor.shape[2:])
    each = tensor.shape[0] // groups
    for g in range(groups):
        for d in range(min(each, tensor.shape[1])):
            place = (g * each + d, d, *centre)
            values[place] = 1.0
    return tensor.copy_(as_tensor(values))


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    """fan_in and fan_out of a weight (out, in, *kernel)."""
    if tensor.ndim < 2:
        raise ValueError(f"[init] a tensor with fewer than 2 dimensions has no fan in and fan out; got {tensor.layout}")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def _fan(tensor: Tensor, mode: str) -> int:
    """fan_in or fan_out, as `mode` says."""
    modes = ["fan_in", "fan_out"]
    if mode.lower() not in modes:
        raise ValueError(f"[init] mode must be one of {modes}; got {mode!r}")
    return _calculate_fan_in_and_fan_out(tensor)[modes.index(mode.lower())]


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """U(-a, a), a = gain sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""
    a = gain * math.sqrt(6.0 / sum(_calculate_fan_in_and_fan_out(tensor)))
    return uniform_(tensor, -a, a, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """N(0, s^2), s = gain sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(_calculate_fan_in_and_fan_out(tensor))), generator)


def _nothing_to_do(tensor: Tensor) -> bool:
    """Has the tensor no elements? Then there is a warning."""
    if 0 in tensor.shape:
        warn("Initializing zero-element tensors is a no-op")
    return 0 in tensor.shape


def kaiming_uniform_(tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
                     generator: Generator | None = None) -> Tensor:
    """U(-b, b), b = gain sqrt(3 / fan) (He et al. 2015); `a` is the slope of a leaky_relu that follows the layer."""
    if _nothing_to_do(tensor):
        return tensor
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3.0 / _fan(tensor, mode))
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
                    generator: Generator | None = None) -> Tensor:
    """N(0, s^2), s = gain / sqrt(fan) (He et al. 2015); `a` is the slope of a leaky_relu that follows the layer."""
    if _nothing_to_do(tensor):
        return tensor
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode)), generator)


@no_grad()
def orthogonal_(tensor: Tensor, gain: float = 1, generator: Generator | None = None) -> Tensor:
    """`gain` times a uniformly drawn (semi-)orthogonal matrix, trailing dimensions flattened (Saxe et al. 2013)."""
    if tensor.ndim < 2:
        raise ValueError(f"[orthogonal_] Only tensors with 2 or more dimensions are supported; got {tensor.layout}")
    if 0 in tensor.shape:
        return tensor
    rows = tensor.shape[0]
    normal = empty_like(tensor).normal_(0.0, 1.0, generator=generator).numpy().reshape(rows, -1).astype(np.float64)
    q, r = np.linalg.qr(normal if rows >= normal.shape[1] else normal.T)
    q = q * np.sign(np.diagonal(r))             # makes the draw uniform over the orthogonal group (Mezzadri 2007)
    q = q if rows >= normal.shape[1] else q.T
    return tensor.copy_(as_tensor(gain * q.reshape(tuple(tensor.shape))))


@no_grad()
def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> Tensor:
    """N(0, std^2) with the share `sparsity` of each column set to 0 (Martens 2010); 2-d tensors."""
    if tensor.ndim != 2:
        raise ValueError(f"[sparse_] Only tensors with 2 dimensions are supported; got {tensor.layout}")
    rows, columns = tensor.shape
    zeros = math.ceil(sparsity * rows)
    values = empty_like(tensor).normal_(0.0, std, generator=generator).numpy().copy()
    for column in range(columns):
        values[randperm(rows, generator=generator).numpy()[:zeros], column] = 0
    return tensor.copy_(as_tensor(values))
