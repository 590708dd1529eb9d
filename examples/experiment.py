"""Shared by the examples: options, checkpoint and --resume, a line for each epoch, and an end with a plot.

    options = parser(__doc__, epochs=20).parse_args()
    with Experiment("digits_cnn", options) as run:
        ...
        run.keep(model=model, optimizer=optimizer, loader=loader)       # with --resume: loads the checkpoint
        run.show(lambda figure: ...)                                    # a picture beside the curves
        for _ in run.epochs():
            loss = run.mean(... for images, labels in run.batches(loader))
            run.log(train={"loss": loss}, test={"loss": ..., "accuracy": ...})      # prints them, saves the checkpoint

When the block ends, by itself or by Ctrl-C, it draws the plot and says where plot and checkpoint are. Ctrl-C saves the
checkpoint after the step that runs, in the middle of an epoch as well.
"""
from __future__ import annotations

import argparse
import hashlib
import math
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from pictures import confusion, curves, filters, mistakes, plot
from tqdm import tqdm

import minigrad as mg
from minigrad import data, io, nn, optim
from minigrad.nn import functional as F


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description, and shows the default of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        unset = action.default is None or action.default is False
        return action.help if unset else super()._get_help_string(action)


def parser(doc: str | None, *, epochs: int, batch_size: int = 32, lr: float = 2e-3) -> argparse.ArgumentParser:
    """The options that every example takes."""
    options = argparse.ArgumentParser(description=doc, formatter_class=_Help)
    options.add_argument("--epochs", type=at_least(1), default=epochs, help="passes over the training data")
    options.add_argument("--batch-size", type=at_least(1), default=batch_size, help="samples in a step")
    options.add_argument("--lr", type=_rate, default=lr, help="learning rate")
    options.add_argument("--seed", type=int, default=0, help="of the random numbers")
    options.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    options.add_argument("--out", type=folder, default=Path("runs"), help="folder for the checkpoint and the plot")
    options.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    return options


def at_least(least: int) -> Callable[[str], int]:
    """The type of an option: a whole number that is not smaller."""
    def number(text: str) -> int:
        if not text.strip().lstrip("+-").isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number, at least {least}; got {text}")
        return int(text)
    return number


def _rate(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0; got {text}")
    return number


def folder(text: str) -> Path:
    """The type of an option: a folder, which need not be there yet."""
    if Path(text).exists() and not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"must be a folder; {text} is none")
    return Path(text)


@contextmanager
def option(name: str) -> Iterator[None]:
    """An error in the block ends the program with one line that names the option, as errors of argparse do."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        print(f"{Path(sys.argv[0]).name}: error: argument {name}: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def cosine(epochs: int) -> Callable[[int], float]:
    """The factor of the learning rate in each epoch, from 1 down to almost 0, for `LambdaLR`.

    A run that is resumed with more epochs follows the curve of all these epochs.
    """
    return lambda epoch: 0.5 + 0.5 * math.cos(math.pi * epoch / epochs)


class Experiment:
    """A training run with its checkpoint, its history and its end."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name, self.options = name, options
        with option("--device"):
            self.device = mg.device(options.device)
        with option("--out"):
            options.out.mkdir(parents=True, exist_ok=True)
        with option("--seed"):
            mg.manual_seed(options.seed)
        self.checkpoint = options.out / f"{name}.safetensors"
        self.picture = options.out / f"{name}.png"
        self.text = ""                                                  # digest of the text that is learned
        self.parts: dict[str, Any] = {}                                 # what the checkpoint holds
        self.history: list[dict[str, dict[str, float]]] = []            # of each epoch: who -> quantity -> value
        self.pictures: list[Callable[[Any], None]] = []
        self.steps, self.losses = 0, list[float]()                      # of the epoch that runs, as far as it came
        self.ours = False                                               # the checkpoint is of this run
        self.stopping, self.handler = False, signal.getsignal(signal.SIGINT)
        self.bar: Any = None

    def batch_size(self, most: int, least: int = 1, why: str = "the number of training samples") -> int:
        """The option --batch-size, which must be from `least` to `most`; `why` says what the latter is."""
        size = self.options.batch_size
        with option("--batch-size"):
            if not least <= size <= most:
                raise ValueError(f"must be from {least} to {most}, {why}; got {size}")
        return size

    def corpus(self, least: int) -> tuple[data.CharTokenizer, mg.Tensor, mg.Tensor]:
        """The option --text as characters: the tokenizer, nine tenths to train on, the last tenth (at least `least`)
        held out. Without the option, the text is CPython's documentation."""
        file = self.options.text
        with option("--text"):
            text = data.python_docs_text() if file is None else file.read_text(encoding="utf-8")
            if len(text) < 10 * least:
                raise ValueError(f"must hold at least {10 * least} characters; {file} holds {len(text)}")
        self.text = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        tokenizer = data.CharTokenizer(text)
        tokens = tokenizer.encode(text)
        cut = len(tokens) * 9 // 10
        return tokenizer, tokens[:cut], tokens[cut:]

    def keep(self, **parts: Any) -> None:
        """Names the parts of the checkpoint: objects with `state_dict` and `load_state_dict`. With --resume, loads
        them.

        The checkpoint holds the random state, the history, the options that must stay as they are, and a digest of the
        text as well.
        """
        self.parts = parts
        if self.options.resume:
            with option("--resume"):
                self._load()
            print(f"resumed {self._place()}")

    def _load(self) -> None:
        if not self.checkpoint.exists():
            raise FileNotFoundError(f"there is no {self.checkpoint}; start without --resume, or name the folder of the "
                                    "checkpoint with --out")
        saved = io.load(self.checkpoint)
        missing = {*self.parts, "rng", "history", "options"} - saved.keys()
        if missing:
            raise ValueError(f"{self.checkpoint} is the checkpoint of another program; it has no {sorted(missing)}")
        for name, value in saved["options"].items():
            if getattr(self.options, name) != value:
                raise ValueError(f"{self.checkpoint} goes on with --{name.replace('_', '-')} {value} only; "
                                 f"got {getattr(self.options, name)}")
        if saved.get("text", self.text) != self.text:
            with option("--text"):
                raise ValueError(f"{self.checkpoint} goes on with the text that it has learned from only; got "
                                 f"{self.options.text or 'the documentation of CPython'}")
        for name, part in self.parts.items():
            part.load_state_dict(saved[name])
        for part in self.parts.values():
            if isinstance(part, optim.lr_scheduler.LambdaLR):       # what was loaded is a rate of the curve of before
                groups = part.optimizer.param_groups
                for group, base, factor in zip(groups, part.base_lrs, part.lr_lambdas, strict=True):
                    group["lr"] = base * factor(part.last_epoch)
        mg.set_rng_state(saved["rng"])
        self.history = saved["history"]
        self.steps, self.losses = saved.get("steps", 0), list(saved.get("losses", ()))
        self.ours = True

    def _save(self) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()}
        options = {name: getattr(self.options, name) for name in ("batch_size", "lr", "seed")}
        io.save({**state, "rng": mg.get_rng_state(), "history": self.history, "steps": self.steps,
                 "losses": self.losses, "options": options, "text": self.text}, self.checkpoint)
        self.ours = True

    def _place(self) -> str:
        """Where the run is: "after epoch 3", or "in epoch 4 after 7 steps"."""
        done = len(self.history)
        if done and not self.steps:
            return f"after epoch {done}"
        return f"in epoch {done + 1} after {self.steps} step{'s' * (self.steps != 1)}"

    def show(self, *pictures: Callable[[Any], None]) -> None:
        """Adds pictures to the plot: functions that draw on a figure (matplotlib's) when the run ends."""
        self.pictures += pictures

    def captured(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """The step as one native call, on a GPU as one CUDA graph."""
        return mg.capture(step)

    # ---- the epochs ----

    def epochs(self) -> Iterator[int]:
        """The numbers of the epochs that are left, from 0 on. Ctrl-C ends them after the step that runs, or after the
        epoch if that was its last step."""
        if len(self.history) >= self.options.epochs:
            print(f"the checkpoint holds {len(self.history)} epochs; ask for more than these with --epochs")
        signal.signal(signal.SIGINT, self._stop)
        for epoch in range(len(self.history), self.options.epochs):
            self.start = time.perf_counter()
            yield epoch

    def _stop(self, *_: Any) -> None:
        self.stopping = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)        # a second Ctrl-C ends the program at once

    def _pause(self) -> None:
        if self.stopping:
            raise KeyboardInterrupt

    def batches(self, batches: Any) -> Iterator[Any]:
        """The batches of an epoch that are left, with a progress bar if it takes more than half a second."""
        count, epoch = len(batches), f"epoch {len(self.history) + 1}/{self.options.epochs}"
        goes_on = any(batches is part for part in self.parts.values())      # a loader knows by itself where it was
        rest = batches if goes_on else islice(batches, self.steps, None)
        self.bar = tqdm(rest, epoch, count, initial=self.steps, unit="batch", leave=False, delay=0.5, disable=None)
        self._pause()
        for batch in self.bar:
            yield batch
            self.steps += 1
            if self.steps < count:
                self._pause()

    def mean(self, losses: Iterable[float] = ()) -> float:
        """The mean loss of an epoch: of these steps, and of those whose losses are in `self.losses` already, as they
        are when an interrupted epoch goes on."""
        for loss in losses:
            self.losses.append(loss)
        return sum(self.losses) / len(self.losses)

    def log(self, **values: dict[str, float]) -> None:
        """Ends an epoch: prints and keeps its figures, and saves the checkpoint."""
        self.history.append(values)
        self.steps, self.losses = 0, []
        self._save()
        total, seconds = str(self.options.epochs), time.perf_counter() - self.start
        done = f"epoch {len(self.history):>{len(total)}}/{total}"
        print(done, *self._figures(), f"{seconds:.2f} s", sep="  ", flush=True)
        self._pause()

    def _figures(self) -> list[str]:
        """The values of the last epoch: "test loss 0.1234", ..."""
        return [f"{who} {name} {value:.4f}" if abs(value) < 1e4 else f"{who} {name} {value:.1e}"
                for who, figures in self.history[-1].items() for name, value in figures.items()]

    # ---- the end ----

    def __enter__(self) -> Experiment:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if self.bar is not None:
            self.bar.close()
        if kind is None:
            self._finish()
        elif kind is KeyboardInterrupt:
            self._end_early()
            raise SystemExit(130)
        signal.signal(signal.SIGINT, self.handler)

    def _end_early(self) -> None:
        print(f"\nstopped {self._place()}" if self.parts else "\nstopped")
        if self.steps and (self.ours or not self.checkpoint.exists()):
            self._save()
        if self.ours:
            self._finish()
            again = [] if self.options.resume else ["--resume"]
            print(f"go on {self._place()} with:\n  python {shlex.join([*sys.argv, *again])}")
        elif self.steps:
            print(f"nothing is saved: {self.checkpoint} is of an earlier run, and no epoch of this one is complete")
        else:
            print("no step is done: nothing is saved")

    def _finish(self) -> None:
        title = f"{self.name} {self._place()}" + (f": {', '.join(self._figures())}" if self.history else "")
        plot(self.picture, title, lambda figure: curves(figure, self.history), *self.pictures)
        print(f"plot: {self.picture}\ncheckpoint: {self.checkpoint}")


def answers(model: nn.Module, dataset: data.TensorDataset) -> tuple[np.ndarray, np.ndarray]:
    """The logits (N, classes) of a data set in evaluation mode, and the labels (N,)."""
    inputs, labels = dataset.tensors
    device = next(model.parameters()).device
    model.eval()
    with mg.no_grad():
        logits = [model(part.to(device)).cpu().numpy() for part in inputs.split(500)]
    model.train()
    return np.concatenate(logits), labels.numpy()


def scores(model: nn.Module, dataset: data.TensorDataset) -> dict[str, float]:
    """The mean cross entropy, and the share of samples for which the largest logit is that of the label."""
    logits, labels = answers(model, dataset)
    return {"loss": F.cross_entropy(mg.tensor(logits), mg.tensor(labels)).item(),
            "accuracy": float((logits.argmax(1) == labels).mean())}


def of_images(model: nn.Sequential, test: data.TensorDataset) -> list[Callable[[Any], None]]:
    """The pictures of a net of convolutions: what it confuses, its mistakes, the filters of its first layer."""
    classes = getattr(test, "classes", ())
    return [lambda figure: confusion(figure, *answers(model, test), classes),
            lambda figure: mistakes(figure, *answers(model, test), test.tensors[0].numpy(), classes),
            lambda figure: filters(figure, model[0].weight.numpy(force=True), "filters of the first layer")]


def image_sets(read: Callable[..., Any], options: argparse.Namespace) -> Any:
    """(train, test) from the files in --data, which --download fetches."""
    with option("--data"):
        try:
            return read(options.data, download=options.download)
        except FileNotFoundError as error:
            raise FileNotFoundError(str(error).replace("download=True", "--download")) from None


def longest_line(text: str) -> str:
    """The longest line of a text, without the spaces around it."""
    return max((line.strip() for line in text.splitlines()), key=len)


def sample(logits: mg.Tensor, temperature: float = 0.8) -> mg.Tensor:
    """One token (1,) drawn from the softmax of logits (characters,). Drawing runs on the CPU: CUDA has no kernel."""
    return mg.multinomial((logits.cpu() / temperature).softmax(-1), 1).to(logits.device)
