"""`torch.nn.grad`: the gradients of convolutions, which programs call in backwards of their own."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..autograd import enable_grad, grad, is_grad_enabled
from ..core.tensor import Tensor
from ..nn import functional


def _gradient(name: str, at: int) -> Callable[..., Tensor]:
    """The gradient to the input (at = 0) or the weight (1), whose shape stands in its place."""
    def of(first: Any, second: Any, grad_output: Tensor, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
           groups: int = 1) -> Tensor:
        given = [first, second]
        again = is_grad_enabled() and (grad_output.requires_grad or given[1 - at].requires_grad)
        x = given[at] = grad_output.new_zeros(tuple(given[at])).requires_grad_()
        with enable_grad():
            y = getattr(functional, name)(*given, None, stride, padding, dilation, groups)
        return grad(y, x, grad_output, create_graph=again)[0]           # type: ignore[no-any-return]
    return of


conv1d_input, conv2d_input, conv3d_input = (_gradient(f"conv{n}d", 0) for n in (1, 2, 3))
conv1d_weight, conv2d_weight, conv3d_weight = (_gradient(f"conv{n}d", 1) for n in (1, 2, 3))
