/* The run-time services beside the kernels: CPU level, thread pool, scratch memory, replay. Python may call what is
 * between the cdef marks. */
#ifndef MINIGRAD_RUNTIME_H
#define MINIGRAD_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

typedef union { int64_t i; double d; } mg_word;
typedef struct { const char *name, *signature; void (*thunk)(const mg_word *); } mg_kernel;
extern const mg_kernel mg_kernels[];

int mg_cpu_level(void);

/* cdef */
void mg_set_num_threads(int64_t n);
int64_t mg_get_num_threads(void);
void mg_replay(uintptr_t words, int64_t count);
/* end */

/* fn(context, begin, end) over [0, n) in pieces of `grain` (the last may be shorter). Which piece holds which index
 * depends on n and grain alone, never on the number of threads: reductions that split by piece keep their bits.
 * Runs on the calling thread when n <= grain, inside another parallel region, or with one thread. */
void mg_parallel(int64_t n, int64_t grain, void (*fn)(void *context, int64_t begin, int64_t end), void *context);

/* At least `bytes` of 64-byte-aligned scratch memory of the calling thread, kept until it asks the same slot (0..7)
 * for more. Contents are undefined. */
void *mg_scratch(int slot, size_t bytes);

#endif
