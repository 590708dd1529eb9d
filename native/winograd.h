/* Convolutions by fewer multiplications (winograd.c), for conv.c: one group of 3 x 3 filters, stride 1, dilation 1. Each
 * returns 0 if a result is not finite: then the direct kernel must compute all of them. */
#ifndef MINIGRAD_WINOGRAD_H
#define MINIGRAD_WINOGRAD_H

#include "simd.h"

typedef struct {
  int64_t images, c, m;                  /* channels of the source, of the result */
  int64_t src[2], dst[2], pad[2];        /* heights and widths; zeros before the source: 0 to 2 */
} winograd;

/* Is it the faster way? By the size of one image, so that an image has the same bits in any batch. */
int FN(winograd_pays)(const winograd *s);

/* dst[m, o] = bias[m] + sum over c, tap of w * src[c, o - pad + tap]; bias may be null. The filter from c to m is at
 * w + m * across + c * along, in the reverse order if `turned`. */
int FN(winograd_forward)(T *dst, const T *src, const T *w, const T *bias, const winograd *s, int64_t across,
                         int64_t along, int turned);

/* gw[m, c, tap] = sum over images, o of g[m, o] * src[c, o - pad + tap] */
int FN(winograd_weight)(T *gw, const T *src, const T *g, const winograd *s);

#endif
