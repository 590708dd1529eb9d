"""Samplers give a `DataLoader` its indices (`sampler=`) or its lists of indices (`batch_sampler=`).

Any iterable can be used as one. An iteration over a sampler is one epoch.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic

import numpy as np

from ..core.display import constructed
from ..core.tensor import Tensor
from ..ops.creation import as_tensor, tensor
from ..ops.random import Generator, multinomial, randint, randperm

if TYPE_CHECKING:                   # a type that is not given is Any
    from typing_extensions import TypeVar
    Index = TypeVar("Index", covariant=True, default=Any)
else:
    from typing import TypeVar
    Index = TypeVar("Index", covariant=True)
_CHUNK = 1024           # how many numbers `RandomSampler` draws at once


class Sampler(Generic[Index]):
    """Base class. A subclass defines `__iter__`, and `__len__` if the number of indices is known.

    `data_source` is accepted for PyTorch's signature and not used.
    """

    def __init__(self, data_source: Any = None) -> None:
        pass

    def __iter__(self) -> Iterator[Index]:
        """The indices of one epoch."""
        raise NotImplementedError("Subclasses of Sampler should implement __iter__.")

    __repr__ = constructed


class SequentialSampler(Sampler[int]):
    """The indices 0, 1, ..., len(data_source) - 1 in order."""

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        """The indices in order."""
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """Indices of `data_source` in a new random order each epoch.

    replacement  draws each index independently, so that one index can come several times
    num_samples  the number of indices in an epoch (default: all). Without replacement, more than len(data_source) gives
                 several orders, one after the other
    generator    draws the indices (default: the global generator)

    ValueError unless `num_samples` is a positive integer, TypeError unless `replacement` is a bool.
    """

    def __init__(self, data_source: Sized, replacement: bool = False, num_samples: int | None = None,
                 generator: Generator | None = None) -> None:
        if not isinstance(replacement, bool):
            raise TypeError(f"replacement should be a boolean value, but got replacement={replacement}")
        self.data_source, self.replacement, self.generator = data_source, replacement, generator
        self.num_samples = len(data_source) if num_samples is None else num_samples
        if not isinstance(self.num_samples, int) or self.num_samples < 0 or num_samples == 0:
            raise ValueError(f"num_samples should be a positive integer value, but got num_samples={num_samples}")

    def __iter__(self) -> Iterator[int]:
        """The indices of one epoch, newly drawn."""
        n = len(self.data_source)
        if self.replacement:
            for start in range(0, self.num_samples, _CHUNK):
                count = min(_CHUNK, self.num_samples - start)
                yield from randint(0, n, (count,), generator=self.generator).tolist()
            return
        for start in range(0, self.num_samples if n else 0, n or 1):
            yield from randperm(n, generator=self.generator).tolist()[:self.num_samples - start]

    def __len__(self) -> int:
        """`num_samples`."""
        return self.num_samples


class SubsetRandomSampler(Sampler[int]):
    """The given indices in a new random order each epoch, drawn by `generator` (default: the global generator)."""

    def __init__(self, indices: Sequence[int], generator: Generator | None = None) -> None:
        self.indices, self.generator = indices, generator

    def __iter__(self) -> Iterator[int]:
        """The indices of one epoch, in a newly drawn order."""
        for i in randperm(len(self.indices), generator=self.generator).tolist():
            yield self.indices[i]

    def __len__(self) -> int:
        """The number of given indices."""
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """Indices drawn with probabilities proportional to `weights`.

    weights      one weight for each index: a sequence, an array or a tensor (n,)
    num_samples  the number of indices in an epoch, a positive integer
    replacement  False: no index comes twice
    generator    draws the indices (default: the global generator)

    ValueError for other arguments.

        sampler = WeightedRandomSampler([0.9, 0.1, 0.1], num_samples=100)       # index 0 about 82 times
    """

    def __init__(self, weights: Sequence[float] | Tensor, num_samples: int, replacement: bool = True,
                 generator: Generator | None = None) -> None:
        if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples <= 0:
            raise ValueError(f"num_samples should be a positive integer value, but got num_samples={num_samples}")
        if not isinstance(replacement, bool):
            raise ValueError(f"replacement should be a boolean value, but got replacement={replacement}")
        self.weights = as_tensor(weights).double()
        self.num_samples, self.replacement, self.generator = num_samples, replacement, generator
        if self.weights.ndim != 1:
            raise ValueError("weights should be a 1d sequence but given weights have shape "
                             f"{tuple(self.weights.shape)}")

    def __iter__(self) -> Iterator[int]:
        """The indices of one epoch, newly drawn."""
        yield from multinomial(self.weights, self.num_samples, self.replacement, generator=self.generator).tolist()

    def __len__(self) -> int:
        """`num_samples`."""
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """Lists of `batch_size` indices of another sampler.

    `drop_last` leaves out the last list if it is shorter. ValueError unless `batch_size` is a positive integer and
    `drop_last` a bool.

        list(BatchSampler(range(5), batch_size=2, drop_last=False))         # [[0, 1], [2, 3], [4]]
    """

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool) -> None:
        check_batch_size(batch_size)
        if not isinstance(drop_last, bool):
            raise ValueError(f"drop_last should be a boolean value, but got drop_last={drop_last}")
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last

    def __iter__(self) -> Iterator[list[int]]:
        """The lists of one epoch."""
        return batched(self.sampler, self.batch_size, self.drop_last)

    def __len__(self) -> int:
        """The number of lists; TypeError if the other sampler has no length."""
        return batch_count(len(self.sampler), self.batch_size, self.drop_last)      # type: ignore[arg-type]


def check_batch_size(batch_size: int) -> None:
    """ValueError unless the batch size is a positive integer."""
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
        raise ValueError(f"batch_size should be a positive integer value, but got batch_size={batch_size}")


def batched(indices: Iterable[int], batch_size: int, drop_last: bool) -> Iterator[list[int]]:
    """Lists of `batch_size` indices, in order; with `drop_last`, without a last list that is shorter."""
    rest = iter(indices)
    while batch := list(islice(rest, batch_size)):
        if len(batch) == batch_size or not drop_last:
            yield batch


def batch_count(n: int, batch_size: int, drop_last: bool) -> int:
    """How many lists `batched` makes of n indices."""
    return n // batch_size if drop_last else -(-n // batch_size)


# ---- what a loader saves of a sampler ----

_KNOWN = (SequentialSampler, RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


def order_state(sampler: Any) -> Any:
    """What the next order of a sampler is made of, beside the default generator; None if that is not known.

    The result of `state_dict()` if the sampler has that method; for one of this file, the state of its generator, if
    it has one; nothing for a sequence.
    """
    if hasattr(sampler, "state_dict"):
        return sampler.state_dict()
    if type(sampler) is BatchSampler:
        return order_state(sampler.sampler)
    if type(sampler) in _KNOWN:
        generator = getattr(sampler, "generator", None)
        return {} if generator is None else {"generator": generator.get_state().tolist()}
    return {} if sampler is None or isinstance(sampler, Sequence | np.ndarray | Tensor) else None


def load_order(sampler: Any, state: Any) -> None:
    """Puts back what `order_state` returned, so that the next order is the same."""
    if type(sampler) is BatchSampler:
        load_order(sampler.sampler, state)
    elif hasattr(sampler, "load_state_dict") and state is not None:
        sampler.load_state_dict(state)
    elif state and type(sampler) in _KNOWN:
        sampler.generator.set_state(tensor(state["generator"], dtype=np.int64))
