"""What is counted is exact; what is estimated is held against what a step really keeps."""

import pytest
import torch

import sdpo_lab as lab
from sdpo_lab.core.scoring import completion_hidden
from sdpo_lab.models import memory
from sdpo_lab.models.loading import add_adapter, lora_config
from sdpo_lab.models.memory import GIB, SHAPES, counts, memory_table, skeleton, training_memory
from tests.conftest import ROOT
from tests.shared.tasks import SMALL, Vowels

#: As the models' cards or the sum of their published tensors have them, tied embeddings once.
KNOWN = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
    "google/gemma-3-270m-it": 268_098_176,
    "HuggingFaceTB/SmolLM2-360M-Instruct": 361_821_120,
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
}


@pytest.mark.parametrize("name", SHAPES)
def test_parameter_counts_are_the_known_ones_and_nothing_is_allocated(name):
    model = skeleton(name)
    assert counts(model) == (KNOWN[name], KNOWN[name], False)
    assert all(p.is_meta for p in model.parameters())


def test_an_adapter_is_counted_by_hand():
    _, numbers = SHAPES["Qwen/Qwen3-0.6B"]
    h, f, q, kv = numbers["hidden_size"], numbers["intermediate_size"], 16 * 128, 8 * 128
    by_hand = 28 * 16 * ((h + q) + 2 * (h + kv) + (q + h) + 2 * (h + f) + (f + h))
    memory = training_memory("Qwen/Qwen3-0.6B", lora=16)
    assert memory.trainable == by_hand and memory.parameters == KNOWN["Qwen/Qwen3-0.6B"]
    assert (
        memory.weights == 4 * (memory.parameters + by_hand)
        and memory.teacher == 8 * by_hand
        and memory.optimizer == 8 * by_hand
    )
    half = training_memory("Qwen/Qwen3-0.6B", lora=16, dtype="bfloat16")
    assert half.weights == 2 * memory.parameters + 4 * by_hand and half.total < memory.total
    assert training_memory("Qwen/Qwen3-0.6B", lora=16, teacher="live").teacher == 0
    assert training_memory("Qwen/Qwen3-0.6B", lora=16, teacher="frozen").teacher == 4 * by_hand


def random_of(family, **numbers):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        AutoConfig.for_model(family, tie_word_embeddings=True, **numbers)
    )


@pytest.mark.parametrize("teacher", ["ema", "frozen", "live"])
@pytest.mark.parametrize("lora", [None, 4])
def test_what_is_counted_is_what_a_trainer_holds_after_a_step(tiny, lora, teacher):
    tokenizer = tiny[1]
    model = random_of(
        "qwen3",
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=64,
        vocab_size=len(tokenizer),
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=0,
    )
    expected = training_memory(model.config, lora=lora, teacher=teacher)
    model = add_adapter(model, lora_config(lora)) if lora else model
    trainer = lab.SDPOTrainer(
        model,
        tokenizer,
        Vowels(),
        lab.SDPOConfig.preset("laptop", **SMALL, teacher_model_kind=teacher),
    )
    gradients, step = [], trainer.optimizer.step

    def spy():
        gradients.append(sum(p.grad.nbytes for p in model.parameters() if p.grad is not None))
        step()

    trainer.optimizer.step = spy
    trainer.step()
    assert expected.weights == sum(p.nbytes for p in model.parameters())
    assert expected.gradients == gradients[0]
    moments = [
        t for state in trainer.optimizer.state.values() for key, t in state.items() if key != "step"
    ]
    assert expected.optimizer == sum(t.nbytes for t in moments)
    assert expected.teacher == sum(t.nbytes for t in trainer.teacher.copies().values())
    assert training_memory(model, teacher=teacher).trainable == expected.trainable


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("lora", [None, 8])
@pytest.mark.parametrize("family", ["qwen3", "llama", "qwen2", "gemma3_text"])
def test_activations_are_within_an_eighth_of_what_autograd_keeps(family, lora, bf16):
    numbers = dict(
        hidden_size=160,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=512,
        vocab_size=211,
    )
    numbers |= {} if family in ("llama", "qwen2") else dict(head_dim=64)
    model = random_of(family, **numbers)
    model = add_adapter(model, lora_config(lora)) if lora else model
    rows, prompt, completion = 4, 40, 40
    expected = training_memory(
        model,
        attempts=rows,
        per_device=rows,
        prompt_tokens=prompt,
        completion_tokens=completion,
        bf16=bf16,
    )
    own, shapes = (
        {p.untyped_storage().data_ptr() for p in model.parameters()},
        {tuple(p.shape) for p in model.parameters()},
    )
    kept = {}

    def pack(t):
        if t.untyped_storage().data_ptr() not in own:
            kept[t.untyped_storage().data_ptr()] = (t.untyped_storage().nbytes(), tuple(t.shape), t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        completion_hidden(
            model,
            [[7 * i + j for j in range(prompt)] for i in range(rows)],
            [list(range(completion))] * rows,
            bf16,
        )
    of_weights = {s for shape in shapes for s in (shape, shape[::-1])}
    activations = sum(n for n, shape, _ in kept.values() if shape not in of_weights)
    casts = sum(n for n, shape, _ in kept.values() if shape in of_weights and len(shape) == 2)
    assert 0.87 < activations / expected.activations < 1.13
    if bf16:  # the copies of the layers' weights; the head's are the loss's
        head = numbers["vocab_size"] * numbers["hidden_size"]
        assert casts == pytest.approx(
            expected.casts - 2 * head - (0 if lora else 6 * head), rel=0.1
        )


def test_the_total_is_the_largest_of_what_follows_one_another():
    m = training_memory("Qwen/Qwen3-0.6B", lora=16, attempts=1024)
    assert (
        m.total == m.weights + m.optimizer + m.teacher + m.sampling
    )  # so many at once: sampling takes the most
    few = training_memory("Qwen/Qwen3-0.6B", lora=16, attempts=8)
    assert few.total == few.kept + few.gradients + few.activations + few.casts + few.logits
    assert few.to_dict()["total"] == few.total and "GiB" in str(few)


def test_sources():
    model, _ = lab.load_model()
    assert training_memory("lab-1m") == training_memory(model) == training_memory(model.config)
    with pytest.raises(TypeError, match="give a model, its config, or a name"):
        training_memory(3)
    with pytest.raises(ValueError, match="Did you mean 'lab-1m'"):
        training_memory("lab-1")
    with pytest.raises(ValueError, match="half-precision weights do not train"):
        training_memory("lab-1m", dtype="bfloat16")
    with pytest.raises(ValueError, match="not built yet"):
        training_memory(model, lora=4)


def test_the_table_says_what_fits(monkeypatch):
    """Of the smallest and the largest; the table in the README, below, is made of all of them."""
    ends = {name: SHAPES[name] for name in (list(SHAPES)[0], list(SHAPES)[-1])}
    monkeypatch.setattr(memory, "SHAPES", ends)
    table = memory_table(gpu=6, attempts=8)
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert len(rows) == len(ends)
    assert "fits: batch" in rows[0] and "does not fit" in rows[-1].split("|")[-2]
    assert training_memory("Qwen/Qwen3-1.7B", lora=16, attempts=8, per_device=1).total > 6 * GIB


def test_the_table_in_the_readme_is_the_one_the_function_makes():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert (
        text.split("<!-- memory -->\n")[1].split("\n<!-- /memory -->")[0]
        == lab.memory_table().strip()
    )
