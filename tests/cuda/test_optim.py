"""Optimisers and gradient clipping against their C twins."""
from __future__ import annotations

from math import prod
from types import SimpleNamespace

import numpy as np
import pytest
from cuda_on_cpu.twins import DTYPES, emulated, values

import minigrad as mg
from minigrad.devices.cuda import CUDA
from minigrad.devices.launch import KERNELS, Launch

pytestmark = [emulated, pytest.mark.usefixtures("gpu")]
OPTIMISERS = {"sgd": [(0, 0), (1, 0), (0, 1)], "adam": [(0, 0, 0), (1, 0, 1), (0, 1, 0)], "rmsprop": [(0, 0), (1, 1)],
              "adagrad": [(0,), (1,)]}


@pytest.mark.parametrize("suffix", ["f32", "f64"])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimisers(name, suffix, order):
    t, sizes = DTYPES[suffix], (1, 33, 0, 3000, 5)
    hyper = np.array([0.1, 0.01, 1e-8, 0.9, 0.99])
    for flags in OPTIMISERS[name]:
        # an average of squares is more than the square of an average
        start = [[values(t, n), values(t, n), values(t, n, 2, 3), values(t, n, 0, 1), values(t, n, 0, 1), np.array([float(k)])]
                 for k, n in enumerate(sizes)]
        results = []
        for device in (mg.device("cpu"), mg.device("cuda")):
            arrays = [[device.upload(a) for a in row] for row in start]
            table = device.constant(np.array([[a.ptr for a in row] + [n] for row, n in zip(arrays, sizes, strict=True)]))
            numbers = device.upload(hyper)
            for _ in range(3):
                getattr(device.kernels, name)[np.dtype(t)].call(table.ptr, numbers.ptr, len(sizes), *flags)
            results.append([device.download(a) for row in arrays for a in row])
        for want, got in zip(*results, strict=True):
            np.testing.assert_allclose(got, want, rtol=2e-5 if suffix == "f32" else 1e-12, atol=1e-6)


@pytest.mark.parametrize("sizes", [(33, 2500, 0, 1), (0,)], ids=str)
@pytest.mark.parametrize("suffix", ["f32", "f64"])
def test_gradient_clipping(suffix, sizes, order):
    t = DTYPES[suffix]
    grads = [values(t, n) for n in sizes]
    results = []
    for device in (mg.device("cpu"), mg.device("cuda")):
        arrays = [device.upload(g) for g in grads]
        table = device.constant(np.array([[0, a.ptr, 0, 0, 0, 0, n] for a, n in zip(arrays, sizes, strict=True)]))
        squares, norm = device.upload(np.zeros(1)), device.upload(np.full(1, 7, t))
        kernels = device.kernels
        kernels.grad_norm_sq[np.dtype(t)].call(squares.ptr, table.ptr, len(sizes))
        kernels.grad_scale[np.dtype(t)].call(norm.ptr, table.ptr, squares.ptr, len(sizes), 1.5, 1e-6)
        kernels.grad_clip[np.dtype(t)].call(table.ptr, len(sizes), 0.05)
        results.append([device.download(a) for a in (squares, norm, *arrays)])
    for want, got in zip(*results, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5 if suffix == "f32" else 1e-13)


@pytest.mark.parametrize("blocks", [1, 2, 3, 7])
def test_a_block_may_take_chunks_of_many_parameters(blocks, order, monkeypatch):
    """More parameters than a block has threads, and fewer blocks than chunks: each element is visited once."""
    sizes = [k * 37 % 5 * (2500 if k % 50 == 3 else 1) for k in range(300)]
    entry = KERNELS["grad_scale"]._replace(rule=lambda k, host: [Launch("", (blocks,), (64,))])
    monkeypatch.setitem(KERNELS, "grad_scale", entry)
    gpu = CUDA(0)                               # it has asked no rule yet
    gradients, squares, norm = [values(np.float32, n) for n in sizes], gpu.upload(np.array([4.0])), gpu.upload(np.zeros(1, "f"))
    arrays = [gpu.upload(g) for g in gradients]
    table = gpu.constant(np.array([[0, a.ptr, 0, 0, 0, 0, n] for a, n in zip(arrays, sizes, strict=True)]))
    gpu.kernels.grad_scale[np.dtype("f")].call(norm.ptr, table.ptr, squares.ptr, len(sizes), 1.0, 0.0)
    for a, g in zip(arrays, gradients, strict=True):
        np.testing.assert_array_equal(gpu.download(a), g / 2)


def test_optimisers_have_no_blocks_without_work():
    """GPT-2 has 148 parameters and 124 million elements: a row of blocks as long as the longest for each was 46 times as many as had work."""
    sizes = 50257 * 768, 1024 * 768, *(768, 768 * 2304, 768, 2304) * 12, 0
    host = {0: np.array([[0] * 6 + [n] for n in sizes])}
    for name in ("adam", "sgd", "grad_scale", "grad_clip", "grad_norm_sq"):
        first = KERNELS[name].rule(SimpleNamespace(table=0, count=len(sizes)), host)[0]
        assert prod(first.grid) == (1024 if name == "grad_norm_sq" else 2112)
    few = {0: np.array([[0] * 6 + [n] for n in (8192, 128, 1025, 0)])}
    assert [launch.grid for launch in KERNELS["adam"].rule(SimpleNamespace(table=0, count=4), few)] == [(11,), (1,)]
    empty = {0: np.array([[0] * 7])}
    assert KERNELS["grad_clip"].rule(SimpleNamespace(table=0, count=1), empty)[0].grid == (0,)
    assert [launch.grid for launch in KERNELS["grad_norm_sq"].rule(SimpleNamespace(table=0, count=1), empty)] == [(1,), (1,)]
