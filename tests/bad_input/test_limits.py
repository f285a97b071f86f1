"""Attempts of one's own, and attempts, models and tokenizers at their limits."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
import torch

import sdpo_lab as lab
from sdpo_lab.core.checks import short_repr
from sdpo_lab.core.rollouts import Rollout
from sdpo_lab.core.task import Problem
from sdpo_lab.tasks.sandbox import Program, Sandbox
from sdpo_lab.trainer import SDPOTrainer
from tests.bad_input.rows import CHAT, QUESTION, Gives, Sums, small
from tests.bad_input.values import HUGE, INF, NAN, refused


@pytest.mark.parametrize(
    "field, bad, words",
    [
        ("completion_ids", [10**6], "must be from 0 to 399, the model's vocabulary; got 1000000"),
        ("completion_ids", [5, -5], "must be from 0 to 399, .* got -5"),
        ("completion_ids", [400], "must be from 0 to 399"),
        ("completion_ids", [HUGE], "must be from 0 to 399"),
        ("completion_ids", [1.5], "must be Python's whole numbers, one has the type float: 1.5"),
        ("completion_ids", [True], "one has the type bool"),
        ("completion_ids", [np.int64(5)], r"one has the type int64.*\.tolist\(\)"),
        ("completion_ids", ["5"], "one has the type str: '5'"),
        (
            "completion_ids",
            torch.tensor([5]),
            r"must be a list of token ids; \.tolist\(\).*got Tensor",
        ),
        ("completion_ids", None, "must be a list of token ids"),
        ("completion_ids", (5, 6), "must be a list of token ids"),
        ("reward", NAN, "must be finite, got nan"),
        ("reward", INF, "must be finite, got inf"),
        ("reward", HUGE, "must be from -1000000 to 1000000"),
        ("reward", -1e308, "must be from -1000000 to 1000000"),
        ("reward", "1", "must be a number, got '1'"),
        ("reward", True, "must be a number, got True"),
        ("reward", torch.tensor(1.0), "must be a number, got"),
        ("feedback", 3, "must be a string, got 3"),
        ("feedback", None, "must be a string, got None"),
        ("text", None, "must be a string, got None"),
        ("text", b"a", "must be a string, got b'a'"),
        ("index", -1, "must be from 0 upwards; got -1"),
        ("index", "0", "must be a whole number from 0 upwards; got '0'"),
        ("entropy", None, "must be a number.*got None"),
        ("truncated", 1, "must be one of False, True"),
        ("problem", None, "a problem must be a Problem"),
        ("problem", Problem("p", []), "problem 'p' must end with what the user says"),
    ],
    ids=lambda v: short_repr(v)[:40],
)
def test_attempts(field, bad, words, one):
    """Given to a step, or by a sampler of one's own: refused with the name of the field, and
    nothing has changed."""
    attempts = [
        Rollout(QUESTION, i, "ab", [5, 6], reward=float(i), feedback="" if i else "no")
        for i in range(4)
    ]
    attempts[2] = dataclasses.replace(attempts[2], **{field: bad})
    named = "" if field == "problem" else f"{field} of (rollout 2|a rollout) of problem 'p' "

    class Own(SDPOTrainer):
        def sample(self, number):
            return attempts

    before = [p.clone() for p in one.model.parameters()]
    trainer = Own(one.model, one.tokenizer, Sums(), small())
    for call in (lambda: trainer.step(attempts), trainer.step):
        with pytest.raises((TypeError, ValueError), match=named + ".*" * bool(named) + words):
            call()
    assert len(trainer.history) == 0 and all(
        torch.equal(a, b) for a, b in zip(before, one.model.parameters())
    )


def test_a_step_on_attempts_that_are_right(tiny):
    attempts = [
        Rollout(QUESTION, i, "ab", [5, 399], reward=1_000_000 * i, feedback="" if i else "no")
        for i in range(2)
    ] + [Rollout(Problem("q", CHAT), 0, "", [])]
    trainer = SDPOTrainer(*tiny, Sums(), small(distillation_weight=0))
    record = trainer.step(attempts)
    assert math.isfinite(record.loss) and record.metrics["not_finite"] == 0, (
        "the largest rewards there are still train"
    )
    assert attempts[2].reward is None, "they are copied"


@pytest.mark.parametrize(
    "bad, value",
    [
        (dict(code=3), "3"),
        (dict(function=None), "None"),
        (dict(inputs=3), "3"),
        (dict(inputs=(1,)), "1"),
        (dict(inputs=((object,),)), "type"),
        (dict(inputs=((1,),) * 257), "257"),
    ],
)
def test_programs(bad, value):
    with (
        Sandbox(workers=1) as box,
        pytest.raises((TypeError, ValueError), match=rf"(?s){next(iter(bad))}.*{value}"),
    ):
        box.run([Program(**{"code": "", "function": "f", "inputs": ((1,),), **bad})])


def test_the_tokenizer_of_another_model_is_refused(tiny):
    """Found before anything is computed, where it was an IndexError of torch."""
    import copy

    (model, tokenizer), other = tiny, lab.load_model("lab-100k")[1]
    words = (
        r"tokenizer must be the model's own: its tokens go up to number 1535, and the model's "
        r"input embedding has 400 rows, for 0 to 399\. Load both from the same place"
    )
    for call in (
        lambda: lab.rollout(model, other, [QUESTION], 1),
        lambda: SDPOTrainer(model, other, Sums(), small()),
        lambda: lab.credit(model, other, QUESTION, "ab"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    longer = copy.deepcopy(tokenizer)
    longer.add_tokens(["perhaps"])
    with pytest.raises(
        ValueError,
        match=r"up to number 400, .*use model\.resize_token_embeddings\(len\(tokenizer\)\)",
    ):
        lab.rollout(model, longer, [QUESTION], 1)
    longer = copy.deepcopy(tokenizer)
    longer.add_special_tokens(
        {"additional_special_tokens": ["<image>"]}
    )  # a special token that no text holds, as the image's in Gemma 3 1B
    assert lab.rollout(model, longer, [QUESTION], 1, max_completion_length=2)
    longer.chat_template = "<image>" + longer.chat_template
    with pytest.raises(
        ValueError,
        match="the tokens of a prompt, as its chat template writes it, go up to number 400, and "
        "the model's input embedding has 400 rows",
    ):
        lab.rollout(model, longer, [QUESTION], 1)
    model.resize_token_embeddings(512)  # more rows than tokens, as most models have
    assert lab.rollout(model, longer, [QUESTION], 1, max_completion_length=2)


def test_a_model_without_weights_or_with_damaged_ones_is_named(tiny):
    import copy

    model, tokenizer = tiny
    with pytest.raises(ValueError, match="model must have weights, got a .* on the device 'meta'"):
        SDPOTrainer(copy.deepcopy(model).to("meta"), tokenizer, Sums(), small())
    name, weight = [*model.named_parameters()][3]
    whole = weight.data.clone()
    for bad in (NAN, INF):
        weight.data[0] = bad
        with pytest.raises(
            ValueError,
            match=f"weights of the model must be finite numbers; nan or infinite ones are in "
            f"{re.escape(name)}\\. Load it again",
        ):
            SDPOTrainer(model, tokenizer, Sums(), small())
    weight.data = whole * 1e38 * 1e3  # infinite ones
    with pytest.raises(ValueError, match=re.escape(name)):
        SDPOTrainer(model, tokenizer, Sums(), small())
    weight.data = whole
    assert SDPOTrainer(model, tokenizer, Sums(), small())


def test_attempts_that_never_end_groups_of_one_and_equal_rewards(tiny):
    """All of them train or are counted as skipped; none is an error."""
    model, tokenizer = tiny
    model.generation_config.eos_token_id = tokenizer.eos_token_id = (
        0  # which the model can write as any other; nothing else ends an attempt
    )
    trainer = SDPOTrainer(model, tokenizer, Sums(), small(num_generations=1))
    record = trainer.step()
    assert all(
        r.truncated == (r.completion_ids[-1] != 0) for r in record.rollouts
    ) and math.isfinite(record.loss) == bool(record.metrics["active_fraction"])
    equal = SDPOTrainer(model, tokenizer, Gives(verdict=(0.5, "")), small(distillation_weight=0))
    record = equal.step()
    assert (
        equal.skipped_steps == 1
        and equal.optimizer_steps == 0
        and {r.why for r in record.rollouts} == {"all attempts of its group have the same reward"}
    )
    silent = SDPOTrainer(model, tokenizer, Gives(verdict=(0.0, "")), small())
    assert silent.step().metrics["active_fraction"] == 0 and silent.skipped_steps == 1
    refused(lambda: small(num_generations=1, distillation_weight=0), "num_generations", 1)


def test_prompts_longer_than_the_context(one):
    long = Problem("long", [{"role": "user", "content": "word " * 3000}])
    with pytest.raises(ValueError, match="a prompt has .* tokens, the model's context is 2048"):
        lab.rollout(one.model, one.tokenizer, [long], 1)
    with pytest.raises(
        ValueError, match="tokens together, the model's context is 2048; shorten the texts"
    ):
        lab.credit(one.model, one.tokenizer, QUESTION, "ab", feedback="word " * 3000)
    with pytest.raises(ValueError, match="tokens together, the model's context is 2048"):
        lab.credit(one.model, one.tokenizer, long, "ab")
    trainer = SDPOTrainer(
        one.model,
        one.tokenizer,
        Gives(lambda n: [dataclasses.replace(long, id=str(i)) for i in range(n)]),
        small(),
    )
    with pytest.raises(ValueError, match="context is 2048"):
        trainer.step()


def test_a_teacher_s_prompt_gives_way_to_the_context(one):
    from sdpo_lab.core.reprompt import encode_teacher, reprompt

    config = small(max_reprompt_len=10_000)
    r = Rollout(QUESTION, 0, "ab", [5] * 100, reward=0.0, feedback="word " * 3000)
    reprompt([r], config, None)
    ids, shortened = encode_teacher(one.tokenizer, r, config, context=512)
    assert shortened and len(ids) + 100 <= 512 and r.shown_feedback
    reprompt([r], config, None)
    assert not encode_teacher(one.tokenizer, r, config)[1]
    with pytest.raises(
        ValueError,
        match="problem 'p' has .* tokens even with its texts cut to a character each, and 20 have"
        " room: the model's context=120 must hold the attempt besides",
    ):
        encode_teacher(one.tokenizer, r, config, context=120)


def changed(tokenizer, **attributes):
    import copy

    tokenizer = copy.deepcopy(tokenizer)
    for name, value in attributes.items():
        setattr(tokenizer, name, value)
    return tokenizer


def test_tokenizers_without_template_end_or_padding(tiny):
    model, tokenizer = tiny
    bare = changed(tokenizer, chat_template=None)
    for call in (
        lambda: lab.rollout(model, bare, [QUESTION], 1),
        lambda: lab.credit(model, bare, QUESTION, "ab"),
        SDPOTrainer(model, bare, Sums(), small()).step,
    ):
        with pytest.raises(ValueError, match="no chat template; set tokenizer.chat_template"):
            call()
    padless = changed(tokenizer, pad_token=None)
    assert (
        lab.rollout(model, padless, [QUESTION], 2, max_completion_length=3)[1].text
        == lab.rollout(model, tokenizer, [QUESTION], 2, max_completion_length=3)[1].text
    )
    model.generation_config.eos_token_id = None
    endless = changed(tokenizer, eos_token=None)
    with pytest.raises(ValueError, match="end-of-sequence token; set tokenizer.eos_token"):
        lab.rollout(model, endless, [QUESTION], 1)
