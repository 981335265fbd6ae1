"""Imports point one way.

errors <- addresses <- core, envs <- datasets <- rllib <- studies <- serving <- cli
"""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tdmpc_ray"
LOWEST = {"errors", "addresses", "noise", "observations"}
ALLOWED = {
    "errors": set(),
    "addresses": {"errors"},
    "noise": set(),
    "observations": set(),
    "core": LOWEST,
    "envs": LOWEST,
    "datasets": {*LOWEST, "core", "envs"},
    "rllib": {*LOWEST, "core", "envs", "datasets"},
    "studies": {*LOWEST, "core", "envs", "datasets", "rllib"},
    "serving": {*LOWEST, "core", "envs", "datasets", "rllib", "studies"},
    "cli": {*LOWEST, "core", "envs", "datasets", "rllib", "studies", "serving"},
}
# Within studies: whatever runs one comes last.
STUDIES = {
    "tracking": set(),
    "words": {"tracking"},
    "file": {"words", "tracking"},
    "plan": {"words", "tracking", "file"},
    "results": {"words", "tracking"},
    "models": {"words", "tracking", "file"},
    "run": {"words", "tracking", "file", "plan", "results", "models"},
}
# Within rllib: the algorithm and its config come last.
ROOMS = {
    "metrics": set(),
    "acting": {"metrics"},
    "checkpoints": {"metrics", "acting"},
    "learning": {"metrics", "acting", "checkpoints"},
    "loop": {"metrics", "acting", "checkpoints", "learning"},
    "evaluation": {"metrics", "acting", "checkpoints"},
}
# Within core: nobody but an agent itself knows what lies in its folder.
AGENTS = {path.name for path in (PACKAGE / "core" / "agents").iterdir() if path.is_dir()} - {"__pycache__"}
BUILDS_ON = {"bmpc": "tdmpc2"}  # an agent that is another one but for some parts
FOREIGN_TO_CORE = {"ray", "gymnasium", "mlflow", "dm_control", "metaworld"}


def imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("layer", ALLOWED)
def test_a_layer_imports_only_what_lies_below(layer: str) -> None:
    check(PACKAGE / layer, "tdmpc_ray.", ALLOWED[layer] | {layer, "__version__"})


@pytest.mark.parametrize("part", STUDIES)
def test_a_part_of_studies_imports_only_what_lies_below(part: str) -> None:
    check(PACKAGE / "studies" / part, "tdmpc_ray.studies.", STUDIES[part] | {part})


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_of_rllib_imports_only_what_lies_below(room: str) -> None:
    check(PACKAGE / "rllib" / room, "tdmpc_ray.rllib.", ROOMS[room] | {room})


@pytest.mark.parametrize("agent", sorted(AGENTS))
def test_nobody_knows_the_inside_of_an_agent(agent: str) -> None:
    inside = f"tdmpc_ray.core.agents.{agent}."
    knowing = {agent, *(name for name, base in BUILDS_ON.items() if base == agent)}
    for file in PACKAGE.rglob("*.py"):
        if file.parent.name not in knowing and file != PACKAGE / "core" / "__init__.py":
            assert not [name for name in imports(file) if name.startswith(inside)], file


@pytest.mark.parametrize(
    ("importer", "name"),
    [
        ("rllib/acting/module.py", "tdmpc_ray.rllib.loop.pace"),
        ("rllib/learning/work.py", "tdmpc_ray.rllib.algorithm"),
        ("studies/file/spec.py", "tdmpc_ray.studies.run.runner"),
        ("core/batch.py", "tdmpc_ray.rllib"),
    ],
)
def test_a_planted_import_is_found(
    importer: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "tdmpc_ray"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    file = copy / importer
    file.write_text(file.read_text() + f"\nimport {name}\n")
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", copy)
    layer, part = importer.split("/")[:2]
    parts = {
        "rllib": test_a_room_of_rllib_imports_only_what_lies_below,
        "studies": test_a_part_of_studies_imports_only_what_lies_below,
    }
    with pytest.raises(AssertionError, match=file.name):
        parts.get(layer, lambda _: test_a_layer_imports_only_what_lies_below(layer))(part)


def check(folder: Path, prefix: str, allowed: set[str]) -> None:
    files = list(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    assert files
    for file in files:
        ours = {name.removeprefix(prefix).split(".")[0] for name in imports(file) if name.startswith(prefix)}
        assert ours <= allowed, file


def test_core_runs_where_nothing_but_torch_and_numpy_is_installed() -> None:
    block = f"import sys; sys.modules.update(dict.fromkeys({sorted(FOREIGN_TO_CORE)!r}))"
    code = f"{block}; import tdmpc_ray.core as core; print(core.agent_config('tiny').model.mlp_dim)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "128", done.stderr


def test_public_names_exist() -> None:
    import tdmpc_ray

    for name in tdmpc_ray.__all__:
        assert getattr(tdmpc_ray, name) is not None
    with pytest.raises(AttributeError, match="no attribute"):
        _ = tdmpc_ray.nothing
