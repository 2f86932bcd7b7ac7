#!/usr/bin/python3
"""Does to a stopped or running development vault what somebody with its database could do.

  tamper.py entry DATABASE INDEX     changes one bit of an entry of the record; again, changes it back
  tamper.py grant DATABASE FROM TO   copies the first grant of one identity to another; prints its id
  tamper.py remove DATABASE ID       removes a grant

For the demonstration: the first two must be found.
"""

import sqlite3
import sys
import uuid


def alter_entry(store, index):
    """Flips a bit in the last byte of an entry: bundles are 16-bit lengths and entries."""
    first, lane, seq = store.execute(
        "SELECT first, lane, seq FROM log_places WHERE first <= ? ORDER BY first DESC LIMIT 1",
        (index,),
    ).fetchone()
    where = "WHERE lane = ? AND seq = ?"
    (body,) = store.execute(f"SELECT body FROM record_batches {where}", (lane, seq)).fetchone()
    body, end = bytearray(body), 0
    for _ in range(index - first + 1):
        end += 2 + int.from_bytes(body[end : end + 2], "big")
    body[end - 1] ^= 1
    store.execute(f"UPDATE record_batches SET body = ? {where}", (bytes(body), lane, seq))
    print(f"UPDATE record_batches … WHERE lane = {lane} AND seq = {seq}: byte {end - 1}")


def insert_grant(store, giver, taker):
    """Inserts a copy of a grant, MAC and all, with another subject."""
    ids = dict(store.execute("SELECT name, id FROM identities"))
    rows = store.execute(
        "SELECT * FROM grants WHERE subject = ? AND active = 1 ORDER BY id", (ids[giver],)
    )
    columns = [column[0] for column in rows.description]
    row = dict(zip(columns, rows.fetchone()))
    row["id"], row["subject"] = str(uuid.uuid4()), ids[taker]
    marks = ", ".join("?" * len(columns))
    store.execute(f"INSERT INTO grants ({', '.join(columns)}) VALUES ({marks})", tuple(row.values()))
    print(row["id"])


def main():
    verb, path, *rest = sys.argv[1:]
    with sqlite3.connect(path, timeout=10) as store:
        if verb == "entry":
            alter_entry(store, int(rest[0]))
        elif verb == "grant":
            insert_grant(store, *rest)
        elif verb == "remove":
            store.execute("DELETE FROM grants WHERE id = ?", rest)
        else:
            raise SystemExit(__doc__)


main()
