"""What keeps a program in on this machine, found out by trying."""

from __future__ import annotations

import functools
import os
import select
import sys
from dataclasses import dataclass, fields

from sdpo_lab.tasks.sandbox.pool import Worker


@dataclass(frozen=True)
class Isolation:
    """What keeps a program in.

    `files` to `environment` say in words what is kept, and what is not.
    """

    level: str  #: "strong": the kernel refuses all else; "weak": limits only; "none": nothing runs
    reason: str  #: why it is not strong, "" when it is
    files: str
    network: str
    processes: str
    memory: str
    time: str
    environment: str

    def __str__(self) -> str:
        head = f"isolation: {self.level}" + (f" ({self.reason})" if self.reason else "")
        rows = [f"{f.name:>12}: {getattr(self, f.name)}" for f in fields(self)[2:]]
        return "\n".join([head, *rows])


def isolation() -> Isolation:
    """What this machine offers.

    Starts a server that tries it, once per process (a fifth of a second); again where it did not
    start, which may pass.
    """
    if not hasattr(os, "fork") or not hasattr(select, "poll"):
        reason = f"{sys.platform} has no fork(); use Linux, WSL or a container"
        return describe_isolation("none", reason)
    try:
        reason = why_not_kept()
    except (OSError, EOFError) as error:
        reason = f"the server does not start here ({type(error).__name__}: {error})"
        return describe_isolation("none", reason)
    return describe_isolation("weak" if reason else "strong", reason)


@functools.cache
def why_not_kept() -> str:
    """Why a server cannot keep a program in here, "" when it can.

    Raises OSError or EOFError when it does not start.
    """
    worker = Worker({"seconds": 5.0, "memory_mb": 256, "strong": True})
    try:
        return worker.greeting()
    finally:
        worker.stop()


def describe_isolation(level: str, reason: str = "") -> Isolation:
    if level == "none":
        return Isolation(level, reason, *["nothing runs, so nothing is promised"] * 6)
    always = {
        "time": "kept: a program is killed from outside when its time is over",
        "environment": "kept: the environment is empty; "
        "what a program returns is compared in another process",
    }
    if level == "strong":
        return Isolation(
            level,
            reason,
            files="kept: the kernel refuses to open, remove or look at any file",
            network="kept: the kernel refuses sockets",
            processes="kept: the kernel refuses to start, signal or trace a process or a thread",
            memory="kept: the address space is limited by the kernel",
            **always,
        )
    return Isolation(
        level,
        reason,
        files="NOT kept: opening is made hard, removing is not; "
        f"a program has the rights of {user()}",
        network="NOT kept: sockets are made hard, not impossible",
        processes="NOT kept: starting one is limited, signals to others of the same user are not",
        memory="limited by the kernel"
        + (" (macOS ignores that limit)" if sys.platform == "darwin" else ""),
        **always,
    )


def user() -> str:
    """Whose rights a program has; a server that is started by root becomes nobody."""
    return "nobody (root, where that cannot be given up)" if os.geteuid() == 0 else "your user"
