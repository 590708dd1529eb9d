"""Norms against their C twins."""
from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu.twins import DTYPES, compare, emulated, launch, values

import minigrad as mg
from minigrad.devices.native import norm_chunks

pytestmark = [emulated, pytest.mark.slow, pytest.mark.usefixtures("gpu")]
ROWS = [(1, 1), (3, 31), (5, 33), (40, 100), (3, 1500), (0, 4)]


@pytest.mark.parametrize("suffix", ["f32", "f64"])
def test_layer_and_rms_norm(suffix, order):
    t = DTYPES[suffix]
    for rows, n in ROWS:
        x, gy, w, b = values(t, (rows, n)), values(t, (rows, n)), values(t, n), values(t, n)
        y, stat, partial = np.zeros_like(x), np.ones(rows, t), np.zeros(norm_chunks(rows) * 2 * n, t)
        big = x + t(1000)
        for source, weight, bias in ((x, w, b), (x, None, None), (big, w, b)):
            # y may differ by what rounding the mean to T does to x - mean
            compare(f"layer_norm_forward_{suffix}", y, stat, stat, source, weight, bias, rows, n, 1e-5, ulps=16 if source is x else 2048)
        mean, rstd = x.mean(1), 1 / np.sqrt(x.var(1) + t(1e-5))
        for gx, gw, gb in ((x * 0, w * 0, b * 0), (None, w * 0, None), (x * 0, None, None)):
            args = [gx, gw, gb, partial, gy, x, mean.astype(t), rstd.astype(t), w, rows, n]
            want = launch(mg.device("cpu"), f"layer_norm_backward_{suffix}", args)
            got = launch(mg.device("cuda"), f"layer_norm_backward_{suffix}", args)
            for g, v in list(zip(got, want, strict=True))[:sum(a is not None for a in (gx, gw, gb))]:
                np.testing.assert_allclose(g, v, rtol=1e-4 if suffix == "f32" else 1e-12, atol=1e-3 if suffix == "f32" else 1e-11)
        compare(f"rms_norm_forward_{suffix}", y, stat, x, w, rows, n, 1e-5)
        huge = x * t(1e30 if suffix == "f32" else 1e250)                    # their squares overflow
        compare(f"layer_norm_forward_{suffix}", y, stat, stat, huge, w, b, rows, n, 1e-5, ulps=64)
        compare(f"rms_norm_forward_{suffix}", y, stat, huge, w, rows, n, 1e-5, ulps=64)
        args = [x * 0, w * 0, partial, gy, x, rstd.astype(t), w, rows, n]
        for g, v in list(zip(launch(mg.device("cuda"), f"rms_norm_backward_{suffix}", args),
                             launch(mg.device("cpu"), f"rms_norm_backward_{suffix}", args), strict=True))[:2]:
            np.testing.assert_allclose(g, v, rtol=1e-4 if suffix == "f32" else 1e-12, atol=1e-3 if suffix == "f32" else 1e-11)


@pytest.mark.parametrize("suffix", ["f32", "f64"])
def test_batch_norm(suffix, order):
    t = DTYPES[suffix]
    for batch, channels, inner in ((4, 3, 1), (33, 40, 1), (5, 3, 4), (2, 3, 100), (20, 1, 33)):
        x, gy, w, b = values(t, (batch, channels, inner)), values(t, (batch, channels, inner)), values(t, channels), values(t, channels)
        stat = np.zeros(channels, t)
        mean, var = x.mean((0, 2)).astype(t), x.var((0, 2)).astype(t)
        rstd = (1 / np.sqrt(var + t(1e-5))).astype(t)
        sizes = batch, channels, inner
        for weight, bias in ((w, b), (None, None)):
            compare(f"batch_norm_forward_{suffix}", x * 0, stat, stat, stat, x, weight, bias, *sizes, 1e-5, ulps=32)
            compare(f"batch_norm_backward_{suffix}", x * 0, stat, stat, gy, x, mean, rstd, weight, *sizes, ulps=64)
            compare(f"batch_norm_eval_forward_{suffix}", x * 0, x, mean, var, weight, bias, *sizes, 1e-5, ulps=32)
            compare(f"batch_norm_eval_backward_{suffix}", x * 0, stat, stat, gy, x, mean, var, weight, *sizes, 1e-5, ulps=64)
        compare(f"batch_norm_forward_{suffix}", x * 0, stat, stat, stat, x + t(1000), w, b, *sizes, 1e-5, ulps=4096)
        compare(f"running_update_{suffix}", mean, var, channels, 0.1, 1.25)


@pytest.mark.parametrize("suffix", ["f32", "f64"])
def test_group_norm(suffix, order):
    t = DTYPES[suffix]
    for batch, groups, cpg, inner in ((2, 3, 2, 5), (3, 2, 4, 1), (2, 4, 1, 33), (1, 1, 3, 700)):
        shape, channels = (batch, groups, cpg, inner), groups * cpg
        x, gy, w, b = values(t, shape), values(t, shape), values(t, channels), values(t, channels)
        stat, partial = np.zeros((batch, groups), t), np.zeros(2 * batch * channels, t)
        compare(f"group_norm_forward_{suffix}", x * 0, stat, stat, x, w, b, *shape, 1e-5, ulps=32)
        mean, rstd = x.mean((2, 3)).astype(t), (1 / np.sqrt(x.var((2, 3)) + 1e-5)).astype(t)
        args = [x * 0, w * 0, b * 0, partial, gy, x, mean, rstd, w, *shape]
        for g, v in list(zip(launch(mg.device("cuda"), f"group_norm_backward_{suffix}", args),
                             launch(mg.device("cpu"), f"group_norm_backward_{suffix}", args), strict=True))[:3]:
            np.testing.assert_allclose(g, v, rtol=1e-4 if suffix == "f32" else 1e-12, atol=1e-3 if suffix == "f32" else 1e-11)
