"""Exported files act as the agent does, in a process that has nothing of this package."""

import dataclasses
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tdmpc_ray.core.agents.tdmpc2.agent import AGENT
from tdmpc_ray.core.agents.tdmpc2.functions import plan
from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel
from tdmpc_ray.core.config import agent_config
from tdmpc_ray.core.export import export, make_program
from tdmpc_ray.core.planners import PlanNoise
from tdmpc_ray.errors import UserError

SETTINGS = {
    "planner.num_samples": 32,
    "planner.num_elites": 8,
    "planner.num_pi_trajs": 4,
    "planner.iterations": 2,
}
RUN = {
    "torch": """
import sys; sys.modules["tdmpc_ray"] = None
import numpy, torch
inputs = numpy.load(sys.argv[2])
module = torch.export.load(sys.argv[1]).module()
outputs = module(*(torch.from_numpy(inputs[name]) for name in inputs.files))
outputs = outputs if isinstance(outputs, tuple) else (outputs,)
numpy.savez(sys.argv[3], *(x.detach().numpy() for x in outputs))
extra = {"tdmpc_ray": ""}
torch.export.load(sys.argv[1], extra_files=extra)
print(extra["tdmpc_ray"])
""",
    "onnx": """
import sys; sys.modules["tdmpc_ray"] = sys.modules["torch"] = None
import numpy, onnxruntime
inputs = numpy.load(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1])
numpy.savez(sys.argv[3], *session.run(None, {name: inputs[name] for name in inputs.files}))
print(session.get_modelmeta().custom_metadata_map["tdmpc_ray"])
""",
}


def agent_and_model(episodic: bool = False) -> tuple:
    # Settings of the training that a file must not take over, and more heads than are used.
    settings = {**SETTINGS, "model.episodic": episodic, "model.num_q": 3, "planner.dtype": "bf16"}
    agent = agent_config("tiny", "light", settings)
    torch.manual_seed(0)
    model = WorldModel((5,), 2, agent.model).eval()
    with torch.no_grad():
        for head in (model.reward_head[-1], model.q_ensemble.layers[-1]):
            head.weight.normal_(std=0.3)
    return agent, model


@pytest.mark.parametrize("file_format", RUN)
@pytest.mark.parametrize("what", ["policy", "planner"])
def test_a_file_gives_the_actions_of_the_agent(what: str, file_format: str, tmp_path: Path) -> None:
    agent, model = agent_and_model(episodic=what == "planner")
    program = make_program(AGENT, model, agent.planner, 0.97, what)
    metadata = {"action": {"low": [-0.5], "high": [2.0]}, "task": None}
    export(program, tmp_path / "file", file_format, metadata)
    generator = torch.Generator().manual_seed(5)
    obs, prev_mean = torch.randn(1, 5), torch.rand(1, agent.planner.horizon, 2) * 2 - 1
    noise = PlanNoise.sample(model, agent.planner, 1, generator)
    keys = torch.rand(len(noise.heads), 3)
    values = {"obs": obs, "prev_mean": prev_mean, **vars(noise), "heads": keys}
    np.savez(tmp_path / "inputs.npz", **{name: values[name].numpy() for name in program.inputs})
    command = [sys.executable, "-c", RUN[file_format], "file", "inputs.npz", "outputs.npz"]
    printed = subprocess.check_output(command, cwd=tmp_path, text=True)
    assert json.loads(printed) == metadata
    outputs = [torch.from_numpy(x) for x in np.load(tmp_path / "outputs.npz").values()]

    z = model.encode(obs)
    if what == "policy":
        expected = (model.pi(z, torch.zeros(1, 2)).mean,)
    else:
        noise = dataclasses.replace(noise, heads=keys.topk(2).indices)
        cfg = dataclasses.replace(agent.planner, dtype="fp32")
        decided = plan(model, z, prev_mean, cfg, noise, discount=0.97, explore=False)
        expected = (decided.action, decided.mean)
    assert len(outputs) == len(expected)
    for ours, theirs in zip(outputs, expected, strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=1e-4)


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    _, model = agent_and_model()
    for method in ("gradient", "policy"):
        cfg = agent_config("tiny", overrides={"planner.method": method}).planner
        with pytest.raises(UserError, match=f"planner.method={method} cannot be exported: export --what pol"):
            make_program(AGENT, model, cfg, 0.97, "planner")
    several = WorldModel((5,), 2, agent_config("tiny").model, action_dims=[2, 1])
    with pytest.raises(UserError, match="models of several tasks cannot be exported yet"):
        make_program(AGENT, several, cfg, 0.97, "policy")
    program = make_program(AGENT, model, cfg, 0.97, "policy")
    with pytest.raises(UserError, match="cannot write"):
        export(program, tmp_path / "no" / "file", "torch")


def test_files_tell_nothing_of_the_machine_that_made_them(tmp_path: Path) -> None:
    agent, model = agent_and_model()
    here = str(Path(__file__).parents[2]).encode()
    for file_format in RUN:
        file = tmp_path / file_format
        export(make_program(AGENT, model, agent.planner, 0.97, "policy"), file, file_format)
        parts = [file.read_bytes()]
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                parts = [archive.read(name) for name in archive.namelist()]
        assert all(here not in part for part in parts)
