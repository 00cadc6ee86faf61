//! What is sent: notifications that are written and signed before anything is measured.

use std::{fs, net::SocketAddr, ops::Range, path::Path, sync::Arc};

use anyhow::{Context, Result, anyhow};
use wxpay_shared::{
    clock::{Clock as _, SystemClock},
    config::Config,
    envelope::{Api, Envelope, Message, SealKeys},
    fen::Fen,
    ids::{Currency, NotificationId, OrderId, OutTradeNo, TransactionId, UserId},
    merchant::{Merchant, Merchants},
    order::Registration,
    wechat::{sender::SigningKey, v2_sign::SignType},
};

use crate::{
    dev_merchant,
    wechat_sender::{Outgoing, Payee, v2, v3},
};

/// What every order costs.
const AMOUNT: i64 = 8800;
/// So many customers share the orders.
const USERS: u64 = 50_000;

/// WeChat and the shop, for one merchant.
pub(super) struct Play {
    pub(super) merchants: Arc<Merchants>,
    pub(super) seal: Arc<SealKeys>,
    platform: SigningKey,
}

/// Orders that no other run has: their numbers begin with a text of this run's.
#[derive(Clone, Debug)]
pub(super) struct Orders {
    pub(super) prefix: String,
    pub(super) numbers: Range<u64>,
}

impl Orders {
    pub(super) fn name(&self, number: u64) -> String {
        format!("{}{number:010}", self.prefix)
    }

    pub(super) fn user(number: u64) -> String {
        format!("u{}", number % USERS)
    }

    fn out_trade_no(&self, number: u64) -> OutTradeNo {
        OutTradeNo::parse(&self.name(number)).expect("letters and digits, at most 32")
    }
}

impl Play {
    /// As the development merchant of this directory.
    pub(super) fn new(config: &Config, directory: &Path) -> Result<Self> {
        let merchants = Arc::new(Merchants::open(config)?);
        let seal = Arc::new(config.shared_seal_keys()?);
        let pem = fs::read(directory.join(dev_merchant::PLATFORM_PRIVATE_FILE)).context("the platform key")?;
        let platform = SigningKey::from_pem(dev_merchant::PLATFORM_SERIAL, &pem).context("the platform key")?;
        Ok(Self { merchants, seal, platform })
    }

    fn merchant(&self) -> &Merchant {
        self.merchants.get(dev_merchant::NAME).expect("the development merchant is configured")
    }

    fn payee(&self) -> Payee {
        let ids = &self.merchant().ids;
        let appid = ids.appids.first().expect("the development merchant has an application").clone();
        Payee { mch_id: ids.mch_id.clone(), appid, sub_mch_id: None, sub_appid: None }
    }

    /// The payment of an order: always the same transaction, each time another notification.
    fn v2(&self, orders: &Orders, number: u64) -> Outgoing {
        let fen = Fen::new(AMOUNT).expect("a small amount");
        let notice = v2::Notice::payment(&self.payee(), &orders.out_trade_no(number), fen, SystemClock.now());
        let notice = notice.with("transaction_id", transaction(orders, number).as_str());
        let notice = notice.with("attach", "store 12, desk 3").with("device_info", "WEB");
        let key = self.merchant().v2_keys.first().expect("the development merchant speaks v2");
        notice.signed(key, SignType::Md5).outgoing()
    }

    fn v3(&self, orders: &Orders, number: u64) -> Result<Outgoing> {
        let now = SystemClock.now();
        let part = v3::SubOrder {
            out_trade_no: orders.out_trade_no(number),
            transaction_id: transaction(orders, number),
            total: Fen::new(AMOUNT).expect("a small amount"),
        };
        let keys = self.merchant().v3.as_ref().ok_or_else(|| anyhow!("the development merchant speaks no v3"))?;
        let notice = v3::Notice::payment(&self.payee(), &part, Fen::ZERO, "store 12, desk 3", now);
        v3::signed(notice.sealed(&keys.api.current, now), &self.platform, now)
    }

    /// Whole HTTP requests with the payments of these orders.
    pub(super) fn requests(&self, api: Api, orders: &Orders, to: SocketAddr, path: &str) -> Result<Arc<Vec<Vec<u8>>>> {
        let request = |number| {
            let outgoing = match api {
                Api::V2 => self.v2(orders, number),
                Api::V3 => self.v3(orders, number)?,
            };
            Ok(http_request(&outgoing, to, path))
        };
        orders.numbers.clone().map(request).collect::<Result<_>>().map(Arc::new)
    }

    /// The same as ingress puts it into the queue.
    pub(super) fn message(&self, orders: &Orders, number: u64) -> Message {
        let received_at = SystemClock.now();
        let envelope = Envelope {
            id: NotificationId::new(received_at),
            merchant: self.merchant().name.clone(),
            api: Api::V2,
            received_at,
            body: self.v2(orders, number).body.into(),
        };
        envelope.seal(&self.seal)
    }

    /// What the shop says of an order before it is paid.
    pub(super) fn registration(&self, orders: &Orders, number: u64) -> Registration {
        let merchant = self.merchant();
        Registration {
            id: OrderId { merchant: merchant.name.clone(), out_trade_no: orders.out_trade_no(number) },
            amount: Fen::new(AMOUNT).expect("a small amount"),
            currency: Currency::cny(),
            user: Some(UserId::parse(&Orders::user(number)).expect("letters and digits")),
            appid: None,
            rate: merchant.points,
        }
    }

    /// The same as rows of `wxpay_orders`, as a shop may insert them itself.
    pub(super) fn rows(orders: &Orders, numbers: Range<u64>) -> String {
        let row = |number| {
            let (name, user) = (orders.name(number), Orders::user(number));
            format!("('{}','{name}',{AMOUNT},'{user}','1/100')", dev_merchant::NAME)
        };
        let rows: Vec<String> = numbers.map(row).collect();
        format!(
            "insert into wxpay_orders (merchant, out_trade_no, amount, user_id, points_rate) values {}",
            rows.join(",")
        )
    }
}

/// The digits of the number, behind those of the prefix, so that no two runs share one.
fn transaction(orders: &Orders, number: u64) -> TransactionId {
    let prefix: u64 = orders.prefix.bytes().fold(7, |sum, byte| (sum * 31 + u64::from(byte)) % 1_000_000_000_000);
    TransactionId::parse(&format!("42{prefix:012}{number:014}")).expect("28 digits")
}

fn http_request(outgoing: &Outgoing, to: SocketAddr, path: &str) -> Vec<u8> {
    let content_type = match outgoing.api {
        Api::V2 => "text/xml",
        Api::V3 => "application/json",
    };
    let mut text = format!(
        "POST {path} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: Mozilla/4.0\r\nAccept: */*\r\nContent-Type: \
         {content_type}\r\nContent-Length: {}\r\n",
        outgoing.body.len()
    );
    for (name, value) in &outgoing.headers {
        text.extend([name, ": ", value, "\r\n"]);
    }
    text.push_str("\r\n");
    text.push_str(&outgoing.body);
    text.into_bytes()
}
