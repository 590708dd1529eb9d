/* types: f32 f64 i32 i64 u8 u16 */
/* Indexing along the middle axis of [outer, n, inner]: take and gather read, scatter writes, index_add and scatter_add
 * add. The plain loops are these lines for all o, j and i, in order:
 *
 *   take      out[o, j, i] = x[o, index[j], i]         index_add     out[o, index[j], i] += src[o, j, i]
 *   gather    out[o, j, i] = x[o, index[o, j, i], i]   scatter_add   out[o, index[o, j, i], i] += src[o, j, i]
 *                                                      scatter       out[o, index[o, j, i], i]  = src[o, j, i]
 *
 * Indices are int64 in [0, n): check_index ran before, for the message. Each kernel tests what it reads again, because
 * another thread may have written to the index since: it ends in a failure, not in foreign memory. An embedding is a
 * take, its gradient an index_add.
 *
 * The readers divide the rows (o, j) of the output among threads, in any order. The writers may not: the same place may
 * be written twice, and then the order of j counts, for the bits of a sum as well as for the value that a scatter
 * leaves. So their piece of work is a strip of the inner axis of one o, and within it j runs in order.
 *
 * take, gather and scatter are compiled for the integers of each item size, whatever the dtype; the two others for
 * numbers. */
#include "runtime.h"
#include "simd.h"

/* elements of a row that are written at a time; elements below which a second thread does not pay */
enum { COLUMNS_AT_ONCE = 256, ELEMENTS_PER_THREAD = 1 << 15 };

typedef struct {
  T *out;
  const T *x;
  const int64_t *index;
  int64_t m, n, inner;                       /* x has n places and out has m, or (scatter) the reverse */
} Job;

/* i: the index at `place`, read once. The enclosing function returns if it is not in [0, n). */
#define INDEX(i, place) \
  const int64_t i = *(const volatile int64_t *)(place); \
  if (__builtin_expect((uint64_t)i >= (uint64_t)n, 0)) { \
    mg_fail(MG_BAD_INDEX, i, n); \
    return; \
  }

static int64_t grain(int64_t work) {
  return work >= ELEMENTS_PER_THREAD ? 1 : ELEMENTS_PER_THREAD / (work > 0 ? work : 1);
}

#if !IS_REAL
/* ---- readers ---- */

static void take_piece(void *context, int64_t begin, int64_t end) {
  const Job *job = context;
  const int64_t m = job->m, n = job->n, inner = job->inner;
  for (int64_t u = begin; u < end;) {
    const T *x = job->x + u / m * job->n * inner;
    const int64_t j = u % m, count = end - u < m - j ? end - u : m - j;
    const int64_t *index = job->index + j;
    T *out = job->out + u * inner;
    if (inner == 1) {
      for (int64_t k = 0; k < count; k++) {
        INDEX(i, index + k)
        out[k] = x[i];
      }
    } else {
      for (int64_t k = 0; k < count; k++) {
        INDEX(i, index + k)
        memcpy(out + k * inner, x + i * inner, (size_t)inner * sizeof(T));
      }
    }
    u += count;
  }
}

static void gather_piece(void *context, int64_t begin, int64_t end) {
  const Job *job = context;
  const int64_t m = job->m, n = job->n, inner = job->inner;
  for (int64_t u = begin; u < end;) {
    const T *x = job->x + u / m * job->n * inner;
    const int64_t j = u % m, count = end - u < m - j ? end - u : m - j;
    const int64_t *index = job->index + u * inner;
    T *out = job->out + u * inner;
    if (inner == 1) {
      for (int64_t k = 0; k < count; k++) {
        INDEX(at, index + k)
        out[k] = x[at];
      }
    } else {
      for (int64_t k = 0; k < count; k++, index += inner, out += inner)
        for (int64_t i = 0; i < inner; i++) {
          INDEX(at, index + i)
          out[i] = x[at * inner + i];
        }
    }
    u += count;
  }
}

#define READER(name) \
  void FN(name)(T *out, const T *x, const int64_t *index, int64_t outer, int64_t m, int64_t n, int64_t inner) { \
    Job job = {out, x, index, m, n, inner}; \
    if (m > 0 && inner > 0) mg_parallel(outer * m, grain(inner), name##_piece, &job); \
  }
READER(take)
READER(gather)
#endif

/* ---- writers: piece u is strip u % strips of o = u / strips ---- */
/* `own`: each element of src has an index of its own (scatter, scatter_add), not each row */

#define WRITER(name, own, assign) \
  static void name##_piece(void *context, int64_t begin, int64_t end) { \
    const Job *job = context; \
    const int64_t m = job->m, n = job->n, inner = job->inner, \
                  strips = (inner + COLUMNS_AT_ONCE - 1) / COLUMNS_AT_ONCE; \
    for (int64_t u = begin; u < end; u++) { \
      const int64_t o = u / strips, first = u % strips * COLUMNS_AT_ONCE, \
                    width = inner - first < COLUMNS_AT_ONCE ? inner - first : COLUMNS_AT_ONCE; \
      T *out = job->out + o * job->n * inner + first; \
      const T *src = job->x + o * m * inner + first; \
      const int64_t *index = own ? job->index + o * m * inner + first : job->index; \
      if (inner == 1) { \
        for (int64_t j = 0; j < m; j++) { \
          INDEX(at, index + j) \
          assign(out[at], src[j]); \
        } \
      } else if (own) { \
        for (int64_t j = 0; j < m; j++, src += inner, index += inner) \
          for (int64_t i = 0; i < width; i++) { \
            INDEX(at, index + i) \
            assign(out[at * inner + i], src[i]); \
          } \
      } else { \
        for (int64_t j = 0; j < m; j++, src += inner) { \
          INDEX(at, index + j) \
          T *to = out + at * inner; \
          INDEPENDENT \
          for (int64_t i = 0; i < width; i++) assign(to[i], src[i]); \
        } \
      } \
    } \
  } \
  void FN(name)(T *out, const int64_t *index, const T *src, int64_t outer, int64_t m, int64_t n, int64_t inner) { \
    Job job = {out, src, index, m, n, inner}; \
    if (m > 0 && inner > 0) \
      mg_parallel(outer * ((inner + COLUMNS_AT_ONCE - 1) / COLUMNS_AT_ONCE), \
                  grain(m * (inner < COLUMNS_AT_ONCE ? inner : COLUMNS_AT_ONCE)), name##_piece, &job); \
  }

#if IS_REAL
#define SUM(to, value) to += value
#elif TYPE_IS == 3
#define SUM(to, value) to = (T)((uint32_t)to + (uint32_t)(value))      /* unsigned: wraps around */
#elif TYPE_IS == 4
#define SUM(to, value) to = (T)((uint64_t)to + (uint64_t)(value))
#endif
#ifdef SUM
WRITER(index_add, 0, SUM)
WRITER(scatter_add, 1, SUM)
#endif
#if !IS_REAL
#define SET(to, value) to = value
WRITER(scatter, 1, SET)
#endif

/* ---- ONCE: the indices themselves, in the int64 build ---- */

#if TYPE_IS == 4
/* One unsigned comparison tests both bounds. The lowest level has none for vectors of int64, so that a stretch is tested
 * by signs first: i - low or high - 1 - i is negative where i is outside, also if the other wraps around. A stretch is
 * searched only if it holds a wrong index, or one that is ignored. */
void check_index(int64_t *out, int64_t *flag, const int64_t *index, int64_t n, int64_t low, int64_t high,
                 int64_t ignore, int64_t number) {
  const uint64_t base = (uint64_t)low, size = (uint64_t)high - base, last = (uint64_t)high - 1;
#define WRONG(i) (((uint64_t)(i) - base >= size) & ((i) != ignore))
  int64_t k = 0;
  for (; k + 256 <= n; k += 256) {
    uint64_t signs = 0, found = 0;
    for (int64_t l = 0; l < 256; l++) signs |= ((uint64_t)index[k + l] - base) | (last - (uint64_t)index[k + l]);
    for (int64_t l = 0; (int64_t)signs < 0 && l < 256; l++) found |= WRONG(index[k + l]);
    if (found) break;
  }
  while (k < n && !WRONG(index[k])) k++;
  if (k < n && flag && !flag[0]) flag[1] = index[k], flag[0] = number;
  for (k = 0; out && k < n; k++) {
    const int64_t i = index[k];
    out[k] = WRONG(i) ? 0 : i >= low && i < 0 ? i + high : i;
  }
#undef WRONG
}
#endif
