"""A small net learns handwritten digits, with a normalization of your choice.

    python examples/digits_mlp.py --norm layer
    python examples/digits_mlp.py --norm batch --epochs 40 --resume

Writes a checkpoint (every epoch) and a plot to --out: the curves, and which
digits are taken for others. The training step is captured: from the second
batch on, forward, backward and Adam are one native call.
"""
from __future__ import annotations

from collections.abc import Callable

from experiment import Experiment, answers, parser, scores
from pictures import confusion, filters, mistakes

import minigrad as mg
from minigrad import data, nn, optim
from minigrad.nn import functional as F

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "layer": nn.LayerNorm, "batch": nn.BatchNorm1d, "group": lambda n: nn.GroupNorm(8, n), "rms": nn.RMSNorm,
    "none": lambda n: nn.Identity()}


def build(norm: str = "layer", hidden: int = 128, dropout: float = 0.2) -> nn.Sequential:
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
    arguments.add_argument("--norm", choices=NORMS, default="layer", help="normalization of the hidden layers")
    options = arguments.parse_args()
    with Experiment(f"digits_mlp_{options.norm}", options) as run:
        train, test = data.digits(seed=0)
        size = run.batch_size(len(train), least=2 if options.norm == "batch" else 1)
        loader = data.DataLoader(train, batch_size=size, shuffle=True, drop_last=True, seed=options.seed)
        model = build(options.norm).to(run.device)
        optimizer = optim.Adam(model.parameters(), lr=options.lr)
        run.keep(model=model, optimizer=optimizer, loader=loader)
        run.show(lambda figure: confusion(figure, *answers(model, test)),
                 lambda figure: mistakes(figure, *answers(model, test), test.tensors[0].reshape(-1, 1, 8, 8).numpy()),
                 lambda figure: filters(figure, model[0].weight.numpy(force=True)[:40].reshape(-1, 1, 8, 8),
                                        "first layer: the weights of 40 units"))

        step = run.captured(training_step(model, optimizer))

        for _ in run.epochs():
            loss = run.mean(step(images.to(run.device), labels.to(run.device)).item()
                            for images, labels in run.batches(loader))
            run.log(train={"loss": loss}, test=scores(model, test))


if __name__ == "__main__":
    main()
