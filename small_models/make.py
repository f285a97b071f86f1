"""Make the shipped models from nothing: `python -m small_models.make`. Seeded, resumable.

Each model on a core of its own, as many at a time as there are cores; `--device cuda` captures the
step on a GPU instead (`graphs.py`). Replicates (other seeds of everything but the tokenizer) and
controls (a model that reads no feedback, one without exclusions) are made when they are named, and
so is a fourth size, `lab-3m`.

One tokenizer (byte-level BPE on the documents themselves), Qwen3 models of three sizes with random
weights, next-token training on the answers of the same small-world documents (`documents.py`),
export in half precision, and the measured cards (`card.py`).
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from small_models.documents import draw_document
from small_models.graphs import GraphedStep
from small_models.muon import Muon
from small_models.pools import Batch, document_code, kept_pool

HERE = Path(__file__).parent
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out. The dial for scale is `width` (heads and MLP follow
    it).
    """

    name: str = "lab-1m"
    width: int = 128  #: hidden size; heads of 32, MLP three times as wide
    layers: int = 4
    vocab_size: int = 1536
    steps: int = 36000
    documents_per_step: int = 16
    learning_rate: float = 1.5e-3  #: peak, after `warmup` steps; then linear to a hundredth of it
    warmup: int = 100
    weight_decay: float = 0.1
    max_tokens: int = 512  #: longer documents are drawn again
    #: the first lesson: so long the share of documents that only ask to copy falls from 0.8 to 0
    echo_steps: int = 600
    #: the second: so long the share of "of these, not that one" falls from 0.4 to `CHOICE`
    choice_steps: int = 3000
    diet: str = "everything"  #: a control reads "no feedback", or "no exclusions"
    keep_at: tuple[int, ...] = ()  #: steps after which the weights are kept as models of their own
    seed: int = 0

    def __post_init__(self) -> None:
        if self.diet not in DIETS:
            raise ValueError(f"diet must be one of {', '.join(DIETS)}; got {self.diet!r}")


DIETS = ("everything", "no feedback", "no exclusions")

#: The family: equal documents in equal order, one tokenizer.
RECIPES = {
    r.name: r
    for r in (
        Recipe("lab-100k", width=32, learning_rate=4e-3),
        Recipe("lab-300k", width=64, learning_rate=2e-3),
        Recipe("lab-1m", keep_at=(1000, 2000, 4000, 12000)),
        Recipe("lab-3m", width=192, layers=6, learning_rate=7e-4),
        # replicates, for experiments: made once, kept whatever their cards say
        Recipe("lab-1m-seed1", seed=1),
        Recipe("lab-1m-seed2", seed=2),
        Recipe("lab-300k-seed1", width=64, learning_rate=2e-3, seed=1),
        Recipe("lab-300k-seed2", width=64, learning_rate=2e-3, seed=2),
        # controls
        Recipe("lab-300k-no-feedback", width=64, learning_rate=2e-3, diet="no feedback"),
        Recipe("lab-300k-no-exclusions", width=64, learning_rate=2e-3, diet="no exclusions"),
    )
}
#: What is made unless told, and shipped.
FAMILY = ("lab-100k", "lab-300k", "lab-1m")
MINIATURE = Recipe(
    name="miniature",
    width=64,
    layers=2,
    vocab_size=512,
    steps=150,
    documents_per_step=32,
    learning_rate=3e-3,
    warmup=20,
    echo_steps=30,
)


def train_tokenizer(recipe: Recipe, documents: int = 6000) -> PreTrainedTokenizerFast:
    rng = random.Random("tokenizer/0")  # one tokenizer for the family and its replicates
    drawn = (draw_document(rng) for _ in range(documents))
    texts = ["\n".join([*(m["content"] for m in d.messages), d.answer]) for d in drawn]
    tokenizer = Tokenizer(models.BPE())
    # words without their space, so that a name has the same tokens in a message, in quotes and in a
    # call; digits one by one
    words = pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}|[^\p{L}\p{N}]+"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=recipe.vocab_size,
            special_tokens=special,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
        additional_special_tokens=special[1:2],
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    torch.manual_seed(recipe.seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=recipe.vocab_size,
            hidden_size=recipe.width,
            intermediate_size=3 * recipe.width,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.width // 32,
            num_key_value_heads=recipe.width // 32,
            head_dim=32,
            max_position_embeddings=2048,
            rope_theta=10_000.0,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def answer_loss(model: Qwen3ForCausalLM, batch: Batch) -> torch.Tensor:
    """Sum of the cross-entropy of the answer tokens, () . Nothing is learnt on a prompt: what is
    written there is not true.
    """
    longest = max(len(p) + len(a) for p, a in batch)
    ids = torch.zeros(
        len(batch), longest, dtype=torch.long
    )  # right-padded: causal attention never sees the padding
    labels = torch.full_like(ids, -100)
    for i, (p, a) in enumerate(batch):
        ids[i, : len(p) + len(a)] = torch.tensor(p + a)
        labels[i, len(p) : len(p) + len(a)] = torch.tensor(a)
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]  # (B, L-1, H)
    learnt = labels[:, 1:] != -100
    return torch.nn.functional.cross_entropy(
        model.lm_head(hidden[learnt]), labels[:, 1:][learnt], reduction="sum"
    )


def mean_loss_backward(model: Qwen3ForCausalLM, batch: Batch) -> float:
    """Gradient of the mean over the batch's answer tokens, and that mean. In two parts, cut where
    least is padded.
    """
    batch = sorted(batch, key=lambda d: len(d[0]) + len(d[1]))
    longest = [len(p) + len(a) for p, a in batch]
    cut = min(range(len(batch)), key=lambda k: k * longest[k - 1] + (len(batch) - k) * longest[-1])
    answers, total = sum(len(a) for _, a in batch), 0.0
    for part in filter(None, (batch[:cut], batch[cut:])):
        loss = answer_loss(model, part) / answers
        loss.backward()
        total += loss.item()
    return total


def optimizers(
    recipe: Recipe, model: Qwen3ForCausalLM, rate: torch.Tensor | None = None
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside (its steps scaled to AdamW's, so that one learning rate serves
    both), AdamW for embedding and norms.
    """
    inside = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.dim() < 2 or "embed" in name]
    common = dict(
        lr=recipe.learning_rate if rate is None else rate, weight_decay=recipe.weight_decay
    )
    return [
        Muon(inside, **common),
        torch.optim.AdamW(rest, **common, betas=(0.9, 0.95), capturable=rate is not None),
    ]


def pretrain(
    recipe: Recipe, work: Path, log_every: int = 50, save_every: int = 100, device: str = "cpu"
) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """Train, or go on from the last save in `work`; the same recipe gives the same model either
    way, on the same device.
    """
    work.mkdir(parents=True, exist_ok=True)
    state_file, log = work / "state.safetensors", work / "log.jsonl"
    tokenizer = train_tokenizer(recipe)
    model = new_model(recipe, tokenizer).to(device)
    rate_on_device = torch.tensor(recipe.learning_rate, device=device) if device == "cuda" else None
    both = optimizers(recipe, model, rate_on_device)
    if device == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32
    start = restore(state_file, recipe, model, both) if state_file.exists() else 0
    for group in (group for optimizer in both for group in optimizer.param_groups):
        if rate_on_device is not None:  # a restored optimiser holds a copy of its own
            group["lr"] = rate_on_device
    graphed = GraphedStep(model, both, rate_on_device) if device == "cuda" else None
    batches_per_pool, batches, losses, since = 16, [], [], time.time()
    for step in range(start, recipe.steps):
        if not batches or step % batches_per_pool == 0:
            batches = kept_pool(
                recipe,
                tokenizer,
                step // batches_per_pool,
                batches_per_pool,
                work.parent / "documents",
            )
        rate = recipe.learning_rate * min(
            (step + 1) / recipe.warmup,
            1 - 0.99 * max(0, step - recipe.warmup) / (recipe.steps - recipe.warmup),
        )
        batch = batches[step % batches_per_pool]
        losses.append(graphed(batch, rate) if graphed else move(model, both, batch, rate))
        if (step + 1) % log_every == 0 or step + 1 == recipe.steps:
            line = {
                "step": step + 1,
                "loss": round(float(sum(losses)) / len(losses), 4),
                "seconds": round(time.time() - since, 1),
            }
            with log.open("a") as file:
                print(json.dumps(line), file=file)
            print(recipe.name, line, flush=True)
            losses = []
        if (step + 1) % save_every == 0 or step + 1 == recipe.steps:
            keep(state_file, step + 1, recipe, model, both)
        if step + 1 in recipe.keep_at:
            export(model, tokenizer, work / f"{recipe.name}-at-{step + 1}")
    if not all(torch.isfinite(p).all() for p in model.parameters()):
        raise FloatingPointError(
            "pre-training ended in weights that are not finite; lower learning_rate"
        )
    return model.cpu().eval(), tokenizer


def move(
    model: Qwen3ForCausalLM, both: list[torch.optim.Optimizer], batch: Batch, rate: float
) -> float:
    """One step of pre-training on a CPU; the loss."""
    loss = mean_loss_backward(model, batch)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in both:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
    return loss


def keep(
    path: Path, step: int, recipe: Recipe, model: torch.nn.Module, both: list[torch.optim.Optimizer]
) -> None:
    tensors = {f"model/{k}": v.detach().clone() for k, v in model.named_parameters()}
    for o, optimizer in enumerate(both):
        for i, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{o}/{i}/{k}": v.clone() for k, v in state.items()}
    save_file(
        tensors,
        path.with_suffix(".new"),
        metadata={
            "step": str(step),
            "recipe": json.dumps(asdict(recipe)),
            "documents": document_code(),
        },
    )
    path.with_suffix(".new").replace(path)


def restore(
    path: Path, recipe: Recipe, model: torch.nn.Module, both: list[torch.optim.Optimizer]
) -> int:
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    if metadata["recipe"] != json.dumps(asdict(recipe)):
        raise ValueError(
            f"{path} belongs to another recipe: {metadata['recipe']}; "
            "use another --work folder or remove it"
        )
    if metadata.get("documents") != document_code():
        raise ValueError(
            f"{path} was made on the documents of other code; "
            "use another --work folder or remove it"
        )
    tensors = load_file(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model/{name}"])
    for o, optimizer in enumerate(both):
        state = optimizer.state_dict()
        for key, value in tensors.items():
            if key.startswith(f"optimizer/{o}/"):
                _, _, i, name = key.split("/")
                state["state"].setdefault(int(i), {})[name] = value
        optimizer.load_state_dict(state)
    return int(metadata["step"])


def export(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """What is shipped: half-precision safetensors, the tokenizer, the generation defaults."""
    copy.deepcopy(model).to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make(name: str, work: Path, out: Path, card: bool, device: str = "cpu") -> None:
    """One model of the family, its kept checkpoints, what they were taught to read, and their
    cards.
    """
    from small_models import taught
    from small_models.card import write_card

    recipe = RECIPES[name]
    folders = {step: out / (f"{name}-at-{step}" if step else name) for step in (0, *recipe.keep_at)}
    export(*pretrain(recipe, work / name, device=device), folders[0])
    for step in recipe.keep_at:
        shutil.copytree(work / name / f"{name}-at-{step}", folders[step], dirs_exist_ok=True)
    taught.write(list(folders.values()))
    for step in folders if card else ():
        write_card(folders[step], recipe, work / name / "log.jsonl", step)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(RECIPES),
        default=list(FAMILY),
        help=f"which of the family; {', '.join(FAMILY)} unless told",
    )
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the finished models")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("build/small_models"),
        help="folder of the resumable states and the logs",
    )
    parser.add_argument("--no-card", action="store_true", help="skip the measurements")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="for each model; two save time on a single large one where nothing else runs, and "
        "change the last bits of the sums",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments = parser.parse_args()
    if len(arguments.only) == 1:
        # one thread unless told: the sums are the same on every number of cores, and two small
        # models side by side are faster than each on two cores
        torch.set_num_threads(arguments.threads)
        (name,) = arguments.only
        return make(name, arguments.work, arguments.out, not arguments.no_card, arguments.device)
    rest = [
        "--out",
        arguments.out,
        "--work",
        arguments.work,
        "--threads",
        arguments.threads,
        "--device",
        arguments.device,
        *(["--no-card"] if arguments.no_card else []),
    ]
    longest_first = sorted(arguments.only, key=lambda name: -RECIPES[name].width)
    jobs = [
        [sys.executable, "-m", "small_models.make", "--only", name, *map(str, rest)]
        for name in longest_first
    ]
    with ThreadPoolExecutor(max(1, min(len(jobs), os.cpu_count() or 1))) as pool:
        codes = list(pool.map(lambda job: subprocess.run(job).returncode, jobs))
    if any(codes):
        raise SystemExit(
            f"not made: {', '.join(name for name, code in zip(longest_first, codes) if code)}; "
            "the same command goes on where they stopped"
        )


if __name__ == "__main__":
    main()
