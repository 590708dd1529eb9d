"""Convolutions against their C twins."""
from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from cuda_on_cpu import emulator
from cuda_on_cpu.twins import DTYPES, RACE, REAL, Plan, compare, emulated, launch, rng, values

import minigrad as mg
from minigrad import devices, nn, optim
from minigrad.devices import cuda
from minigrad.devices.launch import KERNELS, Launch
from minigrad.nn import functional as F
from minigrad.ops.conv import conv_sizes

pytestmark = [emulated, pytest.mark.usefixtures("gpu")]

# images, groups, channels of a group of x and of y; for each dimension of space: size, kernel, stride, zeros before and behind, dilation
CASES = {
    "one": (1, 1, 1, 1, (1, 1, 1, 0, 0, 1)),
    "line": (3, 1, 3, 5, (31, 5, 2, 2, 2, 1)),
    "plane": (2, 1, 5, 33, (7, 3, 1, 1, 1, 1), (9, 2, 1, 0, 1, 1)),
    "space": (2, 1, 2, 7, (4, 2, 1, 1, 0, 1), (5, 3, 2, 1, 1, 1), (6, 2, 1, 0, 1, 3)),
    "groups": (2, 3, 2, 3, (11, 3, 3, 2, 2, 2), (8, 3, 2, 2, 2, 3)),
    "depthwise": (2, 6, 1, 1, (6, 3, 1, 1, 1, 1), (33, 3, 2, 1, 1, 1)),
    "pointwise": (5, 1, 37, 17, (3, 1, 1, 0, 0, 1), (5, 1, 3, 0, 0, 1)),
    "wide": (1, 1, 70, 67, (5, 3, 1, 1, 1, 1), (13, 3, 1, 1, 1, 1)),               # more than one tile of rows, two chains
    "many": (40, 1, 1, 8, (8, 3, 1, 1, 1, 1), (9, 3, 1, 1, 1, 1)),                 # several chunks of positions
    "stride above kernel": (2, 1, 3, 4, (11, 2, 5, 1, 1, 1), (9, 1, 3, 0, 0, 1)),
    "dilation shares with stride": (2, 1, 2, 3, (17, 4, 6, 3, 3, 4), (15, 3, 2, 0, 0, 4)),
    "unreached": (1, 1, 2, 2, (9, 2, 4, 0, 0, 1), (6, 2, 3, 4, 0, 5)),
}


def case(name, dtype):
    """(x, w, y, bias of y, bias of x, geometry) of a case; y has random values."""
    images, groups, c, k, *space = CASES[name]
    space = [(1, 1, 1, 0, 0, 1)] * (3 - len(space)) + space
    size, kernel, stride, before, behind, dilation = zip(*space, strict=True)
    out = conv_sizes(size, kernel, stride, tuple(zip(before, behind, strict=True)), dilation)
    table = Plan(images, groups, c, k, *size, *out, *kernel, *stride, *before, *dilation)
    shapes = (images, groups * c, *size), (groups * k, c, *kernel), (images, groups * k, *out), (groups * k,), (groups * c,)
    return [values(dtype, shape) for shape in shapes] + [table]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("suffix", ["f32", "f64"])
def test_convolution(suffix, name, order):
    x, w, y, bias, bias_x, table = case(name, DTYPES[suffix])
    for b in (bias, None):
        compare(f"conv_forward_{suffix}", y * 0, x, w, b, table, ulps=64)
    for b in (bias_x, None):
        compare(f"conv_backward_input_{suffix}", x * 0, y, w, b, table, ulps=64)
    for chunks in (1, 3):
        weights_agree(suffix, w, x, y, table, chunks)


def weights_agree(suffix, w, x, y, table, chunks):
    """Only the gradient is compared: what stands in the sums of the chunks is up to a device."""
    arguments = w * 0, np.zeros(chunks * w.size, w.dtype), x, y, table, chunks
    want, got = (launch(mg.device(name), f"conv_backward_weight_{suffix}", arguments)[0] for name in ("cpu", "cuda"))
    assert np.abs(got - want).max() <= 64 * np.finfo(w.dtype).eps * max(np.abs(want).max(), 3)


@pytest.mark.parametrize("suffix", ["f32", "f64"])
def test_weights_that_are_not_finite(suffix, order):
    """What lies outside counts as 0 of x, times such a weight NaN; but no gradient comes from outside of y."""
    x, w, y, _, _, table = case("plane", DTYPES[suffix])
    w[1, 2, 0, 0, 0], w[3, 4, 0, 2, 1], w[7, 0, 0, 1, 0] = np.inf, np.nan, -np.inf
    y[1, :, :, 3] = 0
    y[0, :, :, 2] = -0.0
    compare(f"conv_forward_{suffix}", y * 0, x, w, None, table, ulps=64)
    compare(f"conv_backward_input_{suffix}", x * 0, y, w, None, table, ulps=64)


def test_positions_above_32_bits_are_divided():
    text = cuda.source("ops/conv.cu") + """
extern "C" __global__ void divide_all(int64_t *q, const int64_t *n, const int64_t *by, int64_t count) {
  GRID_LOOP(i, count) q[i] = divide(n[i], by[i]);
}"""
    by = np.array([1, 3, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**33 + 7, 10**12], np.int64).repeat(100)
    n = np.concatenate([by + rng.integers(-1, 2, by.size), by * 7 - 1, rng.integers(0, 2**62, by.size), 2**32 + rng.integers(-2, 3, by.size)])
    by = np.tile(by, 4)
    q, a, b = cuda.cp.empty(n.shape, np.int64), cuda.cp.asarray(n), cuda.cp.asarray(by)
    cuda.cp.RawModule(code=text, options=cuda.options("f32")).get_function("divide_all")((4,), (256,), (q, a, b, n.size))
    np.testing.assert_array_equal(q.get(), n // by)


@pytest.mark.parametrize("suffix", ["f32", "f64"])
def test_any_tile_gives_the_same_bits(suffix, order, monkeypatch):
    """A sum depends neither on the tile that the launch rule chooses nor on the number of blocks."""
    device = mg.device("cuda")
    x, w, y, bias, bias_x, table = case("wide", DTYPES[suffix])
    sums, odd = np.zeros(2 * w.size, w.dtype), w.copy()
    odd[1, 2, 0, 0, 0] = np.inf
    for name, arguments, tiles in (("conv_forward", [y, x, w, bias, table], (1, 8, 16)),
                                   ("conv_backward_input", [x, y, w, bias_x, table], (1, 8, 16)),
                                   ("conv_backward_input", [x, y, odd, bias_x, table], (1, 8, 16)),
                                   ("conv_backward_weight", [w, sums, x, y, table, 2], (8, 16))):
        found = []
        for threads, blocks in product(tiles, (1, 7)) if not RACE else [(16, 1)]:      # the other tiles' races show in other tests
            def rule(k, host, shape=((blocks,), (256 // threads, threads)), rule=KERNELS[name].rule):
                return [Launch("", *shape), *rule(k, host)[1:]]
            kernel = next(k for k in device.kernels if k.name == f"{name}_{suffix}")
            call = cuda.launcher(device, name, suffix, kernel.signature, kernel.names, {name: KERNELS[name]._replace(rule=rule)})
            with monkeypatch.context() as patched:
                patched.setattr(kernel, "call", call)
                found.append(launch(device, kernel.name, [np.zeros_like(arguments[0]), *arguments[1:]])[0])
        for other in found[1:]:
            np.testing.assert_array_equal(other, found[0], err_msg=name)
        want = launch(mg.device("cpu"), kernel.name, [np.zeros_like(arguments[0]), *arguments[1:]])[0]
        near = 64 * np.finfo(w.dtype).eps * np.abs(want[np.isfinite(want)]).max()
        np.testing.assert_allclose(found[0], want, rtol=0, atol=near, err_msg=name)


@pytest.mark.skipif(REAL, reason="the emulator counts")
def test_launches_of_a_training_step(monkeypatch):
    """A network of two convolutions with batch norm and pooling: a fused kernel for each layer and pass."""
    mg.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
                        nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
                        nn.Flatten(), nn.Linear(64, 10)).to("cuda")
    opt = optim.Adam(net.parameters())
    x, y = mg.tensor(values(np.float32, (8, 1, 8, 8)), device="cuda"), mg.tensor(np.arange(8), device="cuda")

    def step():
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        opt.step()
    for _ in range(3):
        step()
    launches, products = [], []
    run = emulator.RawKernel.__call__
    monkeypatch.setattr(emulator.RawKernel, "__call__", lambda self, *a, **k: launches.append(self.name) or run(self, *a, **k))

    def seen(kernel, arguments):
        products.extend([kernel.name] if kernel.name.startswith("gemm") else [])
        kernel.function(*arguments)
    with devices.launch_hook(seen):
        step()
    assert 20 < len(launches) and len(launches) + len(products) <= 45, launches + products
