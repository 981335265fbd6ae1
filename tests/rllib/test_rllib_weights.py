"""The weights' way to the env runners: when they are due, and how they leave the device."""

from typing import Any

import numpy as np
import pytest
import torch
from test_rllib_update_loop import STATE, make_module
from tiny import TINY

from tdmpc_ray.core.config import agent_config
from tdmpc_ray.core.nn import precision
from tdmpc_ray.core.nn.readback import copy_arrays, read_arrays
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib import TDMPC2Config
from tdmpc_ray.rllib.acting import env_runner
from tdmpc_ray.rllib.loop.weights_period import WeightsPeriod


def test_weights_are_due_after_updates_and_after_seconds() -> None:
    period = WeightsPeriod(25, 10.0)
    assert [period.is_due(updates, 0.0) for updates in (24, 25)] == [False, True]
    period.ask(25)
    assert not period.is_due(49, 0.0)
    period.take(cost_s=0.1, now=5.0)
    assert [period.is_due(50, now) for now in (14.9, 15.0)] == [False, True]
    period.reset()
    assert period.is_due(25, 0.0)


def test_copies_of_weights_take_a_twentieth_of_the_time() -> None:
    period = WeightsPeriod(25, None)
    period.ask(25)
    period.take(cost_s=0.5, now=100.0)
    assert [period.is_due(1000, now) for now in (109.9, 110.0)] == [False, True]


def test_one_copy_is_the_same_as_one_for_each() -> None:
    module = make_module(agent_config("tiny", overrides=TINY), STATE)
    state = module.state_dict()
    arrays = copy_arrays(state)
    assert list(arrays) == list(state)
    for name, array in read_arrays(state).items():
        assert np.array_equal(array, arrays[name])
        assert arrays[name].dtype == array.dtype
    floats = [x for x in arrays.values() if x.dtype == np.float32]
    first = min(x.ctypes.data for x in floats)
    assert max(x.ctypes.data + x.nbytes for x in floats) - first == sum(x.nbytes for x in floats)
    assert "networks.target_q.layers.0.weight" in module.get_state()
    assert not any("target_q" in name for name in module.get_state(inference_only=True))


def test_gpus_for_runners_that_do_not_exist_are_refused() -> None:
    config = TDMPC2Config().environment("walker-walk").training(overrides=TINY)
    config.env_runners(num_gpus_per_env_runner=0.5)
    with pytest.raises(UserError, match="without remote env runners: set num_env_runners, or leave it out"):
        config.validate()
    config.env_runners(num_env_runners=2).validate()


def test_gpus_multiply_as_published_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    before, prepared = torch.get_float32_matmul_precision(), []
    cudnn = torch.backends.cudnn
    for name in ("allow_tf32", "benchmark"):
        monkeypatch.setattr(cudnn, name, getattr(cudnn, name))
    try:
        precision.prepare_device(torch.device("cuda"), True)
        assert (torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark) == (
            "high",
            True,
            True,
        )
        precision.prepare_device(torch.device("cuda"), False)
        assert (torch.get_float32_matmul_precision(), cudnn.allow_tf32) == ("highest", False)
        precision.prepare_device(torch.device("cpu"), True)
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(before)

    def note(device: torch.device, tf32: bool) -> None:
        prepared.append((device.type, tf32))

    monkeypatch.setattr(env_runner, "prepare_device", note)
    config: Any = TDMPC2Config().environment("walker-walk").training(model_size="tiny", overrides=TINY)
    env_runner.AgentEnvRunner(config=config, worker_index=0).stop()
    config.training(overrides={"model.tf32": False})
    env_runner.AgentEnvRunner(config=config, worker_index=0).stop()
    assert prepared == [("cpu", True), ("cpu", False)]
