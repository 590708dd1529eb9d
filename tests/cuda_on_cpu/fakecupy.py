"""The few parts of CuPy that minigrad/devices/cuda.py uses, over NumPy and emulator.py.

    minigrad.devices.cuda.cp = fakecupy      # the array module is one variable; nothing else is patched

It keeps what CuPy forbids forbidden: no implicit conversion to NumPy, no copy between host and device while a stream
captures. New memory is filled with NaN and lies against an inaccessible page, so an access past an array's end is an
error of the launch. Only the names below exist: whatever else is used is an AttributeError here, and
test_emulator.py holds them against the real CuPy. Arithmetic is left out on purpose (CuPy arrays
are containers).
"""
import ctypes
import mmap
import os
import types
import weakref

import numpy as np

from .emulator import RawKernel as _RawKernel
from .emulator import RawModule as _RawModule

_libc = ctypes.CDLL(None, use_errno=True)
_PAGE = mmap.PAGESIZE
_capture = None   # the list of operations of the stream capture under way


class _Block:
    """Memory between two pages that nobody may access. The array's last 16-byte unit touches the page after it,
    or with CUDA_ON_CPU_GUARD=before its first byte follows the page before it."""
    def __init__(self, nbytes):
        MemoryPool.check(nbytes)
        body = -(-max(nbytes, 1) // _PAGE) * _PAGE
        self.map = mmap.mmap(-1, body + 2 * _PAGE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        ctypes.memset(base + _PAGE, 0xFF, body)
        for guard in (base, base + _PAGE + body):
            _libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(_PAGE), 0)
        MemoryPool.held[id(self.map)] = -(-nbytes // 512) * 512
        weakref.finalize(self.map, MemoryPool.held.pop, id(self.map))
        before = os.environ.get("CUDA_ON_CPU_GUARD") == "before"
        self.offset = _PAGE + (0 if before else (body - nbytes) // 16 * 16)


def _alloc(shape, dtype):
    shape = (shape,) if np.ndim(shape) == 0 else tuple(shape)
    dtype = np.dtype(dtype)
    if os.environ.get("CUDA_ON_CPU") == "asan":   # malloc, so that ASan knows the array's bounds
        return np.frombuffer(np.full(int(np.prod(shape)) * dtype.itemsize, 0xFF, np.uint8), dtype).reshape(shape)
    block = _Block(int(np.prod(shape)) * dtype.itemsize)
    return np.ndarray(shape, dtype, buffer=block.map, offset=block.offset)


class OutOfMemoryError(MemoryError):
    pass


class MemoryPool:
    """What CuPy's pool says of its memory. This one gives unused memory back at once."""
    size = 1 << 32      # bytes of the GPU
    held = {}           # bytes of each array, by the identity of its memory

    @classmethod
    def used_bytes(cls):
        return sum(list(cls.held.values()))     # a copy: other threads free arrays meanwhile

    total_bytes = used_bytes

    @classmethod
    def check(cls, nbytes):
        if nbytes > 1 << 20 and cls.used_bytes() + nbytes > cls.size:
            raise OutOfMemoryError(f"Out of memory allocating {nbytes:,} bytes (allocated so far: {cls.used_bytes():,} bytes).")


def get_default_memory_pool():
    return MemoryPool()


def _to_host(what):
    if _capture is not None:
        raise RuntimeError(f"cudaErrorStreamCaptureUnsupported: {what} while a stream is capturing")


class UnownedMemory:
    """Memory that somebody else owns, and `owner` keeps alive."""
    def __init__(self, ptr, size, owner, device_id=-1):
        self.ptr, self.size, self.owner = ptr, size, owner


class MemoryPointer:
    def __init__(self, mem, offset):
        self.mem, self.ptr = mem, mem.ptr + offset


class _At:
    """What NumPy makes an array from, over memory at an address."""
    def __init__(self, memptr, shape, dtype, strides):
        self.memptr = memptr
        self.__array_interface__ = {"data": (memptr.ptr, False), "shape": tuple(shape), "typestr": dtype.str, "version": 3,
                                    "strides": strides}


class ndarray:
    def __init__(self, shape, dtype=float, memptr=None, strides=None):
        if memptr is None:
            self._a = _alloc(shape, dtype)
            memptr = MemoryPointer(UnownedMemory(self._a.ctypes.data if self._a.size else 0, self._a.nbytes, self._a), 0)
        else:
            self._a = np.asarray(_At(memptr, shape, np.dtype(dtype), strides)) if 0 not in shape else np.empty(shape, dtype)
        self.data = memptr

    shape = property(lambda s: s._a.shape)
    dtype = property(lambda s: s._a.dtype)
    ndim = property(lambda s: s._a.ndim)
    size = property(lambda s: s._a.size)
    nbytes = property(lambda s: s._a.nbytes)
    itemsize = property(lambda s: s._a.itemsize)
    strides = property(lambda s: s._a.strides)
    flags = property(lambda s: s._a.flags)

    @property
    def __cuda_array_interface__(self):
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (self.data.ptr, False), "version": 3, "strides": None
                if self.flags.c_contiguous else self.strides, "stream": 1}

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def _cuoc_array(self):
        return self._a

    def get(self):
        _to_host("copy to host")
        return self._a.copy()

    def set(self, host):
        _to_host("copy from host")
        if not isinstance(host, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if host.dtype != self.dtype or host.shape != self.shape:
            raise ValueError(f"{host.dtype} {host.shape} set to {self.dtype} {self.shape}")
        self._a[...] = host

    def fill(self, v):
        self._a.fill(v) if _capture is None else _capture.append(lambda: self._a.fill(v))

    def __repr__(self):
        return f"fakecupy({self._a!r})"


def __getattr__(name):
    raise AttributeError(f"fakecupy has no {name}: add it, or do without it")


def empty(shape, dtype=float):
    return ndarray(shape, dtype)


def asarray(a, dtype=None):
    if isinstance(a, ndarray) and dtype in (None, a.dtype):
        return a
    a = np.asarray(a, dtype)
    out = ndarray(a.shape, a.dtype)
    out._a[...] = a
    return out


class RawKernel(_RawKernel):
    def __call__(self, grid, block, args, *, shared_mem=0, stream=None):
        def run():
            _RawKernel.__call__(self, grid, block, args, shared_mem=shared_mem)
        run() if _capture is None else _capture.append(run)


class RawModule(_RawModule):
    def get_function(self, name):
        k = _RawModule.get_function(self, name)
        k.__class__ = RawKernel
        return k


class Graph:
    def __init__(self, ops):
        self._ops = ops

    def launch(self, stream=None):
        for op in self._ops:
            op()


class Stream:
    def __init__(self, null=False, non_blocking=False, ptds=False):
        self.ptr = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def synchronize(self):
        _to_host("synchronize")

    def begin_capture(self, mode=None):
        global _capture
        _capture = []

    def end_capture(self):
        global _capture
        ops, _capture = _capture, None
        return Graph(ops)


class Device:
    def __init__(self, device=0):
        self.id, self.compute_capability = device, "90"
        self.attributes = {"MultiProcessorCount": 4, "MaxSharedMemoryPerBlockOptin": 227 << 10}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def use(self):
        pass

    def synchronize(self):
        _to_host("synchronize")


def record(call):
    """Runs `call`, or while a stream captures, keeps it for the graph: for stand-ins of libraries such as cuBLAS."""
    call() if _capture is None else _capture.append(call)


_runtime = types.SimpleNamespace(driverGetVersion=lambda: 13000, runtimeGetVersion=lambda: 13000, getDeviceCount=lambda: 1,
                                 getDeviceProperties=lambda i: {"name": b"emulator"})
cuda = types.SimpleNamespace(UnownedMemory=UnownedMemory, MemoryPointer=MemoryPointer, Stream=Stream, Device=Device, Graph=Graph,
                             is_available=lambda: True, get_current_stream=Stream, runtime=_runtime)
