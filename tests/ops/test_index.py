"""Indexing beyond its samples: indices out of range, parts that overlap."""
from __future__ import annotations

import pytest

import minigrad as mg


@pytest.mark.parametrize("index", [-1 << 63, (1 << 63) - 1, -5, 4])
@pytest.mark.parametrize("shape", [(4,), (0,), (4, 0)])
def test_no_index_is_out_of_range(shape, index):
    """Not even the smallest int64, which once meant "nothing to ignore"."""
    with pytest.raises(IndexError, match="out of range"):
        mg.zeros(*shape)[mg.tensor([index])]


@pytest.mark.parametrize("n", [20, 1000, 300_000])
def test_overlapping_in_place(n):
    a = mg.arange(float(n))
    a[1:] += a[:-1]
    assert a.tolist() == [0.0, *(2.0 * i - 1 for i in range(1, n))]
    a = mg.arange(float(n))
    a[1:] = a[:-1]
    assert a.tolist() == [0.0, *map(float, range(n - 1))]
