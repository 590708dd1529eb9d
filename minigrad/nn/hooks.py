"""The hooks of modules: `Hookable` keeps them and calls them; `Module` inherits from it.

A call without hooks costs one attribute test: hook tables are made by the first registration, and `_hooked` (on the
instance, or on the class while there is a hook for all modules) is what `Module.__call__` looks at.
"""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ..core.hooks import RemovableHandle
from ..core.modes import changed, mode, watched
from ..core.tape import Node, Slot, edge_of, recorded
from ..core.tensor import Tensor, new_tensor
from ..core.warning import warn
from ..ops.creation import zeros

_NONE: Mapping[int, Any] = MappingProxyType({})     # the hook table of every module to which no hook was added

# hooks for all modules; while there is one, every call takes the way through `_call_hooked`
_global_forward_pre_hooks: dict[int, Any] = OrderedDict()
_global_forward_hooks: dict[int, Any] = OrderedDict()
_global_backward_pre_hooks: dict[int, Any] = OrderedDict()
_global_backward_hooks: dict[int, Any] = OrderedDict()
watched += [_global_forward_pre_hooks, _global_forward_hooks, _global_backward_pre_hooks, _global_backward_hooks]


def _register(table: dict[int, Any], entry: Any, prepend: bool = False) -> RemovableHandle:
    """Adds a hook to a table, at the end or (`prepend`) before the others."""
    handle = RemovableHandle(table)
    while handle.id in table:                           # an unpickled module's hook has it
        handle = RemovableHandle(table)
    table[handle.id] = entry
    if prepend:
        table.move_to_end(handle.id, last=False)        # type: ignore[attr-defined]
    changed()
    return handle


# ---- backward hooks ----


class _Gate:
    """The op that is the identity on several tensors; backward passes all their gradients through `seen` at once."""

    name = "module_hook"

    def __init__(self, seen: Callable[[tuple], tuple]) -> None:
        self.seen = seen

    def __call__(self, tensors: list[Tensor]) -> list[Tensor]:
        layouts: Any = tuple(t.layout for t in tensors)
        node = recorded(self, tuple(edge_of(t) for t in tensors), layouts)
        return [new_tensor(t.array, Slot(node, i, t.layout)) for i, t in enumerate(tensors)]

    def backward(self, node: Node, grads: list[Tensor | None], needs: list[bool]) -> tuple:
        """The gradients of the inputs."""
        return self.seen(tuple(grads))


def _replaced(changed: Any, grads: tuple, what: str, where: str) -> tuple:
    """The gradients that a hook returned instead of `grads`; None keeps them, one tensor is a tuple of it."""
    if changed is None:
        return grads
    changed = changed if isinstance(changed, tuple) else (changed,)
    if len(changed) != len(grads):
        raise RuntimeError(f"[Module] {what} returned an invalid number of {where}; got {len(changed)}, "
                           f"expected {len(grads)}")
    for g in changed:
        if g is not None and not isinstance(g, Tensor):
            raise TypeError(f"[Module] {what} must return tensors or None; got {type(g).__name__}")
    return changed


class _BackwardHooks:
    """The full backward hooks of one call.

    Two gates see the gradients: one on the outputs of the call gets `grad_output`, one on the inputs `grad_input`.
    Hooks need both, so `grad_output` is kept until the second gate runs.
    """

    def __init__(self, module: Any, pre_hooks: list[Callable], hooks: list[Callable]) -> None:
        self.module, self.pre_hooks, self.hooks = module, pre_hooks, hooks
        self.grad_output: tuple | None = None
        self.count = 0                          # of the positional inputs
        self.gated = False                      # does some input require a gradient?

    def _through_gate(self, values: tuple, on_grads: Callable[[tuple], tuple]) -> tuple[tuple, bool]:
        """The values, those that require a gradient put through a gate; were there any?"""
        where = [i for i, v in enumerate(values) if isinstance(v, Tensor) and v.requires_grad] if mode.grad else []
        if not where:
            return values, False
        still = [(i, v.layout) for i, v in enumerate(values)
                 if isinstance(v, Tensor) and not v.requires_grad and v.is_floating_point()]

        def seen(grads: tuple) -> tuple:
            full: list[Any] = [None] * len(values)
            for i, x in still:                  # as in PyTorch: zeros for a tensor without gradient, else None
                full[i] = zeros(x.shape, dtype=x.dtype, device=x.device)
            for i, g in zip(where, grads, strict=True):
                full[i] = g
            changed = on_grads(tuple(full))
            return tuple(changed[i] for i in where)

        out = list(values)
        for i, t in zip(where, _Gate(seen)([values[i] for i in where]), strict=True):
            out[i] = t
        return (type(values)(*out) if hasattr(values, "_fields") else tuple(out)), True

    def inputs(self, args: tuple) -> tuple:
        """The positional arguments of the call, through their gate."""
        self.count = len(args)
        args, self.gated = self._through_gate(args, self._on_grad_input)
        return args

    def outputs(self, result: Any) -> Any:
        """What the call returned, through its gate."""
        if not isinstance(result, Tensor | tuple):
            warn("backward hooks need a module that returns a Tensor or a tuple of Tensors, "
                 f"but {type(self.module).__name__} returned {type(result)}")
            return result
        values, _ = self._through_gate(result if isinstance(result, tuple) else (result,), self._on_grad_output)
        return values if isinstance(result, tuple) else values[0]

    def _on_grad_output(self, grads: tuple) -> tuple:
        for hook in self.pre_hooks:
            grads = _replaced(hook(self.module, grads), grads, "a full backward pre-hook", "grad_output")
        if self.gated:
            self.grad_output = grads
        elif self.hooks:
            warn("a full backward hook runs when the gradients of the outputs are there, "
                 "since no inputs require gradients")
            for hook in self.hooks:
                changed = hook(self.module, (None,) * self.count, grads)
                if changed is not None and not (isinstance(changed, tuple) and all(g is None for g in changed)):
                    raise RuntimeError("[Module] where no input requires a gradient, a full backward hook must return "
                                       f"None, or None for every input; got {type(changed).__name__}")
        return grads

    def _on_grad_input(self, grads: tuple) -> tuple:
        if self.grad_output is None:            # the gradient did not come through the outputs
            return grads
        for hook in self.hooks:
            grads = _replaced(hook(self.module, grads, self.grad_output), grads, "a full backward hook", "grad_input")
        self.grad_output = None
        return grads


# ---- what a module inherits ----


class Hookable:
    """The part of `Module` that keeps hooks and calls them."""

    forward: Callable[..., Any]

    _hooked = False
    _forward_pre_hooks = _forward_hooks = _backward_pre_hooks = _backward_hooks = _hook_options = _NONE
    _state_dict_pre_hooks = _state_dict_hooks = _load_state_dict_pre_hooks = _load_state_dict_post_hooks = _NONE

    def _hook_table(self, name: str) -> dict[int, Any]:
        """The table `name` of this module, made at the first registration."""
        if name not in self.__dict__:
            self.__dict__[name] = OrderedDict()
        return self.__dict__[name]

    def _add_call_hook(self, name: str, hook: Any, prepend: bool, *options: bool) -> RemovableHandle:
        self.__dict__["_hooked"] = True
        handle = _register(self._hook_table(name), hook, prepend)
        if any(options) or self._hook_options:
            self._hook_table("_hook_options")[handle.id] = options
        return handle

    def register_forward_pre_hook(self, hook: Callable, *, prepend: bool = False,
                                  with_kwargs: bool = False) -> RemovableHandle:
        """Adds `hook(module, args[, kwargs])`, called before `forward`.

        It returns None, or new args, or with `with_kwargs` the pair (args, kwargs). `prepend`: before the other hooks.
        """
        return self._add_call_hook("_forward_pre_hooks", hook, prepend, with_kwargs)

    def register_forward_hook(self, hook: Callable, *, prepend: bool = False, with_kwargs: bool = False,
                              always_call: bool = False) -> RemovableHandle:
        """Adds `hook(module, args[, kwargs], output)`, called after `forward`; it returns None or another output.

        `always_call`: also when the call raises.
        """
        return self._add_call_hook("_forward_hooks", hook, prepend, with_kwargs, always_call)

    def register_full_backward_pre_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Adds `hook(module, grad_output)`, called before the module's backward; returns None or a grad_output."""
        return self._add_call_hook("_backward_pre_hooks", hook, prepend)

    def register_full_backward_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Adds `hook(module, grad_input, grad_output)`, called after the module's backward.

        It returns None, or another grad_input.
        """
        return self._add_call_hook("_backward_hooks", hook, prepend)

    def register_state_dict_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Adds `hook(module, prefix, keep_vars)`, called before `state_dict` collects this module."""
        return _register(self._hook_table("_state_dict_pre_hooks"), hook)

    def register_state_dict_post_hook(self, hook: Callable) -> RemovableHandle:
        """Adds `hook(module, state_dict, prefix, local_metadata)`, called after it; changes `state_dict` in place."""
        return _register(self._hook_table("_state_dict_hooks"), hook)

    def register_load_state_dict_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Adds a hook that is called before this module loads its part of a state dict.

            hook(module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        """
        return _register(self._hook_table("_load_state_dict_pre_hooks"), hook)

    def register_load_state_dict_post_hook(self, hook: Callable) -> RemovableHandle:
        """Adds `hook(module, incompatible_keys)`, called after loading; it may change the lists of keys in place."""
        return _register(self._hook_table("_load_state_dict_post_hooks"), hook)

    # ---- the call with hooks ----

    def _call_hooked(self, args: tuple, kwargs: dict[str, Any]) -> Any:
        """What `Module.__call__` does where there are hooks."""
        result, ran = None, set()
        own = self._hook_options
        forward_hooks = [(key, *hook) for key, hook in _global_forward_hooks.items()]
        forward_hooks += [(key, hook, *own.get(key, (False, False))) for key, hook in self._forward_hooks.items()]
        try:
            args, kwargs = self._run_pre_hooks(args, kwargs)
            pre = [*_global_backward_pre_hooks.values(), *self._backward_pre_hooks.values()]
            full = [*_global_backward_hooks.values(), *self._backward_hooks.values()]
            backward = _BackwardHooks(self, pre, full) if pre or full else None
            if backward:
                args = backward.inputs(args)
            result = self.forward(*args, **kwargs)
            for key, hook, with_kwargs, _ in forward_hooks:
                ran.add(key)
                changed = hook(self, args, kwargs, result) if with_kwargs else hook(self, args, result)
                if changed is not None:
                    result = changed
            return backward.outputs(result) if backward else result
        except Exception:
            for key, hook, with_kwargs, always in forward_hooks:
                if always and key not in ran:
                    try:
                        changed = hook(self, args, kwargs, result) if with_kwargs else hook(self, args, result)
                        result = result if changed is None else changed
                    except Exception as e:
                        warn("a forward hook with always_call=True raised, which is silenced because forward "
                             f"had raised before: {e}")
            raise

    def _run_pre_hooks(self, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """The arguments of `forward`, as the pre-hooks leave them."""
        own = [(hook, self._hook_options.get(key, (False,))[0]) for key, hook in self._forward_pre_hooks.items()]
        for hook, with_kwargs in [*_global_forward_pre_hooks.values(), *own]:
            changed = hook(self, args, kwargs) if with_kwargs else hook(self, args)
            if changed is None:
                continue
            if not with_kwargs:
                args = changed if isinstance(changed, tuple) else (changed,)
            elif isinstance(changed, tuple) and len(changed) == 2:
                args, kwargs = changed
            else:
                raise RuntimeError("[Module] a forward pre-hook must return None or a tuple of (new_args, new_kwargs); "
                                   f"got {changed}")
        return args, kwargs


# ---- hooks for all modules ----


class _GlobalHandle(RemovableHandle):
    """The handle of a hook for all modules; removing the last one makes calls plain again."""

    def remove(self) -> None:
        """Removes the hook."""
        super().remove()
        Hookable._hooked = bool(_global_forward_pre_hooks or _global_forward_hooks or _global_backward_pre_hooks
                                or _global_backward_hooks)


def _register_global(table: dict[int, Any], entry: Any) -> RemovableHandle:
    handle = _GlobalHandle(table)
    table[handle.id] = entry
    Hookable._hooked = True
    changed()
    return handle


def register_module_forward_pre_hook(hook: Callable) -> RemovableHandle:
    """Adds `hook(module, args)`, called before the forward of every module."""
    return _register_global(_global_forward_pre_hooks, (hook, False))


def register_module_forward_hook(hook: Callable, *, with_kwargs: bool = False,
                                 always_call: bool = False) -> RemovableHandle:
    """Adds `hook(module, args[, kwargs], output)`, called after the forward of every module."""
    return _register_global(_global_forward_hooks, (hook, with_kwargs, always_call))


def register_module_full_backward_pre_hook(hook: Callable) -> RemovableHandle:
    """Adds `hook(module, grad_output)`, called before the backward of every module."""
    return _register_global(_global_backward_pre_hooks, hook)


def register_module_full_backward_hook(hook: Callable) -> RemovableHandle:
    """Adds `hook(module, grad_input, grad_output)`, called after the backward of every module."""
    return _register_global(_global_backward_hooks, hook)


# ---- hooks of members ----

_registration_hooks: dict[str, dict[int, Any]] = {kind: OrderedDict() for kind in ("buffer", "module", "parameter")}


def registered(kind: str, module: Any, name: str, value: Any) -> Any:
    """What becomes the member `name` of a module: `value`, or what a hook returned instead."""
    for hook in list(_registration_hooks[kind].values()):
        other = hook(module, name, value)
        value = value if other is None else other
    return value


def register_module_buffer_registration_hook(hook: Callable) -> RemovableHandle:
    """Adds `hook(module, name, buffer)`, called when any module gets a buffer; it returns None or another buffer."""
    return _register(_registration_hooks["buffer"], hook)


def register_module_module_registration_hook(hook: Callable) -> RemovableHandle:
    """Adds `hook(module, name, submodule)`, called when any module gets another; it returns None or another one."""
    return _register(_registration_hooks["module"], hook)


def register_module_parameter_registration_hook(hook: Callable) -> RemovableHandle:
    """Adds `hook(module, name, parameter)`, called when any module gets a parameter; it returns None or another one."""
    return _register(_registration_hooks["parameter"], hook)
