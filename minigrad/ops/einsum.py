"""Sums of products over named dimensions: einsum, tensordot, inner.

Operands are joined pair by pair. A pair becomes one product of matrices (native/gemm.c): its dimensions are brought
into the order batch, left or right, summed. Everything is made of views, `matmul`, `mul` and `sum`, and has its
derivatives from them.
"""
from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

from ..core.half import rounds_once
from ..core.out import writes
from ..core.shape import INT64, axis_of, fail, is_float
from ..core.tensor import Tensor
from .convert import cast
from .math import mul
from .matmul import matmul
from .reduce import sum_op
from .through import through
from .view import as_expanded, as_permuted, as_reshaped, diagonal

__all__ = ["inner", "einsum", "tensordot"]


@writes("cast")
def inner(input: Tensor, other: Tensor) -> Tensor:
    """Sums of products over the last dimension of both.

    Shapes: input (*, n), other (**, n) -> (*, **). If one of them has no dimension, it is their product. RuntimeError
    for last dimensions of different sizes.
    """
    if not input.array.layout.ndim or not other.array.layout.ndim:
        return mul(input, other)
    if input.array.layout.shape[-1] != other.array.layout.shape[-1]:        # tensordot would broadcast a size of 1
        fail("inner", "the last dimensions must have one size", [input.array.layout, other.array.layout])
    return tensordot(input, other, ([-1], [-1]))


# ---- tensordot and einsum --------------------------------------------------------------------------------------------
def tensordot(a: Tensor, b: Tensor, dims: int | Sequence[Sequence[int]] = 2) -> Tensor:
    """Sums of products over several dimensions.

    `dims` is a number, for the last `dims` dimensions of a with the first of b in order, or two lists of as many
    dimensions, of a and of b. Gives the other dimensions of a, then those of b.
    """
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
        of_a = tuple(axis_of(d, x.ndim, "tensordot") for d in pair[0])
        of_b = tuple(axis_of(d, y.ndim, "tensordot") for d in pair[1])
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
    """The labels of each operand and of the output, as numbers: a letter's code; for the dimensions of "..." -1, -2,
    ... from the right."""
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
    """The labels of one term as numbers; "..." are `dots` dimensions, or as many as an operand of `rank` dimensions
    needs."""
    before, dotted, after = term.partition("...")
    for letter in before + after:
        if not (letter.isascii() and letter.isalpha()):
            fail("einsum", "labels must be letters", repr(equation))
    if rank is not None:
        dots = rank - len(before) - len(after)
        if dots < 0 or dots and not dotted:
            fail("einsum", f"an operand of {rank} dimensions needs as many labels", f"{term!r} in {equation!r}")
    return [ord(c) for c in before] + ([-d for d in range(dots, 0, -1)] if dotted else []) + [ord(c) for c in after]


@rounds_once
def einsum(equation: Any, *operands: Any) -> Tensor:
    """Sums of products in Einstein's notation: `einsum("ij,jk->ik", a, b)` is a @ b.

    A label that the output does not have is summed over. A label repeated in one operand takes its diagonal. "..." are
    further dimensions, which broadcast. Without "->", the output has the labels that occur once, in alphabetical order.
    The other form, `einsum(a, [0, 1], b, [1, 2], [0, 2])`, has numbers from 0 to 51 as labels.

    >>> einsum("bij,bij->b", ones(2, 3, 4), ones(2, 3, 4)).tolist()
    [12.0, 12.0]
    """
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
    """The labels of a list as letters."""
    for d in labels:
        if d is not Ellipsis and not 0 <= operator.index(d) < 52:
            fail("einsum", "sublist labels must lie in [0, 52)", list(labels))
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    return "".join("..." if d is Ellipsis else letters[d] for d in labels)


def _contract(operands: list[Tensor], labels: list[list[int]], output: list[int]) -> Tensor:
    """Joins the operands pair by pair, first the pair with the smallest result; then brings the last one into order."""
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
    return x if order == tuple(range(len(order))) else through(as_permuted, x, order)


def _cost(terms: list, i: int, j: int, output: list[int]) -> int:
    """The size of the result if terms i and j are joined."""
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
    """x summed over the labels that are not in `keep`, integers as int64."""
    axes = tuple([i for i, d in enumerate(labels) if d not in keep])
    if axes and not is_float(x.dtype):
        x = cast(x, INT64)
    return (sum_op(x, axes=axes, keepdim=False), [d for d in labels if d in keep]) if axes else (x, labels)


def _pair(x: Tensor, a: list[int], y: Tensor, b: list[int], keep: set[int]) -> tuple[Tensor, list[int]]:
    """The product of two operands, summed over the labels not in `keep`."""
    x, a = _summed(x, a, keep | set(b))
    y, b = _summed(y, b, keep | set(a))
    steps_x, steps_y, over, shape, labels = _recipe(tuple(a), x.array.layout.shape, tuple(b), y.array.layout.shape,
                                                    frozenset(keep))
    for step, value in steps_x:
        x = through(step, x, value)
    for step, value in steps_y:
        y = through(step, y, value)
    z = matmul(x, y) if over else mul(x, y)         # without a sum: [batch, left, 1] * [batch, 1, right]
    return z if z.array.layout.shape == shape else through(as_reshaped, z, shape), labels


@lru_cache(maxsize=1024)
def _recipe(a: tuple[int, ...], a_shape: tuple[int, ...], b: tuple[int, ...], b_shape: tuple[int, ...],
            keep: frozenset[int]) -> tuple:
    """How two operands become the factors [batch, left, over] and [batch, over, right] of one matmul: the views of
    each, whether there is a sum, the result's shape and labels."""
    sizes = dict(zip(a, a_shape, strict=True))
    for d, n in zip(b, b_shape, strict=True):
        sizes[d] = n if sizes.get(d, 1) == 1 else sizes[d]
    both = [d for d in a if d in b]
    batch, over = [d for d in both if d in keep], [d for d in both if d not in keep]
    left, right = [d for d in a if d not in both], [d for d in b if d not in both]
    labels = batch + left + right
    return (_arrangement(a, a_shape, [batch, left, over], sizes), _arrangement(b, b_shape, [batch, over, right], sizes),
            bool(over), tuple([sizes[d] for d in labels]), labels)


def _arrangement(labels: tuple[int, ...], shape: tuple[int, ...], groups: list[list[int]],
                 sizes: dict[int, int]) -> list[tuple]:
    """The views that bring the dimensions into the order of the groups. The dimensions of the first group stay apart,
    those of each other group become one."""
    steps: list[tuple] = []
    order = tuple([labels.index(d) for group in groups for d in group])
    if order != tuple(range(len(order))):
        steps.append((as_permuted, order))
    now = tuple([shape[i] for i in order])
    full = tuple([sizes[d] for group in groups for d in group])
    if now != full:
        steps.append((as_expanded, full))
    joined = tuple([sizes[d] for d in groups[0]] + [prod(sizes[d] for d in group) for group in groups[1:]])
    if joined != full:
        steps.append((as_reshaped, joined))
    return steps
