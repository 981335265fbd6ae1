"""The code of an MLflow model ("models from code"): MLflow keeps a copy of this file and runs it to load one.

It needs this package where it is loaded. Nothing imports it here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.pyfunc import PythonModel, PythonModelContext

from tdmpc_ray.core.nn.kernels import keep_freed_memory
from tdmpc_ray.core.saved_agent import METHODS, PlanningAgent, read_agent
from tdmpc_ray.errors import UserError, unknown

_AT_ONCE = 64  # rows; the noise of a row takes up to a megabyte


class PlanningModel(PythonModel):
    """Plans an action for each row of observations; keeps nothing between two calls.

    Attributes:
        agent: what decides; `unwrap_python_model().agent` has it for loops that keep the plan themselves.
    """

    agent: PlanningAgent

    def load_context(self, context: PythonModelContext) -> None:
        """Read the agent, onto the `device` of `model_config`; auto: the GPU where there is one."""
        keep_freed_memory()
        device = context.model_config["device"]
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.agent = read_agent(Path(context.artifacts["agent"]), device)

    def predict(
        self,
        context: PythonModelContext,
        model_input: np.ndarray,
        params: dict[str, Any] | None = None,
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Plan as at an episode's first step, or from the previous plan where `prev_mean` gives it.

        Args:
            context: of MLflow.
            model_input: observations, (N, O) float32, or (N, 9, 64, 64) uint8; of a set's task as it gives
                them.
            params: `task` of a set; `method`: plan or policy; `seed` of the noise, which is the same in all
                rows; `prev_mean`: the previous plans' means, N * H * A numbers; `with_plan`.

        Returns:
            Actions in [-1, 1], (N, A); `with_plan` a dict of `action` and `plan_mean` (N, H, A), the next
            call's `prev_mean`.

        Raises:
            UserError: observations or parameters that do not fit the agent.
        """
        given = {
            "task": "",
            "method": "plan",
            "seed": 0,
            "prev_mean": [],
            "with_plan": False,
            **(params or {}),
        }
        agent, method = self.agent, given["method"]
        if method not in METHODS:
            raise unknown("method", method, METHODS)
        task_id = agent.description.task_id(given["task"] or None)
        obs = self._padded(np.asarray(model_input), task_id)
        plans = self._plans(len(obs), given["prev_mean"])
        noise = agent.noise(torch.Generator(agent.device).manual_seed(int(given["seed"])), method)
        actions, means = [], []
        for start in range(0, len(obs), _AT_ONCE):
            rows = slice(start, start + _AT_ONCE)
            num = len(obs[rows])
            ids = None if task_id is None else [task_id] * num
            action, mean = agent.decide(obs[rows], plans[rows], [noise] * num, ids, method)
            actions.append(action.cpu().numpy())
            means.append(mean.cpu().numpy())
        action_dim = agent.description.shapes(task_id)[1]
        decided = np.concatenate(actions)[:, :action_dim]
        return {"action": decided, "plan_mean": np.concatenate(means)} if given["with_plan"] else decided

    def _padded(self, obs: np.ndarray, task_id: int | None) -> torch.Tensor:
        description = self.agent.description
        shape, _ = description.shapes(task_id)
        if obs.ndim != len(shape) + 1 or obs.shape[1:] != shape or not len(obs):
            raise UserError(
                f"observations have shape {obs.shape} where this agent needs (N, {str(shape)[1:]}"
            )
        if not np.isfinite(obs).all():
            raise UserError("observations hold NaN or infinite numbers")
        tensor = torch.as_tensor(obs)
        if task_id is None:
            return tensor
        return torch.nn.functional.pad(tensor, (0, description.obs_shape[0] - shape[0]))

    def _plans(self, num: int, prev_mean: list[float]) -> torch.Tensor:
        none = self.agent.no_plan(num)
        if not len(prev_mean):
            return none
        if len(prev_mean) != none.numel():
            raise UserError(f"prev_mean has {len(prev_mean)} numbers, {tuple(none.shape)} are needed")
        return torch.as_tensor(prev_mean, dtype=torch.float32).view_as(none)


mlflow.models.set_model(PlanningModel())
