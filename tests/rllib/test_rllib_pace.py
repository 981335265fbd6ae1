"""The ratio of updates to steps, by simulation."""

import numpy as np
import pytest

from tdmpc_ray.rllib import TDMPC2Config
from tdmpc_ray.rllib.loop.fragment_length import FragmentLength
from tdmpc_ray.rllib.loop.pace import Pace


@pytest.mark.parametrize("ratio", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("learner_speed", [0.05, 1.0, 20.0])
def test_neither_side_leaves_the_other_behind(ratio: float, learner_speed: float) -> None:
    """A sampler that hands in what it began, a learner that is slower or faster than it."""
    pace, rng, pending = Pace(ratio, seed_steps=200, lead=100), np.random.default_rng(0), 0
    while pace.env_steps < 10_000:
        fragment = min(25, pace.room(pending))
        if fragment == 25 or (pace.grad_updates == 0 and fragment > 0):
            pending += fragment
        arriving = int(rng.integers(pending + 1))
        pace.add_steps(arriving)
        pending -= arriving
        pace.grad_updates += min(pace.updates_owed(), int(rng.integers(max(2, 50 * learner_speed * ratio))))
        if pace.env_steps < 200:
            assert pace.grad_updates == 0
        else:
            allowed = pace.random_steps + ratio * (pace.env_steps - pace.random_steps)
            assert pace.grad_updates <= allowed
            if pace.grad_updates > pace.random_steps:
                assert (
                    pace.env_steps + pending - pace.random_steps
                    <= (pace.grad_updates - pace.random_steps) / ratio + 100
                )
    learned = (pace.grad_updates - pace.random_steps) / (pace.env_steps - pace.random_steps)
    assert learned == pytest.approx(ratio, rel=0.05)
    assert pace.random_steps == 200


@pytest.mark.parametrize("ratio", [0.01, 0.03, 0.1, 1.0])
def test_a_small_ratio_never_stops_both_sides(ratio: float) -> None:
    """Steps that are too few for an update cannot be paid for: the lead has to be longer than these."""
    config = TDMPC2Config().environment("walker-walk").env_runners(num_env_runners=1)
    config.training(overrides={"data.utd_ratio": ratio}, sample_lead=25)
    fragment = config.get_rollout_fragment_length()
    pace = Pace(ratio, seed_steps=3 * fragment, lead=config.lead)
    while pace.env_steps < 2000:
        owed, room = pace.updates_owed(), pace.room(0)
        assert owed > 0 or room >= fragment
        pace.grad_updates += owed
        if pace.room(0) >= fragment or pace.grad_updates == 0:
            pace.add_steps(fragment)


@pytest.mark.parametrize("ratio", [0.5, 2.0])
def test_another_ratio_holds_from_a_restore_on(ratio: float) -> None:
    before = Pace(1.0, seed_steps=1000, lead=50)
    before.add_steps(1000)
    before.grad_updates = 1000
    before.add_steps(99_000)
    before.grad_updates = 99_990
    after = Pace(ratio, seed_steps=1000, lead=50)
    after.restore(before.state())
    assert after.updates_owed() == 10  # as before
    assert 0 <= after.room(0) <= 50  # neither does it learn for hours, nor sample
    after.grad_updates += 10
    after.add_steps(100)
    assert after.updates_owed() == 100 * ratio
    again = Pace(ratio, seed_steps=1000, lead=50)
    again.restore(after.state())
    assert again == after


def test_steps_wait_for_the_updates_of_the_random_ones() -> None:
    pace = Pace(1.0, seed_steps=200, lead=100)
    assert (pace.room(0), pace.room(150), pace.updates_owed()) == (200, 50, 0)
    pace.add_steps(203)
    assert (pace.random_steps, pace.updates_owed()) == (203, 203)
    assert pace.room(0) < 0
    pace.grad_updates = 50
    assert pace.room(0) < 0
    pace.grad_updates = 203
    assert (pace.room(0), pace.room(60)) == (100, 40)


def test_random_steps_go_on_until_every_learner_has_something() -> None:
    pace = Pace(1.0, seed_steps=200, lead=100, is_ready=False)
    assert (pace.room(0), pace.room(150)) == (200, 50)
    pace.add_steps(200)
    assert (pace.updates_owed(), pace.room(0), pace.room(60)) == (0, 100, 40)
    pace.add_steps(30)
    pace.is_ready = True
    assert (pace.random_steps, pace.updates_owed()) == (230, 230)
    assert pace.room(0) < 0


def test_random_steps_go_on_until_every_task_has_its_own() -> None:
    pace = Pace(1.0, seed_steps=200, lead=40, seed_per_task=(50, 100), task_steps=[0, 0])
    pace.add_steps(190, (100, 90))
    assert (pace.updates_owed(), pace.room(0)) == (0, 10)
    pace.add_steps(10, (10, 0))
    assert (pace.updates_owed(), pace.room(0), pace.room(30)) == (0, 40, 10)
    pace.add_steps(10, (0, 10))
    assert (pace.task_steps, pace.updates_owed()) == ([110, 100], 210)
    assert pace.room(0) < 0
    again = Pace(1.0, seed_steps=200, lead=40, seed_per_task=(50, 100), task_steps=[0, 0])
    again.restore(pace.state())
    assert again == pace


def test_of_a_checkpoint_without_counts_of_tasks_these_are_equal() -> None:
    before = Pace(1.0, seed_steps=200, grad_updates=200, env_steps=301)
    state = before.state()
    del state["task_steps"]
    after = Pace(1.0, seed_steps=200, seed_per_task=(500, 500), task_steps=[0, 0])
    after.restore(state)
    assert (after.task_steps, after.updates_owed()) == ([150, 151], before.updates_owed())


@pytest.mark.parametrize(
    ("runners", "envs", "steps"), [(0, 1, 1), (1, 1, 4), (2, 1, 2), (4, 1, 1), (100, 1, 1), (2, 8, 1)]
)
def test_fragments_are_short_where_nobody_says_how_long(runners: int, envs: int, steps: int) -> None:
    config = TDMPC2Config().environment("walker-walk")
    config.env_runners(num_env_runners=runners, num_envs_per_env_runner=envs)
    assert config.get_rollout_fragment_length() == steps
    assert config.env_runners(rollout_fragment_length=7).get_rollout_fragment_length() == 7


def test_fragments_grow_where_the_main_process_could_not_keep_up() -> None:
    length, now = FragmentLength(4, 25), 0.0
    for rate, steps in ((30, 4), (600, 12), (10_000, 25), (30, 4)):
        for _ in range(100):
            now += 1.0
            length.count(rate, now)
        assert length.steps == steps
