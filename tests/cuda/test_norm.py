"""Norms against their C twins."""
from __future__ import annotations

from math import prod
from types import SimpleNamespace

import numpy as np
import pytest
from cuda_on_cpu.twins import DTYPES, compare, emulated, launch, reduce_plan, values

import minigrad as mg
from minigrad.devices import native
from minigrad.devices.launch import KERNELS

pytestmark = [emulated, pytest.mark.usefixtures("gpu")]
ROWS = [(1, 1), (3, 31), (5, 33), (40, 100), (9, 300), (6, 700), (3, 1500), (3, 4200), (0, 4)]
MANY = [(2200, 100), (300, 4100)]      # several rows for each thread


@pytest.mark.parametrize("suffix", ["f32", "f64"])
def test_layer_and_rms_norm(suffix, order):
    t = DTYPES[suffix]
    for rows, n in ROWS:
        x, gy, w, b = values(t, (rows, n)), values(t, (rows, n)), values(t, n), values(t, n)
        y, stat = np.zeros_like(x), np.ones(rows, t)
        partial = np.full(max(native.norm_chunks(rows), native.norm_parts(rows, n)) * 2 * n, np.nan, t)
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


@pytest.mark.parametrize("rows, n", MANY)
def test_backward_of_many_rows(rows, n):
    x, gy, w = values(np.float32, (rows, n)), values(np.float32, (rows, n)), values(np.float32, n)
    mean, rstd, partial = x.mean(1), 1 / np.sqrt(x.var(1)), np.full(native.norm_parts(rows, n) * 2 * n, np.nan, np.float32)
    args = [x * 0, w * 0, w * 0, partial, gy, x, mean, rstd, w, rows, n]
    xhat, gw = ((x - mean[:, None]) * rstd[:, None]).astype(np.float64), (gy * w).astype(np.float64)
    want = ((gw - gw.mean(1, keepdims=True) - xhat * (gw * xhat).mean(1, keepdims=True)) * rstd[:, None], (gy * xhat).sum(0), gy.sum(0))
    for g, v in zip(launch(mg.device("cuda"), "layer_norm_backward_f32", args), want, strict=False):
        np.testing.assert_allclose(g, v, rtol=1e-4, atol=2e-4)
    args = [x * 0, w * 0, partial, gy, x, rstd, w, rows, n]
    for g, v in zip(*(launch(mg.device(d), "rms_norm_backward_f32", args)[:2] for d in ("cuda", "cpu")), strict=True):
        np.testing.assert_allclose(g, v, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("suffix", ["f32", "f64"])
def test_batch_norm(suffix, order):
    t = DTYPES[suffix]
    for batch, channels, inner in ((4, 3, 1), (33, 40, 1), (5, 3, 4), (2, 3, 100), (20, 2, 33), (3, 2, 4200), (600, 3, 1)):
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
        for unbiased in (0, 1):
            compare(f"counted_update_{suffix}", mean, var, np.arange(channels).astype(t), channels, unbiased, 0.1)


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


@pytest.mark.parametrize("suffix", ["f32", "f64"])
def test_masked_norm(suffix, order):
    """Sets in strips and side by side; channels that are sets, positions in a set, and strips of a set."""
    t = DTYPES[suffix]
    for batch, sets, n, each, channels in ((4, 3, 1, 1, 3), (33, 40, 1, 1, 40), (2, 5, 40, 40, 5), (1, 6, 100, 1, 100), (1, 70, 5, 1, 5),
                                           (1, 6, 99, 33, 9), (1, 4, 2100, 700, 6), (3, 2, 1100, 1100, 1)):
        shape = batch, sets, n
        x, gy, w, b = values(t, shape), values(t, shape), values(t, channels), values(t, channels)
        mask, stats = values(np.uint8, shape), [np.full(sets, np.nan, t) for _ in range(4)]
        mask[:, 0] = 0                                                      # a set without elements
        x[mask == 0] = np.nan
        sizes = *shape, each, channels
        large, small, least = (1e30, 1e-20, 1e-37) if suffix == "f32" else (1e250, 1e-152, 1e-306)
        for source, ulps, eps in ((x, 64, 1e-5), (x + t(1000), 4096, 1e-5), (x * t(large), 64, 1e-5), (x * t(small), 64, least)):
            for weight, bias, centered in ((w, b, 1), (None, b, 1), (w, None, 0)):
                args = [x * 0, *stats, source, mask, weight, bias, *sizes, centered, eps]
                got, want = (launch(mg.device(d), f"valid_norm_forward_{suffix}", args)[:5] for d in ("cuda", "cpu"))
                got[3][0] = want[3][0] = 0                                  # of no elements: nothing uses it
                for g, v, like in zip(got, want, [*want[:1], source[mask == 1], *want[2:]], strict=True):     # a mean may be near 0
                    scale = np.abs(like[np.isfinite(like)]).max(initial=0)
                    np.testing.assert_allclose(g, v, rtol=ulps * np.finfo(t).eps, atol=ulps * np.finfo(t).eps * scale + np.finfo(t).tiny)
                assert not got[0][mask == 0].any() and np.isfinite(got[0]).all()
        _, mean, _, rstd, count = launch(mg.device("cpu"), f"valid_norm_forward_{suffix}", [x * 0, *stats, x, mask, None, None, *sizes, 1, 1e-5])[:5]
        for (gx, gw, gb), weight, centered in (((x * 0, w * 0, b * 0), w, 1), ((None, w * 0, None), w, 1), ((x * 0, None, None), None, 0)):
            args = [gx, gw, gb, gy, x, mask, mean, rstd, count, weight, *sizes, centered]
            got, want = (launch(mg.device(d), f"valid_norm_backward_{suffix}", args) for d in ("cuda", "cpu"))
            for g, v in list(zip(got, want, strict=True))[:sum(a is not None for a in (gx, gw, gb))]:
                np.testing.assert_allclose(g, v, rtol=1e-4 if suffix == "f32" else 1e-12, atol=1e-3 if suffix == "f32" else 1e-11)


def test_norms_occupy_the_gpu():
    """The backward kernels of layer norm ran 128 blocks at most, 32 for 1,024 rows; batch norm a block for each channel."""
    def grids(name, **sizes):
        wanted = dict.fromkeys(("gx", "gweight", "gbias"), True)
        return [(prod(one.grid), prod(one.block)) for one in KERNELS[name].rule(SimpleNamespace(**{**wanted, **sizes}), {})]
    assert grids("layer_norm_backward", rows=16384, n=768) == [(264, 256), (48, 512)]
    assert grids("layer_norm_backward", rows=400, n=768) == [(200, 256), (48, 512)]
    assert grids("layer_norm_backward", rows=10**6, n=64) == [(977, 256), (4, 512)]         # none adds more than 128 rows
    assert grids("layer_norm_backward", rows=1024, n=8192, gweight=False, gbias=False) == [(264, 512)]
    assert grids("rms_norm_backward", rows=8, n=64) == [(1, 256), (2, 512)]
    assert grids("rms_norm_backward", rows=0, n=64) == [(1, 256), (2, 512)]                 # it writes zeros
    assert grids("batch_norm_forward", batch=32, channels=64, inner=112 * 112) == [(320, 512)] * 2
    assert grids("batch_norm_backward", batch=32, channels=64, inner=112 * 112) == [(320, 512)] * 2
    assert grids("batch_norm_eval_backward", batch=4096, channels=256, inner=1) == [(128, 512), (8, 512)]
    assert grids("batch_norm_backward", batch=64, channels=32, inner=64) == [(32, 512)]     # one launch forward, one back
    assert grids("batch_norm_forward", batch=64, channels=32, inner=64) == [(32, 512)]


def test_the_same_bits_whatever_the_order_of_threads(monkeypatch):
    """Sums over rows, columns, channels and their segments."""
    def run(order):
        rng, t = np.random.default_rng(1), np.float32
        monkeypatch.setenv("CUDA_ON_CPU_ORDER", order)
        results = []
        for rows, n in ((40, 100), (3, 1500), (5, 4200)):
            x, gy, w, b = (rng.standard_normal(s, t) for s in ((rows, n), (rows, n), n, n))
            partial, rstd = np.zeros(native.norm_parts(rows, n) * 2 * n, t), np.ones(rows, t)
            results += launch(mg.device("cuda"), "layer_norm_backward_f32", [x * 0, w, b, partial, gy, x, rstd * 0, rstd, w, rows, n])
        for sizes in ((3, 2, 4200), (600, 3, 1)):
            x, gy, w = rng.standard_normal(sizes, t), rng.standard_normal(sizes, t), rng.standard_normal(sizes[1], t)
            for name, args in (("forward", [x * 0, w, w, w, x, w, w]), ("backward", [x * 0, w, w, gy, x, w, w, w]),
                               ("eval_backward", [x * 0, w, w, gy, x, w, w * w, w])):
                eps = [1e-5] if name != "backward" else []
                results += launch(mg.device("cuda"), f"batch_norm_{name}_f32", [*args, *sizes, *eps])
        x = rng.standard_normal((1100, 40), t)
        for plan, outputs in ((reduce_plan((40,), (1100,), (1,), (40,)), 40), (reduce_plan((), (44000,), (), (1,)), 1)):
            results += launch(mg.device("cuda"), "sum_f32", [np.zeros(outputs, t), x, plan])
        return [r.tobytes() for r in results]
    assert run("0") == run("1") == run("2:7")
