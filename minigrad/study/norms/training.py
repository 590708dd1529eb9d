"""What the experiments share: data, networks with a norm to choose, and a training loop of captured steps."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from ... import data, nn, optim
from ...core.capture import capture
from ...core.modes import no_grad
from ...core.tensor import Tensor
from ...nn import functional as F
from ...ops.creation import zeros
from ...ops.random import manual_seed

GROUPS = 4
CEILING = 10.0                  # what a loss counts that is not finite, or larger


def digits(seed: int, flat: bool = True, count: int | None = None) -> tuple[data.TensorDataset, data.TensorDataset]:
    """Half of the digits to train on (or the first `count` of that half), the other half to test; `seed` splits."""
    train, test = data.digits(test=0.5, seed=seed, flat=flat)
    return data.TensorDataset(*[t[:count] for t in train.tensors]), test


def text_windows(length: int) -> tuple[Tensor, int]:
    """CPython's documentation cut into windows of `length` + 1 characters, and how many characters there are."""
    text = data.python_docs_text()
    tokenizer = data.CharTokenizer(text)
    tokens = tokenizer.encode(text)
    return tokens[:len(tokens) // (length + 1) * (length + 1)].reshape(-1, length + 1), len(tokenizer)


def norm1d(norm: str, size: int) -> nn.Module:
    """A norm over `size` features."""
    layers: dict[str, Callable[[int], nn.Module]] = {
        "none": nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm, "rms": nn.RMSNorm,
        "group": lambda n: nn.GroupNorm(GROUPS, n)}
    return layers[norm](size)


def norm2d(norm: str, channels: int, side: int) -> nn.Module:
    """A norm of images (N, channels, side, side); "layer" takes channels and space together."""
    layers: dict[str, Callable[[int], nn.Module]] = {
        "none": nn.Identity, "batch": nn.BatchNorm2d, "group": lambda n: nn.GroupNorm(GROUPS, n),
        "instance": lambda n: nn.InstanceNorm2d(n, affine=True), "layer": lambda n: nn.LayerNorm((n, side, side))}
    return layers[norm](channels)


def mlp(norm: str, width: int = 128, dropout: float = 0.0) -> nn.Module:
    """Digits (N, 64) -> logits (N, 10), through two hidden layers."""
    def block(inputs: int) -> list[nn.Module]:
        return [nn.Linear(inputs, width), norm1d(norm, width), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
    return nn.Sequential(*block(64), *block(width), nn.Linear(width, 10))


def cnn(norm: str, channels: int = 16, depth: int = 1) -> nn.Module:
    """Digits (N, 1, 8, 8) -> logits (N, 10): `depth` convolutions on 8x8, as many on 4x4, then a linear layer.

    Initial values are those of He et al. 2015, so that the net without norm can learn too. There the convolutions have
    a bias, which starts at 0; elsewhere the norm has it. So the weights of one seed are the same with each norm.
    """
    layers: list[nn.Module] = []
    inputs = 1
    for side in (8, 4):
        for _ in range(depth):
            convolution = nn.Conv2d(inputs, channels, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            if norm == "none":                  # not by `bias=True`, which would draw random numbers
                convolution.bias = nn.Parameter(zeros(channels))
            layers += [convolution, norm2d(norm, channels, side), nn.ReLU()]
            inputs = channels
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * 4, 10))


def fit(model: nn.Module, optimizer: optim.Optimizer, batches: Iterable[tuple[Tensor, Tensor]]) -> list[float]:
    """Trains on each batch, with captured steps; returns the losses. Ends early where a loss is not finite."""
    @capture
    def step(inputs: Tensor, labels: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        return loss
    losses: list[float] = []
    for inputs, labels in batches:
        losses.append(step(inputs, labels).item())
        if not math.isfinite(losses[-1]):
            break
    return losses


def epochs(dataset: data.TensorDataset, batch: int, count: int, seed: int) -> Iterable[tuple[Tensor, Tensor]]:
    """The batches of `count` epochs, shuffled anew in each; what does not fill a batch is left out."""
    loader = data.DataLoader(dataset, batch_size=batch, shuffle=True, drop_last=True, seed=seed)
    for _ in range(count):
        yield from loader


def text_batches(windows: Tensor, batch: int, count: int, seed: int) -> Iterable[tuple[Tensor, Tensor]]:
    """`count` batches of windows at random places: characters (batch, length) and the next ones, flat."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        chosen = windows[rng.integers(0, len(windows), batch)]
        yield chosen[:, :-1].contiguous(), chosen[:, 1:].reshape(-1)


@no_grad()
def test(model: nn.Module, dataset: data.TensorDataset) -> tuple[float, float]:
    """(error in %, mean loss) in evaluation mode."""
    inputs, labels = dataset.tensors
    model.eval()
    logits = model(inputs)
    model.train()
    return 100 * (1 - (logits.argmax(1) == labels).float().mean().item()), F.cross_entropy(logits, labels).item()


def seeded(seed: int, build: Callable[..., nn.Module], *args: object) -> nn.Module:
    """A network whose initial values come from `seed`: those of networks of one shape are the same."""
    manual_seed(seed)
    return build(*args)


def ending(losses: list[float], steps: int) -> float:
    """The mean loss over the last tenth of the steps; CEILING if it is larger, or if the losses ended before."""
    if len(losses) < steps or not math.isfinite(losses[-1]):
        return CEILING
    return min(float(f"{np.mean(losses[-max(steps // 10, 1):]):.5g}"), CEILING)


def thinned(losses: list[float], steps: int, points: int = 30) -> list[float]:
    """The losses of so many steps as a curve of at most `points` means; CEILING where they are larger or missing."""
    full = np.array(losses + [CEILING] * (steps - len(losses)))
    full = np.minimum(np.where(np.isfinite(full), full, CEILING), CEILING)
    return [float(f"{np.mean(part):.4g}") for part in np.array_split(full, min(points, steps))]
