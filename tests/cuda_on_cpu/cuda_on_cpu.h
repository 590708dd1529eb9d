// cuda_on_cpu.h: compile a CUDA C kernel file as C++ and run it on the CPU, for tests.
//
//   g++ -std=c++17 -include cuda_on_cpu.h kernels.cu ...     (emulator.py does this)
//
// One OS thread runs everything. Each CUDA thread is a fiber with its own stack; a fiber gives up
// the CPU only at __syncthreads() and at warp collectives. Blocks run one after another.
// Three builds of the same source:
//   default          __shared__ lives in the module's TLS segment, filled with 0xFF (NaN) before each block
//   CUOC_ASAN        with -fsanitize=address: __shared__ are ordinary statics, so ASan guards them
//   CUOC_RACECHECK   with -fsanitize=thread at compile time only: this header supplies the __tsan_* hooks
//                    and reports data races by CUDA's rules (see racecheck.h)
#pragma once
#include <algorithm>
#include <cfloat>
#include <climits>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>
#include <dlfcn.h>
#include <link.h>
#include <math.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif
#if !defined(__x86_64__) || defined(CUOC_UCONTEXT)
#define CUOC_USE_UCONTEXT 1
#endif
#ifdef CUOC_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#define CUDA_ON_CPU 1
#ifndef __CUDA_ARCH__
#define __CUDA_ARCH__ 900
#endif
#define __global__
#define __device__
#define __host__
#define __constant__
#define __managed__
#define __grid_constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#ifdef CUOC_RACECHECK
#define CUOC_ENGINE __attribute__((no_sanitize_thread, noinline))
#else
#define CUOC_ENGINE
#endif
#ifdef CUOC_ASAN
#define __shared__ static
#else
#define __shared__ static thread_local
#endif
// emulator.py turns "extern __shared__" into this and defines the buffer; all such names share one address
#define CUOC_DYN_SHARED extern

// ---------------------------------------------------------------- vector types
#define CUOC_VEC(T, N, A2, A3, A4)                                                                 \
  struct N##1 { T x; };                                                                            \
  struct alignas(A2) N##2 { T x, y; };                                                             \
  struct N##3 { T x, y, z; };                                                                      \
  struct alignas(A4) N##4 { T x, y, z, w; };                                                       \
  static inline N##1 make_##N##1(T x) { return {x}; }                                              \
  static inline N##2 make_##N##2(T x, T y) { return {x, y}; }                                      \
  static inline N##3 make_##N##3(T x, T y, T z) { return {x, y, z}; }                              \
  static inline N##4 make_##N##4(T x, T y, T z, T w) { return {x, y, z, w}; }
CUOC_VEC(signed char, char, 2, 1, 4)
CUOC_VEC(unsigned char, uchar, 2, 1, 4)
CUOC_VEC(short, short, 4, 2, 8)
CUOC_VEC(unsigned short, ushort, 4, 2, 8)
CUOC_VEC(int, int, 8, 4, 16)
CUOC_VEC(unsigned, uint, 8, 4, 16)
CUOC_VEC(long long, longlong, 16, 8, 16)
CUOC_VEC(unsigned long long, ulonglong, 16, 8, 16)
CUOC_VEC(float, float, 8, 4, 16)
CUOC_VEC(double, double, 16, 8, 16)
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
static uint3 threadIdx, blockIdx;  // rewritten by the scheduler on every switch
static dim3 blockDim, gridDim;
static constexpr int warpSize = 32;

// ---------------------------------------------------------------- engine
namespace cuoc {
enum State : uint8_t { READY, AT_BARRIER, AT_WARP, DONE };
enum Kind : uint8_t { SHFL, VOTE, MATCH, WSYNC };
constexpr unsigned kMax = 1024, kWarp = 32;
#ifdef CUOC_ASAN
constexpr size_t kStack = 512 << 10;
#else
constexpr size_t kStack = 128 << 10;
#endif
constexpr size_t kDynMax = 227 << 10, kCanary = 1024;

struct Thread {
#ifdef CUOC_USE_UCONTEXT
  ucontext_t ctx;
#else
  void *sp;
#endif
  char *stack;
  uint3 idx;
  State st;
  Kind kind;
  const char *op;              // what it waits in, for messages
  int line, src;
  unsigned mask;
  unsigned warp_epoch;         // __syncwarp / __syncthreads seen, for racecheck
  alignas(16) unsigned char val[16], res[16];
};
struct Launch { void (*thunk)(void **); void **args; unsigned shared, order, seed; bool strict, ftz; };

static Thread *T;              // kMax threads
static Thread *cur;
static unsigned n_threads, n_done, n_bar, block_id, bar_epoch;
static int bar_pred_and, bar_pred_or, bar_pred_count, bar_res[3];
static unsigned alive[kMax / kWarp], waiting[kMax / kWarp];  // per warp: lanes not exited, lanes in a collective
static Launch L;
static bool failed, in_kernel;
static char error[2048];
#ifdef CUOC_USE_UCONTEXT
static ucontext_t sched_ctx;
#else
static void *sched_sp;
#endif
static unsigned char *dyn_base;
static inline unsigned lane_id() { return unsigned(cur - T) % kWarp; }
CUOC_ENGINE static void note(const char *fmt, ...);
}  // namespace cuoc
#ifdef CUOC_RACECHECK
#include "racecheck.h"
#else
namespace cuoc { static inline void rc_atomic(void *, size_t, void *) {} static inline void rc_fence() {} }
#endif

#ifndef CUOC_USE_UCONTEXT
extern "C" void cuoc_switch(void **save, void *load);
asm(R"(
.text
.hidden cuoc_switch
.globl cuoc_switch
.type cuoc_switch,@function
cuoc_switch:
  push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp
  ret
.size cuoc_switch,.-cuoc_switch
)");
#endif

namespace cuoc {
CUOC_ENGINE static void to_scheduler() {
#ifdef CUOC_ASAN
  void *fake; __sanitizer_start_switch_fiber(&fake, nullptr, 0);
#endif
#ifdef CUOC_USE_UCONTEXT
  swapcontext(&cur->ctx, &sched_ctx);
#else
  cuoc_switch(&cur->sp, sched_sp);
#endif
#ifdef CUOC_ASAN
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}
CUOC_ENGINE static void resume(Thread *t) {
  cur = t;
  threadIdx = t->idx;
  in_kernel = true;
#ifdef CUOC_ASAN
  void *fake; __sanitizer_start_switch_fiber(&fake, t->stack, kStack);
#endif
#ifdef CUOC_USE_UCONTEXT
  swapcontext(&sched_ctx, &t->ctx);
#else
  cuoc_switch(&sched_sp, t->sp);
#endif
  in_kernel = false;
#ifdef CUOC_ASAN
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}
static void try_collective(Thread *t);
CUOC_ENGINE static void fiber_main() {
#ifdef CUOC_ASAN
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
  L.thunk(L.args);
  cur->st = DONE;
  n_done++;
  unsigned w = unsigned(cur - T) / kWarp;
  alive[w] &= ~(1u << lane_id());
  for (unsigned l = 0; l < kWarp; l++)
    if (waiting[w] >> l & 1) try_collective(T + w * kWarp + l);
  to_scheduler();
  __builtin_trap();
}
CUOC_ENGINE static void note(const char *fmt, ...) {
  size_t n = strlen(error);
  va_list ap; va_start(ap, fmt);
  vsnprintf(error + n, sizeof error - n, fmt, ap);
  va_end(ap);
}
// Stops the launch: never returns to the kernel.
[[noreturn]] CUOC_ENGINE static void fail_here(const char *what, const char *file, int line) {
  if (!failed)
    note(file ? "%s at %s:%d" : "%s", what, file, line),
    note(", block (%u,%u,%u) thread (%u,%u,%u)", blockIdx.x, blockIdx.y, blockIdx.z, cur->idx.x, cur->idx.y, cur->idx.z);
  failed = true;
  to_scheduler();
  __builtin_trap();
}
#if defined(__x86_64__)
// A fault in a kernel becomes an error of the launch: the handler makes the fiber go on in fault_landing.
// SIGILL is how -fsanitize=undefined reports when told to trap. Under ASan, SIGSEGV is left to ASan.
static uintptr_t fault_addr, fault_pc;
static int fault_sig;
CUOC_ENGINE static void fault_landing() {
  char what[160]; Dl_info d; dladdr((void *)&fault_landing, &d);
  size_t off = fault_pc - (uintptr_t)d.dli_fbase;
  if (fault_sig == SIGILL) snprintf(what, sizeof what, "undefined behaviour (array index, misaligned vector, overflow, shift) {+0x%zx}", off);
  else snprintf(what, sizeof what, "illegal memory access to 0x%zx {+0x%zx}", size_t(fault_addr), off);
  fail_here(what, nullptr, 0);
}
CUOC_ENGINE static void on_fault(int sig, siginfo_t *si, void *uc) {
  if (!in_kernel) { signal(sig, SIG_DFL); return; }
  auto *g = ((ucontext_t *)uc)->uc_mcontext.gregs;
  fault_addr = (uintptr_t)si->si_addr, fault_pc = g[REG_RIP], fault_sig = sig;
  g[REG_RSP] = (((uintptr_t)cur->stack + kStack / 2) & ~uintptr_t(15)) - 8;
  g[REG_RIP] = (greg_t)(uintptr_t)&fault_landing;
}
struct FaultGuard {
#ifdef CUOC_ASAN
  static constexpr int sigs[] = {SIGILL};
#else
  static constexpr int sigs[] = {SIGILL, SIGSEGV, SIGBUS};
#endif
  struct sigaction old[3]; stack_t old_stack;
  FaultGuard() {
    static char alt[64 << 10];
    stack_t s{}; s.ss_sp = alt, s.ss_size = sizeof alt;
    sigaltstack(&s, &old_stack);
    struct sigaction a{}; a.sa_sigaction = on_fault, a.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (size_t i = 0; i < sizeof sigs / sizeof *sigs; i++) sigaction(sigs[i], &a, &old[i]);
  }
  ~FaultGuard() {
    for (size_t i = 0; i < sizeof sigs / sizeof *sigs; i++) sigaction(sigs[i], &old[i], nullptr);
    sigaltstack(&old_stack, nullptr);
  }
};
#else
struct FaultGuard {};
#endif

CUOC_ENGINE static void release_barrier() {
  n_bar = 0;
  bar_epoch++;
  bar_res[0] = bar_pred_count, bar_res[1] = bar_pred_and, bar_res[2] = bar_pred_or;
  bar_pred_count = bar_pred_or = 0, bar_pred_and = 1;
  for (unsigned i = 0; i < n_threads; i++)
    if (T[i].st == AT_BARRIER) T[i].st = READY, T[i].warp_epoch++;
}
CUOC_ENGINE static void barrier(int pred, int line) {
  cur->op = "__syncthreads", cur->line = line, cur->mask = 0, cur->st = AT_BARRIER;
  bar_pred_count += !!pred, bar_pred_and &= !!pred, bar_pred_or |= !!pred;
  n_bar++;
  to_scheduler();
}
// Completes the collective that lane `t` waits in, if every lane of its mask that has not exited is there.
CUOC_ENGINE static void try_collective(Thread *t) {
  unsigned w = unsigned(t - T) / kWarp, mask = t->mask, here = mask & alive[w];
  if ((waiting[w] & here) != here) return;
  Thread *W = T + w * kWarp;
  for (unsigned l = 0; l < kWarp; l++)
    if ((here >> l & 1) && (W[l].mask != mask || W[l].kind != t->kind)) return;
  for (unsigned l = 0; l < kWarp; l++) {
    if (!(here >> l & 1)) continue;
    Thread &u = W[l];
    if (u.kind == SHFL) {
      if (u.src >= 0 && (here >> u.src & 1)) memcpy(u.res, W[u.src].val, 16);
      else memset(u.res, 0xFF, 16);  // undefined on the GPU: NaN or -1 here
    } else if (u.kind == WSYNC) {
      u.warp_epoch++;
    } else {
      unsigned b = 0;
      for (unsigned j = 0; j < kWarp; j++)
        if (here >> j & 1) b |= unsigned(u.kind == VOTE ? W[j].val[0] : !memcmp(W[j].val, u.val, 16)) << j;
      memcpy(u.res, &b, 4);
    }
    u.st = READY;
  }
  waiting[w] &= ~here;
}
CUOC_ENGINE static void collective(Kind kind, const char *op, unsigned mask, int src, int line) {
  if (!(mask >> lane_id() & 1)) fail_here("calling lane is not in the mask of its warp collective", op, line);
  cur->kind = kind, cur->op = op, cur->mask = mask, cur->src = src, cur->line = line, cur->st = AT_WARP;
  waiting[unsigned(cur - T) / kWarp] |= 1u << lane_id();
  try_collective(cur);
  if (cur->st == AT_WARP) to_scheduler();  // the last lane to arrive goes on without a switch
}
template <class V> static inline V exchange(const char *op, unsigned mask, V v, int src, int line) {
  static_assert(sizeof(V) <= 16 && std::is_trivially_copyable_v<V>);
  memcpy(cur->val, &v, sizeof v);
  collective(SHFL, op, mask, src, line);
  V r; memcpy(&r, cur->res, sizeof r);
  return r;
}
static inline unsigned vote(const char *op, unsigned mask, int pred, int line) {
  cur->val[0] = !!pred;
  collective(VOTE, op, mask, 0, line);
  unsigned r; memcpy(&r, cur->res, 4);
  return r;
}

CUOC_ENGINE static unsigned rnd() { L.seed = L.seed * 1664525u + 1013904223u; return L.seed >> 8; }
// order 0: ascending, 1: descending, 2: shuffled. A correct kernel gives the same answer under each.
CUOC_ENGINE static void permute(std::vector<unsigned> &v, size_t n) {
  v.resize(n);
  for (size_t i = 0; i < n; i++) v[i] = L.order == 1 ? n - 1 - i : i;
  if (L.order == 2) for (size_t i = n; i > 1; i--) std::swap(v[i - 1], v[rnd() % i]);
}
CUOC_ENGINE static void start(Thread &t) {
#ifdef CUOC_ASAN
  __asan_unpoison_memory_region(t.stack, kStack);   // a thread ends inside to_scheduler(), whose frame is never left
#endif
#ifdef CUOC_USE_UCONTEXT
  getcontext(&t.ctx);
  t.ctx.uc_stack.ss_sp = t.stack, t.ctx.uc_stack.ss_size = kStack, t.ctx.uc_link = nullptr;
  makecontext(&t.ctx, fiber_main, 0);
#else
  void **p = (void **)(t.stack + kStack) - 8;  // six registers, return address, alignment
  for (int i = 0; i < 8; i++) p[i] = nullptr;
  p[6] = (void *)fiber_main;
  t.sp = p;
#endif
  t.st = READY, t.warp_epoch = 0, t.op = "";
}
CUOC_ENGINE static void stuck(const char *why) {
  note("%s in block (%u,%u,%u): %u of %u threads exited", why, blockIdx.x, blockIdx.y, blockIdx.z, n_done, n_threads);
  int shown = 0;
  for (unsigned i = 0, j; i < n_threads && shown < 6; i = j) {   // runs of threads waiting at the same place
    auto same = [&](Thread &a, Thread &b) { return a.st == b.st && (a.st == DONE || (a.line == b.line && a.mask == b.mask)); };
    for (j = i; j < n_threads && same(T[i], T[j]);) j++;
    if (T[i].st == DONE) note("; threads %u..%u exited", i, j - 1);
    else if (T[i].st == AT_BARRIER) note("; threads %u..%u in %s at line %d", i, j - 1, T[i].op, T[i].line);
    else note("; threads %u..%u in %s at line %d with mask 0x%x", i, j - 1, T[i].op, T[i].line, T[i].mask);
    shown++;
  }
  failed = true;
}
CUOC_ENGINE static void check_barrier() {
  const Thread *first = nullptr;
  for (unsigned i = 0; i < n_threads; i++) {
    if (T[i].st != AT_BARRIER) continue;
    if (first && T[i].line != first->line) return stuck("divergent __syncthreads");
    first = &T[i];
  }
  if (n_done && L.strict) return stuck("__syncthreads not reached by all threads");
  release_barrier();
}
CUOC_ENGINE static void run_block() {
  static std::vector<unsigned> warps, lanes;
  n_done = n_bar = 0;
  bar_pred_count = bar_pred_or = 0, bar_pred_and = 1;
  memset(alive, 0, sizeof alive), memset(waiting, 0, sizeof waiting);
  for (unsigned i = 0; i < n_threads; i++) start(T[i]), alive[i / kWarp] |= 1u << i % kWarp;
  permute(warps, (n_threads + kWarp - 1) / kWarp);
  while (n_done < n_threads) {
    bool progress = false;
    for (unsigned w : warps) {
      permute(lanes, kWarp);
      for (bool again = true; again;) {
        again = false;
        for (unsigned l : lanes) {
          unsigned i = w * kWarp + l;
          if (i >= n_threads || T[i].st != READY) continue;
          resume(&T[i]);
          if (failed) return;
          again = progress = true;
        }
      }
    }
    if (n_done < n_threads && n_bar && n_bar + n_done == n_threads) check_barrier();
    else if (!progress) stuck("deadlock");
    if (failed) return;
  }
}
// The module's own TLS segment holds exactly its __shared__ variables (and one anchor byte).
static thread_local char tls_anchor;
struct Segment { char *p; size_t n; };
CUOC_ENGINE static Segment shared_segment() {
  Segment s{nullptr, 0};
#ifndef CUOC_ASAN
  tls_anchor = 1;
  asm volatile("" ::: "memory");
  dl_iterate_phdr([](dl_phdr_info *i, size_t, void *out) {
    for (int k = 0; k < i->dlpi_phnum; k++)
      if (i->dlpi_phdr[k].p_type == PT_TLS && i->dlpi_tls_data) {
        char *p = (char *)i->dlpi_tls_data; size_t n = i->dlpi_phdr[k].p_memsz;
        if (&tls_anchor >= p && &tls_anchor < p + n) *(Segment *)out = {p, n};
      }
    return 0;
  }, &s);
#endif
  return s;
}
// The fibers' stacks, each with a guard page under it: one set for all modules of a process, since guard pages are dear (a
// process may have 65530 mappings). The first module makes them, emulator.py hands them to the others.
static char *stacks;
constexpr size_t kStep = kStack + 4096;
CUOC_ENGINE static char *make_stacks() {
  char *p = (char *)mmap(nullptr, kStep * kMax, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  for (unsigned i = 0; i < kMax; i++) mprotect(p + i * kStep, 4096, PROT_NONE);
  return p;
}
CUOC_ENGINE static void make_threads() {
  if (T) return;
  T = new Thread[kMax]();
  for (unsigned i = 0; i < kMax; i++) T[i].stack = stacks + i * kStep + 4096;
#ifdef CUOC_RACECHECK
  rc_ignore(stacks, kStep * kMax);
#endif
}
CUOC_ENGINE static int launch(dim3 grid, dim3 block, const Launch &l, unsigned char *dyn, char *err, size_t n) {
  L = l, gridDim = grid, blockDim = block, failed = false, error[0] = 0, dyn_base = dyn;
  make_threads();
  n_threads = block.x * block.y * block.z;
  for (unsigned i = 0; i < n_threads; i++)
    T[i].idx = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
  Segment seg = shared_segment();
  FaultGuard guard; (void)guard;
#if defined(__x86_64__)
  unsigned csr = _mm_getcsr();
  if (l.ftz) _mm_setcsr(csr | 0x8040);  // flush-to-zero, denormals-are-zero: CuPy compiles with -ftz=true
#endif
#ifdef CUOC_RACECHECK
  rc_begin(size_t(grid.x) * grid.y * grid.z, seg.p, seg.n, dyn, kDynMax);
#endif
#ifdef CUOC_ASAN
  if (dyn) __asan_poison_memory_region(dyn + l.shared, kDynMax + kCanary - l.shared);
#endif
  std::vector<unsigned> order;
  permute(order, size_t(grid.x) * grid.y * grid.z);
  for (unsigned b : order) {
    block_id = b;
    blockIdx = {b % grid.x, b / grid.x % grid.y, b / (grid.x * grid.y)};
    if (seg.n) memset(seg.p, 0xFF, seg.n);
    if (dyn) memset(dyn, 0xFF, l.shared);
#ifndef CUOC_ASAN
    if (dyn) memset(dyn + l.shared, 0xA5, kCanary);
#endif
#ifdef CUOC_RACECHECK
    rc_block();
#endif
    run_block();
#ifndef CUOC_ASAN
    for (size_t i = 0; dyn && !failed && i < kCanary; i++)
      if (dyn[l.shared + i] != 0xA5)
        note("dynamic shared memory: byte %zu written, only %u given to the launch", l.shared + i, l.shared), failed = true;
#endif
    if (failed) break;
  }
#ifdef CUOC_ASAN
  if (dyn) __asan_unpoison_memory_region(dyn, kDynMax + kCanary);
  if (failed) for (unsigned i = 0; i < n_threads; i++) __asan_unpoison_memory_region(T[i].stack, kStack);
#endif
#if defined(__x86_64__)
  _mm_setcsr(csr);
#endif
  snprintf(err, n, "%s", error);
  return failed;
}
// How a kernel is called and what it takes: letters p pointer, i/u/f number, b bool, s struct; then sizes.
struct Arg { char kind, to; unsigned size, to_size; };
template <class A> constexpr char kind_of() {
  using B = std::remove_cv_t<A>;
  return std::is_pointer_v<B> ? 'p' : std::is_same_v<B, bool> ? 'b' : std::is_floating_point_v<B> ? 'f'
       : std::is_integral_v<B> ? (std::is_signed_v<B> ? 'i' : 'u') : std::is_void_v<B> ? 'v' : 's';
}
template <class A> constexpr Arg arg_of() {
  using P = std::remove_pointer_t<std::remove_cv_t<A>>;
  unsigned ts = 0; char to = 0;
  if constexpr (std::is_pointer_v<std::remove_cv_t<A>>) {
    to = kind_of<P>();
    if constexpr (!std::is_void_v<P>) ts = sizeof(P);
  }
  return {kind_of<A>(), to, unsigned(sizeof(A)), ts};
}
struct Kernel { const char *name; void (*thunk)(void **); const Arg *args; int n; };
template <auto F> struct Bind;
template <class... A, void (*F)(A...)> struct Bind<F> {
  static constexpr Arg args[sizeof...(A) + 1] = {arg_of<A>()..., Arg{}};
  template <size_t... I> static void go(void **p, std::index_sequence<I...>) {
    (void)p; F(*(std::remove_const_t<A> *)p[I]...);
  }
  static void thunk(void **p) { go(p, std::index_sequence_for<A...>{}); }
  static constexpr Kernel kernel(const char *name) { return {name, thunk, args, int(sizeof...(A))}; }
};
}  // namespace cuoc

// ---------------------------------------------------------------- what kernels call
#define CUOC_LINE int line = __builtin_LINE()
static inline void __syncthreads(CUOC_LINE) { cuoc::barrier(0, line); }
static inline int __syncthreads_count(int p, CUOC_LINE) { cuoc::barrier(p, line); return cuoc::bar_res[0]; }
static inline int __syncthreads_and(int p, CUOC_LINE) { cuoc::barrier(p, line); return cuoc::bar_res[1]; }
static inline int __syncthreads_or(int p, CUOC_LINE) { cuoc::barrier(p, line); return cuoc::bar_res[2]; }
static inline void __syncwarp(unsigned m = ~0u, CUOC_LINE) { cuoc::collective(cuoc::WSYNC, "__syncwarp", m, 0, line); }
static inline void __threadfence() { cuoc::rc_fence(); }
static inline void __threadfence_block() {}
static inline void __threadfence_system() { cuoc::rc_fence(); }
static inline void __nanosleep(unsigned) {}
static inline unsigned __activemask() { return 1u << cuoc::lane_id(); }  // all the language promises
template <class V> static inline V __shfl_sync(unsigned m, V v, int src, int w = 32, CUOC_LINE) {
  int l = cuoc::lane_id();
  return cuoc::exchange("__shfl_sync", m, v, (l & ~(w - 1)) + (src & (w - 1)), line);
}
template <class V> static inline V __shfl_up_sync(unsigned m, V v, unsigned d, int w = 32, CUOC_LINE) {
  int l = cuoc::lane_id(), s = l - int(d);
  return cuoc::exchange("__shfl_up_sync", m, v, s < (l & ~(w - 1)) ? l : s, line);
}
template <class V> static inline V __shfl_down_sync(unsigned m, V v, unsigned d, int w = 32, CUOC_LINE) {
  int l = cuoc::lane_id(), s = l + int(d);
  return cuoc::exchange("__shfl_down_sync", m, v, s > (l | (w - 1)) ? l : s, line);
}
template <class V> static inline V __shfl_xor_sync(unsigned m, V v, int x, int w = 32, CUOC_LINE) {
  int l = cuoc::lane_id(), s = l ^ x;
  return cuoc::exchange("__shfl_xor_sync", m, v, s > (l | (w - 1)) ? l : s, line);
}
static inline unsigned __ballot_sync(unsigned m, int p, CUOC_LINE) { return cuoc::vote("__ballot_sync", m, p, line); }
static inline int __any_sync(unsigned m, int p, CUOC_LINE) { return cuoc::vote("__any_sync", m, p, line) != 0; }
static inline int __all_sync(unsigned m, int p, CUOC_LINE) { return cuoc::vote("__all_sync", m, !p, line) == 0; }
template <class V> static inline unsigned __match_any_sync(unsigned m, V v, CUOC_LINE) {
  memset(cuoc::cur->val, 0, 16); memcpy(cuoc::cur->val, &v, sizeof v);
  cuoc::collective(cuoc::MATCH, "__match_any_sync", m, 0, line);
  unsigned r; memcpy(&r, cuoc::cur->res, 4); return r;
}
#define CUOC_ATOMIC(NAME, EXPR)                                                                       \
  template <class V> CUOC_ENGINE static inline V NAME(V *p, std::common_type_t<V> v) {                \
    cuoc::rc_atomic(p, sizeof *p, __builtin_return_address(0)); V o = *p; *p = V(EXPR); return o; }                                \
  template <class V> static inline V NAME##_block(V *p, std::common_type_t<V> v) { return NAME(p, v); } \
  template <class V> static inline V NAME##_system(V *p, std::common_type_t<V> v) { return NAME(p, v); }
CUOC_ATOMIC(atomicAdd, o + v) CUOC_ATOMIC(atomicSub, o - v) CUOC_ATOMIC(atomicExch, v)
CUOC_ATOMIC(atomicMax, o < v ? v : o) CUOC_ATOMIC(atomicMin, v < o ? v : o)
CUOC_ATOMIC(atomicAnd, o & v) CUOC_ATOMIC(atomicOr, o | v) CUOC_ATOMIC(atomicXor, o ^ v)
CUOC_ATOMIC(atomicInc, o >= v ? 0 : o + 1) CUOC_ATOMIC(atomicDec, o == 0 || o > v ? v : o - 1)
template <class V> CUOC_ENGINE static inline V atomicCAS(V *p, std::common_type_t<V> cmp, std::common_type_t<V> v) {
  cuoc::rc_atomic(p, sizeof *p, __builtin_return_address(0)); V o = *p; if (o == cmp) *p = v; return o;
}
template <class V> static inline V __ldg(const V *p) { return *p; }
template <class V> static inline V __ldcs(const V *p) { return *p; }
template <class V> static inline V __ldcg(const V *p) { return *p; }
template <class V> static inline V __ldca(const V *p) { return *p; }
template <class V> static inline void __stcs(V *p, V v) { *p = v; }
template <class V> static inline void __stcg(V *p, V v) { *p = v; }
#undef assert
#define assert(c) ((c) ? (void)0 : cuoc::fail_here("assert(" #c ") failed", __FILE__, __LINE__))
#define __trap() cuoc::fail_here("__trap()", __FILE__, __LINE__)

template <class To, class From> static inline To cuoc_bits(From f) { To t; static_assert(sizeof t == sizeof f); memcpy(&t, &f, sizeof t); return t; }
static inline int __float_as_int(float f) { return cuoc_bits<int>(f); }
static inline unsigned __float_as_uint(float f) { return cuoc_bits<unsigned>(f); }
static inline float __int_as_float(int i) { return cuoc_bits<float>(i); }
static inline float __uint_as_float(unsigned i) { return cuoc_bits<float>(i); }
static inline long long __double_as_longlong(double d) { return cuoc_bits<long long>(d); }
static inline double __longlong_as_double(long long i) { return cuoc_bits<double>(i); }
static inline int __float2int_rn(float f) { return int(std::nearbyintf(f)); }
static inline int __float2int_rz(float f) { return int(f); }
static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int __clz(int v) { return v ? __builtin_clz(v) : 32; }
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return (unsigned __int128)a * b >> 64; }
static inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
static inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
#define __expf expf      // glibc has its own functions of these names
#define __exp10f exp10f
#define __logf logf
#define __log2f log2f
#define __powf powf
#define __sinf sinf
#define __cosf cosf
#define __tanhf tanhf
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1.0f / a; }
static inline float __frsqrt_rn(float a) { return 1.0f / std::sqrt(a); }
static inline float __fsqrt_rn(float a) { return std::sqrt(a); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __ddiv_rn(double a, double b) { return a / b; }
static inline double __dsqrt_rn(double a) { return std::sqrt(a); }
static inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
static inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }
static inline double sinpi(double x) { return std::sin(3.14159265358979323846 * x); }
static inline double cospi(double x) { return std::cos(3.14159265358979323846 * x); }
static inline double erfinv(double x) {   // bisection on erfc near the ends, where erf is flat: slow and simple
  if (!(std::fabs(x) < 1)) return std::fabs(x) == 1 ? std::copysign(HUGE_VAL, x) : NAN;
  double low = 0, high = 7, a = std::fabs(x);
  for (int i = 0; i < 80; i++) {
    double y = (low + high) / 2;
    (a < 0.5 ? std::erf(y) < a : std::erfc(y) > 1 - a) ? low = y : high = y;
  }
  return std::copysign(low, x);
}
static inline float erfinv(float x) { return float(erfinv(double(x))); }
static inline float normcdff(float x) { return 0.5f * std::erfc(-x * 0.70710678118654752f); }
template <class A, class B> static inline std::common_type_t<A, B> min(A a, B b) { std::common_type_t<A, B> x = a, y = b; return y < x ? y : x; }
template <class A, class B> static inline std::common_type_t<A, B> max(A a, B b) { std::common_type_t<A, B> x = a, y = b; return x < y ? y : x; }
using std::isnan; using std::isinf; using std::isfinite;
static inline long long clock64() { return 0; }
