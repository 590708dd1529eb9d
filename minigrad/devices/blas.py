"""Matrix products on the GPU: a binding of cuBLAS by cffi. Read `cuda.py` first.

CuPy's wrappers of cuBLAS are not used: they refuse graph capture, and copy transposed operands of batches.

`Gemm` takes the argument list of the C kernel `gemm` (native/minigrad.h): c = a b [+ c] [+ bias], with a row-major c of
row stride crs, any strides of a and b, and a batch by offsets. cuBLAS is column-major, and a row-major matrix is a
column-major one transposed, so the product that is asked of it is c' = b' a'. What cuBLAS does not do is done here:

    bias                            cuBLASLt adds it; where it cannot, one elementwise launch after the product
    no stride of an operand is 1    that operand is first copied to contiguous memory
    offsets without a fixed step    one launch writes a table of pointers, for one call: so are the heads of attention

Products are computed in full float32 (no TF32) or float64; those of float16 and bfloat16 are added up in float32, and
rounded once.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import numpy as np
from cffi import FFI

from . import memory
from .base import TYPE_SUFFIX
from .launch import TEXTS, Entry, over
from .plan import elementwise_plan, is_half, remember

ffi = FFI()
# addresses on the device are numbers here
ffi.cdef("""
int cublasCreate_v2(void **handle);
int cublasSetStream_v2(void *handle, void *stream);
int cublasSetWorkspace_v2(void *handle, void *workspace, size_t bytes);
int cublasSetMathMode(void *handle, int mode);
int cublasGemmEx_64(void *handle, int transa, int transb, int64_t m, int64_t n, int64_t k, const void *alpha,
    uintptr_t a, int a_type, int64_t lda, uintptr_t b, int b_type, int64_t ldb, const void *beta,
    uintptr_t c, int c_type, int64_t ldc, int compute_type, int algo);
int cublasGemmStridedBatchedEx_64(void *handle, int transa, int transb, int64_t m, int64_t n, int64_t k,
    const void *alpha, uintptr_t a, int a_type, int64_t lda, long long a_step,
    uintptr_t b, int b_type, int64_t ldb, long long b_step, const void *beta,
    uintptr_t c, int c_type, int64_t ldc, long long c_step, int64_t batch, int compute_type, int algo);
int cublasGemmBatchedEx_64(void *handle, int transa, int transb, int64_t m, int64_t n, int64_t k,
    const void *alpha, uintptr_t a, int a_type, int64_t lda, uintptr_t b, int b_type, int64_t ldb, const void *beta,
    uintptr_t c, int c_type, int64_t ldc, int64_t batch, int compute_type, int algo);

typedef struct { uint64_t data[8]; } cublasLtMatmulAlgo_t;
typedef struct { cublasLtMatmulAlgo_t algo; size_t workspaceSize; int state; float wavesCount; int reserved[4]; }
    cublasLtMatmulHeuristicResult_t;
int cublasLtMatmulDescCreate(void **description, int compute_type, int scale_type);
int cublasLtMatmulDescSetAttribute(void *description, int attribute, const void *value, size_t bytes);
int cublasLtMatmulDescDestroy(void *description);
int cublasLtMatrixLayoutCreate(void **layout, int type, uint64_t rows, uint64_t columns, int64_t ld);
int cublasLtMatrixLayoutDestroy(void *layout);
int cublasLtMatmulPreferenceCreate(void **preference);
int cublasLtMatmulPreferenceSetAttribute(void *preference, int attribute, const void *value, size_t bytes);
int cublasLtMatmulPreferenceDestroy(void *preference);
int cublasLtMatmulAlgoGetHeuristic(void *handle, void *description, void *a, void *b, void *c, void *d,
    void *preference, int wanted, cublasLtMatmulHeuristicResult_t *results, int *found);
int cublasLtMatmul(void *handle, void *description, const void *alpha, uintptr_t a, void *of_a,
    uintptr_t b, void *of_b, const void *beta, uintptr_t c, void *of_c, uintptr_t d, void *of_d,
    const cublasLtMatmulAlgo_t *algo, uintptr_t workspace, size_t bytes, uintptr_t stream);
""")

library: Any = None             # cuBLAS, loaded at the first product; tests set one that emulates it
light: Any = None               # cuBLASLt, loaded at the first product with a bias; False if it cannot be
# bytes, as NVIDIA recommends for Hopper; a workspace of fixed size keeps results the same and allows graph capture
_WORKSPACE = 32 << 20
_N, _T = 0, 1                   # CUBLAS_OP_N, CUBLAS_OP_T
_DEFAULT = -1                   # CUBLAS_GEMM_DEFAULT
_TRANSA, _TRANSB, _EPILOGUE, _BIAS_POINTER = 3, 4, 7, 8     # CUBLASLT_MATMUL_DESC_...
_EPILOGUE_BIAS = 4              # CUBLASLT_EPILOGUE_BIAS
_MAX_WORKSPACE, _REDUCTIONS, _MIN_ALIGNMENTS = 1, 3, (5, 6, 7, 8)       # CUBLASLT_MATMUL_PREF_..., of a, b, c and d
# parts of a sum are float32, also where the result is half precision: CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, and
# CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION
_IN_COMPUTE_TYPE, _NOT_REDUCED = 2, 16
_ALIGNED = 16                   # bytes: then loads may be as wide as a thread can make them
# element type: CUDA_R_32F and CUBLAS_COMPUTE_32F; CUDA_R_64F, CUBLAS_COMPUTE_64F; CUDA_R_16F, CUDA_R_16BF
_TYPES = {"f32": (0, 68), "f64": (1, 70), "f16": (2, 68), "bf16": (14, 68)}


def _opened(name: str, cp: Any) -> Any:
    """A library of the CUDA that CuPy uses: from NVIDIA's wheels, a toolkit, or the system. OSError without one."""
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib  # comes with CuPy
        path = load_nvidia_dynamic_lib(name).abs_path
    except Exception:               # pathfinder is missing or found nothing: the system's loader searches
        path = f"lib{name}.so.{cp.cuda.runtime.runtimeGetVersion() // 1000}"
    return ffi.dlopen(path)


def _load(cp: Any) -> Any:
    """libcublas."""
    global library
    if library is None:
        try:
            library = _opened("cublas", cp)
        except OSError as error:
            raise RuntimeError(f"[matmul] cuBLAS could not be loaded ({error}); "
                               "pip install 'cupy-cuda13x[ctk]' (or cuda12x)") from None
    return library


def _load_light(cp: Any) -> Any:
    """libcublasLt, or False: then a bias is added by a launch of its own."""
    global light
    if light is None:
        try:
            light = _opened("cublasLt", cp)
        except OSError:
            light = False
    return light


def _check(status: int, what: str) -> None:
    """Raises RuntimeError for a status other than success."""
    if status:
        raise RuntimeError(f"[matmul] cuBLAS: {what} failed with status {status}")


_Step = Callable[[int, int, int, int], None]     # of the addresses of c, a, b and bias
# the addresses of a batch's operands for cublasGemmBatchedEx: those of c, then of a, then of b
TEXTS["gemm_pointers.cu"] = """
KERNEL(gemm_pointers)(int64_t *to, const int64_t *offsets, int64_t c, int64_t a, int64_t b, int64_t batch,
                      int64_t size) {
  GRID_LOOP(i, batch) {
    to[i] = c + offsets[3 * i] * size;
    to[batch + i] = a + offsets[3 * i + 1] * size;
    to[2 * batch + i] = b + offsets[3 * i + 2] * size;
  }
}
"""
# what a launcher of it takes
POINTERS: tuple[Any, ...] = (
    "gemm_pointers", "", "opiiiii", ("to", "offsets", "c", "a", "b", "batch", "size"),
    {"gemm_pointers": Entry("gemm_pointers.cu", lambda k, host: [over(k.batch)])})


class Handle:
    """cuBLAS on a GPU, for the stream of that device; `cp` is CuPy."""

    def __init__(self, cp: Any, stream: Any) -> None:
        self.lib = _load(cp)
        handle = ffi.new("void **")
        _check(self.lib.cublasCreate_v2(handle), "cublasCreate")
        self.handle = handle[0]
        with stream:
            self.workspace = cp.empty((_WORKSPACE,), np.uint8)
        # in this order, since setting a stream takes the workspace away
        _check(self.lib.cublasSetStream_v2(self.handle, ffi.cast("void *", stream.ptr)), "cublasSetStream")
        workspace = ffi.cast("void *", self.workspace.data.ptr)
        _check(self.lib.cublasSetWorkspace_v2(self.handle, workspace, _WORKSPACE), "cublasSetWorkspace")
        _check(self.lib.cublasSetMathMode(self.handle, _NOT_REDUCED), "cublasSetMathMode")


_handles: dict[tuple[int, int], Handle] = {}        # by GPU and stream


def handle(device: Any, cp: Any, stream: Any) -> Handle:
    """The handle of a stream of the device."""
    key = device.index, stream.ptr
    found = _handles.get(key)
    return found if found is not None else _handles.setdefault(key, Handle(cp, stream))


def prepare(device: Any, cp: Any, stream: Any) -> None:
    """Makes the handle of a stream that will record, if products have run on the device: it may not be made then."""
    if (device.index, device.stream.ptr) in _handles:
        handle(device, cp, stream)


def _expressible(rows: int, columns: int, row_stride: int, column_stride: int) -> tuple[int, int] | None:
    """(operation, leading dimension) by which cuBLAS walks a row-major operand, or None if it cannot."""
    if (column_stride == 1 or columns == 1) and (row_stride >= max(columns, 1) or rows == 1):
        return _N, max(row_stride if rows > 1 else 1, columns, 1)
    if (row_stride == 1 or rows == 1) and (column_stride >= max(rows, 1) or columns == 1):
        return _T, max(column_stride if columns > 1 else 1, rows, 1)
    return None


class Gemm:
    """The kernel `gemm` of one element type on a CUDA device. Called with the arguments of the C kernel.

    What a product takes is decided once for its sizes, strides and offsets: a list of steps, each of which takes the
    addresses of c, a, b and the bias. A call runs them.
    """

    def __init__(self, device: Any, cp: Any, suffix: str, pointers: Callable[..., None]) -> None:
        self.device, self.cp, self.pointers = device, cp, pointers
        dtypes: dict[str, Any] = {known: dtype for dtype, known in TYPE_SUFFIX.items()}
        self.dtype: np.dtype = dtypes[suffix]
        self.type, self.compute = _TYPES[suffix]
        c = "double" if suffix == "f64" else "float"
        self.one, self.zero = ffi.new(f"{c} *", 1.0), ffi.new(f"{c} *", 0.0)
        self.plans: dict[tuple, Sequence[_Step]] = {}
        self.walks: dict[tuple, Any] = {}       # never emptied: a captured step may read them

    def __call__(self, c: int, a: int, b: int, bias: int, offsets: int, batch: int, m: int, n: int, k: int,
                 ars: int, acs: int, brs: int, bcs: int, crs: int, accumulate: int) -> None:
        key = (bias != 0, self.device.numbers.get(offsets, 0), batch, m, n, k, ars, acs, brs, bcs, crs, accumulate)
        steps = self.plans.get(key)
        if steps is None:
            steps = remember(self.plans, key, self._steps(offsets, *key))
        for step in steps:
            step(c, a, b, bias)

    def _steps(self, offsets: int, biased: bool, number: int, batch: int, m: int, n: int, k: int, ars: int, acs: int,
               brs: int, bcs: int, crs: int, accumulate: int) -> list[_Step]:
        """The steps of a product. `offsets` is an address, of the values with this number."""
        if batch == 0 or m == 0 or n == 0:
            return []
        places = self.device.constants[offsets].reshape(-1, 3) if offsets else np.zeros((batch, 3), np.int64)
        apart, add = [], [self._add_bias(places, m, n, crs)] if biased else []
        if biased and not accumulate and is_half(self.dtype):       # to round once, the product is added to the bias
            apart = [self._spread_bias(places, m, n, crs),
                     *self._steps(offsets, False, number, batch, m, n, k, ars, acs, brs, bcs, crs, 1)]
        if k == 0:
            return apart or [*([] if accumulate else [self._spread(0, places, m, n, crs)]), *add]
        dense_a, ars, acs, a_places = self._dense(places[:, 1], m, k, ars, acs)
        dense_b, brs, bcs, b_places = self._dense(places[:, 2], k, n, brs, bcs)
        of_a, of_b = _expressible(m, k, ars, acs), _expressible(k, n, brs, bcs)
        assert of_a and of_b        # contiguous copies are
        product = _Product(self, m, n, k, of_a, of_b, max(crs if m > 1 else 1, n), bool(accumulate))
        if dense_a or dense_b:
            runs = product.batch(np.stack([places[:, 0], a_places, b_places], 1), 0)
            return apart or [self._copied(dense_a, dense_b, runs), *add]
        with_bias = product.biased() if biased and batch == 1 and not accumulate else None
        otherwise = apart or [product.batch(places, offsets), *add]
        if with_bias is None:
            return otherwise

        def step(c: int, a: int, b: int, bias: int) -> None:
            for one in otherwise if (c | a | b | bias) % _ALIGNED else (with_bias,):
                one(c, a, b, bias)
        return [step]

    def _dense(self, places: np.ndarray, rows: int, columns: int, row_stride: int, column_stride: int) -> tuple:
        """None and the operand's strides and places; if cuBLAS cannot walk it, first a function that makes contiguous
        copies of its matrices, one for each of `places`."""
        if _expressible(rows, columns, row_stride, column_stride) is not None:
            return None, row_stride, column_stride, places
        distinct, which = np.unique(places, return_inverse=True)
        layout = memory.layout(self.device, self.dtype, (len(distinct), rows, columns))
        size = self.dtype.itemsize
        copies = [(i * rows * columns * size, place * size) for i, place in enumerate(distinct.tolist())]
        walk = self._walk("copy", (rows, columns), (columns, 1), (row_stride, column_stride))

        def copy(x: int) -> memory.Array:
            to = memory.alloc(layout)
            for i, place in copies:
                walk(to.ptr + i, x + place)
            return to
        return copy, columns, 1, which.reshape(-1) * (rows * columns)

    def _copied(self, dense_a: Any, dense_b: Any, run: _Step) -> _Step:
        """`run` on copies of operands. They live until the product is launched; the stream is in order."""
        def step(c: int, a: int, b: int, bias: int) -> None:
            of_a, of_b = dense_a and dense_a(a), dense_b and dense_b(b)
            run(c, of_a.ptr if of_a else a, of_b.ptr if of_b else b, bias)
        return step

    def _add_bias(self, places: np.ndarray, m: int, n: int, crs: int) -> _Step:
        """Adds the bias, one number for each column, to each c."""
        walk = self._walk("add", (m, n), (crs, 1), (crs, 1), (0, 1))
        skips = (places[:, 0] * self.dtype.itemsize).tolist()

        def step(c: int, a: int, b: int, bias: int) -> None:
            for skip in skips:
                walk(c + skip, c + skip, bias)
        return step

    def _spread_bias(self, places: np.ndarray, m: int, n: int, crs: int) -> _Step:
        """Fills the rows of each c with the bias."""
        walk, skips = self._walk("copy", (m, n), (crs, 1), (0, 1)), (places[:, 0] * self.dtype.itemsize).tolist()

        def step(c: int, a: int, b: int, bias: int) -> None:
            for skip in skips:
                walk(c + skip, bias)
        return step

    def _spread(self, value: float, places: np.ndarray, m: int, n: int, crs: int) -> _Step:
        """Fills each c with a value."""
        key = ("constant", value)
        if key not in self.walks:
            self.walks[key] = self.device.constant(np.full(1, value, self.dtype))
        walk, skips = self._walk("copy", (m, n), (crs, 1), (0, 0)), (places[:, 0] * self.dtype.itemsize).tolist()

        def step(c: int, a: int, b: int, bias: int) -> None:
            for skip in skips:
                walk(c + skip, self.walks[key].ptr)
        return step

    def _walk(self, name: str, shape: tuple[int, ...], *strides: tuple[int, ...]) -> Callable[..., None]:
        """An elementwise launch on operands of these strides, by their addresses.

        Not by `Kernel.call`, since it is part of this launch.
        """
        layouts = [memory.layout(self.device, self.dtype, shape, s) for s in strides]
        key = (name, *layouts)
        plan = self.walks.get(key)
        if plan is None:
            plan = self.walks[key] = elementwise_plan(*layouts)
        family = getattr(self.device.kernels, name)
        function, table = (family.move(self.dtype) if name == "copy" else family[self.dtype]).function, plan.ptr
        return lambda *addresses: function(*addresses, table)


class _Product:
    """Products of matrices of one size: what cuBLAS is asked for. c is row-major, cuBLAS column-major: c' = b' a'."""

    def __init__(self, gemm: Gemm, m: int, n: int, k: int, of_a: tuple[int, int], of_b: tuple[int, int], ldc: int,
                 accumulate: bool) -> None:
        self.device, self.cp, self.lib, self.pointers = gemm.device, gemm.cp, _load(gemm.cp), gemm.pointers
        self.size, self.type, self.compute = gemm.dtype.itemsize, gemm.type, gemm.compute
        self.sizes, self.one = (m, n, k), gemm.one
        (op_a, self.lda), (op_b, self.ldb), self.ldc = of_a, of_b, ldc
        self.first = op_b, op_a, n, m, k, gemm.one
        self.beta = gemm.one if accumulate else gemm.zero

    def handle(self) -> Any:
        """cuBLAS's handle for the stream that launches of this thread go to."""
        return handle(self.device, self.cp, self.device.use() or self.device.stream).handle

    def batch(self, places: np.ndarray, offsets: int) -> _Step:
        """The products at `places`, rows of elements to skip in (c, a, b), which `offsets` has on the device, or is 0.

        One call if the places have fixed steps, or one for each of two parts; else a table of pointers and one call.
        """
        even = _even(places)
        if even is not None:
            return self._strided(places[:1], *even)
        parts = _parts(places)
        if offsets and (parts is None or len(parts[0]) > 2):
            return self._pointers(len(places), offsets)
        return self._strided(*(parts or (places, 1, (0, 0, 0))))

    def biased(self) -> _Step | None:
        """One call of cuBLASLt that adds the bias; None if it cannot. All addresses are multiples of _ALIGNED."""
        lt = _load_light(self.cp)
        if not lt:
            return None
        (m, n, k), (op_b, op_a) = self.sizes, self.first[:2]
        try:
            of_b, of_a, of_c = [self._made(lt, "MatrixLayout", self.type, *of) for of in (
                (k, n, self.ldb) if op_b else (n, k, self.ldb), (m, k, self.lda) if op_a else (k, m, self.lda),
                (n, m, self.ldc))]
            what = self._made(lt, "MatmulDesc", self.compute, int(self.type == 1))
            wish = self._made(lt, "MatmulPreference")
            for attribute, value in ((_TRANSA, op_b), (_TRANSB, op_a), (_EPILOGUE, _EPILOGUE_BIAS)):
                _check(lt.cublasLtMatmulDescSetAttribute(what, attribute, ffi.new("int *", value), 4), "epilogue")
            pointer = ffi.new("uint64_t *", _ALIGNED)       # until the first call, an address of that alignment
            _check(lt.cublasLtMatmulDescSetAttribute(what, _BIAS_POINTER, pointer, 8), "bias")
            _check(lt.cublasLtMatmulPreferenceSetAttribute(wish, _MAX_WORKSPACE, ffi.new("uint64_t *", _WORKSPACE), 8),
                   "workspace")
            for attribute, value in (*[(of, _ALIGNED) for of in _MIN_ALIGNMENTS], (_REDUCTIONS, _IN_COMPUTE_TYPE)):
                _check(lt.cublasLtMatmulPreferenceSetAttribute(wish, attribute, ffi.new("uint32_t *", value), 4),
                       "preference")
            result, found = ffi.new("cublasLtMatmulHeuristicResult_t *"), ffi.new("int *")
            _check(lt.cublasLtMatmulAlgoGetHeuristic(self.handle(), what, of_b, of_a, of_c, of_c, wish, 1, result,
                                                     found), "cublasLtMatmulAlgoGetHeuristic")
            _check(result.state if found[0] else 15, "cublasLtMatmulAlgoGetHeuristic")
        except RuntimeError:
            return None
        alpha, zero, lock = self.one, self.beta, Lock()

        def step(c: int, a: int, b: int, bias: int) -> None:
            stream = self.device.use() or self.device.stream
            at = handle(self.device, self.cp, stream)
            with lock:                          # of threads that share the description
                pointer[0] = bias
                _check(lt.cublasLtMatmulDescSetAttribute(what, _BIAS_POINTER, pointer, 8), "bias")
                _check(lt.cublasLtMatmul(at.handle, what, alpha, b, of_b, a, of_a, zero, c, of_c, c, of_c,
                                         ffi.addressof(result, "algo"), at.workspace.data.ptr, _WORKSPACE,
                                         stream.ptr), "cublasLtMatmul")
        return step

    @staticmethod
    def _made(lt: Any, kind: str, *arguments: int) -> Any:
        """A description for cuBLASLt, destroyed when it is dropped."""
        to = ffi.new("void **")
        _check(getattr(lt, f"cublasLt{kind}Create")(to, *arguments), f"cublasLt{kind}Create")
        return ffi.gc(to[0], getattr(lt, f"cublasLt{kind}Destroy"))

    def _strided(self, starts: np.ndarray, count: int, steps: tuple[int, int, int]) -> _Step:
        """A call for each start, of `count` products with these steps."""
        first, t, size, (dc, da, db) = self.first, self.type, self.size, steps
        lda, ldb, ldc, beta, compute = self.lda, self.ldb, self.ldc, self.beta, self.compute
        one, many = self.lib.cublasGemmEx_64, self.lib.cublasGemmStridedBatchedEx_64
        skips = [tuple(row) for row in (starts * size).tolist()]

        def step(c: int, a: int, b: int, bias: int) -> None:
            at = self.handle()
            for c0, a0, b0 in skips:
                if count == 1:
                    _check(one(at, *first, b + b0, t, ldb, a + a0, t, lda, beta, c + c0, t, ldc, compute, _DEFAULT),
                           "cublasGemmEx")
                else:
                    _check(many(at, *first, b + b0, t, ldb, db, a + a0, t, lda, da, beta, c + c0, t, ldc, dc, count,
                                compute, _DEFAULT), "cublasGemmStridedBatchedEx")
        return step

    def _pointers(self, batch: int, offsets: int) -> _Step:
        """A launch that writes the addresses of all operands, and one call."""
        first, t, size, lda, ldb, ldc = self.first, self.type, self.size, self.lda, self.ldb, self.ldc
        beta, compute, call = self.beta, self.compute, self.lib.cublasGemmBatchedEx_64
        layout = memory.layout(self.device, np.dtype(np.int64), (3 * batch,))
        write = self.pointers

        def step(c: int, a: int, b: int, bias: int) -> None:
            table = memory.alloc(layout)
            to = table.ptr
            write(to, offsets, c, a, b, batch, size)
            _check(call(self.handle(), *first, to + 16 * batch, t, ldb, to + 8 * batch, t, lda, beta, to, t, ldc, batch,
                        compute, _DEFAULT), "cublasGemmBatchedEx")
        return step


def _even(places: np.ndarray) -> tuple[int, tuple[int, int, int]] | None:
    """(number, steps) of places that are one fixed step apart, as cuBLAS takes it."""
    steps = np.diff(places, axis=0)
    if not len(steps):
        return 1, (0, 0, 0)
    if (steps != steps[0]).any() or (steps[0] < 0).any() or steps[0, 0] == 0:
        return None
    return len(places), tuple(steps[0].tolist())


def _parts(places: np.ndarray) -> tuple[np.ndarray, int, tuple[int, int, int]] | None:
    """(starts, number, steps) of places that are rows of even ones, or columns if these are fewer; else None."""
    steps = np.diff(places, axis=0)
    length = int((steps != steps[0]).any(1).argmax()) + 1
    if length == 1 or len(places) % length:
        return None
    grid = places.reshape(-1, length, 3)
    found = []
    for lines in (grid, grid.swapaxes(0, 1)):
        even = _even(lines[0])
        if even is not None and (np.diff(lines, axis=1) == np.array(even[1])).all():
            found.append((lines[:, 0], *even))
    return min(found, key=lambda one: len(one[0]), default=None)
