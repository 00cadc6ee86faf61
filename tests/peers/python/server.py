"""A handler as wechatpy's and fastapi's documentation show; uvicorn runs one process a core."""

import os
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from fastapi import FastAPI, Request, Response
from wechatpy.exceptions import InvalidSignatureException
from wechatpy.pay import WeChatPay

TRANSACTION = os.environ["MODE"] == "transaction"
pay = WeChatPay("wxdev0000000000001", Path(os.environ["KEY_FILE"]).read_text().strip(), "1900000001")


@asynccontextmanager
async def lifespan(app: FastAPI):
    app.state.pool = await asyncpg.create_pool(os.environ["DATABASE_URL"], max_size=10) if TRANSACTION else None
    yield
    if app.state.pool:
        await app.state.pool.close()


app = FastAPI(lifespan=lifespan)


async def apply(notice: dict) -> None:
    """Records the payment, marks the order as paid and credits the points, once."""
    amount = int(notice["total_fee"])
    async with app.state.pool.acquire() as connection, connection.transaction():
        fresh = await connection.fetchval(
            "insert into peer_events (transaction_id, out_trade_no, amount) values ($1, $2, $3)"
            " on conflict do nothing returning 1",
            notice["transaction_id"], notice["out_trade_no"], amount,
        )
        if fresh is None:
            return
        user = await connection.fetchval(
            "update peer_orders set state = 'paid' where out_trade_no = $1 and amount = $2 returning user_id",
            notice["out_trade_no"], amount,
        )
        if user is None:
            raise LookupError("no such order")
        await connection.execute(
            "insert into peer_points (user_id, balance) values ($1, $2)"
            " on conflict (user_id) do update set balance = peer_points.balance + excluded.balance",
            user, amount // 100,
        )


def reply(code: str, message: str) -> Response:
    body = f"<xml><return_code><![CDATA[{code}]]></return_code><return_msg><![CDATA[{message}]]></return_msg></xml>"
    return Response(body, media_type="text/xml")


@app.post("/notify")
async def notify(request: Request) -> Response:
    try:
        notice = pay.parse_payment_result(await request.body())
    except InvalidSignatureException:
        return reply("FAIL", "sign")
    if TRANSACTION:
        await apply(notice)
    return reply("SUCCESS", "OK")
