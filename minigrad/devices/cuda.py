"""The CUDA device: CuPy arrays as containers, the kernels of the package's .cu files as launches.

Read `base.py`, `cpu.py` and `launch.py` first. A CUDA kernel has the name and the argument list of the C kernel of that
name (native/minigrad.h). The list of C kernels also says which element types there are, and what is an address, an
int64 or a double. So code that prepares a launch is written once, for both devices. Each op adds to the table of
`launch.py` what a GPU needs besides: the file of the text, and a rule for the numbers of blocks and threads.

NVRTC compiles the text (`cupy.RawModule`), for each kernel and element type alone, at its first launch; CuPy keeps the
result on disk. A kernel that is not in the table is missing on this device: a composite then runs its definition, and a
primitive NumPy's function on CuPy arrays (`host`), which call CuPy's function of the same name. So such a function may
use of NumPy only what CuPy has, and nothing that adds floats by atomics.

A launch packs its arguments, which all have 8 bytes, and calls the driver. Its grid and block are remembered: a rule is
asked once for the sizes, the given addresses and the host values that it reads (`launcher`). No launch waits for the
GPU or reads anything back. The values of plans and tables of addresses are kept on the host, too (`constant`).

So an error of a launch comes with a later one, or where the host waits; a wrong index too (`flags.py`). With the
environment variable MINIGRAD_CUDA_SYNC=1, each launch and each replay of a captured step waits, and the error comes
from the line that launched.

Everything runs on one stream of the device, `device("cuda").stream`, in order: launches, products, copies, new memory.
So a pooled buffer may be handed out again while an earlier launch still uses it: the launches of its next owner come
later in the stream. The stream is a non-blocking one, and CuPy's current stream has no effect on minigrad:

    with cupy.cuda.Stream(): y = x + 1      still runs on the device's stream
    with device("cuda").stream: ...         what CuPy does here comes in order with minigrad's launches
    torch.from_dlpack(y), cupy.asarray(y)   the consumer's stream waits for what was launched before

What the consumer does later on its own stream, minigrad does not wait for: before it writes to that memory or the last
reference to it goes, `stream.wait_event(...)` on the device's stream, or `synchronize()`, must order the two.
"""
from __future__ import annotations

import os
import sys
import threading
import weakref
from array import array
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256
from itertools import count
from pathlib import Path
from struct import Struct
from typing import Any

import numpy as np

from . import memory
from .addresses import find, register
from .base import TYPE_SUFFIX, Device, Kernel, KernelTable, as_bools, split
from .flags import Flags
from .graph import Graph
from .launch import KERNELS, TEXTS, Entry, Launch, Product, Reading, rule_of
from .memory import Array
from .native import HEADERS, Block, signatures
from .plan import elementwise_plan, remember

cp: Any = None          # CuPy, imported when "cuda" is first asked for; tests set a module that emulates it
PACKAGE = Path(__file__).parent.parent
_numbers = count(2)             # of host values; not 0 or 1, which a launch's key has for other addresses (`_key`)


# ---- is there a GPU? -------------------------------------------------------------------------------------------------

def is_available() -> bool:
    """Is there a device "cuda"?"""
    return not unavailable()


def unavailable() -> str:
    """Why there is no device "cuda", in one sentence; empty if there is one. Imports CuPy."""
    global cp
    if cp is None:
        try:
            import cupy
        except ImportError as error:
            return (f"CuPy is not installed ({error}); pip install 'cupy-cuda13x[ctk]', "
                    "or 'cupy-cuda12x[ctk]' if `nvidia-smi` shows CUDA Version 12")
        cp = cupy
    runtime = cp.cuda.runtime
    driver, built = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    if driver == 0:
        return "no NVIDIA driver was found; install one, or work on the CPU"
    if driver // 1000 < built // 1000:
        return (f"the NVIDIA driver is too old for this CuPy: it supports CUDA {_version(driver)}, CuPy was built for "
                f"{_version(built)}; update the driver, or install 'cupy-cuda{driver // 1000}x[ctk]' in place of "
                f"'cupy-cuda{built // 1000}x'")
    if not cp.cuda.is_available():
        return "there is a driver but no GPU is visible; see `nvidia-smi` and CUDA_VISIBLE_DEVICES"
    return ""


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def source(file: str) -> str:
    """The CUDA text of a kernel file, after what all of them share: native/types.h, native/workspace.h, common.cuh."""
    texts = {"types.h": HEADERS["types.h"], "workspace.h": HEADERS["workspace.h"],
             "common.cuh": (PACKAGE / "ops/common.cuh").read_text(),
             file: TEXTS.get(file) or (PACKAGE / file).read_text()}
    return "".join(f'#line 1 "{name}"\n{text}\n' for name, text in texts.items())


def options(suffix: str, only: str = "") -> tuple[str, ...]:
    """The compiler options for an element type ("f32", ...), or for "", kernels that have no element type; of the
    kernels of the text all, or `only` one with its steps."""
    return ("-std=c++17", *([f"-DMG_TYPE={suffix}"] if suffix else []),
            *(["-DMG_ONLY", f"-DMG_ONLY_{only}=,BOUNDS"] if only else []))


# ---- the device ------------------------------------------------------------------------------------------------------

class CUDA(Device):
    """GPU number `index`. RuntimeError with the reason if there is none."""

    type = "cuda"

    def __init__(self, index: int = 0) -> None:
        reason = unavailable()
        if not reason:
            visible = cp.cuda.runtime.getDeviceCount()
            reason = f"there is no GPU {index}: {visible} visible" if index >= visible else ""
        if reason:
            raise RuntimeError(f"[device] 'cuda' is not available: {reason}")
        self.index, self.name = index, f"cuda:{index}"
        self.gpu = cp.cuda.Device(index)
        self.shared = self.gpu.attributes["MaxSharedMemoryPerBlockOptin"]      # of a block at most, in bytes
        self.several, self.waits = visible > 1, os.environ.get("MINIGRAD_CUDA_SYNC") == "1"
        self.use()
        self.stream = cp.cuda.Stream(non_blocking=True)
        self.recording: Any = None                      # the stream on which graphs are recorded, from the first on
        self.capturing = threading.RLock()              # held while one is
        self.flags = Flags(cp.cuda.alloc_pinned_memory(16))
        self.constants: dict[int, np.ndarray] = {}      # host values of what `constant` made, by address
        self.numbers: dict[int, int] = {}               # by address as well: no other values have the same number, ever
        self.modules: dict[tuple[str, str, str], Any] = {}
        self.functions: dict[tuple[str, str, str, str], Any] = {}
        from . import blas  # here, since cffi's parser takes 20 ms to import
        kernels, pointers = {}, launcher(self, *blas.POINTERS)
        for name, suffix, signature in _declared():
            run = (blas.Gemm(self, cp, suffix, pointers) if name == "gemm"
                   else launcher(self, name, suffix, signature.letters, signature.names, KERNELS))
            full = f"{name}_{suffix}" if suffix else name
            kernels[full] = self._kernel(full, signature.letters, signature.names, run)
        known: ChainMap[str, Any] = ChainMap(KERNELS, {"gemm": None})       # ops that are imported later add to KERNELS
        self.kernels = KernelTable(self.name, kernels, known)
        self.host = Kernel("host", "*", (), 0, self._run, self)

    def describe(self) -> str:
        """The GPU's name."""
        name = cp.cuda.runtime.getDeviceProperties(self.index)["name"]
        return name.decode() if isinstance(name, bytes) else str(name)

    def use(self) -> Any:
        """Makes this GPU the one that CuPy and the driver work on, in this thread. Gives the stream that launches of
        this thread are redirected to, or None."""
        if self.several or _thread.device is not self:
            self.gpu.use()
            _thread.device = self if _thread.stream is None else None
        return _thread.stream

    @contextmanager
    def redirected(self) -> Iterator[Any]:
        """In its `with` block, launches of this thread go to the stream on which graphs are recorded: this one."""
        self.use()
        if self.recording is None:
            self.recording = cp.cuda.Stream(non_blocking=True)
        from . import blas
        blas.prepare(self, cp, self.recording)
        try:
            _thread.stream, _thread.device = self.recording, None       # so that each launch asks `use`
            yield self.recording
        except BaseException:
            self.recording = None                       # it may record still
            raise
        finally:
            _thread.stream = None

    def graph(self, launches: Sequence[Any]) -> Graph:
        """What runs these launches again, in one call."""
        return Graph(self, launches)

    def function(self, file: str, suffix: str, name: str, step: str = "", shared: int = 0) -> int:
        """The driver's handle of a kernel, or of a step of it; the first of them compiles all, but no other kernel. It
        may be launched with `shared` bytes of dynamic shared memory."""
        key = file, suffix, name
        function = self.functions.get((*key, step))
        if function is None:
            module = self.modules.get(key)
            if module is None:
                module = self.modules.setdefault(key, cp.RawModule(code=source(file), options=options(suffix, name)))
            # of two threads the first wins: a handle is valid while its function is kept
            function = module.get_function("_".join(filter(None, (name, step, suffix))))
            function = self.functions.setdefault((*key, step), function)
        if shared > 48 << 10:                   # what there is unasked
            function.max_dynamic_shared_size_bytes = max(shared, function.max_dynamic_shared_size_bytes)
        return int(function.kernel.ptr)

    def compiled(self, source: Any, suffix: str, rule: Any = None) -> list[Kernel]:
        """Each is compiled at its first launch; `rule` is as in `launch.py`, by default that of the argument names."""
        return self.generated(_DEFINITION + source.located, source.op, source.of_type(suffix), suffix, rule)

    def generated(self, text: str, op: str, declared: Sequence[Any], suffix: str, rule: Any = None) -> list[Kernel]:
        """The kernels that a text has for an element type, `declared` says which."""
        file = f"{op}.cu {sha256(text.encode()).hexdigest()[:16]}"
        TEXTS[file] = text
        own = {kernel.name: Entry(file, rule or rule_of(kernel.name, kernel.names)) for kernel in declared}
        return [self._kernel(kernel.full(suffix), kernel.letters, kernel.names,
                             launcher(self, kernel.name, suffix, kernel.letters, kernel.names, own))
                for kernel in declared]

    def _kernel(self, name: str, letters: str, names: Sequence[str], run: Callable[..., None]) -> Kernel:
        """A kernel of this device. With MINIGRAD_CUDA_SYNC=1 it looks at all addresses, waits after each launch, and
        says what went wrong."""
        def launch_and_wait(*given: Any) -> None:
            _refuse_host_memory(self, name, letters, names, given)
            try:
                run(*given)
                if _thread.stream is None:
                    self.stream.synchronize()
            except Exception as error:
                raise RuntimeError(f"[{name}] the launch failed on {self.name}: {error}") from error
            self.flags.verify()
        return Kernel(name, letters, names, 0, launch_and_wait if self.waits else run, self)

    def _run(self, function: Callable[..., Any], out: Any, *inputs: Any) -> None:
        """The `host` launch: a function of NumPy's, which CuPy's arrays answer with CuPy's function of that name."""
        self.use()
        with self.stream, np.errstate(all="ignore"):
            function(*inputs, out=out)

    # -- memory --

    def fresh(self, nbytes: int, home: Any) -> Any:
        self.use()
        with self.stream:
            root = cp.empty((nbytes,), np.uint8)
        memory.register_fresh(root, root.data.ptr, nbytes)
        return Block(root, root.data.ptr, root.data.ptr, home)

    def container(self, array: Array) -> Any:
        return _view(array.layout, array.ptr, array.block.root)

    def wrap(self, array: Any, root: Any = None) -> Array:
        """An `Array` that shares the memory of a CuPy array, and keeps it and `root` alive."""
        steps = [(n - 1) * s for n, s in zip(array.shape, array.strides, strict=True)] if array.size else []
        low, high = (sum(pick(0, step) for step in steps) for pick in (min, max))
        register(array, array.data.ptr + low, high - low + array.itemsize)
        return memory.external(array, memory.from_numpy_layout(array, self), array.data.ptr, root)

    def share(self, data: Any) -> Array:
        """An `Array` on the memory of another library's array on this GPU, which it keeps alive.

        The device's stream waits for what the other library has launched on its current stream. The memory is given
        back once the device's stream is done with it. Bytes of bools other than 0 and 1 are copied.
        """
        self.use()
        theirs = cp.cuda.get_current_stream()           # that of CuPy: DLPack and the interface tell those of others
        self.stream.wait_event(theirs.record())
        with self.stream:
            array = cp.from_dlpack(data) if hasattr(data, "__dlpack__") else cp.asarray(data)
            if array.dtype == bool and (array.view(np.uint8) > 1).any():
                array = array.view(np.uint8) != 0
        if any(s % array.itemsize for s in array.strides):
            raise ValueError(f"[from_dlpack] strides must be whole elements; got {array.strides} bytes for "
                             f"{array.dtype}; copy the array first")
        return self.wrap(array, _Borrowed(array, self))

    def constant(self, values: np.ndarray, keep: Any = None) -> Array:
        copied = self._copied(values)
        kept = _Kept(copied, keep)
        array = memory.external(copied, memory.from_numpy_layout(copied, self), copied.data.ptr, kept)
        if array.ptr:
            register(kept, array.ptr, copied.nbytes)
            self._keep_values(array.ptr, values)
            weakref.finalize(kept, self._forget_values, array.ptr)
        return array

    def _keep_values(self, address: int, values: np.ndarray, moved: bool = False) -> None:
        """Keeps host values for launch rules; under the number that the address has, if what the rules see is as before
        (`moved`)."""
        self.constants[address] = values.copy()
        if not moved:
            self.numbers[address] = next(_numbers)

    def _forget_values(self, address: int) -> None:
        self.constants.pop(address, None)
        self.numbers.pop(address, None)

    def _copied(self, values: np.ndarray) -> Any:
        self.use()
        with self.stream:
            array = cp.empty(values.shape, values.dtype)
            if values.size:
                array.set(np.ascontiguousarray(values).reshape(values.shape))
        return array

    def upload(self, values: Any) -> Array:
        """The values may be a CuPy array, too: what a `host` launch found."""
        out = memory.alloc_outside_pool(memory.layout(self, values.dtype, values.shape))
        if isinstance(values, np.ndarray):
            self.write(out, values)
        elif values.size:
            self.use()
            with self.stream:
                out.np[...] = values
        return out

    def write(self, array: Array, values: Any, moved: bool = False) -> None:
        """Host values into a contiguous array of this device."""
        layout = array.layout
        if layout.size:
            self.use()
            wide = np.broadcast_to(as_bools(np.asarray(values, layout.dtype)), layout.shape)
            host = np.ascontiguousarray(wide).reshape(layout.shape)
            with self.stream:
                array.np.set(host)
            if array.ptr in self.constants:
                self._keep_values(array.ptr, host, moved)

    def download(self, array: Array) -> np.ndarray:
        layout = array.layout
        if layout.size == 0:
            return np.empty(layout.shape, layout.dtype)
        self.use()
        if not layout.contiguous:
            dense = memory.alloc(memory.layout(self, layout.dtype, layout.shape))
            copy = self.kernels.copy.move(layout.dtype)
            if copy is None:
                raise NotImplementedError(f"[copy] has no CUDA kernel for {layout.dtype} on {self.name}")
            plan = elementwise_plan(dense.layout, layout)
            copy.call(dense.ptr, array.ptr, plan.ptr)
            array = dense
        with self.stream:
            values: np.ndarray = array.np.get().reshape(layout.shape)
        self.flags.verify()
        return values

    def synchronize(self) -> None:
        """Waits until everything launched so far is done. Raises what a check of values found (`flags.py`)."""
        with self.capturing:                    # the driver refuses to wait for a stream that records
            self.gpu.synchronize()
        self.flags.verify()


def _view(layout: Any, ptr: int, root: Any) -> Any:
    """A CuPy array over memory that `root` owns. It keeps `root` alive, so that the block is not reused meanwhile."""
    size = layout.dtype.itemsize
    if size > 8 and layout.dtype.kind == "f":
        raise TypeError(f"[{layout.device}] a GPU has no numbers of {size} bytes; got {layout}; convert with .double()")
    dims = list(zip(layout.shape, layout.strides, strict=True)) if layout.size else []
    low, high = (sum(pick(0, (n - 1) * s) for n, s in dims) * size for pick in (min, max))
    owned = cp.cuda.UnownedMemory(ptr + low, high - low + size, root, layout.device.index)
    strides = tuple(s * size for s in layout.strides)
    return cp.ndarray(layout.shape, layout.dtype, memptr=cp.cuda.MemoryPointer(owned, -low), strides=strides)


class _Borrowed:
    """Keeps an array of another library alive, until the device's stream is done with its memory."""

    def __init__(self, array: Any, device: CUDA) -> None:
        self.array, self.device = array, device

    def __del__(self) -> None:
        if not sys.is_finalizing():
            with self.device.capturing:
                self.device.stream.synchronize()


# KERNEL as native/foreign.h has it
_DEFINITION = "#undef KERNEL\n#define KERNEL(types, name, ...) BOUNDS MG_CAT3(name, _, MG_TYPE)(__VA_ARGS__)\n"


class _Kept:
    """A constant on the GPU, and what it keeps alive."""

    def __init__(self, array: Any, keep: Any) -> None:
        self.array, self.keep = array, keep


def _declared() -> Iterator[tuple[str, str, Any]]:
    """The kernels of this device: name, suffix, signature. Those of C; for half precision, of which C has none, those
    with `half` in `KERNELS` or not there yet, which take what the float32 kernel takes, and the casts to it."""
    TYPE_SUFFIX[np.dtype(np.float16)] = "f16"
    with suppress(ImportError):
        import ml_dtypes
        TYPE_SUFFIX[np.dtype(ml_dtypes.bfloat16)] = "bf16"
    for full, signature in signatures().items():
        name, suffix = split(full)
        for own in (name, "cast_f16", "cast_bf16") if name == "cast_f32" else (name,):
            yield own, suffix, signature
            if suffix == "f32" and (own not in KERNELS or KERNELS[own].half):
                for half in [s for s in TYPE_SUFFIX.values() if s in ("f16", "bf16")]:
                    yield own, half, signature
                    if own in KERNELS and KERNELS[own].wide:
                        yield own, half + "w", signature


class _Thread(threading.local):
    """Of each thread: `device`, whose GPU the thread has made the current one; `stream`, where its launches go instead
    of the device's stream while it records a graph."""

    device: Any = None
    stream: Any = None


_thread = _Thread()
_learning = threading.RLock()       # while what a launch depends on changes


def launcher(device: CUDA, name: str, suffix: str, letters: str, names: Sequence[str],
             entries: Mapping[str, Entry]) -> Callable[..., None]:
    """The `function` of a CUDA kernel: it takes the arguments of the C kernel and launches what the rule of its entry
    says.

    All arguments have 8 bytes, so packing them is one call. What the rule said is remembered by the arguments that it
    read; whatever it reads next depends on these alone. With more than 4096 answers, all are forgotten. The buffers are
    taken and put back: the driver copies the arguments, but other threads run meanwhile.
    """
    buffers: list[tuple[Callable[..., None], int, Any]] = []
    start, several, read = cp.cuda.driver.launchKernel, device.several, set[str]()
    prepared = partial(_prepared, device, name, suffix, letters, names)
    constants = set[str]()
    memory: tuple[Callable[[tuple], Any], dict[Any, list[tuple]]] = (_key(device, letters, names, read, constants), {})

    def launch(*given: Any) -> None:
        other = device.use() if several or _thread.device is not device else None
        key_of, known = memory
        launches = known.get(key_of(given))
        if launches is None:
            launches = ask(given)
        if other is not None:
            launches = [(*launch[:8], other.ptr) for launch in launches]
        try:
            buffer = buffers.pop()
        except IndexError:
            buffer = _buffer(letters)
        fill, parameters, _ = buffer
        fill(*given)
        for function, x, y, z, bx, by, bz, shared, stream in launches:
            if x:
                start(function, x, y, z, bx, by, bz, shared, stream, parameters, 0)
            else:
                function(given)
        buffers.append(buffer)

    def ask(given: tuple) -> list[tuple]:
        """Runs the rule, and remembers what it said under what it read. RuntimeError for memory of the CPU."""
        nonlocal memory
        _refuse_host_memory(device, name, letters, names, given)
        entry = entries[name]
        reading = Reading(entry.rule, letters, names, given, device.constants)
        launches = [prepared(one, entry.file) for one in reading.launches]
        with _learning:
            if not (reading.names <= read and reading.constants <= constants):
                read.update(reading.names)
                constants.update(reading.constants)
                memory = _key(device, letters, names, read, constants), {}       # both at once, for other threads
            key_of, known = memory
            return remember(known, key_of(given), launches)     # type: ignore[no-any-return]
    return launch


def _refuse_host_memory(device: CUDA, name: str, letters: str, names: Sequence[str], given: Sequence[Any]) -> None:
    """RuntimeError if an address among the arguments of a launch is that of an array on the CPU."""
    for letter, argument, value in zip(letters, names, given, strict=True):
        if letter in "op" and value and (region := find(value)) is not None and isinstance(region(), np.ndarray):
            raise RuntimeError(f"[{name}] a kernel of {device.name} takes memory of {device.name}; got {argument} on "
                               f"the CPU; move the tensor with .to({device.name!r})")


def _prepared(device: CUDA, name: str, suffix: str, letters: str, names: Sequence[str], one: Launch | Product,
              file: str) -> tuple:
    """What `launcher` needs for a launch; for a product, and where arguments change, a function of the arguments."""
    if isinstance(one, Product):
        return _product(device, suffix, names, one), *[0] * 8
    plain = (device.function(file, suffix, name, one.step, one.shared), *(*one.grid, 1, 1)[:3],
             *(*one.block, 1, 1)[:3], one.shared, device.stream.ptr)
    if not one.given:
        return plain
    changes, start = {names.index(argument): value for argument, value in one.given}, cp.cuda.driver.launchKernel

    def changed(given: tuple) -> None:
        fill, parameters, _ = _buffer(letters)
        fill(*[changes.get(i, value) for i, value in enumerate(given)])
        start(*plain[:8], (_thread.stream or device.stream).ptr, parameters, 0)
    return changed, *[0] * 8


def _product(device: CUDA, suffix: str, names: Sequence[str], one: Product) -> Callable[[tuple], None]:
    """The product as a function of the arguments of the kernel that it belongs to."""
    gemm, size = device.kernels.gemm.members[suffix].function, np.dtype("f4" if suffix == "f32" else "f8").itemsize
    (c, c_skip), (a, a_skip), (b, b_skip) = [(names.index(of), skip * size) for of, skip in (one.c, one.a, one.b)]
    sizes = one.m, one.n, one.k, *one.a_strides, *one.b_strides, one.n, int(one.accumulate)

    def run(given: tuple) -> None:
        gemm(given[c] + c_skip, given[a] + a_skip, given[b] + b_skip, 0, 0, 1, *sizes)
    return run


def _key(device: CUDA, letters: str, names: Sequence[str], read: Set[str],
         constants: Set[str]) -> Callable[[tuple], Any]:
    """The function that takes the arguments of a launch, and gives what `Reading` says that its rule depends on.

    Sizes by their values, other addresses by whether they are given. Values on the host by their number: their address
    is another constant's later.
    """
    terms = [f"number(a[{i}]) or a[{i}] != 0" if name in constants else f"a[{i}] != 0" if letter in "op" else f"a[{i}]"
             for i, (letter, name) in enumerate(zip(letters, names, strict=True)) if name in read]
    key: Callable[[tuple], Any] = eval(f"lambda a: ({''.join(term + ', ' for term in terms)})",
                                       {"number": device.numbers.get})
    return key


def _buffer(letters: str) -> tuple[Callable[..., None], int, Any]:
    """Room for the arguments of a launch: what fills it, the address of the table of their addresses, and the table."""
    words = array("q", bytes(8 * len(letters)))
    first = words.buffer_info()[0]
    table = array("q", [first + 8 * i for i in range(len(letters))])
    form = Struct("".join("d" if letter == "d" else "n" for letter in letters))     # n has 8 bytes, faster than q
    return partial(form.pack_into, words, 0), table.buffer_info()[0], table
