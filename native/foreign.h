/* What a kernel from outside the tree is compiled with, in the place of minigrad.h: minigrad/devices/foreign.py writes
 * this file under that name. The text of such a kernel defines what minigrad.h and a kernel file say in two places:
 *
 *   KERNEL(TYPES, name, arguments) { ... }      at the beginning of a line
 *
 * All other words are those of the tree (README.md). Work is shared and work space had through the module, which gives
 * its services when it opens the library.
 */
#ifndef MINIGRAD_H
#define MINIGRAD_H

#include "types.h"
#include "workspace.h"
#include "runtime.h"

#define KERNEL(types, name, ...) void FN(name)(__VA_ARGS__)
#define WALK_LOOPS

static const mg_services *services;

void mg_parallel(int64_t n, int64_t grain, void (*fn)(void *context, int64_t begin, int64_t end), void *context) {
  services->parallel(n, grain, fn, context);
}
void *mg_scratch(int slot, size_t bytes) { return services->scratch(slot, bytes); }
atomic_int mg_followed;                  /* nothing follows kernels from outside the tree */
const mg_follower *mg_followers(void) { return NULL; }
void mg_written_piece(const void *piece, int64_t n) { (void)piece, (void)n; }
void mg_fail(mg_reason reason, int64_t value, int64_t limit) { services->fail(reason, value, limit); }

#endif
