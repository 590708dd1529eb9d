// Order along the middle axis of [outer, n, inner]: argsort and topk, for lines of up to 4096 elements. What they give,
// and what a key is, native/sort.c says.
//
// The items of a line, a key and an index, are sorted in shared memory by a bitonic network (Batcher 1968), which
// compares the same pairs whatever the values are. Items with equal keys are ordered by their index, so the order is
// stable. A line is filled up to a power of two with items that come after all others. blockDim is (threads of a line,
// lines): short lines are sorted several at a time.
#if TYPE_IS != 6
#if TYPE_IS == 2 || TYPE_IS == 4
typedef uint64_t Key;
#else
typedef uint32_t Key;
#endif
#define SIGN ((Key)1 << (8 * sizeof(Key) - 1))

// By the bits: arithmetic would take denormal numbers for 0.
__device__ __forceinline__ Key key_of(T x) {
#if IS_REAL
#if TYPE_IS == 1
  const Key bits = __float_as_uint(x), infinity = 0x7f800000u;
#else
  const Key bits = (Key)__double_as_longlong(x), infinity = 0x7ff0000000000000ull;
#endif
  const Key size = bits & ~SIGN;
  if (size > infinity) return ~(Key)0;     // NaN
  if (size == 0) return SIGN;              // -0 is 0
  return bits & SIGN ? ~bits : bits | SIGN;
#elif TYPE_IS == 5
  return x;
#else
  return (Key)x ^ SIGN;
#endif
}

__device__ __forceinline__ void sort_lines(int64_t *out, const STORED *x, int64_t outer, int64_t n, int64_t inner,
                                           int64_t k, Key invert) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  int size = 1;
  while (size < n) size *= 2;
  Key *const all_keys = reinterpret_cast<Key *>(shared_bytes), *const keys = all_keys + threadIdx.y * size;
  uint16_t *const index = reinterpret_cast<uint16_t *>(all_keys + blockDim.y * size) + threadIdx.y * size;
  const int64_t lines = outer * inner;
#pragma unroll 1
  for (int64_t first = (int64_t)blockIdx.x * blockDim.y; first < lines; first += (int64_t)gridDim.x * blockDim.y) {
    const int64_t line = first + threadIdx.y;
    const int64_t o = (int64_t)quotient((uint64_t)line, (uint64_t)inner), i = line - o * inner;
    for (int j = threadIdx.x; j < size; j += blockDim.x) {
      keys[j] = j < n && line < lines ? key_of(T(x[(o * n + j) * inner + i])) ^ invert : ~(Key)0;
      index[j] = (uint16_t)j;
    }
#pragma unroll 1
    for (int width = 2; width <= size; width *= 2)
#pragma unroll 1
      for (int step = width / 2; step > 0; step /= 2) {
        __syncthreads();
        for (int pair = threadIdx.x; pair < size / 2; pair += blockDim.x) {
          const int a = 2 * pair - (pair & (step - 1)), b = a + step;
          const Key key_a = keys[a], key_b = keys[b];
          const uint16_t index_a = index[a], index_b = index[b];
          const bool later = key_a > key_b || (key_a == key_b && index_a > index_b);
          if (later == ((a & width) == 0)) keys[a] = key_b, keys[b] = key_a, index[a] = index_b, index[b] = index_a;
        }
      }
    __syncthreads();
    for (int j = threadIdx.x; j < k && line < lines; j += blockDim.x) out[(o * k + j) * inner + i] = index[j];
  }
}

KERNEL(argsort)(int64_t *out, const STORED *x, int64_t outer, int64_t n, int64_t inner, int64_t descending) {
  sort_lines(out, x, outer, n, inner, n, descending ? ~(Key)0 : 0);
}
KERNEL(topk)(int64_t *out, const STORED *x, int64_t outer, int64_t n, int64_t inner, int64_t k, int64_t largest) {
  sort_lines(out, x, outer, n, inner, k, largest ? ~(Key)0 : 0);
}
#endif
