/* types: f32 f64 */
/* Matrix product: c = (accumulate ? c : 0) + a b + bias. Used by linear layers, convolutions, recurrence and attention.
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
 * The fast one keeps a tile of c in registers: R rows by S vectors, R * S accumulators. In each step of k it loads S
 * vectors of b, broadcasts R elements of a, and does R * S multiply-adds, so that the two load ports keep up with the
 * two multiply-add ports. The loops around it take blocks of BLOCK_STEPS steps of k, so that a strip of b (BLOCK_STEPS
 * rows, S vectors wide) stays in cache while tile after tile of rows uses it.
 *
 * Operands are read in place while that is cheap: a through its two strides (a broadcast works with any stride), b
 * where its columns are adjacent. That is best up to about 512 x 512. Otherwise they are packed in the order in which
 * the tile reads them: a strip of b by the piece of work that needs it, into memory that stays in the nearest caches;
 * tiles of a beforehand, for all pieces. For a few rows of a, storing a transposed b would take as long as the product:
 * blocks of it are transposed in registers and used at once (`few_rows`). For up to 128 rows and a large transposed b,
 * the operands change places: c' = b' a' reads b in place, and packs a' (`turned`).
 *
 *   strip of b [k][S * VL], columns past n are 0             row tiles of a [tile][k][R]
 *
 * Where c is most of the memory (k == 1), it is written row by row (`outer`).
 *
 * The order of summation is the same on each path. So paths may be chosen by speed alone, and a value depends on its
 * row of a and its column of b only, not on the other rows, the tile it is in, or the threads:
 *
 *   In general there is one chain of multiply-adds from 0 for each block of BLOCK_STEPS steps; the blocks are added to
 *   c in order, and the bias comes last.
 *   If n == 1, the columns of a are adjacent and k > SHORT: dot products, with 2 vectors of partial sums (see `dots`).
 *
 * Other kernel files use the tile and the packing through gemm.h, or call FN(gemm).
 */
#include "gemm.h"

#include "loops.h"

#define BLOCK_STEPS 512                  /* twice GEMM_STEPS: c is read and written half as often, 2 % of 1024 x 1024 */
#define MULS_PER_THREAD (1 << 18)        /* multiply-adds that are worth a second thread: 4 us */

/* Is a load of the first n elements of a vector as cheap as a whole one? Then the right edge of b is read in place. */
#if defined(MG_LEVEL_avx512)
#define MASKS 1
#else
#define MASKS 0
#endif

/* ---- the tile ---- */

/* For a tile that extends beyond c, at a level without masks: its sums go through memory, row by row. */
NOINLINE void finish_edge(int rows, int vectors, const V *sum, T *c, int64_t crs,
                                                           int tail, int add, const T *bias) {
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

INLINE V load_edge(const T *p, int last, int tail) { return MASKS && last ? vload_n(p, tail) : vload(p); }
INLINE void store_edge(T *p, V v, int last, int tail) { if (MASKS && last) vstore_n(p, v, tail); else vstore(p, v); }

/* c[R, S vectors] over k steps. Strides of a and b in bytes (an element stride here makes GCC write each loop twice,
 * for 1 and for the rest); rows of a are reached from 3 pointers, by 0, 1, 2, 3, 4 times `across`, which costs no
 * register more. The last vector has `tail` valid columns; without MASKS, b has whole vectors all the same. add: c's
 * old values are added. A sum is never -0, so that adding 0 for no bias changes nothing. far: b comes from beyond the
 * second-level cache, in steps too long for the prefetcher. ahead: rows, `rows` (a power of 2), to fetch by the way. */
INLINE void tile(const int R, const int S, const int far, int64_t k, const T *a, int64_t across, int64_t along,
                 const T *b, int64_t down, T *c, int64_t crs, int tail, int add, const T *bias, const T *ahead,
                 int64_t rows) {
  V sum[GEMM_ROWS][8];
  const char *bp = (const char *)b, *row[3] = {(const char *)a, (const char *)a, (const char *)a};
  if (R > 5) row[1] += 5 * across;
  if (R > 10) row[2] += 10 * across;
  UNROLL
  for (int i = 0; i < R; i++)
    UNROLL
    for (int s = 0; s < S; s++) sum[i][s] = vzero();
  if (k >= 128)       /* c comes from memory, even if it is only written: prefetched now, into the second-level cache */
    UNROLL
    for (int i = 0; i < R; i++)
      UNROLL
      for (int s = 0; s < S; s++) __builtin_prefetch(c + i * crs + s * VL, 1, 2);
  for (int64_t p = 0; p < k; p++) {
    V bv[8];
    UNROLL
    for (int s = 0; s < S; s++) {
      bv[s] = load_edge((const T *)bp + s * VL, s == S - 1, tail);
      if (far) __builtin_prefetch(bp + 8 * down + s * VBYTES);
    }
    if (ahead) __builtin_prefetch((const char *)ahead + (p & (rows - 1)) * across + p * along, 0, 2);
    UNROLL
    for (int i = 0; i < R; i++) {
      V av = vset(*(const T *)(row[i / 5] + i % 5 * across));
      UNROLL
      for (int s = 0; s < S; s++) sum[i][s] = vfma(av, bv[s], sum[i][s]);
    }
    UNROLL
    for (int i = 0; i < 3; i++) row[i] += along;
    bp += down;
  }
  if (MASKS || tail == VL) {
    V bv[8];
    UNROLL
    for (int s = 0; s < S; s++) bv[s] = bias ? load_edge(bias + s * VL, s == S - 1, tail) : vzero();
    UNROLL
    for (int i = 0; i < R; i++)
      UNROLL
      for (int s = 0; s < S; s++) {
        T *to = c + i * crs + s * VL;
        if (add) sum[i][s] = load_edge(to, s == S - 1, tail) + sum[i][s];
        store_edge(to, sum[i][s] + bv[s], s == S - 1, tail);
      }
  } else {
    V out[GEMM_ROWS * 8];
    UNROLL
    for (int i = 0; i < R; i++)
      UNROLL
      for (int s = 0; s < S; s++) out[i * S + s] = sum[i][s];
    finish_edge(R, S, out, c, crs, tail, add, bias);
  }
}

typedef void tile_fn(int64_t k, const T *a, int64_t across, int64_t along, const T *b, int64_t down, T *c, int64_t crs,
                     int tail, int add, const T *bias);
#define TILE_(name, R, S, far) \
  static void name(int64_t k, const T *a, int64_t across, int64_t along, const T *b, int64_t down, T *c, int64_t crs, \
                   int tail, int add, const T *bias) { \
    tile(R, S, far, k, a, across, along, b, down, c, crs, tail, add, bias, 0, 0); \
  }
#define TILE(R, S) TILE_(tile_##R##x##S, R, S, 0)
// clang-format off
TILE(1, 1) TILE(2, 1) TILE(3, 1) TILE(4, 1) TILE(1, 2) TILE(2, 2) TILE(3, 2) TILE(4, 2) TILE(1, 3) TILE(2, 3)
TILE(1, 4) TILE(2, 4)
#if MG_SMALL
#define ROW_VECTORS 4                    /* of a strip, where there is one row */
#define tile_1x8_far tile_1x4
#else
#define ROW_VECTORS 8
TILE(1, 5) TILE(1, 6) TILE(1, 7) TILE(1, 8) TILE_(tile_1x8_far, 1, 8, 1)
#endif
#if GEMM_ROWS >= 6
TILE(5, 1) TILE(6, 1) TILE(5, 2) TILE(6, 2)
#endif
#if GEMM_ROWS >= 14
TILE(7, 1) TILE(8, 1) TILE(9, 1) TILE(10, 1) TILE(11, 1) TILE(12, 1) TILE(13, 1) TILE(14, 1)
TILE(7, 2) TILE(8, 2) TILE(9, 2) TILE(10, 2) TILE(11, 2) TILE(12, 2) TILE(13, 2) TILE(14, 2)
TILE(3, 3) TILE(4, 3) TILE(5, 3) TILE(6, 3) TILE(3, 4) TILE(4, 4) TILE(5, 4) TILE(6, 4)
#endif
static tile_fn *const tiles[9][GEMM_ROWS] = {       /* [S][R - 1] */
#if GEMM_ROWS == 4
  [1] = {tile_1x1, tile_2x1, tile_3x1, tile_4x1},
  [2] = {tile_1x2, tile_2x2, tile_3x2, tile_4x2},
#elif GEMM_ROWS == 6
  [1] = {tile_1x1, tile_2x1, tile_3x1, tile_4x1, tile_5x1, tile_6x1},
  [2] = {tile_1x2, tile_2x2, tile_3x2, tile_4x2, tile_5x2, tile_6x2},
#else
  [1] = {tile_1x1, tile_2x1, tile_3x1, tile_4x1, tile_5x1, tile_6x1, tile_7x1,
         tile_8x1, tile_9x1, tile_10x1, tile_11x1, tile_12x1, tile_13x1, tile_14x1},
  [2] = {tile_1x2, tile_2x2, tile_3x2, tile_4x2, tile_5x2, tile_6x2, tile_7x2,
         tile_8x2, tile_9x2, tile_10x2, tile_11x2, tile_12x2, tile_13x2, tile_14x2},
#endif
#if GEMM_WIDE_ROWS == 2
  [3] = {tile_1x3, tile_2x3}, [4] = {tile_1x4, tile_2x4},
#else
  [3] = {tile_1x3, tile_2x3, tile_3x3, tile_4x3, tile_5x3, tile_6x3},
  [4] = {tile_1x4, tile_2x4, tile_3x4, tile_4x4, tile_5x4, tile_6x4},
#endif
#if !MG_SMALL
  [5] = {tile_1x5}, [6] = {tile_1x6}, [7] = {tile_1x7}, [8] = {tile_1x8},
#endif
};
// clang-format on

void FN(gemm_tile)(int rows, int vectors, int64_t k, const T *a, int64_t across, int64_t along, const T *b,
                   int64_t down, T *c, int64_t crs, int tail, int add, const T *bias) {
  int64_t size = sizeof(T);
  tiles[vectors][rows - 1](k, a, across * size, along * size, b, down * size, c, crs, tail, add, bias);
}

/* ---- packing ---- */

/* Where a vector is wider than a tile, it is written whole as long as what follows is written later. */
void FN(gemm_pack)(T *to, int64_t width, int64_t rows, int64_t k, const T *from, int64_t across, int64_t along) {
  int64_t end = k * width;
  if (along == 1 && across != 1) {
    for (int64_t g = 0; g < width; g += VL) {
      int lanes = (int)MIN(width - g, VL), here = (int)MIN(rows - g, VL);
      const T *p_from = from + g * across;
      for (int64_t p = 0; p < k; p += VL) {
        V t[VBYTES / sizeof(T)];
        T *at = to + p * width + g;
        if (here == VL && p + VL <= k) {
          vload_columns(t, p_from + p, across);
        } else {                         /* the edge: its elements go into a block of zeros first */
          T edge[VL * VL] = {0};
          for (int l = 0; l < here; l++) vstore(edge + l * VL, vload_n(p_from + l * across + p, (int)MIN(k - p, VL)));
          vload_columns(t, edge, VL);
        }
        if (p + VL <= k && (lanes == VL || (width < VL && (p + VL - 1) * width + VL <= end)))
          UNROLL
          for (int q = 0; q < VL; q++) vstore(at + q * width, t[q]);
        else
          for (int q = 0; q < MIN(k - p, VL); q++) vstore_n(at + q * width, t[q], lanes);
      }
    }
  } else if (across == 1) {
    for (int64_t r = 0; r < width; r += 2 * VL) {
      int64_t lanes = MIN(width - r, 2 * VL), here = MIN(rows - r, 2 * VL);
      if (lanes == 2 * VL && here == 2 * VL)
        for (int64_t p = 0; p < k; p++) {
          const T *at = from + p * along + r;
          __builtin_prefetch(at + 8 * along);
          __builtin_prefetch(at + 8 * along + VL);
          __builtin_prefetch(at + 8 * along + 2 * VL - 1);           /* a third line where rows are not aligned */
          vstore(to + p * width + r, vload(at));
          vstore(to + p * width + r + VL, vload(at + VL));
        }
      else
        for (int64_t g = r; g < r + lanes; g += VL)
          for (int64_t p = 0; p < k; p++) {
            const T *at = from + p * along + g;
            __builtin_prefetch(at + 8 * along);
            vstore_n(to + p * width + g, rows - g >= VL ? vload(at) : vload_n(at, (int)MAX(rows - g, 0)),
                     (int)MIN(width - g, VL));
          }
    }
  } else {
    for (int64_t p = 0; p < k; p++)
      for (int64_t r = 0; r < width; r++) to[p * width + r] = r < rows ? from[r * across + p * along] : 0;
  }
}

/* A few rows of c, 1 or 2 vectors of them, where the elements along k of b are adjacent (a transposed weight): blocks
 * of b are transposed in registers and used at once, since storing them would take as long as the multiply-adds. Fewer
 * than R rows: the last is computed more than once. One row goes by two vectors, since one chain waits for itself.
 * n: the columns from here on. */
#define FEW_STEP(q) \
  UNROLL \
  for (int i = 0; i < R; i++) sum[i][s] = vfma(vset(row[i][(p + (q)) * acs]), t[q], sum[i][s])
INLINE void few_rows(const int R, const int S, int64_t m, int64_t n, int64_t k, const T *a, int64_t ars, int64_t acs,
                     const T *b, int64_t bcs, T *c, int64_t crs, int add, const T *bias) {
  T edge[VL * VL];                       /* a block that may not be read as a whole */
  V sum[8][2];
  const T *row[8];
  if (n < S * VL) memset(edge, 0, sizeof edge);
  UNROLL
  for (int i = 0; i < R; i++) row[i] = a + MIN(i, m - 1) * ars, sum[i][0] = sum[i][1] = vzero();
  for (int64_t p = 0; p < k; p += VL) {
    const int steps = (int)MIN(k - p, VL);
    UNROLL
    for (int s = 0; s < S; s++) {
      V t[VBYTES / sizeof(T)];
      const T *from = b + s * VL * bcs + p;
      if (steps == VL && n >= (s + 1) * VL) {
        vload_columns(t, from, bcs);
        UNROLL
        for (int q = 0; q < VL; q++) FEW_STEP(q);
        continue;
      }
      if (n >= (s + 2) * VL && bcs > 0) {      /* behind the last step there is memory of the columns that follow */
        vload_columns(t, from, bcs);
      } else {
        const int lanes = (int)MIN(n - s * VL, VL);
        for (int l = 0; l < lanes; l++) vstore(edge + l * VL, vload_n(from + l * bcs, steps));
        vload_columns(t, edge, VL);
      }
      for (int q = 0; q < steps; q++) FEW_STEP(q);
    }
  }
  UNROLL
  for (int i = 0; i < R; i++)
    UNROLL
    for (int s = 0; s < S; s++) {
      const int lanes = (int)MIN(n - s * VL, VL);
      T *to = c + i * crs + s * VL;
      if (i >= m) continue;
      if (add) sum[i][s] = load_n(to, lanes) + sum[i][s];
      store_n(to, bias ? sum[i][s] + load_n(bias + s * VL, lanes) : sum[i][s], lanes);
    }
}
#define FEW(R, S) \
  NOINLINE void few_##R##x##S(int64_t m, int64_t n, int64_t k, const T *a, int64_t ars, int64_t acs, const T *b, \
                              int64_t bcs, T *c, int64_t crs, int add, const T *bias) { \
    few_rows(R, S, m, n, k, a, ars, acs, b, bcs, c, crs, add, bias); \
  }
typedef void few_fn(int64_t m, int64_t n, int64_t k, const T *a, int64_t ars, int64_t acs, const T *b, int64_t bcs,
                    T *c, int64_t crs, int add, const T *bias);
FEW(1, 1)
FEW(4, 1)
#if MG_SMALL
#define few_1x2 few_1x1
#define few_2x1 few_4x1
#else
FEW(1, 2)
FEW(2, 1)
#endif
#if GEMM_ROWS == 14
#define FEW_ROWS 8                       /* as many as the registers hold beside a block of b */
FEW(8, 1)
static few_fn *const few[FEW_ROWS + 1] = {0, few_1x1, few_2x1, few_4x1, few_4x1, few_8x1, few_8x1, few_8x1, few_8x1};
#else
#define FEW_ROWS 4
static few_fn *const few[FEW_ROWS + 1] = {0, few_1x1, few_2x1, few_4x1, few_4x1};
#endif

/* ---- blocks ---- */

typedef struct {
  T *c;
  const T *a, *b, *bias;
  int64_t m, n, k, ars, acs, brs, bcs, crs;
  int add, S, pack_b, fetch;             /* S: vectors of a strip; pack_b: also where b's columns are adjacent */
  int few;                               /* so few rows that a block of b is transposed and used at once */
  int64_t row_tiles, groups, columns;    /* pieces of work: row tiles, groups of them, columns of a piece */
  T *packed_a;                           /* null: a is read in place */
} block;

/* Prefetches part i of t of the source of the next strip of b, into the second-level cache. */
INLINE void fetch_ahead(const block *x, const T *b, int64_t columns, int64_t i, int64_t t) {
  int64_t lines = x->bcs == 1 ? x->k : columns, step = x->bcs == 1 ? x->brs : x->bcs,
          length = x->bcs == 1 ? columns : x->k;
  for (int64_t line = lines * i / t; line < lines * (i + 1) / t; line++) {
    for (int64_t at = 0; at < length; at += 64 / (int64_t)sizeof(T)) __builtin_prefetch(b + line * step + at, 0, 2);
    __builtin_prefetch(b + line * step + length - 1, 0, 2);
  }
}

/* Pieces of a block of at most BLOCK_STEPS steps: piece = group of row tiles + groups * group of strips. Each strip of
 * b is packed, if need be, into memory that stays in the nearest caches, and used at once for all row tiles of the
 * group. */
static void multiply(void *context, int64_t begin, int64_t end) {
  const block *x = context;
  for (int64_t piece = begin; piece < end; piece++) {
    int64_t group = piece % x->groups, j = piece / x->groups * x->columns, j_end = MIN(j + x->columns, x->n);
    int64_t first = x->row_tiles * group / x->groups, last = x->row_tiles * (group + 1) / x->groups;
    for (int S; j < j_end; j += S * VL) {
      S = (int)MIN(x->S, (x->n - j - 1) / VL + 1);
      int tail = (int)MIN(x->n - j - (S - 1) * VL, VL);
      const T *b = x->b + j * x->bcs, *bias = x->bias ? x->bias + j : 0, *next_b = 0;
      int64_t down = x->brs;
      if (x->few) {
        const int pair = !MG_SMALL && x->m == 1 && S == 2;
        for (int s = 0; s < S; s += pair ? 2 : 1)
          (pair ? few_1x2 : few[x->m])(x->m, x->n - j - s * VL, x->k, x->a, x->ars, x->acs, b + s * VL * x->bcs,
                                       x->bcs, x->c + j + s * VL, x->crs, x->add, bias ? bias + s * VL : 0);
        continue;
      }
      if (x->pack_b || x->bcs != 1 || (tail < VL && !MASKS)) {
        T *strip = mg_scratch(7, (size_t)(x->k * S * VL) * sizeof(T));
        if (!strip) return;
        FN(gemm_pack)(strip, S * VL, x->n - j, x->k, b, x->bcs, x->brs);
        if (x->pack_b && j + 2 * S * VL <= j_end) next_b = b + S * VL * x->bcs;
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
        if (next_b) fetch_ahead(x, next_b, S * VL, t - first, last - first);
        tile_fn *run = S == 8 && x->fetch ? tile_1x8_far : tiles[S][R - 1];
        run(x->k, a, across * (int64_t)sizeof(T), along * (int64_t)sizeof(T), b, down * (int64_t)sizeof(T),
            x->c + i * x->crs + j, x->crs, tail, x->add, bias);
      }
    }
  }
}

static void pack_tiles(void *context, int64_t begin, int64_t end) {
  const block *x = context;
  for (int64_t t = begin; t < end; t++) {
    int64_t i = first_row(x->m, x->row_tiles, t), R = first_row(x->m, x->row_tiles, t + 1) - i;
    FN(gemm_pack)(x->packed_a + i * x->k, R, x->m - i, x->k, x->a + i * x->ars, x->ars, x->acs);
  }
}

/* ---- c' = b' a' ---- */

/* Where b is a weight (steps along k adjacent), packing it takes as long as the multiply-adds of 10 rows of a. So for
 * few rows the tiles are those of c': their rows are rows of b, read in place, their columns rows of a, packed once.
 * The sums of a tile row, [GEMM_ROWS][width], wait in the first-level cache, and are transposed on their way to c. */
typedef struct {
  block x;                               /* of c', but for x.c and x.crs, which are those of c; acs == 1 */
  int64_t width;                         /* of all strips, whole vectors */
  T *strips;                             /* [blocks of k][strip][k][2 vectors or 1] */
} turned_block;

/* A tile of c'. The rows of b `ahead` come into the second-level cache one line at a time: many at once
 * would keep loads waiting. */
NOINLINE void tile_ahead(int64_t k, const T *a, int64_t across, const T *b, T *c, int64_t crs, int add, const T *ahead,
                         int64_t rows) {
  tile(GEMM_ROWS, 2, 0, k, a, across, sizeof(T), b, GEMM_STRIP * sizeof(T), c, crs, VL, add, 0, ahead, rows);
}

static void pack_strips(void *context, int64_t begin, int64_t end) {
  const turned_block *t = context;
  const block *x = &t->x;
  for (int64_t j = begin * GEMM_STRIP; j < MIN(end * GEMM_STRIP, t->width); j += GEMM_STRIP)
    for (int64_t p = 0; p < x->k; p += BLOCK_STEPS) {
      const int64_t k = MIN(BLOCK_STEPS, x->k - p);
      FN(gemm_pack)(t->strips + p * t->width + j * k, MIN(GEMM_STRIP, t->width - j), x->n - j, k,
                    x->b + j * x->bcs + p * x->brs, x->bcs, x->brs);
    }
}

/* c[j, 0 to R - 1] = column j of the sums, R of them */
NOINLINE void turn(const turned_block *t, const T *sums, int R, T *c, const T *bias) {
  for (int r = 0; r < R; r += VL) {
    const int lanes = MIN(R - r, VL);
    const V bv = bias ? load_n(bias + r, lanes) : vzero();
    for (int64_t j = 0; j < t->x.n; j += VL) {
      V column[VBYTES / sizeof(T)];
      vload_columns(column, sums + r * t->width + j, t->width);
      for (int q = 0; q < MIN(t->x.n - j, VL); q++) {
        T *to = c + (j + q) * t->x.crs + r;
        store_n(to, (t->x.add ? load_n(to, lanes) + column[q] : column[q]) + bv, lanes);
      }
    }
  }
}

/* Row tiles of c'. While one is computed, the rows of b for the next come into the second-level cache. */
static void multiply_turned(void *context, int64_t begin, int64_t end) {
  const turned_block *t = context;
  const block *x = &t->x;
  const int64_t size = sizeof(T), strips = up(t->width, GEMM_STRIP);
  int64_t rows = 1;                      /* that a strip fetches: the strips together fetch a tile of them */
  while (rows * strips < GEMM_ROWS) rows *= 2;
  T *sums = mg_scratch(7, (size_t)(up(GEMM_ROWS, VL) * VL * t->width) * sizeof(T));
  if (!sums) return;
  for (int64_t i = begin * GEMM_ROWS; i < MIN(end * GEMM_ROWS, x->m); i += GEMM_ROWS) {
    const int R = (int)MIN(GEMM_ROWS, x->m - i);
    for (int64_t p = 0; p < x->k; p += BLOCK_STEPS) {
      const int64_t k = MIN(BLOCK_STEPS, x->k - p);
      for (int64_t s = 0; s < strips; s++) {
        const int64_t j = s * GEMM_STRIP, S = MIN(2, (t->width - j) / VL), next = i + GEMM_ROWS + s * rows;
        const T *a = x->a + i * x->ars + p, *b = t->strips + p * t->width + j * k;
        if (R == GEMM_ROWS && S == 2 && next + rows <= x->m)
          tile_ahead(k, a, x->ars * size, b, sums + j, t->width, p > 0, x->a + next * x->ars + p, rows);
        else
          tiles[S][R - 1](k, a, x->ars * size, size, b, S * VL * size, sums + j, t->width, VL, p > 0, 0);
      }
    }
    turn(t, sums, R, x->c + i, x->bias ? x->bias + i : 0);
  }
}

/* Is c' = b' a' faster? Measured on AVX-512: a tenth to a fifth for 16 to 64 rows and k = 512 to 1024. Transposing c
 * pays if k is large beside m, 128 rows only if b comes from beyond the second-level cache. Not for the lowest level,
 * whose products are slow and should be small. */
static int is_turned(int64_t m, int64_t n, int64_t k, int64_t brs, int64_t bcs, int accumulate) {
  const int far = (double)n * (double)k * sizeof(T) > 2e6, apart = bcs * (int64_t)sizeof(T) % 4096 != 0;
  return GEMM_ROWS > 4 && brs == 1 && bcs != 1 && !accumulate && n >= 128 && 4 * m <= k && m > FEW_ROWS &&
         m <= (far && apart ? 128 : 64) && 16 * (up(m, VL) * VL - m) <= m;
}

/* All blocks of k at once, if the strips take a part of the second-level cache only; else one, and c is added to. */
static void turned(T *c, const T *a, const T *b, const T *bias, int64_t m, int64_t n, int64_t k, int64_t ars,
                   int64_t acs, int64_t bcs, int64_t crs) {
  const int64_t width = up(m, VL) * VL, steps = width * k * (int64_t)sizeof(T) <= 1 << 19 ? k : BLOCK_STEPS;
  turned_block t = {.x = {.c = c, .m = n, .n = m, .ars = bcs, .bcs = ars, .brs = acs, .crs = crs,
                          .row_tiles = up(n, GEMM_ROWS)}, .width = width};
  for (int64_t p = 0; p < k; p += steps) {
    t.x.k = MIN(steps, k - p);
    t.x.a = b + p;
    t.x.b = a + p * acs;
    t.x.add = p > 0;
    t.x.bias = p + t.x.k == k ? bias : 0;
    t.strips = mg_scratch(6, (size_t)(width * t.x.k) * sizeof(T));
    if (!t.strips) return;
    mg_parallel(up(width, GEMM_STRIP), MAX(MULS_PER_THREAD / (16 * GEMM_STRIP * t.x.k), 1), pack_strips, &t);
    mg_parallel(t.x.row_tiles, MAX(MULS_PER_THREAD / (m * t.x.k * GEMM_ROWS), 1), multiply_turned, &t);
  }
}

/* ---- n == 1 ---- */

#define SHORT (2 * VL)                   /* elements of a row up to which folding its lanes takes longer than its sum */

typedef struct { T *c; const T *a, *b, *bias; int64_t k, ars, crs; int accumulate; } dots_job;

/* Dot products of R rows of a (columns adjacent) with b: even and odd vectors of k are summed apart, then folded. Every
 * 4096 elements the fold is added to a running sum, which bounds the error for long rows. */
INLINE void dots_rows(const int R, const dots_job *x, int64_t row) {
  const T *a = x->a + row * x->ars, *b = x->b;
  T total[4] = {0};
  for (int64_t p0 = 0; p0 < x->k; p0 += 4096) {
    int64_t p = p0, end = MIN(p0 + 4096, x->k);
    V even[4], odd[4];
    UNROLL
    for (int i = 0; i < R; i++) even[i] = odd[i] = vzero();
    for (; p + 2 * VL <= end; p += 2 * VL) {
      V b0 = vload(b + p), b1 = vload(b + p + VL);
      UNROLL
      for (int i = 0; i < R; i++) {
        even[i] = vfma(vload(a + i * x->ars + p), b0, even[i]);
        odd[i] = vfma(vload(a + i * x->ars + p + VL), b1, odd[i]);
      }
    }
    if (p < end) {
      int n0 = (int)MIN(end - p, VL), n1 = (int)(end - p) - n0;
      V b0 = vload_n(b + p, n0), b1 = vload_n(b + p + n0, n1);
      UNROLL
      for (int i = 0; i < R; i++) {
        even[i] = vfma(vload_n(a + i * x->ars + p, n0), b0, even[i]);
        odd[i] = vfma(vload_n(a + i * x->ars + p + n0, n1), b1, odd[i]);
      }
    }
    UNROLL
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

/* ---- k == 1 ---- */

/* The outer product of a column and a row: c is written row by row, in the order of its addresses, since that is all
 * that takes time (tiles take 1.25 times as long for 1000 x 1000). */
static void outer(void *context, int64_t begin, int64_t end) {
  const block *x = context;
  for (int64_t i = begin; i < end; i++) {
    const V av = vset(x->a[i * x->ars]);
    T *c = x->c + i * x->crs;
    EACH_VECTOR_4(j, u, n, x->n,
      const V v = vfma(av, load_n(x->b + j, n), vzero());
      store_n(c + j, x->bias ? v + load_n(x->bias + j, n) : v, n);
      (void)u;);
  }
}

/* ---- one product ---- */

/* The general case. The paths are chosen by time alone, measured on AVX-512 with 2 MiB of second-level cache. a is
 * packed when it is read many times (n) and does not stay near, because it is large or its steps along k are long. b is
 * packed when whole-vector loads would straddle cache lines or come from far, and there are enough rows to pay for it.
 * Packed tiles of a take at most 4 MiB, which come from the last cache as fast as they are used: b is packed once. */
static void chains(T *c, const T *a, const T *b, const T *bias, int64_t m, int64_t n, int64_t k, int64_t ars,
                   int64_t acs, int64_t brs, int64_t bcs, int64_t crs, int accumulate) {
  block x = {.ars = ars, .acs = acs, .brs = brs, .bcs = bcs, .crs = crs};
  double bytes_a = (double)m * (double)k * sizeof(T), bytes_b = (double)n * (double)k * sizeof(T);
  int split = (((uintptr_t)b | (uintptr_t)brs * sizeof(T)) % VBYTES) != 0, far = bytes_b > 2e6;
  x.few = m <= FEW_ROWS && brs == 1 && bcs != 1;
  int pack_a = !x.few && n >= 256 && (far || bytes_a > (ars == 1 ? 7e5 : 2e6));
  x.pack_b = m >= 128 && (far || split);
  x.fetch = bytes_b > 5e5;
  if (x.few) x.S = 2;
  else if (m == 1) x.S = ROW_VECTORS;
  else x.S = n > 2 * VL && (m <= GEMM_WIDE_ROWS || (GEMM_WIDE_ROWS > 2 && !pack_a)) ? 4 : 2;
  int64_t tallest = x.S == 2 ? GEMM_ROWS : x.S == 4 ? GEMM_WIDE_ROWS : 1;
  /* rows of an unpacked a that pass over a strip together */
  int64_t most = GEMM_ROWS * (bcs == 1 && !x.pack_b ? 8 : 32);
  int64_t row_blocks = pack_a ? (m - 1) / (GEMM_ROWS * 512 / (int64_t)sizeof(T)) + 1 : 1,
          block_rows = (m - 1) / row_blocks + 1;
  int64_t strips = (n - 1) / (x.S * VL) + 1;
  x.n = n;
  for (int64_t p = 0; p < k; p += BLOCK_STEPS) {
    x.k = MIN(BLOCK_STEPS, k - p);
    x.b = b + p * brs;
    x.bias = p + x.k == k ? bias : 0;
    x.add = accumulate || p > 0;
    for (int64_t i = 0; i < m; i += block_rows) {
      x.m = MIN(block_rows, m - i);
      x.a = a + i * ars + p * acs;
      x.c = c + i * crs;
      x.row_tiles = (x.m - 1) / tallest + 1;
      x.packed_a = 0;
      if (pack_a) {
        x.packed_a = mg_scratch(6, (size_t)(x.m * x.k) * sizeof(T));
        if (!x.packed_a) return;
        mg_parallel(x.row_tiles, 4, pack_tiles, &x);
      }
      /* Work for the threads: groups of rows if there are enough of them, otherwise single strips, otherwise both. */
      int64_t work = x.m * x.n * x.k, wanted = work < 2 * MULS_PER_THREAD ? 1 : mg_get_num_threads(), apart = 1;
      if (wanted > 1) wanted = MIN(4 * wanted, work / MULS_PER_THREAD);
      x.groups = pack_a ? 1 : (x.m - 1) / most + 1;
      if (x.groups < wanted) {
        int64_t together = (strips - 1) / MIN(wanted, strips) + 1;
        apart = (strips - 1) / together + 1;
        x.groups = MIN(x.row_tiles, MAX(x.groups, (wanted - 1) / apart + 1));
        x.columns = together * x.S * VL;
      } else {
        x.columns = n;
      }
      if (wanted == 1) multiply(&x, 0, x.groups * apart);
      else mg_parallel(x.groups * apart, 1, multiply, &x);
    }
  }
}

static void product(T *c, const T *a, const T *b, const T *bias, int64_t m, int64_t n, int64_t k, int64_t ars,
                    int64_t acs, int64_t brs, int64_t bcs, int64_t crs, int accumulate) {
  static const T zero = 0;
  if (k == 0) {                          /* one step of zeros */
    chains(c, &zero, &zero, bias, m, n, 1, 0, 0, 0, 0, crs, accumulate);
  } else if (k == 1 && m > 1 && n >= 16 * VL && bcs == 1 && !accumulate) {
    block x = {.c = c, .a = a, .b = b, .bias = bias, .n = n, .ars = ars, .crs = crs};
    mg_parallel(m, grain(m, n), outer, &x);
  } else if (is_turned(m, n, k, brs, bcs, accumulate)) {
    turned(c, a, b, bias, m, n, k, ars, acs, bcs, crs);
  } else if (n > 1) {
    chains(c, a, b, bias, m, n, k, ars, acs, brs, bcs, crs, accumulate);
  } else if (acs == 1 && k > SHORT) {
    if (brs != 1) {
      T *dense = mg_scratch(5, (size_t)k * sizeof(T));
      if (!dense) return;
      for (int64_t p = 0; p < k; p++) dense[p] = b[p * brs];
      b = dense;
    }
    dots_job x = {c, a, b, bias, k, ars, crs, accumulate};
    mg_parallel(m, MAX(MULS_PER_THREAD / k, 1), dots, &x);
  /* the column is computed as a row: c' = b' a', so that a's rows are its columns */
  } else {
    int direct = crs == 1 && !accumulate && !bias;
    T *row = direct ? c : mg_scratch(5, (size_t)m * sizeof(T));
    if (!row) return;
    chains(row, b, a, 0, 1, m, k, 0, brs, acs, ars, m, 0);
    for (int64_t i = 0; i < m && !direct; i++) {
      T s = accumulate ? c[i * crs] + row[i] : row[i];
      c[i * crs] = bias ? s + *bias : s;
    }
  }
}

typedef struct {
  T *c;
  const T *a, *b, *bias;
  const int64_t *offsets;
  int64_t m, n, k, ars, acs, brs, bcs, crs;
  int accumulate;
} batch_job;

static void products(void *context, int64_t begin, int64_t end) {
  const batch_job *x = context;
  for (int64_t i = begin; i < end; i++)
    product(x->c + x->offsets[3 * i], x->a + x->offsets[3 * i + 1], x->b + x->offsets[3 * i + 2], x->bias, x->m, x->n,
            x->k, x->ars, x->acs, x->brs, x->bcs, x->crs, x->accumulate);
}

/* Small products of a batch are given to threads as wholes. Large ones follow each other, each cut for all threads. */
void FN(gemm)(T *c, const T *a, const T *b, const T *bias, const int64_t *offsets, int64_t batch, int64_t m, int64_t n,
              int64_t k, int64_t ars, int64_t acs, int64_t brs, int64_t bcs, int64_t crs, int64_t accumulate) {
  static const int64_t none[3] = {0, 0, 0};
  if (m == 0 || n == 0 || batch == 0) return;
  batch_job x = {c, a, b, bias, offsets ? offsets : none, m, n, k, ars, acs, brs, bcs, crs, accumulate != 0};
  double work = (double)m * (double)n * (double)(k + 1);
  if (work > 16.0 * MULS_PER_THREAD || batch == 1) products(&x, 0, batch);
  else mg_parallel(batch, MAX((int64_t)(MULS_PER_THREAD / work), 1), products, &x);
}
