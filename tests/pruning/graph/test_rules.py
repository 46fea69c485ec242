"""Small networks, one for each thing that decides what can be removed."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.pruning_nets import deviation_of_cut, half_of, hide_nothing
from torch import Tensor, nn
from torch.nn import functional

from ofa_profiler.errors import UsageError
from ofa_search.pruning.graph.find import find_groups
from ofa_search.pruning.groups import CHANNELS, CONV_GROUPS, HEADS, Dependencies

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """Two convolutions with a function of the user between them."""

    def __init__(self, between: Callable[[nn.Module, Tensor], Tensor], read: int = 8, **layers: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.last = nn.Conv2d(read, 4, 1)
        self.between = between
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.between(self, self.first(x)))
        return out


def found(network: nn.Module, x: Tensor = IMAGE) -> Dependencies:
    """The groups, after cutting them changed nothing."""
    torch.manual_seed(0)
    hide_nothing(network.eval())
    dependencies = find_groups(network, x)
    for seed in range(2):
        assert deviation_of_cut(network, x, dependencies, half_of(dependencies, seed)) <= 1e-5
    return dependencies


def units(dependencies: Dependencies) -> dict[str, int]:
    return {group.name: group.n_units for group in dependencies.groups}


def reasons(dependencies: Dependencies) -> dict[str, str]:
    return {each.layer: each.reason for each in dependencies.unprunable}


def test_what_zeroing_a_unit_takes() -> None:
    (group,) = found(Net(lambda self, x: self.norm(x).relu(), norm=nn.BatchNorm2d(8))).groups
    assert (group.name, group.kind, group.n_units, group.channels) == ("first", CHANNELS, 8, 8)
    made = {axis.tensor for axis in group.made}
    assert made == {"first.weight", "first.bias", "norm.weight", "norm.bias", "norm.running_mean"}
    assert {(axis.tensor, axis.axis) for axis in group.read} == {("norm.running_var", 0), ("last.weight", 1)}
    sizes = {(size.module, size.attribute) for size in group.sizes}
    assert sizes == {("first", "out_channels"), ("norm", "num_features"), ("last", "in_channels")}


@pytest.mark.parametrize("function", [torch.sigmoid, torch.exp, lambda x: x + 1, lambda x: functional.softplus(x)])
def test_what_is_not_zero_must_not_be_read(function: Callable[[Tensor], Tensor]) -> None:
    (group,) = found(Net(lambda _self, x: function(x))).groups
    assert ("last.weight", 1) in {(axis.tensor, axis.axis) for axis in group.made}


@pytest.mark.parametrize("function", [functional.silu, torch.tanh, lambda x: x.clamp(-1, 1), lambda x: x * 2])
def test_what_stays_zero_may_be_read(function: Callable[[Tensor], Tensor]) -> None:
    (group,) = found(Net(lambda _self, x: function(x))).groups
    assert {axis.tensor for axis in group.made} == {"first.weight", "first.bias"}


def test_a_gate_goes_with_what_it_gates() -> None:
    net = Net(lambda self, x: x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid(), gate=nn.Conv2d(8, 8, 1))
    (group,) = found(net).groups
    assert group.n_units == 8
    assert {"gate.weight", "gate.bias"} <= {axis.tensor for axis in group.made}


def test_what_is_added_goes_together() -> None:
    dependencies = found(Net(lambda self, x: x + self.side(x), side=nn.Conv2d(8, 8, 3, padding=1)))
    assert units(dependencies) == {"first": 8}


def test_what_meets_the_input_stays() -> None:
    dependencies = found(Net(lambda self, x: self.side(x) + IMAGE, read=3, side=nn.Conv2d(8, 3, 1)))
    assert units(dependencies) == {"first": 8}
    assert reasons(dependencies)["side"] == "add in the network combines it with an input or a constant"


def test_outputs_stay() -> None:
    dependencies = found(Net(lambda _self, x: x))
    assert reasons(dependencies) == {"last": "is an output of the network"}


def test_concatenated_channels_are_groups_of_their_own() -> None:
    net = Net(lambda self, x: torch.cat([x, self.side(x)], 1), read=14, side=nn.Conv2d(8, 6, 1))
    assert units(found(net)) == {"first": 8, "side": 6}


def test_a_shortcut_with_padding_keeps_what_is_padded() -> None:
    net = Net(lambda self, x: self.side(x) + functional.pad(x, (0, 0, 0, 0, 2, 2)), read=12, side=nn.Conv2d(8, 12, 1))
    dependencies = found(net)
    assert units(dependencies) == {"first": 8}
    assert {(each.layer, each.channels) for each in dependencies.unprunable} == {("side", 4), ("last", 4)}


def test_depthwise_convolutions_follow() -> None:
    net = Net(lambda self, x: self.deep(x), read=16, deep=nn.Conv2d(8, 16, 3, groups=8))
    (group,) = found(net).groups
    assert (group.n_units, group.kind) == (8, CONV_GROUPS)


def test_groups_of_a_convolution_go_as_a_whole() -> None:
    net = Net(lambda self, x: self.grouped(x), read=4, grouped=nn.Conv2d(8, 4, 3, groups=2))
    (group,) = found(net).groups
    assert (group.n_units, group.kind, group.unit_channels, group.channels) == (2, CONV_GROUPS, 4, 8)
    assert ("grouped", "groups") in {(size.module, size.attribute) for size in group.sizes}


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_transposed_convolutions(groups: int) -> None:
    net = Net(lambda self, x: self.up(x), up=nn.ConvTranspose2d(8, 8, 2, 2, groups=groups))
    assert units(found(net)) == ({"first": 8, "up": 8} if groups == 1 else {"first": groups})


def test_groups_of_a_norm_go_as_a_whole() -> None:
    (group,) = found(Net(lambda self, x: self.norm(x), norm=nn.GroupNorm(4, 8))).groups
    assert (group.n_units, group.unit_channels) == (4, 2)
    assert reasons(found(Net(lambda self, x: self.norm(x), norm=nn.GroupNorm(1, 8))))["first"].startswith("group_norm")


def test_what_a_layer_norm_normalises_stays() -> None:
    net = Net(lambda self, x: self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), norm=nn.LayerNorm(8))
    assert reasons(found(net))["first"] == "layer_norm in norm normalises all of it together"


@pytest.mark.parametrize("function", [lambda x: x.softmax(1), lambda x: x - x.mean(1, keepdim=True)])
def test_what_is_compared_across_channels_stays(function: Callable[[Tensor], Tensor]) -> None:
    assert units(found(Net(lambda _self, x: function(x)))) == {}


def test_a_norm_over_channels_does_not_count_zeros() -> None:
    assert units(found(Net(lambda _self, x: functional.normalize(x, dim=1)))) == {"first": 8}


def test_unknown_operators_are_named() -> None:
    dependencies = found(Net(lambda _self, x: torch.fft.fft2(x).real))
    assert "is an operator that is not known" in reasons(dependencies)["first"]


def test_channel_shuffle_keeps_pairs() -> None:
    def shuffled(_self: nn.Module, x: Tensor) -> Tensor:
        return x.view(x.shape[0], 2, x.shape[1] // 2, *x.shape[2:]).transpose(1, 2).flatten(1, 2)

    (group,) = found(Net(shuffled)).groups
    assert (group.n_units, group.unit_channels) == (4, 2)


def test_halves_stay_equal() -> None:
    def gated(_self: nn.Module, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, 1)
        return value * gate.sigmoid()

    (group,) = found(Net(gated, read=4)).groups
    assert (group.n_units, group.unit_channels) == (4, 2)


def test_sizes_of_parts_follow() -> None:
    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 1)
            self.sizes = [2, 6]
            self.out = nn.ModuleList(nn.Conv2d(size, 4, 1) for size in self.sizes)

        def forward(self, x: Tensor) -> Tensor:
            parts = self.first(x).split(self.sizes, 1)
            return sum(layer(part) for layer, part in zip(self.out, parts, strict=True))  # type: ignore[return-value]

    assert units(found(Split())) == {"first": 8}


def test_fixed_sizes_are_found_by_trial() -> None:
    net = Net(lambda _self, x: x.view(2, 8, 64).view(2, 8, 8, 8))
    assert reasons(found(net))["first"].startswith(
        "its forward does not work without some of them: RuntimeError: shape"
    )


def test_flattened_channels_take_their_places_along() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 3, 2), nn.Linear(72, 5)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.conv(x).relu().flatten(1))
            return out

    (group,) = found(Flat()).groups
    (read,) = [axis for axis in group.read if axis.tensor == "head.weight"]
    assert (group.n_units, group.unit_channels, np.bincount(read.units).tolist()) == (8, 1, [9] * 8)


def test_a_layer_that_is_called_twice() -> None:
    net = Net(lambda self, x: self.twice(self.twice(x).relu()), twice=nn.Conv2d(8, 8, 3, padding=1))
    assert units(found(net)) == {"first": 8}


def test_weights_with_two_names() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.hidden = nn.Embedding(11, 6), nn.Linear(6, 6)
            self.head = nn.Linear(6, 11, bias=False)
            self.head.weight = self.table.weight

        def forward(self, x: Tensor) -> Tensor:
            x = self.table(x)
            out: Tensor = self.head(x + self.hidden(x).relu())
            return out

    dependencies = found(Tied(), torch.arange(6).reshape(2, 3))
    assert units(dependencies) == {"table": 6}


def test_positions_and_scales_go_with_their_channels() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Linear(12, 8), nn.Linear(8, 3)
            self.token = nn.Parameter(torch.randn(1, 1, 8))
            self.positions = nn.Parameter(torch.randn(1, 6, 8))
            self.scale = nn.Parameter(torch.randn(8))
            self.register_buffer("shift", torch.randn(8))

        def forward(self, x: Tensor) -> Tensor:
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), self.embed(x)], 1) + self.positions
            out: Tensor = self.head((x * self.scale - self.shift)[:, 0])
            return out

    (group,) = found(Positions(), TOKENS).groups
    made = {(axis.tensor, axis.axis) for axis in group.made}
    assert {("token", 2), ("positions", 2), ("scale", 0), ("shift", 0)} <= made


class Attention(nn.Module):
    """Four heads of three, in the way that an argument says."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.num_heads, self.head_dim, self.width = how, 4, 3, 12
        self.qkv, self.proj = nn.Linear(12, 36), nn.Linear(12, 12)
        self.bias_table = nn.Parameter(torch.randn(7, 4))
        self.temperature = nn.Parameter(torch.rand(4, 1, 1))
        self.register_buffer("places", torch.arange(25).reshape(5, 5) % 6, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        qkv = self.qkv(x).reshape(n, length, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0) if self.how != "indexed" else (qkv[0], qkv[1], qkv[2])
        bias = self.bias_table[self.places.view(-1)].view(5, 5, -1).permute(2, 0, 1)
        if self.how == "fused":
            out = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
        elif self.how == "einsum":
            out = torch.einsum("bhqk,bhkd->bhqd", (torch.einsum("bhqd,bhkd->bhqk", q, k) + bias).softmax(-1), v)
        else:
            out = ((q * self.temperature) @ k.transpose(-2, -1) + bias).softmax(-1) @ v
        result: Tensor = self.proj(out.transpose(1, 2).reshape(n, length, self.width))
        return result


@pytest.mark.parametrize("how", ["fused", "einsum", "plain", "indexed"])
def test_heads(how: str) -> None:
    net = nn.Sequential(Attention(how), nn.Linear(12, 2))
    heads = next(group for group in found(net, TOKENS).groups if group.kind == HEADS)
    assert (heads.name, heads.n_units, heads.unit_channels) == ("0.qkv", 4, 3)
    assert {"0.bias_table"} <= {axis.tensor for axis in heads.made}
    assert {("0", "num_heads"), ("0", "width")} <= {(size.module, size.attribute) for size in heads.sizes}


@pytest.mark.parametrize("batch_first", [True, False])
def test_multi_head_attention_of_torch(batch_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(12, 4, 20, batch_first=batch_first, dropout=0.0)
    net = nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(12, 2))
    kinds = [(group.kind, group.n_units) for group in found(net, TOKENS).groups]
    assert kinds == [(HEADS, 4), (CHANNELS, 20)] * 2


def test_tokens_are_mixed_beside_channels() -> None:
    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.up, self.down, self.head = (
                nn.LayerNorm(12),
                nn.Linear(5, 16),
                nn.Linear(16, 5),
                nn.Linear(12, 2),
            )

        def forward(self, x: Tensor) -> Tensor:
            mixed = self.down(functional.gelu(self.up(self.norm(x).transpose(1, 2)))).transpose(1, 2)
            out: Tensor = self.head((x + mixed).mean(1))
            return out

    assert units(found(Mixer(), TOKENS)) == {"up": 16}


def test_recurrent_layers_stay() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.lstm, self.head = nn.Linear(12, 8), nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.lstm(self.first(x))[0])
            return out

    dependencies = found(Recurrent(), TOKENS)
    assert units(dependencies) == {}
    assert "lstm" in reasons(dependencies)["first"]


def test_the_module_stays_as_it_is() -> None:
    net = Net(lambda self, x: self.norm(x), norm=nn.BatchNorm2d(8)).train()
    before = copy.deepcopy(net.state_dict())
    find_groups(net, (IMAGE,))
    assert all(each.training for each in net.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_what_cannot_be_traced_is_refused_in_one_line() -> None:
    class Dynamic(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if float(x.sum()) > 0 else x

    with pytest.raises(UsageError, match=r"torch\.export cannot trace Dynamic: ") as caught:
        find_groups(Dynamic(), IMAGE)
    assert "\n" not in str(caught.value)
