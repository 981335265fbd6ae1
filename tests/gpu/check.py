"""Everything that only a GPU can tell, in nine minutes: exactness, speed, the update loop, RLlib, learning.

    make check-gpu                                            # writes docs/benchmarks_gpu.{md,json}
    make check-gpu CHECK_ARGS="--device cpu --quick --out /tmp/check"    # that it runs, in two minutes

It needs PyTorch, NumPy and what `make_pack.sh` packs. Each part is a process of its own, so that what breaks
one leaves the others alone, and what it has found is in the output folder after every row. Exit status 1:
something broke.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("MUJOCO_GL", "egl")
os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path[:2], os.environ.get("PYTHONPATH", "")])

import torch
from gpu.hardware import describe
from gpu.page import write
from gpu.sections import Check, Section

from tdmpc_ray.core.nn import compiled

PARTS = {"recorded": 80, "speed": 100, "loop": 50, "on_ray": 75, "learning": 235}  # seconds of 540
_WARMING = 6  # processes
_DOCS = Path(__file__).parents[2] / "docs"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny models, few repetitions")
    parser.add_argument("--trace", action="store_true", help="with --quick: trace what a GPU would compile")
    parser.add_argument("--minutes", type=float, default=9.0, help="of the whole check")
    parser.add_argument("--out", type=Path, default=_DOCS, help="folder of the two pages")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--warm", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU here; --device cpu --quick --out FOLDER shows that the check runs")
    if device.type == "cpu":
        torch.set_num_threads(1)
    if args.trace:
        compiled._OPTIONS = {"backend": "aot_eager"}
    if args.part or args.warm is not None:
        until, compiles = time.perf_counter() + args.seconds, device.type == "cuda" or args.trace
        check = Check(device, args.quick, compiles, until, args.file)
        return warm(check, args.warm) if args.part is None else run_part(check, args.part)
    return run_all(args, device)


def run_all(args: argparse.Namespace, device: torch.device) -> int:
    started, seconds = time.perf_counter(), 60 * args.minutes
    sections: list[Section] = []
    args.out.mkdir(parents=True, exist_ok=True)
    flags = [name for name in ("--quick", "--trace") if getattr(args, name.strip("-"))]
    command = [sys.executable, __file__, "--device", args.device, *flags]
    warming = start_warming(args, command)
    for index, name in enumerate(args.parts):
        left = seconds - (time.perf_counter() - started)
        share = left * PARTS[name] / sum(PARTS[later] for later in args.parts[index:])
        print(f"{name}: {share:.0f} s", flush=True)
        sections.append(part_of(name, share, command, args.out / f"benchmarks_gpu.{name}.json"))
        sections[-1].broken += end_warming(warming, args.out)
        warming = []
        page = write(args.out, describe(device), sections, "make check-gpu")
    for name in args.parts:  # the page has them all
        (args.out / f"benchmarks_gpu.{name}.json").unlink(missing_ok=True)
    broken = sum(len(section.broken) for section in sections)
    print(f"{page}: {time.perf_counter() - started:.0f} of {seconds:.0f} s, {broken} broke")
    return 1 if broken else 0


def part_of(name: str, seconds: float, command: list[str], file: Path) -> Section:
    """Run a part in a process of its own; what it has found, also where it did not end."""
    own = ["--part", name, "--seconds", str(seconds - 8), "--file", str(file)]  # 8: to start and to end
    file.unlink(missing_ok=True)
    trouble = ""
    process = subprocess.Popen([*command, *own], start_new_session=True)
    try:
        if status := process.wait(seconds + 15):
            trouble = f"the process ended with status {status}"
    except subprocess.TimeoutExpired:
        trouble = f"it was not done after {seconds + 15:.0f} s"
        os.killpg(process.pid, signal.SIGKILL)  # with the Ray that it has started
        process.wait()
    section = Section.load(file) if file.exists() else Section(name, "")
    if trouble:
        section.broken.append(trouble)
    return section


def run_part(check: Check, name: str) -> int:
    """In a part's process."""
    try:
        importlib.import_module(f"gpu.{name}").run(check).save()
    except Exception:
        section = Section.load(check.file) if check.file.exists() else Section(name, "", file=check.file)
        section.file = check.file
        section.broke(name, traceback.format_exc())
    return 0


def start_warming(args: argparse.Namespace, command: list[str]) -> list[subprocess.Popen[bytes]]:
    """Compile what later parts run into Inductor's cache on disk, while the first part runs untimed."""
    if (args.device == "cpu" and not args.trace) or args.parts[:1] != ["recorded"]:
        return []
    # Few threads and processes each, and the first part goes first.
    environment = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "2", "OMP_NUM_THREADS": "1"}
    processes = []
    for share in range(1 if args.quick else _WARMING):
        own = ["nice", "-n", "10", *command, "--seconds", str(PARTS["recorded"]), "--warm", str(share)]
        with open(args.out / f"benchmarks_gpu.warm{share}.log", "w") as log:
            processes.append(subprocess.Popen(own, stdout=log, stderr=log, env=environment))
    return processes


def end_warming(processes: list[subprocess.Popen[bytes]], out: Path) -> list[str]:
    """What has broken in them; whatever still runs is ended."""
    troubles = []
    for share, process in enumerate(processes):
        log = out / f"benchmarks_gpu.warm{share}.log"
        if process.poll():
            troubles.append(f"warming ended with status {process.poll()}: {log.read_text()[-2000:]}")
        process.kill()
        process.wait()
        log.unlink()
    return troubles


def warm(check: Check, share: int) -> int:
    """In a warming process."""
    from gpu import loop, speed

    number = 1 if check.quick else _WARMING
    kinds = list(loop.KINDS)
    if share < len(kinds) and not check.quick:
        loop.warm(check, kinds[share])
    for _ in speed.warm(check, share, number):
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
