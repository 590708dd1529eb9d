"""Shared by the examples: options, progress bar, checkpoint and --resume, the plot.

    run = Experiment("digits_cnn", parser(__doc__, epochs=20).parse_args())
    run.keep(model=model, optimizer=optimizer, loader=loader)      # with --resume: loads the checkpoint
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


def parser(doc: str | None, *, epochs: int, batch_size: int = 32, lr: float = 2e-3) -> argparse.ArgumentParser:
    """The options that every example takes."""
    options = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--epochs", type=_positive, default=epochs)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--batch-size", type=_positive, default=batch_size)
    options.add_argument("--lr", type=float, default=lr)
    options.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    options.add_argument("--out", type=Path, default=Path("runs"), help="folder for the checkpoint and the plot")
    options.add_argument("--resume", action="store_true", help="continue from the checkpoint in --out")
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1; got {number}")
    return number


def cosine(epochs: int) -> Callable[[int], float]:
    """The factor of the learning rate in each epoch, from 1 down to almost 0, for `LambdaLR`.

    A run that is resumed with more epochs follows the curve of all these epochs.
    """
    return lambda epoch: 0.5 + 0.5 * math.cos(math.pi * epoch / epochs)


class Experiment:
    """A training run with its checkpoint, its history and its progress bar."""

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
        """Names the parts of the checkpoint: objects with `state_dict` and `load_state_dict`. With --resume, loads
        them.

        The checkpoint holds the random state and the history as well.
        """
        self.parts = parts
        if not self.options.resume:
            return
        if not self.checkpoint.exists():
            print(f"there is no {self.checkpoint}; starting from the beginning")
            return
        saved = io.load(self.checkpoint)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        mg.set_rng_state(saved["rng"])
        self.history = saved["history"]
        print(f"resumed after epoch {len(self.history)}")

    def captured(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """The step as one native call on the CPU, where capture can record it; on other devices the step itself."""
        return mg.capture(step) if self.device.type == "cpu" else step

    def epochs(self) -> Iterator[int]:
        """The epochs that are left, with a progress bar."""
        if len(self.history) >= self.options.epochs:
            print(f"all {self.options.epochs} epochs are done; ask for more with --epochs")
        done, total = len(self.history), self.options.epochs
        with tqdm(range(done, total), desc=self.name, unit="epoch", initial=done, total=total) as self.bar:
            yield from self.bar

    def batches(self, loader: Any) -> Any:
        """The batches of a long epoch, with a progress bar of their own."""
        return tqdm(loader, desc="batches", leave=False)

    def log(self, **values: float) -> None:
        """Ends an epoch: shows and keeps its figures, and saves the checkpoint."""
        self.history.append(values)
        self.bar.set_postfix({name: f"{value:.4f}" for name, value in values.items()})
        state = {name: part.state_dict() for name, part in self.parts.items()}
        io.save({**state, "rng": mg.get_rng_state(), "history": self.history}, self.checkpoint)

    def print(self, text: str) -> None:
        """Prints text without breaking the progress bar."""
        self.bar.write(f"---\n{text}\n---")

    def finish(self) -> dict[str, float]:
        """Draws the curves: the first figure on the left axis, the others on the right. Returns the last figures."""
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
    """The share of samples for which the largest logit is that of the label, in evaluation mode."""
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
