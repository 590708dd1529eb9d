"""Reductions and scans against their C twins."""
from __future__ import annotations

from math import prod
from types import SimpleNamespace

import numpy as np
import pytest
from cuda_on_cpu.twins import DTYPES, RACE, compare, emulated, reduce_plan, values

from minigrad.devices.base import split
from minigrad.devices.launch import KERNELS
from minigrad.devices.native import signatures

pytestmark = [emulated, pytest.mark.usefixtures("gpu")]
REDUCTIONS = {
    "rows": (reduce_plan((5,), (33,), (33,), (1,)), 5, 165),
    "long rows": (reduce_plan((3,), (1500,), (1500,), (1,)), 3, 4500),
    "columns": (reduce_plan((33,), (70,), (1,), (33,)), 33, 2310),
    "short": (reduce_plan((40,), (3,), (3,), (1,)), 40, 120),
    "all": (reduce_plan((), (1037,), (), (1,)), 1, 1037),
    "one": (reduce_plan((7,), (), (1,), ()), 7, 7),
    "middle of three": (reduce_plan((4, 5), (6,), (30, 1), (5,)), 20, 120),
    "two of three": (reduce_plan((5,), (4, 6), (6,), (30, 1)), 5, 120),
    "broadcast": (reduce_plan((5,), (6,), (1,), (0,)), 5, 5),
    "segments": (reduce_plan((2,), (40000,), (40000,), (1,)), 2, 80000),
    "column segments": (reduce_plan((40,), (1100,), (1,), (40,)), 40, 44000),
    "no outputs": (reduce_plan((0,), (4,), (4,), (1,)), 0, 1),
}


@pytest.mark.parametrize("full", [k for k in signatures() if split(k)[0] in
                                  ("sum", "mean", "norm", "prod", "max", "min", "argmax", "argmin", "count_nonzero", "any", "all", "moments")])
def test_reductions(full, order):
    name, suffix = split(full)
    if RACE and suffix != "f32":
        pytest.skip("one type is enough for races")
    to = np.int64 if name in ("argmax", "argmin", "count_nonzero") else np.uint8 if name in ("any", "all") else DTYPES[suffix]
    for case, (plan, outputs, size) in REDUCTIONS.items():
        if "segments" in case and suffix != "f32":
            continue
        x = values(DTYPES[suffix], size, 0.9, 1.1) if name == "prod" else values(DTYPES[suffix], size)
        if name == "moments":
            x += 1000
        outs = [np.zeros(outputs, to)] * (2 if name == "moments" else 1)
        for more in [(2.0, 0), (2.0, 1)] if name == "moments" else [()]:
            compare(full, *outs, x, plan, *more, ulps={"prod": 512, "moments": 256}.get(name, 64))
    if suffix in ("f32", "f64") and name != "moments":
        x = values(DTYPES[suffix], 70)
        x[[5, 40]] = np.nan, np.inf
        compare(full, np.zeros(1, to), x, reduce_plan((), (70,), (), (1,)), ulps=64)


@pytest.mark.parametrize("suffix", ["f32", "f64", "i64"])
def test_scans(suffix, order):
    for outer, n, inner in ((3, 70, 1), (2, 9, 5), (1, 1, 1), (2, 0, 3)):
        x = values(DTYPES[suffix], (outer, n, inner), 0.5, 1.5)
        for name in ("cumsum", "cumprod"):
            compare(f"{name}_{suffix}", np.zeros_like(x), x, outer, n, inner, ulps=256)


def test_reductions_occupy_the_gpu():
    """The sum over 16,384 rows of a bias's gradient ran 24 blocks."""
    def grids(keep, reduce, stride):
        host = {0: np.array([1, 1, keep, reduce, 1 if stride != 1 else reduce, stride])}
        return [(prod(one.grid), prod(one.block)) for one in KERNELS["sum"].rule(SimpleNamespace(plan=0), host)]
    assert grids(768, 16384, 768) == [(24 * 21, 512), (192, 128)]
    assert grids(768, 512, 768) == [(24, 512)]                      # too little work for a second launch
    assert grids(1, 1 << 20, 1) == [(128, 256), (1, 128)]
    assert grids(1, 1 << 30, 1) == [(528, 256), (1, 128)]
    assert grids(4096, 1 << 20, 1) == [(4096 * 1, 256)]
