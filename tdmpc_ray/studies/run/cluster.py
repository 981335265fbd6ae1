"""The Ray that a study runs on: the one that RAY_ADDRESS names, or a local one for as long as it lasts."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import math
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence

from tdmpc_ray import noise
from tdmpc_ray.errors import UserError, reason
from tdmpc_ray.studies.plan.room import Bundles, Capacity, misfit
from tdmpc_ray.studies.run.interrupt import warnings_ignored

_KNOCK_S = 10.0  # for the answer of a cluster
# Ray's least is 75 MB; episodes are small, but every weight update passes through this memory.
_OBJECT_STORE_LIMITS = (100_000_000, 4_000_000_000)


@contextlib.contextmanager
def ray_session(
    need: Mapping[str, float], say: Callable[[str], None], requests: Sequence[Bundles] = ()
) -> Iterator[None]:
    """Be connected to Ray within; what was started here is stopped at the end.

    Args:
        need: resources of one trial, such as {"CPU": 3, "GPU": 1}.
        requests: the bundles of trials, each of which has to fit on one node.
        say: called with a line for the user.

    Raises:
        UserError: no cluster at RAY_ADDRESS, or Ray does not start here.
    """
    import ray

    if ray.is_initialized():
        _warn_if_small(requests or [[need]], say)
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    if address:
        _connect(address)
        _warn_if_small(requests or [[need]], say)
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
    if note := sharing(need):
        say(f"note: {note}")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    low, high = _OBJECT_STORE_LIMITS
    try:
        with _own_process_groups(), warnings_ignored():
            ray.init(
                address="local",  # without it Ray would join any cluster that runs on this machine
                num_cpus=_local_cpus(need),
                _memory=get_system_memory(),  # of what is free now alone, a trial could wait for ever
                object_store_memory=min(max(memory // 10, low), high),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except Exception as error:  # Ray waits for its parts for a limited time, and raises nothing more special
        raise UserError(f"Ray did not start ({reason(error)[:300]}): {_start_advice(error)}") from None


def _start_advice(error: Exception) -> str:
    """What to do, by the cause."""
    if "AF_UNIX path length" in str(error):
        return "set RAY_TMPDIR to a folder with a shorter path, such as /tmp"
    if isinstance(error, PermissionError | FileNotFoundError):
        return "set RAY_TMPDIR to a folder that is there and that you may write to"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "make room on that disk, or set RAY_TMPDIR to a folder on another one"
    return "on a busy machine, try again with `resume`"


def _knock(address: str) -> None:
    """Where nobody answers, Ray itself would try for minutes."""
    host, colon, port = address.rpartition("/")[2].rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _local_cpus(need: Mapping[str, float]) -> int:
    """That a Ray of our own counts: a trial shares cores sooner than not to start."""
    return max(_cores(), math.ceil(need.get("CPU", 0)))


def sharing(need: Mapping[str, float]) -> str:
    """What to say where a trial uses more CPUs than this machine has; or nothing."""
    cpus, cores = need.get("CPU", 0), _cores()
    if cpus <= cores:
        return ""
    return f"a trial uses {cpus:g} CPUs and this machine has {cores}: its processes will share them"


def core_share(need: Mapping[str, float]) -> float:
    """Of each CPU that a trial asks for, what this machine gives."""
    return min(1.0, _cores() / (need.get("CPU", 0) or 1.0))


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


def _check_address(address: str) -> None:
    """Refuse what looks like a cluster's address and is that of something else on its head.

    Raises:
        UserError: says what to give instead.
    """
    if address.startswith(("http://", "https://")):
        raise UserError(
            f"RAY_ADDRESS={address} is a job server's address: hand the study in with `tdmpc-ray submit "
            f"--address {address}`, or give HOST:6379 on a machine of the cluster"
        )
    if address.startswith("ray://"):
        raise UserError(
            f"RAY_ADDRESS={address} is the address for Ray clients, which cannot run studies: give HOST:6379 "
            "on a machine of the cluster, or use `tdmpc-ray submit --address http://HOST:8265` from elsewhere"
        )


def _connect(address: str) -> None:
    import ray

    _check_address(address)
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        raise UserError(
            f"no Ray cluster at RAY_ADDRESS={address} ({reason(error)[:300]}): "
            "correct it, or unset it to run here"
        ) from None


def capacity(need: Mapping[str, float]) -> Capacity:
    """Of the cluster at RAY_ADDRESS, or of the Ray that a study would start on this machine.

    Args:
        need: resources of one trial.

    Raises:
        UserError: there is no such cluster.
    """
    import ray
    import torch
    from ray._common.utils import get_system_memory

    address = os.environ.get("RAY_ADDRESS")
    if not address:
        here = {"CPU": float(_local_cpus(need)), "GPU": float(torch.cuda.device_count())}
        here["memory"] = float(get_system_memory())
        return Capacity("this machine", (here,))
    _connect(address)
    try:
        return cluster_capacity(f"the cluster at {address}")
    finally:
        ray.shutdown()


def cluster_capacity(where: str = "the cluster", free: bool = False) -> Capacity:
    """Of the cluster that this process is connected to; what is free is that of all nodes together."""
    import ray

    if free:
        return Capacity(where, (ray.available_resources(),))
    return Capacity(where, tuple(node["Resources"] for node in ray.nodes() if node["Alive"]))


def _warn_if_small(requests: Sequence[Bundles], say: Callable[[str], None]) -> None:
    if reason := misfit(requests, cluster_capacity()):
        say(f"note: {reason}: trials wait until it grows")


def check_resources(need: Mapping[str, float]) -> None:
    """Refuse what a Ray of our own could never give.

    Raises:
        UserError: a trial needs more GPUs, or more memory, than this machine has; or RAY_ADDRESS is wrong.
    """
    import ray
    import torch
    from ray._common.utils import get_system_memory

    from tdmpc_ray.core.replay.size import no_memory

    if ray.is_initialized():
        return
    if address := os.environ.get("RAY_ADDRESS"):
        _check_address(address)
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
    """Silence what Ray says about itself, and Tune's files; call it before Ray is started."""
    # Metrics go to MLflow; Tune's files would repeat the whole config in every line.
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    noise.quiet()
