"""``summary``: a model's layers, their input and output shapes and parameters, as a table."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minigrad.ops.creation import zeros

from ..core.tape import no_grad
from ..core.tensor import Tensor
from .module import Module


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


def _inputs(input_shape: Any, dtype: Any, device: Any) -> list[Tensor]:
    """Zeros of one shape, or of several."""
    several = len(input_shape) > 0 and not all(isinstance(n, int) for n in input_shape)
    shapes = list(input_shape) if several else [input_shape]
    dtypes = list(dtype) if isinstance(dtype, tuple | list) else [dtype] * len(shapes)
    if len(dtypes) != len(shapes) or not all(isinstance(n, int) for s in shapes for n in s):
        raise ValueError("[summary] input_shape must be one shape or several, dtype one dtype or as many; "
                         f"got input_shape={input_shape}, dtype={dtype}")
    return [zeros(tuple(s), dtype=d, device=device) for s, d in zip(shapes, dtypes, strict=True)]


def summary(model: Module, input_shape: Any = None, dtype: Any = None, device: Any = None, *, input_data: Any = None,
            **kwargs: Any) -> str:
    """The table of one forward pass of zeros of ``input_shape`` (the batch dimension included), as text.

    input_shape  one shape, or a list of shapes for a model with several inputs; ``dtype`` is that of all of them, or a list
    input_data   instead of shapes: the tensor, or the tuple of arguments, that the model is called with
    kwargs       go to the model's call

    A line for each module in the order of the calls: path, type, shapes in and out, own parameters, counted where the module or the
    tensor is met first. Modules that were not called come last. The pass runs in evaluation mode and unrecorded; the modes are put back.

        print(nn.summary(model, (1, 64)))
        print(nn.summary(translator, [(2, 7), (2, 5)], dtype=minigrad.int64))
    """
    if (input_shape is None) == (input_data is None):
        raise ValueError("[summary] takes input_shape or input_data; got " + ("neither" if input_data is None else "both"))
    args = _inputs(input_shape, dtype, device) if input_data is None else \
        list(input_data) if isinstance(input_data, tuple | list) else [input_data]
    rows: list[list[str]] = []
    handles, modes = [], [(module, module.training) for module in model.modules()]
    paths = {module: path for path, module in model.named_modules()}
    counted: set[int] = set()
    called: set[Module] = set()

    def line(module: Module, given: str) -> list[str]:
        path = paths[module]
        own = [p for p in module.parameters(recurse=False) if id(p) not in counted]
        shared = len(own) < len(list(module.parameters(recurse=False)))
        counted.update(id(p) for p in own)
        number = f"{sum(p.numel() for p in own):,}" if own else "(shared)" if shared else ""
        name = "  " * (path.count(".") + 1 if path else 0) + (path.rpartition(".")[2] or "model")
        return [name, type(module).__name__, given, "", number]

    def before(module: Module, args: tuple, kwargs: dict[str, Any]) -> None:
        calls.append(line(module, _shapes([*args, *kwargs.values()])))
        called.add(module)
        rows.append(calls[-1])

    def after(module: Module, args: tuple, output: Any) -> None:
        calls.pop()[3] = _shapes(output)

    calls: list[list[str]] = []
    try:
        for module in paths:
            handles += [module.register_forward_pre_hook(before, with_kwargs=True), module.register_forward_hook(after)]
        model.eval()
        with no_grad():
            model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode
    rows += [line(module, "not called") for module in paths if module not in called]
    return _table(rows, model)


def _table(rows: list[list[str]], model: Module) -> str:
    rows = [["module", "type", "input", "output", "parameters"], *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = ["  ".join([*[row[i].ljust(widths[i]) for i in range(4)], row[4].rjust(widths[4])]).rstrip() for row in rows]
    every = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    kept = sum(b.numel() for b in model.buffers())
    size = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    lines.insert(1, "-" * max(map(len, lines)))
    total = f"{every:,} parameters, {trained:,} of them trained" + (f"; {kept:,} numbers in buffers" if kept else "")
    return "\n".join([*lines, lines[1], f"{total}; {size / 1024:,.1f} KiB"])
