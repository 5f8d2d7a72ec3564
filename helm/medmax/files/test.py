"""Asks the release at MEDMAX_URL: is it ready, does it list its model, does it refuse strangers, does it answer?"""

import json
import os
import urllib.error
import urllib.request

URL, MODEL = os.environ["MEDMAX_URL"], os.environ["MEDMAX_MODEL_ID"]
ENTRY = os.environ["MEDMAX_API_KEYS"].split(",")[0].strip()
KEY = ENTRY.partition(":")[2] or ENTRY


def call(path: str, body: dict | None = None, key: str = "") -> tuple[int, dict]:
    data = json.dumps(body).encode() if body else None
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(URL + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, {}


def check(what: str, right: bool) -> None:
    print("ok" if right else "FAILED", what, flush=True)
    if not right:
        raise SystemExit(1)


question = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}
check("ready", call("/readyz")[0] == 200)
check("refuses a caller without a key", call("/v1/chat/completions", question)[0] == 401)
if KEY.startswith("sha256$"):
    print("skipped the answer: keys are stored as digests alone")
else:
    check("lists its model", MODEL in {each["id"] for each in call("/v1/models", key=KEY)[1]["data"]})
    status, reply = call("/v1/chat/completions", question, KEY)
    check("answers", status == 200 and bool(reply["choices"][0]["finish_reason"]))
