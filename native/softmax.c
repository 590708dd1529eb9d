/* types: f32 f64 */
/* Softmax, log-softmax, logsumexp and cross entropy along the middle axis of [outer, n, inner], contiguous.
 *
 * All of them begin with the same two numbers for each line of n elements, m = max(x) and s = sum(exp(x - m)):
 *     softmax = exp(x - m) / s        log_softmax = (x - m) - log(s)        logsumexp = m + log(s)
 * x - m is kept apart from log(s), because m + log(s) has lost the digits of log(s) when m is large.
 *
 * The plain loop computes m, then s, then y, for one line after the other. The fast one depends on `inner`. inner == 1:
 * lines are rows, and lanes run along them. Short rows go four side by side, so that their horizontal maxima and sums
 * overlap; long ones go one by one, in four chains. inner > 1: lanes are neighbours along `inner`, each with a line of
 * its own, and the loop over n needs no horizontal sums. Rows that go side by side ask L2 for the rows after the next
 * four: an array beyond the caches (loops.h) takes a quarter less time. Results that large are stored past the caches
 * where there are exponentials elsewhere for it, in work space, or none in the last pass: 64 MB take 0.8 of the time, 16
 * MB as long as before. Storing them between the exponentials of the next rows took 1.1 of the time.
 *
 * inf and NaN need no special case: NaN - m makes the sum NaN, and with it the line. So does inf - inf, in a line that
 * holds inf or only -inf. Only logsumexp has another value there, the maximum itself (infinite_or_nan).
 */
#include "loops.h"

#if IS_REAL

#define SHORT 1024             /* the longest row that goes side by side with others */
#define KEPT (4 * SHORT)       /* elements of the work space, and the longest row whose exponentials it may keep */
#define WIDE 256               /* columns (inner > 1) that are one unit of work: lines do not depend on each other */

typedef enum { SOFTMAX, LOG_SOFTMAX, LOGSUMEXP, LOGSUMEXP_BACK, CROSS_ENTROPY } what;

/* A unit of work is a row, or WIDE columns of one of the `outer` matrices. exp costs about as much as four memory
 * accesses, so work is shared from a quarter of the usual size on. */
static inline int64_t tiles(int64_t inner) { return inner == 1 ? 1 : (inner + WIDE - 1) / WIDE; }
static void share(void (*fn)(void *, int64_t, int64_t), void *a, int64_t outer, int64_t n, int64_t inner) {
  mg_parallel(outer * tiles(inner), (grain(outer * tiles(inner), 4 * n * MIN(inner, WIDE)) + 3) / 4 * 4, fn, a);
}
/* Runs the body for each group of columns of the units [begin, end): matrix o, columns from i on. */
#define EACH_UNIT(o, i, W, k, inner, ...) \
  for (int64_t unit_ = begin; unit_ < end; unit_++) { \
    const int64_t o = unit_ / tiles(inner), first_ = unit_ % tiles(inner) * WIDE; \
    EACH_COLUMNS(i_, W, k, MIN(WIDE, (inner) - first_), const int64_t i = first_ + i_; __VA_ARGS__); \
  }

/* once for each line, or for several of them */
NOINLINE V log_of(V x) { return vlog(x); }

/* The first pass, which computes m and s of lines, is compiled once for each shape (4 rows, 1 row, a long row, 4
 * vectors of columns, 1 vector) and shared by the kernels of this file. It is most of the code here, and a copy in each
 * kernel would not be faster. If e is given, exp(x - m) is stored there. The maximum passes over NaN, which costs a
 * third of the instructions: NaN - m makes s NaN. */

/* m and s of R <= 4 rows of n <= SHORT elements */
INLINE void some_short_rows(T *m, T *s, T *e, const T *x, int64_t n, const int R) {
  V v[4], largest_of[4];
  EACH_ROW(r) largest_of[r] = vset(-INFINITY), v[r] = vzero();
  EACH_VECTOR(j, k, n,
    EACH_ROW(r)
      largest_of[r] = vupper_(largest_of[r], keep_or(load_n(x + r * n + j, k), k, -INFINITY)););
  EACH_ROW(r) {
    m[r] = largest(largest_of[r]);
    largest_of[r] = vset(m[r]);
  }
  EACH_VECTOR(j, k, n,
    EACH_ROW(r) {
      __builtin_prefetch(x + 2 * R * n + R * j + r * VL, 0, 2);
      V p = vexp_down(load_n(x + r * n + j, k) - largest_of[r]);
      if (e) store_n(e + r * n + j, p, k);
      v[r] += keep(p, k);
    });
  EACH_ROW(r) s[r] = vsum(v[r]);
}
NOINLINE void short_rows_4(T *m, T *s, T *e, const T *x, int64_t n) {
  some_short_rows(m, s, e, x, n, 4);
}
NOINLINE void short_rows_1(T *m, T *s, T *e, const T *x, int64_t n) {
  some_short_rows(m, s, e, x, n, 1);
}
INLINE void short_rows(T *m, T *s, T *e, const T *x, int64_t n, const int R) {
  if (R == 4) short_rows_4(m, s, e, x, n);
  else short_rows_1(m, s, e, x, n);
}

/* the same for one row of any length */
NOINLINE void long_row(T *m, T *s, T *e, const T *x, int64_t n) {
  V v[4];
  UNROLL for (int u = 0; u < 4; u++) v[u] = vset(-INFINITY);
  EACH_VECTOR_4(j, u, k, n, v[u] = vupper_(v[u], keep_or(load_n(x + j, k), k, -INFINITY)););
  const T top = largest(vupper_(vupper_(v[0], v[1]), vupper_(v[2], v[3])));
  const V shift = vset(top);
  double sum = 0;
  for (int64_t b = 0; b < n; b += BLOCK_ELEMENTS) {
    UNROLL for (int u = 0; u < 4; u++) v[u] = vzero();
    EACH_VECTOR_4(j, u, k, MIN(BLOCK_ELEMENTS, n - b),
      V p = vexp_down(load_n(x + b + j, k) - shift);
      if (e) store_n(e + b + j, p, k);
      v[u] += keep(p, k););
    sum += vsum((v[0] + v[1]) + (v[2] + v[3]));
  }
  *m = top;
  *s = (T)sum;
}

/* m and s of W * VL neighbouring lines (k of them if W == 1), x at the first element of the first */
INLINE void some_columns_of(V *m, V *s, T *e, const T *x, int64_t n, int64_t stride, const int W,
                            const int k) {
  EACH_PART(w) m[w] = vset(-INFINITY), s[w] = vzero();
  for (int64_t q = 0; q < n; q++)
    EACH_PART(w) m[w] = vupper_(m[w], load_n(x + q * stride + w * VL, k));
  for (int64_t b = 0; b < n; b += 64) {
    V part[4];
    EACH_PART(w) part[w] = vzero();
    for (int64_t q = b, last = MIN(b + 64, n); q < last; q++)
      EACH_PART(w) {
        V p = vexp_down(load_n(x + q * stride + w * VL, k) - m[w]);
        if (e) store_n(e + q * stride + w * VL, p, k);
        part[w] += p;
      }
    EACH_PART(w) s[w] += part[w];
  }
}
NOINLINE void columns_4(V *m, V *s, T *e, const T *x, int64_t n, int64_t stride) {
  some_columns_of(m, s, e, x, n, stride, 4, VL);
}
NOINLINE void columns_1(V *m, V *s, T *e, const T *x, int64_t n, int64_t stride, int k) {
  some_columns_of(m, s, e, x, n, stride, 1, k);
}
INLINE void columns(V *m, V *s, T *e, const T *x, int64_t n, int64_t stride, const int W, const int k) {
  if (W == 4) columns_4(m, s, e, x, n, stride);
  else columns_1(m, s, e, x, n, stride, k);
}

/* ---- softmax, log-softmax, logsumexp ------------------------------------------------------------------------------
 *
 *   for each line:  m = max(x);  s = sum(exp(x - m))
 *                   softmax: y = exp(x - m) / s      log-softmax: y = x - m - log(s)      logsumexp: y = m + log(s)
 *
 * Softmax keeps the exponentials in y while it sums them, and scales them there: one exp per element. So does the
 * backward of logsumexp, gx = gy * softmax(x): computed from x, because exp(x - y) is inaccurate where y is large.
 * Beside an infinite m nothing else counts: the elements equal to it share the gradient.
 */
typedef struct {
  T *y;
  const T *x, *gy;
  int64_t n, inner;
  int stream;                  /* is y stored past the caches? Then exponentials are kept in work space first */
} softmax_args;

INLINE int keeps(const what of) { return of == SOFTMAX || of == LOGSUMEXP_BACK; }

/* logsumexp of `lines` neighbouring lines where the maximum m is infinite: it is m unless there is NaN; of others 0 */
NOINLINE V infinite_or_nan(V m, const T *x, int64_t n, int64_t stride, int lines) {
  for (int l = 0; l < lines; l++)
    if (MATH(fabs)(m[l]) != INFINITY) m[l] = 0;
    else
      for (int64_t q = 0; q < n; q++)
        if (x[l + q * stride] != x[l + q * stride]) m[l] = NAN;
  return m;
}

/* The gradient of a line whose maximum m is infinite: g in equal shares; NaN if there is NaN. */
NOINLINE __attribute__((cold)) void share_infinite(T *y, const T *x, int64_t n, int64_t stride, T m, T g) {
  T count = 0;
  for (int64_t q = 0; q < n * stride; q += stride) count += x[q] == m ? 1 : x[q] == x[q] ? 0 : (T)NAN;
  for (int64_t q = 0; q < n * stride; q += stride) y[q] = (x[q] == m) * (g / count);
}

/* ... of those of neighbouring lines, `width` <= 4 VL, that are of that kind */
NOINLINE __attribute__((cold)) void share_columns(T *y, const T *x, const T *g, const V *m, int width, int64_t n,
                                                  int64_t inner) {
  for (int l = 0; l < width; l++) {
    const T largest = m[l / VL][l % VL];
    if (MATH(fabs)(largest) == INFINITY) share_infinite(y + l, x + l, n, inner, largest, g[l]);
  }
}

/* The last pass is shared, too: what is asked for is read once a run. */
NOINLINE void finish_run(T *y, const T *x, int64_t n, V shift, V factor, int scaled, int stream) {
  if (scaled) EACH_VECTOR(j, k, n, put_n(y + j, load_n(x + j, k) * factor, k, stream););
  else EACH_VECTOR(j, k, n, put_n(y + j, load_n(x + j, k) - shift - factor, k, stream););
}
/* e: the exponentials of the first of the rows, where they are kept */
NOINLINE void finish_rows(const softmax_args *a, int64_t row, const T *m, const T *s, const T *e, int rows, what of) {
  const int64_t n = a->n;
  for (int r = 0; r < rows; r++, row++) {
    const T *x = a->x + row * n;
    T all = 0;
    if (of >= LOGSUMEXP && MATH(fabs)(m[r]) == INFINITY) {
      if (of == LOGSUMEXP_BACK) {
        share_infinite(a->y + row * n, x, n, 1, m[r], a->gy[row]);
        continue;
      }
      all = infinite_or_nan(vset(m[r]), x, n, 1, 1)[0];
    }
    const V factor = of == LOGSUMEXP_BACK ? vset(a->gy[row] / s[r]) :
                     of == SOFTMAX ? vset(1 / s[r]) : log_of(vset(s[r]));
    if (of == LOGSUMEXP) a->y[row] = all != 0 ? all : m[r] + factor[0];
    else
      EACH_RUN(i, count, past, a->y + row * n, n, a->stream,
        finish_run(a->y + row * n + i, (e ? e + r * n : x) + i, count, vset(m[r]), factor, e != 0, past););
  }
}

/* R rows (one if they are long); kept: work space for exponentials, if y is not to hold them */
INLINE void some_rows(const softmax_args *a, int64_t row, T *kept, const int R, const what of) {
  const int64_t n = a->n;
  const T *x = a->x + row * n;
  T m[4], s[4], *e = !keeps(of) ? 0 : kept ? kept : a->y + row * n;
  if (n <= SHORT) short_rows(m, s, e, x, n, R);
  else long_row(m, s, e, x, n);
  finish_rows(a, row, m, s, e, R, of);
}

INLINE void finish_columns_of(const softmax_args *a, int64_t o, int64_t i, V *m, V *s, const int W, const int k,
                              what of) {
  const int64_t n = a->n, inner = a->inner;
  const T *x = a->x + o * n * inner + i;
  T *y = of == LOGSUMEXP ? a->y + o * inner + i : a->y + o * n * inner + i;
  V all[4];
  EACH_PART(w) {
    all[w] = of == LOGSUMEXP ? infinite_or_nan(m[w], x + w * VL, n, inner, k) : vzero();
    if (of == LOGSUMEXP_BACK) s[w] = load_n(a->gy + o * inner + i + w * VL, k) / s[w];
    else s[w] = of == SOFTMAX ? 1 / s[w] : log_of(s[w]);
  }
  if (of == LOGSUMEXP) EACH_PART(w) store_n(y + w * VL, vselect((VM)(all[w] != vzero()), all[w], m[w] + s[w]), k);
  else if (keeps(of)) {
    T *to = y;
    for (int64_t q = 0; q < n; q++, y += inner) EACH_PART(w) store_n(y + w * VL, load_n(y + w * VL, k) * s[w], k);
    if (of == LOGSUMEXP_BACK) share_columns(to, x, a->gy + o * inner + i, m, (W - 1) * VL + k, n, inner);
  } else
    for (int64_t q = 0; q < n; q++, x += inner, y += inner)
      EACH_PART(w) store_n(y + w * VL, load_n(x + w * VL, k) - m[w] - s[w], k);
}
NOINLINE void finish_columns_4(const softmax_args *a, int64_t o, int64_t i, V *m, V *s, what of) {
  finish_columns_of(a, o, i, m, s, 4, VL, of);
}
NOINLINE void finish_columns_1(const softmax_args *a, int64_t o, int64_t i, V *m, V *s, int k, what of) {
  finish_columns_of(a, o, i, m, s, 1, k, of);
}

INLINE void some_columns(const softmax_args *a, int64_t o, int64_t i, const int W, const int k, const what of) {
  const int64_t at = o * a->n * a->inner + i;
  V m[4], s[4];
  columns(m, s, keeps(of) ? a->y + at : 0, a->x + at, a->n, a->inner, W, k);
  if (W == 4) finish_columns_4(a, o, i, m, s, of);
  else finish_columns_1(a, o, i, m, s, k, of);
}

INLINE void softmax_lines(const softmax_args *a, int64_t begin, int64_t end, const what of) {
  if (a->inner != 1) {
    EACH_UNIT(o, i, W, k, a->inner, some_columns(a, o, i, W, k, of););
    return;
  }
  T *kept = 0;
  if (keeps(of) && a->stream && !(kept = mg_scratch(0, KEPT * sizeof(T)))) return;
  int64_t row = begin;
  for (; SOME_ROWS == 4 && a->n <= SHORT && row + 4 <= end; row += 4) some_rows(a, row, kept, 4, of);
  for (; row < end; row++) some_rows(a, row, kept, 1, of);
  if (a->stream) vstreamed();
}
static void softmax_(void *a, int64_t begin, int64_t end) { softmax_lines(a, begin, end, SOFTMAX); }
static void log_softmax_(void *a, int64_t begin, int64_t end) { softmax_lines(a, begin, end, LOG_SOFTMAX); }
static void logsumexp_(void *a, int64_t begin, int64_t end) { softmax_lines(a, begin, end, LOGSUMEXP); }
static void logsumexp_back(void *a, int64_t begin, int64_t end) { softmax_lines(a, begin, end, LOGSUMEXP_BACK); }

void FN(softmax_forward)(T *y, const T *x, int64_t outer, int64_t n, int64_t inner) {
  softmax_args a = {y, x, 0, n, inner, inner == 1 && n <= KEPT && streams_runs(outer * n, n)};
  share(softmax_, &a, outer, n, inner);
}
void FN(log_softmax_forward)(T *y, const T *x, int64_t outer, int64_t n, int64_t inner) {
  softmax_args a = {y, x, 0, n, inner, inner == 1 && streams_runs(outer * n, n)};
  share(log_softmax_, &a, outer, n, inner);
}
void FN(logsumexp_forward)(T *y, const T *x, int64_t outer, int64_t n, int64_t inner) {
  softmax_args a = {y, x, 0, n, inner, 0};
  share(logsumexp_, &a, outer, n, inner);
}
void FN(logsumexp_backward)(T *gx, const T *gy, const T *x, int64_t outer, int64_t n, int64_t inner) {
  softmax_args a = {gx, x, gy, n, inner, inner == 1 && n <= KEPT && streams_runs(outer * n, n)};
  share(logsumexp_back, &a, outer, n, inner);
}

/* Backward, from the output:
 *
 *   softmax:      gx = y * (gy - sum(gy * y))
 *   log-softmax:  gx = gy - exp(y) * sum(gy)
 */
typedef struct {
  T *gx;
  const T *gy, *y;
  int64_t n, inner;
  int together, stream;        /* rows that go side by side; is gx stored past the caches? */
} softmax_back_args;

INLINE V back(V gy, V y, V sum, const what of) { return of == SOFTMAX ? y * (gy - sum) : gy - vexp_down(y) * sum; }

/* gx of a run of a row, from the row's sum */
NOINLINE void softmax_back_run(T *gx, const T *gy, const T *y, int64_t n, V sum, int stream) {
  EACH_VECTOR(j, k, n, put_n(gx + j, back(load_n(gy + j, k), load_n(y + j, k), sum, SOFTMAX), k, stream););
}
NOINLINE void log_softmax_back_run(T *gx, const T *gy, const T *y, int64_t n, V sum, int stream) {
  EACH_VECTOR(j, k, n, put_n(gx + j, back(load_n(gy + j, k), load_n(y + j, k), sum, LOG_SOFTMAX), k, stream););
}
NOINLINE void back_finish(const softmax_back_args *a, int64_t row, V sum, what of) {
  const int64_t at = row * a->n;
  EACH_RUN(i, count, past, a->gx + at, a->n, a->stream,
    (of == SOFTMAX ? softmax_back_run : log_softmax_back_run)(a->gx + at + i, a->gy + at + i, a->y + at + i, count,
                                                              sum, past););
}

INLINE void back_rows(const softmax_back_args *a, int64_t row, const int R, const what of) {
  const int64_t n = a->n;
  const T *gy = a->gy + row * n;
  const T *y = a->y + row * n;
  V s[4];
  EACH_ROW(r) s[r] = vzero();
  EACH_VECTOR(j, k, n,
    EACH_ROW(r) {
      V g = load_n(gy + r * n + j, k);
      s[r] = of == SOFTMAX ? vfma(g, load_n(y + r * n + j, k), s[r]) : s[r] + g;
    });
  EACH_ROW(r) s[r] = vset(vsum(s[r]));
  for (int r = 0; r < R; r++) back_finish(a, row + r, s[r], of);
}

INLINE void back_long(const softmax_back_args *a, int64_t row, const what of) {
  const T *gy = a->gy + row * a->n, *y = a->y + row * a->n;
  double sum = 0;
  for (int64_t b = 0; b < a->n; b += BLOCK_ELEMENTS) {
    V s[4] = {vzero(), vzero(), vzero(), vzero()};
    EACH_VECTOR_4(j, u, k, MIN(BLOCK_ELEMENTS, a->n - b),
      V g = load_n(gy + b + j, k);
      s[u] = of == SOFTMAX ? vfma(g, load_n(y + b + j, k), s[u]) : s[u] + g;);
    sum += vsum((s[0] + s[1]) + (s[2] + s[3]));
  }
  back_finish(a, row, vset((T)sum), of);
}

INLINE void back_columns(const softmax_back_args *a, int64_t o, int64_t i, const int W, const int k, const what of) {
  const int64_t n = a->n, inner = a->inner, at = o * n * inner + i;
  V s[4];
  EACH_PART(w) s[w] = vzero();
  for (int64_t b = 0; b < n; b += 64) {
    V part[4];
    EACH_PART(w) part[w] = vzero();
    for (int64_t q = b, last = MIN(b + 64, n); q < last; q++)
      EACH_PART(w) {
        const int64_t j = at + q * inner + w * VL;
        V g = load_n(a->gy + j, k);
        part[w] = of == SOFTMAX ? vfma(g, load_n(a->y + j, k), part[w]) : part[w] + g;
      }
    EACH_PART(w) s[w] += part[w];
  }
  for (int64_t q = 0; q < n; q++)
    EACH_PART(w) {
      const int64_t j = at + q * inner + w * VL;
      store_n(a->gx + j, back(load_n(a->gy + j, k), load_n(a->y + j, k), s[w], of), k);
    }
}

INLINE void back_lines(const softmax_back_args *a, int64_t begin, int64_t end, const what of) {
  if (a->inner != 1) {
    EACH_UNIT(o, i, W, k, a->inner, back_columns(a, o, i, W, k, of););
    return;
  }
  int64_t row = begin;
  for (; SOME_ROWS == 4 && a->n <= SHORT && row + 4 <= end && a->together == 4; row += 4) back_rows(a, row, 4, of);
  for (; a->n <= SHORT && row < end; row++) back_rows(a, row, 1, of);
  for (; row < end; row++) back_long(a, row, of);
  if (a->stream) vstreamed();
}
static void softmax_back(void *a, int64_t begin, int64_t end) { back_lines(a, begin, end, SOFTMAX); }
static void log_softmax_back(void *a, int64_t begin, int64_t end) { back_lines(a, begin, end, LOG_SOFTMAX); }

static softmax_back_args back_arguments(T *gx, const T *gy, const T *y, int64_t outer, int64_t n, int64_t inner) {
  const int64_t size = outer * n * inner;
  return (softmax_back_args){gx, gy, y, n, inner, rows_together(size, 4), inner == 1 && streams_runs(size, n)};
}
void FN(softmax_backward)(T *gx, const T *gy, const T *y, int64_t outer, int64_t n, int64_t inner) {
  softmax_back_args a = back_arguments(gx, gy, y, outer, n, inner);
  share(softmax_back, &a, outer, n, inner);
}
void FN(log_softmax_backward)(T *gx, const T *gy, const T *y, int64_t outer, int64_t n, int64_t inner) {
  softmax_back_args a = back_arguments(gx, gy, y, outer, n, inner);
  share(log_softmax_back, &a, outer, n, inner);
}

/* ---- cross entropy: class indices `target` [outer, inner] in the classes (axis 1) of the logits --------------------
 *
 *   for each item with target t, logp = x - m - log(s), label smoothing e, classes C:
 *     item = (1 - e) * weight[t] * -logp[t]  +  e / C * sum over c of weight[c] * -logp[c]
 *     item = 0 where t == ignore_index
 *   sum = sum of items;  mean = sum / wsum,  wsum = sum of weight[t] over the items not ignored (0 / 0 = NaN if none)
 *
 * One pass over the logits gives an item, without an array for log-softmax; m and log(s) are kept (`stats`) for the
 * backward. Then one thread adds the items, because there are `classes` times fewer of them. A target out of range
 * reads nothing and gives NaN. (The shape rule refuses such targets, but a replayed program does not check.)
 */
typedef struct {
  T *items, *top, *log_sum;
  const T *x, *weight;
  const int64_t *target;
  int64_t classes, inner, ignore;
  double smoothing;
} cross_entropy_args;

/* e / C * sum(weight * (log_sum - (x - top))) of one line */
INLINE double smooth(const cross_entropy_args *a, const T *x, T top, T log_sum) {
  double sum = 0;
  if (a->inner != 1)
    for (int64_t c = 0; c < a->classes; c++)
      sum += (a->weight ? a->weight[c] : 1) * (log_sum - (x[c * a->inner] - top));
  else
    for (int64_t b = 0; b < a->classes; b += BLOCK_ELEMENTS) {
      V s = vzero();
      EACH_VECTOR(j, k, MIN(BLOCK_ELEMENTS, a->classes - b),
        V term = load_n_or(a->weight, b + j, k, 1) * (vset(log_sum) - (load_n(x + b + j, k) - vset(top)));
        s += keep(term, k););
      sum += vsum(s);
    }
  return a->smoothing / (double)a->classes * sum;
}

/* A label, read once: another thread may change it between its test and its use. */
INLINE int64_t label(const int64_t *place) { return *(const volatile int64_t *)place; }

/* top and log_sum of the item are there already; x: its first logit */
INLINE void cross_entropy_item(const cross_entropy_args *a, int64_t item, const T *x) {
  const int64_t t = label(&a->target[item]);
  const T top = a->top[item], log_sum = a->log_sum[item];
  if (t == a->ignore) a->items[item] = 0;
  else if (t < 0 || t >= a->classes) a->items[item] = NAN;
  else {
    const T loss = log_sum - (x[t * a->inner] - top);
    a->items[item] = a->weight ? a->weight[t] * loss : loss;
    if (a->smoothing != 0) a->items[item] = (T)((1 - a->smoothing) * a->items[item] + smooth(a, x, top, log_sum));
  }
}

/* `count` items, whose first logits are `step` apart */
NOINLINE void cross_entropy_items(const cross_entropy_args *a, int64_t item, const T *x, int64_t step, int count) {
  for (int l = 0; l < count; l++) cross_entropy_item(a, item + l, x + l * step);
}

INLINE void cross_entropy_some(const cross_entropy_args *a, int64_t row, const int R) {
  const int64_t n = a->classes;
  T s[4];
  if (n <= SHORT) short_rows(a->top + row, s, 0, a->x + row * n, n, R);
  else long_row(a->top + row, s, 0, a->x + row * n, n);
  EACH_VECTOR(r, k, R, store_n(a->log_sum + row + r, log_of(load_n(s + r, k)), k););
  cross_entropy_items(a, row, a->x + row * n, n, R);
}

INLINE void cross_entropy_columns(const cross_entropy_args *a, int64_t o, int64_t i, const int W, const int k) {
  const int64_t n = a->classes, inner = a->inner, item = o * inner + i;
  const T *x = a->x + o * n * inner + i;
  V m[4], s[4];
  columns(m, s, 0, x, n, inner, W, k);
  EACH_PART(w)
    store_n(a->top + item + w * VL, m[w], k), store_n(a->log_sum + item + w * VL, log_of(s[w]), k);
  cross_entropy_items(a, item, x, 1, (int)((W - 1) * VL + k));
}

static void cross_entropy_lines(void *context, int64_t begin, int64_t end) {
  const cross_entropy_args *a = context;
  if (a->inner != 1) {
    EACH_UNIT(o, i, W, k, a->inner, cross_entropy_columns(a, o, i, W, k););
  } else {
    int64_t row = begin;
    for (; SOME_ROWS == 4 && a->classes <= SHORT && row + 4 <= end; row += 4) cross_entropy_some(a, row, 4);
    for (; row < end; row++) cross_entropy_some(a, row, 1);
  }
}

void FN(cross_entropy_forward)(T *loss, T *wsum, T *items, T *stats, const T *logits, const int64_t *target,
                               const T *weight, int64_t outer, int64_t classes, int64_t inner, int64_t ignore_index,
                               int64_t reduction, double label_smoothing) {
  const int64_t count = outer * inner;
  cross_entropy_args a = {items,  stats,   stats + count, logits,       weight,
                          target, classes, inner,         ignore_index, label_smoothing};
  share(cross_entropy_lines, &a, outer, classes, inner);
  if (reduction == 0) return;
  double sum = 0, weights = 0;
  for (int64_t b = 0; b < count; b += BLOCK_ELEMENTS) {
    V s[4] = {vzero(), vzero(), vzero(), vzero()};
    EACH_VECTOR_4(j, u, k, MIN(BLOCK_ELEMENTS, count - b), s[u] += load_n(items + b + j, k););
    sum += vsum((s[0] + s[1]) + (s[2] + s[3]));
  }
  if (weight)
    for (int64_t i = 0; i < count; i++) {
      const int64_t t = label(target + i);
      weights += t != ignore_index && t >= 0 && t < classes ? weight[t] : 0;
    }
  else {
    int64_t used = 0;
    for (int64_t i = 0; i < count; i++) used += target[i] != ignore_index;
    weights = (double)used;
  }
  *wsum = (T)weights;
  *loss = (T)(reduction == 1 ? sum / weights : sum);
}

/* Backward, with p = exp(x - m - log(s)), g the gradient of the item (gloss, / wsum for the mean), w = weight[t]:
 *
 *   gx[c] = p * (g * (1 - e) * w + g * e / C * sum(weight)) - g * e / C * weight[c] - (c == t) * g * (1 - e) * w
 */
typedef struct {
  T *gx;
  const T *gloss, *top, *log_sum, *x, *weight;   /* gloss null: the gradient of all items is g */
  const int64_t *target;
  int64_t classes, inner, ignore;
  double g, smoothing, sum_weight;
} cross_entropy_back_args;

/* The three factors of an item: gx = p * f[0] - f[1] * weight - (c == t) * f[2]. 0 means: ignored, gx is 0. */
INLINE int cross_entropy_factors(const cross_entropy_back_args *a, int64_t item, T *f) {
  const int64_t t = label(&a->target[item]);
  if (t == a->ignore) return 0;
  double g = a->gloss ? a->gloss[item] : a->g;
  if (t < 0 || t >= a->classes) g = NAN;
  const double hit = g * (1 - a->smoothing) * (a->weight && t >= 0 && t < a->classes ? a->weight[t] : 1);
  const double each = a->smoothing == 0 ? 0 : g * a->smoothing / (double)a->classes;
  f[0] = (T)(hit + each * a->sum_weight);
  f[1] = (T)each;
  f[2] = (T)hit;
  return 1;
}

NOINLINE void cross_entropy_back_columns(const cross_entropy_back_args *a, int64_t o, int64_t i, const int k) {
  const int64_t n = a->classes, inner = a->inner, item = o * inner + i;
  const T *x = a->x + o * n * inner + i;
  T *gx = a->gx + o * n * inner + i;
  V scale = vzero(), each = vzero(), used = vzero(), m = load_n(a->top + item, k),
    log_sum = load_n(a->log_sum + item, k);
  T hit[VBYTES / sizeof(T)];
  for (int l = 0; l < k; l++) {
    T f[3] = {0, 0, 0};
    used[l] = (T)cross_entropy_factors(a, item + l, f);
    scale[l] = f[0];
    each[l] = f[1];
    hit[l] = f[2];
  }
  for (int64_t c = 0; c < n; c++) {
    V g = vexp_down(load_n(x + c * inner, k) - m - log_sum) * scale - each * vset(a->weight ? a->weight[c] : 1);
    store_n(gx + c * inner, vselect((VM)(used != vzero()), g, vzero()), k);
  }
  for (int l = 0; l < k; l++) {
    const int64_t t = label(&a->target[item + l]);
    if (used[l] != 0 && t >= 0 && t < n) gx[t * inner + l] -= hit[l];
  }
}

/* Plain stores: past the caches, they would take as long where the array is large, and longer where rows begin between
 * multiples of VBYTES. */
NOINLINE void cross_entropy_back_row(const cross_entropy_back_args *a, int64_t row) {
  const int64_t n = a->classes, t = label(&a->target[row]);
  const T *x = a->x + row * n;
  T *gx = a->gx + row * n;
  T f[3];
  if (!cross_entropy_factors(a, row, f)) {
    memset(gx, 0, (size_t)n * sizeof(T));
    return;
  }
  const V m = vset(a->top[row]), log_sum = vset(a->log_sum[row]), scale = vset(f[0]), each = vset(f[1]);
  EACH_VECTOR(j, k, n, store_n(gx + j, vexp_down(load_n(x + j, k) - m - log_sum) * scale, k););
  if (f[1] != 0) EACH_VECTOR(j, k, n, store_n(gx + j, load_n(gx + j, k) - each * load_n_or(a->weight, j, k, 1), k););
  if (t >= 0 && t < n) gx[t] -= f[2];
}

static void cross_entropy_back(void *context, int64_t begin, int64_t end) {
  const cross_entropy_back_args *a = context;
  if (a->inner == 1) {
    for (int64_t row = begin; row < end; row++) cross_entropy_back_row(a, row);
  } else
    EACH_UNIT(o, i, W, k, a->inner, EACH_PART(w) cross_entropy_back_columns(a, o, i + w * VL, k););
}

void FN(cross_entropy_backward)(T *gx, const T *gloss, const T *wsum, const T *stats, const T *logits,
                                const int64_t *target, const T *weight, int64_t outer, int64_t classes, int64_t inner,
                                int64_t ignore_index, int64_t reduction, double label_smoothing) {
  double sum_weight = (double)classes;
  if (weight && label_smoothing != 0) {
    sum_weight = 0;
    for (int64_t c = 0; c < classes; c++) sum_weight += weight[c];
  }
  const double g = reduction == 0 ? 0 : reduction == 1 ? *gloss / (double)*wsum : *gloss;
  cross_entropy_back_args a = {
      gx,    reduction ? 0 : gloss, stats, stats + outer * inner, logits,    weight, target, classes,
      inner, ignore_index,          g,     label_smoothing,       sum_weight};
  share(cross_entropy_back, &a, outer, classes, inner);
}

#endif
