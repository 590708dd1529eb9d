"""A small program of a user. test_types.py runs it, and `mypy --strict` and pyright must find nothing in it."""
from __future__ import annotations

from pathlib import Path

import numpy as np

import minigrad as mg
from minigrad import Tensor, autograd, data, nn, optim


class Cube(autograd.Function):
    @staticmethod
    def forward(ctx: autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x ** 3

    @staticmethod
    def backward(ctx: autograd.function.FunctionCtx, g: Tensor) -> Tensor:
        x, = ctx.saved_tensors
        assert x is not None
        gradient: Tensor = 3 * x ** 2 * g
        return gradient


class Model(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(4, width)
        self.norm = nn.LayerNorm(width)
        self.scale = nn.Parameter(mg.ones(width))
        self.last = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = mg.relu(self.first(x)) * self.scale
        h = self.norm(h).exp().log1p().clamp(min=0.1)
        y: Tensor = self.last(h)
        return y


def train(model: Model, loader: data.DataLoader, steps: int) -> float:
    optimizer = optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01)
    loss_of = nn.CrossEntropyLoss()
    total = 0.0
    for _ in range(steps):
        for x, y in loader:
            optimizer.zero_grad()
            loss: Tensor = loss_of(model(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total += loss.item()
    return total


def shapes(x: Tensor) -> tuple[int, ...]:
    values, indices = x.max(dim=1)
    top: Tensor = values + indices.float() - 1
    mask = (x > 0) & (x < 1) | ~(x == 2)
    picked: Tensor = x[mask]
    gradient: Tensor | None = x.grad
    assert gradient is None or gradient.shape == x.shape
    x.grad = mg.zeros_like(x)
    del x.grad
    x.requires_grad = False
    n: int = x.size(0) + x.shape[1] + x.shape.numel() + x.ndim
    both = mg.cat([x, x.T.unsqueeze(0).squeeze(0).mT], dim=0).reshape(-1, 2).view(2, -1)
    both -= 2 - 0.5 * both.add(1, alpha=2) ** 2
    product: Tensor = x @ x.T
    assert x.dtype == mg.float32 and x.device is mg.device("cpu") and n > picked.numel()
    return top.shape + product.shape + both.sum(dim=1, keepdim=True).mean().shape


def main(folder: Path) -> None:
    mg.manual_seed(0)
    x = mg.randn(16, 4)
    y = mg.randint(0, 3, (16,))
    model = Model(8)
    loader = data.DataLoader(data.TensorDataset(x, y), batch_size=4, shuffle=True)
    assert train(model, loader, 2) > 0
    with mg.no_grad():
        best: Tensor = model(x).argmax(dim=1)
    assert best.dtype == mg.int64 and mg.tensor([1, 2], dtype=mg.int).tolist() == [1, 2]

    @mg.capture
    def step(x: Tensor) -> Tensor:
        return (x * 2).sum()
    for _ in range(3):
        step(x)

    mg.save(model.state_dict(), folder / "model.safetensors")
    model.load_state_dict(mg.load(folder / "model.safetensors"))
    t = mg.tensor([1.0, 2.0], requires_grad=True)
    g, = autograd.grad(Cube.apply(t).sum(), [t], create_graph=True)
    assert g is not None and np.asarray(g.detach()).tolist() == [3.0, 12.0]
    assert mg.exp(t).to(mg.float64).detach().numpy().dtype == np.float64 and shapes(x) == (16, 16, 16)
