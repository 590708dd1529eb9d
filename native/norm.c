/* types: f32 f64 */
/* Normalisation: layer, RMS, batch and group norm (instance norm is group norm with one channel a group).
 *
 * All of them are
 *     y = (x - mean) * rstd * weight + bias,   mean and var over a set S of elements,   rstd = 1 / sqrt(var + eps)
 * with gradients (g = gy * weight, xhat = (x - mean) * rstd, averages over the same S)
 *     gx = rstd * (g - average(g) - xhat * average(g * xhat)),   gweight = sum(gy * xhat),   gbias = sum(gy)
 * and differ in what S is: a contiguous row, a column, or strips. weight, bias and the gradient outputs may be null.
 *
 * Accuracy: never E[x^2] - E[x]^2. The variance of a row is that of its distances from a number near its mean, less the
 * square of what that number is off by; that of a channel is merged from blocks, whose distances are taken from a mean
 * that is known before (see batch norm). Sums run per vector lane over at most BLOCK_ELEMENTS elements, and blocks are
 * added in double. Same bits: how sums are split depends on shapes only, never on threads, and a row's result not on
 * its neighbours.
 *
 * Range: the result does not depend on the scale of x, but its squares overflow or vanish where x is near the ends of
 * T's range. Then rstd tells so, and that set is done again by the plain loop in a wider type.
 */
#include "loops.h"
#include "norm.h"

#if IS_REAL

#if MG_SMALL                         /* R is 1, but a TEMPLATE does not know it */
#undef EACH_ROW
#define EACH_ROW(r) for (int r = 0; r < 1; r++)
#endif

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
 * A row is read from memory once, then from L1 and L2. Two things limit the speed:
 *
 *   latency    of small arrays (NEAR): each row ends in horizontal sums, a division and a square root, and its next
 *              pass waits for them. So R = 4 rows go side by side, and weight and bias are loaded once for four rows;
 *   memory     of large ones (FAR): it is read fastest in the order of its addresses. So while four rows are written,
 *              side by side and past the caches, L1 is asked for the next four, in that order, and reading goes on: the
 *              forward pass of 4096x768 takes as long as a copy. One row at a time, writing and reading wait for each
 *              other, and it takes half as long again.
 *              Rows that are very long, or that cannot be stored past the caches, go one by one.
 *
 * The variance takes one pass: distances are counted from the mean of a row's first four vectors. Where the mean is off
 * by D from that, the squares have D^2 too much each, which is taken away again. If D^2 is more than a third of the
 * variance, a row takes a second pass, so that no digits are lost.
 *
 * A row's sums run in two chains, whatever R is: a row has the same bits in all cases, and when it is left over.
 */

/* rest[r] += the distances of row r from shift[r], squares[r] += their squares */
INLINE void add_squares(V (*rest)[2], V (*squares)[2], const V *shift, const T *x, int64_t stride, int64_t n,
                        const int R, const int centred) {
  EACH_VECTOR_2(j, u, k, n,
    EACH_ROW(r) {
      V d = keep(load_n(x + r * stride + j, k) - shift[r], k);
      if (centred) rest[r][u] += d;
      squares[r][u] = vfma(d, d, squares[r][u]);
    });
}
/* sum[r] += the sum of the two chains of row r */
INLINE void add_sums(double *sum, V (*chains)[2], const int R) {
  V v[4];
  T s[4];
  EACH_ROW(r) v[r] = chains[r][0] + chains[r][1];
  vsums(s, v, R);
  EACH_ROW(r) sum[r] += s[r];
}

/* The sums of the distances from a row's shift, and of their squares. */
typedef struct { double sum[4], squares[4]; } row_sums;
INLINE void add_rows(row_sums *to, const V *shift, const T *x, int64_t stride, int64_t n, const int R,
                     const int centred) {
  V s[4][2], q[4][2];
  EACH_ROW(r) s[r][0] = s[r][1] = q[r][0] = q[r][1] = vzero();
  add_squares(s, q, shift, x, stride, n, R, centred);
  if (centred) add_sums(to->sum, s, R);
  add_sums(to->squares, q, R);
}
/* mean (0 unless `centred`) and rstd of R rows, broadcast, from these sums; sum / n is what shift is off by. Returns a
 * bit for each row whose shift is so far off that its variance lost digits. */
INLINE int moments_of(V *mean, V *rstd, const V *shift, row_sums *s, int64_t n, double eps, const int R,
                      const int centred) {
  const double each = 1 / (double)n;
  double *sum = s->sum, *squares = s->squares;
  int far = 0;
  T of[4];
  EACH_ROW(r) {
    sum[r] *= each, squares[r] *= each;
    of[r] = 1 / MATH(sqrt)((T)(squares[r] - sum[r] * sum[r]) + (T)eps);
  }
  EACH_ROW(r) {
    mean[r] = shift[r] + vset((T)sum[r]);
    rstd[r] = vset(of[r]);
    far |= (sum[r] * sum[r] > squares[r] / 4) << r;
  }
  return centred ? far : 0;
}
TEMPLATE int moments_from(V *mean, V *rstd, const V *shift, const T *x, int64_t n, double eps, const int R,
                          const int centred) {
  row_sums s = {{0}, {0}};
  for (int64_t b = 0; b < n; b += BLOCK_ELEMENTS)
    add_rows(&s, shift, x + b, n, MIN(BLOCK_ELEMENTS, n - b), R, centred);
  return moments_of(mean, rstd, shift, &s, n, eps, R, centred);
}
NOINLINE int moments_from_1(V *mean, V *rstd, V shift, const T *x, int64_t n, double eps) {
  return moments_from(mean, rstd, &shift, x, n, eps, 1, 1);
}
/* the mean of the first four vectors of R rows */
INLINE void shift_of_rows(V *shift, const T *x, int64_t n, const int R) {
  const int64_t few = MIN(n, 4 * VL);
  EACH_ROW(r) shift[r] = vzero();
  EACH_VECTOR(j, k, few, EACH_ROW(r) shift[r] += load_n(x + r * n + j, k););
  T sum[4];
  vsums(sum, shift, R);
  EACH_ROW(r) shift[r] = vset(sum[r] * (1 / (T)few));
}
INLINE void moments_of_rows(V *mean, V *rstd, const T *x, int64_t n, double eps, const int R, const int centred) {
  V shift[4];
  EACH_ROW(r) shift[r] = vzero();
  if (centred) shift_of_rows(shift, x, n, R);
  const int far = !MG_SMALL && R == 1 && centred ? moments_from_1(mean, rstd, shift[0], x, n, eps) :
                                      moments_from(mean, rstd, shift, x, n, eps, R, centred);
  for (int r = 0; far >> r; r++)
    if (far >> r & 1) moments_from_1(mean + r, rstd + r, mean[r], x + r * n, n, eps);
}
NOINLINE void moments_4(V *mean, V *rstd, const T *x, int64_t n, double eps) {
  moments_of_rows(mean, rstd, x, n, eps, 4, 1);
}
NOINLINE void moments_1(V *mean, V *rstd, const T *x, int64_t n, double eps) {
  moments_of_rows(mean, rstd, x, n, eps, 1, 1);
}
NOINLINE void squares_4(V *mean, V *rstd, const T *x, int64_t n, double eps) {
  moments_of_rows(mean, rstd, x, n, eps, 4, 0);
}
NOINLINE void squares_1(V *mean, V *rstd, const T *x, int64_t n, double eps) {
  moments_of_rows(mean, rstd, x, n, eps, 1, 0);
}
INLINE void moments(V *mean, V *rstd, const T *x, int64_t n, double eps, const int R, const int centred) {
  if (MG_SMALL) moments_of_rows(mean, rstd, x, n, eps, 1, centred);
  else if (R == 4) (centred ? moments_4 : squares_4)(mean, rstd, x, n, eps);
  else (centred ? moments_1 : squares_1)(mean, rstd, x, n, eps);
}

/* How rows of n elements go, by their shape alone: the order of sums depends on it. */
#define LONG_ROW 16384               /* bytes: four such rows of two arrays, and the next four, are in L2 */
typedef enum { NEAR, FAR, ONE_BY_ONE } order;
static inline order order_of(int64_t rows, int64_t n) {
  const int64_t bytes = n * (int64_t)sizeof(T);
  if (!beyond_caches(rows * n)) return NEAR;
  return bytes % VBYTES == 0 && bytes <= LONG_ROW ? FAR : ONE_BY_ONE;
}

typedef struct {
  T *y, *mean, *rstd;
  const T *x, *weight, *bias;
  int64_t n;
  double eps;
  order how;
  int stream;                  /* is y stored past the caches? */
} layer_norm_args;

TEMPLATE void layer_norm_some(const layer_norm_args *a, int64_t row, const int R, const int far, const int centred) {
  const int64_t n = a->n;
  const T *x = a->x + row * n;
  T *y = a->y + row * n;
  V found[4], root[4], mean[4], rstd[4];     /* those that moments wrote are memory, which each store might change */
  moments(found, root, x, n, a->eps, R, centred);
  EACH_ROW(r) {
    mean[r] = found[r], rstd[r] = root[r];
    if (centred) a->mean[row + r] = mean[r][0];
    a->rstd[row + r] = rstd[r][0];
  }
  EACH_VECTOR(j, k, n,
    V w = load_n_or(a->weight, j, k, 1);
    V b = centred ? load_n_or(a->bias, j, k, 0) : vzero();
    EACH_ROW(r) {
      V xhat = (load_n(x + r * n + j, k) - mean[r]) * rstd[r];
      if (far) __builtin_prefetch(x + R * n + R * j + r * VL);       /* of the next R rows */
      put_n(y + r * n + j, centred ? vfma(xhat, w, b) : xhat * w, k, (R == 1 || far) && a->stream);
    });
  if (__builtin_expect(!some_out_of_range(a->rstd + row, R), 1)) return;
  for (int r = 0; r < R; r++)
    if (out_of_range(a->rstd[row + r]))
      plain_forward(y + r * n, centred ? a->mean + row + r : 0, 0, a->rstd + row + r, x + r * n, a->weight, a->bias,
                    (set){n, n, 0, 1}, a->eps, centred);
}

TEMPLATE void layer_norm_all(const layer_norm_args *a, int64_t row, int64_t end, const int centred) {
  for (int64_t last; row < end;) {
    const int64_t first = row;
    last = MIN(first + rows_told(a->n), end);
    for (; row + 4 <= last && SOME_ROWS == 4 && a->how == FAR && a->stream; row += 4)
      layer_norm_some(a, row, 4, 1, centred);
    for (; row + 4 <= last && SOME_ROWS == 4 && a->how == NEAR; row += 4) layer_norm_some(a, row, 4, 0, centred);
    for (; row < last; row++) layer_norm_some(a, row, 1, 0, centred);
    mg_written(a->y + first * a->n, (last - first) * a->n);
  }
  if (a->stream) vstreamed();
}
static void layer_norm_rows(void *context, int64_t begin, int64_t end) { layer_norm_all(context, begin, end, 1); }
static void rms_norm_rows(void *context, int64_t begin, int64_t end) { layer_norm_all(context, begin, end, 0); }

void FN(layer_norm_forward)(T *y, T *mean, T *rstd, const T *x, const T *weight, const T *bias, int64_t rows, int64_t n,
                            double eps) {
  layer_norm_args a = {y, mean, rstd, x, weight, bias, n, eps, order_of(rows, n), streams(y, rows * n, n)};
  mg_parallel(rows, (grain(rows, n) + 3) / 4 * 4, layer_norm_rows, &a);
}

void FN(rms_norm_forward)(T *y, T *rstd, const T *x, const T *weight, int64_t rows, int64_t n, double eps) {
  layer_norm_args a = {y, 0, rstd, x, weight, 0, n, eps, order_of(rows, n), streams(y, rows * n, n)};
  mg_parallel(rows, (grain(rows, n) + 3) / 4 * 4, rms_norm_rows, &a);
}

/* Backward. Two sums along each row, for gx, and two along each column, for gweight and gbias:
 *
 *   for each row:  g = gy * weight;  d = x - mean;  c1 = sum(g) / n;  c2 = rstd^2 * sum(g * d) / n
 *                  gx = rstd * (g - c1 - d * c2);   gweight += gy * d * rstd;   gbias += gy
 *
 * Again four rows go at a time: their terms of a column are added in registers first, so that the column sums cost one
 * load and one store for four rows. NEAR, that is done with the sums along the rows; FAR, while gx is written: stores
 * between the loads from memory would wait for those past the caches. FAR, the sums of two rows go side by side, and L2
 * is asked for the next four rows: L1 has no room for them (a quarter slower).
 *
 * The rows are split into mg_chunks(rows) chunks, each with its own column sums in `partial`; these are added in order
 * at the end, so the bits depend on the shape alone.
 */
typedef struct {
  T *gx, *partial;             /* partial is null if neither gweight nor gbias is wanted */
  const T *gy, *x, *mean, *rstd, *weight;
  int64_t rows, n, chunk;      /* chunk: rows of a chunk */
  order how;
  int stream;                  /* is gx stored past the caches? */
} layer_norm_back_args;

/* Adds the terms of some rows, k of them from column j on, to the columns' sums gw. */
#define ADD_COLUMNS(gw, j, k, n, first, pw, pb) \
  if (gw) { \
    store_n(gw + j, first ? pw : load_n(gw + j, k) + pw, k); \
    if (centred) store_n(gw + n + j, first ? pb : load_n(gw + n + j, k) + pb, k); \
  }

/* c1 and c2 of R rows, negated; if `columns`, also their part of the columns' sums */
TEMPLATE void layer_norm_back_sums(const layer_norm_back_args *a, V *c1, V *c2, int64_t row, T *gw, int first,
                                   const int columns, const int R, const int centred) {
  const int64_t n = a->n;
  const T *x = a->x + row * n, *gy = a->gy + row * n;
  V mean[4], rstd[4], s1[4], s2[4];
  double sum1[4] = {0}, sum2[4] = {0};
  EACH_ROW(r) mean[r] = centred ? vset(a->mean[row + r]) : vzero(), rstd[r] = vset(a->rstd[row + r]);
  for (int64_t b = 0; b < n; b += BLOCK_ELEMENTS) {
    EACH_ROW(r) s1[r] = s2[r] = vzero();
    EACH_VECTOR(i, k, MIN(BLOCK_ELEMENTS, n - b),
      const int64_t j = b + i;
      const V w = load_n_or(a->weight, j, k, 1);
      V pw = vzero();
      V pb = vzero();
      EACH_ROW(r) {
        const V g = load_n(gy + r * n + j, k);
        const V p = g * (load_n(x + r * n + j, k) - mean[r]);
        if (centred) s1[r] = vfma(g, w, s1[r]);
        s2[r] = vfma(p, w, s2[r]);
        pw = vfma(p, rstd[r], pw);
        pb += g;
      }
      if (columns) ADD_COLUMNS(gw, j, k, n, first, pw, pb));
    T t[4];
    if (centred) {
      vsums(t, s1, R);
      EACH_ROW(r) sum1[r] += t[r];
    }
    vsums(t, s2, R);
    EACH_ROW(r) sum2[r] += t[r];
  }
  EACH_ROW(r) {
    const double rs = a->rstd[row + r];
    c1[r] = vset((T)(-sum1[r] / (double)n));
    c2[r] = vset((T)(-sum2[r] * rs / (double)n * rs));
  }
}

/* gx of R rows. FAR: also their part of the columns' sums, and L2 is asked for the next R rows. */
TEMPLATE void layer_norm_back_gx(const layer_norm_back_args *a, const V *c1, const V *c2, int64_t row, T *gw, int first,
                                 const int far, const int R, const int centred) {
  const int64_t n = a->n;
  const T *x = a->x + row * n, *gy = a->gy + row * n;
  T *gx = a->gx + row * n;
  V mean[4], rstd[4];
  EACH_ROW(r) mean[r] = centred ? vset(a->mean[row + r]) : vzero(), rstd[r] = vset(a->rstd[row + r]);
  EACH_VECTOR(j, k, n,
    const V w = load_n_or(a->weight, j, k, 1);
    V pw = vzero();
    V pb = vzero();
    EACH_ROW(r) {
      const V g = load_n(gy + r * n + j, k), d = load_n(x + r * n + j, k) - mean[r];
      if (far && row + R < a->rows) {        /* without this test, AVX-512 on Zen 4 takes a sixth longer */
        __builtin_prefetch(gy + R * n + R * j + r * VL, 0, 2);
        __builtin_prefetch(x + R * n + R * j + r * VL, 0, 2);
      }
      if (far) {
        pw = vfma(g * d, rstd[r], pw);
        pb += g;
      }
      put_n(gx + r * n + j, vfma(d, c2[r], centred ? vfma(g, w, c1[r]) : g * w) * rstd[r], k,
            (R == 1 || far) && a->stream);
    }
    if (far) ADD_COLUMNS(gw, j, k, n, first, pw, pb));
}

/* R rows, read once from memory, then from L1 */
INLINE void layer_norm_back_of(const layer_norm_back_args *a, int64_t row, T *gw, int first, const int R,
                               const int centred) {
  V c1[4], c2[4];
  layer_norm_back_sums(a, c1, c2, row, gw, first, 1, R, centred);
  if (a->gx) layer_norm_back_gx(a, c1, c2, row, gw, first, 0, R, centred);
}
NOINLINE void layer_back_sums_2(const layer_norm_back_args *a, V *c1, V *c2, int64_t row) {
  layer_norm_back_sums(a, c1, c2, row, 0, 0, 0, 2, 1);
}
NOINLINE void rms_back_sums_2(const layer_norm_back_args *a, V *c1, V *c2, int64_t row) {
  layer_norm_back_sums(a, c1, c2, row, 0, 0, 0, 2, 0);
}

typedef void back_rows(const layer_norm_back_args *a, int64_t row, T *gw, int first);
NOINLINE void layer_back_far(const layer_norm_back_args *a, int64_t row, T *gw, int first) {
  V c1[4], c2[4];
  for (int r = 0; r < 4; r += 2) layer_back_sums_2(a, c1 + r, c2 + r, row + r);
  layer_norm_back_gx(a, c1, c2, row, gw, first, 1, 4, 1);
}
NOINLINE void layer_back_4(const layer_norm_back_args *a, int64_t row, T *gw, int first) {
  layer_norm_back_of(a, row, gw, first, 4, 1);
}
NOINLINE void layer_back_1(const layer_norm_back_args *a, int64_t row, T *gw, int first) {
  layer_norm_back_of(a, row, gw, first, 1, 1);
}
NOINLINE void rms_back_far(const layer_norm_back_args *a, int64_t row, T *gw, int first) {
  V c1[4], c2[4];
  for (int r = 0; r < 4; r += 2) rms_back_sums_2(a, c1 + r, c2 + r, row + r);
  layer_norm_back_gx(a, c1, c2, row, gw, first, 1, 4, 0);
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
  back_rows *four = centred ? layer_back_4 : rms_back_4;
  if (a->how == FAR && a->gx) four = centred ? layer_back_far : rms_back_far;
  back_rows *one = centred ? layer_back_1 : rms_back_1;
  const int64_t n = a->n;
  for (int rows; row < last; row += rows, first = 0) {
    rows = SOME_ROWS == 4 && a->how != ONE_BY_ONE && row + 4 <= last && !some_out_of_range(a->rstd + row, 4) ? 4 : 1;
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
  if (a->stream) vstreamed();
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
  layer_norm_back_args a = {gx, gweight || gbias ? partial : 0, gy, x, mean, rstd, weight, rows, n, chunk,
                            order_of(rows, n), streams(gx, rows * n, n)};
  mg_parallel(chunks, grain(chunks, chunk * n), layer_norm_chunks, &a);
  sum_rows(gweight, partial, chunks, 2 * n, n);
  sum_rows(gbias, partial + n, chunks, 2 * n, n);
}

void FN(rms_norm_backward)(T *gx, T *gweight, T *partial, const T *gy, const T *x, const T *rstd, const T *weight,
                           int64_t rows, int64_t n) {
  const int64_t chunks = mg_chunks(rows), chunk = (rows + chunks - 1) / chunks;
  layer_norm_back_args a = {gx, gweight ? partial : 0, gy, x, 0, rstd, weight, rows, n, chunk,
                            order_of(rows, n), streams(gx, rows * n, n)};
  mg_parallel(chunks, grain(chunks, chunk * n), rms_norm_chunks, &a);
  sum_rows(gweight, partial, chunks, n, n);
}

void FN(norm_rows_backward)(T *gx, T *sums, const T *gy, const T *x, const T *mean, const T *rstd, const T *weight,
                            int64_t rows, int64_t n, int64_t centred) {
  layer_norm_back_args a = {gx, sums, gy, x, mean, rstd, weight, rows, n, rows, order_of(rows, n),
                            streams(gx, rows * n, n)};
  layer_norm_back_rows(&a, 0, rows, sums, 0, (int)centred);
  if (a.stream) vstreamed();
}

/* Are units (channels, rows) whose results are stored past the caches written while the next one is summed? Such stores
 * take their time (23 ps a byte on Zen 5, whatever else is done), and the CPU waits for them once its queue is full.
 * So the sums are taken between the stores, of what L1 was asked for while these were queued: the forward pass of
 * 32x64x28x28 takes 0.73 of the time of one after the other (batch norm), 0.84 (group norm). Not backward: gains of a
 * tenth below 8 MB, losses above. Float64 and AVX2 do without, for 2 kB of code. */
#define TURNS (STREAMS && TYPE_IS == 1 && VBYTES == 64)
/* The grain of such units: many to a thread. */
NOINLINE int64_t grain_of(int64_t units, int64_t each, int in_turn) {
  const int64_t threads = mg_get_num_threads(), many = units / (threads > 1 ? 4 * threads : 1);
  return in_turn ? MAX(grain(units, each), many) : grain(units, each);
}

/* ---- batch norm: x is [batch, channels, inner], S all of a channel ------------------------------------------------
 *
 *   for each channel c:  mean = average(x[:, c, :]);  var = average((x[:, c, :] - mean)^2);  rstd = 1 / sqrt(var + eps)
 *                        y[:, c, :] = (x[:, c, :] - mean) * rstd * weight[c] + bias[c]
 *
 * S is as large as the batch, so three passes over it would be three trips to memory. Instead it is cut into blocks.
 * Of a block only the sums of the distances from `shift` and of their squares are taken, in one pass; they give its
 * mean and M2, its sum of squared distances from that mean. Block and total are merged with the formula of Chan, Golub
 * and LeVeque (1979), in double, all means counted from the channel's first element, so that a large common mean takes
 * no digits from delta:
 *     mean_b = shift + d1 / n_b;   M2_b = d2 - d1^2 / n_b
 *     delta = mean_b - mean;   mean += delta * n_b / (n + n_b);   M2 += M2_b + delta^2 * n * n_b / (n + n_b)
 * `shift` is the mean of all blocks before; for the first block, its own, which takes a pass of its own. So d1^2 / n_b
 * takes no digits from M2 that matter: a block whose mean is off from that of the n elements before by D adds
 * D^2 n_b n / (n + n_b) to the total M2, so that the digits of d2 = n_b D^2 that are lost are small beside it. Not so
 * small are those that a lane loses where it adds many equal squares, each rounded the same way: n_b D^2 in 2^24 parts
 * for each of up to 128 additions. So a strip block that is far off takes a second pass, too.
 * Memory is read once for the statistics and once to normalise, in the order of its addresses where it can be.
 *
 * Two shapes of block, by the length of the contiguous strips that a channel is made of:
 *   inner >= LONG_STRIP  strips of one channel, summed along the lanes. A thread takes several channels, strip by
 *                        strip, unless strips are long (`channels_together`);
 *   inner <  LONG_STRIP  columns: x is taken as [batch, channels * inner], and lanes are columns. This needs no
 *                        horizontal sums and no tails. The `inner` columns of a channel are merged afterwards.
 *                        inner == 1 is the 2-D case. A thread takes as many columns as it can keep the sums of in L1.
 */
#define LONG_STRIP (8 * VL)           /* 64x32x8x8 with AVX2: 0.84 of the time of columns, float64 0.73 */
#define COLUMNS_MAX 2048             /* that are worked on together, a whole number of channels: their sums and */
#define COLUMNS_CACHED 512           /* factors are in L1; where x is in the caches fewer are faster (256x2048: 0.88) */
#define BLOCK_ROWS 64                /* rows of a block of columns; the first has FIRST_ROWS, the second as many, the
                                      * next ones as many as there were before */
#define FIRST_ROWS 8

/* How the work on channels is cut: how many a thread works on together; is the array in the caches (columns then go one
 * by one, down the rows)? Is the result stored past the caches? Is it, while the next channel is summed? */
typedef struct { int64_t many; int cached, stream, in_turn; } cut;

typedef struct {
  T *y, *mean, *var, *rstd;    /* eval: y only */
  const T *x, *weight, *bias, *given_mean, *given_var;
  int64_t batch, channels, inner;
  double eps;
  cut how;
} batch_norm_args;

/* Channels that a thread works on together. Columns, and strips up to SHORT_STRIP bytes: as many as there are, so that
 * memory is read in the order of its addresses. Longer strips: one channel, or as many as L2 keeps. */
#define SHORT_STRIP 8192
#define L2_BYTES (1 << 18)
#define LINE (64 / (int64_t)sizeof(T))
static inline int64_t channels_together(int64_t batch, int64_t channels, int64_t inner) {
  const int64_t threads = mg_get_num_threads(), bytes = inner * (int64_t)sizeof(T);
  int64_t many = COLUMNS_MAX / (inner < LONG_STRIP ? inner : 1);
  if (inner < LONG_STRIP && !beyond_caches(batch * channels * inner)) many = COLUMNS_CACHED / inner;
  if (bytes > SHORT_STRIP) many = L2_BYTES / MAX(1, batch * bytes);
  int64_t share = (channels + threads - 1) / threads;
  /* Columns of two threads do not share a cache line: each would wait for the other's results, and load vectors that
   * lie in two lines. */
  if (bytes % 64) share = (share + LINE - 1) / LINE * LINE;
  /* Rows of `many` channels are whole cache lines, too: these can be stored past the caches (512x64x7x7: 0.53). */
  int64_t step = LINE, odd = inner;
  for (; step > 1 && odd % 2 == 0; odd /= 2) step /= 2;
  if (many > step) many -= many % step;
  return MAX(1, MIN(share, many));
}

/* Should y be stored past the caches? It is written strip by strip, or in rows of `many` channels. */
static inline int streams_in(const T *y, int64_t batch, int64_t channels, int64_t inner, int64_t many) {
  return streams(y, batch * channels * inner, inner >= LONG_STRIP ? inner : channels * inner | many * inner);
}

/* Cuts the work that gives `result`, and runs it for pieces of the channels. in_turn: may strips whose results are
 * stored past the caches go channel by channel (TURNS)? */
static void over_channels(void *context, cut *how, const T *result, int64_t batch, int64_t channels, int64_t inner,
                          int in_turn, void (*strips)(void *, int64_t, int64_t),
                          void (*columns)(void *, int64_t, int64_t)) {
  if (!inner || !channels) return;
  const int64_t size = batch * channels * inner;
  int64_t many = channels_together(batch, channels, inner);
  *how = (cut){many, !beyond_caches(size), streams_in(result, batch, channels, inner, many), 0};
  if (in_turn && how->stream && inner >= LONG_STRIP) how->many = many = how->in_turn = 1;
  const int64_t units = (channels + many - 1) / many;
  mg_parallel(units, grain_of(units, batch * inner * many, how->in_turn), inner >= LONG_STRIP ? strips : columns,
              context);
}

/* What a thread keeps of the channels, or columns, that it works on: one number for each. */
typedef struct { double *mean, *m2; T *shift, *origin, *d1, *d2; } sums;
static int sums_of(sums *s, int64_t n) {
  double *at = mg_scratch(0, (size_t)n * (2 * sizeof(double) + 4 * sizeof(T)));
  if (!at) return 0;
  T *of = (T *)(at + 2 * n);
  *s = (sums){at, at + n, of, of + n, of + 2 * n, of + 3 * n};
  return 1;
}
/* Adds n elements to channel i, which had `before`: the sums of their distances from shift, and of the squares. */
static inline void merge(const sums *s, int64_t i, double before, double n, double d1, double d2) {
  const double each = 1 / n, part = n / (before + n);
  const double delta = ((double)s->shift[i] - (double)s->origin[i]) + d1 * each - s->mean[i];
  s->mean[i] += delta * part;
  s->m2[i] += d2 - d1 * d1 * each + delta * delta * (before * part);
  s->shift[i] = (T)(s->origin[i] + s->mean[i]);
}

/* A loop over the blocks of a channel's strips: `strips` strips from number b on, elements [i, i + length) of each. */
#define EACH_BLOCK(b, i, strips, length, batch, inner, ...) do { \
    const int64_t many_ = (inner) < BLOCK_ELEMENTS ? BLOCK_ELEMENTS / (inner) : 1; \
    for (int64_t b = 0; b < (batch); b += many_) \
      for (int64_t i = 0; i < (inner); i += BLOCK_ELEMENTS) { \
        const int64_t strips = MIN(many_, (batch) - b), length = MIN(BLOCK_ELEMENTS, (inner) - i); \
        __VA_ARGS__ \
      } \
  } while (0)

/* d1[u] += the distances from m, d2[u] += their squares */
INLINE void add_distances(V *d1, V *d2, V m, const T *x, int64_t strips, int64_t stride, int64_t length) {
  for (int64_t q = 0; q < strips; q++)
    EACH_VECTOR_4(j, u, k, length,
      V d = keep(load_n(x + q * stride + j, k) - m, k);
      d1[u] += d;
      d2[u] = vfma(d, d, d2[u]););
}

/* Of an array whose result is stored past the caches, L1 is asked for what comes AHEAD elements later (or a row, where
 * the statistics of a row come between): strips of 3 kB gain nothing, those of 12 kB a tenth. */
#define AHEAD (6144 / (int64_t)sizeof(T))
TEMPLATE void scale_strip(T *y, const T *x, T mean, T scale, T shift, int64_t n, int stream, int64_t ahead) {
  const V m = vset(mean), a = vset(scale), b = vset(shift);
  EACH_VECTOR(j, k, n,
    if (stream) __builtin_prefetch(x + ahead + j);
    put_n(y + j, vfma(load_n(x + j, k) - m, a, b), k, stream););
}

/* the same past the caches, between the sums of what is next: a call is small beside such a strip */
NOINLINE void scale_past(T *y, const T *x, T mean, T scale, T shift, int64_t n, int64_t ahead) {
  scale_strip(y, x, mean, scale, shift, n, 1, ahead);
}

/* A channel whose factors are known: it is written while the next one is summed. */
typedef struct { T *y; const T *x; T mean, scale, shift; } known_channel;

/* Adds a block of channel c. It takes a second pass if it is the first one, or far off. */
INLINE void add_block(const sums *s, int64_t c, const T *x, double before, int64_t strips, int64_t stride,
                      int64_t length) {
  const double count = (double)(strips * length);
  for (int first = 1, again = 1; again; first = 0) {
    V d1[4] = {vzero(), vzero(), vzero(), vzero()};
    V d2[4] = {vzero(), vzero(), vzero(), vzero()};
    add_distances(d1, d2, vset(s->shift[c]), x, strips, stride, length);
    const double rest = vsum((d1[0] + d1[1]) + (d1[2] + d1[3]));
    const double squares = vsum((d2[0] + d2[1]) + (d2[2] + d2[3]));
    again = first && (before == 0 || rest * rest > squares * count / 2);
    if (again) s->shift[c] = (T)(s->shift[c] + rest / count);
    else merge(s, c, before, count, rest, squares);
  }
}

/* mean (counted from the channel's origin) and M2 of `channels` channels. If `known` is given, the one before the first
 * of them, a block of it is written after each block that is summed, and L1 is asked for the next block. */
static void strip_moments(const sums *s, const T *x, int64_t batch, int64_t stride, int64_t channels, int64_t inner,
                          const known_channel *known) {
  double before = 0;
  for (int64_t c = 0; c < channels; c++) {
    s->mean[c] = s->m2[c] = 0;
    s->shift[c] = s->origin[c] = batch ? x[c * inner] : 0;
  }
  EACH_BLOCK(b, i, strips, length, batch, inner,
    const int64_t at = b * stride + i, next = inner + (i + length < inner ? length : strips * stride - i);
    for (int64_t c = 0; c < channels; c++) add_block(s, c, x + at + c * inner, before, strips, stride, length);
    for (int64_t q = at; TURNS && known && q < at + strips * stride; q += stride)
      scale_past(known->y + q, known->x + q, known->mean, known->scale, known->shift, length, next);
    before += (double)(strips * length););
  for (int64_t c = 0; c < channels; c++) s->mean[c] += s->origin[c];
}

static inline set channel_set(int64_t batch, int64_t channels, int64_t inner) {
  return (set){batch * inner, inner, channels * inner, batch * inner};
}
static void plain_batch_norm(const batch_norm_args *a, int64_t c) {
  plain_forward(a->y + c * a->inner, a->mean + c, a->var + c, a->rstd + c, a->x + c * a->inner,
                a->weight ? a->weight + c : 0, a->bias ? a->bias + c : 0, channel_set(a->batch, a->channels, a->inner),
                a->eps, 1);
  for (int64_t b = 0; b < a->batch; b++) mg_written(a->y + (b * a->channels + c) * a->inner, a->inner);
}

static void batch_norm_strips(void *context, int64_t begin, int64_t end) {
  const batch_norm_args *a = context;
  const int64_t inner = a->inner, stride = a->channels * inner, many = a->how.many;
  sums of;
  known_channel known = {0};
  if (!sums_of(&of, many)) return;
  for (int64_t unit = begin; unit < end; unit++) {
    const int64_t first = unit * many, channels = MIN(many, a->channels - first), at = first * inner;
    if (!a->given_mean) strip_moments(&of, a->x + at, a->batch, stride, channels, inner, known.x ? &known : 0);
    for (int64_t i = 0; i < channels; i++) {
      const int64_t c = first + i;
      const double mean = a->given_mean ? a->given_mean[c] : of.mean[i];
      const double var = a->given_mean ? a->given_var[c] : of.m2[i] / (double)(a->batch * inner);
      const double rstd = 1 / sqrt(var + a->eps);
      if (a->mean) a->mean[c] = (T)mean, a->var[c] = (T)var, a->rstd[c] = (T)rstd;
      of.shift[i] = (T)mean;
      of.d1[i] = (T)(a->weight ? rstd * a->weight[c] : rstd);
      of.d2[i] = a->bias ? a->bias[c] : 0;
    }
    known = (known_channel){a->y + at, a->x + at, of.shift[0], of.d1[0], of.d2[0]};
    if (TURNS && a->how.in_turn && unit + 1 < end) continue;
    known.x = 0;
    for (int64_t b = 0; b < a->batch; b++)
      for (int64_t i = 0, told = 0; i < channels; i++) {
        const int64_t strip = b * stride + at + i * inner;
        scale_strip(a->y + strip, a->x + strip, of.shift[i], of.d1[i], of.d2[i], inner, a->how.stream, AHEAD);
        if ((i + 1 - told) * inner < BLOCK_ELEMENTS && i + 1 < channels) continue;
        mg_written(a->y + b * stride + at + told * inner, (i + 1 - told) * inner);
        told = i + 1;
      }
  }
  if (a->how.stream) vstreamed();
}

/* d1[j] += the distances of column j from shift[j] in R rows, d2[j] += their squares. far: L1 is asked for the next R
 * rows, where they are neighbours in the order of their addresses: 0.8 of the time of column by column */
INLINE void add_columns_of(const sums *s, const T *x, int64_t stride, int64_t n, const int R, const int far) {
  const int64_t along = stride == n ? R : 1, across = stride == n ? VL : stride;
  EACH_VECTOR(j, k, n,
    const V shift = load_n(s->shift + j, k);
    V d1 = load_n(s->d1 + j, k);
    V d2 = load_n(s->d2 + j, k);
    UNROLL for (int r = 0; r < R; r++) {
      if (far) __builtin_prefetch(x + R * stride + r * across + along * j);
      const V d = load_n(x + r * stride + j, k) - shift;
      d1 += d;
      d2 = vfma(d, d, d2);
    }
    store_n(s->d1 + j, d1, k);
    store_n(s->d2 + j, d2, k););
}
/* the sums of W vectors of k columns, which stay in registers down the rows */
INLINE void add_columns_down(const sums *s, const T *x, int64_t rows, int64_t stride, int64_t j, const int W, int k) {
  V shift[4], d1[4], d2[4];
  EACH_PART(w) shift[w] = load_n(s->shift + j + w * VL, k), d1[w] = d2[w] = vset(0);
  for (int64_t q = 0; q < rows; q++)
    EACH_PART(w) {
      const V d = load_n(x + q * stride + j + w * VL, k) - shift[w];
      d1[w] += d;
      d2[w] = vfma(d, d, d2[w]);
    }
  EACH_PART(w) store_n(s->d1 + j + w * VL, d1[w], k), store_n(s->d2 + j + w * VL, d2[w], k);
}
/* ... in all rows: in the caches column by column; else four rows side by side, read a little ahead (8: slower) */
static void add_columns(const sums *s, const T *x, int64_t rows, int64_t stride, int64_t n, int cached) {
  if (MG_SMALL || cached) {
    EACH_COLUMNS(j, W, k, n, add_columns_down(s, x, rows, stride, j, W, k););
    return;
  }
  int64_t q = 0;
  memset(s->d1, 0, (size_t)n * sizeof(T));
  memset(s->d2, 0, (size_t)n * sizeof(T));
  for (; q + 4 <= rows; q += 4) add_columns_of(s, x + q * stride, stride, n, 4, 1);
  for (; q < rows; q++) add_columns_of(s, x + q * stride, stride, n, 1, 0);
}

/* mean (counted from the channel's origin) and M2 of `channels` channels: first of each column, then merged. */
static void column_moments(const sums *s, const T *x, int64_t batch, int64_t stride, int64_t channels,
                           int64_t inner, int cached) {
  const int64_t n = channels * inner;
  double *mean = s->mean, *m2 = s->m2;
  for (int64_t i = 0; i < channels; i++)
    for (int64_t j = i * inner; j < (i + 1) * inner; j++) s->shift[j] = s->origin[j] = batch ? x[i * inner] : 0;
  for (int64_t j = 0; j < n; j++) mean[j] = m2[j] = 0;
  for (int64_t b = 0, rows; b < batch; b += rows) {
    rows = MIN(BLOCK_ROWS, batch - b);
    if (b < BLOCK_ROWS) rows = MIN(MAX(b, FIRST_ROWS), batch - b);
    if (b == 0) {
      add_columns(s, x, rows, stride, n, cached);
      for (int64_t j = 0; j < n; j++) s->shift[j] = (T)(s->shift[j] + s->d1[j] / (double)rows);
    }
    add_columns(s, x + b * stride, rows, stride, n, cached);
    for (int64_t j = 0; j < n; j++) merge(s, j, (double)b, (double)rows, s->d1[j], s->d2[j]);
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
  for (int64_t i = 0; i < channels; i++) mean[i] += s->origin[i * inner];
}

/* Rows of n elements that L1 is asked for ahead of those at hand: one row of 4096x768 is too near, stores past the
 * caches do not leave memory the time. */
static inline int64_t rows_ahead(int64_t n) { return (AHEAD + n - 1) / n; }

/* Row by row: the three factors come from L1, the rows in the order of memory. Four rows side by side, which share the
 * factors, take 1.17 of the time of 64x512 (rows 2 kB apart wait for each other), 0.93 of that of 256x128. */
INLINE void scale_rows(T *y, const T *x, const T *mean, const T *scale, const T *shift, int64_t batch, int64_t stride,
                       int64_t n, const int stream) {
  const int64_t ahead = stream ? rows_ahead(n) * stride : 0;
  for (int64_t q = 0; q < batch; q++, x += stride, y += stride) {
    EACH_VECTOR(j, k, n,
      if (stream) __builtin_prefetch(x + ahead + j);
      put_n(y + j, vfma(load_n(x + j, k) - load_n(mean + j, k), load_n(scale + j, k), load_n(shift + j, k)), k, stream););
    mg_written(y, n);
  }
}
static void scale_columns(T *y, const T *x, const T *mean, const T *scale, const T *shift, int64_t batch,
                          int64_t stride, int64_t n, int stream) {
  if (STREAMS && stream) scale_rows(y, x, mean, scale, shift, batch, stride, n, 1);
  else scale_rows(y, x, mean, scale, shift, batch, stride, n, 0);
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
  const int64_t inner = a->inner, stride = a->channels * inner, many = a->how.many;
  const double each = 1 / (double)(a->batch * inner);
  sums of;
  if (!sums_of(&of, many * inner)) return;
  T *mean = of.shift, *var = of.origin, *rstd = of.d1, *shift = of.d2;
  for (int64_t unit = begin; unit < end; unit++) {
    const int64_t c = unit * many, channels = MIN(many, a->channels - c);
    const size_t bytes = (size_t)channels * sizeof(T);
    if (a->given_mean) {
      memcpy(mean, a->given_mean + c, bytes);
      memcpy(var, a->given_var + c, bytes);
    } else {
      column_moments(&of, a->x + c * inner, a->batch, stride, channels, inner, a->how.cached);
      for (int64_t i = 0; i < channels; i++) mean[i] = (T)of.mean[i], var[i] = (T)(of.m2[i] * each);
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
    scale_columns(a->y + c * inner, a->x + c * inner, mean, rstd, shift, a->batch, stride, channels * inner,
                  a->how.stream);
  }
  if (a->how.stream) vstreamed();
}

static void batch_norm(batch_norm_args *a) {
  const int64_t strip = a->inner * (int64_t)sizeof(T), bytes = a->batch * a->channels * strip;
  /* short strips of an array in memory gain nothing */
  const int in_turn = TURNS && !a->given_mean && (strip > SHORT_STRIP || bytes <= 4 * MG_CACHED_BYTES);
  over_channels(a, &a->how, a->y, a->batch, a->channels, a->inner, in_turn, batch_norm_strips, batch_norm_columns);
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
  cut how;                     /* as in batch_norm_args */
} batch_norm_back_args;

INLINE int needs_sums(const batch_norm_back_args *a) { return !a->var || a->gweight || a->gbias; }
static void plain_batch_norm_back(const batch_norm_back_args *a, int64_t c) {
  const int64_t at = c * a->inner;
  plain_backward(a->gx ? a->gx + at : 0, a->gweight ? a->gweight + c : 0, a->gbias ? a->gbias + c : 0, a->gy + at,
                 a->x + at, a->mean[c], a->rstd[c], a->weight ? a->weight + c : 0,
                 channel_set(a->batch, a->channels, a->inner), 1, 1);
}
/* Adds the sums of gy and of gy * (x - m) of some strips. */
TEMPLATE void add_back_strips(double *sum, double *sum_d, V m, const T *gy, const T *x, int64_t strips, int64_t stride,
                              int64_t length) {
  V s1[4] = {vzero(), vzero(), vzero(), vzero()};
  V s2[4] = {vzero(), vzero(), vzero(), vzero()};
  for (int64_t q = 0; q < strips; q++)
    EACH_VECTOR_4(j, u, k, length,
      V g = load_n(gy + q * stride + j, k);
      s1[u] += g;
      s2[u] = vfma(g, load_n(x + q * stride + j, k) - m, s2[u]););
  *sum += vsum((s1[0] + s1[1]) + (s1[2] + s1[3]));
  *sum_d += vsum((s2[0] + s2[1]) + (s2[2] + s2[3]));
}

static void batch_norm_back_strips(void *context, int64_t begin, int64_t end) {
  const batch_norm_back_args *a = context;
  const int64_t inner = a->inner, stride = a->channels * inner, many = a->how.many;
  const double count = (double)(a->batch * inner);
  sums of;
  if (!sums_of(&of, many)) return;
  for (int64_t unit = begin; unit < end; unit++) {
    const int64_t first = unit * many, channels = MIN(many, a->channels - first), at = first * inner;
    for (int64_t i = 0; i < channels; i++) of.mean[i] = of.m2[i] = 0, of.shift[i] = a->mean[first + i];
    if (needs_sums(a))
      EACH_BLOCK(b, k, strips, length, a->batch, inner,
        for (int64_t i = 0; i < channels; i++)
          add_back_strips(of.mean + i, of.m2 + i, vset(of.shift[i]), a->gy + at + b * stride + i * inner + k,
                          a->x + at + b * stride + i * inner + k, strips, stride, length););
    for (int64_t i = 0; i < channels; i++) {
      const int64_t c = first + i;
      const double rstd = a->var ? 1 / sqrt(a->var[c] + a->eps) : a->rstd[c];
      if (a->gbias) a->gbias[c] = (T)of.mean[i];
      if (a->gweight) a->gweight[c] = (T)(of.m2[i] * rstd);
      of.d1[i] = (T)(-of.mean[i] / count);
      of.d2[i] = (T)(-of.m2[i] * rstd * rstd / count);
      of.origin[i] = (T)(a->weight ? rstd * a->weight[c] : rstd);
    }
    for (int64_t b = 0; a->gx && b < a->batch; b++)
      for (int64_t i = 0; i < channels; i++) {
        const T *g = a->gy + at + b * stride + i * inner, *p = a->x + at + b * stride + i * inner;
        T *gx = a->gx + at + b * stride + i * inner;
        const V m = vset(of.shift[i]), c1 = vset(of.d1[i]), c2 = vset(of.d2[i]), scale = vset(of.origin[i]);
        if (a->var) EACH_VECTOR(j, k, inner, put_n(gx + j, load_n(g + j, k) * scale, k, a->how.stream););
        else
          EACH_VECTOR(j, k, inner,
            if (a->how.stream) __builtin_prefetch(g + AHEAD + j), __builtin_prefetch(p + AHEAD + j);
            put_n(gx + j, vfma(load_n(p + j, k) - m, c2, load_n(g + j, k) + c1) * scale, k, a->how.stream););
      }
  }
  if (a->how.stream) vstreamed();
}

/* d1[j] += the sum of gy in column j of R rows, d2[j] += that of gy * (x - shift). far: as in add_columns_of */
INLINE void add_back_columns_of(const sums *s, const T *gy, const T *x, int64_t stride, int64_t n, const int R,
                                const int far) {
  const int64_t along = stride == n ? R : 1, across = stride == n ? VL : stride;
  EACH_VECTOR(j, k, n,
    const V mean = load_n(s->shift + j, k);
    V d1 = load_n(s->d1 + j, k);
    V d2 = load_n(s->d2 + j, k);
    UNROLL for (int r = 0; r < R; r++) {
      if (far) {
        __builtin_prefetch(gy + R * stride + r * across + along * j);
        __builtin_prefetch(x + R * stride + r * across + along * j);
      }
      const V g = load_n(gy + r * stride + j, k);
      d1 += g;
      d2 = vfma(g, load_n(x + r * stride + j, k) - mean, d2);
    }
    store_n(s->d1 + j, d1, k);
    store_n(s->d2 + j, d2, k););
}
/* as add_columns_down */
INLINE void add_back_columns_down(const sums *s, const T *gy, const T *x, int64_t rows, int64_t stride, int64_t j,
                                  const int W, int k) {
  V mean[4], d1[4], d2[4];
  EACH_PART(w) mean[w] = load_n(s->shift + j + w * VL, k), d1[w] = d2[w] = vset(0);
  for (int64_t q = 0; q < rows; q++)
    EACH_PART(w) {
      const int64_t i = q * stride + j + w * VL;
      const V g = load_n(gy + i, k);
      d1[w] += g;
      d2[w] = vfma(g, load_n(x + i, k) - mean[w], d2[w]);
    }
  EACH_PART(w) store_n(s->d1 + j + w * VL, d1[w], k), store_n(s->d2 + j + w * VL, d2[w], k);
}
static void add_back_columns(const sums *s, const T *gy, const T *x, int64_t rows, int64_t stride, int64_t n,
                             int cached) {
  if (MG_SMALL || cached) {
    EACH_COLUMNS(j, W, k, n, add_back_columns_down(s, gy, x, rows, stride, j, W, k););
    return;
  }
  int64_t q = 0;
  memset(s->d1, 0, (size_t)n * sizeof(T));
  memset(s->d2, 0, (size_t)n * sizeof(T));
  for (; q + 2 <= rows; q += 2)
    add_back_columns_of(s, gy + q * stride, x + q * stride, stride, n, 2, 1);
  for (; q < rows; q++) add_back_columns_of(s, gy + q * stride, x + q * stride, stride, n, 1, 0);
}

/* gx = ((gy + c1) + (x - mean) * c2) * scale, or gy * scale. far: L1 is asked for what comes AHEAD */
TEMPLATE void column_back(T *gx, const T *gy, const T *x, const T *mean, const T *c1, const T *c2, const T *scale,
                          int64_t batch, int64_t stride, const int frozen, int64_t n, int stream, const int far) {
  const int64_t ahead = rows_ahead(n) * stride;
  for (int64_t q = 0; q < batch; q++)
    EACH_VECTOR(j, k, n,
      const int64_t i = q * stride + j;
      if (far) __builtin_prefetch(gy + i + ahead), __builtin_prefetch(x + i + ahead);
      V g = load_n(gy + i, k);
      if (!frozen) g = vfma(load_n(x + i, k) - load_n(mean + j, k), load_n(c2 + j, k), g + load_n(c1 + j, k));
      put_n(gx + i, g * load_n(scale + j, k), k, stream););
}

static void batch_norm_back_columns(void *context, int64_t begin, int64_t end) {
  const batch_norm_back_args *a = context;
  const int64_t inner = a->inner, stride = a->channels * inner, many = a->how.many;
  const double each = 1 / (double)(a->batch * inner);
  sums of;
  if (!sums_of(&of, many * inner)) return;
  double *sum = of.mean, *sum_d = of.m2;
  T *mean = of.shift, *rstd = of.origin, *c1 = of.d1, *c2 = of.d2;
  for (int64_t unit = begin; unit < end; unit++) {
    const int64_t c = unit * many, channels = MIN(many, a->channels - c), n = channels * inner;
    const T *gy = a->gy + c * inner, *x = a->x + c * inner;
    memcpy(mean, a->mean + c, (size_t)channels * sizeof(T));
    if (a->var) rstd_of(rstd, a->var + c, channels, a->eps);
    else memcpy(rstd, a->rstd + c, (size_t)channels * sizeof(T));
    spread(mean, channels, inner);
    for (int64_t j = 0; j < n; j++) sum[j] = sum_d[j] = 0;
    for (int64_t b = 0; needs_sums(a) && b < a->batch; b += BLOCK_ROWS) {
      add_back_columns(&of, gy + b * stride, x + b * stride, MIN(BLOCK_ROWS, a->batch - b), stride, n, a->how.cached);
      for (int64_t j = 0; j < n; j++) sum[j] += of.d1[j], sum_d[j] += of.d2[j];
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
    T *gx = a->gx + c * inner;
    if (a->var) column_back(gx, gy, x, mean, c1, c2, rstd, a->batch, stride, 1, n, a->how.stream, 0);
    else if (a->how.cached) column_back(gx, gy, x, mean, c1, c2, rstd, a->batch, stride, 0, n, 0, 0);
    else column_back(gx, gy, x, mean, c1, c2, rstd, a->batch, stride, 0, n, a->how.stream, 1);
  }
  if (a->how.stream) vstreamed();
}

static void batch_norm_back(batch_norm_back_args *a) {
  over_channels(a, &a->how, a->gx, a->batch, a->channels, a->inner, 0, batch_norm_back_strips, batch_norm_back_columns);
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
void FN(counted_update)(T *running, const T *value, const T *count, int64_t n, int64_t unbiased, double momentum) {
  for (int64_t i = 0; i < n; i++)
    if (count[i] > 1) FN(running_update)(running + i, value + i, 1, momentum, unbiased ? count[i] / (count[i] - 1.) : 1);
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
  int together, stream;
} group_norm_args;

/* strip c of a row, whose mean and rstd are there; in_turn: the next row is being summed */
INLINE void group_strip(const group_norm_args *a, int64_t row, int64_t c, int stream, int in_turn) {
  const int64_t channel = row % a->groups * a->cpg + c, at = (row * a->cpg + c) * a->inner, n = a->cpg * a->inner;
  const T mean = a->mean[row], rstd = a->rstd[row], bias = a->bias ? a->bias[channel] : 0;
  const T scale = a->weight ? rstd * a->weight[channel] : rstd;
  if (in_turn) scale_past(a->y + at, a->x + at, mean, scale, bias, a->inner, n + 2 * BLOCK_ELEMENTS);
  else scale_strip(a->y + at, a->x + at, mean, scale, bias, a->inner, stream, n);
}
/* a row whose squares leave the range of T is done again */
NOINLINE void group_again(const group_norm_args *a, int64_t row) {
  const int64_t n = a->cpg * a->inner, c0 = row % a->groups * a->cpg;
  if (__builtin_expect(out_of_range(a->rstd[row]), 0))
    plain_forward(a->y + row * n, a->mean + row, 0, a->rstd + row, a->x + row * n, a->weight ? a->weight + c0 : 0,
                  a->bias ? a->bias + c0 : 0, (set){n, n, 0, a->inner}, a->eps, 1);
}
TEMPLATE void group_norm_some(const group_norm_args *a, int64_t row, const int R) {
  const int64_t cpg = a->cpg, inner = a->inner, n = cpg * inner;
  V mean[4], rstd[4];
  moments(mean, rstd, a->x + row * n, n, a->eps, R, 1);
  for (int r = 0; r < R; r++) {
    const int64_t c0 = (row + r) % a->groups * cpg;
    const T *x = a->x + (row + r) * n, *weight = a->weight ? a->weight + c0 : 0, *bias = a->bias ? a->bias + c0 : 0;
    T *y = a->y + (row + r) * n;
    a->mean[row + r] = mean[r][0];
    a->rstd[row + r] = rstd[r][0];
    if (inner == 1)
      EACH_VECTOR(j, k, n,
        const V xhat = (load_n(x + j, k) - mean[r]) * rstd[r];
        put_n(y + j, vfma(xhat, load_n_or(weight, j, k, 1), load_n_or(bias, j, k, 0)), k, R == 1 && a->stream););
    else
      for (int64_t c = 0; c < cpg; c++) group_strip(a, row + r, c, R == 1 && a->stream, 0);
    group_again(a, row + r);
  }
}

/* While a row is written, the next one is summed, block by block. */
NOINLINE void group_norm_in_turn(const group_norm_args *a, int64_t begin, int64_t end) {
  const int64_t n = a->cpg * a->inner;
  for (int64_t row = begin; row <= end; row++) {
    const T *x = a->x + row * n;
    row_sums s = {{0}, {0}};
    V shift, mean, rstd;
    if (row < end) shift_of_rows(&shift, x, n, 1);
    for (int64_t b = 0, c = 0; b < n; b += BLOCK_ELEMENTS) {
      if (row < end) add_rows(&s, &shift, x + b, n, MIN(BLOCK_ELEMENTS, n - b), 1, 1);
      for (; row > begin && c < a->cpg && c * a->inner < b + BLOCK_ELEMENTS; c++)
        group_strip(a, row - 1, c, 1, 1);
    }
    if (row > begin) group_again(a, row - 1);
    if (row == end) break;
    if (moments_of(&mean, &rstd, &shift, &s, n, a->eps, 1, 1)) moments_from_1(&mean, &rstd, mean, x, n, a->eps);
    a->mean[row] = mean[0];
    a->rstd[row] = rstd[0];
  }
}

static void group_norm_rows(void *context, int64_t begin, int64_t end) {
  const group_norm_args *a = context;
  const int64_t n = a->cpg * a->inner;
  if (TURNS && a->stream && a->inner > 1) {
    group_norm_in_turn(a, begin, end);
    begin = end;
  }
  for (int64_t row = begin, last; row < end;) {
    const int64_t first = row;
    last = MIN(first + rows_told(n), end);
    for (; row + 4 <= last && SOME_ROWS == 4 && a->together == 4; row += 4) group_norm_some(a, row, 4);
    for (; row < last; row++) group_norm_some(a, row, 1);
    mg_written(a->y + first * n, (last - first) * n);
  }
  if (a->stream) vstreamed();
}

void FN(group_norm_forward)(T *y, T *mean, T *rstd, const T *x, const T *weight, const T *bias, int64_t batch,
                            int64_t groups, int64_t cpg, int64_t inner, double eps) {
  group_norm_args a = {y, mean, rstd, x, weight, bias, groups, cpg, inner, eps,
                       rows_together(batch * groups * cpg * inner, 4),
                       streams(y, batch * groups * cpg * inner, inner == 1 ? cpg : inner)};
  const int64_t rows = batch * groups, most = grain_of(rows, cpg * inner, TURNS && a.stream);
  mg_parallel(rows, (most + 3) / 4 * 4, group_norm_rows, &a);
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
  int stream;
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
        for (int64_t b = 0; b < inner; b += BLOCK_ELEMENTS)
          add_back_strips(&sum, &sum_d, m, gy + c * inner + b, x + c * inner + b, 1, 0, MIN(BLOCK_ELEMENTS, inner - b));
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
        put_n(gx + j, vfma(load_n(x + j, k) - m, k2, g), k, a->stream););
    else
      for (int64_t c = 0; c < cpg; c++) {
        const V w = vset(weight ? weight[c] * rstd : rstd);
        const T *g = gy + c * inner, *p = x + c * inner;
        EACH_VECTOR(j, k, inner,
          if (a->stream) __builtin_prefetch(g + n + j), __builtin_prefetch(p + n + j);
          put_n(gx + c * inner + j, vfma(load_n(p + j, k) - m, k2, vfma(load_n(g + j, k), w, k1)), k, a->stream););
      }
  }
  if (a->stream) vstreamed();
}

void FN(group_norm_backward)(T *gx, T *gweight, T *gbias, T *partial, const T *gy, const T *x, const T *mean,
                             const T *rstd, const T *weight, int64_t batch, int64_t groups, int64_t cpg,
                             int64_t inner) {
  const int64_t channels = groups * cpg;
  group_norm_back_args a = {gx, partial, gy, x, mean, rstd, weight, batch, groups, cpg, inner,
                            streams(gx, batch * channels * inner, inner == 1 ? cpg : inner)};
  mg_parallel(batch * groups, grain(batch * groups, cpg * inner), group_norm_back_rows, &a);
  sum_rows(gbias, partial, batch, channels, channels);
  sum_rows(gweight, partial + batch * channels, batch, channels, channels);
}

/* ---- masked norm: x is [batch, sets, n], S the elements of x[:, s, :] that are valid -------------------------------
 *
 *   for each set:  count, mean and var of its valid elements;  y = valid ? (x - mean) * rstd * weight + bias : 0
 *
 * These are the plain loops, in the wider type, so that no scale of x is out of range. What is not valid counts as the
 * mean, whatever it is. gweight and gbias: channel by channel, TOGETHER of them in one walk over the array, in the order
 * of its addresses. On the CPU they run the smallest sets, where one launch counts more than vectors; else the
 * definition does. They gain nothing from wide vectors, so that all levels run one form, that of the baseline.
 */
#define OF_ALL_LEVELS(name) MG_CAT2(mg_##name##_, MG_TYPE)
#define MASKED_FORWARD \
  T *y, T *mean, T *var, T *rstd, T *count, const T *x, const uint8_t *mask, const T *weight, const T *bias, \
      int64_t batch, int64_t sets, int64_t n, int64_t each, int64_t channels, int64_t centered, double eps
#define MASKED_BACKWARD \
  T *gx, T *gweight, T *gbias, const T *gy, const T *x, const uint8_t *mask, const T *mean, const T *rstd, \
      const T *count, const T *weight, int64_t batch, int64_t sets, int64_t n, int64_t each, int64_t channels, \
      int64_t centered
void OF_ALL_LEVELS(valid_norm_forward)(MASKED_FORWARD);
void OF_ALL_LEVELS(valid_norm_backward)(MASKED_BACKWARD);
void FN(valid_norm_forward)(MASKED_FORWARD) {
  OF_ALL_LEVELS(valid_norm_forward)(y, mean, var, rstd, count, x, mask, weight, bias, batch, sets, n, each, channels,
                                     centered, eps);
}
void FN(valid_norm_backward)(MASKED_BACKWARD) {
  OF_ALL_LEVELS(valid_norm_backward)(gx, gweight, gbias, gy, x, mask, mean, rstd, count, weight, batch, sets, n, each,
                                      channels, centered);
}

#ifdef MG_LEVEL_baseline
typedef struct {
  T *y, *mean, *var, *rstd, *count, *gx, *gweight, *gbias;
  const T *gy, *x, *weight, *bias;
  const uint8_t *mask;
  int64_t batch, sets, n, each, channels;
  double eps;
  int centered;
} masked_args;
/* v, or 0 where the mask is not set: without a branch, which a CPU guesses wrong half of the time; v may be NaN */
#define IF_VALID(a, e, v) ((const Wide[2]){0, v})[(a)->mask[e] != 0]
/* body for the elements e of set s; c is the channel of e */
#define EACH_OF_SET(a, s, e, c, body) \
  for (int64_t b_ = 0; b_ < a->batch; b_++) { \
    int64_t e = (b_ * a->sets + s) * a->n, c = e / a->each % a->channels; \
    for (const int64_t end_ = e + a->n; e < end_; c = c + 1 < a->channels ? c + 1 : 0) \
      for (const int64_t last_ = e + a->each; e < last_; e++) { body; } \
  }

static void masked_sets(void *context, int64_t begin, int64_t end) {
  const masked_args *a = context;
  for (int64_t s = begin; s < end; s++) {
    Wide sum = 0, squares = 0;
    int64_t count = 0;
    EACH_OF_SET(a, s, e, c, sum += IF_VALID(a, e, a->x[e]); count += a->mask[e] != 0)
    const Wide share = count ? count : 1, m = a->centered ? sum / share : 0;
    EACH_OF_SET(a, s, e, c, const Wide d = IF_VALID(a, e, a->x[e] - m); squares += d * d)
    const Wide var = squares / share, r = 1 / ROOT(var + a->eps);
    a->mean[s] = (T)m, a->var[s] = (T)var, a->rstd[s] = (T)r, a->count[s] = (T)count;
    EACH_OF_SET(a, s, e, c, const Wide y = (a->x[e] - m) * r * (a->weight ? a->weight[c] : 1) + (a->bias ? a->bias[c] : 0);
                a->y[e] = (T)IF_VALID(a, e, y))
  }
}
void OF_ALL_LEVELS(valid_norm_forward)(MASKED_FORWARD) {
  masked_args a = {.y = y, .mean = mean, .var = var, .rstd = rstd, .count = count, .x = x, .mask = mask,
                   .weight = weight, .bias = bias, .batch = batch, .sets = sets, .n = n, .each = each,
                   .channels = channels, .centered = (int)centered, .eps = eps};
  mg_parallel(sets, grain(sets, batch * n), masked_sets, &a);
}

static void masked_back_sets(void *context, int64_t begin, int64_t end) {
  const masked_args *a = context;
  for (int64_t s = begin; s < end; s++) {
    const Wide m = a->mean[s], r = a->rstd[s], share = a->count[s] > 0 ? a->count[s] : 1;
    Wide c1 = 0, c2 = 0;
    EACH_OF_SET(a, s, e, c, const Wide g = a->gy[e] * (Wide)(a->weight ? a->weight[c] : 1);
                c1 += IF_VALID(a, e, g); c2 += IF_VALID(a, e, g * ((a->x[e] - m) * r)))
    c1 = a->centered ? c1 / share : 0, c2 /= share;
    EACH_OF_SET(a, s, e, c, const Wide g = a->gy[e] * (Wide)(a->weight ? a->weight[c] : 1);
                a->gx[e] = (T)IF_VALID(a, e, (g - c1 - (a->x[e] - m) * r * c2) * r))
  }
}
#define TOGETHER 16
static void masked_back_channels(void *context, int64_t begin, int64_t end) {
  const masked_args *a = context;
  const int64_t round = a->channels * a->each, total = a->batch * a->sets * a->n;
  for (int64_t first = begin * TOGETHER; first < MIN(end * TOGETHER, a->channels); first += TOGETHER) {
    const int64_t many = MIN(TOGETHER, a->channels - first);
    Wide sum[TOGETHER] = {0}, sum_xhat[TOGETHER] = {0}, m = 0, r = 0;
    for (int64_t at = first * a->each, of = 0; at < total; at += round)          /* `of`: where the next set begins */
      for (int64_t k = 0, e = at; k < many; k++)
        for (const int64_t last = e + a->each; e < last; e++) {
          if (e >= of) {
            const int64_t strip = e / a->n;
            m = a->mean[strip % a->sets], r = a->rstd[strip % a->sets], of = (strip + 1) * a->n;
          }
          sum[k] += IF_VALID(a, e, a->gy[e]), sum_xhat[k] += IF_VALID(a, e, a->gy[e] * ((a->x[e] - m) * r));
        }
    for (int64_t k = 0; k < many; k++) {
      if (a->gbias) a->gbias[first + k] = (T)sum[k];
      if (a->gweight) a->gweight[first + k] = (T)sum_xhat[k];
    }
  }
}
void OF_ALL_LEVELS(valid_norm_backward)(MASKED_BACKWARD) {
  masked_args a = {.gx = gx, .gweight = gweight, .gbias = gbias, .gy = gy, .x = x, .mask = mask, .mean = (T *)mean,
                   .rstd = (T *)rstd, .count = (T *)count, .weight = weight, .batch = batch, .sets = sets, .n = n,
                   .each = each, .channels = channels, .centered = (int)centered};
  if (gx) mg_parallel(sets, grain(sets, batch * n), masked_back_sets, &a);
  const int64_t groups = (channels + TOGETHER - 1) / TOGETHER;
  if (gweight || gbias) mg_parallel(groups, grain(groups, batch * sets * n / groups), masked_back_channels, &a);
}
#endif

#endif
