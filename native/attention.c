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
 * The fast one never holds the matrix s as a whole (Dao et al. 2022, FlashAttention). A block of QUERIES rows takes one
 * block of KEYS keys after the other. A block of scores has the size of a first-level cache: the register tile of
 * gemm.c makes it, then it is turned into exponentials and multiplied with the block of v at once. The maximum m may
 * grow from block to block; then the sums so far, which belong to the old maximum, are scaled to the new one (Milakov
 * and Gimelshein 2018):
 *
 *     m' = max(m, max of the block)
 *     l' = l exp(m - m') + sum exp(s - m')
 *     out' = out exp(m - m') + exp(s - m') v
 *
 * Exponentials are powers of 2: scores are multiplied with scale log2 e, so m and lse are in units of log 2. An element
 * of a causal matrix of 128 x 128 scores, depth 32, takes 7.0 cycles of a core with one multiply-add of 16 lanes a
 * cycle, where its multiply-adds alone take 4 and its exponential 0.65. The backward takes 15.5 cycles, of which 10 are
 * multiply-adds.
 *
 * The backward needs q, k, v, out and lse only, and computes the blocks of weights w = exp(s - lse) again:
 *
 *     D_i = sum(gout_i out_i)      ds = w (drop * (gout v^T) - D) scale
 *     gv += (w drop)^T gout        gq += ds k        gk += ds^T q
 *
 * Strips of k^T and v^T are packed once for all rows that use them. Causal work is left out by tiles: for a tile of
 * rows no key beyond its last row is read. The bits of a row do not depend on the tile it is in: blocks of keys begin
 * at multiples of KEYS, and a masked key adds exactly 0. A row without any key gives 0, lse = inf, and gradients of 0.
 *
 * Dropout is drawn from Philox by position (item, row, key), in the forward and again in the backward. `stream` is the
 * generator's state, which the op keeps for this call.
 */
#include "gemm.h"
#include "loops.h"
#include "philox.h"

#if IS_REAL

/* Rows of a tile: about half of what the registers allow, where that still keeps the multiply-adds busy. A tile on the
 * diagonal computes what half of its rows do not use: 14 rows take 1.02 (512 x 64) to 1.05 (128 x 32) times as long as
 * 7. Eight rows end with a vector of keys, or half of one: 0.97 of the time of 7, with 64 rows 0.91. */
#define TILE_ROWS (GEMM_ROWS == 14 ? 8 : GEMM_ROWS)
#define QUERIES (GEMM_ROWS == 14 ? 64 : 48)    /* whole tiles */
#define KEYS (512 / (int)sizeof(T))            /* whole strips */
#define ROWS_PER_THREAD (8 * QUERIES)                    /* rows of a unit of work in the forward */

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

/* First row of tile t when m rows are cut into the fewest tiles. */
static int64_t tiles_of(int64_t m) { return (m + TILE_ROWS - 1) / TILE_ROWS; }
static int64_t first_of(int64_t m, int64_t t) { const int64_t n = tiles_of(m); return m / n * t + MIN(t, m % n); }

/* How many of the n keys from j on may be used by the rows before `row_end`. */
static int64_t seen(const job *x, int64_t row_end, int64_t j, int64_t n) {
  if (!x->causal) return n;
  return row_end <= j ? 0 : MIN(row_end - j, n);
}

/* ---- the products of blocks: rows from `i`, keys from `j` on, a block has KEYS columns in memory ---- */

#define STRIPS(j, n, vectors, tail, ...) \
  for (int64_t j = 0; j < (n); j += GEMM_STRIP) { \
    const int64_t left_ = MIN(GEMM_STRIP, (n) - j); \
    const int vectors = left_ > VL ? 2 : 1, tail = (int)(left_ - (vectors - 1) * VL); \
    __VA_ARGS__ \
  }
#define TILES(r, height, m, ...) \
  for (int64_t t_ = 0, r = 0, end_; t_ < tiles_of(m); t_++, r = end_) { \
    end_ = first_of(m, t_ + 1); \
    const int height = (int)(end_ - r); \
    __VA_ARGS__ \
  }

/* c[m, n] = a[m, depth] (rows `across` apart) times n columns of the packed strips */
NOINLINE void scores(const job *x, T *c, const T *a, int64_t across, int64_t depth, const T *strips, int64_t i,
                     int64_t m, int64_t j, int64_t n) {
  STRIPS(s, n, vectors, tail,
         TILES(r, height, m,
               const int64_t used = seen(x, i + r + height, j + s, GEMM_STRIP);
               const int half = vectors == 2 && used <= VL;      /* the diagonal: the second vector is not used */
               if (used)
                   FN(gemm_tile)(height, half ? 1 : vectors, depth, a + r * across, across, 1, strips + (j + s) * depth,
                                 GEMM_STRIP, c + r * KEYS + s, KEYS, half ? VL : tail, 0, 0);))
}

/* c[m, width] = (add ? c : 0) + w[m, n] b[n, width] */
NOINLINE void weigh(const job *x, T *c, int64_t width, const T *w, const T *b, int64_t down, int64_t i, int64_t m,
                 int64_t j, int64_t n, int add) {
  STRIPS(s, width, vectors, tail,
    TILES(r, height, m,
      const int64_t k = seen(x, i + r + height, j, n);
      if (k)
        FN(gemm_tile)(height, vectors, k, w + r * KEYS, KEYS, 1, b + s, down, c + r * width + s, width, tail, add, 0);))
}

/* c[n, width] += w[m, n]^T b[m, width]; the first rows that use a key write (=) instead of adding */
NOINLINE void weigh_back(const job *x, T *c, int64_t width, const T *w, const T *b, int64_t down, int64_t i, int64_t m,
                      int64_t j, int64_t n) {
  STRIPS(s, width, vectors, tail,
         TILES(r, height, n,
               const int64_t p = x->causal && j + r > i ? j + r - i : 0; /* earlier rows use none of these keys */
               if (p < m) FN(gemm_tile)(height, vectors, m - p, w + p * KEYS + r, 1, KEYS, b + p * down + s, down,
                                        c + r * width + s, width, tail, i > (x->causal ? j + r : 0), 0);))
}

/* ---- operands ---- */

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* elements that whole_rows writes */
static int64_t room(int64_t across, int64_t n, int64_t width) {
  return width % VL || across != width ? n * round_up(width, VL) : 0;
}

/* The first n of `keys` rows of x [keys, depth], transposed: strips [depth][GEMM_STRIP] */
NOINLINE void pack_strips(T *to, const T *x, int64_t across, int64_t n, int64_t keys, int64_t depth) {
  for (int64_t j = 0; j < n; j += GEMM_STRIP)
    FN(gemm_pack)(to + j * depth, GEMM_STRIP, keys - j, depth, x + j * across, across, 1);
}

/* Adjacent rows of whole vectors, as the register tile reads them: x itself where its rows are such. Rows far apart
 * fall into few sets of the first-level cache. */
NOINLINE const T *whole_rows(T *to, const T *x, int64_t across, int64_t n, int64_t width) {
  if (!room(across, n, width)) return x;
  const int64_t down = round_up(width, VL);
  for (int64_t i = 0; i < n; i++) EACH_VECTOR(j, k, width, vstore(to + i * down + j, load_n(x + i * across + j, k)););
  return to;
}

/* Results are summed in adjacent rows, too: in their place where it is such, else in `room`, from where rows_apart puts
 * them there. */
static T *summed(T *place, int64_t across, int64_t width, T *room) { return place && across != width ? room : place; }
static int64_t apart(const T *place, int64_t across, int64_t n, int64_t width) {
  return place && across != width ? n * width : 0;                               /* elements of that room */
}
NOINLINE void rows_apart(T *to, int64_t across, const T *x, int64_t n, int64_t width) {
  for (int64_t i = 0; to != x && i < n; i++)
    EACH_VECTOR(j, k, width, store_n(to + i * across + j, load_n(x + i * width + j, k), k););
}

/* ---- rows of scores ----
 *
 * Rows of a block are walked in whole vectors, the same number in each row of a register tile. A row uses `count` keys;
 * the lanes behind them become -inf, so that their weights are 0 in the products. `plain` is the common case, known at
 * compile time: no mask, scale > 0. */

INLINE VM lanes_before(int64_t n) {
  VM lane;
  for (int l = 0; l < VL; l++) lane[l] = l;
  return (VM)(lane < (TI)n - (VM){0});
}

static int is_plain(const job *x) { return !x->bias && !x->allowed && x->scale > 0; }

typedef struct { const T *bias; const uint8_t *allowed; int64_t count; } row_mask;

INLINE row_mask mask_of(const job *x, const item *at, int64_t i, int64_t j, int64_t n) {
  const int64_t from = i * x->mask_row + j * x->mask_key;
  return (row_mask){at->bias ? at->bias + from : 0, at->allowed ? at->allowed + from : 0, seen(x, i + 1, j, n)};
}

/* log2 e (scale * s + mask) for the vector at column c of n */
INLINE V logit(const job *x, const row_mask *m, V s, int64_t c, int64_t n) {
  typedef uint8_t Bytes __attribute__((vector_size(VBYTES / sizeof(T))));
  const int k = (int)MIN(VL, n - c);
  V v = s * x->step;
  if (m->bias) v = v + LOG2E_ * (x->mask_key ? vload_n(m->bias + c, k) : vset(*m->bias));
  if (m->allowed) {
    Bytes b = {0};
    if (!x->mask_key) b += *m->allowed;
    else if (k == VL) memcpy(&b, m->allowed + c, VL);
    else memcpy(&b, m->allowed + c, (size_t)k);
    v = vselect(__builtin_convertvector(b, VM) != 0, v, vset(-INFINITY));
  }
  return v;
}

NOINLINE void set_logits(const job *x, const row_mask *m, T *s, int64_t n) {
  for (int64_t c = 0; c < n; c += VL) vstore(s + c, logit(x, m, vload(s + c), c, n));
}

/* The lanes from `count` on, in the vectors of the first n columns: only those on the diagonal and of the last key. */
INLINE void set_behind(T *s, int64_t count, int64_t n, T value) {
  for (int64_t c = count / VL * VL; c < n; c += VL)
    vstore(s + c, vselect(lanes_before(count - c), vload(s + c), vset(value)));
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
static void set_zero(T *p, int64_t n) { if (p) memset(p, 0, (size_t)n * sizeof(T)); }

/* all gradients of an item, in adjacent rows */
NOINLINE void plain_backward(const job *x, const item *at, T *gq, T *gk, T *gv) {
  const int64_t rows = x->rows, keys = x->keys, depth = x->depth, width = x->value_depth;
  double *w = mg_scratch(1, (size_t)keys * (sizeof(double) + sizeof(T)));
  if (!w) return;
  T *factor = (T *)(w + keys);
  set_zero(gq, rows * depth), set_zero(gk, keys * depth), set_zero(gv, keys * width);
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
      add_scaled(gq ? gq + i * depth : 0, d, at->k + j * x->k_row, depth);
      add_scaled(gk ? gk + j * depth : 0, d, at->q + i * x->q_row, depth);
      add_scaled(gv ? gv + j * width : 0, w[j] * factor[j], g, width);
    }
  }
}

static int has_nan(const T *p, int64_t n) {
  V sum = vzero();
  if (p) EACH_VECTOR(c, k, n, const V v = load_n(p + c, k); sum += v - v;);      /* inf - inf is NaN, too */
  return vsum(sum) != 0;
}
static int is_masked(const job *x) { return x->causal || x->bias || x->allowed; }
/* Also inf and -inf: finite logits may overflow in units of log 2, as with the lowest number as a mask. */
static int is_huge(T logit) { return MATH(fabs)(logit) > HUGE_SCORE; }

/* ---- forward ---- */

/* Turns R rows of scores, from row i on, keys [j, j + n), into exponentials. top and sum are those of the rows so far.
 * Several rows go side by side, so that their horizontal maxima and sums overlap. Maxima are those of the logits, in
 * units of log 2; a plain logit is a multiple of the score and is not stored. */
INLINE void exponentials(const job *x, const item *at, T *s, T *out, T *top, T *sum, int64_t i, int64_t j, int64_t n,
                         const int R, const int plain) {
  const int64_t row0 = at->number * x->rows + i;
  row_mask mask[4];
  V most[4], total[4];
  T high[4], shift[4], added[4];
  EACH_ROW(r) {
    mask[r] = mask_of(x, at, i + r, j, n), most[r] = vset(-INFINITY), total[r] = vzero();
    if (!plain) set_logits(x, &mask[r], s + r * KEYS, n);
    set_behind(s + r * KEYS, mask[r].count, n, -INFINITY);
  }
  for (int64_t c = 0; c < n; c += VL)
    EACH_ROW(r) most[r] = vupper_(vload(s + r * KEYS + c), most[r]);         /* NaN is left to the exponentials */
  EACH_ROW(r) high[r] = largest(most[r]);
  for (int r = 0; r < R; r++) {
    if (plain) high[r] *= x->step;
    if (x->weights && mask[r].count)
      memcpy(x->weights + (row0 + r) * x->keys + j, s + r * KEYS, (size_t)mask[r].count * sizeof(T));
    high[r] = larger(high[r], top[r]);
    shift[r] = high[r] == -INFINITY ? 0 : high[r];
  }
  EACH_ROW(r) most[r] = vset(shift[r]);
  const V step = vset(x->step);
  for (int64_t c = 0; c < n; c += VL)
    EACH_ROW(r) {
      T *to = s + r * KEYS + c;
      const V v = vexp2_down(plain ? vfma(vload(to), step, -most[r]) : vload(to) - most[r]);
      vstore(to, v);
      total[r] += v;
    }
  EACH_ROW(r) added[r] = vsum(total[r]);
  for (int r = 0; r < R; r++) {
    if (j > 0 && high[r] != top[r]) {
      const V shrink = vexp2_down(vset(top[r] - shift[r]));
      T *y = out + r * x->value_depth;
      sum[r] *= shrink[0];
      EACH_VECTOR(c, k, x->value_depth, store_n(y + c, load_n(y + c, k) * shrink, k););
    }
    sum[r] += added[r];
    top[r] = high[r];
    if (x->limit) drop(x, at, s + r * KEYS, i + r, j, mask[r].count);
  }
}

/* rows [i, i + m), m <= QUERIES; s: a block, behind it room for sums; q: those rows, with step `across`; strips of k;
 * rows of v with step `down` */
static void forward_block(const job *x, const item *at, T *s, const T *q, int64_t across, const T *strips, const T *v,
                          int64_t down, int64_t i, int64_t m) {
  const int64_t width = x->value_depth, row0 = at->number * x->rows + i, all = seen(x, i + m, 0, x->keys);
  const int plain = is_plain(x);
  T *place = at->out + i * x->out_row, *out = summed(place, x->out_row, width, s + QUERIES * KEYS);
  T top[QUERIES], sum[QUERIES], parts[QUERIES];
  for (int64_t r = 0; r < m; r++) top[r] = -INFINITY, sum[r] = 0;
  for (int64_t j = 0; j < all; j += KEYS) {
    const int64_t n = MIN(KEYS, all - j);
    scores(x, s, q, across, x->depth, strips, i, m, j, n);
    for (int64_t r = 0, four, tile = 0, end = 0; r < m; r += four ? 4 : 1) {
      four = plain && r + 4 <= m;
      while (end < r + (four ? 4 : 1)) end = first_of(m, ++tile);           /* the product reads what its tile sees */
      const int64_t used = seen(x, i + end, j, n);
      if (four) exponentials(x, at, s + r * KEYS, out + r * width, top + r, sum + r, i + r, j, used, 4, 1);
      else exponentials(x, at, s + r * KEYS, out + r * width, top + r, sum + r, i + r, j, used, 1, plain);
    }
    weigh(x, out, width, s, v + j * down, down, i, m, j, n, j > 0);
  }
  EACH_VECTOR(r, k, m,
    const V total = load_n(sum + r, k);
    const VM none = total == 0;
    store_n(parts + r, vselect(none, vzero(), 1 / total), k);
    store_n(x->lse + row0 + r, vselect(none, vset(INFINITY), load_n(top + r, k) + vlog2(total)), k););
  V odd = vzero();                                     /* NaN if a row holds inf or NaN */
  int huge = 0;
  for (int64_t r = 0; r < m; r++) {
    const T part = parts[r];
    EACH_VECTOR(c, k, width,
      const V y = load_n(out + r * width + c, k) * part;
      store_n(place + r * x->out_row + c, y, k);
      odd = vfma(y, vzero(), odd););
    huge |= is_huge(top[r]);
    if (!x->weights) continue;
    T *w = x->weights + (row0 + r) * x->keys;
    const int64_t count = seen(x, i + r + 1, 0, x->keys);
    const V shift = vset(sum[r] == 0 ? INFINITY : top[r]);
    EACH_VECTOR(c, k, count,
      const V s = load_n(w + c, k);
      store_n(w + c, vexp2_down(plain ? vfma(s, vset(x->step), -shift) : s - shift) * part, k););
    for (int64_t c = count; c < x->keys; c++) w[c] = 0 * part;        /* NaN stays in its whole row */
    if (x->limit) drop(x, at, w, i + r, 0, count);
  }
  if (__builtin_expect(!huge && !(is_masked(x) && vsum(odd) != 0), 1)) return;
  for (int64_t r = 0; r < m; r++)
    if (is_huge(top[r]) || (is_masked(x) && has_nan(place + r * x->out_row, width))) plain_forward(x, at, i + r);
}

static int64_t chunks(const job *x) { return (x->rows + ROWS_PER_THREAD - 1) / ROWS_PER_THREAD; }

static void forward_units(void *context, int64_t begin, int64_t end) {
  const job *x = context;
  for (int64_t unit = begin; unit < end; unit++) {
    const item at = item_of(x, unit / chunks(x));
    const int64_t first = unit % chunks(x) * ROWS_PER_THREAD, last = MIN(first + ROWS_PER_THREAD, x->rows),
                  all = seen(x, last, 0, x->keys);
    const int64_t packed = round_up(all, GEMM_STRIP) * x->depth, v_room = room(x->v_row, all, x->value_depth);
    const int64_t far = x->q_row != x->depth, across = far ? round_up(x->depth, VL) : x->depth;
    const int64_t sums = apart(x->out, x->out_row, QUERIES, x->value_depth);
    const int64_t q_room = far * ROWS_PER_THREAD * across;
    T *s = mg_scratch(0, (size_t)(QUERIES * KEYS + sums + packed + v_room + q_room) * sizeof(T)),
      *strips = s + QUERIES * KEYS + sums;
    if (!s) return;
    pack_strips(strips, at.k, x->k_row, all, x->keys, x->depth);
    const T *v = whole_rows(strips + packed, at.v, x->v_row, all, x->value_depth);
    const T *q = at.q + first * x->q_row;
    if (far) q = whole_rows(strips + packed + v_room, q, x->q_row, last - first, x->depth);
    for (int64_t i = first; i < last; i += QUERIES)
      forward_block(x, &at, s, q + (i - first) * across, across, strips, v, round_up(x->value_depth, VL), i,
                    MIN(QUERIES, last - i));
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

/* A row's weights into w (times drop) and its ds into d, which comes as gout v^T: row i, keys [j, j + n) */
INLINE void backward_row(const job *x, const item *at, T *w, T *d, T lse, T sum, int64_t i, int64_t j, int64_t n,
                         const int plain) {
  const row_mask mask = mask_of(x, at, i, j, n);
  const V scale = vset(x->scale), step = vset(x->step), shift = vset(lse), less = vset(sum * x->scale);
  if (x->limit) drop(x, at, d, i, j, mask.count);
  if (!plain) set_logits(x, &mask, w, n);
  set_behind(w, mask.count, n, -INFINITY);
  set_behind(d, mask.count, n, 0);
  for (int64_t c = 0; c < n; c += VL) {
    const V v = vexp2_down(plain ? vfma(vload(w + c), step, -shift) : vload(w + c) - shift);
    vstore(w + c, v);
    vstore(d + c, v * vfma(vload(d + c), scale, -less));
  }
  if (x->limit) drop(x, at, w, i, j, mask.count);
}

/* The same for a block of m rows. The products read TILE_ROWS - 1 columns behind the last key that a row sees, at
 * most. */
static void backward_rows(const job *x, const item *at, T *w, T *d, const T *sums, int64_t i, int64_t m, int64_t j,
                          int64_t n) {
  const T *lse = x->lse + at->number * x->rows + i;
  for (int64_t r = 0; r < m; r++) {
    const int64_t count = seen(x, i + r + TILE_ROWS, j, n);
    if (is_plain(x)) backward_row(x, at, w + r * KEYS, d + r * KEYS, lse[r], sums[i + r], i + r, j, count, 1);
    else backward_row(x, at, w + r * KEYS, d + r * KEYS, lse[r], sums[i + r], i + r, j, count, 0);
  }
}

static void backward_items(void *context, int64_t begin, int64_t end) {
  const job *x = context;
  const int64_t rows = x->rows, keys = x->keys, depth = x->depth, width = x->value_depth;
  const int64_t down = round_up(depth, VL), vdown = round_up(width, VL), columns = round_up(keys, GEMM_STRIP);
  for (int64_t unit = begin; unit < end; unit++) {
    const item at = item_of(x, unit);
    const int64_t q_room = room(x->q_row, rows, depth), k_room = room(x->k_row, keys, depth);
    const int64_t g_room = room(x->out_row, rows, width), gq_room = apart(at.gq, x->gq_row, rows, depth);
    const int64_t gk_room = apart(at.gk, x->gk_row, keys, depth), gv_room = apart(at.gv, x->gv_row, keys, width);
    const int64_t rooms = q_room + k_room + g_room + gq_room + gk_room + gv_room;
    T *w = mg_scratch(
        0, (size_t)(2 * QUERIES * KEYS + columns * (depth + width) + round_up(rows, VL) + rooms) * sizeof(T));
    if (!w) return;
    T *d = w + QUERIES * KEYS, *k_strips = d + QUERIES * KEYS, *v_strips = k_strips + columns * depth;
    T *sums = v_strips + columns * width, *rest = sums + round_up(rows, VL);
    const T *q_rows = whole_rows(rest, at.q, x->q_row, rows, depth);
    const T *k_rows = whole_rows(rest + q_room, at.k, x->k_row, keys, depth);
    const T *g_rows = whole_rows(rest + q_room + k_room, at.gout, x->out_row, rows, width);
    rest += q_room + k_room + g_room;
    T *gq = summed(at.gq, x->gq_row, depth, rest), *gk = summed(at.gk, x->gk_row, depth, rest + gq_room);
    T *gv = summed(at.gv, x->gv_row, width, rest + gq_room + gk_room);
    pack_strips(k_strips, at.k, x->k_row, keys, keys, depth);
    pack_strips(v_strips, at.v, x->v_row, keys, keys, width);
    for (int64_t i = 0; i < rows; i++) {
      const T *g = at.gout + i * x->out_row, *y = at.out + i * x->out_row;
      V sum = vzero();
      EACH_VECTOR(c, k, width, sum = vfma(load_n(g + c, k), load_n(y + c, k), sum););
      sums[i] = vsum(sum);
    }
    if (x->causal && keys > rows) {            /* keys that no row sees */
      if (gk) memset(gk + rows * depth, 0, (size_t)((keys - rows) * depth) * sizeof(T));
      if (gv) memset(gv + rows * width, 0, (size_t)((keys - rows) * width) * sizeof(T));
    }
    for (int64_t j = 0; j < keys; j += KEYS) {
      const int64_t n = MIN(KEYS, keys - j);
      for (int64_t i = x->causal ? j / QUERIES * QUERIES : 0; i < rows; i += QUERIES) {
        const int64_t m = MIN(QUERIES, rows - i);
        scores(x, w, q_rows + i * down, down, depth, k_strips, i, m, j, n);
        scores(x, d, g_rows + i * vdown, vdown, width, v_strips, i, m, j, n);
        backward_rows(x, &at, w, d, sums, i, m, j, n);
        if (gv) weigh_back(x, gv + j * width, width, w, g_rows + i * vdown, vdown, i, m, j, n);
        if (gk) weigh_back(x, gk + j * depth, depth, d, q_rows + i * down, down, i, m, j, n);
        if (gq) weigh(x, gq + i * depth, depth, d, k_rows + j * down, down, i, m, j, n, j > 0);
      }
    }
    int wrong = is_masked(x) && (has_nan(gq, gq ? rows * depth : 0) || has_nan(gk, gk ? keys * depth : 0) ||
                                 has_nan(gv, gv ? keys * width : 0));
    for (int64_t i = 0; i < rows; i++) wrong |= x->lse[unit * rows + i] < INFINITY && is_huge(x->lse[unit * rows + i]);
    if (wrong) plain_backward(x, &at, gq, gk, gv);
    if (gq) rows_apart(at.gq, x->gq_row, gq, rows, depth);
    if (gk) rows_apart(at.gk, x->gk_row, gk, keys, depth);
    if (gv) rows_apart(at.gv, x->gv_row, gv, keys, width);
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
