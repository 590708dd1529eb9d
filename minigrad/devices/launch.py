"""What CUDA needs besides a kernel's name and arguments: the file of its text, and the numbers of blocks and threads.

Each op states them in its own module, which does so when it is imported:

    launch("ops/norm.cu", "layer_norm_forward", lambda k, host: [per_row(k.rows, k.n)], shared=256)

A rule reads the arguments of a launch by the names that native/minigrad.h gives them (`k.rows`, `k.n`). `host` has the
values of the arrays that `Device.constant` made (a plan, a table of addresses), by their address on the device. Of
other addresses a rule sees only whether they are given: True, or False for 0.

What a rule gives is remembered, and used for every later launch that agrees in what the rule read (`Reading`): so it
must follow from `k` and `host` alone. It may take its time.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Launch(NamedTuple):
    """One CUDA function: the kernel itself, or its part `step` (kernel "sum", step "segments": "sum_segments").

    Nothing is launched if the grid's first size is 0. `given`: arguments that get other values in this launch, by name.
    """

    step: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared: int = 0             # bytes of dynamic shared memory
    given: tuple[tuple[str, float], ...] = ()


class Product(NamedTuple):
    """A matrix product between the launches of a kernel, by cuBLAS: c[m, n] = a[m, k] b[k, n], or c += a b if
    `accumulate`.

    Operands are arguments of the kernel, each with the number of elements to skip: ("dx", 0). `a_strides` and
    `b_strides` are those of (row, column), in elements; the rows of c are adjacent.
    """

    c: tuple[str, int]
    a: tuple[str, int]
    b: tuple[str, int]
    m: int
    n: int
    k: int
    a_strides: tuple[int, int]
    b_strides: tuple[int, int]
    accumulate: bool = False


class Reading(Mapping[int, np.ndarray]):
    """One run of a rule: `launches` has what it gave, `names` the arguments that it read, `constants` those by which it
    read host values.

    `letters` and `names` are those of the kernel's signature, `given` its arguments; `host` as above.
    """

    def __init__(self, rule: Rule, letters: str, names: Sequence[str], given: Sequence[Any],
                 host: Mapping[int, np.ndarray]) -> None:
        self.host, self.addresses = host, set[int]()
        k = _Arguments({name: bool(value) if letter in "op" and value not in host else value
                        for letter, name, value in zip(letters, names, given, strict=True)})
        self.launches = [one for one in rule(k, self) if isinstance(one, Product) or one.grid[0]]
        self.names = k._read
        self.constants = {name for letter, name, value in zip(letters, names, given, strict=True)
                          if letter in "op" and value in self.addresses}

    def __getitem__(self, address: int) -> np.ndarray:
        self.addresses.add(address)
        return self.host[address]

    def __iter__(self) -> Iterator[int]:
        raise TypeError("a launch rule reads host values by an address among its arguments: host[k.plan]")

    def __len__(self) -> int:
        return len(self.host)


class _Arguments:
    """The arguments of a launch by name, for its rule; notes which are read."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values, self._read = values, set[str]()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._values:
            raise AttributeError(f"the kernel has no argument {name!r}; it has {', '.join(self._values)}")
        self._read.add(name)
        return self._values[name]


Rule = Callable[[Any, Mapping[int, np.ndarray]], Sequence[Launch | Product]]
THREADS = 256                   # of a block, unless a rule has a reason for others; MAX_THREADS of common.cuh is 512
BLOCKS = 1 << 20                # at most; kernels loop over the grid if there are more elements
FILL = 1056                     # blocks of THREADS that occupy a large GPU: 8 for each of 132 multiprocessors


class Entry(NamedTuple):
    """A kernel of the table.

    `registers` and `shared` (static, in bytes) are the most that the compiled kernel may use, `stack` (in bytes) is the
    most that it may put into local memory: tests compile every kernel and check these bounds. `half`: it is compiled
    for float16 and bfloat16, too (`STORED` in common.cuh), `wide`: for these beside float32 parameters (`PARAM`).
    """

    file: str                   # its path in the package
    rule: Rule
    registers: int = 128
    shared: int = 0
    stack: int = 0
    half: bool = False
    wide: bool = False


KERNELS: dict[str, Entry] = {}      # filled by `launch` as the ops are imported
TEXTS: dict[str, str] = {}          # CUDA texts that are not in a file of the package, by the name an `Entry` has


def launch(file: str, names: str, rule: Rule, registers: int = 128, shared: int = 0, stack: int = 0,
           half: bool = False, wide: bool = False) -> None:
    """Adds kernels of a .cu file (its path in the package) to the table; `names` are separated by spaces."""
    for name in names.split():
        KERNELS[name] = Entry(file, rule, registers, shared, stack, half, wide)


def rule_of(kernel: str, names: Sequence[str]) -> Rule:
    """The rule of a kernel from outside the package, by the names of its arguments: `rows` and `n`, or `n`."""
    if "n" not in names:
        raise ValueError(f"[{kernel}] a CUDA kernel without an argument `n` needs a launch rule; got "
                         f"({', '.join(names)}); add launch=lambda k, host: [over(...)] to .kernel(\"cuda\", ...)")
    return (lambda k, host: [per_row(k.rows, k.n)]) if "rows" in names else (lambda k, host: [over(k.n)])


# ---- grids that several ops use --------------------------------------------------------------------------------------

def ceil_div(n: int, by: int) -> int:
    """n / by, rounded up."""
    return -(-n // by)


def power_of_two(n: int, most: int) -> int:
    """The largest power of two that is at most n and at most `most`; 1 for smaller n."""
    return 1 << max(0, min(n, most).bit_length() - 1)


def threads_for(n: int, most: int = 512) -> int:
    """The threads of one block for n elements: whole warps, at most `most`."""
    return min(most, ceil_div(max(n, 1), 32) * 32)


def over(n: int, step: str = "", each: int = 1) -> Launch:
    """One thread for every `each` of n elements."""
    threads = threads_for(n, THREADS)
    return Launch(step, (min(ceil_div(n, threads * each), BLOCKS),), (threads,))


def per_row(rows: int, n: int, step: str = "") -> Launch:
    """Rows of n elements, as common.cuh walks them: a warp for each row of up to 1024 elements, else a block."""
    if n <= 1024:
        together = min(4, max(rows, 1))
        return Launch(step, (min(ceil_div(rows, together), BLOCKS) if n else 0,), (32, together))
    return Launch(step, (min(rows, BLOCKS),), (threads_for(ceil_div(n, 8)), 1))


def columns(n: int, step: str) -> Launch:
    """Sums over n columns, 32 columns for each block."""
    return Launch(step, (ceil_div(n, 32),), (32, 16))


def single(step: str = "") -> Launch:
    """One thread."""
    return Launch(step, (1,), (1,))


def by_plan(k: Any, host: Mapping[int, np.ndarray]) -> Sequence[Launch]:
    """The rule of elementwise kernels: their plan holds the number of elements."""
    return [over(int(host[k.plan][1]), each=2)]
