/* types: f32 f64 */
/* Convolution over one to three spatial dimensions, its gradients, and so the transposed convolution.
 *
 *   x [images, groups * c, in]   w [groups * k, c, kernel]   y [images, groups * k, out]
 *   in, out, kernel: 3 sizes, leading 1s
 *
 * `geometry` is { images, groups, c, k, in[3], out[3], kernel[3], stride[3], pad[3], dilation[3] }. pad is the number
 * of zeros before x; how many follow behind x is given by `out`. The plain loops, for one image and group, where a
 * position or a tap is 3 numbers:
 *
 *   forward          y[k, o] = bias[k] + sum over c, tap of w[k, c, tap] * x[c, o * stride - pad + tap * dilation]
 *   backward_input   gx[c, i] = bias[c] + sum of w[k, c, tap] * g[k, o]
 *                    over k, tap, o with o * stride - pad + tap * dilation == i
 *   backward_weight  gw[k, c, tap] = sum over images, o of g[k, o] * x[c, o * stride - pad + tap * dilation]
 *
 * A transposed convolution is backward_input with a bias; its gradients are the two other kernels. The gradient of the
 * bias is a sum.
 *
 * The fast ones are made of one step, a *sweep*: outputs on a grid, each of which reads the source at its own place
 * plus an offset for each tap. Forward is one sweep. backward_input is one sweep for each residue of a position by the
 * stride, with the taps that reach these positions, so that no product with a 0 between strides is computed. A sweep is
 * cut, by shape alone, into pieces: one group of a few small images or of a part of a large one. A piece copies its
 * part of the source into scratch memory that stays in cache, with the zeros around it and without the step: columns
 * and rows that differ by a step are neighbours there, in one plane for each residue that a tap needs. So neighbouring
 * outputs read neighbours, whatever the stride, the dilation and the padding. Then one of three ways:
 *
 *   straight:  a tile of outputs x positions is summed straight from the scratch memory. All rows of a padded plane
 *              form one line; positions between the rows are computed, too, and dropped. This is for depthwise and
 *              1 x 1 convolutions, and for long rows.
 *   turned:    the same with vectors of outputs, for up to 14 positions of a row: nothing is dropped, but the sums must
 *              be transposed. This is for whole vectors of outputs, and sums over many steps.
 *   strips:    a matrix product, where dropping would cost more than packing (small images): a = weights [m, steps],
 *              b = source under (channel, tap) x positions. Only a strip of b is written out at a time, in the order in
 *              which the tile of gemm.h reads it.
 *
 * The gradient of a small image with one channel needs no copy: first products, then a sum over taps (`narrow_input`).
 * 3 x 3 kernels without a step, over many channels, are left to winograd.c, which needs fewer multiplications. What
 * follows is for all others.
 *
 * The gradient of the weights is the product over positions, source x g, 256 positions at a time, where turned tiles
 * read the source as it is; for few outputs it is sums of products of rows.
 *
 * Order of summation: chains of at most 256 multiply-adds in the order (channel, tap), channel (`narrow_input`, whose
 * taps are added in order), or position, which are added in order. The pieces of the weights' gradient are added within
 * a chunk in order, then the chunks; the number of chunks comes from the shape. No sum depends on the number of
 * threads.
 */
#include "gemm.h"

#include "loops.h"
#include "runtime.h"
#include "winograd.h"


#define FEW 4                            /* outputs of a group for which tiles are wider */
#define POSITIONS 256                    /* of a piece of several images, at most */
#define TURNED (!MG_SMALL && TYPE_IS == 1)          /* are there turned tiles? */
#define PART 2048                        /* positions of a part of a large image */
#define MULS_PER_THREAD 131072                     /* multiply-adds that are not worth a second thread */
#define SETUP __attribute__((cold))      /* for what takes no time: small, not fast; HOT: but its loops */
#define HOT NOINLINE __attribute__((hot))
#define NEAR (1 << 20)                   /* bytes of sums of which tiles may add to distant rows */
#define SLACK (8 * VL)                   /* elements behind scratch memory that whole vectors may touch */

typedef struct { int64_t images, groups, c, k, in[3], out[3], kernel[3], stride[3], pad[3], dilation[3]; } shapes;

static int64_t volume(const int64_t *size) { return size[0] * size[1] * size[2]; }

/* ---- the sweep ---- */

typedef struct { int64_t slot, at[3]; } tap;     /* which plane of residues, and where in it the first position reads */

typedef struct {
  const T *src;
  T *dst;
  int64_t images, groups, c, m;                  /* channels of a group: of the source, of the result */
  int64_t src_size[3], dst_size[3], grid[3];
  int64_t step[3];                               /* of the source from a position to the next */
  int64_t dst_start[3], dst_step[3];
  int64_t low[3], reach[3];                      /* the first source coordinate; the largest `at` of a tap */
  /* steps: of a product, c * taps and one for the bias if there is one */
  int64_t taps, slots, steps;
  const tap *tap;
  const int64_t (*residue)[3];                   /* of each slot */
  const T *weight;                               /* [group][tile of rows][steps][rows of the tile] */
  int biased, straight, turned, plain;           /* plain: the grid is the whole result */
  int64_t tallest, vectors;
  int64_t axis, per_piece, pieces;               /* pieces: `per_piece` images, or so many lines of the grid's axis */
} sweep;

/* Taps from their offsets (source coordinate of position 0), t of them; the tables go to scratch slot 4. 0 if there is
 * no memory for them. */
static int set_taps(sweep *x, int64_t t, const int64_t (*offset)[3]) {
  tap *taps = mg_scratch(4, (size_t)(t + 1) * (sizeof(tap) + sizeof(int64_t[3])));
  if (!taps) return 0;
  int64_t (*residue)[3] = (void *)(taps + t + 1);
  x->taps = t;
  x->slots = 0;
  for (int d = 0; d < 3; d++) {
    x->low[d] = x->reach[d] = 0;
    for (int64_t i = 0; i < t; i++) x->low[d] = i && x->low[d] < offset[i][d] ? x->low[d] : offset[i][d];
  }
  for (int64_t i = 0; i < t; i++) {
    int64_t r[3], slot = 0;
    for (int d = 0; d < 3; d++) {
      r[d] = (offset[i][d] - x->low[d]) % x->step[d];
      taps[i].at[d] = (offset[i][d] - x->low[d]) / x->step[d];
      x->reach[d] = MAX(x->reach[d], taps[i].at[d]);
    }
    while (slot < x->slots && memcmp(residue[slot], r, sizeof r)) slot++;
    if (slot == x->slots) memcpy(residue[x->slots++], r, sizeof r);
    taps[i].slot = slot;
  }
  x->tap = taps;
  x->residue = (const int64_t (*)[3])residue;
  return 1;
}

/* Cuts the sweep into pieces and fills the fields that follow from size, step, grid and taps. */
static void set_pieces(sweep *x) {
  int64_t positions = volume(x->grid);
  x->axis = x->grid[0] > 1 ? 0 : 1;
  x->plain = !memcmp(x->grid, x->dst_size, sizeof x->grid);
  int64_t line = positions / MAX(x->grid[x->axis], 1), lines = up(PART, MAX(line, 1));
  if (positions < PART + PART / 2 || lines >= x->grid[x->axis]) {
    x->axis = -1;
    x->per_piece = MAX(POSITIONS / MAX(positions, 1), 1);
    x->pieces = up(x->images, x->per_piece);
  } else {
    x->per_piece = lines;
    x->pieces = x->images * up(x->grid[x->axis], lines);
  }
}

typedef struct {
  int64_t first, count, group;           /* images */
  int64_t grid[3], low[3], dst_start[3];
  /* scratch memory: size of a plane; elements of one, of a channel, of an image */
  int64_t q[3], plane, channel, image;
  int64_t base;                          /* of a plain result: elements before the piece */
} piece;

static piece piece_of(const sweep *x, int64_t index, int64_t group) {
  piece p = {.group = group, .count = 1};
  memcpy(p.grid, x->grid, sizeof p.grid);
  memcpy(p.low, x->low, sizeof p.low);
  memcpy(p.dst_start, x->dst_start, sizeof p.dst_start);
  if (x->axis < 0) {
    p.first = index * x->per_piece;
    p.count = MIN(x->per_piece, x->images - p.first);
  } else {
    int64_t parts = up(x->grid[x->axis], x->per_piece), start = index % parts * x->per_piece;
    p.first = index / parts;
    p.grid[x->axis] = MIN(x->per_piece, x->grid[x->axis] - start);
    p.low[x->axis] += start * x->step[x->axis];
    p.dst_start[x->axis] += start * x->dst_step[x->axis];
    p.base = start * (volume(x->grid) / x->grid[x->axis]);
  }
  for (int d = 0; d < 3; d++) p.q[d] = p.grid[d] + x->reach[d];
  p.plane = volume(p.q);
  p.channel = x->slots * p.plane;
  /* channels that would share a few places of the first-level cache; none that `gathered` leaves where they are */
  if (p.channel * (int64_t)sizeof(T) % 1024 == 0 && memcmp(p.q, x->src_size, sizeof p.q)) p.channel += VL;
  p.image = x->c * p.channel;
  return p;
}

INLINE void copy(T *to, const T *from, int64_t n) {
  for (; n >= VL; n -= VL, to += VL, from += VL) vstore(to, vload(from));
  if (n > 0) vstore_n(to, vload_n(from, (int)n), (int)n);
}

INLINE void zero(T *to, int64_t n) {
  for (; n >= VL; n -= VL, to += VL) vstore(to, vzero());
  if (n > 0) vstore_n(to, vzero(), (int)n);
}

/* to[i] = from[2 * i], a stride of most networks; nothing behind the last is read. */
INLINE void copy_every_other(T *to, const T *from, int64_t n) {
  EACH_VECTOR(i, k, n,
    const int last = 2 * k - 1;
    const V a = load_n(from + 2 * i, MIN(last, VL)), b = last > VL ? vload_n(from + 2 * i + VL, last - VL) : vzero();
    store_n(to + i, (V)veven((VM)a, (VM)b), k););
}

/* The source of a piece, with zeros around it and without the step. Where a plain copy would be the same, the source
 * itself. */
static const T *gathered(const sweep *x, const piece *p) {
  int64_t size = volume(x->src_size);
  const T *from = x->src + (p->first * x->groups + p->group) * x->c * size;
  if (x->slots == 1 && x->groups == 1 && volume(x->step) == 1 && !memcmp(p->q, x->src_size, sizeof p->q) &&
      !p->low[0] && !p->low[1] && !p->low[2] && (x->images - p->first - p->count) * x->c * size >= SLACK)
    return from;
  T *start = mg_scratch(0, (size_t)(p->count * p->image + SLACK) * sizeof(T));
  if (!start) return 0;
  int64_t begin[3], end[3], width = x->src_size[2], next = x->step[1] * width;
  zero(start, p->count * p->image + SLACK);
  for (int64_t s = 0; s < x->slots; s++) {
    for (int d = 0; d < 3; d++) {        /* the part of the plane inside the source */
      int64_t first = p->low[d] + x->residue[s][d];
      begin[d] = first < 0 ? up(-first, x->step[d]) : 0;
      end[d] = first < x->src_size[d] ? MIN(up(x->src_size[d] - first, x->step[d]), p->q[d]) : 0;
    }
    int64_t length = end[2] - begin[2];
    if (length <= 0) continue;
    for (int64_t n = 0; n < p->count; n++)
      for (int64_t ch = 0; ch < x->c; ch++)
        for (int64_t z = begin[0]; z < end[0]; z++) {
          int64_t sz = p->low[0] + x->residue[s][0] + z * x->step[0],
                  sy = p->low[1] + x->residue[s][1] + begin[1] * x->step[1];
          const T *row = from + (n * x->groups * x->c + ch) * size + (sz * x->src_size[1] + sy) * width + p->low[2] +
                         x->residue[s][2] + begin[2] * x->step[2];
          T *line =
              start + n * p->image + ch * p->channel + s * p->plane + (z * p->q[1] + begin[1]) * p->q[2] + begin[2];
          if (x->step[2] == 2) {
            for (int64_t y = begin[1]; y < end[1]; y++, line += p->q[2], row += next)
              copy_every_other(line, row, length);
          } else if (x->step[2] > 1) {
            for (int64_t y = begin[1]; y < end[1]; y++, line += p->q[2], row += next)
              for (int64_t i = 0; i < length; i++) line[i] = row[i * x->step[2]];
          } else if (length <= VL) {
            for (int64_t y = begin[1]; y < end[1]; y++, line += p->q[2], row += next)
              vstore_n(line, vload_n(row, (int)length), (int)length);
          } else {
            for (int64_t y = begin[1]; y < end[1]; y++, line += p->q[2], row += next) copy(line, row, length);
          }
        }
  }
  return start;
}

static int64_t tap_at(const sweep *x, const piece *p, int64_t t) {
  const tap *a = x->tap + t;
  return a->slot * p->plane + (a->at[0] * p->q[1] + a->at[1]) * p->q[2] + a->at[2];
}

/* ---- strips: the source as a matrix (channel, tap) x positions ---- */

/* positions beside each other in a row of the grid */
typedef struct { int64_t column, length, image, at[3]; } run;
typedef struct { int32_t to; int64_t from; } move;                 /* a vector of one of them */

/* Where the source has it. */
static int64_t run_at(const piece *p, const run *r) {
  return r->image * p->image + (r->at[0] * p->q[1] + r->at[1]) * p->q[2] + r->at[2];
}

/* The runs of `columns` positions from `start` on (all images of the piece in one line), and their vectors. */
static int64_t runs_of(const piece *p, int64_t start, int64_t columns, run *runs, move *moves, int64_t *moved) {
  int64_t count = 0, vectors = 0, j = start % p->grid[2], rest = start / p->grid[2];
  int64_t i = rest % p->grid[1], d = rest / p->grid[1] % p->grid[0], n = rest / p->grid[1] / p->grid[0];
  for (int64_t column = 0; column < columns;) {
    int64_t length = MIN(p->grid[2] - j, columns - column), from = n * p->image + (d * p->q[1] + i) * p->q[2] + j;
    runs[count++] = (run){column, length, n, {d, i, j}};
    for (int64_t v = 0; v < length; v += VL) moves[vectors++] = (move){(int32_t)(column + v), from + v};
    column += length;
    j = 0;
    if (++i == p->grid[1]) {
      i = 0;
      if (++d == p->grid[0]) {
        d = 0;
        n++;
      }
    }
  }
  *moved = vectors;
  return count;
}

/* Rows begin..end of the matrix, `width` apart. Whole vectors are written; the next row overwrites what is too much. */
static void pack_source(const sweep *x, const piece *p, const T *src, int64_t begin, int64_t end, const int64_t *at,
                        const move *moves, int64_t moved, T *to, int64_t width) {
  int64_t t = x->taps ? begin % x->taps : 0;
  src += x->taps ? begin / x->taps * p->channel : 0;
  for (int64_t row = begin; row < end; row++, to += width) {
    const T *from = src + at[t];
    for (int64_t v = 0; v < moved; v++) vstore(to + moves[v].to, vload(from + moves[v].from));
    if (++t == x->taps) {
      t = 0;
      src += p->channel;
    }
  }
}

/* [row] of a result tile into the places of its positions. */
static void scatter(const sweep *x, const piece *p, const run *runs, int64_t count, const T *tile, int64_t width) {
  int64_t size = volume(x->dst_size);
  for (int64_t u = 0; u < count; u++) {
    const run *r = runs + u;
    int64_t at[3];
    for (int d = 0; d < 3; d++) at[d] = p->dst_start[d] + r->at[d] * x->dst_step[d];
    T *to = x->dst + ((p->first + r->image) * x->groups + p->group) * x->m * size;
    to += (at[0] * x->dst_size[1] + at[1]) * x->dst_size[2] + at[2];
    const T *from = tile + r->column;
    for (int64_t row = 0; row < x->m; row++, to += size, from += width) {
      if (x->dst_step[2] == 1) copy(to, from, r->length);
      else
        for (int64_t j = 0; j < r->length; j++) to[j * x->dst_step[2]] = from[j];
    }
  }
}

static int64_t *tap_table(const sweep *x, const piece *p) {
  int64_t *at = mg_scratch(3, (size_t)(x->taps + 1) * sizeof(int64_t));
  for (int64_t t = 0; at && t < x->taps; t++) at[t] = tap_at(x, p, t);
  return at;
}

static void product_piece(const sweep *x, const piece *p, const T *src) {
  int64_t positions = volume(p->grid), total = p->count * positions, most = x->vectors * VL, size = volume(x->dst_size);
  int64_t blocks = MAX(up(x->steps, GEMM_STEPS), 1), tiles = up(x->m, x->tallest), *at = tap_table(x, p);
  T *strip = mg_scratch(1, (size_t)((up(x->steps, blocks) + 1) * most + SLACK) * sizeof(T));
  T *tile = mg_scratch(2, (size_t)(x->m * most) * sizeof(T));
  if (!at || !strip || !tile) return;
  const T *weight = x->weight + p->group * x->m * x->steps;
  run runs[4 * VL];
  move moves[4 * VL];
  for (int64_t start = 0; start < total; start += most) {
    int64_t columns = MIN(most, total - start), vectors = up(columns, VL), width = vectors * VL, moved;
    int64_t count = runs_of(p, start, columns, runs, moves, &moved);
    int tail = (int)(columns - (vectors - 1) * VL), direct = x->plain && runs[0].image == runs[count - 1].image;
    T *c = direct ? x->dst + ((p->first + runs[0].image) * x->groups + p->group) * x->m * size + p->base +
                        start % positions
                  : tile;
    int64_t crs = direct ? size : width;
    for (int64_t b = 0; b < blocks; b++) {
      int64_t begin = first_row(x->steps, blocks, b), end = first_row(x->steps, blocks, b + 1);
      pack_source(x, p, src, begin, end - (x->biased && b == blocks - 1), at, moves, moved, strip, width);
      if (x->biased && b == blocks - 1)
        for (int64_t v = 0; v < vectors; v++) vstore(strip + (end - 1 - begin) * width + v * VL, vset(1));
      for (int64_t i = 0, r = 0, next; i < tiles; i++, r = next) {
        next = first_row(x->m, tiles, i + 1);
        FN(gemm_tile)((int)(next - r), (int)vectors, end - begin, weight + r * x->steps + begin * (next - r), 1,
                      next - r, strip, width, c + r * crs, crs, tail, b > 0, 0);
      }
    }
    if (!direct) scatter(x, p, runs, count, tile, width);
  }
}

/* ---- straight from the scratch memory ---- */

/* to[R rows][S vectors] = start of the row + the sum over steps of a * b, for rows `across` apart in a. `at` says where
 * the source has a step. If `turned`, a is the source, and b has its steps one after the other; else it is the
 * reverse. */
INLINE void straight_tile(const int R, const int S, int64_t steps, const T *a, int64_t across, const T *b,
                          const int64_t *at, int turned, const T *start, T *to) {
  const int64_t of_a = turned ? -1 : 0, next_a = R & ~of_a, next_b = S * VL & of_a;
  V sum[GEMM_ROWS][8];
  UNROLL
  for (int r = 0; r < R; r++)
    UNROLL
    for (int s = 0; s < S; s++) sum[r][s] = vset(start[r]);
  for (int64_t p = 0; p < steps; p++, a += next_a, b += next_b) {
    const T *row[3] = {a + (at[p] & of_a)}, *from = b + (at[p] & ~of_a);
    V v[8];
    row[1] = row[0] + 5 * across;
    row[2] = row[1] + 5 * across;
    UNROLL
    for (int s = 0; s < S; s++) v[s] = vload(from + s * VL);
    UNROLL
    for (int r = 0; r < R; r++) {
      V w = vset(row[r / 5][r % 5 * across]);
      UNROLL
      for (int s = 0; s < S; s++) sum[r][s] = vfma(w, v[s], sum[r][s]);
    }
  }
  UNROLL
  for (int r = 0; r < R; r++)
    UNROLL
    for (int s = 0; s < S; s++) vstore(to + (r * S + s) * VL, sum[r][s]);
}

typedef void straight_fn(int64_t steps, const T *a, int64_t across, const T *b, const int64_t *at, int turned,
                         const T *start, T *to);
#define STRAIGHT_(name, R, S, across, turned) \
  static void name(int64_t steps, const T *a, int64_t apart, const T *b, const int64_t *at, int is_turned, \
                   const T *start, T *to) { \
    straight_tile(R, S, steps, a, across, b, at, turned, start, to); \
  }
/* A tall tile serves both ways, at no cost beside its multiply-adds; a low one is made for each. */
#define STRAIGHT(R, S) STRAIGHT_(straight_##R##x##S, R, S, 1, 0)
#define LOW(R, S) STRAIGHT_(turned_##R##x##S, R, S, apart, 1)
#define TALL(R, S) STRAIGHT_(straight_##R##x##S, R, S, apart, is_turned)
// clang-format off
STRAIGHT(1, 1) STRAIGHT(1, 2) STRAIGHT(1, 3) STRAIGHT(1, 4) STRAIGHT(2, 1) STRAIGHT(2, 2) STRAIGHT(2, 3) STRAIGHT(2, 4)
STRAIGHT(3, 2) STRAIGHT(4, 2)
#if GEMM_ROWS == 6
STRAIGHT(5, 2) STRAIGHT(6, 2)
#endif
#if GEMM_ROWS >= 14
STRAIGHT(1, 5) STRAIGHT(1, 6) STRAIGHT(1, 7) STRAIGHT(1, 8) STRAIGHT(3, 1) STRAIGHT(3, 3) STRAIGHT(3, 4)
STRAIGHT(4, 1) STRAIGHT(4, 3) STRAIGHT(4, 4) TALL(5, 2) TALL(6, 2) TALL(7, 2) TALL(8, 2) TALL(9, 2) TALL(10, 2)
TALL(11, 2) TALL(12, 2) TALL(13, 2) TALL(14, 2)
#endif
#if TURNED
LOW(1, 2) LOW(2, 2) LOW(3, 2) LOW(4, 2)
#if GEMM_ROWS >= 14
LOW(1, 3) LOW(2, 3) LOW(3, 3) LOW(4, 3)
#else
LOW(5, 2) LOW(6, 2)
#define turned_1x3 0
#define turned_2x3 0
#define turned_3x3 0
#define turned_4x3 0
#endif
#endif
static straight_fn *const straight_tiles[GEMM_ROWS][8] = {       /* [R - 1][S - 1] */
#if GEMM_ROWS >= 14
  {straight_1x1, straight_1x2, straight_1x3, straight_1x4, straight_1x5, straight_1x6, straight_1x7, straight_1x8},
  {straight_2x1, straight_2x2, straight_2x3, straight_2x4}, {straight_3x1, straight_3x2, straight_3x3, straight_3x4},
  {straight_4x1, straight_4x2, straight_4x3, straight_4x4}, {0, straight_5x2}, {0, straight_6x2}, {0, straight_7x2},
  {0, straight_8x2}, {0, straight_9x2}, {0, straight_10x2}, {0, straight_11x2}, {0, straight_12x2}, {0, straight_13x2},
  {0, straight_14x2},
#else
  {straight_1x1, straight_1x2, straight_1x3, straight_1x4}, {straight_2x1, straight_2x2, straight_2x3, straight_2x4},
  {0, straight_3x2}, {0, straight_4x2},
#if GEMM_ROWS >= 6
  {0, straight_5x2}, {0, straight_6x2},
#endif
#endif
};
// clang-format on

#if TURNED
static straight_fn *const turned_tiles[GEMM_ROWS][2] = {         /* [R - 1][S - 2] */
  {turned_1x2, turned_1x3}, {turned_2x2, turned_2x3}, {turned_3x2, turned_3x3}, {turned_4x2, turned_4x3},
#if GEMM_ROWS >= 14
  {straight_5x2}, {straight_6x2}, {straight_7x2}, {straight_8x2}, {straight_9x2}, {straight_10x2}, {straight_11x2},
  {straight_12x2}, {straight_13x2}, {straight_14x2},
#else
  {turned_5x2}, {turned_6x2},
#endif
};
#else
#define turned_tiles straight_tiles
#endif

/* The widest tile of so many rows. */
static int64_t widest(int64_t rows) {
  if (GEMM_ROWS >= 14) return rows == 1 ? 8 : rows <= FEW ? 4 : 2;
  return rows <= 2 ? 4 : 2;
}

/* Where the steps of a sum are in the source. */
static int64_t *step_table(const sweep *x, const piece *p) {
  int64_t *table = tap_table(x, p), *at = mg_scratch(1, (size_t)(x->c * x->taps + 1) * sizeof(int64_t));
  if (!table || !at) return 0;
  for (int64_t ch = 0; ch < x->c; ch++)
    for (int64_t t = 0; t < x->taps; t++) at[ch * x->taps + t] = ch * p->channel + table[t];
  return at;
}

/* Of a turned tile: vectors of outputs, of which so many remain; how many rows it may have. One vector alone would need
 * a load for each multiply-add. */
static int64_t turned_vectors(int64_t m) { return up(m, VL) == 3 && GEMM_ROWS >= 14 ? 3 : MIN(up(m, VL), 2); }
static int64_t turned_rows(int64_t vectors) { return vectors == 3 ? FEW : GEMM_ROWS; }
static int turned_fits(int64_t m) { return up(m, VL) % 2 == 0 || (GEMM_ROWS >= 14 && up(m, VL) > 1); }

static void straight_piece(const sweep *x, const piece *p, const T *src) {
  int64_t steps = x->c * x->taps, length = (p->grid[1] - 1) * p->q[2] + p->grid[2],
          blocks = MAX(up(steps, GEMM_STEPS), 1);
  int64_t size = volume(x->dst_size), *at = step_table(x, p), tiles = up(x->m, x->tallest);
  const T *weight = x->weight + p->group * x->m * x->steps;
  if (!at) return;
  T *tile = mg_scratch(2, (size_t)((x->m + GEMM_ROWS) * x->vectors * VL) * sizeof(T)),
    *later = tile + x->m * x->vectors * VL;
  if (!tile) return;
  static const T none[GEMM_ROWS];
  for (int64_t n = 0; n < p->count; n++)
    for (int64_t z = 0; z < p->grid[0]; z++) {
      const T *from = src + n * p->image + z * p->q[1] * p->q[2];
      T *plane = x->dst + ((p->first + n) * x->groups + p->group) * x->m * size +
                 ((p->dst_start[0] + z * x->dst_step[0]) * x->dst_size[1] + p->dst_start[1]) * x->dst_size[2] +
                 p->dst_start[2];
      /* tiles along the line of nearly the same width: several sums at once, because a single sum waits for itself */
      int64_t left = up(length, VL), parts = up(left, x->vectors), i = 0;
      for (int64_t e = 0, vectors; parts > 0; e += vectors * VL, left -= vectors, parts--) {
        vectors = x->vectors == 2 && x->m > 2 ? 2 : up(left, parts);
        int64_t width = vectors * VL;
        T *soon = plane + i * x->dst_step[1] * x->dst_size[2] + MAX(e - i * p->q[2], 0) * x->dst_step[2];
        /* prefetched now, written when the sums are complete */
        for (int64_t row = 0; row < x->m && steps > 32; row++, soon += size)
          for (int64_t v = 0; v <= vectors; v++) __builtin_prefetch(soon + v * VL, 1, 2);
        for (int64_t b = 0; b < blocks; b++) {
          int64_t begin = first_row(steps, blocks, b), end = first_row(steps, blocks, b + 1);
          for (int64_t k = 0, r = 0, next; k < tiles; k++, r = next) {
            next = first_row(x->m, tiles, k + 1);
            int64_t rows = next - r, here = rows * width;
            const T *w = weight + r * x->steps;
            T *to = tile + r * width, *out = b ? later : to;
            const T *start = x->biased && !b ? w + steps * rows : none;
            straight_tiles[rows - 1][vectors - 1](end - begin, w + begin * rows, 1, from + e, at + begin, 0,
                                                  start, out);
            for (int64_t v = 0; v < here && b; v += VL) vstore(to + v, vload(to + v) + vload(out + v));
          }
        }
        for (; i < p->grid[1] && i * p->q[2] < e + width; i++) {        /* the rows of the grid in the tile */
          int64_t begin = MAX(i * p->q[2], e), end = MIN(i * p->q[2] + p->grid[2], e + width),
                  column = begin - i * p->q[2];
          T *to = plane + i * x->dst_step[1] * x->dst_size[2] + column * x->dst_step[2];
          const T *of = tile + begin - e;
          for (int64_t row = 0; row < x->m && begin < end; row++, to += size, of += width) {
            if (x->dst_step[2] == 1) copy(to, of, end - begin);
            else
              for (int64_t j = 0; j < end - begin; j++) to[j * x->dst_step[2]] = of[j];
          }
          if (i * p->q[2] + p->grid[2] > e + width) break;
        }
      }
    }
}

/* ---- turned: a tile of positions x outputs ---- */

/* sums[strip of outputs][position][2 vectors or 3] of the positions of some runs; `space` positions to a strip */
static void turned_sums(const sweep *x, const piece *p, const T *src, const T *weight, const int64_t *at,
                        const run *runs, int64_t count, T *sums, int64_t space) {
  static const T none[GEMM_ROWS];
  T later[GEMM_ROWS * 3 * VL];
  const int64_t steps = x->c * x->taps, blocks = up(steps, GEMM_STEPS);
  for (int64_t j = 0, vectors; j < x->m; j += vectors * VL) {
    vectors = turned_vectors(x->m - j);
    const int64_t width = vectors * VL, tallest = turned_rows(vectors);
    for (int64_t b = 0; b < blocks; b++) {
      const int64_t begin = first_row(steps, blocks, b), end = first_row(steps, blocks, b + 1);
      const T *w = weight + j * x->steps + begin * width;
      const T *bias = x->biased && end == steps ? w + (end - begin) * width : 0;
      for (int64_t u = 0; u < count; u++) {
        const int64_t length = runs[u].length, tiles = up(length, tallest);
        const T *from = src + run_at(p, runs + u);
        T *to = sums + j * space + runs[u].column * width;
        for (int64_t k = 0, rows; k < tiles; k++, from += rows, to += rows * width) {
          rows = first_row(length, tiles, k + 1) - first_row(length, tiles, k);
          turned_tiles[rows - 1][vectors - 2](end - begin, from, 1, w, at + begin, 1, none, b ? later : to);
          for (int64_t v = 0; b && v < rows * width; v += VL) vstore(to + v, vload(to + v) + vload(later + v));
          for (int64_t v = 0; bias && v < rows * width; v += VL)
            vstore(to + v, vload(to + v) + vload(bias + v % width));
        }
      }
    }
  }
}

static void turned_piece(const sweep *x, const piece *p, const T *src) {
  const int64_t total = p->count * volume(p->grid), *at = step_table(x, p);
  const int64_t row = p->grid[2], wide = up(x->m, VL) * VL;
  /* positions at a time: whole rows, or a part of one */
  const int64_t most = row <= POSITIONS ? POSITIONS / row * row : up(row, up(row, POSITIONS));
  T *sums = mg_scratch(2, (size_t)((most + VL) * wide + x->m * most + SLACK) * sizeof(T));
  if (!at || !sums) return;
  T *tile = sums + (most + VL) * wide;
  run runs[POSITIONS];
  move moves[POSITIONS];
  for (int64_t start = 0, moved; start < total; start += most) {
    const int64_t columns = MIN(most, total - start);
    int64_t count = runs_of(p, start, columns, runs, moves, &moved), joined = 0;
    turned_sums(x, p, src, x->weight + p->group * wide * x->steps, at, runs, count, sums, most + VL);
    for (int64_t j = 0, width; j < x->m; j += width) {
      width = turned_vectors(x->m - j) * VL;
      FN(gemm_pack)(tile + j * columns, columns, columns, MIN(width, x->m - j), sums + j * (most + VL), width, 1);
    }
    for (int64_t u = 1; u < count && x->plain; u++) {        /* rows of an image follow each other in the result */
      if (runs[u].image == runs[joined].image) runs[joined].length += runs[u].length;
      else runs[++joined] = runs[u];
    }
    scatter(x, p, runs, x->plain ? joined + 1 : count, tile, columns);
  }
}

static void sweep_pieces(void *context, int64_t begin, int64_t end) {
  const sweep *x = context;
  for (int64_t i = begin; i < end; i++) {
    piece p = piece_of(x, i / x->groups, i % x->groups);
    const T *src = gathered(x, &p);
    if (!src) return;
    if (TURNED && x->turned) turned_piece(x, &p, src);
    else if (x->straight) straight_piece(x, &p, src);
    else product_piece(x, &p, src);
  }
}

/* Is a turned tile the fastest? Multiply-adds of a position are counted: those of whole vectors of outputs, where
 * turning the sums takes about as long as 8 steps; those of `straight`, with the positions between rows and in the last
 * vector; those of `strips`, where packing takes about as long as 8 more outputs. */
static int is_turned(const sweep *x) {
  const int64_t steps = x->c * x->taps, wide = up(x->m, VL) * VL, positions = x->grid[1] * x->grid[2];
  const int64_t line = (x->grid[1] - 1) * (x->grid[2] + x->reach[2]) + x->grid[2];
  const int64_t rows = x->grid[2] / up(x->grid[2], turned_rows(2));      /* of a tile: too few wait for themselves */
  return turned_fits(x->m) && rows >= 4 && steps >= 32 &&
         wide * (steps + 8) * positions * (GEMM_ROWS < 14 && rows == 4 ? 17 : 16) <=
             16 * steps * MIN(positions * (x->m + 8), up(line, VL) * VL * x->m);
}

/* Packs the weights, element (row, channel, tap) of a group at row * across + channel * along + which[tap], and runs
 * the pieces. */
HOT void run_sweep(sweep *x, const T *w, const T *bias, const int64_t *which, int64_t across, int64_t along,
                      int64_t group_step) {
  if (!x->images || !volume(x->grid)) return;
  set_pieces(x);
  x->turned = TURNED && is_turned(x);
  x->biased = bias != 0;
  x->steps = x->c * x->taps + x->biased;
  /* `straight` against `strips` likewise. Rows of at most half a vector are strips if there are many outputs:
   * `straight` copies each row of each output by itself, up to a third of its time. Decided for the whole grid, so
   * that all pieces go the same way. */
  int64_t line = (x->grid[1] - 1) * (x->grid[2] + x->reach[2]) + x->grid[2];
  x->straight = up(line, VL) * VL * x->m <= x->grid[1] * x->grid[2] * (x->m + 8) &&
                (x->m <= 2 * FEW || 2 * x->grid[2] > VL);
  x->straight &= !x->turned;
  x->tallest = x->straight || x->turned || x->m > GEMM_WIDE_ROWS ? GEMM_ROWS : GEMM_WIDE_ROWS;
  int64_t tiles = TURNED && x->turned ? MAX(up(x->m, VL) / 2, 1) : up(x->m, x->tallest);
  x->vectors = x->straight ? widest(up(x->m, tiles)) : x->tallest == GEMM_ROWS ? 2 : 4;
  T *packed = mg_scratch(6, (size_t)(x->groups * up(x->m, VL) * VL * x->steps + VL) * sizeof(T)), *to = packed;
  if (!packed) return;
  for (int64_t g = 0; g < x->groups; g++)
    for (int64_t i = 0, r = 0, next; i < tiles; i++, r = next) {
      const int64_t strip = turned_vectors(x->m - r) * VL;
      next = TURNED && x->turned ? MIN(r + strip, x->m) : first_row(x->m, tiles, i + 1);
      const int64_t width = TURNED && x->turned ? strip : next - r;
      if (along == x->taps) {                                /* forward: steps are neighbours */
        FN(gemm_pack)(to, width, next - r, x->c * x->taps, w + g * group_step + r * across, across, 1);
        to += width * x->c * x->taps;
      } else {
        for (int64_t ch = 0; ch < x->c; ch++)
          for (int64_t t = 0; t < x->taps; t++) {
            const T *from = w + g * group_step + r * across + ch * along + which[t];
            for (int64_t q = r; q < next; q++, from += across) *to++ = *from;
            for (int64_t q = next; q < r + width; q++) *to++ = 0;
          }
      }
      for (int64_t q = r; q < r + width && bias; q++) *to++ = q < next ? bias[g * x->m + q] : 0;
    }
  x->weight = packed;
  int64_t jobs = x->pieces * x->groups;
  double work = (double)x->images * (double)volume(x->grid) * (double)(x->groups * x->m) * (double)(x->steps + 4);
  mg_parallel(jobs, work < MULS_PER_THREAD ? jobs : 1, sweep_pieces, x);
}

/* ---- forward and backward_input ---- */

static sweep forward_sweep(const shapes *g, T *y, const T *x) {
  sweep s = {.src = x, .dst = y, .images = g->images, .groups = g->groups, .c = g->c, .m = g->k, .dst_step = {1, 1, 1}};
  memcpy(s.src_size, g->in, sizeof s.src_size);
  memcpy(s.dst_size, g->out, sizeof s.dst_size);
  memcpy(s.grid, g->out, sizeof s.grid);
  memcpy(s.step, g->stride, sizeof s.step);
  return s;
}

/* All taps in order, where position 0 reads them; offset and which: scratch slot 5. 0 if there is no memory. */
SETUP static int forward_taps(const shapes *g, int64_t (**offset)[3], int64_t **which) {
  int64_t n = volume(g->kernel), t = 0;
  *offset = mg_scratch(5, (size_t)(n + 1) * 4 * sizeof(int64_t));
  if (!*offset) return 0;
  *which = (int64_t *)(*offset + n + 1);
  for (int64_t z = 0; z < g->kernel[0]; z++)
    for (int64_t y = 0; y < g->kernel[1]; y++)
      for (int64_t x = 0; x < g->kernel[2]; x++, t++) {
        int64_t at[3] = {z, y, x};
        for (int d = 0; d < 3; d++) (*offset)[t][d] = at[d] * g->dilation[d] - g->pad[d];
        (*which)[t] = t;
      }
  return 1;
}

/* Has winograd.c a faster way for these shapes? Then *s is the sweep from x to y, or back from y to x. */
SETUP static int winograd_fits(const shapes *g, int back, winograd *s) {
  if (g->groups != 1 || g->in[0] != 1 || g->out[0] != 1 || g->kernel[0] != 1 || g->kernel[1] != 3 ||
      g->kernel[2] != 3 || volume(g->stride) != 1 || volume(g->dilation) != 1 || g->pad[1] > 2 || g->pad[2] > 2)
    return 0;
  *s = (winograd){.images = g->images, .c = back ? g->k : g->c, .m = back ? g->c : g->k};
  for (int d = 0; d < 2; d++) {
    s->src[d] = back ? g->out[d + 1] : g->in[d + 1];
    s->dst[d] = back ? g->in[d + 1] : g->out[d + 1];
    s->pad[d] = back ? 2 - g->pad[d + 1] : g->pad[d + 1];
  }
  return WINOGRAD && FN(winograd_pays)(s);
}

void FN(conv_forward)(T *y, const T *x, const T *w, const T *bias, const int64_t *geometry) {
  shapes g;
  int64_t (*offset)[3], *which;
  winograd fast;
  memcpy(&g, geometry, sizeof g);
  if (WINOGRAD && winograd_fits(&g, 0, &fast) && FN(winograd_forward)(y, x, w, bias, &fast, g.c * 9, 9, 0)) return;
  sweep s = forward_sweep(&g, y, x);
  int64_t taps = volume(g.kernel);
  if (!forward_taps(&g, &offset, &which) || !set_taps(&s, taps, (const int64_t (*)[3])offset)) return;
  run_sweep(&s, w, bias, which, g.c * taps, taps, g.k * g.c * taps);
}

/* An infinite or NaN weight must not be multiplied with the zeros around the source: only what is inside is added. */
typedef struct { const shapes *g; T *gx; const T *gy, *w, *bias; } plain_job;

SETUP static void plain_input(void *context, int64_t begin, int64_t end) {
  const plain_job *x = context;
  const shapes *g = x->g;
  int64_t in = volume(g->in), out = volume(g->out), taps = volume(g->kernel);
  for (int64_t n = begin; n < end; n++) {
    int64_t group = n % g->groups;
    T *gx = x->gx + n * g->c * in;
    const T *gy = x->gy + n * g->k * out, *w = x->w + group * g->k * g->c * taps;
    for (int64_t i = 0; i < g->c * in; i++) gx[i] = x->bias ? x->bias[group * g->c + i / in] : 0;
    for (int64_t t = 0; t < taps; t++)
      for (int64_t o = 0; o < out; o++) {
        int64_t tap[3] = {t / g->kernel[2] / g->kernel[1], t / g->kernel[2] % g->kernel[1], t % g->kernel[2]}, to = 0,
                inside = 1;
        int64_t at[3] = {o / g->out[2] / g->out[1], o / g->out[2] % g->out[1], o % g->out[2]};
        for (int d = 0; d < 3; d++) {
          int64_t i = at[d] * g->stride[d] - g->pad[d] + tap[d] * g->dilation[d];
          inside &= i >= 0 && i < g->in[d];
          to = to * g->in[d] + i;
        }
        for (int64_t k = 0; inside && k < g->k; k++)
          for (int64_t c = 0; c < g->c; c++) gx[c * in + to] += gy[k * out + o] * w[(k * g->c + c) * taps + t];
      }
  }
}

HOT int all_finite(const T *w, int64_t n) {
  V zeros = vzero();
  for (; n > 0; n -= VL, w += VL) zeros += (n < VL ? vload_n(w, (int)n) : vload(w)) * vzero();
  return vsum(zeros) == 0;
}

/* One channel of gx from many of gy, of the same size (the gradient of a grey image). A sweep would load a vector of gy
 * for each multiply-add. Instead, taps come first, as rows of a product, and then their sum:
 *     p[tap, o] = sum over k of w[k, tap] * gy[k, o];   gx[i] = bias + sum over tap of p[tap, i + pad - tap * dilation]
 * gy is read in place. A row of p has zeros before and behind it, for lines above and below the image; what is left and
 * right of it is masked. Measured: half the time of a sweep for 3 x 3, no gain for 5 x 5 or 4 channels. */
#define NARROW 1024                      /* elements of an image, at most: p stays near */
typedef struct { const shapes *g; T *gx; const T *gy, *w, *bias; const VM *mask; int64_t space; } narrow_job;

static int is_narrow(const shapes *g) {
  const int64_t taps = volume(g->kernel), area = volume(g->in);
  int fits = g->c == 1 && g->k >= 8 && taps > 1 && taps <= 9 && area <= NARROW && area % VL == 0 &&
             !memcmp(g->in, g->out, sizeof g->in) && g->in[0] == 1 && g->kernel[0] == 1 && g->pad[0] == 0;
  for (int d = 1; d < 3; d++)
    fits &= g->stride[d] == 1 && g->pad[d] >= 0 && g->pad[d] <= (g->kernel[d] - 1) * g->dilation[d];
  return fits;
}

/* mask[column of the kernel][vector]: where the column that a tap reads is inside the image */
SETUP static void narrow_masks(const shapes *g, VM *mask, int64_t vectors) {
  for (int64_t x = 0; x < g->kernel[2]; x++)
    for (int64_t v = 0; v < vectors; v++)
      for (int l = 0; l < VL; l++) {
        const int64_t at = (v * VL + l) % g->in[2] + g->pad[2] - x * g->dilation[2];
        mask[x * vectors + v][l] = at >= 0 && at < g->in[2] ? -1 : 0;
      }
}

static void narrow_product(const narrow_job *x, const T *w, const T *gy, T *p, int64_t pitch) {
  const int64_t area = volume(x->g->in), taps = volume(x->g->kernel), k = x->g->k;
  const int64_t tiles = up(taps, GEMM_ROWS), blocks = up(k, GEMM_STEPS);
  for (int64_t j = 0; j < area; j += 2 * VL)
    for (int64_t b = 0; b < blocks; b++) {
      const int64_t first = first_row(k, blocks, b), steps = first_row(k, blocks, b + 1) - first;
      for (int64_t i = 0; i < tiles; i++) {
        const int64_t r = first_row(taps, tiles, i), next = first_row(taps, tiles, i + 1);
        FN(gemm_tile)((int)(next - r), (int)MIN((area - j) / VL, 2), steps, w + first * taps + r, 1, taps,
                      gy + first * area + j, area, p + r * pitch + j, pitch, VL, b > 0, 0);
      }
    }
}

static void narrow_input(void *context, int64_t begin, int64_t end) {
  const narrow_job *x = context;
  const shapes *g = x->g;
  const int64_t area = volume(g->in), taps = volume(g->kernel), vectors = area / VL, pitch = area + 2 * x->space;
  T *p = mg_scratch(0, (size_t)(taps * pitch) * sizeof(T));
  if (!p) return;
  zero(p, taps * pitch);
  for (int64_t n = begin; n < end; n++) {
    const int64_t group = n % g->groups;
    narrow_product(x, x->w + group * g->k * taps, x->gy + n * g->k * area, p + x->space, pitch);
    for (int64_t v = 0; v < vectors; v++) {
      V s = vset(x->bias ? x->bias[group] : 0);
      const T *from = p + x->space + v * VL + g->pad[1] * g->in[2] + g->pad[2];
      for (int64_t i = 0; i < g->kernel[1]; i++, from -= g->dilation[1] * g->in[2])
        for (int64_t j = 0; j < g->kernel[2]; j++, from += pitch)
          s += (V)((VM)vload(from - j * g->dilation[2]) & x->mask[j * vectors + v]);
      vstore(x->gx + n * area + v * VL, s);
    }
  }
}

/* One sweep for each residue a of positions i by the stride. Position i = a + stride * q reads g at
 * (i + pad - tap * dilation) / stride = q + (a + pad - tap * dilation) / stride, if that is a whole number. */
SETUP void FN(conv_backward_input)(T *gx, const T *gy, const T *w, const T *bias, const int64_t *geometry) {
  shapes g;
  winograd fast;
  memcpy(&g, geometry, sizeof g);
  if (WINOGRAD && winograd_fits(&g, 1, &fast) && FN(winograd_forward)(gx, gy, w, bias, &fast, 9, g.c * 9, 1)) return;
  int64_t all = volume(g.kernel), a[3];
  if (!all_finite(w, g.groups * g.k * g.c * all)) {
    plain_job x = {&g, gx, gy, w, bias};
    mg_parallel(g.images * g.groups, 1, plain_input, &x);
    return;
  }
  if (is_narrow(&g)) {
    const int64_t below = (g.kernel[1] - 1) * g.dilation[1], beside = (g.kernel[2] - 1) * g.dilation[2];
    const int64_t space = up((below + 1) * g.in[2] + beside, VL) * VL, each = (g.k + 4) * all * volume(g.in);
    VM *mask = mg_scratch(5, (size_t)(g.kernel[2] * volume(g.in)) * sizeof(T));
    if (!mask) return;
    narrow_masks(&g, mask, volume(g.in) / VL);
    narrow_job x = {&g, gx, gy, w, bias, mask, space};
    mg_parallel(g.images * g.groups, MAX(MULS_PER_THREAD / MAX(each, 1), 1), narrow_input, &x);
    return;
  }
  for (a[0] = 0; a[0] < MIN(g.stride[0], g.in[0]); a[0]++)
    for (a[1] = 0; a[1] < MIN(g.stride[1], g.in[1]); a[1]++)
      for (a[2] = 0; a[2] < MIN(g.stride[2], g.in[2]); a[2]++) {
        sweep s = {.src = gy, .dst = gx, .images = g.images, .groups = g.groups, .c = g.k, .m = g.c, .step = {1, 1, 1}};
        memcpy(s.src_size, g.out, sizeof s.src_size);
        memcpy(s.dst_size, g.in, sizeof s.dst_size);
        for (int d = 0; d < 3; d++) {
          s.grid[d] = up(g.in[d] - a[d], g.stride[d]);
          s.dst_start[d] = a[d];
          s.dst_step[d] = g.stride[d];
        }
        int64_t (*offset)[3] = mg_scratch(5, (size_t)(all + 1) * 4 * sizeof(int64_t)),
                *which = (int64_t *)(offset + all + 1), t = 0;
        if (!offset) return;
        for (int64_t i = 0; i < all; i++) {
          int64_t at[3] = {i / g.kernel[2] / g.kernel[1], i / g.kernel[2] % g.kernel[1], i % g.kernel[2]}, meets = 1;
          for (int d = 0; d < 3; d++) {
            int64_t from = a[d] + g.pad[d] - at[d] * g.dilation[d];
            meets &= from % g.stride[d] == 0;
            offset[t][d] = from / g.stride[d];
          }
          which[t] = i;
          t += meets;
        }
        if (!set_taps(&s, t, (const int64_t (*)[3])offset)) return;
        run_sweep(&s, w, bias, which, all, g.c * all, g.k * g.c * all);
      }
}

/* ---- backward_weight ---- */

typedef struct {
  sweep x;
  const T *gy;
  T *sums;                               /* [chunk][group][c * taps][k] */
  int64_t chunks;
} weight_job;

#define COLUMNS GEMM_STEPS

/* sums[(channel, tap)][k] += the same of a turned tile: rows are channels, which need no copy. */
NOINLINE void weight_turned(const sweep *x, const piece *p, const T *src, const int64_t *at, const int64_t *position,
                          int64_t columns, const T *packed, T *sums) {
  static const T none[GEMM_ROWS];
  T part[GEMM_ROWS * 3 * VL];
  for (int64_t j = 0, vectors; j < x->m; j += vectors * VL) {
    vectors = turned_vectors(x->m - j);
    const int64_t tiles = up(x->c, turned_rows(vectors));
    for (int64_t k = 0, i = 0, next; k < tiles; k++, i = next) {
      next = first_row(x->c, tiles, k + 1);
      for (int64_t t = 0; t < x->taps; t++) {
        turned_tiles[next - i - 1][vectors - 2](columns, src + i * p->channel + at[t], p->channel,
                                                packed + j * COLUMNS, position, 1, none, part);
        for (int64_t r = i; r < next; r++)
          EACH_VECTOR(v, n, MIN(x->m - j, vectors * VL),
            T *to = sums + (r * x->taps + t) * x->m + j + v;
            store_n(to, load_n(to, n) + load_n(part + (r - i) * vectors * VL + v, n), n););
      }
    }
  }
}

/* sums[(channel, tap)][k] += source x g over the positions of a piece. All of g is packed for these positions; the
 * source is packed by the rows of a few tiles at a time, so that a strip of both stays in the first-level cache. */
#define GROUP (2 * GEMM_ROWS)

static void weight_product(const weight_job *job, const piece *p, const T *src, T *sums) {
  const sweep *x = &job->x;
  int64_t positions = volume(p->grid), total = p->count * positions, size = volume(x->dst_size), rows = x->c * x->taps;
  int64_t pitch = COLUMNS + VL, groups = up(rows, GROUP), *at = tap_table(x, p), moved;
  T *panel = mg_scratch(1, (size_t)(GROUP * pitch + SLACK) * sizeof(T));
  T *packed = mg_scratch(2, (size_t)(COLUMNS * up(x->m, VL) * VL + SLACK) * sizeof(T));
  if (!at || !panel || !packed) return;
  run runs[COLUMNS];
  move moves[COLUMNS];
  int64_t position[COLUMNS];
  for (int64_t start = 0; start < total; start += COLUMNS) {
    int64_t columns = MIN(COLUMNS, total - start);
    int64_t count = runs_of(p, start, columns, runs, moves, &moved);
    for (int64_t j = 0, width; j < x->m; j += width) {
      int64_t n = start / positions, at_n = start % positions;
      width = (TURNED && x->turned ? turned_vectors(x->m - j) : MIN(up(x->m - j, VL), 2)) * VL;
      for (int64_t column = 0, here; column < columns; column += here, n++, at_n = 0) {
        here = MIN(columns - column, positions - at_n);
        FN(gemm_pack)(packed + j * COLUMNS + column * width, width, x->m - j, here,
                      job->gy + (((p->first + n) * x->groups + p->group) * x->m + j) * size + p->base + at_n, size, 1);
      }
    }
    if (TURNED && x->turned) {
      for (int64_t u = 0; u < count; u++)
        for (int64_t i = 0; i < runs[u].length; i++) position[runs[u].column + i] = run_at(p, runs + u) + i;
      weight_turned(x, p, src, at, position, columns, packed, sums);
      continue;
    }
    for (int64_t i = 0; i < groups; i++) {
      int64_t first = first_row(rows, groups, i), height = first_row(rows, groups, i + 1) - first,
              tiles = up(height, GEMM_ROWS);
      pack_source(x, p, src, first, first + height, at, moves, moved, panel, pitch);
      for (int64_t j = 0; j < x->m; j += 2 * VL) {
        int64_t vectors = MIN(up(x->m - j, VL), 2), width = vectors * VL;
        int tail = (int)MIN(x->m - j - (vectors - 1) * VL, VL);
        for (int64_t k = 0, r = 0, next; k < tiles; k++, r = next) {
          next = first_row(height, tiles, k + 1);
          FN(gemm_tile)((int)(next - r), (int)vectors, columns, panel + r * pitch, pitch, 1, packed + j * COLUMNS,
                        width, sums + (first + r) * x->m + j, x->m, tail, 1, 0);
        }
      }
    }
  }
}

/* N taps at once of one channel and one output: sums of products of rows. */
INLINE void weight_taps(const int N, const piece *p, const T *g, const T *src, const int64_t *at, T *sums,
                        int64_t down) {
  V sum[9];
  UNROLL
  for (int t = 0; t < N; t++) sum[t] = vzero();
  for (int64_t z = 0; z < p->grid[0]; z++)
    for (int64_t i = 0; i < p->grid[1]; i++) {
      const T *from = src + (z * p->q[1] + i) * p->q[2];
      int64_t j = 0;
      for (; j + VL <= p->grid[2]; j += VL, g += VL) {
        V gv = vload(g);
        UNROLL
        for (int t = 0; t < N; t++) sum[t] = vfma(vload(from + at[t] + j), gv, sum[t]);
      }
      int n = (int)(p->grid[2] - j);
      if (n) {
        V gv = vload_n(g, n);
        UNROLL
        for (int t = 0; t < N; t++) sum[t] = vfma(vload_n(from + at[t] + j, n), gv, sum[t]);
        g += n;
      }
    }
  for (int t = 0; t < N; t++) sums[t * down] += vsum(sum[t]);
}

static void weight_few(const weight_job *job, const piece *p, const T *src, T *sums) {
  const sweep *x = &job->x;
  int64_t size = volume(x->dst_size), *at = tap_table(x, p), m = x->m;
  if (!at) return;
  for (int64_t n = 0; n < p->count; n++)
    for (int64_t ch = 0; ch < x->c; ch++)
      for (int64_t k = 0; k < m; k++) {
        const T *g = job->gy + (((p->first + n) * x->groups + p->group) * m + k) * size + p->base;
        const T *from = src + n * p->image + ch * p->channel;
        T *to = sums + ch * x->taps * m + k;
        int64_t t = 0;
        for (; t + 9 <= x->taps; t += 9) weight_taps(9, p, g, from, at + t, to + t * m, m);
        for (; t + 3 <= x->taps; t += 3) weight_taps(3, p, g, from, at + t, to + t * m, m);
        for (; t < x->taps; t++) weight_taps(1, p, g, from, at + t, to + t * m, m);
      }
}

static void weight_chunks(void *context, int64_t begin, int64_t end) {
  const weight_job *job = context;
  const sweep *x = &job->x;
  int64_t size = x->c * x->taps * x->m;
  for (int64_t i = begin; i < end; i++) {
    int64_t group = i % x->groups, chunk = i / x->groups;
    T *sums = job->sums + i * size;
    zero(sums, size);
    for (int64_t u = x->pieces * chunk / job->chunks; u < x->pieces * (chunk + 1) / job->chunks; u++) {
      piece p = piece_of(x, u, group);
      const T *src = gathered(x, &p);
      if (!src) return;
      if (x->straight) weight_few(job, &p, src, sums);
      else weight_product(job, &p, src, sums);
    }
  }
}

HOT void add_chunks(T *sums, int64_t n, int64_t chunks) {
  for (int64_t chunk = 1; chunk < chunks; chunk++)
    INDEPENDENT
    for (int64_t i = 0; i < n; i++) sums[i] += sums[chunk * n + i];
}

/* sums: T[chunks * the size of w] */
void FN(conv_backward_weight)(T *gw, T *sums, const T *x, const T *gy, const int64_t *geometry, int64_t chunks) {
  shapes g;
  int64_t (*offset)[3], *which;
  winograd fast;
  memcpy(&g, geometry, sizeof g);
  if (WINOGRAD && winograd_fits(&g, 0, &fast) && FN(winograd_weight)(gw, x, gy, &fast)) return;
  weight_job job = {.x = forward_sweep(&g, 0, x), .gy = gy, .sums = sums, .chunks = chunks};
  int64_t taps = volume(g.kernel), rows = g.c * taps, size = rows * g.k, total = size * g.groups;
  if (!forward_taps(&g, &offset, &which) || !set_taps(&job.x, taps, (const int64_t (*)[3])offset)) return;
  set_pieces(&job.x);
  job.x.straight = g.k < FEW;
  job.x.turned = TURNED && taps > 1 && g.c >= FEW && turned_fits(g.k) && size * (int64_t)sizeof(T) < NEAR;
  double work = (double)g.images * (double)volume(g.out) * (double)total;
  mg_parallel(chunks * g.groups, work < MULS_PER_THREAD ? chunks * g.groups : 1, weight_chunks, &job);
  add_chunks(sums, total, chunks);
  for (int64_t group = 0; group < g.groups; group++, sums += size, gw += size)       /* transposed */
    for (int64_t k = 0; k < g.k; k += VL)
      FN(gemm_pack)(gw + k * rows, rows, rows, MIN(VL, g.k - k), sums + k, g.k, 1);
}
