"""The independent implementations as WeChat: each function calls the library's own signing, XML and encryption."""

import base64
import json
import os
import secrets
import subprocess
import time
from pathlib import Path

from wechatpayv3 import WeChatPay as V3Library, WeChatPayType, utils as v3_utils
from wechatpy.crypto import RefundCrypto, WeChatRefundCrypto
from wechatpy.pay import WeChatPay as V2Library, utils as v2_utils

VECTORS = Path(__file__).resolve().parent.parent / "data" / "vectors"
CONFIG = json.loads((VECTORS / "config.json").read_text())
APPID, MCH_ID = CONFIG["appid"], CONFIG["mch_id"]
V2_KEY, V3_KEY = CONFIG["v2_api_key"], CONFIG["v3_api_key"]
OTHER_KEY = "anotherKeyOfThirtyTwoCharacters0"
PUBLIC_KEY_ID = next(serial for serial in CONFIG["platform_keys"] if serial.startswith("PUB_KEY_ID_"))
CERTIFICATE = next(serial for serial, path in CONFIG["platform_keys"].items() if "cert_a" in path)


class Wechatpy:
    """PyPI's wechatpy: v2 with MD5 and HMAC-SHA256, and v2 refunds."""

    @staticmethod
    def notice(params, key=V2_KEY, hmac=False):
        sign = v2_utils.calculate_signature_hmac if hmac else v2_utils.calculate_signature
        return v2_utils.dict_to_xml(params, sign=sign(params, key)).encode()

    @staticmethod
    def req_info(inner, key=V2_KEY):
        return RefundCrypto(WeChatRefundCrypto(key).key).encrypt(inner).decode()

    @staticmethod
    def refund(req_info, mch_id=MCH_ID):
        outer = {"return_code": "SUCCESS", "appid": APPID, "mch_id": mch_id, "nonce_str": nonce(), "req_info": req_info}
        return v2_utils.dict_to_xml(outer).encode()

    @staticmethod
    def read(kind, body):
        library = V2Library(APPID, V2_KEY, MCH_ID)
        return (library.parse_refund_notify_result if kind == "refund" else library.parse_payment_result)(body.decode())


class Tenpay:
    """npm's tenpay, in a Node process of its own: v2 with MD5 and HMAC-SHA256; it reads v2 refunds."""

    def __init__(self):
        script = Path(os.environ["SENDERS_NPM"]) / "tenpay.js"
        self.process = subprocess.Popen(
            ["node", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )

    def ask(self, operation, **request):
        request |= {"operation": operation, "appid": APPID, "mchid": MCH_ID}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer["result"]

    def notice(self, params, key=V2_KEY, hmac=False):
        return self.ask("notice", params=params, key=key, type="HMAC-SHA256" if hmac else "MD5").encode()

    def xml(self, params, root):
        return self.ask("xml", params=params, root=root)

    def read(self, kind, body):
        return self.ask("read", kind=kind, body=body.decode(), key=V2_KEY)

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)


class Wechatpayv3:
    """PyPI's wechatpayv3, holding a platform key as if it were the merchant's: what it signs is what WeChat signs."""

    def __init__(self, serial, private):
        path = CONFIG["platform_keys"][serial].split(".")[0]
        public = (VECTORS / f"{path}.public.pem").read_text()
        self.serial = serial
        self.library = V3Library(
            WeChatPayType.JSAPI,
            MCH_ID,
            (VECTORS / "keys" / f"{private}.private.pkcs8.b64").read_text().strip(),
            serial,
            APPID,
            V3_KEY,
            public_key=public,
            public_key_id=serial,
        )

    @staticmethod
    def body(event_type, content, key=V3_KEY):
        kind = "refund" if event_type.startswith("REFUND") else "transaction"
        number = secrets.token_hex(6)
        # The library encrypts nothing itself: this is the cipher object that its aes_decrypt uses.
        sealed = v3_utils.AESGCM(key.encode()).encrypt(number.encode(), json.dumps(content).encode(), kind.encode())
        resource = {
            "original_type": kind,
            "algorithm": "AEAD_AES_256_GCM",
            "ciphertext": base64.b64encode(sealed).decode(),
            "associated_data": kind,
            "nonce": number,
        }
        notice = {
            "id": secrets.token_hex(16),
            "create_time": rfc3339(),
            "resource_type": "encrypt-resource",
            "event_type": event_type,
            "summary": "支付成功",
            "resource": resource,
        }
        return json.dumps(notice, ensure_ascii=False).encode()

    def headers(self, body):
        timestamp, number = str(int(time.time())), nonce()
        return {
            "Wechatpay-Timestamp": timestamp,
            "Wechatpay-Nonce": number,
            "Wechatpay-Serial": self.serial,
            "Wechatpay-Signature": self.library.sign([timestamp, number, body.decode()]),
            "Wechatpay-Signature-Type": "WECHATPAY2-SHA256-RSA2048",
        }

    def read(self, headers, body):
        return self.library.callback(headers, body)["resource"]


def nonce():
    return secrets.token_hex(16)


def digits(prefix):
    return prefix + "".join(secrets.choice("0123456789") for _ in range(28 - len(prefix)))


def rfc3339():
    return time.strftime("%Y-%m-%dT%H:%M:%S+08:00", time.gmtime(time.time() + 8 * 3600))


def v2_payment(out_trade_no, amount, **more):
    return {
        "return_code": "SUCCESS",
        "result_code": "SUCCESS",
        "appid": APPID,
        "mch_id": MCH_ID,
        "nonce_str": nonce(),
        "openid": "oSENDERpayer",
        "is_subscribe": "N",
        "trade_type": "JSAPI",
        "bank_type": "OTHERS",
        "fee_type": "CNY",
        "cash_fee": str(amount),
        "total_fee": str(amount),
        "attach": "中文 <b>&</b> 'x'",
        "out_trade_no": out_trade_no,
        "transaction_id": digits("4200"),
        "time_end": time.strftime("%Y%m%d%H%M%S", time.gmtime(time.time() + 8 * 3600)),
    } | more


def v2_refund(payment, refund_fee, **more):
    return {
        "out_refund_no": "R" + payment["out_trade_no"],
        "out_trade_no": payment["out_trade_no"],
        "refund_id": digits("5030"),
        "transaction_id": payment["transaction_id"],
        "total_fee": payment["total_fee"],
        "settlement_total_fee": payment["total_fee"],
        "refund_fee": str(refund_fee),
        "settlement_refund_fee": str(refund_fee),
        "refund_status": "SUCCESS",
        "refund_account": "REFUND_SOURCE_RECHARGE_FUNDS",
        "refund_request_source": "API",
        "refund_recv_accout": "支付用户零钱",
        "success_time": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() + 8 * 3600)),
    } | more


def v3_payment(out_trade_no, amount, **more):
    return {
        "appid": APPID,
        "mchid": MCH_ID,
        "out_trade_no": out_trade_no,
        "transaction_id": digits("4200"),
        "trade_type": "JSAPI",
        "trade_state": "SUCCESS",
        "trade_state_desc": "支付成功",
        "bank_type": "OTHERS",
        "attach": "",
        "success_time": rfc3339(),
        "payer": {"openid": "oSENDERpayer"},
        "amount": {"total": amount, "payer_total": amount, "currency": "CNY", "payer_currency": "CNY"},
    } | more


def v3_refund(payment, refund):
    total = payment["amount"]["total"]
    return {
        "mchid": MCH_ID,
        "transaction_id": payment["transaction_id"],
        "out_trade_no": payment["out_trade_no"],
        "refund_id": digits("5030"),
        "out_refund_no": "R" + payment["out_trade_no"],
        "refund_status": "SUCCESS",
        "success_time": rfc3339(),
        "user_received_account": "支付用户零钱",
        "amount": {"total": total, "refund": refund, "payer_total": total, "payer_refund": refund},
    }
