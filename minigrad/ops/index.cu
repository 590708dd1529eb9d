// Indexing along the middle axis of [outer, n, inner]. Indices are checked and wrapped before (check_index).
//
//   take           out[o, j, i] = x[o, index[j], i]            index_add     out[o, index[j], i] += src[o, j, i]
//   gather         out[o, j, i] = x[o, index[o, j, i], i]      scatter_add   out[o, index[o, j, i], i] += src[o, j, i]
//                                                              scatter       out[o, index[o, j, i], i]  = src[o, j, i]
//
// The readers (left) have a thread for each element of `out`. The writers (right) may write the same place more than
// once, and then the order of j counts. So a thread owns the elements (o, *, i) of `out` and runs through j in order:
// no two threads write the same place, and the sums have the same bits at each run. (Atomics are faster, but their sums
// differ from run to run.)
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
  GRID_LOOP(column, outer * inner) {
    const int64_t o = (int64_t)quotient((uint64_t)column, (uint64_t)inner), k = column - o * inner;
    for (int64_t j = 0; j < m; j++) {
      const int64_t i = (o * m + j) * inner + k;
      out[(o * n + index[i]) * inner + k] = src[i];
    }
  }
}
#endif
#if IS_NUMBER
KERNEL(index_add)(T *out, const int64_t *index, const T *src, int64_t outer, int64_t m, int64_t n, int64_t inner) {
  GRID_LOOP(column, outer * inner) {
    const int64_t o = (int64_t)quotient((uint64_t)column, (uint64_t)inner), k = column - o * inner;
    for (int64_t j = 0; j < m; j++) out[(o * n + index[j]) * inner + k] += src[(o * m + j) * inner + k];
  }
}
KERNEL(scatter_add)(T *out, const int64_t *index, const T *src, int64_t outer, int64_t m, int64_t n, int64_t inner) {
  GRID_LOOP(column, outer * inner) {
    const int64_t o = (int64_t)quotient((uint64_t)column, (uint64_t)inner), k = column - o * inner;
    for (int64_t j = 0; j < m; j++) {
      const int64_t i = (o * m + j) * inner + k;
      out[(o * n + index[i]) * inner + k] += src[i];
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
