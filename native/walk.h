/* The loops of elementwise kernels over N-d operands. A kernel is written as a *span*, a loop over contiguous elements;
 * walk() brings any layout into that form by a plan (minigrad.h). The plain loop unravels the index of each element;
 * this one does it once for a row or a chunk:
 *
 *   flat     all operands contiguous: the span runs over the memory as it is (the common case, without any set-up);
 *   rows     long inner dimension: one span per row; an operand whose inner stride is 0 or not 1 is first gathered
 *            into a small buffer in L1, a strided output is written there and scattered;
 *   chunks   short inner dimension: a span takes several rows at once. Operands that are contiguous as a whole stay
 *            where they are; the others are gathered. What is constant over the outer dimensions (a bias row, a
 *            scalar) is gathered once and used for all chunks, so x[m, n] + b[n] runs as fast as x + y;
 *   strips   a large operand is transposed: the inner dimension is cut into strips of WALK_STRIP, walked in chunks, so
 *            that each cache line of the transposed operand is read once and whole.
 *
 * Elementwise work has no order, so threads split the output's linear index wherever it suits.
 *
 * These loops move bytes, whatever the element type. walk.c compiles them once for each SIMD level: it includes this
 * file with WALK_LOOPS, and other files call them. (In 16 copies they were a twentieth of the wheel.) A kernel from
 * outside the tree has a copy of its own: foreign.h. */
#ifndef MINIGRAD_WALK_H
#define MINIGRAD_WALK_H

#include <stdint.h>
#include <string.h>

#include "runtime.h"

#define WALK_OPERANDS 4
#define WALK_DIMS 64
#define WALK_CHUNK 512                    /* elements of a buffer: 4 operands of 8 bytes fit the smallest L1 twice */
#define WALK_ROW 128                      /* from this length on a row is a span of its own */
#define WALK_STRIP 32                     /* columns; a chunk is then WALK_CHUNK / WALK_STRIP = 16 rows of them */
#define WALK_TOLD 2048           /* elements of a contiguous output after which followers are told (runtime.h) */
#define WALK_LIGHT 16384                  /* elements of a piece of work for a thread: arithmetic */
#define WALK_HEAVY 2048                   /* ... and for functions that cost several ns per element */

/* n contiguous elements: out[i] = f(in[0][i], in[1][i], ...; scalars). A null span copies in[0]. */
typedef void walk_span(void *out, const void *const *in, int64_t n, const double *scalars);

typedef struct {
  const int64_t *plan;
  walk_span *span;
  const double *scalars;
  int operands;                           /* operand 0 is the output */
  int size[WALK_OPERANDS];                /* bytes of an element */
  char *p[WALK_OPERANDS];
} Walk;

/* One name for each level, whatever the element type */
#define walk MG_CAT2(walk_, MG_LEVEL)
#define walk_turn MG_CAT2(walk_turn_, MG_LEVEL)

/* Walks `operands` operands (output first); piece: WALK_LIGHT or WALK_HEAVY. Up to 4 pieces stay on the calling
 * thread. */
void walk(const Walk *w, int64_t piece);
/* Transposition: to[i * pitch + j] = from[j * stride + i] */
void walk_turn(void *to, int64_t pitch, const void *from, int64_t stride, int64_t rows, int64_t columns, int size);

#ifdef WALK_LOOPS

static inline void walk_run(const Walk *w, char *const *p, int64_t n) {
  if (w->span) w->span(p[0], (const void *const *)(p + 1), n, w->scalars);
  else if (p[0] != p[1]) memcpy(p[0], p[1], (size_t)(n * w->size[0]));
}

static inline void walk_flat(void *context, int64_t begin, int64_t end) {
  const Walk *w = context;
  const int64_t told = mg_is_followed() ? WALK_TOLD : end - begin;
  char *p[WALK_OPERANDS] = {0};
  for (int64_t n; begin < end; begin += n) {
    n = end - begin < told ? end - begin : told;
    for (int o = 0; o < w->operands; o++) p[o] = w->p[o] + begin * w->size[o];
    walk_run(w, p, n);
    mg_written(p[0], n);
  }
}

typedef uint8_t walk_u8;
typedef uint16_t __attribute__((may_alias)) walk_u16;
typedef uint32_t __attribute__((may_alias)) walk_u32;
typedef uint64_t __attribute__((may_alias)) walk_u64;
#define WALK_MOVE(type) {                                                                       \
    const type *s = from;                                                                       \
    type *d = to;                                                                               \
    if (from_stride == 0 && to_stride == 1) {                                                   \
      const type value = *s;                                                                    \
      for (int64_t i = 0; i < n; i++) d[i] = value;                                             \
    } else if (from_stride == -1 && to_stride == 1) {                                           \
      for (int64_t i = 0; i < n; i++) d[i] = s[-i];                                             \
    } else {                                                                                    \
      for (int64_t i = 0; i < n; i++) d[i * to_stride] = s[i * from_stride];                    \
    }                                                                                           \
  }
static inline __attribute__((always_inline)) void walk_move_row(void *to, int64_t to_stride, const void *from,
                                                                int64_t from_stride, int64_t n, int size) {
  if (to_stride == 1 && from_stride == 1 && n >= 16) memcpy(to, from, (size_t)(n * size));
  else if (size == 1) WALK_MOVE(walk_u8)
  else if (size == 2) WALK_MOVE(walk_u16)
  else if (size == 4) WALK_MOVE(walk_u32)
  else WALK_MOVE(walk_u64)
}
#undef WALK_MOVE

/* The transposition, in squares of WALK_TILE x WALK_TILE: their lines are read once and whole, turned in L1 and written
 * whole. */
#define WALK_TILE 16
#define WALK_TURN(type) \
  static inline void walk_turn_##type(type *to, int64_t pitch, const type *from, int64_t stride, int64_t rows, \
                                      int64_t columns) { \
    for (int64_t j0 = 0; j0 < columns; j0 += WALK_TILE) \
      for (int64_t i0 = 0; i0 < rows; i0 += WALK_TILE) { \
        const int64_t n = columns - j0 < WALK_TILE ? columns - j0 : WALK_TILE; \
        const int64_t m = rows - i0 < WALK_TILE ? rows - i0 : WALK_TILE; \
        const type *s = from + j0 * stride + i0; \
        type *d = to + i0 * pitch + j0; \
        if (m == WALK_TILE && n == WALK_TILE) { \
          type square[WALK_TILE][WALK_TILE]; \
          for (int j = 0; j < WALK_TILE; j++) memcpy(square[j], s + j * stride, sizeof square[j]); \
          for (int i = 0; i < WALK_TILE; i++) \
            for (int j = 0; j < WALK_TILE; j++) d[i * pitch + j] = square[j][i]; \
        } else { \
          for (int64_t i = 0; i < m; i++) \
            for (int64_t j = 0; j < n; j++) d[i * pitch + j] = s[j * stride + i]; \
        } \
      } \
  }
WALK_TURN(walk_u8)
WALK_TURN(walk_u16)
WALK_TURN(walk_u32)
WALK_TURN(walk_u64)
#undef WALK_TURN
void walk_turn(void *to, int64_t pitch, const void *from, int64_t stride, int64_t rows, int64_t columns, int size) {
  if (size == 1) walk_turn_walk_u8(to, pitch, from, stride, rows, columns);
  else if (size == 2) walk_turn_walk_u16(to, pitch, from, stride, rows, columns);
  else if (size == 4) walk_turn_walk_u32(to, pitch, from, stride, rows, columns);
  else walk_turn_walk_u64(to, pitch, from, stride, rows, columns);
}

/* n elements of an operand from `index` on, to (gather) or from (scatter) contiguous memory. */
static __attribute__((noinline)) void walk_move(char *contiguous, char *strided, int scatter, const Walk *w,
                                                const int64_t *stride, const int64_t *index, int64_t n, int size) {
  const int64_t *shape = w->plan + 2;
  int last = (int)w->plan[0] - 1;
  int64_t at[WALK_DIMS], inner = stride[last];
  if (!scatter && last > 0 && stride[last - 1] == 1 && inner != 1 && inner != 0 && index[last] == 0 &&
      n > shape[last] && n % shape[last] == 0 && index[last - 1] + n / shape[last] <= shape[last - 1]) {
    walk_turn(contiguous, shape[last], strided, inner, n / shape[last], shape[last], size);
    return;
  }
  memcpy(at, index, (size_t)(last + 1) * sizeof *at);
  while (n > 0) {
    int64_t run = shape[last] - at[last] < n ? shape[last] - at[last] : n;
    if (scatter) walk_move_row(strided, inner, contiguous, 1, run, size);
    else walk_move_row(contiguous, 1, strided, inner, run, size);
    n -= run;
    contiguous += run * size;
    strided -= at[last] * inner * size;
    at[last] = 0;
    for (int d = last - 1; d >= 0; d--) {
      strided += stride[d] * size;
      if (++at[d] < shape[d]) break;
      strided -= shape[d] * stride[d] * size;
      at[d] = 0;
    }
  }
}

static inline void walk_strided(void *context, int64_t begin, int64_t end) {
  const Walk *w = context;
  int ndim = (int)w->plan[0], last = ndim - 1;
  const int64_t *shape = w->plan + 2, inner = shape[last];
  const int rows = inner >= WALK_ROW;     /* else chunks */
  _Alignas(64) char buffer[WALK_OPERANDS][WALK_CHUNK * 8];
  int direct[WALK_OPERANDS], constant[WALK_OPERANDS], buffered = 0;
  int64_t index[WALK_DIMS], filled[WALK_OPERANDS] = {0};
  char *p[WALK_OPERANDS], *filled_from[WALK_OPERANDS] = {0};

  int contiguous = 1;                     /* the output as a whole */
  int64_t rest = begin, told = begin;
  for (int d = last; d >= 0; d--) { index[d] = rest % shape[d]; rest /= shape[d]; }
  for (int o = 0; o < w->operands; o++) {
    const int64_t *stride = shape + ndim * (o + 1);
    int64_t whole = 1, at = 0;
    direct[o] = rows ? stride[last] == 1 : 1;
    constant[o] = 1;
    for (int d = last; d >= 0; d--) {
      if (!rows && shape[d] > 1 && stride[d] != whole) direct[o] = 0;
      if (o == 0 && shape[d] > 1 && stride[d] != whole) contiguous = 0;
      if (d < last && stride[d] != 0) constant[o] = 0;
      whole *= shape[d];
      at += index[d] * stride[d];
    }
    p[o] = w->p[o] + at * w->size[o];
    buffered |= !direct[o];
  }

  while (begin < end) {
    int64_t n = end - begin, limit = inner - index[last];
    if (!rows) limit += (WALK_CHUNK / inner - 1) * inner;            /* up to the end of a row */
    else if (buffered && limit > WALK_CHUNK) limit = WALK_CHUNK;
    if (n > limit) n = limit;
    char *q[WALK_OPERANDS] = {0};
    for (int o = 0; o < w->operands; o++) {
      const int64_t *stride = shape + ndim * (o + 1);
      q[o] = direct[o] ? p[o] : buffer[o];
      if (direct[o] || o == 0) continue;
      if (constant[o] && filled_from[o] == p[o] && filled[o] >= n) continue;
      if (!w->span && direct[0]) q[o] = q[0];                        /* a copy needs no stop on the way */
      walk_move(q[o], p[o], 0, w, stride, index, n, w->size[o]);
      filled_from[o] = q[o] == buffer[o] ? p[o] : NULL;
      filled[o] = n;
    }
    walk_run(w, q, n);
    if (!direct[0]) walk_move(q[0], p[0], 1, w, shape + ndim, index, n, w->size[0]);

    begin += n;
    if (contiguous && (begin - told >= WALK_TOLD || begin == end)) {
      mg_written(w->p[0] + told * w->size[0], begin - told);
      told = begin;
    }
    index[last] += n;
    for (int o = 0; o < w->operands; o++) p[o] += n * shape[ndim * (o + 1) + last] * w->size[o];
    for (int d = last; d > 0 && index[d] >= shape[d]; d--) {
      int64_t carry = index[d] / shape[d];
      index[d] -= carry * shape[d];
      index[d - 1] += carry;
      for (int o = 0; o < w->operands; o++) {
        const int64_t *stride = shape + ndim * (o + 1);
        p[o] += carry * (stride[d - 1] - shape[d] * stride[d]) * w->size[o];
      }
    }
  }
}

/* Strips number begin .. end of a walk: the same operands, but `shape[last]` only a strip's columns. */
static inline void walk_strips(void *context, int64_t begin, int64_t end) {
  const Walk *w = context;
  const int ndim = (int)w->plan[0], last = ndim - 1;
  const int64_t columns = w->plan[2 + last];
  int64_t plan[2 + WALK_DIMS * (WALK_OPERANDS + 1)];
  memcpy(plan, w->plan, (size_t)(2 + ndim * (w->operands + 1)) * sizeof *plan);
  Walk strip = *w;
  strip.plan = plan;
  for (int64_t s = begin; s < end; s++) {
    const int64_t first = s * WALK_STRIP, n = columns - first < WALK_STRIP ? columns - first : WALK_STRIP;
    plan[1] = w->plan[1] / columns * n;
    plan[2 + last] = n;
    for (int o = 0; o < w->operands; o++) strip.p[o] = w->p[o] + first * plan[2 + ndim * (o + 1) + last] * w->size[o];
    walk_strided(&strip, 0, plan[1]);
  }
}

void walk(const Walk *w, int64_t piece) {
  const int64_t ndim = w->plan[0], size = w->plan[1], *shape = w->plan + 2;
  int flat = 1, turned = 0;
  if (size == 0) return;
  if (size > 1)
    for (int o = 0; o < w->operands; o++) {
      const int64_t *stride = shape + ndim * (o + 1);
      flat &= ndim == 1 && stride[0] == 1;
      turned |= o > 0 && ndim > 1 && stride[ndim - 2] == 1 && stride[ndim - 1] != 0 && stride[ndim - 1] != 1;
    }
  if (turned && shape[ndim - 1] >= WALK_ROW && shape[ndim - 2] >= WALK_TILE / 2) {
    const int64_t strips = (shape[ndim - 1] + WALK_STRIP - 1) / WALK_STRIP, each = size / strips;
    if (size <= 4 * piece) walk_strips((void *)w, 0, strips);
    else mg_parallel(strips, 1 + piece / each, walk_strips, (void *)w);
  } else if (size <= 4 * piece) (flat ? walk_flat : walk_strided)((void *)w, 0, size);
  else mg_parallel(size, piece, flat ? walk_flat : walk_strided, (void *)w);
}

#endif
#endif
