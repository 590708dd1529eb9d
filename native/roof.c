/* types: f32 f64 */
/* The peak speed of this core: fused multiply-adds, for the "share of the roof" in minigrad/bench/. The plain loop is
 *
 *     for (i < rounds) for (j < 16 VL) a[j] = a[j] * b + c;
 *
 * on 16 vectors at once, enough independent chains to keep both FMA units busy through their latency. It does
 * rounds * 16 * VL multiply-adds; out[0] gets VL, and a sum of everything, so that nothing is optimised away. */
#include "simd.h"

void FN(fma_roof)(T *out, int64_t rounds) {
  V a[16];
  const V b = vset(F(0.999)), c = vset(F(0.001));
  for (int j = 0; j < 16; j++) a[j] = vset((T)j);
  for (int64_t i = 0; i < rounds; i++) {
    for (int j = 0; j < 16; j++) a[j] = vfma(a[j], b, c);
  }
  T sum = 0;
  for (int j = 0; j < 16; j++) sum += vsum(a[j]);
  out[0] = (T)VL;
  out[1] = sum;
}
