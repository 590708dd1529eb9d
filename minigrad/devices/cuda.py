"""The CUDA device: CuPy arrays as containers, the kernels of the package's .cu files as launches.

Read `base.py`, `cpu.py` and `launch.py` first. A CUDA kernel has the name and the argument list of the C kernel of that
name (native/minigrad.h). The list of C kernels also says which element types there are, and what is an address, an
int64 or a double. So code that prepares a launch is written once, for both devices. Each op adds to the table of
`launch.py` what a GPU needs besides: the file of the text, and a rule for the numbers of blocks and threads.

NVRTC compiles the text (`cupy.RawModule`), once for each file and element type, at the first launch that needs it; CuPy
keeps the result on disk. A kernel that is not in the table is missing on this device: a composite then runs its
definition, and a primitive raises NotImplementedError.

All launches go to CuPy's current stream, in order. So a pooled buffer may be handed out again while an earlier launch
still uses it: the launches of its next owner come later in the stream. A launch never waits for the GPU and reads
nothing back. The values of plans and tables of addresses are kept on the host, too (`constant`).
"""
from __future__ import annotations

import weakref
from collections import ChainMap, namedtuple
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from . import memory
from .base import Device, Kernel, KernelTable, as_bools, split
from .launch import KERNELS, TEXTS, Entry, rule_of
from .memory import Array
from .native import HEADERS, Block, signatures
from .plan import elementwise_plan

cp: Any = None          # CuPy, imported when "cuda" is first asked for; tests set a module that emulates it
PACKAGE = Path(__file__).parent.parent


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


def options(suffix: str) -> tuple[str, ...]:
    """The compiler options for an element type ("f32", ...), or for "", kernels that have no element type."""
    return ("-std=c++17", f"-DMG_TYPE={suffix}") if suffix else ("-std=c++17",)


# ---- the device ------------------------------------------------------------------------------------------------------

class CUDA(Device):
    """GPU number `index`. RuntimeError with the reason if there is none."""

    type = "cuda"

    def __init__(self, index: int = 0) -> None:
        reason = unavailable()
        if not reason:
            count = cp.cuda.runtime.getDeviceCount()
            reason = f"there is no GPU {index}: {count} visible" if index >= count else ""
        if reason:
            raise RuntimeError(f"[device] 'cuda' is not available: {reason}")
        self.index, self.name = index, f"cuda:{index}"
        self.gpu = cp.cuda.Device(index)
        self.several = count > 1
        self.constants: dict[int, np.ndarray] = {}      # host values of what `constant` made, by address
        self.modules: dict[tuple[str, str], Any] = {}
        from . import blas  # here, since cffi's parser takes 20 ms to import
        kernels = {}
        for full, signature in signatures().items():
            name, suffix = split(full)
            run = (blas.Gemm(self, cp, suffix) if name == "gemm"
                   else launcher(self, name, suffix, signature.letters, signature.names, KERNELS))
            kernels[full] = Kernel(full, signature.letters, signature.names, 0, run)
        known: ChainMap[str, Any] = ChainMap(KERNELS, {"gemm": None})       # ops that are imported later add to KERNELS
        self.kernels = KernelTable(self.name, kernels, known)
        self.host = Kernel("host", "*", (), 0, self._no_kernel)

    def describe(self) -> str:
        """The GPU's name."""
        name = cp.cuda.runtime.getDeviceProperties(self.index)["name"]
        return name.decode() if isinstance(name, bytes) else str(name)

    def use(self) -> None:
        """Makes this GPU the one that CuPy works on."""
        if self.several:
            self.gpu.use()

    def function(self, file: str, suffix: str, name: str) -> Any:
        """A compiled CUDA function; the first one of a file and element type compiles them all."""
        module = self.modules.get((file, suffix))
        if module is None:
            module = self.modules[file, suffix] = cp.RawModule(code=source(file), options=options(suffix))
        return module.get_function(name)

    def compiled(self, source: Any, suffix: str, rule: Any = None) -> list[Kernel]:
        """Each is compiled at its first launch; `rule` is as in `launch.py`, by default that of the argument names."""
        text = _DEFINITION + source.located
        file = f"{source.op}.cu {sha256(text.encode()).hexdigest()[:16]}"
        TEXTS[file] = text
        declared = source.of_type(suffix)
        own = {kernel.name: Entry(file, rule or rule_of(kernel.name, kernel.names)) for kernel in declared}
        return [Kernel(kernel.full(suffix), kernel.letters, kernel.names, 0,
                       launcher(self, kernel.name, suffix, kernel.letters, kernel.names, own)) for kernel in declared]

    def _no_kernel(self, function: Callable[..., Any], *arrays: Any) -> None:
        """The `host` launch: raises NotImplementedError that names the op and the dtypes."""
        dtypes = ", ".join(dict.fromkeys(str(a.dtype) for a in arrays if hasattr(a, "dtype")))
        things = (function, *getattr(function, "keywords", {}).values(), *arrays)
        name = next(filter(None, map(_public_name, things)), "this op")
        raise NotImplementedError(f"[{name}] has no CUDA kernel for {dtypes} on {self.name}; "
                                  "convert to float32, or work on the CPU")

    # -- memory --

    def fresh(self, nbytes: int, home: Any) -> Any:
        self.use()
        root = cp.empty((nbytes,), np.uint8)
        return Block(root, root.data.ptr, root.data.ptr, home)

    def container(self, array: Array) -> Any:
        return _view(array.layout, array.ptr, array.block.root)

    def wrap(self, array: Any) -> Array:
        """An `Array` that shares the memory of a CuPy array, and keeps it alive."""
        return memory.external(array, memory.from_numpy_layout(array, self), array.data.ptr)

    def constant(self, values: np.ndarray, keep: Any = None) -> Array:
        copied = self._copied(values)
        array = memory.external(copied, memory.from_numpy_layout(copied, self), copied.data.ptr, (copied, keep))
        if array.ptr:
            self.constants[array.ptr] = values.copy()
            weakref.finalize(copied, self.constants.pop, array.ptr, None)
        return array

    def _copied(self, values: np.ndarray) -> Any:
        self.use()
        array = cp.empty(values.shape, values.dtype)
        if values.size:
            array.set(np.ascontiguousarray(values).reshape(values.shape))
        return array

    def upload(self, values: np.ndarray) -> Array:
        out = memory.alloc_outside_pool(memory.layout(self, values.dtype, values.shape))
        self.write(out, values)
        return out

    def write(self, array: Array, values: Any) -> None:
        """Host values into a contiguous array of this device."""
        layout = array.layout
        if layout.size:
            self.use()
            wide = np.broadcast_to(as_bools(np.asarray(values, layout.dtype)), layout.shape)
            host = np.ascontiguousarray(wide).reshape(layout.shape)
            array.np.set(host)
            if array.ptr in self.constants:
                self.constants[array.ptr] = host.copy()

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
        return array.np.get().reshape(layout.shape)

    def synchronize(self) -> None:
        """Waits until everything launched so far is done."""
        self.gpu.synchronize()


def _public_name(thing: Any) -> str:
    """The public name of a function, of one inside a partial, or of the function that it was made in; empty if none.

    An op that falls back to the host is named after it.
    """
    name = getattr(thing, "__qualname__", getattr(thing, "__name__", "")) if callable(thing) else ""
    name = name or _public_name(getattr(thing, "func", None)) if hasattr(thing, "func") else name
    name = name.partition(".")[0]
    return "" if name.startswith(("_", "<")) else name


def _view(layout: Any, ptr: int, root: Any) -> Any:
    """A CuPy array over memory that `root` owns. It keeps `root` alive, so that the block is not reused meanwhile."""
    size = layout.dtype.itemsize
    dims = list(zip(layout.shape, layout.strides, strict=True)) if layout.size else []
    low, high = (sum(pick(0, (n - 1) * s) for n, s in dims) * size for pick in (min, max))
    owned = cp.cuda.UnownedMemory(ptr + low, high - low + size, root, layout.device.index)
    strides = tuple(s * size for s in layout.strides)
    return cp.ndarray(layout.shape, layout.dtype, memptr=cp.cuda.MemoryPointer(owned, -low), strides=strides)


# KERNEL as native/foreign.h has it
_DEFINITION = "#undef KERNEL\n#define KERNEL(types, name, ...) BOUNDS MG_CAT3(name, _, MG_TYPE)(__VA_ARGS__)\n"


# CuPy passes an int as int64, a float as double
_CONVERT: dict[str, Callable[[Any], Any]] = {"o": int, "p": int, "i": int, "d": float}


def launcher(device: CUDA, name: str, suffix: str, letters: str, names: Sequence[str],
             entries: Mapping[str, Entry]) -> Callable[..., None]:
    """The `function` of a CUDA kernel: it takes the arguments of the C kernel and launches what the rule of its entry
    says."""
    host = device.constants
    convert = [_CONVERT[letter] for letter in letters]
    arguments = namedtuple("arguments", names)                  # type: ignore[misc]
    functions: dict[str, Any] = {}

    def launch(*given: Any) -> None:
        entry = entries[name]
        k = arguments(*[c(a) for c, a in zip(convert, given, strict=True)])
        device.use()
        for step, grid, block, shared in entry.rule(k, host):
            if grid[0]:
                function = functions.get(step)
                if function is None:
                    full = "_".join(filter(None, (name, step, suffix)))
                    function = functions[step] = device.function(entry.file, suffix, full)
                function(grid, block, tuple(k), shared_mem=shared)
    return launch
