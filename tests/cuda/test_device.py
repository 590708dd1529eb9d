"""The device: memory, copies, why there is none."""
from __future__ import annotations

import sys

import numpy as np
import pytest
from cuda_on_cpu import fakecupy
from cuda_on_cpu.twins import REAL, emulated, rng

import minigrad as mg
from minigrad.devices import cuda

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
