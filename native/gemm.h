/* What other kernel files use of gemm.c: the register tile, the packing of its operands, and how rows are cut into
 * tiles. FN(gemm) itself (minigrad.h) may be called from inside a piece of mg_parallel; it then runs on that thread. It
 * uses scratch slots 5, 6 and 7. */
#ifndef MINIGRAD_GEMM_H
#define MINIGRAD_GEMM_H

#include "simd.h"

/* The tallest tiles, by the number of vector registers: 32 (AVX-512, NEON) or 16. A tile 4 vectors wide reads the
 * fewest different rows of a, which counts most while a is spread out in memory. If a is packed, a tall tile is
 * better, because a narrow strip of b leaves room in the first-level cache. */
#if defined(MG_LEVEL_avx512) || defined(__aarch64__)
#define GEMM_ROWS 14                     /* 1 or 2 vectors wide */
#define GEMM_WIDE_ROWS 6                 /* 3 or 4 vectors wide */
#elif defined(MG_LEVEL_avx2)
#define GEMM_ROWS 6
#define GEMM_WIDE_ROWS 2
#else
#define GEMM_ROWS 4
#define GEMM_WIDE_ROWS 2
#endif
#define GEMM_STEPS 256                   /* steps of k in a block: with AVX-512 a strip of 2 vectors takes 32 KiB */
#define GEMM_STRIP (2 * VL)              /* columns of a packed strip of b, for callers that pack once */

/* c[rows, vectors * VL] (row stride crs) = (add ? c : 0) + a b + bias over k steps: 1 to GEMM_ROWS rows with 1 or 2
 * vectors, to GEMM_WIDE_ROWS with 3 or 4, one row with up to 8, or 4 where MG_SMALL. a: element (i, p) at i * across + p * along. b: row p
 * at p * down, columns adjacent, whole vectors readable (with AVX-512 only what is valid is read). The last vector has
 * `tail` valid columns (1..VL). bias: one value per column, or null. One chain of multiply-adds from 0 per element;
 * strides in elements. */
void FN(gemm_tile)(int rows, int vectors, int64_t k, const T *a, int64_t across, int64_t along, const T *b,
                   int64_t down, T *c, int64_t crs, int tail, int add, const T *bias);

/* to[p * width + r] = from[r * across + p * along] for r < width, p < k. Of `from`, `rows` rows may be read (more than
 * width or fewer, then the rest is 0): a strip of b (width = vectors * VL) or a tile of a (width = rows of the
 * tile). */
void FN(gemm_pack)(T *to, int64_t width, int64_t rows, int64_t k, const T *from, int64_t across, int64_t along);

/* a / b, rounded up */
static inline int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b; }
/* First row of tile i: m rows in so many tiles, the first m % tiles of them one row taller. */
static inline int64_t first_row(int64_t m, int64_t tiles, int64_t i) { return m / tiles * i + MIN(i, m % tiles); }

#endif
