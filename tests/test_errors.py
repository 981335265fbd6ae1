"""The one line that an error is told in."""

import pytest

from tdmpc_ray.errors import described, reason


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    try:
        raise error from cause
    except Exception as caught:
        return caught


REMOTE = """ray::TDMPC2Learner.apply() (pid=12, ip=10.0.0.1)
  File "learner.py", line 3, in apply
    raise ValueError("no room")
    ^^^^^^^^^^^^^^^^^^^^^^^^^^^
ValueError: no room
"""


@pytest.mark.parametrize(
    ("error", "line"),
    [
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
