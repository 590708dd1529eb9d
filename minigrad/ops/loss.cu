// Elementwise losses and their reduction: 0 none (loss [n]), 1 mean, 2 sum (loss [1]). The formulas are those of
// native/loss.c. The plain loop:
//
//   for i < n:  loss[i] = f(x[i], target[i])               or, with a reduction,  loss[0] += f(x[i], target[i])
//   for i < n:  gx[i] = g * df/dx, gtarget[i] = g * df/dtarget;   g = gloss[i], gloss[0] / n or gloss[0]
//
// With a reduction, forward takes two launches: in the first each block writes the sum of a chunk to `partial`, in the
// second one block adds the chunks. The chunks depend on n alone, so the bits are the same at each run.
#if IS_REAL

// of(i): the loss of element i. A block sums chunks of neighbours; how many chunks there are depends on n alone.
template <class F> __device__ __forceinline__ void forward(STORED *loss, T *partial, int64_t n, int64_t reduction,
                                                           F of) {
  if (reduction == 0) {
    GRID_LOOP(i, n) loss[i] = of(i);
    return;
  }
  const int64_t chunks = mg_loss_chunks(n), length = (n + chunks - 1) / chunks;
  for (int64_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
    const int64_t begin = chunk * length, end = begin + length < n ? begin + length : n;
    Sum s;
    for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) s.add(of(i));
    const T total = row_sum(s.value());
    if (threadIdx.x == 0) partial[chunk] = total;
  }
}
__device__ __forceinline__ void total(STORED *loss, const T *partial, int64_t n, int64_t reduction) {
  if (reduction == 0) return;
  Sum s;
  for (int64_t i = threadIdx.x; i < mg_loss_chunks(n); i += blockDim.x) s.add(partial[i]);
  const T all = row_sum(s.value());
  if (threadIdx.x == 0) loss[0] = reduction == 1 ? all / n : all;
}
// dx(i), dt(i): the derivatives by x and by the target
template <class X, class Y>
__device__ __forceinline__ void backward(STORED *gx, STORED *gtarget, const STORED *gloss, int64_t n, int64_t reduction,
                                         X dx, Y dt) {
  GRID_LOOP(i, n) {
    const T g = reduction == 0 ? T(gloss[i]) : reduction == 1 ? gloss[0] / n : T(gloss[0]);
    if (gx) gx[i] = g * dx(i);
    if (gtarget) gtarget[i] = g * dt(i);
  }
}
#define LOSS(name, FORWARD_ARGUMENTS, BACKWARD_ARGUMENTS, value, by_x, by_target) \
  KERNEL(name##_forward) FORWARD_ARGUMENTS { \
    forward(loss, partial, n, reduction, [=](int64_t i) -> T { return value; }); \
  } \
  STEP(name##_forward, total) FORWARD_ARGUMENTS { total(loss, partial, n, reduction); } \
  KERNEL(name##_backward) BACKWARD_ARGUMENTS { \
    backward( \
        gx, gtarget, gloss, n, reduction, [=](int64_t i) -> T { return by_x; }, \
        [=](int64_t i) -> T { return by_target; }); \
  }

__device__ __forceinline__ T square_of(T x) { return x * x; }
LOSS(mse_loss, (STORED *loss, T *partial, const STORED *x, const STORED *target, int64_t n, int64_t reduction),
     (STORED *gx, STORED *gtarget, const STORED *gloss, const STORED *x, const STORED *target, int64_t n,
      int64_t reduction),
     square_of(x[i] - target[i]), 2 * (x[i] - target[i]), -2 * (x[i] - target[i]))

__device__ __forceinline__ T sign_of(T x) { return x > 0 ? T(1) : x < 0 ? T(-1) : x; }
LOSS(l1_loss, (STORED *loss, T *partial, const STORED *x, const STORED *target, int64_t n, int64_t reduction),
     (STORED *gx, STORED *gtarget, const STORED *gloss, const STORED *x, const STORED *target, int64_t n,
      int64_t reduction),
     fabs(x[i] - target[i]), sign_of(x[i] - target[i]), -sign_of(x[i] - target[i]))

__device__ __forceinline__ T huber(T d, T delta) {
  return fabs(d) <= delta ? T(0.5) * d * d : delta * (fabs(d) - T(0.5) * delta);
}
__device__ __forceinline__ T huber_slope(T d, T delta) { return d > delta ? delta : d < -delta ? -delta : d; }
LOSS(huber_loss,
     (STORED *loss, T *partial, const STORED *x, const STORED *target, int64_t n, int64_t reduction, double delta,
      double scale),
     (STORED *gx, STORED *gtarget, const STORED *gloss, const STORED *x, const STORED *target, int64_t n,
      int64_t reduction, double delta, double scale),
     (T)scale * huber(x[i] - target[i], (T)delta), (T)scale * huber_slope(x[i] - target[i], (T)delta),
     -(T)scale * huber_slope(x[i] - target[i], (T)delta))

// -(t log x + (1 - t) log(1 - x)), each logarithm at least -100
__device__ __forceinline__ T weighed(const STORED *weight, int64_t i) { return weight ? T(weight[i]) : T(1); }
__device__ __forceinline__ T least_100(T x) { return x < -100 ? T(-100) : x; }
__device__ __forceinline__ T bce(T x, T t) { return (t - 1) * least_100(log1p(-x)) - t * least_100(log(x)); }
__device__ __forceinline__ T bce_slope(T x, T t) {
  const T under = (1 - x) * x, least = T(1e-12);
  return (x - t) / (under < least ? least : under);
}
LOSS(bce_loss, (STORED *loss, T *partial, const STORED *x, const STORED *target, const STORED *weight, int64_t n,
                int64_t reduction),
     (STORED *gx, STORED *gtarget, const STORED *gloss, const STORED *x, const STORED *target, const STORED *weight,
      int64_t n, int64_t reduction),
     weighed(weight, i) * bce(x[i], target[i]), weighed(weight, i) * bce_slope(x[i], target[i]),
     weighed(weight, i) * (least_100(log1p(-x[i])) - least_100(log(x[i]))))

// the same of sigmoid(x): (1 - t) x + (1 + (p - 1) t) log(1 + exp(-x)), p the weight of the positive targets
__device__ __forceinline__ T log1pexp(T z) { return (z < 0 ? T(0) : z) + log1p(exp(-fabs(z))); }
__device__ __forceinline__ T bce_logits(T x, T t, T p) { return (1 - t) * x + (1 + (p - 1) * t) * log1pexp(-x); }
LOSS(bce_logits_loss,
     (STORED *loss, T *partial, const STORED *x, const STORED *target, const STORED *weight, const STORED *pos_weight,
      int64_t n, int64_t reduction),
     (STORED *gx, STORED *gtarget, const STORED *gloss, const STORED *x, const STORED *target, const STORED *weight,
      const STORED *pos_weight, int64_t n, int64_t reduction),
     weighed(weight, i) * bce_logits(x[i], target[i], weighed(pos_weight, i)),
     weighed(weight, i) * ((1 - target[i]) - (1 + (weighed(pos_weight, i) - 1) * target[i]) * sigmoid(-x[i])),
     weighed(weight, i) * ((weighed(pos_weight, i) - 1) * log1pexp(-x[i]) - x[i]))
// bad[chunk] is the first position in a chunk of a value outside [low, high], or -1; a block for a chunk.
KERNEL(check_range)(int64_t *bad, const STORED *x, int64_t n, double low, double high) {
  __shared__ int64_t of_thread[MAX_THREADS];
  const int64_t length = (n + gridDim.x - 1) / gridDim.x, begin = blockIdx.x * length;
  const int64_t end = begin + length < n ? begin + length : n;
  int64_t first = n;
  for (int64_t i = begin + threadIdx.x; i < end && first == n; i += blockDim.x)
    if (!(x[i] >= T(low) && x[i] <= T(high))) first = i;
  of_thread[threadIdx.x] = first;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (unsigned i = 1; i < blockDim.x; i++) first = of_thread[i] < first ? of_thread[i] : first;
  bad[blockIdx.x] = first == n ? -1 : first;
}
#endif
