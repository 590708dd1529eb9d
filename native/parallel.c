/* types: none */
/* The thread pool, the scratch memory of a thread, and the test which instructions this CPU has.
 *
 * Why a pool of our own: the usual run-times spin at their barriers and lose a factor of 100 when a core is taken away.
 * Here a worker looks for work for SPIN_NS at most and then sleeps; the caller does the same while it waits for the
 * last worker. Threads are created by the first call that has work for them, never at import; a forked child starts
 * without any and makes its own when it needs them.
 *
 * A region is n indices cut into pieces of `grain`, and the pieces into as many shares as there are threads. A thread,
 * the caller included, draws pieces from its own share first, then from the shares of those that are slow or asleep,
 * until all are drawn. So a thread finds in its own cache what it wrote in the region before: memory that another core
 * has written comes at a tenth of the rate (512 KB in 55 us instead of 6). Which thread computes a piece is chance in
 * the end; what is in it is not.
 *
 * The gate: one atomic word, (epoch, workers inside, open). The caller writes the job, then opens the gate under a new
 * epoch. A worker enters by raising the count with a compare-and-swap that fails once the gate is shut, so that a late
 * worker never reads a job that is being replaced. The caller shuts the gate when all pieces are drawn and leaves when
 * the count is 0. Sleeping uses one mutex and two condition variables; the flag `sleepers` (or `waiting`) is raised
 * before the gate is read again and the gate is changed before the flag is read, both sequentially consistent, so no
 * wake-up is lost.
 *
 * `busy` makes the pool one caller's at a time: a nested call and a call from a second thread find it taken and run
 * their pieces themselves, in order.
 */
#define _GNU_SOURCE
#include "runtime.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define SPIN_NS 50000                    /* about what it takes to wake a thread on a virtual machine; with 15,000 a
                                          * step of a small CNN took 2.1 times as long on two cores, now 0.6 */
#define MAX_THREADS 256
#define OPEN 1u
#define INSIDE 2u                        /* one worker */
#define INSIDE_MASK 0xFFFEu
#define EPOCH 0x10000u

typedef void piece_fn(void *context, int64_t begin, int64_t end);

/* The scratch memory of a thread. It is found by a key, not by _Thread_local: the room of a key is there from the start
 * of a thread, that of a thread-local variable comes at its first use, which ends the process if there is no memory.
 * worker: its number, from 1; cpu: where it began to work at the region. */
#define SLOTS 8
typedef struct {
  void *memory[SLOTS];
  size_t bytes[SLOTS];
  int worker;
  atomic_int cpu;
  const mg_follower *followers;
} scratch;
static pthread_key_t scratch_key;        /* its destructor frees the memory of a thread that ends */
static int has_key;

static struct {
  piece_fn *fn;
  void *context;
  int64_t n, grain, shares;
  pthread_t caller;
  const mg_follower *followers;
} job;

/* A kernel that cannot go on notes why and returns. The caller of the kernel raises it (objects.c): in its thread, so a
 * note of a worker goes under the thread whose region it works for. A thread that finds the table full waits: each of
 * the others takes its own note out on its way back to Python. */
#define NOTES 64
typedef struct { pthread_t thread; int used; mg_failure what; } note;
static note notes[NOTES];
static pthread_mutex_t noting = PTHREAD_MUTEX_INITIALIZER;
atomic_int mg_failures;                  /* notes in the table */

/* A share of the pieces: the next one to draw, and the end; alone in its cache line, and in the line fetched with it */
static struct { _Alignas(128) _Atomic int64_t next; int64_t end; } share[MAX_THREADS];
static _Atomic uint64_t gate;
static atomic_flag busy = ATOMIC_FLAG_INIT;
static atomic_int sleepers, waiting, stopping, caller_cpu = -1;
static _Atomic int64_t wanted;           /* threads asked for; 0: as many as the CPUs we may run on */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work = PTHREAD_COND_INITIALIZER, done = PTHREAD_COND_INITIALIZER;
static pthread_t workers[MAX_THREADS];   /* this and the rest belongs to whoever holds `busy` */
static scratch *of_worker[MAX_THREADS];
static int64_t started;                  /* workers that run */
/* threads the pool was last built for: `started` + 1, or more if the system refused some */
static int64_t pool_size = 1;
static uint64_t started_in;              /* the epoch in which the workers were created */
/* 0 when there are more threads than CPUs: spinning would only be in the way */
static atomic_int spin_ns;

/* ---- CPUs ---- */

static int64_t cpus_allowed(void) {
#if defined(__linux__)
  for (int max = 1024; max <= 1 << 18; max *= 4) {
    cpu_set_t *set = CPU_ALLOC(max);
    if (!set) break;
    int ok = sched_getaffinity(0, CPU_ALLOC_SIZE(max), set) == 0;
    int count = ok ? CPU_COUNT_S(CPU_ALLOC_SIZE(max), set) : 0;
    CPU_FREE(set);
    if (ok) return count > 0 ? count : 1;
  }
#endif
  long online = sysconf(_SC_NPROCESSORS_ONLN);
  return online > 0 ? online : 1;
}

/* 2 AVX-512 (f, dq, cd, bw, vl: x86-64-v4), 1 AVX2 + FMA (x86-64-v3), 0 baseline (x86-64-v2, or any other
 * architecture), -1 below it. The wide registers count only if the operating system saves them (XCR0). */
int mg_cpu_level(void) {
#if defined(__x86_64__)
  unsigned a, b, c, d;
  const unsigned v2 = bit_SSE3 | bit_SSSE3 | bit_SSE4_1 | bit_SSE4_2 | bit_POPCNT | bit_CMPXCHG16B;
  const unsigned v3 = bit_AVX | bit_F16C | bit_FMA | bit_MOVBE | bit_OSXSAVE;
  const unsigned v3_7 = bit_AVX2 | bit_BMI | bit_BMI2;
  const unsigned v4_7 = bit_AVX512F | bit_AVX512DQ | bit_AVX512CD | bit_AVX512BW | bit_AVX512VL;
  if (!__get_cpuid(1, &a, &b, &c, &d) || (c & v2) != v2) return -1;
  if ((c & v3) != v3) return 0;
  unsigned saved, saved_high;
  __asm__ volatile("xgetbv" : "=a"(saved), "=d"(saved_high) : "c"(0));
  unsigned b7, c7, c81;
  if ((saved & 0x6) != 0x6 || !__get_cpuid_count(7, 0, &a, &b7, &c7, &d) || (b7 & v3_7) != v3_7) return 0;
  if (!__get_cpuid(0x80000001, &a, &b, &c81, &d) || !(c81 & bit_LZCNT)) return 0;
  return (saved & 0xE6) == 0xE6 && (b7 & v4_7) == v4_7 ? 2 : 1;
#else
  return 0;
#endif
}

/* ---- waiting ---- */

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/* The CPU of this thread; -1 if the system does not say. */
static int this_cpu(void) {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

/* Looks at the gate until (gate ^ from) & mask is as `changed` says, for spin_ns at most. */
static int spin_until(uint64_t from, uint64_t mask, int changed) {
  int64_t limit = atomic_load_explicit(&spin_ns, memory_order_relaxed), end = 0;
  do {
    for (int i = 0; i < 16; i++) {
      if ((((atomic_load(&gate) ^ from) & mask) != 0) == changed) return 1;
      if (limit) relax();
    }
    if (!limit) return 0;
    if (!end) end = now_ns() + limit;
  } while (now_ns() < end);
  return 0;
}

/* ---- workers ---- */

static void scratch_free(void *p) {
  scratch *s = p;
  for (int i = 0; i < SLOTS; i++) free(s->memory[i]);
  free(s);
}

/* `own`: which share comes first */
static void run_pieces(int64_t own) {
  for (int64_t s = 0; s < job.shares; s++) {
    const int64_t from = (own + s) % job.shares;
    int64_t i;
    while ((i = atomic_fetch_add_explicit(&share[from].next, 1, memory_order_relaxed)) < share[from].end) {
      int64_t begin = i * job.grain;
      job.fn(job.context, begin, job.n - begin < job.grain ? job.n : begin + job.grain);
    }
  }
}

/* Where the other CPUs are busy, a worker may find itself on the caller's. Then neither spins: it would take the time
 * of the one that it waits for. */
static int beside_caller(int cpu) { return cpu >= 0 && cpu == atomic_load_explicit(&caller_cpu, memory_order_relaxed); }
static int beside_worker(void) {
  int found = 0;
  for (int64_t i = 0; i < started; i++)
    found |= beside_caller(atomic_load_explicit(&of_worker[i]->cpu, memory_order_relaxed));
  return found;
}

static void *worker(void *mine) {
  /* without its key a worker could not say for whom it fails: it takes no part */
  scratch *own = mine;
  const int able = pthread_setspecific(scratch_key, mine) == 0;
  uint64_t seen = started_in;                              /* the epoch in which this worker was created: closed */
  for (;;) {
    if (beside_caller(this_cpu()) || !spin_until(seen, ~(uint64_t)(EPOCH - 1), 1)) {
      pthread_mutex_lock(&lock);
      atomic_fetch_add(&sleepers, 1);
      while (((atomic_load(&gate) ^ seen) & ~(uint64_t)(EPOCH - 1)) == 0) pthread_cond_wait(&work, &lock);
      atomic_fetch_sub(&sleepers, 1);
      pthread_mutex_unlock(&lock);
    }
    if (atomic_load(&stopping)) return NULL;
    uint64_t g = atomic_load(&gate);
    while (able && (g & OPEN) && !atomic_compare_exchange_weak(&gate, &g, g + INSIDE)) {}
    seen = g & ~(uint64_t)(EPOCH - 1);
    if (!able || !(g & OPEN)) continue;
    own->followers = job.followers;
    atomic_store_explicit(&own->cpu, this_cpu(), memory_order_relaxed);
    run_pieces(own->worker);
    g = atomic_fetch_sub(&gate, INSIDE);
    if ((g & (INSIDE_MASK | OPEN)) == INSIDE && atomic_load(&waiting)) {   /* the last one out, and the caller sleeps */
      pthread_mutex_lock(&lock);
      pthread_cond_signal(&done);
      pthread_mutex_unlock(&lock);
    }
  }
}

/* Opens a new epoch and wakes up to `count` sleeping workers. */
static void announce(uint64_t open, int64_t count) {
  uint64_t g = atomic_load(&gate);
  atomic_store(&gate, ((g & ~(uint64_t)(EPOCH - 1)) + EPOCH) | open);
  if (atomic_load(&sleepers) == 0) return;
  pthread_mutex_lock(&lock);
  if (count >= started) pthread_cond_broadcast(&work);
  else
    for (int64_t i = 0; i < count; i++) pthread_cond_signal(&work);
  pthread_mutex_unlock(&lock);
}

static void forked_child(void) {         /* the workers stayed with the parent, and a lock may have been held by one */
  pthread_mutex_init(&lock, NULL);
  pthread_cond_init(&work, NULL);
  pthread_cond_init(&done, NULL);
  atomic_store(&gate, 0);
  atomic_store(&sleepers, 0);
  atomic_store(&waiting, 0);
  atomic_store(&stopping, 0);
  started = 0;
  pool_size = 1;
  atomic_flag_clear(&busy);
  pthread_mutex_init(&noting, NULL);
  memset(notes, 0, sizeof notes);
  atomic_store(&mg_failures, 0);
  atomic_store(&mg_followed, 0);         /* the threads that had followers stayed with the parent */
}

__attribute__((constructor)) static void loaded(void) {
  has_key = pthread_key_create(&scratch_key, scratch_free) == 0;
  pthread_atfork(NULL, NULL, forked_child);
}

static void build_pool(int64_t threads) {
  if (started) {
    atomic_store(&stopping, 1);
    announce(0, started);
    for (int64_t i = 0; i < started; i++) pthread_join(workers[i], NULL);
    atomic_store(&stopping, 0);
  }
  pool_size = threads;
  started = 0;
  atomic_store(&spin_ns, threads <= cpus_allowed() ? SPIN_NS : 0);
  sigset_t all, before;                  /* signals belong to the threads that Python knows */
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  started_in = atomic_load(&gate) & ~(uint64_t)(EPOCH - 1);
  for (; has_key && started < threads - 1; started++) {
    scratch *own = of_worker[started] = calloc(1, sizeof *own);
    if (own) own->worker = (int)started + 1;
    if (!own || pthread_create(&workers[started], NULL, worker, own)) {
      free(own);
      break;
    }
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* ---- the interface ---- */

void mg_set_num_threads(int64_t n) { atomic_store(&wanted, n < 1 ? 0 : n > MAX_THREADS ? MAX_THREADS : n); }

int64_t mg_get_num_threads(void) {
  int64_t n = atomic_load_explicit(&wanted, memory_order_relaxed);
  if (n == 0) {
    n = cpus_allowed();
    mg_set_num_threads(n);
    n = n > MAX_THREADS ? MAX_THREADS : n;
  }
  return n;
}

void mg_parallel(int64_t n, int64_t grain, piece_fn *fn, void *context) {
  if (n <= 0) return;
  if (n <= grain) {
    fn(context, 0, n);
    return;
  }
  if (grain < 1) grain = 1;
  int64_t threads = mg_get_num_threads();
  if (threads > 1 && !atomic_flag_test_and_set(&busy)) {
    if (threads != pool_size) build_pool(threads);
    job.fn = fn;
    job.context = context;
    job.n = n;
    job.grain = grain;
    job.caller = pthread_self();
    job.followers = mg_is_followed() ? mg_followers() : NULL;
    const int64_t pieces = (n - 1) / grain + 1;
    job.shares = pieces < started + 1 ? pieces : started + 1;
    for (int64_t s = 0; s < job.shares; s++) {
      atomic_store_explicit(&share[s].next, pieces * s / job.shares, memory_order_relaxed);
      share[s].end = pieces * (s + 1) / job.shares;
    }
    atomic_store_explicit(&caller_cpu, this_cpu(), memory_order_relaxed);
    if (started) announce(OPEN, pieces - 1);
    run_pieces(0);
    if (started && (atomic_fetch_and(&gate, ~(uint64_t)OPEN) & INSIDE_MASK)
        && (beside_worker() || !spin_until(0, INSIDE_MASK, 0))) {
      pthread_mutex_lock(&lock);
      atomic_store(&waiting, 1);
      while (atomic_load(&gate) & INSIDE_MASK) pthread_cond_wait(&done, &lock);
      atomic_store(&waiting, 0);
      pthread_mutex_unlock(&lock);
    }
    atomic_flag_clear(&busy);
    return;
  }
  for (int64_t begin = 0; begin < n; begin += grain) fn(context, begin, n - begin < grain ? n : begin + grain);
}

/* ---- failures ---- */

static note *note_of(pthread_t thread) {
  for (int i = 0; i < NOTES; i++)
    if (notes[i].used && pthread_equal(notes[i].thread, thread)) return notes + i;
  return NULL;
}

void mg_fail(mg_reason reason, int64_t value, int64_t limit) {
  const scratch *s = pthread_getspecific(scratch_key);
  const pthread_t thread = s && s->worker ? job.caller : pthread_self();
  for (;;) {
    pthread_mutex_lock(&noting);
    note *free_one = note_of(thread), *found = free_one;
    for (int i = 0; i < NOTES && !free_one; i++)
      if (!notes[i].used) free_one = notes + i;
    if (free_one && !found) {            /* the first failure of a kernel counts */
      *free_one = (note){thread, 1, {reason, value, limit, NULL}};
      atomic_fetch_add(&mg_failures, 1);
    }
    pthread_mutex_unlock(&noting);
    if (free_one) return;
    sched_yield();
  }
}

int mg_failed_in(const char *kernel) {
  pthread_mutex_lock(&noting);
  note *found = note_of(pthread_self());
  if (found) found->what.kernel = kernel;
  pthread_mutex_unlock(&noting);
  return found != NULL;
}

int mg_take_failure(mg_failure *what) {
  pthread_mutex_lock(&noting);
  note *found = note_of(pthread_self());
  if (found) {
    *what = found->what;
    found->used = 0;
    atomic_fetch_sub(&mg_failures, 1);
  }
  pthread_mutex_unlock(&noting);
  return found != NULL;
}

/* ---- scratch memory ---- */

static void *scratch_of_thread(void) {
  scratch *s = pthread_getspecific(scratch_key);
  if (s || !has_key) return s;
  s = calloc(1, sizeof *s);
  if (s && pthread_setspecific(scratch_key, s)) {
    free(s);
    s = NULL;
  }
  return s;
}

void *mg_scratch(int slot, size_t bytes) {
  scratch *s = scratch_of_thread();
  void *p = NULL;
  if (s && s->bytes[slot] >= bytes && s->memory[slot]) return s->memory[slot];
  if (s) {
    free(s->memory[slot]);
    s->memory[slot] = NULL;
    if (posix_memalign(&p, 64, bytes ? bytes : 1)) p = NULL;
    s->memory[slot] = p;
    s->bytes[slot] = bytes;
  }
  if (!p) mg_fail(MG_NO_MEMORY, (int64_t)bytes, 0);
  return p;
}

/* ---- what follows the launches of a thread ---- */

const mg_follower *mg_followers(void) {
  const scratch *s = pthread_getspecific(scratch_key);
  return s ? s->followers : NULL;
}

int mg_follow(const mg_follower *list) {
  scratch *s = scratch_of_thread();
  if (s) s->followers = list;
  else mg_fail(MG_NO_MEMORY, sizeof *s, 0);
  return s != NULL;
}

static void empty(scratch *s) {
  for (int i = 0; i < SLOTS && s; i++) {
    free(s->memory[i]);
    s->memory[i] = NULL;
  }
}

void mg_fence(void) { atomic_thread_fence(memory_order_seq_cst); }

void mg_release_scratch(void) {
  empty(pthread_getspecific(scratch_key));
  if (atomic_flag_test_and_set(&busy)) return;           /* the workers compute */
  for (int64_t i = 0; i < started; i++) empty(of_worker[i]);
  atomic_flag_clear(&busy);
}
