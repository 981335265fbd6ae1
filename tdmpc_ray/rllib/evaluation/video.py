"""Films of episodes: an mp4, and frames side by side as one picture."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from tdmpc_ray.envs import make_env
from tdmpc_ray.errors import UserError, described, reason

_FPS = 25  # of environments that do not say theirs
_COLUMNS, _ROWS = 4, 3


class Film:
    """Takes the frames of one episode; a context manager, which writes the files.

    Args:
        mp4: file of the film; None: none.
        grid: PNG file of frames from the whole episode, with their steps; None: none.

    Raises:
        UserError: imageio or ffmpeg is missing, or a file cannot be written.
    """

    def __init__(self, mp4: Path | None = None, grid: Path | None = None) -> None:
        self._grid, self._mp4 = grid, mp4
        self._writer: Any = None
        if grid is not None and grid.suffix.lower() != ".png":
            raise UserError(f"cannot draw frames into {grid}: name a file that ends with .png")
        if mp4 is not None:
            _prepare(mp4)
        self._kept: list[tuple[int, NDArray[np.uint8]]] = []
        self._stride, self._steps = 1, 0

    def __enter__(self) -> Film:
        return self

    def __exit__(self, *exception: Any) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
            if self._grid is not None and self._kept:
                self._write_grid(self._grid)
        except OSError as error:
            raise UserError(f"cannot write the film: {error}") from None
        finally:
            if self._mp4 is not None and self._mp4.exists() and self._mp4.stat().st_size == 0:
                self._mp4.unlink()  # nothing was filmed

    def take(self, env: gymnasium.Env) -> None:
        """Take what an environment renders; the first frame is that before the first step.

        Raises:
            UserError: it renders none.
        """
        self.append(rendered(env), env.metadata.get("render_fps") or _FPS)

    def append(self, frame: NDArray[np.uint8], fps: float = _FPS) -> None:
        """Take the next frame, (H, W, 3)."""
        if self._mp4 is not None:
            if self._writer is None:
                self._writer = _mp4_writer(self._mp4, fps)
            self._writer.append_data(_even(frame))
        if self._steps % self._stride == 0:
            self._kept.append((self._steps, frame))
        self._steps += 1
        if len(self._kept) == 4 * _COLUMNS * _ROWS:  # an episode's length is not known before its end
            self._kept, self._stride = self._kept[::2], 2 * self._stride

    def _write_grid(self, path: Path) -> None:
        from matplotlib.figure import Figure

        count = min(_COLUMNS * _ROWS, len(self._kept))
        shown = [self._kept[round(i)] for i in np.linspace(0, len(self._kept) - 1, count)]
        height, width, _ = shown[0][1].shape
        figure = Figure(figsize=(2.6 * _COLUMNS, (2.6 * height / width + 0.28) * _ROWS), layout="constrained")
        for axes in (panels := figure.subplots(_ROWS, _COLUMNS, squeeze=False).ravel()):
            axes.axis("off")
        for axes, (step, frame) in zip(panels, shown, strict=False):
            axes.imshow(frame)
            axes.set_title(f"step {step}", fontsize=8, color="#555555", pad=2)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)


def require_film(task: str) -> None:
    """Refuse early what would fail after hours of training; before anything else of the task is built.

    Raises:
        UserError: the task cannot be rendered here, or no mp4 file be written.
    """
    _imageio()
    env = make_env(task, render_mode="rgb_array")
    try:
        env.reset()
        rendered(env)
    finally:
        env.close()


def rendered(env: gymnasium.Env) -> NDArray[np.uint8]:
    """A frame, (H, W, 3).

    Raises:
        UserError: the environment gives none.
    """
    try:
        frame: Any = env.render()
    except UserError:
        raise
    except Exception as error:  # of a foreign environment, anything may come
        raise UserError(f"cannot render: {described(error)}") from error
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.shape[2:] != (3,):
        what = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise UserError(
            f"cannot film: render() gives {what} where it should give a frame of (height, width, 3) in uint8"
        )
    return frame


def _even(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The frame with its last row and column again where their number is odd, which films cannot have."""
    height, width, _ = frame.shape
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), "edge")


def _imageio() -> Any:
    if not (find_spec("imageio") and find_spec("imageio_ffmpeg")):
        raise UserError("videos need imageio and ffmpeg: pip install 'tdmpc-ray[video]'")
    import imageio.v2 as imageio

    return imageio


def _prepare(path: Path) -> None:
    _imageio()
    if path.suffix.lower() not in (".mp4", ".mov", ".mkv", ".avi"):
        raise UserError(f"cannot write the video {path}: name a file that ends with .mp4")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()  # ffmpeg would only say so with the first frame
    except OSError as error:
        raise UserError(f"cannot write the video {path}: {reason(error)}") from None


def _mp4_writer(path: Path, fps: float) -> Any:
    try:
        return _imageio().get_writer(path, fps=fps, macro_block_size=None)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write the video {path}: {reason(error)}") from None
