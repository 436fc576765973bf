"""Run in place of `python`: send the command to the fork server, and exit with its status.

The interpreter itself runs commands that the server does not support, such as `python -c`.
"""

import json
import os
import socket
import sys

KILLED = 137  # the exit status that a shell reports after SIGKILL


def main() -> None:
    """Run the command that the arguments give."""
    arguments = sys.argv[1:]
    if not arguments or (arguments[0].startswith("-") and arguments[0] != "-m"):
        os.execv(sys.executable, [sys.executable, *arguments])
    env = dict(os.environ)
    folder = os.getcwd()  # noqa: PTH109 - the import of pathlib takes longer than all other steps
    request = json.dumps({"arguments": arguments, "folder": folder, "env": env}).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(env["FORK_SERVER"])
        socket.send_fds(connection, [len(request).to_bytes(8, "big")], [0, 1, 2])
        connection.sendall(request)
        status = connection.recv(1)
    sys.exit(status[0] if status else KILLED)


main()
