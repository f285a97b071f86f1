"""Programs that mean harm: to processes, output, ends, the server and its values."""

from __future__ import annotations

from sdpo_lab.tasks.sandbox import (
    Returned,
)
from tests.tasks.sandbox.attacks import ANY, REFUSED, RESOURCES, C

PROCESSES: dict[str, tuple[str, object]] = {
    # processes
    "fork": ("import os\ndef f(*a): return os.fork()", "Forbidden"),
    "fork bomb": (
        "import os\ndef f(*a):\n while True:\n  try: os.fork()\n  except OSError: pass",
        "Timeout",
    ),
    "fork in C": (
        C + "def f(*a): return call(57 if platform_machine == 'x86_64' else 220, 220, 17, 0, "
        "0, 0, 0)",
        REFUSED,
    ),
    "clone3": (
        C + "def f(*a): return call(435, 435, ctypes.create_string_buffer(88), 88)",
        REFUSED,
    ),
    "vfork": (C + "def f(*a): return call(58, 220, 0x4111, 0, 0, 0, 0)", REFUSED),
    "threads": ("import _thread\ndef f(*a): _thread.start_new_thread(print, ())", "RuntimeError"),
    "daemon thread that outlives": (
        "def f(*a):\n import threading, time\n threading.Thread(target=time.sleep, "
        "args=(60,), daemon=True).start()\n return 1",
        ("RuntimeError", "ModuleNotFoundError"),
    ),
    "execve": ("import os\ndef f(*a): os.execv('/bin/sh', ['sh', '-c', 'sleep 60'])", "Forbidden"),
    "execveat": (C + "def f(*a): return call(322, 281, 0, text(''), None, None, 0x1000)", REFUSED),
    "os.system": ("import os\ndef f(*a): return os.system('sleep 60') != 0", Returned(True)),
    "os.posix_spawn": (
        "import os\ndef f(*a): return os.posix_spawn('/bin/sh', ['sh'], {})",
        "Forbidden",
    ),
    "subprocess": (
        "def f(*a):\n import subprocess\n subprocess.run(['sleep', '60'])",
        "ModuleNotFoundError",
    ),
    "os.popen": ("import os\ndef f(*a): return os.popen('id').read()", "ModuleNotFoundError"),
    "kill the parent": (
        "import os\ndef f(folder, canary, pid, port): os.kill(pid, 9)",
        "Forbidden",
    ),
    "kill the server": ("import os\ndef f(*a): os.kill(os.getppid(), 9)", "Forbidden"),
    "kill(-1)": ("import os\ndef f(*a): os.kill(-1, 9)", "Forbidden"),
    "killpg": ("import os\ndef f(*a): os.killpg(0, 9)", "Forbidden"),
    "stop the server": (C + "def f(*a): return call(62, 129, libc.getppid(), 19)", REFUSED),
    "tgkill": (C + "def f(folder, canary, pid, port): return call(234, 131, pid, pid, 9)", REFUSED),
    "signal by descriptor": (
        C + "def f(folder, canary, pid, port): return call(434, 434, pid, 0)",
        REFUSED,
    ),
    "ptrace the parent": (
        C + "def f(folder, canary, pid, port): return call(101, 117, 16, pid, 0, 0)",
        REFUSED,
    ),
    "new session": ("import os\ndef f(*a): os.setsid()", "Forbidden"),
    "nice": ("import os\ndef f(*a): os.nice(-5)", "Forbidden"),
    "another user": ("import os\ndef f(*a): os.setuid(0)", "Forbidden"),
    "limits": (
        "import resource\ndef f(*a): resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
        ("Forbidden", "ValueError"),
    ),
    "limits of the parent": (
        C + "def f(folder, canary, pid, port): return call(302, 261, pid, 7, bytes(16), None)",
        REFUSED,
    ),
    "outlive the server": (C + "def f(*a): return call(157, 167, 1, 0, 0, 0, 0)", REFUSED),
    "another filter": (C + "def f(*a): return call(317, 277, 1, 0, None)", REFUSED),
    "namespaces": (C + "def f(*a): return call(272, 97, 0x10000000)", REFUSED),
    "kernel module, reboot, clock, keys, bpf": (
        C + "def f(*a): return [call(*n, 0, 0, 0, 0, 0, 0)[1] for n in ((313, 273), (169, "
        "142), (227, 112), (250, 219), (321, 280), (298, 241), (323, 282))]",
        Returned([1] * 7),
    ),
    "ioctl on every descriptor": (
        C + "def f(*a): return all(call(16, 29, d, 0x5412, b'x') == [-1, 1] for d in range(10))",
        Returned(True),
    ),
    "duplicates of descriptors": ("import os\ndef f(*a): return os.dup(3)", "Forbidden"),
    # output
    "gigabytes to stdout": ("def f(*a):\n while True: print('x' * 10**6)", "Timeout"),
    "gigabytes to descriptors 1 and 2": (
        "import os\ndef f(*a):\n while True: os.write(1, b'x' * 10**6); os.write(2, b'x' * 10**6)",
        "Timeout",
    ),
    "flooding the report": (
        "import os\ndef f(*a):\n while True: os.write(3, b'x' * 10**6)",
        "OutputLimit",
    ),
    "flooding the report with lines": (
        "import os\ndef f(*a):\n while True: os.write(3, b'\\n' * 10**6)",
        ("OutputLimit", "Forbidden"),
    ),
    "garbage to every descriptor": (
        "import os\ndef f(*a):\n for d in range(64):\n"
        "  try: os.write(d, b'\\xff\\x00{[' * 99 + b'\\n')\n  except OSError: pass\n"
        " return 1",
        ("Forbidden", "Returned"),
    ),
    "half a line": ("import os\ndef f(*a): os.write(3, b'{\"value\": '); os._exit(0)", "Killed"),
    "a forged report": (
        "import os\ndef f(*a): os.write(3, b'{\"value\": 42}\\n' * 50); os._exit(0)",
        Returned(42),
    ),
    "a forged report that nests": (
        "import os\ndef f(*a): os.write(3, b'[' * 60000 + b'\\n' + b'[' * 60000 + b'\\n'); "
        "os._exit(0)",
        ("Forbidden", "Killed"),
    ),
    "closing the report": ("import os\ndef f(*a):\n os.close(3)\n while True: pass", "Killed"),
    "closing every descriptor": ("import os\ndef f(*a): os.closerange(0, 64); return 1", "Killed"),
    "stdin": ("def f(*a): return input()", "EOFError"),
    "sys.stdout is broken": (
        "import sys\nsys.stdout = sys.stderr = None\ndef f(*a): print('x'); return 1",
        Returned(1),
    ),
    # ends
    "sys.exit": ("import sys\ndef f(*a): sys.exit(0)", "SystemExit"),
    "SystemExit with an object": (
        "class A:\n def __str__(self): raise ValueError\ndef f(*a): raise SystemExit(A())",
        "SystemExit",
    ),
    "os._exit(0)": ("import os\ndef f(*a): os._exit(0)", "Killed"),
    "os.abort": ("import os\ndef f(*a): os.abort()", "Killed"),
    "segfault": ("import ctypes\ndef f(*a): ctypes.string_at(0)", "Killed"),
    "illegal memory in C": (
        "import ctypes\ndef f(*a): ctypes.memset(id(None), 0, 10**7); return None",
        "Killed",
    ),
    "bad bytecode": (
        "def f(*a): pass\nf.__code__ = f.__code__.replace(co_code=bytes([100, 255] * 50))\n",
        ANY + ("SystemError", "TypeError", "ValueError"),
    ),
    "BaseException": ("class E(BaseException): pass\ndef f(*a): raise E('x')", "E"),
    "exception whose str raises": (
        "class E(Exception):\n def __str__(self): raise SystemExit\ndef f(*a): raise E",
        "E",
    ),
    "exception whose str loops": (
        "class E(Exception):\n def __str__(self):\n  while True: pass\ndef f(*a): raise E",
        "Timeout",
    ),
    "exception whose str is huge": ("def f(*a): raise ValueError('x' * 10**7)", "ValueError"),
    "exception whose name is no string": (
        "class M(type):\n @property\n def __name__(c): return 5\n"
        "class E(Exception, metaclass=M): pass\ndef f(*a): raise E('x')",
        "Exception",
    ),
    "exception with a cycle": (
        "def f(*a):\n e = ValueError('x')\n e.__context__ = e\n raise e",
        "ValueError",
    ),
    "syntax error with lies": (
        "def f(*a): raise SyntaxError('x', ('<attempt>', 10**9, 0, 'x' * 10**6))",
        "SyntaxError",
    ),
    "atexit": (
        "import atexit\ndef g():\n while True: pass\natexit.register(g)\ndef f(*a): return 1",
        ("Returned", "ModuleNotFoundError"),
    ),
    "object with __del__": (
        "class A:\n def __del__(self):\n  while True: pass\ndef f(*a):\n global keep\n"
        " keep = A()\n return 1",
        (Returned(1), "Timeout"),
    ),
    # its own process
    "patched builtins": (
        "import builtins\nfor n in ('len', 'sum', 'type', 'str', 'isinstance', 'repr'): "
        "setattr(builtins, n, lambda *a: 1)\ndef f(*a): return 7",
        ANY + ("Exception", "TypeError"),
    ),
    "patched json": (
        "import json\njson.dumps = lambda *a, **k: '{\"value\": 42}'\ndef f(*a): return 7",
        Returned(42),
    ),
    "patched os": (
        "import os\nos._exit = os.close = os.write = lambda *a: 0\ndef f(*a): return 7",
        ("Timeout", "Killed", "Returned"),
    ),
    "patched server": (
        "import sys\nm = sys.modules['__main__']\nm.run_attempt = m.describe = m.lock_down "
        "= lambda *a: 0\nm.pack = lambda v: 42\ndef f(*a): return 7",
        Returned(42),
    ),
    "frames of the server": (
        "import sys\ndef f(*a):\n g = sys._getframe(1).f_globals\n"
        " g['pack'] = lambda v: 42\n return 7",
        (Returned(7), Returned(42)),
    ),
    "functions of the server by gc": (
        "import gc, types\nfor o in gc.get_objects():\n"
        " if type(o) is types.FunctionType and o.__name__ in ('pack', 'run', 'probe'):\n"
        "  o.__code__ = (lambda *a: 42).__code__\ndef f(*a): return 7",
        ANY + ("TypeError",),
    ),
    "back to the server's loop": (
        "import os, sys\ndef out(*a): raise SystemError\nos._exit = out\ndef f(*a):\n"
        " sys.settrace(out)\n return 1",
        ANY + ("SystemError", "Exception"),
    ),
    "settrace": (
        "import sys\ndef t(*a): return t\nsys.settrace(t)\ndef f(*a): return 7",
        Returned(7),
    ),
    "audit hook": (
        "import sys\ndef h(*a): raise SystemExit\nsys.addaudithook(h)\ndef f(*a): return 7",
        ANY + ("SystemExit",),
    ),
    "import of torch": ("import torch\ndef f(*a): return 1", "ModuleNotFoundError"),
    "import of numpy": ("def f(*a):\n import numpy\n return 1", "ModuleNotFoundError"),
    "import of sdpo_lab": (
        "import sdpo_lab.tasks.sandbox\ndef f(*a): return 1",
        "ModuleNotFoundError",
    ),
    "import from a folder": (
        "import sys\ndef f(folder, *a):\n sys.path.append(folder)\n import canary",
        "ModuleNotFoundError",
    ),
    "locale": (
        "import _locale\ndef f(*a): return _locale.setlocale(_locale.LC_ALL, 'de_DE.UTF-8')",
        "Error",
    ),
    "subclasses of object": (
        "def f(*a):\n for c in ().__class__.__base__.__subclasses__():\n"
        "  if c.__name__ == 'FileIO': return c('/etc/passwd').read()\n"
        " import _io\n return _io.FileIO('/etc/passwd').read()",
        "Forbidden",
    ),
    "huge source at run time": (
        "def f(*a): return eval('(' * 10**5 + ')' * 10**5)",
        ("SyntaxError", "MemoryError", "RecursionError", "Killed"),
    ),
    # values
    "equal to everything": (
        "class A:\n def __eq__(self, o): return True\n __hash__ = None\ndef f(*a): return A()",
        "Unsupported",
    ),
    "int subclass equal to everything": (
        "class A(int):\n def __eq__(self, o): return True\ndef f(*a): return A(1)",
        "Unsupported",
    ),
    "str subclass": ("class A(str): pass\ndef f(*a): return [A('x')]", "Unsupported"),
    "list subclass": (
        "class A(list):\n def __iter__(self):\n  while True: yield 1\ndef f(*a): return A()",
        "Unsupported",
    ),
    "dict subclass": ("class A(dict): pass\ndef f(*a): return {1: A()}", "Unsupported"),
    "lying __class__": (
        "class A:\n @property\n def __class__(self): return int\ndef f(*a): return A()",
        "Unsupported",
    ),
    "generator": ("def f(*a): yield 1", "Unsupported"),
    "infinite iterator": ("import itertools\ndef f(*a): return itertools.count()", "Unsupported"),
    "list of an infinite iterator": (
        "import itertools\ndef f(*a): return list(itertools.count())",
        ("MemoryError", "Timeout", "Killed"),
    ),
    "repr that loops": (
        "class A:\n def __repr__(self):\n  while True: pass\ndef f(*a): return A()",
        "Unsupported",
    ),
    "coroutine": ("async def f(*a): return 1", "Unsupported"),
    "list within itself": ("def f(*a):\n x = []\n x.append(x)\n return x", "OutputLimit"),
    "dict within itself": ("def f(*a):\n x = {}\n x[1] = x\n return x", "OutputLimit"),
    "huge int": ("def f(*a): return 1 << 10**7", "OutputLimit"),
    "printing a huge int": ("def f(*a): return str(1 << 10**6)", "ValueError"),
    "int that just prints": ("def f(*a): return 2**12999", Returned(2**12999)),
    "surrogates": ("def f(*a): return '\\ud800' * 3", Returned("\ud800" * 3)),
    "nan": ("def f(*a): return [float('nan')] == [float('nan')]", Returned(False)),
    "mutating arguments": ("def f(*a):\n a = list(a)\n a.clear()\n return len(a)", Returned(0)),
    # code
    "null bytes": ("def f(*a): return 1\0", "SyntaxError"),
    "surrogates in code": ("def f(*a): return '\ud800'", "SyntaxError"),
    "a megabyte of code": ("x = 1\n" * 170_000, "OutputLimit"),
    "deep parentheses": (
        "f = " + "(" * 40_000 + ")" * 40_000,
        ("SyntaxError", "MemoryError", "RecursionError", "Killed"),
    ),
    "deep operators": (
        "f = " + "-" * 90_000 + "1",
        ("SyntaxError", "MemoryError", "RecursionError", "Killed", "TypeError"),
    ),
    "deep attributes": (
        "f = 1" + ".a" * 40_000,
        ("SyntaxError", "MemoryError", "RecursionError", "Killed", "AttributeError"),
    ),
    "deep indentation": (
        "".join(" " * i + "if 1:\n" for i in range(300)),
        ("SyntaxError", "IndentationError"),
    ),
    "a constant that is folded": ("f = 9 ** 9 ** 9", ("Timeout", "MemoryError")),
    "coding cookie": ("# coding: rot13\ndef f(*a): return 1", ("Returned", "SyntaxError")),
}

ATTACKS = RESOURCES | PROCESSES
