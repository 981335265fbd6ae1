"""Images as observations."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from dm_control import suite
from gymnasium.spaces import Box
from gymnasium.utils.env_checker import check_env

from tdmpc_ray.envs import make_env
from tdmpc_ray.envs.images import ImageForm, to_frame
from tdmpc_ray.errors import UserError


def test_stacks_of_the_suite_s_own_frames() -> None:
    env = make_env("cartpole-swingup", seed=4, obs="rgb")
    assert env.observation_space == Box(0, 255, (9, 64, 64), np.uint8)
    raw = suite.load("cartpole", "swingup", task_kwargs={"random": 4})
    raw.reset()

    def seen() -> np.ndarray:
        return raw.physics.render(64, 64, camera_id=0).transpose(2, 0, 1)

    frames = [seen()] * 3
    obs, _ = env.reset()
    np.testing.assert_array_equal(obs, np.concatenate(frames))
    for _ in range(4):
        action = env.action_space.sample()
        obs, reward, *_ = env.step(action)
        assert reward == pytest.approx(sum(raw.step(action.astype(float)).reward for _ in range(2)))
        frames = [*frames[1:], seen()]
        np.testing.assert_array_equal(obs, np.concatenate(frames))
    assert obs.dtype == np.uint8
    assert not np.array_equal(obs[:3], obs[-3:])
    env.close()


def test_images_and_video_frames_of_one_environment() -> None:
    env = make_env("pendulum-swingup", seed=0, obs="rgb", render_mode="rgb_array")
    obs, _ = env.reset()
    assert obs.shape == (9, 64, 64)
    assert env.render().shape == (384, 384, 3)
    assert env.step(np.zeros(1))[0].shape == (9, 64, 64)
    env.close()


def test_meta_world_s_camera() -> None:
    """The frames are those of its films, smaller."""
    env = make_env("mw-reach", seed=1, obs="rgb", render_mode="rgb_array")
    obs, _ = env.reset()
    np.testing.assert_array_equal(obs[:3], obs[6:])
    obs, _, _, _, info = env.step(np.ones(4))
    shrunk = env.render().reshape(64, 6, 64, 6, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(obs[6:] - shrunk).mean() < 4
    assert not np.array_equal(obs[3:6], obs[6:])
    assert info["success"] == 0.0
    env.close()


@pytest.mark.parametrize("shape", [(84, 84, 3), (200, 130, 1), (3, 40, 32), (64, 64)])
def test_resizing_keeps_what_is_seen(shape: tuple[int, ...]) -> None:
    """A bright quarter stays one, in its place, and no brightness is lost."""
    form = ImageForm.of(shape)
    assert form is not None
    image = np.zeros(shape, np.uint8)
    channels_last = image if form.axis != 0 else image.transpose(1, 2, 0)
    height, width = channels_last.shape[:2]
    channels_last[: height // 2, width // 2 :] = 200
    frame = to_frame(image, form)
    assert frame.shape == (form.channels, 64, 64)
    assert frame.dtype == np.uint8
    assert (frame[:, :31, 33:] == 200).all()
    assert (frame[:, 33:] == 0).all()
    assert (frame[:, :, :31] == 0).all()
    assert abs(frame.mean() - 50) < 1
    assert frame.base is None  # an environment may draw its next frame into the same array


def test_resizing_overlooks_no_pixel() -> None:
    """A fine pattern becomes the gray between its colours, not one of them."""
    image = np.zeros((256, 256), np.uint8)
    image[::2] = 240
    frame = to_frame(image, ImageForm(1, None))
    assert np.abs(frame[:, 1:-1].astype(float) - 120).max() <= 2


@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
def test_it_is_a_gymnasium_environment() -> None:
    check_env(make_env("pendulum-swingup", seed=0, obs="rgb"), skip_render_check=True)


@pytest.mark.parametrize(
    ("task", "obs", "message"),
    [
        ("myo-hand-pose", "rgb", "task 'myo-hand-pose' has no camera to observe: rgb is for DMControl's"),
        ("gym:Pendulum-v1", "rgb", "task 'gym:Pendulum-v1' has no camera to observe"),
        ("walker-walk", "pixels", "unknown observations 'pixels': use state or rgb"),
    ],
)
def test_who_gives_no_images_says_so(task: str, obs: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_env(task, obs=obs)


def test_no_way_to_render_is_one_clear_line() -> None:
    code = (
        "from tdmpc_ray.envs import make_env\n"
        "from tdmpc_ray.errors import UserError\n"
        "try: make_env('walker-walk', obs='rgb')\n"
        "except UserError as error: print(error)\n"
    )
    environment = {**os.environ, "MUJOCO_GL": "nothing"}
    printed = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert printed.startswith("cannot render: MUJOCO_GL=nothing gives no OpenGL context")
