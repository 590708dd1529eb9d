"""A small residual net with batch normalization learns CIFAR-10.

    python examples/cifar_cnn.py --download        # fetches the files first
    python examples/cifar_cnn.py --data ~/cifar --epochs 10

Draws the curves, which classes are taken for others, and the filters of the
first layer.
"""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from experiment import Experiment, cosine, image_sets, of_images, parser, scores

import minigrad as mg
from minigrad import data, nn, optim
from minigrad.nn import functional as F


class Residual(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x)))))), He et al. 2016, fig. 2: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: mg.Tensor) -> mg.Tensor:
        """x (N, C, H, W) -> (N, C, H, W)."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(y)))


def build(channels: int = 32) -> nn.Sequential:
    """Images (N, 3, 32, 32) -> logits (N, 10)."""
    def narrow(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
                nn.MaxPool2d(2)]
    return nn.Sequential(*narrow(3, channels), Residual(channels),
                         *narrow(channels, 2 * channels), Residual(2 * channels),
                         *narrow(2 * channels, 4 * channels),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * channels, 10))


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
    arguments = parser(__doc__, epochs=10, batch_size=64)
    arguments.add_argument("--data", type=Path, default=Path("datasets"), help="folder of the files")
    arguments.add_argument("--download", action="store_true", help="fetch the archive if it is missing")
    options = arguments.parse_args()
    with Experiment("cifar_cnn", options) as run:
        train, test = image_sets(data.cifar10, options)
        size = run.batch_size(len(train))
        loader = data.DataLoader(train, batch_size=size, shuffle=True, drop_last=True, seed=options.seed)
        model = build().to(run.device)
        optimizer = optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.05)
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
