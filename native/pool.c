/* types: f32 f64 */
/* Pooling over windows of one to three spatial dimensions: the largest element of each with its index, or the mean.
 *
 *   x [planes, in]   y [planes, out]   in, out: 3 sizes, leading 1s
 *
 * In each dimension the window of output o holds begin, begin + dilation, ... below end, all inside x (`window`):
 * strided, padded and dilated from the sizes of the kernel, or adaptive. Nothing is stored for an output, so that a
 * plan is as small for a million outputs as for one. The plain loops, for a plane and an output:
 *
 *   max_pool_forward    best = its first element; for each other one in order: if it is > best or NaN, it is the best
 *                       (without elements: -inf, and index -1)
 *   max_pool_backward   gx[index[o]] += g[o]
 *   avg_pool_forward    y[o] = (sum of the window) / divisor(o)
 *   avg_pool_backward   gx[i] += g[o] / divisor(o) for each i of the window
 *
 * The fast ones work in two steps: the rows of a window are joined first, for all columns at once in vectors, then the
 * columns of each window in the resulting row; for max in vectors of outputs, if windows are one or two columns apart.
 * The mean of a whole plane is one sum, and its gradient one number. In the order of the index the first of equal
 * elements wins, but the last NaN: of equal columns, the one from the upper row (for NaN from the lower).
 */
#include "loops.h"

#define ELEMENTS_AT_ONCE 16384                         /* elements of x for a thread at a time */

typedef struct {
  int64_t planes, include_pad, divisor, in[3], out[3], kernel[3], stride[3], padding[3], dilation[3];
} shapes;
typedef struct { int64_t begin, end; } span;

typedef struct {
  shapes s;
  T *y;
  const T *x;
  int64_t *index;
  const int64_t *from;
} job;

static job job_of(const int64_t *geometry) {
  job j = {0};
  memcpy(&j.s, geometry, sizeof j.s);
  return j;
}

/* The windows of up to TABLE outputs of a dimension, and how many elements each has for a mean (with a given divisor,
 * the product over the dimensions is this divisor). They are computed once for a piece of work if the dimension has no
 * more outputs, else again and again as a walk comes to them. */
enum { TABLE = 1024 };
typedef struct { int64_t first, count, begin[TABLE], end[TABLE]; double size[TABLE]; } table;

NOINLINE void fill(table *t, const shapes *s, int d, int64_t first) {
  const int64_t n = s->in[d], m = s->out[d], padding = s->padding[d], step = s->dilation[d], stride = s->stride[d];
  const int64_t count = MIN(TABLE, m - first), kernel = s->kernel[d], reach = step * (kernel - 1) + 1;
  t->first = first;
  t->count = count;
  if (kernel) {
    INDEPENDENT
    for (int64_t i = 0; i < count; i++) {
      const int64_t begin = (first + i) * stride - padding;
      t->begin[i] = begin;
      t->end[i] = MIN(begin + reach, n);
    }
    for (int64_t i = 0; i < count && t->begin[i] < 0; i++) t->begin[i] += (step - 1 - t->begin[i]) / step * step;
  } else {
    int64_t begin = first * n / m, rest = first * n % m;
    for (int64_t i = 0; i < count; i++) {
      t->begin[i] = begin;
      begin += n / m;
      rest += n % m;
      if (rest >= m) {
        rest -= m;
        begin++;
      }
      t->end[i] = begin + (rest > 0);
    }
  }
  if (s->divisor)
    for (int64_t i = 0; i < count; i++) t->size[i] = d == 2 ? (double)s->divisor : 1;
  else if (s->include_pad && kernel)
    INDEPENDENT
    for (int64_t i = 0; i < count; i++) t->size[i] = (double)MIN(kernel, n + 2 * padding - (first + i) * stride);
  else
    INDEPENDENT
    for (int64_t i = 0; i < count; i++) t->size[i] = (double)(t->end[i] - t->begin[i]);
}

/* Where the window of output o of dimension d stands in its table. */
INLINE int64_t place(table *t, const shapes *s, int d, int64_t o) {
  if ((uint64_t)(o - t[d].first) >= (uint64_t)t[d].count) fill(t + d, s, d, o / TABLE * TABLE);
  return o - t[d].first;
}

/* Three empty tables; NULL if there is no memory. */
static table *tables(void) {
  table *t = mg_scratch(2, 3 * sizeof *t);
  for (int d = 0; d < 3 && t; d++) t[d].first = t[d].count = 0;
  return t;
}

static int64_t volume(const int64_t *size) { return size[0] * size[1] * size[2]; }

static void over_planes(job *j, void (*run)(void *, int64_t, int64_t)) {
  mg_parallel(j->s.planes, MAX(ELEMENTS_AT_ONCE / MAX(volume(j->s.in), 1), 1), run, j);
}

/* The rows of x in the windows `deep` and `high` of the two outer dimensions: for (z) for (row) in order. */
#define ROWS_OF(s, deep, high, z, row) \
  for (int64_t z = deep.begin; z < deep.end; z += s.dilation[0]) \
    for (int64_t row = z * s.in[1] + high.begin, row##_end = z * s.in[1] + high.end; row < row##_end; \
         row += s.dilation[1])

/* for (o) over the outputs of the last dimension; o - first is the place of its window in t[2]. */
#define EACH_COLUMN(o, first) \
  for (int64_t first = 0; first < s.out[2]; first += TABLE) \
    for (int64_t o = first + place(t, &s, 2, first), o##_end = MIN(first + TABLE, s.out[2]); o < o##_end; o++)

/* The joined rows of a window: the best element of each column, and the row that it is from. */
typedef struct { T *best; TI *origin; } joined;

INLINE void join_rows(const joined *to, const shapes *all, const T *x, span deep, span high) {
  const shapes s = *all;
  const int64_t width = s.in[2];
  for (int64_t c = 0; c < width; c += VL) {
    int n = (int)MIN(width - c, VL), first = 1;
    V top = vzero();
    VM from = {0};
    ROWS_OF(s, deep, high, z, row) {
      V v = n == VL ? vload(x + row * width + c) : vload_n(x + row * width + c, n);
      VM better = first ? ~(VM){0} : (v > top) | (v != v);
      top = vselect(better, v, top);
      from = (better & ((TI)row - (VM){0})) | (~better & from);
      first = 0;
    }
    vstore(to->best + c, top);
    memcpy(to->origin + c, &from, sizeof from);
  }
}

/* Outputs [o, last) of a row of outputs: y and index begin at output 0. */
static void max_columns(T *y, int64_t *index, const joined *of, const shapes *s, table *t, int64_t o, int64_t last) {
  const T *best = of->best;
  const TI *origin = of->origin;
  for (; o < last; o++) {
    const int64_t place_of = place(t, s, 2, o), end = t[2].end[place_of];
    int64_t c = t[2].begin[place_of], at = c;
    if (c >= end) {
      y[o] = -INFINITY;
      index[o] = -1;
      continue;
    }
    T top = best[c];
    for (c += s->dilation[2]; c < end; c += s->dilation[2]) {
      T v = best[c];
      if (v > top || (v == top && origin[c] < origin[at]) || (v != v && (top == top || origin[c] >= origin[at])))
        top = v, at = c;
    }
    y[o] = top;
    index[o] = (int64_t)origin[at] * s->in[2] + at;
  }
}

/* The same for n <= VL outputs at once, with windows that lie in x as a whole, `stride` (1 or 2) apart, from c on. */
INLINE void max_vector(T *y, int64_t *index, const joined *of, const shapes *s, int64_t c, const int stride, int n) {
  V top = vzero();
  VM from = {0}, at = {0}, lane;
  for (int l = 0; l < VL; l++) lane[l] = l * stride;
  for (int64_t q = 0; q < s->kernel[2]; q++, c += s->dilation[2]) {
    VM v_bits, row, next;
    memcpy(&v_bits, of->best + c, sizeof v_bits);
    memcpy(&row, of->origin + c, sizeof row);
    if (stride == 2) {
      memcpy(&next, of->best + c + VL, sizeof next);
      v_bits = veven(v_bits, next);
      memcpy(&next, of->origin + c + VL, sizeof next);
      row = veven(row, next);
    }
    const V v = (V)v_bits;
    const VM better = q == 0 ? ~(VM){0}
                             : (v > top) | ((v == top) & (row < from)) | ((v != v) & ((top == top) | (row >= from)));
    top = vselect(better, v, top);
    from = (better & row) | (~better & from);
    at = (better & ((TI)c + lane)) | (~better & at);
  }
  TI rows[VBYTES / sizeof(TI)], columns[VBYTES / sizeof(TI)];
  memcpy(rows, &from, sizeof rows);
  memcpy(columns, &at, sizeof columns);
  vstore_n(y, top, n);
  for (int l = 0; l < n; l++) index[l] = (int64_t)rows[l] * s->in[2] + columns[l];
}

/* ---- windows of 2x2, two rows and columns apart, by far the most usual ---- */

static int twos(const shapes *s) {
  for (int d = 1; d < 3; d++)
    if (s->kernel[d] != 2 || s->stride[d] != 2 || s->padding[d] || s->dilation[d] != 1 || 2 * s->out[d] > s->in[d])
      return 0;
  return s->kernel[0] == 1 && s->stride[0] == 1 && !s->padding[0];
}

/* Outputs that go side by side: `count` <= HALF of a row, from output `to` on; the first window begins at element `at`
 * of its plane, x points to it. Rows of outputs are short (7 of an image 14 wide), so that a vector takes two units,
 * and masked loads and stores would stand in most of them: up to the ends of x and of the outputs of this piece of work
 * whole units are read and written, over the end of the row; the next row comes later. */
enum { HALF = VL / 2 };
typedef struct { const T *x; int64_t at, to; int count; } unit;

typedef struct { V value; VM at; } Best;
INLINE Best best_of(Best a, Best b) {
  const VM better = (b.value > a.value) | (b.value != b.value);
  return (Best){vselect(better, b.value, a.value), (better & b.at) | (~better & a.at)};
}
/* The best of each two columns of a row */
INLINE Best best_of_row(const unit *u, int64_t down, const T *end) {
  V v[2];
  UNROLL
  for (int h = 0; h < 2; h++) {
    const T *p = u[h].x + down;
    v[h] = p + VL <= end ? vload(p) : vload_n(p, 2 * u[h].count);
  }
  return best_of((Best){(V)veven((VM)v[0], (VM)v[1]), (TI)down - (VM){0}},
                 (Best){(V)vodd((VM)v[0], (VM)v[1]), (TI)(down + 1) - (VM){0}});
}
/* end: of x; last: the end of the outputs */
INLINE void max_units(const job *j, const unit *u, const T *end, int64_t last) {
  typedef struct { T value[HALF]; } half;
  const Best best = best_of(best_of_row(u, 0, end), best_of_row(u, j->s.in[2], end));
  UNROLL
  for (int h = 0; h < 2; h++) {
    T *y = j->y + u[h].to;
    int64_t *index = j->index + u[h].to;
    const int count = u[h].to + HALF <= last ? HALF : u[h].count;
    if (count == HALF) {
      memcpy(y, (const char *)&best.value + h * sizeof(half), sizeof(half));
      for (int l = 0; l < HALF; l++) index[l] = u[h].at + 2 * l + best.at[h * HALF + l];
    } else {
      for (int l = 0; l < count; l++) y[l] = best.value[h * HALF + l];
      for (int l = 0; l < count; l++) index[l] = u[h].at + 2 * l + best.at[h * HALF + l];
    }
  }
}

static void max_twos(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  const shapes s = j->s;
  const int64_t size = volume(s.in), last = end * volume(s.out);
  const T *x = j->x + begin * size, *x_end = j->x + s.planes * size;
  for (int64_t to = begin * volume(s.out), a = 0, b = 0, o = 0; to < last;) {
    unit u[2] = {{0}, {x_end, 0, last, 0}};
    for (int h = 0; h < 2 && to < last; h++) {
      const int64_t at = (a * s.in[1] + 2 * b) * s.in[2] + 2 * o;
      u[h] = (unit){x + at, at, to, (int)MIN(HALF, s.out[2] - o)};
      to += u[h].count;
      if ((o += HALF) < s.out[2]) continue;
      o = 0;
      if (++b < s.out[1]) continue;
      b = 0;
      if (++a == s.out[0]) a = 0, x += size;
    }
    max_units(j, u, x_end, last);
  }
}

static void max_planes(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  const shapes s = j->s;
  const int64_t width = s.in[2], size = volume(s.in), columns = s.out[2], stride = s.stride[2];
  const int64_t reach = s.dilation[2] * (s.kernel[2] - 1) + 1, room = width + 2 * VL;   /* as far as max_vector reads */
  const joined of = {mg_scratch(0, (size_t)room * sizeof(T)), mg_scratch(1, (size_t)room * sizeof(TI))};
  T *y = j->y + begin * volume(s.out);
  int64_t *index = j->index + begin * volume(s.out);
  table *t = tables();
  if (!of.best || !of.origin || !t) return;
  /* outputs [first, last) have whole windows and go in vectors; none, if the windows are adaptive or far apart */
  int64_t first = 0, last = 0;
  if (s.kernel[2] && (stride == 1 || stride == 2) && width + s.padding[2] >= reach) {
    first = (s.padding[2] + stride - 1) / stride;
    last = MIN(columns, (width + s.padding[2] - reach) / stride + 1);
    if (last <= first) first = last = 0;
  }
  for (int64_t p = begin; p < end; p++)
    for (int64_t a = 0; a < s.out[0]; a++)
      for (int64_t b = 0; b < s.out[1]; b++, y += columns, index += columns) {
        const int64_t at_a = place(t, &s, 0, a), at_b = place(t, &s, 1, b);
        const span deep = {t[0].begin[at_a], t[0].end[at_a]}, high = {t[1].begin[at_b], t[1].end[at_b]};
        if (deep.begin >= deep.end || high.begin >= high.end) {
          for (int64_t o = 0; o < columns; o++) y[o] = -INFINITY, index[o] = -1;
          continue;
        }
        join_rows(&of, &s, j->x + p * size, deep, high);
        max_columns(y, index, &of, &s, t, 0, first);
        for (int64_t o = first; o < last; o += VL) {
          const int64_t c = o * stride - s.padding[2];
          const int n = (int)MIN(VL, last - o);
          if (stride == 2) max_vector(y + o, index + o, &of, &s, c, 2, n);
          else max_vector(y + o, index + o, &of, &s, c, 1, n);
        }
        max_columns(y, index, &of, &s, t, last, columns);
      }
}

void FN(max_pool_forward)(T *y, int64_t *index, const T *x, const int64_t *geometry) {
  job j = job_of(geometry);
  j.y = y;
  j.x = x;
  j.index = index;
  over_planes(&j, twos(&j.s) ? max_twos : max_planes);
}

/* Followers are told (mg_written) of planes [told, p] of gx, n elements each, unless the next one fits into the piece,
 * too, and is one of [begin, end). Returns the next plane to tell of. Pieces of 2048: 1.2 of the time of 784 each. */
INLINE int64_t told_of(const T *gx, int64_t told, int64_t p, int64_t n, int64_t end) {
  if ((p + 2 - told) * n <= 1024 && p + 1 < end) return told;
  mg_written(gx + told * n, (p + 1 - told) * n);
  return p + 1;
}

/* No element is in two windows. */
static int are_apart(const shapes *s) {
  int apart = 1;
  for (int d = 0; d < 3; d++) apart &= s->kernel[d] && s->dilation[d] * (s->kernel[d] - 1) < s->stride[d];
  return apart;
}

static void max_back(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  const int64_t in = volume(j->s.in), out = volume(j->s.out);
  const int apart = are_apart(&j->s);                  /* then no sum is read back */
  for (int64_t p = begin, told = begin; p < end; p++) {
    T *gx = j->y + p * in;
    memset(gx, 0, (size_t)in * sizeof(T));
    for (int64_t o = p * out; o < (p + 1) * out; o++) {
      const int64_t i = *(const volatile int64_t *)(j->from + o);
      /* -1 without elements; and the caller has the indices too, and may have written to them */
      if (i >= 0 && i < in) gx[i] = (apart ? 0 : gx[i]) + j->x[o];
    }
    told = told_of(j->y, told, p, in, end);
  }
}

void FN(max_pool_backward)(T *gx, const T *g, const int64_t *index, const int64_t *geometry) {
  job j = job_of(geometry);
  j.y = gx;
  j.x = g;
  j.from = index;
  over_planes(&j, max_back);
}

/* Sums of at most 32 rows, or vectors of columns, are added up apart, which bounds the error of large windows. */
INLINE double sum_of(const T *x, int64_t n) {
  double sum = 0;
  while (n > 0) {
    V part = vzero();
    const T *stop = x + MIN(n, 32 * VL);
    n -= stop - x;
    for (; x + VL <= stop; x += VL) part += vload(x);
    if (x < stop) part += vload_n(x, (int)(stop - x));
    x = stop;
    sum += vsum(part);
  }
  return sum;
}

/* If each plane is one window (a mean over the image), the number that its sum is divided by; else 0. */
static double whole(const shapes *s, table *t) {
  double divisor = 1;
  for (int d = 0; d < 3; d++) {
    if (s->out[d] != 1 || s->dilation[d] != 1) return 0;
    place(t, s, d, 0);
    if (t[d].begin[0] != 0 || t[d].end[0] != s->in[d]) return 0;
    divisor *= t[d].size[0];
  }
  return divisor;
}

static void avg_planes(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  const shapes s = j->s;
  int64_t width = s.in[2], size = volume(s.in), columns = s.out[2];
  T *sums = mg_scratch(0, (size_t)(width + VL) * sizeof(T)), *y = j->y + begin * volume(s.out);
  table *t = tables(), *wide = t + 2;
  if (!sums || !t) return;
  const double divisor = whole(&s, t);
  for (int64_t p = begin; divisor && p < end; p++) *y++ = (T)(sum_of(j->x + p * size, size) / divisor);
  for (int64_t p = begin; !divisor && p < end; p++)
    for (int64_t a = 0; a < s.out[0]; a++)
      for (int64_t b = 0; b < s.out[1]; b++, y += columns) {
        const T *x = j->x + p * size;
        const int64_t at_a = place(t, &s, 0, a), at_b = place(t, &s, 1, b);
        const span deep = {t[0].begin[at_a], t[0].end[at_a]}, high = {t[1].begin[at_b], t[1].end[at_b]};
        const double outer = t[0].size[at_a] * t[1].size[at_b];
        for (int64_t c = 0; c < width; c += VL) {
          int n = (int)MIN(width - c, VL), rows = 0;
          V total = vzero(), sum = vzero();
          ROWS_OF(s, deep, high, z, row) {
            sum += n == VL ? vload(x + row * width + c) : vload_n(x + row * width + c, n);
            if (++rows == 32) {
              total += sum;
              sum = vzero();
              rows = 0;
            }
          }
          vstore(sums + c, total + sum);
        }
        EACH_COLUMN(o, first) {
          const int64_t c = wide->begin[o - first];
          y[o] = (T)(sum_of(sums + c, wide->end[o - first] - c) / (outer * wide->size[o - first]));
        }
      }
}

void FN(avg_pool_forward)(T *y, const T *x, const int64_t *geometry) {
  job j = job_of(geometry);
  j.y = y;
  j.x = x;
  over_planes(&j, avg_planes);
}

static void avg_back(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  const shapes s = j->s;
  int64_t width = s.in[2], size = volume(s.in), columns = s.out[2];
  T *line = mg_scratch(0, (size_t)(width + VL) * sizeof(T));
  const T *g = j->x + begin * volume(s.out);
  table *t = tables(), *wide = t + 2;
  if (!line || !t) return;
  const double divisor = whole(&s, t);
  int64_t told = begin;
  for (int64_t p = begin; divisor && p < end; p++) {
    const T share = *g++ / (T)divisor;
    T *gx = j->y + p * size;
    int64_t c = 0;
    for (; c + VL <= size; c += VL) vstore(gx + c, vset(share));
    vstore_n(gx + c, vset(share), (int)(size - c));
    told = told_of(j->y, told, p, size, end);
  }
  for (int64_t p = begin; !divisor && p < end; p++) {
    T *gx = j->y + p * size;
    memset(gx, 0, (size_t)size * sizeof(T));
    for (int64_t a = 0; a < s.out[0]; a++)
      for (int64_t b = 0; b < s.out[1]; b++, g += columns) {
        const int64_t at_a = place(t, &s, 0, a), at_b = place(t, &s, 1, b);
        const span deep = {t[0].begin[at_a], t[0].end[at_a]}, high = {t[1].begin[at_b], t[1].end[at_b]};
        const double outer = t[0].size[at_a] * t[1].size[at_b];
        memset(line, 0, (size_t)(width + VL) * sizeof(T));
        EACH_COLUMN(o, first) {
          const T share = g[o] / (T)(outer * wide->size[o - first]);
          for (int64_t c = wide->begin[o - first]; c < wide->end[o - first]; c++) line[c] += share;
        }
        ROWS_OF(s, deep, high, z, row) {
          T *to = gx + row * width;
          int64_t c = 0;
          for (; c + VL <= width; c += VL) vstore(to + c, vload(to + c) + vload(line + c));
          if (c < width) vstore_n(to + c, vload_n(to + c, (int)(width - c)) + vload(line + c), (int)(width - c));
        }
      }
    told = told_of(j->y, told, p, size, end);
  }
}

void FN(avg_pool_backward)(T *gx, const T *g, const int64_t *geometry) {
  job j = job_of(geometry);
  j.y = gx;
  j.x = g;
  over_planes(&j, avg_back);
}
