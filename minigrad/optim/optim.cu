// Optimisers and gradient clipping: one launch for all parameters. `table` (in device memory) has a row of
// MG_OPTIM_COLUMNS int64 for each parameter; `hyper` holds the numbers that may change from step to step. Both are
// described in native/minigrad.h. The plain loop:
//
//   for each parameter:  for each element:  state, p = formula(g, state, p);      then step += 1
//
// Parameters are cut into chunks, and each block takes a range of the chunks of all parameters: so there are no blocks
// without work, and many small parameters cost no more launches than a large one. All blocks of a parameter read its
// step count, so the same launch cannot advance it: a second launch does, with a thread for each parameter.
//
// In half precision, gradients are STORED; p and states are float32, p the master weights. After its rows, the table has
// the addresses of the parameters, `rounded`: an element of p counts while it rounds to that of the parameter, and
// minigrad/optim/master.py says why.

#ifdef MG_TYPE
#if IS_REAL
#define CHUNK 1024                         // elements: four for each of 256 threads
struct Parameter {
  T *p, *state1, *state2, *state3;
  const STORED *g;
  double *step;
  int64_t size;
  STORED *rounded;
  __device__ __forceinline__ Parameter(const int64_t *table, int64_t count, int64_t k) {
    const int64_t *row = table + k * MG_OPTIM_COLUMNS;
    p = (T *)row[0], g = (const STORED *)row[1], state1 = (T *)row[2], state2 = (T *)row[3], state3 = (T *)row[4];
    step = (double *)row[5], size = row[6];
    if constexpr (sizeof(STORED) == 2) rounded = p ? (STORED *)table[count * MG_OPTIM_COLUMNS + k] : 0;
  }
  __device__ __forceinline__ T at(int64_t i) const {
    if constexpr (sizeof(STORED) == 2)
      if (const T now = rounded[i]; now != T(STORED(p[i]))) return now;
    return p[i];
  }
  __device__ __forceinline__ void set(int64_t i, T v) const {
    p[i] = v;
    if constexpr (sizeof(STORED) == 2) rounded[i] = v;
  }
};
__device__ __forceinline__ int64_t chunks_of(const int64_t *table, int64_t row, int64_t count) {
  return row < count ? (table[row * MG_OPTIM_COLUMNS + 6] + CHUNK - 1) / CHUNK : 0;
}

// v of this thread and those before it; `all`: of all threads of the block
__device__ __forceinline__ int64_t running_sum(int64_t v, int64_t &all) {
  __shared__ int64_t of_warp[MAX_THREADS / 32];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
#pragma unroll
  for (int d = 1; d < 32; d *= 2) {
    const int64_t before = __shfl_up_sync(FULL, v, d);
    if (lane >= d) v += before;
  }
  __syncthreads();                         // other threads may still read of_warp in the previous call
  if (lane == 31) of_warp[warp] = v;
  __syncthreads();
  all = 0;
  for (int w = 0; w < (int)(blockDim.x >> 5); w++) {
    if (w < warp) v += of_warp[w];
    all += of_warp[w];
  }
  return v;
}

// f(parameter, begin, end) for the elements of this block, in order; all threads of the block call it together, and
// blockDim.x is a multiple of 32.
template <class F> __device__ __forceinline__ void each_parameter(const int64_t *table, int64_t count, F f) {
  __shared__ int64_t found[2];
  int64_t all, chunks = 0, before = 0;
  for (int64_t base = 0; base < count; base += blockDim.x) {
    running_sum(chunks_of(table, base + threadIdx.x, count), all);
    chunks += all;
  }
  const int64_t share = (chunks + gridDim.x - 1) / gridDim.x, begin = blockIdx.x * share;
  int64_t left = begin + share < chunks ? share : chunks - begin;
  if (left <= 0) return;
  for (int64_t base = 0; before <= begin; base += blockDim.x) {
    const int64_t own = chunks_of(table, base + threadIdx.x, count), upto = running_sum(own, all) + before;
    if (begin < upto && begin >= upto - own) found[0] = base + threadIdx.x, found[1] = begin - (upto - own);
    before += all;
  }
  __syncthreads();
  int64_t row = found[0], chunk = found[1];
  for (; left > 0; row++, chunk = 0) {
    const int64_t own = chunks_of(table, row, count) - chunk, now = own < left ? own : left;
    if (now == 0) continue;
    const Parameter r(table, count, row);
    f(r, chunk * CHUNK, (chunk + now) * CHUNK < r.size ? (chunk + now) * CHUNK : r.size);
    left -= now;
  }
}

// load(u, i), then store(u, i), for the elements i of this thread: it loads U elements before it stores the first, so
// that their loads are in flight at once. (The compiler cannot know that the arrays do not overlap.)
#define U (TYPE_IS == 1 ? 4 : 2)
template <class Load, class Store>
__device__ __forceinline__ void each_element(int64_t begin, int64_t end, Load load, Store store) {
  for (int64_t base = begin + threadIdx.x; base < end; base += U * blockDim.x) {
#pragma unroll
    for (int u = 0; u < U; u++)
      if (const int64_t i = base + u * blockDim.x; i < end) load(u, i);
#pragma unroll
    for (int u = 0; u < U; u++)
      if (const int64_t i = base + u * blockDim.x; i < end) store(u, i);
  }
}

__device__ __forceinline__ void count_steps(const int64_t *table, int64_t count) {
  GRID_LOOP(k, count) {
    double *step = (double *)table[k * MG_OPTIM_COLUMNS + 5];
    *step += 1;
  }
}

// d = g + weight_decay p;  buf = momentum buf + (1 - dampening) d, in the first step buf = d
// p -= lr (nesterov ? d + momentum buf : buf)
KERNEL(sgd)(const int64_t *table, const double *hyper, int64_t count, int64_t nesterov, int64_t maximize) {
  const T lr = (T)hyper[0], decay = (T)hyper[1], momentum = (T)hyper[3], fresh = (T)(1 - hyper[4]);
  each_parameter(table, count, [&](const Parameter &r, int64_t begin, int64_t end) {
    const bool first = *r.step == 0;
    T g[U], p[U], b[U];
    each_element(begin, end, [&](int u, int64_t i) {
      g[u] = r.g[i], p[u] = r.at(i);
      if (r.state1 && !first) b[u] = r.state1[i];
    }, [&](int u, int64_t i) {
      T d = maximize ? -g[u] : g[u];
      if (decay != 0) d += decay * p[u];
      if (r.state1) {
        const T now = first ? d : momentum * b[u] + fresh * d;
        r.state1[i] = now;
        d = nesterov ? d + momentum * now : now;
      }
      r.set(i, p[u] - lr * d);
    });
  });
}
STEP(sgd, count)(const int64_t *table, const double *hyper, int64_t count, int64_t nesterov, int64_t maximize) {
  count_steps(table, count);
}

// m = m + (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2
// p -= lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
// The powers are doubles, and each costs a call of a routine. So a thread of the block computes each for all.
KERNEL(adam)(const int64_t *table, const double *hyper, int64_t count, int64_t amsgrad, int64_t decoupled,
             int64_t maximize) {
  __shared__ double scale, root;
  const double lr = hyper[0], beta1 = hyper[3], beta2 = hyper[4];
  const T decay = (T)hyper[1], shrink = (T)(1 - lr * hyper[1]), eps = (T)hyper[2], new1 = (T)(1 - beta1),
          old2 = (T)beta2, new2 = (T)(1 - beta2);
  each_parameter(table, count, [&](const Parameter &r, int64_t begin, int64_t end) {
    __syncthreads();                       // other threads may still read scale and root of the previous parameter
    if (threadIdx.x == 0) scale = lr / (1 - pow(beta1, *r.step + 1));
    if (threadIdx.x == blockDim.x - 1) root = sqrt(1 - pow(beta2, *r.step + 1));
    __syncthreads();
    const T by = (T)scale, over = (T)(1 / root);
    T g[U], p[U], m[U], v[U], most[U];
    each_element(begin, end, [&](int u, int64_t i) {
      g[u] = r.g[i], p[u] = r.at(i), m[u] = r.state1[i], v[u] = r.state2[i];
      if (amsgrad) most[u] = r.state3[i];
    }, [&](int u, int64_t i) {
      T d = maximize ? -g[u] : g[u], at = p[u];
      if (decoupled) at *= shrink;
      else if (decay != 0) d += decay * at;
      const T mean = m[u] + new1 * (d - m[u]);
      T square = old2 * v[u] + new2 * (d * d);
      r.state1[i] = mean, r.state2[i] = square;
      if (amsgrad) {
        square = square > most[u] || square != square ? square : most[u];
        r.state3[i] = square;
      }
      r.set(i, at - by * (mean / (sqrt(square) * over + eps)));
    });
  });
}
STEP(adam, count)(const int64_t *table, const double *hyper, int64_t count, int64_t amsgrad, int64_t decoupled,
                  int64_t maximize) {
  count_steps(table, count);
}

// s = alpha s + (1 - alpha) g^2;  d = g / (sqrt(s) + eps);  centered: s - a^2 for s, a the moving average of g
// without momentum: p -= lr d;  with it: buf = momentum buf + d;  p -= lr buf
KERNEL(rmsprop)(const int64_t *table, const double *hyper, int64_t count, int64_t centered, int64_t maximize) {
  const T lr = (T)hyper[0], decay = (T)hyper[1], eps = (T)hyper[2], alpha = (T)hyper[3], fresh = (T)(1 - hyper[3]),
          momentum = (T)hyper[4];
  each_parameter(table, count, [&](const Parameter &r, int64_t begin, int64_t end) {
    T g[U], p[U], squares[U], mean[U], b[U];
    each_element(begin, end, [&](int u, int64_t i) {
      g[u] = r.g[i], p[u] = r.at(i), squares[u] = r.state1[i];
      if (centered) mean[u] = r.state2[i];
      if (r.state3) b[u] = r.state3[i];
    }, [&](int u, int64_t i) {
      T d = maximize ? -g[u] : g[u];
      if (decay != 0) d += decay * p[u];
      const T s = alpha * squares[u] + fresh * (d * d);
      r.state1[i] = s;
      T under = s;
      if (centered) {
        const T a = mean[u] + fresh * (d - mean[u]);
        r.state2[i] = a;
        under = s - a * a;
      }
      d = d / (sqrt(under) + eps);
      if (r.state3) r.state3[i] = d = momentum * b[u] + d;
      r.set(i, p[u] - lr * d);
    });
  });
}
STEP(rmsprop, count)(const int64_t *table, const double *hyper, int64_t count, int64_t centered, int64_t maximize) {
  count_steps(table, count);
}

// s = s + g^2;  p -= lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)
KERNEL(adagrad)(const int64_t *table, const double *hyper, int64_t count, int64_t maximize) {
  const T decay = (T)hyper[1], eps = (T)hyper[2];
  each_parameter(table, count, [&](const Parameter &r, int64_t begin, int64_t end) {
    const T lr = (T)(hyper[0] / (1 + *r.step * hyper[3]));
    T g[U], p[U], squares[U];
    each_element(begin, end, [&](int u, int64_t i) {
      g[u] = r.g[i], p[u] = r.at(i), squares[u] = r.state1[i];
    }, [&](int u, int64_t i) {
      T d = maximize ? -g[u] : g[u];
      if (decay != 0) d += decay * p[u];
      const T s = squares[u] + d * d;
      r.state1[i] = s;
      r.set(i, p[u] - lr * (d / (sqrt(s) + eps)));
    });
  });
}
STEP(adagrad, count)(const int64_t *table, const double *hyper, int64_t count, int64_t maximize) {
  count_steps(table, count);
}

// The sum of squares of all gradients: each block writes a part, then one block adds the parts. The squares are added in
// double, so that a gradient which fits in a float cannot overflow.
#define NORM_BLOCKS 1024
__device__ double norm_parts[NORM_BLOCKS];   // one stream: no two launches use it at once
__device__ int norm_blocks;                  // how many of them the first launch wrote

__device__ __forceinline__ double block_sum(double v) {        // thread 0 gets it
  __shared__ double of_warp[MAX_THREADS / 32];
#pragma unroll
  for (int d = 16; d > 0; d /= 2) v += __shfl_xor_sync(FULL, v, d);
  if ((threadIdx.x & 31) == 0) of_warp[threadIdx.x >> 5] = v;
  __syncthreads();
  v = of_warp[0];
  for (int w = 1; w < (int)(blockDim.x >> 5); w++) v += of_warp[w];
  return v;
}
KERNEL(grad_norm_sq)(double *out, const int64_t *table, int64_t count) {
  double s = 0;
  each_parameter(table, count, [&](const Parameter &r, int64_t begin, int64_t end) {
#pragma unroll 4
    for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) s += (double)T(r.g[i]) * (double)T(r.g[i]);
  });
  s = block_sum(s);
  if (threadIdx.x == 0) norm_parts[blockIdx.x] = s;
  if (threadIdx.x == 0 && blockIdx.x == 0) norm_blocks = (int)gridDim.x;
}
STEP(grad_norm_sq, add)(double *out, const int64_t *table, int64_t count) {
  double s = 0;
  for (int i = threadIdx.x; i < norm_blocks; i += blockDim.x) s += norm_parts[i];
  s = block_sum(s);
  if (threadIdx.x == 0) out[0] = s;
}
KERNEL(grad_scale)(STORED *norm, const int64_t *table, const double *norm_sq, int64_t count, double max_norm,
                   double eps) {
  __shared__ double factor;
  if (threadIdx.x == 0) {
    const double total = sqrt(norm_sq[0]);
    factor = max_norm / (total + eps);
    if (blockIdx.x == 0) norm[0] = (T)total;
  }
  __syncthreads();
  if (factor >= 1) return;                 // nothing to clip: no memory access
  const T by = (T)factor;
  each_parameter(table, count, [&](const Parameter &r, int64_t begin, int64_t end) {
    STORED *to = (STORED *)r.g;
    T g[U];
    each_element(begin, end, [&](int u, int64_t i) { g[u] = to[i]; }, [&](int u, int64_t i) { to[i] = g[u] * by; });
  });
}
KERNEL(grad_clip)(const int64_t *table, int64_t count, double limit) {
  const T most = (T)limit;
  each_parameter(table, count, [&](const Parameter &r, int64_t begin, int64_t end) {
    STORED *to = (STORED *)r.g;
    T g[U];
    each_element(begin, end, [&](int u, int64_t i) { g[u] = to[i]; },
                 [&](int u, int64_t i) { to[i] = g[u] > most ? most : g[u] < -most ? -most : g[u]; });
  });
}
#endif
#endif
