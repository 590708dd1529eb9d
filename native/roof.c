/* types: f32 f64 */
/* The peak speed of this core: fused multiply-adds, for the "share of the roof" in minigrad/bench/. The plain loop is
 *
 *     for (i < rounds) for (j < CHAINS VL) a[j] = a[j] * b + c;
 *
 * on CHAINS vectors at once, enough independent chains to keep both FMA units busy through their latency, and few
 * enough for the 16 registers of AVX2 (16 chains gave half the peak there). out[0] gets the multiply-adds of a round,
 * out[1] a sum of everything, so that nothing is optimised away. */
#include "simd.h"

enum { CHAINS = 12 };

void FN(fma_roof)(T *out, int64_t rounds) {
  V a[CHAINS];
  const V b = vset(F(0.999)), c = vset(F(0.001));
  for (int j = 0; j < CHAINS; j++) a[j] = vset((T)j);
  for (int64_t i = 0; i < rounds; i++) {
    for (int j = 0; j < CHAINS; j++) a[j] = vfma(a[j], b, c);
  }
  T sum = 0;
  for (int j = 0; j < CHAINS; j++) sum += vsum(a[j]);
  out[0] = (T)(CHAINS * VL);
  out[1] = sum;
}
