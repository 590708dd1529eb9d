"""The update of all parameters in two launches on a GPU, for optimisers without a kernel of their own: CUDA text that
is written down from the definition.

Read `optimizer.py` first. `_define` runs once, on a parameter of two elements on the CPU, and the launches that it asks
for are noted, not made: all of them are elementwise. Each becomes a line of the kernel, with the expression that
ops/elementwise.cu has for it; what an array holds is a variable, and a write to the parameter or its state is a write
of the last variable.

    x * y                                                  const float v7 = of_mul<float>(v3, v5);
    numbers of a parameter (step, lr, 1 - beta**step)      one thread of the block computes them for the others
    numbers that the update changes                        the second launch writes them, with the step counts
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
from ..devices.base import TYPE_SUFFIX, Device, Kernel, split
from ..devices.declared import Declared
from ..devices.launch import KERNELS
from ..devices.native import ffi
from ..devices.plan import is_half
from ..devices.work import work
from .table import sizes, step_rule

_PACKAGE = Path(__file__).parent.parent
_ELEMENTWISE = "ops/elementwise.cu"
_STATES = 3                                 # columns of the table for what a parameter's state holds
_EXPRESSION = re.compile(r"^(?:UNARY|BINARY)\(\w+, (\w+), (.*?)\)(?: *//.*)?$|^(?:COMPARE|CLASSIFY)\((\w+), (.*?)\)$",
                         re.M)
_TYPES: dict[str, tuple[str, Any]] = {"f32": ("float", ctypes.c_float), "f64": ("double", ctypes.c_double),
                                      "u8": ("uint8_t", ctypes.c_uint8)}
_MOVED = {"i32": "f32", "i64": "f64"}       # moves go by size, and all that an update moves are floats
_kernels: dict[tuple, Kernel] = {}


class _Line(NamedTuple):
    """A variable of the kernel: `type name = text`. Without `text` it is given: an array of the kernel's, or a number.

    `needs`: the variables that the text reads; `element`: each element of the parameter has its own, else each
    parameter.
    """

    name: str
    type: str
    text: str
    needs: list[_Line]
    element: bool


class _Trace:
    """What a definition does, line by line. `held`: what each array holds by now, by its address."""

    def __init__(self) -> None:
        self.held: dict[int, _Line] = {}
        self.given: dict[int, str] = {}     # the arrays that the kernel gets
        self.lines: dict[tuple[str, str], _Line] = {}       # by type and text: each is computed once
        self.used: set[str] = set()         # the elementwise functions
        self.pins: list[Any] = []           # owners of memory that was written: no other array may come to lie there
        self.thread = get_ident()

    def give(self, name: str, t: Any, element: bool) -> None:
        """An array that the kernel gets, under the name that its text has for it."""
        self.given[t.array.ptr] = name
        self.held[t.array.ptr] = _Line(name, _TYPES[TYPE_SUFFIX[t.dtype]][0], "", [], element)

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
        values = [self.value(ptr, "u8" if name == "where" and not i else suffix) for i, ptr in enumerate(inputs)]
        self.held[out] = self.line(name, suffix, values, ffi.cast("int64_t *", plan)[1] > 1)
        region = find(out)
        self.pins.append(region and region())

    def value(self, ptr: int, suffix: str) -> _Line:
        """What an operand holds. What nobody wrote is a number of the definition."""
        if ptr in self.held:
            return self.held[ptr]
        kind, ctype = _TYPES[_MOVED.get(suffix, suffix)]
        number = repr(ctype.from_address(ptr).value).replace("inf", "INFINITY").replace("nan", "NAN")
        return _Line(f"{kind}({number})", kind, "", [], False)

    def line(self, name: str, suffix: str, values: list[_Line], element: bool) -> _Line:
        """The variable that a launch makes, which may be one that there is."""
        names = [v.name for v in values]
        if name == "copy":
            return values[0]
        if name == "where":
            kind, text = values[1].type, f"{names[0]} ? {names[1]} : {names[2]}"
        elif name.startswith("cast_"):
            kind = _TYPES[name[5:]][0]
            text = f"{names[0]} != 0" if kind == "uint8_t" else f"({kind}){names[0]}"
        else:
            own = _TYPES[suffix][0]
            kind, text = "uint8_t" if _expressions()[name][1] else own, f"of_{name}<{own}>({', '.join(names)})"
            self.used.add(name)
        return self.lines.setdefault((kind, text), _Line(f"v{len(self.lines)}", kind, text, values, element))

    def functions(self) -> str:
        """The functions that the lines call."""
        found = {name: _expressions()[name][0] for name in sorted(self.used)}
        return "".join(f"template <class N> __device__ __forceinline__ auto of_{name}(N x{', N y' * ('y' in text)}) "
                       f"{{ return {text}; }}\n" for name, text in found.items())


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


def _ordered(lines: Iterable[_Line], element: bool) -> list[_Line]:
    """These lines and those that they need, in the order in which they are computed: of elements, or the others."""
    found: dict[str, _Line] = {}
    for line in lines:
        _add(line, found)
    return [line for line in found.values() if line.element == element]


def _add(line: _Line, found: dict[str, _Line]) -> None:
    if line.name not in found and line.text:
        for need in line.needs:
            _add(need, found)
        found[line.name] = line


def _text(lines: Iterable[_Line]) -> str:
    return "".join(f"const {line.type} {line.name} = {line.text};\n" for line in lines)


def _kernel_text(name: str, made: _Written, flags: int) -> str:
    """The text that goes after optim/optim.cu."""
    trace, arrays = made.trace, [f"s{i + 1}" for i in range(made.states)]
    ours = {n: line for n, line in made.lines.items() if n in ("p", *arrays)}
    counted = {n: line for n, line in made.lines.items() if n not in ours}
    body = _ordered(ours.values(), True)
    read = [*ours.values(), *[need for line in body for need in line.needs]]
    shared = {line.name: line for line in read if not line.element and line.text}
    fields = {"p": "r.at(i)", "g": "r.g[i]", **{n: f"r.state{n[1:]}[i]" for n in arrays}}
    loaded = {n: fields[n] for n in fields if n in {line.name for line in read}}
    numbers = "const double step = *r.step + 1;\n" + "".join(
        f"const double {n} = *(const double *)r.state{n[1:]};\n" for n in trace.given.values()
        if n[0] == "s" and n != "step" and n not in arrays)
    stores = "".join(f"r.set(i, {line.name});\n" if n == "p" else f"{fields[n]} = {line.name};\n"
                     for n, line in ours.items())
    counts = "".join(f"*(double *)r.state{n[1:]} = {line.name};\n" for n, line in counted.items())
    flag = "".join([f", int64_t flag{i}" for i in range(flags)])
    arguments = f"const int64_t *table, const double *hyper, int64_t count{flag}"
    return f"""
#ifdef MG_TYPE
#if IS_REAL
{trace.functions()}
KERNEL({name})({arguments}) {{
{"".join(f"__shared__ {line.type} of_block_{n};{chr(10)}" for n, line in shared.items())}
each_parameter(table, count, [&](const Parameter &r, int64_t begin, int64_t end) {{
{numbers}
__syncthreads();                           // other threads may still read the numbers of the previous parameter
if (threadIdx.x == 0) {{
{_text(_ordered(shared.values(), False))}{"".join(f"of_block_{n} = {n};{chr(10)}" for n in shared)}
}}
__syncthreads();
{"".join(f"const {line.type} {n} = of_block_{n};{chr(10)}" for n, line in shared.items())}
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
    with ThreadPoolExecutor(1) as clean:        # a thread without a recording, autocast or other modes
        made = clean.submit(_traced, optimizer, group, flags, hyper, dtype).result()
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
