# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Which token is to blame?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/sdpo-lab/sdpo_lab/blob/main/notebooks/01_credit_assignment.ipynb)
#
# > **What you will see.** How a model learns from a reward alone, derived in a few cells: the log-derivative trick, a baseline, GRPO. Then a failed
# > attempt, and you are the teacher: you click the token you blame, the model takes your step, and it is scored beside the steps of GRPO, of SDPO
# > and of a teacher who knows all that can be known.
# >
# > **Time.** About a minute on 2 CPU cores, all cells; the same on a T4 (estimated: the notebook keeps to the CPU).
# >
# > **You need** a softmax and a PyTorch training loop, and to have seen `00_quickstart`. No reinforcement learning.
#
# Three small **exercises** are on the way. A check says what it thinks of your answer, and ours is in the folded cell below it. (Nothing breaks if
# you
# leave an exercise out.)

# %%
# On Colab this installs sdpo_lab; elsewhere it does nothing.
import importlib.util
import os

if "COLAB_RELEASE_TAG" in os.environ and importlib.util.find_spec("sdpo_lab") is None:
    get_ipython().run_line_magic("pip", "install -q 'sdpo_lab[widgets] @ git+https://github.com/sdpo-lab/sdpo_lab'")

# %%
import copy
import time

import pandas
import torch

import sdpo_lab as lab
from sdpo_lab.checks import credit_assignment as checks

began = time.perf_counter()
torch.set_num_threads(1)  # matrices this small are not worth a second core

# %% [markdown]
# ## 1. A reward has no gradient
#
# The smallest world there is: three buttons. A policy (three logits, a softmax) picks one, and a machine pays out.

# %%
logits = torch.tensor([0.8, 0.2, -0.5], requires_grad=True)
pays = torch.tensor([0.5, 0.7, 1.0])  # what each button pays; the policy does not know
print("probabilities:", [round(p, 2) for p in logits.softmax(0).tolist()])

# %% [markdown]
# We would like to raise the mean reward. With a loss we would call `backward()`. **Predict:** what happens here?

# %%
generator = torch.Generator().manual_seed(0)
action = torch.multinomial(logits.softmax(0), 1, generator=generator)
reward = pays[action]
try:
    reward.backward()
except RuntimeError as error:
    print(f"reward {reward.item():.1f}, but: {error}")

# %% [markdown]
# Drawing made a whole number of the probabilities, and a whole number has no slope: a slightly higher probability draws the same button. The machine
# itself is no help either. It is a judge, a compiler, an API; nobody can differentiate it.
#
# With three buttons there is a way round. The *mean* reward is a sum over all of them, and that sum has a gradient:

# %%
mean_reward = (logits.softmax(0) * pays).sum()
(exact,) = torch.autograd.grad(mean_reward, logits)
mean_reward = mean_reward.item()
print(f"mean reward {mean_reward:.3f}, gradient", [f"{g:+.4f}" for g in exact.tolist()])

# %% [markdown]
# Raise the third button, lower the first. But a language model with a thousand tokens has more answers of ten tokens than could ever be summed up. We
# need the same gradient from a few *draws*.
#
# ## 2. The log-derivative trick
#
# Write the gradient of that sum, and put $p/p$ into each term:
#
# $$\nabla\sum_a p(a)\,r(a)=\sum_a r(a)\,\nabla p(a)=\sum_a p(a)\;r(a)\,\frac{\nabla p(a)}{p(a)}=\mathbb E_{a\sim p}\bigl[\,r(a)\,\nabla\log
# p(a)\,\bigr]$$
#
# On the right stands a mean over draws. Only $\log p$ is differentiated, and the reward is just a number in front of it. The first step, by autograd:

# %%
gradients = torch.stack([torch.autograd.grad(logits.log_softmax(0)[a], logits)[0] for a in range(3)])
print(gradients)  # row a: the gradient of log p(a)

# %% [markdown]
# Row $a$ says how to make button $a$ likelier: raise its own logit, lower the others. The second step: weigh the rows with rewards. In the mean over
# the policy it must be the exact gradient, to rounding:

# %%
weighed = (logits.softmax(0)[:, None] * pays[:, None] * gradients).sum(0)
print("weighed:", [f"{g:+.6f}" for g in weighed.tolist()])
print("exact:  ", [f"{g:+.6f}" for g in exact.tolist()])

# %% [markdown]
# The third step: draw, and average what was drawn. **Predict:** are 10,000 draws enough for two digits?

# %%
drawn = torch.multinomial(logits.softmax(0).detach(), 10_000, replacement=True, generator=generator)
each = pays[drawn, None] * gradients[drawn]  # (10,000, 3), the estimates from single draws
for n in (10, 100, 1000, 10_000):
    print(f"{n:>6} draws:", [f"{g:+.4f}" for g in each[:n].mean(0).tolist()])
print("        exact:", [f"{g:+.4f}" for g in exact.tolist()])

# %% [markdown]
# Hardly: the error falls only with the square root of the number of draws, and by chance a longer run can be farther off. Right in the mean, and
# noisy. How noisy? 500 times over, the estimate for the third button from 1 to 256 draws. The band holds nine of ten
# estimates.

# %%
def estimates(weights, draws=256, times=500):
    """Estimates of the third component from the first 1, 2, ..., `draws` draws, (times, draws)."""
    generator = torch.Generator().manual_seed(1)
    a = torch.multinomial(logits.softmax(0).detach(), times * draws, replacement=True, generator=generator).view(times, draws)
    return (weights[a] * gradients[a, 2]).cumsum(1) / torch.arange(1, draws + 1)


def band(name, found):
    """Their mean after 4, 8, 12, ... draws, and where nine of ten of them lie."""
    low, mean, high = (x[3::4].tolist() for x in (found.quantile(0.05, 0), found.mean(0), found.quantile(0.95, 0)))
    return lab.views.Line(name, list(range(4, 257, 4)), mean, low, high)


truth = lab.views.Line("exact", [4, 256], [float(exact[2])] * 2)
plain = band("mean of 500 estimates", estimates(pays))
lab.views.Chart("Estimated gradient of the third logit", [plain, truth], "draws", "", (-0.2, 0.4))

# %% [markdown]
# In training nobody writes gradients by hand. One writes a loss whose gradient is the estimate, and lets `backward()` do the rest.
#
# **Exercise 1.** Write that loss: `logits` (K,), the buttons that were drawn (N,), what each paid (N,). Descent must raise what was rewarded.

# %%
def my_policy_loss(logits, actions, rewards):
    ...  # your line here


print(checks.check_policy_loss(my_policy_loss))


# %% [markdown]
# Our version is folded in JupyterLab and Colab: a click on the three dots, or on the title, opens it.

# %% cellView="form" jupyter={"source_hidden": true}
# @title Solution of exercise 1
def policy_loss(logits, actions, rewards):
    """A loss whose gradient is minus the estimated policy gradient: (K,), (N,), (N,) -> ()."""
    return -(rewards * logits.log_softmax(0)[actions]).mean()


print(checks.check_policy_loss(policy_loss))

# %% [markdown]
# ## 3. A baseline
#
# All three buttons pay something, so every draw says: *more of this*. Even the worst button is raised when it comes up; it is lowered only because
# the
# others are raised more. That is a detour, and the detour is noise.
#
# Subtract one number $b$ from all rewards. The mean does not change, because the rows weighed with the probabilities alone add up to nothing:

# %%
print("mean of the rows:", [f"{abs(x):.6f}" for x in (logits.softmax(0)[:, None] * gradients).sum(0).tolist()])

# %% [markdown]
# So the estimate stays right whatever $b$ is, and the noise does not stay. **Predict:** what is a good $b$?

# %%
for b in (0.0, 0.3, 0.6, 0.9):
    each = (pays[drawn] - b)[:, None] * gradients[drawn]  # (10,000, 3), again from single draws
    print(f"b = {b}: mean", [f"{g:+.3f}" for g in each.mean(0).tolist()], f"spread {each.std(0).norm():.3f}")
print("exact:      ", [f"{g:+.3f}" for g in exact.tolist()], f"mean reward {mean_reward:.3f}")

# %% [markdown]
# The mean reward, or near it: then a draw that was better than usual is raised, and a draw that was worse is lowered. Reward minus baseline is called
# the **advantage**. Drawn, with and without:

# %%
plain, centred = band("rewards", estimates(pays)), band("rewards minus their mean", estimates(pays - mean_reward))
lab.views.Chart("The same estimate, the same draws", [plain, centred, truth], "draws", "", (-0.2, 0.4))

# %% [markdown]
# ## 4. GRPO: the group is the baseline
#
# A language model meets another request each time, with another mean reward. How is that mean to be known? GRPO makes **several attempts at each
# request**, a *group*, and takes the mean of the group.
#
# **Exercise 2.** Write it: rewards (P, G) of P requests with G attempts each to advantages (P, G).

# %%
def my_group_advantages(rewards):
    ...  # your line here


print(checks.check_group_advantages(my_group_advantages))


# %% cellView="form" jupyter={"source_hidden": true}
# @title Solution of exercise 2
def group_advantages(rewards):
    """Each reward minus the mean of its own group: (P, G) -> (P, G)."""
    return rewards - rewards.mean(1, keepdim=True)


print(checks.check_group_advantages(group_advantages))

# %% [markdown]
# (The own reward is part of that mean. This makes the gradient shorter by the factor $(G-1)/G$ and does not turn it. The first version of GRPO also
# divided by the standard deviation; here, as in the SDPO paper, it does not.)
#
# Now the real model and the API of the quickstart, with some argument names it hardly ever writes. 32 requests, eight attempts at each:

# %%
model, tokenizer = lab.load_model(device="cpu")
task = lab.load_task("toolcall", seed=0)
attempts = lab.rollout(model, tokenizer, task.problems(32, split="train", seed=0), num_generations=8, seed=0)
for a in attempts:
    verdict = task.judge(a.problem, a.text)
    a.reward, a.feedback = verdict.reward, verdict.feedback
groups = [attempts[i : i + 8] for i in range(0, len(attempts), 8)]
rewards = torch.tensor([[a.reward for a in group] for group in groups])  # (P, G)
advantages = group_advantages(rewards)

# %% [markdown]
# A group in which something went right and something went wrong. We look for one with a failed attempt that has a single wrong name; it will be
# needed
# soon.

# %%
from sdpo_lab.tasks.toolcall.written import written_names


def one_wrong_name(a):
    """Did the attempt fail by a single argument name?"""
    names = written_names(task, a.problem, lab.credit(model, tokenizer, a.problem, a))
    return a.reward < 1 and sum(not name.right for name in names) == 1


place = next(i for i, g in enumerate(groups) if 1 <= rewards[i].sum() <= 3 and any(map(one_wrong_name, g)))
group = groups[place]
failed = next(filter(one_wrong_name, group))
problem = failed.problem
print(problem.messages[-1]["content"], "\n")
for a, advantage in zip(group, advantages[place]):
    print(f"{advantage:+.3f}", a.text)

# %% [markdown]
# ## 5. One number for all tokens
#
# An attempt is a dozen draws in a row, and its log-probability is the sum of theirs. So the estimator gives **every token of an attempt the same
# advantage**. Here is what GRPO tells the model about the failed attempt, token by token. **Predict:** which of these tokens deserve it?

# %%
judged = float(advantages[place][group.index(failed)])
tokens = lab.credit(model, tokenizer, problem, failed).tokens
print(" ".join(f"{token.strip()}({judged:+.2f})" for token in tokens))

# %% [markdown]
# Most of it was right: the tool, the brackets, the other names. All of it is lowered alike. This is not wrong: in the mean over very many attempts
# the
# blame that right tokens get is made up for by attempts in which they helped. But it is slow.
#
# One thing softens it. The derivative of $\log p$ of a token with respect to its own logit is $1-p$: where the model is sure, credit moves next to
# nothing.

# %%
credit = lab.credit(model, tokenizer, problem, failed, feedback=failed.feedback, task=task)
names = [f"{t}: {token}" for t, token in enumerate(tokens)]
unsure = (1 - credit.student_log_probs.exp()).tolist()
lab.views.Bars("1 − p: how far credit can move the logit of each written token", dict(zip(names, unsure)))

# %% [markdown]
# In this small world nearly all that is open are the names. One that was right is blamed as much as one that was wrong.
#
# ## 6. Silence
#
# Where all attempts of a group fail, each is as good as the mean. **Predict:** in how many of the 32 groups has GRPO anything to say?

# %%
right = rewards.sum(1)
kinds = {"no attempt right": right == 0, "some right": (right > 0) & (right < 8), "all right": right == 8}
shares = {kind: float(found.float().mean()) for kind, found in kinds.items()}
lab.views.Bars("32 groups of eight attempts", shares, "of the groups")

# %%
silent = float((advantages == 0).all(1).float().mean())
print(f"{silent:.0%} of the groups: all advantages are zero, and so is the gradient")
assert 0.2 <= silent <= 0.95

# %% [markdown]
# A hard task is one where most groups are of that kind. It is also one where the environment has a lot to say: every one of those attempts came back
# with an error message.
#
# ## 7. Be the teacher
#
# This is the failed attempt, and what the API said of it:

# %%
print(failed.text)
print(failed.feedback)

# %% [markdown]
# You know more than the reward now. **Which tokens do you blame?** The wrong name is marked to begin with: to blame others without a click, change
# `blamed=`. Leave it,
# or press other tokens, then run the cells below (not this one: it would start over).

# %%
wrong_name = next(name for name in written_names(task, problem, credit) if name.reported)
blame = lab.views.Blame(tokens, blamed=wrong_name.tokens)
blame

# %% [markdown]
# What you pressed is at once in Python, as positions and as a mask. A blamed token gets the advantage −1, and the others 0.

# %%
print(blame)
print((0 - blame.mask).tolist())

# %% [markdown]
# Somebody else has read the same message: the model itself. `00_quickstart` showed its judgement, the self-teacher's
# $\log q-\log p$ of each token. And this task knows one more teacher. Its worlds come from a known recipe, so the **Bayes oracle** computes what
# *can* be
# concluded from the message: $-\infty$ stands for a name the message excludes, and NaN after it, since no right answer goes on from there.
#
# **Predict:** will the self-teacher blame the tokens you blame?

# %%
credits = {"GRPO": judged, "you": 0 - blame.mask, "SDPO": credit.advantages, "oracle": credit.oracle_advantages}
pandas.DataFrame(credits, index=names).round(2) + 0.0  # + 0.0 makes 0 of -0

# %% [markdown]
# Above zero means that the teacher would have been surer of this token than the student was; so it is for a name that the message confirms. GRPO
# lowers
# that one too.
#
# ## 8. From blame to a step
#
# One number a token becomes a loss as before: minus advantage times log-probability, and the mean over the tokens.
#
# **Exercise 3.** The model has read prompt and attempt in one go; `logits` (L, V) are its logits at all L places, of which the first `cut` are the
# prompt.
# `ids` (T,) are the tokens of the attempt, `advantages` (T,) their credit. Write the loss. (The logits at a place are about the *next* token.)

# %%
def my_credit_loss(logits, cut, ids, advantages):
    ...  # your lines here


print(checks.check_credit_loss(my_credit_loss))


# %% cellView="form" jupyter={"source_hidden": true}
# @title Solution of exercise 3
def credit_loss(logits, cut, ids, advantages):
    """The mean over an attempt's tokens of -advantage · log p: (L, V), number, (T,), (T,) -> ()."""
    log_probs = logits[cut - 1 : -1].log_softmax(-1)  # (T, V)
    return -(advantages * log_probs.gather(1, ids[:, None])[:, 0]).mean()


print(checks.check_credit_loss(credit_loss))

# %% [markdown]
# With it we can write the losses of all who give a number to each token that **was written**: GRPO, you, and the self-teacher.

# %%
from sdpo_lab.chat import encode_chat


def written(model, attempt, advantages):
    """The loss of one attempt under advantages (T,), or one number for all of them."""
    prompt = encode_chat(tokenizer, attempt.problem.messages)
    ids = torch.tensor(attempt.completion_ids)
    logits = model(torch.tensor([prompt + attempt.completion_ids])).logits[0]  # (L, V)
    return credit_loss(logits, len(prompt), ids, torch.as_tensor(advantages).expand(len(ids)))


def grpo(model, group):
    advantages = group_advantages(torch.tensor([[a.reward for a in group]]))[0]
    return sum(written(model, a, advantage) for a, advantage in zip(group, advantages))


print(f"the loss of your mask: {float(written(model, failed, 0 - blame.mask).detach()):.4f}")

# %% [markdown]
# The self-teacher can say more. At each token it has an opinion of the **whole vocabulary**: not only "less of this" but also "rather that". SDPO
# uses
# all of it, as a divergence between the two distributions (`03_distillation_loss` is about which; this is the one the quickstart trained with). The
# oracle's opinion goes in the same way; where it has none, the token is left out.

# %%
def towards(model, attempt, teacher):
    """The divergence from a teacher's log-probabilities (T, V), mean over the tokens it has an opinion of."""
    prompt = encode_chat(tokenizer, attempt.problem.messages)
    logits = model(torch.tensor([prompt + attempt.completion_ids])).logits[0]  # (L, V)
    student, known = logits[len(prompt) - 1 : -1].log_softmax(-1), ~teacher.isnan().any(1)
    return lab.losses.divergence(student[known], teacher[known], alpha=0.5).mean()


def oracle(attempt):
    """The oracle's log-probabilities (T, V), after the same message."""
    opinion = task.oracle_teacher(tokenizer, attempt.problem, attempt.completion_ids, feedback=attempt.feedback)
    return opinion.distribution(credit.student_distribution.shape[1])


print(f"the self-teacher's loss: {float(towards(model, failed, credit.teacher_distribution).detach()):.4f}")

# %% [markdown]
# Six losses for one failed attempt. GRPO stands there twice: with this attempt alone, to compare like with like, and with its whole group, which is
# what GRPO really uses. So does SDPO: with the written tokens alone, and with the whole vocabulary.

# %%
def losses_of(attempt, group, mask):
    c = lab.credit(model, tokenizer, attempt.problem, attempt, feedback=attempt.feedback)
    return {
        "GRPO, this attempt": lambda m: written(m, attempt, -1.0),
        "GRPO, its group": lambda m: grpo(m, group),
        "you": lambda m: written(m, attempt, -mask),
        "SDPO, written tokens": lambda m: written(m, attempt, c.advantages),
        "SDPO": lambda m: towards(m, attempt, c.teacher_distribution),
        "oracle": lambda m: towards(m, attempt, oracle(attempt)),
    }


ways = losses_of(failed, group, blame.mask)
print({name: round(float(loss(model).detach()), 3) for name, loss in ways.items()})

# %% [markdown]
# ## 9. One step each
#
# **What is fair?** The six losses have different scales, and −1 for a blamed token was our choice. A learning rate that suits one of them does not
# suit
# another. So nobody gets a learning rate. Each loss says a *direction* in the space of all weights, of length 1, and how far to go is decided by a
# price
# that is the same for all (nearly: the length is found by three tries, see the last column of the table).

# %%
def direction(loss):
    """The way down of a loss, a list of tensors whose common length is 1; all zero where the loss has no gradient."""
    weights = list(model.parameters())
    found = torch.autograd.grad(loss(model), weights, allow_unused=True)
    found = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, found)]
    return [-g / torch.stack([g.norm() for g in found]).norm().clamp(min=1e-9) for g in found]


def moved(way, length):
    """A copy of the model, `length` further that way."""
    learner = copy.deepcopy(model)
    with torch.no_grad():
        for w, d in zip(learner.parameters(), way):
            w += length * d
    return learner


directions = {name: direction(loss) for name, loss in ways.items()}

# %% [markdown]
# Before anybody moves: how alike are the directions? The cosine of two of them is 1 where they agree, and 0 where they have nothing to do with each
# other. **Predict:** whose step is most like yours?

# %%
def cosine(a, b):
    return float(sum((x * y).sum() for x, y in zip(a, b)))


lab.views.Bars("Cosine with your step", {name: cosine(way, directions["you"]) for name, way in directions.items()})

# %% [markdown]
# If you blamed the wrong name, the teacher's numbers for the written tokens ask for nearly your step. With the whole vocabulary it is another step.
#
# **The exam.** Ten other requests for the same tool say whether a name was learned or a sentence. Twelve requests for other tools say what was spent:
# nothing should change there, and we measure how far the predictions along their right answers have moved (KL, in nats an answer).
# *Right* is always the probability of a whole answer.

# %%
from sdpo_lab.scoring import completion_logits

unseen = task.problems(160, split="test", seed=1)


@torch.no_grad()
def answers(model, problems):
    """Log-probabilities along the right answers (B, T, V), and the probability of each whole answer (B,)."""
    right = [tokenizer(task.solution(p)).input_ids + [tokenizer.eos_token_id] for p in problems]
    scores = completion_logits(model, [encode_chat(tokenizer, p.messages) for p in problems], right).log_softmax(-1)
    return scores, torch.stack([s[range(len(ids)), ids].sum().exp() for s, ids in zip(scores, right)])


def exam(problem):
    """Ten requests for its tool, twelve for other tools, and what the model says of these before any step."""
    tool = problem.data["calls"][0]["tool"]
    same, other = ([p for p in unseen if (p.data["calls"][0]["tool"] == tool) == is_so] for is_so in (True, False))
    return same[:10], other[:12], answers(model, other[:12])[0]


# %% [markdown]
# **The price.** Everybody may spend the same elsewhere. A step's KL grows roughly with the square of its length, so the length that costs just that
# much is found
# with a few tries. (A loss without a gradient, such as GRPO's of a silent group, has no direction and takes no step.)

# %%
def cost(learner, questions):
    """KL, in nats an answer, between the model's predictions and the learner's on requests for other tools."""
    same, other, before = questions
    return float(lab.losses.kl(before, answers(learner, other)[0]).sum(1).mean())


def step(way, price, questions):
    """A copy of the model, moved that way as far as `price` allows."""
    length = 0.05
    for _ in range(3):
        length *= (price / max(cost(moved(way, length), questions), 1e-9)) ** 0.5
    return moved(way, length)


questions = exam(problem)
for length in (0.04, 0.08):
    spent = cost(moved(directions["you"], length), questions)
    print(f"your step at length {length} costs {spent:.4f} nats an answer")


# %% [markdown]
# Now the scores. **Predict:** does the probability of the right answer rise with your step?

# %%
def score(learner, attempt, name, questions):
    """Probabilities after a step; `name` is the one that was wrong."""
    after = lab.credit(learner, tokenizer, attempt.problem, attempt).student_log_probs[list(name.tokens)].sum().exp()
    return {
        "wrong name": float(after),
        "right, this request": float(answers(learner, [attempt.problem])[1]),
        "right, same tool": float(answers(learner, questions[0])[1].mean()),
        "KL, other tools": cost(learner, questions),
    }


table = {"before": score(model, failed, wrong_name, questions)}
table |= {name: score(step(way, 0.05, questions), failed, wrong_name, questions) for name, way in directions.items()}
pandas.DataFrame(table).T.round(3)

# %% [markdown]
# Read it column by column.
#
# * **The wrong name** becomes rarer with everybody who says "less of this". Blame works.
# * **The right answer** gains nothing from blame alone, it rather loses. What is taken from one name has to go somewhere, and blame does not say
#   where: it
#   goes to whatever the model finds likely anyway, and what this API wants instead is rare. *You said where. You did not say what instead.*
# * **With an alternative** it rises many times over: from the teacher's whole vocabulary, from the oracle's, and from GRPO's group, where the right
#   answer stands among the siblings.
# * **Other requests** for the tool gain about as much as this one. A name was learned, not a sentence.

# %%
bars = {name: values["right, same tool"] for name, values in table.items()}
title = "Right answer on other requests for the same tool, after one step"
lab.views.Bars(title, bars, note="each step costs about 0.05 nats an answer on other tools")

# %% [markdown]
# Where did it go? The model's four favourites in the place of the wrong name, and the right answer for comparison:

# %%
for who in ("before", "you", "SDPO"):
    learner = model if who == "before" else step(directions[who], 0.05, questions)
    favourites = lab.credit(learner, tokenizer, problem, failed).top(4, at=wrong_name.tokens[0])[0]["student"]
    print(f"{who:>6}:", ", ".join(f"{token} {p:.3f}" for token, p in favourites))
print(" right:", task.solution(problem))

# %% [markdown]
# ## 10. Was it luck?
#
# One attempt is an anecdote, and one price is one price. So the same for failed attempts of eight groups as they come, and for two prices. (Each has
# one wrong name, and the mask blames it.) **Predict:** what becomes of GRPO, now that nobody looks for a group with a success?

# %%
chosen = [(a, g) for g in groups if (a := next(filter(one_wrong_name, g), None))][:8]
print(f"{sum(any(x.reward == 1 for x in g) for _, g in chosen)} of {len(chosen)} groups have a success")

# %%
everyone, prices, rows = ("GRPO, its group", "you", "SDPO", "oracle"), (0.01, 0.05), []
for a, g in chosen:
    c = lab.credit(model, tokenizer, a.problem, a)
    name = next(n for n in written_names(task, a.problem, c) if n.reported)
    mask = torch.zeros(len(a.completion_ids))
    mask[list(name.tokens)] = 1
    theirs, questions = losses_of(a, g, mask), exam(a.problem)
    rows.append({"way": "before", "price": 0.0, **score(model, a, name, questions)})
    for who in everyone:
        way = direction(theirs[who])
        for price in prices:
            rows.append({"way": who, "price": price, **score(step(way, price, questions), a, name, questions)})
means = pandas.DataFrame(rows).groupby(["way", "price"]).mean()

# %%
def line(who, column):
    return lab.views.Line(who, [0.0, *prices], [means.loc["before"][column].item(), *means.loc[who][column]], points=True)


axis = "price: KL on other tools, nats an answer"
lab.views.Chart(title, [line(who, "right, same tool") for who in everyone], axis, "probability", (0, 1))

# %% [markdown]
# And how likely the wrong name still is:

# %%
lab.views.Chart("The wrong name, after one step", [line(who, "wrong name") for who in everyone], axis, "probability", (0, 1))

# %%
best = {who: float(means.loc[who]["right, same tool"].max()) for who in everyone}
print({who: round(p, 2) for who, p in best.items()})
assert best["SDPO"] > best["you"] + 0.1 and best["SDPO"] > best["GRPO, its group"] and best["SDPO"] > 0.5 * best["oracle"]

# %% [markdown]
# What can be read off:
#
# * **GRPO.** Where a group has a success its step is a good one, as in section 9; where it has none there is no step. Its curve is the mean of both.
# * **You.** Nobody gets rid of a wrong name faster. What is set free goes to the next likely names, and the right one is seldom among them. These
#   masks
#   blame exactly the right place, and it is not enough.
# * **SDPO and the oracle.** The oracle knows more and is ahead at the low price; at the high one the teacher is close behind it, and far ahead of
#   GRPO. From one failed
#   attempt and one sentence of text it then gets most of what there is to get. At the low price its mean is no better than GRPO's.
#
# ## 11. What a reward can still do
#
# Outcome credit is right in the limit: in the mean over enough attempts its gradient is that of the mean reward, but for its length, whoever wrote
# the
# messages and whatever they say, while a teacher who misreads a message is followed into the mistake. And it needs no text: a number for each
# attempt is
# enough, where nobody says why.
#
# The first of these claims once more, on the three buttons. A teacher who is sure of the wrong button, and the reward:

# %%
def climb(loss, steps=300, rate=0.5):
    """The mean reward after that many steps down a loss."""
    z = logits.detach().clone().requires_grad_()
    for _ in range(steps):
        (g,) = torch.autograd.grad(loss(z), z)
        z = (z - rate * g).detach().requires_grad_()
    return (z.softmax(0) * pays).sum().item()


generator, mistaken = torch.Generator().manual_seed(2), torch.tensor([0.9, 0.05, 0.05])


def by_reward(z):
    actions = torch.multinomial(z.softmax(0).detach(), 8, replacement=True, generator=generator)
    return policy_loss(z, actions, group_advantages(pays[actions][None])[0])


def by_teacher(z):
    return lab.losses.kl(z.log_softmax(0), mistaken.log())


print(f"mean reward at the start {mean_reward:.2f}")
print(f"with the mistaken teacher {climb(by_teacher):.2f}, with rewards {climb(by_reward):.2f}")

# %% [markdown]
# ## What you have seen
#
# 1. A reward has no gradient. The log-derivative trick makes one from draws; a baseline takes noise out of it and leaves its mean; GRPO's baseline
#    is the
#    group.
# 2. GRPO gives one number to all tokens of an attempt, and none where all attempts fail.
# 3. A text says more. Read by you it says *where*; read by a model it says *where* and *what instead*, for every token of the vocabulary.
#
# **Try it.** Press all tokens in section 7: whose step is yours now? Press only a right name: what happens to the right answer? Take `feedback=1` in
# `load_task`, where the message names the wrong argument but not the accepted ones: what does the teacher make of it, and what the
# oracle? (The assertion of section 10 is made for the default setting; let it fail.)
#
# How the teacher reads, and when it is wrong: `02_self_teacher`.

# %%
print(f"this notebook took {time.perf_counter() - began:.0f} s")
