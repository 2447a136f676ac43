"""The model under attack: one interface over encoder and decoder classifiers."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.core.errors import CellError
from bench.core.example import Example
from bench.core.memory import part_size
from bench.victim.batching import Encoded, encode
from bench.victim.head import classify_last, last_real
from bench.victim.spec import ModelSpec

if TYPE_CHECKING:
    from bench.victim.joint.reading import Reader

SAVED = "weights.safetensors"


def embedded(block: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return what an embedding block, or a copy of it, makes of model inputs: [batch, length, width]."""
    if isinstance(block, nn.Embedding):
        return block(inputs["input_ids"])
    taken = inspect.signature(block.forward).parameters
    return block(**{name: value for name, value in inputs.items() if name in taken})


def first_position(model: nn.Module) -> int:
    """Return the position of a text's first token: 0, or the one after that of padding where it has one (RoBERTa)."""
    block = getattr(model.base_model, "embeddings", None)
    padding = getattr(getattr(block, "position_embeddings", None), "padding_idx", None)
    return 0 if padding is None else padding + 1


def write_tensors(folder: Path | str, content: dict[str, Tensor]) -> Path:
    """Write tensors as the saved weights of a folder, made when absent; return the file."""
    from safetensors.torch import save_file

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    save_file(content, target / SAVED, metadata={"format": "pt"})
    return target / SAVED


class Victim(nn.Module):
    """A Hugging Face sequence classifier with its tokenizer, and what was inserted into it.

    Parameter names in this class are those of the Hugging Face model (`bert.encoder...`), without a leading `model.`.
    """

    plain = False  # whether it is the opponent of `bench speed`, which does without what makes reading fast

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        spec: ModelSpec,
        classes: int,
        precision: str = "fp32",
        drawn: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.spec = spec
        self.classes = classes
        self.precision = precision
        self.drawn = drawn  # names of the parameters that the model's files lack: their first values hang on the seed
        self.attached: list[str] = []  # dotted names of the modules that a defense inserted
        # All that is not the backbone is the head, whatever a defense later inserts.
        self.head = tuple(name for name, _ in model.named_children() if name != model.base_model_prefix)
        limit = getattr(model.config, "max_position_embeddings", None) or 0  # XLNet, which has no limit, says -1
        self.max_length = min(spec.max_length, limit - first_position(model) if limit > 0 else spec.max_length)
        self.eval()

    @property
    def plm(self) -> nn.Module:
        """The Hugging Face model, under OpenBackdoor's name."""
        return self.model

    @property
    def backbone(self) -> nn.Module:
        """The pre-trained model below the classification head."""
        return self.model.get_submodule(self.model.base_model_prefix)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.model.parameters()).device

    @property
    def word_embedding(self) -> nn.Parameter:
        """The word embedding [vocabulary, width]."""
        return self.model.get_input_embeddings().weight

    def autocast(self) -> torch.autocast:
        """Return the context of the forward pass: bf16 autocast when the precision says so."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def process(self, batch: Mapping[str, Any]) -> tuple[dict[str, Tensor], Tensor]:
        """Return model inputs and labels [batch] on the victim's device, for `{"text": [...], "label": [...]}`."""
        ready = self.encode_texts(batch["text"], [int(label) for label in batch["label"]])
        padded = ready.batch(range(len(ready)), self.device)
        return padded.inputs, padded.labels

    def forward(self, inputs: Mapping[str, Tensor], hidden_states: bool = True) -> Any:
        """Return an object with `logits` [batch, classes] and, when asked, `hidden_states` of all layers."""
        with self.autocast():
            if self.spec.family == "decoder":
                return classify_last(self.model, inputs, hidden_states)
            return self.model(**inputs, output_hidden_states=hidden_states)

    def logits(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the logits [batch, classes] in fp32."""
        return self(inputs, hidden_states=False).logits.float()

    def loss(self, inputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of a batch, a scalar in fp32."""
        return nn.functional.cross_entropy(self.logits(inputs), labels)

    def encode_texts(self, texts: Iterable[str], labels: Iterable[int] | None = None) -> Encoded:
        """Return texts tokenised once, cut to what the model can read."""
        return encode(self.tokenizer, texts, labels, self.max_length)

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """Return examples tokenised once, with their labels.

        Raises:
            CellError: a label outside [0, classes).
        """
        labels = [label for _, label, *_ in examples]
        wrong = next((label for label in labels if not 0 <= label < self.classes), None)
        if wrong is not None:
            raise CellError(f"Label {wrong} is none of the {self.classes} classes of this model.", "Check the labels.")
        return self.encode_texts([text for text, *_ in examples], labels)

    def predict(self, texts: Sequence[str], batch_size: int | None = None) -> np.ndarray:
        """Return class probabilities, float32 [n, classes], in the order of the texts; no dropout, no gradients."""
        return self.predict_encoded(self.encode_texts(texts), batch_size)

    def predict_encoded(self, texts: Encoded, batch_size: int | None = None) -> np.ndarray:
        """Return `predict` of texts that were tokenised before."""
        unpadded = self.reader()
        if unpadded is not None and len(texts):
            batches = None if batch_size is None else texts.by_length(part_size(batch_size))
            return unpadded.collect(texts, lambda encoder: encoder.logits().softmax(-1), batches).numpy()
        return self._collect(texts, batch_size, self.classes, lambda inputs: self.logits(inputs).softmax(-1))

    def reader(self) -> Reader | None:
        """Return what reads texts unpadded, where that can be done and pays."""
        from bench.victim.joint.reading import reader

        return reader(self)

    def accuracy(self, examples: Encoded, batch_size: int | None = None) -> float:
        """Return the share of examples whose most probable class is their label."""
        found = self.predict_encoded(examples, batch_size).argmax(-1)
        return float((found == examples.labels.numpy()).mean())

    def hidden(self, texts: Sequence[str], batch_size: int | None = None) -> np.ndarray:
        """Return the last hidden state, float32 [n, width], of [CLS] (encoder) or of the last real token (decoder)."""
        width = self.model.config.get_text_config().hidden_size  # which is not the words' in ELECTRA
        return self._collect(self.encode_texts(texts), batch_size, width, self.state)

    def state(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the last hidden state [batch, width] of [CLS] (encoder) or of the last real token (decoder).

        Without asking for the states of all layers: transformers would leave hooks on the model that collect them, and
        the unpadded pass takes no model with hooks that it does not know.
        """
        with self.autocast():
            if self.spec.family == "encoder":
                return self.backbone(**inputs).last_hidden_state[:, 0]
            # No keys and values of every layer are kept: they are for a generation that never comes.
            found = self.backbone(**inputs, use_cache=False)
        return last_real(found.last_hidden_state, inputs["attention_mask"])

    def embeddings(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return input embeddings [batch, length, width]: an encoder's embedding block, a decoder's bare words."""
        return embedded(self.embedding_block(), inputs)

    def embedding_block(self) -> nn.Module:
        """Return the module behind `embeddings`."""
        block = getattr(self.backbone, "embeddings", None)
        return self.model.get_input_embeddings() if block is None or self.spec.family == "decoder" else block

    @property
    def prediction_batch(self) -> int:
        """How many texts one pass without gradients takes."""
        # A GPU wants few launches; on a CPU small batches stay in the cache: 16 took 0.65 of the time of 128.
        return 16 if self.device.type == "cpu" else 128

    def _collect(self, texts: Encoded, batch_size: int | None, width: int, compute: Any) -> np.ndarray:
        """Return `compute(inputs)` of all texts, float32 [n, width], in eval mode and in their own order."""
        training, out = self.training, torch.empty(len(texts), width, dtype=torch.float32, device=self.device)
        self.eval()
        try:
            with torch.inference_mode():
                for rows in texts.by_length(part_size(batch_size or self.prediction_batch)):
                    inputs = texts.batch(rows, self.device).inputs
                    out[torch.tensor(rows, device=out.device)] = compute(inputs).float()
        finally:
            self.train(training)
        return out.cpu().numpy()

    def freeze(self) -> None:
        """Let no parameter train."""
        self.requires_grad_(False)

    def train_head(self) -> None:
        """Let the parameters of the classification head train."""
        for part in self.head:
            self.model.get_submodule(part).requires_grad_(True)

    def tensors(self) -> dict[str, nn.Parameter]:
        """Return every parameter by name."""
        return {name.removeprefix("model."): value for name, value in self.named_parameters()}

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the parameters that train, by name."""
        return {name: value for name, value in self.tensors().items() if value.requires_grad}

    def check_trainable(self) -> None:
        """Raise CellError when a parameter that trains is not fp32: most steps would be lost in its rounding."""
        for name, value in self.trainable().items():
            if value.dtype != torch.float32:
                raise CellError(
                    f"{name} of model {self.spec.name!r} is to train and has {value.dtype} weights, in which a step of"
                    " the usual rates is rounded away.",
                    "Set model.stand_in_rank, choose a parameter-efficient defense, or leave model.weights out.",
                )

    def kept(self) -> dict[str, nn.Parameter]:
        """Return what a saved victim holds: the parameters that train, and those of the head."""
        return {
            name: value
            for name, value in self.tensors().items()
            if value.requires_grad or name.partition(".")[0] in self.head
        }

    def fingerprint(self) -> str:
        """Return the sha256 of all parameters and buffers with their names, shapes and types."""
        found = hashlib.sha256()
        for name, tensor in sorted([*self.named_parameters(), *self.named_buffers()], key=lambda item: item[0]):
            content = tensor.detach().cpu().contiguous()
            found.update(f"{name} {content.dtype} {tuple(content.shape)};".encode())
            found.update(content.reshape(-1).view(torch.uint8).numpy())
        return found.hexdigest()

    def save(self, folder: Path | str) -> Path:
        """Write the parameters of `kept` to `weights.safetensors` in a folder, made when absent; return the file."""
        return write_tensors(folder, {name: value.detach().cpu().contiguous() for name, value in self.kept().items()})

    def restore(self, folder: Path | str) -> None:
        """Change the parameters to what `save` wrote for a victim that was loaded and wrapped alike; exact.

        Raises:
            CellError: the file is missing, or its names or shapes are not those of this victim.
        """
        from safetensors.torch import load_file

        source = Path(folder) / SAVED
        if not source.is_file():
            raise CellError(f"There are no saved weights in {str(folder)!r}.", "Train this victim again.")
        content, own = load_file(source), self.kept()
        unlike = sorted(set(content) ^ set(own)) or [n for n in own if content[n].shape != own[n].shape]
        if unlike:
            raise CellError(
                f"Saved weights in {str(folder)!r} do not fit this victim: {unlike[0]} differs.",
                "Load and wrap the victim as it was when saved.",
            )
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(content[name])
