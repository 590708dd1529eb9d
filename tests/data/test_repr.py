"""Data sets, samplers and loaders print what they are."""
from __future__ import annotations

from typing import Any

import pytest

import minigrad as mg
from minigrad import data

PAIRS = data.TensorDataset(mg.zeros(10, 4), mg.zeros(10, dtype=mg.int64))
TEXT = "TensorDataset(float32[10, 4], int64[10])"


@pytest.mark.parametrize(("value", "text"), [
    (PAIRS, TEXT),
    (data.Subset(PAIRS, range(8)), f"Subset(8 samples of {TEXT})"),
    (data.ConcatDataset([PAIRS, PAIRS]), f"ConcatDataset([{TEXT}, {TEXT}])"),
    (data.SequentialSampler(PAIRS), f"SequentialSampler({TEXT})"),
    (data.RandomSampler(range(5), replacement=True, num_samples=3), "RandomSampler(range(0, 5), replacement=True, num_samples=3)"),
    (data.SubsetRandomSampler(list(range(20))), "SubsetRandomSampler(list of 20)"),
    (data.WeightedRandomSampler([0.1, 0.9], 6), "WeightedRandomSampler(float64[2], num_samples=6)"),
    (data.DataLoader(PAIRS, batch_size=4, shuffle=True, seed=0), f"DataLoader({TEXT}, batch_size=4, shuffle=True, seed=0, 3 batches)"),
    (data.DataLoader([1, 2], num_workers=2, drop_last=True), "DataLoader([1, 2], batch_size=1, num_workers=2, drop_last=True, 2 batches)"),
    (data.DataLoader(PAIRS, batch_sampler=data.BatchSampler(range(10), 5, False)),
     f"DataLoader({TEXT}, batch_sampler=BatchSampler(range(0, 10), batch_size=5, drop_last=False), 2 batches)"),
], ids=lambda v: type(v).__name__)
def test_text(value: Any, text: str):
    assert repr(value) == text


def test_data_without_a_length_or_of_ones_own():
    class Endless(data.dataset.IterableDataset):
        def __iter__(self) -> Any:
            return iter(range(3))
    assert repr(data.DataLoader(Endless())) == "DataLoader(Endless, batch_size=1)"
