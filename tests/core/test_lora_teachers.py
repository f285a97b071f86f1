"""Teachers of an adapter: the base is shared, and the average is that of the product."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch

import sdpo_lab as lab
from sdpo_lab.core import teachers
from tests.shared.steps import SMALL, Vowels, distribution, teacher_distribution


def adapted(tiny, r=2):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # between peft and transformers
        return get_peft_model(
            copy.deepcopy(tiny[0]),
            LoraConfig(r=r, lora_alpha=2 * r, target_modules=["q_proj", "v_proj", "down_proj"]),
        )


def lora_trainer(tiny, kind, r=2, **fields):
    fields = {
        **SMALL,
        "learning_rate": 1e-2,
        "max_grad_norm": 1.0,
        "teacher_update_rate": 0.05,
        **fields,
        "teacher_model_kind": kind,
    }
    return lab.SDPOTrainer(
        adapted(tiny, r),
        tiny[1],
        Vowels(),
        lab.SDPOConfig.from_dict({**lab.SDPOConfig.preset("laptop").to_dict(), **fields}),
    )


def products(factors):
    """All products B A, of a model's named parameters, in one vector."""
    return torch.cat(
        [
            (factors[a.replace("lora_A", "lora_B")] @ p).detach().flatten()
            for a, p in factors.items()
            if "lora_A" in a
        ]
    )


def factors(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if "lora_" in name}


def error(found, exact):
    return ((found - exact).norm() / exact.norm()).item()


def test_the_frozen_teacher_of_a_fresh_adapter_is_the_adapter_switched_off(tiny):
    t = lora_trainer(tiny, "frozen")
    for _ in range(3):
        with t.model.disable_adapter():
            off = distribution(t.model)
        assert torch.equal(teacher_distribution(t.teacher), off) and torch.equal(
            off, distribution(tiny[0])
        )
        t.step()
    assert (distribution(t.model) - off).abs().max() > 0.1
    later = lab.SDPOTrainer(
        t.model, tiny[1], Vowels(), t.config
    )  # of one that was trained before, it is that adapter as it was
    before = distribution(t.model)
    later.step()
    assert torch.equal(teacher_distribution(later.teacher), before) and not torch.equal(
        before, distribution(later.model)
    )


@pytest.mark.parametrize("kind", ["ema", "frozen", "trust_region"])
def test_the_base_weights_are_shared_and_never_change(tiny, kind):
    t = lora_trainer(tiny, kind)
    mine, theirs = dict(t.model.named_parameters()), dict(t.teacher.model.named_parameters())
    base = {name: p.detach().clone() for name, p in mine.items() if "lora_" not in name}
    for _ in range(3):
        t.step()
    assert (
        mine.keys() == theirs.keys()
        and len(base) > 10
        and set(t.teacher.copies()) == mine.keys() - base.keys()
    )
    for name, p in mine.items():
        assert (p.data_ptr() == theirs[name].data_ptr()) == (name in base)
        assert name not in base or torch.equal(p, base[name])
    assert t.evaluate(8, role="teacher").n == 8


def test_the_average_of_an_adapter_is_the_average_of_its_product_and_not_of_its_factors(tiny):
    t = lora_trainer(tiny, "ema")
    exact, apart = products(factors(t.model)), factors(t.model)
    for number in range(1, 21):
        t.step()
        exact = 0.95 * exact + 0.05 * products(factors(t.model))
        apart = {name: 0.95 * p + 0.05 * factors(t.model)[name] for name, p in apart.items()}
        if number <= 2:  # the sum of two products of rank 2 has rank 4, which the teacher has
            assert error(products(factors(t.teacher.model)), exact) < 1e-5
    ours, wrong = error(products(factors(t.teacher.model)), exact), error(products(apart), exact)
    print(f"error after 20 steps: {ours:.2%}, factor by factor {wrong:.0%}")
    assert ours < 0.01 and wrong > 10 * ours and exact.norm() > 0.1


def test_the_averaged_adapters_logits_are_those_of_the_averaged_weights(tiny):
    t = lora_trainer(
        tiny, "ema", r=16, teacher_update_rate=0.3
    )  # rank 32 is all there is in a matrix of 32 rows: nothing is lost
    exact = copy.deepcopy(tiny[0])
    for _ in range(4):
        t.step()
        with torch.no_grad():
            merged = copy.deepcopy(t.model).merge_and_unload()
            for p, new in zip(exact.parameters(), merged.parameters()):
                p.lerp_(new, 0.3)
    assert torch.allclose(teacher_distribution(t.teacher), distribution(exact), atol=1e-4)
    assert (distribution(exact) - distribution(tiny[0])).abs().max() > 0.1


@pytest.mark.parametrize("seed", range(5))
def test_following_a_product_keeps_its_largest_directions(seed):
    """No matrix of rank k is nearer to the sum than its truncated singular value decomposition."""
    g = torch.Generator().manual_seed(seed)
    a, b, new_a, new_b = (
        torch.randn(*shape, generator=g, dtype=torch.float64)
        for shape in ((4, 9), (7, 4), (2, 9), (7, 2))
    )
    total = 0.8 * b @ a + 0.2 * new_b @ new_a
    u, size, v = torch.linalg.svd(total, full_matrices=False)
    teachers.follow_product(a, b, new_a, new_b, 0.2)
    assert torch.allclose(b @ a, u[:, :4] * size[:4] @ v[:4], atol=1e-12) and size[4] > 0.01
    teachers.follow_product(a, b, a.clone(), b.clone(), 0.2)
    assert torch.allclose(
        b @ a, u[:, :4] * size[:4] @ v[:4], atol=1e-12
    )  # where it agrees already, it stays
