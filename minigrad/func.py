"""Functions of functions, with the names of `torch.func`: gradients, Jacobians, `vmap`, and calls of a module with
given parameters.

Arguments and results may be nested tuples, lists and dicts of tensors. Derivatives can be nested: `grad(grad(f))`.
`vmap` calls the function for each element of the batch, one after the other; forward mode is computed by two backward
passes. Tensors that a function closes over count as constants, unless they require gradients: then the result is
connected to them.

    minigrad.func.grad(lambda x: (x ** 3).sum())(minigrad.tensor([1.0, 2.0]))       # [3, 12]
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any

from .core import engine
from .core.modes import enable_grad, mode, no_grad
from .core.shape import fail
from .core.tape import edge_of, reachable
from .core.tensor import Tensor
from .core.warning import warn
from .devices.base import Device
from .nn.module import Parameter
from .ops.creation import ones_like, zeros, zeros_like
from .ops.formula import allclose
from .ops.join import stack
from .ops.random import Generator, own_generator

__all__ = ["functional_call", "grad", "grad_and_value", "hessian", "jacfwd", "jacrev", "jvp", "linearize",
           "stack_module_state", "vjp", "vmap"]

Function = Callable[..., Any]
Dims = int | Sequence[int]
_NOTHING: Any = object()


# ---- nested tuples, lists and dicts ----------------------------------------------------------------------------------

def _leaves(tree: Any) -> Iterator[Any]:
    """What is no tuple, list or dict, in order."""
    if isinstance(tree, (tuple, list)):
        for value in tree:
            yield from _leaves(value)
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from _leaves(value)
    else:
        yield tree


def _mapped(tree: Any, replace: Callable[[Any], Any]) -> Any:
    """The tree with `replace(leaf)` in place of each leaf, called in order."""
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*[_mapped(value, replace) for value in tree])
    if isinstance(tree, (tuple, list)):
        return type(tree)([_mapped(value, replace) for value in tree])
    if isinstance(tree, Mapping):
        made = {name: _mapped(value, replace) for name, value in tree.items()}
        if isinstance(tree, dict) and type(tree) is not dict:           # an OrderedDict, a defaultdict
            same = copy(tree)
            same.update(made)
            return same
        return made
    return replace(tree)


def _refilled(tree: Any, values: Sequence[Any]) -> Any:
    """The tree with other leaves."""
    rest = iter(values)
    return _mapped(tree, lambda leaf: next(rest))


def _tensors(name: str, tree: Any, what: str) -> list[Tensor]:
    found = list(_leaves(tree))
    for t in found:
        if not isinstance(t, Tensor):
            raise TypeError(f"[func.{name}] {what} must be tensors, or nested tuples, lists or dicts of them; "
                            f"got {type(t).__name__}")
    return found


# ---- one run of a function ------------------------------------------------------------------------------------------

class _Run:
    """A call of `func` in which the tensors of `inputs` are variables of their own.

    `value` is the result, `outputs` its tensors, `aux` what comes with it; `own` are the variables. `connected`: do the
    results depend on tensors outside that require gradients? Then derivatives are recorded.
    """

    def __init__(self, name: str, func: Callable[[Any], Any], inputs: Any, has_aux: bool) -> None:
        self.name, self.given = name, _tensors(name, inputs, "the arguments to differentiate by")
        recording = mode.grad
        with enable_grad():
            self.own = [t.view(t.shape) if recording and t.requires_grad else t.detach().requires_grad_()
                        for t in self.given]
            found = func(_refilled(inputs, self.own))
        self.aux = None
        if has_aux:
            if not isinstance(found, tuple) or len(found) != 2:
                raise TypeError(f"[func.{name}] with has_aux the function must return (output, aux); "
                                f"got {type(found).__name__}")
            found, self.aux = found
        self.value, self.outputs = found, _tensors(name, found, "what the function returns")
        self.connected = recording and (any([t.requires_grad for t in self.given]) or self._reaches_others())

    def _reaches_others(self) -> bool:
        """Do the outputs depend on leaves other than the run's own?"""
        own = {id(t) for t in self.own}
        edges = [edge_of(o) for o in self.outputs if o.requires_grad]
        nodes = reachable(edges, frozenset())
        leaves = [e for e in (*edges, *[e for n in nodes for e in n.inputs]) if isinstance(e, Tensor)]
        return any([id(e) not in own for e in leaves])

    def gradients(self, outputs: Sequence[Tensor], vs: Sequence[Tensor], keep: bool, record: bool) -> list[Tensor]:
        """v . d output / d input for each input, summed over the outputs; zeros where there is no dependence."""
        pairs = [(o, v) for o, v in zip(outputs, vs, strict=True) if o.requires_grad]
        found: Sequence[Tensor | None] = [None] * len(self.own)
        if pairs and self.own:
            found = engine.grad([o for o, _ in pairs], self.own, [v for _, v in pairs], keep or record, record,
                                allow_unused=True)
        return [zeros_like(t.detach()) if g is None else g for g, t in zip(found, self.own, strict=True)]

    def finished(self, tree: Any) -> Any:
        """Results, cut off from the graph unless they are connected to tensors outside."""
        return tree if self.connected else _mapped(tree, lambda t: t.detach() if isinstance(t, Tensor) else t)


def _chosen(name: str, args: tuple[Any, ...], argnums: Dims) -> tuple[int, ...]:
    """The positions of the arguments to differentiate by."""
    given = argnums if isinstance(argnums, (tuple, list)) else (argnums,)
    for n in given:
        if not isinstance(n, int) or not -len(args) <= n < len(args):
            fail(f"func.{name}", f"argnums must name arguments by position, of {len(args)}", repr(argnums))
    found = tuple([n % len(args) for n in given])
    if len(set(found)) != len(found) or not found:
        fail(f"func.{name}", "argnums must name different arguments", repr(argnums))
    return found


def _run_of(name: str, func: Function, args: tuple[Any, ...], named: dict[str, Any], argnums: Dims,
            has_aux: bool) -> tuple[_Run, Any]:
    """A run with the chosen arguments as variables, and these arguments: one, or a tuple."""
    at = _chosen(name, args, argnums)
    one = isinstance(argnums, int)
    inputs = args[at[0]] if one else tuple([args[i] for i in at])

    def call(new: Any) -> Any:
        full = list(args)
        for i, value in zip(at, (new,) if one else new, strict=True):
            full[i] = value
        return func(*full, **named)
    return _Run(name, call, inputs, has_aux), inputs


# ---- gradients -------------------------------------------------------------------------------------------------------

def grad_and_value(func: Function, argnums: Dims = 0, has_aux: bool = False) -> Function:
    """The function that gives (gradient, value) of `func`, which returns one number; with `has_aux` it returns (number,
    aux), and the result is (gradient, (value, aux)). Otherwise as `grad`."""
    return _gradient("grad_and_value", func, argnums, has_aux)


def _gradient(name: str, func: Function, argnums: Dims, has_aux: bool) -> Function:
    def gradient(*args: Any, **named: Any) -> Any:
        run, inputs = _run_of(name, func, args, named, argnums, has_aux)
        if not isinstance(run.value, Tensor) or run.value.numel() != 1 or run.value.ndim:
            fail(f"func.{name}", "the function must return a 0-d tensor",
                 [t.layout for t in run.outputs], "end it with .sum() or .mean()")
        found = run.gradients(run.outputs, [ones_like(run.value.detach())], False, run.connected)
        value = run.finished(run.value)
        return _refilled(inputs, found), (value, run.finished(run.aux)) if has_aux else value
    return gradient


def grad(func: Function, argnums: Dims = 0, has_aux: bool = False) -> Function:
    """The gradient of `func`, which returns one number (a 0-d tensor), as a function of the same arguments.

    The gradient is by the argument at position `argnums`, or a tuple of gradients by several; each has the nesting of
    its argument. With `has_aux`, `func` returns (number, aux), and the result is (gradient, aux).

    >>> minigrad.func.grad(lambda x: x ** 3)(minigrad.tensor(2.0)).item()
    12.0
    """
    both = _gradient("grad", func, argnums, has_aux)

    def gradient(*args: Any, **named: Any) -> Any:
        found, value = both(*args, **named)
        return (found, value[1]) if has_aux else found
    return gradient


def vjp(func: Function, *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """(func(*primals), vjp_fn): `vjp_fn(cotangents)`, with the nesting of the output, gives a tuple of vector-Jacobian
    products, one for each primal. With `has_aux`, aux is the third."""
    run = _Run("vjp", lambda new: func(*new), primals, has_aux)

    def vjp_fn(cotangents: Any) -> Any:
        vs = _tensors("vjp", cotangents, "the cotangents")
        if len(vs) != len(run.outputs) or any([v.shape != o.shape for v, o in zip(vs, run.outputs, strict=True)]):
            fail("func.vjp", "the cotangents must have the shapes of the output",
                 [[list(v.shape) for v in vs], [list(o.shape) for o in run.outputs]])
        record = run.connected or mode.grad and any([v.requires_grad for v in vs])
        return _refilled(primals, run.gradients(run.outputs, vs, True, record))
    value = run.finished(run.value)
    return (value, vjp_fn, run.finished(run.aux)) if has_aux else (value, vjp_fn)


def jvp(func: Function, primals: Any, tangents: Any, *, strict: bool = False, has_aux: bool = False) -> tuple[Any, ...]:
    """(func(*primals), the Jacobian-vector product with `tangents`), with `has_aux` also aux. Both arguments are tuples
    of one nesting. With `strict`, RuntimeError if an output does not depend on the primals.

    u J is linear in u, and the derivative of (u J) v by u is J v: two backward passes.
    """
    if not isinstance(primals, tuple) or not isinstance(tangents, tuple) or not primals:
        raise TypeError(f"[func.jvp] primals and tangents must be tuples; got {type(primals).__name__} and "
                        f"{type(tangents).__name__}")
    run, vs = _Run("jvp", lambda new: func(*new), primals, has_aux), _tensors("jvp", tangents, "the tangents")
    if len(vs) != len(run.own) or any([v.shape != t.shape for v, t in zip(vs, run.own, strict=True)]):
        fail("func.jvp", "the tangents must have the shapes of the primals",
             [[list(v.shape) for v in vs], [list(t.shape) for t in run.own]])
    record = run.connected or mode.grad and any([v.requires_grad for v in vs])
    with enable_grad():
        us = [zeros_like(o.detach()).requires_grad_() for o in run.outputs]
        rows = run.gradients(run.outputs, us, True, True)
        pairs = [(r, v) for r, v in zip(rows, vs, strict=True) if r.requires_grad]
        found: Sequence[Tensor | None] = [None] * len(us)
        if pairs:
            found = engine.grad([r for r, _ in pairs], us, [v for _, v in pairs], record, record, allow_unused=True)
    if strict and any([g is None for g in found]):
        fail("func.jvp", "with strict each output must depend on the primals",
             [o.layout for o, g in zip(run.outputs, found, strict=True) if g is None])
    products = [zeros_like(u.detach()) if g is None else g for g, u in zip(found, us, strict=True)]
    tangent = _refilled(run.value, products)
    value = run.finished(run.value)
    return (value, tangent, run.finished(run.aux)) if has_aux else (value, tangent)


def linearize(func: Function, *primals: Any) -> tuple[Any, Function]:
    """(func(*primals), jvp_fn): `jvp_fn(*tangents)` is the Jacobian-vector product there (see `jvp`)."""
    return func(*primals), lambda *tangents: jvp(func, primals, tangents)[1]


# ---- Jacobians -------------------------------------------------------------------------------------------------------

def jacrev(func: Function, argnums: Dims = 0, *, has_aux: bool = False, chunk_size: int | None = None) -> Function:
    """The Jacobian of `func` as a function of the same arguments: for each output the derivatives by the argument at
    `argnums` (or a tuple of them), of shape (*output, *input). One backward pass for each element of the output.
    `chunk_size` is there for PyTorch's signature."""
    def jacobian(*args: Any, **named: Any) -> Any:
        run, inputs = _run_of("jacrev", func, args, named, argnums, has_aux)
        rows = [_refilled(inputs, _rows(run, i)) for i in range(len(run.outputs))]
        found = _refilled(run.value, rows)
        return (found, run.finished(run.aux)) if has_aux else found
    return jacobian


def _rows(run: _Run, i: int) -> list[Tensor]:
    """d output i / d input for each input."""
    out, columns = run.outputs[i], [list[Tensor]() for _ in run.own]
    for element in range(out.numel()):
        with no_grad():
            seed = zeros(out.numel(), dtype=out.dtype, device=out.device)
            seed[element] = 1
        found = run.gradients([out], [seed.reshape(out.shape)], True, run.connected)
        for column, g in zip(columns, found, strict=True):
            column.append(g)
    shapes = [(*out.shape, *t.shape) for t in run.own]
    return [stack(c).reshape(shape) if c else zeros(shape, dtype=out.dtype, device=out.device)
            for c, shape in zip(columns, shapes, strict=True)]


def jacfwd(func: Function, argnums: Dims = 0, has_aux: bool = False, *, chunk_size: int | None = None,
           randomness: str = "error") -> Function:
    """The same as `jacrev`: there is no forward mode, and the values do not depend on the order. `randomness` is there
    for PyTorch's signature: `func` runs once."""
    return jacrev(func, argnums, has_aux=has_aux, chunk_size=chunk_size)


def hessian(func: Function, argnums: Dims = 0) -> Function:
    """The Hessian of `func`, which returns one number, as a function of the same arguments: the Jacobian of the
    Jacobian.

    >>> minigrad.func.hessian(lambda x: (x ** 3).sum())(minigrad.tensor([1.0, 2.0])).tolist()
    [[6.0, 0.0], [0.0, 12.0]]
    """
    return jacrev(jacrev(func, argnums), argnums)


# ---- vmap ------------------------------------------------------------------------------------------------------------

def _spread(dims: Any, tree: Any, what: str) -> list[int | None]:
    """A dimension (or None) for each leaf of a tree, from one for all, or from a tree like it."""
    if dims is None or isinstance(dims, int):
        return [dims for _ in _leaves(tree)]
    if isinstance(tree, Mapping) and isinstance(dims, Mapping) and set(dims) == set(tree):
        return [d for name, value in tree.items() for d in _spread(dims[name], value, what)]
    if isinstance(dims, (tuple, list)) and isinstance(tree, (tuple, list)) and len(dims) == len(tree):
        return [d for pair in zip(dims, tree, strict=True) for d in _spread(*pair, what)]
    raise ValueError(f"[func.vmap] {what} must be a number, None, or nested like what it is for; got {dims!r}")


class _Draws:
    """Takes the place of the default generators (`mode.streams`) while `vmap` calls its function: it hears of each
    generator that is drawn from, an explicit one too."""

    mapped = True           # what `as_strided` asks

    def __init__(self, randomness: str) -> None:
        self.randomness, self.outer = randomness, mode.streams
        self.apart = self.outer is not None and self.outer.apart
        self._starts: dict[Generator, Tensor] = {}

    def generator(self, device: Device) -> Generator:
        return own_generator(device) if self.outer is None else self.outer.generator(device)

    def drawn(self, generator: Generator) -> None:
        if self.randomness == "error":
            fail("func.vmap", "the function draws random numbers", fix='say randomness="different" or "same"')
        if self.outer is not None:
            self.outer.drawn(generator)
        if self.randomness == "same" and generator not in self._starts:
            self._starts[generator] = generator.get_state()

    def again(self) -> None:
        """Before another call: with "same" the generators go back to where they were."""
        for generator, state in self._starts.items():
            generator.set_state(state)


def vmap(func: Function, in_dims: Any = 0, out_dims: Any = 0, randomness: str = "error", *,
         chunk_size: int | None = None) -> Function:
    """The function that calls `func` for each element of a batch, and stacks the results: a loop.

    `in_dims`: which dimension of the arguments is the batch (None: all calls get the whole, which they must not change
    in place), one for all or nested like the arguments. Keyword arguments have no batch. `out_dims`: where the batch is
    in the results; None for what is the same in all calls, which need not be a tensor. `randomness`: with "same" all
    calls draw the same numbers, with "different" each its own; else it is an error to draw any. `chunk_size` is there
    for PyTorch's signature.

    >>> minigrad.func.vmap(minigrad.dot)(minigrad.ones(2, 3), minigrad.ones(2, 3)).tolist()
    [3.0, 3.0]
    """
    if chunk_size is not None and chunk_size <= 0:
        raise ValueError(f"[func.vmap] chunk_size must be None or positive; got {chunk_size}")
    if randomness not in ("error", "same", "different"):
        raise RuntimeError(f"[func.vmap] randomness must be 'error', 'same' or 'different'; got {randomness!r}")

    def mapped(*args: Any, **named: Any) -> Any:
        if not isinstance(in_dims, (int, tuple)):
            raise ValueError(f"[func.vmap] in_dims must be a number or a tuple; got {in_dims!r}")
        leaves, dims = list(_leaves(args)), _spread(in_dims, args, "in_dims")
        size = _batch(leaves, dims)
        whole = [t for t, d in zip(leaves, dims, strict=True) if d is None and isinstance(t, Tensor)]
        versions = [t._version for t in whole]
        draws, results = _Draws(randomness), []
        mode.streams = draws
        try:
            for i in range(size):
                parts = [t if d is None else t.select(d, i) for t, d in zip(leaves, dims, strict=True)]
                draws.again()
                results.append(func(*_refilled(args, parts), **named))
        finally:
            mode.streams = draws.outer
        if versions != [t._version for t in whole]:
            fail("func.vmap", "the function must not change an argument without a batch in place",
                 [t.layout for t in whole], "change a clone()")
        return _stacked(results, out_dims)
    return mapped


def _batch(leaves: list[Any], dims: list[int | None]) -> int:
    """The size of the batch, which is dimension d of each leaf that has a d."""
    for t, d in zip(leaves, dims, strict=True):
        if d is not None and (not isinstance(t, Tensor) or not -t.ndim <= d < t.ndim):
            raise ValueError(f"[func.vmap] in_dims names dimension {d} of what is no tensor with that dimension; got "
                             f"{t.layout if isinstance(t, Tensor) else type(t).__name__}")
    sizes = {t.shape[d] for t, d in zip(leaves, dims, strict=True) if d is not None}
    if len(sizes) != 1:
        raise ValueError("[func.vmap] the arguments with a batch must be tensors with one size of it; "
                         f"got {[list(t.shape) if isinstance(t, Tensor) else t for t in leaves]}, in_dims {dims}")
    size, = sizes
    if not size:
        fail("func.vmap", "the batch must not be empty", [t.layout for t in leaves if isinstance(t, Tensor)])
    return size


def _stacked(results: list[Any], out_dims: Any) -> Any:
    """The results of all calls, stacked."""
    if isinstance(out_dims, tuple) and len(out_dims) == 1 and isinstance(results[0], Tensor):
        out_dims, = out_dims
    where, columns = _spread(out_dims, results[0], "out_dims"), zip(*[_leaves(r) for r in results], strict=True)
    return _refilled(results[0], [_merged(column, d) for column, d in zip(columns, where, strict=True)])


def _merged(column: Sequence[Any], d: int | None) -> Any:
    """The tensors that the calls returned in one place, stacked; for None what all of them returned."""
    first = column[0]
    for t in column:
        if d is None and t is not first and not _same(t, first):
            raise ValueError("[func.vmap] the calls returned different values where out_dims is None")
        if d is not None and not isinstance(t, Tensor):
            raise ValueError("[func.vmap] what the function returns must be tensors, or nested tuples, lists or dicts "
                             f"of them, where out_dims is not None; got {type(t).__name__}")
    return first if d is None else stack(column, d)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.shape == b.shape and allclose(a, b, 0.0, 0.0, equal_nan=True)
    return type(a) is type(b) and (not isinstance(a, (int, float, str)) or a == b)


# ---- modules ---------------------------------------------------------------------------------------------------------

def functional_call(module: Any, parameter_and_buffer_dicts: Any, args: Any = None,
                    kwargs: dict[str, Any] | None = None, *, tie_weights: bool = True, strict: bool = False) -> Any:
    """module(*args, **kwargs) with other tensors in it: a dict (or several) by name, as `named_parameters` and
    `named_buffers` have them. A plain attribute that is a tensor may be named as well, and one that is not there yet,
    with a warning. The module is as before afterwards.

    With `tie_weights`, all names of a parameter that is in the module several times get the tensor that one of them is
    given; ValueError for two. With `strict`, RuntimeError unless all parameters and buffers are given, and nothing
    else. TypeError if a value, or what it would replace, is no tensor. What `forward` assigns to one of the names is
    found in the dict afterwards.
    """
    dicts = parameter_and_buffer_dicts
    given: dict[str, Tensor] = {}
    for one in dicts if isinstance(dicts, (tuple, list)) else (dicts,):
        for name in one:
            if name in given:
                raise ValueError(f"[func.functional_call] {name!r} is in several of the dicts")
        given.update(one)
    all_places = places_of(module) if tie_weights or strict else {}
    if tie_weights:
        given = _tied(all_places, given)
    if strict and set(given) != set(all_places):
        fail("func.functional_call", "with strict all parameters and buffers must be given, and no others",
             [f"missing {sorted(set(all_places) - set(given))}", f"unknown {sorted(set(given) - set(all_places))}"])
    places = {name: _place(module, name, value) for name, value in given.items()}
    unknown = [name for name, (table, key) in places.items() if key not in table]
    if unknown:
        warn(f"[func.functional_call] the module has no tensors {', '.join(sorted(unknown))}: they are attributes of "
             "it during this call")
    with swapped(given, places):
        out = module(*(() if args is None else args if isinstance(args, tuple) else (args,)), **(kwargs or {}))
        if isinstance(dicts, dict):                     # `self.steps = self.steps + 1` in forward changes what is given
            dicts.update({name: places[name][0][places[name][1]] for name in dicts})
        return out


@contextmanager
def swapped(given: dict[str, Tensor], places: dict[str, tuple[dict, str]]) -> Iterator[None]:
    """A block in which other tensors stand in places of a module (see `places_of`), by name. KeyError for others."""
    before = [(table, key, table.get(key, _NOTHING)) for table, key in [places[name] for name in given]]
    try:
        for (table, key, _), value in zip(before, given.values(), strict=True):
            table[key] = value
        yield
    finally:
        for table, key, value in before:
            table[key] = value
            if value is _NOTHING:
                del table[key]


def _tied(places: dict[str, tuple[dict, str]], given: dict[str, Tensor]) -> dict[str, Tensor]:
    """What is given, for the other names of tied parameters too."""
    tied = {id(table[key]): given[name] for name, (table, key) in places.items() if name in given}
    if any(value is not tied.get(id(table[key]), value) for name, value in given.items() if name in places
           for table, key in (places[name],)):
        raise ValueError("[func.functional_call] the names of one tied parameter were given several tensors; pass "
                         "one of them, or tie_weights=False")
    others = {name: tied[id(table[key])] for name, (table, key) in places.items() if id(table[key]) in tied}
    return {**others, **given}


def _place(module: Any, name: str, value: Any) -> tuple[dict, str]:
    """Where the tensor of that full name stands, or would stand: (table, key)."""
    *path, key = name.split(".")
    for part in path:
        module = getattr(module, part)
    table = next((t for t in (module._parameters, module._buffers) if key in t), vars(module))
    for what in (value, table.get(key, value)):
        if what is not None and not isinstance(what, Tensor):
            raise TypeError(f"[func.functional_call] {name!r} must be a tensor, and so must what it replaces; got "
                            f"{type(what).__name__}")
    return (module._parameters if key not in table and isinstance(value, Parameter) else table), key


def places_of(module: Any) -> dict[str, tuple[dict, str]]:
    """Where each parameter and buffer of a module stands: (table, key), by its full name."""
    found: dict[str, tuple[dict, str]] = {}
    for prefix, part in module.named_modules(remove_duplicate=False):
        for table in (part._parameters, part._buffers):
            there = [key for key in table if table[key] is not None]
            found.update({f"{prefix}.{key}" if prefix else key: (table, key) for key in there})
    return found


def stack_module_state(models: Sequence[Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(parameters, buffers) of modules of one kind, by name, each stacked along a new first dimension: for `vmap` over
    `functional_call`. The stacked parameters are new leaves."""
    if not models:
        fail("func.stack_module_state", "needs at least one module", "none")
    if len({type(m) for m in models}) > 1:
        fail("func.stack_module_state", "the modules must be of one class", [type(m).__name__ for m in models])
    if len({m.training for m in models}) > 1:
        fail("func.stack_module_state", "the modules must be in one mode", [m.training for m in models], "call eval()")
    parameters, buffers = [dict(m.named_parameters()) for m in models], [dict(m.named_buffers()) for m in models]
    for name in parameters[0]:
        if len({p[name].requires_grad for p in parameters}) > 1:
            fail("func.stack_module_state", "a parameter must require a gradient in all modules or in none", name)
    made = {name: stack([p[name].detach() for p in parameters]).requires_grad_(parameters[0][name].requires_grad)
            for name in parameters[0]}
    return made, {name: stack([b[name].detach() for b in buffers]) for name in buffers[0]}
