"""Convolution and transposed convolution over any number of spatial dimensions (native/conv.c: one to three;
native/winograd.c: 3 x 3 with many channels).

A tap is one position of the convolution's kernel. The definitions are sums over the taps: the part of x that the tap
reaches, times the weights of the tap. The functions and layers of `minigrad.nn`, which have PyTorch's names and
options, convert padding modes and inputs without a batch dimension to the form of these ops.
"""
from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Any

import numpy as np

from ..core.arrays import dense
from ..core.half import autocast_to_half, rounded_array, unrounded
from ..core.messages import one_dtype
from ..core.op import Op, address, op, same_dtypes
from ..core.shape import fail
from ..core.tensor import Tensor
from ..devices.base import KernelTable, NoKernel
from ..devices.launch import BLOCKS, Launch, ceil_div, launch, over
from ..devices.memory import Array, Layout, alloc, layout
from ..devices.plan import is_half, reduce_plan
from ..devices.work import work
from .again import Again
from .arguments import whole
from .math import add
from .matmul import matmul
from .reduce import sum_op
from .through import through
from .view import as_matrix_transpose, as_reshaped, place_op, windowed

Sizes = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]


def conv_sizes(size: Sizes, kernel: Sizes, stride: Sizes, padding: Pairs, dilation: Sizes) -> Sizes:
    """The spatial sizes of the output: (in + padding - dilation * (kernel - 1) - 1) // stride + 1."""
    return tuple([(n + sum(p) - d * (k - 1) - 1) // s + 1
                  for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)])


def transposed_sizes(size: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, output_padding: Sizes,
                     dilation: Sizes) -> Sizes:
    """The spatial sizes of the transposed convolution's output:

        (in - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1
    """
    return tuple([(n - 1) * s - 2 * p + d * (k - 1) + o + 1
                  for n, k, s, p, o, d in zip(size, kernel, stride, padding, output_padding, dilation, strict=True)])


def _taps(weight: Tensor, groups: int) -> Iterator[tuple[Sizes, Tensor]]:
    """Each tap's position in the kernel, and its weights (groups, weight.shape[0] / groups, weight.shape[1])."""
    rows, columns, *kernel = weight.shape
    for tap in product(*map(range, kernel)):
        at_tap = through(windowed, weight, (whole(rows), whole(columns), *tap))
        yield tap, through(as_reshaped, at_tap, (groups, rows // groups, columns))


def _with_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    """y (N, K, *) + bias (K,)."""
    return y if bias is None else add(y, through(as_reshaped, bias, (bias.shape[0], *(1,) * (y.ndim - 2))))


# ---- convolution -----------------------------------------------------------------------------------------------------

@autocast_to_half
@op
def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: Sizes, padding: Pairs, dilation: Sizes,
                groups: int) -> Tensor:
    """Cross-correlation (LeCun et al. 1998): each output is a weighted sum of the inputs under the kernel.

        y[n, k, o] = bias[k] + sum over c, tap of weight[k, c, tap] x[n, c, o stride - before + tap dilation]

    Outside of its sizes x counts as 0. `padding` is (before, after) for each spatial dimension. The channels of x and y
    are split into `groups` groups, and each group of y is computed from the same group of x.

    Shapes: x (N, C, *), weight (K, C / groups, *kernel), bias (K,) or None -> y (N, K, *).
    """
    n, c, *size = x.shape
    k, _, *kernel = weight.shape
    out = conv_sizes(tuple(size), tuple(kernel), stride, padding, dilation)
    if any(sum(p) for p in padding):
        around = tuple([a + m + b for m, (a, b) in zip(size, padding, strict=True)])
        inside = [(a, 1, m) for m, (a, _) in zip(size, padding, strict=True)]
        x = place_op(x, shape=(n, c, *around), key=(whole(n), whole(c), *inside))
    y: Any = None
    for tap, w in _taps(weight, groups):
        window = tuple([(t * d, s, m) for t, d, s, m in zip(tap, dilation, stride, out, strict=True)])
        reached = through(windowed, x, (whole(n), whole(c), *window))
        part = matmul(w, through(as_reshaped, reached, (n, groups, c // groups, prod(out))))
        y = part if y is None else add(y, part)
    return _with_bias(through(as_reshaped, y, (n, k, *out)), bias)


def _same_rank(name: str, x: Layout, weight: Layout, bias: Layout | None, outputs: int, **numbers: Any) -> None:
    """What both ops require of dimensions, dtypes, and the numbers for each spatial dimension."""
    dims = x.ndim - 2
    if dims < 1 or weight.ndim != x.ndim:
        fail(name, "input must be (N, C, *space) and weight have as many dimensions",
             [f"input {x}", f"weight {weight}"])
    for key, value in numbers.items():
        if len(value) != dims:
            fail(name, f"{key} must have one entry for each of the {dims} spatial dimensions",
                 [f"input {x}", f"{key} {value}"])
    for key, least in (("stride", 1), ("dilation", 1), ("output_padding", 0)):
        if any(v < least for v in numbers.get(key, ())):
            fail(name, f"{key} must be at least {least}", f"{key} {numbers[key]}")
    if any(v < 0 for p in numbers["padding"] for v in (p if isinstance(p, tuple) else (p,))):
        fail(name, "padding must not be negative", f"padding {numbers['padding']}", "cut the input instead")
    if any(n < 1 for n in weight.shape[2:]):
        fail(name, "the kernel must have at least one element", f"weight {weight}")
    if bias is not None and bias.shape != (outputs,):
        fail(name, f"bias must have one value for each of the {outputs} output channels",
             [f"weight {weight}", f"bias {bias}"])
    for p in (weight, bias):
        if p is not None and p.dtype != x.dtype:
            fail(name, "input, weight and bias must have one dtype",
                 [f"input {x}", f"weight {weight}", *([f"bias {bias}"] if bias else [])],
                 one_dtype(x.dtype, weight.dtype))
    if x.dtype.kind == "b":
        fail(name, "needs numbers", x, "convert with .float()")


def check_channels(name: str, x: Layout, weight: Layout, channels: int) -> None:
    """Refuses an input (N, C, *space), or (C, *space) without a batch, whose C is not `channels`, and says where they
    may have gone."""
    dims = weight.ndim - 2
    at = x.ndim - dims - 1
    if x.shape[at] == channels:
        return
    last = (*range(at), x.ndim - 1, *range(at, x.ndim - 1))
    if x.shape[-1] == channels and channels > 1 or x.shape[-1] == 1 == channels and at:
        fix = f"where the channels are the last dimension, use input.permute{last}"
    elif at == 0 and channels == 1:
        fix = "for a batch of inputs with one channel, use input.unsqueeze(1)"
    elif at == 0:
        fix = "dimension 0 is not the batch here: add it with input.unsqueeze(0), or the channels with unsqueeze(1)"
    else:
        fix = f"give the layer {x.shape[at]} input channels, or the input {channels}"
    fail(name, f"the channels of the input, its dimension {at}, must be {channels}", [f"input {x}", f"weight {weight}"],
         fix)


@convolution.check
def _convolution_rule(x: Layout, weight: Layout, bias: Layout | None, *, stride: Sizes, padding: Pairs, dilation: Sizes,
                      groups: int) -> None:
    name = f"conv{weight.ndim - 2}d"
    _same_rank(name, x, weight, bias, weight.shape[0] if weight.ndim else 0, stride=stride, padding=padding,
               dilation=dilation)
    if groups < 1 or weight.shape[0] % groups or weight.shape[0] < groups:
        fail(name, "groups must divide the output channels (dimension 0 of weight)",
             [f"weight {weight}", f"groups {groups}"])
    check_channels(name, x, weight, weight.shape[1] * groups)
    out = conv_sizes(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    if any(n < 1 for n in out):
        fail(name, "the kernel (with dilation) must not be larger than the padded input",
             [f"input {x}", f"weight {weight}", f"padding {list(padding)}", f"dilation {list(dilation)}"],
             "use a smaller kernel or more padding")


def _geometry(x: Layout, weight: Layout, y: Layout, stride: Sizes, before: Sizes, dilation: Sizes,
              groups: int) -> tuple[Array, int]:
    """The table `geometry` of native/conv.c for the convolution x -> y, and the number of partial sums in which the
    kernel computes the gradient of the weights."""
    def three(values: Sizes, fill: int) -> list[int]:
        return [fill] * (3 - len(values)) + list(values)
    space, kernel, out = x.shape[2:], weight.shape[2:], y.shape[2:]
    reach = [n + p + d * (k - 1) for n, p, d, k in zip(space, before, dilation, kernel, strict=True)]
    if prod(reach) > 16 * (prod(space) + prod(out)) + 4096:
        raise NoKernel("the kernels copy the input with its padding, and this padding is far larger than the input")
    # with one output the stride has no effect, with one tap the dilation has none: small numbers then keep sums in
    # int64
    stride = tuple([s if o > 1 else min(s, r) for s, o, r in zip(stride, out, reach, strict=True)])
    dilation = tuple([d if k > 1 else 1 for d, k in zip(dilation, kernel, strict=True)])
    numbers = [x.shape[0], groups, x.shape[1] // groups, y.shape[1] // groups, *three(space, 1), *three(out, 1),
               *three(kernel, 1), *three(stride, 1), *three(before, 0), *three(dilation, 1)]
    ends = [(o - 1) * s + d * (k - 1) for o, s, d, k in zip(out, stride, dilation, kernel, strict=True)]
    if max(prod(reach), prod(out), *ends, x.size // x.shape[0], y.size // y.shape[0], weight.size // groups) >= 1 << 31:
        raise NoKernel("the kernels take images, and the weights of a group, of less than 2^31 elements")
    positions = y.shape[0] * prod(y.shape[2:])
    most = 8 if x.device.type == "cpu" else 256             # a GPU has more to do at once
    chunks = max(1, min(most, positions // 512, max(x.size, y.size) // weight.size))
    return x.device.constant(np.array(numbers, np.int64)), chunks


def _fits(x: Layout, weight: Layout, y: Layout) -> None:
    """Raises NoKernel where the kernels do not apply."""
    if x.ndim > 5:
        raise NoKernel(f"kernels take up to 3 spatial dimensions; got {x.ndim - 2}")
    if not x.size or not weight.size or not y.size:
        raise NoKernel("there are no elements")


def _launches(kernels: KernelTable, x: Layout, weight: Layout, bias: Layout | None, y: Layout,
              geometry: tuple[Array, int], transposed: bool) -> Any:
    """Forward and backward of a convolution x -> y, or of its transpose, which uses the same three kernels with x and y
    exchanged. What they write is float32 for half precision, and rounded then."""
    there, back = kernels.conv_forward[x.dtype], kernels.conv_backward_input[x.dtype]
    if transposed:
        there, back = back, there
    backward_weight, total = kernels.conv_backward_weight[x.dtype], kernels.sum[x.dtype]
    table, chunks = geometry
    sums = unrounded(x, (chunks * weight.size,))
    wide = {like: unrounded(like, like.shape) for like in (x, weight, y)}
    over_space = reduce_plan(y, (0, *range(2, x.ndim)))

    def run_forward(xa: Array, wa: Array, ba: Array | None) -> Any:
        ya = alloc(wide[y])
        there.call(ya.ptr, xa.ptr, wa.ptr, address(ba), table.ptr)
        return rounded_array(ya, x.dtype), (xa, wa)

    def run_backward(saved: Any, g: Array, needs: list[bool]) -> list[Array | None]:
        xa, wa = saved
        gx = gw = gb = None
        if needs[0]:
            gx = alloc(wide[x])
            back.call(gx.ptr, g.ptr, wa.ptr, 0, table.ptr)
        if needs[1]:
            gw, scratch = alloc(wide[weight]), alloc(sums)
            source, result = (g, xa) if transposed else (xa, g)
            backward_weight.call(gw.ptr, scratch.ptr, source.ptr, result.ptr, table.ptr, chunks)
        if needs[2]:
            gb = alloc(bias)            # type: ignore[arg-type]
            total.call(gb.ptr, g.ptr, over_space.ptr)
        return [made and rounded_array(made, x.dtype) for made in (gx, gw, gb)]
    return run_forward, run_backward


@convolution.fused
def _convolution_kernels(kernels: KernelTable, x: Layout, weight: Layout, bias: Layout | None, *, stride: Sizes,
                         padding: Pairs, dilation: Sizes, groups: int) -> Any:
    same_dtypes("convolution", x, weight, bias)
    out = conv_sizes(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    y = layout(x.device, x.dtype, (x.shape[0], weight.shape[0], *out))
    _fits(x, weight, y)
    geometry = _geometry(x, weight, y, stride, tuple([p[0] for p in padding]), dilation, groups)
    return _launches(kernels, x, weight, bias, y, geometry, transposed=False)


class _Map(Again):
    """One of three bilinear maps of a convolution, whose derivatives are the other two: y = F(x, w), and its gradients
    gx = T(gy, w) and gw = G(x, gy)."""

    def __init__(self, of: Op, to: str) -> None:
        super().__init__(of)
        self.to = to

    def at(self, plan: Any, a: Tensor, b: Tensor) -> Tensor:
        """F(a, b), T(a, b) or G(a, b)."""
        left, right = dense(a.array), dense(b.array)
        made: Any = (plan.forward(left, right, None)[0] if self.to == "y" else
                     plan.backward((None, right), left, [True, False, False])[0] if self.to == "x" else
                     plan.backward((left, None), right, [False, True, False])[1])
        return self.noted(made, plan, a, b)

    def backward(self, node: Any, g: Tensor, needs: list[bool]) -> list[Tensor | None]:
        plan, (a, b) = self.kept(node)
        to_y, to_x, to_weight = _maps[self.of]
        of_a, of_b = {"y": ((to_x, g, b), (to_weight, a, g)),
                      "x": ((to_y, g, b), (to_weight, g, a)),
                      "weight": ((to_x, b, g), (to_y, a, g))}[self.to]
        return [m.at(plan, *pair) if need else None for (m, *pair), need in zip((of_a, of_b), needs, strict=True)]


_maps: dict[Op, tuple[_Map, _Map, _Map]] = {}


def _bilinear(convolve: Any) -> None:
    """Says how the derivative of a convolution is differentiated. Half precision derives it in float32."""
    _maps[convolve] = maps = (_Map(convolve, "y"), _Map(convolve, "x"), _Map(convolve, "weight"))

    def vjp(node: Any, g: Tensor, needs: list[bool]) -> list[Tensor | None] | None:
        plan, (x, weight, _), _ = node.saved
        depends = g._requires_grad or x._requires_grad and weight._requires_grad    # if not, a node says that it is 0
        if is_half(x.array.layout.dtype) or not depends:
            return None
        over_space = (0, *range(2, g.array.layout.ndim))
        return [maps[1].at(plan, g, weight) if needs[0] else None, maps[2].at(plan, x, g) if needs[1] else None,
                sum_op(g, axes=over_space, keepdim=False) if needs[2] else None]
    convolve.vjp = vjp


_bilinear(convolution)


@convolution.reference
def _convolution_reference(x: Any, weight: Any, bias: Any, *, stride: Sizes, padding: Pairs, dilation: Sizes,
                           groups: int) -> Any:
    dims = x.ndim - 2
    padded = np.pad(x, ((0, 0), (0, 0), *padding))
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, tuple(range(2, x.ndim)))
    steps = (slice(None), slice(None), *[slice(None, None, s) for s in stride],
             *[slice(None, None, d) for d in dilation])
    windows = windows[steps]
    c, k = weight.shape[1], weight.shape[0] // groups
    axes = (1, *range(2 + dims, 2 + 2 * dims)), tuple(range(1, 2 + dims))
    parts = [np.tensordot(windows[:, g * c:(g + 1) * c], weight[g * k:(g + 1) * k], axes) for g in range(groups)]
    y = np.concatenate([np.moveaxis(part, -1, 1) for part in parts], 1)
    return y if bias is None else y + bias.reshape(-1, *(1,) * dims)


def _even(stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, dims: int = 2) -> dict[str, Any]:
    """Attributes for samples, the same number in each dimension."""
    return {"stride": (stride,) * dims if isinstance(stride, int) else stride,
            "padding": ((padding, padding),) * dims if isinstance(padding, int) else padding,
            "dilation": (dilation,) * dims if isinstance(dilation, int) else dilation, "groups": groups}


@convolution.samples
def _convolution_samples(make: Any) -> Any:
    yield make(3, 1, 8, 8), make(16, 1, 3, 3), make(16), _even(padding=1)
    yield make(2, 5, 7, 9), make(33, 5, 3, 2), make(33), _even(padding=((1, 1), (0, 1)))
    yield make(2, 3, 9, 7), make(4, 3, 3, 3), None, _even(stride=2, padding=1)
    yield make(2, 4, 11, 8), make(6, 2, 3, 3), make(6), _even(stride=(3, 2), padding=2, dilation=(2, 3), groups=2)
    yield make(1, 6, 6, 33), make(6, 1, 3, 3), make(6), _even(padding=1, groups=6)
    yield make(2, 3, 9, 6), make(6, 1, 3, 2), None, _even(stride=2, padding=1, groups=3)
    yield make(5, 32, 1, 1), make(17, 32, 1, 1), make(17), _even()
    yield make(2, 3, 5, 5), make(5, 3, 1, 1), None, _even(stride=3)
    yield make(300, 2, 2, 1), make(5, 2, 2, 1), make(5), _even(stride=2)
    yield make(2, 3, 31), make(4, 3, 5), make(4), _even(stride=2, padding=2, dims=1)
    uneven = _even(stride=(1, 2, 1), padding=((1, 0), (1, 1), (0, 1)), dims=3)
    yield make(1, 2, 4, 5, 3), make(3, 2, 2, 3, 2), make(3), uneven
    yield make(1, 40, 3, 3), make(7, 40, 3, 3), make(7), _even(padding=1)
    yield make(2, 16, 7, 6), make(18, 16, 3, 3), make(18), _even(padding=1)
    yield make(1, 1, 1, 1), make(1, 1, 1, 1), make(1), _even(padding=2)
    yield make(0, 2, 4, 4), make(3, 2, 3, 3), make(3), _even()


@convolution.errors
def _convolution_errors(make: Any) -> Any:
    yield (make(2, 3, 4, 4), make(2, 3, 5, 5), None, _even()), RuntimeError, "larger than the padded input"
    shapes = r"\[conv2d\] the channels.* must be 2.*\[2, 3, 4, 4\].*\[4, 2, 3, 3\]; give the layer 3 input channels"
    yield (make(2, 3, 4, 4), make(4, 2, 3, 3), None, _even()), RuntimeError, shapes
    yield (make(2, 8, 9, 3), make(4, 3, 3, 3), None, _even()), RuntimeError, r"input.permute\(0, 3, 1, 2\)"
    yield (make(2, 9, 6), make(6, 2, 3), None, _even(groups=3, dims=1)), RuntimeError, r"must be 6.*permute\(0, 2, 1\)"
    yield (make(2, 4, 4, 4), make(3, 2, 3, 3), None, _even(groups=2)), RuntimeError, "groups must divide"
    yield (make(2, 3, 4), make(4, 3, 3, 3), None, _even()), RuntimeError, "as many dimensions"
    yield (make(2, 3, 4, 4), make(4, 3, 3, 3), None, _even(stride=0)), RuntimeError, "stride must be at least 1"
    yield (make(2, 3, 4, 4), make(4, 3, 3, 3), None, _even(dilation=0)), RuntimeError, "dilation must be at least 1"
    yield (make(2, 3, 4, 4), make(4, 3, 3, 3), None, _even(padding=-1)), RuntimeError, "padding must not be negative"
    yield (make(2, 3, 4, 4), make(4, 3, 3, 3), make(3), _even()), RuntimeError, "bias must have"
    yield (make(2, 3, 4, 4), make(4, 3, 3, 3, dtype=np.float16), None, _even()), RuntimeError, "one dtype"
    yield (make(2, 3, 4, 4), make(4, 3, 3, 3), None, _even(dims=1)), RuntimeError, "one entry for each"


# ---- transposed ------------------------------------------------------------------------------------------------------

@autocast_to_half
@op
def convolution_transpose(x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: Sizes, padding: Sizes,
                          output_padding: Sizes, dilation: Sizes, groups: int) -> Tensor:
    """The transpose of `convolution` as a linear map (Zeiler et al. 2010): each input adds a multiple of the kernel.

        y[n, k, i stride - padding + tap dilation] += x[n, c, i] weight[c, k, tap],    then + bias[k]

    `output_padding` adds to the end of y: with a stride, a convolution maps several input sizes to one output size, and
    this number chooses among them.

    Shapes: x (N, C, *), weight (C, K / groups, *kernel), bias (K,) or None -> y (N, K, *).
    """
    n, c, *size = x.shape
    per_group, kernel = weight.shape[1], weight.shape[2:]
    out = transposed_sizes(tuple(size), kernel, stride, padding, output_padding, dilation)
    canvas = tuple([max((m - 1) * s + d * (k - 1) + 1, p + o)
                    for m, k, s, p, d, o in zip(size, kernel, stride, padding, dilation, out, strict=True)])
    flat = through(as_reshaped, x, (n, groups, c // groups, prod(size)))
    y: Any = None
    for tap, w in _taps(weight, groups):
        part = through(as_reshaped, matmul(through(as_matrix_transpose, w), flat), (n, groups * per_group, *size))
        places = tuple([(t * d, s, m) for t, d, s, m in zip(tap, dilation, stride, size, strict=True)])
        channels = groups * per_group
        part = place_op(part, shape=(n, channels, *canvas), key=(whole(n), whole(channels), *places))
        y = part if y is None else add(y, part)
    inside = [(p, 1, o) for p, o in zip(padding, out, strict=True)]
    return _with_bias(through(windowed, y, (whole(n), whole(groups * per_group), *inside)), bias)


@convolution_transpose.check
def _convolution_transpose_rule(x: Layout, weight: Layout, bias: Layout | None, *, stride: Sizes, padding: Sizes,
                                output_padding: Sizes, dilation: Sizes, groups: int) -> None:
    name = f"conv_transpose{weight.ndim - 2}d"
    _same_rank(name, x, weight, bias, weight.shape[1] * groups if weight.ndim > 1 else 0, stride=stride,
               padding=padding, output_padding=output_padding, dilation=dilation)
    if groups < 1 or weight.shape[0] % groups or weight.shape[0] < groups:
        fail(name, "groups must divide the input channels (dimension 0 of weight)",
             [f"weight {weight}", f"groups {groups}"])
    check_channels(name, x, weight, weight.shape[0])
    if any(o >= max(s, d) for o, s, d in zip(output_padding, stride, dilation, strict=True)):
        fail(name, "output_padding must be smaller than stride or dilation",
             [f"output_padding {list(output_padding)}", f"stride {list(stride)}", f"dilation {list(dilation)}"])
    if any(n < 1 for n in transposed_sizes(x.shape[2:], weight.shape[2:], stride, padding, output_padding, dilation)):
        fail(name, "the output must have at least one element",
             [f"input {x}", f"weight {weight}", f"padding {list(padding)}"], "use less padding")


@convolution_transpose.fused
def _convolution_transpose_kernels(kernels: KernelTable, x: Layout, weight: Layout, bias: Layout | None, *,
                                   stride: Sizes, padding: Sizes, output_padding: Sizes, dilation: Sizes,
                                   groups: int) -> Any:
    same_dtypes("convolution_transpose", x, weight, bias)
    out = transposed_sizes(x.shape[2:], weight.shape[2:], stride, padding, output_padding, dilation)
    y = layout(x.device, x.dtype, (x.shape[0], weight.shape[1] * groups, *out))
    _fits(x, weight, y)
    geometry = _geometry(y, weight, x, stride, padding, dilation, groups)
    return _launches(kernels, x, weight, bias, y, geometry, transposed=True)


_bilinear(convolution_transpose)


@convolution_transpose.reference
def _convolution_transpose_reference(x: Any, weight: Any, bias: Any, *, stride: Sizes, padding: Sizes,
                                     output_padding: Sizes, dilation: Sizes, groups: int) -> Any:
    n, c, k, dims = x.shape[0], x.shape[1] // groups, weight.shape[1], x.ndim - 2
    reach = [d * (m - 1) + 1 for d, m in zip(dilation, weight.shape[2:], strict=True)]
    sizes = [(m - 1) * s + r + o for m, s, r, o in zip(x.shape[2:], stride, reach, output_padding, strict=True)]
    full = np.zeros((n, groups * k, *sizes), x.dtype)
    for place in np.ndindex(*x.shape[2:]):
        spot = [slice(i * s, i * s + r, d) for i, s, r, d in zip(place, stride, reach, dilation, strict=True)]
        for g in range(groups):
            to, at = (slice(None), slice(g * k, (g + 1) * k), *spot), (slice(None), slice(g * c, (g + 1) * c), *place)
            full[to] += np.tensordot(x[at], weight[g * c:(g + 1) * c], 1)
    inside = (slice(None), slice(None), *[slice(p, m - p) for p, m in zip(padding, full.shape[2:], strict=True)])
    y = full[inside]
    return y if bias is None else y + bias.reshape(-1, *(1,) * dims)


def _transposed(output_padding: int = 0, padding: int = 0, dims: int = 2, **others: Any) -> dict[str, Any]:
    """Attributes for samples, the same number in each dimension."""
    return {**_even(dims=dims, **others), "padding": (padding,) * dims, "output_padding": (output_padding,) * dims}


@convolution_transpose.samples
def _convolution_transpose_samples(make: Any) -> Any:
    yield make(2, 5, 4, 5), make(5, 33, 3, 3), make(33), _transposed()
    yield make(2, 16, 4, 3), make(16, 7, 3, 3), make(7), _transposed(stride=2, padding=1, output_padding=1)
    yield make(2, 4, 3, 4), make(4, 3, 3, 2), None, _transposed(stride=(2, 3), padding=1, dilation=2, groups=2)
    yield make(1, 4, 5, 9), make(4, 1, 3, 3), make(4), _transposed(stride=2, padding=1, output_padding=1, groups=4)
    yield make(2, 3, 3, 3), make(3, 5, 1, 1), make(5), _transposed(stride=2)
    yield make(2, 3, 17), make(3, 4, 4), make(4), _transposed(stride=2, padding=1, dims=1)
    yield make(1, 2, 2, 3, 2), make(2, 3, 2, 2, 3), make(3), _transposed(stride=2, dims=3)
    yield make(0, 2, 4, 4), make(2, 3, 3, 3), None, _transposed()


@convolution_transpose.errors
def _convolution_transpose_errors(make: Any) -> Any:
    shapes = r"transpose2d\] the channels.* must be 2.*\[2, 3, 4, 4\].*\[2, 3, 3, 3\]"
    yield (make(2, 3, 4, 4), make(2, 3, 3, 3), None, _transposed()), RuntimeError, shapes
    yield (make(2, 3, 4, 4), make(3, 3, 3, 3), None, _transposed(groups=2)), RuntimeError, "groups must divide"
    large, negative = _transposed(output_padding=1), _transposed(output_padding=-1)
    yield (make(2, 3, 4, 4), make(3, 2, 3, 3), None, large), RuntimeError, "output_padding must be smaller"
    yield (make(2, 3, 1, 1), make(3, 2, 1, 1), None, _transposed(padding=1)), RuntimeError, "at least one element"
    yield (make(2, 3, 4, 4), make(3, 2, 3, 3), make(3), _transposed()), RuntimeError, "bias must have"
    yield (make(2, 3, 4, 4), make(3, 2, 3, 3), None, negative), RuntimeError, "output_padding must be at least 0"


def _products(k: Any) -> int:
    """A multiply-add for each output and each weight of its channel: images, groups, c, k, in[3], out[3], kernel[3]."""
    g = k.geometry
    return 2 * prod(int(g[i]) for i in (0, 1, 2, 3, 7, 8, 9, 10, 11, 12))


work("conv_forward conv_backward_input conv_backward_weight", _products)


# ---- launches on CUDA ------------------------------------------------------------------------------------------------

# rows and columns of a tile, by the threads of its column
_SWEEP_TILES = {1: (4, 256), 8: (32, 128), 16: (64, 128)}
_WEIGHT_TILES = {8: (32, 32), 16: (64, 128)}
_BUSY = 264                     # blocks that keep a GPU busy: with fewer, tiles are smaller


def _tiles(tiles: dict[int, tuple[int, int]], threads: int, rows: int, columns: int, times: int) -> Launch:
    """A block of 256 threads for each tile of `times` products of rows x columns outputs; `threads` are in a column."""
    tall, wide = tiles[threads]
    blocks = ceil_div(rows, tall) * ceil_div(columns, wide) * times
    if threads == 16 and (rows <= 32 or columns <= 32 or blocks < _BUSY):
        return _tiles(tiles, 8, rows, columns, times)
    return Launch("", (min(blocks, BLOCKS),), (256 // threads, threads))


def _sweep_rule(back: bool) -> Any:
    """Forward, or the gradient of x: one product for each group and, back, each residue of a position by the stride."""
    def rule(k: Any, host: Any) -> list[Launch]:
        images, groups, c, m, *sizes = map(int, host[k.geometry])
        space, out, stride = sizes[0:3], sizes[3:6], sizes[9:12]
        rows, grid, residues = m, out, 1
        if back:
            rows, grid = c, [ceil_div(n, s) for n, s in zip(space, stride, strict=True)]
            residues = prod(map(min, space, stride))
        return [_tiles(_SWEEP_TILES, 1 if rows <= 4 else 16, rows, images * prod(grid), groups * residues)]
    return rule


def _weight_rule(k: Any, host: Any) -> list[Launch]:
    """One product for each group and chunk; then the sums of the chunks are added."""
    _, groups, c, m, *sizes = map(int, host[k.geometry])
    columns = c * prod(sizes[6:9])
    products = _tiles(_WEIGHT_TILES, 16, m, columns, groups * k.chunks)
    return [products, over(groups * m * columns, "add")] if k.chunks > 1 else [products]


launch("ops/conv.cu", "conv_forward", _sweep_rule(False), shared=36864, half=True)
launch("ops/conv.cu", "conv_backward_input", _sweep_rule(True), shared=36864, half=True)
launch("ops/conv.cu", "conv_backward_weight", _weight_rule, shared=37888, half=True)
