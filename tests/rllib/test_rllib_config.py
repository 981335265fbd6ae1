"""What a config makes of tasks, sizes and settings, and what it refuses."""

import sys
from pathlib import Path
from typing import Any

import pytest
import ray
from counting_env import CountingEnv
from walker import walker

from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib import TDMPC2, TDMPC2Config
from tdmpc_ray.rllib.evaluation.of_checkpoints import load_agent

ray.cloudpickle.register_pickle_by_value(__import__("counting_env"))
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


class TestConfiguration:
    def test_unknown_task_size_and_setting_name_the_nearest(self) -> None:
        with pytest.raises(UserError, match="did you mean 'walker-walk'"):
            TDMPC2Config().environment("walker-wolk")
        config = TDMPC2Config().environment("walker-walk")
        with pytest.raises(
            UserError, match=r"choose one of: 0\.05, 0\.1, tiny, 0\.3, 0\.6, 1, 5, 19, 48, 317"
        ):
            config.copy().training(model_size="7").validate()
        with pytest.raises(UserError, match=r"did you mean 'update\.lr'"):
            config.copy().training(overrides={"update.rl": 1}).validate()
        with pytest.raises(UserError, match="did you mean 'eval_every'"):
            config.copy().update_from_dict({"eval_evry": 5})
        for value in (0, "100", 1.5):
            with pytest.raises(UserError, match="steps_per_iteration must be a positive whole number"):
                config.copy().training(steps_per_iteration=value).validate()

    @pytest.mark.parametrize(
        ("setting", "instead"),
        [
            ({"lr": 1e-2}, "update.lr"),
            ({"gamma": 0.5}, "update.discount_max"),
            ({"grad_clip": 1.0}, "update.grad_clip_norm"),
            ({"train_batch_size_per_learner": 9}, "update.batch_size"),
            ({"num_epochs": 7}, "data.utd_ratio"),
        ],
    )
    def test_rllib_settings_without_effect_are_refused(self, setting: dict[str, Any], instead: str) -> None:
        (name,) = setting
        for config in (walker({}).training(**setting), walker({}).update_from_dict(setting)):
            with pytest.raises(UserError, match=f"does not read '{name}': set overrides={{'{instead}'"):
                config.validate()

    def test_a_dict_means_what_the_builder_means(self) -> None:
        """As Tune's param_space may be one."""
        values = {"env": "cartpole-balance", "overrides": {"update.lr": 1e-2}, "model_size": "1"}
        config = TDMPC2Config().update_from_dict(values)
        config.validate()
        assert (config.task, config.episode_length, config.agent().update.lr) == (
            "cartpole-balance",
            500,
            1e-2,
        )
        assert TDMPC2Config().update_from_dict(config.to_dict()).agent() == config.agent()

    def test_overrides_add_up_and_an_environment_leaves_nothing_behind(self) -> None:
        config = walker({"update.lr": 1e-2}).training(overrides={"update.rho": 0.9})
        assert (config.agent().update.lr, config.agent().update.rho) == (1e-2, 0.9)
        config.environment(CountingEnv)
        assert (config.task, config.episode_length, config.action_repeat) == (None, None, 1)
        config.training(episode_length=12).environment(CountingEnv, env_config={"log": "x"})
        assert config.episode_length == 12

    def test_only_episodes_of_one_length_are_evaluated_side_by_side(self) -> None:
        """Otherwise the first ones to end, the short ones, would be what counts."""

        def envs(config: TDMPC2Config, episodes: int) -> int:
            config.evaluation(evaluation_duration=episodes, evaluation_interval=1).validate()
            evaluation = config.get_evaluation_config_object()
            assert evaluation is not None
            return evaluation.num_envs_per_env_runner

        assert [envs(walker({}), n) for n in (10, 50)] == [10, 25]
        own = TDMPC2Config().environment(CountingEnv).training(episode_length=12)
        gym = TDMPC2Config().environment("gym:InvertedPendulum-v5")
        gym.training(overrides={"model.episodic": False})
        assert (envs(own, 10), envs(gym, 10)) == (1, 1)
        gym.evaluation(evaluation_config={"num_envs_per_env_runner": 4})
        with pytest.raises(UserError, match="favours short episodes"):
            gym.validate()
        with pytest.raises(UserError, match="must be a number of episodes, not 1000 timesteps"):
            walker({}).evaluation(evaluation_duration=1000, evaluation_duration_unit="timesteps").validate()

    def test_addresses_that_cannot_be_reached(self) -> None:
        nowhere = "s3://key:secret@bucket/x?scheme=http&endpoint_override=127.0.0.1%3A9"
        for address in ("nowhere://bucket/x", nowhere):
            with pytest.raises(UserError, match=r"cannot reach (nowhere|s3)://bucket/x") as error:
                TDMPC2.save_to_path(object.__new__(TDMPC2), address)
            assert "secret" not in str(error.value)

    def test_fractions_of_cpus_are_kept(self) -> None:
        """So that two trials with a runner each share two cores."""
        config = walker({}).env_runners(num_env_runners=1, num_cpus_per_env_runner=0.5)
        config.resources(num_cpus_for_main_process=0.5)
        for form in (config, config.to_dict()):
            assert TDMPC2.default_resource_request(form).required_resources["CPU"] == 1.0

    def test_own_environment_needs_its_episode_length(self) -> None:
        config = TDMPC2Config().environment(CountingEnv)
        with pytest.raises(UserError, match="episode_length"):
            config.validate()

    def test_tasks_that_can_terminate_get_the_episodic_model(self) -> None:
        gym_config = TDMPC2Config().environment("gym:InvertedPendulum-v5")
        assert gym_config.agent().model.episodic
        assert (gym_config.agent().update.rho, gym_config.agent().update.discount_max) == (0.7, 0.99)
        assert not gym_config.training(overrides={"model.episodic": False}).agent().model.episodic
        assert not TDMPC2Config().environment("walker-walk").agent().model.episodic

    def test_no_checkpoint_is_one_clear_line(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no checkpoint in"):
            load_agent(tmp_path)
        with pytest.raises(UserError, match="no such folder"):
            load_agent(tmp_path / "nothing")
