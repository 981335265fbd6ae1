"""Part 3: the update loop with its replay, beside the bare update."""

from __future__ import annotations

import traceback

import gymnasium
import numpy as np
import torch
from gpu.sections import Check, Section, host_waits, milliseconds, precision, really_compiled
from gpu.work import ACTION, DISCOUNT, OBS, agent_of

from tdmpc_ray.core.agents.tdmpc2.update import UpdateNoise, Updater
from tdmpc_ray.core.replay.prioritized import make_replay
from tdmpc_ray.envs.images import FRAMES, SIZE
from tdmpc_ray.rllib.acting.module import AgentModule
from tdmpc_ray.rllib.learning.random_streams import RandomStreams
from tdmpc_ray.rllib.learning.updates import UpdateLoop

_CALL = 50  # updates


def run(check: Check) -> Section:
    section = Section(
        "Update loop",
        f"`UpdateLoop.run({_CALL})` per update, with sequences drawn from the replay and copied to the "
        "device, beside updates on one batch that lies there. Size 5, batch 256, TF32, compiled. *waits* of "
        "a whole call: with priorities one per update, for the step before; otherwise the thread that draws "
        "the next batch waits for the copy of the one before, from the third batch on.",
        ("replay", "loop ms", "bare ms", "ratio", "waits"),
        check.file,
    )
    for name, (alpha, images) in KINDS.items():
        if check.seconds_left < 5:
            section.row(name, "", "", "", "not reached")
            continue
        try:
            with precision("tf32"), really_compiled(check):
                loop_ms, bare_ms, waits = measure(check, alpha, images)
        except Exception:
            section.broke(name, traceback.format_exc(limit=4))
            continue
        ratio = loop_ms / bare_ms
        waited = "-" if waits is None else waits
        section.row(name, f"{loop_ms:.3f}", f"{bare_ms:.3f}", f"{ratio:.2f}", waited)
        section.verdict(
            f"loop, {name}", "within 1.10 of the bare update", f"{ratio:.2f}", check.judged(ratio <= 1.1)
        )
        if waits is not None and alpha == 0:
            drawing = (2 if check.quick else _CALL) - 2
            target = f"{drawing}, of the thread that draws"
            section.verdict(f"host waits in the loop, {name}", target, str(waits), waits == drawing)
    return section


KINDS = {"uniform": (0.0, False), "prioritised": (0.6, False), "images": (0.0, True)}


def warm(check: Check, name: str) -> None:
    """Compile what a kind of loop runs into Inductor's cache on disk."""
    with precision("tf32"):
        build(check, *KINDS[name])[0].run(1)


def measure(check: Check, alpha: float, images: bool) -> tuple[float, float, int | None]:
    """Milliseconds per update of the loop and of bare updates; host waits of a call of the loop."""
    loop, updater, replay, streams = build(check, alpha, images)
    size, call = updater.cfg.batch_size, 2 if check.quick else _CALL
    loop_ms, _ = milliseconds(check, lambda: loop.run(call), repeats=10)
    loop.read()
    batch = replay.sample(size, streams.numpy).to(check.device)

    def bare() -> None:
        for _ in range(call):
            updater.step(batch, UpdateNoise.sample(updater.model, batch.horizon, size, streams.torch))

    bare_ms, _ = milliseconds(check, bare, repeats=10)
    waits = host_waits(check, lambda: loop.run(call))
    return loop_ms / call, bare_ms / call, waits


def build(check: Check, alpha: float, images: bool) -> tuple:
    """A loop on episodes of 500 random steps."""
    settings = {"data.priority_alpha": alpha, "data.capacity": 50_000}
    if check.quick:
        settings["update.batch_size"] = 16
    way = "auto" if check.compiles else "never"
    agent = agent_of("tiny" if check.quick else "5", compile=way, **settings)
    shape = (3 * FRAMES, SIZE, SIZE) if images else (OBS,)
    obs = gymnasium.spaces.Box(0, 255, shape, np.uint8 if images else np.float32)
    action = gymnasium.spaces.Box(-1, 1, (ACTION,), np.float32)
    model_config = {"agent": agent.to_dict(), "discount": DISCOUNT, "seed": 0}
    module = AgentModule(observation_space=obs, action_space=action, model_config=model_config)
    module.to(check.device)
    replay = make_replay(agent.data, shape, ACTION, agent.planner.horizon, FRAMES if images else 1)
    rng, kind = np.random.default_rng(0), np.uint8 if images else np.float32
    for episode in range(1 if check.quick else 10 if images else 50):
        frames = rng.integers(255, size=(501, *shape)).astype(kind)
        actions, rewards = rng.uniform(-1, 1, (500, ACTION)), rng.uniform(0, 1, 500)
        replay.add(str(episode), 0, frames, actions, rewards, terminated=False, done=True)
    streams = RandomStreams(0, torch.device(check.device), None)
    updater = Updater(module.networks, agent.update, DISCOUNT)
    loop = UpdateLoop(module, updater, replay, None, streams, agent.update.batch_size, None)
    return loop, updater, replay, streams
