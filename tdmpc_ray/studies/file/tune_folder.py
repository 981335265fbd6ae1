"""What Tune has written of a study, on a disk or at an address."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fnmatch import fnmatch

from pyarrow.fs import FileSelector, FileSystem

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.words import count

TUNE_FOLDER = "tune"


@dataclass(frozen=True)
class TuneFolder:
    """Tune's state, and the trials' folders with their checkpoints.

    Args:
        filesystem: pyarrow's.
        path: on it.
    """

    filesystem: FileSystem
    path: str

    def has_trials(self) -> bool:
        """Whether Tune has saved trials there; without, it would silently begin anew, and so do we.

        Raises:
            UserError: its file is damaged.
        """
        newest = max(self._names(self.path, "experiment_state-*.json"), default=None)
        if newest is None:
            return False
        try:
            with self.filesystem.open_input_stream(f"{self.path}/{newest}") as stream:
                return bool(json.loads(stream.read())["trial_data"])
        except (OSError, ValueError, KeyError):
            raise UserError(
                f"cannot resume: {self.path}/{newest} is damaged; the checkpoints beside it are whole, "
                "begin anew"
            ) from None

    def saved_trials(self) -> str:
        """What a resume can go on from, in a line."""
        trials = self._names(self.path, "size*-seed*")  # see `outcome.trial_name`
        saved = [trial for trial in trials if self._names(f"{self.path}/{trial}", "checkpoint_*")]
        anew = len(trials) - len(saved)
        parts = [f"{count(len(saved), 'trial')} from the newest checkpoint"] if saved else []
        if anew:
            parts.append(f"{count(anew, 'trial')} from the beginning, as none was saved (checkpoint.every)")
        return f"resuming {' and '.join(parts)}" if parts else "resuming before the first trial"

    def _names(self, folder: str, pattern: str) -> list[str]:
        found = self.filesystem.get_file_info(FileSelector(folder, allow_not_found=True))
        return [info.base_name for info in found if fnmatch(info.base_name, pattern)]
