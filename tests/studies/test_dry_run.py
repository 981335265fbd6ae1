"""What a study would do, before it does; and what editors know about study files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments import EXPERIMENTS
from tdmpc_ray.cli import main
from tdmpc_ray.cli.planning import print_plan
from tdmpc_ray.envs.spaces import Shapes
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib import TDMPC2Config
from tdmpc_ray.studies.file.load import make_study
from tdmpc_ray.studies.file.spec import Study
from tdmpc_ray.studies.plan.room import Bundles, Capacity, misfit, turns
from tdmpc_ray.studies.plan.sizing import forecast
from tdmpc_ray.studies.plan.speeds import Speeds
from tdmpc_ray.studies.plan.trials import plan_study
from tdmpc_ray.studies.run import cluster, waiting
from tdmpc_ray.studies.run.checks import prepare
from tdmpc_ray.studies.run.cluster import capacity, check_resources
from tdmpc_ray.studies.run.dry_run import verdict
from tdmpc_ray.studies.run.waiting import SayWhatIsMissing

DRAWN = {"space": {"update.lr": {"loguniform": [1e-4, 1e-3]}}, "num_samples": 2}


WORDS = {"update.lr": "x"}


SPEEDS = Speeds(env_s=1e-3, core_flops=5e10, gpu_flops=1e13, gpu_floor_s=5e-3)


def study(**changes: Any) -> Study:
    return make_study({"name": "s", "task": "walker-walk", "model_sizes": ["1"], "steps": 20_000, **changes})


def bundles_of(study: Study) -> list[Bundles]:
    return prepare(study).plan.requests


def said(study: Study, *nodes: dict[str, float]) -> str:
    nodes = tuple({"memory": 1e9, **node} for node in nodes)
    room = Capacity("the cluster", nodes)
    found = forecast(study, {"walker-walk": (SPEEDS, Shapes((24,), 6))}, room.total("CPU"), room.total("GPU"))
    return verdict(found, bundles_of(study), room, study.trials())


def test_every_trial_has_a_line() -> None:
    values = {
        "seeds": [0, 1],
        "num_samples": 2,
        "space": {"planner.horizon": {"grid": [3, 5]}, "update.lr": {"loguniform": [1e-4, "1e-3"]}},
    }
    asked = study(**values)
    lines = [trial.label for trial in plan_study(asked).trials]
    assert len(set(lines)) == asked.trials() == 8
    assert [line.rpartition("=")[0] for line in lines[:5]] == [
        f"size=1 seed={seed} planner.horizon={horizon} update.lr"
        for seed, horizon in ((0, 3), (0, 5), (0, 3), (0, 5), (1, 3))
    ]
    assert len({line.rpartition("=")[2] for line in lines}) == 2
    lines = [trial.label for trial in plan_study(study(**values, search="optuna")).trials]
    assert lines[0] == "size=1 seed=0 planner.horizon=3 update.lr=loguniform[0.0001, 0.001]"
    assert len(set(lines)) == 4


def test_whether_it_fits_is_said_with_the_reason() -> None:
    asked = study(seeds=[0, 1, 2], resources={"num_env_runners": 2, "gpus_per_learner": 1})
    fits = said(asked, {"CPU": 8, "GPU": 1}, {"CPU": 8, "GPU": 1})
    assert fits.startswith("on the cluster, 2 of 3 trials run at once: about ")
    assert said(asked, {"CPU": 64}) == (
        "does not fit: 1 CPU and 1 GPU have to be on one node, and none of the cluster has them"
    )
    assert said(asked, {"CPU": 1, "GPU": 1}) == "does not fit: the cluster has 1 CPU and 1 GPU"
    large = study(resources={"num_env_runners": 1, "cpus_per_env_runner": 4})
    assert "4 CPUs have to be on one node" in said(large, {"CPU": 3}, {"CPU": 3})


def test_every_point_of_a_study_is_held_against_the_nodes() -> None:
    grids = {"resources.num_env_runners": {"grid": [1, 8]}, "resources.gpus_per_learner": {"grid": [0, 2]}}
    requests = bundles_of(study(space=grids))
    assert len(requests) == 4
    nodes = ({"CPU": 16.0, "memory": 1e9}, {"CPU": 1.0, "GPU": 1.0, "memory": 1e9}, {"GPU": 1.0})
    assert misfit(requests, Capacity("it", nodes)) == (
        "1 CPU and 2 GPUs have to be on one node, and none of it has them"
    )
    assert misfit(requests, Capacity("it", ({"CPU": 8.0, "GPU": 2.0, "memory": 1e9},))) == (
        "it has 8 CPUs and 2 GPUs"
    )
    assert misfit(requests, Capacity("it", ({"CPU": 9.0, "GPU": 2.0, "memory": 1e9},))) == ""
    drawn = study(space={"data.capacity": {"randint": [10**4, 10**8]}}, steps=10**8)
    memory = [bundle["memory"] for request in bundles_of(drawn) for bundle in request if "memory" in bundle]
    assert max(memory) > 1000 * min(memory), "of what may be drawn, both ends"


def test_a_trial_shares_the_cores_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(cluster, "_cores", lambda: 2)
    asked = study(resources={"num_env_runners": 4})
    assert misfit(bundles_of(asked), capacity({"CPU": 5})) == "", "as `tune` starts it"
    assert cluster.sharing({"CPU": 5}) == (
        "a trial uses 5 CPUs and this machine has 2: its processes will share them"
    )
    assert cluster.sharing({"CPU": 2}) == ""
    assert [cluster.core_share({"CPU": cpus}) for cpus in (5, 2, 1)] == [0.4, 1.0, 1.0]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"start_from": "nowhere"}, r"no checkpoint at .*nowhere: there is no such folder"),
        (
            {"set": {"data.demonstrations": "nowhere"}},
            r"data\.demonstrations: .*nowhere is not there",
        ),
        (
            {"space": {"data.demonstrations": {"grid": ["", "nowhere"]}}},
            r"data\.demonstrations: .*nowhere is not there",
        ),
        (
            {"space": {"data.demonstrations": {"choice": ["", "nowhere"]}}},
            r"data\.demonstrations: .*nowhere is not there",
        ),
        (
            {
                "space": {"update.batch_size": {"choice": [256, 255]}},
                "resources": {"num_learners": 2, "num_env_runners": 2},
            },
            r"batch_size=255 .*num_learners=2",
        ),
        (
            {"metric": "eval/success"},
            r"unknown metric of walker-walk 'eval/success': did you mean 'eval/score'",
        ),
        ({"metric": "eval/retrun"}, r"unknown metric .*: did you mean 'eval/return'"),
        (
            {"search": {"method": "optuna", "options": {"sampler": "tpe"}}, **DRAWN},
            r"search: optuna refuses this study: ",
        ),
        (
            {"search": {"method": "optuna", "options": {"points_to_evaluate": [WORDS]}}, **DRAWN},
            r"search: optuna refuses this study: 'x' is not",
        ),
        ({"search": {"method": "optuna", "options": {"seeed": 1}}, **DRAWN}, r"refuses this study: .*seeed"),
        ({"tracking": {"uri": "http://127.0.0.1:9"}}, r"MLflow at http://127\.0\.0\.1:9 cannot be used"),
        ({"tracking": {"uri": "postgresql+psycopg2://u:p@127.0.0.1:9/d"}}, r"MLflow at .* cannot be used"),
        ({"tracking": {"uri": "sqlite:///nowhere/m.db"}}, r"the folder .*nowhere is missing"),
    ],
)
def test_what_can_never_work_is_refused(
    changes: dict[str, Any],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=problem):
        print_plan(study(**changes), as_json=False)
    assert capsys.readouterr().out == "", "an error comes before the table"


def test_metrics_that_some_result_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for task, metric in (
        ("mw-reach", "eval/success"),
        ("gym:Pendulum-v1", "eval/success"),  # which may tell it
        (["walker-walk", "mw-reach"], "eval/success"),
        (["walker-walk", "mw-reach"], "eval/mw-reach/success"),
        (["walker-walk", "mw-reach"], "eval/walker-walk/return_min"),
    ):
        prepare(study(task=task, metric=metric))
    with pytest.raises(UserError, match=r"unknown metric .*'eval/walker-walk/success'"):
        prepare(study(task=["walker-walk", "mw-reach"], metric="eval/walker-walk/success"))


def test_of_a_thousand_points_only_the_different_ones_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[Any] = []
    validate = TDMPC2Config.validate
    monkeypatch.setattr(TDMPC2Config, "validate", lambda self: (checked.append(self), validate(self))[1])
    rates = [1e-4 + 1e-6 * number for number in range(250)]
    asked = study(space={"update.lr": {"grid": rates}, "planner.horizon": {"grid": [2, 3, 4, 5]}})
    assert asked.trials() == len(asked.points()) == 1000
    prepare(asked)
    assert len(checked) < 40


def test_fewer_places_than_members_are_said() -> None:
    space = {"update.lr": {"loguniform": [1e-4, 1e-3]}}
    population = {"space": space, "num_samples": 8, "scheduler": "pbt", "evaluation": {"every": 1000}}
    asked = study(**population, resources={"gpus_per_learner": 1})
    requests = bundles_of(asked)
    few = Capacity("the cluster", ({"CPU": 16.0, "GPU": 3.0, "memory": 1e9},))
    assert turns(asked, requests, few) == (
        "scheduler: pbt compares 8 trials and there is room for 3 at once: the others wait, and each "
        "is judged by those behind it or by none; 8 CPUs and 8 GPUs would do"
    )
    many = Capacity("the cluster", ({"CPU": 16.0, "GPU": 8.0, "memory": 1e9},))
    assert turns(asked, requests, many) == ""
    assert turns(study(space=space, num_samples=8), requests, few) == "", "these compare nothing on the way"


def test_what_trials_wait_for_is_said_every_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now, lines = [0.0], []
    nodes = {False: ({"CPU": 4.0},), True: ({"CPU": 1.0},)}
    monkeypatch.setattr(waiting, "cluster_capacity", lambda free=False: Capacity("the cluster", nodes[free]))
    callback = SayWhatIsMissing([[{"CPU": 1.0}, {"CPU": 2.0, "GPU": 4.0}]], lines.append, lambda: now[0])
    trials: list[Any] = [SimpleNamespace(status=status) for status in ("TERMINATED", "PENDING")]

    def pass_by(seconds: float) -> list[str]:
        now[0] += seconds
        lines.clear()
        callback.on_step_end(0, trials)
        return [*lines]

    assert [pass_by(30) for _ in range(3)] == [[], [], [lines[0]]]
    assert lines == [
        "no trial runs: 2 CPUs and 4 GPUs have to be on one node, and none of the cluster has them; they "
        "wait until it grows"
    ]
    assert [len(pass_by(30)) for _ in range(4)] == [0, 1, 0, 1]
    trials[1].status = "RUNNING"
    assert [pass_by(61) for _ in range(3)] == [[], [], []]
    trials[1].status = "PAUSED"
    nodes[False] = ({"CPU": 3.0, "GPU": 4.0},)
    assert [pass_by(61), pass_by(61)] == [
        [],
        ["no trial runs: the next one needs 3 CPUs and 4 GPUs; free: 1 CPU"],
    ]


def test_a_replay_that_fits_nowhere_is_named() -> None:
    asked = study(obs="rgb", steps=500_000)
    assert said(asked, {"CPU": 8}) == (
        "does not fit: the replay takes 6.2 GB of memory on one node, and none of the cluster has them: "
        "lower data.capacity, or train fewer steps"
    )
    assert "1 of 1 trial run at once" in said(asked, {"CPU": 8, "memory": 8e9})
    ((bundle,),) = bundles_of(study(steps=20_000))
    assert 124 * 20_000 < bundle["memory"] < 150 * 20_000


def test_memory_limits_how_many_run_at_once() -> None:
    speeds = {"walker-walk": (SPEEDS, Shapes((24,), 6))}
    assert forecast(study(seeds=[0, 1, 2]), speeds, 64, 0, 2).at_once == 2


def test_what_does_not_fit_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray._common.utils.get_system_memory", lambda: 4e9)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    check_resources({"CPU": 1, "memory": 3.9e9})
    with pytest.raises(
        UserError, match=r"^the replay takes 12 GB and this machine has 4.0 GB .*data\.capacity"
    ):
        check_resources({"CPU": 1, "memory": 1.23e10})


def test_the_command_starts_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert main(["tune", str(EXPERIMENTS / "model_scaling.yaml"), "--dry-run"]) == 0
    out, err = capfd.readouterr()
    assert "15 trials of 500,000 agent steps on walker-run" in out
    assert "each trial: 3 CPUs and 1 GPU, in 3 parts" in out
    assert "its replay takes 65 MB of memory when it is full" in out
    assert "does not fit: 1 CPU and 0.5 GPUs have to be on one node" in out
    assert err == ""
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert main(["tune", str(EXPERIMENTS / "quickstart.yaml"), "--dry-run"]) == 2
    assert "no Ray cluster at RAY_ADDRESS=127.0.0.1:1" in capfd.readouterr().err
