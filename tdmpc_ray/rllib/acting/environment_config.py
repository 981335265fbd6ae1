"""The part of a config that says what the environment is, and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.tune.registry import ENV_CREATOR, _global_registry

from tdmpc_ray.envs import TaskInfo, check_obs, task_info
from tdmpc_ray.errors import unknown
from tdmpc_ray.rllib.acting.task_env import TaskEnv, read_task_config, task_config

_MAX_EVALUATION_ENVS = 32  # in one process


class EnvironmentConfig(AlgorithmConfig):
    """RLlib's config, which knows the tasks of `tdmpc_ray.envs` by their names."""

    _episode_length: int | None = None

    def environment(self, env: Any = NotProvided, *, obs: str = NotProvided, **kwargs: Any) -> Self:
        """Choose the environment: a task of `tdmpc_ray.envs`, or whatever RLlib accepts.

        Args:
            env: a task's name, an environment class, or a name registered with RLlib.
            obs: of a task: "state" or "rgb", see `make_env`.

        Raises:
            UserError: a name that neither the catalog nor RLlib's registry knows; no such observations.
        """
        if env is not NotProvided and env is not TaskEnv and self.task is not None:
            self.episode_length, self.normalize_actions = None, True
        if isinstance(env, str) and not _global_registry.contains(ENV_CREATOR, env):
            info = task_info(env)
            obs = "state" if obs is NotProvided else obs
            check_obs(info, obs)
            self.episode_length = None
            kwargs["env_config"] = {**kwargs.get("env_config", {}), **task_config(info.name), "obs": obs}
            kwargs.setdefault("normalize_actions", False)  # the catalog's actions are in [-1, 1] already
            env = TaskEnv
        super().environment(env, **kwargs)
        return self

    @property
    def task(self) -> str | None:
        """Name in the catalog; None for an environment of the user's own."""
        return self.env_config.get("task") if self.env is TaskEnv else None

    @property
    def info(self) -> TaskInfo | None:
        """Of the task in the catalog."""
        return read_task_config(self.env_config) if self.env is TaskEnv else None

    @property
    def tasks(self) -> list[TaskInfo]:
        """Of a set, in the order of their ids; empty for a single task."""
        return [] if self.info is None else [task_info(name) for name in self.info.tasks]

    @property
    def episode_length(self) -> int | None:
        """Agent steps of an episode; None: neither the catalog nor the user has said it."""
        if self._episode_length is None and self.info is not None:
            return self.info.episode_length
        return self._episode_length

    @episode_length.setter
    def episode_length(self, value: int | None) -> None:
        self._episode_length = value

    @property
    def equal_episodes(self) -> bool:
        """Whether every episode is known to last until its time limit; yours may be truncated before."""
        return self.info is not None and not self.info.can_terminate and self.info.suite != "registered"

    @property
    def action_repeat(self) -> int:
        """Frames of the environment per agent step; of a set, the most among its tasks."""
        return 1 if self.info is None else self.info.action_repeat

    @property
    def action_repeats(self) -> list[int]:
        """The same for each task of a set; one number for a single task."""
        return [task.action_repeat for task in self.tasks] or [self.action_repeat]

    def get_evaluation_config_object(self) -> AlgorithmConfig | None:
        config = super().get_evaluation_config_object()
        if config is not None and "num_envs_per_env_runner" not in (self.evaluation_config or {}):
            # One batch of plans serves all episodes; but where episodes differ in length, the first to end
            # would be the short ones, so there each runner plays one after the other.
            share = -(-self.evaluation_duration // max(self.evaluation_num_env_runners, 1))
            rounds = -(-share // _MAX_EVALUATION_ENVS) if self.equal_episodes else share
            config.num_envs_per_env_runner = -(-share // rounds)
        return config

    def update_from_dict(self, config_dict: Mapping[str, Any]) -> Self:
        values = dict(config_dict.items())  # an AlgorithmConfig, too, which cannot be iterated
        if "overrides" in values:
            self.training(overrides=values.pop("overrides"))
        env = values.get("env")
        if isinstance(env, str) and not _global_registry.contains(ENV_CREATOR, env):
            self.environment(values.pop("env"))
            values["env_config"] = {**self.env_config, **values.get("env_config", {})}
        known = [name for name in vars(self) if not name.startswith("_")]
        for key in values:
            name = self._translate_special_keys(key, warn_deprecated=False)
            is_property = isinstance(getattr(type(self), name, None), property)
            if name not in (*known, "multiagent") and not is_property and not key.startswith("_"):
                raise unknown(f"setting of {type(self).__name__}", key, known)
        super().update_from_dict(values)
        return self
