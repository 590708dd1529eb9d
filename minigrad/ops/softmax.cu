// Softmax, its logarithm, log-sum-exp and cross-entropy, along the middle axis of [outer, n, inner].
//
//   softmax:     y = exp(x - max) / sum(exp(x - max)),            gx = y * (gy - sum(gy * y))
//   log_softmax: y = x - max - log(sum(exp(x - max))),            gx = gy - exp(y) * sum(gy)
//   logsumexp:   y = max + log(sum(exp(x - max))),                gx = gy * softmax(x)
//
// The plain loop takes the lines of n elements one after the other. Here, where the elements of a line are neighbours
// (inner == 1), a warp or a block takes a line and keeps it in registers (Row, in common.cuh). Otherwise one thread
// takes a line, and neighbouring threads have neighbouring lines, so that a warp reads neighbouring elements. The
// kernels are written once, over Line<true> and Line<false>. Which of the two, and how many threads, depends on the
// shape alone.
#if IS_REAL

template <bool ROWS> struct Line;
template <> struct Line<true> : Row {
  __device__ __forceinline__ Line(const STORED *x, int64_t line, int64_t n, int64_t) : Row(x + line * n, n) {}
  static __device__ __forceinline__ int64_t first() { return (int64_t)blockIdx.x * blockDim.y + threadIdx.y; }
  static __device__ __forceinline__ int64_t step() { return (int64_t)gridDim.x * blockDim.y; }
  // of the line in memory
  static __device__ __forceinline__ int64_t start(int64_t line, int64_t n, int64_t) { return line * n; }
  static __device__ __forceinline__ bool one() { return threadIdx.x == 0; }
  static __device__ __forceinline__ T sum(T v) { return row_sum(v); }
  static __device__ __forceinline__ T max(T v) { return row_max(v); }
  __device__ __forceinline__ T at(int64_t j) const { return p[j]; }
};
template <> struct Line<false> {
  const STORED *p;
  int64_t n, inner;
  __device__ __forceinline__ Line(const STORED *x, int64_t line, int64_t length, int64_t i)
      : p(x + start(line, length, i)), n(length), inner(i) {}
  static __device__ __forceinline__ int64_t first() { return (int64_t)blockIdx.x * blockDim.x + threadIdx.x; }
  static __device__ __forceinline__ int64_t step() { return (int64_t)gridDim.x * blockDim.x; }
  static __device__ __forceinline__ int64_t start(int64_t line, int64_t n, int64_t inner) {
    const int64_t outer = (int64_t)quotient((uint64_t)line, (uint64_t)inner);
    return outer * n * inner + (line - outer * inner);
  }
  static __device__ __forceinline__ bool one() { return true; }
  static __device__ __forceinline__ T sum(T v) { return v; }
  static __device__ __forceinline__ T max(T v) { return v; }
  __device__ __forceinline__ T at(int64_t j) const { return p[j * inner]; }
  template <class F> __device__ __forceinline__ void each(F f) const {
#pragma unroll 1
    for (int64_t j = 0; j < n; j++) f(j, p[j * inner]);
  }
};
#define EACH_LINE(line, L, lines) for (int64_t line = L::first(); line < (lines); line += L::step())

template <class L> __device__ __forceinline__ T maximum(const L &x) {
  T m = -T(INFINITY);
  x.each([&](int64_t, T v) { m = Largest::of(v, m); });
  return L::max(m);
}
template <class L> __device__ __forceinline__ T sum_exp(const L &x, T m) {
  Sum s;
  x.each([&](int64_t, T v) { s.add(exp(v - m)); });
  return L::sum(s.value());
}

template <bool ROWS>
__device__ __forceinline__ void softmax(STORED *y, const STORED *x, int64_t outer, int64_t n, int64_t inner,
                                        bool logarithm) {
  typedef Line<ROWS> L;
  EACH_LINE(line, L, outer * inner) {
    const L of(x, line, n, inner);
    const T m = maximum(of), s = sum_exp(of, m);
    STORED *to = y + L::start(line, n, inner);
    if (logarithm) {
      const T l = log(s);
      of.each([&](int64_t j, T v) { to[j * inner] = (v - m) - l; });
    } else {
      of.each([&](int64_t j, T v) { to[j * inner] = exp(v - m) / s; });
    }
  }
}
KERNEL(softmax_forward)(STORED *y, const STORED *x, int64_t outer, int64_t n, int64_t inner) {
  if (inner == 1) softmax<true>(y, x, outer, n, inner, false);
  else softmax<false>(y, x, outer, n, inner, false);
}
KERNEL(log_softmax_forward)(STORED *y, const STORED *x, int64_t outer, int64_t n, int64_t inner) {
  if (inner == 1) softmax<true>(y, x, outer, n, inner, true);
  else softmax<false>(y, x, outer, n, inner, true);
}

// In half precision `y` is the input: its softmax is computed again, since what the forward gave was rounded.
template <bool ROWS>
__device__ __forceinline__ void softmax_back(STORED *gx, const STORED *gy, const STORED *y, int64_t outer, int64_t n,
                                             int64_t inner, bool logarithm) {
  typedef Line<ROWS> L;
  const bool again = sizeof(STORED) == 2;
  EACH_LINE(line, L, outer * inner) {
    const L of(y, line, n, inner);
    const STORED *g = gy + L::start(line, n, inner);
    STORED *to = gx + L::start(line, n, inner);
    const T m = again ? maximum(of) : T(0), all = again ? sum_exp(of, m) : T(1);
    const auto weight = [&](T v) -> T { return again ? exp(v - m) / all : logarithm ? exp(v) : v; };
    Sum s;
    of.each([&](int64_t j, T v) { s.add(logarithm ? T(g[j * inner]) : g[j * inner] * weight(v)); });
    const T total = L::sum(s.value());
    of.each([&](int64_t j, T v) {
      to[j * inner] = logarithm ? g[j * inner] - weight(v) * total : weight(v) * (g[j * inner] - total);
    });
  }
}
KERNEL(softmax_backward)(STORED *gx, const STORED *gy, const STORED *y, int64_t outer, int64_t n, int64_t inner) {
  if (inner == 1) softmax_back<true>(gx, gy, y, outer, n, inner, false);
  else softmax_back<false>(gx, gy, y, outer, n, inner, false);
}
KERNEL(log_softmax_backward)(STORED *gx, const STORED *gy, const STORED *y, int64_t outer, int64_t n, int64_t inner) {
  if (inner == 1) softmax_back<true>(gx, gy, y, outer, n, inner, true);
  else softmax_back<false>(gx, gy, y, outer, n, inner, true);
}

// An infinite maximum is not subtracted: a line of -inf gives -inf, one with inf gives inf.
template <bool ROWS>
__device__ __forceinline__ void log_sum_exp(STORED *y, const STORED *x, int64_t outer, int64_t n, int64_t inner) {
  typedef Line<ROWS> L;
  EACH_LINE(line, L, outer * inner) {
    const L of(x, line, n, inner);
    const T top = maximum(of), m = fabs(top) == T(INFINITY) ? T(0) : top, s = sum_exp(of, m);
    if (L::one()) y[line] = m + log(s);
  }
}
KERNEL(logsumexp_forward)(STORED *y, const STORED *x, int64_t outer, int64_t n, int64_t inner) {
  if (inner == 1) log_sum_exp<true>(y, x, outer, n, inner);
  else log_sum_exp<false>(y, x, outer, n, inner);
}

// Beside an infinite maximum nothing else counts: the elements equal to it share the gradient. NaN makes the count NaN.
template <bool ROWS>
__device__ __forceinline__ void log_sum_exp_back(STORED *gx, const STORED *gy, const STORED *x, int64_t outer,
                                                 int64_t n, int64_t inner) {
  typedef Line<ROWS> L;
  EACH_LINE(line, L, outer * inner) {
    const L of(x, line, n, inner);
    const T m = maximum(of);
    const bool infinite = fabs(m) == T(INFINITY);
    const auto weight = [&](T v) -> T { return !infinite || v != v ? exp(v - m) : T(v == m); };
    Sum s;
    of.each([&](int64_t, T v) { s.add(weight(v)); });
    const T factor = gy[line] / L::sum(s.value());
    STORED *to = gx + L::start(line, n, inner);
    of.each([&](int64_t j, T v) { to[j * inner] = weight(v) * factor; });
  }
}
KERNEL(logsumexp_backward)(STORED *gx, const STORED *gy, const STORED *x, int64_t outer, int64_t n, int64_t inner) {
  if (inner == 1) log_sum_exp_back<true>(gx, gy, x, outer, n, inner);
  else log_sum_exp_back<false>(gx, gy, x, outer, n, inner);
}

// ---- cross-entropy: -sum over c of q_c w_c log softmax(x)_c, with q = (1 - e) [c == target] + e / classes ----
//
// The first launch writes the loss of each position and its two statistics. A second one, of one block, writes the
// reduced loss and the divisor of the mean; `items` is null where half precision is not reduced: then the losses of all
// positions go to `loss`. The probabilities are never stored. A target out of range reads
// nothing and makes its loss (and so the mean) NaN; the error comes later (devices/flags.py).
__device__ __forceinline__ bool valid(int64_t target, int64_t classes) { return target >= 0 && target < classes; }
__device__ __forceinline__ T weight_of(const STORED *weight, int64_t c) { return weight ? T(weight[c]) : T(1); }

template <bool ROWS>
__device__ __forceinline__ void cross_entropy(STORED *own, T *items, T *stats, const STORED *logits,
                                              const int64_t *target, const STORED *weight, int64_t outer,
                                              int64_t classes, int64_t inner, int64_t ignore_index, T smoothing) {
  typedef Line<ROWS> L;
  const int64_t lines = outer * inner;
  EACH_LINE(line, L, lines) {
    const L of(logits, line, classes, inner);
    const T m = maximum(of), l = log(sum_exp(of, m));
    T smooth = 0;
    if (smoothing != 0) {
      Sum s;
      of.each([&](int64_t c, T v) { s.add(weight_of(weight, c) * ((v - m) - l)); });
      smooth = L::sum(s.value());
    }
    if (!L::one()) continue;
    const int64_t t = target[line];
    T loss = T(NAN);
    if (t == ignore_index) loss = 0;
    else if (valid(t, classes)) {
      loss = -weight_of(weight, t) * ((of.at(t) - m) - l) * (1 - smoothing);
      if (smoothing != 0) loss -= smooth * (smoothing / classes);
    }
    if (items) items[line] = loss;
    else own[line] = loss;
    stats[line] = m, stats[lines + line] = l;
  }
}
KERNEL(cross_entropy_forward)(STORED *loss, T *wsum, T *items, T *stats, const STORED *logits, const int64_t *target,
                              const STORED *weight, int64_t outer, int64_t classes, int64_t inner, int64_t ignore_index,
                              int64_t reduction, double label_smoothing) {
  if (inner == 1)
    cross_entropy<true>(loss, items, stats, logits, target, weight, outer, classes, inner, ignore_index,
                        (T)label_smoothing);
  else
    cross_entropy<false>(loss, items, stats, logits, target, weight, outer, classes, inner, ignore_index,
                         (T)label_smoothing);
}
STEP(cross_entropy_forward, reduce)(STORED *loss, T *wsum, T *items, T *stats, const STORED *logits,
                                    const int64_t *target, const STORED *weight, int64_t outer, int64_t classes,
                                    int64_t inner, int64_t ignore_index, int64_t reduction, double label_smoothing) {
  const int64_t lines = outer * inner;
  Sum of_loss, of_weight;
  for (int64_t line = threadIdx.x; line < lines; line += blockDim.x) {
    const int64_t t = target[line];
    of_loss.add(items[line]);
    if (t != ignore_index && valid(t, classes)) of_weight.add(weight_of(weight, t));
  }
  const T s = row_sum(of_loss.value()), w = row_sum(of_weight.value());
  if (threadIdx.x != 0) return;
  *loss = reduction == 1 ? s / w : s;
  *wsum = w;
}
KERNEL(cross_entropy_backward)(STORED *gx, const STORED *gloss, const T *wsum, const T *stats, const STORED *logits,
                               const int64_t *target, const STORED *weight, int64_t outer, int64_t classes,
                               int64_t inner, int64_t ignore_index, int64_t reduction, double label_smoothing) {
  const int64_t total = outer * classes * inner, lines = outer * inner;
  const T e = (T)label_smoothing;
  T all = classes;                         // the sum of all class weights, which smoothing needs
  if (e != 0 && weight) {
    Sum s;
    for (int64_t c = threadIdx.x; c < classes; c += blockDim.x) s.add(weight[c]);
    all = row_sum(s.value());
  }
  GRID_LOOP(i, total) {
    const int64_t o = (int64_t)quotient((uint64_t)i, (uint64_t)(classes * inner)), r = i - o * classes * inner;
    const int64_t c = inner == 1 ? r : (int64_t)quotient((uint64_t)r, (uint64_t)inner),
                  line = o * inner + (r - c * inner);
    const int64_t t = target[line];
    const bool ok = valid(t, classes);
    T g = 0;
    if (t != ignore_index) {
      const T p = exp((logits[i] - stats[line]) - stats[lines + line]), w = ok ? weight_of(weight, t) : T(NAN);
      g = (1 - e) * w * (p - (c == t ? T(1) : T(0)));
      if (e != 0) g += e / classes * (all * p - weight_of(weight, c));
      g *= reduction == 0 ? T(gloss[line]) : reduction == 1 ? gloss[0] / wsum[0] : T(gloss[0]);
    }
    gx[i] = g;
  }
}
#endif
