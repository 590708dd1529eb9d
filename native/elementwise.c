/* types: f32 f64 i32 i64 u8 u16 */
/* Elementwise arithmetic: out[i] = f(a[i], b[i], ...) over operands of any layout.
 *
 * The plain loop of every kernel here is
 *
 *     for (int64_t i = 0; i < n; i++) out[i] = f(a[i], b[i]);
 *
 * and the fast one is the same loop on vectors of VL elements. Its tail uses masked loads and the same operations, so
 * that the bits of a value do not depend on its position. walk.h brings strided and broadcast operands into this
 * contiguous form and splits large ones over threads. A kernel here is only its f: written once for f32 and f64 (on
 * vectors) and once for the integers (on elements, because the compiler vectorises these loops itself).
 *
 * Integer arithmetic wraps around (it is done unsigned), and division by 0 gives 0 instead of a trap. */
#define _GNU_SOURCE                        /* lgamma_r */
#include "simd.h"
#include "walk.h"

#define IS_NUMBER (TYPE_IS <= 4)
#define IS_ANY (TYPE_IS <= 5)
#define IS_MOVE (TYPE_IS >= 3)

#if IS_REAL
#elif TYPE_IS == 3
typedef uint32_t U;                        /* the unsigned integer as wide as T */
#elif TYPE_IS == 4
typedef uint64_t U;
#else
typedef T U;
#endif

/* ---- the loops ---- */

/* E: what f works on, a vector of reals or one integer. */
#if IS_REAL
typedef V E;
#define UNARY_LOOP(f) \
  int64_t i = 0; \
  for (; i + VL <= n; i += VL) vstore(out + i, f(vload(a + i))); \
  if (i < n) vstore_n(out + i, f(vload_n(a + i, (int)(n - i))), (int)(n - i));
#define BINARY_LOOP(f) \
  int64_t i = 0; \
  for (; i + VL <= n; i += VL) vstore(out + i, f(vload(a + i), vload(b + i))); \
  if (i < n) vstore_n(out + i, f(vload_n(a + i, (int)(n - i)), vload_n(b + i, (int)(n - i))), (int)(n - i));
#else
typedef T E;
#define UNARY_LOOP(f) INDEPENDENT for (int64_t i = 0; i < n; i++) out[i] = f(a[i]);
#define BINARY_LOOP(f) INDEPENDENT for (int64_t i = 0; i < n; i++) out[i] = f(a[i], b[i]);
#endif

/* The kernels of minigrad.h, made from f. `To` is the element type of the output. */
#define DEFINE_UNARY(name, f, To, LOOP, piece) \
  static void span_##name(void *out_, const void *const *in, int64_t n, const double *scalars) { \
    To *out = out_; \
    const T *a = in[0]; \
    (void)scalars; \
    LOOP(f) \
  } \
  void FN(name)(To *out, const T *a, const int64_t *plan) { \
    walk(&(Walk){plan, span_##name, 0, 2, {sizeof(To), sizeof(T)}, {(char *)out, (char *)a}}, piece); \
  }
#define DEFINE_BINARY(name, f, To, LOOP, piece) \
  static void span_##name(void *out_, const void *const *in, int64_t n, const double *scalars) { \
    To *out = out_; \
    const T *a = in[0], *b = in[1]; \
    (void)scalars; \
    LOOP(f) \
  } \
  void FN(name)(To *out, const T *a, const T *b, const int64_t *plan) { \
    walk(&(Walk){plan, span_##name, 0, 3, {sizeof(To), sizeof(T), sizeof(T)}, {(char *)out, (char *)a, (char *)b}}, \
         piece); \
  }
#define EACH_UNARY(name, f) DEFINE_UNARY(name, f, T, UNARY_LOOP, WALK_LIGHT)
#define EACH_BINARY(name, f) DEFINE_BINARY(name, f, T, BINARY_LOOP, WALK_LIGHT)
#define HEAVY_UNARY(name, f) DEFINE_UNARY(name, f, T, UNARY_LOOP, WALK_HEAVY)
#define HEAVY_BINARY(name, f) DEFINE_BINARY(name, f, T, BINARY_LOOP, WALK_HEAVY)

/* Element by element, left to the compiler's vectoriser: results of another type, and the bools. */
#define UNARY_ITEMS(f) INDEPENDENT for (int64_t i = 0; i < n; i++) out[i] = f(a[i]);
#define BINARY_ITEMS(f) INDEPENDENT for (int64_t i = 0; i < n; i++) out[i] = f(a[i], b[i]);

/* ---- moving: copy, where ---- */
#if IS_MOVE

/* Transposition, for an input whose inner stride is not 1 but which is contiguous along another dimension k. The
 * plain loop is
 *
 *     for (i ...) for (j ...) out[i * out_stride + j] = a[i + j * in_stride];
 *
 * It reads one element of each cache line. The fast one transposes the planes (k, inner) tile by tile (walk.h), a band
 * of BAND rows of k at a time. */
#define BAND 16
typedef struct { T *out; const T *a; const int64_t *plan; int k; int64_t bands; } Transposition;

static void transpose_bands(void *context, int64_t begin, int64_t end) {
  const Transposition *t = context;
  const int ndim = (int)t->plan[0], last = ndim - 1;
  const int64_t *shape = t->plan + 2, *to = shape + ndim, *from = to + ndim;
  for (int64_t band = begin; band < end; band++) {
    int64_t plane = band / t->bands, first = band % t->bands * BAND;
    int64_t out_at = first * to[t->k], a_at = first;
    for (int d = last - 1; d >= 0; d--) {
      if (d == t->k) continue;
      out_at += plane % shape[d] * to[d];
      a_at += plane % shape[d] * from[d];
      plane /= shape[d];
    }
    const T *next = t->a + a_at + BAND;                  /* lines of many rows, too many for the hardware to ask ahead */
    for (int64_t j = 0; first + BAND < shape[t->k] && j < shape[last]; j++) __builtin_prefetch(next + j * from[last]);
    walk_turn(t->out + out_at, to[t->k], t->a + a_at, from[last],
              shape[t->k] - first < BAND ? shape[t->k] - first : BAND, shape[last], sizeof(T));
  }
}

void FN(copy)(T *out, const T *a, const int64_t *plan) {
  const int ndim = (int)plan[0], last = ndim - 1;
  const int64_t size = plan[1], *shape = plan + 2, *to = shape + ndim, *from = to + ndim;
  if (size >= BAND * BAND && ndim >= 2 && to[last] == 1 && from[last] != 1 && from[last] != 0)
    for (int k = 0; k < last; k++)
      if (from[k] == 1 && shape[k] >= BAND / 2 && shape[last] >= BAND / 2) {
        const int64_t bands = (shape[k] + BAND - 1) / BAND, count = size / (shape[k] * shape[last]) * bands;
        Transposition t = {out, a, plan, k, bands};
        if (size <= 4 * WALK_LIGHT) transpose_bands(&t, 0, count);
        else mg_parallel(count, 1 + WALK_LIGHT / (shape[last] * BAND), transpose_bands, &t);
        return;
      }
  walk(&(Walk){plan, 0, 0, 2, {sizeof(T), sizeof(T)}, {(char *)out, (char *)a}}, WALK_LIGHT);
}

static void span_where(void *out_, const void *const *in, int64_t n, const double *scalars) {
  T *out = out_;
  const uint8_t *condition = in[0];
  const T *a = in[1], *b = in[2];
  (void)scalars;
  INDEPENDENT for (int64_t i = 0; i < n; i++) {
    const U mask = (U)-(U)(condition[i] != 0);               /* both sides are read, so there is no branch */
    out[i] = (T)(((U)a[i] & mask) | ((U)b[i] & ~mask));
  }
}
void FN(where)(T *out, const uint8_t *condition, const T *a, const T *b, const int64_t *plan) {
  walk(&(Walk){plan, span_where, 0, 4, {sizeof(T), 1, sizeof(T), sizeof(T)},
               {(char *)out, (char *)condition, (char *)a, (char *)b}}, WALK_LIGHT);
}
#endif

/* ---- casts ---- */
#if IS_ANY
#define AS_FLOAT(x) (float)(x)
#define AS_DOUBLE(x) (double)(x)
#define AS_BOOL(x) ((x) != 0)               /* NaN is true */
#if IS_REAL
/* Numbers out of range and NaN give the smallest integer, as the x86 instruction does. Both bounds are exact in T. */
static inline int32_t as_i32(T x) { return x >= F(-2147483648.0) && x < F(2147483648.0) ? (int32_t)x : INT32_MIN; }
static inline int64_t as_i64(T x) {
  return x >= F(-9223372036854775808.0) && x < F(9223372036854775808.0) ? (int64_t)x : INT64_MIN;
}
#else
#define as_i32(x) (int32_t)(x)              /* wraps */
#define as_i64(x) (int64_t)(x)
#endif
DEFINE_UNARY(cast_f32, AS_FLOAT, float, UNARY_ITEMS, WALK_LIGHT)
DEFINE_UNARY(cast_f64, AS_DOUBLE, double, UNARY_ITEMS, WALK_LIGHT)
DEFINE_UNARY(cast_i32, as_i32, int32_t, UNARY_ITEMS, WALK_LIGHT)
DEFINE_UNARY(cast_i64, as_i64, int64_t, UNARY_ITEMS, WALK_LIGHT)
DEFINE_UNARY(cast_u8, AS_BOOL, uint8_t, UNARY_ITEMS, WALK_LIGHT)

/* ---- comparisons ---- */
#define EQ(x, y) ((x) == (y))
#define NE(x, y) ((x) != (y))
#define LT(x, y) ((x) < (y))
#define LE(x, y) ((x) <= (y))
#define GT(x, y) ((x) > (y))
#define GE(x, y) ((x) >= (y))
DEFINE_BINARY(eq, EQ, uint8_t, BINARY_ITEMS, WALK_LIGHT)
DEFINE_BINARY(ne, NE, uint8_t, BINARY_ITEMS, WALK_LIGHT)
DEFINE_BINARY(lt, LT, uint8_t, BINARY_ITEMS, WALK_LIGHT)
DEFINE_BINARY(le, LE, uint8_t, BINARY_ITEMS, WALK_LIGHT)
DEFINE_BINARY(gt, GT, uint8_t, BINARY_ITEMS, WALK_LIGHT)
DEFINE_BINARY(ge, GE, uint8_t, BINARY_ITEMS, WALK_LIGHT)
#endif

/* ---- bools ---- */
#if TYPE_IS == 5
#define AND(x, y) (((x) != 0) & ((y) != 0))
#define OR(x, y) (((x) != 0) | ((y) != 0))
#define XOR(x, y) (((x) != 0) ^ ((y) != 0))
#define NOT(x) ((x) == 0)
EACH_BINARY(logical_and, AND)
EACH_BINARY(logical_or, OR)
EACH_BINARY(logical_xor, XOR)
EACH_UNARY(logical_not, NOT)
#endif

/* ---- numbers ---- */
#if IS_NUMBER
#if IS_REAL
#define WRAP(x) (x)
static inline E abs_(E x) { return vabs(x); }
static inline E sign_(E x) { return vselect(x > 0, vset(1), vselect(x < 0, vset(-1), vzero())); }
static inline E maximum_(E x, E y) { return vmax(x, y); }
static inline E minimum_(E x, E y) { return vmin(x, y); }

/* Python's rules: the remainder takes the sign of y, and x == floor_divide * y + remainder. Both start from C's exact
 * fmod; (x - r) / y is then near an integer, and rounding to it removes the error of the division. */
static inline T fmod_1(T x, T y) { return MATH(fmod)(x, y); }
static inline T remainder_1(T x, T y) {
  T r = MATH(fmod)(x, y);
  return r != 0 && (y < 0) != (r < 0) ? r + y : r;
}
static inline T floor_divide_1(T x, T y) {
  if (y == 0) return x / y;
  T r = MATH(fmod)(x, y), q = (x - r) / y;
  if (r != 0 && (y < 0) != (r < 0)) q -= 1;
  if (q == 0) return MATH(copysign)(0, x / y);
  T whole = MATH(floor)(q);
  return q - whole > F(0.5) ? whole + 1 : whole;
}
/* f lane by lane */
#define LANES(name, f) \
  static inline V name(V x) { \
    for (int i = 0; i < VL; i++) x[i] = f(x[i]); \
    return x; \
  }
#define LANES2(name, f) \
  static inline V name(V x, V y) { \
    V r; \
    for (int i = 0; i < VL; i++) r[i] = f(x[i], y[i]); \
    return r; \
  }
LANES2(fmod_, fmod_1)
LANES2(remainder_, remainder_1)
LANES2(floor_divide_, floor_divide_1)
#else
#define WRAP(x) ((U)(x))
static inline E abs_(E x) { return x < 0 ? (E)(0 - (U)x) : x; }
static inline E sign_(E x) { return (E)((x > 0) - (x < 0)); }
static inline E maximum_(E x, E y) { return x > y ? x : y; }
static inline E minimum_(E x, E y) { return x < y ? x : y; }
static inline E fmod_(E x, E y) { return y == 0 || y == -1 ? 0 : x % y; }             /* MIN % -1 traps on x86 */
static inline E remainder_(E x, E y) { E r = fmod_(x, y); return r != 0 && (r < 0) != (y < 0) ? r + y : r; }
static inline E floor_divide_(E x, E y) {
  if (y == 0) return 0;
  if (y == -1) return (E)(0 - (U)x);
  return x / y - (x % y != 0 && (x < 0) != (y < 0));
}
#endif
static inline E neg_(E x) { return (E)-WRAP(x); }
static inline E square_(E x) { return (E)(WRAP(x) * WRAP(x)); }
static inline E add_(E x, E y) { return (E)(WRAP(x) + WRAP(y)); }
static inline E sub_(E x, E y) { return (E)(WRAP(x) - WRAP(y)); }
static inline E mul_(E x, E y) { return (E)(WRAP(x) * WRAP(y)); }
EACH_UNARY(neg, neg_)
EACH_UNARY(abs, abs_)
EACH_UNARY(sign, sign_)
EACH_UNARY(square, square_)
EACH_BINARY(add, add_)
EACH_BINARY(sub, sub_)
EACH_BINARY(mul, mul_)
EACH_BINARY(maximum, maximum_)
EACH_BINARY(minimum, minimum_)
HEAVY_BINARY(floor_divide, floor_divide_)
HEAVY_BINARY(remainder, remainder_)
HEAVY_BINARY(fmod, fmod_)
#endif

/* ---- reals ---- */
#if IS_REAL
static inline V div_(V x, V y) { return x / y; }
static inline V reciprocal_(V x) { return 1 / x; }
static inline V rsqrt_(V x) { return 1 / vsqrt(x); }
EACH_BINARY(div, div_)
EACH_UNARY(reciprocal, reciprocal_)
EACH_UNARY(sqrt, vsqrt)
EACH_UNARY(rsqrt, rsqrt_)
EACH_UNARY(floor, vfloor)
EACH_UNARY(ceil, vceil)
EACH_UNARY(round, vround)
EACH_UNARY(trunc, vtrunc)

#define IS_NAN(x) ((x) != (x))
#define IS_INF(x) (MATH(fabs)(x) == INFINITY)
#define IS_FINITE(x) (MATH(fabs)(x) < INFINITY)
DEFINE_UNARY(isnan, IS_NAN, uint8_t, UNARY_ITEMS, WALK_LIGHT)
DEFINE_UNARY(isinf, IS_INF, uint8_t, UNARY_ITEMS, WALK_LIGHT)
DEFINE_UNARY(isfinite, IS_FINITE, uint8_t, UNARY_ITEMS, WALK_LIGHT)

/* The functions of simd.h. */
HEAVY_UNARY(exp, vexp)
HEAVY_UNARY(exp2, vexp2)
HEAVY_UNARY(expm1, vexpm1)
HEAVY_UNARY(log, vlog)
HEAVY_UNARY(log2, vlog2)
HEAVY_UNARY(log1p, vlog1p)
HEAVY_UNARY(tanh, vtanh)
HEAVY_UNARY(sigmoid, vsigmoid)
HEAVY_UNARY(erf, verf)
HEAVY_UNARY(erfc, verfc)
HEAVY_UNARY(sin, vsin)
HEAVY_UNARY(cos, vcos)

/* The C library's, lane by lane. */
#define LIBRARY(name) LANES(name##_, MATH(name)) HEAVY_UNARY(name, name##_)
LIBRARY(log10)
LIBRARY(tan)
LIBRARY(asin)
LIBRARY(acos)
LIBRARY(atan)
LIBRARY(sinh)
LIBRARY(cosh)
LIBRARY(asinh)
LIBRARY(acosh)
LIBRARY(atanh)
LANES2(pow_, MATH(pow))
LANES2(atan2_, MATH(atan2))
HEAVY_BINARY(pow, pow_)
HEAVY_BINARY(atan2, atan2_)

/* log |gamma(x)|: the reentrant form, because lgamma() writes a global. */
static inline T lgamma_1(T x) {
  int sign;
  return TYPE_IS == 1 ? (T)lgammaf_r((float)x, &sign) : (T)lgamma_r((double)x, &sign);
}
LANES(lgamma_, lgamma_1)
HEAVY_UNARY(lgamma, lgamma_)

/* digamma(x) = d/dx log gamma(x), in double. Reflection psi(1 - x) - psi(x) = pi / tan(pi x) for x < 0; the recurrence
 * psi(x + 1) = psi(x) + 1/x lifts x above 10, where the asymptotic series log x - 1/2x - sum B_2k / (2k x^2k) has
 * its 8th term below 2^-53. */
static inline T digamma_1(T t) {
  double x = (double)t, sum = 0;
  if (x == 0) return (T)copysign(INFINITY, -x);
  if (x < 0) {
    if (x == floor(x)) return (T)NAN;                      /* the poles, and -inf */
    sum = -M_PI / tan(M_PI * (x - rint(x)));           /* not floor: a small x would be lost */
    x = 1 - x;
  }
  for (; x < 10; x += 1) sum -= 1 / x;
  static const double c[] = {1.0 / 12,  -1.0 / 120,     1.0 / 252, -1.0 / 240,
                             1.0 / 132, -691.0 / 32760, 1.0 / 12,  -3617.0 / 8160};
  double z = 1 / (x * x), series = 0;
  for (int k = 7; k >= 0; k--) series = (series + c[k]) * z;
  return (T)(sum + log(x) - 0.5 / x - series);
}
LANES(digamma_, digamma_1)
HEAVY_UNARY(digamma, digamma_)

/* y = erfinv(x), in double: Winitzki's closed form (2008) is right to 2e-3; each Halley step cubes the error, so two
 * reach double precision. Near |x| = 1 the equation solved is erfc(y) = 1 - |x|, whose right side is exact. */
static inline T erfinv_1(T t) {
  double x = fabs((double)t), a = 0.147, l = log1p(-x * x), b = 2 / (M_PI * a) + l / 2;
  if (!(x < 1)) return x == 1 ? (T)copysign(INFINITY, (double)t) : (T)NAN;
  double y = l == 0 ? x * 0.88622692545275801 : sqrt(-l / (a * (b + sqrt(b * b - l / a))));
  for (int k = 0; k < 2; k++) {
    double error = x < 0.5 ? erf(y) - x : (1 - x) - erfc(y);
    double step = error / (M_2_SQRTPI * exp(-y * y));
    y -= step / (1 + y * step);
  }
  return (T)copysign(y, (double)t);
}
LANES(erfinv_, erfinv_1)
HEAVY_UNARY(erfinv, erfinv_)
#endif
