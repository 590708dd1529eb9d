"""The kernels that an op from outside the tree brings with it: `op.kernel("cpu", source=C_TEXT)`.

Read `devices/foreign.py` (how a C text becomes kernels) and `devices/launch.py` first. The texts add kernels to the
table that `@op.fused` gets, which launches them as an op of the tree does. Without it, they are launched by the
names of their arguments (`by_names`).
"""
from __future__ import annotations

import linecache
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import RLock, get_ident
from types import CodeType
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from ..devices import add_kernel, launch_hook, launch_hooked
from ..devices.base import Device, Family, Kernel, KernelTable, NoKernel
from ..devices.launch import Rule
from ..devices.memory import Array, Layout, alloc
from ..devices.plan import FusedPlan, remember
from .modes import Mode, changed, no_grad
from .tensor import new_tensor
from .warning import warn

if TYPE_CHECKING:
    from ..devices import foreign  # an import that only ops with own kernels wait for

_DEVICES = {"cpu": "c", "cuda": "cu"}         # and what a file of such a text is called
_compiling = RLock()
ops: WeakSet[Any] = WeakSet()       # every `Op`, also one whose name in the registry another has taken

launchers: dict[int, CodeType] = {}     # by their ids, the functions in an `@op.fused`, which launch kernels


def note_launchers(prepare: Callable) -> None:
    """Notes the functions that an `@op.fused` makes. Who looks for the user's line passes over them, wherever they are:
    they belong to the op."""
    code = getattr(prepare, "__code__", None)
    launchers.update({id(c): c for c in getattr(code, "co_consts", ()) if isinstance(c, CodeType)})


def of_tree(op: Any) -> bool:
    """Is it an op of this package?"""
    return op.__module__.startswith(__name__.partition(".")[0] + ".")


def registered(op: Any, known: Any) -> bool:
    """Does an op take its name in the registry, where `known` has it? One from outside does not take that of the tree.
    """
    return known is None or of_tree(op) or not of_tree(known)


class OwnKernels:
    """What an `Op` has to do with kernels of its own."""

    name: str
    definition: Callable
    inputs: tuple[str, ...]
    plans: dict
    prepare: Callable | None
    sources: Mapping[str, tuple[foreign.Source, Rule | None]] = {}      # by the type of device
    tables: Mapping[Device, KernelTable] = {}                           # made of them, by device

    def __reduce__(self) -> str:
        """An op is copied and pickled as a function is, by its name: a copy would have kernels that no hook sees."""
        return self.definition.__name__

    def kernel(self, device: str, *, source: str | Path, launch: Rule | None = None) -> None:
        """Gives the op kernels of its own: a text, or the path of a file with it, in C for "cpu", in CUDA for "cuda".

        Kernels are defined by `KERNEL(REAL, name, arguments) { ... }`, in the words of native/README.md. They are
        compiled when the op first needs them, and kept on disk. If `@op.fused` does not say how they are launched, they
        are `<op>_forward` and perhaps `<op>_backward`, for inputs of one shape and dtype, which the result has, too.
        Each argument then gets what its name says:

            T *y                the result; `const T *y` in backward: the result again
            const T *x          the input of that name
            const T *g, T *gx   in backward: the gradient of the result, and that of the input x
            int64_t n           the number of elements; beside `rows`: the size of the last dimension
            int64_t rows        the product of the other sizes
            double slope        the attribute of that name; `int64_t` for whole numbers and bools

        A kernel takes every attribute of the definition, and forward takes every input: what it does not get, it would
        not follow.

        `launch` is the rule for blocks and threads on CUDA (minigrad/devices/launch.py); without it, there is a thread
        for each of n elements, or for `rows` what `EACH_ROW` asks for. ValueError for an unknown device, and for a text
        without a kernel. Where there is no compiler, the definition runs, and a warning says so.

        >>> scaled_square.kernel("cpu", source='''
        ... KERNEL(REAL, scaled_square_forward, T *y, const T *x, int64_t n, double scale) {
        ...   for (int64_t i = 0; i < n; i++) y[i] = x[i] * x[i] * (T)scale;
        ... }''')
        """
        if device not in _DEVICES:
            raise ValueError(f"[{self.name}.kernel] the device is one of {', '.join(_DEVICES)}; got {device!r}")
        if not isinstance(source, (str, Path)):
            raise TypeError(f"[{self.name}.kernel] source must be a text (str), or the Path of a file with it; "
                            f"got {type(source).__name__}")
        from ..devices import foreign
        if isinstance(source, Path):
            found = foreign.read(self.name, source.read_text(), str(source), 1)
        else:
            found = foreign.read(self.name, source, *_place(source, f"{self.name}.{_DEVICES[device]}"))
        self.sources = {**self.sources, device: (found, launch)}
        self.tables = {}
        self.plans.clear()
        if self.prepare is None:
            self.prepare = by_names(self)
        Mode.kernels += 1
        changed()                                           # captured steps are recorded anew

    def kernels_on(self, device: Device) -> KernelTable:
        """The kernels of a device, and before them the op's own."""
        if device.type not in self.sources:
            return device.kernels
        with _compiling:
            if device not in self.tables:
                self.tables = {**self.tables, device: _OwnTable(device, *self.sources[device.type])}
            return self.tables[device]


def _place(text: str, otherwise: str) -> tuple[str, int]:
    """The file and line where the caller of `kernel` has a text, if it stands there as it is."""
    file = sys._getframe(2).f_code.co_filename
    before, found, _ = "".join(linecache.getlines(file)).partition(text or "\0")
    return (file, before.count("\n") + 1) if found else (otherwise, 1)


class _OwnTable(KernelTable):
    """The kernels of a device, and before them those of one text."""

    def __init__(self, device: Device, source: foreign.Source, rule: Rule | None) -> None:
        self._on, self._source, self._rule, self._told = device, source, rule, False
        self._own = {kernel.name: _OwnFamily(kernel.name, device.name, self) for kernel in source.declared}

    def __getattr__(self, name: str) -> Family:
        fields = self.__dict__
        return fields["_own"].get(name) or getattr(fields["_on"].kernels, name)

    def compile(self, suffix: str) -> None:
        """Adds the kernels of an element type to their families."""
        from ..devices.foreign import NoCompiler
        declared = self._source.of_type(suffix)
        try:
            made = self._on.compiled(self._source, suffix, self._rule)
        except NoCompiler as reason:
            if not self._told:
                self._told = True
                warn(f"[{self._source.op}] its C kernels are not used, and its definition runs: {reason}")
            raise
        for kernel, by_name in zip(made, declared, strict=True):
            self._own[by_name.name].members[suffix] = add_kernel(kernel)


class _OwnFamily(Family):
    """The kernels of one name of a text, compiled for an element type when it is first asked for."""

    def __init__(self, name: str, device: str, table: _OwnTable) -> None:
        super().__init__(name, device, {})
        self.table = table

    def member(self, suffix: str) -> Kernel | None:
        with _compiling:
            if suffix not in self.members and any([k.name == self.name for k in self.table._source.of_type(suffix)]):
                self.table.compile(suffix)
        return self.members.get(suffix)


# ---- launched by the names of the arguments --------------------------------------------------------------------------

def by_names(op: Any) -> Callable[..., FusedPlan]:
    """The `prepare` of an op that has kernels and no `@op.fused`: `OwnKernels.kernel` tells the names."""
    agreed: dict[tuple, bool] = {}      # the signatures for which the definition was seen to give what kernels write

    def prepare(kernels: KernelTable, *layouts: Layout | None, **attrs: Any) -> Any:
        x = _one_layout(op.name, layouts)
        if x.device.type not in op.sources:
            raise NoKernel(f"the op has no kernels on {x.device}")
        declared = op.sources[x.device.type][0].declared
        names = {kernel.name for kernel in declared}
        if f"{op.name}_forward" not in names or not names <= {f"{op.name}_forward", f"{op.name}_backward"}:
            raise TypeError(f"[{op.name}.kernel] without @{op.name}.fused, the kernels of a text are {op.name}_forward "
                            f"and perhaps {op.name}_backward; got {', '.join(sorted(names))}; rename them, or write "
                            f"@{op.name}.fused")
        forward = getattr(kernels, f"{op.name}_forward")[x.dtype]
        backward = None                 # there may be one of that name in the tree: it belongs to another op
        if f"{op.name}_backward" in names:
            backward = getattr(kernels, f"{op.name}_backward").get(x.dtype)
        for kernel in declared:
            for c, name in zip(kernel.c_types, kernel.names, strict=True):
                if "*" in c and set(re.findall(r"\w+", c)) - {"const", "restrict", "__restrict"} != {"T"}:
                    raise _unknown(op, kernel, f"has an argument `{c}{name}`", "a pointer is a `T *` or `const T *`")
        numbers = {**attrs, "n": x.size}
        if "rows" in forward.names:
            numbers["n"] = x.shape[-1] if x.ndim else 1
            numbers["rows"] = x.size // numbers["n"]
        made = [n for n, kind in zip(forward.names, forward.signature, strict=True) if kind == "o"]
        if len(made) != 1:
            raise _unknown(op, forward, f"writes {len(made)} arrays", "it may write one, its result")
        run = _Launch(op, forward, x, numbers, {name: i for i, name in enumerate(op.inputs)}, made)
        _takes(op, forward, (*op.inputs, *op.attributes))

        def run_forward(*arrays: Array) -> tuple[Array, tuple]:
            y, = run(arrays)
            return y, tuple([a if keep else None for a, keep in zip((*arrays, y), kept, strict=True)])
        signature = (x, *[float if type(attrs[n]) is float else attrs[n] for n in op.attributes])
        plan = FusedPlan(run_forward, None)
        if signature not in agreed:
            plan.forward = _first(op, forward, plan, run_forward, attrs, lambda: remember(agreed, signature, True))
        if backward is None:
            kept = [False] * (len(op.inputs) + 1)
            return plan
        places = {name: i for i, name in enumerate((*op.inputs, made[0], "g"))}
        gradients = [f"g{name}" for name in op.inputs]
        back = _Launch(op, backward, x, numbers, places, gradients)
        _takes(op, backward, op.attributes)
        kept = [name in back.read for name in (*op.inputs, made[0])]

        def run_backward(saved: tuple, g: Array, needs: Sequence[bool]) -> list[Array | None] | None:
            if any([need and not there for need, there in zip(needs, back.writes, strict=True)]):
                return None                                     # the definition gives what the kernel does not
            return back((*saved, g))
        plan.backward = run_backward
        return plan
    return prepare


def _takes(op: Any, kernel: Kernel, needed: Sequence[str]) -> None:
    """TypeError if the definition has an input or attribute that a kernel does not take: it would not follow it."""
    for name in needed:
        if name not in kernel.names:
            kind, c = ("an input", "const T *") if name in op.inputs else ("an attribute", "double ")
            raise TypeError(f"[{op.name}.kernel] {kernel.name} must take each of {', '.join(needed)}, or it gives the "
                            f"same whatever their values; it lacks {name}, {kind} of the definition; got "
                            f"({', '.join(kernel.names)}); add `{c}{name}`, or write @{op.name}.fused")


def _first(op: Any, forward: Kernel, plan: FusedPlan, run: Callable, attrs: dict, agreed: Callable) -> Callable:
    """What runs at the first call of a signature: is the definition's result of the layout that the kernel writes?"""
    def first(*arrays: Array) -> Any:
        with no_grad(), _Unseen():
            made = op.definition(*[new_tensor(a, None) for a in arrays], **attrs)
        x, several = arrays[0].layout, isinstance(made, (tuple, list))
        layouts = [getattr(getattr(m, "array", None), "layout", None) for m in (made if several else (made,))]
        if several or layouts[0] is None or (layouts[0].shape, layouts[0].dtype) != (x.shape, x.dtype):
            raise TypeError(f"[{op.name}.kernel] without @{op.name}.fused, the result must be one tensor of the shape "
                            f"and dtype of the inputs; the definition gives {', '.join(map(str, layouts))} for inputs "
                            f"of {x}; write @{op.name}.fused, or leave {x.dtype} out of the types of {forward.name}")
        agreed()
        plan.forward = run
        return run(*arrays)
    return first


class _Unseen(launch_hook):
    """In its `with` block, no hook sees the launches of this thread: they are no part of what a user runs."""

    def __init__(self) -> None:
        super().__init__(lambda kernel, arguments: kernel.function(*arguments))
        self.thread = get_ident()

    def __enter__(self) -> _Unseen:
        if launch_hooked():
            super().__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self.on:
            super().__exit__()

    def launch(self, kernel: Kernel, arguments: tuple) -> None:
        if get_ident() == self.thread:
            kernel.function(*arguments)
        else:
            super().launch(kernel, arguments)


def _one_layout(name: str, layouts: Sequence[Layout | None]) -> Layout:
    """The layout that all inputs have; NoKernel if they differ, and for one without elements."""
    x = layouts[0]
    if x is None or any([o is not x for o in layouts]):
        raise NoKernel(f"kernels without @{name}.fused take inputs of one shape and dtype; got "
                       f"{', '.join(map(str, layouts))}")
    if not x.size:
        raise NoKernel("there are no elements")
    return x


def _unknown(op: Any, kernel: Any, what: str, known: str) -> TypeError:
    return TypeError(f"[{op.name}.kernel] {kernel.name} {what}; without @{op.name}.fused {known}; got "
                     f"({', '.join(kernel.names)}); rename it, or write @{op.name}.fused")


class _Launch:
    """A kernel whose arguments are known by name: `launch(arrays)` makes new arrays, runs it, and returns them.

    `places` are the indices in `arrays` of what it may read, `outputs` the names of what it may write, of which it
    returns a list with None for those that it does not. All have the layout `x`.
    """

    def __init__(self, op: Any, kernel: Kernel, x: Layout, numbers: dict[str, Any], places: dict[str, int],
                 outputs: Sequence[str]) -> None:
        self.kernel, self.x, self.outputs = kernel, x, outputs
        self.fixed: list[Any] = [0] * len(kernel.names)
        self.inputs: list[tuple[int, int]] = []                 # (argument, index in `arrays`)
        self.writes = [name in kernel.names for name in outputs]
        self.read = {n for n, kind in zip(kernel.names, kernel.signature, strict=True) if kind == "p"}
        for i, (name, kind) in enumerate(zip(kernel.names, kernel.signature, strict=True)):
            allowed: Any = {"o": outputs, "p": places}.get(kind, numbers)
            if name not in allowed:
                raise _unknown(op, kernel, f"has an argument `{name}`", f"it may have {', '.join(allowed)}")
            if kind == "p":
                self.inputs.append((i, places[name]))
            elif kind != "o":
                self.fixed[i] = _number(op, name, numbers[name], float if kind == "d" else int)
        self.written = [kernel.names.index(n) if there else -1 for n, there in zip(outputs, self.writes, strict=True)]

    def __call__(self, arrays: Sequence[Array]) -> list[Any]:
        values = self.fixed.copy()
        for i, k in self.inputs:
            values[i] = arrays[k].ptr
        made = [alloc(self.x) if i >= 0 else None for i in self.written]
        for i, a in zip(self.written, made, strict=True):
            if a is not None:
                values[i] = a.ptr
        self.kernel.call(*values)
        return made


def _number(op: Any, name: str, value: Any, kind: Callable[[Any], Any]) -> Any:
    """An attribute as a kernel takes it; NoKernel for one that is no such number."""
    try:
        found = kind(value)
    except (TypeError, ValueError, OverflowError):
        found = None
    if found is None or found != value or kind is int and not -1 << 63 <= found < 1 << 63:
        raise NoKernel(f"the kernels take {name} as {'a number' if kind is float else 'a whole number'}; got {value!r}")
    return found
