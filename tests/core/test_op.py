"""The op machinery: what is refused when an op is defined, keys of plans, where nodes are made."""
from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigrad as mg
import minigrad.nn.functional as F
from minigrad import study, testing
from minigrad.core import modes, tape
from minigrad.core import op as machinery
from minigrad.core.op import Op, Primitive, registry
from minigrad.devices.plan import Plan, view_plan

pytestmark = pytest.mark.usefixtures("own_registry")
ROOT = Path(mg.__file__).parent


def test_a_vjp_may_ask_only_for_what_there_is():
    def prepare(x, y, *, dim):
        return view_plan(x, 0)
    with pytest.raises(TypeError, match=r"\[two\] the VJP of x asks for 'x_shpe'; it may ask for dim, g, out, x, x_shape, y"):
        Primitive("two", prepare, {"x": lambda g, x_shpe: g})
    with pytest.raises(TypeError, match=r"\[two\] there is a VJP of 'z'; the inputs are x, y"):
        Primitive("two", prepare, {"z": lambda g: g})
    with pytest.raises(TypeError, match="asks for 'y_shape'"):          # where y is not in the graph, nothing has its shape
        Primitive("two", prepare, {"x": lambda g, y_shape: g})
    Primitive("two", prepare, {"x": lambda g, out, x, x_shape, y, dim: g})


def test_the_order_of_keywords_makes_no_second_plan():
    @mg.op
    def scaled(x, *, a=1.0, b=2.0):
        return x * a + b
    x = mg.ones(3)
    for attrs in ({"a": 3.0, "b": 2.0}, {"b": 2.0, "a": 3.0}, {"a": 3.0}):
        assert scaled(x, **attrs).tolist() == [5.0, 5.0, 5.0]
    assert len(scaled.plans) == 1 and scaled.plan([x], {"b": 2.0, "a": 3.0}) is scaled.plan([x], {"a": 3.0})

    def prepare(x, *, a, b=2):
        return Plan(lambda array: array, x, f"{a} {b}")
    moved = Primitive("moved", prepare, {})
    first = moved.plan([x.layout], {"a": 1, "b": 2})
    assert moved.plan([x.layout], {"b": 2, "a": 1}) is first and moved.plan([x.layout], {"a": 1}) is first
    assert moved.plan([x.layout], {"a": 2}) is not first and len(moved.plans) == 2


def test_an_op_may_have_the_name_of_another():
    """By that name, the `mish` of the tree is found, not a user's; the switch reaches both."""
    of_tree = machinery.registry["mish"]

    @mg.op
    def mish(x):
        return x + 1
    x = mg.ones(3)
    assert machinery.registry["mish"] is of_tree is not mish and mish(x).tolist() == [2.0] * 3
    assert "mish_f32" in study.launches(mg.mish, x)
    with mg.set_fused("off"):
        assert "mish_f32" not in study.launches(mg.mish, x)
    assert study.launches(mg.mish, x) == ["mish_f32"]


def test_unknown_and_missing_attributes_are_refused_also_where_a_plan_is_known():
    @mg.op
    def shifted(x, *, by, scale=1.0):
        return x * scale + by
    x = mg.ones(2)
    shifted(x, by=1.0)
    for attrs, text in (({}, "the attribute by is missing"), ({"by": 1.0, "scal": 1.0}, "unexpected keyword argument 'scal'"),
                        ({"scale": 1.0}, "the attribute by is missing"), ({"by": 1.0, "scale": 1.0, "more": 2}, "'more'")):
        for _ in range(2):
            with pytest.raises(TypeError, match=text):
                shifted(x, **attrs)


def test_every_node_is_seen_by_an_observer():
    x = mg.ones(2, 2, requires_grad=True)
    w = mg.ones(2, 2, requires_grad=True)
    calls = {"add": lambda: x + w, "mul": lambda: x * 2.0, "neg": lambda: -x, "relu": lambda: x.relu(), "leaky": lambda: mg.leaky_relu(x, 0.1),
             "view": lambda: x.reshape(4), "cat": lambda: mg.cat([x, w]), "split": lambda: x.split(1)[0], "matmul": lambda: x @ w,
             "sum": lambda: x.sum(), "where": lambda: mg.where(x > 0, x, w), "index": lambda: x[0],
             "layer_norm": lambda: mg.layer_norm(x, (2,)), "take": lambda: x[mg.tensor([0, 1])]}
    for name, call in calls.items():
        for _ in range(3):                      # the first call of a signature goes another way than the later ones
            seen = []
            tape.observers.append(seen.append)
            try:
                result = call()
            finally:
                tape.observers.pop()
            assert result.grad_fn in seen, name


def test_nodes_are_made_in_one_place():
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Node":
                raise AssertionError(f"{path.relative_to(ROOT)}:{node.lineno} makes a node; call core.tape.recorded")


def test_no_function_hides_the_module_that_holds_it():
    for room in ("core", "devices"):
        for path in (ROOT / room).glob("*.py"):
            package = getattr(__import__(f"minigrad.{room}", fromlist=[path.stem]), path.stem, None)
            assert path.stem == "__init__" or type(package).__name__ == "module", f"{room}.{path.stem} is {package!r}"


def test_recording_is_off_in_one_thread_only():
    import threading
    x = mg.ones(2, requires_grad=True)
    inside, outside = [], []
    entered, done = threading.Event(), threading.Event()

    def other():
        with mg.no_grad():
            entered.set()
            done.wait(5)
            inside.append((x * 2).requires_grad)
        outside.append((x * 2).requires_grad)
    thread = threading.Thread(target=other)
    thread.start()
    entered.wait(5)
    assert (x * 2).requires_grad and (x + x).requires_grad and x.sum().requires_grad      # this thread goes on recording
    done.set()
    thread.join()
    assert inside == [False] and outside == [True] and not modes.paused


def _slopes(op, args, attrs):
    """The slopes of an op's first derivatives, where these depend on anything; else None."""
    own, leaves = testing._leaves(args)
    outputs = [o for o in testing._outputs(testing.called(op)(*own, **attrs)) if o.requires_grad]
    if not outputs or not leaves:
        return []
    first = mg.autograd.grad(sum([o.sum() for o in outputs]), leaves, create_graph=True, allow_unused=True)
    return [None if g is None or not g.requires_grad else
            mg.autograd.grad(g.sum(), leaves, retain_graph=True, allow_unused=True) for g in first]


def test_short_definitions_have_the_slopes_of_the_node_that_derives_them(monkeypatch):
    """But for zeros that a sum or a product does not depend on: PyTorch gives None for these, too."""
    short = [op for op in registry.values() if isinstance(op, Op) and (op.short or op.vjp)]
    assert {"linear", "tanh", "relu", "mse_loss", "softmax", "convolution", "convolution_transpose"} <= {op.name for op in short}
    for op in short:
        for args, attrs in testing.samples_of(op, np.float64):
            found = _slopes(op, args, attrs)
            monkeypatch.setattr(op, "short", False)
            monkeypatch.setattr(op, "vjp", None)
            for a, b in zip(found, _slopes(op, args, attrs), strict=True):
                for x, y in zip(a or [None] * len(b or ()), b or (), strict=True):
                    assert x is None and (y is None or not y.any()) or np.allclose(x, y, 1e-9, 1e-12, equal_nan=True), op.name
            monkeypatch.undo()


@pytest.mark.parametrize("of", ["linear", "tanh", "sigmoid", "relu"])
def test_a_gradient_to_be_differentiated_repeats_no_forward(of, monkeypatch):
    op: Any = registry[of]
    inputs = [mg.randn(*shape, dtype=mg.float64, requires_grad=True) for shape in ((3, 4), (2, 4), (2,))[:len(op.inputs)]]
    expected = _slopes(op, inputs, {})

    def again(*_, **__):
        raise AssertionError(f"{of} ran again")
    monkeypatch.setattr(op, "definition", again)
    found = _slopes(op, inputs, {})
    assert found and all(np.array_equal(x, y) for a, b in zip(found, expected, strict=True) for x, y in zip(a or (), b or (), strict=True) if x is not None)


@pytest.mark.parametrize("of", ["linear", "tanh", "sigmoid", "convolution", "convolution_transpose"])
def test_gradients_that_kernels_record_have_right_derivatives_of_the_third_order(of):
    op: Any = registry[of]
    args, attrs = next(s for s in testing.samples_of(op, np.float64) if all(a is None or a.ndim > 0 for a in s[0]))
    leaves = [mg.tensor(np.asarray(a), requires_grad=True) for a in args if a is not None]

    def slopes(*given: mg.Tensor) -> Any:
        filled = iter(given)
        y = op(*[None if a is None else next(filled) for a in args], **attrs)
        return mg.autograd.grad((y * mg.linspace(0.5, 1.5, y.numel(), dtype=mg.float64).view(y.shape) * y).sum(), given, create_graph=True)
    assert mg.autograd.gradcheck(slopes, leaves, fast_mode=True) and mg.autograd.gradgradcheck(slopes, leaves, fast_mode=True)


def test_a_recorded_slope_keeps_what_it_was_made_of():
    x = mg.randn(3, requires_grad=True)
    for f in (F.tanh, F.sigmoid):
        slope, = mg.autograd.grad(f(x * 2).sum(), x, create_graph=True)
        with mg.no_grad():
            slope.grad_fn.next_functions[0][0].saved[0].add_(1.0)
        with pytest.raises(RuntimeError, match="modified by an inplace"):
            mg.autograd.grad(slope.square().sum(), x)


def test_a_third_derivative_reaches_no_hook_of_the_output():
    """The slope is a function of x: what a hook makes of the output's gradient is no part of it, in no order."""
    for f in (F.tanh, F.sigmoid):
        x = mg.tensor([0.3, 0.7], dtype=mg.float64, requires_grad=True)
        y = f(x)
        slope, = mg.autograd.grad(y.sum(), x, create_graph=True)
        second, = mg.autograd.grad(slope.sum(), x, create_graph=True)
        assert mg.autograd.grad(second.sum(), y, create_graph=True, allow_unused=True) == (None,)
        expected, = mg.autograd.grad(second.sum(), x, create_graph=True)
        y.register_hook(lambda g: g * 3)
        assert np.array_equal(mg.autograd.grad(second.sum(), x)[0].numpy(), expected.detach().numpy())


@pytest.mark.parametrize("convolve", [F.conv2d, F.conv_transpose2d])
def test_the_gradient_of_a_convolution_with_fixed_weights_has_a_derivative(convolve):
    """It is 0, as in PyTorch."""
    x = mg.randn(1, 1, 3, 3, requires_grad=True)
    slope, = mg.autograd.grad(convolve(x, mg.ones(1, 1, 2, 2)).sum(), x, create_graph=True)
    slope.square().sum().backward()
    assert x.grad is not None and not x.grad.numpy().any()


def test_a_second_derivative_of_lines_is_zero():
    x = mg.tensor([[1.0, -2.0]], requires_grad=True)
    for f in (F.relu, F.leaky_relu, F.relu6, F.hardtanh, F.hardsigmoid):
        slope, = mg.autograd.grad(f(x).sum(), x, create_graph=True)
        assert mg.autograd.grad(slope.sum(), x)[0].tolist() == [[0, 0]], f.__name__
