"""Kernels that an op brings with it: launched by names or by `@op.fused`, and seen by all that looks at launches."""
from __future__ import annotations

import copy
import pickle
import re
import shutil
import sys
import threading

import numpy as np
import pytest
from support import both_paths, run_python

import minigrad as mg
from minigrad import study, testing
from minigrad.autograd import detect_anomaly
from minigrad.core import op as machinery
from minigrad.devices import launch_hook
from minigrad.devices.native import LEVELS, set_simd_level, simd_level
from minigrad.study.record import Record

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="there is no C compiler here")

# the text of the README and of examples/new_op.py, with its backward
HARD_MISH = """
KERNEL(REAL, hard_mish_forward, T *y, const T *x, int64_t n, double slope) {
  const V s = vset((T)slope);
  EACH_VECTOR(j, k, n,
    const V v = load_n(x + j, k);
    store_n(y + j, v * vmin(vmax(v * s + 1, vzero()), vset(2)) / 2, k););
}
KERNEL(REAL, hard_mish_backward, T *gx, const T *g, const T *x, int64_t n, double slope) {
  const V s = vset((T)slope);
  EACH_VECTOR(j, k, n,
    const V v = load_n(x + j, k), t = v * s + 1;
    const V rising = vselect((t >= 0) & (t <= 2), s, vzero());
    store_n(gx + j, load_n(g + j, k) * (vmin(vmax(t, vzero()), vset(2)) + v * rising) / 2, k););
}
"""
# rows, an output that backward reads, a gradient for one of two inputs only
DAMPED = """
KERNEL(REAL, damped_forward, T *y, const T *x, const T *z, int64_t rows, int64_t n, double cap, int64_t power) {
  for (int64_t r = 0; r < rows; r++) {
    T sum = 0;
    for (int64_t i = 0; i < n; i++) sum += z[r * n + i] * z[r * n + i];
    for (int64_t i = 0; i < n; i++) y[r * n + i] = MATH(tanh)(x[r * n + i] / (T)cap) * sum * power;
  }
}
KERNEL(REAL, damped_backward, T *gx, const T *g, const T *y, const T *z, int64_t rows, int64_t n, double cap, int64_t power) {
  for (int64_t r = 0; r < rows; r++) {
    T sum = 0;
    for (int64_t i = 0; i < n; i++) sum += z[r * n + i] * z[r * n + i];
    for (int64_t i = 0; i < n; i++) {
      const T t = sum == 0 ? 0 : y[r * n + i] / (sum * power);
      gx[r * n + i] = g[r * n + i] * (1 - t * t) * sum * power / (T)cap;
    }
  }
}
"""


@pytest.fixture(autouse=True)
def own_cache(own_registry, tmp_path_factory, monkeypatch):
    """What ops compile is kept for this run of the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "kernels"))


# What they test depends on the width of vectors. All others compile for the lowest level: to read the intrinsics of a higher one
# takes most of the time of so short a text.
AT_THE_BEST_LEVEL = {"test_a_wrong_kernel_is_found", "test_element_types", "test_fused_launches_them_as_in_the_tree",
                     "test_samples_of_whole_vectors_do_not_hide_a_missing_tail", "test_they_are_tested_like_those_of_the_tree"}


@pytest.fixture(autouse=True)
def level(request):
    before = simd_level()
    if request.node.originalname not in AT_THE_BEST_LEVEL:
        set_simd_level(LEVELS[0])
    yield
    set_simd_level(before)


def make_hard_mish(text=HARD_MISH):
    @mg.op
    def hard_mish(x, *, slope=0.5):
        return x * (x * slope + 1).clamp(0, 2) / 2

    @hard_mish.samples
    def _(make):
        yield make(4, 33)
        yield make(7, low=-8, high=8), {"slope": 0.25}
    if text:
        hard_mish.kernel("cpu", source=text)
    return hard_mish


def make_damped():
    @mg.op
    def damped(x, z, *, cap=2.0, power=3):
        return (x / cap).tanh() * (z * z).sum(-1, keepdim=True) * power

    @damped.samples
    def _(make):
        yield make(4, 33), make(4, 33)
        yield make(2, 3, 5), make(2, 3, 5), {"cap": 0.5, "power": -1}
    damped.kernel("cpu", source=DAMPED)
    return damped


@pytest.mark.slow
@pytest.mark.parametrize("make", [make_hard_mish, make_damped])
def test_they_are_tested_like_those_of_the_tree(make):
    op = make()
    for args, attrs in testing.samples_of(op):
        both_paths(op, args, attrs)
    done = testing.check_op(op)
    assert done.checks["fused"].startswith("2 of 2 samples") and "not checked: there is no @" in done.checks["oracle"]
    assert [line.split()[0] for line in str(done).splitlines()[1:]] == list(testing.CHECKS)


def test_a_gradient_that_the_kernel_does_not_give_is_derived():
    """One launch of the kernel where it gives all that is asked for; else the definition, once."""
    damped = make_damped()
    x, z = mg.randn(3, 4, requires_grad=True), mg.randn(3, 4)
    assert study.launches(lambda: damped(x, z).sum().backward()).count("damped_backward_f32") == 1
    z.requires_grad_()
    seen = study.launches(lambda: damped(x, z).sum().backward())
    assert "damped_backward_f32" not in seen and "tanh_f32" in seen
    assert x.grad is not None and z.grad is not None


@pytest.mark.slow
def test_element_types():
    """Compiled for each when it is first asked for; float16 is computed in float32; what the text does not have, the definition does."""
    @mg.op
    def tripled(x):
        return x * 3
    tripled.kernel("cpu", source="  KERNEL(NUMBER, tripled_forward, T *y, const T *x, int64_t n) {\n  for (int64_t i = 0; i < n; i++) y[i] = 3 * x[i];\n}\n")
    for dtype, launched in ((mg.float32, "tripled_forward_f32"), (mg.float64, "tripled_forward_f64"), (mg.int32, "tripled_forward_i32"),
                            (mg.int64, "tripled_forward_i64"), (mg.uint8, "NumPy multiply")):
        x = mg.ones(5, dtype=dtype)
        assert study.launches(tripled, x) == [launched] and tripled(x).tolist() == [3] * 5 and tripled(x).dtype == dtype
    half = tripled(mg.ones(5, dtype=mg.float16))
    assert half.dtype == mg.float16 and half.tolist() == [3] * 5
    assert "no tripled_forward kernel for uint8 on cpu" in study.explain(tripled, mg.ones(5, dtype=mg.uint8))


@pytest.mark.parametrize("arguments, why", [
    (lambda: (mg.ones(4, 3), mg.ones(3)), r"take inputs of one shape and dtype; got float32\[4, 3\], float32\[3\]"),
    (lambda: (mg.ones(3), mg.ones(3).double()), "of one shape and dtype"), (lambda: (mg.ones(0, 3), mg.ones(0, 3)), "there are no elements"),
    (lambda: (mg.ones(3, 4).t(), mg.ones(3, 4).t()), "fused kernel on cpu"), (lambda: (mg.tensor(2.0), mg.tensor(3.0)), "fused kernel on cpu")])
def test_which_signatures_take_them(arguments, why):
    """Kernels see pointers only: they get inputs of one layout, contiguous. All else runs the definition."""
    damped = make_damped()
    given = arguments()
    assert re.search(why, study.explain(damped, *given))
    with mg.set_fused("off"):
        want = damped(*given)
    np.testing.assert_allclose(damped(*given).numpy(), want.numpy(), rtol=1e-6)
    assert "take power as a whole number; got 2.5" in study.explain(damped, mg.ones(3), mg.ones(3), power=2.5)


@pytest.mark.parametrize("arguments, message", [
    ("T *y, const T *x, int64_t m", r"has an argument `m`; without @f.fused it may have scale, n"),
    ("T *y, const T *w, int64_t n", r"has an argument `w`; without @f.fused it may have x"),
    ("T *y, T *z, const T *x, int64_t n", "writes 2 arrays; without @f.fused it may write one, its result"),
    ("const T *x, int64_t n", "writes 0 arrays"), ("double *y, const T *x, int64_t n", r"`double \*y`.*`T \*`"),
    ("T *y, const int64_t *x, int64_t n", r"`const int64_t \*x`.*`T \*`")])
def test_names_that_say_nothing(arguments, message):
    @mg.op
    def f(x, *, scale=1.0):
        return x * scale
    names = re.findall(r"(\w+)(?:,|$)", arguments)
    f.kernel("cpu", source=f"KERNEL(REAL, f_forward, {arguments}) {{\n  {' '.join(f'(void){n};' for n in names)}\n}}\n")
    for _ in range(2):
        with pytest.raises(TypeError, match=r"\[f.kernel\] f_forward.*" + message):
            f(mg.ones(3))


@pytest.mark.parametrize("names", [("f_forwards",), ("f_forward", "f_backwards"), ("f_backward",), ("f_forward", "helper")])
def test_kernels_that_nothing_launches(names):
    """A misspelt name is said, rather than the definition run."""
    @mg.op
    def f(x):
        return x + 1
    f.kernel("cpu", source="".join(f"KERNEL(REAL, {name}, T *y, const T *x, int64_t n) {{ y[n - 1] = x[n - 1]; }}\n" for name in names))
    with pytest.raises(TypeError, match=f"the kernels of a text are f_forward and perhaps f_backward; got {', '.join(sorted(names))}"):
        f(mg.ones(3))


GATED = """
KERNEL(REAL, gated_forward, T *y, const T *x, const T *z, int64_t n, double a, int64_t b) {
  for (int64_t i = 0; i < n; i++) y[i] = x[i] * z[i] * (T)a + b;
}
KERNEL(REAL, gated_backward, T *gx, T *gz, const T *g, const T *x, const T *z, int64_t n, double a, int64_t b) {
  for (int64_t i = 0; i < n; i++) gx[i] = g[i] * z[i] * (T)a, gz[i] = g[i] * x[i] * (T)a;
}
"""


def make_gated(text=GATED, **samples):
    @mg.op
    def gated(x, z, *, a=0.5, b=3):
        return x * z * a + b

    @gated.samples
    def _(make):
        yield make(4, 32), make(4, 32)
    gated.kernel("cpu", source=text)
    return gated


@pytest.mark.parametrize("before, after, kernel, lacks", [
    (", double a, int64_t b) {\n  for (int64_t i = 0; i < n; i++) y", ", int64_t b) {\n  const double a = 0.5;\n  for (int64_t i = 0; i < n; i++) y",
     "gated_forward", "a, an attribute.*add `double a`"),
    ("T *y, const T *x, const T *z", "T *y, const T *x", "gated_forward", "z, an input.*add `const T \\*z`"),
    (", int64_t b) {\n  for (int64_t i = 0; i < n; i++) gx", ") {\n  for (int64_t i = 0; i < n; i++) gx", "gated_backward", "b, an attribute")])
def test_an_input_or_attribute_that_a_kernel_does_not_take_is_refused(before, after, kernel, lacks):
    """It would run, and give the same for every value."""
    text = GATED.replace(before, after)
    assert text != GATED
    gated = make_gated(text.replace("x[i] * z[i] * (T)a + b", "x[i] * (T)a + b") if "z" in lacks[0] else text)
    for _ in range(2):
        with pytest.raises(TypeError, match=rf"\[gated.kernel\] {kernel}_f32 must take each of .*; it lacks {lacks}.*or write @gated.fused"):
            gated(mg.ones(3), mg.ones(3), a=2.0, b=1)


def test_attributes_that_are_no_numbers():
    """Tensors would lose their gradient; numbers that do not fit run the definition."""
    gated, x = make_gated(), mg.ones(3)
    for value in (mg.tensor(0.25, requires_grad=True), mg.ones(3), np.ones(3), [1.0]):
        for choice in ("auto", "off"):
            with mg.set_fused(choice), pytest.raises(TypeError, match=r"\[gated\] a must be hashable, and no tensor; got .*a tensor by position"):
                gated(x, x, a=value)
    assert gated(x, x, a=np.float32(0.5), b=True).tolist() == [1.5] * 3 and "fused kernel" in study.explain(gated, x, x, b=True)
    assert gated(x, x, b=10**30).tolist() == pytest.approx([1e30] * 3)
    assert "take b as a whole number" in study.explain(gated, x, x, b=10**30)
    assert gated(x, x, b=float("inf")).tolist() == [np.inf] * 3


@pytest.mark.parametrize("definition, types, given, found", [
    (lambda x: x.sum(-1), "REAL", lambda: mg.ones(5, 7), r"float32\[5\]"), (lambda x: x < 1, "REAL", lambda: mg.ones(3), r"bool\[3\]"),
    (lambda x: (x, x), "REAL", lambda: mg.ones(3), r"float32\[3\], float32\[3\]"), (lambda x: x / 2, "NUMBER", lambda: mg.arange(3), r"float32\[3\]"),
    (lambda x: x.double(), "REAL", lambda: mg.ones(3), r"float64\[3\]")])
def test_a_definition_whose_result_is_unlike_its_input(definition, types, given, found):
    """The kernel would give another shape, dtype or number of results than the definition."""
    definition.__name__ = "unlike"
    unlike = mg.op(definition)
    unlike.kernel("cpu", source=f"KERNEL({types}, unlike_forward, T *y, const T *x, int64_t n) {{ for (int64_t i = 0; i < n; i++) y[i] = x[i]; }}\n")
    for _ in range(2):
        with pytest.raises(TypeError, match=rf"without @unlike.fused, the result must be one tensor .*the definition gives {found} for inputs of .*write @unlike.fused"):
            unlike(given())


def test_the_definition_is_compared_once_and_unseen():
    calls = []

    @mg.op
    def noted(x, *, a=1.0):
        calls.append(a)
        return x * a
    noted.kernel("cpu", source="KERNEL(REAL, noted_forward, T *y, const T *x, int64_t n, double a) { for (int64_t i = 0; i < n; i++) y[i] = x[i] * (T)a; }")
    for a in (1.0, 2.0, 1.0, 3.0):
        assert study.launches(noted, mg.ones(3), a=a) == ["noted_forward_f32"]
    assert calls == [1.0]
    assert study.launches(noted, mg.ones(4)) == ["noted_forward_f32"] and len(calls) == 2


def test_an_op_with_the_name_of_one_of_the_tree():
    """It is another op: it does not take the place of that of the tree where ops are found by name, nor its kernels."""
    mish = machinery.registry["mish"]

    def definition(x):
        return x * 3
    definition.__name__ = "mish"
    own = mg.op(definition)
    own.kernel("cpu", source="KERNEL(REAL, mish_forward, T *y, const T *x, int64_t n) { for (int64_t i = 0; i < n; i++) y[i] = x[i] * 3; }")
    x = mg.ones(2, requires_grad=True)
    assert "mish_backward_f32" not in study.launches(lambda: own(x).sum().backward()) and x.grad.tolist() == [3, 3]
    assert own(x).tolist() == [3, 3] and mg.nn.functional.mish(mg.zeros(2)).tolist() == [0, 0]
    assert machinery.registry["mish"] is mish is not own
    assert make_hard_mish("") is machinery.registry["hard_mish"]


def test_copies_and_pickles_are_the_op_itself():
    """So that a model which holds one can be copied; its kernels are launched where hooks see them."""
    hard_mish = make_hard_mish()
    model = mg.nn.Linear(2, 2)
    model.activation = hard_mish
    assert copy.deepcopy(model).activation is hard_mish and copy.copy(hard_mish) is hard_mish
    from minigrad.ops.norm import layer_norm
    assert pickle.loads(pickle.dumps(layer_norm)) is layer_norm


def test_fused_launches_them_as_in_the_tree():
    """With weights of another shape and a statistic that is saved; kernels of the tree are there, too."""
    @mg.op
    def scaled_norm(x, w, *, eps=1e-6):
        return x * ((x * x).mean(-1, keepdim=True) + eps).rsqrt() * w

    @scaled_norm.check
    def _(x, w, *, eps):
        if w.shape != x.shape[-1:]:
            raise RuntimeError(f"[scaled_norm] w must have the last dimension of x; got {x}, {w}")

    @scaled_norm.fused
    def _(kernels, x, w, *, eps):
        forward, copy = kernels.scaled_norm_forward[x.dtype], kernels.copy.move(x.dtype)
        assert copy.name in ("copy_i32", "copy_i64") and x.dtype == w.dtype

        def run(xa, wa):
            y = mg.empty(x.shape, dtype=x.dtype).array
            forward.call(y.ptr, xa.ptr, wa.ptr, x.size // w.size, w.size, eps)
            return y, ()
        return run, None

    @scaled_norm.samples
    def _(make):
        yield make(4, 33), make(33)
        yield make(2, 3, 5), make(5), {"eps": 0.5}
    scaled_norm.kernel("cpu", source="""
KERNEL(REAL, scaled_norm_forward, T *y, const T *x, const T *w, int64_t rows, int64_t n, double eps) {
  for (int64_t r = 0; r < rows; r++, x += n, y += n) {
    V sum = vzero();
    EACH_VECTOR(j, k, n, const V v = load_n(x + j, k); sum += v * v;);
    const V scale = vset(1 / MATH(sqrt)(vsum(sum) / n + (T)eps));
    EACH_VECTOR(j, k, n, store_n(y + j, load_n(x + j, k) * scale * load_n(w + j, k), k););
  }
}
""")
    testing.check_op(scaled_norm)
    assert study.launches(scaled_norm, mg.ones(4, 3), mg.ones(3)) == ["scaled_norm_forward_f32"]
    with Record() as record:
        scaled_norm(mg.ones(4, 3), mg.ones(3))              # this line, not the one above that launches
    launch, = [x for x in record.launches if "scaled_norm" in x.kernel]
    assert launch.op == "scaled_norm" and "# this line, not the one above that launches, called from" in str(launch.place)
    with detect_anomaly(), pytest.raises(RuntimeError, match=r"scaled_norm made inf out of finite values, at .*: scaled_norm\(mg.eye"):
        scaled_norm(mg.eye(3), mg.full((3,), 3e38))
    with pytest.raises(RuntimeError, match="the last dimension of x"):
        scaled_norm(mg.ones(4, 3), mg.ones(4))


def test_a_captured_step_replays_them():
    """The first call compiles while the step is recorded."""
    hard_mish = make_hard_mish()

    def step(x):
        y = x.detach().requires_grad_()
        return mg.autograd.grad(hard_mish(y, slope=0.3).square().sum(), y)[0]
    captured = mg.capture(step)
    for _ in range(3):
        x = mg.randn(5, 7)
        np.testing.assert_array_equal(captured(x).numpy(), step(x).numpy())
    program, = [p for known in captured.programs.values() for p in known]
    assert [callable(segment) for segment in program.segments] == [False]          # one native call
    with Record() as record:
        again = captured(x)
    assert ["hard_mish_forward_f32", "hard_mish_backward_f32"] == [x.kernel for x in record.launches if "hard_mish" in x.kernel]
    np.testing.assert_array_equal(again.numpy(), step(x).numpy())


def test_observers_see_them():
    """Also those that were there before the kernels."""
    hard_mish, x = make_hard_mish(), mg.randn(4, 33, requires_grad=True)
    with Record() as record:
        hard_mish(x, slope=0.25).sum().backward()
    forward, backward = [launch for launch in record.launches if "hard_mish" in launch.kernel]
    assert (forward.op, forward.direction, forward.sizes) == ("hard_mish", "forward", {"n": 132, "slope": 0.25})
    assert (backward.op, backward.direction, forward.nbytes, backward.nbytes) == ("hard_mish", "backward", 1056, 1584)
    assert [str(o) for o in forward.operands] == ["float32[4, 33]"] * 2
    seen = []

    def visit(kernel, arguments):
        seen.append(kernel.name)
        kernel.function(*arguments)
    with launch_hook(visit):
        assert study.launches(hard_mish, x) == ["hard_mish_forward_f32"] and seen == ["hard_mish_forward_f32"]
    assert study.explain(hard_mish, x) == "hard_mish(float32[4, 33]): fused kernel on cpu\n  launches hard_mish_forward_f32"


@pytest.mark.parametrize("text, message", [
    (HARD_MISH.replace("vset(2)) / 2, k);", "vset(2)) / 2 / vzero(), k);", 1), r"hard_mish made (nan|inf) out of finite values, at .*test_own_kernels.py"),
    (HARD_MISH.replace("v * rising) / 2", "v * rising) / vzero()"), "the backward of hard_mish made (nan|inf) out of finite values, recorded at .*own_kernels")])
def test_anomaly_detection_checks_them(text, message):
    hard_mish, x = make_hard_mish(text), mg.randn(5, requires_grad=True)
    with detect_anomaly(), pytest.raises(RuntimeError, match=message):
        hard_mish(x).sum().backward()


def test_a_saved_result_that_was_changed_is_refused():
    damped = make_damped()
    x, z = mg.ones(3, requires_grad=True), mg.ones(3)
    y = damped(x, z)
    with mg.no_grad():
        y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_another_text_is_another_kernel():
    hard_mish, x = make_hard_mish(), mg.tensor([2.0])
    assert hard_mish(x).item() == 2
    hard_mish.kernel("cpu", source=HARD_MISH.replace("vset(2)) / 2, k);", "vset(2)) / 4, k);", 1))
    assert hard_mish(x).item() == 1
    with mg.set_fused("off"):
        assert hard_mish(x).item() == 2 and "switched off" in study.explain(hard_mish, x)
    assert "no fused kernel is defined" in study.explain(make_hard_mish(""), x)


def test_a_captured_step_takes_another_text():
    hard_mish, x = make_hard_mish(), mg.tensor([2.0])
    captured = mg.capture(lambda x: hard_mish(x))
    assert [captured(x).item() for _ in range(2)] == [2, 2]
    hard_mish.kernel("cpu", source=HARD_MISH.replace("vset(2)) / 2, k);", "vset(2)) / 4, k);", 1))
    assert [captured(x).item() for _ in range(2)] == [1, 1]


def test_threads_compile_once():
    hard_mish = make_hard_mish(HARD_MISH + f"// {sys.version_info}")
    results, gate = [], threading.Barrier(4)

    def work():
        gate.wait()
        results.append(hard_mish(mg.ones(9)).numpy().tobytes())
    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(set(results)) == 1 and len(results) == 4
    table, = hard_mish.tables.values()
    assert list(table.hard_mish_forward.members) == ["f32"]


WRONG = {
    "fused": (HARD_MISH.replace("vset(2)) / 2, k);", "vset(2)) / F(2.001), k);", 1), "output 0, element [0, 26]: the kernel gives"),
    "gradients": (HARD_MISH.replace("v * rising", "v * s"), "derivative of order 1, input 0, element [6]: backward gives"),
    "threads": (HARD_MISH.replace("  const V s", "  const V s = vset((T)(slope + mg_calls())), unused", 1), "the bits must be the same"),
    "memory": (HARD_MISH.replace("store_n(y + j, v * vmin(vmax(v * s + 1, vzero()), vset(2)) / 2, k)",
                                 "vstore(y + j, v * vmin(vmax(v * s + 1, vzero()), vset(2)) / 2)"), "writes outside of its results float32[4, 33]"),
    "specials": (HARD_MISH.replace("store_n(y + j, v *", "store_n(y + j, vselect(v == v, v, vzero()) *", 1).replace(
        "vmax(v * s", "vmax(vselect(v == v, v, vzero()) * s", 1), "nan in argument 0 at [2, 0], output 0, element [2, 0]: the kernel gives"),
}
WRONG["threads"] = ("static double mg_calls(void) { static int calls; return calls++ / 1024.0; }\n" + WRONG["threads"][0], WRONG["threads"][1])


@pytest.mark.parametrize("place", ["y[-1]", "y[n]", *[pytest.param(far, marks=pytest.mark.slow) for far in (
    "y[n + 40]", "y[n + 63]", "y[n + 70]", "y[n + 3000]", "((T *)x)[-2]")], "((T *)x)[0]"])
def test_a_kernel_that_writes_elsewhere_is_found_first(place):
    """Before any other check: what it writes would crash, or look like an error of the definition."""
    gated = make_gated(GATED.replace("y[i] = x[i] * z[i] * (T)a + b;\n", f"y[i] = x[i] * z[i] * (T)a + b;\n  {place} = 7;\n"))
    said = "writes to its input float32[4, 32]" if place.endswith("x)[0]") else "writes outside of its results"
    with pytest.raises(AssertionError, match=re.escape(f"gated, sample 0 {{}}: gated_forward_f32 {said}")):
        testing.check_op(gated)


@pytest.mark.slow
@pytest.mark.parametrize("whole, message", [("n / VL * VL", "cut to odd sizes, output 0, element"), ("n", "writes outside of its results float32[3, 31]")])
def test_samples_of_whole_vectors_do_not_hide_a_missing_tail(whole, message):
    loop = f"for (int64_t j = 0; j < {whole}; j += VL) store_n(y + j, load_n(x + j, VL) * load_n(z + j, VL) * (T)a + (T)b, VL);"
    gated = make_gated(GATED.replace("for (int64_t i = 0; i < n; i++) y[i] = x[i] * z[i] * (T)a + b;", loop))
    with pytest.raises(AssertionError, match=re.escape(message)):
        testing.check_op(gated)


def test_what_cannot_be_checked():
    gated = make_gated()
    gated.samples(lambda make: iter(()))
    with pytest.raises(AssertionError, match="gated has no samples: `@gated.samples` yields nothing"):
        testing.check_op(gated)
    for given in (lambda x: x, "no_such_op"):
        with pytest.raises(ValueError, match="is no op: decorate the function with @minigrad.op"):
            testing.check_op(given)


@pytest.mark.slow
@pytest.mark.parametrize("check", WRONG)
def test_a_wrong_kernel_is_found(check):
    """By the check whose matter it is, with the element and both values."""
    text, message = WRONG[check]
    hard_mish = make_hard_mish(text)
    with pytest.raises(AssertionError, match=re.escape(message)) as caught:
        testing.CHECKS[check](hard_mish)
    assert f"\n  again, below the op hard_mish ({__file__}:" in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("check", ["fused", "gradients"])
def test_the_line_that_shows_it_again(check, tmp_path):
    """Pasted into a fresh Python, it prints the value of the message."""
    (tmp_path / "wrong_mish.py").write_text(f'''
import minigrad as mg

@mg.op
def hard_mish(x, *, slope=0.5):
    return x * (x * slope + 1).clamp(0, 2) / 2

@hard_mish.samples
def _(make):
    yield make(4, 33)
    yield make(7, low=-8, high=8), {{"slope": 0.25}}

hard_mish.kernel("cpu", source=r"""{WRONG[check][0]}""")
''')
    here = {"PYTHONPATH": f"{tmp_path}:{':'.join(sys.path)}"}
    told = run_python("-c", f"import wrong_mish; from minigrad.testing import CHECKS; CHECKS['{check}'](wrong_mish.hard_mish)", **here).stderr
    line = re.search(r"again: (.*)", told)[1]
    assert line.startswith("from wrong_mish import hard_mish; ")
    value = re.search(r"^AssertionError: .*(?:the kernel gives|backward gives) (\S+?)[,;]", told, re.M)[1]
    printed = run_python("-c", line, **here).stdout
    assert float(re.search(r"[-\d.e]+", printed)[0]) == pytest.approx(float(value), rel=1e-6)


@pytest.mark.slow
def test_the_line_for_an_op_of_a_script(tmp_path):
    """The op of a script cannot be imported under its name: the line is for the script itself."""
    script = tmp_path / "script.py"
    text = f'''import minigrad as mg

@mg.op
def hard_mish(x, *, slope=0.5):
    return x * (x * slope + 1).clamp(0, 2) / 2

@hard_mish.samples
def _(make):
    yield make(4, 33)

hard_mish.kernel("cpu", source=r"""{WRONG["fused"][0]}""")
'''
    script.write_text(text + "from minigrad.testing import check_fused; check_fused(hard_mish)\n")
    told = run_python(str(script)).stderr
    line = re.search(rf"again, below the op hard_mish \({re.escape(str(script))}:3\): (.*)", told)[1]
    script.write_text(text + line + "\n")
    value = re.search(r"^AssertionError: .*the kernel gives (\S+),", told, re.M)[1]
    assert float(re.search(r"[-\d.e]+", run_python(str(script)).stdout)[0]) == pytest.approx(float(value), rel=1e-6)
