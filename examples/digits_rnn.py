"""A layer-normalised LSTM reads scikit-learn's handwritten digits row by row.

    python examples/digits_rnn.py
    python examples/digits_rnn.py --norm none        # the same without it

Draws the curves, which digits are taken for others, the hidden states while
the rows come in, and what the net would answer after each row.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from experiment import Experiment, answers, cosine, parser, scores
from pictures import confusion, heat

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


def reading(figure: Any, model: RowReader, images: mg.Tensor) -> None:
    """For some images (N, 8, 8): the image, the hidden states after each row, and the answers after each row."""
    model.eval()
    with mg.no_grad():
        states, _ = model.lstm(images.to(model.head.weight.device))                 # (N, 8 rows, hidden)
        likely = model.head(states).softmax(-1).numpy(force=True)                   # (N, 8 rows, 10)
    model.train()
    grid = figure.subplots(len(images), 3, width_ratios=(1, 3, 2))
    for i, (image, (left, middle, right)) in enumerate(zip(images.numpy(), grid, strict=True)):
        heat(left, image, "image" if i == 0 else "", "", "row", cmap="gray_r")
        of_states = heat(middle, states[i].numpy(force=True), "hidden states" if i == 0 else "", "unit", "after row",
                         cmap="RdBu_r", vmin=-1, vmax=1)
        of_digits = heat(right, likely[i], "probability of each digit" if i == 0 else "", "digit", "after row",
                         cmap="Blues", vmin=0, vmax=1)
        right.set_xticks(range(10))
    figure.colorbar(of_states, ax=grid[:, 1], location="bottom", shrink=0.6, aspect=40)
    figure.colorbar(of_digits, ax=grid[:, 2], location="bottom", shrink=0.6, aspect=40)


def main() -> None:
    """The command line."""
    arguments = parser(__doc__, epochs=30, lr=4e-3)
    arguments.add_argument("--norm", choices=("layer", "rms", "none"), default="layer",
                           help="normalization in the LSTM")
    options = arguments.parse_args()
    with Experiment(f"digits_rnn_{options.norm}", options) as run:
        train, test = (data.TensorDataset(images.reshape(-1, 8, 8), labels)
                       for images, labels in (part.tensors for part in data.digits(seed=0)))
        size = run.batch_size(len(train))
        loader = data.DataLoader(train, batch_size=size, shuffle=True, drop_last=True, seed=options.seed)
        model = RowReader(None if options.norm == "none" else options.norm).to(run.device)
        optimizer = optim.Adam(model.parameters(), lr=options.lr)
        scheduler = optim.lr_scheduler.LambdaLR(optimizer, cosine(options.epochs))
        run.keep(model=model, optimizer=optimizer, scheduler=scheduler, loader=loader)
        run.show(lambda figure: confusion(figure, *answers(model, test)),
                 lambda figure: reading(figure, model, test.tensors[0][:3]))

        step = run.captured(training_step(model, optimizer))

        for _ in run.epochs():
            loss = run.mean(step(images.to(run.device), labels.to(run.device)).item()
                            for images, labels in run.batches(loader))
            scheduler.step()
            run.log(train={"loss": loss}, test=scores(model, test))


if __name__ == "__main__":
    main()
