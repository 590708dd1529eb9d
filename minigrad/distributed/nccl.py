"""Collectives of a GPU's arrays by NCCL, through `cupy.cuda.nccl`: each process has a GPU of its own.

A collective is a launch on the device's stream, as kernels are: it comes in order with them, nothing waits for it, and
a captured step has it inside its CUDA graph. Processes compare their calls (`agree`) when a call is made; replays of a
graph do not. What the processes say goes by `control`: MPI (`mpi.py`), or without one sockets (`store.py`).
"""
from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..devices import add_kernel, cuda, open_device
from ..devices.base import Kernel

_ELEMENTS = {"int8": "INT8", "uint8": "UINT8", "int32": "INT32", "int64": "INT64", "uint32": "UINT32",
             "uint64": "UINT64", "float16": "FLOAT16", "float32": "FLOAT32", "float64": "FLOAT64",
             "bfloat16": "BFLOAT16"}
_OPERATIONS = {"sum": "SUM", "avg": "SUM", "product": "PROD", "min": "MIN", "max": "MAX"}


def unavailable() -> str:
    """Why there is no NCCL, in one sentence; empty if there is one."""
    reason = cuda.unavailable()
    if not reason and not getattr(getattr(cuda.cp.cuda, "nccl", None), "available", False):
        reason = ("CuPy finds no NCCL library; pip install nvidia-nccl-cu13, or nvidia-nccl-cu12 for cupy-cuda12x "
                  "(Linux only)")
    return reason


class Nccl:
    """All processes that `control` connects. Arrays are CuPy's, contiguous, and of `device`."""

    name = "nccl"

    def __init__(self, control: Any, device: Any = None) -> None:
        self.control, self.rank, self.size, self.process = control, control.rank, control.size, os.getpid()
        self.agree, self.peers = control.agree, control.peers
        reasons = control.texts(unavailable(), "init_process_group")
        for rank, reason in enumerate(reasons):
            if reason:
                control.close()
                raise RuntimeError(f"[init_process_group] the backend 'nccl' needs NCCL and a GPU in each process; "
                                   f"got, from rank {rank}: {reason}")
        self.nccl = cuda.cp.cuda.nccl
        if device is None:
            host = self.peers[self.rank][0]
            before = sum([other == host for other, _ in self.peers[:self.rank]])
            device = before % cuda.cp.cuda.runtime.getDeviceCount()
        self.device: Any = None
        self.device = open_device(device)
        self.device.use()                       # what the communicator is made for
        own = self.nccl.get_unique_id().hex() if self.rank == 0 else ""
        number = bytes.fromhex(control.texts(own, "init_process_group")[0])
        self.comm = self.nccl.NcclCommunicator(self.size, number, self.rank)
        # All addresses are "p": what is only written a replay would leave out where nobody reads it in this process
        self._all_reduce = self._kernel("all_reduce", "ppiii", self.comm.allReduce)
        self._broadcast = self._kernel("broadcast", "ppiii", self.comm.broadcast)
        self._all_gather = self._kernel("all_gather", "ppii", self.comm.allGather)
        self._reduce_scatter = self._kernel("reduce_scatter", "ppiii", self.comm.reduceScatter)
        self._begin, self._end = [add_kernel(Kernel(f"nccl_{act.__name__}", "", (), 0, act, self.device))
                                  for act in (self.nccl.groupStart, self.nccl.groupEnd)]

    def _kernel(self, name: str, letters: str, collective: Callable[..., None]) -> Kernel:
        """The collective as a kernel: `call(source, target, count, type, operation or root)`."""
        device = self.device

        def launch(*given: int) -> None:
            redirected = device.use()           # to the stream that records a graph
            collective(*given, (redirected or device.stream).ptr)
        names = ("source", "target", "count", "type", "option")[:len(letters)]
        return add_kernel(Kernel(f"nccl_{name}", letters, names, 0, launch, device))

    @contextmanager
    def grouped(self) -> Iterator[None]:
        """Collectives in its `with` block become one launch at its end."""
        self._begin.call()
        try:
            yield
        finally:
            self._end.call()

    def _element(self, array: Any) -> int:
        name = _ELEMENTS.get(array.dtype.name)
        if name is None:
            raise TypeError(f"[distributed] NCCL reduces {', '.join(_ELEMENTS)}; got {array.dtype}; convert it first")
        return int(getattr(self.nccl, f"NCCL_{name}"))

    def _operation(self, operation: str) -> int:
        return int(getattr(self.nccl, f"NCCL_{_OPERATIONS[operation]}"))

    def wait(self, request: None, call: str) -> None:
        """What comes after on the stream waits by itself."""

    # ---- collectives ----

    def all_reduce(self, array: Any, operation: str) -> None:
        """array = sum (or another operation) of all processes' arrays."""
        at = array.data.ptr
        self._all_reduce.call(at, at, array.size, self._element(array), self._operation(operation))

    def broadcast(self, array: Any, source: int) -> None:
        """array = that of the process `source`."""
        at = array.data.ptr
        self._broadcast.call(at, at, array.nbytes, self.nccl.NCCL_UINT8, source)

    def all_gather(self, out: Any, array: Any) -> None:
        """out[rank] = each process's array."""
        self._all_gather.call(array.data.ptr, out.data.ptr, array.nbytes, self.nccl.NCCL_UINT8)

    def reduce_scatter(self, out: Any, array: Any, operation: str) -> None:
        """out = the sum (or another operation) of all processes' array[rank]."""
        self._reduce_scatter.call(array.data.ptr, out.data.ptr, out.size, self._element(out),
                                  self._operation(operation))

    # ---- the end ----

    def abort(self) -> None:
        """Ends all processes."""
        self.control.abort()

    def close(self) -> None:
        """Waits for the GPU, and frees the communicator."""
        self.device.synchronize()
        self.comm.destroy()
        self.control.close()
