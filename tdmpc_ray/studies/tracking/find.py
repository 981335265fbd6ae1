"""Finding experiments, studies and runs in MLflow."""

from __future__ import annotations

from typing import Any

from tdmpc_ray.errors import UserError, nearest, unknown


def find_experiment(client: Any, name: str) -> str:
    """Id of the experiment of this name.

    Raises:
        UserError: there is none; names the nearest one.
    """
    found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage != "active":
        names = [experiment.name for experiment in client.search_experiments()]
        raise unknown("MLflow experiment", name, names)
    return str(found.experiment_id)


def find_study(client: Any, experiment: str, experiment_id: str, study: str | None) -> Any:
    """The run of a study, by its name, run id or uid; None: the newest one.

    Raises:
        UserError: there is none; names the nearest one.
    """
    parents = all_runs(client, experiment_id, "tags.kind = 'study'")
    if not parents:
        raise UserError(
            f"experiment '{experiment}' holds no study of tdmpc-ray: run one with `tdmpc-ray tune`"
        )
    if study is None:
        return parents[0]
    for parent in parents:
        if study in (parent.info.run_name, parent.info.run_id, parent.data.tags.get("study_uid")):
            return parent
    names = list(dict.fromkeys(parent.info.run_name for parent in parents))
    best = nearest(study, names)
    raise UserError(
        f"no study '{study}' in experiment '{experiment}': "
        + (f"did you mean '{best}'?" if best else f"choose one of: {', '.join(names)}")
    )


def all_runs(client: Any, experiment_id: str, filter_string: str) -> list[Any]:
    """All runs that the filter lets through, newest first."""
    runs: list[Any] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment_id],
            filter_string,
            order_by=["attributes.start_time DESC"],
            max_results=1000,
            page_token=token,
        )
        runs += page
        token = page.token
        if not token:
            return runs
