"""Threads that read the batches of a `DataLoader` ahead, each with random numbers of its own."""
from __future__ import annotations

import math
import random
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread, local
from time import monotonic
from typing import Any, NamedTuple

import numpy as np

from ..core.modes import mode
from ..ops.random import Streams

_POLL = 0.1         # seconds after which an idle worker looks whether its iterator is still there, and the thread that
#                     iterates whether another thread interrupted it
_LEAVE = 0.1        # seconds that `Workers.close` waits for threads in the middle of a sample; they are left then


class WorkerInfo(NamedTuple):
    """What `get_worker_info` tells a worker: its number, how many there are, its seed, and the data set."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


class _Here(local):
    worker: WorkerInfo | None = None


_here = _Here()


def get_worker_info() -> WorkerInfo | None:
    """In a worker of a `DataLoader`, what it is: `id`, `num_workers`, `seed` and `dataset`. Elsewhere None."""
    return _here.worker


# ---- the generators of NumPy and Python ----

class WorkerStreams(Streams):
    """The streams of a worker: also generators in place of those behind `numpy.random.*` and `random.*`."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._others: dict[Any, Any] = {np.random: np.random.RandomState(0), random: random.Random(0)}
        self._in: dict[Any, int | None] = {np.random: None, random: None}      # the number of the stream of each

    def other(self, module: Any, method: str) -> Callable[..., Any]:
        """A method of the present stream's generator in place of that behind `module`."""
        generator = self._others[module]
        if module in self._in and self._in[module] != self.number:
            seed = self.seed_of(self.number)
            generator.seed([seed & 0xFFFFFFFF, seed >> 32] if module is np.random else seed)
            self._in[module] = self.number
        if self.number < 0 and method in _SEEDING:
            self._in.pop(module, None)                  # from now on it is the user's
        return getattr(generator, method)               # type: ignore[no-any-return]


_SEEDING = ("seed", "set_state", "setstate")
_SHARED = ((np.random, np.random.rand.__self__), (random, random.random.__self__))        # type: ignore[attr-defined]
_ALIASES = {"seed": "seed", "sample": "random_sample", "ranf": "random_sample"}      # of NumPy: no methods themselves
_lock = Lock()
_users = 0
_replaced: list[tuple[Any, str, Any, Any]] = []         # module, name, the function, and what stands for it


@contextmanager
def _own_numbers() -> Iterator[None]:
    """While a worker runs, `numpy.random.*` and `random.*` draw from the stream of its sample, if it calls them.

    All threads share the generators behind these functions, so the numbers of a sample would depend on what the other
    threads do. For all threads but workers the functions stay what they are.
    """
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            for module, shared in _SHARED:
                for name, function in list(vars(module).items()):
                    method = name if getattr(function, "__self__", None) is shared else None
                    if module is np.random:
                        method = _ALIASES.get(name, method)
                    if method is not None:
                        stand_in = _dispatch(function, module, method)
                        _replaced.append((module, name, function, stand_in))
                        setattr(module, name, stand_in)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                for module, name, function, stand_in in _replaced:
                    if getattr(module, name) is stand_in:
                        setattr(module, name, function)
                _replaced.clear()


def _dispatch(function: Callable[..., Any], module: Any, method: str) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        streams = mode.streams
        if isinstance(streams, WorkerStreams):
            return streams.other(module, method)(*args, **kwargs)
        return function(*args, **kwargs)
    return call


# ---- the threads ----

class _Task:
    """A batch that is read: what `read` returned, or its error."""

    def __init__(self, first: int, indices: Any) -> None:
        self.first, self.indices, self.done, self.result = first, indices, Event(), None
        self.error: BaseException | None = None


class Workers:
    """`count` threads that call `read(first, indices, streams, cancelled)`, and give the results in order.

    Each gets its `read` from `reader()`, which it calls itself, and reads every `count`-th batch. They end when the
    object is closed or nobody refers to it any more: after the sample they are at, since `cancelled()` is true then.
    """

    def __init__(self, count: int, reader: Callable[[], Callable[..., Any]], datasets: Sequence[Any], seed: int,
                 init: Callable[[int], Any] | None) -> None:
        self._queues: list[SimpleQueue[_Task | None]] = [SimpleQueue() for _ in range(count)]
        self._stop, self._asked = Event(), 0
        self._waiting: deque[_Task] = deque()
        self._threads = []
        alive = weakref.ref(self)
        for i, dataset in enumerate(datasets):
            worker = WorkerInfo(i, count, (seed + i) & (1 << 63) - 1, dataset)
            thread = Thread(target=_work, args=(alive, self._queues[i], self._stop, reader, worker, seed, init),
                            name=f"minigrad-data_{i}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def idle(self) -> bool:
        """Whether all batches that were asked for are given."""
        return not self._waiting

    def submit(self, first: int, indices: Any) -> None:
        """Asks for a batch; `first` is the number of its first sample."""
        task = _Task(first, indices)
        self._waiting.append(task)
        self._queues[self._asked % len(self._queues)].put(task)
        self._asked += 1

    def wait(self, timeout: float) -> None:
        """Waits until the next batch is read. RuntimeError after `timeout` seconds; 0 waits for ever."""
        end = monotonic() + timeout if timeout else math.inf
        while not self._waiting[0].done.wait(min(_POLL, max(end - monotonic(), 0))):
            if monotonic() >= end:
                raise RuntimeError(f"DataLoader timed out after {timeout} seconds")

    def take(self) -> Any:
        """The next batch, which was waited for, or its error."""
        task = self._waiting.popleft()
        error, task.error = task.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error                   # it refers to this frame
        return task.result

    def close(self) -> None:
        """Ends the threads. One in the middle of a long sample ends after it, unattended."""
        self._stop.set()
        for tasks in self._queues:
            tasks.put(None)
        for thread in self._threads:
            thread.join(_LEAVE / len(self._threads))
        self._waiting.clear()


def _work(alive: Callable[[], Any], tasks: SimpleQueue[_Task | None], stop: Event,
          reader: Callable[[], Callable[..., Any]], worker: WorkerInfo, seed: int,
          init: Callable[[int], Any] | None) -> None:
    """A worker's life. An error of `init` takes the place of the first batch."""
    def cancelled() -> bool:
        return stop.is_set() or alive() is None

    _here.worker = worker
    mode.streams = streams = WorkerStreams(seed)
    streams.number = -1 - worker.id                 # samples count from 0
    failed: BaseException | None = None
    read: Callable[..., Any] | None = None
    with _own_numbers():
        try:
            if init is not None:
                init(worker.id)
        except BaseException as error:
            failed = error
        while not cancelled():
            try:
                task = tasks.get(timeout=_POLL)
            except Empty:
                continue
            if task is None:
                return
            task.error, failed = failed, None
            if task.error is None:
                try:
                    read = read or reader()
                    task.result = read(task.first, task.indices, streams, cancelled)
                except BaseException as error:      # also SystemExit: the thread that iterates gets it
                    task.error = error
            task.done.set()
            task = None                             # the batch must not live until the next task comes
