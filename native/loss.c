/* types: f32 f64 */
/* Elementwise losses of x and target, n contiguous elements each, with the reduction in the same pass. The plain loops:
 *
 *   for (i < n)  loss[i] = f(x[i], target[i])                  reduction 0: all of them; 1: their sum / n; 2: their sum
 *   for (i < n)  gx[i] = g * df/dx,  gtarget[i] = g * df/dtarget      g = gloss[i], gloss / n, gloss
 *
 * gx or gtarget may be null. The fast ones do the same on vectors. A training step reads x and target once in the
 * forward and once in the backward, and there is no array of losses.
 *
 * The sum: mg_loss_chunks(n) chunks, none but the last below 16384 elements. Within a chunk, blocks of BLOCK_ELEMENTS
 * elements are summed in four chains of vectors, and the blocks are added in double; then the chunks are added in
 * order. All this depends on n alone.
 */
#include "loops.h"

#if IS_REAL

typedef enum { MSE, L1, HUBER, BCE, BCE_LOGITS } what;

typedef struct {
  T *loss, *partial;           /* forward; partial null: no reduction */
  T *gx, *gtarget;             /* backward */
  const T *gloss, *x, *target, *weight, *pos_weight;
  int64_t n, chunk, reduction;
  double delta, scale;
} loss_args;

/* log(1 + exp(x)) = -log(sigmoid(-x)), without overflow */
INLINE V softplus_(V x) { return vlog1p(vexp(-vabs(x))) + vmax(x, vzero()); }
INLINE V log_or_100(V log) { return vmax(log, vset(-100)); }

/* f at vector i of k elements */
TEMPLATE V entropy(const loss_args *a, int64_t i, const int k, const what of) {
  const V x = load_n(a->x + i, k), t = load_n(a->target + i, k);
  V loss;
  if (of == BCE) loss = (t - 1) * log_or_100(vlog1p(-x)) - t * log_or_100(vlog(x));
  else {
    const V positive = a->pos_weight ? 1 + (load_n(a->pos_weight + i, k) - 1) * t : vset(1);
    loss = (1 - t) * x + positive * softplus_(-x);
  }
  return a->weight ? loss * load_n(a->weight + i, k) : loss;
}
INLINE V value(const loss_args *a, int64_t i, const int k, const what of) {
  if (of >= BCE) return entropy(a, i, k, of);
  const V x = load_n(a->x + i, k), t = load_n(a->target + i, k), d = x - t;
  if (of == MSE) return d * d;
  if (of == L1) return vabs(d);
  const T delta = (T)a->delta;
  const V square = vset((T)(0.5 * a->scale)) * d * d;
  return vselect((VM)(vabs(d) < vset(delta)), square,
                 vset((T)(a->scale * a->delta)) * (vabs(d) - vset((T)0.5 * delta)));
}

/* df/dx and df/dtarget, times g */
TEMPLATE V entropy_slope(const loss_args *a, int64_t i, const int k, V g, const what of, const int by_target) {
  const V x = load_n(a->x + i, k), t = load_n(a->target + i, k);
  if (a->weight) g = g * load_n(a->weight + i, k);
  if (of == BCE) {
    if (by_target) return g * (log_or_100(vlog1p(-x)) - log_or_100(vlog(x)));
    return g * (x - t) / vmax((1 - x) * x, vset(F(1e-12)));
  }
  if (by_target) return g * (a->pos_weight ? load_n(a->pos_weight + i, k) * softplus_(-x) - softplus_(x) : -x);
  if (!a->pos_weight) return g * (vsigmoid(x) - t);
  const V pt = load_n(a->pos_weight + i, k) * t;
  return g * ((pt + 1 - t) * vsigmoid(x) - pt);
}
INLINE V slope(const loss_args *a, int64_t i, const int k, V g, const what of, const int by_target) {
  if (of >= BCE) return entropy_slope(a, i, k, g, of, by_target);
  const V x = load_n(a->x + i, k), t = load_n(a->target + i, k), d = x - t;
  if (of == MSE) return by_target ? g * -2 * d : g * 2 * d;
  V s;
  if (of == L1) s = vselect((VM)(d > 0), vset(1), vselect((VM)(d < 0), vset(-1), d));
  else {
    const V delta = vset((T)a->delta);
    s = vset((T)a->scale) * vmin(vmax(d, -delta), delta);
  }
  return by_target ? -g * s : g * s;
}

/* The sum of a block. Logarithms take so long that they are not written out for each chain. */
INLINE double block_sum(const loss_args *a, int64_t b, int64_t n, const what of) {
  V s[4] = {vzero(), vzero(), vzero(), vzero()};
  if (of >= BCE) EACH_VECTOR_4_LONG(i, u, k, n, s[u] += keep(value(a, b + i, k, of), k););
  else EACH_VECTOR_4(i, u, k, n, s[u] += keep(value(a, b + i, k, of), k););
  return vsum((s[0] + s[1]) + (s[2] + s[3]));
}

INLINE void forward(const loss_args *a, int64_t begin, int64_t end, const what of) {
  if (!a->partial) {
    EACH_VECTOR(i, k, end - begin, store_n(a->loss + begin + i, value(a, begin + i, k, of), k););
    return;
  }
  for (int64_t c = begin; c < end; c++) {
    const int64_t first = c * a->chunk, last = MIN(first + a->chunk, a->n);
    double sum = 0;
    for (int64_t b = first; b < last; b += BLOCK_ELEMENTS)
      sum += block_sum(a, b, MIN(BLOCK_ELEMENTS, last - b), of);
    a->partial[c] = (T)sum;
  }
}

INLINE void backward(const loss_args *a, int64_t begin, int64_t end, const what of) {
  const V all = a->reduction == 0 ? vzero() : vset(a->reduction == 1 ? (T)(*a->gloss / (double)a->n) : *a->gloss);
  EACH_VECTOR(j, k, end - begin,
    const int64_t i = begin + j;
    const V g = a->reduction == 0 ? load_n(a->gloss + i, k) : all;
    if (a->gx) store_n(a->gx + i, slope(a, i, k, g, of, 0), k);
    if (a->gtarget) store_n(a->gtarget + i, slope(a, i, k, g, of, 1), k););
}

#define PIECES(name, of) \
  static void name##_forward_(void *a, int64_t begin, int64_t end) { forward(a, begin, end, of); } \
  static void name##_backward_(void *a, int64_t begin, int64_t end) { backward(a, begin, end, of); }
PIECES(mse, MSE)
PIECES(l1, L1)
PIECES(huber, HUBER)
PIECES(bce, BCE)
PIECES(bce_logits, BCE_LOGITS)

/* cost: the time of an element, in units of a loss that only loads and adds */
static void run_forward(void (*piece)(void *, int64_t, int64_t), loss_args *a, T *loss, T *partial, int64_t reduction,
                        int64_t cost) {
  const int64_t n = a->n, chunks = mg_loss_chunks(n), chunk = chunks < 256 ? 16384 : ((n + 255) / 256 + 63) / 64 * 64;
  a->loss = loss;
  a->partial = reduction ? partial : 0;
  a->chunk = chunk;
  if (!reduction) {
    mg_parallel(n, (grain(n, cost) + 63) / 64 * 64, piece, a);
    return;
  }
  mg_parallel(chunks, grain(chunks, chunk * cost), piece, a);
  double sum = 0;
  for (int64_t c = 0; c < chunks; c++) sum += partial[c];
  *loss = (T)(reduction == 1 ? sum / (double)n : sum);
}

static void run_backward(void (*piece)(void *, int64_t, int64_t), loss_args *a, int64_t cost) {
  mg_parallel(a->n, (grain(a->n, cost) + 63) / 64 * 64, piece, a);
}

/* mse: (x - t)^2 */
void FN(mse_loss_forward)(T *loss, T *partial, const T *x, const T *target, int64_t n, int64_t reduction) {
  loss_args a = {.x = x, .target = target, .n = n};
  run_forward(mse_forward_, &a, loss, partial, reduction, 1);
}
void FN(mse_loss_backward)(T *gx, T *gtarget, const T *gloss, const T *x, const T *target, int64_t n,
                           int64_t reduction) {
  loss_args a = {
      .gx = gx, .gtarget = gtarget, .gloss = gloss, .x = x, .target = target, .n = n, .reduction = reduction};
  run_backward(mse_backward_, &a, 1);
}

/* l1: |x - t|, slope 0 where they are equal */
void FN(l1_loss_forward)(T *loss, T *partial, const T *x, const T *target, int64_t n, int64_t reduction) {
  loss_args a = {.x = x, .target = target, .n = n};
  run_forward(l1_forward_, &a, loss, partial, reduction, 1);
}
void FN(l1_loss_backward)(T *gx, T *gtarget, const T *gloss, const T *x, const T *target, int64_t n,
                          int64_t reduction) {
  loss_args a = {
      .gx = gx, .gtarget = gtarget, .gloss = gloss, .x = x, .target = target, .n = n, .reduction = reduction};
  run_backward(l1_backward_, &a, 1);
}

/* huber, d = x - t: scale * (d^2 / 2 where |d| < delta, else delta * (|d| - delta / 2)) */
void FN(huber_loss_forward)(T *loss, T *partial, const T *x, const T *target, int64_t n, int64_t reduction,
                            double delta, double scale) {
  loss_args a = {.x = x, .target = target, .n = n, .delta = delta, .scale = scale};
  run_forward(huber_forward_, &a, loss, partial, reduction, 1);
}
void FN(huber_loss_backward)(T *gx, T *gtarget, const T *gloss, const T *x, const T *target, int64_t n,
                             int64_t reduction, double delta, double scale) {
  loss_args a = {.gx = gx,
                 .gtarget = gtarget,
                 .gloss = gloss,
                 .x = x,
                 .target = target,
                 .n = n,
                 .reduction = reduction,
                 .delta = delta,
                 .scale = scale};
  run_backward(huber_backward_, &a, 1);
}

/* binary cross entropy: -weight * (t * log(x) + (1 - t) * log(1 - x)), logarithms cut off at -100 as in PyTorch */
void FN(bce_loss_forward)(T *loss, T *partial, const T *x, const T *target, const T *weight, int64_t n,
                          int64_t reduction) {
  loss_args a = {.x = x, .target = target, .weight = weight, .n = n};
  run_forward(bce_forward_, &a, loss, partial, reduction, 4);
}
void FN(bce_loss_backward)(T *gx, T *gtarget, const T *gloss, const T *x, const T *target, const T *weight, int64_t n,
                           int64_t reduction) {
  loss_args a = {.gx = gx,
                 .gtarget = gtarget,
                 .gloss = gloss,
                 .x = x,
                 .target = target,
                 .weight = weight,
                 .n = n,
                 .reduction = reduction};
  run_backward(bce_backward_, &a, 4);
}

/* the same of sigmoid(x): weight * ((1 - t) * x + (1 + (pos_weight - 1) * t) * log(1 + exp(-x))) */
void FN(bce_logits_loss_forward)(T *loss, T *partial, const T *x, const T *target, const T *weight, const T *pos_weight,
                                 int64_t n, int64_t reduction) {
  loss_args a = {.x = x, .target = target, .weight = weight, .pos_weight = pos_weight, .n = n};
  run_forward(bce_logits_forward_, &a, loss, partial, reduction, 4);
}
void FN(bce_logits_loss_backward)(T *gx, T *gtarget, const T *gloss, const T *x, const T *target, const T *weight,
                                  const T *pos_weight, int64_t n, int64_t reduction) {
  loss_args a = {.gx = gx,
                 .gtarget = gtarget,
                 .gloss = gloss,
                 .x = x,
                 .target = target,
                 .weight = weight,
                 .pos_weight = pos_weight,
                 .n = n,
                 .reduction = reduction};
  run_backward(bce_logits_backward_, &a, 4);
}

/* A stretch is searched only if it holds a bad value. */
void FN(check_range)(int64_t *bad, const T *x, int64_t n, double low, double high) {
  const V least = vset((T)low), most = vset((T)high);
  int64_t j = 0;
  for (; j + 16 * VL <= n; j += 16 * VL) {
    VM good = ~(VM){0};
    for (int u = 0; u < 16; u++) {
      const V v = vload(x + j + u * VL);
      good &= (v >= least) & (v <= most);
    }
    if (vany(~good)) break;
  }
  while (j < n && x[j] >= (T)low && x[j] <= (T)high) j++;
  bad[0] = j < n ? j : -1;
}

#endif
