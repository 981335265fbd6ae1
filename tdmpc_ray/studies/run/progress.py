"""A live table of a study's trials on a terminal; sparse lines where there is none."""

from __future__ import annotations

import atexit
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray import tune
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tdmpc_ray.studies.run.outcome import failure
from tdmpc_ray.studies.tracking.naming import trial_label

_STYLES = {"waiting": "dim", "running": "cyan", "done": "green", "failed": "bold red", "stopped": "yellow"}
_ORDER = ("running", "failed", "stopped", "done", "waiting")
_WINDOW = 20  # results over which the speed is taken
_COLUMNS = ("eval return", "success", "train return", "steps", "steps/s", "left", "elapsed")
# How wide a terminal has to be for some: the status has to stay.
_WIDTHS = {"train return": 104, "steps/s": 90, "elapsed": 110}
_LOOK_EVERY_S = 1.0  # for what trials are about between two results


@dataclass
class TrialRow:
    """What the table shows of one trial."""

    name: str
    total_steps: int | None = None
    status: str = "waiting"
    env_steps: int = 0
    eval_return: float | None = None
    eval_success: float | None = None  # of tasks that are judged by it
    train_return: float | None = None
    elapsed_s: float = 0.0
    is_cloning: bool = False  # demonstrations
    updates_first: int = 0  # of cloning, or for the random steps, that are to go
    doing: str = ""  # beside training, see `rllib.activity`
    recent: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    printed_at: float = float("-inf")
    heard_at: float = float("-inf")  # by the monotonic clock, of its last result

    def update(self, result: Mapping[str, Any]) -> bool:
        """Take in a result of Tune; True if it held an evaluation."""
        report = result.get("report") or {}
        self.heard_at, self.doing = time.monotonic(), ""
        self.env_steps = int(result.get("env_steps", self.env_steps))
        self.elapsed_s = float(result.get("time_total_s", self.elapsed_s))
        self.is_cloning = bool(result.get("cloning"))
        self.updates_first = int(result.get("cloning") or result.get("catching_up", 0))
        self.train_return = report.get("train/return", self.train_return)
        self.eval_return = report.get("eval/return", self.eval_return)
        self.eval_success = report.get("eval/success", self.eval_success)
        went_back = self.recent and self.env_steps < self.recent[-1][1]  # to an older checkpoint
        # Cloning, and catching up with the random steps, tell nothing about the rest.
        if went_back or self.updates_first:
            self.recent.clear()
        if not self.updates_first:
            self.recent.append((self.elapsed_s, self.env_steps))
        return "eval/return" in report

    @property
    def activity(self) -> str:
        """The status; of a running trial, what else it is about."""
        if self.status != "running" or self.doing or not self.updates_first:
            return (self.status == "running" and self.doing) or self.status
        return f"{'cloning, ' if self.is_cloning else ''}{self.updates_first:,} updates to go"

    @property
    def steps(self) -> str:
        """Agent steps, `500/1,000`."""
        return f"{self.env_steps:,}" + ("" if self.total_steps is None else f"/{self.total_steps:,}")

    @property
    def steps_per_s(self) -> float | None:
        """Agent steps per second over the last results; None before there are two."""
        if len(self.recent) < 2:
            return None
        (start, first), (end, last) = self.recent[0], self.recent[-1]
        return (last - first) / (end - start) if end > start else None

    @property
    def elapsed_now(self) -> float:
        """Seconds that it has run, those since its last result included; 0 before the first."""
        goes_on = self.elapsed_s > 0 and self.status == "running"
        return self.elapsed_s + (time.monotonic() - self.heard_at if goes_on else 0.0)

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the last step at the recent speed; None while unknown or not running."""
        speed = self.steps_per_s
        if self.status != "running" or not speed or self.total_steps is None:
            return None
        return max(self.total_steps - self.env_steps, 0) / speed


class ProgressTable(tune.Callback):
    """Shows one row per trial: returns, steps, speed and time left.

    Args:
        trial_params: a trial's config to its parameters, which name the row; None: Tune's own name.
        console: where to print; None: standard output.
        interval_s: without a terminal, seconds between two lines of one trial (evaluations always print).
    """

    def __init__(
        self,
        *,
        trial_params: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
        console: Console | None = None,
        interval_s: float = 20.0,
    ) -> None:
        self._trial_params = trial_params
        self._console = console
        self._interval_s = interval_s
        self._rows: dict[str, TrialRow] = {}
        self._live: Live | None = None
        self._expected: int | None = None
        self._looked_at = float("-inf")

    @property
    def console(self) -> Console:
        if self._console is None:
            self._console = Console()
        return self._console

    def setup(
        self, stop: Any = None, num_samples: Any = None, total_num_samples: Any = None, **info: Any
    ) -> None:
        self._expected = total_num_samples if isinstance(total_num_samples, int) else None
        if self.console.is_terminal:
            self._live = Live(
                get_renderable=self.table, console=self.console, refresh_per_second=2, transient=False
            )
            self._live.start()
            # Live hides the cursor: give it back also where the study ends by a second Ctrl-C.
            atexit.register(self.close)

    def close(self) -> None:
        """Draw the last state and give the terminal back; once."""
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()
            atexit.unregister(self.close)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        from tdmpc_ray.rllib.metrics.activity import forget

        for other in trials:
            self._row(other)
        row = self._row(trial)
        forget(trial.trial_id)
        row.status, row.total_steps = "running", trial.config.get("total_steps")  # more than before a resume
        if self._live is None:
            self._say(f"{row.name}: starting")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        row = self._row(trial)
        for note in result.get("notes") or ():
            self.console.print(Text(f"{row.name}: {note}"), soft_wrap=True)
        evaluated = row.update(result)
        now = time.monotonic()
        if self._live is None and (evaluated or now - row.printed_at >= self._interval_s):
            self._print_line(row, evaluated)
            row.printed_at = now

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        from tdmpc_ray.rllib.metrics.activity import activities  # late: RLlib takes seconds to import

        now = time.monotonic()
        if now - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at, doing = now, activities()
        for trial_id, row in self._rows.items():
            row.doing = doing.get(trial_id, "")
            if self._live is None and row.doing and now - row.printed_at >= self._interval_s:
                self._print_line(row, evaluated=False)
                row.printed_at = now

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        row = self._row(trial)
        row.status = "waiting"
        start = "from its newest checkpoint" if trial.checkpoint else "from its beginning"
        why, _ = failure(trial)
        self.console.print(Text(f"{row.name}: failed, and starts again {start}: {why}"), soft_wrap=True)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, "done")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, "failed")

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        for row in self._rows.values():
            if row.status == "running":
                row.status = "stopped"
        self.close()

    def get_state(self) -> dict[str, Any]:
        return {"rows": dict(self._rows)}

    def set_state(self, state: dict[str, Any]) -> None:
        self._rows = dict(state["rows"])
        for row in self._rows.values():
            row.recent.clear()
            if row.status in ("running", "stopped"):
                row.status = "waiting"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_live": None, "_console": None, "_rows": {}}

    def table(self) -> Table:
        """The table as it stands, cut to the terminal's height with the running trials first."""
        table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
        table.add_column("trial", no_wrap=True)
        table.add_column("status", no_wrap=True)
        rows = sorted(self._rows.copy().values(), key=lambda row: _ORDER.index(row.status))
        with_success = any(row.eval_success is not None for row in rows)
        columns = self._columns(with_success)
        for header in columns:
            table.add_column(header, justify="right", no_wrap=True)
        room = max(self.console.size.height - 4, 3)
        for row in rows[:room]:
            table.add_row(row.name, Text(row.activity, style=_STYLES[row.status]), *self._cells(row, columns))
        hidden: dict[str, int] = {}
        for row in rows[room:]:
            hidden[row.status] = hidden.get(row.status, 0) + 1
        waiting = max((self._expected or 0) - len(rows), 0)
        if waiting:
            hidden["waiting"] = hidden.get("waiting", 0) + waiting
        if hidden:
            more = ", ".join(f"{count} {status}" for status, count in hidden.items())
            table.add_row(Text(f"and {more}", style="dim"))
        return table

    def _columns(self, with_success: bool) -> list[str]:
        """Of a row, behind its name and status; as many as leave these their room."""
        left_out = {name for name, needed in _WIDTHS.items() if self.console.size.width < needed}
        return [name for name in _COLUMNS if name not in left_out and (with_success or name != "success")]

    def _cells(self, row: TrialRow, columns: Sequence[str]) -> list[Text | str]:
        success = "" if row.eval_success is None else f"{row.eval_success:.0%}"
        cells: dict[str, Text | str] = {
            "eval return": Text(_number(row.eval_return), style="bold"),
            "success": Text(success, style="bold"),
            "train return": _number(row.train_return),
            "steps": row.steps,
            "steps/s": _number(row.steps_per_s),
            "left": _duration(row.seconds_left),
            "elapsed": _duration(row.elapsed_now) if row.elapsed_s else "",
        }
        return [cells[header] for header in columns]

    def _print_line(self, row: TrialRow, evaluated: bool) -> None:
        words = [f"{row.name}: {row.steps} steps"]
        if row.activity != "running":
            words.append(row.activity)
        if evaluated:
            words.append(f"eval return {_number(row.eval_return)}")
            if row.eval_success is not None:
                words.append(f"success {row.eval_success:.0%}")
        if row.train_return is not None:
            words.append(f"train return {_number(row.train_return)}")
        if row.steps_per_s:
            words.append(f"{_number(row.steps_per_s)} steps/s")
        left = row.seconds_left
        if left:
            words.append(f"{_duration(left)} left")
        self._say(", ".join(words))

    def _end(self, trial: Any, status: str) -> None:
        row = self._row(trial)
        row.status = status
        if self._live is None:
            # What a trial that failed took since its last result, nobody has told.
            took = f", {_duration(row.elapsed_s)}" if status == "done" else ""
            self._say(f"{row.name}: {status} after {row.env_steps:,} steps{took}")

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _row(self, trial: Any) -> TrialRow:
        if trial.trial_id not in self._rows:
            name = trial_label(self._trial_params(trial.config)) if self._trial_params else str(trial)
            self._rows[trial.trial_id] = TrialRow(name, trial.config.get("total_steps"))
        return self._rows[trial.trial_id]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}" if abs(value) < 1000 else f"{value:,.0f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"
