"""What a node of a job needs of its network, as a program: prints the node's own address and the first port of a free block.

It then holds the block until it is terminated. Ray binds its ports one after the other, with SO_REUSEPORT, so that a port
that another Ray of the same user has is not refused but shared. Hence every port is tried first, and whoever is still
about to bind theirs is seen by guards: a block is made of units, and each unit has a port outside of all blocks that its
holder listens on.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from collections.abc import Sequence

import psutil

UNIT = 50
FIRST = 11_000
NUM_UNITS = 430
"""Blocks lie from 11000 to 32499, below the ports that Linux gives to outgoing connections."""
GUARDS = 10_500
"""The guard of unit u is port GUARDS + u."""


def claim(count: int, start: int = 0) -> tuple[int, list[socket.socket]]:
    """Claim a block of consecutive ports on this machine that nobody listens on.

    Args:
        count: How many ports.
        start: The unit that is tried first; others follow in order, round to the one before it.

    Returns:
        The first port, and the guards; the block is claimed until they are closed.

    Raises:
        OSError: There is no such block.
    """
    num_units = -(-count // UNIT)
    for offset in range(NUM_UNITS - num_units + 1):
        unit = (start + offset) % (NUM_UNITS - num_units + 1)
        first = FIRST + unit * UNIT
        guards = _listening([GUARDS + unit + number for number in range(num_units)])
        if guards and all(_is_free(first + number) for number in range(count)):
            return first, guards
        _close(guards)
    raise OSError(f"no {count} consecutive free ports between {FIRST} and {FIRST + NUM_UNITS * UNIT}")


def own_address(peer: str, interface: str | None = None) -> str:
    """The IPv4 address under which another node reaches this one.

    Args:
        peer: Address of another node, or of this one if it is alone.
        interface: The interface to take the address of, such as ``ib0``; by default the one that leads to the peer.

    Raises:
        OSError: There is no way to the peer, or no such interface.
    """
    if interface is not None:
        interfaces = psutil.net_if_addrs()
        for address in interfaces.get(interface, ()):
            if address.family == socket.AF_INET:
                return address.address
        raise OSError(f"no interface {interface} with an IPv4 address here; there are {', '.join(interfaces)}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((peer, 9))  # sends nothing
        return str(probe.getsockname()[0])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print address and first port on one line, then hold the block for ever."""
    parser = argparse.ArgumentParser(prog="lrstudy_cluster.node_network", description=__doc__)
    parser.add_argument("--count", type=int, required=True, help="how many ports")
    parser.add_argument("--peer", required=True, help="address of another node")
    parser.add_argument("--interface", help="the interface whose address to take, such as ib0")
    asked = parser.parse_args(arguments)
    try:
        address = own_address(asked.peer, asked.interface)
        first, _guards = claim(asked.count, start=os.getpid() % NUM_UNITS)
    except OSError as error:
        sys.exit(f"lrstudy: {error}")
    print(address, first, flush=True)
    signal.pause()


def _listening(ports: Sequence[int]) -> list[socket.socket]:
    """Sockets that listen on these ports of all interfaces; none if one of the ports is taken."""
    sockets: list[socket.socket] = []
    for port in ports:
        guard = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sockets.append(guard)
        try:
            guard.bind(("", port))
            guard.listen(1)
        except OSError:
            _close(sockets)
            return []
    return sockets


def _close(sockets: Sequence[socket.socket]) -> None:
    for opened in sockets:
        opened.close()


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that are long closed do not count
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True


if __name__ == "__main__":
    main()
