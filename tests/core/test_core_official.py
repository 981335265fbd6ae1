"""The published checkpoint format, both ways."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tdmpc_ray.core.agents.tdmpc2.config import ModelConfig
from tdmpc_ray.core.agents.tdmpc2.official import (
    from_official,
    infer_config,
    load_parameters,
    read_official,
    read_published,
    to_official,
)
from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel
from tdmpc_ray.core.config import agent_config
from tdmpc_ray.errors import UserError

FIXTURES = Path(
    os.environ.get("TDMPC_RAY_FIXTURES", Path(__file__).parents[1] / "fixtures" / "official_tdmpc2")
)
SHAPES = {"single": (7,), "episodic": (7,), "pixels": (9, 64, 64), "multitask": (7,)}


def recorded(name: str) -> tuple[WorldModel, dict]:
    """The model of a recorded case, built from nothing but its file and the sizes of its spaces."""
    parameters = read_official(FIXTURES / f"{name}.pt")
    action_dims = [2, 4, 3] if name == "multitask" else None
    action_dim = 4 if name == "multitask" else 3
    model = WorldModel(SHAPES[name], action_dim, infer_config(parameters), action_dims=action_dims)
    load_parameters(model, parameters)
    return model, torch.load(FIXTURES / f"{name}.pt", weights_only=True)["model"]


@pytest.mark.parametrize("name", SHAPES)
def test_round_trip_is_bitwise(name: str) -> None:
    model, theirs = recorded(name)
    ours = to_official(model)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        if isinstance(value, torch.Tensor):
            assert ours[key].dtype == value.dtype, key
            assert torch.equal(ours[key], value), key
        else:
            assert ours[key] == value, key


@pytest.mark.parametrize("name", ["single", "multitask"])
def test_older_layout_with_numbered_head_parameters(name: str) -> None:
    model, _ = recorded(name)
    flat = to_official(model, flat=True)
    assert {f"_Qs.params.{k}" for k in range(10)} < flat.keys()
    assert {f"_target_Qs.params.{k}" for k in range(10)} < flat.keys()
    again = from_official(flat)
    assert again.keys() == model.state_dict().keys()
    assert all(torch.equal(again[key], value) for key, value in model.state_dict().items())


def test_architecture_is_read_from_the_shapes() -> None:
    for size in ("tiny", "1", "5", "19"):
        cfg = agent_config(size).model
        model = WorldModel((24,), 6, cfg)
        inferred = infer_config(from_official(to_official(model)))
        assert inferred == ModelConfig(**{**vars(cfg), "task_dim": 0})


def test_a_file_of_another_shape_names_the_tensors() -> None:
    parameters = read_official(FIXTURES / "single.pt")
    model = WorldModel((9,), 3, infer_config(parameters))
    with pytest.raises(UserError, match=r"encoder.0.weight is \(32, 7\) in the file and \(32, 9\) here$"):
        load_parameters(model, parameters)
    other = WorldModel((7,), 3, agent_config("tiny", overrides={"model.episodic": True}).model)
    with pytest.raises(UserError, match=r"another shape: .* is .* here; and \d+ more$"):
        load_parameters(other, parameters)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    for what in (tmp_path, path):
        with pytest.raises(
            UserError, match=rf"^cannot read {what}: (Is a directory|No such file or directory)$"
        ):
            read_official(what)
    torch.save(torch.nn.Linear(1, 1), path)
    for content in (b"", b"no checkpoint", path.read_bytes()[:-50], path.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(UserError, match="as a checkpoint: it is damaged, or holds") as caught:
            read_official(path)
        assert "\n" not in str(caught.value)
    torch.save({"model": {"weight": torch.zeros(3)}}, path)
    with pytest.raises(UserError, match="holds no checkpoint of the published"):
        read_official(path)


def test_pixels_of_another_latent_size_cannot_be_written() -> None:
    model = WorldModel((9, 64, 64), 2, agent_config("tiny").model)
    with pytest.raises(UserError, match="pixels at model size 5 only"):
        to_official(model)


@pytest.mark.parametrize("setting", ["model.simnorm_dim", "model.num_bins"])
def test_what_the_published_code_cannot_do_is_not_written(setting: str) -> None:
    cfg = agent_config("tiny", overrides={setting: int(setting.endswith("bins"))}).model
    with pytest.raises(UserError, match="no model without SimNorm or without two-hot values"):
        to_official(WorldModel((5,), 2, cfg))


def altered(tmp_path: Path, changes: dict[str, Any]) -> Path:
    """A recorded checkpoint with other values; None takes one away."""
    state = torch.load(FIXTURES / "single.pt", weights_only=True)["model"] | changes
    path = tmp_path / "altered.pt"
    torch.save({"model": {k: v for k, v in state.items() if k not in changes or v is not None}}, path)
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_dynamics.2.weight": None}, "dynamics.2.weight is missing"),
        ({"_Qs.params.2.weight": None}, "q_ensemble.layers.2.weight is missing"),
        ({"_Qs.params.2.weight": torch.zeros(3, 4)}, "should be a tensor of 3 dimensions"),
        ({"_dynamics.0.weight": torch.zeros(())}, "should be a tensor of 2 dimensions"),
        ({"_dynamics.0.weight": 3}, "should be a tensor of 2 dimensions"),
        ({"_reward.0.bias": [1.0]}, "reward_head.0.bias should hold float32, not list"),
        ({"_reward.0.bias": torch.zeros(4, dtype=torch.float16)}, "should hold float32, not torch.float16"),
        (
            {"_reward.0.bias": torch.tensor([1.0, float("nan")])},
            "reward_head.0.bias holds numbers that are not",
        ),
        ({"_reward.9.scale": torch.zeros(1)}, "a tensor that TD-MPC2 does not know: _reward.9.scale"),
    ],
)
def test_a_broken_file_is_told_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_official(altered(tmp_path, changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [torch.zeros(2), [1, 2], {"model": torch.zeros(2)}, {"model": {1: 2}}, 7])
def test_other_contents_are_no_checkpoint(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UserError, match="holds no checkpoint of the published"):
        read_official(tmp_path / "a.pt")


def test_the_range_of_the_policy_s_std_goes_both_ways(tmp_path: Path) -> None:
    changes = {"log_std_min": torch.tensor(-5), "log_std_dif": torch.tensor(6)}
    published = read_published(altered(tmp_path, changes))
    parameters, cfg = published.parameters, published.model
    assert (cfg.log_std_min, cfg.log_std_max) == (-5.0, 1.0)
    model = WorldModel((7,), 3, cfg)
    load_parameters(model, parameters)
    state = to_official(model)
    assert all(torch.equal(state[name], value) for name, value in changes.items())
