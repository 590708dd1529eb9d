"""Hooks on gradients: order, what they may return, and when they are let go."""
from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import minigrad as mg
from minigrad import autograd, study
from minigrad.core import complete, engine
from minigrad.core.hooks import hooks, node_hooks, node_pre_hooks, post_hooks
from minigrad.core.watch import watch_backward, watchers
from minigrad.devices.native import lib as native


def leaf(*values, dtype=mg.float32):
    return mg.tensor(values or (1.0, 2.0), dtype=dtype, requires_grad=True)


@pytest.fixture(params=["minigrad", "torch"])
def lib(request):
    """Both must do what the test says."""
    return pytest.importorskip(request.param, reason="PyTorch, which does the same, is not installed")


def test_order_and_handles():
    log, x = [], leaf()
    y = x * 2
    y.retain_grad()                                             # sees what the other hooks made, whatever the order
    first = y.register_hook(lambda g: (log.append(1), g * 10)[1])
    y.register_hook(lambda g: (log.append(2), g + 1)[1])
    third = y.register_hook(lambda g: log.append(3))
    y.sum().backward(retain_graph=True)
    assert log == [1, 2, 3] and y.grad.tolist() == [11, 11] and x.grad.tolist() == [22, 22]
    first.remove()
    first.remove()
    with third:
        pass
    y.grad = x.grad = None
    y.sum().backward()
    assert log == [1, 2, 3, 2] and y.grad.tolist() == [2, 2]


def test_a_removed_hook_costs_nothing_more():
    """Walks look for hooks only while there are some; a hook may remove itself, and keep the gradient that it got."""
    x, kept = leaf(), []
    y = x * 2

    def once(g):
        kept.append(g)
        handle.remove()
    handle = x.register_hook(once)
    node_handle = y.grad_fn.register_prehook(lambda grads: node_handle.remove())
    after = y.grad_fn.register_hook(lambda *_: kept.append("after the node"))
    x.register_post_accumulate_grad_hook(lambda _: None).remove()
    y.retain_grad()
    y.sum().backward(retain_graph=True)
    assert kept[0] == "after the node" and kept[1].tolist() == [2, 2]
    assert id(y.grad_fn) not in node_pre_hooks.tables and id(x) not in post_hooks.tables and id(x) not in hooks.tables
    after.remove()
    y.sum().backward()
    assert x.grad.tolist() == [4, 4] and kept[1].tolist() == [2, 2] and len(kept) == 2 and y.grad.tolist() == [2, 2]
    assert id(y.grad_fn) in hooks.tables and id(y.grad_fn) not in node_hooks.tables
    second = x.register_hook(lambda g: g * 10)
    handle.remove()                                             # of a table that is gone
    (x * 1).sum().backward()
    second.remove()
    (x * 1).sum().backward()
    assert x.grad.tolist() == [15, 15] and id(x) not in hooks.tables
    z = leaf() * 1
    z.retain_grad()
    before = z.grad_fn
    z.add_(1)                                                   # the hook goes over to the new node
    assert id(before) not in hooks.tables and id(z.grad_fn) in hooks.tables


def test_a_gradient_that_was_kept_by_a_hook_stays():
    x, kept = leaf(), []
    handle = x.register_hook(lambda g: (kept.append(g), handle.remove())[1])
    for _ in range(2):
        (x * 2).sum().backward()
    assert x.grad.tolist() == [4, 4] and kept[0].tolist() == [2, 2] and len(kept) == 1


KEEPERS = {"tensor": lambda x, y, keep: x.register_hook(keep), "output": lambda x, y, keep: y.register_hook(keep),
           "node": lambda x, y, keep: y.grad_fn.register_hook(lambda results, given: keep(results[0])),
           "given": lambda x, y, keep: y.grad_fn.register_hook(lambda results, given: keep(given[0])),
           "before": lambda x, y, keep: y.grad_fn.register_prehook(lambda given: keep(given[0])),
           "leaf": lambda x, y, keep: y.grad_fn.next_functions[0][0].register_prehook(lambda given: keep(given[0]))}


@pytest.mark.parametrize("where", KEEPERS)
def test_a_gradient_that_was_kept_by_any_hook_stays(lib, where):
    x, kept = lib.ones(2, requires_grad=True), []
    for _ in range(2):
        y = x + lib.ones(2)                             # the gradient of the sum is that of x
        handle = KEEPERS[where](x, y, lambda g: (kept.append(g), handle.remove())[1])
        (y * 2).sum().backward()
    assert x.grad.tolist() == [4, 4] and [g.tolist() for g in kept] == [[2, 2], [2, 2]]


def test_a_gradient_that_was_kept_after_accumulation_stays():
    """In PyTorch it changes with `.grad`."""
    x, kept = leaf(), []
    (x * 1).grad_fn.next_functions[0][0].register_hook(lambda results, given: kept.append(given[0]))
    for _ in range(2):
        (x * 2).sum().backward()
    assert x.grad.tolist() == [4, 4] and [g.tolist() for g in kept] == [[2, 2], [2, 2]]


def test_a_hook_after_accumulation_sees_dot_grad_itself(lib):
    x, kept = lib.ones(2, requires_grad=True), []
    x.register_post_accumulate_grad_hook(lambda t: kept.append(t.grad))
    for _ in range(2):
        (x * 2).sum().backward()
    assert kept[0] is x.grad and x.grad.tolist() == [4, 4]


def test_watchers_of_backward():
    """They cost what they do themselves: no edges are counted, and no gradient is copied."""
    def run():
        x.grad = None
        (x * 2).sum().backward()
    x, seen = leaf(), []
    plain = study.launches(run)
    handle = watch_backward(lambda node, gradients, results: (seen.append(node.name()), results())[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "leaf_counts", None)
        assert study.launches(run) == plain and seen == ["SumBackward0", "MulBackward0"]
    after = (x * 2).grad_fn.register_hook(print)
    handle.remove()
    handle.remove()
    run()
    assert len(seen) == 2 and not watchers
    after.remove()


@pytest.mark.parametrize("where", ["leaf", "inner"])
@pytest.mark.parametrize("value, kind, text", [
    (5.0, TypeError, "must be a tensor or None; got float"), (np.ones(2), TypeError, "got ndarray"), ((mg.ones(2),), TypeError, "got tuple"),
    (mg.ones(3), RuntimeError, r"the shape of the tensor; got float32\[2\].*, float32\[3\]"), (mg.ones(1), RuntimeError, "shape"),
    (mg.ones(2, dtype=mg.float64), RuntimeError, "dtype"), (mg.ones(2, dtype=mg.int64), RuntimeError, "dtype")])
def test_what_a_hook_returns_is_checked(where, value, kind, text):
    x = leaf()
    y = x * 2
    (x if where == "leaf" else y).register_hook(lambda g: value)
    with pytest.raises(kind, match=r"\[register_hook\] .*" + text):
        y.sum().backward()
    assert mg.is_grad_enabled() and x.grad is None


@pytest.mark.parametrize("create_graph", [False, True])
def test_hooks_run_with_the_recording_of_the_backward(create_graph):
    x, seen = leaf(), []
    y = x * 2
    total = y.sum()
    for t in (x, y):
        t.register_hook(lambda g: seen.append(mg.is_grad_enabled()))
    with mg.set_grad_enabled(not create_graph):
        autograd.grad(total, x, create_graph=create_graph)
        assert mg.is_grad_enabled() is not create_graph
    assert seen == [create_graph, create_graph]


def test_an_optimiser_in_a_post_accumulate_hook():
    w, seen = leaf(), []

    def step(p):
        seen.append(mg.is_grad_enabled())
        p.sub_(0.5 * p.grad)
        p.grad = None
    w.register_hook(lambda g: g * 2)
    w.register_post_accumulate_grad_hook(step)
    (w * 2).sum().backward()
    assert w.tolist() == [-1, 0] and w.grad is None and seen == [False] and mg.is_grad_enabled()
    autograd.grad((w * 2).sum(), w)
    assert len(seen) == 1                                       # nothing was added to .grad


def test_a_post_accumulate_hook_may_return_its_leaf():
    w = leaf()
    w.register_post_accumulate_grad_hook(lambda p: p.sub_(p.grad))
    (w * 2).sum().backward()
    assert w.tolist() == [-1, 0]


@pytest.mark.parametrize("value", [5, mg.ones(2)])
def test_a_post_accumulate_hook_returns_nothing(value):
    w = leaf()
    w.register_post_accumulate_grad_hook(lambda p: value)
    with pytest.raises(RuntimeError, match="hooks should return None"):
        (w * 2).sum().backward()
    assert mg.is_grad_enabled()


def test_where_hooks_can_be_registered():
    for t in (mg.ones(2), mg.ones(2, dtype=mg.int64)):
        for register in (t.register_hook, t.register_post_accumulate_grad_hook):
            with pytest.raises(RuntimeError, match="require"):
                register(print)
        with pytest.raises(RuntimeError, match="does not require"):
            t.retain_grad()
    with pytest.raises(RuntimeError, match="leaf"):
        (leaf() * 2).register_post_accumulate_grad_hook(print)


def test_retain_grad_once_and_in_any_order():
    h = leaf(1.0) * 2
    assert not h.retains_grad
    h.retain_grad()
    h.retain_grad()
    assert h.retains_grad and not leaf().retains_grad
    h.sum().backward(retain_graph=True)
    assert h.grad.tolist() == [1]
    h.sum().backward()
    assert h.grad.tolist() == [2]                               # two backward passes add up
    h = leaf(1.0) * 2
    h.retain_grad()
    (h * 5).sum().backward(inputs=[h])
    assert h.grad.tolist() == [5]
    a = leaf(1.0)
    b = a + 1
    c = b + 1
    b.retain_grad(), c.retain_grad()
    seed = mg.ones(1)
    c.backward(seed)
    c.grad.mul_(7)
    assert b.grad.tolist() == a.grad.tolist() == seed.tolist() == [1]        # each has its own memory


def test_hooks_of_a_node():
    x, log = leaf(), []
    y = x * 3

    def after(inputs, outputs):
        log.append((inputs[0].tolist(), outputs[0].tolist()))
        return (inputs[0] + 1, *inputs[1:])
    y.grad_fn.register_prehook(lambda grads: (grads[0] * 10,))
    removed = y.grad_fn.register_prehook(lambda grads: 1 / 0)
    y.grad_fn.register_prehook(lambda grads: None)
    y.grad_fn.register_hook(after)
    y.register_hook(lambda g: g * 2)                            # hooks of the tensor come first
    removed.remove()
    y.sum().backward()
    assert log == [([60, 60], [20, 20])] and x.grad.tolist() == [61, 61]
    x.grad = None
    parts = x.split(1)
    parts[0].grad_fn.register_prehook(lambda grads: tuple(None if g is None else g * 2 for g in grads))
    (parts[0] + parts[1]).sum().backward()
    assert x.grad.tolist() == [2, 2]
    y = x * 3
    y.grad_fn.register_prehook(lambda grads: (grads[0], grads[0]))
    with pytest.raises(RuntimeError, match=r"\[register_prehook\] a hook must return as many gradients as it got; got 2 for 1"):
        y.sum().backward()


@pytest.mark.parametrize("value", [lambda g: g, lambda g: [g]])
@pytest.mark.parametrize("register", ["register_hook", "register_prehook"])
def test_a_hook_of_a_node_returns_a_tuple(lib, register, value):
    x = lib.ones(2, requires_grad=True)
    y = x * x
    for node in (y.grad_fn, y.grad_fn.next_functions[0][0]):
        with getattr(node, register)(lambda *gs: value(gs[-1][0])), pytest.raises(TypeError, match="tuple"):
            (y if node is y.grad_fn else x * 2).sum().backward(retain_graph=True)


@pytest.mark.parametrize("register", [lambda x, y, hook: x.register_hook(hook), lambda x, y, hook: y.register_hook(hook),
                                      lambda x, y, hook: x.register_post_accumulate_grad_hook(hook), lambda x, y, hook: y.grad_fn.register_hook(hook)])
def test_a_hook_that_names_its_own_tensor_is_let_go(register):
    x = leaf()
    y = x * 2
    register(x, y, lambda *_, x=x, y=y: None)
    y.sum().backward()
    alive = weakref.ref(y)
    del x, y
    gc.collect()
    assert alive() is None


# ---- leaves: as soon as their gradient is complete -------------------------------------------------------------------

def test_hooks_of_leaves_run_as_soon_as_the_gradient_is_complete(lib):
    log, a, b = [], lib.ones(2, requires_grad=True), lib.ones(2, requires_grad=True)
    h = a * 2
    c = h * b
    h.register_hook(lambda g: log.append("h"))
    c.register_hook(lambda g: log.append("c"))
    a.register_hook(lambda g: log.append("a"))
    a.register_post_accumulate_grad_hook(lambda t: log.append(f"a has {t.grad.tolist()}"))
    b.register_hook(lambda g: log.append(f"b, while a has {a.grad}"))
    b.register_post_accumulate_grad_hook(lambda t: log.append("b has its gradient"))
    node = h.grad_fn.next_functions[0][0]
    node.register_prehook(lambda given: log.append(f"node of a, before: {given[0].tolist()}"))
    node.register_hook(lambda results, given: log.append(f"node of a, after: {results} of {given[0].tolist()}"))
    c.sum().backward()
    assert log == ["c", "b, while a has None", "b has its gradient", "h", "a", "node of a, before: [2.0, 2.0]", "a has [2.0, 2.0]",
                   "node of a, after: () of [2.0, 2.0]"]
    log.clear()
    assert [g.tolist() for g in lib.autograd.grad((a * 2 * b).sum(), [a, b])] == [[2, 2], [2, 2]]
    assert log == ["b, while a has tensor([2., 2.])", "a"]                  # nothing is added to .grad
    log.clear()
    (a * 2 * b).sum().backward(inputs=[a])
    assert log == ["a", "node of a, before: [2.0, 2.0]", "a has [4.0, 4.0]", "node of a, after: () of [2.0, 2.0]"]


def test_a_prehook_of_a_leafs_node_replaces_what_is_added(lib):
    a = lib.ones(2, requires_grad=True)
    y = a * 2
    y.grad_fn.next_functions[0][0].register_prehook(lambda given: (given[0] * 10,))
    y.sum().backward()
    assert a.grad.tolist() == [20, 20]


def test_a_leaf_waits_for_all_its_uses(lib):
    log, a, b = [], lib.ones(2, requires_grad=True), lib.ones(2, requires_grad=True)
    a.register_post_accumulate_grad_hook(lambda t: log.append(t.grad.tolist()))
    h = b * 3
    h.register_hook(lambda g: log.append("h"))
    parts = (a * 1).split(1)
    (a * a + h + (a * h).exp() + parts[0] + parts[1]).sum().backward()
    at = float(np.exp(np.float32(3)))
    np.testing.assert_allclose(log[0], [4 + 3 * at] * 2, rtol=1e-6)          # 2 a + h exp(a h) + 2: each part is added to two
    assert log[1] == "h" and len(log) == 2
    (a + a).sum().backward()
    assert len(log) == 3


def test_a_leaf_that_gets_no_gradient_from_some_use(lib):
    class Nothing(lib.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return None
    log, a, b = [], lib.ones(1, requires_grad=True), lib.ones(1, requires_grad=True)
    a.register_post_accumulate_grad_hook(lambda t: log.append(t.grad.tolist()))
    (Nothing.apply(a) * Nothing.apply(b) + a * 5 + Nothing.apply(b * 2)).sum().backward()
    assert log == [[5]] and b.grad is None


def test_a_gradient_is_not_shared_with_one_that_is_still_to_come(lib):
    a, b = lib.ones(2, requires_grad=True), lib.ones(2, requires_grad=True)
    b.register_post_accumulate_grad_hook(lambda t: setattr(t, "grad", t.grad.zero_()))
    total = (a * 2).exp()
    ((total + b) * 1).backward(lib.ones(2))     # the gradient of the sum is that of b, and then that of exp
    np.testing.assert_allclose(a.grad.tolist(), [2 * float(np.exp(2.0))] * 2, rtol=1e-6)
    assert b.grad.tolist() == [0, 0]
    seed = lib.ones(2)
    (b * 1 + b).backward(seed)
    assert seed.tolist() == [1, 1]


def test_create_graph_with_hooks_of_leaves(lib):
    a, seen = lib.ones(2, requires_grad=True), []
    a.register_hook(lambda g: seen.append(g.requires_grad))
    a.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.requires_grad))
    g, = lib.autograd.grad((a ** 3).sum(), a, create_graph=True)
    (g * g).sum().backward()
    assert a.grad.tolist() == [36, 36] and seen == [True, False, False]


def test_an_optimiser_in_backward_frees_each_gradient_before_the_next():
    """In PyTorch's tutorial about it, the memory of all gradients but one is saved."""
    gc.collect()
    layers, n = 8, 256
    weights = [mg.randn(n, n, requires_grad=True) for _ in range(layers)]
    alive, most, used = [], [], []

    def step(w):
        most.append(sum(r() is not None for r in alive))
        alive.append(weakref.ref(w.grad))
        w.sub_(w.grad * 1e-3)
        w.grad = None
        used.append(native.mg_pools_held() - native.mg_pools_unused())

    def run():
        h = mg.ones(1, n)
        for w in weights:
            h = h @ w
        h.sum().backward()
    handles = [w.register_post_accumulate_grad_hook(step) for w in weights]
    run()
    assert most == [0] * layers                             # no earlier gradient lives
    assert max(used) - min(used) < 2 * n * n * 4            # nor its memory: with all of them it would be 7 times n * n * 4
    for handle in handles:
        handle.remove()
    before = native.mg_pools_held() - native.mg_pools_unused()
    run()
    assert native.mg_pools_held() - native.mg_pools_unused() - before >= layers * n * n * 4


def test_a_gradient_is_not_copied_for_a_hook():
    a, b = leaf(), leaf()
    plain = study.launches(lambda: (a * b).exp().sum().backward())
    a.grad = b.grad = None
    a.register_post_accumulate_grad_hook(lambda t: None)
    assert study.launches(lambda: (a * b).exp().sum().backward()) == plain


def test_edges_are_counted_only_for_hooks_of_leaves(monkeypatch):
    def refuse(*_):
        raise AssertionError("counted")
    gc.collect()
    monkeypatch.setattr(complete.LeafCounts, "__init__", refuse)
    a = leaf()
    (a * 2).sum().backward()
    h = a * 2
    h.retain_grad()
    h.grad_fn.register_hook(lambda *_: None)
    h.sum().backward()
    handle = a.register_hook(lambda g: None)
    with pytest.raises(AssertionError, match="counted"):
        (a * 2).sum().backward()
    handle.remove()
    (a * 2).sum().backward()


def test_a_hook_of_a_leaf_may_raise_or_run_backward():
    a, b = leaf(), leaf()
    handle = a.register_hook(lambda g: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        (a * b).sum().backward()
    assert complete.running() is None and mg.is_grad_enabled()
    handle.remove()

    def again(g):
        with mg.enable_grad():
            (b * 10).sum().backward()
    a.register_hook(again)
    a.grad = b.grad = None
    (a * b).sum().backward()
    assert b.grad.tolist() == [11, 12] and a.grad.tolist() == [1, 2] and complete.running() is None


def test_a_captured_step_with_an_optimiser_in_backward():
    results = []
    for wrap in (lambda f: f, mg.capture):
        mg.manual_seed(0)
        w, v = mg.randn(4, 4, requires_grad=True), mg.randn(4, 4, requires_grad=True)

        def update(p):
            p.sub_(0.1 * p.grad)
            p.grad = None
        for p in (w, v):
            p.register_post_accumulate_grad_hook(update)
        step = wrap(lambda x, w=w, v=v: ((x @ w).tanh() @ v).square().mean().backward())
        for i in range(4):
            step(mg.full((2, 4), float(i + 1)))
        results.append((w.tolist(), v.tolist()))
    assert results[0] == results[1]
