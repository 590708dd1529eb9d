"""The update of all parameters together, for optimisers without a kernel of their own: written down from the
definition.

Read `optimizer.py` first. `_define` runs once, on a parameter of two elements on the CPU, and the launches that it asks
for are noted, not made: all of them are elementwise. Each is a line; what an array holds is a line, and a write to the
parameter or its state is a write of the last one.

On a GPU the lines become CUDA text, each with the expression that ops/elementwise.cu has for it, of two launches:

    x * y                                                  const float v7 = of_mul<float>(v3, v5);
    numbers of a parameter (step, lr, 1 - beta**step)      one thread of the block computes them for the others
    numbers that the update changes                        the second launch writes them, with the step counts

On the CPU they are a program of C kernels, of one launch: native/composed.c says what is in it. A line makes a number
of the parameter, or has a piece's elements in a scratch array. The last value of the parameter or its state goes there
at once, unless a later line reads what was there before.
"""
from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from threading import get_ident
from typing import Any, NamedTuple

import numpy as np

from ..core.modes import no_grad
from ..core.shape import FLOAT32
from ..core.tensor import new_tensor
from ..devices import add_kernel, launch_hook, open_device
from ..devices.addresses import find
from ..devices.base import TYPE_SUFFIX, Device, Family, Kernel, split
from ..devices.declared import Declared
from ..devices.launch import KERNELS
from ..devices.memory import Array
from ..devices.native import ffi
from ..devices.plan import is_half
from ..devices.work import work
from .table import sizes, step_rule

_PACKAGE = Path(__file__).parent.parent
_ELEMENTWISE = "ops/elementwise.cu"
_EXPRESSION = re.compile(r"^(?:UNARY|BINARY)\(\w+, (\w+), (.*?)\)(?: *//.*)?$|^(?:COMPARE|CLASSIFY)\((\w+), (.*?)\)$",
                         re.M)
_TYPES = {"f32": "float", "f64": "double", "u8": "uint8_t"}
_DTYPES: dict[str, Any] = {"f32": np.dtype("f4"), "f64": np.dtype("f8"), "u8": np.dtype(bool)}
_MOVED = {"i32": "f32", "i64": "f64"}       # moves go by size, and all that an update moves are floats
_kernels: dict[tuple, Kernel] = {}

_PIECE = 1024       # elements: what a piece needs is in the first cache
_HEADER = 10        # words of a program
_STEP, _SCRATCH, _NUMBER, _HYPER, _PROGRAM = 5, 7, 8, 9, 10         # bases; up to _STEP, columns
_COLUMNS = {"p": 0, "g": 1, "s1": 2, "s2": 3, "s3": 4, "step": _STEP}
_Places = dict[str, tuple[int, int]]        # the base and the offset of what a line makes, by its name
_programs: dict[tuple, Array | None] = {}


class _Line(NamedTuple):
    """What one launch makes. `type`: that of its elements ("f32"). Without a kernel it is given: an array of the
    update's, or a number with this value.

    `needs`: the lines that it reads; `element`: each element of the parameter has its own, else each parameter.
    """

    name: str
    type: str
    kernel: Kernel | None
    needs: list[_Line]
    element: bool
    value: float = 0.0


class _Trace:
    """What a definition does. `held`: what each array holds by now, by its address."""

    def __init__(self) -> None:
        self.held: dict[int, _Line] = {}
        self.given: dict[int, str] = {}     # the arrays that the update gets
        self.lines: dict[tuple[str, ...], _Line] = {}        # by kernel and operands: each is computed once
        self.pins: list[Any] = []           # owners of memory that was written: no other array may come to lie there
        self.thread = get_ident()

    def give(self, name: str, t: Any, element: bool) -> None:
        """An array that the update gets, and its name."""
        self.given[t.array.ptr] = name
        self.held[t.array.ptr] = _Line(name, TYPE_SUFFIX[t.dtype], None, [], element)

    def visit(self, kernel: Kernel, arguments: tuple) -> None:
        """The launch hook. A launch of another thread is made."""
        if get_ident() != self.thread:
            kernel.function(*arguments)
            return
        name, suffix = split(kernel.name)
        if name not in KERNELS or KERNELS[name].file != _ELEMENTWISE:
            raise NotImplementedError(f"[step] an update that is elementwise launches elementwise kernels only; got "
                                      f"{kernel.name}; leave _elementwise False")
        out, *inputs, plan = arguments
        values = [self._value(ptr, "u8" if name == "where" and not i else suffix) for i, ptr in enumerate(inputs)]
        self.held[out] = self._line(kernel, values, ffi.cast("int64_t *", plan)[1] > 1)
        region = find(out)
        self.pins.append(region and region())

    def _value(self, ptr: int, suffix: str) -> _Line:
        """What an operand holds. What nobody wrote is a number of the definition."""
        if ptr in self.held:
            return self.held[ptr]
        kind = _MOVED.get(suffix, suffix)
        number = (ctypes.c_float if kind == "f32" else ctypes.c_double).from_address(ptr).value
        return _Line(f"{kind}({number!r})", kind, None, [], False, number)

    def _line(self, kernel: Kernel, values: list[_Line], element: bool) -> _Line:
        """The line that a launch makes, which may be one that there is."""
        name, suffix = split(kernel.name)
        if name == "copy":
            return values[0]
        if name == "where":
            kind = values[1].type
        elif name.startswith("cast_"):
            kind = name[5:]
        else:
            kind = "u8" if _expressions()[name][1] else suffix
        key = kernel.name, *[v.name for v in values]
        return self.lines.setdefault(key, _Line(f"v{len(self.lines)}", kind, kernel, values, element))


@cache
def _expressions() -> dict[str, tuple[str, bool]]:
    """The first expression (that of floats) of each function of ops/elementwise.cu, and whether it is a test."""
    found: dict[str, tuple[str, bool]] = {}
    for value, text, test, condition in _EXPRESSION.findall((_PACKAGE / _ELEMENTWISE).read_text()):
        text = re.sub(r"\b(T|Wide)\b", "N", (text or condition).replace("WRAP", ""))
        found.setdefault(value or test, (text, bool(test)))
    return found


class _Written(NamedTuple):
    """What an update writes: lines by the names of parameter and state; of the `states`, the rest are numbers."""

    trace: _Trace
    lines: dict[str, _Line]
    states: int


def _traced(optimizer: Any, group: dict[str, Any], flags: tuple, hyper: int, dtype: np.dtype) -> _Written:
    cpu, trace = open_device("cpu"), _Trace()

    def array(*shape: int, of: Any = dtype) -> Any:
        return new_tensor(cpu.upload(np.ones(shape, of)), None)
    probe: Any = object.__new__(type(optimizer))
    p, g, numbers = array(2), array(2), [array(of=np.float64) for _ in range(hyper)]
    probe.state, probe._owners = {p: {}}, {}
    state, step = probe._begin(group, p, probe.state[p]), probe._step_of(p, probe.state[p])
    trace.give("p", p, True)
    trace.give("g", g, True)
    trace.give("step", step, False)
    for i, t in enumerate(numbers):
        trace.give(f"hyper[{i}]", t, False)
    for i, t in enumerate((*state, *probe._numbers_of(p))):
        trace.give(f"s{i + 1}", t, i < len(state))
    with no_grad(), launch_hook(trace.visit):
        probe._define(flags, tuple(numbers), p, g, state, step)
    lines = {name: trace.held[ptr] for ptr, name in trace.given.items() if trace.held[ptr].name != name}
    return _Written(trace, lines, len(state))


def _written(*of: Any) -> _Written:
    """What the definition does, traced in a thread without a recording, autocast or other modes."""
    with ThreadPoolExecutor(1) as clean:
        return clean.submit(_traced, *of).result()


def _needed(lines: Iterable[_Line]) -> dict[str, _Line]:
    """These lines and those that they need, by name, in an order in which they can be computed."""
    found: dict[str, _Line] = {}
    for line in lines:
        _add(line, found)
    return found


def _add(line: _Line, found: dict[str, _Line]) -> None:
    if line.name not in found and line.kernel:
        for need in line.needs:
            _add(need, found)
        found[line.name] = line


# ---- on a GPU --------------------------------------------------------------------------------------------------------

def _expression(line: _Line) -> str:
    """What the kernel computes for a line."""
    assert line.kernel is not None
    name, suffix = split(line.kernel.name)
    operands = [_variable(need) for need in line.needs]
    if name == "where":
        return "{} ? {} : {}".format(*operands)
    if name.startswith("cast_"):
        return f"{operands[0]} != 0" if line.type == "u8" else f"({_TYPES[line.type]}){operands[0]}"
    return f"of_{name}<{_TYPES[suffix]}>({', '.join(operands)})"


def _variable(line: _Line) -> str:
    """The name of a line in the text; a number stands there itself."""
    if line.kernel or "(" not in line.name:
        return line.name
    return f"{_TYPES[line.type]}({line.value!r})".replace("inf", "INFINITY").replace("nan", "NAN")


def _functions(lines: Iterable[_Line]) -> str:
    """The functions that the lines call."""
    used = {split(line.kernel.name)[0] for line in lines if line.kernel} & {*_expressions()}
    return "".join(f"template <class N> __device__ __forceinline__ auto of_{name}(N x{', N y' * ('y' in text)}) "
                   f"{{ return {text}; }}\n" for name in sorted(used) for text in [_expressions()[name][0]])


def _ordered(lines: Iterable[_Line], element: bool) -> list[_Line]:
    """These lines and those that they need, in the order in which they are computed: of elements, or the others."""
    return [line for line in _needed(lines).values() if line.element == element]


def _text(lines: Iterable[_Line]) -> str:
    return "".join(f"const {_TYPES[line.type]} {line.name} = {_expression(line)};\n" for line in lines)


def _kernel_text(name: str, made: _Written, flags: int) -> str:
    """The text that goes after optim/optim.cu."""
    trace, arrays = made.trace, [f"s{i + 1}" for i in range(made.states)]
    ours = {n: line for n, line in made.lines.items() if n in ("p", *arrays)}
    counted = {n: line for n, line in made.lines.items() if n not in ours}
    body = _ordered(ours.values(), True)
    read = [*ours.values(), *[need for line in body for need in line.needs]]
    shared = {line.name: line for line in read if not line.element and line.kernel}
    fields = {"p": "r.at(i)", "g": "r.g[i]", **{n: f"r.state{n[1:]}[i]" for n in arrays}}
    loaded = {n: fields[n] for n in fields if n in {line.name for line in read}}
    numbers = "const double step = *r.step + 1;\n" + "".join(
        f"const double {n} = *(const double *)r.state{n[1:]};\n" for n in trace.given.values()
        if n[0] == "s" and n != "step" and n not in arrays)
    stores = "".join(f"r.set(i, {_variable(line)});\n" if n == "p" else f"{fields[n]} = {_variable(line)};\n"
                     for n, line in ours.items())
    counts = "".join(f"*(double *)r.state{n[1:]} = {_variable(line)};\n" for n, line in counted.items())
    flag = "".join([f", int64_t flag{i}" for i in range(flags)])
    arguments = f"const int64_t *table, const double *hyper, int64_t count{flag}"
    return f"""
#ifdef MG_TYPE
#if IS_REAL
{_functions(trace.lines.values())}
KERNEL({name})({arguments}) {{
{"".join(f"__shared__ {_TYPES[line.type]} of_block_{n};{chr(10)}" for n, line in shared.items())}
each_parameter(table, count, [&](const Parameter &r, int64_t begin, int64_t end) {{
{numbers}
__syncthreads();                           // other threads may still read the numbers of the previous parameter
if (threadIdx.x == 0) {{
{_text(_ordered(shared.values(), False))}{"".join(f"of_block_{n} = {n};{chr(10)}" for n in shared)}
}}
__syncthreads();
{"".join(f"const {_TYPES[line.type]} {n} = of_block_{n};{chr(10)}" for n, line in shared.items())}
T {", ".join(f"{n}_[U]" for n in loaded)};
each_element(begin, end, [&](int u, int64_t i) {{ {" ".join(f"{n}_[u] = {text};" for n, text in loaded.items())} }},
[&](int u, int64_t i) {{
{"".join(f"const T {n} = {n}_[u];{chr(10)}" for n in loaded)}{_text(body)}{stores}
}});
}});
}}
STEP({name}, count)({arguments}) {{
GRID_LOOP(k, count) {{
const Parameter r(table, count, k);
{numbers}{_text(_ordered(counted.values(), False))}{counts}*r.step = step;
}}
}}
#endif
#endif
"""


def text(optimizer: Any, group: dict[str, Any], flags: tuple, hyper: int, dtype: np.dtype) -> str:
    """The CUDA text with the kernel of this optimiser's definition, for what is computed in `dtype`."""
    made = _written(optimizer, group, flags, hyper, dtype)
    return (_PACKAGE / "optim/optim.cu").read_text() + _kernel_text(kernel_name(optimizer), made, len(flags))


def kernel_name(optimizer: Any) -> str:
    """The name of the kernel that is written for an optimiser."""
    return f"{type(optimizer).__name__.lower()}_update"


def kernel(optimizer: Any, group: dict[str, Any], flags: tuple, hyper: int, device: Device,
           dtype: np.dtype) -> Kernel | None:
    """The kernel of this optimiser's definition with these flags, for parameters of this dtype; None for dtypes that
    kernels do not compute. It takes the arguments of those in optim/optim.cu; `hyper` is how many numbers a group has.
    """
    suffix = TYPE_SUFFIX.get(dtype)
    if suffix not in ("f32", "f64", "f16", "bf16"):
        return None
    key = device, type(optimizer), flags, hyper, suffix
    if key not in _kernels:
        name = kernel_name(optimizer)
        written = text(optimizer, group, flags, hyper, FLOAT32 if is_half(dtype) else dtype)
        names = ["table", "hyper", "count", *[f"flag{i}" for i in range(len(flags))]]
        declared = Declared("REAL", name, ["const int64_t *", "const double *", *["int64_t"] * (len(names) - 2)], names)
        [made] = device.generated(written, name, [declared], suffix, step_rule)
        update = written[written.rindex("each_element("):written.rindex("GRID_LOOP")]
        lines, kept = len(re.findall("const (float|double) v", update)), update.count("[i] = v")
        work(name, lambda k: lines * sizes(k, 0), lambda k: (3 + 2 * kept) * sizes(k, 0))
        _kernels.setdefault(key, add_kernel(made))
    return _kernels[key]


# ---- on the CPU ------------------------------------------------------------------------------------------------------

def _stored(lines: list[_Line], stores: dict[str, _Line], copy: Kernel) -> tuple[list[_Line], dict[str, str]]:
    """The lines, with copies to where values are stored; and what each line stores, by its name."""
    read = {need.name: i for i, line in enumerate(lines) for need in line.needs}
    at = {line.name: i for i, line in enumerate(lines)}
    where: dict[str, str] = {}
    for name, line in stores.items():
        if line.element and line.name not in where and read.get(name, -1) <= at[line.name]:
            where[line.name] = name
    copies = [name for name in stores if name not in where.values()]
    made = [_Line(f"to {name}", stores[name].type, copy, [stores[name]], True) for name in copies]
    return [*lines, *made], {**where, **{f"to {name}": name for name in copies}}


def _in_scratch(lines: list[_Line], places: _Places, size: int, first: int) -> int:
    """Gives lines without a place scratch arrays, from number `first` on; returns how many there are. Where a line is
    read last, one of its type may write."""
    last = {need.name: i for i, line in enumerate(lines) for need in line.needs}
    free: list[int] = []
    count = first
    for i, line in enumerate(lines):
        ends = [n for n in {n.name: n for n in line.needs}.values()
                if last[n.name] == i and places[n.name][0] == _SCRATCH and places[n.name][1] >= first * size]
        free += [places[n.name][1] // size for n in ends if n.type == line.type]
        if line.name not in places:
            if not free:
                free.append(count)
                count += 1
            places[line.name] = _SCRATCH, free.pop() * size
        free += [places[n.name][1] // size for n in ends if n.type != line.type]
    return count


def _words(lines: list[_Line], places: _Places) -> list[int]:
    words: list[int] = []
    for line in lines:
        assert line.kernel is not None
        words += [line.kernel.row, 1 + len(line.needs)]
        for operand in (line, *line.needs):
            base, offset = places[operand.name]
            words.append(offset << 5 | operand.element << 4 | base)
    return words


def _spread(lines: list[_Line], copies: Family) -> tuple[list[_Line], list[_Line]]:
    """Lines that fill a piece with each number that these lines read; and these, which read that instead."""
    shared = {need.name: need for line in lines for need in line.needs if not need.element}
    filled = {name: _Line(f"all {name}", need.type, copies.move(_DTYPES[need.type]), [need], True)
              for name, need in shared.items()}
    return [*filled.values()], [line._replace(needs=[filled.get(n.name, n) for n in line.needs]) for line in lines]


def _program(made: _Written, device: Device, dtype: np.dtype) -> np.ndarray:
    copies, arrays = device.kernels.copy, ["p", *[f"s{i + 1}" for i in range(made.states)]]
    found = _needed(made.lines.values())
    lines = [line for line in made.trace.lines.values() if line.name in found]      # in the order of the definition
    kept = {line.name: _Line(f"kept {line.name}", line.type, copies.move(_DTYPES[line.type]), [line], line.element)
            for line in made.lines.values() if line.kernel is None}                 # others may be stored there first
    lines = [*kept.values(), *lines]
    last = {name: kept.get(line.name, line) for name, line in made.lines.items()}
    numbers = [line for line in lines if not line.element]
    stores = [_Line(name, "f64", copies.member("i64"), [line], False) for name, line in last.items()
              if name not in arrays]
    of_copy = copies.move(dtype)
    assert of_copy is not None
    elements, where = _stored([line for line in lines if line.element],
                              {name: line for name, line in last.items() if name in arrays}, of_copy)
    spread, elements = _spread(elements, copies)

    places: _Places = {name: (base, 0) for name, base in _COLUMNS.items()}
    places.update({name: (_HYPER, 8 * int(name[6:-1])) for name in made.trace.given.values() if "[" in name})
    values = {need.name: need for line in (*numbers, *spread, *stores) for need in line.needs
              if need.name not in places and not need.kernel}
    places.update({name: (_PROGRAM, 8 * (_HEADER + i)) for i, name in enumerate(values)})
    places.update({line.name: (_NUMBER, 8 * i) for i, line in enumerate(numbers)})
    places.update({name: places[array] for name, array in where.items()})
    size = _PIECE * max([_DTYPES[line.type].itemsize for line in (*spread, *elements)])
    places.update({line.name: (_SCRATCH, size * i) for i, line in enumerate(spread)})
    scratch = _in_scratch(elements, places, size, len(spread))
    columns = sum([1 << _COLUMNS[name] for name in (*arrays, "g")])
    header = [dtype.itemsize, 8 * len(numbers), scratch * size, _PIECE, columns,
              len(numbers), len(spread), len(elements), len(stores), _HEADER + len(values)]
    words = [np.array([v.value, 0]).astype(_DTYPES[v.type]).view(np.int64)[0] for v in values.values()]
    return np.array([*header, *words, *_words([*numbers, *spread, *elements, *stores], places)], np.int64)


def update(optimizer: Any, group: dict[str, Any], flags: tuple, hyper: int, device: Device,
           dtype: np.dtype) -> tuple[Kernel | None, tuple[int, ...]]:
    """As `kernel`, on the CPU: the kernel that runs programs, and the address of one."""
    if TYPE_SUFFIX.get(dtype) not in ("f32", "f64"):
        return None, ()
    key = type(optimizer), flags, hyper, dtype
    if key not in _programs:
        try:
            _programs[key] = device.constant(_program(_written(optimizer, group, flags, hyper, dtype), device, dtype))
        except NotImplementedError:             # not elementwise: the definition runs as it is
            _programs[key] = None
    program = _programs[key]
    return (None, ()) if program is None else (device.kernels.composed_update.only, (program.ptr,))
