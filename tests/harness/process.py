"""twohop and twohop-client as processes of a test."""
import contextlib
import http.client
import json
import os
import pathlib
import re
import select
import signal
import subprocess
import threading
import time

import yaml

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("TWOHOP_BUILD", TOP / "build" / "debug"))
# A build without sanitizers, for measuring memory; None: there is none.
RELEASE = pathlib.Path(os.environ["TWOHOP_RELEASE"]) if "TWOHOP_RELEASE" in os.environ else None
SANITIZERS = {
    "ASAN_OPTIONS": "halt_on_error=1:abort_on_error=0:exitcode=99:detect_leaks=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1:exitcode=99",
    "LSAN_OPTIONS": "exitcode=99",
    "TSAN_OPTIONS": "halt_on_error=1:exitcode=99",
}
REPORT = re.compile(r"AddressSanitizer|LeakSanitizer|ThreadSanitizer|UndefinedBehaviorSanitizer|runtime error:")


def environment():
    """This process's environment; what it says of sanitizers stands before our own."""
    return os.environ | {k: v + (":" + os.environ[k] if k in os.environ else "") for k, v in SANITIZERS.items()}


class Output:
    """What a process writes on a pipe; whatever it wrote before somebody asks is in the answer.

    That holds between processes too: when one line is there, so are the lines of another process that caused it. A
    thread keeps the pipe empty while nobody asks, but nobody depends on its turns.
    """

    def __init__(self, pipe):
        self._pipe, self._lines, self._rest, self._ended = pipe, [], b"", False
        self._changed = threading.Condition()
        os.set_blocking(pipe.fileno(), False)
        self._keeper = threading.Thread(target=self._keep_empty, daemon=True)
        self._keeper.start()

    def text(self):
        """The whole lines, and the last one as it is when the writer has ended."""
        with self._changed:
            self._take()
            return "".join(self._lines)

    def has_ended(self):
        with self._changed:
            return self._ended

    def num_lines(self):
        with self._changed:
            self._take()
            return len(self._lines)

    def wait(self, seen, timeout):
        """Returns when there are more lines than that, or there will be none, at the latest after so many seconds."""
        with self._changed:
            self._take()
            if not self._ended and len(self._lines) == seen:
                self._changed.wait(timeout)

    def join(self, timeout):
        """The writer has ended: waits until all of it is read and the pipe is closed."""
        self._keeper.join(timeout)

    def _keep_empty(self):
        readable = select.poll()  # select() knows no descriptor beyond 1023
        readable.register(self._pipe, select.POLLIN)
        with self._pipe:
            while not self.has_ended():
                readable.poll()
                with self._changed:
                    self._take()

    def _take(self):
        """Reads what is there. Only under the lock."""
        while not self._ended:
            try:
                data = os.read(self._pipe.fileno(), 65536)
            except BlockingIOError:
                return
            *whole, self._rest = (self._rest + data).split(b"\n")
            self._lines += [line.decode(errors="replace") + "\n" for line in whole]
            if not data:
                self._lines.append(self._rest.decode(errors="replace"))
                self._ended = True
            self._changed.notify_all()


class Process:
    """One program of ours with one configuration, from its start to its clean end.

    Order of calls: the constructor writes the YAML file, tests it with -t and waits until the program is ready; then
    use it; then stop(), which asserts a clean end. Group does the last by itself. log is what it wrote so far.
    """

    program = None

    def __init__(self, config, folder, name, prefix=(), ready_timeout=20, arguments=(), build=None):
        """config: what becomes the YAML file. prefix: put before the command, e.g. netns.Host.prefix."""
        self.name, self.config, self.prefix = name, config, list(prefix)
        self.path = folder / f"{name}.yaml"
        self.path.write_text(yaml.safe_dump(config, sort_keys=False))
        command = self.prefix + [str((build or BUILD) / self.program)]
        tested = subprocess.run(command + ["-t", "-c", str(self.path)], env=environment(), capture_output=True,
                                text=True, errors="replace", timeout=20)
        assert tested.returncode == 0, f"{self.program} -t refuses {self.path}:\n{tested.stdout}{tested.stderr}"
        assert not REPORT.search(tested.stderr), tested.stderr
        self._process = subprocess.Popen(command + ["-c", str(self.path), *arguments], env=environment(),
                                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self._output = Output(self._process.stderr)
        try:
            self._wait_ready(time.monotonic() + ready_timeout)
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self):
        """A prefix such as `ip netns exec` replaces itself by the program, so this is the program's own."""
        return self._process.pid

    @property
    def log(self):
        return self._output.text()

    def events(self, event=None):
        """The log's JSON objects, or those whose "event" is this."""
        found = []
        for line in self.log.splitlines():
            with contextlib.suppress(ValueError):
                item = json.loads(line)
                if isinstance(item, dict) and event in (None, item.get("event")):
                    found.append(item)
        return found

    def wait_event(self, event, timeout=10):
        """The first log object of this event; an AssertionError with the log when it does not come in time."""
        deadline = time.monotonic() + timeout
        while True:
            is_last_look = self._output.has_ended() or time.monotonic() >= deadline
            seen = self._output.num_lines()
            if found := self.events(event):
                return found[0]
            assert not is_last_look, f"{self.name}: no event '{event}'. Its log:\n{self.log}"
            self._output.wait(seen, 0.2)

    def running(self):
        return self._process.poll() is None

    def signal(self, number):
        self._process.send_signal(number)

    def _is_stopped(self):
        states = [stat.read_text().rpartition(")")[2].split()[0] for stat in pathlib.Path(f"/proc/{self.pid}/task").glob("*/stat")]
        return set(states) == {"T"}

    @contextlib.contextmanager
    def frozen(self):
        """None of its threads does anything meanwhile; its kernel goes on."""
        self.signal(signal.SIGSTOP)
        try:
            deadline = time.monotonic() + 10
            while not self._is_stopped():
                assert time.monotonic() < deadline, f"{self.name} does not stop"
                time.sleep(0.001)
            yield
        finally:
            self.signal(signal.SIGCONT)

    def stop(self, timeout=40):
        """SIGTERM, and asserts exit status 0 without a sanitizer's report. timeout covers the 30 s given to tunnels."""
        if self.running():
            self.signal(signal.SIGTERM)
        self.wait_end(timeout)

    def wait_end(self, timeout=40):
        """Asserts that it ends by itself, or after a signal that was sent, with status 0 and clean."""
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not end within {timeout} s. Its log:\n{self.log}") from None
        self._output.join(5)
        assert status == 0, f"{self.name} ended with {status}. Its log:\n{self.log}"
        self.assert_clean()

    def assert_clean(self):
        assert not REPORT.search(self.log), f"{self.name}: a sanitizer's report:\n{self.log}"

    def kill(self):
        """SIGKILL: what a test does that wants a sudden death, and the last means of everybody else."""
        if self.running():
            self._process.kill()
        self._process.wait(10)
        self._output.join(5)
        self.assert_clean()

    def admin_get(self, path):
        """(status, body) from admin.listen. Only without a prefix that changes the network."""
        host, port = self._admin()
        connection = http.client.HTTPConnection(host, port, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def _admin(self):
        listen = (self.config.get("admin.listen") or (self.config.get("admin") or {}).get("listen"))
        if isinstance(listen, list):
            listen = listen[0]
        if isinstance(listen, dict):
            return str(listen.get("host", "127.0.0.1")), int(listen["port"])
        if isinstance(listen, int):
            return "127.0.0.1", listen
        if isinstance(listen, str) and not listen.startswith("/"):  # a unix socket is the test's own matter
            host, _, port = listen.rpartition(":")
            return host.strip("[]") or "127.0.0.1", int(port)
        return None

    def _healthy(self):
        if not self._admin() or self.prefix:
            return False
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.admin_get("/healthz")[0] == 200
        return False

    def _wait_ready(self, deadline):
        while not self.events("ready") and not self._healthy():
            assert self.running(), f"{self.name} ended with {self._process.wait()} at start:\n{self.log}"
            assert time.monotonic() < deadline, f"{self.name} is not ready. Its log:\n{self.log}"
            self._output.wait(self._output.num_lines(), 0.05)


class Relay(Process):
    """An ingress or egress."""

    program = "twohop"


class Client(Process):
    """The user's side."""

    program = "twohop-client"


class Group:
    """Starts processes of one kind and stops them all, newest first, even when stopping one fails."""

    def __init__(self, kind, folder):
        self._kind, self._folder, self._started = kind, folder, []

    def start(self, config, name=None, **options):
        name = name or f"{config.get('role', self._kind.__name__.lower())}{len(self._started)}"
        self._started.append(self._kind(config, self._folder, name, **options))
        return self._started[-1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.ExitStack() as stack:
            for process in self._started:
                stack.callback(self._end, process)

    @staticmethod
    def _end(process):
        if process.running():
            process.stop()
        else:
            process.assert_clean()
