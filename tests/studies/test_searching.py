"""Searchers and schedulers on a trainable whose best settings are known, and files that cannot work."""

from __future__ import annotations

import io
import math
import pickle
from pathlib import Path
from statistics import median
from typing import Any

import peak
import pytest
from peak import Peak
from ray import cloudpickle
from ray.tune.search import ConcurrencyLimiter, Searcher
from rich.console import Console

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.file.load import make_study
from tdmpc_ray.studies.file.spec import Study
from tdmpc_ray.studies.plan.trials import plan_study
from tdmpc_ray.studies.results.study_runs import load_study_runs
from tdmpc_ray.studies.run.runner import resume_study, run_study
from tdmpc_ray.studies.run.scheduling import Asha, KeepRungs, WithinBounds, make_scheduler
from tdmpc_ray.studies.run.searching import SearchPerGroup, make_search, trials_left_out
from tdmpc_ray.studies.tracking.client import connect

cloudpickle.register_pickle_by_value(peak)  # Ray's workers cannot import test modules

STEPS = 9000


def study(uri: str = "sqlite:///no.db", **changes: Any) -> Study:
    return make_study(
        {
            "name": "search",
            "task": "gym:Pendulum-v1",
            "preset": "light",
            "model_sizes": ["tiny"],
            "steps": STEPS,
            "space": {"update.lr": {"loguniform": [1e-5, 1e-2]}},
            "num_samples": 4,
            "evaluation": {"every": 1000},
            "tracking": {"uri": uri, "experiment": "exp"},
            **changes,
        }
    )


def run(study: Study, out: Path) -> Any:
    result = run_study(study, out, trainable=Peak, console=Console(file=io.StringIO()))
    assert result.exit_status == 0
    return load_study_runs("exp", study.tracking.uri)


class Recorder(Searcher):
    """Suggests 0, 1, 2, ... and keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(metric="score", mode="max")
        self.told: dict[str, Any] = {}
        self.asked = 0

    def suggest(self, trial_id: str) -> dict[str, Any]:
        self.asked += 1
        return {"update.lr": float(self.asked)}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        self.told[trial_id] = None if error else result["score"]

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_bytes(pickle.dumps((self.told, self.asked)))

    def restore(self, checkpoint_path: str) -> None:
        self.told, self.asked = pickle.loads(Path(checkpoint_path).read_bytes())


def groups_of_two() -> tuple[SearchPerGroup, list[Recorder]]:
    searchers: list[Recorder] = []

    def make(number: int) -> Recorder:
        searchers.append(Recorder())
        return searchers[-1]

    fixed = [{"model_size": size, "agent_overrides": {"planner.horizon": 3}} for size in ("1", "5")]
    return SearchPerGroup(fixed, [0, 1], 2, "score", make), searchers


def test_each_size_has_its_search_and_each_suggestion_all_seeds() -> None:
    search, searchers = groups_of_two()
    asked = [search.suggest(f"t{number}") for number in range(9)]
    assert asked[8] == Searcher.FINISHED
    found = [(a["model_size"], a["seed"], a["agent_overrides"]["update.lr"]) for a in asked[:8]]
    assert found == [
        *[("1", 0, 1.0), ("1", 1, 1.0), ("5", 0, 1.0), ("5", 1, 1.0)],
        *[("1", 0, 2.0), ("1", 1, 2.0), ("5", 0, 2.0), ("5", 1, 2.0)],
    ]
    assert all(a["agent_overrides"]["planner.horizon"] == 3 for a in asked[:8])
    search.on_trial_complete("t0", {"score": 1.0})
    assert searchers[0].told == {}
    search.on_trial_complete("t1", {"score": 2.0})
    search.on_trial_complete("t2", {"score": math.nan})
    search.on_trial_complete("t3", error=True)
    search.on_trial_complete("t4", {"score": 5.0})
    search.on_trial_complete("t5", error=True)
    search.on_trial_complete("t5", {"score": 9.0})  # tried again after its failure
    assert searchers[0].told == {"0-0": 1.5, "0-1": 5.0}
    assert searchers[1].told == {"1-0": None}


def test_a_search_that_runs_out_leaves_trials_out(tmp_path: Path) -> None:
    search, searchers = groups_of_two()
    asked = [search.suggest(f"t{number}") for number in range(2)]
    searchers[0].suggest = lambda trial_id: Searcher.FINISHED  # type: ignore[method-assign, assignment]
    while (settings := search.suggest(f"t{len(asked)}")) != Searcher.FINISHED:
        asked.append(settings)
    assert [a["model_size"] for a in asked] == ["1", "1", "5", "5", "5", "5"]
    assert trials_left_out(search) == 2
    assert trials_left_out(ConcurrencyLimiter(search, max_concurrent=2)) == 2
    search.save(str(tmp_path / "search"))
    again, _ = groups_of_two()
    again.restore(str(tmp_path / "search"))
    assert trials_left_out(again) == 2
    assert trials_left_out(None) == 0


def test_a_search_goes_on_after_a_restart(tmp_path: Path) -> None:
    search, _ = groups_of_two()
    for number in range(3):
        search.suggest(f"t{number}")
    search.on_trial_complete("t0", {"score": 1.0})
    search.save(str(tmp_path / "state"))
    again, searchers = groups_of_two()
    again.restore(str(tmp_path / "state"))
    again.on_trial_complete("t1", {"score": 3.0})
    assert searchers[0].told == {"0-0": 2.0}
    following = again.suggest("t3")
    assert isinstance(following, dict)
    assert (following["model_size"], following["seed"]) == ("5", 1)


def test_optuna_searches_for_each_size(local_ray: None, tmp_path: Path, store: str) -> None:
    runs = run(study(store, search="optuna", num_samples=5, model_sizes=["tiny", "1"]), tmp_path / "out")
    assert len(runs.trials) == 10
    rates = runs.trials["param.update.lr"].astype(float)
    assert rates.between(1e-5, 1e-2).all()
    assert (runs.trials["model_size"] == "1").sum() == 5


def test_asha_stops_the_worse_trials_and_says_so(local_ray: None, tmp_path: Path, store: str) -> None:
    grid = [3e-4, 1e-2, 1e-5, 2e-4]
    asked = study(
        store,
        scheduler="asha",
        space={"update.lr": {"grid": grid}},
        num_samples=1,
        resources={"max_concurrent_trials": 1},  # all at once, the best may be the last to be judged
    )
    trials = run(asked, tmp_path / "out").trials.set_index("param.update.lr")
    assert trials.loc["0.0003", "env_steps"] == STEPS
    early = trials[trials["env_steps"] < STEPS]
    assert len(early) == 3
    assert set(early["env_steps"]) <= {1000, 3000}
    assert (trials["status"] == "FINISHED").all()
    assert (early["stopped_early"] == early["env_steps"].map("at {:,} of 9,000 steps".format)).all()
    assert (trials[trials["env_steps"] == STEPS]["stopped_early"] == "").all()
    # They have ended: there is nothing to resume.
    again = resume_study(tmp_path / "out", trainable=Peak, console=Console(file=io.StringIO()))
    assert (again.finished, again.unfinished, again.exit_status) == (4, 0, 0)


@pytest.mark.parametrize("method", ["pbt", pytest.param("pb2", marks=pytest.mark.slow)])
def test_a_population_moves_towards_the_best_rate(
    local_ray: None, tmp_path: Path, store: str, method: str
) -> None:
    asked = study(
        store, scheduler={"method": method, "every": 1000, "quantile": 0.5}, num_samples=4, steps=4_000
    )
    runs = run(asked, tmp_path / "out")
    assert (runs.trials["env_steps"] == 4_000).all()
    changed = runs.trials["param.update.lr"].astype(float)
    # Whoever is worst goes on from the best: no trial stays where its own rate would have led.
    own = 4 * (10 - (changed / 3e-4).map(math.log).abs())
    worst = own.idxmin()
    assert runs.trials.loc[worst, "final"] > own[worst] + 1


@pytest.mark.slow
def test_hyperband_halves(local_ray: None, tmp_path: Path, store: str) -> None:
    grid = [1e-3, 2e-3, 4e-3, 3e-4, 1e-2, 1e-5, 2e-4, 2e-5]  # the first three fill a bracket without rungs
    asked = study(store, scheduler="hyperband", space={"update.lr": {"grid": grid}}, num_samples=1)
    trials = run(asked, tmp_path / "out").trials
    assert trials["env_steps"].max() == STEPS
    assert (trials["env_steps"] < STEPS).any()
    assert (trials["status"] == "FINISHED").all()


def test_a_trial_ends_once_it_is_good_enough(store: str, tmp_path: Path) -> None:
    asked = study(store, stop={"score": 20}, num_samples=1, space={"update.lr": {"grid": [3e-4, 1e-5]}})
    runs = run(asked, tmp_path / "out")
    trials = runs.trials.set_index("param.update.lr")
    assert trials.loc["0.0003", "env_steps"] == 2000  # ten a result
    assert trials.loc["0.0003", "stopped_early"] == ""  # its result counts
    assert trials.loc["1e-05", "env_steps"] == 4000  # 6.6 a result
    tag = connect(store).get_run(trials.loc["0.0003", "run_id"]).data.tags["enough"]
    assert tag == f"eval/return reached 20, at 2,000 of {STEPS:,} steps"


def test_optuna_learns_where_the_best_rate_is() -> None:
    search = make_search(plan_study(study(search="optuna", num_samples=40), Peak))
    rates = []
    for number in range(40):
        rate = search.suggest(f"t{number}")["agent_overrides"]["update.lr"]
        rates.append(abs(math.log(rate / 3e-4)))
        search.on_trial_complete(f"t{number}", {"latest/eval/return": -rates[-1]})
    assert median(rates[20:]) < 0.9  # 1.7 at random


def test_rungs_outlive_a_restart() -> None:
    first = make_scheduler(study(scheduler="asha"))
    assert isinstance(first, Asha)
    first._brackets[0]._rungs[-1][1].update({"a": 1.0, "b": 2.0})
    second = make_scheduler(study(scheduler="asha"))
    assert isinstance(second, Asha)
    KeepRungs(second).set_state(pickle.loads(pickle.dumps(KeepRungs(first).get_state())))
    assert second.reached() == first.reached()
    assert [steps for steps, _ in second.reached()[0]] == [9000, 3000, 1000]


def test_a_population_stays_within_its_ranges() -> None:
    space = study(space={"update.tau": {"uniform": [0.5, 1.0]}, "update.batch_size": {"randint": [8, 65]}})
    config = {"agent_overrides": {"update.tau": 1.2, "update.batch_size": 70}}
    assert WithinBounds(space.space)(config) == {
        "agent_overrides": {"update.tau": 1.0, "update.batch_size": 64}
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"search": "optun"}, "unknown search 'optun': did you mean 'optuna'"),
        ({"search": {"method": "random", "options": {"a": 1}}}, "random has no options"),
        ({"search": "grid"}, "search: grid tries all values, but update.lr is drawn"),
        ({"search": "optuna", "space": {}, "num_samples": 1}, "search: optuna has nothing to choose"),
        ({"search": "optuna", "scheduler": "pbt"}, "scheduler: pbt changes settings by itself"),
        ({"search": "optuna", "scheduler": "asha", "seeds": [0, 1]}, "give one seed, or no scheduler"),
        ({"scheduler": "ahsa"}, "unknown scheduler 'ahsa': did you mean 'asha'"),
        ({"scheduler": {"method": "asha", "every": 5000}}, "every is a key of pbt and pb2, not of asha"),
        ({"scheduler": {"method": "asha", "grace": 5}}, "scheduler: unknown key 'grace'"),
        ({"scheduler": {"method": "asha", "grace_steps": 500}}, "come before the first evaluation"),
        ({"scheduler": "asha", "evaluation": {"every": 9000}}, "would never be stopped before their end"),
        ({"scheduler": "pbt", "model_sizes": ["tiny", "1"]}, "give one model size, and no grids"),
        (
            {"scheduler": "pbt", "space": {"model.dropout": {"uniform": [0, 0.1]}}},
            "model.dropout: scheduler: pbt",
        ),
        ({"scheduler": "pbt", "space": {"planner.horizon": {"choice": [3, 5]}}}, "planner.horizon: sched"),
        ({"scheduler": "pbt", "num_samples": 1}, "scheduler: pbt needs several trials"),
        ({"scheduler": {"method": "pbt", "every": 500}}, "judged twice by one evaluation"),
        (
            {"scheduler": "pb2", "space": {"planner.iterations": {"choice": [3, 5]}}},
            "pb2 changes ranges alone",
        ),
        ({"metric": "return"}, "metric"),
    ],
)
def test_what_does_not_go_together_is_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        study(**changes)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_searcher_and_a_wrong_option_are_one_line() -> None:
    with pytest.raises(UserError, match="search: hebo is not installed: pip install HEBO"):
        make_search(plan_study(study(search="hebo"), Peak))
    with pytest.raises(UserError, match=r"search: optuna refuses this study: .*'nope'"):
        make_search(plan_study(study(search={"method": "optuna", "options": {"nope": 1}}), Peak))


def test_scores_follow_the_task() -> None:
    assert study().score_key == "latest/eval/return"
    assert study(task="mw-reach").score == "eval/success"
    assert study(task="mw-reach", metric="eval/return").score == "eval/return"
