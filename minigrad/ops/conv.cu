// Convolution over one to three spatial dimensions, its gradients, and so the transposed convolution. The formulas, and
// what the arguments mean, are in native/conv.c.
//
// The plain loops are sums of products over the terms of an output; all three passes are one matrix product,
//
//   out[row, column] = sum over terms of a[row, term] * b[term, column]
//
//   pass             row                term              column                    a    b
//   forward          channel of y       channel, tap      image, position of y      w    x at the place of both
//   backward_input   channel of x       channel, tap      image, position of x      w    gy at this place
//   backward_weight  channel of y       image, position   channel, tap              gy   x at this place
//
// in which b is never written out (implicit GEMM, Chetlur et al. 2014): the place of a tap and that of a position are
// computed apart (`Place`), and their sum is where the source is read, or 0 if it lies outside. backward_input is one
// such product for each residue of a position of x by the stride, with the taps that reach these positions: position
// i = residue + stride * q reads gy at (i + pad - tap * dilation) / stride, if that is a whole number. So no product
// with a 0 between strides is computed.
//
// A block of 256 threads computes one tile of the product, each thread TM x TN outputs in registers. a and b go through
// shared memory, TERMS terms at a time: while these are multiplied, the next ones are on their way into registers, and
// the places of those after them are computed. The launch rule chooses the tile by the numbers of rows and columns.
//
// Order of summation: chains of CHAIN terms, which are added in order. backward_weight splits the positions into
// `chunks`, and a second launch adds them in order. No sum depends on the tile or on the rest of the batch. Chains are
// added in memory, so results are T, also of half precision.
#if IS_REAL
#define TILE_THREADS 256
#define CHAIN 512
#define UNROLLED (sizeof(T) == 4 ? 8 : 2)    // terms: more make registers spill

struct Shapes { int64_t images, groups, c, k, in[3], out[3], kernel[3], stride[3], pad[3], dilation[3]; };

// n / by, rounded down; in 32 bits where these are enough, which is several times as fast
__device__ __forceinline__ int64_t divide(int64_t n, int64_t by) {
  if (n <= 0xffffffffll && by <= 0xffffffffll) return (uint32_t)n / (uint32_t)by;
  return (int64_t)quotient((uint64_t)n, (uint64_t)by);
}
__device__ __forceinline__ int64_t up(int64_t n, int64_t by) { return divide(n + by - 1, by); }
// n = rest * by + what it gives
__device__ __forceinline__ int64_t part(int64_t &n, int64_t by) {
  const int64_t q = divide(n, by), r = n - q * by;
  n = q;
  return r;
}

// One dimension. Position q of the grid stands at start + every * q in the result, tap t at first + skip * t in the
// kernel; together they read the source at low + step * q + shift * t.
struct Line { int size, result, grid, kernel, low, step, shift, start, every, taps, first, skip; };

// A position, or a channel and a tap. The source is read at the sum of both: `at` are its coordinates, `source` is its
// offset. `other` is the offset of a position in the result (or in gy), of a tap in the weights.
struct __align__(16) Place { int at[3], unused; int64_t source, other; };
// at[0] where there is no position or tap: then no sum of two is inside. `other` is negative there.
#define NOWHERE (-2147483647 - 1)

struct Sweep {
  T *out;
  const STORED *a, *b, *bias;              // bias may be null
  int64_t rows, columns, a_row, out_row;   // a_row, out_row: elements from a row to the next
  int64_t first_row, first_column, begin, end;     // the tile, and its terms
  Line line[3];
  int64_t source_image, result_image;      // elements of an image
  int source_plane, result_plane, channels, channel_weights, taps, positions;

  __device__ __forceinline__ Place position(int64_t n, bool given) const {
    Place p = {{NOWHERE, 0, 0}, 0, 0, -1};
    if (!given) return p;
    const int64_t image = divide(n, positions);
    unsigned rest = (unsigned)(n - image * positions);
    const unsigned q2 = rest % line[2].grid;
    rest /= line[2].grid;
    const unsigned q1 = rest % line[1].grid, q0 = rest / line[1].grid;
    const int q[3] = {(int)q0, (int)q1, (int)q2};
    int64_t source = 0, other = 0;
#pragma unroll
    for (int d = 0; d < 3; d++) {
      p.at[d] = line[d].low + q[d] * line[d].step;
      source = source * line[d].size + p.at[d];
      other = other * line[d].result + line[d].start + q[d] * line[d].every;
    }
    p.source = image * source_image + source;
    p.other = image * result_image + other;
    return p;
  }
  __device__ __forceinline__ Place tap(int64_t n, bool given) const {
    Place p = {{NOWHERE, 0, 0}, 0, 0, -1};
    if (!given) return p;
    const unsigned channel = (unsigned)n / taps;
    unsigned rest = (unsigned)n - channel * taps;
    const unsigned t2 = rest % line[2].taps;
    rest /= line[2].taps;
    const unsigned t1 = rest % line[1].taps, t0 = rest / line[1].taps;
    const int t[3] = {(int)t0, (int)t1, (int)t2};
    int64_t source = 0, other = 0;
#pragma unroll
    for (int d = 0; d < 3; d++) {
      p.at[d] = line[d].shift * t[d];
      source = source * line[d].size + p.at[d];
      other = other * line[d].kernel + line[d].first + line[d].skip * t[d];
    }
    p.source = (int64_t)channel * source_plane + source;
    p.other = (int64_t)channel * channel_weights + other;
    return p;
  }
};

// W elements that lie side by side in shared memory, aligned.
template <int W> struct __align__(W * sizeof(T) < 16 ? W * sizeof(T) : 16) Run { T v[W]; };

// ROWS x COLUMNS outputs of a block: R x C threads with TM x TN each. A thread's columns are runs of W.
template <int TM_, int TN_, int R_, int TERMS_, int W_> struct Tile {
  static constexpr int TM = TM_, TN = TN_, R = R_, TERMS = TERMS_, W = W_, C = TILE_THREADS / R;
  static constexpr int ROWS = TM * R, COLUMNS = TN * C, PITCH = ROWS + 4;
  struct Shared {
    T a[2][TERMS][PITCH], b[2][TERMS][COLUMNS];
    Place term[2][TERMS];
    int64_t to[COLUMNS];                   // where a column stands in the result; -1: there is none
    Sweep sweep;
  };
};

// A thread's part of one tile. WEIGHT: columns are taps and terms are positions. INSIDE: b outside of the source is not
// multiplied, which matters where an `a` is not finite.
template <class S, bool WEIGHT, bool INSIDE> struct Worker {
  static constexpr int LOADS_A = (S::ROWS * S::TERMS + TILE_THREADS - 1) / TILE_THREADS;
  static constexpr int LOADS_B = S::COLUMNS * S::TERMS / TILE_THREADS;
  static constexpr int NEXT_A = TILE_THREADS / S::TERMS, NEXT_B = TILE_THREADS / S::COLUMNS;   // from load to load

  typename S::Shared &s;
  const Sweep &p;
  const int x, y, thread;
  const Place column;                      // of b, which this thread loads
  const STORED *const of_row, *const source;
  const int rows, size0, size1, size2;
  T next_a[LOADS_A], next_b[LOADS_B], sum[S::TM][S::TN];

  __device__ __forceinline__ Worker(typename S::Shared &shared)
      : s(shared), p(shared.sweep), x(threadIdx.x), y(threadIdx.y), thread(y * S::C + x),
        column(place_of_column(p.first_column + thread % S::COLUMNS)),
        of_row(p.a + (p.first_row + thread / S::TERMS) * p.a_row), source(p.b),
        rows((int)(p.rows - p.first_row < S::ROWS ? p.rows - p.first_row : S::ROWS)), size0(p.line[0].size),
        size1(p.line[1].size), size2(p.line[2].size) {
    if (thread < S::COLUMNS) s.to[thread] = column.other;
  }
  __device__ __forceinline__ Place place_of_column(int64_t n) const {
    return WEIGHT ? p.tap(n, n < p.columns) : p.position(n, n < p.columns);
  }
  __device__ __forceinline__ Place place_of_term(int64_t k) const {
    return WEIGHT ? p.position(k, k < p.end) : p.tap(k, k < p.end);
  }
  __device__ __forceinline__ int column_of(int j) const { return j / S::W * S::W * S::C + x * S::W + j % S::W; }

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < S::TM; i++)
#pragma unroll
      for (int j = 0; j < S::TN; j++) sum[i][j] = 0;
  }

  // a and b of some terms, from memory into registers
  __device__ __forceinline__ void fetch(const Place *terms) {
    const Place &term = terms[thread % S::TERMS];
#pragma unroll
    for (int i = 0; i < LOADS_A; i++) {
      const int row = thread / S::TERMS + i * NEXT_A;
      next_a[i] = row < rows && term.other >= 0 ? T(of_row[i * NEXT_A * p.a_row + term.other]) : T(0);
    }
#pragma unroll
    for (int i = 0; i < LOADS_B; i++) {
      const Place t = terms[thread / S::COLUMNS + i * NEXT_B];
      const bool inside = (unsigned)column.at[0] + (unsigned)t.at[0] < (unsigned)size0 &&
                          (unsigned)column.at[1] + (unsigned)t.at[1] < (unsigned)size1 &&
                          (unsigned)column.at[2] + (unsigned)t.at[2] < (unsigned)size2;
      // -0 marks what lies outside; a -0 of the source becomes 0
      next_b[i] = inside ? source[column.source + t.source] + T(0) : INSIDE ? T(-0.0) : T(0);
    }
  }

  // From registers into shared memory. Gives, with INSIDE, whether the block stores an a that is not finite.
  __device__ __forceinline__ bool store(int half) {
    bool odd = false;
#pragma unroll
    for (int i = 0; i < LOADS_A; i++) {
      const int row = thread / S::TERMS + i * NEXT_A;
      if (S::ROWS * S::TERMS >= TILE_THREADS || row < S::ROWS) s.a[half][thread % S::TERMS][row] = next_a[i];
      if (INSIDE) odd |= !(fabs(next_a[i]) < T(INFINITY));
    }
#pragma unroll
    for (int i = 0; i < LOADS_B; i++)
      s.b[half][thread / S::COLUMNS + i * NEXT_B][thread % S::COLUMNS] = next_b[i];
    if (INSIDE) return __syncthreads_or(odd) != 0;
    __syncthreads();
    return false;
  }

  __device__ __forceinline__ void add_up(int half) {
#pragma unroll(UNROLLED)
    for (int k = 0; k < S::TERMS; k++) {
      const Run<S::TM> a = *reinterpret_cast<const Run<S::TM> *>(&s.a[half][k][y * S::TM]);
      Run<S::W> b[S::TN / S::W];
#pragma unroll
      for (int j = 0; j < S::TN; j += S::W)
        b[j / S::W] = *reinterpret_cast<const Run<S::W> *>(&s.b[half][k][column_of(j)]);
#pragma unroll
      for (int i = 0; i < S::TM; i++)
#pragma unroll
        for (int j = 0; j < S::TN; j++) sum[i][j] += a.v[i] * b[j / S::W].v[j % S::W];
    }
  }
  __device__ __forceinline__ void add_up_inside(int half) {
#pragma unroll 1
    for (int k = 0; k < S::TERMS; k++)
#pragma unroll
      for (int j = 0; j < S::TN; j++) {
        const T b = s.b[half][k][column_of(j)];
        if (b == 0 && 1 / b < 0) continue;
#pragma unroll
        for (int i = 0; i < S::TM; i++) sum[i][j] += s.a[half][k][y * S::TM + i] * b;
      }
  }

  // The sums of a chain: of the first one with the bias, else added to what is there.
  __device__ __forceinline__ void write(bool first) {
#pragma unroll
    for (int j = 0; j < S::TN; j++) {
      const int64_t to = s.to[column_of(j)];
      if (to < 0) continue;
#pragma unroll
      for (int i = 0; i < S::TM; i++)
        if (y * S::TM + i < rows) {
          const int64_t row = p.first_row + y * S::TM + i;
          T *out = p.out + row * p.out_row + to;
          *out = (first ? p.bias ? T(p.bias[row]) : T(0) : *out) + sum[i][j];
        }
    }
  }
};

// One tile, by a block.
template <class S, bool WEIGHT, bool INSIDE> __device__ __forceinline__ void multiply(typename S::Shared &s) {
  Worker<S, WEIGHT, INSIDE> worker(s);
  const Sweep &p = s.sweep;
  const int thread = worker.thread;
  worker.clear();
  if (thread < S::TERMS) s.term[0][thread] = worker.place_of_term(p.begin + thread);
  __syncthreads();
  bool odd = false, last;
  int half = 1;
  int64_t k = p.begin - S::TERMS;          // in the first round there is nothing to add up yet
#pragma unroll 1
  do {
    const int64_t next = k + S::TERMS;
    last = next >= p.end && k >= p.begin;
    if (!last) worker.fetch(s.term[half ^ 1]);
    if (k >= p.begin) {
      if (INSIDE && odd) worker.add_up_inside(half);
      else worker.add_up(half);
      if (last || (next - p.begin) % CHAIN == 0) {
        worker.write(next - p.begin <= CHAIN);
        worker.clear();
      }
    }
    if (!last) {
      if (thread < S::TERMS) s.term[half][thread] = worker.place_of_term(next + S::TERMS + thread);
      odd = worker.store(half ^ 1);
    }
    half ^= 1;
    k = next;
  } while (!last);
}

// ---- the passes ----

// How many residues the positions of a dimension have.
__device__ __forceinline__ int64_t residues(const Shapes &g, int d) {
  return g.stride[d] < g.in[d] ? g.stride[d] : g.in[d];
}

// The sweep of a pass, with BACK for residues of that number; by one thread.
template <bool BACK> __device__ __forceinline__ void describe(Sweep &s, const Shapes &g, int64_t number) {
  int64_t in = 1, out = 1, all = 1;
  s.taps = s.positions = 1;
#pragma unroll 1
  for (int d = 0; d < 3; d++) {
    const int n = (int)g.in[d], m = (int)g.out[d], kernel = (int)g.kernel[d], stride = (int)g.stride[d];
    const int pad = (int)g.pad[d], dilation = (int)g.dilation[d];
    if (BACK) {
      // taps whose reach differs from `from` by whole strides: first, first + skip, ...
      const int residue = (int)part(number, residues(g, d)), from = residue + pad;
      int first = 0, skip = 1;
      while (first < kernel && first < stride && (from - first * dilation) % stride) first++;
      while (skip < kernel && skip * dilation % stride) skip++;
      const bool some = first < kernel && first < stride;
      const int low = some ? (from - first * dilation) / stride : 0, taps = some ? (kernel - 1 - first) / skip + 1 : 0;
      const int grid = (int)up(n - residue, stride), shift = -(skip * dilation / stride);
      s.line[d] = {m, n, grid, kernel, low, 1, shift, residue, stride, taps, first, skip};
    } else {
      s.line[d] = {n, m, m, kernel, -pad, stride, dilation, 0, 1, kernel, 0, 1};
    }
    s.taps *= s.line[d].taps;
    s.positions *= s.line[d].grid;
    in *= n, out *= m, all *= kernel;
  }
  s.channels = (int)(BACK ? g.k : g.c);
  s.channel_weights = (int)(BACK ? g.c * all : all);
  s.source_plane = (int)(BACK ? out : in), s.result_plane = (int)(BACK ? in : out);
  s.source_image = g.groups * s.channels * s.source_plane;
  s.result_image = g.groups * (BACK ? g.c : g.k) * s.result_plane;
}

// Forward, or with BACK the gradient of the source: all tiles, of all groups and residues.
template <class S, bool BACK>
__device__ __forceinline__ void sweep(typename S::Shared &s, T *out, const STORED *source, const STORED *w,
                                      const STORED *bias, const Shapes &g) {
  Sweep &p = s.sweep;
  const int64_t rows = BACK ? g.c : g.k, row_tiles = up(rows, S::ROWS);
  int64_t most = g.images, tiles = g.groups * row_tiles;
  for (int d = 0; d < 3; d++) {
    most *= BACK ? up(g.in[d], g.stride[d]) : g.out[d];
    tiles *= BACK ? residues(g, d) : 1;
  }
  const int64_t column_tiles = up(most, S::COLUMNS);
#pragma unroll 1
  for (int64_t tile = blockIdx.x; tile < tiles * column_tiles; tile += gridDim.x) {
    __syncthreads();                       // other threads may still be in the tile before
    if (threadIdx.x == 0 && threadIdx.y == 0) {
      int64_t rest = tile;
      const int64_t row_tile = part(rest, row_tiles), column_tile = part(rest, column_tiles);
      const int64_t group = part(rest, g.groups), all = g.kernel[0] * g.kernel[1] * g.kernel[2];
      describe<BACK>(p, g, rest);
      p.rows = rows, p.columns = g.images * p.positions;
      p.first_row = row_tile * S::ROWS, p.first_column = column_tile * S::COLUMNS;
      p.out = out + group * rows * p.result_plane, p.out_row = p.result_plane;
      p.a = w + group * g.k * g.c * all, p.a_row = BACK ? all : g.c * all;
      p.b = source + group * p.channels * p.source_plane;
      p.bias = bias ? bias + group * rows : 0;
      p.begin = 0, p.end = (int64_t)p.channels * p.taps;
    }
    __syncthreads();
    if (p.first_column < p.columns) multiply<S, false, BACK>(s);
  }
}

// The gradient of the weights: all tiles, of all groups and chunks.
template <class S>
__device__ __forceinline__ void weights(typename S::Shared &s, T *out, const STORED *x, const STORED *gy,
                                        const Shapes &g, int64_t chunks) {
  Sweep &p = s.sweep;
  const int64_t columns = g.c * g.kernel[0] * g.kernel[1] * g.kernel[2];
  const int64_t row_tiles = up(g.k, S::ROWS), column_tiles = up(columns, S::COLUMNS);
#pragma unroll 1
  for (int64_t tile = blockIdx.x; tile < row_tiles * column_tiles * g.groups * chunks; tile += gridDim.x) {
    __syncthreads();                       // other threads may still be in the tile before
    if (threadIdx.x == 0 && threadIdx.y == 0) {
      int64_t chunk = tile;
      const int64_t column_tile = part(chunk, column_tiles), row_tile = part(chunk, row_tiles);
      const int64_t group = part(chunk, g.groups);
      describe<false>(p, g, 0);
      const int64_t terms = g.images * p.positions, length = up(terms, chunks);
      p.rows = g.k, p.columns = columns, p.first_row = row_tile * S::ROWS, p.first_column = column_tile * S::COLUMNS;
      p.out = out + (chunk * g.groups + group) * g.k * columns, p.out_row = columns;
      p.a = gy + group * g.k * p.result_plane, p.a_row = p.result_plane;
      p.b = x + group * g.c * p.source_plane, p.bias = 0;
      p.begin = chunk * length, p.end = p.begin + length < terms ? p.begin + length : terms;
    }
    __syncthreads();
    multiply<S, true, false>(s);
  }
}

// ---- kernels ----
//
// blockDim.y, the threads in a column of a block, says which tile.
typedef Tile<4, 1, 1, 8, 1> Few;           // 4 x 256: for few rows; no output is shared, memory is the limit
typedef Tile<4, 4, 8, 8, 1> Middle;        // 32 x 128
typedef Tile<4, 1, 8, 32, 1> Small;        // 32 x 32: weights, whose rows and columns are few and whose terms are many
#if TYPE_IS == 1
typedef Tile<4, 8, 16, 8, 4> Large;        // 64 x 128
#else
typedef Tile<4, 4, 16, 8, 2> Large;        // 64 x 64
#endif

// All threads read the sizes from shared memory, which takes one wait for memory.
__device__ __forceinline__ const Shapes &copied(Shapes &shapes, const int64_t *geometry) {
  const int thread = threadIdx.y * blockDim.x + threadIdx.x;
  if (thread < sizeof(Shapes) / sizeof(int64_t)) reinterpret_cast<int64_t *>(&shapes)[thread] = geometry[thread];
  __syncthreads();
  return shapes;
}

template <bool BACK>
__device__ __forceinline__ void any_sweep(T *out, const STORED *source, const STORED *w, const STORED *bias,
                                          const int64_t *geometry) {
  __shared__ union { Few::Shared few; Middle::Shared middle; Large::Shared large; } memory;
  __shared__ Shapes shapes;
  const Shapes &g = copied(shapes, geometry);
  if (blockDim.y == Few::R) sweep<Few, BACK>(memory.few, out, source, w, bias, g);
  else if (blockDim.y == Middle::R) sweep<Middle, BACK>(memory.middle, out, source, w, bias, g);
  else sweep<Large, BACK>(memory.large, out, source, w, bias, g);
}
KERNEL(conv_forward)(T *y, const STORED *x, const STORED *w, const STORED *bias, const int64_t *geometry) {
  any_sweep<false>(y, x, w, bias, geometry);
}
KERNEL(conv_backward_input)(T *gx, const STORED *gy, const STORED *w, const STORED *bias, const int64_t *geometry) {
  any_sweep<true>(gx, gy, w, bias, geometry);
}

KERNEL(conv_backward_weight)(T *gw, T *sums, const STORED *x, const STORED *gy, const int64_t *geometry,
                             int64_t chunks) {
  __shared__ union { Small::Shared small; Large::Shared large; } memory;
  __shared__ Shapes shapes;
  const Shapes &g = copied(shapes, geometry);
  T *out = chunks > 1 ? sums : gw;
  if (blockDim.y == Small::R) weights<Small>(memory.small, out, x, gy, g, chunks);
  else weights<Large>(memory.large, out, x, gy, g, chunks);
}
STEP(conv_backward_weight, add)(T *gw, T *sums, const STORED *x, const STORED *gy, const int64_t *geometry,
                                int64_t chunks) {
  const Shapes &g = *reinterpret_cast<const Shapes *>(geometry);
  const int64_t size = g.groups * g.k * g.c * g.kernel[0] * g.kernel[1] * g.kernel[2];
  GRID_LOOP(i, size) {
    T sum = sums[i];
#pragma unroll 8
    for (int64_t chunk = 1; chunk < chunks; chunk++) sum += sums[chunk * size + i];
    gw[i] = sum;
  }
}
#endif
