"""The loader: batches, seeds, resuming, workers, collation."""
from __future__ import annotations

import multiprocessing
import random
import signal
import threading
import time
from collections import OrderedDict, UserDict, UserList, deque, namedtuple
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import run_python

import minigrad as mg
from minigrad.data.dataset import Dataset, IterableDataset, StackDataset, TensorDataset
from minigrad.data.loader import DataLoader, default_collate, default_convert
from minigrad.data.workers import get_worker_info


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
    gone()
    assert all(name.startswith("minigrad-data") for name in data.threads)
    it = iter(loader)
    assert next(it).tolist() == [0, 1, 2]           # an iteration given up is not gone on with
    it.close()
    assert not workers()


def workers():
    return [t for t in threading.enumerate() if t.name.startswith("minigrad-data")]


def gone():
    """The threads end by themselves."""
    end = time.monotonic() + 60
    while workers() and time.monotonic() < end:
        time.sleep(0.01)
    assert not workers()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_an_error_does_not_end_the_iteration(count):
    class Odd(Dataset):
        def __len__(self):
            return 5

        def __getitem__(self, i):
            if i in (1, 3):
                raise StopIteration if i == 3 else KeyError(i)
            return i

    it, got = iter(DataLoader(Odd(), num_workers=count)), []
    for _ in range(5):
        try:
            got.append(next(it).item())
        except (KeyError, RuntimeError) as error:
            got.append(type(error))
    assert got == [0, KeyError, 2, RuntimeError, 4]
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(it)

    loader = DataLoader(Odd(), num_workers=count)
    it = iter(loader)
    next(it)
    with pytest.raises(KeyError):
        next(it)
    state = loader.state_dict()                     # goes on behind the sample that failed
    other = DataLoader(Odd(), num_workers=count)
    other.load_state_dict(state)
    assert next(iter(other)).item() == 2


# ---- random numbers ----

class Noise(Dataset):
    """What a sample draws, with a wait that mixes the order in which threads come."""

    def __init__(self, *draws):
        self.draws = draws

    def __len__(self):
        return 10

    def __getitem__(self, i):
        first = [draw() for draw in self.draws]
        time.sleep(0.001 * (i * 7 % 4))
        return (i, *first, *[draw() for draw in self.draws])


def ours():
    return mg.rand(1).item()


FOREIGN = (lambda: np.random.randn(), lambda: np.random.randint(10**6), lambda: np.random.permutation(50)[0], lambda: np.random.sample(),
           lambda: random.random(), lambda: random.gauss(0, 1), lambda: random.choice(range(10**6)))


def epochs(data, start=3, **options):
    mg.manual_seed(start)
    loader = DataLoader(data, options.pop("batch_size", 2), collate_fn=list, **options)
    return [[sample for batch in loader for sample in batch] for _ in range(2)], mg.rand(3).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"shuffle": True}, {"seed": 5}, {"shuffle": True, "seed": 5},
                                     {"sampler": mg.data.RandomSampler(range(10), replacement=True, num_samples=15)},
                                     {"generator": True}, {"batch_size": 3}, {"batch_size": None}])
def test_random_numbers_of_samples(options):
    def run(count, data, start=3):
        given = {"generator": mg.Generator().manual_seed(1)} if "generator" in options else {}
        if options.get("batch_size", 2) is None:
            mg.manual_seed(start)
            loader = DataLoader(data, collate_fn=lambda x: x, num_workers=count, **options)
            return [list(loader), list(loader)], mg.rand(3).tolist()
        return epochs(data, start, num_workers=count, **{**options, **given})

    straight = run(0, Noise(ours))
    assert straight == run(1, Noise(ours)) == run(3, Noise(ours))               # the samples, and what the main thread draws afterwards
    drawn = [x for epoch in straight[0] for sample in epoch for x in sample[1:]]
    assert len(set(drawn)) == len(drawn)                                        # samples and epochs have different numbers
    everything = Noise(ours, *FOREIGN)
    assert run(1, everything) == run(3, everything)
    if "seed" not in options and "generator" not in options:
        assert run(3, everything)[0] != run(3, everything, 4)[0]


def test_other_threads_and_functions_are_left_alone():
    gone()                                          # those of the tests before
    names = {(m, n): getattr(m, n) for m in (np.random, random) for n in dir(m)}
    np.random.seed(1), random.seed(1), mg.manual_seed(1)
    want = np.random.rand(3).tolist(), random.random(), mg.rand(1).item()
    np.random.seed(1), random.seed(1)
    it = iter(DataLoader(Noise(ours, *FOREIGN), 2, num_workers=2, collate_fn=list, seed=1))
    mg.manual_seed(1)
    next(it)
    assert (np.random.rand(3).tolist(), random.random(), mg.rand(1).item()) == want
    it.close()
    gone()
    assert names == {(m, n): getattr(m, n) for m in (np.random, random) for n in dir(m)}


def test_seeding_in_a_sample_stays_in_it():
    def seeded():
        np.random.seed(7), random.seed(7), mg.manual_seed(7)
        return np.random.rand(), random.random(), mg.rand(1).item(), mg.initial_seed()

    mg.manual_seed(0), np.random.seed(0)
    want = mg.rand(1).item(), np.random.rand()
    mg.manual_seed(0), np.random.seed(0)
    got = {sample[1:] for batch in DataLoader(Noise(seeded), 2, num_workers=2, collate_fn=list, seed=1) for sample in batch}
    assert len(got) == 1
    assert (mg.rand(1).item(), np.random.rand()) == want


def test_seeds_of_worker_init_fn_hold():
    def init(number):
        mg.manual_seed(100 + number), np.random.seed(200 + number), random.seed(300 + number)

    def draw():
        return mg.initial_seed(), mg.rand(1).item(), np.random.rand(), random.random(), mg.data.get_worker_info().id

    def run():
        return [sample for batch in DataLoader(Noise(draw), 2, num_workers=2, worker_init_fn=init, collate_fn=list) for sample in batch]
    first = run()
    assert first == run() and len({sample[1:] for sample in first}) == 10
    for i, (seed, *_, worker), _ in first:
        assert worker == i // 2 % 2 and seed == 100 + worker
    assert first[0][1][1:4] == (mg.rand(1, generator=mg.Generator().manual_seed(100)).item(), np.random.RandomState(200).rand(), random.Random(300).random())

    def some(number):
        np.random.seed(7)                           # the others keep their streams
    a, b = ([s[1] for batch in DataLoader(Noise(ours), 2, num_workers=n, worker_init_fn=f, collate_fn=list, seed=1) for s in batch] for n, f in ((1, None), (3, some)))
    assert a == b


def test_a_resumed_epoch_draws_the_same():
    for count in (0, 2):
        def make(count=count):
            return DataLoader(Noise(ours), 2, shuffle=True, num_workers=count, collate_fn=list)
        mg.manual_seed(1)
        loader = make()
        it = iter(loader)
        next(it), next(it)
        state, rng = loader.state_dict(), mg.get_rng_state()
        rest = [list(it), list(loader)]
        other = make()
        other.load_state_dict(state), mg.set_rng_state(rng)
        assert [list(other), list(other)] == rest


# ---- workers ----

def test_what_a_worker_is_told():
    told, data = [], numbers(8)

    def init(number):
        told.append((number, mg.data.get_worker_info()))
    loader = DataLoader(data, 2, num_workers=2, worker_init_fn=init, seed=4)
    assert len(list(loader)) == 4 and mg.data.get_worker_info() is None
    assert sorted(n for n, _ in told) == [0, 1] == sorted(info.id for _, info in told)
    assert all(info.num_workers == 2 and info.dataset is data for _, info in told) and len({info.seed for _, info in told}) == 2

    def broken(number):
        raise ValueError("init")
    it = iter(DataLoader(data, 2, num_workers=1, worker_init_fn=broken))
    with pytest.raises(ValueError, match="init"):
        next(it)
    assert next(it)[0].tolist() == [2, 3]


class Waiting(Dataset):
    """From number `after` on, a sample is there when `released` is set."""

    def __init__(self, after=0):
        self.released, self.after = threading.Event(), after

    def __len__(self):
        return 64

    def __getitem__(self, i):
        if i >= self.after:
            assert self.released.wait(60)
        return i


def test_a_batch_that_takes_too_long():
    data = Waiting()
    it = iter(DataLoader(data, num_workers=1, timeout=0.05))
    with pytest.raises(RuntimeError, match="timed out after 0.05 seconds"):
        next(it)
    data.released.set()
    for _ in range(1000):                                                           # the worker has to get its turn
        try:
            assert next(it).item() == 0
            break
        except RuntimeError:
            pass
    else:
        raise AssertionError("the batch never came")
    it.close()
    gone()


def leave(data):
    for batch in DataLoader(data, 8, num_workers=2):
        assert batch.tolist() == list(range(8))
        break


def fail(data):
    with pytest.raises(ZeroDivisionError):
        for _ in DataLoader(data, 8, num_workers=2):
            raise ZeroDivisionError


def close(data):
    it = iter(DataLoader(data, 8, num_workers=2))
    next(it)
    it.close()
    with pytest.raises(StopIteration):
        next(it)


def interrupt(data):
    data.after = 0
    before = signal.signal(signal.SIGINT, signal.default_int_handler)               # a shell's background jobs ignore Ctrl-C
    threading.Timer(0.1, signal.raise_signal, (signal.SIGINT,)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            next(iter(DataLoader(data, 8, num_workers=2)))
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("end", [leave, fail, close, interrupt])
def test_an_end_waits_for_no_sample(end):
    """`break`, an error in the loop, `close()` and Ctrl-C while the workers wait for samples."""
    data = Waiting(after=8)
    end(data)
    assert workers() and not data.released.is_set()                                 # a worker still waits for its sample
    data.released.set()
    gone()


def test_a_process_does_not_wait_for_a_sample():
    begin = time.monotonic()
    run = run_python("-c", "import time, minigrad as mg\nclass D(mg.data.Dataset):\n    def __len__(self): return 4\n"
                     "    def __getitem__(self, i): time.sleep(60 * i); return i\nprint(next(iter(mg.data.DataLoader(D(), num_workers=2))).item())")
    assert run.stdout.strip() == "0" and time.monotonic() - begin < 30, run.stderr


# ---- resuming with samplers ----

class Custom(mg.data.Sampler[int]):
    """Draws from a generator of its own that no loader knows."""

    def __init__(self, seed=0):
        self.rng = np.random.RandomState(seed)

    def __iter__(self):
        yield from self.rng.permutation(12).tolist()

    def __len__(self):
        return 12


class Stateful(Custom):
    def state_dict(self):
        return {"rng": self.rng.get_state()[1].tolist(), "at": self.rng.get_state()[2]}

    def load_state_dict(self, state):
        self.rng.set_state(("MT19937", np.array(state["rng"], np.uint32), state["at"]))


def generator(seed=8):
    return mg.Generator().manual_seed(seed)


def shared(**options):
    g = generator()
    return {"sampler": mg.data.RandomSampler(range(12), generator=g), "generator": g}


SAMPLERS = {
    "shuffle": lambda: {"shuffle": True}, "shuffle, generator": lambda: {"shuffle": True, "generator": generator()}, "seed": lambda: {"shuffle": True, "seed": 2},
    "random": lambda: {"sampler": mg.data.RandomSampler(range(12))}, "random, generator": lambda: {"sampler": mg.data.RandomSampler(range(12), generator=generator())},
    "one generator": shared, "replacement": lambda: {"sampler": mg.data.RandomSampler(range(12), True, 30)},
    "weighted": lambda: {"sampler": mg.data.WeightedRandomSampler(range(1, 13), 12)},
    "weighted, generator": lambda: {"sampler": mg.data.WeightedRandomSampler(range(1, 13), 12, generator=generator())},
    "subset": lambda: {"sampler": mg.data.SubsetRandomSampler(range(2, 12))},
    "subset, generator": lambda: {"sampler": mg.data.SubsetRandomSampler(range(2, 12), generator=generator())},
    "batches": lambda: {"batch_sampler": mg.data.BatchSampler(mg.data.RandomSampler(range(12)), 3, False)},
    "batches, generator": lambda: {"batch_sampler": mg.data.BatchSampler(mg.data.RandomSampler(range(12), generator=generator()), 3, False)},
    "list": lambda: {"sampler": [4, 1, 7, 7, 3]}, "lists": lambda: {"batch_sampler": [[1, 2], [3], [4, 5, 6]]},
    "stateful": lambda: {"sampler": Stateful()}, "stateful batches": lambda: {"batch_sampler": mg.data.BatchSampler(Stateful(), 5, False)},
    "custom": lambda: {"sampler": Custom()}, "custom batches": lambda: {"batch_sampler": mg.data.BatchSampler(Custom(), 5, True)},
}


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize("stop", [0, 1, 2])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_state_holds_the_order(tmp_path, name, stop, count):
    def loader():
        options = SAMPLERS[name]()
        return DataLoader(numbers(12), num_workers=count, **({} if "batch_sampler" in options else {"batch_size": 2}), **options)
    mg.manual_seed(6)
    straight = loader()
    seen(straight)
    it = iter(straight)
    for _ in range(stop):
        next(it)
    mg.save([straight.state_dict(), mg.get_rng_state()], tmp_path / "state")
    rest = [[batch[0].tolist() for batch in it], seen(straight)]
    mg.manual_seed(99)
    state, rng = mg.load(tmp_path / "state")
    other = loader()
    other.load_state_dict(state)
    mg.set_rng_state(rng)
    got = [seen(other), seen(other)]
    assert got[0] == rest[0] and (got[1] == rest[1] or name.startswith("custom"))


def test_a_state_within_a_resumed_epoch():
    for name in ("random, generator", "custom"):
        first = DataLoader(numbers(12), 2, **SAMPLERS[name]())
        it = iter(first)
        next(it)
        second = DataLoader(numbers(12), 2, **SAMPLERS[name]())
        second.load_state_dict(first.state_dict())
        again = iter(second)
        assert next(again)[0].tolist() == next(it)[0].tolist()
        third = DataLoader(numbers(12), 2, **SAMPLERS[name]())
        third.load_state_dict(second.state_dict())
        assert seen(third) == [batch[0].tolist() for batch in it] == [batch[0].tolist() for batch in again]


def test_an_order_that_cannot_be_known_is_refused():
    loader = DataLoader(numbers(12), sampler=iter(range(12)))
    next(iter(loader))
    with pytest.raises(RuntimeError, match="state_dict: the order of a range_iterator is not known; give it __len__"):
        loader.state_dict()


def test_two_iterations_at_once():
    loader = DataLoader(numbers(6), 2)
    pairs = [(a[0].tolist(), b[0].tolist()) for a, b in zip(loader, loader, strict=True)]
    assert [a for a, _ in pairs] == [b for _, b in pairs] == [[0, 1], [2, 3], [4, 5]]


# ---- iterable data sets ----

class Stream(mg.data.IterableDataset[int]):
    def __init__(self, start, end):
        self.start, self.end = start, end

    def __iter__(self):
        worker = mg.data.get_worker_info()
        for i in range(self.start, self.end):
            if worker is None or self.own or i % worker.num_workers == worker.id:
                yield i

    own = False


def flat(loader):
    return [x for batch in loader for x in batch.flatten().tolist()]


def test_iterable_data_sets():
    data = Stream(3, 13)
    assert flat(DataLoader(data, 4)) == list(range(3, 13)) == flat(DataLoader(data, batch_size=None, collate_fn=mg.tensor))
    assert [b.tolist() for b in DataLoader(data, 4, drop_last=True)] == [[3, 4, 5, 6], [7, 8, 9, 10]]
    both = data + Stream(0, 2)
    assert isinstance(both, mg.data.ChainDataset) and flat(DataLoader(both, 5)) == [*range(3, 13), 0, 1]
    assert [b.tolist() for b in DataLoader(data, 2, num_workers=2)] == [[4, 6], [3, 5], [8, 10], [7, 9], [12], [11]]
    assert sorted(flat(DataLoader(data, 1, num_workers=3))) == list(range(3, 13))
    for _ in range(2):
        assert flat(DataLoader(Stream(0, 0), 2, num_workers=2)) == []

    def split(number):                              # each worker has a copy, which this changes
        worker = mg.data.get_worker_info()
        worker.dataset.own, worker.dataset.start, worker.dataset.end = True, 10 * number, 10 * number + 2 + number
    assert [b.tolist() for b in DataLoader(data, 2, num_workers=2, worker_init_fn=split)] == [[0, 1], [10, 11], [12]] and data.start == 3
    for options in ({"shuffle": True}, {"sampler": [0]}, {"batch_sampler": [[0]]}):
        with pytest.raises(ValueError, match=f"IterableDataset: expected unspecified {next(iter(options))} option"):
            DataLoader(data, **options)
    with pytest.raises(TypeError):
        len(DataLoader(data))
    with pytest.raises(AssertionError, match="does not support IterableDataset"):
        mg.data.ConcatDataset([data])
    with pytest.raises(AssertionError, match="only supports IterableDataset"):
        data + numbers(3)


@pytest.mark.parametrize("count", [0, 2])
def test_iterable_data_sets_fail_and_resume(count):
    loader = DataLoader(Stream(0, 15), 2, num_workers=count)
    whole = [b.tolist() for b in loader]
    it = iter(loader)
    for stop in range(len(whole)):
        other = DataLoader(Stream(0, 15), 2, num_workers=count)
        other.load_state_dict(loader.state_dict())
        assert [b.tolist() for b in other] == whole[stop:]
        assert next(it).tolist() == whole[stop]

    class Broken(mg.data.IterableDataset):
        def __iter__(self):
            yield 1
            raise KeyError("stream")
    it = iter(DataLoader(Broken(), num_workers=count))
    assert next(it).item() == 1
    if count:
        assert next(it).item() == 1                 # of the other worker
    with pytest.raises(KeyError, match="stream"):
        next(it)

    class Never(mg.data.IterableDataset):
        def __iter__(self):
            raise KeyError("never")
    with pytest.raises(KeyError, match="never"):
        next(iter(DataLoader(Never(), num_workers=count)))


# ---- making batches ----

def test_collation():
    Pair = namedtuple("Pair", "a b")
    sample = {"x": mg.ones(2), "n": 3, "f": 0.5, "s": "name", "t": (np.ones((2, 2), np.float32), [np.int64(1)]), "p": Pair(1, True)}
    batch = default_collate([sample, sample])
    assert batch["x"].shape == (2, 2) and batch["n"].dtype == np.int64 and batch["f"].dtype == np.float64 and batch["s"] == ["name", "name"]
    assert batch["t"][0].shape == (2, 2, 2) and batch["t"][1][0].tolist() == [1, 1]
    assert isinstance(batch["p"], Pair) and batch["p"].b.dtype == np.bool_
    assert [c.tolist() for c in default_collate([range(2), range(5, 7)])] == [[0, 5], [1, 6]]
    for kind in (UserList, deque):
        got = default_collate([kind([1, 2]), kind([3, 4])])
        assert type(got) is kind and [c.tolist() for c in got] == [[1, 3], [2, 4]]
    for kind in (OrderedDict, UserDict, MappingProxyType):
        got = default_collate([kind({"a": 1}), kind({"a": 2})])
        assert type(got) is kind and got["a"].tolist() == [1, 2]
        assert type(default_convert(kind({"a": np.ones(1)}))["a"]) is mg.Tensor
    strings = np.array(["a", "b"])
    assert default_collate(strings) is strings and default_collate([("a", 1), ("b", 2)])[0] == ("a", "b") and default_collate([b"x"]) == [b"x"]
    assert default_convert(range(3)) == [0, 1, 2] and default_convert("text") == "text"
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
    ({"multiprocessing_context": "fork"}, ValueError, r"^\[DataLoader\] multiprocessing_context needs"), ({"timeout": 3}, ValueError, r"^\[DataLoader\] .*timeout need num_workers"),
    ({"timeout": -1, "num_workers": 1}, ValueError, "timeout option"), ({"num_workers": 1, "multiprocessing_context": "spoon"}, ValueError, "must be one of"),
    ({"num_workers": 1, "multiprocessing_context": 1}, TypeError, "must be a string")])
def test_loader_errors(options, error, text):
    with pytest.raises(error, match=text):
        DataLoader(numbers(4), **options)
    with pytest.raises(TypeError, match=r"^\[DataLoader\] .*__getitem__"):
        DataLoader(iter([1]))


def test_what_is_fixed_after_construction():
    loader = DataLoader(numbers(4), 2)
    for name in ("batch_size", "sampler", "batch_sampler", "drop_last", "dataset", "persistent_workers"):
        with pytest.raises(ValueError, match=f"{name} attribute should not be set after DataLoader is initialized"):
            setattr(loader, name, None)
    loader.collate_fn = list
    assert len(loader) == 2


# ---- what is refused ----

def test_the_state_of_another_loader_is_refused():
    def loader(n, batch_size):
        return DataLoader(TensorDataset(mg.arange(n)), batch_size, shuffle=True)
    state = loader(20, 4).state_dict()
    for other in (loader(8, 4), loader(20, 5)):
        with pytest.raises(ValueError, match="got the state of 20 samples, batch_size 4, for"):
            other.load_state_dict(state)
    with pytest.raises(ValueError, match="what state_dict\\(\\) returned"):
        loader(8, 4).load_state_dict({"x": 1})


@pytest.mark.parametrize("made", [mg.ones, np.ones])
def test_samples_of_different_shapes(made):
    with pytest.raises(RuntimeError, match="equal shapes; got \\(1,\\), \\(2,\\); pad them"):
        list(DataLoader([made(1), made(2)], 2))


@pytest.mark.parametrize("options", [{"multiprocessing_context": "spawn"}, {"multiprocessing_context": multiprocessing.get_context("spawn")}, {"in_order": False}])
def test_options_of_processes_change_nothing(options):
    assert [b.tolist() for b in DataLoader([1, 2, 3], 2, num_workers=2, **options)] == [[1, 2], [3]]


class Listed(Dataset):
    """Counts how samples are read."""

    def __init__(self, short=0):
        self.asked, self.short = [], short

    def __len__(self):
        return 5

    def __getitem__(self, index):
        self.asked.append(index)
        return 10 * index

    def __getitems__(self, indices):
        self.asked.append(list(indices))
        return [10 * i for i in indices][self.short:]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_getitems_gives_the_samples_of_a_batch(num_workers):
    dataset = Listed()
    assert [b.tolist() for b in DataLoader(dataset, 2, num_workers=num_workers)] == [[0, 10], [20, 30], [40]]
    assert sorted(dataset.asked) == [[0, 1], [2, 3], [4]]
    assert list(DataLoader(dataset, None)) == [0, 10, 20, 30, 40]
    with pytest.raises(ValueError, match=r"^\[Listed\] __getitems__ must give"):
        next(iter(DataLoader(Listed(short=1), 2)))


def test_stack_dataset():
    x, listed = TensorDataset(mg.arange(10).reshape(5, 2)), Listed()
    pairs, named = StackDataset(x, listed), StackDataset(x=x, y=listed)
    assert len(pairs) == len(named) == 5
    assert pairs[2][0][0].tolist() == [4, 5] and pairs[2][1] == 20 and list(named[2]) == ["x", "y"] and named[4]["y"] == 40
    for (row,), y in DataLoader(pairs, 5):
        assert row.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]] and y.tolist() == [0, 10, 20, 30, 40]
    assert [b["y"].tolist() for b in DataLoader(named, 3, num_workers=1)] == [[0, 10, 20], [30, 40]]
    assert listed.asked.count([0, 1, 2]) == 1
    assert pairs.__getitems__([4, 0])[0][1] == 40
    for make, text in ((lambda: StackDataset(), "At least one"), (lambda: StackDataset(x, y=x), "Supported either"),
                       (lambda: StackDataset(x, [1, 2]), "Size mismatch"), (lambda: StackDataset(a=x, b=[1]), "Size mismatch")):
        with pytest.raises(ValueError, match=text):
            make()
    with pytest.raises(ValueError, match="must give a sample"):
        StackDataset(x, Listed(short=2)).__getitems__([0, 1])
    with pytest.raises(IndexError):
        pairs.__getitems__([0, 5])


class SaysFour(IterableDataset):
    def __iter__(self):
        return iter(range(6))

    def __len__(self):
        return 4


@pytest.mark.parametrize("num_workers", [0, 2])
def test_more_samples_than_said_are_told_once_the_length_was_asked(num_workers):
    loader = DataLoader(SaysFour(), None, num_workers=num_workers)
    assert sum(1 for _ in loader) == 6 * max(num_workers, 1)    # no warning: nobody asked, as list() would
    assert len(loader) == 4
    batches = iter(loader)
    for _ in range(4):
        next(batches)
    with pytest.warns(UserWarning, match=r"was reported to be 4 .*but 5 samples"):
        next(batches)


class Seeds(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        info = get_worker_info()
        return mg.initial_seed(), info.seed if info else 0


@pytest.mark.parametrize("num_workers", [0, 2])
def test_seeds_of_samples_fit_a_tensor(num_workers):
    seeds = [s for seeds, _ in DataLoader(Seeds(), 8, num_workers=num_workers, seed=3) for s in seeds.tolist()]
    assert len(set(seeds)) == 64 and min(seeds) >= 0


def test_arguments_of_a_loader_make_another():
    """Trainers make a loader again from its attributes."""
    for options in ({}, {"num_workers": 2}, {"num_workers": 1, "prefetch_factor": 3}):
        loader = DataLoader(list(range(4)), batch_size=2, **options)
        named = {name: getattr(loader, name) for name in ("batch_size", "num_workers", "prefetch_factor", "persistent_workers", "timeout", "drop_last")}
        assert [b.tolist() for b in DataLoader(loader.dataset, **named)] == [[0, 1], [2, 3]]
        assert loader.prefetch_factor == options.get("prefetch_factor", 2 if options else None)


def test_a_loader_tells_its_options():
    loader = DataLoader(range(4), pin_memory=True, drop_last=True)
    assert loader.pin_memory is True and loader.drop_last is True and DataLoader(range(4)).pin_memory is False
    with pytest.raises(ValueError, match="drop_last should be a boolean value; got 'no'"):
        DataLoader(range(4), drop_last="no")
