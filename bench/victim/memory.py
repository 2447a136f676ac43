"""How much memory a training takes, from the numbers of the model alone; no torch here.

Counted are the tensors of the training loop on its device: weights, gradients, AdamW's two moments, the best
checkpoint that the loop keeps of what trains, bf16 copies of fp32 weights under autocast, what the layers keep for the
backward pass, and an allowance for what a layer computes with. Left out: the device's own context (0.3 to 0.6 GB on a
GPU) and what the allocator loses to fragments, for which the 20 % are that a plan leaves free by default.

What a layer keeps was read off the graph of each architecture with `saved_tensors_hooks`; a test compares it with
such a count. It holds for attention that keeps no scores (SDPA's flash and memory-efficient kernels). The unpadded pass
keeps as much for texts that are all as long, or up to a fifth less, and besides: scores where attention has dropout of
its own, and one bf16 copy of every frozen matrix for as long as the training lasts.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from bench.victim.shapes import Shape

LOOK_BATCH = 128  # texts in an evaluation batch on a GPU


@dataclass(frozen=True)
class Trained:
    """What of a model trains: the whole of it, or what a defense inserted (sizes of 0 are absent)."""

    whole: bool = False
    lora_rank: int = 0
    lora_targets: tuple[str, ...] = ()
    adapter_dim: int = 0
    adapter_sites: tuple[str, ...] = ()
    prefix_tokens: int = 0
    prefix_width: int = 0
    scales: int = 0  # rows of the multi-scale module
    head: bool = False  # beside what is inserted
    aligned: bool = False  # the step needs the gradient of clean rows too


@dataclass(frozen=True)
class Load:
    """One training step: how many texts of how many tokens, in which numbers."""

    batch: int
    length: int
    bf16: bool = False  # autocast
    bf16_weights: bool = False  # of what is frozen
    checkpointing: bool = False
    paper_head: bool = False
    classes: int = 2
    unpadded: bool = False  # in the pass of bench/victim/joint, of texts that are all as long
    shards: int = 1  # devices that share the batch and what trains

    @property
    def tokens(self) -> int:
        """Padded tokens of the batch."""
        return self.batch * self.length

    @property
    def number(self) -> int:
        """Bytes of a number in the layers."""
        return 2 if self.bf16 else 4

    @property
    def stream(self) -> int:
        """Bytes of a number in the residual stream, which autocast over fp32 weights leaves in fp32."""
        return 2 if self.bf16_weights else 4


@dataclass(frozen=True)
class Memory:
    """Bytes by use; `peak` is the most at one time, in a step or while selection rows are evaluated."""

    weights: int
    gradients: int
    moments: int
    kept: int  # the best checkpoint of what trains
    copies: int  # of weights, in bf16
    activations: int
    working: int
    look: int  # what an evaluation takes besides
    gathered: int = 0  # of a sharded model: what a device holds of it whole for the layers that compute

    @property
    def peak(self) -> int:
        """Return the larger of a step and a look, in which a second checkpoint is made before the first goes."""
        step = sum(getattr(self, field.name) for field in fields(self)) - self.look
        return max(step, self.weights + self.moments + 2 * self.kept + self.look + self.gathered)


def estimate(shape: Shape, trained: Trained, load: Load) -> Memory:
    """Return the memory of training `trained` on a model of this shape, on each device where it is sharded."""
    if load.shards > 1:
        return _sharded(shape, trained, load)
    head = shape.head(load.paper_head, load.classes)
    backbone = shape.backbone()
    training = trainable(shape, trained, load)
    frozen = 0 if trained.whole else backbone
    inserted = training - (0 if trained.whole else _training_head(shape, trained, load))
    weights = 4 * training if trained.whole else load.stream * frozen + 4 * (head + inserted)
    layer = _layer(shape, trained, load)
    copies = _copies(shape, trained, load, head, inserted)
    # The unpadded pass holds its copies of frozen matrices always, and an evaluation by transformers makes its own.
    standing = 2 * shape.mapped() if load.unpadded and load.bf16 and not (load.bf16_weights or trained.whole) else 0
    activations = shape.layers * layer
    if load.checkpointing:
        activations = layer + shape.layers * load.stream * load.tokens * shape.width
    ends = load.tokens * shape.width * (load.stream + (4 if trained.whole else 0))
    working = load.number * 3 * shape.inner + 4 * 4 * shape.width
    return Memory(
        weights=weights,
        gradients=4 * training * (3 if trained.aligned else 1),
        moments=8 * training,
        kept=4 * training,
        copies=copies,
        activations=activations + ends,
        working=working * load.tokens,
        look=working * LOOK_BATCH * load.length + copies + standing,
    )


def _sharded(shape: Shape, trained: Trained, load: Load) -> Memory:
    """Return the memory of each device: its part of what trains, and what is gathered while layers compute.

    `fully_shard` gathers a layer ahead of time, and copies what it has gathered into place: three layers count, in the
    numbers that they are gathered in. With the gradient of one layer, whole, and once more in fp32 to be added up; and
    the embedding, gathered in fp32 from the first layer to the last, with its gradient. The best checkpoint is kept in
    the memory of the host.
    """
    whole = estimate(shape, trained, replace(load, shards=1, batch=-(-load.batch // load.shards)))
    layer = shape.mapped() // shape.layers
    ends = trainable(shape, trained, load) - shape.mapped()
    return replace(
        whole,
        weights=-(-whole.weights // load.shards),
        gradients=-(-whole.gradients // load.shards),
        moments=-(-whole.moments // load.shards),
        kept=0,
        copies=2 * shape.head(load.paper_head, load.classes) if load.bf16 else 0,
        look=whole.look - whole.copies,
        gathered=(4 * load.number + 4) * layer + 8 * ends,
    )


def evaluation(shape: Shape, load: Load) -> int:
    """Return the bytes that a whole model trained in fp32 takes on one device to be evaluated."""
    found = estimate(shape, Trained(whole=True), replace(load, shards=1, checkpointing=False))
    return found.weights + found.look


def trainable(shape: Shape, trained: Trained, load: Load) -> int:
    """Return how many numbers train."""
    if trained.whole:
        return shape.backbone() + shape.head(load.paper_head, load.classes)
    count = _training_head(shape, trained, load)
    for one in shape.matching(trained.lora_targets):
        count += shape.layers * trained.lora_rank * (one.inputs + one.outputs)
    for one in shape.matching(trained.adapter_sites):
        count += shape.layers * (trained.adapter_dim * (2 * one.outputs + 1) + one.outputs)
    if trained.prefix_tokens:
        d, hidden = shape.keys, trained.prefix_width
        count += trained.prefix_tokens * d + hidden * (d + 1) + 2 * shape.layers * d * (hidden + 1)
    if trained.scales:
        outputs = 16 if load.paper_head else shape.width
        count += trained.scales * (shape.width + outputs)
    return count


def _training_head(shape: Shape, trained: Trained, load: Load) -> int:
    """Return how many numbers of the head train beside what is inserted: not a linear inside a multi-scale module."""
    if not trained.head:
        return 0
    inside = shape.penultimate_in_head(load.paper_head) if trained.scales else 0
    return shape.head(load.paper_head, load.classes) - inside


def _copies(shape: Shape, trained: Trained, load: Load, head: int, inserted: int) -> int:
    """Return the bytes of the bf16 copies that autocast makes of fp32 weights and the graph keeps."""
    if not load.bf16:
        return 0
    mapped = 0 if load.bf16_weights else shape.mapped()
    if load.checkpointing and not load.unpadded:  # a layer's copies go with it
        mapped //= shape.layers
    # The unpadded pass computes a prefix in fp32.
    copied = 0 if trained.whole or (load.unpadded and trained.prefix_tokens) else inserted
    return 2 * (mapped + head + copied)


def _layer(shape: Shape, trained: Trained, load: Load) -> int:
    """Return the bytes that one layer keeps for the backward pass."""
    c, s, w, i = load.number, load.stream, shape.width, shape.inner
    whole = int(trained.whole)
    if shape.kind in ("llama", "qwen2", "qwen3"):
        # Gate, its activation, up; queries, repeated keys and values, context; RMS norms compute in fp32.
        token = c * (3 * i + 4 * shape.queries) + 2 * w * (4 + s * whole)
        if shape.kind == "qwen3":
            token += (shape.queries + shape.keys) * (4 + c * whole)
    elif shape.kind == "gpt2":
        # Queries, keys, values in one; context and two dropout masks; GELU written out keeps four tensors.
        token = c * (6 * w + 4 * i) + 2 * w * s
        token += 2 * w * c if trained.prefix_tokens else 0
    elif shape.kind == "modernbert":
        token = c * (6 * w + 3 * i) + 2 * w * s
    else:
        token = c * (6 * w + i) + 2 * w * s
    token += c * _read_inputs(shape, trained, load)
    for one in shape.matching(trained.adapter_sites):
        token += c * (one.outputs + 2 * trained.adapter_dim)
    token += 4 * shape.heads  # the softmax's sums
    pairs = load.batch * load.length * (load.length + trained.prefix_tokens)
    mask = c * pairs
    if load.unpadded and shape.kind in ("bert", "roberta", "gpt2"):  # probabilities, what dropout leaves of them, masks
        mask += (4 + 2 * c) * shape.heads * pairs
    return token * load.tokens + mask + 2 * c * load.batch * trained.prefix_tokens * shape.queries


def _read_inputs(shape: Shape, trained: Trained, load: Load) -> int:
    """Return how many numbers a token are kept for the weights that train: what each linear map reads.

    In fp32 maps that read the same tensor keep it once, in bf16 each keeps its own copy. The context is kept anyway.
    """
    readers = list(shape.linears().values()) if trained.whole else shape.matching(trained.lora_targets)
    low_rank = 0 if trained.whole else trained.lora_rank * len(readers)
    wide = [one for one in readers if one.reads != "context"]
    if load.bf16:
        copied = [one for one in wide if one.reads != "product"]
        products = {one.inputs for one in wide if one.reads == "product"}
        return sum(one.inputs for one in copied) + sum(products) + low_rank
    return sum({one.reads: one.inputs for one in wide}.values()) + low_rank
