"""PID 1 of a machine made of namespaces: mounts what is its own, starts its daemons when told to, reaps orphans for ever.

    namespace_init.py HOSTNAME FOLDER COMMAND...

FOLDER gets the daemons' output. The first line on standard input starts them; when this process is killed, the kernel
ends everything in its namespaces with it.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path


def main() -> None:
    hostname, folder, commands = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    socket.sethostname(hostname)
    subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)
    for place in ("/var/tmp", "/dev/shm"):  # node-local; /tmp is what the nodes share
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", place], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    print("ready", flush=True)
    sys.stdin.readline()
    for number, command in enumerate(commands):
        with (folder / f"{hostname}-{number}.log").open("ab") as log:
            subprocess.Popen(shlex.split(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break


if __name__ == "__main__":
    main()
