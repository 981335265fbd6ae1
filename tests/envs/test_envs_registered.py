"""Tasks of third parties, and the contract that environments keep."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box
from gymnasium.utils.env_checker import check_env

from tdmpc_ray.envs import list_tasks, make_env, register_task, task_info, task_sizes
from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.load import make_study
from tdmpc_ray.studies.run.checks import prepare

LENGTH = 10


class Arm(gymnasium.Env):
    """Reaches a point on a line; `fault` breaks the contract at the third step."""

    def __init__(self, render_mode: str | None = None, fault: str = "") -> None:
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = Box(-2.0, 2.0, (1,), np.float32)
        self.fault, self.steps = fault, 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.steps, self.x = 0, self.np_random.uniform(-1, 1)
        if self.fault == "reset":
            return np.zeros(3), {}
        return np.array([self.x, 0.0]), {}

    def step(self, action: np.ndarray) -> tuple[Any, Any, bool, bool, dict]:
        self.steps += 1
        self.x += 0.1 * float(action[0])
        obs: Any = np.array([self.x, float(action[0])])
        reward: Any = -abs(self.x)
        if self.steps == 3:
            obs = {"nan": np.array([0.0, np.nan]), "shape": np.zeros(3), "words": "far"}.get(self.fault, obs)
            reward = {"reward": None, "inf": np.inf, "vector": np.zeros(2)}.get(self.fault, reward)
        return obs, reward, False, self.steps >= LENGTH and self.fault != "endless", {}


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    from tdmpc_ray.envs import registered

    monkeypatch.setattr(registered, "_tasks", {})


def play(name: str) -> float:
    env = make_env(name, seed=1)
    env.reset()
    total, over = 0.0, False
    while not over:
        _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        total, over = total + reward, terminated or truncated
    return total


def test_a_registered_task_is_a_task_like_any_other() -> None:
    register_task("lab-arm", Arm, episode_length=LENGTH, action_repeat=4)
    info = task_info("lab-arm")
    assert (info.suite, info.episode_length, info.action_repeat) == ("registered", LENGTH, 4)
    assert not info.can_terminate
    assert "lab-arm" in list_tasks()
    assert list_tasks("registered") == ["lab-arm"]
    env = make_env("lab-arm", seed=3)
    assert env.action_space == Box(-1, 1, (1,), np.float32)
    assert env.observation_space == Box(-np.inf, np.inf, (2,), np.float32)
    first, _ = env.reset()
    obs, *_ = env.step(np.array([0.5], np.float32))
    np.testing.assert_allclose(obs, [first[0] + 0.1, 1.0], rtol=1e-6)
    np.testing.assert_array_equal(make_env("lab-arm", seed=3).reset()[0], first)
    assert play("lab-arm") < 0


def test_a_task_registered_anew_has_its_own_sizes() -> None:
    for name, sizes in (("Pendulum-v1", (3, 1)), ("Reacher-v5", (10, 2))):
        register_task("lab", lambda render_mode=None, name=name: gymnasium.make(name), episode_length=200)
        assert task_sizes("lab") == sizes


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("reset", r"reset: the observation has shape \(3,\), declared is \(2,\)"),
        ("nan", "step 3: number 1 of the observation is nan"),
        ("shape", r"step 3: the observation has shape \(3,\), declared is \(2,\)"),
        ("words", "step 3: the observation is no array of numbers but str"),
        ("reward", "step 3: the reward is no number but NoneType"),
        ("inf", "step 3: the reward is inf"),
        ("vector", "step 3: the reward is no number but ndarray"),
        ("endless", "step 10: the episode goes on after its 10 steps"),
    ],
)
def test_who_breaks_the_contract_is_named_with_task_and_step(fault: str, message: str) -> None:
    register_task("lab-arm", lambda render_mode=None: Arm(render_mode, fault), episode_length=LENGTH)
    with pytest.raises(UserError, match=f"^task 'lab-arm', {message}") as caught:
        play("lab-arm")
    assert "\n" not in str(caught.value)


def test_success_has_to_be_said_where_it_is_the_metric() -> None:
    register_task("lab-arm", Arm, episode_length=LENGTH, metric="success")
    with pytest.raises(UserError, match=r"^task 'lab-arm', step 10: .* info\['success'\] is missing"):
        play("lab-arm")


def test_the_example_of_the_docs_runs() -> None:
    page = (Path(__file__).parents[2] / "docs/environments.md").read_text()
    example = page.partition("```python\n")[2].partition("```")[0]
    exec(example, {})
    env = make_env("lab-arm", seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of wrappers and unbounded observations
        check_env(env, skip_render_check=True)
    env.reset()
    for step in range(1, 201):
        *_, truncated, info = env.step(env.action_space.sample())
        assert truncated == (step == 200)
    assert info["success"] in (True, False)


def test_simulators_keep_the_contract_too(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make_env("pendulum-swingup", seed=0)
    env.reset()
    monkeypatch.setattr(env, "_step_task", lambda action: (np.full(3, np.nan, np.float32), 0.0, False, {}))
    with pytest.raises(UserError, match=r"^task 'pendulum-swingup', step 1: number 0 .* is nan"):
        env.step(np.zeros(1))


@pytest.mark.parametrize(
    ("name", "numbers", "message"),
    [
        ("walker-walk", {"episode_length": 5}, "cannot register a task as 'walker-walk'"),
        ("gym:Mine", {"episode_length": 5}, "cannot register a task as 'gym:Mine'"),
        (3, {"episode_length": 5}, "cannot register a task as 3"),
        ("lab-arm", {"episode_length": True}, "episode_length must be a positive whole number, not True"),
        ("lab-arm", {"episode_length": 0}, "episode_length must be a positive whole number, not 0"),
        (
            "lab-arm",
            {"episode_length": 5, "action_repeat": 0.5},
            "action_repeat must be a positive whole number",
        ),
        ("lab-arm", {"episode_length": 5, "metric": "score"}, "metric must be 'return' or 'success'"),
    ],
)
def test_bad_registrations(name: Any, numbers: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        register_task(name, Arm, **numbers)


def test_discrete_actions_of_a_registered_task_are_refused() -> None:
    register_task("buttons", lambda render_mode=None: gymnasium.make("CartPole-v1"), episode_length=500)
    with pytest.raises(UserError, match=r"task 'buttons' has actions Discrete.*not_offered"):
        make_env("buttons")


def test_who_takes_no_render_mode_is_not_filmed() -> None:
    register_task("lab-arm", lambda: Arm(), episode_length=LENGTH)
    make_env("lab-arm").close()
    with pytest.raises(
        UserError, match="task 'lab-arm' cannot be filmed: what builds it takes no render_mode"
    ):
        make_env("lab-arm", render_mode="rgb_array")
    study = {"name": "s", "task": "lab-arm", "steps": 9, "evaluation": {"videos": True}}
    with pytest.raises(UserError, match="task 'lab-arm' cannot be filmed"):
        prepare(make_study(study))


def test_packages_bring_tasks_by_entry_point(tmp_path: Path) -> None:
    """In every process, without an import; and a broken package takes nobody else's tasks away."""
    (tmp_path / "my_lab.py").write_text(
        "from tdmpc_ray.envs import register_task\n"
        "import gymnasium\n"
        "from tdmpc_ray.envs import list_tasks\n"
        "def register():\n"
        "    list_tasks('registered')\n"  # looks before it registers
        "    register_task('lab-pendulum', lambda render_mode=None: gymnasium.make('Pendulum-v1'),\n"
        "                  episode_length=200)\n"
        "def broken():\n"
        "    raise RuntimeError('no licence')\n"
    )
    dist = tmp_path / "my_lab-1.dist-info"
    dist.mkdir()
    (dist / "METADATA").write_text("Metadata-Version: 2.1\nName: my-lab\nVersion: 1\n")
    (dist / "entry_points.txt").write_text(
        "[tdmpc_ray.tasks]\na_broken = my_lab:broken\nmy_lab = my_lab:register\n"
    )
    code = (
        "from tdmpc_ray.envs import list_tasks, make_env, task_info\n"
        "assert task_info('lab-pendulum').episode_length == 200\n"
        "assert make_env('lab-pendulum', seed=0).reset()[0].shape == (3,)\n"
        "assert 'lab-pendulum' in list_tasks()\n"
    )
    path = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}", "PATH": "/usr/bin:/bin"}
    ran = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "the tasks of 'a_broken' (my_lab:broken) are missing: no licence" in ran.stderr
