"""Products of matrices: one primitive over native/gemm.c, and what is made of it: linear, einsum, tensordot and the rest.

The kernel takes row and column strides, so transposes and other views are multiplied where they lie.
"""
from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ..device import KernelTable
from ..engine import Node, mode
from ..memory import Array, Layout, alloc, layout
from ..op import NoKernel, Plan, Primitive, op, remember, same_device
from ..shape import BOOL, axis_of, broadcast_shapes, fail, is_float, reduce_plan
from ..tensor import Tensor, new_tensor
from .elementwise import add, copy, mul
from .reduce import _sum
from .shape_ops import _expanded, _mT, _permuted, _reshaped, diagonal, through, view_strides

__all__ = ["matmul", "mm", "bmm", "mv", "dot", "vdot", "outer", "inner", "addmm", "addmv", "addbmm", "baddbmm", "linear", "einsum",
           "tensordot"]


# ---- matmul ---------------------------------------------------------------------------------------------------------

def _prepare_matmul(a: Layout, b: Layout) -> Plan:
    """Matrix product over the last two dimensions; leading ones broadcast; a vector is a row on the left, a column on the right."""
    same_device("matmul", (a, b))
    if not a.ndim or not b.ndim:
        fail("matmul", "both tensors need at least one dimension", [a, b], "use mul for numbers")
    k = a.shape[-1]
    if b.shape[-2 if b.ndim > 1 else -1] != k:
        fail("matmul", "the last size of the first must equal the last but one of the second", [a, b])
    if a.dtype != b.dtype:
        fail("matmul", "both tensors must have one dtype", [a, b], "convert one of them")
    if a.dtype == BOOL:
        fail("matmul", "needs numbers", [a, b], "convert with .float() or .long()")
    rows, columns = a.shape[-2:-1], b.shape[-1:] if b.ndim > 1 else ()
    out = layout(a.device, a.dtype, broadcast_shapes("matmul", a.shape[:-2], b.shape[:-2]) + rows + columns)
    kernel = a.device.kernels.gemm.get(a.dtype)
    if kernel is None or not out.size:
        def run_host(x: Array, y: Array) -> Array:
            z = alloc(out)
            if out.size:
                a.device.host.call(_on_host, z.np, x.np, y.np)
            return z
        return Plan(run_host, out, f"no gemm kernel for {a.dtype}: NumPy behind the door")
    table, *numbers = gemm_plan(out, a, b)
    offsets = table.ptr if table is not None else 0

    def run(x: Array, y: Array, table: Array | None = table) -> Array:         # the table lives as long as the plan
        z = alloc(out)
        kernel.call(z.ptr, x.ptr, y.ptr, 0, offsets, *numbers)
        return z
    return Plan(run, out, f"kernel {kernel.name}")


def _on_host(a: Any, b: Any, out: Any) -> None:
    if is_float(a.dtype) and a.dtype.itemsize == 2:         # halves are added up in float32
        out[...] = np.matmul(a.astype(np.float32), b.astype(np.float32))
    else:
        out[...] = np.matmul(a, b)


def gemm_plan(out: Layout, a: Layout, b: Layout) -> tuple[Any, ...]:
    """gemm's arguments from `offsets` on for out = a @ b: (table or None, batch, m, n, k, ars, acs, brs, bcs, crs, accumulate)."""
    k = a.shape[-1]
    ars, acs = (a.strides[-2], a.strides[-1]) if a.ndim > 1 else (0, a.strides[-1])
    brs, bcs = (b.strides[-2], b.strides[-1]) if b.ndim > 1 else (b.strides[-1], 0)
    m, n = a.shape[-2] if a.ndim > 1 else 1, b.shape[-1] if b.ndim > 1 else 1
    batch_shape = broadcast_shapes("matmul", a.shape[:-2], b.shape[:-2])
    batch = 1
    for size in batch_shape:
        batch *= size
    if batch == 1:
        return None, 1, m, n, k, ars, acs, brs, bcs, n, 0
    if b.ndim <= 2 or all(size == 1 for size in b.shape[:-2]):         # one matrix on the right: all rows of a at once
        flat = view_strides(a, (batch * m, k))
        if flat is not None and a.size == batch * m * k:
            return None, 1, batch * m, n, k, flat[0], flat[1], brs, bcs, n, 0
    table = np.zeros((*batch_shape, 3), np.int64)
    table[..., 0] = np.arange(batch).reshape(batch_shape) * (m * n)
    for column, x in ((1, a), (2, b)):
        lead = len(batch_shape) - (x.ndim - 2)
        for d in range(x.ndim - 2):
            if x.shape[d] != 1:
                steps = np.arange(x.shape[d]) * x.strides[d]
                table[..., column] += steps.reshape((-1,) + (1,) * (len(batch_shape) - lead - d - 1))
    return a.device.constant(table.reshape(-1)), batch, m, n, k, ars, acs, brs, bcs, n, 0


def _column(x: Tensor) -> Tensor:
    return through(_reshaped, x, (*x.array.layout.shape, 1))


def _row(x: Tensor) -> Tensor:
    shape = x.array.layout.shape
    return through(_reshaped, x, (*shape[:-1], 1, shape[-1]))


def _rows(x: Tensor) -> Tensor:
    """All leading dimensions as one."""
    shape = x.array.layout.shape
    total = 1
    for n in shape[:-1]:
        total *= n
    return through(_reshaped, x, (total, shape[-1]))


def _matmul_vjp_a(g: Tensor, b: Tensor, a_shape: tuple[int, ...]) -> Tensor:
    if b.array.layout.ndim == 1:
        return mul(g if len(a_shape) == 1 else _column(g), b)
    if len(a_shape) == 1:
        return through(_reshaped, matmul(b, _column(g)), b.array.layout.shape[:-1])
    return matmul(g, through(_mT, b))


def _matmul_vjp_b(g: Tensor, a: Tensor, b_shape: tuple[int, ...]) -> Tensor:
    have = a.array.layout
    if have.ndim == 1:
        return mul(g, a) if len(b_shape) == 1 else mul(_column(a), _row(g))
    if len(b_shape) == 1:
        flat = _rows(a)
        return matmul(through(_reshaped, g, (flat.array.layout.shape[0],)), flat)
    if len(b_shape) == 2 and have.ndim > 2:
        a, g = _rows(a), _rows(g)
    return matmul(through(_mT, a), g)


_matmul = Primitive("matmul", _prepare_matmul, {"a": _matmul_vjp_a, "b": _matmul_vjp_b})


def operator_matmul(input: Tensor, other: Any) -> Tensor:
    """`input @ other`"""
    try:
        a, b = input.array, other.array
    except AttributeError:
        return NotImplemented
    key = (a.layout, b.layout)
    plan = _matmul.plans.get(key)
    if plan is None:
        plan = remember(_matmul.plans, key, _prepare_matmul(*key))
    c = plan.run(a, b)
    if mode.grad:
        ra, rb = input.requires_grad, other.requires_grad
        if ra or rb:
            version = (b.version if ra else 0) + (a.version if rb else 0)
            return new_tensor(c, Node(_matmul, ((input.node or input) if ra else None, (other.node or other) if rb else None), plan.layout,
                                      (input if rb else None, other if ra else None), version))
    return new_tensor(c, None)


def matmul(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Matrix product over the last two dimensions; leading ones broadcast; vectors are a row on the left, a column on the right."""
    product = operator_matmul(input, other)
    if product is NotImplemented:
        raise TypeError(f"[matmul] expected tensors; got {type(input).__name__} and {type(other).__name__}")
    return product if out is None else into(out, product)


def into(out: Tensor, result: Tensor) -> Tensor:
    """`out=`: the result in memory that is there already; not recorded."""
    if out.array.layout.shape != result.array.layout.shape:
        fail("matmul", "out must have the shape of the result", [out.array.layout, result.array.layout])
    return copy.into(out, result)


@_matmul.samples
def _matmul_samples(make: Any) -> Any:
    yield make(5, 33), make(33, 7)
    yield make(31, 4), make(4, 32)
    yield make(33), make(33)
    yield make(3, 33), make(33)
    yield make(33), make(33, 5)
    yield make(2, 5, 3), make(3, 4)
    yield make(5, 3), make(2, 3, 4)
    yield make(2, 1, 3, 4), make(5, 4, 2)
    yield make(2, 3, 5), make(5)
    yield make(5), make(2, 5, 3)
    yield make(1, 1), make(1, 1)
    yield make(3, 0), make(0, 2)
    yield make(0, 3), make(3, 2)


@_matmul.errors
def _matmul_errors(make: Any) -> Any:
    yield (make(2, 3), make(2, 3)), RuntimeError, r"last but one.*\[2, 3\].*\[2, 3\]"
    yield (make(), make(2)), RuntimeError, "at least one dimension"
    yield (make(2, 2, 3), make(3, 3, 2)), RuntimeError, "broadcast"
    yield (make(2), make.ints(2)), RuntimeError, "one dtype"
    yield (make.bools(2), make.bools(2)), RuntimeError, "numbers"


@_matmul.reference
def _matmul_reference(a: Any, b: Any) -> Any:
    return np.matmul(a, b)


def _ranks(name: str, want: tuple[int, ...], *given: Tensor) -> None:
    for x, n in zip(given, want, strict=True):
        if not isinstance(x, Tensor):
            raise TypeError(f"[{name}] expected tensors; got {type(x).__name__}")
        if x.array.layout.ndim != n:
            fail(name, f"expected tensors of {', '.join(map(str, want))} dimensions", [x.array.layout for x in given], "use matmul")


def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """Product of two matrices."""
    _ranks("mm", (2, 2), input, mat2)
    return matmul(input, mat2)


def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """Products of two batches of matrices."""
    _ranks("bmm", (3, 3), input, mat2)
    if input.array.layout.shape[0] != mat2.array.layout.shape[0]:
        fail("bmm", "the batches must have one size", [input.array.layout, mat2.array.layout], "use matmul to broadcast")
    return matmul(input, mat2)


def mv(input: Tensor, vec: Tensor) -> Tensor:
    """Product of a matrix and a vector."""
    _ranks("mv", (2, 1), input, vec)
    return matmul(input, vec)


def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """Sum of the products of two vectors' elements."""
    _ranks("dot", (1, 1), input, tensor)
    return matmul(input, tensor)


def vdot(input: Tensor, other: Tensor) -> Tensor:
    """`dot(input, other)`"""
    _ranks("vdot", (1, 1), input, other)
    return matmul(input, other)


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """The products of each element of one vector with each of another."""
    _ranks("outer", (1, 1), input, vec2)
    return mul(_column(input), vec2)


def inner(input: Tensor, other: Tensor) -> Tensor:
    """Sums of products over the last dimensions."""
    if not input.array.layout.ndim or not other.array.layout.ndim:
        return mul(input, other)
    return tensordot(input, other, ([-1], [-1]))


def _blend(input: Tensor, product: Tensor, beta: float, alpha: float) -> Tensor:
    if not is_float(product.array.layout.dtype):
        beta, alpha = int(beta), int(alpha)
    product = product if alpha == 1 else mul(product, alpha)
    if beta == 0:
        return product
    return add(input if beta == 1 else mul(input, beta), product)


def _fits(name: str, input: Tensor, product: Tensor) -> Tensor:
    """The input must broadcast to the product."""
    want, have = product.array.layout.shape, input.array.layout.shape
    if broadcast_shapes(name, have, want) != want:
        fail(name, "input must broadcast to the shape of the product", [input.array.layout, product.array.layout])
    return product


def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * (mat1 @ mat2)"""
    return _blend(input, _fits("addmm", input, mm(mat1, mat2)), beta, alpha)


def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * (mat @ vec)"""
    return _blend(input, _fits("addmv", input, mv(mat, vec)), beta, alpha)


def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * (batch1 @ batch2)"""
    return _blend(input, _fits("baddbmm", input, bmm(batch1, batch2)), beta, alpha)


def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * (the sum of batch1 @ batch2 over the batch)"""
    product = _sum(bmm(batch1, batch2), axes=(0,), keepdim=False)
    return _blend(input, _fits("addbmm", input, product), beta, alpha)


# ---- linear ---------------------------------------------------------------------------------------------------------

@op
def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """y = x weight^T + bias

    Shapes: x (*, in), weight (out, in) or (in,), bias (out,) or () or None -> y (*, out) or (*,).
    """
    y = matmul(x, through(_mT, weight) if weight.array.layout.ndim == 2 else weight)
    return y if bias is None else add(y, bias)


@linear.check
def _linear_rule(x: Layout, weight: Layout, bias: Layout | None) -> None:
    if weight.ndim not in (1, 2) or not x.ndim or x.shape[-1] != weight.shape[-1]:
        fail("linear", "weight must be (out, in) with in = the last size of x", [f"x {x}", f"weight {weight}"])
    if bias is not None and bias.shape not in (weight.shape[:-1], (1,)[:bias.ndim]):
        fail("linear", "bias must be (out,) for a weight (out, in)", [f"weight {weight}", f"bias {bias}"])
    for p in (weight, bias):
        if p is not None and p.dtype != x.dtype:
            fail("linear", "x, weight and bias must have one dtype", [x, weight] + ([bias] if bias else []), "convert with .to(dtype)")


@linear.fused
def _linear_kernels(kernels: KernelTable, x: Layout, weight: Layout, bias: Layout | None) -> Any:
    gemm, column_sum = kernels.gemm[x.dtype], kernels.sum[x.dtype]
    n, k = weight.shape if weight.ndim == 2 else (1, weight.shape[0])
    if bias is not None and bias.size != n:
        raise NoKernel("the bias is broadcast over the outputs")
    m = 1
    for size in x.shape[:-1]:
        m *= size
    y_layout = layout(x.device, x.dtype, x.shape[:-1] + weight.shape[:-1])
    columns = reduce_plan(layout(x.device, x.dtype, (m, n)), (0,))

    def forward(xa: Array, wa: Array, ba: Array | None) -> Any:
        y = alloc(y_layout)
        gemm.call(y.ptr, xa.ptr, wa.ptr, ba.ptr if ba is not None else 0, 0, 1, m, n, k, k, 1, 1, k, n, 0)
        return y, (xa, wa)

    def backward(saved: Any, g: Array, needs: list[bool]) -> list[Array | None]:
        xa, wa = saved
        need_x, need_w, need_b = needs
        gx = gw = gb = None
        if need_x:
            gx = alloc(x)
            gemm.call(gx.ptr, g.ptr, wa.ptr, 0, 0, 1, m, k, n, n, 1, k, 1, k, 0)
        if need_w:
            gw = alloc(weight)
            gemm.call(gw.ptr, g.ptr, xa.ptr, 0, 0, 1, n, k, m, 1, n, k, 1, k, 0)
        if need_b:
            gb = alloc(bias)            # type: ignore[arg-type]
            column_sum.call(gb.ptr, g.ptr, columns.ptr)
        return [gx, gw, gb]
    return forward, backward


@linear.samples
def _linear_samples(make: Any) -> Any:
    yield make(5, 33), make(7, 33), make(7)
    yield make(5, 31), make(32, 31), None
    yield make(33), make(4, 33), make(4)
    yield make(2, 3, 8), make(5, 8), make(5)
    yield make(4, 8), make(8), make()
    yield make(1, 1), make(1, 1), make(1)
    yield make(0, 3), make(2, 3), make(2)


@linear.errors
def _linear_errors(make: Any) -> Any:
    yield (make(5, 3), make(7, 4), None), RuntimeError, r"last size of x.*\[5, 3\].*\[7, 4\]"
    yield (make(5, 3), make(7, 3), make(3)), RuntimeError, "bias must be"
    yield (make(5, 3), make(7, 3, dtype=np.float16), None), RuntimeError, "one dtype"


@linear.reference
def _linear_reference(x: Any, weight: Any, bias: Any) -> Any:
    return x @ weight.T + (0 if bias is None else bias)


# ---- tensordot and einsum -------------------------------------------------------------------------------------------

def tensordot(a: Tensor, b: Tensor, dims: int | Sequence[Sequence[int]] = 2) -> Tensor:
    """Sums of products over several dimensions: the last `dims` of a with the first of b, or the pairs given."""
    x, y = a.array.layout, b.array.layout
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        if not 0 <= dims <= min(x.ndim, y.ndim):
            fail("tensordot", "dims must lie between 0 and the number of dimensions", [x, y, f"dims {dims}"])
        of_a, of_b = tuple(range(x.ndim - dims, x.ndim)), tuple(range(dims))
    else:
        pair = [(d,) if isinstance(d, int) else tuple(d) for d in dims]
        if len(pair) != 2 or len(pair[0]) != len(pair[1]):
            fail("tensordot", "dims must name as many dimensions of a as of b", [x, y, f"dims {dims}"])
        of_a, of_b = tuple(axis_of(d, x.ndim, "tensordot") for d in pair[0]), tuple(axis_of(d, y.ndim, "tensordot") for d in pair[1])
    labels_a, labels_b = list(range(x.ndim)), list(range(x.ndim, x.ndim + y.ndim))
    for i, j in zip(of_a, of_b, strict=True):
        if x.shape[i] != y.shape[j]:
            if 1 not in (x.shape[i], y.shape[j]):
                fail("tensordot", f"dimension {i} of a and {j} of b must have one size", [x, y])
        labels_b[j] = labels_a[i]
    out = [d for i, d in enumerate(labels_a) if i not in of_a] + [d for j, d in enumerate(labels_b) if j not in of_b]
    return _contract([a, b], [labels_a, labels_b], out)


@lru_cache(maxsize=1024)
def _parse(equation: str, shapes: tuple[tuple[int, ...], ...]) -> tuple[list[list[int]], list[int]]:
    """The labels of each operand and of the output, as numbers; what "..." stands for are numbers below 0, from the right."""
    ranks = [len(shape) for shape in shapes]
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        fail("einsum", f"the equation names {len(terms)} operands", f"{len(ranks)} operands for {equation!r}")
    labels = [_labels(term, rank, equation) for term, rank in zip(terms, ranks, strict=True)]
    dots = max([-min([d for d in one if d < 0], default=0) for one in labels], default=0)
    if arrow:
        output = _labels(right, None, equation, dots)
        if len(set(output)) != len(output):
            fail("einsum", "each output label may appear once", repr(equation))
    else:
        all_labels = [d for one in labels for d in one if d >= 0]
        output = [-d for d in range(dots, 0, -1)] + sorted([d for d in set(all_labels) if all_labels.count(d) == 1])
    known = {d for one in labels for d in one}
    for d in output:
        if d not in known:
            fail("einsum", "each output label must appear in an input", repr(equation))
    sizes: dict[int, int] = {}
    for one, shape in zip(labels, shapes, strict=True):
        for d, n in zip(one, shape, strict=True):
            if sizes.setdefault(d, n) != n and n != 1:
                if sizes[d] != 1:
                    name = chr(d) if d > 0 else "..."
                    fail("einsum", f"label {name!r} must have one size in {equation!r}", [list(s) for s in shapes])
                sizes[d] = n
    return labels, output


def _labels(term: str, rank: int | None, equation: str, dots: int = 0) -> list[int]:
    before, dotted, after = term.partition("...")
    for letter in before + after:
        if not (letter.isascii() and letter.isalpha()):
            fail("einsum", "labels must be letters", repr(equation))
    if rank is not None:
        dots = rank - len(before) - len(after)
        if dots < 0 or dots and not dotted:
            fail("einsum", f"an operand of {rank} dimensions needs as many labels", f"{term!r} in {equation!r}")
    return [ord(c) for c in before] + ([-d for d in range(dots, 0, -1)] if dotted else []) + [ord(c) for c in after]


def einsum(equation: Any, *operands: Any) -> Tensor:
    """Sums of products after Einstein: "ij,jk->ik". Labels that the output lacks are summed over, repeated ones in an
    operand take its diagonal, "..." stands for further dimensions, which broadcast. Also `einsum(a, [0, 1], b, [1, 2], [0, 2])`."""
    if isinstance(equation, Tensor):
        terms = [equation, *operands]
        given = terms[0:len(terms) - len(terms) % 2:2]
        lists = terms[1::2]
        text = ",".join(_spelled(one) for one in lists) + (f"->{_spelled(terms[-1])}" if len(terms) % 2 else "")
        return einsum(text, *given)
    if len(operands) == 1 and isinstance(operands[0], (tuple, list)):
        operands = tuple(operands[0])
    for x in operands:
        if not isinstance(x, Tensor):
            raise TypeError(f"[einsum] operands must be tensors; got {type(x).__name__}")
    if not isinstance(equation, str) or not operands:
        fail("einsum", "needs an equation and at least one operand", repr(equation))
    return _contract(list(operands), *_parse(equation, tuple([x.array.layout.shape for x in operands])))


def _spelled(labels: Sequence[Any]) -> str:
    """A sublist as letters."""
    for d in labels:
        if d is not Ellipsis and not 0 <= operator.index(d) < 52:
            fail("einsum", "sublist labels must lie in [0, 52)", list(labels))
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    return "".join("..." if d is Ellipsis else letters[d] for d in labels)


def _contract(operands: list[Tensor], labels: list[list[int]], output: list[int]) -> Tensor:
    """Operands pair by pair, the pair with the smallest result first; then what is left is brought into order."""
    terms = [_simplified(x, one) for x, one in zip(operands, labels, strict=True)]
    while len(terms) > 1:
        first, second = 0, 1
        if len(terms) > 2:
            costs = {(i, j): _cost(terms, i, j, output) for i in range(len(terms)) for j in range(i + 1, len(terms))}
            first, second = min(costs, key=lambda pair: (costs[pair], pair))
        rest = [t for k, t in enumerate(terms) if k not in (first, second)]
        keep = {*output, *[d for _, one in rest for d in one]}
        terms = [*rest, _pair(*terms[first], *terms[second], keep)]
    x, one = terms[0]
    x, one = _summed(x, one, set(output))
    order = tuple([one.index(d) for d in output])
    return x if order == tuple(range(len(order))) else through(_permuted, x, order)


def _cost(terms: list, i: int, j: int, output: list[int]) -> int:
    sizes = {d: n for k in (i, j) for d, n in zip(terms[k][1], terms[k][0].array.layout.shape, strict=True)}
    keep = {*output, *[d for k, (_, one) in enumerate(terms) if k not in (i, j) for d in one]}
    total = 1
    for d, n in sizes.items():
        total *= n if d in keep else 1
    return total


def _simplified(x: Tensor, labels: list[int]) -> tuple[Tensor, list[int]]:
    """The diagonal where a label repeats."""
    labels = list(labels)
    for d in labels:
        while labels.count(d) > 1:
            i = labels.index(d)
            j = labels.index(d, i + 1)
            shape = x.array.layout.shape
            if shape[i] != shape[j]:
                fail("einsum", "a label repeated in one operand must have one size", x.array.layout)
            x = diagonal(x, 0, i, j)
            labels = [e for k, e in enumerate(labels) if k not in (i, j)] + [d]
    return x, labels


def _summed(x: Tensor, labels: list[int], keep: set[int]) -> tuple[Tensor, list[int]]:
    """The labels nobody asks for summed out."""
    axes = tuple([i for i, d in enumerate(labels) if d not in keep])
    return (_sum(x, axes=axes, keepdim=False), [d for d in labels if d in keep]) if axes else (x, labels)


def _pair(x: Tensor, a: list[int], y: Tensor, b: list[int], keep: set[int]) -> tuple[Tensor, list[int]]:
    """The product of two operands, summed over the labels not in `keep`."""
    x, a = _summed(x, a, keep | set(b))
    y, b = _summed(y, b, keep | set(a))
    steps_x, steps_y, over, shape, labels = _recipe(tuple(a), x.array.layout.shape, tuple(b), y.array.layout.shape, frozenset(keep))
    for step, value in steps_x:
        x = through(step, x, value)
    for step, value in steps_y:
        y = through(step, y, value)
    z = matmul(x, y) if over else mul(x, y)         # without a sum: [batch, left, 1] * [batch, 1, right]
    return z if z.array.layout.shape == shape else through(_reshaped, z, shape), labels


@lru_cache(maxsize=1024)
def _recipe(a: tuple[int, ...], a_shape: tuple[int, ...], b: tuple[int, ...], b_shape: tuple[int, ...], keep: frozenset[int]) -> tuple:
    """How two operands become the factors [batch, left, over] and [batch, over, right] of one matmul, and its result's shape."""
    sizes = dict(zip(a, a_shape, strict=True))
    for d, n in zip(b, b_shape, strict=True):
        sizes[d] = n if sizes.get(d, 1) == 1 else sizes[d]
    both = [d for d in a if d in b]
    batch, over = [d for d in both if d in keep], [d for d in both if d not in keep]
    left, right = [d for d in a if d not in both], [d for d in b if d not in both]
    labels = batch + left + right
    return (_arrangement(a, a_shape, [batch, left, over], sizes), _arrangement(b, b_shape, [batch, over, right], sizes), bool(over),
            tuple([sizes[d] for d in labels]), labels)


def _arrangement(labels: tuple[int, ...], shape: tuple[int, ...], groups: list[list[int]], sizes: dict[int, int]) -> list[tuple]:
    """The views that bring dimensions into the order of the groups: those of the first as they are, of the others each group joined."""
    steps: list[tuple] = []
    order = tuple([labels.index(d) for group in groups for d in group])
    if order != tuple(range(len(order))):
        steps.append((_permuted, order))
    now = tuple([shape[i] for i in order])
    full = tuple([sizes[d] for group in groups for d in group])
    if now != full:
        steps.append((_expanded, full))
    joined = tuple([sizes[d] for d in groups[0]] + [prod(sizes[d] for d in group) for group in groups[1:]])
    if joined != full:
        steps.append((_reshaped, joined))
    return steps


INPLACE = {"addmm", "addmv", "addbmm", "baddbmm"}
METHODS = {"__matmul__": operator_matmul}
