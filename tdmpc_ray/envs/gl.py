"""OpenGL: tried where something is drawn, and in nobody's way where nothing is."""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import os
import sys
import weakref
from typing import Any

from tdmpc_ray.errors import UserError

_NONE = "disable"  # the value of MUJOCO_GL for no library at all
_ASKED = "TDMPC_RAY_MUJOCO_GL"  # what MUJOCO_GL said before `without_gl` took it back


def without_gl() -> None:
    """Let simulators be imported although MUJOCO_GL names a library that is not there.

    MuJoCo and dm_control load it when they are imported, and fail there, also where nothing is drawn. Who
    imports them, or RLlib, which does, calls this first.
    """
    asked = os.environ.get("MUJOCO_GL")
    if not asked or "mujoco" in sys.modules:
        return
    platform = os.environ.get("PYOPENGL_PLATFORM")
    try:
        importlib.import_module("mujoco")
    except Exception:  # PyOpenGL reports a missing library in a dozen ways, AttributeError among them
        _forget("mujoco", "OpenGL")
        os.environ |= {"MUJOCO_GL": _NONE, _ASKED: asked}
        if platform is None:
            os.environ.pop("PYOPENGL_PLATFORM", None)


def _forget(*packages: str) -> None:
    """Have packages imported anew."""
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]


def require_gl() -> None:
    """Make sure that MuJoCo can render.

    Where MUJOCO_GL is not set on Linux, EGL is tried, and then OSMesa: neither needs a display.

    Raises:
        UserError: no OpenGL context can be made.
    """
    asked = os.environ.get("MUJOCO_GL")
    asked = os.environ.get(_ASKED, asked) if asked == _NONE else asked
    choices = [asked] if asked else (["egl", "osmesa"] if sys.platform.startswith("linux") else ["glfw"])
    reasons = []
    for backend in choices:
        if (error := _gl_error(backend)) is None:
            return
        reason = " ".join(str(error).split()) or type(error).__name__
        reasons.append(f"MUJOCO_GL={backend} gives no OpenGL context ({reason})")
    raise UserError(
        f"cannot render: {', '.join(reasons)}: install libegl1 and set MUJOCO_GL=egl, or libosmesa6 and "
        "MUJOCO_GL=osmesa"
    )


def draw_anywhere() -> None:
    """Have environments that draw with MuJoCo's own renderer find a library as `require_gl` does.

    MuJoCo itself takes GLFW where MUJOCO_GL says nothing, and that needs a display. OpenGL is not touched
    before something is drawn.
    """
    is_chosen = os.environ.get("MUJOCO_GL", _NONE) != _NONE
    if is_chosen or not sys.platform.startswith("linux") or importlib.util.find_spec("mujoco") is None:
        return
    import mujoco.gl_context

    mujoco.gl_context.GLContext = mujoco.GLContext = _context


def _context(width: int, height: int) -> Any:
    require_gl()
    context = importlib.import_module(f"mujoco.{os.environ['MUJOCO_GL']}").GLContext(width, height)
    atexit.register(_free, weakref.ref(context))
    return context


def _free(kept: weakref.ref[Any]) -> None:
    """A context that outlives the interpreter's modules ends in tracebacks at exit."""
    if (context := kept()) is not None:
        context.free()


def _gl_error(backend: str) -> Exception | None:
    """Let MuJoCo render by `backend`, from here on; why that does not work, where it does not."""
    if backend not in ("egl", "glfw", "osmesa"):
        return RuntimeError("not an OpenGL library")
    before = {name: os.environ.pop(name, None) for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    if before["PYOPENGL_PLATFORM"] not in (None, backend):
        _forget("OpenGL")  # it is bound to the library that it was imported for, by dm_control, say
    os.environ["MUJOCO_GL"] = backend
    try:
        import mujoco

        context = importlib.import_module(f"mujoco.{backend}").GLContext(16, 16)
        context.make_current()
        # Where another library is loaded, MuJoCo may take its functions, and fail only here.
        model = mujoco.MjModel.from_xml_string("<mujoco/>")
        mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100).free()
        context.free()
        return None
    # PyOpenGL, glfw and MuJoCo report a missing driver in a dozen ways, AttributeError among them.
    except Exception as error:
        sys.modules.pop(f"mujoco.{backend}", None)
        del os.environ["MUJOCO_GL"]
        os.environ.update({name: value for name, value in before.items() if value is not None})
        return error
