"""The server processes of a sandbox, and who works at what."""

from __future__ import annotations

import json
import os
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
from pathlib import Path

from sdpo_lab.tasks.sandbox import protocol, server

START_SECONDS = 30.0  # in which a server greets
GRACE_SECONDS = 10.0  # that a server may take over a program's time before it is replaced


class Worker:
    """A server process and the socket to it.

    Its directory is removed as soon as it has started, so there is nothing to clean up.
    """

    def __init__(self, config: dict) -> None:
        self.socket, theirs = socket.socketpair()
        self.job: tuple | None = None  # what it is at: (program's index, message, tries)
        self.deadline = time.monotonic() + START_SECONDS
        self.greeted = False
        folder = tempfile.mkdtemp(prefix="sdpo_lab_sandbox_")
        # sets of strings have the same order in every server, so that verdicts can be repeated
        environment = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}
        # some Pythons do not start without these; the server empties all of it
        libraries = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
        environment |= {k: os.environ[k] for k in libraries if k in os.environ}
        # the options are -I without -E, which would ignore the environment
        options = ["-s", "-P", "-S", "-B"]
        path = str(Path(server.__file__).resolve())
        command = [sys.executable, *options, path, json.dumps(config)]
        try:
            self.process = subprocess.Popen(
                command,
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env=environment,
                start_new_session=True,
            )
        except BaseException:
            self.socket.close()
            raise
        finally:
            theirs.close()
            os.rmdir(folder)

    def greeting(self) -> str:
        """Why the server cannot keep programs in, "" when it can.

        Raises OSError or EOFError when it is dead.
        """
        reason = self.read(START_SECONDS).decode("utf-8", "replace")
        self.greeted = True
        return reason

    def read(self, seconds: float) -> bytes:
        self.socket.settimeout(seconds)
        return protocol.read_message(self.socket.recv)

    def write(self, data: bytes, seconds: float) -> None:
        self.socket.settimeout(seconds)
        self.socket.sendall(data)

    def stop(self) -> None:
        """Kill the server and its child, which are a process group, and wait for it."""
        self.socket.close()
        if self.process.poll() is None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):  # it goes by itself: the socket is closed
                pass
            self.process.wait()

    def forget(self) -> None:
        """In a fork of the process that started it: leave it alone."""
        self.socket.close()
        self.process.returncode = 0  # it is not ours to wait for


class Pool:
    """The workers of a sandbox.

    Apart from it, so that they can be stopped when nobody holds the sandbox any more.
    """

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
        """The answer to every message; None for None, and for a job at which two servers died."""
        answers: list[bytes | None] = [None] * len(messages)
        waiting = deque((i, m, 0) for i, m in enumerate(messages) if m is not None)
        self.deaths = 0
        while len(self.workers) < min(self.size, len(waiting)):
            self.workers.append(Worker(self.config))
        poll, by_descriptor = select.poll(), {}
        for worker in list(self.workers):  # one that cannot be written to is replaced in between
            self.watch(worker, poll, by_descriptor, waiting)
        while waiting or any(w.job for w in self.workers):
            at_work = [w for w in self.workers if w.job or not w.greeted]
            ready = poll.poll(max(0.0, min(w.deadline for w in at_work) - time.monotonic()) * 1000)
            late = [w for w in at_work if not ready and time.monotonic() >= w.deadline]
            for worker in [by_descriptor[d] for d, _ in ready] + late:
                try:
                    if worker in late:
                        raise TimeoutError
                    self.receive(worker, answers)
                    self.give(worker, waiting)
                except (OSError, EOFError):
                    self.replace(worker, poll, by_descriptor, waiting)
        return answers

    def receive(self, worker: Worker, answers: list[bytes | None]) -> None:
        """Read what a worker has sent: its greeting, or the answer to its job."""
        if not worker.greeted:
            reason = worker.greeting()
            if self.config["strong"] and reason:
                raise RuntimeError(
                    "a server of the sandbox cannot keep programs in, although another one could: "
                    f"{reason}"
                )
            return
        data = worker.read(GRACE_SECONDS)
        if worker.job:
            answers[worker.job[0]] = data
        worker.job = None
        self.deaths = 0

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
            # a server that died before it had all of the job did not die of it
            worker.write(waiting[0][1], GRACE_SECONDS)
            worker.job = waiting.popleft()
            worker.deadline = time.monotonic() + self.config["seconds"] + GRACE_SECONDS

    def replace(
        self, worker: Worker, poll: select.poll, by_descriptor: dict, waiting: deque
    ) -> None:
        """Replace a server that died or hangs; its job is tried once more.

        No program can make it do so; who is short of memory can.
        """
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
            raise RuntimeError(
                "the servers of the sandbox keep dying (the last one ended with "
                f"{worker.process.returncode}); is there memory for {self.size}?"
            )
        new = Worker(self.config)
        self.workers.append(new)
        self.watch(new, poll, by_descriptor, waiting)


POOLS: weakref.WeakSet[Pool] = weakref.WeakSet()


def forget_pools() -> None:
    for pool in list(POOLS):
        pool.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_pools)
