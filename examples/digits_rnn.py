"""A layer-normalised LSTM reads scikit-learn's handwritten digits row by row.

    python examples/digits_rnn.py
    python examples/digits_rnn.py --norm none --epochs 40          # the same without normalization
"""
from __future__ import annotations

from collections.abc import Callable

from experiment import Experiment, accuracy, cosine, parser

import minigrad as mg
from minigrad import data, nn, optim
from minigrad.nn import functional as F


class RowReader(nn.Module):
    """Images (N, 8, 8), one row in each step -> logits (N, 10), read from the last hidden state."""

    def __init__(self, norm: str | None = "layer", hidden: int = 64) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, hidden, batch_first=True, norm=norm)
        self.head = nn.Linear(hidden, 10)

    def forward(self, images: mg.Tensor) -> mg.Tensor:
        """Logits (N, 10) of images (N, 8, 8)."""
        _, (h, _) = self.lstm(images)
        return self.head(h[-1])


def training_step(model: nn.Module, optimizer: optim.Optimizer) -> Callable[..., mg.Tensor]:
    """One step on a batch; returns the loss."""
    def step(images: mg.Tensor, labels: mg.Tensor) -> mg.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss
    return step


def main() -> None:
    """The command line."""
    arguments = parser(__doc__, epochs=30, lr=4e-3)
    arguments.add_argument("--norm", choices=("layer", "rms", "none"), default="layer")
    options = arguments.parse_args()
    run = Experiment(f"digits_rnn_{options.norm}", options)

    train, test = (data.TensorDataset(images.reshape(-1, 8, 8), labels)
                   for images, labels in (part.tensors for part in data.digits(seed=0)))
    loader = data.DataLoader(train, batch_size=options.batch_size, shuffle=True, drop_last=True, seed=options.seed)
    model = RowReader(None if options.norm == "none" else options.norm).to(run.device)
    optimizer = optim.Adam(model.parameters(), lr=options.lr)
    scheduler = optim.lr_scheduler.LambdaLR(optimizer, cosine(options.epochs))
    run.keep(model=model, optimizer=optimizer, scheduler=scheduler, loader=loader)

    step = run.captured(training_step(model, optimizer))

    for _ in run.epochs():
        losses = [step(images.to(run.device), labels.to(run.device)).item() for images, labels in loader]
        scheduler.step()
        run.log(loss=sum(losses) / len(losses), accuracy=accuracy(model, test))
    run.finish()


if __name__ == "__main__":
    main()
