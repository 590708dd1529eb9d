/* types: f32 */
/* 3 x 3 convolution with 2.25 times fewer multiplications, and its gradients: F(2 x 2, 3 x 3) of Winograd's minimal
 * filtering (Lavin and Gray 2016, "Fast algorithms for convolutional neural networks", arXiv:1509.09308).
 *
 * A tile is 2 x 2 neighbouring results. It reads 4 x 4 elements d of the source, and the next tile those 2 to the
 * right. The plain loops, where each matrix has 16 elements and `*` multiplies them one by one:
 *
 *   for tile: for m:  sum = 0;  for c: sum += (G w[m, c] G^T) * (B^T d[c] B);   y[m, tile] = A^T sum A + bias[m]
 *
 *         1  0 -1  0            1    0    0
 *   B^T = 0  1  1  0       G =  1/2  1/2  1/2       A^T =  1  1  1  0
 *         0 -1  1  0            1/2 -1/2  1/2              0  1 -1 -1
 *         0  1  0 -1            0    0    1
 *
 * The gradient of the source is the same with the filters turned by half a turn. The map is linear in w, so the
 * gradient of the weights is its transpose, where g is the 2 x 2 gradients of a tile's results:
 *
 *   gw[m, c] = G^T (sum over tiles of (A g[m, tile] A^T) * (B^T d[c, tile] B)) G
 *
 * Each of the 16 elements is a plane, and the sum over c (over tiles) is a matrix product for each plane, by the tile
 * of gemm.h. A vector is neighbouring channels, not neighbouring tiles: the source is transposed to [pixel][channel] on
 * its way into scratch memory, with the zeros around it, and the result on its way out. So tiles begin anywhere, images
 * are of any width, and all three products read whole vectors of channels. A block of tiles goes through all steps
 * while its 16 planes are in the second-level cache.
 *
 * If all tiles make one block (the last layers of a network, with few pixels and large filters), filters cost more
 * than sources: then a piece of work is a strip of m, whose filters are transformed in the cache where they are used.
 *
 * Order of summation: chains of at most GEMM_STEPS multiply-adds over c, or CHAIN over tiles, which are added in order;
 * over tiles, the sums of a group of blocks first, so that no sum has thousands of parts.
 * The errors are about those of the direct kernel: chains are 9 (4) times shorter, and the transforms take back what
 * that gains. That holds where the taps of a filter, and the elements of a tile, are of one magnitude: the transforms
 * add them, and an error is relative to the largest, also for a result that does not use it. Blocks are cut by shape
 * alone, and a result does not depend on the block that it is in.
 *
 * An element that is infinite or NaN reaches all results of its tile, also those that do not read it, and large numbers
 * may overflow here only. So results that are not finite are noted, and the caller computes all of them again.
 */
#include "winograd.h"

#include "runtime.h"

#if WINOGRAD

#define PLANES 16
#define CACHE 163840                     /* elements of all planes of a block of tiles, about */
#define TILES_LEAST 32                   /* tiles of a block */
#define FEW_TILES GEMM_STEPS             /* so many make one block */
#define AT_ONCE (1 << 20)                /* elements of sums of groups that threads work at together, about */
#define CHAIN 64                         /* tiles whose products are summed in one chain */
#define GROUP_TILES 512                  /* tiles of a group of blocks, at least, and how many blocks it has at most: */
#define GROUP_BLOCKS 32                  /* their chains are summed before the sum is added to those of other groups */
#define MULS_PER_THREAD 131072           /* multiply-adds that are not worth a second thread */

/* Elements from a row of channels to the next: an odd number of vectors, if many, so that a column of the matrix does
 * not fall into the same few places of the cache. */
static int64_t pitch_of(int64_t wide) { return wide > 7 * VL ? (wide / VL | 1) * VL : wide; }

typedef struct {
  winograd s;
  const T *src, *grad, *bias;
  T *dst;
  int64_t tiles[2];                      /* of an image */
  int64_t columns, rows, across, blocks; /* tiles of a block; blocks beside each other; all blocks */
  int64_t wide_c, wide_m, pitch_c, pitch_m;      /* channels in whole vectors; elements from a pixel to the next */
  int64_t plane_c, plane_m, plane_w;     /* elements from a plane to the next: of v, of h and results, of filters */
  T *filters;                            /* [plane][strip of m][c][the strip's m] */
  T *v, *h;                              /* planes of a block: of src, of grad */
  /* Of the gradient of the weights: products [plane][m][pitch_c] summed over a group of blocks, of `at_once` groups,
   * and of all so far; the block at work, blocks of a group; the first group at work, and behind the last. */
  T *sums, *total;
  int64_t block, group, at_once, first, end;
  int64_t image;                         /* elements of an image of dst */
  atomic_int *wrong;                     /* a result is not finite */
} job;

static void cut(job *x) {
  const winograd *s = &x->s;
  x->wide_c = up(s->c, VL) * VL;
  x->wide_m = up(s->m, VL) * VL;
  x->pitch_c = pitch_of(x->wide_c);
  x->pitch_m = pitch_of(x->wide_m);
  for (int d = 0; d < 2; d++) x->tiles[d] = up(s->dst[d], 2);
  int64_t all = s->images * x->tiles[0] * x->tiles[1];
  int64_t most = all <= FEW_TILES ? all : MAX(CACHE / (PLANES * (x->pitch_c + x->pitch_m)), TILES_LEAST);
  most = MIN(most, FEW_TILES);
  x->across = up(x->tiles[1], most);
  x->columns = up(x->tiles[1], x->across);
  int64_t lines = s->images * x->tiles[0], parts = up(lines, MAX(most / x->columns, 1));
  x->rows = up(lines, parts);
  x->blocks = up(lines, x->rows) * x->across;
  /* planes begin at different places of the cache, too */
  x->plane_c = x->rows * x->columns * x->pitch_c + VL;
  x->plane_m = x->rows * x->columns * x->pitch_m + VL;
  x->plane_w = s->c * x->wide_m + VL;
}

/* The part of a block inside one image: tile rows top.., columns left.. */
typedef struct { int64_t image, top, left, rows, columns; } part;

/* The part that begins with tile row `row` of the block. 0 behind the last. */
static int part_at(const job *x, int64_t block, int64_t row, part *p) {
  int64_t all = x->s.images * x->tiles[0], at = block / x->across * x->rows + row;
  if (row >= x->rows || at >= all) return 0;
  p->image = at / x->tiles[0];
  p->top = at % x->tiles[0];
  p->left = block % x->across * x->columns;
  p->rows = MIN(MIN(x->rows - row, all - at), x->tiles[0] - p->top);
  p->columns = MIN(x->columns, x->tiles[1] - p->left);
  return 1;
}

static int64_t tiles_of(const job *x, int64_t block) {
  int64_t tiles = 0;
  part p;
  for (int64_t row = 0; part_at(x, block, row, &p); row += p.rows) tiles += p.rows * p.columns;
  return tiles;
}

/* ---- [channel][pixel] to [pixel][channel] and back ---- */

static void zero(T *to, int64_t vectors) { for (int64_t i = 0; i < vectors; i++) vstore(to + i * VL, vzero()); }

/* t[q] = n channels of pixel q, of `here` pixels; nothing else is read. */
NOINLINE void load_edge(V *t, const T *from, int64_t area, int n, int here) {
  T edge[VL * VL] = {0};
  for (int l = 0; l < n; l++) vstore(edge + l * VL, vload_n(from + l * area, here));
  vload_columns(t, edge, VL);
}

/* to[line][column][channel] = src[channel][top + line][left + column], 0 outside the image */
static void gather(const T *src, int64_t channels, const int64_t *size, int64_t top, int64_t left, int64_t lines,
                   int64_t columns, T *to, int64_t pitch) {
  int64_t y0 = MAX(-top, 0), y1 = MAX(MIN(size[0] - top, lines), y0), area = size[0] * size[1];
  int64_t x0 = MIN(MAX(-left, 0), columns), x1 = MAX(MIN(size[1] - left, columns), x0), vectors = pitch / VL;
  for (int64_t y = 0; y < lines; y++) {
    T *line = to + y * columns * pitch;
    if (y < y0 || y >= y1) zero(line, columns * vectors);
    else zero(line, x0 * vectors), zero(line + x1 * pitch, (columns - x1) * vectors);
  }
  if (x1 == x0) return;
  int64_t runs = x1 - x0 == size[1] ? 1 : y1 - y0, length = (y1 - y0) * (x1 - x0) / MAX(runs, 1);
  for (int64_t ch = 0; ch < channels; ch += VL)
    for (int64_t run = 0; run < runs; run++) {
      const T *from = src + ch * area + (top + y0 + run) * size[1] + left + x0;
      T *start = to + ((y0 + run) * columns + x0) * pitch + ch, *at = start;
      for (int64_t i = 0, left_over = x1 - x0; i < length; i += VL) {
        int here = (int)MIN(length - i, VL), n = (int)MIN(channels - ch, VL);
        V t[VBYTES / sizeof(T)];
        if (here == VL && n == VL) vload_columns(t, from + i, area);
        else load_edge(t, from + i, area, n, here);
        for (int q = 0; q < here; q++, at += pitch) {
          if (left_over-- == 0) {                                /* the next line of the image */
            start = at = start + columns * pitch;
            left_over = x1 - x0 - 1;
          }
          vstore(at, t[q]);
        }
      }
    }
}

/* dst[channel][top + line][left + column] = from[line][column][channel]. Behind `from` are VL rows that may be read. */
static void scatter(T *dst, int64_t channels, const int64_t *size, int64_t top, int64_t left, int64_t lines,
                    int64_t columns, const T *from, int64_t pitch) {
  int64_t runs = columns == size[1] ? 1 : lines, length = lines * columns / runs, area = size[0] * size[1];
  for (int64_t ch = 0; ch < channels; ch += VL)
    for (int64_t run = 0; run < runs; run++)
      for (int64_t i = 0; i < length; i += VL) {
        V t[VBYTES / sizeof(T)];
        T *to = dst + ch * area + (top + run) * size[1] + left + i;
        vload_columns(t, from + (run * columns + i) * pitch + ch, pitch);
        if (length - i >= VL && channels - ch >= VL)
          UNROLL
          for (int q = 0; q < VL; q++) vstore(to + q * area, t[q]);
        else
          for (int q = 0; q < MIN(channels - ch, VL); q++) vstore_n(to + q * area, t[q], (int)MIN(length - i, VL));
      }
}

/* ---- the transforms: a tile after the other of a row of tiles, VL channels ---- */

/* t = B^T d for a column d of 4 elements */
INLINE void column(V *t, const T *d, int64_t line) {
  V d0 = vload(d), d1 = vload(d + line), d2 = vload(d + 2 * line), d3 = vload(d + 3 * line);
  t[0] = d0 - d2;
  t[1] = d1 + d2;
  t[2] = d2 - d1;
  t[3] = d1 - d3;
}

/* to[plane][tile] = B^T d B; from: 4 lines of pixels. Two of a tile's columns are the next one's, too. */
static void transform_source(const T *from, int64_t line, int64_t pitch, int64_t wide, int64_t tiles, T *to,
                             int64_t plane) {
  for (int64_t v = 0; v < wide; v += VL) {
    const T *d = from + v;
    T *out = to + v;
    V a[4], b[4];
    column(a, d, line);
    column(b, d + pitch, line);
    for (int64_t i = 0; i < tiles; i++, out += pitch) {
      V c[4], e[4];
      d += 2 * pitch;
      column(c, d, line);
      column(e, d + pitch, line);
      UNROLL
      for (int r = 0; r < 4; r++) {
        vstore(out + (4 * r) * plane, a[r] - c[r]);
        vstore(out + (4 * r + 1) * plane, b[r] + c[r]);
        vstore(out + (4 * r + 2) * plane, c[r] - b[r]);
        vstore(out + (4 * r + 3) * plane, b[r] - e[r]);
        a[r] = c[r];
        b[r] = e[r];
      }
    }
  }
}

/* to[plane][tile] = A g A^T; from: 2 lines of pixels */
static void transform_gradient(const T *from, int64_t line, int64_t pitch, int64_t wide, int64_t tiles, T *to,
                               int64_t plane) {
  for (int64_t v = 0; v < wide; v += VL)
    for (int64_t i = 0; i < tiles; i++) {
      const T *g = from + 2 * i * pitch + v;
      T *out = to + i * pitch + v;
      V a = vload(g), b = vload(g + pitch), c = vload(g + line), d = vload(g + line + pitch);
      V left[4] = {a, a + c, a - c, -c}, right[4] = {b, b + d, b - d, -d};
      UNROLL
      for (int r = 0; r < 4; r++) {
        vstore(out + (4 * r) * plane, left[r]);
        vstore(out + (4 * r + 1) * plane, left[r] + right[r]);
        vstore(out + (4 * r + 2) * plane, left[r] - right[r]);
        vstore(out + (4 * r + 3) * plane, -right[r]);
      }
    }
}

/* to[line][column] = A^T from A + bias: 2 lines of pixels of which `width` are wanted; the second if `two`. Returns 0
 * if all are finite, NaN otherwise. */
static V transform_back(const T *from, int64_t plane, int64_t pitch, int64_t channels, int64_t tiles, T *to,
                        int64_t width, int two, const T *bias) {
  V wrong = vzero();
  for (int64_t v = 0; v < channels; v += VL) {
    V start = bias ? vload_n(bias + v, (int)MIN(channels - v, VL)) : vzero();
    for (int64_t i = 0; i < tiles; i++) {
      const T *m = from + i * pitch + v;
      T *out = to + 2 * i * pitch + v;
      V above[4], below[4];
      UNROLL
      for (int q = 0; q < 4; q++) {
        V b = vload(m + (4 + q) * plane), c = vload(m + (8 + q) * plane);
        above[q] = vload(m + q * plane) + (b + c);
        below[q] = (b - c) - vload(m + (12 + q) * plane);
      }
      V a = above[0] + (above[1] + above[2]) + start, b = (above[1] - above[2]) - above[3] + start,
        c = below[0] + (below[1] + below[2]) + start, d = (below[1] - below[2]) - below[3] + start;
      wrong = vfma(a + b, vzero(), vfma(c + d, vzero(), wrong));
      int both = 2 * i + 1 < width;
      vstore(out, a);
      if (both) vstore(out + pitch, b);
      if (two) vstore(out + width * pitch, c);
      if (two && both) vstore(out + (width + 1) * pitch, d);
    }
  }
  return wrong;
}

/* t = G w for 3 elements, and t = G^T m for 4 */
INLINE void widen(V *t, V a, V b, V c) {
  V sum = (a + c) * F(0.5);
  t[0] = a;
  t[1] = sum + b * F(0.5);
  t[2] = sum - b * F(0.5);
  t[3] = c;
}
INLINE void narrow(V *t, V a, V b, V c, V d) {
  V sum = (b + c) * F(0.5);
  t[0] = a + sum;
  t[1] = (b - c) * F(0.5);
  t[2] = sum + d;
}

/* ---- forward ---- */

typedef struct { job *x; const T *w; int64_t across, along; int turned; } filter_job;

/* taps[t] = element t of n filters, `apart` from each other */
INLINE void load_filters(V *taps, const T *w, int64_t apart, int n) {
  T edge[VL * VL];
  if (n < VL) memset(edge, 0, sizeof edge);
  for (int from = 0; from < 9; from += VL) {
    for (int l = 0; l < n; l++) vstore(edge + l * VL, vload_n(w + l * apart + from, MIN(9 - from, VL)));
    vload_columns(taps + from, edge, VL);
  }
}

/* filters = G w G^T, for strips begin..end of m. Turned filters have the same planes, the outer ones exchanged. */
static void transform_filters(void *context, int64_t begin, int64_t end) {
  const filter_job *f = context;
  const job *x = f->x;
  int64_t outer = f->turned ? 3 : 0, place[4] = {outer, 1, 2, 3 - outer};
  for (int64_t j = begin * GEMM_STRIP; j < MIN(end * GEMM_STRIP, x->wide_m); j += VL) {
    int64_t strip = j / GEMM_STRIP * GEMM_STRIP, width = MIN(GEMM_STRIP, x->wide_m - strip);
    int n = (int)MIN(VL, x->s.m - j);
    for (int64_t c = 0; c < x->s.c; c++) {
      T *out = x->filters + strip * x->s.c + c * width + j - strip;
      const T *w = f->w + j * f->across + c * f->along;
      V taps[9 + VBYTES / sizeof(T)], rows[3][4], t[4];
      if (n == VL) load_filters(taps, w, f->across, VL);
      else load_filters(taps, w, f->across, n);
      UNROLL
      for (int r = 0; r < 3; r++) widen(rows[r], taps[3 * r], taps[3 * r + 1], taps[3 * r + 2]);
      UNROLL
      for (int q = 0; q < 4; q++) {
        widen(t, rows[0][q], rows[1][q], rows[2][q]);
        UNROLL
        for (int r = 0; r < 4; r++) vstore(out + (4 * place[r] + place[q]) * x->plane_w, t[r]);
      }
    }
  }
}

/* m[plane][tile][m] = v[plane][tile][c] filters[plane][c][m] */
static void multiply(const job *x, int64_t tiles, const T *v, T *m) {
  int64_t c = x->s.c, blocks = up(c, GEMM_STEPS), stacks = up(tiles, GEMM_ROWS);
  for (int64_t p = 0; p < PLANES; p++, v += x->plane_c, m += x->plane_m)
    for (int64_t j = 0; j < x->wide_m; j += GEMM_STRIP) {
      int64_t width = MIN(GEMM_STRIP, x->wide_m - j);
      const T *filters = x->filters + p * x->plane_w + j * c;
      for (int64_t b = 0; b < blocks; b++) {
        int64_t first = first_row(c, blocks, b), steps = first_row(c, blocks, b + 1) - first;
        for (int64_t i = 0, r = 0, next; i < stacks; i++, r = next) {
          next = first_row(tiles, stacks, i + 1);
          FN(gemm_tile)((int)(next - r), (int)(width / VL), steps, v + r * x->pitch_c + first, x->pitch_c, 1,
                        filters + first * width, width, m + r * x->pitch_m + j, x->pitch_m, VL, b > 0, 0);
        }
      }
    }
}

/* The planes v of a part's source */
static void source_part(const job *x, const part *p, T *in, T *v) {
  const winograd *s = &x->s;
  int64_t pixels = 2 * p->columns + 2, line = pixels * x->pitch_c;
  gather(x->src + p->image * s->c * s->src[0] * s->src[1], s->c, s->src, 2 * p->top - s->pad[0],
         2 * p->left - s->pad[1], 2 * p->rows + 2, pixels, in, x->pitch_c);
  for (int64_t i = 0; i < p->rows; i++, v += p->columns * x->pitch_c)
    transform_source(in + 2 * i * line, line, x->pitch_c, x->wide_c, p->columns, v, x->plane_c);
}

static T *source_scratch(const job *x, int64_t rows) {
  return mg_scratch(0, (size_t)((2 * rows + 2) * (2 * x->columns + 2) * x->pitch_c) * sizeof(T));
}

/* The results of a part, from its planes m. */
static V result_part(const job *x, const part *p, const T *m, T *out) {
  const winograd *s = &x->s;
  int64_t width = MIN(2 * p->columns, s->dst[1] - 2 * p->left), lines = MIN(2 * p->rows, s->dst[0] - 2 * p->top);
  V wrong = vzero();
  for (int64_t i = 0; i < p->rows; i++, m += p->columns * x->pitch_m)
    wrong += transform_back(m, x->plane_m, x->pitch_m, s->m, p->columns, out + 2 * i * width * x->pitch_m, width,
                            2 * i + 1 < lines, x->bias);
  scatter(x->dst + p->image * x->image, s->m, s->dst, 2 * p->top, 2 * p->left, lines, width, out, x->pitch_m);
  return wrong;
}

/* m and then the results of a block, whose source planes are v. */
static V finish_block(const job *x, int64_t block, const T *v) {
  T *m = mg_scratch(2, (size_t)(PLANES * x->plane_m) * sizeof(T));
  T *out = mg_scratch(3, (size_t)((4 * x->rows * x->columns + VL) * x->pitch_m) * sizeof(T));
  V wrong = vzero();
  part p;
  if (!m || !out) return wrong;
  multiply(x, tiles_of(x, block), v, m);
  for (int64_t row = 0; part_at(x, block, row, &p); row += p.rows, m += p.rows * p.columns * x->pitch_m)
    wrong += result_part(x, &p, m, out);
  return wrong;
}

/* Many tiles: pieces are blocks of them. */
static void forward_blocks(void *context, int64_t begin, int64_t end) {
  job *x = context;
  T *in = source_scratch(x, x->rows), *v = mg_scratch(1, (size_t)(PLANES * x->plane_c) * sizeof(T));
  if (!in || !v) return;
  V wrong = vzero();
  part p;
  for (int64_t block = begin; block < end; block++) {
    T *to = v;
    for (int64_t row = 0; part_at(x, block, row, &p); row += p.rows, to += p.rows * p.columns * x->pitch_c)
      source_part(x, &p, in, to);
    wrong += finish_block(x, block, v);
  }
  if (vsum(wrong) != 0) atomic_store(x->wrong, 1);
}

/* Few tiles: first the source planes of each image, then pieces are strips of m. So a filter is transformed in the
 * cache where it is used. */
static void forward_images(void *context, int64_t begin, int64_t end) {
  const job *x = context;
  T *in = source_scratch(x, x->tiles[0]);
  part p;
  for (int64_t n = begin; in && n < end; n++)
    if (part_at(x, 0, n * x->tiles[0], &p)) source_part(x, &p, in, x->v + n * x->tiles[0] * x->tiles[1] * x->pitch_c);
}

static void forward_strips(void *context, int64_t begin, int64_t end) {
  const filter_job *f = context;
  for (int64_t i = begin; i < end; i++) {
    int64_t j = i * GEMM_STRIP;
    job x = *f->x;                       /* the same for fewer channels */
    x.s.m = MIN(GEMM_STRIP, x.s.m - j);
    x.wide_m = x.pitch_m = up(x.s.m, VL) * VL;
    x.plane_m = x.rows * x.columns * x.pitch_m + VL;
    x.plane_w = x.s.c * x.wide_m + VL;
    x.dst += j * x.s.dst[0] * x.s.dst[1];
    if (x.bias) x.bias += j;
    x.filters = mg_scratch(6, (size_t)(PLANES * x.plane_w) * sizeof(T));
    if (!x.filters) return;
    filter_job own = {&x, f->w + j * f->across, f->across, f->along, f->turned};
    transform_filters(&own, 0, 1);
    if (vsum(finish_block(&x, 0, x.v)) != 0) atomic_store(x.wrong, 1);
  }
}

static double multiplications(const job *x) {
  return (double)x->s.images * (double)(x->tiles[0] * x->tiles[1] * PLANES) * (double)(x->s.c * x->s.m);
}

int FN(winograd_forward)(T *dst, const T *src, const T *w, const T *bias, const winograd *s, int64_t across,
                         int64_t along, int turned) {
  atomic_int wrong = 0;
  job x = {.s = *s, .src = src, .dst = dst, .bias = bias, .image = s->m * s->dst[0] * s->dst[1], .wrong = &wrong};
  cut(&x);
  filter_job f = {&x, w, across, along, turned};
  int alone = multiplications(&x) < MULS_PER_THREAD;
  int64_t strips = up(s->m, GEMM_STRIP);
  if (x.blocks == 1) {
    x.v = mg_scratch(1, (size_t)(PLANES * x.plane_c) * sizeof(T));
    if (!x.v) return 1;
    mg_parallel(s->images, alone ? s->images : 1, forward_images, &x);
    mg_parallel(strips, alone ? strips : 1, forward_strips, &f);
  } else {
    x.filters = mg_scratch(6, (size_t)(PLANES * x.plane_w) * sizeof(T));
    if (!x.filters) return 1;
    mg_parallel(strips, alone ? strips : 1, transform_filters, &f);
    mg_parallel(x.blocks, alone ? x.blocks : 1, forward_blocks, &x);
  }
  return !atomic_load(&wrong);
}

/* ---- the gradient of the weights ---- */

/* Planes of a block: 0 of the source, 1 of the gradient of the results */
static void weight_transforms(void *context, int64_t begin, int64_t end) {
  const job *x = context;
  const winograd *s = &x->s;
  part p;
  for (int64_t which = begin; which < end; which++) {
    T *v = x->v, *h = x->h, *in = which ? 0 : source_scratch(x, x->rows);
    T *grad = which ? mg_scratch(0, (size_t)(4 * x->rows * x->columns * x->pitch_m) * sizeof(T)) : 0;
    if (!in && !grad) return;
    for (int64_t row = 0; part_at(x, x->block, row, &p); row += p.rows) {
      if (which == 0) {
        source_part(x, &p, in, v);
        v += p.rows * p.columns * x->pitch_c;
      } else {
        int64_t line = 2 * p.columns * x->pitch_m;
        gather(x->grad + p.image * s->m * s->dst[0] * s->dst[1], s->m, s->dst, 2 * p.top, 2 * p.left, 2 * p.rows,
               2 * p.columns, grad, x->pitch_m);
        for (int64_t i = 0; i < p.rows; i++, h += p.columns * x->pitch_m)
          transform_gradient(grad + 2 * i * line, line, x->pitch_m, x->wide_m, p.columns, h, x->plane_m);
      }
    }
  }
}

/* sums[m][c] += h[tile][m] v[tile][c] for rows first..end of m and one plane; `tiles` of the block */
static void weight_product(const job *x, int64_t plane, int64_t tiles, int64_t first, int64_t end, T *sums) {
  int64_t stacks = up(end - first, GEMM_ROWS), chains = up(tiles, CHAIN);
  for (int64_t j = 0; j < x->wide_c; j += GEMM_STRIP)
    for (int64_t k = 0, t = 0, next_t; k < chains; k++, t = next_t) {
      next_t = first_row(tiles, chains, k + 1);
      for (int64_t i = 0, r = 0, next; i < stacks; i++, r = next) {
        next = first_row(end - first, stacks, i + 1);
        FN(gemm_tile)((int)(next - r), (int)(MIN(GEMM_STRIP, x->wide_c - j) / VL), next_t - t,
                      x->h + plane * x->plane_m + t * x->pitch_m + first + r, 1, x->pitch_m,
                      x->v + plane * x->plane_c + t * x->pitch_c + j, x->pitch_c, sums + r * x->pitch_c + j,
                      x->pitch_c, VL, x->block % x->group > 0 || k > 0, 0);
      }
    }
}

/* Pieces are groups of blocks: a thread has the planes of its block in its own cache. (Planes of one block as pieces,
 * whose operands another core has just written, took 3 times as long on two cores as all of it on one.) */
static void weight_groups(void *context, int64_t begin, int64_t end) {
  job x = *(const job *)context;
  x.v = mg_scratch(1, (size_t)(PLANES * x.plane_c) * sizeof(T));
  x.h = mg_scratch(2, (size_t)(PLANES * x.plane_m) * sizeof(T));
  if (!x.v || !x.h) return;
  const int64_t set = PLANES * x.s.m * x.pitch_c;
  for (int64_t i = begin; i < end; i++)
    for (x.block = (x.first + i) * x.group; x.block < MIN((x.first + i + 1) * x.group, x.blocks); x.block++) {
      const int64_t tiles = tiles_of(&x, x.block);
      weight_transforms(&x, 0, 2);
      for (int64_t p = 0; p < PLANES; p++)
        weight_product(&x, p, tiles, 0, x.s.m, x.sums + i * set + p * x.s.m * x.pitch_c);
    }
}

/* total (+)= the sums of each group at work, in their order, for rows of [plane][m] */
static void weight_totals(void *context, int64_t begin, int64_t end) {
  const job *x = context;
  const int64_t set = PLANES * x->s.m * x->pitch_c;
  for (int64_t j = begin * x->pitch_c; j < end * x->pitch_c; j += VL) {
    V v = vload(x->first ? x->total + j : x->sums + j);
    for (int64_t i = x->first ? 0 : 1; i < x->end - x->first; i++) v += vload(x->sums + i * set + j);
    vstore(x->total + j, v);
  }
}

/* gw = G^T sums G, for one of m; sums at `from`, planes `plane` apart */
static V weight_result(const job *x, const T *from, int64_t plane, T *gw) {
  V wrong = vzero();
  for (int64_t j = 0; j < x->s.c; j += VL, from += VL) {
    T taps[(9 + VL) * VL], *to = gw + j * 9;
    V rows[4][3], t[VBYTES / sizeof(T)];
    UNROLL
    for (int r = 0; r < 4; r++)
      narrow(rows[r], vload(from + 4 * r * plane), vload(from + (4 * r + 1) * plane),
             vload(from + (4 * r + 2) * plane), vload(from + (4 * r + 3) * plane));
    UNROLL
    for (int q = 0; q < 3; q++) {
      narrow(t, rows[0][q], rows[1][q], rows[2][q], rows[3][q]);
      UNROLL
      for (int r = 0; r < 3; r++) {
        wrong = vfma(t[r], vzero(), wrong);
        vstore(taps + (3 * r + q) * VL, t[r]);
      }
    }
    for (int k = 0; k < 9; k += VL) {
      vload_columns(t, taps + k * VL, VL);
      int n = MIN(9 - k, VL);
      for (int l = 0; l < MIN(VL, x->s.c - j); l++) {
        vstore_n(to + l * 9 + k, t[l], n);
      }
    }
  }
  return wrong;
}

static void weight_results(void *context, int64_t begin, int64_t end) {
  job *x = context;
  V wrong = vzero();
  for (int64_t m = begin; m < end; m++)
    wrong += weight_result(x, x->total + m * x->pitch_c, x->s.m * x->pitch_c, x->dst + m * x->s.c * 9);
  if (vsum(wrong) != 0) atomic_store(x->wrong, 1);
}

/* One block: pieces are rows of m from the product to the result. */
static void weight_stacks(void *context, int64_t begin, int64_t end) {
  job *x = context;
  int64_t tiles = tiles_of(x, 0), plane = GEMM_ROWS * x->pitch_c + VL, stacks = up(x->s.m, GEMM_ROWS);
  T *sums = mg_scratch(6, (size_t)(PLANES * plane) * sizeof(T));
  V wrong = vzero();
  for (int64_t i = begin; sums && i < end; i++) {
    int64_t first = first_row(x->s.m, stacks, i), next = first_row(x->s.m, stacks, i + 1);
    for (int64_t p = 0; p < PLANES; p++) weight_product(x, p, tiles, first, next, sums + p * plane);
    for (int64_t m = first; m < next; m++)
      wrong += weight_result(x, sums + (m - first) * x->pitch_c, plane, x->dst + m * x->s.c * 9);
  }
  if (vsum(wrong) != 0) atomic_store(x->wrong, 1);
}

int FN(winograd_weight)(T *gw, const T *src, const T *g, const winograd *s) {
  atomic_int wrong = 0;
  job x = {.s = *s, .src = src, .grad = g, .dst = gw, .wrong = &wrong};
  cut(&x);
  const double work = multiplications(&x);
  const int alone = work / (double)x.blocks < MULS_PER_THREAD;
  if (x.blocks == 1) {
    int64_t stacks = up(s->m, GEMM_ROWS);
    x.group = 1;
    x.v = mg_scratch(1, (size_t)(PLANES * x.plane_c) * sizeof(T));
    x.h = mg_scratch(2, (size_t)(PLANES * x.plane_m) * sizeof(T));
    if (!x.v || !x.h) return 1;
    mg_parallel(2, alone ? 2 : 1, weight_transforms, &x);
    mg_parallel(stacks, alone ? stacks : 1, weight_stacks, &x);
  } else {
    x.group = MIN(MAX(up(x.blocks, 16), up(GROUP_TILES, x.rows * x.columns)), GROUP_BLOCKS);
    const int64_t groups = up(x.blocks, x.group), set = PLANES * s->m * x.pitch_c;
    const int64_t threads = alone ? 1 : mg_get_num_threads();
    x.at_once = threads == 1 ? 1 : MIN(MAX(threads, AT_ONCE / set), groups);
    x.total = mg_scratch(6, (size_t)((x.at_once + 1) * set) * sizeof(T));
    if (!x.total) return 1;
    x.sums = x.total + set;
    for (; x.first < groups; x.first = x.end) {
      x.end = MIN(x.first + x.at_once, groups);
      mg_parallel(x.end - x.first, 1, weight_groups, &x);
      mg_parallel(PLANES * s->m, MAX(32768 / x.pitch_c, 1), weight_totals, &x);
    }
    mg_parallel(s->m, 8, weight_results, &x);
  }
  return !atomic_load(&wrong);
}

/* Measured with AVX2 and AVX-512: it takes 0.4 to 0.9 of the direct kernel's time as long as at least half of what is
 * multiplied is wanted, of the channels in whole vectors and of the results in whole tiles. In tiny images the borders
 * of the filters meet only zeros. */
int FN(winograd_pays)(const winograd *s) {
  int64_t whole = up(s->c, VL) * VL * up(s->m, VL) * VL, tiles = up(s->dst[0], 2) * up(s->dst[1], 2);
  const int large = MIN(MIN(s->src[0], s->src[1]), MIN(s->dst[0], s->dst[1])) >= 4;
  return large && s->c >= 16 && s->m >= 16 && whole <= 2 * s->c * s->m && 4 * tiles <= 2 * s->dst[0] * s->dst[1];
}

#endif
