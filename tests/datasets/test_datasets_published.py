"""The published multi-task files: of several versions of tensordict, read without it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tdmpc_ray import cli
from tdmpc_ray.cli import forms
from tdmpc_ray.datasets.dataset import Dataset
from tdmpc_ray.datasets.importing import TaskNames
from tdmpc_ray.datasets.published import read_published
from tdmpc_ray.errors import UserError

FOLDER = Path(
    os.environ.get("TDMPC_RAY_DATASET_FIXTURES", Path(__file__).parents[1] / "fixtures" / "official_dataset")
)
FILES = sorted(FOLDER.glob("chunk_*.pt"))
TASKS, OBS, ACTIONS = ["walker-walk", "cheetah-run", "cartpole-balance"], [24, 17, 5], [6, 6, 1]


def naming(names: str, obs: str, actions: str) -> list[str]:
    return ["--task-names", names, "--obs-dims", obs, "--action-dims", actions]


OPTIONS = naming(",".join(TASKS), "24,17,5", "6,6,1")


def test_there_are_files_of_every_version() -> None:
    assert len(FILES) >= 4


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_episodes_are_those_beside_the_file(file: Path) -> None:
    with np.load(file.with_suffix(".npz")) as content:
        expected = {name: content[name] for name in content.files}
    found = list(read_published(file, TASKS, OBS, ACTIONS))
    assert sorted(int(episode.source.split()[-1]) for episode in found) == list(range(len(expected["obs"])))
    for episode in found:
        index = int(episode.source.split()[-1])
        task = TASKS.index(episode.task)
        assert task == expected["task"].reshape(len(expected["obs"]), -1)[index, 0]
        np.testing.assert_array_equal(episode.obs, expected["obs"][index, :, : OBS[task]])
        # Row 0 of action and reward is filler.
        np.testing.assert_array_equal(episode.action, expected["action"][index, 1:, : ACTIONS[task]])
        np.testing.assert_array_equal(episode.reward, expected["reward"][index, 1:])
        episode.check()


def test_the_command_imports_what_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, files = str(tmp_path / "data"), [str(file) for file in FILES]
    assert cli.main(["dataset", "import", out, *files, *OPTIONS, "--tasks", TASKS[0], "--half"]) == 0
    said = capsys.readouterr().out
    dataset = Dataset(tmp_path / "data")
    assert [task.name for task in dataset.manifest.tasks] == [TASKS[0]]
    assert dataset.manifest.half
    episodes = sum(part.episodes for part in dataset.manifest.parts)
    assert f"data: 1 task, {episodes} episodes, {20 * episodes} steps, 0.0 MB in half precision" in said
    assert cli.main(["dataset", "import", str(tmp_path / "some"), *files, *OPTIONS, "--share", "0.5"]) == 0
    some = Dataset(tmp_path / "some").manifest
    assert 0 < sum(part.episodes for part in some.parts) < 6 * len(FILES)
    assert cli.main(["dataset", "info", out, "--json", "--histogram", str(tmp_path / "h.png")]) == 0
    form = forms.DatasetForm.model_validate_json(capsys.readouterr().out.partition("\n{")[2].join(["{", ""]))
    assert (tmp_path / "h.png").stat().st_size > 1000
    assert [(task.name, task.episodes, task.obs_shape) for task in form.tasks] == [(TASKS[0], episodes, [24])]
    assert len(form.sources) == len(FILES)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (naming("a,b", "24,17", "6,6"), "holds task 2, there are 2 names"),
        (naming("a,b,c", "24,17", "6,6,1"), "give as many of each"),
        (naming("a,b,c", "25,17,5", "6,6,1"), "is said to have sizes 25"),
        (naming("a,b,c", "x,1,1", "1,1,1"), "--obs-dims x,1,1: give whole numbers"),
        ([*OPTIONS, "--tasks", "walker-wlak"], "unknown task 'walker-wlak': did you mean 'walker-walk'"),
        ([*OPTIONS, "--share", "0"], "--share 0: give a share of the episodes"),
    ],
)
def test_what_cannot_be_imported_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], message: str
) -> None:
    out = tmp_path / "data"
    assert cli.main(["dataset", "import", str(out), str(FILES[0]), *args]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch evil",)


def test_foreign_files_are_named_and_nothing_of_them_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"obs": Evil()}, tmp_path / "evil.pt")
    torch.save({"obs": torch.zeros(2, 3, 4)}, tmp_path / "half.pt")
    (tmp_path / "torn.pt").write_bytes(FILES[0].read_bytes()[:900])
    (tmp_path / "old.pt").write_bytes(pickle.dumps([1]))
    for name, message in (
        ("evil.pt", "or no file of the published datasets: "),
        ("half.pt", "it has no 'action'"),
        ("torn.pt", "is damaged, or no file of the published"),
        ("old.pt", "is damaged, or no file of the published"),
        ("absent.pt", "there is no file"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            list(read_published(tmp_path / name, TASKS, OBS, ACTIONS))
        assert "\n" not in str(caught.value)
        assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "evil").exists()


def test_mt30_and_mt80_are_known_by_their_width(tmp_path: Path) -> None:
    for name, width, action in (("mt30", 24, 6), ("mt80", 39, 6)):
        content = {"obs": torch.zeros(1, 5, width), "action": torch.zeros(1, 5, action)}
        content |= {"reward": torch.zeros(1, 5), "task": torch.zeros(1, 5, dtype=torch.int64)}
        torch.save(content, tmp_path / f"{name}.pt")
        tasks = TaskNames.of_file(tmp_path / f"{name}.pt")
        assert len(tasks.names) == int(name[2:])
        assert (max(tasks.obs_dims), max(tasks.action_dims)) == (width, action)
        assert tasks.names[0] == "walker-stand"
    content["obs"] = torch.zeros(1, 5, 7)
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UserError, match="observations of 7 numbers, mt30 has 24 and mt80 39: say what"):
        TaskNames.of_file(tmp_path / "other.pt")


def test_a_file_is_never_twice_in_memory(tmp_path: Path) -> None:
    """100 MB of numbers, read in a process that may not use twice as much."""
    rows = torch.zeros(1000, 101, 250)
    content = {"obs": rows, "action": torch.zeros(1000, 101, 1), "reward": torch.zeros(1000, 101)}
    torch.save({**content, "task": torch.zeros(1000, 101, dtype=torch.int64)}, tmp_path / "large.pt")
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from tdmpc_ray.datasets.published import read_published\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for episode in read_published(Path(sys.argv[1]), ['a'], [250], [1]): pass\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "large.pt")]
    grown = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown < 1.3 * rows.nbytes / 2**20
