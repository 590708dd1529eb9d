/* types: f32 f64 i32 i64 u8 */
/* Order along the middle axis of [outer, n, inner]: argsort and topk. They return the indices of the elements.
 *
 * The plain loop, for a line x_0, x_1, ...:
 *
 *     argsort   stable sort of 0 .. n-1 by x            topk   its first k
 *
 * Ties keep their order, whichever way it is sorted, and NaN counts as the largest.
 *
 * The fast one first turns a line into items: a key and an index. The key is an unsigned number that has the order of
 * the elements. (For floats: the bits, of positive ones with the sign bit set, of negative ones inverted. To sort
 * downwards, all keys are inverted.) So one integer sort serves all types and both directions, with one comparison and
 * no branch on NaN. A key of 32 bits and its index are one number of 64 bits, else items take 12 bytes: lines have
 * fewer than 2^32 elements.
 *
 *     short lines   runs of RUN items by insertion, then merged, back and forth between two buffers
 *     long lines    radix sort, byte by byte from the lowest, leaving out bytes in which all keys agree
 *     topk          for small k: the best k so far, in order; most elements are rejected by a comparison with the last
 *
 * Lines are independent, and threads divide them. Where the indices of a line lie side by side in `out`, they are as
 * large as the items of 64 bits, and `out` is one of the two buffers. */
#include <string.h>

#include "minigrad.h"
#include "runtime.h"

/* RUN: items; ELEMENTS_PER_THREAD: elements that are worth a second thread */
enum { RUN = 16, LONG = 2048, FEW = 64, ELEMENTS_PER_THREAD = 4096 };

#if TYPE_IS == 2 || TYPE_IS == 4
typedef uint64_t Key;
typedef struct __attribute__((packed, aligned(4))) { Key key; uint32_t index; } Item;
#define KEY(item) ((item).key)
#define INDEX(item) ((item).index)
#define ITEM(key, index) ((Item){key, (uint32_t)(index)})
#else
typedef uint32_t Key;
typedef uint64_t Item;
#define KEY(item) ((Key)((item) >> 32))
#define INDEX(item) ((uint32_t)(item))
#define ITEM(key, index) ((Item)(key) << 32 | (uint32_t)(index))
#endif
typedef struct { int64_t *out; const T *x; int64_t n, inner, k; Key invert; } Job;

#define SIGN ((Key)1 << (8 * sizeof(Key) - 1))

static inline Key key_of(T x) {
#if IS_REAL
  if (x != x) return ~(Key)0;
  x += 0;                                                    /* -0 is 0 */
  Key bits;
  memcpy(&bits, &x, sizeof bits);
  return bits & SIGN ? ~bits : bits | SIGN;
#elif TYPE_IS == 5
  return x;
#else
  return (Key)x ^ SIGN;
#endif
}

static void insertion(Item *a, int64_t n) {
  for (int64_t i = 1; i < n; i++) {
    const Item item = a[i];
    int64_t j = i;
    for (; j > 0 && KEY(a[j - 1]) > KEY(item); j--) a[j] = a[j - 1];
    a[j] = item;
  }
}

static Item *merge_sort(Item *a, Item *b, int64_t n) {
  for (int64_t i = 0; i < n; i += RUN) insertion(a + i, n - i < RUN ? n - i : RUN);
  for (int64_t width = RUN; width < n; width *= 2) {
    for (int64_t from = 0; from < n; from += 2 * width) {
      const int64_t middle = from + width < n ? from + width : n, end = from + 2 * width < n ? from + 2 * width : n;
      int64_t i = from, j = middle;
      for (int64_t k = from; k < end; k++) b[k] = j >= end || (i < middle && KEY(a[i]) <= KEY(a[j])) ? a[i++] : a[j++];
    }
    Item *t = a;
    a = b, b = t;
  }
  return a;
}

static Item *radix_sort(Item *a, Item *b, int64_t n) {
  int64_t count[sizeof(Key)][256];
  memset(count, 0, sizeof count);
  for (int64_t i = 0; i < n; i++)
    for (size_t byte = 0; byte < sizeof(Key); byte++) count[byte][KEY(a[i]) >> (8 * byte) & 255]++;
  for (size_t byte = 0; byte < sizeof(Key); byte++) {
    int64_t *start = count[byte], sum = 0;
    if (start[KEY(a[0]) >> (8 * byte) & 255] == n) continue;
    for (int v = 0; v < 256; v++) {
      const int64_t c = start[v];
      start[v] = sum;
      sum += c;
    }
    for (int64_t i = 0; i < n; i++) b[start[KEY(a[i]) >> (8 * byte) & 255]++] = a[i];
    Item *t = a;
    a = b, b = t;
  }
  return a;
}

/* The best k of a line, in order, into `best`. */
static void best_of(const Job *job, const T *x, Item *best) {
  int64_t have = 0;
  for (int64_t i = 0; i < job->n; i++) {
    const Key key = key_of(x[i * job->inner]) ^ job->invert;
    if (have == job->k && key >= KEY(best[have - 1])) continue;
    int64_t j = have < job->k ? have++ : have - 1;
    for (; j > 0 && KEY(best[j - 1]) > key; j--) best[j] = best[j - 1];
    best[j] = ITEM(key, i);
  }
}

static void lines(void *context, int64_t begin, int64_t end) {
  const Job *job = context;
  const int64_t n = job->n, k = job->k, inner = job->inner;
  const int few = k <= FEW && k < n, shared = sizeof(Item) == sizeof *job->out && k == n && inner == 1;
  Item best[FEW], *items = best;
  if (!few) items = mg_scratch(0, (size_t)((shared ? 1 : 2) * n) * sizeof(Item));
  if (!items) return;
  for (int64_t line = begin; line < end; line++) {
    const T *x = job->x + line / inner * n * inner + line % inner;
    int64_t *out = job->out + line / inner * k * inner + line % inner;
    const Item *sorted = items;
    if (few) {
      best_of(job, x, items);
    } else {
      for (int64_t i = 0; i < n; i++) items[i] = ITEM(key_of(x[i * inner]) ^ job->invert, i);
      Item *other = shared ? (Item *)out : items + n;
      sorted = n < LONG ? merge_sort(items, other, n) : radix_sort(items, other, n);
    }
    for (int64_t i = 0; i < k; i++) out[i * inner] = INDEX(sorted[i]);
  }
}

void FN(topk)(int64_t *out, const T *x, int64_t outer, int64_t n, int64_t inner, int64_t k, int64_t largest) {
  Job job = {out, x, n, inner, k, largest ? ~(Key)0 : 0};
  if (n > 0 && k > 0) mg_parallel(outer * inner, n < ELEMENTS_PER_THREAD ? ELEMENTS_PER_THREAD / n : 1, lines, &job);
}

void FN(argsort)(int64_t *out, const T *x, int64_t outer, int64_t n, int64_t inner, int64_t descending) {
  FN(topk)(out, x, outer, n, inner, n, descending);
}
