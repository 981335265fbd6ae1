"""How fast a GPU plans and updates: wall milliseconds, decisions per second, and waits for the device.

make bench-gpu                                   # size 5; writes docs/benchmarks_gpu.md
make bench-gpu BENCH_ARGS="--device cpu --size tiny --dry"   # that the script runs, without a GPU
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from statistics import median

import torch

from tdmpc_ray.core.batch import Batch
from tdmpc_ray.core.config import AgentConfig, agent_config
from tdmpc_ray.core.planners import PlanNoise, plan
from tdmpc_ray.core.update import UpdateNoise, Updater
from tdmpc_ray.core.world_model import WorldModel

OBS, ACTION, DISCOUNT = 24, 6, 0.99  # walker-walk
DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmarks_gpu.md"
WAYS = [(dtype, compile_) for dtype in ("fp32", "bf16") for compile_ in ("never", "always")]
HEADER = ("what", "envs", "dtype", "compiled", "ms", "per second", "first call s", "waits", "asked")
ASKED = {("plan", 1): "4 ms", ("plan", 256): "4,000 per s", ("update", 0): "3 ms"}  # at size 5


def milliseconds(task: Callable[[], object], repeats: int, device: torch.device) -> tuple[float, float]:
    """Median time of a call until the device is done, and the seconds of the first one, which compiles."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        task()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return 1000 * median(times[1:]), times[0]


def waits(task: Callable[[], object], device: torch.device) -> int:
    """Calls in which the host waits for the device, by the profiler."""
    if device.type != "cuda":
        return 0

    def count(call: Callable[[], object]) -> int:
        torch.cuda.synchronize(device)
        with torch.profiler.profile() as profile:
            call()
        events = profile.key_averages()
        return sum(e.count for e in events if e.key.startswith("cuda") and e.key.endswith("Synchronize"))

    return count(task) - count(lambda: None)  # the profiler waits itself, at its end


def plan_task(model: WorldModel, agent: AgentConfig, num_envs: int) -> Callable[[], object]:
    """One decision of every environment, its noise included."""
    generator = torch.Generator(model.bins.device).manual_seed(0)
    obs = torch.randn(num_envs, OBS, device=model.bins.device)
    prev_mean = torch.zeros(num_envs, agent.planner.horizon, ACTION, device=model.bins.device)

    @torch.no_grad()
    def task() -> object:
        noise = PlanNoise.sample(model, agent.planner, num_envs, generator)
        z = model.encode(obs)
        return plan(model, z, prev_mean, agent.planner, noise, discount=DISCOUNT, explore=True)

    return task


def update_task(model: WorldModel, agent: AgentConfig) -> Callable[[], object]:
    """One gradient step on a batch that lies on the device."""
    device, horizon, size = model.bins.device, agent.planner.horizon, agent.update.batch_size
    generator = torch.Generator(device).manual_seed(0)
    batch = Batch(
        torch.randn(horizon + 1, size, OBS, device=device),
        torch.rand(horizon, size, ACTION, device=device) * 2 - 1,
        torch.rand(horizon, size, 1, device=device),
        torch.zeros(horizon, size, 1, device=device),
    )
    updater = Updater(model, agent.update, DISCOUNT)
    return lambda: updater.step(batch, UpdateNoise.sample(model, horizon, size, generator))


def measure(size: str, envs: list[int], repeats: int, device: torch.device) -> Iterator[tuple[str, ...]]:
    """The rows of the table."""
    for dtype, compile_ in WAYS:
        agent = agent_config(size)
        agent = replace(agent, planner=replace(agent.planner, dtype=dtype, compile=compile_))
        agent = replace(agent, update=replace(agent.update, dtype=dtype, compile=compile_))
        torch.manual_seed(0)
        model = WorldModel((OBS,), ACTION, agent.model).to(device)
        tasks = {("plan", n): plan_task(model, agent, n) for n in envs}
        for (name, n), task in {**tasks, ("update", 0): update_task(model, agent)}.items():
            model.train(name == "update")
            ms, first = milliseconds(task, repeats, device)
            rate = max(n, 1) / ms * 1000
            compiled = "yes" if compile_ == "always" else "no"
            number = "" if n == 0 else str(n)
            yield (
                name,
                number,
                dtype,
                compiled,
                f"{ms:.2f}",
                f"{rate:,.0f}",
                f"{first:.1f}",
                str(waits(task, device)),
                ASKED.get((name, n), "") if size == "5" else "",
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", default="5")
    parser.add_argument("--envs", nargs="+", type=int, default=[1, 16, 256])
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dry", action="store_true", help="one repetition, and no page in docs/")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("error: no GPU here; --device cpu --size tiny --dry shows that the script runs")
    if device.type != "cuda" and not arguments.dry:
        raise SystemExit("error: --device cpu goes with --dry only")
    rows = []
    print("".join(f"{word:>13}" for word in HEADER))
    for row in measure(arguments.size, arguments.envs, 1 if arguments.dry else arguments.repeats, device):
        rows.append(row)
        print("".join(f"{cell:>13}" for cell in row), flush=True)
    if not arguments.dry:
        name = torch.cuda.get_device_name(device)
        table = "\n".join(f"| {' | '.join(line)} |" for line in (HEADER, ("---",) * len(HEADER), *rows))
        where = f"{name}, torch {torch.__version__}, on {date.today()}"
        settings = f"Size {arguments.size}, paper settings, state 24, action 6, batch 256"
        DOCUMENT.write_text(f"""# Benchmarks on a GPU

`make bench-gpu`: {where}.
{settings}. *waits*: how often the host waits for the device in a call.

{table}
""")


if __name__ == "__main__":
    main()
