"""`DataLoader`: batches of a data set, shuffled by a seed, read ahead by threads, resumable within an epoch."""
from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np

from ..core.messages import Guarded
from ..core.tensor import Tensor
from ..ops.creation import as_tensor, tensor
from ..ops.join import stack
from ..ops.random import Generator, randint
from .dataset import batch_taker
from .sampler import batch_count, batched, check_batch_size


def default_collate(batch: Sequence[Any]) -> Any:
    """Makes one batch of a list of samples.

    Tensors, NumPy arrays and numbers are stacked along a new first dimension; Python floats become float64, integers
    int64. Samples that are tuples, lists or dicts are collated entry by entry; strings become a list. TypeError for
    other samples, RuntimeError if tuples or lists differ in length.

        default_collate([(tensor_a, 0), (tensor_b, 1)])     # [tensor (2, *tensor_a.shape), tensor([0, 1])]
    """
    first = batch[0]
    if isinstance(first, Tensor):
        if any(t.requires_grad or t.device.type != "cpu" for t in batch):
            return stack(list(batch), 0)
        return as_tensor(np.stack([t.array.np for t in batch]))
    if isinstance(first, np.ndarray | np.generic):
        if first.dtype.kind in "OSUMm":
            raise TypeError("default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; "
                            f"found {first.dtype}")
        return as_tensor(np.stack(batch))
    if isinstance(first, float):
        return tensor(list(batch), dtype=np.float64)
    if isinstance(first, int):
        return tensor(list(batch))
    if isinstance(first, str | bytes):
        return list(batch)
    if isinstance(first, Mapping):
        return {key: default_collate([sample[key] for sample in batch]) for key in first}
    if isinstance(first, tuple | list):
        if any(len(sample) != len(first) for sample in batch):
            raise RuntimeError("each element in list of batch should be of equal size")
        columns = [default_collate(column) for column in zip(*batch, strict=True)]
        return type(first)(*columns) if hasattr(first, "_fields") else columns
    raise TypeError("default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; "
                    f"found {type(first)}")


def default_convert(sample: Any) -> Any:
    """The sample with its NumPy arrays as tensors, also within tuples, lists and dicts; used with `batch_size=None`."""
    if isinstance(sample, np.ndarray | np.generic) and sample.dtype.kind not in "OSUMm":
        return as_tensor(np.asarray(sample))
    if isinstance(sample, Mapping):
        return {key: default_convert(value) for key, value in sample.items()}
    if isinstance(sample, tuple | list):
        values = [default_convert(value) for value in sample]
        if hasattr(sample, "_fields"):                  # a named tuple
            return type(sample)(*values)
        return values if isinstance(sample, list) else tuple(values)
    return sample


class DataLoader(Guarded):
    """Iterates over a data set in batches. An iteration is one epoch.

    dataset        has `__getitem__` and `__len__`, else TypeError; see `Dataset`
    batch_size     samples in a batch; None gives single samples
    shuffle        a new order each epoch. Its seed is drawn from `generator`, or made of `seed` and the epoch's number
    sampler        gives the indices instead: see `data.sampler`
    batch_sampler  gives the lists of indices instead
    num_workers    threads that read samples ahead. The order of the batches does not change, and `collate_fn` runs in
                   the thread that iterates
    collate_fn     makes a batch of a list of samples (default: `default_collate`)
    drop_last      leaves out the last batch if it is smaller
    generator      draws the seed of an epoch (default: the global generator)
    seed           fixes the order of every epoch
    prefetch_factor   how many batches a thread reads ahead (default 2)
    persistent_workers   accepted, without effect
    pin_memory, timeout, worker_init_fn, multiprocessing_context, pin_memory_device, in_order
                   must keep their defaults, else NotImplementedError: workers are threads

    ValueError for arguments that exclude each other.

    `state_dict()` can be taken in the middle of an epoch. After `load_state_dict` the next iteration continues that
    epoch with the next batch, in the same order.

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
        for name, value in (("pin_memory", pin_memory), ("timeout", timeout), ("worker_init_fn", worker_init_fn),
                            ("multiprocessing_context", multiprocessing_context),
                            ("pin_memory_device", pin_memory_device), ("in_order", not in_order)):
            if value:
                raise NotImplementedError(f"DataLoader: {name} is not supported; workers are threads, "
                                          "leave it at its default")
        sized = hasattr(dataset, "__len__") or sampler is not None or batch_sampler is not None
        if not hasattr(dataset, "__getitem__") or not sized:
            raise TypeError(f"DataLoader needs a dataset with __getitem__ and __len__; got {type(dataset).__name__}")
        if num_workers < 0:
            raise ValueError("num_workers option should be non-negative")
        if num_workers == 0 and (prefetch_factor is not None or persistent_workers):
            raise ValueError("prefetch_factor and persistent_workers need num_workers > 0")
        if prefetch_factor is not None and prefetch_factor < 0:
            raise ValueError("prefetch_factor option should be non-negative")
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None and (batch_size != 1 or shuffle or sampler is not None or drop_last):
            raise ValueError("batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, "
                             "and drop_last")
        if batch_size is None and drop_last:
            raise ValueError("batch_size=None option disables auto-batching and is mutually exclusive with drop_last")
        if batch_size is not None:
            check_batch_size(batch_size)
        self.dataset, self.batch_size = dataset, None if batch_sampler is not None else batch_size
        self.shuffle, self.drop_last = bool(shuffle), drop_last
        self.sampler, self.batch_sampler = sampler, batch_sampler
        self.num_workers, self.prefetch_factor = num_workers, 2 if prefetch_factor is None else max(prefetch_factor, 1)
        self.collate_fn, self.generator, self.seed = collate_fn, generator, seed
        self._take = batch_taker(dataset) if collate_fn is None else None
        self._epoch = 0
        self._position = 0              # the number of batches given in this epoch
        self._epoch_seed: int | None = None     # of this epoch's order; None until it is drawn
        self._begun = False             # whether an iteration over this epoch began: another one is the next epoch

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        if self.batch_sampler is not None:
            return len(self.batch_sampler)              # type: ignore[arg-type]
        n = len(self.dataset if self.sampler is None else self.sampler)        # type: ignore[arg-type]
        return n if self.batch_size is None else batch_count(n, self.batch_size, self.drop_last)

    # ---- which samples ----

    def _order(self) -> Iterable[int]:
        if self.sampler is not None:
            return self.sampler
        n = len(self.dataset)
        if not self.shuffle:
            return range(n)
        if self._epoch_seed is None:
            if self.seed is not None:
                self._epoch_seed = (self.seed << 32 | self._epoch) & (1 << 96) - 1
            else:
                self._epoch_seed = int(randint(0, (1 << 62), (1,), generator=self.generator).item())
        words = [self._epoch_seed >> 32 * i & 0xFFFFFFFF for i in range(3)]
        order: list[int] = np.random.RandomState(words).permutation(n).tolist()     # NumPy promises not to change this
        return order

    def _batches(self) -> Iterator[Any]:
        """Lists of indices, or single indices without batches."""
        if self.batch_sampler is not None:
            yield from self.batch_sampler
        elif self.batch_size is None:
            yield from self._order()
        else:
            yield from batched(self._order(), self.batch_size, self.drop_last)

    # ---- their values ----

    @property
    def _single(self) -> bool:
        return self.batch_size is None and self.batch_sampler is None

    def _read(self, indices: Any) -> tuple[Any, bool]:
        """The samples of one batch, and whether they form a batch already. Runs in a worker's thread."""
        if self._single:
            return self.dataset[indices], False
        if self._take is not None:
            return self._take(indices), True
        return [self.dataset[i] for i in indices], False

    def _finish(self, read: tuple[Any, bool]) -> Any:
        values, done = read
        if done:
            return values
        if self.collate_fn is not None:
            return self.collate_fn(values)
        return default_convert(values) if self._single else default_collate(values)

    def _ahead(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Reads in threads, several batches ahead, and gives the batches in order."""
        with ThreadPoolExecutor(self.num_workers, thread_name_prefix="minigrad-data") as pool:
            waiting: deque[Future[tuple[Any, bool]]] = deque()
            try:
                for indices in islice(batches, self.num_workers * self.prefetch_factor):
                    waiting.append(pool.submit(self._read, indices))
                while waiting:
                    read = waiting.popleft().result()
                    for indices in islice(batches, 1):
                        waiting.append(pool.submit(self._read, indices))
                    yield read
            finally:
                for future in waiting:
                    future.cancel()

    def __iter__(self) -> Iterator[Any]:
        """The batches of the next epoch, or the rest of the epoch that `load_state_dict` restored."""
        if self._begun:
            self._next_epoch()
        self._begun, start = True, self._position
        batches = islice(self._batches(), start, None)
        reads = self._ahead(batches) if self.num_workers else map(self._read, batches)
        for i, read in enumerate(reads, start + 1):
            batch = self._finish(read)
            self._position = i
            yield batch
        self._next_epoch()

    def _next_epoch(self) -> None:
        self._epoch, self._position, self._epoch_seed, self._begun = self._epoch + 1, 0, None, False

    # ---- resuming ----

    def state_dict(self) -> dict[str, Any]:
        """{"epoch": its number, "position": the number of batches given in it, "seed": of its order, or None}."""
        return {"epoch": self._epoch, "position": self._position, "seed": self._epoch_seed}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continues where another loader over the same data set was: the next iteration gives its next batch."""
        self._epoch, self._position, self._epoch_seed = (state_dict[key] for key in ("epoch", "position", "seed"))
        self._begun = False
