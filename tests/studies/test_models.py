"""Checkpoints as MLflow models: the same decisions, logged once, registered with an alias."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from agents import random_checkpoint
from pyarrow.fs import FileSystem, copy_files
from rich.console import Console

from tdmpc_ray import cli
from tdmpc_ray.core.saved_agent import DESCRIPTION_FILE, WEIGHTS_FILE, read_agent
from tdmpc_ray.envs import make_env
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib.checkpoints.at_hand import at_hand
from tdmpc_ray.rllib.checkpoints.load import MODULE
from tdmpc_ray.rllib.checkpoints.manifest import MANIFEST, seal
from tdmpc_ray.rllib.evaluation.of_checkpoints import load_agent
from tdmpc_ray.rllib.learning.start_networks import read_networks
from tdmpc_ray.studies.file.files import STUDY_FILE, TRACKING_FOLDER
from tdmpc_ray.studies.file.load import make_study
from tdmpc_ray.studies.file.tune_folder import TUNE_FOLDER
from tdmpc_ray.studies.models.best_checkpoint import best_checkpoint, best_of_trials, files_of_best
from tdmpc_ray.studies.models.model_files import write_model, write_slim
from tdmpc_ray.studies.models.register import log_best_models, register
from tdmpc_ray.studies.run.runner import run_study
from tdmpc_ray.studies.tracking.client import connect

PENDULUM = "gym:Pendulum-v1"
PAIR = "reacher-easy+walker-walk"
STEPS = 200
SETTINGS = {
    "model.mlp_dim": 16,
    "planner.num_samples": 16,
    "planner.num_elites": 4,
    "planner.num_pi_trajs": 2,
    "planner.iterations": 2,
    "data.seed_steps": 50,
    "data.utd_ratio": 0.1,
}


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(tmp_path_factory.mktemp("pendulum"), PENDULUM, {"planner.num_samples": 64})


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """The folder of a real study of one trial, in MLflow beside it."""
    folder = tmp_path_factory.mktemp("study")
    shutil.copy(empty_store, folder / "mlflow.db")
    values = {
        "name": "pair",
        "task": PENDULUM,
        "model_sizes": ["tiny"],
        "steps": STEPS,
        "set": SETTINGS,
        "evaluation": {"every": 50, "episodes": 1},
        "checkpoint": {"every": 50, "keep": 3},
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db", "experiment": "exp"},
    }
    result = run_study(make_study(values), folder / "out", console=Console(quiet=True))
    assert result.finished == 1
    return folder / "out"


def test_a_model_decides_as_evaluate_does(pendulum: Path, tmp_path: Path) -> None:
    write_model(pendulum, tmp_path / "model")
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    obs = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    first = np.array([True])
    for settings, params in (({}, {}), ({"planner.method": "policy"}, {"method": "policy"})):
        rows = [load_agent(pendulum, 0, settings).act(row[None], first)[0] for row in obs]
        np.testing.assert_allclose(model.predict(obs, params=params), rows, atol=1e-5)
    assert not np.array_equal(model.predict(obs), model.predict(obs, params={"seed": 1}))


def test_a_plan_goes_in_and_comes_out(pendulum: Path, tmp_path: Path) -> None:
    write_model(pendulum, tmp_path / "model")
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    obs = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    planned = model.predict(obs, params={"with_plan": True})
    assert planned["plan_mean"].shape == (2, 3, 1)
    warm = model.predict(obs, params={"prev_mean": planned["plan_mean"].ravel().tolist()})
    assert not np.allclose(warm, planned["action"])
    np.testing.assert_array_equal(model.predict(obs), planned["action"])
    with pytest.raises(UserError, match=r"prev_mean has 2 numbers, \(2, 3, 1\) are needed"):
        model.predict(obs, params={"prev_mean": [0.0, 1.0]})


def test_an_episode_is_played_as_by_evaluate(pendulum: Path, tmp_path: Path) -> None:
    write_slim(pendulum, tmp_path)
    agent, evaluated = read_agent(tmp_path, seed=3), load_agent(pendulum, 3)
    generator, plan, is_first = agent.generator(), agent.no_plan(1), np.array([True])
    mine, theirs = make_env(PENDULUM, seed=0), make_env(PENDULUM, seed=0)
    obs, _ = mine.reset()
    other_obs, _ = theirs.reset()
    returns = np.zeros(2)
    for _ in range(40):
        action, plan = agent.decide(torch.as_tensor(obs)[None], plan, [agent.noise(generator)])
        obs, reward, *_ = mine.step(action[0].numpy())
        other_obs, other_reward, *_ = theirs.step(evaluated.act(other_obs[None], is_first)[0])
        is_first[:] = False
        returns += float(reward), float(other_reward)
    assert returns[0] == pytest.approx(returns[1], rel=1e-3)


def test_a_folder_holds_weights_and_json_alone(pendulum: Path, tmp_path: Path) -> None:
    write_slim(pendulum, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {DESCRIPTION_FILE, WEIGHTS_FILE}
    assert json.loads((tmp_path / DESCRIPTION_FILE).read_text())["task"] == PENDULUM
    weights = torch.load(tmp_path / WEIGHTS_FILE, weights_only=True)
    assert not any("target_q" in name for name in weights)
    (tmp_path / WEIGHTS_FILE).write_bytes(b"torn")
    with pytest.raises(UserError, match="no agent can be read from"):
        read_agent(tmp_path)
    with pytest.raises(UserError, match=r"not 'update\.lr'"):
        read_agent(tmp_path, settings={"update.lr": 1})


def test_a_set_of_tasks(tmp_path: Path, tiny_overrides: dict[str, object]) -> None:
    random_checkpoint(tmp_path / "checkpoint", PAIR, tiny_overrides)
    write_model(tmp_path / "checkpoint", tmp_path / "model")
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    agent = load_agent(tmp_path / "checkpoint", 0)
    for task, obs_dim, action_dim in (("reacher-easy", 6, 2), ("walker-walk", 24, 6)):
        obs = np.random.default_rng(0).normal(size=(1, obs_dim)).astype(np.float32)
        action = model.predict(obs, params={"task": task})
        agent._module.seed(0)
        np.testing.assert_allclose(action, agent.act(obs, np.array([True]), task), atol=1e-5)
        assert action.shape == (1, action_dim)
    with pytest.raises(UserError, match="say which task: this agent knows reacher-easy, walker-walk"):
        model.predict(obs)
    with pytest.raises(UserError, match=r"shape \(1, 24\) where this agent needs \(N, 6,\)"):
        model.predict(obs, params={"task": "reacher-easy"})


def test_an_agent_that_sees_images(tmp_path: Path, tiny_overrides: dict[str, object]) -> None:
    path = random_checkpoint(tmp_path / "checkpoint", "reacher-easy", tiny_overrides, obs="rgb")
    write_model(path, tmp_path / "model")
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    obs = np.random.default_rng(0).integers(0, 256, (2, 9, 64, 64)).astype(np.uint8)
    expected = load_agent(path, 0).act(obs[:1], np.array([True]))
    np.testing.assert_allclose(model.predict(obs)[:1], expected, atol=1e-5)


def test_a_study_at_an_address_is_used_as_one_on_a_disk(
    study: Path,
    bucket: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    filesystem, folder = FileSystem.from_uri(bucket.format("/models/pair"))
    for name in (STUDY_FILE, TRACKING_FOLDER, TUNE_FOLDER):
        copy_files(str(study / name), f"{folder}/{name}", destination_filesystem=filesystem)
    address, best = bucket.format("/models/pair"), best_checkpoint(study)
    trial = f"tune/{best.path.parent.name}"
    monkeypatch.setattr("tdmpc_ray.rllib.checkpoints.at_hand._SMALL", 5000)
    with at_hand(address, files_of_best, STUDY_FILE) as local:
        found = best_checkpoint(local)
        assert (found.name, found.score, found.trial_id) == (best.name, best.score, best.trial_id)
        assert not list(local.rglob("replay"))
        for file in filter(Path.is_file, best.path.rglob("*")):
            assert (found.path / file.relative_to(best.path)).read_bytes() == file.read_bytes()
        for checkpoint in {*found.path.parent.glob("checkpoint_*")} - {found.path}:
            assert (checkpoint / MODULE / "module_state.pkl").stat().st_blocks == 0, "nobody needs it"
    deep = bucket.format(f"/models/pair/{trial}/{best.path.name}")
    assert cli.main(["evaluate", deep, "--episodes", "1", "--seed", "3"]) == 0
    played = capsys.readouterr().out
    assert cli.main(["evaluate", str(best.path), "--episodes", "1", "--seed", "3"]) == 0
    assert capsys.readouterr().out == played
    own, other = read_networks(best.path).state, read_networks(deep).state
    assert all(torch.equal(own[key], other[key]) for key in own)
    ours = register(deep, "by-address")
    assert ours.run_id == register(study, "by-path").run_id, "both are the trial's"
    assert log_best_models(address, say=print) == (1, 0)
    with pytest.raises(UserError, match=r"no checkpoint in s3://bucket/models/pair/mlflow: "):
        load_agent(bucket.format("/models/pair/mlflow"))
    with pytest.raises(UserError, match=r"^nothing lies at s3://bucket/models/none"):
        load_agent(bucket.format("/models/none"))
    path = f"{folder}/{trial}/{best.path.name}/{MODULE}/module_state.pkl"
    with filesystem.open_output_stream(path) as stream:
        stream.write(b"torn")
    with pytest.raises(UserError, match=rf"s3://bucket/models/pair/{trial}/.*module_state.pkl is damaged"):
        load_agent(deep)


def test_a_run_is_registered_by_its_best_checkpoint(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = {p.parents[4] for p in study.rglob(str(MODULE / "metadata.json"))}
    assert len(kept) == 3
    best = best_checkpoint(study)
    assert best.score == max(best_checkpoint(path).score for path in kept)  # type: ignore[type-var]
    assert (best.metric, best.out, best_of_trials(study)) == ("eval/return", study, [best])

    for _ in range(2):
        assert log_best_models(study, say=pytest.fail) == (1, 0)
    client = connect(f"sqlite:///{study.parent}/mlflow.db")
    experiment = client.get_experiment_by_name("exp").experiment_id
    (model,) = client.search_logged_models([experiment])
    runs = client.search_runs([experiment])
    (trial,) = (run for run in runs if run.data.tags["kind"] == "trial")
    assert model.source_run_id == trial.info.run_id
    assert {run.info.status for run in runs} == {"FINISHED"}

    for version in (1, 2):
        assert cli.main(["register", str(study), "--name", "pend", "--alias", "champion"]) == 0
        printed = capsys.readouterr().out
        assert f"checkpoint: {best}" in printed
        assert f"registered: pend, version {version}, alias champion; run {trial.info.run_id}" in printed
    assert len(client.search_logged_models([experiment])) == 1
    loaded: dict[str, Any] = {}
    exec("\n".join(["import mlflow", *(line.strip() for line in printed.splitlines()[-2:])]), loaded)
    assert 'load_model("models:/pend@champion")' in printed
    obs = np.zeros((1, 3), np.float32)
    expected = load_agent(best.path, 0).act(obs, np.array([True]))
    np.testing.assert_allclose(loaded["model"].predict(obs), expected, atol=1e-5)


def test_the_best_trial_of_a_study(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "out")
    (trial,) = (tmp_path / "out/tune").glob("size*")
    other = trial.with_name("sizetiny-seed7-other")
    shutil.copytree(trial, other)
    for number, path in enumerate(sorted(other.glob("checkpoint_*"))):
        state = pickle.loads((path / "algorithm_state.pkl").read_bytes())
        own = state["tdmpc_ray"]
        own["evaluations"] = {own["saved_at"]: {"eval/return": 5.0 - number}}
        (path / "algorithm_state.pkl").write_bytes(pickle.dumps(state))
        seal(path)
    best = best_checkpoint(tmp_path / "out")
    assert (best.trial, best.trial_id, best.score) == (other.name, "other", 5.0)
    assert [found.trial for found in best_of_trials(tmp_path / "out")] == [trial.name, other.name]
    (best.path / MANIFEST).unlink()  # as if it had been killed while it was written
    assert best_checkpoint(tmp_path / "out").score == 4.0

    said: list[str] = []
    assert log_best_models(tmp_path / "out", say=said.append) == (1, 1)
    assert said[0].startswith("note: 1 of 2 models logged (MLflow has no run of sizetiny-seed7-other: bring")


def test_an_evaluation_that_is_not_a_number_is_no_best_one(
    study: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(study, tmp_path / "out")
    kept = sorted((tmp_path / "out/tune").glob("size*/checkpoint_*"))
    for path, value in zip(kept, (1.0, float("nan"), 3.0), strict=True):
        state = pickle.loads((path / "algorithm_state.pkl").read_bytes())
        own = state["tdmpc_ray"]
        own["evaluations"] = {own["saved_at"]: {"eval/return": value}}
        (path / "algorithm_state.pkl").write_bytes(pickle.dumps(state))
        seal(path)
    assert best_checkpoint(tmp_path / "out").score == 3.0
    (kept[2] / "algorithm_state.pkl").write_bytes(b"torn")
    assert best_checkpoint(tmp_path / "out").score == 1.0
    assert f"{kept[2]}/algorithm_state.pkl is damaged" in caplog.text
    for path in kept[:2]:
        (path / "algorithm_state.pkl").write_bytes(b"torn")
    with pytest.raises(UserError, match="is damaged"):
        best_checkpoint(tmp_path / "out")


def test_a_checkpoint_has_no_score_of_networks_far_before_it(study: Path, tmp_path: Path) -> None:
    """As where a run was stopped after an evaluation, whose checkpoint has been dropped since."""
    shutil.copytree(study, tmp_path / "out")
    kept = sorted((tmp_path / "out/tune").glob("size*/checkpoint_*"))

    def say(path: Path, **changes: Any) -> None:
        state = pickle.loads((path / "algorithm_state.pkl").read_bytes())
        state["tdmpc_ray"] |= changes
        (path / "algorithm_state.pkl").write_bytes(pickle.dumps(state))
        seal(path)

    for path in kept:
        say(path, eval_every=400, saved_at=1400, evaluations={1200: {"eval/return": 216.0}})
    best = best_checkpoint(kept[0])
    assert (best.score, str(best)) == (None, f"{kept[0].parent.name}/{kept[0].name} (not evaluated)")
    # It was made up for after a restart, as a later checkpoint knows.
    say(kept[2], evaluations={1200: {"eval/return": 216.0}, 1400: {"eval/return": 170.0}})
    assert [best.score for best in best_of_trials(tmp_path / "out")] == [170.0]
    say(kept[1], saved_at=1290)
    assert best_checkpoint(tmp_path / "out").score == 216.0
    # A later one that goes on from the networks of another member of a population knows nothing of this one.
    say(kept[0], saved_at=5000, evaluations={5000: {"eval/return": 100.0}})
    say(kept[1], saved_at=5000, evaluations={})
    say(kept[2], saved_at=6000, evaluations={5000: {"eval/return": 900.0}, 6000: {"eval/return": 500.0}})
    assert best_checkpoint(kept[0]).score == 100.0


def test_without_mlflow_a_study_says_what_to_do(study: Path) -> None:
    said: list[str] = []
    assert log_best_models(study, uri="http://127.0.0.1:9", say=said.append) == (0, 1)
    (line,) = said
    assert "0 of 1 model logged (MLflow at http://127.0.0.1:9 cannot be used" in line
    assert "log-models" in line
    assert cli.main(["log-models", str(study), "--mlflow-uri", "http://127.0.0.1:9"]) == 1


def test_a_checkpoint_of_no_study_gets_a_run_of_its_own(pendulum: Path, server: Any) -> None:
    done = register(pendulum, "alone", None, server.uri)
    again = register(pendulum, "alone", "best", server.uri)
    assert (done.version, again.version, done.run_id) == ("1", "2", again.run_id)
    client = connect(server.uri)
    assert client.get_run(done.run_id).data.tags["kind"] == "model"
    mlflow.set_tracking_uri(server.uri)
    model = mlflow.pyfunc.load_model("models:/alone@best")
    assert model.predict(np.zeros((4, 3), np.float32)).shape == (4, 1)


@pytest.mark.parametrize(
    ("name", "alias", "problem"),
    [
        ("a/b", None, "'a/b' cannot name a model"),
        ("a", "v3", "'v3' cannot be an alias"),
        ("a", "latest", "'latest' cannot be an alias"),
    ],
)
def test_names_that_mlflow_refuses(pendulum: Path, name: str, alias: str | None, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        register(pendulum, name, alias, "http://127.0.0.1:9")
