"""A small net learns scikit-learn's handwritten digits, with a normalization that you choose.

    python examples/digits_mlp.py --norm layer
    python examples/digits_mlp.py --norm batch --epochs 40 --resume

Writes a checkpoint (every epoch) and a plot of the curves to --out. The training step is captured: from the second
batch on, forward, backward and Adam are one native call.
"""
from __future__ import annotations

from collections.abc import Callable

from experiment import Experiment, accuracy, parser

import minigrad as mg
from minigrad import data, nn, optim
from minigrad.nn import functional as F

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "layer": nn.LayerNorm, "batch": nn.BatchNorm1d, "group": lambda n: nn.GroupNorm(8, n), "rms": nn.RMSNorm,
    "none": lambda n: nn.Identity()}


def build(norm: str = "layer", hidden: int = 128, dropout: float = 0.2) -> nn.Module:
    """Images (N, 64) -> logits (N, 10)."""
    make = NORMS[norm]
    return nn.Sequential(nn.Linear(64, hidden), make(hidden), nn.ReLU(), nn.Dropout(dropout),
                         nn.Linear(hidden, hidden), make(hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 10))


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
    arguments = parser(__doc__, epochs=30)
    arguments.add_argument("--norm", choices=NORMS, default="layer")
    options = arguments.parse_args()
    run = Experiment(f"digits_mlp_{options.norm}", options)

    train, test = data.digits(seed=0)
    loader = data.DataLoader(train, batch_size=options.batch_size, shuffle=True, drop_last=True, seed=options.seed)
    model = build(options.norm).to(run.device)
    optimizer = optim.Adam(model.parameters(), lr=options.lr)
    run.keep(model=model, optimizer=optimizer, loader=loader)

    step = run.captured(training_step(model, optimizer))

    for _ in run.epochs():
        losses = [step(images.to(run.device), labels.to(run.device)).item() for images, labels in loader]
        run.log(loss=sum(losses) / len(losses), accuracy=accuracy(model, test))
    run.finish()


if __name__ == "__main__":
    main()
