"""Samplers: what they draw, and PyTorch's beside them."""
from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from minigrad.data.dataset import TensorDataset
from minigrad.data.loader import DataLoader


def numbers(n):
    return TensorDataset(mg.arange(n), mg.tensor(np.arange(2 * n).reshape(n, 2), dtype=np.float32))


def check(n, g):
    """What PyTorch's samplers hold as well, with random numbers of the generator `g`."""
    d = numbers(6)
    assert list(n.SequentialSampler(d)) == list(range(6))
    order = n.RandomSampler(d, generator=g)
    assert sorted(order) == list(range(6)) and len({tuple(order) for _ in range(20)}) > 1 and len(order) == 6
    assert len(list(n.RandomSampler(d, num_samples=14, generator=g))) == 14
    assert set(list(n.RandomSampler(d, num_samples=14, generator=g))[:6]) == set(range(6))
    assert len(list(n.RandomSampler(d, replacement=True, num_samples=40, generator=g))) == 40
    assert sorted(n.SubsetRandomSampler([4, 2, 9], generator=g)) == [2, 4, 9]
    assert set(n.WeightedRandomSampler([0.0, 1.0, 3.0, 0.0], 50, generator=g)) == {1, 2}
    assert sorted(n.WeightedRandomSampler([0.0, 1.0, 3.0, 2.0], 3, replacement=False, generator=g)) == [1, 2, 3]
    assert list(n.BatchSampler(range(5), 2, False)) == [[0, 1], [2, 3], [4]] and len(n.BatchSampler(range(5), 2, True)) == 2
    for wrong in (lambda: n.BatchSampler(range(5), 0, False), lambda: n.WeightedRandomSampler([1.0], 0),
                  lambda: n.WeightedRandomSampler([[1.0]], 1), lambda: n.RandomSampler(d, num_samples=0)):
        with pytest.raises(ValueError):
            wrong()


def test_samplers():
    check(mg.data, mg.Generator().manual_seed(3))
    d = numbers(6)
    batches = DataLoader(d, batch_sampler=mg.data.BatchSampler(mg.data.SequentialSampler(d), 4, True))
    assert [batch[0].tolist() for batch in batches] == [[0, 1, 2, 3]]


def test_samplers_draw_as_they_go():
    big = mg.data.RandomSampler(range(10), replacement=True, num_samples=10**10)
    assert set(next(iter(big)) for _ in range(100)) <= set(range(10)) and len(big) == 10**10
    g = mg.Generator().manual_seed(1)
    for sampler in (mg.data.SubsetRandomSampler(range(9), generator=g), mg.data.RandomSampler(range(9), generator=g),
                    mg.data.WeightedRandomSampler([1.0] * 9, 9, generator=g)):
        before = g.get_state().tolist()
        it = iter(sampler)
        assert g.get_state().tolist() == before             # nothing is drawn until the first index is wanted
        next(it)
        assert g.get_state().tolist() != before


def test_pytorchs_samplers_hold_the_same(torch):
    check(torch.utils.data, torch.Generator().manual_seed(3))
