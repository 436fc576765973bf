"""A process that has imported what jobs need, and forks a child for each call of an entry: importing takes longer than tiny training.

It reads a call in JSON from each line of its input and answers with a line: ``{"argv": […], …}`` with the child's process id,
``{"wait": id}`` with its exit status, negative if a signal ended it, and ``{"pause": id}`` with the signal that stopped it. A child
notes its moments, which are changes of files below a folder and starts of tasks or spectra, and sends itself a signal at those that it
is told.
"""

import gc
import json
import os
import resource
import runpy
import signal
import sys
from pathlib import Path

import torch.fx.experimental.symbolic_shapes  # noqa: F401 # which torch.autograd.grad imports at its first call

import plasticity.curvature.measure  # with all that measuring needs
import plasticity.training.chunks  # noqa: F401 # and training
from plasticity.curvature.operator import Operator
from plasticity.training.trainer import Trainer

CHANGES = {
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
}  # as Python's audit hooks call them


def watch(notes, below, fatal=None, number=None, again=False):
    """Note every moment in a file just before it comes; send the numbered signal at the fatal one: how it begins, and which of those.

    Again and again, the signal comes at all such moments from then on.
    """
    notes, seen = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 0

    def moment(what):
        nonlocal seen
        os.write(notes, f"{what}\n".encode())
        if fatal and what.startswith(fatal[0]):
            seen += 1
            if seen == fatal[1] + 1 or (again and seen > fatal[1]):
                os.kill(os.getpid(), number)

    def changed(event, args):
        if event in CHANGES and str(args[0]).startswith(below):
            path = Path(args[0])
            if event == "open" or path.exists() != (
                event == "os.mkdir"
            ):  # nothing is made that is there, or removed that is not
                moment(f"{event} {path.name}")

    def noted(members):
        moment("learn")
        learn(members)

    def noted_spectra(operator, *args, **options):
        moment("spectra")
        return spectra(operator, *args, **options)

    learn, Trainer.learn = Trainer.learn, noted
    spectra, Operator.spectra = Operator.spectra, noted_spectra
    sys.addaudithook(changed)


def limit(size, fatal):
    """Let no file grow beyond a size; a write that would make one larger fails, or ends the process amid it."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if fatal else signal.SIG_IGN)


def run(argv, said, watched, limited=None):
    """The entry as a process of its own, whose output goes to a file."""
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    watch(**watched)
    if limited:
        limit(**limited)
    sys.argv, status = argv, 0
    try:
        runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as end:
        status = end.code or 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


gc.freeze()  # a collection in a forked process would visit, and so copy, all that was imported
for line in sys.stdin:
    call = json.loads(line)
    if "wait" in call:
        print(os.waitstatus_to_exitcode(os.waitpid(call["wait"], 0)[1]), flush=True)
    elif "pause" in call:
        print(os.WSTOPSIG(os.waitpid(call["pause"], os.WUNTRACED)[1]), flush=True)
    elif pid := os.fork():
        print(pid, flush=True)
    else:
        run(**call)
