"""Wrong indices and labels on the GPU: the error comes where the host waits, and no call waits for it. And MINIGRAD_CUDA_SYNC."""
from __future__ import annotations

import contextlib

import numpy as np
import pytest
from cuda_on_cpu import fakecupy
from cuda_on_cpu.twins import REAL, emulated

import minigrad as mg
from minigrad import nn, optim
from minigrad.devices import cuda
from minigrad.nn import functional as F

pytestmark = [emulated, pytest.mark.usefixtures("gpu")]
stand_in = pytest.mark.skipif(REAL, reason="looks into the stand-in for CuPy")
late = contextlib.nullcontext if REAL else fakecupy.asynchronous


def on_gpu(values, **options):
    return mg.tensor(np.array(values), device="cuda", **options)


def x():
    return on_gpu(np.arange(12.0).reshape(4, 3))


WRONG = {       # what is wrong, and what the error says
    "embedding": (lambda: F.embedding(on_gpu([0, 7, 1]), x()), IndexError, r"\[embedding\] index 7 .* dim 0 with size 4"),
    "index": (lambda: x()[on_gpu([0, -5])], IndexError, r"\[index\] index -5 .* dim 0 with size 4"),
    "second dimension": (lambda: x()[:, on_gpu([[3], [0]])], IndexError, r"\[index\] index 3 .* dim 1 with size 3"),
    "list": (lambda: x()[[1, 4]], IndexError, r"\[index\] index 4 .* dim 0 with size 4"),
    "gather": (lambda: x().gather(1, on_gpu([[0], [1], [-1], [2]])), RuntimeError, r"\[gather\] index -1 .* dim 1 with size 3"),
    "take": (lambda: x().take(on_gpu([12])), IndexError, r"\[take\] index 12 .* size 12"),
    "scatter": (lambda: x().scatter(0, on_gpu([[4, 0, 0]]), on_gpu([[1.0, 2, 3]])), RuntimeError, r"\[scatter\] index 4 .* dim 0"),
    "index_add": (lambda: x().index_add(0, on_gpu([5]), on_gpu([[1.0, 2, 3]])), RuntimeError, r"\[index_add\] index 5"),
    "index_select": (lambda: x().index_select(1, on_gpu([-1])), IndexError, r"\[index_select\] index -1 .* dim 1"),
    "label": (lambda: F.cross_entropy(x(), on_gpu([0, 1, 3, -100])), IndexError,
              r"\[cross_entropy\] labels must lie in \[0, 3\) or be ignore_index -100; got 3"),
    "label of nll_loss": (lambda: F.nll_loss(x(), on_gpu([0, 1, -1, 2])), IndexError, r"\[nll_loss\] labels .* got -1"),
    "length": (lambda: F.layer_norm(mg.ones(2, 4, 3, device="cuda"), (3,), lengths=on_gpu([4, 5])), ValueError,
               r"\[layer_norm\] lengths must be from 0 to 4, the size of dimension 1; got 5"),
    "probability": (lambda: F.binary_cross_entropy(on_gpu([0.5, 1.5]), on_gpu([0.0, 1.0])), RuntimeError,
                    r"all elements of input should be between 0 and 1; got another value at 1"),
    "target": (lambda: F.binary_cross_entropy(on_gpu([0.5, 0.5]), on_gpu([np.nan, 1.0])), RuntimeError, r"of target .* value at 0"),
    "probability, in half precision, in a later chunk": (
        lambda: F.binary_cross_entropy((mg.arange(40000, device="cuda") == 20000).half() * 2, mg.ones(40000, device="cuda").half()), RuntimeError,
        r"of input .* value at 20000"),
    "class": (lambda: F.one_hot(on_gpu([0, 2]), 2), RuntimeError, r"\[one_hot\] class values must lie in \[0, 2\); got 2"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_index_is_told_where_the_host_waits(wrong):
    call, kind, say = WRONG[wrong]
    waits = {"item": lambda y: y.sum().item(), "cpu": lambda y: y.cpu(), "synchronize": lambda y: mg.cuda.synchronize()}
    for wait in waits.values():
        with late():
            y = call()                          # no error: nothing is read back
            with pytest.raises(kind, match=say):
                wait(y)
            mg.cuda.synchronize()               # it is told once, and the process goes on
            assert x()[on_gpu([3, -1])].tolist() == [[9, 10, 11]] * 2


@stand_in
def test_no_call_with_an_index_reads_anything_back(monkeypatch):
    given = x(), on_gpu([1, 0]), on_gpu([2, 1, 0, 2])
    used = fakecupy.Stream._wait
    monkeypatch.setattr(fakecupy.Stream, "_wait", lambda *_: pytest.fail("a copy between host and device"))
    with late():
        results = [given[0][given[1]], F.embedding(given[1], given[0]), F.cross_entropy(given[0], given[2]),
                   given[0].take(given[1]), given[0].gather(1, given[2].unsqueeze(1))]
        monkeypatch.setattr(fakecupy.Stream, "_wait", used)
        assert [r.numel() for r in results] == [6, 6, 1, 2, 4] and results[0].tolist() == [[3, 4, 5], [0, 1, 2]]


@stand_in
def test_list_indices_are_copied_once(monkeypatch):
    copies, copy = [], fakecupy.ndarray.set
    monkeypatch.setattr(fakecupy.ndarray, "set", lambda *given: copies.append(1) or copy(*given))
    t = x()
    for _ in range(3):
        taken = t[[2, 0, 1]]
    assert len(copies) == 2 and taken.tolist() == [[6, 7, 8], [0, 1, 2], [3, 4, 5]]      # t itself, and the list
    assert t[[1, 0]].tolist() == [[3, 4, 5], [0, 1, 2]]


def test_the_caller_may_change_the_index_before_backward(gpu):
    table, index = x().requires_grad_(), on_gpu([1, 1])
    y = F.embedding(index, table)
    index.fill_(3)
    y.sum().backward()
    assert table.grad.tolist() == [[0] * 3, [2] * 3, [0] * 3, [0] * 3]


def test_the_first_of_several_errors_is_told():
    with late():
        for value in (7, 9):
            F.embedding(on_gpu([value]), x())
        with pytest.raises(IndexError, match="index 7"):
            mg.cuda.synchronize()
        mg.cuda.synchronize()


@pytest.mark.parametrize("wrong", ["label", "index"])
def test_in_a_captured_step(wrong):
    """A replay with a wrong value: the error comes with that replay or a later one, and then the step is whole again."""
    mg.manual_seed(0)
    net = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 3)).to("cuda")
    optimizer = optim.SGD(net.parameters(), lr=0.1)

    @mg.capture
    def step(tokens, labels):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(tokens), labels)
        loss.backward()
        optimizer.step()
        return loss
    right = on_gpu([[0, 1], [4, 2]]), on_gpu([0, 2])
    first = step(*right).item()
    tokens, labels = (on_gpu([[0, 5], [4, 2]]), right[1]) if wrong == "index" else (right[0], on_gpu([0, 3]))
    with pytest.raises(IndexError, match=r"\[embedding\] index 5" if wrong == "index" else r"\[cross_entropy\] labels .* got 3"):
        step(tokens, labels)                    # the stand-in is done when the call is
        if REAL:
            mg.cuda.synchronize()
    assert len(step.programs) == 1
    with late():
        step(tokens, labels)                    # the GPU has not come to it
        with pytest.raises(IndexError):
            mg.cuda.synchronize()
    if wrong == "index":                        # a wrong label makes the loss nan, and so the parameters
        assert step(*right).item() < first + 1


# ---- MINIGRAD_CUDA_SYNC ----------------------------------------------------------------------------------------------

@pytest.fixture
def waiting(monkeypatch):
    """The device "cuda" of a process with MINIGRAD_CUDA_SYNC=1."""
    monkeypatch.setenv("MINIGRAD_CUDA_SYNC", "1")
    return cuda.CUDA(0)


def test_errors_come_from_their_launch(waiting):
    with late():
        index, source = waiting.upload(np.array([0, 9])), waiting.upload(np.arange(3))
        out, check = waiting.upload(np.zeros(2, np.int64)), waiting.kernels.check_index.only
        check.call(out.ptr, waiting.flags.ptr, source.ptr, 2, 0, 3, 0, waiting.flags.number(IndexError, "[check] index {0}"))
        with pytest.raises(IndexError, match="index 9"):
            check.call(out.ptr, waiting.flags.ptr, index.ptr, 2, 0, 3, 0, waiting.flags.number(IndexError, "[check] index {0}"))


@stand_in
def test_errors_of_a_captured_step_come_from_its_replay(gpu, monkeypatch):
    step = mg.capture(lambda index: table[index] + 1)
    table, right, wrong = x(), on_gpu([0, 3]), on_gpu([0, 4])
    step(right)
    for waits in (False, True):
        monkeypatch.setattr(gpu, "waits", waits)
        with late():
            if not waits:
                step(wrong)
            with pytest.raises(IndexError, match="index 4"):
                step(wrong) if waits else mg.cuda.synchronize()
    assert step(right).tolist() == [[1, 2, 3], [10, 11, 12]]


@stand_in
def test_a_launch_that_fails_names_its_kernel(gpu, waiting):
    """Without the switch, where the host waits for something else."""
    for device, at_once in ((gpu, False), (waiting, True)):
        with late():
            index, source = device.upload(np.array([0, 1 << 40])), device.upload(np.arange(3))
            out, take = device.upload(np.zeros(2, np.int64)), device.kernels.take[np.dtype(np.int64)]

            def launch(take=take, out=out, source=source, index=index):
                take.call(out.ptr, source.ptr, index.ptr, 1, 2, 3, 1)
            if at_once:
                with pytest.raises(RuntimeError, match=r"\[take_i64\] the launch failed on cuda:0: .*illegal memory access"):
                    launch()
            else:
                launch()
                with pytest.raises(fakecupy.LaunchError, match="illegal memory access"):
                    mg.cuda.synchronize()


# ---- memory of the wrong device --------------------------------------------------------------------------------------

def test_memory_of_the_cpu_is_refused(gpu):
    a, b = mg.ones(7, device="cuda"), mg.ones(7)
    with pytest.raises(RuntimeError, match=r"\[add\] all tensors must be on one device; got .*cuda:0.*; move them with .to"):
        a + b
    with pytest.raises(RuntimeError, match=r"\[take\] .*one device"):
        a[mg.tensor([0])]
    plan = gpu.constant(np.array([1, 7, 7, 1, 1, 1]))
    with pytest.raises(RuntimeError, match=r"\[sub\] a kernel of cuda:0 takes memory of cuda:0; got b on the CPU; move the tensor with .to"):
        gpu.kernels.sub[np.dtype(np.float32)].call(a.array.ptr, a.array.ptr, b.array.ptr, plan.ptr)
    assert (a - 1).sum().item() == 0


def test_each_launch_looks_at_its_addresses_if_it_waits(waiting):
    """Otherwise the first with its sizes does."""
    a, b, plan = waiting.upload(np.ones(7, np.float32)), np.ones(7, np.float32), waiting.constant(np.array([1, 7, 7, 1, 1, 1]))
    held = mg.device("cpu").wrap(b)
    sub, gemm = (getattr(waiting.kernels, name)[np.dtype(np.float32)] for name in ("sub", "gemm"))
    sub.call(a.ptr, a.ptr, a.ptr, plan.ptr)
    with pytest.raises(RuntimeError, match=r"\[sub_f32\] .* got a on the CPU"):
        sub.call(a.ptr, held.ptr, a.ptr, plan.ptr)
    with pytest.raises(RuntimeError, match=r"\[gemm_f32\] .* got b on the CPU"):
        gemm.call(a.ptr, a.ptr, held.ptr, 0, 0, 1, 1, 1, 7, 7, 1, 1, 1, 1, 0)
