"""Pooling beyond its samples: kernels against definitions on shapes drawn at random, ties and NaN, indices that were written to."""
from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import both_paths, numbers, run_python

import minigrad as mg
from minigrad.nn import functional as F
from minigrad.ops.dispatch import set_fused
from minigrad.ops.pool import adaptive_avg_pool, adaptive_max_pool, avg_pool, max_pool, sliding


@st.composite
def poolings(draw):
    dims = draw(st.integers(1, 3))
    kernel, stride, dilation = draw(numbers(dims, 1, 4)), draw(numbers(dims, 1, 4)), draw(numbers(dims, 1, 3))
    size, padding = draw(numbers(dims, 1, 20 if dims < 3 else 6)), draw(numbers(dims, 0, 2))
    size = (*size[:-1], draw(st.integers(1, 45)))           # the last dimension goes in vectors, of up to 16 elements
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    return draw(st.integers(1, 4)), size, kernel, stride, padding, dilation, draw(st.booleans()), draw(st.booleans()), dtype


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True)
@given(poolings())
def test_pooling_kernels_on_any_shape(case):
    """With many equal elements, so that the order in which they are looked at counts."""
    n, size, kernel, stride, padding, dilation, ceil_mode, include, dtype = case
    tolerance = 1e-11 if dtype == np.float64 else 1e-5
    padding = tuple([min(p, k // 2) for p, k in zip(padding, kernel, strict=True)])
    x = mg.tensor(np.random.default_rng(0).integers(0, 4, (n, *size)).astype(dtype))
    if all(axis.out for axis in sliding(size, kernel, stride, padding, dilation, ceil_mode)):
        both_paths(max_pool, (x,), {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}, tolerance)
    if all(axis.out for axis in sliding(size, kernel, stride, padding, (1,) * len(size), ceil_mode)):
        both_paths(avg_pool, (x,), {"kernel": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil_mode,
                                    "count_include_pad": include, "divisor_override": None}, tolerance)
    both_paths(adaptive_max_pool, (x,), {"output_size": kernel}, tolerance)
    for output_size in (kernel, (1,) * len(size)):
        both_paths(adaptive_avg_pool, (x,), {"output_size": output_size}, tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fused", ["require", "off"])
def test_max_pool_of_nan_and_infinities_is_torchs(torch, fused, dtype):
    rng = np.random.default_rng(0)
    x = rng.choice([np.nan, -np.inf, np.inf, 0.0, 1.0, 2.0], (4, 3, 13, 45), p=[0.1, 0.3, 0.05, 0.25, 0.2, 0.1]).astype(dtype)
    x[0] = -np.inf
    for kernel, stride, padding, dilation, ceil_mode in ((2, 2, 0, 1, False), (3, 2, 1, 1, True), (3, 1, 1, 2, False)):
        want = torch.nn.functional.max_pool2d(torch.tensor(x), kernel, stride, padding, dilation, ceil_mode, return_indices=True)
        with set_fused(fused):
            got = F.max_pool2d(mg.tensor(x), kernel, stride, padding, dilation, ceil_mode, return_indices=True)
        np.testing.assert_array_equal(got[0].numpy(), want[0].numpy())
        np.testing.assert_array_equal(got[1].numpy(), want[1].numpy())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_max_pool_2x2_of_any_width(dtype):
    """It reads and writes whole vectors over the ends of rows, but not over those of the arrays."""
    rng = np.random.default_rng(1)
    for width in range(2, 75):
        x = rng.choice([np.nan, -np.inf, 0.0, 1.0, 2.0, 3.0], (3, 5, width), p=[0.05, 0.05, 0.3, 0.2, 0.2, 0.2]).astype(dtype)
        for height in (2, 5):
            both_paths(max_pool, (mg.tensor(x[:, :height]),), {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1),
                                                               "ceil_mode": False}, 0)


def test_the_mean_of_many_elements_is_accurate():
    x = np.random.default_rng(0).uniform(9999, 10001, (1, 1, 3000, 64)).astype(np.float32)
    for shape in ((1, 1, 3000, 64), (1, 1, 1, 192000)):
        y = F.adaptive_avg_pool2d(mg.tensor(x.reshape(shape)), 1).item()
        assert abs(y - x.astype(np.float64).mean()) < 1e-2


def test_indices_that_were_written_to_lead_no_gradient_astray():
    x = mg.randn(1, 2, 4, 4, requires_grad=True)
    y, index = F.max_pool2d(x, 2, return_indices=True)
    index.numpy()[...] = [[[1 << 40, -1], [0, -1 << 63]]] * 2
    y.sum().backward()
    assert x.grad.sum().item() == 2


def test_a_window_of_padding_only_is_minus_inf():
    y = F.max_pool1d(mg.tensor([[1.0]]), 2, None, 1, 2)
    assert y.tolist() == [[-np.inf]]
    y, _ = F.max_pool2d(mg.arange(8.0).reshape(1, 1, 4, 2), (2, 2), 1, 1, (1, 3), return_indices=True)
    assert y.shape == (1, 1, 5, 1) and (y == -np.inf).all()
    x = mg.tensor([[[1.0, 5.0, 2.0]]], requires_grad=True)         # with a stride and 2-d: some windows see the input
    y, at = F.max_pool2d(x, (1, 2), 1, (0, 1), (1, 4), return_indices=True)
    assert y.tolist() == [[[-np.inf]]]
    y, at = F.max_pool2d(x, (2, 1), 1, (1, 0), (2, 1), return_indices=True)
    y.clamp(min=0).sum().backward()
    assert y.tolist() == [[[-np.inf] * 3]] and x.grad.tolist() == [[[0, 0, 0]]]


@pytest.mark.parametrize("fused", ["require", "off"])
def test_a_window_in_the_padding_has_no_maximum(fused):
    x = mg.tensor([[1.0, 2.0, 3.0]], dtype=mg.float64, requires_grad=True)
    with set_fused(fused):
        y, index = F.max_pool1d(x[:, :1], 2, None, 1, 2, return_indices=True)
        assert (y.tolist(), index.tolist()) == ([[-np.inf]], [[-1]])
        # in two dimensions: only the outer one, or only the inner one, of a window lies in the padding
        for plane in (x.reshape(1, 1, 3), x.reshape(1, 3, 1)):
            y, index = F.max_pool2d(plane, 2, 1, 1, 2, return_indices=True)
            assert set(y.flatten().tolist()) == {-np.inf} and set(index.flatten().tolist()) == {-1}
    y.sum().backward()
    assert x.grad.tolist() == [[0, 0, 0]]


LONG = """
import os, resource, tracemalloc
import minigrad as mg
from minigrad.nn import functional as F
pools = {"max": lambda x: F.max_pool1d(x, 3), "indices": lambda x: F.max_pool1d(x, 3, 2, 1, 2, True, return_indices=True)[0],
         "avg": lambda x: F.avg_pool1d(x, 3, 1, 1), "adaptive max": lambda x: F.adaptive_max_pool1d(x, x.shape[-1] // 3),
         "adaptive avg": lambda x: F.adaptive_avg_pool1d(x, x.shape[-1] // 2 - 1)}
def used():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20
for name, pool in pools.items():
    for n in (1, 2):                                                # plans of kernels nearby, pages of the allocator
        pool(mg.randn(1, 1, 1_000_000 + n, requires_grad=True)).sum().backward()
    for n in range(3, 8):
        x = mg.randn(1, 1, 1_000_000 + n, requires_grad=True)
        tracemalloc.start()
        pool(x)                                                         # its arrays come from the allocator: warmed up above
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100_000, f"{name}: {peak} bytes of Python's and NumPy's memory for a new length"
before = used()
for n in range(50000, 50400):
    for pool in pools.values():
        pool(mg.randn(1, 1, n, requires_grad=True)).sum().backward()
assert used() - before < 40, f"{used() - before:.0f} MiB more after 400 lengths"
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_long_line_needs_no_table_of_its_windows():
    result = run_python("-c", LONG)
    assert result.returncode == 0, result.stderr


def test_unpooling_of_no_samples():
    pooled, at = mg.nn.functional.max_pool1d(mg.ones(0, 3, 8), 2, return_indices=True)
    assert mg.nn.functional.max_unpool1d(pooled, at, 2).shape == (0, 3, 8)


def test_means_of_integers_are_not_cut():
    with pytest.raises(NotImplementedError, match="adaptive_avg_pool2d.*floating-point"):
        mg.nn.functional.adaptive_avg_pool2d(mg.arange(16).reshape(1, 1, 4, 4), 2)
