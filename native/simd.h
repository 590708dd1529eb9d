/* One vector type, V: VL elements of T, at the width of the ISA level this file is compiled for. Arithmetic is the
 * compiler's (GCC and Clang vector extensions: + - * / and comparisons work on V as they are); this header adds what
 * they lack: tails, fused multiply-add, horizontal sums, and the elementary functions. x86 intrinsics stand here only.
 *
 *   V  vload(p)  vstore(p, v)               unaligned, VL elements
 *   V  vload_n(p, n)  vstore_n(p, v, n)     the first n (0..VL) elements; the rest reads as 0, is not written
 *   V  vset(s)   vzero()   vfma(a, b, c) = a * b + c   (two roundings at the baseline level)
 *   V  vmax  vmin (NaN in either operand gives NaN)   vsqrt  vabs  vselect(mask, a, b)   mask: VM, from a < b ...
 *   T  vsum(v)  vmaxall(v)  vminall(v)      in a fixed order
 */
#ifndef MINIGRAD_SIMD_H
#define MINIGRAD_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "minigrad.h"

#if defined(MG_LEVEL_avx512)
#include <immintrin.h>
#define VBYTES 64
#elif defined(MG_LEVEL_avx2)
#include <immintrin.h>
#define VBYTES 32
#else
#define VBYTES 16
#if defined(__SSE2__)
#include <immintrin.h>
#endif
#endif

#if IS_REAL
#define VL ((int)(VBYTES / sizeof(T)))
#if TYPE_IS == 1
typedef int32_t TI;                       /* the integer as wide as T */
#define EPSILON 1.1920929e-07f
#define F(c) c##f                          /* a literal of type T: F(0.5) */
#define MATH(f) f##f                       /* libm's function for T: MATH(exp) */
#else
typedef int64_t TI;
#define EPSILON 2.220446049250313e-16
#define F(c) c
#define MATH(f) f
#endif
typedef T V __attribute__((vector_size(VBYTES)));
typedef TI VM __attribute__((vector_size(VBYTES)));   /* a mask: all bits of a lane 0 or 1; also the integer vector */

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
static inline __m256i tail_(int n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
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

static inline V vabs(V a) { return (V)((VM)a & ~(VM)vset(F(-0.0))); }
static inline V vmax(V a, V b) { return vselect((VM)((a > b) | (a != a)), a, b); }   /* b NaN: a > b is false, b is taken */
static inline V vmin(V a, V b) { return vselect((VM)((a < b) | (a != a)), a, b); }

/* Horizontal: halves folded onto each other, so the order is the same at each call. */
static inline T vsum(V v) {
  T t[VBYTES / sizeof(T)];
  memcpy(t, &v, VBYTES);
  for (int k = VL / 2; k > 0; k /= 2)
    for (int i = 0; i < k; i++) t[i] += t[i + k];
  return t[0];
}
static inline T vmaxall(V v) { T m = v[0]; for (int i = 1; i < VL; i++) m = v[i] > m || v[i] != v[i] ? v[i] : m; return m; }
static inline T vminall(V v) { T m = v[0]; for (int i = 1; i < VL; i++) m = v[i] < m || v[i] != v[i] ? v[i] : m; return m; }
#endif /* IS_REAL */

#endif
