/* What kernels over contiguous rows share: loops over vectors with a tail, and how work is cut for the threads. */
#ifndef MINIGRAD_LOOPS_H
#define MINIGRAD_LOOPS_H

#include "simd.h"
#include "runtime.h"

#if IS_REAL

#define BLOCK_ELEMENTS 2048             /* elements summed in type T before the sum goes on in double */
#define ELEMENTS_PER_THREAD 32768            /* elements below which work is not shared between threads */

/* How many of `units` pieces of work, `each` elements long, one thread takes at a time. */
static inline int64_t grain(int64_t units, int64_t each) {
  if (units * each <= ELEMENTS_PER_THREAD) return units > 0 ? units : 1;
  return each >= ELEMENTS_PER_THREAD / 2 ? 1 : ELEMENTS_PER_THREAD / 2 / each;
}

/* load_n of p + i, or `otherwise` in all lanes if p is null */
INLINE V load_n_or(const T *p, int64_t i, int n, T otherwise) { return p ? load_n(p + i, n) : vset(otherwise); }

/* v in the first n lanes, `otherwise` in the others: needed because a tail reads as 0, but x - mean is then not 0. */
INLINE V keep_or(V v, int n, T otherwise) {
  if (n == VL) return v;
  VM lane;
  for (int i = 0; i < VL; i++) lane[i] = i;
  return vselect((VM)(lane < (TI)n - (VM){0}), v, vset(otherwise));
}
INLINE V keep(V v, int n) { return keep_or(v, n, 0); }

INLINE T larger(T a, T b) { return a > b ? a : b; }

/* The largest lane; which one if there is NaN does not matter here. */
INLINE T largest(V v) {
  V16 h[VBYTES / 16];
  memcpy(h, &v, VBYTES);
  for (int k = VBYTES / 32; k > 0; k /= 2)
    for (int i = 0; i < k; i++)
      for (int l = 0; l < (int)(16 / sizeof(T)); l++) h[i][l] = larger(h[i][l], h[i + k][l]);
#if TYPE_IS == 1
  return larger(larger(h[0][0], h[0][1]), larger(h[0][2], h[0][3]));
#else
  return larger(h[0][0], h[0][1]);
#endif
}

/* A loop over [0, n) by vectors: the body, written once, is compiled for whole vectors (k == VL) and for the tail of
 * k elements. EACH_VECTOR_4 also counts u = 0..3, so that a sum can run in four chains instead of waiting for one. */
#define EACH_VECTOR(j, k, n, ...) do { \
    int64_t j = 0; \
    for (; j + VL <= (n); j += VL) { const int k = VL; __VA_ARGS__ } \
    if (j < (n)) { const int k = (int)((n) - j); __VA_ARGS__ } \
  } while (0)
#define EACH_VECTOR_4(j, u, k, n, ...) do { \
    int64_t j = 0; \
    while (j + 4 * VL <= (n)) { \
      const int k = VL; \
      UNROLL \
      for (int u = 0; u < 4; u++, j += VL) { __VA_ARGS__ } \
    } \
    const int u = 0; \
    for (; j + VL <= (n); j += VL) { const int k = VL; __VA_ARGS__ } \
    if (j < (n)) { const int k = (int)((n) - j); __VA_ARGS__ } \
  } while (0)

/* A loop over R rows side by side: R is a constant, and what each row has is in registers. */
#define EACH_ROW(r) UNROLL for (int r = 0; r < R; r++)
/* A loop over W vectors of one row, side by side: W is a constant, and what each vector has is in registers. */
#define EACH_PART(w) UNROLL for (int w = 0; w < W; w++)

/* Columns of a [rows, n] matrix: the body for four vectors of them side by side (W == 4, so that each row touched
 * gives whole cache lines), for single vectors (W == 1), and for the tail of k columns. */
#define EACH_COLUMNS(j, W, k, n, ...) do { \
    int64_t j = 0; \
    for (; j + 4 * VL <= (n); j += 4 * VL) { enum { W = 4 }; const int k = VL; __VA_ARGS__ } \
    for (; j + VL <= (n); j += VL) { enum { W = 1 }; const int k = VL; __VA_ARGS__ } \
    if (j < (n)) { enum { W = 1 }; const int k = (int)((n) - j); __VA_ARGS__ } \
  } while (0)

#endif
#endif
