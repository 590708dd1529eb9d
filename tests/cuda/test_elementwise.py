"""Elementwise kernels and activations against their C twins."""
from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu.twins import DTYPES, RACE, compare, emulated, values, walk_plan

from minigrad.devices.base import split
from minigrad.devices.launch import KERNELS
from minigrad.devices.native import signatures

pytestmark = [emulated, pytest.mark.usefixtures("gpu")]
LAYOUTS = {      # name: (shape, strides of the output, of the first operand, of the others, elements the operands need)
    "one": ((1,), (1,), (1,), (1,), 1),
    "scalar": ((), (), (), (), 1),
    "31": ((31,), (1,), (1,), (1,), 31),
    "1037": ((1037,), (1,), (1,), (1,), 1037),
    "transposed": ((5, 33), (33, 1), (1, 5), (33, 1), 165),
    "broadcast": ((3, 4, 7), (28, 7, 1), (0, 1, 4), (7, 0, 1), 28),
    "every other": ((100,), (1,), (2,), (0,), 200),
    "empty": ((0,), (1,), (1,), (1,), 1),
}
DOMAINS = {"log": (0.1, 9), "log2": (0.1, 9), "log10": (0.1, 9), "log1p": (-0.9, 9), "sqrt": (0, 9), "rsqrt": (0.1, 9), "asin": (-1, 1),
           "acos": (-1, 1), "atanh": (-0.9, 0.9), "acosh": (1, 9), "erfinv": (-0.99, 0.99), "lgamma": (0.1, 9), "digamma": (0.1, 9),
           "pow": (0.1, 3)}
ULPS = {"tan": 64, "lgamma": 64, "erfc": 64, "erfinv": 64, "digamma": 64, "pow": 64, "gelu": 64, "gelu_backward": 64}


def elementwise_cases():
    cases = []
    for full, signature in signatures().items():
        name, suffix = split(full)
        if name in KERNELS and KERNELS[name].file in ("ops/elementwise.cu", "ops/activation.cu"):
            cases.append((full, name, suffix, signature.letters))
    return cases


@pytest.mark.parametrize("full,name,suffix,signature", elementwise_cases(), ids=[c[0] for c in elementwise_cases()])
def test_elementwise(full, name, suffix, signature):
    if RACE and suffix not in ("f32", "u8"):
        pytest.skip("one type is enough for races")
    dtype = DTYPES[suffix]
    results = dict(eq="u8", ne="u8", lt="u8", le="u8", gt="u8", ge="u8", isnan="u8", isinf="u8", isfinite="u8")
    to = DTYPES[name[5:] if name.startswith("cast_") else results.get(name, suffix)]
    operands = signature.count("p") - 1
    scalars = [[0.75, 1.5][:signature.count("d")], [1]][signature.endswith("i")]
    for shape, out, first, rest, size in LAYOUTS.values():
        strides = [first, rest, rest][:operands]
        if name == "where":
            arrays = [values(np.uint8, size), values(dtype, size), values(dtype, size)]
        else:
            arrays = [values(dtype, size, *DOMAINS.get(name, (-3, 3))) for _ in range(operands)]
            if np.dtype(dtype).kind == "f" and size > 20 and name not in DOMAINS and name not in ("sin", "cos", "tan"):
                arrays[0][:6] = [np.inf, -np.inf, np.nan, 0, -0.0, 1e30]
        n = int(np.prod(shape))
        compare(full, values(to, max(n, 1)), *arrays, walk_plan(shape, out, *strides), *scalars, ulps=ULPS.get(name, 8))
