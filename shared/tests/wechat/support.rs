//! The vectors and the receiver that they assume.

use std::path::PathBuf;

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use wxpay_shared::{
    ids::{AppId, MchId, MerchantName},
    wechat::{
        keys::{ApiV3Key, PlatformKeys, V2Key},
        merchant_ids::MerchantIds,
        v3_resource::ApiV3Keys,
    },
};

/// One record of the manifest with its body.
pub(crate) struct Vector {
    pub(crate) id: String,
    pub(crate) body: Vec<u8>,
    pub(crate) headers: HeaderMap,
    pub(crate) now: Option<i64>,
    pub(crate) ingress: String,
    pub(crate) worker: String,
    pub(crate) reason: String,
    pub(crate) fields: Value,
    flags: Value,
}

impl Vector {
    pub(crate) fn has_flag(&self, flag: &str) -> bool {
        self.flags.as_array().is_some_and(|flags| flags.contains(&Value::from(flag)))
    }
}

pub(crate) fn vectors(family: &str) -> Vec<Vector> {
    let manifest = json("manifest.json");
    let records = manifest.as_array().unwrap().iter().filter(|record| record["family"] == family);
    let vectors: Vec<_> = records.map(vector).collect();
    assert!(!vectors.is_empty(), "no vectors of family {family}");
    vectors
}

fn vector(record: &Value) -> Vector {
    let text = |name: &str| record[name].as_str().unwrap().to_owned();
    let headers = record["headers"].as_object().into_iter().flatten().map(|(name, value)| {
        let value = HeaderValue::from_str(value.as_str().unwrap()).unwrap();
        (HeaderName::try_from(name).unwrap(), value)
    });
    let body = file(&text("body"));
    let digest: String = digest(&SHA256, &body).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, text("sha256"), "{}: not the bytes that were signed", text("body"));
    Vector {
        id: text("id"),
        body,
        headers: headers.collect(),
        now: record["now"].as_i64(),
        ingress: text("ingress"),
        worker: text("worker"),
        reason: text("reason"),
        fields: record["fields"].clone(),
        flags: record["flags"].clone(),
    }
}

pub(crate) fn file(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data/vectors").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&file(name)).unwrap()
}

pub(crate) fn config() -> Value {
    json("config.json")
}

pub(crate) fn merchant() -> MerchantName {
    MerchantName::parse("shop").unwrap()
}

pub(crate) fn ids(partner: bool) -> MerchantIds {
    let config = config();
    let text = |pointer: &str| config.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    let (mch_id, appid) = if partner { ("/partner/sp_mch_id", "/partner/sp_appid") } else { ("/mch_id", "/appid") };
    let mut ids = MerchantIds {
        mch_id: MchId::parse(&text(mch_id)).unwrap(),
        appids: vec![AppId::parse(&text(appid)).unwrap()],
        sub_mch_ids: vec![],
        sub_appids: vec![],
    };
    if partner {
        ids.sub_mch_ids.push(MchId::parse(&text("/partner/sub_mch_id")).unwrap());
        ids.sub_appids.push(AppId::parse(&text("/partner/sub_appid")).unwrap());
    }
    ids
}

pub(crate) fn platform_keys() -> PlatformKeys {
    let mut keys = PlatformKeys::default();
    for (serial, path) in config()["platform_keys"].as_object().unwrap() {
        let pem = file(path.as_str().unwrap());
        let added = if serial.starts_with("PUB_KEY_ID_") {
            keys.add_public_key(serial, &pem)
        } else {
            keys.add_certificate(&pem)
        };
        assert_eq!(added.unwrap(), serial.trim_start_matches('0'));
    }
    keys
}

pub(crate) fn v2_key() -> V2Key {
    V2Key::parse(config()["v2_api_key"].as_str().unwrap()).unwrap()
}

pub(crate) fn v3_keys() -> ApiV3Keys {
    ApiV3Keys { current: ApiV3Key::parse(config()["v3_api_key"].as_str().unwrap()).unwrap(), previous: None }
}
