"""The record that every study reads, and what is said of one op."""
from __future__ import annotations

import gc
import os
import sys
import threading
import weakref

import pytest
from support import run_python

import minigrad as mg
import minigrad.utils.checkpoint
from minigrad import nn, study
from minigrad.core.hooks import node_hooks
from minigrad.core.op import Op
from minigrad.core.tape import observers
from minigrad.core.warning import PACKAGE
from minigrad.devices import launch_hooked
from minigrad.ops.norm import layer_norm
from minigrad.study.record import Record


def test_explain_names_path_reason_and_launches():
    x, w = mg.ones(4, 8), mg.ones(8)
    assert study.explain(layer_norm, x, w, w, normalized_shape=(8,)).splitlines() == [
        "layer_norm(float32[4, 8], float32[8], float32[8]): fused kernel on cpu", "  launches layer_norm_forward_f32"]
    with mg.set_fused("off"):
        assert "switched off" in study.explain(layer_norm, x, w, w, normalized_shape=(8,))
    assert "one dtype" in study.explain(layer_norm, x, w.double(), w, normalized_shape=(8,))
    assert "add_f32" in study.explain(mg.add, x, x) and "kernel" in study.explain(mg.add, x, x)
    assert "nothing: a view" in study.explain(mg.reshape, x, (8, 4))


def test_require_refuses_the_slow_path():
    with mg.set_fused("require"):
        layer_norm(mg.ones(2, 3), None, None, normalized_shape=(3,))
        try:
            layer_norm(mg.ones(2, 3), mg.ones(3).double(), None, normalized_shape=(3,))
        except RuntimeError as error:
            assert "required" in str(error) and "float64" in str(error)
        else:
            raise AssertionError("a definition ran although kernels are required")


def test_launches_in_order():
    x = mg.ones(3, requires_grad=True)
    assert study.launches(lambda: (x * x).sum().backward()) == ["mul_f32", "sum_f32", "copy_i32", "mul_f32", "mul_f32", "add_f32"]


# ---- the record ----

def _model_and_loss():
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))
    x, y = mg.randn(5, 6), mg.tensor([0, 1, 2, 0, 1])
    return model, lambda: nn.functional.cross_entropy(model(x), y)


def test_a_record_has_each_launch_and_each_backward():
    model, loss = _model_and_loss()
    with Record() as record:
        value = loss()
        value.backward()
    assert [b.op for b in record.backwards] == ["cross_entropy", "linear", "relu", "layer_norm", "linear"]
    forward = [x for x in record.launches if x.direction == "forward" and x.place.modules]
    assert [x.op for x in forward] == ["linear", "layer_norm", "relu", "linear"]
    assert [x.place.path() for x in forward] == [f"model.{i}" for i in range(4)]
    norm = forward[1]
    assert norm.sizes["rows"] == 5 and norm.sizes["n"] == 8 and norm.kernel == "layer_norm_forward_f32"
    assert {b.depth for b in record.backwards} == {0}
    step = record.backwards[3]
    assert [x.kernel for x in step.launches] == ["layer_norm_backward_f32"] and [g.shape for g in step.results] == [(5, 8), (8,), (8,)]
    assert mg.core.tape.observers == []


def test_a_record_changes_no_bit_and_keeps_no_tensor():
    model, loss = _model_and_loss()
    loss().backward()
    plain = [p.grad.numpy().copy() for p in model.parameters()]
    model.zero_grad()
    with Record() as record:
        loss().backward()
    assert all((a == p.grad.numpy()).all() for a, p in zip(plain, model.parameters(), strict=True))
    assert "copy" not in {x.op for b in record.backwards for x in b.launches}


def test_a_record_sees_the_launches_of_a_replay():
    model, loss = _model_and_loss()
    step = mg.capture(lambda: mg.autograd.grad(loss(), list(model.parameters())))
    first = [g.numpy().copy() for g in step()]
    with Record() as record:
        again = step()
    assert all((a == g.numpy()).all() for a, g in zip(first, again, strict=True))
    assert [x.kernel for x in record.launches if "layer_norm" in x.kernel] == ["layer_norm_forward_f32", "layer_norm_backward_f32"]
    assert [x.kernel for x in record.launches if not x.replayed] == ["check_index"]        # values are checked in Python


def test_a_watcher_is_gone_after_the_record():
    _, loss = _model_and_loss()
    with Record() as record:
        pass
    loss().backward()
    assert not record.launches and not record.backwards and not node_hooks.tables


def test_launches_know_module_path_and_line():
    model, loss = _model_and_loss()
    with Record() as record:
        loss().backward()
    shown = [(x.op, x.direction, x.module) for x in record.launches if x.module]
    names = ["linear", "layer_norm", "relu", "linear"]
    assert shown[:4] == [(op, "forward", f"model.{i}") for i, op in enumerate(names)]
    assert [x[:2] for x in shown[4:] if x[2] == "model.1"] == [("layer_norm", "backward")]
    assert {x.module for x in record.launches if x.op == "linear"} == {"model.0", "model.3"}
    assert all(x.line.startswith("test_record.py:") for x in record.launches if x.module)
    norm = [x for x in record.launches if x.op == "layer_norm"]
    assert [x.why for x in norm] == ["fused kernel on cpu", "fused kernel"] and norm[0].held > 0
    with mg.set_fused("off"), Record() as record:
        loss().backward()
    norm = [x for x in record.launches if x.op == "layer_norm"]
    assert len(norm) > 5 and {x.why for x in norm} == {"definition: fused kernels are switched off"}
    assert len({x.call for x in norm}) == 1                         # one call of the op


def test_what_adds_gradients_up_is_backward():
    x = mg.ones(3, requires_grad=True)
    with Record() as record:
        y = x * x
        y.backward(mg.ones(3))
    assert [(b.op, b.direction) for b in record.launches if b.op in ("mul", "add")] == [
        ("mul", "forward"), ("mul", "backward"), ("mul", "backward"), ("add", "backward")]


def test_calls_are_told_apart():
    x = mg.randn(3, 4, requires_grad=True)
    with mg.set_fused("off"), Record() as record:
        for _ in range(3):
            layer_norm(x, None, None, normalized_shape=(4,))
            x + x
    assert len({x.call for x in record.launches if x.op == "layer_norm"}) == 3
    assert len({x.call for x in record.launches if x.op == "add"}) == 3


def test_a_replay_is_described_as_it_was_recorded():
    model, loss = _model_and_loss()
    step = mg.capture(lambda: mg.autograd.grad(loss(), list(model.parameters())))
    with Record() as first:
        step()
    with Record() as second:
        step()
        step()
    facts = [(x.kernel, x.op, x.direction, x.module, x.operands, x.nbytes, x.flops, x.why) for x in first.launches if x.kernel != "check_index"]
    again = [(x.kernel, x.op, x.direction, x.module, x.operands, x.nbytes, x.flops, x.why) for x in second.launches if x.replayed]
    assert again == 2 * facts and ("gemm_f32", "linear", "backward", "model.3") in {x[:4] for x in again}
    assert [x.start for x in second.launches] == sorted(x.start for x in second.launches)
    replayed = [x for x in second.launches if x.replayed]
    assert len({x.call for x in replayed}) == 2 * len({x.call for x in first.launches if x.kernel != "check_index"})
    assert all(x.node is None and x.place is None for x in replayed)
    unknown = mg.capture(lambda: mg.autograd.grad(loss(), list(model.parameters())))
    unknown()
    with Record() as third:
        unknown()
    assert {(x.op, x.direction, x.module) for x in third.launches if x.kernel == "gemm_f32"} == {("gemm", "", "")}
    assert [x.kernel for x in third.launches] == [x.kernel for x in second.launches][:len(third.launches)]
    assert [x.flops for x in third.launches] == [x.flops for x in second.launches][:len(third.launches)]


def test_a_record_inside_a_captured_function():
    records = []

    def step(x):
        y = x * 2
        with Record() as record:
            z = y + 1
        records.append(record)
        return z.exp()
    captured, x = mg.capture(step), mg.ones(3)
    first = captured(x).numpy().copy()
    with Record() as outside:
        assert (captured(x).numpy() == first).all()
    assert [x.op for x in records[0].launches] == ["add"]
    assert [(x.op, x.direction) for x in outside.launches if x.replayed] == [("mul", ""), ("add", "forward"), ("exp", "")]


def test_two_replays_of_one_op_are_two_calls():
    x = mg.ones(3)
    step = mg.capture(lambda: x * 2)
    with Record() as record:
        for _ in range(3):
            step()
    assert len({x.call for x in record.launches}) == 3


def test_nested_records_are_freed():
    def run():
        with Record() as outer, Record() as inner:
            mg.ones(3) + mg.ones(3)
        return weakref.ref(outer), weakref.ref(inner)
    assert [ref() for ref in run()] == [None, None]


def test_numpy_launches_of_a_replay_are_seen():
    x = mg.arange(6).to(mg.int32)
    step = mg.capture(lambda x: x << 1)
    step(x)
    with Record() as record:
        assert step(x).tolist() == [0, 2, 4, 6, 8, 10]
    assert [x.kernel for x in record.launches if x.kernel.startswith("NumPy")] == ["NumPy left_shift"]


def test_records_nest_and_stop():
    x = mg.ones(3)
    with Record() as outer:
        x + x
        with Record() as inner:
            x * x
        x - x
    assert [x.op for x in inner.launches] == ["mul"] and [x.op for x in outer.launches] == ["add", "mul", "sub"]
    with Record() as record, pytest.raises(ZeroDivisionError):
        with Record():
            x + x
            raise ZeroDivisionError
    assert off() and len(record.launches) == 1


def off():
    return not node_hooks.tables and not observers and not launch_hooked() and not study.record._active


@pytest.mark.parametrize("where", [Record.__enter__, Record.__exit__, Record._off])
@pytest.mark.parametrize("at", range(10))
def test_ctrl_c_at_any_line_leaves_it_off(where, at):
    """At any but the first of `__exit__`, as with every context manager."""
    left = at + (where is Record.__exit__)

    def trace(frame, event, _):
        nonlocal left
        if frame.f_code is where.__code__ and event == "line":
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace
    sys.settrace(trace)
    try:
        with Record():
            pass
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    assert off()


def test_only_its_own_thread():
    x, model = mg.ones(3), nn.Linear(3, 2)

    def work():
        for _ in range(20):
            model(mg.ones(4, 3)).sum().backward()
    with Record() as record:
        threads = [threading.Thread(target=work) for _ in range(2)]
        for t in threads:
            t.start()
        for _ in range(20):
            x.atan()
        for t in threads:
            t.join()
        loader = mg.data.DataLoader(mg.data.TensorDataset(mg.ones(8, 3)), batch_size=4, num_workers=1)
        assert len([batch for batch, in loader]) == 2
    assert [x.op for x in record.launches if x.op in ("atan", "linear")] == ["atan"] * 20 and not record.backwards


def test_with_everything_else_that_watches():
    model, loss = _model_and_loss()
    calls = []
    model[1].register_forward_hook(lambda *_: calls.append(1))
    model[0].weight.register_hook(lambda g: g * 2)
    with mg.autograd.detect_anomaly(), Record() as record:
        loss().backward()
    assert calls == [1] and [x.op for x in record.launches if x.op == "mul"] == ["mul"]
    with mg.no_grad(), Record() as record:
        loss()
    assert [x.module for x in record.launches if x.module] == [f"model.{i}" for i in range(4)] and not record.backwards
    with Record() as record:
        g = mg.autograd.grad(loss(), model[1].weight, create_graph=True)[0]
        mg.autograd.grad(g.sum(), model[0].weight)
    inner = [b for b in record.backwards if b.depth]                 # of the definitions
    names = {b.op for b in record.backwards if isinstance(mg.core.op.registry.get(b.op.removesuffix("_backward")), Op)}
    assert {x.why for b in record.backwards if b.op == "layer_norm_backward" for x in b.launches} == {"definition"}
    assert len(inner) > 10 and {x.op for b in inner for x in b.launches} <= names
    assert off()


def test_what_a_checkpoint_computes_again_is_forward():
    model, _ = _model_and_loss()
    with Record() as record:
        mg.utils.checkpoint.checkpoint(model, mg.randn(5, 6, requires_grad=True), use_reentrant=False).sum().backward()
    shown = [(x.op, x.direction) for x in record.launches if x.module == "Sequential.1"]
    assert shown == [("layer_norm", "forward"), ("layer_norm", "forward"), ("layer_norm", "backward")]
    assert {x.kernel for x in record.launches if x.op == "checkpoint"} == {"copy_i64"}         # the state of the generator


def test_a_place_keeps_no_module_alive():
    class Caching(nn.Module):
        def forward(self, x):
            self.last = x * x
            return self.last
    model = Caching()
    with Record() as record:
        model(mg.ones(3, requires_grad=True))
    alive = weakref.ref(model)
    assert record.launches[-1].module == "model"
    del model
    assert alive() is None and record.launches[-1].called_at.modules == []


# ---- what it leaves alone ----

def test_what_locals_gave_is_left_alone():
    def run(look):
        model, size = nn.Linear(3, 2), 3
        config = locals()
        look(model, mg.ones(1, size, requires_grad=True))
        return {name: value for name, value in config.items() if name in ("model", "size")}
    with mg.autograd.detect_anomaly():
        assert set(run(lambda model, x: model(x))) == {"model", "size"}
    with study.trace():
        assert set(run(lambda model, x: model(x))) == {"model", "size"}
    assert set(run(lambda model, x: study.graph(model(x).sum()))) == {"model", "size"}


def test_what_nobody_got_from_locals_keeps_no_tensor():
    def run():
        model, x = nn.Linear(3, 2), mg.ones(1, 3, requires_grad=True)
        gone = weakref.ref(x)
        with study.trace():
            model(x)
        del x
        return gone()
    assert run() is None


def test_a_record_keeps_no_leaf_no_saved_tensor_and_no_model_alive(no_gc):
    def run(**options):
        model, x = nn.Linear(3, 2), mg.ones(4, 3, requires_grad=True)
        with study.trace() as trace, mg.set_fused("off"):
            h = model(x)
            loss = (h.exp() * h).sum()
            loss.backward(**options)
        return trace, [weakref.ref(t) for t in (model, model.weight, x, h, loss)], weakref.ref(loss.node)
    for options in ({}, {"retain_graph": True}):
        trace, alive, node = run(**options)
        assert [ref() for ref in alive] == [None] * 5 and node() is None
        assert [b.op for b in trace.backwards][0] == "sum" and trace.backwards[0].node is None
        assert {x.module for x in trace.launches if x.op == "linear"} == {"model"}
        assert all(x.node is None for x in trace.launches) and "linear" in str(trace)


@pytest.fixture
def no_gc():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_record_is_used_once():
    record = Record()
    with record, pytest.raises(RuntimeError, match="used once"), record:
        pass
    assert off()
    with pytest.raises(RuntimeError, match="used once"), record:
        pass
    assert off() and not record.launches


def test_a_program_whose_name_begins_with_that_of_the_package_is_the_users():
    script = f"{PACKAGE.rstrip(os.sep)}_train.py"
    run = {"mg": mg}
    exec(compile("def run(x): return x + x", script, "exec"), run)
    with Record() as record:
        run["run"](mg.ones(3))
    assert record.launches[-1].line == "minigrad_train.py:1"


# ---- which path ran ----

def test_explain_and_the_record_say_the_same():
    x, i = mg.ones(3, 4), mg.arange(3).to(mg.int32)
    told = {mg.add: (x, 2), mg.mul: (x, x), mg.sum: (x, 0), mg.softmax: (x, 0), mg.matmul: (x, mg.ones(4, 2)), mg.where: (x > 0, x, x),
            mg.bitwise_left_shift: (i, 1), mg.cat: ([x, x],), nn.functional.gelu: (x,)}
    for op, args in told.items():
        for _ in range(2):                                          # the second call knows its plan
            with Record() as record:
                op(*args)
            assert {w.why for w in record.launches} == {study.explain(op, *args).splitlines()[0].rpartition("): ")[2]}
    assert "): kernel add_f32" in study.explain(mg.add, x, x) and "): fused kernel on cpu" in study.explain(mg.softmax, x, 0)
    assert "no bitwise_left_shift kernel for int32: NumPy" in study.explain(mg.bitwise_left_shift, i, 1)
    assert study.explain(mg.cat, [x, x]).startswith("cat([float32[3, 4], float32[3, 4]]): ")
    assert "a function of other ops; exp: kernel exp_f32, add: kernel add_f32" in study.explain(lambda x: x.exp() + 1, x)


def test_the_graph_says_what_the_record_saw():
    w, i = mg.ones(3, requires_grad=True), mg.tensor([2, 0])
    g = study.graph(lambda: (w * 2 + w[i].sort()[0].sum()).sum())
    seen = {n.op: (n.path, n.why) for n in g.nodes.values() if n.kind == "op"}
    assert seen["mul"] == ("kernel", "kernel mul_f32") and seen["sum"] == ("kernel", "kernel sum_f32")
    assert not any(why == "primitive" for _, why in seen.values()), seen


def test_launches_belong_to_the_node_of_their_call():
    w, x = mg.ones(3, requires_grad=True), mg.ones(3)

    def one():
        return w * 2

    def several():
        for on in (False, False, True):
            with mg.set_grad_enabled(on):
                y = one()
        return (x.exp() * y).sum()
    g = study.graph(several)
    assert {n.op: n.launches for n in g.nodes.values() if n.launches} == {"sum": ["sum_f32"], "mul": ["mul_f32"]}

    class Twice(mg.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.exp() + x.sin()

        @staticmethod
        def backward(ctx, g):
            return g
    g = study.graph(lambda: Twice.apply(w * 3).sum())
    assert [n.launches for n in g.nodes.values() if n.kind == "op"] == [["mul_f32"], ["exp_f32", "sin_f32", "add_f32"], ["sum_f32"]]
    g = study.graph(lambda: mg.utils.checkpoint.checkpoint(lambda t: t.exp().sin(), w * 3, use_reentrant=False).sum())
    assert [n.launches for n in g.nodes.values() if n.op == "checkpoint"] == [["exp_f32", "sin_f32"]]
    inner = []

    def block(t):
        inner.append((x.exp() * t).sin())
        return inner[0]
    with Record():
        mg.utils.checkpoint.checkpoint(block, w * 3, use_reentrant=False)
    nodes = [inner[0].grad_fn, inner[0].grad_fn.next_functions[0][0]]
    assert [[x.kernel for x in study.record.origins[node].launches] for node in nodes] == [["sin_f32"], ["mul_f32"]]


def test_launches_without_a_node_are_forgotten():
    x = mg.ones(3)
    with Record() as record, mg.no_grad():
        for _ in range(50):
            x + x
    assert len(record._unclaimed) <= 1 and len(record.launches) == 50


def test_a_name_does_not_outlive_its_tensor():
    w = mg.ones(3, requires_grad=True)
    with Record():
        secret = mg.randn(3)
        y = (w * secret).sum()
        y.backward()
        number, alive = id(secret), weakref.ref(secret)
        del secret
    assert alive() is None
    held = []
    for _ in range(50):
        data = [mg.randn(3)]
        held.append(data)
        if id(data[0]) == number:
            break
    else:
        pytest.skip("no new tensor got the same id")
    assert "secret" not in str(study.graph(y + (w * data[0]).sum()))


NOTEBOOK = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("import minigrad as mg; from minigrad import study; w = mg.ones(3, requires_grad=True)", store_history=True)
shell.run_cell("def loss():\\n    return (w * 2).sum()", store_history=True)
shell.run_cell("print({r.line for r in study.saved(loss).rows}); print(study.graph(loss))", store_history=True)
shell.run_cell("with mg.autograd.detect_anomaly():\\n    (w - 1).log().sum()", store_history=True)
"""


@pytest.mark.slow
def test_a_line_of_a_notebook_is_told_by_its_cell():
    pytest.importorskip("IPython", reason="IPython is not installed")
    ran = run_python("-W", "ignore", "-c", NOTEBOOK)
    assert "{'In [2]:2'}" in ran.stdout and "keeps" in ran.stdout and "ipython-input" not in ran.stdout.partition("Traceback")[0]
    assert "In [4]:2 in <module>: (w - 1).log().sum()" in ran.stdout + ran.stderr
