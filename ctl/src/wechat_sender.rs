//! WeChat's part: builds a notification as WeChat writes it, signs it, posts it, and reads the reply as WeChat would.
//!
//! A [`Notice`] is honest until it is changed: changes before [`Notice::signed`] are WeChat saying something else, changes
//! after it are somebody on the way. Both are what tests and `wxpayctl simulate` are for.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use jiff::{Timestamp, tz};
use reqwest::{
    Url,
    header::{ACCEPT, CONTENT_TYPE, PRAGMA, USER_AGENT},
};
use wxpay_shared::{
    fen::Fen,
    ids::{AppId, MchId, OutTradeNo},
    wechat::{
        keys::V2Key,
        v2_sender,
        v2_sign::{SignType, digest},
        v2_xml::{self, Fields},
    },
};

use crate::{client::http_client, random};

/// WeChat waits 5 s; a person who simulates wants to see how late a reply is, so this waits longer.
const REPLY_BUDGET: Duration = Duration::from_secs(20);
/// Of a reply that is no XML, this much is shown.
const STRANGE_REPLY_MAX: usize = 200;

/// A notification of APIv2: its fields, in the order in which WeChat writes them.
#[derive(Clone)]
pub struct Notice {
    fields: BTreeMap<String, String>,
}

/// Values are personal and names are not.
impl std::fmt::Debug for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.fields.keys()).finish()
    }
}

impl Notice {
    /// The notification of a successful payment, not signed yet. The transaction and the nonce are new each time.
    #[must_use]
    pub fn payment(
        mch_id: &MchId,
        appid: &AppId,
        out_trade_no: &OutTradeNo,
        total_fee: Fen,
        paid_at: Timestamp,
    ) -> Self {
        let paid_at = tz::offset(8).to_datetime(paid_at);
        Self { fields: BTreeMap::new() }
            .with("return_code", "SUCCESS")
            .with("result_code", "SUCCESS")
            .with("appid", appid.as_str())
            .with("mch_id", mch_id.as_str())
            .with("nonce_str", random::hex_digits::<16>())
            .with("openid", "oSIMULATEDpayer0000000000001")
            .with("is_subscribe", "N")
            .with("trade_type", "JSAPI")
            .with("bank_type", "OTHERS")
            .with("fee_type", "CNY")
            .with("cash_fee", total_fee.get().to_string())
            .with("out_trade_no", out_trade_no.as_str())
            .with("time_end", paid_at.strftime("%Y%m%d%H%M%S").to_string())
            // 28 digits, as WeChat's own have today.
            .with(
                "transaction_id",
                format!("42{}{}{}", random::digits::<8>(), paid_at.strftime("%Y%m%d"), random::digits::<10>()),
            )
            .with("total_fee", total_fee.get().to_string())
    }

    /// The same with this field, new or changed.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    /// The same, paid in part by one rechargeable coupon of this much: `cash_fee` is lower, `total_fee` is not.
    #[must_use]
    pub fn with_coupon(self, coupon: Fen) -> Self {
        let total = Fen::parse(self.get("total_fee")).unwrap_or(Fen::ZERO);
        let coupon_fee = coupon.get().to_string();
        self.with("cash_fee", total.saturating_sub(coupon).get().to_string())
            .with("coupon_fee", coupon_fee.clone())
            .with("coupon_count", "1")
            .with("coupon_type_0", "CASH")
            .with("coupon_id_0", random::digits::<10>())
            .with("coupon_fee_0", coupon_fee)
    }

    /// The same with the `sign` of its fields as they are now.
    ///
    /// # Panics
    /// For more than 128 fields, which only a caller's own loop can make.
    #[must_use]
    pub fn signed(self, key: &V2Key, sign_type: SignType) -> Self {
        let fields = Fields::from_pairs(self.iter()).expect("a few dozen fields of different names");
        let sign = digest(&fields, key, sign_type);
        drop(fields);
        self.with("sign", sign)
    }

    /// A field's value; empty where it is absent.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// Names and values, in the order of the document.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The body as WeChat posts it.
    #[must_use]
    pub fn xml(&self) -> String {
        v2_sender::document("xml", self.iter())
    }
}

/// Posts notifications to one `notify_url`.
#[derive(Clone)]
pub struct Sender {
    http: reqwest::Client,
    url: Url,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// `SUCCESS`, `FAIL`, or `None` where the body is not the expected XML: WeChat then sends again.
    pub return_code: Option<String>,
    /// What the receiver said, or the beginning of a body that is not the expected XML.
    pub return_msg: String,
    /// From the first byte sent to the last byte received.
    pub took: Duration,
}

impl Reply {
    /// Whether WeChat takes it as received.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.status == 200 && self.return_code.as_deref() == Some("SUCCESS")
    }

    /// Whether WeChat is plainly told to send again.
    #[must_use]
    pub fn is_fail(&self) -> bool {
        self.return_code.as_deref() == Some("FAIL")
    }

    fn read(status: u16, body: &[u8], took: Duration) -> Self {
        if let Ok(fields) = v2_xml::parse(body, "xml")
            && let Some(return_code) = fields.get("return_code")
        {
            let return_msg = fields.get("return_msg").unwrap_or("").to_owned();
            return Self { status, return_code: Some(return_code.to_owned()), return_msg, took };
        }
        let shown: String = String::from_utf8_lossy(body).chars().take(STRANGE_REPLY_MAX).collect();
        Self { status, return_code: None, return_msg: format!("not the expected XML: {shown:?}"), took }
    }
}

impl Sender {
    /// A sender to this address.
    ///
    /// # Errors
    /// Where TLS cannot be set up.
    pub fn new(url: Url) -> Result<Self> {
        Ok(Self { http: http_client(&url, REPLY_BUDGET)?, url })
    }

    /// Posts a notification once.
    ///
    /// # Errors
    /// Where no reply comes back.
    pub async fn post(&self, notice: &Notice) -> Result<Reply> {
        let begun = Instant::now();
        let request = self
            .http
            .post(self.url.clone())
            .header(USER_AGENT, "Mozilla/4.0")
            .header(CONTENT_TYPE, "text/xml")
            .header(ACCEPT, "*/*")
            .header(PRAGMA, "no-cache")
            .body(notice.xml());
        let response = request.send().await.map_err(|error| self.unanswered(error))?;
        let status = response.status().as_u16();
        let body = response.bytes().await.map_err(|error| self.unanswered(error))?;
        Ok(Reply::read(status, &body, begun.elapsed()))
    }

    fn unanswered(&self, error: reqwest::Error) -> anyhow::Error {
        let url = &self.url;
        if error.is_connect() {
            anyhow!("nothing answers at {url}: start `wxpayctl serve` or `wxpay-ingress`, or correct --url")
        } else if error.is_timeout() {
            anyhow!("no reply from {url} within {} s; WeChat waits 5 s", REPLY_BUDGET.as_secs())
        } else {
            anyhow::Error::new(error.without_url()).context(format!("no whole reply from {url}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use wxpay_shared::{
        ids::MerchantName,
        wechat::{
            merchant_ids::MerchantIds,
            v2_payment::{self, Notice as Read},
            v2_sign::{SignRefusal, verify},
        },
    };

    use super::*;

    fn key() -> V2Key {
        V2Key::parse("192006250b4c09247ec02edce69f6a2d").unwrap()
    }

    fn notice() -> Notice {
        let (mch_id, appid) = (MchId::parse("1900990001").unwrap(), AppId::parse("wx1").unwrap());
        let order = OutTradeNo::parse("A1001").unwrap();
        Notice::payment(&mch_id, &appid, &order, Fen::new(8800).unwrap(), "2026-03-18T02:20:30Z".parse().unwrap())
    }

    fn verdict(notice: &Notice) -> Result<(), SignRefusal> {
        verify(&v2_xml::parse(notice.xml().as_bytes(), "xml").unwrap(), &key())
    }

    #[test]
    fn a_signed_notice_is_what_ingress_and_worker_read() {
        let (mch_id, appids) = (MchId::parse("1900990001").unwrap(), vec![AppId::parse("wx1").unwrap()]);
        let ids = MerchantIds { mch_id, appids, sub_mch_ids: Vec::new(), sub_appids: Vec::new() };
        for sign_type in [SignType::Md5, SignType::HmacSha256] {
            let notice = notice().with("attach", "a&b=c <]]>").with_coupon(Fen::new(800).unwrap());
            let xml = notice.signed(&key(), sign_type).xml();
            let fields = v2_xml::parse(xml.as_bytes(), "xml").unwrap();
            assert_eq!(verify(&fields, &key()), Ok(()));
            let Ok(Read::Paid(payment)) = v2_payment::read(&fields, &MerchantName::parse("dev").unwrap(), &ids) else {
                panic!("expected a payment")
            };
            assert_eq!(payment.amount, Fen::new(8800).unwrap());
            assert_eq!(payment.transaction_id.as_str().len(), 28);
            assert_eq!(payment.success_time, "2026-03-18T02:20:30Z".parse().unwrap());
            assert_eq!((fields.get("cash_fee"), fields.get("coupon_fee")), (Some("8000"), Some("800")));
        }
    }

    #[test]
    fn what_is_changed_on_the_way_no_longer_verifies() {
        let honest = notice().signed(&key(), SignType::Md5);
        assert_eq!(verdict(&honest), Ok(()));
        assert_eq!(verdict(&honest.with("total_fee", "1")), Err(SignRefusal::Wrong));
        assert_eq!(verdict(&notice()), Err(SignRefusal::Missing));
    }

    #[test]
    fn a_reply_is_read_as_wechat_reads_it() {
        let read = |status, body: &str| Reply::read(status, body.as_bytes(), Duration::ZERO);
        let success =
            "<xml><return_code><![CDATA[SUCCESS]]></return_code><return_msg><![CDATA[OK]]></return_msg></xml>";
        assert!(read(200, success).is_success() && !read(502, success).is_success());
        assert!(read(200, "<xml><return_code>FAIL</return_code></xml>").is_fail());
        let strange = read(200, "success");
        assert!(!strange.is_success() && !strange.is_fail());
        assert_eq!(strange.return_msg, "not the expected XML: \"success\"");
    }

    #[test]
    fn a_notice_shows_no_values() {
        assert!(!format!("{:?}", notice()).contains("SIMULATED"));
    }
}
