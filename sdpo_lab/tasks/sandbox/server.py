"""The other side of `pool.py`: a program that forks a locked-down child for every attempt.

Standard library only, and started as a bare file.

Messages on descriptor 0, a socket to the parent, are a length of four bytes and that many bytes.
First goes a greeting, then every job is answered by how its child ended (one byte of `EXITED
SIGNALLED TIMEOUT FLOOD`, one of status) and what the child reported. A child reports in lines of
JSON: that the code is loaded (or why not), then the outcome of each input.

Nothing is kept from an attempt by hiding it: with `gc`, frames and `ctypes` it reaches all of its
process, including everything below. What it cannot do is make the kernel forget the filter, and
nothing in its process is worth having.
"""

import ctypes
import gc
import importlib
import json
import os
import platform
import random
import select
import signal
import struct
import sys
import time
import types
import warnings

if __name__ == "__main__":  # a bare file, which finds the one beside it only by its folder
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import protocol

    del sys.path[0], sys.modules["protocol"]  # no attempt can import from here
else:
    from sdpo_lab.tasks.sandbox import protocol

pack, unpack, write_all = protocol.pack, protocol.unpack, protocol.write_all

#: Bytes of a report for outcomes; the rest is for saying that there was too much.
MAX_OUTCOMES = 192 * 1024
FILENAME = "<attempt>"

#: What an attempt may import. Nothing can be opened later, so this includes what the rest imports
#: only when used.
PRELOADED = """
    __future__ math string itertools functools collections collections.abc re heapq bisect operator
    statistics random datetime typing dataclasses json copy enum fractions decimal numbers cmath
    array textwrap time calendar contextlib abc types unicodedata struct _strptime _pylong
    encodings.ascii encodings.latin_1 encodings.iso8859_1 encodings.cp437 encodings.cp1252
    encodings.utf_8_sig encodings.utf_16 encodings.utf_16_le encodings.utf_16_be encodings.utf_32
    encodings.utf_32_le encodings.utf_32_be encodings.unicode_escape encodings.raw_unicode_escape
    encodings.idna encodings.punycode
""".split()

# Every system call a program that only computes needs, by number on (x86_64, aarch64); -1 where
# there is none. All work on memory, clocks, the process's own signals, or descriptors that are
# open, and those are /dev/null and the report. `fstat` takes no path, `newfstatat` would.
# fmt: off
ALLOWED = {
    "read": (0, 63), "write": (1, 64), "writev": (20, 66), "close": (3, 57), "fstat": (5, 80),
    "lseek": (8, 62), "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215),
    "brk": (12, 214), "mremap": (25, 216), "madvise": (28, 233), "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132),
    "restart_syscall": (219, 128), "futex": (202, 98), "sched_yield": (24, 124),
    "getcpu": (309, 168), "rseq": (334, 293), "poll": (7, -1), "ppoll": (271, 73),
    "select": (23, -1), "pselect6": (270, 72), "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "gettimeofday": (96, 169), "time": (201, -1), "times": (100, 153), "getrusage": (98, 165),
    "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178), "getuid": (102, 174),
    "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177), "getrandom": (318, 278),
    "exit": (60, 93), "exit_group": (231, 94),
}
# fmt: on
#: {machine: (column above, AUDIT_ARCH of linux/audit.h)}
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
EPERM, PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 1, 22, 38

# -- the child --------------------------------------------------------------------------------


def build_filter():
    """The allowlist as a BPF program, or a text that says why there is none.

    Keep the returned object alive: it owns the memory.
    """
    if sys.platform != "linux":
        return f"system-call filters (seccomp) are a part of Linux, this is {sys.platform}"
    machine = platform.machine()
    if machine not in MACHINES or sys.maxsize < 2**32:
        return (
            "the list of allowed system calls is written for "
            f"{' and '.join(MACHINES)} of 64 bits, this is {machine}"
        )
    column, arch = MACHINES[machine]
    numbers = sorted(n[column] for n in ALLOWED.values() if n[column] >= 0)
    load, equal, give = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
    kill, errno, allow = 0x80000000, 0x00050000 | EPERM, 0x7FFF0000
    # another architecture (32-bit calls on x86_64) has other numbers: kill. x32 has the bit
    # 0x40000000, so it is not in the list
    code = [(load, 0, 0, 4), (equal, 1, 0, arch), (give, 0, 0, kill), (load, 0, 0, 0)]
    code += [(equal, len(numbers) - i, 0, n) for i, n in enumerate(numbers)]
    code += [(give, 0, 0, errno), (give, 0, 0, allow)]
    block = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *c) for c in code))
    program = ctypes.create_string_buffer(
        struct.pack("<HxxxxxxQ", len(code), ctypes.addressof(block))
    )
    program.block = block
    return program


def prctl(option: int, value: int, pointer: int = 0) -> None:
    if LIBC.prctl(option, value, pointer, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def lock_down(report: int, server: int, config: dict) -> None:
    """In the child: descriptor 3 for the report and no other, limits, then the filter.

    Raises OSError when the filter cannot be set.
    """
    for standard in (0, 1, 2):
        os.dup2(1, standard)  # the server's 1 is /dev/null
    os.dup2(report, 3)
    os.closerange(4, 64)
    if sys.platform == "linux":
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:
            os._exit(1)
    import resource

    limits = {"AS": config["memory_mb"] << 20, "CPU": int(config["seconds"]) + 2, "STACK": 8 << 20}
    limits |= {"FSIZE": 0, "CORE": 0, "NPROC": 0, "NOFILE": 4, "MEMLOCK": 0, "MSGQUEUE": 0}
    for name, value in limits.items():
        try:
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
        except (AttributeError, ValueError, OSError):  # no such limit here, or a lower one already
            if name == "AS" and config["strong"]:
                raise
    if config["strong"]:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        prctl(PR_SET_SECCOMP, 2, ctypes.addressof(FILTER))


def run_child(job: bytes, report: int, server: int, config: dict) -> None:
    """Never returns, whatever the attempt does to the stack."""
    status = 70
    try:
        lock_down(report, server, config)
        if job:
            status = 0
            run_attempt(json.loads(job), config["strong"])
        else:
            write_all(3, probe().encode())
    finally:
        os._exit(status)  # no handler of the attempt runs at exit


def run_attempt(job: dict, strong: bool) -> None:
    """Execute the code, call its function with every input, and report each outcome."""
    random.seed(0)  # the same attempt, the same verdict
    module = sys.modules["attempt"] = types.ModuleType("attempt")
    try:
        try:
            compiled = compile(unpack(job["code"]), FILENAME, "exec", dont_inherit=True)
        except ValueError as error:  # null bytes, lone surrogates; newer Pythons say SyntaxError
            raise SyntaxError(str(error)) from None
        exec(compiled, module.__dict__)
        if job["function"] not in module.__dict__:
            raise NameError(f"name {job['function']!r} is not defined")
        function = module.__dict__[job["function"]]
    except BaseException as error:
        write_all(3, line({"all": describe(error, strong)}))
        return
    write_all(3, line({"loaded": True}))
    left = MAX_OUTCOMES
    for arguments in job["inputs"]:
        try:
            text = line({"value": pack(function(*unpack(arguments)))})
        except BaseException as error:
            text = line({"raised": describe(error, strong)})
        if len(text) > left:
            too_much = f"all values together take more than {MAX_OUTCOMES} bytes"
            text = line({"raised": ["OutputLimit", too_much, 0]})
        left -= len(text)
        write_all(3, text)


def line(data: object) -> bytes:
    return json.dumps(data).encode() + b"\n"


def describe(error: BaseException, strong: bool) -> list:
    """[kind, message, line]: the line of the last frame within the attempt's code, else 0."""
    try:
        kind, where, trace = type(error).__name__[:80], 0, error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == FILENAME:
                where = trace.tb_lineno or 0
            trace = trace.tb_next
        if not where and isinstance(error, SyntaxError):
            where = error.lineno or 0
        if strong and type(error) is PermissionError and error.errno == EPERM:
            refused = "there are no files, no network and no other processes here"
            return ["Forbidden", refused, where]
        try:
            text = str(error.msg if isinstance(error, SyntaxError) else error)
        except BaseException as second:
            text = f"<its message raised {type(second).__name__[:80]}>"
        text = (
            text[: protocol.MAX_MESSAGE - 3] + "..." if len(text) > protocol.MAX_MESSAGE else text
        )
        return [pack(kind), pack(text), where]
    except BaseException:  # no memory left, or a recursion limit that leaves no room even for this
        return ["MemoryError" if isinstance(error, MemoryError) else "Exception", "", 0]


def probe() -> str:
    """In a child: "kept" when the kernel refuses what it should, else what it did not."""
    tries = {
        "opening a file": lambda: os.open("/", os.O_RDONLY),
        "reading a file's size": lambda: os.stat("/"),
        "removing a file": lambda: os.unlink("/nowhere/nothing"),
        "a new process": os.fork,
        "another program": lambda: os.execv("/nowhere/nothing", ["nothing"]),
        "a signal": lambda: os.kill(os.getppid(), 0),
        "a pipe": os.pipe,
    }
    for name, call in tries.items():
        try:
            call()
        except PermissionError as error:
            if error.errno == EPERM:
                continue
        except OSError:
            pass
        return f"{name} was not refused"
    libc_tries = {
        "a socket": lambda: LIBC.socket(1, 1, 0),
        "tracing": lambda: LIBC.ptrace(0, 0, 0, 0),
    }
    for name, call in libc_tries.items():
        if call() != -1 or ctypes.get_errno() != EPERM:
            return f"{name} was not refused"
    return "kept"


# -- the server --------------------------------------------------------------------------------


def run(job: bytes, config: dict) -> bytes:
    """The answer to one job.

    Forks a child for it, and reads what that reports until it ends, takes too long or says too
    much; then it is gone.
    """
    reading, writing = os.pipe()
    server = os.getpid()
    pid = os.fork()
    if not pid:
        run_child(job, writing, server, config)
    os.close(writing)
    report, ended, deadline = bytearray(), None, time.monotonic() + config["seconds"]
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    poll.register(0, 0)  # only whether the parent has hung up
    while ended is None:
        left = deadline - time.monotonic()
        events = poll.poll(left * 1000) if left > 0 else []
        if any(descriptor == 0 for descriptor, _ in events):
            os.kill(pid, signal.SIGKILL)
            os._exit(0)
        chunk = os.read(reading, 1 << 16) if events else b""
        report += chunk
        if len(report) > protocol.MAX_REPORT:
            ended = protocol.FLOOD
        elif not chunk:
            ended = protocol.EXITED if events else protocol.TIMEOUT
    os.close(reading)
    # this changes nothing for a child that has begun to exit: its status is set before its
    # descriptors close
    os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if ended == protocol.EXITED and status < 0:
        ended = protocol.SIGNALLED
    return bytes([ended, abs(status)]) + bytes(report[: protocol.MAX_REPORT])


def greeting(config: dict) -> bytes:
    """Why the kernel does not keep a child in, "" when it does."""
    if isinstance(FILTER, str) or not config["strong"]:
        return FILTER.encode() if isinstance(FILTER, str) else b"no filter was asked for"
    report = run(b"", config | {"seconds": 5.0})[2:]
    if report == b"kept":
        return b""
    return report or (
        b"the system-call filter (seccomp) cannot be set here; "
        b"the container or the kernel forbids it"
    )


def main() -> None:
    config = json.loads(sys.argv[1])
    os.environ.clear()
    for name in PRELOADED:
        try:
            importlib.import_module(name)
        except ImportError:  # newer or older than this Python
            pass
    importlib.import_module("resource")
    sys.path.clear()  # what is not loaded is missing, rather than forbidden
    sys.path_importer_cache.clear()
    warnings.simplefilter("ignore")
    time.localtime()  # reads the time zone
    if os.geteuid() == 0:
        try:  # nobody: where there is no filter, between a nuisance and a disaster
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        except OSError:
            pass
    gc.collect()
    gc.freeze()  # children share these pages with the server as long as nobody writes to them
    try:
        write_all(0, protocol.message(greeting(config)))
        while True:
            write_all(
                0, protocol.message(run(protocol.read_message(lambda n: os.read(0, n)), config))
            )
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone, or done
        pass


if __name__ == "__main__":
    LIBC = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux":
        LIBC.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    FILTER = build_filter()
    main()
