"""A Lambda function in Python: takes the event's `seconds`.

    pip install awslambdaric
    burstd dev --function py='python3 -m awslambdaric handler.handler'   # from this folder

and in another terminal, 500 of them (with the variables that `burstd dev` prints):

    printf 'table = "tasks"\\n[queues.py]\\nfunction = "py"\\n' > dev.toml
    for i in $(seq 500); do echo "{\"id\": \"py-$i\", \"payload\": {\"seconds\": 0.5}}"; done |
      burstd put --config dev.toml --queue py --file -
"""

import time


def handler(event, context):
    seconds = event.get("seconds", 0)
    if seconds < 0:
        raise ValueError(f"{seconds} s is not a time")
    print(f"working for {seconds} s")
    time.sleep(seconds)
    task = context.client_context and context.client_context.custom["task_id"]
    return {"seconds": seconds, "task": task}
