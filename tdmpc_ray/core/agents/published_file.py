"""Files that published codes save, of tensors alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tdmpc_ray.errors import UserError, reason


def read_tensors(path: Path) -> dict[str, Any]:
    """What such a file holds; empty where that is no mapping.

    Raises:
        UserError: it cannot be read, or holds what would have to be run.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or reason(error)}") from None
    except Exception:  # of any kind, with advice that is not for users: to trust the file, for instance
        raise UserError(
            f"cannot read {path} as a checkpoint: it is damaged, or holds something else than tensors"
        ) from None
    return content if isinstance(content, dict) else {}
