"""Programs that mean harm: what they would use up, read or reach."""

from __future__ import annotations

import platform

from sdpo_lab.tasks.sandbox import (
    Returned,
)

C = """
import ctypes, platform
libc = ctypes.CDLL(None, use_errno=True)
def call(x86_64, aarch64, *arguments):
    number = x86_64 if platform_machine == 'x86_64' else aarch64
    result = libc.syscall(number, *arguments)
    return [result, ctypes.get_errno() if result == -1 else 0]
def text(s): return ctypes.c_char_p(s.encode())
""".replace(
    "import ctypes, platform\n", f"import ctypes\nplatform_machine = {platform.machine()!r}\n"
)
REFUSED = Returned([-1, 1])  # the system call failed with EPERM
ANY = ("Returned", "Timeout", "Killed", "OutputLimit", "Forbidden", "MemoryError", "Unsupported")
OPEN = "open_ = __import__('io').open\n"

# name: (code, what the calls must end as: a kind, one of several, or the very outcome, or that of
# each). f(folder, canary, pid of the parent, port of a server of ours)
RESOURCES: dict[str, tuple[str, object]] = {
    # time, memory, recursion
    "infinite loop": ("def f(*a):\n while True: pass", "Timeout"),
    "infinite loop at load": ("while True: pass", "Timeout"),
    "loop that catches everything": (
        "def f(*a):\n while True:\n  try:\n   while True: pass\n  except BaseException: pass",
        "Timeout",
    ),
    "sleep": ("import time\ndef f(*a): time.sleep(100)", "Timeout"),
    "one long operation in C": ("def f(*a): return 7 ** (10 ** 9)", ("Timeout", "MemoryError")),
    "long regular expression": (
        "import re\ndef f(*a): return bool(re.match('(a|aa)+$', 'a' * 60 + 'b'))",
        "Timeout",
    ),
    "signal handlers": (
        "import signal\nfor s in range(1, 65):\n try: signal.signal(s, signal.SIG_IGN)\n"
        " except (OSError, ValueError): pass\ndef f(*a):\n while True: pass",
        ("Timeout", "ModuleNotFoundError"),
    ),
    "signal handlers in C": (
        C + "for s in range(1, 65): libc.signal(s, ctypes.c_void_p(1))\ndef f(*a):\n"
        " while True: pass",
        "Timeout",
    ),
    "blocked signals": (
        C + "libc.sigfillset(m := ctypes.create_string_buffer(128)); libc.sigprocmask(0, m, "
        "None)\ndef f(*a):\n while True: pass",
        "Timeout",
    ),
    "alarm": (
        C + "def f(*a): return call(38, 103, 0, ctypes.create_string_buffer(32), None)",
        REFUSED,
    ),
    "timer": (
        C + "def f(*a): return call(222, 107, 0, None, ctypes.create_string_buffer(8))",
        REFUSED,
    ),
    "gigabytes": ("def f(*a): return len(bytearray(4 * 10**9))", ("MemoryError", "Timeout")),
    "many megabytes": (
        "def f(*a):\n x = []\n while True: x.append(bytearray(10**6))",
        ("MemoryError", "Timeout"),
    ),
    "many little objects": (
        "def f(*a):\n x = []\n while True: x = [x, x]",
        ("MemoryError", "Timeout", "Killed"),
    ),
    "memory in C": (
        C + "libc.mmap.restype = ctypes.c_void_p\nlibc.mmap.argtypes = [ctypes.c_void_p, "
        "ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]\n"
        "def f(*a): return libc.mmap(None, 10**10, 3, 0x22, -1, 0) == 2**64 - 1",
        Returned(True),
    ),
    "bytes(10**10)": ("def f(*a): return bytes(10**10)", ("MemoryError", "Timeout")),
    "list of 10**8": ("def f(*a): return [0] * 10**8", ("MemoryError", "Timeout")),
    "list of 10**7": ("def f(*a): return [0] * 10**7", ("OutputLimit", "Timeout")),
    "zip bomb": (
        "import zlib\ndef f(*a):\n d = zlib.compress(bytes(10**8))\n"
        " return zlib.decompress(d * 100)",
        ("ModuleNotFoundError", "MemoryError", "Timeout", "Unsupported"),
    ),
    "memory that is caught": (
        "def f(*a):\n x = []\n while True:\n  try: x.append(bytearray(10**6))\n"
        "  except MemoryError: pass",
        "Timeout",
    ),
    "recursion": ("def f(*a): return f(*a)", "RecursionError"),
    "recursion without a limit": (
        "import sys\nsys.setrecursionlimit(2**31 - 1)\ndef f(*a): return f(*a)",
        ("RecursionError", "MemoryError", "Killed", "Timeout"),
    ),
    "recursion in C": (
        "import sys\nsys.setrecursionlimit(2**31 - 1)\nclass A:\n"
        " def __getattr__(self, n): return getattr(self, n)\ndef f(*a): return A().x",
        ("RecursionError", "MemoryError", "Killed", "Timeout"),
    ),
    "deep repr": (
        "import sys\nsys.setrecursionlimit(10**8)\ndef f(*a):\n x = []\n"
        " for _ in range(10**6): x = [x]\n return len(repr(x))",
        ("RecursionError", "MemoryError", "Killed", "Timeout"),
    ),
    "deep destruction": (
        "def f(*a):\n x = None\n for _ in range(10**6): x = (x,)\n del x\n return 1",
        ("Returned", "Timeout", "Killed", "MemoryError"),
    ),
    "recursion limit of nearly nothing": (
        "import sys\ndef f(*a):\n sys.setrecursionlimit(12)\n return 1",
        ("RecursionError", "Returned", "Killed", "Exception"),
    ),
    # files
    "delete the canary": ("import os\ndef f(folder, canary, *a): os.unlink(canary)", "Forbidden"),
    "delete the folder": ("import os\ndef f(folder, *a): os.rmdir(folder)", "Forbidden"),
    "rename the canary": (
        "import os\ndef f(folder, canary, *a): os.rename(canary, canary + '2')",
        "Forbidden",
    ),
    "write a file": (
        OPEN + "def f(folder, *a): open_(folder + '/new', 'w').write('x')",
        "Forbidden",
    ),
    "write in the working directory": (
        "import os\ndef f(*a): os.open('new', os.O_CREAT | os.O_WRONLY)",
        "Forbidden",
    ),
    "append to the canary": (
        "def f(folder, canary, *a): open(canary, 'a').write('x')",
        "Forbidden",
    ),
    "truncate": ("import os\ndef f(folder, canary, *a): os.truncate(canary, 0)", "Forbidden"),
    "read the canary": ("def f(folder, canary, *a): return open(canary).read()", "Forbidden"),
    "read /etc/passwd": ("def f(*a): return open('/etc/passwd').read()", "Forbidden"),
    "look at a file": (
        "import os\ndef f(folder, canary, *a): return os.stat(canary).st_size",
        "Forbidden",
    ),
    "list a folder": ("import os\ndef f(folder, *a): return os.listdir(folder)", "Forbidden"),
    "the working directory": ("import os\ndef f(*a): return os.getcwd()", "Forbidden"),
    "chmod": ("import os\ndef f(folder, canary, *a): os.chmod(canary, 0o777)", "Forbidden"),
    "make a folder": ("import os\ndef f(folder, *a): os.mkdir(folder + '/d')", "Forbidden"),
    "symbolic link": (
        "import os\ndef f(folder, canary, *a): os.symlink(canary, folder + '/l')",
        "Forbidden",
    ),
    "hard link": (
        "import os\ndef f(folder, canary, *a): os.link(canary, folder + '/h')",
        "Forbidden",
    ),
    "named pipe": ("import os\ndef f(folder, *a): os.mkfifo(folder + '/p')", "Forbidden"),
    "openat in C": (
        C + "def f(folder, *a): return call(257, 56, -100, text(folder + '/new'), 0o102, 0o666)",
        REFUSED,
    ),
    "openat2 in C": (
        C + "def f(folder, canary, *a): return call(437, 437, -100, text(canary), "
        "ctypes.create_string_buffer(24), 24)",
        REFUSED,
    ),
    "open by handle": (
        C + "def f(*a): return call(304, 265, 0, ctypes.create_string_buffer(64), 0)",
        REFUSED,
    ),
    "file descriptors that were never opened": (
        "import os\ndef f(*a):\n found = []\n for d in range(4, 300):\n"
        "  try: os.fstat(d); found.append(d)\n"
        "  except OSError: pass\n return found",
        Returned([]),
    ),
    "chroot": ("import os\ndef f(*a): os.chroot('/')", "Forbidden"),
    "mount": (
        C + "def f(folder, *a): return call(165, 40, text('none'), text(folder), "
        "text('tmpfs'), 0, None)",
        REFUSED,
    ),
    "umount": (C + "def f(folder, *a): return call(166, 39, text(folder), 0)", REFUSED),
    "memfd": ("import os\ndef f(*a): return os.memfd_create('x')", "Forbidden"),
    "memory shared by name": (C + "def f(*a): return call(29, 194, 42, 4096, 0o1666)", REFUSED),
    "semaphores of System V": (C + "def f(*a): return call(64, 190, 42, 1, 0o1666)", REFUSED),
    "message queue": (
        C + "def f(*a): return call(240, 180, text('sdpo'), 0o102, 0o666, None)",
        REFUSED,
    ),
    "multiprocessing.shared_memory": (
        "def f(*a):\n from multiprocessing import shared_memory\n"
        " shared_memory.SharedMemory(create=True, size=10)",
        "ModuleNotFoundError",
    ),
    "io_uring": (
        C + "def f(*a): return call(425, 425, 8, ctypes.create_string_buffer(200))",
        REFUSED,
    ),
    "environment of the parent": (
        "def f(folder, canary, pid, port): return open(f'/proc/{pid}/environ').read()",
        "Forbidden",
    ),
    "memory of the parent": (
        "def f(folder, canary, pid, port): return open(f'/proc/{pid}/mem', 'rb').read()",
        "Forbidden",
    ),
    "memory of the parent in C": (
        C + "def f(folder, canary, pid, port): return call(310, 270, pid, "
        "ctypes.create_string_buffer(16), 1, ctypes.create_string_buffer(16), 1, 0)",
        REFUSED,
    ),
    "writing to the parent's memory": (
        C + "def f(folder, canary, pid, port): return call(311, 271, pid, "
        "ctypes.create_string_buffer(16), 1, ctypes.create_string_buffer(16), 1, 0)",
        REFUSED,
    ),
    "own environment": ("import os\ndef f(*a): return dict(os.environ)", Returned({})),
    "own memory by /proc": ("def f(*a): return open('/proc/self/maps').read()", "Forbidden"),
    # network
    "socket module": ("def f(*a):\n import socket\n socket.socket()", "ModuleNotFoundError"),
    "connect": (C + "def f(folder, canary, pid, port): return call(41, 198, 2, 1, 0)", REFUSED),
    "raw socket": (C + "def f(*a): return call(41, 198, 17, 3, 0)", REFUSED),
    "pair of sockets": (
        C + "def f(*a): return call(53, 199, 1, 1, 0, ctypes.create_string_buffer(8))",
        REFUSED,
    ),
    "connect on every descriptor": (
        C + "import struct\ndef f(folder, canary, pid, port):\n"
        " to = struct.pack('<H', 2) + struct.pack('>H', port) + bytes([127, 0, 0, 1]) + "
        "bytes(8)\n"
        " return all(call(42, 203, d, to, 16) == [-1, 1] for d in range(10))",
        Returned(True),
    ),
    "bind on every descriptor": (
        C + "def f(*a): return all(call(49, 200, d, bytes([2]) + bytes(15), 16) == [-1, 1] for "
        "d in range(10))",
        Returned(True),
    ),
    "name lookup": (
        C + "def f(*a): return libc.getaddrinfo(text('example.org'), None, None, "
        "ctypes.byref(ctypes.c_void_p())) != 0",
        Returned(True),
    ),
    "http": (
        "def f(*a):\n import urllib.request\n return "
        "urllib.request.urlopen('http://127.0.0.1').read()",
        "ModuleNotFoundError",
    ),
}
