# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The distillation loss
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/sdpo-lab/sdpo_lab/blob/main/notebooks/03_distillation_loss.ipynb)
#
# > **What you will see.** How far a student is from its teacher, measured by hand on five words; which way a step pushes each word, and why that
# > push is an *advantage*;
# > what goes wrong when the teacher gets a gradient, or when words are left out; and in the end three ways of handing out credit, on the same real
# > attempts.
# >
# > **Time.** Less than a minute on 2 CPU cores, all cells; the same on a T4 (estimated: the notebook keeps to the CPU).
# >
# > **You need** to have seen `00_quickstart`, a PyTorch training loop and a softmax. No reinforcement learning, and no KL divergence.
#
# In the quickstart a teacher, who had read an error message, looked at a student's attempt again. Training then moved the student towards the
# teacher, token by token. This notebook is about the word *towards*. Three exercises are on the way; our solutions are folded in the cells below
# them.

# %%
# On Colab this installs sdpo_lab; elsewhere it does nothing.
import importlib.util
import os

if "COLAB_RELEASE_TAG" in os.environ and importlib.util.find_spec("sdpo_lab") is None:
    get_ipython().run_line_magic("pip", "install -q 'sdpo_lab[widgets] @ git+https://github.com/sdpo-lab/sdpo_lab'")

# %%
import html
import math
import re
import time

import torch

import sdpo_lab as lab
from sdpo_lab import checks

began = time.perf_counter()
torch.set_num_threads(1)  # matrices this small are not worth a second core


# %% [markdown]
# A helper that draws a table of numbers, blue above zero and orange below. There is nothing to be learned in it, so it is folded.

# %% cellView="form" jupyter={"source_hidden": true}
# @title Helper: a table of coloured numbers
class Grid:
    """Rows of numbers under common column names; the colour is full at `full`, by default at the largest number."""

    def __init__(self, columns, rows, full=None, digits=2):
        self.columns, self.digits = list(columns), digits
        self.rows = {name: [float(v) for v in values] for name, values in rows.items()}
        self.full = full or max(abs(v) for values in self.rows.values() for v in values) or 1.0

    def cell(self, value):
        strength = 0.75 * min(abs(value) / self.full, 1)
        colour = f"rgba({'0,114,178' if value > 0 else '213,94,0'},{strength:.2f})"
        return f'<td style="text-align:right;padding:3px 6px;background:{colour}">{round(value, self.digits) + 0.0:.{self.digits}f}</td>'  # + 0.0: no "-0.00"

    def _repr_html_(self):
        names = "".join(f'<th scope="col" style="text-align:right;padding:3px 6px;font-family:monospace">{html.escape(c)}</th>' for c in self.columns)
        rows = "".join(f'<tr style="background:none"><th scope="row" style="text-align:left;padding:3px 12px 3px 0;font-weight:400;white-space:nowrap">{html.escape(name)}</th>'
                       f'{"".join(map(self.cell, values))}</tr>' for name, values in self.rows.items())
        return (f'<div style="overflow-x:auto"><table style="border-collapse:collapse;font-size:13px;margin:0;color:inherit">'
                f'<thead><tr style="background:none"><td></td>{names}</tr></thead><tbody>{rows}</tbody></table></div>')

    def __repr__(self):
        return "\n".join(f"{name}: " + ", ".join(f"{c} {v:.{self.digits}f}" for c, v in zip(self.columns, values)) for name, values in self.rows.items())


# %% [markdown]
# ## 1. Five words
#
# A model has begun a call, `order(item='pens', `, and now writes the name of the second argument. It knows many names. The student would mostly write
# `count`. The API does not want that, and says: `unexpected keyword argument 'count' (accepted: item, quantity)`. The teacher has read this.
#
# Here are their probabilities at that one place. We made the numbers up, and pretend that the vocabulary has five words. (Section 11 has the real
# ones.)

# %%
words = ["count", "number", "pieces", "quantity", "amount"]
student = torch.tensor([0.55, 0.25, 0.12, 0.06, 0.02])
teacher = torch.tensor([0.02, 0.05, 0.04, 0.87, 0.02])
Grid(words, {"student": student, "teacher": teacher})

# %% [markdown]
# ## 2. How far apart?
#
# If a word has probability $p$, call $-\log p$ the **surprise** at reading it: 0 at a word that was certain, large at a rare one. (With the natural
# logarithm its unit is the *nat*.) At each word student and teacher are surprised differently:

# %%
p, q = student.tolist(), teacher.tolist()
surprise = {"student": [-math.log(a) for a in p], "teacher": [-math.log(b) for b in q]}
Grid(words, surprise | {"teacher - student": [math.log(a) - math.log(b) for a, b in zip(p, q)]})


# %% [markdown]
# Now let somebody write words, and average that last row over them (with its sign turned where the teacher writes). That is the **Kullback-Leibler
# divergence** (KL): how much
# more surprised than the writer is the other one by the writer's words? It is never negative, and 0 only where the two agree.
#
# It matters who writes. In **reverse KL**, KL(student‖teacher), the student does; in **forward KL**, KL(teacher‖student), the teacher.

# %%
def kl(writer, other):
    return sum(w * (math.log(w) - math.log(o)) for w, o in zip(writer, other))


print(f"reverse, KL(student || teacher): {kl(p, q):.3f} nats")
print(f"forward, KL(teacher || student): {kl(q, p):.3f} nats")

# %% [markdown]
# Two directions, two numbers. **Predict:** each sum has five terms, and in each one word gives nearly all. Which words?

# %%
Grid(words, {
    "reverse: p (log p - log q)": [a * math.log(a / b) for a, b in zip(p, q)],
    "forward: q (log q - log p)": [b * math.log(b / a) for a, b in zip(p, q)],
})


# %% [markdown]
# Reverse KL dwells on what the student *writes and should not*; forward KL on what it *should write and does not*.
#
# **Jensen-Shannon** asks neither. It compares both with their mixture $m = (1-\alpha)\,p + \alpha\,q$ and mixes the two answers:
# $(1-\alpha)\,\mathrm{KL}(p\Vert m) + \alpha\,\mathrm{KL}(q\Vert m)$. With $\alpha = 1/2$ both count the same.

# %%
def jensen_shannon(p, q, alpha=0.5):
    m = [(1 - alpha) * a + alpha * b for a, b in zip(p, q)]
    return (1 - alpha) * kl(p, m) + alpha * kl(q, m)


distances = {"reverse KL": kl(p, q), "forward KL": kl(q, p), "Jensen-Shannon, α = 0.5": jensen_shannon(p, q)}
lab.views.Bars("From the student to the teacher", distances, "nats")

# %% [markdown]
# ## 3. A family of teachers
#
# Let the teacher become surer step by step: from the student's own opinion (0) to `quantity` and nothing else (1).
#
# **Predict:** the three curves start at 0. Which of them has a ceiling, and which has none?

# %%
certain = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0])
sure = [i / 200 for i in range(200)] + [0.999, 0.9999, 0.99999]
family = [((1 - s) * student + s * certain).tolist() for s in sure]
lines = [lab.views.Line("reverse KL", sure, [kl(p, t) for t in family]),
         lab.views.Line("forward KL", sure, [kl(t, p) for t in family]),
         lab.views.Line("Jensen-Shannon, α = 0.5", sure, [jensen_shannon(p, t) for t in family])]
lab.views.Chart("From the student to teachers who are ever surer", lines, "how sure the teacher is", "nats")

# %% [markdown]
# Reverse KL has no ceiling: the student writes `count`, and a teacher who excludes it is surprised without bound. Forward KL ends at the student's
# surprise at `quantity`. Jensen-Shannon can not exceed $\log 2$ for any two distributions, because the mixture gives every word at least half of the
# probability that either of the two gives it.

# %%
sharp = family[-1]
print(f"at {sure[-1]}: reverse {kl(p, sharp):.2f}, forward {kl(sharp, p):.2f}, Jensen-Shannon {jensen_shannon(p, sharp):.2f}")
print(f"the student's surprise at 'quantity': {-math.log(p[3]):.2f}; log 2 = {math.log(2):.2f}")

# %% [markdown]
# And $\alpha$? It moves the mixture, from the student (0) to the teacher (1). **Predict:** what is left near the ends?

# %%
alphas = [0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999]
print("  ".join(f"{a:g}: {jensen_shannon(p, q, a):.3f}" for a in alphas))

# %% [markdown]
# Nearly nothing: there the mixture *is* one of the two, and that one has the whole weight. So the paper's code and this package take the values at
# the ends as names for something else: `alpha=0` is forward KL, `alpha=1` reverse KL. Between 0.999 and 1 the loss jumps.
#
# The paper uses Jensen-Shannon ($\alpha$ = 0.5) where there is no rich feedback, and reverse KL where there is.
#
# ## 4. The idiom
#
# A network gives logits, not probabilities. `softmax` and then `log` looks harmless. **Predict** what it does to these two words:

# %%
far = torch.tensor([0.0, -200.0])
print("softmax, then log:", far.softmax(-1).log())
print("log_softmax:      ", far.log_softmax(-1))


# %% [markdown]
# The small probability was rounded to 0 before the logarithm saw it, and infinity in a loss makes NaN in the weights. So distributions are kept as
# log-probabilities all the way, and a KL is `exp` times difference, summed over the vocabulary. For a mixture, `logaddexp` adds probabilities that
# are given as logs.

# %%
def kl_from_logs(a, b):
    """KL(a || b) from log-probabilities, (..., V), (..., V) -> (...)."""
    return (a.exp() * (a - b)).sum(-1)


log_p, log_q = student.log(), teacher.log()
middle = torch.logaddexp(log_p + math.log(0.5), log_q + math.log(0.5))
shannon = (kl_from_logs(log_p, middle) + kl_from_logs(log_q, middle)) / 2
idiom = [kl_from_logs(log_p, log_q), kl_from_logs(log_q, log_p), shannon]
print([f"{x:.6f}" for x in torch.stack(idiom).tolist()], "from logs")
print([f"{x:.6f}" for x in distances.values()], "by hand")

# %% [markdown]
# The package's own loss takes logits of shape (attempts, tokens, vocabulary). Ours are one attempt of one token, whose word is `count`:

# %%
ids = torch.tensor([[words.index("count")]])  # (B, T) = (1, 1)
p_logits, q_logits = log_p[None, None], log_q[None, None]  # (1, 1, 5)
theirs = [lab.losses.distillation_loss(p_logits, q_logits, ids, mode="full_logits", alpha=a) for a in (1, 0, 0.5)]
theirs = torch.cat(theirs).flatten()
print([f"{x:.6f}" for x in theirs.tolist()], "lab.losses")
assert torch.allclose(theirs, torch.tensor(list(distances.values())), atol=1e-6)


# %% [markdown]
# ## 5. A teacher with two peaks
#
# Why care which one? A student that can take *any* shape ends at the teacher's with all three. But networks can not do everything at once, and then
# the loss decides what to give up. So here is a student who can only draw a single bump. Forty-one words stand in a row; the teacher likes two
# places, the left one more.

# %%
places = torch.arange(41.0)


def bump(centre, width):
    """Log-probabilities of a bell over the places, (..., 41)."""
    return (-(((places - centre) / width) ** 2) / 2).log_softmax(-1)


two_peaks = torch.logaddexp(bump(12.0, 2.0) + math.log(0.6), bump(28.0, 2.0) + math.log(0.4))


# %% [markdown]
# The student has two numbers, centre and width, and learns them by gradient descent, from three starts at once. **Predict:** where does each
# divergence put the bump?

# %%
def fit(alpha, steps=600):
    """Three students, started at 12, 20 and 28: their log-probabilities (3, 41) and losses (3,)."""
    centre = torch.tensor([[12.0], [20.0], [28.0]], requires_grad=True)
    log_width = torch.full((3, 1), math.log(3.0), requires_grad=True)
    optimizer = torch.optim.Adam([centre, log_width], lr=0.2)
    for _ in range(steps):
        losses = lab.losses.divergence(bump(centre, log_width.exp()), two_peaks, alpha)
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
    return bump(centre, log_width.exp()).detach(), losses.detach()


fits = {"forward KL": fit(0), "reverse KL": fit(1), "Jensen-Shannon": fit(0.5)}

# %%
best = {name: students[losses.argmin()] for name, (students, losses) in fits.items()}
drawn = {"teacher": two_peaks} | best
lines = [lab.views.Line(name, places.tolist(), logs.exp().tolist()) for name, logs in drawn.items()]
lab.views.Chart("The best single bump, by three divergences", lines, "place", "probability")

# %% [markdown]
# Forward KL **covers**: leaving a peak out would surprise the student at what the teacher writes, so it rather puts mass where nobody wants it.
# Reverse KL **seeks**: words in the gap would surprise the teacher, so it takes one peak and is silent about the other. (The curves of reverse KL and Jensen-Shannon
# nearly lie on each other.) The losses at the end, by start:

# %%
for name, (students, losses) in fits.items():
    tops = ", ".join(f"{loss:.2f} (top at {int(s.argmax())})" for s, loss in zip(students, losses))
    print(f"{name:>15}: {tops}")

# %% [markdown]
# Forward KL has one valley, and covers from every start. Reverse KL and Jensen-Shannon have a valley at each peak and one between: which is found
# depends on the start. But for Jensen-Shannon the covering bump is only a little worse than the best one, and for reverse KL it is much worse. In
# this sense Jensen-Shannon stands between the two.
#
# Which is better? For an answer that must be right, one peak is: a bump between two names may sit on a third, wrong one.
#
# ## 6. Which way does a step push?
#
# A loss is used through its gradient. We ask for the one with respect to the *logits* $z$, a number for each word. A step of descent goes against it:
# it moves every logit by minus its gradient, times the learning rate. From here on the tables call this its **push**: blue is raised, orange is
# lowered.
#
# **Predict** for reverse KL on our five words: which are lowered, which are raised, and which most?

# %%
z = log_p.clone().requires_grad_()  # log-probabilities are logits too: softmax gives back p
loss = kl_from_logs(z.log_softmax(-1), log_q)
loss.backward()
Grid(words, {"student": student, "teacher": teacher, "push": -z.grad}, full=1)

# %% [markdown]
# `count` is lowered and `quantity` raised. But `number` is raised too, although the teacher likes it less than the student does. There is a formula
# behind this. Differentiating $\sum_v p_v(\log p_v - \log q_v)$ through the softmax gives
#
# $$\frac{\partial\,\mathrm{KL}(p\Vert q)}{\partial z_k} = p_k\,\Bigl(\log\frac{p_k}{q_k} - \mathrm{KL}(p\Vert q)\Bigr)$$
#
# In words: how much more than the student is the teacher surprised at this word, *compared with an average word of the student*, times how often the
# student writes it. Here it is mostly `count` that makes the average, and compared with that `number` is good.
#
# **Exercise 1.** Write it for log-probabilities `p` and `q` of shape (T, V), for all places and words at once, without autograd.

# %%
def my_gradient(p, q):
    ...  # your lines here


print(checks.check_gradient(my_gradient))


# %% [markdown]
# Our version is folded in JupyterLab and Colab: a click on the three dots, or on the title, opens it.

# %% cellView="form" jupyter={"source_hidden": true}
# @title Solution of exercise 1
def gradient(p, q):
    """Of KL(p || q) with respect to the logits of p, from log-probabilities, (T, V), (T, V) -> (T, V)."""
    ratio = p - q
    return p.exp() * (ratio - (p.exp() * ratio).sum(-1, keepdim=True))


print(checks.check_gradient(gradient))

# %% [markdown]
# Against autograd, and beside the push of forward KL, whose gradient is simply $p_k - q_k$. The rows sum to 0: a number added to all logits changes
# no probability.

# %%
by_formula = gradient(log_p[None], log_q[None])[0]
assert torch.allclose(by_formula, z.grad, atol=1e-6)
Grid(words, {"push of reverse KL": -by_formula, "push of forward KL": teacher - student}, full=1)

# %% [markdown]
# They even disagree about `number`. The largest difference is at what the student hardly writes. Make `quantity` ever rarer for the student.
# **Predict** how strongly each loss still raises it:

# %%
for rare in (0.06, 0.01, 0.001, 0.0001):
    p_rare = torch.tensor([0.61 - rare, 0.25, 0.12, rare, 0.02])
    reverse = -gradient(p_rare.log()[None], log_q[None])[0, 3]
    print(f"p(quantity) = {rare:<6}: pushed by {reverse:.4f} (reverse KL), {q[3] - rare:.4f} (forward KL)")

# %% [markdown]
# The factor $p_k$ makes reverse KL blind to words the student never writes. That is a price of the direction SDPO takes; what it gets for it is the
# next section.
#
# ## 7. The gradient is an advantage
#
# In reinforcement learning one says of every word how much better than average it was, its **advantage** $A$, and makes good words likelier: the
# *policy gradient* descends on $-A \log p$, averaged over words the student writes, with $A$ held fixed. No divergence in sight. Take as advantage
# what the teacher thinks of a word against what the student thinks:
#
# $$A_k = \log q_k - \log p_k$$

# %%
advantage = log_q - log_p
z = log_p.clone().requires_grad_()
policy_loss = -(student * advantage * z.log_softmax(-1)).sum()  # averaged over the student's words
policy_loss.backward()
Grid(words, {"advantage": advantage, "push of the policy gradient": -z.grad, "push of reverse KL": -by_formula})

# %% [markdown]
# The two pushes are the same, word by word. This is Proposition 2.1 of the paper: **to distil with reverse KL is to do reinforcement learning, with
# an advantage for every word.** And the KL in our formula is minus the average advantage, the *baseline* that policy gradients subtract.

# %%
assert torch.allclose(z.grad, by_formula, atol=1e-6)
print(f"average advantage: {float((student * advantage).sum()):.3f}; reverse KL: {kl(p, q):.3f}")

# %% [markdown]
# A warning from the paper's own history: its first version summed over all words *without* the weight $p_k$. **Predict** what that does to `number`,
# and to the word the student hardly writes, `quantity`.

# %%
unweighted = advantage - student * advantage.sum()
Grid(words, {"second version, right": -by_formula, "first version": unweighted})

# %% [markdown]
# `number` and `pieces` have changed their direction, and `quantity` gets many times the push. An average over the student's words needs the student's
# weights, or a draw by them; a plain loop over the vocabulary is something else.
#
# ## 8. Why the teacher is held fixed
#
# In SDPO student and teacher are one network with two prompts. So the loss could also fall by moving the *teacher*. Let both be free, once with the
# teacher's gradient stopped and once without. **Predict** where the two meet.

# %%
def train(stopped, steps=60, rate=0.5):
    """Probability of "quantity" for student and teacher, and the loss, step by step."""
    z_student, z_teacher = log_p.clone().requires_grad_(), log_q.clone().requires_grad_()
    optimizer = torch.optim.SGD([z_student, z_teacher], lr=rate)
    seen = []
    for _ in range(steps):
        a, b = z_student.log_softmax(-1), z_teacher.log_softmax(-1)
        loss = kl_from_logs(a, b.detach() if stopped else b)
        seen.append((a[3].exp().item(), b[3].exp().item(), loss.item()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [list(values) for values in zip(*seen)]


# %%
(s_stop, t_stop, l_stop), (s_free, t_free, l_free) = train(stopped=True), train(stopped=False)
drawn = {"teacher, stopped": t_stop, "its student": s_stop, "teacher, free": t_free, "student of the free one": s_free}
lines = [lab.views.Line(name, list(range(60)), values) for name, values in drawn.items()]
lab.views.Chart("Probability of `quantity`", lines, "step", "probability", (0, 1))

# %% [markdown]
# Without the stop the two meet half-way at best: the student has come up a little, and the teacher has *given up most of what the message said*. In
# a network the shortest way to a
# small loss may be to read the feedback less. And the loss does not tell. On the contrary:

# %%
print(f"loss after 5 steps: {l_free[5]:.2f} without the stop, {l_stop[5]:.2f} with it")
print(f"'quantity', the teacher: {t_free[0]:.2f} -> {t_free[-1]:.2f} without the stop, {t_stop[-1]:.2f} with it")
print(f"'quantity', the student: {s_free[0]:.2f} -> {s_free[-1]:.2f} without the stop, {s_stop[-1]:.2f} with it")
assert t_free[-1] < 0.5 < s_stop[-1]

# %% [markdown]
# ## 9. Fewer words: top-k and tail
#
# Real vocabularies are large, and a divergence wants both distributions at every token. The memory for 8 attempts of 512 tokens with 4 bytes a
# number:

# %%
for kept, vocabulary in (("all words", 152_000), ("top 20 and tail", 21)):
    print(f"{kept:>16}: {8 * 512 * vocabulary * 4 / 2**20:8.1f} MiB for each of the roles")


# %% [markdown]
# (The logits have to be computed once in any case, a portion of the tokens at a time. What need not be kept is all of them, for both roles.)
#
# So one keeps the student's $k$ likeliest words. What about the others? One way is to forget them and **renormalise** the $k$ to sum to 1. The other
# is to put them all in one bucket, the **tail**. **Predict:** with $k = 2$, `count` and `number`, what does each way still see of what the teacher
# wants?

# %%
def keep(log_probs, k, bucket):
    """The student's k likeliest words (ours are in that order), with the others in a bucket or forgotten."""
    kept = log_probs[:k].exp()
    parts = torch.cat([kept, 1 - kept.sum(0, keepdim=True)]) if bucket else kept / kept.sum()
    return parts.clamp(min=1e-7).log()


names = ["count", "number", "tail"]
Grid(names, {"student": keep(log_p, 2, True).exp(), "teacher": keep(log_q, 2, True).exp()}, full=1)

# %%
alone = {"student, renormalised": keep(log_p, 2, False).exp(), "teacher, renormalised": keep(log_q, 2, False).exp()}
Grid(names[:2], alone, full=1)

# %% [markdown]
# With the tail the student learns that it should write *something else*, though not what. Without it, it learns to write `number`, which is wrong as
# well. The loss for all k:

# %%
ks = [1, 2, 3, 4, 5]
with_tail = [float(kl_from_logs(keep(log_p, k, True), keep(log_q, k, True))) for k in ks]
without = [float(kl_from_logs(keep(log_p, k, False), keep(log_q, k, False))) for k in ks]
lines = [lab.views.Line("with the tail", ks, with_tail, points=True),
         lab.views.Line("renormalised", ks, without, points=True),
         lab.views.Line("all five words", [1, 5], [kl(p, q)] * 2)]
lab.views.Chart("Reverse KL over the student's k likeliest words", lines, "k", "nats", (0, 2.5))

# %% [markdown]
# With the tail the loss is a lower bound that grows with k. Renormalised it is 0 for k = 1, whatever the teacher says, and far too small as long as
# the right word is not among the k.
#
# A last trap is rounding. If the k words hold nearly everything, `1 - sum` subtracts two numbers that are almost equal. **Predict:** the words hold
# $e^{-10^{-6}}$, so about one millionth is left. Which line has lost digits?

# %%
inside = torch.tensor(-1e-6)  # log of the mass inside, float32
print("log(1 - exp(inside)):", float(torch.log(1 - inside.exp())))
print("log(-expm1(inside)): ", float(torch.log(-torch.expm1(inside))))
print("exact:               ", math.log(-math.expm1(-1e-6)))


# %% [markdown]
# `expm1(x)` is $e^x - 1$, computed without that subtraction. And where the words hold *all* mass, so that `inside` is 0, the log must not be reached:
# the bucket is given at least a ten-millionth.
#
# **Exercise 2.** Write the bucket for log-probabilities of shape (..., K) that do not sum to 1: the log of the mass that is missing, of shape (...,
# 1). Keep it finite.

# %%
def my_tail(log_probs):
    ...  # your lines here


print(checks.check_tail(my_tail))


# %% cellView="form" jupyter={"source_hidden": true}
# @title Solution of exercise 2
def tail(log_probs):
    """Log of the mass outside the given words, (..., K) -> (..., 1)."""
    inside = log_probs.logsumexp(-1, keepdim=True).clamp(max=-1e-7)
    return torch.log(-torch.expm1(inside))


print(checks.check_tail(tail))

# %% [markdown]
# With it, the package's top-k loss from our own pieces:

# %%
ours = kl_from_logs(torch.cat([log_p[:2], tail(log_p[:2])]), torch.cat([log_q[:2], tail(log_q[:2])]))
theirs = lab.losses.distillation_loss(p_logits, q_logits, ids, mode="topk_logits", top_k=2)
print(f"ours {float(ours):.6f}, lab.losses {float(theirs):.6f}")
assert torch.allclose(ours, theirs[0, 0], atol=1e-6)

# %% [markdown]
# ## 10. One word alone
#
# The thriftiest way keeps one word: the one that was **sampled**. Its loss is $-A_y \log p_y$, as in section 7, only that now a draw stands for the
# average. What would each of the five draws do? **Predict** what drawing `count` does to the other four.

# %%
one_hot = torch.eye(5)
estimates = advantage[:, None] * (one_hot - student)  # (5, 5): a row for each drawn word, its push on all
Grid(words, {f"draw {w} ({share:.0%})": row for w, share, row in zip(words, student.tolist(), estimates)})

# %% [markdown]
# Drawing `count` lowers `count`, and raises the others *in proportion to what the student thinks of them*: `number` most, not `quantity`. Only a draw
# of `quantity` itself raises it above the others. Weigh the five rows by how often they are drawn. **Predict** the sum.

# %%
Grid(words, {"average over the draws": student @ estimates, "all words at once": -by_formula})

# %% [markdown]
# The same: the estimate is **unbiased**. But it is noisy. Here is the average of n draws, for `number`, with the lowest and highest of a hundred runs
# as a band:

# %%
assert torch.allclose(student @ estimates, -by_formula, atol=1e-6)
chance = torch.Generator().manual_seed(0)
draws = torch.multinomial(student.expand(100, 5), 400, replacement=True, generator=chance)  # (runs, draws)
counts = torch.arange(1, 401)
averages = estimates[:, 1][draws].cumsum(-1) / counts  # (runs, draws)
low, high = averages.min(0).values.tolist(), averages.max(0).values.tolist()
n = counts.tolist()
lines = [lab.views.Line("one of the runs, all of them as a band", n, averages[0].tolist(), low, high),
         lab.views.Line("all words at once", [1, 400], [-float(by_formula[1])] * 2)]
lab.views.Chart("The push on `number`, from n sampled words", lines, "n", "push")

# %% [markdown]
# All words at once raise `number` a little. Where an average lies below 0, the step goes the wrong way. How often does that happen?

# %%
for size in (1, 8, 64, 400):
    print(f"n = {size:>3}: wrong sign in {float((averages[:, size - 1] < 0).float().mean()):.0%} of the runs")

# %% [markdown]
# In training every place of every attempt is a draw of its own, so much of the noise averages out over a batch; the rest costs steps. One thing
# more: the
# *value* of this loss means nothing. Only its gradient is an estimate.
#
# ## 11. Three levels of credit, on real attempts
#
# Now the model of the quickstart, and its task. The paper compares three levels, and so do we, on the same attempts:
#
# * **logit level**: every word at every token has its own advantage (sections 6 and 7);
# * **token level**: only the sampled words have one (section 10);
# * **sequence level**: the sampled words' advantages are averaged over the attempt, and all of its tokens get that one number.

# %%
model, tokenizer = lab.load_model(device="cpu")
task = lab.load_task("toolcall", seed=0)
attempts = lab.rollout(model, tokenizer, task.problems(16, seed=0), num_generations=8, seed=0)
verdicts = [task.judge(a.problem, a.text) for a in attempts]
failed = [(a, v.feedback) for a, v in zip(attempts, verdicts) if v.reward < 1 and "unexpected" in v.feedback]
print(f"{len(failed)} of {len(attempts)} attempts were refused for a name, such as")
print(failed[0][0].text, "\n" + failed[0][1])

# %% [markdown]
# The third level needs a few lines, and they are yours.
#
# **Exercise 3.** `p` and `q` are the log-probabilities that student and teacher gave the *sampled* tokens of a batch, both (B, T). Attempts differ in
# length: `mask` is 1 on an attempt's tokens and 0 after its end. Return the loss of every token, (B, T): $-\bar A \log p_t$, where $\bar A$ is the
# mean of $\log q_t - \log p_t$ over the attempt, held fixed.

# %%
def my_sequence_loss(p, q, mask):
    ...  # your lines here


print(checks.check_sequence(my_sequence_loss))


# %% cellView="form" jupyter={"source_hidden": true}
# @title Solution of exercise 3
def sequence_loss(p, q, mask):
    """The loss of every token at sequence level from the sampled tokens' log-probabilities, (B, T), (B, T), (B, T) -> (B, T)."""
    credit = ((q - p) * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True)  # (B, 1)
    return -credit.detach() * p


print(checks.check_sequence(sequence_loss))


# %% [markdown]
# `lab.credit` gives both roles' log-probabilities of all words along an attempt. From there on it is the loss of the package and autograd: what does
# a step of descent do to the logits?

# %%
def push(credit, mode):
    """What a step does to every logit, by the loss in that mode, (T, V)."""
    z = credit.student_distribution.clone().requires_grad_()
    q, ids = credit.teacher_distribution, torch.tensor(credit.completion_ids)
    lab.losses.distillation_loss(z[None], q[None], ids[None], mode=mode).sum().backward()
    return -z.grad


LEVELS = {"logit level": "full_logits", "token level": "sampled_token", "sequence level": "sequence"}

# %% [markdown]
# On the first refused attempt, the sequence level in our lines and in the package's:

# %%
first, said = failed[0]
credit = lab.credit(model, tokenizer, first.problem, first, feedback=said)
p_y, q_y, ids = credit.student_log_probs[None], credit.teacher_log_probs[None], torch.tensor([credit.completion_ids])
ours = sequence_loss(p_y, q_y, torch.ones_like(p_y))
both = credit.student_distribution[None], credit.teacher_distribution[None]  # (1, T, V) each
theirs = lab.losses.distillation_loss(*both, ids, mode="sequence")
print(f"largest difference: {float((ours - theirs).abs().max()):.0e}")
assert torch.allclose(ours, theirs, atol=1e-5)

# %% [markdown]
# Now to look. First the advantages, three attempts on one scale. **Predict:** on which tokens does the token level put blame, and where does the
# sequence level?

# %%
shown = list({a.text: (a, said) for a, said in failed}.items())[:3]
for text, (a, said) in shown:
    c = lab.credit(model, tokenizer, a.problem, a, feedback=said)
    mean = c.advantages.mean().expand(len(c.tokens))
    print(said)
    display(Grid(c.tokens, {"token level": c.advantages, "sequence level": mean}, full=3))

# %% [markdown]
# The token level puts its blame on very few tokens, the name that the message refuses among them. The sequence level knows *that* the attempt was
# bad, and by how much; but every token gets the same blame, the right name too.
#
# At logit level the sampled token has the same advantage as at token level; its push is weighed with its probability and measured against the
# average. The great difference is in the *other* words. The first attempt again, at its
# most blamed token: what does a step do there to the words that either role would write?

# %%
at = int(credit.advantages.argmin())
roles = {"student": credit.student_distribution[at].exp(), "teacher": credit.teacher_distribution[at].exp()}
likely = (roles["student"] + roles["teacher"]).topk(5).indices
pushes = {f"push, {name}": push(credit, mode)[at] for name, mode in LEVELS.items()}
print(f"at {credit.tokens[at]!r} of {credit.text!r}")
Grid([tokenizer.decode([i]) for i in likely.tolist()], {name: row[likely] for name, row in (roles | pushes).items()})

# %% [markdown]
# Token and sequence level lower the word that was written. All other words rise in proportion to what the student thinks of them. The logit level
# judges every word, drawn or not, and so only it says **what to write instead**.
#
# One attempt is an anecdote. So we take all of the refused ones, and for comparison the outcome alone, as in GRPO: the advantage of every token is
# the attempt's reward minus the mean of the group's. The tokens are sorted into those of names that the API accepts, of names that it does not, and
# the rest.

# %%
def kinds(credit, accepted):
    """For each token of an attempt "wrong name", "right name" or "other"."""
    names = [(m.start(1), m.end(1), m[1] in accepted) for m in re.finditer(r"(\w+)=", credit.text)]
    found = []
    for begin, end in credit.spans:
        inside = [right for a, b, right in names if begin < b and end > a]
        found.append("other" if not inside else "right name" if inside[0] else "wrong name")
    return found


# %%
mean_reward = {}
for a, v in zip(attempts, verdicts):
    mean_reward[a.problem.id] = mean_reward.get(a.problem.id, 0) + v.reward / 8

# %%
rows = {name: {"wrong name": [], "right name": [], "other": []} for name in [*LEVELS, "outcome (GRPO)"]}
for a, said in failed:
    c = lab.credit(model, tokenizer, a.problem, a, feedback=said)
    accepted = re.findall(r"(\w+)=", task.solution(a.problem))
    written = torch.tensor(c.completion_ids)[:, None]
    pushes = {name: push(c, mode).gather(1, written)[:, 0] for name, mode in LEVELS.items()}
    pushes["outcome (GRPO)"] = -mean_reward[a.problem.id] * (1 - c.student_log_probs.exp())
    for name, values in pushes.items():
        for kind, value in zip(kinds(c, accepted), values.tolist()):
            rows[name][kind].append(value)

# %% [markdown]
# **Predict** for each level: can it tell a wrong name from a right one? The push of a step on the logit of the written token, averaged:

# %%
means = {name: {kind: sum(v) / len(v) for kind, v in of.items()} for name, of in rows.items()}
Grid(["wrong name", "right name", "other"], {name: list(m.values()) for name, m in means.items()}, digits=3)

# %%
def share(values, sign):
    return sum(sign * v > 0.005 for v in values) / len(values)


for name, of in rows.items():
    down, up = share(of["wrong name"], -1), share(of["right name"], 1)
    print(f"{name:>15}: {down:4.0%} of the wrong names' tokens go down, {up:4.0%} of the right ones' go up")
assert means["token level"]["wrong name"] < 0 < means["logit level"]["right name"]
assert means["sequence level"]["right name"] < 0

# %% [markdown]
# Token and logit level can tell: on average a wrong name goes down, and a right one in the same attempt goes up. (At logit level not *every* wrong
# name goes down. As in section 6: beside a likelier name that is wrong too, it looks good.) At sequence level, and with the outcome alone, right
# names go down as well. Where these two still differ between the columns, it is because a token the student was sure of hardly moves, whatever one
# says of it; of names they know nothing. And where no sibling succeeds, the outcome says nothing at all:

# %%
hopeless = sum(mean_reward[a.problem.id] == 0 for a, _ in failed)
print(f"{hopeless} of the {len(failed)} refused attempts have no sibling that succeeded: GRPO's advantage is 0 there")

# %% [markdown]
# In the paper's comparison (its Figure 10) logit level ends above token level, token above sequence, and all three above GRPO. So the text helps even
# where its place in the attempt is thrown away, and the place helps besides.
#
# ## What you have seen
#
# 1. Reverse KL averages over what the student writes, forward KL over what the teacher would write; Jensen-Shannon compares both with their mixture
#    and stays below $\log 2$.
# 2. The gradient of reverse KL is a policy gradient with the advantage $\log q - \log p$ for every word. Its price: it does not see words the
#    student never writes.
# 3. The teacher is a target. With a gradient of its own it gives up most of what it was told.
# 4. Words can be left out if their mass is not; one sampled word is right on average.
# 5. Sequence, token and logit level say *that* an attempt was bad, *where*, and *what to write instead*.
#
# **Try it.** In section 11 take `feedback=1` in `load_task`: the message then names a wrong name and no accepted ones. How much blame and praise is
# left? (Let the assertions there fail: a teacher passes on what it understands.) Or set `teacher = student.flip(0)` in section 1: one assertion of
# this notebook fails then. Which, and why must all others hold? In training the levels are a setting, `distillation_mode` of `lab.SDPOConfig`.
#
# Next: `04_from_scratch`, which writes all of SDPO from nothing.

# %%
print(f"this notebook took {time.perf_counter() - began:.0f} s")
