/* One vector type, V: VL elements of T, at the width of the SIMD level this file is compiled for. Arithmetic is the
 * compiler's (GCC and Clang vector extensions: + - * / and comparisons work on V as they are); this header adds what
 * they lack: tails, fused multiply-add, horizontal sums, and the elementary functions. No other file has intrinsics.
 *
 *   T TI TU    the element type of this compilation, the signed and the unsigned integer of its size
 *   V VM VU    vectors of them; a VM is also a mask: all bits of a lane 0 or 1
 *   VL         elements of a V
 *   TYPE_IS    1 f32, 2 f64, 3 i32, 4 i64, 5 u8, 6 u16     IS_REAL   f32 or f64
 *   F(0.5)     a literal of type T                         MATH(exp) the C library's function for T
 *   FN(name)   the name of a kernel for this type and level: name_f32_avx2
 *   KERNEL     the declaration of a kernel: minigrad.h
 *
 *   V  load_n(p, n)  store_n(p, v, n)       the first n (1..VL): for loops whose body serves whole vectors and the tail
 *   V  vload(p)  vstore(p, v)               unaligned, VL elements
 *      vstream(p, v)  vstreamed()           past the caches; p aligned
 *   V  vload_n(p, n)  vstore_n(p, v, n)     the first n (0..VL) elements; the rest reads as 0, is not written
 *   VM veven(a, b)  vodd(a, b)              every second lane of a, then of b
 *      vload_columns(t, p, stride)         t[q], q < VL: column q of VL rows, a block transposed
 *   V  vset(s)   vzero()   vfma(a, b, c) = a * b + c   (two roundings at the baseline level)
 *   V  vmax  vmin (NaN in either operand gives NaN)   vsqrt  vabs  vselect(mask, a, b)   mask: VM, from a < b ...
 *   T  vsum(v)  vmaxall(v)  vminall(v)      in a fixed order
 */
#ifndef MINIGRAD_SIMD_H
#define MINIGRAD_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "common.h"
#include "minigrad.h"

#if defined(MG_LEVEL_avx512)
#include <immintrin.h>
#define VBYTES 64
#elif defined(MG_LEVEL_avx2)
#include <immintrin.h>
#define VBYTES 32
#else
#define VBYTES 16
#if defined(__SSE4_1__)
#include <smmintrin.h>                    /* immintrin.h takes a quarter of a second to read */
#endif
#endif

/* W: WL lanes of 64 unsigned bits, for Philox. wmul32 multiplies the lower halves of lanes; wzip_low and wzip_high
 * interleave the lanes of a and b, the first halves of them and the second. */
#define WL ((int)(VBYTES / 8))
typedef uint64_t W __attribute__((vector_size(VBYTES)));
#if defined(__clang__)
#define WSHUFFLE_(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define WSHUFFLE_(a, b, ...) __builtin_shuffle(a, b, (W){__VA_ARGS__})
#endif
#if defined(MG_LEVEL_avx512)
#define WIOTA ((W){0, 1, 2, 3, 4, 5, 6, 7})
static inline W wmul32(W a, W b) { return (W)_mm512_mul_epu32((__m512i)a, (__m512i)b); }
static inline W wzip_low(W a, W b) { return WSHUFFLE_(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
static inline W wzip_high(W a, W b) { return WSHUFFLE_(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }
#elif defined(MG_LEVEL_avx2)
#define WIOTA ((W){0, 1, 2, 3})
static inline W wmul32(W a, W b) { return (W)_mm256_mul_epu32((__m256i)a, (__m256i)b); }
static inline W wzip_low(W a, W b) { return WSHUFFLE_(a, b, 0, 4, 1, 5); }
static inline W wzip_high(W a, W b) { return WSHUFFLE_(a, b, 2, 6, 3, 7); }
#else
#define WIOTA ((W){0, 1})
#if defined(__SSE2__)
static inline W wmul32(W a, W b) { return (W)_mm_mul_epu32((__m128i)a, (__m128i)b); }
#else
static inline W wmul32(W a, W b) { return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu); }
#endif
static inline W wzip_low(W a, W b) { return WSHUFFLE_(a, b, 0, 2); }
static inline W wzip_high(W a, W b) { return WSHUFFLE_(a, b, 1, 3); }
#endif

#if IS_REAL
#define VL ((int)(VBYTES / sizeof(T)))
#if TYPE_IS == 1
typedef int32_t TI;                       /* the integer as wide as T */
typedef uint32_t TU;
#define EPSILON 1.1920929e-07f
#define F(c) c##f                          /* a literal of type T: F(0.5) */
#define MATH(name) name##f                    /* libm's function for T: MATH(exp) */
#else
typedef int64_t TI;
typedef uint64_t TU;
#define EPSILON 2.220446049250313e-16
#define F(c) c
#define MATH(name) name
#endif
typedef T V __attribute__((vector_size(VBYTES)));
typedef TI VM __attribute__((vector_size(VBYTES)));   /* a mask: all bits of a lane 0 or 1; also the integer vector */
typedef TU VU __attribute__((vector_size(VBYTES)));

static inline V vload(const T *p) { V v; memcpy(&v, p, VBYTES); return v; }
static inline void vstore(T *p, V v) { memcpy(p, &v, VBYTES); }
static inline V vset(T s) { return s - (V){0}; }
static inline V vzero(void) { return (V){0}; }
static inline V vselect(VM mask, V a, V b) { return (V)((mask & (VM)a) | (~mask & (VM)b)); }

#if defined(MG_LEVEL_avx512) && TYPE_IS == 1
static inline __mmask16 tail_(int n) { return (__mmask16)((1u << n) - 1u); }
static inline V vload_n(const T *p, int n) { return (V)_mm512_maskz_loadu_ps(tail_(n), p); }
static inline void vstore_n(T *p, V v, int n) { _mm512_mask_storeu_ps(p, tail_(n), (__m512)v); }
static inline V vfma(V a, V b, V c) { return (V)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
static inline V vsqrt(V a) { return (V)_mm512_sqrt_ps((__m512)a); }
#elif defined(MG_LEVEL_avx512)
static inline __mmask8 tail_(int n) { return (__mmask8)((1u << n) - 1u); }
static inline V vload_n(const T *p, int n) { return (V)_mm512_maskz_loadu_pd(tail_(n), p); }
static inline void vstore_n(T *p, V v, int n) { _mm512_mask_storeu_pd(p, tail_(n), (__m512d)v); }
static inline V vfma(V a, V b, V c) { return (V)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c); }
static inline V vsqrt(V a) { return (V)_mm512_sqrt_pd((__m512d)a); }
#elif defined(MG_LEVEL_avx2) && TYPE_IS == 1
static inline __m256i tail_(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline V vload_n(const T *p, int n) { return (V)_mm256_maskload_ps(p, tail_(n)); }
static inline void vstore_n(T *p, V v, int n) { _mm256_maskstore_ps(p, tail_(n), (__m256)v); }
static inline V vfma(V a, V b, V c) { return (V)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
static inline V vsqrt(V a) { return (V)_mm256_sqrt_ps((__m256)a); }
#elif defined(MG_LEVEL_avx2)
static inline __m256i tail_(int n) { return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3)); }
static inline V vload_n(const T *p, int n) { return (V)_mm256_maskload_pd(p, tail_(n)); }
static inline void vstore_n(T *p, V v, int n) { _mm256_maskstore_pd(p, tail_(n), (__m256d)v); }
static inline V vfma(V a, V b, V c) { return (V)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c); }
static inline V vsqrt(V a) { return (V)_mm256_sqrt_pd((__m256d)a); }
#else
static inline V vload_n(const T *p, int n) { V v = {0}; memcpy(&v, p, (size_t)n * sizeof(T)); return v; }
static inline void vstore_n(T *p, V v, int n) { memcpy(p, &v, (size_t)n * sizeof(T)); }
#if defined(__SSE2__) && TYPE_IS == 1
static inline V vfma(V a, V b, V c) { return a * b + c; }
static inline V vsqrt(V a) { return (V)_mm_sqrt_ps((__m128)a); }
#elif defined(__SSE2__)
static inline V vfma(V a, V b, V c) { return a * b + c; }
static inline V vsqrt(V a) { return (V)_mm_sqrt_pd((__m128d)a); }
#else
static inline V vfma(V a, V b, V c) { for (int i = 0; i < VL; i++) c[i] = MATH(fma)(a[i], b[i], c[i]); return c; }
static inline V vsqrt(V a) { for (int i = 0; i < VL; i++) a[i] = MATH(sqrt)(a[i]); return a; }
#endif
#endif

/* Stores past the caches, to an address that VBYTES divides: memory is then not read before it is written, and what the
 * caches hold stays. For results that the caches would not keep (loops.h). vstreamed() comes before another thread may
 * read them. */
#if defined(MG_LEVEL_avx512)
static inline void vstream(T *p, V v) { _mm512_stream_si512((__m512i *)p, (__m512i)v); }
static inline void vstreamed(void) { _mm_sfence(); }
#elif defined(MG_LEVEL_avx2)
static inline void vstream(T *p, V v) { _mm256_stream_si256((__m256i *)p, (__m256i)v); }
static inline void vstreamed(void) { _mm_sfence(); }
#else
static inline void vstream(T *p, V v) { vstore(p, v); }
static inline void vstreamed(void) {}
#define STREAMS 0                         /* is there such a store? */
#endif
#ifndef STREAMS
#define STREAMS 1
#endif

/* Lanes 0, 2, 4, ... (or 1, 3, 5, ...) of a, then those of b. */
#if defined(MG_LEVEL_avx512) && TYPE_IS == 1
#define EVERY_OTHER_(o) \
  o, 2 + o, 4 + o, 6 + o, 8 + o, 10 + o, 12 + o, 14 + o, 16 + o, 18 + o, 20 + o, 22 + o, 24 + o, 26 + o, 28 + o, 30 + o
#elif defined(MG_LEVEL_avx512) || (defined(MG_LEVEL_avx2) && TYPE_IS == 1)
#define EVERY_OTHER_(o) o, 2 + o, 4 + o, 6 + o, 8 + o, 10 + o, 12 + o, 14 + o
#elif defined(MG_LEVEL_avx2) || TYPE_IS == 1
#define EVERY_OTHER_(o) o, 2 + o, 4 + o, 6 + o
#else
#define EVERY_OTHER_(o) o, 2 + o
#endif
#if defined(__clang__)
static inline VM veven(VM a, VM b) { return __builtin_shufflevector(a, b, EVERY_OTHER_(0)); }
static inline VM vodd(VM a, VM b) { return __builtin_shufflevector(a, b, EVERY_OTHER_(1)); }
#else
static inline VM veven(VM a, VM b) { return __builtin_shuffle(a, b, (VM){EVERY_OTHER_(0)}); }
static inline VM vodd(VM a, VM b) { return __builtin_shuffle(a, b, (VM){EVERY_OTHER_(1)}); }
#endif

/* vlower_: a < b ? a : b, vupper_: a > b ? a : b; so a NaN in b stays. One instruction on x86. */
#if defined(MG_LEVEL_avx512) && TYPE_IS == 1
static inline V vlower_(V a, V b) { return (V)_mm512_min_ps((__m512)a, (__m512)b); }
static inline V vupper_(V a, V b) { return (V)_mm512_max_ps((__m512)a, (__m512)b); }
#elif defined(MG_LEVEL_avx512)
static inline V vlower_(V a, V b) { return (V)_mm512_min_pd((__m512d)a, (__m512d)b); }
static inline V vupper_(V a, V b) { return (V)_mm512_max_pd((__m512d)a, (__m512d)b); }
#elif defined(MG_LEVEL_avx2) && TYPE_IS == 1
static inline V vlower_(V a, V b) { return (V)_mm256_min_ps((__m256)a, (__m256)b); }
static inline V vupper_(V a, V b) { return (V)_mm256_max_ps((__m256)a, (__m256)b); }
#elif defined(MG_LEVEL_avx2)
static inline V vlower_(V a, V b) { return (V)_mm256_min_pd((__m256d)a, (__m256d)b); }
static inline V vupper_(V a, V b) { return (V)_mm256_max_pd((__m256d)a, (__m256d)b); }
#elif defined(__SSE2__) && TYPE_IS == 1
static inline V vlower_(V a, V b) { return (V)_mm_min_ps((__m128)a, (__m128)b); }
static inline V vupper_(V a, V b) { return (V)_mm_max_ps((__m128)a, (__m128)b); }
#elif defined(__SSE2__)
static inline V vlower_(V a, V b) { return (V)_mm_min_pd((__m128d)a, (__m128d)b); }
static inline V vupper_(V a, V b) { return (V)_mm_max_pd((__m128d)a, (__m128d)b); }
#else
static inline V vlower_(V a, V b) { return vselect(a < b, a, b); }
static inline V vupper_(V a, V b) { return vselect(a > b, a, b); }
#endif

/* Rounding to whole numbers, to the nearest (half to even) for vround. */
#if defined(MG_LEVEL_avx512) && TYPE_IS == 1
#define ROUND_(name, libm, mode) static inline V name(V a) { return (V)_mm512_roundscale_ps((__m512)a, mode); }
#elif defined(MG_LEVEL_avx512)
#define ROUND_(name, libm, mode) static inline V name(V a) { return (V)_mm512_roundscale_pd((__m512d)a, mode); }
#elif defined(MG_LEVEL_avx2) && TYPE_IS == 1
#define ROUND_(name, libm, mode) static inline V name(V a) { return (V)_mm256_round_ps((__m256)a, mode | 8); }
#elif defined(MG_LEVEL_avx2)
#define ROUND_(name, libm, mode) static inline V name(V a) { return (V)_mm256_round_pd((__m256d)a, mode | 8); }
#elif defined(__SSE4_1__) && TYPE_IS == 1
#define ROUND_(name, libm, mode) static inline V name(V a) { return (V)_mm_round_ps((__m128)a, mode | 8); }
#elif defined(__SSE4_1__)
#define ROUND_(name, libm, mode) static inline V name(V a) { return (V)_mm_round_pd((__m128d)a, mode | 8); }
#else
#define ROUND_(name, libm, mode) \
  static inline V name(V a) { \
    for (int i = 0; i < VL; i++) a[i] = MATH(libm)(a[i]); \
    return a; \
  }
#endif
ROUND_(vround, rint, 0)
ROUND_(vfloor, floor, 1)
ROUND_(vceil, ceil, 2)
ROUND_(vtrunc, trunc, 3)

/* Is any lane of the mask true? */
static inline int vany(VM m) {
#if defined(MG_LEVEL_avx512)
  return _mm512_test_epi32_mask((__m512i)m, (__m512i)m) != 0;
#elif defined(MG_LEVEL_avx2)
  return !_mm256_testz_si256((__m256i)m, (__m256i)m);
#else
  uint64_t h[2];
  memcpy(h, &m, sizeof h);
  return (h[0] | h[1]) != 0;
#endif
}

static inline V vabs(V a) { return (V)((VM)a & ~(VM)vset(F(-0.0))); }
static inline V vmax(V a, V b) { return vselect(a != a, a, vupper_(a, b)); }
static inline V vmin(V a, V b) { return vselect(a != a, a, vlower_(a, b)); }

/* Horizontal: halves folded onto each other, so the order is the same at each call. */
typedef T V16 __attribute__((vector_size(16)));
#if defined(__SSE2__) && TYPE_IS == 1
static inline V16 vupper16_(V16 a, V16 b) { return (V16)_mm_max_ps((__m128)a, (__m128)b); }
#elif defined(__SSE2__)
static inline V16 vupper16_(V16 a, V16 b) { return (V16)_mm_max_pd((__m128d)a, (__m128d)b); }
#else
static inline V16 vupper16_(V16 a, V16 b) {
  for (int l = 0; l < (int)(16 / sizeof(T)); l++) a[l] = a[l] > b[l] ? a[l] : b[l];
  return a;
}
#endif
typedef T Half_ __attribute__((vector_size(VBYTES > 16 ? VBYTES / 2 : 16)));
static inline V16 vfold_(V v) {
#if VBYTES > 16
  Half_ half[2];
  memcpy(half, &v, VBYTES);
  half[0] += half[1];
#if VBYTES == 32
  return half[0];
#else
  V16 h[2];
  memcpy(h, half, sizeof h);
  return h[0] + h[1];
#endif
#else
  return v;
#endif
}
static inline T vsum(V v) {
  const V16 h = vfold_(v);
#if TYPE_IS == 1
  return (h[0] + h[2]) + (h[1] + h[3]);
#else
  return h[0] + h[1];
#endif
}
/* s[r] = vsum(v[r]), r < R <= 4 */
INLINE void vsums(T *s, const V *v, const int R) {
#if defined(__SSE2__) && TYPE_IS == 1
  if (R < 4) {
    for (int r = 0; r < R; r++) s[r] = vsum(v[r]);
    return;
  }
  __m128 a = (__m128)vfold_(v[0]), b = (__m128)vfold_(v[1]), c = (__m128)vfold_(v[2]), d = (__m128)vfold_(v[3]);
  _MM_TRANSPOSE4_PS(a, b, c, d);
  const V16 sums = ((V16)a + (V16)c) + ((V16)b + (V16)d);
  memcpy(s, &sums, sizeof sums);
#else
  for (int r = 0; r < R; r++) s[r] = vsum(v[r]);
#endif
}
static inline T vmaxall(V v) {
  T m = v[0];
  for (int i = 1; i < VL; i++) m = v[i] > m || v[i] != v[i] ? v[i] : m;
  return m;
}
static inline T vminall(V v) {
  T m = v[0];
  for (int i = 1; i < VL; i++) m = v[i] < m || v[i] != v[i] ? v[i] : m;
  return m;
}

/* A VL x VL block, transposed on its way from memory: lane l of t[q] is p[l * stride + q]. 16-byte pieces of rows are
 * loaded into the lanes where they belong, which leaves a 4 x 4 (2 x 2 for f64) transposition inside each 16 bytes:
 * half the shuffles of a transposition in registers. */
#if defined(__SSE2__)
#if defined(MG_LEVEL_avx512) && TYPE_IS == 1
#define LOAD_(p, s) _mm_loadu_ps((const float *)((p) + (s)))
#define PIECES_(p) (V)_mm512_insertf32x4(_mm512_insertf32x4(_mm512_insertf32x4(_mm512_castps128_ps512(LOAD_(p, 0)), \
  LOAD_(p, next), 1), LOAD_(p, 2 * next), 2), LOAD_(p, third), 3)
#define LOW_(a, b) (V)_mm512_unpacklo_ps((__m512)(a), (__m512)(b))
#define HIGH_(a, b) (V)_mm512_unpackhi_ps((__m512)(a), (__m512)(b))
#define LOW2_(a, b) (V)_mm512_unpacklo_pd((__m512d)(a), (__m512d)(b))
#define HIGH2_(a, b) (V)_mm512_unpackhi_pd((__m512d)(a), (__m512d)(b))
#elif defined(MG_LEVEL_avx512)
#define LOAD_(p, s) _mm_loadu_pd((const double *)((p) + (s)))
#define PIECES_(p) (V)_mm512_insertf64x2(_mm512_insertf64x2(_mm512_insertf64x2(_mm512_castpd128_pd512(LOAD_(p, 0)), \
  LOAD_(p, next), 1), LOAD_(p, 2 * next), 2), LOAD_(p, third), 3)
#define LOW2_(a, b) (V)_mm512_unpacklo_pd((__m512d)(a), (__m512d)(b))
#define HIGH2_(a, b) (V)_mm512_unpackhi_pd((__m512d)(a), (__m512d)(b))
#elif defined(MG_LEVEL_avx2) && TYPE_IS == 1
#define PIECES_(p) \
  (V) _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps((const float *)(p))), \
                           _mm_loadu_ps((const float *)((p) + next)), 1)
#define LOW_(a, b) (V)_mm256_unpacklo_ps((__m256)(a), (__m256)(b))
#define HIGH_(a, b) (V)_mm256_unpackhi_ps((__m256)(a), (__m256)(b))
#define LOW2_(a, b) (V)_mm256_unpacklo_pd((__m256d)(a), (__m256d)(b))
#define HIGH2_(a, b) (V)_mm256_unpackhi_pd((__m256d)(a), (__m256d)(b))
#elif defined(MG_LEVEL_avx2)
#define PIECES_(p) \
  (V) _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd((const double *)(p))), \
                           _mm_loadu_pd((const double *)((p) + next)), 1)
#define LOW2_(a, b) (V)_mm256_unpacklo_pd((__m256d)(a), (__m256d)(b))
#define HIGH2_(a, b) (V)_mm256_unpackhi_pd((__m256d)(a), (__m256d)(b))
#else
#define PIECES_(p) vload((const T *)(p))
#define LOW_(a, b) (V)_mm_unpacklo_ps((__m128)(a), (__m128)(b))
#define HIGH_(a, b) (V)_mm_unpackhi_ps((__m128)(a), (__m128)(b))
#define LOW2_(a, b) (V)_mm_unpacklo_pd((__m128d)(a), (__m128d)(b))
#define HIGH2_(a, b) (V)_mm_unpackhi_pd((__m128d)(a), (__m128d)(b))
#endif
static inline __attribute__((always_inline)) void vload_columns(V *t, const T *p, int64_t stride) {
  /* bytes from a piece to the next and to the last; hidden from GCC, which would keep 16 sums of them in memory */
  int64_t next = 16 * stride, third = 48 * stride;
  const char *row0 = (const char *)p, *row1 = (const char *)(p + stride);
  __asm__("" : "+r"(next), "+r"(third), "+r"(row1));
  (void)next, (void)third;
#if TYPE_IS == 1
  const char *row2 = (const char *)(p + 2 * stride), *row3 = (const char *)(p + 3 * stride);
  __asm__("" : "+r"(row2), "+r"(row3));
  for (int q = 0; q < VL; q += 4) {
    V a = PIECES_(row0 + 4 * q), b = PIECES_(row1 + 4 * q), c = PIECES_(row2 + 4 * q), d = PIECES_(row3 + 4 * q);
    V ab = LOW_(a, b), cd = LOW_(c, d), AB = HIGH_(a, b), CD = HIGH_(c, d);
    t[q] = LOW2_(ab, cd);
    t[q + 1] = HIGH2_(ab, cd);
    t[q + 2] = LOW2_(AB, CD);
    t[q + 3] = HIGH2_(AB, CD);
  }
#else
  for (int q = 0; q < VL; q += 2) {
    V a = PIECES_(row0 + 8 * q), b = PIECES_(row1 + 8 * q);
    t[q] = LOW2_(a, b);
    t[q + 1] = HIGH2_(a, b);
  }
#endif
}
#else
static inline void vload_columns(V *t, const T *p, int64_t stride) {
  for (int q = 0; q < VL; q++)
    for (int l = 0; l < VL; l++) t[q][l] = p[l * stride + q];
}
#endif

/* ---- elementary functions ----
 *
 *   vexp vexp_down vexp2 vexp2_down vexpm1 vlog vlog2 vlog1p vtanh vsigmoid verf verfc vsin vcos
 *   vsigmoids (of x and -x), vnormal (P and density)
 *
 * One formula for all levels; f32 and f64 differ in constants only. Errors are at most 2 units in the last place
 * (verfc: 4) over the whole range; subnormal results, infinities, NaN and the sign of zero are right. The coefficients
 * were fitted to 60-digit values (mpmath): weighted least squares on Chebyshev nodes, reweighted until the error is
 * nearly level (Lawson's method), coefficients rounded to T one by one and the rest refitted. POLY lists them from the
 * constant up. */
#if TYPE_IS == 1
#define PICK_(f32, f64) f32##f
#define POLY_(z, f32, f64) ({ static const T c_[] = f32; vpoly_(z, c_, sizeof c_ / sizeof *c_); })
#define MANTISSA_ 23
#define BIAS_ 127
#else
#define PICK_(f32, f64) f64
#define POLY_(z, f32, f64) ({ static const T c_[] = f64; vpoly_(z, c_, sizeof c_ / sizeof *c_); })
#define MANTISSA_ 52
#define BIAS_ 1023
#endif
#define LIST_(...) {__VA_ARGS__}
#define ROUNDER_ \
  PICK_(12582912.0, 6755399441055744.0) /* 1.5 * 2^MANTISSA: x + ROUNDER_ holds round(x) in its low bits */
#define LOG2E_ F(1.442695040888963407359925)
#define LN2_ F(0.693147180559945309417232)
#define LN2_HIGH_ PICK_(0.693145751953125, 0.6931471805592082)           /* 15 (40) bits: k * LN2_HIGH_ is exact */
#define LN2_LOW_ PICK_(1.42860677e-06, 7.371002565167799e-13)         /* positive, so that k = inf works */

static inline V vpoly_(V z, const T *c, int n) {
  V p = vset(c[n - 1]);
#pragma GCC unroll 32
  for (int k = n - 2; k >= 0; k--) p = vfma(p, z, vset(c[k]));
  return p;
}
/* magnitude >= 0 */
static inline V vsign_(V magnitude, V sign) { return (V)((VM)magnitude | ((VM)sign & (VM)vset(F(-0.0)))); }
/* 2^k normal */
static inline V vpow2_(V k) { return (V)(((VU)(k + ROUNDER_) - (VU)vset(ROUNDER_) + BIAS_) << MANTISSA_); }

/* v * 2^k: rounds once, also into the subnormals, because the first of two products is exact. */
static inline V vscale_(V v, V k) {
#if defined(MG_LEVEL_avx512) && TYPE_IS == 1
  return (V)_mm512_scalef_ps((__m512)v, (__m512)k);
#elif defined(MG_LEVEL_avx512)
  return (V)_mm512_scalef_pd((__m512d)v, (__m512d)k);
#else
  const V half = (k * F(0.5) + ROUNDER_) - ROUNDER_;
  return v * vpow2_(half) * vpow2_(k - half);
#endif
}

/* exp(x) = 2^k (1 + p) with |x - k log 2| <= log(2) / 2: p = r + r^2 P(r), error below 2^-31 (f32), 2^-61 (f64). `low`
 * is a correction to x that is too small for x's format. */
typedef struct { V k, p; } Exp_;
static inline V vexpm1_small_(V r) {
  return vfma(r * r,
              POLY_(r, LIST_(0.5f, 0.166666672f, 0.0416664779f, 0.00833319221f, 0.00139337103f, 0.000199584538f),
                    LIST_(0.5, 0.16666666666666677, 0.04166666666666668, 0.008333333333321428, 0.0013888888888877432,
                          0.00019841269886631242, 2.4801587340668924e-05, 2.7557243702649166e-06, 2.755725914106419e-07,
                          2.510921428216453e-08, 2.0919526883209687e-09)),
              r);
}
static inline Exp_ vexp_(V x, V low) {
  const V k = vfma(x, vset(LOG2E_), vset(ROUNDER_)) - ROUNDER_;
  return (Exp_){k, vexpm1_small_(vfma(k, vset(-LN2_LOW_), vfma(k, vset(-LN2_HIGH_), x)) + low)};
}
#define EXP_0_ PICK_(104.0, 746.0)                            /* exp(-EXP_0_) is 0 */
static inline V vexp_sum_(V x, V low) {                        /* exp(x + low) */
  x = vlower_(vset(PICK_(89.0, 710.0)), vupper_(vset(-EXP_0_), x));
  const Exp_ e = vexp_(x, low);
  return vscale_(1 + e.p, e.k);
}
static inline V vexp(V x) { return vexp_sum_(x, vzero()); }
static inline V vexp2(V x) {
  x = vlower_(vset(PICK_(129.0, 1025.0)), vupper_(vset(PICK_(-151.0, -1076.0)), x));
  const V k = (x + ROUNDER_) - ROUNDER_;
  return vscale_(1 + vexpm1_small_((x - k) * LN2_), k);
}
/* 2^x for x <= 0, and 0 below the normal numbers: with subnormal numbers the processor is slow. For weights beside 1,
 * error 2^-24 (f32), 2^-53 (f64) of the result beside that of x: two thirds of the time of vexp. */
static inline V vexp2_down(V x) {
  const V k = (x + ROUNDER_) - ROUNDER_, f = x - k;
  const V p = POLY_(f,
                    LIST_(1.0f, 0.6931472f, 0.24022648f, 0.055503596f, 0.009618498f, 0.0013390972f, 0.00015329852f),
                    LIST_(1.0, 0.6931471805599453, 0.2402265069591011, 0.05550410866482175, 0.009618129107600676,
                          0.0013333558146536087, 0.0001540353045005396, 1.5252733645973705e-05, 1.3215438383473176e-06,
                          1.0178154432581648e-07, 7.073303593642597e-09, 4.4397748564823954e-10));
  return vselect(x < PICK_(-126.0, -1022.0), vzero(), vscale_(p, k));
}

/* exp(x) for x up to about 0, and 0 where it is below the normal numbers: for weights beside 1. x = k log 2 + r, where k
 * is a multiple of 1/32 (AVX2: 1/8), so r is small and needs a short polynomial, and one product with k is enough. The
 * factors 2^(j/32) (2^(j/8)) of 2^k come from registers; AVX2's lack j in their exponents, which the sum puts back.
 * Error 2 units in the last place, and at -60 4, as the rounding of x makes it, too; 0.6 of the time of vexp (AVX2 0.4).
 * With k in steps of 1/16 and r^3, AVX-512 takes 1.06 of the time. */
#if defined(MG_LEVEL_avx512) && TYPE_IS == 1
/* 2^(j/32) exp(r), where t has j in its low bits */
static inline V vpower_(V t, V r) {
  const V low = {
    1.0f, 1.0218972f, 1.04427373f, 1.06714046f, 1.09050775f, 1.1143868f, 1.13878858f, 1.1637249f, 1.18920708f,
    1.21524739f, 1.24185777f, 1.26905096f, 1.29683959f, 1.32523668f, 1.35425556f, 1.38390994f}, high = {
    1.41421354f, 1.44518077f, 1.47682619f, 1.50916445f, 1.54221082f, 1.5759809f, 1.61049032f, 1.64575553f,
    1.68179286f, 1.71861935f, 1.75625217f, 1.79470909f, 1.8340081f, 1.87416768f, 1.91520655f, 1.95714414f};
  const V s = (V)_mm512_permutex2var_ps((__m512)low, (__m512i)t, (__m512)high);
  return vfma(s, r * vfma(r, vset(0.5f), vset(1.0000147f)), s);
}
static inline V vexp_down(V x) {
  const V t = vfma(x, vset(LOG2E_), vset(ROUNDER_ / 32)), k = t - ROUNDER_ / 32;
  const V p = vpower_(t, vfma(k, vset(-LN2_), x));
  return (V)_mm512_maskz_scalef_ps(_mm512_cmp_ps_mask((__m512)x, (__m512)vset(-EXP_0_), _CMP_NLT_UQ), (__m512)p,
                                   (__m512)k);
}
#elif defined(MG_LEVEL_avx2) && TYPE_IS == 1
static inline V vexp_down(V x) {
  const V powers = {
    1.0f, 0.982753873f, 0.969603539f, 0.960919797f, 0.957106769f, 0.958605409f, 0.965896428f, 0.979504049f};
  const V t = vfma(x, vset(LOG2E_), vset(ROUNDER_ / 8)), k = t - ROUNDER_ / 8, r = vfma(k, vset(-LN2_), x);
  const V s = (V)((VU)_mm256_permutevar8x32_ps((__m256)powers, (__m256i)t) + ((VU)t << (MANTISSA_ - 3)));
  return vselect(x < -87.0f, vzero(), vfma(s, vfma(r * r, vfma(r, vset(0.16666667f), vset(0.50006478f)), r), s));
}
#else
static inline V vexp_down(V x) { return vexp(x); }
#endif

/* exp(-a) / 2^less, |a| <= EXP_0_ */
#if defined(MG_LEVEL_avx512) && TYPE_IS == 1
static inline V vexp_minus_(V a, T less) {
  const V t = vfma(a, vset(-LOG2E_), vset(ROUNDER_ / 32)), k = t - ROUNDER_ / 32;
  return vscale_(vpower_(t, vfma(k, vset(-LN2_LOW_), vfma(k, vset(-LN2_HIGH_), -a))), k - less);
}
#else
static inline V vexp_minus_(V a, T less) {
  const Exp_ e = vexp_(-a, vzero());
  return vscale_(1 + e.p, e.k - less);
}
#endif

/* exp(x) - 1 = 2^k (p + (1 - 2^-k)): no cancellation for k = 0, and for other k the bracket is away from 0. */
static inline V vexpm1_(V x) {
  const Exp_ e = vexp_(x, vzero());
  return vscale_(e.p + (1 - vpow2_(-vlower_(vset(60), e.k))), e.k);
}
static inline V vexpm1(V x) {
  const V y = vexpm1_(vlower_(vset(PICK_(89.0, 710.0)), vupper_(vset(PICK_(-18.0, -38.0)), x)));
  return vsign_(y, x);
}

#if defined(MG_LEVEL_avx512) && TYPE_IS == 1
/* 16 polynomials, of which each lane takes one, by the exponent of 1 + z and two bits more. c has `count` coefficients
 * of each, from the constant up, in powers of the distance from the begin of the piece, or its middle. 0 <= z < 15 */
INLINE V vpieces_(const V *c, const int count, V z, const int middle) {
  const VU bits = (VU)(z + 1), piece = bits >> 21;
  const V d = z + (1 - (V)((bits & ~0x1fffffu) | (middle ? 0x100000u : 0)));
  V q = (V)_mm512_permutexvar_ps((__m512i)piece, (__m512)c[count - 1]);
#pragma GCC unroll 8
  for (int k = count - 2; k >= 0; k--) q = vfma(q, d, (V)_mm512_permutexvar_ps((__m512i)piece, (__m512)c[k]));
  return q;
}

/* Half the time of the formula below */
static inline V vtanh(V x) {
  static const V c[7] = {
    {0.761594176f, 0.905148268f, 0.964027584f, 0.986614287f, 0.995054781f, 0.999329329f, 0.999909222f,
     0.999987721f, 0.999998331f, 0.99999994f, 1.0f, 1.0f, 0.0f, 0.244918659f, 0.462117165f, 0.635148942f},
    {0.419971734f, 0.180704817f, 0.0706503317f, 0.0265938323f, 0.00986380968f, 0.00133884477f, 0.000180296905f,
     2.38737975e-05f, 3.53346809e-06f, 1.10547376e-06f, -1.8881412e-08f, -3.45808687e-10f, 1.0f, 0.940015852f,
     0.78644526f, 0.596588731f},
    {-0.319797367f, -0.1635288f, -0.0680981874f, -0.0262734964f, -0.00978795998f, -0.00131496077f,
     -0.00016649779f, -1.63746081e-05f, -4.51370306e-06f, -6.1483297e-06f, 1.15437366e-07f, 2.11419193e-09f,
     -1.09727262e-06f, -0.230277479f, -0.363309354f, -0.379059225f},
    {0.10324315f, 0.0875533521f, 0.0420182832f, 0.0173361376f, 0.00633551413f, 0.000782024814f, 5.63206413e-05f,
     -1.86550369e-05f, 4.68618055e-06f, 1.30208973e-05f, -2.47828041e-07f, -4.53885907e-09f, -0.333270192f,
     -0.256052136f, -0.0963785872f, 0.0441872068f},
    {0.0286309216f, -0.024310695f, -0.017573202f, -0.00924846716f, -0.00283490145f, -0.000222575924f,
     6.56387783e-05f, 5.95550046e-05f, -3.37784218e-06f, -1.25322658e-05f, 2.39307695e-07f, 4.38280212e-09f,
     -0.00118376443f, 0.132519379f, 0.182351813f, 0.0814431384f},
    {-0.0466437936f, -0.00247994764f, 0.00435478613f, 0.00494247442f, 0.000800646027f, -3.94875206e-05f,
     -9.05389825e-05f, -5.72899917e-05f, 1.33140918e-06f, 5.56601617e-06f, -1.06401139e-07f, -1.94868099e-09f,
     0.143084526f, 0.0984189138f, -0.094742991f, -0.000201495612f},
    {0.0179435667f, 0.00395944901f, -0.000252683036f, -0.00201771804f, -0.000102562437f, 3.60589765e-05f,
     3.32877171e-05f, 1.95160628e-05f, -2.09821124e-07f, -9.27358997e-07f, 1.7735859e-08f, 3.2482253e-10f,
     -0.0369775183f, -0.106824346f, 0.0550654791f, -0.0784182101f}};
  return vsign_(vpieces_(c, 7, vlower_(vset(14.9f), vabs(x)), 0), x);
}
#else
/* tanh a = 1 - 2 / (exp(2a) + 1), a = |x|, and a + a^3 P(a^2) for small a. From a = 10 (20) on it is 1. */
static inline V vtanh(V x) {
  const V a = vlower_(vset(PICK_(10.0, 20.0)), vabs(x)), z = a * a;
  const Exp_ e = vexp_(2 * a, vzero());
  const V small =
      vfma(a * z,
           POLY_(z, LIST_(-0.333332837f, 0.133314863f, -0.0537431315f, 0.0206494499f, -0.00571580464f),
                 LIST_(-0.33333333333333315, 0.13333333333330002, -0.05396825396617985, 0.021869488471594135,
                       -0.008863234353044838, 0.003592114361721891, -0.0014557280858505917, 0.0005894602525478222,
                       -0.0002370338740029426, 9.159528746789556e-05, -3.022257172794677e-05, 6.057321963298768e-06)),
           a);
  return vsign_(vselect(a < F(0.625), small, 1 - 2 / (vscale_(1 + e.p, e.k) + 1)), x);
}
#endif

/* S(x) = 1 / (1 + exp(-x)) and S(-x), by e = exp(-|x|) <= 1: the larger is q = 1 / (1 + e), the smaller e q = e - e (e
 * q), the second form because the errors of q count for less in it. Neither is a difference from 1, so both keep their
 * digits. */
typedef struct { V up, down; } Sigmoid;
static inline Sigmoid vsigmoids_(V x, V size) {                /* size = |x|, at most EXP_0_ */
  const V e = vexp_minus_(size, 0), large = 1 / (1 + e), small = vfma(-e, e * large, e);
  const VM negative = x < 0;
  return (Sigmoid){vselect(negative, small, large), vselect(negative, large, small)};
}
static inline Sigmoid vsigmoids(V x) { return vsigmoids_(x, vlower_(vset(EXP_0_), vabs(x))); }
/* S(x) alone, all times 2^-64 (2^-512), so that exp(-x) does not overflow: 0.65 of the time. From 40 on it is 1. */
static inline V vsigmoid(V x) {
  const V unit = vset(PICK_(5.4210108624275222e-20, 7.4583407312002067e-155));
  return unit / (unit + vexp_minus_(vupper_(vset(-EXP_0_), vlower_(vset(40), x)), PICK_(64.0, 512.0)));
}

/* u = 2^k (1 + f), 1 + f in [sqrt 1/2, sqrt 2). log(1 + f) = f - (h - s (h + R)) with s = f / (2 + f), h = f^2 / 2 and
 * R = z L(z) the rest of the series 2 atanh(s) = 2s + s R, z = s^2; error below 2^-30 (f32), 2^-59 (f64).
 * AVX-512 takes numbers apart in two instructions, and k = -inf, inf or f = NaN leads to the right ends by itself. */
typedef struct { V k, f; } Log_;
#define ROOT_ F(0.70710678118654752440)
#if defined(MG_LEVEL_avx512)
static inline Log_ vlog_split_(V u) {
  u += 0;                                                      /* -0 to 0 */
#if TYPE_IS == 1
  const V k = (V)_mm512_getexp_ps((__m512)u), m = (V)_mm512_getmant_ps((__m512)u, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_nan);
#else
  const V k = (V)_mm512_getexp_pd((__m512d)u),
          m = (V)_mm512_getmant_pd((__m512d)u, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_nan);
#endif
  const VM high = m >= 2 * ROOT_;
  return (Log_){vselect(high, k + 1, k), vselect(high, m * F(0.5), m) - 1};
}
static inline V vlog_ends_(V u, V y) { (void)u; return y; }
#else
static inline Log_ vlog_split_(V x) {
  const VM tiny = x < PICK_(1.17549435e-38, 2.2250738585072014e-308);          /* subnormal: scaled up first */
  const V u = vselect(tiny, x * PICK_(33554432.0, 18014398509481984.0), x);
  const VU root = (VU)vset(ROOT_), mask = (((VU){0} + 1) << MANTISSA_) - 1,
           bits = (VU)u - root + (((VU){0} + BIAS_) << MANTISSA_);
  /* 2^MANTISSA: its low bits are an integer */
  const V two = vset(PICK_(8388608.0, 4503599627370496.0));
  const V k = (V)((bits >> MANTISSA_) | (VU)two) - (two + vselect(tiny, vset(BIAS_ + PICK_(25.0, 54.0)), vset(BIAS_)));
  return (Log_){k, (V)((bits & mask) + root) - 1};
}
static inline V vlog_ends_(V u, V y) {                         /* y = log u, but for u = inf, NaN, 0 and below */
  y = vselect(u < INFINITY, y, u);
  return vselect(u > 0, y, vselect(u == 0, vset(-INFINITY), vset(NAN)));
}
#endif
static inline V vlog_sum_(V k, V f, V low) {                   /* k log 2 + log(1 + f) + low */
  const V s = f / (2 + f), z = s * s, h = F(0.5) * f * f;
  const V r = z * POLY_(z, LIST_(0.666667759f, 0.399775743f, 0.298712373f),
                           LIST_(0.6666666666666735, 0.39999999999409863, 0.2857142874347979, 0.22222198458066783,
                                 0.18183570497487536, 0.15313887332380782, 0.14797639298807755));
  return vfma(k, vset(LN2_HIGH_), f - (h - vfma(s, h + r, vfma(k, vset(LN2_LOW_), low))));
}
static inline V vlog(V x) {
  const Log_ l = vlog_split_(x);
  return vlog_ends_(x, vlog_sum_(l.k, l.f, vzero()));
}
static inline V vlog2(V x) {
  const Log_ l = vlog_split_(x);
  const V y = vlog_sum_(vzero(), l.f, vzero());
  return vlog_ends_(x, l.k + vfma(y, vset(LOG2E_), y * PICK_(1.92596303e-08, 2.0355273740931033e-17)));
}
/* log(1 + x): what rounding took from u = 1 + x is put back as low = (1 + x - u) / u; where u needs no scaling, f is x
 * itself. */
static inline V vlog1p(V x) {
  const V u = 1 + x, v = u - 1, lost = (1 - (u - v)) + (x - v);
  const Log_ l = vlog_split_(u);
  const VM whole = (l.k == 0) & (u > 0);
  const V low = vselect(whole | (u == 0) | (u == INFINITY), vzero(), lost / u);
  return vsign_(vlog_ends_(u, vlog_sum_(l.k, vselect(whole, x, l.f), low)), x);      /* the sign is right but for -0 */
}

/* erf x = x + x E(x^2) for |x| < 1, else 1 - erfc|x|.
 * erfc a = exp(-a^2) Q(y) D, y = (a - c) / (a + c): the factor beside exp is smooth and slow in y (the mapping of
 * Shepherd and Laframboise, 1981). f32: D = 1 / (a + c), a >= 0; f64: D = 1 / (1 + 2a), a >= 0.45. a^2 is carried with
 * the error of its rounding. */
static inline V verf_small_(V x) {
  return vfma(x,
              POLY_(x * x,
                    LIST_(0.128379166f, -0.376126289f, 0.112836517f, -0.0268584713f, 0.00520288385f, -0.000823624316f,
                          9.56367803e-05f, -5.02588864e-06f),
                    LIST_(0.1283791670955126, -0.3761263890318409, 0.11283791670968307, -0.026866170647219065,
                          0.005223977643095428, -0.0008548327923711833, 0.00012055362496470333, -1.4926292069237338e-05,
                          1.647142502071232e-06, -1.645413836806252e-07, 1.5319698810702457e-08,
                          -1.3794843324243929e-09, 9.862662254210394e-11)),
              x);
}
typedef struct { V e, q; } Erfc_;                             /* erfc a = e q, e = exp(-a^2) */
static inline V vsquare_error_(V a, V square) {                /* a * a - square, exactly */
#if defined(__FMA__)
  return vfma(a, a, -square);
#else
  const V high = (V)((VM)a & ~(VM)((((VU){0} + 1) << (MANTISSA_ + 2) / 2) - 1)), rest = a - high;
  return ((high * high - square) + 2 * high * rest) + rest * rest;
#endif
}
static inline Erfc_ verfc_large_(V a) {
  const T c = PICK_(2.0, 4.0);
  a = vlower_(vset(PICK_(12.0, 28.0)), a);
#if TYPE_IS == 1
  const V d = 1 / (a + c), y = (a - c) * d;
#else
  const V d = 1 / (1 + 2 * a), y = (a - c) / (a + c);
#endif
  const V q =
      POLY_(y,
            LIST_(1.02158272f, -0.687160671f, 0.279470623f, -0.0364423506f, -0.0214905702f, 0.00648192642f,
                  0.00299222325f, -0.000865645474f, -0.000457711518f, 0.000127029838f, -2.18335663e-05f,
                  -6.48125279e-05f),
            LIST_(1.2329951186255526, -0.1396211168405625, 0.015379652102613259, 0.06809705425469104,
                  -0.10103906603603001, 0.09373283499841845, -0.06633036581759862, 0.037167515536007285,
                  -0.01619773399894097, 0.005031969996046738, -0.0007577736832963425, -0.00019925683004543238,
                  0.00015062338291857902, -2.4398563153090745e-05, -1.1226895959716736e-05, 5.707678866744984e-06,
                  3.029104767967794e-07, -8.211998090231247e-07, 6.388360013797202e-08, 1.046037488789703e-07,
                  -1.064580628842541e-08, -1.0110772264359911e-08, -3.0822886157539124e-10));
  const V square = a * a;
  const Exp_ e = vexp_(-square, -vsquare_error_(a, square));
  return (Erfc_){vscale_(1 + e.p, e.k), q * d};
}
static inline V verf(V x) {
  const V a = vabs(x);
  const Erfc_ c = verfc_large_(a);
  return vsign_(vselect(a < 1, verf_small_(a), 1 - c.e * c.q), x);
}
static inline V verfc(V x) {
  const V a = vabs(x);
  const Erfc_ c = verfc_large_(a);
  return vselect(a < F(0.5), 1 - verf_small_(x), vselect(x < 0, 2 - c.e * c.q, c.e * c.q));
}

/* The normal distribution: P(x) = erfc(-x / sqrt 2) / 2 and its density P'(x) = exp(-x^2 / 2) / sqrt(2 pi). */
typedef struct { V p, density; } Normal;
#if defined(MG_LEVEL_avx512) && TYPE_IS == 1
/* P(-z) = exp(-z^2 / 2) Q(z), Q in pieces: 0.6 of the time of erfc's formula, and an error of 4 units at z = 12, where
 * the rounding of x / sqrt 2 costs that 98. From 14.9 on P(-z) is 0. */
static inline Normal vnormal(V x) {
  static const V c[6] = {
    {0.230760321f, 0.185231671f, 0.153651938f, 0.130724728f, 0.106345162f, 0.084803395f, 0.0703426972f,
     0.0600156747f, 0.0491225496f, 0.0395066962f, 0.0330189727f, 0.0283526611f, 0.453793228f, 0.379604429f,
     0.323356181f, 0.279770583f},
    {-0.110491872f, -0.0747868717f, -0.0532254204f, -0.0394492596f, -0.0267342441f, -0.0173270162f,
     -0.0120574636f, -0.00884039048f, -0.00596191082f, -0.00387533964f, -0.00271462766f, -0.00200503296f,
     -0.342218131f, -0.256590635f, -0.196844682f, -0.154143035f},
    {0.046321746f, 0.0271761585f, 0.0169471838f, 0.0111203147f, 0.00638709823f, 0.00341573101f, 0.00201318599f,
     0.00127657235f, 0.00071355945f, 0.000376621203f, 0.00022170326f, 0.000141093391f, 0.205504239f,
     0.141690493f, 0.100157365f, 0.0724410862f},
    {-0.0175295975f, -0.00907497481f, -0.00503127836f, -0.00295697851f, -0.00145903719f, -0.000651777198f,
     -0.00032804173f, -0.000180901436f, -8.42824593e-05f, -3.62764367e-05f, -1.79914932e-05f, -9.88163811e-06f,
     -0.105507597f, -0.067814596f, -0.0447434448f, -0.030247394f},
    {0.00615509367f, 0.00285684317f, 0.00141533744f, 0.000738839619f, 0.000325716625f, 0.000122354191f,
     5.3106065e-05f, 2.52791833e-05f, 1.00223051e-05f, 3.52390703e-06f, 1.47772255e-06f, 6.97828568e-07f,
     0.0484381542f, 0.0291918125f, 0.018517958f, 0.0119392015f},
    {-0.00199046778f, -0.000838749518f, -0.000374807743f, -0.00017752187f, -6.88749933e-05f, -2.20199308e-05f,
     -8.27399435e-06f, -3.45513558e-06f, -1.15297553e-06f, -3.33758891e-07f, -1.18550027e-07f, -4.81852496e-08f,
     -0.0200926214f, -0.0116214706f, -0.00695829093f, -0.0042512673f}};
  const V z = vlower_(vset(14.9f), vabs(x)), q = vpieces_(c, 6, z, 1);
  const V square = z * z, t = vfma(square, vset(-0.5f * LOG2E_), vset(ROUNDER_ / 32)), k = t - ROUNDER_ / 32;
  const V r = vfma(vfma(z, z, -square), vset(-0.5f), vfma(k, vset(-LN2_), square * -0.5f));
  const V e = vscale_(vpower_(t, r), k), p = e * q;
  return (Normal){vselect(x < 0, p, 1 - p), e * F(0.39894228040143267794)};
}
#else
static inline Normal vnormal(V x) {
  const V t = x * F(-0.70710678118654752440), a = vabs(t);
  const Erfc_ c = verfc_large_(a);
  const V y = c.e * (F(0.5) * c.q);
  V p = vselect(t < 0, 1 - y, y);
#if TYPE_IS == 2
  p = vselect(a < 0.5, 0.5 - 0.5 * verf_small_(t), p);
#endif
  return (Normal){p, c.e * F(0.39894228040143267794)};
}
#endif

/* Sine and cosine. x = n pi/2 + r + low, pi/2 in four parts of which n times the first three are exact; `low` collects
 * what rounding takes from r. Good for |x| up to 2^13 (2^20); beyond, and for inf and NaN, the C library does the
 * lane. */
typedef struct { VM n; V sin, cos; } Turn_;
static inline Turn_ vturn_(V x) {
  const V t = vfma(x, vset(F(0.6366197723675813430755351)), vset(ROUNDER_)), n = t - ROUNDER_;
  const V p = n * PICK_(0.000483751297, 6.077100506303966e-11), q = n * PICK_(7.54953362e-08, 2.0222662487111665e-21);
  const V a = vfma(n, vset(PICK_(-1.5703125, -1.5707963267341256)), x), b = a - p, r = b - q;
  const V low = vfma(n, vset(PICK_(-2.56334407e-12, -8.4784276603689e-32)), (a - b - p) + (b - r - q)), z = r * r;
  const V s = r + vfma(r * z,
                       POLY_(z, LIST_(-0.166666552f, 0.00833219104f, -0.000195185989f),
                             LIST_(-0.16666666666666632, 0.008333333333322476, -0.00019841269829839233,
                                   2.7557313698627415e-06, -2.505075868782087e-08, 1.5896807413019552e-10)),
                       low);
  const V c =
      (1 - F(0.5) * z) + vfma(z * z,
                              POLY_(z, LIST_(0.0416666456f, -0.0013887313f, 2.44329585e-05f),
                                    LIST_(0.0416666666666666, -0.001388888888887446, 2.4801587289656914e-05,
                                          -2.755731439524641e-07, 2.087572831369024e-09, -1.1359875939293001e-11)),
                              -r * low);
  return (Turn_){(VM)t, s, c};
}
/* quarter: 0 for sine, 1 for cosine */
static inline V vsin_(V x, int quarter) {
  const Turn_ t = vturn_(x);
  const VM n = (VM)((VU)t.n + (TU)quarter);
  V y = vselect((n & 1) == 0, t.sin, t.cos);
  y = (V)((VU)y ^ ((VU)(n & 2) << (sizeof(T) * 8 - 2)));
  const VM far = ~(VM)(vabs(x) <= PICK_(8192.0, 1048576.0));
  if (__builtin_expect(vany(far), 0))
    for (int i = 0; i < VL; i++)
      if (far[i]) y[i] = quarter ? MATH(cos)(x[i]) : MATH(sin)(x[i]);
  return y;
}
static inline V vsin(V x) { return vselect(x == 0, x, vsin_(x, 0)); }
static inline V vcos(V x) { return vsin_(x, 1); }
#else /* not IS_REAL: vectors of integers, as far as reductions need them */
#define VL ((int)(VBYTES / sizeof(T)))
#if TYPE_IS == 3
typedef int32_t TI;
typedef uint32_t TU;
#elif TYPE_IS == 4
typedef int64_t TI;
typedef uint64_t TU;
#elif TYPE_IS == 5
typedef int8_t TI;
typedef uint8_t TU;
#else
typedef int16_t TI;
typedef uint16_t TU;
#endif
typedef T V __attribute__((vector_size(VBYTES)));
typedef TI VM __attribute__((vector_size(VBYTES)));
typedef TU VU __attribute__((vector_size(VBYTES)));
static inline V vload(const T *p) { V v; memcpy(&v, p, VBYTES); return v; }
static inline void vstore(T *p, V v) { memcpy(p, &v, VBYTES); }
static inline V vload_n(const T *p, int n) { V v = {0}; memcpy(&v, p, (size_t)n * sizeof(T)); return v; }
static inline void vstore_n(T *p, V v, int n) { memcpy(p, &v, (size_t)n * sizeof(T)); }
static inline V vset(T s) { return s - (V){0}; }
static inline V vselect(VM mask, V a, V b) { return (V)((mask & (VM)a) | (~mask & (VM)b)); }
#if defined(__SSE4_1__) && TYPE_IS == 3 && VBYTES == 16
static inline V vmax(V a, V b) { return (V)_mm_max_epi32((__m128i)a, (__m128i)b); }
static inline V vmin(V a, V b) { return (V)_mm_min_epi32((__m128i)a, (__m128i)b); }
#elif defined(__SSE4_1__) && TYPE_IS == 5 && VBYTES == 16
static inline V vmax(V a, V b) { return (V)_mm_max_epu8((__m128i)a, (__m128i)b); }
static inline V vmin(V a, V b) { return (V)_mm_min_epu8((__m128i)a, (__m128i)b); }
#else
static inline V vmax(V a, V b) { return vselect((VM)(a > b), a, b); }
static inline V vmin(V a, V b) { return vselect((VM)(a < b), a, b); }
#endif
#endif /* IS_REAL */

/* The first n (1..VL) elements at p, where the compiler knows that n == VL in all but the tail of a loop. */
INLINE V load_n(const T *p, int n) { return n == VL ? vload(p) : vload_n(p, n); }
INLINE void store_n(T *p, V v, int n) {
  if (n == VL) vstore(p, v);
  else vstore_n(p, v, n);
}

#endif
