"""Muon (Jordan et al. 2024)."""
from __future__ import annotations

import math
from operator import index
from typing import Any

import numpy as np

from ..core.tensor import Tensor
from ..ops.formula import clamp_min
from .optimizer import Flags, Numbers, Optimizer, Params, State, begun, one_element, state_like


class Muon(Optimizer):
    """Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"), for matrices: it steps
    along the momentum with all its singular values near 1. For each parameter p (A, B) with gradient g:

        b = momentum b + (1 - momentum) g
        u = momentum b + (1 - momentum) g       (without `nesterov`: u = b)
        X = u / max(|u|, eps), then `ns_steps` times
        X = k X + l X X^T X + m X X^T X X^T X,      (k, l, m) = ns_coefficients
        p = p - lr weight_decay p
        p = p - r lr X,     r = sqrt(max(1, A / B)), or 0.2 sqrt(max(A, B)) with adjust_lr_fn="match_rms_adamw" (Liu et
                            al. 2025, "Muon is scalable for LLM training")

    All is computed in the dtype of p, float32 at least (PyTorch computes X in bfloat16).

    params        matrices, (name, matrix) pairs, or groups: see `Optimizer`. Other parameters need another optimiser
    lr            learning rate, a number or a tensor with one element
    weight_decay  the share by which p shrinks
    adjust_lr_fn  "original" (or None) or "match_rms_adamw"

    State of a parameter: `momentum_buffer` (b, shape and dtype of p). ValueError if a number is negative, a parameter
    is no matrix, `ns_coefficients` are not three or `ns_steps` not below 100.
    """

    def __init__(self, params: Params, lr: float | Tensor = 1e-3, weight_decay: float = 0.1, momentum: float = 0.95,
                 nesterov: bool = True, ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
                 eps: float = 1e-7, ns_steps: int = 5, adjust_lr_fn: str | None = None) -> None:
        one_element(lr)
        for name, value in (("Learning rate", lr), ("momentum", momentum), ("weight decay", weight_decay)):
            if not 0.0 <= value:
                raise ValueError(f"{name} should be >= 0 but is: {value}")
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise ValueError(f"Adjust learning rate function {adjust_lr_fn} is not supported")
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov,
                                  "ns_coefficients": tuple(ns_coefficients), "eps": eps, "ns_steps": ns_steps,
                                  "adjust_lr_fn": adjust_lr_fn})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """See `Optimizer.add_param_group`; ValueError for a parameter that is no matrix, other than three
        `ns_coefficients`, or `ns_steps` from 100 on."""
        super().add_param_group(param_group)
        group = self.param_groups.pop()
        for p in group["params"]:
            if p.ndim != 2:
                raise ValueError(f"Muon only supports 2D parameters whereas we found a parameter of {p.layout}")
        if len(group["ns_coefficients"]) != 3:
            raise ValueError(f"Coefficients must be a tuple of exactly 3 values; got {group['ns_coefficients']}")
        if index(group["ns_steps"]) >= 100:
            raise ValueError("Number of steps must be less than 100 for computational efficiency; got "
                             f"{group['ns_steps']}")
        self.param_groups.append(group)

    def _read(self, group: dict[str, Any]) -> tuple[Numbers, Flags]:
        return ((float(group["lr"]), group["weight_decay"], group["eps"], group["momentum"], *group["ns_coefficients"]),
                (1 if group["nesterov"] else 0, group["ns_steps"], int(group["adjust_lr_fn"] == "match_rms_adamw")))

    def _begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> State:
        return (state_like(p, state, "momentum_buffer"),)

    def _step_of(self, p: Tensor, state: dict[str, Any]) -> Tensor:
        return self._hidden_steps.setdefault(p, begun(np.array(0.0), p.device))     # nothing reads it

    def _define(self, flags: Flags, hyper: tuple[Tensor, ...], p: Tensor, g: Tensor, state: State,
                step: Tensor) -> None:
        nesterov, steps, match = flags
        lr, weight_decay, eps, momentum, a, b, c = hyper
        rows, columns = p.shape
        buffer: Any = state[0]
        buffer.add_((g - buffer) * (1 - momentum))
        x = g + (buffer - g) * momentum if nesterov else buffer
        x = x.mT if rows > columns else x
        x = x / clamp_min(x.norm(), eps)
        for _ in range(steps):
            square = x @ x.mT
            x = x * a + (square * b + square @ square * c) @ x
        ratio = 0.2 * math.sqrt(max(rows, columns)) if match else math.sqrt(max(1, rows / columns))
        p.mul_(1 - lr * weight_decay)
        p.sub_((x.mT if rows > columns else x) * (lr * ratio))
