/* types: f32 f64 */
/* Pooling over windows of one to three spatial dimensions: the largest element of each with its index, or the mean.
 *
 *   x [planes, in]   y [planes, out]   in, out: 3 sizes, leading 1s
 *
 * `windows` is { planes, in[3], out[3], dilation[3], then for each dimension and each of its outputs: begin, end }: the
 * window of output o holds, in each dimension, begin, begin + dilation, ... below end, all inside x. Strided, padded,
 * ceiled, dilated and adaptive windows are all of this form. So kernels need not know the padding; the divisors of a
 * mean come in a table. The plain loops, for a plane and an output:
 *
 *   max_pool_forward    best = its first element; for each other one in order: if it is > best or NaN, it is the best
 *   max_pool_backward   gx[index[o]] += g[o]
 *   avg_pool_forward    y[o] = (sum of the window) / divisor[o]
 *   avg_pool_backward   gx[i] += g[o] / divisor[o] for each i of the window
 *
 * The fast ones work in two steps: the rows of a window are joined first, for all columns at once in vectors, then the
 * columns of each window in the resulting row. In the order of the index the first of equal elements wins, but the last
 * NaN: of equal columns, the one from the upper row (for NaN from the lower).
 */
#include "simd.h"

#include "runtime.h"

#define ELEMENTS_PER_THREAD 16384                      /* elements of x for a thread at a time */

typedef struct { int64_t planes, in[3], out[3], dilation[3]; } shapes;

typedef struct {
  shapes s;
  const int64_t *span[3];                /* begin, end of each output */
  T *y;
  const T *x, *divisor;
  int64_t *index;
  const int64_t *from;
} job;

static job job_of(const int64_t *windows) {
  job j = {0};
  memcpy(&j.s, windows, sizeof j.s);
  const int64_t *at = windows + sizeof j.s / sizeof *at;
  for (int d = 0; d < 3; at += 2 * j.s.out[d], d++) j.span[d] = at;
  return j;
}

static int64_t volume(const int64_t *size) { return size[0] * size[1] * size[2]; }

static void over_planes(job *j, void (*run)(void *, int64_t, int64_t)) {
  mg_parallel(j->s.planes, MAX(ELEMENTS_PER_THREAD / MAX(volume(j->s.in), 1), 1), run, j);
}

/* For each output row and plane, `top` a window of rows: for (z) for (row) in order. */
#define ROWS_OF(j, a, b, z, row) \
  for (int64_t z = (j)->span[0][2 * (a)]; z < (j)->span[0][2 * (a) + 1]; z += (j)->s.dilation[0]) \
    for (int64_t row = z * (j)->s.in[1] + (j)->span[1][2 * (b)], \
                 row##_end = z * (j)->s.in[1] + (j)->span[1][2 * (b) + 1]; \
         row < row##_end; row += (j)->s.dilation[1])

static void max_planes(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  int64_t width = j->s.in[2], size = volume(j->s.in), columns = j->s.out[2], step = j->s.dilation[2],
          padded = width + VL;
  T *best = mg_scratch(0, (size_t)padded * sizeof(T));
  TI *origin = mg_scratch(1, (size_t)padded * sizeof(TI));
  T *y = j->y + begin * volume(j->s.out);
  int64_t *index = j->index + begin * volume(j->s.out);
  for (int64_t p = begin; p < end; p++)
    for (int64_t a = 0; a < j->s.out[0]; a++)
      for (int64_t b = 0; b < j->s.out[1]; b++, y += columns, index += columns) {
        const T *x = j->x + p * size;
        /* the rows of the window joined; origin: which row a column is from */
        for (int64_t c = 0; c < width; c += VL) {
          int n = (int)MIN(width - c, VL), first = 1;
          V top = vzero();
          VM from = {0};
          ROWS_OF(j, a, b, z, row) {
            V v = n == VL ? vload(x + row * width + c) : vload_n(x + row * width + c, n);
            VM better = first ? ~(VM){0} : (v > top) | (v != v);
            top = vselect(better, v, top);
            from = (better & ((TI)row - (VM){0})) | (~better & from);
            first = 0;
          }
          vstore(best + c, top);
          memcpy(origin + c, &from, sizeof from);
        }
        for (int64_t o = 0; o < columns; o++) {
          int64_t c = j->span[2][2 * o], last = j->span[2][2 * o + 1], at = c;
          T top = best[c];
          for (c += step; c < last; c += step) {
            T v = best[c];
            int better =
                v > top || (v == top && origin[c] < origin[at]) || (v != v && (top == top || origin[c] >= origin[at]));
            top = better ? v : top;
            at = better ? c : at;
          }
          y[o] = top;
          index[o] = (int64_t)origin[at] * width + at;
        }
      }
}

void FN(max_pool_forward)(T *y, int64_t *index, const T *x, const int64_t *windows) {
  job j = job_of(windows);
  j.y = y;
  j.x = x;
  j.index = index;
  over_planes(&j, max_planes);
}

static void max_back(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  int64_t in = volume(j->s.in), out = volume(j->s.out);
  for (int64_t p = begin; p < end; p++) {
    T *gx = j->y + p * in;
    memset(gx, 0, (size_t)in * sizeof(T));
    for (int64_t o = 0; o < out; o++) {
      const int64_t i = j->from[p * out + o];
      /* the caller has the indices too, and may have written to them */
      if (i >= 0 && i < in) gx[i] += j->x[p * out + o];
    }
  }
}

void FN(max_pool_backward)(T *gx, const T *g, const int64_t *index, const int64_t *windows) {
  job j = job_of(windows);
  j.y = gx;
  j.x = g;
  j.from = index;
  over_planes(&j, max_back);
}

/* Sums of at most 32 rows, or vectors of columns, are added up apart, which bounds the error of large windows. */
static void avg_planes(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  int64_t width = j->s.in[2], size = volume(j->s.in), columns = j->s.out[2];
  T *sums = mg_scratch(0, (size_t)(width + VL) * sizeof(T)), *y = j->y + begin * volume(j->s.out);
  for (int64_t p = begin; p < end; p++) {
    const T *divisor = j->divisor;
    for (int64_t a = 0; a < j->s.out[0]; a++)
      for (int64_t b = 0; b < j->s.out[1]; b++, y += columns, divisor += columns) {
        const T *x = j->x + p * size;
        for (int64_t c = 0; c < width; c += VL) {
          int n = (int)MIN(width - c, VL), rows = 0;
          V total = vzero(), sum = vzero();
          ROWS_OF(j, a, b, z, row) {
            sum += n == VL ? vload(x + row * width + c) : vload_n(x + row * width + c, n);
            if (++rows == 32) {
              total += sum;
              sum = vzero();
              rows = 0;
            }
          }
          vstore(sums + c, total + sum);
        }
        for (int64_t o = 0; o < columns; o++) {
          int64_t c = j->span[2][2 * o], last = j->span[2][2 * o + 1];
          double sum = 0;
          while (last - c >= VL) {
            V part = vzero();
            for (int64_t stop = MIN(last, c + 32 * VL); c + VL <= stop; c += VL) part += vload(sums + c);
            sum += vsum(part);
          }
          for (; c < last; c++) sum += sums[c];
          y[o] = (T)(sum / divisor[o]);
        }
      }
  }
}

/* divisor [out] */
void FN(avg_pool_forward)(T *y, const T *x, const T *divisor, const int64_t *windows) {
  job j = job_of(windows);
  j.y = y;
  j.x = x;
  j.divisor = divisor;
  over_planes(&j, avg_planes);
}

static void avg_back(void *context, int64_t begin, int64_t end) {
  const job *j = context;
  int64_t width = j->s.in[2], size = volume(j->s.in), columns = j->s.out[2];
  T *line = mg_scratch(0, (size_t)(width + VL) * sizeof(T));
  const T *g = j->x + begin * volume(j->s.out);
  for (int64_t p = begin; p < end; p++) {
    T *gx = j->y + p * size;
    const T *divisor = j->divisor;
    memset(gx, 0, (size_t)size * sizeof(T));
    for (int64_t a = 0; a < j->s.out[0]; a++)
      for (int64_t b = 0; b < j->s.out[1]; b++, g += columns, divisor += columns) {
        memset(line, 0, (size_t)(width + VL) * sizeof(T));
        for (int64_t o = 0; o < columns; o++) {
          T share = g[o] / divisor[o];
          for (int64_t c = j->span[2][2 * o]; c < j->span[2][2 * o + 1]; c++) line[c] += share;
        }
        ROWS_OF(j, a, b, z, row) {
          T *to = gx + row * width;
          int64_t c = 0;
          for (; c + VL <= width; c += VL) vstore(to + c, vload(to + c) + vload(line + c));
          if (c < width) vstore_n(to + c, vload_n(to + c, (int)(width - c)) + vload(line + c), (int)(width - c));
        }
      }
  }
}

void FN(avg_pool_backward)(T *gx, const T *g, const T *divisor, const int64_t *windows) {
  job j = job_of(windows);
  j.y = gx;
  j.x = g;
  j.divisor = divisor;
  over_planes(&j, avg_back);
}
