"""The net of digits_cnn.py trained in several processes, with BatchNorm, whose
statistics are those of one process's batch, and with SyncBatchNorm, whose
statistics are those of all batches.

    mpiexec -n 4 python examples/digits_ddp.py
    mpiexec -n 4 python examples/digits_ddp.py --resume

Both norms see the same global batch. Draws the test accuracy over the batch
size of a process: where that is small, BatchNorm's statistics are noise.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from digits_cnn import build, training_step
from experiment import at_least, folder
from matplotlib.figure import Figure

import minigrad as mg
from minigrad import data, distributed, nn, optim
from minigrad.nn.parallel import DistributedDataParallel

NORMS = {"BatchNorm": lambda model: model, "SyncBatchNorm": nn.SyncBatchNorm.convert_sync_batchnorm}


def accuracy(model: nn.Module, test: data.TensorDataset) -> float:
    """The share of right answers in evaluation, on this process's part of the test set and then on all of it."""
    rank, size = distributed.get_rank(), distributed.get_world_size()
    images, labels = test[list(range(rank, len(test), size))]
    model.eval()
    with mg.no_grad():
        right = (model(images).argmax(1) == labels).sum().float()
    distributed.all_reduce(right)
    model.train()
    return right.item() / len(test)


class Run:
    """One net: a norm, and a batch size for each process."""

    def __init__(self, norm: str, batch_size: int, options: argparse.Namespace) -> None:
        mg.manual_seed(options.seed)
        self.train, self.test = data.digits(seed=0, flat=False)
        self.sampler = data.distributed.DistributedSampler(self.train, seed=options.seed, drop_last=True)
        self.loader = data.DataLoader(self.train, batch_size, sampler=self.sampler, drop_last=True)
        self.model = DistributedDataParallel(NORMS[norm](build(16, dropout=0.0)))
        self.optimizer = optim.AdamW(self.model.parameters(), lr=options.lr * (batch_size / 16) ** 0.5)
        self.step = mg.capture(training_step(self.model, self.optimizer))

    def epoch(self, number: int) -> tuple[float, float]:
        """Trains one epoch; the mean loss over all processes, and the test accuracy."""
        self.sampler.set_epoch(number)
        total = mg.zeros(())
        for images, labels in self.loader:
            total += self.step(images, labels).detach()
        loss = total / len(self.loader)
        distributed.all_reduce(loss, distributed.ReduceOp.AVG)
        return loss.item(), accuracy(self.model.module, self.test)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on from a checkpoint."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


def draw(found: dict[str, dict[int, float]], options: argparse.Namespace) -> Path:
    """The test accuracy over the batch size of a process."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, points in found.items():
        axes.plot(list(points), [100 * share for share in points.values()], "o-", label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(options.batch_sizes, options.batch_sizes)
    axes.set_ylim(min(95.0, *[100 * share for points in found.values() for share in points.values()]), 100)
    axes.set(title=f"8x8 digits, {distributed.get_world_size()} processes, {options.epochs} epochs",
             xlabel="samples in a process's batch", ylabel="test accuracy in %")
    axes.legend()
    axes.grid(alpha=0.3)
    path = options.out / "digits_ddp.png"
    figure.savefig(path, dpi=120)
    return path


def arguments() -> argparse.Namespace:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--epochs", type=at_least(1), default=6, help="passes over the training data (6)")
    options.add_argument("--batch-sizes", type=at_least(1), nargs="+", default=[2, 4, 8, 16], metavar="N",
                         help="of a process (2 4 8 16)")
    options.add_argument("--lr", type=float, default=2e-3, help="learning rate at 16 samples in a process (0.002)")
    options.add_argument("--seed", type=int, default=0, help="of the random numbers (0)")
    options.add_argument("--out", type=folder, default=Path("runs"), help="folder for checkpoint and plot (runs)")
    options.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    return options.parse_args()


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """What the numbers of a run depend on, by the names of the options."""
    return {"--epochs": options.epochs, "--batch-sizes": options.batch_sizes, "--lr": options.lr,
            "--seed": options.seed, "mpiexec -n": distributed.get_world_size()}


def resumed(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The checkpoint; the program ends, and names the option, if it is of a run with other ones."""
    if not path.exists():
        sys.exit(f"--resume: there is no checkpoint {path}; leave --resume out, or see --out")
    done: dict[str, Any] = mg.load(path)
    for name, value in settings(options).items():
        if (before := done.get("options", {}).get(name)) != value:
            sys.exit(f"--resume: the checkpoint in {path.parent} was made with {name} {before}, got {value}; "
                     "give the same, or begin anew without --resume")
    return done


def main() -> None:
    """Trains all nets, one after the other; process 0 prints, saves and draws."""
    options = arguments()
    distributed.init_process_group("mpi")
    first = distributed.get_rank() == 0
    options.out.mkdir(parents=True, exist_ok=True)
    checkpoint = options.out / "digits_ddp.safetensors"
    runs = [(norm, size) for size in options.batch_sizes for norm in NORMS]
    done: dict[str, Any] = resumed(checkpoint, options) if options.resume else {"run": 0, "epoch": 0, "found": []}
    found: list[float] = done["found"]
    for number in range(done["run"], len(runs)):
        norm, size = runs[number]
        run = Run(norm, size, options)
        begin = done["epoch"] if number == done["run"] else 0
        if begin:
            run.load_state(done["state"])
        for epoch in range(begin, options.epochs):
            loss, share = run.epoch(epoch)
            if first:
                print(f"{norm:13} {size:3} a process  epoch {epoch + 1}  loss {loss:.6f}  test accuracy {share:.4f}",
                      flush=True)
                mg.save({"run": number, "epoch": epoch + 1, "found": found, "state": run.state(),
                         "options": settings(options)}, checkpoint)
            distributed.barrier()
        found = [*found, accuracy(run.model.module, run.test)]
    if first:
        table = {norm: {size: found[runs.index((norm, size))] for size in options.batch_sizes} for norm in NORMS}
        print(f"plot: {draw(table, options)}")


if __name__ == "__main__":
    main()
