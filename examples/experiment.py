"""What the examples share: options, progress bar, checkpoint and --resume, the plot.

    run = Experiment("digits_cnn", parser(__doc__, epochs=20).parse_args())
    run.keep(model=model, optimizer=optimizer, loader=loader)      # with --resume: loaded from the checkpoint
    for epoch in run.epochs():
        ...
        run.log(loss=..., accuracy=...)                            # progress bar, history, checkpoint
    run.finish()                                                   # the plot
"""
from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

import minigrad as mg
from minigrad import data, io, nn


def parser(doc: str, *, epochs: int, batch_size: int = 32, lr: float = 2e-3) -> argparse.ArgumentParser:
    """The options that every example takes."""
    options = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--epochs", type=_positive, default=epochs)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--batch-size", type=_positive, default=batch_size)
    options.add_argument("--lr", type=float, default=lr)
    options.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    options.add_argument("--out", type=Path, default=Path("runs"), help="folder for the checkpoint and the plot")
    options.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1; got {number}")
    return number


def cosine(epochs: int) -> Callable[[int], float]:
    """The factor of the learning rate in each epoch, from 1 to nearly 0; a run that is resumed for longer gets the longer curve."""
    return lambda epoch: 0.5 + 0.5 * math.cos(math.pi * epoch / epochs)


class Experiment:
    """A training run: what it keeps, how far it is, what it has seen."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name, self.options = name, options
        self.device = mg.device(options.device)
        self.parts: dict[str, Any] = {}
        self.history: list[dict[str, float]] = []
        options.out.mkdir(parents=True, exist_ok=True)
        self.checkpoint = options.out / f"{name}.safetensors"
        self.picture = options.out / f"{name}.png"
        mg.manual_seed(options.seed)

    def keep(self, **parts: Any) -> None:
        """What the checkpoint holds, each with state_dict() and load_state_dict(), beside the random state and the history."""
        self.parts = parts
        if not self.options.resume:
            return
        if not self.checkpoint.exists():
            print(f"there is no {self.checkpoint}; starting afresh")
            return
        saved = io.load(self.checkpoint)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        mg.set_rng_state(saved["rng"])
        self.history = saved["history"]
        print(f"resumed after epoch {len(self.history)}")

    def captured(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """The step as one native call where capture can record (on the CPU), else as it is."""
        return mg.capture(step) if self.device.type == "cpu" else step

    def epochs(self) -> Iterator[int]:
        """The epochs still to do, under a progress bar."""
        if len(self.history) >= self.options.epochs:
            print(f"all {self.options.epochs} epochs are done; ask for more with --epochs")
        with tqdm(range(len(self.history), self.options.epochs), desc=self.name, unit="epoch", initial=len(self.history),
                  total=self.options.epochs) as self.bar:
            yield from self.bar

    def batches(self, loader: Any) -> Any:
        """The batches of a long epoch, under a progress bar of their own."""
        return tqdm(loader, desc="batches", leave=False)

    def log(self, **values: float) -> None:
        """The figures of an epoch; saves the checkpoint."""
        self.history.append(values)
        self.bar.set_postfix({name: f"{value:.4f}" for name, value in values.items()})
        state = {name: part.state_dict() for name, part in self.parts.items()}
        io.save({**state, "rng": mg.get_rng_state(), "history": self.history}, self.checkpoint)

    def print(self, text: str) -> None:
        """Text beside the progress bar."""
        self.bar.write(f"---\n{text}\n---")

    def finish(self) -> dict[str, float]:
        """Draws the curves, the first figure on the left axis and the others on the right. Returns the last figures."""
        figure, left = axes()
        right = left.twinx()
        names = list(self.history[-1])
        for i, name in enumerate(names):
            side = right if i else left
            side.plot(range(1, len(self.history) + 1), [h[name] for h in self.history], color=f"C{i}", label=name)
            side.set_ylabel(name if i == 0 else ", ".join(names[1:]))
        figure.legend(loc="outside upper center", ncols=len(names))
        left.set_xlabel("epoch")
        left.xaxis.get_major_locator().set_params(integer=True)
        figure.savefig(self.picture, dpi=100)
        last = self.history[-1]
        print(", ".join(f"{name} {value:.4f}" for name, value in last.items()),
              f"(curves in {self.picture}, checkpoint in {self.checkpoint})")
        return last


def axes() -> Any:
    """A figure that needs no screen, and its axes."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    return plt.subplots(figsize=(6, 4), layout="constrained")


def accuracy(model: nn.Module, dataset: data.TensorDataset) -> float:
    """The share of a data set that a classifier gets right, in evaluation mode."""
    inputs, labels = dataset.tensors
    device = next(model.parameters()).device
    model.eval()
    with mg.no_grad():
        right = sum((model(inputs[i:i + 500].to(device)).argmax(1) == labels[i:i + 500].to(device)).sum().item()
                    for i in range(0, len(labels), 500))
    model.train()
    return right / len(labels)


def corpus() -> tuple[data.CharTokenizer, mg.Tensor, mg.Tensor]:
    """CPython's documentation as characters: the tokenizer, nine tenths to train on, the last tenth held out."""
    text = data.python_docs_text()
    tokenizer = data.CharTokenizer(text)
    tokens = tokenizer.encode(text)
    cut = len(tokens) * 9 // 10
    return tokenizer, tokens[:cut], tokens[cut:]


def sample(logits: mg.Tensor, temperature: float = 0.8) -> mg.Tensor:
    """One token (1,) drawn from the softmax of logits (characters,)."""
    return mg.multinomial((logits / temperature).softmax(-1), 1)
