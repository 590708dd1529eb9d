"""`summary`: a model's layers, their input and output shapes and parameters, as a table."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.modes import no_grad
from ..core.shape import fail
from ..core.table import Table, size
from ..core.tensor import Tensor
from ..ops.creation import zeros
from .arguments import DeviceLike
from .module import Module

_WIDE = 10_000          # columns: nothing is left out


def _shapes(value: Any) -> str:
    """The shapes of the tensors in a value: (2, 3), [(2, 3), (4,)], {"out": (2, 3)}."""
    if isinstance(value, Tensor):
        return str(tuple(value.shape))
    if isinstance(value, tuple | list):
        found = [_shapes(v) for v in value]
        return found[0] if len(found) == 1 else f"[{', '.join(found)}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {_shapes(v)}" for k, v in value.items()) + "}"
    return "None" if value is None else type(value).__name__


def _inputs(input_shape: Any, dtype: Any, device: DeviceLike) -> list[Tensor]:
    """Zeros of one shape, or of several."""
    several = len(input_shape) > 0 and not all(isinstance(n, int) for n in input_shape)
    shapes = list(input_shape) if several else [input_shape]
    dtypes = list(dtype) if isinstance(dtype, tuple | list) else [dtype] * len(shapes)
    if len(dtypes) != len(shapes) or not all(isinstance(n, int) for s in shapes for n in s):
        raise ValueError("[summary] input_shape must be one shape or several, dtype one dtype or as many; "
                         f"got input_shape={input_shape}, dtype={dtype}")
    return [zeros(tuple(s), dtype=d, device=device) for s, d in zip(shapes, dtypes, strict=True)]


class _Rows:
    """The lines of the table, added by hooks while the model is called."""

    def __init__(self, model: Module) -> None:
        self.paths = {module: path for path, module in model.named_modules()}
        self.rows: list[list[str]] = []
        self.open: list[list[str]] = []         # the lines of the calls that have not returned, outermost first
        self.called: set[Module] = set()
        self.counted: set[int] = set()          # ids of the parameters that a line above has counted

    def line(self, module: Module, given: str) -> list[str]:
        """Name, type, shapes of the input and (later) of the output, number of parameters."""
        path = self.paths[module]
        every = list(module.parameters(recurse=False))
        own = [p for p in every if id(p) not in self.counted]
        self.counted.update(id(p) for p in own)
        number = f"{sum(p.numel() for p in own):,}" if own else "(shared)" if every else ""
        name = "  " * (path.count(".") + 1 if path else 0) + (path.rpartition(".")[2] or "model")
        return [name, type(module).__name__, given, "", number]

    def before(self, module: Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """The hook before a module's forward."""
        self.open.append(self.line(module, _shapes([*args, *kwargs.values()])))
        self.called.add(module)
        self.rows.append(self.open[-1])

    def after(self, module: Module, args: tuple, output: Any) -> None:
        """The hook after it."""
        self.open.pop()[3] = _shapes(output)

    def watch(self, model: Module, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """Calls the model once, in evaluation mode and unrecorded; modes and hooks are then as before."""
        handles, modes = [], [(module, module.training) for module in self.paths]
        try:
            for module in self.paths:
                handles.append(module.register_forward_pre_hook(self.before, with_kwargs=True))
                handles.append(module.register_forward_hook(self.after))
            model.eval()
            with no_grad():
                model(*args, **kwargs)
        finally:
            for handle in handles:
                handle.remove()
            for module, mode in modes:
                module.training = mode
        self.rows += [self.line(module, "not called") for module in self.paths if module not in self.called]


class Summary(str):
    """The text of a table, which a notebook shows as an HTML table. `rows` holds its cells, the head first."""

    table: Table

    @property
    def rows(self) -> list[list[str]]:
        """The cells of the table, the head first."""
        return [self.table.head, *self.table.rows]

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """For notebooks."""
        return self.table.html()


def summary(model: Module, input_shape: Any = None, dtype: Any = None, device: DeviceLike = None, *,
            input_data: Any = None, **kwargs: Any) -> Summary:
    """The table of one forward pass of zeros of `input_shape` (the batch dimension included), as text.

    input_shape  one shape, or a list of shapes for a model with several inputs; a tensor counts as `input_data`
    dtype        of all inputs, or a list with one for each
    input_data   instead of shapes: the tensor, or the tuple of arguments, that the model is called with
    kwargs       go to the model's call

    It has a line for each module in the order of the calls: path, type, shapes in and out, and the number of own
    parameters; a parameter that several modules share counts in the first line. Modules that were not called come last.
    The pass runs in evaluation mode and unrecorded; the modes are then as before.

        print(nn.summary(model, (1, 64)))
        print(nn.summary(translator, [(2, 7), (2, 5)], dtype=minigrad.int64))
    """
    if not isinstance(model, Module):
        fail("summary", "model must be a module (nn.Module)", type(model).__name__, "the model comes first", TypeError)
    if isinstance(input_shape, Tensor) and input_data is None:
        input_shape, input_data = None, input_shape
    if (input_shape is None) == (input_data is None):
        given = "neither" if input_data is None else "both"
        raise ValueError(f"[summary] takes input_shape or input_data; got {given}")
    if input_data is None:
        args = _inputs(input_shape, dtype, device)
    else:
        args = list(input_data) if isinstance(input_data, tuple | list) else [input_data]
    found = _Rows(model)
    found.watch(model, args, kwargs)
    return _table(found.rows, model)


def _table(rows: list[list[str]], model: Module) -> Summary:
    """The lines under their head, and the sums of the model below."""
    every = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    kept = sum(b.numel() for b in model.buffers())
    memory = size(sum(t.nbytes for t in (*model.parameters(), *model.buffers())))
    total = f"{every:,} parameters, {trained:,} of them trained" + (f"; {kept:,} numbers in buffers" if kept else "")
    table = Table(["module", "type", "input", "output", "parameters"], rows, numbers=("parameters",),
                  notes=[f"{total}; {memory}"])
    lines = table.text(_WIDE).splitlines()
    made = Summary("\n".join([*lines[:-1], lines[1], lines[-1]]))
    made.table = table
    return made
