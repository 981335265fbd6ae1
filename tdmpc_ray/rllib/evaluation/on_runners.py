"""Evaluation through RLlib's evaluation runners, with the planner in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, EVALUATION_RESULTS

from tdmpc_ray.envs import task_info
from tdmpc_ray.envs.faults import MAX_CUT, too_many_cut
from tdmpc_ray.rllib.acting import stop_request
from tdmpc_ray.rllib.acting.env_runner import on_runners
from tdmpc_ray.rllib.acting.fragments import is_cut
from tdmpc_ray.rllib.evaluation.episodes import LoadedAgent, play, success_of

_Outcome = tuple[float, int, float | None]  # return, length, success


def _play(runner: Any, num_episodes: int) -> tuple[list[_Outcome], Any, list[str]]:
    """Runs on a runner: the outcome of each episode, RLlib's metrics, and faults of environments.

    Episodes that a fault has cut are played again. Fewer than asked for, where the study is to stop.
    """
    outcomes: list[_Outcome] = []
    faults: list[str] = []
    empty_rounds = 0
    while (missing := num_episodes - len(outcomes)) > 0:
        if empty_rounds == MAX_CUT:
            raise too_many_cut(faults[-1])
        try:
            played = [e for e in runner.sample(num_episodes=missing) if not is_cut(e)][:missing]
        except stop_request.EvaluationStopped:
            break
        empty_rounds = 0 if played else empty_rounds + 1
        faults += runner.take_faults()
        for episode in played:
            success = success_of(episode.get_infos(-1))
            outcomes.append((float(episode.get_return()), len(episode), success))
    return outcomes, runner.get_metrics(), faults


def _play_tasks(
    runner: Any, num_episodes: int, runners: Sequence[int]
) -> tuple[dict[str, list[_Outcome]], list[str]]:
    """Runs on each of `runners`: the outcomes of each task in its share of a set, and faults.

    Fewer tasks, where the study is to stop.
    """
    agent, first = LoadedAgent(runner.module.unwrapped()), runners.index(runner.worker_index)
    outcomes: dict[str, list[_Outcome]] = {}
    faults: list[str] = []
    for index in range(first, len(agent.tasks), len(runners)):
        watch: dict[str, Any] = {
            "timeout_s": runner.config.env_step_timeout_s,
            "on_progress": stop_request.check,
        }
        try:
            played = play(agent, agent.tasks[index], num_episodes, runner.env_seed(), **watch)
        except stop_request.EvaluationStopped:
            break
        columns = (played[key] for key in ("returns", "lengths", "successes"))
        outcomes[agent.tasks[index]] = list(zip(*columns, strict=True))
        faults += played["faults"]
    return outcomes, faults


def evaluation_call(algorithm: Any, runners: Sequence[int]) -> Callable[[Any], Any]:
    """What each of the runners, given by their indices, has to do for `summarize`.

    `evaluation_duration` episodes in all, of each task where there are several.
    """
    wanted, info = algorithm.config.evaluation_duration, algorithm.config.info
    if info is not None and info.tasks:
        return partial(_play_tasks, num_episodes=wanted, runners=runners)
    return partial(_play, num_episodes=-(-wanted // len(runners)))


def evaluate(algorithm: Any, runners: Any) -> tuple[dict[str, Any], int, int]:
    """Evaluate now; RLlib's hook.

    Returns:
        Metrics under RLlib's names, environment steps, agent steps.

    Raises:
        UserError: an environment breaks its contract, or fails too often.
    """
    is_local = algorithm.config.evaluation_num_env_runners == 0
    asked = [0] if is_local else sorted(runners.healthy_env_runner_ids())
    if not asked:
        return {}, 0, 0
    call = evaluation_call(algorithm, asked)
    return summarize(algorithm, on_runners(runners, call, local=is_local))


def summarize(algorithm: Any, shares: Sequence[Any]) -> tuple[dict[str, Any], int, int]:
    """Put the runners' shares together.

    Leaves the metrics in `algorithm.evaluator.last`: RLlib's own average over past evaluations too. Nothing,
    where a runner has died, which RLlib restarts, or has stopped: the next iteration tries again.

    Returns:
        Metrics under RLlib's names, environment steps, agent steps.

    Raises:
        UserError: environments have failed too often.
    """
    wanted, info = algorithm.config.evaluation_duration, algorithm.config.info
    if info is not None and info.tasks:
        by_task = {task: outcomes for share, _ in shares for task, outcomes in share.items()}
        faults = [fault for _, faults in shares for fault in faults]
        if len(by_task) < len(info.tasks):
            return {}, 0, 0
        summaries = {task: _scored(task, _summary(by_task[task])) for task in info.tasks}
        results = _mean(list(summaries.values()))
        results |= {f"{task}/{k}": v for task, summary in summaries.items() for k, v in summary.items()}
        outcomes = [outcome for task in info.tasks for outcome in by_task[task]]
    else:
        if sum(len(outcomes) for outcomes, _, _ in shares) < wanted:
            return {}, 0, 0
        algorithm.metrics.aggregate([m for _, m, _ in shares], key=(EVALUATION_RESULTS, ENV_RUNNER_RESULTS))
        outcomes = [o for outcomes, _, _ in shares for o in outcomes][:wanted]
        faults = [fault for _, _, faults in shares for fault in faults]
        results = _scored(info.name, _summary(outcomes)) if info is not None else _summary(outcomes)
    algorithm.evaluator.last = results
    steps = sum(length for _, length, _ in outcomes)
    algorithm.progress.count_faults(faults, steps)
    return results, steps, steps


def _summary(outcomes: list[_Outcome]) -> dict[str, float]:
    """Under RLlib's names."""
    returns, lengths, successes = zip(*outcomes, strict=True)
    results = {
        "episode_return_mean": float(np.mean(returns)),
        "episode_return_std": float(np.std(returns)),
        "episode_return_min": float(np.min(returns)),
        "episode_return_max": float(np.max(returns)),
        "episode_len_mean": float(np.mean(lengths)),
        "num_episodes": len(returns),
    }
    if any(success is not None for success in successes):  # some say it where there is one alone
        results["success_mean"] = float(np.mean([success or 0.0 for success in successes]))
    return results


def _scored(task: str, summary: dict[str, float]) -> dict[str, float]:
    """With the published score, 0 to 100: a tenth of DMControl's return, elsewhere success in hundredths."""
    info = task_info(task)
    if info.metric == "success" and "success_mean" in summary:
        return {**summary, "score_mean": 100 * summary["success_mean"]}
    if info.suite == "dmcontrol":
        return {**summary, "score_mean": summary["episode_return_mean"] / 10}
    return summary


def _mean(summaries: list[dict[str, float]]) -> dict[str, float]:
    """Over the tasks, of what all of them have."""
    shared = set.intersection(*(set(summary) for summary in summaries))
    return {key: float(np.mean([s[key] for s in summaries])) for key in summaries[0] if key in shared}
