/* Matrix product: c = (accumulate ? c : 0) + a b + bias. Linear layers, convolutions, recurrent steps and attention
 * stand on it.
 *
 *   c[m, n] row stride crs, columns adjacent          a[m, k] strides ars, acs           b[k, n] strides brs, bcs
 *   bias[n] or null                                   offsets[batch][3] in elements for c, a, b; null if batch == 1
 *
 * Strides count elements and may be anything (transposed, negative, 0). The plain loop:
 *
 *   for i in m: for j in n:
 *     s = 0;  for p in k: s += a[i, p] * b[p, j]
 *     c[i, j] = (accumulate ? c[i, j] : 0) + s + bias[j]
 *
 * The fast one keeps a tile of c in registers: R rows by S vectors, R * S accumulators. Per step of k it loads S vectors of
 * b, broadcasts R elements of a, and does R * S multiply-adds, so that the two load ports keep up with the two
 * multiply-add ports. Around it: blocks of KC steps of k, so that a strip of b (KC rows, S vectors wide) stays in the
 * first-level cache while tile after tile of rows passes over it, and groups of rows whose part of a stays in the second.
 *
 * Operands are used where they lie while that is cheap: a through its two strides (a broadcast does not care), b
 * wherever its columns are adjacent. Else they are packed, in the order in which the tile reads them:
 *
 *   b  strips [strip][k][S * VL], columns past n hold anything finite        a  row tiles [tile][k][R]
 *
 * Order of summation, the same on each path, so that paths may be chosen by speed alone and a value depends on its row of
 * a and its column of b only, not on the other rows, the tile it falls in, or the threads:
 *
 *   within a block of KC steps one chain of multiply-adds from 0; the blocks are added to c in order; bias comes last.
 *   n == 1 with adjacent columns of a: dot products, 2 vectors of partial sums (see `dots`).
 *
 * For other C files: FN(gemm) may be called from inside a piece of mg_parallel; it then runs on that thread. It uses
 * scratch slots 5, 6 and 7.
 */
#include "simd.h"

#include "runtime.h"

#define MIN(x, y) ((x) < (y) ? (x) : (y))
#define MAX(x, y) ((x) > (y) ? (x) : (y))
#define INLINE static inline __attribute__((always_inline))

/* The largest tile, by the number of vector registers: 32 (AVX-512, NEON) or 16. */
#if defined(MG_LEVEL_avx512) || defined(__aarch64__)
#define ROWS 14
#define WIDE_ROWS 6                      /* rows of the largest tile 4 vectors wide */
#elif defined(MG_LEVEL_avx2)
#define ROWS 6
#define WIDE_ROWS 2
#else
#define ROWS 4
#define WIDE_ROWS 2
#endif
#define KC 256                           /* steps of k in a block: with AVX-512 a strip takes 32 KiB */
#define GROUP 8                          /* row tiles that pass over a strip together */
#define STRIPS 8                         /* strips of a piece of work */
#define BLOCK_ROWS (ROWS * GROUP * 8)    /* rows and columns that are packed at a time: 1 MiB each */
#define BLOCK_COLUMNS (VL * 64)
#define PIECE 65536                      /* multiply-adds that are worth a thread's while */

/* ---- the tile ---- */

/* What is left to do for a tile that sticks out of c: its sums come through memory, row by row. */
static __attribute__((noinline)) void finish_edge(int rows, int vectors, const V *sum, T *c, int64_t crs, int tail, int add, const T *bias) {
  for (int i = 0; i < rows; i++)
    for (int s = 0; s < vectors; s++) {
      T *to = c + i * crs + s * VL;
      int n = s == vectors - 1 ? tail : VL;
      V v = *sum++;
      if (add) v = vload_n(to, n) + v;
      if (bias) v = v + vload_n(bias + s * VL, n);
      vstore_n(to, v, n);
    }
}

/* c[R, S vectors] over k steps. Strides of a and b in bytes (an element stride here makes GCC write each loop twice, for
 * 1 and for the rest); rows of a are reached from 3 pointers, by 0, 1, 2, 3, 4 times `across`, which costs no register
 * more. The last vector of c has `tail` valid columns. add: c's old values are added. A sum is never -0, so that
 * adding 0 for no bias changes nothing. */
INLINE void tile(const int R, const int S, int64_t k, const T *a, int64_t across, int64_t along, const T *b, int64_t down,
                 T *c, int64_t crs, int tail, int add, const T *bias) {
  V sum[ROWS][8];
  const char *bp = (const char *)b, *row[3] = {(const char *)a, (const char *)a, (const char *)a};
  if (R > 5) row[1] += 5 * across;
  if (R > 10) row[2] += 10 * across;
#pragma GCC unroll 16
  for (int i = 0; i < R; i++)
#pragma GCC unroll 8
    for (int s = 0; s < S; s++) sum[i][s] = vzero();
  for (int64_t p = 0; p < k; p++) {
    V bv[8];
#pragma GCC unroll 8
    for (int s = 0; s < S; s++) bv[s] = vload((const T *)bp + s * VL);
#pragma GCC unroll 16
    for (int i = 0; i < R; i++) {
      V av = vset(*(const T *)(row[i / 5] + i % 5 * across));
#pragma GCC unroll 8
      for (int s = 0; s < S; s++) sum[i][s] = vfma(av, bv[s], sum[i][s]);
    }
#pragma GCC unroll 3
    for (int i = 0; i < 3; i++) row[i] += along;
    bp += down;
  }
  if (tail == VL) {
    V bv[8];
#pragma GCC unroll 8
    for (int s = 0; s < S; s++) bv[s] = bias ? vload(bias + s * VL) : vzero();
#pragma GCC unroll 16
    for (int i = 0; i < R; i++)
#pragma GCC unroll 8
      for (int s = 0; s < S; s++) {
        T *to = c + i * crs + s * VL;
        if (add) sum[i][s] = vload(to) + sum[i][s];
        vstore(to, sum[i][s] + bv[s]);
      }
  } else {
    V out[ROWS * 8];
#pragma GCC unroll 16
    for (int i = 0; i < R; i++)
#pragma GCC unroll 8
      for (int s = 0; s < S; s++) out[i * S + s] = sum[i][s];
    finish_edge(R, S, out, c, crs, tail, add, bias);
  }
}

typedef void tile_fn(int64_t k, const T *a, int64_t across, int64_t along, const T *b, int64_t down, T *c, int64_t crs,
                     int tail, int add, const T *bias);
#define TILE(R, S)                                                                                                       \
  static void tile_##R##x##S(int64_t k, const T *a, int64_t across, int64_t along, const T *b, int64_t down, T *c,      \
                             int64_t crs, int tail, int add, const T *bias) {                                            \
    tile(R, S, k, a, across, along, b, down, c, crs, tail, add, bias);                                                   \
  }
TILE(1, 1) TILE(2, 1) TILE(3, 1) TILE(4, 1) TILE(1, 2) TILE(2, 2) TILE(3, 2) TILE(4, 2) TILE(1, 4) TILE(2, 4) TILE(1, 8)
#if ROWS > 4
TILE(5, 1) TILE(6, 1) TILE(5, 2) TILE(6, 2)
#endif
#if ROWS > 6
TILE(7, 1) TILE(8, 1) TILE(9, 1) TILE(10, 1) TILE(11, 1) TILE(12, 1) TILE(13, 1) TILE(14, 1)
TILE(7, 2) TILE(8, 2) TILE(9, 2) TILE(10, 2) TILE(11, 2) TILE(12, 2) TILE(13, 2) TILE(14, 2)
TILE(3, 4) TILE(4, 4) TILE(5, 4) TILE(6, 4)
#endif
static tile_fn *const tiles_1[] = {tile_1x1, tile_2x1, tile_3x1, tile_4x1,
#if ROWS > 4
  tile_5x1, tile_6x1,
#endif
#if ROWS > 6
  tile_7x1, tile_8x1, tile_9x1, tile_10x1, tile_11x1, tile_12x1, tile_13x1, tile_14x1,
#endif
};
static tile_fn *const tiles_2[] = {tile_1x2, tile_2x2, tile_3x2, tile_4x2,
#if ROWS > 4
  tile_5x2, tile_6x2,
#endif
#if ROWS > 6
  tile_7x2, tile_8x2, tile_9x2, tile_10x2, tile_11x2, tile_12x2, tile_13x2, tile_14x2,
#endif
};
static tile_fn *const tiles_4[] = {tile_1x4, tile_2x4,
#if ROWS > 6
  tile_3x4, tile_4x4, tile_5x4, tile_6x4,
#endif
};
static tile_fn *const tiles_8[] = {tile_1x8};
static tile_fn *const *const tiles[] = {0, tiles_1, tiles_2, 0, tiles_4, 0, 0, 0, tiles_8};   /* [S][R - 1] */

/* ---- packing ---- */

#if defined(__clang__)
#define ZIP(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#else
#define ZIP(x, y, ...) __builtin_shuffle(x, y, (VM){__VA_ARGS__})
#endif
#if VBYTES == 64 && TYPE_IS == 1
#define ZIP_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define ZIP_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif VBYTES / TYPE_IS == 32
#define ZIP_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define ZIP_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#elif VBYTES / TYPE_IS == 16
#define ZIP_LOW 0, 4, 1, 5
#define ZIP_HIGH 2, 6, 3, 7
#else
#define ZIP_LOW 0, 2
#define ZIP_HIGH 1, 3
#endif

/* VL vectors of VL elements: rows become columns. Each round shuffles the first half of the rows with the second like a
 * deck of cards; after log2(VL) rounds row and column have changed places. */
INLINE void transpose(V r[VBYTES / sizeof(T)]) {
  V t[VBYTES / sizeof(T)];
#pragma GCC unroll 4
  for (int round = 1; round < VL; round *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < VL / 2; i++) {
      t[2 * i] = ZIP(r[i], r[i + VL / 2], ZIP_LOW);
      t[2 * i + 1] = ZIP(r[i], r[i + VL / 2], ZIP_HIGH);
    }
#pragma GCC unroll 16
    for (int i = 0; i < VL; i++) r[i] = t[i];
  }
}

/* to[p * width + r] = from[r * across + p * along] for r < valid (the rest of the width: anything finite), p < k.
 * Whole vectors are written where the next ones will be anyway, and masked only where they would leave `to`. */
static void pack(T *to, int width, int valid, int64_t k, const T *from, int64_t across, int64_t along) {
  int64_t end = k * width;
  if (across == 1) {
    for (int64_t p = 0; p < k; p++, from += along)
      for (int r = 0; r < width; r += VL) {
        V v = valid - r >= VL ? vload(from + r) : vload_n(from + r, MAX(valid - r, 0));
        int64_t at = p * width + r;
        if (at + VL <= end) vstore(to + at, v);
        else vstore_n(to + at, v, (int)(end - at));
      }
  } else if (along == 1) {
    for (int64_t p = 0; p < k; p += VL) {
      V v[8][VBYTES / sizeof(T)];
      int steps = (int)MIN(k - p, VL), groups = (width + VL - 1) / VL;
      for (int g = 0; g < groups; g++) {
        V t[VBYTES / sizeof(T)];
        if (steps == VL)
          for (int i = 0; i < VL; i++) t[i] = vload(from + MIN(g * VL + i, valid - 1) * across + p);
        else
          for (int i = 0; i < VL; i++) t[i] = vload_n(from + MIN(g * VL + i, valid - 1) * across + p, steps);
        transpose(t);
        for (int i = 0; i < VL; i++) v[g][i] = t[i];
      }
      for (int q = 0; q < steps; q++)
        for (int g = 0; g < groups; g++) {
          int64_t at = (p + q) * width + g * VL;
          if (at + VL <= end) vstore(to + at, v[g][q]);
          else vstore_n(to + at, v[g][q], (int)(end - at));
        }
    }
  } else {
    for (int64_t p = 0; p < k; p++)
      for (int r = 0; r < width; r++) to[p * width + r] = r < valid ? from[r * across + p * along] : 0;
  }
}

/* ---- blocks ---- */

typedef struct {
  T *c;
  const T *a, *b, *bias;
  int64_t m, n, k, ars, acs, brs, bcs, crs;
  int add, S;                            /* S: vectors of a full strip */
  int64_t row_tiles, groups, columns;    /* how the pieces of work are cut: groups of row tiles, columns of a piece */
  T *packed_a, *packed_b;                /* null: used where it lies, or (b) packed strip by strip by the piece */
} block;

/* First row of row tile i of t: m rows in t tiles, the first m % t of them one row taller. */
static int64_t first_row(int64_t m, int64_t t, int64_t i) { return m / t * i + MIN(i, m % t); }

/* Vectors of the strip at column j: S, or less at the right edge; only a strip 1 vector wide may stick out. */
static int strip_width(const block *x, int64_t j) {
  int S = x->S;
  while (S > 1 && j + S * VL > x->n) S /= 2;
  return S;
}

/* Pieces of a block of at most KC steps: piece = group of row tiles + groups * group of columns. */
static void multiply(void *context, int64_t begin, int64_t end) {
  const block *x = context;
  for (int64_t piece = begin; piece < end; piece++) {
    int64_t group = piece % x->groups, j = piece / x->groups * x->columns, j_end = MIN(j + x->columns, x->n);
    int64_t first = x->row_tiles * group / x->groups, last = x->row_tiles * (group + 1) / x->groups;
    int S;
    for (; j < j_end; j += S * VL) {
      S = strip_width(x, j);
      int tail = (int)MIN(x->n - j - (S - 1) * VL, VL);
      const T *b = x->b + j * x->bcs;
      int64_t down = x->brs;
      if (x->packed_b) {
        b = x->packed_b + j * x->k;
        down = S * VL;
      } else if (x->bcs != 1 || tail < VL) {
        T *strip = mg_scratch(7, (size_t)(x->k * S * VL) * sizeof(T));
        pack(strip, S * VL, (S - 1) * VL + tail, x->k, b, x->bcs, x->brs);
        b = strip;
        down = S * VL;
      }
      for (int64_t t = first, i = first_row(x->m, x->row_tiles, t), next; t < last; t++, i = next) {
        next = first_row(x->m, x->row_tiles, t + 1);
        int64_t R = next - i, across = x->ars, along = x->acs;
        const T *a = x->a + i * x->ars;
        if (x->packed_a) {
          a = x->packed_a + i * x->k;
          across = 1;
          along = R;
        }
        tiles[S][R - 1](x->k, a, across * (int64_t)sizeof(T), along * (int64_t)sizeof(T), b, down * (int64_t)sizeof(T),
                        x->c + i * x->crs + j, x->crs, tail, x->add, x->bias ? x->bias + j : 0);
      }
    }
  }
}

/* Piece i < row_tiles packs a row tile of a, the others a strip of b. */
static void pack_block(void *context, int64_t begin, int64_t end) {
  const block *x = context;
  int64_t tiles_of_a = x->packed_a ? x->row_tiles : 0;
  for (int64_t piece = begin; piece < end; piece++)
    if (piece < tiles_of_a) {
      int64_t i = first_row(x->m, x->row_tiles, piece), R = first_row(x->m, x->row_tiles, piece + 1) - i;
      pack(x->packed_a + i * x->k, (int)R, (int)R, x->k, x->a + i * x->ars, x->ars, x->acs);
    } else {
      int64_t j = (piece - tiles_of_a) * x->S * VL, j_end = MIN(j + x->S * VL, x->n);
      for (int S; j < j_end; j += S * VL) {
        S = strip_width(x, j);
        pack(x->packed_b + j * x->k, S * VL, (int)MIN(x->n - j, S * VL), x->k, x->b + j * x->bcs, x->bcs, x->brs);
      }
    }
}

/* ---- n == 1 ---- */

typedef struct { T *c; const T *a, *b, *bias; int64_t k, ars, crs; int accumulate; } dots_job;

/* Dot products of R rows of a (columns adjacent) with b: even and odd vectors of k are summed apart, then folded. Every
 * 4096 elements the fold is added to a running sum, which bounds the error for long rows. */
INLINE void dots_rows(const int R, const dots_job *x, int64_t row) {
  const T *a = x->a + row * x->ars, *b = x->b;
  T total[4] = {0};
  for (int64_t p0 = 0; p0 < x->k; p0 += 4096) {
    int64_t p = p0, end = MIN(p0 + 4096, x->k);
    V even[4], odd[4];
#pragma GCC unroll 4
    for (int i = 0; i < R; i++) even[i] = odd[i] = vzero();
    for (; p + 2 * VL <= end; p += 2 * VL) {
      V b0 = vload(b + p), b1 = vload(b + p + VL);
#pragma GCC unroll 4
      for (int i = 0; i < R; i++) {
        even[i] = vfma(vload(a + i * x->ars + p), b0, even[i]);
        odd[i] = vfma(vload(a + i * x->ars + p + VL), b1, odd[i]);
      }
    }
    if (p < end) {
      int n0 = (int)MIN(end - p, VL), n1 = (int)(end - p) - n0;
      V b0 = vload_n(b + p, n0), b1 = vload_n(b + p + n0, n1);
#pragma GCC unroll 4
      for (int i = 0; i < R; i++) {
        even[i] = vfma(vload_n(a + i * x->ars + p, n0), b0, even[i]);
        odd[i] = vfma(vload_n(a + i * x->ars + p + n0, n1), b1, odd[i]);
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < R; i++) total[i] += vsum(even[i] + odd[i]);
  }
  for (int i = 0; i < R; i++) {
    T *to = x->c + (row + i) * x->crs, s = total[i];
    if (x->accumulate) s = *to + s;
    *to = x->bias ? s + *x->bias : s;
  }
}

static void dots(void *context, int64_t begin, int64_t end) {
  const dots_job *x = context;
  int64_t i = begin;
  for (; i + 4 <= end; i += 4) dots_rows(4, x, i);
  for (; i < end; i++) dots_rows(1, x, i);
}

/* ---- one product ---- */

static void product(T *c, const T *a, const T *b, const T *bias, int64_t m, int64_t n, int64_t k, int64_t ars, int64_t acs,
                    int64_t brs, int64_t bcs, int64_t crs, int accumulate) {
  if (k == 0) {                          /* one step of zeros */
    static const T zero = 0;
    product(c, &zero, &zero, bias, m, n, 1, 0, 0, 0, 0, crs, accumulate);
    return;
  }
  if (n == 1 && acs == 1) {
    if (brs != 1) {
      T *dense = mg_scratch(5, (size_t)k * sizeof(T));
      for (int64_t p = 0; p < k; p++) dense[p] = b[p * brs];
      b = dense;
    }
    dots_job x = {c, a, b, bias, k, ars, crs, accumulate};
    mg_parallel(m, MAX(PIECE / k, 1), dots, &x);
    return;
  }
  block x = {.ars = ars, .acs = acs, .brs = brs, .bcs = bcs, .crs = crs};
  int tallest = ROWS;
  x.S = 2;
  if (m == 1) x.S = 8, tallest = 1;
  else if (m <= WIDE_ROWS) x.S = 4, tallest = WIDE_ROWS;
  int64_t column_blocks = (n - 1) / BLOCK_COLUMNS + 1, row_blocks = (m - 1) / BLOCK_ROWS + 1;
  int64_t block_columns = ((n - 1) / column_blocks / VL + 1) * VL, block_rows = (m - 1) / row_blocks + 1;
  int large = m * n * k > 128 * 128 * 128;
  for (int64_t j = 0; j < n; j += block_columns)
    for (int64_t p = 0; p < k; p += KC) {
      x.n = MIN(block_columns, n - j);
      x.k = MIN(KC, k - p);
      x.b = b + p * brs + j * bcs;
      x.bias = bias && p + x.k == k ? bias + j : 0;
      x.add = accumulate || p > 0;
      x.packed_b = 0;
      for (int64_t i = 0; i < m; i += block_rows) {
        x.m = MIN(block_rows, m - i);
        x.a = a + i * ars + p * acs;
        x.c = c + i * crs + j;
        x.row_tiles = (x.m - 1) / tallest + 1;
        x.groups = (x.row_tiles - 1) / GROUP + 1;
        x.columns = x.S * VL * STRIPS;
        int64_t pieces = x.groups * ((x.n - 1) / x.columns + 1), strips = 0;
        x.packed_a = large ? mg_scratch(6, (size_t)(x.m * x.k) * sizeof(T)) : 0;
        if (!x.packed_b && (large || bcs != 1) && (x.groups > 1 || m > block_rows)) {
          x.packed_b = mg_scratch(7, (size_t)((x.n + VL) * x.k) * sizeof(T));
          strips = (x.n - 1) / (x.S * VL) + 1;
        }
        int64_t packs = strips + (x.packed_a ? x.row_tiles : 0);
        if (packs) mg_parallel(packs, 4, pack_block, &x);
        if (x.m * x.n * x.k < 2 * PIECE) multiply(&x, 0, pieces);
        else mg_parallel(pieces, 1, multiply, &x);
      }
    }
}

typedef struct { T *c; const T *a, *b, *bias; const int64_t *offsets; int64_t m, n, k, ars, acs, brs, bcs, crs; int accumulate; } batch_job;

static void products(void *context, int64_t begin, int64_t end) {
  const batch_job *x = context;
  for (int64_t i = begin; i < end; i++)
    product(x->c + x->offsets[3 * i], x->a + x->offsets[3 * i + 1], x->b + x->offsets[3 * i + 2], x->bias, x->m, x->n, x->k,
            x->ars, x->acs, x->brs, x->bcs, x->crs, x->accumulate);
}

/* Small products of a batch are shared out whole; large ones follow each other, each cut up for all threads. */
void FN(gemm)(T *c, const T *a, const T *b, const T *bias, const int64_t *offsets, int64_t batch, int64_t m, int64_t n, int64_t k,
              int64_t ars, int64_t acs, int64_t brs, int64_t bcs, int64_t crs, int64_t accumulate) {
  static const int64_t none[3] = {0, 0, 0};
  if (m == 0 || n == 0 || batch == 0) return;
  batch_job x = {c, a, b, bias, offsets ? offsets : none, m, n, k, ars, acs, brs, bcs, crs, accumulate != 0};
  double work = (double)m * (double)n * (double)(k + 1);
  if (work > 16.0 * PIECE || batch == 1) products(&x, 0, batch);
  else mg_parallel(batch, MAX((int64_t)(PIECE / work), 1), products, &x);
}
