/* The run-time services beside the kernels: CPU level, thread pool, scratch memory, replay. Python may call what is
 * between the cdef marks. */
#ifndef MINIGRAD_RUNTIME_H
#define MINIGRAD_RUNTIME_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

typedef union { int64_t i; double d; } mg_word;
typedef struct { const char *name, *signature; void (*thunk)(const mg_word *); } mg_kernel;
extern const mg_kernel mg_kernels[];
enum { ARGUMENTS_MAX = 64 };             /* of a kernel; minigrad/devices/declared.py */

int mg_cpu_level(void);

/* cdef */
void mg_set_num_threads(int64_t n);
int64_t mg_get_num_threads(void);
void mg_replay(uintptr_t words, int64_t count);
uintptr_t mg_services_address(void);     /* of the mg_services that a library of foreign kernels is opened with */
void mg_release_scratch(void);           /* of this thread, and of the pool's if they are idle */
int64_t mg_pools_held(void);             /* bytes of all blocks of counted pools */
int64_t mg_pools_unused(void);           /* bytes of those that nobody uses */
enum { MG_HOOKS = 1, MG_RECORDING = 2 };
void mg_watch(int64_t kind, int64_t on);     /* launches are watched, by hooks or a recording (objects.c) */
void mg_fence(void);                     /* between processes: what this one wrote before is seen before what it writes after */
/* end */

/* fn(context, begin, end) over [0, n) in pieces of `grain` (the last may be shorter). Which piece holds which index
 * depends on n and grain alone, never on the number of threads: reductions that split by piece keep their bits.
 * Runs on the calling thread when n <= grain, inside another parallel region, or with one thread. */
void mg_parallel(int64_t n, int64_t grain, void (*fn)(void *context, int64_t begin, int64_t end), void *context);

/* A captured step may run elementwise launches on each piece of another launch's output as soon as it is written, while
 * it is in the caches (program.c). A kernel that offers this (`pieces` beside its op) says after each piece, when its
 * values are final, that n elements from `piece` on are written; and again if it wrote them anew. Results that something
 * follows must not be stored past the caches. */
typedef int64_t mg_follower;             /* program.c says what a list of them holds */
extern atomic_int mg_followed;           /* threads with followers: 0 almost always */
const mg_follower *mg_followers(void);   /* those of this thread, in a region those of its caller; or NULL */
int mg_follow(const mg_follower *list);  /* sets them, NULL for none; 0 if there is no memory */
void mg_written_piece(const void *piece, int64_t n);
static inline int mg_is_followed(void) {
  return atomic_load_explicit(&mg_followed, memory_order_relaxed) && mg_followers();
}
static inline void mg_written(const void *piece, int64_t n) {
  if (atomic_load_explicit(&mg_followed, memory_order_relaxed)) mg_written_piece(piece, n);
}

/* At least `bytes` of 64-byte-aligned scratch memory of the calling thread, kept until it asks the same slot (0..7)
 * for more. Contents are undefined. NULL if there is none: the failure is noted, and the kernel returns. */
void *mg_scratch(int slot, size_t bytes);

/* A kernel that cannot give its result notes why by mg_fail, and returns; what it wrote counts for nothing. Its caller
 * raises the exception. MG_NO_MEMORY: value bytes of scratch; MG_BAD_INDEX: value is not in [0, limit). */
typedef enum { MG_NO_MEMORY, MG_BAD_INDEX } mg_reason;
typedef struct { mg_reason reason; int64_t value, limit; const char *kernel; } mg_failure;
void mg_fail(mg_reason reason, int64_t value, int64_t limit);

/* What kernels that are compiled outside the module call in it: native/foreign.h. */
typedef struct {
  void (*parallel)(int64_t n, int64_t grain, void (*fn)(void *context, int64_t begin, int64_t end), void *context);
  void *(*scratch)(int slot, size_t bytes);
  void (*fail)(mg_reason reason, int64_t value, int64_t limit);
} mg_services;

extern atomic_int mg_failures;           /* noted and not yet taken, of all threads: 0 almost always */
int mg_failed_in(const char *kernel);    /* has this thread a failure? If so, it was in this kernel */
int mg_take_failure(mg_failure *what);   /* 1 and the failure of this thread, which is no longer noted; or 0 */

#endif
