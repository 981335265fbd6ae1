"""Observations of images and a vector: replay, model, update, demonstrations."""

from pathlib import Path

import numpy as np
import pytest
import torch
from replays import copy_into

from tdmpc_ray.core.agents.tdmpc2.agent import AGENT
from tdmpc_ray.core.agents.tdmpc2.official import to_official
from tdmpc_ray.core.agents.tdmpc2.update import UpdateNoise, Updater, make_optimizers
from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel
from tdmpc_ray.core.batch import Batch, ImageAndVector
from tdmpc_ray.core.checks import refuse_two_parts
from tdmpc_ray.core.config import DataConfig, agent_config
from tdmpc_ray.core.export import make_program
from tdmpc_ray.core.nn.pixels import shift_images
from tdmpc_ray.core.replay.chunks import pack_arrays, pack_chunk, unpack_arrays, unpack_chunk
from tdmpc_ray.core.replay.prioritized import PrioritizedReplay, make_replay
from tdmpc_ray.core.replay.sequences import SequenceReplay
from tdmpc_ray.datasets.demonstrations import load_demonstrations
from tdmpc_ray.datasets.episode import EpisodeRecord
from tdmpc_ray.errors import UserError

IMAGES, VECTOR, ACTION, HORIZON = (9, 64, 64), 4, 2, 3


def model(**settings: object) -> WorldModel:
    cfg = agent_config("tiny", overrides={f"model.{k}": v for k, v in settings.items()}).model
    return WorldModel(IMAGES, ACTION, cfg, vector_dim=VECTOR)


def observations(*shape: int) -> ImageAndVector:
    images = torch.randint(256, (*shape, *IMAGES), dtype=torch.uint8)
    return ImageAndVector(images, torch.randn(*shape, VECTOR))


def batch(size: int = 8) -> Batch:
    obs = observations(HORIZON + 1, size)
    action, reward = torch.rand(HORIZON, size, ACTION), torch.rand(HORIZON, size, 1)
    return Batch(obs.image, action, reward, torch.zeros(HORIZON, size, 1), vector=obs.vector)


def test_a_latent_is_the_mean_of_what_both_encoders_give() -> None:
    ours, obs = model().eval(), observations(2, 3)
    z = ours.encode(obs)
    assert ours.vector_encoder is not None
    expected = (ours.encoder(obs.image) + ours.vector_encoder(obs.vector)) / 2
    torch.testing.assert_close(z, expected)
    groups = z.unflatten(-1, (-1, ours.cfg.simnorm_dim)).sum(-1)
    torch.testing.assert_close(groups, torch.ones_like(groups))
    shift = torch.randint(-3, 4, (2, 3, 2))
    moved = ours.encode(ImageAndVector(shift_images(obs.image, shift), obs.vector))
    assert torch.equal(ours.encode(obs, shift=shift), moved)


def test_both_encoders_learn_at_the_encoder_s_rate() -> None:
    ours, cfg = model(), agent_config("tiny").update
    world, _ = make_optimizers(ours, cfg)
    slow = {id(p) for p in world.param_groups[0]["params"]}
    assert ours.vector_encoder is not None
    both = [*ours.encoder.parameters(), *ours.vector_encoder.parameters()]
    assert slow == {id(p) for p in both}
    assert {id(p) for p in both} < {id(p) for p in ours.world_parameters()}
    assert ours.num_params() == sum(p.numel() for p in [*ours.world_parameters(), *ours.policy.parameters()])
    before = [p.detach().clone() for p in both]
    noise = UpdateNoise.sample(ours, HORIZON, 8, torch.Generator().manual_seed(0))
    assert noise.shift is not None
    updater = Updater(ours, cfg, 0.99)
    for _ in range(2):  # reward and value heads are zero before the first
        updater.step(batch(), noise)
    assert all(not torch.equal(p, old) for p, old in zip(both, before, strict=True))


def test_both_parts_tell_what_the_reward_is() -> None:
    """One number of the reward stands in the image, one in the vector: neither part alone is enough."""
    torch.manual_seed(0)
    ours, rows = model(), torch.arange(16)
    bright, number = (rows % 2).float(), (rows // 2 % 2).float()
    images = (bright * 200).to(torch.uint8)[:, None, None, None].expand(16, *IMAGES)
    obs = ImageAndVector(images, number[:, None].expand(16, VECTOR))
    action, reward = torch.zeros(16, ACTION), (bright + 2 * number)[:, None]
    optimizer = torch.optim.Adam(ours.parameters(), lr=3e-3)
    for _ in range(80):
        optimizer.zero_grad()
        ours.scalar_loss(ours.reward_logits(ours.encode(obs), action), reward).mean().backward()
        optimizer.step()
    with torch.no_grad():
        error = (ours.eval().reward(ours.encode(obs), action) - reward).abs().mean()
    assert error < 0.1  # the image alone leaves 1.0, the vector alone 0.5


@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_a_vector_stays_with_its_step(alpha: float) -> None:
    """Through a ring that is overwritten, open episodes, a checkpoint's bytes and the stacking of frames."""
    rng, capacity = np.random.default_rng(0), 90
    data = agent_config("tiny", overrides={"data.capacity": capacity, "data.priority_alpha": alpha}).data
    replay, copy = (make_replay(data, (6, 4, 4), 1, HORIZON, 3, vector_dim=2) for _ in range(2))
    assert isinstance(replay, PrioritizedReplay) == (alpha > 0)
    for episode in range(40):
        steps = int(rng.integers(1, 12))
        times = np.arange(steps + 1)
        frames = np.stack([np.maximum(times - age, 0) for age in (2, 1, 0)], 1).repeat(2, 1)
        images = np.broadcast_to(frames[:, :, None, None], (steps + 1, 6, 4, 4)).astype(np.uint8)
        vector = np.stack([np.full(steps + 1, episode), times], 1).astype(np.float32)
        obs, split = {"image": images, "vector": vector}, steps // 2
        for a, b in ((0, split), (split, steps)):
            if b > a:
                part = {name: x[a : b + 1] for name, x in obs.items()}
                zeros = np.zeros((b - a, 1), np.float32)
                replay.add(str(episode), a, part, zeros, zeros[:, 0], terminated=False, done=b == steps)
    for source in (replay, copy_into(replay, copy)):
        drawn = source.sample(64, rng).to("cpu")
        assert drawn.vector is not None
        times = drawn.vector[..., 1]
        assert (drawn.vector[..., 0] == drawn.vector[:1, :, 0]).all()
        assert (times == times[:1] + torch.arange(HORIZON + 1)[:, None]).all()
        assert (drawn.obs[:, :, -1, 0, 0] == times).all()
        assert (drawn.obs[:, :, 0, 0, 0] == (times - 2).clamp(min=0)).all()
    assert drawn.followed_by(drawn).vector.shape == (HORIZON + 1, 128, 2)  # type: ignore[union-attr]
    bad = {"image": images, "vector": vector * np.nan}
    with pytest.raises(UserError, match="the vector at step 0 of an episode is not finite"):
        replay.add("x", 0, bad, zeros[:1].repeat(steps, 0), np.zeros(steps), terminated=False, done=True)


def test_a_replay_without_vectors_is_read_as_before() -> None:
    saved, ours = (SequenceReplay(50, (2,), 1, HORIZON) for _ in range(2))
    obs, action = np.arange(22, dtype=np.float32).reshape(11, 2), np.zeros((10, 1), np.float32)
    saved.add("e", 0, obs, action, action[:, 0], terminated=False, done=True)
    columns = unpack_arrays(pack_chunk(saved, 0))
    assert columns.pop("vector").size == 0
    assert unpack_chunk(ours, 0, pack_arrays(columns)) == 11
    assert np.array_equal(ours.obs[:11], obs)
    other = SequenceReplay(50, (2,), 1, HORIZON, vector_dim=3)
    with pytest.raises(UserError, match=r"has vector of float32 \(0,\), this run's has float32 \(3,\)"):
        unpack_chunk(other, 0, pack_chunk(saved, 0))


def test_demonstrations_have_both_parts(tmp_path: Path) -> None:
    def seen(step: int) -> dict[str, np.ndarray]:
        return {"image": np.full((6, 4, 4), step, np.uint8), "vector": np.full(2, step, np.float32)}

    record = EpisodeRecord(seen(0))
    for step in range(5):
        record.add(seen(step + 1), np.zeros(1), 1.0)
    record.save(tmp_path / "0.npz", terminated=False, task="lab")
    shape = (DataConfig(demonstrations=str(tmp_path)), (6, 4, 4), 1, HORIZON, 3)
    drawn = load_demonstrations(*shape, vector_dim=2).sample(8, np.random.default_rng(0)).to("cpu")
    assert drawn.vector is not None
    assert (drawn.vector[..., 0] == drawn.obs[:, :, -1, 0, 0]).all()
    with pytest.raises(UserError, match=r"has vector of shape \(2,\) per step, this run needs \(3,\)"):
        load_demonstrations(*shape, vector_dim=3)
    with np.load(tmp_path / "0.npz") as archive:
        np.savez(tmp_path / "0.npz", **{name: archive[name] for name in archive.files if name != "vector"})
    with pytest.raises(UserError, match="has no 'vector'"):
        load_demonstrations(*shape, vector_dim=2)


def test_what_takes_one_part_alone_says_so() -> None:
    ours = model()
    with pytest.raises(UserError, match="no model that observes images and a vector"):
        to_official(ours)
    with pytest.raises(UserError, match="observes images and a vector cannot be exported yet"):
        make_program(AGENT, ours, agent_config("tiny").planner, 0.99, "policy")
    refuse_two_parts(WorldModel((3,), 1, ours.cfg), "served")
    with pytest.raises(UserError, match="observes images and a vector cannot be served yet"):
        refuse_two_parts(ours, "served")
