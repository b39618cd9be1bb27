#!/usr/bin/env python3
"""in_terminal.py KEYS command... - runs a command in a terminal of its own and types.

KEYS are words such as 3:c,0:c: after 3 lines with "step" have been shown, ^C; then at once ^C again.
c: ^C. z (once): ^Z, then, when everything of the command that runs stands still, `fg`. h: the terminal is closed.
A shell with job control stands between, as a user's does. What the terminal shows goes to stdout; the exit
code is that of the command (of a closed terminal: 0 when the shell is gone).
"""
import os
import pty
import signal
import sys
import time

SHELL = '''set -m
"$@"
got=$?
if [ $got = 148 ]; then
    echo "<stopped>"
    read -r go
    fg >/dev/null
    got=$?
fi
exit $got'''


def main():
    keys = [(int(word[:-2]), word[-1]) for word in sys.argv[1].split(",")]
    command = sys.argv[2:]
    pid, fd = pty.fork()
    if pid == 0:
        os.execvp("bash", ["bash", "-c", SHELL, "terminal", *command])
    signal.alarm(100)
    shown = b""
    mark = 0
    while True:
        if keys and shown.count(b'"step"', mark) >= keys[0][0]:
            mark = len(shown)
            _, key = keys.pop(0)
            if key == "c":
                time.sleep(0.7)  # requests that lie closer together than half a second are one
                os.write(fd, b"\x03")
            elif key == "z":
                os.write(fd, b"\x1a")
            else:
                os.close(fd)
                os.waitpid(pid, 0)
                return 0
        try:
            data = os.read(fd, 65536)
        except OSError:  # the other side is closed
            break
        if not data:
            break
        shown += data
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        if b"<stopped>" in data:
            check_stopped()
            os.write(fd, b"go\n")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def check_stopped():
    """Every trainer of this run stands still soon; says how many do."""
    for _ in range(50):
        states = [state for state in map(state_of, os.listdir("/proc")) if state]
        if states and set(states) == {"T"}:
            print(f"<{len(states)} trainers stand still>", flush=True)
            return
        time.sleep(0.1)
    print(f"<states of trainers: {states}>", flush=True)


def state_of(name):
    """State of a trainer that this run has started, else None."""
    try:
        with open(f"/proc/{name}/cmdline", "rb") as f:
            words = f.read().split(b"\0")
        with open(f"/proc/{name}/stat") as f:
            state = f.read().rsplit(")", 1)[1].split()[0]
    except (OSError, IndexError):
        return None
    folder = sys.argv[-1].encode()
    return state if words[0].endswith(b"/train_db") and folder in words else None


if __name__ == "__main__":
    sys.exit(main())
