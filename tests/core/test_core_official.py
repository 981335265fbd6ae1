"""The published checkpoint format, both ways."""

from pathlib import Path

import pytest
import torch

from tdmpc_ray.core.config import ModelConfig, agent_config
from tdmpc_ray.core.official import (
    from_official,
    infer_config,
    load_parameters,
    read_official,
    to_official,
)
from tdmpc_ray.core.world_model import WorldModel
from tdmpc_ray.errors import UserError

FIXTURES = Path(__file__).parents[1] / "fixtures" / "official_tdmpc2"
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


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_file_that_is_none(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .* as a checkpoint"):
        read_official(path)
    torch.save({"model": {"weight": torch.zeros(3)}}, path)
    with pytest.raises(UserError, match="holds no checkpoint of the published"):
        read_official(path)


def test_pixels_of_another_latent_size_cannot_be_written() -> None:
    model = WorldModel((9, 64, 64), 2, agent_config("tiny").model)
    with pytest.raises(UserError, match="pixels at model size 5 only"):
        to_official(model)
