"""SDPO in one file, to be read from top to bottom: sample, judge, reprompt, score twice, loss,
step, and the teacher follows.

Self-Distillation Policy Optimization (arXiv 2601.20802) in its plainest form: the reverse KL of Eq.
1 over the whole vocabulary; the teacher reads a sibling's success, or else the environment's
feedback, in the frame of Table 2; its weights are a moving average of the student's. The notebook
04_from_scratch builds this file function by function. Tests hold it equal to 1e-6, sampled tokens
included, to `SDPOTrainer` with distillation_mode="full_logits", distillation_alpha=1.0,
normalize="active_tokens", demonstration="first". Skip `uniform` and `draw` at first: they replace
torch's generator so that a token's noise does not depend on the batch.

`model` and `tokenizer` come from transformers: a causal language model, and its tokenizer with a
chat template. A task has `problems(n, split, seed)`, each with an `id` and a chat `messages`, and
`judge(problem, text)`, which returns an object with a `reward` (1 is a success) and a `feedback`
("" says nothing).

Left out, but in the package: GRPO and mixtures with it, several updates a batch, top k, other
divergences and other teachers, LoRA, the key-value cache, batches of different problems,
temperatures, further end tokens, texts that are too long, blank or spell a special token, losses
that are not finite. Shapes: G attempts at a problem, L tokens so far, T tokens of an attempt, V
entries of the vocabulary.
"""

import copy
import hashlib
from collections import namedtuple

import torch


# 1. sample
def encode(tokenizer, messages):
    """Token ids of a chat, up to where the assistant starts to write."""
    return tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, enable_thinking=False
    )["input_ids"]


def uniform(key, position):
    """A random number in [0, 1), a function of its arguments and nothing else.

    blake2b of the key, splitmix64 of the position.
    """
    z = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big")
    z = (z + (position + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return ((z ^ (z >> 31)) >> 11) / 2**53


def draw(logits, u):
    """The first token at which the cumulative probability exceeds u, logits (V,)."""
    cumulative = logits.float().log_softmax(-1).exp().double().cumsum(-1)  # (V,)
    return int(torch.searchsorted(cumulative, u * cumulative[-1], right=True))


@torch.no_grad()
def sample(model, prompt, keys, end, length):
    """An attempt for each key: G lists of at most `length` ids, the end token included."""
    ids = torch.tensor([prompt] * len(keys), device=model.device)  # (G, L)
    for position in range(length):
        logits = model(ids).logits[:, -1]  # (G, V), about the next token
        new = [[draw(row, uniform(key, position))] for row, key in zip(logits, keys)]
        ids = torch.cat([ids, torch.tensor(new, device=ids.device)], 1)
        if (ids[:, len(prompt) :] == end).any(1).all():
            break
    # what follows the end token does not count
    return [
        row[: row.index(end) + 1] if end in row else row for row in ids[:, len(prompt) :].tolist()
    ]


# 2. judge
Attempt = namedtuple("Attempt", "problem ids text reward feedback")  # ids: a list of T tokens


def judge(tokenizer, task, problem, rows):
    """Judged attempts at one problem, side by side: a group."""
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in rows]
    verdicts = [task.judge(problem, text) for text in texts]
    return [
        Attempt(problem, ids, text, v.reward, v.feedback)
        for ids, text, v in zip(rows, texts, verdicts)
    ]


# 3. reprompt
def reprompt(group, i):
    """The chat that the teacher of attempt i reads (Table 2); None when there is nothing to show.

    The question and the first success of a sibling, or else the attempt's own feedback.
    """
    me, successes = group[i], [a.text for j, a in enumerate(group) if a.reward >= 1 and j != i]
    if successes:
        shown = f"\nCorrect solution:\n\n{successes[0]}"
    elif me.reward < 1 and me.feedback:
        shown = (
            "\nThe following is feedback from your unsuccessful earlier attempt:"
            f"\n\n{me.feedback}"
        )
    else:
        return None
    *earlier, question = me.problem.messages
    content = question["content"] + shown + "\n\nCorrectly solve the original question."
    return [*earlier, {**question, "content": content}]


# 4. score
def score(model, prompt, ids):
    """Log-probabilities of the whole vocabulary at every token of an attempt, (T, V)."""
    logits = model(torch.tensor([prompt + ids], device=model.device)).logits[0]  # (L, V)
    # the logits at one place are about the token at the next
    return logits[len(prompt) - 1 : -1].log_softmax(-1)


# 5. loss
def kl(p, q):
    """KL(student || teacher) at every token from log-probabilities (T, V): (T,). Eq. 1.

    The teacher gets no gradient.
    """
    return (p.exp() * (p - q.detach())).sum(-1)


# 6. step
def step(model, teacher, tokenizer, optimizer, groups):
    """One update on the active attempts: those whose teacher reads more than the question.

    Returns the mean loss of their tokens, or None.
    """
    active = [
        (a, chat) for group in groups for i, a in enumerate(group) if (chat := reprompt(group, i))
    ]
    if not active:
        return None
    losses = []
    for a, chat in active:
        p = score(model, encode(tokenizer, a.problem.messages), a.ids)  # (T, V)
        # (T, V): the same tokens after another prompt
        q = score(teacher, encode(tokenizer, chat), a.ids)
        losses.append(kl(p, q))
    loss = torch.cat(losses).mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


# 7. follow
@torch.no_grad()
def follow(teacher, model, rate):
    """teacher <- (1 - rate) teacher + rate student, weight by weight."""
    for t, s in zip(teacher.parameters(), model.parameters()):
        t.copy_((1 - rate) * t + rate * s)


# all of it
def sdpo(
    model, tokenizer, task, steps, seed=0, problems=8, attempts=8, length=64, lr=5e-4, rate=0.01
):
    """Train `model` in place; yields (mean reward, loss, teacher) after every step."""
    model.eval()  # no dropout: what is scored must be what has sampled
    teacher = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    for number in range(1, steps + 1):
        groups = []
        for problem in task.problems(problems, split="train", seed=seed * 1_000_003 + number):
            keys = [(seed, number, problem.id, i) for i in range(attempts)]
            rows = sample(
                model, encode(tokenizer, problem.messages), keys, tokenizer.eos_token_id, length
            )
            groups.append(judge(tokenizer, task, problem, rows))
        loss = step(model, teacher, tokenizer, optimizer, groups)
        if loss is not None:
            follow(teacher, model, rate)
        yield (
            sum(a.reward for group in groups for a in group) / (problems * attempts),
            loss,
            teacher,
        )
