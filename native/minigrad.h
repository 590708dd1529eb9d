/* The list of all C kernels of minigrad. build_cffi.py makes from it the cdef of cffi, the table of functions for each
 * SIMD level, and the thunks for replay. Each kernel file includes it, so a definition that differs does not compile.
 * Tests compare it with the kernels that the Python side uses.
 *
 *   KERNEL(TYPES, name, arguments)     one function per element type of TYPES, called `name_<type>` from Python
 *
 * TYPES   REAL f32 f64 | NUMBER f32 f64 i32 i64 | ANY f32 f64 i32 i64 u8 (u8 is bool: 0 or 1)
 *         MOVE u8 u16 i32 i64: kernels that only move elements, chosen by item size, whatever the dtype
 *         BOOL u8 | LONG i64: one type only
 *         ONCE: no element type, plain name.
 * T       the element type (types.h). Outputs come first, then inputs, then sizes, then scalars (always double).
 *         Arguments are pointers, int64_t and double, nothing else: 8 bytes each, as program.c replays them.
 * plan    `const int64_t *plan`: how N-d operands are walked, made once per signature by minigrad/devices/plan.py:
 *         { ndim, size, shape[ndim], strides of operand 0 (the output)[ndim], strides of operand 1[ndim], ... }
 *         strides in elements, 0 where an operand is broadcast, dimensions coalesced, so that ndim == 1 and all
 *         strides 1 is the common case.
 * A pointer may be null only where the kernel's file says so. No kernel checks shapes: the shape rule of its op has
 * done that.
 */
#ifndef MINIGRAD_H
#define MINIGRAD_H

#include "types.h"
#include "workspace.h"

/* MG_TYPE (f32, f64, ...) and MG_LEVEL (baseline, avx2, avx512) come from the compiler's command line. */
#ifdef MG_TYPE
#define KERNEL(types, name, ...) void MG_CAT2(KERNEL_, types)(name)(__VA_ARGS__);
#define KERNEL_REAL FN
#define KERNEL_NUMBER FN
#define KERNEL_ANY FN
#define KERNEL_MOVE FN
#define KERNEL_BOOL FN
#define KERNEL_LONG FN
#define KERNEL_ONCE

/* ---- elementwise.c ---- */
/* out may be a (or b) with the same layout, except in casts to another item size */
#define UNARY(types, name) KERNEL(types, name, T *out, const T *a, const int64_t *plan)
#define BINARY(types, name) KERNEL(types, name, T *out, const T *a, const T *b, const int64_t *plan)
#define COMPARE(types, name) KERNEL(types, name, uint8_t *out, const T *a, const T *b, const int64_t *plan)
#define CLASSIFY(types, name) KERNEL(types, name, uint8_t *out, const T *a, const int64_t *plan)
UNARY(MOVE, copy)
KERNEL(MOVE, where, T *out, const uint8_t *condition, const T *a, const T *b, const int64_t *plan)
KERNEL(ANY, cast_f32, float *out, const T *a, const int64_t *plan)
KERNEL(ANY, cast_f64, double *out, const T *a, const int64_t *plan)
KERNEL(ANY, cast_i32, int32_t *out, const T *a, const int64_t *plan)
KERNEL(ANY, cast_i64, int64_t *out, const T *a, const int64_t *plan)
KERNEL(ANY, cast_u8, uint8_t *out, const T *a, const int64_t *plan)
UNARY(NUMBER, neg)
UNARY(NUMBER, abs)
UNARY(NUMBER, sign)
UNARY(NUMBER, square)
BINARY(NUMBER, add)
BINARY(NUMBER, sub)
BINARY(NUMBER, mul)
BINARY(NUMBER, maximum)
BINARY(NUMBER, minimum)
BINARY(NUMBER, floor_divide)
BINARY(NUMBER, remainder)
BINARY(NUMBER, fmod)
BINARY(REAL, div)
BINARY(REAL, pow)
BINARY(REAL, atan2)
UNARY(REAL, exp)
UNARY(REAL, exp2)
UNARY(REAL, expm1)
UNARY(REAL, log)
UNARY(REAL, log2)
UNARY(REAL, log10)
UNARY(REAL, log1p)
UNARY(REAL, sqrt)
UNARY(REAL, rsqrt)
UNARY(REAL, reciprocal)
UNARY(REAL, sin)
UNARY(REAL, cos)
UNARY(REAL, tan)
UNARY(REAL, asin)
UNARY(REAL, acos)
UNARY(REAL, atan)
UNARY(REAL, sinh)
UNARY(REAL, cosh)
UNARY(REAL, tanh)
UNARY(REAL, asinh)
UNARY(REAL, acosh)
UNARY(REAL, atanh)
UNARY(REAL, sigmoid)
UNARY(REAL, erf)
UNARY(REAL, erfc)
UNARY(REAL, erfinv)
UNARY(REAL, lgamma)
UNARY(REAL, digamma)
UNARY(REAL, floor)
UNARY(REAL, ceil)
UNARY(REAL, round)
UNARY(REAL, trunc)
COMPARE(ANY, eq)
COMPARE(ANY, ne)
COMPARE(ANY, lt)
COMPARE(ANY, le)
COMPARE(ANY, gt)
COMPARE(ANY, ge)
CLASSIFY(REAL, isnan)
CLASSIFY(REAL, isinf)
CLASSIFY(REAL, isfinite)
BINARY(BOOL, logical_and)
BINARY(BOOL, logical_or)
BINARY(BOOL, logical_xor)
UNARY(BOOL, logical_not)

/* ---- activation.c: g is the gradient of the output, x the input, y the output of the forward kernel ---- */
#define BACKWARD(types, name) KERNEL(types, name, T *gx, const T *g, const T *x, const int64_t *plan)
UNARY(REAL, relu)
BACKWARD(REAL, relu_backward)
UNARY(REAL, gelu)
BACKWARD(REAL, gelu_backward)
UNARY(REAL, gelu_tanh)
BACKWARD(REAL, gelu_tanh_backward)
UNARY(REAL, silu)
BACKWARD(REAL, silu_backward)
UNARY(REAL, mish)
BACKWARD(REAL, mish_backward)
UNARY(REAL, selu)
BACKWARD(REAL, selu_backward)
UNARY(REAL, relu6)
BACKWARD(REAL, relu6_backward)
UNARY(REAL, hardswish)
BACKWARD(REAL, hardswish_backward)
UNARY(REAL, hardsigmoid)
BACKWARD(REAL, hardsigmoid_backward)
UNARY(REAL, softsign)
BACKWARD(REAL, softsign_backward)
UNARY(REAL, logsigmoid)
BACKWARD(REAL, logsigmoid_backward)
/* `tails`: x is read where y is nearly constant (else it may be anything of its layout) */
KERNEL(REAL, tanh_backward, T *gx, const T *g, const T *y, const T *x, const int64_t *plan, int64_t tails)
KERNEL(REAL, sigmoid_backward, T *gx, const T *g, const T *y, const T *x, const int64_t *plan, int64_t tails)
KERNEL(REAL, softplus, T *out, const T *a, const int64_t *plan, double beta, double threshold)
KERNEL(REAL, softplus_backward, T *gx, const T *g, const T *x, const int64_t *plan, double beta, double threshold)
KERNEL(REAL, elu, T *out, const T *a, const int64_t *plan, double alpha)
KERNEL(REAL, elu_backward, T *gx, const T *g, const T *x, const int64_t *plan, double alpha)
KERNEL(REAL, celu, T *out, const T *a, const int64_t *plan, double alpha)
KERNEL(REAL, celu_backward, T *gx, const T *g, const T *x, const int64_t *plan, double alpha)
KERNEL(REAL, leaky_relu, T *out, const T *a, const int64_t *plan, double slope)
KERNEL(REAL, leaky_relu_backward, T *gx, const T *g, const T *x, const int64_t *plan, double slope)
KERNEL(REAL, hardtanh, T *out, const T *a, const int64_t *plan, double low, double high)
KERNEL(REAL, hardtanh_backward, T *gx, const T *g, const T *x, const int64_t *plan, double low, double high)

/* ---- random.c ---- */
/* state = {key, counter low, counter high, unused}; the launch itself advances the counter */
KERNEL(REAL, uniform, T *out, int64_t *state, int64_t n, double low, double high)
KERNEL(REAL, normal, T *out, int64_t *state, int64_t n, double mean, double std)
KERNEL(REAL, dropout_forward, T *y, uint8_t *mask, const T *x, int64_t *state, int64_t n, double p)
KERNEL(REAL, dropout_backward, T *gx, const T *gy, const uint8_t *mask, int64_t n, double p)
KERNEL(BOOL, bernoulli_mask, uint8_t *out, int64_t *state, int64_t n, double p)
KERNEL(LONG, random_bits, int64_t *out, int64_t *state, int64_t n)

/* ---- gemm.c ---- */
/* strides in elements, of any sign; bias may be null; offsets (of c, a, b for each item) may be null if batch == 1 */
KERNEL(REAL, gemm,
    T *c, const T *a, const T *b, const T *bias, const int64_t *offsets, int64_t batch, int64_t m, int64_t n, int64_t k,
    int64_t ars, int64_t acs, int64_t brs, int64_t bcs, int64_t crs, int64_t accumulate)

/* ---- conv.c ---- */
/* geometry = { images, groups, c, k, in[3], out[3], kernel[3], stride[3], pad before[3], dilation[3] }, where c and k
 * are the channels of a group of x and of y. x [images, groups * c, in], w [groups * k, c, kernel],
 * y [images, groups * k, out]; bias may be null. A transposed convolution is backward_input.
 * sums: T[chunks * the size of w] */
KERNEL(REAL, conv_forward, T *y, const T *x, const T *w, const T *bias, const int64_t *geometry)
KERNEL(REAL, conv_backward_input, T *gx, const T *gy, const T *w, const T *bias, const int64_t *geometry)
KERNEL(REAL, conv_backward_weight, T *gw, T *sums, const T *x, const T *gy, const int64_t *geometry, int64_t chunks)

/* ---- pool.c ---- */
/* geometry = { planes, count_include_pad, divisor (0: the number of elements), in[3], out[3], kernel[3] (0: adaptive),
 * stride[3], padding[3], dilation[3] }; x [planes, in], y [planes, out]; index: the flat index within `in`, or -1 for a
 * window that has no element of x */
KERNEL(REAL, max_pool_forward, T *y, int64_t *index, const T *x, const int64_t *geometry)
KERNEL(REAL, max_pool_backward, T *gx, const T *g, const int64_t *index, const int64_t *geometry)
KERNEL(REAL, avg_pool_forward, T *y, const T *x, const int64_t *geometry)
KERNEL(REAL, avg_pool_backward, T *gx, const T *g, const int64_t *geometry)

/* ---- norm.c ---- */
/* for sums over rows (or samples) the rows are split into mg_chunks(rows) chunks; partial has a row of sums for each */
KERNEL(REAL, layer_norm_forward,
    T *y, T *mean, T *rstd, const T *x, const T *weight, const T *bias, int64_t rows, int64_t n, double eps)
/* partial: T[mg_chunks(rows) * 2 * n] */
KERNEL(REAL, layer_norm_backward,
    T *gx, T *gweight, T *gbias, T *partial, const T *gy, const T *x, const T *mean, const T *rstd, const T *weight,
    int64_t rows, int64_t n)
KERNEL(REAL, rms_norm_forward, T *y, T *rstd, const T *x, const T *weight, int64_t rows, int64_t n, double eps)
/* partial: T[mg_chunks(rows) * n] */
KERNEL(REAL, rms_norm_backward,
    T *gx, T *gweight, T *partial, const T *gy, const T *x, const T *rstd, const T *weight, int64_t rows, int64_t n)
/* x is [batch, channels, inner]; mean var rstd are [channels], var biased */
KERNEL(REAL, batch_norm_forward,
    T *y, T *mean, T *var, T *rstd, const T *x, const T *weight, const T *bias, int64_t batch, int64_t channels,
    int64_t inner, double eps)
KERNEL(REAL, batch_norm_backward,
    T *gx, T *gweight, T *gbias, const T *gy, const T *x, const T *mean, const T *rstd, const T *weight, int64_t batch,
    int64_t channels, int64_t inner)
KERNEL(REAL, batch_norm_eval_forward,
    T *y, const T *x, const T *mean, const T *var, const T *weight, const T *bias, int64_t batch, int64_t channels,
    int64_t inner, double eps)
KERNEL(REAL, batch_norm_eval_backward,
    T *gx, T *gweight, T *gbias, const T *gy, const T *x, const T *mean, const T *var, const T *weight, int64_t batch,
    int64_t channels, int64_t inner, double eps)
/* running = (1 - momentum) * running + momentum * scale * value */
KERNEL(REAL, running_update, T *running, const T *value, int64_t n, double momentum, double scale)
/* the same where count is 2 at least; the scale is 1, with `unbiased` count / (count - 1) */
KERNEL(REAL, counted_update,
    T *running, const T *value, const T *count, int64_t n, int64_t unbiased, double momentum)
/* x mask are [batch, sets, n]; mean var rstd count are [sets], by the elements with mask; 0 is written for the others.
 * Element e has weight and bias e / each % channels, where n is a multiple of each. */
KERNEL(REAL, valid_norm_forward,
    T *y, T *mean, T *var, T *rstd, T *count, const T *x, const uint8_t *mask, const T *weight, const T *bias,
    int64_t batch, int64_t sets, int64_t n, int64_t each, int64_t channels, int64_t centered, double eps)
KERNEL(REAL, valid_norm_backward,
    T *gx, T *gweight, T *gbias, const T *gy, const T *x, const uint8_t *mask, const T *mean, const T *rstd,
    const T *count, const T *weight, int64_t batch, int64_t sets, int64_t n, int64_t each, int64_t channels,
    int64_t centered)
/* x is [batch, groups, cpg, inner]; mean rstd are [batch, groups]; instance norm is cpg == 1.
 * partial: T[2 * batch * groups * cpg] */
KERNEL(REAL, group_norm_forward,
    T *y, T *mean, T *rstd, const T *x, const T *weight, const T *bias, int64_t batch, int64_t groups, int64_t cpg,
    int64_t inner, double eps)
KERNEL(REAL, group_norm_backward,
    T *gx, T *gweight, T *gbias, T *partial, const T *gy, const T *x, const T *mean, const T *rstd, const T *weight,
    int64_t batch, int64_t groups, int64_t cpg, int64_t inner)

/* ---- rnn.c ---- */
/* One layer in one direction. kind: 0 tanh, 1 relu, 2 LSTM, 3 GRU; norm: 0 none, 1 layer, 2 rms. n = gates * hidden;
 * outputs == hidden unless there is w_hr. May be null: h0 c0 b_ih b_hh mask lengths, the norms' weights and biases;
 * what this kind does not have (cn cells tanhc: LSTM only; inner: GRU only; gates: LSTM and GRU); gradients that are
 * not wanted, except gh0 and gc0. Shapes: y [steps, batch, outputs], gates [.., n], cells tanhc inner [.., hidden];
 * with w_hr projected [.., hidden]; with norm raw_x raw_h [.., n] and stats [6, steps, batch]; hin [.., outputs] if
 * mask, or if lengths and reverse. work: T[mg_rnn_forward_work(...)] */
KERNEL(REAL, rnn_forward,
    T *y, T *hn, T *cn, T *gates, T *cells, T *tanhc, T *inner, T *projected, T *raw_x, T *raw_h, T *stats, T *hin,
    T *work, const T *x, const T *h0, const T *c0, const T *w_ih, const T *w_hh, const T *w_hr, const T *b_ih,
    const T *b_hh, const T *nw_ih, const T *nb_ih, const T *nw_hh, const T *nb_hh, const T *nw_c, const T *nb_c,
    const T *mask, const int64_t *lengths, int64_t steps, int64_t batch, int64_t inputs, int64_t hidden,
    int64_t outputs, int64_t kind, int64_t norm, int64_t reverse, double eps)
/* dx dr [mg_rnn_steps(batch, n), batch, n], where dr is dx without norm if the kind is not GRU; dhs [.., outputs] with
 * w_hr; gb_hh is its own array for GRU only. sums: T[mg_rnn_sums(...)], work: T[mg_rnn_backward_work(...)] */
KERNEL(REAL, rnn_backward,
    T *gx, T *gh0, T *gc0, T *gw_ih, T *gw_hh, T *gw_hr, T *gb_ih, T *gb_hh, T *gnw_ih, T *gnw_hh, T *gnw_c, T *gnb_c,
    T *dx, T *dr, T *dhs, T *sums, T *work, const T *gy, const T *ghn, const T *gcn, const T *x, const T *h0,
    const T *c0, const T *w_ih, const T *w_hh, const T *w_hr, const T *nw_ih, const T *nw_hh, const T *nw_c,
    const T *mask, const int64_t *lengths, const T *y, const T *gates, const T *cells, const T *tanhc, const T *inner,
    const T *projected, const T *raw_x, const T *raw_h, const T *stats, const T *hin, int64_t steps, int64_t batch,
    int64_t inputs, int64_t hidden, int64_t outputs, int64_t kind, int64_t norm, int64_t reverse)

/* bad[0]: first position where x is not in [low, high] or is NaN, else -1 */
KERNEL(REAL, check_range, int64_t *bad, const T *x, int64_t n, double low, double high)

/* ---- softmax.c: along the middle axis of [outer, n, inner] ---- */
KERNEL(REAL, softmax_forward, T *y, const T *x, int64_t outer, int64_t n, int64_t inner)
KERNEL(REAL, softmax_backward, T *gx, const T *gy, const T *y, int64_t outer, int64_t n, int64_t inner)
KERNEL(REAL, log_softmax_forward, T *y, const T *x, int64_t outer, int64_t n, int64_t inner)
KERNEL(REAL, log_softmax_backward, T *gx, const T *gy, const T *y, int64_t outer, int64_t n, int64_t inner)
KERNEL(REAL, logsumexp_forward, T *y, const T *x, int64_t outer, int64_t n, int64_t inner)
KERNEL(REAL, logsumexp_backward, T *gx, const T *gy, const T *x, int64_t outer, int64_t n, int64_t inner)
/* reduction: 0 none, 1 mean, 2 sum. items [outer, inner]: the losses (the result for none; loss and wsum may then be
 * null); loss [1]: reduced; wsum [1]: the divisor of the mean; stats T[2 * outer * inner]: the maxima of the logits,
 * then log(sum(exp(logits - maximum))) */
KERNEL(REAL, cross_entropy_forward,
    T *loss, T *wsum, T *items, T *stats, const T *logits, const int64_t *target, const T *weight, int64_t outer,
    int64_t classes, int64_t inner, int64_t ignore_index, int64_t reduction, double label_smoothing)
KERNEL(REAL, cross_entropy_backward,
    T *gx, const T *gloss, const T *wsum, const T *stats, const T *logits, const int64_t *target, const T *weight,
    int64_t outer, int64_t classes, int64_t inner, int64_t ignore_index, int64_t reduction, double label_smoothing)

/* ---- attention.c ---- */
/* softmax(scale q k^T + mask) v for `items` problems. table: int64[items][8], the elements at which q [rows, depth],
 * k [keys, depth], v [keys, value_depth], the mask, out [rows, value_depth] and the gradients gq, gk, gv of an item
 * begin; gout begins where out does. Their rows are q_row, k_row, v_row, out_row (also gout's), gq_row, gk_row, gv_row
 * elements apart. lse [items, rows] and all other arrays are contiguous. The mask is `bias`
 * (added) or `allowed` (0: left out), at row * mask_row + key * mask_key, where mask_key is 0 or 1; both may be null.
 * stream: a Philox state, or null without dropout; a weight is dropped if word (item * rows + row) * keys + key is
 * below p * 2^32. weights [items, rows, keys] may be null; gradients that are null are not computed. All sizes are at
 * least 1. */
KERNEL(REAL, attention_forward,
    T *out, T *lse, T *weights, const T *q, const T *k, const T *v, const T *bias, const uint8_t *allowed,
    const int64_t *stream, const int64_t *table, int64_t items, int64_t rows, int64_t keys, int64_t depth,
    int64_t value_depth, int64_t q_row, int64_t k_row, int64_t v_row, int64_t out_row, int64_t gq_row, int64_t gk_row,
    int64_t gv_row, int64_t mask_row, int64_t mask_key, int64_t causal, double scale, double p)
KERNEL(REAL, attention_backward,
    T *gq, T *gk, T *gv, const T *gout, const T *out, const T *lse, const T *q, const T *k, const T *v, const T *bias,
    const uint8_t *allowed, const int64_t *stream, const int64_t *table, int64_t items, int64_t rows, int64_t keys,
    int64_t depth, int64_t value_depth, int64_t q_row, int64_t k_row, int64_t v_row, int64_t out_row, int64_t gq_row,
    int64_t gk_row, int64_t gv_row, int64_t mask_row, int64_t mask_key, int64_t causal, double scale, double p)

/* ---- loss.c ---- */
/* elementwise loss and its reduction (0 none: loss [n]; 1 mean, 2 sum: loss [1]); gloss has the shape of loss.
 * partial: T[mg_loss_chunks(n)]; weight, pos_weight: T[n] or null; gx or gtarget may be null */
KERNEL(REAL, mse_loss_forward, T *loss, T *partial, const T *x, const T *target, int64_t n, int64_t reduction)
KERNEL(REAL, mse_loss_backward,
    T *gx, T *gtarget, const T *gloss, const T *x, const T *target, int64_t n, int64_t reduction)
KERNEL(REAL, l1_loss_forward, T *loss, T *partial, const T *x, const T *target, int64_t n, int64_t reduction)
KERNEL(REAL, l1_loss_backward,
    T *gx, T *gtarget, const T *gloss, const T *x, const T *target, int64_t n, int64_t reduction)
/* scale * huber(delta): smooth_l1(beta) is delta = beta, scale = 1 / beta */
KERNEL(REAL, huber_loss_forward,
    T *loss, T *partial, const T *x, const T *target, int64_t n, int64_t reduction, double delta, double scale)
KERNEL(REAL, huber_loss_backward,
    T *gx, T *gtarget, const T *gloss, const T *x, const T *target, int64_t n, int64_t reduction, double delta,
    double scale)
KERNEL(REAL, bce_loss_forward,
    T *loss, T *partial, const T *x, const T *target, const T *weight, int64_t n, int64_t reduction)
KERNEL(REAL, bce_loss_backward,
    T *gx, T *gtarget, const T *gloss, const T *x, const T *target, const T *weight, int64_t n, int64_t reduction)
KERNEL(REAL, bce_logits_loss_forward,
    T *loss, T *partial, const T *x, const T *target, const T *weight, const T *pos_weight, int64_t n,
    int64_t reduction)
KERNEL(REAL, bce_logits_loss_backward,
    T *gx, T *gtarget, const T *gloss, const T *x, const T *target, const T *weight, const T *pos_weight, int64_t n,
    int64_t reduction)

/* ---- reduce.c ---- */
/* The plan of a reduction has another form: {nkeep, nreduce, keep_shape[], reduce_shape[], keep_strides[],
 * reduce_strides[]}: the dimensions kept (row-major in the contiguous output) and those reduced. Strides of x are in
 * elements, of any sign, 0 where broadcast; devices/plan.py coalesces each of the two groups. The reduced dimensions
 * may come in any order (best: falling stride), except for argmax and argmin. max min argmax argmin need at least one
 * element per output. */
#define REDUCE(types, name) KERNEL(types, name, T *out, const T *x, const int64_t *plan)
REDUCE(NUMBER, sum)
REDUCE(NUMBER, prod)
REDUCE(ANY, max)
REDUCE(ANY, min)
/* flat row-major index within the reduced dimensions of the first maximum (minimum, NaN) */
#define REDUCE_INDEX(types, name) KERNEL(types, name, int64_t *out, const T *x, const int64_t *plan)
REDUCE_INDEX(ANY, argmax)
REDUCE_INDEX(ANY, argmin)
REDUCE_INDEX(ANY, count_nonzero)
#define REDUCE_BOOL(types, name) KERNEL(types, name, uint8_t *out, const T *x, const int64_t *plan)
REDUCE_BOOL(ANY, any)
REDUCE_BOOL(ANY, all)
REDUCE(REAL, mean)
REDUCE(REAL, norm)
/* mean, and the variance sum((x - mean)^2) / divisor or (root 1) its square root */
KERNEL(REAL, moments, T *mean, T *spread, const T *x, const int64_t *plan, double divisor, int64_t root)
/* along the middle axis of [outer, n, inner] */
#define SCAN(types, name) KERNEL(types, name, T *out, const T *x, int64_t outer, int64_t n, int64_t inner)
SCAN(NUMBER, cumsum)
SCAN(NUMBER, cumprod)

/* ---- index.c ---- */
/* an index is int64, and was checked and wrapped to [0, n) before (check_index); one that is not any more makes the
 * kernel fail */
/* out[o, j, i] = x[o, index[j], i]   x [outer, n, inner], out [outer, m, inner], index [m] */
KERNEL(MOVE, take, T *out, const T *x, const int64_t *index, int64_t outer, int64_t m, int64_t n, int64_t inner)
/* out[o, j, i] = x[o, index[o, j, i], i]   x [outer, n, inner], index and out [outer, m, inner] */
KERNEL(MOVE, gather, T *out, const T *x, const int64_t *index, int64_t outer, int64_t m, int64_t n, int64_t inner)
/* the transposes, in place, one j after the other: out [outer, n, inner], src [outer, m, inner]
 * index_add: out[o, index[j], i] += src[o, j, i]; scatter_add: out[o, index[o, j, i], i] += src[o, j, i]; scatter: = */
KERNEL(NUMBER, index_add,
    T *out, const int64_t *index, const T *src, int64_t outer, int64_t m, int64_t n, int64_t inner)
KERNEL(NUMBER, scatter_add,
    T *out, const int64_t *index, const T *src, int64_t outer, int64_t m, int64_t n, int64_t inner)
KERNEL(MOVE, scatter, T *out, const int64_t *index, const T *src, int64_t outer, int64_t m, int64_t n, int64_t inner)
/* an index is wrong if it is neither in [low, high) nor equal to ignore: then flag gets [number, a wrong index], unless
 * flag[0] is set. out: the indices; those in [low, 0) count from the end (index + high), a wrong one is 0. out and flag
 * may be null */
KERNEL(ONCE, check_index, int64_t *out, int64_t *flag, const int64_t *index, int64_t n, int64_t low, int64_t high,
    int64_t ignore, int64_t number)

/* ---- sort.c: along the middle axis of [outer, n, inner] ---- */
/* The indices of the elements in sorted order; ties keep their order, NaN counts as the largest. topk: the first k <= n
 * of them, out [outer, k, inner]. */
KERNEL(ANY, argsort, int64_t *out, const T *x, int64_t outer, int64_t n, int64_t inner, int64_t descending)
KERNEL(ANY, topk, int64_t *out, const T *x, int64_t outer, int64_t n, int64_t inner, int64_t k, int64_t largest)

/* ---- optim.c: one launch for all parameters ---- */
/* table: `count` rows of MG_OPTIM_COLUMNS int64, {param, grad, state1, state2, state3, step, size}: addresses of T
 * arrays (0 where absent), the address of the parameter's own step count, a double (the launch adds 1), and the number
 * of elements. hyper: doubles {lr, weight_decay, eps, first, second}, read at each launch. */
/* first second = momentum dampening; state1 momentum buffer (0 if momentum is 0), in step 1 set to the gradient */
KERNEL(REAL, sgd, const int64_t *table, const double *hyper, int64_t count, int64_t nesterov, int64_t maximize)
/* first second = beta1 beta2; state1 exp_avg, state2 exp_avg_sq, state3 max_exp_avg_sq (amsgrad); decoupled: AdamW */
KERNEL(REAL, adam,
    const int64_t *table, const double *hyper, int64_t count, int64_t amsgrad, int64_t decoupled, int64_t maximize)
/* first second = alpha momentum; state1 square_avg, state2 grad_avg (centered), state3 momentum buffer (or 0) */
KERNEL(REAL, rmsprop, const int64_t *table, const double *hyper, int64_t count, int64_t centered, int64_t maximize)
/* first = lr_decay; state1 sum of squares */
KERNEL(REAL, adagrad, const int64_t *table, const double *hyper, int64_t count, int64_t maximize)
/* what composed.c says */
KERNEL(ONCE, composed_update, const int64_t *table, const double *hyper, int64_t count, const int64_t *program)
/* Gradient clipping uses the same table, but only grad and size. grad_norm_sq: out[0] = sum of squares of all
 * gradients; grad_scale: norm[0] = sqrt(norm_sq[0]), gradients *= min(1, max_norm / (sqrt(norm_sq[0]) + eps)), and NaN
 * stays; grad_clip: gradients are clamped to [-limit, limit]. */
KERNEL(REAL, grad_norm_sq, double *out, const int64_t *table, int64_t count)
KERNEL(REAL, grad_scale,
    T *norm, const int64_t *table, const double *norm_sq, int64_t count, double max_norm, double eps)
KERNEL(REAL, grad_clip, const int64_t *table, int64_t count, double limit)

/* ---- average.c: elements [begin, end) of `count` arrays become their mean, in all; table has their addresses ---- */
KERNEL(REAL, average, const int64_t *table, int64_t count, int64_t begin, int64_t end)

/* ---- roof.c: rounds * 16 * out[0] multiply-adds; out is T[2] ---- */
KERNEL(REAL, fma_roof, T *out, int64_t rounds)

#endif
#endif
