"""Gather, scatter and their checks against their C twins."""
from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu.twins import DTYPES, compare, emulated, rng, values

from minigrad.devices import cuda
from minigrad.devices.base import MOVE_SUFFIX

pytestmark = [emulated, pytest.mark.slow, pytest.mark.usefixtures("gpu")]


@pytest.mark.parametrize("suffix", ["u8", "u16", "i32", "i64", "f32", "f64"])
def test_indexing(suffix, order):
    t = DTYPES[suffix]
    for outer, m, n, inner in ((1, 5, 7, 3), (3, 4, 2, 1), (2, 0, 3, 2), (2, 33, 5, 4)):
        x, src = values(t, (outer, n, inner)), values(t, (outer, m, inner))
        line, full = rng.integers(0, n, m), rng.integers(0, n, (outer, m, inner))
        if suffix in MOVE_SUFFIX.values():
            compare(f"take_{suffix}", src * 0, x, line, outer, m, n, inner)
            compare(f"gather_{suffix}", src * 0, x, full, outer, m, n, inner)
            compare(f"scatter_{suffix}", x, full, src, outer, m, n, inner)
        if suffix not in ("u8", "u16"):
            compare(f"index_add_{suffix}", x, line, src, outer, m, n, inner)
            compare(f"scatter_add_{suffix}", x, full, src, outer, m, n, inner)
    index = rng.integers(-5, 5, 1000)
    for wrong, ignore in ((None, -5), (700, -5), (700, 99), (700, -100)):
        if wrong:
            index[wrong] = 99
        for out in (index * 0, None):
            for told in (0, 3):
                compare("check_index", out, np.array([told, told]), index, 1000, -5, 5, ignore, 7)
        compare("check_index", index * 0, None, index, 1000, -5, 5, ignore, 7)
        compare("check_index", index * 0, None, index, 1000, 0, 5, ignore, 7)       # many are wrong


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
