"""The emulator itself: CUDA's semantics, planted bugs, and the stand-in for CuPy against the real module.

Runs in three modes, see tests/cuda_on_cpu/README.md: CUDA_ON_CPU unset, "race" and "asan".
"""
import ctypes
import importlib.util
import inspect
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from cuda_on_cpu import fakeblas, fakenccl, nvrtc
from cuda_on_cpu import fakecupy as cp
from cuda_on_cpu.emulator import HERE, LaunchError

MODE = os.environ.get("CUDA_ON_CPU", "")
rng = np.random.default_rng(0)
pytestmark = [pytest.mark.cuda, pytest.mark.slow,
              pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")) or sys.platform != "linux",
                                  reason="the CUDA emulator needs g++ on Linux")]


@pytest.fixture(params=["0", "1", "2:7"], ids=["ascending", "descending", "shuffled"])
def order(request, monkeypatch):
    monkeypatch.setenv("CUDA_ON_CPU_ORDER", request.param)


SOURCE = r"""
// c[m, n] = a[m, k] b[k, n], T x T tiles in static shared memory.
template <typename F, int T>
__global__ void matmul(const F *__restrict__ a, const F *__restrict__ b, F *__restrict__ c, int m, int n, int k) {
  __shared__ F ta[T][T + 1], tb[T][T + 1];
  const int row = blockIdx.y * T + threadIdx.y, col = blockIdx.x * T + threadIdx.x;
  F s = 0;
  for (int p = 0; p < k; p += T) {
    ta[threadIdx.y][threadIdx.x] = row < m && p + threadIdx.x < k ? a[row * k + p + threadIdx.x] : F(0);
    tb[threadIdx.y][threadIdx.x] = p + threadIdx.y < k && col < n ? b[(p + threadIdx.y) * n + col] : F(0);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < T; i++) s += ta[threadIdx.y][i] * tb[i][threadIdx.x];
    __syncthreads();
  }
  if (row < m && col < n) c[row * n + col] = s;
}
extern "C" __global__ void warp(const int *x, int *out) {
  const int l = threadIdx.x, v = x[l];
  out[l] = __shfl_down_sync(~0u, v, 3);
  out[32 + l] = __shfl_up_sync(~0u, v, 3, 8);
  out[64 + l] = __shfl_sync(~0u, v, 9, 8);
  out[96 + l] = __ballot_sync(~0u, v & 1);
  out[128 + l] = __match_any_sync(~0u, v % 3);
  if (l < 20) out[160 + l] = __shfl_xor_sync(0xfffffu, v, 1);
  out[192 + l] = __any_sync(~0u, l == 5) + 2 * __all_sync(~0u, l < 32) + 4 * __popc(3);
}
extern "C" __global__ void twice(const float *x, float *y, long long n) {
  for (long long i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) y[i] = 2 * x[i];
}
__device__ unsigned tickets;
__constant__ float scale[2];
extern "C" __global__ void last_block_sums(const float *x, float *parts, float *out, int fence) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = x[blockIdx.x] * scale[1];
    if (fence) __threadfence();
    last = atomicAdd(&tickets, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (last && threadIdx.x == 0) {
    float s = 0;
    for (unsigned i = 0; i < gridDim.x; i++) s += __ldcg(parts + i);
    *out = s;
    tickets = 0;
  }
}
"""


@pytest.mark.parametrize("dtype,tile", [("float", 16), ("double", 8)])
def test_templates_and_static_shared_memory(order, dtype, tile):
    name = f"matmul<{dtype}, {tile}>"
    k = cp.RawModule(code=SOURCE, name_expressions=(name,)).get_function(name)
    np_type = {"float": np.float32, "double": np.float64}[dtype]
    a, b = rng.normal(size=(33, 20)).astype(np_type), rng.normal(size=(20, 17)).astype(np_type)
    c = cp.empty((33, 17), np_type)
    k((-(-17 // tile), -(-33 // tile)), (tile, tile), (cp.asarray(a), cp.asarray(b), c, 33, 17, 20))
    np.testing.assert_allclose(c.get(), a @ b, rtol=1e-5, atol=1e-5)


def test_warp_functions(order):
    x, out = np.arange(32, dtype=np.int32) * 7, cp.empty(224, np.int32)
    out.fill(0)
    cp.RawModule(code=SOURCE).get_function("warp")((1,), (32,), (cp.asarray(x), out))
    o, l = out.get().reshape(7, 32), np.arange(32)
    np.testing.assert_array_equal(o[0], x[np.where(l + 3 < 32, l + 3, l)])
    np.testing.assert_array_equal(o[1], x[np.where(l % 8 >= 3, l - 3, l)])
    np.testing.assert_array_equal(o[2], x[l // 8 * 8 + 1])
    assert set(o[3].view(np.uint32)) == {0xAAAAAAAA}
    np.testing.assert_array_equal(o[4].view(np.uint32), [sum(1 << j for j in l if j % 3 == i % 3) for i in l])
    np.testing.assert_array_equal(o[5][:20], x[l[:20] ^ 1])
    assert set(o[6]) == {11}


def test_globals_and_last_block(order):
    mod = cp.RawModule(code=SOURCE)
    k = mod.get_function("last_block_sums")
    (ctypes.c_float * 2).from_address(mod.get_global("scale"))[1] = 3.0
    out = cp.empty(1, np.float32)

    def run(fence):
        k((8,), (32,), (cp.asarray(np.arange(8, dtype=np.float32)), cp.empty(8, np.float32), out, fence))
    run(1)
    assert out.get().item() == 84
    if MODE == "race":
        with pytest.raises(LaunchError, match="race on global memory.*different blocks"):
            run(0)


def test_graph_capture_runs_nothing_until_launch():
    s, k = cp.cuda.Stream(non_blocking=True), cp.RawModule(code=SOURCE).get_function("twice")
    x, y = cp.asarray(np.zeros(64, np.float32)), cp.empty(64, np.float32)
    with pytest.raises(RuntimeError, match="null stream"):
        cp.cuda.Stream.null.begin_capture()
    s.begin_capture()
    with s:
        k((1,), (32,), (x, y, 64))
    for forbidden in (y.get, lambda: x.set(np.zeros(64, np.float32)), s.synchronize):
        with pytest.raises(RuntimeError, match="Capture"):
            forbidden()
    graph = s.end_capture()
    assert np.isnan(y.get()).all()
    for _ in range(2):
        h = rng.normal(size=64).astype(np.float32)
        x.set(h)
        graph.launch()
        np.testing.assert_array_equal(y.get(), 2 * h)


def test_a_stream_captures_its_own_launches_only():
    s, other, k = cp.cuda.Stream(), cp.cuda.Stream(), cp.RawModule(code=SOURCE).get_function("twice")
    x, y = cp.asarray(np.ones(64, np.float32)), cp.empty(64, np.float32)
    s.begin_capture()
    with other:
        k((1,), (32,), (x, y, 64))
    assert s.end_capture()._ops == [] and y.get().tolist() == [2] * 64
    assert cp.cuda.get_current_stream() is cp.cuda.Stream.null


def test_what_a_stream_that_captures_refuses():
    """To begin again, and waiting for all streams; copies to the thread that captures, not to others."""
    s, x = cp.cuda.Stream(), cp.asarray(np.ones(64, np.float32))
    with pytest.raises(RuntimeError, match="not capturing"):
        s.end_capture()
    s.begin_capture()
    with pytest.raises(RuntimeError, match="capturing already"):
        s.begin_capture()
    with pytest.raises(RuntimeError, match="Capture.*copy to host"):
        x.get()
    with ThreadPoolExecutor(1) as other:
        assert other.submit(x.get).result().tolist() == [1] * 64
        with pytest.raises(RuntimeError, match="Capture.*synchronize"):
            other.submit(cp.cuda.Device(0).synchronize).result()
    assert s.end_capture()._ops == []
    cp.cuda.Device(0).synchronize()


def test_each_handle_of_cublas_has_its_stream():
    """A product is in the graph of the stream of its handle."""
    streams, handles = [cp.cuda.Stream() for _ in range(2)], [fakeblas._ffi.new("void **") for _ in range(2)]
    for stream, handle in zip(streams, handles, strict=True):
        fakeblas.cublasCreate_v2(handle)
        fakeblas.cublasSetStream_v2(handle[0], fakeblas._ffi.cast("void *", stream.ptr))
    a, c = cp.asarray(np.full(1, 3, np.float32)), cp.asarray(np.zeros(2, np.float32))
    one, zero = fakeblas._ffi.new("float *", 1), fakeblas._ffi.new("float *", 0)

    def product(handle, to):
        fakeblas.cublasGemmEx_64(handle[0], 0, 0, 1, 1, 1, one, a.data.ptr, 0, 1, a.data.ptr, 0, 1, zero, to, 0, 1, 68, -1)
    streams[1].begin_capture()
    product(handles[0], c.data.ptr)
    product(handles[1], c.data.ptr + 4)
    graph = streams[1].end_capture()
    assert c.get().tolist() == [9, 0] and len(graph._ops) == 1
    graph.launch()
    assert c.get().tolist() == [9, 9]


def test_pinned_memory_has_one_address():
    memory = cp.cuda.alloc_pinned_memory(16)
    words = np.frombuffer(memory, np.int64)
    assert len(words) >= 2 and words.ctypes.data == memory.ptr


def test_an_asynchronous_stream_is_late_until_something_waits_for_it():
    s, other, k = cp.cuda.Stream(), cp.cuda.Stream(), cp.RawModule(code=SOURCE).get_function("twice")
    x, y = cp.asarray(np.ones(64, np.float32)), cp.empty(64, np.float32)
    for wait in (s.synchronize, cp.cuda.Device().synchronize, lambda: other.wait_event(s.record()),
                 lambda: y.__dlpack__(stream=other.ptr)):
        y.fill(0)
        with cp.asynchronous():
            with s:
                k((1,), (32,), (x, y, 64))
            other.synchronize()
            assert y.get().tolist() == [0] * 64         # on the null stream
            with s:
                wait()
            assert y.get().tolist() == [2] * 64
    y.fill(0)
    with cp.asynchronous(), s:
        k((1,), (32,), (x, y, 64))
        y.__dlpack__(stream=-1)
        with cp.cuda.Stream.null:
            assert y.get().tolist() == [0] * 64
    assert y.get().tolist() == [2] * 64


def test_the_driver_takes_eight_bytes_for_each_argument():
    k = cp.RawKernel('extern "C" __global__ void k(float *x, int n) { x[0] = n; }', "k")
    k.module.compile()
    words = (ctypes.c_int64 * 2)(cp.empty(1, np.float32).data.ptr, 3)
    table = (ctypes.c_void_p * 2)(ctypes.addressof(words), ctypes.addressof(words) + 8)
    for grid, say in ((1, "argument 1: 4 bytes"), (0, "empty grid")):
        with pytest.raises(LaunchError, match=say):
            cp.cuda.driver.launchKernel(k.kernel.ptr, grid, 1, 1, 1, 1, 1, 0, 0, ctypes.addressof(table), 0)


def test_what_cupy_forbids_stays_forbidden():
    d = cp.asarray(np.ones(3, np.float32))
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(d)
    with pytest.raises(AttributeError):
        cp.tile  # noqa: B018
    with pytest.raises(TypeError, match="Unsupported type <class 'numpy.ndarray'>"):
        d + d.get()
    with pytest.raises(TypeError, match=r"cupy.argsort takes \(a, axis, kind\)"):
        np.argsort(d, stable=True)
    with pytest.raises(TypeError, match="no implementation found"):
        np.partition(d, 1)
    assert np.isnan(cp.empty(9).get()).all()


def test_fake_is_subset_of_cupy():
    real = pytest.importorskip("cupy")     # imports without a driver
    names = "ndarray empty asarray get_default_memory_pool RawModule RawKernel".split()
    assert [n for n in names if not hasattr(real, n)] == []
    assert [n for n in vars(cp.cuda) if not hasattr(real.cuda, n) and n != "nccl"] == []
    assert [n for n in vars(cp.cuda.runtime) if not hasattr(real.cuda.runtime, n)] == []
    for cls in "ndarray RawKernel RawModule".split():
        public = {n for c in getattr(cp, cls).__mro__[:-1] for n in vars(c) if not n.startswith("_")}
        assert [n for n in public - {"kernels"} if not hasattr(getattr(real, cls), n)] == []
    assert [n for n, takes in cp.FUNCTIONS.items() if list(inspect.signature(getattr(real, n)).parameters) != takes.split()] == []
    told = {n: re.findall(r", (\w+)", getattr(real.ndarray, n).__doc__.split("\n")[0].partition("self")[2]) for n in cp.METHODS}
    assert [n for n, takes in cp.METHODS.items() if takes is not None and told[n] != takes.split()] == []
    assert [n for n in [*cp.UFUNCS, "from_dlpack"] if not hasattr(real, n)] == []
    assert [n for n in cp.METHODS if not hasattr(real.ndarray, n)] == []
    assert [n for n in vars(cp.cuda.driver) if not hasattr(real.cuda.driver, n)] == []
    for cls in "Stream Device Graph".split():
        public = {n for n in vars(getattr(cp.cuda, cls)) if not n.startswith("_")}
        assert [n for n in public if not hasattr(getattr(real.cuda, cls), n)] == []
    assert [n for n in ("used_bytes", "total_bytes") if not hasattr(real.cuda.MemoryPool, n)] == []
    assert issubclass(real.cuda.memory.OutOfMemoryError, MemoryError)


def test_fake_nccl_is_subset_of_cupy():
    """CuPy's module is imported only where there is an NCCL library; its file tells the signatures."""
    pytest.importorskip("cupy")
    folder = Path(importlib.util.find_spec("cupy_backends").submodule_search_locations[0]) / "cuda" / "libs"
    text = next(folder.glob("nccl.*.so")).read_bytes()
    def told(name):
        """The names of the parameters of a function, as the module shows them."""
        found = re.search(rb"\0" + re.escape(name.encode()) + rb"\(([^)\n]*)\)", text)
        return [re.split(r"[ =]", p.strip().split("=")[0])[-1] for p in found[1].decode().split(",") if p.strip()]
    def takes(function):
        return list(inspect.signature(function).parameters)
    functions = {n: f for n, f in vars(fakenccl).items() if inspect.isfunction(f) and not n.startswith("_")}
    methods = {n: f for n, f in vars(fakenccl.NcclCommunicator).items() if not n.startswith("_")}
    assert set(functions) == {"get_unique_id", "groupStart", "groupEnd"} and len(methods) == 5
    assert {n: told(n) for n in functions} == {n: takes(f) for n, f in functions.items()}
    assert {n: told(f"NcclCommunicator.{n}") for n in methods} == {n: takes(f) for n, f in methods.items()}
    assert told("NcclCommunicator") == takes(fakenccl.NcclCommunicator)
    assert all(n.encode() in text for n in (*vars(fakenccl), "available") if n.startswith("NCCL_"))


TEXT = 'extern "C" __global__ void k(float *x) {{ const int i = threadIdx.x; {} }}'


def kernel(body):
    return cp.RawKernel(TEXT.format(body), "k")


ANY, UB, MEM, RACE, BARRIER = ("", "race"), "undefined behaviour", "illegal memory access", "race on", "__syncthreads"
BUGS = {   # name: (kernel body, threads, modes that must find it, what they say)
    "past the end": ("x[i] = 1;", 65, ANY, MEM),
    "wild": ("x[-(1LL << 43)] = 1;", 1, ANY, MEM),                    # between the heap and the maps
    "shared array index": ("__shared__ float s[32]; s[i] = x[i]; __syncthreads(); x[i] = s[i ^ 1];", 33, ANY, UB),
    "local array index": ("float a[4]; for (int j = 0; j <= blockDim.x; j++) a[j] = x[j]; x[i] = a[i & 3];", 4, ANY, UB),
    "misaligned float4": ("float4 v = *(float4 *)(x + 1); x[i] = v.x + v.w;", 1, ANY, UB),
    "overrun dynamic shared": ("extern __shared__ float s[]; s[i] = 1; x[i] = s[i];", 40, ANY, "dynamic shared memory"),
    "barrier in a branch": ("if (i < 16) __syncthreads(); x[i] = 0;", 64, ANY, BARRIER),
    "two barriers": ("if (i < 16)\n __syncthreads();\n else __syncthreads();", 64, ANY, "divergent"),
    "shuffle in a branch": ("if (i < 16) x[i] = __shfl_xor_sync(~0u, x[i], 1); else __syncthreads();", 32, ANY, "deadlock"),
    "lane not in mask": ("x[i] = __shfl_xor_sync(0xffff, x[i], 1);", 32, ANY, "mask"),
    "assert": ("assert(x[i] < 3);", 32, ANY, "assert"),
    "no barrier": ("__shared__ float s[64]; s[i] = x[i]; x[i] = s[63 - i];", 64, ("race",), RACE),
    "no barrier before reuse": ("__shared__ float s; for (int j = 0; j < 2; j++) { if (i == j) s = x[i]; __syncthreads(); x[i] += s; }",
                                64, ("race",), RACE),
    "warp-synchronous": ("__shared__ float s[32]; s[i] = x[i]; x[i] = s[31 - i];", 32, ("race",), RACE),
    "plain add, atomic needed": ("if (i == 0) x[0] += 1;", 32, ("race",), "different blocks"),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs(bug):
    body, threads, modes, say = BUGS[bug]
    if MODE not in modes:
        pytest.skip("not found in this mode")
    k = kernel(body)
    x = cp.asarray(np.arange(64, dtype=np.float32))
    with pytest.raises(LaunchError, match=say):
        k((2,), (threads,), (x,), shared_mem=128)


@pytest.mark.skipif(MODE != "asan", reason="ends the process")
@pytest.mark.parametrize("body,say", [
    ("extern __shared__ float s[]; s[i] = 1; x[i & 31] = s[i];", "use-after-poison"),
    ("__shared__ float s[32]; float *p = s; __syncthreads(); for (int j = 0; j < 2; j++) p += i; *p = 1; x[0] = s[0];",
     "global-buffer-overflow"),
    ("x[i + 32] = 1;", "heap-buffer-overflow"), ("x[i - 1] = 1;", "heap-buffer-overflow")])
def test_planted_bugs_under_asan(body, say):
    code = (f"from cuda_on_cpu import fakecupy as cp\nx = cp.empty(64, 'f4')\n"
            f"cp.RawKernel({TEXT.format(body)!r}, 'k')((1,), (40,), (x,), shared_mem=128)")
    r = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HERE.parent)
    assert r.returncode and say in r.stderr, r.stderr


@pytest.mark.skipif(MODE != "", reason="default mode")
def test_missing_barrier_shows_under_another_order(monkeypatch):
    k = kernel("__shared__ float s[64]; s[i] = x[i]; x[i] = s[63 - i];")
    got = []
    for order in "01":
        monkeypatch.setenv("CUDA_ON_CPU_ORDER", order)
        x = cp.asarray(np.arange(64, dtype=np.float32))
        k((1,), (64,), (x,))
        got.append(x.get())
    assert not np.array_equal(*got, equal_nan=True) and any(np.isnan(g).any() for g in got)  # 0xFF fill shows as NaN


@pytest.mark.parametrize("args,say", [
    ((1.5,), "float64 for a 4-byte"), ((np.float64(1),), "float64"), ((), "takes 3 arguments"), ((np.float32(1), 2**40), None)])
def test_arguments_are_checked(args, say):
    k = cp.RawKernel('extern "C" __global__ void k(float *x, float a, int n) { x[0] = a * n; }', "k")
    x = cp.empty(4, np.float32)
    k((1,), (1,), (x, np.float32(2), 3))
    assert x.get()[0] == 6
    with pytest.raises((LaunchError, OverflowError), match=say):
        k((1,), (1,), (x, *args, *([3] if len(args) == 1 else [])))
    with pytest.raises(LaunchError, match="float64 array"):
        k((1,), (1,), (cp.empty(4), np.float32(2), 3))
    with pytest.raises(TypeError, match="numpy array"):
        k((1,), (1,), (np.zeros(4, np.float32), np.float32(2), 3))
    with pytest.raises(LaunchError, match="configuration"):
        k((1,), (2048,), (x, np.float32(2), 3))


def test_nvrtc_says_what_a_kernel_uses_and_reports_errors():
    try:
        nvrtc.library()
    except ImportError as e:
        pytest.skip(str(e))
    used = nvrtc.resources(SOURCE, "sm_80", name_expressions=("matmul<float, 16>",))["matmul<float, 16>"]
    assert used.spill == 0 and used.stack == 0 and 8 < used.registers < 128 and used.shared == 2 * 16 * 17 * 4 and used.barriers == 1
    with pytest.raises(nvrtc.CompileError, match=re.compile("kernel.cu.*undefined", re.S)):
        nvrtc.compile('extern "C" __global__ void k(float *x) { x[0] = y; }', "sm_80")
