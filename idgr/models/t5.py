"""T5's forward pass over a model's own weights, in pieces that a search can put together.

The encoder runs once per source; cross-attention keys and values are made once per source, whatever the number of
beams; self-attention keys and values are kept from step to step. All of it runs in one precision, double if asked, with
nothing cast to single on the way.

Legend: B sources, S source tokens, N tokens of all sources together, K beams per source, X = B·K, R different rows
among them, L steps kept, D width, H heads, E width of a head, V vocabulary. Linear weights are [out, in].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from idgr.models.padding import item_mask

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration


class Attention(NamedTuple):
    """The weights of an attention layer with the norm before it."""

    norm_D: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    o: Tensor


class FeedForward(NamedTuple):
    """The weights of a feed-forward layer with the norm before it; `gate` where the activation is gated."""

    norm_D: Tensor
    inner: Tensor
    gate: Tensor | None
    outer: Tensor


class EncoderLayer(NamedTuple):
    self_attention: Attention
    feed_forward: FeedForward


class DecoderLayer(NamedTuple):
    self_attention: Attention
    cross_attention: Attention
    feed_forward: FeedForward


@dataclass(frozen=True)
class T5:
    """A T5's weights in one precision on one device; those of the module itself where it has that precision.

    `encoder_bias(q, k)` and `decoder_bias(q, k)` are the relative position biases [1, H, q, k] of all layers. With
    `causal_encoder` a token of a source sees what `idgr.models.padding.item_mask` tells, else all.
    """

    embedding_VD: Tensor
    head_VD: Tensor
    head_scale: float
    encoder: list[EncoderLayer]
    decoder: list[DecoderLayer]
    encoder_norm_D: Tensor
    decoder_norm_D: Tensor
    encoder_bias: Callable[[int, int], Tensor]
    decoder_bias: Callable[[int, int], Tensor]
    activation: Callable[[Tensor], Tensor]
    n_heads: int
    epsilon: float
    start: int
    eos: int
    pad: int
    causal_encoder: bool = False

    @property
    def device(self) -> torch.device:
        return self.embedding_VD.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding_VD.dtype


class Source(NamedTuple):
    """What decoding needs of encoded sources: keys and values of each decoder layer, and where padding is.

    `keys[layer]` and `values[layer]` are [B, H, S, E]; `mask_B11S` is 0, or minus infinity on padding.
    """

    keys: list[Tensor]
    values: list[Tensor]
    mask_B11S: Tensor


class Cache(NamedTuple):
    """Self-attention keys and values of each decoder layer, [B, K, H, L, E], filled from step 0 on."""

    keys: list[Tensor]
    values: list[Tensor]


def read_weights(model: T5ForConditionalGeneration, dtype: torch.dtype) -> T5:
    """The weights of `model` in `dtype`, copied only where they have another one. T5 and T5 1.1, gated or not."""
    config = model.config

    def weight(module: Any) -> Tensor:
        return module.weight.detach().to(dtype)  # type: ignore[no-any-return]

    def attention(layer: Any, inner: Any) -> Attention:
        return Attention(weight(layer.layer_norm), *(weight(getattr(inner, name)) for name in "qkvo"))

    def dense_layer(layer: Any) -> FeedForward:
        dense = layer.DenseReluDense
        if config.is_gated_act:
            return FeedForward(weight(layer.layer_norm), weight(dense.wi_0), weight(dense.wi_1), weight(dense.wo))
        return FeedForward(weight(layer.layer_norm), weight(dense.wi), None, weight(dense.wo))

    def bias(stack: Any) -> Callable[[int, int], Tensor]:
        def compute(query: int, key: int) -> Tensor:
            with torch.no_grad():
                return stack.block[0].layer[0].SelfAttention.compute_bias(query, key).to(dtype)  # type: ignore[no-any-return]

        return compute

    activation = model.decoder.block[0].layer[-1].DenseReluDense.act
    return T5(
        embedding_VD=weight(model.shared),
        head_VD=weight(model.lm_head),
        head_scale=config.d_model**-0.5 if config.scale_decoder_outputs else 1.0,
        encoder=[
            EncoderLayer(attention(block.layer[0], block.layer[0].SelfAttention), dense_layer(block.layer[1]))
            for block in model.encoder.block
        ],
        decoder=[
            DecoderLayer(
                attention(block.layer[0], block.layer[0].SelfAttention),
                attention(block.layer[1], block.layer[1].EncDecAttention),
                dense_layer(block.layer[2]),
            )
            for block in model.decoder.block
        ],
        encoder_norm_D=weight(model.encoder.final_layer_norm),
        decoder_norm_D=weight(model.decoder.final_layer_norm),
        encoder_bias=bias(model.encoder),
        decoder_bias=bias(model.decoder),
        # What comes out of a linear layer is nobody else's, so the usual activation may work in place.
        activation=torch.relu_ if config.dense_act_fn == "relu" else activation,
        n_heads=config.num_heads,
        epsilon=config.layer_norm_epsilon,
        start=config.pad_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id,
        eos=config.eos_token_id,
        pad=config.pad_token_id,
        causal_encoder=bool(getattr(config, "causal_encoder", False)),
    )


def encode(t5: T5, rows: Sequence[Sequence[int] | npt.NDArray[np.int32]]) -> tuple[Tensor, Tensor]:
    """Run the encoder.

    Args:
        rows: the tokens of each source, EOS included, of any lengths.

    Returns:
        The states [B, S, D], zero beyond a source's length, and the lengths [B], on the model's device.
    """
    lengths_B = torch.tensor([len(row) for row in rows])
    B, S = len(rows), int(lengths_B.max())
    places_N = (torch.arange(S) < lengths_B[:, None]).flatten().nonzero().squeeze(1).to(t5.device)
    lengths_B = lengths_B.to(t5.device)
    tokens_N = torch.from_numpy(np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])).to(t5.device)
    bias_BHSS = t5.encoder_bias(S, S) + _padding_mask(lengths_B, S, t5.dtype)
    if t5.causal_encoder:
        tokens_BS = tokens_N.new_full((B * S,), t5.pad).index_copy_(0, places_N, tokens_N).view(B, S)
        bias_BHSS = bias_BHSS.masked_fill(~item_mask(tokens_BS, t5.eos), -torch.inf)

    def padded(x_ND: Tensor) -> Tensor:
        x_BSD = x_ND.new_zeros((B * S, x_ND.shape[-1])).index_copy_(0, places_N, x_ND)
        return x_BSD.view(B, S, -1)

    # Padding is put in for the attention alone.
    x_ND = F.embedding(tokens_N, t5.embedding_VD)
    for layer in t5.encoder:
        weights = layer.self_attention
        h_ND = norm(t5, x_ND, weights.norm_D)
        q, k, v = (_heads(padded(F.linear(h_ND, w)), t5.n_heads) for w in (weights.q, weights.k, weights.v))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias_BHSS, scale=1.0)
        mixed_ND = mixed.transpose(1, 2).reshape(B * S, -1).index_select(0, places_N)
        x_ND = x_ND + F.linear(mixed_ND, weights.o)
        x_ND = x_ND + feed_forward(t5, layer.feed_forward, x_ND)
    return padded(norm(t5, x_ND, t5.encoder_norm_D)), lengths_B


def source_of(t5: T5, states_BSD: Tensor, lengths_B: Tensor) -> Source:
    """The keys and values that every decoder layer attends to, made once per source."""
    layers = [layer.cross_attention for layer in t5.decoder]
    return Source(
        keys=[_heads(F.linear(states_BSD, weights.k), t5.n_heads) for weights in layers],
        values=[_heads(F.linear(states_BSD, weights.v), t5.n_heads) for weights in layers],
        mask_B11S=_padding_mask(lengths_B, states_BSD.shape[1], t5.dtype),
    )


def new_cache(t5: T5, n_sources: int, n_rows: int, n_steps: int) -> Cache:
    """An empty cache for `n_rows` rows per source and `n_steps` steps."""
    E = t5.decoder[0].self_attention.k.shape[0] // t5.n_heads
    shape = (n_sources, n_rows, t5.n_heads, n_steps, E)

    def empty() -> list[Tensor]:
        return [torch.zeros(shape, dtype=t5.dtype, device=t5.device) for _ in t5.decoder]

    return Cache(empty(), empty())


def decode_step(
    t5: T5,
    source: Source,
    cache: Cache,
    tokens_R: Tensor,
    rows_BK: Tensor,
    first_R: Tensor,
    step: int,
    bias_1HLL: Tensor,
) -> Tensor:
    """One step of the decoder, with its keys and values put into `cache`.

    Beams that continue the same tokens of the same source are one row, of which all but the attention is computed once.

    Args:
        tokens_R: the newest token of each row.
        rows_BK: the row of each beam.
        first_R: a beam of each row, counted through B and K.
        step: the place of the newest token, from 0 for the decoder's start token.
        bias_1HLL: `t5.decoder_bias(L, L)` for at least the steps that the cache holds.

    Returns:
        The logits [R, V].
    """
    B, K = rows_BK.shape
    x_RD = F.embedding(tokens_R, t5.embedding_VD)
    bias_H1L = bias_1HLL[0, :, step : step + 1, : step + 1]
    for index, layer in enumerate(t5.decoder):
        weights = layer.self_attention
        h_RD = norm(t5, x_RD, weights.norm_D)
        q, k, v = (
            F.linear(h_RD, w).view(-1, t5.n_heads, cache.keys[index].shape[-1])[rows_BK]
            for w in (weights.q, weights.k, weights.v)
        )
        keys, values = cache.keys[index], cache.values[index]
        keys[:, :, :, step], values[:, :, :, step] = k, v
        keys, values = keys[:, :, :, : step + 1], values[:, :, :, : step + 1]
        weight_BKH1L = (torch.matmul(q.unsqueeze(3), keys.transpose(3, 4)) + bias_H1L).softmax(-1)
        mixed_XD = torch.matmul(weight_BKH1L, values).view(B * K, -1)
        x_RD = x_RD + F.linear(mixed_XD[first_R], weights.o)

        weights = layer.cross_attention
        q = _heads(F.linear(norm(t5, x_RD, weights.norm_D), weights.q)[rows_BK], t5.n_heads)
        mixed = F.scaled_dot_product_attention(
            q, source.keys[index], source.values[index], attn_mask=source.mask_B11S, scale=1.0
        )
        mixed_XD = mixed.transpose(1, 2).reshape(B * K, -1)
        x_RD = x_RD + F.linear(mixed_XD[first_R], weights.o)
        x_RD = x_RD + feed_forward(t5, layer.feed_forward, x_RD)
    return F.linear(norm(t5, x_RD, t5.decoder_norm_D) * t5.head_scale, t5.head_VD)


class T5Reader:
    """Reads sources for the search of `idgr.ids.diverse_beam`."""

    def __init__(self, t5: T5) -> None:
        self.t5, self.device = t5, t5.device

    def read(self, rows: Sequence[Sequence[int] | npt.NDArray[np.int32]]) -> tuple[Tensor, Tensor]:
        """The encoder's states [B, S, D] and the lengths [B]; see `encode`."""
        return encode(self.t5, rows)

    def batch(self, states_BSD: Tensor, lengths_B: Tensor, _rows: object = None) -> T5Batch:
        return T5Batch(self.t5, states_BSD, lengths_B)


class T5Batch:
    """Encoded sources that are answered step by step, as `idgr.ids.diverse_beam` asks for it.

    Args:
        states_BSD: the encoder's states, from `encode`.
        lengths_B: the lengths of the sources.
    """

    def __init__(self, t5: T5, states_BSD: Tensor, lengths_B: Tensor) -> None:
        self.t5, self.size = t5, len(states_BSD)
        self.start, self.eos, self.pad = t5.start, t5.eos, t5.pad
        self.device, self.dtype = t5.device, t5.dtype
        self._source = source_of(t5, states_BSD, lengths_B)

    def begin(self, n_beams: int, n_steps: int) -> None:
        self._cache = new_cache(self.t5, self.size, n_beams, n_steps)
        self._bias_1HLL = self.t5.decoder_bias(n_steps, n_steps)

    def step(self, tokens_R: Tensor, rows_BK: Tensor, first_R: Tensor, step: int) -> Tensor:
        return decode_step(self.t5, self._source, self._cache, tokens_R, rows_BK, first_R, step, self._bias_1HLL)

    def keep(self, rows: Tensor) -> None:
        keys, values, mask = self._source
        self._source = Source([k[rows] for k in keys], [v[rows] for v in values], mask[rows])
        self._cache = Cache([k[rows] for k in self._cache.keys], [v[rows] for v in self._cache.values])

    def reorder(self, parent_BK: Tensor) -> None:
        rows_B1 = torch.arange(len(parent_BK), device=parent_BK.device)[:, None]
        self._cache = Cache(
            [keys[rows_B1, parent_BK] for keys in self._cache.keys],
            [values[rows_B1, parent_BK] for values in self._cache.values],
        )


def norm(t5: T5, x: Tensor, weight_D: Tensor) -> Tensor:
    """T5's layer norm, which neither centres nor shifts."""
    return F.rms_norm(x, (x.shape[-1],), weight_D, t5.epsilon)


def feed_forward(t5: T5, weights: FeedForward, x: Tensor) -> Tensor:
    """What a feed-forward layer adds to its input, [..., D] each."""
    x = norm(t5, x, weights.norm_D)
    inner = t5.activation(F.linear(x, weights.inner))
    if weights.gate is not None:
        inner *= F.linear(x, weights.gate)
    return F.linear(inner, weights.outer)


def _heads(x_BSD: Tensor, n_heads: int) -> Tensor:
    return x_BSD.view(*x_BSD.shape[:2], n_heads, -1).transpose(1, 2)


def _padding_mask(lengths_B: Tensor, S: int, dtype: torch.dtype) -> Tensor:
    beyond_BS = torch.arange(S, device=lengths_B.device) >= lengths_B[:, None]
    return torch.zeros(beyond_BS.shape, dtype=dtype, device=lengths_B.device).masked_fill(beyond_BS, -torch.inf)[
        :, None, None
    ]
