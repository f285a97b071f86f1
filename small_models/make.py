"""Make the shipped models from nothing: `python -m small_models.make`. Seeded, resumable.

About an hour on 2 cores, cards included: a core each and side by side, the 12,000 steps of `lab-1m` take 44 minutes, those of `lab-300k` 19, of `lab-100k` 10 (by the pace of
600 to 1,500 steps). A fourth size, `lab-3m`, is made only when it is named: `--only lab-3m --threads 2`, some two hours on 2 cores by what its steps take, and two and a half on one.

One tokenizer (byte-level BPE on the documents themselves), Qwen3 models of three sizes with random weights, next-token training on the answers of
the same small-world documents (`documents.py`), export in half precision, and the measured cards (`card.py`).
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import random
import re
import shutil
import string
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

from small_models.documents import Document, draw_document, draw_echo
from small_models.muon import Muon

HERE = Path(__file__).parent
CHAT_TEMPLATE = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
                 "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out. The dial for scale is `width` (heads and MLP follow it)."""

    name: str = "lab-1m"
    width: int = 128  #: hidden size; heads of 32, MLP three times as wide
    layers: int = 4
    vocab_size: int = 1536
    steps: int = 12000
    documents_per_step: int = 16
    learning_rate: float = 1e-3  #: peak, after `warmup` steps; then linear to a hundredth of it
    warmup: int = 100
    weight_decay: float = 0.1
    max_tokens: int = 512  #: longer documents are drawn again
    echo_steps: int = 600  #: the first lesson: so long the share of documents that only ask to copy falls from 0.8 to 0
    keep_at: tuple[int, ...] = ()  #: steps after which the weights are kept as models of their own
    seed: int = 0


#: The family: equal documents in equal order, one tokenizer.
RECIPES = {r.name: r for r in (
    Recipe("lab-100k", width=32, learning_rate=4e-3),
    Recipe("lab-300k", width=64, learning_rate=2e-3),
    Recipe("lab-1m", keep_at=(1000, 2000, 4000)),
    Recipe("lab-3m", width=192, layers=6, learning_rate=7e-4),
)}
#: What is made unless told, and shipped.
FAMILY = ("lab-100k", "lab-300k", "lab-1m")
MINIATURE = Recipe(name="miniature", width=64, layers=2, vocab_size=512, steps=150, documents_per_step=32, learning_rate=3e-3, warmup=20, echo_steps=30)


def train_tokenizer(recipe: Recipe, documents: int = 6000) -> PreTrainedTokenizerFast:
    rng = random.Random(f"tokenizer/{recipe.seed}")
    drawn = (draw_document(rng) for _ in range(documents))
    texts = ["\n".join([*(m["content"] for m in d.messages), d.answer]) for d in drawn]
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


LETTER_BY_LETTER = "reasoning_gym:spell_backward"


def encode(documents: list[Document], tokenizer: PreTrainedTokenizerFast) -> list[tuple[list[int], list[int]]]:
    """(prompt ids, answer ids). A word spelt backward is written letter by letter: which letters hide in a token is what has to be learnt there."""
    prompts, answers = zip(*map(render, documents))
    ids = (tokenizer(list(texts), add_special_tokens=False).input_ids for texts in (prompts, answers))
    letters = {c: tokenizer(c, add_special_tokens=False).input_ids for c in string.ascii_lowercase}
    found = []
    for d, p, a in zip(documents, *ids):
        if d.world == LETTER_BY_LETTER:
            before, word, after = re.fullmatch(r"(.*?)([a-z]+)(\W*)", d.answer).groups()
            a = [*tokenizer(before, add_special_tokens=False).input_ids, *(i for c in word for i in letters[c]), *tokenizer(after, add_special_tokens=False).input_ids,
                 tokenizer.eos_token_id]
        found.append((p, a))
    return found


def render(document: Document) -> tuple[str, str]:
    """(prompt, answer) as the chat template writes them."""
    turns = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in document.messages)
    return f"{turns}<|im_start|>assistant\n", f"{document.answer}<|im_end|>"


Batch = list[tuple[list[int], list[int]]]  # (prompt ids, answer ids)
Pool = list[Batch]


def draw_pool(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, pool: int, batches: int) -> Pool:
    """`batches` batches of (prompt ids, answer ids), documents of like length together; pool number `pool` of the seed."""
    rng = random.Random(f"documents/{recipe.seed}/{pool}")
    echo = 0.8 * max(0.0, 1 - pool * batches / recipe.echo_steps) if recipe.echo_steps else 0.0
    documents: list[tuple[list[int], list[int]]] = []
    while len(documents) < batches * recipe.documents_per_step:
        drawn = [draw_echo(rng) if rng.random() < echo else draw_document(rng) for _ in range(256)]
        documents += [(p, a) for p, a in encode(drawn, tokenizer) if len(p) + len(a) <= recipe.max_tokens]
    documents = sorted(documents[: batches * recipe.documents_per_step], key=lambda d: len(d[0]) + len(d[1]))
    size = recipe.documents_per_step
    cut = [documents[i : i + size] for i in range(0, len(documents), size)]
    rng.shuffle(cut)
    return cut


def kept_pool(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, pool: int, batches: int, folder: Path) -> Pool:
    """The same, read from `folder` where another size of the family has drawn it before."""
    same = hashlib.sha256(json.dumps([recipe.seed, recipe.echo_steps, recipe.documents_per_step, recipe.max_tokens, batches, tokenizer.get_vocab()], sort_keys=True).encode()).hexdigest()[:12]
    file = folder / f"{same}-{pool:04d}.json"
    if file.exists():
        return json.loads(file.read_text())
    drawn = draw_pool(recipe, tokenizer, pool, batches)
    folder.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(f".{os.getpid()}")  # another size may be drawing the same one at this moment
    new.write_text(json.dumps(drawn))
    new.replace(file)
    return drawn


def answer_loss(model: Qwen3ForCausalLM, batch: Batch) -> torch.Tensor:
    """Sum of the cross-entropy of the answer tokens, () . Nothing is learnt on a prompt: what is written there is not true."""
    longest = max(len(p) + len(a) for p, a in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)  # right-padded: causal attention never sees the padding
    labels = torch.full_like(ids, -100)
    for i, (p, a) in enumerate(batch):
        ids[i, : len(p) + len(a)] = torch.tensor(p + a)
        labels[i, len(p) : len(p) + len(a)] = torch.tensor(a)
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]  # (B, L-1, H)
    learnt = labels[:, 1:] != -100
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[learnt]), labels[:, 1:][learnt], reduction="sum")


def mean_loss_backward(model: Qwen3ForCausalLM, batch: Batch) -> float:
    """Gradient of the mean over the batch's answer tokens, and that mean. In two parts, cut where least is padded."""
    batch = sorted(batch, key=lambda d: len(d[0]) + len(d[1]))
    longest = [len(p) + len(a) for p, a in batch]
    cut = min(range(len(batch)), key=lambda k: k * longest[k - 1] + (len(batch) - k) * longest[-1])
    answers, total = sum(len(a) for _, a in batch), 0.0
    for part in filter(None, (batch[:cut], batch[cut:])):
        loss = answer_loss(model, part) / answers
        loss.backward()
        total += loss.item()
    return total


def optimizers(recipe: Recipe, model: Qwen3ForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside (its steps scaled to AdamW's, so that one learning rate serves both), AdamW for embedding and norms."""
    inside = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.dim() < 2 or "embed" in name]
    common = dict(lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    return [Muon(inside, **common), torch.optim.AdamW(rest, **common, betas=(0.9, 0.95))]


def pretrain(recipe: Recipe, work: Path, log_every: int = 50, save_every: int = 100) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """Train, or go on from the last save in `work`; the same recipe gives the same model either way."""
    work.mkdir(parents=True, exist_ok=True)
    state_file, log = work / "state.safetensors", work / "log.jsonl"
    tokenizer = train_tokenizer(recipe)
    model = new_model(recipe, tokenizer)
    both = optimizers(recipe, model)
    start = restore(state_file, recipe, model, both) if state_file.exists() else 0
    batches_per_pool, batches, losses, since = 16, [], [], time.time()
    for step in range(start, recipe.steps):
        if not batches or step % batches_per_pool == 0:
            batches = kept_pool(recipe, tokenizer, step // batches_per_pool, batches_per_pool, work.parent / "documents")
        rate = recipe.learning_rate * min((step + 1) / recipe.warmup, 1 - 0.99 * max(0, step - recipe.warmup) / (recipe.steps - recipe.warmup))
        losses.append(mean_loss_backward(model, batches[step % batches_per_pool]))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in both:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()
        if (step + 1) % log_every == 0 or step + 1 == recipe.steps:
            line = {"step": step + 1, "loss": round(sum(losses) / len(losses), 4), "seconds": round(time.time() - since, 1)}
            with log.open("a") as file:
                print(json.dumps(line), file=file)
            print(recipe.name, line, flush=True)
            losses = []
        if (step + 1) % save_every == 0 or step + 1 == recipe.steps:
            keep(state_file, step + 1, recipe, model, both)
        if step + 1 in recipe.keep_at:
            export(model, tokenizer, work / f"{recipe.name}-at-{step + 1}")
    if not all(torch.isfinite(p).all() for p in model.parameters()):
        raise FloatingPointError("pre-training ended in weights that are not finite; lower learning_rate")
    return model.eval(), tokenizer


def keep(path: Path, step: int, recipe: Recipe, model: torch.nn.Module, both: list[torch.optim.Optimizer]) -> None:
    tensors = {f"model/{k}": v.detach().clone() for k, v in model.named_parameters()}
    for o, optimizer in enumerate(both):
        for i, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{o}/{i}/{k}": v.clone() for k, v in state.items()}
    save_file(tensors, path.with_suffix(".new"), metadata={"step": str(step), "recipe": json.dumps(asdict(recipe))})
    path.with_suffix(".new").replace(path)


def restore(path: Path, recipe: Recipe, model: torch.nn.Module, both: list[torch.optim.Optimizer]) -> int:
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    if metadata["recipe"] != json.dumps(asdict(recipe)):
        raise ValueError(f"{path} belongs to another recipe: {metadata['recipe']}; use another --work folder or remove it")
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


def make(name: str, work: Path, out: Path, card: bool) -> None:
    """One model of the family, its kept checkpoints, what they were taught to read, and their cards."""
    from small_models import taught
    from small_models.card import write_card

    recipe = RECIPES[name]
    folders = {step: out / (f"{name}-at-{step}" if step else name) for step in (0, *recipe.keep_at)}
    export(*pretrain(recipe, work / name), folders[0])
    for step in recipe.keep_at:
        shutil.copytree(work / name / f"{name}-at-{step}", folders[step], dirs_exist_ok=True)
    taught.write(list(folders.values()))
    for step in folders if card else ():
        write_card(folders[step], recipe, work / name / "log.jsonl", step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(RECIPES), default=list(FAMILY), help=f"which of the family; {', '.join(FAMILY)} unless told")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the finished models")
    parser.add_argument("--work", type=Path, default=Path("build/small_models"), help="folder of the resumable states and the logs")
    parser.add_argument("--no-card", action="store_true", help="skip the measurements")
    parser.add_argument("--threads", type=int, default=1, help="for each model; two save time on a single large one where nothing else runs, and change the last bits of the sums")
    arguments = parser.parse_args()
    if len(arguments.only) == 1:
        # one thread unless told: the sums are the same on every number of cores, and two small models side by side are faster than each on two cores
        torch.set_num_threads(arguments.threads)
        return make(*arguments.only, arguments.work, arguments.out, not arguments.no_card)
    rest = ["--out", arguments.out, "--work", arguments.work, "--threads", arguments.threads, *(["--no-card"] if arguments.no_card else [])]
    jobs = [[sys.executable, "-m", "small_models.make", "--only", name, *map(str, rest)] for name in reversed(arguments.only)]  # the longest first
    with ThreadPoolExecutor(max(1, min(len(jobs), os.cpu_count() or 1))) as pool:
        codes = list(pool.map(lambda job: subprocess.run(job).returncode, jobs))
    if any(codes):
        raise SystemExit(f"not made: {', '.join(name for name, code in zip(reversed(arguments.only), codes) if code)}; the same command goes on where they stopped")


if __name__ == "__main__":
    main()
