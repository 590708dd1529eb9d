"""Optimisers and gradient clipping against their C twins."""
from __future__ import annotations

import functools
from math import prod
from types import SimpleNamespace

import numpy as np
import pytest
from cuda_on_cpu import fakecupy, nvrtc
from cuda_on_cpu.twins import DTYPES, REAL, emulated, values
from optim.test_optimizer import OPTIMIZERS

import minigrad as mg
from minigrad import optim
from minigrad.devices import cuda
from minigrad.devices.cuda import CUDA
from minigrad.devices.launch import KERNELS, TEXTS, Launch
from minigrad.optim import together

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


# ---- updates that are made of a definition (optim/together.py) ----

WRITTEN = [(name, options) for name, options in OPTIMIZERS if getattr(optim, name)._elementwise]
SHAPES = ((3, 5), (), (1100,), (0,))


def parameters(device, dtype):
    return [mg.tensor(values(np.float32, shape), device=device).to(dtype).requires_grad_() for shape in SHAPES]


def steps(make, params, dtype, count=4):
    """Parameters and their state after some steps; the second one has no gradient in the first step, so its count is another."""
    optimizer = make(params)
    for k in range(count):
        for i, p in enumerate(params):
            g = np.random.default_rng(100 * k + i).standard_normal(p.shape).astype(np.float32)
            p.grad = None if (k, i) == (0, 1) else mg.tensor(g, device=p.device).to(dtype)
        optimizer.step()
    return [t.detach().double().cpu().numpy() for p in params for t in (p, *optimizer.state[p].values())]


@pytest.mark.parametrize(("name", "options", "dtype"), [
    *[pytest.param(*of, mg.float32, id=f"{of[0]}-{'-'.join(of[1])}-float32") for of in WRITTEN],
    *[pytest.param(of, {}, dtype, id=f"{of}-{dtype}") for of in sorted({of for of, _ in WRITTEN})
      for dtype in (mg.float64, mg.float16, mg.bfloat16)]])
def test_an_update_written_from_its_definition(name, options, dtype, monkeypatch):
    """Two launches for all parameters, with the values of the definition on the CPU; the numbers of each state, too."""
    start = [p.detach() for p in parameters("cpu", dtype)]
    make, launches, record = functools.partial(getattr(optim, name), **options), [], None if REAL else fakecupy.record
    want = steps(make, [p.clone().requires_grad_() for p in start], dtype)
    on_gpu = [p.to("cuda").requires_grad_() for p in start]
    got = steps(make, on_gpu, dtype)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-12 if dtype == mg.float64 else 2e-5 if dtype == mg.float32 else 1e-3, atol=1e-6)
    if not REAL:
        optimizer = make(on_gpu)
        optimizer.step()                        # its first one uploads the state
        monkeypatch.setattr(fakecupy, "record", lambda call, *stream: (launches.append(call), record(call, *stream)))
        optimizer.step()
        assert len(launches) == 2


@pytest.mark.parametrize("name", sorted({name for name, _ in WRITTEN}))
def test_a_captured_step_runs_the_written_update(name):
    """A schedule moves its numbers; the bits are those of eager steps."""
    def trained(wrap):
        params = [mg.tensor(np.linspace(-1, 1, n, dtype=np.float32), device="cuda").requires_grad_() for n in (33, 5)]
        optimizer = getattr(optim, name)(params)
        schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.9)

        def step(x):
            optimizer.zero_grad()
            loss = sum((p * x[:len(p)]).square().sum() for p in params)
            loss.backward()
            optimizer.step()
            schedule.step()
            return loss
        step = wrap(step)
        losses = [step(mg.full((33,), 1.0 + k, device="cuda")).item() for k in range(5)]
        return losses, [t.detach().cpu().tolist() for p in params for t in (p, *optimizer.state[p].values())]
    assert trained(mg.capture) == trained(lambda step: step)


def test_the_text_of_an_update():
    """A number that several lines need is computed once; what is not elementwise is refused; other devices need no text."""
    p = mg.ones(3, device="cuda", requires_grad=True)
    text = written(optim.RAdam([p]), np.float32)
    assert text.count("of_pow<double>(hyper[4], step)") == 1 and "INFINITY" not in text[text.index("KERNEL(radam"):]
    with pytest.raises(NotImplementedError, match="elementwise kernels only; got sum_f32"):
        written(Wrong([p]), np.float32)


class Wrong(optim.Adadelta):
    """Its update needs the sum of a gradient."""

    def _define(self, flags, hyper, p, g, state, step):
        p.sub_(g.sum())


def written(optimizer, dtype):
    group = optimizer.param_groups[0]
    numbers, flags = optimizer._read(group)
    return together.text(optimizer, group, flags, len(numbers), np.dtype(dtype))


@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize("name", sorted({name for name, _ in WRITTEN}))
def test_written_updates_compile_with_nvrtc_within_bounds(name, arch):
    try:
        nvrtc.library()
    except ImportError as e:
        pytest.skip(str(e))
    optimizer = getattr(optim, name)([mg.ones(3, device="cuda", requires_grad=True)])
    for suffix in ("f32", "f64", "bf16"):
        TEXTS["update.cu"] = written(optimizer, np.float64 if suffix == "f64" else np.float32)
        found = nvrtc.resources(cuda.source("update.cu"), arch, cuda.options(suffix, together.kernel_name(optimizer)))
        del TEXTS["update.cu"]
        assert len(found) == 2
        for kernel, used in found.items():
            assert used.spill == 0 and used.stack == 0 and used.registers <= 128 and used.shared <= 512, (kernel, used)


def test_a_written_update_finds_its_numbers_in_a_state_of_any_order():
    """A loaded state may have ASGD's eta and mu in another order."""
    def trained(device):
        p = mg.ones(3, device=device, requires_grad=True)
        optimizer = optim.ASGD([p], t0=1.0)
        for k in range(5):
            p.grad = mg.full((3,), 1.0 + k, device=device)
            optimizer.step()
            state = optimizer.state_dict()
            state["state"] = {i: dict(reversed(of.items())) for i, of in state["state"].items()}
            optimizer.load_state_dict(state)
        return p.tolist(), {name: of.tolist() for name, of in sorted(optimizer.state[p].items())}
    (p, state), (want, of_cpu) = trained("cuda"), trained("cpu")
    np.testing.assert_allclose(p, want, rtol=1e-6)
    for name in of_cpu:
        np.testing.assert_allclose(state[name], of_cpu[name], rtol=1e-6, err_msg=name)


def test_numbers_of_a_state_come_to_the_parameters_device():
    """The kernel reads their addresses."""
    p = mg.ones(3, device="cuda", requires_grad=True)
    optimizer = optim.ASGD([p])
    p.grad = mg.ones(3, device="cuda")
    optimizer.state[p]["step"], optimizer.state[p]["eta"] = (mg.tensor(v, dtype=mg.float64) for v in (4.0, 0.5))
    optimizer.step()
    assert {s.device.type for s in optimizer.state[p].values()} == {"cuda"}
    assert optimizer.state[p]["step"].item() == 5
    np.testing.assert_allclose(p.tolist(), [0.5 - 0.5e-4] * 3, rtol=1e-6)
