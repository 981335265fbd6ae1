"""How a study ends: its exit status, and the command that opens its results."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from tdmpc_ray.studies.run import interrupt
from tdmpc_ray.studies.run.outcome import Outcome, StudyResult, error_reason, is_final
from tdmpc_ray.studies.words import mlflow_command


def test_a_stop_before_every_trial_was_created_leaves_the_rest_unfinished() -> None:
    done = SimpleNamespace(
        status="TERMINATED", last_result={"done": True}, checkpoint=None, config={}, trial_id="a"
    )
    outcome = Outcome(dict)
    outcome.on_experiment_end([done])
    request = interrupt.StopRequest()
    request.signum = signal.SIGINT
    result = outcome.result(Path(), request, expected=3)
    assert (result.finished, result.unfinished, result.exit_status) == (1, 2, 130)
    assert outcome.result(Path(), request, expected=1).exit_status == 0


@pytest.mark.parametrize(("signum", "status"), [(None, 0), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_exit_status(signum: int | None, status: int) -> None:
    result = StudyResult(Path(), finished=0, failed=(), unfinished=1, signum=signum, checkpoints={})
    assert result.exit_status == status


@pytest.mark.parametrize(
    ("uri", "command"),
    [
        ("http://tracking:5000", "http://tracking:5000"),
        ("sqlite:////data/runs.db", "mlflow ui --backend-store-uri sqlite:////data/runs.db"),
        ("sqlite:///runs.db", "mlflow ui --backend-store-uri sqlite:///runs.db"),
        ("postgresql+psycopg2://db/x", "mlflow ui --backend-store-uri postgresql+psycopg2://db/x"),
    ],
)
def test_the_command_that_opens_mlflow(uri: str, command: str) -> None:
    assert mlflow_command(uri).endswith(command)


@pytest.mark.parametrize("kind", ["tdmpc_ray.errors.UserError", "tdmpc_ray.envs.contract.EnvFaultError"])
def test_an_error_of_the_user_is_its_message_alone(kind: str) -> None:
    text = f'Failure # 1 (occurred at today)\nray::TDMPC2\n  File "x.py", line 1\n{kind}: mend it\n'
    assert error_reason(text) == "mend it"
    assert error_reason(text.replace(kind, "ValueError")) == "ValueError: mend it"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("tdmpc_ray.errors.UserError", True),
        ("tdmpc_ray.envs.layout.UnsupportedSpacesError", True),
        ("tdmpc_ray.envs.contract.EnvFaultError", False),
        ("tdmpc_ray.errors.PassingError", False),
        ("tdmpc_ray.datasets.chunk_store.DamagedCheckpoint", False),
        ("ValueError", False),
    ],
)
def test_what_the_user_alone_can_mend_is_final(kind: str, expected: bool) -> None:
    first = "Failure # 1 (occurred at today)\nValueError: another\n"
    again = f'Failure # 2 (occurred at today)\nray::TDMPC2\n  File "x.py", line 1\n{kind}: mend it\n'
    assert is_final(first + again) == expected
    assert not is_final(again + first.replace("# 1", "# 3"))
    assert not is_final("")
