"""Random numbers, and dropout. The generator is Philox4x32-10 (Salmon et al. 2011), in native/random.c and random.cu.

A generator is four int64 in its device's memory: the seed (the key) and a counter that every launch advances. A seed
gives the same numbers on every device and with any number of threads. A captured step draws new numbers at each replay,
because the counter is read and advanced by the launches themselves. Read first `Generator`, then `_draw`, `_bits` and
`_events`: most functions here call one of the three.

Nothing here but dropout is recorded for gradients.
"""
from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ..core.arrays import cast_array, contiguous_copy, written_once
from ..core.half import finfo, rounds_once, widened
from ..core.inplace import overwrite
from ..core.messages import guarded
from ..core.modes import mode
from ..core.op import FusedPlan, Primitive, op
from ..core.out import made_into, writes
from ..core.shape import BOOL, FLOAT32, FLOAT64, INT64, fail, is_float
from ..core.tape import recorded
from ..core.tensor import Tensor, new_tensor
from ..core.warning import warn
from ..devices import open_device
from ..devices.base import Device, KernelTable, NoKernel
from ..devices.launch import Rule, ceil_div, launch, over, single
from ..devices.memory import Array, Layout, alloc, layout, view
from ..devices.plan import Plan, elementwise_plan, is_half, remember
from ..devices.work import work
from .arguments import must_fit
from .convert import cast
from .creation import layout_for, like_layout, number
from .formula import clamp_between
from .math import (
    add,
    bitwise_and,
    bitwise_xor,
    ceil,
    exp,
    ge,
    le,
    log1p,
    logical_and,
    logical_not,
    lt,
    maximum,
    mul,
    neg,
    remainder,
    sub,
    tan,
    where,
)

__all__ = ["Generator", "bernoulli", "default_generator", "dropout", "feature_dropout", "get_rng_state",
           "initial_seed", "manual_seed", "multinomial", "normal", "rand", "rand_like", "randint",
           "randint_like", "randn", "randn_like", "randperm", "seed", "set_rng_state"]

_MASK = (1 << 64) - 1
_defaults: dict[Device, Generator] = {}
_seed: int | None = None            # of the last manual_seed, for devices opened later


class Generator:
    """A stream of random numbers on a device: `state` holds the seed and a counter, four int64 in its memory. A new
    generator starts from a seed drawn from the system.

    >>> a, b = minigrad.Generator().manual_seed(0), minigrad.Generator().manual_seed(0)
    >>> minigrad.equal(minigrad.rand(3, generator=a), minigrad.rand(3, generator=b))
    True
    """

    def __init__(self, device: Any = "cpu") -> None:
        self.device = open_device(device)
        self.state = self.device.constant(np.zeros(4, np.int64))
        self.seed()

    def manual_seed(self, seed: int) -> Generator:
        """Starts the stream of `seed` and returns the generator. ValueError unless -2^63 <= seed < 2^64."""
        if not isinstance(seed, (int, np.integer)) or not -1 << 63 <= seed < 1 << 64:
            fail("manual_seed", "the seed must be a whole number, -2^63 <= seed < 2^64", repr(seed), kind=ValueError)
        if mode.recorder is not None:
            fail("capture", "a captured function cannot seed a generator: a replay would not", "", "seed it outside")
        return self._start(seed)

    def _start(self, seed: int) -> Generator:
        self._seed = int(seed) & _MASK
        self._write(np.array([self._seed, 0, 0, 0], np.uint64).view(np.int64))
        return self

    def _write(self, values: np.ndarray) -> None:
        """Overwrites the state. This is not a launch: a captured step must not repeat it at each replay."""
        self.device.write(self.state, values)

    def seed(self) -> int:
        """Starts the stream of a seed drawn from the system, and returns that seed."""
        return self._start(int.from_bytes(os.urandom(8), "little"))._seed

    def initial_seed(self) -> int:
        """The seed of this stream."""
        if mode.recorder is not None:
            mode.recorder.refuse("initial_seed()")
        return self._seed

    def get_state(self) -> Tensor:
        """A copy of the state: int64 of shape (4,), the key, the counter's low and high half, and an unused one."""
        return new_tensor(contiguous_copy(self.state), None)

    def set_state(self, new_state: Tensor) -> Generator:
        """Continues from a state that `get_state` returned, and returns the generator; TypeError if the state is not
        int64 of shape (4,)."""
        if new_state.array.layout.dtype != INT64 or new_state.array.layout.shape != (4,):
            fail("set_state", "the state must be int64[4], as get_state returns", new_state.array.layout,
                 kind=TypeError)
        values = new_state.numpy(force=True)
        self._seed = int(values[0]) & _MASK
        self._write(values)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Generator, (str(self.device),), self.get_state()

    __setstate__ = set_state

    def __repr__(self) -> str:
        return f"Generator(device='{self.device}', seed={self._seed})"


def _mixed(x: int) -> int:
    """A permutation of the numbers 0 <= x < 2^64 that looks random: splitmix64 (Steele, Lea and Flood 2014)."""
    x = x + 0x9E3779B97F4A7C15 & _MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
    return x ^ x >> 31


class Streams:
    """Streams of random numbers, one for each `number`, all made of `seed`: the generators that ops use while
    `mode.streams` is this object and no other generator is given. A `DataLoader` numbers its samples, so that the
    numbers of a sample depend neither on the thread that reads it nor on what is drawn elsewhere.

    Numbers below 0 are for what comes before the samples. A generator that is seeded there goes on from that seed.
    """

    apart = True                # manual_seed() starts the stream of the CPU only

    def __init__(self, seed: int) -> None:
        self.seed, self.number = seed, 0
        self._begun: dict[Device, tuple[int, Generator]] = {}       # the number of the stream that each one is in

    def seed_of(self, number: int) -> int:
        """The seed of a stream, 0 <= n < 2^63, so that a tensor can hold it: another one for each number."""
        return _mixed(_mixed(_mixed(self.seed & _MASK) ^ self.seed >> 64) ^ number & _MASK) & _MASK >> 1

    def generator(self, device: Device) -> Generator:
        """The generator of the present stream on a device."""
        number, generator = self._begun.get(device) or (0, None)
        if generator is None:
            generator = Generator(device)
        elif number == self.number or number < 0 and generator._seed != self.seed_of(number):
            return generator
        self._begun[device] = self.number, generator
        return generator._start(self.seed_of(self.number))

    def drawn(self, generator: Generator) -> None:
        """Is told of each generator before numbers are drawn from it."""


def default_generator(device: Any = "cpu") -> Generator:
    """The generator of a device that is used where none is given."""
    on = open_device(device)
    return own_generator(on) if mode.streams is None else mode.streams.generator(on)


def own_generator(device: Device) -> Generator:
    """The default generator of a device, whatever takes its place at present."""
    found = _defaults.get(device)
    if found is None:
        found = _defaults[device] = Generator(device)
        if _seed is not None:
            found._start(_seed)
    return found


def manual_seed(seed: int) -> Generator:
    """Starts the default generators of all devices, those opened later too, from `seed`, -2^63 <= seed < 2^64. Returns
    the CPU's. While a `DataLoader` reads a sample, only the CPU's stream of that sample starts anew."""
    global _seed
    default = default_generator("cpu").manual_seed(seed)
    if mode.streams is not None and mode.streams.apart:
        return default
    _seed = seed
    for generator in _defaults.values():
        generator.manual_seed(seed)
    return default


def seed() -> int:
    """Starts the default generators of all devices from a seed drawn from the system, and returns that seed."""
    chosen = int.from_bytes(os.urandom(8), "little")
    manual_seed(chosen)
    return chosen


def initial_seed() -> int:
    """The seed of the CPU's default generator."""
    return default_generator("cpu").initial_seed()


def get_rng_state() -> Tensor:
    """The state of the CPU's default generator, see `Generator.get_state`."""
    return default_generator("cpu").get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Continues the CPU's default generator from a state that `get_rng_state` returned."""
    default_generator("cpu").set_state(new_state)


def _state(name: str, device: Device, generator: Generator | None) -> int:
    """The address of the state of a generator (None: the device's default one), which must be on the device."""
    streams = mode.streams
    if generator is None:
        generator = streams.generator(device) if streams is not None else _defaults.get(device) or own_generator(device)
    elif generator.device is not device:
        fail(name, "the generator must be on the tensor's device", [generator.device, device], "use Generator(device)")
    if streams is not None:
        streams.drawn(generator)
    return generator.state.ptr


# ---- the three ways to draw ------------------------------------------------------------------------------------------

def _draw(kernel: str, to: Layout, generator: Generator | None, low: float, high: float) -> Array:
    """A new array of layout `to`, filled by the kernel "uniform" (on [low, high)) or "normal" (mean `low`, standard
    deviation `high`). Float types without a kernel are drawn as float32 and converted, uniform ones rounded down."""
    family = getattr(to.device.kernels, kernel)
    chosen = family.get(to.dtype)
    if chosen is None:
        if not is_float(to.dtype):
            fail(kernel, "makes floating-point numbers only", to.dtype, "use randint, or convert the result",
                 NotImplementedError)
        wide = _draw(kernel, layout(to.device, FLOAT32, to.shape), generator, low, high)
        return _cut(wide, to.dtype, low, high) if kernel == "uniform" else cast_array(wide, to.dtype)
    out = alloc(to)
    chosen.call(out.ptr, _state(kernel, to.device, generator), to.size, low, high)
    return out


def _cut(values: Array, dtype: np.dtype, low: float, high: float) -> Array:
    """float32 numbers on [low, high) in half precision, on [low, high) too: the bits that do not fit are cut off, since
    the nearest number may be `high`. What is outside then becomes the nearest number inside, if there is one."""
    extra = 13 if dtype.kind == "f" else 16             # bits of float32's significand that float16, bfloat16 lack
    to = values.layout
    bits = new_tensor(view(values, layout(to.device, np.dtype("int32"), to.shape), 0), None)
    cut = new_tensor(view(bitwise_and(bits, -1 << extra).array, to, 0), None)
    if low != 0.0 or high != 1.0:                       # there cutting off stays inside
        a, b = np.array([low, high]).astype(dtype)
        first = float(a if float(a) >= low else np.nextafter(a, b))
        last = float(b if float(b) < high else np.nextafter(b, a))
        if first <= last:
            cut = clamp_between(cut, low=first, high=last)
    return cast_array(cut.array, dtype)


def _unit(input: Tensor, generator: Generator | None) -> Tensor:
    """Uniform numbers on [0, 1) to compute with: in the shape and dtype of `input`, float32 for half precision."""
    dtype = FLOAT32 if is_half(input.dtype) else None
    return new_tensor(_draw("uniform", like_layout(input, dtype, None), generator, 0.0, 1.0), None)


def _bits(to: Layout, generator: Generator | None) -> Tensor:
    """An int64 tensor with 64 random bits in each element."""
    out = alloc(layout(to.device, INT64, to.shape))
    to.device.kernels.random_bits[INT64].call(out.ptr, _state("random_bits", to.device, generator), to.size)
    return new_tensor(out, None)


def _events(to: Layout, p: float, generator: Generator | None) -> Tensor:
    """A bool tensor, each element True with probability p."""
    out = alloc(layout(to.device, BOOL, to.shape))
    to.device.kernels.bernoulli_mask[BOOL].call(out.ptr, _state("bernoulli", to.device, generator), to.size, p)
    return new_tensor(out, None)


def _finish(array: Array, requires_grad: bool) -> Tensor:
    """The array as a tensor, which requires a gradient if asked for."""
    t = new_tensor(array, None)
    return t.requires_grad_() if requires_grad else t


# ---- tensors of random numbers ---------------------------------------------------------------------------------------

def rand(*args: Any, generator: Generator | None = None, dtype: Any = None, device: Any = None,
         requires_grad: bool = False, out: Tensor | None = None, **given: Any) -> Tensor:
    """A tensor of the given size with uniform random numbers, 0 <= x < 1: `rand(2, 3)` or `rand((2, 3))`.
    NotImplementedError if `dtype` is not a float dtype. They are written into the tensor `out`, if given."""
    if out is not None:
        return made_into(rand, out, *args, dtype=dtype, generator=generator, requires_grad=requires_grad, **given)
    return _finish(_draw("uniform", layout_for(args, dtype, device, "rand", given), generator, 0.0, 1.0), requires_grad)


def randn(*args: Any, generator: Generator | None = None, dtype: Any = None, device: Any = None,
          requires_grad: bool = False, out: Tensor | None = None, **given: Any) -> Tensor:
    """A tensor of the given size with normal random numbers of mean 0 and standard deviation 1: `randn(2, 3)` or
    `randn((2, 3))`. NotImplementedError if `dtype` is not a float dtype. They are written into the tensor `out`, if
    given."""
    if out is not None:
        return made_into(randn, out, *args, dtype=dtype, generator=generator, requires_grad=requires_grad, **given)
    return _finish(_draw("normal", layout_for(args, dtype, device, "randn", given), generator, 0.0, 1.0), requires_grad)


def rand_like(input: Tensor, *, generator: Generator | None = None, dtype: Any = None, device: Any = None,
              requires_grad: bool = False) -> Tensor:
    """Uniform random numbers, 0 <= x < 1, with the shape, dtype and device of `input`; see `rand`."""
    return _finish(_draw("uniform", like_layout(input, dtype, device), generator, 0.0, 1.0), requires_grad)


def randn_like(input: Tensor, *, generator: Generator | None = None, dtype: Any = None, device: Any = None,
               requires_grad: bool = False) -> Tensor:
    """Normal random numbers of mean 0 and standard deviation 1, with the shape, dtype and device of `input`; see
    `randn`."""
    return _finish(_draw("normal", like_layout(input, dtype, device), generator, 0.0, 1.0), requires_grad)


def _integers(op: str, to: Layout, low: int, high: int, generator: Generator | None) -> Array:
    """An array of layout `to` with random integers, low <= x < high."""
    if not low < high:
        fail(op, "low must be less than high", [low, high])
    must_fit(op, low, to.dtype)
    must_fit(op, high - 1, to.dtype)
    bits = _bits(to, generator)
    if high - low >= 1 << 63:       # at least half of all numbers: of x and x + 2^63 at least one is in the range
        inside = logical_and(ge(bits, low), le(bits, high - 1))
        return cast(where(inside, bits, bitwise_xor(bits, -1 << 63)), to.dtype).array
    return cast(add(remainder(bitwise_and(bits, (1 << 63) - 1), high - low), low), to.dtype).array


@writes("compute")
def randint(*args: Any, low: int = 0, high: int | None = None, size: Any = None, generator: Generator | None = None,
            dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor of shape `size` (a tuple) with random integers, low <= x < high, int64 without `dtype`: `randint(high,
    size)` or `randint(low, high, size)`. RuntimeError unless low < high."""
    given = list(args)
    if given and isinstance(given[-1], (tuple, list)) and size is None:
        size = given.pop()
    if len(given) == 2:
        low, high = given
    elif len(given) == 1 and high is None:
        high = given[0]
    elif len(given) == 1:
        low = given[0]
    if high is None or size is None:
        raise TypeError("[randint] expected randint(high, size) or randint(low, high, size), the size a tuple")
    to = layout_for((size,), INT64 if dtype is None else dtype, device, "randint")
    return _finish(_integers("randint", to, int(low), int(high), generator), requires_grad)


def randint_like(input: Tensor, low: int | None = None, high: int | None = None, *, generator: Generator | None = None,
                 dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Random integers, low <= x < high, with the shape, dtype and device of `input`; `randint_like(input, high)` starts
    at 0."""
    low, high = (0, low) if high is None else (low or 0, high)
    if high is None:
        raise TypeError("[randint_like] needs high; got neither low nor high; randint_like(input, 10)")
    to = like_layout(input, dtype, device)
    return _finish(_integers("randint_like", to, int(low), int(high), generator), requires_grad)


def _order(bits: Any, out: Any) -> None:
    """Writes the order that sorts random bits: a random permutation."""
    out[...] = np.argsort(bits, kind="stable")


@writes("compute")
def randperm(n: int, *, generator: Generator | None = None, dtype: Any = None, device: Any = None,
             requires_grad: bool = False) -> Tensor:
    """The integers 0 .. n - 1 in random order, as a vector; int64 without `dtype`."""
    to = layout_for((n,), INT64 if dtype is None else dtype, device, "randperm")
    must_fit("randperm", max(n - 1, 0), to.dtype)
    if is_float(to.dtype) and n - 1 > 2 / float(finfo(to.dtype).eps):
        fail("randperm", f"{to.dtype} does not hold each number below n", n, "use a wider dtype")
    bits, out = _bits(to, generator), alloc(layout(to.device, INT64, to.shape))
    to.device.host.call(_order, out.np, bits.array.np)
    return _finish(out if to.dtype == INT64 else cast_array(out, to.dtype), requires_grad)


@writes("cast", "compute")
@rounds_once
def normal(mean: Any, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None, dtype: Any = None,
           device: Any = None, requires_grad: bool = False) -> Tensor:
    """Normal random numbers with the given mean and standard deviation. If `mean` or `std` is a tensor, the result has
    their broadcast shape; if both are numbers, `size` must be given. RuntimeError if `std` is negative. Not
    differentiable."""
    if isinstance(std, Tensor):
        _all("normal", "expects all elements of std >= 0.0", ge(std, 0))
    elif std < 0:
        fail("normal", "expects std >= 0.0, but found std " + str(std))
    tensors = [t for t in (mean, std) if isinstance(t, Tensor)]
    if not tensors:
        if size is None:
            raise TypeError("[normal] size is needed where mean and std are numbers")
        to = layout_for((size,), dtype, device, "normal")
        return _finish(_draw("normal", to, generator, float(mean), float(std)), requires_grad)
    if size is not None:
        raise TypeError("[normal] size goes with two numbers; the result has the shape of the tensors")
    shaped = add(mul(tensors[0].detach(), 0), tensors[-1].detach())
    noise = new_tensor(_draw("normal", like_layout(shaped, None, None), generator, 0.0, 1.0), None)
    parts = [t.detach() if isinstance(t, Tensor) else t for t in (mean, std)]
    return add(mul(noise, parts[1]), parts[0])


def _all(name: str, invariant: str, truth: Tensor) -> None:
    """RuntimeError unless all of `truth` is True. It reads values, so it is left out while a capture records."""
    if mode.recorder is None and not truth.all():
        fail(name, invariant)


@writes("any")
def bernoulli(input: Tensor, p: float | None = None, *, generator: Generator | None = None) -> Tensor:
    """1 with probability `input` for each element, else 0, in `input`'s shape and dtype. With `p` that is the
    probability, and `input` gives only the shape and dtype. RuntimeError if a probability is not in [0, 1]."""
    source = input.array.layout
    if p is not None:
        return cast(_events(source, check_probability("bernoulli", p), generator), source.dtype)
    if not is_float(source.dtype):
        fail("bernoulli", "probabilities are floating-point numbers", source, "convert with .float()")
    _all("bernoulli", "probabilities must be in [0, 1]", logical_and(ge(input, 0), le(input, 1)))
    return cast(lt(_unit(input, generator), widened(input.detach())), source.dtype)


def check_probability(name: str, p: Any) -> float:
    """p as a float; ValueError (dropout) or RuntimeError if it is not in [0, 1]."""
    if not 0.0 <= p <= 1.0:
        kind = ValueError if name == "dropout" else RuntimeError
        raise kind(f"[{name}] the probability has to be between 0 and 1, but got {p}")
    return p if type(p) is float else float(number(name, "p", p))


def _choose(weights: Any, uniform: Any, sums: Any, out: Any) -> None:
    """Writes rows of indices drawn by weight with replacement: inverts the distribution function, given by the running
    sums of the weights."""
    for row, u, total, to in zip(weights, uniform, sums, out, strict=True):
        to[...] = np.minimum(np.searchsorted(total, u * total[-1], side="right"), np.flatnonzero(row)[-1])


def _choose_once(weights: Any, uniform: Any, out: Any) -> None:
    """The same without replacement: those with the smallest -log(u) / weight."""
    out[...] = np.argsort(-np.log1p(-uniform) / weights, -1, kind="stable")[:, :out.shape[1]]


def _check_weights(rows: Tensor, source: Layout, least: int, replacement: bool) -> None:
    """Raises unless all weights are finite and not negative, and at least `least` of each row are positive."""
    values = rows.numpy(force=True)
    if not (np.isfinite(values) & (values >= 0)).all():
        fail("multinomial", "probability tensor contains either `inf`, `nan` or element < 0", source)
    if ((values > 0).sum(-1) < least).any():
        why = ("sum of probabilities <= 0" if replacement else
               "with replacement=False, not enough non-negative category to sample")
        fail("multinomial", f"invalid multinomial distribution ({why})", source)


def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *,
                generator: Generator | None = None) -> Tensor:
    """Indices drawn with probabilities proportional to the weights in `input`: int64 (num_samples,) for weights (n,),
    or (m, num_samples) for each row of (m, n). Without `replacement` no index is drawn twice. The weights need not sum
    to 1; RuntimeError if they are negative, not finite, or too few are positive (unchecked while a capture records)."""
    source = input.array.layout
    if source.ndim not in (1, 2):
        fail("multinomial", "the weights must have one or two dimensions", source)
    if not is_float(source.dtype):
        fail("multinomial", "the weights must be floating-point numbers", source, "convert with .float()")
    if num_samples <= 0:
        fail("multinomial", "cannot sample n_sample <= 0 samples", num_samples)
    if not replacement and num_samples > source.shape[-1]:
        fail("multinomial", "cannot sample n_sample > prob_dist.size(-1) samples without replacement",
             [num_samples, source], "use replacement=True")
    rows = widened(input.detach()).reshape(-1, source.shape[-1])
    if mode.recorder is None:
        _check_weights(rows, source, 1 if replacement else num_samples, replacement)
    m, n = rows.shape
    to = layout(source.device, FLOAT64, (m, num_samples if replacement else n))
    u = _draw("uniform", to, generator, 0.0, 1.0)
    out = alloc(layout(source.device, INT64, (m, num_samples)))
    if replacement:
        sums = cast(rows, FLOAT64).cumsum(1)
        source.device.host.call(_choose, out.np, rows.array.np, u.np, sums.array.np)
    else:
        source.device.host.call(_choose_once, out.np, rows.array.np, u.np)
    found = new_tensor(out, None)
    return found if source.ndim == 2 else found.reshape(num_samples)


# ---- in place --------------------------------------------------------------------------------------------------------

def _overwrite(name: str, input: Tensor, values: Array) -> Tensor:
    """Overwrites the values of `input`, unless its elements share memory."""
    written_once(name, input.array.layout)
    return overwrite(name, input, values)


def _numbers(op: str, *given: Any) -> list[float]:
    return [float(number(op, "an argument", v)) for v in given]


def uniform_(input: Tensor, from_: float = 0.0, to: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Overwrites the values with uniform random numbers, from_ <= x < to; returns the tensor itself."""
    if not from_ <= to:
        fail("uniform_", f"expects to return a [from, to) range, but found from={from_} > to={to}")
    if is_float(input.dtype) and max(-from_, to, to - from_) > float(finfo(input.dtype).max):
        fail("uniform_", f"expects bounds, and to - from, that {input.dtype} can hold", [from_, to])
    values = _draw("uniform", like_layout(input, None, None), generator, *_numbers("uniform_", from_, to))
    return _overwrite("uniform_", input, values)


def normal_(input: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Overwrites the values with normal random numbers and returns the tensor itself."""
    if std < 0:
        fail("normal_", f"expects std >= 0.0, but found std {std}")
    values = _draw("normal", like_layout(input, None, None), generator, *_numbers("normal_", mean, std))
    return _overwrite("normal_", input, values)


def bernoulli_(input: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Overwrites the values with 1 (with probability `p`, a number or a tensor of probabilities) and 0, and returns the
    tensor itself."""
    if isinstance(p, Tensor):
        return _overwrite("bernoulli_", input, bernoulli(p, generator=generator).array)
    events = _events(input.array.layout, check_probability("bernoulli_", p), generator)
    return _overwrite("bernoulli_", input, events.array)


def random_(input: Tensor, *bounds: int | None, from_: int | None = None, to: int | None = None,
            generator: Generator | None = None) -> Tensor:
    """Overwrites the values with random integers and returns the tensor itself: `random_(to)` 0 <= x < to,
    `random_(from, to)` from <= x < to, `random_()` integers from 0 on that the dtype holds exactly,
    `random_(from, None)` those from `from` on."""
    dtype = input.array.layout.dtype
    if dtype == BOOL:
        limit = 2
    elif is_float(dtype):
        limit = 1 << (finfo(dtype).nmant + 1)
    else:
        limit = min(int(np.iinfo(dtype).max), (1 << 63) - 1) + 1
    if len(bounds) == 1 and to is not None and from_ is None:
        bounds = bounds[0], to                          # random_(from, to=to)
    elif bounds and (from_ is not None or to is not None):
        raise TypeError(f"[random_] a bound was given twice; got {bounds}, from {from_}, to {to}")
    low, high = (0, *bounds)[-2:] if bounds else (from_, to)
    low, high = low or 0, limit if high is None else high
    for name, bound in (("from", low), ("to - 1", high - 1)):
        must_fit("random_", bound, np.dtype("uint8") if dtype == BOOL else dtype)
        if is_float(dtype) and abs(bound) > limit:
            warn(f"[random_] {name} is out of bounds: {dtype} holds integers up to {limit} only; others are rounded")
    if dtype == BOOL and high > 2:
        fail("random_", "the numbers of a bool tensor are 0 and 1", f"to={high}")
    return _overwrite("random_", input, _integers("random_", like_layout(input, INT64, None), low, high, generator))


def _fills(name: str, input: Tensor, right: bool, invariant: str, got: str, fix: str) -> None:
    """Refuses a parameter that is not `right`, and a tensor that is not of floats."""
    if not right:
        fail(name, f"needs {invariant}", got, f"use {fix}")
    if not is_float(input.dtype):
        fail(name, "needs a floating-point tensor", input.array.layout, "convert with .float()", NotImplementedError)


def exponential_(input: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Overwrites the values with exponentially distributed random numbers, density lambd e^(-lambd x), and returns the
    tensor itself."""
    _fills("exponential_", input, lambd > 0, "lambd > 0", f"lambd={lambd}", "1 / mean")
    return _overwrite("exponential_", input, mul(log1p(neg(_unit(input, generator))), -1 / lambd).array)


def geometric_(input: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """Overwrites the values with random numbers k = 1, 2, ... of probability (1 - p)^(k - 1) p, and returns the tensor
    itself."""
    if not is_float(input.dtype):
        floats = new_tensor(alloc(like_layout(input, np.float64, None)), None)
        return _overwrite("geometric_", input, cast(geometric_(floats, p, generator=generator), input.dtype).array)
    _fills("geometric_", input, 0 < p < 1, "p in (0, 1)", f"p={p}", "fill_(1) for p = 1")
    steps = mul(log1p(neg(_unit(input, generator))), 1 / math.log1p(-p))
    return _overwrite("geometric_", input, cast(maximum.call(ceil(steps), 1.0), input.dtype).array)


def log_normal_(input: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None) -> Tensor:
    """Overwrites the values with random numbers whose logarithms are normal, and returns the tensor itself."""
    _fills("log_normal_", input, std > 0, "std > 0", f"std={std}", "fill_ for std = 0")
    normal = _draw("normal", like_layout(input, None, None), generator, *_numbers("log_normal_", mean, std))
    return _overwrite("log_normal_", input, exp(new_tensor(normal, None)).array)


def cauchy_(input: Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Overwrites the values with random numbers of density 1 / (pi sigma (1 + ((x - median) / sigma)^2)), and returns
    the tensor itself."""
    _fills("cauchy_", input, sigma > 0, "sigma > 0", f"sigma={sigma}", "fill_ for sigma = 0")
    turn = tan(mul(sub(_unit(input, generator), 0.5), math.pi))
    return _overwrite("cauchy_", input, add(mul(turn, sigma), median).array)


# ---- dropout ---------------------------------------------------------------------------------------------------------

@op
def masked_dropout(input: Tensor, mask: Tensor, *, p: float) -> Tensor:
    """y = input * mask / (1 - p), and 0 for p = 1: dropout (Srivastava et al. 2014) with a given random choice. The
    mask has no gradient.

    Shapes: mask (bool) broadcasts to input; y as input.
    """
    return mul(mul(input, cast(mask, input.dtype)), 1 / (1 - p) if p < 1 else 0.0)


@masked_dropout.check
def _masked_dropout_rule(input: Layout, mask: Layout, *, p: float) -> None:
    """Raises on a wrong signature of `masked_dropout`."""
    if mask.dtype != BOOL:
        fail("masked_dropout", "mask must be bool", mask)
    if not is_float(input.dtype):
        fail("masked_dropout", "input must be floating point", input, "convert with .float()")
    lead = input.ndim - mask.ndim
    if lead < 0 or any(n not in (1, m) for n, m in zip(mask.shape, input.shape[lead:], strict=True)):
        fail("masked_dropout", "the mask must broadcast to the input", [input, mask])


masked_dropout.called = "dropout"


@masked_dropout.fused
def _masked_dropout_kernels(kernels: KernelTable, input: Layout, mask: Layout, *, p: float) -> Any:
    """The fused kernels: forward and backward are the same computation, because it is linear in the input."""
    if mask.shape != input.shape:
        raise NoKernel("the mask is broadcast")
    kernel, n = kernels.dropout_backward[input.dtype], input.size

    def scaled(x: Array, kept: Array) -> Array:
        y = alloc(input)
        kernel.call(y.ptr, x.ptr, kept.ptr, n, p)
        return y

    def run_forward(x: Array, kept: Array) -> Any:
        return scaled(x, kept), kept

    def run_backward(kept: Array, g: Array, needs: list[bool]) -> list[Array | None]:
        return [scaled(g, kept), None]
    return run_forward, run_backward


@masked_dropout.reference
def _masked_dropout_oracle(x: Any, mask: Any, *, p: float) -> Any:
    """NumPy, for tests."""
    return x * mask / (1 - p) if p < 1 else 0 * x


@masked_dropout.samples
def _masked_dropout_samples(make: Any) -> Iterator[tuple]:
    yield make(3, 5), make.bools(3, 5), {"p": 0.5}
    yield make(33), make.bools(33), {"p": 0.1}
    yield make(2, 3, 4), make.bools(2, 3, 1), {"p": 0.25}
    yield make(5), make.bools(5), {"p": 1.0}
    yield make(0, 4), make.bools(0, 4), {"p": 0.5}


@masked_dropout.errors
def _masked_dropout_errors(make: Any) -> Iterator[tuple]:
    yield (make(3), make(3), {"p": 0.5}), RuntimeError, "bool"
    yield (make(3), make.bools(4), {"p": 0.5}), RuntimeError, "broadcast"


_dropout_plans: dict[tuple, Any] = {}


def _dropout_plan(source: Layout, p: float) -> Any:
    """(forward kernel, layout of the result, of the mask, plan of `masked_dropout` for the backward, its attributes);
    None if there is no kernel."""
    kernel = source.device.kernels.dropout_forward.get(source.dtype)
    if kernel is None or not source.contiguous:
        return None
    mask = layout(source.device, BOOL, source.shape)
    forward, backward = _masked_dropout_kernels(source.device.kernels, source, mask, p=p)
    return kernel, source, mask, FusedPlan(forward, backward, "fused", ()), {"p": p}


def dropout(input: Tensor, p: float = 0.5, training: bool = True, *, generator: Generator | None = None) -> Tensor:
    """In training, each element is 0 with probability `p`, else divided by 1 - p; otherwise `input` itself (Srivastava
    et al. 2014). Shape and dtype as `input`, which must be floating point. ValueError if p is not in [0, 1]."""
    p = check_probability("dropout", p)
    if not training or p == 0.0:
        return input
    source = input.array.layout
    if not is_float(source.dtype):
        fail("dropout", "input must be floating point", source, "convert with .float()")
    key = (source, p)
    plan = _dropout_plans.get(key)
    if plan is None and key not in _dropout_plans:
        plan = remember(_dropout_plans, key, _dropout_plan(source, p))
    if plan is None or mode.fused == "off":
        return masked_dropout(input, logical_not(_events(source, p, generator)), p=p)
    kernel, to, mask_layout, fused, attrs = plan
    y, mask = alloc(to), alloc(mask_layout)
    kernel.call(y.ptr, mask.ptr, input.array.ptr, _state("dropout", to.device, generator), to.size, p)
    if mode.grad and input.requires_grad:
        kept = new_tensor(mask, None)
        saved = (fused, (input, kept), mask)
        edges = (input.node or input, None)
        return new_tensor(y, recorded(masked_dropout, edges, to, saved, input.array.version, None, attrs))
    return new_tensor(y, None)


def feature_dropout(input: Tensor, p: float = 0.5, training: bool = True, *,
                    generator: Generator | None = None) -> Tensor:
    """Dropout of whole channels: for `input` (N, C, *) one random choice for each of the N * C channels. RuntimeError
    for fewer than two dimensions. Otherwise like `dropout`."""
    p = check_probability("dropout", p)
    source = input.array.layout
    if source.ndim < 2:
        fail("feature_dropout", "requires at least 2 dimensions in the input", source)
    if not training or p == 0.0:
        return input
    shape = (*source.shape[:2], *(1,) * (source.ndim - 2))
    return masked_dropout(input, logical_not(_events(layout(source.device, BOOL, shape), p, generator)), p=p)


METHODS: dict[str, Callable] = {"uniform_": guarded(uniform_), "random_": guarded(random_), "normal_": normal_,
                                "bernoulli_": bernoulli_, "exponential_": exponential_, "geometric_": geometric_,
                                "log_normal_": log_normal_, "cauchy_": cauchy_}


# ---- dropout from a stream -------------------------------------------------------------------------------------------

def _prepare_dropped(stream: Layout, *, shape: tuple[int, ...], p: float) -> Plan:
    """Bools, each True with probability p: the words 0, 1, ... of a stream of random numbers. The stream is an input;
    it is not advanced."""
    if stream.dtype != INT64 or stream.shape != (4,):
        fail("random_dropped", "the stream must be int64[4], a generator's state", stream)
    out = layout(stream.device, BOOL, shape)
    kernel = stream.device.kernels.bernoulli_mask[BOOL]

    def run(state: Array) -> Array:
        drawn, mask = contiguous_copy(state), alloc(out)
        kernel.call(mask.ptr, drawn.ptr, out.size, p)
        return mask
    return Plan(run, out, f"kernel {kernel.name}")


dropped_op = Primitive("random_dropped", _prepare_dropped)


@dropped_op.samples
def _dropped_samples(make: Any) -> Any:
    for shape, p in (((3, 5), 0.5), ((33,), 0.1), ((2, 3), 0.0), ((4,), 1.0), ((0, 2), 0.5)):
        yield make.ints(4, high=100), {"shape": shape, "p": p}


@dropped_op.errors
def _dropped_errors(make: Any) -> Any:
    yield (make.ints(3), {"shape": (2,), "p": 0.5}), RuntimeError, r"int64\[4\]"


@dropped_op.reference
def dropped_oracle(stream: Any, *, shape: tuple[int, ...], p: float) -> Any:
    """Philox4x32-10 (Salmon et al. 2011) in Python integers."""
    key, low, words = int(stream[0]), int(stream[1]) + (int(stream[2]) << 64), []
    for block in range((prod(shape) + 3) // 4):
        c = [(low + block) >> 32 * i & 0xFFFFFFFF for i in range(4)]
        k = [key & 0xFFFFFFFF, key >> 32]
        for _ in range(10):
            a, b = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
            c = [b >> 32 ^ c[1] ^ k[0], b & 0xFFFFFFFF, a >> 32 ^ c[3] ^ k[1], a & 0xFFFFFFFF]
            k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
        words += c
    return (np.array(words[:prod(shape)], np.float64) < p * 2.0 ** 32).reshape(shape)


@lru_cache
def _advance(device: Device, words: int) -> tuple[Layout, Array, Array]:
    """What advances a generator's counter by `words` words: the layout of its state, the increment, and the plan of the
    addition."""
    state = layout(device, INT64, (4,))
    return state, device.constant(np.array([0, (words + 3) // 4, 0, 0])), elementwise_plan(state, state, state)


def take_stream(device: Device, words: int, generator: Generator | None) -> Tensor:
    """A copy of the generator's state, which then advances by `words` words: the random numbers of these words belong
    to the owner of the copy."""
    own = generator or default_generator(device)
    if own.device is not device:
        fail("scaled_dot_product_attention", "the generator must be on the tensors' device", [own.device, device],
             "use Generator(device)")
    if mode.streams is not None:
        mode.streams.drawn(own)
    stream = contiguous_copy(own.state)
    _, step, plan = _advance(device, words)
    device.kernels.add[INT64].call(own.state.ptr, own.state.ptr, step.ptr, plan.ptr)
    return new_tensor(stream, None)


# ---- launches on CUDA ------------------------------------------------------------------------------------------------

def _drawing(each: int) -> Rule:
    """The CUDA launches of a kernel: `each` elements for each thread; then one thread advances the generator."""
    return lambda k, host: [over(ceil_div(k.n, each)), single("advance")] if k.n else []


launch("ops/random.cu", "uniform normal random_bits", _drawing(2))
launch("ops/random.cu", "bernoulli_mask", _drawing(4))
launch("ops/random.cu", "dropout_forward", _drawing(4), half=True)
launch("ops/random.cu", "dropout_backward", lambda k, host: [over(k.n)] if k.n else [], half=True)
work("uniform normal random_bits bernoulli_mask")
work("dropout_forward", lambda k: 2 * k.n)          # comparison, product
work("dropout_backward", lambda k: k.n)
