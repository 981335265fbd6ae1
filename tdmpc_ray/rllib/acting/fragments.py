"""From RLlib's episodes to the replay's arguments, on the runner, so that nothing else travels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import ray

from tdmpc_ray.envs.faults import FAULTS
from tdmpc_ray.errors import UserError
from tdmpc_ray.observations import ObsArray, map_parts
from tdmpc_ray.rllib.acting.module import EXTRA, TASK
from tdmpc_ray.rllib.metrics.sums import ENV_STEP_MS

# Agent steps per request, while nothing has been learned.
RUNNER_STEPS = 25
# Agent steps per request of all runners together, where updates go on beside, and the least of one runner.
# What the newest steps teach has to act soon: longer ones learn worse (docs/results.md).
BESIDE_STEPS, LEAST_STEPS = 4, 1
# The second one waits at the runner while the first is on its way, so that no runner idles.
REQUESTS_IN_FLIGHT = 2


class Fragment(NamedTuple):
    """A piece of one episode; the fields are the arguments of `SequenceReplay.add`."""

    episode_id: str
    start: int
    obs: ObsArray
    action: np.ndarray
    reward: np.ndarray
    terminated: bool
    done: bool
    task: int = 0
    extra: np.ndarray | None = None


class Sampled(NamedTuple):
    """What one call to an env runner gives."""

    fragments: Any  # list[Fragment], or a Ray reference to one
    metrics: Any  # RLlib's metrics of the runner; None where they stay there until they are asked for
    steps: int  # transitions in the fragments
    runner: int  # its index, from 1; 0: the one in the main process
    faults: tuple[str, ...] = ()  # of environments
    means: Mapping[str, tuple[float, int]] | None = None  # of its plans, see `diagnostics`
    updates: int = 0  # that had made its weights


class Weights(NamedTuple):
    """What env runners act with."""

    state: ray.ObjectRef  # as an env runner's `set_state` takes it
    updates: int  # that have made it


def is_cut(episode: Any) -> bool:
    """Whether a fault ended the episode: its last transition never happened."""
    return episode.is_done and FAULTS in episode.get_infos(-1)


def to_fragment(episode: Any) -> Fragment:
    """Take the transitions of an RLlib `SingleAgentEpisode` (numpy form) that really happened."""
    steps = len(episode) - is_cut(episode)
    return Fragment(
        episode.id_,
        episode.t_started,
        map_parts(lambda part: part[: steps + 1], episode.get_observations()),
        episode.get_actions()[:steps],
        episode.get_rewards()[:steps],
        terminated=bool(episode.is_terminated),
        done=bool(episode.is_done),
        task=episode.get_infos(-1).get(TASK, 0),
        extra=episode.get_extra_model_outputs(EXTRA)[:steps]
        if EXTRA in episode.extra_model_outputs
        else None,
    )


def sample_fragments(
    runner: Any, num_timesteps: int, weights: Weights | None = None, with_metrics: bool = True
) -> Sampled:
    """Runs on an env runner: step its environments.

    Args:
        num_timesteps: of all its environments together.
        weights: to act with, where they are newer than what it has.
        with_metrics: gather RLlib's metrics, which takes as long as stepping a fast environment.
    """
    module = runner.module.unwrapped()
    if weights is not None and weights.updates > module.num_updates:
        runner.set_state(ray.get(weights.state))
    updates = module.num_updates
    episodes = runner.sample(num_timesteps=num_timesteps)
    fragments = [fragment for fragment in map(to_fragment, episodes) if len(fragment.action)]
    module.diagnostics.follow(fragments, [episode.id_ for episode in episodes if is_cut(episode)])
    steps = sum(len(fragment.action) for fragment in fragments)
    simulated = {ENV_STEP_MS: (1e3 * runner.take_simulated(), steps)} if steps else {}
    return Sampled(
        fragments,
        runner.get_metrics() if with_metrics else None,
        steps,
        runner.worker_index,
        runner.take_faults(),
        {**module.diagnostics.take(), **simulated},
        updates,
    )


def sample_for_learner(runner: Any, num_timesteps: int, weights: Weights | None = None) -> list[Fragment]:
    """`sample_fragments`, but of its result the fragments alone; `take_summary` fetches the rest.

    The result of a call belongs to the caller, who can hand the reference on without fetching it, and it
    outlives the runner, as nothing would that the runner had put into the object store.
    """
    try:
        sampled = sample_fragments(runner, num_timesteps, weights)
    except UserError as error:
        runner.summary = error
        return []
    runner.summary = sampled._replace(fragments=None)
    return sampled.fragments


def take_summary(runner: Any) -> Sampled | None:
    """Runs on an env runner: what `sample_for_learner` has kept; None in a restarted process.

    Raises:
        UserError: what it raised.
    """
    summary, runner.summary = runner.summary, None
    if isinstance(summary, UserError):
        raise summary
    return summary
