"""Matrix products on the GPU: a binding of cuBLAS by cffi. Read `cuda.py` first.

CuPy's wrappers of cuBLAS are not used: they refuse graph capture, and copy transposed operands of batches.

`Gemm` takes the argument list of the C kernel `gemm` (native/minigrad.h): c = a b [+ c] [+ bias], with a row-major c of
row stride crs, any strides of a and b, and a batch by offsets. cuBLAS is column-major, and a row-major matrix is a
column-major one transposed, so the product that is asked of it is c' = b' a'. What cuBLAS does not do is done here:

    bias                            one elementwise launch after the product
    no stride of an operand is 1    that operand is first copied to contiguous memory
    offsets without a fixed step    one call for each product of the batch

Products are computed in full float32 (no TF32) or float64.
"""
from __future__ import annotations

from typing import Any

import numpy as np
from cffi import FFI

from . import memory
from .plan import elementwise_plan

ffi = FFI()
ffi.cdef("""
int cublasCreate_v2(void **handle);
int cublasSetStream_v2(void *handle, void *stream);
int cublasSetWorkspace_v2(void *handle, void *workspace, size_t bytes);
int cublasGemmEx_64(void *handle, int transa, int transb, int64_t m, int64_t n, int64_t k, const void *alpha,
    const void *a, int a_type, int64_t lda, const void *b, int b_type, int64_t ldb, const void *beta,
    void *c, int c_type, int64_t ldc, int compute_type, int algo);
int cublasGemmStridedBatchedEx_64(void *handle, int transa, int transb, int64_t m, int64_t n, int64_t k,
    const void *alpha, const void *a, int a_type, int64_t lda, long long a_step,
    const void *b, int b_type, int64_t ldb, long long b_step, const void *beta,
    void *c, int c_type, int64_t ldc, long long c_step, int64_t batch, int compute_type, int algo);
""")

library: Any = None             # cuBLAS, loaded at the first product; tests set one that emulates it
# bytes, as NVIDIA recommends for Hopper; a workspace of fixed size keeps results the same and allows graph capture
_WORKSPACE = 32 << 20
_N, _T = 0, 1                   # CUBLAS_OP_N, CUBLAS_OP_T
_DEFAULT = -1                   # CUBLAS_GEMM_DEFAULT
# element type: dtype, CUDA_R_32F, CUBLAS_COMPUTE_32F; CUDA_R_64F, CUBLAS_COMPUTE_64F
_TYPES: dict[str, tuple[np.dtype, int, int]] = {"f32": (np.dtype("float32"), 0, 68),
                                                "f64": (np.dtype("float64"), 1, 70)}


def _load(cp: Any) -> Any:
    """libcublas of the CUDA that CuPy uses: from NVIDIA's wheels, a toolkit, or the system."""
    global library
    if library is None:
        try:
            from cuda.pathfinder import load_nvidia_dynamic_lib  # comes with CuPy
            path = load_nvidia_dynamic_lib("cublas").abs_path
        except Exception:           # pathfinder is missing or found nothing: the system's loader searches
            path = f"libcublas.so.{cp.cuda.runtime.runtimeGetVersion() // 1000}"
        try:
            library = ffi.dlopen(path)
        except OSError as error:
            raise RuntimeError(f"[matmul] cuBLAS could not be loaded ({error}); "
                               "pip install 'cupy-cuda13x[ctk]' (or cuda12x)") from None
    return library


def _check(status: int, what: str) -> None:
    """Raises RuntimeError for a status other than success."""
    if status:
        raise RuntimeError(f"[matmul] cuBLAS: {what} failed with status {status}")


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
    """The kernel `gemm` of one element type on a CUDA device. Called with the arguments of the C kernel."""

    def __init__(self, device: Any, cp: Any, suffix: str) -> None:
        self.device, self.cp = device, cp
        self.dtype, self.type, self.compute = _TYPES[suffix]
        c = "float" if suffix == "f32" else "double"
        self.one, self.zero = ffi.new(f"{c} *", 1.0), ffi.new(f"{c} *", 0.0)
        self.plans: dict[tuple, Any] = {}

    def __call__(self, c: int, a: int, b: int, bias: int, offsets: int, batch: int, m: int, n: int, k: int,
                 ars: int, acs: int, brs: int, bcs: int, crs: int, accumulate: int) -> None:
        if batch == 0 or m == 0 or n == 0:
            return
        stream = self.device.use() or self.device.stream
        places = self.device.constants[offsets].reshape(-1, 3).tolist() if offsets else [[0, 0, 0]] * batch
        if k == 0:
            if not accumulate:
                self._spread(c, 0, places, m, n, crs)
        else:
            at = handle(self.device, self.cp, stream)
            keep: list[Any] = []        # copies live until the product is launched; the stream is in order
            a, ars, acs, a_places = self._dense(keep, a, [p[1] for p in places], m, k, ars, acs)
            b, brs, bcs, b_places = self._dense(keep, b, [p[2] for p in places], k, n, brs, bcs)
            self._multiply(at, c, a, b, [(p[0], i, j) for p, i, j in zip(places, a_places, b_places, strict=True)],
                           m, n, k, _expressible(m, k, ars, acs), _expressible(k, n, brs, bcs), crs, accumulate)
        if bias:
            self._add_bias(c, bias, places, m, n, crs)

    def _multiply(self, handle: Handle, c: int, a: int, b: int, places: list, m: int, n: int, k: int,
                  of_a: Any, of_b: Any, crs: int, accumulate: int) -> None:
        """The product itself: one call of cuBLAS if the offsets have a fixed step, else one for each product."""
        (op_a, lda), (op_b, ldb), ldc = of_a, of_b, max(crs if m > 1 else 1, n)
        beta, size, t = self.one if accumulate else self.zero, self.dtype.itemsize, self.type
        steps = [tuple(y - x for x, y in zip(p, q, strict=True)) for p, q in zip(places, places[1:], strict=False)]
        even = all(s == steps[0] for s in steps) and (not steps or min(steps[0]) >= 0 and steps[0][0] > 0)

        def at(pointer: int, offset: int) -> Any:
            return ffi.cast("void *", pointer + offset * size)
        if even and steps:
            (c0, a0, b0), (dc, da, db) = places[0], steps[0]
            _check(handle.lib.cublasGemmStridedBatchedEx_64(
                handle.handle, op_b, op_a, n, m, k, self.one, at(b, b0), t, ldb, db, at(a, a0), t, lda, da, beta,
                at(c, c0), t, ldc, dc, len(places), self.compute, _DEFAULT), "cublasGemmStridedBatchedEx")
            return
        for c0, a0, b0 in places:
            _check(handle.lib.cublasGemmEx_64(
                handle.handle, op_b, op_a, n, m, k, self.one, at(b, b0), t, ldb, at(a, a0), t, lda, beta,
                at(c, c0), t, ldc, self.compute, _DEFAULT), "cublasGemmEx")

    def _dense(self, keep: list, x: int, places: list[int], rows: int, columns: int, row_stride: int,
               column_stride: int) -> tuple:
        """The operand, or if cuBLAS cannot walk it, contiguous copies of its matrices, one for each of `places`."""
        if _expressible(rows, columns, row_stride, column_stride) is not None:
            return x, row_stride, column_stride, places
        distinct = {place: i * rows * columns for i, place in enumerate(dict.fromkeys(places))}
        to = memory.alloc(memory.layout(self.device, self.dtype, (len(distinct), rows, columns)))
        keep.append(to)
        for place, i in distinct.items():
            self._walk("copy", (rows, columns), to.ptr + i * self.dtype.itemsize, (columns, 1),
                       x + place * self.dtype.itemsize, (row_stride, column_stride))
        return to.ptr, columns, 1, [distinct[p] for p in places]

    def _add_bias(self, c: int, bias: int, places: list, m: int, n: int, crs: int) -> None:
        """Adds the bias, one number for each column, to each c."""
        for c0, _, _ in places:
            to = c + c0 * self.dtype.itemsize
            self._walk("add", (m, n), to, (crs, 1), to, (crs, 1), bias, (0, 1))

    def _spread(self, c: int, value: float, places: list, m: int, n: int, crs: int) -> None:
        """Fills each c with a value."""
        key = ("constant", value)
        if key not in self.plans:
            self.plans[key] = self.device.constant(np.full(1, value, self.dtype))
        for c0, _, _ in places:
            self._walk("copy", (m, n), c + c0 * self.dtype.itemsize, (crs, 1), self.plans[key].ptr, (0, 0))

    def _walk(self, name: str, shape: tuple[int, ...], *operands: Any) -> None:
        """An elementwise launch on (address, strides) pairs; not by `Kernel.call`, since it is part of this launch."""
        layouts = [memory.layout(self.device, self.dtype, shape, s) for s in operands[1::2]]
        key = (name, *layouts)
        plan = self.plans.get(key)
        if plan is None:
            plan = self.plans[key] = elementwise_plan(*layouts)
        family = getattr(self.device.kernels, name)
        kernel = family.move(self.dtype) if name == "copy" else family[self.dtype]
        kernel.function(*operands[::2], plan.ptr)
