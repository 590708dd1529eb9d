"""Data sets: tensors, subsets, splits, concatenation, the digits."""
from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

import minigrad as mg
from minigrad.data.dataset import ConcatDataset, Dataset, Subset, TensorDataset, random_split
from minigrad.data.digits import digits
from minigrad.data.loader import DataLoader


def numbers(n):
    return TensorDataset(mg.arange(n), mg.tensor(np.arange(2 * n).reshape(n, 2), dtype=np.float32))


def seen(loader):
    return [batch[0].tolist() for batch in loader]


def test_tensor_dataset_and_subset():
    d = numbers(6)
    assert len(d) == 6 and [t.tolist() for t in d[2]] == [2, [4.0, 5.0]]
    assert [t.tolist() for t in d.take([3, 0])] == [[3, 0], [[6.0, 7.0], [0.0, 1.0]]]
    s = Subset(Subset(d, [5, 3, 1]), [2, 0])
    assert len(s) == 2 and s[0][0].item() == 1 and s.take([1, 0])[0].tolist() == [5, 1]
    with pytest.raises(AssertionError, match="Size mismatch"):
        TensorDataset(mg.arange(3), mg.arange(4))
    with pytest.raises(NotImplementedError):
        Dataset()[0]


def test_a_subclass_that_changes_samples_is_read_one_by_one():
    class Doubled(TensorDataset):
        def __getitem__(self, index):
            return tuple(2 * int(t[index]) if t.ndim == 1 else t[index] for t in self.tensors)

    assert seen(DataLoader(Doubled(mg.arange(4)), batch_size=2)) == [[0, 2], [4, 6]]
    assert seen(DataLoader(Subset(Doubled(mg.arange(4)), [3, 1]), batch_size=2)) == [[6, 2]]


@pytest.mark.parametrize("lengths", [[7, 3], [0.7, 0.3], [0.34, 0.33, 0.33]])
def test_random_split(lengths):
    mg.manual_seed(3)
    parts = random_split(numbers(10), lengths)
    assert [len(p) for p in parts] == ([7, 3] if len(lengths) == 2 else [4, 3, 3])
    assert sorted(i for p in parts for i in p.indices) == list(range(10))
    mg.manual_seed(3)
    assert [p.indices for p in random_split(numbers(10), lengths)] == [p.indices for p in parts]
    with pytest.raises(ValueError, match="Sum of input lengths"):
        random_split(numbers(10), [4, 4])
    with pytest.raises(ValueError, match="Fraction at index 0"):
        random_split(numbers(10), [-0.5, 1.5])
    with pytest.warns(UserWarning, match="is 0"):
        random_split(numbers(1), [0.5, 0.5])
    assert sum([0.05] * 20) > 1
    assert [len(p) for p in random_split(numbers(40), [0.05] * 20)] == [2] * 20


def test_digits():
    train, test = digits()
    assert len(train) + len(test) == 1797 and len(test) == 359
    x, y = train.tensors
    assert x.shape == (1438, 64) and x.dtype == np.float32 and 0 <= x.min().item() and x.max().item() == 1.0
    assert y.dtype == np.int64 and set(y.tolist()) == set(range(10))
    again = digits()[1].tensors
    assert np.array_equal(again[0].numpy(), test.tensors[0].numpy())
    assert not np.array_equal(digits(seed=1)[1].tensors[1].numpy(), test.tensors[1].numpy())
    assert digits(flat=False)[0].tensors[0].shape == (1438, 1, 8, 8)
    with mock.patch.dict("sys.modules", {"sklearn.datasets": None}), pytest.raises(ImportError, match="pip install scikit-learn"):
        digits()


def test_concatenation():
    both = numbers(3) + numbers(2)
    assert isinstance(both, ConcatDataset) and len(both) == 5 and both.cumulative_sizes == [3, 5]
    assert [both[i][0].item() for i in (0, 2, 3, 4, -1)] == [0, 2, 0, 1, 1] and seen(DataLoader(both, 5)) == [[0, 1, 2, 0, 1]]
    with pytest.raises(IndexError, match="index 5"):
        both[5]
    with pytest.raises(ValueError, match="exceed"):
        both[-6]


def test_every_data_set_can_be_iterated():
    d = numbers(3)
    for samples in (d, Subset(d, [2, 0]), Subset(d, np.array([2, 0])), d + d, (d + Subset(d, [1])) + d):
        assert [s[0].item() for s in samples] == [samples[i][0].item() for i in range(len(samples))]
        assert samples[-1][0].item() == samples[len(samples) - 1][0].item()


def test_types_of_samples():
    class Mine(Dataset[int]):
        def __getitem__(self, index):
            return index

    for kind in (Dataset[int], Dataset[tuple[mg.Tensor, mg.Tensor]], Subset[int], ConcatDataset[int], DataLoader[int], mg.data.Sampler[int], mg.data.Sampler[list[int]],
                 mg.data.IterableDataset[int], mg.data.ChainDataset[int]):
        assert kind.__origin__.__module__.startswith("minigrad.data")
    assert isinstance(Mine(), Dataset) and Mine()[4] == 4


def test_pytorchs_name_of_the_room():
    from minigrad.utils.data import DataLoader as same
    assert same is DataLoader and mg.utils.data.TensorDataset is TensorDataset and mg.utils.data.__all__ is mg.data.__all__


def test_a_subset_reads_several_samples_at_once():
    class Together(Dataset):
        def __getitems__(self, indices):
            return [10 * i for i in indices]

    assert Subset(range(5, 10), [4, 1, 2]).__getitems__([0, 2]) == [9, 7]
    assert Subset(Subset(Together(), [4, 1, 2]), [2, 0]).__getitems__([0, 1]) == [20, 40]
