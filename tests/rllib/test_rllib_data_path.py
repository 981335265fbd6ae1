"""From the environment to the replay: nothing lost, nothing twice, nothing out of place."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from counting_env import CountingEnv

from tdmpc_ray.core.replay.sequences import SequenceReplay
from tdmpc_ray.rllib import TDMPC2, TDMPC2Config
from tdmpc_ray.rllib.learning.work import Work

pytestmark = pytest.mark.usefixtures("local_ray")
HORIZON = 3
ray.cloudpickle.register_pickle_by_value(__import__("counting_env"))


def counting_config(overrides: dict[str, Any], **env_config: Any) -> TDMPC2Config:
    config = TDMPC2Config().environment(CountingEnv, env_config=env_config)
    config.training(
        model_size="tiny",
        overrides={**overrides, "model.episodic": False, "data.seed_steps": 60},
        episode_length=12,
    )
    return config.debugging(seed=0, log_level="ERROR")


def check_replay(replay: SequenceReplay, played: list[tuple[int, int]]) -> None:
    stored, terminated = [], set()
    last_step: dict[int, int] = {}
    for row in range(len(replay)):
        episode, step, _ = replay.obs[row].astype(int).tolist()
        last_step[episode] = max(last_step.get(episode, 0), step)
        if (following := replay.next_row[row]) < 0:
            continue
        stored.append((episode, step))
        next_episode, next_step, next_action = replay.obs[following]
        assert (next_episode, next_step) == (episode, step + 1)
        assert abs(replay.action[row, 0] - next_action) < 1e-6  # RLlib rescales to the box and back
        assert replay.reward[row] == step + 0.5
        if replay.terminated[row]:
            terminated.add((episode, step))
    assert sorted(stored) == sorted(played)  # as lists: exactly once
    assert replay.transitions_added == len(played)

    def length(episode: int) -> int:
        return 3 + episode // 2 % 10

    assert terminated == {(e, s) for e, s in played if e % 2 == 0 and s + 1 == length(e)}
    starts = [tuple(replay.obs[row, :2].astype(int)) for row in np.flatnonzero(replay.valid)]
    expected = [(e, s) for e, n in last_step.items() for s in range(n - HORIZON + 1)]
    assert sorted(starts) == sorted(expected)


@pytest.mark.parametrize(
    ("fragment", "num_env_runners", "asynchronous"),
    [
        (1, 0, False),
        (25, 0, False),
        (25, 2, True),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((1, 2, False), (25, 2, False), (1, 2, True))
        ),
    ],
)
def test_every_transition_is_stored_once_and_in_place(
    tmp_path: Path,
    tiny_overrides: dict[str, Any],
    fragment: int,
    num_env_runners: int,
    asynchronous: bool,
) -> None:
    config = counting_config(tiny_overrides, log=str(tmp_path))
    config.env_runners(
        num_env_runners=num_env_runners, num_envs_per_env_runner=4, rollout_fragment_length=fragment
    )
    config.training(steps_per_iteration=150, asynchronous=asynchronous)
    algo = config.build_algo()
    try:
        while algo.env_steps < 450:
            algo.train()
        if asynchronous:  # what is under way has been played, too
            refs = algo._loop._sampler.refs()
            ray.wait(refs, num_returns=len(refs), timeout=60)
            algo.save_to_path(str(tmp_path / "checkpoint"))
        replay = algo.learner_group._learner.replay
        played = [
            tuple(map(int, line.split()))
            for file in tmp_path.iterdir()
            if file.is_file()
            for line in file.read_text().splitlines()
        ]
        assert len(played) == algo.env_steps >= 450
        check_replay(replay, played)
    finally:
        algo.stop()


class Recorded(TDMPC2):
    """Notes every collection and every call of the learner."""

    def setup(self, config: TDMPC2Config) -> None:
        super().setup(config)
        self.events: list[tuple[str, int, int]] = []
        collect, count = self._loop._collect, self.progress.count

        def noted_collect(limit: int) -> bool:
            before = self.env_steps
            is_any = collect(limit)
            self.events.append(("collect", before, self.env_steps - before))
            return is_any

        def noted_count(work: Work) -> None:
            count(work)
            if work.num_updates:
                self.events.append(("learn", self.env_steps, work.num_updates))

        self._loop._collect, self.progress.count = noted_collect, noted_count


@pytest.mark.parametrize("utd_ratio", [1.0, 0.5])
def test_random_steps_then_as_many_updates_then_the_ratio(
    tiny_overrides: dict[str, Any], utd_ratio: float
) -> None:
    config = counting_config({**tiny_overrides, "data.utd_ratio": utd_ratio})
    config.algo_class = Recorded
    config.env_runners(num_envs_per_env_runner=4, rollout_fragment_length=4)
    config.training(steps_per_iteration=64, updates_per_call=16)
    algo = config.build_algo()
    try:
        while algo.env_steps < 200:
            algo.train()
        events = algo.events
    finally:
        algo.stop()
    first_learn = next(i for i, (kind, _, _) in enumerate(events) if kind == "learn")
    random = sum(n for kind, _, n in events[:first_learn])
    assert 60 <= random < 64  # to the step, but that four environments step at once
    updates, steps = 0, random
    for kind, at, number in events[first_learn:]:
        if kind == "collect":
            # never ahead of its updates: at once as many as random steps, then the ratio
            assert updates == random + int((steps - random) * utd_ratio)
            steps += number
        else:
            assert at == steps
            assert number <= 16
            updates += number
    assert steps >= 200


def test_random_phase_ends_with_the_first_update(tiny_overrides: dict[str, Any]) -> None:
    config = counting_config(tiny_overrides)
    config.env_runners(rollout_fragment_length=10).training(steps_per_iteration=30)
    algo = config.build_algo()
    try:
        algo.train()
        assert algo.grad_updates == 0
        assert algo.env_runner.module.num_updates == 0
        random_actions = algo.learner_group._learner.replay.action[:30, 0]
        assert random_actions.min() < -0.5 < 0.5 < random_actions.max()
        while algo.env_steps <= 60:
            algo.train()
        assert algo.env_runner.module.num_updates == algo.grad_updates
        assert int(algo.env_runner.module.grad_updates) == algo.grad_updates
    finally:
        algo.stop()
