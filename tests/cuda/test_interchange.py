"""Arrays of other libraries on a GPU: shared, not copied, and in order with their streams. The default device."""
from __future__ import annotations

import gc

import numpy as np
import pytest
from cuda_on_cpu import fakecupy
from cuda_on_cpu.twins import REAL, emulated
from support import run_python

import minigrad as mg
from minigrad.devices import cuda

pytestmark = [emulated, pytest.mark.usefixtures("gpu")]


class ByInterface:
    """An array of a library that has CUDA's array interface alone."""

    def __init__(self, array):
        self.array = array

    @property
    def __cuda_array_interface__(self):
        return self.array.__cuda_array_interface__


class ByDLPack:
    """One of a library that has DLPack alone."""

    def __init__(self, array):
        self.array, self.streams = array, []

    def __dlpack__(self, *, stream=None, **options):
        self.streams.append(stream)
        return self.array.__dlpack__(stream=stream, **options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def array(values, dtype=np.float32):
    return cuda.cp.asarray(np.asarray(values, dtype))


@pytest.mark.parametrize("kind", [lambda a: a, ByInterface, ByDLPack], ids=["CuPy", "interface", "DLPack"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8, np.float16])
def test_memory_is_shared(kind, dtype):
    x = array(np.arange(6).reshape(2, 3), dtype)
    given = kind(x)
    for t in [mg.as_tensor(given), mg.asarray(given, copy=False), *([mg.from_dlpack(given)] if hasattr(given, "__dlpack__") else [])]:
        assert t.device == "cuda" and t.dtype == dtype and t.data_ptr() == x.data.ptr
        np.testing.assert_array_equal(t.cpu().numpy(), x.get())
    t += 1
    mg.cuda.synchronize()
    np.testing.assert_array_equal(x.get(), np.arange(1, 7).reshape(2, 3))
    copied = mg.tensor(given)
    assert copied.data_ptr() != x.data.ptr and copied.tolist() == x.get().tolist()
    assert mg.as_tensor(given, device="cpu").tolist() == x.get().tolist() and mg.as_tensor(given, dtype=mg.float32).dtype == mg.float32


def test_strides_and_views():
    x = array(np.arange(12).reshape(3, 4))
    t = mg.as_tensor(x.transpose(1, 0)[1:3])
    assert t.stride() == (1, 4) and t.shape == (2, 3)
    np.testing.assert_array_equal((t + 0).cpu().numpy(), np.arange(12).reshape(3, 4).T[1:3])


def test_bools_with_other_bytes_are_copied():
    x = array([0, 1, 1], np.uint8).view(np.bool_)
    assert mg.as_tensor(x).data_ptr() == x.data.ptr
    strange = array([0, 2, 1], np.uint8).view(np.bool_)
    t = mg.as_tensor(strange)
    assert t.data_ptr() != strange.data.ptr and (~t).tolist() == [True, False, False] and int(t.sum()) == 2


def test_no_numbers():
    with pytest.raises(TypeError, match="complex"):
        mg.as_tensor(array([1j], np.complex64))


@pytest.mark.skipif(REAL, reason="the stand-in says what waits for what")
def test_order_of_streams(gpu):
    """What the producer launched before is waited for, on CuPy's current stream and on that of a DLPack producer."""
    with fakecupy.asynchronous():
        x = array([1, 2, 3])
        with fakecupy.Stream(non_blocking=True):
            x.fill(5)
            t = mg.as_tensor(x) + 1
        assert t.tolist() == [6, 6, 6]
        given = ByDLPack(x)
        mg.from_dlpack(given)
        assert given.streams == [gpu.stream.ptr]


@pytest.mark.skipif(REAL, reason="the stand-in says when memory goes")
def test_memory_is_given_back_when_the_stream_is_done(gpu):
    with fakecupy.asynchronous():
        t = mg.as_tensor(array([1, 2, 3]))
        y = t + 1
        assert gpu.stream._waiting
        del t
        gc.collect()
        assert not gpu.stream._waiting
    assert y.tolist() == [2, 3, 4]


def test_arrays_as_values():
    t = mg.zeros(3, device="cuda")
    t[:] = array([1, 2, 3])
    assert t.tolist() == [1, 2, 3]
    assert (t + np.ones(3, np.float32)).tolist() == [2, 3, 4]
    assert (t @ np.ones((3, 1), np.float32)).tolist() == [6]
    cpu = mg.zeros(3)
    cpu[:] = array([1, 2, 3])
    assert cpu.tolist() == [1, 2, 3]


def test_default_device():
    assert mg.get_default_device() == "cpu"
    mg.set_default_device("cuda")
    try:
        made = [mg.zeros(2), mg.tensor([1.0]), mg.as_tensor(np.ones(2)), mg.arange(3), mg.randn(2), mg.eye(2), mg.tril_indices(2, 2),
                mg.nn.Linear(2, 2).weight, mg.Tensor([1, 2])]
        assert {t.device.name for t in made} == {"cuda:0"} and mg.get_default_device() == "cuda"
        assert mg.zeros(2, device="cpu").device == mg.from_numpy(np.ones(2)).device == "cpu"
        assert (mg.zeros(2, device="cpu") + np.ones(2)).device == "cpu"
        assert mg.nn.Linear(3, 2)(mg.randn(4, 3)).sum().device == "cuda"
    finally:
        mg.set_default_device(None)
    assert mg.zeros(2).device == "cpu"
    with pytest.raises(RuntimeError, match="unknown device 'tpu'"):
        mg.set_default_device("tpu")


def test_default_device_of_the_environment():
    def run(device):
        code = "import minigrad as mg; print(mg.get_default_device(), mg.zeros(1).device)"
        return run_python("-c", code, MINIGRAD_DEVICE=device)
    assert run("cpu").stdout == run("").stdout == "cpu cpu\n"
    assert "unknown device 'tpu'" in run("tpu").stderr
