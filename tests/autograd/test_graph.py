"""`autograd.graph`: hooks on what ops save, edges, hooks on several gradients; and what programs that walk a graph read."""
from __future__ import annotations

import gc
import re
import threading
import weakref
from contextlib import nullcontext

import numpy as np
import pytest
from support import run_python

import minigrad as mg
import minigrad.nn.functional as F
from minigrad import autograd, nn, testing
from minigrad.autograd import graph
from minigrad.core import engine, tape
from minigrad.core.op import registry
from minigrad.utils.checkpoint import checkpoint

SAMPLED = sorted(name for name, op in registry.items() if op.sample_function is not None)


def copied(t):
    """Out of minigrad's memory."""
    return t.numpy(force=True).copy()


def in_another_order(a):
    """Back, with strides that no kernel was planned for."""
    return mg.from_numpy(np.asfortranarray(a).reshape(a.shape, order="F"))


@pytest.mark.slow
@pytest.mark.parametrize("path", ["auto", "off"])
@pytest.mark.parametrize("name", SAMPLED)
def test_gradients_of_packed_tensors_have_the_same_bits(name, path):
    op, packs = registry[name], []
    with mg.set_fused(path):
        for args, attrs in testing.samples_of(op, np.float32):
            want = testing.evaluate(op, args, attrs)
            with graph.saved_tensors_hooks(lambda t: packs.append(t.shape) or copied(t), in_another_order):
                got = testing.evaluate(op, args, attrs)
            for a, b in zip([*want[0], *want[1]], [*got[0], *got[1]], strict=True):
                np.testing.assert_array_equal(a, b, err_msg=str(attrs))


# ---- one text for both libraries -------------------------------------------------------------------------------------

@pytest.fixture(params=["minigrad", "torch"])
def lib(request):
    """Both must do what the test says."""
    return pytest.importorskip(request.param, reason="PyTorch, which does the same, is not installed")


def logging_hooks(log):
    """Hooks that note what they are given: a shape, and that something is unpacked, with the state of recording."""
    def pack(t):
        log.append(tuple(t.shape))
        return t

    def unpack(t):
        log.append("unpacked")
        return t
    return pack, unpack


def test_what_hooks_on_saved_tensors_see(lib):
    log, x = [], lib.ones(2, 3, requires_grad=True)
    modes = []
    with lib.autograd.graph.saved_tensors_hooks(lambda t: modes.append(lib.is_grad_enabled()) or t, lambda t: modes.append(lib.is_grad_enabled()) or t):
        y = x.exp()
    with lib.autograd.graph.saved_tensors_hooks(*logging_hooks(log)):
        z = (x * x * 2).exp().sum()
    assert log == [(2, 3)] * 3                                  # both operands, no number, and a result
    for _ in range(2):
        log.clear()
        z.backward(retain_graph=True)
        assert log == ["unpacked"] * 3
    assert x.grad.tolist() == [[pytest.approx(8 * float(np.exp(2.0)), rel=1e-6)] * 3] * 2
    assert y.grad_fn._saved_result is not None
    y.sum().backward()
    assert modes == [False, True, False]                        # while it is packed; when it is read; in backward
    log.clear()
    z.backward()
    with pytest.raises(RuntimeError):
        z.backward()
    assert log == ["unpacked"] * 3


def test_a_saved_parameter_is_itself(lib):
    x, seen = lib.ones(2, requires_grad=True), []
    with lib.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t is x) or t, lambda t: t):
        y = x * x
    assert seen == [True, True] and y.grad_fn._saved_self.requires_grad and y.grad_fn._saved_self.is_leaf


def test_the_innermost_hooks_count(lib):
    outer, inner, x = [], [], lib.ones(2, requires_grad=True)
    with lib.autograd.graph.saved_tensors_hooks(*logging_hooks(outer)):
        with lib.autograd.graph.saved_tensors_hooks(*logging_hooks(inner)):
            y = x * x
        z = x.exp()
    (y + z + x.exp()).sum().backward()
    assert outer == [(2,), "unpacked"] and inner == [(2,), (2,), "unpacked", "unpacked"]


def test_derivatives_of_higher_order_of_packed_tensors(lib):
    hooks = lib.autograd.graph.saved_tensors_hooks
    x = lib.tensor([1.0, 2.0], requires_grad=True)
    with hooks(lambda t: t.clone(), lambda t: t):
        y = (x ** 3 + x.exp() * (2 * x).exp()).sum()                    # leaves, results and what is computed from them
    first, = lib.autograd.grad(y, x, create_graph=True)
    with hooks(lambda t: t.detach().numpy().copy(), lib.from_numpy):
        second, = lib.autograd.grad(first.sum(), x, create_graph=True)
    third, = lib.autograd.grad(second.sum(), x)
    for got, want in ((first, lambda v: 3 * v ** 2 + 3 * np.exp(3 * v)), (second, lambda v: 6 * v + 9 * np.exp(3 * v)),
                      (third, lambda v: 6 + 27 * np.exp(3 * v))):
        np.testing.assert_allclose(got.detach().numpy(), want(np.array([1.0, 2.0])), rtol=1e-5)


def test_a_packed_copy_is_right_whatever_changes(lib):
    x = lib.tensor([1.0, 2.0], requires_grad=True)
    with lib.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
        y = x * 1
        z, e = y * y, x.exp()
    y.mul_(5)
    e.mul_(5)
    z.sum().backward()
    assert x.grad.tolist() == [2, 4]


def test_hooks_on_what_a_function_saves(lib):
    class Product(lib.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            y = x * 2
            ctx.save_for_backward(x, y, None)
            return y

        @staticmethod
        def backward(ctx, g):
            x, y, nothing = ctx.saved_tensors
            assert nothing is None
            return g * x * y
    log, x = [], lib.tensor([1.0, 3.0], requires_grad=True)
    with lib.autograd.graph.saved_tensors_hooks(*logging_hooks(log)):
        y = Product.apply(x)
    assert log == [(2,), (2,)] and y.grad_fn.name() == type(y.grad_fn).__name__ == "ProductBackward" and str(y).endswith("grad_fn=<ProductBackward>)")
    assert [None if t is None else t.tolist() for t in y.grad_fn.saved_tensors] == [[1, 3], [2, 6], None]
    y.sum().backward()
    assert x.grad.tolist() == [2, 18] and log == [(2,), (2,)] + ["unpacked"] * 4


@pytest.mark.parametrize("unpack, kind", [(lambda t: 5, TypeError), (lambda t: 1 / 0, ZeroDivisionError)])
def test_errors_of_unpacking(lib, unpack, kind):
    x = lib.ones(2, requires_grad=True)
    with lib.autograd.graph.saved_tensors_hooks(lambda t: t, unpack):
        y = (x * x).sum()
    with pytest.raises(kind):
        y.backward()
    with pytest.raises(kind):
        y.backward()


def test_errors_of_packing(lib):
    graph, x = lib.autograd.graph, lib.ones(2, requires_grad=True)

    def change(t):
        t.detach().mul_(2)
        return t
    with graph.saved_tensors_hooks(change, lambda t: t), pytest.raises(RuntimeError, match="its input in place"):
        x.exp()
    with pytest.raises(ZeroDivisionError), graph.saved_tensors_hooks(lambda t: 1 / 0, lambda t: t):
        x.exp()
    x.exp()                                                         # no hook is left
    with graph.disable_saved_tensors_hooks("not here"):
        for hooks in (graph.saved_tensors_hooks(lambda t: t, lambda t: t), graph.save_on_cpu()):
            with pytest.raises(RuntimeError, match="not here"), hooks:
                pass

    @graph.disable_saved_tensors_hooks("nor here")
    def function():
        with graph.saved_tensors_hooks(lambda t: t, lambda t: t):
            pass
    with pytest.raises(RuntimeError, match="nor here"):
        function()
    with graph.saved_tensors_hooks(lambda t: 1 / 0, lambda t: t):
        x * 2                                                       # a number is not packed


def test_edges(lib):
    graph, a, b = lib.autograd.graph, lib.ones(1, requires_grad=True), lib.tensor([2.0], requires_grad=True)
    h = a * 3
    parts = (a.expand(4) * 1).split(2)
    edge, second = graph.get_gradient_edge(h), graph.get_gradient_edge(parts[1])
    assert edge.node is h.grad_fn and (edge.output_nr, second.output_nr) == (0, 1) and second.node is parts[0].grad_fn
    leaf = graph.get_gradient_edge(a)
    assert leaf.node.variable is a and leaf.output_nr == 0 and isinstance(leaf.node, graph.Node)
    out = (h * b).sum() + (parts[1] * 7).sum() + parts[0].sum()
    del h, parts
    found = lib.autograd.grad(out, [edge, second, leaf, b], retain_graph=True)
    assert [g.tolist() for g in found] == [[2], [7, 7], [6 + 2 + 14], [3]]
    assert lib.autograd.grad(out, edge, retain_graph=True)[0].tolist() == [2]
    assert lib.autograd.grad(edge, a, retain_graph=True)[0].tolist() == [3]
    lib.autograd.backward(edge, lib.tensor([10.0]))
    assert a.grad.tolist() == [30]
    with pytest.raises(RuntimeError):
        graph.get_gradient_edge(lib.ones(1))


def test_an_edge_is_no_tensor():
    """It goes where gradients are wanted; an op refuses it, also where the op has run on such a layout."""
    h = mg.ones(2, 2, requires_grad=True) * 3
    edge = graph.get_gradient_edge(h)
    place, = engine.listed(edge)
    x, w = mg.ones(2, 2), mg.ones(2, 2)
    for run in (mg.exp, F.relu, lambda t: t + 1 if isinstance(t, mg.Tensor) else mg.add(t, 1), lambda t: mg.add(x, t), lambda t: x + t, lambda t: F.layer_norm(t, (2,)),
                lambda t: F.linear(x, t), lambda t: mg.where(x > 0, t, x), lambda t: mg.cat([x, t]), mg.sum, lambda t: w.add_(t), lambda t: w.copy_(t)):
        run(h.detach())
        for given in (place, edge):
            with pytest.raises(TypeError):
                run(given)
    total = (h * h).sum()
    assert autograd.grad(total, edge, retain_graph=True)[0].tolist() == [[6, 6]] * 2
    assert autograd.grad(graph.get_gradient_edge(total), edge, retain_graph=True)[0].tolist() == [[6, 6]] * 2       # from 1
    assert autograd.grad(edge, edge, x * 5, retain_graph=True)[0].tolist() == [[5, 5]] * 2
    other = graph.get_gradient_edge(mg.ones(3, requires_grad=True) * 1)
    assert autograd.grad(total, other, materialize_grads=True, retain_graph=True)[0].tolist() == [0, 0, 0]
    with pytest.raises(RuntimeError, match=r"input 0 was not used in computing the outputs; got float32\[3\]"):
        autograd.grad(total, other, retain_graph=True)
    with pytest.raises(RuntimeError, match="a gradient can be left out for a scalar only; got float32"):
        autograd.backward(edge)
    with pytest.raises(RuntimeError, match="the gradient must have the tensor's shape"):
        autograd.backward(edge, mg.ones(3))
    bare, leaf = graph.GradientEdge(edge.node, 0), mg.ones(2, requires_grad=True)
    assert autograd.grad(total, bare, retain_graph=True)[0].tolist() == autograd.grad(total, edge, retain_graph=True)[0].tolist()
    assert autograd.grad((leaf * 3).sum(), graph.GradientEdge((leaf * 1).grad_fn.next_functions[0][0], 0))[0].tolist() == [3, 3]
    several = mg.ones(2, requires_grad=True).unbind()
    with pytest.raises(RuntimeError, match=r"\[GradientEdge\] an output of several needs its ownership_token.*get_gradient_edge"):
        autograd.grad(several[0], graph.GradientEdge(several[0].grad_fn, 0))


def test_hooks_on_several_gradients(lib):
    register, log = lib.autograd.graph.register_multi_grad_hook, []
    a, b, c = (lib.ones(1, requires_grad=True) for _ in range(3))
    h = a * 2
    tensors = (a, b, c, h)
    every = register(tensors, lambda gs: log.append([None if g is None else g.tolist() for g in gs]))
    any_of = register(tensors, lambda g: log.append(g.tolist()), mode="any")
    (h * b).sum().backward(retain_graph=True)
    assert log == [[2], [[2], [2], None, [1]]]                  # b first; a, b, not c, h
    log.clear()
    (h * b).sum().backward(inputs=[b])
    assert log == [[None, [2], None, None], [2]]
    every.remove()
    every.remove()
    log.clear()
    (h * 1 + c).sum().backward(retain_graph=True)
    assert log == [[1]]
    any_of.remove()
    (h * 1).sum().backward()
    assert log == [[1]]
    with pytest.raises(ValueError, match="mode"):
        register(tensors, print, mode="some")
    with pytest.raises((RuntimeError, AssertionError)):
        register([lib.ones(1)], print)


# ---- ours ------------------------------------------------------------------------------------------------------------

def test_each_thing_is_packed_once():
    log, x, w = [], mg.ones(4, 3, requires_grad=True), mg.ones(3, requires_grad=True)
    with graph.saved_tensors_hooks(*logging_hooks(log)):
        F.layer_norm(x, (3,), w)
    assert log == [(4, 3), (3,), (2, 4)]                                # the inputs, and the statistics


def test_what_was_changed_before_it_was_saved():
    x = mg.tensor([1.0, 2.0], requires_grad=True)
    for f in (lambda h: h * h, mg.tanh, lambda h: F.layer_norm(h, (2,))):
        results = []
        for hooks in (None, graph.saved_tensors_hooks(copied, mg.from_numpy)):
            h = x * 1
            h.add_(1)
            with hooks or nullcontext():
                y = f(h)
            results.append(autograd.grad(y.sum(), x)[0].tolist())
        assert results[0] == results[1]


def test_strides_of_any_kind():
    x = mg.arange(6.0).requires_grad_()
    reversed_ones = mg.from_numpy(np.arange(6, dtype=np.float32)[::-1])
    for f in (lambda: reversed_ones * x, lambda: x.unfold(0, 3, 1) * x.unfold(0, 3, 1), lambda: x.expand(3, 6) @ x.expand(3, 6).T,
              lambda: x.unfold(0, 3, 1) @ mg.ones(3, 2, requires_grad=True), lambda: F.layer_norm(x.reshape(2, 3).T, (2,))):
        want, = autograd.grad(f().sum(), x)
        with graph.saved_tensors_hooks(copied, mg.from_numpy):
            y = f().sum()
        assert mg.equal(autograd.grad(y, x)[0], want)


@pytest.mark.parametrize("unpack, text", [(lambda t: t[0], r"the shape of the tensor; got float32\[2\], float32\[\]"), (lambda t: t.double(), "the dtype")])
def test_what_unpacking_returns_is_checked(unpack, text):
    x = mg.ones(2, requires_grad=True)
    for f in (lambda: x * x, x.exp, x.tanh, lambda: F.layer_norm(x, (2,))):
        with graph.saved_tensors_hooks(lambda t: t, unpack):
            y = f().sum()
        with pytest.raises(RuntimeError, match=r"\[saved_tensors_hooks\] what the unpack hook returns must have " + text):
            y.backward()


@pytest.mark.parametrize("pack, unpack", [(lambda t: t, lambda t: t), (lambda t: t.detach(), lambda t: t), (lambda t: {"on": ["cpu", t]}, lambda p: p["on"][1]),
                                          (lambda t: t, lambda t: t.clone())])
@pytest.mark.parametrize("name", ["square", "exp", "tanh", "function"])
def test_changes_in_place_are_seen_if_the_memory_was_packed(name, pack, unpack):
    class Kept(autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * ctx.saved_tensors[0]
    x = mg.ones(3, requires_grad=True)
    with graph.saved_tensors_hooks(pack, unpack):
        h = x * 1
        y = Kept.apply(h) if name == "function" else h * h if name == "square" else getattr(h, name)()
    y.sum().backward(retain_graph=True)
    (h if name in ("square", "function") else y).detach().mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_memory_goes_where_the_hooks_put_it():
    class Box:
        """What was packed."""
    boxes, model = [], nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 2))

    def pack(t):
        box = Box()
        box.values = copied(t)
        boxes.append(weakref.ref(box))
        return box
    want, got, x = [], [], mg.ones(5, 3)
    for plain in (True, False):
        h = x * mg.ones(5, 3, requires_grad=True)
        if plain:
            loss = F.cross_entropy(model(h), mg.tensor([0, 1, 0, 1, 0]))
        else:
            with graph.saved_tensors_hooks(pack, lambda box: mg.from_numpy(box.values)):
                loss = F.cross_entropy(model(h), mg.tensor([0, 1, 0, 1, 0]))
        gone = weakref.ref(h)
        del h
        assert (gone() is None) is not plain                            # the graph does not hold it: what was packed does
        loss.backward(retain_graph=True)
        loss.backward()
        (want if plain else got).extend(p.grad.tolist() for p in model.parameters())
        model.zero_grad()
    assert got == want and len(boxes) > 8
    assert [box() for box in boxes] == [None] * len(boxes)              # freed by the last backward, as tensors are
    with graph.saved_tensors_hooks(pack, lambda box: mg.from_numpy(box.values)):
        loss = model(x).sum()
    del loss
    assert boxes[-1]() is None and tape.observers == []


def test_saving_on_the_cpu():
    with graph.save_on_cpu():
        x = mg.ones(2, requires_grad=True)
        y = (x * x).sum()
    y.backward()
    assert x.grad.tolist() == [2, 2]


def test_pinned_memory_is_nothing_to_the_cpu(lib):
    with lib.autograd.graph.save_on_cpu(pin_memory=True):
        x = lib.ones(2, requires_grad=True)
        y = (x * x).sum()
    y.backward()
    assert x.grad.tolist() == [2, 2]


def test_hooks_that_are_no_functions(lib):
    for pair in ((1, 2), (lambda t: t, None)):
        block = lib.autograd.graph.saved_tensors_hooks(*pair)
        with pytest.raises(TypeError, match="hooks"):
            block.__enter__()
    assert not tape.observers


def test_hooks_are_not_disabled_where_they_are_on(lib):
    graph = lib.autograd.graph
    with graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        with pytest.raises(RuntimeError, match="^no hooks$"), graph.disable_saved_tensors_hooks("no hooks"):
            pass
    with graph.disable_saved_tensors_hooks("no hooks"), graph.disable_saved_tensors_hooks("none at all"):
        with pytest.raises(RuntimeError, match="^none at all$"), graph.saved_tensors_hooks(lambda t: t, lambda t: t):
            pass


def test_hooks_belong_to_their_thread():
    log, seen, x = [], [], mg.ones(2, requires_grad=True)
    inside, go_on = threading.Event(), threading.Event()

    def other():
        with graph.saved_tensors_hooks(*logging_hooks(seen)):
            inside.set()
            go_on.wait(5)
            x.exp()
    thread = threading.Thread(target=other)
    with graph.saved_tensors_hooks(*logging_hooks(log)):
        thread.start()
        inside.wait(5)
        x * x
    x.tanh()
    go_on.set()
    thread.join()
    assert log == [(2,), (2,)] and seen == [(2,)] and tape.observers == []


def test_a_checkpointed_block_saves_by_its_own_rules():
    log, x = [], mg.ones(2, requires_grad=True)
    with graph.saved_tensors_hooks(*logging_hooks(log)):
        y = checkpoint(lambda t: (t * t).exp(), x, use_reentrant=False)
        y.sum().backward()
    assert log == [] and x.grad.tolist() == [pytest.approx(2 * float(np.exp(1.0)), rel=1e-6)] * 2


def test_in_a_captured_step():
    results = []
    for wrap in (lambda f: f, mg.capture):
        mg.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.GELU(), nn.Dropout(0.5), nn.Linear(4, 2))
        optimiser = mg.optim.SGD(model.parameters(), lr=0.1)

        def step(x, model=model, optimiser=optimiser):
            optimiser.zero_grad()
            with graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
                loss = model(x).square().mean()
            loss.backward()
            optimiser.step()
            return loss
        run = wrap(step)
        results.append([float(run(mg.full((4, 3), 0.1 * i) + mg.arange(12).reshape(4, 3) / 7)) for i in range(4)])
    assert results[0] == results[1]


def test_half_precision():
    x = mg.randn(4, 4).half().requires_grad_()
    want = autograd.grad((F.layer_norm(x, (4,)) @ x).sum(), x)[0]
    with graph.saved_tensors_hooks(copied, mg.from_numpy):
        y = (F.layer_norm(x, (4,)) @ x).sum()
    assert mg.equal(autograd.grad(y, x)[0], want)


def test_hooks_of_several_gradients_do_not_keep_the_graph():
    a = mg.ones(2, requires_grad=True)
    h = a * 2
    graph.register_multi_grad_hook([h], lambda gs: None)
    gone = weakref.ref(h.grad_fn)
    del h
    assert gone() is None
    gc.collect()
    assert len(graph.asking) == 0


# ---- torchviz --------------------------------------------------------------------------------------------------------

def quiet(test):
    """torchviz compares versions with a class that is deprecated, and takes minigrad's for an old one of PyTorch."""
    for text in ("distutils Version classes", "make_dot. showing grad_fn attributes"):
        test = pytest.mark.filterwarnings(f"ignore:{text}")(test)
    return test


def picture(lib, monkeypatch, function, **options):
    """What torchviz draws of a loss: the edges between nodes, by their labels; and the labels."""
    torchviz = pytest.importorskip("torchviz", reason="torchviz, which draws graphs, is not installed")
    monkeypatch.setattr(torchviz.dot, "torch", lib)                 # as in a program that says `import minigrad as torch`
    monkeypatch.setattr(torchviz.dot, "Variable", lib.autograd.Variable)
    loss, named = function(lib)
    labels, edges = {}, []
    for line in torchviz.make_dot(loss, params=named, **options).body:
        edge, node = re.match(r"\t(\d+) -> (\d+)", line), re.match(r'\t(\d+) \[label="?(.*?)"?( fillcolor=\w+)?\]\n$', line, re.S)
        if edge:
            edges.append(edge.groups())
        elif node:
            labels[node[1]] = node[2] + (node[3] or "")
    return sorted((labels[a], labels[b]) for a, b in edges), sorted(labels.values())


def curve(lib):
    x, w = lib.ones(2, 3, requires_grad=True), lib.ones(3, requires_grad=True)
    h = (x * w).exp() + w
    parts = h.abs().split(1)
    return (parts[0].sqrt() * parts[1]).minimum(w).sum(), {"x": x, "w": w}


@quiet
@pytest.mark.parametrize("show_saved", [False, True])
def test_torchviz_draws_the_same_picture_as_of_torch(monkeypatch, show_saved):
    torch = pytest.importorskip("torch", reason="PyTorch, whose picture this compares with, is not installed")
    mine, theirs = (picture(lib, monkeypatch, curve, show_saved=show_saved) for lib in (mg, torch))
    assert mine == theirs and len(mine[0]) > 15


def test_a_variable_is_a_tensor():
    x = mg.ones(3)
    v = mg.autograd.Variable(x, requires_grad=True)
    assert type(v) is mg.Tensor and v.requires_grad and v.is_leaf and v.data_ptr() == x.data_ptr() and not x.requires_grad
    assert not mg.autograd.Variable(v * 2).requires_grad
    with pytest.warns(UserWarning, match="volatile has no effect"):
        mg.autograd.Variable(x, volatile=True)
    assert all(isinstance(t, mg.autograd.Variable) for t in (x, v, v * 2, nn.Parameter(x))) and not isinstance(3, mg.autograd.Variable)
    assert issubclass(mg.Tensor, mg.autograd.Variable) and not issubclass(int, mg.autograd.Variable)
    with pytest.raises(TypeError, match=r"\[Variable\] data must be a tensor; got list"):
        mg.autograd.Variable([1.0])
    with pytest.raises(TypeError, match=r"cannot be a base class"):
        type("Mine", (mg.autograd.Variable,), {})


TORCHVIZ = """
import sys, minigrad
sys.modules["torch"], sys.modules["torch.autograd"] = minigrad, minigrad.autograd
from torchviz import make_dot
net = minigrad.nn.Linear(3, 2)
print(make_dot(net(minigrad.ones(1, 3)).sum(), params=dict(net.named_parameters())).source)
"""


def test_torchviz_takes_minigrad_for_torch():
    pytest.importorskip("torchviz", reason="torchviz, which draws graphs, is not installed")
    drawn = run_python("-W", "ignore", "-c", TORCHVIZ).stdout                          # as the README says
    assert "weight" in drawn and "LinearBackward0" in drawn


@quiet
def test_torchviz_draws_a_model(monkeypatch):
    def classifier(lib):
        model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 2))
        return F.cross_entropy(model(mg.ones(5, 3)), mg.tensor([0, 1, 0, 1, 0])), dict(model.named_parameters())
    edges, labels = picture(mg, monkeypatch, classifier, show_attrs=True, show_saved=True)
    heads = [label.splitlines()[0] for label in labels if label]
    for name in ("CrossEntropyBackward0", "LinearBackward0", "ReluBackward0", "LayerNormBackward0", "AccumulateGrad", "0.weight", "3.bias"):
        assert name in heads
    assert heads.count("AccumulateGrad") == 6 and heads.count("LinearBackward0") == 2
    layer_norm = next(label for label in labels if label.startswith("LayerNorm"))
    assert "normalized_shape:" in layer_norm and re.search("result +: +\\[saved tensor\\]", layer_norm)
    assert any("result[0]" in a and b.startswith("CrossEntropy") or "result[0]" in b for a, b in edges)


def test_what_was_saved_may_be_changed_inside_a_block():
    values = np.array([[0.3, -1.0], [2.0, 0.5]])
    with graph.allow_mutation_on_saved_tensors():
        a = mg.tensor(values, requires_grad=True)
        b = a.clone()
        y = (b ** 2).sum()
        b.sin_()
        first, = autograd.grad(y, a, create_graph=True)
        second, = autograd.grad(first.sum(), a)
        c = (a * 2).exp()                           # saves its result
        c.mul_(3)
        base = a.clone()
        z = (base[0] * base[0]).sum()               # saves a view
        base.mul_(5)
    np.testing.assert_allclose(first.detach().numpy(), 2 * values)
    assert second.tolist() == [[2, 2], [2, 2]]
    np.testing.assert_allclose(autograd.grad(c.sum(), a)[0].numpy(), 6 * np.exp(2 * values))        # outside of the block, too
    np.testing.assert_allclose(autograd.grad(z, a)[0].numpy(), [2 * values[0], [0, 0]])


def test_a_change_that_was_counted_by_hand_is_seen():
    for given in (lambda t: t, lambda t: [t], lambda t: iter((t, mg.ones(1)))):
        t = mg.ones(2, requires_grad=True).clone()
        y, version = t * t, t._version
        graph.increment_version(given(t))
        assert t._version == version + 1
        with pytest.raises(RuntimeError, match="modified by an inplace"):
            y.sum().backward()
