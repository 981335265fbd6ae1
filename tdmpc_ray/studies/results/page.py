"""The report of a study: one HTML page that holds everything, its figures and tables as files beside it."""

from __future__ import annotations

import html
import io
import math
import re
import shutil
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from tdmpc_ray import __version__
from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.results.analysis.build import Report, build_report
from tdmpc_ray.studies.results.analysis.data_needed import LAWS
from tdmpc_ray.studies.results.costs import with_costs
from tdmpc_ray.studies.results.random_policy import RUN_IDS
from tdmpc_ray.studies.results.study_runs import StudyRuns, load_study_runs
from tdmpc_ray.studies.tracking.client import absolute_uri, connect, one_line, public_uri, web_address
from tdmpc_ray.studies.tracking.naming import metric_name
from tdmpc_ray.studies.tracking.study_run import now_ms

PAGE_FILE = "report.html"
ARTIFACTS = "report"  # folder of the study's run
_NOTE = "mlflow.note.content"  # the run's description
_SHORT_ID = 8
_MANY_IDS = 6  # more are folded away


def write_report(
    experiment: str,
    uri: str,
    study: str | Sequence[str] | None = None,
    out: Path | None = None,
    *,
    metric: str | None = None,
    thresholds: Sequence[float] = (),
) -> Path:
    """Build the report of studies from MLflow, write it, and attach it to the studies' runs.

    Args:
        experiment: name of the MLflow experiment.
        uri: address of MLflow.
        study: name or run id of the study, or of several together; None: the newest one.
        out: folder for the page, `figures` and `tables`; None: `<study>_report` here.
        metric: what to report, such as `eval/return`; None: what the tasks are judged by.
        thresholds: results that data is counted to; none: some that the curves suggest.

    Returns:
        The page.

    Raises:
        UserError: MLflow does not answer, or has no such experiment, study or metric; the folder cannot be
            written; MLflow does not take the files.
    """
    runs = with_costs(load_study_runs(experiment, uri, study, metric=metric), uri)
    folder = Path(f"{runs.file_name}_report") if out is None else Path(out)
    report = build_report(runs, thresholds)
    with tempfile.TemporaryDirectory() as fresh:  # MLflow gets nothing else that lies in `out`
        save_report(report, Path(fresh), uri)
        try:
            shutil.copytree(fresh, folder, dirs_exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"cannot write {folder}: {reason}; choose another --out") from None
        _attach(report, Path(fresh), folder / PAGE_FILE, uri)
    return folder / PAGE_FILE


def _attach(report: Report, folder: Path, page: Path, uri: str) -> None:
    """Log files, laws and a link to the page to the studies' runs."""
    from mlflow.exceptions import MlflowException

    client = connect(absolute_uri(uri))
    try:
        for run_id in report.runs.parent_run_ids:
            client.log_artifacts(run_id, str(folder), ARTIFACTS)
            _log_laws(client, run_id, report)
            _link_page(client, run_id, report.runs.experiment_id)
    except (MlflowException, OSError) as error:
        raise UserError(
            f"the report lies in {page}, but MLflow did not take it ({one_line(error)}): check its store of "
            "artifacts and try again"
        ) from error


def _log_laws(client: Any, run_id: str, report: Report) -> None:
    """Parameters of the laws as metrics, and all of them as a table that MLflow shows."""
    from mlflow.entities import Metric

    if not report.metrics:
        return
    metrics = [
        Metric(metric_name(name), value, now_ms(), 0)
        for name, value in report.metrics.items()
        if math.isfinite(value)
    ]
    client.log_batch(run_id, metrics=metrics)
    table = next(s.table for s in report.sections if s.key == LAWS)
    assert table is not None
    written = table.assign(**{RUN_IDS: table[RUN_IDS].map(" ".join)})
    with tempfile.TemporaryDirectory() as folder:  # MLflow's own way would add to the last report's
        file = Path(folder) / f"{LAWS}.json"
        file.write_text(written.to_json(orient="split", index=False), encoding="utf-8")
        client.log_artifact(run_id, str(file), ARTIFACTS)


def _link_page(client: Any, run_id: str, experiment_id: str) -> None:
    """A link to the page at the head of the run's page in MLflow, where nobody has written something else."""
    place = f"#/experiments/{experiment_id}/runs/{run_id}/artifacts/{ARTIFACTS}/{PAGE_FILE}"
    note = f"[Report of the study]({place})"
    if client.get_run(run_id).data.tags.get(_NOTE, note) == note:
        client.set_tag(run_id, _NOTE, note)


def save_report(report: Report, folder: Path, uri: str) -> Path:
    """Write the page, every figure as SVG and PNG, and every table as CSV with full run ids.

    Args:
        report: what to write.
        folder: where; created if absent.
        uri: address of MLflow, which run ids link to where it is a server.

    Returns:
        The page.
    """
    import jinja2

    (folder / "figures").mkdir(parents=True, exist_ok=True)
    (folder / "tables").mkdir(exist_ok=True)
    parts = []
    for section in report.sections:
        pictures = []
        for picture in section.pictures:
            name = f"{section.key}-{picture.name}" if picture.name != section.key else section.key
            file = folder / "figures" / re.sub(r"[^\w.-]", "_", name)
            picture.figure.savefig(f"{file}.png", dpi=160)
            svg = _svg(picture.figure)
            Path(f"{file}.svg").write_text(svg, encoding="utf-8")
            pictures.append({"svg": _inline(svg, file.name, picture.alt), "wide": picture.is_wide})
        if section.table is not None:
            ids = section.table[RUN_IDS].map(" ".join)
            section.table.assign(**{RUN_IDS: ids}).to_csv(
                folder / "tables" / f"{section.key}.csv", index=False
            )
        parts.append(
            {"section": section, "pictures": pictures, "table": _cells(section.table, report.runs, uri)}
        )
    template = (files("tdmpc_ray.studies.results") / "data" / "report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = folder / PAGE_FILE
    page.write_text(
        environment.from_string(template).render(
            report=report,
            parts=parts,
            made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            version=__version__,
            source=public_uri(uri),
        ),
        encoding="utf-8",
    )
    return page


def _svg(figure: Figure) -> str:
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "tdmpc-ray"}):  # the same figure gives the same file
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _inline(svg: str, name: str, alt: str) -> str:
    """The drawing as an element of a page: no header, names of its own, scaled by the page."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    prefix = re.sub(r"\W", "-", name)
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", body)
    size = r'width="[\d.]+pt" height="[\d.]+pt"'
    return re.sub(size, f'role="img" aria-label="{html.escape(alt)}"', body, count=1)


def _cells(table: pd.DataFrame | None, runs: StudyRuns, uri: str) -> dict[str, Any] | None:
    """A table's head and rows for the template; run ids as links where MLflow is a server."""
    if table is None:
        return None
    # Columns without a word in them say nothing, such as the setting of a study without settings.
    columns = [c for c in table if c != RUN_IDS and not (table[c].astype(str) == "").all()]
    link = f"{server}/#/experiments/{runs.experiment_id}/runs/" if (server := web_address(uri)) else ""
    rows = [
        {
            "cells": [{"text": _text(row[c]), "is_number": isinstance(row[c], int | float)} for c in columns],
            "runs": [{"id": run_id, "short": run_id[:_SHORT_ID]} for run_id in row[RUN_IDS]],
            "folded": len(row[RUN_IDS]) > _MANY_IDS,
        }
        for row in table.to_dict("records")
    ]
    numbers = pd.api.types.is_numeric_dtype
    head = [{"text": str(c).replace("_", " "), "is_number": numbers(table[c])} for c in columns]
    return {"head": head, "rows": rows, "link": link}


def _text(value: Any) -> str:
    """A value for a reader: four digits; the CSV has all of them."""
    if value is None or value != value:
        return "n/a"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return (
            f"{value:,.4g}" if abs(value) < 1e5 else (f"{value:,.0f}" if abs(value) < 1e7 else f"{value:.4g}")
        )
    return str(value)
