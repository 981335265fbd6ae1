"""The command about recorded episodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tdmpc_ray.cli.common import JsonOption, print_json, print_table

if TYPE_CHECKING:
    from tdmpc_ray.cli.forms import DemosForm, EpisodeForm

_MAX_ROWS = 40


def demos(
    where: Annotated[
        str,
        typer.Argument(
            metavar="WHERE", help="A folder or a file of episodes, FILE.hdf5#KEY,KEY, or minari:ID."
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """List recorded episodes, as runs learn from them.

    Of `evaluate --record`, NumPy files (.npz), robomimic's (.hdf5) and Minari's datasets. What is damaged
    or no episode is named, and the exit status is 2.

    Example: tdmpc-ray demos demos/walker
    """
    found = _found(where)
    if as_json:
        print_json(found.model_dump())
        return
    rows = [("episode", "steps", "return", "success", "ended", "obs", "action")]
    for one in found.episodes[:_MAX_ROWS]:
        success = "-" if one.success is None else "yes" if one.success else "no"
        ended = "terminal" if one.terminated else "cut"
        shapes = ("x".join(map(str, one.obs_shape)), str(one.action_size))
        rows.append((one.source, f"{one.steps:,}", f"{one.total_return:.1f}", success, ended, *shapes))
    print_table(rows)
    if (more := len(found.episodes) - _MAX_ROWS) > 0:
        print(f"and {more:,} more")
    print(_summary(found))


def _found(where: str) -> DemosForm:
    from tdmpc_ray.cli.forms import DemosForm, EpisodeForm
    from tdmpc_ray.datasets.sources import read_episodes

    found = [
        EpisodeForm(
            source=episode.source.removeprefix("the demonstration "),
            task=episode.task,
            steps=len(episode),
            total_return=float(episode.reward.sum()),
            success=episode.success,
            terminated=episode.terminated,
            obs_shape=list(episode.obs.shape[1:]),
            action_size=episode.action.shape[1],
        )
        for episode in read_episodes(where)
    ]
    return DemosForm(where=where, steps=sum(one.steps for one in found), episodes=found)


def _summary(found: DemosForm) -> str:
    episodes: list[EpisodeForm] = found.episodes
    returns = [one.total_return for one in episodes]
    said = [one.success for one in episodes if one.success is not None]
    won = f", {sum(said)} of {len(said)} with success" if said else ""
    tasks = sorted({one.task for one in episodes if one.task})
    of_tasks = f" of {', '.join(tasks)}" if tasks else ""
    number = f"{len(episodes):,} episode{'s' * (len(episodes) > 1)}{of_tasks}, {found.steps:,} steps"
    mean = sum(returns) / len(returns)
    return f"{number}, return {mean:.1f} ({min(returns):.1f} to {max(returns):.1f}){won}"
