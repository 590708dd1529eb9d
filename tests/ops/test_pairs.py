"""Products, differences and statistics of vectors and matrices: the functions that are no ops, against NumPy and PyTorch."""
from __future__ import annotations

import math

import numpy as np
import pytest

import minigrad as mg
from minigrad.nn import functional as F

RNG = np.random.default_rng(0)


def close(got, want):
    np.testing.assert_allclose(got.numpy(force=True), want, 1e-9, 1e-9)


def test_cov_and_corrcoef_are_numpys():
    x, f, a = RNG.standard_normal((3, 8)), RNG.integers(1, 4, 8), RNG.uniform(size=8)
    close(mg.cov(mg.tensor(x)), np.cov(x))
    close(mg.cov(mg.tensor(x), correction=0, fweights=mg.tensor(f), aweights=mg.tensor(a)), np.cov(x, ddof=0, fweights=f, aweights=a))
    close(mg.cov(mg.tensor(x), aweights=mg.tensor(a)), np.cov(x, aweights=a))
    close(mg.corrcoef(mg.tensor(x)), np.corrcoef(x))
    close(mg.cov(mg.tensor(x[0])), np.cov(x[0]))


@pytest.mark.parametrize("edge_order", [1, 2])
def test_gradient_is_numpys(edge_order):
    x, at = RNG.standard_normal((5, 6)), np.sort(RNG.uniform(size=6))
    for got, want in zip(mg.gradient(mg.tensor(x), edge_order=edge_order), np.gradient(x, edge_order=edge_order), strict=True):
        close(got, want)
    got, = mg.gradient(mg.tensor(x), spacing=(mg.tensor(at),), dim=1, edge_order=edge_order)
    close(got, np.gradient(x, at, axis=1, edge_order=edge_order))
    inf = np.array([2, -2, np.inf, 3, -np.inf, 1, 2, np.nan, 0, 4])
    np.testing.assert_array_equal(mg.gradient(mg.tensor(inf))[0].numpy(), np.gradient(inf))
    for row in ([1, 2, np.inf, 4, 5], [1, 2, -np.inf, 4, 5], [1, np.inf, np.inf, 4, 5], [1, np.inf, -np.inf, 4, 5], [np.inf, 2, np.inf, 4, np.inf], [1, 2, np.nan, 4, 5]):
        got, = mg.gradient(mg.tensor(row, dtype="float64"), spacing=(mg.tensor([0.0, 1, 3, 4, 7]),), edge_order=edge_order)
        with np.errstate(invalid="ignore"):
            close(got, np.gradient(np.array(row), np.array([0.0, 1, 3, 4, 7]), edge_order=edge_order))
    got, = mg.gradient(mg.tensor([1, 2, np.inf, 4, 5]), spacing=(mg.arange(5.0),))          # between equal gaps it does not count
    assert got.tolist() == [1, np.inf, 1, -np.inf, 1]
    got, = mg.gradient(mg.tensor(x), spacing=0.5, dim=0, edge_order=edge_order)
    close(got, np.gradient(x, 0.5, axis=0, edge_order=edge_order))


def test_integrals_of_no_points():
    for n in (0, 1):
        y = mg.zeros(2, n)
        for points in ({}, {"x": mg.zeros(n)}, {"x": y}):
            assert mg.trapezoid(y, **points).tolist() == [0.0, 0.0] and mg.cumulative_trapezoid(y, **points).shape == (2, 0)


def test_blocks_products_and_coordinates():
    a, b = mg.tensor([[1, 2]]), mg.tensor([3, 4])
    assert mg.block_diag(a, b, 5).tolist() == [[1, 2, 0, 0, 0], [0, 0, 3, 4, 0], [0, 0, 0, 0, 5]]
    assert mg.cartesian_prod(b, mg.tensor([5, 6])).tolist() == [[3, 5], [3, 6], [4, 5], [4, 6]]
    assert mg.diagflat(mg.tensor([[1, 2]]), 1).tolist() == [[0, 1, 0], [0, 0, 2], [0, 0, 0]]
    assert [i.tolist() for i in mg.unravel_index(mg.tensor([5, 1]), (2, 3))] == [[1, 0], [2, 1]]
    assert [i.tolist() for i in mg.unravel_index(mg.tensor([200], dtype="uint8"), (1, 300))] == [[0], [200]]       # 300 is no uint8
    assert {i.dtype for i in mg.unravel_index(mg.tensor([5], dtype="int32"), (2, 3))} == {mg.int64}
    assert mg.zeros(2, 2).addr_(mg.tensor([1.0, 2.0]), mg.ones(2), alpha=3).tolist() == [[3, 3], [6, 6]]
    assert [p.shape for p in mg.arange(12).reshape(2, 6).hsplit(3)] == [(2, 2)] * 3
    assert [p.tolist() for p in mg.arange(3).hsplit([1])] == [[0], [1, 2]]
    assert len(mg.zeros(4, 1).vsplit(2)) == 2 and len(mg.zeros(1, 1, 4).dsplit(4)) == 4


def test_the_distance_of_a_vector_from_itself_has_gradient_0():
    x = mg.tensor([[1.0, 2.0]], requires_grad=True)
    mg.cdist(x, x.detach(), 2.0, "use_mm_for_euclid_dist").sum().backward()
    assert x.grad.tolist() == [[0, 0]]


@pytest.mark.parametrize("call, kind, text", [
    (lambda: mg.cov(mg.ones(2, 2, 2)), RuntimeError, "two dimensions"),
    (lambda: mg.cov(mg.ones(2), fweights=mg.tensor([-1, 1])), RuntimeError, "negative"),
    (lambda: mg.cov(mg.ones(2), aweights=mg.tensor([1, 1])), RuntimeError, "floats"),
    (lambda: mg.gradient(mg.ones(1)), RuntimeError, "at least 2"),
    (lambda: mg.gradient(mg.ones(3), edge_order=3), RuntimeError, "edge_order"),
    (lambda: mg.cartesian_prod(mg.ones(2, 2)), RuntimeError, "vectors"),
    (lambda: mg.block_diag(mg.ones(2, 2, 2)), RuntimeError, "two dimensions"),
    (lambda: mg.ones(3, 3).hsplit(2), RuntimeError, "multiple"),
    (lambda: mg.ones(3).vsplit(3), RuntimeError, "dimensions"),
    (lambda: mg.unravel_index(mg.ones(2), (2,)), ValueError, "integers"),
])
def test_refusals(call, kind, text):
    with pytest.raises(kind, match=text):
        call()


def test_nan_stays_nan_in_a_count_of_differences():
    a, b = mg.tensor([[1.0, mg.nan], [0.0, 0.0]]), mg.tensor([[1.0, mg.nan], [1.0, 0.0], [mg.inf, 0.0]])
    assert repr(mg.cdist(a, b, p=0).tolist()) == repr([[mg.nan] * 3, [mg.nan, 1.0, 1.0]])
    assert repr(mg.pdist(b, p=0).tolist()) == repr([mg.nan, mg.nan, 1.0])


def test_cosine_similarity_of_two_dtypes(torch):
    for a, b in (([[1, 2, -3]], [[0.5, 1.0, 2.0]]), ([[0.5, 1.0, 2.0]], [[3, 1, 4]])):
        got, want = [lib.nn.functional.cosine_similarity(lib.tensor(a), lib.tensor(b)) for lib in (mg, torch)]
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-6)
    with pytest.raises(RuntimeError, match="floating-point"):
        mg.nn.functional.cosine_similarity(mg.tensor([[1, 2]]), mg.tensor([[1, 2]]))


@pytest.mark.parametrize("dtype, size", [(mg.float32, 1e25), (mg.float32, 1e-25), (mg.bfloat16, 1e25), (mg.float64, 1e200), (mg.float64, 1e-200)])
def test_the_size_of_the_numbers_does_not_matter(dtype, size):
    """Squares leave the range where the result is ordinary."""
    values = np.random.default_rng(3).standard_normal((3, 7))
    size = 2.0 ** round(math.log2(size))
    x, y = (mg.tensor(values * s, dtype=mg.float64).to(dtype).requires_grad_() for s in (1, size))
    for f, power in ((mg.corrcoef, 0), (lambda x: mg.atan2(x, x.flip(1)), 0), (lambda x: mg.cdist(x, x.flip(1)), 1), (lambda x: mg.pdist(x), 1),
                     (lambda x: mg.dist(x, x.flip(1)), 1), (lambda x: F.lp_pool1d(x, 2.0, 3), 1), (lambda x: F.lp_pool1d(x.abs(), 3.0, 3), 1),
                     (lambda x: F.cosine_similarity(x, x.flip(1), eps=0.0), 0), (lambda x: F.pairwise_distance(x, x.flip(0), eps=0.0), 1)):
        a, b = f(x), f(y)
        np.testing.assert_allclose((b.double() / size ** power).numpy(force=True), a.double().numpy(force=True), rtol=1e-6 if dtype != mg.bfloat16 else 2e-2, atol=1e-6)
        w = mg.arange(a.numel(), dtype=dtype).reshape(a.shape)
        (g,), (h,) = mg.autograd.grad((a * w).sum(), x), mg.autograd.grad((b * w).sum(), y)
        tolerance = {mg.float64: 1e-9, mg.float32: 1e-4, mg.bfloat16: 0.1}[dtype] * g.double().abs().max().item()
        np.testing.assert_allclose((h.double() * size / size ** power).numpy(), g.double().numpy(), rtol=0, atol=tolerance)


def test_coordinates_promote_a_gradient(torch):
    for values, at in (([1.0, 2.0, 4.0], np.array([1.0, 2.0, 5.0])), ([1, 2, 4], np.array([1.0, 2.0, 5.0])), ([1.0, 2.0, 4.0], np.array([1, 2, 5]))):
        got, want = [lib.gradient(lib.tensor(values), spacing=(lib.tensor(at),))[0].numpy() for lib in (mg, torch)]
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_lp_pool_of_windows_with_numbers_of_very_different_size():
    """A large element elsewhere does not make the powers of the small ones vanish, nor does an infinite one."""
    for large, power in ((math.inf, 2.0), (math.nan, 2.0), (1e6, 8.0), (1e38, 2.0), (1e38, 4.0), (70000.0, 2.0)):
        y = F.lp_pool1d(mg.tensor([[1.0, large, 2.0, 3.0, 0.0, 1e-3]]), power, 2)
        np.testing.assert_allclose(y[0, 1:].numpy(), [(2 ** power + 3 ** power) ** (1 / power), 1e-3], rtol=1e-5)
    assert F.lp_pool1d(mg.zeros(0, 1, 4), 2.0, 2).shape == (0, 1, 2) and not F.lp_pool1d(mg.zeros(1, 4), 2.0, 2).any()
    np.testing.assert_allclose(F.lp_pool1d(mg.ones(1, 4, dtype=mg.int64), 2, 2).numpy(), 2 ** 0.5)
