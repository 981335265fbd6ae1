"""The catalog's tasks as RLlib builds them, and its env runner with initial states that never repeat."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from tdmpc_ray.envs import make_env


class TaskEnv(gymnasium.Wrapper):
    """The catalog's task `config["task"]`; a class: names registered with RLlib end with the session."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(make_env(config["task"]))


class TDMPC2EnvRunner(SingleAgentEnvRunner):
    """Seeds its environments by run, runner and progress.

    RLlib seeds by `seed + worker_index` whenever the environments are reset from outside: a resumed run, or a
    runner that was restarted, would begin the same episodes again, every evaluation would play the same ones,
    and runs of neighbouring seeds would share theirs.
    """

    def _try_env_reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, Any]:
        if seed is not None:
            # Both come with a checkpoint, the updates with the weights that a restarted runner gets, too.
            progress = [int(self.module.unwrapped().grad_updates), self.num_env_steps_sampled_lifetime]
            parts = [self.config.seed, self.worker_index or 0, int(self.config.in_evaluation), *progress]
            seed = int(np.random.SeedSequence(parts).generate_state(1)[0]) >> 1  # plus 1 per environment
        return super()._try_env_reset(seed=seed, options=options)
