// Optimisers and gradient clipping: one launch for all parameters. `table` (in device memory) has a row of
// MG_OPTIM_COLUMNS int64 for each parameter; `hyper` holds the numbers that may change from step to step. Both are
// described in native/minigrad.h. The plain loop:
//
//   for each parameter:  for each element:  state, p = formula(g, state, p);      then step += 1
//
// blockIdx.y goes over parameters, blockIdx.x over the elements of a parameter: so many small parameters cost no more
// launches than a large one. All blocks of a parameter read its step count, so the same launch cannot advance it: a
// second launch does, with a thread for each parameter.

#ifdef MG_TYPE
#if IS_REAL
struct Parameter {
  T *p, *state1, *state2, *state3;
  const T *g;
  double *step;
  int64_t size;
  __device__ __forceinline__ Parameter(const int64_t *row)
      : p((T *)row[0]), state1((T *)row[2]), state2((T *)row[3]), state3((T *)row[4]), g((const T *)row[1]),
        step((double *)row[5]), size(row[6]) {}
};
#define EACH_PARAMETER(row, table, count) \
  for (int64_t k_ = blockIdx.y; k_ < (count); k_ += gridDim.y) \
    if (const Parameter row(table + k_ * MG_OPTIM_COLUMNS); true)

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
  EACH_PARAMETER(r, table, count) {
    const bool first = *r.step == 0;
    GRID_LOOP(i, r.size) {
      T d = maximize ? -r.g[i] : r.g[i];
      if (decay != 0) d += decay * r.p[i];
      if (r.state1) {
        const T b = first ? d : momentum * r.state1[i] + fresh * d;
        r.state1[i] = b;
        d = nesterov ? d + momentum * b : b;
      }
      r.p[i] -= lr * d;
    }
  }
}
STEP(sgd, count)(const int64_t *table, const double *hyper, int64_t count, int64_t nesterov, int64_t maximize) {
  count_steps(table, count);
}

// m = m + (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2
// p -= lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
// The powers are doubles, and each costs a call of a routine. So one thread of a block computes them for all.
KERNEL(adam)(const int64_t *table, const double *hyper, int64_t count, int64_t amsgrad, int64_t decoupled,
             int64_t maximize) {
  __shared__ double scale, root;
  const double lr = hyper[0], beta1 = hyper[3], beta2 = hyper[4];
  const T decay = (T)hyper[1], shrink = (T)(1 - lr * hyper[1]), eps = (T)hyper[2], new1 = (T)(1 - beta1),
          old2 = (T)beta2, new2 = (T)(1 - beta2);
  EACH_PARAMETER(r, table, count) {
    __syncthreads();                       // other threads may still read scale and root of the previous parameter
    if (threadIdx.x == 0) {
      const double t = *r.step + 1;
      scale = lr / (1 - pow(beta1, t));
      root = sqrt(1 - pow(beta2, t));
    }
    __syncthreads();
    const T by = (T)scale, over = (T)(1 / root);
    GRID_LOOP(i, r.size) {
      T g = maximize ? -r.g[i] : r.g[i], p = r.p[i];
      if (decoupled) p *= shrink;
      else if (decay != 0) g += decay * p;
      const T m = r.state1[i] + new1 * (g - r.state1[i]);
      T v = old2 * r.state2[i] + new2 * (g * g);
      r.state1[i] = m, r.state2[i] = v;
      if (amsgrad) {
        const T most = r.state3[i];
        v = v > most || v != v ? v : most;
        r.state3[i] = v;
      }
      r.p[i] = p - by * (m / (sqrt(v) * over + eps));
    }
  }
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
  EACH_PARAMETER(r, table, count)
    GRID_LOOP(i, r.size) {
      T g = maximize ? -r.g[i] : r.g[i];
      if (decay != 0) g += decay * r.p[i];
      const T s = alpha * r.state1[i] + fresh * (g * g);
      r.state1[i] = s;
      T under = s;
      if (centered) {
        const T a = r.state2[i] + fresh * (g - r.state2[i]);
        r.state2[i] = a;
        under = s - a * a;
      }
      T d = g / (sqrt(under) + eps);
      if (r.state3) r.state3[i] = d = momentum * r.state3[i] + d;
      r.p[i] -= lr * d;
    }
}
STEP(rmsprop, count)(const int64_t *table, const double *hyper, int64_t count, int64_t centered, int64_t maximize) {
  count_steps(table, count);
}

// s = s + g^2;  p -= lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)
KERNEL(adagrad)(const int64_t *table, const double *hyper, int64_t count, int64_t maximize) {
  const T decay = (T)hyper[1], eps = (T)hyper[2];
  EACH_PARAMETER(r, table, count) {
    const T lr = (T)(hyper[0] / (1 + *r.step * hyper[3]));
    GRID_LOOP(i, r.size) {
      T g = maximize ? -r.g[i] : r.g[i];
      if (decay != 0) g += decay * r.p[i];
      const T s = r.state1[i] + g * g;
      r.state1[i] = s;
      r.p[i] -= lr * (g / (sqrt(s) + eps));
    }
  }
}
STEP(adagrad, count)(const int64_t *table, const double *hyper, int64_t count, int64_t maximize) {
  count_steps(table, count);
}

// The sum of squares of all gradients: each block writes a part, then one thread adds the parts, in order. The squares
// are added in double, so that a gradient which fits in a float cannot overflow.
#define NORM_BLOCKS 128
__device__ double norm_parts[NORM_BLOCKS];   // one stream: no two launches use it at once

KERNEL(grad_norm_sq)(double *out, const int64_t *table, int64_t count) {
  __shared__ double of_thread[MAX_THREADS];
  double s = 0;
  for (int64_t k = 0; k < count; k++) {
    const Parameter r(table + k * MG_OPTIM_COLUMNS);
    GRID_LOOP(i, r.size) s += (double)r.g[i] * (double)r.g[i];
  }
  of_thread[threadIdx.x] = s;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (unsigned i = 1; i < blockDim.x; i++) s += of_thread[i];
  norm_parts[blockIdx.x] = s;
}
STEP(grad_norm_sq, add)(double *out, const int64_t *table, int64_t count) {
  double s = 0;
  for (int i = 0; i < NORM_BLOCKS; i++) s += norm_parts[i];
  out[0] = s;
}
KERNEL(grad_scale)(const int64_t *table, const double *factor, int64_t count) {
  const T by = (T)factor[0];
  EACH_PARAMETER(r, table, count) {
    T *g = (T *)r.g;
    GRID_LOOP(i, r.size) g[i] *= by;
  }
}
KERNEL(grad_clip)(const int64_t *table, int64_t count, double limit) {
  const T most = (T)limit;
  EACH_PARAMETER(r, table, count) {
    T *g = (T *)r.g;
    GRID_LOOP(i, r.size) g[i] = g[i] > most ? most : g[i] < -most ? -most : g[i];
  }
}
#endif
#else
KERNEL(clip_factor)(double *factor, const double *norm_sq, double max_norm, double eps) {
  const double f = max_norm / (sqrt(norm_sq[0]) + eps);
  factor[0] = f > 1 ? 1 : f;               // NaN stays NaN
}
#endif
