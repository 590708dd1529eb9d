/* What other kernel files use of norm.c, besides its kernels: the backward of rows whose weights' gradients are summed
 * over many calls. */
#ifndef MINIGRAD_NORM_H
#define MINIGRAD_NORM_H

#include "simd.h"

/* gx (may be gy) for `rows` rows of n elements, as in layer_norm_backward (centred) or rms_norm_backward. The terms of
 * gweight are added to sums[0..n), and if centred those of gbias to sums[n..2n). sums may be null. */
void FN(norm_rows_backward)(T *gx, T *sums, const T *gy, const T *x, const T *mean, const T *rstd, const T *weight,
                            int64_t rows, int64_t n, int64_t centred);

#endif
