"""Commands about studies on a Ray cluster."""

from __future__ import annotations

import os
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tdmpc_ray.cli.common import JsonOption, print_json
from tdmpc_ray.cli.slurm import SbatchOption, SlurmOption, check_options, submit_batch_job
from tdmpc_ray.errors import UserError
from tdmpc_ray.noise import quiet_jobs

if TYPE_CHECKING:
    from tdmpc_ray.studies.run.jobs import Job, Jobs

AddressOption = Annotated[
    str | None, typer.Option(help="Of the job server, http://HEAD:8265. Default: RAY_API_SERVER_ADDRESS.")
]
ThereOption = Annotated[
    str | None, typer.Option(help="Of the cluster, where DIR is what `submit` has printed.")
]
CodeOption = Annotated[
    bool, typer.Option("--with-code", help="Send this tdmpc_ray along, where the cluster has none.")
]
BesideOption = Annotated[
    list[Path] | None,
    typer.Option("--with", metavar="PATH", help="A file or folder to send along; repeatable."),
]
_JobArgument = Annotated[str, typer.Argument(metavar="ID", help="What `submit` has printed, see `list`.")]


def submit(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="The study.")],
    address: AddressOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show its output until it ends.")] = False,
    with_code: CodeOption = False,
    beside: BesideOption = None,
    mlflow_uri: Annotated[
        str | None,
        typer.Option(help="Of MLflow, as the cluster sees it. Default: the study's, or the cluster's."),
    ] = None,
    slurm: SlurmOption = False,
    sbatch_options: SbatchOption = "",
    out: Annotated[
        Path | None,
        typer.Option(help="With --slurm: folder for the results, on all nodes. Default: results/NAME-TIME."),
    ] = None,
) -> int:
    """Run a study on a Ray cluster, or as a batch job of SLURM.

    A Ray cluster keeps it in its $TDMPC_RAY_RESULTS, a folder that all its machines share, or in
    ~/tdmpc-ray-results of its head. Paths in the study are those of the cluster.

    With --slurm Ray runs on the nodes of the job alone. They share this folder and this installation, and get
    the environment of this command, MLFLOW_TRACKING_URI for example.

    Example: tdmpc-ray submit experiments/quickstart.yaml --address http://localhost:8265 --wait
    """
    from tdmpc_ray.studies.file.folder import require_empty
    from tdmpc_ray.studies.file.load import load_study
    from tdmpc_ray.studies.file.names import new_name
    from tdmpc_ray.studies.file.python_path import use_folder_of

    check_options(
        slurm,
        for_slurm={"--sbatch-options": sbatch_options, "--out": out},
        for_ray={"--address": address, "--wait": wait, "--with-code": with_code, "--with": beside}
        | {"--mlflow-uri": mlflow_uri},
    )
    use_folder_of(file)
    study = load_study(file)
    if slurm:
        out = out or Path("results") / new_name(study.name)
        require_empty(out.absolute())
        return submit_batch_job(file, out, sbatch_options)
    jobs = _jobs(address)
    job_id = jobs.submit(study, file, with_code=with_code, beside=beside or (), mlflow_uri=mlflow_uri)
    return _submitted(jobs, job_id, wait)


def again_there(job_id: str, address: str, wait: bool, **options: Any) -> int:
    """`resume` or `sync` of a submitted study; `options` are those of `Jobs.resume`."""
    jobs = _jobs(address)
    return _submitted(jobs, jobs.resume(job_id, **options), wait)


def status(job_id: _JobArgument, address: AddressOption = None, as_json: JsonOption = False) -> None:
    """Say how a submitted study is doing."""
    job = _jobs(address).get(job_id)
    if as_json:
        print_json(_form(job))
        return
    print(f"{job.id}: {job.status}{_since(job)}")
    if job.message and job.status != "RUNNING":
        print(job.message)


def logs(
    job_id: _JobArgument,
    address: AddressOption = None,
    wait: Annotated[bool, typer.Option("--follow", "-f", help="Until it ends.")] = False,
) -> int:
    """Print what a submitted study has printed."""
    jobs = _jobs(address)
    if wait:
        return follow(jobs, job_id)
    print(jobs.logs(job_id), end="")
    return 0


def stop(
    job_id: _JobArgument,
    address: AddressOption = None,
    wait: Annotated[bool, typer.Option(help="Until its trials are saved.")] = True,
) -> int:
    """Stop a submitted study; its trials save first.

    It can be continued: tdmpc-ray resume ID --address URL.
    """
    jobs = _jobs(address)
    if jobs.get(job_id).has_ended:
        raise UserError(f"{job_id} has ended already")
    jobs.stop(job_id)
    if not wait:
        return 0
    while not (job := jobs.get(job_id)).has_ended:
        time.sleep(1.0)
    print(f"{job.id}: {job.status}; go on with: {_command('resume', job.id, jobs)}")
    return 0


def list_jobs(address: AddressOption = None, as_json: JsonOption = False) -> None:
    """List the studies of a cluster, oldest first."""
    found = _jobs(address).all()
    if as_json:
        print_json([_form(job) for job in found])
        return
    width = max((len(job.id) for job in found), default=0)
    for job in found:
        print(f"{job.id:<{width}}  {job.status:<9}{_since(job)}")


def follow(jobs: Jobs, job_id: str) -> int:
    """Show a job's output until it ends; Ctrl-C leaves it running."""
    try:
        job = jobs.follow(job_id, lambda text: print(text, end="", flush=True))
    except KeyboardInterrupt:
        print(f"{job_id} goes on; stop it with: {_command('stop', job_id, jobs)}", file=sys.stderr)
        raise
    if job.status != "SUCCEEDED":
        print(f"{job.id}: {job.status}: {job.message}")
    return job.exit_status


def _jobs(address: str | None) -> Jobs:
    from tdmpc_ray.studies.run.cluster import quiet

    quiet()
    from tdmpc_ray.studies.run.jobs import Jobs

    address = address or os.environ.get("RAY_API_SERVER_ADDRESS")
    if not address:
        raise UserError("say which cluster: --address http://HEAD:8265, or set RAY_API_SERVER_ADDRESS")
    quiet_jobs()
    return Jobs(address, lambda line: print(line, file=sys.stderr))


def _submitted(jobs: Jobs, job_id: str, wait: bool) -> int:
    print(f"submitted: {job_id}", flush=True)
    if wait:
        return follow(jobs, job_id)
    print(f"follow it with: {_command('logs -f', job_id, jobs)}")
    print(f"stop it with: {_command('stop', job_id, jobs)}")
    return 0


def _form(job: Job) -> dict[str, Any]:
    from tdmpc_ray.cli.forms import JobForm

    return JobForm(**asdict(job)).model_dump()


def _command(what: str, job_id: str, jobs: Jobs) -> str:
    return f"tdmpc-ray {what} {shlex.quote(job_id)} --address {shlex.quote(jobs.address)}"


def _since(job: Job) -> str:
    if job.started is None:
        return ""
    minutes = ((job.ended or time.time()) - job.started) / 60
    begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.started))
    return f", begun {begun}, {'took' if job.ended else 'for'} {minutes:,.1f} minutes"
