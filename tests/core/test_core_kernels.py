"""The fused CPU kernels against the same functions as plain PyTorch operations."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fused import both
from torch import Tensor

from tdmpc_ray.core.nn import kernels

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _compiled() -> None:
    assert kernels.library() is not None, "these tests need a C compiler"


def identity(dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """No bias, and a LayerNorm that neither scales nor moves."""
    return torch.zeros(dim), torch.ones(dim), torch.zeros(dim)


@pytest.mark.parametrize("simnorm_dim", [0, 8])
@pytest.mark.parametrize("dim", [8, 24, 384])
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_norm_act(monkeypatch: pytest.MonkeyPatch, simnorm_dim: int, dim: int, scale: float) -> None:
    torch.manual_seed(0)
    x, c, w, b = torch.randn(5, 7, dim) * scale, torch.randn(dim), torch.rand(dim) + 0.5, torch.randn(dim)
    both(monkeypatch, lambda *t: kernels.norm_act(*t, simnorm_dim=simnorm_dim), x, c, w, b)


def test_norm_act_of_an_ensemble(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    c, w, b = torch.randn(3, 48), torch.rand(3, 48) + 0.5, torch.randn(3, 48)
    both(monkeypatch, kernels.norm_act, torch.randn(3, 11, 48), c, w, b)


@pytest.mark.parametrize("simnorm_dim", [0, 8])
def test_bfloat16_is_float32_rounded(monkeypatch: pytest.MonkeyPatch, simnorm_dim: int) -> None:
    torch.manual_seed(0)
    x, c = torch.randn(2, 9, 40).bfloat16(), torch.randn(2, 40)
    w, b = torch.rand(2, 40) + 0.5, torch.randn(2, 40)
    dy = torch.randn(2, 9, 40).bfloat16()

    def run(x: Tensor, dy: Tensor) -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in (x, c, w, b)]
        y = kernels.norm_act(*leaves, simnorm_dim=simnorm_dim)
        return [y.detach(), *torch.autograd.grad(y, leaves, dy)]

    ours, wide = run(x, dy), run(x.float(), dy.float())
    assert torch.equal(ours[0], wide[0].bfloat16())
    # SimNorm's gradient reads the rounded output.
    torch.testing.assert_close(ours[1].float(), wide[1], rtol=2**-7, atol=4e-3)
    for ours_of, wide_of in zip(ours[2:], wide[2:], strict=True):
        assert ours_of.dtype == torch.float32
        torch.testing.assert_close(ours_of, wide_of, rtol=1e-2, atol=1e-2)
    monkeypatch.setattr(kernels, "library", lambda: None)
    plain = run(x, dy)
    assert plain[0].dtype == torch.bfloat16
    torch.testing.assert_close(ours[0].float(), plain[0].float(), rtol=2**-7, atol=1e-4)


@pytest.mark.parametrize("kernel", [True, False])
def test_values_are_read_from_bfloat16_logits_in_float32(
    kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernel:
        monkeypatch.setattr(kernels, "library", lambda: None)
    torch.manual_seed(0)
    logits, bins = (torch.randn(500, 101) * 0.1).bfloat16(), torch.linspace(-10, 10, 101)
    with torch.autocast("cpu", torch.bfloat16):
        value = kernels.two_hot_value(logits, bins)
    torch.testing.assert_close(value, kernels.two_hot_value(logits.float(), bins))


def test_parameters_in_bfloat16_are_left_to_pytorch() -> None:
    x, c, w, b = torch.randn(5, 16).bfloat16(), torch.randn(16), torch.rand(16) + 0.5, torch.randn(16)
    ours = kernels.norm_act(x, *(p.bfloat16() for p in (c, w, b)))
    torch.testing.assert_close(ours.float(), kernels.norm_act(x, c, w, b).float(), rtol=0.02, atol=0.02)


def test_bfloat16_keeps_what_is_no_number() -> None:
    x = torch.ones(1, 8).bfloat16()
    x[0, 3] = torch.nan
    assert kernels.norm_act(x, *identity(8)).isnan().all()


NOT_FINITE = [torch.nan, torch.inf, -torch.inf]


def same_where_not_finite(
    monkeypatch: pytest.MonkeyPatch, function: Callable[..., Tensor], inputs: list[Tensor], dy: Tensor
) -> None:
    """Outputs and gradients are NaN and infinite where PyTorch's are, and elsewhere equal.

    Of an infinite `dy`, what PyTorch leaves infinite depends on the order of its sums, and may be NaN.
    """

    def run() -> list[Tensor]:
        leaves = [x.clone().requires_grad_() for x in inputs]
        out = function(*leaves)
        assert torch.equal(function(*inputs).isnan(), out.isnan())  # without gradients likewise
        return [out.detach(), *torch.autograd.grad(out, leaves, dy)]

    fused = run()
    with monkeypatch.context() as context:
        context.setattr(kernels, "library", lambda: None)
        plain = run()
    for ours, reference in zip(fused, plain, strict=True):
        if dy.isinf().any():
            reference = reference.masked_fill(reference.isinf() & ours.isnan(), torch.nan)
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("simnorm_dim", [0, 8])
@pytest.mark.parametrize("dim", [16, 40])  # with and without a rest beside whole vectors
def test_norm_act_of_what_is_not_finite(
    monkeypatch: pytest.MonkeyPatch, dim: int, simnorm_dim: int, value: float
) -> None:
    torch.manual_seed(0)
    x, c, w, b = torch.randn(3, dim), torch.randn(dim), torch.rand(dim) + 0.5, torch.randn(dim)
    for changed in range(5):
        for place in (0, 5, dim - 1):
            tensors = [t.clone() for t in (x, c, w, b, torch.randn(3, dim))]
            tensors[changed].view(-1)[place] = value
            *inputs, dy = tensors
            same_where_not_finite(
                monkeypatch, lambda *t: kernels.norm_act(*t, simnorm_dim=simnorm_dim), inputs, dy
            )


@pytest.mark.parametrize("value", NOT_FINITE)
def test_two_hot_value_of_what_is_not_finite(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    torch.manual_seed(0)
    bins, every = torch.linspace(-10, 10, 101), slice(None)
    for place in (0, 50, 100, every):
        logits = torch.randn(3, 101)
        logits[1, place] = value
        same_where_not_finite(
            monkeypatch, lambda x: kernels.two_hot_value(x, bins), [logits], torch.ones(3, 1)
        )
    dy = torch.tensor([[1.0], [value], [-1.0]])
    same_where_not_finite(monkeypatch, lambda x: kernels.two_hot_value(x, bins), [torch.randn(3, 101)], dy)


def test_extreme_spread_within_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one shift for the whole row would underflow a group to 0 / 0."""
    x = torch.randn(4, 64)
    both(
        monkeypatch,
        lambda *t: kernels.norm_act(*t, simnorm_dim=8),
        x,
        torch.zeros(64),
        torch.full((64,), 200.0),
        torch.zeros(64),
    )


def test_two_hot_value(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    bins = torch.linspace(-10, 10, 101)
    both(monkeypatch, lambda x: kernels.two_hot_value(x, bins), torch.randn(6, 9, 101) * 3)


def test_dropout_drops_the_right_share_and_backward_uses_the_same_mask() -> None:
    torch.manual_seed(0)
    x = torch.rand(2000, 64) + 1.0
    # LayerNorm hides the zeros, so the mask is read from the gradient: it is 0 exactly where x was dropped.
    leaf = x.clone().requires_grad_()
    weights = torch.randn(2000, 64)
    state = torch.get_rng_state()
    out = kernels.norm_act(leaf, *identity(64), dropout=0.1)
    (grad,) = torch.autograd.grad((out * weights).sum(), leaf)
    dropped = grad == 0
    share = dropped.float().mean().item()
    assert abs(share - 0.1) < 4 * (0.09 / x.numel()) ** 0.5
    assert dropped.float().mean(0).std() < 0.02  # no column is favoured
    masked = torch.where(dropped, 0.0, x / 0.9)
    torch.testing.assert_close(out.detach(), kernels.norm_act(masked, *identity(64)))
    again = kernels.norm_act(x, *identity(64), dropout=0.1)
    assert not torch.equal(again, out)
    torch.set_rng_state(state)
    assert torch.equal(kernels.norm_act(x, *identity(64), dropout=0.1), out)


def test_shapes_that_do_not_match_never_reach_the_kernels() -> None:
    x, eight = torch.randn(3, 16), torch.ones(8)
    with pytest.raises(RuntimeError, match=r"shape|size"):
        kernels.norm_act(x, torch.zeros(16), eight, eight)
    with pytest.raises(RuntimeError, match=r"shape|size"):
        kernels.norm_act(x, torch.zeros(8), torch.ones(16), torch.zeros(16))
    with pytest.raises(RuntimeError, match=r"shape|size"):
        kernels.two_hot_value(torch.randn(3, 100), torch.linspace(-10, 10, 101))


def a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """The only one on the path, with a cache of its own."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    (tmp_path / "bin" / "gcc").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bin" / "gcc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_missing_compiler_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert kernels.library.__wrapped__() is None
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.message.startswith("no C compiler found (gcc, cc or clang)")


def test_a_build_that_fails_tells_the_compiler_s_last_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    script = '[ "$1" = --version ] && exit 0; for i in 1 2 3 4 5 6; do echo "problem $i" >&2; done; exit 7'
    a_compiler(tmp_path, monkeypatch, script)
    assert kernels.library.__wrapped__() is None
    (record,) = caplog.records
    assert record.message.endswith("exit status 7. problem 2 | problem 3 | problem 4 | problem 5 | problem 6")
    assert "\n" not in record.message


def test_kernels_are_built_anew_for_another_compiler_or_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = '[ "$1" = --version ] && echo {} && exit; while [ "$1" != -o ]; do shift; done; : > "$2"'
    built = []
    for version, features in ((1, "asimd"), (2, "asimd"), (2, "asimd sve"), (2, "asimd sve")):
        a_compiler(tmp_path, monkeypatch, script.format(version))
        monkeypatch.setattr(kernels, "_cpu_features", lambda features=features: features)
        built.append(kernels._compile(str(tmp_path / "bin" / "gcc")))
    assert len(set(built)) == 3
    assert built[2] == built[3]


def test_features_are_read_on_arm_too(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    assert kernels._cpu_features(info) == ""
    for line in ("flags\t\t: fpu avx2", "Features\t: fp asimd sve"):
        info.write_text(f"processor\t: 0\n{line}\nprocessor\t: 1\n{line}\n")
        assert kernels._cpu_features(info) == line


def test_buffers_that_hold_two_types_by_turns_are_no_undefined_behaviour() -> None:
    assert "-fno-strict-aliasing" in kernels._FLAGS


@pytest.mark.parametrize("home", ["none", "unwritable"])
def test_users_without_a_home_get_kernels_too(home: str, tmp_path: Path) -> None:
    """As in containers that run under any user id."""
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME")}
    if home == "unwritable":
        (tmp_path / "file").touch()
        environment["XDG_CACHE_HOME"] = str(tmp_path / "file")
    code = (
        "import pwd\n"
        "def nobody(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = nobody\n"
        "from tdmpc_ray.core.nn import kernels\n"
        "assert kernels.library() is not None\n"
        "print(kernels._own_folder())\n"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert not Path(printed.strip()).exists()  # gone with the process
