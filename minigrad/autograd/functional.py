"""Derivatives of functions of tensors, with PyTorch's signatures: `vjp jvp vhp hvp jacobian hessian`.

All of them have these arguments:

    func          a function of tensors that returns a tensor or a tuple of tensors
    inputs        its argument, or a tuple of its arguments
    v             the vector of a product: a tensor or a tuple of tensors. It can be left out where its shape has one
                  element
    create_graph  gives results that can be differentiated again
    strict        raises RuntimeError if the result does not depend on an input; else the derivative is zeros

Results have the form of `inputs` or of the outputs: a tensor for a tensor, a tuple for a tuple. TypeError if something
else than tensors comes in or out.

    functional.jacobian(lambda x: x * x, minigrad.tensor([1.0, 2.0]))       # [[2, 0], [0, 4]]
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from ..core import engine
from ..core.modes import enable_grad, no_grad
from ..core.shape import fail
from ..core.tensor import Tensor
from ..ops.creation import ones_like, zeros, zeros_like
from ..ops.join import stack

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]


Func: TypeAlias = Callable[..., Any]
Tensors: TypeAlias = Tensor | tuple[Tensor, ...]


def _listed(value: Any, what: str, name: str) -> tuple[tuple[Tensor, ...], bool]:
    """A tensor or a tuple of tensors as a tuple, and whether it was a tuple. TypeError for anything else."""
    several = isinstance(value, tuple)
    listed = value if several else (value,)
    for i, t in enumerate(listed):
        if not isinstance(t, Tensor):
            raise TypeError(f"[{name}] {what} must be a Tensor or a tuple of Tensors; got {type(t).__name__}"
                            + f" at {i}" * several)
    return listed, several


def _as_given(values: Sequence[Tensor], several: bool) -> Any:
    return tuple(values) if several else values[0]


def _own(inputs: tuple[Tensor, ...], create_graph: bool) -> tuple[Tensor, ...]:
    """New tensors with the values of the arguments, so that the same tensors in a closure of `func` are constants."""
    return tuple([t.view(t.shape) if create_graph and t.requires_grad else t.detach().requires_grad_()
                  for t in inputs])


def _call(name: str, func: Func, inputs: tuple[Tensor, ...], strict: bool) -> tuple[tuple[Tensor, ...], bool]:
    """The outputs of `func` as a tuple, and whether they were a tuple."""
    outputs, several = _listed(func(*inputs), "what the function returns", name)
    for i, o in enumerate(outputs):
        if strict and not o.requires_grad:
            fail(name, f"output {i} of the function must depend on its inputs", o.layout,
                 "pass strict=False to get zeros")
    return outputs, several


def _vector(name: str, v: Any, like: tuple[Tensor, ...], create_graph: bool, what: str) -> list[Tensor]:
    """`v` as a list; RuntimeError if its shapes differ from those of `like`. None means 1, if `like` is one number."""
    if v is None:
        if len(like) != 1 or like[0].numel() != 1:
            fail(name, f"v can be left out only where the {what} is a single number", [t.layout for t in like],
                 "pass v")
        with no_grad():
            return [ones_like(like[0])]
    vs, _ = _listed(v, "v", name)
    if len(vs) != len(like) or any(a.shape != b.shape for a, b in zip(vs, like, strict=True)):
        fail(name, f"v must have the shapes of the {what}",
             [f"v {[list(t.shape) for t in vs]}", f"{[list(t.shape) for t in like]}"])
    return [t if create_graph else t.detach() for t in vs]


def _gradients(name: str, outputs: Sequence[Tensor | None], inputs: Sequence[Tensor], vs: Sequence[Tensor],
               create_graph: bool, strict: bool, retain_graph: bool = False) -> list[Tensor]:
    """The sum over the outputs of v . d output / d input, for each input; zeros if no output depends on it."""
    pairs = [(o, v) for o, v in zip(outputs, vs, strict=True) if o is not None and o.requires_grad]
    found: Sequence[Tensor | None] = [None] * len(inputs)
    if pairs:
        found = engine.grad([o for o, _ in pairs], inputs, [v for _, v in pairs], retain_graph or create_graph,
                            create_graph, allow_unused=True)
    results = []
    for i, (g, t) in enumerate(zip(found, inputs, strict=True)):
        if strict and g is None:
            fail(name, f"the function must depend on input {i}", t.layout, "pass strict=False to get zeros")
        if strict and create_graph and not g.requires_grad:     # type: ignore[union-attr]
            fail(name, f"the derivative must depend on input {i} where create_graph=True", t.layout,
                 "pass strict=False")
        results.append(zeros_like(t.detach()) if g is None else g)
    return results


def _finished(values: Sequence[Tensor], create_graph: bool) -> list[Tensor]:
    return list(values) if create_graph else [t.detach() for t in values]


def vjp(func: Func, inputs: Tensors, v: Tensors | None = None, create_graph: bool = False,
        strict: bool = False) -> tuple[Any, Any]:
    """(func(inputs), v J): a vector with the shapes of the outputs, times the Jacobian. One backward pass."""
    return _vjp("vjp", func, inputs, v, create_graph, strict)


def _vjp(name: str, func: Func, inputs: Tensors, v: Tensors | None, create_graph: bool,
         strict: bool) -> tuple[Any, Any]:
    listed, several = _listed(inputs, "inputs", name)
    with enable_grad():
        own = _own(listed, create_graph)
        outputs, several_out = _call(name, func, own, strict)
        vs = _vector(name, v, outputs, create_graph, "output")
    found = _gradients(name, outputs, own, vs, create_graph, strict)
    return (_as_given(_finished(outputs, create_graph), several_out),
            _as_given(_finished(found, create_graph), several))


def jvp(func: Func, inputs: Tensors, v: Tensors | None = None, create_graph: bool = False,
        strict: bool = False) -> tuple[Any, Any]:
    """(func(inputs), J v): the Jacobian times a vector with the shapes of the inputs.

    Two backward passes instead of a forward mode: u J is linear in u, and the derivative of (u J) v by u is J v.
    """
    return _jvp("jvp", func, inputs, v, create_graph, strict)


def _jvp(name: str, func: Func, inputs: Tensors, v: Tensors | None, create_graph: bool,
         strict: bool) -> tuple[Any, Any]:
    listed, _ = _listed(inputs, "inputs", name)
    with enable_grad():
        own = _own(listed, create_graph)
        vs = _vector(name, v, own, create_graph, "input")
        outputs, several_out = _call(name, func, own, strict)
        us = [zeros_like(o.detach()).requires_grad_() for o in outputs]
        rows = _gradients(name, outputs, own, us, True, False)
        if strict and not all(r.requires_grad for r in rows):
            i = [r.requires_grad for r in rows].index(False)
            fail(name, f"the function must depend on input {i}", own[i].layout, "pass strict=False to get zeros")
        found = _gradients(name, rows, us, vs, create_graph, False)
        if strict and create_graph and not all(t.requires_grad for t in found):
            fail(name, "the derivative must depend on the inputs where create_graph=True", [t.layout for t in own],
                 "pass strict=False")
    return (_as_given(_finished(outputs, create_graph), several_out),
            _as_given(_finished(found, create_graph), several_out))


def _gradient_of(name: str, func: Func, strict: bool, seen: list[Tensor]) -> Callable[..., tuple[Tensor, ...]]:
    """The gradient of `func` as a function. `func` must return one number; each call puts that number into `seen`."""
    def gradient(*inputs: Tensor) -> tuple[Tensor, ...]:
        outputs, several = _call(name, func, inputs, strict)
        if several or outputs[0].numel() != 1:
            fail(name, "the function must return a single tensor with one element", [o.layout for o in outputs])
        seen[:] = outputs
        return tuple(_gradients(name, outputs, inputs, [ones_like(outputs[0].detach())], True, strict))
    return gradient


def vhp(func: Func, inputs: Tensors, v: Tensors | None = None, create_graph: bool = False,
        strict: bool = False) -> tuple[Any, Any]:
    """(func(inputs), v H): a vector with the shapes of the inputs, times the Hessian. `func` must return one number."""
    return _second("vhp", _vjp, func, inputs, v, create_graph, strict)


def hvp(func: Func, inputs: Tensors, v: Tensors | None = None, create_graph: bool = False,
        strict: bool = False) -> tuple[Any, Any]:
    """(func(inputs), H v): the Hessian times a vector. `func` must return one number.

    The Hessian is symmetric, so that `vhp` gives the same values, with one backward pass less.
    """
    return _second("hvp", _jvp, func, inputs, v, create_graph, strict)


def _second(name: str, product: Callable[..., tuple[Any, Any]], func: Func, inputs: Tensors, v: Tensors | None,
            create_graph: bool, strict: bool) -> tuple[Any, Any]:
    """(func(inputs), `product` of v with the Hessian): the Hessian is the Jacobian of the gradient."""
    listed, several = _listed(inputs, "inputs", name)
    value: list[Tensor] = []
    vs = None if v is None else _listed(v, "v", name)[0]
    _, found = product(name, _gradient_of(name, func, strict, value), listed, vs, create_graph, strict)
    return _finished(value, create_graph)[0], _as_given(found, several)


def jacobian(func: Func, inputs: Tensors, create_graph: bool = False, strict: bool = False, vectorize: bool = False,
             strategy: str = "reverse-mode") -> Any:
    """The Jacobian J: J[i][j] is d output i / d input j, of shape (*output i, *input j).

    If `inputs` is a single tensor, the entries are J[i]; if the output is one, J[j]; if both are, J is a tensor.
    There is one backward pass for each element of the outputs.

    vectorize  accepted for PyTorch's signature, without effect; not together with `strict`: RuntimeError
    strategy   "reverse-mode" or "forward-mode", without effect: the values do not depend on it
    """
    return _jacobian("jacobian", func, inputs, create_graph, strict, vectorize, strategy)


def _jacobian(name: str, func: Func, inputs: Tensors, create_graph: bool, strict: bool, vectorize: bool,
              strategy: str) -> Any:
    if strategy not in ("reverse-mode", "forward-mode"):
        raise ValueError(f"[{name}] strategy must be 'reverse-mode' or 'forward-mode'; got {strategy!r}")
    if strict and vectorize:
        fail(name, "strict and vectorize cannot be asked for together", "strict=True, vectorize=True")
    listed, several = _listed(inputs, "inputs", name)
    with enable_grad():
        own = _own(listed, create_graph)
        outputs, several_out = _call(name, func, own, strict)
        rows = [_rows(name, o, own, create_graph, strict) for o in outputs]
    found = [_as_given(_finished(row, create_graph), several) for row in rows]
    return tuple(found) if several_out else found[0]


def _rows(name: str, out: Tensor, inputs: tuple[Tensor, ...], create_graph: bool, strict: bool) -> list[Tensor]:
    """d out / d input for each input, of shape (*out, *input)."""
    columns: list[list[Tensor]] = [[] for _ in inputs]
    for element in range(out.numel()):
        with no_grad():
            seed = zeros(out.numel(), dtype=out.dtype, device=out.device)
            seed[element] = 1
            seed = seed.reshape(out.shape)
        for column, g in zip(columns, _gradients(name, [out], inputs, [seed], create_graph, strict, True), strict=True):
            column.append(g)
    shapes = [(*out.shape, *t.shape) for t in inputs]
    return [stack(c).reshape(shape) if c else zeros(shape, dtype=out.dtype, device=out.device)
            for c, shape in zip(columns, shapes, strict=True)]


def hessian(func: Func, inputs: Tensors, create_graph: bool = False, strict: bool = False, vectorize: bool = False,
            outer_jacobian_strategy: str = "reverse-mode") -> Any:
    """The Hessian H of a function to one number: H[i][j] is d^2 f / d input i d input j, of shape (*input i, *input j).

    It is the Jacobian of the gradient. If `inputs` is a single tensor, H is a tensor. `vectorize` and
    `outer_jacobian_strategy` are as `vectorize` and `strategy` in `jacobian`.

        functional.hessian(lambda x: (x**3).sum(), minigrad.tensor([1.0, 2.0]))     # [[6, 0], [0, 12]]
    """
    _, several = _listed(inputs, "inputs", "hessian")
    gradient = _gradient_of("hessian", func, strict, [])
    function = gradient if several else lambda x: gradient(x)[0]
    return _jacobian("hessian", function, inputs, create_graph, strict, vectorize, outer_jacobian_strategy)
