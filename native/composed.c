/* types: none */
/* The update of an optimiser that has no kernel of its own: a program of elementwise kernels, for each parameter of a
 * table (optim.c). minigrad/optim/together.py writes it down from the optimiser's definition. The plain loop is
 *
 *     for each row:    step += 1, then the lines of numbers; the lines of elements; the lines that store numbers
 *
 * and the fast one runs the lines of elements on one piece of the parameter after the other, while that and what is in
 * between are in the first cache. The bits are those of the definition: the kernels are the same.
 *
 *     program   bytes of an element, of the numbers, of the scratch arrays; elements of a piece; a bit for each column
 *               of the table that holds elements; the lines of numbers, those that fill a scratch array with one, those
 *               of elements, those that store; where the lines begin, in this order; before, values that they point to
 *     a line    address of the kernel's row (mg_kernel), number of operands, the operands, the output first
 *     operand   base, 1 << 4 if each element has its own, and 32 times its bytes from there. A base is a column of the
 *               table, or one of the enum. */
#include "workspace.h"
#include "runtime.h"

#include <string.h>

enum { ELEMENT_BYTES, NUMBER_BYTES, SCRATCH_BYTES, PIECE, COLUMNS, NUMBERS, SPREAD, ELEMENTS, STORES, LINES_AT };
enum { STEP_ = 5, SIZE, SCRATCH, NUMBER, HYPER, PROGRAM, BASES };
enum { OPERANDS = 4, ELEMENTS_PER_THREAD = 1 << 14 };

typedef struct { const int64_t *program, *line; int64_t elements; char *base[BASES]; } Update;

/* `count` lines on n elements; returns the next line. */
static const int64_t *run(const int64_t *line, int64_t count, char *const *base, int64_t n) {
  for (; count > 0; count--) {
    const mg_kernel *kernel = (const mg_kernel *)(uintptr_t)line[0];
    const int64_t operands = line[1];
    mg_word now[OPERANDS + 1];
    int64_t plan[3 + OPERANDS] = {1, n, n};
    line += 2;
    for (int64_t i = 0; i < operands; i++) {
      now[i].i = (int64_t)(uintptr_t)(base[line[i] & 15] + (line[i] >> 5));
      plan[3 + i] = line[i] >> 4 & 1;
    }
    now[operands].i = (int64_t)(uintptr_t)plan;
    kernel->thunk(now);
    line += operands;
  }
  return line;
}

static void pieces(void *context, int64_t begin, int64_t end) {
  const Update *u = context;
  const int64_t *program = u->program;
  char *base[BASES];
  memcpy(base, u->base, sizeof base);
  if (!(base[SCRATCH] = mg_scratch(0, (size_t)program[SCRATCH_BYTES]))) return;
  const int64_t most = end - begin < program[PIECE] ? end - begin : program[PIECE];
  const int64_t *line = run(u->line, program[SPREAD], base, most);
  /* from beyond the caches the hardware fetches too late: each piece begins anew */
  const int large = 4 * u->elements * program[ELEMENT_BYTES] > MG_CACHED_BYTES;
  for (int64_t n; begin < end; begin += n) {
    n = end - begin < most ? end - begin : most;
    for (int c = 0; c < STEP_; c++)
      if (program[COLUMNS] >> c & 1) base[c] = u->base[c] + begin * program[ELEMENT_BYTES];
    const int64_t *at = line, lines = program[ELEMENTS], bytes = n * program[ELEMENT_BYTES];
    for (int64_t i = 0; i < lines; i++) {
      at = run(at, 1, base, n);
      if (large && begin + n < end)                      /* of the next piece, a share with each line */
        for (int c = 0; c < STEP_; c++)
          if (program[COLUMNS] >> c & 1)
            for (int64_t b = bytes * i / lines & -64; b < bytes * (i + 1) / lines; b += 64)
              __builtin_prefetch(base[c] + bytes + b, 1, 3);
    }
  }
}

void composed_update(const int64_t *table, const double *hyper, int64_t count, const int64_t *program) {
  Update u = {.program = program};
  char **base = u.base;
  base[HYPER] = (char *)hyper;
  base[PROGRAM] = (char *)program;
  if (!(base[NUMBER] = mg_scratch(1, (size_t)program[NUMBER_BYTES]))) return;
  for (const int64_t *row = table; count > 0; count--, row += MG_OPTIM_COLUMNS) {
    for (int c = 0; c <= STEP_; c++) base[c] = (char *)(uintptr_t)row[c];
    *(double *)base[STEP_] += 1;
    u.line = run(program + program[LINES_AT], program[NUMBERS], base, 1);
    u.elements = row[SIZE];
    mg_parallel(u.elements, ELEMENTS_PER_THREAD, pieces, &u);
    const int64_t *line = u.line;
    for (int64_t i = 0; i < program[SPREAD] + program[ELEMENTS]; i++) line += 2 + line[1];
    run(line, program[STORES], base, 1);
  }
}
