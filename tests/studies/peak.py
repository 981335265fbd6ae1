"""A trainable whose best settings are known."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ray import tune


class Peak(tune.Trainable):
    """Learns faster the nearer the rate is to 3e-4; 1000 steps in each result."""

    def setup(self, config: dict[str, Any]) -> None:
        self.env_steps, self.score = 0, 0.0

    def step(self) -> dict[str, Any]:
        self.env_steps += 1000
        self.score += 10 - abs(math.log(self.config["agent_overrides"]["update.lr"] / 3e-4))
        report = {"eval/return": self.score, "summary/params_total": 1e5}
        done = self.env_steps >= self.config["total_steps"]
        latest = {"eval/return": self.score}
        return {"env_steps": self.env_steps, "latest": latest, "report": report, "done": done}

    def save_checkpoint(self, folder: str) -> None:
        (Path(folder) / "peak.json").write_text(json.dumps([self.env_steps, self.score]))

    def load_checkpoint(self, folder: str) -> None:
        self.env_steps, self.score = json.loads((Path(folder) / "peak.json").read_text())
