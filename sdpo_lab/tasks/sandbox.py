"""Run programs that a model wrote, where they can do nothing but compute.

Every program runs in a process of its own, forked by a small server (`_sandbox_server.py`), under a filter by which the kernel
refuses every system call but those of a program that only computes: no files, no network, no processes, whatever the code is.
Time is kept from outside, by SIGKILL. The program gets the arguments of its tests and never what is expected; the caller compares.
A program can forge its report, but only to say what its function returned, so that gains nothing over returning it.

What it does not keep: a program learns the time, the version of Python, its process number, and it heats the processor.
"""

from __future__ import annotations

import functools
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections import deque
from dataclasses import dataclass, fields
from pathlib import Path

from sdpo_lab.errors import check_range
from sdpo_lab.tasks import _sandbox_server as server

MAX_CODE = 100_000  # characters of a program; more is not run
MAX_INPUTS = 256  # tests of a program
START_SECONDS = 30.0  # in which a server greets
GRACE_SECONDS = 10.0  # that a server may take over a program's time before it is replaced


@dataclass(frozen=True)
class Program:
    """`function(*arguments)` is called for every entry of `inputs`, in order, in one process in which `code` was executed once.

    Arguments are made of None, bool, int, float, str, list, tuple, dict and set; every call gets copies of its own.
    """

    code: str
    function: str
    inputs: tuple[tuple, ...]


@dataclass(frozen=True)
class Returned:
    """A value of exactly the builtin types above, as the function returned it (an int is no bool, nan is nan)."""

    value: object


@dataclass(frozen=True)
class Raised:
    """How a call failed.

    `kind` is the exception's type, or one of: "Timeout", "Killed" (the process ended or crashed), "MemoryError", "Unsupported" (the
    value's type), "OutputLimit" (too much, of whatever), "Forbidden" (the kernel refused a system call, or the report was
    spoilt). A call that was not reached, because one before it ended the process, has the kind of that one.
    """

    kind: str
    message: str  #: at most 300 characters
    line: int  #: 1-based, in the program's code: the last frame of the traceback that lies there; 0 where there is none
    source: str  #: the text of that line, without the spaces around it; at most 200 characters


@dataclass(frozen=True)
class Isolation:
    """What keeps a program in. "strong": the kernel refuses everything else; "weak": limits only; "none": programs cannot be run."""

    level: str
    reason: str  #: why it is not strong, "" when it is
    files: str
    network: str
    processes: str
    memory: str
    time: str
    environment: str

    def __str__(self) -> str:
        rows = [f"{f.name:>12}: {getattr(self, f.name)}" for f in fields(self)[2:]]
        return "\n".join([f"isolation: {self.level}" + (f" ({self.reason})" if self.reason else ""), *rows])


@functools.cache
def isolation() -> Isolation:
    """What this machine offers: starts a server that tries it, once per process (a fifth of a second)."""
    if not hasattr(os, "fork") or not hasattr(select, "poll"):
        return describe_isolation("none", f"{sys.platform} has no fork(); use Linux, WSL or a container")
    try:
        worker = Worker({"seconds": 5.0, "memory_mb": 256, "strong": True})
        try:
            reason = worker.greeting()
        finally:
            worker.stop()
    except (OSError, EOFError) as error:
        return describe_isolation("none", f"the server does not start here ({type(error).__name__}: {error})")
    return describe_isolation("weak" if reason else "strong", reason)


def describe_isolation(level: str, reason: str = "") -> Isolation:
    if level == "none":
        return Isolation(level, reason, *["nothing runs, so nothing is promised"] * 6)
    always = {"time": "kept: a program is killed from outside when its time is over",
              "environment": "kept: the environment is empty; what a program returns is compared in another process"}
    if level == "strong":
        return Isolation(level, reason, files="kept: the kernel refuses to open, remove or look at any file", network="kept: the kernel refuses sockets",
                         processes="kept: the kernel refuses to start, signal or trace a process or a thread",
                         memory="kept: the address space is limited by the kernel", **always)
    return Isolation(level, reason, files=f"NOT kept: opening is made hard, removing is not; a program has the rights of {user()}",
                     network="NOT kept: sockets are made hard, not impossible",
                     processes="NOT kept: starting one is limited, signals to others of the same user are not",
                     memory="limited by the kernel" + (" (macOS ignores that limit)" if sys.platform == "darwin" else ""), **always)


def user() -> str:
    """Whose rights a program has; a server that is started by root becomes nobody."""
    return "nobody (root, where that cannot be given up)" if os.geteuid() == 0 else "your user"


class Worker:
    """A server process and the socket to it. Its directory is removed as soon as it has started, so there is nothing to clean up."""

    def __init__(self, config: dict) -> None:
        self.socket, theirs = socket.socketpair()
        self.job: tuple | None = None  # what it is at: (program's index, message, tries)
        self.deadline = time.monotonic() + START_SECONDS
        self.greeted = False
        folder = tempfile.mkdtemp(prefix="sdpo_lab_sandbox_")
        # -I without -E, for the one variable: sets of strings have the same order in every server, so verdicts can be repeated
        environment = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}
        # some Pythons do not start without; the server empties all of it
        environment |= {k: os.environ[k] for k in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if k in os.environ}
        command = [sys.executable, "-s", "-P", "-S", "-B", str(Path(server.__file__).resolve()), json.dumps(config)]
        try:
            self.process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder,
                                            env=environment, start_new_session=True)
        except BaseException:
            self.socket.close()
            raise
        finally:
            theirs.close()
            os.rmdir(folder)

    def greeting(self) -> str:
        """Why the server cannot keep programs in, "" when it can. Raises OSError or EOFError when it is dead."""
        reason = self.read(START_SECONDS).decode("utf-8", "replace")
        self.greeted = True
        return reason

    def read(self, seconds: float) -> bytes:
        self.socket.settimeout(seconds)
        return server.read_message(self.socket.recv)

    def write(self, data: bytes, seconds: float) -> None:
        self.socket.settimeout(seconds)
        self.socket.sendall(data)

    def stop(self) -> None:
        """Kill the server and its child, which are a process group, and wait for it."""
        self.socket.close()
        if self.process.poll() is None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):  # then it goes by itself, since the socket is closed
                pass
            self.process.wait()

    def forget(self) -> None:
        """In a fork of the process that started it: leave it alone."""
        self.socket.close()
        self.process.returncode = 0  # it is not ours to wait for


class Pool:
    """The workers of a sandbox. Apart from it, so that they can be stopped when nobody holds the sandbox any more."""

    def __init__(self, size: int, config: dict) -> None:
        self.size, self.config = size, config
        self.workers: list[Worker] = []
        self.lock, self.closed, self.deaths = threading.Lock(), False, 0
        POOLS.add(self)

    def stop(self) -> None:
        while self.workers:
            self.workers[-1].stop()
            self.workers.pop()

    def forget(self) -> None:
        self.lock = threading.Lock()  # a thread that is not in this process may have held it
        for worker in self.workers:
            worker.forget()
        self.workers = []

    def run(self, messages: list[bytes | None]) -> list[bytes | None]:
        """The answer to every message; None for a message of None, and for a job at which two servers died."""
        answers: list[bytes | None] = [None] * len(messages)
        waiting = deque((i, m, 0) for i, m in enumerate(messages) if m is not None)
        self.deaths = 0
        while len(self.workers) < min(self.size, len(waiting)):
            self.workers.append(Worker(self.config))
        poll, by_descriptor = select.poll(), {}
        for worker in self.workers:
            self.watch(worker, poll, by_descriptor, waiting)
        while waiting or any(w.job for w in self.workers):
            at_work = [w for w in self.workers if w.job or not w.greeted]
            ready = poll.poll(max(0.0, min(w.deadline for w in at_work) - time.monotonic()) * 1000)
            late = [w for w in at_work if not ready and time.monotonic() >= w.deadline]
            for worker in [by_descriptor[d] for d, _ in ready] + late:
                try:
                    if worker in late:
                        raise TimeoutError
                    if not worker.greeted:
                        reason = worker.greeting()
                        if self.config["strong"] and reason:
                            raise RuntimeError(f"a server of the sandbox cannot keep programs in, although another one could: {reason}")
                    else:
                        data = worker.read(GRACE_SECONDS)
                        if worker.job:
                            answers[worker.job[0]] = data
                        worker.job = None
                        self.deaths = 0
                    self.give(worker, waiting)
                except (OSError, EOFError):
                    self.replace(worker, poll, by_descriptor, waiting)
        return answers

    def watch(self, worker: Worker, poll: select.poll, by_descriptor: dict, waiting: deque) -> None:
        poll.register(worker.socket, select.POLLIN)
        by_descriptor[worker.socket.fileno()] = worker
        if worker.greeted:
            try:
                self.give(worker, waiting)
            except OSError:
                self.replace(worker, poll, by_descriptor, waiting)

    def give(self, worker: Worker, waiting: deque) -> None:
        if waiting:
            worker.job = waiting.popleft()
            worker.deadline = time.monotonic() + self.config["seconds"] + GRACE_SECONDS
            worker.write(worker.job[1], GRACE_SECONDS)

    def replace(self, worker: Worker, poll: select.poll, by_descriptor: dict, waiting: deque) -> None:
        """Of a server that died or hangs (no program can do that; someone who is short of memory can). Its job is tried once more."""
        by_descriptor.pop(worker.socket.fileno())
        poll.unregister(worker.socket)
        worker.stop()
        self.workers.remove(worker)
        self.deaths += 1
        if worker.job:
            i, job, tries = worker.job
            if tries == 0:
                waiting.appendleft((i, job, 1))
        elif self.deaths > 3 * self.size:
            raise RuntimeError(f"the servers of the sandbox keep dying (the last one ended with {worker.process.returncode}); "
                               f"is there memory for {self.size}?")
        new = Worker(self.config)
        self.workers.append(new)
        self.watch(new, poll, by_descriptor, waiting)


POOLS: weakref.WeakSet[Pool] = weakref.WeakSet()


def forget_pools() -> None:
    for pool in list(POOLS):
        pool.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_pools)


class Sandbox:
    """Runs programs; see `run`. A context manager; also closed when it is collected, and when the interpreter exits.

    `seconds`    wall-clock time of a program, all its inputs together, 0.05 to 600
    `memory_mb`  address space of its process, 64 to 65536; the interpreter itself takes about 30 of it
    `workers`    programs at a time, 1 to 64; None is one for every core, at most 8
    `allow_weak` run where the isolation is not strong too, which puts your files at risk

    Threads may share one; their runs take turns. A fork has servers of its own. Raises RuntimeError where the isolation is not strong.
    """

    def __init__(self, *, seconds: float = 1.0, memory_mb: int = 256, workers: int | None = None, allow_weak: bool = False) -> None:
        check_range("seconds", seconds, float, 0.05, 600)
        check_range("memory_mb", memory_mb, int, 64, 65536)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = min(8, cores) if workers is None else workers
        check_range("workers", workers, int, 1, 64)
        self.isolation = isolation()
        if self.isolation.level == "none":
            raise RuntimeError(f"programs cannot be run in isolation here: {self.isolation.reason}.")
        if self.isolation.level != "strong" and not allow_weak:
            raise RuntimeError(
                f"programs that a model wrote cannot be isolated here: {self.isolation.reason}. Use Linux on x86_64 or aarch64 where "
                "seccomp is allowed; or, where nothing is worth keeping, allow_weak=True: then such a program can remove files, open "
                "connections and signal processes with the rights of "
                f"{user()}.\n{self.isolation}")
        self.seconds, self.memory_mb, self.workers = seconds, memory_mb, workers
        self._pool = Pool(workers, {"seconds": seconds, "memory_mb": memory_mb, "strong": self.isolation.level == "strong"})
        weakref.finalize(self, self._pool.stop)

    def run(self, programs: list[Program]) -> list[list[Returned | Raised]]:
        """An outcome for every input of every program, in order. Nothing that a program does raises here.

        Raises TypeError or ValueError for a `Program` that is none (see there; at most 256 inputs), RuntimeError when closed. After
        a KeyboardInterrupt no process is left, and the next run starts new ones.
        """
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


def message_of(program: Program) -> bytes | None:
    """The program as a message to a server; None when its code is too long to be run."""
    if not isinstance(program.code, str) or not isinstance(program.function, str):
        raise TypeError(f"code and function must be strings, got {type(program.code).__name__} and {type(program.function).__name__}")
    if len(program.inputs) > MAX_INPUTS:
        raise ValueError(f"a program has at most {MAX_INPUTS} inputs, got {len(program.inputs)}")
    for arguments in program.inputs:
        if not isinstance(arguments, (tuple, list)):
            raise TypeError(f"an input is a tuple of arguments, got {arguments!r}; write (x,) for one argument")
    inputs = [server.pack(tuple(arguments)) for arguments in program.inputs]
    if len(program.code) > MAX_CODE:
        return None
    code = program.code if encodes(program.code) else {"s": program.code.encode("utf-8", "surrogatepass").hex()}  # `pack` has lower limits
    return server.message(json.dumps({"code": code, "function": program.function, "inputs": inputs}).encode())


def encodes(text: str) -> bool:
    try:
        text.encode()
        return True
    except UnicodeEncodeError:
        return False


def outcomes(program: Program, message: bytes | None, answer: bytes | None, seconds: float) -> list[Returned | Raised]:
    """What a server's answer says about each input. The report in it is the program's own, so it may be anything."""
    n = len(program.inputs)
    if message is None:
        return [Raised("OutputLimit", f"the code has {len(program.code)} characters, more than {MAX_CODE}; it was not run", 0, "")] * n
    if answer is None or len(answer) < 2:
        return [Raised("Killed", "the process that ran it was killed twice", 0, "")] * n
    *lines, rest = answer[2:].split(b"\n", n + 1)
    first = parse(lines[0], program.code) if lines else None
    if isinstance(first, tuple):
        return [first[0]] * n
    found = [parse(line, program.code) for line in lines[1 : n + 1]]
    found = [Raised("Forbidden", "its report cannot be read: the program wrote to descriptors that are not its own", 0, "")
             if not isinstance(o, (Returned, Raised)) else o for o in found]
    if len(found) < n:
        where = f"on input {len(found) + 1} of {n}" if lines else "while the code was loaded"
        kind, why = fate(answer[0], answer[1], seconds)
        found.append(Raised(kind, f"{why} {where}", 0, ""))
        found += [Raised(kind, f"not reached: {why} {where}", 0, "")] * (n - len(found))
    return found


def fate(ended: int, status: int, seconds: float) -> tuple[str, str]:
    if ended == server.TIMEOUT:
        return "Timeout", f"no result within {seconds:g} s,"
    if ended == server.FLOOD:
        return "OutputLimit", f"more than {server.MAX_REPORT} bytes were reported"
    if ended == server.EXITED:
        return "Killed", f"the process ended itself with status {status}"
    try:
        name = signal.Signals(status).name
    except ValueError:
        name = f"signal {status}"
    return "Killed", f"the process was ended by {name}"


def parse(line: bytes, code: str) -> Returned | Raised | tuple[Raised] | None:
    """One line of a report: an outcome, a tuple of one when it is that of all inputs, None when it is something else."""
    try:
        ((tag, data),) = json.loads(line).items()
        if tag == "value":
            return Returned(server.unpack(data))
        if tag not in ("raised", "all"):
            return None
        kind, text, number = (server.unpack(d) for d in data)
        if type(kind) is not str or type(text) is not str or type(number) is not int:
            return None
        kind = kind if kind.isidentifier() and len(kind) <= 80 else "Exception"
        raised = Raised(kind, text[: server.MAX_MESSAGE], *line_of(code, number))
        return (raised,) if tag == "all" else raised
    except Exception:  # it may be anything, and raise anything: nested too deep, not UTF-8, a list as a key
        return None


def line_of(code: str, number: int) -> tuple[int, str]:
    """(number, text) of a line as Python counts them, (0, "") when there is no such line."""
    lines = re.split(r"\r\n|\r|\n", code) if number > 0 else []
    return (number, lines[number - 1].strip()[:200]) if 0 < number <= len(lines) else (0, "")
