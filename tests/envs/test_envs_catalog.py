"""The catalog: names, spellings, and what a wrong name is told."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tdmpc_ray.envs import TaskInfo, list_tasks, make_env, task_info
from tdmpc_ray.envs.catalog import common_metric
from tdmpc_ray.envs.tables import TASK_SETS, with_reward
from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.results.published import published_curves

PAPER_DMCONTROL = """
    acrobot-swingup cartpole-balance cartpole-balance-sparse cartpole-swingup cartpole-swingup-sparse
    cheetah-run cup-catch dog-run dog-stand dog-trot dog-walk finger-spin finger-turn-easy finger-turn-hard
    fish-swim
    hopper-hop hopper-stand humanoid-run humanoid-stand humanoid-walk pendulum-swingup quadruped-run
    quadruped-walk reacher-easy reacher-hard walker-run walker-stand walker-walk
    cheetah-jump cheetah-run-back cheetah-run-backwards cheetah-run-front cup-spin hopper-hop-backwards
    pendulum-spin reacher-three-easy reacher-three-hard walker-run-backwards walker-walk-backwards
"""


def test_every_listed_name_resolves_to_itself() -> None:
    names = list_tasks()
    assert len(names) == len(set(names)) == 78 + 50 + 5 + 10 + 2
    assert [task_info(name).name for name in names] == names
    assert len({task_info(name).simulator_id for name in names}) == len(names)


def test_tasks_of_several_kinds_are_judged_by_their_score() -> None:
    for tasks, metric in (
        (["walker-walk", "cup-catch"], "return"),
        (["mw-reach", "pick-cube"], "success"),
        (["walker-walk", "mw-reach"], "score"),
        (["mt80", "mw-reach"], "score"),
        (["gym:Pendulum-v1", "mw-reach"], "return"),
    ):
        assert common_metric([task_info(task) for task in tasks]) == metric
    assert (task_info("mt30").metric, task_info("mt80").metric) == ("return", "score")


def test_a_task_may_have_another_action_repeat() -> None:
    sparse = task_info("mw-reach@sparse@4")
    assert (sparse.name, sparse.reward, sparse.action_repeat) == ("mw-reach@4@sparse", "sparse", 4)
    assert with_reward("mw-reach+mw-push@sparse", "sparse") == "mw-reach@sparse+mw-push@sparse"
    assert with_reward("walker-walk", "dense") == "walker-walk"
    for name, message in (
        ("walker-walk@sparse", "only Meta-World's can have sparse rewards"),
        ("mw-reach@4@5", "each once"),
    ):
        with pytest.raises(UserError, match=message):
            task_info(name)
    slow = task_info("ball_in_cup-catch@4")
    assert (slow.name, slow.action_repeat, slow.episode_length) == ("cup-catch@4", 4, 250)
    assert task_info("cup-catch@2") == task_info("cup-catch")
    assert task_info("mw-reach@1").episode_length == 200
    assert task_info("walker-walk@4+walker-run").tasks == ("walker-walk@4", "walker-run")
    env = make_env("pendulum-swingup@8", seed=0)
    env.reset()
    steps, truncated, frames = 0, False, 0.0
    while not truncated:
        _, _, _, truncated, _ = env.step(env.action_space.sample())
        steps, frames = steps + 1, env.unwrapped._env.physics.time()
    env.close()
    assert (steps, round(frames / 0.02)) == (125, 1000)
    assert not published_curves("tdmpc", "cup-catch@4").empty


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("walker-walk@3", "a divisor of 1000"),
        ("walker-walk@0", "a divisor of 1000"),
        ("walker-walk@", "a divisor of 1000"),
        ("bipedal-walker@2", "only DMControl's and Meta-World's"),
        ("walker-wolk@2", "unknown task 'walker-wolk@2': did you mean"),
    ],
)
def test_other_action_repeats_are_refused_by_name(name: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        task_info(name)


def test_the_paper_s_tasks_are_there() -> None:
    assert len(PAPER_DMCONTROL.split()) == 39
    assert set(PAPER_DMCONTROL.split()) <= set(list_tasks("dmcontrol"))
    assert {"humanoid-run-pure-state", "pendulum-swingup", "dog-fetch"} <= set(list_tasks("dmcontrol"))


def test_the_static_lists_are_those_of_the_simulators() -> None:
    from dm_control import suite
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    tasks = [task_info(name) for name in list_tasks("dmcontrol")]
    ours = {task.simulator_id for task in tasks if not task.is_custom}
    assert ours == {f"{domain}/{task}" for domain, task in suite.ALL_TASKS} - {"quadruped/escape"}
    assert {task_info(name).simulator_id for name in list_tasks("metaworld")} == set(ALL_V3_ENVIRONMENTS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("walker-walk", TaskInfo("walker-walk", "dmcontrol", 500, 2, "return", "walker/walk", 24, 6)),
        ("mw-reach", TaskInfo("mw-reach", "metaworld", 100, 2, "success", "reach-v3", 39, 4)),
        (
            "gym:Pendulum-v1",
            TaskInfo("gym:Pendulum-v1", "gymnasium", 200, 1, "return", "Pendulum-v1", can_terminate=True),
        ),
    ],
)
def test_task_info(name: str, expected: TaskInfo) -> None:
    assert task_info(name) == expected


def test_the_multi_task_sets() -> None:
    mt30, mt80 = (list(TASK_SETS[name]) for name in ("mt30", "mt80"))
    assert (len(mt30), len(mt80)) == (30, 80)
    assert mt80[:30] == mt30
    assert sorted(mt80[30:]) == list_tasks("metaworld")
    # The order belongs to the task embeddings of published checkpoints.
    assert [mt80[i] for i in (0, 12, 25, 29, 30, 55, 79)] == [
        "walker-stand", "cup-catch", "hopper-hop-backwards", "pendulum-spin", "mw-assembly",
        "mw-pick-out-of-hole", "mw-hand-insert",
    ]  # fmt: skip
    infos = [task_info(name) for name in mt80]
    assert (max(i.obs_size for i in infos[:30]), max(i.obs_size for i in infos)) == (24, 39)
    assert max(i.action_size for i in infos) == 6


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("ball_in_cup-catch", "cup-catch"),
        ("ball-in-cup-catch", "cup-catch"),
        ("point_mass-easy", "pointmass-easy"),
        ("cartpole-balance_sparse", "cartpole-balance-sparse"),
        ("humanoid_CMU-stand", "humanoid-CMU-stand"),
    ],
)
def test_other_spellings_give_the_same_task(spelling: str, name: str) -> None:
    assert task_info(spelling) == task_info(name)
    assert name in list_tasks("dmcontrol")


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("walker-wlk", "walker-walk"),
        ("cupcatch", "cup-catch"),
        ("reach", "mw-reach"),
        ("mw-pick-plase", "mw-pick-place"),
        ("pendulum-v1", "gym:Pendulum-v1"),
        ("gym:Pendulum", "gym:Pendulum-v1"),
    ],
)
def test_an_unknown_name_is_told_the_nearest(wrong: str, nearest: str) -> None:
    for refuse in (task_info, make_env):
        with pytest.raises(UserError, match=f"unknown task '{wrong}': did you mean '{nearest}'") as caught:
            refuse(wrong)
        assert "\n" not in str(caught.value)


def test_a_name_like_no_other_is_told_the_forms() -> None:
    with pytest.raises(UserError, match=r"DOMAIN-TASK \(walker-walk\), mw-NAME .*gym:ID"):
        task_info("qqqqqqqq")


def test_unknown_suite() -> None:
    with pytest.raises(UserError, match="unknown suite 'atari': choose one of: dmcontrol, metaworld"):
        list_tasks("atari")


def test_looking_up_a_task_starts_no_simulator() -> None:
    code = (
        "import sys; from tdmpc_ray.envs import task_info;"
        "[task_info(n) for n in ('walker-walk', 'mw-reach', 'gym:Pendulum-v1')];"
        "sys.exit(bool({'mujoco', 'dm_control', 'metaworld'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
