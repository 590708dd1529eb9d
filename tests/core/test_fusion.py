"""Fusion of the launches of captured steps (core/fusion.py): the same bits as eager, and which launches are joined."""
from __future__ import annotations

import math
import random
import re
import shutil
import sys
from pathlib import Path
from time import process_time

import numpy as np
import pytest
from support import run_python

import minigrad as mg
from minigrad import nn
from minigrad.core import fusion
from minigrad.devices import open_device
from minigrad.devices.base import split
from minigrad.devices.work import FOLLOWS, PIECES
from minigrad.nn import functional as F


def joined(captured):
    """The kernels of the groups in the recordings of a captured function, with what is unread in between."""
    return [([g.first.kernel.name, *[f.launch.kernel.name for f in g.followers]], g.unused) for g in groups_of(captured)]


def groups_of(captured):
    found = []
    for programs in captured.programs.values():
        for program in programs:
            segments = [s.launches for s in program.segments if not callable(s)]
            uses, begin = fusion.Uses([launch for launches in segments for launch in launches]), 0
            for launches in segments:
                found += [g for g in fusion.groups(uses, begin, begin + len(launches)) if g.followers]
                begin += len(launches)
    return found


def same(a, b):
    return a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


def check(function, *inputs, times=3):
    """Captured and eager give the same bits, for other numbers at each replay. Returns the captured function."""
    captured = mg.capture(function)
    for k in range(times):
        now = [x + k for x in inputs] if k else list(inputs)
        got, want = captured(*now), function(*now)
        got, want = (got, want) if isinstance(want, tuple) else ((got,), (want,))
        assert all(same(g, w) for g, w in zip(got, want, strict=True)), k
    return captured


NORMS = {
    "layer": lambda: (nn.LayerNorm(96), (300, 96)),
    "layer, long rows": lambda: (nn.LayerNorm(5000), (9, 5000)),
    "rms": lambda: (nn.RMSNorm(50), (999, 50)),
    "batch, columns": lambda: (nn.BatchNorm1d(70), (601, 70)),
    "batch, 8x8": lambda: (nn.BatchNorm2d(16), (33, 16, 8, 8)),
    "batch, strips": lambda: (nn.BatchNorm2d(6), (20, 6, 15, 15)),
    "batch, long strips": lambda: (nn.BatchNorm2d(3), (5, 3, 60, 61)),
    "batch, eval": lambda: (nn.BatchNorm2d(6).eval(), (20, 6, 15, 15)),
    "group": lambda: (nn.GroupNorm(3, 6), (20, 6, 15, 15)),
    "instance": lambda: (nn.InstanceNorm2d(6), (20, 6, 15, 15)),
    "beyond the caches": lambda: (nn.BatchNorm2d(8), (70, 8, 50, 50)),
    "rows beyond the caches": lambda: (nn.LayerNorm(1000), (1201, 1000)),
}


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("extreme", [False, True])
def test_an_activation_follows_a_norm(name, extreme):
    """Extreme: sets whose squares leave the range are computed again, after other pieces were followed."""
    norm, shape = NORMS[name]()
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(np.float32)
    if extreme:
        x[2:4] *= np.float32(1e25)
        x.reshape(shape[0], shape[1], -1)[:, 1] *= np.float32(1e11)
    def step(x):
        with mg.no_grad():
            return F.relu(norm(x))
    captured = check(step, mg.tensor(x))
    assert [len(kernels) for kernels, _ in joined(captured)] == [2] and joined(captured)[0][1] == [True]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_training_step_has_the_bits_of_an_eager_one(threads):
    before = mg.get_num_threads()
    mg.set_num_threads(threads)
    try:
        found = []
        for wrap in (lambda f: f, mg.capture):
            mg.manual_seed(0)
            model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3),
                                  nn.GroupNorm(4, 16), nn.Tanh(), nn.AvgPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 40),
                                  nn.LayerNorm(40), nn.GELU(), nn.Linear(40, 5))
            optimizer = mg.optim.Adam(model.parameters(), lr=0.01)
            @wrap
            def step(x, t, model=model, optimizer=optimizer):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), t)
                loss.backward()
                optimizer.step()
                return loss
            rng = np.random.default_rng(1)
            losses = [step(mg.tensor(rng.standard_normal((32, 1, 28, 28)).astype(np.float32)), mg.tensor(rng.integers(0, 5, 32))).item()
                      for _ in range(6)]
            found.append((losses, [p.detach().numpy().tobytes() for p in (*model.parameters(), *model.buffers())]))
        assert found[0] == found[1]
        pairs = {(kernels[0].rpartition("_")[0], kernels[1].rpartition("_")[0]) for kernels, _ in joined(step)}
        assert {("batch_norm_forward", "relu"), ("max_pool_backward", "relu_backward"), ("group_norm_forward", "tanh")} <= pairs
    finally:
        mg.set_num_threads(before)


def test_a_chain_runs_piece_by_piece_and_leaves_out_what_is_not_read():
    def step(x):
        with mg.no_grad():
            return (F.relu(x * 2.0 + x) - 1.0) * x
    captured = check(step, mg.randn(300, 301))
    assert joined(captured) == [(["mul_f32", "add_f32", "relu_f32", "sub_f32", "mul_f32"], [True] * 4)]


def test_what_is_read_later_is_written():
    """The array between two launches is a result, is read by another launch, or by the derivative."""
    w = mg.randn(300, 301, requires_grad=True)
    def returned(x):
        y = x + 1.0
        return y, F.relu(y)
    def read(x):
        y = x + 1.0
        z = F.relu(y)
        return z, y.sum(), y[5:7] * 2
    def of_second_order(x):
        y = F.gelu(x * w) * x
        g, = mg.autograd.grad((y * y).sum(), w, create_graph=True)
        return y.detach(), *mg.autograd.grad((g * g).sum(), w)
    for function in (returned, read, of_second_order):
        captured = check(function, mg.randn(300, 301))
        assert groups_of(captured)
    assert joined(mg_captured := check(returned, mg.randn(300, 301)))[0][1] == [False], mg_captured


def test_what_would_change_the_order_of_reads_and_writes_is_not_joined():
    def written_in_between(x):
        a, y = mg.zeros(300, 301), x + 1.0
        a += x                          # `a` is an operand of what would follow
        return y * a
    def other_part(x):
        y = x + 1.0
        return F.relu(y[:150]), F.relu(y[150:]), F.relu(y.reshape(-1)[:-1])
    def in_place(x):
        y = x + 1.0
        y.relu_()
        y *= x
        return y
    def twice(x):
        y = x + 1.0
        return y * y + y
    for function in (written_in_between, other_part, in_place, twice):
        check(function, mg.randn(300, 301))
    assert not groups_of(check(other_part, mg.randn(300, 301)))


def test_an_element_of_the_array_is_not_read_before_it_is_written():
    def last(x):
        y = x + 1.0
        return y * y[-1]
    def further(x):
        y = x + 1.0
        return F.relu(y) - y[-1]
    for function in (last, further):
        check(function, mg.randn(300_000))


@pytest.mark.parametrize("act", [mg.tanh, mg.sigmoid])
@pytest.mark.parametrize("before", [2, 3, 4])
def test_a_kernel_that_must_not_work_in_place_does_not(monkeypatch, act, before):
    """Not even where the next follower's output has the memory of its operand."""
    monkeypatch.setattr(fusion, "_LARGE", 0)
    w = (mg.randn(999) * 8).requires_grad_()
    def step(k):
        y = act(-w)
        for _ in range(before):
            y = -y
        return mg.autograd.grad((y * k).sum(), w)[0]
    captured = check(step, mg.randn(999))
    assert any(f"{act.__name__}_backward_f32" in kernels for kernels, _ in joined(captured))


def test_a_kernel_of_a_user_is_not_taken_for_one_of_the_package(monkeypatch, own_registry, tmp_path):
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("there is no C compiler here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(fusion, "_LARGE", 0)
    @mg.op
    def layer_norm(x, *, eps=0.5):
        return x * eps
    @layer_norm.samples
    def _(make):
        yield make(4, 33)
    layer_norm.kernel("cpu", source="KERNEL(REAL, layer_norm_forward, T *y, const T *x, int64_t rows, int64_t n, double eps) {"
                                    " for (int64_t i = 0; i < rows * n; i++) y[i] = x[i] * (T)eps; }")
    def step(x):
        with mg.no_grad():
            return F.relu(layer_norm(x))
    assert not groups_of(check(step, mg.randn(30, 40)))


def test_memory_that_overlaps_is_one_memory(monkeypatch):
    """Two views of an array that come in one by one are regions of their own."""
    monkeypatch.setattr(fusion, "_LARGE", 0)
    found = []
    for wrap in (lambda f: f, mg.capture):
        base = np.full(150, 0.5, np.float32)
        a, b = mg.from_numpy(base[:100]), mg.from_numpy(base[50:])
        @wrap
        def step(x, a=a, b=b):
            with mg.no_grad():
                y = x + 1.0
                a.add_(1.0)
                return y * b
        found.append([step(mg.ones(100) * k).numpy().tobytes() for k in range(4)])
    assert found[0] == found[1]


def test_a_recording_takes_a_time_in_proportion_to_its_launches():
    def long(launches):
        def step(x):
            with mg.no_grad():
                y = x
                for _ in range(launches // 2):
                    y = F.relu(y + x)
                return y
        captured, x = mg.capture(step), mg.randn(130, 130)
        begin = process_time()
        captured(x)
        spent = process_time() - begin
        assert [len(kernels) for kernels, _ in joined(captured)] == [launches]
        return spent
    long(100)
    least = {400: math.inf, 2000: math.inf}
    for _ in range(8):                                  # a busy machine: least times, until they tell
        least = {n: min(known, long(n)) for n, known in least.items()}
        if least[2000] < 16 * least[400]:
            return
    raise AssertionError(f"seconds for a number of launches: {least}")


def test_small_arrays_and_long_functions_beyond_the_caches_are_left_alone():
    def step(x):
        with mg.no_grad():
            return F.gelu(x + 1.0)
    assert not groups_of(check(step, mg.randn(100, 100)))
    assert groups_of(check(step, mg.randn(200, 200)))
    assert not groups_of(check(step, mg.randn(1100, 1000)))


def test_launches_whose_results_nobody_reads_are_left_out():
    kept = []
    def step(x):
        unused = (F.softmax(x @ x, 1) * 2.0).sum()                 # noqa: F841
        part = mg.zeros(5, 5)
        part[1] = x[0]                                             # written in part, and not read
        kept.append(x + 3.0)                                       # somebody outside may read it
        return x * 2.0
    def in_part(x):
        out = mg.zeros(5, 5)
        out[1] = x[0]
        return out + x
    for function, left in ((step, 2), (in_part, 3)):
        with mg.no_grad():
            captured = mg.capture(function)
            x, later = mg.randn(5, 5), mg.randn(5, 5)
            captured(x)
            assert same(captured(later), function(later))
        segment, = [s for s in next(iter(captured.programs.values()))[0].segments if not callable(s)]
        assert segment.count == left, [launch.kernel.name for launch in segment.launches]
        assert function is in_part or same(kept[0], later + 3.0)   # that of the recording, which a replay writes to


@pytest.mark.parametrize("clip", [None, nn.utils.clip_grad_norm_, nn.utils.clip_grad_value_])
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_gradients_that_an_optimizer_reads_by_its_table_are_needed(clip, kind):
    """They are freed within the step: `zero_grad` is the last that it does."""
    found = []
    for wrap in (lambda f: f, mg.capture):
        mg.manual_seed(0)
        model = nn.Sequential(nn.Linear(7, 9), nn.LayerNorm(9), nn.ReLU(), nn.Linear(9, 3))
        optimizer = getattr(mg.optim, kind)(model.parameters(), lr=0.05)
        @wrap
        def step(x, model=model, optimizer=optimizer):
            (model(x) * model(x)).sum().backward()
            if clip is not None:
                clip(model.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()
        for k in range(4):
            step(mg.ones(6, 7) * k)
        found.append([p.detach().numpy().tobytes() for p in model.parameters()])
    assert found[0] == found[1]


# ---- products that write where they are copied to ----

def copies(step):
    """How many copies the replays of a captured function leave out, and how many they run."""
    (program,) = [p for programs in step.programs.values() for p in programs]
    segments = [s.launches for s in program.segments if not callable(s)]
    uses, begin, left_out = fusion.Uses([launch for launches in segments for launch in launches]), 0, 0
    for launches in segments:
        left_out += len(fusion.placed(uses, begin, begin + len(launches))[1])
        begin += len(launches)
    return left_out, sum(launch.kernel.name.startswith("copy") for launch in uses.launches) - left_out


PLACED = {      # what a step does with the product y = x @ w and a place of its shape in `memory`, and the copies left out
    "copied": (lambda y, place, x, w: place.copy_(y), 1),
    "read later": (lambda y, place, x, w: (place.copy_(y), y * 2)[1], 0),
    "returned": (lambda y, place, x, w: (place.copy_(y), y)[1], 0),
    "copied twice": (lambda y, place, x, w: (place.copy_(y), place.copy_(y)), 0),
    "the place is read in between": (lambda y, place, x, w: (place * 1, place.copy_(y))[0], 0),
    "the place is written in between": (lambda y, place, x, w: (place.fill_(3), place.copy_(y))[0], 0),
    "another shape": (lambda y, place, x, w: place.copy_(y[:1]), 0),
    "a part": (lambda y, place, x, w: place[:24].copy_(y[:24]), 0),
    "transposed": (lambda y, place, x, w: place.copy_(y.t().contiguous().t()), 0),
    "added to": (lambda y, place, x, w: place.add_(y), 0),
    "an operand": (lambda y, place, x, w: place.copy_(place[:, :48] @ w), 0),
}


@pytest.mark.parametrize("name", PLACED)
def test_a_product_writes_where_it_is_copied_to(name):
    act, left_out = PLACED[name]
    found = []
    for wrap in (lambda f: f, mg.capture):
        memory, kept = mg.zeros(2, 48, 64), mg.zeros(48, 64)
        @wrap
        def step(x, w, memory=memory, kept=kept):
            with mg.no_grad():
                out = act(x @ w, memory[1], x, w)
                if name in ("read later", "returned", "the place is read in between"):
                    kept.add_(out)
        values = []
        for k in range(3):
            g = mg.Generator().manual_seed(k)
            step(mg.randn(48, 48, generator=g), mg.randn(48, 64, generator=g))
            values.append((memory.numpy().tobytes(), kept.numpy().tobytes()))
        found.append(values)
    assert found[0] == found[1]
    assert copies(step)[0] == left_out, copies(step)


def test_a_place_of_another_alignment_gets_a_copy():
    memory = mg.zeros(1 + 48 * 64)
    @mg.capture
    def step(x, w):
        with mg.no_grad():
            memory[1:].view(48, 64).copy_(x @ w)
    for _ in range(2):
        step(mg.ones(48, 48), mg.ones(48, 64))
    assert memory[1:].tolist() == [48.0] * (48 * 64) and copies(step)[0] == 0


# ---- what ops say of kernels that follow, against the kernels ----

CPU = open_device("cpu").kernels
NATIVE = Path(__file__).parents[2] / "native"
FOLLOWERS = [kernel for kernel in CPU if fusion.elementwise(kernel)]


def test_what_follows_are_kernels():
    assert {split(kernel.name)[0] for kernel in FOLLOWERS} == set(FOLLOWS)
    room = int(re.search(r"PLAN_MAX = (\d+)", (NATIVE / "program.c").read_text())[1])
    assert all(k.signature[0] == "o" and k.signature.count("o") == 1 for k in FOLLOWERS)
    assert all(3 + k.signature.count("o") + k.signature.count("p") - 1 <= room for k in FOLLOWERS)


@pytest.mark.parametrize("kernel", FOLLOWERS, ids=lambda kernel: kernel.name)
def test_a_follower_works_in_place(kernel):
    """Its output may have the memory of any of its operands; but of those that say otherwise."""
    rng, dtype = np.random.default_rng(0), np.float32 if kernel.name.endswith("f32") else np.float64
    scalars = [1.0 if kind == "d" else 1 for kind in kernel.signature if kind in "di"]
    operands, same = kernel.signature.count("p") - 1, True
    def run(arrays, out):
        plan = np.array([1, out.size, out.size, *[1] * (operands + 1)], np.int64)
        kernel.function(*[a.__array_interface__["data"][0] for a in (out, *arrays, plan)], *scalars)
        return out.tobytes()
    for n in (*range(1, 70), 600):
        numbers = rng.standard_normal((operands, n)) * rng.choice([1e-3, 1.0, 30.0], (operands, n))
        numbers[rng.random((operands, n)) < 0.1] = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0])
        want = run(numbers.astype(dtype), np.empty(n, dtype))
        for k in range(operands):
            arrays = numbers.astype(dtype)
            same &= run(arrays, arrays[k]) == want
    assert same == FOLLOWS[split(kernel.name)[0]].in_place


def test_producers_are_the_kernels_that_call_mg_written():
    found = set()
    for path in NATIVE.glob("*.c"):
        words, name = {}, ""            # the words in each function of the file
        for line in re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL).splitlines():
            head = re.match(r"\w[\w *]*?\b(FN\(\w+\)|\w+)\(", line)
            name = head[1] if head else name
            words.setdefault(name, set()).update(re.findall(r"\w+", line[head.end():] if head else line))
        calling = {"mg_written"}
        for _ in words:
            calling |= {name for name, of in words.items() if of & calling}
        found |= {name[3:-1] for name in calling if name.startswith("FN(")}
    assert found == set(PIECES)


def shapes_of(rng):
    """A layer for each of `PIECES`, and the shape of an input."""
    n, c, h, w = rng.choice([1, 2, 3, 9, 17, 70]), rng.choice([1, 2, 6, 12, 35]), rng.choice([1, 2, 5, 8, 15, 40]), rng.choice([1, 2, 7, 8, 33])
    affine, kernel = rng.random() < 0.5, rng.choice([1, 2, 3])
    window = {"kernel_size": kernel, "stride": rng.choice([1, 2, 3]), "padding": rng.choice([0, kernel // 2])}
    padded = [size + 2 * window["padding"] >= kernel for size in (h, w)]
    yield nn.LayerNorm([h, w], elementwise_affine=affine), (n, c, h, w)
    yield nn.RMSNorm(w * h, elementwise_affine=affine), (n, c, w * h)
    if n * h * w > 1:
        yield nn.BatchNorm2d(c, affine=affine, track_running_stats=False), (n, c, h, w)
    if n > 1:
        yield nn.BatchNorm1d(c, affine=affine), (n, c)
    yield nn.BatchNorm2d(c, affine=affine).eval(), (n, c, h, w)
    yield nn.GroupNorm(rng.choice([g for g in (1, 2, 3, 5, c) if c % g == 0]), c, affine=affine), (n, c, h, w)
    if all(padded):
        yield nn.MaxPool2d(**window), (n, c, h, w)
        yield nn.AvgPool2d(**window, count_include_pad=affine), (n, c, h, w)
    yield nn.AdaptiveAvgPool2d(rng.choice([1, (min(2, h), min(3, w))])), (n, c, h, w)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 3])
def test_all_that_a_producer_writes_is_followed(monkeypatch, threads):
    """Whichever of its loops a shape reaches, with rows and channels out of range in between, and written in place."""
    monkeypatch.setattr(fusion, "_LARGE", 0)
    before, seen = mg.get_num_threads(), set()
    mg.set_num_threads(threads)
    try:
        for seed in range(60):
            for layer, shape in shapes_of(random.Random(seed)):
                rng = np.random.default_rng(seed)
                x = rng.standard_normal(shape)
                if seed % 3 == 0:
                    x[rng.integers(shape[0])] *= 1e25
                    x[:, rng.integers(shape[1])] *= 1e11
                x = mg.tensor(x.astype(np.float64 if seed % 4 == 1 else np.float32))
                layer.to(x.dtype)
                def step(x, layer=layer):
                    if "Pool" in type(layer).__name__:
                        w = x.detach().requires_grad_()
                        y = layer(F.relu(w))
                        return mg.autograd.grad((y * y).sum(), w)[0]
                    with mg.no_grad():
                        return F.leaky_relu(layer(x), 0.3)
                seen |= {split(kernels[0])[0] for kernels, _ in joined(check(step, x, times=2))}
    finally:
        mg.set_num_threads(before)
    assert seen >= set(PIECES)


# ---- programs at random ----------------------------------------------------------------------------------------------

def program(seed):
    """A function of two tensors, made of elementwise ops, norms, reductions, views and changes in place."""
    def function(x, y, seed=seed):
        rng, kept = random.Random(seed), [x, y]
        size = x.shape[-1]
        for _ in range(rng.randint(3, 14)):
            a, b = rng.choice(kept[-4:]), rng.choice(kept)
            kind = rng.randrange(13)
            if kind < 4:
                new = [lambda: a + b, lambda: a * b, lambda: a - 0.5, lambda: mg.maximum(a, b)][kind]()
            elif kind < 8:
                new = [F.relu, F.gelu, mg.tanh, F.leaky_relu][kind - 4](a)
            elif kind == 8:
                new = F.layer_norm(a, (size,))
            elif kind == 9:
                new = F.batch_norm(a, None, None, training=True)
            elif kind == 10:
                new = a + b.mean(0)
            elif kind == 11:
                new = a.clone()
                new[rng.randrange(len(new)):] = 0.25
            else:
                new = a.clone()
                new *= b
            kept.append(new)
            if rng.random() < 0.5 and len(kept) > 3:
                del kept[rng.randrange(2, len(kept) - 1)]
        return tuple(kept[2:][-rng.randint(1, 3):])
    return function


@pytest.mark.parametrize("grad", [False, True])
def test_programs_at_random(monkeypatch, grad):
    """Small arrays, which are joined here, too."""
    monkeypatch.setattr(fusion, "_LARGE", 0)
    groups = 0
    for seed in range(120):
        function = program(seed)
        def step(x, y, function=function):
            if not grad:
                with mg.no_grad():
                    return function(x, y)
            w = x.detach().requires_grad_()
            outs = function(w, y)
            return (*mg.autograd.grad(sum([o.sum() for o in outs], w.sum()), w),
                    *[o.detach() for o in outs])
        mg.manual_seed(seed)
        groups += len(groups_of(check(step, mg.randn(7, 19), mg.randn(7, 19))))
    assert groups > 100


@pytest.mark.slow
@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512"])
def test_at_every_simd_level(level):
    done = run_python("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__, "-m", "not slow", MINIGRAD_SIMD=level)
    if "CPU has" in done.stderr + done.stdout:
        pytest.skip(f"this CPU has no {level}")
    assert done.returncode == 0, done.stdout


if __name__ == "__main__":
    fusion._LARGE = 0
    for seed in range(int(sys.argv[1]), int(sys.argv[2])):
        check(program(seed), mg.randn(7, 19), mg.randn(7, 19))
