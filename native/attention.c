/* types: f32 f64 */
/* Scaled dot-product attention and its backward for `items` independent problems: out = softmax(scale q k^T + mask) v.
 *
 *   q [rows, depth]   k [keys, depth]   v [keys, value_depth]   out [rows, value_depth]   lse [rows]
 *   rows of q, k, v, out and the gradients are q_row, ... elements apart (heads of one projection), others adjacent
 *
 *   for i in rows:
 *     s_j = scale q_i . k_j + bias_ij                  -inf where not allowed, or j > i and causal
 *     m = max s_j;  l = sum_j exp(s_j - m);  lse_i = m + log l
 *     out_i = sum_j exp(s_j - m) / l * drop_ij v_j     drop_ij: 0 with probability p, else 1 / (1 - p)
 *
 * The fast one never holds the matrix s as a whole (Dao et al. 2022, FlashAttention). A strip of queries takes one
 * block of KEYS keys after the other. A block of scores fits the first-level cache: the register tile of gemm.c makes
 * it, then it is turned into exponentials and multiplied with the block of v at once. Its rows are keys, a vector holds
 * the scores of VL queries with one key: so maxima and sums over keys are those of vectors, never of lanes, and k and v
 * are read where they stand; q is packed, transposed. The maximum m may grow from block to block; then the sums so far,
 * which belong to the old maximum, are scaled to the new one (Milakov and Gimelshein 2018):
 *
 *     m' = max(m, max of the block)
 *     l' = l exp(m - m') + sum exp(s - m')
 *     out' = out exp(m - m') + exp(s - m') v
 *
 * Exponentials are powers of 2: scores are multiplied with scale log2 e, so m and lse are in units of log 2. An element
 * of a causal matrix of 128 x 128 scores, depth 32, takes 3.3 cycles of a core with two multiply-adds of 16 lanes a
 * cycle, where its multiply-adds alone take 2 and its exponential 0.35. The backward takes 7.0 cycles, of which 5 are
 * multiply-adds.
 *
 * The backward needs q, k, v, out and lse only, and computes the blocks of weights w = exp(s - lse) again:
 *
 *     D_i = sum(gout_i out_i)      ds = w (drop * (gout v^T) - D) scale
 *     gv += (w drop)^T gout        gq += ds k        gk += ds^T q
 *
 * Strips of q^T and gout^T are packed once for all keys. Causal work is left out by vectors of queries, and in the
 * gradients by tiles. The bits of a row depend on its number and its operands only: strips and blocks of keys begin at
 * multiples of LANES and KEYS, and a masked key adds exactly 0. A row without any key gives 0, lse = inf, and gradients
 * of 0.
 *
 * Dropout is drawn from Philox by position (item, row, key), in the forward and again in the backward. `stream` is the
 * generator's state, which the op keeps for this call.
 */
#include "gemm.h"
#include "loops.h"
#include "philox.h"

#if IS_REAL

#define LANES GEMM_STRIP                       /* queries of a strip: two vectors */
#define KEYS (512 / (int)sizeof(T))            /* a multiple of LANES */
#define ROWS_PER_THREAD 512                    /* rows of a unit of work in the forward */

typedef struct {
  T *out, *lse, *weights, *gq, *gk, *gv;
  const T *q, *k, *v, *bias, *gout;
  const uint8_t *allowed;
  const int64_t *table;
  Stream stream;
  uint64_t limit;                              /* dropped: random word < limit; 0 without dropout */
  int64_t rows, keys, depth, value_depth, q_row, k_row, v_row, out_row, gq_row, gk_row, gv_row, mask_row, mask_key;
  int causal;
  T scale, step, keep;                         /* step: scale log2 e; keep: what dropout multiplies with */
} job;

/* One of `items`: where its operands and results are, and its number. */
typedef struct {
  const T *q, *k, *v, *bias, *gout;
  const uint8_t *allowed;
  T *out, *gq, *gk, *gv;
  int64_t number;
} item;

static item item_of(const job *x, int64_t n) {
  const int64_t *at = x->table + 8 * n;
  return (item){.q = x->q + at[0],
                .k = x->k + at[1],
                .v = x->v + at[2],
                .bias = x->bias ? x->bias + at[3] : 0,
                .allowed = x->allowed ? x->allowed + at[3] : 0,
                .out = x->out + at[4],
                .gout = x->gout ? x->gout + at[4] : 0,
                .gq = x->gq ? x->gq + at[5] : 0,
                .gk = x->gk ? x->gk + at[6] : 0,
                .gv = x->gv ? x->gv + at[7] : 0,
                .number = n};
}

/* How many of the n keys from j on may be used by the rows before `row_end`. */
static int64_t seen(const job *x, int64_t row_end, int64_t j, int64_t n) {
  if (!x->causal) return n;
  return row_end <= j ? 0 : MIN(row_end - j, n);
}

/* ---- a block of scores: keys down, queries across ---- */

/* The keys [j, j + n) of a block, for a strip of queries. The second vector of queries uses all n, the first one the
 * first `both` of them: with causal attention, what is behind the diagonal is left out by vectors. */
typedef struct { int64_t n, both; int vectors; } span;

/* queries [i, i + m), m <= LANES, keys from j on */
static span span_of(const job *x, int64_t i, int64_t m, int64_t j) {
  const int64_t n = seen(x, i + m, j, MIN(KEYS, x->keys - j));
  return (span){n, m > VL ? seen(x, i + VL, j, n) : n, m > VL ? 2 : 1};
}

/* The body for keys [from, end) and the vectors of queries that use them, which begin at lane `at`. */
#define EACH_SPAN(k, from, end, vectors, at, ...) \
  for (int second_ = 0; second_ < 2; second_++) { \
    const int64_t from = second_ ? (k).both : 0, end = second_ ? (k).n : (k).both; \
    const int vectors = second_ ? 1 : (k).vectors, at = second_ ? VL : 0; \
    if (from < end) { __VA_ARGS__ } \
  }
/* The body for tiles of `height` rows from r on: [from, end), cut into the fewest that are at most `most` high */
#define TILES(r, height, from, end, most, ...) do { \
    const int64_t tiles_ = up((end) - (from), most); \
    for (int64_t t_ = 0; t_ < tiles_; t_++) { \
      const int64_t r = (from) + first_row((end) - (from), tiles_, t_); \
      const int height = (int)((from) + first_row((end) - (from), tiles_, t_ + 1) - r); \
      __VA_ARGS__ \
    } \
  } while (0)

/* s = a[n, depth] (rows `across` apart) times a packed strip of queries; rows of s are `wide` apart */
NOINLINE void scores(T *s, int64_t wide, const T *a, int64_t across, int64_t depth, const T *strip, span k) {
  EACH_SPAN(k, from, end, vectors, at,
            TILES(r, height, from, end, GEMM_ROWS,
                  FN(gemm_tile)(height, vectors, depth, a + r * across, across, 1, strip + at, LANES,
                                s + r * wide + at, wide, VL, 0, 0);););
}

/* y[width, LANES] = (add ? y : 0) + v^T w, of v[n, width] and w[n, LANES] */
NOINLINE void weigh(T *y, int64_t width, const T *w, const T *v, int64_t down, span k, int add) {
  EACH_SPAN(k, from, end, vectors, at,
            TILES(r, height, 0, width, GEMM_ROWS,
                  FN(gemm_tile)(height, vectors, end - from, v + from * down + r, 1, down, w + from * LANES + at, LANES,
                                y + r * LANES + at, LANES, VL, add || from, 0);););
}

/* ---- operands ---- */

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* Strips of LANES rows of x[n, width], each transposed */
NOINLINE void pack_strips(T *to, const T *x, int64_t across, int64_t n, int64_t width) {
  for (int64_t i = 0; i < n; i += LANES)
    FN(gemm_pack)(to + i * width, LANES, n - i, width, x + i * across, across, 1);
}

/* Rows as the products read them: a multiple of `whole` elements, and not so far apart that all fall into the same sets
 * of the first-level cache. Such are read in place (0.92 of the time of copies), others are copied to adjacent rows. */
static int in_place(int64_t across, int64_t width, int64_t whole) {
  return width % whole == 0 && (across == width || across * (int64_t)sizeof(T) % 4096);
}
static int64_t step_of(int64_t across, int64_t width, int64_t whole) {
  return in_place(across, width, whole) ? across : round_up(width, whole);
}
static int64_t room(int64_t across, int64_t n, int64_t width, int64_t whole) {   /* elements of the copy */
  return in_place(across, width, whole) ? 0 : n * round_up(width, whole);
}
NOINLINE const T *whole_rows(T *to, const T *x, int64_t across, int64_t n, int64_t width, int64_t whole) {
  if (in_place(across, width, whole)) return x;
  const int64_t down = round_up(width, whole);
  for (int64_t i = 0; i < n; i++)
    EACH_VECTOR(j, k, width, store_n(to + i * down + j, load_n(x + i * across + j, k), (int)MIN(VL, down - j)););
  return to;
}

NOINLINE void rows_apart(T *to, int64_t across, const T *x, int64_t n, int64_t width) {
  for (int64_t i = 0; i < n; i++)
    EACH_VECTOR(j, k, width, store_n(to + i * across + j, load_n(x + i * width + j, k), k););
}

/* ---- masks and dropout ----
 *
 * Masks come in rows of keys. They are made for the queries of a strip, then turned so that queries are across. `plain`
 * is the common case, known at compile time: no mask, scale > 0. */

INLINE VM lanes_before(int64_t n) {
  VM lane;
  for (int l = 0; l < VL; l++) lane[l] = l;
  return (VM)(lane < (TI)n - (VM){0});
}

static int is_plain(const job *x) { return !x->bias && !x->allowed && x->scale > 0; }

/* For one vector of queries, the first of which is `ahead` keys behind the first of the block: keys that a causal query
 * does not use get a score of -inf, and so do rows behind the n keys, to a multiple of four. */
static void hide(const job *x, T *s, int64_t wide, int64_t ahead, int64_t n) {
  const V none = vset(-INFINITY);
  for (int64_t r = MAX(ahead + 1, 0); x->causal && r < n; r++)
    vstore(s + r * wide, vselect(lanes_before(r - ahead), none, vload(s + r * wide)));
  for (int64_t r = n; r % 4; r++) vstore(s + r * wide, none);
}

/* Adds -inf where a key is not allowed. A plain loop: GCC converts vectors of bytes one by one. */
NOINLINE void forbid(T *restrict to, const uint8_t *restrict allowed, int64_t n) {
  for (int64_t c = 0; c < n; c++) to[c] += allowed[c] ? 0 : -INFINITY;
}

/* What the mask adds to the logits of row i, keys [j, j + n), in units of log 2 */
static void mask_row(const job *x, const item *at, T *to, int64_t i, int64_t j, int64_t n) {
  const int64_t from = i * x->mask_row + j * x->mask_key;
  const T *bias = at->bias ? at->bias + from : 0;
  const uint8_t *allowed = at->allowed ? at->allowed + from : 0;
  const V all = vset(allowed && !x->mask_key && !*allowed ? -INFINITY : 0);
  EACH_VECTOR(c, k, n,
              store_n(to + c, !bias ? all : all + LOG2E_ * (x->mask_key ? load_n(bias + c, k) : vset(*bias)), k););
  if (allowed && x->mask_key) forbid(to, allowed, n);
}

/* Scores become logits, in units of log 2: log2 e (scale * s + mask). Queries [i, i + m), keys [j, j + n); `room` is
 * for two blocks. */
NOINLINE void set_logits(const job *x, const item *at, T *s, int64_t wide, T *room, int64_t i, int64_t m, int64_t j,
                         int64_t n) {
  T *turned = room + LANES * KEYS;
  const int64_t each = x->mask_row != 0;         /* has each query a mask of its own? */
  for (int64_t r = 0; r < (each ? m : 1); r++) mask_row(x, at, room + r * KEYS, i + r, j, n);
  if (each) FN(gemm_pack)(turned, LANES, m, n, room, KEYS, 1);
  for (int64_t r = 0; r < n; r++)
    for (int64_t l = 0; l < LANES; l += VL)
      vstore(s + r * wide + l, vfma(vload(s + r * wide + l), vset(x->step),
                                    each ? vload(turned + r * LANES + l) : vset(room[r])));
}

/* Multiplies by drop: row i, keys from j on */
NOINLINE void drop(const job *x, const item *at, T *s, int64_t i, int64_t j, int64_t n) {
  uint32_t word[WORDS];
  const uint32_t last = (uint32_t)(x->limit - 1);
  const T keep = x->keep;
  for (int64_t b = 0; b < n; b += KEYS) {
    const int64_t place = (at->number * x->rows + i) * x->keys + j + b, skip = place % 4, count = MIN(KEYS, n - b);
    philox(word, x->stream, place - skip, skip + count);
    for (int64_t c = 0; c < count; c++) s[b + c] *= word[skip + c] <= last ? 0 : keep;
  }
}

/* What dropout multiplies the block of queries [i, i + m) and keys [j, j + n) with, at the end of `room` */
static const T *dropped(const job *x, const item *at, T *room, int64_t i, int64_t m, int64_t j, int64_t n) {
  T *turned = room + LANES * KEYS;
  for (int64_t r = 0; r < m; r++) {
    for (int64_t c = 0; c < n; c++) room[r * KEYS + c] = 1;
    drop(x, at, room + r * KEYS, i + r, j, n);
  }
  FN(gemm_pack)(turned, LANES, m, n, room, KEYS, 1);
  return turned;
}
static void multiply(T *s, int64_t wide, const T *factors, int64_t n) {
  for (int64_t r = 0; r < n; r++)
    for (int64_t l = 0; l < LANES; l += VL)
      vstore(s + r * wide + l, vload(s + r * wide + l) * vload(factors + r * LANES + l));
}

/* ---- the plain loop, for rows that the fast one gets wrong ----
 *
 * Scores beyond HUGE_SCORE: their rounding errors count in the exponent. And NaN or inf in keys and values that a row
 * does not use: there 0 * NaN is NaN. Both show in the result. Here a key that is not used is not read. */
#define HUGE_SCORE PICK_(16384.0, 8796093022208.0)

static int uses(const job *x, const item *at, int64_t i, int64_t j) {
  const int64_t m = i * x->mask_row + j * x->mask_key;
  return !(x->causal && j > i) && !(at->allowed && !at->allowed[m]) && !(at->bias && at->bias[m] == -INFINITY);
}

/* The weights of row i before dropout, in `w`, -1 for a key that is not used; what dropout multiplies with, in
 * `factor`; the result is lse. */
static double plain_weights(const job *x, const item *at, double *w, T *factor, int64_t i) {
  double top = -INFINITY, sum = 0;
  for (int64_t j = 0; j < x->keys; j++) {
    factor[j] = 1;
    w[j] = -1;
    if (!uses(x, at, i, j)) continue;
    double s = 0;
    for (int64_t c = 0; c < x->depth; c++) s += (double)at->q[i * x->q_row + c] * (double)at->k[j * x->k_row + c];
    w[j] = s * x->scale + (at->bias ? (double)at->bias[i * x->mask_row + j * x->mask_key] : 0);
    top = w[j] > top || w[j] != w[j] ? w[j] : top;
  }
  const double shift = top == -INFINITY ? 0 : top;
  for (int64_t j = 0; j < x->keys; j++)
    if (uses(x, at, i, j)) sum += w[j] = exp(w[j] - shift);
  for (int64_t j = 0; j < x->keys; j++)
    if (uses(x, at, i, j) && sum != 0) w[j] /= sum;
  if (x->limit) drop(x, at, factor, i, 0, x->keys);
  return sum == 0 ? INFINITY : top + log(sum);
}

NOINLINE void plain_forward(const job *x, const item *at, int64_t i) {
  double *w = mg_scratch(1, (size_t)x->keys * (sizeof(double) + sizeof(T)));
  if (!w) return;
  T *factor = (T *)(w + x->keys);
  const int64_t row = at->number * x->rows + i;
  const double lse = plain_weights(x, at, w, factor, i), most = PICK_(3.4028234663852886e38, 1.7976931348623157e308);
  x->lse[row] = lse == INFINITY ? INFINITY : (T)MIN(most, lse * 1.442695040888963407359925);   /* inf: no key is used */
  for (int64_t c = 0; c < x->value_depth; c++) {
    double sum = 0;
    for (int64_t j = 0; j < x->keys; j++)
      if (w[j] != -1) sum += w[j] * factor[j] * at->v[j * x->v_row + c];
    at->out[i * x->out_row + c] = (T)sum;
  }
  const T none = x->lse[row] == x->lse[row] ? 0 : x->lse[row];       /* NaN stays in its whole row */
  for (int64_t j = 0; x->weights && j < x->keys; j++)
    x->weights[row * x->keys + j] = w[j] == -1 ? none : (T)(w[j] * factor[j]);
}

static void add_scaled(T *to, double factor, const T *x, int64_t n) {
  for (int64_t c = 0; to && c < n; c++) to[c] += (T)(factor * x[c]);
}
/* rows [n, width] of a result, or none if it is null */
static void set_zero(T *p, int64_t across, int64_t n, int64_t width) {
  for (int64_t i = 0; p && i < n; i++) memset(p + i * across, 0, (size_t)width * sizeof(T));
}

/* all gradients of an item */
NOINLINE void plain_backward(const job *x, const item *at) {
  const int64_t rows = x->rows, keys = x->keys, depth = x->depth, width = x->value_depth;
  double *w = mg_scratch(1, (size_t)keys * (sizeof(double) + sizeof(T)));
  if (!w) return;
  T *factor = (T *)(w + keys);
  set_zero(at->gq, x->gq_row, rows, depth), set_zero(at->gk, x->gk_row, keys, depth);
  set_zero(at->gv, x->gv_row, keys, width);
  for (int64_t i = 0; i < rows; i++) {
    const T *g = at->gout + i * x->out_row, *out = at->out + i * x->out_row;
    double sum = 0;
    for (int64_t c = 0; c < width; c++) sum += (double)g[c] * (double)out[c];
    plain_weights(x, at, w, factor, i);
    for (int64_t j = 0; j < keys; j++) {
      if (w[j] == -1) continue;
      double d = 0;
      for (int64_t c = 0; c < width; c++) d += (double)g[c] * (double)at->v[j * x->v_row + c];
      d = w[j] * (d * factor[j] - sum) * x->scale;
      add_scaled(at->gq ? at->gq + i * x->gq_row : 0, d, at->k + j * x->k_row, depth);
      add_scaled(at->gk ? at->gk + j * x->gk_row : 0, d, at->q + i * x->q_row, depth);
      add_scaled(at->gv ? at->gv + j * x->gv_row : 0, w[j] * factor[j], g, width);
    }
  }
}

static int has_nan(const T *p, int64_t across, int64_t n, int64_t width) {
  V sum = vzero();
  for (int64_t i = 0; p && i < n; i++)
    EACH_VECTOR(c, k, width, const V v = load_n(p + i * across + c, k); sum += v - v;);    /* inf - inf is NaN, too */
  return vsum(sum) != 0;
}
static int is_masked(const job *x) { return x->causal || x->bias || x->allowed; }
/* Also inf and -inf: finite logits may overflow in units of log 2, as with the lowest number as a mask. */
static int is_huge(T logit) { return MATH(fabs)(logit) > HUGE_SCORE; }

/* ---- forward ---- */

/* The exponentials of n keys for one vector of queries, in place. top and sum are those of the keys so far, y[width]
 * what their weights made of v. Maxima are those of the logits, in units of log 2; a plain logit is a multiple of the
 * score and is not stored. */
INLINE void exponentials(const job *x, T *s, int64_t n, T *y, V *top, V *sum, const int plain) {
  V most[4], total[4];
  UNROLL for (int u = 0; u < 4; u++) most[u] = vset(-INFINITY), total[u] = vzero();
  for (int64_t r = 0; r < n; r += 4)                           /* NaN is left to the exponentials */
    UNROLL for (int u = 0; u < 4; u++) most[u] = vupper_(vload(s + (r + u) * LANES), most[u]);
  V high = vupper_(vupper_(most[0], most[1]), vupper_(most[2], most[3]));
  high = vupper_(plain ? high * x->step : high, *top);
  const V shift = vselect(high == vset(-INFINITY), vzero(), high), step = vset(x->step);
  for (int64_t r = 0; r < n; r += 4)
    UNROLL for (int u = 0; u < 4; u++) {
      T *to = s + (r + u) * LANES;
      const V v = vexp2_down(plain ? vfma(vload(to), step, -shift) : vload(to) - shift);
      vstore(to, v);
      total[u] += v;
    }
  if (vany((VM)((*top > vset(-INFINITY)) & (high != *top)))) {
    const V shrink = vexp2_down(*top - shift);
    *sum = *sum * shrink;
    for (int64_t c = 0; c < x->value_depth; c++) vstore(y + c * LANES, vload(y + c * LANES) * shrink);
  }
  *sum = *sum + ((total[0] + total[1]) + (total[2] + total[3]));
  *top = high;
}

/* Keeps the logits of a block, or the scores, where the weights will be. */
static void keep_scores(const job *x, const T *s, T *room, int64_t row, int64_t i, int64_t m, int64_t j, int64_t n) {
  FN(gemm_pack)(room, n, n, LANES, s, LANES, 1);
  for (int64_t r = 0; r < m; r++)
    memcpy(x->weights + (row + r) * x->keys + j, room + r * n, (size_t)seen(x, i + r + 1, j, n) * sizeof(T));
}

/* Row r of a strip, its scores, become weights. */
static void end_weights(const job *x, const item *at, int64_t i, T top, T sum, T part) {
  T *w = x->weights + (at->number * x->rows + i) * x->keys;
  const int64_t count = seen(x, i + 1, 0, x->keys);
  const V shift = vset(sum == 0 ? INFINITY : top);
  EACH_VECTOR(c, k, count,
    const V s = load_n(w + c, k);
    store_n(w + c, vexp2_down(is_plain(x) ? vfma(s, vset(x->step), -shift) : s - shift) * part, k););
  for (int64_t c = count; c < x->keys; c++) w[c] = 0 * part;          /* NaN stays in its whole row */
  if (x->limit) drop(x, at, w, i, 0, count);
}

/* A strip of queries [i, i + m). s: a block of scores, behind it room for the result with queries across, and for two
 * blocks more; strip: those queries, packed, and in the end their results */
static void forward_strip(const job *x, const item *at, T *s, T *strip, const T *k_rows, int64_t k_down,
                          const T *v_rows, int64_t v_down, int64_t i, int64_t m) {
  const int64_t width = x->value_depth, row = at->number * x->rows + i, all = seen(x, i + m, 0, x->keys);
  const int plain = is_plain(x);
  T *y = s + KEYS * LANES, *room = y + width * LANES, tops[LANES], sums[LANES], parts[LANES];
  V top[2] = {vset(-INFINITY), vset(-INFINITY)}, sum[2] = {vzero(), vzero()}, part[2], odd[2] = {vzero(), vzero()};
  for (int64_t j = 0; j < all; j += KEYS) {
    const span k = span_of(x, i, m, j);
    scores(s, LANES, k_rows + j * k_down, k_down, x->depth, strip, k);
    if (!plain) set_logits(x, at, s, LANES, room, i, m, j, k.n);
    if (x->weights) keep_scores(x, s, room, row, i, m, j, k.n);
    for (int v = 0; v < k.vectors; v++) {
      const int64_t n = v ? k.n : k.both;
      hide(x, s + v * VL, LANES, i + v * VL - j, n);
      if (plain) exponentials(x, s + v * VL, n, y + v * VL, top + v, sum + v, 1);
      else exponentials(x, s + v * VL, n, y + v * VL, top + v, sum + v, 0);
    }
    if (x->limit) multiply(s, LANES, dropped(x, at, room, i, m, j, k.n), k.n);
    weigh(y, width, s, v_rows + j * v_down, v_down, k, j > 0);
  }
  if (!all) memset(y, 0, (size_t)(width * LANES) * sizeof(T));
  VM wrong = {0};
  for (int64_t v = 0; v * VL < m; v++) {
    const VM none = sum[v] == 0;
    part[v] = vselect(none, vzero(), 1 / sum[v]);
    vstore(tops + v * VL, top[v]), vstore(sums + v * VL, sum[v]), vstore(parts + v * VL, part[v]);
    store_n(x->lse + row + v * VL, vselect(none, vset(INFINITY), top[v] + vlog2(sum[v])), (int)MIN(VL, m - v * VL));
    for (int64_t c = 0; c < width; c++) {
      const V now = vload(y + c * LANES + v * VL) * part[v];
      vstore(y + c * LANES + v * VL, now);
      odd[v] = vfma(now, vzero(), odd[v]);                              /* NaN if a row holds inf or NaN */
    }
    wrong |= (VM)(vabs(top[v]) > HUGE_SCORE) | (is_masked(x) ? (VM)(odd[v] != 0) : (VM){0});
  }
  T *place = at->out + i * x->out_row, *rows = x->out_row == width && m == LANES ? place : strip;
  FN(gemm_pack)(rows, width, width, m > VL ? LANES : VL, y, LANES, 1);
  if (rows != place) rows_apart(place, x->out_row, rows, m, width);
  for (int64_t r = 0; x->weights && r < m; r++) end_weights(x, at, i + r, tops[r], sums[r], parts[r]);
  if (__builtin_expect(!vany(wrong), 1)) return;
  for (int64_t r = 0; r < m; r++)
    if (is_huge(tops[r]) || (is_masked(x) && has_nan(place + r * x->out_row, 0, 1, width))) plain_forward(x, at, i + r);
}

static int64_t chunks(const job *x) { return (x->rows + ROWS_PER_THREAD - 1) / ROWS_PER_THREAD; }

static void forward_units(void *context, int64_t begin, int64_t end) {
  const job *x = context;
  const int64_t depth = x->depth, width = x->value_depth;
  for (int64_t unit = begin; unit < end; unit++) {
    const item at = item_of(x, unit / chunks(x));
    const int64_t first = unit % chunks(x) * ROWS_PER_THREAD, last = MIN(first + ROWS_PER_THREAD, x->rows),
                  all = seen(x, last, 0, x->keys);
    const int64_t k_down = step_of(x->k_row, depth, 1), v_down = step_of(x->v_row, width, 1);
    const int64_t block = KEYS * LANES, k_room = room(x->k_row, all, depth, 1), v_room = room(x->v_row, all, width, 1);
    T *s = mg_scratch(0, (size_t)(3 * block + (width + MAX(width, depth)) * LANES + k_room + v_room) * sizeof(T));
    if (!s) return;
    T *strip = s + 3 * block + width * LANES, *rest = strip + MAX(width, depth) * LANES;
    const T *k = whole_rows(rest, at.k, x->k_row, all, depth, 1);
    const T *v = whole_rows(rest + k_room, at.v, x->v_row, all, width, 1);
    for (int64_t i = first; i < last; i += LANES) {
      pack_strips(strip, at.q + i * x->q_row, x->q_row, MIN(LANES, last - i), depth);
      forward_strip(x, &at, s, strip, k, k_down, v, v_down, i, MIN(LANES, last - i));
    }
  }
}

static job job_of(const T *q, const T *k, const T *v, const T *bias, const uint8_t *allowed, const int64_t *stream,
                  const int64_t *table, int64_t rows, int64_t keys, int64_t depth, int64_t value_depth,
                  int64_t q_row, int64_t k_row, int64_t v_row, int64_t out_row, int64_t gq_row, int64_t gk_row,
                  int64_t gv_row, int64_t mask_row, int64_t mask_key, int64_t causal, double scale, double p) {
  job x = {.q = q,
           .k = k,
           .v = v,
           .bias = bias,
           .allowed = allowed,
           .table = table,
           .rows = rows,
           .keys = keys,
           .depth = depth,
           .value_depth = value_depth,
           .q_row = q_row,
           .k_row = k_row,
           .v_row = v_row,
           .out_row = out_row,
           .gq_row = gq_row,
           .gk_row = gk_row,
           .gv_row = gv_row,
           .mask_row = mask_row,
           .mask_key = mask_key,
           .causal = causal != 0,
           .scale = (T)scale,
           .step = (T)(scale * 1.442695040888963407359925)};
  if (stream) {
    x.stream = (Stream){(uint64_t)stream[0], (uint64_t)stream[1], (uint64_t)stream[2]};
    x.limit = threshold(p);
    x.keep = p < 1 ? (T)(1 / (1 - p)) : 0;
  }
  return x;
}

void FN(attention_forward)(T *out, T *lse, T *weights, const T *q, const T *k, const T *v, const T *bias,
                           const uint8_t *allowed, const int64_t *stream, const int64_t *table, int64_t items,
                           int64_t rows, int64_t keys, int64_t depth, int64_t value_depth, int64_t q_row,
                           int64_t k_row, int64_t v_row, int64_t out_row, int64_t gq_row, int64_t gk_row,
                           int64_t gv_row, int64_t mask_row, int64_t mask_key, int64_t causal, double scale,
                           double p) {
  job x = job_of(q, k, v, bias, allowed, stream, table, rows, keys, depth, value_depth, q_row, k_row, v_row, out_row,
                 gq_row, gk_row, gv_row, mask_row, mask_key, causal, scale, p);
  x.out = out, x.lse = lse, x.weights = weights;
  mg_parallel(items * chunks(&x), grain(items * chunks(&x), MIN(rows, ROWS_PER_THREAD) * keys), forward_units, &x);
}

/* ---- backward ---- */

/* Rows of a tile: about half of what the registers allow, where that still keeps the multiply-adds busy. A tile on the
 * diagonal computes what half of its rows do not use. */
#define TILE_ROWS (GEMM_ROWS == 14 ? 8 : GEMM_ROWS)
#define QUERIES (GEMM_ROWS == 14 ? 64 : 48)    /* of a block: whole strips */

/* c[m, width] = (add ? c : 0) + d^T b, of queries [i, i + m) and n keys from j on: d[n, QUERIES], b[n, width] */
NOINLINE void weigh_queries(const job *x, T *c, int64_t crs, int64_t width, const T *d, const T *b, int64_t down,
                            int64_t i, int64_t m, int64_t j, int64_t n, int add) {
  for (int64_t s = 0; s < width; s += LANES)
    TILES(r, height, 0, m, TILE_ROWS,
      const int64_t k = seen(x, i + r + height, j, n), left = MIN(LANES, width - s);
      if (k)
        FN(gemm_tile)(height, left > VL ? 2 : 1, k, d + r, 1, QUERIES, b + s, down, c + r * crs + s, crs,
                      (int)(left > VL ? left - VL : left), add, 0););
}

/* c[n, width] += w b, of w[n, QUERIES], b[m, width]; the first queries that use a key write (=) instead of adding */
NOINLINE void weigh_keys(const job *x, T *c, int64_t crs, int64_t width, const T *w, const T *b, int64_t down,
                         int64_t i, int64_t m, int64_t j, int64_t n) {
  for (int64_t s = 0; s < width; s += LANES)
    TILES(r, height, 0, n, TILE_ROWS,
      const int64_t p = x->causal ? MAX(j + r - i, 0) : 0, left = MIN(LANES, width - s); /* before p none uses them */
      if (p < m)
        FN(gemm_tile)(height, left > VL ? 2 : 1, m - p, w + r * QUERIES + p, QUERIES, 1, b + p * down + s, down,
                      c + r * crs + s, crs, (int)(left > VL ? left - VL : left), i > (x->causal ? j + r : 0), 0););
}

/* The weights of one vector of queries into w (times drop), and their ds into d, which comes as gout v^T: n keys */
INLINE void backward_vector(const job *x, T *w, T *d, V lse, V sum, int64_t n, const int plain) {
  const V scale = vset(x->scale), step = vset(x->step), less = sum * scale;
  for (int64_t r = 0; r < n * QUERIES; r += QUERIES) {
    const V v = vexp2_down(plain ? vfma(vload(w + r), step, -lse) : vload(w + r) - lse);
    vstore(w + r, v);
    vstore(d + r, v * vfma(vload(d + r), scale, -less));
  }
}

/* The same for a strip of queries [i, i + m). The products read TILE_ROWS - 1 keys behind the last that a vector of
 * queries sees, at most, and find 0 there. */
static void backward_strip(const job *x, const item *at, T *w, T *d, const T *sums, T *room, int64_t i, int64_t m,
                           int64_t j, span k) {
  const T *lse = x->lse + at->number * x->rows + i, *factors = 0;
  if (!is_plain(x)) set_logits(x, at, w, QUERIES, room, i, m, j, k.n);
  if (x->limit) multiply(d, QUERIES, factors = dropped(x, at, room, i, m, j, k.n), k.n);
  for (int v = 0; v < k.vectors; v++) {
    const int64_t n = v ? k.n : k.both, l = v * VL, end = MIN(n + TILE_ROWS, KEYS);
    const V shift = load_n(lse + l, (int)MIN(VL, m - l)), sum = vload(sums + l);
    hide(x, w + l, QUERIES, i + l - j, n);
    if (is_plain(x)) backward_vector(x, w + l, d + l, shift, sum, n, 1);
    else backward_vector(x, w + l, d + l, shift, sum, n, 0);
    for (int64_t r = n; r < end; r++) vstore(w + r * QUERIES + l, vzero()), vstore(d + r * QUERIES + l, vzero());
  }
  if (x->limit) multiply(w, QUERIES, factors, k.n);
}

/* sums[i] = gout_i out_i for a strip: g and y with queries across */
static void row_sums(T *sums, const T *g, const T *y, int64_t width) {
  for (int64_t l = 0; l < LANES; l += VL) {
    V sum = vzero();
    for (int64_t c = l; c < width * LANES; c += LANES) sum = vfma(vload(g + c), vload(y + c), sum);
    vstore(sums + l, sum);
  }
}

static void backward_items(void *context, int64_t begin, int64_t end) {
  const job *x = context;
  const int64_t rows = x->rows, keys = x->keys, depth = x->depth, width = x->value_depth, lanes = round_up(rows, LANES);
  const int64_t q_room = room(x->q_row, rows, depth, VL), k_room = room(x->k_row, keys, depth, VL);
  const int64_t v_room = room(x->v_row, keys, width, 1), g_room = room(x->out_row, rows, width, VL);
  const int64_t q_down = step_of(x->q_row, depth, VL), k_down = step_of(x->k_row, depth, VL);
  const int64_t v_down = step_of(x->v_row, width, 1), g_down = step_of(x->out_row, width, VL);
  const int64_t block = KEYS * QUERIES, more = MAX(2 * KEYS, width) * LANES, rooms = q_room + k_room + v_room + g_room;
  for (int64_t unit = begin; unit < end; unit++) {
    const item at = item_of(x, unit);
    T *w = mg_scratch(0, (size_t)(2 * block + more + lanes * (depth + width + 1) + rooms) * sizeof(T));
    if (!w) return;
    T *d = w + block, *work = d + block, *q_strips = work + more, *g_strips = q_strips + lanes * depth;
    T *sums = g_strips + lanes * width, *rest = sums + lanes;
    const T *q = whole_rows(rest, at.q, x->q_row, rows, depth, VL);
    const T *k = whole_rows(rest + q_room, at.k, x->k_row, keys, depth, VL);
    const T *v = whole_rows(rest + q_room + k_room, at.v, x->v_row, keys, width, 1);
    const T *g = whole_rows(rest + q_room + k_room + v_room, at.gout, x->out_row, rows, width, VL);
    pack_strips(q_strips, at.q, x->q_row, rows, depth);
    pack_strips(g_strips, at.gout, x->out_row, rows, width);
    for (int64_t i = 0; i < rows; i += LANES) {
      pack_strips(work, at.out + i * x->out_row, x->out_row, MIN(LANES, rows - i), width);
      row_sums(sums + i, g_strips + i * width, work, width);
    }
    if (x->causal && keys > rows) {            /* keys that no row sees */
      set_zero(at.gk ? at.gk + rows * x->gk_row : 0, x->gk_row, keys - rows, depth);
      set_zero(at.gv ? at.gv + rows * x->gv_row : 0, x->gv_row, keys - rows, width);
    }
    for (int64_t j = 0; j < keys; j += KEYS)
      for (int64_t i = x->causal ? j / QUERIES * QUERIES : 0; i < rows; i += QUERIES) {
        const int64_t m = MIN(QUERIES, rows - i), n = MIN(KEYS, keys - j);
        for (int64_t l = 0; l < m; l += LANES) {
          const span s = span_of(x, i + l, MIN(LANES, m - l), j);
          scores(w + l, QUERIES, k + j * k_down, k_down, depth, q_strips + (i + l) * depth, s);
          scores(d + l, QUERIES, v + j * v_down, v_down, width, g_strips + (i + l) * width, s);
          backward_strip(x, &at, w + l, d + l, sums + i + l, work, i + l, MIN(LANES, m - l), j, s);
        }
        if (at.gv)
          weigh_keys(x, at.gv + j * x->gv_row, x->gv_row, width, w, g + i * g_down, g_down, i, m, j, n);
        if (at.gk)
          weigh_keys(x, at.gk + j * x->gk_row, x->gk_row, depth, d, q + i * q_down, q_down, i, m, j, n);
        if (at.gq)
          weigh_queries(x, at.gq + i * x->gq_row, x->gq_row, depth, d, k + j * k_down, k_down, i, m, j, n, j > 0);
      }
    int wrong = is_masked(x) && (has_nan(at.gq, x->gq_row, rows, depth) || has_nan(at.gk, x->gk_row, keys, depth) ||
                                 has_nan(at.gv, x->gv_row, keys, width));
    for (int64_t i = 0; i < rows; i++) wrong |= x->lse[unit * rows + i] < INFINITY && is_huge(x->lse[unit * rows + i]);
    if (wrong) plain_backward(x, &at);
  }
}

void FN(attention_backward)(T *gq, T *gk, T *gv, const T *gout, const T *out, const T *lse, const T *q, const T *k,
                            const T *v, const T *bias, const uint8_t *allowed, const int64_t *stream,
                            const int64_t *table, int64_t items, int64_t rows, int64_t keys, int64_t depth,
                            int64_t value_depth, int64_t q_row, int64_t k_row, int64_t v_row, int64_t out_row,
                            int64_t gq_row, int64_t gk_row, int64_t gv_row, int64_t mask_row, int64_t mask_key,
                            int64_t causal, double scale, double p) {
  job x = job_of(q, k, v, bias, allowed, stream, table, rows, keys, depth, value_depth, q_row, k_row, v_row, out_row,
                 gq_row, gk_row, gv_row, mask_row, mask_key, causal, scale, p);
  x.gq = gq, x.gk = gk, x.gv = gv, x.gout = gout, x.out = (T *)out, x.lse = (T *)lse;
  mg_parallel(items, grain(items, rows * keys), backward_items, &x);
}

#endif
