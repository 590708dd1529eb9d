"""`study.graph`: what it knows of a graph, its text, and the places of its picture."""
from __future__ import annotations

import gc
import inspect
import re
import time
import weakref
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, study
from minigrad.study.drawing import Picture
from minigrad.study.layered import Box, arrange
from minigrad.study.structure import Group
from minigrad.utils.checkpoint import checkpoint

F = nn.functional


def _mlp() -> tuple[Any, Any]:
    mg.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))
    x, y = mg.randn(5, 6), mg.tensor([0, 1, 2, 0, 1])
    return model, lambda: F.cross_entropy(model(x), y)


def _ops(g: study.Graph) -> list[str]:
    return [n.op for n in g.nodes.values() if n.kind == "op"]


def _node(g: study.Graph, op: str) -> Any:
    return next(n for n in g.nodes.values() if n.op == op)


def _titles(g: study.Graph) -> list[str]:
    return [f"{x.path} {x.note}".strip() for x in g.root.groups()][1:]


# ---- what is known ----

def test_text_of_a_model():
    _, loss = _mlp()
    rows = [line.split("  ") for line in str(study.graph(loss)).splitlines()]
    shown = ["  ".join(filter(None, (cell.strip() for cell in row))) for row in rows]
    line = f"test_graph.py:{inspect.getsourcelines(_mlp)[1] + 4}"
    end = shown.index("backward")
    assert shown[:end] == [
        "graph: 5 nodes, 6 leaves; keeps 784 B for backward", "", "forward", "model (Sequential)",
        "0 (Linear)", f"#7 linear(x, weight, bias)  -> float32[5, 8]  fused kernel on cpu  keeps x 120 B  {line}",
        "1 (LayerNorm)", f"#8 layer_norm(x=#7, weight, bias)  -> float32[5, 8]  fused kernel on cpu  keeps x 160 B, kernel 40 B  {line}",
        "2 (ReLU)", f"#9 relu(input=#8)  -> float32[5, 8]  fused kernel on cpu  keeps input 160 B, output 160 B  {line}",
        "3 (Linear)", f"#10 linear(x=#9, weight, bias)  -> float32[5, 3]  fused kernel on cpu  keeps x 160 B  {line}",
        f"#12 cross_entropy(x=#10, target=y)  -> float32[]  fused kernel on cpu  keeps x 60 B, target 40 B, kernel 4 B, kernel 40 B  {line}",
        ""]
    assert [row.split("  ")[0].split()[0] for row in shown[end + 1:]] == ["#12", "#10", "#9", "#8", "#7"]      # the order of the walk
    assert shown[-1].endswith("float32[5, 8]  -> model.0.weight.grad, model.0.bias.grad")


def test_a_record_is_remembered_after_its_block_and_without_one_the_text_says_what_to_do():
    model, loss = _mlp()
    g = study.graph(loss())
    assert "study.Record()" in g.notes[0] and not _node(g, "linear").lines
    assert _titles(g) == ["model", "model.0", "model.1", "model.3"]             # from the parameters: ReLU has none
    with study.Record():
        value = loss()
    g = study.graph(value)
    assert g.notes == [] and _titles(g) == ["model Sequential", "model.0 Linear", "model.1 LayerNorm", "model.2 ReLU", "model.3 Linear"]
    assert _node(g, "layer_norm").launches == ["layer_norm_forward_f32"] and _node(g, "layer_norm").module == "model.1"
    value.backward()
    g = study.graph(value)
    assert "freed what 5 nodes had saved" in g.notes[0] and all(n.freed for n in g.nodes.values() if n.kind == "op")
    assert "freed" in str(g) and not any(n.saved for n in g.nodes.values())


def test_each_call_of_a_module_is_a_group():
    cell = nn.RNNCell(3, 4)
    x = mg.randn(3, 2, 3)

    def run() -> Any:
        h = mg.zeros(2, 4)
        for t in range(3):
            h = cell(x[t], h)
        return cell(x[0], cell(x[1], h)).sum()
    g = study.graph(run)
    assert _titles(g) == [f"cell RNNCell, call {i} of 5" for i in range(1, 6)]
    assert all(n.uses == 5 for n in g.nodes.values() if n.kind == "leaf" and n.label.startswith("cell.weight"))
    assert "cell.weight_ih.grad is a sum of 5" in str(g)


def test_a_sum_is_one_of_gradients_of_the_same_output():
    w = mg.ones(3, 4, requires_grad=True)
    a, b, c = w.unbind(0)
    assert "a sum of" not in str(study.graph((a * b * c).sum()))
    assert str(study.graph((a * b * a).sum())).count("a sum of 2") == 1


def test_a_record_keeps_no_model_alive():
    model, loss = _mlp()
    with study.Record():
        value = loss()
    gradients = mg.autograd.grad(value, list(model.parameters()), create_graph=True)
    model[0].weight.grad = gradients[0]             # the model now holds nodes that the record knows
    alive = weakref.ref(model)
    assert "model.1.weight" in {n.label for n in study.graph(value).nodes.values()}
    del model, loss, value, gradients
    gc.collect()
    assert alive() is None


def test_ids_of_nodes_and_leaves():
    w = mg.ones(3, requires_grad=True)
    y = w * w
    g = study.graph(y.sum())
    assert g.id_of(y.grad_fn) == _node(g, "mul").id and g.nodes[g.id_of(w)].label == "w" and g.id_of(object()) is None
    assert g.nodes[g.id_of(w)].uses == 2 and g.outputs == [(_node(g, "sum").id, 0)]


def test_an_id_does_not_outlive_its_node():
    y = (mg.ones(3, requires_grad=True) * 2).sum()
    g = study.graph(y)
    ids = set(g.ids)
    assert g.id_of(y.grad_fn) is not None
    del y
    others = [mg.ones(3, requires_grad=True) * 3 for _ in range(50)]
    assert not any(g.id_of(e) for t in others for e in (t.grad_fn, *t.grad_fn.inputs)) and ids


def test_dot_is_the_same_each_time():
    _, loss = _mlp()
    assert study.graph(loss).dot() == study.graph(loss).dot()


def test_paths_and_reasons():
    class Cube(mg.autograd.Function):
        """x ** 3"""

        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x ** 3

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return 3 * ctx.saved_tensors[0] ** 2 * g
    w = mg.randn(4, 4, requires_grad=True)

    def run() -> Any:
        a, b = w.t().chunk(2)
        c = checkpoint(lambda t: t.tanh(), a, use_reentrant=False)
        d = (Cube.apply(b) + c).relu()
        e = d.half().softmax(-1).float()
        e[0] *= 2
        return e.sum()
    g = study.graph(run)
    paths = {n.op: (n.path, n.why) for n in g.nodes.values() if n.kind == "op"}
    assert paths["permute"] == paths["split"] == ("view", "a view: nothing is computed")
    assert paths["Cube"][0] == "function" and paths["checkpoint"][0] == "checkpoint" and paths["slices"][0] == "in place"
    assert paths["relu"] == ("fused", "fused kernel on cpu") and paths["add"] == ("kernel", "kernel add_f32")
    assert paths["cast"][0] == "NumPy" and "no cast kernel" in paths["cast"][1]
    assert _node(g, "split").outputs[1].shape == (2, 4) and len(_node(g, "split").outputs) == 2
    assert [x.output for x in _node(g, "Cube").inputs] == [1] and g.ops["Cube"].formula == "x ** 3"
    assert "softmax float16 is computed in float32" in _titles(g)
    with mg.set_fused("off"):
        g = study.graph(lambda: F.layer_norm(w, (4,)).sum())
    assert _titles(g) == ["layer_norm fused kernels are switched off"] and "rsqrt" in _ops(g)


def test_gradients_that_are_recorded():
    x = mg.randn(3, 8, requires_grad=True)
    y = F.layer_norm(x, (8,)).sum()
    gradient, = mg.autograd.grad(y, x, create_graph=True)
    g = study.graph(gradient.square().sum())
    node = _node(g, "layer_norm_backward")
    assert node.path == "gradient" and "layer_norm" in node.why and "\n@op(" in g.ops["layer_norm_backward"].definition
    assert [i.name for i in node.inputs] == ["x", "gradient"]


def test_what_is_saved_counts_each_memory_once():
    w = mg.randn(4, 4, requires_grad=True)

    def run() -> Any:
        a = w.exp()                         # keeps its output
        b = a * a                           # keeps it as its input
        return (b * mg.ones(4, 4)).sum()
    first = inspect.getsourcelines(run)[1]
    g = study.graph(run)
    exp, square = [n for n in g.nodes.values() if n.op in ("exp", "mul")][:2]
    assert [(s.name, s.kind, s.nbytes, s.line) for s in exp.saved] == [("output", "output", 64, f"test_graph.py:{first + 1}")]
    assert [(s.name, s.source, s.memory, s.line) for s in square.saved] == [("input", exp.id, exp.saved[0].memory, f"test_graph.py:{first + 1}")]
    assert "keeps 128 B for backward" in str(g)             # and the ones


def test_what_hooks_have_packed_is_not_unpacked():
    w = mg.randn(4, requires_grad=True)
    with mg.autograd.graph.saved_tensors_hooks(lambda t: t.numpy().copy(), lambda _: pytest.fail("unpacked")):
        y = F.layer_norm((w * 2).exp(), (4,)).sum()
    g = study.graph(y, open="all")
    assert "packed by saved_tensors_hooks" in g.notes[-1] and _ops(g) == ["mul", "exp", "layer_norm", "sum"]
    assert _node(g, "layer_norm").why == "fused kernel on cpu" and not _node(g, "exp").saved


# ---- definitions ----

def test_a_composite_opens_to_its_definition():
    model, loss = _mlp()
    g = study.graph(loss, open="layer_norm")
    assert "layer_norm" not in _ops(g) and _ops(g).count("linear") == 2 and _ops(g).count("mean") == 2
    group = next(x for x in g.root.groups() if x.kind == "opened")
    inside = [g.nodes[i] for i in group.ids()]
    assert group.type == "opened to its definition; fused kernel on cpu ran"
    assert {n.label for n in inside if n.kind == "leaf"} == {"model.1.weight", "model.1.bias"}
    assert all(n.module == "model.1" and n.lines for n in inside if n.kind == "op")
    relu = _node(g, "relu")
    assert relu.inputs[0].source == inside[-1].id and inside[-1].op == "add"
    everything = study.graph(loss, open="all")
    assert not {"linear", "layer_norm", "relu", "cross_entropy"} & set(_ops(everything)) and "matmul" in _ops(everything)
    loss().backward()
    plain = [p.grad.numpy().copy() for p in model.parameters()]
    model.zero_grad()
    value = loss()
    study.graph(value, open="all")
    value.backward()                                        # looking has changed nothing
    assert all((a == p.grad.numpy()).all() for a, p in zip(plain, model.parameters(), strict=True))


def test_true_opens_every_composite():
    y = F.layer_norm(mg.randn(2, 3, requires_grad=True), (3,))
    assert str(study.graph(y, open=True)) == str(study.graph(y, open="all")) != str(study.graph(y, open=False)) == str(study.graph(y))


def test_a_checkpointed_block_opens():
    w = mg.randn(4, requires_grad=True)
    g = study.graph(lambda: checkpoint(lambda t: (t * t).tanh(), w, use_reentrant=False).sum(), open=["checkpoint"])
    assert _ops(g) == ["mul", "tanh", "sum"] and _titles(g) == ["checkpoint computed again in backward"]


def test_what_it_refuses():
    with pytest.raises(RuntimeError, match="requires a gradient"):
        study.graph(mg.ones(3))
    with pytest.raises(TypeError, match="a tensor takes none"):
        study.graph(mg.ones(3, requires_grad=True), 3)
    y = mg.ones(3, requires_grad=True) * 2
    for most in (0, -3):
        with pytest.raises(ValueError, match=rf"\[graph\] most must be at least 1; got {most}"):
            study.graph(y, most=most)
    with pytest.raises(ValueError, match=r"\[graph\] open takes names of composites.*; got 'layernorm'; did you mean 'layer_norm'\?"):
        study.graph(y, open="layernorm")
    with pytest.raises(ValueError, match="got 'xyz'; this graph has layer_norm$"):
        study.graph(F.layer_norm(y, (3,)), open=["layer_norm", "xyz"])
    with pytest.raises(ValueError, match=r"\.svg.*\.png"):
        study.graph(mg.ones(3, requires_grad=True)).save("graph.png")


# ---- the picture ----

def _layout(g: study.Graph, backward: bool = False) -> tuple[Picture, Any]:
    picture = Picture(g, backward)
    edges = [(x.source, x.output, n.id) for n in g.nodes.values() for x in n.inputs if x.source is not None]
    edges = [(t, 0, s) for s, _, t in edges] if backward else edges
    return picture, arrange(g.root, edges, picture.size, picture.drawn, reverse=backward)


def _apart(a: Box, b: Box) -> bool:
    return a.x + a.w <= b.x + 0.1 or b.x + b.w <= a.x + 0.1 or a.y + a.h <= b.y + 0.1 or b.y + b.h <= a.y + 0.1


def _within(a: Box, b: Box) -> bool:
    return a.x >= b.x - 0.1 and a.y >= b.y - 0.1 and a.x + a.w <= b.x + b.w + 0.1 and a.y + a.h <= b.y + b.h + 0.1


def _transformer(layers: int) -> tuple[Any, Any]:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), layers)
    return encoder, lambda: encoder(mg.randn(2, 5, 16)).square().mean()


def _recurrent() -> Any:
    cell = nn.LSTMCell(4, 8, norm="layer")
    h = c = mg.zeros(2, 8)
    with mg.set_fused("off"):
        for _ in range(3):
            h, c = cell(mg.randn(2, 4), (h, c))
    return h.sum()


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize(("make", "opened"), [(lambda: _mlp()[1](), "all"), (lambda: _transformer(2)[1](), ["layer_norm", "scaled_dot_product_attention"]), (_recurrent, ())],
                         ids=["mlp", "transformer", "lstm"])
def test_boxes_and_groups_do_not_overlap_and_edges_run_between_them(make: Any, opened: Any, backward: bool):
    picture, layout = _layout(study.graph(make, open=opened), backward)
    places = {id(group): box for group, box in layout.groups} | {id(picture.structure.root): Box(0, 0, layout.width, layout.height)}
    boxes = 0
    for group in picture.structure.root.groups():
        inside = [places.get(id(c)) if isinstance(c, Group) else layout.boxes.get(c) for c in group.children]
        inside = [b for b in inside if b is not None]
        boxes += len(inside)
        assert all(_within(b, places[id(group)]) for b in inside)
        assert all(_apart(a, b) for i, a in enumerate(inside) for b in inside[:i])
    assert boxes == len(layout.boxes) + len(layout.groups) > 20
    for route in layout.routes:
        a, b = layout.boxes[route.source], layout.boxes[route.target]
        assert route.points[0][1] == pytest.approx(a.y + a.h) and route.points[-1][1] == pytest.approx(b.y)
        for (x0, y0), (x1, y1) in zip(route.points, route.points[1:], strict=False):
            assert y1 >= y0 - 0.1                               # always down
            for i, box in layout.boxes.items():                 # where it runs straight, no box is in its way
                if i not in (route.source, route.target) and abs(x0 - x1) < 0.5:
                    assert _apart(Box(x0, y0, 0, y1 - y0), box), (route, i)


def test_chains_are_straight():
    w = mg.randn(3, requires_grad=True)

    def run() -> Any:
        x = w * 2
        for _ in range(3):                              # a block with a way around it, of boxes of several widths
            x = x.exp().log_softmax(0).sin().reshape(1, 3).reshape(3).tanh() + x * x
        return x.sum()
    g = study.graph(run)
    _, layout = _layout(g)
    ops = {i: n.op for i, n in g.nodes.items()}
    middle = {i: b.x + b.w / 2 for i, b in layout.boxes.items()}
    chains = [[i + k for k in range(6)] for i in ops if ops[i] == "exp"]
    assert len(chains) == 3 and all(np.ptp([middle[i] for i in chain]) < 0.5 for chain in chains)


def test_edges_do_not_cross_needlessly():
    w, v = mg.randn(3, requires_grad=True), mg.randn(3, requires_grad=True)
    a, b = w.exp(), v.sin()
    parts = [b.cos(), a.tanh(), b.exp(), a.sin()]       # recorded crosswise
    _, layout = _layout(study.graph(mg.cat(parts).sum()))
    ends = [(*r.points[0], r.points[-1][0]) for r in layout.routes]
    assert len(ends) == 11
    assert not any(y == z and (p - r) * (q - s) < 0 for i, (p, y, q) in enumerate(ends) for r, z, s in ends[:i])


def test_svg_is_one_well_formed_element_with_both_colour_schemes():
    _, loss = _mlp()
    g = study.graph(loss)
    for backward in (False, True):
        root = ElementTree.fromstring(g.svg(backward))
        assert root.tag.endswith("svg") and float(root.get("height", 0)) > 300
        shown = {e.get("data-id") for e in root.iter() if e.get("data-id")}
        assert shown == {str(n.id) for n in g.nodes.values() if n.kind == "op" or n.kind == "data" and not backward}
    assert "prefers-color-scheme:dark" in g.svg() and "model.0" not in g.svg().partition("</style>")[0]
    w = mg.ones(2, requires_grad=True)
    text = "".join(ElementTree.fromstring(study.graph(lambda: w.where(w < 2, 0 * w).sum()).svg()).itertext())
    assert "sums" in text and "where" in text


def test_save_and_notebook(tmp_path: Any):
    _, loss = _mlp()
    g = study.graph(loss)
    for suffix, begin in ((".svg", "<svg "), (".html", "<!doctype html>"), (".dot", "digraph {"), (".txt", "graph: 5 nodes")):
        g.save(tmp_path / f"graph{suffix}")
        assert (tmp_path / f"graph{suffix}").read_text().startswith(begin)
    assert g.svg() in g._repr_html_() and g._repr_svg_() == g.svg() and repr(g).startswith("<graph: 5 nodes")
    dot = g.dot()
    assert dot.count(" -> ") == sum(1 for _ in g.edges()) == 12 and dot.count("subgraph") == 5 and dot.count("{") == dot.count("}")


# ---- large graphs ----

def test_alike_blocks_are_folded():
    encoder, loss = _transformer(12)
    g = study.graph(loss, most=70)
    assert g.notes == ["folded: encoder.layers.1 to encoder.layers.11 (11 like encoder.layers.0)"]
    part = next(x for x in g.root.groups() if x.folded)
    assert part.name == "encoder.layers.1 to encoder.layers.11" and len(list(part.ids())) > 200
    picture, layout = _layout(g)
    assert len(layout.boxes) < 60 and "11 like" in g.svg() and "11 like" in str(g)
    assert not any(x.folded for x in study.graph(loss, most=10_000).root.groups())


@pytest.mark.slow
def test_5000_nodes_end_in_seconds():
    w = mg.randn(4, requires_grad=True)

    def run() -> Any:
        y = w
        for _ in range(2500):
            y = (y * w).tanh()
        return y.sum()
    start = time.process_time()
    g = study.graph(run)
    g.svg()
    str(g)
    assert time.process_time() - start < 30 and len(_ops(g)) == 5001
    assert "runs of 26" in g.notes[0] and len(_layout(g)[1].groups) < 400


def test_an_opened_definition_is_shown_as_a_whole():
    ln, x = nn.LayerNorm(8), mg.randn(2, 8)                 # x needs no gradient: it flows through the last two ops only
    found = study.graph(lambda: ln(x).sum(), open="layer_norm")
    ops = [n for n in found.nodes.values() if n.kind == "op"]
    names = [n.op for n in ops]
    assert {"mean", "mul", "add", "sum"} < set(names) or {"moments", "mul", "add", "sum"} < set(names)
    shown = str(found)
    assert "x=x" in shown or "input=x" in shown or "(x" in shown
    flows = [n.op for n in ops if n.backward]
    assert flows == ["mul", "add", "sum"] and "MulBackward0" in shown and shown.count("Backward0") == 3
    assert not any(n.saved for n in ops if not n.backward)
    x.requires_grad_()
    assert [n.op for n in study.graph(lambda: ln(x).sum(), open="layer_norm").nodes.values() if n.kind == "op"] == names
    assert "<svg" in found.svg() and "<svg" in found.svg(backward=True)


def test_constants_are_shown():
    w, mask = mg.ones(3, requires_grad=True), mg.ones(3)
    found = study.graph(lambda: ((1 - w - 0.25) / 4 + mask).sum())
    shown = str(found)
    for said in ("sub(input=1, other=w)", "sub(input=#1, other=0.25)", "other=4)", "other float32[3])"):
        assert said in shown, shown
    assert "?" not in shown and "other = 0.25" in found.svg()
    again = str(study.graph(lambda: ((1 - w - 0.25) / 4 + mask).sum()))         # dispatch knows the signatures by now
    assert [line.split(")")[0] for line in again.splitlines()] == [line.split(")")[0] for line in shown.splitlines()]
    ln = nn.LayerNorm(8)
    assert "?" not in str(study.graph(lambda: ln(mg.randn(2, 8)).sum(), open="layer_norm"))
    with study.Record():
        loss = (w + 1e-5).sum()
    assert "other=1e-05" in str(study.graph(loss))
    assert "other=?" in str(study.graph((w + 3).sum()))             # nobody looked when it was recorded


def test_captions_are_whole_where_there_is_room():
    ln, x = nn.LayerNorm(8), mg.randn(2, 8)
    assert "opened to its definition; fused kernel on cpu" in study.graph(lambda: ln(x).sum(), open="layer_norm").svg()
    net = nn.Sequential(*[nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.ReLU()) for _ in range(4)])
    assert "3 nodes: 1 linear, 1 layer_norm, …" in study.graph(lambda: net(x).sum(), most=6).svg()


def wide_graph(joined):
    leaves = [mg.randn(4, 8, requires_grad=True) for _ in range(40)]

    def loss():
        branches = [(a * b).tanh() for a, b in zip(leaves[::2], leaves[1::2], strict=True)]
        h = sum(branches[1:], branches[0]) if joined == "sum" else mg.cat(branches)
        for _ in range(100):
            h = h.sin() * 1.01
        return h.sum()
    return study.graph(loss, most=1000)


@pytest.mark.parametrize("joined, most", [("sum", 3600), ("cat", 3600)])
def test_many_branches_do_not_stand_in_one_row(joined, most):
    found = wide_graph(joined)
    drawn = found.svg()
    assert float(re.search(r'viewBox="0 0 ([0-9.]+)', drawn)[1]) < most         # 40 leaves in a row are 7000 wide
    assert set(re.findall(r'data-id="(\d+)"', drawn)) == set(map(str, found.nodes))


@pytest.mark.slow
def test_the_page_of_a_graph_opens_fitted_and_zooms(browser, tmp_path):
    wide_graph("sum").save(tmp_path / "a.html")
    browser.get((tmp_path / "a.html").as_uri())
    seen = "return document.querySelector('svg').getAttribute('viewBox').split(' ').map(Number)"
    inside = "const b = document.querySelector('.box').ownerSVGElement.getBoundingClientRect(); return b.height <= innerHeight && b.width <= innerWidth"
    whole = browser.execute_script(seen)
    assert browser.execute_script(inside)
    browser.find_element("id", "in").click()
    near = browser.execute_script(seen)
    assert near[2] == pytest.approx(0.77 * whole[2]) and near[0] + near[2] / 2 == pytest.approx(whole[2] / 2)
    browser.execute_script("document.getElementById('view').dispatchEvent(new WheelEvent('wheel', {deltaY: -300, clientX: 100, clientY: 100, cancelable: true}))")
    assert browser.execute_script(seen)[2] < near[2]
    browser.find_element("id", "all").click()
    assert browser.execute_script(seen) == whole
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE" and "favicon" not in line["message"]]
