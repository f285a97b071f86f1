"""Run programs that a model wrote, where they can do nothing but compute.

Every program runs in a process of its own, forked by a small server (`server.py`), under a filter
by which the kernel refuses every system call but those of a program that only computes: no files,
no network, no processes, whatever the code is. Time is kept from outside, by SIGKILL. The program
gets the arguments of its tests and never what is expected; the caller compares. A program can forge
its report, but only to say what its function returned, so that gains nothing over returning it.

What it does not keep: a program learns the time, the version of Python, its process number, and it
heats the processor.

    reports  a program as a message, an answer as outcomes      protocol  values and messages
    pool     the server processes, and who works at what        server    the other side
    levels   what this machine offers
"""

from __future__ import annotations

import os
import weakref

from sdpo_lab.core.checks import check_kind, check_range
from sdpo_lab.tasks.sandbox.levels import Isolation, isolation, user
from sdpo_lab.tasks.sandbox.pool import Pool
from sdpo_lab.tasks.sandbox.reports import Program, Raised, Returned, message_of, outcomes

__all__ = ["Isolation", "Program", "Raised", "Returned", "Sandbox", "isolation"]


class Sandbox:
    """Runs programs; see `run`. A context manager; also closed when it is collected, and at exit.

    `seconds`    wall-clock time of a program, all its inputs together, 0.05 to 600
    `memory_mb`  address space of its process, 64 to 65536; the interpreter itself takes about 30
    `workers`    programs at a time, 1 to 64; None is one for every core, at most 8
    `allow_weak` run where the isolation is not strong too, which puts your files at risk

    Threads may share one; their runs take turns. A fork has servers of its own. Raises RuntimeError
    where the isolation is not strong.
    """

    def __init__(
        self,
        *,
        seconds: float = 1.0,
        memory_mb: int = 256,
        workers: int | None = None,
        allow_weak: bool = False,
    ) -> None:
        check_range("seconds", seconds, float, 0.05, 600)
        check_range("memory_mb", memory_mb, int, 64, 65536)
        if workers is None:
            here = hasattr(os, "sched_getaffinity")  # not on macOS
            workers = min(8, len(os.sched_getaffinity(0)) if here else os.cpu_count() or 1)
        check_range("workers", workers, int, 1, 64)
        self.isolation = isolation()
        if self.isolation.level == "none":
            raise RuntimeError(
                f"programs cannot be run in isolation here: {self.isolation.reason}."
            )
        if self.isolation.level != "strong" and not allow_weak:
            raise RuntimeError(
                f"programs that a model wrote cannot be isolated here: {self.isolation.reason}. "
                "Use Linux on x86_64 or aarch64 where seccomp is allowed; or, where nothing is "
                "worth keeping, allow_weak=True: then such a program can remove files, open "
                f"connections and signal processes with the rights of {user()}.\n{self.isolation}"
            )
        self.seconds, self.memory_mb, self.workers = seconds, memory_mb, workers
        strong = self.isolation.level == "strong"
        self._pool = Pool(workers, {"seconds": seconds, "memory_mb": memory_mb, "strong": strong})
        weakref.finalize(self, self._pool.stop)

    def run(self, programs: list[Program]) -> list[list[Returned | Raised]]:
        """An outcome for every input of every program, in order; nothing a program does raises.

        Raises TypeError or ValueError for anything but a list of valid `Program`s, RuntimeError
        when closed. After a KeyboardInterrupt no process is left, and the next run starts new ones.
        """
        check_kind("programs", programs, (list, tuple), "a list of Program")
        for p in programs:
            check_kind("programs", p, Program, "a list of Program")
        messages = [message_of(p) for p in programs]
        pool = self._pool
        with pool.lock:
            if pool.closed:
                raise RuntimeError("this sandbox is closed; make a new one")
            try:
                answers = pool.run(messages)
            except BaseException:
                pool.stop()
                raise
        return [outcomes(p, m, a, self.seconds) for p, m, a in zip(programs, messages, answers)]

    def close(self) -> None:
        """Stop the servers; waits for a run in another thread. May be called again."""
        with self._pool.lock:
            self._pool.closed = True
            self._pool.stop()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
