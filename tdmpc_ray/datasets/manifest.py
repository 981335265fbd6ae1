"""dataset.json of a dataset's folder: which tasks, from where, in which chunks."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from tdmpc_ray.errors import UserError

MANIFEST_FILE = "dataset.json"
FORMAT = 1


class TaskEntry(BaseModel):
    """A task, and what its rows hold."""

    name: str
    obs_shape: list[int] = Field(description="(O,), or (C, 64, 64) of stacked frames")
    action_dim: int
    vector_dim: int = Field(default=0, description="of a vector beside frames")

    @property
    def is_images(self) -> bool:
        """Whether frames are kept."""
        return len(self.obs_shape) == 3


class Source(BaseModel):
    """Where episodes come from."""

    kind: str = Field(description="run, published or episodes")
    place: str = Field(description="the run's folder, the file, or what `read_episodes` was given")
    task: str = Field(default="", description="that the run learned")
    algorithm: str = ""
    seed: int | None = None
    steps: int | None = Field(default=None, description="agent steps that the run had taken")

    @property
    def words(self) -> str:
        """In a line."""
        if self.kind != "run":
            return self.place
        return f"{self.place} ({self.algorithm} on {self.task}, seed {self.seed}, {self.steps or 0:,} steps)"


class Part(BaseModel):
    """Episodes of one task from one source, in one chunk."""

    chunk: str = Field(description="sha256 of its file")
    task: int
    source: int
    rows: int = Field(description="observations: one more than steps in each episode")
    episodes: int
    steps: int


class Manifest(BaseModel):
    """A dataset."""

    format: int = FORMAT
    tdmpc_ray: str = Field(description="version that wrote this")
    half: bool = Field(description="whether numbers are in half precision")
    tasks: list[TaskEntry] = []
    sources: list[Source] = []
    parts: list[Part] = []

    @property
    def rows(self) -> int:
        """Observations of all parts."""
        return sum(part.rows for part in self.parts)

    def of_task(self, name: str) -> TaskEntry | None:
        """The task of a name; None where there is none."""
        return next((task for task in self.tasks if task.name == name), None)


def is_dataset(folder: Path) -> bool:
    """Whether a folder is a dataset."""
    return (folder / MANIFEST_FILE).is_file()


def read_manifest(folder: Path) -> Manifest:
    """Read it.

    Raises:
        UserError: the folder is no dataset, its manifest is damaged, or of a later version.
    """
    file = folder / MANIFEST_FILE
    try:
        manifest = Manifest.model_validate_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{folder} is no dataset: it has no {MANIFEST_FILE}; make one with `tdmpc-ray dataset make`"
        ) from None
    except (OSError, ValueError, ValidationError) as error:
        raise UserError(f"{file} is damaged: {str(error).splitlines()[0]}") from None
    if manifest.format != FORMAT:
        raise UserError(f"{file} is of format {manifest.format}, this version of tdmpc_ray reads {FORMAT}")
    return manifest
