"""A link that counts round trips instead of seconds: what has left crosses in turns, and each waits for those who think."""
import os
import select
import threading
import time

from harness.slow_link import SlowLink


class Settled:
    """Whether processes wait, all of them, for something else than a processor."""

    def __init__(self, pids):
        """pids(): of the processes; of this one all threads but the one that asks."""
        self._pids, self._last = pids, None

    def _look(self):
        for pid in self._pids():
            for task in os.listdir(f"/proc/{pid}/task"):
                if int(task) != threading.get_native_id():
                    with open(f"/proc/{pid}/task/{task}/status") as status:
                        yield tuple(line for line in status if line.startswith(("State", "Pid", "voluntary", "nonvoluntary")))

    def wait(self):
        """Until all sleep and none has done anything between two looks."""
        while True:
            try:
                now = list(self._look())
            except (FileNotFoundError, ProcessLookupError):
                now = None  # somebody ended meanwhile
            if now and now == self._last and all("sleeping" in task[0] for task in now):
                return
            self._last = now
            time.sleep(0.002)


class TurnLink(SlowLink):
    """All that has left on either side crosses at the same moment, `delay` seconds or more after what crossed before, and not before
    everybody has done what he does about that. So a round trip is two turns on every machine. It has no rate.

    pids: to be set before it is entered, a function that gives those of the processes that are waited for. turns: how many there
    were, those included in which nothing crossed; is_quiet: whether the last one was such. answered: what `turns` was when what
    watch() was given said yes. seen: (turn, up, size) of every packet of IPv4, up if the first host sent it.
    """

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.pids, self.turns, self.is_quiet, self._lock = None, 0, True, threading.Lock()
        self._is_there, self.answered = None, None

    def held(self):
        """A context manager: no turn within."""
        return self._lock

    def watch(self, is_there):
        """Asks before each turn from now on, until it says yes."""
        self._is_there, self.answered = is_there, None

    def _turn(self):
        if self.answered is None and self._is_there and self._is_there():
            self.answered = self.turns
        self.turns += 1
        crossing = []
        for fd, other in zip(self._fds, reversed(self._fds)):
            while select.select([fd], [], [], 0)[0]:
                crossing.append((other, os.read(fd, 65536)))
        self.is_quiet = not crossing
        for to, packet in crossing:
            if packet[0] >> 4 == 4:
                self.seen.append((self.turns, to == self._fds[1], len(packet)))
            os.write(to, packet)

    def _run(self):
        settled = Settled(lambda: [os.getpid(), *self.pids()])
        while not select.select([self._waker[0]], [], [], self.delay)[0]:
            with self._lock:
                settled.wait()
                self._turn()
