"""The few functions of cuBLAS that minigrad/devices/blas.py calls, over NumPy: `blas.library = fakeblas`.

It checks its arguments as strictly as cuBLAS: column-major operands, leading dimensions, operations N and T.
"""
import itertools

import numpy as np
from cffi import FFI

from . import fakecupy

_ffi = FFI()
_TYPES = {0: (np.dtype("float32"), 68), 1: (np.dtype("float64"), 70), 2: (np.dtype("float16"), 68), 14: ("bfloat16", 68)}
_objects: dict[int, dict] = {}  # what cuBLASLt has described, by its address
calls: list[str] = []           # what was called, for tests
_handles = itertools.count(1)
_streams = {}                   # what cublasSetStream set, by handle


class _Matrix:
    def __init__(self, pointer, dtype, rows, columns, ld, offset):
        assert ld >= max(1, rows), f"leading dimension {ld} of {rows} rows"
        size, typestr = (2, "<i2") if dtype == "bfloat16" else (dtype.itemsize, dtype.str)
        self.__array_interface__ = {"data": (int(_ffi.cast("uintptr_t", pointer)) + offset * size, False), "shape": (rows, columns),
                                    "typestr": typestr, "version": 3, "strides": (size, ld * size)}


def _matrix(pointer, kind, rows, columns, ld, offset=0):
    matrix = np.asarray(_Matrix(pointer, _TYPES[kind][0], rows, columns, ld, offset))
    return matrix.view(np.dtype("bfloat16")) if kind == 14 else matrix         # a name that NumPy knows since ml_dtypes was imported


def cublasCreate_v2(handle):
    handle[0] = _ffi.cast("void *", next(_handles))
    return 0


def cublasSetStream_v2(handle, stream):
    _streams[int(_ffi.cast("uintptr_t", handle))] = int(_ffi.cast("uintptr_t", stream))
    return 0


def cublasSetWorkspace_v2(handle, workspace, size):
    assert int(_ffi.cast("uintptr_t", workspace)) % 16 == 0
    return 0


def cublasSetMathMode(handle, mode):
    assert mode == 16       # CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION: what `_product` does, rounding once
    return 0


def _product(transa, transb, m, n, k, alpha, a, b, beta, c):
    x, y = (a.T if transa else a), (b.T if transb else b)
    assert c.shape == (m, n) and x.shape == (m, k) and y.shape == (k, n)
    computed = np.float32 if c.dtype.itemsize == 2 else c.dtype          # half precision is rounded once
    result = (alpha * (x.astype(np.float64) @ y.astype(np.float64))).astype(computed)
    c[...] = (result if beta == 0 else beta * c.astype(computed) + result).astype(c.dtype)      # beta 0: c is not read


def cublasGemmStridedBatchedEx_64(handle, transa, transb, m, n, k, alpha, a, a_type, lda, a_step, b, b_type, ldb, b_step, beta,
                                  c, c_type, ldc, c_step, batch, compute, algo):
    assert a_type == b_type == c_type and compute == _TYPES[c_type][1] and algo == -1 and transa in (0, 1) and transb in (0, 1)
    factors = alpha[0], beta[0]
    calls.append("strided batch" if batch > 1 else "one")

    def run():
        with np.errstate(all="ignore"):
            for i in range(batch):
                _product(transa, transb, m, n, k, factors[0], _matrix(a, a_type, *((k, m) if transa else (m, k)), lda, i * a_step),
                         _matrix(b, b_type, *((n, k) if transb else (k, n)), ldb, i * b_step), factors[1],
                         _matrix(c, c_type, m, n, ldc, i * c_step))
    fakecupy.record(run, fakecupy._streams[_streams[int(_ffi.cast("uintptr_t", handle))]])
    return 0


def cublasGemmEx_64(handle, transa, transb, m, n, k, alpha, a, a_type, lda, b, b_type, ldb, beta, c, c_type, ldc, compute, algo):
    return cublasGemmStridedBatchedEx_64(handle, transa, transb, m, n, k, alpha, a, a_type, lda, 0, b, b_type, ldb, 0, beta,
                                         c, c_type, ldc, 0, 1, compute, algo)


def cublasGemmBatchedEx_64(handle, transa, transb, m, n, k, alpha, a, a_type, lda, b, b_type, ldb, beta, c, c_type, ldc, batch, compute,
                           algo):
    assert a_type == b_type == c_type and compute == _TYPES[c_type][1] and algo == -1
    factors = alpha[0], beta[0]
    calls.append("table")

    def run():
        pointers = [np.array(_ffi.unpack(_ffi.cast("uint64_t *", of), batch)) for of in (a, b, c)]
        with np.errstate(all="ignore"):
            for i, j, to in zip(*pointers, strict=True):
                _product(transa, transb, m, n, k, factors[0], _matrix(int(i), a_type, *((k, m) if transa else (m, k)), lda),
                         _matrix(int(j), b_type, *((n, k) if transb else (k, n)), ldb), factors[1], _matrix(int(to), c_type, m, n, ldc))
    fakecupy.record(run, fakecupy._streams[_streams[int(_ffi.cast("uintptr_t", handle))]])
    return 0


def _create(to, **fields):
    to[0] = _ffi.cast("void *", 16 * (len(_objects) + 1))
    _objects[16 * (len(_objects) + 1)] = fields
    return 0


def _object(pointer):
    return _objects[int(_ffi.cast("uintptr_t", pointer))]


def _set_attribute(pointer, attribute, value, size):
    _object(pointer)[attribute] = int.from_bytes(_ffi.buffer(value, size), "little")
    return 0


def cublasLtMatmulDescCreate(to, compute, scale):
    return _create(to, compute=compute, scale=scale)


def cublasLtMatrixLayoutCreate(to, kind, rows, columns, ld):
    return _create(to, kind=kind, rows=rows, columns=columns, ld=ld)


def cublasLtMatmulPreferenceCreate(to):
    return _create(to)


def cublasLtMatmulDescDestroy(pointer):
    _object(pointer)["destroyed"] = True


cublasLtMatmulDescSetAttribute = cublasLtMatmulPreferenceSetAttribute = _set_attribute
cublasLtMatrixLayoutDestroy = cublasLtMatmulPreferenceDestroy = cublasLtMatmulDescDestroy


def cublasLtMatmulAlgoGetHeuristic(handle, what, a, b, c, d, wish, wanted, results, found):
    _check_light(what, a, b, c)
    # CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, and the least alignments of a, b, c and d; the bias's address has its own
    assert _object(wish)[3] == 2        # CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: ..._COMPUTE_TYPE alone
    assert _object(wish)[1] == 32 << 20 and [_object(wish)[k] for k in (5, 6, 7, 8)] == [16] * 4 and _object(what)[8] % 16 == 0
    results[0].state, results[0].algo.data[0], found[0] = 0, 77, 1
    return 0


def _check_light(what, a, b, c):
    what, a, b, c = map(_object, (what, a, b, c))
    assert not any("destroyed" in one for one in (what, a, b, c)) and a["kind"] == b["kind"] == c["kind"]
    assert what["scale"] == (1 if a["kind"] == 1 else 0)            # CUDA_R_32F, also of half precision
    assert what["compute"] == _TYPES[a["kind"]][1] and what[7] == 4     # CUBLASLT_MATMUL_DESC_EPILOGUE is ..._BIAS


def cublasLtMatmul(handle, what, alpha, a, of_a, b, of_b, beta, c, of_c, d, of_d, algo, workspace, size, stream):
    _check_light(what, of_a, of_b, of_c)
    assert algo.data[0] == 77 and workspace % 16 == 0 and size == 32 << 20 and c == d and of_c == of_d
    description, kind, factors = _object(what), _object(of_a)["kind"], (alpha[0], beta[0])
    transa, transb, bias = (description[k] for k in (3, 4, 8))
    assert not [p for p in (a, b, c, bias) if p % 16]
    calls.append("bias")

    def run():
        x, y, z = (_matrix(p, kind, *(_object(of)[k] for k in ("rows", "columns", "ld"))) for p, of in ((a, of_a), (b, of_b), (c, of_c)))
        with np.errstate(all="ignore"):
            total = np.zeros(z.shape, np.float32 if z.dtype.itemsize == 2 else z.dtype)
            _product(transa, transb, *z.shape, x.shape[0 if transa else 1], factors[0], x, y, factors[1], total)
            z[...] = total + _matrix(bias, kind, len(z), 1, len(z)).astype(total.dtype)
    fakecupy.record(run, fakecupy._streams[stream])
    return 0
