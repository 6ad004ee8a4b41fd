"""A real JupyterLab and a real Chromium for the browser tests, driven by keyboard and mouse as a person would.

What it does not do: fake a user gesture. Commands go through CDP with userGesture=false, so the browser's autoplay rules stay real.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from tests.support import wait_for

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Every media element tells when it really plays, pauses and ends.
EARS = r"""
(() => {
  window.__heard = [];
  const note = e => { const a = e.target; if (a instanceof HTMLMediaElement)
    window.__heard.push({what: e.type, id: a.id, at: (performance.timeOrigin + performance.now()) / 1000, position: a.currentTime,
                         duration: a.duration, muted: a.muted, src: e.type === 'ended' || e.type === 'playing' ? a.currentSrc : ''}); };
  for (const type of ['playing', 'pause', 'ended', 'error']) document.addEventListener(type, note, true);
})();
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Lab:
    """`jupyter lab` on 127.0.0.1 with folders of its own."""

    def __init__(self, root: Path, state: Path):
        self.root, self.port, self.token = root, free_port(), secrets.token_hex(16)
        hidden = ("AZURE_", "VOICEHELPER_", "JUPYTER")
        env = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "JUPYTERLAB_SETTINGS_DIR"):
            env[name] = str(state / name.lower())
        env["JUPYTERLAB_WORKSPACES_DIR"] = str(state / "workspaces")
        news = state / "jupyterlab_settings_dir" / "@jupyterlab" / "apputils-extension"
        news.mkdir(parents=True)
        (news / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"]
        command += [f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={self.token}"]
        command += [f"--ServerApp.root_dir={root}", "--LabApp.expose_app_in_browser=True", "--LabApp.collaborative=False"]
        self._log = (state / "lab.log").open("wb")  # noqa: SIM115 - open as long as the Lab lives
        self.process = subprocess.Popen(
            command, env=env, cwd=root, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )
        wait_for(self._answers, 60)

    def api(self, path: str, method: str = "GET"):
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, headers={"Authorization": f"token {self.token}"}, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def _answers(self) -> bool:
        assert self.process.poll() is None, "jupyter lab ended while it started"
        try:
            return bool(self.api("/api/status"))
        except OSError:
            return False

    def close(self) -> None:
        try:
            for kernel in self.api("/api/kernels"):
                self.api(f"/api/kernels/{kernel['id']}", "DELETE")
        except OSError:
            pass  # it may have ended by itself
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        self._log.close()


class Page:
    """One notebook in one browser tab."""

    def __init__(self, context, lab: Lab, name: str):
        self.lab, self.name = lab, name
        self.page = context.new_page()
        self._cdp = context.new_cdp_session(self.page)
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.goto(f"http://127.0.0.1:{lab.port}/lab/tree/{name}?token={lab.token}&reset", wait_until="domcontentloaded")
        ready = "(() => { const w = window.jupyterapp?.shell?.currentWidget; return !!(w?.context?.isReady && w?.sessionContext?.session?.kernel"
        self.wait(lambda: self.js(ready + "&& w.sessionContext.session.kernel.status === 'idle'); })()"), 60)

    def js(self, code: str):
        """Evaluate without a faked user gesture."""
        answer = self._cdp.send("Runtime.evaluate", {"expression": code, "returnByValue": True, "awaitPromise": True, "userGesture": False})
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition, seconds: float = 30):
        deadline = time.monotonic() + seconds
        while True:
            if found := condition():
                return found
            assert time.monotonic() < deadline, f"not reached in {seconds} s"
            self.page.wait_for_timeout(50)

    def run(self, index: int, seconds: float = 60) -> None:
        """Run one cell as a person does: click into it, Shift+Enter, wait until it is done."""
        self.js(f"(window.jupyterapp.shell.currentWidget.content.scrollToItem({index}), null)")
        editor = self.page.locator(".jp-Notebook .jp-Cell").nth(index).locator(".jp-Editor .cm-content")
        editor.click()
        editor.press("Shift+Enter")
        self.wait_done(index, seconds)

    def wait_done(self, index: int, seconds: float = 60) -> None:
        cell = f"window.jupyterapp.shell.currentWidget.content.widgets[{index}]"
        self.wait(lambda: self.js(f"typeof {cell}.model.executionCount === 'number' && {cell}.model.executionState !== 'running'"), seconds)

    def code_cells(self) -> list[int]:
        return self.js(
            "window.jupyterapp.shell.currentWidget.content.widgets.map((c, i) => c.model.type === 'code' ? i : -1).filter(i => i >= 0)"
        )

    def outputs(self, index: int) -> list[dict]:
        return self.js(f"window.jupyterapp.shell.currentWidget.content.widgets[{index}].model.outputs.toJSON()")

    def stdout(self, index: int) -> str:
        return "".join(output.get("text", "") for output in self.outputs(index))

    def cell_errors(self) -> list[str]:
        return [output["evalue"] for index in self.code_cells() for output in self.outputs(index) if output["output_type"] == "error"]

    def heard(self, what: str | None = None) -> list[dict]:
        return [event for event in self.js("window.__heard") if what is None or event["what"] == what]

    def visible_text(self) -> str:
        return self.page.locator(".jp-Notebook").inner_text()

    def save(self) -> dict:
        self.js("window.jupyterapp.commands.execute('docmanager:save').then(() => null)")
        return json.loads((self.lab.root / self.name).read_text())
