//! The vector set: its manifest, its bodies, and what the receiver must know of each.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;
use wxpay_shared::wechat::v2_xml;

/// One record of the manifest.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Vector {
    pub(crate) id: String,
    family: String,
    body: String,
    #[serde(default)]
    fields: BTreeMap<String, Value>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) ingress: String,
    /// The first check that fails.
    pub(crate) reason: String,
    pub(crate) worker: Option<String>,
}

/// The records of a family.
pub(crate) fn vectors(family: &str) -> Vec<Vector> {
    let manifest = fs::read_to_string(directory().join("manifest.json")).expect("the manifest is there");
    let vectors: Vec<Vector> = serde_json::from_str(&manifest).expect("the manifest is JSON");
    let vectors: Vec<_> = vectors.into_iter().filter(|vector| vector.family == family).collect();
    assert!(vectors.len() >= 16, "the vectors of {family} are there");
    vectors
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/vectors")
}

impl Vector {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        fs::read(directory().join(&self.body)).expect("the manifest names a file")
    }

    /// The merchant on whose path it comes.
    pub(crate) fn merchant(&self) -> &'static str {
        match self.flags.iter().find_map(|flag| ["partner", "sandbox"].into_iter().find(|name| flag == name)) {
            Some(name) => name,
            None => "shop",
        }
    }

    /// What must be read out of it according to the manifest, or what its XML says, read without any check.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let bytes = self.bytes();
        let read = v2_xml::parse(&bytes, "xml").ok().and_then(|fields| fields.get(name).map(str::to_owned));
        let expected =
            self.fields.get(name).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        expected.or(read)
    }

    /// The amount of our order: what the vector says it is, or what its notice says.
    pub(crate) fn order_amount(&self) -> i64 {
        let flag = self.flags.iter().find_map(|flag| flag.strip_prefix("order_amount="));
        let amount = flag.map(str::to_owned).or_else(|| self.field("total_fee")).or_else(|| self.field("total"));
        amount.and_then(|amount| amount.parse().ok()).filter(|amount| *amount > 0).unwrap_or(8800)
    }
}
