"""The same launch of a kernel on the CPU and on the device "cuda", compared.

Without a GPU the kernels run in the emulator. With MINIGRAD_TEST_CUDA=real they run on a GPU; CUDA_ON_CPU=race looks for data races.
"""
from __future__ import annotations

import os
import shutil
import sys

import numpy as np
import pytest

import minigrad as mg
import minigrad.optim  # noqa: F401  its import adds optim.cu to KERNELS
from minigrad.devices.base import split
from minigrad.devices.launch import KERNELS
from minigrad.devices.native import signatures

REAL = os.environ.get("MINIGRAD_TEST_CUDA") == "real"
RACE = os.environ.get("CUDA_ON_CPU") == "race"
DTYPES = {"f32": np.float32, "f64": np.float64, "i32": np.int32, "i64": np.int64, "u8": np.uint8, "u16": np.uint16}
rng = np.random.default_rng(0)
emulated = pytest.mark.skipif(not REAL and (sys.platform != "linux" or not shutil.which(os.environ.get("CXX", "g++"))),
                              reason="the CUDA emulator needs g++ on Linux")


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


def reduce_plan(keep, reduce, keep_strides, reduce_strides):
    return Plan(len(keep), len(reduce), *keep, *reduce, *keep_strides, *reduce_strides)


FILES = sorted({e.file for e in KERNELS.values()})


def suffixes_of(file):
    names = [split(full) for full in signatures()]
    halves = ["f16", "bf16"] if any(e.half for e in KERNELS.values() if e.file == file) else []
    wide = ["f16w", "bf16w"] if any(e.wide for e in KERNELS.values() if e.file == file) else []
    return sorted({suffix for name, suffix in names if name in KERNELS and KERNELS[name].file == file}) + halves + wide
