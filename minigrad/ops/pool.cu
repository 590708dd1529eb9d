// Pooling over windows of one to three spatial dimensions. The plain loops, and what the arguments mean, are in
// native/pool.c.
//
// Forward, blockDim.x threads share an output: they divide the last dimension of its window, and then join what they
// found. It is 1 where windows are narrow, a warp or a block where they are wide: a window over a whole plane is one
// long row (ops/pool.py). Backward, each element of x looks for the windows that it lies in (`windows_of`) and adds
// what they give it, in the order of the outputs. So nothing is written twice, and no sum depends on an order of
// threads. (An index that somebody changed, so that it lies outside of its window, is found nowhere: it gives nothing.)
#if IS_REAL
struct Geometry { int64_t planes, include_pad, divisor, in[3], out[3], kernel[3], stride[3], padding[3], dilation[3]; };
struct Span { int64_t begin, end; };

__device__ __forceinline__ int64_t volume(const int64_t *size) { return size[0] * size[1] * size[2]; }

// n = (plane, at[3]) in row-major order
template <class I> __device__ __forceinline__ int64_t split(I n, const int64_t *size, int64_t *at) {
#pragma unroll
  for (int d = 2; d >= 0; d--) {
    const I rest = quotient(n, (I)size[d]);
    at[d] = n - rest * (I)size[d];
    n = rest;
  }
  return n;
}
__device__ __forceinline__ int64_t plane_of(int64_t n, int64_t total, const int64_t *size, int64_t *at) {
  return total <= 0x7fffffff ? split((uint32_t)n, size, at) : split((uint64_t)n, size, at);
}

// The elements of x in the window of output o: begin, begin + dilation, ... below end.
__device__ __forceinline__ Span window_of(const Geometry &s, int d, int64_t o) {
  const int64_t n = s.in[d], m = s.out[d], step = s.dilation[d];
  if (!s.kernel[d]) return {(int64_t)quotient((uint64_t)(o * n), (uint64_t)m),
                            (int64_t)quotient((uint64_t)((o + 1) * n + m - 1), (uint64_t)m)};
  Span w;
  w.begin = o * s.stride[d] - s.padding[d];
  w.end = w.begin + step * (s.kernel[d] - 1) + 1;
  if (w.end > n) w.end = n;
  if (w.begin < 0) w.begin += (int64_t)quotient((uint64_t)(step - 1 - w.begin), (uint64_t)step) * step;
  return w;
}

// The outputs with windows around element i: begin <= o < end.
__device__ __forceinline__ Span windows_of(const Geometry &s, int d, int64_t i) {
  const int64_t n = s.in[d], m = s.out[d], stride = s.stride[d];
  if (!s.kernel[d]) return {(int64_t)quotient((uint64_t)(i * m), (uint64_t)n),
                            (int64_t)quotient((uint64_t)((i + 1) * m + n - 1), (uint64_t)n)};
  const int64_t last = i + s.padding[d], before = last - (s.dilation[d] * (s.kernel[d] - 1) + 1);
  Span w;
  w.begin = before < 0 ? 0 : (int64_t)quotient((uint64_t)before, (uint64_t)stride) + 1;
  w.end = (int64_t)quotient((uint64_t)last, (uint64_t)stride) + 1;
  if (w.end > m) w.end = m;
  return w;
}

// By what the sum of a window is divided, of one dimension.
__device__ __forceinline__ T divisor_of(const Geometry &s, int d, int64_t o, Span w) {
  if (s.divisor) return d == 2 ? (T)s.divisor : T(1);
  if (!s.include_pad || !s.kernel[d]) return (T)(w.end - w.begin);
  const int64_t most = s.in[d] + 2 * s.padding[d] - o * s.stride[d];
  return (T)(s.kernel[d] < most ? s.kernel[d] : most);
}

// f(offset in the plane of x) for this thread's elements of the window of output o, in ascending order
template <class F> __device__ __forceinline__ void each_element(const Geometry &s, const Span *w, F f) {
  for (int64_t z = w[0].begin; z < w[0].end; z += s.dilation[0])
    for (int64_t y = w[1].begin; y < w[1].end; y += s.dilation[1])
      for (int64_t x = w[2].begin + threadIdx.x * s.dilation[2]; x < w[2].end; x += blockDim.x * s.dilation[2])
        f((z * s.in[1] + y) * s.in[2] + x);
}

// ---- the maximum ----

struct Best { T value; int at; };          // at: -1 for none
// Of equal elements the first is better, but of NaN the last.
__device__ __forceinline__ bool better(Best b, Best a) {
  if (b.at < 0 || a.at < 0) return b.at >= 0;
  if (b.value != b.value) return a.value == a.value || b.at > a.at;
  return b.value > a.value || (b.value == a.value && b.at < a.at);
}
// The best over the threads that share threadIdx.y, as row_all of common.cuh.
__device__ __forceinline__ Best best_all(Best b) {
  __shared__ Best of_warp[32];
  if (blockDim.x == 1) return b;
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) {
    const Best other = {__shfl_xor_sync(FULL, b.value, o), __shfl_xor_sync(FULL, b.at, o)};
    if (better(other, b)) b = other;
  }
  if (blockDim.x == 32) return b;
  __syncthreads();                         // other threads may still read of_warp in the previous call
  if ((threadIdx.x & 31) == 0) of_warp[threadIdx.x >> 5] = b;
  __syncthreads();
  b = of_warp[0];
  for (int i = 1; i < blockDim.x >> 5; i++)
    if (better(of_warp[i], b)) b = of_warp[i];
  return b;
}

KERNEL(max_pool_forward)(STORED *y, int64_t *index, const STORED *x, const int64_t *geometry) {
  const Geometry &s = *reinterpret_cast<const Geometry *>(geometry);
  const int64_t total = s.planes * volume(s.out), in = volume(s.in);
#pragma unroll 1
  EACH_ROW(n, total) {
    int64_t o[3];
    const STORED *from = x + plane_of(n, total, s.out, o) * in;
    const Span w[3] = {window_of(s, 0, o[0]), window_of(s, 1, o[1]), window_of(s, 2, o[2])};
    Best best = {T(-INFINITY), -1};
    each_element(s, w, [&](int64_t i) {
      const Best b = {from[i], (int)i};
      if (better(b, best)) best = b;
    });
    best = best_all(best);
    if (threadIdx.x == 0) y[n] = best.value, index[n] = best.at;
  }
}

KERNEL(max_pool_backward)(STORED *gx, const STORED *g, const int64_t *index, const int64_t *geometry) {
  const Geometry &s = *reinterpret_cast<const Geometry *>(geometry);
  const int64_t total = s.planes * volume(s.in), out = volume(s.out);
#pragma unroll 1
  GRID_LOOP(n, total) {
    int64_t i[3];
    const int64_t first = plane_of(n, total, s.in, i) * out, at = (i[0] * s.in[1] + i[1]) * s.in[2] + i[2];
    const Span deep = windows_of(s, 0, i[0]), high = windows_of(s, 1, i[1]), wide = windows_of(s, 2, i[2]);
    Sum sum;
    for (int64_t a = deep.begin; a < deep.end; a++)
      for (int64_t b = high.begin; b < high.end; b++)
        for (int64_t c = wide.begin; c < wide.end; c++) {
          const int64_t o = first + (a * s.out[1] + b) * s.out[2] + c;
          if (index[o] == at) sum.add(g[o]);
        }
    gx[n] = sum.value();
  }
}

// ---- the mean ----

KERNEL(avg_pool_forward)(STORED *y, const STORED *x, const int64_t *geometry) {
  const Geometry &s = *reinterpret_cast<const Geometry *>(geometry);
  const int64_t total = s.planes * volume(s.out), in = volume(s.in);
#pragma unroll 1
  EACH_ROW(n, total) {
    int64_t o[3];
    const STORED *from = x + plane_of(n, total, s.out, o) * in;
    const Span w[3] = {window_of(s, 0, o[0]), window_of(s, 1, o[1]), window_of(s, 2, o[2])};
    Sum sum;
    each_element(s, w, [&](int64_t i) { sum.add(from[i]); });
    const T all = blockDim.x == 1 ? sum.value() : row_sum(sum.value());
    const T by = divisor_of(s, 0, o[0], w[0]) * divisor_of(s, 1, o[1], w[1]) * divisor_of(s, 2, o[2], w[2]);
    if (threadIdx.x == 0) y[n] = all / by;
  }
}

KERNEL(avg_pool_backward)(STORED *gx, const STORED *g, const int64_t *geometry) {
  const Geometry &s = *reinterpret_cast<const Geometry *>(geometry);
  const int64_t total = s.planes * volume(s.in), out = volume(s.out);
#pragma unroll 1
  GRID_LOOP(n, total) {
    int64_t i[3];
    const STORED *from = g + plane_of(n, total, s.in, i) * out;
    const Span deep = windows_of(s, 0, i[0]), high = windows_of(s, 1, i[1]), wide = windows_of(s, 2, i[2]);
    Sum sum;
    for (int64_t a = deep.begin; a < deep.end; a++) {
      const T by_a = divisor_of(s, 0, a, window_of(s, 0, a));
      for (int64_t b = high.begin; b < high.end; b++) {
        const T by_b = by_a * divisor_of(s, 1, b, window_of(s, 1, b));
        for (int64_t c = wide.begin; c < wide.end; c++)
          sum.add(from[(a * s.out[1] + b) * s.out[2] + c] / (by_b * divisor_of(s, 2, c, window_of(s, 2, c))));
      }
    }
    gx[n] = sum.value();
  }
}
#endif
