"""Other kernels to run notebooks in: `python tools/kernels.py NAME ...` makes .venv/kernels/NAME
from constraints-NAME.txt.

Such an environment holds only the packages of that file; all others it finds in the one that made
it, so it takes seconds and little space. Its kernelspec lies in its own share/jupyter: Jupyter
knows the kernel where JUPYTER_PATH names that folder, and nowhere else.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def home(name: str) -> Path:
    """Where the environment of kernel `name` is, or would be; the same place seen from the
    environment that made it and from one of the kernels."""
    prefix = Path(sys.prefix)
    return (prefix.parent if prefix.parent.name == "kernels" else prefix / "kernels") / name


def python(name: str) -> Path:
    return home(name) / "bin" / "python"


def share(name: str) -> Path:
    """What JUPYTER_PATH must name for Jupyter to know the kernel."""
    return home(name) / "share" / "jupyter"


def stamp(name: str) -> Path:
    """What make leaves when the environment is whole."""
    return home(name) / ".installed"


def pinned(name: str) -> dict[str, str]:
    """The packages of its own, as {name: version}."""
    lines = (ROOT / f"constraints-{name}.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def make(name: str) -> None:
    """Make the environment anew. Raises FileNotFoundError without constraints-NAME.txt,
    CalledProcessError where pip fails."""
    packages = [f"{package}=={version}" for package, version in pinned(name).items()]
    shutil.rmtree(home(name), ignore_errors=True)
    venv.create(home(name), symlinks=True, with_pip=False)
    # without dependencies: what they need is either in the list or in the environment below
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            str(python(name)),
            "install",
            "-qq",
            "--no-deps",
            "--no-compile",
            "--only-binary=:all:",
            *packages,
        ],
        check=True,
    )
    # only now, or pip would take the packages below for installed; addsitedir and not a bare path,
    # so that an editable install below counts
    own, below = (
        sysconfig.get_path("purelib", vars={"base": str(base)}) for base in (home(name), sys.prefix)
    )
    Path(own, "below.pth").write_text(
        f"import site; site.addsitedir({below!r})\n", encoding="utf-8"
    )
    shutil.rmtree(
        share(name) / "kernels"
    )  # ipykernel's own, under the name python3: it would stand before the real one
    spec = share(name) / "kernels" / name
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(
        json.dumps(
            {
                "argv": [str(python(name)), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                "display_name": f"Python 3 ({name})",
                "language": "python",
            }
        ),
        encoding="utf-8",
    )


if __name__ == "__main__":
    for each in sys.argv[1:]:
        make(each)
