#!/usr/bin/env python3
"""peak_memory.py FILE COMMAND...: runs the command and writes its peak of resident memory, in KiB, into FILE."""
import os
import sys

pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
status, usage = os.wait4(pid, 0)[1:]
with open(sys.argv[1], "w", encoding="ascii") as f:
    print(usage.ru_maxrss, file=f)
sys.exit(os.waitstatus_to_exitcode(status))
