"""A tiny run on walker-walk."""

from typing import Any

from tdmpc_ray.rllib import TDMPC2Config


def walker(overrides: dict[str, Any]) -> TDMPC2Config:
    config = TDMPC2Config().environment("walker-walk")
    config.training(
        model_size="tiny",
        overrides={**overrides, "data.seed_steps": 50},
        steps_per_iteration=100,
        updates_per_call=25,
    )
    return config.debugging(seed=3, log_level="ERROR").evaluation(evaluation_duration=2)
