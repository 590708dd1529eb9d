"""Collectives of NumPy arrays by MPI, through the package `mpi4py`.

Every collective is nonblocking (`I...`), and `wait` looks at it again and again: so Ctrl-C works, and there is a
longest time. Before each collective all processes tell what they are about to call (`agree`): calls that do not fit
would hang, or mix up memory. Processes of one host tell it in memory that all of them see (`memory.py`): a message of
MPI takes 0.1 ms where the caches hold the data of a training step.
"""
from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np

from ..devices import open_device
from ..devices.native import lib
from .agreement import compare
from .memory import shared_memory

_SPIN = 20e-3               # seconds that `wait` looks without a pause; over a network a collective goes on by looks
_PAUSE = 50e-6              # seconds of `wait` between two looks after that

# Run beside the processes of a host, with PIDFD:RANK:PROCESS each: when one dies, a launcher kills the others, and may
# not say which it was. Names all that end or have ended when it gets its turn: a dying process closes its files, by
# which the launcher learns of it, before it has ended (flag 4 of Linux). Ends when its input ends, or has a line.
_WATCH = """
import os, select, sys
def ends(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[6]) & 4
    except OSError:
        return True
arguments = [a.split(":") for a in sys.argv[1:]]
ended = select.select([*[int(found) for found, _, _ in arguments], 0], [], [])[0]
if not (0 in ended and os.read(0, 1)):
    dead = [f"rank {rank} (process {process})" for found, rank, process in arguments
            if int(found) in ended or ends(process)]
    print("[distributed]", ", ".join(dead) or "a process", "died; all processes end", file=sys.stderr)
"""

# Where processes share a core, the one that looks keeps from work the one that it waits for. A collective of several
# rounds goes on only while its processes look, so pauses are short.
_let_others = getattr(os, "sched_yield", lambda: None)


class _Met:
    """What `wait` waits for: all `words` are `count` or more."""

    def __init__(self, words: np.ndarray, count: int, comm: Any) -> None:
        self.words, self.count, self.comm = words, count, comm

    def Test(self) -> bool:
        """Have all processes come?"""
        if self.words.min() < self.count:
            self.comm.Iprobe()                  # a collective that another process waits for goes on by looks
            return False
        lib.mg_fence()
        return True


class Mpi:
    """All processes that `mpiexec` started: `rank` of `size`. Arrays are contiguous; results have one array or more."""

    name = "mpi"

    def __init__(self, seconds: float) -> None:
        try:
            import mpi4py
            first = "mpi4py.MPI" not in sys.modules
            if first:
                mpi4py.rc.finalize = False      # mpi4py's own exit would wait in a forked child, too
            from mpi4py import MPI
        except ImportError as error:
            raise RuntimeError(f"[init_process_group] the backend 'mpi' needs mpi4py and an MPI ({error}); "
                               "pip install '.[mpi]' from a checkout") from None
        if first:
            atexit.register(_finalize, MPI, os.getpid())
        self.mpi, self.seconds, self.process, self.device = MPI, seconds, os.getpid(), open_device("cpu")
        self.comm = MPI.COMM_WORLD.Dup()
        self.rank, self.size = self.comm.Get_rank(), self.comm.Get_size()
        self.operations = {"sum": MPI.SUM, "avg": MPI.SUM, "product": MPI.PROD, "min": MPI.MIN, "max": MPI.MAX}
        self._seen = np.empty(self.size, np.int64)
        self.peers = [tuple(text.rsplit(" ", 1)) for text in self.texts(f"{socket.gethostname()} {os.getpid()}")]
        self._watch = self._watcher()
        self.calls = self.barriers = 0
        self._lines: Any = None                 # of each process: calls, the last two calls' digests, barriers
        memory = shared_memory(self, 64 * (self.size + 1))
        if memory is not None:                  # its first word is not 0 before process 0 has come back from the call
            self._lines = memory.arrays[0].view(np.int64).reshape(-1, 8)[1:]

    # ---- agreement and waiting ----

    def agree(self, call: str) -> None:
        """Returns when all processes are about to make the same call. RuntimeError in all of them if they are not."""
        if self.size == 1:
            return
        own, seen = _digest(call), self._seen
        if self._lines is None:
            self.wait(self.comm.Iallgather(own, seen), call)
        else:                                   # nobody comes to the next call but one before all have seen this one
            self.calls += 1
            seen = self._lines[:, 1 + self.calls % 2]
            seen[self.rank] = own[0]
            self.wait(self._came(0, self.calls), call)
        if (seen != own).any():
            compare(self.texts(call))

    def _came(self, column: int, count: int) -> _Met:
        """Tells the others that this process has come to call or barrier number `count`."""
        lib.mg_fence()
        self._lines[self.rank, column] = count
        return _Met(self._lines[:, column], count, self.comm)

    def texts(self, text: str, call: str = "") -> list[str]:
        """What each process says; all must call it."""
        said, longest = text.encode(), np.array([len(text.encode())])
        self.comm.Allreduce(self.mpi.IN_PLACE, longest, self.mpi.MAX)
        own, all_texts = np.zeros(longest[0], np.uint8), np.zeros((self.size, longest[0]), np.uint8)
        own[:len(said)] = np.frombuffer(said, np.uint8)
        self.comm.Allgather(own, all_texts)
        return [bytes(row).rstrip(b"\0").decode(errors="replace") for row in all_texts]

    def wait(self, request: Any, call: str) -> None:
        """Returns when the request is done. RuntimeError if the other processes have not come in time."""
        begin = now = time.monotonic()
        while not request.Test():
            now = time.monotonic()
            if now - begin > _SPIN:
                time.sleep(_PAUSE)
            else:
                _let_others()
            if now - begin > self.seconds:
                raise RuntimeError(f"[distributed] rank {self.rank} waited {self.seconds:.0f} s in {call} for the "
                                   "other processes; pass a longer `timeout` to init_process_group, or see where they "
                                   "are")

    def _watcher(self) -> Any:
        """The process that names one that has died; the first process of each host starts it."""
        here = [(rank, process) for rank, (host, process) in enumerate(self.peers) if host == self.peers[self.rank][0]]
        if len(here) < 2 or here[0][0] != self.rank or not hasattr(os, "pidfd_open"):
            return None
        found = [os.pidfd_open(int(process)) for _, process in here]
        peers = [f"{f}:{rank}:{process}" for f, (rank, process) in zip(found, here, strict=True)]
        watcher = subprocess.Popen([sys.executable, "-SEc", _WATCH, *peers], stdin=subprocess.PIPE,
                                   stdout=subprocess.DEVNULL, start_new_session=True, pass_fds=found)
        for f in found:
            os.close(f)
        return watcher

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.communicate(b"end")
            self._watch = None

    def run(self, call: str, begin: Callable[[], Any]) -> None:
        """A whole collective: agrees, begins it and waits."""
        self.agree(call)
        self.wait(begin(), call)

    def abort(self) -> None:
        """Ends all processes."""
        self._unwatch()
        sys.stderr.flush()
        self.comm.Abort(1)

    def close(self) -> None:
        """Frees the communicator."""
        self._unwatch()
        self.comm.Free()

    def grouped(self) -> nullcontext[None]:
        """Where collectives may become one launch; those of MPI do not."""
        return nullcontext()

    # ---- collectives: each starts one, and gives the request to wait for ----

    def barrier(self) -> Any:
        """Done when all processes have come here."""
        if self._lines is None:
            return self.comm.Ibarrier()
        self.barriers += 1
        return self._came(3, self.barriers)

    def all_reduce(self, array: np.ndarray, operation: str) -> Any:
        """array = sum (or another operation) of all processes' arrays."""
        return self.comm.Iallreduce(self.mpi.IN_PLACE, array, self.operations[operation])

    def broadcast(self, array: np.ndarray, source: int) -> Any:
        """array = that of the process `source`."""
        return self.comm.Ibcast(_bytes(array), source)

    def all_gather(self, out: np.ndarray, array: np.ndarray) -> Any:
        """out[rank] = each process's array."""
        return self.comm.Iallgather(_bytes(array), _bytes(out))

    def reduce_scatter(self, out: np.ndarray, array: np.ndarray, operation: str) -> Any:
        """out = the sum (or another operation) of all processes' array[rank]."""
        return self.comm.Ireduce_scatter_block(array, out, self.operations[operation])


def _finalize(mpi: Any, process: int) -> None:
    """At the end of the program: the process that began with MPI ends it."""
    if os.getpid() == process and not mpi.Is_finalized():
        mpi.Finalize()


@lru_cache
def _digest(call: str) -> np.ndarray:
    """Eight bytes that stand for a call."""
    return np.frombuffer(blake2b(call.encode(), digest_size=8).digest(), np.int64)


def _bytes(array: np.ndarray) -> np.ndarray:
    """The memory of an array: MPI need not know its type to move it."""
    return array.reshape(-1).view(np.uint8)
