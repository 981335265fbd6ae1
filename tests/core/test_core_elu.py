"""What follows a product in TD-MPC, fused, against the same as plain PyTorch operations."""

from __future__ import annotations

import pytest
import torch
from fused import both

from tdmpc_ray.core.nn import kernels
from tdmpc_ray.core.nn.elu import EluMLP, bias_elu


@pytest.mark.parametrize("shape", [(5, 7, 24), (3, 11, 48)])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_bias_and_elu_and_norm_and_tanh(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], scale: float
) -> None:
    torch.manual_seed(0)
    of_heads = (3, 48) if shape[-1] == 48 else (24,)
    x, c, b = torch.randn(shape) * scale, torch.randn(of_heads), torch.randn(of_heads)
    w = torch.rand(of_heads) + 0.5
    with monkeypatch.context() as patch:
        both(patch, bias_elu, x, c)
    both(monkeypatch, lambda *t: kernels.norm_act(*t, simnorm_dim=kernels.TANH), x, c, w, b)


def test_bfloat16_is_float32_rounded_and_what_is_no_number_stays() -> None:
    x, c = torch.tensor([[-90.0, -1.5, 0.0, 2.5, float("nan"), -float("inf")]]), torch.full((6,), 0.25)
    y = bias_elu(x.bfloat16(), c)
    torch.testing.assert_close(y, torch.nn.functional.elu(x + c).bfloat16(), equal_nan=True)


def test_a_network_is_its_layers_one_after_the_other() -> None:
    torch.manual_seed(0)
    network, x = EluMLP(5, 16, 16, 2), torch.randn(3, 4, 5)
    expected = x
    for layer in network:
        expected = layer(expected)
    torch.testing.assert_close(network(x), expected)
    assert [*network.state_dict()] == [f"{i}.{name}" for i in (0, 2, 4) for name in ("weight", "bias")]
