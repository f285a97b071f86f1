"""The pre-training step on a CUDA device, as captured graphs (`make.py --device cuda`).

A model of a million parameters keeps a GPU busy for a fraction of what launching its kernels takes,
so a whole step (forward, backward, clipping, both optimisers) is captured once for each padded
length and then replayed. The arithmetic is that of the step on a CPU, in TF32 and in one part
instead of two.
"""

from __future__ import annotations

import torch

LENGTH_STEP = 64  #: batches are padded to a multiple of this many tokens


class GraphedStep:
    """`step(batch, learning_rate)` moves the model once and returns the loss as a tensor on the
    device, ().
    """

    def __init__(self, model: torch.nn.Module, optimizers: list, rate: torch.Tensor) -> None:
        self.model, self.optimizers, self.rate = model, optimizers, rate
        self.inputs: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}
        self.graphs: dict[tuple[int, int], tuple[torch.cuda.CUDAGraph, torch.Tensor]] = {}
        self.pool = None
        for p in model.parameters():
            p.grad = torch.zeros_like(p)

    def __call__(self, batch: list[tuple[list[int], list[int]]], rate: float) -> torch.Tensor:
        ids, labels = padded(batch)
        shape = tuple(ids.shape)
        if shape not in self.inputs:
            self.inputs[shape] = (ids.cuda(), labels.cuda())
        for held, new in zip(self.inputs[shape], (ids, labels)):
            held.copy_(new.pin_memory(), non_blocking=True)
        self.rate.fill_(rate)
        if shape not in self.graphs:
            self.capture(shape)
        graph, loss = self.graphs[shape]
        graph.replay()
        return loss.clone()

    def capture(self, shape: tuple[int, int]) -> None:
        """Record one step at this shape. The steps that warm it up are undone."""
        state = [p.detach().clone() for p in self.model.parameters()]
        moments = [
            (s, k, s[k].clone()) for o in self.optimizers for s in o.state.values() for k in s
        ]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                self.work(shape)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            loss = self.work(shape)
        self.pool = self.pool or graph.pool()
        with torch.no_grad():
            for p, old in zip(self.model.parameters(), state):
                p.copy_(old)
            for s, k, old in moments:
                s[k].copy_(old)
            if not moments:  # the first capture made the moments
                for o in self.optimizers:
                    for s in o.state.values():
                        for value in s.values():
                            value.zero_()
        self.graphs[shape] = graph, loss

    def work(self, shape: tuple[int, int]) -> torch.Tensor:
        """One step at `shape`: mean cross-entropy of the answer tokens, backward, clip, update."""
        ids, labels = self.inputs[shape]
        torch._foreach_zero_([p.grad for p in self.model.parameters()])
        hidden = self.model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        logits = self.model.lm_head(hidden).flatten(0, 1)  # (B (L-1), V)
        loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.detach()


def padded(batch: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, labels), each (B, L): right-padded to a multiple of `LENGTH_STEP`, -100 where nothing
    is learnt.
    """
    longest = max(len(p) + len(a) for p, a in batch)
    shape = len(batch), -(-longest // LENGTH_STEP) * LENGTH_STEP
    ids = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, -100)
    for i, (p, a) in enumerate(batch):
        ids[i, : len(p) + len(a)] = torch.tensor(p + a)
        labels[i, len(p) : len(p) + len(a)] = torch.tensor(a)
    return ids, labels
