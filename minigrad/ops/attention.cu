// Scaled dot-product attention and its backward. The formulas, and what the arguments mean, are in native/attention.c
// and native/minigrad.h; the number kept for a row is the same, too: lse, in units of log 2.
//
// A block of 16 x 16 threads takes TILE rows of an item (forward, and the gradient of q) or TILE keys (the gradients of
// k and v), and goes through the tiles of the other side. A tile of scores is in registers: a thread has MICRO x MICRO
// of them, so that it reads 2 MICRO numbers of shared memory for MICRO^2 multiply-adds. Depth and width may have any
// size: operands come in chunks of CHUNK (of the depth, of the keys), results in pieces of TILE columns. What a block
// sums over tiles stays in its result's place, where only one thread touches an element. Sums run in the order of the
// tiles: the bits depend on the shape alone.
//
// The backward computes the tiles of weights again, in two launches, each of which owns what it writes:
//
//     attention_backward            gk, gv: a block of keys, over the tiles of rows
//     attention_backward, queries   gq: a block of rows, over the tiles of keys
//
// Rows that this gets wrong are done again, in double, key by key: those with scores beyond HUGE_SCORE, of which the
// rounding errors count in the exponent, and those with NaN or inf in keys and values that they do not use.
#if IS_REAL

#define TILE (sizeof(T) == 4 ? 64 : 32)
#define HALF (sizeof(PARAM) == 2)          // gradients; f16w and bf16w have float32 ones
#define MICRO (TILE / 16)
#define CHUNK 16
#define PITCH (TILE + 4)                   // of a row of a tile in shared memory: a multiple of 16 bytes
#define THREADS 256                        // of a block
#define HUGE_SCORE (sizeof(T) == 4 ? T(16384) : T(8796093022208))
#define LOG2E 1.442695040888963407359925

typedef T Lines[PITCH];                    // a tile or a chunk: rows of PITCH elements
struct __align__(16) Micro { T at[MICRO]; };
typedef T Scores[MICRO][MICRO];            // of a thread: rows, keys

__device__ __forceinline__ int thread() { return threadIdx.y * 16 + threadIdx.x; }
// over the threads of one threadIdx.y, half a warp
template <class Op> __device__ __forceinline__ T line_all(T v) {
#pragma unroll
  for (int o = 8; o > 0; o >>= 1) v = Op::of(v, __shfl_xor_sync(FULL, v, o));
  return v;
}
struct Larger { static __device__ __forceinline__ T of(T a, T b) { return a > b ? a : b; } };
#define EACH_MICRO(i) _Pragma("unroll") for (int i = 0; i < MICRO; i++)
#define EACH_SCORE(i, j) EACH_MICRO(i) EACH_MICRO(j)

// acc[i][j] += a[k][row i] * b[k][column j] over k < depth; rows are those of threadIdx.y, columns of threadIdx.x
__device__ __forceinline__ void multiply(Scores &acc, const Lines *a, const Lines *b, int depth) {
#pragma unroll HALF ? 2 : 4
  for (int k = 0; k < depth; k++) {
    const Micro x = *reinterpret_cast<const Micro *>(a[k] + threadIdx.y * MICRO);
    const Micro y = *reinterpret_cast<const Micro *>(b[k] + threadIdx.x * MICRO);
    EACH_SCORE(i, j) acc[i][j] += x.at[i] * y.at[j];
  }
}

// Lines of an operand in memory: `count` rows of `width` elements, `step` apart
template <class S> struct MatrixOf {
  const S *p;
  int64_t step, count, width;
  __device__ __forceinline__ T operator()(int64_t row, int64_t column) const {
    return row < count && column < width ? T(p[row * step + column]) : T(0);
  }
};
typedef MatrixOf<STORED> Matrix;
// to[k][r] = element (row0 + r, column0 + k)
__device__ __forceinline__ void load_across(Lines *to, const Matrix &x, int64_t row0, int64_t column0) {
#pragma unroll 2
  for (int i = thread(); i < CHUNK * TILE; i += THREADS)
    to[i % CHUNK][i / CHUNK] = x(row0 + i / CHUNK, column0 + i % CHUNK);
}
// to[k][c] = element (row0 + k, column0 + c)
__device__ __forceinline__ void load(Lines *to, const Matrix &x, int64_t row0, int64_t column0) {
#pragma unroll 2
  for (int i = thread(); i < CHUNK * TILE; i += THREADS)
    to[i / TILE][i % TILE] = x(row0 + i / TILE, column0 + i % TILE);
}

struct __align__(16) Chunks { Lines a[CHUNK], b[CHUNK]; };       // of two operands

// scores[i][j] = row i of a times row j of b, of the tiles that begin at row0 and key0
__device__ __forceinline__ void dots(Scores &scores, Chunks &s, const Matrix &a, int64_t row0, const Matrix &b,
                                     int64_t key0) {
  EACH_SCORE(i, j) scores[i][j] = 0;
  for (int64_t k = 0; k < a.width; k += CHUNK) {
    __syncthreads();                       // the chunks before, and what tiles are in shared memory, have been used
    load_across(s.a, a, row0, k);
    load_across(s.b, b, key0, k);
    __syncthreads();
    multiply(scores, s.a, s.b, CHUNK);
  }
}

// acc[i][j] += sum over k of tile[k][i] * b[row0 + k][column + j]
__device__ __forceinline__ void weigh_columns(Scores &acc, Chunks &s, const Lines *tile, const Matrix &b, int64_t row0,
                                              int64_t column) {
  for (int k = 0; k < TILE && row0 + k < b.count; k += CHUNK) {
    __syncthreads();                       // the tile is complete, the chunk before has been used
    load(s.b, b, row0 + k, column);
    __syncthreads();
    multiply(acc, tile + k, s.b, CHUNK);
  }
}
// store(i of this thread's rows, column, element), for the columns of a tile that there are
template <class F>
__device__ __forceinline__ void each_column(const Scores &acc, int64_t width, int64_t column, F store) {
  EACH_SCORE(i, j) {
    const int64_t c = column + threadIdx.x * MICRO + j;
    if (c < width) store(i, c, acc[i][j]);
  }
}
// the same for all columns of b
template <class F>
__device__ __forceinline__ void weigh(Chunks &s, const Lines *tile, const Matrix &b, int64_t row0, F store) {
  for (int64_t column = 0; column < b.width; column += TILE) {
    Scores acc = {};
    weigh_columns(acc, s, tile, b, row0, column);
    each_column(acc, b.width, column, store);
  }
}

// One of the items
struct Item {
  Matrix q, k, v;
  const STORED *bias;
  const uint8_t *allowed;
  const int64_t *stream;
  int64_t number, rows, keys, mask_row, mask_key;
  uint64_t limit;                          // dropped: random word < limit
  bool causal;
  double exact_scale;
  T scale, step, keep;                     // step: scale log2 e; keep: what dropout multiplies with

  __device__ __forceinline__ bool masked() const { return causal || bias || allowed; }
  __device__ __forceinline__ int64_t mask_at(int64_t i, int64_t j) const { return i * mask_row + j * mask_key; }
  __device__ __forceinline__ bool uses(int64_t i, int64_t j) const {
    const int64_t m = mask_at(i, j);
    return !(causal && j > i) && !(allowed && !allowed[m]) && !(bias && bias[m] == -INFINITY);
  }
  // log2 e (scale * score + mask); -inf where there is no such row or key
  __device__ __forceinline__ T logit(int64_t i, int64_t j, T score) const {
    if (i >= rows || j >= keys || (causal && j > i) || (allowed && !allowed[mask_at(i, j)])) return -INFINITY;
    return score * step + (bias ? T(LOG2E) * bias[mask_at(i, j)] : T(0));
  }
};
// What dropout multiplies the weights of a row with, for one key after the other from key j on
struct Drop {
  const Item &x;
  int64_t place;
  Philox block;
  __device__ __forceinline__ Drop(const Item &item, int64_t i, int64_t j)
      : x(item), place((item.number * item.rows + i) * item.keys + j) {
    if (x.stream) block = philox(x.stream, place / 4);
  }
  __device__ __forceinline__ T next() {
    if (!x.stream) return 1;
    const int at = (int)(place & 3);
    const uint32_t word = at == 0 ? block.word[0] : at == 1 ? block.word[1] : at == 2 ? block.word[2] : block.word[3];
    if ((++place & 3) == 0) block = philox(x.stream, place / 4);
    return word < x.limit ? T(0) : x.keep;
  }
};
__device__ __forceinline__ T drop_at(const Item &x, int64_t i, int64_t j) { return Drop(x, i, j).next(); }

// f(row, key, factor of dropout) for all elements of a tile that begins at i0 and j0. A thread has 4 neighbouring keys.
// Neighbouring threads have neighbouring rows if `across`, else neighbouring keys.
template <class F>
__device__ __forceinline__ void each_of_tile(const Item &x, int64_t i0, int64_t j0, bool across, F f) {
  for (int e = thread(); e < TILE * TILE / 4; e += THREADS) {
    const int row = across ? e % TILE : e / (TILE / 4), key = across ? e / TILE * 4 : e % (TILE / 4) * 4;
    Drop drop(x, i0 + row, j0 + key);
#pragma unroll 1
    for (int c = 0; c < 4; c++) f(row, key + c, drop.next());
  }
}
__device__ __forceinline__ bool is_huge(T logit) { return fabs(logit) > HUGE_SCORE; }        // also inf
__device__ __forceinline__ bool is_odd(T v) { return !(v - v == 0); }                       // inf or NaN

#define OPERANDS const STORED *q, const STORED *k, const STORED *v, const STORED *bias, const uint8_t *allowed, \
    const int64_t *stream, const int64_t *table, int64_t items, int64_t rows, int64_t keys, int64_t depth, \
    int64_t value_depth, int64_t q_row, int64_t k_row, int64_t v_row, int64_t out_row, int64_t gq_row, int64_t gk_row, \
    int64_t gv_row, int64_t mask_row, int64_t mask_key, int64_t causal, double scale, double p
// By one thread, into shared memory: registers are for the tiles.
__device__ __forceinline__ void set(Item &x, int64_t number, OPERANDS) {
  if (thread()) return;
  const int64_t *at = table + 8 * number;
  x.q = Matrix{q + at[0], q_row, rows, depth}, x.k = Matrix{k + at[1], k_row, keys, depth};
  x.v = Matrix{v + at[2], v_row, keys, value_depth};
  x.bias = bias ? bias + at[3] : 0, x.allowed = allowed ? allowed + at[3] : 0, x.stream = stream;
  x.number = number, x.rows = rows, x.keys = keys, x.mask_row = mask_row, x.mask_key = mask_key, x.causal = causal != 0;
  x.exact_scale = scale, x.scale = (T)scale, x.step = (T)(scale * LOG2E);
  x.limit = stream ? threshold(p) : 0, x.keep = p < 1 ? (T)(1 / (1 - p)) : T(0);
}
#define THE_OPERANDS q, k, v, bias, allowed, stream, table, items, rows, keys, depth, value_depth, q_row, k_row, \
    v_row, out_row, gq_row, gk_row, gv_row, mask_row, mask_key, causal, scale, p

// ---- the plain loop, in double: a block for a row ----

// over all threads of the block; `of_warp` has room for their warps
template <class Op> __device__ __forceinline__ double block_all(double v, double *of_warp) {
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) v = Op::of(v, __shfl_xor_sync(FULL, v, o));
  __syncthreads();
  if (thread() % 32 == 0) of_warp[thread() / 32] = v;
  __syncthreads();
  v = of_warp[0];
  for (int i = 1; i < THREADS / 32; i++) v = Op::of(v, of_warp[i]);
  return v;
}
struct AddDouble { static __device__ __forceinline__ double of(double a, double b) { return a + b; } };
struct LargestDouble {
  static __device__ __forceinline__ double of(double a, double b) { return a > b || a != a ? a : b; }
};

// Row i of the weights before dropout: exp(score - shift) / sum, and 0 everywhere if no key is used
struct PlainRow {
  const Item &x;
  int64_t i;
  double shift, sum;
  __device__ __forceinline__ double score(int64_t j) const {
    double s = 0;
#pragma unroll 1
    for (int64_t c = 0; c < x.q.width; c++) s += (double)x.q(i, c) * (double)x.k(j, c);
    return s * x.exact_scale + (x.bias ? (double)x.bias[x.mask_at(i, j)] : 0);
  }
  __device__ __forceinline__ PlainRow(const Item &item, int64_t row, double *of_warp) : x(item), i(row) {
    double top = -INFINITY, total = 0;
#pragma unroll 1
    for (int64_t j = thread(); j < x.keys; j += THREADS)
      if (x.uses(i, j)) top = LargestDouble::of(score(j), top);
    top = block_all<LargestDouble>(top, of_warp);
    shift = top == -INFINITY ? 0 : top;
#pragma unroll 1
    for (int64_t j = thread(); j < x.keys; j += THREADS)
      if (x.uses(i, j)) total += exp(score(j) - shift);
    sum = block_all<AddDouble>(total, of_warp);
  }
  __device__ __forceinline__ double weight(int64_t j) const {
    const double e = exp(score(j) - shift);
    return sum != 0 ? e / sum : e;
  }
  __device__ __forceinline__ T lse() const {
    const double most = sizeof(T) == 4 ? 3.4028234663852886e38 : 1.7976931348623157e308;
    const double v = (shift + log(sum)) * LOG2E;
    return sum == 0 ? T(INFINITY) : (T)(v > most ? most : v);
  }
};

// The keys that a row uses, THREADS at a time: number(j) is computed by one thread for each key, then take(j, number)
// runs for every key, in order, in all threads.
template <class F, class G>
__device__ __forceinline__ void each_used(const Item &x, int64_t i, double *numbers, int *used, F number, G take) {
  for (int64_t from = 0; from < x.keys; from += THREADS) {
    const int64_t j = from + thread();
    __syncthreads();
    used[thread()] = j < x.keys && x.uses(i, j);
    numbers[thread()] = used[thread()] ? number(j) : 0;
    __syncthreads();
#pragma unroll 1
    for (int c = 0; c < THREADS; c++)
      if (used[c]) take(from + c, numbers[c]);
  }
}
struct Plain {                             // the memory for these loops
  double numbers[THREADS], of_warp[THREADS / 32];
  int used[THREADS];
};
union Memory {                             // never both at once
  Chunks chunks;
  Plain plain;
};

// ---- forward ----

// out (rows out_row apart), lse and weights are those of the item
__device__ __forceinline__ void plain_forward(const Item &x, T *out, int64_t out_row, T *lse, T *weights, int64_t i,
                                              Plain &m) {
  const PlainRow row(x, i, m.of_warp);
  const T own = row.lse(), none = own == own ? T(0) : own;         // NaN stays in its whole row
  if (thread() == 0) lse[i] = own;
  const auto weight = [&](int64_t j) { return row.weight(j) * drop_at(x, i, j); };
  for (int64_t from = 0; from < x.v.width; from += THREADS) {
    const int64_t c = from + thread();
    double sum = 0;
    each_used(x, i, m.numbers, m.used, weight, [&](int64_t j, double w) {
      if (c < x.v.width) sum += w * (double)x.v(j, c);
    });
    if (c < x.v.width) out[i * out_row + c] = (T)sum;
  }
  if (!weights) return;
  for (int64_t j = thread(); j < x.keys; j += THREADS) weights[i * x.keys + j] = x.uses(i, j) ? (T)weight(j) : none;
}

// Of a thread's rows: the largest logit so far, the sum of powers 2^(logit - top), and by what a larger top shrinks it
struct Softmax { T top[MICRO], sum[MICRO], shrink[MICRO]; };

// A tile of scores becomes powers, in `tile` [key][row]
__device__ __forceinline__ void powers(const Item &x, Softmax &of, Scores &s, Lines *tile, T *weights, int64_t i0,
                                       int64_t j0) {
  const int64_t key = j0 + threadIdx.x * MICRO;
#pragma unroll
  for (int i = 0; i < MICRO; i++) {
    const int64_t row = i0 + threadIdx.y * MICRO + i;
    T high = of.top[i], total = 0;
#pragma unroll
    for (int j = 0; j < MICRO; j++) {
      s[i][j] = x.logit(row, key + j, s[i][j]);
      high = Larger::of(s[i][j], high);                            // NaN is left to the powers
      if (weights && row < x.rows && key + j < x.keys) weights[row * x.keys + key + j] = s[i][j];
    }
    high = line_all<Larger>(high);
    const T shift = high == -INFINITY ? T(0) : high;
#pragma unroll
    for (int j = 0; j < MICRO; j++) total += s[i][j] = exp2(s[i][j] - shift);
    of.shrink[i] = exp2(of.top[i] - shift);
    of.sum[i] = of.sum[i] * of.shrink[i] + line_all<Add>(total);
    of.top[i] = high;
#pragma unroll
    for (int j = 0; j < MICRO; j++) tile[threadIdx.x * MICRO + j][threadIdx.y * MICRO + i] = s[i][j];
  }
  if (!x.stream) return;
  __syncthreads();
  each_of_tile(x, i0, j0, true, [&](int row, int j, T factor) { tile[j][row] *= factor; });
}

// What is left when all keys are seen, up to `all`: the division, lse, the weights. A warp for a row. flag[row]: must
// the row be done again?
__device__ __forceinline__ void finish(const Item &x, const T *of_top, const T *of_sum, T *out, int64_t out_row, T *lse,
                                       T *weights, int64_t i0, int64_t all, int *flag) {
  const int lane = thread() % 32;
  for (int r = thread() / 32; r < TILE; r += THREADS / 32) {
    const int64_t row = i0 + r, width = x.v.width;
    const bool none = of_sum[r] == 0;
    const T top = of_top[r], part = none ? T(0) : 1 / of_sum[r];
    T odd = 0;                                                     // NaN if there is inf or NaN
    if (row < x.rows) {
      T *y = out + row * out_row, *w = weights ? weights + row * x.keys : 0;
#pragma unroll 1
      for (int64_t c = lane; c < width; c += 32) y[c] *= part, odd += y[c] - y[c];
#pragma unroll 1
      for (int64_t j = lane; w && j < x.keys; j += 32) {
        const T logit = j < all && !(x.causal && j > row) ? w[j] : -INFINITY;        // behind `all` are no scores
        w[j] = exp2(logit - (none ? T(INFINITY) : top)) * part * drop_at(x, row, j);
      }
      if (lane == 0) lse[row] = none ? T(INFINITY) : top + log2(of_sum[r]);
    }
    odd = warp_all<Add>(odd);
    if (lane == 0) flag[r] = row < x.rows && (is_huge(top) || (x.masked() && odd != 0));
  }
}

KERNEL(attention_forward)(T *out, T *lse, T *weights, OPERANDS) {
  __shared__ Memory m;
  __shared__ Item x;
  __shared__ __align__(16) Lines tile[TILE];
  __shared__ T of_top[TILE], of_sum[TILE];
  __shared__ int flag[TILE];
  const int64_t tiles = (rows + TILE - 1) / TILE;
  for (int64_t unit = blockIdx.x; unit < items * tiles; unit += gridDim.x) {
    const int64_t number = unit / tiles, i0 = (unit - number * tiles) * TILE;
    __syncthreads();
    set(x, number, THE_OPERANDS);
    __syncthreads();
    T *own = out + table[8 * number + 4], *own_weights = weights ? weights + number * rows * keys : 0;
    const int64_t all = causal && i0 + TILE < keys ? i0 + TILE : keys;
    Softmax of;
    for (int i = 0; i < MICRO; i++) of.top[i] = -INFINITY, of.sum[i] = of.shrink[i] = 0;
    for (int64_t j0 = 0; j0 < all; j0 += TILE) {
      Scores s;
      dots(s, m.chunks, x.q, i0, x.k, j0);
      powers(x, of, s, tile, own_weights, i0, j0);
      weigh(m.chunks, tile, x.v, j0, [&](int i, int64_t column, T v) {
        const int64_t row = i0 + threadIdx.y * MICRO + i;
        T *to = own + row * out_row + column;
        if (row < rows) *to = j0 ? *to * of.shrink[i] + v : v;
      });
    }
    if (threadIdx.x == 0)
#pragma unroll
      for (int i = 0; i < MICRO; i++)
        of_top[threadIdx.y * MICRO + i] = of.top[i], of_sum[threadIdx.y * MICRO + i] = of.sum[i];
    __syncthreads();
    finish(x, of_top, of_sum, own, out_row, lse + number * rows, own_weights, i0, all, flag);
    __syncthreads();
    for (int r = 0; r < TILE; r++)
      if (flag[r]) plain_forward(x, own, out_row, lse + number * rows, own_weights, i0 + r, m.plain);
    __syncthreads();
  }
}

// ---- backward ----

// Of an item: the gradient of its output, the output, and the gradients to be made, which may be null
struct Outputs {
  Matrix g;
  MatrixOf<T> y;
  const T *lse;
  PARAM *gq, *gk, *gv;
  int64_t gq_row, gk_row, gv_row;
  // lse and the sum of g * y for the rows of a tile; a warp for a row
  __device__ __forceinline__ void load_rows(T *of_lse, T *of_sum, int64_t i0) const {
    for (int r = thread() / 32; r < TILE; r += THREADS / 32) {
      T sum = 0;
      for (int64_t c = thread() % 32; c < g.width; c += 32) sum += g(i0 + r, c) * y(i0 + r, c);
      sum = warp_all<Add>(sum);
      if (thread() % 32 == 0) of_sum[r] = sum, of_lse[r] = i0 + r < g.count ? lse[i0 + r] : T(INFINITY);
    }
  }
  // in the order in which d = g . v is summed: where one key has all the weight, d - this sum is 0
  __device__ __forceinline__ double plain_sum(int64_t i) const {
    double sum = 0;
#pragma unroll 1
    for (int64_t c = 0; c < g.width; c++) sum += (double)g(i, c) * (double)y(i, c);
    return sum;
  }
};
__device__ __forceinline__ void set(Outputs &of, int64_t number, PARAM *gq, PARAM *gk, PARAM *gv, const STORED *gout,
                                    const T *out, const T *lse, OPERANDS) {
  if (thread()) return;
  const int64_t *at = table + 8 * number;
  of.g = Matrix{gout + at[4], out_row, rows, value_depth};
  of.y = MatrixOf<T>{out + at[4], out_row, rows, value_depth};
  of.lse = lse + number * rows;
  of.gq = gq ? gq + at[5] : 0, of.gk = gk ? gk + at[6] : 0, of.gv = gv ? gv + at[7] : 0;
  of.gq_row = gq_row, of.gk_row = gk_row, of.gv_row = gv_row;
}
__device__ __forceinline__ bool again(T lse) { return lse < INFINITY && is_huge(lse); }

// The scores of a tile become weights times dropout, and of_scores, which is gout v^T, their gradient.
__device__ __forceinline__ void weights_back(const Item &x, const Outputs &of, Chunks &chunks, Lines *of_weights,
                                             Lines *of_scores, const T *of_lse, const T *of_sum, int64_t i0, int64_t j0,
                                             bool across) {              // across: [key][row], else [row][key]
  const auto put = [&](Lines *tile, const Scores &s) {
    EACH_SCORE(i, j) {
      const int row = threadIdx.y * MICRO + i, key = threadIdx.x * MICRO + j;
      (across ? tile[key][row] : tile[row][key]) = s[i][j];
    }
  };
  Scores s;
  dots(s, chunks, x.q, i0, x.k, j0);
  put(of_weights, s);
  dots(s, chunks, of.g, i0, x.v, j0);
  put(of_scores, s);
  __syncthreads();
  each_of_tile(x, i0, j0, across, [&](int row, int key, T factor) {
    T &w = across ? of_weights[key][row] : of_weights[row][key];
    T &d = across ? of_scores[key][row] : of_scores[row][key];
    const T power = exp2(x.logit(i0 + row, j0 + key, w) - of_lse[row]);
    d = power * (d * factor * x.scale - of_sum[row] * x.scale);
    w = power * factor;
  });
}

// gk and gv of a tile of keys, one row after the other, for TILE columns at a time: in sum_k and sum_v [key][column]
__device__ __forceinline__ void plain_keys(const Item &x, const Outputs &of, int64_t j0, Plain &m, Lines *sum_k,
                                           Lines *sum_v) {
  for (int64_t from = 0; from < x.k.width || from < x.v.width; from += TILE) {
    const auto each = [&](auto f) {        // f(key of the tile, column of the tile, column)
#pragma unroll 1
      for (int e = thread(); e < TILE * TILE; e += THREADS)
        if (j0 + e / TILE < x.keys) f(e / TILE, e % TILE, from + e % TILE);
    };
    __syncthreads();
    each([&](int c, int at, int64_t) { sum_k[c][at] = sum_v[c][at] = 0; });
    for (int64_t i = x.causal ? j0 : 0; i < x.rows; i++) {
      const PlainRow row(x, i, m.of_warp);
      const double less = of.plain_sum(i);
      __syncthreads();
      if (thread() < TILE) {
        const int64_t j = j0 + thread();
        m.used[thread()] = j < x.keys && x.uses(i, j);
        if (m.used[thread()]) {
          const double w = row.weight(j), factor = drop_at(x, i, j);
          double d = 0;
#pragma unroll 1
          for (int64_t c = 0; c < x.v.width; c++) d += (double)of.g(i, c) * (double)x.v(j, c);
          m.numbers[thread()] = w * (d * factor - less) * x.exact_scale;
          m.numbers[TILE + thread()] = w * factor;
        }
      }
      __syncthreads();
      each([&](int c, int at, int64_t column) {
        if (!m.used[c]) return;
        sum_k[c][at] += (T)(m.numbers[c] * (double)x.q(i, column));
        sum_v[c][at] += (T)(m.numbers[TILE + c] * (double)of.g(i, column));
      });
    }
    each([&](int c, int at, int64_t column) {
      if (of.gk && column < x.k.width) of.gk[(j0 + c) * of.gk_row + column] = sum_k[c][at];
      if (of.gv && column < x.v.width) of.gv[(j0 + c) * of.gv_row + column] = sum_v[c][at];
    });
  }
}

// In half precision, where memory holds rounded values, a gradient is summed in registers: for each TILE columns of it,
// all tiles are seen again.
KERNEL(attention_backward)(PARAM *gq, PARAM *gk, PARAM *gv, const STORED *gout, const T *out, const T *lse,
                           OPERANDS) {
  __shared__ Memory m;
  __shared__ Item x;
  __shared__ Outputs of;
  __shared__ __align__(16) Lines of_weights[TILE], of_scores[TILE];            // [row][key]
  __shared__ T of_lse[TILE], of_sum[TILE];
  const int64_t tiles = (keys + TILE - 1) / TILE, widest = depth > value_depth ? depth : value_depth;
  for (int64_t unit = blockIdx.x; unit < items * tiles; unit += gridDim.x) {
    const int64_t number = unit / tiles, j0 = (unit - number * tiles) * TILE, begin = causal ? j0 : 0;
    __syncthreads();
    set(x, number, THE_OPERANDS);
    set(of, number, gq, gk, gv, gout, out, lse, THE_OPERANDS);
    __syncthreads();
    bool wrong = false;
    // own[key][column] = what it was, unless `first`, + v
    const auto add = [&](PARAM *own, int64_t step, bool first, int i, int64_t column, T v) {
      const int64_t key = j0 + threadIdx.y * MICRO + i;
      if (key >= keys) return;
      PARAM *to = own + key * step + column;
      *to = v = first ? v : *to + v;
      wrong |= is_odd(v) && x.masked();
    };
    for (int64_t from = 0; from == 0 || (HALF && from < widest); from += TILE) {
      Scores sum_k = {}, sum_v = {};
      for (int64_t i0 = begin; i0 < rows || i0 == begin; i0 += TILE) {         // without rows: zeros
        __syncthreads();
        of.load_rows(of_lse, of_sum, i0);
        weights_back(x, of, m.chunks, of_weights, of_scores, of_lse, of_sum, i0, j0, false);
        if (thread() < TILE) wrong |= again(of_lse[thread()]);
        if (HALF) {
          if (gv && from < value_depth) weigh_columns(sum_v, m.chunks, of_weights, of.g, i0, from);
          if (gk && from < depth) weigh_columns(sum_k, m.chunks, of_scores, x.q, i0, from);
          continue;
        }
        if (gv) weigh(m.chunks, of_weights, of.g, i0, [&](int i, int64_t column, T v) {
          add(of.gv, of.gv_row, i0 == begin, i, column, v);
        });
        if (gk) weigh(m.chunks, of_scores, x.q, i0, [&](int i, int64_t column, T v) {
          add(of.gk, of.gk_row, i0 == begin, i, column, v);
        });
      }
      if (HALF && gv) each_column(sum_v, value_depth, from, [&](int i, int64_t column, T v) {
        add(of.gv, of.gv_row, true, i, column, v);
      });
      if (HALF && gk) each_column(sum_k, depth, from, [&](int i, int64_t column, T v) {
        add(of.gk, of.gk_row, true, i, column, v);
      });
    }
    if (__syncthreads_or(wrong)) plain_keys(x, of, j0, m.plain, of_scores, of_weights);
  }
}

__device__ __forceinline__ void plain_query(const Item &x, const Outputs &of, int64_t i, Plain &m) {
  const PlainRow row(x, i, m.of_warp);
  const double less = of.plain_sum(i);
  const auto gradient = [&](int64_t j) {
    double d = 0;
#pragma unroll 1
    for (int64_t c = 0; c < x.v.width; c++) d += (double)of.g(i, c) * (double)x.v(j, c);
    return row.weight(j) * (d * drop_at(x, i, j) - less) * x.exact_scale;
  };
  for (int64_t from = 0; from < x.q.width; from += THREADS) {
    const int64_t c = from + thread();
    double sum = 0;
    each_used(x, i, m.numbers, m.used, gradient, [&](int64_t j, double d) {
      if (c < x.q.width) sum += d * (double)x.k(j, c);
    });
    if (c < x.q.width) of.gq[i * of.gq_row + c] = (T)sum;
  }
}

STEP(attention_backward, queries)(PARAM *gq, PARAM *gk, PARAM *gv, const STORED *gout, const T *out, const T *lse,
                                  OPERANDS) {
  __shared__ Memory m;
  __shared__ Item x;
  __shared__ Outputs of;
  __shared__ __align__(16) Lines of_weights[TILE], of_scores[TILE];            // [key][row]
  __shared__ T of_lse[TILE], of_sum[TILE];
  __shared__ int flag[TILE];
  const int64_t tiles = (rows + TILE - 1) / TILE;
  for (int64_t unit = blockIdx.x; unit < items * tiles; unit += gridDim.x) {
    const int64_t number = unit / tiles, i0 = (unit - number * tiles) * TILE;
    __syncthreads();
    set(x, number, THE_OPERANDS);
    set(of, number, gq, gk, gv, gout, out, lse, THE_OPERANDS);
    __syncthreads();
    const int64_t all = causal && i0 + TILE < keys ? i0 + TILE : keys;
    __syncthreads();
    of.load_rows(of_lse, of_sum, i0);
    for (int r = thread(); r < TILE; r += THREADS) flag[r] = i0 + r < rows && again(lse[number * rows + i0 + r]);
    int odd = 0;                           // a bit for each of the thread's rows
    const auto add = [&](bool first, int i, int64_t column, T v) {
      const int64_t row = i0 + threadIdx.y * MICRO + i;
      if (row >= rows) return;
      PARAM *to = of.gq + row * of.gq_row + column;
      *to = v = first ? v : *to + v;
      if (is_odd(v) && x.masked()) odd |= 1 << i;
    };
    for (int64_t from = 0; from == 0 || (HALF && from < depth); from += TILE) {
      Scores sum = {};
      for (int64_t j0 = 0; j0 < all; j0 += TILE) {
        weights_back(x, of, m.chunks, of_weights, of_scores, of_lse, of_sum, i0, j0, true);
        if (HALF) weigh_columns(sum, m.chunks, of_scores, x.k, j0, from);
        else weigh(m.chunks, of_scores, x.k, j0, [&](int i, int64_t column, T v) { add(j0 == 0, i, column, v); });
      }
      if (HALF) each_column(sum, depth, from, [&](int i, int64_t column, T v) { add(true, i, column, v); });
    }
#pragma unroll
    for (int o = 8; o > 0; o >>= 1) odd |= __shfl_xor_sync(FULL, odd, o);
    for (int i = 0; i < MICRO; i++)
      if (threadIdx.x == 0 && odd >> i & 1) flag[threadIdx.y * MICRO + i] = 1;
    __syncthreads();
    for (int r = 0; r < TILE; r++)
      if (flag[r]) plain_query(x, of, i0 + r, m.plain);
    __syncthreads();
  }
}
#endif
