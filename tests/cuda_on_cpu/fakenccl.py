"""What minigrad/distributed/nccl.py calls of `cupy.cuda.nccl`, for processes of one host that exchange files.

A collective belongs to a stream, as on a GPU: it runs at once, later, or with a graph that captured it. Those of a group
begin at its end. Parameters have the names of CuPy's and take what CuPy's take (test_emulator.py compares them); calls
that do not fit raise here, where NCCL hangs.
"""
import ctypes
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

available = True
NCCL_INT8, NCCL_UINT8, NCCL_INT32, NCCL_UINT32, NCCL_INT64, NCCL_UINT64, NCCL_FLOAT16, NCCL_FLOAT32, NCCL_FLOAT64, NCCL_BFLOAT16 = range(10)
NCCL_SUM, NCCL_PROD, NCCL_MAX, NCCL_MIN = range(4)
_TYPES = ["i1", "u1", "i4", "u4", "i8", "u8", "f2", "f4", "f8"]
_REDUCE = [np.add, np.multiply, np.maximum, np.minimum]
_SECONDS = 60
_depth, _queue = 0, []          # of groups; what they hold


class NcclError(RuntimeError):
    pass


def get_unique_id():
    made = tempfile.mkdtemp(prefix="fakenccl-", dir=os.environ.get("FAKENCCL"))
    return made.encode().ljust(128, b"\0")


def groupStart():
    global _depth
    _depth += 1


def groupEnd():
    global _depth
    if _depth == 0:
        raise NcclError("NCCL_ERROR_INVALID_USAGE: groupEnd without groupStart")
    _depth -= 1
    if _depth == 0:
        begin, _queue[:] = list(_queue), []
        for act in begin:
            act()


def _record(call, stream):
    from . import fakecupy
    act = lambda: fakecupy.record(call, fakecupy._streams[stream])  # noqa: E731
    if _depth:
        _queue.append(act)
    else:
        act()


class NcclCommunicator:
    def __init__(self, ndev, commId, rank, config=None):  # noqa: N803
        if type(commId) is not bytes or len(commId) != 128:
            raise TypeError(f"Argument 'commId' has incorrect type (expected bytes, got {type(commId).__name__})")
        self._size, self._rank, self._number, self._dead = ndev, rank, 0, False
        self._folder = Path(commId.rstrip(b"\0").decode())

    def _exchange(self, call, nbytes, at):
        """What each process sends, by rank."""
        if self._dead:
            raise NcclError("NCCL_ERROR_INVALID_USAGE: the communicator was destroyed")
        number, self._number = self._number, self._number + 1
        mine = self._folder / f"{number}.{self._rank}"
        mine.with_suffix(f".{self._rank}.new").write_bytes(call.encode().ljust(64) + ctypes.string_at(at, nbytes))
        mine.with_suffix(f".{self._rank}.new").replace(mine)
        found, limit = [], time.monotonic() + _SECONDS
        for rank in range(self._size):
            path = self._folder / f"{number}.{rank}"
            while not path.exists():
                if time.monotonic() > limit:
                    raise NcclError(f"rank {self._rank} waits for rank {rank} in {call}, where NCCL would hang")
                time.sleep(2e-4)
            told = path.read_bytes()
            if told[:64].decode().strip() != call:
                raise NcclError(f"rank {self._rank}: {call}; rank {rank}: {told[:64].decode().strip()}")
            found.append(told[64:])
        (self._folder / f"{number - 1}.{self._rank}").unlink(missing_ok=True)       # all have read it, or they would not be here
        return found

    def _reduced(self, call, at, count, datatype, op):
        dtype = np.dtype(_TYPES[datatype])
        parts = [np.frombuffer(part, dtype) for part in self._exchange(f"{call} {count} {datatype} {op}", count * dtype.itemsize, at)]
        total = parts[0].copy()
        for part in parts[1:]:
            _REDUCE[op](total, part, out=total)
        return total

    def allReduce(self, sendbuf, recvbuf, count, datatype, op, stream):  # noqa: N802
        def run():
            total = self._reduced("allReduce", sendbuf, count, datatype, op)
            ctypes.memmove(recvbuf, total.ctypes.data, total.nbytes)
        _record(run, stream)

    def broadcast(self, sendbuff, recvbuff, count, datatype, root, stream):
        def run():
            parts = self._exchange(f"broadcast {count} {datatype} {root}", count * np.dtype(_TYPES[datatype]).itemsize, sendbuff)
            ctypes.memmove(recvbuff, parts[root], len(parts[root]))
        _record(run, stream)

    def allGather(self, sendbuf, recvbuf, count, datatype, stream):  # noqa: N802
        def run():
            whole = b"".join(self._exchange(f"allGather {count} {datatype}", count * np.dtype(_TYPES[datatype]).itemsize, sendbuf))
            ctypes.memmove(recvbuf, whole, len(whole))
        _record(run, stream)

    def reduceScatter(self, sendbuf, recvbuf, recvcount, datatype, op, stream):  # noqa: N802
        def run():
            total = self._reduced("reduceScatter", sendbuf, recvcount * self._size, datatype, op)
            part = total[self._rank * recvcount:][:recvcount]
            ctypes.memmove(recvbuf, part.ctypes.data, part.nbytes)
        _record(run, stream)

    def destroy(self):
        self._dead = True
        (self._folder / f"end.{self._rank}").touch()
        if all((self._folder / f"end.{rank}").exists() for rank in range(self._size)):
            shutil.rmtree(self._folder, ignore_errors=True)
