"""The CUDA device: every kernel against its C twin, every op's samples on both devices, a training step, and the compile check.

Without a GPU the kernels run in the emulator of tests/cuda_on_cpu, with a stand-in for CuPy and one for cuBLAS. With
MINIGRAD_TEST_CUDA=real the same tests run on a GPU with the real ones. CUDA_ON_CPU=race looks for data races instead.
"""
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from cuda_on_cpu import emulator, fakeblas, fakecupy, nvrtc
from support import HEADER

import minigrad as mg
from minigrad import devices, nn, optim, testing
from minigrad.core.op import Op, registry, set_fused
from minigrad.devices import blas, cuda
from minigrad.devices.base import MOVE_SUFFIX, split
from minigrad.devices.launch import KERNELS
from minigrad.devices.native import signatures
from minigrad.nn import functional as F
from minigrad.ops import random
from minigrad.ops.norm import _chunks
from minigrad.utils.checkpoint import checkpoint

REAL = os.environ.get("MINIGRAD_TEST_CUDA") == "real"
RACE = os.environ.get("CUDA_ON_CPU") == "race"
DTYPES = {"f32": np.float32, "f64": np.float64, "i32": np.int32, "i64": np.int64, "u8": np.uint8, "u16": np.uint16}
rng = np.random.default_rng(0)
emulated = pytest.mark.skipif(not REAL and (sys.platform != "linux" or not shutil.which(os.environ.get("CXX", "g++"))),
                              reason="the CUDA emulator needs g++ on Linux")
pytestmark = emulated


@pytest.fixture(scope="module", autouse=True)
def gpu():
    """The device "cuda": the array module and the BLAS come from one place each. Afterwards the process has no GPU again."""
    if REAL:
        yield mg.device("cuda")
        return
    cuda.cp, blas.library = fakecupy, fakeblas
    opened = mg.device("cuda")
    yield opened
    random._defaults.pop(opened, None)
    for name in [n for n, d in devices._devices.items() if d is opened]:
        del devices._devices[name]
    blas._handles.clear()
    cuda.cp = blas.library = None


@pytest.fixture(params=["0", "1", "2:7"], ids=["ascending", "descending", "shuffled"])
def order(request, monkeypatch):
    """A correct kernel gives the same bits whatever order threads and blocks run in."""
    monkeypatch.setenv("CUDA_ON_CPU_ORDER", request.param)


# ---- kernels against their C twins ----------------------------------------------------------------------------------

class Plan:
    """An int64 table that a kernel reads: a plan, offsets."""

    def __init__(self, *values):
        self.values = np.array(values, np.int64).reshape(-1)


def launch(device, full, arguments):
    """Runs a kernel on copies of its array arguments; returns them as they are afterwards."""
    kernel = next(k for k in device.kernels if k.name == full)
    held, raw = [], []
    for a in arguments:
        if isinstance(a, np.ndarray):
            held.append(device.upload(a))
            raw.append(held[-1].ptr)
        elif isinstance(a, Plan):
            held.append(device.constant(a.values))
            raw.append(held[-1].ptr)
        else:
            raw.append(0 if a is None else a)
    kernel.call(*raw)
    arrays = [h for h, a in zip(held, [a for a in arguments if isinstance(a, np.ndarray | Plan)], strict=True) if isinstance(a, np.ndarray)]
    return [device.download(a) for a in arrays]


def compare(full, *arguments, ulps=16):
    """The same launch on both devices; every array argument must agree afterwards."""
    with np.errstate(all="ignore"):
        want = launch(mg.device("cpu"), full, arguments)
        got = launch(mg.device("cuda"), full, arguments)
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        if w.dtype.kind != "f" or ulps == 0:
            np.testing.assert_array_equal(g, w, err_msg=f"{full}, array {i}")
        elif w.size:
            eps = np.finfo(w.dtype).eps
            alike = [w, *(a for a in arguments if isinstance(a, np.ndarray) and a.dtype == w.dtype)]
            scale = max(np.abs(a[np.isfinite(a)]).max(initial=0) for a in alike)
            absolute = ulps * eps * scale + np.finfo(w.dtype).tiny
            np.testing.assert_allclose(g, w, rtol=ulps * eps, atol=absolute, err_msg=f"{full}, array {i}")


def values(dtype, shape, low=-3.0, high=3.0):
    dtype = np.dtype(dtype)
    if dtype == np.uint8:
        return rng.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "iu":
        return rng.integers(-50 if dtype.kind == "i" else 0, 50, shape).astype(dtype)
    return rng.uniform(low, high, shape).astype(dtype)


def walk_plan(shape, *strides):
    """A plan as shape.py makes it, without coalescing."""
    return Plan(len(shape), int(np.prod(shape)), *shape, *[s for one in strides for s in one])


LAYOUTS = {      # name: (shape, strides of the output, of the first operand, of the others, elements the operands need)
    "one": ((1,), (1,), (1,), (1,), 1),
    "scalar": ((), (), (), (), 1),
    "31": ((31,), (1,), (1,), (1,), 31),
    "1037": ((1037,), (1,), (1,), (1,), 1037),
    "transposed": ((5, 33), (33, 1), (1, 5), (33, 1), 165),
    "broadcast": ((3, 4, 7), (28, 7, 1), (0, 1, 4), (7, 0, 1), 28),
    "every other": ((100,), (1,), (2,), (0,), 200),
    "empty": ((0,), (1,), (1,), (1,), 1),
}
DOMAINS = {"log": (0.1, 9), "log2": (0.1, 9), "log10": (0.1, 9), "log1p": (-0.9, 9), "sqrt": (0, 9), "rsqrt": (0.1, 9), "asin": (-1, 1),
           "acos": (-1, 1), "atanh": (-0.9, 0.9), "acosh": (1, 9), "erfinv": (-0.99, 0.99), "lgamma": (0.1, 9), "digamma": (0.1, 9),
           "pow": (0.1, 3)}
ULPS = {"tan": 64, "lgamma": 64, "erfc": 64, "erfinv": 64, "digamma": 64, "pow": 64, "gelu": 64, "gelu_backward": 64}


def elementwise_cases():
    cases = []
    for full, signature in signatures().items():
        name, suffix = split(full)
        if name in KERNELS and KERNELS[name].file in ("ops/elementwise.cu", "ops/activation.cu"):
            cases.append((full, name, suffix, signature.letters))
    return cases


@pytest.mark.parametrize("full,name,suffix,signature", elementwise_cases(), ids=[c[0] for c in elementwise_cases()])
def test_elementwise(full, name, suffix, signature):
    if RACE and suffix not in ("f32", "u8"):
        pytest.skip("one type is enough for races")
    dtype = DTYPES[suffix]
    results = dict(eq="u8", ne="u8", lt="u8", le="u8", gt="u8", ge="u8", isnan="u8", isinf="u8", isfinite="u8")
    to = DTYPES[name[5:] if name.startswith("cast_") else results.get(name, suffix)]
    operands = signature.count("p") - 1
    scalars = [0.75, 1.5][:signature.count("d")]
    for shape, out, first, rest, size in LAYOUTS.values():
        strides = [first, rest, rest][:operands]
        if name == "where":
            arrays = [values(np.uint8, size), values(dtype, size), values(dtype, size)]
        else:
            arrays = [values(dtype, size, *DOMAINS.get(name, (-3, 3))) for _ in range(operands)]
            if np.dtype(dtype).kind == "f" and size > 20 and name not in DOMAINS and name not in ("sin", "cos", "tan"):
                arrays[0][:6] = [np.inf, -np.inf, np.nan, 0, -0.0, 1e30]
        n = int(np.prod(shape))
        compare(full, values(to, max(n, 1)), *arrays, walk_plan(shape, out, *strides), *scalars, ulps=ULPS.get(name, 8))


def reduce_plan(keep, reduce, keep_strides, reduce_strides):
    return Plan(len(keep), len(reduce), *keep, *reduce, *keep_strides, *reduce_strides)


REDUCTIONS = {
    "rows": (reduce_plan((5,), (33,), (33,), (1,)), 5, 165),
    "long rows": (reduce_plan((3,), (1500,), (1500,), (1,)), 3, 4500),
    "columns": (reduce_plan((33,), (70,), (1,), (33,)), 33, 2310),
    "short": (reduce_plan((40,), (3,), (3,), (1,)), 40, 120),
    "all": (reduce_plan((), (1037,), (), (1,)), 1, 1037),
    "one": (reduce_plan((7,), (), (1,), ()), 7, 7),
    "middle of three": (reduce_plan((4, 5), (6,), (30, 1), (5,)), 20, 120),
    "two of three": (reduce_plan((5,), (4, 6), (6,), (30, 1)), 5, 120),
    "broadcast": (reduce_plan((5,), (6,), (1,), (0,)), 5, 5),
    "segments": (reduce_plan((2,), (40000,), (40000,), (1,)), 2, 80000),
    "no outputs": (reduce_plan((0,), (4,), (4,), (1,)), 0, 1),
}


@pytest.mark.parametrize("full", [k for k in signatures() if split(k)[0] in
                                  ("sum", "prod", "max", "min", "argmax", "argmin", "count_nonzero", "any", "all", "moments")])
def test_reductions(full, order):
    name, suffix = split(full)
    if RACE and suffix != "f32":
        pytest.skip("one type is enough for races")
    to = np.int64 if name in ("argmax", "argmin", "count_nonzero") else np.uint8 if name in ("any", "all") else DTYPES[suffix]
    for case, (plan, outputs, size) in REDUCTIONS.items():
        if case == "segments" and (RACE or suffix != "f32"):
            continue
        x = values(DTYPES[suffix], size, 0.9, 1.1) if name == "prod" else values(DTYPES[suffix], size)
        if name == "moments":
            x += 1000
        outs = [np.zeros(outputs, to)] * (2 if name == "moments" else 1)
        compare(full, *outs, x, plan, ulps={"prod": 512, "moments": 256}.get(name, 64))
    if suffix in ("f32", "f64") and name != "moments":
        x = values(DTYPES[suffix], 70)
        x[[5, 40]] = np.nan, np.inf
        compare(full, np.zeros(1, to), x, reduce_plan((), (70,), (), (1,)), ulps=64)


@pytest.mark.parametrize("suffix", ["f32", "f64", "i64"])
def test_scans(suffix, order):
    for outer, n, inner in ((3, 70, 1), (2, 9, 5), (1, 1, 1), (2, 0, 3)):
        x = values(DTYPES[suffix], (outer, n, inner), 0.5, 1.5)
        for name in ("cumsum", "cumprod"):
            compare(f"{name}_{suffix}", np.zeros_like(x), x, outer, n, inner, ulps=256)


ROWS = [(1, 1), (3, 31), (5, 33), (40, 100), (3, 1500), (0, 4)]


@pytest.mark.parametrize("suffix", ["f32", "f64"])
def test_layer_and_rms_norm(suffix, order):
    t = DTYPES[suffix]
    for rows, n in ROWS:
        x, gy, w, b = values(t, (rows, n)), values(t, (rows, n)), values(t, n), values(t, n)
        y, stat, partial = np.zeros_like(x), np.ones(rows, t), np.zeros(_chunks(rows) * 2 * n, t)
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


LINES = [(3, 31, 1), (1, 1, 1), (4, 5, 3), (2, 1500, 1), (2, 0, 3), (40, 10, 1)]


@pytest.mark.parametrize("suffix", ["f32", "f64"])
def test_softmax(suffix, order):
    t = DTYPES[suffix]
    for sizes in LINES:
        x, gy = values(t, sizes), values(t, sizes)
        for name in ("softmax", "log_softmax"):
            compare(f"{name}_forward_{suffix}", x * 0, x, *sizes, ulps=32)
            compare(f"{name}_backward_{suffix}", x * 0, gy, x, *sizes, ulps=32)
        if sizes[1]:
            compare(f"logsumexp_forward_{suffix}", np.zeros((sizes[0], sizes[2]), t), x, *sizes, ulps=32)
    x = np.array([[-np.inf, 1, 2], [-np.inf] * 3, [np.inf, 0, 1], [np.nan, 0, 1]], t)
    for name in ("softmax", "log_softmax", "logsumexp"):
        compare(f"{name}_forward_{suffix}", np.zeros(4 if name == "logsumexp" else (4, 3), t), x, 4, 3, 1)


@pytest.mark.parametrize("suffix", ["f32", "f64"])
def test_cross_entropy(suffix, order):
    t = DTYPES[suffix]
    for outer, classes, inner in ((7, 10, 1), (2, 5, 3), (40, 33, 1), (1, 1, 1)):
        x, w = values(t, (outer, classes, inner)), values(t, classes, 0.1, 2)
        target = rng.integers(0, classes, (outer, inner))
        target.flat[0] = -100
        one, items, stats = np.zeros(1, t), np.zeros((outer, inner), t), np.zeros((2, outer, inner), t)
        for reduction in (0, 1, 2):
            for weight, smoothing in ((None, 0.0), (w, 0.0), (w, 0.1), (None, 0.3)):
                options = (outer, classes, inner, -100, reduction, smoothing)
                args = [one, one, items, stats, x, target, weight, *options]
                if reduction == 0:
                    args[0] = args[1] = None
                compare(f"cross_entropy_forward_{suffix}", *args, ulps=64)
                found = launch(mg.device("cpu"), f"cross_entropy_forward_{suffix}", args)
                wsum, found = (found[1], found[2:]) if reduction else (None, found)
                g = values(t, (outer, inner)) if reduction == 0 else values(t, 1)
                compare(f"cross_entropy_backward_{suffix}", x * 0, g, wsum, found[1], x, target, weight, *options, ulps=64)
    bad = [one, one, items, stats, x, np.array([[5]]), None, 1, 1, 1, -100, 1, 0.0]
    assert np.isnan(launch(mg.device("cuda"), f"cross_entropy_forward_{suffix}", bad)[0]).all()      # a class out of range reads nothing


@pytest.mark.parametrize("suffix", ["f32", "f64"])
@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "huber_loss", "bce_loss", "bce_logits_loss"])
def test_losses(name, suffix, order):
    t = DTYPES[suffix]
    low, high = (0.01, 0.99) if name == "bce_loss" else (-3, 3)
    for n in (1, 33, 100, 20000):
        if n == 20000 and (RACE or suffix == "f64"):
            continue
        x, y, w = values(t, n, low, high), values(t, n, 0.01, 0.99), values(t, n, 0, 2)
        more = {"bce_loss": [w], "bce_logits_loss": [w, y]}.get(name, [])
        scalars = [0.7, 1.3] if name == "huber_loss" else []
        for reduction in (0, 1, 2):
            out = np.zeros(n if reduction == 0 else 1, t)
            args = [out, np.zeros(2, t), x, y, *more, n, reduction, *scalars]
            got, want = (launch(mg.device(d), f"{name}_forward_{suffix}", args)[0] for d in ("cuda", "cpu"))
            np.testing.assert_allclose(got, want, rtol=1e-5 if suffix == "f32" else 1e-13, atol=1e-6)
            compare(f"{name}_backward_{suffix}", x * 0, x * 0, values(t, out.shape), x, y, *more, n, reduction, *scalars, ulps=64)


@pytest.mark.parametrize("suffix", ["f32", "f64"])
def test_random_numbers_are_those_of_the_cpu(suffix, order):
    t = DTYPES[suffix]
    for n in (1, 2, 5, 31, 1000, 0):
        state = np.array([0x123456789ABCDEF, 2**64 - 3 - 2**64 if n == 5 else 7, 1, 0], np.int64)
        out, x, mask = np.zeros(n, t), values(t, n), np.zeros(n, np.uint8)
        compare(f"uniform_{suffix}", out, state, n, -1.0, 2.0, ulps=0)
        compare(f"normal_{suffix}", out, state, n, 0.5, 2.0, ulps=0)
        for p in (0.0, 0.3, 1.0):
            compare(f"dropout_forward_{suffix}", out, mask, x, state, n, p, ulps=0)
            compare(f"dropout_backward_{suffix}", out, x, (x > 0).astype(np.uint8), n, p, ulps=0)
            compare("bernoulli_mask_u8", mask, state, n, p)
        compare("random_bits_i64", np.zeros(n, np.int64), state, n)


@pytest.mark.parametrize("suffix", ["u8", "u16", "i32", "i64", "f32", "f64"])
def test_indexing(suffix, order):
    t = DTYPES[suffix]
    for outer, m, n, inner in ((1, 5, 7, 3), (3, 4, 2, 1), (2, 0, 3, 2), (2, 33, 5, 4)):
        x, src = values(t, (outer, n, inner)), values(t, (outer, m, inner))
        line, full = rng.integers(0, n, m), rng.integers(0, n, (outer, m, inner))
        if suffix in MOVE_SUFFIX.values():
            compare(f"take_{suffix}", src * 0, x, line, outer, m, n, inner)
            compare(f"gather_{suffix}", src * 0, x, full, outer, m, n, inner)
            compare(f"scatter_{suffix}", x, full, src, outer, m, n, inner)
        if suffix not in ("u8", "u16"):
            compare(f"index_add_{suffix}", x, line, src, outer, m, n, inner)
            compare(f"scatter_add_{suffix}", x, full, src, outer, m, n, inner)
    index = rng.integers(-5, 5, 1000)
    compare("wrap_index", index * 0, index, 1000, 5)
    for bad, ignore in ((None, -100), (700, -100), (700, 99)):
        if bad:
            index[[bad, 900]] = 99
        compare("check_index", np.zeros(1, np.int64), index, 1000, -5, 5, ignore)


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


def test_large_indices_are_divided_without_the_compilers_routine():
    text = cuda.source("ops/index.cu").split("#line")[0] + """
extern "C" __global__ void divide(int64_t *q, const int64_t *i, const int64_t *n, int64_t count) {
  GRID_LOOP(k, count) q[k] = (int64_t)quotient((uint64_t)i[k], (uint64_t)n[k]);
}"""
    i = np.concatenate([rng.integers(0, 2**62, 500), rng.integers(0, 2**33, 500), [0, 1, 2**59, 2**59 - 1, 7, 2**40]])
    n = np.concatenate([rng.integers(1, 2**40, 500), rng.integers(1, 2**20, 500), [1, 1, 1, 2**59, 8, 2**40 - 1]])
    q, a, b = cuda.cp.empty(i.shape, np.int64), cuda.cp.asarray(i), cuda.cp.asarray(n)
    cuda.cp.RawModule(code=text, options=cuda.options("f32")).get_function("divide")((4,), (256,), (q, a, b, i.size))
    np.testing.assert_array_equal(q.get(), i // n)


# ---- matrix products ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("suffix", ["f32", "f64"])
def test_gemm(suffix):
    t = DTYPES[suffix]
    for m, n, k in ((3, 4, 5), (1, 7, 33), (31, 1, 4), (1, 1, 1), (5, 6, 0), (0, 3, 4)):
        a, b, c, bias = values(t, max(m * k, 1) * 2), values(t, max(n * k, 1) * 2), values(t, max(m * n, 1) + 40), values(t, n)
        for ars, acs in ((k, 1), (1, m), (2 * k, 2)):
            for brs, bcs in ((n, 1), (1, k), (2 * n, 2)):
                for given, accumulate in ((bias, 0), (None, 1)):
                    compare(f"gemm_{suffix}", c, a, b, given, None, 1, m, n, k, ars, acs, brs, bcs, n, accumulate, ulps=64)
        if m > 1:
            compare(f"gemm_{suffix}", values(t, m * (n + 3)), a, b, bias, None, 1, m, n, k, k, 1, n, 1, n + 3, 0, ulps=64)


def test_gemm_batches():
    m, n, k, t = 3, 4, 5, np.float32
    a, b = values(t, (6, m, k)), values(t, (6, k, n))
    steps = {"even": [(i * 12, i * 15, i * 20) for i in range(6)], "one a for all": [(i * 12, 0, i * 20) for i in range(6)],
             "reversed": [(i * 12, (5 - i) * 15, i * 20) for i in range(6)],
             "two by three": [(i * 12, i // 3 * 15, i % 3 * 20) for i in range(6)]}
    for name, offsets in steps.items():
        fakeblas.calls.clear()
        places = Plan(*[o for row in offsets for o in row])
        compare("gemm_f32", values(t, 72), a, b, values(t, n), places, 6, m, n, k, k, 1, n, 1, n, 0, ulps=64)
        if not REAL:
            assert fakeblas.calls == (["strided batch"] if name in ("even", "one a for all") else ["one"] * 6)
        compare("gemm_f32", values(t, 72), np.repeat(a, 2), b, None, Plan(*[o for c, x, y in offsets for o in (c, 2 * x, y)]),
                6, m, n, k, 2 * k, 2, n, 1, n, 1, ulps=64)


# ---- one text for both devices ----------------------------------------------------------------------------------------
FILES = sorted({e.file for e in KERNELS.values()})


def suffixes_of(file):
    names = [split(full) for full in signatures()]
    return sorted({suffix for name, suffix in names if name in KERNELS and KERNELS[name].file == file})



def parameters(text, before="^"):
    """{kernel: its parameters} of preprocessed C or CUDA text."""
    found = re.findall(before + r"\s*void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)\s*[;{]", text, re.M)
    return {name: [" ".join(p.replace("*", " * ").split()) for p in args.split(",")] for name, args in found}


@pytest.mark.parametrize("suffix", ["f32", "f64", "i32", "i64", "u8", "u16", ""])
def test_argument_lists_are_those_of_the_header(suffix):
    """Word for word, after the macros: minigrad.h as a C compiler sees it, the .cu files as NVRTC does."""
    sets = {"REAL": "f32 f64", "NUMBER": "f32 f64 i32 i64", "ANY": "f32 f64 i32 i64 u8", "MOVE": "u8 u16 i32 i64", "BOOL": "u8",
            "LONG": "i64"}
    prototype = "#define KERNEL(types, name, ...) void MG_CAT2(KERNEL_, types)(name)(__VA_ARGS__);"
    header = re.sub(r"^#define KERNEL\(.*", prototype, re.sub(r"#include.*", "", HEADER.read_text()), flags=re.M)
    defines = [f"-DMG_TYPE={suffix}", "-DMG_LEVEL=x"] if suffix else ["-DMG_TYPE=f32", "-DMG_LEVEL=x"]

    def preprocess(text, *options):
        command = [emulator.CXX, "-E", "-P", "-x", "c++", *options, "-"]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    # kernels of other types get a name that no CUDA kernel has
    types = "".join(f"#undef KERNEL_{k}\n#define KERNEL_{k}(name) {f'name##_{suffix}' if suffix in v.split() else 'no_##name'}\n"
                    for k, v in sets.items())
    types += f"#undef KERNEL_ONCE\n#define KERNEL_ONCE(name) {'no_##name' if suffix else 'name'}\n"
    at = header.index("/* the element type: T */")
    want = {k: v for k, v in parameters(preprocess(header[:at] + types + header[at:], *defines)).items() if not k.startswith("no_")}
    got = {}
    for file in FILES:
        if suffix not in suffixes_of(file):
            continue
        got.update(parameters(preprocess(cuda.source(file), "-DCUDA_ON_CPU", *cuda.options(suffix)[1:]), "__global__"))
    kernels = {name: args for name, args in want.items() if split(name)[0] in KERNELS}
    assert {k: got.get(k) for k in kernels} == kernels
    steps = {k: v for k, v in got.items() if k not in kernels}
    for step, args in steps.items():        # a STEP takes its kernel's arguments; and no CUDA kernel is without a C twin
        base = [k for k in kernels if step.startswith(split(k)[0] + "_") and step.endswith(suffix)]
        assert base and args == kernels[max(base, key=len)], step


def test_every_cuda_kernel_has_a_c_twin():
    """The other way round it need not be: a kernel missing on this device means the definition."""
    assert set(KERNELS) <= {split(full)[0] for full in signatures()}


def test_constants_of_the_table_are_those_of_the_header():
    for name, function in (("MG_CHUNKS", _chunks),):
        text = re.search(rf"#define {name}\(\w+\) (.*)", HEADER.read_text())[1]
        for file in ("ops/norm.cu",):
            assert text in cuda.source(file)
        for n in (0, 1, 32, 33, 4096, 4097, 10**6):
            condition = text.replace("(rows)", str(n))
            a, b, c, d, e = re.fullmatch(r"\((.*?) \? (.*?) : (.*?) \? \((.*?)\) / 32 : (\d+)\)", condition).groups()
            assert function(n) == (int(b) if eval(a) else eval(d) // 32 if eval(c) else int(e))
    assert re.search(r"#define MG_LOSS_CHUNKS\(n\) (.*)", HEADER.read_text())[1] in cuda.source("ops/loss.cu")
    assert re.search("#define MG_OPTIM_COLUMNS .*", HEADER.read_text())[0] in cuda.source("optim/optim.cu")


# ---- ops ----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", sorted(n for n, o in registry.items() if o.sample_function is not None))
def test_ops_agree_with_the_cpu(name):
    """Outputs and gradients of every sample, with fused kernels and by the definition; float64 says how large an error is fair."""
    op = registry[name]
    samples = [testing.samples_of(op, np.float32), testing.samples_of(op, np.float64), testing.samples_of(op, np.float32, device="cuda")]
    for i, sample in enumerate(zip(*samples, strict=True)):
        for path in ("auto", "off") if isinstance(op, Op) else ("auto",):
            with set_fused(path), np.errstate(all="ignore"):
                try:
                    want, exact, got = ([*outputs, *gradients] for outputs, gradients in (testing.evaluate(op, *s) for s in sample))
                except NotImplementedError as error:
                    pytest.skip(str(error))
            for g, w, e in zip(got, want, exact, strict=True):
                assert (g is None) == (w is None)
                if g is None:
                    continue
                finite = np.isfinite(w) if w.dtype.kind == "f" else np.zeros(w.shape, bool)
                own = np.abs(w[finite] - e[finite]).max(initial=0) if w.dtype == g.dtype and w.dtype.kind == "f" else 0
                scale = max(1.0, float(np.abs(w[finite]).max(initial=0)))       # as testing._close does
                testing._close(g, w, 2e-5 + 4 * own / scale, f"{name}, sample {i} {sample[0][1]}, fused {path}, on cuda")


def test_what_has_no_kernel_says_so():
    with pytest.raises(NotImplementedError, match=r"\[.*\] has no CUDA kernel for .*float16.* on cuda:0"):
        x = mg.tensor(np.ones(3, np.float16), device="cuda")
        x + x


# ---- training -----------------------------------------------------------------------------------------------------------

class Net(nn.Module):
    def __init__(self, norm, activation):
        super().__init__()
        # a bias in front of batch norm has no gradient but rounding errors, which Adam would blow up
        self.hidden, self.norm = nn.Linear(64, 32, bias=norm is not nn.BatchNorm1d), norm(32)
        self.activation, self.drop, self.out = activation(), nn.Dropout(0.2), nn.Linear(32, 10)

    def forward(self, x):
        return self.out(self.drop(self.activation(self.norm(self.hidden(x)))))


def train(device, norm, activation, steps, hook=None):
    """Losses and final state of a few steps on digits-like data; the same seed gives the same start on any device."""
    mg.manual_seed(3)
    net = Net(norm, activation).to(device)
    mg.manual_seed(4)               # the parameters were drawn on the CPU: dropout starts anew on both
    opt = optim.Adam(net.parameters(), lr=1e-2)
    data = np.random.default_rng(1)
    x = mg.tensor(data.uniform(0, 1, (32, 64)).astype(np.float32), device=device)
    y = mg.tensor(data.integers(0, 10, 32), device=device)
    losses = []

    def step():
        opt.zero_grad(set_to_none=False)        # gradients stay where they are, as a graph needs them
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
        return loss
    for i in range(steps):
        losses.append(hook(i, step) if hook else step())
    return [l.item() for l in losses], {k: v.numpy(force=True) for k, v in net.state_dict().items()}


@pytest.mark.parametrize("norm,activation", [(nn.LayerNorm, nn.ReLU), (nn.BatchNorm1d, nn.GELU)], ids=["layer", "batch"])
def test_training_agrees_with_the_cpu(norm, activation):
    want_losses, want = train("cpu", norm, activation, 5)
    got_losses, got = train("cuda", norm, activation, 5)
    np.testing.assert_allclose(got_losses, want_losses, rtol=1e-4)
    assert want_losses[-1] < want_losses[0]
    for k in want:
        np.testing.assert_allclose(got[k], want[k], rtol=1e-3, atol=2e-4, err_msg=k)


@pytest.mark.skipif(REAL, reason="capture on a GPU comes later; the stand-in refuses what a capture would")
def test_a_step_never_waits_for_the_gpu():
    """Recorded as a CUDA graph, where every copy between host and device is refused, and replayed."""
    def hook(i, step):
        if i < 3:
            return step()
        stream = cuda.cp.cuda.Stream(non_blocking=True)
        stream.begin_capture()
        try:
            loss = step()
        finally:
            graph = stream.end_capture()
        graph.launch()
        return loss
    want, _ = train("cpu", nn.LayerNorm, nn.ReLU, 4)
    got, _ = train("cuda", nn.LayerNorm, nn.ReLU, 4, hook)
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_checkpoint_masks_and_anomaly_on_the_device():
    """Random numbers are restored, padding stays out, and values on the device are looked at."""
    x = rng.standard_normal((3, 4, 6)).astype(np.float32)
    results = []
    for on in ("cpu", "cuda"):
        mg.manual_seed(1)
        norm, t = nn.BatchNorm1d(4).to(on), mg.tensor(x, device=on, requires_grad=True)
        y = checkpoint(lambda v, norm=norm: F.dropout(norm(v, lengths=[6, 2, 3]), 0.5), t)
        (y * y).sum().backward()
        results.append([v.numpy(force=True) for v in (y, t.grad, norm.weight.grad, *norm.buffers())])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    layer = nn.Sequential(nn.Softplus(), nn.LayerNorm(6))
    with mg.autograd.detect_anomaly():
        layer.to("cuda")(mg.tensor(x, device="cuda")).sum().backward()
        with pytest.raises(RuntimeError, match=r"\[detect_anomaly\] log made nan out of finite values"):
            mg.tensor([-1.0], device="cuda").log()
        with pytest.raises(RuntimeError, match="the backward of sqrt made inf"):
            mg.zeros(2, device="cuda", requires_grad=True).sqrt().sum().backward()


# ---- the device -----------------------------------------------------------------------------------------------------------

def test_memory_is_reused_but_never_under_a_view(gpu):
    x = mg.tensor(np.arange(6, dtype=np.float32), device="cuda")
    ptr = x.array.ptr
    del x
    y = mg.tensor(np.ones(6, np.float32), device="cuda")
    assert y.array.ptr == ptr
    seen = y.array.np
    del y
    z = mg.tensor(np.zeros(6, np.float32), device="cuda")
    assert z.array.ptr != ptr and seen.get().tolist() == [1] * 6


def test_copies_between_devices(gpu):
    for dtype in (np.float32, np.float64, np.int64, np.int32, bool, np.uint8, np.float16):
        for shape in ((), (1,), (3, 4), (0, 2)):
            h = rng.integers(0, 2, shape).astype(dtype)
            d = mg.tensor(h, device="cuda")
            assert d.device == "cuda" and d.dtype == h.dtype
            np.testing.assert_array_equal(d.cpu().numpy(), h)
    t = mg.tensor(np.arange(12.0).reshape(3, 4), device="cuda")
    np.testing.assert_array_equal(t.t().cpu().numpy(), np.arange(12.0).reshape(3, 4).T)
    np.testing.assert_array_equal(gpu.container(t.t().array).get(), np.arange(12.0).reshape(3, 4).T)
    with pytest.raises(TypeError, match="cpu"):
        t.numpy()


@pytest.mark.skipif(REAL, reason="the stand-in plays machines without a GPU")
@pytest.mark.parametrize("driver,count,say", [
    (0, 0, "no NVIDIA driver"), (12040, 1, r"supports CUDA 12.4.*cuda12"), (13000, 0, "no GPU is visible")])
def test_why_there_is_no_gpu(monkeypatch, driver, count, say):
    monkeypatch.setattr(fakecupy.cuda.runtime, "driverGetVersion", lambda: driver)
    monkeypatch.setattr(fakecupy.cuda, "is_available", lambda: count > 0)
    with pytest.raises(RuntimeError, match=say):
        cuda.CUDA(0)


@pytest.mark.skipif(REAL, reason="CuPy is installed")
def test_cupy_is_optional(monkeypatch):
    monkeypatch.setattr(cuda, "cp", None)
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RuntimeError, match=r"CuPy is not installed.*cupy-cuda13x"):
        cuda.CUDA(0)


# ---- the compile check ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90"])
@pytest.mark.parametrize("file", FILES)
def test_kernels_compile_with_nvrtc_within_bounds(file, arch):
    """For real GPUs, without one: nothing spills, and each kernel stays within its row of the table."""
    try:
        nvrtc.library()
    except ImportError as e:
        pytest.skip(str(e))
    for suffix in suffixes_of(file):
        for kernel, used in nvrtc.resources(cuda.source(file), arch, cuda.options(suffix)).items():
            name, step = split(kernel)[0], ""
            while name not in KERNELS:
                name, _, step = name.rpartition("_")
            bound = KERNELS[name]
            assert used.spill == 0 and used.stack <= bound.stack and used.registers <= bound.registers, (kernel, step, used)
            assert used.shared <= bound.shared and used.registers * 512 <= 65536, (kernel, step, used)
