"""What MLflow has not got, or has refused, brought to it later."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.tracking.client import check_tracking, one_line
from tdmpc_ray.studies.tracking.ops import Op, Spool, coalesce, entries
from tdmpc_ray.studies.tracking.sender import OpSender

SPOOL_FILE = "mlflow_spool.jsonl"
REJECTED_FILE = "mlflow_rejected.jsonl"


@dataclass(frozen=True)
class Replay:
    """What came of it.

    Attributes:
        delivered: entries that MLflow has now.
        refused: entries that it refuses, again or for the first time.
        reason: of most of them.
        file: where these lie.
    """

    delivered: int
    refused: int
    reason: str
    file: Path


def replay_spool(uri: str, path: Path) -> Replay:
    """Bring a spool file to MLflow, and what was refused before; doing it twice changes nothing.

    Args:
        uri: address of MLflow.
        path: the spool file, or the folder that holds it. When all is delivered the file is renamed to
            `*.sent`, so that a second call finds nothing to do.

    Raises:
        UserError: no such file, or MLflow does not answer.
    """
    file = path / SPOOL_FILE if path.is_dir() else path
    sent = file.with_name(file.name + ".sent")
    rejected = file.with_name(REJECTED_FILE)
    if not file.exists() and not rejected.exists():
        if sent.exists() or path.is_dir():
            return Replay(0, 0, "", rejected)
        raise UserError(
            f"no spool file at {file}: give the file that the study named at its end, or its folder"
        )
    check_tracking(uri)
    sender = OpSender(uri, {})
    refused: list[Op] = []
    tried = 0
    # The refused ones first: they are older. Until all has been tried, both files stay as they are.
    for waiting in (Spool(rejected), Spool(file)):
        ops, offset = waiting.read()
        while ops:
            late = waiting.path == rejected
            for op in coalesce({**op, "late": True} if late else op for op in ops):
                try:
                    refused += sender.deliver(op["experiment"], op)
                except Exception as error:
                    raise UserError(
                        f"MLflow stopped answering ({one_line(error)}): {file} is kept, try again later"
                    ) from None
            tried += sum(map(entries, ops))
            ops, offset = waiting.read(offset)
    anew = Spool(rejected.with_name(rejected.name + ".new"))
    anew.clear()
    anew.append(refused)
    anew.path.replace(rejected) if refused else rejected.unlink(missing_ok=True)
    if file.exists():
        file.replace(sent)
    reasons = Counter(op["reason"] for op in refused)
    reason = reasons.most_common(1)[0][0] if reasons else ""
    num_refused = sum(map(entries, refused))
    return Replay(tried - num_refused, num_refused, reason, rejected)
