"""The cross-entropy over all items is that of PyTorch, whatever is computed at a time, with near items and without."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from idgr.recommender import item_loss as item_loss_module
from idgr.recommender.item_loss import item_loss

Factors = tuple[Tensor, Tensor, Tensor]


@pytest.fixture
def factors() -> Factors:
    """Rows, items and targets, three of which are the same."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(10, 6, generator=generator)
    items = torch.randn(23, 6, generator=generator)
    targets = torch.tensor([4, 4, 4, 0, 22, 7, 1, 9, 3, 2])
    return hidden.requires_grad_(), items.requires_grad_(), targets


def with_gradients(loss_of: Callable[[Tensor, Tensor, Tensor], Tensor], factors: Factors) -> list[Tensor]:
    loss = loss_of(*factors)
    return [loss.detach(), *torch.autograd.grad(loss * 1.5, factors[:2])]


def plain(hidden_ND: Tensor, items_ID: Tensor, targets_N: Tensor) -> Tensor:
    return F.cross_entropy(hidden_ND @ items_ID.T, targets_N, reduction="sum")


def test_the_loss_without_a_gradient(factors: Factors) -> None:
    with torch.no_grad():
        torch.testing.assert_close(item_loss(*factors), plain(*factors))


def test_the_loss_in_bf16_is_near(factors: Factors) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        found = with_gradients(item_loss, factors)
    for rough, exact in zip(found, with_gradients(plain, factors), strict=True):
        assert rough.dtype == torch.float32
        assert (rough - exact).norm() < 0.02 * exact.norm()


def test_a_hopeless_target_costs_a_number(factors: Factors) -> None:
    hidden, items, targets = factors
    loss, *gradients = with_gradients(lambda h, e, t: item_loss(h * 1000, e, t), (hidden, items, targets))
    assert torch.isfinite(loss)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("most", [1, 25, 1 << 24])
def test_the_loss_and_its_gradient_are_those_of_cross_entropy(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(item_loss_module._MOST_SCORES, "cpu", most)
    drawn = np.random.default_rng(1)
    query = torch.tensor(drawn.normal(size=(7, 4)), dtype=torch.float32, requires_grad=True)
    vectors = torch.tensor(drawn.normal(size=(9, 4)), dtype=torch.float32, requires_grad=True)
    items = torch.from_numpy(drawn.integers(0, 9, size=7))
    wanted = F.cross_entropy(query @ vectors.T, items, reduction="sum")
    expected = torch.autograd.grad(2 * wanted, [query, vectors])
    loss = item_loss(query, vectors, items)
    found = torch.autograd.grad(2 * loss, [query, vectors])
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
    assert item_loss(query.detach(), vectors.detach(), items).item() == loss.item()
    with torch.autocast("cpu", torch.bfloat16):
        rough = item_loss(query, vectors, items)
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(wanted.item(), rel=0.02)
    for mine, theirs in zip(torch.autograd.grad(2 * rough, [query, vectors]), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0.1, atol=0.1)
