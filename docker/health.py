"""Whether this container is of use: exit status 0, or 1 and a line that says why not.

TDMPC_RAY_ROLE says what it is for. It asks by the names under which the other containers ask: a server that
answers to 'localhost' may refuse them.
"""

import json
import os
import shutil
import socket
import sys
import tempfile
import urllib.error
import urllib.request

_LEAST_FREE = 100e6  # bytes


def mlflow() -> str:
    """MLflow answers an experiment's search; /health answers even where it refuses the name (403)."""
    _ask(f"{os.environ['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/experiments/search", {"max_results": 1})
    return ""


def head() -> str:
    """Ray's job server answers, to the token of this cluster."""
    _ask(f"http://{socket.gethostname()}:8265/api/jobs/")
    return ""


def worker() -> str:
    """The head counts this machine among those alive."""
    address = os.environ["RAY_HEAD"]
    nodes = _ask(f"http://{address}:8265/api/v0/nodes?limit=10000")["data"]["result"]["result"]
    here = socket.gethostbyname(socket.gethostname())
    alive = any(node["node_ip"] == here and node["state"] == "ALIVE" for node in nodes)
    return "" if alive else f"{here} is not among the nodes of {address}"


def results() -> str:
    """Results can be written."""
    folder = os.environ.get("TDMPC_RAY_RESULTS", "/results")
    with tempfile.TemporaryFile(dir=folder):
        free = shutil.disk_usage(folder).free
    return "" if free > _LEAST_FREE else f"{folder} is full: {free / 1e6:.0f} MB left"


def _ask(url: str, body: dict | None = None) -> dict:
    headers = {"Content-Type": "application/json"}
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=8) as answer:
        return json.load(answer)


if __name__ == "__main__":
    checks = {"mlflow": [mlflow], "head": [head, results], "worker": [worker, results]}
    try:
        trouble = next(
            (
                text
                for check in checks.get(os.environ.get("TDMPC_RAY_ROLE", ""), [results])
                if (text := check())
            ),
            "",
        )
    except (OSError, KeyError, ValueError) as error:
        trouble = f"{type(error).__name__}: {error}"
    print(trouble or "healthy")
    sys.exit(bool(trouble))
