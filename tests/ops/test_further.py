"""PyTorch's further names: what the samples do not say."""
from __future__ import annotations

import math

import numpy as np
import pytest

import minigrad as mg
from minigrad import special


def test_copies_are_no_views():
    x = mg.arange(6).reshape(2, 3)
    for copied in (mg.unsqueeze_copy(x, 0), mg.view_copy(x, 6), mg.permute_copy(x, (1, 0)), mg.t_copy(x), mg.diagonal_copy(x), mg.select_copy(x, 0, 0),
                   mg.narrow_copy(x, 0, 0, 1), mg.alias_copy(x), mg.squeeze_copy(x), mg.unfold_copy(x, 1, 2, 1), mg.unbind_copy(x)[0], mg.split_copy(x, 1)[0]):
        copied.fill_(9)
    assert x.tolist() == [[0, 1, 2], [3, 4, 5]]
    for call in (lambda **o: mg.permute_copy(x, (1, 0), **o), lambda **o: mg.permute_copy(x, 1, 0, **o), lambda **o: mg.view_copy(x, 6, **o), lambda **o: mg.t_copy(x, **o)):
        out = mg.empty(0, dtype=x.dtype)
        assert call(out=out) is out and out.tolist() == call().tolist()
    rows = [mg.empty(0, dtype=x.dtype) for _ in range(2)]
    mg.unbind_copy(x, out=rows)
    assert [r.tolist() for r in rows] == x.tolist()


def test_frexp_is_exact_for_all_sizes():
    x = mg.tensor([0.0, -3.0, 5e-324, 1.7e308, 0.75], dtype=mg.float64, requires_grad=True)
    mantissa, exponent = mg.frexp(x)
    want, e = np.frexp(x.numpy(force=True))
    np.testing.assert_array_equal(mantissa.numpy(force=True), want)
    assert exponent.tolist() == e.tolist() and exponent.dtype == mg.int32
    mantissa[1].backward()
    assert x.grad[1].item() == 0.25


def test_whole_numbers_and_neighbours():
    assert mg.gcd(mg.tensor([12, -8]), mg.tensor([18, 0])).tolist() == [6, 8] and mg.lcm(mg.tensor([4]), mg.tensor([6])).tolist() == [12]
    x, to = mg.tensor([1.0, 2.0, 0.0], requires_grad=True), mg.tensor([2.0, 2.0, -1.0], requires_grad=True)
    (mg.nextafter(x, to) * mg.tensor([3.0, 4.0, 5.0])).sum().backward()
    assert x.grad.tolist() == [3, 0, 5] and to.grad.tolist() == [0, 0, 0]       # a step beside x, but where it is there
    assert mg.nextafter(mg.tensor(1.0), mg.tensor(2.0)).item() == np.nextafter(np.float32(1), np.float32(2))


def test_neighbours_in_half_precision():
    x, to = (v.ravel() for v in np.meshgrid(*[np.array([0, -0.0, 1, -1, 6e-8, 6.1e-5, 65504, math.inf, -math.inf, math.nan], "f2")] * 2))
    got = mg.nextafter(mg.tensor(x), mg.tensor(to))
    assert got.dtype == mg.float16
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(got.numpy().view("u2"), np.nextafter(x, to).view("u2"))
    got = mg.nextafter(mg.tensor([[1.0], [0.0], [-2.0]], dtype=mg.bfloat16), mg.tensor([math.inf, -3.0], dtype=mg.bfloat16))
    assert got.dtype == mg.bfloat16 and got.float().tolist() == [[1 + 2 ** -7, 1 - 2 ** -8], [2.0 ** -133, -2.0 ** -133], [-2 + 2 ** -7, -2 - 2 ** -6]]
    assert mg.nextafter(mg.tensor([1.0], dtype=mg.float16), mg.tensor([2.0])).item() == np.nextafter(np.float32(1), np.float32(2))


def test_names_without_a_calculation():
    x = mg.tensor([1.0], requires_grad=True)
    assert mg.real(x) is x and mg.conj(x) is x and mg.isreal(x).tolist() == [True] and mg.conj_physical(x) is not x
    assert mg.broadcast_shapes((2, 1), 3, ()) == (2, 3) and mg.scalar_tensor(3).dtype == mg.float32
    filled = mg.fill(mg.zeros(2), x[0])
    filled.sum().backward()
    assert filled.tolist() == [1, 1] and x.grad.tolist() == [2] and mg.fill(mg.zeros(2), 5).tolist() == [5, 5]
    assert mg.constant_pad_nd(mg.ones(1), (1, 1), 7).tolist() == [7, 1, 7] and len(mg.unsafe_split(mg.ones(4), 2)) == len(mg.unsafe_chunk(mg.ones(4), 2)) == 2


def test_special_functions():
    assert special.entr(mg.tensor([0.0, -1.0, 1.0])).tolist() == [0, -math.inf, 0] and special.expit(mg.tensor(0.0)).item() == 0.5
    assert special.xlog1py(mg.tensor([0.0]), mg.tensor([-1.0])).item() == 0 and special.ndtr(mg.tensor(0.0)).item() == 0.5


@pytest.mark.parametrize("call, kind, text", [
    (lambda: mg.frexp(mg.tensor([1])), RuntimeError, "floating"),
    (lambda: mg.broadcast_shapes((2,), (3,)), RuntimeError, "broadcast"),
    (lambda: mg.broadcast_shapes((-2,)), RuntimeError, "negative"),
    (lambda: mg.fill(mg.zeros(2), mg.zeros(2)), RuntimeError, "0-d"),
    (lambda: mg.gcd(mg.tensor([1]), 2), TypeError, "tensor"),
])
def test_refusals(call, kind, text):
    with pytest.raises(kind, match=text):
        call()


def test_unsafe_parts_may_be_changed_in_the_graph():
    for cut in (lambda x: mg.unsafe_split(x, 1), lambda x: mg.unsafe_chunk(x, 3)):
        x = mg.tensor([[2.0, 3.0], [4.0, 5.0], [6.0, 7.0]], requires_grad=True)
        first, second, _ = cut(x * 1)
        first.mul_(second)
        first.sum().backward()
        assert x.grad.tolist() == [[4.0, 5.0], [2.0, 3.0], [0.0, 0.0]]


def test_products_with_0_keep_their_slopes():
    """0 times a logarithm or a power is 0; its derivatives are not, unless the other factor is no number."""
    zero, five = mg.zeros((), dtype=mg.float64, requires_grad=True), mg.tensor(5.0, dtype=mg.float64, requires_grad=True)
    for f, slope, mixed in (mg.special.xlog1py, math.log(6), 1 / 6), (mg.xlogy, math.log(5), 1 / 5), (lambda x, y: y**x, math.log(5), 1 / 5):
        to_zero, to_five = mg.autograd.grad(f(zero, five), (zero, five), create_graph=True)
        assert to_zero.item() == pytest.approx(slope) and to_five.item() == 0
        assert mg.autograd.grad(to_zero, five, retain_graph=True)[0].item() == pytest.approx(mixed)
        assert mg.autograd.grad(to_five, zero)[0].item() == pytest.approx(mixed)
    for y in -1.0, -3.0, math.inf:
        y = mg.tensor(y, dtype=mg.float64, requires_grad=True)
        assert [g.item() for g in mg.autograd.grad(mg.special.xlog1py(zero, y), (zero, y))] == [0, 0]
    for dtype in mg.float64, mg.float32, mg.float16, mg.bfloat16:
        x = mg.tensor([0, 1e-40, -2, math.inf, math.nan], dtype=dtype, requires_grad=True)
        p = mg.zeros(5, dtype=dtype, requires_grad=True)
        to_x, = mg.autograd.grad((x**p).sum(), x, create_graph=True)
        assert to_x.tolist() == [0] * 5
        assert mg.autograd.grad(to_x[0], p)[0][0].item() == 0
        x = mg.tensor([0.0, 1.0, -1.0], dtype=dtype, requires_grad=True)
        assert mg.autograd.grad(mg.special.entr(x).sum(), x)[0].tolist() == [math.inf, -1, 0]
        below = mg.tensor([-0.0], requires_grad=True)
        assert mg.autograd.grad(mg.special.entr(below).sum(), below)[0].item() == math.inf
