"""`torch.utils.data` beside `minigrad.data`."""
from __future__ import annotations

import math
from collections.abc import Iterator, Sized

import numpy as np

from ..data import Sampler
from ..data.loader import default_collate

__all__ = ["DistributedSampler", "default_collate"]


class DistributedSampler(Sampler[int]):
    """The part of the indices of `dataset` that process `rank` of `num_replicas` reads: each num_replicas-th, of a new
    order after `set_epoch`. The indices are repeated, or with `drop_last` cut, so that all processes have as many.

    Both numbers must be given: minigrad runs in one process, and there is no group to ask. ValueError if they do not
    fit.
    """

    def __init__(self, dataset: Sized, num_replicas: int | None = None, rank: int | None = None, shuffle: bool = True,
                 seed: int = 0, drop_last: bool = False) -> None:
        if num_replicas is None or rank is None:
            raise RuntimeError("[DistributedSampler] num_replicas and rank must be given; minigrad runs in one process")
        if not 0 <= rank < num_replicas:
            raise ValueError(f"Invalid rank {rank}, rank should be in the interval [0, {num_replicas - 1}]")
        self.dataset, self.num_replicas, self.rank = dataset, num_replicas, rank
        self.shuffle, self.seed, self.drop_last, self.epoch = shuffle, seed, drop_last, 0
        self.num_samples = (len(dataset) // num_replicas if drop_last else math.ceil(len(dataset) / num_replicas))
        self.total_size = self.num_samples * num_replicas

    def __iter__(self) -> Iterator[int]:
        """This process's indices."""
        n = len(self.dataset)
        order = np.arange(n)
        if self.shuffle:
            order = np.random.RandomState([self.seed, self.epoch]).permutation(n)
        return iter(np.resize(order, self.total_size)[self.rank::self.num_replicas].tolist())

    def __len__(self) -> int:
        """How many indices this process reads."""
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Which order comes next."""
        self.epoch = epoch
