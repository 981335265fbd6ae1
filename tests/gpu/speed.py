"""Part 2: plans and updates in all sizes: milliseconds, share of the peak, host waits."""

from __future__ import annotations

import gc
import itertools
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from gpu import hardware
from gpu.sections import PRECISIONS, Check, Section, host_waits, milliseconds, precision, really_compiled
from gpu.work import agent_of, model_of, plan_task, update_task

from tdmpc_ray.core.agents.tdmpc2.cost import plan_flops, update_flops
from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel
from tdmpc_ray.core.config import AgentConfig
from tdmpc_ray.core.planners import sampling


@dataclass(frozen=True)
class Work:
    """One row of the table; `number` is that of environments or of sequences in a batch."""

    kind: str
    size: str
    number: int
    precision: str
    compiled: bool

    @property
    def is_large(self) -> bool:
        """Whether several of them at once might not find memory."""
        return self.kind == "plan" and self.size in ("48", "317") and self.number > 16

    def agent(self) -> AgentConfig:
        way = "always" if self.compiled else "never"
        agent = agent_of(self.size, dtype=PRECISIONS[self.precision][1], compile=way)
        if self.kind == "update":
            agent = replace(agent, update=replace(agent.update, batch_size=self.number))
        return agent

    def task(self, check: Check, model: WorldModel, agent: AgentConfig) -> Callable[[], object]:
        if self.kind == "update":
            return update_task(check, model, agent)
        return plan_task(check, model, agent, self.number)

    def flops(self, model: WorldModel, agent: AgentConfig) -> int:
        if self.kind == "update":
            return update_flops(model, agent.update, agent.planner.horizon)
        return self.number * plan_flops(model, agent.planner)


SIZES = ("5", "317", "1", "48", "19")
# What the targets are about comes first: time may not be enough for all.
TARGETS = {
    Work("plan", "5", 1, "tf32", True): ("1 environment", "at most 4 ms"),
    Work("plan", "5", 256, "tf32", True): ("256 environments", "at least 4,000 decisions/s"),
    Work("update", "5", 256, "tf32", True): ("update at size 5", "at most 3 ms"),
    Work("update", "317", 256, "tf32", True): ("update at size 317", "within 1.5 of the roofline"),
}


def works(quick: bool) -> list[Work]:
    """All rows, the most wanted first: the targets, what costs little, and what says most beside it."""
    if quick:
        ways = [("fp32", False), ("bf16", False), ("tf32", True)]
        return [Work(kind, "tiny", 2, *way) for way in ways for kind in ("plan", "update")]

    def grid(precision: str, compiled: bool, sizes: tuple[str, ...]) -> Iterator[Work]:
        for size in sizes:
            yield from (Work("update", size, batch, precision, compiled) for batch in (256, 1024))
            if size != "19":
                yield from (Work("plan", size, envs, precision, compiled) for envs in (1, 16, 256, 1024))

    rows = [*TARGETS, *grid("tf32", False, SIZES), *grid("tf32", True, ("5", "317"))]
    rows += [*grid("bf16", True, ("5", "317")), *grid("tf32", True, SIZES)]
    for name, compiled in itertools.product(("bf16", "fp32"), (False, True)):
        rows += grid(name, compiled, SIZES)
    return list(dict.fromkeys(rows))


def run(check: Check) -> Section:
    header = ("what", "size", "number", "precision", "ways", "ms", "per s", "peak", "first s")
    section = Section("Speed", "", header, check.file)
    rates = hardware.Rates.measure(check)
    section.text = (
        "Paper settings, state 24, action 6. *number*: environments that plan at once, or sequences in a "
        "batch. *peak*: share of the data sheet's dense peak (of one large product where the GPU is not "
        "listed), by the matrix products of `core/agents/tdmpc2/cost.py`. *first*: the first call, which "
        f"compiles where the cache on disk has nothing. {rates}"
    )
    left = [work for work in works(check.quick) if check.compiles or not work.compiled]
    reserve = 0.0 if check.quick else 30.0  # to count waits: a profiler may slow down what is timed after it
    for work in list(left):
        if check.seconds_left < reserve:
            break
        attempt(section, work, lambda w: measure(check, section, w, rates))
        left.remove(work)
    for work in TARGETS if check.device.type == "cuda" else ():
        attempt(section, work, lambda w: count_waits(check, section, w))
    if left:
        section.text += f" Not reached in the time: {len(left)} of {len(works(check.quick))} rows."
    return section


def attempt(section: Section, work: Work, call: Callable[[Work], None]) -> None:
    try:
        call(work)
    except Exception:
        section.broke(str(work), traceback.format_exc(limit=4))
    # The next row shall not search among this one's graphs, and have its memory.
    torch.compiler.reset()
    sampling._compiled.cache_clear()
    gc.collect()
    torch.cuda.empty_cache()


def measure(check: Check, section: Section, work: Work, rates: hardware.Rates) -> None:
    agent = work.agent()
    model = model_of(check, agent)
    task, flops = work.task(check, model, agent), work.flops(model, agent)
    cells = (work.kind, work.size, work.number, work.precision, "compiled" if work.compiled else "eager")
    if not check.quick and 8 * flops / rates.product[work.precision] > check.seconds_left:
        section.row(*cells, "too long for the time left", "", "", "")
        return
    with precision(work.precision), really_compiled(check):
        ms, first = milliseconds(check, task, seconds=0.5)
    per_s = 1e3 / ms * (work.number if work.kind == "plan" else 1)
    share = 1e3 * flops / ms / rates.peak(work.precision)
    section.row(*cells, f"{ms:.3f}", f"{per_s:,.0f}", f"{share:.1%}", f"{first:.1f}")
    if work in TARGETS:
        name, target = TARGETS[work]
        floor_ms = rates.roofline_ms(work.precision, flops, hardware.update_bytes(model))
        section.verdict(name, target, *verdict(target, ms, per_s, floor_ms))


def verdict(target: str, ms: float, per_s: float, floor_ms: float) -> tuple[str, bool]:
    """What a row says of its target: the figure, and whether it holds."""
    if target.endswith(" ms"):
        return f"{ms:.2f} ms", ms <= float(target.split()[-2])
    if target.endswith("decisions/s"):
        return f"{per_s:,.0f} per s", per_s >= float(target.split()[-2].replace(",", ""))
    return f"{ms / floor_ms:.2f} of {floor_ms:.2f} ms", ms <= 1.5 * floor_ms


def count_waits(check: Check, section: Section, work: Work) -> None:
    agent = work.agent()
    task = work.task(check, model_of(check, agent), agent)
    with precision(work.precision):
        for _ in range(3):
            task()
        waits = host_waits(check, task)
    figure = "the profiler sees nothing" if waits is None else str(waits)
    section.verdict(f"host waits, {TARGETS[work][0]}", "0", figure, None if waits is None else waits == 0)


def warm(check: Check, share: int, of: int) -> Iterator[Work]:
    """Compile a share of all rows into Inductor's cache on disk; large plans would need all memory."""
    rows = [work for work in works(check.quick) if work.compiled and not work.is_large]
    for work in rows[share::of]:
        if check.seconds_left < 0:
            return
        agent = work.agent()
        with precision(work.precision):
            work.task(check, model_of(check, agent), agent)()
        torch.compiler.reset()
        yield work
