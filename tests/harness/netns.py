"""Hosts in network namespaces, for tests in which addresses matter."""
import contextlib
import ctypes
import itertools
import json
import os
import pathlib
import shutil
import subprocess

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_serial = itertools.count()


def _enter(path):
    with open(path) as namespace:
        if _libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {path}")


def ip(*words):
    done = subprocess.run(["ip", *map(str, words)], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, f"ip {' '.join(map(str, words))}: {done.stderr}"
    return done.stdout


class Host:
    """One namespace. prefix: what stands before a command that is to run in it."""

    def __init__(self, name):
        self.name = name
        self.prefix = ["ip", "netns", "exec", name]
        self._links = 0

    def ip(self, *words):
        return ip("-n", self.name, *words)

    def run(self, *command, **options):
        """subprocess.run of a command in this namespace; 20 s unless said otherwise."""
        options = {"capture_output": True, "text": True, "timeout": 20} | options
        return subprocess.run(self.prefix + [str(word) for word in command], **options)

    @contextlib.contextmanager
    def inside(self):
        """What this thread opens and starts within is in this namespace: sockets, threads and processes."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            _enter(f"/run/netns/{self.name}")
            yield self
        finally:
            _enter(f"/proc/self/fd/{before}")
            os.close(before)

    def nft(self, rules):
        """Loads an nft script."""
        done = self.run("nft", "-f", "-", input=rules)
        assert done.returncode == 0, done.stderr

    def counter(self, name):
        """Packets of a named nft counter in the table "inet watch"."""
        return int(self.run("nft", "list", "counter", "inet", "watch", name).stdout.split("packets")[1].split()[0])

    def resolve_with(self, server):
        """The nameserver of what is started with `prefix`: its resolv.conf, over the machine's own."""
        self._own("resolv.conf", f"nameserver {server}\n")

    def know(self, hosts):
        """{name: address}: the /etc/hosts of what is started with `prefix`."""
        self._own("hosts", "".join(f"{address} {name}\n" for name, address in hosts.items()))

    def _own(self, file, text):
        folder = pathlib.Path("/etc/netns") / self.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)

    def remove(self):
        ip("netns", "delete", self.name)
        shutil.rmtree(pathlib.Path("/etc/netns") / self.name, ignore_errors=True)

    def next_link(self):
        self._links += 1
        return f"eth{self._links - 1}"


class Network:
    """A set of hosts and the cables between them. A context manager: at the end the namespaces and all in them go.

        left, right = network.host("left"), network.host("right")
        network.cable(left, "10.0.0.1/24", right, "10.0.0.2/24")
    """

    def __init__(self):
        self.hosts = []

    def host(self, label):
        """A new namespace with loopback up."""
        host = Host(f"twohop-{os.getpid()}-{next(_serial)}-{label}")
        ip("netns", "add", host.name)
        self.hosts.append(host)
        host.ip("link", "set", "lo", "up")
        return host

    def cable(self, one, one_addresses, other, other_addresses, mtu=1500):
        """A veth pair; addresses are one "ADDRESS/LENGTH" or a list of them. Returns the two interface names."""
        names = one.next_link(), other.next_link()
        ip("link", "add", names[0], "netns", one.name, "mtu", mtu, "type", "veth",
           "peer", "name", names[1], "netns", other.name, "mtu", mtu)
        for host, name, addresses in ((one, names[0], one_addresses), (other, names[1], other_addresses)):
            for address in [addresses] if isinstance(addresses, str) else addresses:
                host.ip("address", "add", address, "dev", name, *(["nodad"] if ":" in address else []))
            host.ip("link", "set", name, "up")
        # A new link loses the first question for an IPv6 neighbour, and asks again after a second.
        self._introduce(one, names[0], other_addresses, other, names[1])
        self._introduce(other, names[1], one_addresses, one, names[0])
        return names

    @staticmethod
    def _introduce(host, name, addresses, other, other_name):
        link = json.loads(other.ip("-j", "link", "show", other_name))[0]["address"]
        for address in [addresses] if isinstance(addresses, str) else addresses:
            if ":" in address:
                host.ip("neighbour", "replace", address.split("/")[0], "lladdr", link, "dev", name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        failures = []
        for host in reversed(self.hosts):
            try:
                host.remove()
            except AssertionError as failure:
                failures.append(str(failure))
        assert not failures, failures
