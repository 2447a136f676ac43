"""Prefix tuning (Li and Liang 2021, arXiv 2101.00190) with PEFT's prompt encoder on the backbone.

In every attention layer `tokens` learned keys and values stand before those of the text; they come out
of PEFT's `PrefixEncoder` with projection: Embedding(tokens, d) -> Linear(d, 512) -> Tanh ->
Linear(512, layers * 2 * d), with d = key-value heads * head width. It trains
tokens*d + 512*(d + 1) + 2*layers*d*(512 + 1) numbers: 2,564,096 on MiniLM-L6 (d = 384, 6 layers, 8 tokens).

Differs from the released code (OpenDelta), whose embedding is 512 wide whatever the model:
tokens*512 + 512*(512 + 1) + 2*layers*d*(512 + 1), which is 2,630,656 on MiniLM-L6. Activations, the last
linear map and the start distributions (N(0, 1) embedding, torch's default for linear maps) are the same.

Differs from PEFT's own `PeftModel`, which hands the prefix over as a key-value cache: here the text keeps
its pre-trained positions 0, 1, 2 ... as in the released code (in PEFT they start after the prefix, so that
BERT's 512 positions do not hold 512 tokens any more), and models without a cache (ModernBERT) work too.
With positions shifted alike both give the same numbers. Keys are used as learned, without rotation, in both.

Where it acts: the backbone hands the prefix down to its attention function, which transformers looks up
by name; the function here prepends it and widens the mask. So it works wherever the backbone is called,
for encoders and decoders, grouped queries and sliding windows; a probe proves that every layer used it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from peft import PrefixEncoder, PrefixTuningConfig
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from bench.core.errors import CellError
from bench.victim.loading import quiet
from bench.victim.victim import Victim

PROJECTION_WIDTH = 512  # of the released code
ATTENTION = "bench_prefix"  # the name under which transformers finds the attention function below


def attach_prefix(
    victim: Victim, tokens: int, *, seed: int, width: int = PROJECTION_WIDTH, train_head: bool = False
) -> None:
    """Change `victim` in place: a learned prefix of `tokens`; nothing else trains but, if asked, the head.

    Raises:
        CellError: an architecture in which some layer does not use the prefix.
    """
    victim.freeze()
    insert_prefix(victim.backbone, tokens, torch.Generator().manual_seed(seed), width)
    victim.attached.append(f"{victim.model.base_model_prefix}.prefix")
    if train_head:
        victim.train_head()


class PrefixStates:
    """The prefix of one forward pass: `layers` [layers, 2, heads, tokens, head width], and which layers took it."""

    def __init__(self, layers: torch.Tensor) -> None:
        self.layers = layers
        self.used: set[int] = set()


class Prefix(nn.Module):
    """The trainable part: PEFT's prompt encoder and the shape of what it encodes."""

    def __init__(self, config: Any, tokens: int, width: int, generator: torch.Generator) -> None:
        """Build for a backbone with this transformers `config`; draw on the CPU from `generator` alone."""
        super().__init__()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        # Qwen3's heads are wider than hidden size / heads; the config says so.
        head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.shape = (tokens, config.num_hidden_layers, 2, heads, head_width)
        self.peft_config = PrefixTuningConfig(
            task_type="FEATURE_EXTRACTION",
            num_virtual_tokens=tokens,
            num_layers=config.num_hidden_layers,
            num_attention_heads=heads,
            token_dim=heads * head_width,
            num_transformer_submodules=1,
            encoder_hidden_size=width,
            prefix_projection=True,
        )
        with torch.device("meta"):  # the constructor would draw from the global generator
            self.encoder = PrefixEncoder(self.peft_config)
        self.encoder.to_empty(device="cpu")
        _draw(self.encoder, generator)

    def forward(self) -> PrefixStates:
        """Return the keys and values of every layer; they carry gradients."""
        tokens = torch.arange(self.shape[0], device=self.encoder.embedding.weight.device)
        return PrefixStates(self.encoder(tokens).view(self.shape).permute(1, 2, 3, 0, 4))


@torch.no_grad()
def _draw(encoder: PrefixEncoder, generator: torch.Generator) -> None:
    """Fill the encoder from torch's default distributions: N(0, 1) and U(-1/sqrt(inputs), 1/sqrt(inputs))."""
    encoder.embedding.weight.normal_(generator=generator)
    for linear in (encoder.transform[0], encoder.transform[-1]):
        bound = 1 / math.sqrt(linear.in_features)
        linear.weight.uniform_(-bound, bound, generator=generator)
        linear.bias.uniform_(-bound, bound, generator=generator)


def _hand_down(backbone: nn.Module, arguments: tuple, options: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    # A prefix that is there already is the probe's.
    return arguments, {"prefix": backbone.prefix(), **options}


def attend_with_prefix(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    prefix: PrefixStates | None = None,
    **options: Any,  # transformers hands every attention function what any of them might want
) -> tuple[torch.Tensor, None]:
    """Attend to the layer's prefix and to what the mask lets through.

    `query` [batch, heads, length, head width], `key` and `value` [batch, key-value heads, length, head
    width]; the mask is boolean (True = visible) or additive, [batch, 1, length, length], or None.
    """
    if prefix is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    index = getattr(module, "layer_idx", None)
    if index is None:  # DistilBERT's and ALBERT's attention does not know its layer; layers are called in order
        index = len(prefix.used)
        if index == len(prefix.layers):
            raise CellError(
                f"The layers of {type(module).__name__} are called again, and do not know which they are.",
                "Leave model.checkpointing out.",
            )
    prefix.used.add(index)
    layer = prefix.layers[index].to(key.dtype)
    ahead_key, ahead_value = layer[:, None].expand(2, key.shape[0], *layer.shape[1:])
    causal = options.pop("is_causal", None)
    causal = getattr(module, "is_causal", True) if causal is None else causal
    mask = _widened(attention_mask, causal, query, tokens=layer.shape[2])
    key, value = torch.cat([ahead_key, key], dim=2), torch.cat([ahead_value, value], dim=2)
    return sdpa_attention_forward(module, query, key, value, mask, is_causal=False, **options)


def _widened(mask: torch.Tensor | None, causal: bool, query: torch.Tensor, tokens: int) -> torch.Tensor | None:
    """Return the mask with `tokens` visible columns in front; None still means that everything is visible."""
    if mask is None:
        if not causal:
            return None
        length = query.shape[2]
        mask = torch.ones(1, 1, length, length, dtype=torch.bool, device=query.device).tril()
    return nn.functional.pad(mask, (tokens, 0), value=True if mask.dtype == torch.bool else 0.0)


def insert_prefix(backbone: nn.Module, tokens: int, generator: torch.Generator, width: int) -> None:
    """Change `backbone` in place: every forward pass has a learned prefix, which hangs below it as `prefix`.

    Nothing is frozen here.

    Raises:
        CellError: an architecture in which some layer does not use the prefix.
    """
    AttentionInterface.register(ATTENTION, attend_with_prefix)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    like = next(backbone.parameters())
    backbone.add_module("prefix", Prefix(backbone.config, tokens, width, generator).to(like.device))
    backbone.register_forward_pre_hook(_hand_down, with_kwargs=True)
    with quiet():
        backbone.set_attn_implementation(ATTENTION)
        reached = _layers_reached(backbone)
    if len(reached) != backbone.config.num_hidden_layers:
        raise CellError(
            f"Prefix tuning reaches {len(reached)} of {backbone.config.num_hidden_layers} layers of"
            f" {type(backbone).__name__}: the others do not attend through transformers' attention interface.",
            "Use another parameter-efficient defense with this model.",
        )


@torch.no_grad()
def _layers_reached(backbone: nn.Module) -> set[int]:
    """Return the layers that take the prefix in a forward pass of two tokens; no dropout, no randomness."""
    training = backbone.training
    backbone.eval()
    states = backbone.prefix()
    ids = torch.zeros(1, 2, dtype=torch.long, device=states.layers.device)
    backbone(input_ids=ids, attention_mask=torch.ones_like(ids), prefix=states)
    backbone.train(training)
    return states.used
