"""Order statistics, searches and histograms: what their samples do not say."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg

NAN = float("nan")


def test_nan_is_the_median_unless_it_is_left_out():
    x = mg.tensor([[3.0, NAN, 1.0], [2.0, 5.0, 4.0], [NAN, NAN, NAN]])
    values, indices = x.median(1)
    np.testing.assert_array_equal(values.numpy(), [NAN, 4, NAN])
    assert indices.tolist() == [1, 2, 0]
    values, indices = x.nanmedian(1)
    np.testing.assert_array_equal(values.numpy(), [1, 4, NAN])
    assert np.isnan(x.median().item()) and x.nanmedian().item() == 3
    assert np.isnan(mg.zeros(0).median().item())
    assert mg.tensor([2, 1, 3]).median().item() == 2 and mg.tensor([2, 1, 3]).median().dtype == mg.int64


def test_equal_elements_share_the_gradient_of_the_median():
    x = mg.tensor([1.0, 2.0, 2.0, 3.0], requires_grad=True)
    x.median().backward()
    assert x.grad.tolist() == [0, 0.5, 0.5, 0]


def test_quantiles_with_nan():
    x = mg.tensor([[1.0, NAN, 3.0], [4.0, 5.0, 6.0]], dtype=mg.float64)
    q = mg.tensor([0.0, 0.5], dtype=mg.float64)
    np.testing.assert_array_equal(x.quantile(q, 1).numpy(), [[NAN, 4], [NAN, 5]])
    np.testing.assert_array_equal(x.nanquantile(q, 1).numpy(), [[1, 4], [2, 5]])
    assert x.nanquantile(0.5, keepdim=True).shape == (1, 1)


def test_mode_is_the_smallest_of_the_most_frequent():
    values, indices = mg.tensor([[3, 1, 3, 1, 2], [5, 4, 3, 2, 1]]).mode()
    assert values.tolist() == [1, 1] and indices.tolist() == [3, 4]


def test_searchsorted_and_bucketize():
    edges = mg.tensor([1, 3, 5])
    assert mg.searchsorted(edges, 3).item() == 1 and mg.searchsorted(edges, 3, right=True).item() == 2
    assert mg.bucketize(mg.tensor([0, 3, 9]), edges, out_int32=True).dtype == mg.int32
    shuffled, sorter = mg.tensor([5, 1, 3]), mg.tensor([1, 2, 0])
    assert mg.searchsorted(shuffled, mg.tensor([4]), sorter=sorter).tolist() == [2]
    assert mg.searchsorted(edges, mg.tensor([2.5, 3.5])).tolist() == [1, 2]             # compared by value, whatever the dtypes
    assert mg.bucketize(mg.tensor([1, 2**24 + 1]), mg.tensor([0.5, 2.0**24])).tolist() == [1, 2]
    assert mg.isin(mg.tensor([1, 2]), 2, invert=True).tolist() == [True, False]


def test_histograms_are_numpys():
    x, w = np.random.default_rng(0).standard_normal((50, 2)), np.random.default_rng(1).uniform(size=50)
    for density in (False, True):
        got = mg.histogram(mg.tensor(x[:, 0]), 7, range=(-1, 2), weight=mg.tensor(w), density=density)
        want = np.histogram(x[:, 0], 7, (-1, 2), density, w)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a.numpy(), b)
        hist, edges = mg.histogramdd(mg.tensor(x), (3, 4), range=(-1, 1, -2, 2), density=density)
        want, want_edges = np.histogramdd(x, (3, 4), ((-1, 1), (-2, 2)), density=density)
        np.testing.assert_allclose(hist.numpy(), want)
        for a, b in zip(edges, want_edges, strict=True):
            np.testing.assert_allclose(a.numpy(), b)
    assert mg.histc(mg.tensor([1.0, 1.0, 5.0]), 2).tolist() == [2, 1]


@pytest.mark.parametrize("call, kind, text", [
    (lambda: mg.ones(2, 0).mode(1), IndexError, "not be empty"),
    (lambda: mg.quantile(mg.ones(2), mg.tensor([0.5, 2.0])), RuntimeError, "between 0 and 1"),
    (lambda: mg.quantile(mg.ones(2), mg.ones(1, dtype=mg.float64)), RuntimeError, "dtype"),
    (lambda: mg.searchsorted(mg.ones(2), 1.0, side="left", right=True), RuntimeError, "contradict"),
    (lambda: mg.searchsorted(mg.ones(2, 2), 1.0), RuntimeError, "vector"),
    (lambda: mg.bucketize(1.0, mg.ones(2, 2)), RuntimeError, "vector"),
    (lambda: mg.histc(mg.ones(2), 0), RuntimeError, "positive"),
    (lambda: mg.histogram(mg.ones(2), 3, range=(2, 1)), RuntimeError, "range"),
    (lambda: mg.histogramdd(mg.ones(2), 3), RuntimeError, "two dimensions"),
    (lambda: mg.histogram(mg.ones(2), mg.ones(0)), RuntimeError, "at least one edge"),
    (lambda: mg.histogram(mg.ones(2), 3, weight=mg.ones(3)), RuntimeError, "shape"),
])
def test_refusals(call, kind, text):
    with pytest.raises(kind, match=text):
        call()


def test_the_edges_given_back_are_a_copy():
    edges = mg.tensor([0.0, 1.0, 2.0])
    for found in (mg.histogram(mg.rand(3), edges).bin_edges, mg.histogramdd(mg.rand(3, 1), [edges]).bin_edges[0]):
        assert mg.equal(found, edges) and found.data_ptr() != edges.data_ptr()
    a = mg.eye(2)
    assert mg.triangular_solve(mg.ones(2, 1), a)[1].data_ptr() != a.data_ptr()


@pytest.mark.parametrize("dtype", [mg.float16, mg.float32, mg.float64])
def test_quantiles_beside_infinities(dtype):
    """Between a finite and an infinite number lies that infinity, at every share, and at rank i the number i itself."""
    inf, nan = float("inf"), float("nan")
    for values, q, want in (([0, inf], 0.2, inf), ([0, inf], 0.5, inf), ([0, inf], 0.9, inf), ([-inf, 0], 0.2, -inf), ([-inf, 0], 0.9, -inf),
                            ([0, inf], 0.0, 0), ([0, inf], 1.0, inf), ([1, 2, inf, inf], 0.9, inf), ([-inf, -inf, 3, 4], 0.05, -inf),
                            ([-inf, inf], 0.5, nan), ([3, 1, 2, inf], 0.25, 1.75)):
        x = mg.tensor(values, dtype=dtype, requires_grad=True)
        for f in (mg.quantile, mg.nanquantile):
            np.testing.assert_array_equal(f(x, q).item(), want)
    assert mg.quantile(mg.tensor([0.0, inf]), 0.4, interpolation="midpoint").item() == inf
    grad, = mg.autograd.grad(mg.quantile(x, 0.25), x)
    assert grad.tolist() == [0, 0.25, 0.75, 0]


@pytest.mark.parametrize("low", [-np.inf, np.inf, 1.0, np.nan])
@pytest.mark.parametrize("name", ["median", "nanmedian"])
def test_equal_middles_share_the_gradient(name, low):
    x = mg.tensor([low, 7.0, low, low], dtype=mg.float64, requires_grad=True)
    y = getattr(x, name)()
    if name == "nanmedian" and low != low:
        assert y.item() == 7.0
        return
    np.testing.assert_equal(y.item(), low)
    y.backward()
    np.testing.assert_allclose(x.grad.numpy(), [1 / 3, 0, 1 / 3, 1 / 3])
