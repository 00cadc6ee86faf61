"""The service under check, over its HTTP interfaces, and the table of what was seen."""

import http.client
import json
import time

V2_SUCCESS = b"<xml><return_code><![CDATA[SUCCESS]]></return_code><return_msg><![CDATA[OK]]></return_msg></xml>"


class Service:
    def __init__(self, announced):
        self.ingress = announced["notify_urls"][0].split("/")[2]
        self.admin = announced["admin"].split("/")[2]

    @staticmethod
    def call(address, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection(address, timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def v2(self, body):
        """How WeChat reads the reply."""
        status, reply = self.call(self.ingress, "POST", "/v2/shop", body, {"Content-Type": "text/xml"})
        if (status, reply) == (200, V2_SUCCESS):
            return "accepted"
        return "refused" if status == 200 and b"<return_code><![CDATA[FAIL]]>" in reply else f"{status} {reply[:80]!r}"

    def v3(self, headers, body):
        headers = headers | {"Content-Type": "application/json"}
        status, reply = self.call(self.ingress, "POST", "/v3/shop", body, headers)
        if (status, reply) == (204, b""):
            return "accepted"
        return "refused" if status == 401 and b'"FAIL"' in reply else f"{status} {reply[:80]!r}"

    def get(self, path):
        status, reply = self.call(self.admin, "GET", path)
        assert status == 200, f"{path}: {status}"
        return json.loads(reply)

    def register(self, out_trade_no, amount):
        order = {"merchant": "shop", "out_trade_no": out_trade_no, "amount": amount, "user": "alice"}
        status, _ = self.call(self.admin, "POST", "/orders", json.dumps(order), {"Content-Type": "application/json"})
        assert status in (200, 201), f"registering {out_trade_no}: {status}"
        return out_trade_no

    def order(self, out_trade_no):
        order = self.get(f"/orders/shop/{out_trade_no}")
        return order["state"], order["received"], order["kept"]

    def dead_letters(self):
        return sorted(letter["reason"] for letter in self.get("/dead-letters")["dead_letters"])


def eventually(read, expected, seconds=10):
    """What is read as soon as it is what is expected, or what it is at the end."""
    end = time.monotonic() + seconds
    while (seen := read()) != expected and time.monotonic() < end:
        time.sleep(0.05)
    return seen


class Table:
    """One line a check; failures are counted by sender."""

    def __init__(self):
        self.counts = {}

    def check(self, sender, what, seen, expected):
        counts = self.counts.setdefault(sender, [0, 0])
        counts[seen != expected] += 1
        verdict = "ok  " if seen == expected else "FAIL"
        note = "" if seen == expected else f": expected {expected}, got {seen}"
        print(f"{verdict} {sender:<24} {what}{note}", flush=True)

    def summary(self):
        print(f"\n{'sender':<24}{'ok':>6}{'failed':>8}")
        for sender, (fine, failed) in self.counts.items():
            print(f"{sender:<24}{fine:>6}{failed:>8}")
        return sum(failed for _, failed in self.counts.values())
