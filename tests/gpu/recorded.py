"""Part 1: the recorded numbers, compiled against eager, and the same seed twice."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable
from functools import partial

import torch
from gpu.sections import Check, Section, precision, really_compiled
from gpu.work import agent_of, batch_of, model_of
from recorded_cases import CASES, CHECKS, Case

from tdmpc_ray.core.agents.tdmpc2.functions import plan
from tdmpc_ray.core.agents.tdmpc2.update import UpdateNoise, Updater
from tdmpc_ray.core.planners import PlanNoise

_UPDATES = 200


def run(check: Check) -> Section:
    section = Section(
        "Exactness",
        "Recorded numbers of the published implementation within 1e-4 (plans 1e-3), TF32 off; plans and "
        "updates compiled with CUDA graphs beside eager ones on equal noise; seeded updates twice.",
        ("what", "case", "ways", "result"),
        check.file,
    )
    eager = [(f"recorded, {name}, eager", partial(recorded, check, name, "never")) for name in CASES]
    eager.append(("same seed twice, eager", partial(twice, check, "never")))
    # Compiling takes long, and the four differ little in what is compiled.
    compiled = [
        ("compiled against eager", partial(compiled_against_eager, check)),
        ("recorded, single, compiled", partial(recorded, check, "single", "always")),
        ("same seed twice, compiled", partial(twice, check, "always")),
        ("recorded, episodic, compiled", partial(recorded, check, "episodic", "always")),
        ("recorded, multitask, compiled", partial(recorded, check, "multitask", "always")),
        ("recorded, pixels, compiled", partial(recorded, check, "pixels", "always")),
    ]
    section.verdicts = [("exactness", "all equal", "", None)]
    with precision("fp32"):
        for what, call in eager + (compiled if check.compiles else []):
            if check.seconds_left > 0:
                attempt(section, what, call)
            else:
                section.row(what, "", "", "not reached")
            failed, equal = len(section.broken), sum("equal" in row[3] for row in section.rows)
            section.verdicts = [("exactness", "all equal", f"{equal} equal, {failed} not", failed == 0)]
            section.save()
    return section


def attempt(section: Section, what: str, call: Callable[[], list[object]]) -> None:
    """Run one comparison; what fails is noted, and the others go on."""
    try:
        section.row(*call())
    except Exception:
        section.broke(what, traceback.format_exc(limit=4))


def recorded(check: Check, name: str, way: str) -> list[object]:
    with really_compiled(check):
        for compare in CHECKS:
            if way == "never" or compare.__name__ in ("check_plan", "check_one_update"):
                compare(Case(name, check.device, way))
    return ["recorded", name, "compiled" if way == "always" else "eager", "equal"]


def compiled_against_eager(check: Check) -> list[object]:
    """One plan of four environments and three updates.

    Where two candidates are worth nearly the same, rounding decides which one is an elite; so one of the four
    plans may differ, but not the values of the elites.
    """
    size = "tiny" if check.quick else "5"
    plans, losses = [], []
    for way in ("never", "always"):
        agent = agent_of(size, compile=way, **{"planner.temperature": 0.01, "model.dropout": 0.0})
        model = model_of(check, agent)
        noise = PlanNoise.sample(model, agent.planner, 4, torch.Generator(check.device).manual_seed(1))
        with torch.no_grad():
            z = model.encode(batch_of(check, model, 4).obs[0])
        prev_mean = torch.zeros(4, agent.planner.horizon, model.action_dim, device=check.device)
        with really_compiled(check):
            plans.append(plan(model, z, prev_mean, agent.planner, noise, discount=0.99, explore=True))
            losses.append(updates(check, model, agent, 3)["loss/total"])
    difference = (plans[1].mean - plans[0].mean).abs().amax((1, 2))  # of each environment
    assert int((difference < 1e-3).sum()) >= 3, f"plans differ by {difference.tolist()}"
    torch.testing.assert_close(plans[1].values, plans[0].values, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-3, atol=1e-4)
    return ["compiled", f"size {size}", "against eager", f"equal to {difference.median():.0e}"]


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
        with really_compiled(check):
            updates(check, model, agent, number)
        states.append({name: x.clone() for name, x in model.state_dict().items()})
    different = [name for name, x in states[0].items() if not torch.equal(x, states[1][name])]
    assert not different, f"{len(different)} of {len(states[0])} tensors differ: {different[:3]}"
    return [f"{number} updates", f"size {size}", "compiled" if way == "always" else "eager", "equal twice"]
