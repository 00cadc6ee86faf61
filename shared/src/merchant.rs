//! The merchants as the programs use them: names, ids and opened keys.

use std::collections::BTreeMap;

use secrecy::ExposeSecret;

use crate::{
    config::{Config, ConfigError},
    ids::MerchantName,
    points::PointsRate,
    wechat::{keys::V2Key, merchant_ids::MerchantIds},
};

/// One merchant, opened.
pub struct Merchant {
    /// Its name in the `notify_url`.
    pub name: MerchantName,
    /// Its ids.
    pub ids: MerchantIds,
    /// The API key of v2.
    pub v2_key: Option<V2Key>,
    /// Points for orders that bring no rate of their own.
    pub points: PointsRate,
}

/// All merchants by name.
pub struct Merchants(BTreeMap<MerchantName, Merchant>);

impl Merchants {
    /// Opens every key of the configuration.
    ///
    /// # Errors
    /// [`ConfigError`] for the first setting that cannot be used.
    pub fn open(config: &Config) -> Result<Self, ConfigError> {
        let open = |(name, merchant): (&MerchantName, &crate::config::Merchant)| {
            let setting = format!("merchants.{name}.v2_key");
            let key = config.v2_key(name, merchant)?.ok_or_else(|| ConfigError::new(&setting, "missing"))?;
            let v2_key = V2Key::parse(key.expose_secret()).map_err(|error| ConfigError::new(&setting, error))?;
            let merchant = Merchant {
                name: name.clone(),
                ids: MerchantIds {
                    mch_id: merchant.mch_id.clone(),
                    appids: merchant.appids.clone(),
                    sub_mch_ids: merchant.sub_mch_ids.clone(),
                    sub_appids: merchant.sub_appids.clone(),
                },
                v2_key: Some(v2_key),
                points: merchant.points,
            };
            Ok((name.clone(), merchant))
        };
        config.merchants.iter().map(open).collect::<Result<_, _>>().map(Self)
    }

    /// The merchant of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Merchant> {
        MerchantName::parse(name).ok().and_then(|name| self.0.get(&name))
    }

    /// Every merchant, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Merchant> {
        self.0.values()
    }
}
