import copy
import math

import pytest
import torch

import sdpo_lab as lab
from sdpo_lab.core import losses
from sdpo_lab.core.chat import encode_chat
from sdpo_lab.core.scoring import completion_logits
from tests.shared.tasks import SMALL, Vowels


@pytest.fixture
def fresh(tiny):
    model, tokenizer = tiny
    return copy.deepcopy(model), tokenizer


def trainer(fresh, task=None, **fields):
    return lab.SDPOTrainer(
        *fresh, task or Vowels(), lab.SDPOConfig.preset("laptop", **{**SMALL, **fields})
    )


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()]).clone()


def test_one_step_is_the_plain_formula(fresh):
    """Loss and gradient step written out again from the record, with nothing but torch."""
    model, tokenizer = fresh
    before = copy.deepcopy(model)
    t = trainer(fresh, distillation_alpha=0.5, max_grad_norm=1e9)
    record = t.step()
    active = [r for r in record.rollouts if r.active]
    assert 0 < len(active)
    total, count = 0.0, sum(len(r.completion_ids) for r in active)
    for r in active:
        s = before(
            torch.tensor([encode_chat(tokenizer, r.problem.messages) + r.completion_ids])
        ).logits[0, :-1][-len(r.completion_ids) :]
        q = before(
            torch.tensor([encode_chat(tokenizer, r.teacher_messages) + r.completion_ids])
        ).logits[0, :-1][-len(r.completion_ids) :]
        s, q = s.log_softmax(-1), q.log_softmax(-1).detach()
        top = s.topk(100).indices  # the vocabulary is larger than 100
        inside = [x.gather(-1, top) for x in (s, q)]
        s, q = (torch.cat([x, (1 - x.exp().sum(-1, keepdim=True)).log()], -1) for x in inside)
        m = torch.logaddexp(s, q) - math.log(2)
        total = total + (0.5 * (s.exp() * (s - m)).sum() + 0.5 * (q.exp() * (q - m)).sum()) / count
    assert record.loss == pytest.approx(total.item(), rel=1e-4)
    total.backward()
    step = torch.optim.AdamW(before.parameters(), lr=1e-2, weight_decay=0.01)
    step.step()
    assert (weights(before) - weights(model)).abs().mean() < 1e-5


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"distillation_weight": 0.0},
        {"distillation_weight": 0.5},
        {"distillation_mode": "full_logits"},
        {"distillation_mode": "sampled_token", "distillation_alpha": 1.0},
        {"distillation_alpha": 0.0},
        {"normalize": "all_rows"},
    ],
)
def test_micro_batches_change_nothing(fresh, fields):
    model, tokenizer = fresh
    rollouts = trainer((copy.deepcopy(model), tokenizer)).step().rollouts
    grads = []
    for size in (64, 3, 1):
        m = copy.deepcopy(model)
        t = lab.SDPOTrainer(
            m,
            tokenizer,
            Vowels(),
            lab.SDPOConfig.preset(
                "laptop",
                **{
                    **SMALL,
                    "per_device_train_batch_size": size,
                    "learning_rate": 1.0,
                    "max_grad_norm": 1e9,
                    **fields,
                },
            ),
        )
        t.optimizer = torch.optim.SGD(
            m.parameters(), lr=1.0
        )  # Adam would turn rounding into full steps
        record = t.step(copy.deepcopy(rollouts))
        grads.append((record.loss, weights(m)))
    for loss, w in grads[1:]:
        assert loss == pytest.approx(grads[0][0], rel=1e-5, abs=1e-7) and torch.allclose(
            w, grads[0][1], atol=1e-6
        )


def test_same_seed_same_run_and_iterating_goes_on(fresh):
    model, tokenizer = fresh
    one, two = (
        trainer((copy.deepcopy(model), tokenizer)),
        trainer((copy.deepcopy(model), tokenizer)),
    )
    one.train(4, progress=False)
    for record in two:
        if record.step == 2:
            break
    two.train(2, progress=False)
    assert torch.equal(weights(one.model), weights(two.model)) and len(two.history) == 4
    assert [r.reward for r in one.history] == [r.reward for r in two.history]
    assert one.history.to_frame().loc[4, "grad_norm"] == two.history.to_frame().loc[4, "grad_norm"]


def test_ema_frozen_and_live_teachers(fresh):
    model, tokenizer = fresh
    start = weights(model)
    t = trainer((copy.deepcopy(model), tokenizer), teacher_update_rate=0.25)
    expected = start.clone()
    for _ in range(3):
        t.step()
        expected = 0.75 * expected + 0.25 * weights(t.model)
    assert torch.allclose(weights(t.teacher.model), expected, atol=1e-6) and not torch.equal(
        expected, weights(t.model)
    )
    frozen = trainer((copy.deepcopy(model), tokenizer), teacher_model_kind="frozen")
    frozen.step()
    assert torch.equal(weights(frozen.teacher.model), start) and not any(
        p.requires_grad for p in frozen.teacher.model.parameters()
    )
    live = trainer((copy.deepcopy(model), tokenizer), teacher_model_kind="live")
    assert live.teacher.model is live.model


def test_a_step_without_an_active_row_is_skipped_counted_and_changes_nothing(fresh):
    class Silent(Vowels):
        def judge(self, problem, completion):
            return 0.0, ""

    t = trainer(fresh, Silent())
    before = weights(t.model)
    record = t.step()
    assert math.isnan(record.loss) and t.skipped_steps == 1 and record.metrics["skipped"] == 1
    assert record.metrics["self_distillation/empty_target_batch"] == 1 and torch.equal(
        before, weights(t.model)
    )


def test_grpo_is_weight_zero_and_needs_no_teacher(fresh, monkeypatch):
    t = trainer(fresh, distillation_weight=0.0)
    monkeypatch.setattr(losses, "distillation_loss", None)  # would fail if it were called
    record = t.step()
    rewards = torch.tensor([r.reward for r in record.rollouts]).view(2, 4)
    assert t.teacher is None
    with pytest.raises(ValueError, match="has no teacher"):
        t.evaluate(8, role="teacher")
    for r, a in zip(record.rollouts, losses.group_advantages(rewards).flatten().tolist()):
        assert r.active == (a != 0) and (r.active or "same reward" in r.why)


def test_losses_that_are_not_finite_are_not_applied_and_stop_the_run(fresh, monkeypatch):
    t = trainer(fresh)
    monkeypatch.setattr(losses, "distillation_loss", lambda s, *a, **k: s.sum(-1) * float("nan"))
    before = weights(t.model)
    t.step()
    assert t.history[-1].metrics["not_finite"] == 1 and torch.equal(before, weights(t.model))
    t.step()
    with pytest.raises(FloatingPointError, match="3 steps in a row.*learning rate"):
        t.step()
    assert torch.equal(before, weights(t.model)) and len(t.history) == 3


def test_live_changes_take_effect_are_logged_and_replay(fresh):
    model, tokenizer = fresh
    one, two = (
        trainer((copy.deepcopy(model), tokenizer)),
        trainer((copy.deepcopy(model), tokenizer)),
    )
    one.train(1, progress=False)
    one.apply(learning_rate=1e-3, teacher_update_rate=0.5)
    one.train(2, progress=False)
    assert (
        one.history.changes == {2: {"learning_rate": 1e-3, "teacher_update_rate": 0.5}}
        and one.optimizer.param_groups[0]["lr"] == 1e-3
    )
    two.train(3, changes=one.history.changes, progress=False)
    assert (
        torch.equal(weights(one.model), weights(two.model))
        and two.history.changes == one.history.changes
    )
    frozen = trainer((copy.deepcopy(model), tokenizer), teacher_model_kind="frozen")
    with pytest.warns(
        UserWarning,
        match="teacher_update_rate=0.2 would do nothing: teacher_model_kind is neither 'ema' nor "
        "'trust_region'",
    ):
        frozen.apply(teacher_update_rate=0.2)
    with pytest.raises(ValueError, match="num_generations.*learning_rate"):
        one.apply(num_generations=3)
    with pytest.raises(ValueError, match="learning_rate must be from 0.0 to 10.0; got -1"):
        one.apply(learning_rate=-1)


def test_evaluate_leaves_weights_and_noise_alone(fresh):
    model, tokenizer = fresh
    undisturbed = trainer((copy.deepcopy(model), tokenizer))
    undisturbed.train(2, progress=False)
    t = trainer(fresh)
    t.step()
    before, state, training = weights(t.model), torch.get_rng_state(), t.model.training
    e = t.evaluate(40)
    lab.credit(
        t.model, tokenizer, Vowels().problems(1)[0], "x", feedback="y", teacher=t.teacher.model
    )
    assert torch.equal(torch.get_rng_state(), state) and t.model.training == training
    assert (
        torch.equal(before, weights(t.model))
        and float(e) == e.accuracy
        and e.interval[0] <= e.accuracy <= e.interval[1]
    )
    assert float(t.evaluate(40)) == float(e) and e.pass_at_8 >= 0 and "T=1" in str(e)
    assert t.evaluate(16, role="teacher").n == 16 and t.evaluate(5, role="teacher").n == 5
    t.step()
    assert torch.equal(
        weights(t.model), weights(undisturbed.model)
    )  # the run goes on as if nobody had looked


def test_metrics_have_the_official_names(fresh):
    record = trainer(fresh).step()
    for name in (
        "success_group_fraction",
        "success_sample_fraction",
        "feedback_available_fraction",
        "feedback_used_fraction",
        "reprompt_sample_fraction",
        "empty_target_batch",
    ):
        assert 0 <= record.metrics[f"self_distillation/{name}"] <= 1
    assert {"active_fraction", "entropy", "completion_length", "grad_norm"} <= set(record.metrics)


def test_bad_input_is_refused_before_anything_is_lost(fresh):
    model, tokenizer = fresh
    with pytest.raises(TypeError, match=r"task must have a method problems\(\)"):
        lab.SDPOTrainer(model, tokenizer, object())
    with pytest.raises(TypeError, match="config must be an SDPOConfig, got dict"):
        lab.SDPOTrainer(model, tokenizer, Vowels(), {"seed": 1})
    with pytest.raises(ValueError, match="must be float32"):
        lab.SDPOTrainer(copy.deepcopy(model).bfloat16(), tokenizer, Vowels())
    t = trainer(fresh)
    with pytest.raises(ValueError, match="whole groups"):
        t.step([])
    twice = lab.rollout(model, tokenizer, Vowels().problems(1), 1, max_completion_length=4) * 2
    with pytest.raises(ValueError, match="two rollouts of problem 'train-0-0' have the same index"):
        t.step(twice)
    with pytest.raises(ValueError, match="no weight of the model is trainable"):
        lab.SDPOTrainer(copy.deepcopy(model).requires_grad_(False), tokenizer, Vowels())
    with pytest.raises(ValueError, match="at least 2 for GRPO"):
        lab.SDPOConfig(num_generations=1, distillation_weight=0.0)
    with pytest.raises(
        ValueError,
        match="role must be one of 'student', 'teacher'; got 'techer'. Did you mean 'teacher'",
    ):
        t.evaluate(8, role="techer")


class Odd(Vowels):
    def judge(self, problem, completion):
        return self.value


@pytest.mark.parametrize(
    "value, error, words",
    [
        ((float("nan"), ""), ValueError, "finite"),
        (("1", ""), TypeError, "must be a number"),
        (None, TypeError, "NoneType"),
        ((1.0, None), TypeError, "feedback must be a string"),
    ],
)
def test_odd_verdicts_are_named(fresh, value, error, words):
    task = Odd()
    task.value = value
    with pytest.raises(error, match=words):
        trainer(fresh, task).step()


def test_credit_scores_the_ids_it_is_given(fresh):
    model, tokenizer = fresh
    problem = Vowels().problems(1)[0]
    r = lab.rollout(model, tokenizer, [problem], 1, max_completion_length=10)[0]
    c = lab.credit(model, tokenizer, problem, r, feedback="3 vowels <b>")
    assert c.completion_ids == r.completion_ids and "".join(c.tokens) == tokenizer.decode(
        r.completion_ids, skip_special_tokens=False
    )
    s = completion_logits(model, [encode_chat(tokenizer, problem.messages)], [r.completion_ids])[
        0
    ].log_softmax(-1)
    assert torch.allclose(
        c.student_log_probs, s.gather(1, torch.tensor(r.completion_ids)[:, None])[:, 0]
    )
    assert torch.allclose(c.advantages, c.teacher_log_probs - c.student_log_probs) and len(
        c.top(3)
    ) == len(c.tokens)
    same = lab.credit(model, tokenizer, problem, r)
    assert same.advantages.abs().max() == 0 and same.divergence.abs().max() < 1e-6
    t = trainer(
        fresh, teacher_model_kind="trust_region", teacher_update_rate=0.5
    )  # between the frozen model and one that moved
    t.step()
    apart, mixed = (
        lab.credit(t.model, tokenizer, problem, r, feedback="3 vowels", teacher=x)
        for x in (t.teacher.model, t.teacher)
    )
    moved = lab.credit(t.model, tokenizer, problem, r, feedback="3 vowels").teacher_distribution
    expected = (0.5 * apart.teacher_distribution + 0.5 * moved).log_softmax(-1)
    assert torch.allclose(mixed.teacher_distribution, expected, atol=1e-4) and not torch.allclose(
        mixed.teacher_distribution, moved, atol=1e-2
    )
    assert (
        "attempt:\n\nzzz\n"
        in lab.credit(model, tokenizer, problem, "x", feedback="F", attempt="zzz").teacher_prompt
    )
    hostile = lab.credit(model, tokenizer, problem, "x")
    hostile.tokens = ['<script>alert("1")</script>\n']
    assert (
        "<script>alert" not in hostile._repr_html_()
        and "&lt;script&gt;alert(" in hostile._repr_html_()
    )
    with pytest.raises(ValueError, match="from 0 to 399.*got 7 to 4000"):
        lab.credit(model, tokenizer, problem, [7, 4000])
    with pytest.raises(ValueError, match="empty"):
        lab.credit(model, tokenizer, problem, "")


def test_an_interrupted_step_leaves_nothing_behind(fresh, monkeypatch):
    model, tokenizer = fresh
    clean, broken = (
        trainer((copy.deepcopy(model), tokenizer)),
        trainer((copy.deepcopy(model), tokenizer), per_device_train_batch_size=2),
    )
    original, calls = losses.distillation_loss, []

    def interrupted(*arguments, **settings):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments, **settings)

    monkeypatch.setattr(losses, "distillation_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        broken.step()
    monkeypatch.setattr(losses, "distillation_loss", original)
    assert len(broken.history) == 0
    assert broken.step().metrics["grad_norm"] == pytest.approx(
        clean.step().metrics["grad_norm"], rel=1e-4
    )


def test_shortened_teacher_prompts_are_said_aloud(fresh):
    class Long(Vowels):
        def judge(self, problem, completion):
            return 0.0, "far too long " * 60

    with pytest.warns(UserWarning, match="did not fit .max_reprompt_len=100"):
        record = trainer(fresh, Long(), max_reprompt_len=100).step()
    assert record.metrics["reprompt_shortened_fraction"] == 1


def test_given_rollouts_keep_their_verdicts_and_are_not_touched(fresh):
    model, tokenizer = fresh
    problems = Vowels().problems(2)
    logged = lab.rollout(model, tokenizer, problems, 4, max_completion_length=6)
    for r in logged[:4]:
        r.reward, r.feedback = 0.0, "a person said no"
    before = copy.deepcopy(logged)
    record = trainer(fresh).step(logged)
    assert logged == before and all(r.reward is None for r in logged[4:])
    assert all(r.shown_feedback == "a person said no" and r.active for r in record.rollouts[:4])
    assert all(r.reward is not None for r in record.rollouts)


def test_tasks_that_give_too_little_or_one_id_twice_are_named(fresh):
    class Few(Vowels):
        def problems(self, n, split="train", seed=0):
            return super().problems(n - 1)

    class Twice(Vowels):
        def problems(self, n, split="train", seed=0):
            return super().problems(1) * n

    with pytest.raises(
        ValueError,
        match=r"Few.problems\(2, split='train', seed=1\) gave 1 problems; it must give 2",
    ):
        trainer(fresh, Few()).step()
    with pytest.raises(ValueError, match="two problems with the id 'train-0-0'"):
        trainer(fresh, Twice()).step()


def test_dropout_changes_nothing(fresh):
    """GPT-2 has dropout and absolute positions; the same seed gives the same run whatever the
    global generator says."""
    from transformers import GPT2Config, GPT2LMHeadModel

    _, tokenizer = fresh
    results = []
    for seed in (1, 2):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=400,
                n_positions=256,
                n_embd=32,
                n_layer=2,
                n_head=2,
                bos_token_id=None,
                eos_token_id=2,
            )
        )
        torch.manual_seed(seed)
        t = trainer((model, tokenizer))
        t.step()
        results.append(weights(model))
    assert torch.equal(*results)


@pytest.mark.parametrize(
    "fields", [dict(distillation_weight=0.5), dict(advantage_lambda=0.5, distillation_alpha=1.0)]
)
def test_in_a_mixture_the_teacher_reads_only_those_it_was_shown_something_of(
    fresh, fields, monkeypatch
):
    t = trainer(fresh, **fields, dont_reprompt_on_self_success=True, self_success="skip")
    read, asked = t.teacher.read, []
    monkeypatch.setattr(
        t.teacher,
        "read",
        lambda prompts, completions, *rest: (
            asked.extend(completions) or read(prompts, completions, *rest)
        ),
    )
    rollouts = t.step().rollouts
    shown, others = ([r for r in rollouts if r.active and r.shown == s] for s in (True, False))
    assert len(asked) == len(shown) > 0 and others


@pytest.mark.parametrize("bf16", [True, False])
def test_attempts_are_sampled_in_the_precision_they_are_scored_in(fresh, bf16, monkeypatch):
    from sdpo_lab.core import sampling

    seen, draw = [], sampling.draw
    monkeypatch.setattr(
        sampling, "draw", lambda logits, *rest: seen.append(logits.dtype) or draw(logits, *rest)
    )
    trainer(fresh, bf16=bf16).sample(1)
    assert set(seen) == {torch.bfloat16 if bf16 else torch.float32}
