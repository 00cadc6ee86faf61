//! The merchants as the programs use them: names, ids and opened keys, exchanged as a whole when keys change.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use secrecy::ExposeSecret;

use crate::{
    config::{self, Config, ConfigError, MerchantKey, Refunds},
    ids::MerchantName,
    points::PointsRate,
    wechat::{
        keys::{ApiV3Key, PlatformKeys, SecretError, V2Key},
        merchant_ids::MerchantIds,
        v3_resource::ApiV3Keys,
    },
};

/// One merchant, opened.
pub struct Merchant {
    /// Its name in the `notify_url`.
    pub name: MerchantName,
    /// Its ids.
    pub ids: MerchantIds,
    /// The API keys of v2, the current one first; none where it takes no v2 notifications.
    pub v2_keys: Vec<V2Key>,
    /// What v3 needs; `None` where it takes no v3 notifications.
    pub v3: Option<V3Keys>,
    /// Which of its refund notices are applied.
    pub refunds: Refunds,
    /// Points for orders that bring no rate of their own.
    pub points: PointsRate,
}

/// What v3 needs.
pub struct V3Keys {
    /// Opens the content.
    pub api: ApiV3Keys,
    /// Proves the sender.
    pub platform: PlatformKeys,
}

/// All merchants by name.
pub struct Merchants(BTreeMap<MerchantName, Merchant>);

impl Merchants {
    /// Opens every key of the configuration.
    ///
    /// # Errors
    /// [`ConfigError`] for the first setting that cannot be used, and where there is no merchant: such a file is another
    /// program's, or half written, and nobody's notifications would be taken.
    pub fn open(config: &Config) -> Result<Self, ConfigError> {
        if config.merchants.is_empty() {
            return Err(ConfigError::new("merchants", "none is configured; see wxpay.example.toml"));
        }
        let open = |(name, merchant)| Ok((MerchantName::clone(name), open(config, name, merchant)?));
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

/// The merchants of a running program. Whoever looks gets all of them as they were at one moment.
pub struct LiveMerchants(RwLock<Arc<Merchants>>);

impl LiveMerchants {
    /// The merchants at the start.
    #[must_use]
    pub fn new(merchants: Merchants) -> Self {
        Self(RwLock::new(Arc::new(merchants)))
    }

    /// The merchants now.
    #[must_use]
    pub fn now(&self) -> Arc<Merchants> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Exchanges all of them at once.
    pub fn replace(&self, merchants: Merchants) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(merchants);
    }
}

fn open(config: &Config, name: &MerchantName, merchant: &config::Merchant) -> Result<Merchant, ConfigError> {
    let v2_keys = [MerchantKey::V2, MerchantKey::PreviousV2]
        .map(|key| secret(config, name, merchant, key, |text| V2Key::parse(text)));
    let [current, previous] = v2_keys;
    let v2_keys: Vec<_> = current?.into_iter().chain(previous?).collect();
    let v3 = open_v3(config, name, merchant)?;
    if v2_keys.is_empty() && v3.is_none() {
        let problem = "set v2_key, or api_v3_key with platform_certificates or platform_public_keys";
        return Err(ConfigError::new(format!("merchants.{name}"), problem));
    }
    if merchant.appids.is_empty() {
        return Err(ConfigError::new(format!("merchants.{name}.appids"), "none is listed, so no payment could fit"));
    }
    Ok(Merchant {
        name: name.clone(),
        ids: MerchantIds {
            mch_id: merchant.mch_id.clone(),
            appids: merchant.appids.clone(),
            sub_mch_ids: merchant.sub_mch_ids.clone(),
            sub_appids: merchant.sub_appids.clone(),
        },
        v2_keys,
        v3,
        refunds: merchant.refunds,
        points: merchant.points,
    })
}

fn open_v3(config: &Config, name: &MerchantName, merchant: &config::Merchant) -> Result<Option<V3Keys>, ConfigError> {
    let key = |key| secret(config, name, merchant, key, |text| ApiV3Key::parse(text));
    let (current, previous) = (key(MerchantKey::ApiV3)?, key(MerchantKey::PreviousApiV3)?);
    let platform = platform_keys(config, name, merchant)?;
    match (current, platform.is_empty()) {
        (Some(current), false) => Ok(Some(V3Keys { api: ApiV3Keys { current, previous }, platform })),
        (None, true) => Ok(None),
        (Some(_), true) => {
            let problem = "needs platform_certificates or platform_public_keys beside it";
            Err(ConfigError::new(format!("merchants.{name}.api_v3_key"), problem))
        }
        (None, false) => {
            Err(ConfigError::new(format!("merchants.{name}.api_v3_key"), "missing beside the platform's keys"))
        }
    }
}

fn platform_keys(
    config: &Config,
    name: &MerchantName,
    merchant: &config::Merchant,
) -> Result<PlatformKeys, ConfigError> {
    let mut keys = PlatformKeys::default();
    let read = |setting: &str, file: &std::path::Path| {
        let path = config.path(file);
        std::fs::read(&path)
            .map_err(|error| ConfigError::new(setting, format!("cannot read {}: {error}", path.display())))
    };
    for file in &merchant.platform_certificates {
        let setting = format!("merchants.{name}.platform_certificates");
        let problem = |error| ConfigError::new(&setting, format!("{}: {error}", file.display()));
        keys.add_certificate(&read(&setting, file)?).map_err(problem)?;
    }
    for (id, file) in &merchant.platform_public_keys {
        let setting = format!("merchants.{name}.platform_public_keys.{id}");
        let problem = |error| ConfigError::new(&setting, format!("{}: {error}", file.display()));
        keys.add_public_key(id, &read(&setting, file)?).map_err(problem)?;
    }
    Ok(keys)
}

fn secret<T>(
    config: &Config,
    name: &MerchantName,
    merchant: &config::Merchant,
    key: MerchantKey,
    parse: impl Fn(&str) -> Result<T, SecretError>,
) -> Result<Option<T>, ConfigError> {
    let text = config.merchant_key(name, merchant, key)?;
    let parsed = text.map(|text| parse(text.expose_secret())).transpose();
    parsed.map_err(|error| ConfigError::new(format!("merchants.{name}.{}", key.setting()), error))
}
