"""What is known of a task before its simulator starts."""

from __future__ import annotations

from dataclasses import dataclass

SPARSE = "sparse"
REWARDS = ("dense", SPARSE)


@dataclass(frozen=True)
class TaskInfo:
    """One task.

    Attributes:
        name: the name to pass to `make_env`, e.g. "walker-walk", "mw-reach", "gym:Pendulum-v1".
        suite: "dmcontrol", "metaworld", "maniskill", "myosuite", "box2d", "gymnasium", "registered" or, for a
            set, "multitask".
        episode_length: time limit in agent steps.
        action_repeat: simulator control steps per agent step; env_frames = env_steps * action_repeat.
        metric: "return" or "success": the number that tells how well a policy does; of a set of both kinds
            "score", see `rllib.evaluation.on_runners`.
        simulator_id: the task's name inside its suite: "walker/walk", "reach-v3", "Pendulum-v1".
        obs_size: length of the observation; None where only building the task tells.
        action_size: length of the action; None likewise.
        tasks: names of the tasks in a set, in the order of their ids; empty for a single task. Lengths and
            sizes of a set are those of its largest task.
        can_terminate: whether an episode can end in a terminal state, before and apart from its time limit.
        reward: "dense", as the task gives it; or "sparse": success - 1 after each agent step.
        is_custom: whether a DMControl task is one of `envs/custom`.
    """

    name: str
    suite: str
    episode_length: int
    action_repeat: int
    metric: str
    simulator_id: str
    obs_size: int | None = None
    action_size: int | None = None
    tasks: tuple[str, ...] = ()
    can_terminate: bool = False
    reward: str = "dense"
    is_custom: bool = False
