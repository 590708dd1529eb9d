"""Matrix products of cuBLAS against the C kernel."""
from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu import fakeblas
from cuda_on_cpu.twins import DTYPES, REAL, Plan, compare, emulated, values

pytestmark = [emulated, pytest.mark.slow, pytest.mark.usefixtures("gpu")]


@pytest.mark.parametrize("suffix", ["f32", "f64"])
def test_gemm(suffix):
    t = DTYPES[suffix]
    for m, n, k in ((3, 4, 5), (1, 7, 33), (31, 1, 4), (1, 1, 1), (5, 6, 0), (0, 3, 4)):
        a, b, c, bias = values(t, max(m * k, 1) * 2), values(t, max(n * k, 1) * 2), values(t, max(m * n, 1) + 40), values(t, n)
        for ars, acs in ((k, 1), (1, m), (2 * k, 2)):
            for brs, bcs in ((n, 1), (1, k), (2 * n, 2)):
                for given, accumulate in ((bias, 0), (None, 1)):
                    compare(f"gemm_{suffix}", c, a, b, given, None, 1, m, n, k, ars, acs, brs, bcs, n, accumulate, ulps=64)
        if m > 1:
            compare(f"gemm_{suffix}", values(t, m * (n + 3)), a, b, bias, None, 1, m, n, k, k, 1, n, 1, n + 3, 0, ulps=64)


def test_gemm_batches():
    m, n, k, t = 3, 4, 5, np.float32
    a, b = values(t, (6, m, k)), values(t, (6, k, n))
    steps = {"even": [(i * 12, i * 15, i * 20) for i in range(6)], "one a for all": [(i * 12, 0, i * 20) for i in range(6)],
             "reversed": [(i * 12, (5 - i) * 15, i * 20) for i in range(6)],
             "two by three": [(i * 12, i // 3 * 15, i % 3 * 20) for i in range(6)]}
    for name, offsets in steps.items():
        fakeblas.calls.clear()
        places = Plan(*[o for row in offsets for o in row])
        compare("gemm_f32", values(t, 72), a, b, values(t, n), places, 6, m, n, k, k, 1, n, 1, n, 0, ulps=64)
        if not REAL:
            assert fakeblas.calls == (["strided batch"] if name in ("even", "one a for all") else ["one"] * 6)
        compare("gemm_f32", values(t, 72), np.repeat(a, 2), b, None, Plan(*[o for c, x, y in offsets for o in (c, 2 * x, y)]),
                6, m, n, k, 2 * k, 2, n, 1, n, 1, ulps=64)
