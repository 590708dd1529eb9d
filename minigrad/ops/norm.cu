// Normalisation: layer, RMS, batch, group and masked norm. Formulas, and what arguments mean, are in native/norm.c.
//
//   y = (x - mean) * rstd * weight + bias
//   gx = rstd * (g - average(g) - xhat * average(g * xhat)),      g = gy * weight,  xhat = (x - mean) * rstd
//
// Accuracy: the variance is the mean of (x - mean)^2, never E[x^2] - E[x]^2. Before anything is summed, one element of
// the row is subtracted from all of them: with a mean of 10^4 and a deviation of 1 the sums then lose no digits. Same
// bits: which thread sums what depends on the shape alone, and the result of a row does not depend on the other rows.

// ---- layer and RMS norm: x is [rows, n] ----
//
// The plain loop, for each row:  mean = sum(x) / n;  var = sum((x - mean)^2) / n;  then y. The fast one gives a row to
// a warp or a block, which keeps it in registers: Row, in common.cuh.
#if IS_REAL
KERNEL(layer_norm_forward)(STORED *y, T *mean, T *rstd, const STORED *x, const PARAM *weight, const PARAM *bias,
                           int64_t rows, int64_t n, double eps) {
  EACH_ROW(row, rows) {
    const Row of(x + row * n, n);
    T first, offset, unit;
    const T r = row_statistics(of, true, eps, first, offset, unit);
    STORED *to = y + row * n;
    of.each([&](int64_t j, T v) {
      to[j] = ((v * unit - first) - offset) * r * (weight ? T(weight[j]) : T(1)) + (bias ? T(bias[j]) : T(0));
    });
    if (threadIdx.x == 0) mean[row] = (first + offset) / unit, rstd[row] = r * unit;
  }
}

KERNEL(rms_norm_forward)(STORED *y, T *rstd, const STORED *x, const PARAM *weight, int64_t rows, int64_t n,
                         double eps) {
  EACH_ROW(row, rows) {
    const Row of(x + row * n, n);
    T first, offset, unit;
    const T r = row_statistics(of, false, eps, first, offset, unit);
    STORED *to = y + row * n;
    of.each([&](int64_t j, T v) { to[j] = v * unit * r * (weight ? T(weight[j]) : T(1)); });
    if (threadIdx.x == 0) rstd[row] = r * unit;
  }
}

// Backward. A block has some of the rows, mg_norm_side(n) of them side by side, with mg_norm_threads(n) threads each. It
// writes gx, and its sums over these rows for the columns to its part of `partial`; a second launch adds the parts, in
// order. A thread keeps HELD columns: what it reads of a row, and the sums of its columns, are in registers, so that all
// is read once. Only at the end do the rows side by side add up, in shared memory.
#define HELD 8

// both sums over the threads of a row
__device__ __forceinline__ void row_sums(T &a, T &b) {
  __shared__ T of_warp[2][MAX_THREADS / 32];
  a = warp_all<Add>(a), b = warp_all<Add>(b);
  if (blockDim.x == 32) return;
  const int warps = blockDim.x >> 5, first = threadIdx.y * warps;
  __syncthreads();                         // other threads may still read of_warp in the previous call
  if ((threadIdx.x & 31) == 0) of_warp[0][first + (threadIdx.x >> 5)] = a, of_warp[1][first + (threadIdx.x >> 5)] = b;
  __syncthreads();
  a = of_warp[0][first], b = of_warp[1][first];
  for (int i = 1; i < warps; i++) a += of_warp[0][first + i], b += of_warp[1][first + i];
}

struct RowNorm {
  STORED *gx;
  T *sums;                                 // of the part: for gweight, then with `centred` for gbias
  const STORED *gy, *x;
  const PARAM *weight;
  const T *mean, *rstd;
  int64_t begin, end, n;

  template <bool CENTRED> __device__ __forceinline__ void held_rows() const {
    __shared__ T room[HELD * MAX_THREADS];
    T w[HELD], sum[HELD] = {}, sum_xhat[HELD] = {};
#pragma unroll
    for (int k = 0; k < HELD; k++) {
      const int64_t j = threadIdx.x + k * blockDim.x;
      w[k] = weight && j < n ? T(weight[j]) : T(1);
    }
    for (int64_t first = begin; first < end; first += blockDim.y) {
      const int64_t row = first + threadIdx.y;
      const bool inside = row < end;
      const T m = CENTRED && inside ? mean[row] : T(0), r = inside ? rstd[row] : T(0);
      T g[HELD], xhat[HELD], c1 = 0, c2 = 0;
#pragma unroll
      for (int k = 0; k < HELD; k++) {
        const int64_t j = threadIdx.x + k * blockDim.x;
        const bool on = inside && j < n;
        g[k] = on ? T(gy[row * n + j]) : T(0), xhat[k] = on ? (x[row * n + j] - m) * r : T(0);
      }
#pragma unroll
      for (int k = 0; k < HELD; k++) {
        sum[k] += g[k], sum_xhat[k] += g[k] * xhat[k];
        c1 += g[k] * w[k], c2 += g[k] * w[k] * xhat[k];
      }
      if (!gx) continue;
      row_sums(c1, c2);
      c1 = CENTRED ? c1 / n : T(0), c2 /= n;
#pragma unroll
      for (int k = 0; k < HELD; k++) {
        const int64_t j = threadIdx.x + k * blockDim.x;
        if (inside && j < n) gx[row * n + j] = (g[k] * w[k] - c1 - xhat[k] * c2) * r;
      }
    }
    if (!sums) return;
    for (int which = 0; which < (CENTRED ? 2 : 1); which++) {
      __syncthreads();                     // other threads may still read the other sum
#pragma unroll
      for (int k = 0; k < HELD; k++) {
        const int64_t j = threadIdx.x + k * blockDim.x;
        if (j < n) room[threadIdx.y * n + j] = which ? sum[k] : sum_xhat[k];
      }
      __syncthreads();
      for (int64_t j = threadIdx.y * blockDim.x + threadIdx.x; j < n; j += blockDim.x * blockDim.y) {
        T total = room[j];
        for (int i = 1; i < (int)blockDim.y; i++) total += room[i * n + j];
        sums[which * n + j] = total;
      }
    }
  }

  // A row is longer than what 512 threads hold: first the averages of all rows, at most MG_NORM_ROWS_MAX; then column by
  // column, TOGETHER rows at once. x and gy are read twice.
  template <bool CENTRED> __device__ __forceinline__ void long_rows() const {
    constexpr int TOGETHER = 4;
    __shared__ T c1[MG_NORM_ROWS_MAX], c2[MG_NORM_ROWS_MAX];
    for (int64_t row = begin; gx && row < end; row++) {
      const T m = CENTRED ? mean[row] : T(0), r = rstd[row];
      Sum s1, s2;
#pragma unroll 4
      for (int64_t j = threadIdx.x; j < n; j += blockDim.x) {
        const T g = gy[row * n + j] * (weight ? T(weight[j]) : T(1));
        s1.add(g), s2.add(g * ((x[row * n + j] - m) * r));
      }
      T a = s1.value(), b = s2.value();
      row_sums(a, b);
      if (threadIdx.x == 0) c1[row - begin] = CENTRED ? a / n : T(0), c2[row - begin] = b / n;
    }
    __syncthreads();
    for (int64_t j = threadIdx.x; j < n; j += blockDim.x) {
      const T w = weight ? T(weight[j]) : T(1);
      T sum = 0, sum_xhat = 0;
      for (int64_t first = begin; first < end; first += TOGETHER) {
        T g[TOGETHER], xhat[TOGETHER], r[TOGETHER];
#pragma unroll
        for (int k = 0; k < TOGETHER; k++) {
          const int64_t row = first + k;
          const bool inside = row < end;
          r[k] = inside ? rstd[row] : T(0), g[k] = inside ? T(gy[row * n + j]) : T(0);
          xhat[k] = inside ? (x[row * n + j] - (CENTRED ? mean[row] : T(0))) * r[k] : T(0);
        }
#pragma unroll
        for (int k = 0; k < TOGETHER; k++) {
          sum += g[k], sum_xhat += g[k] * xhat[k];
          const int64_t row = first + k;
          if (gx && row < end) gx[row * n + j] = (g[k] * w - c1[row - begin] - xhat[k] * c2[row - begin]) * r[k];
        }
      }
      if (sums) sums[j] = sum_xhat;
      if (CENTRED && sums) sums[n + j] = sum;
    }
  }
};

template <bool CENTRED>
__device__ __forceinline__ void row_norm_backward(STORED *gx, T *partial, const STORED *gy, const STORED *x,
                                                  const T *mean, const T *rstd, const PARAM *weight, int64_t rows,
                                                  int64_t n) {
  const int64_t parts = mg_norm_parts(rows, n), length = (rows + parts - 1) / parts, begin = blockIdx.x * length;
  const RowNorm of = {gx, partial ? partial + blockIdx.x * (CENTRED ? 2 * n : n) : 0, gy, x, weight, mean, rstd, begin,
                      begin + length < rows ? begin + length : rows, n};
  if (n <= HELD * (int64_t)blockDim.x) of.held_rows<CENTRED>();
  else of.long_rows<CENTRED>();
}

// Combines v over the threads that share threadIdx.x, or with `all` over the whole block; every thread gets the result.
// blockDim is (32, TALL).
#define TALL 16
template <class Op> __device__ __forceinline__ T column_all(T v, bool all) {
  __shared__ T of_thread[TALL][33];
  __syncthreads();                         // other threads may still read of_thread in the previous call
  of_thread[threadIdx.y][threadIdx.x] = v;
  __syncthreads();
  v = of_thread[0][threadIdx.x];
#pragma unroll
  for (int i = 1; i < TALL; i++) v = Op::of(v, of_thread[i][threadIdx.x]);
  return all ? warp_all<Op>(v) : v;
}
// out[j] = sum over rows of p[row * stride + j], j < n; nothing if out is null. 32 columns a block.
__device__ __forceinline__ void sum_rows(PARAM *out, const T *p, int64_t rows, int64_t stride, int64_t n) {
  const int64_t j = (int64_t)blockIdx.x * 32 + threadIdx.x;
  Sum s;
  if (out && j < n)
    for (int64_t row = threadIdx.y; row < rows; row += TALL) s.add(p[row * stride + j]);
  const T total = column_all<Add>(s.value(), false);
  if (out && j < n && threadIdx.y == 0) out[j] = total;
}

KERNEL(layer_norm_backward)(STORED *gx, PARAM *gweight, PARAM *gbias, T *partial, const STORED *gy, const STORED *x,
                            const T *mean, const T *rstd, const PARAM *weight, int64_t rows, int64_t n) {
  row_norm_backward<true>(gx, gweight || gbias ? partial : 0, gy, x, mean, rstd, weight, rows, n);
}
STEP(layer_norm_backward, columns)(STORED *gx, PARAM *gweight, PARAM *gbias, T *partial, const STORED *gy,
                                   const STORED *x, const T *mean, const T *rstd, const PARAM *weight, int64_t rows,
                                   int64_t n) {
  for (int which = blockIdx.y; which < 2; which += gridDim.y)
    sum_rows(which ? gbias : gweight, partial + which * n, mg_norm_parts(rows, n), 2 * n, n);
}

KERNEL(rms_norm_backward)(STORED *gx, PARAM *gweight, T *partial, const STORED *gy, const STORED *x, const T *rstd,
                          const PARAM *weight, int64_t rows, int64_t n) {
  row_norm_backward<false>(gx, gweight ? partial : 0, gy, x, 0, rstd, weight, rows, n);
}
STEP(rms_norm_backward, columns)(STORED *gx, PARAM *gweight, T *partial, const STORED *gy, const STORED *x,
                                 const T *rstd, const PARAM *weight, int64_t rows, int64_t n) {
  sum_rows(gweight, partial, mg_norm_parts(rows, n), n, n);
}

// ---- batch norm: x is [batch, channels, inner] ----
//
// The plain loop, for each channel c:  mean, var and the gradients' sums over x[:, c, :];  then y or gx. A block has
// (32, TALL) threads. If inner is at least 32, it has one channel (blockIdx.x), and its threads run along the elements;
// if it is less, it has 32 channels, one for each lane, and the warps share the elements. So the lanes of a warp read
// neighbours in both cases. Few channels are cut into segments (blockIdx.y), which occupy the whole GPU: the first launch
// leaves their results in `segment_results`, and a second one joins them. With one segment there is one launch: the
// threads that computed the sums go on.
__device__ double segment_results[3 * MG_CHANNEL_RESULTS_MAX];      // one stream: no two launches use it at once

struct Channel {
  bool strips;
  int64_t c, batch, channels, inner, segments, begin, end;
  __device__ __forceinline__ Channel(int64_t b, int64_t cs, int64_t i)
      : Channel(b, cs, i, mg_channel_segments(b, cs, i)) {}
  __device__ __forceinline__ Channel(int64_t b, int64_t cs, int64_t i, int64_t cut)
      : strips(i >= 32), c(i >= 32 ? blockIdx.x : (int64_t)blockIdx.x * 32 + threadIdx.x), batch(b), channels(cs),
        inner(i), segments(cut) {
    const int64_t length = (batch * inner + segments - 1) / segments;
    begin = blockIdx.y * length, end = begin + length < batch * inner ? begin + length : batch * inner;
    if (end < begin) end = begin;
  }
  __device__ __forceinline__ bool inside() const { return c < channels; }
  __device__ __forceinline__ bool writes() const {
    return inside() && threadIdx.y == 0 && (!strips || threadIdx.x == 0);
  }
  __device__ __forceinline__ int64_t place(int64_t element) const {
    const int64_t b = (int64_t)quotient((uint64_t)element, (uint64_t)inner);
    return (b * channels + c) * inner + (element - b * inner);
  }
  // load(u, index), then use(u, index), for this thread's elements of the segment; four are loaded at once
  template <class Load, class Use> __device__ __forceinline__ void each(Load load, Use use) const {
    if (!inside()) return;
    const int step = strips ? 32 * TALL : TALL;
    const int64_t over = step / inner, rest = step - over * inner;         // a step goes on by so many strips, and places
    int64_t e = begin + (strips ? threadIdx.y * 32 + threadIdx.x : threadIdx.y);
    int64_t b = (int64_t)quotient((uint64_t)e, (uint64_t)inner), i = e - b * inner;
    while (e < end) {
      int64_t at[4];
#pragma unroll
      for (int u = 0; u < 4; u++) {
        at[u] = e < end ? (b * channels + c) * inner + i : -1;
        e += step, b += over, i += rest;
        if (i >= inner) i -= inner, b++;
      }
#pragma unroll
      for (int u = 0; u < 4; u++)
        if (at[u] >= 0) load(u, at[u]);
#pragma unroll
      for (int u = 0; u < 4; u++)
        if (at[u] >= 0) use(u, at[u]);
    }
  }
  __device__ __forceinline__ T sum(const Sum &s) const { return column_all<Add>(s.value(), strips); }
  // of result number `which` of a segment, of three
  __device__ __forceinline__ double &result(int64_t segment, int which) const {
    return segment_results[(segment * channels + c) * 3 + which];
  }
  __device__ __forceinline__ double sum_of_results(int which) const {
    double sum = 0;
#pragma unroll 4
    for (int64_t k = 0; k < segments; k++) sum += result(k, which);
    return sum;
  }
};
__device__ __forceinline__ int64_t channel_of(int64_t i, int64_t total, int64_t channels, int64_t inner) {
  if (total <= 0x7fffffff) return quotient((uint32_t)i, (uint32_t)inner) % (uint32_t)channels;
  const uint64_t strip = quotient((uint64_t)i, (uint64_t)inner);
  return (int64_t)(strip - quotient(strip, (uint64_t)channels) * channels);
}

// with mean = first + offset
__device__ __forceinline__ void normalised(const Channel &of, STORED *y, T *mean, T *var, T *rstd, const STORED *x,
                                           const PARAM *weight, const PARAM *bias, T first, T offset, T v,
                                           double eps) {
  const T r = inverse_root(v + (T)eps);
  if (of.writes() && blockIdx.y == 0) mean[of.c] = first + offset, var[of.c] = v, rstd[of.c] = r;
  if (!of.inside()) return;
  const T scale = weight ? r * weight[of.c] : r, shift = bias ? T(bias[of.c]) : T(0);
  T value[4];
  of.each([&](int u, int64_t at) { value[u] = x[at]; },
          [&](int u, int64_t at) { y[at] = ((value[u] - first) - offset) * scale + shift; });
}
KERNEL(batch_norm_forward)(STORED *y, T *mean, T *var, T *rstd, const STORED *x, const PARAM *weight,
                           const PARAM *bias, int64_t batch, int64_t channels, int64_t inner, double eps) {
  const Channel of(batch, channels, inner);
  const T first = of.inside() && of.begin < of.end ? T(x[of.place(of.begin)]) : T(0), count = (T)(of.end - of.begin);
  T value[4];
  Sum s, q;
  of.each([&](int u, int64_t at) { value[u] = x[at]; }, [&](int u, int64_t) { s.add(value[u] - first); });
  const T offset = of.begin < of.end ? of.sum(s) / count : T(0);
  of.each([&](int u, int64_t at) { value[u] = x[at]; }, [&](int u, int64_t) {
    const T d = (value[u] - first) - offset;
    q.add(d * d);
  });
  const T squares = of.sum(q);
  if (of.segments == 1) normalised(of, y, mean, var, rstd, x, weight, bias, first, offset, squares / count, eps);
  else if (of.writes())
    of.result(blockIdx.y, 0) = (double)count, of.result(blockIdx.y, 1) = (double)first + (double)offset,
                         of.result(blockIdx.y, 2) = (double)squares;
}
// The means and the sums of squares about them are joined as Chan, Golub and LeVeque (1979) do it, in double.
STEP(batch_norm_forward, apply)(STORED *y, T *mean, T *var, T *rstd, const STORED *x, const PARAM *weight,
                                const PARAM *bias, int64_t batch, int64_t channels, int64_t inner, double eps) {
  const Channel of(batch, channels, inner);
  double mu = 0, squares = 0;
  if (of.inside()) {
#pragma unroll 4
    for (int64_t k = 0; k < of.segments; k++) mu += of.result(k, 0) * of.result(k, 1);
    mu /= (double)(batch * inner);
#pragma unroll 4
    for (int64_t k = 0; k < of.segments; k++) {
      const double d = of.result(k, 1) - mu;
      squares += of.result(k, 2) + of.result(k, 0) * d * d;
    }
  }
  const T first = (T)mu;
  normalised(of, y, mean, var, rstd, x, weight, bias, first, (T)(mu - (double)first),
             (T)(squares / (double)(batch * inner)), eps);
}
KERNEL(batch_norm_eval_forward)(STORED *y, const STORED *x, const PARAM *mean, const PARAM *var, const PARAM *weight,
                                const PARAM *bias, int64_t batch, int64_t channels, int64_t inner, double eps) {
  const int64_t total = batch * channels * inner;
  GRID_LOOP(i, total) {
    const int64_t c = channel_of(i, total, channels, inner);
    const T r = inverse_root(var[c] + (T)eps);
    y[i] = (x[i] - mean[c]) * (weight ? r * weight[c] : r) + (bias ? T(bias[c]) : T(0));
  }
}

// s1 = sum(gy), s2 = sum(gy * xhat)
__device__ __forceinline__ void batch_norm_gradients(const Channel &of, STORED *gx, PARAM *gweight, PARAM *gbias,
                                                     const STORED *gy, const STORED *x, const T *mean, const T *rstd,
                                                     const PARAM *weight, T s1, T s2) {
  if (of.writes() && blockIdx.y == 0 && gbias) gbias[of.c] = s1;
  if (of.writes() && blockIdx.y == 0 && gweight) gweight[of.c] = s2;
  if (!gx || !of.inside()) return;
  const T m = mean[of.c], r = rstd[of.c], count = (T)(of.batch * of.inner), c1 = s1 / count, c2 = s2 / count;
  const T scale = weight ? r * weight[of.c] : r;
  T g[4], value[4];
  of.each([&](int u, int64_t at) { g[u] = gy[at], value[u] = x[at]; },
          [&](int u, int64_t at) { gx[at] = (g[u] - c1 - (value[u] - m) * r * c2) * scale; });
}
KERNEL(batch_norm_backward)(STORED *gx, PARAM *gweight, PARAM *gbias, const STORED *gy, const STORED *x,
                            const T *mean, const T *rstd, const PARAM *weight, int64_t batch, int64_t channels,
                            int64_t inner) {
  const Channel of(batch, channels, inner);
  const T m = of.inside() ? mean[of.c] : T(0), r = of.inside() ? rstd[of.c] : T(0);
  T g[4], value[4];
  Sum of_g, of_gx;
  of.each([&](int u, int64_t at) { g[u] = gy[at], value[u] = x[at]; },
          [&](int u, int64_t) { of_g.add(g[u]), of_gx.add(g[u] * ((value[u] - m) * r)); });
  const T s1 = of.sum(of_g), s2 = of.sum(of_gx);
  if (of.segments == 1) batch_norm_gradients(of, gx, gweight, gbias, gy, x, mean, rstd, weight, s1, s2);
  else if (of.writes()) of.result(blockIdx.y, 0) = (double)s1, of.result(blockIdx.y, 1) = (double)s2;
}
STEP(batch_norm_backward, apply)(STORED *gx, PARAM *gweight, PARAM *gbias, const STORED *gy, const STORED *x,
                                 const T *mean, const T *rstd, const PARAM *weight, int64_t batch, int64_t channels,
                                 int64_t inner) {
  const Channel of(batch, channels, inner);
  if (of.inside())
    batch_norm_gradients(of, gx, gweight, gbias, gy, x, mean, rstd, weight, (T)of.sum_of_results(0),
                         (T)of.sum_of_results(1));
}
KERNEL(batch_norm_eval_backward)(STORED *gx, PARAM *gweight, PARAM *gbias, const STORED *gy, const STORED *x,
                                 const PARAM *mean, const PARAM *var, const PARAM *weight, int64_t batch,
                                 int64_t channels, int64_t inner, double eps) {
  const Channel of(batch, channels, inner);
  const T m = of.inside() ? T(mean[of.c]) : T(0), r = of.inside() ? inverse_root(var[of.c] + (T)eps) : T(0);
  const T scale = weight && of.inside() ? r * weight[of.c] : r;
  T g[4], value[4];
  Sum of_g, of_gx;
  of.each([&](int u, int64_t at) { g[u] = gy[at], value[u] = gweight ? T(x[at]) : T(0); }, [&](int u, int64_t at) {
    of_g.add(g[u]), of_gx.add(g[u] * ((value[u] - m) * r));
    if (gx) gx[at] = g[u] * scale;
  });
  const T s1 = of.sum(of_g), s2 = of.sum(of_gx);
  if (!of.writes()) return;
  if (of.segments > 1) of.result(blockIdx.y, 0) = (double)s1, of.result(blockIdx.y, 1) = (double)s2;
  else {
    if (gbias) gbias[of.c] = s1;
    if (gweight) gweight[of.c] = s2;
  }
}
STEP(batch_norm_eval_backward, join)(STORED *gx, PARAM *gweight, PARAM *gbias, const STORED *gy, const STORED *x,
                                     const PARAM *mean, const PARAM *var, const PARAM *weight, int64_t batch,
                                     int64_t channels, int64_t inner, double eps) {
  const Channel of(batch, channels, inner);
  if (!of.writes()) return;
  if (gbias) gbias[of.c] = (T)of.sum_of_results(0);
  if (gweight) gweight[of.c] = (T)of.sum_of_results(1);
}

KERNEL(running_update)(STORED *running, const T *value, int64_t n, double momentum, double scale) {
  GRID_LOOP(i, n) running[i] = (T)((1 - momentum) * running[i] + momentum * scale * value[i]);
}
KERNEL(counted_update)(STORED *running, const T *value, const T *count, int64_t n, int64_t unbiased, double momentum) {
  GRID_LOOP(i, n) {
    const double scale = unbiased ? count[i] / (count[i] - 1.) : 1;
    if (count[i] > 1) running[i] = (T)((1 - momentum) * running[i] + momentum * scale * value[i]);
  }
}

// ---- group norm: x is [batch, groups, cpg, inner] ----
//
// The statistics are those of layer norm, over rows of n = cpg * inner elements. weight and bias belong to channels.
KERNEL(group_norm_forward)(STORED *y, T *mean, T *rstd, const STORED *x, const PARAM *weight, const PARAM *bias,
                           int64_t batch, int64_t groups, int64_t cpg, int64_t inner, double eps) {
  const int64_t n = cpg * inner;
  EACH_ROW(row, batch * groups) {
    const Row of(x + row * n, n);
    T first, offset, unit;
    const T r = row_statistics(of, true, eps, first, offset, unit);
    const int64_t channel = row % groups * cpg;
    STORED *to = y + row * n;
    of.each([&](int64_t j, T v) {
      const int64_t c =
          channel + (n <= 0x7fffffff ? quotient((uint32_t)j, (uint32_t)inner) : quotient((uint64_t)j, (uint64_t)inner));
      to[j] = ((v * unit - first) - offset) * r * (weight ? T(weight[c]) : T(1)) + (bias ? T(bias[c]) : T(0));
    });
    if (threadIdx.x == 0) mean[row] = (first + offset) / unit, rstd[row] = r * unit;
  }
}

// `partial` holds sum(gy) for each sample and channel, then sum(gy * xhat) for each. A warp computes them for a channel
// of the row. The row's two averages follow from them. The second launch sums them over the batch: gbias and gweight.
KERNEL(group_norm_backward)(STORED *gx, PARAM *gweight, PARAM *gbias, T *partial, const STORED *gy, const STORED *x,
                            const T *mean, const T *rstd, const PARAM *weight, int64_t batch, int64_t groups,
                            int64_t cpg, int64_t inner) {
  const int64_t n = cpg * inner, rows = batch * groups;
  const int warps = blockDim.x >> 5, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  EACH_ROW(row, rows) {
    const T m = mean[row], r = rstd[row];
    const STORED *px = x + row * n, *pg = gy + row * n;
    T *sum1 = partial + row * cpg, *sum2 = partial + (rows + row) * cpg;
    for (int64_t k = warp; k < cpg; k += warps) {
      Sum s1, s2;
      for (int64_t j = k * inner + lane; j < (k + 1) * inner; j += 32) s1.add(pg[j]), s2.add(pg[j] * ((px[j] - m) * r));
      const T t1 = warp_all<Add>(s1.value()), t2 = warp_all<Add>(s2.value());
      if (lane == 0) sum1[k] = t1, sum2[k] = t2;
    }
    if (blockDim.x == 32) __syncwarp();
    else __syncthreads();
    if (!gx) continue;
    const int64_t channel = row % groups * cpg;
    Sum s1, s2;
    for (int64_t k = threadIdx.x; k < cpg; k += blockDim.x) {
      const T w = weight ? T(weight[channel + k]) : T(1);
      s1.add(sum1[k] * w), s2.add(sum2[k] * w);
    }
    const T c1 = row_sum(s1.value()) / n, c2 = row_sum(s2.value()) / n;
    for (int64_t k = warp; k < cpg; k += warps) {
      const T w = weight ? T(weight[channel + k]) : T(1);
      for (int64_t j = k * inner + lane; j < (k + 1) * inner; j += 32)
        gx[row * n + j] = (pg[j] * w - c1 - (px[j] - m) * r * c2) * r;
    }
  }
}
STEP(group_norm_backward, columns)(STORED *gx, PARAM *gweight, PARAM *gbias, T *partial, const STORED *gy,
                                   const STORED *x, const T *mean, const T *rstd, const PARAM *weight, int64_t batch,
                                   int64_t groups, int64_t cpg, int64_t inner) {
  sum_rows(gbias, partial, batch, groups * cpg, groups * cpg);
  sum_rows(gweight, partial + batch * groups * cpg, batch, groups * cpg, groups * cpg);
}

// ---- masked norm: x and mask are [batch, sets, n] ----
//
// The plain loop, for each set s:  count, mean, var of the elements of x[:, s, :] with mask;  y or gx, 0 for the others.
// A set is what a channel is in batch norm, in one segment. The mean of a first pass is off by what rounding makes of
// it; a second pass takes distances from it, so that neither their mean nor their squares lose digits.
struct Masked : Channel {
  const STORED *x;
  const uint8_t *mask;
  __device__ __forceinline__ Masked(const STORED *values, const uint8_t *valid, int64_t b, int64_t s, int64_t i)
      : Channel(b, s, i, 1), x(values), mask(valid) {}
  // f(value) for this thread's elements with mask
  template <class F> __device__ __forceinline__ void valid(F f) const {
    T value[4];
    bool on[4];
    each([&](int u, int64_t at) { value[u] = x[at], on[u] = mask[at]; }, [&](int u, int64_t) {
      if (on[u]) f(value[u]);
    });
  }
  // mean = first + offset and 1 / sqrt(variance + eps) of the elements, multiplied by `unit`; share: 1 / count
  __device__ __forceinline__ T statistics(bool centered, double eps, T unit, T share, T &first, T &offset,
                                          T &variance) const {
    Sum s, d, q;
    if (centered) valid([&](T v) { s.add(v * unit); });
    first = centered ? sum(s) * share : T(0);
    valid([&](T v) {
      v = v * unit - first;
      d.add(v), q.add(v * v);
    });
    offset = centered ? sum(d) * share : T(0);
    variance = sum(q) * share - offset * offset;
    if (variance < 0) variance = 0;
    return inverse_root(variance + (T)(eps * unit * unit));
  }
};
KERNEL(valid_norm_forward)(STORED *y, T *mean, T *var, T *rstd, T *count, const STORED *x, const uint8_t *mask,
                            const PARAM *weight, const PARAM *bias, int64_t batch, int64_t sets, int64_t n,
                            int64_t each, int64_t channels, int64_t centered, double eps) {
  const Masked of(x, mask, batch, sets, n);
  const T edge = sizeof(T) == 4 ? T(0x1p60) : T(0x1p500);
  Sum ones;
  of.valid([&](T) { ones.add(1); });
  const T number = of.sum(ones), share = 1 / (number > 0 ? number : T(1));
  T first, offset, v, unit = 1, r = of.statistics(centered, eps, unit, share, first, offset, v);
  const bool wrong = !(r > 1 / edge && r < edge);          // squares leave the range: as in row_statistics
  if (__syncthreads_or(wrong)) {
    T most = 0;
    of.valid([&](T a) { most = Largest::of(fabs(a), most); });
    most = column_all<Largest>(most, of.strips);
    if (wrong && most > 0 && most < T(INFINITY)) unit = exp2(-floor(log2(most)));
    r = of.statistics(centered, eps, unit, share, first, offset, v);
  }
  if (of.writes())
    mean[of.c] = (first + offset) / unit, var[of.c] = v / unit / unit, rstd[of.c] = r * unit, count[of.c] = number;
  T value[4];
  bool on[4];
  of.each([&](int u, int64_t at) { value[u] = x[at], on[u] = mask[at]; }, [&](int u, int64_t at) {
    const int64_t k = weight || bias ? channel_of(at, batch * sets * n, channels, each) : 0;
    const T a = ((value[u] * unit - first) - offset) * r * (weight ? T(weight[k]) : T(1)) + (bias ? T(bias[k]) : T(0));
    y[at] = on[u] ? a : T(0);
  });
}

KERNEL(valid_norm_backward)(STORED *gx, PARAM *gweight, PARAM *gbias, const STORED *gy, const STORED *x,
                             const uint8_t *mask, const T *mean, const T *rstd, const T *count, const PARAM *weight,
                             int64_t batch, int64_t sets, int64_t n, int64_t each, int64_t channels,
                             int64_t centered) {
  const Channel of(batch, sets, n, 1);
  const T m = of.inside() ? mean[of.c] : T(0), r = of.inside() ? rstd[of.c] : T(0),
          share = 1 / (of.inside() && count[of.c] > 0 ? count[of.c] : T(1));
  T g[4], xhat[4];
  bool on[4];
  const auto load = [&](int u, int64_t at) {
    g[u] = gy[at] * (weight ? T(weight[channel_of(at, batch * sets * n, channels, each)]) : T(1));
    xhat[u] = (x[at] - m) * r, on[u] = mask[at];
  };
  Sum of_g, of_gx;
  of.each(load, [&](int u, int64_t) {
    if (on[u]) of_g.add(g[u]), of_gx.add(g[u] * xhat[u]);
  });
  const T c1 = centered ? of.sum(of_g) * share : T(0), c2 = of.sum(of_gx) * share;
  of.each(load, [&](int u, int64_t at) { gx[at] = on[u] ? (g[u] - c1 - xhat[u] * c2) * r : T(0); });
}
// gweight and gbias: here channels are what they are in batch norm
STEP(valid_norm_backward, channels)(STORED *gx, PARAM *gweight, PARAM *gbias, const STORED *gy, const STORED *x,
                                     const uint8_t *mask, const T *mean, const T *rstd, const T *count,
                                     const PARAM *weight, int64_t batch, int64_t sets, int64_t n, int64_t each,
                                     int64_t channels, int64_t centered) {
  const int64_t size = batch * sets * n;
  const Channel of(size / (channels * each), channels, each, 1);
  T g[4], xhat[4];
  bool on[4];
  Sum of_g, of_gx;
  of.each([&](int u, int64_t at) {
    const int64_t s = channel_of(at, size, sets, n);
    g[u] = gy[at], xhat[u] = (x[at] - mean[s]) * rstd[s], on[u] = mask[at];
  }, [&](int u, int64_t) {
    if (on[u]) of_g.add(g[u]), of_gx.add(g[u] * xhat[u]);
  });
  const T s1 = of.sum(of_g), s2 = of.sum(of_gx);
  if (of.writes() && gbias) gbias[of.c] = s1;
  if (of.writes() && gweight) gweight[of.c] = s2;
}
#endif
