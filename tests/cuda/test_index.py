"""Gather, scatter and their checks against their C twins."""
from __future__ import annotations

from math import prod
from types import SimpleNamespace

import numpy as np
import pytest
from cuda_on_cpu.twins import DTYPES, compare, emulated, rng, values

from minigrad.devices import cuda
from minigrad.devices.base import MOVE_SUFFIX
from minigrad.devices.launch import KERNELS

pytestmark = [emulated, pytest.mark.usefixtures("gpu")]


@pytest.mark.parametrize("suffix", ["u8", "u16", "i32", "i64", "f32", "f64"])
def test_indexing(suffix, order):
    t = DTYPES[suffix]
    for outer, m, n, inner in ((1, 5, 7, 3), (3, 4, 2, 1), (2, 0, 3, 2), (2, 33, 5, 4), (1, 1100, 40, 1), (1, 300, 3, 70)):
        x, src = values(t, (outer, n, inner)), values(t, (outer, m, inner))
        line, full = rng.integers(0, n, m), rng.integers(0, n, (outer, m, inner))
        if suffix in MOVE_SUFFIX.values():
            compare(f"take_{suffix}", src * 0, x, line, outer, m, n, inner)
            compare(f"gather_{suffix}", src * 0, x, full, outer, m, n, inner)
            compare(f"scatter_{suffix}", x, full, src, outer, m, n, inner)
        if suffix not in ("u8", "u16"):
            compare(f"index_add_{suffix}", x, line, src, outer, m, n, inner, ulps=0)        # in order: the same sums
            compare(f"scatter_add_{suffix}", x, full, src, outer, m, n, inner, ulps=0)
            compare(f"index_add_{suffix}", x, line * 0 + n - 1, src, outer, m, n, inner, ulps=0)
    index = rng.integers(-5, 5, 1000)
    for wrong, ignore in ((None, -5), (700, -5), (700, 99), (700, -100)):
        if wrong:
            index[wrong] = 99
        for out in (index * 0, None):
            for told in (0, 3):
                compare("check_index", out, np.array([told, told]), index, 1000, -5, 5, ignore, 7)
        compare("check_index", index * 0, None, index, 1000, -5, 5, ignore, 7)
        compare("check_index", index * 0, None, index, 1000, 0, 5, ignore, 7)       # many are wrong


def test_writers_occupy_the_gpu():
    """An embedding's gradient of 16,384 tokens ran 3 blocks of a table's 768 columns, a column of its own one thread."""
    def blocks(name, **sizes):
        launched, = KERNELS[name].rule(SimpleNamespace(**sizes), {})
        return prod(launched.grid), prod(launched.block)
    assert blocks("index_add", outer=1, m=16384, n=50257, inner=768) == (1056, 256)
    assert blocks("index_add", outer=1, m=64, n=50257, inner=128) == (64, 256)          # as many as indices
    assert blocks("index_add", outer=1, m=10**6, n=1000, inner=1) == (134, 256)
    assert blocks("index_add", outer=1, m=5, n=3, inner=1) == (3, 32)
    assert blocks("scatter_add", outer=1, m=10**6, n=10**5, inner=1) == (64, 256)
    assert blocks("scatter", outer=64, m=32, n=1000, inner=1) == (1, 128)
    assert blocks("scatter", outer=1 << 20, m=8, n=1000, inner=1) == (4096, 256)


def test_large_indices_are_divided_without_the_compilers_routine():
    text = cuda.source("ops/index.cu").rsplit("#line", 1)[0] + """
extern "C" __global__ void divide(int64_t *q, const int64_t *i, const int64_t *n, int64_t count) {
  GRID_LOOP(k, count) q[k] = (int64_t)quotient((uint64_t)i[k], (uint64_t)n[k]);
}"""
    i = np.concatenate([rng.integers(0, 2**62, 500), rng.integers(0, 2**33, 500), [0, 1, 2**59, 2**59 - 1, 7, 2**40]])
    n = np.concatenate([rng.integers(1, 2**40, 500), rng.integers(1, 2**20, 500), [1, 1, 1, 2**59, 8, 2**40 - 1]])
    q, a, b = cuda.cp.empty(i.shape, np.int64), cuda.cp.asarray(i), cuda.cp.asarray(n)
    cuda.cp.RawModule(code=text, options=cuda.options("f32")).get_function("divide")((4,), (256,), (q, a, b, i.size))
    np.testing.assert_array_equal(q.get(), i // n)
