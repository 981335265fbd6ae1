"""Which trial of a study comes next: of the list, or with what a searcher of Tune suggests."""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
import math
import pickle
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.experiment.config_parser import _create_trial_from_spec, _make_parser
from ray.tune.search import SEARCH_ALG_IMPORT, ConcurrencyLimiter, Searcher, SearchGenerator
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.search.search_algorithm import SearchAlgorithm

from tdmpc_ray.errors import UserError, reason
from tdmpc_ray.studies.file.sections import SEARCHERS
from tdmpc_ray.studies.plan import trials as planned
from tdmpc_ray.studies.plan.labels import trial_params

# What a searcher calls the seed of its own draws.
_SEED_NAMES = {"optuna": "seed", "hyperopt": "random_state_seed", "bayesopt": "random_state"}


def make_search(plan: planned.Plan) -> Any:
    """Tune's search algorithm for a study.

    Raises:
        UserError: the searcher is not installed, or refuses its options.
    """
    study = plan.study
    method = study.search.method
    if not study.search.is_model_based:
        return ListedTrials(plan.trials, study.space, study.resources.max_concurrent_trials or 0)
    package, install = SEARCHERS[method]
    if importlib.util.find_spec(package) is None:
        raise UserError(f"search: {method} is not installed: pip install {install}")
    metric, space = study.score_key, study.draws()

    kind = SEARCH_ALG_IMPORT[method]()
    logging.getLogger("optuna").setLevel(logging.WARNING)  # it tells of every study that it makes

    def make(number: int, asks: bool = False) -> Searcher:
        seed = {_SEED_NAMES[method]: number} if method in _SEED_NAMES else {}
        try:
            searcher: Searcher = kind(metric=metric, mode="max", **{**seed, **study.search.options})
            searcher.set_search_properties(metric, "max", space)
            if asks:
                searcher.suggest("probe")
        except Exception as error:  # of a library and its options, anything may come
            raise UserError(f"search: {method} refuses this study: {reason(error)}") from None
        return searcher

    # Some options are looked at by the first suggestion alone; a storage would keep what is asked for here.
    make(0, asks="storage" not in study.search.options)
    search = SearchPerGroup(plan.groups, study.seeds, study.num_samples, metric, make)
    # Always limited, so that what is saved has one form, whatever a resume makes of the limit.
    return _Limited(search, max_concurrent=study.resources.max_concurrent_trials or len(plan.trials))


def trials_of(search: Any) -> SearchAlgorithm:
    """What Tune gets its trials from, by what `make_search` has made."""
    return Suggested(search) if isinstance(search, Searcher) else search


class ListedTrials(BasicVariantGenerator):
    """Makes the trials of a list; in a study that goes on, those it has not begun of the list as it is now.

    Args:
        trials: the list.
        varied: what tells them apart beside task, size and seed.
        max_concurrent: trials at once; 0: any number.
    """

    def __init__(self, trials: Sequence[planned.Trial], varied: Iterable[str], max_concurrent: int) -> None:
        super().__init__(max_concurrent=max_concurrent)
        self._left = deque(trials)
        self._total_samples = len(trials)
        self._varied = {"task", "algorithm", "model_size", "seed", *varied}
        self._begun: Counter[str] = Counter()
        self._begun_before: Counter[str] = Counter()

    def add_configurations(self, experiments: Any) -> None:
        [self._experiment] = experiments

    def next_trial(self) -> Trial | None:
        if self.max_concurrent > 0 and len(self._live_trials) >= self.max_concurrent:
            return None
        while self._left:
            config = {**self._experiment.spec["config"], **self._left.popleft().config}
            params = trial_params(config)
            own = {key: params[key] for key in params.keys() & self._varied}
            point = json.dumps(own, sort_keys=True, default=str)
            if self._begun_before[point] > 0:
                self._begun_before[point] -= 1
                continue
            return self._begin(config, point)
        self.set_finished()
        return None

    def _begin(self, config: dict[str, Any], point: str) -> Trial:
        number = self._begun.total()
        self._begun[point] += 1
        spec = {**self._experiment.spec, "config": copy.deepcopy(config)}
        name = f"{self._uuid_prefix}{number:05d}"
        trial = _create_trial_from_spec(spec, _make_parser(), trial_id=name, experiment_tag=str(number))
        self._live_trials.add(trial.trial_id)
        return trial

    def get_state(self) -> dict[str, Any]:
        return {"begun": self._begun, "live": self._live_trials, "prefix": self._uuid_prefix}

    def set_state(self, state: dict[str, Any]) -> None:
        self._begun, self._begun_before = state["begun"], state["begun"].copy()
        self._live_trials, self._uuid_prefix = state["live"], state["prefix"]


class Suggested(SearchGenerator):
    """Makes trials of what a searcher suggests; in a study that goes on, of the study as it is now."""

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state({**state, "experiment": None, "finished": False})


class _Limited(ConcurrencyLimiter):
    """At most so many trials at once as the study says now."""

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state({**state, "max_concurrent": self.max_concurrent})


@dataclass
class _Suggestion:
    """Settings that are tried with every seed."""

    settings: dict[str, Any]
    missing: int  # seeds that have not ended
    scores: list[float] = field(default_factory=list)


@dataclass
class _Group:
    """A point of the study, with a search of its own: what is best may differ between them."""

    fixed: dict[str, Any]
    searcher: Searcher
    asked: int = 0
    left_out: int = 0  # suggestions that its searcher does not have
    open: dict[str, _Suggestion] = field(default_factory=dict)


class SearchPerGroup(Searcher):
    """A searcher for each point of the study; it is told the mean score over the seeds.

    Args:
        groups: entries of the config that all trials of a point share, `agent_overrides` among them.
        seeds: every suggestion is tried with each.
        num_samples: suggestions per group.
        metric: key of the score in a trial's results.
        make: a new searcher, from its number.
    """

    def __init__(
        self,
        groups: Sequence[Mapping[str, Any]],
        seeds: Sequence[int],
        num_samples: int,
        metric: str,
        make: Callable[[int], Searcher],
    ) -> None:
        super().__init__(metric=metric, mode="max")
        self._seeds, self._num_samples = list(seeds), num_samples
        self._groups = [_Group(dict(fixed), make(number)) for number, fixed in enumerate(groups)]
        self._queue: deque[tuple[int, str, int]] = deque()  # group, suggestion, seed
        self._running: dict[str, tuple[int, str]] = {}  # trial to group and suggestion

    @property
    def trials_left_out(self) -> int:
        """That will not be, as the searchers have nothing else to try."""
        return len(self._seeds) * sum(group.left_out for group in self._groups)

    def set_search_properties(self, metric: str | None, mode: str | None, config: Any, **spec: Any) -> bool:
        return True  # all was said at construction

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if not self._queue:
            number = min(range(len(self._groups)), key=lambda n: self._groups[n].asked)
            group = self._groups[number]
            if group.asked >= self._num_samples:
                return Searcher.FINISHED
            name = f"{number}-{group.asked}"
            settings = group.searcher.suggest(name)
            if settings == Searcher.FINISHED:  # there is nothing else to try
                group.left_out += self._num_samples - group.asked
                group.asked = self._num_samples
                return self.suggest(trial_id)
            if settings is None:
                return None
            group.asked += 1
            group.open[name] = _Suggestion(settings, missing=len(self._seeds))
            self._queue.extend((number, name, seed) for seed in self._seeds)
        number, name, seed = self._queue.popleft()
        self._running[trial_id] = number, name
        fixed = self._groups[number].fixed
        overrides = {**fixed["agent_overrides"], **self._groups[number].open[name].settings}
        return {**fixed, "seed": seed, "agent_overrides": overrides}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        known = self._running.pop(trial_id, None)
        if known is None:  # a failed trial that was tried again: its end has been told
            return
        group = self._groups[known[0]]
        suggestion = group.open[known[1]]
        score = (result or {}).get(self.metric)
        if not error and score is not None and math.isfinite(score):
            suggestion.scores.append(float(score))
        suggestion.missing -= 1
        if suggestion.missing == 0:
            del group.open[known[1]]
            told = {self.metric: fmean(suggestion.scores)} if suggestion.scores else None
            group.searcher.on_trial_complete(known[1], told, error=told is None)

    def save(self, checkpoint_path: str) -> None:
        groups = [(g.asked, g.left_out, g.open, _saved(g.searcher)) for g in self._groups]
        state = {"groups": groups, "queue": self._queue, "running": self._running}
        Path(checkpoint_path).write_bytes(pickle.dumps(state))

    def restore(self, checkpoint_path: str) -> None:
        state = pickle.loads(Path(checkpoint_path).read_bytes())
        self._queue, self._running = state["queue"], state["running"]
        for group, (*known, saved) in zip(self._groups, state["groups"], strict=True):
            group.asked, group.left_out, group.open = known
            with tempfile.NamedTemporaryFile() as file:
                Path(file.name).write_bytes(saved)
                group.searcher.restore(file.name)


def trials_left_out(search: Any) -> int:
    """By a search as `make_search` makes it."""
    inner = search.searcher if isinstance(search, ConcurrencyLimiter) else search
    return inner.trials_left_out if isinstance(inner, SearchPerGroup) else 0


def _saved(searcher: Searcher) -> bytes:
    with tempfile.NamedTemporaryFile() as file:
        searcher.save(file.name)
        return Path(file.name).read_bytes()
