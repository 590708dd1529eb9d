/* Philox4x32-10 (random.c explains it): words of random bits, from a stream and a position in it. */
#ifndef MINIGRAD_PHILOX_H
#define MINIGRAD_PHILOX_H

#include "simd.h"

#define WORDS 512                          /* a buffer of words; its blocks are a multiple of WL at any level */

typedef struct { uint64_t key, low, high; } Stream;   /* the counter of a launch's first block */

/* Reads the state and advances it by the blocks that `words` words need. */
static Stream take(int64_t *state, int64_t words) {
  Stream s = {(uint64_t)state[0], (uint64_t)state[1], (uint64_t)state[2]};
  uint64_t low = s.low + ((uint64_t)words + 3) / 4;
  state[1] = (int64_t)low;
  state[2] = (int64_t)(s.high + (low < s.low));
  return s;
}

/* out[0 .. words), words from number `first` on (a multiple of 4); out has room for WORDS, because some are written
 * beyond `words`. */
static void philox(uint32_t *out, Stream s, int64_t first, int64_t words) {
  for (int64_t w = 0; w < words; w += 4 * WL) {
    const uint64_t low = s.low + (uint64_t)(first + w) / 4, high = s.high + (low < s.low);
    const W c = low + WIOTA, h = high - (W)(c < low);            /* a comparison is -1 where true: the carry */
    W c0 = c, c1 = c >> 32, c2 = h, c3 = h >> 32;
    uint32_t k0 = (uint32_t)s.key, k1 = (uint32_t)(s.key >> 32);
    for (int round = 0; round < 10; round++) {
      const W p0 = wmul32(c0, (W){0} + 0xD2511F53u), p1 = wmul32(c2, (W){0} + 0xCD9E8D57u);
      c0 = (p1 >> 32) ^ c1 ^ k0;
      c2 = (p0 >> 32) ^ c3 ^ k1;
      c1 = p1;
      c3 = p0;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    const W a = (c0 & 0xFFFFFFFFu) | c1 << 32, b = (c2 & 0xFFFFFFFFu) | c3 << 32;
    const W x = wzip_low(a, b), y = wzip_high(a, b);
    memcpy(out + w, &x, sizeof x);
    memcpy(out + w + 2 * WL, &y, sizeof y);
  }
}

/* The number of 32-bit words below which an event of probability p happens: 0 .. 2^32. */
static uint64_t threshold(double p) { return p >= 1 ? (uint64_t)1 << 32 : p > 0 ? (uint64_t)(p * 0x1p32 + 0.5) : 0; }

#endif
