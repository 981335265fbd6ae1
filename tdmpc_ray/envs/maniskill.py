"""ManiSkill: a Panda arm on a table; 100 agent steps, success once reached stays, no terminations."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tdmpc_ray.envs.extras import require_extra
from tdmpc_ray.envs.spaces import FloatArray
from tdmpc_ray.envs.task import TaskInfo
from tdmpc_ray.envs.wrappers import FRAME_SIZE, SimulatorEnv
from tdmpc_ray.errors import UserError

# Its generator takes no larger ones.
_SEEDS = 2**31


class ManiSkillEnv(SimulatorEnv):
    """One ManiSkill task, by its catalog entry.

    An episode does not end at success, where the published runs stopped it: most of what is left to earn
    would be lost, and a model without terminations could not know why. `info["success"]`, 0.0 or 1.0, tells
    whether the episode has succeeded so far, so that rates compare.
    """

    def __init__(self, info: TaskInfo, seed: int | None, render_mode: str | None) -> None:
        require_extra(info)
        self._env = _build(info, render_mode)
        self._random = np.random.default_rng(seed)
        self._success = 0.0
        super().__init__(
            info,
            observation_size=self._env.observation_space.shape[-1],
            action_size=self._env.action_space.shape[-1],
            control_timestep=self._env.control_timestep,
            seed=seed,
            render_mode=render_mode,
        )

    def _reset_task(self, seed: int | None) -> tuple[FloatArray, dict[str, Any]]:
        if seed is not None:
            self._random = np.random.default_rng(seed)
        # Without a seed of its own, an episode would draw from torch's global generator.
        observation, _ = self._env.reset(seed=int(self._random.integers(_SEEDS)))
        self._success = 0.0
        return observation[0].numpy(), {"success": 0.0}

    def _step_task(self, action: ArrayLike) -> tuple[FloatArray, float, bool, dict[str, Any]]:
        control = np.array(action, np.float32)
        reward = 0.0
        for _ in range(self.info.action_repeat):
            observation, inner_reward, _, _, info = self._env.step(control)
            reward += float(inner_reward)
            self._success = max(self._success, float(info["success"]))
        return observation[0].numpy(), reward, False, {"success": self._success}

    def frame(self, size: int) -> NDArray[np.uint8]:
        """What the task's camera sees, (size, size, 3); the size is that of `render`."""
        assert size == FRAME_SIZE, size
        return self._env.render()[0].cpu().numpy()

    def close(self) -> None:
        """Free the scene."""
        self._env.close()


def _build(info: TaskInfo, render_mode: str | None) -> Any:
    """The simulator's own environment, single and on the CPU.

    Raises:
        UserError: no Vulkan device, or the task's models are not downloaded.
    """
    with _quiet():
        if info.name == "lift-cube":
            from tdmpc_ray.envs.maniskill_lift import LiftCubeEnv

            make: Any = LiftCubeEnv
        else:
            registry = importlib.import_module("mani_skill.utils.registration").REGISTERED_ENVS
            spec = registry[info.simulator_id]
            _require_assets(info, spec.asset_download_ids)
            make = spec.make
        try:
            return make(
                num_envs=1,
                obs_mode="state",
                # Three or six numbers move the hand, one the gripper.
                control_mode="pd_ee_delta_pos" if info.action_size == 4 else "pd_ee_delta_pose",
                reward_mode="sparse" if info.name == "turn-faucet" else "dense",
                sim_backend="physx_cpu",
                render_backend="none" if render_mode is None else "gpu",  # a CPU where there is none
                render_mode=render_mode,
                human_render_camera_configs={"width": FRAME_SIZE, "height": FRAME_SIZE},
            )
        except RuntimeError as error:
            if "device" not in str(error):
                raise
            raise UserError(
                f"task '{info.name}': ManiSkill finds no Vulkan device, which it needs even to build a "
                f"scene ({error}): install a GPU's driver, or Mesa's for CPUs from 24.3 on "
                "(mesa-vulkan-drivers; Debian 12 has it in its backports)"
            ) from error


def _require_assets(info: TaskInfo, ids: list[str]) -> None:
    """ManiSkill itself would ask at the terminal, which an env runner does not have."""
    assets = importlib.import_module("mani_skill.utils.assets")
    for asset in ids or []:
        group = asset in assets.DATA_GROUPS
        sources = assets.expand_data_group_into_individual_data_source_ids(asset) if group else [asset]
        if not all(map(assets.is_data_source_downloaded, sources)):
            raise UserError(
                f"task '{info.name}' needs ManiSkill's models '{asset}', which are not downloaded: "
                f"python -m mani_skill.utils.download_asset {asset}"
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """ManiSkill warns of every renderer and library that it does without."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("mani_skill.envs")  # sets the level, too
        logger = logging.getLogger("mani_skill")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
