"""In the place of gym, which is no longer kept up: its successor gymnasium, with the results of calls as they were when `OLD_GYM` is set."""
from __future__ import annotations

import os
import sys
from typing import Any

import gymnasium
from gymnasium import *  # noqa: F403
from gymnasium import spaces

sys.modules["gym.spaces"] = spaces
__path__: list[str] = []                                # a package, for `import gym.spaces`


def make(name: str, **options: Any) -> Any:
    options.pop("autoreset", None)
    name = {"CartPole-v0": "CartPole-v1", "Pendulum-v0": "Pendulum-v1"}.get(name, name)
    made = gymnasium.make(name, **options)
    made.reset(seed=0)
    made.action_space.seed(0)
    return Old(made) if os.environ.get("OLD_GYM") else made


class Old(gymnasium.Wrapper):
    @property
    def unwrapped(self) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        return self.spec.max_episode_steps if name == "_max_episode_steps" else getattr(self.env.unwrapped, name)

    def reset(self, **options: Any) -> Any:
        return self.env.reset(**options)[0]

    def step(self, action: Any) -> Any:
        seen, reward, ended, cut, info = self.env.step(action)
        return seen, reward, ended or cut, info

    def seed(self, seed: int = 0) -> None:
        self.env.reset(seed=seed)

    def render(self, *args: Any, **named: Any) -> None:
        pass
