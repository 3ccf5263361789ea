"""Dropout from bytes: the same in the mean, the same mask forwards and backwards, and gone when training ends."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from idgr.engine.dropout import drop, dropout_rate
from idgr.models.backbone import Backbone


def swapped(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if "Dropout" in type(module).__name__]


def test_the_share_and_the_mean_are_kept_and_the_gradient_has_the_same_mask(small: Backbone) -> None:
    with dropout_rate(small.model, 0.25):
        byte_drop = swapped(small.model)[0].train()
        ones = torch.ones(997, 101, requires_grad=True)
        torch.manual_seed(0)
        out = byte_drop(ones)
        out.sum().backward()
    assert ones.grad is not None
    assert torch.equal(ones.grad, out.detach())
    assert (out == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert out.mean().item() == pytest.approx(1.0, abs=0.01)
    assert out.detach().unique().tolist() == [0.0, pytest.approx(1 / 0.75)]


def test_draws_follow_the_global_seed(small: Backbone) -> None:
    with dropout_rate(small.model, 0.1):
        byte_drop = swapped(small.model)[0].train()
        drawn = []
        for seed in (5, 5, 6):
            torch.manual_seed(seed)
            drawn.append(byte_drop(torch.ones(64, 3)))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_nothing_is_dropped_in_evaluation_or_at_rate_0(small: Backbone) -> None:
    prompt = torch.tensor([[5, 6, 1]])
    before = small.model.eval()(input_ids=prompt, labels=prompt).logits
    with dropout_rate(small.model, 0.5):
        assert torch.equal(small.model(input_ids=prompt, labels=prompt).logits, before)
        assert not torch.equal(small.model.train()(input_ids=prompt, labels=prompt).logits, before)
    with dropout_rate(small.model, 0.0):
        assert torch.equal(small.model.train()(input_ids=prompt, labels=prompt).logits, before)


def test_no_rate_drops_everything(small: Backbone) -> None:
    """A rate that rounds to one would leave nothing to scale."""
    ones = torch.ones(64, 64)
    torch.manual_seed(0)
    with dropout_rate(small.model, 0.999):
        most = swapped(small.model)[0].train()(ones)
    for dropped in (most, drop(ones, 0.999)):
        assert dropped.isfinite().all()
        assert 0 < (dropped > 0).float().mean().item() < 0.02


def test_the_model_is_afterwards_as_before(small: Backbone) -> None:
    rates = [module.p for module in swapped(small.model)]
    with pytest.raises(ZeroDivisionError), dropout_rate(small.model, 0.3):
        raise ZeroDivisionError
    assert all(type(module) is nn.Dropout for module in swapped(small.model))
    assert [module.p for module in swapped(small.model)] == rates
    assert {getattr(module, "dropout", None) for module in small.model.modules() if hasattr(module, "n_heads")} == {0.1}
