"""Evaluation through RLlib's evaluation runners, with the planner in evaluation mode."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, EVALUATION_RESULTS

from tdmpc_ray.rllib.env_runner import on_runners


def _play(runner: Any, num_episodes: int) -> tuple[list[tuple[float, int, float | None]], Any]:
    """Runs on a runner: (return, length, success or None) of each episode, and RLlib's metrics."""
    outcomes = []
    for episode in runner.sample(num_episodes=num_episodes)[:num_episodes]:
        success = episode.get_infos(-1).get("success")
        outcomes.append(
            (float(episode.get_return()), len(episode), None if success is None else float(success))
        )
    return outcomes, runner.get_metrics()


def evaluate(algorithm: Any, runners: Any) -> tuple[dict[str, Any], int, int]:
    """Play `evaluation_duration` episodes, shared among the healthy runners.

    Leaves the same metrics in `algorithm.last_evaluation`: RLlib's own average over past evaluations too.

    Returns:
        Metrics under RLlib's names, environment steps, agent steps.

    Raises:
        UserError: an environment breaks its contract.
    """
    wanted = algorithm.config.evaluation_duration
    num_remote = runners.num_healthy_remote_workers()
    share = -(-wanted // max(num_remote, 1))
    is_local = algorithm.config.evaluation_num_env_runners == 0
    played = on_runners(runners, partial(_play, num_episodes=share), local=is_local)
    if not played:  # all runners are dead: RLlib restarts them, and the next iteration tries again
        return {}, 0, 0
    algorithm.metrics.aggregate([m for _, m in played], key=(EVALUATION_RESULTS, ENV_RUNNER_RESULTS))
    returns, lengths, successes = zip(*[o for outcomes, _ in played for o in outcomes][:wanted], strict=True)
    results = {
        "episode_return_mean": float(np.mean(returns)),
        "episode_return_std": float(np.std(returns)),
        "episode_return_min": float(np.min(returns)),
        "episode_return_max": float(np.max(returns)),
        "episode_len_mean": float(np.mean(lengths)),
        "num_episodes": len(returns),
    }
    if None not in successes:
        results["success_mean"] = float(np.mean(successes))
    algorithm.last_evaluation = results
    return results, sum(lengths), sum(lengths)
