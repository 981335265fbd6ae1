"""Frames where OpenGL works; one clear line where it does not."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path
from typing import Any

import mujoco
import mujoco.gl_context
import numpy as np
import pytest
from drawing_env import DrawingEnv
from gymnasium.spaces import Box
from ray.rllib.env.env_context import EnvContext

from tdmpc_ray.envs import gl, make_env, register_task, registered
from tdmpc_ray.envs.gl import require_gl
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib.acting.task_env import env_creator


def can_render() -> bool:
    try:
        require_gl()
    except UserError:
        return False
    return True


needs_gl = pytest.mark.skipif(not can_render(), reason="no OpenGL context here: libosmesa6 gives one")


@needs_gl
@pytest.mark.parametrize(
    ("name", "size"), [("walker-walk", 384), ("mw-reach", 384), ("gym:InvertedPendulum-v5", 480)]
)
def test_frames(name: str, size: int) -> None:
    env = make_env(name, seed=0, render_mode="rgb_array")
    env.reset()
    first = env.render()
    assert isinstance(first, np.ndarray)
    assert first.shape == (size, size, 3)
    assert first.dtype == np.uint8
    assert first.std() > 1
    for _ in range(3):
        env.step(env.action_space.sample())
    assert not np.array_equal(env.render(), first)
    assert env.metadata["render_fps"] > 0
    env.close()
    env.close()


@needs_gl
def test_frames_are_dm_control_s_own() -> None:
    """In a process of its own: dm_control settles on an OpenGL library when it is first imported."""
    code = (
        "from tdmpc_ray.envs import make_env;"
        "env = make_env('quadruped-walk', seed=0, render_mode='rgb_array'); env.reset();"
        "raw = env._env.physics.render(384, 384, camera_id=2);"
        "assert (env.render() == raw).all() and raw.std() > 1"
    )
    environment = {key: value for key, value in os.environ.items() if key != "MUJOCO_GL"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Nothing is printed at exit, although the environment was not closed.
    assert "Traceback" not in done.stderr


@needs_gl
def test_an_environment_of_one_s_own_draws_without_a_display() -> None:
    """Frames to film, and those that it observes, which nobody has asked it to render."""
    code = (
        "from drawing_env import DrawingEnv\n"
        "from tdmpc_ray.envs import make_env, register_task\n"
        "register_task('own', DrawingEnv, episode_length=3)\n"
        "env = make_env('own', render_mode='rgb_array')\n"
        "assert env.reset()[0].std() > 1 and env.render().std() > 1\n"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "DISPLAY")}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


@pytest.fixture
def _mujoco_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(registered, "_tasks", {})
    for module in (mujoco, mujoco.gl_context):
        monkeypatch.setattr(module, "GLContext", None, raising=False)  # and back again


@pytest.mark.usefixtures("_mujoco_s_own")
def test_a_class_draws_likewise(monkeypatch: pytest.MonkeyPatch) -> None:
    env_creator(DrawingEnv, None, 3)(EnvContext({}, worker_index=0))
    assert mujoco.gl_context.GLContext is gl._context
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(mujoco.gl_context, "GLContext", None)
    env_creator(DrawingEnv, None, 3)(EnvContext({}, worker_index=0))
    assert mujoco.gl_context.GLContext is None  # whoever names a library gets that one


@pytest.mark.usefixtures("_mujoco_s_own")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of MuJoCo's half-made one
def test_an_environment_of_one_s_own_that_cannot_draw_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mujoco.egl", "mujoco.osmesa"):
        monkeypatch.setitem(sys.modules, name, None)
    register_task("own", DrawingEnv, episode_length=3)
    env = make_env("own")
    with pytest.raises(UserError, match="cannot render: MUJOCO_GL=egl gives no OpenGL context") as caught:
        env.reset()
    assert "\n" not in str(caught.value)
    del caught, env
    gc.collect()  # the renderer that could not be made, here and not in another test


def test_whatever_a_renderer_raises_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Blind(DrawingEnv):
        observation_space = Box(-1, 1, (2,))

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            return np.zeros(2, np.float32), {}

        def render(self) -> Any:
            raise RuntimeError("no window\nat all")

    monkeypatch.setattr(registered, "_tasks", {})
    register_task("blind", Blind, episode_length=3)
    env = make_env("blind", render_mode="rgb_array")
    env.reset()
    with pytest.raises(UserError, match=r"^task 'blind' cannot render: RuntimeError: no window") as caught:
        env.render()
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(find_library("OSMesa") is None, reason="needs Debian's libosmesa6")
@pytest.mark.parametrize("asked", [None, "osmesa"])
def test_osmesa_where_egl_fails(asked: str | None) -> None:
    code = (
        "import ctypes, os\n"
        "load = ctypes.CDLL.__init__\n"
        "def without_egl(self, name, *rest, **how):\n"
        "    if 'EGL' in str(name): raise OSError('not installed')\n"
        "    load(self, name, *rest, **how)\n"
        "ctypes.CDLL.__init__ = without_egl\n"
        "import ray.rllib.core\n"  # which imports dm_control
        "from tdmpc_ray.envs import make_env\n"
        "env = make_env('walker-walk', seed=0, render_mode='rgb_array'); env.reset()\n"
        "assert env.render().std() > 1 and os.environ['MUJOCO_GL'] == 'osmesa', os.environ['MUJOCO_GL']\n"
        "env = make_env('cheetah-run', seed=0, obs='rgb'); assert env.reset()[0].std() > 1\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "MUJOCO_GL"}
    environment |= {"MUJOCO_GL": asked} if asked else {}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_egl_without_a_driver_is_one_clear_line() -> None:
    code = "from tdmpc_ray.envs import make_env; make_env('walker-walk', render_mode='rgb_array')"
    environment = {key: value for key, value in os.environ.items() if key != "MUJOCO_GL"}
    environment["__EGL_VENDOR_LIBRARY_DIRS"] = "/nowhere"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    said = done.stderr.strip().splitlines()[-1]
    assert "cannot render: MUJOCO_GL=egl gives no OpenGL context" in said
    assert "MUJOCO_GL=osmesa gives no OpenGL context" in said


@pytest.mark.parametrize("asked", ["osmesa", "no-such-library"])
def test_without_its_library_states_are_observed_all_the_same(asked: str) -> None:
    """Also RLlib can be imported, which imports dm_control; what is drawn names the library asked for."""
    code = (
        "import ctypes, sys\n"
        "from ctypes import util\n"
        "find, load = util.find_library, ctypes.CDLL.__init__\n"
        "def without(self, name, *rest, **how):\n"
        "    if 'OSMesa' in str(name): raise OSError('not installed')\n"
        "    load(self, name, *rest, **how)\n"
        "ctypes.CDLL.__init__ = without\n"
        "util.find_library = lambda name: None if name == 'OSMesa' else find(name)\n"
        f"{'import tdmpc_ray.rllib' if asked == 'osmesa' else ''}\n"
        "from tdmpc_ray.envs import make_env\n"
        "for name in ('walker-walk', 'mw-reach', 'gym:InvertedPendulum-v5'):\n"
        "    make_env(name, seed=0).reset()\n"
        "make_env('walker-walk', render_mode='rgb_array')\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYOPENGL_PLATFORM"}
    environment["MUJOCO_GL"] = asked
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    said = done.stderr.strip().splitlines()[-1]
    assert f"UserError: cannot render: MUJOCO_GL={asked} gives no OpenGL context" in said, done.stderr


def test_no_frame_unless_asked() -> None:
    env = make_env("cartpole-balance", seed=0)
    env.reset()
    assert env.render() is None


@pytest.mark.parametrize("backend", ["disable", "no-such-library"])
@pytest.mark.parametrize("name", ["walker-walk", "mw-reach", "gym:InvertedPendulum-v5"])
def test_no_opengl_is_one_clear_line(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", backend)
    with pytest.raises(UserError, match=f"cannot render: MUJOCO_GL={backend} gives no OpenGL") as caught:
        make_env(name, render_mode="rgb_array")
    assert "libegl1" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_failed_choice_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """MUJOCO_GL stays as the user left it, as the simulators refuse to start on a library that is missing."""
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setitem(sys.modules, "mujoco.egl", None)
    monkeypatch.setitem(sys.modules, "mujoco.osmesa", None)
    with pytest.raises(UserError, match="cannot render"):
        make_env("walker-walk", render_mode="rgb_array")
    assert "MUJOCO_GL" not in os.environ
    make_env("walker-walk").reset()


def test_unknown_render_mode() -> None:
    with pytest.raises(UserError, match="unknown render mode 'human': use 'rgb_array' or None"):
        make_env("walker-walk", render_mode="human")
