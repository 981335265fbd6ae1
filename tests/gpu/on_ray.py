"""Part 4: RLlib on it: placements of learner and runners, checkpoint and resume, the weights' way."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import ray
import torch
from gpu.sections import Check, Section
from gpu.work import ACTION, DISCOUNT, OBS, agent_of
from ray.rllib.core import DEFAULT_MODULE_ID

from tdmpc_ray.rllib import TDMPC2, TDMPC2Config
from tdmpc_ray.rllib.acting.module import AgentModule
from tdmpc_ray.rllib.learning.learner import AgentLearner
from tdmpc_ray.rllib.loop.weights_period import WeightsPeriod

SEED_STEPS = 250
ALONE, MANY = "learner and runner on the GPU", "the same, 16 environments"


def run(check: Check) -> Section:
    section = Section(
        "RLlib",
        "walker-walk; every placement trains until it has taken 300 updates beyond the random steps' or its "
        "time is over, and is where it should be; TF32, as by default. *age*: updates that the learner was "
        "ahead of the weights that acted. Weights: their size, and how often they go to runners at most.",
        ("placement", "steps", "updates", "steps/s", "age", "waits", "result"),
        check.file,
    )
    start_ray(check)
    cases: dict[str, Callable[[Check], list[object]]] = {
        ALONE: lambda c: train(c, local(c)),
        MANY: lambda c: train(c, local(c).env_runners(num_envs_per_env_runner=16)),
        f"learner on the GPU, {runners(check)} CPU runners": lambda c: train(c, beside(c, runners(check))),
        "two runners, a quarter of the GPU each": lambda c: train(c, beside(c, 2, gpus=0.25)),
        "checkpoint and resume": resume,
    }
    if check.device.type == "cpu":
        del cases["two runners, a quarter of the GPU each"]  # the same as the one before
    try:
        for number, (name, case) in enumerate(cases.items()):
            attempt(section, name, case, slice_of(check, len(cases) + 1 - number))
        for size in ("tiny",) if check.quick else ("5", "48", "317"):
            attempt(section, f"weights, size {size}", lambda c, size=size: weights(c, size), check)
    finally:
        ray.shutdown()
    return section


def attempt(section: Section, name: str, case: Callable[[Check], list[object]], check: Check) -> None:
    """Run a case; what fails is noted, and the others go on."""
    if check.seconds_left < 2:
        section.row(name, "", "", "", "", "", "not reached")
        return
    try:
        cells = case(check)
    except Exception:
        section.broke(name, traceback.format_exc(limit=6))
    else:
        section.row(name, *cells)
        if name in (ALONE, MANY) and float(str(cells[2])) > 0:
            hours = 1e6 / float(str(cells[2])) / 3600
            section.verdict(f"1M steps, {name}", "under 1 h", f"{hours:.2f} h", check.judged(hours < 1))
    failed = len(section.broken)
    own = ("RLlib", "all that was reached works", f"{failed} broke", failed == 0)
    section.verdicts = [own, *(verdict for verdict in section.verdicts if verdict[0] != "RLlib")]
    section.save()


def runners(check: Check) -> int:
    return 2 if check.quick else 8


def slice_of(check: Check, cases_left: int) -> Check:
    """The same check with this case's share of the time that is left."""
    return replace(check, until=time.perf_counter() + check.seconds_left / cases_left)


def start_ray(check: Check) -> None:
    """A Ray of this process alone."""
    gpus = 1 if check.device.type == "cuda" else 0
    ray.init(address="local", num_cpus=12, num_gpus=gpus, include_dashboard=False, log_to_driver=False,
             logging_level="ERROR", object_store_memory=2**28 if check.quick else 2**32)  # fmt: skip


def base(check: Check) -> TDMPC2Config:
    """Paper settings, but few random steps."""
    overrides: dict[str, Any] = {"data.seed_steps": SEED_STEPS, "data.capacity": 20_000}
    if check.quick:
        overrides |= {"data.seed_steps": 100, "planner.num_samples": 32, "planner.num_elites": 8,
                      "planner.num_pi_trajs": 4, "update.batch_size": 32}  # fmt: skip
    config = TDMPC2Config().environment("walker-walk")
    config.training(model_size="tiny" if check.quick else "5", overrides=overrides, steps_per_iteration=100,
                    max_time_s_per_iteration=3.0)  # fmt: skip
    return config.debugging(seed=0, log_level="ERROR")


def learning_on(check: Check, config: TDMPC2Config, share: float) -> TDMPC2Config:
    return config.learners(num_learners=0, num_gpus_per_learner=share if check.device.type == "cuda" else 0)


def local(check: Check) -> TDMPC2Config:
    return learning_on(check, base(check), 1)


def beside(check: Check, number: int, gpus: float = 0.0) -> TDMPC2Config:
    gpus = gpus if check.device.type == "cuda" else 0.0
    config = base(check).env_runners(num_env_runners=number, num_gpus_per_env_runner=gpus)
    return learning_on(check, config, 0.5 if gpus else 1)


def train(check: Check, config: TDMPC2Config) -> list[object]:
    """Train as `run` says, and look where acting and learning happen."""
    algo = config.build_algo()
    try:
        learner: AgentLearner = algo.learner_group._learner
        assert device_of(learner._rl_module) == check.device.type, "the learner is elsewhere"
        acting = [device_of(algo.env_runner.module)] if config.num_env_runners == 0 else acting_on(algo)
        wanted = "cpu" if config.num_env_runners and not config.num_gpus_per_env_runner else check.device.type
        assert set(acting) == {wanted}, f"runners act on {acting}, not on {wanted}"
        return until(check, algo)
    finally:
        algo.stop()


def acting_on(algo: TDMPC2) -> list[str]:
    return algo.env_runner_group.foreach_env_runner(lambda r: device_of(r.module), local_env_runner=False)


def device_of(module: torch.nn.Module) -> str:
    return next(module.parameters()).device.type


def until(check: Check, algo: TDMPC2) -> list[object]:
    """Train; a row's cells. The rate is that once everything is compiled, after the first planned steps."""
    wanted = algo.progress.pace.seed_steps + (50 if check.quick else 300)
    report: dict[str, float] = {}
    steps, started = 0, time.perf_counter()
    is_warm = False
    while check.seconds_left > 0 and (algo.grad_updates < wanted or not is_warm or algo.env_steps == steps):
        report |= algo.train()["report"]
        if not is_warm:
            is_warm = (
                algo.env_steps > algo.progress.pace.random_steps
                and algo.grad_updates > algo.progress.pace.random_steps
            )
            steps, started = algo.env_steps, time.perf_counter()
    assert algo.grad_updates > 0, "no update in the time that there was"
    assert math.isfinite(report["train/loss/total"]), "the loss is not finite"
    rate = (algo.env_steps - steps) / (time.perf_counter() - started)
    age, waits = (report.get(name, math.nan) for name in ("perf/weights_age", "perf/sampler_waits"))
    return [algo.env_steps, algo.grad_updates, f"{rate:.1f}", f"{age:.0f}", f"{waits:.0%}", "trains"]


def resume(check: Check) -> list[object]:
    """A checkpoint of a run on the device goes on in another one with equal networks."""
    folder = Path(tempfile.mkdtemp())
    algo = local(check).build_algo()
    try:
        until(slice_of(check, 2), algo)
        algo.save_to_path(str(folder / "checkpoint"))
        saved, steps = state_of(algo), algo.env_steps
    finally:
        algo.stop()
    algo = TDMPC2.from_checkpoint(str(folder / "checkpoint"))
    try:
        restored = state_of(algo)
        assert algo.env_steps == steps
        assert all(torch.equal(x, restored[name]) for name, x in saved.items()), "the networks differ"
        updates = algo.grad_updates
        algo.train()
        assert (algo.env_steps, algo.grad_updates) > (steps, updates)
        return [algo.env_steps, algo.grad_updates, "", "", "", "equal, goes on"]
    finally:
        algo.stop()
        shutil.rmtree(folder)


def state_of(algo: TDMPC2) -> dict[str, torch.Tensor]:
    module = algo.learner_group._learner.module[DEFAULT_MODULE_ID].unwrapped()
    return {name: x.cpu().clone() for name, x in module.state_dict().items()}


def weights(check: Check, size: str) -> list[object]:
    """From the learner's device into the object store, and from there into a runner on a CPU."""
    agent, spaces = agent_of(size), (gymnasium.spaces.Box(-1, 1, (n,), np.float32) for n in (OBS, ACTION))
    model_config = {"agent": agent.to_dict(), "discount": DISCOUNT, "seed": 0, "task": None}
    names = ("observation_space", "action_space")
    with torch.device(check.device):  # on the CPU the largest would take a minute to make
        module = AgentModule(**dict(zip(names, spaces, strict=True)), model_config=model_config)
    took = []
    for _ in range(3):
        began = time.perf_counter()
        ref = ray.put(module.get_state(inference_only=True))
        took.append(time.perf_counter() - began)
    state = ray.get(ref)
    began = time.perf_counter()
    module.set_state(state)
    check.synchronize()
    set_s = time.perf_counter() - began
    nbytes, put_s = sum(x.nbytes for x in state.values()), min(took)
    every = WeightsPeriod(1, None)
    every.take(put_s, 0.0)
    period = f"every {every.due_s:.2f} s"
    return [
        f"{nbytes / 1e6:.0f} MB",
        period,
        "",
        "",
        "",
        f"out {1e3 * put_s:.0f} ms, in {1e3 * set_s:.0f} ms",
    ]
