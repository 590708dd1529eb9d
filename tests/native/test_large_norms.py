"""Norms of arrays larger than native.CACHED_BYTES (native/loops.h), which are read row by row and stored past the caches, and the batch
statistics, whose blocks are merged: what the ops' small samples do not reach."""
from __future__ import annotations

import functools
import math

import numpy as np
import pytest

import minigrad as mg
from minigrad.devices import native
from minigrad.nn import functional as F

pytestmark = pytest.mark.slow
LEVELS = native.LEVELS[:native.LEVELS.index(native.best_simd_level()) + 1]
F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
EPS = 1e-5
SIGNATURES = native.signatures()
GUARD = 0xA5

# what follows the first dimension: (n,) of layer and RMS norm, (groups, channels of each, inner) of group norm, which is instance norm
# with one channel in each group, (channels, inner) of batch norm. Rows that are and are not whole vectors of every SIMD level, or of
# some (520, 1000), shorter and longer than BLOCK_ELEMENTS; units of an odd size when threads share the channels
ROWS = [("layer", (512,)), ("layer", (513,)), ("layer", (520,)), ("layer", (768,)), ("layer", (1000,)), ("layer", (2050,)), ("layer", (4112,)),
        ("rms", (513,)), ("rms", (768,)), ("rms", (4100,)),
        ("group", (4, 16, 49)), ("group", (8, 4, 64)), ("group", (3, 64, 1)), ("group", (2, 33, 1)), ("group", (2, 3, 2100)), ("group", (2, 3, 2112)),
        ("group", (61, 1, 196)), ("group", (16, 1, 768)), ("group", (3, 1, 3136))]
BATCHES = [(768, 1), (700, 1), (513, 1), (2050, 1), (2064, 1), (4099, 1), (17, 7), (64, 49), (33, 64), (48, 127), (48, 128), (37, 196), (16, 784),
           (7, 784), (3, 2100), (5, 3136)]


@pytest.fixture(params=[*[pytest.param(level, marks=pytest.mark.slow) for level in LEVELS[:-1]], LEVELS[-1]])
def level(request):
    before = native.simd_level()
    native.set_simd_level(request.param)
    yield request.param
    native.set_simd_level(before)


@pytest.fixture
def threads():
    """Sets the number of threads until the test ends."""
    before = mg.get_num_threads()
    yield mg.set_num_threads
    mg.set_num_threads(before)


@functools.cache
def numbers(dtype):
    """Enough for an array a little larger than native.CACHED_BYTES, twice: x and gy."""
    values = np.random.default_rng(0).standard_normal((2, 5 * native.CACHED_BYTES // 4 // dtype.itemsize), np.float32).astype(dtype)
    values.flags.writeable = False
    return values


def sample(kind, sizes, dtype, rows):
    """x, gy, weight and bias."""
    x, gy = (a[:rows * math.prod(sizes)].reshape(rows, *sizes) for a in numbers(dtype))
    n = math.prod(sizes[:-1] if kind != "layer" and kind != "rms" else sizes)
    weight, bias = np.random.default_rng(1).uniform(0.5, 1.5, (2, n)).astype(dtype)
    return x, gy, weight, bias


def around(sizes, dtype):
    """Two numbers of rows: just not above native.CACHED_BYTES, and just above; both odd."""
    most = native.CACHED_BYTES // dtype.itemsize // math.prod(sizes)
    return most - (most % 2 == 0), most + 1 + most % 2


class Memory:
    """Arrays that begin `skip` elements after a multiple of 64 bytes. Nothing may be written around them."""

    def __init__(self, dtype, skip):
        self.dtype, self.skip, self.all = dtype, skip, {}

    def __call__(self, name, shape, values=None):
        bytes_ = math.prod(shape) * self.dtype.itemsize
        raw = np.full(bytes_ + 256, GUARD, np.uint8)
        start = -raw.ctypes.data % 64 + 64 + self.skip * self.dtype.itemsize
        array = raw[start:start + bytes_].view(self.dtype).reshape(shape)
        if values is not None:
            array[...] = values
        self.all[name] = array, raw, start
        return array.ctypes.data

    def __getitem__(self, name):
        return self.all[name][0]

    def check(self):
        for name, (array, raw, start) in self.all.items():
            assert (raw[:start] == GUARD).all() and (raw[start + array.nbytes:] == GUARD).all(), f"written around {name}"


def run(kind, x, gy, weight=None, bias=None, *, eps=EPS, skip=0, statistics=None):
    """The results of a norm's two kernels by name. Batch norm with `statistics`, mean and var: that of evaluation."""
    x = np.asarray(x)
    rows, *sizes = x.shape
    memory = Memory(x.dtype, skip)

    def kernel(name, *arguments):
        native.launcher(SIGNATURES[f"{kind}_norm_{name}_{'f32' if x.dtype == F32 else 'f64'}"].row)(*arguments)
    channels = sizes if kind in ("layer", "rms") else (math.prod(sizes[:-1]),)
    xa, ga = memory("x", x.shape, x), memory("gy", x.shape, gy)
    wa, ba = (memory(name, channels, p) if p is not None else 0 for name, p in (("weight", weight), ("bias", bias)))
    ya, gx = memory("y", x.shape), memory("gx", x.shape)
    gw, gb = memory("gw", channels) if wa else 0, memory("gb", channels) if ba else 0
    results = ["y", "gx", *["gw"] * bool(wa), *["gb"] * bool(ba)]
    per_row = (rows, sizes[0]) if kind == "group" else channels if kind == "batch" else (rows,)
    if statistics is not None:
        mean, var = memory("mean", channels, statistics[0]), memory("var", channels, statistics[1])
        kernel("eval_forward", ya, xa, mean, var, wa, ba, rows, *sizes, eps)
        kernel("eval_backward", gx, gw, gb, ga, xa, mean, var, wa, rows, *sizes, eps)
    elif kind == "rms":
        rstd, partial = memory("rstd", per_row), memory("partial", (native.rms_norm_partial(rows, *sizes),))
        kernel("forward", ya, rstd, xa, wa, rows, *sizes, eps)
        kernel("backward", gx, gw, partial, ga, xa, rstd, wa, rows, *sizes)
        results = [*results[:3], "rstd"]
    elif kind == "batch":
        mean, var, rstd = memory("mean", per_row), memory("var", per_row), memory("rstd", per_row)
        kernel("forward", ya, mean, var, rstd, xa, wa, ba, rows, *sizes, eps)
        kernel("backward", gx, gw, gb, ga, xa, mean, rstd, wa, rows, *sizes)
        results += ["mean", "var", "rstd"]
    else:
        mean, rstd = memory("mean", per_row), memory("rstd", per_row)
        partial = memory("partial", (native.layer_norm_partial(rows, *sizes) if kind == "layer" else 2 * rows * channels[0],))
        kernel("forward", ya, mean, rstd, xa, wa, ba, rows, *sizes, eps)
        kernel("backward", gx, gw, gb, partial, ga, xa, mean, rstd, wa, rows, *sizes)
        results += ["mean", "rstd"]
    memory.check()
    return {name: memory[name] for name in results}


def assert_same_bits(got, want, message=""):
    """Of all results by name; got may have more."""
    for name, values in want.items():
        if got[name].tobytes() != values.tobytes():
            different = got[name].view(np.uint8) != np.ascontiguousarray(values).view(np.uint8)
            raise AssertionError(f"{name} differs {message}, first at byte {np.argmax(different)} of {different.size}")


def in_pieces(kind, x, gy, weight, bias):
    """The results that belong to rows: of three rows alone, and of small arrays of the others."""
    cuts = [0, 1, 2, *range(3, len(x), 37), len(x)]
    parts = [run(kind, x[a:b], gy[a:b], weight, bias) for a, b in zip(cuts, cuts[1:], strict=False)]
    return {name: np.concatenate([part[name] for part in parts]) for name in ("y", "gx", "mean", "rstd") if name in parts[0]}


@pytest.mark.parametrize("kind, sizes", ROWS)
def test_a_row_has_the_bits_that_it_has_in_a_small_array(kind, sizes):
    for rows in around(sizes, F32):
        x, gy, weight, bias = sample(kind, sizes, F32, rows)
        assert_same_bits(run(kind, x, gy, weight, bias), in_pieces(kind, x, gy, weight, bias), f"in {rows} rows")


@pytest.mark.parametrize("kind, sizes", [("layer", (1000,)), ("layer", (1024,)), ("rms", (520,)), ("group", (4, 16, 50)), ("group", (3, 64, 1))])
def test_a_row_has_the_bits_that_it_has_in_a_small_array_at_every_level(kind, sizes, level):
    for dtype in (F32, F64):
        x, gy, weight, bias = sample(kind, sizes, dtype, around(sizes, dtype)[1])
        assert_same_bits(run(kind, x, gy, None, None), in_pieces(kind, x, gy, None, None), f"without weight, {dtype}")
        assert_same_bits(run(kind, x, gy, weight, bias), in_pieces(kind, x, gy, weight, bias), f"{dtype}")


@pytest.mark.parametrize("kind, sizes", [("layer", (768,)), ("rms", (513,)), ("group", (3, 64, 1)), ("group", (8, 4, 64))])
def test_rows_that_leave_the_range_of_the_type_in_a_large_array(kind, sizes):
    """Their squares overflow or vanish, or they hold inf or NaN: neither they nor their neighbours depend on each other."""
    x, gy, weight, bias = sample(kind, sizes, F32, around(sizes, F32)[1])
    clean, x = run(kind, x, gy, weight, bias), x.copy()
    x[5] *= 1e25
    x[6] *= 1e-25
    x[11].flat[1], x[12].flat[-1], x[-1].flat[0] = np.inf, np.nan, -np.inf
    got = run(kind, x, gy, weight, bias)
    assert_same_bits(got, in_pieces(kind, x, gy, weight, bias))
    others = np.setdiff1d(np.arange(len(x)), [5, 6, 11, 12, len(x) - 1])
    for name in ("y", "gx", "rstd"):
        assert got[name][others].tobytes() == clean[name][others].tobytes()
    np.testing.assert_allclose(got["y"][5], clean["y"][5], 1e-4, 1e-5)
    assert not np.isfinite(got["rstd"][12]).all()


@pytest.mark.parametrize("channels, inner", BATCHES)
def test_a_channel_has_the_bits_that_it_has_in_a_small_array(channels, inner, level):
    """Batch norm reads a large array in other pieces than a small one; how the sums are cut is the same."""
    for dtype in (F32, F64)[:1 if level != LEVELS[-1] else 2]:
        rows = around((channels, inner), dtype)[1]
        x, gy, weight, bias = sample("batch", (channels, inner), dtype, rows)
        got = run("batch", x, gy, weight, bias)
        for first in sorted({0, channels // 2, channels - 1}):
            few = slice(first, min(first + 3, channels))
            alone = run("batch", x[:, few], gy[:, few], weight[few], bias[few])
            assert_same_bits({k: a[:, few] if a.ndim == 3 else a[few] for k, a in got.items()}, alone, f"in channels {few} of {channels}")


@pytest.mark.parametrize("kind, sizes", [*ROWS, *[("batch", sizes) for sizes in BATCHES]])
def test_threads_and_addresses_do_not_matter(kind, sizes, threads):
    """1, 2 and 3 threads, and memory that begins 4 bytes after a multiple of 64, where no vector can be stored past the caches."""
    x, gy, weight, bias = sample(kind, sizes, F32, around(sizes, F32)[1])
    given = [(), (weight, bias)] if kind == "batch" else [()]
    for eval_of in given:
        statistics = eval_of or None
        threads(1)
        want = run(kind, x, gy, weight, bias, statistics=statistics)
        for n, skip in ((1, 1), (2, 0), (3, 0), (3, 1)):
            threads(n)
            assert_same_bits(run(kind, x, gy, weight, bias, skip=skip, statistics=statistics), want, f"with {n} threads, skip {skip}")


@pytest.mark.parametrize("kind, sizes", [("layer", (520,)), ("rms", (1000,)), ("group", (3, 72, 1)), ("group", (2, 4, 104)), ("batch", (1000, 1)),
                                         ("batch", (1040, 1)), ("batch", (41, 40)), ("batch", (10, 784))])
def test_threads_and_addresses_do_not_matter_at_every_level(kind, sizes, threads, level):
    """Also 16 and 32 bytes after a multiple of 64, where the vectors of some levels can be stored past the caches."""
    for dtype in (F32, F64):
        x, gy, weight, bias = sample(kind, sizes, dtype, around(sizes, dtype)[1])
        threads(1)
        want = run(kind, x, gy, weight, bias)
        for n, skip in ((3, 1), (2, 16 // dtype.itemsize), (2, 32 // dtype.itemsize)):
            threads(n)
            assert_same_bits(run(kind, x, gy, weight, bias, skip=skip), want, f"with {n} threads, skip {skip}, {dtype}")


def test_views_that_begin_inside_an_array(threads):
    """Through the ops: a contiguous view whose memory is not aligned to vectors has the results of its copy."""
    rows, n = around((700,), F32)[1], 700
    flat, g = mg.tensor(numbers(F32)[0]), mg.tensor(numbers(F32)[1][:rows * n].reshape(rows, n).copy())
    norms = {"layer": lambda x: F.layer_norm(x, (n,)), "rms": lambda x: F.rms_norm(x, (n,)),
             "group": lambda x: F.group_norm(x.reshape(rows, 7, 100), 7).reshape(rows, n),
             "batch": lambda x: F.batch_norm(x, None, None, training=True),
             "images": lambda x: F.batch_norm(x.reshape(rows, 5, 140), None, None, training=True).reshape(rows, n)}
    for name, norm in norms.items():
        found = []
        for count, aligned in ((1, True), (2, False), (3, False)):
            threads(count)
            view = flat[1:1 + rows * n].reshape(rows, n)
            x = (view.clone() if aligned else view).detach().requires_grad_()
            y = norm(x)
            y.backward(g)
            found.append((y.detach().numpy().tobytes(), x.grad.numpy().tobytes()))
        assert found[0] == found[1] == found[2], name


# ---- against float64 -------------------------------------------------------------------------------------------------
def exact(kind, x, gy, weight, bias, statistics=None):
    """The results in float64 by NumPy, and the root of the sum of squares of what gw and gb are sums of."""
    x, gy = x.astype(np.float64), gy.astype(np.float64)
    rows, *sizes = x.shape
    over, along = {"batch": ((0, 2), 0), "group": ((2, 3), 0)}.get(kind, ((1,), 0))
    channel = {"batch": (-1, 1), "group": (*sizes[:2], 1)}.get(kind, (-1,))
    axes = {"batch": (0, 2), "group": (0, 3)}.get(kind, (0,))
    weight, bias = (d if p is None else p.astype(np.float64).reshape(channel) for p, d in ((weight, 1.0), (bias, 0.0)))
    if statistics is None:
        mean = x.mean(over, keepdims=True) * (kind != "rms")
        mean = mean + (x - mean).mean(over, keepdims=True) * (kind != "rms")
    else:
        mean = statistics[0].astype(np.float64).reshape(channel)
    var = ((x - mean) ** 2).mean(over, keepdims=True) if statistics is None else statistics[1].astype(np.float64).reshape(channel)
    rstd = 1 / np.sqrt(var + EPS)
    xhat = (x - mean) * rstd
    g = gy * weight
    gx = rstd * g
    if statistics is None:
        gx -= rstd * (g.mean(over, keepdims=True) * (kind != "rms") + xhat * (g * xhat).mean(over, keepdims=True))
    terms = gy * xhat
    return {"y": xhat * weight + bias * (kind != "rms"), "gx": gx, "gw": terms.sum(axes).ravel(), "gb": gy.sum(axes).ravel(), "mean": mean.ravel(), "var": var.ravel(),
            "rstd": rstd.ravel(), "size of gw": np.sqrt((terms ** 2).sum(axes).ravel()), "size of gb": np.sqrt((gy ** 2).sum(axes).ravel())}


def errors(kind, x, gy, weight, bias, statistics=None):
    """The largest error of each result: of sums, in units of what rounding can be expected to leave; of others, of the largest element."""
    got, want = run(kind, x, gy, weight, bias, statistics=statistics), exact(kind, x, gy, weight, bias, statistics)
    found = {}
    for name, a in got.items():
        size = want.get(f"size of {name}", max(1, np.abs(want[name]).max()) if name == "mean" else np.abs(want[name]).max())
        found[name] = float((np.abs(a.reshape(want[name].shape) - want[name]) / size).max())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind, sizes", [("layer", (1000,)), ("rms", (768,)), ("group", (4, 16, 49)), ("group", (2, 33, 1)), ("group", (7, 1, 3136)),
                                         *[("batch", sizes) for sizes in BATCHES]])
def test_errors_of_large_arrays_are_those_of_small_ones(kind, sizes):
    """Against float64, with weight and bias and without, training and evaluation. Small arrays have up to 2.2e-7 of the largest element,
    and 1e-6 of a sum's size; group norm sums its weights' gradients over the batch in float32."""
    below, above = around(sizes, F32)
    for rows, affine, training in ((above // 16 or 1, True, True), (below, True, True), (above, True, True), (above, False, True),
                                   (above, True, False), (above, False, False))[:6 if kind == "batch" else 4]:
        x, gy, weight, bias = sample(kind, sizes, F32, rows)
        statistics = None if training else (bias, weight)
        for name, error in errors(kind, x, gy, weight if affine else None, bias if affine else None, statistics).items():
            most = 4e-7 if name not in ("gw", "gb") else 2e-6 if kind == "group" else 1.5e-6
            assert error < most, f"{name}: {error:.2g} of {rows} rows, affine {affine}, training {training}"


@pytest.mark.parametrize("kind, sizes", [("layer", (1000,)), ("rms", (768,)), ("group", (4, 16, 49)), ("batch", (700, 1)), ("batch", (17, 7)),
                                         ("batch", (16, 784))])
def test_errors_of_large_arrays_in_float64(kind, sizes):
    x, gy, weight, bias = sample(kind, sizes, F64, around(sizes, F64)[1])
    assert max(errors(kind, x, gy, weight, bias).values()) < 5e-14


# ---- batch statistics ------------------------------------------------------------------------------------------------
# rows, channels, inner: columns in blocks of 8, 8, 16, 32, 64, 64 rows and a rest; strips in blocks of 2048 elements, two to a strip last
STATISTICS = [(1100, 40, 1), (301, 9, 7), (301, 5, 128), (15, 6, 3136)]


def at_rows(values, where, number):
    values = values.copy()
    values[where] = number
    return values


def from_row(values, row, offset, scale=1.0):
    """values, from `row` on times `scale` plus `offset`."""
    late = np.arange(len(values))[:, None, None] >= row
    return np.where(late, values * scale + offset, values)


# normal numbers and the place in the batch, from 0 to 1 -> what batch norm is given
HARD = {
    "normal": lambda v, t: v,
    "mean of 1e4 standard deviations": lambda v, t: v + 1e4,
    "mean of 1e6 standard deviations": lambda v, t: v + 1e6,
    "means of all sizes": lambda v, t: v + 1e4 * v[:1, :, :1],
    "sorted": lambda v, t: np.sort(v, 0),
    "drift": lambda v, t: 1e-3 * v + 100 * t,
    "growth": lambda v, t: np.exp(10 * t) * (1 + 1e-3 * v),
    "alternating": lambda v, t: v + 1e4 * (-1.0) ** np.arange(len(v))[:, None, None],
    "whole numbers": lambda v, t: np.floor(200 * np.abs(v)),
    "outlier first": lambda v, t: at_rows(v, np.s_[0, :, 0], 1e6),
    "outlier in row 8": lambda v, t: at_rows(v, np.s_[8, :, -1], 1e6),
    "outlier in the middle": lambda v, t: at_rows(v, np.s_[len(v) // 2, :, 0], -1e6),
    "outlier last": lambda v, t: at_rows(v, np.s_[-1, :, -1], 1e6),
    "first row far": lambda v, t: at_rows(v, 0, 1e6),
    "last row far": lambda v, t: at_rows(v, -1, 1e6),
    "first block constant": lambda v, t: at_rows(v + 1e4, np.s_[:8], 3.3),
    "first block constant, and far": lambda v, t: at_rows(v + 1e4, np.s_[:8], -1e4),
    "first 64 rows constant": lambda v, t: at_rows(v + 1e4, np.s_[:min(64, len(v) // 2)], 0.1),
    "step after 8 rows": lambda v, t: from_row(v, 8, 1e4, 1e-2),
    "step after 9 rows": lambda v, t: from_row(v, 9, 333.3, 1e-3),
    "step in the middle": lambda v, t: from_row(1e-2 * v, len(v) // 2, 1e4),
    "small, then large": lambda v, t: from_row(1e-10 * v, len(v) // 8, 0, 1e14),
    "large, then small": lambda v, t: from_row(1e4 * v, len(v) // 8, 0, 1e-14),
    "large, then small and far": lambda v, t: from_row(1e4 * v, len(v) // 8, 1e4, 1e-8),
}


def check_statistics(x, most, message, mean_most=3e-7):
    """mean, var and y of batch norm without weight, against float64; `most`: the relative error of var."""
    with np.errstate(invalid="ignore"):
        got, want = run("batch", x, np.zeros_like(x)), exact("batch", x, np.zeros_like(x), None, None)
    std, ulp = np.sqrt(want["var"]), np.abs(want["mean"]) * np.finfo(x.dtype).eps
    unit = np.finfo(x.dtype).eps / np.finfo(np.float32).eps
    off = np.abs(got["var"] - want["var"])
    assert (off <= most * unit * want["var"]).all(), f"var, {message}: off by {np.nanmax(off / want['var']):.2g}"
    off = np.abs(got["mean"] - want["mean"])
    assert (off <= ulp / 2 * 1.01 + mean_most * unit * std).all(), f"mean, {message}: off by {np.nanmax(off / std):.2g} standard deviations"
    # x - mean is as exact as the mean, which is rounded to x's type
    room = (ulp / 2 + mean_most * unit * std) * want["rstd"]
    off = np.abs(got["y"] - want["y"]) - room[:, None]
    assert (off <= 2 * most * unit * np.maximum(1, np.abs(want["y"]))).all(), f"y, {message}: off by {np.nanmax(off):.2g}"


@pytest.mark.parametrize("case", HARD)
def test_batch_statistics_in_hard_cases(case, level):
    """Measured: as with blocks that each have a mean of their own, up to 1e-6; 3.2e-6 for an outlier first in a strip at the lowest level,
    whose lanes add 128 squares. NumPy's two passes in float32 are up to 1e-3 off."""
    rng = np.random.default_rng(2)
    for rows, channels, inner in STATISTICS:
        values, place = rng.standard_normal((rows, channels, inner)), np.arange(rows)[:, None, None] / rows
        x = HARD[case](values, place)
        check_statistics(x.astype(F32), 4e-6 if level == "baseline" else 2e-6, f"{rows} rows, inner {inner}")
        check_statistics(x, 5e-5, f"float64, {rows} rows, inner {inner}", 5e-5)          # NumPy's own error is below


@pytest.mark.parametrize("rows", [1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 193])
def test_batch_statistics_of_every_number_of_rows(rows, level):
    """Around the ends of blocks, also with a mean of its own in each block."""
    rng = np.random.default_rng(rows)
    for channels, inner in ((1, 1), (33, 1), (5, 3), (3, 128), (2, 2049)):
        if rows * inner < 2:
            continue
        values, place = rng.standard_normal((rows, channels, inner)), np.arange(rows)[:, None, None]
        for x in (values, values + 100, values + 1000 * np.floor(place / 8), from_row(values, rows - 1, 50)):
            check_statistics(x.astype(F32), 4e-6 if level == "baseline" else 2e-6, f"{rows} rows, inner {inner}")


@pytest.mark.parametrize("inner", [1, 3, 128, 2049])
def test_channels_of_equal_elements_have_no_variance(inner):
    for value in (0, 1 / 3, -1e5 / 3, 1e-30, 3e38):
        for rows in (1, 7, 65, 1000)[:4 if inner < 100 else 3]:
            x = np.full((rows, 3, inner), value, F32)
            got = run("batch", x, np.ones_like(x), np.ones(3, F32), np.full(3, 0.5, F32))
            assert (got["mean"] == F32.type(value)).all() and (got["var"] == 0).all() and (got["y"] == 0.5).all()
            assert np.abs(got["gx"]).max() < 1e-2 and (got["gw"] == 0).all() and (got["gb"] == rows * inner).all()


@pytest.mark.parametrize("inner, rows, step", [(1, 16, 8), (1, 64, 32), (1, 128, 64), (1, 192, 64), (1, 4096, 64), (7, 128, 64), (128, 32, 16), (2048, 2, 1),
                                               (2048, 6, 1), (3136, 4, 1)])
def test_a_step_between_equal_elements(inner, rows, step, level):
    """The worst case: all of a block are equally far from the mean of those before, so that each of the additions in a lane rounds the
    same way. A sum of 64 rows is then off by 64 / 2^24 at most, the variance by twice that; measured is half of it. Strips, whose lanes
    add up to 128 elements, take a second pass over such a block."""
    most = 2 * 64 / 2 ** 24 if inner < 128 else 2e-7
    channels = 256 if inner == 1 else 48
    x = np.zeros((rows, channels, inner), F32)
    x[step:] = np.random.default_rng(3).uniform(1, 2, (channels, 1))
    check_statistics(x, most, "step", most)


# the distances of a row are counted from the mean of its first vectors: what makes that far from the mean of the row, and what does not
HARD_ROWS = {
    "normal": lambda v, t: v,
    "mean of 1e4 standard deviations": lambda v, t: v + 1e4,
    "start far": lambda v, t: v + 1e4 * (t < 64),
    "start far, the rest close together": lambda v, t: 1e-3 * v + 3 * (t < 16),
    "start constant": lambda v, t: np.where(t < 64, 7.7, v),
    "outlier first": lambda v, t: np.where(t == 0, 1e6, v),
    "outlier last": lambda v, t: np.where(t == len(t) - 1, 1e6, v),
    "drift": lambda v, t: 1e-3 * v + 100 * t / len(t),
    "sorted": lambda v, t: np.sort(v),
    "alternating": lambda v, t: v + 1e4 * (-1.0) ** t,
    "step": lambda v, t: v + 1e4 * (t >= len(t) // 2),
    "small, then large": lambda v, t: v * np.where(t < 64, 1e-10, 1e4),
}


@pytest.mark.parametrize("n", [2, 17, 64, 65, 700, 3000, 100_000])
def test_row_statistics_in_hard_cases(n, level):
    """Layer norm and group norm, against float64; rows side by side have the bits of rows alone. Without a second pass for rows whose first
    vectors are far from their mean, some are off by 3e-6 to 2e-5 at n = 100,000; with it, the errors are those of two passes in every row."""
    rng, t = np.random.default_rng(4), np.arange(n)
    rows = np.array([case(rng.standard_normal(n), t) for case in HARD_ROWS.values()])
    for dtype, most in ((F32, 4e-6 if level == "baseline" else 2e-6), (F64, 2e-13)):
        x = rows.astype(dtype)
        got, want = run("layer", x, x), exact("layer", x, x, None, None)
        off = np.abs(got["rstd"] / want["rstd"] - 1)
        assert off.max() < most, f"rstd, {list(HARD_ROWS)[off.argmax()]}: off by {off.max():.2g}"
        std, ulp = np.sqrt(want["var"]), np.abs(want["mean"]) * np.finfo(dtype).eps
        off = np.abs(got["mean"] - want["mean"]) - ulp / 2 * 1.01 - most / 4 * std
        assert off.max() <= 0, f"mean, {list(HARD_ROWS)[off.argmax()]}"
        assert_same_bits(run("group", *[x.reshape(-1, 1, n, 1)] * 2), {"rstd": got["rstd"], "y": got["y"]})
        for row in range(len(x)):
            assert_same_bits({name: got[name][row:row + 1] for name in ("y", "gx", "mean", "rstd")}, run("layer", x[row:row + 1], x[row:row + 1]))


@pytest.mark.parametrize("channels, inner", [(40, 1), (700, 1), (9, 7), (5, 128), (3, 3136)])
def test_inf_and_nan_stay_in_their_channel(channels, inner):
    rows = around((channels, inner), F32)[1] if channels == 700 else 301 if inner < 3136 else 23
    x, gy, weight, bias = sample("batch", (channels, inner), F32, rows)
    clean = run("batch", x, gy, weight, bias)
    for value, row in ((np.inf, 0), (-np.inf, rows // 2), (np.nan, 0), (np.nan, rows - 1), (1e30, 0), (-3e38, 12)):
        for channel in (0, channels // 2) if channels < 700 else (channels - 1,):
            bad = x.copy()
            bad[row, channel, -1] = value
            got, others = run("batch", bad, gy, weight, bias), np.arange(channels) != channel
            assert_same_bits({k: a[:, others] if a.ndim == 3 else a[others] for k, a in got.items()},
                             {k: a[:, others] if a.ndim == 3 else a[others] for k, a in clean.items()}, f"{value} in channel {channel}")
            if np.isfinite(value):
                want = exact("batch", bad, gy, weight, bias)["y"]
                np.testing.assert_allclose(got["y"][:, channel], want[:, channel], 1e-5, 1e-6)
            else:
                assert np.isnan(got["rstd"][channel]) and np.isnan(got["y"][row, channel, -1])


@pytest.mark.parametrize("channels, inner", [(40, 1), (700, 1), (9, 7), (5, 128), (3, 3136)])
def test_channels_near_the_ends_of_the_range(channels, inner):
    """Scaled by 1e-30 to 1e36, in some channels of an array: y is that of the channel before it was scaled, gx that over the scale."""
    rows = around((channels, inner), F32)[1] if channels == 700 else 301 if inner < 3136 else 23
    x, gy, weight, bias = sample("batch", (channels, inner), F32, rows)
    clean = run("batch", x, gy, weight, bias, eps=0)
    for scale in (1e-30, 1e-20, 1e15, 1e19, 1e25, 1e36):
        some = np.where(np.arange(channels) % 3 == 1, scale, 1)[:, None]
        got = run("batch", (x * some).astype(F32), gy, weight, bias, eps=0)
        np.testing.assert_allclose(got["y"], clean["y"], 1e-5, 1e-5)
        np.testing.assert_allclose(got["gw"], clean["gw"], 1e-4, 1e-3)
        np.testing.assert_allclose(got["gx"].astype(np.float64) * some, clean["gx"], 1e-3, 1e-5)


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4), (0, 3, 200), (2, 0), (2, 0, 4), (2, 0, 200), (0, 0), (2, 3, 0), (0, 513), (0, 4099)])
def test_nothing_to_normalise(shape, threads):
    """No rows, no channels, nothing in a channel: the gradients of weight and bias are 0, statistics of nothing are NaN."""
    for n in (1, 3):
        threads(n)
        x, g, c = mg.zeros(*shape, requires_grad=True), mg.zeros(*shape), shape[1]

        def gradients(call, size):
            w, b = mg.ones(size, requires_grad=True), mg.ones(size, requires_grad=True)
            y = call(w, b)
            assert y.shape == shape
            y.backward(g)
            assert x.grad.shape == shape and all(p.grad is None or p.grad.tolist() == [0] * size for p in (w, b))
        gradients(lambda w, b: mg.batch_norm(x, None, None, w, b, True, 0.1, 1e-5, False), c)
        gradients(lambda w, b: F.batch_norm(x, mg.zeros(c), mg.ones(c), w, b), c)
        gradients(lambda w, b: F.layer_norm(x, (shape[-1],), w, b), shape[-1])
        gradients(lambda w, b: F.rms_norm(x, (shape[-1],), w), shape[-1])
        if c:
            gradients(lambda w, b: F.group_norm(x, c, w, b), c)


@pytest.mark.parametrize("rows, n", [(1_500_000, 2), (400_000, 8), (131_072, 32)])
def test_sums_over_very_many_rows_are_accurate(rows, n):
    """Equal terms, whose roundings do not cancel: no chain of additions is longer than a few hundred."""
    x = mg.tensor(np.random.default_rng(0).standard_normal((rows, n), np.float32))
    weight, bias = mg.ones(n, requires_grad=True), mg.zeros(n, requires_grad=True)
    F.layer_norm(x, (n,), weight, bias).backward(mg.full((rows, n), 0.1))
    np.testing.assert_allclose(bias.grad.numpy(), rows * np.float64(np.float32(0.1)), rtol=1e-5)
