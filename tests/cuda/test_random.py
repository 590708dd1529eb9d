"""Random numbers: those of the CPU."""
from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu.twins import DTYPES, compare, emulated, values

pytestmark = [emulated, pytest.mark.usefixtures("gpu")]


@pytest.mark.parametrize("suffix", ["f32", "f64"])
def test_random_numbers_are_those_of_the_cpu(suffix, order):
    t = DTYPES[suffix]
    for n in (1, 2, 5, 31, 1000, 0):
        state = np.array([0x123456789ABCDEF, 2**64 - 3 - 2**64 if n == 5 else 7, 1, 0], np.int64)
        out, x, mask = np.zeros(n, t), values(t, n), np.zeros(n, np.uint8)
        compare(f"uniform_{suffix}", out, state, n, -1.0, 2.0, ulps=0)
        compare(f"normal_{suffix}", out, state, n, 0.5, 2.0, ulps=0)
        for p in (0.0, 0.3, 1.0):
            compare(f"dropout_forward_{suffix}", out, mask, x, state, n, p, ulps=0)
            compare(f"dropout_backward_{suffix}", out, x, (x > 0).astype(np.uint8), n, p, ulps=0)
            compare("bernoulli_mask_u8", mask, state, n, p)
        compare("random_bits_i64", np.zeros(n, np.int64), state, n)
