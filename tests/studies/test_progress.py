"""The progress table: what it shows, how it ends, what it prints without a terminal."""

from __future__ import annotations

import io
import pickle
import re
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from tdmpc_ray.rllib.loop.pace import Pace
from tdmpc_ray.rllib.metrics import activity
from tdmpc_ray.studies.run import progress as progress_module
from tdmpc_ray.studies.run.progress import ProgressTable, TrialRow


def terminal(height: int = 30) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=110, height=height, color_system=None)


def shown(progress: ProgressTable, console: Console) -> str:
    with console.capture() as capture:
        console.print(progress.table())
    return capture.get()


@pytest.fixture
def pipe() -> Console:
    return Console(file=io.StringIO(), width=200)


def params(config: dict[str, Any]) -> dict[str, Any]:
    return {"model_size": config["size"], "seed": config["seed"]}


def test_a_row_shows_returns_steps_speed_and_time_left(drive: Any) -> None:
    console = terminal()
    progress = ProgressTable(trial_params=params, console=console)
    calls = drive(progress)
    first, second = (
        drive.trial("a", size="1", seed=0, total_steps=10_000),
        drive.trial("b", size="5", seed=1, total_steps=10_000),
    )
    calls.trials += [first, second]
    calls.start(first)
    calls.result(first, 1000, seconds=20.0, train__return=30.0)
    calls.result(first, 2000, seconds=120.0, train__return=33.3, eval__return=194.25)
    calls.result(first, 3000, seconds=220.0, train__return=40.0)
    lines = [re.split(r"\s{2,}", line.strip()) for line in shown(progress, console).splitlines()]
    heads = ["trial", "status", "eval return", "train return", "steps", "steps/s", "left", "elapsed"]
    assert lines[0] == heads
    assert lines[1] == [
        "size=1 seed=0",
        "running",
        "194.2",
        "40.0",
        "3,000/10,000",
        "10.0",
        "11m 40s",
        "3m 40s",
    ]
    assert lines[2] == ["size=5 seed=1", "waiting", "0/10,000"]


def test_the_status_keeps_its_room_on_a_narrow_terminal(drive: Any) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    progress = ProgressTable(trial_params=params, console=console)
    calls = drive(progress)
    calls.trials += [drive.trial("a", size="tiny", seed=0, total_steps=4000)]
    calls.start(calls.trials[0])
    calls.result(calls.trials[0], 2500, seconds=20.0, train__return=30.0)
    progress._rows["a"].updates_first = 2200
    head, row = shown(progress, console).splitlines()
    assert "2,200 updates to go" in row
    assert all(word in head for word in ("status", "eval return", "steps", "left"))
    assert "elapsed" not in head


def test_statuses_at_the_end(drive: Any) -> None:
    console = terminal()
    progress = ProgressTable(trial_params=params, console=console)
    progress.setup(total_num_samples=3)
    calls = drive(progress)
    for seed, name in enumerate("abc"):
        calls.start(drive.trial(name, size="1", seed=seed, total_steps=100))
    calls.complete(calls.trials[0])
    calls.error(calls.trials[1])
    calls.end()
    rows = dict(re.findall(r"(seed=\d)\s+(\w+)", shown(progress, console)))
    assert rows == {"seed=0": "done", "seed=1": "failed", "seed=2": "stopped"}


@pytest.mark.parametrize("ending", ["end", "close"])
def test_the_terminal_gets_its_cursor_back(drive: Any, ending: str) -> None:
    console = terminal()
    progress = ProgressTable(console=console)
    progress.setup()
    calls = drive(progress)
    calls.start(drive.trial("a"))
    calls.end() if ending == "end" else progress.close()
    progress.close()  # once more, as at exit
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") == 1
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")


def test_many_trials_fit_on_the_screen(drive: Any) -> None:
    console = terminal(height=12)
    progress = ProgressTable(trial_params=params, console=console)
    progress.setup(total_num_samples=200)
    progress.close()
    calls = drive(progress)
    for index in range(60):
        trial = drive.trial(str(index), size="1", seed=index)
        calls.start(trial)
        if index < 50:
            calls.complete(trial)
    text = shown(progress, console)
    assert len(text.splitlines()) <= 12
    assert text.count("running") >= 8
    assert "140 waiting" in text
    assert "50 done" in text


def test_without_a_terminal_lines_are_sparse(drive: Any, pipe: Console) -> None:
    progress = ProgressTable(trial_params=params, console=pipe)
    progress.setup()
    calls = drive(progress)
    trial = drive.trial("a", size="1", seed=0, total_steps=1000)
    calls.start(trial)
    for step in range(10, 510, 10):
        calls.result(trial, step, seconds=step / 10, train__return=5.0)
    calls.result(trial, 510, seconds=51.0, eval__return=77.0)
    calls.complete(trial)
    calls.end()
    assert pipe.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "size=1 seed=0: starting",
        "size=1 seed=0: 10/1,000 steps, train return 5.0",
        "size=1 seed=0: 510/1,000 steps, eval return 77.0, train return 5.0, 10.0 steps/s, 49s left",
        "size=1 seed=0: done after 510 steps, 51s",
    ]


def test_lines_come_at_intervals(drive: Any, pipe: Console) -> None:
    progress = ProgressTable(trial_params=params, console=pipe, interval_s=0.0)
    calls = drive(progress)
    trial = drive.trial("a", size="1", seed=0, total_steps=1000)
    calls.start(trial)
    for step in (10, 20, 30):
        calls.result(trial, step)
    assert len(pipe.file.getvalue().splitlines()) == 1 + 3  # type: ignore[attr-defined]


def test_updates_that_catch_up_with_the_random_steps(drive: Any, pipe: Console) -> None:
    progress = ProgressTable(trial_params=params, console=pipe, interval_s=0.0)
    calls = drive(progress)
    trial = drive.trial("a", size="1", seed=0, total_steps=1000)
    calls.start(trial)
    calls.result(trial, 500, catching_up=500)
    assert "500 updates to go" in shown(progress, pipe)
    calls.result(trial, 500, catching_up=0)
    assert pipe.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "size=1 seed=0: starting",
        "size=1 seed=0: 500/1,000 steps, 500 updates to go",
        "size=1 seed=0: 500/1,000 steps",
    ]


def test_the_time_left_does_not_count_catching_up() -> None:
    row = TrialRow("x", 1000, status="running")
    for seconds, steps, owed in [(1, 500, 500), (900, 500, 1), (1000, 500, 0)]:
        row.update({"env_steps": steps, "time_total_s": float(seconds), "catching_up": owed})
        assert row.seconds_left is None
    row.update({"env_steps": 600, "time_total_s": 1010.0, "catching_up": 0})
    assert row.seconds_left == pytest.approx(40.0)
    row.update({"env_steps": 0, "time_total_s": 1020.0, "cloning": 300})
    assert (row.activity, row.seconds_left) == ("cloning, 300 updates to go", None)


def test_updates_that_are_always_owed_with_runners_hide_no_speed() -> None:
    pace, row = Pace(1.0, seed_steps=500, lead=100), TrialRow("x", 3000, status="running")
    pace.add_steps(500)
    said = []
    for second in range(5):
        result = {"env_steps": pace.env_steps, "catching_up": pace.catching_up()}
        row.update({**result, "time_total_s": float(second)})
        said.append((row.activity, row.seconds_left))
        pace.grad_updates += 250
        pace.add_steps(250 if pace.grad_updates >= 500 else 0)
    assert pace.updates_owed() > 0
    assert [word for word, _ in said] == ["500 updates to go", "250 updates to go", *["running"] * 3]
    assert said[-1][1] == pytest.approx((3000 - 1250) / 250)


def test_what_keeps_a_trial_from_reporting_is_its_status(
    drive: Any, pipe: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: dict[bytes, bytes] = {}
    for name, call in {
        "initialized": lambda: True,
        "put": store.__setitem__,
        "del": lambda key, del_by_prefix=False: [store.pop(k) for k in [*store] if k.startswith(key)],
        "list": lambda prefix: [key for key in store if key.startswith(prefix)],
    }.items():
        monkeypatch.setattr(activity, f"_internal_kv_{name}", call)
    monkeypatch.setattr(activity, "_prefix", lambda: "job/")
    monkeypatch.setattr(progress_module, "_LOOK_EVERY_S", 0.0)
    progress = ProgressTable(trial_params=params, console=pipe, interval_s=0.0)
    calls = drive(progress)
    trial, other = (drive.trial(name, size="1", seed=seed) for seed, name in enumerate(("a", "b")))
    calls.start(trial)
    calls.start(other)

    def activity_of_both() -> list[str]:
        progress.on_step_end(0, calls.trials)
        return [progress._row(one).activity for one in (trial, other)]

    with activity.doing("a", "saving"):
        assert activity_of_both() == ["saving", "running"]
        with activity.doing("a", "filming"), activity.doing("b", "evaluating"):
            assert activity_of_both() == ["filming", "evaluating"]
    assert activity_of_both() == ["running", "running"]
    assert "size=1 seed=1: 0 steps, evaluating" in pipe.file.getvalue()  # type: ignore[attr-defined]
    store[b"job/a/evaluating"] = b"1"  # of a process that was killed
    calls.start(trial)
    assert activity_of_both() == ["running", "running"]


def test_it_survives_a_restore(drive: Any) -> None:
    progress = ProgressTable(trial_params=params, console=terminal())
    calls = drive(progress)
    done, killed = (
        drive.trial("a", size="1", seed=0, total_steps=1000),
        drive.trial("b", size="1", seed=1, total_steps=1000),
    )
    for trial in (done, killed):
        calls.start(trial)
        calls.result(trial, 500, eval__return=9.0)
    calls.complete(done)
    calls.end()
    state = pickle.loads(pickle.dumps(progress.get_state()))
    again: ProgressTable = pickle.loads(pickle.dumps(progress))
    again.set_state(state)
    console = terminal()
    again._console = console
    rows = dict(re.findall(r"(seed=\d)\s+(\w+)", shown(again, console)))
    assert rows == {"seed=0": "done", "seed=1": "waiting"}
    assert shown(again, console).count("500/1,000") == 2


def test_speed_follows_recent_results_and_rewinds() -> None:
    row = TrialRow("x", 1000, status="running")
    for second in range(100):
        row.update({"env_steps": 100 * second, "time_total_s": float(second)})
    for second in range(30):
        row.update({"env_steps": 9900 + 10 * second, "time_total_s": 99.0 + second})
    assert row.steps_per_s == pytest.approx(10.0)
    row.update({"env_steps": 50, "time_total_s": 200.0})  # PBT goes on from another trial's checkpoint
    assert row.steps_per_s is None
    assert row.seconds_left is None


def test_trials_without_parameters_bear_tunes_name(drive: Any) -> None:
    console = terminal()
    progress = ProgressTable(console=console)

    class Trial(SimpleNamespace):
        def __str__(self) -> str:
            return "TDMPC2_0001"

    drive(progress).start(Trial(trial_id="a", config={}))
    assert "TDMPC2_0001" in shown(progress, console)


def test_what_a_trial_has_to_say_is_printed(drive: Any, pipe: Console) -> None:
    progress = ProgressTable(trial_params=dict, console=pipe)
    calls = drive(progress)
    trial = drive.trial("a", seed=3)
    calls.start(trial)
    progress.on_trial_result(0, [trial], trial, {"env_steps": 5, "notes": ["no [checkpoint] at 5 steps"]})
    assert "seed=3: no [checkpoint] at 5 steps\n" in pipe.file.getvalue()  # type: ignore[attr-defined]


def test_success_is_shown_where_tasks_tell_it(drive: Any, pipe: Console) -> None:
    progress = ProgressTable(trial_params=params, console=pipe)
    calls = drive(progress)
    reach, walk = (drive.trial(name, size="1", seed=seed) for seed, name in enumerate("ab"))
    calls.trials += [reach, walk]
    calls.start(reach)
    calls.result(walk, 100, eval__return=7.0)
    assert "success" not in shown(progress, pipe)
    calls.result(reach, 100, eval__return=150.0, eval__success=0.8)
    assert "eval return 150.0, success 80%" in pipe.file.getvalue()  # type: ignore[attr-defined]
    header, first, second = shown(progress, pipe).splitlines()
    assert "eval return  success  train return" in re.sub(" {3,}", "  ", header)
    assert ("80%" in first, "80%" in second) == (True, False)
