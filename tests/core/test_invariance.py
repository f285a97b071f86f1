"""What must not change a step, what must, and which weights the teacher has: the trainer against itself and against the plain formula."""

import copy
import random
import warnings

import pytest
import torch

import sdpo_lab as lab
from sdpo_lab.analysis.evaluation import Mixture
from sdpo_lab.core import losses, teachers
from sdpo_lab.core.chat import encode_chat
from sdpo_lab.core.scoring import completion_logits
from sdpo_lab.tasks import Problem

SMALL = dict(
    generation_batch_size=8,
    num_generations=4,
    max_completion_length=12,
    learning_rate=1.0,
    weight_decay=0.0,
    max_grad_norm=1e9,
)
MODES = ("full_logits", "topk_logits", "sampled_token", "sequence")


class Vowels:
    """Rewards an even number of vowels; the feedback counts them, whatever the reward."""

    def problems(self, n, split="train", seed=0):
        return [
            Problem(f"{split}-{seed}-{i}", [{"role": "user", "content": f"write {i}"}])
            for i in range(n)
        ]

    def judge(self, problem, completion):
        count = sum(completion.count(v) for v in "aeiou")
        return float(count % 2 == 0), f"{count} vowels"


class Recorder(torch.optim.SGD):
    """Plain gradient descent that notes the gradient, the learning rate, and the weights after every step."""

    def __init__(self, model):
        super().__init__([p for p in model.parameters() if p.requires_grad], lr=1.0)
        self.gradients, self.rates, self.weights = [], [], []

    def step(self):
        self.gradients.append(torch.cat([p.grad.flatten() for p in self.param_groups[0]["params"]]))
        self.rates.append(self.param_groups[0]["lr"])
        super().step()
        self.weights.append(
            torch.cat([p.detach().flatten() for p in self.param_groups[0]["params"]])
        )


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def trainer(tiny, **fields):
    """On a copy of the model, with a recorder for optimiser."""
    model = copy.deepcopy(tiny[0])
    t = lab.SDPOTrainer(
        model,
        tiny[1],
        Vowels(),
        lab.SDPOConfig.from_dict({**lab.SDPOConfig.preset("laptop").to_dict(), **SMALL, **fields}),
    )
    t.optimizer = Recorder(model)
    return t


@pytest.fixture
def rollouts(tiny):
    """Two groups of four, judged, of different length."""
    found = trainer(tiny).sample(1)
    for r, n, reward in zip(found, (2, 12, 5, 12, 7, 3, 12, 9), (1, 0, 0, 1, 0, 0, 0, 1)):
        r.completion_ids, r.reward, r.feedback = r.completion_ids[:n], float(reward), f"{n} vowels"
    return found


# -- micro-batches, company, order -------------------------------------------------------------------------------------------------------


VARIANTS = (
    {m: dict(distillation_mode=m, distillation_alpha=1.0) for m in MODES}
    | {
        f"{m}, λ, two passes": dict(
            distillation_mode=m, distillation_alpha=1.0, advantage_lambda=0.5, num_iterations=2
        )
        for m in MODES
    }
    | {
        "w, clip, two steps": dict(
            distillation_weight=0.5,
            distillation_alpha=1.0,
            advantage_clip=0.5,
            steps_per_generation=2,
        ),
        "sequence, two steps twice": dict(
            distillation_mode="sequence",
            distillation_alpha=1.0,
            steps_per_generation=2,
            num_iterations=2,
        ),
        "grpo, two passes": dict(distillation_weight=0.0, num_iterations=2),
        "trust region": dict(teacher_model_kind="trust_region", num_iterations=2),
        "mean over all rows": dict(normalize="all_rows"),
        "mean over active rows": dict(normalize="active_rows"),
    }
)


def assert_same(one, two):
    """Two records of (loss, gradients of the optimiser steps)."""
    assert one[0] == pytest.approx(two[0], abs=1e-6, rel=1e-6) and len(one[1]) == len(two[1])
    for a, b in zip(one[1], two[1]):
        assert (a - b).abs().max() <= 1e-6 * b.norm()


def step(tiny, rollouts, **fields):
    t = trainer(tiny, **fields)
    return t.step(rollouts).loss, t.optimizer.gradients


@pytest.mark.parametrize("variant", VARIANTS)
def test_micro_batches_change_nothing_in_any_mode_over_several_optimiser_steps(
    tiny, rollouts, variant
):
    """With steps as long as the gradient, so that every step but the first is taken somewhere else."""
    whole, threes, ones = (
        step(tiny, rollouts, **VARIANTS[variant], per_device_train_batch_size=size)
        for size in (64, 3, 1)
    )
    assert_same(threes, whole)
    assert_same(ones, whole)
    expected = VARIANTS[variant].get("steps_per_generation", 1) * VARIANTS[variant].get(
        "num_iterations", 1
    )
    assert len(whole[1]) == expected and (
        expected == 1 or (whole[1][0] - whole[1][1]).norm() > 0.1 * whole[1][0].norm()
    )


@pytest.mark.parametrize("mode", MODES)
def test_company_that_takes_no_part_changes_nothing_however_long(tiny, rollouts, mode):
    idle = copy.deepcopy(rollouts[:4])
    for r in idle:
        r.problem, r.reward, r.feedback = (
            Problem("idle", [{"role": "user", "content": "nothing " * 20}]),
            0.0,
            "",
        )
        r.completion_ids = r.completion_ids * 9
    fields = dict(distillation_mode=mode, distillation_alpha=1.0)
    for normalize in ("active_tokens", "active_rows"):
        assert_same(
            step(tiny, idle + rollouts, **fields, normalize=normalize),
            step(tiny, rollouts, **fields, normalize=normalize),
        )
    loss, (gradient,) = step(tiny, idle + rollouts, **fields, normalize="all_rows")
    alone, (whole,) = step(tiny, rollouts, **fields, normalize="all_rows")
    assert_same(
        (loss, [gradient]), (alone * 8 / 12, [whole * 8 / 12])
    )  # which is what this mean means


@pytest.mark.parametrize("mode", MODES)
def test_company_that_takes_part_adds_its_own_loss_and_nothing_else(tiny, rollouts, mode):
    fields = dict(
        distillation_mode=mode, distillation_alpha=1.0, normalize="all_rows", advantage_lambda=0.3
    )
    together, first, second = (
        step(tiny, rows, **fields) for rows in (rollouts, rollouts[:4], rollouts[4:])
    )
    assert_same(together, ((first[0] + second[0]) / 2, [(first[1][0] + second[1][0]) / 2]))


@pytest.mark.parametrize(
    "fields",
    [
        *({"distillation_mode": m, "distillation_alpha": 1.0} for m in MODES),
        {"distillation_weight": 0.5},
        {"distillation_weight": 0.0},
        {"normalize": "all_rows"},
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_attempts_and_groups_changes_nothing_where_no_sibling_is_shown(
    tiny, rollouts, fields, seed
):
    order, fields = (
        random.Random(seed),
        {"distillation_alpha": 0.5, **fields, "use_successful_as_teacher": False},
    )
    groups = [order.sample(g, 4) for g in (rollouts[:4], rollouts[4:])]
    assert_same(step(tiny, groups[1] + groups[0], **fields), step(tiny, rollouts, **fields))


def test_the_order_changes_the_demonstration_and_nothing_but_the_demonstration(tiny, rollouts):
    group, fields = rollouts[:4], dict(demonstration="first", distillation_alpha=1.0)
    for r, (reward, text) in zip(group, ((1.0, "alpha"), (0.0, "b"), (1.0, "gamma"), (0.0, "d"))):
        r.reward, r.text = reward, text
    a, b, c, d = group
    t = trainer(tiny, **fields)
    plain = t.step(group).loss, t.optimizer.gradients
    assert [r.demonstration for r in t.history[-1].rollouts] == [2, 0, 0, 0]
    assert_same(step(tiny, [d, a, b, c], **fields), plain)  # the successes in the order they were
    t = trainer(tiny, **fields)
    turned = t.step([c, b, a, d])
    assert {r.index: r.demonstration for r in turned.rollouts} == {0: 2, 1: 2, 2: 0, 3: 2} and abs(
        turned.loss - plain[0]
    ) > 1e-3
    twin = copy.deepcopy(group)
    twin[0].text = twin[2].text = "the same"
    assert_same(
        step(tiny, [twin[i] for i in (2, 1, 0, 3)], **fields), step(tiny, twin, **fields)
    )  # no matter who said it


# -- several optimiser steps, by hand -------------------------------------------------------------------------------------------------------


def hand_logits(model, tokenizer, messages, r):
    prompt = encode_chat(tokenizer, messages)
    return model(torch.tensor([prompt + r.completion_ids])).logits[0, len(prompt) - 1 : -1]


def hand_step(model, teacher, start, tokenizer, rows, advantages, hybrid):
    """One step of gradient descent by the plain formula, the divergence with the capped ratio or mixed advantages with PPO's clip; (loss, ratios)."""
    total, ratios = 0.0, []
    for r, advantage in zip(rows, advantages):
        y, messages = torch.tensor(r.completion_ids)[:, None], r.problem.messages
        log_p, log_old = (
            (hand_logits(m, tokenizer, messages, r) / 0.8).log_softmax(-1) for m in (model, start)
        )
        log_q = (
            (hand_logits(teacher, tokenizer, r.teacher_messages, r) / 0.8).log_softmax(-1).detach()
        )
        ratio = (log_p.gather(1, y) - log_old.gather(1, y).detach()).exp()[:, 0]
        ratios += ratio.tolist()
        if hybrid:
            a = 0.5 * advantage + 0.5 * r.shown * (log_q - log_p).detach().gather(1, y)[:, 0]
            loss = -torch.min(ratio * a, ratio.clamp(1 - 0.2, 1 + 0.28) * a)
        else:
            loss = (
                r.shown * ratio.detach().clamp(max=1.02) * (log_p.exp() * (log_p - log_q)).sum(-1)
            )
        total = total + loss.mean() / len(rows)
    model.zero_grad()
    total.backward()
    with torch.no_grad():
        for p in model.parameters():
            p.sub_(p.grad)  # learning rate 1
    return total.item(), ratios


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize("sync", ["rollout_batch", "optimizer_step"])
@pytest.mark.parametrize("passes", [1, 2])
def test_two_steps_a_batch_are_two_single_steps_by_the_plain_formula_with_the_ratio(
    tiny, rollouts, hybrid, sync, passes
):
    """Each on its half of the attempts, p_old from before all of them, and the teacher moved in between where it follows every step."""
    mode = (
        dict(distillation_mode="sampled_token", advantage_lambda=0.5)
        if hybrid
        else dict(distillation_mode="full_logits")
    )
    t = trainer(
        tiny,
        **mode,
        distillation_is_clip=1.02,
        distillation_alpha=1.0,
        normalize="all_rows",
        steps_per_generation=2,
        num_iterations=passes,
        teacher_sync=sync,
        teacher_update_rate=0.5,
        temperature=0.8,
    )
    record = t.step(rollouts)
    start, teacher, model = (copy.deepcopy(tiny[0]) for _ in range(3))
    advantages = (
        losses.group_advantages(torch.tensor([r.reward for r in rollouts]).view(2, 4))
        .flatten()
        .tolist()
    )
    found = []
    for half in [slice(0, 4), slice(4, 8)] * passes:
        found.append(
            hand_step(
                model, teacher, start, tiny[1], record.rollouts[half], advantages[half], hybrid
            )
        )
        if sync == "optimizer_step":
            for p, new in zip(teacher.parameters(), model.parameters()):
                p.data = 0.5 * p.data + 0.5 * new.data
    assert record.loss == pytest.approx(sum(loss for loss, _ in found) / len(found), abs=3e-6)
    assert (weights(t.model) - weights(model)).abs().max() < 1e-5 and (
        weights(model) - weights(start)
    ).abs().max() > 1e-2
    assert max(found[-1][1]) > 1.28 and min(found[-1][1]) < 0.8


@pytest.mark.parametrize("sync", ["rollout_batch", "optimizer_step"])
def test_the_average_moves_once_a_batch_or_at_every_optimiser_step(
    tiny, rollouts, sync, monkeypatch
):
    t = trainer(
        tiny,
        teacher_sync=sync,
        teacher_update_rate=0.25,
        steps_per_generation=2,
        num_iterations=2,
        learning_rate=0.2,
    )
    expected = weights(tiny[0])
    for batch in range(2):
        t.step(rollouts)
        steps = t.optimizer.weights[4 * batch :]
        assert len(steps) == 4
        for w in steps if sync == "optimizer_step" else steps[-1:]:
            expected = 0.75 * expected + 0.25 * w
    assert (
        torch.allclose(weights(t.teacher.model), expected, atol=1e-6)
        and (expected - weights(tiny[0])).abs().max() > 1e-3
    )
    monkeypatch.setattr(
        losses, "distillation_loss", lambda student, *a, **k: student.sum(-1) * float("nan")
    )
    t.step(rollouts)  # not finite
    for r in rollouts:
        r.reward, r.feedback = 0.0, ""
    t.step(rollouts)  # no active attempt
    assert (
        torch.allclose(weights(t.teacher.model), expected, atol=1e-6)
        and len(t.optimizer.weights) == 8
    )  # nobody moved


def test_warm_up_counts_optimiser_steps_that_were_taken(tiny, rollouts):
    t = trainer(tiny, warmup_steps=4, steps_per_generation=2, learning_rate=0.5)
    t.step(rollouts)
    half = copy.deepcopy(rollouts)
    for r in half[:4]:
        r.reward, r.feedback = 0.0, ""
    t.step(half)  # its first half has no active attempt: one optimiser step
    t.step(rollouts)
    t.step(rollouts)
    assert (
        t.optimizer.rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5])
        and t.optimizer_steps == 7
    )


# -- teachers -------------------------------------------------------------------------------------------------------------------------------


PROMPTS, COMPLETIONS = [[5, 6, 7], [8, 9, 10, 11, 12]], [[20, 21, 22, 23], [30, 31]]


def teacher_distribution(teacher, temperature=1.0):
    return teacher.read(PROMPTS, COMPLETIONS, temperature, False)(slice(None)).log_softmax(-1)


@torch.no_grad()
def distribution(model, temperature=1.0):
    logits = completion_logits(model, PROMPTS, COMPLETIONS) / temperature
    return torch.cat([row[: len(c)] for row, c in zip(logits, COMPLETIONS)]).log_softmax(-1)


def moved(tiny, **fields):
    """A trainer whose student has gone far from where it began."""
    t, g = trainer(tiny, **fields), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in t.model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))
    return t


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_trust_region_teacher_is_the_normalised_geometric_mixture(tiny, rate, temperature):
    t = moved(tiny, teacher_model_kind="trust_region", teacher_update_rate=rate)
    reference, student = distribution(tiny[0], temperature), distribution(t.model, temperature)
    mixture = reference.exp() ** (1 - rate) * student.exp() ** rate
    found = teacher_distribution(t.teacher, temperature)
    assert torch.allclose(found.exp(), mixture / mixture.sum(-1, keepdim=True), atol=1e-6)
    t.step()
    assert torch.equal(
        weights(t.teacher.model), weights(tiny[0])
    )  # the reference stays; the mixture follows the student by itself
    assert torch.equal(found, teacher_distribution(t.teacher, temperature)) == (rate == 0)
    assert (reference - student).abs().max() > 0.5


@pytest.mark.parametrize("rate", [0.0, 0.4, 1.0])
def test_the_trust_region_teacher_writes_what_its_distribution_says(tiny, rate):
    """Greedy answers of the mixture, token by token, with prompts of different length and attempts that end."""
    t = moved(tiny, teacher_model_kind="trust_region", teacher_update_rate=rate)
    problems = [
        Problem(str(i), [{"role": "user", "content": f"{chr(97 + 5 * i)} {i} " * (1 + i)}])
        for i in range(6)
    ]
    mixture = Mixture(t.teacher.model, t.model, rate).eval()
    settings = dict(num_generations=1, temperature=0, max_completion_length=20)
    endless = lab.rollout(mixture, tiny[1], problems, **settings)
    t.model.generation_config.eos_token_id = [
        endless[0].completion_ids[1],
        endless[3].completion_ids[7],
    ]
    attempts = lab.rollout(mixture, tiny[1], problems, **settings)
    assert len({len(r.completion_ids) for r in attempts}) > 1
    for r in attempts:
        logits = [hand_logits(m, tiny[1], r.problem.messages, r) for m in (tiny[0], t.model)]
        logits = (1 - rate) * logits[0] + rate * logits[1]
        chosen = logits.gather(1, torch.tensor(r.completion_ids)[:, None])[:, 0]
        assert (chosen >= logits.amax(-1) - 1e-4).all()


def test_the_trust_region_teacher_can_be_evaluated_and_its_ends_are_the_frozen_and_the_live_one(
    tiny,
):
    found = {
        (kind, rate): moved(tiny, teacher_model_kind=kind, teacher_update_rate=rate).evaluate(
            24, role="teacher"
        )
        for kind, rate in (
            ("trust_region", 0.0),
            ("frozen", 0.0),
            ("trust_region", 1.0),
            ("live", 0.0),
            ("trust_region", 0.5),
        )
    }
    assert (
        found["trust_region", 0.0] == found["frozen", 0.0]
        and found["trust_region", 1.0] == found["live", 0.0]
    )
    assert found["frozen", 0.0] != found["live", 0.0] and found["trust_region", 0.5].n == 24


@pytest.mark.parametrize("kind", lab.config.TEACHERS)
def test_every_teacher_starts_as_the_student_and_goes_its_own_way(tiny, rollouts, kind):
    t = trainer(tiny, teacher_model_kind=kind, teacher_update_rate=0.25)
    start = distribution(tiny[0])
    assert torch.allclose(teacher_distribution(t.teacher), start, atol=1e-5)
    t.step(rollouts)
    own = {"live": t.model, "frozen": tiny[0]}.get(kind) or t.teacher.model
    expected = (
        (0.75 * start + 0.25 * distribution(t.model)).log_softmax(-1)
        if kind == "trust_region"
        else distribution(own)
    )
    assert torch.allclose(teacher_distribution(t.teacher), expected, atol=1e-5)
    shared = {p.data_ptr() for p in t.teacher.model.parameters()} & {
        p.data_ptr() for p in t.model.parameters()
    }
    assert bool(shared) == (kind == "live") and (
        kind == "live" or not any(p.requires_grad for p in t.teacher.model.parameters())
    )


@pytest.mark.parametrize("mode", MODES)
def test_the_first_step_is_the_same_for_every_teacher(tiny, rollouts, mode):
    """All begin as the student; were there a gradient through a teacher, the live one would have another."""
    fields = dict(distillation_mode=mode, distillation_alpha=1.0)
    frozen, *others = (
        step(tiny, rollouts, **fields, teacher_model_kind=kind)
        for kind in ("frozen", "ema", "trust_region", "live")
    )
    for other in others:
        assert_same(other, frozen)


# -- LoRA -----------------------------------------------------------------------------------------------------------------------------------


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
