// Indexing along the middle axis of [outer, n, inner]. Indices are checked and wrapped before (check_index).
//
//   take           out[o, j, i] = x[o, index[j], i]            index_add     out[o, index[j], i] += src[o, j, i]
//   gather         out[o, j, i] = x[o, index[o, j, i], i]      scatter_add   out[o, index[o, j, i], i] += src[o, j, i]
//                                                              scatter       out[o, index[o, j, i], i]  = src[o, j, i]
//
// The readers (left) have a thread for each element of `out`. The writers (right) may write the same place more than
// once, and then the order of j counts: the sums are those of a loop over j, at each run. (Atomics are faster, but their
// sums differ from run to run.) So each place has one thread that writes to it. A thread owns a column (o, k) of `out`
// and a class of its rows, those that leave the same remainder: with few columns, many classes occupy the GPU.
#ifdef MG_TYPE
#define IS_MOVE (TYPE_IS >= 3)
#define IS_NUMBER (TYPE_IS <= 4)

// i = (o * m + j) * inner + k
struct Place {
  int64_t o, j, k;
  __device__ __forceinline__ Place(int64_t i, int64_t m, int64_t inner) {
    const int64_t row = (int64_t)quotient((uint64_t)i, (uint64_t)inner);
    k = i - row * inner, o = (int64_t)quotient((uint64_t)row, (uint64_t)m), j = row - o * m;
  }
};

// each(to, i): element i of src belongs to element `to` of out. The number of classes is a power of two.
template <class F>
__device__ __forceinline__ void scattered(const int64_t *index, int64_t outer, int64_t m, int64_t n, int64_t inner,
                                          F each) {
  const int64_t classes = (int64_t)gridDim.y * blockDim.y, own = (int64_t)blockIdx.y * blockDim.y + threadIdx.y;
  GRID_LOOP(column, outer * inner) {
    const int64_t o = (int64_t)quotient((uint64_t)column, (uint64_t)inner), k = column - o * inner;
#pragma unroll 4
    for (int64_t j = 0; j < m; j++) {
      const int64_t i = (o * m + j) * inner + k, row = index[i];
      if ((row & (classes - 1)) == own) each((o * n + row) * inner + k, i);
    }
  }
}

#if IS_MOVE
KERNEL(take)(T *out, const T *x, const int64_t *index, int64_t outer, int64_t m, int64_t n, int64_t inner) {
  GRID_LOOP(i, outer * m * inner) {
    const Place at(i, m, inner);
    out[i] = x[(at.o * n + index[at.j]) * inner + at.k];
  }
}
KERNEL(gather)(T *out, const T *x, const int64_t *index, int64_t outer, int64_t m, int64_t n, int64_t inner) {
  GRID_LOOP(i, outer * m * inner) {
    const Place at(i, m, inner);
    out[i] = x[(at.o * n + index[i]) * inner + at.k];
  }
}
KERNEL(scatter)(T *out, const int64_t *index, const T *src, int64_t outer, int64_t m, int64_t n, int64_t inner) {
  scattered(index, outer, m, n, inner, [&](int64_t to, int64_t i) { out[to] = src[i]; });
}
#endif
#if IS_NUMBER
KERNEL(scatter_add)(T *out, const int64_t *index, const T *src, int64_t outer, int64_t m, int64_t n, int64_t inner) {
  scattered(index, outer, m, n, inner, [&](int64_t to, int64_t i) { out[to] += src[i]; });
}

// All columns share one list of indices, so a block reads it for all of them. It owns a range of rows: it takes a tile
// of the list, collects the positions whose rows are its own, in order, and adds what belongs to them. A thread keeps
// the sum of a row in a register while the row is the same. Two barriers a tile suffice: when the list is written again,
// all threads have passed the first one of the next tile. blockDim.y is a power of two; a block has 32 to 256 threads.
//
// Half precision, to be rounded once, is added up in `held`: then a block takes HELD rows and a thread one column at a
// time, and reads the list again for the next.
#define TILE 1024
#define ROUNDS 4
#define HELD 32
KERNEL(index_add)(STORED *out, const int64_t *index, const STORED *src, int64_t outer, int64_t m, int64_t n,
                  int64_t inner) {
  constexpr bool HALF = sizeof(STORED) == 2;
  __shared__ int64_t rows[TILE];
  __shared__ int positions[TILE];
  __shared__ int of_warp[32];
  __shared__ T held[HALF ? HELD * 256 : 1];
  const int threads = blockDim.x * blockDim.y, thread = threadIdx.y * blockDim.x + threadIdx.x;
  const int lane = thread & 31, warp = thread >> 5, warps = threads >> 5, parts = ROUNDS * warps;
  const int64_t share = (n + gridDim.y - 1) / gridDim.y, begin = blockIdx.y * share;
  const int64_t end = begin + share < n ? begin + share : n, columns = outer * inner;
  const int64_t step = HALF ? HELD : end - begin, width = (int64_t)gridDim.x * blockDim.x;
  for (int64_t low = begin; low < end; low += step) {
    const int64_t high = low + step < end ? low + step : end;
    for (int64_t start = (int64_t)blockIdx.x * blockDim.x; start < columns; start += HALF ? width : columns) {
      const int64_t own = start + threadIdx.x, next = HALF ? columns : width;
      const auto each_held = [&](auto f) {                     // f(sum, element of out)
        const int64_t o = (int64_t)quotient((uint64_t)own, (uint64_t)inner), to = o * n * inner + (own - o * inner);
        for (int64_t r = low; HALF && own < columns && r < high; r++)
          if ((r & (blockDim.y - 1)) == threadIdx.y) f(held[(r - low) * blockDim.x + threadIdx.x], out[to + r * inner]);
      };
      each_held([](T &sum, STORED &to) { sum = to; });
      for (int64_t base = 0; base < m; base += ROUNDS * threads) {
        int64_t row[ROUNDS];
        unsigned hits[ROUNDS];
#pragma unroll
        for (int u = 0; u < ROUNDS; u++) {
          const int64_t j = base + u * threads + thread;
          row[u] = j < m ? index[j] : -1;
        }
#pragma unroll
        for (int u = 0; u < ROUNDS; u++) {
          hits[u] = __ballot_sync(FULL, row[u] >= low && row[u] < high);
          if (lane == 0) of_warp[u * warps + warp] = __popc(hits[u]);
        }
        __syncthreads();
        int before = lane < parts ? of_warp[lane] : 0;         // how many hits there are up to each part of the tile
#pragma unroll
        for (int d = 1; d < 32; d *= 2) {
          const int other = __shfl_up_sync(FULL, before, d);
          if (lane >= d) before += other;
        }
        const int total = __shfl_sync(FULL, before, 31);
#pragma unroll
        for (int u = 0; u < ROUNDS; u++) {
          const int at = __shfl_sync(FULL, before, u * warps + warp) - __popc(hits[u] >> lane);
          if (hits[u] >> lane & 1) rows[at] = row[u], positions[at] = u * threads + thread;
        }
        __syncthreads();
        for (int64_t column = own; column < columns; column += next) {
          const int64_t o = (int64_t)quotient((uint64_t)column, (uint64_t)inner), k = column - o * inner;
          const int64_t to = o * n * inner + k, from = (o * m + base) * inner + k;
          int64_t current = -1;
          T sum = 0;
          const auto keep = [&]() {
            if (HALF) held[(current - low) * blockDim.x + threadIdx.x] = sum;
            else out[to + current * inner] = sum;
          };
          for (int i = 0; i < total; i++) {
            const int64_t r = rows[i];
            if ((r & (blockDim.y - 1)) != threadIdx.y) continue;
            if (r != current) {
              if (current >= 0) keep();
              current = r, sum = HALF ? held[(r - low) * blockDim.x + threadIdx.x] : T(out[to + r * inner]);
            }
            sum += src[from + positions[i] * inner];
          }
          if (current >= 0) keep();
        }
      }
      each_held([](T &sum, STORED &to) { to = sum; });
    }
  }
}
#endif
#else
// `flag` is in host memory (devices/flags.py). Of several threads one claims it, writes the value, then the number.
KERNEL(check_index)(int64_t *out, int64_t *flag, const int64_t *index, int64_t n, int64_t low, int64_t high,
                    int64_t ignore, int64_t number) {
  GRID_LOOP(k, n) {
    const int64_t i = index[k];
    const bool wrong = (i < low || i >= high) && i != ignore;
    if (out) out[k] = wrong ? 0 : i >= low && i < 0 ? i + high : i;
    unsigned long long *claimed = (unsigned long long *)flag;
    if (wrong && flag && atomicCAS(claimed, 0ull, ~0ull) == 0) {
      flag[1] = i;
      __threadfence_system();
      atomicExch(claimed, (unsigned long long)number);
    }
  }
}
#endif
