"""What independent implementations send must be accepted and applied, and refused when somebody changed it on the way.

Every altered notice comes before the honest one of the same order, and the order it is bent to is registered too, so that
nothing but the proof of origin stands between the notice and its effect.
"""

import json
import os
import secrets
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path

import peers
from peers import CERTIFICATE, OTHER_KEY, PUBLIC_KEY_ID, VECTORS, Tenpay, Wechatpayv3, Wechatpy
from service import V2_SUCCESS, Service, Table, eventually

AMOUNT, OTHER_AMOUNT, REFUND = 8800, 1, 3960
PAID = ("paid", AMOUNT, AMOUNT)
UNPAID = ("unpaid", 0, 0)
PARTLY_BACK = ("partially_refunded", AMOUNT, AMOUNT - REFUND)


def other_character(text, index):
    return text[:index] + ("A" if text[index] != "A" else "B") + text[index + 1 :]


class Checks:
    def __init__(self, service, table, tenpay):
        self.service, self.table, self.tenpay = service, table, tenpay
        self.decoys, self.expected_dead = [], []

    def new_order(self, amount=AMOUNT):
        return self.service.register("SENDER" + secrets.token_hex(8), amount)

    def decoy(self):
        """An order that costs what an altered notice says, and must stay unpaid."""
        self.decoys.append(self.new_order())
        return self.decoys[-1]

    def v2_payment(self, name, library, what, hmac, **more):
        order, sender = self.new_order(), f"{name} {what}"
        params = peers.v2_payment(order, AMOUNT, **more)
        honest = library.notice(params, hmac=hmac)
        sign = next(part for part in honest.decode().replace("[", "<").replace("]", "<").replace(">", "<").split("<")
                    if len(part) == (64 if hmac else 32) and part.isupper() and part != params["nonce_str"])
        altered = {
            "amount": honest.replace(f">{AMOUNT}<".encode(), f">{OTHER_AMOUNT}<".encode()),
            "order number": honest.replace(order.encode(), self.decoy().encode()),
            "one byte of the signature": honest.replace(sign.encode(), other_character(sign, 7).encode()),
            "another key": library.notice(params, key=OTHER_KEY, hmac=hmac),
        }
        for change, body in altered.items():
            assert body != honest, change
            self.table.check(sender, f"altered, {change}: refused", self.service.v2(body), "refused")
        self.table.check(sender, "order still unpaid", self.service.order(order), UNPAID)
        self.table.check(sender, "honest: SUCCESS", self.service.v2(honest), "accepted")
        self.table.check(sender, "applied", eventually(lambda: self.service.order(order), PAID), PAID)
        self.table.check(sender, "repeated: SUCCESS", self.service.v2(honest), "accepted")
        return params

    def v2_refund(self, payment):
        sender, order = "wechatpy refund", payment["out_trade_no"]

        def sealed(key=peers.V2_KEY, padded_as_aes=True, **more):
            inner = self.tenpay.xml(peers.v2_refund(payment, REFUND, **more), "root").encode()
            # wechatpy pads to 32 bytes where AES has blocks of 16: the same only in every other block.
            while (32 - len(inner) % 32 <= 16) != padded_as_aes:
                inner += b"\n"
            return Wechatpy.req_info(inner, key)

        honest = sealed()
        body = Wechatpy.refund(honest)
        for change, altered in {
            "one byte of the first block": Wechatpy.refund(other_character(honest, 3)),
            "one byte of the last block": Wechatpy.refund(other_character(honest, len(honest) - 9)),
            "another key": Wechatpy.refund(sealed(key=OTHER_KEY)),
            "another merchant number": Wechatpy.refund(honest, mch_id="1900990002"),
        }.items():
            self.table.check(sender, f"altered, {change}: refused", self.service.v2(altered), "refused")
        over_padded = Wechatpy.refund(sealed(padded_as_aes=False))
        self.table.check(sender, "padded over AES's block: refused", self.service.v2(over_padded), "refused")
        self.table.check("tenpay refund", "and it does not open that either", self.reads(self.tenpay, over_padded), None)
        self.table.check(sender, "order still paid", self.service.order(order), PAID)
        # Nothing is signed, so somebody with the key may say anything; it must then fit the order.
        self.expected_dead.append("amount_mismatch")
        for change, more in {"amount": {"total_fee": "8801"}, "order number": {"out_trade_no": self.decoys[0]}}.items():
            reply = self.service.v2(Wechatpy.refund(sealed(**more)))
            self.table.check(sender, f"sealed with another {change}: SUCCESS, no effect", reply, "accepted")
        self.table.check(sender, "honest: SUCCESS", self.service.v2(body), "accepted")
        self.table.check(sender, "applied", eventually(lambda: self.service.order(order), PARTLY_BACK), PARTLY_BACK)
        for name, library in (("wechatpy refund", Wechatpy), ("tenpay refund", self.tenpay)):
            self.table.check(name, "reads it the same", self.reads(library, body), [order, REFUND])

    @staticmethod
    def reads(library, body):
        try:
            read = library.read("refund", body)
        except ValueError:
            return None
        read = read.get("req_info", read)
        return [read["out_trade_no"], int(read["refund_fee"])]

    def v3_payment(self, serial, private, what):
        order, sender = self.new_order(), f"wechatpayv3 {what}"
        platform, attacker = Wechatpayv3(serial, private), Wechatpayv3(serial, "attacker")
        content = peers.v3_payment(order, AMOUNT)
        body = platform.body("TRANSACTION.SUCCESS", content)
        headers = platform.headers(body)
        amount = peers.v3_payment(order, OTHER_AMOUNT, transaction_id=content["transaction_id"])
        self.v3_altered(sender, platform, attacker, headers, body, {
            "amount": ("TRANSACTION.SUCCESS", amount),
            "order number": ("TRANSACTION.SUCCESS", content | {"out_trade_no": self.decoy()}),
        })
        foreign = self.new_order()
        self.decoys.append(foreign)
        self.expected_dead.append("unopenable")
        unopenable = platform.body("TRANSACTION.SUCCESS", peers.v3_payment(foreign, AMOUNT), key=OTHER_KEY)
        reply = self.service.v3(platform.headers(unopenable), unopenable)
        self.table.check(sender, "sealed under another APIv3 key: 204, no effect", reply, "accepted")
        self.table.check(sender, "order still unpaid", self.service.order(order), UNPAID)
        self.table.check(sender, "honest: 204", self.service.v3(headers, body), "accepted")
        self.table.check(sender, "applied", eventually(lambda: self.service.order(order), PAID), PAID)
        self.table.check(sender, "the library reads it the same", platform.read(headers, body), content)
        return content

    def v3_refund(self, payment, serial, private, what):
        order, sender = payment["out_trade_no"], f"wechatpayv3 {what}"
        platform, attacker = Wechatpayv3(serial, private), Wechatpayv3(serial, "attacker")
        content = peers.v3_refund(payment, REFUND)
        body = platform.body("REFUND.SUCCESS", content)
        headers = platform.headers(body)
        self.v3_altered(sender, platform, attacker, headers, body, {
            "amount": ("REFUND.SUCCESS", peers.v3_refund(payment, AMOUNT)),
            "order number": ("REFUND.SUCCESS", content | {"out_trade_no": self.decoy()}),
        })
        self.table.check(sender, "order still paid", self.service.order(order), PAID)
        self.table.check(sender, "honest: 204", self.service.v3(headers, body), "accepted")
        self.table.check(sender, "applied", eventually(lambda: self.service.order(order), PARTLY_BACK), PARTLY_BACK)

    def v3_altered(self, sender, platform, attacker, headers, body, contents):
        """Other contents are sealed under the right APIv3 key, so that only the signature tells."""
        altered = {change: (headers, platform.body(*content)) for change, content in contents.items()}
        signature = headers["Wechatpay-Signature"]
        altered["one byte of the signature"] = (headers | {"Wechatpay-Signature": other_character(signature, 99)}, body)
        altered["another key"] = (attacker.headers(body), body)
        for change, notice in altered.items():
            self.table.check(sender, f"altered, {change}: refused", self.service.v3(*notice), "refused")

    def ours(self):
        """The other direction: what this project sends, and the vectors, as the libraries read them."""
        for arguments, readers in {
            (): (("wechatpy", Wechatpy), ("tenpay", self.tenpay)),
            ("--hmac", "--sign-type", "HMAC-SHA256"): (("tenpay", self.tenpay),),
        }.items():
            body = simulated("OURS1", arguments)
            for name, library in readers:
                fields = library.read("pay", body)
                seen = [fields["out_trade_no"], int(fields["total_fee"])]
                self.table.check(f"{name} reads", " ".join(("simulate pay", *arguments)), seen, ["OURS1", AMOUNT])
        for record in json.loads((VECTORS / "manifest.json").read_text()):
            if record["family"] == "v2refund" and record["id"] == "refund-success":
                body, fields = (VECTORS / record["body"]).read_bytes(), record["fields"]
                expected = [fields["out_trade_no"], int(fields["refund_fee"])]
                for name, library in (("wechatpy", Wechatpy), ("tenpay", self.tenpay)):
                    self.table.check(f"{name} reads", "the refund vector", self.reads(library, body), expected)
            if record["family"] == "v3" and record["id"] == "tx-pubkey":
                body, fields = (VECTORS / record["body"]).read_bytes(), record["fields"]
                read = Wechatpayv3(PUBLIC_KEY_ID, "platform_pubkey").read(record["headers"], body)
                self.table.check("wechatpayv3 reads", "the payment vector", read["out_trade_no"], fields["out_trade_no"])

    def nothing_else(self):
        reasons = sorted(self.expected_dead)
        seen = eventually(self.service.dead_letters, reasons)
        self.table.check("all", "dead letters: only those provoked", seen, reasons)
        states = [self.service.order(decoy) for decoy in self.decoys]
        what = f"the {len(states)} orders that altered notices named are unpaid"
        self.table.check("all", what, states, [UNPAID] * len(states))


def simulated(out_trade_no, arguments):
    """The body that `wxpayctl simulate pay` posts, taken by a receiver of our own."""
    bodies = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", str(len(V2_SUCCESS)))
            self.end_headers()
            self.wfile.write(V2_SUCCESS)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v2/shop"
        program = [os.environ["SENDERS_WXPAYCTL"], "simulate", "pay", "--config", os.environ["SENDERS_CONFIG"]]
        program += ["--merchant", "shop", "--url", url, "--out-trade-no", out_trade_no, "--amount", str(AMOUNT), *arguments]
        subprocess.run(program, check=True, stdout=subprocess.DEVNULL, timeout=30)
        server.shutdown()
    return bodies[0]


def main():
    print("wechatpy", version("wechatpy"), "| wechatpayv3", version("wechatpayv3"), "| tenpay",
          json.loads((Path(os.environ["SENDERS_NPM"]) / "node_modules/tenpay/package.json").read_text())["version"], "\n")
    service = Service(json.loads(Path(os.environ["SENDERS_ANNOUNCED"]).read_text()))
    table, tenpay = Table(), Tenpay()
    try:
        checks = Checks(service, table, tenpay)
        payment = checks.v2_payment("wechatpy", Wechatpy, "MD5", hmac=False)
        checks.v2_payment("wechatpy", Wechatpy, "HMAC", hmac=True)
        checks.v2_payment("tenpay", tenpay, "MD5", hmac=False)
        checks.v2_payment("tenpay", tenpay, "MD5, named", hmac=False, sign_type="MD5")
        checks.v2_payment("tenpay", tenpay, "HMAC", hmac=True)
        checks.v2_payment("tenpay", tenpay, "HMAC, named", hmac=True, sign_type="HMAC-SHA256")
        checks.v2_refund(payment)
        payment = checks.v3_payment(PUBLIC_KEY_ID, "platform_pubkey", "public key")
        checks.v3_refund(payment, CERTIFICATE, "platform_cert_a", "refund")
        checks.v3_payment(CERTIFICATE, "platform_cert_a", "certificate")
        checks.ours()
        checks.nothing_else()
    finally:
        tenpay.close()
    sys.exit(1 if table.summary() else 0)


if __name__ == "__main__":
    main()
