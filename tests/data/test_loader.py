"""Data sets, the loader, the digits, and files."""
import os
import threading
from collections import OrderedDict, namedtuple
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigrad as mg
from minigrad import nn, optim
from minigrad.data.dataset import ConcatDataset, Dataset, Subset, TensorDataset, random_split
from minigrad.data.digits import digits
from minigrad.data.loader import DataLoader, default_collate
from minigrad.io import load, save


def numbers(n):
    return TensorDataset(mg.arange(n), mg.tensor(np.arange(2 * n).reshape(n, 2), dtype=np.float32))


def seen(loader):
    return [batch[0].tolist() for batch in loader]


# ---- data sets ----

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
    with mock.patch.dict("sys.modules", {"sklearn.datasets": None}), pytest.raises(ImportError, match=r"minigrad\[examples\]"):
        digits()


# ---- the loader ----

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


def test_concatenation():
    both = numbers(3) + numbers(2)
    assert isinstance(both, ConcatDataset) and len(both) == 5 and both.cumulative_sizes == [3, 5]
    assert [both[i][0].item() for i in (0, 2, 3, 4, -1)] == [0, 2, 0, 1, 1] and seen(DataLoader(both, 5)) == [[0, 1, 2, 0, 1]]
    with pytest.raises(ValueError, match="exceed"):
        both[5]


def test_sampler_classes():
    """What PyTorch's hold, with random numbers of ours."""
    torch_data = pytest.importorskip("torch").utils.data
    d = numbers(6)
    for n in (mg.data, torch_data):
        g = (mg if n is mg.data else pytest.importorskip("torch")).Generator().manual_seed(3)
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
    assert seen(DataLoader(d, batch_sampler=mg.data.BatchSampler(mg.data.SequentialSampler(d), 4, True))) == [[0, 1, 2, 3]]


def test_pytorchs_name_of_the_room():
    from minigrad.utils.data import DataLoader as same
    assert same is DataLoader and mg.utils.data.TensorDataset is TensorDataset and mg.utils.data.__all__ is mg.data.__all__


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


# ---- files ----

def same(a, b):
    if isinstance(a, mg.Tensor):
        return isinstance(b, mg.Tensor) and same(a.detach().numpy(), b.detach().numpy())
    if isinstance(a, (np.ndarray, np.generic)):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return isinstance(b, dict) and same(list(a), list(b)) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


arrays = st.builds(lambda shape, dtype: np.arange(int(np.prod(shape))).reshape(shape).astype(dtype),
                   st.lists(st.integers(0, 3), max_size=3),
                   st.sampled_from([np.float32, np.float64, np.float16, np.int32, np.int64, np.bool_, np.uint8, np.uint64]))
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), arrays, arrays.map(mg.tensor))
keys = st.one_of(st.text(), st.integers(), st.none())
trees = st.recursive(leaves, lambda t: st.one_of(st.lists(t, max_size=3), st.lists(t, max_size=3).map(tuple),
                                                 st.dictionaries(keys, t, max_size=3)))


@given(tree=trees)
@settings(max_examples=150, deadline=None)
def test_trees_round_trip(tmp_path_factory, tree):
    path = tmp_path_factory.getbasetemp() / "tree.safetensors"
    save(tree, path)
    assert same(tree, load(path))


def test_a_training_run_round_trips(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    o = optim.Adam(model.parameters(), betas=(0.8, 0.9))
    for p in model.parameters():
        p.grad = mg.ones(*p.shape)
    o.step()
    state = {"model": model.state_dict(), "optimizer": o.state_dict(), "rng": mg.get_rng_state(), "loader": {"seed": None}, "epoch": 3}
    save(state, tmp_path / "run.safetensors")
    found = load(str(tmp_path / "run.safetensors"))
    assert same(dict(state["model"]), found["model"]) and same(state["optimizer"], found["optimizer"]) and found["epoch"] == 3
    other = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    other.load_state_dict(found["model"])
    again = optim.Adam(other.parameters())
    again.load_state_dict(found["optimizer"])
    assert again.param_groups[0]["betas"] == (0.8, 0.9)
    assert os.listdir(tmp_path) == ["run.safetensors"]


def test_other_programs_read_and_write_it(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    model = nn.Linear(3, 2)
    save(model.state_dict(), tmp_path / "a.safetensors")
    assert set(numpy.load_file(tmp_path / "a.safetensors")) == {"weight", "bias"}
    numpy.save_file({"weight": np.ones((2, 3), np.float32), "bias": np.zeros(2, np.float32)}, tmp_path / "b.safetensors")
    model.load_state_dict(load(tmp_path / "b.safetensors"))
    assert model.weight.sum().item() == 6.0


def test_file_objects_ties_and_dotted_keys():
    import io
    t = mg.ones(2)
    buffer = io.BytesIO()
    save({"a.b": t, "a": {"b": mg.zeros(2)}, "tie": [t, t]}, buffer)
    buffer.seek(0)
    found = load(buffer)
    assert found["a.b"].tolist() == [1.0, 1.0] and found["a"]["b"].tolist() == [0.0, 0.0] and found["tie"][0] is found["a.b"]
    assert same(OrderedDict(x=1), load_of(OrderedDict(x=1))) is True


def load_of(tree):
    import io
    buffer = io.BytesIO()
    save(tree, buffer)
    buffer.seek(0)
    return load(buffer)


def test_pytorchs_options_of_load(tmp_path):
    save({"w": mg.ones(2)}, tmp_path / "w")
    for options in ({"weights_only": True}, {"weights_only": False}, {"map_location": mg.device("cpu")}):
        assert load(tmp_path / "w", **options)["w"].tolist() == [1.0, 1.0]
    for options in ({"mmap": True}, {"pickle_module": os}):
        with pytest.raises(NotImplementedError, match=next(iter(options))):
            load(tmp_path / "w", **options)


def test_bad_files(tmp_path):
    path = tmp_path / "x.safetensors"
    save({"w": mg.ones(100)}, path)
    data = path.read_bytes()
    for bad in (b"", data[:5], data[:60], data[:-1], data + b"x", b"\x80\x04" + data, b"not a file at all",
                data.replace(b"tensor", b"tinsor"), data.replace(b"version", b"virsion")):
        (tmp_path / "bad").write_bytes(bad)
        with pytest.raises(ValueError, match="load:"):
            load(tmp_path / "bad")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing")
    with pytest.raises(TypeError, match="cannot write a set .*at a.0"):
        save({"a": [{1}]}, path)
    with pytest.raises(TypeError, match="a key must be"):
        save({(1, 2): 3}, path)
    with mock.patch("os.replace", side_effect=OSError("disk full")), pytest.raises(OSError, match="disk full"):
        save({"w": 1}, path)
    assert path.read_bytes() == data and sorted(os.listdir(tmp_path)) == ["bad", "x.safetensors"]
    with mock.patch.dict("sys.modules", {"safetensors.numpy": None}), pytest.raises(ImportError, match=r"minigrad\[io\]"):
        load(path)
