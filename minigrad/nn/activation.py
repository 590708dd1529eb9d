"""Activations: each function with its layer. The ops and their kernels are in `ops/activation.py`.

All work element by element and keep the shape, but `glu` (it halves a dimension) and `softmax`, `log_softmax` (along
a dimension). `inplace=True` writes the result into the memory of the input.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..core.shape import fail
from ..core.tensor import Tensor
from ..core.warning import warn
from ..ops import activation as ops
from ..ops.creation import empty
from ..ops.formula import formula
from ..ops.index import one_hot
from ..ops.math import add, ge, gt, le, log, logical_and, lt, mul, neg, sub, where
from ..ops.math import tanh as tanh_op
from ..ops.random import rand_like
from ..ops.softmax import log_softmax as log_softmax_op
from ..ops.softmax import softmax as softmax_op
from . import init
from .arguments import DeviceLike, DtypeLike, write_back
from .module import Module, Parameter


class _Inplace(Module):
    """An activation whose only option is `inplace`."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


def _and_inplace(inplace: bool) -> str:
    """What `extra_repr` says of `inplace` after other options."""
    return ", inplace=True" if inplace else ""


# ---- rectifiers: max(x, 0) and functions of its form ----


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0)"""
    return write_back("relu", input, ops.relu) if inplace else ops.relu(input)


class ReLU(_Inplace):
    """max(x, 0)"""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)"""
        return relu(input, self.inplace)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6)"""
    return write_back("relu6", input, ops.relu6) if inplace else ops.relu6(input)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """max(x, 0) + negative_slope min(x, 0)"""
    if inplace:
        return write_back("leaky_relu", input, ops.leaky_relu, negative_slope=negative_slope)
    return ops.leaky_relu(input, negative_slope=negative_slope)


class LeakyReLU(Module):
    """max(x, 0) + negative_slope min(x, 0)"""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope, self.inplace = negative_slope, inplace

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)"""
        return leaky_relu(input, self.negative_slope, self.inplace)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}{_and_inplace(self.inplace)}"


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """max(x, 0) + weight min(x, 0) (He et al. 2015): weight has one slope, or one for each channel (dimension 1)."""
    return ops.prelu(input, weight)


class PReLU(Module):
    """max(x, 0) + weight min(x, 0) with trained slopes: one, or one for each channel (dimension 1) (He et al. 2015)."""

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: DeviceLike = None,
                 dtype: DtypeLike = None) -> None:
        super().__init__()
        self.num_parameters, self.init = num_parameters, init
        self.weight = Parameter(empty(num_parameters, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets all slopes to `init`."""
        init.constant_(self.weight, self.init)

    def forward(self, input: Tensor) -> Tensor:
        """(N, num_parameters, *) -> same; any shape if there is one slope."""
        return ops.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class _Alpha(Module):
    """What ELU and CELU share: the options `alpha` and `inplace`."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha, self.inplace = alpha, inplace

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}{_and_inplace(self.inplace)}"


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """max(x, 0) + min(alpha (e^x - 1), 0) (Clevert et al. 2015)"""
    return write_back("elu", input, ops.elu, alpha=alpha) if inplace else ops.elu(input, alpha=alpha)


class ELU(_Alpha):
    """max(x, 0) + min(alpha (e^x - 1), 0) (Clevert et al. 2015)"""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)"""
        return elu(input, self.alpha, self.inplace)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """max(x, 0) + min(alpha (e^(x / alpha) - 1), 0) (Barron 2017)"""
    return write_back("celu", input, ops.celu, alpha=alpha) if inplace else ops.celu(input, alpha=alpha)


class CELU(_Alpha):
    """max(x, 0) + min(alpha (e^(x / alpha) - 1), 0) (Barron 2017)"""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)"""
        return celu(input, self.alpha, self.inplace)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """scale (max(x, 0) + min(alpha (e^x - 1), 0)), alpha = 1.6732632, scale = 1.0507010 (Klambauer et al. 2017)"""
    return write_back("selu", input, ops.selu) if inplace else ops.selu(input)


class SELU(_Inplace):
    """scale (max(x, 0) + min(alpha (e^x - 1), 0)), alpha and scale as in Klambauer et al. 2017"""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)"""
        return selu(input, self.inplace)


# ---- smooth gates: x times a number from 0 to 1 that grows with x ----


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x Phi(x), Phi the distribution function of N(0, 1) (Hendrycks and Gimpel 2016).

    `approximate="tanh"`: x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2. Other words raise RuntimeError.
    """
    if approximate not in ("none", "tanh"):
        raise RuntimeError(f"[gelu] approximate must be 'none' or 'tanh'; got {approximate!r}")
    return ops.gelu(input, approximate)


class GELU(Module):
    """x Phi(x), Phi the distribution function of N(0, 1); `approximate="tanh"` is its usual approximation."""

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)"""
        return gelu(input, approximate=self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x sigmoid(x) (Elfwing et al. 2017)"""
    return write_back("silu", input, ops.silu) if inplace else ops.silu(input)


class SiLU(_Inplace):
    """x sigmoid(x) (Elfwing et al. 2017)"""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)"""
        return silu(input, self.inplace)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x tanh(softplus(x)) (Misra 2019)"""
    return write_back("mish", input, ops.mish) if inplace else ops.mish(input)


class Mish(_Inplace):
    """x tanh(softplus(x)) (Misra 2019)"""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)"""
        return mish(input, self.inplace)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x relu6(x + 3) / 6 (Howard et al. 2019)"""
    return write_back("hardswish", input, ops.hardswish) if inplace else ops.hardswish(input)


class Hardswish(_Inplace):
    """x relu6(x + 3) / 6 (Howard et al. 2019)"""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)"""
        return hardswish(input, self.inplace)

    def extra_repr(self) -> str:
        return ""


# ---- sigmoids and other bounded functions ----


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + e^-x)"""
    return ops.sigmoid(input)


class Sigmoid(Module):
    """1 / (1 + e^-x)"""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)"""
        return ops.sigmoid(input)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """relu6(x + 3) / 6"""
    return write_back("hardsigmoid", input, ops.hardsigmoid) if inplace else ops.hardsigmoid(input)


class Hardsigmoid(_Inplace):
    """relu6(x + 3) / 6"""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)"""
        return hardsigmoid(input, self.inplace)

    def extra_repr(self) -> str:
        return ""


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x))"""
    return ops.logsigmoid(input)


class LogSigmoid(Module):
    """log(sigmoid(x))"""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)"""
        return ops.logsigmoid(input)


def tanh(input: Tensor) -> Tensor:
    """(e^x - e^-x) / (e^x + e^-x)"""
    return ops.tanh(input)


class Tanh(Module):
    """(e^x - e^-x) / (e^x + e^-x)"""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)"""
        return ops.tanh(input)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """min(max(x, min_val), max_val); raises ValueError if min_val > max_val."""
    if min_val > max_val:
        raise ValueError(f"[hardtanh] min_val cannot be greater than max_val; got {min_val} and {max_val}")
    if inplace:
        return write_back("hardtanh", input, ops.hardtanh, min_val=min_val, max_val=max_val)
    return ops.hardtanh(input, min_val=min_val, max_val=max_val)


class Hardtanh(Module):
    """min(max(x, min_val), max_val); `min_value` and `max_value` are old names of the two."""

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False,
                 min_value: float | None = None, max_value: float | None = None) -> None:
        super().__init__()
        if min_value is not None:
            warn("`min_value` is the old name of `min_val`", FutureWarning)
            min_val = min_value
        if max_value is not None:
            warn("`max_value` is the old name of `max_val`", FutureWarning)
            max_val = max_value
        if max_val <= min_val:
            raise AssertionError(f"[nn.Hardtanh] max_val must be greater than min_val; got {max_val} and {min_val}")
        self.min_val, self.max_val, self.inplace = min_val, max_val, inplace

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)"""
        return hardtanh(input, self.min_val, self.max_val, self.inplace)

    def extra_repr(self) -> str:
        return f"min_val={self.min_val}, max_val={self.max_val}{_and_inplace(self.inplace)}"


class ReLU6(Hardtanh):
    """min(max(x, 0), 6)"""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(0.0, 6.0, inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|)"""
    return ops.softsign(input)


class Softsign(Module):
    """x / (1 + |x|)"""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)"""
        return ops.softsign(input)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + e^(beta x)) / beta, and x itself where beta x > threshold."""
    return ops.softplus(input, beta=beta, threshold=threshold)


class Softplus(Module):
    """log(1 + e^(beta x)) / beta, and x itself where beta x > threshold."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = beta, threshold

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)"""
        return ops.softplus(input, beta=self.beta, threshold=self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


# ---- thresholds and shrinkage ----


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where x > threshold, else value"""
    if inplace:
        return write_back("threshold", input, ops.threshold, threshold, value)
    return ops.threshold(input, threshold, value)


class Threshold(Module):
    """x where x > threshold, else value"""

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__()
        self.threshold, self.value, self.inplace = threshold, value, inplace

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)"""
        return threshold(input, self.threshold, self.value, self.inplace)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, value={self.value}{_and_inplace(self.inplace)}"


def _shrink_samples(make: Any) -> Iterator[tuple]:
    for shape, lambd in (((3, 5), 0.5), ((33,), 1.0), ((0, 4), 0.5), ((), 0.0)):
        yield make(*shape), lambd


@formula
def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x where x > lambd or x < -lambd, else 0. Any shape -> same (Donoho and Johnstone 1994, hard thresholding)."""
    return where(logical_and(ge(input, -1.0 * lambd), le(input, lambd)), 0.0, input)     # a uint8 of NumPy wraps


hardshrink.samples(_shrink_samples)
hardshrink.reference(lambda x, lambd=0.5: np.where((x >= -lambd) & (x <= lambd), 0, x))


@formula
def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x - lambd where x > lambd, x + lambd where x < -lambd, else 0. Any shape -> same (Donoho and Johnstone 1994, soft
    thresholding). RuntimeError for a negative `lambd`."""
    if lambd < 0:
        fail("softshrink", "lambda must be greater or equal to 0", lambd)
    lambd = 1.0 * lambd                                             # -lambd of a uint8 of NumPy wraps
    return where(gt(input, lambd), sub(input, lambd), where(lt(input, -lambd), add(input, lambd), mul(input, 0.0)))


softshrink.samples(_shrink_samples)
softshrink.reference(lambda x, lambd=0.5: np.sign(x) * np.maximum(np.abs(x) - lambd, 0))


@softshrink.errors
def _softshrink_errors(make: Any) -> Iterator[tuple]:
    yield (make(3), -1.0, {}), RuntimeError, "greater or equal to 0"


class _Shrink(Module):
    """What Hardshrink and Softshrink share: the option `lambd`."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def extra_repr(self) -> str:
        return str(self.lambd)


class Hardshrink(_Shrink):
    """x where x > lambd or x < -lambd, else 0"""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)"""
        return hardshrink(input, self.lambd)


class Softshrink(_Shrink):
    """x - lambd where x > lambd, x + lambd where x < -lambd, else 0"""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)"""
        return softshrink(input, self.lambd)


@formula
def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x). Any shape -> same."""
    return sub(input, tanh_op(input))


@tanhshrink.samples
def _tanhshrink_samples(make: Any) -> Iterator[tuple]:
    for shape in ((3, 5), (33,), (0, 4), ()):
        yield make(*shape),


tanhshrink.reference(lambda x: x - np.tanh(x))


class Tanhshrink(Module):
    """x - tanh(x)"""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)"""
        return tanhshrink(input)


def rrelu(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False,
          inplace: bool = False) -> Tensor:
    """x where x > 0, else a x: in training each element has its own a from U(lower, upper), else a is their mean, which
    makes it `leaky_relu` (Xu et al. 2015). Any shape -> same. RuntimeError unless lower <= upper, both finite.
    """
    if not -np.inf < lower <= upper < np.inf:
        fail("rrelu", "needs finite numbers lower <= upper", [lower, upper])
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    return write_back("rrelu", input, _randomly_leaky, lower, upper) if inplace else \
        _randomly_leaky(input, lower, upper)


def _randomly_leaky(input: Tensor, lower: float, upper: float) -> Tensor:
    slope = add(mul(rand_like(input), upper - lower), lower)
    return where(gt(input, 0), input, mul(input, slope))


class RReLU(Module):
    """x where x > 0, else a x with a random a from U(lower, upper) in training, their mean else (Xu et al. 2015)."""

    def __init__(self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False) -> None:
        super().__init__()
        self.lower, self.upper, self.inplace = lower, upper, inplace

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)"""
        return rrelu(input, self.lower, self.upper, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"lower={self.lower}, upper={self.upper}{_and_inplace(self.inplace)}"


# ---- along a dimension ----


class _AlongDim(Module):
    """An activation whose only option is the dimension it works along."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """a sigmoid(b), a and b the halves of the input along `dim` (Dauphin et al. 2016): that size is halved.

    Raises RuntimeError if the size along `dim` is odd, or if the input has no dimensions.
    """
    if input.ndim == 0:
        raise RuntimeError("[glu] input must have a dimension of even size; got a scalar")
    return ops.glu(input, dim)


class GLU(_AlongDim):
    """a sigmoid(b), a and b the halves of the input along `dim` (Dauphin et al. 2016)."""

    dim: int

    def __init__(self, dim: int = -1) -> None:
        super().__init__(dim)

    def forward(self, input: Tensor) -> Tensor:
        """(*, 2n, *) -> (*, n, *)"""
        return glu(input, self.dim)


def _implicit_dim(name: str, ndim: int) -> int:
    """The dimension that PyTorch takes where none is given, with a warning."""
    warn(f"Implicit dimension choice for {name} is deprecated; pass dim=")
    return 0 if ndim in (0, 1, 3) else 1


def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DtypeLike = None) -> Tensor:
    """e^x / sum(e^x) along `dim`; `dtype` casts the input first. `dim=None` warns and takes 0 or 1; the warning
    finds the caller's line itself, whatever `_stacklevel` is."""
    dim = _implicit_dim("softmax", input.ndim) if dim is None else dim
    return softmax_op(input if dtype is None else input.to(dtype), dim)


class Softmax(_AlongDim):
    """e^x / sum(e^x) along `dim`"""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)"""
        return softmax(input, self.dim)


def log_softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DtypeLike = None) -> Tensor:
    """x - log(sum(e^x)) along `dim`; `dtype` casts the input first. `dim=None` warns and takes 0 or 1; the warning
    finds the caller's line itself, whatever `_stacklevel` is."""
    dim = _implicit_dim("log_softmax", input.ndim) if dim is None else dim
    return log_softmax_op(input if dtype is None else input.to(dtype), dim)


class LogSoftmax(_AlongDim):
    """x - log(sum(e^x)) along `dim`"""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)"""
        return log_softmax(input, self.dim)


def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DtypeLike = None) -> Tensor:
    """`softmax` of -x: e^-x / sum(e^-x) along `dim`, with the same arguments. `_stacklevel` is without effect."""
    dim = _implicit_dim("softmin", input.ndim) if dim is None else dim
    return softmax(neg(input), dim, dtype=dtype)


class Softmin(_AlongDim):
    """e^-x / sum(e^-x) along `dim`"""

    def forward(self, input: Tensor) -> Tensor:
        """(*) -> (*)"""
        return softmin(input, self.dim)


class Softmax2d(Module):
    """e^x / sum(e^x) over the channels of an image, at each of its places."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) or (C, H, W) -> same. ValueError for another number of dimensions."""
        if input.ndim not in (3, 4):
            raise ValueError(f"Softmax2d: expected input to be 3D or 4D, got {input.ndim}D instead")
        return softmax_op(input, -3)


def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """A random choice that has a gradient: softmax((logits + g) / tau) along `dim`, g drawn from the Gumbel
    distribution (Jang, Gu and Poole 2017; Maddison, Mnih and Teh 2017). Any shape -> same.

    With `hard` the result is one-hot, the largest entry of the softmax, and the gradient that of the softmax. `eps` has
    no effect, as in PyTorch, and warns.
    """
    if eps != 1e-10:
        warn("`eps` parameter is deprecated and has no effect.")
    exponential = neg(log(sub(1.0, rand_like(logits))))
    soft = softmax_op((logits - log(exponential)) / tau, dim)
    if not hard:
        return soft
    chosen = one_hot(soft.detach().argmax(dim), logits.shape[dim]).to(soft.dtype).movedim(-1, dim)
    # detached: by definition of `hard`, the value is that of `chosen`, and the gradient that of `soft`
    return chosen - soft.detach() + soft
