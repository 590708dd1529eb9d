/* Every C kernel of minigrad, once. build_cffi.py reads this file for cffi's cdef, the per-ISA dispatch table and
 * the replay thunks; each kernel file includes it, so a definition that disagrees does not compile; tests hold it
 * against the kernels the Python side registers.
 *
 *   KERNEL(TYPES, name, arguments)     one function per element type of TYPES, called `name_<type>` from Python
 *
 * TYPES   REAL f32 f64 | NUMBER f32 f64 i32 i64 | ANY f32 f64 i32 i64 u8 (u8 is bool: 0 or 1)
 *         MOVE u8 u16 i32 i64: kernels that only move elements, chosen by item size, whatever the dtype
 *         ONCE: no element type, plain name.
 * T       the element type. Outputs come first, then inputs, then sizes, then scalars (always double).
 *         Arguments are pointers, int64_t and double, nothing else: 8 bytes each, as program.c replays them.
 * plan    `const int64_t *plan`: how N-d operands are walked, made once per signature by minigrad/shape.py:
 *         { ndim, size, shape[ndim], strides of operand 0 (the output)[ndim], strides of operand 1[ndim], ... }
 *         strides in elements, 0 where an operand is broadcast, dimensions coalesced, so that ndim == 1 and all
 *         strides 1 is the common case.
 * A pointer may be null only where the kernel's file says so. No kernel checks shapes: the op's shape rule did.
 */
#ifndef MINIGRAD_H
#define MINIGRAD_H

#include <stdint.h>

#define MG_CAT4_(a, b, c, d) a##b##c##d
#define MG_CAT4(a, b, c, d) MG_CAT4_(a, b, c, d)
#define MG_CAT2_(a, b) a##b
#define MG_CAT2(a, b) MG_CAT2_(a, b)
/* MG_TYPE (f32, f64, ...) and MG_LEVEL (baseline, avx2, avx512) come from the compiler's command line. */
#ifdef MG_TYPE
#define FN(name) MG_CAT4(name##_, MG_TYPE, _, MG_LEVEL)
#define KERNEL(types, name, ...) void MG_CAT2(KERNEL_, types)(name)(__VA_ARGS__);
#define KERNEL_REAL FN
#define KERNEL_NUMBER FN
#define KERNEL_ANY FN
#define KERNEL_MOVE FN
#define KERNEL_ONCE

/* the element type: T */
#define MG_T_f32 float
#define MG_T_f64 double
#define MG_T_i32 int32_t
#define MG_T_i64 int64_t
#define MG_T_u8 uint8_t
#define MG_T_u16 uint16_t
#define T MG_CAT2(MG_T_, MG_TYPE)
#define MG_IS_f32 1
#define MG_IS_f64 2
#define MG_IS_i32 3
#define MG_IS_i64 4
#define MG_IS_u8 5
#define MG_IS_u16 6
#define TYPE_IS MG_CAT2(MG_IS_, MG_TYPE)
#define IS_REAL (TYPE_IS <= 2)

/* ---- gemm.c: strides in elements, any sign; bias may be null; offsets (c, a, b per item) may be null when batch == 1 ---- */
KERNEL(REAL, gemm, T *c, const T *a, const T *b, const T *bias, const int64_t *offsets, int64_t batch, int64_t m, int64_t n, int64_t k, int64_t ars, int64_t acs, int64_t brs, int64_t bcs, int64_t crs, int64_t accumulate)

/* ---- norm.c ---- */
KERNEL(REAL, layer_norm_forward, T *y, T *mean, T *rstd, const T *x, const T *weight, const T *bias, int64_t rows, int64_t n, double eps)
KERNEL(REAL, layer_norm_backward, T *gx, T *gweight, T *gbias, T *partial, const T *gy, const T *x, const T *mean, const T *rstd, const T *weight, int64_t rows, int64_t n)

#endif
#endif
