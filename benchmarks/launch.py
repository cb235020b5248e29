"""Start a program and say what it used: ``python -S launch.py RESULT PROGRAM ARGUMENTS...``.

A process inherits the peak of memory of the one it was forked from until it replaces itself, and keeps it in its account.
This one imports next to nothing, so that what it starts has the peak of its own.
"""

import json
import os
import sys

result, program = sys.argv[1], sys.argv[2:]
pid = os.posix_spawn(program[0], program, os.environ)
_, status, usage = os.wait4(pid, 0)
with open(result, "w", encoding="utf-8") as file:  # noqa: PTH123  (pathlib is not next to nothing)
    json.dump(
        {
            "status": os.waitstatus_to_exitcode(status),
            "cpu": usage.ru_utime + usage.ru_stime,
            "peak": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        },
        file,
    )
