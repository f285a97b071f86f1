"""A JupyterLab of its own for a browser test: free port, own token, own settings, and nothing of
the user's."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SETTINGS = {
    "notebook-extension/tracker": {
        "windowingMode": "none"
    },  # every cell stays in the page, so that a test can find it
    "apputils-extension/notification": {"checkForUpdates": False, "fetchNews": "false"},
}


@contextlib.contextmanager
def server(folder: Path, root: Path, **more: str) -> Iterator[str]:
    """Start JupyterLab on the notebooks of `folder`; yields its address with `{}` in the place of
    the path. `root` holds the package; `more` is put into its environment."""
    home = folder / ".jupyter"
    for name, value in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    token = secrets.token_hex(16)
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
        "PYTHONPATH": os.pathsep.join(
            p for p in (str(root), os.environ.get("PYTHONPATH", "")) if p
        ),
        **more,
    }
    with open(folder / "jupyterlab.log", "wb") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jupyterlab",
                "--no-browser",
                "--allow-root",
                "--ip=127.0.0.1",
                f"--port={port}",
                "--ServerApp.port_retries=0",
                f"--IdentityProvider.token={token}",
                "--LabApp.expose_app_in_browser=True",
                f"--ServerApp.root_dir={folder}",
            ],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    try:
        wait_for(
            f"http://127.0.0.1:{port}/api/status?token={token}", process, folder / "jupyterlab.log"
        )
        yield f"http://127.0.0.1:{port}/{{}}?token={token}"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(address: str, process: subprocess.Popen, log: Path, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError) as error:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(
                    f"JupyterLab did not come up: {error}\n{log.read_text()[-3000:]}"
                ) from error
            time.sleep(0.3)


def write(folder: Path, name: str, *cells: str, kernel: str = "python3") -> int:
    """A notebook of these code cells in `folder`, for `kernel`; how many there are."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(c.strip(), id=f"c{i}") for i, c in enumerate(cells)]
    )
    notebook.metadata.kernelspec = {"display_name": kernel, "language": "python", "name": kernel}
    nbformat.write(notebook, folder / name)
    return len(cells)


class Notebook:
    """A notebook open in a page; `cells` is how many it has, and they are counted from 0."""

    def __init__(self, page: Any, address: str, name: str, cells: int) -> None:
        self.page, self.cells = page, cells
        page.goto(address.format(f"doc/tree/{name}"))
        self.ready()

    def ready(self, seconds: float = 60) -> None:
        """Wait until the cells are there and the kernel answers."""
        self.page.wait_for_function("window.jupyterapp !== undefined", timeout=1000 * seconds)
        self.page.wait_for_function(
            f"document.querySelectorAll('.jp-Notebook .jp-Cell').length >= {self.cells}",
            timeout=1000 * seconds,
        )
        self.page.wait_for_function(
            """async () => {
            const session = window.jupyterapp.shell.currentWidget?.sessionContext;
            if (!session) return false;
            await session.ready;
            const kernel = session.session?.kernel;
            return kernel?.status === 'idle' && kernel.connectionStatus === 'connected';
        }""",
            timeout=1000 * seconds,
        )

    def command(self, name: str, wait: bool = True, **arguments: Any) -> None:
        """A command of JupyterLab, as its menu would run it."""
        self.page.evaluate(
            """([name, arguments_, wait]) => {
            const done = window.jupyterapp.commands.execute(name, arguments_).then(() => null);
            return wait ? done : null;
        }""",
            [name, arguments, wait],
        )

    def run_to(self, cell: int, seconds: float = 120) -> None:
        """Run every cell up to `cell`, one after the other."""
        for k in range(cell + 1):
            self.run(k)
            self.idle(seconds)

    def run(self, cell: int) -> None:
        """Run one cell; does not wait for its end."""
        self.page.evaluate(
            "(k) => { const n = window.jupyterapp.shell.currentWidget.content; "
            "n.deselectAll(); n.activeCellIndex = k; }",
            cell,
        )
        self.command("notebook:run-cell", wait=False)
        self.page.wait_for_timeout(100)

    def idle(self, seconds: float = 120) -> None:
        """Wait until no cell has a star."""
        self.page.wait_for_function(
            "() => ![...document.querySelectorAll('.jp-Notebook "
            ".jp-InputPrompt')].some((e) => e.textContent.includes('*'))",
            timeout=1000 * seconds,
        )

    def interrupt(self) -> None:
        self.page.evaluate(
            "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.interrupt()"
        )

    def restart(self) -> None:
        """A new kernel in the place of the old one, without a question."""
        self.page.evaluate(
            "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()"
        )

    def output(self, cell: int) -> str:
        return (
            self.page.locator(".jp-Notebook .jp-Cell")
            .nth(cell)
            .locator(".jp-Cell-outputArea")
            .inner_text()
        )

    def save(self) -> None:
        self.command("docmanager:save")

    def theme(self, dark: bool) -> None:
        self.command(
            "apputils:change-theme", theme="JupyterLab Dark" if dark else "JupyterLab Light"
        )
        self.page.wait_for_selector(
            f'body[data-jp-theme-light="{str(not dark).lower()}"]', state="attached"
        )
