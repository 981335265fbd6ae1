"""`tdmpc-ray serve`: a Ray of its own, Serve on it, and a clean end."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tdmpc_ray.errors import UserError, reason
from tdmpc_ray.serving.options import ReplicaOptions, ServeOptions
from tdmpc_ray.studies.run.cluster import check_resources, ray_session

TOKEN_VARIABLE = "TDMPC_RAY_SERVE_TOKEN"
_APP = "tdmpc-ray"
# A request passes through fewer threads, which cost more than they bring where planning is in one of its own.
_FEWER_THREADS = {
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",
}
_PACKAGES = ("fastapi", "uvicorn", "starlette", "mmh3", "aiohttp", "watchfiles", "grpc")


def serve_agent(
    source: str, options: ServeOptions, *, mlflow_uri: str, host: str, port: int, say: Callable[[str], None]
) -> int:
    """Serve until SIGINT or SIGTERM.

    Args:
        source: models:/NAME@ALIAS, models:/NAME/VERSION, another address of a model in MLflow, or the path of
            a checkpoint or run.
        options: how.
        mlflow_uri: address of MLflow.
        host: address to listen at.
        port: to listen at.
        say: called with a line for the user.

    Returns:
        The signal that ended it.

    Raises:
        UserError: no such model, no Serve, the port is taken, or the machine lacks a GPU.
    """
    _check_packages()
    _check_port(host, port)
    token = _take_token()
    if os.environ.pop("RAY_ADDRESS", None):
        say("note: RAY_ADDRESS is not used: serving starts a Ray of its own")
    for name, value in _FEWER_THREADS.items():
        os.environ.setdefault(name, value)
    need = {"CPU": float(options.replicas), "GPU": options.num_gpus * options.replicas}
    check_resources(need)
    from tdmpc_ray.core.saved_agent import read_agent
    from tdmpc_ray.studies.models.register import fetch_agent

    with tempfile.TemporaryDirectory(prefix="tdmpc-ray-serve-") as temporary:
        folder = Path(temporary) / "agent"
        model = fetch_agent(source, folder, mlflow_uri)
        agent = read_agent(folder, settings=options.settings)  # what is wrong shows before anything starts
        tasks = "+".join(agent.description.tasks) or agent.description.task or "a task without a name"
        size = f"{agent.networks.num_params() / 1e6:.2f} M parameters"
        say(f"loading {model}: {agent.config.algorithm} on {tasks}, {size}")
        with ray_session(need, say):
            replica = ReplicaOptions(**vars(options), folder=folder, model=model, token=token)
            return _serve(replica, host, port, say)


def _serve(options: ReplicaOptions, host: str, port: int, say: Callable[[str], None]) -> int:
    from ray import serve
    from ray.serve.config import HTTPOptions, RequestRouterConfig
    from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter
    from ray.serve.schema import LoggingConfig

    from tdmpc_ray.serving.app import PlanServer

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    # Without fallbacks: a session that went elsewhere for a moment would lose its plan.
    router = RequestRouterConfig(
        request_router_class=ConsistentHashRouter, request_router_kwargs={"num_fallback_replicas": 0}
    )
    many = {"request_router_config": router} if options.replicas > 1 else {}
    server: Any = PlanServer  # the decorator is not typed
    deployment = server.options(
        num_replicas=options.replicas,
        max_ongoing_requests=max(8 * options.max_batch, options.max_sessions),
        ray_actor_options={"num_cpus": 1, "num_gpus": options.num_gpus},
        health_check_period_s=1,
        graceful_shutdown_timeout_s=5,
        graceful_shutdown_wait_loop_s=0.1,
        logging_config=quiet,
        **many,
    )
    stopped: list[int] = []
    event = threading.Event()

    def stop(signum: int, frame: Any) -> None:
        stopped.append(signum)
        event.set()

    try:
        serve.start(http_options=HTTPOptions(host=host, port=port), logging_config=quiet)
        serve.run(deployment.bind(options), name=_APP, route_prefix="/")
    except RuntimeError as error:
        raise UserError(f"Ray Serve did not start the model: {reason(error)}") from None
    # Not before: Ray sets handlers of its own when it starts.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, stop)
    access = "" if options.token else ", open to all who reach it"
    say(f"serving {options.model} at http://{host}:{port}{access}")
    while not event.wait(0.5):
        pass
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_DFL)  # a second one ends it at once
    say("stopping")
    serve.delete(_APP)  # what is being answered is answered; the rest ends with Ray
    return stopped[0]


def _check_packages() -> None:
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"serving needs {', '.join(missing)}: pip install 'tdmpc-ray[serve]'")


def _take_token() -> str:
    """The token that clients have to bring; no other process of Ray shall inherit it."""
    token = os.environ.pop(TOKEN_VARIABLE, "").strip()
    if not (token.isascii() and token.isprintable()):
        raise UserError(f"{TOKEN_VARIABLE} must be of plain ASCII characters: headers carry no others")
    return token


def _check_port(host: str, port: int) -> None:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise UserError(
            f"cannot listen at {host}:{port} ({error.strerror}): choose another --port or --host"
        ) from None
