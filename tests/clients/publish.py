"""What an application written with nats-py sees: publishes, is confined to its index, and is cut off when it is unbound.

Arguments: NATS URL, credentials file, inbox prefix. Prints one JSON line for each stage.
"""

import asyncio
import json
import sys
import time

import nats


def tell(**words):
    print(json.dumps(words), flush=True)


async def main(url, creds, inbox_prefix):
    violations = []
    cut_off = asyncio.Event()

    async def on_error(error):
        violations.append(str(error))

    async def on_disconnect():
        if not cut_off.is_set():
            tell(cut_off_at=time.time())
            cut_off.set()

    nc = await nats.connect(
        url,
        user_credentials=creds,
        inbox_prefix=inbox_prefix.encode(),
        error_cb=on_error,
        disconnected_cb=on_disconnect,
        max_reconnect_attempts=2,
        reconnect_time_wait=0.1,
    )
    js = nc.jetstream()
    order = {"Nats-Msg-Id": "order-4711"}
    first = await js.publish("logs.mine.cart-17", b'{"level":"info","msg":"paid","amount":12}', headers=order)
    again = await js.publish("logs.mine.cart-17", b'{"level":"info","msg":"paid","amount":12}', headers=order)
    for subject in ["logs.theirs", "lane.0.theirs"]:
        try:
            await js.publish(subject, b"intruder", timeout=1)
            raise SystemExit(f"{subject} was acknowledged")
        except (asyncio.TimeoutError, nats.errors.Error):
            pass
    await nc.subscribe("alerts.theirs.>")
    await nc.flush()
    deadline = time.time() + 5
    while len(violations) < 3 and time.time() < deadline:
        await asyncio.sleep(0.02)
    tell(
        published=first.stream,
        duplicate_first=bool(first.duplicate),
        duplicate_again=bool(again.duplicate),
        violations=violations,
    )
    await asyncio.wait_for(cut_off.wait(), timeout=20)
    try:
        await js.publish("logs.mine", b"unbound", timeout=1)
        tell(published_after=True)
    except (asyncio.TimeoutError, nats.errors.Error):
        tell(published_after=False)


asyncio.run(main(*sys.argv[1:4]))
