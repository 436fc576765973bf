"""A server that forks a child for each call of an entry.

It has imported what jobs need, because imports take longer than tiny training. It reads calls in
JSON, one per line, and answers each with a line:

- ``{"argv": […], …}``: the process id of the child;
- ``{"wait": id}``: its exit status, negative if a signal ended it;
- ``{"pause": id}``: the signal that stopped it.

A child records events: changes of files in a folder, and starts of tasks or spectra. It sends
itself a signal before the event that the call names.
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
    """Record every event just before it happens, and send a signal before one of them.

    Args:
        notes: file for the events, one per line.
        below: changes of files in this folder are events.
        fatal: how the fatal event begins, and its index among events that begin so.
        number: the signal.
        again: send the signal at all later events of this kind, too.
    """
    notes = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    seen = 0

    def record(event):
        nonlocal seen
        os.write(notes, f"{event}\n".encode())
        if fatal and event.startswith(fatal[0]):
            seen += 1
            if seen == fatal[1] + 1 or (again and seen > fatal[1]):
                os.kill(os.getpid(), number)

    def changed(event, args):
        if event in CHANGES and str(args[0]).startswith(below):
            path = Path(args[0])
            # only if something changes: mkdir of a new folder, or removal of an existing file
            if event == "open" or path.exists() != (event == "os.mkdir"):
                record(f"{event} {path.name}")

    def recorded_learn(trainer):
        record("learn")
        learn(trainer)

    def recorded_spectra(operator, *args, **options):
        record("spectra")
        return spectra(operator, *args, **options)

    learn, Trainer.learn = Trainer.learn, recorded_learn
    spectra, Operator.spectra = Operator.spectra, recorded_spectra
    sys.addaudithook(changed)


def limit(size, fatal):
    """Limit the size of files; a larger write fails, or ends the process if `fatal`."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if fatal else signal.SIG_IGN)


def run(argv, said, watched, limited=None):
    """Run the entry in this process, with its output in the file `said`."""
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


gc.freeze()  # else a collection in a child would visit, and so copy, all imported objects
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
