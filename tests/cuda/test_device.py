"""The device: memory, copies, why there is none."""
from __future__ import annotations

import sys

import numpy as np
import pytest
from cuda_on_cpu import fakecupy
from cuda_on_cpu.twins import REAL, emulated, rng

import minigrad as mg
from minigrad import nn
from minigrad.devices import cuda
from minigrad.devices.memory import pools
from minigrad.devices.usage import unused_bytes
from minigrad.nn import functional as F

pytestmark = [emulated, pytest.mark.usefixtures("gpu")]


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


def test_memory_in_use(gpu):
    """Of tensors, not of buffers that wait for their next owner."""
    mg.cuda.empty_cache()
    before = mg.cuda.memory_allocated()
    x = mg.tensor(np.zeros(1 << 18, np.float32), device="cuda")
    view, nbytes = x[::2], 1 << 20
    assert mg.cuda.memory_allocated() - before == nbytes == mg.cuda.memory_allocated(gpu) - before
    del x
    assert mg.cuda.memory_allocated("cuda:0") - before >= nbytes
    del view
    assert mg.cuda.memory_allocated() - before < nbytes and mg.cuda.memory_reserved() >= before + nbytes
    mg.tensor(np.zeros(1 << 18, np.float32), device="cuda")         # in the same buffer
    assert mg.cuda.memory_allocated() - before < nbytes
    mg.cuda.empty_cache()
    assert unused_bytes(pools, gpu) == 0 and mg.cuda.memory_allocated() - before < nbytes


def test_waiting(gpu, monkeypatch):
    waits = []
    monkeypatch.setattr(gpu, "synchronize", lambda: waits.append(1))
    mg.cuda.synchronize()
    mg.cuda.synchronize(0)
    mg.cuda.synchronize("cuda")
    mg.cuda.synchronize(gpu)
    assert len(waits) == 4


@pytest.mark.parametrize("ask", [mg.cuda.synchronize, mg.cuda.memory_allocated, mg.cuda.memory_reserved])
def test_the_cpu_is_no_gpu(ask):
    with pytest.raises(ValueError, match=rf"\[cuda.{ask.__name__}\] expected a GPU; got device\(type='cpu'\); use 'cuda' or 'cuda:N'"):
        ask("cpu")


def test_the_first_gpu_is_the_current_one(gpu):
    assert mg.cuda.current_device() == 0
    mg.cuda.set_device(0)
    mg.cuda.set_device("cuda:0")
    other = type(gpu).__new__(type(gpu))
    other.index = 1
    with pytest.raises(NotImplementedError, match=r'\[cuda.set_device\] "cuda" is always the first GPU; got 1; use the device "cuda:1"'):
        mg.cuda.set_device(other)
    with pytest.raises(ValueError, match="expected a GPU"):
        mg.cuda.set_device("cpu")


def test_what_the_driver_tells(gpu):
    assert mg.cuda.get_device_name() == mg.cuda.get_device_name(0) != ""
    major, minor = mg.cuda.get_device_capability()
    assert major >= 5 and minor >= 0 and mg.cuda.is_bf16_supported()
    free, total = mg.cuda.mem_get_info()
    assert 0 < free <= total


def test_seeds_of_gpus(gpu):
    mg.manual_seed(0)
    on_cpu = mg.rand(2)
    draws = []
    for seed in (lambda: mg.cuda.manual_seed(5), lambda: mg.cuda.manual_seed_all(5), lambda: mg.manual_seed(5)):
        seed()
        draws.append(mg.rand(3, device="cuda").tolist())
    assert draws[0] == draws[1] == draws[2]
    mg.manual_seed(0)
    mg.cuda.manual_seed_all(7)
    assert mg.equal(mg.rand(2), on_cpu)                             # the CPU's generator goes on as it was


@pytest.mark.parametrize("n", [1 << 38, 1 << 44], ids=["beyond the GPU", "beyond all memory"])
def test_out_of_memory(n):
    """The error has the sizes, and the process goes on."""
    x = mg.ones(1000, device="cuda")
    say = rf"\[memory\] cuda:0 has no room for {4 * n} bytes \(float32\[{n}\]\); tensors hold \d{{4,}} bytes on all devices"
    with pytest.raises(MemoryError, match=say):
        mg.empty(n, device="cuda")
    assert (x + x).sum().item() == 2000


def test_dtypes_that_a_gpu_has_not_are_refused():
    x = mg.ones(3, device="cuda")
    for make, say in ((lambda: x.to(np.longdouble), r"\[cuda:0\] a GPU has no numbers of 16 bytes; got float128\[3\].*double"),
                      (lambda: mg.tensor(np.ones(3, np.complex64), device="cuda"), "complex numbers are not supported"),
                      (lambda: mg.tensor(np.array(["a"]), device="cuda"), r"\[tensor\] data must be numbers; got <U1")):
        with pytest.raises(TypeError, match=say):
            make()
    with pytest.raises(RuntimeError, match=r"\[softmax\] x must be floating point; got int64\[3\]"):
        F.softmax(x.long(), 0)
    assert x.sum().item() == 3


@pytest.mark.skipif(REAL, reason="the stand-in plays machines without a GPU")
@pytest.mark.parametrize("driver,count,say", [
    (0, 0, "no NVIDIA driver"), (12040, 1, r"supports CUDA 12.4.*cuda12"), (13000, 0, "no GPU is visible")])
def test_why_there_is_no_gpu(monkeypatch, driver, count, say):
    monkeypatch.setattr(fakecupy.cuda.runtime, "driverGetVersion", lambda: driver)
    monkeypatch.setattr(fakecupy.cuda, "is_available", lambda: count > 0)
    with pytest.raises(RuntimeError, match=say):
        cuda.CUDA(0)
    assert mg.cuda.device_count() == mg.cuda.memory_allocated() == mg.cuda.memory_reserved() == 0
    mg.cuda.manual_seed(0)
    mg.cuda.manual_seed_all(0)
    assert not mg.cuda.is_bf16_supported()


@pytest.mark.skipif(REAL, reason="CuPy is installed")
def test_cupy_is_optional(monkeypatch):
    monkeypatch.setattr(cuda, "cp", None)
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RuntimeError, match=r"CuPy is not installed.*cupy-cuda13x"):
        cuda.CUDA(0)


TWO = {     # an op of each kind, on tensors of two devices
    "add": lambda g, c: g + c, "linear": lambda g, c: F.linear(c, g), "cat": lambda g, c: mg.cat([g, c]),
    "where": lambda g, c: mg.where(c > 0, g, g), "layer_norm": lambda g, c: F.layer_norm(g, (3,), c[0], c[0]),
    "cross_entropy": lambda g, c: F.cross_entropy(g, c[0].long()), "take": lambda g, c: F.embedding(c.long(), g),
    "gather": lambda g, c: g.gather(0, c.long()), "scatter": lambda g, c: g.scatter(0, g.long(), c),
    "lstm_sequence": lambda g, c: nn.LSTM(3, 2)(g), "convolution": lambda g, c: F.conv2d(g.reshape(1, 1, 3, 3), c.reshape(1, 1, 3, 3)),
    "max_pool": lambda g, c: F.max_pool1d(g, 2) + c[:, :1]}


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("name", TWO)
def test_tensors_of_two_devices_are_refused(name, captured):
    op = mg.capture(TWO[name]) if captured else TWO[name]
    with pytest.raises(RuntimeError, match=r"\[\w+\] all tensors must be on one device; got .*cuda:0.*; move them with .to\(device\)"):
        op(mg.ones(3, 3, device="cuda"), mg.ones(3, 3))
    assert mg.ones(3, device="cuda").sum().item() == 3


def test_ops_are_timed_on_the_gpu(gpu, monkeypatch, capsys):
    """`python -m minigrad.bench --device cuda`: a block of calls ends when the GPU is done."""
    from minigrad.bench import command
    waits, wait = [], gpu.synchronize
    monkeypatch.setattr(gpu, "synchronize", lambda: waits.append(1) or wait())
    monkeypatch.setattr(mg, "set_num_threads", lambda n: None)
    monkeypatch.setattr(sys, "argv", ["bench", "relu", "--device", "cuda", "--blocks", "1"])
    command.main()
    assert "relu" in capsys.readouterr().out and len(waits) > 20
    for arguments, say in ((["--device", "cuda"], "name an op"), (["relu", "--device", "tpu"], "unknown device 'tpu'")):
        monkeypatch.setattr(sys, "argv", ["bench", *arguments])
        with pytest.raises(SystemExit):
            command.main()
        assert say in capsys.readouterr().err
