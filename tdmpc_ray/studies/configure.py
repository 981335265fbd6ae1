"""A study's trials in RLlib's terms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdmpc_ray.studies.spec import Study

if TYPE_CHECKING:
    from tdmpc_ray.rllib import TDMPC2Config


def algorithm_config(study: Study) -> TDMPC2Config:
    """The algorithm's config with the first size and seed and the fixed settings."""
    from tdmpc_ray.rllib import TDMPC2Config

    resources = study.resources
    config = TDMPC2Config().environment(study.task, obs=study.obs)
    config.training(
        model_size=study.model_sizes[0],
        preset=study.preset,
        overrides=study.settings(),
        eval_every=study.evaluation.every,
        total_steps=study.steps,
        start_from=study.start_from,
        videos=study.evaluation.videos,
        asynchronous=resources.asynchronous,
    )
    config.env_runners(
        num_env_runners=resources.num_env_runners,
        num_envs_per_env_runner=resources.num_envs_per_env_runner,
        rollout_fragment_length=resources.rollout_fragment_length,
        num_cpus_per_env_runner=resources.cpus_per_env_runner,
        num_gpus_per_env_runner=resources.gpus_per_env_runner,
    )
    config.fault_tolerance(max_env_faults=study.max_env_faults, env_step_timeout_s=study.env_step_timeout_s)
    config.learners(num_learners=resources.num_learners, num_gpus_per_learner=resources.gpus_per_learner)
    config.resources(num_cpus_for_main_process=resources.cpus_for_main_process)
    config.evaluation(
        evaluation_duration=study.evaluation.episodes, evaluation_num_env_runners=study.evaluation.runners
    )
    config.debugging(seed=study.seeds[0])
    return config


def param_space(study: Study) -> TDMPC2Config:
    """The algorithm's config with Tune's search values in it."""
    config, space = algorithm_config(study), study.search_space()
    config.training(model_size=space["model_size"], overrides=space["agent_overrides"])
    config.debugging(seed=space["seed"])
    return config
