/* types: f32 f64 i32 i64 u8 */
/* Reductions: sum, mean, norm, prod, max, min, argmax, argmin, count_nonzero, any, all, moments; and the scans cumsum,
 * cumprod.
 *
 * The plain loop, for an output k and its elements x_0, x_1, ... in the plan's order:
 *
 *     s = identity;  for (i = 0; i < reduce; i++) s = op(s, x_i);  out[k] = s;
 *
 * It waits for each addition to finish before the next one, and the error of a float sum grows with the length. In the
 * fast one each reduction has three small functions:
 *
 *     rows     reduces up to BLOCK_ELEMENTS contiguous elements: the lanes run side by side and are folded at the end
 *     strip    reduces up to BLOCK_ROWS rows to one result per column: the lanes are the columns, nothing is folded
 *     merge    joins the partial results of two stretches, the earlier one first
 *
 * One driver cuts the input into blocks. It calls `rows` where the reduced elements are contiguous in memory and
 * `strip` where the kept ones are; where neither are (strides 2, 0, -1, ...), it packs a block into a buffer.
 *
 * Float sums: about ten elements are added in T. These partial sums are added in double; for T = double their rounding
 * errors are summed separately (Knuth's two-sum). The error stays at a few roundings whatever the length. Moments take
 * two passes over each block while it is in the cache; blocks are joined by Chan's formula, never by E[x^2] - E[x]^2.
 * Where the sum of a block, or of squares, leaves the range of float, the block is added again in double: a mean, a
 * deviation or a norm is then still right. For double, such an output is computed again at the end, scaled (scaled_again).
 *
 * Same bits: blocks and chunks are cut by shape alone, so neither the thread count nor the other outputs matter.
 */
#include "runtime.h"
#include "simd.h"

/* ---- bounds of T; TA and VA: the types of sums and products, unsigned for integers, which wrap around ---- */
#if IS_REAL
#define LOWEST (-(T)INFINITY)
#define HIGHEST ((T)INFINITY)
#define ISNAN(a) ((a) != (a))
typedef T TA;
typedef V VA;
#else
#define LOWEST (TYPE_IS == 3 ? INT32_MIN : TYPE_IS == 4 ? INT64_MIN : 0)
#define HIGHEST (TYPE_IS == 3 ? INT32_MAX : TYPE_IS == 4 ? INT64_MAX : UINT8_MAX)
#define ISNAN(a) ((void)(a), 0)
typedef TU TA;
typedef VU VA;
#endif

enum { SUM, PROD, MAX, MIN };

INLINE T identity(int op) { return op == SUM ? 0 : op == PROD ? 1 : op == MAX ? LOWEST : HIGHEST; }
INLINE V vstep(int op, V a, V b) {
  return op == SUM ? (V)((VA)a + (VA)b) : op == PROD ? (V)((VA)a * (VA)b) : op == MAX ? vmax(a, b) : vmin(a, b);
}
INLINE T step(int op, T a, T b) {
  return op == SUM                                 ? (T)((TA)a + (TA)b)
         : op == PROD                              ? (T)((TA)a * (TA)b)
         : (op == MAX ? a > b : a < b) || ISNAN(a) ? a
                                                   : b;
}
/* the first n lanes */
INLINE VM first_lanes(int n) {
  static const TI number[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
                             16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
                             32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47,
                             /* as many as a vector of bytes has */
                             48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};
  VM v;
  memcpy(&v, number, VBYTES);
  return v < (TI)n - (VM){0};
}

/* Halves folded onto each other, as vsum does: without a branch, which a maximum of random numbers would mispredict. */
#if IS_REAL
typedef TI VM16 __attribute__((vector_size(16)));
INLINE V16 step16(int op, V16 a, V16 b) {
  const VM16 left = (VM16)(op == MAX ? a > b : a < b) | (VM16)(a != a);
  return op == SUM ? a + b : op == PROD ? a * b : (V16)((left & (VM16)a) | (~left & (VM16)b));
}
INLINE T fold_lanes(int op, V v) {
  V16 h[VBYTES / 16];
  memcpy(h, &v, VBYTES);
  UNROLL for (int k = VBYTES / 32; k > 0; k /= 2)
    UNROLL for (int i = 0; i < k; i++) h[i] = step16(op, h[i], h[i + k]);
#if TYPE_IS == 1
  h[0] = step16(op, h[0], (V16){h[0][2], h[0][3], h[0][0], h[0][1]});
#endif
  return step16(op, h[0], (V16){h[0][1], h[0][0]})[0];
}
#else
INLINE T fold_lanes(int op, V v) {
  if (op == PROD || VL == 2) {                          /* a vector of products takes longer than all of them */
    T s = v[0];
    UNROLL for (int i = 1; i < VL; i++) s = step(op, s, v[i]);
    return s;
  }
  v = vstep(op, v, (V)WSHUFFLE_((W)v, (W)v, 1, 0));
  UNROLL for (int bytes = 4; bytes >= (int)sizeof(T); bytes /= 2) v = vstep(op, v, (V)((W)v >> 8 * bytes));
  return v[0];
}
#endif

/* ---- partial results ---- */

enum {
  BLOCK_ELEMENTS = 64 * VBYTES / sizeof(T),        /* elements of a row reduced at once: 4 KB at the widest */
  BLOCK_ROWS = 32,                              /* rows reduced at once */
  BLOCK_COLUMNS = 64,                             /* columns reduced at once, up to 2 * BLOCK_COLUMNS - 1 */
  PIECE_COLUMNS = 1024,                           /* columns of one piece of work */
  GROUP_ROWS = 64,                             /* rows whose partial results are stored together */
  /* elements of one piece of work, where a reduction is split into several */
  CHUNK_ELEMENTS = 1 << 17,
  ELEMENTS_PER_THREAD = 1 << 15,                        /* below this many elements a second thread does not pay */
  DIMS = 64
};

/* Partial results of neighbouring outputs, one array per quantity; an operation uses those it needs:
 *   sum, mean, norm of floats: high + low (norm: of the squares)   sum of integers, prod, max, min: value
 *   argmax, argmin: value, index
 *   count_nonzero, any, all: index   moments: value + high the mean, low the sum of squared deviations from it */
typedef struct { T *value; int64_t *index; double *high, *low; } Partial;
static inline Partial at(Partial p, int64_t i) { return (Partial){p.value + i, p.index + i, p.high + i, p.low + i}; }
#define PARTIAL(name, n) \
  T name##_value[n]; int64_t name##_index[n]; double name##_high[n], name##_low[n]; \
  const Partial name = {name##_value, name##_index, name##_high, name##_low}

typedef struct {
  /* p[j * stride + i], i < n <= BLOCK_ELEMENTS, for each row j < count; first: how many elements of the output came
   * before p[0] */
  void (*rows)(Partial to, const T *p, int64_t count, int64_t stride, int64_t n, int64_t first);
  /* row[i][from + j], i < n <= BLOCK_ROWS, for each column j < width; n may be 0: the identity */
  void (*strip)(Partial to, const T *const *row, int64_t from, int64_t width, int64_t n, int64_t first);
  /* a, of n elements an output, takes in b, of m elements */
  void (*merge)(Partial a, Partial b, int64_t width, int64_t n, int64_t m);
  /* one row of n elements into `to`, which holds `first` already; null: rows and merge do it */
  void (*more)(Partial to, const T *p, int64_t n, int64_t first);
  /* writes outputs k ... k + width - 1; n: elements reduced */
  void (*store_n)(void *out, void *second, int64_t k, Partial from, int64_t width, int64_t n);
} Op;

/* ---- sum, prod, max, min ---- */

/* n contiguous elements into one vector. Eight accumulators, since an addition takes four cycles and two may start in
 * each. */
INLINE V fold_block(int op, const T *p, int64_t n) {
  const V none = vset(identity(op));
  V a[8] = {none, none, none, none, none, none, none, none};
  int64_t i = 0;
  if (n >= 8 * VL) {
    for (; i + 8 * VL <= n; i += 8 * VL)
      UNROLL for (int u = 0; u < 8; u++) a[u] = vstep(op, a[u], vload(p + i + u * VL));
    UNROLL for (int u = 0; u < 4; u++) a[u] = vstep(op, a[u], a[u + 4]);
    a[0] = vstep(op, vstep(op, a[0], a[2]), vstep(op, a[1], a[3]));
  }
  for (; i + VL <= n; i += VL) a[0] = vstep(op, a[0], vload(p + i));
  if (i < n) {
    const V tail = vload_n(p + i, (int)(n - i));
    a[0] = vstep(op, a[0], op == SUM ? tail : vselect(first_lanes((int)(n - i)), tail, none));
  }
  return a[0];
}

/* Columns go four vectors at a time, then one; the last one overlaps its neighbour, which only computes the same again.
 * Only where there are fewer columns than lanes are there fewer: one(first column, vectors, lanes). */
#define ACROSS(one) do { \
    int64_t j = 0; \
    for (; j + 4 * VL <= width; j += 4 * VL) one(j, 4, VL); \
    if (width < VL) one(0, 1, (int)width); \
    else for (; j < width; j += VL) one(MIN(j, width - VL), 1, VL); \
  } while (0)

/* Four rows are folded in pairs before they join the rest: four times fewer roundings one upon another. */
INLINE void fold_vectors(int op, T *out, const T *const *row, int64_t at, int64_t n, int vectors, int lanes) {
  V a[4];
  int64_t i = 0;
  UNROLL for (int l = 0; l < vectors; l++) a[l] = vset(identity(op));
#define ROW(k) load_n(row[i + k] + at + l * VL, lanes)
  for (; i + 4 <= n; i += 4)
    UNROLL for (int l = 0; l < vectors; l++)
      a[l] = vstep(op, a[l], vstep(op, vstep(op, ROW(0), ROW(1)), vstep(op, ROW(2), ROW(3))));
  for (; i < n; i++)
    UNROLL for (int l = 0; l < vectors; l++) a[l] = vstep(op, a[l], ROW(0));
#undef ROW
  UNROLL for (int l = 0; l < vectors; l++) store_n(out + l * VL, a[l], lanes);
}
INLINE void fold_columns(int op, T *out, const T *const *row, int64_t from, int64_t width, int64_t n) {
#define ONE(j, vectors, lanes) fold_vectors(op, out + (j), row, from + (j), n, vectors, lanes)
  ACROSS(ONE);
#undef ONE
}

INLINE void fold_rows(int op, T *out, const T *p, int64_t count, int64_t stride, int64_t n) {
  for (int64_t j = 0; j < count; j++) out[j] = fold_lanes(op, fold_block(op, p + j * stride, n));
}

#define FOLD(op, name) \
  static void name##_rows(Partial to, const T *p, int64_t count, int64_t stride, int64_t n, int64_t first) { \
    (void)first; \
    fold_rows(op, to.value, p, count, stride, n); \
  } \
  static void name##_strip(Partial to, const T *const *row, int64_t from, int64_t width, int64_t n, int64_t first) { \
    (void)first; \
    fold_columns(op, to.value, row, from, width, n); \
  } \
  static void name##_merge(Partial a, Partial b, int64_t width, int64_t n, int64_t m) { \
    (void)n, (void)m; \
    for (int64_t j = 0; j < width; j++) a.value[j] = step(op, a.value[j], b.value[j]); \
  }

static void value_store(void *out, void *second, int64_t k, Partial from, int64_t width, int64_t n) {
  (void)second, (void)n;
  memcpy((T *)out + k, from.value, (size_t)width * sizeof(T));
}

#if IS_REAL
#define IS_WIDER (TYPE_IS == 1)                          /* is double wider than T? */
#define LEAST_NORMAL F(1.17549435e-38)
/* The elements of one output in a block: p[i], or row[i][at] if there are rows. */
typedef struct { const T *p; const T *const *row; int64_t at, n; } Line;
INLINE T element(Line l, int64_t i) { return l.row ? l.row[i][l.at] : l.p[i]; }
/* Is one not equal to c? */
static int differs(Line l, T c) {
  int found = 0;
  for (int64_t i = 0; i < l.n; i++) found |= element(l, i) != c;
  return found;
}
NOINLINE double wide_sum(Line l, int squares) {
  double s[4] = {0};
  for (int64_t i = 0; i < l.n; i++) {
    const double x = element(l, i);
    s[i & 3] += squares ? x * x : x;
  }
  return (s[0] + s[1]) + (s[2] + s[3]);
}
INLINE int leaves_range(T s, int squares) { return !(s - s == 0) || (squares && s < LEAST_NORMAL); }
/* Where the sum of a block left the range of T: the same in double. */
NOINLINE void widen_again(Partial to, int64_t width, Line first, int64_t stride, int squares) {
  for (int64_t j = 0; j < width; j++) {
    const T s = to.value[j];
    const Line l = {first.p + j * stride, first.row, first.at + j, first.n};
    if (leaves_range(s, squares) && (!(s < LEAST_NORMAL) || differs(l, 0))) to.high[j] = wide_sum(l, squares);
  }
}
/* From here on, the sum of a block is a double, high, with its rounding error, low. `first` is the line of the first
 * output, the others are `stride` elements or one column further each. */
INLINE void widen(Partial to, int64_t width, Line first, int64_t stride, int squares) {
  int again = 0;
  for (int64_t j = 0; j < width; j++) {
    to.high[j] = to.value[j];
    to.low[j] = 0;
    again |= leaves_range(to.value[j], squares);
  }
  if (IS_WIDER && again) widen_again(to, width, first, stride, squares);
}
static void sum_rows(Partial to, const T *p, int64_t count, int64_t stride, int64_t n, int64_t first) {
  (void)first;
  for (int64_t j = 0; j < count; j++) to.value[j] = vsum(fold_block(SUM, p + j * stride, n));
  widen(to, count, (Line){p, 0, 0, n}, stride, 0);
}
static void sum_strip(Partial to, const T *const *row, int64_t from, int64_t width, int64_t n, int64_t first) {
  (void)first;
  fold_columns(SUM, to.value, row, from, width, n);
  widen(to, width, (Line){0, row, from, n}, 0, 0);
}
static void squares_rows(Partial to, const T *p, int64_t count, int64_t stride, int64_t n, int64_t first) {
  (void)first;
  for (int64_t j = 0; j < count; j++) {
    const T *x = p + j * stride;
    V s[4] = {vzero(), vzero(), vzero(), vzero()};
    int64_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
      UNROLL for (int u = 0; u < 4; u++) {
        const V v = vload(x + i + u * VL);
        s[u] = vfma(v, v, s[u]);
      }
    for (; i < n; i += VL) {
      const V v = n - i < VL ? vload_n(x + i, (int)(n - i)) : vload(x + i);
      s[0] = vfma(v, v, s[0]);
    }
    to.value[j] = vsum((s[0] + s[2]) + (s[1] + s[3]));
  }
  widen(to, count, (Line){p, 0, 0, n}, stride, 1);
}
INLINE void squares_vectors(T *out, const T *const *row, int64_t at, int64_t n, int vectors, int lanes) {
  V s[4];
  UNROLL for (int l = 0; l < vectors; l++) s[l] = vzero();
  for (int64_t i = 0; i < n; i++)
    UNROLL for (int l = 0; l < vectors; l++) {
      const V v = load_n(row[i] + at + l * VL, lanes);
      s[l] = vfma(v, v, s[l]);
    }
  UNROLL for (int l = 0; l < vectors; l++) store_n(out + l * VL, s[l], lanes);
}
static void squares_strip(Partial to, const T *const *row, int64_t from, int64_t width, int64_t n, int64_t first) {
  (void)first;
#define ONE(j, vectors, lanes) squares_vectors(to.value + (j), row, from + (j), n, vectors, lanes)
  ACROSS(ONE);
#undef ONE
  widen(to, width, (Line){0, row, from, n}, 0, 1);
}
static void sum_merge(Partial a, Partial b, int64_t width, int64_t n, int64_t m) {
  (void)n, (void)m;
  INDEPENDENT
  for (int64_t j = 0; j < width; j++) {
    const double x = a.high[j], y = b.high[j], s = x + y;
#if TYPE_IS == 2
    const double part = s - x;
    a.low[j] += ((x - (s - part)) + (y - part)) + b.low[j];
#endif
    a.high[j] = s;
  }
}
static inline double total(Partial from, int64_t j) {
  const double s = from.high[j] + from.low[j];          /* low is NaN where high is infinite */
  return s == s ? s : from.high[j];
}
/* Is this result of type double out of range? From here on down, the squares it comes from have lost digits. */
#define LEAST_ROOT 0x1p-500
/* Squares of elements up to the one, and of differences of elements of which one has at least the other, stay in range. */
#define LEAST_SAFE 0x1p-400
#define MOST_SAFE 0x1p480
INLINE int is_out(double result, double least) { return !(result - result == 0) || result < least; }
INLINE void look(int *again, double result, double least) {
  if (!IS_WIDER && is_out(result, least)) __atomic_store_n(again, 1, __ATOMIC_RELAXED);
}
static void sum_store(void *out, void *again, int64_t k, Partial from, int64_t width, int64_t n) {
  (void)n;
  for (int64_t j = 0; j < width; j++) look(again, ((T *)out)[k + j] = (T)total(from, j), -INFINITY);
}
static void mean_store(void *out, void *again, int64_t k, Partial from, int64_t width, int64_t n) {
  for (int64_t j = 0; j < width; j++) look(again, ((T *)out)[k + j] = (T)(total(from, j) / (double)n), -INFINITY);
}
static void root_store(void *out, void *again, int64_t k, Partial from, int64_t width, int64_t n) {
  (void)n;
  for (int64_t j = 0; j < width; j++) look(again, ((T *)out)[k + j] = (T)sqrt(total(from, j)), LEAST_ROOT);
}
#elif TYPE_IS != 5
FOLD(SUM, sum)
#define sum_store value_store
#endif
#if TYPE_IS != 5
FOLD(PROD, prod)
#endif
FOLD(MAX, max)
FOLD(MIN, min)

/* from the numbers of lanes, which are as wide as T */
NOINLINE void indices_of(Partial to, const TI *number, int64_t width, int64_t first) {
  for (int64_t j = 0; j < width; j++) to.index[j] = first + number[j];
}

/* ---- argmax, argmin: the first element that beats all others; the first NaN beats everything ---- */

INLINE int beats(int op, T a, T b) { return (op == MAX ? a > b : a < b) || (ISNAN(a) && !ISNAN(b)); }
INLINE VM vbeats(int op, V a, V b) {
  VM better = op == MAX ? (VM)(a > b) : (VM)(a < b);
#if IS_REAL
  better |= (VM)(a != a) & (VM)(b == b);
#endif
  return better;
}

/* First the extreme, at full speed; then its index: from the end to the front, each lane keeps the number of the last
 * vector in which it found the extreme. No branch depends on the data, so short rows do not mispredict. */
static inline int64_t locate(T m, const T *p, int64_t n) {
  if (ISNAN(m)) {
    int64_t i = 0;
    while (!ISNAN(p[i])) i++;
    return i;
  }
  const V extreme = vset(m);
  int64_t i = (n - 1) / VL;
  const int rest = (int)(n - i * VL);
  VM number = (TI)i - (VM){0}, where = (TI)(2 * BLOCK_ELEMENTS / VL - 1) - (VM){0};
  VM hit = (VM)(vload_n(p + i * VL, rest) == extreme) & first_lanes(rest);
  where = (hit & number) | (~hit & where);
  while (i-- > 0) {
    number -= 1;
    hit = (VM)(vload(p + i * VL) == extreme);
    where = (hit & number) | (~hit & where);
  }
  TI t[VBYTES / sizeof(T)];
  memcpy(t, &where, VBYTES);
  int first = 2 * BLOCK_ELEMENTS;
  for (int l = 0; l < VL; l++) {
    const int k = (int)t[l] * VL + l;
    first = k < first ? k : first;
  }
  return first;
}
INLINE void arg_rows(int op, Partial to, const T *p, int64_t count, int64_t stride, int64_t n, int64_t first) {
  for (int64_t j = 0; j < count; j++, p += stride) {
    to.value[j] = fold_lanes(op, fold_block(op, p, n));
    to.index[j] = first + locate(to.value[j], p, n);
  }
}
/* The lanes count rows in integers as wide as T: BLOCK_ROWS fits into any. */
INLINE void arg_vectors(int op, T *value, TI *number, const T *const *row, int64_t at, int64_t n, int vectors,
                        int lanes) {
  V best[4];
  VM where[4];
  UNROLL for (int l = 0; l < vectors; l++) best[l] = load_n(row[0] + at + l * VL, lanes), where[l] = (VM){0};
  for (int64_t i = 1; i < n; i++)
    UNROLL for (int l = 0; l < vectors; l++) {
      const V x = load_n(row[i] + at + l * VL, lanes);
      const VM better = vbeats(op, x, best[l]);
      best[l] = vselect(better, x, best[l]);
      where[l] = (better & ((TI)i - (VM){0})) | (~better & where[l]);
    }
  UNROLL for (int l = 0; l < vectors; l++) {
    store_n(value + l * VL, best[l], lanes);
    memcpy(number + l * VL, &where[l], VBYTES);
  }
}
INLINE void arg_strip(int op, Partial to, const T *const *row, int64_t from, int64_t width, int64_t n, int64_t first) {
  TI number[2 * BLOCK_COLUMNS] = {0};
#define ONE(j, vectors, lanes) arg_vectors(op, to.value + (j), number + (j), row, from + (j), n, vectors, lanes)
  if (n > 0) ACROSS(ONE);
  else for (int64_t j = 0; j < width; j++) to.value[j] = identity(op);
#undef ONE
  indices_of(to, number, width, first);
}
INLINE void arg_merge(int op, Partial a, Partial b, int64_t width) {
  for (int64_t j = 0; j < width; j++)
    if (beats(op, b.value[j], a.value[j])) a.value[j] = b.value[j], a.index[j] = b.index[j];
}
#define ARG(op, name) \
  NOINLINE void name##_rows(Partial to, const T *p, int64_t count, int64_t stride, int64_t n, int64_t first) { \
    arg_rows(op, to, p, count, stride, n, first); \
  } \
  /* most blocks of a long row hold no new extreme; then there is no index to find */ \
  static void name##_more(Partial to, const T *p, int64_t n, int64_t first) { \
    const T m = fold_lanes(op, fold_block(op, p, n)); \
    if (beats(op, m, to.value[0])) name##_rows(to, p, 1, 0, n, first); \
  } \
  static void name##_strip(Partial to, const T *const *row, int64_t from, int64_t width, int64_t n, int64_t first) { \
    arg_strip(op, to, row, from, width, n, first); \
  } \
  static void name##_merge(Partial a, Partial b, int64_t width, int64_t n, int64_t m) { \
    (void)n, (void)m; \
    arg_merge(op, a, b, width); \
  }
ARG(MAX, argmax)
ARG(MIN, argmin)
static void index_store(void *out, void *second, int64_t k, Partial from, int64_t width, int64_t n) {
  (void)second, (void)n;
  memcpy((int64_t *)out + k, from.index, (size_t)width * sizeof(int64_t));
}

/* ---- count_nonzero, any, all: one count (NaN is not zero), three readings ---- */

static void count_rows(Partial to, const T *p, int64_t count, int64_t stride, int64_t n, int64_t first) {
  (void)first;
  for (int64_t j = 0; j < count; j++, p += stride) {
    VM c = {0};                                         /* a mask is -1; at most 64 of them, which fits 8 bits */
    int64_t i = 0;
    for (; i + VL <= n; i += VL) c -= (VM)(vload(p + i) != (V){0});
    if (i < n) c -= (VM)(vload_n(p + i, (int)(n - i)) != (V){0});
    int64_t s = 0;
    for (int l = 0; l < VL; l++) s += c[l];
    to.index[j] = s;
  }
}
INLINE void count_vectors(TI *number, const T *const *row, int64_t at, int64_t n, int vectors, int lanes) {
  VM c[4];
  UNROLL for (int l = 0; l < vectors; l++) c[l] = (VM){0};
  for (int64_t i = 0; i < n; i++)
    UNROLL for (int l = 0; l < vectors; l++) c[l] -= (VM)(load_n(row[i] + at + l * VL, lanes) != (V){0});
  UNROLL for (int l = 0; l < vectors; l++) memcpy(number + l * VL, &c[l], VBYTES);
}
static void count_strip(Partial to, const T *const *row, int64_t from, int64_t width, int64_t n, int64_t first) {
  (void)first;
  TI number[2 * BLOCK_COLUMNS];
#define ONE(j, vectors, lanes) count_vectors(number + (j), row, from + (j), n, vectors, lanes)
  ACROSS(ONE);
#undef ONE
  indices_of(to, number, width, 0);
}
static void count_merge(Partial a, Partial b, int64_t width, int64_t n, int64_t m) {
  (void)n, (void)m;
  for (int64_t j = 0; j < width; j++) a.index[j] += b.index[j];
}
NOINLINE void all_store(void *out, void *second, int64_t k, Partial from, int64_t width, int64_t n) {
  (void)second;
  for (int64_t j = 0; j < width; j++) ((uint8_t *)out)[k + j] = from.index[j] >= n;
}
static void any_store(void *out, void *second, int64_t k, Partial from, int64_t width, int64_t n) {
  (void)n;
  all_store(out, second, k, from, width, 1);
}

/* ---- moments ---- */

#if IS_REAL
/* The deviations of a block are taken from c, which is near its mean, so that s = sum(x - c) and q = sum((x - c)^2)
 * hardly cancel in mean = c + s / n, m2 = q - s^2 / n. A first pass, with c = the first element, finds c; so a constant
 * block gives m2 = 0 exactly. The mean is kept in two parts, c and s / n, because the difference of the means of two
 * blocks would lose the digits that their sums round away. If c is not finite, it is the mean, and m2 is NaN. */
static inline void moments_of(Partial to, int64_t j, T c, T s, T q, int64_t n) {
  const double share = (double)s / (double)n, left = (double)q - share * (double)s;
  const int finite = c - c == 0;
  to.value[j] = c;
  to.high[j] = finite ? share : 0;
  to.low[j] = finite ? (left < 0 ? 0 : left) : (double)(c - c);
}
/* Where the squares left the range of T: the same in double, about the mean. */
static void moments_again(Partial to, int64_t j, Line l) {
  if (!IS_WIDER || l.n < 2 || (to.low[j] < LEAST_NORMAL && !differs(l, element(l, 0)))) return;
  const double mean = wide_sum(l, 0) / (double)l.n;
  const T c = (T)mean;
  if (!(c - c == 0)) return;
  double q = 0;
  for (int64_t i = 0; i < l.n; i++) q += (element(l, i) - mean) * (element(l, i) - mean);
  to.value[j] = c;
  to.high[j] = mean - (double)c;
  to.low[j] = q;
}
INLINE int in_range(T squares) { return squares >= LEAST_NORMAL && squares - squares == 0; }
INLINE V finite_or_0(V x) { return vselect((VM)(x - x == 0), x, vzero()); }

static void moments_rows(Partial to, const T *p, int64_t count, int64_t stride, int64_t n, int64_t first) {
  (void)first;
  for (int64_t j = 0; j < count; j++, p += stride) {
    T c = finite_or_0(vset(p[0]))[0], sum = 0, squares = 0;
    for (int pass = 0; pass < 2; pass++) {
      if (pass) c += sum / (T)n;
      const V shift = vset(c);
      V s = vzero(), s1 = vzero(), s2 = vzero(), s3 = vzero(), q = vzero(), q1 = vzero(), q2 = vzero(), q3 = vzero();
      int64_t i = 0;
      for (; i + 4 * VL <= n; i += 4 * VL) {
        const V a = vload(p + i) - shift, b = vload(p + i + VL) - shift;
        const V e = vload(p + i + 2 * VL) - shift, f = vload(p + i + 3 * VL) - shift;
        s += a, s1 += b, s2 += e, s3 += f;
        if (pass) q = vfma(a, a, q), q1 = vfma(b, b, q1), q2 = vfma(e, e, q2), q3 = vfma(f, f, q3);
      }
      for (; i < n; i += VL) {
        V a = n - i < VL ? vselect(first_lanes((int)(n - i)), vload_n(p + i, (int)(n - i)) - shift, vzero())
                         : vload(p + i) - shift;
        s += a;
        q = vfma(a, a, q);
      }
      sum = vsum((s + s2) + (s1 + s3));
      squares = vsum((q + q2) + (q1 + q3));
    }
    moments_of(to, j, c, sum, squares, n);
    if (!in_range(squares)) moments_again(to, j, (Line){p, 0, 0, n});
  }
}
INLINE void moments_vectors(T *c, T *s, T *q, const T *const *row, int64_t at, int64_t n, int vectors, int lanes) {
  V shift[4], sum[4], squares[4];
  UNROLL for (int l = 0; l < vectors; l++)
    shift[l] = n > 0 ? finite_or_0(load_n(row[0] + at + l * VL, lanes)) : vzero(), sum[l] = vzero();
  for (int64_t i = 0; i < n; i++)
    UNROLL for (int l = 0; l < vectors; l++) sum[l] += load_n(row[i] + at + l * VL, lanes) - shift[l];
  UNROLL for (int l = 0; l < vectors; l++) shift[l] += sum[l] * vset((T)1 / (T)n), sum[l] = squares[l] = vzero();
  for (int64_t i = 0; i < n; i++)
    UNROLL for (int l = 0; l < vectors; l++) {
      const V a = load_n(row[i] + at + l * VL, lanes) - shift[l];
      sum[l] += a;
      squares[l] = vfma(a, a, squares[l]);
    }
  UNROLL for (int l = 0; l < vectors; l++) {
    store_n(c + l * VL, shift[l], lanes);
    store_n(s + l * VL, sum[l], lanes);
    store_n(q + l * VL, squares[l], lanes);
  }
}
static void moments_strip(Partial to, const T *const *row, int64_t from, int64_t width, int64_t n, int64_t first) {
  (void)first;
  T c[2 * BLOCK_COLUMNS], s[2 * BLOCK_COLUMNS], q[2 * BLOCK_COLUMNS];
#define ONE(j, vectors, lanes) moments_vectors(c + (j), s + (j), q + (j), row, from + (j), n, vectors, lanes)
  ACROSS(ONE);
#undef ONE
  for (int64_t j = 0; j < width; j++) {
    moments_of(to, j, c[j], s[j], q[j], n);
    if (!in_range(q[j])) moments_again(to, j, (Line){0, row, from + j, n});
  }
}
static void moments_merge(Partial a, Partial b, int64_t width, int64_t n, int64_t m) {
  const double share = (double)m / (double)(n + m), weight = (double)n * share;
  INDEPENDENT
  for (int64_t j = 0; j < width; j++) {
    const double delta = ((double)b.value[j] - (double)a.value[j]) + (b.high[j] - a.high[j]);
    const int finite = delta - delta == 0;
    const T sum = a.value[j] + b.value[j];                /* infinities add up, as they do in a sum */
    a.value[j] = finite ? a.value[j] : sum;
    a.high[j] += finite ? delta * share : 0;
    a.low[j] += b.low[j] + delta * delta * weight;
  }
}
typedef struct { T *out; double divisor; int64_t root; int again; } Spread;
static inline double least_of(const Spread *spread) { return spread->root ? LEAST_ROOT : LEAST_ROOT * LEAST_ROOT; }
static void moments_store(void *out, void *second, int64_t k, Partial from, int64_t width, int64_t n) {
  (void)n;
  Spread *spread = second;
  for (int64_t j = 0; j < width; j++) {
    const double var = from.low[j] / spread->divisor;
    look(&spread->again, ((T *)out)[k + j] = (T)((double)from.value[j] + from.high[j]), -INFINITY);
    look(&spread->again, spread->out[k + j] = (T)(spread->root ? sqrt(var) : var), least_of(spread));
  }
}
#endif

/* ---- the driver ---- */

typedef struct { int64_t ndim; const int64_t *shape, *stride; } Dims;
/* A place in an array: the pointer and the index it belongs to. */
typedef struct { Dims dims; const T *p; int64_t index[DIMS]; } Walk;

static void walk_start(Walk *w, Dims dims, const T *p, int64_t i) {
  w->dims = dims;
  for (int64_t d = dims.ndim - 1; d >= 0; d--) {
    w->index[d] = i % dims.shape[d];
    i /= dims.shape[d];
    p += w->index[d] * dims.stride[d];
  }
  w->p = p;
}
static inline void walk_next(Walk *w) {
  for (int64_t d = w->dims.ndim - 1; d >= 0; d--) {
    w->p += w->dims.stride[d];
    if (++w->index[d] < w->dims.shape[d]) return;
    w->p -= w->dims.stride[d] * w->dims.shape[d];
    w->index[d] = 0;
  }
}

typedef struct {
  const Op *op;
  void *out, *second;
  const T *x;
  Dims kept, reduced;                     /* the plan */
  int64_t keep, reduce;                   /* how many outputs, of how many elements each */
  int64_t inner, inner_stride;            /* the last kept dimension */
  int64_t run, run_stride;                /* the last reduced dimension */
  int64_t width;                          /* columns: outputs to a piece of work */
  int64_t chunk, chunks;                  /* an output's elements are reduced chunk by chunk, */
  int split;                              /* each a piece of work of its own where there are few outputs: */
  Partial partial;                        /* chunk c of output k at c * keep + k */
} Job;

static inline void copy_strided(T *to, const T *from, int64_t n, int64_t stride) {
  if (stride == 1) memcpy(to, from, (size_t)n * sizeof(T));
  else for (int64_t i = 0; i < n; i++) to[i] = from[i * stride];
}

/* A chunk of an output begins and ends here. */
static inline int64_t chunk_begin(const Job *job, int64_t c) { return c * job->chunk; }
static inline int64_t chunk_end(const Job *job, int64_t c) {
  return c + 1 < job->chunks ? (c + 1) * job->chunk : job->reduce;
}

/* Chunk c of one output. Blocks are read in place from runs that are contiguous and not too short, otherwise
 * through a buffer. */
static void reduce_row(const Job *job, Partial to, const T *x, int64_t c) {
  const Op *op = job->op;
  const int64_t begin = chunk_begin(job, c), end = chunk_end(job, c);
  PARTIAL(next, 1);
  T buffer[BLOCK_ELEMENTS];
  Walk walk;
  const Dims outer = {job->reduced.ndim - (job->reduced.ndim > 0), job->reduced.shape, job->reduced.stride};
  walk_start(&walk, outer, x, begin / job->run);
  const int in_place = job->run_stride == 1 && (outer.ndim == 0 || job->run >= BLOCK_ELEMENTS / 4);
  int64_t within = begin % job->run;
  for (int64_t i = begin; i < end;) {
    const T *p = buffer;
    int64_t n = end - i < BLOCK_ELEMENTS ? end - i : BLOCK_ELEMENTS;
    if (in_place) {
      if (n > job->run - within) n = job->run - within;
      p = walk.p + within;
      within += n;
      if (within == job->run) walk_next(&walk), within = 0;
    } else {
      for (int64_t k = 0; k < n;) {
        const int64_t m = n - k < job->run - within ? n - k : job->run - within;
        copy_strided(buffer + k, walk.p + within * job->run_stride, m, job->run_stride);
        k += m, within += m;
        if (within == job->run) walk_next(&walk), within = 0;
      }
    }
    if (i == begin) op->rows(to, p, 1, 0, n, i);
    else if (op->more) op->more(to, p, n, i);
    else op->rows(next, p, 1, 0, n, i), op->merge(to, next, 1, i - begin, n);
    i += n;
  }
}

/* Outputs [begin, end), each with all its elements. */
static void rows_piece(void *context, int64_t begin, int64_t end) {
  const Job *job = context;
  PARTIAL(to, GROUP_ROWS);
  PARTIAL(next, 1);
  const int short_rows =
      job->reduced.ndim <= 1 && (job->run_stride == 1 || job->run == 1) && job->reduce <= BLOCK_ELEMENTS;
  for (int64_t k = begin; k < end;) {
    Walk walk;
    walk_start(&walk, job->kept, job->x, k);
    int64_t n = job->inner - k % job->inner;            /* outputs an even stride apart */
    if (n > GROUP_ROWS) n = GROUP_ROWS;
    if (n > end - k) n = end - k;
    if (short_rows) job->op->rows(to, walk.p, n, job->inner_stride, job->reduce, 0);
    else for (int64_t j = 0; j < n; j++) {
      reduce_row(job, at(to, j), walk.p + j * job->inner_stride, 0);
      for (int64_t c = 1; c < job->chunks; c++) {
        reduce_row(job, next, walk.p + j * job->inner_stride, c);
        job->op->merge(at(to, j), next, 1, chunk_begin(job, c), chunk_end(job, c) - chunk_begin(job, c));
      }
    }
    job->op->store_n(job->out, job->second, k, to, n, job->reduce);
    k += n;
  }
}

/* Chunk u / keep of output u % keep. */
static void row_chunks_piece(void *context, int64_t begin, int64_t end) {
  const Job *job = context;
  for (int64_t u = begin; u < end; u++) {
    Walk walk;
    walk_start(&walk, job->kept, job->x, u % job->keep);
    reduce_row(job, at(job->partial, u), walk.p, u / job->keep);
  }
}

/* Chunk c of `width` neighbours of the last kept dimension. */
static void reduce_columns(const Job *job, Partial to, const T *x, int64_t width, int64_t c) {
  const Op *op = job->op;
  const int64_t begin = chunk_begin(job, c), end = chunk_end(job, c);
  if (job->reduce == 0) {
    for (int64_t j = 0; j < width; j += BLOCK_COLUMNS)
      op->strip(at(to, j), 0, 0, width - j < BLOCK_COLUMNS ? width - j : BLOCK_COLUMNS, 0, 0);
    return;
  }
  PARTIAL(next, 2 * BLOCK_COLUMNS);
  Walk walk;
  walk_start(&walk, job->reduced, x, begin);
  for (int64_t i = begin; i < end; i += BLOCK_ROWS) {
    const T *row[BLOCK_ROWS];
    const int64_t n = end - i < BLOCK_ROWS ? end - i : BLOCK_ROWS;
    for (int64_t r = 0; r < n; r++) row[r] = walk.p, walk_next(&walk);
    for (int64_t j = 0, w; j < width; j += w) {
      w = width - j < 2 * BLOCK_COLUMNS ? width - j : BLOCK_COLUMNS;
      const Partial into = i == begin ? at(to, j) : next;
      if (job->inner_stride == 1) {
        op->strip(into, row, j, w, n, i);
      } else {
        T tile[BLOCK_ROWS][2 * BLOCK_COLUMNS];
        const T *packed[BLOCK_ROWS];
        for (int64_t r = 0; r < n; r++) {
          copy_strided(tile[r], row[r] + j * job->inner_stride, w, job->inner_stride);
          packed[r] = tile[r];
        }
        op->strip(into, packed, 0, w, n, i);
      }
      if (i > begin) op->merge(at(to, j), next, w, i - begin, n);
    }
  }
}

/* Piece u: up to `width` columns of one line of the last kept dimension, and all their chunks or (split) one. */
static void columns_piece(void *context, int64_t begin, int64_t end) {
  const Job *job = context;
  const int64_t across = (job->inner + job->width - 1) / job->width, pieces = job->keep / job->inner * across;
  const Dims outer = {job->kept.ndim - 1, job->kept.shape, job->kept.stride};
  PARTIAL(to, PIECE_COLUMNS);
  PARTIAL(next, PIECE_COLUMNS);
  for (int64_t u = begin; u < end; u++) {
    const int64_t line = u % pieces / across, first = u % across * job->width, k = line * job->inner + first;
    const int64_t width = job->inner - first < job->width ? job->inner - first : job->width;
    Walk walk;
    walk_start(&walk, outer, job->x, line);
    const T *x = walk.p + first * job->inner_stride;
    if (job->split) {
      reduce_columns(job, at(job->partial, u / pieces * job->keep + k), x, width, u / pieces);
      continue;
    }
    reduce_columns(job, to, x, width, 0);
    for (int64_t c = 1; c < job->chunks; c++) {
      reduce_columns(job, next, x, width, c);
      job->op->merge(to, next, width, chunk_begin(job, c), chunk_end(job, c) - chunk_begin(job, c));
    }
    job->op->store_n(job->out, job->second, k, to, width, job->reduce);
  }
}

/* The chunks of outputs [begin, end), in order. */
static void join_piece(void *context, int64_t begin, int64_t end) {
  const Job *job = context;
  const Partial to = at(job->partial, begin);
  for (int64_t c = 1; c < job->chunks; c++)
    job->op->merge(to, at(job->partial, c * job->keep + begin), end - begin, chunk_begin(job, c),
                   chunk_end(job, c) - chunk_begin(job, c));
  job->op->store_n(job->out, job->second, begin, to, end - begin, job->reduce);
}

/* Chunks are cut by the length of the reduction alone, so that the bits of an output do not depend on the other
 * outputs. Whether a chunk is a piece of work of its own depends on the number of outputs. 0 if there is no memory. */
static int cut(Job *job, int64_t chunk, int64_t pieces) {
  job->chunk = chunk;
  job->chunks = job->reduce > chunk ? (job->reduce + chunk - 1) / chunk : 1;
  job->split = job->chunks > 1 && pieces < 32;
  if (!job->split) return 1;
  const size_t n = (size_t)(job->chunks * job->keep);
  double *p = mg_scratch(0, n * (3 * sizeof(double) + sizeof(T)));
  if (!p) return 0;
  job->partial = (Partial){(T *)(p + 3 * n), (int64_t *)p, p + n, p + 2 * n};
  return 1;
}

static int64_t at_least_1(int64_t n) { return n > 1 ? n : 1; }

static void reduce(const Op *op, void *out, void *second, const T *x, const int64_t *plan) {
  const int64_t nkeep = plan[0], nreduce = plan[1];
  const int64_t *shape = plan + 2, *stride = shape + nkeep + nreduce;
  Job job = {.op = op,
             .out = out,
             .second = second,
             .x = x,
             .kept = {nkeep, shape, stride},
             .reduced = {nreduce, shape + nkeep, stride + nkeep},
             .keep = 1,
             .reduce = 1,
             .inner = 1,
             .run = 1,
             .chunks = 1};
  for (int64_t d = 0; d < nkeep; d++) job.keep *= shape[d];
  for (int64_t d = 0; d < nreduce; d++) job.reduce *= shape[nkeep + d];
  if (job.keep == 0) return;
  if (nkeep > 0) job.inner = shape[nkeep - 1], job.inner_stride = stride[nkeep - 1];
  if (nreduce > 0) job.run = shape[nkeep + nreduce - 1], job.run_stride = stride[nkeep + nreduce - 1];

  const int64_t near = job.inner_stride < 0 ? -job.inner_stride : job.inner_stride;
  const int64_t far = job.run_stride < 0 ? -job.run_stride : job.run_stride;
  const int columns = job.reduce == 0 || (nkeep > 0 && (near == 1 || nreduce == 0 || (near != 0 && near < far)));
  if (columns && !(far == 1 && job.run > 1 && job.reduce > 0)) {
    job.width = job.inner < PIECE_COLUMNS ? job.inner : PIECE_COLUMNS;
    const int64_t pieces = job.keep / job.inner * ((job.inner + PIECE_COLUMNS - 1) / PIECE_COLUMNS);
    if (!cut(&job, at_least_1(CHUNK_ELEMENTS / job.width), pieces)) return;
    const int64_t work = job.width * at_least_1(job.split ? job.chunk : job.reduce);
    mg_parallel(job.split ? pieces * job.chunks : pieces, at_least_1(ELEMENTS_PER_THREAD / work), columns_piece, &job);
  } else {
    if (!cut(&job, CHUNK_ELEMENTS, job.keep)) return;
    if (job.split) mg_parallel(job.keep * job.chunks, 1, row_chunks_piece, &job);
    else mg_parallel(job.keep, at_least_1(ELEMENTS_PER_THREAD / job.reduce), rows_piece, &job);
  }
  if (job.split) mg_parallel(job.keep, PIECE_COLUMNS, join_piece, &job);
}

#if TYPE_IS == 2
/* The outputs that are out of range, again: of finite elements divided by a power of 2 near the largest of them. */
NOINLINE __attribute__((cold)) void scaled_again(T *out, const T *x, const int64_t *plan, int mean, Spread *spread, int root) {
  const int64_t *shape = plan + 2, *stride = shape + plan[0] + plan[1];
  const Dims kept = {plan[0], shape, stride}, reduced = {plan[1], shape + plan[0], stride + plan[0]};
  int64_t keep = 1, n = 1;
  for (int64_t d = 0; d < kept.ndim; d++) keep *= kept.shape[d];
  for (int64_t d = 0; d < reduced.ndim; d++) n *= reduced.shape[d];
  if (!n) return;
  Walk walk;
#define EACH(v, ...) \
  walk_start(&walk, reduced, from, 0); \
  for (int64_t i = 0; i < n; i++, walk_next(&walk)) { \
    const double v = scalbn(*walk.p, -power); \
    __VA_ARGS__; \
  }
  for (int64_t k = 0; k < keep; k++) {
    if (!is_out(out[k], root ? LEAST_ROOT : -INFINITY) && !(spread && is_out(spread->out[k], least_of(spread)))) continue;
    const int small = out[k] - out[k] == 0 && !(spread && spread->out[k] - spread->out[k] != 0);
    walk_start(&walk, kept, x, k);
    const T *const from = walk.p;
    int power = 0;
    double largest = 0, beyond = 0;             /* of the finite elements; the sum of those beside which they do not count */
    EACH(v,
      if (v - v == 0) largest = MAX(largest, fabs(v));
      else beyond += v;
      if (beyond != beyond || (small && largest >= LEAST_SAFE)) break;
    );
    if (beyond != 0 && !root) out[k] = beyond;
    if (beyond != 0 || largest == 0 || (largest >= LEAST_SAFE && largest <= MOST_SAFE)) continue;
    frexp(largest, &power);
    long double s = 0, squares = 0;
    EACH(v, s += v, squares += (long double)v * v);
    const double centre = (double)(s / (long double)n);
    out[k] = scalbn(root ? (double)sqrtl(squares) : mean ? centre : (double)s, power);
    if (!spread) continue;
    squares = 0;
    EACH(v, squares += (long double)(v - centre) * (v - centre));
    const double var = (double)squares / spread->divisor;
    spread->out[k] = spread->root ? scalbn(sqrt(var), power) : scalbn(var, 2 * power);
  }
#undef EACH
}
#else
#define scaled_again(...) ((void)0)
#endif

#define REDUCTION(name, type, family, finish, more) \
  void FN(name)(type *out, const T *x, const int64_t *plan) { \
    static const Op op = {family##_rows, family##_strip, family##_merge, more, finish##_store}; \
    reduce(&op, out, 0, x, plan); \
  }
#if TYPE_IS != 5
#if IS_REAL
#define FLOAT_REDUCTION(name, family, finish, mean, root) \
  void FN(name)(T *out, const T *x, const int64_t *plan) { \
    static const Op op = {family##_rows, family##_strip, family##_merge, 0, finish##_store}; \
    int again = 0; \
    reduce(&op, out, &again, x, plan); \
    if (again) scaled_again(out, x, plan, mean, 0, root); \
  }
#define squares_merge sum_merge
FLOAT_REDUCTION(sum, sum, sum, 0, 0)
FLOAT_REDUCTION(mean, sum, mean, 1, 0)
FLOAT_REDUCTION(norm, squares, root, 0, 1)
#else
REDUCTION(sum, T, sum, sum, 0)
#endif
REDUCTION(prod, T, prod, value, 0)
#endif
REDUCTION(max, T, max, value, 0)
REDUCTION(min, T, min, value, 0)
REDUCTION(argmax, int64_t, argmax, index, argmax_more)
REDUCTION(argmin, int64_t, argmin, index, argmin_more)
REDUCTION(count_nonzero, int64_t, count, index, 0)
REDUCTION(any, uint8_t, count, any, 0)
REDUCTION(all, uint8_t, count, all, 0)
#if IS_REAL
void FN(moments)(T *mean, T *spread, const T *x, const int64_t *plan, double divisor, int64_t root) {
  static const Op op = {moments_rows, moments_strip, moments_merge, 0, moments_store};
  Spread to = {spread, divisor, root, 0};
  reduce(&op, mean, &to, x, plan);
  if (to.again) scaled_again(mean, x, plan, 1, &to, 0);
}
#endif

/* ---- cumsum, cumprod along the middle axis of [outer, n, inner] ----
 *
 *     s = identity;  for (i = 0; i < n; i++) out[i] = s = op(s, x[i]);
 *
 * s is a double for float and double, as in PyTorch. Across the columns of an inner axis this loop vectorises as it is.
 * Along a row each step waits for the one before, so sums go four at a time: the chain is one addition for four
 * elements. (Not products: a pair of large factors may overflow where the running product does not.) */
#if TYPE_IS != 5
#if IS_REAL
typedef double Running;
#else
typedef TA Running;
#endif
typedef struct { T *out; const T *x; int64_t n, inner; } Scan;
enum { SCAN_WIDTH = 256 };

INLINE Running join(int op, Running a, Running b) { return op == SUM ? a + b : a * b; }
INLINE void scan_row(int op, T *out, const T *x, int64_t n) {
  Running s = op == SUM ? 0 : 1;
  int64_t i = 0;
  for (; op == SUM && i + 4 <= n; i += 4) {
    const Running a = (Running)x[i], ab = a + (Running)x[i + 1], c = (Running)x[i + 2], cd = c + (Running)x[i + 3];
    out[i] = (T)(s + a);
    out[i + 1] = (T)(s + ab);
    out[i + 2] = (T)(s + (ab + c));
    out[i + 3] = (T)(s += ab + cd);
  }
  for (; i < n; i++) out[i] = (T)(s = join(op, s, (Running)x[i]));
}
INLINE void scan_piece(int op, const Scan *scan, int64_t begin, int64_t end) {
  const int64_t n = scan->n, inner = scan->inner, strips = (inner + SCAN_WIDTH - 1) / SCAN_WIDTH;
  for (int64_t u = begin; u < end; u++) {
    const int64_t first = u % strips * SCAN_WIDTH, start = u / strips * n * inner + first;
    const int64_t width = inner - first < SCAN_WIDTH ? inner - first : SCAN_WIDTH;
    const T *x = scan->x + start;
    T *out = scan->out + start;
    if (inner == 1) {
      scan_row(op, out, x, n);
      continue;
    }
    Running s[SCAN_WIDTH];
    for (int64_t j = 0; j < width; j++) s[j] = op == SUM ? 0 : 1;
    for (int64_t i = 0; i < n; i++, x += inner, out += inner) {
      INDEPENDENT
      for (int64_t j = 0; j < width; j++) out[j] = (T)(s[j] = join(op, s[j], (Running)x[j]));
    }
  }
}
#define SCANS(op, name) \
  static void name##_piece(void *context, int64_t begin, int64_t end) { scan_piece(op, context, begin, end); } \
  void FN(name)(T *out, const T *x, int64_t outer, int64_t n, int64_t inner) { \
    Scan scan = {out, x, n, inner}; \
    const int64_t width = inner < SCAN_WIDTH ? inner : SCAN_WIDTH; \
    if (n > 0 && inner > 0) \
      mg_parallel(outer * ((inner + SCAN_WIDTH - 1) / SCAN_WIDTH), at_least_1(ELEMENTS_PER_THREAD / (n * width)), \
                  name##_piece, &scan); \
  }
SCANS(SUM, cumsum)
SCANS(PROD, cumprod)
#endif
