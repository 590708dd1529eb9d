"""The normalization study: the rule of its verdicts, what is exact, resuming, and the quick run from its command."""
from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minigrad import nn, study
from minigrad.study import norms
from minigrad.study.norms import claim, convergence, jacobian, modes, plots, recurrent, runner, training

EXAMPLES = Path(__file__).parents[2] / "examples"


# ---- the rule ----

def test_more_needs_a_difference_beyond_twice_its_standard_error():
    base = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    noise = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])                   # standard deviation 0.79, twice the standard error 0.707
    assert claim.more(base + 0.72 + noise, base, ("a", "b")).holds
    assert not claim.more(base + 0.70 + noise, base, ("a", "b")).holds
    assert claim.more(base - 0.72 + noise, base, ("a", "b"))[1:] == (False,)        # the wrong way round
    assert claim.more(base - 0.72 + noise, base, ("a", "b")).evidence.endswith("5 seeds; the reverse holds")
    assert claim.more(base - 0.70 + noise, base, ("a", "b")).evidence.endswith("5 seeds")
    assert "a 3.7 ± 2.4, b 3.0 ± 1.6; difference +0.7" in claim.more(base + 0.7 + noise, base, ("a", "b")).evidence


def test_seeds_are_compared_in_pairs():
    base = np.array([0.0, 100.0, 200.0])                            # the seeds differ far more than a and b do
    assert claim.more(base + [1.0, 1.1, 0.9], base, ("a", "b")).holds
    assert not claim.more(base + [1.0, 1.1, 0.9], base[::-1], ("a", "b")).holds


def test_one_run_decides_nothing():
    assert not claim.more(np.array([9.0]), np.array([1.0]), ("a", "b")).holds


def test_equal_runs_do_not_differ():
    assert not claim.more(np.ones(5), np.ones(5), ("a", "b")).holds


def test_every_run_counts():
    assert claim.every([True, True], "same").holds and not claim.every([True, False], "same").holds
    assert claim.every([True, False], "same").evidence == "same in 1 of 2 runs"


# ---- runs ----

CELLS = [{"claim": "c", "lr": lr, "seed": seed} for seed in (1, 0) for lr in (0.1, 1.0)]
RESULTS = {claim.key(c): {"loss": c["seed"] + 10 * c["lr"]} for c in CELLS}


def test_results_come_in_the_order_of_the_seeds():
    runs = claim.Runs(CELLS, RESULTS)
    assert runs.of("loss", lr=0.1).tolist() == [1.0, 2.0] and runs.of("loss", lr=1.0).tolist() == [10.0, 11.0]
    assert runs.best("loss", "lr").tolist() == [1.0, 2.0] and runs.levels("lr") == [0.1, 1.0]


def test_a_missing_run_is_told():
    runs = claim.Runs(CELLS, {k: r for k, r in RESULTS.items() if '"seed": 1' not in k})
    with pytest.raises(claim.NotMeasured):
        runs.of("loss", lr=0.1)
    with pytest.raises(claim.NotMeasured):
        runs.of("loss", lr=7)


# ---- statements ----

def invented(cell, sign):
    """What a run measures where all statements plainly hold (sign 1), or plainly do not (-1)."""
    kind, norm = cell["claim"], cell.get("norm")
    if kind == "jacobian":
        return {"wrong": int(sign < 0), "filled": 1}
    if kind == "batch-size":
        change = 0 if norm != "batch" else 3 if cell["batch"] <= 4 else -1
        return {"defined": int((norm, cell["batch"]) != ("batch", 1) or sign < 0), "error": 10 + sign * change}
    if kind == "recurrent":
        gradients = [1.0] * recurrent.LENGTH
        gradients[-1 - recurrent.BACK] = 10.0 ** (sign * (norm != "none"))
        return {"final": 2 - sign * (norm != "none"), "diverged": int((norm == "none") == (sign > 0)),
                "gradients": gradients}
    if kind == "transformer":
        return {"final": 2 - sign * (norm == "pre"), "failed": int((norm != "pre") == (sign > 0))}
    if kind == "convergence":
        gain = {"layer": 1, "batch": 2}.get(norm, 0)
        return {"steps_to": 100 - sign * gain, "error": 10 - sign * gain, "parameters": 1}
    if kind == "regularization":
        gain = {"none": 0, "layer": 1, "batch": 2 + 1 / cell["batch"], "dropout": 1}[norm]
        return {"error": 10 - sign * gain, "gap": 10 - sign * gain, "train": 0}
    if kind == "cost":
        added = {"none": 0, "rms": 10, "layer": 20, "pre": 20, "batch": 30}
        return {f"{name} {how}": 100 + sign * factor * time for name, time in added.items()
                for how, factor in (("captured", 1), ("eager", 2))}
    falling = [50 - sign * 5 * i for i in range(len(modes.SIZES))]
    quiet = [float(sign < 0)] * len(modes.SIZES)
    shown = falling if norm == "batch" else quiet
    return {"differing": int(sign < 0)} if "width" in cell else {"change": shown, "error": shown}


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("studied", norms.CLAIMS, ids=lambda c: c.name)
def test_statements_hold_where_they_should_and_never_the_other_way_round(studied, quick):
    cells = studied.planned(8, quick)
    for sign in (1, -1):
        runs = claim.Runs(cells, {claim.key(c): invented(c, sign) for c in cells})
        assert {text: verdict.holds for text, verdict in studied.judged(runs)} == {
            stated.text: sign > 0 for stated in studied.statements}


def test_norms_of_one_seed_start_with_the_same_weights():
    weights = {norm: [p.numpy(force=True) for p in training.seeded(0, training.cnn, norm).parameters() if p.ndim in (2, 4)]
               for norm in ("none", "batch", "group")}
    for norm in ("batch", "group"):
        for ours, theirs in zip(weights["none"], weights[norm], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert [tuple(p.shape) for p in training.cnn("none").parameters() if p.ndim == 1] == [(16,), (16,), (10,)]


# ---- what experiments measure ----

@pytest.mark.parametrize("layer", jacobian.LAYERS)
def test_zeros_of_the_jacobian_are_where_they_should_be(layer):
    assert jacobian.Jacobian().measure(3, layer=layer)["wrong"] == 0


def test_a_wrong_pattern_is_found():
    entries = jacobian.jacobian(nn.BatchNorm1d(jacobian.C).double(), jacobian.inputs(0))
    assert ((entries != 0) != jacobian.shares((jacobian.SAMPLE,))).sum() > 100


def test_the_jacobian_is_that_of_differences():
    layer, x = nn.LayerNorm((jacobian.C, jacobian.L)).double(), jacobian.inputs(1)
    entries = jacobian.jacobian(layer, x)
    for column in (0, 17, 35):
        step = np.zeros(x.numel())
        step[column] = 1e-6
        moved = [layer(x.detach() + s * step.reshape(x.shape)).numpy(force=True).reshape(-1) for s in (1, -1)]
        np.testing.assert_allclose(entries[:, column], (moved[0] - moved[1]) / 2e-6, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("width", modes.WIDTHS)
def test_layer_norm_has_the_same_bits_alone_and_in_any_batch(width):
    assert modes.differing_bits(width, 0) == 0


def test_other_bits_are_found(monkeypatch):
    monkeypatch.setattr(nn, "LayerNorm", nn.BatchNorm1d)
    monkeypatch.setattr(modes, "SAME_BITS_IN", (2, 64))             # batch norm refuses a batch of one
    assert modes.differing_bits(5, 0) > 0


def test_a_loss_that_is_not_finite_counts_as_the_ceiling():
    assert training.ending([1.0, 2.0, float("nan")], 3) == training.CEILING == training.ending([1.0, 2.0], 3)
    assert training.ending([9.0, 1.0, 3.0], 3) == 3.0 and training.ending([1e30] * 3, 3) == training.CEILING
    assert training.thinned([2.0, 4.0, 1.0, float("inf")], 6, 3) == [3.0, 5.5, 10.0]


def test_steps_to_a_loss():
    losses = [1.0] * 4 + [0.0] * 6
    assert convergence.steps_to(losses, 0.2) == 8 and convergence.steps_to(losses, 1.0) == 5       # a mean of five steps
    assert convergence.steps_to([1.0] * 10, 0.5) is None


# ---- running ----

@pytest.mark.slow
def test_results_are_kept_and_not_made_again(tmp_path, monkeypatch):
    first = study.normalization(["jacobian"], quick=True, processes=0, out=tmp_path)
    assert first.chapters[0].tally == "5 of 5 hold" and first.chapters[1].tally == "not measured"
    lines = (tmp_path / "results.jsonl").read_text()
    monkeypatch.setattr(jacobian.Jacobian, "measure", lambda *_, **__: pytest.fail("run again"))
    study.normalization(["jacobian"], quick=True, processes=0, out=tmp_path)
    assert (tmp_path / "results.jsonl").read_text() == lines
    with pytest.raises(pytest.fail.Exception):
        study.normalization(["jacobian"], quick=True, processes=0, out=tmp_path, fresh=True)


@pytest.mark.slow
def test_an_interrupt_ends_with_a_report_and_the_rest_follows(tmp_path, monkeypatch, capsys):
    measure, count = jacobian.Jacobian.measure, iter(range(100))

    def interrupted(self, seed, **settings):
        if next(count) == 5:
            raise KeyboardInterrupt
        return measure(self, seed, **settings)
    monkeypatch.setattr(jacobian.Jacobian, "measure", interrupted)
    report = study.normalization(["jacobian"], quick=True, processes=0, out=tmp_path)
    assert report.chapters[0].tally == "not measured" and "stopped" in capsys.readouterr().out
    assert len(runner.Kept(tmp_path / "results.jsonl").results) == 5
    assert "not measured" in (tmp_path / "report.md").read_text()
    assert study.normalization(["jacobian"], quick=True, processes=0, out=tmp_path).chapters[0].tally == "5 of 5 hold"


def test_each_norm_has_a_colour_of_its_own():
    assert len({colour for _, colour, _ in plots.STYLE.values()}) == len(plots.STYLE)


@pytest.mark.slow
@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT], [signal.SIGINT, signal.SIGINT]])
def test_a_signal_ends_the_workers_too(signals, tmp_path):
    """They hold the pipe of the output: it is at its end only when all of them have ended."""
    command = [sys.executable, str(EXAMPLES / "norm_study.py"), "--claim", "batch-size", "--out", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        results = tmp_path / "results.jsonl"
        while not results.exists() or len(results.read_text().splitlines()) < 2:
            assert process.poll() is None
            time.sleep(0.05)
        for number in signals:
            process.send_signal(number)
            time.sleep(0.1)
        process.communicate(timeout=30)
    if len(signals) == 1:
        assert process.returncode == (0 if signals == [signal.SIGINT] else -signal.SIGTERM)


def test_a_line_that_was_cut_off_is_dropped(tmp_path):
    kept = runner.Kept(tmp_path / "results.jsonl")
    for cell in CELLS[:2]:
        kept.add(cell, {"loss": 1})
    text = kept.path.read_text()
    kept.path.write_text(text[:-8])
    again = runner.Kept(kept.path)
    assert list(again.results) == [claim.key(CELLS[0])]
    again.add(CELLS[1], {"loss": 1})
    assert kept.path.read_text() == text


@pytest.mark.parametrize("options, message", [({"claims": ["speed"]}, "got 'speed'"), ({"seeds": 1}, "at least two seeds")])
def test_wrong_arguments(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        study.normalization(**options, out=tmp_path)


def test_names_of_claims_differ():
    assert len({c.name for c in norms.CLAIMS}) == len(norms.CLAIMS) == 8
    assert all(c.statements and c.title and c.source and c.setup and c.caption for c in norms.CLAIMS)


@pytest.mark.slow
def test_the_quick_run_measures_every_claim(tmp_path):
    command = [sys.executable, str(EXAMPLES / "norm_study.py"), "--quick", "--out", str(tmp_path)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    report, page = (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()
    for c in norms.CLAIMS:
        assert c.title in shown and f"--claim {c.name} --fresh`" in report and f"id={c.name}" in page
        assert (tmp_path / f"{c.name}.png").stat().st_size > 5000
    assert "not measured" not in shown + report + page and not (tmp_path / "readme_table.md").exists()
    assert page.count("src='data:image/png") == page.count("src=") == 8 and "<link" not in page      # nothing is fetched
    assert max(len(line) for line in shown.splitlines() if str(tmp_path) not in line) <= 80
