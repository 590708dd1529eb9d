// Activation functions, forward and backward. The plain loops are
//
//   for i:  out[i] = f(x[i])              for i:  gx[i] = g[i] * f'(x[i])
//
// and `map` of common.cuh is the fast one, for operands of any layout. The formulas are those of native/activation.c,
// in forms that neither overflow nor cancel. Comparisons are written so that a NaN takes the branch that it takes in
// PyTorch. LIGHT and HEAVY mean the same as in elementwise.cu.
#if IS_REAL
#define LIGHT 4
#define HEAVY 1
#define FORWARD(weight, name, expression) \
  KERNEL(name)(STORED *out, const STORED *a, const int64_t *plan) { \
    map<weight>(plan, [](T x) -> T { return expression; }, out, a); \
  }
#define BACKWARD(weight, name, expression) \
  KERNEL(name)(STORED *gx, const STORED *g, const STORED *x, const int64_t *plan) { \
    map<weight>(plan, [](T g, T x) -> T { return expression; }, gx, g, x); \
  }
// with one or two scalars: p is the first and q the second, as T
#define FORWARD_1(weight, name, s, expression) \
  KERNEL(name)(STORED *out, const STORED *a, const int64_t *plan, double s) { \
    const T p = (T)s; \
    map<weight>(plan, [=](T x) -> T { return expression; }, out, a); \
  }
#define BACKWARD_1(weight, name, s, expression) \
  KERNEL(name)(STORED *gx, const STORED *g, const STORED *x, const int64_t *plan, double s) { \
    const T p = (T)s; \
    map<weight>(plan, [=](T g, T x) -> T { return expression; }, gx, g, x); \
  }
#define FORWARD_2(weight, name, s, t, expression) \
  KERNEL(name)(STORED *out, const STORED *a, const int64_t *plan, double s, double t) { \
    const T p = (T)s, q = (T)t; \
    map<weight>(plan, [=](T x) -> T { return expression; }, out, a); \
  }
#define BACKWARD_2(weight, name, s, t, expression) \
  KERNEL(name)(STORED *gx, const STORED *g, const STORED *x, const int64_t *plan, double s, double t) { \
    const T p = (T)s, q = (T)t; \
    map<weight>(plan, [=](T g, T x) -> T { return expression; }, gx, g, x); \
  }

// ---- piecewise linear ----
__device__ __forceinline__ T clamp(T x, T low, T high) {
  x = x < low ? low : x;
  return x > high ? high : x;              // low > high: high
}
FORWARD(LIGHT, relu, x < 0 ? T(0) : x)
BACKWARD(LIGHT, relu_backward, x <= 0 ? T(0) : g)
FORWARD_1(LIGHT, leaky_relu, slope, x > 0 ? x : x * p)
BACKWARD_1(LIGHT, leaky_relu_backward, slope, x > 0 ? g : g * p)
FORWARD_2(LIGHT, hardtanh, low, high, clamp(x, p, q))
BACKWARD_2(LIGHT, hardtanh_backward, low, high, x > p && x < q ? g : T(0))
FORWARD(LIGHT, relu6, clamp(x, 0, 6))
BACKWARD(LIGHT, relu6_backward, x > 0 && x < 6 ? g : T(0))
FORWARD(HEAVY, hardsigmoid, clamp(x + 3, 0, 6) / 6)
BACKWARD(HEAVY, hardsigmoid_backward, x > -3 && x < 3 ? g / 6 : T(0))
FORWARD(HEAVY, hardswish, x <= -3 ? T(0) : x * clamp(x + 3, 0, 6) / 6)
BACKWARD(HEAVY, hardswish_backward, x <= -3 ? T(0) : x >= 3 ? g : g * (x / 3 + T(0.5)))

// ---- rational, and from the output (x is y here) ----
__device__ __forceinline__ T square_of(T x) { return x * x; }
FORWARD(HEAVY, softsign, fabs(x) == T(INFINITY) ? copysign(T(1), x) : x / (1 + fabs(x)))
BACKWARD(HEAVY, softsign_backward, g / square_of(1 + fabs(x)))
// from the output y; where |y| is nearly 1, the difference has lost its digits, and x is used instead, as it always is
// where y was rounded to half precision. Without tails x is not there: it was changed since.
#define EDGE (!tails ? T(INFINITY) : sizeof(STORED) == 2 ? T(-2) : T(0.999))
__device__ __forceinline__ T sigmoid_slope(T x) {
  const T e = exp(-fabs(x)), q = 1 / (1 + e);
  return e * q * q;
}
KERNEL(tanh_backward)(STORED *gx, const STORED *g, const STORED *y, const STORED *x, const int64_t *plan,
                      int64_t tails) {
  const T edge = EDGE;
  map<LIGHT>(
      plan, [=](T g, T y, T x) -> T { return fabs(y) > edge ? g * (4 * sigmoid_slope(2 * x)) : g * (1 - y * y); }, gx,
      g, y, x);
}
KERNEL(sigmoid_backward)(STORED *gx, const STORED *g, const STORED *y, const STORED *x, const int64_t *plan,
                         int64_t tails) {
  const T edge = EDGE;
  map<LIGHT>(
      plan, [=](T g, T y, T x) -> T { return y > edge ? g * sigmoid_slope(x) : g * (1 - y) * y; }, gx, g, y, x);
}

// ---- exponential ----
#define SELU_ALPHA T(1.6732632423543772848170429916717)
#define SELU_SCALE T(1.0507009873554804934193349852946)
FORWARD_1(HEAVY, elu, alpha, x > 0 ? x : p * expm1(x))
BACKWARD_1(HEAVY, elu_backward, alpha, x > 0 ? g : g * p * exp(x))
FORWARD_1(HEAVY, celu, alpha, x > 0 ? x : p * expm1(x / p))
BACKWARD_1(HEAVY, celu_backward, alpha, x > 0 ? g : g * exp(x / p))
FORWARD(HEAVY, selu, x > 0 ? SELU_SCALE * x : SELU_SCALE * SELU_ALPHA * expm1(x))
BACKWARD(HEAVY, selu_backward, x > 0 ? g * SELU_SCALE : g * (SELU_SCALE * SELU_ALPHA) * exp(x))

__device__ __forceinline__ T log1pexp(T z) { return (z < 0 ? T(0) : z) + log1p(exp(-fabs(z))); }
FORWARD_2(HEAVY, softplus, beta, threshold, x * p > q ? x : log1pexp(x * p) / p)
BACKWARD_2(HEAVY, softplus_backward, beta, threshold, x * p > q ? g : g * sigmoid(x * p))
FORWARD(HEAVY, logsigmoid, -log1pexp(-x))
BACKWARD(HEAVY, logsigmoid_backward, g * sigmoid(-x))

// x s(x) with s from 0 to 1: silu, mish, gelu. Beyond 1000, s is 0 or 1 in any type: x stays inside where an inf would
// meet a 0.
__device__ __forceinline__ T from_below(T x) { return x < T(-1000) ? T(-1000) : x; }
__device__ __forceinline__ T bounded(T x) { return x > T(1000) ? T(1000) : from_below(x); }

FORWARD(HEAVY, silu, from_below(x) * sigmoid(x))
__device__ __forceinline__ T silu_slope(T x) { return sigmoid(x) * (1 + x * sigmoid(-x)); }
BACKWARD(HEAVY, silu_backward, g * silu_slope(bounded(x)))

// mish = x t, t = tanh(log(1 + exp(x))). With e = exp(-|x|) nothing overflows, and 1 - t needs no subtraction.
struct Mish {
  T t, slope;
  __device__ __forceinline__ explicit Mish(T x) {
    const bool negative = x < 0;
    const T e = exp(-fabs(x)), over = negative ? 2 * e + e * e : 1 + 2 * e, rest = negative ? T(2) : 2 * e * e,
            r = 1 / (over + rest);
    t = over * r;
    slope = rest * r * (1 + t) * ((negative ? e : T(1)) / (1 + e));
  }
};
FORWARD(HEAVY, mish, from_below(x) * Mish(x).t)
__device__ __forceinline__ T mish_slope(T x) { const Mish m(x); return m.t + x * m.slope; }
BACKWARD(HEAVY, mish_backward, g * mish_slope(bounded(x)))

// gelu = x P(x), where P is the normal distribution function. It is computed with erfc, which keeps its relative
// accuracy where 1 + erf has none left.
__device__ __forceinline__ T normal_cdf(T x) { return T(0.5) * erfc(x * T(-0.70710678118654752440)); }
FORWARD(HEAVY, gelu, from_below(x) * normal_cdf(x))
__device__ __forceinline__ T gelu_slope(T x) {
  return normal_cdf(x) + x * exp(T(-0.5) * x * x) * T(0.39894228040143267794);
}
BACKWARD(HEAVY, gelu_backward, g * gelu_slope(bounded(x)))

// gelu_tanh = x (1 + tanh u) / 2 = x S(2u), u = sqrt(2 / pi) (x + 0.044715 x^3)
__device__ __forceinline__ T gelu_tanh_u2(T x) { return T(1.5957691216057307118) * x * (1 + T(0.044715) * x * x); }
__device__ __forceinline__ T gelu_tanh_slope(T x) {
  const T u2 = gelu_tanh_u2(x), s = sigmoid(u2), du2 = T(1.5957691216057307118) * (1 + T(0.134145) * x * x);
  return s + x * s * sigmoid(-u2) * du2;
}
FORWARD(HEAVY, gelu_tanh, from_below(x) * sigmoid(gelu_tanh_u2(x)))
BACKWARD(HEAVY, gelu_tanh_backward, g * gelu_tanh_slope(bounded(x)))
#endif
