"""The C library `minigrad._native`: loading it, the SIMD level, the threads, the signatures of its kernels.

Nothing to read first. Importing this module reads the environment variables MINIGRAD_SIMD and MINIGRAD_NUM_THREADS.
"""
from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

LEVELS = ("baseline", "avx2", "avx512")


def _load() -> tuple[Any, ...]:
    try:
        from .._native import Block, Pool, bound, ffi, launcher, lib  # type: ignore[import-not-found]
    except ModuleNotFoundError as error:
        raise ImportError("minigrad's C kernels are not built here: run `pip install .` (it needs a C compiler) in the "
                          "source folder and start Python in another folder, or run `pip install -e .` to work inside; "
                          f"the loader said: {error}") from None
    except ImportError as error:
        raise ImportError("minigrad's C kernels could not be loaded; an undefined symbol is a kernel that "
                          "native/minigrad.h declares for a type or level for which no file of native/ defines it; "
                          f"the loader said: {error}") from None
    return lib, ffi, Block, Pool, launcher, bound


lib: Any
ffi: Any
Block: Any          # the memory of a buffer and the pool it goes back to: native/objects.c
Pool: Any
launcher: Callable[[int], Callable[..., None]]      # the function that runs the kernel of a row
bound: Callable[[int, int, Any], Callable[..., Any]]    # for a plan: the kernel of a row, its walk, the output's pool
lib, ffi, Block, Pool, launcher, bound = _load()


def _text(pointer: Any) -> str:
    return ffi.string(pointer).decode()


# The headers of native/ that kernels are compiled with at run time: CUDA kernels, and those of users.
HEADERS: dict[str, str] = {_text(lib.mg_header_name(i)): _text(lib.mg_header_text(i))
                           for i in range(lib.mg_header_count())}
# How much work space the kernels need: the functions and constants of native/workspace.h, which say what they count.
loss_chunks: Callable[[int], int] = lib.mg_loss_chunks
norm_chunks: Callable[[int], int] = lib.mg_chunks
layer_norm_partial: Callable[[int, int], int] = lib.mg_layer_norm_partial
rms_norm_partial: Callable[[int, int], int] = lib.mg_rms_norm_partial
rnn_steps: Callable[[int, int], int] = lib.mg_rnn_steps
rnn_sums: Callable[[int, int, int], int] = lib.mg_rnn_sums
rnn_forward_work: Callable[[int, int, int, int], int] = lib.mg_rnn_forward_work
rnn_backward_work: Callable[[int, int, int, int], int] = lib.mg_rnn_backward_work
norm_threads: Callable[[int], int] = lib.mg_norm_threads
norm_side: Callable[[int], int] = lib.mg_norm_side
norm_parts: Callable[[int, int], int] = lib.mg_norm_parts
channel_segments: Callable[[int, int, int], int] = lib.mg_channel_segments
segments: Callable[[int, int, int], int] = lib.mg_segments
CACHED_BYTES: int = lib.MG_CACHED_BYTES


def best_simd_level() -> str:
    """The highest SIMD level of this CPU: baseline, avx2 or avx512. ImportError for a CPU that is too old."""
    best = lib.mg_cpu_level()
    if best < 0:
        raise ImportError("minigrad needs a CPU of level x86-64-v2 (SSE4.2) or arm64; this one is older")
    return LEVELS[best]


def set_simd_level(level: str) -> None:
    """Chooses the kernels of a SIMD level: baseline, avx2 or avx512 (`MINIGRAD_SIMD` does it at import).

    ValueError for an unknown level, and for one that this CPU does not have.
    """
    global _level
    if level not in LEVELS:
        raise ValueError(f"[set_simd_level] unknown level {level!r}; use one of {', '.join(LEVELS)}")
    if LEVELS.index(level) > LEVELS.index(best_simd_level()):
        raise ValueError(f"[set_simd_level] this CPU has {best_simd_level()} at most; got {level!r}")
    _level = level
    lib.mg_select(LEVELS.index(level))


def simd_level() -> str:
    """The SIMD level in use: baseline, avx2 or avx512."""
    return _level


_level = "baseline"
set_simd_level(os.environ.get("MINIGRAD_SIMD") or best_simd_level())


def set_num_threads(n: int) -> None:
    """Sets how many threads a kernel may use (`MINIGRAD_NUM_THREADS` does it at import). Results do not depend on it.

    RuntimeError for anything but a positive int.
    """
    if not isinstance(n, int) or n < 1:
        raise RuntimeError(f"[set_num_threads] expected a positive int; got {n!r}")
    lib.mg_set_num_threads(n)


def get_num_threads() -> int:
    """How many threads a kernel may use."""
    return lib.mg_get_num_threads()


def _threads_from_environment() -> None:
    wish = os.environ.get("MINIGRAD_NUM_THREADS", "")
    if wish:
        if not wish.isdigit() or int(wish) < 1:
            raise ImportError(f"MINIGRAD_NUM_THREADS is {wish!r}; it must be a positive whole number")
        lib.mg_set_num_threads(int(wish))


_threads_from_environment()


class Signature(NamedTuple):
    """The arguments of a kernel: letters (o address written to, p address only read, i int64, d double) and names; and
    the address of its `mg_kernel`."""

    letters: str
    names: list[str]
    row: int


def signatures() -> dict[str, Signature]:
    """The signatures of all kernels in native/minigrad.h by full name ("layer_norm_forward_f32")."""
    return {_text(lib.mg_kernel_name(i)): Signature(_text(lib.mg_kernel_signature(i)),
                                                    _text(lib.mg_kernel_arguments(i)).split(), lib.mg_kernel_row(i))
            for i in range(lib.mg_kernel_count())}
