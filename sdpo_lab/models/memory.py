"""What a training step will take in memory, before anything is loaded: counted where it can be, estimated where not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from sdpo_lab.core.checks import check_choice, check_range
from sdpo_lab.core.config import TEACHERS
from sdpo_lab.core.objective import LOGITS_AT_ONCE
from sdpo_lab.models.loading import (
    add_adapter,
    find_source,
    lora_config,
    model_folders,
    read_config,
)

GIB = 2**30
#: The shapes of models that suit this package, as published in their config.json; nothing is asked of the Hub.
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": (
        "llama",
        dict(
            hidden_size=576,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            intermediate_size=1536,
            vocab_size=49152,
        ),
    ),
    "google/gemma-3-270m-it": (
        "gemma3_text",
        dict(
            hidden_size=640,
            num_hidden_layers=18,
            num_attention_heads=4,
            num_key_value_heads=1,
            head_dim=256,
            intermediate_size=2048,
            vocab_size=262144,
            sliding_window=512,
        ),
    ),
    "HuggingFaceTB/SmolLM2-360M-Instruct": (
        "llama",
        dict(
            hidden_size=960,
            num_hidden_layers=32,
            num_attention_heads=15,
            num_key_value_heads=5,
            intermediate_size=2560,
            vocab_size=49152,
        ),
    ),
    "Qwen/Qwen2.5-0.5B-Instruct": (
        "qwen2",
        dict(
            hidden_size=896,
            num_hidden_layers=24,
            num_attention_heads=14,
            num_key_value_heads=2,
            intermediate_size=4864,
            vocab_size=151936,
        ),
    ),
    "Qwen/Qwen3-0.6B": (
        "qwen3",
        dict(
            hidden_size=1024,
            num_hidden_layers=28,
            num_attention_heads=16,
            num_key_value_heads=8,
            head_dim=128,
            intermediate_size=3072,
            vocab_size=151936,
        ),
    ),
    "meta-llama/Llama-3.2-1B-Instruct": (
        "llama",
        dict(
            hidden_size=2048,
            num_hidden_layers=16,
            num_attention_heads=32,
            num_key_value_heads=8,
            head_dim=64,
            intermediate_size=8192,
            vocab_size=128256,
        ),
    ),
    "Qwen/Qwen3-1.7B": (
        "qwen3",
        dict(
            hidden_size=2048,
            num_hidden_layers=28,
            num_attention_heads=16,
            num_key_value_heads=8,
            head_dim=128,
            intermediate_size=6144,
            vocab_size=151936,
        ),
    ),
}


@dataclass(frozen=True)
class Memory:
    """Bytes of one training run. `total` is the most that is held at once; `str()` of it is a table.

    The first five are exact: parameters are counted on the model's own classes. The others are estimates for the decoders of transformers.
    """

    parameters: int  #: a number, not bytes: the adapter aside
    trainable: int  #: a number, not bytes
    weights: int  #: all of them, the adapter's too
    gradients: int
    optimizer: int  #: AdamW's two moments
    teacher: int  #: its own copies of what trains
    activations: int  #: of one micro-batch, from its forward to its backward
    casts: int  #: bfloat16 copies of the weights that autocast makes and the backward pass needs, and a gradient of the head on its way
    logits: int  #: what the loss of one chunk of tokens takes
    sampling: int  #: keys and values of all attempts, grown by a quarter at a time, and the logits of a token each
    update: int  #: what AdamW needs for a moment

    @property
    def kept(self) -> int:
        """Held all the time, but for the gradients."""
        return self.weights + self.optimizer + self.teacher

    @property
    def total(self) -> int:
        """Sampling, the backward pass and the optimiser's step come one after another."""
        return self.kept + max(
            self.sampling,
            self.gradients + self.activations + self.casts + self.logits,
            self.gradients + self.update,
        )

    def to_dict(self) -> dict[str, int]:
        return asdict(self) | {"kept": self.kept, "total": self.total}

    def __str__(self) -> str:
        rows = [
            f"{name:<12}{value / GIB:9.2f} GiB"
            for name, value in self.to_dict().items()
            if name not in ("parameters", "trainable")
        ]
        return f"{self.parameters:,} parameters, {self.trainable:,} train\n" + "\n".join(rows)


def training_memory(
    model: Any,
    *,
    lora: int | Any | None = None,
    attempts: int = 64,
    per_device: int = 8,
    prompt_tokens: int = 256,
    completion_tokens: int = 256,
    bf16: bool = True,
    dtype: str = "float32",
    teacher: str = "ema",
) -> Memory:
    """Memory of training a model: one of `SHAPES`, a shipped one, a folder, a Hub id (asks the Hub for its config alone), a config, or a model.

    lora         rank of the adapter or a peft LoraConfig, as for `load_model`; None: all weights train, or what trains of a model given
    attempts     sampled at once, SDPOConfig.generation_batch_size; `per_device` of them in one forward and backward
    ..._tokens   of the longest prompt, teacher's aside, and of a completion
    bf16, dtype  as in SDPOConfig and load_model: autocast, and the type of the weights that do not train

    Counted: parameters, and from them weights, gradients, moments and the teacher. Estimated: the rest, from the shape alone; what attempts at one
    problem have in common is read once, which the estimate leaves out. Nothing is allocated.
    """
    for name, value in dict(
        attempts=attempts,
        per_device=per_device,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
    ).items():
        check_range(name, value, int, 1, 2**31)
    check_choice("teacher", teacher, TEACHERS)
    check_choice("dtype", dtype, ("float32", "bfloat16"))
    check_choice("bf16", bf16, (False, True))
    if not isinstance(model, torch.nn.Module):
        model = skeleton(model, lora)
    elif lora is not None:
        raise ValueError(
            "lora is for a model that is not built yet; this one has its adapter or has none"
        )
    parameters, trainable, adapter = counts(model)
    if dtype == "bfloat16" and trainable == parameters:
        raise ValueError(
            "dtype='bfloat16' is for the weights that do not train, with lora; half-precision weights do not train"
        )
    c = model.config.get_text_config()
    heads, layers = c.num_attention_heads, c.num_hidden_layers
    d = getattr(c, "head_dim", None) or c.hidden_size // heads
    kv = (getattr(c, "num_key_value_heads", None) or heads) * d
    inner = getattr(c, "intermediate_size", None) or 4 * c.hidden_size
    head, tokens = c.vocab_size * c.hidden_size, prompt_tokens + completion_tokens
    still, half = (2 if dtype == "bfloat16" else 4), bf16 or dtype == "bfloat16"
    rank = 2 if adapter and teacher == "ema" else 1  # an average of products has twice the rank
    linear = min(
        parameters,
        layers
        * (2 * c.hidden_size * heads * d + 2 * c.hidden_size * kv + 3 * c.hidden_size * inner),
    )
    # bytes kept for the backward pass, a token and layer: norms work in float32 beside a residual stream in float32; the inputs of every product, the
    # rotated queries and keys, values, what attention says, and four numbers for each of the inner layer are as wide as the products compute
    names = [name for name, _ in model.named_parameters() if "norm" in name.rsplit(".", 2)[-2]]
    norms, own = (
        max(
            2,
            round(
                sum(not name.endswith(("q_norm.weight", "k_norm.weight")) for name in names)
                / layers
            ),
        ),
        any("q_norm" in name for name in names),
    )
    sides = heads * d + kv
    place = (
        ((9 * norms + 8) * c.hidden_size + (10 if own else 4) * sides + 8 * inner)
        if half
        else 4 * ((2 * norms + 2) * c.hidden_size + (4 if own else 2) * sides + 4 * inner)
    )
    place -= (
        4 * norms * c.hidden_size if adapter else 0
    )  # norms that do not train keep one number less
    return Memory(
        parameters,
        trainable,
        weights=still * (parameters - trainable if not adapter else parameters) + 4 * trainable,
        gradients=4 * trainable,
        optimizer=8 * trainable,
        teacher=0 if teacher == "live" else 4 * rank * trainable,
        activations=per_device * tokens * (layers * place + 12 * c.hidden_size),
        casts=(2 * (linear + head) if bf16 and still == 4 else 0)
        + (0 if adapter or not bf16 else 6 * head),
        logits=10 * 4 * max(c.vocab_size, LOGITS_AT_ONCE),
        sampling=int(1.25 * attempts * tokens * layers * 2 * kv * still)
        + attempts * c.vocab_size * 32,
        update=4 * trainable,
    )


def skeleton(source: Any, lora: int | Any | None = None) -> Any:
    """The model with no memory behind its weights, adapter included."""
    from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

    if isinstance(source, (str, Path)) and str(source) in SHAPES:
        family, numbers = SHAPES[str(source)]
        source = AutoConfig.for_model(family, tie_word_embeddings=True, **numbers)
    elif isinstance(source, (str, Path)):
        source = read_config(find_source(source))
    elif not isinstance(source, PretrainedConfig):
        raise TypeError(
            f"give a model, its config, or a name ({', '.join([*SHAPES, *model_folders()])}); got {type(source).__name__}"
        )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(source, trust_remote_code=False)
        return model if lora is None else add_adapter(model, lora_config(lora))


def counts(model: Any) -> tuple[int, int, bool]:
    """(parameters without adapter, parameters that train, has it an adapter); tied weights count once."""
    named = dict(model.named_parameters())
    adapter = sum(p.numel() for name, p in named.items() if "lora_" in name)
    return (
        sum(p.numel() for p in named.values()) - adapter,
        sum(p.numel() for p in named.values() if p.requires_grad),
        adapter > 0,
    )


def largest_batch(name: str, gpu: float, **settings: Any) -> tuple[int, Memory]:
    """(the most attempts, a power of two to 64, of one forward and backward that `gpu` GiB hold; 0 if not even one, memory of that)."""
    for per_device in (64, 32, 16, 8, 4, 2, 1):
        memory = training_memory(name, per_device=per_device, **settings)
        if memory.total <= gpu * GIB:
            return per_device, memory
    return 0, memory


def memory_table(
    gpu: float = 14.5,
    attempts: int = 64,
    prompt_tokens: int = 256,
    completion_tokens: int = 256,
    rank: int = 16,
) -> str:
    """A Markdown table of what trains on a GPU with `gpu` free GiB (a card of 16 GB has about 14.5 left): the teacher an average, bfloat16 autocast."""
    check_range("gpu", gpu, float, 0.01, 1e6)
    check_range("rank", rank, int, 1, 4096)
    settings = dict(
        attempts=attempts, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens
    )
    kinds = {
        f"LoRA {rank}": dict(lora=rank),
        f"LoRA {rank}, dtype='bfloat16'": dict(lora=rank, dtype="bfloat16"),
        "all weights": {},
    }
    lines = [
        "| model | parameters | " + " | ".join(kinds) + " |",
        "|---|---:|" + "---|" * len(kinds),
    ]
    for name in SHAPES:
        cells = []
        for kind in kinds.values():
            batch, memory = largest_batch(name, gpu, **settings, **kind)
            cells.append(
                f"{memory.total / GIB:.1f} GiB, "
                + (f"fits: batch {batch}" if batch else "does not fit")
            )
        lines.append(f"| `{name}` | {memory.parameters / 1e6:,.0f} M | " + " | ".join(cells) + " |")
    return "\n".join(lines)
