/* The element type of a compilation, for C and CUDA. MG_TYPE (f32, f64, i32, i64, u8, u16) comes from the compiler's
 * command line; T, TYPE_IS and IS_REAL follow from it.
 *
 * This text is valid C and CUDA. build_cffi.py embeds it in the module, and minigrad/devices/cuda.py puts it in front
 * of each .cu file, before everything else: NVRTC has no stdint.h.
 */
#ifndef MINIGRAD_TYPES_H
#define MINIGRAD_TYPES_H

#if defined(__CUDACC__) && !defined(CUDA_ON_CPU)
typedef long long int64_t;
typedef unsigned long long uint64_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef unsigned short uint16_t;
typedef unsigned char uint8_t;
#elif !defined(CUDA_ON_CPU)
#include <stdint.h>
#endif

#define MG_CAT2_(a, b) a##b
#define MG_CAT2(a, b) MG_CAT2_(a, b)

#define MG_T_f32 float
#define MG_T_f64 double
#define MG_T_i32 int32_t
#define MG_T_i64 int64_t
#define MG_T_u8 uint8_t
#define MG_T_u16 uint16_t
#define MG_IS_f32 1
#define MG_IS_f64 2
#define MG_IS_i32 3
#define MG_IS_i64 4
#define MG_IS_u8 5
#define MG_IS_u16 6

#ifdef MG_TYPE
#define T MG_CAT2(MG_T_, MG_TYPE)
#define TYPE_IS MG_CAT2(MG_IS_, MG_TYPE)
#define IS_REAL (TYPE_IS <= 2)
#else
#define IS_REAL 0
#endif

/* the full name of a C kernel: MG_LEVEL (baseline, avx2, avx512) comes from the command line, too */
#define MG_CAT4_(a, b, c, d) a##b##c##d
#define MG_CAT4(a, b, c, d) MG_CAT4_(a, b, c, d)
#define FN(name) MG_CAT4(name##_, MG_TYPE, _, MG_LEVEL)

#endif
