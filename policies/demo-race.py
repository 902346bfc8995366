"""Races an exec: `python3 demo-race.py PROGRAM TRIES`.

PROGRAM is a link named `systemctl` that leads to `echo`. Each try executes it while a thread rewrites its
argument between `status` (allowed) and `reboot` (denied). What it prints is what it was started with. Ends
with 0 if `reboot` never got through.
"""

import collections
import ctypes
import os
import sys
import threading

program, tries = sys.argv[1].encode(), int(sys.argv[2])
libc = ctypes.CDLL(None)
word = ctypes.create_string_buffer(b"status")
argv = (ctypes.c_char_p * 3)(program, ctypes.addressof(word), None)

def swap():
    while True:
        word[:6] = b"reboot"
        word[:6] = b"status"

def attempt():
    source, sink = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(sink, 1)
        threading.Thread(target=swap, daemon=True).start()
        libc.execv(program, argv)  # without the interpreter's lock: the thread goes on
        os._exit(126)
    os.close(sink)
    with open(source, "rb") as said:
        printed = said.read().strip()
    denied = os.waitpid(pid, 0)[1] != 0
    return "denied" if denied else printed.decode(errors="replace")

seen = collections.Counter(attempt() for _ in range(tries))
told = f"{tries} races: {seen['denied']} denied, {seen['status']} ran with `status`, {seen['reboot']} with `reboot`"
print(told)
sys.exit(1 if seen["reboot"] or not seen["denied"] else 0)
