"""Matrix products beyond their samples: a value depends on its row and its column only, whatever path computes it."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from minigrad.devices.native import LEVELS, best_simd_level


def among_nan(values):
    """A tensor of these values, a view of a larger one that is NaN elsewhere."""
    outer = np.full([n + 3 for n in values.shape], np.nan, values.dtype)
    outer[1:-2, 2:-1] = values
    return mg.tensor(outer)[1:-2, 2:-1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_row_has_the_same_bits_among_any_other_rows(dtype, level):
    """Few rows, many rows and a transposed first operand take different paths; the second is a transposed weight. What
    lies around the operands in memory does not count."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        m, n, k = int(rng.integers(1, 12)), int(rng.integers(2, 80)), int(rng.choice([rng.integers(1, 40), rng.integers(1, 600)]))
        rows, weight = rng.standard_normal((30, k)).astype(dtype), rng.standard_normal((n, k)).astype(dtype)
        w = mg.tensor(weight).T
        many, few = (mg.tensor(rows) @ w).numpy(), (mg.tensor(rows[:m].copy()) @ w).numpy()
        across = (mg.tensor(np.ascontiguousarray(rows[:m].T)).T @ w).numpy()
        inside = (among_nan(rows[:m]) @ among_nan(weight).T).numpy()
        for which, found in (("few", few), ("transposed", across), ("inside", inside)):
            np.testing.assert_array_equal(found, many[:m], err_msg=f"{which}: {m} rows of {k} elements, {n} columns")
        error = np.abs(few - rows[:m].astype(np.float64) @ weight.astype(np.float64).T).max()
        assert error < 10 * np.finfo(dtype).eps * k


@pytest.mark.parametrize("level", [pytest.param("baseline", marks=pytest.mark.slow), *LEVELS[1:LEVELS.index(best_simd_level()) + 1]], indirect=True)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_that_are_columns_of_the_product_have_the_same_bits(dtype, level):
    """Up to 128 rows and a large transposed weight: the operands change places. Part of the last vector of rows, of the last tile of
    columns, of the last block along k, and several blocks at once; with a bias; rows among few and among many, and two threads."""
    rng = np.random.default_rng(3)
    linear, before = mg.nn.functional.linear, mg.get_num_threads()
    for m, n, k in ((15, 128, 64), (31, 257, 130), (32, 150, 1100), (64, 128, 2100), (128, 1000, 523)):
        rows, weight, bias = (rng.standard_normal(s).astype(dtype) for s in ((140, k), (n, k), n))
        x, w, b = mg.tensor(rows[:m].copy()), mg.tensor(weight), mg.tensor(bias)
        want = linear(mg.tensor(rows), w, b).numpy()[:m]
        np.testing.assert_array_equal(linear(x, w, b).numpy(), want, err_msg=f"{m} x {n} x {k}")
        np.testing.assert_array_equal(linear(x[:3], w, b).numpy(), want[:3])
        np.testing.assert_array_equal(linear(mg.tensor(rows[:m].T.copy()).T, w, b).numpy(), want)
        np.testing.assert_array_equal((among_nan(rows[:m]) @ among_nan(weight).T).numpy(), (mg.tensor(rows) @ w.T).numpy()[:m])
        mg.set_num_threads(2)
        threads = linear(x, w, b).numpy()
        mg.set_num_threads(before)
        np.testing.assert_array_equal(threads, want)
        np.testing.assert_allclose(want, rows[:m].astype(np.float64) @ weight.astype(np.float64).T + bias, atol=10 * np.finfo(dtype).eps * k)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_product_with_one_column_depends_on_its_row_only(dtype, level):
    """Rows of at most two vectors are computed as one row of columns, longer ones as dot products."""
    rng = np.random.default_rng(1)
    for k in (*range(1, 70), 100, 300):
        m = int(rng.integers(1, 90))
        rows, column = rng.standard_normal((m + 1, k)).astype(dtype), rng.standard_normal((k, 1)).astype(dtype)
        many = (mg.tensor(rows) @ mg.tensor(column)).numpy()
        inside = (among_nan(rows[:m]) @ among_nan(column)).numpy()
        alone = (mg.tensor(rows[m:].copy()) @ mg.tensor(column)).numpy()
        np.testing.assert_array_equal(inside, many[:m], err_msg=f"{m} rows of {k} elements")
        np.testing.assert_array_equal(alone, many[m:], err_msg=f"a row of {k} elements")
        np.testing.assert_allclose(many, rows.astype(np.float64) @ column.astype(np.float64), atol=10 * np.finfo(dtype).eps * k)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_outer_product_is_exact(dtype, level):
    """k == 1, with rows that are and are not so long that they are written one by one; with and without a bias."""
    rng = np.random.default_rng(2)
    for m, n in ((1, 300), (3, 257), (5, 300), (17, 1024), (2, 40), (130, 511)):
        a, b, bias = (rng.standard_normal(s).astype(dtype) for s in ((m, 1), (n, 1), n))
        for x, y in ((mg.tensor(a), mg.tensor(b).T), (among_nan(a), among_nan(b).T), (mg.tensor(a.T.copy()).T, mg.tensor(b.T.copy()))):
            np.testing.assert_array_equal((x @ y).numpy(), a * b.T)
        found = mg.nn.functional.linear(mg.tensor(a), mg.tensor(b), mg.tensor(bias)).numpy()
        np.testing.assert_array_equal(found, a * b.T + bias)


def test_einsum_sums_integers_as_int64():
    x = mg.tensor([[200, 100], [3, 4]], dtype="uint8")
    assert mg.einsum("ij->", x).item() == 307 and mg.einsum("ij->i", x).tolist() == [300, 7] and mg.einsum("ij,k->k", x, x[0] * 0 + 1).tolist() == [307, 307]
    assert mg.einsum("ii->i", x).dtype == x.dtype and mg.einsum("i->", x[0] > 0).item() == 2
