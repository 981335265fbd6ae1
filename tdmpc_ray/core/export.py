"""A trained agent as one file that acts without this package: a `torch.export` program, or ONNX.

Both are pure functions. The policy takes an observation and gives an action. The planner also takes the mean
of its last plan (zeros at an episode's start) and noise, and gives the action and the new mean.
"""

from __future__ import annotations

import copy
import io
import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tdmpc_ray.core.agents.agent import Agent, Networks
from tdmpc_ray.core.checks import refuse_two_parts
from tdmpc_ray.core.config import PlannerConfig
from tdmpc_ray.core.planners import PlanNoise
from tdmpc_ray.errors import UserError

METADATA = "tdmpc_ray"  # in torch's files an extra file of this name, in ONNX a property of the model


class PolicyProgram(nn.Module):
    """The mode of the policy prior: obs (1, O) to an action (1, A)."""

    def __init__(self, agent: Agent, networks: Networks) -> None:
        super().__init__()
        self.agent, self.networks = agent, networks

    def forward(self, obs: Tensor) -> Tensor:
        return self.agent.policy_mean(self.networks, self.agent.encode(self.networks, obs))


class PlannerProgram(nn.Module):
    """One decision in evaluation mode.

    The noise is that of `PlanNoise` with N = 1; only `heads` is uniform noise, (I, num_q), whose two largest
    values in each row pick the Q heads.
    """

    def __init__(self, agent: Agent, networks: Networks, cfg: PlannerConfig, discount: float) -> None:
        super().__init__()
        self.agent, self.networks, self.cfg, self.discount = agent, networks, cfg, discount

    def forward(
        self,
        obs: Tensor,
        prev_mean: Tensor,
        pi: Tensor,
        candidates: Tensor,
        value_pi: Tensor,
        heads: Tensor,
        gumbel: Tensor,
    ) -> tuple[Tensor, Tensor]:
        explore = torch.zeros_like(prev_mean[:, 0])
        noise = PlanNoise(pi, candidates, value_pi, heads.topk(2).indices, gumbel, explore)
        networks = self.networks
        z = self.agent.encode(networks, obs)
        decided = self.agent.decide(
            networks, z, prev_mean, self.cfg, noise, discount=self.discount, explore=False
        )
        return decided.action, decided.mean


@dataclass(frozen=True)
class Program:
    """What to export: a module, and inputs that show their names, shapes and types."""

    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]


def make_program(agent: Agent, networks: Networks, cfg: PlannerConfig, discount: float, what: str) -> Program:
    """The program that `what` names.

    Raises:
        UserError: a planner that no file can hold, a model of several tasks, or of images and a vector.
    """
    if networks.num_tasks:
        raise UserError("models of several tasks cannot be exported yet")
    refuse_two_parts(networks, "exported")
    obs = torch.zeros(1, *networks.obs_shape)
    # A file holds what it computes with, and no more.
    unused = networks.learning_only + (networks.planning_only if what == "policy" else ())
    networks = copy.deepcopy(networks).cpu()
    for name in unused:
        parent, _, part = name.rstrip(".").rpartition(".")
        setattr(networks.get_submodule(parent), part, None)
    if what == "policy":
        return Program(PolicyProgram(agent, networks), {"obs": obs}, ("action",))
    if cfg.method not in ("mppi", "cem"):
        raise UserError(f"planner.method={cfg.method} cannot be exported: export --what policy")
    cfg = replace(cfg, dtype="fp32", compile="never", shift_images=False)
    noise = PlanNoise.sample(networks, cfg, 1, torch.Generator().manual_seed(0))
    inputs = {"obs": obs, "prev_mean": torch.zeros(1, cfg.horizon, networks.action_dim)}
    inputs |= {f.name: getattr(noise, f.name) for f in fields(noise) if f.name not in ("explore", "shift")}
    inputs["heads"] = torch.rand(len(noise.heads), networks.num_q)
    return Program(PlannerProgram(agent, networks, cfg, discount), inputs, ("action", "plan_mean"))


def export(program: Program, path: Path, file_format: str, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a program to a file.

    Args:
        program: what to write.
        path: of the file.
        file_format: "torch" or "onnx".
        metadata: of JSON's types; kept in the file under `METADATA`.

    Raises:
        UserError: the ONNX packages are missing, or the file cannot be written.
    """
    inputs: tuple[Any, ...] = tuple(program.inputs.values())
    text = json.dumps(metadata or {})
    module = program.module.eval().requires_grad_(False)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # what its exporter says to its developers
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            exported = torch.export.export(module, inputs)
            for node in exported.graph.nodes:
                node.meta.pop("stack_trace", None)  # tells of folders on this machine
            if file_format == "torch":
                buffer = io.BytesIO()
                torch.export.save(exported, buffer, extra_files={METADATA: text})
                path.write_bytes(buffer.getvalue())
                return
            onnx = torch.onnx.export(
                exported,
                input_names=list(program.inputs),
                output_names=list(program.outputs),
                dynamo=True,
                verbose=False,
            )
            assert onnx is not None
            for part in (onnx.model.graph, *onnx.model.functions.values()):
                for node in part:
                    node.metadata_props.clear()
            onnx.model.metadata_props[METADATA] = text
            onnx.save(str(path), external_data=False)
    except ImportError as error:
        raise UserError(f"ONNX needs {error.name}: pip install 'tdmpc-ray[onnx]'") from None
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        logger.setLevel(level)
