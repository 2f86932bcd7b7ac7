#!/bin/bash
# Names the directory where tests keep what they write: in memory where there is room for it, because
# each of the thousand stores, tokens and databases of a run would otherwise wait for the disk with every
# commit. They kill programs and not machines: what a disk loses is tested by making its writes fail.
set -euo pipefail
room_kib=$(df --output=avail -k /dev/shm 2>/dev/null | tail -1 || true)
if [ -n "${TMPDIR:-}" ]; then
    echo "$TMPDIR"
elif [ -w /dev/shm ] && [ "${room_kib:-0}" -ge 4000000 ]; then
    echo /dev/shm
else
    echo /tmp
fi
