"""The CUDA device: CuPy arrays as containers, the kernels of `ops/*.cu` behind the door.

A CUDA kernel has the name and the argument list of its C twin (native/minigrad.h). `KERNELS` below adds what a GPU needs on
top: the file its text is in, and from the arguments of a launch, how many blocks and threads run. Everything else (which
element types there are, what is an address, an int64, a double) comes from the list of C kernels, so that code that prepares
a launch is written once, for both devices.

The text is compiled by NVRTC through `cupy.RawModule`, once for each file and element type, at the first launch that needs
it; CuPy keeps the result on disk. A kernel that is not in `KERNELS` is missing on this device: a composite then runs by its
definition, and a primitive raises NotImplementedError.

All launches go to CuPy's current stream, in order. A pooled buffer may be handed out again while an earlier launch still uses
it: what the next owner launches comes after it. A launch never waits for the GPU and reads nothing back; what a plan or a
pointer table holds is remembered on the host when it is made (`constant`).
"""
from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import cpu, memory
from .device import MOVE_SUFFIX, TYPE_SUFFIX, Device, Kernel, KernelTable
from .memory import Array, Block, Layout

cp: Any = None          # the array module: CuPy, imported when "cuda" is first asked for; tests put their stand-in here
SOURCES = Path(__file__).parent / "ops"


# ---- is there a GPU? ------------------------------------------------------------------------------------------------

def is_available() -> bool:
    """Is there a device "cuda"?"""
    return not unavailable()


def unavailable() -> str:
    """Why there is no device "cuda", in one sentence; empty if there is one."""
    global cp
    if cp is None:
        try:
            import cupy
        except ImportError as error:
            return (f"CuPy is not installed ({error}); pip install 'minigrad[cuda13]', "
                    "or 'minigrad[cuda12]' if `nvidia-smi` shows CUDA Version 12")
        cp = cupy
    runtime = cp.cuda.runtime
    driver, built = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    if driver == 0:
        return "no NVIDIA driver was found; install one, or work on the CPU"
    if driver // 1000 < built // 1000:
        return (f"the NVIDIA driver is too old for this CuPy: it supports CUDA {_version(driver)}, CuPy was built for {_version(built)}; "
                f"update the driver, or install 'minigrad[cuda{driver // 1000}]' in place of 'minigrad[cuda{built // 1000}]'")
    if not cp.cuda.is_available():
        return "there is a driver but no GPU is visible; see `nvidia-smi` and CUDA_VISIBLE_DEVICES"
    return ""


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


# ---- launches -------------------------------------------------------------------------------------------------------

class Launch(NamedTuple):
    """One CUDA function: the kernel itself, or its STEP of that name. With 0 blocks nothing is launched."""

    step: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared: int = 0             # bytes of dynamic shared memory


Rule = Callable[..., Sequence[Launch]]
_THREADS = 256                  # of a block, where nothing else decides; common.cuh's MAX_THREADS is 512
_BLOCKS = 1 << 20               # more elements than this many blocks have: the kernels loop over the grid


def _ceil(n: int, by: int) -> int:
    return -(-n // by)


def _power_of_two(n: int, most: int) -> int:
    """The largest power of two up to n, within 1 and `most`."""
    return 1 << max(0, min(n, most).bit_length() - 1)


def _over(n: int, step: str = "", each: int = 1) -> Launch:
    """A thread for `each` of n elements."""
    threads = min(_THREADS, _ceil(max(n, 1), 32) * 32)
    return Launch(step, (min(_ceil(n, threads * each), _BLOCKS),), (threads,))


def _per_row(rows: int, n: int, step: str = "") -> Launch:
    """common.cuh's rows: a warp for each of up to 1024 elements, else a block."""
    if n <= 1024:
        together = min(4, max(rows, 1))
        return Launch(step, (min(_ceil(rows, together), _BLOCKS) if n else 0,), (32, together))
    return Launch(step, (min(rows, _BLOCKS),), (min(512, _ceil(n, 8 * 32) * 32), 1))


def _columns(n: int, step: str) -> Launch:
    """norm.cu's column sums: 32 columns a block."""
    return Launch(step, (_ceil(n, 32),), (32, 16))


def _one(step: str) -> Launch:
    return Launch(step, (1,), (1,))


# Rules take the device and the launch's arguments. Arguments are counted from the end where outputs and inputs vary.

def _by_plan(device: CUDA, *a: Any) -> Sequence[Launch]:
    """Elementwise; the plan is the last address, after the operands and before the scalars."""
    plan = device.constants[next(p for p in reversed(a) if type(p) is int)]
    return [_over(int(plan[1]), each=2)]


def _elements(index: int) -> Rule:
    return lambda device, *a: [_over(a[index])]


def _reduction(device: CUDA, *a: Any) -> Sequence[Launch]:
    plan = device.constants[a[-1]]
    kept, reduced = int(plan[0]), int(plan[1])
    keep, reduce = (int(np.prod(s, dtype=np.int64)) for s in (plan[2:2 + kept], plan[2 + kept:2 + kept + reduced]))
    if keep == 0:
        return []
    segments = cpu.segments(keep, reduce)
    if reduce < 32 or plan[-1] != 1:                                                   # Plan::columns
        tall = _power_of_two(reduce // 4, 16)
        first = Launch("", (min(_ceil(keep, 32), _BLOCKS), segments), (32, tall))
    elif reduce <= 1024:
        first = Launch("", (min(_ceil(keep, 4), _BLOCKS), segments), (32, min(4, _power_of_two(keep, 4))))
    else:
        first = Launch("", (min(keep, _BLOCKS), segments), (_THREADS, 1))
    return [first] if segments == 1 else [first, _over(keep, "segments")]


def _scan(device: CUDA, *a: Any) -> Sequence[Launch]:
    outer, n, inner = a[-3:]
    return [_over((outer * 32 if inner == 1 else outer * inner) if n else 0)]


def _lines(device: CUDA, *a: Any) -> Sequence[Launch]:
    outer, n, inner = a[-3:]
    return [_per_row(outer, n) if inner == 1 else _over(outer * inner)]


def _row_norm(rows: int, n: int) -> Rule:
    return lambda device, *a: [_per_row(a[rows], a[n])]


def _row_norm_backward(sums: int, wanted: Sequence[int]) -> Rule:
    """`sums` column sums are kept, if one of the outputs `wanted` is."""
    def rule(device: CUDA, *a: Any) -> Sequence[Launch]:
        rows, n = a[-2:]
        width = min(sums * n * 8, cpu.SHARED_SUMS_BYTES)                               # of doubles: enough for both types
        first = Launch("", (cpu.norm_chunks(rows) if n else 0,), (min(512, _ceil(max(n, 1), 4 * 32) * 32), 1), width)
        return [first, _columns(n, "columns")] if any(a[i] for i in wanted) else [first]
    return rule


def _channels(batch: int, apply: bool) -> Rule:
    """batch, channels, inner from argument `batch` on; then, with `apply`, a launch over the elements."""
    def rule(device: CUDA, *a: Any) -> Sequence[Launch]:
        samples, channels, inner = a[batch:batch + 3]
        if samples * inner == 0:
            return []
        first = Launch("", (channels if inner >= 32 else _ceil(channels, 32),), (32, 16))
        return [first, _over(samples * channels * inner, "apply")] if apply else [first]
    return rule


def _group_norm_backward(device: CUDA, *a: Any) -> Sequence[Launch]:
    batch, groups, cpg, inner = a[-4:]
    rows = _per_row(batch * groups, cpg * inner)
    return [rows, _columns(groups * cpg, "columns")] if a[1] or a[2] else [rows]


def _cross_entropy_forward(device: CUDA, *a: Any) -> Sequence[Launch]:
    outer, classes, inner, _, reduction, _ = a[-6:]
    first = _per_row(outer, classes) if inner == 1 else _over(outer * inner)
    return [first] if reduction == 0 else [first, Launch("reduce", (1,), (min(512, _ceil(max(outer * inner, 1), 32) * 32),))]


def _loss_forward(n: int) -> Rule:
    def rule(device: CUDA, *a: Any) -> Sequence[Launch]:
        size, reduction = a[n], a[n + 1]
        if reduction == 0:
            return [_over(size)]
        chunks = cpu.loss_chunks(size)
        return [Launch("", (chunks,), _over(min(size, _THREADS)).block), Launch("total", (1,), (_ceil(min(chunks, 256), 32) * 32,))]
    return rule


def _random(n: int, each: int, advances: bool = True) -> Rule:
    """`each` elements a thread."""
    def rule(device: CUDA, *a: Any) -> Sequence[Launch]:
        if a[n] == 0:
            return []
        return [_over(_ceil(a[n], each)), _one("advance")] if advances else [_over(a[n])]
    return rule


def _parameters(device: CUDA, *a: Any) -> Sequence[Launch]:
    table = device.constants[a[0]]
    count, longest = len(table), int(table[:, -1].max(initial=0))
    if longest == 0:
        return []
    launch = _over(longest, each=4)
    return [launch._replace(grid=(launch.grid[0], min(count, 65535)))]


def _optimizer(device: CUDA, *a: Any) -> Sequence[Launch]:
    return [*_parameters(device, *a), _over(len(device.constants[a[0]]), "count")]


class Entry(NamedTuple):
    """A row of the table. `registers` and `shared` (static, in bytes) bound what the compiled kernel may use, `stack` what it may put
    into local memory: tests compile every kernel and hold it to them."""

    file: str
    rule: Rule
    registers: int = 128
    shared: int = 0
    stack: int = 0


def _table() -> dict[str, Entry]:
    table: dict[str, Entry] = {}

    def add(file: str, names: str, rule: Rule, **bounds: int) -> None:
        for name in names.split():
            table[name] = Entry(file, rule, **bounds)

    add("elementwise", """copy where cast_f32 cast_f64 cast_i32 cast_i64 cast_u8 neg abs sign square add sub mul maximum minimum
        floor_divide remainder fmod div pow atan2 exp exp2 expm1 log log2 log10 log1p sqrt rsqrt reciprocal asin acos atan
        sinh cosh tanh asinh acosh atanh sigmoid erf erfc erfinv lgamma digamma floor ceil round trunc eq ne lt le gt ge isnan isinf
        isfinite logical_and logical_or logical_xor logical_not""", _by_plan)
    add("elementwise", "sin cos tan", _by_plan, stack=40)              # the reduction of huge angles needs a table of its own
    add("activation", """relu gelu gelu_tanh silu mish selu relu6 hardswish hardsigmoid softsign logsigmoid softplus elu celu leaky_relu
        hardtanh relu_backward gelu_backward gelu_tanh_backward silu_backward mish_backward selu_backward relu6_backward hardswish_backward
        hardsigmoid_backward softsign_backward logsigmoid_backward softplus_backward elu_backward celu_backward leaky_relu_backward
        hardtanh_backward tanh_backward sigmoid_backward""", _by_plan)
    add("reduce", "sum prod max min argmax argmin count_nonzero any all moments", _reduction, shared=12288)
    add("reduce", "cumsum cumprod", _scan)

    add("norm", "layer_norm_forward", _row_norm(6, 7), shared=256)
    add("norm", "rms_norm_forward", _row_norm(4, 5), shared=256)
    add("norm", "layer_norm_backward", _row_norm_backward(2, (1, 2)), shared=4608)
    add("norm", "rms_norm_backward", _row_norm_backward(1, (1,)), shared=4608)
    add("norm", "batch_norm_forward", _channels(7, True), shared=4608)
    add("norm", "batch_norm_backward", _channels(8, False), shared=4608)
    add("norm", "batch_norm_eval_backward", _channels(8, True), shared=4608)
    table["batch_norm_eval_forward"] = Entry("norm", lambda device, *a: [_over(a[6] * a[7] * a[8])])
    add("norm", "running_update", _elements(2))
    table["group_norm_forward"] = Entry("norm", lambda device, *a: [_per_row(a[6] * a[7], a[8] * a[9])], shared=256)
    add("norm", "group_norm_backward", _group_norm_backward, shared=4608)

    add("softmax", "softmax_forward softmax_backward log_softmax_forward log_softmax_backward logsumexp_forward", _lines, shared=512)
    add("softmax", "cross_entropy_forward", _cross_entropy_forward, shared=512)
    table["cross_entropy_backward"] = Entry("softmax", lambda device, *a: [_over(a[7] * a[8] * a[9])], shared=256)

    for name, inputs in (("mse_loss", 2), ("l1_loss", 2), ("huber_loss", 2), ("bce_loss", 3), ("bce_logits_loss", 4)):
        add("loss", name + "_forward", _loss_forward(2 + inputs), shared=256)
        add("loss", name + "_backward", _elements(3 + inputs))

    add("random", "uniform normal", _random(2, 2))
    add("random", "random_bits", _random(2, 2))
    add("random", "bernoulli_mask", _random(2, 4))
    add("random", "dropout_forward", _random(4, 4))
    add("random", "dropout_backward", _random(3, 1, False))

    table["take"] = table["gather"] = Entry("index", lambda device, *a: [_over(a[3] * a[4] * a[6])])
    table["scatter"] = table["index_add"] = table["scatter_add"] = Entry("index", lambda device, *a: [_over(a[3] * a[6] if a[4] else 0)])
    table["check_index"] = Entry("index", lambda device, *a: [Launch("", (1,), (min(512, _ceil(max(a[2], 1), 32) * 32),))], shared=4096)
    add("index", "wrap_index", _elements(2))

    add("optim", "sgd adam rmsprop adagrad", _optimizer, shared=16)
    add("optim", "grad_scale grad_clip", _parameters)
    table["grad_norm_sq"] = Entry("optim", lambda device, *a: [Launch("", (128,), (_THREADS,)), _one("add")], shared=4096)
    table["clip_factor"] = Entry("optim", lambda device, *a: [_one("")])
    return table


KERNELS = _table()


def source(file: str) -> str:
    """The CUDA text of a kernel file, with what all of them share in front: common.cuh and native/workspace.h."""
    parts = [((SOURCES / "common.cuh").read_text(), "workspace.h"), (cpu.WORKSPACE_TEXT, f"{file}.cu")]
    return "".join(f'{text}\n#line 1 "{following}"\n' for text, following in parts) + (SOURCES / file).with_suffix(".cu").read_text()


def options(suffix: str) -> tuple[str, ...]:
    """The compiler options for an element type ("f32", ...), or "" for the kernels that have none."""
    return ("-std=c++17", f"-DMG_TYPE={suffix}") if suffix else ("-std=c++17",)


def signatures() -> dict[str, str]:
    """{full name: one letter an argument} of all kernels of native/minigrad.h."""
    from .cpu import ffi, lib
    index = range(lib.mg_kernel_count())
    return {ffi.string(lib.mg_kernel_name(i)).decode(): ffi.string(lib.mg_kernel_signature(i)).decode() for i in index}


def split(full: str) -> tuple[str, str]:
    """"layer_norm_forward_f32" as ("layer_norm_forward", "f32")."""
    name, _, suffix = full.rpartition("_")
    return (name, suffix) if suffix in {*TYPE_SUFFIX.values(), *MOVE_SUFFIX.values()} and full not in KERNELS else (full, "")


# ---- the device -----------------------------------------------------------------------------------------------------

class CUDA(Device):
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
        kernels = {}
        from . import blas
        for full, signature in signatures().items():
            name, suffix = split(full)
            if name == "gemm":
                kernels[full] = Kernel(full, signature, -1, blas.Gemm(self, suffix))
            elif name in KERNELS:
                kernels[full] = Kernel(full, signature, -1, _launcher(self, name, suffix, signature))
        self.kernels = KernelTable(self.name, kernels)
        self.host = Kernel("host", "*", -1, self._no_kernel)

    def describe(self) -> str:
        """The GPU's name."""
        name = cp.cuda.runtime.getDeviceProperties(self.index)["name"]
        return name.decode() if isinstance(name, bytes) else str(name)

    def use(self) -> None:
        """Makes this GPU the one that CuPy works on."""
        if self.several:
            self.gpu.use()

    def function(self, file: str, suffix: str, name: str) -> Any:
        """The compiled CUDA function; the first one of a file and type compiles it."""
        module = self.modules.get((file, suffix))
        if module is None:
            module = self.modules[file, suffix] = cp.RawModule(code=source(file), options=options(suffix))
        return module.get_function(name)

    def _no_kernel(self, function: Callable[..., Any], *arrays: Any) -> None:
        dtypes = ", ".join(dict.fromkeys(str(a.dtype) for a in arrays if hasattr(a, "dtype")))
        name = next(filter(None, map(_public_name, (function, *getattr(function, "keywords", {}).values(), *arrays))), "this op")
        raise NotImplementedError(f"[{name}] has no CUDA kernel for {dtypes} on {self.name}; convert to float32, or work on the CPU")

    # -- memory --

    def fresh(self, layout: Layout) -> Block:
        self.use()
        root = cp.empty((layout.nbytes,), np.uint8)
        return Block(_Views(layout, root), root, root.data.ptr, layout.free)

    def container(self, array: Array) -> Any:
        return _view(array.layout, array.ptr, array.block.root)

    def wrap(self, array: Any) -> Array:
        """A CuPy array's memory as an `Array`, shared, kept alive."""
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
        out = memory.apart(memory.layout(self, values.dtype, values.shape))
        self.write(out, values)
        return out

    def write(self, array: Array, values: Any) -> None:
        """Host values into a contiguous array of this device."""
        layout = array.layout
        if layout.size:
            self.use()
            host = np.ascontiguousarray(np.broadcast_to(np.asarray(values, layout.dtype), layout.shape)).reshape(layout.shape)
            array.np.set(host)
            if array.ptr in self.constants:
                self.constants[array.ptr] = host.copy()

    def download(self, array: Array) -> np.ndarray:
        layout = array.layout
        if layout.size == 0:
            return np.empty(layout.shape, layout.dtype)
        self.use()
        if not layout.contiguous:
            from .shape import elementwise_plan
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
    """Of a function (or a partial of one, or one made inside it) if it has a public one: what an op's host fallback is known by."""
    name = getattr(thing, "__qualname__", getattr(thing, "__name__", "")) if callable(thing) else ""
    name = name or _public_name(getattr(thing, "func", None)) if hasattr(thing, "func") else name
    name = name.partition(".")[0]
    return "" if name.startswith(("_", "<")) else name


def _view(layout: Any, ptr: int, root: Any) -> Any:
    """A CuPy array over memory that `root` owns, and that it keeps alive: as long as there is one, the block is not reused."""
    size = layout.dtype.itemsize
    dims = list(zip(layout.shape, layout.strides, strict=True)) if layout.size else []
    low, high = (sum(pick(0, (n - 1) * s) for n, s in dims) * size for pick in (min, max))
    owned = cp.cuda.UnownedMemory(ptr + low, high - low + size, root, layout.device.index)
    strides = tuple(s * size for s in layout.strides)
    return cp.ndarray(layout.shape, layout.dtype, memptr=cp.cuda.MemoryPointer(owned, -low), strides=strides)


class _Views:
    """A block's `np`: indexing it makes a CuPy array over the block."""

    __slots__ = ("layout", "root")

    def __init__(self, layout: Layout, root: Any) -> None:
        self.layout, self.root = layout, root

    def __getitem__(self, _: Any) -> Any:
        return _view(self.layout, self.root.data.ptr, self.root)


_CONVERT: dict[str, Callable[[Any], Any]] = {"o": int, "p": int, "i": int, "d": float}      # CuPy passes an int as int64, a float as double


def _launcher(device: CUDA, name: str, suffix: str, signature: str) -> Callable[..., None]:
    """What the table's kernel does when it is called: the arguments as the C kernel takes them."""
    entry, rule = KERNELS[name], KERNELS[name].rule
    convert = [_CONVERT[s] for s in signature]
    functions: dict[str, Any] = {}

    def launch(*arguments: Any) -> None:
        given = tuple([c(a) for c, a in zip(convert, arguments, strict=True)])
        device.use()
        for step, grid, block, shared in rule(device, *given):
            if grid[0]:
                function = functions.get(step)
                if function is None:
                    full = "_".join(filter(None, (name, step, suffix)))
                    function = functions[step] = device.function(entry.file, suffix, full)
                function(grid, block, given, shared_mem=shared)
    return launch
