"""The attention with fewer heads, beside that of torch."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ofa_search.pruning.cutting.attention import PrunedAttention
from ofa_search.pruning.cutting.cut import apply_record, cut, zero_units
from ofa_search.pruning.graph.find import find_groups


def pair(**options: object) -> tuple[nn.MultiheadAttention, nn.MultiheadAttention]:
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(12, 4, **options).eval()  # type: ignore[arg-type]
    nn.init.normal_(theirs.in_proj_bias) if theirs.in_proj_bias is not None else None
    ours = copy.deepcopy(theirs)
    PrunedAttention.replace(ours)
    assert isinstance(ours, PrunedAttention)
    return theirs, ours


@pytest.mark.parametrize("options", [{}, {"batch_first": True}, {"bias": False}, {"kdim": 7, "vdim": 5}])
@pytest.mark.parametrize("weights", [True, False])
def test_the_same_as_that_of_torch(options: dict[str, object], weights: bool) -> None:
    theirs, ours = pair(**options)
    rng = torch.Generator().manual_seed(1)
    query, key = torch.randn(3, 5, 12, generator=rng), torch.randn(3, 5, 7 if "kdim" in options else 12, generator=rng)
    value = torch.randn(3, 5, 5 if "vdim" in options else 12, generator=rng)
    for arguments in ([query, key, value], [each[0] for each in (query, key, value)]):
        for got, expected in zip(
            ours(*arguments, need_weights=weights), theirs(*arguments, need_weights=weights), strict=True
        ):
            assert (got is None) == (expected is None)
            assert got is None or torch.allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["padding", "boolean", "float", "each head", "causal"])
@pytest.mark.parametrize("average", [True, False])
def test_masks(kind: str, average: bool) -> None:
    theirs, ours = pair(batch_first=True)
    x = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1))
    triangle = torch.ones(5, 5, dtype=torch.bool).triu(1)
    masks: dict[str, dict[str, object]] = {
        "padding": {"key_padding_mask": torch.tensor([[False] * 4 + [True], [False] * 5])},
        "boolean": {"attn_mask": triangle},
        "float": {"attn_mask": torch.rand(5, 5)},
        "each head": {"attn_mask": torch.rand(8, 5, 5)},
        "causal": {"attn_mask": triangle, "is_causal": True},
    }
    for need_weights in (True, False):
        options = {**masks[kind], "average_attn_weights": average, "need_weights": need_weights}
        for got, expected in zip(ours(x, x, x, **options), theirs(x, x, x, **options), strict=True):
            assert got is None or torch.allclose(got, expected, atol=1e-6)


def test_heads_are_cut_and_cut_again_in_a_fresh_module() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(12, 4, batch_first=True), nn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.attention(x, x, x, need_weights=False)[0])
            return out

    net, x = Net().eval(), torch.randn(2, 5, 12)
    dependencies = find_groups(net, x)
    heads = next(group for group in dependencies.groups if group.kind == "heads")
    zero_units(net, heads, np.array([1, 2]))
    expected = net(x)
    record = cut(net, dependencies, {heads.name: np.array([0, 3])})
    assert torch.allclose(net(x), expected, atol=1e-6)
    fresh = Net().eval()
    apply_record(fresh, record)
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(fresh(x), net(x))
    assert (fresh.attention.num_heads, fresh.attention.head_dim, fresh.attention.embed_dim) == (2, 3, 12)
    assert record.to_json()["attributes"]["attention"] == {"num_heads": 2}


def test_attention_with_extra_keys_stays_that_of_torch() -> None:
    module = nn.MultiheadAttention(12, 4, add_bias_kv=True)
    PrunedAttention.replace(module)
    assert type(module) is nn.MultiheadAttention


def test_attention_is_exported_alike_with_all_heads() -> None:
    network = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0).eval()
    x = torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(0))
    expected = network(x)
    record = cut(network, find_groups(network, x), {})
    assert isinstance(network.self_attn, PrunedAttention)
    assert not record.tensors
    assert torch.allclose(network(x), expected, atol=1e-6)
