"""Runs a program on PyTorch or on minigrad with the same random numbers and the same small data, and writes what it computes.

    python same.py torch|minigrad RESULT.json LIMIT program.py ARGUMENTS

The program is not changed. It ends after LIMIT backward passes. RESULT.json gets "losses" (what each `backward` began with, and the
sum of the absolute values of each `autograd.grad`), "sizes" (the sum of the absolute values of all parameters, whenever an optimizer
clears gradients), and "end": "finished", "enough", or the error.

Random numbers come from NumPy: the n-th draw of a kind in a shape is the same on both, in whatever order shapes are drawn.
`RESULT_DTYPE=float64` makes float64 the default dtype; `RESULT_NUDGE=1e-7` multiplies random numbers by 1 + 1e-7; `RESULT_CPU=1` makes
`.cuda()` give back what it is called on.
"""
from __future__ import annotations

import importlib
import inspect
import json
import os
import random
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))


class Enough(SystemExit):
    """The program has shown enough."""


class Draws:
    """NumPy's generators by kind and shape."""

    def __init__(self) -> None:
        self.seed, self.counts = 0, Counter()
        self.nudge = 1 + float(os.environ.get("RESULT_NUDGE", 0))

    def restart(self, seed: int) -> None:
        self.seed = int(seed) % (1 << 31)
        self.counts.clear()

    def __call__(self, kind: str, shape: Iterable[int]) -> np.random.Generator:
        key = kind, tuple(int(n) for n in shape)
        self.counts[key] += 1
        return np.random.Generator(np.random.Philox(key=[zlib.crc32(repr(key).encode()), self.seed << 32 | self.counts[key]]))

    def uniform(self, shape: Iterable[int]) -> np.ndarray:
        shape = tuple(int(n) for n in shape)
        return self("uniform", shape).random(shape, dtype=np.float32).astype(np.float64) * self.nudge

    def normal(self, shape: Iterable[int]) -> np.ndarray:
        shape = tuple(int(n) for n in shape)
        return self("normal", shape).standard_normal(shape, dtype=np.float32).astype(np.float64) * self.nudge


draws = Draws()
result: dict[str, Any] = {"losses": [], "sizes": [], "end": "finished"}


def everywhere(old: Any, new: Any) -> None:
    """Puts `new` in the place of `old` in all modules that hold it under some name."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("torch", "minigrad") and not name.startswith("torch._"):
            for key, value in list(vars(module).items()):
                if value is old:
                    setattr(module, key, new)


def replaced(owner: Any, name: str, new: Callable[..., Any]) -> None:
    """Puts a function in the place of one of PyTorch's name."""
    old = getattr(owner, name)
    setattr(owner, name, new)
    if not isinstance(owner, type):
        everywhere(old, new)
        everywhere(inspect.unwrap(old), new)            # layers call minigrad's functions without the check of keywords


def random_functions(torch: Any) -> None:
    """Those that make tensors, and those that fill them."""
    def made(values: np.ndarray, given: dict[str, Any], like: Any = None, default: Any = None) -> Any:
        dtype = given.get("dtype") or (like.dtype if like is not None else default or torch.get_default_dtype())
        t = torch.tensor(values, dtype=dtype, device=given.get("device") or (like.device if like is not None else None))
        if given.get("out") is not None:
            return given["out"].copy_(t)
        return t.requires_grad_() if given.get("requires_grad") else t

    def size(args: tuple, given: dict[str, Any]) -> tuple[int, ...]:
        args = given.get("size", args)
        args = args[0] if len(args) == 1 and isinstance(args[0], (tuple, list)) else args
        return tuple(int(n) for n in args)

    def randint(*args: Any, **given: Any) -> Any:
        names = inspect.signature(lambda low=0, high=None, size=None: None)
        args = args if len(args) == 3 or isinstance(given.get("low"), int) and len(args) == 2 else \
            (0, *args) if "low" not in given and (len(args) + ("size" in given) + ("high" in given) == 2) and "high" not in given else args
        bound = names.bind_partial(*args, **{k: given[k] for k in ("low", "high", "size") if k in given}).arguments
        shape = tuple(bound["size"])
        values = draws("integers", shape).integers(int(bound.get("low", 0)), int(bound["high"]), shape)
        return made(values, given, default=torch.int64)

    def normal(mean: Any, std: Any = 1.0, size: Any = None, **given: Any) -> Any:
        if not torch.is_tensor(mean) and not torch.is_tensor(std):
            return made(draws.normal(size) * std + mean, given)
        like = mean if torch.is_tensor(mean) else std
        shape = torch.broadcast_tensors(*[t for t in (mean, std) if torch.is_tensor(t)])[0].shape
        with torch.no_grad():
            return made(draws.normal(shape), {}, like) * std + mean

    def bernoulli(input: Any, p: Any = None, **given: Any) -> Any:
        chance = input.detach().numpy() if p is None else p
        return made(draws.uniform(input.shape) < chance, given, input)

    def multinomial(input: Any, num_samples: int, replacement: bool = False, **given: Any) -> Any:
        rows = np.atleast_2d(input.detach().numpy().astype(np.float64))
        found = []
        for row in rows:
            if replacement:
                total = np.cumsum(row)
                u = draws.uniform((num_samples,)) * total[-1]
                found.append(np.minimum(np.searchsorted(total, u, side="right"), np.flatnonzero(row)[-1]))
            else:
                with np.errstate(divide="ignore"):
                    found.append(np.argsort(-np.log1p(-draws.uniform(row.shape)) / row, kind="stable")[:num_samples])
        values = np.stack(found)
        return torch.tensor(values if input.ndim == 2 else values[0], dtype=torch.int64)

    replaced(torch, "rand", lambda *args, **given: made(draws.uniform(size(args, given)), given))
    replaced(torch, "randn", lambda *args, **given: made(draws.normal(size(args, given)), given))
    replaced(torch, "rand_like", lambda input, **given: made(draws.uniform(input.shape), given, input))
    replaced(torch, "randn_like", lambda input, **given: made(draws.normal(input.shape), given, input))
    replaced(torch, "randint", randint)
    replaced(torch, "randint_like", lambda input, *args, **given: randint(*args, size=input.shape, **{"dtype": input.dtype, **given}))
    replaced(torch, "randperm", lambda n, **given: made(draws("order", (n,)).permutation(n), given, default=torch.int64))
    for name, function in (("normal", normal), ("bernoulli", bernoulli), ("multinomial", multinomial)):
        replaced(torch, name, function)
    filling(torch)


def filling(torch: Any) -> None:
    """The methods that fill a tensor with random numbers."""
    def fill(values: Callable[..., np.ndarray]) -> Callable[..., Any]:
        def method(self: Any, *args: Any, generator: Any = None, **named: Any) -> Any:
            args = tuple(a.item() if torch.is_tensor(a) and not a.ndim else a for a in args)
            named = {{"from": "a", "to": "b"}.get(k, k): v for k, v in named.items()}
            with torch.no_grad():
                return self.copy_(torch.tensor(values(tuple(self.shape), *args, **named), dtype=self.dtype))
        return method

    def integers(shape: Any, a: Any = None, b: Any = None) -> np.ndarray:
        low, high = (0, 1 << 24) if a is None else (0, a) if b is None else (a, b)
        return draws("integers", shape).integers(int(low), int(high), shape)

    def chance(shape: Any, p: Any = 0.5) -> np.ndarray:
        return draws.uniform(shape) < (p.detach().numpy() if torch.is_tensor(p) else p)
    for name, values in {
            "uniform_": lambda shape, a=0.0, b=1.0: draws.uniform(shape) * (b - a) + a,
            "normal_": lambda shape, mean=0.0, std=1.0: draws.normal(shape) * std + mean,
            "exponential_": lambda shape, lambd=1.0: -np.log1p(-draws.uniform(shape)) / lambd,
            "random_": integers, "bernoulli_": chance}.items():
        setattr(torch.Tensor, name, fill(values))
    for name, function in (("multinomial", torch.multinomial), ("bernoulli", torch.bernoulli)):
        setattr(torch.Tensor, name, lambda self, *args, _function=function, **given: _function(self, *args, **given))

    def trunc_normal_(tensor: Any, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, generator: Any = None) -> Any:
        with torch.no_grad():
            return tensor.copy_(torch.tensor(np.clip(draws.normal(tensor.shape) * std + mean, a, b), dtype=tensor.dtype))

    def orthogonal_(tensor: Any, gain: float = 1, generator: Any = None) -> Any:
        rows = tensor.shape[0]
        q, r = np.linalg.qr(draws.normal(sorted((rows, tensor.numel() // rows), reverse=True)))
        q = q * np.sign(np.diag(r)) * gain
        with torch.no_grad():
            return tensor.copy_(torch.tensor(np.ascontiguousarray(q if q.shape[0] == rows else q.T).reshape(tuple(tensor.shape)), dtype=tensor.dtype))
    replaced(torch.nn.init, "trunc_normal_", trunc_normal_)
    replaced(torch.nn.init, "orthogonal_", orthogonal_)


def dropout(torch: Any) -> None:
    """Masks from the same numbers. Inside recurrent layers and attention, where a mask cannot be given, there is no dropout."""
    F = torch.nn.functional

    def masked(spread: bool) -> Callable[..., Any]:
        def drop(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
            if not training or p == 0:
                return input
            shape = [*input.shape[:2], *[1] * (input.ndim - 2)] if spread else input.shape
            mask = torch.tensor((draws.uniform(shape) >= p) / max(1 - p, 1e-30), dtype=input.dtype)
            return input.mul_(mask) if inplace else input * mask
        return drop
    replaced(F, "dropout", masked(False))
    for name in ("dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout", "alpha_dropout"):
        if hasattr(F, name):
            replaced(F, name, masked("alpha" not in name))
    attention = F.scaled_dot_product_attention
    replaced(F, "scaled_dot_product_attention", lambda query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, **named:
             attention(query, key, value, attn_mask=attn_mask, is_causal=is_causal, **named))
    for layer in (torch.nn.RNN, torch.nn.LSTM, torch.nn.GRU, torch.nn.MultiheadAttention):
        def start(self: Any, *args: Any, _first: Any = layer.__init__, **named: Any) -> None:
            _first(self, *args, **named)
            self.dropout = 0.0
        layer.__init__ = start


def choosing(torch: Any) -> None:
    """`Categorical` draws with `multinomial`, as PyTorch's does."""
    def sample(self: Any, sample_shape: Any = ()) -> Any:
        count = int(np.prod(sample_shape, dtype=int))
        with torch.no_grad():
            found = torch.multinomial(self.probs.reshape(-1, self.probs.shape[-1]), count, True)
            return found.t().reshape((*sample_shape, *self.probs.shape[:-1]))
    torch.distributions.Categorical.sample = sample


def loading(torch: Any) -> None:
    """Loaders read in this process, and shuffle by the same numbers."""
    data = torch.utils.data
    names = inspect.signature(torch.utils.data.DataLoader.__init__)

    def start(self: Any, *args: Any, _first: Any = data.DataLoader.__init__, **named: Any) -> None:
        given = names.bind(self, *args, **named).arguments
        named = {**given, **given.pop("named", {}), **given.pop("kwargs", {})}
        named.pop("self")
        for name in ("num_workers", "prefetch_factor", "persistent_workers", "timeout", "worker_init_fn", "multiprocessing_context", "generator"):
            named.pop(name, None)
        if named.pop("shuffle", False):
            named["sampler"] = data.RandomSampler(named["dataset"])
        _first(self, **named)

    def order(self: Any) -> Any:
        n, left = len(self.data_source), self.num_samples
        while left > 0:
            part = torch.randint(0, n, (32,)) if self.replacement else torch.randperm(n)
            yield from part.tolist()[:left]
            left -= len(part)
    data.DataLoader.__init__ = start
    if hasattr(data.DataLoader, "_draw_seed"):              # else minigrad's loader draws an integer more than PyTorch's
        data.DataLoader._draw_seed = lambda self: 0
    data.RandomSampler.__iter__ = order


def unnoted(check: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose own derivatives are not the program's."""
    def run(*args: Any, **named: Any) -> Any:
        before = len(result["losses"])
        try:
            return check(*args, **named)
        finally:
            del result["losses"][before:]
    return run


def watching(torch: Any, limit: int) -> None:
    """Notes losses and parameters, and stops the program."""
    backward, grad, zero = torch.Tensor.backward, torch.autograd.grad, torch.optim.Optimizer.zero_grad

    def note(value: float) -> None:
        result["losses"].append(value)

    def noted_backward(self: Any, *args: Any, **named: Any) -> Any:
        note(float(self.detach().sum()))
        done = backward(self, *args, **named)
        if len(result["losses"]) >= limit:
            raise Enough(0)
        return done

    def noted_grad(*args: Any, **named: Any) -> Any:
        found = grad(*args, **named)
        note(float(sum(g.detach().abs().sum() for g in found if g is not None)))
        return found

    def noted_zero(self: Any, *args: Any, **named: Any) -> Any:
        result["sizes"].append(float(sum(p.detach().abs().sum() for group in self.param_groups for p in group["params"])))
        return zero(self, *args, **named)
    torch.Tensor.backward, torch.optim.Optimizer.zero_grad = noted_backward, noted_zero
    replaced(torch.autograd, "grad", noted_grad)
    for module, names in {"gradcheck": "gradcheck gradgradcheck", "functional": "vjp jvp vhp hvp jacobian hessian"}.items():
        owner = importlib.import_module(f"torch.autograd.{module}")
        for name in names.split():
            replaced(owner, name, unnoted(getattr(owner, name)))
    seed = torch.manual_seed

    def manual_seed(value: int) -> Any:
        draws.restart(value)
        return seed(value)
    replaced(torch, "manual_seed", manual_seed)


def main(backend: str, out: str, limit: str, program: str, *arguments: str) -> None:
    random.seed(0)
    np.random.seed(0)
    draws.__init__()
    sys.path.append(os.path.join(HERE, "stand_ins"))
    if backend == "minigrad":
        importlib.import_module("minigrad.as_torch").install()
    import torch
    for name in ("nn.functional", "utils.data", "utils.data.sampler", "optim.lr_scheduler", "nn.init", "autograd", "distributions"):
        importlib.import_module(f"torch.{name}")
    if os.environ.get("RESULT_DTYPE"):
        torch.set_default_dtype(getattr(torch, os.environ["RESULT_DTYPE"]))
    torch.manual_seed(0)
    random_functions(torch)
    dropout(torch)
    choosing(torch)
    loading(torch)
    watching(torch, int(limit))
    if os.environ.get("RESULT_CPU"):            # of programs that ask for no less than a GPU
        torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *args, **named: self
    from stand_in_data import put_in_place
    put_in_place(torch, program)
    try:
        if backend == "minigrad":
            importlib.import_module("minigrad.as_torch.__main__").main([program, *arguments])
        else:
            import runpy
            sys.argv = [program, *arguments]
            sys.path[0] = os.path.dirname(os.path.abspath(program))
            runpy.run_path(program, run_name="__main__")
    except Enough:
        result["end"] = "enough"
    except SystemExit as end:
        result["end"] = "finished" if not end.code else f"SystemExit: {end.code}"
        raise
    except BaseException as error:
        result["end"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        with open(out, "w") as file:
            json.dump(result, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
