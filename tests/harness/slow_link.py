"""A link of two TUN devices that takes its time: TCP and QUIC see a delay, and a bottleneck, as on a real path."""
import collections
import fcntl
import os
import select
import struct
import threading
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000

Packet = collections.namedtuple("Packet", "at up size")


def _open(host, name):
    with host.inside():
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return fd


class SlowLink:
    """Between two netns.Hosts, `delay` seconds each way. A context manager. seen: every Packet of IP, `at` when it left its sender,
    `up` if that was the first host.

    rate: bytes per second of each way, None: no limit; up to QUEUE seconds' worth of them wait, what comes above is dropped.
    lose_up: how many of the next packets from the first host are lost; counts down.
    """

    QUEUE = 0.05

    def __init__(self, one, one_addresses, other, other_addresses, delay, rate=None):
        self.delay, self.rate, self.seen, self.lose_up = delay, rate, [], 0
        self._free = {}  # by device: when it has sent what waits
        self._fds = []
        for host, addresses in ((one, one_addresses), (other, other_addresses)):
            name = host.next_link()
            self._fds.append(_open(host, name))
            for address in addresses:
                host.ip("address", "add", address, "dev", name, *(["nodad"] if ":" in address else []))
            host.ip("link", "set", name, "up", "mtu", 1500)
        self._waker = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        os.write(self._waker[1], b"x")
        self._thread.join(5)
        for fd in (*self._fds, *self._waker):
            os.close(fd)

    def _sent(self, fd, size, now):
        """When the packet has passed the bottleneck; None: it is dropped."""
        if self.rate is None:
            return now
        begins = max(now, self._free.get(fd, now))
        if begins > now + self.QUEUE:
            return None
        self._free[fd] = begins + size / self.rate
        return self._free[fd]

    def _run(self):
        queue = collections.deque()  # (due, to, bytes), in the order of time
        while True:
            wait = max(0, queue[0][0] - time.monotonic()) if queue else None
            readable, _, _ = select.select([*self._fds, self._waker[0]], [], [], wait)
            if self._waker[0] in readable:
                return
            for fd in readable:
                packet, now = os.read(fd, 65536), time.monotonic()
                self.seen.append(Packet(now, fd == self._fds[0], len(packet)))
                sent = self._sent(fd, len(packet), now)
                if self.lose_up > 0 and fd == self._fds[0]:
                    self.lose_up, sent = self.lose_up - 1, None
                if sent is not None:
                    queue.append((sent + self.delay, self._fds[1 - self._fds.index(fd)], packet))
            while queue and queue[0][0] <= time.monotonic():
                _, to, packet = queue.popleft()
                os.write(to, packet)
