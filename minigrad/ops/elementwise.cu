// Elementwise primitives over operands of any layout. The plain loop of each is
//
//   for i:  out[i] = f(a[i], b[i], ...)
//
// "Elementwise kernels" in common.cuh describes the fast loop, which all of them share. LIGHT kernels cost less than
// the memory they read and write; a thread takes four elements. In HEAVY kernels it takes one. Division and roots are
// light in float; in double they are routines.
#define LIGHT 4
#define HEAVY 1
#define LIGHT_F32 (TYPE_IS == 1 ? LIGHT : HEAVY)
#define UNARY(weight, name, expression) \
  KERNEL(name)(STORED *out, const STORED *a, const int64_t *plan) { \
    map<weight>(plan, [](T x) -> T { return expression; }, out, a); \
  }
#define BINARY(weight, name, expression) \
  KERNEL(name)(STORED *out, const STORED *a, const PARAM *b, const int64_t *plan) { \
    map<weight>(plan, [](T x, T y) -> T { return expression; }, out, a, b); \
  }
#define COMPARE(name, expression) \
  KERNEL(name)(uint8_t *out, const STORED *a, const STORED *b, const int64_t *plan) { \
    map<LIGHT>(plan, [](T x, T y) -> uint8_t { return expression; }, out, a, b); \
  }
#define CLASSIFY(name, expression) \
  KERNEL(name)(uint8_t *out, const STORED *a, const int64_t *plan) { \
    map<LIGHT>(plan, [](T x) -> uint8_t { return expression; }, out, a); \
  }

#define IS_MOVE (TYPE_IS >= 3)             // u8 u16 i32 i64: moves go by item size
#define IS_ANY (TYPE_IS <= 5)
#define IS_NUMBER (TYPE_IS <= 4)

// ---- moves: any dtype of this item size ----
#if IS_MOVE
UNARY(LIGHT, copy, x)
KERNEL(where)(T *out, const uint8_t *condition, const T *a, const T *b, const int64_t *plan) {
  map<2>(plan, [](uint8_t c, T x, T y) -> T { return c ? x : y; }, out, condition, a, b);
}
#endif

// ---- casts ----
//
// Float to integer truncates. NaN and numbers out of range become the least value of the type, as on the CPU. (The
// GPU's own conversion gives the nearest value in range, and 0 for NaN.)
#if IS_ANY
#define CAST(suffix, type, expression) \
  KERNEL(cast_##suffix)(type * out, const STORED *a, const int64_t *plan) { \
    map<LIGHT>(plan, [](T x) -> type { return expression; }, out, a); \
  }
CAST(f32, float, (float)x)
CAST(f64, double, (double)x)
CAST(u8, uint8_t, x != 0)
CAST(f16, F16, odd(x))
CAST(bf16, BF16, (float)x)
#if IS_REAL
CAST(i32, int32_t, x >= T(-2147483648.0) && x < T(2147483648.0) ? (int32_t)x : (int32_t)0x80000000)
CAST(i64, int64_t,
     x >= T(-9223372036854775808.0) && x < T(9223372036854775808.0) ? (int64_t)x : (int64_t)0x8000000000000000)
#else
CAST(i32, int32_t, (int32_t)x)
CAST(i64, int64_t, (int64_t)x)
#endif

COMPARE(eq, x == y)
COMPARE(ne, x != y)
COMPARE(lt, x < y)
COMPARE(le, x <= y)
COMPARE(gt, x > y)
COMPARE(ge, x >= y)
#endif

// ---- arithmetic; integers wrap around, so they are computed as unsigned, where C++ defines that ----
#if IS_NUMBER
#if IS_REAL
#define WRAP(expression) (expression)
typedef T Wide;
#else
#define WRAP(expression) ((T)(expression))
typedef uint64_t Wide;
#endif
UNARY(LIGHT, neg, WRAP(-(Wide)x))
UNARY(LIGHT, sign, T((x > 0) - (x < 0)))                   // of NaN, 0
UNARY(LIGHT, square, WRAP((Wide)x * (Wide)x))
BINARY(LIGHT, add, WRAP((Wide)x + (Wide)y))
BINARY(LIGHT, sub, WRAP((Wide)x - (Wide)y))
BINARY(LIGHT, mul, WRAP((Wide)x * (Wide)y))
BINARY(LIGHT, maximum, x > y || x != x ? x : y)            // a NaN in either operand wins
BINARY(LIGHT, minimum, x < y || x != x ? x : y)
#endif

#if IS_REAL
// Python's rules: the remainder takes the sign of y, and x == floor_divide * y + remainder. Both start from the exact
// fmod. (x - r) / y is then near an integer, and rounding to it removes the error of the division.
__device__ __forceinline__ T floor_remainder(T x, T y) {
  const T r = fmod(x, y);
  return r != 0 && (y < 0) != (r < 0) ? r + y : r;
}
__device__ __forceinline__ T floor_quotient(T x, T y) {
  if (y == 0) return x / y;
  const T r = fmod(x, y);
  T q = (x - r) / y;
  if (r != 0 && (y < 0) != (r < 0)) q -= 1;
  if (q == 0) return copysign(T(0), x / y);
  const T whole = floor(q);
  return q - whole > T(0.5) ? whole + 1 : whole;
}
UNARY(LIGHT, abs, fabs(x))
BINARY(HEAVY, floor_divide, floor_quotient(x, y))
BINARY(HEAVY, remainder, floor_remainder(x, y))
BINARY(LIGHT_F32, div, x / y)
BINARY(HEAVY, fmod, fmod(x, y))
BINARY(HEAVY, pow, pow(x, y))
BINARY(HEAVY, atan2, atan2(x, y))
#elif IS_NUMBER
// Division by 0 gives 0, and by -1 wraps around, as on the CPU.
__device__ __forceinline__ T rest(T x, T y) { return y == 0 || y == -1 ? 0 : x % y; }
__device__ __forceinline__ T floor_remainder(T x, T y) {
  const T r = rest(x, y);
  return r != 0 && (r < 0) != (y < 0) ? r + y : r;
}
__device__ __forceinline__ T floor_quotient(T x, T y) {
  if (y == 0) return 0;
  if (y == -1) return WRAP(-(Wide)x);
  return x / y - (x % y != 0 && (x < 0) != (y < 0));
}
UNARY(LIGHT, abs, WRAP(x < 0 ? -(Wide)x : (Wide)x))
BINARY(HEAVY, floor_divide, floor_quotient(x, y))
BINARY(HEAVY, remainder, floor_remainder(x, y))
BINARY(HEAVY, fmod, rest(x, y))
#endif

#if IS_REAL
UNARY(HEAVY, exp, exp(x))
UNARY(HEAVY, exp2, exp2(x))
UNARY(HEAVY, expm1, expm1(x))
UNARY(HEAVY, log, log(x))
UNARY(HEAVY, log2, log2(x))
UNARY(HEAVY, log10, log10(x))
UNARY(HEAVY, log1p, log1p(x))
UNARY(LIGHT_F32, sqrt, sqrt(x))
UNARY(LIGHT_F32, rsqrt, 1 / sqrt(x))
UNARY(LIGHT_F32, reciprocal, 1 / x)
UNARY(HEAVY, sin, sin(x))
UNARY(HEAVY, cos, cos(x))
UNARY(HEAVY, tan, tan(x))
UNARY(HEAVY, asin, asin(x))
UNARY(HEAVY, acos, acos(x))
UNARY(HEAVY, atan, atan(x))
UNARY(HEAVY, sinh, sinh(x))
UNARY(HEAVY, cosh, cosh(x))
UNARY(HEAVY, tanh, tanh(x))
UNARY(HEAVY, asinh, asinh(x))
UNARY(HEAVY, acosh, acosh(x))
UNARY(HEAVY, atanh, atanh(x))
UNARY(HEAVY, sigmoid, sigmoid(x))
UNARY(HEAVY, erf, erf(x))
UNARY(HEAVY, erfc, erfc(x))
UNARY(HEAVY, erfinv, erfinv(x))
UNARY(HEAVY, lgamma, lgamma(x))
// digamma = d/dx log gamma, in double, as in native/elementwise.c: reflection for x < 0, recurrence up to 10, then the
// asymptotic series log x - 1/2x - sum B_2k / (2k x^2k), whose 8th term is below 2^-53 there.
__device__ __forceinline__ T digamma_of(T t) {
  double x = t, sum = 0;
  if (x == 0) return (T)copysign((double)INFINITY, -x);
  if (x < 0) {
    if (x == floor(x)) return (T)NAN;                      // the poles, and -inf
    sum = -3.141592653589793 / (sinpi(x - rint(x)) / cospi(x - rint(x)));     // not floor: a small x would be lost
    x = 1 - x;
  }
#pragma unroll 1
  for (; x < 10; x += 1) sum -= 1 / x;
  const double z = 1 / (x * x);
  double series = -3617.0 / 8160 * z;
  series = (series + 1.0 / 12) * z;
  series = (series - 691.0 / 32760) * z;
  series = (series + 1.0 / 132) * z;
  series = (series - 1.0 / 240) * z;
  series = (series + 1.0 / 252) * z;
  series = (series - 1.0 / 120) * z;
  series = (series + 1.0 / 12) * z;
  return (T)(sum + log(x) - 0.5 / x - series);
}
UNARY(HEAVY, digamma, digamma_of(x))
UNARY(LIGHT, floor, floor(x))
UNARY(LIGHT, ceil, ceil(x))
UNARY(LIGHT, round, rint(x))                               // half to even
UNARY(LIGHT, trunc, trunc(x))
CLASSIFY(isnan, x != x)
CLASSIFY(isinf, fabs(x) == T(INFINITY))
CLASSIFY(isfinite, fabs(x) < T(INFINITY))
#endif

#if TYPE_IS == 5                           // bool
BINARY(LIGHT, logical_and, x && y)
BINARY(LIGHT, logical_or, x || y)
BINARY(LIGHT, logical_xor, !x != !y)
UNARY(LIGHT, logical_not, !x)
#endif
