"""Answers SQL on a ClickHouse in this process: one JSON text a line in, one JSON value a line out."""
import json
import sys

from chdb import session

store = session.Session(sys.argv[1])
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    try:
        rows = bytes(store.query(json.loads(line), "JSONCompactEachRow").bytes() or b"")
        print("[" + rows.decode().strip().replace("\n", ",") + "]", flush=True)
    except Exception as error:
        print(json.dumps({"error": str(error)}), flush=True)
