/* types: f32 */
/* The loops of walk.h, which move elements of all types: one copy for each SIMD level. */
#define WALK_LOOPS
#include "types.h"
#include "walk.h"
