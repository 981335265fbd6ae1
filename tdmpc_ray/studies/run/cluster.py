"""The Ray that a study runs on: the one that RAY_ADDRESS names, or a local one for as long as it lasts."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tdmpc_ray.errors import UserError, reason
from tdmpc_ray.studies.run.interrupt import warnings_ignored

_KNOCK_S = 10.0  # for the answer of a cluster
# Ray's least is 75 MB; episodes are small, but every weight update passes through this memory.
_OBJECT_STORE_LIMITS = (100_000_000, 4_000_000_000)


@contextlib.contextmanager
def ray_session(need: Mapping[str, float], say: Callable[[str], None]) -> Iterator[None]:
    """Be connected to Ray within; what was started here is stopped at the end.

    Args:
        need: resources of one trial, such as {"CPU": 3, "GPU": 1}.
        say: called with a line for the user.

    Raises:
        UserError: no cluster at RAY_ADDRESS, or Ray does not start here.
    """
    import ray

    if ray.is_initialized():
        _warn_if_small(need, say)
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    if address:
        _connect(address)
        _warn_if_small(need, say)
    else:
        _start_local(need, say)
    try:
        yield
    finally:
        ray.shutdown()


def _ask_for_secret() -> None:
    """Have a Ray that is started here ask for one, unless RAY_AUTH_MODE says otherwise.

    Its ports are open to the network, and it runs what it is sent.
    """
    from ray._raylet import Config  # type: ignore[attr-defined]

    has_token = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ)
    if os.environ.setdefault("RAY_AUTH_MODE", "token") == "token" and not has_token:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    Config.initialize("")  # it has read the mode at its import


def _start_local(need: Mapping[str, float], say: Callable[[str], None]) -> None:
    import ray
    from ray._common.utils import get_system_memory

    _ask_for_secret()
    cores = _cores()
    cpus = need.get("CPU", 0)
    if cpus > cores:
        say(f"note: a trial uses {cpus:g} CPUs and this machine has {cores}: its processes will share them")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    low, high = _OBJECT_STORE_LIMITS
    try:
        with _own_process_groups(), warnings_ignored():
            ray.init(
                address="local",  # without it Ray would join any cluster that runs on this machine
                num_cpus=max(cores, int(-(-cpus // 1))),
                _memory=get_system_memory(),  # of what is free now alone, a trial could wait for ever
                object_store_memory=min(max(memory // 10, low), high),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except Exception as error:  # Ray waits for its parts for a limited time, and raises nothing more special
        raise UserError(
            f"Ray did not start ({reason(error)[:160]}): on a busy machine, try again with `resume`"
        ) from None


def _knock(address: str) -> None:
    """Where nobody answers, Ray itself would try for minutes."""
    host, colon, port = address.rpartition("/")[2].rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _own_process_groups() -> Iterator[None]:
    """Within, Ray's processes start in groups of their own.

    `timeout`, batch systems and service managers end a command by SIGTERM to its whole group: that would kill
    Ray before its trials could save.
    """
    from ray._private import services

    popen = services.ConsolePopen
    services.ConsolePopen = functools.partial(popen, process_group=0)
    try:
        yield
    finally:
        services.ConsolePopen = popen


def _connect(address: str) -> None:
    import ray

    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        raise UserError(
            f"no Ray cluster at RAY_ADDRESS={address} ({reason(error)[:160]}): "
            "correct it, or unset it to run here"
        ) from None


@dataclass(frozen=True)
class Capacity:
    """What there is to run trials on.

    Attributes:
        where: in words.
        nodes: resources of each.
    """

    where: str
    nodes: tuple[Mapping[str, float], ...]

    def total(self, name: str) -> float:
        """Of one resource, over all nodes."""
        return sum(node.get(name, 0.0) for node in self.nodes)


def capacity() -> Capacity:
    """Of the cluster at RAY_ADDRESS, or of this machine.

    Raises:
        UserError: there is no such cluster.
    """
    import ray
    import torch
    from ray._common.utils import get_system_memory

    address = os.environ.get("RAY_ADDRESS")
    if not address:
        here = {"CPU": float(_cores()), "GPU": float(torch.cuda.device_count())}
        here["memory"] = float(get_system_memory())
        return Capacity("this machine", (here,))
    _connect(address)
    try:
        nodes = tuple(node["Resources"] for node in ray.nodes() if node["Alive"])
    finally:
        ray.shutdown()
    return Capacity(f"the cluster at {address}", nodes)


def _warn_if_small(need: Mapping[str, float], say: Callable[[str], None]) -> None:
    import ray

    from tdmpc_ray.core.replay_size import gigabytes

    has: dict[str, Any] = ray.cluster_resources()
    for name, amount in need.items():
        if name == "memory" and amount > has.get(name, 0):
            free = gigabytes(has.get(name, 0))
            say(
                f"note: a trial's replay takes {gigabytes(amount)} and the cluster has {free} of memory now: "
                "lower data.capacity, or trials wait until it grows"
            )
        elif amount > has.get(name, 0):
            say(
                f"note: a trial needs {amount:g} {name} and the cluster has {has.get(name, 0):g} now: "
                "trials wait until it grows"
            )


def check_resources(need: Mapping[str, float]) -> None:
    """Refuse what a Ray of our own could never give.

    Raises:
        UserError: a trial needs more GPUs, or more memory, than this machine has.
    """
    import ray
    import torch
    from ray._common.utils import get_system_memory

    from tdmpc_ray.core.replay_size import no_memory

    if ray.is_initialized() or os.environ.get("RAY_ADDRESS"):
        return  # a cluster may grow
    amount, has = need.get("GPU", 0), torch.cuda.device_count()
    amounts = f"{amount:g} GPU{'' if amount == 1 else 's'}"
    if amount > has:
        raise UserError(
            f"a trial needs {amounts} and this machine has {has}: lower gpus_per_learner (--num-gpus)"
        )
    if need.get("memory", 0) > (here := get_system_memory()):
        raise no_memory(need["memory"], here)


def quiet() -> None:
    """Silence what Ray and the simulators say about themselves; call it before they are imported."""
    for name, value in {
        "RAY_USAGE_STATS_ENABLED": "0",
        **({} if sys.stdout.isatty() else {"RAY_COLOR_PREFIX": "0"}),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # Metrics go to MLflow; Tune's files would repeat the whole config in every line.
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a header at any verbosity
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the end of the study lists them
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    }.items():
        os.environ.setdefault(name, value)
    for name in ("tune", "train", "rllib", "dashboard", "_private.runtime_env", "_common.deprecation"):
        logging.getLogger(f"ray.{name}").setLevel(logging.CRITICAL)
