"""Products of matrices and vectors: `matmul` (native/gemm.c), and the functions and the op `linear` that call it.

The kernel takes strides of rows and columns, so transposes and other views are multiplied without a copy.
"""
from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from ..core.half import autocast_to_half, rounds_once
from ..core.messages import one_dtype
from ..core.modes import mode
from ..core.op import Primitive, op, same_device
from ..core.out import writes
from ..core.shape import BOOL, broadcast_shapes, fail, is_float, promote
from ..core.tape import recorded
from ..core.tensor import Tensor, new_tensor
from ..devices.base import KernelTable, NoKernel
from ..devices.memory import Array, Layout, alloc, layout
from ..devices.plan import Plan, host_plan, is_half, reduce_plan, view_strides
from ..devices.work import work
from .creation import as_tensor
from .math import add, mul
from .reduce import sum_op
from .through import through
from .view import as_matrix_transpose, as_reshaped

__all__ = ["matmul", "mm", "bmm", "mv", "dot", "vdot", "outer", "addmm", "addmv", "addbmm", "baddbmm",
           "linear"]
SHORT = True                # the functions, beside a check of their arguments: core/messages.py


# ---- matmul ----------------------------------------------------------------------------------------------------------
def _prepare_matmul(a: Layout, b: Layout) -> Plan:
    """The product of matrices over the last two dimensions. All dimensions before them broadcast.

    Shapes: a (*, m, k), b (*, k, n) -> (*, m, n). A vector is a row on the left, a column on the right, and the result
    lacks that dimension.
    """
    same_device("matmul", (a, b))
    if not a.ndim or not b.ndim:
        fail("matmul", "both tensors need at least one dimension", [a, b], "use mul for numbers")
    k = a.shape[-1]
    if b.shape[-2 if b.ndim > 1 else -1] != k:
        turn = ("the second" if b.ndim > 1 and b.shape[-1] == k else
                "the first" if a.ndim > 1 and a.shape[-2] == b.shape[-2 if b.ndim > 1 else -1] else "")
        fail("matmul", "the last size of the first must equal the last but one of the second", [a, b],
             turn and f"transpose {turn} with .mT")
    if a.dtype != b.dtype:
        wide = promote(a.dtype, b.dtype)
        which = "both" if wide not in (a.dtype, b.dtype) else "the second" if wide == a.dtype else "the first"
        fail("matmul", "both tensors must have one dtype", [a, b], f"convert {which} with .to(minigrad.{wide})")
    if a.dtype == BOOL:
        fail("matmul", "needs numbers", [a, b], "convert with .float() or .long()")
    rows, columns = a.shape[-2:-1], b.shape[-1:] if b.ndim > 1 else ()
    out = layout(a.device, a.dtype, broadcast_shapes("matmul", a.shape[:-2], b.shape[:-2]) + rows + columns)
    kernel = a.device.kernels.gemm.get(a.dtype)
    if is_half(a.dtype) and b.ndim > 2 and a.shape[:-2] != b.shape[:-2]:
        kernel = None                   # the gradient is a sum over products, which must not be rounded before
    if not out.size:
        return Plan(lambda x, y: alloc(out), out, "there are no elements")
    if kernel is None:
        return host_plan(out, _in_numpy, f"no gemm kernel for {a.dtype}: NumPy on the host", (a, b))
    table, *numbers = gemm_plan(out, a, b)
    offsets = table.ptr if table is not None else 0

    def run(x: Array, y: Array, table: Array | None = table) -> Array:         # the default keeps the table alive
        z = alloc(out)
        kernel.call(z.ptr, x.ptr, y.ptr, 0, offsets, *numbers)
        return z
    return Plan(run, out, f"kernel {kernel.name}")


def _in_numpy(a: Any, b: Any, out: Any) -> None:
    out[...] = np.matmul(a, b)


def gemm_plan(out: Layout, a: Layout, b: Layout) -> tuple[Any, ...]:
    """The arguments of the kernel gemm for out = a @ b, from `offsets` on.

    (table of offsets or None, batch, m, n, k, ars, acs, brs, bcs, crs, accumulate), where ars is the stride of a's
    rows, acs that of its columns, and so on.
    """
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
    if b.ndim <= 2 or all(size == 1 for size in b.shape[:-2]):      # one matrix on the right: one product for all rows
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
    """(*, n) as (*, n, 1)."""
    return through(as_reshaped, x, (*x.array.layout.shape, 1))


def _row(x: Tensor) -> Tensor:
    """(*, n) as (*, 1, n)."""
    shape = x.array.layout.shape
    return through(as_reshaped, x, (*shape[:-1], 1, shape[-1]))


def _rows(x: Tensor) -> Tensor:
    """(*, n) as (rows, n)."""
    shape = x.array.layout.shape
    total = 1
    for n in shape[:-1]:
        total *= n
    return through(as_reshaped, x, (total, shape[-1]))


def _matmul_vjp_a(g: Tensor, b: Tensor, a_shape: tuple[int, ...]) -> Tensor:
    if b.array.layout.ndim == 1:
        return mul(g if len(a_shape) == 1 else _column(g), b)
    if len(a_shape) == 1:
        return through(as_reshaped, matmul(b, _column(g)), b.array.layout.shape[:-1])
    return matmul(g, through(as_matrix_transpose, b))


def _matmul_vjp_b(g: Tensor, a: Tensor, b_shape: tuple[int, ...]) -> Tensor:
    have = a.array.layout
    if have.ndim == 1:
        return mul(g, a) if len(b_shape) == 1 else mul(_column(a), _row(g))
    if len(b_shape) == 1:
        flat = _rows(a)
        return matmul(through(as_reshaped, g, (flat.array.layout.shape[0],)), flat)
    if len(b_shape) == 2 and have.ndim > 2:
        a, g = _rows(a), _rows(g)
    return matmul(through(as_matrix_transpose, a), g)


_matmul = autocast_to_half(Primitive("matmul", _prepare_matmul, {"a": _matmul_vjp_a, "b": _matmul_vjp_b}))


def operator_matmul(input: Tensor, other: Any) -> Tensor:
    """`input @ other`; an array counts as a Tensor. NotImplemented where one is neither."""
    op = _matmul                        # what detect_anomaly names
    try:
        a, b = input.array, other.array
    except AttributeError:
        a = None
    if a is None:
        if not isinstance(other, np.ndarray):
            return NotImplemented
        return operator_matmul(input, as_tensor(other, None, input.device))
    key = (a.layout, b.layout)
    plan = op.plans.get(key)
    if plan is None:
        plan = op.plan(key, {})
    try:
        run = plan.run
    except AttributeError:              # a `Wide` plan: half precision
        return plan.at((input, other))  # type: ignore[attr-defined]
    c = run(a, b)
    if mode.grad:
        ra, rb = input._requires_grad, other._requires_grad
        if ra or rb:
            version = (b.version if ra else 0) + (a.version if rb else 0)
            edges = (input.node or input) if ra else None, (other.node or other) if rb else None
            saved = input if rb else None, other if ra else None
            return new_tensor(c, recorded(op, edges, plan.layout, saved, version))
    return new_tensor(c, None)


def reflected_matmul(input: Tensor, other: Any) -> Tensor:
    """`other @ input`, where `other` is an array (or a tensor, in a call by name)."""
    if not isinstance(other, (np.ndarray, Tensor)):
        return NotImplemented
    return operator_matmul(as_tensor(other, None, input.device), input)


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The product of matrices over the last two dimensions. All dimensions before them broadcast.

    Shapes: input (*, m, k), other (*, k, n) -> (*, m, n). A vector is a row on the left, a column on the right, and the
    result lacks that dimension. Both have one dtype, not bool.

    >>> matmul(ones(2, 3), ones(3)).tolist()
    [3.0, 3.0]
    """
    product = operator_matmul(input, other)
    if product is NotImplemented:
        raise TypeError(f"[matmul] expected tensors; got {type(input).__name__} and {type(other).__name__}")
    return product


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
    yield (make(2, 3), make(2, 3)), RuntimeError, r"last but one.*\[2, 3\].*\[2, 3\]; transpose the second with .mT"
    yield (make(2, 3), make(2, 4)), RuntimeError, r"last but one.*transpose the first with .mT"
    yield (make(2, 3), make(5, 4)), RuntimeError, r"last but one.*\[5, 4\]$"
    yield (make(), make(2)), RuntimeError, "at least one dimension"
    yield (make(2, 2, 3), make(3, 3, 2)), RuntimeError, "broadcast"
    yield (make(2), make.ints(2)), RuntimeError, "one dtype"
    yield (make.bools(2), make.bools(2)), RuntimeError, "numbers"


@_matmul.reference
def _matmul_reference(a: Any, b: Any) -> Any:
    return np.matmul(a, b)


def _ranks(name: str, want: tuple[int, ...], *given: Tensor) -> None:
    """Raises unless the tensors given have as many dimensions as `want` says."""
    for x, n in zip(given, want, strict=True):
        if not isinstance(x, Tensor):
            raise TypeError(f"[{name}] expected tensors; got {type(x).__name__}")
        if x.array.layout.ndim != n:
            fail(name, f"expected tensors of {', '.join(map(str, want))} dimensions", [x.array.layout for x in given],
                 "use matmul")


def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The product of two matrices. Shapes: input (m, k), mat2 (k, n) -> (m, n)."""
    _ranks("mm", (2, 2), input, mat2)
    return matmul(input, mat2)


def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """The products of two batches of matrices. Shapes: input (batch, m, k), mat2 (batch, k, n) -> (batch, m, n)."""
    _ranks("bmm", (3, 3), input, mat2)
    if input.array.layout.shape[0] != mat2.array.layout.shape[0]:
        fail("bmm", "the batches must have one size", [input.array.layout, mat2.array.layout],
             "use matmul to broadcast")
    return matmul(input, mat2)


def mv(input: Tensor, vec: Tensor) -> Tensor:
    """The product of a matrix and a vector. Shapes: input (m, k), vec (k,) -> (m,)."""
    _ranks("mv", (2, 1), input, vec)
    return matmul(input, vec)


def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The sum of the products of two vectors' elements. Shapes: both (n,) -> ()."""
    _ranks("dot", (1, 1), input, tensor)
    return matmul(input, tensor)


def vdot(input: Tensor, other: Tensor) -> Tensor:
    """The same as `dot`: there are no complex numbers."""
    _ranks("vdot", (1, 1), input, other)
    return matmul(input, other)


@writes("cast")
def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """The products of each element of one vector with each of another. Shapes: input (m,), vec2 (n,) -> (m, n)."""
    _ranks("outer", (1, 1), input, vec2)
    return mul(_column(input), vec2)


def _blend(input: Tensor, product: Tensor, beta: float, alpha: float) -> Tensor:
    """beta * input + alpha * product; without input where beta is 0."""
    if not is_float(product.array.layout.dtype):
        beta, alpha = int(beta), int(alpha)
    product = product if alpha == 1 else mul(product, alpha)
    if beta == 0:
        return product
    return add(input if beta == 1 else mul(input, beta), product)


def _fits(name: str, input: Tensor, product: Tensor) -> Tensor:
    """The product, if the input broadcasts to its shape and has its dtype."""
    if input.array.layout.dtype != product.array.layout.dtype:
        fail(name, "input must have the dtype of the product", [input.array.layout, product.array.layout],
             "convert with .to()")
    want, have = product.array.layout.shape, input.array.layout.shape
    if broadcast_shapes(name, have, want) != want:
        fail(name, "input must broadcast to the shape of the product", [input.array.layout, product.array.layout])
    return product


@autocast_to_half
@rounds_once
def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * (mat1 @ mat2).

    Shapes: mat1 (m, k), mat2 (k, n), input broadcasts to the result (m, n).
    """
    return _blend(input, _fits("addmm", input, mm(mat1, mat2)), beta, alpha)


@rounds_once
def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * (mat @ vec).

    Shapes: mat (m, k), vec (k,), input broadcasts to the result (m,).
    """
    return _blend(input, _fits("addmv", input, mv(mat, vec)), beta, alpha)


@autocast_to_half
@rounds_once
def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * (batch1 @ batch2).

    Shapes: batch1 (batch, m, k), batch2 (batch, k, n), input broadcasts to the result (batch, m, n).
    """
    return _blend(input, _fits("baddbmm", input, bmm(batch1, batch2)), beta, alpha)


@autocast_to_half
@rounds_once
def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta * input + alpha * (the sum of batch1 @ batch2 over the batch).

    Shapes: batch1 (batch, m, k), batch2 (batch, k, n), input broadcasts to the result (m, n).
    """
    product = sum_op(bmm(batch1, batch2), axes=(0,), keepdim=False)
    return _blend(input, _fits("addbmm", input, product), beta, alpha)


# ---- linear ----------------------------------------------------------------------------------------------------------
@autocast_to_half
@op(short=True)
def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """y = x weight^T + bias

    Shapes: x (*, in), weight (out, in) or (in,), bias (out,) or () or None -> y (*, out) or (*,). One dtype.
    """
    y = matmul(x, through(as_matrix_transpose, weight) if weight.array.layout.ndim == 2 else weight)
    return y if bias is None else add(y, bias)


def _wrong_features(x: Layout, weight: Layout) -> NoReturn:
    """Raises for an input whose last size is not the weight's, and says what may have been meant."""
    got = [f"input {x}", f"weight {weight}"]
    if weight.ndim not in (1, 2) or not x.ndim:
        fail("linear", "input must be (*, in_features) and weight (out_features, in_features)", got)
    features = weight.shape[-1]
    if x.ndim > 1 and x.shape[0] and x.size // x.shape[0] == features:
        fix = "use input.flatten(1)"
    elif x.ndim > 1 and features in x.shape[:-1]:
        at = x.shape.index(features)
        fix = f"the features are its dimension {at}: use input.movedim({at}, -1)"
    else:
        fix = f"give the layer in_features={x.shape[-1]}, or the input {features} features"
    fail("linear", f"the last size of the input must be in_features {features}", got, fix)


@linear.check
def _linear_rule(x: Layout, weight: Layout, bias: Layout | None) -> None:
    if weight.ndim not in (1, 2) or not x.ndim or x.shape[-1] != weight.shape[-1]:
        _wrong_features(x, weight)
    if bias is not None and bias.shape not in (weight.shape[:-1], (1,)[:bias.ndim]):
        fail("linear", "bias must be (out,) for a weight (out, in)", [f"weight {weight}", f"bias {bias}"])
    for p in (weight, bias):
        if p is not None and p.dtype != x.dtype:
            fail("linear", "input, weight and bias must have one dtype",
                 [f"input {x}", f"weight {weight}", *([f"bias {bias}"] if bias else [])],
                 one_dtype(x.dtype, weight.dtype))


def _linear_vjp(node: Any, g: Tensor, needs: list[bool]) -> list[Tensor | None] | None:
    """The products of the definition's derivative, without its forward. Half precision is not rounded between them."""
    _, (x, weight, bias), _ = node.saved
    if weight.array.layout.ndim != 2 or is_half(weight.array.layout.dtype):
        return None
    rows = _rows(g)
    gx = matmul(g, weight) if needs[0] else None
    gw = matmul(through(as_matrix_transpose, rows), _rows(x)) if needs[1] else None
    gb = through(as_reshaped, sum_op(rows, axes=(0,), keepdim=False), bias.array.layout.shape) if needs[2] else None
    return [gx, gw, gb]


linear.vjp = _linear_vjp


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
        gx = gw = None
        gb: Array | None = None
        if need_x:
            gx = alloc(x)
            gemm.call(gx.ptr, g.ptr, wa.ptr, 0, 0, 1, m, k, n, n, 1, k, 1, k, 0)
        if need_w:
            gw = alloc(weight)
            gemm.call(gw.ptr, g.ptr, xa.ptr, 0, 0, 1, n, k, m, 1, n, k, 1, k, 0)
        if need_b:
            gb = alloc(layout(x.device, x.dtype, bias.shape))   # type: ignore[union-attr]
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
    yield (make(5, 3), make(7, 4), None), RuntimeError, r"be in_features 4; got.*\[5, 3\].*\[7, 4\]; give the layer"
    yield (make(5, 2, 2), make(7, 4), None), RuntimeError, r"use input.flatten\(1\)"
    yield (make(4, 3), make(7, 4), None), RuntimeError, r"use input.movedim\(0, -1\)"
    yield (make(4), make(2, 3, 4), None), RuntimeError, r"weight \(out_features, in_features\)"
    yield (make(5, 3), make(7, 3), make(3)), RuntimeError, "bias must be"
    yield (make(5, 3), make(7, 3, dtype=np.float16), None), RuntimeError, "one dtype"


@linear.reference
def _linear_reference(x: Any, weight: Any, bias: Any) -> Any:
    return x @ weight.T + (0 if bias is None else bias)


INPLACE = {"addmm", "addmv", "addbmm", "baddbmm"}
METHODS = {"__matmul__": operator_matmul, "__rmatmul__": reflected_matmul}


work("gemm", lambda k: 2 * k.batch * k.m * k.n * k.k)
