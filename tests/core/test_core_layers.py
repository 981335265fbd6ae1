"""The ensemble's product and its gradients, against `torch.bmm`."""

import pytest
import torch

from tdmpc_ray.core.nn.layers import EnsembleMLP, ensemble_product

torch.set_num_threads(1)


@pytest.mark.parametrize(("shared", "constant"), [(True, 0), (True, 4), (False, 0)])
@pytest.mark.parametrize("autocast", [True, False])
def test_gradients_are_those_of_bmm(shared: bool, constant: int, autocast: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(9, 7) if shared else torch.randn(3, 9, 7)
    weight, weights = torch.randn(3, 5, 7), torch.randn(3, 9, 5)

    def run(ours: bool) -> tuple[torch.Tensor, ...]:
        leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            if ours:
                y = ensemble_product(*leaves, constant)
            else:
                y = torch.bmm(leaves[0].expand(3, -1, -1), leaves[1].mT)
        return (y.detach(), *torch.autograd.grad((y.float() * weights).sum(), leaves))

    (y, dx, dw), (y_bmm, dx_bmm, dw_bmm) = run(True), run(False)
    dx_bmm[..., :constant] = 0
    assert (y.dtype, dx.dtype, dw.dtype) == (y_bmm.dtype, torch.float32, torch.float32)
    assert dw.is_contiguous()
    tolerance = 2e-2 if autocast else 1e-5  # bfloat16 sums over heads are rounded in another order
    for a, b in ((y, y_bmm), (dx, dx_bmm), (dw, dw_bmm)):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=2 * tolerance)


def test_detached_heads_pass_gradients_to_their_input_alone() -> None:
    torch.manual_seed(0)
    heads = EnsembleMLP(5, 6, [8, 8], 4, dropout=0.0)
    for layer in heads.layers:
        torch.nn.init.normal_(layer.weight)
    known, action = torch.randn(3, 2, 4), torch.randn(3, 2, 2, requires_grad=True)
    chosen = torch.tensor([3, 1])

    def grad(**how: int | bool) -> torch.Tensor:
        y = heads(torch.cat([known, action], -1), chosen, **how)
        assert y.shape == (2, 3, 2, 4)
        return torch.autograd.grad(y.square().sum(), action)[0]

    torch.testing.assert_close(grad(detach=True, constant=4), grad())
    heads(torch.cat([known, action], -1), chosen, detach=True).sum().backward()
    assert all(p.grad is None for p in heads.parameters())


def test_dropout_is_on_the_first_hidden_layer_in_training_alone() -> None:
    torch.manual_seed(0)
    heads, x = EnsembleMLP(2, 6, [256, 256], 4, dropout=0.5), torch.randn(32, 6)
    for layer in heads.layers:
        torch.nn.init.normal_(layer.weight)
    assert [layer.dropout for layer in heads.layers] == [0.5, 0.0, 0.0]
    assert not torch.equal(heads(x), heads(x))
    first, quiet = heads.layers[0](x), heads.layers[0].eval()(x)
    # What is dropped is zero before the LayerNorm: one value for all of a row.
    dropped = (first == first.mode(-1, keepdim=True).values).float().mean()
    assert dropped == pytest.approx(0.5, abs=0.03)
    assert len(quiet[0, 0].unique()) == 256
    heads.eval()
    assert torch.equal(heads(x), heads(x))
