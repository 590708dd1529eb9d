/* Macros that every kernel file uses, whatever its element type. */
#ifndef MINIGRAD_COMMON_H
#define MINIGRAD_COMMON_H

/* INLINE: always copied into its caller, so that constant arguments (rows, vectors, kind) disappear.
 * NOINLINE: compiled once and called. For large bodies, beside which the time of a call is small; copies cost build
 * time and wheel size. */
#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define NOINLINE static __attribute__((noinline))
#else
#define NOINLINE static __attribute__((noinline, noclone))
#endif

/* MG_SMALL: is this file compiled for little code? A TEMPLATE is INLINE, for a large body; but where MG_SMALL it is
 * compiled once, and its flags are read at run time. */
#ifndef MG_SMALL
#define MG_SMALL 0
#endif
#if MG_SMALL
#define TEMPLATE NOINLINE
#else
#define TEMPLATE INLINE
#endif

/* UNROLL: before a loop of constant length whose variables must be registers, not memory.
 * INDEPENDENT: before a loop whose iterations do not depend on each other: the compiler may vectorise it without asking
 * whether its arrays overlap. (They may be the same array.) */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

#define MIN(x, y) ((x) < (y) ? (x) : (y))
#define MAX(x, y) ((x) > (y) ? (x) : (y))

#endif
