"""Data sets. Anything with `len` and `[index]` is one; with a method `take(indices)` it gives a whole batch at once."""
from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic

import numpy as np

from ..core.display import brief, constructed
from ..core.notes import Notes
from ..core.tensor import Tensor, new_tensor
from ..core.warning import warn
from ..ops.creation import as_tensor
from ..ops.random import Generator, randperm

if TYPE_CHECKING:                   # a type that is not given is Any
    from typing_extensions import TypeVar
    Sample = TypeVar("Sample", covariant=True, default=Any)
else:
    from typing import TypeVar
    Sample = TypeVar("Sample", covariant=True)


class Dataset(Generic[Sample]):
    """Base class. A subclass defines `__getitem__` (a sample, of any form) and `__len__`.

    It may define `take(indices)` as well: the batch of these samples, which `DataLoader` then asks for instead of
    single samples, or `__getitems__(indices)`: the list of these samples. `a + b` is the `ConcatDataset` of both.

        class Squares(Dataset):
            def __len__(self):
                return 100

            def __getitem__(self, index):
                return float(index), float(index**2)
    """

    def __getitem__(self, index: Any) -> Sample:
        raise NotImplementedError("Subclasses of Dataset should implement __getitem__.")

    def __add__(self, other: Any) -> ConcatDataset[Any]:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[Sample], Iterable[Sample]):
    """Base class of data sets that are read from front to back. A subclass defines `__iter__`, and `__len__` if the
    number of samples is known. `a + b` is the `ChainDataset` of both.

    A `DataLoader` with workers gives each of them a copy (`copy.copy`), which must give a part of the samples: see
    `data.get_worker_info`.
    """

    def __iter__(self) -> Iterator[Sample]:
        raise NotImplementedError("Subclasses of IterableDataset should implement __iter__.")

    def __add__(self, other: Any) -> ChainDataset[Any]:     # type: ignore[override]
        return ChainDataset([self, other])


class ChainDataset(IterableDataset[Sample]):
    """The samples of several iterable data sets, one set after the other. AssertionError for a set of another kind."""

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = list(datasets)
        if not all(isinstance(d, IterableDataset) for d in self.datasets):
            raise AssertionError("ChainDataset only supports IterableDataset")

    def __iter__(self) -> Iterator[Sample]:
        return itertools.chain.from_iterable(self.datasets)

    def __len__(self) -> int:
        return sum(len(d) for d in self.datasets)

    __repr__ = constructed


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Sample i is the tuple of t[i] for each tensor t. AssertionError unless all tensors have the same first size."""

    def __init__(self, *tensors: Tensor) -> None:
        if any(t.shape[0] != tensors[0].shape[0] for t in tensors):
            raise AssertionError("Size mismatch between tensors")
        self.tensors = tensors

    def _noted(self, notes: Notes, text: str) -> None:
        """Notes for a capture the tensors."""
        notes.object(self, text)
        notes.add(self.__dict__, ("tensors",), text)
        notes.visit(self.tensors, text)

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(t[index] for t in self.tensors)

    def __len__(self) -> int:
        return self.tensors[0].shape[0]

    __repr__ = constructed

    def take(self, indices: Sequence[int]) -> list[Tensor]:
        """The batch of these samples: for each tensor (N, ...) a new one (len(indices), ...)."""
        where = np.asarray(indices, np.int64)
        return [_rows(t, where) for t in self.tensors]


def _rows(t: Tensor, where: np.ndarray) -> Tensor:
    if t.requires_grad or t.device.type != "cpu":
        return t[as_tensor(where).to(t.device)]
    rows = np.take(t.array.np, where, axis=0)       # not a launch: a loader's thread may run while a step is recorded
    return new_tensor(t.device.wrap(rows), None)    # type: ignore[attr-defined]


class Subset(Dataset[Sample]):
    """The samples of another data set at `indices`: sample i is dataset[indices[i]]."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """These samples, by `__getitems__` of the other data set if it has one."""
        at = [self.indices[i] for i in indices]
        together = getattr(self.dataset, "__getitems__", None)
        return together(at) if callable(together) else [self.dataset[i] for i in at]

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        return f"Subset({len(self)} samples of {brief(self.dataset)})"

    def take(self, indices: Sequence[int]) -> Any:
        """The batch of these samples, from `take` of the other data set; TypeError if that set has none."""
        take = batch_taker(self.dataset)
        if take is None:
            raise TypeError(f"{type(self.dataset).__name__} reads samples one by one")
        return take([self.indices[i] for i in indices])


class ConcatDataset(Dataset[Sample]):
    """The samples of several data sets, one set after the other. AssertionError without a set, or with an iterable one.

    Index -1 is the last sample. IndexError, which ends a `for` loop, for an index after the last sample; ValueError for
    one before the first.
    """

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise AssertionError("datasets should not be an empty iterable")
        if any(isinstance(d, IterableDataset) for d in self.datasets):
            raise AssertionError("ConcatDataset does not support IterableDataset")
        self.cumulative_sizes = list(itertools.accumulate(len(d) for d in self.datasets))

    def __getitem__(self, index: int) -> Any:
        if index < -len(self):
            raise ValueError("absolute value of index should not exceed dataset length")
        if index >= len(self):
            raise IndexError(f"index {index} is out of range for a data set of {len(self)} samples")
        index %= len(self)
        i = bisect_right(self.cumulative_sizes, index)
        return self.datasets[i][index - self.cumulative_sizes[i - 1] if i else index]

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    __repr__ = constructed


class StackDataset(Dataset[Sample]):
    """Sample i is the tuple of d[i] for each data set d, or a dict of them where the data sets are given by name.

    ValueError without a data set, for both kinds at once, and for different lengths.

        pairs = StackDataset(image=images, text=texts)
        pairs[0]["image"]                                   # images[0]
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if args and kwargs:
            raise ValueError("Supported either data sets in their order, for tuples, or by name, for dicts; got both")
        self.datasets: Any = kwargs or args
        lengths = {len(d) for d in self._members()}
        if not lengths:
            raise ValueError("At least one dataset should be passed")
        if len(lengths) > 1:
            raise ValueError("Size mismatch between datasets")

    def _members(self) -> list[Any]:
        return list(self.datasets.values() if isinstance(self.datasets, dict) else self.datasets)

    def _sample(self, values: Iterable[Any]) -> Any:
        return dict(zip(self.datasets, values, strict=True)) if isinstance(self.datasets, dict) else tuple(values)

    def __getitem__(self, index: Any) -> Any:
        return self._sample(d[index] for d in self._members())

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        columns = [samples_of(d, indices) for d in self._members()]
        return [self._sample(row) for row in zip(*columns, strict=True)]

    def __len__(self) -> int:
        return len(self._members()[0])

    __repr__ = constructed


def samples_of(dataset: Any, indices: Sequence[int]) -> Sequence[Any]:
    """The samples at `indices`: by the data set's `__getitems__`, if it has one. ValueError if that gives another
    number of samples."""
    read = getattr(dataset, "__getitems__", None)
    if not callable(read):
        return [dataset[i] for i in indices]
    samples: Sequence[Any] = read(indices)
    if len(samples) != len(indices):
        raise ValueError(f"[{type(dataset).__name__}] __getitems__ must give a sample for each index; "
                         f"got {len(samples)} for {len(indices)}")
    return samples


def batch_taker(dataset: Any) -> Callable[[Sequence[int]], Any] | None:
    """The method `take` of a data set, or None where samples must be read one by one.

    None for what is no `Dataset` (`take` of tensors and arrays means something else), and for a subclass that defines
    another `__getitem__` without `take`: the inherited `take` would give other samples.
    """
    if not isinstance(dataset, Dataset):
        return None
    for cls in type(dataset).__mro__:
        if "take" in cls.__dict__:
            if isinstance(dataset, Subset) and batch_taker(dataset.dataset) is None:
                return None
            take: Callable[[Sequence[int]], Any] = dataset.take     # type: ignore[attr-defined]
            return take
        if "__getitem__" in cls.__dict__:
            return None
    return None


def random_split(dataset: Any, lengths: Sequence[int | float], generator: Generator | None = None) -> list[Subset[Any]]:
    """Splits the samples at random into subsets.

    lengths    the sizes, which sum to len(dataset), or fractions that sum to 1; else ValueError. Sizes from fractions
               are rounded down, and the samples left over go one each to the first subsets.
    generator  draws the order (default: the global generator)

        train, test = random_split(dataset, [0.8, 0.2], generator=minigrad.Generator().manual_seed(0))
    """
    shares = math.isclose(sum(lengths), 1)      # twenty times 0.05 is more than 1
    if shares:
        for i, share in enumerate(lengths):
            if not 0 <= share <= 1:
                raise ValueError(f"Fraction at index {i} is not between 0 and 1")
        counts = [math.floor(len(dataset) * share) for share in lengths]
        for i in range(len(dataset) - sum(counts)):
            counts[i % len(counts)] += 1
        for i, n in enumerate(counts):
            if n == 0:
                warn(f"Length of split at index {i} is 0. This might result in an empty dataset.")
    else:
        counts = [int(n) for n in lengths]
    if sum(counts) != len(dataset) or not (shares or counts == list(lengths)):
        raise ValueError("Sum of input lengths does not equal the length of the input dataset!")
    order = randperm(len(dataset), generator=generator).tolist()
    return [Subset(dataset, order[end - n:end]) for end, n in zip(itertools.accumulate(counts), counts, strict=True)]
