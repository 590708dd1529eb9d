"""Matrix products beyond their samples: a value depends on its row and its column only, whatever path computes it."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_row_has_the_same_bits_among_any_other_rows(dtype):
    """Few rows, many rows and a transposed first operand take different paths; the second is a transposed weight."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        m, n, k = int(rng.integers(1, 12)), int(rng.integers(2, 80)), int(rng.integers(1, 600))
        rows, weight = rng.standard_normal((30, k)).astype(dtype), rng.standard_normal((n, k)).astype(dtype)
        w = mg.tensor(weight).T
        many, few = (mg.tensor(rows) @ w).numpy(), (mg.tensor(rows[:m].copy()) @ w).numpy()
        across = (mg.tensor(np.ascontiguousarray(rows[:m].T)).T @ w).numpy()
        np.testing.assert_array_equal(few, many[:m], err_msg=f"{m} rows of {k} elements, {n} columns")
        np.testing.assert_array_equal(across, many[:m], err_msg=f"transposed: {m} rows of {k} elements, {n} columns")
        error = np.abs(few - rows[:m].astype(np.float64) @ weight.astype(np.float64).T).max()
        assert error < 10 * np.finfo(dtype).eps * k
