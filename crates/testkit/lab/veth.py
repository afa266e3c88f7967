"""A network namespace with a veth pair, for benchmarks of live capture. Needs root."""
import contextlib
import subprocess


@contextlib.contextmanager
def pair(space, *names):
    """Makes the namespace `space` with the two ends `names`, up, for frames of 9000 bytes; removes it at the end."""
    def sh(*words):
        subprocess.run(words, check=True)

    subprocess.run(["ip", "netns", "del", space], stderr=subprocess.DEVNULL)
    sh("ip", "netns", "add", space)
    try:
        sh("ip", "-n", space, "link", "add", names[0], "type", "veth", "peer", "name", names[1])
        for name in names:
            sh("ip", "-n", space, "link", "set", name, "mtu", "9000", "up")
        yield
    finally:
        subprocess.run(["ip", "netns", "del", space])
