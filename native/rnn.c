/* types: f32 f64 */
/* Recurrence over a sequence: the RNN with tanh or relu, LSTM and GRU, plain or normalised. A call computes one layer
 * in one direction. Python does the rest: several layers, both directions, dropout between layers.
 *
 *   x [steps, batch, inputs]    y [steps, batch, outputs]    h0 [batch, outputs], c0 [batch, hidden], or null (zeros)
 *   w_ih [n, inputs], w_hh [n, outputs], n = gates * hidden; gates: LSTM i f g o, GRU r z n, RNN one
 *   w_hr [outputs, hidden] or null (then outputs == hidden)
 *
 * The plain loop. N normalises a row (norm 0: not at all, 1: layer norm, Ba et al. 2016, 2: RMS norm); each N has a
 * weight of its own. `bias` is the sum of all biases. If `reverse`, the steps run from the last to the first.
 *
 *   for each step t, for each row b of the batch with t < lengths[b] (else: y = 0, h and c stay):
 *     p = N(w_ih x[t, b]) + N(w_hh (h * mask)) + bias
 *     RNN:  h = tanh(p) or relu(p)
 *     LSTM: c = sigmoid(p_f) c + sigmoid(p_i) tanh(p_g);   h = w_hr (sigmoid(p_o) tanh(N(c)))
 *     GRU:  p = N(w_ih x[t, b]) + bias;   q = N(w_hh (h * mask)) + another bias
 *           r, z = sigmoid(p_rz + q_rz);   v = tanh(p_n + r q_n);   h = (1 - z) v + z h
 *     y[t, b] = h
 *
 * The fast one takes several steps together (mg_rnn_steps: 128 or 256 rows, so that the results of one part of the
 * work are still in the second-level cache when the next part reads them). Their products with x do not depend on each
 * other and form one large product. What remains is w_hh h, step by step. The rows of the batch are independent, so
 * blocks of about 16 rows go through these steps separately, without a barrier between steps. Their states and
 * pre-activations stay in the first-level cache; w_hh, packed once in the order in which the register tile reads it,
 * streams from the second. One pass over a block computes its gates, state and output. Only a normalised row must be
 * complete before its first gate; the row kernels of norm.c do that part, on rows that are in the cache anyway.
 *
 * Backward: the same blocks go from the last step to the first. They turn the gradient of h into the gradient of the
 * pre-activations, and that, with w_hh packed the other way, into the gradient of the h before. On the way each block
 * adds up its part of the gradients of the biases and of the norms' weights. The gradients of the weight matrices and
 * of x are again one large product for the steps taken together.
 *
 * Same bits: the values of a row depend on its own inputs, the weights and the shapes only. Sums over rows and steps
 * run in the order of the steps in each block, then of the blocks.
 */
#include "gemm.h"
#include "loops.h"
#include "norm.h"

#if IS_REAL

enum { TANH, RELU, LSTM, GRU };          /* kind */
enum { LAYER = 1 };                      /* norm */

typedef struct {
  int64_t steps, batch, inputs, hidden, outputs, n, kind, norm, reverse;
  double eps;
  const int64_t *lengths;
  const T *mask, *nw_ih, *nw_hh, *nw_c, *nb_c, *c0;
  /* forward */
  T *y, *hn, *cn, *gates, *cells, *tanhc, *inner, *projected, *hin;
  const T *bias;
  /* backward: dh and dc are carried from step to step; dx and dr are the gradients of w_ih x and w_hh h from step
   * `from` on; sums are those of the blocks */
  T *dh, *dc, *dx, *dr, *dhs, *sums;
  const T *gy, *h0;
  /* both */
  T *p;                                  /* w_ih x from step `from` on */
  T *raw_x, *raw_h;
  T *stats;                              /* 6 times [steps, batch]: mean and rstd of w_ih x, of w_hh h, of c */
  const T *packed_hh, *packed_hr;
  int64_t from, to;                      /* the steps taken together: from <= t < to */
} Job;

INLINE int live(const Job *x, int64_t t, int64_t row) { return !x->lengths || t < x->lengths[row]; }
/* Is t the first step of this row, in the order of the walk? Then the states before it are h0 and c0. */
INLINE int starts(const Job *x, int64_t t, int64_t row) {
  return x->reverse ? t == x->steps - 1 || !live(x, t + 1, row) : t == 0;
}
INLINE T *statistic(const Job *x, int which, int64_t at) { return x->stats + which * x->steps * x->batch + at; }

/* ---- the product of a block with packed weights ---- */

/* strips of b[k, n], element (p, j) at from[p * along + j * across]; the last is filled up with 0 */
static void pack(T *to, const T *from, int64_t k, int64_t n, int64_t across, int64_t along) {
  for (int64_t j = 0; j < n; j += GEMM_STRIP)
    FN(gemm_pack)(to + j * k, GEMM_STRIP, n - j, k, from + j * across, across, along);
}

/* c[rows, n] = (add ? c : 0) + a[rows, k] b, rows of a and c adjacent */
static void product(T *c, const T *a, const T *packed, int64_t rows, int64_t n, int64_t k, int add) {
  const int64_t tiles = (rows - 1) / GEMM_ROWS + 1;
  for (int64_t j = 0; j < n; j += GEMM_STRIP) {
    const int vectors = n - j > VL ? 2 : 1, tail = (int)MIN(n - j - (vectors - 1) * VL, VL);
    for (int64_t p = 0; p < k; p += GEMM_STEPS)
      for (int64_t t = 0; t < tiles; t++) {
        const int64_t i = rows * t / tiles, height = rows * (t + 1) / tiles - i;
        FN(gemm_tile)((int)height, vectors, MIN(k - p, GEMM_STEPS), a + i * k + p, k, 1,
                      packed + j * k + p * GEMM_STRIP, GEMM_STRIP, c + i * n + j, n, tail, add || p > 0, 0);
      }
  }
}

/* ---- the row norms of norm.c ---- */

static void normalize(const Job *x, T *y, int which, int64_t at, const T *in, const T *weight, const T *bias,
                      int64_t rows, int64_t n) {
  if (x->norm == LAYER)
    FN(layer_norm_forward)(y, statistic(x, which, at), statistic(x, which + 1, at), in, weight, bias, rows, n, x->eps);
  else FN(rms_norm_forward)(y, statistic(x, which + 1, at), in, weight, rows, n, x->eps);
}
NOINLINE void normalize_back(const Job *x, T *gin, T *sums, const T *gy, int which, int64_t at, const T *in,
                          const T *weight, int64_t rows, int64_t n) {
  FN(norm_rows_backward)(gin, sums, gy, in, statistic(x, which, at), statistic(x, which + 1, at), weight, rows, n,
                         x->norm == LAYER);
}

/* ---- forward: gates of one row ---- */

/* EACH_VECTOR with one copy of the body: a test at each load costs little beside so many exponentials. */
#define EACH_VECTOR_ONCE(j, k, n, ...) do { \
    for (int64_t j = 0; j < (n); j += VL) { const int k = (int)MIN((n) - j, VL); __VA_ARGS__ } \
  } while (0)

/* A row past its length: its outputs are 0, its states stay. */
NOINLINE void rest(const Job *x, int64_t at) {
  const int64_t H = x->hidden;
  memset(x->y + at * x->outputs, 0, (size_t)x->outputs * sizeof(T));
  if (x->gates) memset(x->gates + at * x->n, 0, (size_t)x->n * sizeof(T));
  if (x->kind == LSTM) {
    memset(x->cells + at * H, 0, (size_t)H * sizeof(T));
    memset(x->tanhc + at * H, 0, (size_t)H * sizeof(T));
    if (x->projected) memset(x->projected + at * H, 0, (size_t)H * sizeof(T));
  } else if (x->kind == GRU) {
    memset(x->inner + at * H, 0, (size_t)H * sizeof(T));
  }
}

/* Stores h of a row of an LSTM: as input of w_hr, or as output and state. */
INLINE void emit(const Job *x, int64_t at, int64_t row, int64_t j, V m, const int k) {
  if (x->projected) {
    store_n(x->projected + at * x->hidden + j, m, k);
  } else {
    store_n(x->y + at * x->hidden + j, m, k);
    store_n(x->hn + row * x->hidden + j, m, k);
  }
}

/* p, q: w_ih x and w_hh h of the row, normalised */
static void lstm_row(const Job *x, int64_t at, int64_t row, const T *p, const T *q) {
  const int64_t H = x->hidden;
  T *a = x->gates + at * x->n, *c = x->cn + row * H, *cells = x->cells + at * H, *tanhc = x->tanhc + at * H;
  const T *b = x->bias;
  EACH_VECTOR_ONCE(j, k, H,
    const V i = vsigmoid(load_n(p + j, k) + load_n(q + j, k) + load_n(b + j, k));
    const V f = vsigmoid(load_n(p + H + j, k) + load_n(q + H + j, k) + load_n(b + H + j, k));
    const V g = vtanh(load_n(p + 2 * H + j, k) + load_n(q + 2 * H + j, k) + load_n(b + 2 * H + j, k));
    const V o = vsigmoid(load_n(p + 3 * H + j, k) + load_n(q + 3 * H + j, k) + load_n(b + 3 * H + j, k));
    const V now = vfma(f, load_n(c + j, k), i * g);
    store_n(a + j, i, k);
    store_n(a + H + j, f, k);
    store_n(a + 2 * H + j, g, k);
    store_n(a + 3 * H + j, o, k);
    store_n(c + j, now, k);
    store_n(cells + j, now, k);
    if (!x->norm) {
      const V tanhed = vtanh(now);
      store_n(tanhc + j, tanhed, k);
      emit(x, at, row, j, o * tanhed, k);
    });
}

/* The end of a normalised LSTM's row: c was normalised into `normal`. */
static void lstm_row_end(const Job *x, int64_t at, int64_t row, const T *normal) {
  const int64_t H = x->hidden;
  const T *o = x->gates + at * x->n + 3 * H;
  EACH_VECTOR_ONCE(j, k, H,
    const V tanhed = vtanh(load_n(normal + j, k));
    store_n(x->tanhc + at * H + j, tanhed, k);
    emit(x, at, row, j, load_n(o + j, k) * tanhed, k););
}

static void gru_row(const Job *x, int64_t at, int64_t row, const T *p, const T *q) {
  const int64_t H = x->hidden;
  T *a = x->gates + at * x->n, *h = x->hn + row * H, *inner = x->inner + at * H, *y = x->y + at * H;
  const T *b = x->bias;
  EACH_VECTOR_ONCE(j, k, H,
    const V r = vsigmoid(load_n(p + j, k) + load_n(q + j, k) + load_n(b + j, k));
    const V z = vsigmoid(load_n(p + H + j, k) + load_n(q + H + j, k) + load_n(b + H + j, k));
    const V qn = load_n(q + 2 * H + j, k) + load_n(b + 3 * H + j, k);
    const V v = vtanh(vfma(r, qn, load_n(p + 2 * H + j, k) + load_n(b + 2 * H + j, k)));
    const V now = vfma(z, load_n(h + j, k) - v, v);
    store_n(a + j, r, k);
    store_n(a + H + j, z, k);
    store_n(a + 2 * H + j, v, k);
    store_n(inner + j, qn, k);
    store_n(h + j, now, k);
    store_n(y + j, now, k););
}

static void rnn_row(const Job *x, int64_t at, int64_t row, const T *p, const T *q) {
  const int64_t H = x->hidden;
  T *y = x->y + at * H, *h = x->hn + row * H;
  EACH_VECTOR_ONCE(j, k, H,
    const V sum = load_n(p + j, k) + load_n(q + j, k) + load_n(x->bias + j, k);
    const V now = x->kind == TANH ? vtanh(sum) : vmax(sum, vzero());
    store_n(y + j, now, k);
    store_n(h + j, now, k););
}

/* ---- forward: blocks of rows, each through the whole sequence ---- */

static int64_t blocks(const Job *x) { return mg_rnn_blocks(x->batch); }

static void forward_step(const Job *x, int64_t t, int64_t first, int64_t rows, T *scratch) {
  const int64_t H = x->hidden, P = x->outputs, n = x->n, at = t * x->batch + first;
  T *q = scratch, *normal = scratch + rows * n, *raw = x->norm ? x->raw_h + at * n : q;
  const T *h = x->hn + first * P, *p = x->p + (at - x->from * x->batch) * n;
  if (x->hin) {
    T *to = x->hin + at * P;
    const T *mask = x->mask ? x->mask + first * P : 0;
    EACH_VECTOR(j, k, rows * P, store_n(to + j, mask ? load_n(h + j, k) * load_n(mask + j, k) : load_n(h + j, k), k););
    h = to;
  }
  product(raw, h, x->packed_hh, rows, n, P, 0);
  if (x->norm) {
    normalize(x, q, 2, at, raw, x->nw_hh, 0, rows, n);
    normalize(x, normal, 0, at, p, x->nw_ih, 0, rows, n);
    p = normal;
  }
  for (int64_t r = 0; r < rows; r++) {
    if (!live(x, t, first + r)) rest(x, at + r);
    else if (x->kind == LSTM) lstm_row(x, at + r, first + r, p + r * n, q + r * n);
    else if (x->kind == GRU) gru_row(x, at + r, first + r, p + r * n, q + r * n);
    else rnn_row(x, at + r, first + r, p + r * n, q + r * n);
  }
  if (x->kind != LSTM) return;
  if (x->norm) {
    normalize(x, normal, 4, at, x->cells + at * H, x->nw_c, x->nb_c, rows, H);
    for (int64_t r = 0; r < rows; r++)
      if (live(x, t, first + r)) lstm_row_end(x, at + r, first + r, normal + r * H);
  }
  if (x->projected) {
    T *y = x->y + at * P;
    product(y, x->projected + at * H, x->packed_hr, rows, P, H, 0);
    for (int64_t r = 0; r < rows; r++)
      if (live(x, t, first + r)) memcpy(x->hn + (first + r) * P, y + r * P, (size_t)P * sizeof(T));
  }
}

static void forward_blocks(void *context, int64_t begin, int64_t end) {
  const Job *x = context;
  for (int64_t b = begin; b < end; b++) {
    const int64_t first = x->batch * b / blocks(x), rows = x->batch * (b + 1) / blocks(x) - first;
    T *scratch = mg_scratch(4, (size_t)(2 * rows * x->n) * sizeof(T));
    if (!scratch) return;
    if (x->reverse) for (int64_t t = x->to - 1; t >= x->from; t--) forward_step(x, t, first, rows, scratch);
    else for (int64_t t = x->from; t < x->to; t++) forward_step(x, t, first, rows, scratch);
  }
}

/* The steps taken together, from the s-th of the walk on. */
static void take(Job *x, int64_t s) {
  const int64_t end = MIN(s + mg_rnn_steps(x->batch, x->n), x->steps);
  x->from = x->reverse ? x->steps - end : s;
  x->to = x->reverse ? x->steps - s : end;
}

NOINLINE void copy_or_zero(T *to, const T *from, int64_t n) {
  if (from) memcpy(to, from, (size_t)n * sizeof(T));
  else memset(to, 0, (size_t)n * sizeof(T));
}

/* to += from, where from may be null */
NOINLINE void add_vector(T *to, const T *from, int64_t n) {
  if (from) EACH_VECTOR(j, k, n, store_n(to + j, load_n(to + j, k) + load_n(from + j, k), k););
}

void FN(rnn_forward)(T *y, T *hn, T *cn, T *gates, T *cells, T *tanhc, T *inner, T *projected, T *raw_x, T *raw_h,
                     T *stats, T *hin, T *work, const T *x, const T *h0, const T *c0, const T *w_ih, const T *w_hh,
                     const T *w_hr, const T *b_ih, const T *b_hh, const T *nw_ih, const T *nb_ih, const T *nw_hh,
                     const T *nb_hh, const T *nw_c, const T *nb_c, const T *mask, const int64_t *lengths, int64_t steps,
                     int64_t batch, int64_t inputs, int64_t hidden, int64_t outputs, int64_t kind, int64_t norm,
                     int64_t reverse, double eps) {
  const int64_t gate_count = kind == LSTM ? 4 : kind == GRU ? 3 : 1, n = gate_count * hidden;
  const int64_t apart = kind == GRU ? 2 * hidden : 0;      /* GRU: the biases of q_n stay apart, behind the others */
  T *bias = work, *packed_hh = bias + 4 * hidden, *packed_hr = packed_hh + mg_rnn_round_up(n) * outputs;
  Job job = {.steps = steps,
             .batch = batch,
             .inputs = inputs,
             .hidden = hidden,
             .outputs = outputs,
             .n = n,
             .kind = kind,
             .norm = norm,
             .reverse = reverse,
             .eps = eps,
             .lengths = lengths,
             .mask = mask,
             .nw_ih = nw_ih,
             .nw_hh = nw_hh,
             .nw_c = nw_c,
             .nb_c = nb_c,
             .y = y,
             .hn = hn,
             .cn = cn,
             .gates = gates,
             .cells = cells,
             .tanhc = tanhc,
             .inner = inner,
             .projected = projected,
             .raw_x = raw_x,
             .raw_h = raw_h,
             .hin = hin,
             .bias = bias,
             .stats = stats,
             .packed_hh = packed_hh,
             .packed_hr = packed_hr};
  memset(bias, 0, (size_t)(4 * hidden) * sizeof(T));
  add_vector(bias, b_ih, n);
  add_vector(bias, nb_ih, n);
  add_vector(bias, b_hh, kind == GRU ? apart : n);
  add_vector(bias, nb_hh, kind == GRU ? apart : n);
  if (kind == GRU) {
    add_vector(bias + 3 * hidden, b_hh ? b_hh + apart : 0, hidden);
    add_vector(bias + 3 * hidden, nb_hh ? nb_hh + apart : 0, hidden);
  }
  pack(packed_hh, w_hh, outputs, n, outputs, 1);
  if (w_hr) pack(packed_hr, w_hr, hidden, outputs, hidden, 1);
  copy_or_zero(hn, h0, batch * outputs);
  if (kind == LSTM) copy_or_zero(cn, c0, batch * hidden);
  /* Without norm the products are not kept: one piece of memory for them stays in the caches. The place of the gates
   * would be fetched from memory first (2 to 5 % of a forward). */
  const int64_t most = MIN(mg_rnn_steps(batch, n), steps);
  T *p = norm ? 0 : mg_scratch(3, (size_t)(most * batch * n) * sizeof(T));
  if (!norm && !p) return;
  for (int64_t s = 0; s < steps; s += most) {
    take(&job, s);
    const int64_t at = job.from * batch;
    job.p = norm ? raw_x + at * n : p;
    FN(gemm)(job.p, x + at * inputs, w_ih, 0, 0, 1, (job.to - job.from) * batch, n, inputs, inputs, 1, 1, inputs, n,
             0);
    mg_parallel(blocks(&job), 1, forward_blocks, &job);
  }
}

/* ---- backward: one row ----
 *
 * dm is the complete gradient of h (LSTM: of the input of w_hr). dh is the part of the gradient of the h before that
 * does not come through w_hh. dp and dq are the gradients of p and q; for LSTM and RNN they are equal. */

/* dtanh: the gradient of c through the tanh, or null without norm */
static void lstm_row_back(const Job *x, int64_t t, int64_t row, T *dp, const T *dm, const T *dtanh) {
  const int64_t H = x->hidden, at = t * x->batch + row, before = at + (x->reverse ? x->batch : -x->batch);
  const T *a = x->gates + at * x->n, *tanhc = x->tanhc + at * H;
  const T *c = starts(x, t, row) ? (x->c0 ? x->c0 + row * H : 0) : x->cells + before * H;
  T *dc = x->dc + row * H;
  EACH_VECTOR(j, k, H,
    const V i = load_n(a + j, k);
    const V f = load_n(a + H + j, k);
    const V g = load_n(a + 2 * H + j, k);
    const V o = load_n(a + 3 * H + j, k);
    const V tanhed = load_n(tanhc + j, k);
    const V d = load_n(dm + j, k);
    const V through = dtanh ? load_n(dtanh + j, k) : d * o * (1 - tanhed * tanhed);
    const V dnow = load_n(dc + j, k) + through;
    store_n(dp + j, dnow * g * (i * (1 - i)), k);
    store_n(dp + H + j, dnow * load_n_or(c, j, k, 0) * (f * (1 - f)), k);
    store_n(dp + 2 * H + j, dnow * i * (1 - g * g), k);
    store_n(dp + 3 * H + j, d * tanhed * (o * (1 - o)), k);
    store_n(dc + j, dnow * f, k););
}

static void gru_row_back(const Job *x, int64_t t, int64_t row, T *dp, T *dq) {
  const int64_t H = x->hidden, at = t * x->batch + row, before = at + (x->reverse ? x->batch : -x->batch);
  const T *a = x->gates + at * x->n, *inner = x->inner + at * H;
  const T *h = starts(x, t, row) ? (x->h0 ? x->h0 + row * H : 0) : x->y + before * H;
  T *dh = x->dh + row * H;
  EACH_VECTOR(j, k, H,
    const V r = load_n(a + j, k);
    const V z = load_n(a + H + j, k);
    const V v = load_n(a + 2 * H + j, k);
    const V d = load_n(dh + j, k);
    const V dv = d * (1 - z) * (1 - v * v);
    const V dr = dv * load_n(inner + j, k) * (r * (1 - r));
    const V dz = d * (load_n_or(h, j, k, 0) - v) * (z * (1 - z));
    store_n(dp + j, dr, k);
    store_n(dp + H + j, dz, k);
    store_n(dp + 2 * H + j, dv, k);
    store_n(dq + j, dr, k);
    store_n(dq + H + j, dz, k);
    store_n(dq + 2 * H + j, dv * r, k);
    store_n(dh + j, d * z, k););
}

static void rnn_row_back(const Job *x, int64_t at, int64_t row, T *dp) {
  const int64_t H = x->hidden;
  const T *y = x->y + at * H;
  T *dh = x->dh + row * H;
  EACH_VECTOR(j, k, H,
    const V v = load_n(y + j, k);
    const V d = load_n(dh + j, k);
    store_n(dp + j, x->kind == TANH ? d * (1 - v * v) : vselect(v > 0, d, vzero()), k);
    store_n(dh + j, vzero(), k););
}

/* ---- backward: blocks of rows ---- */

/* A block's sums: of the norms' weights (and biases) of w_ih x, w_hh h and c, then of dp and of dq. */
static int64_t sums_of(const Job *x) { return mg_rnn_sums_of_block(x->n, x->hidden); }

static void lstm_back(const Job *x, int64_t t, int64_t first, int64_t rows, T *dp, T *dm, T *dtanh, T *sums) {
  const int64_t H = x->hidden, P = x->outputs, at = t * x->batch + first;
  T *dh = x->dh + first * P;
  const T *from = dh;
  if (x->dhs) {
    for (int64_t r = 0; r < rows; r++) copy_or_zero(x->dhs + (at + r) * P, live(x, t, first + r) ? dh + r * P : 0, P);
    product(dm, x->dhs + at * P, x->packed_hr, rows, H, P, 0);
    from = dm;
  }
  if (x->norm) {
    for (int64_t r = 0; r < rows; r++) {
      const T *o = x->gates + (at + r) * x->n + 3 * H, *tanhc = x->tanhc + (at + r) * H, *d = from + r * H;
      if (!live(x, t, first + r)) copy_or_zero(dtanh + r * H, 0, H);
      else
        EACH_VECTOR(j, k, H,
          const V tanhed = load_n(tanhc + j, k);
          store_n(dtanh + r * H + j, load_n(d + j, k) * load_n(o + j, k) * (1 - tanhed * tanhed), k););
    }
    normalize_back(x, dtanh, sums, dtanh, 4, at, x->cells + at * H, x->nw_c, rows, H);
  }
  for (int64_t r = 0; r < rows; r++) {
    if (!live(x, t, first + r)) continue;
    lstm_row_back(x, t, first + r, dp + r * x->n, from + r * H, x->norm ? dtanh + r * H : 0);
    memset(dh + r * P, 0, (size_t)P * sizeof(T));
  }
}

/* sums[n] += the rows of d[rows, n] */
static void add_rows(T *sums, const T *d, int64_t rows, int64_t n) {
  EACH_COLUMNS(j, W, k, n,
    V s[W];
    EACH_PART(w) s[w] = vzero();
    for (int64_t r = 0; r < rows; r++)
      EACH_PART(w) s[w] += load_n(d + r * n + j + w * VL, k);
    EACH_PART(w) store_n(sums + j + w * VL, load_n(sums + j + w * VL, k) + s[w], k););
}

static void backward_step(const Job *x, int64_t t, int64_t first, int64_t rows, T *scratch, T *sums) {
  const int64_t H = x->hidden, P = x->outputs, n = x->n, at = t * x->batch + first, taken = at - x->from * x->batch;
  T *dh = x->dh + first * P, *dm = scratch, *dtanh = dm + rows * H, *spare = dtanh + rows * H;
  T *dp = x->norm ? spare + rows * P : x->dx + taken * n, *dq = x->kind != GRU ? dp
                                                                : x->norm      ? dp + rows * n
                                                                               : x->dr + taken * n;
  for (int64_t r = 0; r < rows; r++) {
    if (!live(x, t, first + r)) {
      copy_or_zero(dp + r * n, 0, n);
      copy_or_zero(dq + r * n, 0, n);
    } else if (x->gy) {
      add_vector(dh + r * P, x->gy + (at + r) * P, P);
    }
  }
  if (x->kind == LSTM) lstm_back(x, t, first, rows, dp, dm, dtanh, sums + 4 * n);
  else
    for (int64_t r = 0; r < rows; r++) {
      if (!live(x, t, first + r)) continue;
      if (x->kind == GRU) gru_row_back(x, t, first + r, dp + r * n, dq + r * n);
      else rnn_row_back(x, at + r, first + r, dp + r * n);
    }
  add_rows(sums + 4 * n + 2 * H, dp, rows, n);
  if (x->kind == GRU) add_rows(sums + 5 * n + 2 * H, dq, rows, n);
  if (x->norm) {
    normalize_back(x, x->dr + taken * n, sums + 2 * n, dq, 2, at, x->raw_h + at * n, x->nw_hh, rows, n);
    normalize_back(x, x->dx + taken * n, sums, dp, 0, at, x->raw_x + at * n, x->nw_ih, rows, n);
  }
  product(x->mask ? spare : dh, x->dr + taken * n, x->packed_hh, rows, P, n, !x->mask);
  if (x->mask) {
    const T *mask = x->mask + first * P;
    EACH_VECTOR(j, k, rows * P,
      store_n(dh + j, vfma(load_n(spare + j, k), load_n(mask + j, k), load_n(dh + j, k)), k););
  }
}

static void backward_blocks(void *context, int64_t begin, int64_t end) {
  const Job *x = context;
  for (int64_t b = begin; b < end; b++) {
    const int64_t first = x->batch * b / blocks(x), rows = x->batch * (b + 1) / blocks(x) - first;
    T *scratch = mg_scratch(4, (size_t)(rows * (2 * x->hidden + x->outputs + 2 * x->n)) * sizeof(T)),
      *sums = x->sums + b * sums_of(x);
    if (!scratch) return;
    if (x->reverse) for (int64_t t = x->from; t < x->to; t++) backward_step(x, t, first, rows, scratch, sums);
    else for (int64_t t = x->to - 1; t >= x->from; t--) backward_step(x, t, first, rows, scratch, sums);
  }
}

/* out[n] = the blocks' sums from position `at` on, one after the other */
NOINLINE void collect(const Job *x, T *out, int64_t at, int64_t n) {
  if (!out) return;
  memcpy(out, x->sums + at, (size_t)n * sizeof(T));
  for (int64_t b = 1; b < blocks(x); b++) add_vector(out, x->sums + b * sums_of(x) + at, n);
}

void FN(rnn_backward)(T *gx, T *gh0, T *gc0, T *gw_ih, T *gw_hh, T *gw_hr, T *gb_ih, T *gb_hh, T *gnw_ih, T *gnw_hh,
                      T *gnw_c, T *gnb_c, T *dx, T *dr, T *dhs, T *sums, T *work, const T *gy, const T *ghn,
                      const T *gcn, const T *x, const T *h0, const T *c0, const T *w_ih, const T *w_hh, const T *w_hr,
                      const T *nw_ih, const T *nw_hh, const T *nw_c, const T *mask, const int64_t *lengths, const T *y,
                      const T *gates, const T *cells, const T *tanhc, const T *inner, const T *projected,
                      const T *raw_x, const T *raw_h, const T *stats, const T *hin, int64_t steps, int64_t batch,
                      int64_t inputs, int64_t hidden, int64_t outputs, int64_t kind, int64_t norm, int64_t reverse) {
  const int64_t gate_count = kind == LSTM ? 4 : kind == GRU ? 3 : 1, n = gate_count * hidden, rows = steps * batch;
  T *packed_hr = work + mg_rnn_round_up(outputs) * n;
  /* forward and backward share the struct Job; what forward wrote is only read here */
  Job job = {.steps = steps,
             .batch = batch,
             .inputs = inputs,
             .hidden = hidden,
             .outputs = outputs,
             .n = n,
             .kind = kind,
             .norm = norm,
             .reverse = reverse,
             .lengths = lengths,
             .mask = mask,
             .nw_ih = nw_ih,
             .nw_hh = nw_hh,
             .nw_c = nw_c,
             .h0 = h0,
             .c0 = c0,
             .y = (T *)y,
             .gates = (T *)gates,
             .cells = (T *)cells,
             .tanhc = (T *)tanhc,
             .inner = (T *)inner,
             .raw_x = (T *)raw_x,
             .raw_h = (T *)raw_h,
             .stats = (T *)stats,
             .dh = gh0,
             .dc = gc0,
             .dx = dx,
             .dr = dr,
             .dhs = dhs,
             .sums = sums,
             .gy = gy,
             .packed_hh = work,
             .packed_hr = packed_hr};
  pack(work, w_hh, n, outputs, 1, outputs);
  if (w_hr) pack(packed_hr, w_hr, outputs, hidden, 1, hidden);
  copy_or_zero(gh0, ghn, batch * outputs);
  if (kind == LSTM) copy_or_zero(gc0, gcn, batch * hidden);
  memset(sums, 0, (size_t)(blocks(&job) * sums_of(&job)) * sizeof(T));
  int further = 0, further_h = 0;        /* has anything been added to gw_ih, to gw_hh? */
  /* Rows of gw_ih that leave lanes of a vector unused: its transpose is computed, and turned at the end. */
  const int narrow = inputs < GEMM_STRIP && inputs % VL;
  const int64_t most = mg_rnn_steps(batch, n);
  for (int64_t s = (steps - 1) / most * most; s >= 0; s -= most) {
    take(&job, s);
    const int64_t at = job.from * batch, together = (job.to - job.from) * batch;
    mg_parallel(blocks(&job), 1, backward_blocks, &job);
    if (gx) FN(gemm)(gx + at * inputs, dx, w_ih, 0, 0, 1, together, inputs, n, n, 1, inputs, 1, inputs, 0);
    if (gw_ih && narrow)
      FN(gemm)(gw_ih, x + at * inputs, dx, 0, 0, 1, inputs, n, together, 1, inputs, n, 1, n, further);
    else if (gw_ih)
      FN(gemm)(gw_ih, dx, x + at * inputs, 0, 0, 1, n, inputs, together, 1, n, inputs, 1, inputs, further);
    further = 1;
    if (!gw_hh) continue;
    if (hin) {
      FN(gemm)(gw_hh, dr, hin + at * outputs, 0, 0, 1, n, outputs, together, 1, n, outputs, 1, outputs, further_h);
    } else {                             /* h before a step is y of the step before it, and h0 before the first */
      const int64_t start = reverse ? job.to == steps : job.from == 0, later = together - start * batch;
      const T *behind = reverse || !start ? dr : dr + batch * n, *first = reverse ? dr + later * n : dr;
      const T *h = reverse ? y + (at + batch) * outputs : y + (start ? at : at - batch) * outputs;
      if (later || !further_h)
        FN(gemm)(gw_hh, behind, h, 0, 0, 1, n, outputs, later, 1, n, outputs, 1, outputs, further_h);
      if (start && h0) FN(gemm)(gw_hh, first, h0, 0, 0, 1, n, outputs, batch, 1, n, outputs, 1, outputs, 1);
    }
    further_h = 1;
  }

  if (gw_ih && narrow) {
    T *turned = mg_scratch(4, (size_t)(n * inputs) * sizeof(T));
    if (!turned) return;
    memcpy(turned, gw_ih, (size_t)(n * inputs) * sizeof(T));
    FN(gemm_pack)(gw_ih, inputs, inputs, n, turned, n, 1);
  }
  collect(&job, gnw_ih, 0, n);
  collect(&job, gnw_hh, 2 * n, n);
  collect(&job, gnw_c, 4 * n, hidden);
  collect(&job, gnb_c, 4 * n + hidden, hidden);
  collect(&job, gb_ih, 4 * n + 2 * hidden, n);
  collect(&job, gb_hh, 5 * n + 2 * hidden, n);
  if (gw_hr) FN(gemm)(gw_hr, dhs, projected, 0, 0, 1, outputs, hidden, rows, 1, outputs, hidden, 1, hidden, 0);
}

#endif
