/* types: f32 f64 */
/* Activation functions, forward and backward: out[i] = f(x[i]), gx[i] = g[i] * f'(x[i]).
 *
 * Plain loop and fast loop are those of elementwise.c: f is written once on vectors, and walk.h brings any layout into
 * contiguous spans. This file adds the formulas, in forms that neither overflow nor cancel:
 *
 *   - everything exponential uses e = exp(-|x|) <= 1;
 *   - 1 - tanh^2 and similar terms are never computed as a difference of nearly equal numbers;
 *   - gelu uses erfc, which keeps its relative accuracy where 1 + erf has none left.
 *
 * At kinks and for NaN the results are those of PyTorch: comparisons are written so that NaN takes the branch that it
 * takes there. f gets its scalars as vectors s[0], s[1] with all lanes equal. In backward kernels, g is the gradient of
 * the output. */
#include "loops.h"
#include "walk.h"

#define FORWARD_N(name, piece, PARAMETERS, ...) \
  static void span_##name(void *out_, const void *const *in, int64_t n, const double *scalars) { \
    T *out = out_; \
    const T *x = in[0]; \
    const V s[2] = {vset((T)scalars[0]), vset((T)scalars[1])}; \
    int64_t i = 0; \
    for (; i + VL <= n; i += VL) vstore(out + i, name##_(vload(x + i), s)); \
    if (i < n) vstore_n(out + i, name##_(vload_n(x + i, (int)(n - i)), s), (int)(n - i)); \
  } \
  void FN(name) PARAMETERS { \
    walk( \
        &(Walk){ \
            plan, span_##name, (const double[2]){__VA_ARGS__}, 2, {sizeof(T), sizeof(T)}, {(char *)out, (char *)a}}, \
        piece); \
  }
#define BACKWARD_N(name, piece, PARAMETERS, ...) \
  static void span_##name(void *out_, const void *const *in, int64_t n, const double *scalars) { \
    T *out = out_; \
    const T *g = in[0], *x = in[1]; \
    const V s[2] = {vset((T)scalars[0]), vset((T)scalars[1])}; \
    int64_t i = 0; \
    for (; i + VL <= n; i += VL) vstore(out + i, name##_(vload(g + i), vload(x + i), s)); \
    if (i < n) \
      vstore_n(out + i, name##_(vload_n(g + i, (int)(n - i)), vload_n(x + i, (int)(n - i)), s), (int)(n - i)); \
  } \
  void FN(name) PARAMETERS { \
    walk(&(Walk){plan, \
                 span_##name, \
                 (const double[2]){__VA_ARGS__}, \
                 3, \
                 {sizeof(T), sizeof(T), sizeof(T)}, \
                 {(char *)gx, (char *)g, (char *)x}}, \
         piece); \
  }
/* with no scalar, one, two; LIGHT for arithmetic, HEAVY where a function of simd.h is called */
#define LIGHT WALK_LIGHT
#define HEAVY WALK_HEAVY
#define FORWARD0(name, piece) FORWARD_N(name, piece, (T *out, const T *a, const int64_t *plan), 0)
#define FORWARD1(name, piece) FORWARD_N(name, piece, (T *out, const T *a, const int64_t *plan, double p), p)
#define FORWARD2(name, piece) \
  FORWARD_N(name, piece, (T *out, const T *a, const int64_t *plan, double p, double q), p, q)
#define BACKWARD0(name, piece) BACKWARD_N(name, piece, (T *gx, const T *g, const T *x, const int64_t *plan), 0)
#define BACKWARD1(name, piece) \
  BACKWARD_N(name, piece, (T *gx, const T *g, const T *x, const int64_t *plan, double p), p)
#define BACKWARD2(name, piece) \
  BACKWARD_N(name, piece, (T *gx, const T *g, const T *x, const int64_t *plan, double p, double q), p, q)

/* ---- piecewise linear ---- */
static inline V relu_(V x, const V *s) { (void)s; return vselect(x < 0, vzero(), x); }
static inline V relu_backward_(V g, V x, const V *s) { (void)s; return vselect(x <= 0, vzero(), g); }
FORWARD0(relu, LIGHT)
BACKWARD0(relu_backward, LIGHT)

static inline V leaky_relu_(V x, const V *s) { return vselect(x > 0, x, x * s[0]); }
static inline V leaky_relu_backward_(V g, V x, const V *s) { return vselect(x > 0, g, g * s[0]); }
FORWARD1(leaky_relu, LIGHT)
BACKWARD1(leaky_relu_backward, LIGHT)

static inline V clamp(V x, V low, V high) { x = vselect(x < low, low, x); return vselect(x > high, high, x); }
static inline V hardtanh_(V x, const V *s) { return clamp(x, s[0], s[1]); }
static inline V hardtanh_backward_(V g, V x, const V *s) { return vselect((x > s[0]) & (x < s[1]), g, vzero()); }
FORWARD2(hardtanh, LIGHT)
BACKWARD2(hardtanh_backward, LIGHT)

static inline V relu6_(V x, const V *s) { (void)s; return clamp(x, vzero(), vset(6)); }
static inline V relu6_backward_(V g, V x, const V *s) { (void)s; return vselect((x > 0) & (x < 6), g, vzero()); }
FORWARD0(relu6, LIGHT)
BACKWARD0(relu6_backward, LIGHT)

static inline V hardsigmoid_(V x, const V *s) { return relu6_(x + 3, s) / 6; }
static inline V hardsigmoid_backward_(V g, V x, const V *s) {
  (void)s;
  return vselect((x > -3) & (x < 3), g / 6, vzero());
}
FORWARD0(hardsigmoid, LIGHT)
BACKWARD0(hardsigmoid_backward, LIGHT)

static inline V hardswish_(V x, const V *s) {
  (void)s;
  x = vupper_(vset(-3), x);
  return x * vlower_(vset(6), x + 3) / 6;
}
static inline V hardswish_backward_(V g, V x, const V *s) {
  (void)s;
  return vselect(x <= -3, vzero(), vselect(x >= 3, g, g * (x / 3 + F(0.5))));
}
FORWARD0(hardswish, LIGHT)
BACKWARD0(hardswish_backward, LIGHT)

/* ---- rational ---- */
#define LARGEST PICK_(3e38, 1e308)
static inline V softsign_(V x, const V *s) {
  (void)s;
  x = vlower_(vset(LARGEST), vupper_(vset(-LARGEST), x));      /* not inf / inf */
  return x / (1 + vabs(x));
}
static inline V softsign_backward_(V g, V x, const V *s) { (void)s; V d = 1 + vabs(x); return g / (d * d); }
FORWARD0(softsign, LIGHT)
BACKWARD0(softsign_backward, LIGHT)

/* ---- from the output y: tanh' = 1 - y^2, sigmoid' = (1 - y) y. Where |y| is nearly 1, the difference has lost its
 *      digits; only there x is read, and the function computed again: sigmoid'(x) = S(x) S(-x), tanh'(x) =
 *      4 sigmoid'(2x).
 *      A block of vectors is tested at once. ---- */
#define NEARLY_1 F(0.999)
static inline V sigmoid_slope(V x) { const Sigmoid p = vsigmoids(x); return p.up * p.down; }
#define FROM_OUTPUT(name, top, near, far) \
  static void span_##name(void *out_, const void *const *in, int64_t n, const double *scalars) { \
    T *out = out_; \
    const T *gs = in[0], *ys = in[1], *xs = in[2]; \
    const V edge = vset(scalars[0] ? NEARLY_1 : INFINITY); \
    for (int64_t b = 0; b < n; b += 16 * VL) { \
      const int64_t length = MIN(n - b, 16 * VL); \
      VM tail = {0}; \
      EACH_VECTOR(i, k, length, \
        const V g = load_n(gs + b + i, k), y = load_n(ys + b + i, k); \
        tail |= top > edge; \
        store_n(out + b + i, near, k);); \
      if (__builtin_expect(vany(tail), 0)) \
        EACH_VECTOR(i, k, length, \
          const V g = load_n(gs + b + i, k), y = load_n(ys + b + i, k), x = load_n(xs + b + i, k); \
          store_n(out + b + i, vselect((VM)(top > edge), far, near), k);); \
    } \
  } \
  void FN(name)(T *gx, const T *g, const T *y, const T *x, const int64_t *plan, int64_t tails) { \
    walk(&(Walk){plan, \
                 span_##name, \
                 (const double[1]){(double)tails}, \
                 4, \
                 {sizeof(T), sizeof(T), sizeof(T), sizeof(T)}, \
                 {(char *)gx, (char *)g, (char *)y, (char *)x}}, \
         LIGHT); \
  }
FROM_OUTPUT(tanh_backward, vabs(y), g * (1 - y * y), g * (4 * sigmoid_slope(2 * x)))
FROM_OUTPUT(sigmoid_backward, y, g * (1 - y) * y, g * sigmoid_slope(x))

/* ---- exponential: elu(x) = x above 0, alpha (exp(x) - 1) below; celu scales x by 1/alpha, selu the result ---- */
#define SELU_ALPHA F(1.6732632423543772848170429916717)
#define SELU_SCALE F(1.0507009873554804934193349852946)
static inline V elu_(V x, const V *s) { return vselect(x > 0, x, s[0] * vexpm1(x)); }
static inline V elu_backward_(V g, V x, const V *s) { return vselect(x > 0, g, g * s[0] * vexp(x)); }
static inline V celu_(V x, const V *s) { return vselect(x > 0, x, s[0] * vexpm1(x / s[0])); }
static inline V celu_backward_(V g, V x, const V *s) { return vselect(x > 0, g, g * vexp(x / s[0])); }
static inline V selu_(V x, const V *s) {
  (void)s;
  return vselect(x > 0, SELU_SCALE * x, SELU_SCALE * SELU_ALPHA * vexpm1(x));
}
static inline V selu_backward_(V g, V x, const V *s) {
  (void)s;
  return vselect(x > 0, g * SELU_SCALE, g * (SELU_SCALE * SELU_ALPHA) * vexp(x));
}
FORWARD1(elu, HEAVY)
BACKWARD1(elu_backward, HEAVY)
FORWARD1(celu, HEAVY)
BACKWARD1(celu_backward, HEAVY)
FORWARD0(selu, HEAVY)
BACKWARD0(selu_backward, HEAVY)

/* ---- softplus = log(1 + exp(beta x)) / beta, or x where beta x > threshold; logsigmoid(x) = -softplus(-x) ---- */
static inline V log1pexp(V z) { return vselect(z < 0, vzero(), z) + vlog1p(vexp(-vabs(z))); }
static inline V softplus_(V x, const V *s) { V z = x * s[0]; return vselect(z > s[1], x, log1pexp(z) / s[0]); }
static inline V softplus_backward_(V g, V x, const V *s) {
  V z = x * s[0];
  return vselect(z > s[1], g, g * vsigmoid(z));
}
static inline V logsigmoid_(V x, const V *s) { (void)s; return -log1pexp(-x); }
static inline V logsigmoid_backward_(V g, V x, const V *s) { (void)s; return g * vsigmoid(-x); }
FORWARD2(softplus, HEAVY)
BACKWARD2(softplus_backward, HEAVY)
FORWARD0(logsigmoid, HEAVY)
BACKWARD0(logsigmoid_backward, HEAVY)

/* ---- x s(x) with s from 0 to 1: silu, mish, gelu. Beyond EXP_0_, s is 0 or 1: x stays inside where an inf would meet
 *      a 0 ---- */
static inline V from_below(V x) { return vupper_(vset(-EXP_0_), x); }
static inline V bounded(V x) { return vlower_(vset(EXP_0_), from_below(x)); }

/* silu = x S(x), S the sigmoid; S' = S (1 - S), and 1 - S(x) = S(-x) without cancellation */
static inline V silu_(V x, const V *s) { (void)s; return from_below(x) * vsigmoid(x); }
static inline V silu_backward_(V g, V x, const V *s) {
  (void)s;
  x = bounded(x);
  Sigmoid p = vsigmoids_(x, vabs(x));
  return g * (p.up * (1 + x * p.down));
}
FORWARD0(silu, HEAVY)
BACKWARD0(silu_backward, HEAVY)

/* mish = x t, t = tanh(log(1 + exp(x))). With e = exp(-|x|):
 *        x >= 0:  t = (1 + 2e) / (1 + 2e + 2e^2),   1 - t = 2e^2 / (the same)
 *        x <  0:  t = (2e + e^2) / (2 + 2e + e^2),  1 - t = 2 / (the same)
 *      t' = (1 - t)(1 + t) S(x), S = 1 / (1 + e) or e / (1 + e) */
typedef struct { V t, slope; } Mish;
static inline Mish mish_t(V x, V size) {                       /* size = |x|, at most EXP_0_ */
  const VM negative = x < 0;
  const V e = vexp_minus_(size, 0), e2 = e * e, one = vset(1);
  const V over = vselect(negative, 2 * e + e2, 1 + 2 * e), rest = vselect(negative, 2 * one, 2 * e2),
          r = 1 / (over + rest);
  const V t = over * r;
  return (Mish){t, rest * r * (1 + t) * (vselect(negative, e, one) / (1 + e))};
}
static inline V mish_(V x, const V *s) {
  (void)s;
  return from_below(x) * mish_t(x, vlower_(vset(EXP_0_), vabs(x))).t;
}
static inline V mish_backward_(V g, V x, const V *s) {
  (void)s;
  x = bounded(x);
  Mish m = mish_t(x, vabs(x));
  return g * (m.t + x * m.slope);
}
FORWARD0(mish, HEAVY)
BACKWARD0(mish_backward, HEAVY)

/* gelu = x P(x), P the normal distribution function */
static inline V gelu_(V x, const V *s) { (void)s; return from_below(x) * vnormal(x).p; }
static inline V gelu_backward_(V g, V x, const V *s) {
  (void)s;
  x = bounded(x);
  Normal n = vnormal(x);
  return g * (n.p + x * n.density);
}
FORWARD0(gelu, HEAVY)
BACKWARD0(gelu_backward, HEAVY)

/* gelu_tanh = x (1 + tanh u) / 2 = x S(2u), u = sqrt(2 / pi) (x + 0.044715 x^3) */
static inline V gelu_tanh_u2(V x) { return F(1.5957691216057307118) * x * (1 + F(0.044715) * x * x); }
static inline V gelu_tanh_(V x, const V *s) { (void)s; return from_below(x) * vsigmoid(gelu_tanh_u2(x)); }
static inline V gelu_tanh_backward_(V g, V x, const V *s) {
  (void)s;
  x = bounded(x);
  const Sigmoid p = vsigmoids(gelu_tanh_u2(x));
  return g * (p.up + x * p.up * p.down * (F(1.5957691216057307118) * (1 + F(0.134145) * x * x)));
}
FORWARD0(gelu_tanh, HEAVY)
BACKWARD0(gelu_tanh_backward, HEAVY)
