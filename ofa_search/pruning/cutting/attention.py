"""`nn.MultiheadAttention` with fewer heads than it was made with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class PrunedAttention(nn.MultiheadAttention):
    """The same parameters and the same results, for any number of heads: they need not add up to the embedding.

    That of torch computes the size of a head from the embedding, and checks that they fit.
    """

    @classmethod
    def replace(cls, module: nn.MultiheadAttention) -> None:
        """Make a module one of these, in place. Those with extra keys stay as they are."""
        if module.bias_k is None and module.bias_v is None and not module.add_zero_attn:
            module.__class__ = cls

    @property
    def _qkv_same_embed_dim(self) -> bool:
        """Layers around it ask for this before they use a faster kernel, which does the same checks."""
        return False

    @_qkv_same_embed_dim.setter
    def _qkv_same_embed_dim(self, value: bool) -> None:
        """Set by torch."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As that of torch."""
        batched = query.dim() == 3
        projected = self._projected(query, key, value)
        if not batched:
            projected = [each.unsqueeze(0) for each in projected]
        elif not self.batch_first:
            projected = [each.transpose(0, 1) for each in projected]
        q, k, v = (self._heads(each) for each in projected)
        mask = self._mask(key_padding_mask, attn_mask, q, k.shape[2], is_causal)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) / self.head_dim**0.5
            weights = (scores if mask is None else scores + mask).softmax(-1)
            mixed = functional.dropout(weights, dropout) @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v, mask, dropout)
        out = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if not batched:
            return out.squeeze(0), None if weights is None else weights.squeeze(0)
        return (out if self.batch_first else out.transpose(0, 1)), weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """Queries, keys and values, (N, length, heads * size) each."""
        inputs, bias = (query, key, value), self.in_proj_bias
        if self.in_proj_weight is not None and query is key is value:
            return list(functional.linear(query, self.in_proj_weight, bias).chunk(3, -1))
        if self.in_proj_weight is not None:
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases = (None,) * 3 if bias is None else bias.chunk(3)
        return [functional.linear(*each) for each in zip(inputs, weights, biases, strict=True)]

    def _heads(self, tokens: Tensor) -> Tensor:
        return tokens.reshape(*tokens.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)

    def _mask(
        self, padding: Tensor | None, mask: Tensor | None, query: Tensor, keys: int, is_causal: bool
    ) -> Tensor | None:
        """What is added to the scores, (N or 1, heads or 1, queries, keys)."""
        if mask is None and is_causal:
            mask = torch.ones(query.shape[2], keys, dtype=torch.bool, device=query.device).triu(1)
        added = None if mask is None else _as_bias(mask, query)
        if added is not None and added.dim() == 3:  # (N * heads, queries, keys)
            added = added.reshape(query.shape[0], -1, *added.shape[1:])
        if padding is not None:
            hidden = _as_bias(padding, query).reshape(-1, 1, 1, keys)
            added = hidden if added is None else added + hidden
        return added


def _as_bias(mask: Tensor, like: Tensor) -> Tensor:
    """Where a mask of booleans is true, nothing is looked at."""
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))
