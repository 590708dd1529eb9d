"""`torch.testing`: `assert_close`."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..core.tensor import Tensor
from ..ops.creation import as_tensor, empty

__all__ = ["assert_allclose", "assert_close", "make_tensor"]

# PyTorch's defaults: (rtol, atol) by dtype
_TOLERANCES = {"float16": (1e-3, 1e-5), "bfloat16": (1.6e-2, 1e-5), "float32": (1.3e-6, 1e-5), "float64": (1e-7, 1e-7)}


def get_tolerances(*inputs: Any, rtol: float | None, atol: float | None) -> tuple[float, float]:
    """(rtol, atol), if both are given; else PyTorch's for the dtypes or tensors, the widest. ValueError for one."""
    if rtol is not None and atol is not None:
        return rtol, atol
    if (rtol is None) != (atol is None):
        raise ValueError("[assert_close] rtol and atol must both be given or both be left out")
    dtypes = [x.dtype if isinstance(x, Tensor) else np.dtype(x) for x in inputs]
    known = [_TOLERANCES.get(dtype.name, (0.0, 0.0)) for dtype in dtypes]
    return max(r for r, _ in known), max(a for _, a in known)


def assert_close(actual: Any, expected: Any, *, allow_subclasses: bool = True, rtol: float | None = None,
                 atol: float | None = None, equal_nan: bool = False, check_device: bool = True,
                 check_dtype: bool = True, check_layout: bool = True, check_stride: bool = False,
                 msg: str | Callable[[str], str] | None = None) -> None:
    """AssertionError unless |actual - expected| <= atol + rtol |expected| everywhere, for tensors, arrays and numbers
    of one shape, dtype and device, also in sequences and mappings. Without rtol and atol, they are PyTorch's for the
    dtype, the wider of two."""
    get_tolerances("float32", rtol=rtol, atol=atol)
    same: dict[str, Any] = {"rtol": rtol, "atol": atol, "equal_nan": equal_nan, "check_device": check_device,
            "check_dtype": check_dtype, "msg": msg}
    if isinstance(actual, Mapping) and isinstance(expected, Mapping):
        if actual.keys() != expected.keys():
            raise AssertionError(f"The keys differ: {list(actual)} and {list(expected)}")
        for key in actual:
            assert_close(actual[key], expected[key], **same)
    elif (isinstance(actual, Sequence) and isinstance(expected, Sequence)
          and not isinstance(actual, str) and not isinstance(expected, str)):
        if len(actual) != len(expected):
            raise AssertionError(f"The lengths differ: {len(actual)} and {len(expected)}")
        for a, b in zip(actual, expected, strict=True):
            assert_close(a, b, **same)
    else:
        text = _difference(actual, expected, rtol, atol, equal_nan, check_device, check_dtype)
        if text:
            raise AssertionError(msg(text) if callable(msg) else msg or text)


def _difference(actual: Any, expected: Any, rtol: float | None, atol: float | None, equal_nan: bool,
                check_device: bool, check_dtype: bool) -> str:
    """How two values differ; nothing if they are close."""
    a, b = as_tensor(actual).detach(), as_tensor(expected).detach()
    if a.shape != b.shape:
        return f"The shapes differ: {tuple(a.shape)} and {tuple(b.shape)}"
    if isinstance(actual, Tensor) and isinstance(expected, Tensor):
        if check_dtype and a.dtype != b.dtype:
            return f"The dtypes differ: {a.dtype} and {b.dtype}"
        if check_device and a.device is not b.device:
            return f"The devices differ: {a.device} and {b.device}"
    rtol, atol = get_tolerances(a, b, rtol=rtol, atol=atol)
    x, y = (t.cpu().numpy().astype(np.float64) if t.dtype.kind in "fV" else t.cpu().numpy() for t in (a, b))
    close = np.isclose(x, y, rtol=rtol, atol=atol, equal_nan=equal_nan)
    if close.all():
        return ""
    apart = np.abs(np.subtract(x, y, dtype=np.float64))[~close]
    return (f"Tensor-likes are not close: {apart.size} of {close.size} elements differ, by up to {apart.max():g} "
            f"(rtol={rtol:g}, atol={atol:g})")


def make_tensor(*shape: Any, dtype: Any, device: Any = None, low: float | None = None, high: float | None = None,
                requires_grad: bool = False, noncontiguous: bool = False, exclude_zero: bool = False,
                memory_format: Any = None) -> Tensor:
    """Uniform random numbers from `low` to `high`: from -9 to 9 without them, from 0 to 9 for uint8. `noncontiguous`:
    every second element of another tensor; `exclude_zero`: zeros become 1."""
    size = shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
    kind = np.dtype(dtype)
    first, last = 0 if kind.kind in "bu" else -9, 2 if kind.kind == "b" else 10 if kind.kind in "iu" else 9
    wide = (*size[:-1], 2 * size[-1]) if noncontiguous and size else tuple(size)
    bounds = first if low is None else low, last if high is None else high
    made: Any = empty(wide, dtype="float64", device=device).uniform_(*bounds)      # type: ignore[attr-defined]
    made = (made.floor() if kind.kind in "biu" else made).to(kind)
    if exclude_zero:
        made[made == 0] = 1
    made = made[..., ::2] if wide != tuple(size) else made
    return made.requires_grad_(requires_grad)                                       # type: ignore[no-any-return]


def assert_allclose(actual: Any, expected: Any, rtol: float | None = None, atol: float | None = None,
                    equal_nan: bool = True, msg: str = "") -> None:
    """The old name of `assert_close`, which does not look at dtypes."""
    assert_close(as_tensor(actual), as_tensor(expected), rtol=rtol, atol=atol, equal_nan=equal_nan, check_device=True,
                 check_dtype=False, msg=msg or None)
