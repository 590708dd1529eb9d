/* types: none */
/* The thread pool, the scratch memory of a thread, and the test which instructions this CPU has.
 *
 * Why a pool of our own: the usual run-times spin at their barriers and lose a factor of 100 when a core is taken away.
 * Here a worker looks for work for SPIN_NS at most and then sleeps; the caller does the same while it waits for the
 * last worker. Threads are created by the first call that has work for them, never at import; a forked child starts
 * without any and makes its own when it needs them.
 *
 * A region is n indices cut into pieces of `grain`. All threads that take part, the caller included, draw piece numbers
 * from one counter until all are drawn. Which thread computes a piece is chance; what is in it is not.
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
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define SPIN_NS 15000
#define MAX_THREADS 256
#define OPEN 1u
#define INSIDE 2u                        /* one worker */
#define INSIDE_MASK 0xFFFEu
#define EPOCH 0x10000u

typedef void piece_fn(void *context, int64_t begin, int64_t end);

static struct { piece_fn *fn; void *context; int64_t n, grain, pieces; } job;
static _Atomic int64_t next_piece;
static _Atomic uint64_t gate;
static atomic_flag busy = ATOMIC_FLAG_INIT;
static atomic_int sleepers, waiting, stopping;
static _Atomic int64_t wanted;           /* threads asked for; 0: as many as the CPUs we may run on */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work = PTHREAD_COND_INITIALIZER, done = PTHREAD_COND_INITIALIZER;
static pthread_t workers[MAX_THREADS];   /* this and the rest belongs to whoever holds `busy` */
static int64_t started;                  /* workers that run */
/* threads the pool was last built for: `started` + 1, or more if the system refused some */
static int64_t pool_size = 1;
static int watching_forks;
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

static void run_pieces(void) {
  int64_t i;
  while ((i = atomic_fetch_add_explicit(&next_piece, 1, memory_order_relaxed)) < job.pieces) {
    int64_t begin = i * job.grain;
    job.fn(job.context, begin, job.n - begin < job.grain ? job.n : begin + job.grain);
  }
}

static void *worker(void *start) {
  uint64_t seen = (uint64_t)(uintptr_t)start * EPOCH;      /* the epoch in which this worker was created: closed */
  for (;;) {
    if (!spin_until(seen, ~(uint64_t)(EPOCH - 1), 1)) {
      pthread_mutex_lock(&lock);
      atomic_fetch_add(&sleepers, 1);
      while (((atomic_load(&gate) ^ seen) & ~(uint64_t)(EPOCH - 1)) == 0) pthread_cond_wait(&work, &lock);
      atomic_fetch_sub(&sleepers, 1);
      pthread_mutex_unlock(&lock);
    }
    if (atomic_load(&stopping)) return NULL;
    uint64_t g = atomic_load(&gate);
    while ((g & OPEN) && !atomic_compare_exchange_weak(&gate, &g, g + INSIDE)) {}
    seen = g & ~(uint64_t)(EPOCH - 1);
    if (!(g & OPEN)) continue;
    run_pieces();
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
}

static void build_pool(int64_t threads) {
  if (started) {
    atomic_store(&stopping, 1);
    announce(0, started);
    for (int64_t i = 0; i < started; i++) pthread_join(workers[i], NULL);
    atomic_store(&stopping, 0);
  }
  if (!watching_forks) watching_forks = pthread_atfork(NULL, NULL, forked_child) == 0;
  pool_size = threads;
  started = 0;
  atomic_store(&spin_ns, threads <= cpus_allowed() ? SPIN_NS : 0);
  sigset_t all, before;                  /* signals belong to the threads that Python knows */
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  void *epoch = (void *)(uintptr_t)(atomic_load(&gate) / EPOCH);
  while (started < threads - 1 && pthread_create(&workers[started], NULL, worker, epoch) == 0) started++;
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
    job.pieces = (n - 1) / grain + 1;
    atomic_store_explicit(&next_piece, 0, memory_order_relaxed);
    if (started) announce(OPEN, job.pieces - 1);
    run_pieces();
    if (started && (atomic_fetch_and(&gate, ~(uint64_t)OPEN) & INSIDE_MASK) && !spin_until(0, INSIDE_MASK, 0)) {
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

/* ---- scratch memory ---- */

#define SLOTS 8
typedef struct { void *memory[SLOTS]; size_t bytes[SLOTS]; } scratch;
static _Thread_local scratch *mine;
static pthread_key_t scratch_key;        /* its destructor frees the memory of a thread that ends */
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;

static void scratch_free(void *p) {
  scratch *s = p;
  for (int i = 0; i < SLOTS; i++) free(s->memory[i]);
  free(s);
}

static void scratch_setup(void) { pthread_key_create(&scratch_key, scratch_free); }

static void *must(void *p, size_t bytes) {
  if (!p) {
    fprintf(stderr, "minigrad: out of memory for %zu bytes of kernel scratch\n", bytes);
    abort();
  }
  return p;
}

void *mg_scratch(int slot, size_t bytes) {
  scratch *s = mine;
  if (!s) {
    pthread_once(&scratch_once, scratch_setup);
    s = mine = must(calloc(1, sizeof *s), sizeof *s);
    pthread_setspecific(scratch_key, s);
  }
  if (s->bytes[slot] < bytes) {
    free(s->memory[slot]);
    void *p = NULL;
    s->memory[slot] = must(posix_memalign(&p, 64, bytes) ? NULL : p, bytes);
    s->bytes[slot] = bytes;
  }
  return s->memory[slot];
}
