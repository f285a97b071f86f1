"""Side by side with TRL: the same model, the same attempts and SGD end in the same losses and the
same weights, to 1e-6.

TRL trains first, and what it trained on is written down; our trainer is given those attempts and
neither samples nor judges. SGD and not Adam, which makes a full step of a gradient of 1e-8: there
rounding alone would part the two.
"""

import copy
import itertools
import os
from dataclasses import dataclass, field, fields

import pytest
import torch

import sdpo_lab as lab
from sdpo_lab.core.chat import encode_chat
from sdpo_lab.core.reprompt import encode_teacher, teacher_messages

os.environ["TRL_EXPERIMENTAL_SILENCE"] = (
    "1"  # TRL warns at import; the Hub is switched off for all tests in tests/conftest.py
)

from datasets import Dataset
from transformers import PrinterCallback, TrainingArguments
from trl.experimental import sdpo as trl

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*gradient_checkpointing. is deprecated:FutureWarning"
)  # TRL uses it, asked or not

G, TOLERANCE = 4, 1e-6
#: Nearer than this, rounding decides which of two tokens is the last of the top k. Each of the two
#: is right, but they are different
#: losses, 1e-5 in the weights; such a run (one in ten or so) is sampled again.
NO_TIE = 2e-6
#: Who succeeds in a group: several; one, who has nobody to learn from; nobody; all. Decided by an
#: attempt's place and not by its
#: text, so that whatever another version of torch samples no optimiser step is without an active
#: attempt: there TRL makes
#: a step with a gradient of 0 and moves its teacher, while we skip the step.
SUCCESSES = ("0101", "1000", "0000", "0010", "1111", "0110")

TOP_20, FULL, TAIL = (
    dict(distillation_mode="topk_logits", distillation_topk=20),
    dict(distillation_mode="full_logits"),
    dict(distillation_add_tail=True),
)
FORWARD, REVERSE = dict(distillation_alpha=0.0), dict(distillation_alpha=1.0)
JSD = dict(distillation_alpha=0.5, learning_rate=1.0)  # its gradients are much smaller than a KL's
FROZEN = dict(teacher_model_kind="frozen")
FOUR_STEPS = dict(
    generation_batch_size=16,
    steps_per_generation=4,
    successes=("0101", "1000", "0110", "0010"),
    batches=3,
)
CLIPPED = dict(distillation_is_clip=1.001)  # in a few steps of a tiny model p / p_old stays near 1
FEEDBACK = TOP_20 | TAIL | JSD | dict(include_environment_feedback=True)
CASES = {
    "top-k with tail": TOP_20 | TAIL | JSD,
    "top-k with tail, reverse, frozen teacher": TOP_20
    | TAIL
    | REVERSE
    | FROZEN
    | dict(learning_rate=0.5),
    "top-k renormalised, forward": TOP_20 | FORWARD,
    "full logits": FULL | JSD,
    "full logits, forward, temperature 0.7": FULL | FORWARD | dict(temperature=0.7),
    "full logits, reverse, live teacher": FULL | REVERSE | dict(teacher_model_kind="live"),
    "sampled token": {},
    "sampled token, frozen teacher": FROZEN,
    "gradients accumulated over 2 micro-batches": FULL | JSD | dict(micro_batches=2),
    "4 steps a batch, clipped": TOP_20 | TAIL | JSD | FOUR_STEPS | CLIPPED,
    "4 steps a batch, twice, clipped, sampled token": FOUR_STEPS
    | CLIPPED
    | dict(num_iterations=2, batches=2),
    "feedback": FEEDBACK,
    "losses mixed with GRPO's": FULL | FORWARD | FOUR_STEPS | dict(distillation_weight=0.5),
    "GRPO": FOUR_STEPS | dict(distillation_weight=0.0),
}
SDPO = [name for name, case in CASES.items() if "distillation_weight" not in case]


def config(case, **more):
    """Our configuration of a case."""
    common = dict(
        generation_batch_size=8,
        num_generations=G,
        max_completion_length=24,
        learning_rate=0.05,
        max_grad_norm=1e9,
    )  # TRL: 0, no clipping
    case = {
        k: v
        for k, v in case.items()
        if k not in ("successes", "micro_batches", "batches", "tell_successes")
    }
    return lab.SDPOConfig.preset("trl", **common | case | more)


def trl_config(case, folder, end, seed):
    """The same in TRL's names. Its other defaults (bfloat16, checkpointing, decay of the learning
    rate) are switched off.

    A random model hardly ever ends an attempt: the token `end` is made likelier in sampling, though
    not as one of the first three, since TRL shows an empty success as a solution and we do not.
    """
    c, accumulated = config(case), case.get("micro_batches", 1)
    same = {
        name: getattr(c, name)
        for name in (
            "num_generations",
            "num_iterations",
            "max_completion_length",
            "temperature",
            "top_p",
            "learning_rate",
            "distillation_mode",
            "distillation_alpha",
            "distillation_add_tail",
            "distillation_is_clip",
            "distillation_weight",
            "epsilon",
            "epsilon_high",
            "scale_rewards",
            "teacher_update_rate",
            "include_environment_feedback",
        )
    }
    return trl.SDPOConfig(
        **same,
        distillation_topk=c.distillation_topk if c.distillation_mode == "topk_logits" else None,
        loss_type="grpo",
        teacher_model_kind={"frozen": "base"}.get(c.teacher_model_kind, c.teacher_model_kind),
        max_prompt_length=None,
        top_k=0,
        generation_kwargs=dict(min_new_tokens=3, sequence_bias=[[[end], 3.0]]),
        per_device_train_batch_size=c.generation_batch_size
        // c.steps_per_generation
        // accumulated,
        gradient_accumulation_steps=accumulated,
        steps_per_generation=c.steps_per_generation * accumulated,
        max_steps=case.get("batches", 4) * c.steps_per_generation * c.num_iterations,
        optim="sgd",
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        seed=seed,
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


@dataclass
class Batch:
    """What TRL sampled at once, and its losses on it."""

    examples: list[dict]
    tensors: dict[str, torch.Tensor]
    losses: list[float] = field(default_factory=list)

    def ids(self, what):
        """The rows without their padding, of "prompt", "completion" or "teacher" (prompt and
        completion)."""
        ids, mask = (
            ("teacher_input_ids", "teacher_attention_mask")
            if what == "teacher"
            else (f"{what}_ids", f"{what}_mask")
        )
        return [row[m.bool()].tolist() for row, m in zip(self.tensors[ids], self.tensors[mask])]

    def rollouts(self, tokenizer, number):
        texts = tokenizer.batch_decode(self.ids("completion"), skip_special_tokens=True)
        problems = [
            lab.Problem(f"{number}/{i}", self.examples[i * G]["prompt"])
            for i in range(len(texts) // G)
        ]
        return [
            lab.Rollout(
                problems[i // G],
                i % G,
                text,
                ids,
                reward=reward,
                feedback=example["privileged_context"] or "",
            )
            for i, (text, ids, reward, example) in enumerate(
                zip(texts, self.ids("completion"), self.tensors["rewards"].tolist(), self.examples)
            )
        ]


class Recorder(trl.SDPOTrainer):
    """TRL's trainer, writing down every batch and every loss, and how near a token came to a tie at
    the edge of the top k."""

    gap = torch.inf

    def _send_telemetry(self):
        """Nothing is sent, whatever the environment says."""

    def _prepare_training_batch(self, inputs):
        tensors = super()._prepare_training_batch(inputs)
        self.batches = [
            *getattr(self, "batches", []),
            Batch(copy.deepcopy(inputs), {k: v.clone() for k, v in tensors.items()}),
        ]
        return tensors

    def compute_loss(self, model, inputs, **more):
        loss = super().compute_loss(model, inputs, **more)
        self.batches[-1].losses.append(loss.item())
        return loss

    def _forward_logits(self, model, input_ids, attention_mask, logits_to_keep):
        logits, k = (
            super()._forward_logits(model, input_ids, attention_mask, logits_to_keep),
            self.args.distillation_topk,
        )
        if k and model is self.model:
            last, next_one = (
                logits.detach()
                .topk(k + 1)
                .values[attention_mask[:, -logits_to_keep:].bool()][:, -2:]
                .T
            )
            self.gap = min(self.gap, (last - next_one).min().item())
        return logits


class Given:
    """A task that is never asked."""

    def problems(self, n, split="train", seed=0):
        raise AssertionError("the attempts are given")

    judge = problems


def distance(model, other):
    """Of the two weights that differ most."""
    return max(
        (p - q).abs().max().item()
        for p, q in zip(model.parameters(), other.parameters(), strict=True)
    )


@pytest.fixture(scope="module")
def folder(tiny_original, tmp_path_factory):
    """The model on disk: TRL reads the teacher from there."""
    path = tmp_path_factory.mktemp("tiny")
    for part in tiny_original:
        part.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def trained(folder, tiny_original, tmp_path_factory):
    """trained(case): TRL's trainer after its run, one run a case."""
    done = {}

    def train(case):
        if repr(case) not in done:
            feedback, successes_too = (
                case.get("include_environment_feedback", False),
                case.get("tell_successes", False),
            )
            dataset = Dataset.from_list(
                [
                    {
                        "prompt": [{"role": "system", "content": "Be brief."}] * (i % 2)
                        + [{"role": "user", "content": f"say {{{i}}}\nin words"}],
                        "privileged_context": f"{i} is {{too}} long"
                        if feedback and (successes_too or i % 4 < 2)
                        else None,
                    }
                    for i in range(16)
                ]
            )
            for seed in itertools.count(3):
                groups = itertools.cycle(case.get("successes", SUCCESSES))

                def reward(completions, privileged_context, **_):
                    rows = "".join(next(groups) for _ in range(len(completions) // G))
                    # TRL has one text a prompt, and shows it to successes too: to be equal, let all
                    # fail where there is one
                    return [
                        float(r) * (successes_too or not c)
                        for r, c in zip(rows, privileged_context)
                    ]

                t = Recorder(
                    str(folder),
                    reward,
                    trl_config(
                        case, tmp_path_factory.mktemp("out"), tiny_original[1].eos_token_id, seed
                    ),
                    dataset,
                    processing_class=copy.deepcopy(tiny_original[1]),
                )
                t.remove_callback(PrinterCallback)
                t.train()
                if t.gap > NO_TIE:
                    break
            done[repr(case)] = t
        return done[repr(case)]

    return train


@pytest.fixture
def replay(tiny_original):
    """replay(config, batches): our trainer and its records after the same batches."""
    model, tokenizer = tiny_original

    def train(c, batches):
        t = lab.SDPOTrainer(copy.deepcopy(model), tokenizer, Given(), c)
        t.optimizer = torch.optim.SGD(t.model.parameters())  # the trainer sets the learning rate
        return t, [
            t.step(batch.rollouts(tokenizer, number)) for number, batch in enumerate(batches)
        ]

    return train


@pytest.mark.parametrize("name", CASES)
def test_losses_and_weights_are_those_of_trl(name, trained, replay, tiny_original):
    theirs, c = trained(CASES[name]), config(CASES[name])
    ours, records = replay(c, theirs.batches)
    steps = c.steps_per_generation * c.num_iterations
    assert ours.optimizer_steps == theirs.state.global_step == len(records) * steps, (
        "an optimiser step was skipped"
    )
    for batch, record in zip(theirs.batches, records):
        assert record.loss == pytest.approx(sum(batch.losses) / steps, rel=0, abs=TOLERANCE)
    assert (
        distance(ours.model, theirs.model)
        <= TOLERANCE
        < 1e-3 * distance(theirs.model, tiny_original[0])
    )
    if ours.teacher:
        assert distance(ours.teacher.model, theirs.teacher_model) <= TOLERANCE
    if c.teacher_model_kind == "ema":
        assert distance(theirs.teacher_model, tiny_original[0]) > 100 * TOLERANCE


@pytest.mark.parametrize("name", SDPO)
def test_both_read_the_same_tokens_and_train_the_same_attempts(
    name, trained, replay, tiny_original
):
    theirs, c, tokenizer = trained(CASES[name]), config(CASES[name]), tiny_original[1]
    shown = set()
    for batch, record in zip(theirs.batches, replay(c, theirs.batches)[1]):
        assert [encode_chat(tokenizer, r.problem.messages) for r in record.rollouts] == batch.ids(
            "prompt"
        )
        assert [
            encode_teacher(tokenizer, r, c)[0] + r.completion_ids for r in record.rollouts
        ] == batch.ids("teacher")
        assert [float(r.active) for r in record.rollouts] == batch.tensors[
            "self_distillation_mask"
        ].tolist()
        share = len(record.rollouts) // c.steps_per_generation
        assert all(
            any(r.active for r in record.rollouts[i : i + share])
            for i in range(0, len(record.rollouts), share)
        )
        shown |= {(bool(r.shown_solution), bool(r.shown_feedback)) for r in record.rollouts}
    assert shown >= {(True, False), (False, c.include_environment_feedback)}


@pytest.mark.parametrize("name", [name for name in CASES if "clipped" in name])
@pytest.mark.parametrize(
    "other",
    [
        dict(distillation_is_clip=None),
        dict(distillation_is_clip=1e9),
        dict(teacher_sync="rollout_batch"),
    ],
    ids=repr,
)
def test_clip_and_cadence_make_a_difference(name, other, trained, replay):
    """Without the ratio, with a ratio that is never cut, and with a teacher that moves once a
    batch, we would not end where TRL does."""
    theirs = trained(CASES[name])
    assert (
        distance(replay(config(CASES[name], **other), theirs.batches)[0].model, theirs.model)
        > 10 * TOLERANCE
    )


def test_trl_shows_the_feedback_to_successes_too(trained, replay, tiny_original):
    """TRL's text belongs to the prompt, ours to the attempt: a success is not told of an earlier
    failure that it did not have."""
    case = FEEDBACK | dict(batches=1, generation_batch_size=G * len(SUCCESSES), tell_successes=True)
    c, tokenizer, seen = config(case), tiny_original[1], set()
    (batch,) = trained(case).batches
    (record,) = replay(c, [batch])[1]
    for r, ids in zip(record.rollouts, batch.ids("teacher")):
        succeeded, theirs = (
            r.reward == 1,
            teacher_messages(r.problem.messages, r.shown_solution, r.feedback, c),
        )
        assert encode_chat(tokenizer, theirs) + r.completion_ids == ids
        assert (r.teacher_messages == theirs) == (not succeeded)
        seen.add((succeeded, bool(r.shown_solution)))
    assert len(seen) == 4, "success and failure, each with and without a sibling's solution"


def test_the_preset_has_trl_s_defaults(tmp_path):
    preset = lab.SDPOConfig.preset("trl").to_dict() | dict(
        distillation_topk=None, scale_rewards="group"
    )  # no k but for top-k; "group" is our True
    of_trl = {f.name for f in fields(trl.SDPOConfig)} - {
        f.name for f in fields(TrainingArguments)
    }  # not those of every transformers trainer
    default = trl.SDPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False)
    shared = of_trl & set(preset) - {"generation_batch_size"}  # TRL: whatever one forward holds
    assert len(shared) > 20 and {name: getattr(default, name) for name in shared} == {
        name: preset[name] for name in shared
    }
