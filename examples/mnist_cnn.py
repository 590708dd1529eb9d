"""A convolutional net learns MNIST (or Fashion-MNIST, with --fashion) from the
original files.

    python examples/mnist_cnn.py --download        # fetches the files first
    python examples/mnist_cnn.py --data ~/mnist --epochs 5

Draws the curves, which classes are taken for others, and the filters of the
first layer.
"""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from experiment import Experiment, image_sets, of_images, parser, scores

import minigrad as mg
from minigrad import data, nn, optim
from minigrad.nn import functional as F


def build(channels: int = 16, dropout: float = 0.2) -> nn.Sequential:
    """Images (N, 1, 28, 28) -> logits (N, 10)."""
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
                nn.MaxPool2d(2)]
    return nn.Sequential(*block(1, channels), *block(channels, 2 * channels), *block(2 * channels, 2 * channels),
                         nn.Flatten(), nn.Dropout(dropout), nn.Linear(2 * channels * 9, 10))


def training_step(model: nn.Module, optimizer: optim.Optimizer) -> Callable[..., mg.Tensor]:
    """One step on a batch; returns the loss."""
    def step(images: mg.Tensor, labels: mg.Tensor) -> mg.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss
    return step


def main() -> None:
    """The command line."""
    arguments = parser(__doc__, epochs=3, batch_size=64)
    arguments.add_argument("--data", type=Path, default=Path("datasets"), help="folder of the files")
    arguments.add_argument("--download", action="store_true", help="fetch the files that are missing")
    arguments.add_argument("--fashion", action="store_true", help="Fashion-MNIST instead")
    options = arguments.parse_args()
    with Experiment("fashion_mnist_cnn" if options.fashion else "mnist_cnn", options) as run:
        train, test = image_sets(data.fashion_mnist if options.fashion else data.mnist, options)
        size = run.batch_size(len(train))
        loader = data.DataLoader(train, batch_size=size, shuffle=True, drop_last=True, seed=options.seed)
        model = build().to(run.device)
        optimizer = optim.AdamW(model.parameters(), lr=options.lr)
        run.keep(model=model, optimizer=optimizer, loader=loader)
        run.show(*of_images(model, test))

        step = run.captured(training_step(model, optimizer))

        for _ in run.epochs():
            loss = run.mean(step(images.to(run.device), labels.to(run.device)).item()
                            for images, labels in run.batches(loader))
            run.log(train={"loss": loss}, test=scores(model, test))


if __name__ == "__main__":
    main()
