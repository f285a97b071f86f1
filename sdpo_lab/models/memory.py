"""What a training step will take in memory, before anything is loaded: counted where it can be,
estimated where not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

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

NUMBERS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "vocab_size",
)
#: name: (family, the NUMBERS, what its config has besides), as published in their config.json.
PUBLISHED: dict[str, tuple[str, tuple[int, ...], dict[str, int]]] = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": ("llama", (576, 30, 9, 3, 1536, 49152), {}),
    "google/gemma-3-270m-it": (
        "gemma3_text",
        (640, 18, 4, 1, 2048, 262144),
        {"head_dim": 256, "sliding_window": 512},
    ),
    "HuggingFaceTB/SmolLM2-360M-Instruct": ("llama", (960, 32, 15, 5, 2560, 49152), {}),
    "Qwen/Qwen2.5-0.5B-Instruct": ("qwen2", (896, 24, 14, 2, 4864, 151936), {}),
    "Qwen/Qwen3-0.6B": ("qwen3", (1024, 28, 16, 8, 3072, 151936), {"head_dim": 128}),
    "meta-llama/Llama-3.2-1B-Instruct": (
        "llama",
        (2048, 16, 32, 8, 8192, 128256),
        {"head_dim": 64},
    ),
    "Qwen/Qwen3-1.7B": ("qwen3", (2048, 28, 16, 8, 6144, 151936), {"head_dim": 128}),
}
#: The shapes of models that suit this package, {name: (family, arguments of its config)}; nothing
#: is asked of the Hub.
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    name: (family, dict(zip(NUMBERS, numbers), **more))
    for name, (family, numbers, more) in PUBLISHED.items()
}


@dataclass(frozen=True)
class Memory:
    """Bytes of one training run. `total` is the most held at once; `str()` of it is a table.

    The first six are exact: parameters are counted on the model's own classes. The others are
    estimates for the decoders of transformers.
    """

    parameters: int  #: a number, not bytes: the adapter aside
    trainable: int  #: a number, not bytes
    weights: int  #: all of them, the adapter's too
    gradients: int
    optimizer: int  #: AdamW's two moments
    teacher: int  #: its own copies of what trains
    activations: int  #: of one micro-batch, from its forward to its backward
    #: bfloat16 copies of the weights that autocast makes and the backward pass needs, and a
    #: gradient of the head on its way
    casts: int
    logits: int  #: what the loss of one chunk of tokens takes
    #: keys and values of all attempts, grown by a quarter at a time, and the logits of a token each
    sampling: int
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
    """Memory of training a model: one of `SHAPES`, a shipped one, a folder, a Hub id (asks the Hub
    for its config alone), a config, or a model.

    lora         rank of the adapter or a peft LoraConfig, as for `load_model`; None: all weights
                 train, or what trains of a model given
    attempts     sampled at once, SDPOConfig.generation_batch_size; `per_device` of them in one
                 forward and backward
    ..._tokens   of the longest prompt, teacher's aside, and of a completion
    bf16, dtype  as in SDPOConfig and load_model: autocast, and the type of the weights that do not
                 train

    Counted: parameters, and from them weights, gradients, moments and the teacher. Estimated: the
    rest, from the shape alone; what attempts at one problem have in common is read once, which the
    estimate leaves out. Nothing is allocated.
    """
    check_range("attempts", attempts, int, 1, 2**31)
    check_range("per_device", per_device, int, 1, 2**31)
    check_range("prompt_tokens", prompt_tokens, int, 1, 2**31)
    check_range("completion_tokens", completion_tokens, int, 1, 2**31)
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
            "dtype='bfloat16' is for the weights that do not train, with lora; half-precision "
            "weights do not train"
        )

    # counted: parameters times bytes
    frozen = parameters if adapter else parameters - trainable
    frozen_bytes = 2 if dtype == "bfloat16" else 4
    # an average of products has twice the rank
    rank = 2 if adapter and teacher == "ema" else 1

    # estimated: from the shape
    s = Shape.of(model)
    tokens = prompt_tokens + completion_tokens
    half = bf16 or dtype == "bfloat16"
    token_bytes = s.layers * layer_bytes(model, s, half, adapter) + 12 * s.hidden
    head = s.vocabulary * s.hidden
    products = min(parameters, s.layers * s.products)
    cast_bytes = 2 * (products + head) if bf16 and frozen_bytes == 4 else 0
    head_gradient = 6 * head if bf16 and not adapter else 0
    cache_bytes = attempts * tokens * s.layers * 2 * s.keys * frozen_bytes
    return Memory(
        parameters,
        trainable,
        weights=frozen_bytes * frozen + 4 * trainable,
        gradients=4 * trainable,
        optimizer=8 * trainable,
        teacher=0 if teacher == "live" else 4 * rank * trainable,
        activations=per_device * tokens * token_bytes,
        casts=cast_bytes + head_gradient,
        logits=10 * 4 * max(s.vocabulary, LOGITS_AT_ONCE),
        sampling=int(1.25 * cache_bytes) + attempts * s.vocabulary * 32,
        update=4 * trainable,
    )


class Shape(NamedTuple):
    """The sizes of a decoder that the estimates need."""

    layers: int
    hidden: int
    queries: int  #: heads times their dimension
    keys: int  #: the same of keys, and of values
    inner: int  #: of the feed-forward layer
    vocabulary: int

    @classmethod
    def of(cls, model: Any) -> Shape:
        c = model.config.get_text_config()
        heads = c.num_attention_heads
        dimension = getattr(c, "head_dim", None) or c.hidden_size // heads
        return cls(
            layers=c.num_hidden_layers,
            hidden=c.hidden_size,
            queries=heads * dimension,
            keys=(getattr(c, "num_key_value_heads", None) or heads) * dimension,
            inner=getattr(c, "intermediate_size", None) or 4 * c.hidden_size,
            vocabulary=c.vocab_size,
        )

    @property
    def products(self) -> int:
        """Parameters of the matrix products of a layer: queries and output, keys and values, and
        the three of the feed-forward layer."""
        return self.hidden * (2 * self.queries + 2 * self.keys + 3 * self.inner)


def layer_bytes(model: Any, s: Shape, half: bool, adapter: bool) -> int:
    """Bytes that a token keeps of one layer for the backward pass.

    Norms work in float32 beside a residual stream in float32. As wide as the products compute are
    their inputs, the rotated queries and keys, values, what attention says, and four numbers for
    each of the inner layer.
    """
    names = [name for name, _ in model.named_parameters() if "norm" in name.rsplit(".", 2)[-2]]
    of_heads = any("q_norm" in name for name in names)  # queries and keys have norms of their own
    of_stream = sum(not name.endswith(("q_norm.weight", "k_norm.weight")) for name in names)
    norms = max(2, round(of_stream / s.layers))
    heads = s.queries + s.keys
    if half:
        kept = (9 * norms + 8) * s.hidden + (10 if of_heads else 4) * heads + 8 * s.inner
    else:
        kept = 4 * ((2 * norms + 2) * s.hidden + (4 if of_heads else 2) * heads + 4 * s.inner)
    # norms that do not train keep one number less
    return kept - (4 * norms * s.hidden if adapter else 0)


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
            f"give a model, its config, or a name ({', '.join([*SHAPES, *model_folders()])}); got "
            f"{type(source).__name__}"
        )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(source, trust_remote_code=False)
        return model if lora is None else add_adapter(model, lora_config(lora))


def counts(model: Any) -> tuple[int, int, bool]:
    """(parameters without adapter, parameters that train, has it an adapter); tied weights count
    once."""
    named = dict(model.named_parameters())
    adapter = sum(p.numel() for name, p in named.items() if "lora_" in name)
    return (
        sum(p.numel() for p in named.values()) - adapter,
        sum(p.numel() for p in named.values() if p.requires_grad),
        adapter > 0,
    )


def largest_batch(name: str, gpu: float, **settings: Any) -> tuple[int, Memory]:
    """(the most attempts, a power of two to 64, of one forward and backward that `gpu` GiB hold; 0
    if not even one, memory of that)."""
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
    """A Markdown table of what trains on a GPU with `gpu` free GiB (a card of 16 GB has about 14.5
    left): the teacher an average, bfloat16 autocast."""
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
