"""Softmax and logsumexp against their C twins."""
from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu.twins import DTYPES, compare, emulated, values

pytestmark = [emulated, pytest.mark.usefixtures("gpu")]
LINES = [(3, 31, 1), (1, 1, 1), (4, 5, 3), (2, 1500, 1), (2, 0, 3), (40, 10, 1)]


@pytest.mark.parametrize("suffix", ["f32", "f64"])
def test_softmax(suffix, order):
    t = DTYPES[suffix]
    for sizes in LINES:
        x, gy = values(t, sizes), values(t, sizes)
        logs = x - np.log(np.exp(x).sum(1, keepdims=True, initial=1e-30))
        for name, y in (("softmax", np.exp(logs)), ("log_softmax", logs)):
            compare(f"{name}_forward_{suffix}", x * 0, x, *sizes, ulps=32)
            compare(f"{name}_backward_{suffix}", x * 0, gy, y, *sizes, ulps=32)
        if sizes[1]:
            compare(f"logsumexp_forward_{suffix}", np.zeros((sizes[0], sizes[2]), t), x, *sizes, ulps=32)
    x = np.array([[-np.inf, 1, 2], [-np.inf] * 3, [np.inf, 0, 1], [np.nan, 0, 1]], t)
    for name in ("softmax", "log_softmax", "logsumexp"):
        compare(f"{name}_forward_{suffix}", np.zeros(4 if name == "logsumexp" else (4, 3), t), x, 4, 3, 1)
