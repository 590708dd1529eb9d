"""Mixed precision, `torch.amp`: `autocast` runs products in half precision, `GradScaler` keeps float16 gradients in
range.

    scaler = amp.GradScaler("cpu")
    for x, y in batches:
        with amp.autocast("cpu", dtype=minigrad.float16):
            loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

An op says beside its definition that its inputs are cast (`autocast_to_half`, `autocast_to_float32`: core/half.py).
While autocast is on in some thread, each of them has a `_Table` in the place of its plans: in that thread every
look-up there finds a `_Casting` plan, in another what it would have found. So nothing is asked while it is off.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from .core.decorated import decorated
from .core.half import autocasts, call_cast, casting, widened
from .core.modes import mode, no_grad
from .core.notes import Notes
from .core.shape import FLOAT32
from .core.tensor import Tensor
from .core.warning import warn
from .devices.cuda import is_available
from .devices.plan import Plan, is_half
from .ops.creation import tensor
from .ops.math import mul

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["GradScaler", "autocast", "get_autocast_dtype", "is_autocast_available", "is_autocast_enabled"]

Function = TypeVar("Function", bound=Callable[..., Any])


class _Casting(Plan):
    """What an op does under autocast: it casts its inputs, and runs as without autocast. It has no `run`, like the
    `Wide` plans of core/half.py, so that the fast paths leave it to `at`."""

    __slots__ = ()

    def __init__(self, op: Any) -> None:
        self.op, self.why, self.kernel, self.table, self.walk, self.attrs = op, "autocast", None, None, 0, None

    def at(self, inputs: Iterable[Any], attrs: dict[str, Any] | None = None) -> Any:
        """The result for these tensors."""
        return call_cast(self.op, inputs, attrs or {})


class _Table(dict):
    """The plans of an op while autocast is on in some thread."""

    def __init__(self, op: Any) -> None:
        super().__init__()
        self.plans, self.plan = op.plans, _Casting(op)

    def get(self, key: Any, default: Any = None) -> Any:
        return self.plans.get(key, default) if mode.autocast is None else self.plan

    def values(self) -> Any:
        return self.plans.values()

    def clear(self) -> None:
        self.plans.clear()

    def __len__(self) -> int:
        return len(self.plans)

    def __setitem__(self, key: Any, plan: Any) -> None:
        self.plans[key] = plan


_lock = Lock()
_users = 0                      # in how many threads it is on


def _enter() -> None:
    """Counts a thread; the first one sets the tables."""
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            casting.update(autocasts)
            for op in casting:
                if hasattr(op, "plans"):
                    op.plans = _Table(op)


def _leave() -> None:
    """The last thread to leave gives the plans back."""
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            for op in casting:
                if isinstance(getattr(op, "plans", None), _Table):
                    op.plans = op.plans.plans
            casting.clear()


class _For(NamedTuple):
    """Autocast on one type of device: its dtype, or None for off."""

    device: str
    dtype: np.dtype | None


def _set_autocast(state: Any) -> Any:
    """Sets where autocast is on in this thread (`mode.autocast`), or changes it `_For` a device. Returns the former."""
    before = mode.autocast
    if isinstance(state, _For):
        others = tuple([pair for pair in before or () if pair[0] != state.device])
        state = (others if state.dtype is None else (*others, tuple(state))) or None
    if before is None and state is not None:
        _enter()
    mode.autocast = state
    if before is not None and state is None:
        _leave()
    return before


class autocast:
    """Inside, products (matmul, linear, convolutions, attention, recurrent layers) of tensors on that type of device
    run in `dtype` (recurrent layers in float32) and give it; losses and `prod` run in float32, and on a GPU softmax and
    norms, too. As a `with` block or a decorator, also of generators and coroutines (it holds while their body runs);
    `enabled=False` switches it off inside. Blocks for both types of device may be nested.

    device_type     "cpu" or "cuda", which warns and does nothing where there is no GPU
    dtype           bfloat16 or float16, by default bfloat16 on "cpu" and float16 on "cuda"; for others it warns and
                    does nothing
    cache_enabled   accepted for PyTorch's signature; nothing is cached

    Tensors of float64 and integers are left alone. Run backward outside of the block.

    >>> with minigrad.autocast("cpu"):
    ...     y = x @ w           # bfloat16
    """

    def __init__(self, device_type: str, dtype: Any = None, enabled: bool = True,
                 cache_enabled: bool | None = None) -> None:
        if not isinstance(device_type, str):
            raise ValueError(f"[autocast] device_type must be a str; got {type(device_type).__name__}")
        _checked_type("autocast", device_type)
        self.device, self._enabled = device_type, bool(enabled)
        self.fast_dtype = get_autocast_dtype(device_type) if dtype is None else np.dtype(dtype)
        self._before: list[Any] = []
        if self._enabled and device_type == "cuda":
            if not is_available():
                warn("[autocast] 'cuda' is not available. Disabling autocast.")
                self._enabled = False
        if self._enabled and not is_half(self.fast_dtype):
            warn(f"[autocast] the dtype must be bfloat16 or float16; got {self.fast_dtype}. "
                 "Disabling autocast.")
            self._enabled = False

    def _state(self) -> Any:
        return _For(self.device, self.fast_dtype if self._enabled else None)

    def __enter__(self) -> Self:
        self._before.append(_set_autocast(self._state()))
        return self

    def __exit__(self, *_: object) -> None:
        _set_autocast(self._before.pop())

    def __call__(self, function: Function) -> Function:
        return wraps(function)(decorated(function, self._state(), _set_autocast))       # type: ignore[return-value]


class autocast_as_now:
    """A block with the autocast state that this thread has now: for what runs again later."""

    def __init__(self) -> None:
        self._now, self._before = mode.autocast, list[Any]()

    def __enter__(self) -> Self:
        self._before.append(_set_autocast(self._now))
        return self

    def __exit__(self, *_: object) -> None:
        _set_autocast(self._before.pop())


def _checked_type(name: str, device_type: str) -> str:
    if device_type not in ("cpu", "cuda"):
        raise RuntimeError(f"[{name}] device_type must be 'cpu' or 'cuda'; got {device_type!r}")
    return device_type


def is_autocast_available(device_type: str) -> bool:
    """Can autocast run on this kind of device? On "cpu", and on "cuda" if there is a GPU."""
    return device_type == "cpu" or device_type == "cuda" and is_available()


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Is autocast on in this thread, for this kind of device? (PyTorch's default is "cuda".)"""
    return _checked_type("is_autocast_enabled", device_type) in dict(mode.autocast or ())


def get_autocast_dtype(device_type: str) -> np.dtype:
    """The dtype of autocast: that of the block, else bfloat16 for "cpu" and float16 for "cuda"."""
    now: dict[str, np.dtype] = dict(mode.autocast or ())
    if _checked_type("get_autocast_dtype", device_type) in now:
        return now[device_type]
    if device_type == "cuda":
        return np.dtype(np.float16)
    try:
        import ml_dtypes
    except ImportError:
        raise RuntimeError("[autocast] bfloat16 needs the package ml_dtypes; pip install ml_dtypes, "
                           "or pass dtype=minigrad.float16") from None
    return np.dtype(ml_dtypes.bfloat16)


# ---- scaling of gradients --------------------------------------------------------------------------------------------

class GradScaler:
    """Multiplies the loss, so that small gradients do not vanish in float16, and divides the gradients before the step.

    A step whose gradients hold inf or nan is left out, and `update` multiplies the scale by `backoff_factor`; after
    `growth_interval` good updates in a row it multiplies it by `growth_factor`. With `enabled=False`, `scale` returns
    its argument and `step` is that of the optimizer. It reads values, so a captured step cannot hold it.
    """

    def __init__(self, device: str = "cpu", init_scale: float = 2.0 ** 16, growth_factor: float = 2.0,
                 backoff_factor: float = 0.5, growth_interval: int = 2000, enabled: bool = True) -> None:
        self._enabled = bool(enabled)
        if self._enabled and _checked_type("GradScaler", device) == "cuda" and not is_available():
            warn("[GradScaler] 'cuda' is not available. Disabling.")
            self._enabled = False
        if self._enabled and not growth_factor > 1.0:
            raise ValueError(f"[GradScaler] growth_factor must be above 1; got {growth_factor}")
        if self._enabled and not backoff_factor < 1.0:
            raise ValueError(f"[GradScaler] backoff_factor must be below 1; got {backoff_factor}")
        self._device, self._scale, self._growth_tracker = device, float(init_scale), 0
        self._growth_factor, self._backoff_factor = growth_factor, backoff_factor
        self._growth_interval = growth_interval
        self._stages: dict[int, tuple[str, bool]] = {}      # of each optimizer since the last update; any inf?
        self._scaled = False                                # was `scale` called at all?

    def _noted(self, notes: Notes, text: str) -> None:
        """Notes for a capture the scale, which is a number for the function."""
        notes.add(self.__dict__, ("_enabled", "_scale"), text)

    def scale(self, outputs: Any) -> Any:
        """A tensor multiplied by the scale, or an iterable of them (tuples and lists may be nested)."""
        if not self._enabled:
            return outputs
        self._scaled = True
        if isinstance(outputs, Tensor):
            # a 0-d tensor of float32 makes a loss of half precision float32, so that it does not overflow
            return mul(outputs, self._scale if outputs.ndim else self._tensor(outputs))
        if isinstance(outputs, Iterable):
            scaled = [self.scale(o) for o in outputs]
            return type(outputs)(scaled) if isinstance(outputs, (tuple, list)) else iter(scaled)
        raise ValueError("[GradScaler] outputs must be a Tensor or an iterable of Tensors; "
                         f"got {type(outputs).__name__}")

    def _tensor(self, like: Tensor) -> Tensor:
        return tensor(self._scale, dtype=FLOAT32, device=like.device)

    def unscale_(self, optimizer: Any) -> None:
        """Divides the gradients of the optimizer's parameters by the scale, in place: before clipping, say. `step` does
        it otherwise. RuntimeError if it was done since the last update, or if nothing was ever scaled; ValueError for
        float16 gradients."""
        if not self._enabled:
            return
        if not self._scaled:
            raise RuntimeError("[GradScaler] nothing was scaled, but the gradients would be divided by the scale; call "
                               "backward() on scale(loss)")
        stage = self._stages.get(id(optimizer), ("ready", False))[0]
        if stage != "ready":
            done = "unscale_() has been called on this optimizer" if stage == "unscaled" else "step() has been called"
            raise RuntimeError(f"[GradScaler] {done} since the last update(); call update() first")
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if any([g.dtype == np.float16 for g in grads]):
            raise ValueError("[GradScaler] float16 gradients are not unscaled; keep the parameters in float32")
        inverse, found = 1.0 / self._scale, False
        with no_grad():
            for g in grads:
                g.copy_(mul(widened(g), inverse))
                found = found or not g.isfinite().all().item()      # type: ignore[attr-defined]
        self._stages[id(optimizer)] = "unscaled", found

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """`optimizer.step(*args, **kwargs)` after `unscale_`, unless a gradient is inf or nan."""
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs:
            raise RuntimeError("[GradScaler] a closure is not supported; got closure; use enabled=False")
        if self._stages.get(id(optimizer), ("", False))[0] == "stepped":
            raise RuntimeError("[GradScaler] step() has been called since the last update(); call update() first")
        if id(optimizer) not in self._stages:
            self.unscale_(optimizer)
        found = self._stages[id(optimizer)][1]
        result = None if found else optimizer.step(*args, **kwargs)
        self._stages[id(optimizer)] = "stepped", found
        return result

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Sets the scale of the next iteration, to `new_scale` if it is given."""
        if not self._enabled:
            return
        if new_scale is not None:
            self._scale = float(new_scale)
        elif not self._stages:
            raise RuntimeError("[GradScaler] update() needs a step() or unscale_() since the last update()")
        elif any([found for _, found in self._stages.values()]):
            self._scale, self._growth_tracker = self._scale * self._backoff_factor, 0
        else:
            self._growth_tracker += 1
            if self._growth_tracker == self._growth_interval:
                grown = self._scale * self._growth_factor
                self._scale, self._growth_tracker = grown if np.isfinite(np.float32(grown)) else self._scale, 0
        self._stages.clear()

    def get_scale(self) -> float:
        """The scale, 1.0 if it is not enabled."""
        return self._scale if self._enabled else 1.0

    def get_growth_factor(self) -> float:
        """By what the scale grows."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Sets by what the scale grows."""
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        """By what the scale is multiplied after inf or nan."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Sets by what the scale is multiplied after inf or nan."""
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        """After how many good updates the scale grows."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Sets after how many good updates the scale grows."""
        self._growth_interval = new_interval

    def is_enabled(self) -> bool:
        """Does it scale?"""
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """Scale, factors, interval and the count of good updates; empty if it is not enabled."""
        if not self._enabled:
            return {}
        return {"scale": self._scale, "growth_factor": self._growth_factor, "backoff_factor": self._backoff_factor,
                "growth_interval": self._growth_interval, "_growth_tracker": self._growth_tracker}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues from what `state_dict` returned. RuntimeError if that is empty and this scaler is enabled."""
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError("[GradScaler] the state dict is empty, perhaps of a scaler that was not enabled")
        self._scale, self._growth_factor = float(state_dict["scale"]), state_dict["growth_factor"]
        self._backoff_factor, self._growth_interval = state_dict["backoff_factor"], state_dict["growth_interval"]
        self._growth_tracker = state_dict["_growth_tracker"]
