// Normalisation: layer, RMS, batch and group norm. The formulas, and what the arguments mean, are in native/norm.c.
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
KERNEL(layer_norm_forward)(T *y, T *mean, T *rstd, const T *x, const T *weight, const T *bias, int64_t rows, int64_t n,
                           double eps) {
  EACH_ROW(row, rows) {
    const Row of(x + row * n, n);
    T first, offset, unit;
    const T r = row_statistics(of, true, eps, first, offset, unit);
    T *to = y + row * n;
    of.each([&](int64_t j, T v) {
      to[j] = ((v * unit - first) - offset) * r * (weight ? weight[j] : T(1)) + (bias ? bias[j] : T(0));
    });
    if (threadIdx.x == 0) mean[row] = (first + offset) / unit, rstd[row] = r * unit;
  }
}

KERNEL(rms_norm_forward)(T *y, T *rstd, const T *x, const T *weight, int64_t rows, int64_t n, double eps) {
  EACH_ROW(row, rows) {
    const Row of(x + row * n, n);
    T first, offset, unit;
    const T r = row_statistics(of, false, eps, first, offset, unit);
    T *to = y + row * n;
    of.each([&](int64_t j, T v) { to[j] = v * unit * r * (weight ? weight[j] : T(1)); });
    if (threadIdx.x == 0) rstd[row] = r * unit;
  }
}

// Backward: one block for each chunk of rows. It walks its rows, writes gx, and keeps the column sums of the chunk: in
// shared memory where they fit, otherwise in `partial`. A thread owns every blockDim.x-th column, so no two threads add
// to one sum. A second launch adds the chunks, in order.
__device__ __forceinline__ void row_norm_backward(T *gx, T *partial, const T *gy, const T *x, const T *mean,
                                                  const T *rstd, const T *weight, int64_t rows, int64_t n,
                                                  bool centred) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  const int64_t chunks = mg_chunks(rows), length = (rows + chunks - 1) / chunks, width = centred ? 2 * n : n;
  const int64_t begin = blockIdx.x * length, end = begin + length < rows ? begin + length : rows;
  T *out = partial ? partial + blockIdx.x * width : 0;
  T *sums = width * sizeof(T) <= MG_SHARED_SUMS_BYTES ? reinterpret_cast<T *>(shared_bytes) : out;
  if (out)
    for (int64_t j = threadIdx.x; j < n; j += blockDim.x) {
      sums[j] = 0;
      if (centred) sums[n + j] = 0;
    }
  for (int64_t row = begin; row < end; row++) {
    const T m = centred ? mean[row] : T(0), r = rstd[row];
    const T *px = x + row * n, *pg = gy + row * n;
    Sum s1, s2;
    for (int64_t j = threadIdx.x; j < n; j += blockDim.x) {
      const T xhat = (px[j] - m) * r, g = pg[j], gw = g * (weight ? weight[j] : T(1));
      s1.add(gw);
      s2.add(gw * xhat);
      if (out) sums[j] += g * xhat;
      if (out && centred) sums[n + j] += g;
    }
    if (!gx) continue;
    const T c1 = centred ? row_sum(s1.value()) / n : T(0), c2 = row_sum(s2.value()) / n;
    for (int64_t j = threadIdx.x; j < n; j += blockDim.x)
      gx[row * n + j] = (pg[j] * (weight ? weight[j] : T(1)) - c1 - (px[j] - m) * r * c2) * r;
  }
  if (out && sums != out)
    for (int64_t j = threadIdx.x; j < n; j += blockDim.x) {
      out[j] = sums[j];
      if (centred) out[n + j] = sums[n + j];
    }
}

// The sum of v over the threads that share threadIdx.x, or with `all` over the whole block; every thread gets it.
// blockDim is (32, TALL).
#define TALL 16
__device__ __forceinline__ T column_sum(T v, bool all) {
  __shared__ T of_thread[TALL][33];
  __syncthreads();                         // other threads may still read of_thread in the previous call
  of_thread[threadIdx.y][threadIdx.x] = v;
  __syncthreads();
  v = of_thread[0][threadIdx.x];
#pragma unroll
  for (int i = 1; i < TALL; i++) v += of_thread[i][threadIdx.x];
  return all ? warp_all<Add>(v) : v;
}
// out[j] = sum over rows of p[row * stride + j], j < n; nothing if out is null. 32 columns a block.
__device__ __forceinline__ void sum_rows(T *out, const T *p, int64_t rows, int64_t stride, int64_t n) {
  const int64_t j = (int64_t)blockIdx.x * 32 + threadIdx.x;
  Sum s;
  if (out && j < n)
    for (int64_t row = threadIdx.y; row < rows; row += TALL) s.add(p[row * stride + j]);
  const T total = column_sum(s.value(), false);
  if (out && j < n && threadIdx.y == 0) out[j] = total;
}

KERNEL(layer_norm_backward)(T *gx, T *gweight, T *gbias, T *partial, const T *gy, const T *x, const T *mean,
                            const T *rstd, const T *weight, int64_t rows, int64_t n) {
  row_norm_backward(gx, gweight || gbias ? partial : 0, gy, x, mean, rstd, weight, rows, n, true);
}
STEP(layer_norm_backward, columns)(T *gx, T *gweight, T *gbias, T *partial, const T *gy, const T *x, const T *mean,
                                   const T *rstd, const T *weight, int64_t rows, int64_t n) {
  sum_rows(gweight, partial, mg_chunks(rows), 2 * n, n);
  sum_rows(gbias, partial + n, mg_chunks(rows), 2 * n, n);
}

KERNEL(rms_norm_backward)(T *gx, T *gweight, T *partial, const T *gy, const T *x, const T *rstd, const T *weight,
                          int64_t rows, int64_t n) {
  row_norm_backward(gx, gweight ? partial : 0, gy, x, 0, rstd, weight, rows, n, false);
}
STEP(rms_norm_backward, columns)(T *gx, T *gweight, T *partial, const T *gy, const T *x, const T *rstd, const T *weight,
                                 int64_t rows, int64_t n) {
  sum_rows(gweight, partial, mg_chunks(rows), n, n);
}

// ---- batch norm: x is [batch, channels, inner] ----
//
// The plain loop, for each channel c:  mean, var and the gradients' sums over x[:, c, :];  then y or gx. One launch
// with blocks of (32, TALL) threads computes the sums of the channels, a second one runs over all elements. If inner is
// at least 32, a block has one channel, and its warps run along the strips. If it is less, a block has 32 channels, one
// for each lane, and the warps share the batch. So the lanes of a warp read neighbours in both cases.
struct Channel {
  bool strips;
  int64_t c, batch, channels, inner;
  __device__ __forceinline__ Channel(int64_t b, int64_t cs, int64_t i)
      : strips(i >= 32), c(i >= 32 ? blockIdx.x : (int64_t)blockIdx.x * 32 + threadIdx.x), batch(b), channels(cs),
        inner(i) {}
  __device__ __forceinline__ bool inside() const { return c < channels; }
  __device__ __forceinline__ bool writes() const {
    return inside() && threadIdx.y == 0 && (!strips || threadIdx.x == 0);
  }
  template <class F> __device__ __forceinline__ T sum(F f) const {         // of f(index) over the channel
    Sum s;
    if (inside())
      for (int64_t b = threadIdx.y; b < batch; b += TALL)
        for (int64_t i = strips ? threadIdx.x : 0; i < inner; i += strips ? 32 : 1)
          s.add(f((b * channels + c) * inner + i));
    return column_sum(s.value(), strips);
  }
};
__device__ __forceinline__ int64_t channel_of(int64_t i, int64_t total, int64_t channels, int64_t inner) {
  if (total <= 0x7fffffff) return quotient((uint32_t)i, (uint32_t)inner) % (uint32_t)channels;
  const uint64_t strip = quotient((uint64_t)i, (uint64_t)inner);
  return (int64_t)(strip - quotient(strip, (uint64_t)channels) * channels);
}

KERNEL(batch_norm_forward)(T *y, T *mean, T *var, T *rstd, const T *x, const T *weight, const T *bias, int64_t batch,
                           int64_t channels, int64_t inner, double eps) {
  const Channel of(batch, channels, inner);
  const T first = of.inside() ? x[of.c * inner] : T(0), count = (T)(batch * inner);
  const T offset = of.sum([&](int64_t i) { return x[i] - first; }) / count;
  const T v = of.sum([&](int64_t i) { const T d = (x[i] - first) - offset; return d * d; }) / count;
  if (of.writes()) mean[of.c] = first + offset, var[of.c] = v, rstd[of.c] = inverse_root(v + (T)eps);
}
STEP(batch_norm_forward, apply)(T *y, T *mean, T *var, T *rstd, const T *x, const T *weight, const T *bias,
                                int64_t batch, int64_t channels, int64_t inner, double eps) {
  const int64_t total = batch * channels * inner;
  GRID_LOOP(i, total) {
    const int64_t c = channel_of(i, total, channels, inner);
    y[i] = (x[i] - mean[c]) * (weight ? rstd[c] * weight[c] : rstd[c]) + (bias ? bias[c] : T(0));
  }
}
KERNEL(batch_norm_eval_forward)(T *y, const T *x, const T *mean, const T *var, const T *weight, const T *bias,
                                int64_t batch, int64_t channels, int64_t inner, double eps) {
  const int64_t total = batch * channels * inner;
  GRID_LOOP(i, total) {
    const int64_t c = channel_of(i, total, channels, inner);
    const T r = inverse_root(var[c] + (T)eps);
    y[i] = (x[i] - mean[c]) * (weight ? r * weight[c] : r) + (bias ? bias[c] : T(0));
  }
}

// gx needs the two sums of the channel, but the caller may not want gweight and gbias. So the threads that computed the
// sums write gx, too, in one launch.
KERNEL(batch_norm_backward)(T *gx, T *gweight, T *gbias, const T *gy, const T *x, const T *mean, const T *rstd,
                            const T *weight, int64_t batch, int64_t channels, int64_t inner) {
  const Channel of(batch, channels, inner);
  const T m = of.inside() ? mean[of.c] : T(0), r = of.inside() ? rstd[of.c] : T(0), count = (T)(batch * inner);
  const T s1 = of.sum([&](int64_t i) { return gy[i]; });
  const T s2 = of.sum([&](int64_t i) { return gy[i] * ((x[i] - m) * r); });
  if (of.writes() && gbias) gbias[of.c] = s1;
  if (of.writes() && gweight) gweight[of.c] = s2;
  if (!gx || !of.inside()) return;
  const T c1 = s1 / count, c2 = s2 / count, scale = weight ? r * weight[of.c] : r;
  for (int64_t b = threadIdx.y; b < batch; b += TALL)
    for (int64_t i = of.strips ? threadIdx.x : 0; i < inner; i += of.strips ? 32 : 1) {
      const int64_t at = (b * channels + of.c) * inner + i;
      gx[at] = (gy[at] - c1 - (x[at] - m) * r * c2) * scale;
    }
}
KERNEL(batch_norm_eval_backward)(T *gx, T *gweight, T *gbias, const T *gy, const T *x, const T *mean, const T *var,
                                 const T *weight, int64_t batch, int64_t channels, int64_t inner, double eps) {
  const Channel of(batch, channels, inner);
  const T m = of.inside() ? mean[of.c] : T(0), r = of.inside() ? inverse_root(var[of.c] + (T)eps) : T(0);
  const T s1 = gbias ? of.sum([&](int64_t i) { return gy[i]; }) : T(0);
  const T s2 = gweight ? of.sum([&](int64_t i) { return gy[i] * ((x[i] - m) * r); }) : T(0);
  if (of.writes() && gbias) gbias[of.c] = s1;
  if (of.writes() && gweight) gweight[of.c] = s2;
}
STEP(batch_norm_eval_backward, apply)(T *gx, T *gweight, T *gbias, const T *gy, const T *x, const T *mean, const T *var,
                                      const T *weight, int64_t batch, int64_t channels, int64_t inner, double eps) {
  const int64_t total = batch * channels * inner;
  if (!gx) return;
  GRID_LOOP(i, total) {
    const int64_t c = channel_of(i, total, channels, inner);
    const T r = inverse_root(var[c] + (T)eps);
    gx[i] = gy[i] * (weight ? r * weight[c] : r);
  }
}

KERNEL(running_update)(T *running, const T *value, int64_t n, double momentum, double scale) {
  GRID_LOOP(i, n) running[i] = (T)((1 - momentum) * running[i] + momentum * scale * value[i]);
}

// ---- group norm: x is [batch, groups, cpg, inner] ----
//
// The statistics are those of layer norm, over rows of n = cpg * inner elements. weight and bias belong to channels.
KERNEL(group_norm_forward)(T *y, T *mean, T *rstd, const T *x, const T *weight, const T *bias, int64_t batch,
                           int64_t groups, int64_t cpg, int64_t inner, double eps) {
  const int64_t n = cpg * inner;
  EACH_ROW(row, batch * groups) {
    const Row of(x + row * n, n);
    T first, offset, unit;
    const T r = row_statistics(of, true, eps, first, offset, unit);
    const int64_t channel = row % groups * cpg;
    T *to = y + row * n;
    of.each([&](int64_t j, T v) {
      const int64_t c =
          channel + (n <= 0x7fffffff ? quotient((uint32_t)j, (uint32_t)inner) : quotient((uint64_t)j, (uint64_t)inner));
      to[j] = ((v * unit - first) - offset) * r * (weight ? weight[c] : T(1)) + (bias ? bias[c] : T(0));
    });
    if (threadIdx.x == 0) mean[row] = (first + offset) / unit, rstd[row] = r * unit;
  }
}

// `partial` holds sum(gy) for each sample and channel, then sum(gy * xhat) for each. A warp computes them for a channel
// of the row. The row's two averages follow from them. The second launch sums them over the batch: gbias and gweight.
KERNEL(group_norm_backward)(T *gx, T *gweight, T *gbias, T *partial, const T *gy, const T *x, const T *mean,
                            const T *rstd, const T *weight, int64_t batch, int64_t groups, int64_t cpg, int64_t inner) {
  const int64_t n = cpg * inner, rows = batch * groups;
  const int warps = blockDim.x >> 5, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  EACH_ROW(row, rows) {
    const T m = mean[row], r = rstd[row], *px = x + row * n, *pg = gy + row * n;
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
      const T w = weight ? weight[channel + k] : T(1);
      s1.add(sum1[k] * w), s2.add(sum2[k] * w);
    }
    const T c1 = row_sum(s1.value()) / n, c2 = row_sum(s2.value()) / n;
    for (int64_t k = warp; k < cpg; k += warps) {
      const T w = weight ? weight[channel + k] : T(1);
      for (int64_t j = k * inner + lane; j < (k + 1) * inner; j += 32)
        gx[row * n + j] = (pg[j] * w - c1 - (px[j] - m) * r * c2) * r;
    }
  }
}
STEP(group_norm_backward, columns)(T *gx, T *gweight, T *gbias, T *partial, const T *gy, const T *x, const T *mean,
                                   const T *rstd, const T *weight, int64_t batch, int64_t groups, int64_t cpg,
                                   int64_t inner) {
  sum_rows(gbias, partial, batch, groups * cpg, groups * cpg);
  sum_rows(gweight, partial + batch * groups * cpg, batch, groups * cpg, groups * cpg);
}
#endif
