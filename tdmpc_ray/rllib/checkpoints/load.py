"""Networks in RLlib's checkpoints: found, read, and exchanged with the published implementation."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

from tdmpc_ray.addresses import refuse_address
from tdmpc_ray.errors import UserError, reason
from tdmpc_ray.rllib.checkpoints.at_hand import at_hand
from tdmpc_ray.rllib.checkpoints.manifest import is_complete, verify

if TYPE_CHECKING:
    from tdmpc_ray.rllib.acting.module import AgentModule

MODULE = Path("learner_group/learner/rl_module/default_policy")
_METADATA = "metadata.json"


def find_checkpoint(path: Path) -> Path:
    """The checkpoint at `path`, or the newest below it where `path` is the folder of a run.

    Raises:
        UserError: there is none.
    """
    refuse_address(path)
    if not path.is_dir():
        what = "that is a file, not a folder" if path.exists() else "there is no such folder"
        raise UserError(f"no checkpoint at {path}: {what}")
    found = checkpoints_below(path)
    if not found:
        raise UserError(f"no checkpoint in {path}: give a checkpoint folder, or the --out folder of a run")
    newest_first = sorted(found, key=lambda p: (p / MODULE / _METADATA).stat().st_mtime, reverse=True)
    return next(filter(is_complete, newest_first), newest_first[0])


def checkpoints_below(path: Path) -> list[Path]:
    """Those at `path`, in a trial's folder, in Tune's, or in a study's: three levels at most.

    Raises:
        UserError: everybody may put something into the folder, and reading a checkpoint runs what is in it.
    """
    if (path / MODULE / _METADATA).is_file():
        return [path]
    if path.stat().st_mode & stat.S_IWOTH:
        raise UserError(f"everybody may write to {path}: name the folder of the run or checkpoint in it")
    levels = ("*", "*/*", "*/*/*")
    return [p.parents[4] for level in levels for p in path.glob(f"{level}/{MODULE / _METADATA}")]


def networks_of_newest(path: Path) -> list[Path]:
    """The folder with the networks of what `find_checkpoint` finds, for `at_hand`."""
    return [find_checkpoint(path) / MODULE]


def load_module(path: str | Path) -> AgentModule:
    """The module in the newest checkpoint at or below `path`, which may be an address.

    Tasks that only the run's own process had registered are known afterwards.

    Raises:
        UserError: no checkpoint, or a damaged one.
    """
    from tdmpc_ray.rllib.acting.module import AgentModule
    from tdmpc_ray.rllib.checkpoints.own_env import know_tasks

    with at_hand(path, networks_of_newest) as local:
        checkpoint = find_checkpoint(local)
        verify(checkpoint, below=str(MODULE))
        try:
            module = AgentModule.from_checkpoint((checkpoint / MODULE).resolve())
        except UserError:
            raise
        except Exception as error:  # a torn pickle may fail in any way
            raise UserError(f"the checkpoint {checkpoint} is damaged: {reason(error)}") from error
        know_tasks(checkpoint, module.model_config["task"])
        return module
