"""Claim 7: what a norm costs, in time and memory of a training step."""
from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ... import nn, optim
from ...core.capture import capture
from ...core.tensor import Tensor
from ...devices.memory import empty_cache
from ...devices.native import get_num_threads, lib, set_num_threads
from ...nn import functional as F
from ...ops.random import manual_seed, randint, randn
from .claim import Cell, Claim, Result, Runs, Verdict, more, statement
from .plots import STYLE, legend, subplots
from .recurrent import Reader as RecurrentReader
from .training import cnn, mlp
from .transformer import Reader as TransformerReader

NETWORKS: dict[str, tuple[str, ...]] = {
    "MLP": ("none", "layer", "rms", "batch", "group"),
    "CNN": ("none", "layer", "batch", "group", "instance"),
    "RNN": ("none", "layer", "rms", "batch"),
    "LSTM": ("none", "layer", "rms", "batch"),
    "transformer": ("none", "pre", "post"),
}


def network(kind: str, norm: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A network of the study with a batch to train it on."""
    if kind == "MLP":
        return mlp(norm), randn(128, 64), randint(0, 10, (128,))
    if kind == "CNN":
        return cnn(norm), randn(32, 1, 8, 8), randint(0, 10, (32,))
    if kind == "transformer":
        return TransformerReader(100, norm), randint(0, 100, (16, 32)), randint(0, 100, (512,))
    return RecurrentReader(kind, norm, 100), randint(0, 100, (16, 64)), randint(0, 100, (1024,))


def training_step(model: nn.Module, x: Tensor, labels: Tensor) -> Callable[[], Tensor]:
    """One step of SGD on the batch."""
    optimizer = optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        return loss
    return step


def eager_bytes(step: Callable[[], Any]) -> int:
    """The memory that a step takes from the pools, beside parameters, gradients and the optimiser's state."""
    empty_cache()
    before = lib.mg_pools_held()
    step()
    return lib.mg_pools_held() - before


class Cost(Claim):
    """Time and memory of training steps with and without each norm."""

    name = "cost"
    title = "Cost in time and memory"
    source = "Zhang and Sennrich 2019 (layer norm's cost, and RMS norm's); Ba et al. 2016"
    setup = ("Whole training steps (forward, backward, SGD with momentum) of the networks of this study, on one "
             "thread: the MLP at batch 128, the CNN at 32, RNN and LSTM on 16 windows of 64 characters, the "
             "transformer on 16 of 32. All variants of a network run in turn, again and again; the least time of each "
             "counts. Added is what a step takes beyond the one without norm. Memory is what a step takes from the "
             "pools besides parameters, gradients and optimiser state. Repeats instead of seeds.")
    caption = ("Time and memory that each norm adds to a training step, in % of the step without norm. The scale of "
               "time is linear up to 20 and logarithmic above. Thin bars: range of the repeats.")
    alone = True

    def cells(self, quick: bool) -> Iterator[Cell]:
        """Each network, with all its norms in one run, so that they are timed in turn."""
        for kind in NETWORKS:
            yield {"network": kind, "rounds": 3 if quick else 60}

    def measure(self, seed: int, **settings: Any) -> Result:
        """Least times of the steps in microseconds, and their bytes."""
        threads = get_num_threads()
        set_num_threads(1)
        try:
            manual_seed(seed)
            steps: dict[str, Callable[[], Any]] = {}
            result: Result = {}
            for norm in NETWORKS[settings["network"]]:
                steps[f"{norm} eager"] = eager = training_step(*network(settings["network"], norm))
                steps[f"{norm} captured"] = captured = capture(training_step(*network(settings["network"], norm)))
                eager()
                captured()
                result[f"{norm} eager bytes"] = eager_bytes(eager)
            least = dict.fromkeys(steps, float("inf"))
            for _ in range(settings["rounds"]):
                for name, step in steps.items():
                    start = time.perf_counter()
                    step()
                    least[name] = min(least[name], time.perf_counter() - start)
            return {**result, **{name: round(1e6 * seconds, 2) for name, seconds in least.items()}}
        finally:
            set_num_threads(threads)

    def added(self, runs: Runs, kind: str, norm: str, how: str, share: bool = False) -> np.ndarray:
        """What the norm adds to a step: microseconds or bytes, or a share in %, for each repeat."""
        with_norm, without = (runs.of(f"{n} {how}", network=kind) for n in (norm, "none"))
        return 100 * (with_norm / without - 1) if share else with_norm - without

    @statement("A layer norm is not free: it adds time to a captured step of every network.")
    def not_free(self, runs: Runs) -> Verdict:
        """In the network where it adds the smallest share."""
        shares = {kind: self.added(runs, kind, "pre" if kind == "transformer" else "layer", "captured", True)
                  for kind in NETWORKS}
        least = min(shares, key=lambda kind: float(np.mean(shares[kind])))
        verdict = more(shares[least], np.zeros(len(shares[least])), (f"added ({least}, the least)", "nothing"), ".1f",
                       " %", "repeats")
        listed = ", ".join(f"{kind} {np.mean(share):+.0f} %" for kind, share in shares.items())
        return Verdict(f"{listed}; {verdict.evidence}", verdict.holds)

    @statement("MLP, captured: RMS norm adds less time than layer norm.")
    def rms_cheaper(self, runs: Runs) -> Verdict:
        """The claim of Zhang and Sennrich."""
        return more(self.added(runs, "MLP", "layer", "captured"), self.added(runs, "MLP", "rms", "captured"),
                    ("LN", "RMS norm"), ".1f", " µs", "repeats")

    @statement("LSTM, captured: RMS norm adds less time than layer norm.")
    def rms_cheaper_lstm(self, runs: Runs) -> Verdict:
        """Where normalization is a large part of the step."""
        return more(self.added(runs, "LSTM", "layer", "captured"), self.added(runs, "LSTM", "rms", "captured"),
                    ("LN", "RMS norm"), ".0f", " µs", "repeats")

    @statement("LSTM, captured: batch norm adds more time than layer norm.")
    def batch_dearer(self, runs: Runs) -> Verdict:
        """Its statistics of each step are a loop of launches; layer norm is part of one kernel."""
        return more(self.added(runs, "LSTM", "batch", "captured"), self.added(runs, "LSTM", "layer", "captured"),
                    ("BN", "LN"), ".0f", " µs", "repeats")

    @statement("MLP: a layer norm adds less time to a captured step than to an eager one.")
    def capture_helps(self, runs: Runs) -> Verdict:
        """What is left is the arithmetic."""
        return more(self.added(runs, "MLP", "layer", "eager"), self.added(runs, "MLP", "layer", "captured"),
                    ("eager", "captured"), ".1f", " µs", "repeats")

    def draw(self, runs: Runs) -> Any:
        """Bars for each network: time eager and captured as shares, memory as a share."""
        figure, axes = subplots(3, 1, 2.3)
        panels = (("added time, eager, in %", " eager"), ("added time, captured, in %", " captured"),
                  ("added memory, eager, in %", " eager bytes"))
        for axis, (label, how) in zip(axes[:, 0], panels, strict=True):
            at, ticks, seen = 0.0, [], set()
            for kind, norms in NETWORKS.items():
                start = at
                for norm in norms[1:]:
                    name, color, _ = STYLE[norm]
                    share = self.added(runs, kind, norm, how[1:], share=True)
                    low, mean, high = np.sort([np.min(share), np.mean(share), np.max(share)])
                    axis.bar(at, mean, 0.85, color=color, label=None if norm in seen else name,
                             yerr=[[mean - low], [high - mean]], error_kw={"linewidth": 0.9, "capsize": 2})
                    axis.text(at, max(high, 0), f"{mean:.0f}", ha="center", va="bottom", fontsize=7)
                    seen.add(norm)
                    at += 1
                ticks.append(((start + at - 1) / 2, kind))
                at += 1
            axis.set_xticks([t for t, _ in ticks], [k for _, k in ticks])
            axis.set_ylabel(label)
            axis.margins(y=0.18)
            if "bytes" not in how:
                axis.set_yscale("symlog", linthresh=20)
                axis.yaxis.set_major_formatter("{x:g}")
                axis.axhline(0, color="#333333", linewidth=0.8)
            axis.grid(axis="x", visible=False)
        legend(figure, axes[0, 0], 4)
        return figure
