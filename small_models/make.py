"""Make a shipped model from nothing: `python -m small_models.make`. Seeded, resumable, about half an hour on 2 cores.

Tokenizer (byte-level BPE on the documents themselves), a Qwen3 model with random weights, next-token training on the
answers of small-world documents (`documents.py`), export in half precision, and the measured card (`card.py`).
"""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from small_models.documents import draw_document

HERE = Path(__file__).parent
CHAT_TEMPLATE = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
                 "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out. One dial for scale: `width` (depth and MLP follow it)."""

    name: str = "lab-1m"
    width: int = 128  #: hidden size; heads of 32, MLP three times as wide
    layers: int = 4
    vocab_size: int = 1024
    steps: int = 3000
    documents_per_step: int = 64
    learning_rate: float = 3e-3  #: peak, after `warmup` steps; then linear to a hundredth of it
    warmup: int = 200
    weight_decay: float = 0.1
    max_tokens: int = 640  #: longer documents are drawn again
    seed: int = 0


MINIATURE = Recipe(name="miniature", width=64, layers=2, vocab_size=512, steps=150, documents_per_step=32, warmup=20)


def train_tokenizer(recipe: Recipe, documents: int = 6000) -> PreTrainedTokenizerFast:
    rng = random.Random(f"tokenizer/{recipe.seed}")
    texts = ["\n".join(draw_document(rng)) for _ in range(documents)]
    tokenizer = Tokenizer(models.BPE())
    # words without their space, so that a name has the same tokens in a message, in quotes and in a call; digits one by one
    words = pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}|[^\p{L}\p{N}]+"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=recipe.vocab_size, special_tokens=special, show_progress=False,
                                                             initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=2048,
                                   clean_up_tokenization_spaces=False, additional_special_tokens=special[1:2])
    fast.chat_template = CHAT_TEMPLATE
    return fast


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    torch.manual_seed(recipe.seed)
    return Qwen3ForCausalLM(Qwen3Config(
        vocab_size=recipe.vocab_size, hidden_size=recipe.width, intermediate_size=3 * recipe.width, num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.width // 32, num_key_value_heads=recipe.width // 32, head_dim=32, max_position_embeddings=2048,
        rope_theta=10_000.0, tie_word_embeddings=True, bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id))


def draw_pool(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, pool: int, batches: int) -> list[list[tuple[list[int], list[int]]]]:
    """`batches` batches of (prompt ids, answer ids), documents of like length together; pool number `pool` of the seed."""
    rng = random.Random(f"documents/{recipe.seed}/{pool}")
    documents: list[tuple[list[int], list[int]]] = []
    while len(documents) < batches * recipe.documents_per_step:
        drawn = [draw_document(rng) for _ in range(256)]
        prompts = tokenizer([f"<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n" for q, _ in drawn], add_special_tokens=False).input_ids
        answers = tokenizer([f"{a}<|im_end|>" for _, a in drawn], add_special_tokens=False).input_ids
        documents += [(p, a) for p, a in zip(prompts, answers) if len(p) + len(a) <= recipe.max_tokens]
    documents = sorted(documents[: batches * recipe.documents_per_step], key=lambda d: len(d[0]) + len(d[1]))
    size = recipe.documents_per_step
    cut = [documents[i : i + size] for i in range(0, len(documents), size)]
    rng.shuffle(cut)
    return cut


def answer_loss(model: Qwen3ForCausalLM, batch: list[tuple[list[int], list[int]]]) -> torch.Tensor:
    """Mean cross-entropy of the answer tokens, () . Nothing is learnt on a prompt: what is written there is not true."""
    longest = max(len(p) + len(a) for p, a in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)  # right-padded: causal attention never sees the padding
    labels = torch.full_like(ids, -100)
    for i, (p, a) in enumerate(batch):
        ids[i, : len(p) + len(a)] = torch.tensor(p + a)
        labels[i, len(p) : len(p) + len(a)] = torch.tensor(a)
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]  # (B, L-1, H)
    learnt = labels[:, 1:] != -100
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[learnt]), labels[:, 1:][learnt])


def pretrain(recipe: Recipe, work: Path, log_every: int = 50, save_every: int = 250) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """Train, or go on from the last save in `work`; the same recipe gives the same model either way."""
    work.mkdir(parents=True, exist_ok=True)
    state_file, log = work / "state.safetensors", work / "log.jsonl"
    tokenizer = train_tokenizer(recipe)
    model = new_model(recipe, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=recipe.weight_decay)
    start = restore(state_file, recipe, model, optimizer) if state_file.exists() else 0
    batches_per_pool, batches, losses, since = 16, [], [], time.time()
    for step in range(start, recipe.steps):
        if not batches or step % batches_per_pool == 0:
            batches = draw_pool(recipe, tokenizer, step // batches_per_pool, batches_per_pool)
        rate = recipe.learning_rate * min((step + 1) / recipe.warmup, 1 - 0.99 * max(0, step - recipe.warmup) / (recipe.steps - recipe.warmup))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = answer_loss(model, batches[step % batches_per_pool])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % log_every == 0 or step + 1 == recipe.steps:
            line = {"step": step + 1, "loss": round(sum(losses) / len(losses), 4), "seconds": round(time.time() - since, 1)}
            with log.open("a") as file:
                print(json.dumps(line), file=file)
            print(line, flush=True)
            losses = []
        if (step + 1) % save_every == 0 or step + 1 == recipe.steps:
            keep(state_file, step + 1, recipe, model, optimizer)
    if not all(torch.isfinite(p).all() for p in model.parameters()):
        raise FloatingPointError("pre-training ended in weights that are not finite; lower learning_rate")
    return model.eval(), tokenizer


def keep(path: Path, step: int, recipe: Recipe, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    tensors = {f"model/{k}": v.detach().clone() for k, v in model.named_parameters()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{i}/{k}": v.clone() for k, v in state.items()}
    save_file(tensors, path.with_suffix(".new"), metadata={"step": str(step), "recipe": json.dumps(asdict(recipe))})
    path.with_suffix(".new").replace(path)


def restore(path: Path, recipe: Recipe, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    if json.loads(metadata["recipe"]) != asdict(recipe):
        raise ValueError(f"{path} belongs to another recipe: {metadata['recipe']}; use another --work folder or remove it")
    tensors = load_file(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model/{name}"])
    state = optimizer.state_dict()
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, i, name = key.split("/")
            state["state"].setdefault(int(i), {})[name] = value
    optimizer.load_state_dict(state)
    return int(metadata["step"])


def export(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """What is shipped: half-precision safetensors, the tokenizer, the generation defaults."""
    import copy

    copy.deepcopy(model).to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / Recipe.name, help="folder of the finished model")
    parser.add_argument("--work", type=Path, default=Path("build/small_models"), help="folder of the resumable state and the log")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-card", action="store_true", help="skip the measurements")
    arguments = parser.parse_args()
    recipe = Recipe(steps=arguments.steps, seed=arguments.seed)
    model, tokenizer = pretrain(recipe, arguments.work / recipe.name)
    export(model, tokenizer, arguments.out)
    if not arguments.no_card:
        from small_models.card import write_card

        write_card(arguments.out, recipe, arguments.work / recipe.name / "log.jsonl")


if __name__ == "__main__":
    main()
