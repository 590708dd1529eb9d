"""The loader: batches, seeds, resuming, workers, collation."""
from __future__ import annotations

import threading
from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigrad as mg
from minigrad.data.dataset import Dataset, TensorDataset
from minigrad.data.loader import DataLoader, default_collate


def numbers(n):
    return TensorDataset(mg.arange(n), mg.tensor(np.arange(2 * n).reshape(n, 2), dtype=np.float32))


def seen(loader):
    return [batch[0].tolist() for batch in loader]


@given(n=st.integers(0, 23), size=st.integers(1, 7), drop=st.booleans(), shuffle=st.booleans(), workers=st.integers(0, 2))
@settings(max_examples=40, deadline=None)
def test_batches_cover_the_data(n, size, drop, shuffle, workers):
    loader = DataLoader(numbers(n), size, shuffle=shuffle, drop_last=drop, num_workers=workers, seed=1)
    batches = seen(loader)
    assert len(batches) == len(loader)
    flat = [i for b in batches for i in b]
    assert all(len(b) == size for b in batches[:-1 if not drop else None])
    assert len(set(flat)) == len(flat) == (n // size * size if drop else n)
    if not shuffle:
        assert flat == list(range(len(flat)))


def test_shuffling_is_seeded():
    def epochs(**options):
        loader = DataLoader(numbers(50), 8, shuffle=True, **options)
        return seen(loader), seen(loader)
    one, two = epochs(seed=5)
    assert one != two and (one, two) == epochs(seed=5) == epochs(seed=5, num_workers=2) and one != epochs(seed=6)[0]
    assert epochs(generator=mg.Generator().manual_seed(7)) == epochs(generator=mg.Generator().manual_seed(7))
    mg.manual_seed(1)
    a = epochs()
    mg.manual_seed(1)
    assert a == epochs()


@given(stop=st.integers(0, 6), workers=st.integers(0, 2), shuffle=st.booleans())
@settings(max_examples=20, deadline=None)
def test_an_epoch_can_be_resumed(stop, workers, shuffle):
    def loader():
        return DataLoader(numbers(25), 4, shuffle=shuffle, num_workers=workers, seed=9)
    straight = loader()
    whole = [seen(straight) for _ in range(3)]
    first = loader()
    seen(first)
    it = iter(first)
    begun = [next(it)[0].tolist() for _ in range(stop)]
    state = first.state_dict()
    it.close()
    second = loader()
    second.load_state_dict(state)
    assert [begun + seen(second), seen(second)] == whole[1:]


def test_resuming_with_the_global_generator():
    loader = DataLoader(numbers(20), 4, shuffle=True)
    it = iter(loader)
    next(it), next(it)
    state = loader.state_dict()
    rest = [b[0].tolist() for b in it]
    other = DataLoader(numbers(20), 4, shuffle=True)
    other.load_state_dict(state)
    assert seen(other) == rest


class Slow(Dataset):
    def __init__(self):
        self.threads = set()

    def __len__(self):
        return 12

    def __getitem__(self, i):
        self.threads.add(threading.current_thread().name)
        if i == 9:
            raise KeyError("sample 9")
        return np.float32(i)


def test_workers_are_threads_and_pass_errors_on():
    data = Slow()
    loader = DataLoader(data, 3, num_workers=2)
    got = []
    with pytest.raises(KeyError, match="sample 9"):
        for batch in loader:
            got.append(batch.tolist())
    assert got == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert all(name.startswith("minigrad-data") for name in data.threads)
    it = iter(loader)
    assert next(it).tolist() == [0, 1, 2]           # an iteration given up is not gone on with
    it.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("minigrad-data")]


def test_collation():
    Pair = namedtuple("Pair", "a b")
    sample = {"x": mg.ones(2), "n": 3, "f": 0.5, "s": "name", "t": (np.ones((2, 2), np.float32), [np.int64(1)]), "p": Pair(1, True)}
    batch = default_collate([sample, sample])
    assert batch["x"].shape == (2, 2) and batch["n"].dtype == np.int64 and batch["f"].dtype == np.float64 and batch["s"] == ["name", "name"]
    assert batch["t"][0].shape == (2, 2, 2) and batch["t"][1][0].tolist() == [1, 1]
    assert isinstance(batch["p"], Pair) and batch["p"].b.dtype == np.bool_
    with pytest.raises(RuntimeError, match="equal size"):
        default_collate([(1, 2), (1,)])
    with pytest.raises(TypeError, match="object"):
        default_collate([object()])


def test_samplers_and_single_samples():
    d = numbers(6)
    assert seen(DataLoader(d, 2, sampler=[5, 4, 3])) == [[5, 4], [3]]
    assert seen(DataLoader(d, batch_sampler=[[0, 5], [1]])) == [[0, 5], [1]]
    assert [x[0].item() for x in DataLoader(d, batch_size=None)] == list(range(6))
    assert [len(DataLoader(d, 4)), len(DataLoader(d, batch_size=None)), len(DataLoader(d, batch_sampler=[[0]]))] == [2, 6, 1]
    first = DataLoader(d, 3, collate_fn=lambda samples: mg.tensor([int(s[0]) for s in samples]))
    assert [x.tolist() for x in first] == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("kind", [list, np.asarray, mg.tensor])
def test_anything_indexed_is_a_data_set(kind):
    rows = kind([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    pairs = list(zip(rows, [0, 1, 2], strict=True))
    if kind is list:
        rows = [tuple(r) for r in rows]
        assert [[c.tolist() for c in b] for b in DataLoader(rows, 2)] == [[[1.0, 3.0], [2.0, 4.0]], [[5.0], [6.0]]]
    else:
        assert [b.tolist() for b in DataLoader(rows, 2)] == [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0]]]
    assert [b[1].tolist() for b in DataLoader(pairs, 2)] == [[0, 1], [2]]


@pytest.mark.parametrize(("options", "error", "text"), [
    ({"batch_size": 0}, ValueError, "batch_size"), ({"num_workers": -1}, ValueError, "num_workers"),
    ({"sampler": [0], "shuffle": True}, ValueError, "sampler"), ({"batch_sampler": [[0]], "drop_last": True}, ValueError, "batch_sampler"),
    ({"batch_size": None, "drop_last": True}, ValueError, "batch_size=None"), ({"prefetch_factor": 2}, ValueError, "prefetch_factor"),
    ({"pin_memory": True}, NotImplementedError, "pin_memory"), ({"timeout": 3}, NotImplementedError, "timeout"),
    ({"worker_init_fn": print}, NotImplementedError, "worker_init_fn"), ({"in_order": False}, NotImplementedError, "in_order")])
def test_loader_errors(options, error, text):
    with pytest.raises(error, match=text):
        DataLoader(numbers(4), **options)
    with pytest.raises(TypeError, match="__getitem__"):
        DataLoader(iter([1]))
