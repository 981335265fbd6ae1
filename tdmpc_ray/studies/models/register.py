"""Checkpoints as MLflow models: logged to the run that trained them, registered under a name and an alias."""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib.checkpoints.at_hand import at_hand
from tdmpc_ray.studies.file.files import STUDY_FILE, TRACKING_FOLDER
from tdmpc_ray.studies.models.best_checkpoint import (
    ScoredCheckpoint,
    best_checkpoint,
    best_of_trials,
    files_of_best,
)
from tdmpc_ray.studies.models.model_files import silent, write_model, write_slim
from tdmpc_ray.studies.tracking.client import (
    check_tracking,
    connect,
    default_uri,
    ensure_experiment,
    one_line,
    public_uri,
)
from tdmpc_ray.studies.tracking.naming import clean_tags
from tdmpc_ray.studies.tracking.provenance import provenance_tags
from tdmpc_ray.studies.tracking.sender import OpSender
from tdmpc_ray.studies.tracking.study_run import StudyRun, now_ms
from tdmpc_ray.studies.words import count, program, shown

EXPERIMENT = "tdmpc-ray"  # of models that no study of ours trained
NETWORKS_TAG = "tdmpc_ray.networks"  # hash of the checkpoint's networks
_MODEL_NAME = "agent"


@dataclass(frozen=True)
class RegisteredModel:
    """A version in MLflow's registry.

    Attributes:
        name: of the model.
        version: of it.
        alias: that now names this version, if one was asked for.
        checkpoint: what it was made from.
        run_id: MLflow's id of the run that it belongs to.
        uri: address of MLflow.
    """

    name: str
    version: str
    alias: str | None
    checkpoint: ScoredCheckpoint
    run_id: str
    uri: str

    @property
    def model_uri(self) -> str:
        """What `mlflow.pyfunc.load_model` and `tdmpc-ray serve` take."""
        return f"models:/{self.name}@{self.alias}" if self.alias else f"models:/{self.name}/{self.version}"


def register(
    source: str | Path, name: str, alias: str | None = None, uri: str | None = None
) -> RegisteredModel:
    """Register a checkpoint as a new version of a model.

    It is logged to the run that trained it where MLflow has that, else to one of its own; one that is logged
    there already is not logged again.

    Args:
        source: a checkpoint, or the folder of a run or study: the one with the best evaluation. Or the
            address of one.
        name: of the model; made if absent.
        alias: to point at the new version.
        uri: address of MLflow; None: where the study was tracked.

    Raises:
        UserError: no or damaged checkpoint, a name that MLflow does not take, or MLflow does not answer.
    """
    _check_names(name, alias)
    with at_hand(source, files_of_best, STUDY_FILE) as local:
        return _register(best_checkpoint(local), name, alias, uri)


def _register(chosen: ScoredCheckpoint, name: str, alias: str | None, uri: str | None) -> RegisteredModel:
    tracked = _tracked(chosen.out)
    uri = uri or (tracked.uri if tracked else default_uri())
    check_tracking(uri)
    from mlflow.exceptions import MlflowException

    try:
        client = connect(uri)
        model_id, run_id = _ensure_logged(client, uri, chosen, tracked, own_run=name)
        with silent():
            if not client.search_registered_models(f"name = '{name}'"):
                client.create_registered_model(name)
            # Not models:/ID, which MLflow would look up at its global address.
            location = client.get_logged_model(model_id).artifact_location
            version = client.create_model_version(
                name, source=location, run_id=run_id, model_id=model_id, description=str(chosen)
            ).version
            if alias:
                client.set_registered_model_alias(name, alias, version)
    except MlflowException as error:
        raise UserError(f"MLflow did not take the model: {one_line(error)}") from None
    return RegisteredModel(name, str(version), alias, chosen, run_id, uri)


def log_best_models(
    out: str | Path, *, uri: str | None = None, timeout_s: float = 120.0, say: Callable[[str], None]
) -> tuple[int, int]:
    """Log the best checkpoint of each trial of a study to the trial's run; nothing is registered.

    Twice logs nothing twice. An MLflow that does not answer is no error: a line says how to do it later.

    Args:
        out: the study's folder, or its address.
        uri: address of MLflow; None: where the study was tracked.
        timeout_s: the longest wait; what has not been logged by then is left.
        say: called with a line for the user.

    Returns:
        How many trials have their model in MLflow now, and how many have not.

    Raises:
        UserError: no study was tracked in the folder.
    """

    def files(local: Path) -> list[Path]:
        StudyRun.open(local / TRACKING_FOLDER)
        return [best.path for best in best_of_trials(local)]

    with at_hand(out, files) as local:
        tracked = StudyRun.open(local / TRACKING_FOLDER)
        found = best_of_trials(local)
        logged, why = _log_all(found, uri or tracked.uri, tracked, timeout_s)
    if logged < len(found):
        later = f"{program('tdmpc-ray')} log-models {shlex.quote(shown(out))}"
        say(f"note: {logged} of {count(len(found), 'model')} logged ({why}); log the rest with: {later}")
    return logged, len(found) - logged


def _log_all(
    found: list[ScoredCheckpoint], address: str, tracked: StudyRun, timeout_s: float
) -> tuple[int, str]:
    """How many were logged in time, and why not more."""
    logged: list[str] = []
    problem: list[str] = []
    stop = threading.Event()

    def log() -> None:
        try:
            check_tracking(address)
            client = connect(address)
            for chosen in found:
                if stop.is_set():
                    return
                logged.append(_ensure_logged(client, address, chosen, tracked, own_run=None)[0])
        except Exception as error:  # a study that has ended well must not fail by what shows it
            problem.append(one_line(error))

    # In a thread of its own: uploads have no limit as a whole.
    thread = threading.Thread(target=log, daemon=True, name="mlflow-models")
    thread.start()
    thread.join(timeout_s)
    stop.set()
    return len(logged), problem[0] if problem else f"MLflow needs more than {timeout_s:g} s"


def fetch_agent(source: str, folder: Path, uri: str) -> str:
    """Write an agent into a new folder, as `core.saved_agent` reads it.

    Args:
        source: address of a model in MLflow, `models:/...` or `runs:/...`; or a checkpoint, or a run: its
            best one, by path or address.
        folder: the new folder.
        uri: address of MLflow.

    Returns:
        What it is called: NAME/VERSION, its address, or the checkpoint.

    Raises:
        UserError: no such model or checkpoint, one that is not ours, or MLflow does not answer.
    """
    if not source.startswith(("models:/", "runs:/")):
        with at_hand(source, files_of_best, STUDY_FILE) as local:
            chosen = best_checkpoint(local)
            write_slim(chosen.path, folder)
            return chosen.name
    check_tracking(uri)
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        with tempfile.TemporaryDirectory() as temporary, silent():
            name, location = _find_model(connect(uri), source)
            path = mlflow.artifacts.download_artifacts(location, dst_path=temporary, tracking_uri=uri)
            agent = Path(path) / "artifacts" / "agent"
            if not agent.is_dir():
                raise UserError(f"{source} is no model of tdmpc-ray: make one with `tdmpc-ray register`")
            shutil.copytree(agent, folder)
    except (MlflowException, OSError) as error:
        raise UserError(f"no model {source} at {public_uri(uri)} ({one_line(error)})") from None
    return name


def _find_model(client: Any, address: str) -> tuple[str, str]:
    """Name and location of a model. Not left to MLflow, which asks its global registry, not this one."""
    kind, _, path = address.partition(":/")
    first, _, second = path.partition("/")
    if kind == "runs":
        outputs = client.get_run(first).outputs
        models = [client.get_logged_model(output.model_id) for output in outputs.model_outputs]
        for model in models:
            if model.name == second:
                return f"{first}/{second}", model.artifact_location
        raise UserError(f"run {first} has no model '{second}': it has {[model.name for model in models]}")
    if not second and "@" not in first:
        return first, client.get_logged_model(first).artifact_location
    name, at, alias = path.partition("@")
    if at:
        version = client.get_model_version_by_alias(name, alias)
    else:
        version = client.get_model_version(first, second)
    location = client.get_model_version_download_uri(version.name, version.version)
    return f"{version.name}/{version.version}", location


def _ensure_logged(
    client: Any, uri: str, chosen: ScoredCheckpoint, tracked: StudyRun | None, own_run: str | None
) -> tuple[str, str]:
    """Model id and run id of a checkpoint in MLflow; logged if it is not there.

    `own_run` names the run that is made where the trial's is not in MLflow; None: that is an error.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    experiment = tracked.experiment if tracked else EXPERIMENT
    experiment_id = ensure_experiment(client, uri, experiment)
    run_id = None
    if tracked is not None:
        run_id = OpSender(uri, {}).find(experiment, f"{tracked.uid}/{chosen.trial_id}")
    if run_id is None and own_run is None:
        raise UserError(f"MLflow has no run of {chosen.trial}: bring it there with `tdmpc-ray sync`")
    networks = _networks_hash(chosen.path)
    same = f"tags.`{NETWORKS_TAG}` = '{networks}'"
    if run_id is not None:  # a trial may have another one's networks, in a population
        same += f" AND source_run_id = '{run_id}'"
    for model in client.search_logged_models([experiment_id], same):
        if model.status == LoggedModelStatus.READY:
            return model.model_id, model.source_run_id
    if run_id is None:
        tags = clean_tags({**provenance_tags(), "kind": "model"})
        run_id = client.create_run(experiment_id, run_name=own_run, tags=tags).info.run_id
        client.set_terminated(run_id, "FINISHED", end_time=now_ms())
    score = {} if chosen.score is None else {chosen.metric: str(chosen.score)}
    tags = clean_tags({NETWORKS_TAG: networks, "checkpoint": str(chosen), **score})
    model = client.create_logged_model(experiment_id, _MODEL_NAME, run_id, tags, model_type="agent")
    try:
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "model"
            write_model(chosen.path, path, run_id=run_id, model_id=model.model_id)
            client.log_model_artifacts(model.model_id, str(path))
    except BaseException:
        client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)
        raise
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=chosen.evaluated_at)])
    return model.model_id, run_id


def _tracked(out: Path | None) -> StudyRun | None:
    folder = out and out / TRACKING_FOLDER
    return StudyRun.open(folder) if folder and folder.is_dir() else None


def _networks_hash(checkpoint: Path) -> str:
    """Of the files that hold the networks, by the checkpoint's manifest."""
    from tdmpc_ray.rllib.checkpoints.load import MODULE
    from tdmpc_ray.rllib.checkpoints.manifest import read_manifest

    files = read_manifest(checkpoint)["files"]
    hashes = [f"{name}:{value}" for name, value in sorted(files.items()) if name.startswith(str(MODULE))]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _check_names(name: str, alias: str | None) -> None:
    if not re.fullmatch(r"[\w.-][\w .-]*", name):
        raise UserError(f"'{name}' cannot name a model: use letters, digits, spaces and . _ -")
    if alias is not None and (not re.fullmatch(r"[\w-]+", alias) or re.fullmatch(r"v\d+|latest", alias)):
        raise UserError(f"'{alias}' cannot be an alias: use letters, digits, _ and -, but not latest or v1")
