"""Environments that raise, break their contract or hang, each rebuilt alone."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from failing_env import FailingEnv
from gymnasium.vector import SyncVectorEnv

from tdmpc_ray.envs import faults, make_env, random_return, register_task, registered, task_info
from tdmpc_ray.envs.adapter import adapt
from tdmpc_ray.envs.faults import FAULTS, GuardedEnv
from tdmpc_ray.envs.multitask import make_set
from tdmpc_ray.errors import UserError

ACTION = np.zeros(1, np.float32)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FailingEnv, "built", 0)
    monkeypatch.setattr(FailingEnv, "closed", 0)
    monkeypatch.setattr(faults, "_WAIT_S", 0.0)


def guarded(timeout_s: float | None = None, **config: Any) -> GuardedEnv:
    return GuardedEnv(lambda: adapt(FailingEnv(config), "arm"), "arm", timeout_s)


def steps_until_end(env: gymnasium.Env) -> tuple[int, dict[str, Any]]:
    for step in range(1, 20):
        obs, reward, terminated, truncated, info = env.step(ACTION)
        if FAULTS in info:
            assert (reward, terminated, truncated) == (0.0, False, True)
            assert obs.shape == (2,)
            assert not obs.any()
        if terminated or truncated:
            return step, info
    raise AssertionError("no end")


def play(env: gymnasium.Env) -> None:
    env.reset()
    steps_until_end(env)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("raise", r"RuntimeError: the motor is hot \(failing_env.py:\d+\)"),
        ("nan", "number 0 of the observation is nan"),
        ("none", "the reward is no number but NoneType"),
        ("inf", "the reward is inf"),
        ("sleep", r"hung for 0.3 s \(failing_env.py:\d+\)"),
        ("stubborn", r"hung for 0.3 s \(failing_env.py:\d+\)"),
    ],
)
def test_a_fault_ends_the_episode_and_the_environment_is_rebuilt(
    kind: str, message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    env = guarded(0.3, kind=kind, step=3, once=tmp_path / "once")
    env.reset(seed=1)
    with caplog.at_level(logging.WARNING):
        step, info = steps_until_end(env)
    assert step == 3
    (fault,) = info[FAULTS]
    assert re.fullmatch(f"task 'arm', step 3: {message}", fault), fault
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == f"{fault}: the environment is rebuilt"
    obs, info = env.reset()
    assert FAULTS not in info
    np.testing.assert_array_equal(obs, [0, 0])  # a new object
    assert (FailingEnv.built, FailingEnv.closed) == (2, 1)
    assert env.unwrapped.seeds not in ([None], [1])  # neither without one, nor the same episode again
    assert steps_until_end(env)[0] == 10


def test_a_fault_that_comes_again_and_again_is_logged_less_and_less(caplog: pytest.LogCaptureFixture) -> None:
    env = guarded(kind="inf", step=3)
    for _ in range(11):
        env.reset()
        steps_until_end(env)
    logged = [record.getMessage() for record in caplog.records]
    assert [line.partition("rebuilt")[2] for line in logged] == ["", " (the 10th time)"]


@pytest.mark.parametrize("kind", ["shape", "words"])
@pytest.mark.parametrize("step", [0, 2])
def test_what_never_gets_better_is_an_error(kind: str, step: int) -> None:
    env = guarded(kind=kind, step=step)
    with pytest.raises(UserError, match=r"task 'arm', .*the observation"):
        play(env)
    assert FailingEnv.built == 1


@pytest.mark.parametrize("kind", ["raise", "nan", "sleep"])
def test_a_reset_that_fails_is_tried_again(kind: str, tmp_path: Path) -> None:
    env = guarded(0.1, kind=kind, step=0, once=tmp_path / "once")
    obs, info = env.reset(seed=4)
    assert len(info[FAULTS]) == 1
    assert info[FAULTS][0].startswith("task 'arm', reset: ")
    np.testing.assert_array_equal(obs, [0, 0])
    assert FailingEnv.built == 2


def test_a_reset_that_always_fails_is_an_error() -> None:
    env = guarded(kind="raise", step=0)
    with pytest.raises(UserError, match=r"task 'arm', reset: RuntimeError.*: 4 times in a row") as caught:
        env.reset()
    assert "\n" not in str(caught.value)
    assert (FailingEnv.built, FailingEnv.closed) == (4, 3)


def test_rebuilding_may_fail_and_so_may_closing(tmp_path: Path) -> None:
    fails = iter([False, True, True, False])

    def build() -> gymnasium.Env:
        if next(fails):
            raise ConnectionError("the server restarts")
        return FailingEnv({"kind": "close", "step": 3, "once": tmp_path / "once"})

    env = GuardedEnv(build, "arm")
    env.reset()
    steps_until_end(env)
    _, info = env.reset()
    assert [fault.rpartition(" (")[0] for fault in info[FAULTS]] == [
        "task 'arm' cannot be built: ConnectionError: the server restarts"
    ] * 2
    assert steps_until_end(env)[0] == 10


def test_an_environment_that_cannot_be_built_is_an_error() -> None:
    with pytest.raises(UserError, match=r"task 'arm' cannot be built: OSError: no licence \(failing_env"):
        guarded(kind="build")


def test_the_others_of_a_vector_go_on(tmp_path: Path) -> None:
    config = {"kind": "raise", "step": 3, "once": tmp_path / "once"}
    vector = SyncVectorEnv([partial(GuardedEnv, partial(FailingEnv, config), "arm") for _ in range(3)])
    vector.reset(seed=0)
    episodes = []
    for _ in range(9):
        obs, _, _, _, infos = vector.step(np.zeros((3, 1), np.float32))
        if FAULTS in infos:
            assert infos[f"_{FAULTS}"].tolist() == [True, False, False]
            assert "motor" in infos[FAULTS][0][0]
            episodes.append(obs)
    assert len(episodes) == 1
    assert FailingEnv.built == 4
    assert obs[:, 1].tolist() == [5, 9, 9]  # three, the fault, a reset, five


def test_of_a_set_one_member_is_rebuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def make(name: str, seed: int | None = None) -> GuardedEnv:
        made.append(name)
        return GuardedEnv(partial(make_env, name, seed=seed), name, seed=seed)

    env = make_set(task_info("pendulum-swingup+cartpole-balance"), 0, make=make)
    env.reset()
    first = env._envs[0]
    monkeypatch.setattr(first.env, "_step_task", lambda action: (np.full(3, np.nan), 0.0, False, {}))
    obs, _, _, truncated, info = env.step(np.zeros(1))
    assert truncated
    assert info["task"] == 0
    assert info[FAULTS][0].startswith("task 'pendulum-swingup', step 1: number 0")
    assert obs.shape == env.observation_space.shape
    env.reset()
    assert made == ["pendulum-swingup", "cartpole-balance"]
    assert env._envs[0] is first


@pytest.mark.parametrize("library", ["CDLL", "PyDLL"])
def test_a_hang_in_c_ends_a_process_that_may_end(library: str, tmp_path: Path) -> None:
    """With and without the interpreter's lock in its hands."""
    code = f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from failing_env import FailingEnv
        from tdmpc_ray.envs import watchdog
        from tdmpc_ray.envs.faults import GuardedEnv
        watchdog.GRACE_S = 0.5
        watchdog.allow_exit(Path({str(tmp_path / "words")!r}))
        env = GuardedEnv(lambda: FailingEnv(dict(kind={library!r}, step=2)), "arm", 1.0)
        env.reset()  # the watchdog's thread has hardly begun
        env.step(None)
        env.step(None)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    words = (tmp_path / "words").read_text()
    if library == "CDLL":
        assert re.fullmatch(r"task 'arm', step 2: hung for \d s in code that cannot be interrupted\n", words)
    else:
        assert "failing_env.py" in words
        assert "hang_in_c" in words


def test_a_fault_does_not_end_the_measurement_of_the_random_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registered, "_tasks", {})
    once = tmp_path / "once"
    for name, config in (
        ("test-once", {"kind": "raise", "step": 3, "once": once}),
        ("test-always", {"kind": "raise", "step": 3}),
        ("test-hangs", {"kind": "sleep", "step": 3}),
    ):
        register_task(name, lambda config=config, render_mode=None: FailingEnv(config), episode_length=10)
    assert random_return("test-once", 2, seed=0) == [55.0, 55.0]
    assert once.exists()
    with pytest.raises(UserError, match=r"cut every episode: .*: task 'test-always', step 3: RuntimeError"):
        random_return("test-always", 2, seed=0)
    with pytest.raises(UserError, match=r"task 'test-hangs', step 3: hung for 0.1 s"):
        random_return("test-hangs", 1, seed=0, timeout_s=0.1)
