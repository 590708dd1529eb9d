/* What norm.c lends to other kernel files, beside the kernels themselves: the backward of rows whose weights' gradients
 * are summed over many calls. */
#ifndef MINIGRAD_NORM_H
#define MINIGRAD_NORM_H

#include "simd.h"

/* gx (may be gy) for `rows` rows of n elements, as layer_norm_backward (centred) or rms_norm_backward; sums[n] += what
 * gweight is the sum of, and if centred sums[n..2n) += what gbias is the sum of. sums may be null. */
void FN(norm_rows_backward)(T *gx, T *sums, const T *gy, const T *x, const T *mean, const T *rstd, const T *weight,
                            int64_t rows, int64_t n, int64_t centred);

#endif
