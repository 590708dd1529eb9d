// What every CUDA kernel file begins with. minigrad/devices/cuda.py puts native/types.h, native/workspace.h and this
// text in front of a .cu file and compiles all of it with NVRTC, once for each element type (-DMG_TYPE=f32). As in
// native/, there is one text, and T is the element type.
//
//   KERNEL(name)(arguments) { ... }     the CUDA form of the C kernel `name`. Its arguments are word for word those of
//                                       native/minigrad.h (tests/cuda/test_sources.py compares them)
//   STEP(name, part)(arguments)         one more launch for the same kernel, after it, with the same arguments
//
// Each op says beside its definition how many blocks and threads its kernels get: `launch`, in
// minigrad/devices/launch.py. A kernel relies on no particular number unless its comment says so: loops go over the
// whole grid. NVRTC has no host headers. Sums never use float atomics, so that the same input gives the same bits at
// each run.
// Half precision is storage: a file whose kernels have pointers to STORED, and T for what is computed, compiles for f16
// and bf16 as well, where T is float. An element is converted where it is read or written; what kernels keep for others,
// statistics and sums, has T. Parameters, and numbers that are a second operand, are PARAM: STORED too, or float in what
// is compiled for f16w and bf16w.
#define MG_CAT3_(a, b, c) a##b##c
#define MG_CAT3(a, b, c) MG_CAT3_(a, b, c)

#ifndef CUDA_ON_CPU
#undef INFINITY
#undef NAN
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fffffff)
#endif

#define MAX_THREADS 512                    // of a block, in every launch: 128 registers a thread are always there
#define BOUNDS extern "C" __global__ void __launch_bounds__(MAX_THREADS, 1)   // the 1: take them, rather than spill
#ifdef MG_ONLY                             // the options of one kernel: -DMG_ONLY -DMG_ONLY_name=,BOUNDS
// Of a list of arguments the second: BOUNDS for the kernel that is wanted. The others become templates that nothing
// uses, which cost next to no time. So the first launch of a kernel waits for that kernel alone to be compiled.
#define MG_SECOND_(first, second, ...) second
#define MG_SECOND(...) MG_SECOND_(__VA_ARGS__)
#define MG_WANTED(name) MG_SECOND(MG_ONLY_##name, template <class> static __device__ void, )
#else
#define MG_WANTED(name) BOUNDS
#endif
#ifdef MG_TYPE
#define KERNEL(name) MG_WANTED(name) MG_CAT3(name, _, MG_TYPE)
#define STEP(name, part) MG_WANTED(name) MG_CAT3(name##_##part, _, MG_TYPE)
#else
#define KERNEL(name) MG_WANTED(name) name
#define STEP(name, part) MG_WANTED(name) name##_##part
#endif

// ---- half precision ----
#define MG_T_f16 float
#define MG_T_bf16 float
#define MG_IS_f16 MG_IS_f32
#define MG_IS_bf16 MG_IS_f32
#define MG_T_f16w float
#define MG_T_bf16w float
#define MG_IS_f16w MG_IS_f32
#define MG_IS_bf16w MG_IS_f32

#ifdef CUDA_ON_CPU
__device__ inline uint32_t bits_of(float v) { uint32_t b; __builtin_memcpy(&b, &v, 4); return b; }
__device__ inline float float_of(uint32_t b) { float v; __builtin_memcpy(&v, &b, 4); return v; }
__device__ inline uint16_t to_f16(float v) {
  const _Float16 h = (_Float16)v;
  uint16_t b;
  __builtin_memcpy(&b, &h, 2);
  return b;
}
__device__ inline float from_f16(uint16_t b) { _Float16 h; __builtin_memcpy(&h, &b, 2); return (float)h; }
#else
__device__ __forceinline__ uint32_t bits_of(float v) { return __float_as_uint(v); }
__device__ __forceinline__ float float_of(uint32_t b) { return __uint_as_float(b); }
__device__ __forceinline__ uint16_t to_f16(float v) {
  uint16_t b;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(b) : "f"(v));
  return b;
}
__device__ __forceinline__ float from_f16(uint16_t b) {
  float v;
  asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(b));
  return v;
}
#endif

struct F16 {
  uint16_t bits;
  F16() = default;
  __device__ __forceinline__ F16(float v) : bits(to_f16(v)) {}
  __device__ __forceinline__ operator float() const { return from_f16(bits); }
};
struct BF16 {                              // the upper half of a float, rounded to nearest, ties to even
  uint16_t bits;
  BF16() = default;
  __device__ __forceinline__ BF16(float v) {
    const uint32_t b = bits_of(v);
    bits = v != v ? 0x7fc0 : (b + 0x7fff + (b >> 16 & 1)) >> 16;
  }
  __device__ __forceinline__ operator float() const { return float_of((uint32_t)bits << 16); }
};

// A number as float, of which float16 is made: as if the number itself were rounded. A double is cut off, and a last
// bit that is set instead of the rest keeps it from looking like a tie. (bfloat16 is made of the nearest float, as on
// the CPU.)
template <class A> __device__ __forceinline__ float odd(A x) { return (float)x; }
__device__ __forceinline__ float odd(double x) {
  const float v = (float)x;
  return v != v || (double)v == x ? v : float_of((bits_of(v) - (fabs((double)v) > fabs(x))) | 1);
}

#define MG_STORED_f32 float
#define MG_STORED_f64 double
#define MG_STORED_i32 int32_t
#define MG_STORED_i64 int64_t
#define MG_STORED_u8 uint8_t
#define MG_STORED_u16 uint16_t
#define MG_STORED_f16 F16
#define MG_STORED_bf16 BF16
#define MG_STORED_f16w F16
#define MG_STORED_bf16w BF16
#define STORED MG_CAT2(MG_STORED_, MG_TYPE)
#define MG_PARAM_f32 float
#define MG_PARAM_f64 double
#define MG_PARAM_i32 int32_t
#define MG_PARAM_i64 int64_t
#define MG_PARAM_u8 uint8_t
#define MG_PARAM_f16 F16
#define MG_PARAM_bf16 BF16
#define MG_PARAM_f16w float
#define MG_PARAM_bf16w float
#define PARAM MG_CAT2(MG_PARAM_, MG_TYPE)

#define FULL 0xffffffffu                   // all lanes of a warp

// Element i of the grid's share of [0, n): neighbouring threads take neighbouring elements.
#define GRID_LOOP(i, n) \
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (int64_t)gridDim.x * blockDim.x)

#if IS_REAL
// A long sum in two levels: at most 64 terms are added in one chain, then the sums of these chains. This bounds the
// rounding error. It is not Kahan's sum, because that turns inf into NaN.
struct Sum {
  T block = 0, total = 0;
  int count = 0;
  __device__ __forceinline__ void add(T v) {
    block += v;
    if (++count == 64) total += block, block = 0, count = 0;
  }
  __device__ __forceinline__ T value() const { return total + block; }
};

struct Add { static __device__ __forceinline__ T of(T a, T b) { return a + b; } };
struct Largest { static __device__ __forceinline__ T of(T a, T b) { return a > b || a != a ? a : b; } };   // NaN wins

template <class Op> __device__ __forceinline__ T warp_all(T v) {
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) v = Op::of(v, __shfl_xor_sync(FULL, v, o));
  return v;
}

// Combines v over the threads that share threadIdx.y; each of them gets the same result. blockDim.x is 32 (a warp for a
// row) or a larger multiple of 32: then all threads of the block must reach the barriers.
template <class Op> __device__ __forceinline__ T row_all(T v) {
  __shared__ T of_warp[32];
  v = warp_all<Op>(v);
  if (blockDim.x == 32) return v;
  const int warps = blockDim.x >> 5, first = threadIdx.y * warps;
  __syncthreads();                         // other threads may still read of_warp in the previous call
  if ((threadIdx.x & 31) == 0) of_warp[first + (threadIdx.x >> 5)] = v;
  __syncthreads();
  v = of_warp[first];
  for (int i = 1; i < warps; i++) v = Op::of(v, of_warp[first + i]);
  return v;
}
__device__ __forceinline__ T row_sum(T v) { return row_all<Add>(v); }
__device__ __forceinline__ T row_max(T v) { return row_all<Largest>(v); }

// ---- rows ----
//
// blockDim is (threads of a row, rows). A row of up to n = 1024 elements gets a warp, so that nothing waits at a
// barrier; a longer row gets a block. A thread keeps its first KEPT elements of the row in registers. So a row of up to
// KEPT * blockDim.x elements is read once; the rest of a longer row is read again, from L1 or L2.
#define KEPT 8
struct Row {
  T kept[KEPT];
  const STORED *p;
  int64_t n;
  __device__ __forceinline__ Row(const STORED *row, int64_t length) : p(row), n(length) {
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
      const int64_t j = threadIdx.x + k * (int64_t)blockDim.x;
      kept[k] = j < n ? T(p[j]) : T(0);
    }
  }
  template <class F> __device__ __forceinline__ void each(F f) const {     // f(j, value) for this thread's elements
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
      const int64_t j = threadIdx.x + k * (int64_t)blockDim.x;
      if (j < n) f(j, kept[k]);
    }
    for (int64_t j = threadIdx.x + KEPT * (int64_t)blockDim.x; j < n; j += blockDim.x) f(j, p[j]);
  }
};
#define EACH_ROW(row, rows) \
  for (int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y; row < (rows); \
       row += (int64_t)gridDim.x * blockDim.y)

// Cannot overflow: the argument of exp() is never positive.
__device__ __forceinline__ T sigmoid(T x) {
  const T e = exp(-fabs(x));
  return (x < 0 ? e : 1) / (1 + e);
}

// 1 / sqrt(v). The GPU's own rsqrt() has an error of one or two units in the last place.
__device__ __forceinline__ T inverse_root(T v) { return 1 / sqrt(v); }

// mean = first + offset and 1 / sqrt(variance + eps) of a row, of which the elements are multiplied by `unit`; without
// `centred` first and offset are 0
__device__ __forceinline__ T statistics_in(const Row &x, bool centred, double eps, T unit, T &first, T &offset) {
  first = offset = 0;
  Sum s;
  if (centred) {
    first = x.p[0] * unit;
    x.each([&](int64_t, T v) { s.add(v * unit - first); });
    offset = row_sum(s.value()) / x.n;
  }
  Sum q;
  x.each([&](int64_t, T v) { v = (v * unit - first) - offset; q.add(v * v); });
  return inverse_root(row_sum(q.value()) / x.n + (T)(eps * unit * unit));
}
// `unit` is 1, unless squares leave the range of T: then a power of 2 that makes the largest element 1 to 2.
__device__ __forceinline__ T row_statistics(const Row &x, bool centred, double eps, T &first, T &offset, T &unit) {
  const T edge = sizeof(T) == 4 ? T(0x1p60) : T(0x1p500);
  unit = 1;
  T r = statistics_in(x, centred, eps, unit, first, offset);
  if (r > 1 / edge && r < edge) return r;
  T m = 0;
  x.each([&](int64_t, T v) { m = Largest::of(fabs(v), m); });
  m = row_max(m);
  if (!(m > 0 && m < T(INFINITY))) return r;
  unit = exp2(-floor(log2(m)));
  return statistics_in(x, centred, eps, unit, first, offset);
}
#endif

// ---- random words ----
//
// Four words of Philox4x32-10: block number counter + `block` under the key of a generator's state (native/random.c).
struct Philox { uint32_t word[4]; };

__device__ __forceinline__ Philox philox(const int64_t *state, uint64_t block) {
  const uint64_t low = (uint64_t)state[1] + block, high = (uint64_t)state[2] + (low < block);
  uint32_t k0 = (uint32_t)state[0], k1 = (uint32_t)((uint64_t)state[0] >> 32);
  uint32_t c0 = (uint32_t)low, c1 = (uint32_t)(low >> 32), c2 = (uint32_t)high, c3 = (uint32_t)(high >> 32);
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const uint32_t h0 = __umulhi(0xD2511F53u, c0), l0 = 0xD2511F53u * c0, h1 = __umulhi(0xCD9E8D57u, c2),
                   l1 = 0xCD9E8D57u * c2;
    c0 = h1 ^ c1 ^ k0, c1 = l1, c2 = h0 ^ c3 ^ k1, c3 = l0;
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  return Philox{{c0, c1, c2, c3}};
}
// the number of 32-bit words for which an event of probability p happens: those below it; 0 .. 2^32
__device__ __forceinline__ uint64_t threshold(double p) {
  return p >= 1 ? (uint64_t)1 << 32 : p > 0 ? (uint64_t)(p * 4294967296.0 + 0.5) : 0;
}

// ---- elementwise kernels: out[i] = f(a[i], ...) over operands of any layout, by a plan (native/minigrad.h) ----
//
//   for i < size:  index = unravel(i, shape);  out[index . strides 0] = f(a[index . strides 1], ...)
//
// With one dimension there is nothing to unravel, and a thread takes U elements, a block's width apart. It loads all U
// before it stores the first, so that U loads are in flight at once. (The compiler cannot reorder them itself, because
// out may be a.) U is 4 for arithmetic. It is 1 for functions that cost more than memory access: then one loop serves
// both cases, and the function's code is compiled once. Below 2^31 elements, indices are unravelled in 32 bits.

// i / n. The compiler's 64-bit division is a call, which makes registers spill. This one needs about three rounds; the
// estimate of each round is right to 20 bits and never too large.
__device__ __forceinline__ uint32_t quotient(uint32_t i, uint32_t n) { return i / n; }
__device__ __forceinline__ uint64_t quotient(uint64_t i, uint64_t n) {
  const float inverse = __fdividef(1 - 1.f / (1 << 20), (float)n);
  uint64_t q = 0;
  while (i >= n) {
    const uint64_t estimate = (uint64_t)((float)i * inverse), add = estimate ? estimate : 1;
    q += add, i -= add * n;
  }
  return q;
}

template <int N, class I> __device__ __forceinline__ void unravel(I i, const int64_t *shape, int ndim, int64_t *at) {
#pragma unroll 1
  for (int d = ndim - 1; d >= 0; d--) {
    const I n = (I)shape[d], q = d ? quotient(i, n) : 0, k = i - q * n;
    for (int o = 0; o < N; o++) at[o] += (int64_t)k * shape[ndim * (o + 1) + d];
    i = q;
  }
}

// load(u, at) fills slot u from the operands' offsets `at`; store(u, to) writes the result of slot u to offset `to`.
template <int U, int N, class Load, class Store>
__device__ __forceinline__ void walk(const int64_t *plan, Load load, Store store) {
  const int ndim = (int)plan[0];
  const int64_t size = plan[1], *shape = plan + 2;
  int64_t stride[N];                       // of the only dimension
  for (int o = 0; o < N; o++) stride[o] = ndim == 1 ? shape[o + 1] : 0;
  if (U > 1 && ndim == 1) {
    const int64_t width = (int64_t)blockDim.x * U;
    for (int64_t base = blockIdx.x * width + threadIdx.x; base < size; base += width * gridDim.x) {
#pragma unroll
      for (int u = 0; u < U; u++) {
        const int64_t i = base + (int64_t)u * blockDim.x;
        int64_t at[N];
        for (int o = 0; o < N; o++) at[o] = i * stride[o];
        if (i < size) load(u, at);
      }
#pragma unroll
      for (int u = 0; u < U; u++) {
        const int64_t i = base + (int64_t)u * blockDim.x;
        if (i < size) store(u, i * stride[0]);
      }
    }
    return;
  }
#pragma unroll 1
  GRID_LOOP(i, size) {
    int64_t at[N] = {};
    if (ndim == 1)
      for (int o = 0; o < N; o++) at[o] = i * stride[o];
    else if (size <= 0x7fffffff) unravel<N>((uint32_t)i, shape, ndim, at);
    else unravel<N>((uint64_t)i, shape, ndim, at);
    load(0, at);
    store(0, at[0]);
  }
}

template <int U, class R, class A, class F>
__device__ __forceinline__ void map(const int64_t *plan, F f, R *out, const A *a) {
  A x[U];
  walk<U, 2>(plan, [&](int u, const int64_t *at) { x[u] = a[at[1]]; }, [&](int u, int64_t to) { out[to] = f(x[u]); });
}
template <int U, class R, class A, class B, class F>
__device__ __forceinline__ void map(const int64_t *plan, F f, R *out, const A *a, const B *b) {
  A x[U];
  B y[U];
  walk<U, 3>(plan, [&](int u, const int64_t *at) { x[u] = a[at[1]], y[u] = b[at[2]]; },
          [&](int u, int64_t to) { out[to] = f(x[u], y[u]); });
}
template <int U, class R, class A, class B, class C, class F>
__device__ __forceinline__ void map(const int64_t *plan, F f, R *out, const A *a, const B *b, const C *c) {
  A x[U];
  B y[U];
  C z[U];
  walk<U, 4>(plan, [&](int u, const int64_t *at) { x[u] = a[at[1]], y[u] = b[at[2]], z[u] = c[at[3]]; },
          [&](int u, int64_t to) { out[to] = f(x[u], y[u], z[u]); });
}
