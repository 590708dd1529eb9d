"""Traces, profiles, and PyTorch's door to them: tables that fit, files that Perfetto reads, rates that are right."""
from __future__ import annotations

import json
import sys

import pytest

import minigrad as mg
from minigrad import autograd, nn, optim, study
from minigrad.nn import functional as F
from minigrad.study.profile import Roof, Row


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(16), nn.Sequential(nn.Linear(16, 16), nn.ReLU())

    def forward(self, x):
        return x + self.inner(self.norm(x))


def make_step():
    model = nn.Sequential(Block(), nn.Linear(16, 4))
    optimizer = optim.Adam(model.parameters())
    x, y = mg.randn(8, 16), mg.randint(0, 4, (8,))

    def step():
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return step


@pytest.fixture
def roof(monkeypatch):
    """A roof of round numbers; measuring one takes a second."""
    monkeypatch.setattr(sys.modules["minigrad.study.profile"], "roof", lambda: Roof(100.0, 50.0, 10.0))


# ---- trace ----

def test_a_table_fits(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    with study.trace() as t:
        make_step()()
    for width in (80, 100, 120):
        lines = t.table(width).splitlines()
        assert max(map(len, lines)) <= width
        assert len(lines) >= len(t.launches) + 3
    assert "model.0.norm" in t.table(120) and "relu_backward_f32" in t.table(120) and " start " not in t.table(80) and " start " in t.table(120)
    assert max(map(len, str(t).splitlines())) <= 120
    assert f"{len(t.launches)} launches" in str(t)


def test_a_step_that_was_captured_before_gets_a_note(roof):
    step = mg.capture(make_step())
    step()
    for study_of in (study.trace, study.profile):
        with study_of() as t:
            step()
        assert "recorded before this began" in str(t) and "minigrad.capture(step.function)" in str(t)
        with study_of() as t:
            again = mg.capture(step.function)           # what the note says
            again()
            again()
        assert "recorded before" not in str(t)
        assert {("linear", "forward", "model.1"), ("linear", "backward", "model.1")} <= {(x.op, x.direction, x.module) for x in t.launches if x.replayed}


def test_a_long_table_is_cut():
    x = mg.ones(2)
    with study.trace() as t:
        for _ in range(300):
            x + x
    assert str(t).count("add_f32") == 200 and "100 more" in str(t) and "100 launches are left out" in str(t)
    assert t.table(limit=None).count("add_f32") == 300


def test_arguments_of_a_table(roof):
    with study.profile() as p, study.trace() as t:
        x = mg.ones(3)
        for _ in range(5):
            x.exp()
    rows = [line.split() for line in t.table(limit=1).splitlines()]
    assert rows[2][2:4] == [t.launches[0].op, "forward"] and rows[3] == ["...", f"{len(t.launches) - 1}", "more"]
    assert sum("exp_f32" in line for line in t.table(limit=5).splitlines()) == 4
    for wrong in ({"limit": 0}, {"limit": -1}, {"width": 0}, {"width": -5}):
        for x in (t, p):
            with pytest.raises(ValueError, match=rf"\[table\] {next(iter(wrong))} must be at least 1; got {next(iter(wrong.values()))}"):
                x.table(**wrong)


def test_html_shows_the_table_and_escapes():
    with study.trace() as t:
        mg.ones(2) + mg.ones(2)
    html = t._repr_html_()
    assert html.count("<tr") == len(t.launches) + 1 and "add_f32" in html
    assert "&lt;b&gt;" in mg.core.table.Table(["a"], [["<b>"]]).html()


def events(t, tmp_path):
    t.save(tmp_path / "trace.json")
    return json.loads((tmp_path / "trace.json").read_text())["traceEvents"]


def test_the_file_has_the_fields_of_chrome_trace_events(tmp_path):
    with study.trace() as t, study.record_function("a step"):
        make_step()()
    found = events(t, tmp_path)
    for e in found:
        assert {"name", "ph", "pid", "tid"} <= set(e) and isinstance(e["name"], str) and e["ph"] in "MXC"
        assert isinstance(e["pid"], int) and isinstance(e["tid"], int)
        if e["ph"] == "X":
            assert e["ts"] >= 0 and e["dur"] >= 0 and e["cat"] in ("module", "op", "kernel", "user") and isinstance(e["args"], dict)
        elif e["ph"] == "C":
            assert e["ts"] >= 0 and e["args"] == {"bytes": e["args"]["bytes"]} and e["args"]["bytes"] > 0
        else:
            assert e["name"] in ("process_name", "thread_name") and e["args"]["name"]
    assert len([e for e in found if e.get("cat") == "kernel"]) == len(t.launches) == len([e for e in found if e["ph"] == "C"])
    user, = [e for e in found if e.get("cat") == "user"]
    assert user["name"] == "a step" and all(e["ts"] + e["dur"] <= user["ts"] + user["dur"] + 1e-3 for e in found if e.get("cat") == "kernel")


def test_where_a_trace_is_saved(tmp_path):
    with study.trace() as t, study.profile() as p:
        mg.ones(3).exp()
    with open(tmp_path / "other.txt", "w") as other:
        for x in (t.save, p.save, t.write):
            with pytest.raises(TypeError):
                x(other.fileno())
        other.write("still open")
    for x, name in ((t, "trace"), (p, "profile")):
        with pytest.raises(ValueError, match=rf"\[{name}\] save writes JSON, so the path must end with .json; got '.*a.csv'; table\(\)"):
            x.save(tmp_path / "a.csv")
        x.save(str(tmp_path / "a.json"))
        x.write(tmp_path / "a.trace")
        assert json.loads((tmp_path / "a.json").read_text()) == json.loads((tmp_path / "a.trace").read_text())
    assert not (tmp_path / "a.csv").exists()


def test_slices_are_nested(tmp_path):
    with study.trace() as t:
        make_step()()
    slices = [e for e in events(t, tmp_path) if e["ph"] == "X" and e["tid"] == 1]
    for a in slices:
        for b in slices:
            begin, end = max(a["ts"], b["ts"]), min(a["ts"] + a["dur"], b["ts"] + b["dur"])
            within = min(a["dur"], b["dur"])
            assert end - begin <= 1e-6 or abs(end - begin - within) < 1e-6, (a, b)
    kernel = next(e for e in slices if e["name"] == "layer_norm_forward_f32")
    around = [e["name"] for e in sorted(slices, key=lambda e: -e["dur"])
              if e["ts"] <= kernel["ts"] and kernel["ts"] + kernel["dur"] <= e["ts"] + e["dur"] + 1e-6 and e is not kernel]
    assert around == ["model", "model.0", "model.0.norm", "layer_norm"]
    assert kernel["args"]["flops"] == 8 * 8 * 16 and kernel["args"]["direction"] == "forward" and kernel["args"]["line"].startswith("test_trace.py")
    assert {"model.0.norm backward", "layer_norm backward"} <= {e["name"] for e in slices}


# ---- profile ----

def test_a_profile_counts_calls_and_rates(roof):
    step = make_step()
    step()
    with study.profile() as p:
        step()
        step()
    rows = {r.name: r for r in p.ops()}
    assert (rows["linear"].calls, rows["linear"].launches) == (4, 4) and rows["linear"].flops == 2 * (2 * 8 * 16 * 16 + 2 * 8 * 16 * 4)
    assert (rows["linear backward"].calls, rows["linear backward"].launches) == (4, 12)
    assert rows["adam"].calls == 2 and [r.time for r in p.ops()] == sorted([r.time for r in p.ops()], reverse=True)
    modules = {r.name: r for r in p.modules()}
    assert list(modules) == ["model", "model.0", "model.0.inner", "model.0.inner.0", "model.0.inner.1", "model.0.norm", "model.1"]
    assert modules["model.0"].time == sum(modules[f"model.0.{n}"].time for n in ("norm", "inner")) + rest(p, "model.0")
    for width in (80, 120):
        lines = p.as_table().text(width).splitlines()
        assert max(map(len, lines)) <= width
    assert "100 GFLOP/s" in str(p) and len([line for line in str(p).splitlines() if line.startswith("layer_norm")]) == 2


def rest(p, module):
    return sum(x.time for x in p.launches if x.module == module)


def test_share_of_the_roof():
    """At 100 GFLOP/s and 10 GB/s: 1000 operations take 10 ns, 50 bytes take 5 ns."""
    with study.Record() as record:
        mg.ones(3) + mg.ones(3)
    from dataclasses import replace
    launch = record.launches[-1]
    of = Roof(100.0, 50.0, 10.0)
    assert Row("x").add([replace(launch, flops=1000, nbytes=50, time=40)]).share(of) == (0.25, "compute")
    assert Row("x").add([replace(launch, flops=100, nbytes=200, time=40)]).share(of) == (0.5, "memory")
    assert Row("x").add([replace(launch, kernel="add_f64", flops=1000, nbytes=50, time=40)]).share(of) == (0.5, "compute")
    assert Row("x").add([replace(launch, flops=None, nbytes=200, time=40)]).share(of) == (0.5, "memory")


@pytest.mark.slow
def test_the_roof_of_this_machine_is_measured_once():
    found = study.roof()
    assert min(found) > 0.5 and found.bandwidth > 0.5 and study.roof() is found
    with study.trace() as t:
        study.roof()
    assert not t.launches


def test_a_named_part_without_a_trace_does_nothing():
    with study.record_function("alone"):
        mg.ones(2)


# ---- PyTorch's door ----

def test_the_profiler_of_torch_scripts(tmp_path):
    step = make_step()
    with autograd.profiler.profile(record_shapes=True) as prof:
        with autograd.profiler.record_function("step"):
            step()
    averages = prof.key_averages()
    by = {e.key: e for e in averages}
    assert by["linear"].count == 2 and by["linear"].cpu_time * 2 == pytest.approx(by["linear"].cpu_time_total)
    assert by["step"].count == 1 and by["step"].cpu_time_total > by["linear"].cpu_time_total
    assert by["step"].self_cpu_time_total == pytest.approx(by["step"].cpu_time_total - sum(e.cpu_time_total for e in averages if e.key != "step"))
    total = prof.total_average()
    assert total.key == "Total" and total.self_cpu_time_total == pytest.approx(sum(e.cpu_time_total for e in averages if e.key != "step"))
    table = averages.table(sort_by="self_cpu_time_total", row_limit=3).splitlines()
    assert table[0].split()[0] == "Name" and len(table) == 6 and max(map(len, table)) <= 120
    shown = prof.key_averages(group_by_input_shape=True)
    assert [e.count for e in shown if e.key == "linear"] == [1, 1] and "8x16" in shown.table()
    prof.export_chrome_trace(tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    with pytest.raises(ValueError, match="sort_by"):
        averages.table(sort_by="memory")
    for option in ({"use_cpu": False}, {"acc_events": True}):
        with pytest.raises(NotImplementedError, match=rf"\[profiler.profile\] .*{next(iter(option))}"):
            autograd.profiler.profile(**option)
    with autograd.profiler.profile(enabled=False) as prof:
        step()
    assert len(prof.key_averages()) == 0


def test_a_named_part_shows_its_args():
    with study.trace() as t, study.record_function("part", "batch 3"), study.record_function("plain"):
        mg.ones(3) + 1
    parts = {e["name"]: e["args"] for e in t.events() if e.get("cat") == "user"}
    assert parts == {"part": {"args": "batch 3"}, "plain": {}}


def test_a_decorated_function_is_a_named_part():
    @autograd.profiler.record_function("count")
    def count(n):
        """Counts down."""
        return mg.ones(2) + (count(n - 1) if n else 0)
    with autograd.profiler.profile() as prof:
        count(2)
    by = {e.key: e for e in prof.key_averages()}
    assert by["count"].count == 3 and count.__doc__ == "Counts down." and count.__name__ == "count"


def test_events_of_the_profiler():
    with autograd.profiler.profile(use_cuda=True, use_device="cuda", use_kineto=True, use_cpu=True) as prof:
        x = mg.ones(3).exp()
        with autograd.profiler.record_function("outer"), autograd.profiler.record_function("inner"):
            x.sin()
            x.sin()
    events = prof.function_events
    assert [e.name for e in events if e.name not in ("copy", "fill")] == ["exp", "outer", "inner", "sin", "sin"]
    assert all(e.count == 1 and e.time_range.start < e.time_range.end for e in events)
    sin = events[-1]
    assert sin.cpu_time_total == pytest.approx(sin.time_range.end - sin.time_range.start) and sin.input_shapes == "f32 3 3" and "sin" in repr(sin)

    def names(table):
        return {line.split()[0] for line in table.splitlines()[2:-1]} - {"copy", "fill"}
    for made in (events, prof.key_averages(), prof):
        assert names(made.table()) == {"exp", "sin", "outer", "inner"}
        assert names(made.table(top_level_events_only=True)) == {"exp", "outer"}
    with pytest.raises(RuntimeError, match=r"\[profiler.profile\] a profile can be entered once"):
        prof.__enter__()
