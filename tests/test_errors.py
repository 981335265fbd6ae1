"""The one line that an error is told in."""

import logging
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from tdmpc_ray.errors import described, reason
from tdmpc_ray.noise import quiet_jobs


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    try:
        raise error from cause
    except Exception as caught:
        return caught


REMOTE = """ray::AgentLearner.apply() (pid=12, ip=10.0.0.1)
  File "learner.py", line 3, in apply
    raise ValueError("no room")
    ^^^^^^^^^^^^^^^^^^^^^^^^^^^
ValueError: no room
"""


class Model(BaseModel):
    steps: int
    seeds: list[int]


def refused(call: Callable[..., Any], *args: Any) -> Exception:
    try:
        call(*args)
    except Exception as error:
        return error
    raise AssertionError


INVALID = refused(Model.model_validate, {"steps": "many", "seeds": [0, "one"]})
UNCLOSED = refused(yaml.safe_load, "a: [1\n")
UNFINISHED_KEY = refused(yaml.safe_load, "a: 1\nb\nc: 2\n")
COLOURED = "\x1b[36mray::f()\x1b[39m (pid=12)\n"
PYDANTIC = (
    "2 validation errors for Model: steps: "
    "Input should be a valid integer, unable to parse string as an integer"
)
IN_YAML = "while parsing a flow sequence: expected ',' or ']', but got '<stream end>'"


def traced(error: Exception) -> RuntimeError:
    """As Ray brings it from another process."""
    return RuntimeError(COLOURED + "".join(traceback.format_exception(error)))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (INVALID, PYDANTIC),
        (traced(INVALID), f"pydantic_core._pydantic_core.ValidationError: {PYDANTIC}"),
        (UNCLOSED, IN_YAML),
        (traced(UNCLOSED), f"yaml.parser.ParserError: {IN_YAML}"),
        (UNFINISHED_KEY, "while scanning a simple key: could not find expected ':'"),
        (RuntimeError(f"{COLOURED}ValueError: bad"), "ValueError: bad"),
        (RuntimeError(f"{COLOURED}  at work\nmodule.DeadError: gone\nmore"), "module.DeadError: gone"),
        (RuntimeError(COLOURED), "ray::f() (pid=12)"),
        (RuntimeError("Traceback (most recent call last):\nOSError: no disk"), "OSError: no disk"),
        (RuntimeError("\x1b[1;31mtoo large\x1b[0m"), "too large"),
        (RuntimeError("cannot draw\nOSError: no display"), "cannot draw"),
        (RuntimeError("stopped while writing a file\nmore"), "stopped while writing a file"),
        (ValueError("\n  too large \nsee the manual"), "too large"),
        (
            RuntimeError("Error(s) in loading Net:\n\tMissing key(s): a"),
            "Error(s) in loading Net: Missing key(s): a",
        ),
        (RuntimeError(REMOTE), "ValueError: no room"),
        (RuntimeError('  File "torn.py", line 3'), 'File "torn.py", line 3'),
        (KeyError("goal"), "KeyError: 'goal'"),
        (AssertionError(), "AssertionError"),
        (raised(RuntimeError("cannot draw."), OSError("no display")), "cannot draw: no display"),
        (raised(RuntimeError("cannot draw: no display"), OSError("no display")), "cannot draw: no display"),
        (raised(RuntimeError(), OSError("no display")), "no display"),
        (raised(RuntimeError("a"), raised(ValueError("b"), KeyError("c"))), "a: b: KeyError: 'c'"),
    ],
)
def test_the_line_that_says_something_is_kept(error: Exception, line: str) -> None:
    assert reason(error) == line


def test_an_error_without_words_tells_what_it_arose_from() -> None:
    error = AssertionError()
    error.__context__ = OSError("no display")
    assert reason(error) == "no display"


def test_the_kind_is_told_once() -> None:
    assert described(ValueError("too large")) == "ValueError: too large"
    assert described(KeyError("goal")) == "KeyError: 'goal'"
    assert described(AssertionError()) == "AssertionError"


def test_rays_client_for_jobs_is_quiet_though_it_turns_itself_up() -> None:
    quiet_jobs()
    for part in ("dashboard_sdk", "job.sdk"):
        logger = logging.getLogger(f"ray.dashboard.modules.{part}")
        assert not logger.isEnabledFor(logging.WARNING), part
