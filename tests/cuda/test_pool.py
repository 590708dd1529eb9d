"""Pooling against its C twins."""
from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu.twins import DTYPES, Plan, compare, emulated, launch, rng, values

import minigrad as mg
from minigrad.ops.pool import Axis, adaptive, sliding

pytestmark = [emulated, pytest.mark.usefixtures("gpu")]


def windows():
    """Planes, and the windows of their dimensions."""
    ones = (1, 1, 1)
    yield 3, sliding((8, 6), (2, 2), (2, 2), (0, 0), (1, 1), False)
    yield 2, sliding((9, 33), (3, 3), (2, 1), (1, 1), (1, 1), False)
    yield 2, sliding((7, 10), (3, 2), (2, 3), (1, 1), (2, 1), True)
    yield 1, sliding((4, 5, 6), (2, 3, 2), (1, 2, 1), (1, 1, 0), (2, 1, 1), False)
    yield 1, sliding((4, 5, 6), (2, 3, 2), (1, 2, 1), (1, 1, 0), ones, False)
    yield 2, sliding((1, 5), (2, 2), (1, 1), (2, 0), (3, 1), False)          # windows without elements
    yield 2, sliding((31,), (4,), (3,), (2,), (5,), False)
    yield 300, sliding((3,), (2,), (1,), (1,), (1,), False)
    yield 5, sliding((100,), (40,), (7,), (20,), (1,), True)                # a warp for each output
    yield 2, sliding((1300,), (1200,), (50,), (3,), (1,), False)            # a block for each output
    yield 1, sliding((1, 2), (1, 2), (1, 1), (0, 1), ones[:2], False)
    yield 2, adaptive((7, 10), (3, 4))
    yield 3, adaptive((33,), (40,))
    yield 2, adaptive((4, 90), (3, 1))


def table(planes, axes, include_pad=0, divisor=0):
    axes = [Axis(1, 1, 1)] * (3 - len(axes)) + list(axes)
    return Plan(planes, include_pad, divisor, *[v for field in zip(*axes, strict=True) for v in field])


def shapes(planes, axes):
    return (planes, *[axis.size for axis in axes]), (planes, *[axis.out for axis in axes])


@pytest.mark.parametrize("suffix", ["f32", "f64"])
def test_maxima(suffix, order):
    t = DTYPES[suffix]
    for planes, axes in windows():
        size, out = shapes(planes, axes)
        y, index, geometry = np.zeros(out, t), np.zeros(out, np.int64), table(planes, axes)
        some = rng.choice(np.array([np.nan, -np.inf, np.inf, 1, 2], t), size, p=[0.1, 0.3, 0.1, 0.3, 0.2])
        for x in (values(t, size), np.trunc(values(t, size)), some, np.full(size, -np.inf, t)):     # ties, NaN
            compare(f"max_pool_forward_{suffix}", y, index, x, geometry, ulps=0)
        index = launch(mg.device("cpu"), f"max_pool_forward_{suffix}", [y, index, some, geometry])[1]
        compare(f"max_pool_backward_{suffix}", np.zeros(size, t), values(t, out), index, geometry)


@pytest.mark.parametrize("suffix", ["f32", "f64"])
def test_means(suffix, order):
    t = DTYPES[suffix]
    for planes, axes in windows():
        if any(axis.dilation > 1 for axis in axes):
            continue
        size, out = shapes(planes, axes)
        for include_pad, divisor in ((0, 0), (1, 0), (0, -3)):
            geometry = table(planes, axes, include_pad, divisor)
            compare(f"avg_pool_forward_{suffix}", np.zeros(out, t), values(t, size), geometry)
            compare(f"avg_pool_backward_{suffix}", np.zeros(size, t), values(t, out), geometry, ulps=32)
