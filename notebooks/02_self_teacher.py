# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What makes a teacher of a student
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/sdpo-lab/sdpo_lab/blob/main/notebooks/02_self_teacher.ipynb)
#
# > **What you will see.** The two prompts, side by side. Which tokens of a failed attempt a message lowers, which it leaves alone, and which it
# > cannot know about: on two hundred attempts, not one.
# > What useless and misleading messages do. Then a playground: you edit the message, and the picture follows.
# >
# > **Time.** About a minute on 2 CPU cores, all cells; similar on a T4 (estimated).
# >
# > **You need** `00_quickstart`.

# %%
# On Colab this installs sdpo_lab; elsewhere it does nothing.
import importlib.util
import os

if "COLAB_RELEASE_TAG" in os.environ and importlib.util.find_spec("sdpo_lab") is None:
    get_ipython().run_line_magic("pip", "install -q 'sdpo_lab[widgets] @ git+https://github.com/sdpo-lab/sdpo_lab'")

# %%
import time

import torch

import sdpo_lab as lab

began = time.perf_counter()
model, tokenizer = lab.load_model()
task = lab.load_task("toolcall", seed=0)

# %% [markdown]
# ## 1. One model, two prompts
#
# A failed attempt, and what the API said of it:

# %%
problem = task.problems(8, split="train", seed=0)[0]
attempts = lab.rollout(model, tokenizer, [problem], num_generations=8, seed=0)
failed = next(a for a in attempts if task.judge(problem, a.text).reward < 1)
feedback = task.judge(problem, failed.text).feedback
print(failed.text, "\n", feedback, sep="")

# %% [markdown]
# The **student** is the model with the request. The **self-teacher** is the same model, the same weights, with the request *and* the message.
# Nothing else makes it a teacher. So with nothing to show,
# the two must agree to the last digit:

# %%
nothing = lab.credit(model, tokenizer, problem, failed)
print("largest difference:", float(nothing.advantages.abs().max()))
assert nothing.student_prompt == nothing.teacher_prompt and nothing.advantages.abs().max() == 0

# %% [markdown]
# This is what the teacher reads instead. The frame around the message is the paper's (its Table 2): question, message, and the request to try again.
# The attempt itself is *not* in it; the teacher meets the attempt
# only as the tokens it has to score.

# %%
credit = lab.credit(model, tokenizer, problem, failed, feedback=feedback, task=task)
print(credit.teacher_prompt)

# %% [markdown]
# ## 2. Token by token
#
# The teacher reads the attempt from left to right. At each token it has an opinion on what should come next, and the student has one too. The
# difference of the two log-probabilities at the token that was written,
#
# $$A_t = \log q(y_t \mid \text{question, message}, y_{<t}) - \log p(y_t \mid \text{question}, y_{<t}),$$
#
# is what SDPO uses as the *advantage* of that token (`03_distillation_loss` derives it). Below zero: the teacher would have written it less likely.
#
# Click a token, or walk with the arrow keys. Below the text stand both roles' alternatives. Switch the colours to "divergence" or "teacher entropy",
# and unfold the prompts.

# %%
credit

# %% [markdown]
# Three things to look for. **One** token carries nearly everything. The tokens *after* it are left alone: the teacher does not blame the rest of an
# attempt for an early mistake, because it reads the attempt up to
# there as given. And where the wrong name stands, the teacher's first alternative is usually a name from the message.
#
# The same as numbers, for those who like to check:

# %%
worst = int(credit.advantages.argmin())
best = credit.top(3, at=worst)[0]
print(f"most lowered: {credit.tokens[worst]!r}, {float(credit.advantages[worst]):.1f} nats")
print("student:", [(t, round(p, 3)) for t, p in best["student"]])
print("teacher:", [(t, round(p, 3)) for t, p in best["teacher"]])

# %% [markdown]
# ## 3. Is that always so? Two hundred failed attempts
#
# One picture proves nothing. So take 200 failed attempts, each with a message that points at *one* name: the first wrong one (setting 3 of the dial,
# "'town' should be 'city'"). In each attempt we know of every argument name
# whether it is right, reported as wrong, or wrong and not reported.
#
# Before you go on: at a second wrong name, which the message does not mention, what will the teacher do?

# %%
from sdpo_lab.rollouts import judge_rollouts
from sdpo_lab.tasks.toolcall.written import written_names


def failures(task, n=200, seed=11):
    """(credit, names, attempt) of `n` failed attempts whose message reports a wrong name."""
    attempts = lab.rollout(model, tokenizer, task.problems(80, seed=seed), num_generations=4, seed=seed)
    found = []
    for r in judge_rollouts(task, attempts):
        if r.reward < 1 and len(found) < n:
            c = lab.credit(model, tokenizer, r.problem, r, feedback=r.feedback)
            names = written_names(task, r.problem, c)
            found += [(c, names, r)] if any(w.reported for w in names) else []
    return found


pointing = failures(lab.load_task("toolcall", seed=0, feedback=3))
print(f"{len(pointing)} failed attempts")

# %% [markdown]
# First: where is the advantage most negative?

# %%
def share_of_hits(cases):
    hits = [int(c.advantages.argmin()) in w.tokens for c, names, _ in cases for w in names if w.reported]
    return sum(hits) / len(hits)


hits = share_of_hits(pointing)
print(f"in {hits:.0%} of the attempts it is most negative at the reported name")
assert hits >= 0.9

# %% [markdown]
# Then, of all names in these attempts, by what is true of them:

# %%
def advantages_of(cases, wanted):
    return torch.tensor([w.advantage(c) for c, names, _ in cases for w in names if wanted(w)])


kinds = {
    "reported as wrong": advantages_of(pointing, lambda w: w.reported),
    "wrong, but not reported": advantages_of(pointing, lambda w: not w.right and not w.reported),
    "right": advantages_of(pointing, lambda w: w.right),
}
medians = {f"{kind} ({len(a)} names)": float(a.median()) for kind, a in kinds.items()}
lab.views.Bars("Advantage of a name, median", medians, "nats", "200 failed attempts, messages that point at the first wrong name")

# %% [markdown]
# At a wrong name that the message does not mention the teacher is nearly silent. It cannot know. **That is the limit of feedback**: a teacher made
# by a text knows what the text tells, and no more. What is not reported is
# learnt only when a later attempt gets past the first error and is told about the second.
#
# The default message (setting 2) does not point. It lists all accepted names. Now the same question for the second wrong name:

# %%
listing = failures(task)
second = advantages_of(listing, lambda w: not w.right and not w.reported)
confirmed = advantages_of(listing, lambda w: w.right)
print(f"wrong, not reported, but absent from the list: median {float(second.median()):.1f} nats ({len(second)} names)")
print(f"right, and in the list: median {float(confirmed.median()):.1f} nats ({len(confirmed)} names)")
print(f"right names lowered by more than 0.1 nats: {float((confirmed < -0.1).float().mean()):.1%}")
assert float(second.median()) < -1 and float((confirmed < -0.1).float().mean()) <= 0.1

# %% [markdown]
# A name that is *absent from the list* is lowered although no sentence mentions it: the teacher compares. And a name that the list confirms is not.
#
# ## 4. Useless messages
#
# A teacher that reacted to anything would be no teacher. So what does the same model do with a message that has nothing to do with the attempt, with
# words that mean nothing, with a message about another request? `lab.contexts`
# makes them: whatever a teacher of this attempt could be shown.

# %%
others = [r for _, _, r in listing]
shown = lab.contexts(task, problem, failed, rollouts=others)
for name, context in shown.items():
    print(f"{name}: {context['feedback'] or context['solution'] or '-'}")

# %% [markdown]
# How far does each move the teacher, over fifty attempts? The shift in bits is the sum over tokens of KL(teacher ‖ student), a distance of two
# predictions that is 0 where they are equal (`03_distillation_loss` is about it). Beside it: the largest
# advantage of any token, up or down.

# %%
def shift(kind, cases):
    """Median shift in bits, and median of the largest |advantage|, over attempts."""
    contexts = [lab.contexts(task, r.problem, r, rollouts=others)[kind] for r in cases]
    credits = [lab.credit(model, tokenizer, r.problem, r, **context) for r, context in zip(cases, contexts)]
    bits, largest = (torch.tensor(v) for v in zip(*((c.shift_bits, float(c.advantages.abs().max())) for c in credits)))
    return float(bits.median()), float(largest.median())


moved = {kind: shift(kind, others[:50]) for kind in shown}
for kind, (bits, largest) in moved.items():
    print(f"{kind:<28} {bits:6.2f} bits, largest |A| {largest:5.2f} nats")

# %% [markdown]
# What belongs to another conversation, or means nothing, hardly moves it. The message about *another request* does: it is an error message like the
# real one, about another tool, and the teacher takes it at its word. Where does it
# put the blame? On the names, both of them: it expects the *other* tool's. (The bits count all words of the vocabulary, |A| only the written one.)
# Here are all of them, in the same colours and on the same scale.

# %%
stacked = {kind: lab.credit(model, tokenizer, problem, failed, **context) for kind, context in shown.items()}
lab.views.token_view(list(stacked.values()), titles=list(stacked))

# %% [markdown]
# The unrelated message once more, over all 200 attempts:

# %%
def largest_when_unrelated(r):
    context = lab.contexts(task, r.problem, r)["unrelated feedback"]
    return float(lab.credit(model, tokenizer, r.problem, r, **context).advantages.abs().max())


largest = torch.tensor([largest_when_unrelated(r) for r in others])
print(f"largest |A| of an attempt: {float(largest.median()):.2f} nats (median), {float(largest.quantile(0.95)):.2f} (95 of 100 lie below)")
assert float(largest.quantile(0.95)) < 1 and moved["nothing"] == (0.0, 0.0)

# %% [markdown]
# ## 5. When the teacher is wrong
#
# The teacher is no judge. It believes what it is shown. Take an attempt that is *right*, and show the teacher what the API of somebody else would
# have said of it: another convention, other names.
#
# Before you run the cell: will it know better?

# %%
right_answer = task.solution(problem)
elsewhere = (lab.load_task("toolcall", seed=s) for s in range(1, 100))
lie = next(said for other in elsewhere if "unexpected" in (said := other.judge(problem, right_answer).feedback))
print(lie)
misled = lab.credit(model, tokenizer, problem, right_answer, feedback=lie)
misled

# %%
names = written_names(task, problem, misled)
for w in names:
    print(f"{w.name!r} is {'right' if w.right else 'wrong'}; the teacher moves it by {w.advantage(misled):+.1f} nats")
print("lowered by more than a nat:", [w.name for w in names if w.advantage(misled) < -1])

# %% [markdown]
# It does not. Trained on such messages the student would learn the wrong names: SDPO is as truthful as its environment.
#
# A second way to be wrong needs no lie. At setting 1 the message only says "unexpected argument", and lists nothing. A perfect reader takes that
# name away and divides its probability among the others. Ours?

# %%
terse = lab.load_task("toolcall", seed=0, feedback=1)
excluded = [lab.credit(model, tokenizer, r.problem, r, feedback=terse.judge(r.problem, r.text).feedback) for r in others[:50]]
cases = [(c, written_names(terse, r.problem, c), r) for c, r in zip(excluded, others)]
print(terse.judge(problem, failed.text).feedback)
print(f"the reported name moves by {float(advantages_of(cases, lambda w: w.reported).median()):+.2f} nats (median of 50)")
print(f"where accepted names are listed: {float(advantages_of(listing[:50], lambda w: w.reported).median()):+.2f} nats")

# %% [markdown]
# "One of these" this model has learnt to read. "Not this one" it hardly has. What the teacher cannot read, SDPO cannot teach; in `00_quickstart`
# that setting of the dial needs as many attempts as no message at all.
#
# ## 6. What would it write itself?
#
# The teacher never writes during training; it only scores. But nothing keeps us from letting it write, and its own accuracy tells how much there is
# to learn from it. Here are eight fresh answers in its prompt:

# %%
written = lab.teacher_attempts(model, tokenizer, problem, 8, feedback=feedback, task=task, seed=0)
for a in written:
    print("✓" if a.reward == 1 else "✗", a.text)

# %% [markdown]
# Over many requests, the student and its teacher. (The teacher needs something to read: the student attempts each request first, and the teacher is
# shown what training would show it.)

# %%
trainer = lab.SDPOTrainer(model, tokenizer, task)
student, teacher = trainer.evaluate(128), trainer.evaluate(128, role="teacher")
print(student)
print(teacher)
assert float(teacher) > float(student) + 0.3

# %% [markdown]
# That gap is what SDPO has to work with. (pass@8 is measured on fewer requests, so its interval is wide.) The teacher has the student's weights and
# gets better with it, so its accuracy today is no ceiling. When the two prompts lead to the same predictions, learning stops: `05_live_training`
# shows it.
#
# ## 7. Against the best possible teacher
#
# For this task the best possible teacher is known. The Bayes oracle knows how worlds are made, reads the same message, and says what should come
# next. Switch the view of section 2 to "oracle", or read it here: what do the three
# think of the tokens of the reported name?

# %%
at = int(credit.advantages.argmin())
for t in range(max(0, at - 2), min(len(credit.tokens), at + 3)):
    p, q, o = (float(x[t].exp()) for x in (credit.student_log_probs, credit.teacher_log_probs, credit.oracle_log_probs))
    opinion = "no opinion: it has excluded what was written before" if o != o else f"{o:.3f}"
    print(f"{credit.tokens[t]!r:>12}: student {p:.3f}, teacher {q:.3f}, oracle {opinion}")

# %% [markdown]
# The oracle excludes the reported name outright, and after it has nothing left to say. The self-teacher cannot be that sure, and goes on scoring.
#
# ## 8. The playground
#
# Now you. Choose a request and an attempt (or type one), edit the message or the solution, and the picture follows. The buttons put in the messages
# of section 4. A badge tells when a text is of a kind this model was never taught to
# read. (It needs a running kernel; everything it shows comes from the functions used above.)

# %%
playground = lab.views.Playground(model, tokenizer, task, problem=problem, completion=failed)
playground

# %% [markdown]
# The badge, as a function. This model has read error messages and little else:

# %%
for text in (feedback, "Please have another look at the second argument, would you?"):
    print(lab.familiarity(text, model), "\n   ", text)

# %% [markdown]
# ## Exercises
#
# **Exercise 1.** Write the advantage of the tokens that were written: `p` and `q` are log-probabilities (T, V) of student and teacher, `ids` (T,)
# the tokens.

# %%
from sdpo_lab import checks


def my_advantages(p, q, ids):
    ...  # your line here


print(checks.check_advantages(my_advantages))


# %% cellView="form" jupyter={"source_hidden": true}
# @title Solution of exercise 1
def advantages(p, q, ids):
    return (q - p).gather(1, ids[:, None])[:, 0]


print(checks.check_advantages(advantages))
assert torch.allclose(advantages(credit.student_distribution, credit.teacher_distribution, torch.tensor(credit.completion_ids)), credit.advantages, atol=1e-5)

# %% [markdown]
# **Exercise 2.** How far did a message move the teacher, in bits? (Not the bits of `00`: those count what *could* be learned.) Write Σ KL(teacher ‖
# student) over the tokens, in bits, from the same two tables.

# %%
def my_shift_bits(p, q):
    ...  # your line here


print(checks.check_shift_bits(my_shift_bits))


# %% cellView="form" jupyter={"source_hidden": true}
# @title Solution of exercise 2
def shift_bits(p, q):
    return (q.exp() * (q - p)).sum() / torch.tensor(2.0).log()


print(checks.check_shift_bits(shift_bits))
assert abs(float(shift_bits(credit.student_distribution, credit.teacher_distribution)) - credit.shift_bits) < 1e-3

# %% [markdown]
# **Exercise 3.** Write a message of your own, in other words than the API's and without the answer in it, that makes the teacher lower a wrong name
# of this attempt and no right one. Try it in the playground first.

# %%
my_message = ""

print(checks.check_message(model, tokenizer, task, problem, failed, my_message))

# %% cellView="form" jupyter={"source_hidden": true}
# @title Solution of exercise 3
wrong = next(w.name for w in written_names(task, problem, credit) if w.reported)
accepted = sorted(task.convention[problem.data["calls"][0]["tool"]].values())
message = f"No argument {wrong!r} here. Known: {', '.join(accepted)}"

print(message)
print(checks.check_message(model, tokenizer, task, problem, failed, message))
assert checks.check_message(model, tokenizer, task, problem, failed, message).startswith("✓")

# %% [markdown]
# ## What you have seen
#
# 1. The teacher is the student with a longer prompt. With nothing to show they are equal.
# 2. Told what is accepted, it lowers what the message reports or what it can conclude, and leaves the rest nearly alone. What the message does not
#    tell it does not know; "not this one" alone it hardly reads.
# 3. Messages about nothing hardly move it. Misleading ones do, and so does an error message about another request: it believes what it reads.
# 4. Its own answers are far better than the student's. That gap is the signal.
#
# Next: `03_distillation_loss`, how two predictions become a loss.

# %%
print(f"this notebook took {time.perf_counter() - began:.0f} s")
