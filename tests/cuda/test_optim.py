"""Optimisers and gradient clipping against their C twins."""
from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu.twins import DTYPES, emulated, values

import minigrad as mg

pytestmark = [emulated, pytest.mark.slow, pytest.mark.usefixtures("gpu")]
OPTIMISERS = {"sgd": [(0, 0), (1, 0), (0, 1)], "adam": [(0, 0, 0), (1, 0, 1), (0, 1, 0)], "rmsprop": [(0, 0), (1, 1)],
              "adagrad": [(0,), (1,)]}


@pytest.mark.parametrize("suffix", ["f32", "f64"])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimisers(name, suffix, order):
    t, sizes = DTYPES[suffix], (1, 33, 1000, 5)
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


@pytest.mark.parametrize("suffix", ["f32", "f64"])
def test_gradient_clipping(suffix, order):
    t, sizes = DTYPES[suffix], (33, 1000, 1)
    grads = [values(t, n) for n in sizes]
    results = []
    for device in (mg.device("cpu"), mg.device("cuda")):
        arrays = [device.upload(g) for g in grads]
        table = device.constant(np.array([[0, a.ptr, 0, 0, 0, 0, n] for a, n in zip(arrays, sizes, strict=True)]))
        norm, factor = device.upload(np.zeros(1)), device.upload(np.zeros(1))
        kernels = device.kernels
        kernels.grad_norm_sq[np.dtype(t)].call(norm.ptr, table.ptr, 3)
        kernels.clip_factor.only.call(factor.ptr, norm.ptr, 1.5, 1e-6)
        kernels.grad_scale[np.dtype(t)].call(table.ptr, factor.ptr, 3)
        kernels.grad_clip[np.dtype(t)].call(table.ptr, 3, 0.05)
        results.append([device.download(a) for a in (norm, factor, *arrays)])
    for want, got in zip(*results, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5 if suffix == "f32" else 1e-13)
