"""The examples: ten steps of each against the curves frozen from torch, captured steps against eager ones, and the programs as a user
runs them: plots, Ctrl-C, --resume, errors that name the option."""
from __future__ import annotations

import argparse
import json
import shlex
import shutil
import signal
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
from golden import curves
from support import run_python

import minigrad as mg
from minigrad import io, optim

GOLDEN = json.loads((curves.HERE / "curves.json").read_text())["curves"]
sys.path.insert(0, str(curves.EXAMPLES))
for extra in "tqdm", "matplotlib":
    pytest.importorskip(extra, reason="the examples' extra is not installed")


def slow(name):
    return pytest.param(name, marks=pytest.mark.slow)


def test_every_example_has_a_curve():
    programs = {p.stem for p in curves.EXAMPLES.glob("*.py") if "def training_step(" in p.read_text()}
    assert programs == {case.example for case in curves.CASES.values()}
    assert GOLDEN.keys() == curves.CASES.keys()


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("name", curves.CASES)
def test_golden(name, captured):
    case = curves.CASES[name]
    losses = curves.curve(case, import_module(case.example), optim, mg.tensor, wrap=mg.capture if captured else lambda step: step)
    np.testing.assert_allclose(losses, GOLDEN[name], rtol=0, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", curves.SMALL)
def test_200_captured_steps_are_eager_ones(name):
    """Bit for bit, with dropout and running statistics."""
    (eager, want), (captured, got) = curves.trained(name, 200), curves.trained(name, 200, mg.capture)
    assert captured == eager
    assert len(set(eager)) > 190
    for key in want:
        np.testing.assert_array_equal(got[key], want[key], err_msg=key)


# ---- the programs ----

def run(monkeypatch, name, *options):
    """The program `name`, in this process."""
    pytest.importorskip("matplotlib", reason="the examples' extra is not installed")
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, options)])
    import_module(name).main()


def write_images(folder):
    """Small files in the formats of MNIST and CIFAR-10."""
    rng = np.random.default_rng(0)
    for part, n in ("train", 130), ("t10k", 40):
        for kind, array in ("images-idx3", rng.integers(0, 256, (n, 28, 28))), ("labels-idx1", rng.integers(0, 10, n)):
            sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
            (folder / f"{part}-{kind}-ubyte").write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes())
    for name in [*[f"data_batch_{i}" for i in range(1, 6)], "test_batch"]:
        (folder / f"{name}.bin").write_bytes(rng.integers(0, 10, (26, 3073)).astype(np.uint8).tobytes())


@pytest.mark.slow
@pytest.mark.parametrize("name", curves.SMALL)
def test_one_epoch_and_its_plot(name, tmp_path, monkeypatch, capsys):
    handler, options = signal.getsignal(signal.SIGINT), ["--epochs", "1", "--out", tmp_path]
    if name.startswith("digits"):
        pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    elif name.startswith("char"):
        (tmp_path / "text").write_text("\tsome ∀ text\nof $lines$\n" * 400)
        options += ["--text", tmp_path / "text"]
    elif name == "adding_problem":
        monkeypatch.setattr(import_module(name), "BATCHES", 2)
    else:
        write_images(tmp_path)
        options += ["--data", tmp_path, "--batch-size", "64"]
    run(monkeypatch, name, *options)
    lines = capsys.readouterr().out.splitlines()
    picture, checkpoint = next(tmp_path.glob("*.png")), next(tmp_path.glob("*.safetensors"))
    assert lines[-2:] == [f"plot: {picture}", f"checkpoint: {checkpoint}"]
    assert lines[-3].startswith("epoch 1/1  ") and len(lines[-3]) <= 80
    assert signal.getsignal(signal.SIGINT) == handler                  # Python's own again
    assert picture.stat().st_size > 20_000
    assert len(io.load(checkpoint)["history"]) == 1


def test_curves_tell_train_and_test_apart():
    """At one epoch, too, where a line without markers is empty; a loss on a logarithmic axis, a share on a linear one."""
    figures = pytest.importorskip("matplotlib.figure", reason="the examples' extra is not installed")
    from pictures import curves as draw
    for epochs in 1, 3:
        figure = figures.Figure()
        draw(figure, [{"train": {"loss": 0.5}, "test": {"loss": 0.7, "accuracy": 0.9}}] * epochs)
        loss, accuracy = figure.axes
        assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy"]
        assert (loss.get_yscale(), accuracy.get_yscale()) == ("log", "linear")
        assert [line.get_label() for line in loss.lines] == ["train", "test"]
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["train", "test"]
        assert loss.get_legend() is accuracy.get_legend() is None       # none that covers a curve
        assert loss.lines[1].get_color() == accuracy.lines[0].get_color() != loss.lines[0].get_color()
        assert all(line.get_marker() == "." and len(line.get_xdata()) == epochs for line in [*loss.lines, *accuracy.lines])
        low, high = accuracy.get_xlim()
        assert [tick for tick in accuracy.get_xticks() if low < tick < high] == list(range(1, epochs + 1))


@pytest.mark.parametrize("name, options, said", [
    ("adding_problem", "--epochs 0", "--epochs: must be a whole number, at least 1; got 0"),
    ("adding_problem", "--epochs -3", "--epochs: must be a whole number, at least 1; got -3"),
    ("adding_problem", "--batch-size 1.5", "--batch-size: must be a whole number, at least 1; got 1.5"),
    ("adding_problem", "--batch-size 4097", "--batch-size: must be from 1 to 4096, which take more than a gigabyte of memory; got 4097"),
    ("adding_problem", "--lr -1", "--lr: must be a number above 0; got -1"),
    ("adding_problem", "--lr nan", "--lr: must be a number above 0; got nan"),
    ("adding_problem", "--seed 99999999999999999999", "--seed: [manual_seed] the seed must be"),
    ("adding_problem", "--device tpu", "--device: [device] unknown device 'tpu'"),
    ("adding_problem", "--out {tmp}/file", "--out: must be a folder; {tmp}/file is none"),
    ("adding_problem", "--resume", "--resume: there is no {tmp}/adding_problem.safetensors; start without --resume"),
    ("adding_problem", "--resume --out {tmp}/other", "--resume: {tmp}/other/adding_problem.safetensors is the checkpoint of another"),
    ("adding_problem", "--resume --out {tmp}/broken", "is not a complete safetensors file"),
    ("digits_mlp", "--batch-size 1439", "--batch-size: must be from 1 to 1438, the number of training samples; got 1439"),
    ("digits_mlp", "--batch-size 1 --norm batch", "--batch-size: must be from 2 to 1438"),
    ("char_rnn", "--text {tmp}/none", "--text: [Errno 2] No such file"),
    ("char_rnn", "--text {tmp}/file", "--text: must hold at least 5130 characters"),
    ("char_rnn", "--text {tmp}/text --batch-size 1000", "--batch-size: must be at most 84,"),
    ("char_transformer", "--text {tmp}/text --batch-size 84", "--batch-size: must be from 1 to 83,"),
    ("norm_study", "--out {tmp}/file/sub", "--out: [Errno 20] Not a directory: '{tmp}/file/sub'"),
    ("third_derivative", "--out {tmp}/file/sub", "--out: [Errno 20] Not a directory: '{tmp}/file/sub'"),
    ("mnist_cnn", "--data {tmp}", "--data: [mnist] train-images-idx3-ubyte"),
    ("cifar_cnn", "--data {tmp}", "pass --download"),
])
def test_errors_name_the_option(name, options, said, tmp_path, monkeypatch, capsys):
    if name.startswith("digits"):
        pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    (tmp_path / "file").write_text("short")
    (tmp_path / "text").write_text("0123456789" * 600)
    for folder, content in ("other", {"rng": mg.get_rng_state()}), ("broken", None):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "adding_problem.safetensors"
        path.write_text("junk") if content is None else io.save(content, path)
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, name, "--out", tmp_path, *options.format(tmp=tmp_path).split())
    shown = capsys.readouterr().err.splitlines()[-1]
    assert stopped.value.code == 2
    assert shown.startswith(f"{name}.py: error: argument --") and said.format(tmp=tmp_path) in shown


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits_cnn", "digits_mlp"])
def test_resume_with_more_epochs_and_with_another_rate(name, tmp_path, monkeypatch, capsys):
    """With a schedule and without: more epochs go on, what would be ignored is an error."""
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    options = ["--out", tmp_path, "--batch-size", "700"]
    run(monkeypatch, name, *options, "--epochs", "1")
    run(monkeypatch, name, *options, "--epochs", "2", "--resume")
    lines = capsys.readouterr().out.splitlines()
    assert "resumed after epoch 1" in lines and any(line.startswith("epoch 2/2  ") for line in lines)
    with pytest.raises(SystemExit):
        run(monkeypatch, name, *options, "--resume", "--lr", "0.5")
    assert capsys.readouterr().err.endswith(" goes on with --lr 0.002 only; got 0.5\n")


def small(name, folder, monkeypatch):
    """Options with which the program runs for a moment; skips where its data is missing."""
    if name.startswith("digits"):
        pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
        return ["--out", folder, "--batch-size", "700"]
    if name.startswith("char"):
        example = import_module(name)
        monkeypatch.setattr(example, "write", lambda *_: "")
        (folder / "text").write_text("some text\nof lines\n" * 300)
        return ["--out", folder, "--batch-size", "8", "--text", folder / "text"]
    if name == "adding_problem":
        monkeypatch.setattr(import_module(name), "BATCHES", 2)
        return ["--out", folder, "--batch-size", "4"]
    write_images(folder)
    return ["--out", folder, "--batch-size", "64", "--data", folder]


@pytest.mark.parametrize("name", [name if name == "digits_rnn" else slow(name) for name in sorted(curves.SMALL)
                                  if "cosine(" in (curves.EXAMPLES / f"{name}.py").read_text()])
def test_resume_with_more_epochs_follows_their_curve(name, tmp_path, monkeypatch):
    """From the first step on: a finished run ends at rate 0, and its checkpoint holds that rate."""
    import experiment
    options, rates, epochs = small(name, tmp_path, monkeypatch), [], experiment.Experiment.epochs

    def noted(self):
        for epoch in epochs(self):
            rates.append(self.parts["optimizer"].param_groups[0]["lr"] / self.options.lr)
            yield epoch
    monkeypatch.setattr(experiment.Experiment, "epochs", noted)
    monkeypatch.setattr(experiment, "plot", lambda *_: None)
    run(monkeypatch, name, *options, "--epochs", "1")
    run(monkeypatch, name, *options, "--epochs", "3", "--resume")
    np.testing.assert_allclose(rates, [1.0, 0.75, 0.25])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["char_rnn", "char_transformer"])
def test_resume_with_another_text(name, tmp_path, monkeypatch, capsys):
    """The same characters in another order would be garbage to the net; a text of another length does not fit the loader."""
    options = small(name, tmp_path, monkeypatch)
    run(monkeypatch, name, *options, "--epochs", "1")
    text = (tmp_path / "text").read_text()
    for other in text[::-1], text + text:
        (tmp_path / "text").write_text(other)
        with pytest.raises(SystemExit) as stopped:
            run(monkeypatch, name, *options, "--epochs", "2", "--resume")
        said = capsys.readouterr().err.splitlines()[-1]
        assert stopped.value.code == 2 and said.startswith(f"{name}.py: error: argument --text: ")
        assert said.endswith(f"{name}.safetensors goes on with the text that it has learned from only; got {tmp_path / 'text'}")
    (tmp_path / "text").write_text(text)
    run(monkeypatch, name, *options, "--epochs", "2", "--resume")


@pytest.mark.parametrize("name", curves.SMALL)
def test_help_shows_defaults_and_fits_80_columns(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        run(monkeypatch, name, "--help")
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.count("(default: ") >= 6 and "(default: None)" not in shown and "(default: False)" not in shown


@pytest.mark.parametrize("missing", ["tqdm", "matplotlib"])
@pytest.mark.parametrize("name", ["digits_mlp", "norm_study", "third_derivative"])
def test_a_missing_package_is_said_at_the_start(name, missing, tmp_path):
    """Not by a traceback, and not after the training."""
    code = ("import runpy, sys; from importlib import util; find = util.find_spec;"
            f"util.find_spec = lambda name, *rest: None if name == {missing!r} else find(name, *rest); sys.modules[{missing!r}] = None;"
            f"sys.argv[1:] = ['--out', {str(tmp_path)!r}]; sys.path.insert(0, {str(curves.EXAMPLES)!r});"
            f"runpy.run_path({str(curves.EXAMPLES / name)!r} + '.py', run_name='__main__')")
    ran = run_python("-c", code)
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", f"the examples need {missing}: pip install {missing}\n")


@pytest.mark.slow
def test_ctrl_c_and_resume(tmp_path):
    """An interrupted run ends with plot, checkpoint and the command that goes on; going on gives what a run in one piece gives."""
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    program = [str(curves.EXAMPLES / "digits_mlp.py"), "--norm", "batch"]
    with subprocess.Popen([sys.executable, *program, "--epochs", "2000", "--out", str(tmp_path)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:
        while not process.stdout.readline().startswith("epoch    2/2000"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (130, "")
    lines = out.splitlines()
    saved = io.load(tmp_path / "digits_mlp_batch.safetensors")
    done, steps = len(saved["history"]), saved["steps"]
    assert 2 <= done < 2000
    where = f"in epoch {done + 1} after {steps} step{'s' * (steps > 1)}" if steps else f"after epoch {done}"
    assert f"stopped {where}" in lines
    assert (tmp_path / "digits_mlp_batch.png").stat().st_size > 20_000
    assert lines[-2] == f"go on {where} with:"
    command = shlex.split(lines[-1])
    assert command[0] == "python" and command[-1] == "--resume"
    command[command.index("2000")] = str(done + 2)
    again = run_python(*command[1:])
    assert again.stdout.startswith(f"resumed {where}\n"), again.stderr
    whole = run_python(*program, "--epochs", str(done + 2), "--out", str(tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    resumed, at_once = (io.load(folder / "digits_mlp_batch.safetensors") for folder in (tmp_path, tmp_path / "whole"))
    assert resumed["history"] == at_once["history"] and len(resumed["history"]) == done + 2
    for key, value in at_once["model"].items():
        np.testing.assert_array_equal(resumed["model"][key].numpy(), value.numpy(), err_msg=key)


@pytest.fixture
def interrupts():
    """Gives Ctrl-C its meaning back when the test ends."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name if name in ("digits_mlp", "char_rnn") else slow(name) for name in curves.SMALL])
def test_an_interrupted_epoch_goes_on(name, tmp_path, monkeypatch, capsys, interrupts):
    """The first one, too; and it ends with the numbers of a run in one piece."""
    import experiment
    options, batches = small(name, tmp_path, monkeypatch), experiment.Experiment.batches

    def stopped(self, given):
        for batch in batches(self, given):
            signal.raise_signal(signal.SIGINT)
            yield batch
    with monkeypatch.context() as quick:
        quick.setattr(experiment, "plot", lambda *_: None)
        run(quick, name, *options, "--epochs", "2", "--out", tmp_path / "whole")
    monkeypatch.setattr(experiment.Experiment, "batches", stopped)
    with pytest.raises(SystemExit, match="130"):
        run(monkeypatch, name, *options, "--epochs", "2")
    lines = capsys.readouterr().out.splitlines()
    assert "stopped in epoch 1 after 1 step" in lines and "go on in epoch 1 after 1 step with:" in lines
    assert next(tmp_path.glob("*.png")).stat().st_size > 20_000
    monkeypatch.setattr(experiment.Experiment, "batches", batches)
    monkeypatch.setattr(experiment, "plot", lambda *_: None)
    run(monkeypatch, name, *options, "--epochs", "2", "--resume")
    assert "resumed in epoch 1 after 1 step" in capsys.readouterr().out.splitlines()
    resumed, whole = (io.load(next(folder.glob("*.safetensors")))["history"] for folder in (tmp_path, tmp_path / "whole"))
    assert resumed == whole and len(whole) == 2


def interrupted(folder, epoch, step, picture):
    """A run with one number to learn, which each of its 5 steps an epoch makes larger by 1; Ctrl-C comes in one of them."""
    from experiment import Experiment
    options = argparse.Namespace(device="cpu", out=folder, seed=0, batch_size=1, lr=1.0, resume=False, epochs=3)
    model = mg.nn.PReLU(1, 0.0)
    with pytest.raises(SystemExit, match="130"), Experiment("run", options) as run:
        run.keep(model=model)
        run.show(lambda figure: picture(model.weight.item()))
        for at in run.epochs():
            if step < 0:
                signal.raise_signal(signal.SIGINT)
            for i in run.batches(range(5)):
                assert (at, i) <= (epoch, step)
                if (at, i) == (epoch, step):
                    signal.raise_signal(signal.SIGINT)
                model.weight.data += 1
            run.log(train={"loss": model.weight.item()})
    assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL        # while it ends, a second Ctrl-C kills it


def test_ctrl_c_before_the_first_step(tmp_path, capsys, interrupts):
    interrupted(tmp_path, 0, -1, pytest.fail)
    assert capsys.readouterr().out == "\nstopped in epoch 1 after 0 steps\nno step is done: nothing is saved\n"
    assert not list(tmp_path.iterdir())


def test_ctrl_c_before_the_first_epoch_is_done(tmp_path, capsys, interrupts):
    """The steps that are done are saved, unless the checkpoint of an earlier run is there: it may be worth more."""
    (tmp_path / "run.safetensors").write_text("of an earlier run")
    interrupted(tmp_path, 0, 2, pytest.fail)
    assert capsys.readouterr().out == (f"\nstopped in epoch 1 after 3 steps\nnothing is saved: {tmp_path / 'run.safetensors'} is of an "
                                       "earlier run, and no epoch of this one is complete\n")
    assert (tmp_path / "run.safetensors").read_text() == "of an earlier run"


@pytest.mark.parametrize("epoch, step, where, steps", [(0, 2, "in epoch 1 after 3 steps", 3), (2, 0, "in epoch 3 after 1 step", 1),
                                                       (1, 4, "after epoch 2", 0)])
def test_ctrl_c_draws_what_the_checkpoint_holds(epoch, step, where, steps, tmp_path, capsys, interrupts):
    """After the last step of an epoch, the epoch is ended."""
    drawn = []
    interrupted(tmp_path, epoch, step, drawn.append)
    saved = io.load(tmp_path / "run.safetensors")
    assert drawn == [saved["model"]["weight"].item()] == [5 * epoch + step + 1]
    assert saved["steps"] == steps and f"go on {where} with:\n  python " in capsys.readouterr().out


# ---- the texts ----

def test_backward_by_hand():
    """The program itself compares each gradient."""
    shown = run_python("-W", "error", str(curves.EXAMPLES / "backward_by_hand.py"))
    assert shown.returncode == 0, shown.stderr
    rows = [line.split() for line in shown.stdout.splitlines()[4:11]]
    assert [row[0] for row in rows] == ["x", "W1", "b1", "gamma", "beta", "W2", "b2"]
    assert all(float(row[-1]) < 8 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["backward_by_hand", "new_op", "norm_study", slow("third_derivative")])     # it imports PyTorch
def test_other_programs_fit_80_columns(name):
    told = run_python(str(curves.EXAMPLES / f"{name}.py"), "--help", COLUMNS="80")
    assert told.returncode == 0 and max(map(len, told.stdout.splitlines())) <= 80


@pytest.mark.slow
@pytest.mark.parametrize("name", ["backward_by_hand", "new_op"])
def test_programs_without_options_say_so(name):
    program = curves.EXAMPLES / f"{name}.py"
    told, wrong = run_python(str(program), "--help"), run_python(str(program), "--fast")
    assert told.returncode == 0 and program.read_text().split("\n")[0].strip('"') in told.stdout
    assert wrong.returncode == 2 and "unrecognized arguments: --fast" in wrong.stderr


@pytest.mark.filterwarnings("error")
def test_pictures_say_what_is_not_finite():
    pytest.importorskip("matplotlib", reason="the examples' extra is not installed")
    from matplotlib.figure import Figure
    from pictures import filters, mistakes
    logits = np.array([[np.nan, 0, 0], [np.inf, 0, 0], [0, 2, 0]], np.float32)
    figure = Figure()
    mistakes(figure, logits, np.array([2, 1, 0]), np.zeros((3, 1, 2, 2), np.float32))
    assert figure.get_suptitle().endswith("(logits of 2 images are not finite)")
    assert [axes.get_title() for axes in figure.axes[:3]] == ["1 (79%)\nis 0", "not finite\nis 2", "not finite\nis 1"]
    weight = np.ones((4, 1, 3, 3), np.float32)
    for bad, said in ((0, "filters"), (1, "filters: 9 of 36 weights are not finite"), (4, "filters: 36 of 36 weights are not finite")):
        weight[:bad] = np.nan
        figure = Figure()
        filters(figure, weight, "filters")
        figure.canvas.draw()
        assert figure.axes[0].get_title() == said


@pytest.mark.parametrize("t", [-0.5, 0.0, 0.8])
def test_third_derivatives(t):
    example = import_module("third_derivative")
    for name, norm in example.NORMS.items():
        want = [example.exact(norm, t, order) for order in (1, 2, 3)]
        np.testing.assert_allclose(example.derivatives(mg, norm, t), want, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("refused", ["none", "some", "all", "not installed"])
def test_the_plot_of_third_derivatives_says_what_is_missing(refused, monkeypatch):
    """No entry of a legend without a mark, and none for a PyTorch that is not there; an error of 0 is no error of 1e-16."""
    figures = pytest.importorskip("matplotlib.figure", reason="the examples' extra is not installed")
    example = import_module("third_derivative")
    torch = None if refused == "not installed" else argparse.Namespace(__version__="9")

    def derivatives(library, norm, t):
        return [1.0, 1.0, np.nan if library is torch and (refused == "all" or refused == "some" and t < 0) else 1.0]
    monkeypatch.setattr(example, "derivatives", derivatives)
    monkeypatch.setattr(example, "torch", torch)
    curve, dots = figures.Figure(), figures.Figure()
    example.third(curve, "batch_norm")
    last = np.nan if refused == "all" else 0.3
    example.errors(dots, [("batch_norm", 1, 1.0, 0.0, 1e-16), ("batch_norm", 2, 1.0, 1e-9, 1e-15), ("batch_norm", 3, 1.0, 1e-9, last)])
    for figure in curve, dots:
        for drawn in figure.axes[0].lines:
            assert len(drawn.get_xdata()) and np.isfinite(drawn.get_ydata()).any()
    assert [drawn.get_label() for drawn in curve.axes[0].lines] == ["exact", "minigrad"] + {
        "none": ["PyTorch 9"], "some": ["PyTorch 9", "PyTorch 9 refuses"], "all": ["PyTorch 9 refuses"], "not installed": []}[refused]
    want = {"all": ["PyTorch", "PyTorch refuses"], "not installed": []}.get(refused, ["PyTorch"])
    assert [drawn.get_label() for drawn in dots.axes[0].lines] == [*want, "minigrad", "error 0: every digit is right"]
    assert dots.axes[0].lines[-1].get_fillstyle() == "none"


@pytest.mark.slow
@pytest.mark.torch
def test_torch_is_wrong_where_the_example_says_so():
    torch = pytest.importorskip("torch")
    example = import_module("third_derivative")
    off = {}
    for name, norm in example.NORMS.items():
        *first, third = example.derivatives(torch, norm, 0.0)
        np.testing.assert_allclose(first, [example.exact(norm, 0.0, order) for order in (1, 2)], rtol=1e-9)
        off[name] = abs(third / example.exact(norm, 0.0, 3) - 1)
    assert {name for name, error in off.items() if error > 0.1} == {"layer_norm", "instance_norm", "batch_norm"}
    assert max(off["group_norm"], off["rms_norm"]) < 1e-9


@pytest.mark.slow
def test_third_derivative_program(tmp_path, monkeypatch, capsys):
    run(monkeypatch, "third_derivative", "--out", tmp_path)
    assert capsys.readouterr().out.splitlines()[-1] == f"plot: {tmp_path / 'third_derivative.png'}"
    assert (tmp_path / "third_derivative.png").stat().st_size > 20_000


EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient
book = nbformat.read(sys.argv[1], 4)
NotebookClient(book, timeout=300, resources={"metadata": {"path": sys.argv[2]}}).execute()
nbformat.write(book, sys.argv[3])
"""


@pytest.mark.slow
def test_tour(tmp_path):
    """Every cell runs, and prints what the file holds, unless the cell is tagged `varies` (times, results of training)."""
    for package in "nbclient", "ipykernel", "matplotlib", "sklearn":
        pytest.importorskip(package, reason="the tour runs in a notebook kernel, and draws digits: pip install '.[test]'")
    stored, again = curves.EXAMPLES / "tour.ipynb", tmp_path / "tour.ipynb"
    ran = run_python("-c", EXECUTE, str(stored), str(tmp_path), str(again))
    assert ran.returncode == 0, ran.stderr
    cells, new = (json.loads(path.read_text())["cells"] for path in (stored, again))
    for cell, executed in zip(cells, new, strict=True):
        if cell["cell_type"] != "code":
            continue
        assert [output["output_type"] for output in cell["outputs"]] == [output["output_type"] for output in executed["outputs"]]
        assert not any(output.get("name") == "stderr" for output in cell["outputs"])
        if "varies" not in cell["metadata"].get("tags", ()):
            assert printed(cell) == printed(executed)
    assert sum(bool(cell.get("outputs")) for cell in cells) > 8
    assert str(curves.EXAMPLES.parent) not in stored.read_text() and "/tmp/" not in stored.read_text()


def printed(cell):
    """What a cell has printed."""
    return "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")


@pytest.mark.slow
def test_a_new_op_in_three_steps():
    """With a C compiler: kernels run, every check holds, and the table says so."""
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("there is no C compiler here")
    ran = subprocess.run([sys.executable, "new_op.py"], cwd=curves.EXAMPLES, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "fused kernels are switched off" in ran.stdout and "launches capped_norm_forward_f32\n" in ran.stdout
    assert "capped_norm: all checks hold\n" in ran.stdout and "  oracle     2 samples" in ran.stdout and "fused      2 of 2 samples" in ran.stdout
    table = ran.stdout.splitlines()[-3:]
    assert table[0].split()[:3] == ["capped_norm", "kernel", "definition"] and table[1].startswith("[1024, 256], [256] ")
    again = subprocess.run([sys.executable, "-m", "minigrad.bench", "new_op:capped_norm"], cwd=curves.EXAMPLES, capture_output=True, text=True)
    assert again.returncode == 0 and again.stdout.splitlines()[0].split() == table[0].split()
    wrong = subprocess.run([sys.executable, "-m", "minigrad.bench", "new_op:main"], cwd=curves.EXAMPLES, capture_output=True, text=True)
    assert wrong.returncode == 2 and "'main' is no op: decorate the function with @minigrad.op" in wrong.stderr
