"""A small convolutional net with batch normalization learns scikit-learn's
handwritten digits.

    python examples/digits_cnn.py
    python examples/digits_cnn.py --epochs 40 --resume

Draws the curves, which digits are taken for others, and the filters of the
first layer.
"""
from __future__ import annotations

from collections.abc import Callable

from experiment import Experiment, cosine, of_images, parser, scores

import minigrad as mg
from minigrad import data, nn, optim
from minigrad.nn import functional as F


def build(channels: int = 32, dropout: float = 0.2) -> nn.Sequential:
    """Images (N, 1, 8, 8) -> logits (N, 10)."""
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*block(1, channels), *block(channels, channels), nn.MaxPool2d(2),
                         *block(channels, 2 * channels), nn.MaxPool2d(2),
                         nn.Flatten(), nn.Dropout(dropout), nn.Linear(2 * channels * 4, 10))


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
    options = parser(__doc__, epochs=20).parse_args()
    with Experiment("digits_cnn", options) as run:
        train, test = data.digits(seed=0, flat=False)
        size = run.batch_size(len(train))
        loader = data.DataLoader(train, batch_size=size, shuffle=True, drop_last=True, seed=options.seed)
        model = build().to(run.device)
        optimizer = optim.AdamW(model.parameters(), lr=options.lr)
        scheduler = optim.lr_scheduler.LambdaLR(optimizer, cosine(options.epochs))
        run.keep(model=model, optimizer=optimizer, scheduler=scheduler, loader=loader)
        run.show(*of_images(model, test))

        step = run.captured(training_step(model, optimizer))

        for _ in run.epochs():
            loss = run.mean(step(images.to(run.device), labels.to(run.device)).item()
                            for images, labels in run.batches(loader))
            scheduler.step()
            run.log(train={"loss": loss}, test=scores(model, test))


if __name__ == "__main__":
    main()
