"""Drive a real JupyterLab in the system's Chromium."""

import argparse
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat

from patchcore_helpers.course import runner
from patchcore_helpers.course.notebook import tags

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
QUIET = {  # no pop-ups over the notebook, no look-ups of news or extensions
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/extensionmanager-extension:plugin": {"enabled": False},
    # Every cell is in the page at once, not only those in view.
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
}
RUN_ALL = """async seconds => {
    const panel = window.jupyterapp.shell.currentWidget;
    const late = new Promise((_, reject) => setTimeout(
        () => reject(new Error(`not finished after ${seconds} s`)), 1000 * seconds));
    const run = async () => {
        await panel.context.ready;
        await panel.sessionContext.ready;
        await window.jupyterapp.commands.execute("notebook:run-all-cells");
    };
    await Promise.race([run(), late]);
    return panel.content.model.toJSON();
}"""
ASK = """async code => {
    const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    const future = kernel.requestExecute({code: code, store_history: false});
    let answer = "";
    future.onIOPub = message => { answer += message.content.text ?? ""; };
    const reply = await future.done;
    return reply.content.status === "ok" ? answer : reply.content.ename;
}"""
# Idle for a while: between two positions of a slider, the kernel is idle for a moment only.
IDLE = """async () => {
    const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    for (let quiet = 0; quiet < 6; quiet++) {
        await new Promise(resolve => setTimeout(resolve, 50));
        if (kernel.status !== "idle") quiet = -1;
    }
}"""

PICTURES = os.environ.get("PATCHCORE_SCREENSHOTS", "output/browser")
CONTROLS = ".jp-OutputArea :is([role=slider], select, input, textarea, button)"
KEYS = {  # what moves a control, to be tried in turn until the picture is another one
    "slider": (["ArrowRight"], ["ArrowLeft"], ["End"], ["Home"]),
    # A closed list leaves its arrows to JupyterLab.
    "select": (["Space", "ArrowDown", "Enter"], ["Space", "ArrowUp", "Enter"]),
    "checkbox": (["Space"],),
    "button": (["Space"],),
}
KIND = """control => control.getAttribute("role") ??
    (control.tagName === "INPUT" ? control.type : control.tagName.toLowerCase())"""
VALUE = """control => control.getAttribute("aria-valuetext") ?? (control.type === "checkbox" ?
    control.checked : control.tagName === "BUTTON" ? control.className : control.value)"""
# What explore() shows for a control: its picture, or the message in the picture's place.
SHOWN = """control => {
    const box = control.closest(".widget-vbox");
    return box.querySelector("[role=alert]")?.textContent ?? box.querySelector("img")?.src;
}"""

CHANGED = f"""async (control, [shown, seconds]) => {{
    for (let i = 0; i < 20 * seconds; i++) {{
        if (({SHOWN})(control) !== shown) return true;
        await new Promise(resolve => setTimeout(resolve, 50));
    }}
    return false;
}}"""


def find_chromium():
    """Return the path of the system's Chromium, or None."""
    return next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


class Lab:
    """A JupyterLab on loopback with folders of its own; `root` is a copy of notebooks/."""

    def __init__(self, folder):
        self.root, self.log = folder / "root", folder / "lab.log"
        self.token = secrets.token_hex()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"http://127.0.0.1:{probe.getsockname()[1]}"
        shutil.copytree(NOTEBOOKS, self.root, dirs_exist_ok=True)
        settings = folder / "settings"
        settings.mkdir(parents=True)
        (folder / "config").mkdir()
        overrides = folder / "overrides"
        overrides.mkdir()
        (overrides / "overrides.json").write_text(json.dumps(QUIET))
        environment = os.environ | {
            "JUPYTER_CONFIG_DIR": str(folder / "config"),
            "JUPYTER_DATA_DIR": str(folder / "data"),
            "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
            "JUPYTERLAB_SETTINGS_DIR": str(settings),
            "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
            "IPYTHONDIR": str(folder / "ipython"),
            "JUPYTER_TOKEN": self.token,
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        }
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
                   "--ip=127.0.0.1", f"--port={self.address.rpartition(':')[2]}",
                   "--ServerApp.port_retries=0", f"--ServerApp.root_dir={self.root}",
                   f"--LabApp.app_settings_dir={overrides}",
                   "--LabApp.expose_app_in_browser=True"]  # fmt: skip
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self._wait()

    def _wait(self, seconds=60):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                return urllib.request.urlopen(f"{self.address}/api?token={self.token}", timeout=5)
            except (urllib.error.URLError, TimeoutError):
                time.sleep(0.2)
        self.close()
        raise RuntimeError(f"JupyterLab did not start:\n{self.log.read_text()[-3000:]}")

    def url(self, notebook):
        return f"{self.address}/lab/tree/{notebook}?token={self.token}&reset"

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def open_and_run(page, lab, notebook, seconds=900):
    """Open a notebook of `lab.root`, run all its cells, and return it with its outputs.

    Fails on an error output, on a code cell that did not run, and after so many seconds.
    """
    page.goto(lab.url(notebook))
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    ran = page.evaluate(RUN_ALL, seconds)
    for number, cell in enumerate(ran["cells"]):
        if cell["cell_type"] != "code" or not "".join(cell["source"]).strip():
            continue
        errors = [out for out in cell["outputs"] if out["output_type"] == "error"]
        assert not errors, f"{notebook}, cell {number}: {errors[0]['ename']}: {errors[0]['evalue']}"
        assert cell["execution_count"], f"{notebook}, cell {number} did not run"
    return ran


def make_quick(lab, notebook):
    """Write the fast parameters of a notebook below those of its own, in the copy in `lab.root`."""
    parser = argparse.ArgumentParser()
    runner.add_arguments(parser)
    path = lab.root / notebook
    (job,) = runner.plan(parser.parse_args([str(path), "--profile", "fast"]))
    assert job.parameters, f"{notebook}: no parameters in configs/fast"
    content = nbformat.read(path, as_version=4)
    (cell,) = (cell for cell in content.cells if "parameters" in tags(cell))
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in job.parameters.items())
    nbformat.write(content, path)


def shut_down(page):
    """End the kernel of the notebook on show."""
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")


def change_theme(page, theme):
    """Give JupyterLab a theme, "JupyterLab Light" or "JupyterLab Dark"."""
    page.evaluate(
        "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme
    )
    page.locator(f"body[data-jp-theme-name='{theme}']").wait_for(state="attached")


def move_by_keys(control, seconds=60):
    """Move a control with the keyboard until its picture changes; returns (kind, whether it moved).

    Fails if the value changes and the picture never does, or if a message takes its place.
    """
    kind, value, shown = (control.evaluate(script) for script in (KIND, VALUE, SHOWN))
    assert kind in KEYS, f"no keys known that move a {kind}"
    moved = False
    for keys in KEYS[kind]:
        for key in keys:
            control.press(key)
        moved |= control.evaluate(VALUE) != value
        control.page.evaluate(IDLE)
        if control.evaluate(SHOWN) != shown:
            break
    changed = not moved or control.evaluate(CHANGED, [shown, seconds])
    assert changed, f"a {kind} moved, and the picture did not change"
    control.page.evaluate(IDLE)
    assert control.evaluate(SHOWN).startswith("data:image"), control.evaluate(SHOWN)
    return kind, moved


def ask(page, code):
    """Return what this code prints in the kernel of the notebook on show."""
    return page.evaluate(ASK, code).strip()


def explorer(page, label):
    """Locate the box (controls, picture or message) that holds the control with this label."""
    return page.locator(".widget-vbox").filter(has=page.get_by_text(label, exact=True)).last


def picture(page, label):
    """Return the picture on show, as the address that holds all its bytes."""
    return explorer(page, label).locator("img").get_attribute("src")


def slider(page, label):
    """Locate the slider with this label: its handle takes keys, its readout shows the value."""
    return explorer(page, label).locator(".widget-slider", has_text=label)


def wait_for_new_picture(page, label, before):
    """Wait until another picture than `before` is on show, and the last one drawn."""
    page.wait_for_function(
        "([box, before]) => ![undefined, before].includes(box.querySelector('img')?.src)",
        arg=[explorer(page, label).element_handle(), before],
    )
    page.evaluate(IDLE)


def move_slider(page, label, key="ArrowRight", times=3):
    """Press `key` on a slider, wait for the last picture, and return the value it then shows.

    Fails if the picture does not change.
    """
    before = picture(page, label)
    for _ in range(times):
        slider(page, label).get_by_role("slider").press(key)
    wait_for_new_picture(page, label, before)
    return float(slider(page, label).locator(".widget-readout").inner_text())
