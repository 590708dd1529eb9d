"""The device "cuda": in the emulator, with a stand-in for CuPy and one for cuBLAS, or with MINIGRAD_TEST_CUDA=real on a GPU."""
from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from cuda_on_cpu import fakeblas, fakecupy
from cuda_on_cpu.twins import REAL

import minigrad as mg
from minigrad import devices
from minigrad.devices import blas, cuda
from minigrad.ops import random as generators


def pytest_collection_modifyitems(config, items):
    """With CUDA_SAMPLE=SEED:COUNT, a random test of each of COUNT random files: race mode and the address sanitizer are slow."""
    seed, _, count = os.environ.get("CUDA_SAMPLE", "").rpartition(":")
    if not count:
        return
    draw, of_file = random.Random(seed), {}
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.stem in SHARED:
            of_file.setdefault(item.path.stem, []).append(item)
    kept = [draw.choice(of_file[name]) for name in draw.sample(sorted(of_file), min(int(count), len(of_file)))]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


# tests of kernels whose threads share memory
SHARED = [f"test_{name}" for name in "attention conv half index loss norm optim reduce rnn softmax sort".split()]


@pytest.fixture(scope="module")
def gpu():
    """The device "cuda": the array module and the BLAS come from one place each. Afterwards the process has no GPU again."""
    if REAL:
        yield mg.device("cuda")
        return
    cuda.cp, blas.library, blas.light = fakecupy, fakeblas, fakeblas
    opened = mg.device("cuda")
    yield opened
    generators._defaults.pop(opened, None)
    for name in [n for n, d in devices._devices.items() if d is opened]:
        del devices._devices[name]
    blas._handles.clear()
    cuda.cp = blas.library = blas.light = None


@pytest.fixture(params=["0", "1", "2:7"], ids=["ascending", "descending", "shuffled"])
def order(request, monkeypatch):
    """A correct kernel gives the same bits whatever order threads and blocks run in."""
    monkeypatch.setenv("CUDA_ON_CPU_ORDER", request.param)
