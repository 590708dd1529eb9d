/* types: f32 f64 */
/* Optimisers: one launch updates all parameters, in one pass over their memory. Formulas and their order of operations
 * are those of torch.optim's single-tensor code; g is the gradient (negated by `maximize`), p the parameter, t the step
 * count from 1.
 *
 *     table   a row of MG_OPTIM_COLUMNS int64 per parameter, addresses or 0:
 *                 param  grad  state1  state2  state3  step  size
 *             step is the address of a double that counts the updates of this parameter. The launch adds 1, so that a
 *             replayed program counts on. It may be 0 for sgd without momentum. A row of size 0 is allowed.
 *     hyper   doubles, read at each launch, so that a schedule acts on a replayed program too:
 *                 lr  weight_decay  eps  first  second
 *
 *              first     second     state1            state2                state3
 *     sgd      momentum  dampening  momentum buffer   -                     -
 *     adam     beta1     beta2      mean of g         mean of g^2           its maximum (amsgrad)
 *     rmsprop  alpha     momentum   mean of g^2       mean of g (centered)  momentum buffer
 *     adagrad  lr_decay  -          sum of g^2        -                     -
 *
 * Where the momentum is 0, the momentum buffer is not used and may be 0. Clipping uses tables of the same shape, but
 * only grad and size of them.
 *
 * The plain loop of each is its formula, element by element. In the fast one the elements of all parameters form one
 * long line, which is cut into pieces for the threads without regard to where a parameter ends. So many small
 * parameters cost no more than a large one. */
#include "runtime.h"
#include "simd.h"

enum { PARAM, GRAD, STATE1, STATE2, STATE3, STEP_, SIZE };
enum { LR, WEIGHT_DECAY, EPS, FIRST, SECOND };
enum { ELEMENTS_PER_THREAD = 1 << 14, CHUNK_ELEMENTS = 1 << 14 };

typedef struct Job Job;
struct Job {
  void (*update)(const Job *job, const int64_t *row, int64_t begin, int64_t end);
  const int64_t *table;
  const double *hyper;
  int64_t count, option, decoupled, maximize;   /* option: nesterov, amsgrad or centered */
  double *partial;
};

static inline void *address(const int64_t *row, int column) { return (void *)(uintptr_t)row[column]; }

/* Elements [begin, end) of the line: job->update for the part of each row in it. */
static void along_the_line(void *context, int64_t begin, int64_t end) {
  const Job *job = context;
  const int64_t *row = job->table;
  for (int64_t r = 0, at = 0; r < job->count && at < end; r++, row += MG_OPTIM_COLUMNS) {
    const int64_t from = begin > at ? begin - at : 0, to = end - at < row[SIZE] ? end - at : row[SIZE];
    if (from < to) job->update(job, row, from, to);
    at += row[SIZE];
  }
}
static int64_t line_length(const int64_t *table, int64_t count) {
  int64_t n = 0;
  for (int64_t r = 0; r < count; r++) n += table[r * MG_OPTIM_COLUMNS + SIZE];
  return n;
}
static void launch(Job *job) {
  mg_parallel(line_length(job->table, job->count), ELEMENTS_PER_THREAD, along_the_line, job);
  for (int64_t r = 0; r < job->count; r++) {
    double *step = address(job->table + r * MG_OPTIM_COLUMNS, STEP_);
    if (step) *step += 1;
  }
}

/* The vectors of a row from `begin` to `end`, the last one shorter: body(i, w) for w elements from i. */
#define VECTORS(body) \
  int64_t i = begin; \
  for (; i + VL <= end; i += VL) body(i, VL); \
  if (i < end) body(i, (int)(end - i));
/* start + weight * (end - start), from the nearer side as torch.lerp does */
INLINE V lerp(V start, V end, double weight) {
  return weight < 0.5 ? vfma(vset((T)weight), end - start, start) : vfma(vset((T)(weight - 1)), end - start, end);
}
/* g, p of one vector; weight decay as an L2 penalty */
#define GRADIENT(i, w, decay) \
  V p = load_n(param + i, w), g = load_n(grad + i, w); \
  if (job->maximize) g = -g; \
  if (decay) g = vfma(vset((T)weight_decay), p, g);
#define ROW \
  T *param = address(row, PARAM), *state1 = address(row, STATE1), *state2 = address(row, STATE2), \
    *state3 = address(row, STATE3); \
  const T *grad = address(row, GRAD); \
  const double *step = address(row, STEP_), *hyper = job->hyper; \
  const double lr = hyper[LR], weight_decay = hyper[WEIGHT_DECAY], eps = hyper[EPS], first = hyper[FIRST], \
               second = hyper[SECOND]; \
  const int64_t option = job->option; \
  (void)state1, (void)state2, (void)state3, (void)step, (void)eps, (void)first, (void)second, (void)option;

/* b = t == 1 ? g : momentum b + (1 - dampening) g;  p -= lr (nesterov ? g + momentum b : b) */
static void sgd_update(const Job *job, const int64_t *row, int64_t begin, int64_t end) {
  ROW
  const int fresh = first != 0 && *step == 0;
#define BODY(i, w) do { \
    GRADIENT(i, w, weight_decay != 0) \
    if (first != 0) { \
      const V b = fresh ? g : vfma(vset((T)(1 - second)), g, load_n(state1 + i, w) * vset((T)first)); \
      store_n(state1 + i, b, w); \
      g = option ? vfma(vset((T)first), b, g) : b; \
    } \
    store_n(param + i, vfma(vset((T)-lr), g, p), w); \
  } while (0)
  VECTORS(BODY)
#undef BODY
}
void FN(sgd)(const int64_t *table, const double *hyper, int64_t count, int64_t nesterov, int64_t maximize) {
  Job job = {
      .update = sgd_update, .table = table, .hyper = hyper, .count = count, .option = nesterov, .maximize = maximize};
  launch(&job);
}

/* m += (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2;
 * p -= lr / (1 - beta1^t) m / (sqrt(v / (1 - beta2^t)) + eps)
 * amsgrad: the largest v so far in place of v; decoupled: p -= lr weight_decay p first, instead of the penalty in g */
static void adam_update(const Job *job, const int64_t *row, int64_t begin, int64_t end) {
  ROW
  const double t = *step + 1;
  const V size = vset((T)(-lr / (1 - pow(first, t)))), scale = vset((T)(1 / sqrt(1 - pow(second, t))));
  const V keep = vset((T)second), take = vset((T)(1 - second)), small = vset((T)eps),
          shrink = vset((T)(1 - lr * weight_decay));
  const int penalty = weight_decay != 0 && !job->decoupled, decay = weight_decay != 0 && job->decoupled;
#define BODY(i, w) do { \
    GRADIENT(i, w, penalty) \
    if (decay) p *= shrink; \
    const V m = lerp(load_n(state1 + i, w), g, 1 - first); \
    V v = load_n(state2 + i, w) * keep + take * g * g; \
    store_n(state1 + i, m, w); \
    store_n(state2 + i, v, w); \
    if (option) { \
      v = vmax(load_n(state3 + i, w), v); \
      store_n(state3 + i, v, w); \
    } \
    store_n(param + i, p + size * m / (vsqrt(v) * scale + small), w); \
  } while (0)
  VECTORS(BODY)
#undef BODY
}
void FN(adam)(const int64_t *table, const double *hyper, int64_t count, int64_t amsgrad, int64_t decoupled,
              int64_t maximize) {
  Job job = {.update = adam_update,
             .table = table,
             .hyper = hyper,
             .count = count,
             .option = amsgrad,
             .decoupled = decoupled,
             .maximize = maximize};
  launch(&job);
}

/* v = alpha v + (1 - alpha) g^2;  centered: a += (1 - alpha) (g - a), v - a^2 for v below
 * u = g / (sqrt(v) + eps);  momentum: u = b = momentum b + u;  p -= lr u */
static void rmsprop_update(const Job *job, const int64_t *row, int64_t begin, int64_t end) {
  ROW const V keep = vset((T)first), take = vset((T)(1 - first)), small = vset((T)eps), momentum = vset((T)second),
              rate = vset((T)-lr);
#define BODY(i, w) do { \
    GRADIENT(i, w, weight_decay != 0) \
    V v = load_n(state1 + i, w) * keep + take * g * g; \
    store_n(state1 + i, v, w); \
    if (option) { \
      const V a = lerp(load_n(state2 + i, w), g, 1 - first); \
      store_n(state2 + i, a, w); \
      v -= a * a; \
    } \
    const V root = vsqrt(v) + small; \
    if (second > 0) { \
      const V b = load_n(state3 + i, w) * momentum + g / root; \
      store_n(state3 + i, b, w); \
      store_n(param + i, vfma(rate, b, p), w); \
    } else { \
      store_n(param + i, p + rate * g / root, w); \
    } \
  } while (0)
  VECTORS(BODY)
#undef BODY
}
void FN(rmsprop)(const int64_t *table, const double *hyper, int64_t count, int64_t centered, int64_t maximize) {
  Job job = {.update = rmsprop_update,
             .table = table,
             .hyper = hyper,
             .count = count,
             .option = centered,
             .maximize = maximize};
  launch(&job);
}

/* s += g^2;  p -= lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps) */
static void adagrad_update(const Job *job, const int64_t *row, int64_t begin, int64_t end) {
  ROW
  const V rate = vset((T)(-lr / (1 + *step * first))), small = vset((T)eps);
#define BODY(i, w) do { \
    GRADIENT(i, w, weight_decay != 0) \
    const V s = load_n(state1 + i, w) + g * g; \
    store_n(state1 + i, s, w); \
    store_n(param + i, p + rate * g / (vsqrt(s) + small), w); \
  } while (0)
  VECTORS(BODY)
#undef BODY
}
void FN(adagrad)(const int64_t *table, const double *hyper, int64_t count, int64_t maximize) {
  Job job = {.update = adagrad_update, .table = table, .hyper = hyper, .count = count, .maximize = maximize};
  launch(&job);
}

/* ---- clipping ---- */

/* Squares are added in double, so that gradients of 1e30 have a finite norm in float, too. The line is cut into chunks
 * whose sums are added in order, so that the bits are the same for any number of threads. */
static void norm_update(const Job *job, const int64_t *row, int64_t begin, int64_t end) {
  const T *g = address(row, GRAD);
  double s[16] = {0}, total = 0;
  int64_t i = begin;
  for (; i + 16 <= end; i += 16)
    for (int l = 0; l < 16; l++) s[l] += (double)g[i + l] * (double)g[i + l];
  for (; i < end; i++) total += (double)g[i] * (double)g[i];
  for (int l = 0; l < 16; l++) total += s[l];
  *job->partial += total;
}
static void norm_chunks(void *context, int64_t begin, int64_t end) {
  const Job *job = context;
  for (int64_t c = begin; c < end; c++) {
    Job one = *job;
    one.partial = job->partial + c;
    *one.partial = 0;
    along_the_line(&one, c * CHUNK_ELEMENTS, (c + 1) * CHUNK_ELEMENTS);
  }
}
void FN(grad_norm_sq)(double *out, const int64_t *table, int64_t count) {
  const int64_t chunks = (line_length(table, count) + CHUNK_ELEMENTS - 1) / CHUNK_ELEMENTS;
  Job job = {.update = norm_update,
             .table = table,
             .count = count,
             .partial = mg_scratch(0, (size_t)(chunks + 1) * sizeof(double))};
  if (!job.partial) return;
  mg_parallel(chunks, 1, norm_chunks, &job);
  double total = 0;
  for (int64_t c = 0; c < chunks; c++) total += job.partial[c];
  out[0] = total;
}

static void scale_update(const Job *job, const int64_t *row, int64_t begin, int64_t end) {
  T *g = address(row, GRAD);
  const V factor = vset((T)job->hyper[0]);
#define BODY(i, w) store_n(g + i, load_n(g + i, w) * factor, w)
  VECTORS(BODY)
#undef BODY
}
void FN(grad_scale)(T *norm, const int64_t *table, const double *norm_sq, int64_t count, double max_norm, double eps) {
  const double total = sqrt(norm_sq[0]), factor = max_norm / (total + eps);
  norm[0] = (T)total;
  if (factor >= 1) return;                    /* nothing to clip, the common case: no memory access */
  Job job = {.update = scale_update, .table = table, .hyper = &factor, .count = count};
  mg_parallel(line_length(table, count), ELEMENTS_PER_THREAD, along_the_line, &job);
}

static void clip_update(const Job *job, const int64_t *row, int64_t begin, int64_t end) {
  T *g = address(row, GRAD);
  const V high = vset((T)job->hyper[0]), low = -high;
#define BODY(i, w) store_n(g + i, vmin(vmax(load_n(g + i, w), low), high), w)
  VECTORS(BODY)
#undef BODY
}
void FN(grad_clip)(const int64_t *table, int64_t count, double limit) {
  Job job = {.update = clip_update, .table = table, .hyper = &limit, .count = count};
  mg_parallel(line_length(table, count), ELEMENTS_PER_THREAD, along_the_line, &job);
}
