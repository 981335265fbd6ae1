"""A run of one task that begins with the networks of several."""

from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch

from tdmpc_ray.core.agents.tdmpc2.agent import AGENT
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib import TDMPC2Config
from tdmpc_ray.rllib.acting.module import AgentModule
from tdmpc_ray.rllib.checkpoints.load import MODULE
from tdmpc_ray.rllib.checkpoints.manifest import seal
from tdmpc_ray.rllib.learning.start_networks import (
    check_networks,
    embedding_shares,
    own_networks,
    read_networks,
    state_for,
)

TASKS = ("walker-walk", "cartpole-balance")


@pytest.fixture
def several(tiny_overrides: dict[str, Any], tmp_path: Path) -> Path:
    """A checkpoint of networks of two tasks; every part gives out something, the second task's largest."""
    config = TDMPC2Config().environment("+".join(TASKS)).training(model_size="tiny", overrides=tiny_overrides)
    box = gymnasium.spaces.Box
    module = AgentModule(
        observation_space=box(-10, 10, (24,)), action_space=box(-1, 1, (6,)), model_config=config.model_config
    )
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.networks.named_parameters():
            parameter.normal_(std=0.01 if name == "task_embedding" else 0.3)
        module.networks.task_embedding[1] = 1.0
    module.grad_updates += 7
    module.save_to_path(str(tmp_path / MODULE))
    seal(tmp_path)
    return tmp_path


def begin(several: Path, overrides: dict[str, Any], task: str, embed_as: str | None = None) -> TDMPC2Config:
    config = TDMPC2Config().environment(task).debugging(seed=0, log_level="ERROR")
    overrides = {**overrides, "data.seed_steps": 20}
    config.training(model_size="tiny", overrides=overrides, steps_per_iteration=15)
    return config.training(start_from=several, embed_as=embed_as)


def of_networks(checkpoint: Path) -> dict[str, torch.Tensor]:
    state, prefix = read_networks(checkpoint).state, "networks."
    return {key.removeprefix(prefix): x for key, x in state.items() if key.startswith(prefix)}


def test_it_says_whose_embedding(several: Path, tiny_overrides: dict[str, Any]) -> None:
    start = read_networks(several)
    assert start.tasks == TASKS

    def check(task: str, embed_as: str | None = None) -> list[str]:
        return check_networks(start, [begin(several, tiny_overrides, task, embed_as)])

    for task, embed_as in ((TASKS[1], None), ("cartpole-swingup", TASKS[1]), ("walker-run", "mean")):
        assert check(task, embed_as) == []
    with pytest.raises(UserError, match=r"'walker-run' is none .* to best \(walker-walk, cartpole-balance\)"):
        check("walker-run")
    with pytest.raises(UserError, match="embed_as: 'walker' is none of the tasks"):
        check("walker-run", "walker")
    with pytest.raises(UserError, match="embed_as names a task of start_from"):
        TDMPC2Config().environment("walker-run").training(embed_as="mean").validate()


def test_other_sets_take_embeddings_by_name(several: Path, tiny_overrides: dict[str, Any]) -> None:
    start = read_networks(several)
    learned = of_networks(several)["task_embedding"]
    learned = learned / learned.norm(dim=-1, keepdim=True).clamp(min=1)

    def begun(tasks: tuple[str, ...], embed_as: str | None = None) -> torch.Tensor:
        config = begin(several, tiny_overrides, "+".join(tasks), embed_as)
        return state_for(start, own_networks(config), config)["networks.task_embedding"]

    assert torch.equal(begun(TASKS), learned)
    assert torch.equal(begun(TASKS[::-1]), learned.flip(0))
    new = ("cartpole-swingup", *TASKS)
    assert torch.equal(begun(new, TASKS[1]), learned[[1, 0, 1]])
    assert torch.equal(begun(new, "mean"), torch.stack([learned.mean(0), *learned]))
    for tasks, embed_as, says in (
        (("walker-walk", "walker-run"), None, "'walker-run' is none of the tasks"),
        (TASKS, "mean", "embed_as is for tasks that those of start_from are not"),
        (new, "best", "embed_as: best is for a run of one task"),
    ):
        with pytest.raises(UserError, match=says):
            begun(tasks, embed_as)


def test_a_task_has_other_names() -> None:
    shares = embedding_shares(("walker-walk", "cup-catch"), "walker-run", "ball_in_cup-catch")
    assert shares.tolist() == [0.0, 1.0]


def test_it_has_the_sizes_of_its_own_task(
    several: Path, tiny_overrides: dict[str, Any], local_ray: None
) -> None:
    algo = begin(several, tiny_overrides, "cartpole-swingup", TASKS[1]).build_algo()
    own = algo.learner_group._learner.module["default_policy"]
    assert (own.num_updates, own.networks.encoder[0].in_features) == (7, 5)
    of_set = of_networks(several)
    made = AGENT.of_one_task(of_set, embedding_shares(TASKS, None, TASKS[1]), own.networks)
    assert torch.equal(own.networks.dynamics[0].bias, made["dynamics.0.bias"])
    for _ in range(2):
        algo.train()
    assert own.num_updates > 7
    algo.stop()


def test_the_best_embedding_foresees_the_first_episodes(
    several: Path, tiny_overrides: dict[str, Any], local_ray: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = begin(several, tiny_overrides, "cartpole-swingup", "best")
    algo = config.build_algo()
    learner = algo.learner_group._learner
    own = learner.module["default_policy"]
    state = of_networks(several)

    def bias(shares: torch.Tensor) -> torch.Tensor:
        return AGENT.of_one_task(state, shares, own.networks)["dynamics.0.bias"]

    assert torch.equal(own.networks.dynamics[0].bias, bias(torch.full((2,), 0.5)))
    assert not any("embedding" in line for line in algo.train()["notes"])

    learn, chosen = learner._loop.run, []

    def look(num_updates: int) -> None:
        chosen.append(own.networks.dynamics[0].bias.clone())
        learn(num_updates)

    learner._loop.run = look
    (note,) = (line for line in algo.train()["notes"] if "embedding" in line)
    saved = algo.save_to_path(str(tmp_path_factory.mktemp("saved")))
    errors = []
    for task in range(2):
        own.networks.load_state_dict(AGENT.of_one_task(state, torch.eye(2)[task], own.networks))
        errors.append(AGENT.model_error(own.networks, learner._loop.draw(), own.cfg.update))
    best = int(torch.stack(errors).argmin())
    assert note.startswith(f"the task begins with the embedding of {TASKS[best]}: of 2")
    assert torch.equal(chosen[0], bias(torch.eye(2)[best]))
    algo.stop()

    again = config.build_algo()
    again.restore_from_path(saved)
    assert not any("embedding" in line for line in again.train()["notes"])
    again.stop()
