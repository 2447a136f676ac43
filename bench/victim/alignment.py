"""Gradient alignment (Eq. 7-8 of MuScleLoRA): the training gradient, turned to that of a few clean rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bench.core.errors import CellError
from bench.core.example import Example
from bench.core.memory import cut
from bench.core.seeding import derived_seed
from bench.victim.batching import Batch, Encoded, pieces
from bench.victim.recipes import AlignmentOptions
from bench.victim.run import Run

BLOCK = 1 << 16  # numbers: two blocks and what is made of them stay in the cache of a core


def aligned(gradient: Tensor, reference: Tensor) -> Tensor:
    """Return |g . c| / ||c||^2 * c for one tensor; g itself where g or c is 0. Same shape, no wait for the device.

    The absolute value is the published code's and the paper's: the step never goes against the clean gradient.
    """
    length = torch.linalg.vector_norm(reference)
    # Two divisions by the norm, since its square underflows for gradients that are small but not 0.
    direction = reference / torch.where(length == 0, torch.ones_like(length), length)
    projected = (gradient * direction).sum().abs() * direction
    # A g of 0 projects to 0, so only a reference of 0 needs the choice. What is no number stays none, and is found out.
    return torch.where(length == 0, gradient, projected)


def aligned_each(gradients: Sequence[Tensor], references: Sequence[Tensor]) -> list[Tensor]:
    """Return each gradient aligned with its own reference: the published code's reading of Eq. 7."""
    return [aligned(gradient, reference) for gradient, reference in zip(gradients, references, strict=True)]


def aligned_globally(gradients: Sequence[Tensor], references: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradients aligned as one vector: Eq. 7 as the text has it."""
    joined = aligned(
        torch.cat([gradient.reshape(-1) for gradient in gradients]),
        torch.cat([reference.reshape(-1) for reference in references]),
    )
    parts = joined.split([gradient.numel() for gradient in gradients])
    return [part.reshape(gradient.shape) for part, gradient in zip(parts, gradients, strict=True)]


def mix(gradient: Tensor, projection: Tensor, mu: Tensor | float) -> Tensor:
    """Return (1 - mu) g_a + mu g (Eq. 8)."""
    return (1 - mu) * projection + mu * gradient


def mix_in_place(gradients: Sequence[Tensor], references: Sequence[Tensor], length: float, mu: float) -> None:
    """Change gradients, taken as one vector g, to `mix` of g and of g `aligned` with the references.

    For a CPU: block by block, so that nothing as large as a word embedding is made, and two passes over memory do in
    place of ten.

    Args:
        gradients: contiguous.
        length: the L2 norm of the references, taken as one vector.
    """
    if mu == 1 or length == 0:
        return
    blocks = [
        pair
        for gradient, reference in zip(gradients, references, strict=True)
        for pair in zip(gradient.view(-1).split(BLOCK), reference.reshape(-1).split(BLOCK), strict=True)
    ]
    scale = (1 - mu) * abs(sum(float((gradient * (reference / length)).sum()) for gradient, reference in blocks))
    for gradient, reference in blocks:
        if mu == 0:
            torch.div(reference, length, out=gradient).mul_(scale)
        else:
            gradient.mul_(mu).add_(reference / length, alpha=scale)


def mean_norm(norms: Tensor) -> Tensor:
    """Return the mean of the norms [n] that are not 0, a scalar; 0 when all are."""
    return norms.sum() / (norms > 0).sum().clamp(min=1)


def mu_by_epoch(epoch: int, epochs: int, first: int, mu_max: float) -> float:
    """Return mu of an epoch from 0: 0 up to epoch `first`, then up in equal steps that stay below `mu_max`.

    For 10 epochs, first = 1 and mu_max = 0.1: 0, 0, 0.0111, ..., 0.0889. Where epochs <= first it is always 0,
    which the published code divides by zero for.
    """
    if epoch <= first or epochs <= first:
        return 0.0
    return mu_max * (epoch - first) / (epochs - first)


def mu_by_step(step: int, steps: int, mu_max: float) -> float:
    """Return mu of a step from 0: linear from 0 at the first step to `mu_max` at the last."""
    return mu_max * step / max(1, steps - 1)


def gated_mu(loss: Tensor, norm: Tensor, epoch: int, epochs: int, options: AlignmentOptions) -> Tensor:
    """Return how much of the raw gradient one step takes, a scalar in [0, 1], by the published code's gate.

    0 while the clean rows are not fitted (loss > min_reference_loss, norm > min_reference_norm); else the epoch's mu
    from `ga_epoch` on when mu_max > 0; else 1, the raw gradient.
    """
    unfitted = (norm > options.min_reference_norm) & (loss > options.min_reference_loss)
    mixing = options.mu_max > 0 and epoch >= options.ga_epoch
    otherwise = mu_by_epoch(epoch, epochs, options.ga_epoch, options.mu_max) if mixing else 1.0
    return torch.where(unfitted, torch.zeros_like(loss), torch.full_like(loss, otherwise))


def _added(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Return the sum of two gradients, of which None is one that is not used."""
    return other if one is None else one if other is None else one + other


class GradientAlignment:
    """The hook: after each backward, one shuffled batch of the clean rows says where the gradient may go.

    The clean batch runs in train mode, like the training batch. A parameter without a gradient is left alone.
    """

    def __init__(self, clean: Sequence[Example], options: AlignmentOptions, seed: int) -> None:
        """Take the clean rows and options that `for_model` filled; batches are a function of `seed`.

        Raises:
            CellError: there are no clean rows, or an option is still open.
        """
        if not clean:
            raise CellError("Gradient alignment was given no clean rows.", "Set defense.clean_samples to at least 1.")
        left = ", ".join(name for name, value in options.identity().items() if value is None)
        if left:
            raise CellError(f"Options {left} are not filled in.", "Call for_model(model, recipe) first.")
        self.clean = self.reads = tuple(clean)
        self.options = options
        self.generator = torch.Generator().manual_seed(derived_seed(seed, "reference batches"))
        self.encoded: Encoded | None = None

    def ride(self, run: Run) -> Batch:
        """Return the next clean batch: where it runs in the pass of the training batch, one pass gives both."""
        if self.encoded is None:
            self.encoded = run.encode(self.clean)
        return run.batch(self.encoded, next(self.encoded.shuffled(run.batch_size, self.generator)))

    def on_references(self, run: Run, loss: Tensor, references: Sequence[Tensor | None]) -> None:
        """Replace the gradients of `run.parameters` in place, given the clean batch's loss and gradients."""
        with torch.no_grad():
            self._replace(run, loss, references)

    def on_gradients(self, run: Run, batch: Batch) -> None:
        """Do the same with a pass of its own, as the published code does; where memory is short, in parts."""
        parts = [(part, share) for part, share in pieces(self.ride(run), cut()) if share]
        total, found = self._pass(run, *parts[0])
        for part, share in parts[1:]:
            loss, more = self._pass(run, part, share)
            total = total + loss
            found = [_added(one, other) for one, other in zip(found, more, strict=True)]
        self.on_references(run, total, found)

    def _pass(self, run: Run, part: Batch, share: float) -> tuple[Tensor, Sequence[Tensor | None]]:
        """Return a part's share of the batch's loss and of its gradient of each parameter."""
        loss = run.loss(part) * share
        return loss.detach(), torch.autograd.grad(loss, list(run.parameters.values()), allow_unused=True)

    def _replace(self, run: Run, loss: Tensor, found: Sequence[Tensor | None]) -> None:
        pairs = [
            (parameter, torch.zeros_like(parameter) if reference is None else reference)
            for parameter, reference in zip(run.parameters.values(), found, strict=True)
            if parameter.grad is not None
        ]
        if not pairs:
            return
        gradients, references = [parameter.grad for parameter, _ in pairs], [reference for _, reference in pairs]
        norms = torch.stack([torch.linalg.vector_norm(reference) for reference in references])
        together, mu = self.options.projection == "global", self._mu(run, loss, mean_norm(norms))
        if norms.device.type == "cpu" and all(gradient.is_contiguous() for gradient in gradients):
            if together:
                mix_in_place(gradients, references, float(torch.linalg.vector_norm(norms)), float(mu))
                return
            for gradient, reference, length in zip(gradients, references, norms.tolist(), strict=True):
                mix_in_place([gradient], [reference], length, float(mu))
            return
        align = aligned_globally if together else aligned_each
        for parameter, projection in zip((p for p, _ in pairs), align(gradients, references), strict=True):
            parameter.grad = mix(parameter.grad, projection, mu)

    def _mu(self, run: Run, loss: Tensor, norm: Tensor) -> Tensor | float:
        options = self.options
        if options.gated:
            return gated_mu(loss, norm, run.epoch, run.epochs, options)
        if options.schedule == "step":
            return mu_by_step(run.step, run.steps, options.mu_max)
        return mu_by_epoch(run.epoch, run.epochs, options.ga_epoch, options.mu_max)
