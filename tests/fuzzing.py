"""Whatever is asked of the public API, it answers with a result or with an ordinary exception: what the files test_fuzz.py share.

Driven by the public names themselves (`minigrad.ops.__all__`, Tensor's methods, `nn`, `nn.functional`, `nn.init`, `optim`, `data`) and by
the samples of the ops. Arguments are right, nearly right or absurd. Never: a crash, a hang, a write to an input, a write beside the
memory of a tensor, a result that points outside its memory. What NumPy knows under the same name must come out the same.

    MINIGRAD_FUZZ=300 pytest -k test_fuzz                  300 fresh random examples for each name, instead of a few fixed ones
    MINIGRAD_FUZZ_LOG=calls.txt ...                        the file holds the call that was running when the process died
"""
from __future__ import annotations

import faulthandler
import inspect
import os
import random
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import minigrad as mg
from minigrad import testing
from minigrad.core.tensor import Tensor
from minigrad.devices import cpu, memory

ORDINARY = (RuntimeError, IndexError, TypeError, ValueError, NotImplementedError, ZeroDivisionError, OverflowError, MemoryError, BufferError,
            KeyError, ImportError)
EXAMPLES = int(os.environ.get("MINIGRAD_FUZZ", "0"))
quick = False                           # conftest.py sets it before the files are read
LOG = os.open(os.environ["MINIGRAD_FUZZ_LOG"], os.O_CREAT | os.O_WRONLY) if "MINIGRAD_FUZZ_LOG" in os.environ else None
DTYPES = ("float32", "float64", "int64", "int32", "bool", "float16", "uint8")
SIZES = (0, 1, 1, 2, 2, 3, 3, 4, 5, 31, 33)
HUGE = (2**48, -2**48, 2**62, 2**63, -2**63, 2**64, 10**30)
ABSURD = (None, "nonsense", "", object(), b"x", 1 + 2j, float("nan"), float("inf"), -float("inf"), -1, 0, 7, -7, True, (), [], {}, (-1,),
          (2, -3), (0, 0), [[1], [1, 2]], ("a",), (None,), slice(None), ..., np.array([None, 1], object), np.array(["a"]), np.float32(2), int,
          "cuda", "cpu", "meta", "cpu:7", 1e300, 0.5, -0.5, *HUGE, (2**48,), (2**31, 2**31), (2**62, 4), (2**63,), [2**64])
WORDS = ("mean", "sum", "none", "constant", "reflect", "replicate", "circular", "ij", "xy", "tanh", "fro", "nuc", "amax", "prod", "add", "ij,jk",
         "ij,jk->ik", "ii", "...i->...", "i,i", "floor", "trunc", "relu", "fan_in", "fan_out", "linear", "leaky_relu", "cpu")
# NumPy has the name and means something else by it
OTHERWISE_IN_NUMPY = {"std", "var", "median", "tile", "split", "repeat", "unique", "bitwise_left_shift", "bitwise_right_shift", "empty",
                      "empty_like", "from_dlpack", "trace", "diagonal"}
SEEDS = st.integers(0, 2**64 - 1)        # one number, not a draw for each choice: a hundred times as many calls a second


def examples(n):
    return settings(max_examples=EXAMPLES or (-(-n // 4) if quick else n), derandomize=not EXAMPLES, database=None, deadline=None,
                    suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def exact_blocks():
    """Blocks as large as their tensor, so that a sanitizer sees a step beside them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "ALIGN", 1)
        patch.setattr(memory, "block_size", lambda nbytes: nbytes)
        memory.empty_cache()
        memory.choose_pools()
        yield
        memory.empty_cache()
    memory.choose_pools()


@pytest.fixture(autouse=True)
def exact_memory(exact_blocks):
    """Exact blocks; a hang ends the run with a traceback; random numbers and switches are put back."""
    state = mg.get_rng_state()
    faulthandler.dump_traceback_later(300, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()
    mg.set_rng_state(state)
    memory.empty_cache()


class Draw:
    """Draws arguments, and remembers the memory they lie in."""

    def __init__(self, seed):
        self.rng, self.inputs, self.shape = random.Random(seed), [], None
        self.writes = False                                                 # an `out=` was drawn

    def one_of(self, values):
        return values[self.rng.randrange(len(values))]

    def chance(self, percent):
        return self.rng.randrange(100) < percent

    def a_shape(self):
        if self.shape is not None and self.chance(70):                      # related to the one before
            shape = self.shape
            kind = self.rng.randrange(6)
            if kind == 0:
                shape = shape[1:]
            elif kind == 1:
                shape = shape[-1:]
            elif kind == 2:
                shape = tuple(1 if self.chance(50) else n for n in shape)
            elif kind == 3:
                shape = shape[:-1]
            return shape
        shape = tuple(self.one_of(SIZES) for _ in range(self.rng.randrange(5)))
        while np.prod(shape) > 2000:
            shape = shape[1:]
        self.shape = shape
        return shape

    def tensor(self, dtype=None, shape=None):
        dtype = np.dtype(dtype or (self.one_of(DTYPES) if self.chance(50) else "float32"))
        shape = self.a_shape() if shape is None else shape
        values = np.random.default_rng(self.rng.randrange(100)).uniform(-3, 6, shape)
        values = np.asarray(values > 1 if dtype.kind == "b" else np.abs(values) if dtype.kind == "u" else values).astype(dtype)
        if dtype.kind == "f" and values.size and self.chance(10):
            values.reshape(-1)[self.rng.randrange(values.size)] = self.one_of((np.nan, np.inf, -np.inf, 1e30 if dtype.itemsize > 2 else 6e4))
        base = view = values
        kind = self.rng.randrange(6)
        if values.ndim and kind == 1:
            base = np.ascontiguousarray(values.T)
            view = base.T
        elif values.ndim and kind == 2:
            base = np.ascontiguousarray(values[::-1])
            view = base[::-1]
        elif values.ndim and kind == 3:
            base = np.zeros(tuple(2 * n + 1 for n in shape[:-1]) + (3 * shape[-1] + 2,), dtype) if values.ndim < 4 else np.zeros((shape[0] + 2,
                            *shape[1:]), dtype)
            place = tuple(slice(1, None, 2) for _ in shape[:-1]) + (slice(2, None, 3),) if values.ndim < 4 else (slice(1, -1),)
            view = base[place]
            view[...] = values
        elif values.ndim and kind == 4:
            base = np.ascontiguousarray(values[:1] if len(values) else values)
            view = np.broadcast_to(base, shape)
        if view.flags.writeable or kind == 4 and values.ndim:
            t = mg.from_numpy(base)
            if view is not base:
                t = Tensor.__new__(Tensor)
                t = testing.new_tensor(testing._strided(base, lambda a: cut(a, base, view)), None)
        else:
            t = mg.tensor(values)
        held = memory_of(t)
        self.inputs.append((t, held, held.copy()))
        if dtype.kind == "f" and self.chance(30):
            t.requires_grad_()
        return t

    def integer(self):
        return self.one_of(HUGE) if self.chance(8) else self.rng.randrange(-4, 6)

    def absurd(self):
        return self.one_of(ABSURD)

    def value(self, name, annotation, default):
        """A value for a parameter: mostly of the kind its name and annotation ask for."""
        if default is not inspect.Parameter.empty and self.chance(60):
            return default
        if self.chance(12):
            return self.absurd()
        text = str(annotation)
        if name in ("dtype", "type1", "type2"):
            return self.one_of((*DTYPES, np.float32, mg.int64, float, "complex64", "object", "U3", None))
        if name == "device":
            return self.one_of(("cpu", "cpu", "cuda", "nowhere", 3, None))
        if name == "generator":
            return mg.Generator() if self.chance(50) else None
        if name in ("size", "shape", "sizes", "args", "repeats", "normalized_shape", "dims", "shifts", "pad", "split_sizes", "split_size_or_sections"):
            return self.sizes()
        if name in ("index", "indices", "target"):
            return self.tensor("int64") if self.chance(70) else self.integer() if self.chance(50) else self.tensor()
        if name in ("mask", "condition"):
            return self.tensor("bool")
        if "Sequence[Tensor]" in text or "Iterable[Tensor]" in text or "list[Tensor]" in text:
            return [self.tensor() for _ in range(self.rng.randrange(4))]
        if "Tensor" in text or name in ("inputs", "tensors", "operands", "input", "other", "x", "data", "obj"):
            return self.tensor()
        if "bool" in text:
            return self.chance(50)
        if "str" in text or name in ("mode", "reduction", "equation"):
            return self.one_of(WORDS)
        if "float" in text:
            return self.one_of((0.0, 0.5, 1.0, -1.0, 1e-5, 3, float("inf"), float("nan")))
        if "int" in text or name.startswith("dim"):
            return self.sizes() if "Sequence" in text and self.chance(40) else self.integer()
        return self.one_of((self.tensor, self.integer, self.sizes, self.absurd, lambda: 0.5))()

    def sizes(self):
        kind = self.rng.randrange(4)
        if kind == 0:
            return self.integer()
        numbers = [self.one_of((0, 1, 2, 3, -1, self.integer())) for _ in range(self.rng.randrange(4))]
        if kind == 1 and self.shape:
            numbers = list(self.shape)
            if self.chance(30):
                self.rng.shuffle(numbers)
        return tuple(numbers) if self.chance(70) else numbers

    def arguments(self, function, skip=0):
        """Positional and keyword arguments for a signature."""
        args, named = [], {}
        for p in list(signature(function))[skip:]:
            if p.kind is p.VAR_POSITIONAL:
                count = self.rng.randrange(4) if p.name != "inputs" else 1 + self.rng.randrange(2)
                args += [self.value(p.name, p.annotation, p.empty) for _ in range(count)]
            elif p.kind is p.VAR_KEYWORD:
                if self.chance(5):
                    named["nonsense"] = 1
            elif p.name == "out":
                if self.chance(10):
                    named["out"], self.writes = self.tensor() if self.chance(70) else self.absurd(), True
            elif p.kind is p.KEYWORD_ONLY:
                if p.default is p.empty or self.chance(30):
                    named[p.name] = self.value(p.name, p.annotation, p.default)
            else:
                args.append(self.value(p.name, p.annotation, p.default))
        if self.chance(4) and args:
            args.pop()
        return args, named


def cut(block, base, view):
    """The part of `block`, a copy of `base`, that `view` is of `base`."""
    offset = view.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    if not view.size:
        return np.ndarray(view.shape, view.dtype)
    return np.ndarray(view.shape, view.dtype, block, offset, view.strides)


def memory_of(t):
    """All bytes of the block a tensor lies in."""
    root = t.array.block.root
    return root.reshape(-1).view(np.uint8) if root.flags.c_contiguous else root


def signature(function):
    plain = getattr(function, "definition", function)
    try:
        return inspect.signature(plain).parameters.values()
    except (TypeError, ValueError):
        return ()


def takes_inplace(function):
    return any(p.name == "inplace" for p in signature(function))


def text_of(value):
    if isinstance(value, Tensor):
        return f"<{value.dtype} {tuple(value.shape)} strides {value.stride()}{' grad' if value.requires_grad else ''}>"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(text_of(v) for v in value) + "]"
    return repr(value)[:80]


def outputs_of(result, depth=0):
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, (tuple, list)) and depth < 3:
        return [t for r in result for t in outputs_of(r, depth + 1)]
    return []


def check_inside(t, call):
    """A tensor's elements lie inside its memory, and its kernel-made copy can be read."""
    layout = t.array.layout
    if not layout.size or layout.dtype.hasobject:
        return
    low, high = np.lib.array_utils.byte_bounds(t.array.block.root) if hasattr(np.lib, "array_utils") else np.byte_bounds(t.array.block.root)
    first = t.array.ptr + sum(min(0, (n - 1) * s) for n, s in zip(layout.shape, layout.strides, strict=True)) * layout.dtype.itemsize
    last = t.array.ptr + (sum(max(0, (n - 1) * s) for n, s in zip(layout.shape, layout.strides, strict=True)) + 1) * layout.dtype.itemsize
    assert low <= first and last <= high, f"{call}: a result {layout} points outside its memory"
    if layout.size <= 1 << 16:
        t.detach().contiguous().clone()


def run(draw, call, function, args, named, writes=False):
    """Calls, allows ordinary exceptions, walks back, and checks what must hold. The result, or None."""
    if LOG is not None:
        os.ftruncate(LOG, 0)
        os.pwrite(LOG, f"{call}\n".encode(), 0)
    result = None
    try:
        result = function(*args, **named)
        for t in outputs_of(result):
            check_inside(t, call)
        roots = [t for t in outputs_of(result) if t.requires_grad and t.node is not None and t.numel() <= 1 << 16]
        if roots:
            leaves = [t for t, _, _ in draw.inputs if t.requires_grad and t.is_leaf]
            mg.autograd.grad([r.sum() for r in roots], leaves, allow_unused=True)
    except ORDINARY:
        pass
    except AttributeError as error:         # of a Python function of the house that was given something else than a Tensor
        assert "has no attribute" in str(error) and "Tensor" not in str(error), f"{call} raised AttributeError: {error}"
    except AssertionError as error:         # TensorDataset's and Hardtanh's, as in PyTorch; this file's own begin with the call
        if str(error).startswith(call):
            raise
    except Exception as error:
        raise AssertionError(f"{call} raised {type(error).__name__}: {error}") from error
    if not (writes or draw.writes):
        for t, held, before in draw.inputs:
            assert np.array_equal(held.view(np.uint8) if held.dtype != np.uint8 and held.flags.c_contiguous else held,
                                  before.view(np.uint8) if before.dtype != np.uint8 and before.flags.c_contiguous else before,
                                  equal_nan=False), f"{call} changed an input {text_of(t)}"
    return result


def numpy_twin(name, args, named, result):
    """NumPy's result for a call on plain tensors, or None where there is no comparison to make."""
    twin = getattr(np, name, None)
    if not isinstance(twin, np.ufunc) and name not in ("clip", "sinc", "flipud", "fliplr", "isclose", "dot", "outer", "inner", "nan_to_num"):
        return None
    if name in OTHERWISE_IN_NUMPY or named or not all(isinstance(a, Tensor) and a.dtype in (np.float32, np.float64) for a in args):
        return None
    if len({a.dtype for a in args}) != 1 or isinstance(twin, np.ufunc) and len(args) != twin.nin:
        return None
    if name == "heaviside" and np.isnan(args[0].numpy(force=True)).any():       # 0 as in PyTorch, nan in NumPy
        return None
    with np.errstate(all="ignore"):
        try:
            return np.asarray(twin(*[a.numpy(force=True) for a in args]))
        except (TypeError, ValueError):
            return None


def compare(call, got, want):
    assert tuple(got.shape) == want.shape, f"{call}: shape {got.shape}, NumPy says {want.shape}"
    got = got.numpy(force=True)
    if want.dtype.kind == "f":
        big = np.abs(want[np.isfinite(want)]).max(initial=1.0)
        tolerance = 2e-4 if want.dtype == np.float32 else 1e-9
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * min(big, 1e3), err_msg=call)
    else:
        np.testing.assert_array_equal(got, want, err_msg=call)
