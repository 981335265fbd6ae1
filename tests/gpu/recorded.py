"""Part 1: the recorded numbers, compiled against eager, and the same seed twice."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable

import torch
from gpu.sections import Check, Section, precision
from gpu.work import agent_of, batch_of, model_of
from recorded_cases import CASES, CHECKS, Case

from tdmpc_ray.core.planners import PlanNoise, plan
from tdmpc_ray.core.update import UpdateNoise, Updater

_UPDATES = 200


def run(check: Check) -> Section:
    section = Section(
        "Exactness",
        "Recorded numbers of the published implementation within 1e-4 (plans 1e-3), TF32 off; plans and "
        "updates compiled with CUDA graphs beside eager ones on equal noise; seeded updates twice.",
        ("what", "case", "ways", "result"),
        check.file,
    )
    with precision("fp32"):
        for name in CASES:
            for way in ("never", "always"):
                if way == "always" and (check.quick or name == "multitask"):
                    continue  # compiling takes long, and the four differ little in what is compiled
                attempt(
                    section, f"recorded, {name}, compile {way}", lambda n=name, w=way: recorded(check, n, w)
                )
        attempt(section, "compiled against eager", lambda: compiled_against_eager(check))
        for way in ("never",) if check.quick else ("never", "always"):
            attempt(section, f"same seed twice, compile {way}", lambda w=way: twice(check, w))
    failed = len(section.broken)
    section.verdict("exactness", "all equal", f"{len(section.rows)} equal, {failed} not", failed == 0)
    return section


def attempt(section: Section, what: str, call: Callable[[], list[object]]) -> None:
    """Run one comparison; what fails is noted, and the others go on."""
    try:
        section.row(*call())
    except Exception:
        section.broke(what, traceback.format_exc(limit=4))


def recorded(check: Check, name: str, way: str) -> list[object]:
    for compare in CHECKS:
        if way == "never" or compare.__name__ in ("check_plan", "check_one_update"):
            compare(Case(name, check.device, way))
    return ["recorded", name, "compiled" if way == "always" else "eager", "equal"]


def compiled_against_eager(check: Check) -> list[object]:
    """One plan of four environments and three updates; a low temperature, so that no tie decides."""
    size = "tiny" if check.quick else "5"
    settings = {"planner.temperature": 0.01, "model.dropout": 0.0}
    means, losses = [], []
    for way in ("never", "never" if check.quick else "always"):
        agent = agent_of(size, compile=way, **settings)
        model = model_of(check, agent)
        noise = PlanNoise.sample(model, agent.planner, 4, torch.Generator(check.device).manual_seed(1))
        with torch.no_grad():
            z = model.encode(batch_of(check, model, 4).obs[0])
        prev_mean = torch.zeros(4, agent.planner.horizon, model.action_dim, device=check.device)
        means.append(plan(model, z, prev_mean, agent.planner, noise, discount=0.99, explore=True).mean)
        losses.append(updates(check, model, agent, 3)["loss/total"])
    torch.testing.assert_close(means[1], means[0], rtol=0, atol=1e-3)
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-3, atol=1e-4)
    return ["compiled", f"size {size}", "against eager", f"{(means[1] - means[0]).abs().max():.1e}"]


def updates(check: Check, model: object, agent: object, number: int) -> dict[str, torch.Tensor]:
    updater = Updater(model, agent.update, 0.99)
    generator = torch.Generator(check.device).manual_seed(2)
    batch = batch_of(check, model, agent.update.batch_size)
    for _ in range(number):
        noise = UpdateNoise.sample(model, batch.horizon, agent.update.batch_size, generator)
        metrics = updater.step(batch, noise)
    return metrics


def twice(check: Check, way: str) -> list[object]:
    """Seeded updates, dropout included, end in the same bits."""
    number, size = (5, "tiny") if check.quick else (_UPDATES, "1")
    agent = agent_of(size, compile=way)
    agent = dataclasses.replace(agent, update=dataclasses.replace(agent.update, batch_size=64))
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        model = model_of(check, agent)
        torch.manual_seed(4)  # compiling may draw
        updates(check, model, agent, number)
        states.append({name: x.clone() for name, x in model.state_dict().items()})
    different = [name for name, x in states[0].items() if not torch.equal(x, states[1][name])]
    assert not different, f"{len(different)} of {len(states[0])} tensors differ: {different[:3]}"
    return [f"{number} updates", f"size {size}", "compiled" if way == "always" else "eager", "equal twice"]
