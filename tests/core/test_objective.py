"""The loss in chunks against the formulas of the paper, written out once more over whole (B, T, V)
tensors, with nothing but torch."""

import copy
import math
import weakref
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import sdpo_lab as lab
from sdpo_lab.core import losses, objective, scoring
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.objective import Tokens
from sdpo_lab.core.rollouts import Rollout
from sdpo_lab.tasks import Problem

V, H = 11, 5
GRPO = {
    "sdpo": {},
    "losses mixed": dict(distillation_weight=0.4),
    "advantages mixed": dict(advantage_lambda=0.9),
    "grpo": dict(distillation_weight=0.0),
}
KINDS = {
    "sampled_token": dict(distillation_mode="sampled_token"),
    "sequence": dict(distillation_mode="sequence"),
}
for alpha in (0.0, 0.3, 0.5, 1.0):
    KINDS[f"full_logits {alpha}"] = dict(distillation_mode="full_logits", distillation_alpha=alpha)
    for tail, name in ((True, "tail"), (False, "no tail")):
        KINDS[f"topk_logits {alpha} {name}"] = dict(
            distillation_alpha=alpha, distillation_topk=4, distillation_add_tail=tail
        )
KINDS["topk_logits of more than the vocabulary"] = dict(
    distillation_alpha=0.5, distillation_topk=50
)


def config(**fields):
    """No field counts as set by hand, so that combinations in which one does nothing are allowed
    too."""
    return SDPOConfig.from_dict(
        {
            **SDPOConfig().to_dict(),
            **dict(epsilon=0.1, epsilon_high=0.2, distillation_is_clip=1.1),
            **fields,
        }
    )


def variations(kind):
    """Every configuration of a kind: clip, GRPO's part, ratio; with whether the batch was sampled
    from older weights."""
    for clip, mix, (off_policy, cap) in product(
        (None, 0.7), GRPO.values(), ((False, 1.1), (True, 1.1), (True, None))
    ):
        fields = KINDS[kind] | dict(advantage_clip=clip, distillation_is_clip=cap) | mix
        if fields.get("distillation_alpha", 1.0) == 1 or not (clip or mix.get("advantage_lambda")):
            yield config(**fields), off_policy


# -- the batch and the plain formula


class Batch:
    """Attempts of different length: student and teacher states, one head for both roles, and old
    log-probabilities near the new ones."""

    def __init__(
        self, seed=0, lengths=(4, 1, 6, 3), shown=(1, 0, 1, 1), off_policy=True, dtype=torch.float64
    ):
        g = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return (0.7 * torch.randn(*shape, generator=g, dtype=torch.float64)).to(dtype)

        n, self.lengths = sum(lengths), lengths
        self.hidden, self.head = normal(n, H).requires_grad_(), normal(V, H).requires_grad_()
        self.teacher_hidden, self.advantages = normal(n, H).requires_grad_(), normal(len(lengths))
        self.weights = normal(len(lengths), max(lengths)).abs() / n
        self.ids = torch.randint(V, (len(lengths), max(lengths)), generator=g)
        problem = Problem("p", [])
        self.attempts = [
            Rollout(problem, i, "", self.ids[i, :m].tolist(), shown_feedback="x" * s)
            for i, (m, s) in enumerate(zip(lengths, shown))
        ]
        new = losses.token_log_probs((self.hidden @ self.head.T).detach(), self.packed(self.ids))
        old = new + 0.5 * normal(n)
        self.old = list(old.split(lengths)) if off_policy else None

    def packed(self, rows):
        return torch.cat([row[:n] for row, n in zip(rows, self.lengths)])

    def padded(self, tokens):
        """(N, ...) -> (B, T, ...), with rubbish in the padding."""
        return torch.nn.utils.rnn.pad_sequence(
            tokens.split(self.lengths), batch_first=True, padding_value=3.0
        )

    def ours(self, c):
        """(value, gradient of the hidden states, gradient of the head's weight), as the trainer
        computes them."""
        self.hidden.grad = self.head.grad = self.teacher_hidden.grad = None
        tokens = Tokens.of(
            self.attempts, self.packed(self.weights), self.advantages, self.old, self.hidden
        )
        teacher = (
            (lambda part: self.teacher_hidden[part] @ self.head.T)
            if c.distillation_weight > 0
            else None
        )
        value = objective.loss_and_backward(
            c, self.hidden, lambda hidden: hidden @ self.head.T, teacher, tokens, V
        )
        assert (
            self.teacher_hidden.grad is None
        )  # the head's weight is the teacher's too: a gradient through it would not go unseen
        return value, self.hidden.grad, self.head.grad

    def plain(self, c):
        """The same by the plain formula, in float64."""
        hidden, head = (x.detach().double().requires_grad_() for x in (self.hidden, self.head))
        mask = self.padded(torch.ones(len(hidden), dtype=torch.float64)) * (
            torch.arange(max(self.lengths)) < torch.tensor(self.lengths)[:, None]
        )
        old = self.padded(torch.cat(self.old).double()) if self.old else None
        shown, advantages = (
            torch.tensor([[float(r.shown)] for r in self.attempts]).double(),
            self.advantages.double()[:, None],
        )
        teacher = self.padded(self.teacher_hidden.double() @ head.T).detach()
        loss = plain_losses(
            c, self.padded(hidden @ head.T), teacher, self.ids, mask, shown, advantages, old
        )
        value = (loss * mask * self.weights.double()).sum()
        value.backward()
        return value.detach(), hidden.grad, head.grad


def plain_losses(c, student, teacher, ids, mask, shown, advantages, old):
    """The loss of every token, (B, T, V) twice, (B, T) twice, (B, 1) twice, (B, T) or None -> (B,
    T)."""
    log_p, log_q = student.log_softmax(-1), teacher.log_softmax(-1)
    one_hot = torch.nn.functional.one_hot(ids, V)
    log_p_y, log_q_y = (log_p * one_hot).sum(-1), (log_q * one_hot).sum(-1)
    ratio = (log_p_y - (log_p_y.detach() if old is None else old)).exp()

    def ppo(advantage):  # paper, Eq. 12
        return -torch.min(
            ratio * advantage, ratio.clamp(1 - c.epsilon, 1 + c.epsilon_high) * advantage
        )

    def clip(advantage):
        return (
            advantage
            if c.advantage_clip is None
            else advantage.clamp(-c.advantage_clip, c.advantage_clip)
        )

    if c.distillation_weight == 0:
        return ppo(advantages)
    cap = (
        1.0
        if old is None or c.distillation_is_clip is None
        else ratio.detach().clamp(max=c.distillation_is_clip)
    )
    w, λ = c.distillation_weight, c.advantage_lambda
    if c.distillation_mode in ("sampled_token", "sequence"):
        credit = clip((log_q_y - log_p_y).detach())
        if c.distillation_mode == "sequence":
            credit = (credit * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
        if λ:
            return ppo(λ * advantages + (1 - λ) * shown * credit)
        loss = -credit * log_p_y
    else:
        p, q = log_p.exp(), log_q.exp()
        if c.distillation_mode == "topk_logits":
            top = log_p.argsort(-1, descending=True)[..., : c.distillation_topk]
            p, q = p.gather(-1, top), q.gather(-1, top)
            if c.distillation_add_tail:  # log(-expm1(log(sum).clamp(max=-1e-7)))
                p, q = (
                    torch.cat([x, (1 - x.sum(-1, keepdim=True)).clamp(min=-math.expm1(-1e-7))], -1)
                    for x in (p, q)
                )
            else:
                p, q = (x / x.sum(-1, keepdim=True) for x in (p, q))
        m, alpha = (1 - c.distillation_alpha) * p + c.distillation_alpha * q, c.distillation_alpha
        if c.advantage_clip is not None:
            loss = -(p * clip((q / p).log().detach())).sum(-1)
        elif alpha in (0, 1):
            loss = (p * (p / q).log() if alpha else q * (q / p).log()).sum(-1)
        else:
            loss = ((1 - alpha) * p * (p / m).log() + alpha * q * (q / m).log()).sum(-1)
    share = λ or 1 - w
    return (1 - share) * shown * cap * loss + (share * ppo(advantages) if share else 0)


def assert_equal(found, expected, tolerance):
    for a, b in zip(found, expected):
        assert (a.double() - b).abs().max() <= tolerance * (1 + b.abs().max()), (a, b)


# -- equal to the plain formula


@pytest.mark.parametrize("kind", KINDS)
def test_value_and_gradients_are_the_plain_formula_for_any_chunk_size(kind, monkeypatch):
    exact, single = (
        {off: Batch(off_policy=off, dtype=dtype) for off in (False, True)}
        for dtype in (torch.float64, torch.float32)
    )
    for c, off_policy in variations(kind):
        expected = exact[off_policy].plain(c)
        for chunk in (1, 3, 1000):
            monkeypatch.setattr(objective, "LOGITS_AT_ONCE", chunk * V)
            assert_equal(exact[off_policy].ours(c), expected, 1e-10)
            assert_equal(single[off_policy].ours(c), single[off_policy].plain(c), 1e-6)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_the_attempts_chunks_and_numbers(data):
    draw = data.draw
    lengths = draw(st.lists(st.integers(1, 7), min_size=1, max_size=5))
    shown = draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)))
    c, off_policy = draw(st.sampled_from(list(variations(draw(st.sampled_from(list(KINDS)))))))
    batch = Batch(draw(st.integers(0, 10_000)), tuple(lengths), shown, off_policy)
    with pytest.MonkeyPatch.context() as m:
        m.setattr(objective, "LOGITS_AT_ONCE", draw(st.integers(1, 40 * V)))
        assert_equal(batch.ours(c), batch.plain(c), 1e-10)


KNOBS = {
    "advantage clip": (dict(advantage_clip=0.7), {}),
    "cap of the ratio": (dict(distillation_is_clip=1.1), dict(distillation_is_clip=None)),
    "GRPO beside it": (dict(distillation_weight=0.4), {}),
    "GRPO's advantage in it": (dict(advantage_lambda=0.9), {}),
}


@pytest.mark.parametrize("knob", KNOBS)
@pytest.mark.parametrize("mode", ["full_logits", "topk_logits", "sampled_token", "sequence"])
def test_every_knob_bites_on_these_numbers(mode, knob):
    """So that the comparisons above are not of one formula with itself."""
    batch, (on, off) = Batch(), KNOBS[knob]
    a, b = (
        batch.plain(config(distillation_mode=mode, distillation_topk=4, **fields))[1]
        for fields in (on, off)
    )
    assert (a - b).abs().max() > 1e-3


@pytest.mark.parametrize("mix", ["losses mixed", "advantages mixed", "grpo"])
def test_ppos_clip_bites_on_both_sides(mix):
    batch = Batch()
    tight, low, high = (
        batch.ours(config(distillation_mode="sampled_token", **GRPO[mix] | e))[1].clone()
        for e in (
            dict(epsilon=0.1, epsilon_high=0.2),
            dict(epsilon=0.1, epsilon_high=9.0),
            dict(epsilon=1.0, epsilon_high=0.2),
        )
    )
    assert not torch.equal(tight, low) and not torch.equal(tight, high)


def test_an_attempt_that_is_not_shown_anything_counts_for_grpo_alone():
    for kind in KINDS:
        batch = Batch(shown=(0, 0, 0, 0))
        value, gradient, _ = batch.ours(config(**KINDS[kind]))
        assert value == 0 and gradient.abs().max() == 0
        ours = batch.ours(config(**KINDS[kind], distillation_weight=0.4))[1].clone()
        assert torch.allclose(
            ours, 0.6 * batch.ours(config(distillation_weight=0.0))[1], atol=1e-12
        )


# -- equal contexts, and what no gradient may reach


@pytest.mark.parametrize("kind", KINDS)
def test_equal_contexts_give_neither_loss_nor_gradient(kind, monkeypatch):
    monkeypatch.setattr(objective, "LOGITS_AT_ONCE", 3 * V)
    for c, off_policy in variations(kind):
        if c.distillation_weight == 1 and c.advantage_lambda == 0:
            batch = Batch(off_policy=off_policy)
            batch.teacher_hidden = batch.hidden.detach().clone().requires_grad_()
            value, *gradients = batch.ours(c)
            assert abs(value) < 1e-12 and all(
                g.abs().max() < 3e-7 for g in gradients
            )  # the tail's least mass is 1e-7, without gradient


@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_reaches_the_teacher(kind):
    """Not even where its logits are a function of weights that have one: neither states nor an own
    head."""
    batch = Batch()
    own_head = batch.head.detach().clone().requires_grad_()
    for c, off_policy in variations(kind):
        if c.distillation_weight > 0 and off_policy:
            tokens = Tokens.of(
                batch.attempts,
                batch.packed(batch.weights),
                batch.advantages,
                batch.old,
                batch.hidden,
            )
            objective.loss_and_backward(
                c,
                batch.hidden,
                lambda h: h @ batch.head.T,
                lambda part: batch.teacher_hidden[part] @ own_head.T,
                tokens,
                V,
            )
    assert (
        own_head.grad is None
        and batch.teacher_hidden.grad is None
        and batch.head.grad.abs().max() > 0
    )


# -- memory


class Largest(TorchDispatchMode):
    """The most numbers any tensor had that an operation gave, those of the backward pass among
    them."""

    numbers, names = 0, ()

    def __torch_dispatch__(self, function, types, arguments=(), kwargs=None):
        out = function(*arguments, **(kwargs or {}))
        sizes = [
            x.numel()
            for x in (out if isinstance(out, (tuple, list)) else [out])
            if isinstance(x, torch.Tensor)
        ]
        self.numbers, self.names = max([self.numbers, *sizes]), {*self.names, function.name()}
        return out


def a_large_vocabulary(mode, n=60, v=400, h=3, lengths=(20, 10, 30)):
    """A call of `loss_and_backward` with everything that takes memory switched on."""
    hidden, head, teacher_hidden = (
        torch.randn(n, h, requires_grad=True),
        torch.randn(v, h, requires_grad=True),
        torch.randn(n, h),
    )
    attempts = [
        Rollout(Problem("p", []), i, "", [7] * m, shown_feedback="x") for i, m in enumerate(lengths)
    ]
    old = [torch.full((m,), -math.log(v)) for m in lengths]
    tokens = Tokens.of(attempts, torch.ones(n), torch.ones(3), old, hidden)
    c = (
        config(distillation_weight=0.0)
        if mode == "grpo"
        else config(distillation_mode=mode, distillation_weight=0.4)
    )
    teacher = None if mode == "grpo" else lambda part: teacher_hidden[part] @ head.T.detach()
    return objective.loss_and_backward(c, hidden, lambda x: x @ head.T, teacher, tokens, v)


@pytest.mark.parametrize(
    "mode", ["full_logits", "topk_logits", "sampled_token", "sequence", "grpo"]
)
@pytest.mark.parametrize("chunk", [3, 60])
def test_the_vocabulary_is_never_held_for_more_tokens_than_a_chunk(mode, chunk, monkeypatch):
    monkeypatch.setattr(objective, "LOGITS_AT_ONCE", chunk * 400 + 1)
    with Largest() as largest:
        a_large_vocabulary(mode)
    assert largest.numbers == chunk * 400 and any(
        "backward" in name for name in largest.names
    )  # it saw that pass too


@pytest.mark.parametrize(
    "mode", ["full_logits", "topk_logits", "sampled_token", "sequence", "grpo"]
)
def test_a_chunk_is_forgotten_before_the_next(mode, monkeypatch):
    """What autograd keeps for the backward pass, added up over all that is alive: no more for
    twenty chunks than for two."""

    class Kept:
        def __init__(self, x):
            self.x = x.detach()
            alive.add(self)
            peak[0] = max(peak[0], sum(k.x.numel() for k in alive))

    alive, peaks = weakref.WeakSet(), []
    for n, lengths in ((6, (2, 1, 3)), (60, (20, 10, 30))):
        peak = [0]
        monkeypatch.setattr(objective, "LOGITS_AT_ONCE", 3 * 400)
        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.x):
            a_large_vocabulary(mode, n=n, lengths=lengths)
        peaks.append(peak[0])
    assert 3 * 400 <= peaks[0] == peaks[1] and not alive


class Said:
    """A task whose verdicts are told beforehand: attempt number i of a problem gets reward and
    feedback number i."""

    def __init__(self, *verdicts):
        self.verdicts = list(verdicts)

    def problems(self, n, split="train", seed=0):
        return [
            Problem(f"{split}-{seed}-{i}", [{"role": "user", "content": f"write {i}"}])
            for i in range(n)
        ]

    def judge(self, problem, completion):
        self.verdicts.append(self.verdicts.pop(0))
        return self.verdicts[-1]


SMALL = dict(generation_batch_size=8, num_generations=4, max_completion_length=12)


@pytest.mark.parametrize(
    "fields",
    [{}, dict(num_iterations=2), dict(distillation_mode="sequence", distillation_alpha=1.0)],
)
@pytest.mark.parametrize("kind", ["ema", "live", "trust_region"])
def test_inactive_rows_cost_no_forward_pass(tiny, kind, fields):
    """What the networks are given in a step is what they are given when the attempt that takes no
    part was never made."""

    def given(verdicts, chosen):
        model, tokenizer = copy.deepcopy(tiny[0]), tiny[1]
        c = lab.SDPOConfig.preset(
            "laptop", **{**SMALL, "generation_batch_size": 4, "teacher_model_kind": kind, **fields}
        )
        t = lab.SDPOTrainer(model, tokenizer, Said(*verdicts), c)
        rollouts, seen = [t.sample(1)[i] for i in chosen], []
        for role, network in {"student": model, "teacher": t.teacher.model}.items():
            hook = lambda module, arguments, inputs, role=role: seen.append(
                (role, inputs["input_ids"].tolist())
            )
            scoring.decoder(network).register_forward_pre_hook(hook, with_kwargs=True)
        return [r.active for r in t.step(rollouts).rollouts], seen

    no, nothing, never, nor = (0.0, "no"), (0.0, ""), (0.0, "never"), (0.0, "nor this")
    active, with_it = given([no, nothing, never, nor], [0, 1, 2, 3])
    everyone, without = given([no, never, nor], [0, 2, 3])
    assert active == [True, False, True, True] and all(everyone) and with_it == without
    assert sum(len(ids) for _, ids in with_it) >= 6 and {role for role, _ in with_it} == {
        "student",
        "teacher",
    }


@pytest.mark.parametrize("mode", ["full_logits", "topk_logits", "sampled_token", "sequence"])
@pytest.mark.parametrize("kind", ["ema", "trust_region"])
def test_in_a_whole_step_no_head_is_given_more_than_a_chunk(tiny, mode, kind, monkeypatch):
    model, tokenizer = tiny
    c = lab.SDPOConfig.preset(
        "laptop",
        **SMALL,
        distillation_mode=mode,
        distillation_alpha=1.0,
        teacher_model_kind=kind,
        num_iterations=2,
    )
    t = lab.SDPOTrainer(model, tokenizer, Said((0.0, "no")), c)
    head, given_rows, rollouts = scoring.head, [], t.sample(1)
    monkeypatch.setattr(
        scoring, "head", lambda model, hidden: given_rows.append(len(hidden)) or head(model, hidden)
    )
    monkeypatch.setattr(objective, "LOGITS_AT_ONCE", 5 * 400)
    tokens = sum(len(r.completion_ids) for r in t.step(rollouts).rollouts)
    student, teachers = (
        1 + (mode == "sequence"),
        1 + (kind == "trust_region"),
    )  # its credit needs a pass before; a mixture has two teachers
    assert max(given_rows) == 5 and sum(given_rows) == tokens * (
        1 + 2 * (student + teachers)
    )  # p_old, and two optimiser steps
