"""How an agent is served: what the command is told, and what each replica is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ServeOptions:
    """What `tdmpc-ray serve` is told.

    Attributes:
        settings: of the planner, where they differ from those of the training.
        seed: of the planner's noise.
        replicas: processes that plan.
        threads: of PyTorch in each.
        num_gpus: for each.
        max_batch: sessions that one plans for at once.
        batch_wait_s: how long a batch waits to be filled.
        max_sessions: that a replica remembers.
        idle_s: seconds after which it forgets one.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    replicas: int = 1
    threads: int = 1
    num_gpus: float = 0
    max_batch: int = 32
    batch_wait_s: float = 0.01
    max_sessions: int = 1000
    idle_s: float = 600.0


@dataclass(frozen=True)
class ReplicaOptions(ServeOptions):
    """What a replica is told.

    Attributes:
        folder: of the agent, see `core.saved_agent`.
        model: its name and version, for answers.
        token: that requests must bear; empty: none.
    """

    folder: Path = Path()
    model: str = ""
    token: str = ""

    @property
    def device(self) -> str:
        """To plan on."""
        return "cuda" if self.num_gpus else "cpu"
