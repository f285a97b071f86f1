# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A model learns from an error message
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/sdpo-lab/sdpo_lab/blob/main/notebooks/00_quickstart.ipynb)
#
# > **What you will see.** A small language model writes calls of an API whose argument names have changed. It fails nearly always. It is shown
# > the error messages its own attempts caused, and after half a minute to a minute of training it succeeds on requests it has never seen.
# >
# > **Time.** About a minute on 2 CPU cores, all cells; similar on a T4 (estimated: a model this small does not fill a GPU).
# >
# > **You need** to have seen a PyTorch training loop and a softmax. No reinforcement learning.
#
# The method is SDPO, *Self-Distillation Policy Optimization* ([arXiv 2601.20802](https://arxiv.org/abs/2601.20802)). In one sentence: the same
# model, shown what went wrong, scores its own attempt again token by token, and is then trained towards that better-informed self.
#
# **Where to go from here.** *Fifteen minutes:* this notebook, then the playground in `02_self_teacher`. *Step by step:* `01_credit_assignment`,
# `02_self_teacher`,
# `03_distillation_loss`, and `04_from_scratch`, which writes all of it from nothing. *With your hands on the knobs:* `05_live_training`. *Into the
# code:* [the rooms of `sdpo_lab/`](https://github.com/sdpo-lab/sdpo_lab#the-house), in the order data flows through them.

# %%
# On Colab this installs sdpo_lab; elsewhere it does nothing.
import importlib.util
import os

if "COLAB_RELEASE_TAG" in os.environ and importlib.util.find_spec("sdpo_lab") is None:
    get_ipython().run_line_magic("pip", "install -q 'sdpo_lab[widgets] @ git+https://github.com/sdpo-lab/sdpo_lab'")

# %%
import time

import sdpo_lab as lab

began = time.perf_counter()

# %% [markdown]
# ## 1. The small world
#
# The model is tiny and knows one thing: how to turn a request into a call. It was made from nothing on documents that are each a small world of
# their own. In one document the city argument of `weather` is called `city`, in the next `town` or `place`. So it has learned to *look around* for
# the names that hold here, and to fall back on the most common ones when it finds nothing.

# %%
model, tokenizer = lab.load_model()
print(f"{sum(p.numel() for p in model.parameters()):,} parameters on {model.device}")

# %% [markdown]
# The task fixes one such world, with some rare names: *the API was renamed*. `seed` says how.

# %%
task = lab.load_task("toolcall", seed=0)
problems = task.problems(8, split="train", seed=0)
for problem in problems[:3]:
    print(problem.messages[0]["content"], "\n   ->", task.solution(problem), "\n")

# %% [markdown]
# ## 2. It fails
#
# Eight attempts at one request, sampled at temperature 1. The calls are well formed, with the names the model is used to; ✗ marks those the API
# refuses.

# %%
problem = problems[0]
attempts = lab.rollout(model, tokenizer, [problem], num_generations=8, seed=0)
for a in attempts:
    verdict = task.judge(problem, a.text)
    print("✓" if verdict.reward == 1 else "✗", a.text)

# %% [markdown]
# How often does it succeed on requests that are kept for testing? An evaluation samples in four ways: one attempt at temperature 1 (that is
# `float(before)`), one at a
# lower temperature, the single most likely answer (greedy), and eight attempts of which at least one must be right (pass@8, on an eighth of the
# requests, at least 32). In brackets: 95 % intervals.

# %%
before = lab.SDPOTrainer(model, tokenizer, task).evaluate(256)
print(before)

# %% [markdown]
# ## 3. It is told why
#
# Each failed attempt gets a message, as from any validator: what is wrong, and which names are accepted, in alphabetical order. Which name goes where
# is not said. That has to be understood. (How much a message says is a dial of the task, `feedback=0` to `3`; this is setting 2, the default.)

# %%
failed = next(a for a in attempts if task.judge(problem, a.text).reward < 1)
feedback = task.judge(problem, failed.text).feedback
print(failed.text)
print(feedback)

# %% [markdown]
# ## 4. The same model, shown the message
#
# Now the step that gives SDPO its name. We put the message into the prompt and let *the same model* score *the same attempt* again. Nothing new is
# written: for each token we compare two probabilities, of the **student** (who saw only the request) and of the **self-teacher** (who also saw
# the message).
#
# Before you run the next cell: which token will the teacher lower most? (In the picture, click a token or walk with the arrow keys: below it stands
# what
# student and teacher would rather write there.)

# %%
credit = lab.credit(model, tokenizer, problem, failed, feedback=feedback)
credit

# %% [markdown]
# How sharp is that judgement?

# %%
lowered = int(credit.advantages.argmin())
others = [abs(float(a)) for t, a in enumerate(credit.advantages) if t != lowered]
print(f"most lowered: {credit.tokens[lowered]!r}, by {-float(credit.advantages[lowered]):.2f} nats")
print(f"every other token moved by at most {max(others):.2f} nats")

# %% [markdown]
# One sentence of text has become a judgement of each token. A reward would have said only: zero. This is the whole prompt the teacher read:

# %%
print(credit.teacher_prompt)

# %% [markdown]
# ## 5. One step
#
# Training moves the student's probabilities towards the teacher's, at every token. One step takes 8 requests with 8 attempts each, and makes one
# update. An attempt is shown the success of another attempt at the same request (a *sibling*), if there is one; a failed attempt without such a
# sibling is shown its error message. An
# attempt that can be shown neither is left out; the others are *active*. Our request and its eight attempts, as a step would see them (click a row's
# attempt to unfold its tokens):

# %%
lab.views.group_view(model, tokenizer, attempts, task=task)

# %%
trainer = lab.SDPOTrainer(model, tokenizer, task, lab.SDPOConfig.preset("laptop"))
record = trainer.step()
print(f"{len(record.rollouts)} attempts: {record.metrics['success_fraction']:.0%} succeeded")
print(f"{record.metrics['active_fraction']:.0%} are active")

# %% [markdown]
# The attempt and the token from above, scored again:

# %%
again = lab.credit(model, tokenizer, problem, failed, feedback=feedback)
for name, c in (("before", credit), ("after one step", again)):
    probability = float(c.student_log_probs[lowered].exp())
    print(f"{name:>14}: the student writes {c.tokens[lowered]!r} with probability {probability:.3f}")

# %% [markdown]
# ## 6. Half a minute
#
# The same step again and again. `reward` is the share of fresh attempts that succeed, *before* each update; `entropy` (in nats) falls as the model
# becomes sure of the new names.

# %%
history = trainer.train(steps=39)
columns = ["reward", "loss", "active_fraction", "entropy"]
history.to_frame()[columns].iloc[[0, 9, 19, 29, 39]].round(3)

# %% [markdown]
# And on the requests kept for testing, which no training step has seen? (The assertion holds this notebook to its promise.)

# %%
after = trainer.evaluate(256)
print("before:", before)
print("after: ", after)
assert float(before) <= 0.15 and float(after) >= 0.85

# %% [markdown]
# Five of the test requests. What was learned are the names, not the answers:

# %%
unseen = task.problems(5, split="test", seed=1)
fresh = lab.rollout(model, tokenizer, unseen, num_generations=1, seed=1)
for a in fresh:
    print("✓" if task.judge(a.problem, a.text).reward == 1 else "✗", a.text)

# %% [markdown]
# ## 7. Against rewards alone
#
# GRPO is the usual way to train on verdicts: attempts that did better than their siblings are made likelier, as a whole. It sees the reward and not
# the message. Here it is the same trainer with one setting, `distillation_weight=0`. A third arm is paid for every right argument, so that its reward
# says more than yes or no. (A *convention* is one way of naming the arguments: a `seed` of the task.)
#
# These runs were **recorded**: five conventions that no setting was chosen on, the same number of attempts for all, each method at the learning
# rate that ended best on other conventions (five values tried for each GRPO, four for SDPO). One more arm is SDPO with the messages switched off: it
# sees exactly what
# GRPO sees. The run above repeats one of the five on your machine, up to step 40 of 60.

# %%
from sdpo_lab.experiments import recorded

runs = {
    "SDPO": recorded("quickstart", name="sdpo", feedback=2),
    "SDPO without messages": recorded("quickstart", name="sdpo", feedback=0),
    "GRPO": recorded("quickstart", name="grpo"),
    "GRPO paid per argument": recorded("quickstart", name="grpo-shaped"),
}
drawn = {f"{label}, recorded": runs[label] for label in list(runs)[:3]}
lab.views.compare({**drawn, "SDPO, just now": history})

# %% [markdown]
# How many attempts did each need until four of five succeeded (mean over five steps), and how accurate was it at the end?

# %%
def attempts_until(run, share=0.8):
    success = lab.views.smooth([row["success_fraction"] for row in run.rows], 5)
    step = next((i for i, s in enumerate(success, 1) if s >= share), None)
    return step * run.config["generation_batch_size"] if step else float("inf")


def show(label, group):
    needed = sorted(attempts_until(run) for run in group)[len(group) // 2]
    ends = " ".join(f"{run.evaluations[-1]['accuracy']:.2f}" for run in group)
    print(f"{label:<36} {needed:>6} attempts (median); accuracy {ends}")


for label, group in runs.items():
    show(label, group)

# %% [markdown]
# Everybody gets somewhere. With the messages SDPO needs about half the attempts it needs without them, and about a third of GRPO's. Being paid for
# each argument does not help GRPO here. Without messages SDPO sees what GRPO sees, namely which siblings succeeded, and still needs fewer: a success
# that is shown says what to write, token by token, and not only that it was right. The rest of the gap is the *text*: it says at each failure what a
# reward can only tell by contrast.
#
# ## 8. The one picture: bits per attempt
#
# How much *can* be learned from one attempt? Here that can be counted, because we know how worlds are made: go through every convention there could
# be, weigh it by how
# common it is, and ask what the API would have answered. The more evenly the answers split, the more an answer tells.

# %%
from sdpo_lab.tasks.toolcall.bits import expected_bits

asked = task.problems(25, split="train", seed=2)
tries = lab.rollout(lab.load_model()[0], tokenizer, asked, num_generations=2, seed=2)
says = {0: "nothing", 1: "what is wrong", 2: "that, and all accepted names", 3: "that, and its right name"}


def mean_bits(level):
    return sum(expected_bits(t.problem, t.text, level) for t in tries) / len(tries)


bits = {"reward alone": mean_bits(None)} | {f"dial {d}: {says[d]}": mean_bits(d) for d in (1, 2, 3)}
lab.views.Bars("What one attempt can tell about the convention", bits, "bits",
               f"mean over {len(tries)} attempts of the model before training")

# %% [markdown]
# The default message tells several times as much as a scalar, about the same attempt. Setting 2 lists *all* accepted names, setting 3 only the right
# name of the *first*
# wrong argument, so it tells less. Bits are what *could* be learned. What SDPO makes of them, recorded on the same five conventions:

# %%
for level, words in says.items():
    show(f"dial {level}: {words}", recorded("quickstart", name="sdpo", feedback=level))

# %% [markdown]
# At setting 1 a message only excludes a name, and saves no attempts: this model has hardly learnt to read "not this one" (`02_self_teacher` measures
# it), and a teacher without
# memory would not add the exclusions up either. At setting 3 the right
# name stands in the message, so a regular expression could use it. Setting 2 is the default: the names are there, their places are not.
#
# ## What you have seen
#
# 1. An environment's text, put into the prompt, turns a model into its own better-informed teacher.
# 2. The teacher needs to write nothing: it scores the tokens that are there, and so says *where* an attempt went wrong.
# 3. Training towards it moves what was in the message into the weights; afterwards the message is not needed any more.
#
# **Try it.** Change `seed` in `load_task` for another renamed API, or `feedback=1` for messages that only exclude, and run all cells again. (The
# assertion of section 6 is made for the default setting; let it fail.) Next: `01_credit_assignment`, or turn the knobs while a model learns:
# `05_live_training`.

# %%
print(f"this notebook took {time.perf_counter() - began:.0f} s")
