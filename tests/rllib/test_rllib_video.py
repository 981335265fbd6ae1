"""Films of episodes: what lies in the files, and that runs leave them in their last checkpoint."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import imageio.v2 as imageio
import numpy as np
import pytest
from test_rllib_tasks import LabCounter

from tdmpc_ray.envs import register_task, registered, task_info
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib import TDMPC2, TDMPC2Config
from tdmpc_ray.rllib.acting import stop_request
from tdmpc_ray.rllib.acting.task_env import guarded_task
from tdmpc_ray.rllib.evaluation import episodes
from tdmpc_ray.rllib.evaluation import of_checkpoints as evaluate
from tdmpc_ray.rllib.evaluation.of_checkpoints import evaluate_checkpoint
from tdmpc_ray.rllib.evaluation.video import Film


class Slides(LabCounter):
    """Step `n` of 20 is a picture as bright as 10 n."""

    def render(self) -> np.ndarray:
        return np.full((48, 64, 3), 10 * self.steps, np.uint8)


def brightness(path: Path) -> list[float]:
    return [float(frame.mean()) for frame in imageio.mimread(path, memtest=False)]


@pytest.mark.parametrize("steps", [1, 7, 300])
def test_the_film_has_every_frame_and_the_picture_frames_from_the_whole_episode(
    tmp_path: Path, steps: int
) -> None:
    mp4, grid = tmp_path / "new" / "a.mp4", tmp_path / "new" / "a.png"
    with Film(mp4, grid) as film:
        for step in range(steps):
            film.append(np.full((48, 64, 3), 255 * step // steps, np.uint8))
        assert len(film._kept) < 48
    seen = brightness(mp4)
    assert len(seen) == steps
    assert np.allclose(seen, [255 * step // steps for step in range(steps)], atol=6)
    picture = imageio.imread(grid)
    assert picture.shape[1] == 2.6 * 4 * 120
    greys = picture[..., 0][(picture[..., 0] < 240) & (picture[..., 0] == picture[..., 2])]
    assert greys.min() < 10
    if steps == 300:
        assert ((greys > 215) & (greys < 240)).mean() > 0.03  # the end of the episode


class Camera(LabCounter):
    """Renders what it is given."""

    def __init__(self, picture: Any) -> None:
        super().__init__()
        self.metadata = {"render_fps": 7}
        self.picture = picture

    def render(self) -> Any:
        return self.picture


def test_frames_of_odd_size_at_the_environment_s_own_speed(tmp_path: Path) -> None:
    with Film(tmp_path / "a.mp4") as film:
        for _ in range(3):
            film.take(Camera(np.full((65, 33, 3), 90, np.uint8)))
    with imageio.get_reader(tmp_path / "a.mp4") as reader:
        assert reader.get_meta_data()["fps"] == 7
        assert reader.get_data(0).shape == (66, 34, 3)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (None, "render.. gives NoneType"),
        (np.zeros((4, 4, 3)), r"float64 \(4, 4, 3\)"),
        (np.zeros((4, 4), np.uint8), r"uint8 \(4, 4\)"),
    ],
)
def test_what_is_no_frame_is_named(picture: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message), Film(tmp_path / "a.mp4", tmp_path / "a.png") as film:
        film.take(Camera(picture))
    assert not list(tmp_path.iterdir())  # and no empty film is left


@pytest.mark.usefixtures("local_ray")
def test_a_run_leaves_films_in_its_last_checkpoint(
    tiny_overrides: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registered, "_tasks", {})
    for name in ("slides-a", "slides-b"):
        register_task(name, Slides, episode_length=20, can_terminate=True)
    config = TDMPC2Config().environment("slides-a+slides-b")
    config.training(
        model_size="tiny",
        overrides={**tiny_overrides, "data.seed_steps": 40},
        steps_per_iteration=40,
        total_steps=80,
        videos=True,
    )
    algo = config.debugging(seed=0, log_level="ERROR").build_algo()
    algo.train()
    assert not (Path(algo.save_to_path(str(tmp_path / "early"))) / "videos").exists()
    algo.train()
    path = Path(algo.save_to_path(str(tmp_path / "last")))
    algo.stop()
    films = sorted(path.glob("videos/*"))
    assert [film.name for film in films] == ["slides-a.mp4", "slides-a.png", "slides-b.mp4", "slides-b.png"]
    assert np.allclose(brightness(films[0]), np.arange(0, 210, 10), atol=6)
    evaluate_checkpoint(path, 1, grid=tmp_path / "b.png", task="slides-b")
    assert (tmp_path / "b.png").stat().st_size > 1000


class Saving(SimpleNamespace):
    """What `TDMPC2.saved` sees of a run at its end."""

    def films(self, folder: Path) -> list[str]:
        TDMPC2.saved(self, folder)  # type: ignore[arg-type]
        return sorted(file.name for file in folder.glob("videos/*"))


@pytest.fixture
def saving(monkeypatch: pytest.MonkeyPatch) -> Saving:
    """A run of two tasks; `played` notes their environments, with the seconds that a step may take."""

    def noted(name: str, *args: Any, timeout_s: float | None = None, **how: Any) -> Any:
        run.played.append((name, timeout_s))
        return guarded_task(name, *args, timeout_s=timeout_s, **how)

    def act(obs: np.ndarray, is_first: np.ndarray, task: str) -> np.ndarray:
        return np.zeros((len(obs), 1), np.float32)

    monkeypatch.setattr(registered, "_tasks", {})
    for name in ("a", "b"):
        register_task(name, Slides, episode_length=20, can_terminate=True)
    agent = SimpleNamespace(task="a+b", tasks=("a", "b"), obs="state", act=act)
    monkeypatch.setattr(evaluate, "load_agent", lambda *args: agent)
    monkeypatch.setattr(episodes, "guarded_task", noted)
    monkeypatch.setattr(stop_request, "LOOK_EVERY_S", 0.0)
    config = SimpleNamespace(videos=True, info=task_info("a+b"), env_step_timeout_s=7.0)
    evaluator = SimpleNamespace(stopped=False)
    run = Saving(at_end=True, evaluator=evaluator, config=config, trial_id="x", played=[])
    return run


def test_a_stop_is_seen_while_the_last_episode_is_filmed(
    saving: Saving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks: list[bool] = []
    monkeypatch.setattr(stop_request, "is_asked", lambda: looks.append(True) or len(looks) == 5)
    assert saving.films(tmp_path) == []
    assert len(looks) == 5, "it goes on after the stop"
    assert saving.played == [("a", 7.0)]
    assert "no film of 'a': a stop came first" in caplog.text
    assert saving.films(tmp_path) == ["a.mp4", "a.png", "b.mp4", "b.png"]  # no stop any more
    assert saving.played[1:] == [("a", 7.0), ("b", 7.0)]


def test_no_half_film_is_left_of_what_breaks(
    saving: Saving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    frames: list[None] = []

    def render(self: Any) -> Any:
        frames.append(None)
        return None if len(frames) == 5 else np.zeros((48, 64, 3), np.uint8)

    monkeypatch.setattr(Slides, "render", render)
    assert saving.films(tmp_path) == ["b.mp4", "b.png"]
    assert "no film of 'a': cannot film: render() gives NoneType" in caplog.text


def test_what_cannot_be_filmed_is_said_before_the_run(
    tiny_overrides: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUJOCO_GL", "none")
    config = TDMPC2Config().environment("pendulum-swingup")
    config.training(model_size="tiny", overrides=tiny_overrides, videos=True)
    with pytest.raises(UserError, match="videos need a task of the catalog and total_steps"):
        config.validate()
    with pytest.raises(UserError, match="cannot render: MUJOCO_GL=none"):
        config.training(total_steps=100).build_algo()
    with pytest.raises(UserError, match="cannot write the video"):
        Film(Path("/proc/a.mp4"))
    with pytest.raises(UserError, match=r"name a file that ends with \.mp4"):
        Film(tmp_path / "a.xyz")
    with pytest.raises(UserError, match=r"name a file that ends with \.png"):
        Film(None, tmp_path / "a.xyz")
