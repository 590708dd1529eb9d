/* How much work space kernels need, and in how many parts they split their sums: each formula once, for C, CUDA and
 * Python.
 *
 * This text is valid C and CUDA. build_cffi.py gives its functions and constants to Python under the same names
 * (`minigrad._native.lib.mg_chunks(rows)`), and embeds the text itself, which minigrad/devices/cuda.py puts in front of
 * each .cu file. So a kernel and the Python code that allocates for it cannot disagree. All results count elements,
 * unless a name says bytes.
 *
 * build_cffi.py finds a function by its first line, `MG_FORMULA name(arguments) {`, and a constant by its line,
 * `#define MG_NAME number`.
 */
#ifndef MINIGRAD_WORKSPACE_H
#define MINIGRAD_WORKSPACE_H

#if defined(__CUDACC__) || defined(CUDA_ON_CPU)
#define MG_FORMULA static __device__ __forceinline__ int64_t
#else
#include <stdint.h>
#define MG_FORMULA static inline int64_t
#endif

/* ---- norm: the rows are split into this many chunks; each chunk has its own sums over its rows ---- */
MG_FORMULA mg_chunks(int64_t rows) {
  return rows <= 32 ? 1 : rows <= 4096 ? (rows + 31) / 32 : rows <= 32768 ? 128 : (rows + 255) / 256;
}
/* `partial` of layer_norm_backward: the sums for gweight and gbias of each chunk */
MG_FORMULA mg_layer_norm_partial(int64_t rows, int64_t n) {
  return mg_chunks(rows) * 2 * n;
}
/* `partial` of rms_norm_backward: the sums for gweight of each chunk */
MG_FORMULA mg_rms_norm_partial(int64_t rows, int64_t n) {
  return mg_chunks(rows) * n;
}

/* ---- norm.cu: work is cut by shape, so that few rows or channels occupy the whole GPU, and none is summed in one long
 * chain ---- */
/* threads of a row in the backward kernels of row norms, and rows side by side in a block: two blocks of 256 threads fit
 * into a multiprocessor, so that one reads while the other waits */
MG_FORMULA mg_norm_threads(int64_t n) {
  return n <= 256 ? 32 : n <= 512 ? 64 : n <= 1024 ? 128 : n <= 2048 ? 256 : 512;
}
MG_FORMULA mg_norm_side(int64_t n) {
  return n <= 2048 ? 256 / mg_norm_threads(n) : 1;
}
/* the most rows of which a thread sums its columns */
#define MG_NORM_ROWS_MAX 128
/* blocks, which have the sums of their rows in a part of `partial` each: two for each of 132 multiprocessors */
MG_FORMULA mg_norm_parts(int64_t rows, int64_t n) {
  const int64_t side = mg_norm_side(n), rounds = (rows + side - 1) / side, fill = rounds < 264 ? rounds : 264;
  const int64_t least = (rounds + MG_NORM_ROWS_MAX - 1) / MG_NORM_ROWS_MAX;
  return fill > least ? fill : least > 1 ? least : 1;
}
/* results of segments of channels that batch norm has room for */
#define MG_CHANNEL_RESULTS_MAX 16384
/* segments of each of `channels` channels, which have batch * inner elements each */
MG_FORMULA mg_channel_segments(int64_t batch, int64_t channels, int64_t inner) {
  const int64_t blocks = inner >= 32 ? channels : (channels + 31) / 32, wanted = blocks ? (264 + blocks - 1) / blocks : 1;
  const int64_t enough = batch * inner / (inner >= 32 ? 4096 : 256), room = MG_CHANNEL_RESULTS_MAX / (channels + 1);
  const int64_t n = wanted < enough ? wanted : enough;
  return n < room ? (n > 1 ? n : 1) : (room > 1 ? room : 1);
}

/* ---- loss: the elements are split into this many chunks; `partial` has one sum for each ---- */
MG_FORMULA mg_loss_chunks(int64_t n) {
  return n <= 16384 ? 1 : n <= 4194304 ? (n + 16383) / 16384 : 256;
}

/* ---- rnn: n = gates * hidden; `projects` is 1 with w_hr, else 0 ---- */
/* rows of the batch that go through the sequence together form a block: this many blocks */
MG_FORMULA mg_rnn_blocks(int64_t batch) {
  return (batch - 1) / 16 + 1;
}
/* steps taken together: 256 rows, or 128 where so many, but not 256, take half of a second-level cache (512 KiB) */
MG_FORMULA mg_rnn_steps(int64_t batch, int64_t n) {
  const int64_t rows = n > 512 && n <= 1024 ? 128 : 256;
  return batch < 1 || batch > rows ? 1 : rows / batch;
}
MG_FORMULA mg_rnn_round_up(int64_t n) {
  return (n + 31) / 32 * 32;
}
/* `work` of rnn_forward: the summed biases, then w_hh and w_hr in the order in which the register tile reads them */
MG_FORMULA mg_rnn_forward_work(int64_t n, int64_t hidden, int64_t outputs, int64_t projects) {
  return 4 * hidden + mg_rnn_round_up(n) * outputs + (projects ? mg_rnn_round_up(outputs) * hidden : 0);
}
/* `work` of rnn_backward: w_hh and w_hr, transposed, in that order */
MG_FORMULA mg_rnn_backward_work(int64_t n, int64_t hidden, int64_t outputs, int64_t projects) {
  return mg_rnn_round_up(outputs) * n + (projects ? mg_rnn_round_up(hidden) * outputs : 0);
}
/* sums of one block: gradients of the norms' weights (4 of n, 2 of hidden) and of the biases (2 of n) */
MG_FORMULA mg_rnn_sums_of_block(int64_t n, int64_t hidden) {
  return 6 * n + 2 * hidden;
}
/* `sums` of rnn_backward */
MG_FORMULA mg_rnn_sums(int64_t batch, int64_t n, int64_t hidden) {
  return mg_rnn_blocks(batch) * mg_rnn_sums_of_block(n, hidden);
}

/* ---- reduce.cu: a reduction is split into segments, so that few outputs still occupy the whole GPU ---- */
/* the most results of segments */
#define MG_SEGMENT_RESULTS_MAX 16384
/* segments of each of `keep` outputs, which have `reduce` elements each; `columns` as in Plan of reduce.cu */
MG_FORMULA mg_segments(int64_t keep, int64_t reduce, int64_t columns) {
  const int64_t blocks = columns ? (keep + 31) / 32 : reduce > 1024 ? keep : (keep + 3) / 4;
  const int64_t wanted = blocks ? (528 + blocks - 1) / blocks : 1, enough = reduce / (columns ? 512 : 8192);
  const int64_t room = MG_SEGMENT_RESULTS_MAX / (keep + 1), n = wanted < enough ? wanted : enough;
  return n < room ? (n > 1 ? n : 1) : (room > 1 ? room : 1);
}

/* ---- optim: int64 numbers of a row of `table` ---- */
#define MG_OPTIM_COLUMNS 7

/* ---- captured steps ---- */
/* bytes of an array that the caches keep from one kernel to the next; larger ones wait for memory */
#define MG_CACHED_BYTES 4194304

#endif
