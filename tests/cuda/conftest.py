"""The device "cuda": in the emulator, with a stand-in for CuPy and one for cuBLAS, or with MINIGRAD_TEST_CUDA=real on a GPU."""
from __future__ import annotations

import pytest
from cuda_on_cpu import fakeblas, fakecupy
from cuda_on_cpu.twins import REAL

import minigrad as mg
from minigrad import devices
from minigrad.devices import blas, cuda
from minigrad.ops import random


@pytest.fixture(scope="module")
def gpu():
    """The device "cuda": the array module and the BLAS come from one place each. Afterwards the process has no GPU again."""
    if REAL:
        yield mg.device("cuda")
        return
    cuda.cp, blas.library, blas.light = fakecupy, fakeblas, fakeblas
    opened = mg.device("cuda")
    yield opened
    random._defaults.pop(opened, None)
    for name in [n for n, d in devices._devices.items() if d is opened]:
        del devices._devices[name]
    blas._handles.clear()
    cuda.cp = blas.library = blas.light = None


@pytest.fixture(params=["0", "1", "2:7"], ids=["ascending", "descending", "shuffled"])
def order(request, monkeypatch):
    """A correct kernel gives the same bits whatever order threads and blocks run in."""
    monkeypatch.setenv("CUDA_ON_CPU_ORDER", request.param)
