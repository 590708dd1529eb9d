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

/* Is an array too large for what the caches keep from one kernel to the next? Then memory limits the speed. It is read
 * fastest in the order of its addresses, one row after the other, and results are stored past the caches. */
static inline int beyond_caches(int64_t elements) { return elements * (int64_t)sizeof(T) > MG_CACHED_BYTES; }
/* How many rows go side by side: `most`, or one of so large an array */
static inline int rows_together(int64_t elements, int most) { return beyond_caches(elements) ? 1 : most; }

/* May the vectors of a result of `size` elements, in runs of a multiple of `run`, be stored past the caches? VBYTES
 * must divide their addresses. */
static inline int streams(const T *p, int64_t size, int64_t run) {
  return beyond_caches(size) && !mg_is_followed() && ((uintptr_t)p | (uintptr_t)run * sizeof(T)) % VBYTES == 0;
}
/* The same for rows of n elements at any address, whose parts EACH_RUN tells apart: they are worth it if they are long,
 * and the array so large that results and what they are made of do not fit the last cache (softmax of 6 MB: 0.7). */
static inline int streams_runs(int64_t size, int64_t n) {
  return size * (int64_t)sizeof(T) > 3 * MG_CACHED_BYTES && !mg_is_followed() && n >= 8 * VL;
}
/* store_n, past the caches if `stream` */
INLINE void put_n(T *p, V v, int n, int stream) {
  if (STREAMS && stream) vstream(p, v);
  else store_n(p, v, n);
}

/* Rows of n elements after which followers of a kernel are told (mg_written): a multiple of four, so that they still
 * go side by side, and enough of them beside the time of a call, but no more than the first-level cache holds. */
static inline int64_t rows_told(int64_t n) { return 4 * MAX(1, BLOCK_ELEMENTS / 4 / MAX(n, 1)); }

INLINE T larger(T a, T b) { return a > b ? a : b; }

/* The largest lane; which one if there is NaN does not matter here. */
INLINE T largest(V v) {
  V16 h[VBYTES / 16];
  memcpy(h, &v, VBYTES);
  UNROLL for (int k = VBYTES / 32; k > 0; k /= 2)
    UNROLL for (int i = 0; i < k; i++) h[i] = vupper16_(h[i], h[i + k]);
#if TYPE_IS == 1
  return larger(larger(h[0][0], h[0][1]), larger(h[0][2], h[0][3]));
#else
  return larger(h[0][0], h[0][1]);
#endif
}

/* A loop over [0, n) by vectors: the body, written once, is compiled for whole vectors (k == VL) and for the tail of
 * k elements. EACH_VECTOR_2 and EACH_VECTOR_4 also count u = 0, 1 (.. 3), so that a sum can run in two or four chains
 * instead of waiting for one. */
#define EACH_VECTOR(j, k, n, ...) do { \
    int64_t j = 0; \
    for (; j + VL <= (n); j += VL) { const int k = VL; __VA_ARGS__ } \
    if (j < (n)) { const int k = (int)((n) - j); __VA_ARGS__ } \
  } while (0)
/* The chains are written out: UNROLL on a loop inside another one made GCC unroll the outer loop 16 times, too. */
#define CHAIN_(j, u, number, ...) { enum { u = number }; __VA_ARGS__ } j += VL;
#define CHAINS_2_(j, u, first, ...) \
  CHAIN_(j, u, first, __VA_ARGS__) \
  CHAIN_(j, u, first + 1, __VA_ARGS__)
#define CHAINS_4_(j, u, first, ...) \
  CHAINS_2_(j, u, first, __VA_ARGS__) \
  CHAINS_2_(j, u, first + 2, __VA_ARGS__)
#define EACH_VECTOR_OF(CHAINS, j, u, k, n, ...) do { \
    int64_t j = 0; \
    while (j + (CHAINS) * VL <= (n)) { \
      const int k = VL; \
      CHAINS_##CHAINS##_(j, u, 0, __VA_ARGS__) \
    } \
    const int u = 0; \
    for (; j + VL <= (n); j += VL) { const int k = VL; __VA_ARGS__ } \
    if (j < (n)) { const int k = (int)((n) - j); __VA_ARGS__ } \
  } while (0)
/* The same sums from a body that is compiled twice, not five times: for those so long that the chain's number may be a
 * variable. */
#define EACH_VECTOR_4_LONG(j, u, k, n, ...) do { \
    const int64_t chains_ = (n) / (4 * VL) * (4 * VL); \
    int64_t j = 0; \
    for (; j + VL <= (n); j += VL) { const int k = VL, u = j < chains_ ? (int)(j / VL) & 3 : 0; __VA_ARGS__ } \
    const int u = 0; \
    if (j < (n)) { const int k = (int)((n) - j); __VA_ARGS__ } \
  } while (0)
#define EACH_VECTOR_2(...) EACH_VECTOR_OF(2, __VA_ARGS__)
#define EACH_VECTOR_4(...) EACH_VECTOR_OF(4, __VA_ARGS__)

/* The body for runs [i, i + count) of the n results at p: whether they may be stored past the caches, and are whole
 * vectors at multiples of VBYTES then. If not `stream`, one run; else the ends of the row are runs of their own. */
#define EACH_RUN(i, count, past, p, n, stream, ...) do { \
    const int64_t head_ = STREAMS && (stream) ? MIN(n, (int64_t)(-(uintptr_t)(p) % VBYTES / sizeof(T))) : (n); \
    const int64_t ends_[] = {head_, head_ + ((n) - head_) / VL * VL, n}; \
    int64_t i = 0; \
    if (STREAMS && (stream)) __builtin_prefetch((p) + 2 * (n) - 1, 1); \
    for (int past_ = 0; i < (n); i = ends_[past_++]) { \
      const int64_t count = ends_[past_] - i; \
      const int past = past_ == 1; \
      if (count) { __VA_ARGS__ } \
    } \
  } while (0)

/* A loop over R rows side by side: R is a constant, and what each row has is in registers. At most SOME_ROWS go so. */
#define SOME_ROWS (MG_SMALL ? 1 : 4)
#define EACH_ROW(r) UNROLL for (int r = 0; r < R; r++)
/* A loop over W vectors of one row, side by side: W is a constant, and what each vector has is in registers. */
#define EACH_PART(w) UNROLL for (int w = 0; w < W; w++)

/* Columns of a [rows, n] matrix: the body for four vectors of them side by side (W == 4, so that each row touched
 * gives whole cache lines), and for single vectors of k columns (W == 1); k is VL but in the tail. */
#define EACH_COLUMNS(j, W, k, n, ...) do { \
    int64_t j = 0; \
    for (; j + 4 * VL <= (n); j += 4 * VL) { enum { W = 4 }; const int k = VL; __VA_ARGS__ } \
    for (; j < (n); j += VL) { enum { W = 1 }; const int k = (int)MIN(VL, (n) - j); __VA_ARGS__ } \
  } while (0)

#endif
#endif
