"""Take the place of `python`: send the command to the fork server, wait for its end, and exit with its status.

Commands that the server does not run, such as ``python -c``, are run by the interpreter itself.
"""

import json
import os
import socket
import sys

KILLED = 137  # a shell's exit status of a process that SIGKILL ended


def main() -> None:
    """Run the command that is given as arguments."""
    arguments = sys.argv[1:]
    if not arguments or (arguments[0].startswith("-") and arguments[0] != "-m"):
        os.execv(sys.executable, [sys.executable, *arguments])
    env = dict(os.environ)
    folder = os.getcwd()  # noqa: PTH109 - importing pathlib would take longer than all else here
    request = json.dumps({"arguments": arguments, "folder": folder, "env": env}).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(env["FORK_SERVER"])
        socket.send_fds(connection, [len(request).to_bytes(8, "big")], [0, 1, 2])
        connection.sendall(request)
        status = connection.recv(1)
    sys.exit(status[0] if status else KILLED)


main()
