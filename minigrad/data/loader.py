"""`DataLoader`: batches of a data set, shuffled by a seed, read ahead by threads, resumable within an epoch."""
from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, MutableSequence, Sequence
from contextlib import contextmanager, suppress
from itertools import repeat
from typing import Any, Generic

import numpy as np

from ..core.display import brief
from ..core.messages import Guarded
from ..core.modes import mode
from ..core.shape import fail
from ..core.tensor import Tensor
from ..core.warning import warn
from ..ops.creation import as_tensor, tensor
from ..ops.join import stack
from ..ops.random import Generator, Streams, randint
from .dataset import IterableDataset, Sample, batch_taker, samples_of
from .sampler import batch_count, batched, check_batch_size, load_order, order_state
from .workers import Workers, get_worker_info

_END = object()


def _mapped(like: Any, values: dict[Any, Any]) -> Any:
    """`values` as a mapping of the type of `like`; a dict where that type cannot be made of them."""
    try:
        if isinstance(like, MutableMapping):
            made = copy.copy(like)
            made.update(values)
            return made
        return type(like)(values)               # type: ignore[call-arg]
    except TypeError:
        return values


def _listed(like: Any, values: list[Any]) -> Any:
    """`values` as a sequence of the type of `like`; a list where that type cannot be made of them."""
    if hasattr(like, "_fields"):                # a named tuple
        return type(like)(*values)
    try:
        if isinstance(like, MutableSequence):
            made = copy.copy(like)
            for i, value in enumerate(values):
                made[i] = value
            return made
        return type(like)(values)               # type: ignore[call-arg]
    except TypeError:
        return values


def _stacked(arrays: Sequence[Any]) -> Any:
    shapes = {np.shape(a): None for a in arrays}
    if len(shapes) > 1:
        fail("default_collate", "the samples of a batch must have equal shapes", [str(s) for s in shapes],
             "pad them in a collate_fn (nn.utils.rnn.pad_sequence), or use batch_size=1")
    return np.stack(arrays)


def default_collate(batch: Sequence[Any]) -> Any:
    """Makes one batch of a list of samples.

    Tensors, NumPy arrays and numbers are stacked along a new first dimension; Python floats become float64, integers
    int64. Samples that are sequences or mappings are collated entry by entry, and keep their type where it can be made
    of the entries (a tuple becomes a list, unless it is a named tuple); strings stay as they are. TypeError for other
    samples, RuntimeError if sequences differ in length.

        default_collate([(tensor_a, 0), (tensor_b, 1)])     # [tensor (2, *tensor_a.shape), tensor([0, 1])]
    """
    first = batch[0]
    if isinstance(first, Tensor):
        if any(t.requires_grad or t.device.type != "cpu" for t in batch):
            return stack(list(batch), 0)
        return as_tensor(_stacked([t.array.np for t in batch]))
    if isinstance(first, str | bytes):
        return batch
    if isinstance(first, np.ndarray | np.generic):
        if first.dtype.kind in "OSUMm":
            raise TypeError("default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; "
                            f"found {first.dtype}")
        return as_tensor(_stacked(batch))
    if isinstance(first, float):
        return tensor(list(batch), dtype=np.float64)
    if isinstance(first, int):
        return tensor(list(batch))
    if isinstance(first, Mapping):
        return _mapped(first, {key: default_collate([sample[key] for sample in batch]) for key in first})
    if isinstance(first, Sequence):
        if any(len(sample) != len(first) for sample in batch):
            raise RuntimeError("each element in list of batch should be of equal size")
        columns = [default_collate(column) for column in zip(*batch, strict=True)]
        return columns if isinstance(first, tuple) and not hasattr(first, "_fields") else _listed(first, columns)
    raise TypeError("default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; "
                    f"found {type(first)}")


def default_convert(sample: Any) -> Any:
    """The sample with its NumPy arrays as tensors, also within sequences and mappings; used with `batch_size=None`."""
    if isinstance(sample, np.ndarray | np.generic) and sample.dtype.kind not in "OSUMm":
        return as_tensor(np.asarray(sample))
    if isinstance(sample, Mapping):
        return _mapped(sample, {key: default_convert(value) for key, value in sample.items()})
    if isinstance(sample, Sequence) and not isinstance(sample, str | bytes):
        return _listed(sample, [default_convert(value) for value in sample])
    return sample


@contextmanager
def _drawing(streams: Streams) -> Iterator[None]:
    """Inside, random numbers come from `streams`, unless another generator is given."""
    before, mode.streams = mode.streams, streams
    try:
        yield
    finally:
        mode.streams = before


class _Order:
    """The lists of indices of one epoch, drawn as they are needed; what a sampler draws comes from the epoch's stream.

    `first` is the number of the first sample of the next list, `given` counts the lists whose batch was given, and
    `ahead` holds those that were drawn for a batch to come.
    """

    def __init__(self, lists: Iterable[Any], single: bool, seed: int) -> None:
        self.lists, self.single, self.seed = iter(lists), single, seed
        self.streams = Streams(seed)
        self.streams.number = -1                # samples count from 0
        self.first = self.given = 0
        self.ahead: deque[tuple[int, Any]] = deque()

    def draw(self) -> tuple[int, Any] | None:
        """(number of its first sample, the next list), or None at the end. It stays in `ahead` until it is given."""
        with _drawing(self.streams):
            indices: Any = next(self.lists, _END)
        if indices is _END:
            return None
        drawn: tuple[int, Any] = self.first, indices if self.single else list(indices)
        self.first += 1 if self.single else len(drawn[1])
        self.ahead.append(drawn)
        return drawn

    def give(self) -> None:
        self.given += 1
        self.ahead.popleft()

    def rest(self) -> list[Any]:
        """[number of the next sample, the lists that were not given yet]: draws all of them."""
        first, ahead = self.first, len(self.ahead)
        while self.draw() is not None:
            pass
        lists = [indices for _, indices in self.ahead]
        start = self.ahead[0][0] if self.ahead else first
        while len(self.ahead) > ahead:
            self.ahead.pop()
        self.first, self.lists = first, iter(lists[ahead:])
        return [start, lists]


class _Iteration(Generic[Sample]):
    """An iteration over a `DataLoader`: one epoch, or what is left of it. An error in a sample or in `collate_fn` does
    not end it: the next call gives the next batch."""

    def __init__(self, loader: DataLoader[Any], order: _Order) -> None:
        self._loader, self._order, self._over = loader, order, False
        self._streams = Streams(order.seed)             # of the samples that are read without workers
        self._workers: Workers | None = None
        self._given = 0                                 # batches
        self._empty = 0                                 # how many workers in a row had no sample left
        count = loader.num_workers
        if not count:
            self._samples = loader._reader()
        else:
            datasets = [copy.copy(loader.dataset) if loader._iterable else loader.dataset for _ in range(count)]
            self._workers = Workers(count, loader._reader, datasets, order.seed, loader.worker_init_fn)
            for _ in range(count * (loader.prefetch_factor or 1)):
                self._submit()

    def _submit(self) -> None:
        drawn = self._order.draw()
        if drawn is not None and self._workers is not None:
            self._workers.submit(*drawn)

    def _read(self) -> Any:
        """The samples of the next batch, or `_END`."""
        if self._workers is None:
            drawn = self._order.draw()
            if drawn is None:
                return _END
            self._order.give()
            return self._samples(*drawn, self._streams)
        while not self._workers.idle() and self._empty < self._loader.num_workers:
            self._workers.wait(self._loader.timeout)
            self._submit()
            self._order.give()
            read = self._workers.take()
            if read is not _END:
                self._empty = 0
                return read
            self._empty += 1
        return _END

    def __iter__(self) -> _Iteration[Sample]:
        return self

    def __next__(self) -> Sample:
        if self._over:
            raise StopIteration
        try:
            read = self._read()
            if read is not _END:
                self._given += 1
                self._check_length()
                return self._loader._finish(read)       # type: ignore[no-any-return]
        except StopIteration as error:
            raise RuntimeError("[DataLoader] the data set, the sampler or collate_fn raised StopIteration") from error
        self._loader._ended(self._order)
        self.close()
        raise StopIteration

    def _check_length(self) -> None:
        """Warns where an iterable data set gives more than it said."""
        told = self._loader._told
        if told is not None and self._given > told:
            warn(f"Length of IterableDataset {brief(self._loader.dataset)} was reported to be {told} (when accessing "
                 f"len(dataloader)), but {self._given} samples have been fetched. For multiprocessing data-loading, "
                 "this happens where each worker gives all samples instead of its part: see get_worker_info")

    def __len__(self) -> int:
        """The number of batches in the whole epoch."""
        return len(self._loader)

    def close(self) -> None:
        """Ends the iteration and its threads; the samples that they read at this moment are the last."""
        self._over = True
        if self._workers is not None:
            self._workers.close()


class DataLoader(Guarded, Generic[Sample]):
    """Iterates over a data set in batches. An iteration is one epoch.

    dataset        has `__getitem__` and `__len__`, else TypeError (see `Dataset`), or is an `IterableDataset`
    batch_size     samples in a batch; None gives single samples
    shuffle        a new order each epoch. Its seed is drawn from `generator`, or made of `seed` and the epoch's number
    sampler        gives the indices instead: see `data.sampler`
    batch_sampler  gives the lists of indices instead
    num_workers    threads that read samples ahead. The order of the batches does not change, and `collate_fn` runs in
                   the thread that iterates. A loop that ends early, by `break`, an error or Ctrl-C, waits for no sample
    collate_fn     makes a batch of a list of samples (default: `default_collate`)
    drop_last      leaves out the last batch if it is smaller
    timeout        seconds that a batch of the workers may take, else RuntimeError; 0 waits for ever
    worker_init_fn   called with the worker's number at the start of each worker; see `data.get_worker_info`
    generator      draws the seed of an epoch (default: the global generator)
    seed           fixes the seed of every epoch
    prefetch_factor   how many batches a thread reads ahead (default 2)
    persistent_workers, pin_memory, pin_memory_device, multiprocessing_context, in_order
                   accepted, without effect: workers are threads, batches lie in ordinary memory and come in order

    ValueError for arguments that exclude each other.

    Random numbers: while a sample is read, the default generators are a stream of its own, made of the epoch's seed and
    the sample's place in the epoch. So a seed gives the same samples with any number of workers, and reading them does
    not change what the model draws. In workers this holds also for `numpy.random.*` and `random.*`, called through
    their modules. A generator that `worker_init_fn` seeds goes on from that seed instead: worker i reads the batches i,
    i + num_workers, ... A data set that has `take` or `__getitems__` has one stream for a batch.

    `state_dict()` can be taken in the middle of an epoch. After `load_state_dict` the next iteration continues that
    epoch with the next batch, in the same order and with the same random numbers.

        loader = DataLoader(dataset, batch_size=32, shuffle=True, seed=0)
        for images, labels in loader:
            ...
    """

    def __init__(self, dataset: Any, batch_size: int | None = 1, shuffle: bool | None = None,
                 sampler: Iterable[int] | None = None, batch_sampler: Iterable[Sequence[int]] | None = None,
                 num_workers: int = 0, collate_fn: Callable[[Any], Any] | None = None, pin_memory: bool = False,
                 drop_last: bool = False, timeout: float = 0, worker_init_fn: Callable[[int], None] | None = None,
                 multiprocessing_context: Any = None, generator: Generator | None = None, *,
                 prefetch_factor: int | None = None, persistent_workers: bool = False, pin_memory_device: str = "",
                 in_order: bool = True, seed: int | None = None) -> None:
        self._iterable = isinstance(dataset, IterableDataset)
        if self._iterable:
            for name, value in (("shuffle", shuffle), ("sampler", sampler), ("batch_sampler", batch_sampler)):
                if value not in (None, False):
                    raise ValueError(f"DataLoader with IterableDataset: expected unspecified {name} option, "
                                     f"but got {name}={value}")
        sized = self._iterable or hasattr(dataset, "__len__") or sampler is not None or batch_sampler is not None
        if not hasattr(dataset, "__getitem__") or not sized:
            raise TypeError("[DataLoader] dataset must have __getitem__ and __len__; "
                            f"got {type(dataset).__name__}")
        _check_workers(num_workers, prefetch_factor, persistent_workers, timeout)
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None and (batch_size != 1 or shuffle or sampler is not None or drop_last):
            raise ValueError("batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, "
                             "and drop_last")
        if batch_size is None and drop_last:
            raise ValueError("batch_size=None option disables auto-batching and is mutually exclusive with drop_last")
        if batch_size is not None:
            check_batch_size(batch_size)
        if not isinstance(drop_last, bool):
            raise ValueError(f"[DataLoader] drop_last should be a boolean value; got {drop_last!r}")
        self.dataset, self.batch_size = dataset, None if batch_sampler is not None else batch_size
        self.shuffle, self.drop_last = bool(shuffle), drop_last
        self.sampler, self.batch_sampler = sampler, batch_sampler
        self.num_workers, self.prefetch_factor = num_workers, prefetch_factor       # 2 if there are workers, else None
        if num_workers:
            self.prefetch_factor = 2 if prefetch_factor is None else max(prefetch_factor, 1)
        self.collate_fn, self.generator, self.seed = collate_fn, generator, seed
        self.timeout, self.worker_init_fn, self.persistent_workers = timeout, worker_init_fn, persistent_workers
        _check_context(multiprocessing_context, num_workers)
        self.multiprocessing_context, self.in_order = multiprocessing_context, in_order
        self.pin_memory, self.pin_memory_device = pin_memory, pin_memory_device
        self._take = batch_taker(dataset) if collate_fn is None else None
        self._single = batch_size is None and batch_sampler is None
        self._epoch = 0
        self._told: int | None = None               # the length of an iterable data set, once the program asked
        self._order: _Order | None = None           # of the epoch that is under way
        self._sampler_state: Any = None             # of the sampler, before it gave the order
        self._loaded: dict[str, Any] | None = None      # the epoch to continue

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED and name in self.__dict__:
            raise ValueError(f"{name} attribute should not be set after {type(self).__name__} is initialized")
        super().__setattr__(name, value)

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        if self.batch_sampler is not None:
            return len(self.batch_sampler)              # type: ignore[arg-type]
        n = len(self.dataset if self.sampler is None else self.sampler)        # type: ignore[arg-type]
        if self._iterable:
            self._told = n
        return n if self.batch_size is None else batch_count(n, self.batch_size, self.drop_last)

    def __repr__(self) -> str:
        shown = [brief(self.dataset)] + [f"batch_size={self.batch_size}"] * (self.batch_sampler is None)
        for name in ("shuffle", "sampler", "batch_sampler", "num_workers", "drop_last", "seed", "collate_fn"):
            value = getattr(self, name)
            if value is not None and value is not False and (name == "seed" or value != 0):
                shown.append(f"{name}={brief(value)}")
        with suppress(TypeError):                   # of data without a length
            shown.append(f"{len(self)} batches")
        return f"{type(self).__name__}({', '.join(shown)})"

    # ---- which samples ----

    def _draw_seed(self) -> int:
        """The seed of the epoch that begins."""
        if self.seed is not None:
            return (self.seed << 32 | self._epoch) & (1 << 96) - 1
        return int(randint(0, 1 << 62, (1,), generator=self.generator).item())

    def _lists(self, seed: int) -> Iterable[Any]:
        """Lists of indices, or single indices without batches."""
        if self._iterable:                          # endless: how many samples to read
            return repeat(None if self.batch_size is None else range(self.batch_size))
        if self.batch_sampler is not None:
            return self.batch_sampler
        order: Iterable[int] = range(len(self.dataset)) if self.sampler is None else self.sampler
        if self.shuffle:
            words = [seed >> 32 * i & 0xFFFFFFFF for i in range(3)]
            order = np.random.RandomState(words).permutation(len(self.dataset)).tolist()    # NumPy keeps this as it is
        return order if self.batch_size is None else batched(order, self.batch_size, self.drop_last)

    # ---- their values ----

    def _read(self, first: int, indices: Any, streams: Streams,
              cancelled: Callable[[], bool] | None = None) -> tuple[Any, bool]:
        """The samples of one batch, and whether they form a batch already. Workers call it.

        `first` is the number of the first sample in the epoch. `cancelled` tells that nobody wants the batch any more.
        """
        streams.number = first
        with _drawing(streams):
            if self._single:
                return self.dataset[indices], False
            if self._take is not None:
                return self._take(indices), True
            if callable(getattr(self.dataset, "__getitems__", None)):
                return samples_of(self.dataset, indices), False
            samples = []
            for i in indices:
                if cancelled is not None and cancelled():
                    break
                samples.append(self.dataset[i])
                streams.number += 1
            return samples, False

    def _reader(self) -> Callable[..., Any]:
        """What reads a batch in the thread that calls this: `_read`, or its like for an iterable data set."""
        if not self._iterable:
            return self._read
        worker = get_worker_info()
        source = iter(self.dataset if worker is None else worker.dataset)

        def read(first: int, places: Any, streams: Streams, cancelled: Callable[[], bool] | None = None) -> Any:
            streams.number, samples = first, []
            with _drawing(streams):
                for _ in (0,) if self._single else places:
                    sample = _END if cancelled is not None and cancelled() else next(source, _END)
                    if sample is _END:
                        break
                    samples.append(sample)
                    streams.number += 1
            if not samples or (self.drop_last and len(samples) < len(places)):
                return _END
            return samples[0] if self._single else samples, False
        return read

    def _finish(self, read: tuple[Any, bool]) -> Any:
        values, done = read
        if done:
            return values
        if self.collate_fn is not None:
            return self.collate_fn(values)
        return default_convert(values) if self._single else default_collate(values)

    def __iter__(self) -> Iterator[Sample]:
        """The batches of the next epoch, or the rest of the epoch that `load_state_dict` restored."""
        if self._order is not None:                 # given up
            self._ended(self._order)
        state, self._loaded = self._loaded or {}, None
        seed = state.get("seed")
        seed = self._draw_seed() if seed is None else seed
        self._sampler_state = order_state(self._order_source())
        rest = state.get("rest")
        order = self._order = _Order(self._lists(seed) if rest is None else rest[1], self._single, seed)
        if rest is not None:
            order.given, order.first = state["position"], rest[0]
        for _ in range(0 if self._iterable or rest is not None else state.get("position", 0)):
            if order.draw() is not None:
                order.give()
        iteration: _Iteration[Sample] = _Iteration(self, order)
        while order.given < state.get("position", 0) and iteration._read() is not _END:
            pass                                    # an iterable data set is read again
        return iteration

    def _order_source(self) -> Any:
        """The sampler that was given, or None."""
        return self.sampler if self.batch_sampler is None else self.batch_sampler

    def _ended(self, order: _Order) -> None:
        if order is self._order:                    # else another iteration began since
            self._epoch, self._order = self._epoch + 1, None

    # ---- resuming ----

    def state_dict(self) -> dict[str, Any]:
        """Where the loader is, for `load_state_dict` and `minigrad.save`.

            epoch, position   the epoch's number, and the number of batches given in it
            seed              of this epoch, or None before it begins
            generator         the state of `generator`, or None
            sampler           the state of the sampler when it began: `sampler.state_dict()` if it has the method; else,
                              of the samplers in `data`, the state of their generator
            of                the number of samples, and `batch_size`: a state of others is refused
            rest              None; for a sampler of another kind, what it has not given yet. RuntimeError if its
                              length is not known

        The order of later epochs is saved as far as it comes from `seed`, `generator` and the sampler's state; save the
        state of the global generator beside it (`minigrad.get_rng_state`).
        """
        if self._loaded is not None:
            return self._loaded
        order, source = self._order, self._order_source()
        state: dict[str, Any] = {"epoch": self._epoch, "position": 0, "seed": None, "generator": None,
                                 "sampler": order_state(source), "rest": None, "of": self._of()}
        if self.generator is not None:
            state["generator"] = self.generator.get_state().tolist()
        if order is not None:
            state.update(position=order.given, seed=order.seed, sampler=self._sampler_state)
            if self._sampler_state is None:
                if not hasattr(source, "__len__"):
                    raise RuntimeError(f"[DataLoader] state_dict: the order of a {type(source).__name__} is not known; "
                                       "give it __len__, so that it can be read to its end, or state_dict and "
                                       "load_state_dict")
                state["rest"] = order.rest()
        return state

    def _of(self) -> list[int | None]:
        return [len(self.dataset) if hasattr(self.dataset, "__len__") else None, self.batch_size]

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continues where another loader over the same data set was: the next iteration gives its next batch."""
        if "epoch" not in state_dict:
            raise ValueError("[DataLoader] the state must be what state_dict() returned; got the keys "
                             f"{list(state_dict)}")
        of, here = state_dict.get("of"), self._of()
        if of is not None and list(of) != here:
            raise ValueError("[DataLoader] the state must be of a loader over as many samples, in batches of the same "
                             f"size; got the state of {of[0]} samples, batch_size {of[1]}, for {here[0]} samples, "
                             f"batch_size {here[1]}")
        self._epoch, self._order, self._loaded = state_dict["epoch"], None, dict(state_dict)
        if self.generator is not None and state_dict.get("generator") is not None:
            self.generator.set_state(tensor(state_dict["generator"], dtype=np.int64))
        load_order(self._order_source(), state_dict.get("sampler"))


_FIXED = ("dataset", "batch_size", "sampler", "batch_sampler", "drop_last", "persistent_workers")


def _check_context(context: Any, num_workers: int) -> None:
    """Is it None, or how processes can be started, in PyTorch's words?"""
    if context is None:
        return
    if num_workers == 0:
        raise ValueError("[DataLoader] multiprocessing_context needs num_workers > 0")
    import multiprocessing  # seldom needed

    methods = multiprocessing.get_all_start_methods()
    if not isinstance(context, str | multiprocessing.context.BaseContext):
        raise TypeError("[DataLoader] multiprocessing_context must be a string or a context of multiprocessing; "
                        f"got {type(context).__name__}")
    if isinstance(context, str) and context not in methods:
        raise ValueError(f"[DataLoader] multiprocessing_context must be one of {methods}; got {context!r}")


def _check_workers(num_workers: int, prefetch_factor: int | None, persistent_workers: bool, timeout: float) -> None:
    """ValueError for options of workers that do not fit together."""
    if num_workers < 0:
        raise ValueError("num_workers option should be non-negative")
    if timeout < 0:
        raise ValueError("timeout option should be non-negative")
    if num_workers == 0 and (prefetch_factor is not None or persistent_workers or timeout):
        raise ValueError("[DataLoader] prefetch_factor, persistent_workers and timeout need num_workers > 0")
    if prefetch_factor is not None and prefetch_factor < 0:
        raise ValueError("prefetch_factor option should be non-negative")
