"""Two replicas in two processes, against one model on the whole batch."""

import dataclasses
import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from worlds import redraw

from tdmpc_ray.core.agents.tdmpc2.config import MODEL_SIZES, UpdateConfig
from tdmpc_ray.core.agents.tdmpc2.update import UpdateNoise, Updater
from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel
from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.parallel import Replicas
from tdmpc_ray.core.replay.prioritized import PrioritizedReplay

SIZE, B, H, OBS, ACTION, CLIP = 2, 16, 3, 5, 2, 0.1


def updater_of(seed: int, replicas: Replicas | None = None, dropout: float = 0.0) -> Updater:
    """In float64, so that only the order of sums may differ; with values that are far enough apart."""
    cfg = dataclasses.replace(MODEL_SIZES["tiny"], dropout=dropout, episodic=True)
    model = redraw(WorldModel((OBS,), ACTION, cfg).double(), seed)
    with torch.no_grad():
        for head in (model.q_ensemble, model.target_q):
            for x in head.parameters():
                x.add_(torch.randn_like(x), alpha=0.5)
    if replicas is not None:
        replicas.equalize(model.state_dict().values())
    updater = Updater(model, UpdateConfig(batch_size=B, grad_clip_norm=CLIP), 0.97, replicas=replicas)
    updater.scale = updater.scale.double()
    return updater


def batch_of(seed: int, weighted: bool) -> Batch:
    """Random numbers; with weights, also sequences that are cut short."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    ended = (normal(H, B, 1) > 1).double()
    batch = Batch(normal(H + 1, B, OBS), normal(H, B, ACTION).tanh(), 5 * normal(H, B, 1), ended)
    if not weighted:
        return batch
    weight = normal(B).exp()
    # As many steps of either half, so that means over them are means of the halves' means.
    length = torch.tensor([1, 3, 2, 3, 3, 1, 2, 3] * (B // 8))
    mask = (torch.arange(H).unsqueeze(-1) < length).double().unsqueeze(-1)
    start = torch.arange(B)
    return batch._replace(weight=weight / weight.max(), start=start, largest_weight=weight.max(), mask=mask)


def part_of(batch: Batch, rank: int) -> Batch:
    """Half a batch, with weights over its own largest one."""
    rows = slice(rank * B // SIZE, (rank + 1) * B // SIZE)
    part = Batch(*(x[:, rows] for x in batch[:4]))
    if batch.weight is None or batch.largest_weight is None or batch.mask is None:
        return part
    weight = batch.weight[rows] * batch.largest_weight
    start, mask = torch.arange(B // SIZE), batch.mask[:, rows]
    return part._replace(weight=weight / weight.max(), start=start, largest_weight=weight.max(), mask=mask)


def noise_of(model: WorldModel, seed: int) -> UpdateNoise:
    noise = UpdateNoise.sample(model, H, B, torch.Generator().manual_seed(seed))
    return dataclasses.replace(noise, target_eps=noise.target_eps.double(), pi_eps=noise.pi_eps.double())


def part_of_noise(noise: UpdateNoise, rank: int) -> UpdateNoise:
    rows = slice(rank * B // SIZE, (rank + 1) * B // SIZE)
    return dataclasses.replace(noise, target_eps=noise.target_eps[:, rows], pi_eps=noise.pi_eps[:, rows])


def learned(updater: Updater) -> dict[str, torch.Tensor]:
    state = {name: x.clone() for name, x in updater.model.state_dict().items()}
    for kind, optimizer in (("world", updater.world_optimizer), ("pi", updater.pi_optimizer)):
        for index, values in optimizer.state_dict()["state"].items():
            state |= {f"{kind}.{index}.{name}": x.clone() for name, x in values.items()}
    return state | {"scale": updater.scale.clone()}


def halves(replicas: Replicas, weighted: bool) -> dict[str, Any]:
    updater = updater_of(replicas.rank, replicas)
    metrics = []
    for seed in range(3):
        batch, noise = batch_of(seed, weighted), noise_of(updater.model, seed)
        metrics.append(updater.step(part_of(batch, replicas.rank), part_of_noise(noise, replicas.rank)))
    return {"state": learned(updater), "metrics": metrics}


def one_bad_batch(replicas: Replicas) -> dict[str, Any]:
    """Rank 1 alone meets a number that is not finite, in its losses or only in its policy's."""
    updater, states, skipped = updater_of(0, replicas), [], []
    for seed, bad in enumerate((None, "reward", "pi_eps", None)):
        batch, noise = part_of(batch_of(seed, False), replicas.rank), noise_of(updater.model, seed)
        if replicas.rank == 1 and bad == "reward":
            batch.reward[0, 0] = float("nan")
        if replicas.rank == 1 and bad == "pi_eps":
            noise.pi_eps[1, B // SIZE] = float("inf")
        skipped.append(float(updater.step(batch, part_of_noise(noise, replicas.rank))["skipped"]))
        states.append(learned(updater))
    return {"skipped": skipped, "states": states}


def many_updates(replicas: Replicas) -> dict[str, Any]:
    """In float32, with dropout, from a replay of its own."""
    rank = replicas.rank
    torch.manual_seed(rank)
    cfg = dataclasses.replace(MODEL_SIZES["tiny"], dropout=0.1)
    model = WorldModel((OBS,), ACTION, cfg)
    replicas.equalize(model.state_dict().values())
    updater = Updater(model, UpdateConfig(batch_size=B), 0.97, replicas=replicas)
    rng, own, shared = np.random.default_rng(rank), torch.Generator(), torch.Generator().manual_seed(7)
    own.manual_seed(rank)
    replay = PrioritizedReplay(1000, (OBS,), ACTION, H, alpha=0.6, beta=0.4, new="max")
    for episode in range(10):
        steps = (rng.standard_normal((21, OBS)), rng.uniform(-1, 1, (20, ACTION)), rng.standard_normal(20))
        replay.add(str(episode), 0, *(x.astype(np.float32) for x in steps), terminated=False, done=True)
    losses, eps = [], None
    for _ in range(200):
        noise = UpdateNoise.sample(model, H, B // SIZE, own, shared)
        batch = replay.sample(B // SIZE, rng)
        losses.append(float(updater.step(batch, noise)["loss/total"]))
        assert batch.start is not None
        assert updater.td_error is not None
        replay.set_priorities(batch.start, updater.td_error)
        eps = noise.pi_eps
    return {"state": learned(updater), "losses": losses, "eps": eps}


def replica(rank: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo",
        init_method=(folder / "rendezvous").as_uri(),
        rank=rank,
        world_size=SIZE,
        timeout=datetime.timedelta(seconds=240),
    )
    replicas = Replicas()
    device = torch.device("cpu")
    outcome = {
        "halves": halves(replicas, weighted=False),
        "weighted halves": halves(replicas, weighted=True),
        "bad": one_bad_batch(replicas),
        "many": many_updates(replicas),
        "agreed": [replicas.agree(True, device), replicas.agree(rank == 0, device)],
    }
    torch.save(outcome, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Of both replicas."""
    folder = tmp_path_factory.mktemp("replicas")
    multiprocessing.spawn(replica, (folder,), nprocs=SIZE)
    return [torch.load(folder / f"{rank}.pt") for rank in range(SIZE)]


def assert_bitwise_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize("weighted", [False, True])
def test_two_halves_are_one_whole_batch(weighted: bool, outcomes: list[dict[str, Any]]) -> None:
    first, second = (outcome["weighted halves" if weighted else "halves"] for outcome in outcomes)
    updater = updater_of(0)
    for seed in range(3):
        whole = updater.step(batch_of(seed, weighted), noise_of(updater.model, seed))
        assert whole["grad_norm"] > CLIP
        assert whole["pi_grad_norm"] > CLIP
        assert whole["pi_scale"] > 1.01
        for name, value in whole.items():
            ours = torch.stack([first["metrics"][seed][name], second["metrics"][seed][name]])
            torch.testing.assert_close(
                ours.mean(), value, rtol=1e-6, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}"
            )
            if name in ("grad_norm", "pi_grad_norm", "pi_scale", "skipped"):
                assert ours[0] == ours[1], name
    state = learned(updater)
    assert_bitwise_equal(first["state"], second["state"])
    for name, value in state.items():
        torch.testing.assert_close(
            first["state"][name], value, rtol=1e-6, atol=1e-8, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_replicas_are_bitwise_equal_after_200_updates(outcomes: list[dict[str, Any]]) -> None:
    first, second = (outcome["many"] for outcome in outcomes)
    assert_bitwise_equal(first["state"], second["state"])
    assert first["losses"][-1] < 0.7 * first["losses"][0]
    assert first["losses"] != second["losses"]
    assert not torch.equal(first["eps"], second["eps"])


def test_what_one_replica_cannot_use_all_skip(outcomes: list[dict[str, Any]]) -> None:
    first, second = (outcome["bad"] for outcome in outcomes)
    assert first["skipped"] == second["skipped"] == [0.0, 1.0, 1.0, 0.0]
    for ours, theirs in zip(first["states"], second["states"], strict=True):
        assert_bitwise_equal(ours, theirs)
    good, bad_reward, bad_policy, again = first["states"]
    pi = {name for name in good if name.startswith(("pi.", "policy.", "scale"))}
    world = {name for name in good if not name.startswith(("pi.", "policy.", "scale", "target_q"))}
    assert pi
    assert world
    for name in (*pi, *world):
        assert torch.equal(good[name], bad_reward[name]), name
    for name in pi:
        assert torch.equal(bad_reward[name], bad_policy[name]), name
    assert not all(torch.equal(good[name], again[name]) for name in world)
    assert all(x.isfinite().all() for x in again.values())


def test_replicas_agree_only_where_all_are_ready(outcomes: list[dict[str, Any]]) -> None:
    assert [outcome["agreed"] for outcome in outcomes] == [[True, False]] * SIZE
