"""`torch.autograd.Variable`: PyTorch's old name of a tensor, which programs such as torchviz still ask for."""
from __future__ import annotations

from typing import Any, NoReturn, cast

from ..core.shape import fail
from ..core.tensor import Tensor
from ..core.warning import warn


class _Kind(type):
    """Tensors are its instances."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, Tensor)

    def __subclasscheck__(cls, kind: type) -> bool:
        return type.__subclasscheck__(cls, kind) or issubclass(kind, Tensor)

    def __call__(cls, data: Any, requires_grad: bool = False, volatile: bool = False) -> Tensor:
        if volatile:
            warn("[Variable] volatile has no effect; use `with no_grad():` instead")
        if not isinstance(data, Tensor):
            fail("Variable", "data must be a tensor", type(data).__name__,
                 "minigrad.tensor(data, requires_grad=...) makes one", TypeError)
        return cast(Tensor, data.detach().requires_grad_(requires_grad))    # type: ignore[attr-defined]


class Variable(metaclass=_Kind):
    """`Variable(data, requires_grad=False)`: a leaf with the memory of the tensor `data`. `isinstance(t, Variable)` is
    True for each tensor. PyTorch's name from before 0.4; new programs use tensors. `volatile=True` warns that it has
    no effect. TypeError for anything but a tensor.

    >>> x = autograd.Variable(minigrad.ones(3), requires_grad=True)
    """

    def __init_subclass__(cls, **_: Any) -> NoReturn:
        raise TypeError("[Variable] cannot be a base class: its objects are tensors; nn.Parameter is a tensor of a "
                        "module")
