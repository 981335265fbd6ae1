"""Studies on environments of one's own."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import pytest
from peak import Peak
from ray.tune import register_trainable
from ray.tune.experiment import Experiment
from ray.tune.impl.placeholder import create_resolvers_map, inject_placeholders

from tdmpc_ray.envs import register_task
from tdmpc_ray.studies.file.load import make_study
from tdmpc_ray.studies.plan.trials import plan_study
from tdmpc_ray.studies.run.searching import make_search, trials_of


@pytest.mark.parametrize("search", ["random", "optuna"])
def test_trials_on_environments_of_ones_own_have_them(search: str, tmp_path: Path) -> None:
    """Tune keeps objects of a config elsewhere, and puts them back where they were."""
    for name in ("lab-one", "lab-two"):
        register_task(name, lambda render_mode=None: gymnasium.make("Pendulum-v1"), episode_length=200)
    values = {"name": "own", "tasks": ["lab-one", "lab-two"], "model_sizes": ["tiny"], "steps": 2000}
    space = {"update.lr": {"loguniform": [1e-5, 1e-2]}}
    plan = plan_study(make_study({**values, "search": search, "space": space}))
    kept = create_resolvers_map()
    fixed = inject_placeholders(plan.fixed, kept)
    register_trainable("Peak", Peak)
    trials = trials_of(make_search(plan))
    trials.add_configurations(
        [Experiment("tune", "Peak", config=fixed, num_samples=2, storage_path=str(tmp_path))]
    )
    for name in ("lab-one", "lab-two"):
        trial = trials.next_trial()
        assert trial is not None
        trial.resolve_config_placeholders(kept)
        (found,) = trial.config["env_config"]["registered"]
        assert (trial.config["env_config"]["task"], found.info.name) == (name, name)
