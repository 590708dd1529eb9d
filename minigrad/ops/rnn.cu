// Recurrence over a sequence: RNN, LSTM and GRU, plain or normalised, forward and backward. The formulas, and what the
// arguments mean, are in native/rnn.c and native/minigrad.h.
//
// One launch runs all steps. The rows of the batch do not depend on each other, so a block takes 1 to ROWS of them from
// the first step to the last and never waits for another block. What goes from step to step is in shared memory:
//
//   forward    h, c, and q = w_hh h, which becomes the gates
//   backward   dh, dc, and the gradient of the pre-activations, which w_hh turns into the dh of the step before
//
// w_hh itself comes from the caches: w_hh transposed in forward (`pack` does that), so that the threads of a warp read
// neighbours, w_hh as it is in backward. All that does not depend on the step before is outside: w_ih x of all steps is
// one product before the launch, the gradients of x and of the weights are products after it (cuBLAS; the launch rules
// in rnn.py say which). w_ih x waits where the step that reads it puts its own result: in `gates`, `y` or, with a norm,
// `raw_x`.
//
// blockDim is (32, warps): with a norm, a warp takes a row and computes its statistics (Row, in common.cuh).
// The bits of a row depend on its own inputs, the weights and the shapes. A block's sums for the gradients of biases
// and norms go over its steps, in each over its rows; `collect` adds the blocks in order.
#if IS_REAL

enum { TANH, RELU, LSTM, GRU };            // kind
enum { LAYER = 1 };                        // norm
#define ROWS 4                             // of a block, at most

__device__ __forceinline__ int thread() { return threadIdx.y * 32 + threadIdx.x; }
__device__ __forceinline__ int threads() { return blockDim.y * 32; }
#define EACH_THREAD(i, n) for (int i = thread(); i < (n); i += threads())

__device__ __forceinline__ int gates_of(int64_t kind) { return kind == LSTM ? 4 : kind == GRU ? 3 : 1; }

// out[R, n] = (add ? out : 0) + a[R, depth] w[depth, n], with rows of a `across` apart, by the whole block: after a
// barrier, and up to the next one. Where n is small, several threads share an element: each has a slice of `depth`.
// `partial` has room for R numbers of each thread. At most 64 terms are added in one chain.
template <int R>
__device__ __forceinline__ void product_of(T *out, const T *a, int across, const T *w, int depth, int n, bool add,
                                           T *partial) {
  const int slices = threads() >= 2 * n ? threads() / n : 1, length = (depth + slices - 1) / slices;
  EACH_THREAD(i, slices * n) {
    const int s = i / n, j = i - s * n, end = min(depth, (s + 1) * length);
    T total[R];
#pragma unroll
    for (int r = 0; r < R; r++) total[r] = 0;
    for (int from = s * length; from < end; from += 64) {
      const int to = min(end, from + 64);
      T sum[R];
#pragma unroll
      for (int r = 0; r < R; r++) sum[r] = 0;
#pragma unroll(16 / sizeof(T))
      for (int k = from; k < to; k++) {
        const T v = w[(int64_t)k * n + j];
#pragma unroll
        for (int r = 0; r < R; r++) sum[r] += a[r * across + k] * v;
      }
#pragma unroll
      for (int r = 0; r < R; r++) total[r] += sum[r];
    }
    T *to = slices > 1 ? partial + s * R * n : out;
#pragma unroll
    for (int r = 0; r < R; r++) to[r * n + j] = add && slices == 1 ? to[r * n + j] + total[r] : total[r];
  }
  if (slices > 1) {
    __syncthreads();
    EACH_THREAD(i, R * n) {
      T total = add ? out[i] : T(0);
      for (int s = 0; s < slices; s++) total += partial[s * R * n + i];
      out[i] = total;
    }
  }
  __syncthreads();
}
__device__ __forceinline__ void product(int rows, T *out, const T *a, int across, const T *w, int depth, int n,
                                        bool add, T *partial) {
  if (rows == 1) product_of<1>(out, a, across, w, depth, n, add, partial);
  else if (rows == 2) product_of<2>(out, a, across, w, depth, n, add, partial);
  else if (rows == 3) product_of<3>(out, a, across, w, depth, n, add, partial);
  else product_of<4>(out, a, across, w, depth, n, add, partial);
}

// What forward and backward share: sizes, and where this block's rows are.
struct Rows {
  int H, P, n, kind, norm, reverse, rows;
  int64_t steps, batch, first;             // the block has the rows [first, first + rows) of the batch
  const int64_t *lengths;
  __device__ __forceinline__ void set(const int64_t *given, int64_t all, int64_t size, int64_t hidden, int64_t outputs,
                                      int64_t k, int64_t normed, int64_t backwards) {
    H = (int)hidden, P = (int)outputs, n = gates_of(k) * H, kind = (int)k, norm = (int)normed, reverse = (int)backwards;
    steps = all, batch = size, lengths = given;
    first = batch * blockIdx.x / gridDim.x;
    rows = (int)(batch * (blockIdx.x + 1) / gridDim.x - first);
  }
  __device__ __forceinline__ bool live(int64_t t, int r) const { return !lengths || t < lengths[first + r]; }
  // Is t the first step of this row, in the order of the walk? Then the states before it are h0 and c0.
  __device__ __forceinline__ bool starts(int64_t t, int r) const {
    return reverse ? t == steps - 1 || !live(t + 1, r) : t == 0;
  }
};

// ---- forward ----

// The statistics of a row, by which its elements are normalised
struct Normal {
  T first, offset, unit, r;
  __device__ __forceinline__ T of(T v, const T *weight, int j) const {
    return ((v * unit - first) - offset) * r * (weight ? weight[j] : T(1));
  }
};

struct Forward : Rows {
  T *y, *gates, *cells, *tanhc, *inner, *projected, *raw_x, *raw_h, *stats, *hin;
  const T *w_hh, *w_hr, *bias, *nw_ih, *nw_hh, *nw_c, *nb_c, *mask;
  double eps;
  T *h, *c, *in, *q, *partial;             // in shared memory; `in`: h * mask, or h before the next step with w_hr
  Normal *of_x, *of_h, *of_c;              // there, too: one for each row

  // a warp for each row of n elements from `row` on; `which` is the first of the two statistics of native/minigrad.h
  __device__ __forceinline__ void normalize(Normal *to, int r, int which, int64_t at, const T *row, int size) const {
    Normal x;
    x.r = row_statistics(Row(row, size), norm == LAYER, eps, x.first, x.offset, x.unit);
    if (threadIdx.x) return;
    T *mean = stats + which * steps * batch + at + r, *rstd = mean + steps * batch;
    if (norm == LAYER) *mean = (x.first + x.offset) / x.unit;
    *rstd = x.r * x.unit;
    to[r] = x;
  }

  // h of a row: the output and the next state, or the input of w_hr (in the place of q)
  __device__ __forceinline__ void emit(int64_t at, int r, int j, T m) const {
    if (w_hr) projected[(at + r) * H + j] = q[r * n + j] = m;
    else y[(at + r) * H + j] = h[r * H + j] = m;
  }

  // A row past its length: its outputs are 0, its states stay.
  __device__ __forceinline__ void rest(int64_t at, int r, int j) const {
    const int64_t row = at + r;
    if (!w_hr) y[row * H + j] = 0;
    if (gates)
      for (int g = j; g < n; g += H) gates[row * n + g] = 0;
    if (kind == LSTM) {
      cells[row * H + j] = tanhc[row * H + j] = 0;
      if (w_hr) projected[row * H + j] = q[r * n + j] = 0;
    }
    if (kind == GRU) inner[row * H + j] = 0;
  }

  // unit j of row r: gates, state, output
  __device__ __forceinline__ void unit(int64_t at, int r, int j) const {
    const T *p = (norm ? raw_x : gates ? gates : y) + (at + r) * n, *of_row = q + r * n;
    const auto of_gate = [&](int g) {      // w_ih x of a gate, normalised; the same of w_hh h is `recurrent`
      const int i = g * H + j;
      return norm ? of_x[r].of(p[i], nw_ih, i) : p[i];
    };
    const auto recurrent = [&](int g) {
      const int i = g * H + j;
      return norm ? of_h[r].of(of_row[i], nw_hh, i) : of_row[i];
    };
    const auto sum = [&](int g) { return of_gate(g) + recurrent(g) + bias[g * H + j]; };
    T *a = gates ? gates + (at + r) * n : 0;
    if (kind == LSTM) {
      const T i = sigmoid(sum(0)), f = sigmoid(sum(1)), g = tanh(sum(2)), o = sigmoid(sum(3));
      const T now = f * c[r * H + j] + i * g;
      a[j] = i, a[H + j] = f, a[2 * H + j] = g, a[3 * H + j] = o;
      cells[(at + r) * H + j] = c[r * H + j] = now;
      if (norm) return;                    // c must be complete first: `finish`
      const T tanhed = tanh(now);
      tanhc[(at + r) * H + j] = tanhed;
      emit(at, r, j, o * tanhed);
    } else if (kind == GRU) {
      const T z = sigmoid(sum(1)), reset = sigmoid(sum(0)), qn = recurrent(2) + bias[3 * H + j];
      const T v = tanh(of_gate(2) + bias[2 * H + j] + reset * qn);
      a[j] = reset, a[H + j] = z, a[2 * H + j] = v;
      inner[(at + r) * H + j] = qn;
      emit(at, r, j, v + z * (h[r * H + j] - v));
    } else {
      const T v = sum(0);
      emit(at, r, j, kind == TANH ? tanh(v) : v > 0 || v != v ? v : T(0));
    }
  }
  __device__ __forceinline__ void finish(int64_t at, int r, int j) const {       // of a normalised LSTM
    const T tanhed = tanh(of_c[r].of(c[r * H + j], nw_c, j) + (nb_c ? nb_c[j] : T(0)));
    tanhc[(at + r) * H + j] = tanhed;
    emit(at, r, j, gates[(at + r) * n + 3 * H + j] * tanhed);
  }
  template <class F> __device__ __forceinline__ void each_unit(F f) const {      // f(row, unit)
    EACH_THREAD(i, rows * H) f(i / H, i % H);
  }

  __device__ __forceinline__ void step(int64_t t) const {
    const int64_t at = t * batch + first;
    if (hin) {
      EACH_THREAD(i, rows * P) hin[at * P + i] = in[i] = mask ? h[i] * mask[first * P + i] : h[i];
      __syncthreads();
    }
    product(rows, q, hin ? in : h, P, w_hh, P, n, false, partial);
    if (norm) {
      EACH_THREAD(i, rows * n) raw_h[at * n + i] = q[i];
      for (int task = threadIdx.y; task < 2 * rows; task += blockDim.y) {
        const int r = task >> 1;
        if (task & 1) normalize(of_h, r, 2, at, q + r * n, n);
        else normalize(of_x, r, 0, at, raw_x + (at + r) * n, n);
      }
      __syncthreads();
    }
    each_unit([&](int r, int j) {
      if (live(t, r)) unit(at, r, j);
      else rest(at, r, j);
    });
    __syncthreads();
    if (kind != LSTM) return;
    if (norm) {
      for (int r = threadIdx.y; r < rows; r += blockDim.y)
        if (live(t, r)) normalize(of_c, r, 4, at, c + r * H, H);
      __syncthreads();
      each_unit([&](int r, int j) {
        if (live(t, r)) finish(at, r, j);
      });
      __syncthreads();
    }
    if (w_hr) {
      product(rows, in, q, n, w_hr, H, P, false, partial);
      EACH_THREAD(i, rows * P) {
        if (live(t, i / P)) h[i] = in[i];
        y[at * P + i] = in[i];             // 0 past the row's length, where all of `projected` is
      }
      __syncthreads();
    }
  }
};

KERNEL(rnn_forward)(T *y, T *hn, T *cn, T *gates, T *cells, T *tanhc, T *inner, T *projected, T *raw_x, T *raw_h,
                    T *stats, T *hin, T *work, const T *x, const T *h0, const T *c0, const T *w_ih, const T *w_hh,
                    const T *w_hr, const T *b_ih, const T *b_hh, const T *nw_ih, const T *nb_ih, const T *nw_hh,
                    const T *nb_hh, const T *nw_c, const T *nb_c, const T *mask, const int64_t *lengths, int64_t steps,
                    int64_t batch, int64_t inputs, int64_t hidden, int64_t outputs, int64_t kind, int64_t norm,
                    int64_t reverse, double eps) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  __shared__ Normal of_row[3][ROWS];
  Forward f;
  f.set(lengths, steps, batch, hidden, outputs, kind, norm, reverse);
  const int rows = f.rows, H = f.H, P = f.P, n = f.n;
  f.y = y, f.gates = gates, f.cells = cells, f.tanhc = tanhc, f.inner = inner, f.projected = projected;
  f.raw_x = raw_x, f.raw_h = raw_h, f.stats = stats, f.hin = hin, f.bias = work, f.w_hh = work + 4 * H;
  f.w_hr = w_hr ? f.w_hh + (int64_t)n * P : 0;
  f.nw_ih = nw_ih, f.nw_hh = nw_hh, f.nw_c = nw_c, f.nb_c = nb_c, f.mask = mask, f.eps = eps;
  f.h = reinterpret_cast<T *>(shared_bytes), f.q = f.h + rows * P, f.partial = f.q + rows * n;
  f.c = f.partial + rows * threads(), f.in = kind == LSTM ? f.c + rows * H : f.c;
  f.of_x = of_row[0], f.of_h = of_row[1], f.of_c = of_row[2];
  EACH_THREAD(i, rows * P) f.h[i] = h0 ? h0[f.first * P + i] : T(0);
  if (kind == LSTM) EACH_THREAD(i, rows * H) f.c[i] = c0 ? c0[f.first * H + i] : T(0);
  __syncthreads();
  for (int64_t s = 0; s < steps; s++) f.step(reverse ? steps - 1 - s : s);
  EACH_THREAD(i, rows * P) hn[f.first * P + i] = f.h[i];
  if (kind == LSTM) EACH_THREAD(i, rows * H) cn[f.first * H + i] = f.c[i];
}

// work: the summed biases (GRU: those of q_n apart, behind the others), then w_hh and w_hr transposed
STEP(rnn_forward, pack)(T *y, T *hn, T *cn, T *gates, T *cells, T *tanhc, T *inner, T *projected, T *raw_x, T *raw_h,
                        T *stats, T *hin, T *work, const T *x, const T *h0, const T *c0, const T *w_ih, const T *w_hh,
                        const T *w_hr, const T *b_ih, const T *b_hh, const T *nw_ih, const T *nb_ih, const T *nw_hh,
                        const T *nb_hh, const T *nw_c, const T *nb_c, const T *mask, const int64_t *lengths,
                        int64_t steps, int64_t batch, int64_t inputs, int64_t hidden, int64_t outputs, int64_t kind,
                        int64_t norm, int64_t reverse, double eps) {
  const int64_t n = gates_of(kind) * hidden;
  const auto at = [](const T *bias, int64_t i) { return bias ? bias[i] : T(0); };
  GRID_LOOP(i, 4 * hidden) {
    const bool of_x = i < n, of_h = kind == GRU ? i < 2 * hidden || i >= n : of_x;
    const int64_t j = of_x ? i : i - hidden;
    T sum = of_x ? at(b_ih, i) + at(nb_ih, i) : T(0);
    if (of_h) sum = sum + at(b_hh, j) + at(nb_hh, j);
    work[i] = sum;
  }
  T *to = work + 4 * hidden;
  GRID_LOOP(i, n * outputs) {
    const int64_t p = (int64_t)quotient((uint64_t)i, (uint64_t)n);
    to[i] = w_hh[(i - p * n) * outputs + p];
  }
  if (!w_hr) return;
  GRID_LOOP(i, outputs * hidden) {
    const int64_t j = (int64_t)quotient((uint64_t)i, (uint64_t)outputs);
    to[n * outputs + i] = w_hr[(i - j * outputs) * hidden + j];
  }
}

// ---- backward ----
//
// dh is the gradient of h. d is the gradient of q; that of p is the same but for a GRU's third gate, where it is e. All
// loops go over columns, so that a thread owns the sums of its columns.

// What the backward of a normalised row needs: gx = rstd * (g w - first - xhat * second)
struct Averages {
  T mean, rstd, first, second;
  __device__ __forceinline__ T hat(T v) const { return (v - mean) * rstd; }
  __device__ __forceinline__ T back(T g, T v, const T *weight, int j) const {
    return (g * (weight ? weight[j] : T(1)) - first - hat(v) * second) * rstd;
  }
};

struct Backward : Rows {
  T *dx, *dr, *dhs, *sums;
  const T *gy, *c0, *h0, *w_hh, *w_hr, *nw_ih, *nw_hh, *nw_c, *mask, *y, *gates, *cells, *tanhc, *inner, *raw_x, *raw_h,
      *stats;
  T *dh, *dc, *d, *e, *spare, *partial;    // in shared memory; e: a GRU's third gate; an LSTM's gradient behind w_hr
  Averages *of_x, *of_h, *of_c;            // there, too: one for each row

  // a warp for a row: gradient(j) is that of the normalised element j before the weight
  template <class F>
  __device__ __forceinline__ void average(Averages *to, int r, int which, int64_t at, const T *row, const T *weight,
                                          int size, F gradient) const {
    Averages x;
    const T *mean = stats + which * steps * batch + at + r;
    x.mean = norm == LAYER ? *mean : T(0), x.rstd = mean[steps * batch];
    Sum first, second;
    for (int j = threadIdx.x; j < size; j += 32) {
      const T g = gradient(j) * (weight ? weight[j] : T(1));
      first.add(g);
      second.add(g * x.hat(row[j]));
    }
    x.first = norm == LAYER ? row_sum(first.value()) / size : T(0);
    x.second = row_sum(second.value()) / size;
    if (threadIdx.x == 0) to[r] = x;
  }
  __device__ __forceinline__ T of_p(int r, int j) const {      // the gradient of p
    return kind == GRU && j >= 2 * H ? e[r * H + j - 2 * H] : d[r * n + j];
  }

  __device__ __forceinline__ void lstm_unit(int64_t t, int64_t at, int r, int j) const {
    const int64_t row = at + r, before = row + (reverse ? batch : -batch);
    const T *a = gates + row * n;
    const T i = a[j], f = a[H + j], g = a[2 * H + j], o = a[3 * H + j], tanhed = tanhc[row * H + j];
    const T c = !starts(t, r) ? cells[before * H + j] : c0 ? c0[(first + r) * H + j] : T(0);
    const T from = w_hr ? e[r * H + j] : dh[r * H + j];
    T through = from * o * (1 - tanhed * tanhed);
    if (norm) {
      const T v = cells[row * H + j];
      sums[4 * n + j] += through * of_c[r].hat(v), sums[4 * n + H + j] += through;
      through = of_c[r].back(through, v, nw_c, j);
    }
    const T now = dc[r * H + j] + through;
    T *to = d + r * n + j;
    to[0] = now * g * (i * (1 - i)), to[H] = now * c * (f * (1 - f));
    to[2 * H] = now * i * (1 - g * g), to[3 * H] = from * tanhed * (o * (1 - o));
    dc[r * H + j] = now * f;
    if (!w_hr) dh[r * H + j] = 0;
  }
  __device__ __forceinline__ void gru_unit(int64_t t, int64_t at, int r, int j) const {
    const int64_t row = at + r, before = row + (reverse ? batch : -batch);
    const T *a = gates + row * n;
    const T reset = a[j], z = a[H + j], v = a[2 * H + j], g = dh[r * H + j];
    const T h = !starts(t, r) ? y[before * H + j] : h0 ? h0[(first + r) * H + j] : T(0);
    const T dv = g * (1 - z) * (1 - v * v);
    T *to = d + r * n + j;
    to[0] = dv * inner[row * H + j] * (reset * (1 - reset)), to[H] = g * (h - v) * (z * (1 - z));
    to[2 * H] = dv * reset;
    e[r * H + j] = dv;
    dh[r * H + j] = g * z;
  }
  __device__ __forceinline__ void unit(int64_t t, int64_t at, int r, int j) const {
    if (!live(t, r)) {
      for (int g = j; g < n; g += H) d[r * n + g] = 0;
      if (kind == GRU) e[r * H + j] = 0;
    } else if (kind == LSTM) {
      lstm_unit(t, at, r, j);
    } else if (kind == GRU) {
      gru_unit(t, at, r, j);
    } else {
      const T v = y[(at + r) * H + j], g = dh[r * H + j];
      d[r * n + j] = kind == TANH ? g * (1 - v * v) : v > 0 ? g : T(0);
      dh[r * H + j] = 0;
    }
    for (int g = j; g < n; g += H) {
      sums[4 * n + 2 * H + g] += of_p(r, g);
      if (kind == GRU) sums[5 * n + 2 * H + g] += d[r * n + g];
    }
  }

  // before the gates of an LSTM: the gradient through w_hr, then the averages of the normalised c
  __device__ __forceinline__ void lstm_before(int64_t t, int64_t at) const {
    if (w_hr) {
      EACH_THREAD(i, rows * P) dhs[at * P + i] = live(t, i / P) ? dh[i] : T(0);
      product(rows, e, dh, P, w_hr, P, H, false, partial);
    }
    if (!norm) return;
    for (int r = threadIdx.y; r < rows; r += blockDim.y) {
      if (!live(t, r)) continue;
      const T *o = gates + (at + r) * n + 3 * H, *tanhed = tanhc + (at + r) * H, *from = (w_hr ? e : dh) + r * H;
      average(of_c, r, 4, at, cells + (at + r) * H, nw_c, H,
              [&](int j) { return from[j] * o[j] * (1 - tanhed[j] * tanhed[j]); });
    }
    __syncthreads();
  }

  // dx and dr: the gradients of w_ih x and w_hh h; d becomes dr
  __device__ __forceinline__ void pass_on(int64_t t, int64_t at) const {
    if (norm) {
      for (int task = threadIdx.y; task < 2 * rows; task += blockDim.y) {
        const int r = task >> 1;
        if (!live(t, r)) continue;
        if (task & 1) average(of_h, r, 2, at, raw_h + (at + r) * n, nw_hh, n, [&](int j) { return d[r * n + j]; });
        else average(of_x, r, 0, at, raw_x + (at + r) * n, nw_ih, n, [&](int j) { return of_p(r, j); });
      }
      __syncthreads();
    }
    EACH_THREAD(j, n)
      for (int r = 0; r < rows; r++) {
        const int64_t i = (at + r) * n + j;
        T p = of_p(r, j), q = d[r * n + j];
        if (norm && live(t, r)) {
          const T of_input = raw_x[i], of_state = raw_h[i];
          sums[j] += p * of_x[r].hat(of_input), sums[2 * n + j] += q * of_h[r].hat(of_state);
          p = of_x[r].back(p, of_input, nw_ih, j), q = of_h[r].back(q, of_state, nw_hh, j);
          d[r * n + j] = q;
        }
        dx[i] = p;
        if (dr != dx) dr[i] = q;
      }
    __syncthreads();
  }

  __device__ __forceinline__ void step(int64_t t) const {
    const int64_t at = t * batch + first;
    EACH_THREAD(i, rows * P)
      if (gy && live(t, i / P)) dh[i] += gy[at * P + i];
    __syncthreads();
    if (kind == LSTM) lstm_before(t, at);
    EACH_THREAD(j, H)
      for (int r = 0; r < rows; r++) unit(t, at, r, j);
    if (w_hr)
      EACH_THREAD(i, rows * P)
        if (live(t, i / P)) dh[i] = 0;
    __syncthreads();
    pass_on(t, at);
    product(rows, mask ? spare : dh, d, n, w_hh, n, P, !mask, partial);
    if (mask) EACH_THREAD(i, rows * P) dh[i] += spare[i] * mask[first * P + i];
  }
};

KERNEL(rnn_backward)(T *gx, T *gh0, T *gc0, T *gw_ih, T *gw_hh, T *gw_hr, T *gb_ih, T *gb_hh, T *gnw_ih, T *gnw_hh,
                     T *gnw_c, T *gnb_c, T *dx, T *dr, T *dhs, T *sums, T *work, const T *gy, const T *ghn,
                     const T *gcn, const T *x, const T *h0, const T *c0, const T *w_ih, const T *w_hh, const T *w_hr,
                     const T *nw_ih, const T *nw_hh, const T *nw_c, const T *mask, const int64_t *lengths, const T *y,
                     const T *gates, const T *cells, const T *tanhc, const T *inner, const T *projected,
                     const T *raw_x, const T *raw_h, const T *stats, const T *hin, int64_t steps, int64_t batch,
                     int64_t inputs, int64_t hidden, int64_t outputs, int64_t kind, int64_t norm, int64_t reverse) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  __shared__ Averages of_row[3][ROWS];
  Backward b;
  b.set(lengths, steps, batch, hidden, outputs, kind, norm, reverse);
  const int rows = b.rows, H = b.H, P = b.P, width = (int)mg_rnn_sums_of_block(b.n, H);
  b.dx = dx, b.dr = dr, b.dhs = dhs, b.sums = sums + (int64_t)blockIdx.x * width, b.gy = gy, b.c0 = c0, b.h0 = h0;
  b.w_hh = w_hh, b.w_hr = w_hr, b.nw_ih = nw_ih, b.nw_hh = nw_hh, b.nw_c = nw_c, b.mask = mask, b.y = y;
  b.gates = gates, b.cells = cells, b.tanhc = tanhc, b.inner = inner, b.raw_x = raw_x, b.raw_h = raw_h, b.stats = stats;
  b.dh = reinterpret_cast<T *>(shared_bytes), b.d = b.dh + rows * P, b.partial = b.d + rows * b.n;
  b.dc = b.partial + rows * threads(), b.e = kind == LSTM ? b.dc + rows * H : b.dc, b.spare = b.e + rows * H;
  b.of_x = of_row[0], b.of_h = of_row[1], b.of_c = of_row[2];
  EACH_THREAD(i, rows * P) b.dh[i] = ghn ? ghn[b.first * P + i] : T(0);
  if (kind == LSTM) EACH_THREAD(i, rows * H) b.dc[i] = gcn ? gcn[b.first * H + i] : T(0);
  EACH_THREAD(i, width) b.sums[i] = 0;
  __syncthreads();
  for (int64_t s = 0; s < steps; s++) {
    b.step(reverse ? s : steps - 1 - s);
    __syncthreads();
  }
  EACH_THREAD(i, rows * P) gh0[b.first * P + i] = b.dh[i];
  if (kind == LSTM) EACH_THREAD(i, rows * H) gc0[b.first * H + i] = b.dc[i];
}

// The gradients of biases and norms: the blocks' sums, one after the other. The launch rule gives the number of blocks
// in place of `inputs`.
STEP(rnn_backward, collect)(T *gx, T *gh0, T *gc0, T *gw_ih, T *gw_hh, T *gw_hr, T *gb_ih, T *gb_hh, T *gnw_ih,
                            T *gnw_hh, T *gnw_c, T *gnb_c, T *dx, T *dr, T *dhs, T *sums, T *work, const T *gy,
                            const T *ghn, const T *gcn, const T *x, const T *h0, const T *c0, const T *w_ih,
                            const T *w_hh, const T *w_hr, const T *nw_ih, const T *nw_hh, const T *nw_c, const T *mask,
                            const int64_t *lengths, const T *y, const T *gates, const T *cells, const T *tanhc,
                            const T *inner, const T *projected, const T *raw_x, const T *raw_h, const T *stats,
                            const T *hin, int64_t steps, int64_t batch, int64_t inputs, int64_t hidden,
                            int64_t outputs, int64_t kind, int64_t norm, int64_t reverse) {
  const int64_t n = gates_of(kind) * hidden, width = mg_rnn_sums_of_block(n, hidden), rest = 4 * n + 2 * hidden;
  GRID_LOOP(i, width) {
    T *to = i < n                            ? gnw_ih ? gnw_ih + i : 0
            : i < 2 * n                      ? 0
            : i < 3 * n                      ? gnw_hh ? gnw_hh + i - 2 * n : 0
            : i < 4 * n                      ? 0
            : i < 4 * n + hidden             ? gnw_c ? gnw_c + i - 4 * n : 0
            : i < rest                       ? gnb_c ? gnb_c + i - 4 * n - hidden : 0
            : i < rest + n                   ? gb_ih ? gb_ih + i - rest : 0
                                             : gb_hh ? gb_hh + i - rest - n : 0;
    if (!to) continue;
    Sum total;
    for (int64_t b = 0; b < inputs; b++) total.add(sums[b * width + i]);
    *to = total.value();
  }
}
#endif
