"""What a victim computes of many texts, in batches of like length: last hidden states and penultimate features."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from bench.core.errors import CellError
from bench.core.memory import part_size
from bench.victim.batching import by_tokens
from bench.victim.victim import Victim

# Padded tokens of one batch where the unpadded pass is not taken. A GPU wants few launches; a CPU wants the activations
# in its cache: with MiniLM on one core, batches of 2,048 take 0.6 of the time of 16,384.
TOKENS, CPU_TOKENS = 16384, 2048


def last_states(victim: Victim, texts: Sequence[str]) -> Tensor:
    """Return the last hidden state, fp32 [n, width] on the victim's device, of [CLS] or a decoder's last real token.

    What `Victim.hidden` returns, unpadded where that can be done.

    Raises:
        CellError: a state that is not finite.
    """
    unpadded = victim.reader()
    if unpadded is not None:
        return _finite(unpadded.collect(victim.encode_texts(texts), lambda encoder: encoder.states()))
    return _collected(victim, texts, victim.state)


def penultimate(victim: Victim, texts: Sequence[str]) -> Tensor:
    """Return what the last linear map of the classifier reads, fp32 [n, width], without dropout.

    BERT: the pooler's output, tanh included. RoBERTa, ModernBERT: the output of the head's dense layer and
    activation. A decoder: of its last real token, the 16 numbers between the two linear maps of the paper's head, or
    the last hidden state with the plain head.

    Raises:
        CellError: the head holds no linear map to the classes, or a feature that is not finite.
    """
    unpadded = victim.reader()
    if unpadded is not None:
        return _finite(unpadded.collect(victim.encode_texts(texts), lambda encoder: encoder.features()))
    seen: list[Tensor] = []
    hook = classifier(victim).register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))

    def compute(inputs: dict[str, Tensor]) -> Tensor:
        seen.clear()
        victim(inputs, hidden_states=False)
        return seen[-1]

    try:
        return _collected(victim, texts, compute)
    finally:
        hook.remove()


def classifier(victim: Victim) -> nn.Linear:
    """Return the last linear map to the classes in the head.

    Raises:
        CellError: there is none.
    """
    modules = [module for part in victim.head for module in victim.model.get_submodule(part).modules()]
    found = [module for module in modules if isinstance(module, nn.Linear) and module.out_features == victim.classes]
    if not found:
        raise CellError(
            f"The head of model {victim.spec.name!r} has no linear map to its {victim.classes} classes.",
            "Choose a model whose classifier ends in one.",
        )
    return found[-1]


def _collected(victim: Victim, texts: Sequence[str], compute: Callable[[dict[str, Tensor]], Tensor]) -> Tensor:
    training, encoded = victim.training, victim.encode_texts(texts)
    order: list[int] = []
    parts: list[Tensor] = []
    tokens = CPU_TOKENS if victim.device.type == "cpu" else TOKENS
    victim.eval()
    try:
        with torch.inference_mode(), victim.autocast():
            for rows in by_tokens(encoded, part_size(tokens)):
                parts.append(compute(encoded.batch(rows, victim.device).inputs).float())
                order.extend(rows)
    finally:
        victim.train(training)
    found = torch.cat(parts)
    return _finite(found[torch.tensor(order, device=found.device).argsort()])


def _finite(found: Tensor) -> Tensor:
    if not bool(torch.isfinite(found).all()):
        raise CellError("The victim's hidden states are not finite.", "Lower its learning rate, or use fp32.")
    return found
