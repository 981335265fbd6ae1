"""Latency and throughput of `tdmpc-ray serve`, with and without batches.

    python tests/bench/bench_serve.py                              # sizes tiny and 1; 1, 8 and 32 clients
    python tests/bench/bench_serve.py --sizes 5 --preset paper     # planning as published

Each client is a robot with walker-walk's sizes that waits for its action before it asks again, over a
connection of its own. Clients, HTTP and planning share this machine. `batch` is the mean number of sessions
that were planned for together, `plan ms` the median time of a batch's plan. Both servers, with batches and
without, run at once and are asked in turns, so that what else the machine does meets both.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))

from agents import random_checkpoint
from conftest import free_port
from driver import Driver

OBS_DIM = 24  # of walker-walk


class Server:
    """`tdmpc-ray serve` in a process of its own."""

    def __init__(self, checkpoint: Path, folder: Path, *options: str) -> None:
        self.port = free_port()
        command = ("-m", "tdmpc_ray.cli", "serve", str(checkpoint), "--port", str(self.port), *options)
        self.driver = Driver(folder, *command)

    def wait(self) -> None:
        self.driver.wait_for(lambda: "\nserving " in self.driver.log.read_text(), 300)

    def end(self) -> None:
        self.driver.process.send_signal(signal.SIGTERM)
        self.driver.end()


def ask(port: int, clients: int, seconds: float) -> np.ndarray:
    """Let clients ask; rows of latency in ms, planning in ms and batch for each answer."""
    rows: list[tuple[float, float, float]] = []
    end = time.perf_counter() + seconds

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        rng = np.random.default_rng(number)
        while time.perf_counter() < end:
            body = json.dumps({"session": f"robot-{number}", "obs": rng.normal(size=OBS_DIM).tolist()})
            started = time.perf_counter()
            connection.request("POST", "/v1/act", body, {"content-type": "application/json"})
            answer = json.loads(connection.getresponse().read())
            latency = time.perf_counter() - started
            rows.append((1e3 * latency, answer["planning_ms"], answer["batch"]))
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return np.array(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["tiny", "1"])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--preset", default="light")
    parser.add_argument("--seconds", type=float, default=5.0, help="per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--wait-ms", type=float, default=10.0, help="for a batch to be filled")
    args = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} cores")
    heads = ("size", "clients", "batches", "p50 ms", "p99 ms", "requests/s", "batch", "plan ms")
    print(" ".join(f"{head:>10}" for head in heads))
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            checkpoint = random_checkpoint(folder / "agent", "walker-walk", {}, size, args.preset)
            waits = ("--batch-wait-ms", str(args.wait_ms))
            servers = {"on": Server(checkpoint, folder, *waits)}
            servers["off"] = Server(checkpoint, folder, "--max-batch", "1")
            try:
                for server in servers.values():
                    server.wait()
                for clients in args.clients:
                    told: dict[str, list[np.ndarray]] = {"on": [], "off": []}
                    for _ in range(args.rounds):
                        for name, server in servers.items():
                            told[name].append(ask(server.port, clients, args.seconds))
                    for name, parts in told.items():
                        latency, plan, batch = np.concatenate(parts).T
                        rate = len(latency) / (args.rounds * args.seconds)
                        p50, p99 = np.percentile(latency, [50, 99])
                        numbers = (p50, p99, rate, batch.mean(), np.median(plan))
                        row = " ".join(f"{number:10.1f}" for number in numbers)
                        print(f"{size:>10} {clients:10} {name:>10} {row}", flush=True)
            finally:
                for server in servers.values():
                    server.end()


if __name__ == "__main__":
    main()
