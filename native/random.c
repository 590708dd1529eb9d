/* types: f32 f64 i64 u8 */
/* Random numbers from Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3, SC 2011).
 *
 * The generator is a function without state: block number c under key k is four 32-bit words,
 *
 *     repeat 10 times:  (c0, c1, c2, c3) = (hi(M1 c2) ^ c1 ^ k0, lo(M1 c2), hi(M0 c0) ^ c3 ^ k1, lo(M0 c0))
 *                       k += (W0, W1)
 *
 * so each element can be computed alone. state = {key, counter low, counter high, unused} is in memory. A launch reads
 * it and advances the counter by the number of blocks it used; therefore a replayed program draws new numbers. Word w
 * of a launch is word w % 4 of block number counter + w / 4. Element i uses
 *
 *     32-bit numbers (f32, masks)   word i                                     uniform: the top 24 bits
 *     64-bit numbers (f64, bits)    words 2i (low half) and 2i + 1             uniform: the top 53 bits
 *
 * whatever the number of threads, the vector width or the device. The floating-point work is made of +, -, *, /, sqrt
 * only, in one fixed order and without fused multiply-add (-ffp-contract=off), so it too gives the same bits
 * everywhere.
 *
 * The plain loop computes one block after the other. The fast one computes WL blocks at once: a vector of 64-bit lanes
 * holds one counter word of each, because the vector multiplication is 32 x 32 -> 64 bits in a 64-bit lane. It ignores
 * the upper halves of its operands, so they may hold anything. */
#include "philox.h"
#include "runtime.h"

#define ELEMENTS_PER_THREAD 16384 /* elements of a piece of work for a thread: a multiple of WORDS */

/* Runs fn over n elements in pieces; each piece begins at a multiple of WORDS. */
static void pieces(int64_t n, void (*fn)(void *, int64_t, int64_t), void *context) {
  if (n <= 2 * ELEMENTS_PER_THREAD) fn(context, 0, n);
  else mg_parallel(n, ELEMENTS_PER_THREAD, fn, context);
}

#if TYPE_IS == 5
/* ---- bernoulli_mask: out[i] = word i < p * 2^32 ---- */
typedef struct { uint8_t *out; Stream s; uint64_t limit; } Bernoulli;

static void bernoulli_piece(void *context, int64_t begin, int64_t end) {
  const Bernoulli *t = context;
  const uint32_t last = (uint32_t)(t->limit - 1), some = t->limit != 0;
  uint32_t word[WORDS];
  for (int64_t i = begin; i < end; i += WORDS) {
    const int64_t n = end - i < WORDS ? end - i : WORDS;
    uint8_t *out = t->out + i;
    philox(word, t->s, i, n);
    for (int64_t j = 0; j < n; j++) out[j] = (word[j] <= last) & some;
  }
}
void FN(bernoulli_mask)(uint8_t *out, int64_t *state, int64_t n, double p) {
  pieces(n, bernoulli_piece, &(Bernoulli){out, take(state, n), threshold(p)});
}
#endif

#if TYPE_IS == 4
/* ---- random_bits: 64 bits each ---- */
typedef struct { int64_t *out; Stream s; } Bits;

static void bits_piece(void *context, int64_t begin, int64_t end) {
  const Bits *t = context;
  uint32_t word[WORDS];
  for (int64_t i = begin; i < end; i += WORDS / 2) {
    const int64_t n = end - i < WORDS / 2 ? end - i : WORDS / 2;
    philox(word, t->s, 2 * i, 2 * n);
    memcpy(t->out + i, word, (size_t)n * 8);
  }
}
void FN(random_bits)(int64_t *out, int64_t *state, int64_t n) {
  pieces(n, bits_piece, &(Bits){out, take(state, 2 * n)});
}
#endif

#if IS_REAL
#define PER (TYPE_IS)                      /* words an element uses: 1 for f32, 2 for f64 */
#define BATCH (WORDS / PER)
#if TYPE_IS == 1
typedef uint32_t Bits;                     /* the random bits of an element */
#define UNIFORM(bits) ((T)(int32_t)((bits) >> 8) * 0x1p-24f)                      /* [0, 1) */
#define POSITIVE(bits) ((T)(int32_t)((bits) >> 1) * 0x1p-31f + 0x1p-32f)          /* (0, 1] */
#define TURN(bits) ((T)((int32_t)((bits) & 0x3FFFFFFFu) - 0x20000000) * (T)(M_PI / 2 * 0x1p-30))
#define QUADRANT(bits) ((bits) >> 30)
#else
typedef uint64_t Bits;
#define UNIFORM(bits) ((T)(int64_t)((bits) >> 11) * 0x1p-53)
#define POSITIVE(bits) ((T)(int64_t)((bits) >> 11) * 0x1p-53 + 0x1p-54)
#define TURN(bits) ((T)((int64_t)((bits) & 0x3FFFFFFFFFFFFFFFu) - 0x2000000000000000) * (M_PI / 2 * 0x1p-62))
#define QUADRANT(bits) ((uint32_t)((bits) >> 62))
#endif

typedef struct { T *out; const T *x; uint8_t *mask; Stream s; T a, b, top; uint64_t limit; } Job;

/* ---- uniform: low + u (high - low), and below high even where that rounds up ---- */
static void uniform_piece(void *context, int64_t begin, int64_t end) {
  const Job *t = context;
  Bits bits[BATCH];
  for (int64_t i = begin; i < end; i += BATCH) {
    const int64_t n = end - i < BATCH ? end - i : BATCH;
    T *out = t->out + i;
    philox((uint32_t *)bits, t->s, i * PER, n * PER);
    for (int64_t j = 0; j < n; j++) {
      const T v = t->a + UNIFORM(bits[j]) * t->b;
      out[j] = v < t->top ? v : t->top;
    }
  }
}
void FN(uniform)(T *out, int64_t *state, int64_t n, double low, double high) {
  const T a = (T)low, b = (T)high;
  pieces(n, uniform_piece,
         &(Job){.out = out,
                .s = take(state, n * PER),
                .a = a,
                .b = (T)(high - low),
                .top = b > a ? MATH(nextafter)(b, a) : a});
}

/* ---- normal: Box and Muller (1958) ----
 *
 * Elements 2k and 2k + 1 are one point of the plane: the bits of the first give the radius sqrt(-2 log u), those of the
 * second a uniform angle.
 *
 * log u = e log 2 + log m with m in [sqrt 1/2, sqrt 2), log m by the atanh series as in simd.h. The angle is a quadrant
 * and a rest of +- pi/4, where sine and cosine are short polynomials (weighted least squares on Chebyshev nodes,
 * refitted after each rounding of a coefficient; relative error below 2^-28 in f32, 2^-58 in f64). */
#if TYPE_IS == 1
#define SINE(x, z) ((x) + (x) * (z) * (-0.166666552f + (z) * (0.00833219104f + (z) * -0.000195185989f)))
#define COSINE(z) (1 - 0.5f * (z) + (z) * (z) * (0.0416666456f + (z) * (-0.0013887313f + (z) * 2.44329585e-05f)))
#define LOG_SERIES(z) ((z) * (0.666667759f + (z) * (0.399775743f + (z) * 0.298712373f)))
#define MANTISSA 23
#define ROOT_HALF 0x3F3504F3
#else
#define SINE(x, z) \
  ((x) + \
   (x) * (z) * \
       (-0.16666666666666632 + \
        (z) * (0.008333333333322476 + (z) * (-0.00019841269829839233 + \
                                             (z) * (2.7557313698627415e-06 + \
                                                    (z) * (-2.505075868782087e-08 + (z) * 1.5896807413019552e-10))))))
#define COSINE(z) \
  (1 - 0.5 * (z) + \
   (z) * (z) * \
       (0.0416666666666666 + (z) * (-0.001388888888887446 + \
                                    (z) * (2.4801587289656914e-05 + \
                                           (z) * (-2.755731439524641e-07 + \
                                                  (z) * (2.087572831369024e-09 + (z) * -1.1359875939293001e-11))))))
#define LOG_SERIES(z) \
  ((z) * \
   (0.6666666666666735 + \
    (z) * (0.39999999999409863 + \
           (z) * (0.2857142874347979 + \
                  (z) * (0.22222198458066783 + \
                         (z) * (0.18183570497487536 + (z) * (0.15313887332380782 + (z) * 0.14797639298807755)))))))
#define MANTISSA 52
#define ROOT_HALF 0x3FE6A09E667F3BCD
#endif

/* sqrt(-2 log u), 0 < u <= 1, u normal */
static inline T radius(T u) {
  TI i, e;
  T m;
  memcpy(&i, &u, sizeof i);
  e = (i - ROOT_HALF) >> MANTISSA;
  i -= e * ((TI)1 << MANTISSA);           /* e may be negative */
  memcpy(&m, &i, sizeof m);
  const T f = m - 1, s = f / (2 + f), h = F(0.5) * f * f, r = LOG_SERIES(s * s);
  const T l = (T)e * (T)M_LN2 + (f - (h - s * (h + r)));
  return MATH(sqrt)(l < 0 ? -2 * l : 0);
}

static void normal_piece(void *context, int64_t begin, int64_t end) {
  const Job *t = context;
  Bits bits[BATCH];
  T value[BATCH];
  for (int64_t i = begin; i < end; i += BATCH) {
    const int64_t n = end - i < BATCH ? end - i : BATCH;
    philox((uint32_t *)bits, t->s, i * PER, (n + 1) / 2 * 2 * PER);
    for (int64_t j = 0; j < (n + 1) / 2; j++) {
      const T r = radius(POSITIVE(bits[2 * j])), x = TURN(bits[2 * j + 1]), z = x * x, s = SINE(x, z), c = COSINE(z);
      const Bits q = QUADRANT(bits[2 * j + 1]);
      const T a = q & 1 ? s : c, b = q & 1 ? c : s;              /* quadrants: (c, s) (-s, c) (-c, -s) (s, -c) */
      value[2 * j] = t->a + t->b * (r * ((q + 1) & 2 ? -a : a));
      value[2 * j + 1] = t->a + t->b * (r * (q & 2 ? -b : b));
    }
    memcpy(t->out + i, value, (size_t)n * sizeof(T));
  }
}
void FN(normal)(T *out, int64_t *state, int64_t n, double mean, double std) {
  pieces(n, normal_piece, &(Job){.out = out, .s = take(state, (n + 1) / 2 * 2 * PER), .a = (T)mean, .b = (T)std});
}

/* ---- dropout: mask[i] = word i >= p * 2^32;  y = x * mask / (1 - p) ----
 *
 * y is a product, not a choice, so that inf and NaN in a dropped place give NaN, as in PyTorch. */
static void dropout_forward_piece(void *context, int64_t begin, int64_t end) {
  const Job *t = context;
  uint32_t word[WORDS];
  const uint32_t last = (uint32_t)(t->limit - 1), some = t->limit != 0;
  for (int64_t i = begin; i < end; i += WORDS) {
    const int64_t n = end - i < WORDS ? end - i : WORDS;
    const T *x = t->x + i, scale = t->a;
    T *y = t->out + i;
    uint8_t *mask = t->mask + i;
    philox(word, t->s, i, n);
    INDEPENDENT for (int64_t j = 0; j < n; j++) {
      const uint32_t drop = (word[j] <= last) & some;
      y[j] = x[j] * (drop ? 0 : scale);
      mask[j] = (uint8_t)!drop;
    }
  }
}
static T kept_scale(double p) { return p < 1 ? (T)(1 / (1 - p)) : 0; }
void FN(dropout_forward)(T *y, uint8_t *mask, const T *x, int64_t *state, int64_t n, double p) {
  pieces(n, dropout_forward_piece,
         &(Job){.out = y, .x = x, .mask = mask, .s = take(state, n), .a = kept_scale(p), .limit = threshold(p)});
}

static void dropout_backward_piece(void *context, int64_t begin, int64_t end) {
  const Job *t = context;
  const T *g = t->x, scale = t->a;
  T *gx = t->out;
  const uint8_t *mask = t->mask;
  INDEPENDENT for (int64_t i = begin; i < end; i++) gx[i] = g[i] * (mask[i] ? scale : 0);
}
void FN(dropout_backward)(T *gx, const T *gy, const uint8_t *mask, int64_t n, double p) {
  pieces(n, dropout_backward_piece, &(Job){.out = gx, .x = gy, .mask = (uint8_t *)mask, .a = kept_scale(p)});
}
#endif
