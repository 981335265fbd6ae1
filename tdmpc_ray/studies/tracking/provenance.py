"""Where a study came from: code, versions, user and job, as tags."""

from __future__ import annotations

import getpass
import importlib.metadata
import json
import os
import platform
import subprocess

PACKAGES = ("tdmpc-ray", "ray", "torch", "gymnasium", "mujoco", "mlflow")


def provenance_tags() -> dict[str, str]:
    """Return tags for the git commit of the working folder, package versions, the user and the Ray job."""
    tags = {
        "mlflow.source.name": "tdmpc-ray",
        "mlflow.source.type": "LOCAL",
        "version.python": platform.python_version(),
    }
    try:
        tags["mlflow.user"] = getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        tags["mlflow.user"] = str(os.getuid())
    for package in PACKAGES:
        try:
            tags[f"version.{package}"] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    sha = _git("rev-parse", "HEAD")
    if sha:
        tags["git_sha"] = tags["mlflow.source.git.commit"] = sha
        tags["git_dirty"] = str(bool(_git("status", "--porcelain", "--untracked-files=no"))).lower()
    submission = _submission_id()
    if submission:
        tags["ray_submission_id"] = submission
    return tags


def _git(*args: str) -> str:
    try:
        done = subprocess.run(["git", *args], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _submission_id() -> str:
    try:
        job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
        return str(job.get("metadata", {}).get("job_submission_id", ""))
    except (json.JSONDecodeError, AttributeError):
        return ""
