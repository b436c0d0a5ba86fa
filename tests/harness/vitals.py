"""What an attack must not change: the life, descriptors, memory and counters of a relay, and another user's tunnel."""
import contextlib
import os
import re
import resource
import threading
import time

from harness import configs, http1

# Freed memory goes back at once, so that resident memory is what is in use (and the sanitizer's red zones).
LEAN = ["env", "ASAN_OPTIONS=halt_on_error=1:exitcode=99:quarantine_size_mb=1:thread_local_quarantine_size_kb=64:"
        "allocator_release_to_os_interval_ms=100:malloc_context_size=0"]
TICK = os.sysconf("SC_CLK_TCK")


def raise_descriptors():
    """This process may open as many sockets as the machine lets it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def wait(condition, timeout=10, what="what the test waits for"):
    """Polls until the condition holds, and returns what it gave."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come in {timeout} s"
        time.sleep(0.02)
    return value


def wait_refused(port):
    """Until no worker listens there any more: each has heard of the SIGTERM."""
    def is_refused():
        try:
            with contextlib.suppress(ConnectionResetError):
                http1.Connection(port).close()
        except ConnectionRefusedError:
            return True
        return False
    wait(is_refused, what=f"the end of the listeners of port {port}")


class Vitals:
    """Of one process.Relay."""

    def __init__(self, relay):
        self.relay = relay

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.relay.pid}/fd"))

    def cpu(self):
        """Seconds of CPU time so far."""
        with open(f"/proc/{self.relay.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def load(self, seconds):
        """The share of one CPU that it uses during the next seconds."""
        before, at = self.cpu(), time.monotonic()
        time.sleep(seconds)
        return (self.cpu() - before) / (time.monotonic() - at)

    def rss(self):
        """Bytes of resident memory."""
        with open(f"/proc/{self.relay.pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def metrics(self):
        """{the series as it is written: value}"""
        status, text = self.relay.admin_get("/metrics")
        assert status == 200
        return {series: float(value) for series, value in re.findall(r"^([^#\s]\S*) (\S+)$", text, re.MULTILINE)}

    def tunnels(self):
        metrics = self.metrics()
        return sum(value for series, value in metrics.items() if series.startswith("twohop_tunnels{"))

    def wait_quiet(self, descriptors, tunnels=0, timeout=10):
        """Until it holds no more descriptors and tunnels than these."""
        def quiet():
            self.now = self.descriptors(), self.tunnels()
            return self.now[0] <= descriptors and self.now[1] <= tunnels
        try:
            wait(quiet, timeout)
        except AssertionError:
            raise AssertionError(f"descriptors and tunnels are {self.now}, not {(descriptors, tunnels)}") from None


class Bystander:
    """Another user's tunnel, open while the attack runs. A context manager; its end asserts that the tunnel still works."""

    def __init__(self, port, echo, host="127.0.0.1"):
        self._connection = http1.Connection(port, host)
        status, _ = self._connection.connect(echo.authority, f"Proxy-Authorization: {configs.BEARER}")
        assert status == 200

    def echo(self):
        """Sends and gets back a few bytes; seconds that took."""
        at = time.monotonic()
        self._connection.send(b"still here")
        assert self._connection.read(10) == b"still here", "the bystander's tunnel is dead"
        return time.monotonic() - at

    def __enter__(self):
        self.echo()
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.echo()
        self._connection.close()


class Pauses(threading.Thread):
    """When this process stood still for longer than LEAST seconds, because the machine did or had no processor for it."""

    LEAST = 0.05

    def __init__(self):
        super().__init__(daemon=True)
        self._end, self._found, self._last = threading.Event(), [], time.monotonic()

    def run(self):
        while not self._end.wait(0.01):
            now = time.monotonic()
            if now - self._last > self.LEAST:
                self._found.append((self._last, now))
            self._last = now

    def within(self, begun, ended):
        """Seconds of pauses between these two moments, which are past."""
        wait(lambda: self._last > ended, what="the thread that looks for pauses")
        return sum(max(0, min(ended, till) - max(begun, since)) for since, till in self._found)

    def stop(self):
        self._end.set()
        self.join()


class Watch(threading.Thread):
    """Measures a bystander's echo all the time. worst: seconds, without those in which this process stood still: then nobody
    knows whose they were. A context manager."""

    def __init__(self, relay, echo):
        super().__init__(daemon=True)
        self._bystander, self._end, self.times = Bystander(relay.at.clear, echo), threading.Event(), []
        self._pauses, self.failure = Pauses(), None

    def run(self):
        try:
            while not self._end.is_set():
                begun, took = time.monotonic(), self._bystander.echo()
                self.times.append(took - (self._pauses.within(begun, begun + took) if took > Pauses.LEAST else 0))
                time.sleep(0.01)
        except Exception as failure:
            self.failure = failure

    @property
    def worst(self):
        wait(lambda: self.times, 1, "the bystander's first echo")
        return max(self.times)

    def __enter__(self):
        self._bystander.__enter__()
        self._pauses.start()
        self.start()
        return self

    def __exit__(self, kind, *rest):
        self._end.set()
        self.join()
        self._pauses.stop()
        self._bystander.__exit__(kind, *rest)
        assert kind or self.failure is None, self.failure
