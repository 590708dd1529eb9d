"""Captured steps on the GPU: CUDA graphs, with the same bits as eager steps."""
from __future__ import annotations

import contextlib
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from core import test_capture_fuzz
from cuda_on_cpu import fakecupy
from cuda_on_cpu.twins import REAL, emulated
from golden import curves

import minigrad as mg
from minigrad import nn, optim, study, testing
from minigrad.core.op import registry
from minigrad.devices import cuda, private
from minigrad.devices.addresses import find
from minigrad.nn import functional as F

pytestmark = [emulated, pytest.mark.usefixtures("gpu")]
stand_in = pytest.mark.skipif(REAL, reason="looks into the stand-in for CuPy")
late = contextlib.nullcontext if REAL else fakecupy.asynchronous
STEPS = int(os.environ.get("MINIGRAD_CUDA_STEPS") or (200 if REAL else 4))     # 200 in the emulator take minutes
sys.path.insert(0, str(curves.EXAMPLES))


def graphs(captured):
    """The graphs of a captured function's recordings: how many nodes each has."""
    return [[len(segment.run.graph._ops) for segment in program.segments if not callable(segment)]
            for programs in captured.programs.values() for program in programs]


def on_gpu(*values, dtype=np.float32, **options):
    return mg.tensor(np.array(values, dtype), device="cuda", **options)


# ---- the same bits ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", curves.SMALL)
def test_captured_steps_of_the_examples_are_eager_ones(name):
    """MINIGRAD_CUDA_STEPS=200 for as many as on the CPU: dropout, running statistics, clipping, a schedule."""
    captured = []

    def wrap(step):
        captured.append(mg.capture(step))
        return captured[0]
    eager, want = curves.trained(name, STEPS, device="cuda")
    with late():
        losses, got = curves.trained(name, STEPS, wrap, device="cuda")
    assert losses == eager and len(set(eager)) > 0.9 * STEPS
    for key in want:
        np.testing.assert_array_equal(got[key], want[key], err_msg=key)
    assert [len(nodes) for nodes in graphs(captured[0])] == [1], "one graph, and no Python between"


def with_gradients(op, attrs):
    """An op as a function of its inputs that gives outputs and gradients."""
    def run(*inputs):
        results = testing.called(op)(*inputs, **attrs)
        outputs = list(results) if isinstance(results, (tuple, list)) else [results]
        leaves, roots = ([t for t in of if isinstance(t, mg.Tensor) and t.requires_grad] for of in (inputs, outputs))
        grads = mg.autograd.grad(roots, leaves, [mg.ones_like(t) for t in roots], allow_unused=True) if leaves and roots else []
        return [t for t in (*outputs, *grads) if t is not None]
    return run


@pytest.mark.parametrize("name", sorted(n for n, o in registry.items() if o.sample_function is not None and n != "transfer"))
def test_each_op_captured(name):
    """Its first sample, with gradients."""
    args, attrs = testing.samples_of(registry[name], np.float32, device="cuda")[0]
    args = [a.detach().requires_grad_(a.is_floating_point()) if isinstance(a, mg.Tensor) else a for a in args]
    step = with_gradients(registry[name], attrs)
    captured = mg.capture(step)
    with np.errstate(all="ignore"):
        try:
            want = [t.numpy(force=True).tobytes() for t in step(*args)]
        except TypeError as error:
            pytest.skip(f"it does not run on a GPU, which test_ops.py tells: {error}")
        if name == "segment_reduce":                # Python reads the lengths
            with pytest.raises(RuntimeError, match="reads a value while recording"):
                captured(*args)
            return
        for _ in range(3):
            assert [t.numpy(force=True).tobytes() for t in captured(*args)] == want
    assert len(captured.programs) == 1


@pytest.mark.filterwarnings("ignore")
def test_random_scripts_of_steps_and_changes_between_them():
    """Those of tests/core, on the GPU: an eager and a captured world hold the same bits after each action."""
    mg.set_default_device("cuda")
    try:
        for seed in range(STEPS * 5):
            test_capture_fuzz.run(seed)
    finally:
        mg.set_default_device(None)


def test_the_default_device_may_change():
    step = mg.capture(lambda: mg.ones(2) * 2)
    assert step().device.type == "cpu" == step().device.type
    mg.set_default_device("cuda")
    try:
        assert step().device.type == "cuda" == step().device.type
    finally:
        mg.set_default_device(None)
    assert step().device.type == "cpu"


def step_of(norm=nn.LayerNorm):
    mg.manual_seed(5)
    net = nn.Sequential(nn.Linear(6, 8), norm(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)).to("cuda")
    optimizer = optim.Adam(net.parameters(), lr=0.01)
    schedule = optim.lr_scheduler.StepLR(optimizer, 2, 0.5)

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        optimizer.step()
        schedule.step()
        return loss
    return net, step


def trained(wrap, norm=nn.LayerNorm, steps=8, around=contextlib.nullcontext):
    mg.manual_seed(1)
    net, step = step_of(norm)
    step, data, losses = wrap(step), np.random.default_rng(2), []
    for _ in range(steps):
        x = mg.tensor(data.standard_normal((5, 6)).astype(np.float32), device="cuda")
        with around():
            losses.append(step(x, mg.tensor(data.integers(0, 3, 5), device="cuda")).item())
    return losses, [v.numpy(force=True).tobytes() for v in net.state_dict().values()], step


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.BatchNorm1d])
def test_everything_in_a_step(norm):
    """The schedule inside, other tensors come and go, and the GPU is as late as it may be."""
    junk = []

    @contextlib.contextmanager
    def others():
        junk[3:] = [mg.ones(5, 8, device="cuda") * len(junk), *[mg.ones(8, 6, device="cuda") for _ in range(3)]]
        yield
    want = trained(lambda step: step, norm)
    with late():
        got = trained(mg.capture, norm, around=others)
    assert got[:2] == want[:2]
    assert REAL or [len(nodes) for nodes in graphs(got[2])] == [1]


def test_copies_of_operands_are_in_nobodys_way():
    """A product that copies an operand takes memory. The graph has that from a pool of its own, not from that of the step,
    where an array of the step may lie at that time: here `a`, the last one that is freed."""
    x, every_second, w = mg.randn(16, 8, device="cuda"), mg.randn(16, 16, device="cuda")[:, ::2], mg.randn(8, 4, device="cuda")

    @mg.capture
    def step(x):
        a = x * 2
        b = a + (every_second @ w).sum()
        total = b.sum()
        del b, a
        return total
    results = [step(x).item() for _ in range(3)]
    assert results == [step.function(x).item()] * 3


@stand_in
def test_other_threads_compute_while_a_graph_is_recorded(monkeypatch, gpu):
    """Their launches do not get into the graph, and are not lost; and who waits for the GPU waits until it is recorded."""
    t, seen, begin = mg.ones(5, device="cuda"), [], fakecupy.Stream.begin_capture
    waiting = threading.Thread(target=mg.cuda.synchronize)

    def begin_and_compute(self):
        begin(self)
        waiting.start()
        with ThreadPoolExecutor(1) as other:
            seen.append(other.submit(lambda: ((t + 1).reshape(5, 1) @ mg.ones(1, 2, device="cuda")).tolist()).result())
        assert waiting.is_alive()
    monkeypatch.setattr(fakecupy.Stream, "begin_capture", begin_and_compute)
    step = mg.capture(lambda x: x.reshape(5, 1) @ (x * 2).reshape(1, 5))
    x = mg.arange(5.0, device="cuda")
    want = step.function(x).tolist()
    assert [step(x).tolist() for _ in range(3)] == [want] * 3
    assert seen == [[[2.0, 2.0]] * 5] and graphs(step) == [[2]]
    waiting.join(10)
    assert not waiting.is_alive()


@stand_in
def test_after_an_error_in_a_recording_graphs_are_recorded_again(monkeypatch, gpu):
    x, step = mg.arange(5.0, device="cuda"), mg.capture(lambda x: x * 2 + 1)
    kernel = gpu.kernels.add[np.dtype(np.float32)]
    add, count = kernel.function, []

    def failing(*given):
        count.append(1)
        if len(count) == 2:                     # the first is the step, the second its recording
            raise KeyboardInterrupt
        add(*given)
    monkeypatch.setattr(kernel, "function", failing)
    with pytest.raises(KeyboardInterrupt):
        step(x)
    monkeypatch.undo()
    assert private.active() is None and not step.programs
    for _ in range(2):
        assert step(x).tolist() == [1, 3, 5, 7, 9]
    assert graphs(step) == [[2]] and (x + x).tolist() == [0, 2, 4, 6, 8]


READS = {"item": lambda x: x.sum().item(), "bool": lambda x: bool(x.sum()), "numpy": lambda x: x.cpu(), "tolist": lambda x: x.tolist(),
         "data_ptr": lambda x: x.data_ptr(), "seed": lambda x: mg.manual_seed(0), "another device": lambda x: mg.ones(5) + x.to("cpu"),
         "a tensor of the CPU": lambda x: CPU.to("cuda")}
CPU = mg.ones(3)


@pytest.mark.parametrize("name", READS)
def test_what_a_replay_cannot_do_is_refused(name):
    step = mg.capture(READS[name])
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"\[capture\]"):
            step(mg.ones(5, device="cuda"))


def test_definitions_compute_with_values_of_the_host():
    """The divisor of an average, positions in windows, list indices, positions of a mask: copied before, not by the graph;
    but what launches change in place begins anew at each replay, between two graphs."""
    x, classes = mg.randn(2, 3, 6, 6, device="cuda"), on_gpu(1, 0, dtype=np.int64)

    def step(x):
        return [F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), F.max_pool2d(x, 2, 1), x[:, [2, 0]], F.one_hot(classes, 3),
                x.unfold(2, 2, 1)]
    captured = mg.capture(step)
    want = [y.tolist() for y in step(x)]
    for _ in range(2):
        assert [y.tolist() for y in captured(x)] == want
    assert REAL or [len(nodes) for nodes in graphs(captured)] == [2]


def test_steps_of_two_devices():
    """Launches of the CPU between those of the GPU: a segment each, in order."""
    host = mg.zeros(3)

    @mg.capture
    def step(x):
        y = x * 2
        host.add_(1)
        return y + 1
    for i in range(3):
        assert step(mg.ones(4, device="cuda")).tolist() == [3] * 4 and host.tolist() == [i + 1] * 3


def test_memory_is_found_by_address(gpu):
    """What launches point to lives as long as the program: constants with what they keep, arrays of others."""
    kept = mg.ones(3, device="cuda")
    table = gpu.constant(np.array([kept.array.ptr]), kept)
    assert find(table.ptr)().keep is kept
    given = cuda.cp.asarray(np.arange(6, dtype=np.float32))
    wrapped = gpu.wrap(given)
    for offset in (0, 23):
        assert find(wrapped.ptr + offset)() is given
    assert find(kept.array.ptr)() is kept.array.block.root
    with pytest.raises(RuntimeError, match="without a known owner"):
        mg.capture(lambda x: gpu.kernels.sqrt[np.dtype(np.float32)].call(x.array.ptr, 12345, 0))(kept)


def test_a_program_gives_its_memory_back(gpu):
    def used():
        mg.cuda.empty_cache()
        return mg.cuda.memory_allocated()
    x = mg.ones(1 << 18, device="cuda")
    step = mg.capture(lambda x: (x * 2 + 1) * x)
    step(x), step(x)
    with_program = used()
    step.programs.clear()
    step.last = None
    assert with_program - used() >= 3 << 20


@stand_in
def test_what_nobody_reads_is_not_in_the_graph():
    def step(x):
        (x * 2).exp()
        return x + 1
    captured = mg.capture(step)
    for _ in range(2):
        assert captured(mg.ones(3, device="cuda")).tolist() == [2] * 3
    assert graphs(captured) == [[1]]


def test_a_trace_sees_the_launches_of_a_replay():
    """One by one, with what was known of them when they were recorded."""
    x, step = mg.ones(4, 3, device="cuda"), mg.capture(lambda x: (x @ x.t()).exp().sum())
    with study.trace() as first:
        step(x)
    with study.trace() as again:
        step(x)
    launches = [(k.op, k.kernel, k.operands) for k in first.launches if k.op != "copy"]
    assert [k[0] for k in launches] == ["matmul", "exp", "sum"]
    assert [(k.op, k.kernel, k.operands) for k in again.launches if k.replayed] == launches
    assert all(k.time > 0 for k in again.launches)
