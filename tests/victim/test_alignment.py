"""Gradient alignment against cases worked out by hand (Eq. 7-8, and REFERENCE 3.2)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import tensor

from bench.core.errors import CellError
from bench.core.example import Example
from bench.victim.alignment import (
    GradientAlignment,
    aligned,
    aligned_each,
    aligned_globally,
    gated_mu,
    mean_norm,
    mix,
    mix_in_place,
    mu_by_epoch,
    mu_by_step,
)
from bench.victim.recipes import AlignmentOptions, filled
from bench.victim.spec import model_spec

ZERO = tensor([0.0, 0.0])


def _options(recipe: str = "released", **given: object) -> AlignmentOptions:
    return filled(AlignmentOptions(**given), model_spec("minilm-l6"), recipe)


def test_the_projection_by_hand():
    # g . c = 8, ||c||^2 = 4, so twice c.
    assert aligned(tensor([3.0, 4.0]), tensor([0.0, 2.0])).tolist() == [0, 4]
    # g . c = -8: the absolute value keeps the direction of c.
    assert aligned(tensor([3.0, -4.0]), tensor([0.0, 2.0])).tolist() == [0, 4]
    # Where either is 0 the gradient stays.
    assert aligned(tensor([3.0, 4.0]), ZERO).tolist() == [3, 4]
    assert aligned(ZERO, tensor([3.0, 4.0])).tolist() == [0, 0]
    # ||c||^2 = 1e-46 is no fp32 number; the projection of g on its axis is.
    assert aligned(tensor([3.0, 4.0]), tensor([0.0, 1e-18])).tolist() == pytest.approx([0, 4])


def test_per_tensor_and_global_differ_as_they_should():
    gradients, references = [tensor([3.0, 4.0]), tensor([[1.0]])], [tensor([0.0, 2.0]), tensor([[1.0]])]
    each = aligned_each(gradients, references)
    assert each[0].tolist() == [0, 4] and each[1].tolist() == [[1]]
    # As one vector: g . c = 8 + 1 = 9, ||c||^2 = 5, so 1.8 times c.
    whole = aligned_globally(gradients, references)
    assert whole[0].tolist() == pytest.approx([0, 3.6]) and whole[1].tolist() == [[pytest.approx(1.8)]]
    # A tensor whose reference is 0 stays in the one, and is projected to 0 in the other.
    references[1] = tensor([[0.0]])
    assert aligned_each(gradients, references)[1].tolist() == [[1]]
    assert aligned_globally(gradients, references)[1].tolist() == [[0]]


def test_the_mixture_by_hand():
    assert mix(tensor([3.0, 4.0]), tensor([0.0, 4.0]), 0.25).tolist() == [0.75, 4]


@pytest.mark.parametrize("mu", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("scale", [1.0, 1e-18])  # with the second the square of the references' norm is no fp32 number
def test_block_by_block_comes_to_what_the_equations_say(mu, together, scale, monkeypatch):
    monkeypatch.setattr("bench.victim.alignment.BLOCK", 7)  # neither divides the other
    generator = torch.Generator().manual_seed(5)
    shapes = [(5, 4), (3,), (2, 3)]
    gradients = [torch.randn(shape, generator=generator) for shape in shapes]
    references = [scale * torch.randn(shape, generator=generator) for shape in shapes]
    references[1].zero_()
    align = aligned_globally if together else aligned_each
    expected = [mix(*pair, mu) for pair in zip(gradients, align(gradients, references), strict=True)]
    groups = [range(3)] if together else [[0], [1], [2]]
    places = [gradient.data_ptr() for gradient in gradients]
    for group in groups:
        mine, theirs = [gradients[place] for place in group], [references[place] for place in group]
        mix_in_place(mine, theirs, float(torch.cat([c.flatten() for c in theirs]).norm()), mu)
    torch.testing.assert_close(gradients, expected, rtol=1e-5, atol=1e-6)
    assert [gradient.data_ptr() for gradient in gradients] == places


def test_a_clean_gradient_that_is_no_number_is_not_passed_over():
    reference = tensor([1.0, float("nan")])
    assert aligned(tensor([3.0, 4.0]), reference).isnan().all()
    gradient = tensor([3.0, 4.0])
    mix_in_place([gradient], [reference], float(reference.norm()), 0.5)
    assert gradient.isnan().all()


def test_the_mean_norm_leaves_out_tensors_of_zero():
    assert mean_norm(tensor([5.0, 0.0, 1.0])).item() == 3
    assert mean_norm(tensor([0.0, 0.0])).item() == 0


def test_mu_by_epoch_is_the_published_schedule():
    found = [mu_by_epoch(epoch, 10, 1, 0.1) for epoch in range(10)]
    expected = [0, 0, 0.0111, 0.0222, 0.0333, 0.0444, 0.0556, 0.0667, 0.0778, 0.0889]
    assert found == pytest.approx(expected, abs=5e-5)
    # One epoch that is also ga_epoch divides by zero in the published code.
    assert [mu_by_epoch(0, 1, 1, 0.1), mu_by_epoch(1, 1, 1, 0.1), mu_by_epoch(2, 1, 3, 0.1)] == [0, 0, 0]


def test_mu_by_step_reaches_its_maximum_at_the_last_step():
    assert [mu_by_step(step, 5, 0.1) for step in range(5)] == pytest.approx([0, 0.025, 0.05, 0.075, 0.1])
    assert mu_by_step(0, 1, 0.1) == 0


@pytest.mark.parametrize(
    ("loss", "norm", "epoch", "mu"),
    [
        (0.5, 1e-6, 0, 0.0),  # not fitted: the aligned gradient alone
        (0.5, 1e-6, 9, 0.0),
        (0.3, 1e-6, 0, 1.0),  # fitted before ga_epoch: the raw gradient
        (0.4, 1e-6, 0, 1.0),  # 0.4 is not above 0.4
        (0.5, 4e-7, 0, 1.0),  # a clean gradient this small says nothing
        (0.3, 1e-6, 1, 0.0),
        (0.3, 1e-6, 5, 0.1 * 4 / 9),
        (0.3, 1e-6, 9, 0.1 * 8 / 9),
    ],
)
def test_the_gate(loss, norm, epoch, mu):
    assert gated_mu(tensor(loss), tensor(norm), epoch, 10, _options()).item() == pytest.approx(mu)


def test_the_gate_mixes_from_the_epoch_that_the_options_name():
    # Fitted: the raw gradient before epoch 3, then 0, 0.1 / 7, 0.2 / 7.
    found = [gated_mu(tensor(0.3), tensor(1e-6), epoch, 10, _options(ga_epoch=3)).item() for epoch in range(6)]
    assert found == pytest.approx([1, 1, 1, 0, 0.1 / 7, 0.2 / 7])


def test_the_gate_of_the_published_decoder_settings():
    # mu_max 0, ga_epoch 0, min_reference_loss 0: always the aligned gradient, but for a reference of 0.
    options = _options(mu_max=0.0, ga_epoch=0, min_reference_loss=0.0)
    assert gated_mu(tensor(0.01), tensor(1.0), 3, 5, options).item() == 0
    assert gated_mu(tensor(0.01), tensor(0.0), 3, 5, options).item() == 1


class FakeRun:
    """A run whose reference loss is chosen, with the reference gradients `references` (None: unused there)."""

    def __init__(self, gradients, references, loss, epoch=0, step=0):
        self.parameters = {str(place): torch.nn.Parameter(torch.zeros(2)) for place in range(len(gradients))}
        for value, gradient in zip(self.parameters.values(), gradients, strict=True):
            value.grad = gradient
        self.references, self.chosen = references, loss
        self.epoch, self.epochs, self.step, self.steps, self.batch_size = epoch, 10, step, 5, 2
        self.victim = SimpleNamespace(device="cpu")
        self.seen = []

    def encode(self, examples):
        from bench.victim.batching import Encoded

        return Encoded([[1]] * len(examples), [0] * len(examples), 0)

    def batch(self, data, rows):
        return data.batch(rows)

    def loss(self, batch):
        self.seen.append(batch.rows)
        pairs = zip(self.parameters.values(), self.references, strict=True)
        return self.chosen + sum((value * c).sum() for value, c in pairs if c is not None)

    def found(self):
        return [None if value.grad is None else value.grad.tolist() for value in self.parameters.values()]


CLEAN = tuple(Example(str(row), 0) for row in range(5))
G, C = tensor([3.0, 4.0]), tensor([0.0, 2.0])


def _after(recipe: str = "released", **where: object) -> list:
    run = FakeRun([G.clone(), G.clone(), None], [C, None, C], where.pop("loss"), **where)
    GradientAlignment(CLEAN, _options(recipe), seed=1).on_gradients(run, None)
    return run.found()


def test_the_hook_in_each_branch_of_the_gate():
    # A parameter that the reference loss does not use keeps its gradient; one without a gradient keeps none.
    assert _after(loss=0.5) == [[0, 4], [3, 4], None]
    assert _after(loss=0.3) == [[3, 4], [3, 4], None]
    mu = 0.1 * 4 / 9
    assert _after(loss=0.3, epoch=5) == [pytest.approx([3 * mu, 4]), pytest.approx([3, 4]), None]


def test_the_hook_of_the_paper_recipe():
    # One vector, no gate: with the second reference 0, g . c = 8 and ||c||^2 = 4, so [0, 4] and [0, 0]; mu = 0.05.
    assert _after("paper", loss=0.3, step=2) == [pytest.approx([0.15, 4]), pytest.approx([0.15, 0.2]), None]
    assert _after("paper", loss=9.0, step=0) == [[0, 4], [0, 0], None]


def test_the_hook_without_a_gate_follows_the_epochs():
    options = _options(gated=False, ga_epoch=2)
    for epoch, mu in ((0, 0.0), (2, 0.0), (3, 0.1 / 8), (9, 0.7 / 8)):
        run = FakeRun([G.clone()], [C], 0.3, epoch=epoch)
        GradientAlignment(CLEAN, options, seed=1).on_gradients(run, None)
        assert run.found() == [pytest.approx([3 * mu, 4])]


def test_the_gate_of_the_hook_leaves_out_tensors_of_zero():
    # Norms 6e-7 and 0: the mean of what is not 0 is above 5e-7, so not fitted; that of both would be below.
    run = FakeRun([G.clone(), G.clone()], [tensor([0.0, 6e-7]), None], 0.5)
    GradientAlignment(CLEAN, _options(), seed=1).on_gradients(run, None)
    assert run.found() == [pytest.approx([0, 4]), [3, 4]]


def test_each_step_sees_one_shuffled_batch_of_the_clean_rows():
    def rows(seed):
        run, hook = FakeRun([G.clone()], [C], 0.5), GradientAlignment(CLEAN, _options(), seed=seed)
        for _ in range(20):
            hook.on_gradients(run, None)
        return run.seen

    assert rows(1) == rows(1) != rows(2)
    assert all(len(set(batch)) == 2 for batch in rows(1))
    assert {row for batch in rows(1) for row in batch} == set(range(5))


def test_the_hook_needs_clean_rows_and_filled_options():
    with pytest.raises(CellError, match="no clean rows"):
        GradientAlignment((), _options(), seed=0)
    with pytest.raises(CellError, match="mu_max"):
        GradientAlignment(CLEAN, AlignmentOptions(), seed=0)
