"""What is recorded, where, and the hooks on it."""
from __future__ import annotations

import gc
import re
import weakref
from pathlib import Path

import pytest
from support import tensors_in_cycles

import minigrad as mg
import minigrad.nn.functional as F
from minigrad.core import tape
from minigrad.core.op import registry


def leaf(*values):
    return mg.tensor(values, dtype=mg.float64, requires_grad=True)


def test_hooks():
    x = leaf(1.0, 2.0)
    y = x * 2
    seen = []
    handle = y.register_hook(lambda g: seen.append(g.tolist()))
    x.register_hook(lambda g: g * 10)
    y.sum().backward(retain_graph=True)
    assert seen == [[1, 1]] and x.grad.tolist() == [20, 20]
    handle.remove()
    y.sum().backward()
    assert len(seen) == 1 and x.grad.tolist() == [40, 40]


def test_leaf_hook_sees_the_sum():
    x = leaf(1.0)
    seen = []
    x.register_hook(lambda g: seen.append(g.item()))
    (x + x * 2).sum().backward()
    assert seen == [3]


def test_post_accumulate_hook():
    x = leaf(1.0)
    seen = []
    x.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.item()))
    (x * 4).sum().backward()
    assert seen == [4]
    with pytest.raises(RuntimeError, match="leaf"):
        (x * 2).register_post_accumulate_grad_hook(print)


def test_retain_grad():
    x = leaf(1.0, 2.0)
    y = x * 2
    y.retain_grad()
    (y * y).sum().backward()
    assert y.grad.tolist() == [4, 8] and x.grad.tolist() == [8, 16]


def test_recording_modes():
    x = leaf(1.0)
    with mg.no_grad():
        assert not (x * 2).requires_grad and not mg.is_grad_enabled()
        with mg.enable_grad():
            assert (x * 2).requires_grad
    with mg.inference_mode():
        assert not (x * 2).requires_grad
    with mg.set_grad_enabled(False):
        assert not (x * 2).requires_grad

    @mg.no_grad()
    def plain(x):
        return x * 2

    @mg.no_grad
    def bare(x):
        return x * 2
    assert not plain(x).requires_grad and not bare(x).requires_grad and (x * 2).requires_grad
    with pytest.raises(ValueError):
        with mg.no_grad():
            raise ValueError
    assert mg.is_grad_enabled()


def test_leaf_rules():
    x = leaf(1.0)
    assert x.is_leaf and x.grad_fn is None and not (x * 2).is_leaf
    with pytest.raises(RuntimeError, match="floating-point"):
        mg.ones(2, dtype=mg.int64, requires_grad=True)
    with pytest.raises(RuntimeError, match="detach"):
        (x * 2).requires_grad_(False)
    assert not (x * 2).detach().requires_grad
    with pytest.raises(RuntimeError, match="detach"):
        (x * 2).numpy()


@pytest.fixture(params=["minigrad", "torch"])
def lib(request):
    """Both must do what the test says."""
    return pytest.importorskip(request.param, reason="PyTorch, which does the same, is not installed")


def test_grad_fn_walk(lib):
    x, y = lib.tensor([1.0], requires_grad=True), lib.tensor([2.0], requires_grad=True)
    z = x * y + 1
    (first, _), (none, _) = z.grad_fn.next_functions
    assert z.grad_fn.name() == "AddBackward0" and first.name() == "MulBackward0" and none is None
    assert type(first).__name__ == "MulBackward0" and "AddBackward0" in repr(z.grad_fn) and str(z).endswith("grad_fn=<AddBackward0>)")
    assert first is z.grad_fn.next_functions[0][0] and z.grad_fn is z.grad_fn
    assert [node.variable is t for (node, _), t in zip(first.next_functions, (x, y), strict=True)] == [True, True]
    assert first._saved_self is x and first._saved_other is y
    parts = x.expand(4).split(2)
    assert [t.grad_fn.name() for t in parts] == ["SplitBackward0"] * 2 and parts[0].grad_fn is parts[1].grad_fn
    assert parts[1].output_nr == 1 and (parts[1] * 1).grad_fn.next_functions[0] == (parts[1].grad_fn, 1)
    for z in (2 * x + 1, 1 + x * 2):                            # programs follow the first input of each node back to the leaf
        node = z.grad_fn
        while node.next_functions:
            node = node.next_functions[0][0]
        assert node.variable is x


def test_the_node_of_a_leaf(lib):
    x = lib.tensor([1.0], requires_grad=True)
    y, z = x * x, x.exp()
    node = y.grad_fn.next_functions[0][0]
    assert type(node).__name__ == "AccumulateGrad" and node.name().endswith("AccumulateGrad") and node.variable is x and node.next_functions == ()
    assert node is y.grad_fn.next_functions[1][0] and node is z.grad_fn.next_functions[0][0]       # a walker keeps them in a set
    assert isinstance(node, lib.autograd.graph.Node) and isinstance(y.grad_fn, lib.autograd.graph.Node)
    node.metadata["note"] = 1
    y.grad_fn.metadata["note"] = 2
    assert node.metadata == {"note": 1} and y.grad_fn.metadata == {"note": 2} and z.grad_fn.metadata == {}
    with pytest.raises(AttributeError):
        _ = node.saved_tensors


def test_names_of_nodes_that_are_no_derivatives(lib):
    x = lib.ones(2, requires_grad=True)
    y = x * 1
    leaf_node = y.grad_fn.next_functions[0][0]
    y[0] = 5.0
    for node, name in ((leaf_node, "AccumulateGrad"), (y.grad_fn, "CopySlices")):
        assert node.name() == f"torch::autograd::{name}" and type(node).__name__ == name
        assert repr(node) == f"<{name} object at {id(node):#x}>"
    assert str(y).endswith("grad_fn=<CopySlices>)")


def test_a_node_runs_its_backward(lib):
    x, y, log = lib.tensor([1.0, 2.0], requires_grad=True), lib.tensor([3.0, 4.0]), []
    z = x * y
    z.grad_fn.register_prehook(log.append)
    z.grad_fn.register_hook(lambda *_: log.append("after"))
    found, nothing = z.grad_fn(lib.tensor([1.0, 10.0]))
    assert found.tolist() == [3, 40] and nothing is None and not log
    assert [g.tolist() for g in (x * x).grad_fn(lib.ones(2))] == [[1, 2], [1, 2]]           # not summed
    first, _ = x.split(1)
    assert first.grad_fn(lib.ones(1), lib.zeros(1)).tolist() == [1, 0]                      # one gradient is not in a tuple
    for wrong in ((), (lib.ones(2), lib.ones(2)), (3,)):
        with pytest.raises(TypeError):
            z.grad_fn(*wrong)
    with lib.autograd.graph.saved_tensors_hooks(lambda t: t.tolist(), lib.tensor):
        w = x * x
    assert w.grad_fn(lib.ones(2))[0].tolist() == [1, 2]
    w.sum().backward()
    with pytest.raises(RuntimeError, match="second time|freed by an earlier backward"):
        w.grad_fn(lib.ones(2))


def test_numbers_of_nodes_grow(lib):
    x = lib.ones(2, requires_grad=True)
    y = x * 2
    z = y * 2
    assert 0 <= y.grad_fn._sequence_nr() < z.grad_fn._sequence_nr() < y.grad_fn.next_functions[0][0]._sequence_nr() == 2**64 - 1


def test_a_function_that_walks_as_programs_do(lib):
    """A set of nodes, without knowing which are leaves."""
    model = lib.nn.Sequential(lib.nn.Linear(3, 4), lib.nn.Tanh(), lib.nn.Linear(4, 2))
    loss = model(lib.ones(5, 3)).pow(2).mean()
    seen, stack, leaves = set(), [loss.grad_fn], []
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        stack += [n for n, _ in node.next_functions]
    assert {id(t) for t in leaves} == {id(p) for p in model.parameters()} and len(leaves) == 4


def test_the_node_of_a_leaf_lives_as_long_as_somebody_has_it():
    x = leaf(1.0)
    y = x * 2
    node = y.grad_fn.next_functions[0][0]
    gone, gone_leaf = weakref.ref(node), weakref.ref(x)
    del node
    assert gone() is None
    del x, y
    assert gone_leaf() is None


def test_names_of_nodes_are_those_that_users_call():
    x = mg.ones(2, 3, requires_grad=True)
    shown = {F.cross_entropy(x, mg.tensor([0, 1])): "CrossEntropyBackward0", F.layer_norm(x, (3,)): "LayerNormBackward0",
             x.softmax(1): "SoftmaxBackward0", x.relu(): "ReluBackward0", F.mse_loss(x, mg.ones(2, 3)): "MseLossBackward0",
             F.scaled_dot_product_attention(x[None], x[None], x[None]): "ScaledDotProductAttentionBackward0",
             F.binary_cross_entropy_with_logits(x, mg.ones(2, 3)): "BinaryCrossEntropyWithLogitsBackward0",
             F.gelu(x): "GeluBackward0", F.gelu(x, approximate="tanh"): "GeluBackward0", x[0]: "IndexBackward0", x[:, 1:]: "IndexBackward0",
             x.var(): "VarBackward0", F.dropout(x, 0.5): "DropoutBackward0", x.clone(): "CloneBackward0", x.clamp(0, 1): "ClampBackward0",
             x.prod(): "ProdBackward0", x.norm(): "NormBackward0", x ** 3: "PowBackward0", x.double(): "ToBackward0",
             F.pad(x, (1, 1)): "PadBackward0", x.cumprod(0): "CumprodBackward0"}
    assert {t.grad_fn.name() for t in shown} == set(shown.values())
    assert [repr(t.grad_fn) for t in shown] == [f"<{name} object at {id(t.grad_fn):#x}>" for t, name in shown.items()]
    assert not [name for name in registry if name.startswith("_")]
    g, = mg.autograd.grad(F.layer_norm(x, (3,)).square().sum(), x, create_graph=True)
    names, stack = set(), [g.grad_fn]
    while stack:
        node = stack.pop()
        names.add(node.name())
        stack += [n for n, _ in node.next_functions if n is not None]
    assert "LayerNormBackwardBackward0" in names
    assert mg.autograd.grad(F.rms_norm(x, (3,)).sum(), x, create_graph=True)[0].grad_fn.name() == "RmsNormBackwardBackward0"
    with mg.set_fused("auto"):
        z = x * x
    assert type(z.node) is tape.Node            # recording made no class
    assert type(z.grad_fn).__name__ == "MulBackward0" and type(z.node) is not tape.Node


def test_nodes_are_told_by_isinstance():
    """A node gets the class of its op when somebody looks at it, so `type(x) is Node` does not hold for all nodes."""
    for path in Path(mg.__file__).parent.rglob("*.py"):
        assert not re.search(r"type\([^()]*\) (is|==|is not|in) \(?Node\b", path.read_text()), path


def test_what_nodes_keep_is_shown(lib):
    x = lib.tensor([1.0, 2.0], requires_grad=True)
    y = x.exp()
    assert y.grad_fn._saved_result.tolist() == y.tolist() and y.grad_fn._saved_result.requires_grad
    assert "_saved_result" in dir(y.grad_fn) and not hasattr(y.grad_fn, "_saved_other")
    z = x.cumsum(0)
    assert z.grad_fn._saved_dim == 0
    y.sum().backward()
    with pytest.raises(RuntimeError, match="second time|freed by an earlier backward"):
        _ = y.grad_fn._saved_result
    calls = []
    with lib.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: calls.append(1) or t):
        y = x.softmax(0)
    u = (x * 1).sum(0)
    assert y.grad_fn._saved_dim == 0 and tuple(u.grad_fn._saved_dim) == (0,) and not calls      # no tensors: nothing is unpacked
    (y * u).sum().backward()
    assert y.grad_fn._saved_dim == 0 and not hasattr(y.grad_fn, "_saved_axis")


def test_what_kernels_keep_is_shown():
    x, w = mg.ones(2, 3, requires_grad=True), mg.ones(3, requires_grad=True)
    node = F.layer_norm(x, (3,), w).grad_fn
    assert node._saved_self is x and node._saved_weight is w and node._saved_bias is None and node._saved_eps == 1e-5
    assert node._saved_result.shape == (2, 2) and node._saved_normalized_shape == (3,)         # mean and 1/std
    assert F.linear(x, mg.ones(2, 3)).grad_fn._saved_result is None
    node = F.cross_entropy(x, mg.tensor([0, 1])).grad_fn
    assert isinstance(node._saved_result, tuple) and hash(node._saved_result)


def test_grad_mode_belongs_to_the_thread():
    import threading
    started, done = threading.Event(), threading.Event()

    def other():
        with mg.no_grad():
            started.set()
            done.wait(5)
    thread = threading.Thread(target=other)
    thread.start()
    started.wait(5)
    assert mg.is_grad_enabled() and (leaf(1.0) * 2).requires_grad
    done.set()
    thread.join()
    assert mg.is_grad_enabled()


def test_the_search_for_cycles_sees_one():
    """What each test file is looked through for at its end, in conftest.py."""
    gc.collect()
    x = leaf(1.0)
    y = x * 2
    y.grad = y + 1                      # no cycle: a node refers to nodes and leaves
    loose, box = leaf(2.0), []
    box += [box, loose]                 # hangs off a cycle of others
    del x, y, loose, box
    found = tensors_in_cycles()
    assert found == [], found
    x = leaf(1.0)
    x._grad = x
    del x
    assert len(tensors_in_cycles()) == 1
    gc.collect()
