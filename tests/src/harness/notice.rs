//! Payment notices as WeChat sends them, for any order and key.

use wxpay_shared::wechat::{keys::V2Key, v2_sender, v2_sign::SignType};

use super::pair::{APPID, MCH_ID, V2_KEY};

/// A payment, as WeChat would tell of it. Each call of [`xml`](Self::xml) is another notification about it.
#[derive(Clone, Debug)]
pub(crate) struct Notice {
    pub(crate) out_trade_no: String,
    pub(crate) transaction_id: String,
    pub(crate) total_fee: String,
    pub(crate) sign_type: SignType,
    /// Fields beside the usual ones.
    pub(crate) more: Vec<(&'static str, String)>,
}

impl Notice {
    /// A payment of this order by its usual transaction.
    pub(crate) fn new(out_trade_no: &str, total_fee: i64) -> Self {
        Self {
            out_trade_no: out_trade_no.to_owned(),
            transaction_id: format!("42{out_trade_no}"),
            total_fee: total_fee.to_string(),
            sign_type: SignType::Md5,
            more: Vec::new(),
        }
    }

    /// The body, with this nonce.
    pub(crate) fn xml(&self, nonce_str: &str) -> String {
        self.xml_under(V2_KEY, nonce_str)
    }

    /// The body signed with another key.
    pub(crate) fn xml_under(&self, key: &str, nonce_str: &str) -> String {
        let usual = [
            ("appid", APPID),
            ("bank_type", "OTHERS"),
            ("cash_fee", &self.total_fee),
            ("fee_type", "CNY"),
            ("is_subscribe", "N"),
            ("mch_id", MCH_ID),
            ("nonce_str", nonce_str),
            ("openid", "oTESTpayer0001"),
            ("out_trade_no", &self.out_trade_no),
            ("result_code", "SUCCESS"),
            ("return_code", "SUCCESS"),
            ("time_end", "20260318102030"),
            ("total_fee", &self.total_fee),
            ("trade_type", "JSAPI"),
            ("transaction_id", &self.transaction_id),
        ];
        let changed = |name: &str| self.more.iter().any(|(more, _)| *more == name);
        let usual = usual.into_iter().filter(|(name, _)| !changed(name));
        let fields: Vec<(&str, &str)> =
            usual.chain(self.more.iter().map(|(name, value)| (*name, value.as_str()))).collect();
        v2_sender::signed(&fields, &V2Key::parse(key).expect("the test key is a key"), self.sign_type)
            .expect("the fields are distinct")
    }
}
