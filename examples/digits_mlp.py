"""A small net learns scikit-learn's handwritten digits, with the normalization of your choice.

    python examples/digits_mlp.py --norm layer
    python examples/digits_mlp.py --norm batch --epochs 40 --resume

Writes a checkpoint (every epoch) and a plot of the curves to --out. The training step is captured: after the first batch,
forward, backward and Adam are one native call.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import minigrad as mg
from minigrad import data, io, nn, optim
from minigrad.nn import functional as F

NORMS = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d, "group": lambda n: nn.GroupNorm(8, n), "rms": nn.RMSNorm,
         "none": lambda n: nn.Identity()}


def build(norm: str, hidden: int = 128) -> nn.Module:
    make = NORMS[norm]
    return nn.Sequential(nn.Linear(64, hidden), make(hidden), nn.ReLU(), nn.Dropout(0.2),
                         nn.Linear(hidden, hidden), make(hidden), nn.ReLU(), nn.Dropout(0.2), nn.Linear(hidden, 10))


def accuracy(model: nn.Module, dataset: data.TensorDataset) -> float:
    model.eval()
    images, labels = dataset.tensors
    with mg.no_grad():
        right = (model(images).argmax(1) == labels).sum()
    model.train()
    return right.item() / len(labels)


def plot(history: list[dict], path: Path, title: str) -> None:
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    figure, left = plt.subplots(figsize=(6, 4))
    epochs = [h["epoch"] for h in history]
    left.plot(epochs, [h["loss"] for h in history], color="tab:blue", label="training loss")
    left.set_xlabel("epoch")
    left.set_ylabel("training loss", color="tab:blue")
    right = left.twinx()
    right.plot(epochs, [100 * h["accuracy"] for h in history], color="tab:orange", label="test accuracy")
    right.set_ylabel("test accuracy (%)", color="tab:orange")
    left.set_title(title)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> float:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--norm", choices=NORMS, default="layer")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    options = parser.parse_args()
    from tqdm import tqdm

    mg.manual_seed(options.seed)
    train, test = data.digits(seed=0)
    loader = data.DataLoader(train, batch_size=options.batch_size, shuffle=True, drop_last=True, seed=options.seed)
    model = build(options.norm)
    optimizer = optim.Adam(model.parameters(), lr=options.lr)

    options.out.mkdir(parents=True, exist_ok=True)
    checkpoint = options.out / f"digits_mlp_{options.norm}.safetensors"
    history: list[dict] = []
    if options.resume and checkpoint.exists():
        saved = io.load(checkpoint)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        loader.load_state_dict(saved["loader"])
        mg.set_rng_state(saved["rng"])
        history = saved["history"]
        print(f"resumed after epoch {history[-1]['epoch']}")

    @mg.capture
    def step(images: mg.Tensor, labels: mg.Tensor) -> mg.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    with tqdm(range(len(history), options.epochs), desc=f"{options.norm} norm", unit="epoch") as bar:
        for epoch in bar:
            total = 0.0
            for images, labels in loader:
                total += step(images, labels).item()
            history.append({"epoch": epoch, "loss": total / len(loader), "accuracy": accuracy(model, test)})
            bar.set_postfix(loss=f"{history[-1]['loss']:.4f}", accuracy=f"{history[-1]['accuracy']:.1%}")
            io.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "loader": loader.state_dict(),
                     "rng": mg.get_rng_state(), "history": history}, checkpoint)

    picture = options.out / f"digits_mlp_{options.norm}.png"
    plot(history, picture, f"digits, {options.norm} norm")
    print(f"test accuracy {history[-1]['accuracy']:.1%}; curves in {picture}, checkpoint in {checkpoint}")
    return history[-1]["accuracy"]


if __name__ == "__main__":
    main()
