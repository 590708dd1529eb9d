"""The sampler of several processes (`minigrad.distributed`), with the arguments of PyTorch's."""
from __future__ import annotations

from collections.abc import Iterator, Sized

from ..distributed import get_rank, get_world_size
from ..ops.random import Generator, randperm
from .sampler import Sampler

__all__ = ["DistributedSampler"]


class DistributedSampler(Sampler[int]):
    """This process's share of the indices of `dataset`: every `num_replicas`-th one, from number `rank` on.

    num_replicas, rank  default: those of the process group
    shuffle             a new order each epoch, the same in all processes: from `seed` and `set_epoch(epoch)`
    drop_last           leaves out the last indices, so that all shares have one length; else the first come again

    Call `set_epoch` before each epoch, also when a run is resumed: else all epochs have one order.

    >>> sampler = data.distributed.DistributedSampler(train)
    >>> for epoch in range(3):
    ...     sampler.set_epoch(epoch)
    ...     for batch in data.DataLoader(train, 32, sampler=sampler): ...
    """

    def __init__(self, dataset: Sized, num_replicas: int | None = None, rank: int | None = None, shuffle: bool = True,
                 seed: int = 0, drop_last: bool = False) -> None:
        self.dataset, self.shuffle, self.seed, self.drop_last = dataset, shuffle, seed, drop_last
        self.num_replicas = get_world_size() if num_replicas is None else num_replicas
        self.rank = get_rank() if rank is None else rank
        if not 0 <= self.rank < self.num_replicas:
            raise ValueError(f"Invalid rank {self.rank}, rank should be in the interval [0, {self.num_replicas - 1}]")
        self.epoch = 0

    @property
    def num_samples(self) -> int:
        """How many indices this process gets."""
        n = len(self.dataset)
        return n // self.num_replicas if self.drop_last else -(-n // self.num_replicas)

    @property
    def total_size(self) -> int:
        """How many all processes get."""
        return self.num_samples * self.num_replicas

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, which the order depends on."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """This process's indices."""
        n, total = len(self.dataset), self.total_size
        if self.shuffle:
            generator = Generator()
            generator.manual_seed(self.seed + self.epoch)
            order = randperm(n, generator=generator).tolist()
        else:
            order = list(range(n))
        order = (order * -(-total // n))[:total] if n else order
        return iter(order[self.rank::self.num_replicas])

    def __len__(self) -> int:
        """`num_samples`."""
        return self.num_samples
