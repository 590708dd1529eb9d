// Random numbers from Philox4x32-10 (philox() is in common.cuh). They are the same numbers as those of native/random.c,
// which describes the generator, the layout of `state` and the way from bits to numbers. Word w of a launch is word
// w % 4 of block number counter + w / 4 under the key. The plain loop:
//
//   for i < n:  out[i] = f(word i)             (two words for an element of 64 bits);  then advance the counter
//
// A thread computes one block of four words and the elements made of them. All thread blocks read the counter, so the
// same launch cannot advance it: a second launch, of one thread, does that.
//
// The arithmetic from bits to numbers is + - * / sqrt in a fixed order, each rounded separately. The *_rn functions
// keep the compiler from fusing a multiplication with an addition, so that GPU and CPU give the same bits.
__device__ __forceinline__ void advance(int64_t *state, int64_t words) {
  const uint64_t blocks = ((uint64_t)words + 3) / 4, low = (uint64_t)state[1] + blocks;
  state[1] = (int64_t)low;
  state[2] += low < blocks;
}
// f(element, word) for n elements of a word each
template <class F> __device__ __forceinline__ void each_word(const int64_t *state, int64_t n, F f) {
  GRID_LOOP(block, (n + 3) / 4) {
    const Philox p = philox(state, block);
#pragma unroll
    for (int w = 0; w < 4; w++)
      if (4 * block + w < n) f(4 * block + w, p.word[w]);
  }
}

#if TYPE_IS == 5
KERNEL(bernoulli_mask)(uint8_t *out, int64_t *state, int64_t n, double p) {
  const uint64_t limit = threshold(p);
  each_word(state, n, [=](int64_t i, uint32_t word) { out[i] = word < limit; });
}
STEP(bernoulli_mask, advance)(uint8_t *out, int64_t *state, int64_t n, double p) { advance(state, n); }
#endif

#if TYPE_IS == 4
KERNEL(random_bits)(int64_t *out, int64_t *state, int64_t n) {
  GRID_LOOP(block, (n + 1) / 2) {
    const Philox p = philox(state, block);
#pragma unroll
    for (int e = 0; e < 2; e++)
      if (2 * block + e < n) out[2 * block + e] = (int64_t)((uint64_t)p.word[2 * e + 1] << 32 | p.word[2 * e]);
  }
}
STEP(random_bits, advance)(int64_t *out, int64_t *state, int64_t n) { advance(state, 2 * n); }
#endif

#if IS_REAL
#if TYPE_IS == 1
#define PER 1                              // words of an element
typedef uint32_t Bits;
typedef int32_t Int;
#define F(c) c##f
#define ADD __fadd_rn
#define MUL __fmul_rn
#define DIV __fdiv_rn
#define ROOT __fsqrt_rn
#define UNIFORM(bits) MUL((T)(int32_t)((bits) >> 8), 5.9604644775390625e-08f)                                  // [0, 1)
#define POSITIVE(bits) ADD(MUL((T)(int32_t)((bits) >> 1), 4.656612873077393e-10f), 2.3283064365386963e-10f) // (0, 1]
#define TURN(bits) \
  MUL((T)((int32_t)((bits) & 0x3FFFFFFFu) - 0x20000000), (T)(1.5707963267948966 * 9.313225746154785e-10))
#define QUADRANT(bits) ((bits) >> 30)
#define AS_INT __float_as_int
#define AS_REAL __int_as_float
#define MANTISSA 23
#define ROOT_HALF 0x3F3504F3
#else
#define PER 2
typedef uint64_t Bits;
typedef int64_t Int;
#define F(c) c
#define ADD __dadd_rn
#define MUL __dmul_rn
#define DIV __ddiv_rn
#define ROOT __dsqrt_rn
#define UNIFORM(bits) MUL((T)(int64_t)((bits) >> 11), 1.1102230246251565e-16)
#define POSITIVE(bits) ADD(MUL((T)(int64_t)((bits) >> 11), 1.1102230246251565e-16), 5.551115123125783e-17)
#define TURN(bits) \
  MUL((T)((int64_t)((bits) & 0x3FFFFFFFFFFFFFFFull) - 0x2000000000000000ll), 1.5707963267948966 * 2.168404344971009e-19)
#define QUADRANT(bits) ((uint32_t)((bits) >> 62))
#define AS_INT __double_as_longlong
#define AS_REAL __longlong_as_double
#define MANTISSA 52
#define ROOT_HALF 0x3FE6A09E667F3BCDll
#endif
#define ELEMENTS (4 / PER)                 // of a block
__device__ __forceinline__ Bits bits_of(const Philox &p, int e) {
#if PER == 1
  return p.word[e];
#else
  return (uint64_t)p.word[2 * e + 1] << 32 | p.word[2 * e];
#endif
}

// ---- uniform: low + u (high - low), and below high even where that rounds up ----
KERNEL(uniform)(T *out, int64_t *state, int64_t n, double low, double high) {
  const T a = (T)low, b = (T)high, range = (T)(high - low);
  // nextafter(b, a) for b > a, without libm: the emulator's and the GPU's may differ
  const T top = !(b > a) ? a : b > 0 ? AS_REAL(AS_INT(b) - 1) : b < 0 ? AS_REAL(AS_INT(b) + 1) : -AS_REAL((Int)1);
  GRID_LOOP(block, (n + ELEMENTS - 1) / ELEMENTS) {
    const Philox p = philox(state, block);
#pragma unroll
    for (int e = 0; e < ELEMENTS; e++) {
      const T v = ADD(a, MUL(UNIFORM(bits_of(p, e)), range));
      if (ELEMENTS * block + e < n) out[ELEMENTS * block + e] = v < top ? v : top;
    }
  }
}
STEP(uniform, advance)(T *out, int64_t *state, int64_t n, double low, double high) { advance(state, n * PER); }

// ---- normal: Box and Muller, with the log, sine and cosine of native/random.c, which says where the coefficients come
//      from ----
__device__ __forceinline__ T polynomial(T z, const T *c, int n) {
  T v = c[n - 1];
#pragma unroll
  for (int i = n - 2; i >= 0; i--) v = ADD(c[i], MUL(z, v));
  return v;
}
#define TERMS(...) const T c[] = {__VA_ARGS__}; return polynomial(z, c, sizeof c / sizeof *c);
#if TYPE_IS == 1
__device__ __forceinline__ T sine_terms(T z) { TERMS(-0.166666552f, 0.00833219104f, -0.000195185989f) }
__device__ __forceinline__ T cosine_terms(T z) { TERMS(0.0416666456f, -0.0013887313f, 2.44329585e-05f) }
__device__ __forceinline__ T log_terms(T z) { TERMS(0.666667759f, 0.399775743f, 0.298712373f) }
#else
__device__ __forceinline__ T sine_terms(T z) {
  TERMS(-0.16666666666666632, 0.008333333333322476, -0.00019841269829839233, 2.7557313698627415e-06,
        -2.505075868782087e-08, 1.5896807413019552e-10)
}
__device__ __forceinline__ T cosine_terms(T z) {
  TERMS(0.0416666666666666, -0.001388888888887446, 2.4801587289656914e-05, -2.755731439524641e-07,
        2.087572831369024e-09, -1.1359875939293001e-11)
}
__device__ __forceinline__ T log_terms(T z) {
  TERMS(0.6666666666666735, 0.39999999999409863, 0.2857142874347979, 0.22222198458066783, 0.18183570497487536,
        0.15313887332380782, 0.14797639298807755)
}
#endif
// x + x z S(z)
__device__ __forceinline__ T sine(T x, T z) { return ADD(x, MUL(MUL(x, z), sine_terms(z))); }
// 1 - z / 2 + z^2 C(z)
__device__ __forceinline__ T cosine(T z) { return ADD(ADD(1, -MUL(F(0.5), z)), MUL(MUL(z, z), cosine_terms(z))); }
// sqrt(-2 log u), 0 < u <= 1
__device__ __forceinline__ T radius(T u) {
  Int i = AS_INT(u);
  const Int e = (i - ROOT_HALF) >> MANTISSA;
  i -= e * ((Int)1 << MANTISSA);
  const T f = ADD(AS_REAL(i), -1), s = DIV(f, ADD(2, f)), h = MUL(MUL(F(0.5), f), f), z = MUL(s, s),
          r = MUL(z, log_terms(z));
  const T l = ADD(MUL((T)e, (T)0.6931471805599453), ADD(f, -ADD(h, -MUL(s, ADD(h, r)))));
  return ROOT(l < 0 ? MUL(-2, l) : T(0));
}

KERNEL(normal)(T *out, int64_t *state, int64_t n, double mean, double std) {
  const T m = (T)mean, d = (T)std;
  GRID_LOOP(block, (n + ELEMENTS - 1) / ELEMENTS) {
    const Philox p = philox(state, block);
#pragma unroll
    for (int e = 0; e < ELEMENTS; e += 2) {
      const Bits angle = bits_of(p, e + 1);
      const T r = radius(POSITIVE(bits_of(p, e))), x = TURN(angle), z = MUL(x, x), s = sine(x, z), c = cosine(z);
      const uint32_t q = QUADRANT(angle);
      // quadrants: (c, s) (-s, c) (-c, -s) (s, -c)
      const T a = q & 1 ? s : c, b = q & 1 ? c : s;
      const int64_t i = ELEMENTS * block + e;
      if (i < n) out[i] = ADD(m, MUL(d, MUL(r, (q + 1) & 2 ? -a : a)));
      if (i + 1 < n) out[i + 1] = ADD(m, MUL(d, MUL(r, q & 2 ? -b : b)));
    }
  }
}
STEP(normal, advance)(T *out, int64_t *state, int64_t n, double mean, double std) {
  advance(state, (n + 1) / 2 * 2 * PER);
}

// ---- dropout: mask[i] = word i >= p * 2^32;  y = x * mask / (1 - p) ----
//
// y is a product, not a choice, so that inf and NaN in a dropped place give NaN, as in PyTorch.
__device__ __forceinline__ T kept_scale(double p) { return p < 1 ? (T)(1 / (1 - p)) : T(0); }

KERNEL(dropout_forward)(STORED *y, uint8_t *mask, const STORED *x, int64_t *state, int64_t n, double p) {
  const uint64_t limit = threshold(p);
  const T scale = kept_scale(p);
  each_word(state, n, [=](int64_t i, uint32_t word) {
    const bool keep = word >= limit;
    y[i] = x[i] * (keep ? scale : T(0)), mask[i] = keep;
  });
}
STEP(dropout_forward, advance)(STORED *y, uint8_t *mask, const STORED *x, int64_t *state, int64_t n, double p) {
  advance(state, n);
}

KERNEL(dropout_backward)(STORED *gx, const STORED *gy, const uint8_t *mask, int64_t n, double p) {
  const T scale = kept_scale(p);
  GRID_LOOP(i, n) gx[i] = gy[i] * (mask[i] ? scale : T(0));
}
#endif
