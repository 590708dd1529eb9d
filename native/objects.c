/* types: none */
/* What the module needs of Python: the pool's blocks of memory, the call of kernels and of those bound to a plan, and
 * the exceptions of kernels that failed.
 *
 * A Block is a piece of memory, a Pool holds those of one size that nobody uses. When the last reference to a block is
 * dropped, the block goes back to the pool it was taken from, unless something else (a NumPy view, a DLPack consumer, a
 * captured program) still refers to its memory, `root`. This is C, not a `__del__`, for three reasons. It runs when
 * an object is really gone: a `__del__` of the user may bring back a tensor that the garbage collector found. No
 * bytecode runs, so Ctrl-C cannot arrive in the middle, where Python would print and forget it. And it is faster.
 *
 * A block in a pool does not refer to the pool: no cycles, a pool that is dropped frees its blocks at once.
 */
#include <Python.h>
#include <structmember.h>

#include "runtime.h"

typedef struct Block {
  PyObject_HEAD
  PyObject *root;                        /* owns the memory; all views of it refer to it */
  struct Pool *home;                     /* where it goes back; NULL while it is there, or if it is never pooled */
  long long base, ptr;                   /* addresses: of the first byte of root, of the first byte in use (aligned) */
  int64_t nbytes;                        /* that count as held */
  PyObject *np;                          /* an array over the memory, made for the layout of this number, or NULL */
  long long made_for;
  PyObject *view, *kept;                 /* weak references to the tensors that are views of it; devices/memory.py */
  long long room;
} Block;

typedef struct Pool {
  PyObject_HEAD
  Block **blocks;
  Py_ssize_t count, room;
  long long nbytes;                      /* of each block */
  int counted;                           /* 0 for a pool of a captured program */
  PyObject *freed;                       /* a list of the addresses of blocks that came back, or NULL */
} Pool;

static int64_t held, unused;             /* bytes of the blocks of all counted pools, and of those that are in them */
static PyTypeObject *block_type, *pool_type;
static PyObject *dead;                   /* a weak reference to nothing */

int64_t mg_pools_held(void) { return held; }
int64_t mg_pools_unused(void) { return unused; }

/* ---- Block(root, base, ptr, pool or None) ---- */

static PyObject *block_new(PyTypeObject *type, PyObject *arguments, PyObject *named) {
  PyObject *root, *home;
  long long base, ptr;
  if (!PyArg_ParseTuple(arguments, "OLLO", &root, &base, &ptr, &home)) return NULL;
  if (home != Py_None && Py_TYPE(home) != pool_type) {
    PyErr_SetString(PyExc_TypeError, "Block: home must be a Pool or None");
    return NULL;
  }
  Block *self = (Block *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
  if (!self) return NULL;
  Py_INCREF(root);
  self->root = root;
  self->base = base;
  self->ptr = ptr;
  self->room = 64;
  Py_INCREF(dead);
  self->view = dead;
  if (home != Py_None) {
    Py_INCREF(home);
    self->home = (Pool *)home;
    self->nbytes = self->home->counted ? self->home->nbytes : 0;
    held += self->nbytes;
  }
  return (PyObject *)self;
}

/* 1 if the pool has taken the block, with its last reference */
static int back(Pool *pool, Block *self) {
  if (pool->count == pool->room) {
    const Py_ssize_t room = 2 * pool->room + 4;
    Block **blocks = PyMem_Realloc(pool->blocks, (size_t)room * sizeof *blocks);
    if (!blocks) return 0;
    pool->blocks = blocks;
    pool->room = room;
  }
  Py_INCREF(self);                       /* from 0 to 1: the pool's */
  pool->blocks[pool->count++] = self;
  unused += self->nbytes;
  if (pool->freed) {
    PyObject *ptr = PyLong_FromLongLong(self->ptr);
    if (!ptr || PyList_Append(pool->freed, ptr)) PyErr_Clear();
    Py_XDECREF(ptr);
  }
  return 1;
}

/* Do only the block and its array refer to the memory? (The upper half holds flags in newer versions of Python.) */
static int alone(const Block *self) { return (uint32_t)Py_REFCNT(self->root) == (uint32_t)(1 + (self->np != NULL)); }

static PyObject *block_alone(PyObject *self, PyObject *none) { return PyBool_FromLong(alone((Block *)self)); }

static void block_dealloc(PyObject *object) {
  Block *self = (Block *)object;
  Pool *home = self->home;
  self->home = NULL;
  const int pooled = home && alone(self) && back(home, self);
  Py_XDECREF(home);
  if (pooled) return;
  PyTypeObject *type = Py_TYPE(self);
  held -= self->nbytes;
  Py_XDECREF(self->view);
  Py_XDECREF(self->kept);
  Py_XDECREF(self->np);
  Py_XDECREF(self->root);
  ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
  Py_DECREF(type);
}

static PyMemberDef block_members[] = {
  {"root", T_OBJECT_EX, offsetof(Block, root), READONLY, "the object that owns the memory"},
  {"base", T_LONGLONG, offsetof(Block, base), READONLY, "the address of its first byte"},
  {"ptr", T_LONGLONG, offsetof(Block, ptr), READONLY, "the address of the first byte in use"},
  {"np", T_OBJECT, offsetof(Block, np), 0, "an array over the memory; only views of it are handed out"},
  {"made_for", T_LONGLONG, offsetof(Block, made_for), 0, "the number of the layout of that array"},
  {"view", T_OBJECT, offsetof(Block, view), 0, "a weak reference to the last tensor that is a view of it"},
  {"kept", T_OBJECT, offsetof(Block, kept), 0, "weak references to the views before that one, or None"},
  {"room", T_LONGLONG, offsetof(Block, room), 0, "with so many of these, the dead ones are dropped"},
  {NULL, 0, 0, 0, NULL},
};
static PyMethodDef block_methods[] = {
  {"alone", block_alone, METH_NOARGS, "Does nothing but the block refer to its memory?"},
  {NULL, NULL, 0, NULL},
};
static PyType_Slot block_slots[] = {
  {Py_tp_new, block_new}, {Py_tp_dealloc, block_dealloc}, {Py_tp_members, block_members},
  {Py_tp_methods, block_methods},
  {Py_tp_doc, "Block(root, base, ptr, pool or None): a piece of memory, which goes back to its pool."}, {0, NULL}};
static PyType_Spec block_spec = {"minigrad._native.Block", sizeof(Block), 0, Py_TPFLAGS_DEFAULT, block_slots};

/* ---- Pool(nbytes, counted, a list or nothing) ---- */

static PyObject *pool_new(PyTypeObject *type, PyObject *arguments, PyObject *named) {
  long long nbytes;
  int counted;
  PyObject *freed = NULL;
  if (!PyArg_ParseTuple(arguments, "Lp|O", &nbytes, &counted, &freed)) return NULL;
  Pool *self = (Pool *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
  if (!self) return NULL;
  self->nbytes = nbytes;
  self->counted = counted;
  Py_XINCREF(freed);
  self->freed = freed;
  return (PyObject *)self;
}

/* The last block, with the reference of the pool, which is not empty. */
static Block *last_of(Pool *self) {
  Block *block = self->blocks[--self->count];
  unused -= block->nbytes;
  Py_INCREF(self);
  block->home = self;
  return block;
}

static PyObject *pool_pop(PyObject *object, PyObject *none) {
  Pool *self = (Pool *)object;
  if (self->count) return (PyObject *)last_of(self);
  PyErr_SetNone(PyExc_IndexError);
  return NULL;
}

static PyObject *pool_clear(PyObject *object, PyObject *none) {
  Pool *self = (Pool *)object;
  while (self->count) {
    Block *block = self->blocks[--self->count];
    unused -= block->nbytes;
    Py_DECREF(block);                    /* without a home: the memory is freed */
  }
  PyMem_Free(self->blocks);
  self->blocks = NULL;
  self->room = 0;
  Py_INCREF(Py_None);
  return Py_None;
}

static Py_ssize_t pool_length(PyObject *object) { return ((Pool *)object)->count; }

static void pool_dealloc(PyObject *object) {
  PyTypeObject *type = Py_TYPE(object);
  Py_DECREF(pool_clear(object, NULL));
  Py_XDECREF(((Pool *)object)->freed);
  ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
  Py_DECREF(type);
}

static PyMemberDef pool_members[] = {
  {"nbytes", T_LONGLONG, offsetof(Pool, nbytes), READONLY, "the size of its blocks"},
  {NULL, 0, 0, 0, NULL},
};
static PyMethodDef pool_methods[] = {
  {"pop", pool_pop, METH_NOARGS, "A block that nobody uses; IndexError if there is none."},
  {"clear", pool_clear, METH_NOARGS, "Frees the memory of all blocks in the pool."},
  {NULL, NULL, 0, NULL},
};
static PyType_Slot pool_slots[] = {
  {Py_tp_new, pool_new}, {Py_tp_dealloc, pool_dealloc}, {Py_tp_members, pool_members}, {Py_tp_methods, pool_methods},
  {Py_sq_length, pool_length}, {Py_tp_doc, "Pool(nbytes, counted): blocks of one size that nobody uses."}, {0, NULL}};
static PyType_Spec pool_spec = {"minigrad._native.Pool", sizeof(Pool), 0, Py_TPFLAGS_DEFAULT, pool_slots};

/* ---- launcher(row): the function that runs a kernel, given the address of its mg_kernel ----
 *
 * All kernels are called through their thunks, those of the module as those that are compiled later: one function that
 * converts arguments, instead of one for each kernel, as cffi makes them. */
int mg_raised(const char *called);

uintptr_t mg_services_address(void) {
  static const mg_services services = {mg_parallel, mg_scratch, mg_fail};
  return (uintptr_t)&services;
}

static PyObject *launch(PyObject *row, PyObject *const *arguments, Py_ssize_t count) {
  const mg_kernel *kernel = PyCapsule_GetPointer(row, NULL);
  const Py_ssize_t expected = (Py_ssize_t)strlen(kernel->signature);
  mg_word words[ARGUMENTS_MAX];
  if (count != expected)
    return PyErr_Format(PyExc_TypeError, "%s takes %zd arguments; got %zd", kernel->name, expected, count);
  for (Py_ssize_t i = 0; i < count; i++) {
    if (kernel->signature[i] == 'd') words[i].d = PyFloat_AsDouble(arguments[i]);
    else words[i].i = PyLong_AsLongLong(arguments[i]);
    if (words[i].i == -1 || words[i].d == -1)
      if (PyErr_Occurred()) return NULL;
  }
  Py_BEGIN_ALLOW_THREADS
  kernel->thunk(words);
  Py_END_ALLOW_THREADS
  if (atomic_load_explicit(&mg_failures, memory_order_relaxed) && mg_raised(kernel->name)) return NULL;
  Py_INCREF(Py_None);
  return Py_None;
}
static PyMethodDef launch_method = {"launch", (PyCFunction)(void (*)(void))launch, METH_FASTCALL, "Runs the kernel."};

static PyObject *launcher(PyObject *module, PyObject *address) {
  void *row = PyLong_AsVoidPtr(address);
  PyObject *capsule = row ? PyCapsule_New(row, NULL, NULL) : NULL;
  if (!capsule) return NULL;
  PyObject *function = PyCFunction_New(&launch_method, capsule);
  Py_DECREF(capsule);
  return function;
}
static PyMethodDef launcher_method = {"launcher", launcher, METH_O, "The function that runs the kernel of a row."};

/* ---- bound(row, walk, pool): a kernel with what is the same in each launch of a plan ----
 *
 * The function takes the addresses of the inputs, runs the kernel into a block of the pool, and returns the block: one
 * call instead of three. It returns None, and has done nothing, if the pool is empty or launches are watched (`watch`:
 * by hooks, or a recording); then the caller takes the general way. Small arrays keep Python's lock: giving it up and
 * taking it again would take a tenth of their time. */
#define QUICK 4096                       /* elements up to which the lock is kept: 1 us of sums, 100 us of double tan */
typedef struct { const mg_kernel *kernel; Pool *pool; const int64_t *walk; Py_ssize_t inputs; } Bound;
static atomic_int watchers;              /* one bit for each kind; mg_watch runs without Python's lock */
void mg_watch(int64_t kind, int64_t on) {
  if (on) atomic_fetch_or(&watchers, (int)kind);
  else atomic_fetch_and(&watchers, ~(int)kind);
}

static PyObject *run_bound(PyObject *capsule, PyObject *const *arguments, Py_ssize_t count) {
  const Bound *self = PyCapsule_GetPointer(capsule, NULL);
  mg_word words[ARGUMENTS_MAX];
  if (count != self->inputs)
    return PyErr_Format(PyExc_TypeError, "%s takes %zd inputs; got %zd", self->kernel->name, self->inputs, count);
  for (Py_ssize_t i = 0; i < count; i++) {
    words[1 + i].i = PyLong_AsLongLong(arguments[i]);
    if (words[1 + i].i == -1 && PyErr_Occurred()) return NULL;
  }
  if (atomic_load_explicit(&watchers, memory_order_relaxed) || !self->pool->count) {
    Py_INCREF(Py_None);
    return Py_None;
  }
  Block *block = last_of(self->pool);
  words[0].i = block->ptr;
  words[1 + count].i = (int64_t)(uintptr_t)self->walk;
  if (self->walk[1] <= QUICK) self->kernel->thunk(words);
  else {
    Py_BEGIN_ALLOW_THREADS
    self->kernel->thunk(words);
    Py_END_ALLOW_THREADS
  }
  if (atomic_load_explicit(&mg_failures, memory_order_relaxed) && mg_raised(self->kernel->name)) {
    Py_DECREF(block);
    return NULL;
  }
  return (PyObject *)block;
}
static PyMethodDef run_method = {"run", (PyCFunction)(void (*)(void))run_bound, METH_FASTCALL, "Runs the kernel."};

static void free_bound(PyObject *capsule) {
  Bound *self = PyCapsule_GetPointer(capsule, NULL);
  Py_DECREF(self->pool);
  PyMem_Free(self);
}

static PyObject *bound(PyObject *module, PyObject *arguments) {
  long long row, walk;
  PyObject *pool;
  if (!PyArg_ParseTuple(arguments, "LLO", &row, &walk, &pool)) return NULL;
  const mg_kernel *kernel = (const mg_kernel *)(uintptr_t)row;
  if (!row || !walk || Py_TYPE(pool) != pool_type) {
    PyErr_SetString(PyExc_TypeError, "bound: expected a row, the address of a walk, and a Pool");
    return NULL;
  }
  Bound *self = PyMem_Malloc(sizeof *self);
  if (!self) return PyErr_NoMemory();
  *self = (Bound){kernel, (Pool *)pool, (const int64_t *)(uintptr_t)walk, (Py_ssize_t)strlen(kernel->signature) - 2};
  Py_INCREF(pool);
  PyObject *capsule = PyCapsule_New(self, NULL, free_bound);
  if (!capsule) {
    Py_DECREF(pool);
    PyMem_Free(self);
    return NULL;
  }
  PyObject *function = PyCFunction_New(&run_method, capsule);
  Py_DECREF(capsule);
  return function;
}
static PyMethodDef bound_method = {"bound", bound, METH_VARARGS, "The function that runs a kernel of a plan."};

/* The module with its two types, `launcher` and `bound`; called at its import. */
PyObject *mg_with_types(PyObject *module) {
  if (!module) return NULL;
  block_type = (PyTypeObject *)PyType_FromSpec(&block_spec);
  pool_type = (PyTypeObject *)PyType_FromSpec(&pool_spec);
  PyObject *nothing = PySet_New(NULL);
  dead = nothing ? PyWeakref_NewRef(nothing, NULL) : NULL;
  Py_XDECREF(nothing);
  PyObject *function = PyCFunction_New(&launcher_method, NULL), *binder = PyCFunction_New(&bound_method, NULL);
  if (!block_type || !pool_type || !dead || !function || !binder ||
      PyObject_SetAttrString(module, "Block", (PyObject *)block_type) ||
      PyObject_SetAttrString(module, "Pool", (PyObject *)pool_type) ||
      PyObject_SetAttrString(module, "launcher", function) || PyObject_SetAttrString(module, "bound", binder)) {
    Py_DECREF(module);
    return NULL;
  }
  return module;
}

/* ---- exceptions ---- */

/* Raises the failure of this thread, if there is one; `called` is the C name of the function that Python called. */
int mg_raised(const char *called) {
  mg_failure f;
  if (!mg_take_failure(&f)) return 0;
  char name[64];
  const char *kernel = f.kernel ? f.kernel : strncmp(called, "_cffi_f_", 8) ? called : called + 8;
  snprintf(name, sizeof name, "%s", kernel);
  char *type = strrchr(name, '_');       /* "take_f32" is the kernel take */
  if (type && strlen(type) <= 4 && strpbrk(type, "0123456789")) *type = 0;
  if (f.reason == MG_NO_MEMORY)
    PyErr_Format(PyExc_MemoryError, "[%s] %lld bytes of work space are not to be had; use smaller tensors, or free "
                 "others first", name, (long long)f.value);
  else
    PyErr_Format(PyExc_IndexError, "[%s] index %lld is out of range for size %lld; it changed after it was checked: "
                 "do not write to an index that another thread uses", name, (long long)f.value, (long long)f.limit);
  return 1;
}
