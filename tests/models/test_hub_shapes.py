"""The real shapes of models from the Hub, with random weights: one step with an adapter, on a
CPU."""

import resource
import time

import pytest
import torch

import sdpo_lab as lab
from sdpo_lab.models.loading import add_adapter, lora_config
from sdpo_lab.models.memory import SHAPES, skeleton, training_memory

GIB = 2**30


def free_memory():
    with open("/proc/meminfo") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("MemAvailable"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name, needed",
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 2),
        pytest.param("Qwen/Qwen3-0.6B", 5, marks=pytest.mark.slow),
    ],
)
def test_one_step_of_the_real_shape(name, needed):
    if free_memory() < needed * GIB:
        pytest.skip(f"needs {needed} GiB of free memory")
    tokenizer = lab.load_model()[1]  # its ids lie in every one of these vocabularies
    began = time.perf_counter()
    torch.manual_seed(0)
    with torch.random.fork_rng(), torch.device("cpu"):
        from transformers import AutoModelForCausalLM

        config = skeleton(name).config
        config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, None
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model = add_adapter(model, lora_config(16))

    class Short:
        def problems(self, n, split="train", seed=0):
            return [
                lab.Problem(f"{seed}-{i}", [{"role": "user", "content": f"weather in Oslo {i}"}])
                for i in range(n)
            ]

        def judge(self, problem, completion):
            return (0.0, "wrong: say something else")

    fields = dict(
        generation_batch_size=4,
        num_generations=2,
        max_completion_length=8,
        per_device_train_batch_size=2,
        learning_rate=1e-3,
    )
    trainer = lab.SDPOTrainer(model, tokenizer, Short(), lab.SDPOConfig.preset("laptop", **fields))
    before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    record = trainer.step()
    moved = [
        n for n, p in model.named_parameters() if n in before and not torch.equal(p, before[n])
    ]
    assert (
        record.metrics["active_fraction"] == 1
        and record.loss > 0
        and record.metrics["grad_norm"] > 0
        and record.metrics["not_finite"] == 0
    )
    assert len(moved) >= len(before) // 2 and all("lora_B" in n or "lora_A" in n for n in moved)
    expected = training_memory(
        name, lora=16, attempts=4, per_device=2, prompt_tokens=64, completion_tokens=8, bf16=False
    )
    assert sum(p.numel() for p in model.parameters()) == expected.parameters + expected.trainable
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"{name}: {expected.parameters:,} parameters, {time.perf_counter() - began:.0f} s, "
        f"at most {peak / GIB:.1f} GiB in this process, "
        f"estimated {expected.total / GIB:.1f}"
    )


def test_the_shapes_have_room_for_the_shipped_tokenizer():
    assert all(numbers["vocab_size"] > len(lab.load_model()[1]) for _, numbers in SHAPES.values())
