"""Debian's chromium without a window, driven through the pipe of its DevTools protocol."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
from queue import Queue

CHROMIUM = shutil.which("chromium")
TIMEOUT = 120  # seconds for whatever a page is waited for


class Tab:
    """The tab of a browser. requests: the addresses that it asked for; complaints: errors, as its console has them."""

    def __init__(self, send, answers):
        self._send, self._answers = send, answers
        self._number, self.requests, self.complaints = 0, [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "DOM", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        """Call a method of the protocol, and return its result."""
        self._number += 1
        session = {"sessionId": self._session} if hasattr(self, "_session") else {}
        self._send({"id": self._number, "method": method, "params": params, **session})
        while True:
            message = self._answers.get(timeout=TIMEOUT)
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, message):
        method, params = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"].get("exception", {}).get("description", "an exception"))

    def open(self, address, width):
        """Load a page in a window so many CSS pixels wide."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Page.navigate", url=address)

    def run(self, script):
        """The value of a JavaScript expression in the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, script):
        """Wait until an expression is true."""
        end = time.monotonic() + TIMEOUT
        while not self.run(f"!!({script})"):
            assert time.monotonic() < end, (script, self.run("document.body.innerText"), self.complaints)
            time.sleep(0.1)

    def upload(self, selector, files):
        """Choose files (paths) in an <input type=file>."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=list(map(str, files)))

    def screenshot(self, path):
        """Write the whole page as PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def browsing(profile):
    """A Tab of a browser of its own. profile: a directory for what it keeps."""
    import fcntl  # Windows has none

    (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
    fds = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (theirs_in, theirs_out)]
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
    command = ["bash", "-c", f'exec "$0" "$@" 3<&{fds[0]} 4>&{fds[1]}', CHROMIUM, *flags, f"--user-data-dir={profile}"]
    browser = subprocess.Popen(command, pass_fds=fds, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for fd in (theirs_in, theirs_out, *fds):
        os.close(fd)
    answers = Queue()
    threading.Thread(target=_read, args=(ours_in, answers), daemon=True).start()
    try:
        with open(ours_out, "wb", buffering=0) as pipe:
            yield Tab(lambda message: pipe.write(json.dumps(message).encode() + b"\0"), answers)
    finally:
        browser.terminate()
        browser.wait(30)


def _read(fd, answers):
    with open(fd, "rb", buffering=0) as pipe:
        rest = b""
        while chunk := pipe.read(1 << 16):
            *whole, rest = (rest + chunk).split(b"\0")
            for message in whole:
                answers.put(json.loads(message))
