/* types: f32 f64 */
/* Normalisation: layer, RMS, batch and group norm (instance norm is group norm with one channel a group).
 *
 * All of them are
 *     y = (x - mean) * rstd * weight + bias,   mean and var over a set S of elements,   rstd = 1 / sqrt(var + eps)
 * with gradients (g = gy * weight, xhat = (x - mean) * rstd, averages over the same S)
 *     gx = rstd * (g - average(g) - xhat * average(g * xhat)),   gweight = sum(gy * xhat),   gbias = sum(gy)
 * and differ in what S is: a contiguous row, a column, or strips. weight, bias and the gradient outputs may be null.
 *
 * Accuracy: the variance is the mean of (x - mean)^2 with the mean known, in two passes over data that is still in
 * cache, never E[x^2] - E[x]^2. Sums run per vector lane over at most BLOCK_ELEMENTS elements, and blocks are added in
 * double. Same bits: how sums are split depends on shapes only, never on threads, and a row's result not on its
 * neighbours.
 *
 * Range: the result does not depend on the scale of x, but its squares overflow or vanish where x is near the ends of
 * T's range. Then rstd tells so, and that set is done again by the plain loop in a wider type.
 */
#include "loops.h"
#include "norm.h"

#if IS_REAL

/* ---- the plain loop, for sets whose squares leave the range of T ---- */
#if TYPE_IS == 1
typedef double Wide;
#define ROOT sqrt
#define RANGE_BITS 7
#else
typedef long double Wide;            /* no wider than double on some targets; then it changes nothing */
#define ROOT sqrtl
#define RANGE_BITS 10
#endif

/* Did squares leave the range of T, or nearly so? In range, rstd is from 2^-64 to 2^64 (2^-512 to 2^512): the bits of
 * these numbers less those of the first are below 2^30 (2^62). Not so of others, of 0, inf and NaN. */
INLINE int some_out_of_range(const T *rstd, int64_t n) {
  TU found = 0;
  for (int64_t i = 0; i < n; i++) {
    TU bits;
    memcpy(&bits, rstd + i, sizeof bits);
    found |= bits - ((TU)(BIAS_ - (1 << (RANGE_BITS - 1))) << MANTISSA_);
  }
  return found >> (MANTISSA_ + RANGE_BITS) != 0;
}
static inline int out_of_range(T rstd) { return some_out_of_range(&rstd, 1); }

/* The n elements of a set lie in strips; `each` neighbours share a weight. */
typedef struct { int64_t n, strip, stride, each; } set;
static inline int64_t place(set s, int64_t e) { return e / s.strip * s.stride + e % s.strip; }

/* mean and var may be null; the mean counts as 0 unless `centred` */
NOINLINE void plain_forward(T *y, T *mean, T *var, T *rstd, const T *x, const T *weight, const T *bias, set s,
                            double eps, int centred) {
  Wide sum = 0, squares = 0;
  for (int64_t e = 0; e < s.n; e++) sum += x[place(s, e)];
  const Wide m = centred ? sum / (Wide)s.n : 0;
  for (int64_t e = 0; e < s.n; e++) squares += (x[place(s, e)] - m) * (x[place(s, e)] - m);
  const Wide r = 1 / ROOT(squares / (Wide)s.n + eps);
  if (mean) *mean = (T)m;
  if (var) *var = (T)(squares / (Wide)s.n);
  *rstd = (T)r;
  for (int64_t e = 0; e < s.n; e++) {
    const Wide w = weight ? weight[e / s.each] : 1, b = bias ? bias[e / s.each] : 0;
    y[place(s, e)] = (T)((x[place(s, e)] - m) * r * w + b);
  }
}

/* gx, gw and gb may be null. The sums for weight and bias are added to gw and gb, or (first) written there. */
NOINLINE void plain_backward(T *gx, T *gw, T *gb, const T *gy, const T *x, T mean, T rstd, const T *weight, set s,
                             int centred, int first) {
  Wide c1 = 0, c2 = 0, sum = 0, sum_xhat = 0;
  for (int64_t e = 0; e < s.n; e++) {
    const int64_t c = e / s.each;
    const Wide g = gy[place(s, e)], w = weight ? weight[c] : 1, xhat = ((Wide)x[place(s, e)] - mean) * rstd;
    c1 += g * w, c2 += g * w * xhat, sum += g, sum_xhat += g * xhat;
    if ((e + 1) % s.each) continue;
    if (gw) gw[c] = (T)(first ? sum_xhat : gw[c] + sum_xhat);
    if (gb) gb[c] = (T)(first ? sum : gb[c] + sum);
    sum = sum_xhat = 0;
  }
  c1 = centred ? c1 / (Wide)s.n : 0, c2 /= (Wide)s.n;
  for (int64_t e = 0; gx && e < s.n; e++) {
    const Wide w = weight ? weight[e / s.each] : 1, xhat = ((Wide)x[place(s, e)] - mean) * rstd;
    gx[place(s, e)] = (T)((gy[place(s, e)] * w - c1 - xhat * c2) * rstd);
  }
}

/* ---- layer norm and RMS norm: x is [rows, n], S a row -------------------------------------------------------------
 *
 *   for each row:  mean = sum(x) / n;  var = sum((x - mean)^2) / n;  rstd = 1 / sqrt(var + eps)
 *                  y = (x - mean) * rstd * weight + bias
 *
 * RMS norm is the same text with mean 0 and no bias.
 *
 * A row is read from memory once, then from L1. Short rows are limited not by bandwidth but by latency: each row ends
 * in two horizontal sums, a division and a square root, and the next pass needs them. So R = 4 rows go side by side,
 * each with its own chain of sums, and weight and bias are loaded once for four rows. Rows left over go one by one,
 * through the same operations in the same order.
 */

/* s[r] += the elements of row r */
INLINE void add_rows(V *s, const T *x, int64_t stride, int64_t n, const int R) {
  EACH_VECTOR(j, k, n, EACH_ROW(r) s[r] += load_n(x + r * stride + j, k););
}
/* rest[r] += the distances from mean[r], squares[r] += their squares */
INLINE void add_squares(V *rest, V *squares, const V *mean, const T *x, int64_t stride, int64_t n, const int R,
                        const int centred) {
  EACH_VECTOR(j, k, n,
    EACH_ROW(r) {
      V d = keep(load_n(x + r * stride + j, k) - mean[r], k);
      if (centred) rest[r] += d;
      squares[r] = vfma(d, d, squares[r]);
    });
}

/* mean (0 unless `centred`) and rstd of R rows, broadcast. The distances from the first, rounded mean add up to what
 * that mean is off by; correcting it costs one addition and makes the mean the nearest T to the true one. */
INLINE void moments(V *mean, V *rstd, const T *x, int64_t n, double eps, const int R, const int centred) {
  V s[4], q[4];
  T var[4];
  EACH_ROW(r) s[r] = q[r] = mean[r] = vzero();
  if (n <= BLOCK_ELEMENTS) {
    if (centred) add_rows(s, x, n, n, R);
    EACH_ROW(r) mean[r] = vset(vsum(s[r]) / (T)n), s[r] = vzero();
    add_squares(s, q, mean, x, n, n, R, centred);
    EACH_ROW(r) {
      const T rest = vsum(s[r]) / (T)n;
      mean[r] += vset(rest);
      var[r] = vsum(q[r]) / (T)n - rest * rest;
    }
  } else {
    double sum[4] = {0}, squares[4] = {0};
    for (int64_t b = 0; centred && b < n; b += BLOCK_ELEMENTS) {
      EACH_ROW(r) s[r] = vzero();
      add_rows(s, x + b, n, MIN(BLOCK_ELEMENTS, n - b), R);
      EACH_ROW(r) sum[r] += vsum(s[r]);
    }
    EACH_ROW(r) mean[r] = vset((T)(sum[r] / (double)n)), sum[r] = 0;
    for (int64_t b = 0; b < n; b += BLOCK_ELEMENTS) {
      EACH_ROW(r) s[r] = q[r] = vzero();
      add_squares(s, q, mean, x + b, n, MIN(BLOCK_ELEMENTS, n - b), R, centred);
      EACH_ROW(r) sum[r] += vsum(s[r]), squares[r] += vsum(q[r]);
    }
    EACH_ROW(r) {
      const double rest = sum[r] / (double)n;
      mean[r] += vset((T)rest);
      var[r] = (T)(squares[r] / (double)n - rest * rest);
    }
  }
  EACH_ROW(r) rstd[r] = vset(1 / MATH(sqrt)(var[r] + (T)eps));
}

typedef struct {
  T *y, *mean, *rstd;
  const T *x, *weight, *bias;
  int64_t n;
  double eps;
} layer_norm_args;

INLINE void layer_norm_some(const layer_norm_args *a, int64_t row, const int R, const int centred) {
  const int64_t n = a->n;
  const T *x = a->x + row * n;
  T *y = a->y + row * n;
  V mean[4], rstd[4];
  moments(mean, rstd, x, n, a->eps, R, centred);
  EACH_ROW(r) {
    if (centred) a->mean[row + r] = mean[r][0];
    a->rstd[row + r] = rstd[r][0];
  }
  EACH_VECTOR(j, k, n,
    V w = load_n_or(a->weight, j, k, 1);
    V b = centred ? load_n_or(a->bias, j, k, 0) : vzero();
    EACH_ROW(r) {
      V xhat = (load_n(x + r * n + j, k) - mean[r]) * rstd[r];
      store_n(y + r * n + j, centred ? vfma(xhat, w, b) : xhat * w, k);
    });
  if (__builtin_expect(!some_out_of_range(a->rstd + row, R), 1)) return;
  for (int r = 0; r < R; r++)
    if (out_of_range(a->rstd[row + r]))
      plain_forward(y + r * n, centred ? a->mean + row + r : 0, 0, a->rstd + row + r, x + r * n, a->weight, a->bias,
                    (set){n, n, 0, 1}, a->eps, centred);
}

static void layer_norm_rows(void *context, int64_t begin, int64_t end) {
  const layer_norm_args *a = context;
  int64_t row = begin;
  for (; row + 4 <= end; row += 4) layer_norm_some(a, row, 4, 1);
  for (; row < end; row++) layer_norm_some(a, row, 1, 1);
}

static void rms_norm_rows(void *context, int64_t begin, int64_t end) {
  const layer_norm_args *a = context;
  int64_t row = begin;
  for (; row + 4 <= end; row += 4) layer_norm_some(a, row, 4, 0);
  for (; row < end; row++) layer_norm_some(a, row, 1, 0);
}

void FN(layer_norm_forward)(T *y, T *mean, T *rstd, const T *x, const T *weight, const T *bias, int64_t rows, int64_t n,
                            double eps) {
  layer_norm_args a = {y, mean, rstd, x, weight, bias, n, eps};
  mg_parallel(rows, (grain(rows, n) + 3) / 4 * 4, layer_norm_rows, &a);
}

void FN(rms_norm_forward)(T *y, T *rstd, const T *x, const T *weight, int64_t rows, int64_t n, double eps) {
  layer_norm_args a = {y, 0, rstd, x, weight, 0, n, eps};
  mg_parallel(rows, (grain(rows, n) + 3) / 4 * 4, rms_norm_rows, &a);
}

/* Backward. Two sums along each row, for gx, and two along each column, for gweight and gbias:
 *
 *   for each row:  g = gy * weight;  d = x - mean;  c1 = sum(g) / n;  c2 = rstd^2 * sum(g * d) / n
 *                  gx = rstd * (g - c1 - d * c2);   gweight += gy * d * rstd;   gbias += gy
 *
 * Again four rows go at a time: their terms of a column are added in registers first, so that the column sums cost one
 * load and one store for four rows. The rows are split into mg_chunks(rows) chunks, each with its own column sums in
 * `partial`; these are added in order at the end, so the bits depend on the shape alone.
 */
typedef struct {
  T *gx, *partial;             /* partial is null if neither gweight nor gbias is wanted */
  const T *gy, *x, *mean, *rstd, *weight;
  int64_t rows, n, chunk;      /* chunk: rows of a chunk */
} layer_norm_back_args;

/* Elements [b, b + length) of R rows: adds to the rows' sums s1 and s2 and to the columns' sums gw and gb. */
INLINE void layer_norm_back_sums(const layer_norm_back_args *a, V *s1, V *s2, const V *mean, const V *rstd, int64_t row,
                                 int64_t b, int64_t length, T *gw, int first, const int R, const int centred) {
  const int64_t n = a->n;
  const T *x = a->x + row * n;
  const T *gy = a->gy + row * n;
  EACH_VECTOR(i, k, length,
    const int64_t j = b + i;
    V w = load_n_or(a->weight, j, k, 1);
    V pw = vzero();
    V pb = vzero();
    EACH_ROW(r) {
      V g = load_n(gy + r * n + j, k);
      V p = g * (load_n(x + r * n + j, k) - mean[r]);
      if (centred) s1[r] = vfma(g, w, s1[r]);
      s2[r] = vfma(p, w, s2[r]);
      pw = vfma(p, rstd[r], pw);
      pb += g;
    }
    if (gw) {
      store_n(gw + j, first ? pw : load_n(gw + j, k) + pw, k);
      if (centred) store_n(gw + n + j, first ? pb : load_n(gw + n + j, k) + pb, k);
    });
}

INLINE void layer_norm_back_of(const layer_norm_back_args *a, int64_t row, T *gw, int first, const int R,
                               const int centred) {
  const int64_t n = a->n;
  V mean[4], rstd[4], s1[4], s2[4], c1[4], c2[4];
  EACH_ROW(r) {
    mean[r] = centred ? vset(a->mean[row + r]) : vzero();
    rstd[r] = vset(a->rstd[row + r]);
    s1[r] = s2[r] = vzero();
  }
  if (n <= BLOCK_ELEMENTS) {
    layer_norm_back_sums(a, s1, s2, mean, rstd, row, 0, n, gw, first, R, centred);
    EACH_ROW(r) {
      const T rs = a->rstd[row + r];
      c1[r] = vset(-vsum(s1[r]) / (T)n);
      c2[r] = vset(-vsum(s2[r]) * rs / (T)n * rs);
    }
  } else {
    double sum1[4] = {0}, sum2[4] = {0};
    for (int64_t b = 0; b < n; b += BLOCK_ELEMENTS) {
      EACH_ROW(r) s1[r] = s2[r] = vzero();
      layer_norm_back_sums(a, s1, s2, mean, rstd, row, b, MIN(BLOCK_ELEMENTS, n - b), gw, first, R, centred);
      EACH_ROW(r) sum1[r] += vsum(s1[r]), sum2[r] += vsum(s2[r]);
    }
    EACH_ROW(r) {
      const double rs = a->rstd[row + r];
      c1[r] = vset((T)(-sum1[r] / (double)n));
      c2[r] = vset((T)(-sum2[r] * rs / (double)n * rs));
    }
  }
  if (!a->gx) return;
  const T *x = a->x + row * n;
  const T *gy = a->gy + row * n;
  T *gx = a->gx + row * n;
  EACH_VECTOR(j, k, n,
    V w = load_n_or(a->weight, j, k, 1);
    EACH_ROW(r) {
      V g = load_n(gy + r * n + j, k);
      V d = load_n(x + r * n + j, k) - mean[r];
      store_n(gx + r * n + j, vfma(d, c2[r], centred ? vfma(g, w, c1[r]) : g * w) * rstd[r], k);
    });
}

typedef void back_rows(const layer_norm_back_args *a, int64_t row, T *gw, int first);
NOINLINE void layer_back_4(const layer_norm_back_args *a, int64_t row, T *gw, int first) {
  layer_norm_back_of(a, row, gw, first, 4, 1);
}
NOINLINE void layer_back_1(const layer_norm_back_args *a, int64_t row, T *gw, int first) {
  layer_norm_back_of(a, row, gw, first, 1, 1);
}
NOINLINE void rms_back_4(const layer_norm_back_args *a, int64_t row, T *gw, int first) {
  layer_norm_back_of(a, row, gw, first, 4, 0);
}
NOINLINE void rms_back_1(const layer_norm_back_args *a, int64_t row, T *gw, int first) {
  layer_norm_back_of(a, row, gw, first, 1, 0);
}

/* Rows [row, last). first: are the sums in gw to be overwritten, not added to? */
static void layer_norm_back_rows(const layer_norm_back_args *a, int64_t row, int64_t last, T *gw, int first,
                                 int centred) {
  back_rows *four = centred ? layer_back_4 : rms_back_4, *one = centred ? layer_back_1 : rms_back_1;
  const int64_t n = a->n;
  for (int rows; row < last; row += rows, first = 0) {
    rows = row + 4 <= last && !some_out_of_range(a->rstd + row, 4) ? 4 : 1;
    if (rows == 4) four(a, row, gw, first);
    else if (!out_of_range(a->rstd[row])) one(a, row, gw, first);
    else
      plain_backward(a->gx ? a->gx + row * n : 0, gw, gw && centred ? gw + n : 0, a->gy + row * n, a->x + row * n,
                     centred ? a->mean[row] : 0, a->rstd[row], a->weight, (set){n, n, 0, 1}, centred, first);
  }
}

static void layer_norm_back_chunks(const layer_norm_back_args *a, int64_t begin, int64_t end, int centred) {
  const int64_t width = centred ? 2 * a->n : a->n;
  for (int64_t c = begin; c < end; c++) {
    T *gw = a->partial ? a->partial + c * width : 0;
    const int64_t row = c * a->chunk, last = MIN(row + a->chunk, a->rows);
    if (gw && row >= last) memset(gw, 0, (size_t)width * sizeof(T));
    layer_norm_back_rows(a, row, last, gw, 1, centred);
  }
}
static void layer_norm_chunks(void *context, int64_t begin, int64_t end) {
  layer_norm_back_chunks(context, begin, end, 1);
}
static void rms_norm_chunks(void *context, int64_t begin, int64_t end) {
  layer_norm_back_chunks(context, begin, end, 0);
}

/* out[j] = sum over rows of p[row * stride + j], in order, in runs of 32 to bound the error; nothing if out is null */
static void sum_rows(T *out, const T *p, int64_t rows, int64_t stride, int64_t n) {
  if (!out) return;
  EACH_VECTOR(j, k, n,
    V total = vzero();
    for (int64_t r = 0; r < rows;) {
      V s = vzero();
      for (int64_t last = MIN(r + 32, rows); r < last; r++) s += load_n(p + r * stride + j, k);
      total += s;
    }
    store_n(out + j, total, k););
}

void FN(layer_norm_backward)(T *gx, T *gweight, T *gbias, T *partial, const T *gy, const T *x, const T *mean,
                             const T *rstd, const T *weight, int64_t rows, int64_t n) {
  const int64_t chunks = mg_chunks(rows), chunk = (rows + chunks - 1) / chunks;
  layer_norm_back_args a = {gx, gweight || gbias ? partial : 0, gy, x, mean, rstd, weight, rows, n, chunk};
  mg_parallel(chunks, grain(chunks, chunk * n), layer_norm_chunks, &a);
  sum_rows(gweight, partial, chunks, 2 * n, n);
  sum_rows(gbias, partial + n, chunks, 2 * n, n);
}

void FN(rms_norm_backward)(T *gx, T *gweight, T *partial, const T *gy, const T *x, const T *rstd, const T *weight,
                           int64_t rows, int64_t n) {
  const int64_t chunks = mg_chunks(rows), chunk = (rows + chunks - 1) / chunks;
  layer_norm_back_args a = {gx, gweight ? partial : 0, gy, x, 0, rstd, weight, rows, n, chunk};
  mg_parallel(chunks, grain(chunks, chunk * n), rms_norm_chunks, &a);
  sum_rows(gweight, partial, chunks, n, n);
}

void FN(norm_rows_backward)(T *gx, T *sums, const T *gy, const T *x, const T *mean, const T *rstd, const T *weight,
                            int64_t rows, int64_t n, int64_t centred) {
  layer_norm_back_args a = {gx, sums, gy, x, mean, rstd, weight, rows, n, rows};
  layer_norm_back_rows(&a, 0, rows, sums, 0, (int)centred);
}

/* ---- batch norm: x is [batch, channels, inner], S all of a channel ------------------------------------------------
 *
 *   for each channel c:  mean = average(x[:, c, :]);  var = average((x[:, c, :] - mean)^2);  rstd = 1 / sqrt(var + eps)
 *                        y[:, c, :] = (x[:, c, :] - mean) * rstd * weight[c] + bias[c]
 *
 * S is as large as the batch, so three passes over it would be three trips to memory. Instead it is cut into blocks
 * that fit in L1; each gets its own mean and its own sum of squared distances in two passes, and block and total are
 * merged with the formula of Chan, Golub and LeVeque (1979), in double, all means counted from the channel's first
 * element, so that a large common mean takes no digits from delta:
 *     delta = mean_b - mean;   mean += delta * n_b / (n + n_b);   M2 += M2_b + delta^2 * n * n_b / (n + n_b)
 * Memory is read once for the statistics and once to normalise. The second time it mostly comes from L2, because a
 * thread finishes some channels before it begins others.
 *
 * Two shapes of block, by the length of the contiguous strips that a channel is made of:
 *   inner >= LONG_STRIP  strips of one channel, summed along the lanes;
 *   inner <  LONG_STRIP  columns: x is taken as [batch, channels * inner], and lanes are columns. This needs no
 *                        horizontal sums and no tails. The `inner` columns of a channel are merged afterwards.
 *                        inner == 1 is the 2-D case.
 */
#define LONG_STRIP 128
#define BLOCK_COLUMNS 512            /* at most so many columns are worked on at once */
#define BLOCK_ROWS 64                /* rows of a block of columns */

typedef struct {
  T *y, *mean, *var, *rstd;    /* eval: y only */
  const T *x, *weight, *bias, *given_mean, *given_var;
  int64_t batch, channels, inner;
  double eps;
} batch_norm_args;

typedef struct { double n, mean, m2; } moments_of;

static inline void merge(moments_of *a, double n, double mean, double m2) {
  const double total = a->n + n, delta = mean - a->mean;
  a->mean += delta * (n / total);
  a->m2 += m2 + delta * delta * (a->n * n / total);
  a->n = total;
}

/* channels that are worked on together in the column shape: enough columns for long runs, few enough for L1 */
static inline int64_t column_channels(int64_t inner) { return inner == 1 ? BLOCK_COLUMNS / 2 : BLOCK_COLUMNS / inner; }

/* A loop over the blocks of a channel's strips: `strips` strips from number b on, elements [i, i + length) of each. */
#define EACH_BLOCK(b, i, strips, length, batch, inner, ...) do { \
    const int64_t many_ = (inner) < BLOCK_ELEMENTS ? BLOCK_ELEMENTS / (inner) : 1; \
    for (int64_t b = 0; b < (batch); b += many_) \
      for (int64_t i = 0; i < (inner); i += BLOCK_ELEMENTS) { \
        const int64_t strips = MIN(many_, (batch) - b), length = MIN(BLOCK_ELEMENTS, (inner) - i); \
        __VA_ARGS__ \
      } \
  } while (0)

static moments_of strip_moments(const T *x, T origin, int64_t batch, int64_t stride, int64_t inner) {
  moments_of total = {0, 0, 0};
  EACH_BLOCK(b, i, strips, length, batch, inner,
    const T *p = x + b * stride + i;
    const double count = (double)(strips * length);
    V s[4] = {vzero(), vzero(), vzero(), vzero()};
    for (int64_t q = 0; q < strips; q++)
      EACH_VECTOR_4(j, u, k, length, s[u] += load_n(p + q * stride + j, k););
    const T mean = (T)(vsum((s[0] + s[1]) + (s[2] + s[3])) / count);
    const V m = vset(mean);
    V d2[4] = {vzero(), vzero(), vzero(), vzero()};
    V d1[4] = {vzero(), vzero(), vzero(), vzero()};
    for (int64_t q = 0; q < strips; q++)
      EACH_VECTOR_4(j, u, k, length,
        V d = keep(load_n(p + q * stride + j, k) - m, k);
        d1[u] += d;
        d2[u] = vfma(d, d, d2[u]););
    /* what rounding the block's mean to T left over */
    const double rest = vsum((d1[0] + d1[1]) + (d1[2] + d1[3]));
    const double squares = vsum((d2[0] + d2[1]) + (d2[2] + d2[3]));
    merge(&total, count, (double)(mean - origin) + rest / count, squares - rest * rest / count););
  return total;
}

INLINE void scale_strips(T *y, const T *x, T mean, T scale, T shift, int64_t batch, int64_t stride, int64_t inner) {
  const V m = vset(mean), a = vset(scale), b = vset(shift);
  for (int64_t q = 0; q < batch; q++)
    EACH_VECTOR(j, k, inner, store_n(y + q * stride + j, vfma(load_n(x + q * stride + j, k) - m, a, b), k););
}

static inline set channel_set(int64_t batch, int64_t channels, int64_t inner) {
  return (set){batch * inner, inner, channels * inner, batch * inner};
}
static void plain_batch_norm(const batch_norm_args *a, int64_t c) {
  plain_forward(a->y + c * a->inner, a->mean + c, a->var + c, a->rstd + c, a->x + c * a->inner,
                a->weight ? a->weight + c : 0, a->bias ? a->bias + c : 0, channel_set(a->batch, a->channels, a->inner),
                a->eps, 1);
}

static void batch_norm_strips(void *context, int64_t begin, int64_t end) {
  const batch_norm_args *a = context;
  const int64_t inner = a->inner, stride = a->channels * inner;
  for (int64_t c = begin; c < end; c++) {
    double mean, var;
    if (a->given_mean) mean = a->given_mean[c], var = a->given_var[c];
    else {
      const T origin = a->batch ? a->x[c * inner] : 0;
      moments_of s = strip_moments(a->x + c * inner, origin, a->batch, stride, inner);
      a->mean[c] = (T)(mean = origin + s.mean);
      a->var[c] = (T)(var = s.m2 / s.n);
    }
    const double rstd = 1 / sqrt(var + a->eps);
    if (a->rstd) a->rstd[c] = (T)rstd;
    scale_strips(a->y + c * inner, a->x + c * inner, (T)mean, (T)(a->weight ? rstd * a->weight[c] : rstd),
                 a->bias ? a->bias[c] : 0, a->batch, stride, inner);
  }
}

/* The sums of a block: of `rows` rows and W vectors of columns. mean is the block's, rounded; rest and squares are the
 * sums of the distances from it and of their squares. */
INLINE void column_block(T *mean, T *rest, T *squares, const T *x, int64_t rows, int64_t stride, const int W,
                         const int k) {
  V s[4], m[4], d1[4], d2[4];
  EACH_PART(w) s[w] = d1[w] = d2[w] = vzero();
  for (int64_t q = 0; q < rows; q++)
    EACH_PART(w) s[w] += load_n(x + q * stride + w * VL, k);
  EACH_PART(w) m[w] = s[w] / vset((T)rows);
  for (int64_t q = 0; q < rows; q++)
    EACH_PART(w) {
      V d = load_n(x + q * stride + w * VL, k) - m[w];
      d1[w] += d;
      d2[w] = vfma(d, d, d2[w]);
    }
  EACH_PART(w)
    store_n(mean + w * VL, m[w], k), store_n(rest + w * VL, d1[w], k), store_n(squares + w * VL, d2[w], k);
}

/* mean (counted from the channel's origin) and M2 of `channels` channels: first of each column, then merged. */
static void column_moments(double *mean, double *m2, const T *x, int64_t batch, int64_t stride, int64_t channels,
                           int64_t inner) {
  const int64_t n = channels * inner;
  T m[BLOCK_COLUMNS], rest[BLOCK_COLUMNS], squares[BLOCK_COLUMNS], origin[BLOCK_COLUMNS];
  for (int64_t i = 0; i < channels; i++)
    for (int64_t j = i * inner; j < (i + 1) * inner; j++) origin[j] = batch ? x[i * inner] : 0;
  for (int64_t j = 0; j < n; j++) mean[j] = m2[j] = 0;
  for (int64_t b = 0; b < batch; b += BLOCK_ROWS) {
    const int64_t rows = MIN(BLOCK_ROWS, batch - b);
    EACH_COLUMNS(j, W, k, n, column_block(m + j, rest + j, squares + j, x + b * stride + j, rows, stride, W, k););
    const double part = (double)rows / (double)(b + rows), between = (double)b * part, each = 1 / (double)rows;
    for (int64_t j = 0; j < n; j++) {
      const double r = rest[j], delta = (double)(m[j] - origin[j]) + r * each - mean[j];
      mean[j] += delta * part;
      m2[j] += squares[j] - r * r * each + delta * delta * between;
    }
  }
  for (int64_t i = 0; inner > 1 && i < channels; i++) {
    const double *of = mean + i * inner, *squares_of = m2 + i * inner;
    double sum = 0, within = 0, between = 0;
    for (int64_t j = 0; j < inner; j++) sum += of[j], within += squares_of[j];
    sum /= (double)inner;
    for (int64_t j = 0; j < inner; j++) between += (of[j] - sum) * (of[j] - sum);
    mean[i] = sum;
    m2[i] = within + between * (double)batch;
  }
  for (int64_t i = 0; i < channels; i++) mean[i] += origin[i * inner];
}

/* Row by row: the three factors come from L1, the rows in the order of memory. */
static void scale_columns(T *y, const T *x, const T *mean, const T *scale, const T *shift, int64_t batch,
                          int64_t stride, int64_t n) {
  for (int64_t q = 0; q < batch; q++)
    EACH_VECTOR(j, k, n,
      const V d = load_n(x + q * stride + j, k) - load_n(mean + j, k);
      store_n(y + q * stride + j, vfma(d, load_n(scale + j, k), load_n(shift + j, k)), k););
}

/* Copies one number for each channel to each of its columns, in place, from the end. Not inline: seven copies were a
 * sixth of the file. */
NOINLINE void spread(T *p, int64_t channels, int64_t inner) {
  for (int64_t i = channels - 1; inner > 1 && i >= 0; i--) {
    const T value = p[i];
    for (int64_t j = i * inner; j < (i + 1) * inner; j++) p[j] = value;
  }
}

NOINLINE void rstd_of(T *rstd, const T *var, int64_t n, double eps) {
  EACH_VECTOR(j, k, n, store_n(rstd + j, 1 / vsqrt(load_n(var + j, k) + vset((T)eps)), k););
}

static void batch_norm_columns(void *context, int64_t begin, int64_t end) {
  const batch_norm_args *a = context;
  const int64_t inner = a->inner, stride = a->channels * inner, many = column_channels(inner);
  const double each = 1 / (double)(a->batch * inner);
  T mean[BLOCK_COLUMNS], var[BLOCK_COLUMNS], rstd[BLOCK_COLUMNS], shift[BLOCK_COLUMNS];
  for (int64_t unit = begin; unit < end; unit++) {
    const int64_t c = unit * many, channels = MIN(many, a->channels - c);
    const size_t bytes = (size_t)channels * sizeof(T);
    if (a->given_mean) {
      memcpy(mean, a->given_mean + c, bytes);
      memcpy(var, a->given_var + c, bytes);
    } else {
      double m[BLOCK_COLUMNS], m2[BLOCK_COLUMNS];
      column_moments(m, m2, a->x + c * inner, a->batch, stride, channels, inner);
      for (int64_t i = 0; i < channels; i++) mean[i] = (T)m[i], var[i] = (T)(m2[i] * each);
      memcpy(a->mean + c, mean, bytes);
      memcpy(a->var + c, var, bytes);
    }
    rstd_of(rstd, var, channels, a->eps);
    if (a->rstd) memcpy(a->rstd + c, rstd, bytes);
    EACH_VECTOR(i, k, channels,
      store_n(rstd + i, load_n(rstd + i, k) * load_n_or(a->weight, c + i, k, 1), k);
      store_n(shift + i, load_n_or(a->bias, c + i, k, 0), k););
    spread(mean, channels, inner);
    spread(rstd, channels, inner);
    spread(shift, channels, inner);
    scale_columns(a->y + c * inner, a->x + c * inner, mean, rstd, shift, a->batch, stride, channels * inner);
  }
}

static void batch_norm(batch_norm_args *a) {
  if (a->inner >= LONG_STRIP) mg_parallel(a->channels, grain(a->channels, a->batch * a->inner), batch_norm_strips, a);
  else if (a->inner > 0) {
    const int64_t many = column_channels(a->inner), units = (a->channels + many - 1) / many;
    mg_parallel(units, grain(units, a->batch * a->inner * many), batch_norm_columns, a);
  }
  for (int64_t c = 0; a->rstd && a->batch * a->inner && c < a->channels; c++)
    if (out_of_range(a->rstd[c])) plain_batch_norm(a, c);
}

void FN(batch_norm_forward)(T *y, T *mean, T *var, T *rstd, const T *x, const T *weight, const T *bias, int64_t batch,
                            int64_t channels, int64_t inner, double eps) {
  batch_norm_args a = {y, mean, var, rstd, x, weight, bias, 0, 0, batch, channels, inner, eps};
  batch_norm(&a);
}

void FN(batch_norm_eval_forward)(T *y, const T *x, const T *mean, const T *var, const T *weight, const T *bias,
                                 int64_t batch, int64_t channels, int64_t inner, double eps) {
  batch_norm_args a = {y, 0, 0, 0, x, weight, bias, mean, var, batch, channels, inner, eps};
  batch_norm(&a);
}

/* Backward, per channel, d = x - mean, N = batch * inner, in the same two shapes:
 *
 *   gbias = sum(gy);   gweight = rstd * sum(gy * d)
 *   gx = rstd * weight * (gy - gbias / N - d * rstd * gweight / N)        with batch statistics
 *   gx = rstd * weight * gy                                               in eval: the statistics are constants
 */
typedef struct {
  T *gx, *gweight, *gbias;
  const T *gy, *x, *mean, *rstd, *var, *weight;   /* var, not rstd, in eval */
  int64_t batch, channels, inner;
  double eps;
} batch_norm_back_args;

INLINE int needs_sums(const batch_norm_back_args *a) { return !a->var || a->gweight || a->gbias; }
static void plain_batch_norm_back(const batch_norm_back_args *a, int64_t c) {
  const int64_t at = c * a->inner;
  plain_backward(a->gx ? a->gx + at : 0, a->gweight ? a->gweight + c : 0, a->gbias ? a->gbias + c : 0, a->gy + at,
                 a->x + at, a->mean[c], a->rstd[c], a->weight ? a->weight + c : 0,
                 channel_set(a->batch, a->channels, a->inner), 1, 1);
}
static void batch_norm_back_strips(void *context, int64_t begin, int64_t end) {
  const batch_norm_back_args *a = context;
  const int64_t inner = a->inner, stride = a->channels * inner;
  for (int64_t c = begin; c < end; c++) {
    const T *gy = a->gy + c * inner, *x = a->x + c * inner;
    const V m = vset(a->mean[c]);
    double sum = 0, sum_d = 0;
    if (needs_sums(a))
      EACH_BLOCK(b, i, strips, length, a->batch, inner,
        const T *g = gy + b * stride + i;
        const T *p = x + b * stride + i;
        V s1[4] = {vzero(), vzero(), vzero(), vzero()};
        V s2[4] = {vzero(), vzero(), vzero(), vzero()};
        for (int64_t q = 0; q < strips; q++)
          EACH_VECTOR_4(j, u, k, length,
            V gj = load_n(g + q * stride + j, k);
            s1[u] += gj;
            s2[u] = vfma(gj, load_n(p + q * stride + j, k) - m, s2[u]););
        sum += vsum((s1[0] + s1[1]) + (s1[2] + s1[3]));
        sum_d += vsum((s2[0] + s2[1]) + (s2[2] + s2[3])););
    const double rstd = a->var ? 1 / sqrt(a->var[c] + a->eps) : a->rstd[c], count = (double)(a->batch * inner);
    if (a->gbias) a->gbias[c] = (T)sum;
    if (a->gweight) a->gweight[c] = (T)(sum_d * rstd);
    if (!a->gx) continue;
    const V c1 = vset((T)(-sum / count)), c2 = vset((T)(-sum_d * rstd * rstd / count)),
            s = vset((T)(a->weight ? rstd * a->weight[c] : rstd));
    for (int64_t q = 0; q < a->batch; q++) {
      const T *g = gy + q * stride, *p = x + q * stride;
      T *gx = a->gx + c * inner + q * stride;
      if (a->var) EACH_VECTOR(j, k, inner, store_n(gx + j, load_n(g + j, k) * s, k););
      else EACH_VECTOR(j, k, inner, store_n(gx + j, vfma(load_n(p + j, k) - m, c2, load_n(g + j, k) + c1) * s, k););
    }
  }
}

/* the sums of gy and of gy * (x - mean) down `rows` rows */
INLINE void column_back_block(T *sum, T *sum_d, const T *gy, const T *x, const T *mean, int64_t rows, int64_t stride,
                              const int W, const int k) {
  V m[4], s1[4], s2[4];
  EACH_PART(w) m[w] = load_n(mean + w * VL, k), s1[w] = s2[w] = vzero();
  for (int64_t q = 0; q < rows; q++)
    EACH_PART(w) {
      V g = load_n(gy + q * stride + w * VL, k);
      s1[w] += g;
      s2[w] = vfma(g, load_n(x + q * stride + w * VL, k) - m[w], s2[w]);
    }
  EACH_PART(w) store_n(sum + w * VL, s1[w], k), store_n(sum_d + w * VL, s2[w], k);
}

/* gx = ((gy + c1) + (x - mean) * c2) * scale, or gy * scale */
INLINE void column_back(T *gx, const T *gy, const T *x, const T *mean, const T *c1, const T *c2, const T *scale,
                        int64_t batch, int64_t stride, const int frozen, int64_t n) {
  for (int64_t q = 0; q < batch; q++)
    EACH_VECTOR(j, k, n,
      const int64_t i = q * stride + j;
      V g = load_n(gy + i, k);
      if (!frozen) g = vfma(load_n(x + i, k) - load_n(mean + j, k), load_n(c2 + j, k), g + load_n(c1 + j, k));
      store_n(gx + i, g * load_n(scale + j, k), k););
}

static void batch_norm_back_columns(void *context, int64_t begin, int64_t end) {
  const batch_norm_back_args *a = context;
  const int64_t inner = a->inner, stride = a->channels * inner, many = column_channels(inner);
  const double each = 1 / (double)(a->batch * inner);
  double sum[BLOCK_COLUMNS], sum_d[BLOCK_COLUMNS];
  T mean[BLOCK_COLUMNS], rstd[BLOCK_COLUMNS], c1[BLOCK_COLUMNS], c2[BLOCK_COLUMNS];
  for (int64_t unit = begin; unit < end; unit++) {
    const int64_t c = unit * many, channels = MIN(many, a->channels - c), n = channels * inner;
    const T *gy = a->gy + c * inner, *x = a->x + c * inner;
    memcpy(mean, a->mean + c, (size_t)channels * sizeof(T));
    if (a->var) rstd_of(rstd, a->var + c, channels, a->eps);
    else memcpy(rstd, a->rstd + c, (size_t)channels * sizeof(T));
    spread(mean, channels, inner);
    for (int64_t j = 0; j < n; j++) sum[j] = sum_d[j] = 0;
    for (int64_t b = 0; needs_sums(a) && b < a->batch; b += BLOCK_ROWS) {
      const int64_t rows = MIN(BLOCK_ROWS, a->batch - b), at = b * stride;
      EACH_COLUMNS(j, W, k, n,
        column_back_block(c1 + j, c2 + j, gy + at + j, x + at + j, mean + j, rows, stride, W, k););
      for (int64_t j = 0; j < n; j++) sum[j] += c1[j], sum_d[j] += c2[j];
    }
    for (int64_t i = 0; inner > 1 && i < channels; i++) {
      double s = 0, d = 0;
      for (int64_t j = i * inner; j < (i + 1) * inner; j++) s += sum[j], d += sum_d[j];
      sum[i] = s;
      sum_d[i] = d;
    }
    for (int64_t i = 0; i < channels; i++) sum_d[i] *= rstd[i];
    for (int64_t i = 0; a->gbias && i < channels; i++) a->gbias[c + i] = (T)sum[i];
    for (int64_t i = 0; a->gweight && i < channels; i++) a->gweight[c + i] = (T)sum_d[i];
    if (!a->gx) continue;
    for (int64_t i = 0; i < channels; i++) c1[i] = (T)(-sum[i] * each), c2[i] = (T)(-sum_d[i] * rstd[i] * each);
    EACH_VECTOR(i, k, channels, store_n(rstd + i, load_n(rstd + i, k) * load_n_or(a->weight, c + i, k, 1), k););
    spread(c1, channels, inner);
    spread(c2, channels, inner);
    spread(rstd, channels, inner);
    if (a->var) column_back(a->gx + c * inner, gy, x, mean, c1, c2, rstd, a->batch, stride, 1, n);
    else column_back(a->gx + c * inner, gy, x, mean, c1, c2, rstd, a->batch, stride, 0, n);
  }
}

static void batch_norm_back(batch_norm_back_args *a) {
  if (a->inner >= LONG_STRIP)
    mg_parallel(a->channels, grain(a->channels, a->batch * a->inner), batch_norm_back_strips, a);
  else if (a->inner > 0) {
    const int64_t many = column_channels(a->inner), units = (a->channels + many - 1) / many;
    mg_parallel(units, grain(units, a->batch * a->inner * many), batch_norm_back_columns, a);
  }
  for (int64_t c = 0; !a->var && a->batch * a->inner && c < a->channels; c++)
    if (out_of_range(a->rstd[c])) plain_batch_norm_back(a, c);
}

void FN(batch_norm_backward)(T *gx, T *gweight, T *gbias, const T *gy, const T *x, const T *mean, const T *rstd,
                             const T *weight, int64_t batch, int64_t channels, int64_t inner) {
  batch_norm_back_args a = {gx, gweight, gbias, gy, x, mean, rstd, 0, weight, batch, channels, inner, 0};
  batch_norm_back(&a);
}

void FN(batch_norm_eval_backward)(T *gx, T *gweight, T *gbias, const T *gy, const T *x, const T *mean, const T *var,
                                  const T *weight, int64_t batch, int64_t channels, int64_t inner, double eps) {
  batch_norm_back_args a = {gx, gweight, gbias, gy, x, mean, 0, var, weight, batch, channels, inner, eps};
  batch_norm_back(&a);
}

/* The running statistics of a batch norm layer: running = (1 - momentum) * running + momentum * scale * value, where
 * scale is 1 for the mean, N / (N - 1) for the variance, which users keep unbiased. */
void FN(running_update)(T *running, const T *value, int64_t n, double momentum, double scale) {
  for (int64_t i = 0; i < n; i++) running[i] = (T)((1 - momentum) * running[i] + momentum * scale * value[i]);
}

/* ---- group norm: x is [batch, groups, cpg, inner], S one group of one sample: a row of n = cpg * inner ------------
 *
 * The statistics are layer norm's, over [batch * groups] rows; weight and bias belong to channels, so that a row is
 * scaled strip by strip, each with one factor, or, with inner == 1, by vectors of weight and bias as in layer norm.
 */
typedef struct {
  T *y, *mean, *rstd;
  const T *x, *weight, *bias;
  int64_t groups, cpg, inner;
  double eps;
} group_norm_args;

INLINE void group_norm_some(const group_norm_args *a, int64_t row, const int R) {
  const int64_t cpg = a->cpg, inner = a->inner, n = cpg * inner;
  V mean[4], rstd[4];
  moments(mean, rstd, a->x + row * n, n, a->eps, R, 1);
  EACH_ROW(r) {
    const int64_t c0 = (row + r) % a->groups * cpg;
    const T *x = a->x + (row + r) * n, *weight = a->weight ? a->weight + c0 : 0, *bias = a->bias ? a->bias + c0 : 0;
    T *y = a->y + (row + r) * n;
    a->mean[row + r] = mean[r][0];
    a->rstd[row + r] = rstd[r][0];
    if (inner == 1)
      EACH_VECTOR(j, k, n,
        const V xhat = (load_n(x + j, k) - mean[r]) * rstd[r];
        store_n(y + j, vfma(xhat, load_n_or(weight, j, k, 1), load_n_or(bias, j, k, 0)), k););
    else
      for (int64_t c = 0; c < cpg; c++)
        scale_strips(y + c * inner, x + c * inner, mean[r][0], weight ? rstd[r][0] * weight[c] : rstd[r][0],
                     bias ? bias[c] : 0, 1, 0, inner);
    if (__builtin_expect(out_of_range(rstd[r][0]), 0))
      plain_forward(y, a->mean + row + r, 0, a->rstd + row + r, x, weight, bias, (set){n, n, 0, inner}, a->eps, 1);
  }
}

static void group_norm_rows(void *context, int64_t begin, int64_t end) {
  const group_norm_args *a = context;
  int64_t row = begin;
  for (; row + 4 <= end; row += 4) group_norm_some(a, row, 4);
  for (; row < end; row++) group_norm_some(a, row, 1);
}

void FN(group_norm_forward)(T *y, T *mean, T *rstd, const T *x, const T *weight, const T *bias, int64_t batch,
                            int64_t groups, int64_t cpg, int64_t inner, double eps) {
  group_norm_args a = {y, mean, rstd, x, weight, bias, groups, cpg, inner, eps};
  mg_parallel(batch * groups, (grain(batch * groups, cpg * inner) + 3) / 4 * 4, group_norm_rows, &a);
}

/* Backward. Each channel of each sample gives two sums over its strip, kept in `partial` as [2, batch, channels]:
 *
 *   ds = sum(gy);   dx = sum(gy * xhat)                                     gbias = sum of ds over the batch,
 *   c1 = sum over the group of weight * ds / n;   c2 likewise of dx         gweight = sum of dx over the batch
 *   gx = rstd * (gy * weight - c1 - xhat * c2)
 */
typedef struct {
  T *gx, *partial;
  const T *gy, *x, *mean, *rstd, *weight;
  int64_t batch, groups, cpg, inner;
} group_norm_back_args;

static void group_norm_back_rows(void *context, int64_t begin, int64_t end) {
  const group_norm_back_args *a = context;
  const int64_t cpg = a->cpg, inner = a->inner, n = cpg * inner;
  for (int64_t row = begin; row < end; row++) {
    const T *gy = a->gy + row * n, *x = a->x + row * n, *weight = a->weight ? a->weight + row % a->groups * cpg : 0;
    T *ds = a->partial + row * cpg, *dx = ds + a->batch * a->groups * cpg;
    const T rstd = a->rstd[row];
    const V m = vset(a->mean[row]), rs = vset(rstd);
    double c1 = 0, c2 = 0;
    if (out_of_range(rstd)) {
      plain_backward(a->gx ? a->gx + row * n : 0, dx, ds, gy, x, a->mean[row], rstd, weight, (set){n, n, 0, inner}, 1,
                     1);
      continue;
    }
    if (inner == 1)
      EACH_VECTOR(j, k, n,
        V g = load_n(gy + j, k);
        store_n(ds + j, g, k);
        store_n(dx + j, g * (load_n(x + j, k) - m) * rs, k););
    else
      for (int64_t c = 0; c < cpg; c++) {
        double sum = 0, sum_d = 0;
        for (int64_t b = 0; b < inner; b += BLOCK_ELEMENTS) {
          const T *g = gy + c * inner + b, *p = x + c * inner + b;
          V s1[4] = {vzero(), vzero(), vzero(), vzero()}, s2[4] = {vzero(), vzero(), vzero(), vzero()};
          EACH_VECTOR_4(j, u, k, MIN(BLOCK_ELEMENTS, inner - b),
            V gj = load_n(g + j, k);
            s1[u] += gj;
            s2[u] = vfma(gj, load_n(p + j, k) - m, s2[u]););
          sum += vsum((s1[0] + s1[1]) + (s1[2] + s1[3]));
          sum_d += vsum((s2[0] + s2[1]) + (s2[2] + s2[3]));
        }
        ds[c] = (T)sum;
        dx[c] = (T)(sum_d * rstd);
      }
    if (!a->gx) continue;
    for (int64_t b = 0; b < cpg; b += BLOCK_ELEMENTS) {
      V s1 = vzero(), s2 = vzero();
      EACH_VECTOR(j, k, MIN(BLOCK_ELEMENTS, cpg - b),
        V w = load_n_or(weight, b + j, k, 1);
        s1 = vfma(w, load_n(ds + b + j, k), s1);
        s2 = vfma(w, load_n(dx + b + j, k), s2););
      c1 += vsum(s1);
      c2 += vsum(s2);
    }
    T *gx = a->gx + row * n;
    const V k1 = vset((T)(-c1 / (double)n * rstd)), k2 = vset((T)(-c2 / (double)n * rstd * rstd));
    if (inner == 1)
      EACH_VECTOR(j, k, n,
        const V g = vfma(load_n(gy + j, k), load_n_or(weight, j, k, 1) * rs, k1);
        store_n(gx + j, vfma(load_n(x + j, k) - m, k2, g), k););
    else
      for (int64_t c = 0; c < cpg; c++) {
        const V w = vset(weight ? weight[c] * rstd : rstd);
        const T *g = gy + c * inner, *p = x + c * inner;
        EACH_VECTOR(j, k, inner,
          store_n(gx + c * inner + j, vfma(load_n(p + j, k) - m, k2, vfma(load_n(g + j, k), w, k1)), k););
      }
  }
}

void FN(group_norm_backward)(T *gx, T *gweight, T *gbias, T *partial, const T *gy, const T *x, const T *mean,
                             const T *rstd, const T *weight, int64_t batch, int64_t groups, int64_t cpg,
                             int64_t inner) {
  const int64_t channels = groups * cpg;
  group_norm_back_args a = {gx, partial, gy, x, mean, rstd, weight, batch, groups, cpg, inner};
  mg_parallel(batch * groups, grain(batch * groups, cpg * inner), group_norm_back_rows, &a);
  sum_rows(gbias, partial, batch, channels, channels);
  sum_rows(gweight, partial + batch * channels, batch, channels, channels);
}

#endif
