"""A net trained in several processes, with BatchNorm, whose statistics are those
of one process's batch, and with SyncBatchNorm, whose statistics are those of all
batches: the net of digits_cnn.py, or that of digits_mlp.py.

    mpiexec -n 4 python examples/digits_ddp.py
    mpiexec -n 4 python examples/digits_ddp.py --resume
    mpiexec -n 4 python examples/digits_ddp.py --net mlp --seeds 5

Both norms see the same global batch. Draws the test accuracy over the batch
size of a process, as mean and range over the seeds: where few values are behind
BatchNorm's statistics, they are noise (Wu and He 2018, "Group Normalization",
figure 1). In a channel of the convolutional net each image has 16 to 64 values,
in a feature of the MLP one.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import digits_cnn
import digits_mlp
from digits_cnn import training_step
from experiment import at_least, folder
from matplotlib.figure import Figure

import minigrad as mg
from minigrad import data, distributed, nn, optim
from minigrad.nn.parallel import DistributedDataParallel

NETS = {"cnn": lambda: digits_cnn.build(16, dropout=0.0), "mlp": lambda: digits_mlp.build("batch", dropout=0.0)}
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
    """One net: a norm, a batch size for each process, and a seed."""

    def __init__(self, norm: str, batch_size: int, seed: int, options: argparse.Namespace) -> None:
        mg.manual_seed(seed)
        self.train, self.test = data.digits(seed=0, flat=options.net == "mlp")
        self.sampler = data.distributed.DistributedSampler(self.train, seed=seed, drop_last=True)
        self.loader = data.DataLoader(self.train, batch_size, sampler=self.sampler, drop_last=True)
        self.model = DistributedDataParallel(NORMS[norm](NETS[options.net]()))
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


def draw(found: dict[str, dict[int, list[float]]], options: argparse.Namespace) -> Path:
    """The test accuracy over the batch size of a process: the mean over the seeds, least and most."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, points in found.items():
        mean = [100 * sum(shares) / len(shares) for shares in points.values()]
        line, = axes.plot(list(points), mean, "o-", label=name)
        least, most = [[100 * end(shares) for shares in points.values()] for end in (min, max)]
        axes.fill_between(list(points), least, most, color=line.get_color(), alpha=0.2)
    axes.set_xscale("log", base=2)
    axes.set_xticks(options.batch_sizes, options.batch_sizes)
    axes.set(title=f"8x8 digits, {options.net}, {distributed.get_world_size()} processes, {options.epochs} epochs, "
                   f"{options.seeds} seeds", xlabel="samples in a process's batch", ylabel="test accuracy in %")
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
    options.add_argument("--net", choices=NETS, default="cnn", help="cnn or mlp (cnn)")
    options.add_argument("--seed", type=int, default=0, help="the first one of the random numbers (0)")
    options.add_argument("--seeds", type=at_least(1), default=1, help="how many, one after the other (1)")
    options.add_argument("--out", type=folder, default=Path("runs"), help="folder for checkpoint and plot (runs)")
    options.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    return options.parse_args()


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """What the numbers of a run depend on, by the names of the options."""
    return {"--epochs": options.epochs, "--batch-sizes": options.batch_sizes, "--lr": options.lr,
            "--net": options.net, "--seed": options.seed, "--seeds": options.seeds,
            "mpiexec -n": distributed.get_world_size()}


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
    seeds = range(options.seed, options.seed + options.seeds)
    runs = [(norm, size, seed) for seed in seeds for size in options.batch_sizes for norm in NORMS]
    done: dict[str, Any] = resumed(checkpoint, options) if options.resume else {"run": 0, "epoch": 0, "found": []}
    found: list[float] = done["found"]
    for number in range(done["run"], len(runs)):
        norm, size, seed = runs[number]
        run = Run(norm, size, seed, options)
        begin = done["epoch"] if number == done["run"] else 0
        if begin:
            run.load_state(done["state"])
        for epoch in range(begin, options.epochs):
            loss, share = run.epoch(epoch)
            if first:
                print(f"{norm:13} {size:3} a process  seed {seed}  epoch {epoch + 1}  loss {loss:.6f}  "
                      f"test accuracy {share:.4f}", flush=True)
                mg.save({"run": number, "epoch": epoch + 1, "found": found, "state": run.state(),
                         "options": settings(options)}, checkpoint)
            distributed.barrier()
        found = [*found, accuracy(run.model.module, run.test)]
    if first:
        table = {norm: {size: [found[runs.index((norm, size, seed))] for seed in seeds] for size in options.batch_sizes}
                 for norm in NORMS}
        for norm, points in table.items():
            print(norm, *[f"{size}: {100 * sum(shares) / len(shares):.2f} ({100 * min(shares):.2f} to "
                          f"{100 * max(shares):.2f}) %" for size, shares in points.items()], sep="  ")
        print(f"plot: {draw(table, options)}")


if __name__ == "__main__":
    main()
