/* Convolutions by fewer multiplications (winograd.c), for conv.c: one group of 3 x 3 filters, stride 1, dilation 1. A
 * function that returns 0 has no result to give: the direct kernel must compute it. */
#ifndef MINIGRAD_WINOGRAD_H
#define MINIGRAD_WINOGRAD_H

#include "gemm.h"

typedef struct {
  int64_t images, c, m;                  /* channels of the source, of the result */
  int64_t src[2], dst[2], pad[2];        /* heights and widths; zeros before the source: 0 to 2 */
} winograd;

/* It is there for float32, at the levels with enough registers for large tiles of a product. */
#define WINOGRAD (TYPE_IS == 1 && GEMM_ROWS > 4)

/* Is it the faster way? It depends on the size of an image, not on their number, so that an image has the same bits in
 * any batch. */
int FN(winograd_pays)(const winograd *s);

/* dst[m, o] = bias[m] + sum over c, tap of w * src[c, o - pad + tap]; bias may be null. The filter from c to m is at
 * w + m * across + c * along, its taps in the reverse order if `turned`. 0 if a result is not finite. */
int FN(winograd_forward)(T *dst, const T *src, const T *w, const T *bias, const winograd *s, int64_t across,
                         int64_t along, int turned);

/* gw[m, c, tap] = sum over images, o of g[m, o] * src[c, o - pad + tap]. 0 if one is not finite. */
int FN(winograd_weight)(T *gw, const T *src, const T *g, const winograd *s);

#endif
