"""One step of training, full and LoRA, also in bfloat16, on small random models of other
families."""

import copy

import pytest
import torch

import sdpo_lab as lab
from sdpo_lab.core.chat import encode_chat
from sdpo_lab.core.task import Problem
from sdpo_lab.models.loading import add_adapter, lora_config
from tests.shared.architectures import CHAT_FAMILIES, random_chat_model
from tests.shared.tasks import SMALL, Vowels


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("lora", [None, 4])
@pytest.mark.parametrize("family", CHAT_FAMILIES)
def test_one_step_full_and_lora(tiny, family, lora, bf16):
    _, tokenizer = tiny
    model = random_chat_model(family, tokenizer)
    model = add_adapter(model, lora_config(lora)) if lora else model
    trainer = lab.SDPOTrainer(
        model,
        tokenizer,
        Vowels(),
        lab.SDPOConfig.preset("laptop", **SMALL, bf16=bf16, teacher_update_rate=0.5),
    )
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    record = trainer.step()
    assert (
        record.metrics["active_fraction"] > 0
        and record.loss > 0
        and record.metrics["grad_norm"] > 0
        and record.metrics["not_finite"] == 0
    )
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert all(
        p.dtype == torch.float32 for p in [*model.parameters(), *trainer.teacher.model.parameters()]
    )
    if lora:
        assert moved and all("lora_" in name for name in moved)  # the base stays
        assert not any(
            torch.equal(p, torch.zeros_like(p))
            for name, p in trainer.teacher.copies().items()
            if "lora_B" in name
        )  # the average has followed
    else:
        still = {name for name in before if name not in moved}
        assert len(moved) > 0.8 * len(before), (
            still
        )  # an expert that no token went to may stand still
    again = trainer.step()
    assert again.loss == again.loss


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("family", CHAT_FAMILIES)
def test_the_decode_loop_greedily_equals_generate(tiny, family, ends, monkeypatch):
    """Prompts of different length side by side, attempts that leave early; and without an end,
    longer than the room first made for keys and values; sliding windows too."""
    _, tokenizer = tiny
    model = random_chat_model(family, tokenizer).eval()
    for p in model.parameters():
        p.data *= 3.0  # away from the near-ties of fresh weights
    if not ends:
        monkeypatch.setattr("sdpo_lab.core.sampling.end_ids", lambda model, tokenizer: {-1})
        model.generation_config.eos_token_id = None
    problems = [
        Problem(str(n), [{"role": "user", "content": "abcdefgh"[:n] * 2}]) for n in (1, 4, 7)
    ]
    mine = lab.rollout(model, tokenizer, problems, 1, 0.0, max_completion_length=150)
    theirs = []
    for r in mine:
        ids = torch.tensor([encode_chat(tokenizer, r.problem.messages)])
        theirs.append(
            model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=150
            )[0, ids.shape[1] :].tolist()
        )
    assert [r.completion_ids for r in mine] == theirs
    assert ends or {len(t) for t in theirs} == {150}


@pytest.mark.parametrize("family", CHAT_FAMILIES)
def test_lora_on_a_half_precision_base(tiny, family):
    """The frozen weights may be bfloat16; the adapter, the teacher's copy of it and the loss are
    float32."""
    _, tokenizer = tiny
    model = add_adapter(random_chat_model(family, tokenizer).bfloat16(), lora_config(4))
    trainer = lab.SDPOTrainer(
        model,
        tokenizer,
        Vowels(),
        lab.SDPOConfig.preset("laptop", **SMALL, teacher_update_rate=0.5),
    )
    record = trainer.step()
    assert record.loss > 0 and record.metrics["not_finite"] == 0
    assert {p.dtype for p in trainer.teacher.copies().values()} == {torch.float32}
    shared = dict(trainer.teacher.model.named_parameters())
    assert all(
        shared[name].data_ptr() == p.data_ptr()
        for name, p in model.named_parameters()
        if not p.requires_grad
    )


def test_a_run_from_a_trained_adapter_starts_with_that_teacher(tiny):
    """Frozen means the adapter as it was, not the bare base model (where TRL starts)."""
    model, tokenizer = tiny
    model = add_adapter(copy.deepcopy(model), lora_config(4))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(0, 0.1)
    trainer = lab.SDPOTrainer(
        model,
        tokenizer,
        Vowels(),
        lab.SDPOConfig.preset("laptop", **SMALL, teacher_model_kind="frozen"),
    )
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        was = model.eval()(ids).logits
    trainer.step()
    with torch.no_grad():
        assert torch.equal(trainer.teacher.model(ids).logits, was) and not torch.equal(
            model(ids).logits, was
        )
        with model.disable_adapter():
            assert not torch.allclose(model(ids).logits, was, atol=1e-3)


@pytest.mark.parametrize("where", ["head", "embedding"])
def test_training_only_the_head_or_an_adapter_on_the_embedding(tiny, where):
    """Nothing below the head has a gradient in the one case; in the other the factors have names of
    their own."""
    from peft import LoraConfig

    _, tokenizer = tiny
    model = random_chat_model("llama", tokenizer)
    if where == "head":
        model.requires_grad_(False)
        model.lm_head.requires_grad_(True)
    else:
        model = add_adapter(
            model, LoraConfig(r=2, target_modules=["embed_tokens"], task_type="CAUSAL_LM")
        )
    trainer = lab.SDPOTrainer(
        model,
        tokenizer,
        Vowels(),
        lab.SDPOConfig.preset("laptop", **SMALL, teacher_update_rate=0.5),
    )
    exact = None
    for _ in range(3):
        trainer.step()
        if where == "embedding":
            a, b = (p.detach() for name, p in model.named_parameters() if p.requires_grad)
            exact = 0.5 * b @ a if exact is None else 0.5 * exact + 0.5 * b @ a
            ((mine_a, mine_b),) = trainer.teacher.lora_pairs()
            assert (
                mine_a.shape == (4, 400) and (mine_b @ mine_a - exact).norm() < 0.02 * exact.norm()
            )
    assert trainer.optimizer_steps == 3


def test_weights_of_tokens_stay_exact_on_a_half_precision_base(tiny):
    """A third in bfloat16 is 0.334: the loss must be that of the float32 formula on the same hidden
    states."""
    from sdpo_lab.core.objective import Tokens
    from sdpo_lab.core.rollouts import Rollout
    from sdpo_lab.tasks import Problem

    rollouts = [Rollout(Problem("p", []), i, "", [1], shown_feedback="x") for i in range(3)]
    tokens = Tokens.of(
        rollouts,
        torch.full((3,), 1 / 3, dtype=torch.float64),
        torch.full((3,), 2 / 3, dtype=torch.float64),
        None,
        torch.zeros(3, 8).bfloat16(),
    )
    assert tokens.weights.dtype == tokens.group_advantages.dtype == torch.float32
    assert tokens.distill_mask.dtype == torch.float32
    assert tokens.weights[0].item() == pytest.approx(1 / 3, abs=1e-7) and tokens.group_advantages[
        0
    ].item() == pytest.approx(2 / 3, abs=1e-7)
