"""How fast plans and updates are: beside a straightforward implementation, and beside what GEMM alone costs.

    make bench                                              # sizes 1, 5, 19; writes docs/benchmarks.md
    make bench BENCH_ARGS="--sizes 5 --envs 1 --json rows.json --quick"

CPU milliseconds on one thread. Competitors take turns, so that a noisy machine is noisy to all of them. The
floor is the floating-point operations of `core/agents/tdmpc2/cost.py` over the rate of a 512 x 512 x 512
product, which takes turns with them; first-layer products on a latent that many candidates share can go
below it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))
import reference
from turns import Task, build_seconds, cpu_name, take_turns

from tdmpc_ray.core.agents.tdmpc2 import functions
from tdmpc_ray.core.agents.tdmpc2.cost import plan_flops, update_flops
from tdmpc_ray.core.agents.tdmpc2.functions import plan
from tdmpc_ray.core.agents.tdmpc2.update import UpdateNoise, Updater
from tdmpc_ray.core.agents.tdmpc2.world_model import WorldModel
from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.config import AgentConfig, agent_config
from tdmpc_ray.core.nn import kernels
from tdmpc_ray.core.planners import PlanNoise

OBS, ACTION, DISCOUNT = 24, 6, 0.99  # walker-walk
DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmarks.md"
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
WAYS = [(dtype, mode) for dtype in TYPES for mode in ("eager", "compiled")]
REFERENCE = ("fp32", "reference")


@dataclass
class Row:
    """One line of the table; times in CPU milliseconds."""

    name: str
    size: str
    envs: int
    dtype: str
    mode: str  # eager: PyTorch's operations; compiled: the fused kernels
    cpu_ms: float
    reference_cpu_ms: float
    floor_ms: float
    reference_floor_ms: float  # the reference's own operations at the rate of GEMM in float32

    @property
    def ratio(self) -> float:
        return self.cpu_ms / self.reference_cpu_ms


@contextlib.contextmanager
def in_mode(name: str) -> Iterator[None]:
    """Run PyTorch's operations alone where `name` is eager."""
    if name == "compiled":
        yield
        return
    with (
        mock.patch.object(kernels, "library", new=_nothing),
        mock.patch.object(functions, "fused_model", new=_nothing),
    ):
        yield


def _nothing(*_: object) -> None:
    return None


def gemm_tasks() -> dict[tuple[str, str], Task]:
    """Ten matrix products in each type."""

    def task(dtype: torch.dtype) -> Task:
        a, b = (torch.randn(512, 512).to(dtype) for _ in range(2))
        return lambda: [torch.mm(a, b) for _ in range(10)]

    return {(name, "gemm"): task(dtype) for name, dtype in TYPES.items()}


def flops_per_ms(times: dict[tuple[str, str], float]) -> dict[str, float]:
    """The rate of matrix products on one thread in each type."""
    return {dtype: 10 * 2 * 512**3 / times[dtype, "gemm"] for dtype in TYPES}


def plan_tasks(model: WorldModel, agent: AgentConfig, num_envs: int) -> dict[tuple[str, str], Task]:
    """Ours for all environments at once; the reference plans one, and N of them cost N times as much."""
    generator = torch.Generator().manual_seed(0)
    noise = PlanNoise.sample(model, agent.planner, num_envs, generator)
    one = PlanNoise.sample(model, agent.planner, 1, generator)
    with torch.no_grad():
        z = model.encode(torch.randn(num_envs, OBS))
    prev_mean = torch.zeros(num_envs, agent.planner.horizon, ACTION)

    def ours(dtype: str) -> Task:
        cfg = replace(agent.planner, dtype=dtype)
        return lambda: plan(model, z, prev_mean, cfg, noise, discount=DISCOUNT, explore=True)

    return {
        REFERENCE: lambda: reference.plan(model, z[:1], prev_mean[0], agent.planner, one, DISCOUNT),
        **{way: _in_mode(way[1], ours(way[0])) for way in WAYS},
    }


def update_tasks(size: str, agent: AgentConfig) -> dict[tuple[str, str], Task]:
    """Gradient steps, each competitor on its own copy of the model."""
    horizon, batch_size = agent.planner.horizon, agent.update.batch_size
    batch = random_batch(agent)

    def task(updater: Updater | reference.Update) -> Task:
        noise = UpdateNoise.sample(updater.model, horizon, batch_size, torch.Generator().manual_seed(0))
        return lambda: updater.step(batch, noise)

    def ours(dtype: str) -> Updater:
        return Updater(make_model(size, agent), replace(agent.update, dtype=dtype), DISCOUNT)

    return {
        REFERENCE: task(reference.Update(make_model(size, agent), agent.update, DISCOUNT)),
        **{way: _in_mode(way[1], task(ours(way[0]))) for way in WAYS},
    }


def random_batch(agent: AgentConfig) -> Batch:
    horizon, batch_size = agent.planner.horizon, agent.update.batch_size
    return Batch(
        torch.randn(horizon + 1, batch_size, OBS),
        torch.rand(horizon, batch_size, ACTION) * 2 - 1,
        torch.rand(horizon, batch_size, 1),
        torch.zeros(horizon, batch_size, 1),
    )


def make_model(size: str, agent: AgentConfig) -> WorldModel:
    torch.manual_seed(0)
    return WorldModel((OBS,), ACTION, agent.model)


def _in_mode(name: str, task: Task) -> Task:
    def run() -> object:
        with in_mode(name):
            return task()

    return run


def measure(sizes: list[str], envs: list[int], seconds: float) -> Iterator[Row]:
    for size in sizes:
        agent = agent_config(size)
        model = make_model(size, agent).eval()
        for num_envs in envs:
            tasks = plan_tasks(model, agent, num_envs)
            times = take_turns(gemm_tasks() | tasks, seconds)
            flops = num_envs * plan_flops(model, agent.planner)
            yield from rows("plan", size, num_envs, tasks, times, flops)
        tasks = update_tasks(size, agent)
        times = take_turns(gemm_tasks() | tasks, seconds)
        flops = update_flops(model, agent.update, agent.planner.horizon)
        yield from rows("update", size, 0, tasks, times, flops)


def rows(
    name: str,
    size: str,
    num_envs: int,
    tasks: dict[tuple[str, str], Task],
    times: dict[tuple[str, str], float],
    flops: int,
) -> Iterator[Row]:
    """The rows of one measurement."""
    rates, repeated = flops_per_ms(times), max(num_envs, 1)  # the reference plans for one environment
    with FlopCounterMode(display=False) as counter:
        tasks[REFERENCE]()
    straightforward = repeated * times[REFERENCE]
    own_floor = repeated * counter.get_total_flops() / rates["fp32"]
    for dtype, mode in WAYS:
        floor = flops / rates[dtype]
        yield Row(name, size, num_envs, dtype, mode, times[dtype, mode], straightforward, floor, own_floor)


HEADER = (
    "what", "size", "envs", "dtype", "mode", "CPU ms",
    "reference", "ratio", "floor", "over floor", "ref. over",
)  # fmt: skip


def cells(row: Row) -> tuple[str, ...]:
    times = [f"{value:,.1f}" for value in (row.cpu_ms, row.reference_cpu_ms)]
    overs = (row.cpu_ms / row.floor_ms, row.reference_cpu_ms / row.reference_floor_ms)
    rest = [f"{row.ratio:.2f}", f"{row.floor_ms:,.1f}", *(f"{over:.2f}" for over in overs)]
    return (row.name, row.size, str(row.envs or ""), row.dtype, row.mode, *times, *rest)


def document(rows: list[Row], rates: dict[str, float], build_s: float, largest: dict[str, float]) -> str:
    """The page with the table and the hardware."""
    lines = [f"| {' | '.join(line)} |" for line in (HEADER, ("---",) * len(HEADER), *map(cells, rows))]
    where = f"{cpu_name()}, one thread, torch {torch.__version__}"
    speeds = " and ".join(f"{rate / 1e6:.0f} GFLOP/s in {dtype}" for dtype, rate in rates.items())
    return f"""# Benchmarks

`make bench` on {date.today()}: {where}. A product of two
512 x 512 matrices runs at {speeds}. Paper settings, state 24, action 6, batch 256.

The reference (`tests/reference.py`) is the published algorithm in plain float32 PyTorch, with all its
operations: five heads where two count, the policy's trajectories valued in every iteration. *ref. over*: its
time over that of its own matrix products at the rate of GEMM. The floor is what the products that are needed
(`core/agents/tdmpc2/cost.py`: two heads, shared first products) cost at the rate of `torch.mm` in the row's
type; the kernels' plans in bf16 lie below it where MKL's product of bf16 factors is faster than that. *eager*
is PyTorch's operations, *compiled* the fused kernels; building them takes {build_s:.1f} s, once per machine.

""" + "\n".join(
        [
            *lines,
            "",
            f"The largest size, 317 ({largest['params'] / 1e6:.0f}M parameters here), alone in a process:",
            f"{largest['plan_s']:.1f} s a plan, {largest['update_s']:.1f} s an update, at most",
            f"{largest['peak_gib']:.1f} GiB of memory (`tests/bench/largest.py`).",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", nargs="+", help="1 5 19 by default, 5 with --quick")
    parser.add_argument("--envs", nargs="+", type=int, help="1 4 16 by default, 1 with --quick")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, and no page in docs/")
    arguments = parser.parse_args()
    sizes = arguments.sizes or (["5"] if arguments.quick else ["1", "5", "19"])
    envs = arguments.envs or ([1] if arguments.quick else [1, 4, 16])
    if arguments.json:
        arguments.json.write_text("[]")  # what cannot be written shows now
    torch.set_num_threads(1)
    kernels.keep_freed_memory()
    rates, table = flops_per_ms(take_turns(gemm_tasks(), 5.0)), []
    print("".join(f"{word:>11}" for word in HEADER))
    for row in measure(sizes, envs, 5.0 if arguments.quick else 20.0):
        table.append(row)
        print("".join(f"{cell:>11}" for cell in cells(row)), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in table], indent=1))
    if not arguments.quick:
        largest = json.loads(
            subprocess.check_output([sys.executable, Path(__file__).with_name("largest.py")])
        )
        print(largest)
        DOCUMENT.write_text(document(table, rates, build_seconds(), largest), encoding="utf-8")


if __name__ == "__main__":
    main()
