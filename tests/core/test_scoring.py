import itertools
import math
import os
import random

import pytest
import torch

from sdpo_lab.core.scoring import (
    check_scoring,
    completion_hidden,
    completion_logits,
    decoder,
    shared_prefixes,
)
from tests.shared.architectures import FAMILIES, random_model


def test_padding_and_company_change_nothing(tiny):
    model, _ = tiny
    prompts, completions = [[5, 6, 7], [8, 9, 10, 11, 12, 13]], [[20, 21, 22, 2], [30, 2]]
    together = completion_logits(model, prompts, completions)
    for i in range(2):
        alone = completion_logits(model, prompts[i : i + 1], completions[i : i + 1])[0]
        assert torch.allclose(together[i, : len(completions[i])], alone, atol=1e-5)
        plain = model(torch.tensor([prompts[i] + completions[i]])).logits[
            0, len(prompts[i]) - 1 : -1
        ]
        assert torch.allclose(alone, plain, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_other_architectures_score_as_they_do_themselves(family):
    """Soft caps, logit scales, absolute positions, experts: `head` and right-padding reproduce the
    model's own logits."""
    model = random_model(family)
    check_scoring(model)
    prompts, completions = [[5, 6, 7], [8, 9, 10, 11, 12, 13]], [[20, 21, 22, 2], [30, 2]]
    together = completion_logits(model, prompts, completions)
    for i in range(2):
        own = model(torch.tensor([prompts[i] + completions[i]])).logits[0, len(prompts[i]) - 1 : -1]
        assert torch.allclose(together[i, : len(completions[i])], own, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_reading_a_common_beginning_once_changes_neither_value_nor_gradient(family):
    """Rows that share much, little and nothing, of different length, beside each other."""
    model = random_model(family)
    prompts = [
        [5, 6, 7, 8, 9, 10, 11],
        [5, 6, 7, 8, 9, 12],
        [5, 6, 7, 8, 9, 10, 11],
        [30, 31],
        [33],
        [5, 6, 40, 41, 42, 43],
        [5, 6, 40, 41, 42, 44, 45, 46],
    ]
    completions = [[20, 21, 22, 2], [30, 2], [7], [8, 9, 10, 2], [3, 4], [5, 6, 7, 8, 9], [2]]
    prefixes, of = shared_prefixes(prompts)
    assert sorted(map(len, prefixes)) == [0, 1, 5, 5] and of[0] == of[1] == of[2] != of[5] == of[6]
    hidden = completion_hidden(model, prompts, completions)
    weight = [
        torch.randn(len(c), hidden.shape[-1], generator=torch.Generator().manual_seed(i))
        for i, c in enumerate(completions)
    ]
    (hidden * torch.cat(weight)).sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for i, (p, c) in enumerate(zip(prompts, completions)):
        alone = decoder(model)(input_ids=torch.tensor([p + c]), use_cache=False)[0][
            0, len(p) - 1 : -1
        ]
        assert torch.allclose(hidden.split([len(c) for c in completions])[i], alone, atol=1e-4)
        (alone * weight[i]).sum().backward()
    for name, p in model.named_parameters():
        if p.grad is not None:
            assert torch.allclose(found[name], p.grad, atol=1e-3, rtol=1e-3), name


def test_what_is_shared_saves_the_most_tokens():
    """Against all ways to cut the sorted rows into runs."""
    rng = random.Random(0)
    for _ in range(30):
        prompts = [
            [rng.randint(1, 2) for _ in range(rng.randint(1, 6))] for _ in range(rng.randint(1, 7))
        ]
        prefixes, of = shared_prefixes(prompts)
        assert all(
            p[: len(prefixes[k])] == prefixes[k] and len(prefixes[k]) < len(p)
            for p, k in zip(prompts, of)
        )
        read = sum(map(len, prefixes)) + sum(len(p) - len(prefixes[k]) for p, k in zip(prompts, of))
        ordered, best = sorted(prompts), math.inf
        for cuts in itertools.product([False, True], repeat=len(prompts) - 1):
            edges = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), len(prompts)]
            runs = [ordered[a:b] for a, b in itertools.pairwise(edges)]
            common = [len(os.path.commonprefix([p[:-1] for p in run])) for run in runs]
            best = min(best, sum(c + sum(len(p) - c for p in run) for c, run in zip(common, runs)))
        assert read == best
    assert shared_prefixes([[1, 2], [3, 4]]) == ([[]], [0, 0]) and shared_prefixes([[1, 2, 3]]) == (
        [[]],
        [0],
    )


def test_a_model_that_scales_its_logits_in_a_way_not_known_is_refused(tiny):
    model, _ = tiny
    forward = model.forward
    model.forward = lambda **inputs: type("Out", (), {"logits": 2 * forward(**inputs).logits})()
    with pytest.raises(ValueError, match="must learn how it scales them"):
        check_scoring(model)


def test_temperature_divides_and_autocast_returns_float32(tiny):
    model, _ = tiny
    one = completion_logits(model, [[5, 6]], [[7, 8]])
    assert torch.allclose(completion_logits(model, [[5, 6]], [[7, 8]], temperature=2.0), one / 2)
    low = completion_logits(model, [[5, 6]], [[7, 8]], bf16=True)
    assert low.dtype == torch.float32 and torch.allclose(low, one, atol=0.05)
