"""Forecasts of studies, against the dataflow played out, measured rates, and RLlib's requests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dataflow_simulation import Dataflow

from tdmpc_ray import cli
from tdmpc_ray.envs.spaces import Shapes
from tdmpc_ray.studies.file.load import load_study, make_study
from tdmpc_ray.studies.file.spec import Study
from tdmpc_ray.studies.plan.configure import algorithm_config
from tdmpc_ray.studies.plan.sizing import Trial, best, forecast, is_asynchronous, needs, predict
from tdmpc_ray.studies.plan.speeds import PLAN_S, STUDY_S, UPDATE_S, Speeds

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SHAPES = Shapes((24,), 6)
SPEEDS = Speeds(env_s=1e-3, core_flops=100e9, gpu_flops=20e12, gpu_floor_s=5e-3)
MACHINE = {"walker-walk": (SPEEDS, SHAPES)}

# docs/scaling.md: rates on two cores with environments that sleep for 20 ms, 0.05 updates of 6.6 ms per step.
MEASURED = {1: 44.0, 2: 88.5, 4: 181.0, 8: 352.4, 16: 640.4, 32: 749.9}


def study(size: str = "1", **resources: Any) -> Study:
    values = {"name": "s", "task": "walker-walk", "steps": 100_000, "model_sizes": [size], "seeds": [0, 1, 2]}
    return make_study({**values, "resources": resources})


def predicted(study: Study) -> Trial:
    return predict(study, study.points()[0], MACHINE)


@pytest.mark.parametrize("size", ["tiny", "1", "5"])
@pytest.mark.parametrize(("runners", "envs"), [(1, 1), (4, 1), (24, 1), (4, 8)])
@pytest.mark.parametrize("gpus", [0.0, 0.25])
def test_the_slower_stream_sets_the_rate(size: str, runners: int, envs: int, gpus: float) -> None:
    resources = {"num_env_runners": runners, "num_envs_per_env_runner": envs, "gpus_per_env_runner": gpus}
    trial = predicted(study(size, gpus_per_learner=0.5, **resources))
    flow = Dataflow(
        runners=runners,
        envs=envs,
        sleep_s=0.0,
        busy_s=trial.step_s,
        update_s=trial.update_s,
        ratio=1.0,
        cores=runners + 1,
        seconds=4000 * trial.step_s + 6000 * trial.update_s,
    )
    simulated, updates = flow.play()
    assert simulated == pytest.approx(trial.rate, rel=0.1)
    assert updates == pytest.approx(simulated, rel=0.1)
    assert (trial.sampling >= trial.learning) == (runners >= trial.balance)


def test_the_simulation_gives_the_measured_rates() -> None:
    for runners, measured in MEASURED.items():
        # Beside the sleep, on cores that are woken for each step.
        flow = Dataflow(runners=runners, sleep_s=0.0204, busy_s=2.2e-3, update_s=6.6e-3, ratio=0.05, cores=2)
        rate, updates = flow.play()
        assert rate == pytest.approx(measured, rel=0.12), runners
        assert updates == pytest.approx(0.05 * rate, rel=0.1)


def test_in_turns_the_times_add_up() -> None:
    alone = predicted(study())
    assert alone.rate == pytest.approx(1 / (alone.step_s + alone.update_s))
    beside = predicted(study(num_env_runners=1))
    assert beside.rate == pytest.approx(min(beside.sampling, beside.learning))


def test_hours_and_trials_at_once() -> None:
    one = forecast(study(num_env_runners=3), MACHINE, cpus=4, gpus=0)
    two = forecast(study(num_env_runners=3), MACHINE, cpus=11, gpus=0)
    three = forecast(study(num_env_runners=3), MACHINE, cpus=12, gpus=0)
    (trial,) = one.trials
    assert (one.at_once, two.at_once, three.at_once) == (1, 2, 3)
    around = STUDY_S / 3600
    assert one.hours - around == pytest.approx(3 * trial.hours)
    assert two.hours - around == pytest.approx(2 * trial.hours)
    assert three.hours - around == pytest.approx(trial.hours)
    seconds = trial.hours * 3600
    learning = 99_000 / trial.rate + 1000 * trial.update_s
    assert seconds > learning + trial.evaluation_s > 0.9 * seconds
    nothing = forecast(study(num_env_runners=3, gpus_per_learner=1), MACHINE, cpus=4, gpus=0)
    assert (nothing.at_once, nothing.hours) == (0, float("inf"))


def test_a_forecast_counts_the_start_and_shared_cores() -> None:
    alone, beside, many = (predicted(study(num_env_runners=number)) for number in (0, 1, 8))
    assert (alone.start_s, beside.start_s, many.start_s) == (15.0, 30.0, 30.0)
    short = make_study({"name": "s", "task": "walker-walk", "steps": 10, "evaluation": {"episodes": 1}})
    assert predicted(short).hours * 3600 > 15.0
    halves = {"cpus_per_env_runner": 0.5, "cpus_for_main_process": 0.5}
    shared = predicted(study(num_env_runners=1, **halves))
    assert shared.start_s == 30.0
    assert shared.update_s == pytest.approx(2 * beside.update_s)
    assert shared.plan_s == pytest.approx(2 * beside.plan_s)


def test_what_a_task_decides_and_schedules_count() -> None:
    values = {"name": "s", "steps": 10_000, "algorithm": "tdmpc", "preset": "light"}
    walker, dog = (make_study(values | {"task": task}) for task in ("walker-walk", "dog-walk"))
    speeds = MACHINE["walker-walk"]
    found = [predict(made, made.points()[0], {made.task_names[0]: speeds}) for made in (walker, dog)]
    assert found[1].plan_flops > 1.5 * found[0].plan_flops, "8 iterations, not 4"
    written = {**LIGHT, "set": {"planner.horizon": {"linear": [1, 3, 500]}}}
    made = make_study(written)
    plain = predict(make_study(LIGHT), make_study(LIGHT).points()[0], MACHINE)
    assert predict(made, made.points()[0], MACHINE).plan_flops == plain.plan_flops


LIGHT = {"name": "s", "task": "walker-walk", "steps": 15_000, "preset": "light", "model_sizes": ["1"]}
LIGHT |= {"evaluation": {"every": 2500, "episodes": 10}}
TWO = {"resources": {"num_env_runners": 2, "cpus_per_env_runner": 0.25}}


@pytest.mark.parametrize(
    ("written", "shapes", "minutes"),
    [
        (load_study(EXPERIMENTS / "quickstart.yaml"), Shapes((9,), 2), 7.0),
        (make_study(LIGHT), SHAPES, 41.5),
        (make_study(LIGHT | TWO), SHAPES, 29.8),
    ],
    ids=["quickstart", "light", "light, two runners"],
)
def test_forecasts_are_near_what_was_measured(written: Study, shapes: Shapes, minutes: float) -> None:
    """docs/scaling.md: studies and trials on two cores whose speed was measured as `measure_core` does."""
    speeds = Speeds(env_s=3e-4, core_flops=74e9, gpu_flops=1.0, gpu_floor_s=1.0)
    found = forecast(written, {written.task_names[0]: (speeds, shapes)}, cpus=2, gpus=0)
    assert found.hours * 60 == pytest.approx(minutes, rel=1 / 3)


def test_a_forecast_adds_up() -> None:
    """The quickstart's larger trial: half a core acts, half a core learns and evaluates."""
    written = load_study(EXPERIMENTS / "quickstart.yaml")
    found = forecast(written, {"finger-spin": (SPEEDS, Shapes((9,), 2))}, cpus=2, gpus=0)
    trial = found.trials[1]
    assert trial.update_s == pytest.approx(2 * (UPDATE_S + trial.update_flops / 100e9))
    assert trial.plan_s == pytest.approx(2 * (PLAN_S + trial.plan_flops / 100e9))
    evaluated = 3 * 3 * 500 * (1e-3 + PLAN_S + trial.plan_flops / 100e9)
    random = 500 * (trial.step_s - trial.plan_s)
    seconds = STUDY_S + trial.start_s + random + 3000 * trial.update_s + evaluated
    assert found.hours * 3600 == pytest.approx(seconds)
    evaluation = written.evaluation.model_copy(update={"videos": True})
    filmed = predict(
        written.model_copy(update={"evaluation": evaluation}), trial.point, {"finger-spin": (SPEEDS, SHAPES)}
    )
    alone = predict(written, trial.point, {"finger-spin": (SPEEDS, SHAPES)})
    assert filmed.evaluation_s == pytest.approx(alone.evaluation_s * 10 / 9), "one episode more"
    shared = predict(written, trial.point, {"finger-spin": (replace(SPEEDS, share=0.25), SHAPES)})
    assert shared.evaluation_s == pytest.approx(4 * alone.evaluation_s)
    assert (shared.update_s, shared.start_s) == pytest.approx((4 * alone.update_s, 4 * alone.start_s))


def test_as_many_runners_as_balance_the_learner() -> None:
    written = study(num_env_runners=1, gpus_per_learner=1)
    found = best(written, MACHINE, cpus=1000, gpus=3)
    assert 0.9 < found.trials[0].resources.num_env_runners / found.trials[0].balance <= 1
    few = best(written, MACHINE, cpus=15, gpus=3)
    numbers = [study(num_env_runners=number, gpus_per_learner=1) for number in range(1, 15)]
    assert few.hours == min(forecast(other, MACHINE, cpus=15, gpus=3).hours for other in numbers)
    assert found.hours < few.hours < forecast(written, MACHINE, cpus=15, gpus=3).hours


@pytest.mark.parametrize(
    ("resources", "runners"),
    [
        ({}, 0),
        ({"num_env_runners": 3, "cpus_per_env_runner": 2}, 1),
        ({"num_env_runners": 2, "gpus_per_env_runner": 0.25, "gpus_per_learner": 0.5}, 2),
        ({"num_env_runners": 2, "num_learners": 2, "gpus_per_learner": 1, "cpus_per_env_runner": 0.5}, 0),
        ({"num_env_runners": 2, "num_learners": 2, "cpus_for_main_process": 3}, 0),
    ],
)
def test_a_trial_needs_what_ray_will_reserve(resources: dict[str, Any], runners: int) -> None:
    from tdmpc_ray.rllib import TDMPC2

    values = {"name": "s", "task": "walker-walk", "steps": 10, "evaluation": {"runners": runners}}
    made = make_study({**values, "resources": resources})
    config = algorithm_config(made)
    config.validate()
    reserved = TDMPC2.default_resource_request(config.to_dict()).required_resources
    assert is_asynchronous(made.resources) == config.is_asynchronous
    assert needs(made.resources, runners) == (reserved.get("CPU", 0), reserved.get("GPU", 0))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("name: s\ntask: gym:Pendulum-v1\nmodel_sizes: [1, 5]\nsteps: 50000\n")
    options = ["--env-ms", "2", "--core-gflops", "50", "--gpu-tflops", "20", "--gpu-floor-ms", "4"]
    assert cli.main(["plan", str(file), "--gpus", "0", "--cpus", "16", *options]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "s: 2 trials of 50,000 agent steps on gym:Pendulum-v1 " in printed
    assert " each trial: 1 CPU, in 1 part " in printed
    assert "2.00 ms, a core does 50 GFLOP/s; a GPU is taken to do 20 TFLOP/s with 4 ms" in printed
    assert "on a cluster of 16 CPUs and 0 GPUs, 2 of 2 trials run at once: about " in printed
    assert "with resources.num_env_runners: " in printed
    file.write_text("name: s\ntask: gym:Pendulum-v1\nsteps: 10\nresources: {gpus_per_learner: 1}\n")
    assert cli.main(["plan", str(file), "--gpus", "0", "--cpus", "16", *options]) == 0
    printed = capsys.readouterr().out
    assert "does not fit: 1 CPU and 1 GPU have to be on one node, and none of a cluster of 16 CP" in printed
    file.write_text("name: s\ntask: pick-cube\nsteps: 10\n")  # ManiSkill, which need not be installed
    assert cli.main(["plan", str(file), "--gpus", "0", "--cpus", "16", *options]) == 0
    assert cli.main(["plan", str(tmp_path / "absent.yaml"), "--gpus", "0", "--cpus", "1"]) == 2


def test_beside_a_learner_with_a_gpu_acting_and_evaluation_have_it() -> None:
    alone, beside = predicted(study("5")), predicted(study("5", gpus_per_learner=1))
    assert beside.plan_s == pytest.approx(SPEEDS.seconds(beside.plan_flops, 1, 1, PLAN_S))
    assert beside.plan_s < alone.plan_s / 10
    assert beside.evaluation_s < alone.evaluation_s / 10
    apart = predicted(study("5", num_env_runners=1, num_learners=1, gpus_per_learner=1))
    assert apart.evaluation_s == alone.evaluation_s
