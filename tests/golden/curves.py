"""Ten training steps of every example, in float64, with seeded weights and batches and no dropout.

    python tests/golden/curves.py          writes curves.json with torch: the examples' own text, its imports changed to torch's

tests/project/test_examples.py reproduces the file. What torch does not have (LSTM and GRU with norm="layer") is written below as a loop
over torch's functions.
"""
from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).parent
EXAMPLES = HERE.parent.parent / "examples"


class Case(NamedTuple):
    """How a test builds an example's model, its optimiser, and the batches of a run: arrays, one tuple a step."""

    example: str
    build: Callable[[Any], Any]
    optimizer: tuple[str, dict]
    batches: Callable[[np.random.Generator], tuple]


def _images(shape: tuple[int, ...]) -> Callable[[np.random.Generator], tuple]:
    return lambda rng: (rng.random((16, *shape)), rng.integers(0, 10, 16))


def _sums(rng: np.random.Generator) -> tuple:
    x = rng.random((16, 20, 2))
    x[:, :, 1] = 0
    x[np.arange(16), rng.integers(0, 10, 16), 1] = x[np.arange(16), rng.integers(10, 20, 16), 1] = 1
    return x, (x[:, :, 0] * x[:, :, 1]).sum(1)


CASES = {
    "digits_mlp": Case("digits_mlp", lambda e: e.build(hidden=32, dropout=0.0), ("Adam", {"lr": 2e-3}), _images((64,))),
    "digits_mlp, batch": Case("digits_mlp", lambda e: e.build("batch", 32, 0.0), ("Adam", {"lr": 2e-3}), _images((64,))),
    "digits_cnn": Case("digits_cnn", lambda e: e.build(8, dropout=0.0), ("AdamW", {"lr": 2e-3}), _images((1, 8, 8))),
    "digits_rnn": Case("digits_rnn", lambda e: e.RowReader(hidden=16), ("Adam", {"lr": 2e-3}), _images((8, 8))),
    "mnist_cnn": Case("mnist_cnn", lambda e: e.build(4, dropout=0.0), ("AdamW", {"lr": 2e-3}), _images((1, 28, 28))),
    "cifar_cnn": Case("cifar_cnn", lambda e: e.build(4), ("AdamW", {"lr": 2e-3, "weight_decay": 0.05}), _images((3, 32, 32))),
    "char_rnn": Case("char_rnn", lambda e: e.CharRNN(30, 16), ("Adam", {"lr": 4e-3}),
                     lambda rng: (rng.integers(0, 30, (4, 17)), rng.standard_normal((1, 4, 16)), rng.standard_normal((1, 4, 16)))),
    "char_transformer": Case("char_transformer", lambda e: e.CharTransformer(30, 16, 2, 2, dropout=0.0), ("AdamW", {"lr": 2e-3}),
                             lambda rng: (rng.integers(0, 30, (4, 17)),)),
    "adding_problem": Case("adding_problem", lambda e: e.Adder("gru", 16), ("Adam", {"lr": 4e-3}), _sums),
    "adding_problem, plain": Case("adding_problem", lambda e: e.Adder("rnn", 16), ("Adam", {"lr": 4e-3}), _sums),
}


def weights(state: dict[str, Any]) -> dict[str, np.ndarray]:
    """Seeded values for a state dict, by name: norms near the identity, the rest small; statistics and counters as they are."""
    rng = np.random.default_rng(0)
    found = {}
    for name in sorted(state):
        shape = tuple(state[name].shape)
        if "running" in name or "tracked" in name:
            continue
        values = rng.standard_normal(shape)
        near_1 = name.endswith("weight") and len(shape) == 1
        found[name] = 1 + 0.1 * values if near_1 else values / np.sqrt(shape[-1] * np.prod(shape[2:])) if shape else values
    return found


def curve(case: Case, example: Any, optimizers: Any, tensor: Callable[[np.ndarray], Any], steps: int = 10,
          wrap: Callable = lambda step: step) -> list[float]:
    """The losses of a run, with any framework that the example's text runs on."""
    model = case.build(example).double()
    state = model.state_dict()
    state.update({name: tensor(value) for name, value in weights(state).items()})
    model.load_state_dict(state)
    name, options = case.optimizer
    step = wrap(example.training_step(model, getattr(optimizers, name)(model.parameters(), **options)))
    rng, losses = np.random.default_rng(1), []
    for _ in range(steps):
        result = step(*[tensor(array) for array in case.batches(rng)])
        losses.append((result[0] if isinstance(result, tuple) else result).item())
    return losses


# the models with dropout, small enough for many steps
SMALL = {"digits_mlp": lambda e: e.build("batch", 32), "digits_cnn": lambda e: e.build(8), "digits_rnn": lambda e: e.RowReader(hidden=16),
         "mnist_cnn": lambda e: e.build(2), "cifar_cnn": lambda e: e.build(2), "char_rnn": lambda e: e.CharRNN(30, 16),
         "char_transformer": lambda e: e.CharTransformer(30, 16, 2, 2), "adding_problem": lambda e: e.Adder("gru", 16)}


def trained(name: str, steps: int, wrap: Callable = lambda step: step, device: str = "cpu") -> tuple[list[float], dict[str, np.ndarray]]:
    """The losses of a run of a small model in float32, with a schedule of the learning rate, and the state after it."""
    import minigrad as mg
    from minigrad import optim
    case = CASES[name]
    example = import_module(case.example)
    mg.manual_seed(0)
    model = SMALL[name](example).to(device)
    mg.manual_seed(1)
    optimizer = getattr(optim, case.optimizer[0])(model.parameters(), **case.optimizer[1])
    schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.98)
    step, rng, losses = wrap(example.training_step(model, optimizer)), np.random.default_rng(1), []
    for _ in range(steps):
        arrays = [mg.tensor(a.astype(np.float32) if a.dtype.kind == "f" else a, device=device) for a in case.batches(rng)]
        result = step(*arrays)
        losses.append((result[0] if isinstance(result, tuple) else result).item())
        schedule.step()
    return losses, {k: v.numpy(force=True) for k, v in model.state_dict().items()}


# ---- torch's side ---------------------------------------------------------------------------------------------------------

def _torch_example(name: str) -> Any:
    """The example's text with torch in minigrad's place."""
    import torch
    text = (EXAMPLES / f"{name}.py").read_text()
    text = text.replace("import minigrad as mg", "import torch as mg").replace("from minigrad import data, nn, optim", "from torch import optim") \
        .replace("from minigrad import nn, optim", "from torch import optim").replace("from minigrad.nn import", "from torch.nn import") \
        .replace("data.CharTokenizer", "Any").replace("data.TensorDataset", "Any")
    module = types.ModuleType(f"torch_{name}")
    layers = types.SimpleNamespace(**{**vars(torch.nn), "LSTM": _recurrent(True), "GRU": _recurrent(False)})
    vars(module).update(nn=layers, Any=Any)
    exec(compile(text, name, "exec"), vars(module))
    return module


def _recurrent(lstm: bool) -> Any:
    """nn.LSTM and nn.GRU with norm="layer", one layer: Ba, Kiros and Hinton 2016, as a loop over the steps."""
    import torch
    from torch.nn import functional as F
    gates = 4 if lstm else 3

    class Recurrent(torch.nn.Module):
        def __init__(self, inputs: int, hidden: int, num_layers: int = 1, *, batch_first: bool, norm: str, forget_bias: float = 0.0) -> None:
            super().__init__()
            assert batch_first and norm == "layer" and num_layers == 1
            self.num_layers, self.hidden_size = num_layers, hidden
            for name, shape in (("weight_ih_l0", (gates * hidden, inputs)), ("weight_hh_l0", (gates * hidden, hidden)),
                                ("bias_ih_l0", (gates * hidden,)), ("bias_hh_l0", (gates * hidden,))):
                self.register_parameter(name, torch.nn.Parameter(torch.zeros(shape)))
            self.norm_ih_l0, self.norm_hh_l0 = torch.nn.LayerNorm(gates * hidden), torch.nn.LayerNorm(gates * hidden)
            if lstm:
                self.norm_c_l0 = torch.nn.LayerNorm(hidden)

        def forward(self, x: Any, state: Any = None) -> Any:
            zeros = x.new_zeros(len(x), self.hidden_size)
            h, c = (state[0][0], state[1][0]) if state is not None else (zeros, zeros)
            outputs = []
            for step in x.unbind(1):
                a = self.norm_ih_l0(F.linear(step, self.weight_ih_l0)) + self.bias_ih_l0
                b = self.norm_hh_l0(F.linear(h, self.weight_hh_l0)) + self.bias_hh_l0
                if lstm:
                    i, f, g, o = (a + b).chunk(4, 1)
                    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                    h = o.sigmoid() * self.norm_c_l0(c).tanh()
                else:
                    r, z = (a + b)[:, :2 * self.hidden_size].sigmoid().chunk(2, 1)
                    n = (a[:, 2 * self.hidden_size:] + r * b[:, 2 * self.hidden_size:]).tanh()
                    h = (1 - z) * n + z * h
                outputs.append(h)
            return torch.stack(outputs, 1), (h[None], c[None]) if lstm else h[None]
    return Recurrent


def main() -> None:
    import torch
    torch.set_default_dtype(torch.float64)
    sys.path.insert(0, str(EXAMPLES))
    found = {name: curve(case, _torch_example(case.example), torch.optim, torch.tensor) for name, case in CASES.items()}
    (HERE / "curves.json").write_text(json.dumps({"torch": torch.__version__, "curves": found}, indent=1) + "\n")
    for name, losses in found.items():
        print(f"{name:24}", " ".join(f"{x:.4f}" for x in losses))


if __name__ == "__main__":
    main()
