"""Episodes in files of several formats, each made by its own library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict
from minari.data_collector import EpisodeBuffer

from tdmpc_ray import cli
from tdmpc_ray.cli import forms
from tdmpc_ray.datasets.episode import Episode, EpisodeRecord
from tdmpc_ray.datasets.sources import read_episodes, require_source
from tdmpc_ray.envs.adapter import adapt
from tdmpc_ray.errors import UserError


class Goals(gymnasium.Env):
    """Observes two parts; an action moves the state, success is at 3."""

    observation_space = Dict({"goal": Box(0, 9, (1,)), "place": Box(-9, 9, (2,))})
    action_space = Box(np.array([-2.0, 0.0]), np.array([2.0, 4.0]), dtype=np.float64)

    def __init__(self) -> None:
        self.place = np.zeros(2)

    def _seen(self) -> dict[str, Any]:
        return {"goal": np.full(1, 3, np.float32), "place": self.place.astype(np.float32)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.place = np.zeros(2)
        return self._seen(), {"success": False}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place = self.place + action
        won = bool(self.place[0] >= 3)
        return self._seen(), float(won), won, False, {"success": won}


ACTIONS = [np.array([2.0, 1.0]), np.array([1.5, 4.0])]


@pytest.fixture
def minari_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Written by Minari itself; its collector, which fills such buffers, would need JAX."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    buffers = []
    for number in range(2):
        env = Goals()
        seen, steps = [env.reset()[0]], [env.step(action) for action in ACTIONS]
        seen += [step[0] for step in steps]
        buffers.append(
            EpisodeBuffer(
                id=number,
                observations={key: [obs[key] for obs in seen] for key in seen[0]},
                actions=ACTIONS,
                rewards=[step[1] for step in steps],
                terminations=[step[2] for step in steps],
                truncations=[step[3] for step in steps],
                infos={"success": [False, *(step[4]["success"] for step in steps)]},
            )
        )
    spaces = {"observation_space": Goals.observation_space, "action_space": Goals.action_space}
    about = {"algorithm_name": "by hand", "author": "us", "author_email": "a@b.c", "code_permalink": "x"}
    minari.create_dataset_from_buffers("lab/goals-v0", buffers, **spaces, **about)
    return "minari:lab/goals-v0"


def test_episodes_of_minari_are_what_the_environment_gives(minari_dataset: str, tmp_path: Path) -> None:
    require_source(minari_dataset)
    folder = tmp_path / "minari" / "lab" / "goals-v0"
    by_name, in_folder = (list(read_episodes(where)) for where in (minari_dataset, str(folder)))
    assert len(by_name) == len(in_folder) == 2
    episode = by_name[1]
    assert (episode.terminated, episode.success, episode.task) == (True, True, "")
    env = adapt(Goals(), "goals")
    seen = [env.reset()[0]]
    for action in episode.action:
        seen.append(env.step(action)[0])
    np.testing.assert_allclose(episode.obs, np.stack(seen), atol=1e-6)
    np.testing.assert_allclose(episode.action, [[1.0, -0.5], [0.75, 1.0]])
    assert episode.reward.tolist() == [0.0, 1.0]


def test_a_dataset_that_is_not_there(minari_dataset: str) -> None:
    with pytest.raises(UserError, match="no dataset lab/other-v0 of Minari on this machine: get it with"):
        list(read_episodes("minari:lab/other-v0"))


@pytest.fixture
def robomimic_file(tmp_path: Path) -> Path:
    path = tmp_path / "lift.hdf5"
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1})
        for number, steps in ((10, 3), (2, 4)):
            demo = data.create_group(f"demo_{number}")
            demo["actions"], demo["rewards"] = np.full((steps, 2), 0.5), np.arange(steps)
            for group, shift in (("obs", 0), ("next_obs", 1)):
                demo[f"{group}/pos"] = np.arange(steps)[:, None] + shift + np.zeros((steps, 3))
                demo[f"{group}/eye"] = np.zeros((steps, 4, 4, 3), np.uint8)
                demo[f"{group}/arm"] = np.full((steps, 1), 10.0 * number)
    return path


def test_episodes_of_robomimic(robomimic_file: Path) -> None:
    first, second = read_episodes(str(robomimic_file))
    assert (len(first), len(second)) == (4, 3)
    assert first.obs.tolist() == [[20.0, t, t, t] for t in range(5)]  # by name: arm, pos
    assert (first.task, first.terminated, first.success) == ("Lift", False, None)
    assert first.reward.tolist() == [0, 1, 2, 3]
    chosen = next(read_episodes(f"{robomimic_file}#pos,arm"))
    assert chosen.obs[0].tolist() == [0, 0, 0, 20.0]
    for keys, message in (("eye", "observes eye: choose"), ("po", "no 'po': there are arm, eye, pos")):
        with pytest.raises(UserError, match=message):
            list(read_episodes(f"{robomimic_file}#{keys}"))
    with h5py.File(robomimic_file, "a") as file:
        del file["data/demo_2/next_obs"]
    assert len(next(read_episodes(str(robomimic_file)))) == 3, "of the last step nobody knows what it led to"
    with h5py.File(robomimic_file, "a") as file:
        del file["data/demo_2/obs"]
    with pytest.raises(UserError, match="demo_2 has no 'obs': make it with robomimic's dataset"):
        list(read_episodes(str(robomimic_file)))


def test_numpy_files_under_their_usual_names(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "a.npz",
        observations=np.zeros((3, 2)),
        actions=np.zeros((3, 1)),
        rewards=np.ones((3, 1)),
        terminals=np.array([False, False, True]),
    )
    (episode,) = read_episodes(str(tmp_path / "a.npz"))
    assert (len(episode), episode.reward.tolist(), episode.terminated) == (2, [1.0, 1.0], False)
    assert (episode.obs.dtype, episode.action.dtype) == (np.float32, np.float32)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.hdf5", b"\x89HDF\r\n\x1a\n", r"cannot read .*x\.hdf5: "),
        ("x.txt", b"", r"x\.txt is no file of episodes: give episodes as \.npz"),
        ("absent", None, "absent is not there: give"),
    ],
)
def test_what_is_no_source(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        list(read_episodes(str(tmp_path / name)))
    assert "\n" not in str(caught.value)


def test_what_no_environment_gives_is_refused_with_its_place() -> None:
    good: dict[str, Any] = {
        "source": "s",
        "obs": np.zeros((4, 2), np.float32),
        "action": np.zeros((3, 1), np.float32),
        "reward": np.zeros(3, np.float32),
    }
    Episode(**good).check()
    wrong = np.zeros((4, 2), np.float32)
    wrong[2, 1] = np.inf
    for changes, message in (
        ({"obs": wrong}, "s has a number in 'obs' that is not finite, at step 2"),
        ({"vector": np.zeros((3, 1), np.float32)}, "s has 3 of 'vector' for 3 actions: give 4"),
        ({"action": np.zeros((0, 1), np.float32)}, r"s has actions of shape \(0, 1\)"),
    ):
        with pytest.raises(UserError, match=message):
            Episode(**{**good, **changes}).check()


def test_demos_lists_what_is_there(
    tmp_path: Path, robomimic_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, success in enumerate((True, False)):
        record = EpisodeRecord(np.zeros(2, np.float32))
        for _ in range(4):
            record.add(np.zeros(2, np.float32), np.zeros(1), 0.5 + number)
        record.save(tmp_path / "own" / f"{number}.npz", terminated=False, task="reach", success=success)
    assert cli.main(["demos", str(tmp_path / "own")]) == 0
    head, first, _, summary = capsys.readouterr().out.splitlines()
    assert head.split() == ["episode", "steps", "return", "success", "ended", "obs", "action"]
    assert first.split() == [f"{tmp_path}/own/0.npz", "4", "2.0", "yes", "cut", "2", "1"]
    assert summary == "2 episodes of reach, 8 steps, return 4.0 (2.0 to 6.0), 1 of 2 with success"
    assert cli.main(["demos", str(robomimic_file), "--json"]) == 0
    form = forms.DemosForm.model_validate_json(capsys.readouterr().out)
    assert [one.total_return for one in form.episodes] == [6.0, 3.0]
    assert cli.main(["demos", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
