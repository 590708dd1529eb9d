// Reductions: sum, mean, norm, prod, max, min, argmax, argmin, count_nonzero, any, all, moments; and the scans cumsum,
// cumprod.
//
//   for each output k:  s = nothing;  for i < reduce:  s.take(x[k . keep strides + i . reduce strides]);  out[k] = s
//
// Each reduction is a small struct: collect() reduces the elements of one thread, merge() joins the results of two
// threads. One driver divides the work, by the plan (native/minigrad.h) alone, so the bits are the same at each run:
//
//   rows      the reduced elements are neighbours: threadIdx.x runs along them, threadIdx.y over outputs
//   columns   the kept elements are neighbours, or few elements are reduced: threadIdx.x runs over outputs, threadIdx.y
//             along the reduced elements
//
// So neighbouring threads read neighbouring elements. blockDim.x and blockDim.y are powers of two. A long reduction to
// few outputs is cut into segments (blockIdx.y), so that it occupies the whole GPU; the results of the segments go to
// `segment_results`, and a second launch merges them. Float sums: at most 64 terms are added in T, then in double;
// where a sum of T (or of squares) left the range of T, all of it in double.
#define IS_ANY (TYPE_IS <= 5)
#define IS_NUMBER (TYPE_IS <= 4)
#if IS_ANY

__device__ double segment_results[3 * MG_SEGMENT_RESULTS_MAX];      // one stream: no two launches use it at once

struct Dims {
  int ndim;
  const int64_t *shape, *stride;
  __device__ __forceinline__ int64_t size() const {
    int64_t n = 1;
    for (int d = 0; d < ndim; d++) n *= shape[d];
    return n;
  }
  template <class I> __device__ __forceinline__ int64_t unravel(I i) const {
    int64_t at = 0;
#pragma unroll 1
    for (int d = ndim - 1; d >= 0; d--) {
      const I n = (I)shape[d], q = d ? quotient(i, n) : 0;
      at += (int64_t)(i - q * n) * stride[d];
      i = q;
    }
    return at;
  }
  __device__ __forceinline__ int64_t offset(int64_t i) const {
    if (ndim == 1) return i * stride[0];
    return i <= 0x7fffffff ? unravel((uint32_t)i) : unravel((uint64_t)i);
  }
};
struct Plan {
  Dims kept, reduced;
  int64_t keep, reduce;
  bool columns;
  __device__ __forceinline__ explicit Plan(const int64_t *plan) {
    kept.ndim = (int)plan[0], reduced.ndim = (int)plan[1];
    kept.shape = plan + 2, reduced.shape = kept.shape + kept.ndim;
    kept.stride = reduced.shape + reduced.ndim, reduced.stride = kept.stride + kept.ndim;
    keep = kept.size(), reduce = reduced.size();
    const bool neighbours = reduced.ndim > 0 && reduced.stride[reduced.ndim - 1] == 1;
    columns = reduce < 32 || !neighbours;
  }
};

// The elements of one output that one thread sees: first, first + step, ... below end.
struct Share {
  const STORED *x;
  const Dims &dims;
  int64_t first, end, step;
  // f(index within the reduced elements, value)
  template <class F> __device__ __forceinline__ void each(F f) const {
#pragma unroll 4
    for (int64_t i = first; i < end; i += step) f(i, x[dims.offset(i)]);
  }
  __device__ __forceinline__ bool empty() const { return first >= end; }
  __device__ __forceinline__ T front() const { return x[dims.offset(first)]; }
};

// store(k, state) for each output k
template <class S, class Store>
__device__ __forceinline__ void reduce(const STORED *x, const int64_t *values, Store store) {
  // S has a constructor, which __shared__ may not
  __shared__ double room[(sizeof(S) + 7) / 8 * MAX_THREADS];
  S *of_thread = reinterpret_cast<S *>(room);
  const Plan plan(values);
  const int64_t segments = mg_segments(plan.keep, plan.reduce, plan.columns);
  const int thread = threadIdx.y * blockDim.x + threadIdx.x;
  const int lanes = plan.columns ? blockDim.y : blockDim.x, lane = plan.columns ? threadIdx.y : threadIdx.x;
  const int apart = plan.columns ? blockDim.x : 1;                           // of two lanes in of_thread
  const int outputs = plan.columns ? blockDim.x : blockDim.y, output = plan.columns ? threadIdx.x : threadIdx.y;
  for (int64_t segment = blockIdx.y; segment < segments; segment += gridDim.y)
    for (int64_t base = (int64_t)blockIdx.x * outputs; base < plan.keep; base += (int64_t)gridDim.x * outputs) {
      const int64_t k = base + output, length = (plan.reduce + segments - 1) / segments;
      const int64_t begin = segment * length, end = begin + length < plan.reduce ? begin + length : plan.reduce;
      S s;
      if (k < plan.keep) s.collect(Share{x + plan.kept.offset(k), plan.reduced, begin + lane, end, lanes});
      __syncthreads();                     // other threads may still read of_thread in the previous round
      of_thread[thread] = s;
      for (int half = lanes / 2; half > 0; half /= 2) {
        __syncthreads();
        if (lane < half) of_thread[thread].merge(of_thread[thread + half * apart]);
      }
      if (lane != 0 || k >= plan.keep) continue;
      if (segments == 1) store(k, of_thread[thread]);
      else reinterpret_cast<S *>(segment_results)[segment * plan.keep + k] = of_thread[thread];
    }
}
// threadIdx.x, of 32, runs along the segments of an output, threadIdx.y over outputs
template <class S, class Store> __device__ __forceinline__ void merge_segments(const int64_t *values, Store store) {
  __shared__ double room[(sizeof(S) + 7) / 8 * MAX_THREADS];
  S *of_thread = reinterpret_cast<S *>(room) + threadIdx.y * 32 + threadIdx.x;
  const Plan plan(values);
  const int64_t segments = mg_segments(plan.keep, plan.reduce, plan.columns);
  const S *results = reinterpret_cast<const S *>(segment_results);
  for (int64_t base = (int64_t)blockIdx.x * blockDim.y; base < plan.keep; base += (int64_t)gridDim.x * blockDim.y) {
    const int64_t k = base + threadIdx.y;
    S s;
    if (k < plan.keep)
      for (int64_t i = threadIdx.x; i < segments; i += 32) s.merge(results[i * plan.keep + k]);
    *of_thread = s;
    for (int half = 16; half > 0; half /= 2) {
      __syncwarp();
      if (threadIdx.x < half) of_thread->merge(of_thread[half]);
    }
    if (threadIdx.x == 0 && k < plan.keep) store(k, *of_thread);
    __syncwarp();
  }
}

#define REDUCTION(name, S, Out, expression) \
  KERNEL(name)(Out * out, const STORED *x, const int64_t *plan) { \
    reduce<S>(x, plan, [=](int64_t k, const S &s) { out[k] = expression; }); \
  } \
  STEP(name, segments)(Out * out, const STORED *x, const int64_t *plan) { \
    merge_segments<S>(plan, [=](int64_t k, const S &s) { out[k] = expression; }); \
  }

// ---- the structs: what a thread keeps while it reduces ----

#if IS_NUMBER
#if IS_REAL
struct Total {
  double value = 0;
  __device__ __forceinline__ void collect(const Share &share) {
    T part = 0;
    int count = 0;
    share.each([&](int64_t, T v) {
      part += v;
      if (++count == 64) value += part, part = 0, count = 0;
    });
    value += part;
    if (value - value == 0) return;
    value = 0;
    share.each([&](int64_t, T v) { value += (double)v; });
  }
  __device__ __forceinline__ void merge(const Total &other) { value += other.value; }
};
#define LEAST_NORMAL 1.17549435e-38
struct Squares : Total {
  __device__ __forceinline__ void collect(const Share &share) {
    T part = 0;
    int count = 0;
    share.each([&](int64_t, T v) {
      part += v * v;
      if (++count == 64) value += part, part = 0, count = 0;
    });
    value += part;
    if (value >= LEAST_NORMAL && value - value == 0) return;
    value = 0;
    share.each([&](int64_t, T v) { value += (double)v * (double)v; });
  }
};
typedef T Product_T;
#else
struct Total {                             // wraps around, which only unsigned arithmetic may
  uint64_t value = 0;
  __device__ __forceinline__ void collect(const Share &share) {
    share.each([&](int64_t, T v) { value += (uint64_t)v; });
  }
  __device__ __forceinline__ void merge(const Total &other) { value += other.value; }
};
typedef uint64_t Product_T;
#endif
struct Product {
  Product_T value = 1;
  __device__ __forceinline__ void collect(const Share &share) {
    share.each([&](int64_t, T v) { value *= (Product_T)v; });
  }
  __device__ __forceinline__ void merge(const Product &other) { value *= other.value; }
};
REDUCTION(sum, Total, STORED, (T)s.value)
REDUCTION(prod, Product, STORED, (T)s.value)
#if IS_REAL
KERNEL(mean)(STORED *out, const STORED *x, const int64_t *plan) {
  const double n = (double)Plan(plan).reduce;
  reduce<Total>(x, plan, [=](int64_t k, const Total &s) { out[k] = (T)(s.value / n); });
}
STEP(mean, segments)(STORED *out, const STORED *x, const int64_t *plan) {
  const double n = (double)Plan(plan).reduce;
  merge_segments<Total>(plan, [=](int64_t k, const Total &s) { out[k] = (T)(s.value / n); });
}
REDUCTION(norm, Squares, STORED, (T)sqrt(s.value))
#endif
#endif

// The extreme and its index. Of equal elements the first one is taken; a NaN is taken before all numbers.
template <bool MAX> struct Extreme {
  int64_t index = -1;
  T value = 0;
  static __device__ __forceinline__ bool beats(T a, T b) { return (MAX ? a > b : a < b) || (a != a && b == b); }
  __device__ __forceinline__ void collect(const Share &share) {
    share.each([&](int64_t i, T v) { if (index < 0 || beats(v, value)) index = i, value = v; });
  }
  __device__ __forceinline__ void merge(const Extreme &other) {
    if (other.index < 0) return;
    if (index < 0 || beats(other.value, value) || (!beats(value, other.value) && other.index < index)) *this = other;
  }
};
REDUCTION(max, Extreme<true>, STORED, s.value)
REDUCTION(min, Extreme<false>, STORED, s.value)
REDUCTION(argmax, Extreme<true>, int64_t, s.index)
REDUCTION(argmin, Extreme<false>, int64_t, s.index)

struct Count {                             // some: how many elements are not 0; none: how many are 0
  int64_t some = 0, none = 0;
  __device__ __forceinline__ void collect(const Share &share) {
    share.each([&](int64_t, T v) { v != 0 ? some++ : none++; });
  }
  __device__ __forceinline__ void merge(const Count &other) { some += other.some, none += other.none; }
};
REDUCTION(count_nonzero, Count, int64_t, s.some)
REDUCTION(any, Count, uint8_t, s.some > 0)
REDUCTION(all, Count, uint8_t, s.none == 0)

#if IS_REAL
// Mean and m2 = sum((x - mean)^2). Each thread makes two passes over its share and subtracts the first element of it,
// so that a large mean costs no digits. The shares are merged with the formula of Chan, Golub and LeVeque (1979), in
// double.
struct Moments {
  double n = 0, mean = 0, m2 = 0;
  __device__ __forceinline__ void collect(const Share &share) {
    if (share.empty()) return;
    const T front = share.front(), first = front - front == 0 ? front : T(0);
    Sum s;
    int64_t count = 0;
    share.each([&](int64_t, T v) { s.add(v - first), count++; });
    const T offset = s.value() / (T)count;
    Sum squares, rest;                     // rest: what rounding the offset to T left over
    share.each([&](int64_t, T v) { const T d = (v - first) - offset; squares.add(d * d), rest.add(d); });
    const double left = (double)rest.value() / (double)count;
    n = (double)count;
    mean = (double)first + (double)offset;
    m2 = (double)squares.value();
    if (left - left == 0) mean += left, m2 -= left * left * n;
    if (count > 1 && !(m2 >= LEAST_NORMAL && m2 - m2 == 0)) again(share);
  }
  __device__ __forceinline__ void again(const Share &share) {
    double sum = 0, squares = 0;
    share.each([&](int64_t, T v) { sum += (double)v; });
    if (!(sum - sum == 0)) return;
    mean = sum / n;
    share.each([&](int64_t, T v) { squares += ((double)v - mean) * ((double)v - mean); });
    m2 = squares;
  }
  __device__ __forceinline__ void merge(const Moments &other) {
    if (other.n == 0) return;
    if (n == 0) { *this = other; return; }
    const double total = n + other.n, delta = other.mean - mean;
    mean = delta - delta == 0 ? mean + delta * (other.n / total) : mean + other.mean;     // infinities add up
    m2 += other.m2 + delta * delta * (n * other.n / total);
    n = total;
  }
};
__device__ __forceinline__ void store_moments(T *mean, T *spread, const Moments &s, double divisor, int64_t root) {
  const double var = s.m2 / divisor;
  *mean = (T)s.mean;
  *spread = (T)(root ? sqrt(var) : var);
}
KERNEL(moments)(T *mean, T *spread, const STORED *x, const int64_t *plan, double divisor, int64_t root) {
  reduce<Moments>(x, plan,
                  [=](int64_t k, const Moments &s) { store_moments(mean + k, spread + k, s, divisor, root); });
}
STEP(moments, segments)(T *mean, T *spread, const STORED *x, const int64_t *plan, double divisor, int64_t root) {
  merge_segments<Moments>(plan,
                          [=](int64_t k, const Moments &s) { store_moments(mean + k, spread + k, s, divisor, root); });
}
#endif

// ---- scans along the middle axis of [outer, n, inner]: out[j] = x[0] + ... + x[j], or the product ----
//
// Where the elements of a line are neighbours (inner == 1), a warp takes a line, 32 elements at a time: five shuffles
// make the sums within them, and the last sum is carried on. Otherwise a thread takes a line. Floats are carried in
// double.
#if IS_NUMBER
#if IS_REAL
typedef double Carry;
#else
typedef uint64_t Carry;
#endif
template <bool PRODUCT>
__device__ __forceinline__ void scan(STORED *out, const STORED *x, int64_t outer, int64_t n, int64_t inner) {
  if (inner != 1) {
    GRID_LOOP(line, outer * inner) {
      const int64_t o = (int64_t)quotient((uint64_t)line, (uint64_t)inner), start = o * n * inner + (line - o * inner);
      Carry carry = PRODUCT;
      for (int64_t j = 0; j < n; j++) {
        const Carry v = (Carry)T(x[start + j * inner]);
        carry = PRODUCT ? carry * v : carry + v;
        out[start + j * inner] = (T)carry;
      }
    }
    return;
  }
  const int lane = threadIdx.x & 31;
  for (int64_t line = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) >> 5; line < outer;
       line += ((int64_t)gridDim.x * blockDim.x) >> 5) {
    Carry carry = PRODUCT;
    for (int64_t j = 0; j < n; j += 32) {
      Carry v = j + lane < n ? (Carry)T(x[line * n + j + lane]) : (Carry)PRODUCT;
#pragma unroll
      for (int d = 1; d < 32; d *= 2) {
        const Carry before = __shfl_up_sync(FULL, v, d);
        if (lane >= d) v = PRODUCT ? before * v : before + v;
      }
      v = PRODUCT ? carry * v : carry + v;
      if (j + lane < n) out[line * n + j + lane] = (T)v;
      carry = __shfl_sync(FULL, v, 31);
    }
  }
}
KERNEL(cumsum)(STORED *out, const STORED *x, int64_t outer, int64_t n, int64_t inner) {
  scan<false>(out, x, outer, n, inner);
}
KERNEL(cumprod)(STORED *out, const STORED *x, int64_t outer, int64_t n, int64_t inner) {
  scan<true>(out, x, outer, n, inner);
}
#endif
#endif
