/* types: f32 f64 */
/* Elements [begin, end) of some arrays become their mean, in all of them: the sum in the order of the arrays, times
 * 1 / count. The plain loop, for a[0] to a[count - 1]:
 *
 *     for (begin <= i < end) { s = a[0][i] + a[1][i] + ...; for each r: a[r][i] = s / count; }
 *
 * The fast one does it for a vector at a time. Data-parallel training: the arrays are the gradients of the processes of a
 * host, and each process calls it for its share of the elements. */
#include "loops.h"

typedef struct { const int64_t *table; int64_t count, first; } Job;

static T *array_of(const Job *job, int64_t r) { return (T *)(uintptr_t)job->table[r] + job->first; }

static void piece(void *context, int64_t begin, int64_t end) {
  const Job *job = context;
  const V scale = vset(F(1.0) / (T)job->count);
  EACH_VECTOR(j, k, end - begin,
    V sum = load_n(array_of(job, 0) + begin + j, k);
    for (int64_t r = 1; r < job->count; r++) sum += load_n(array_of(job, r) + begin + j, k);
    sum *= scale;
    for (int64_t r = 0; r < job->count; r++) store_n(array_of(job, r) + begin + j, sum, k););
}

void FN(average)(const int64_t *table, int64_t count, int64_t begin, int64_t end) {
  mg_parallel(end - begin, ELEMENTS_PER_THREAD, piece, &(Job){table, count, begin});
}
