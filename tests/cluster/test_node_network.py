"""A node's own address and its block of ports."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

from lrstudy_cluster import node_network
from lrstudy_cluster.node_network import FIRST, GUARDS, UNIT, claim, own_address


@pytest.fixture
def claimed():
    """Claims blocks, and gives them back at the end."""
    guards = []

    def claim_one(count: int, start: int = 0) -> int:
        first, held = claim(count, start)
        guards.extend(held)
        return first

    yield claim_one
    for guard in guards:
        guard.close()


def test_blocks_do_not_overlap_whatever_their_sizes(claimed):
    blocks = [(claimed(count, start=100), count) for count in (46, 120, 10, 200, 51)]
    ports = [port for first, count in blocks for port in range(first, first + count)]
    assert len(set(ports)) == len(ports)
    assert min(ports) >= FIRST
    assert max(ports) < 32_768  # where Linux's own begin


def test_a_block_with_a_port_in_use_is_passed_over(claimed):
    free = claimed(60, start=200)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as Ray binds its ports
        taken.bind(("127.0.0.1", free + 2 * UNIT + 33))
        taken.listen()
        assert claimed(60, start=202) >= free + 3 * UNIT


def test_a_block_that_was_given_back_can_be_claimed_again():
    first, guards = claim(80, start=300)
    for guard in guards:
        guard.close()
    again, guards = claim(80, start=300)
    for guard in guards:
        guard.close()
    assert again == first


def test_the_last_block_ends_where_the_range_does(claimed):
    first = claimed(UNIT, start=node_network.NUM_UNITS - 1)
    assert first + UNIT == FIRST + node_network.NUM_UNITS * UNIT


def test_too_many_ports_are_refused_with_the_range():
    with pytest.raises(OSError, match="no 30000 consecutive free ports between 11000 and 32500"):
        claim(30_000)


def test_the_own_address_is_that_which_leads_to_the_peer_or_that_of_the_interface():
    assert own_address("127.0.0.1") == "127.0.0.1"
    assert own_address("192.0.2.1", "lo") == "127.0.0.1"
    with pytest.raises(OSError, match=r"no interface ib7 with an IPv4 address here; there are .*lo"):
        own_address("127.0.0.1", "ib7")


def test_the_program_holds_its_block_until_it_is_ended():
    command = [sys.executable, "-P", "-m", "lrstudy_cluster.node_network", "--peer", "127.0.0.1", "--count", "60"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address, first = process.stdout.readline().split()
        assert address == "127.0.0.1"
        guard = GUARDS + (int(first) - FIRST) // UNIT
        assert not _can_listen(guard)
        assert not _can_listen(guard + 1)
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
    deadline = time.monotonic() + 30
    while not (_can_listen(guard) and _can_listen(guard + 1)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _can_listen(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True
