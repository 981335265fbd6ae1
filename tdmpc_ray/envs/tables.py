"""The tables behind the catalog: what each simulator offers, and the paper's sets of tasks."""

from __future__ import annotations

from tdmpc_ray.envs.task import SPARSE

# Domain of the DeepMind Control Suite, size of observations, size of actions, tasks. quadruped-escape is left
# out: the suite cannot even reset it without an OpenGL context.
SUITE_TASKS = (
    ("acrobot", 6, 1, "swingup swingup_sparse"),
    ("ball_in_cup", 8, 2, "catch"),
    ("cartpole", 5, 1, "balance balance_sparse swingup swingup_sparse"),
    ("cartpole", 8, 1, "two_poles"),
    ("cartpole", 11, 1, "three_poles"),
    ("cheetah", 17, 6, "run"),
    ("dog", 223, 38, "stand walk trot run"),
    ("dog", 232, 38, "fetch"),
    ("finger", 9, 2, "spin"),
    ("finger", 12, 2, "turn_easy turn_hard"),
    ("fish", 21, 5, "upright"),
    ("fish", 24, 5, "swim"),
    ("hopper", 15, 4, "stand hop"),
    ("humanoid", 67, 21, "stand walk run"),
    ("humanoid", 55, 21, "run_pure_state"),
    ("humanoid_CMU", 137, 56, "stand walk run"),
    ("lqr", 4, 1, "lqr_2_1"),
    ("lqr", 12, 2, "lqr_6_2"),
    ("manipulator", 44, 5, "bring_ball bring_peg insert_ball insert_peg"),
    ("pendulum", 3, 1, "swingup"),
    ("point_mass", 4, 2, "easy hard"),
    ("quadruped", 78, 12, "walk run"),
    ("quadruped", 90, 12, "fetch"),
    ("reacher", 6, 2, "easy hard"),
    ("stacker", 49, 5, "stack_2"),
    ("stacker", 63, 5, "stack_4"),
    ("swimmer", 25, 5, "swimmer6"),
    ("swimmer", 61, 14, "swimmer15"),
    ("walker", 24, 6, "stand walk run"),
)
# Those of `envs/custom`.
CUSTOM_TASKS = (
    ("ball_in_cup", 8, 2, "spin"),
    ("cheetah", 17, 6, "run_backwards run_front run_back jump stand_front stand_back lie_down legs_up flip"),
    ("cheetah", 17, 6, "flip_backwards"),
    ("fish", 24, 5, "obstacles"),
    ("hopper", 15, 4, "hop_backwards flip flip_backwards"),
    ("pendulum", 3, 1, "spin"),
    ("reacher", 8, 3, "three_easy three_hard"),
    ("reacher", 10, 4, "four_easy four_hard"),
    ("walker", 24, 6, "walk_backwards run_backwards arabesque lie_down legs_up headstand flip backflip"),
)

METAWORLD_SIZES = 39, 4
# In the order of mt80.
METAWORLD_TASKS = (
    "assembly basketball button-press-topdown button-press-topdown-wall button-press button-press-wall "
    "coffee-button coffee-pull coffee-push dial-turn disassemble door-open door-close drawer-close "
    "drawer-open faucet-open faucet-close hammer handle-press-side handle-press handle-pull-side "
    "handle-pull lever-pull peg-insert-side peg-unplug-side pick-out-of-hole pick-place pick-place-wall "
    "plate-slide plate-slide-side plate-slide-back plate-slide-back-side push-back push push-wall reach "
    "reach-wall shelf-place soccer stick-push stick-pull sweep-into sweep window-open window-close "
    "bin-picking box-close door-lock door-unlock hand-insert"
)

# Task, MyoSuite's name of it, size of observations; each also as NAME-hard, with a goal that changes.
MYOSUITE_TASKS = (
    ("reach", "Reach", 115),
    ("pose", "Pose", 108),
    ("obj-hold", "ObjHold", 91),
    ("key-turn", "KeyTurn", 93),
    ("pen-twirl", "PenTwirl", 83),
)
MYOSUITE_ACTION_SIZE = 39

# Task, ManiSkill 3's id of it, sizes of observation and action.
MANISKILL_TASKS = (
    ("lift-cube", "", 35, 4),  # built by us, `envs/maniskill_lift.py`
    ("pick-cube", "PickCube-v1", 42, 4),
    ("stack-cube", "StackCube-v1", 48, 4),
    ("pick-ycb", "PickSingleYCB-v1", 45, 7),
    ("turn-faucet", "TurnFaucet-v1", 33, 7),
)

# Task, Gymnasium's id of it, agent steps, sizes of observation and action.
BOX2D_TASKS = (
    ("lunarlander-continuous", "LunarLanderContinuous-v3", 500, 8, 2),
    ("bipedal-walker", "BipedalWalker-v3", 1600, 24, 4),
)

_MT30 = (
    "walker-stand walker-walk walker-run cheetah-run reacher-easy reacher-hard acrobot-swingup "
    "pendulum-swingup cartpole-balance cartpole-balance-sparse cartpole-swingup cartpole-swingup-sparse "
    "cup-catch finger-spin finger-turn-easy finger-turn-hard fish-swim hopper-stand hopper-hop "
    "walker-walk-backwards walker-run-backwards cheetah-run-backwards cheetah-run-front cheetah-run-back "
    "cheetah-jump hopper-hop-backwards reacher-three-easy reacher-three-hard cup-spin pendulum-spin"
)
# The order is that of the published multi-task checkpoints' task embeddings.
TASK_SETS = {
    "mt30": tuple(_MT30.split()),
    "mt80": (*_MT30.split(), *(f"mw-{task}" for task in METAWORLD_TASKS.split())),
}


def with_reward(name: str, reward: str) -> str:
    """The name of a task, or of several with '+', whose rewards are of this kind."""
    if reward != SPARSE:
        return name
    return "+".join(
        part if SPARSE in part.split("@")[1:] else f"{part}@{SPARSE}"
        for whole in name.split("+")
        for part in TASK_SETS.get(whole, [whole])
    )
