"""What the watchdog of an env runner tells the process that takes its place."""

from __future__ import annotations

from pathlib import Path

import ray
from ray._private import worker

from tdmpc_ray.errors import PassingError


def exit_reason_file() -> Path:
    """The file of this actor in Ray's folder; the same after a restart, unless that is on another host."""
    folder = Path(worker._global_node.get_session_dir_path())
    return folder / f"exit_reason-{ray.get_runtime_context().get_actor_id()}.txt"


def take_exit_reason(path: Path) -> list[str]:
    """The fault that ended the process before this one, if one did.

    Raises:
        UserError: it did not get as far as to have environments.
    """
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    path.unlink(missing_ok=True)
    if not text.strip():
        return []
    line = text.splitlines()[0]
    if not line.startswith("task "):
        # Of the main thread, which comes last, the innermost call.
        main = text.rpartition("hread 0x")[2]
        place = next((line.strip() for line in main.splitlines() if line.lstrip().startswith("File ")), line)
        line = f"an environment hung in code that holds Python's interpreter: {place}"
    if ", building it: " in line:
        raise PassingError(line)
    return [f"{line}; its env runner was restarted"]
