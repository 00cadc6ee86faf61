//! On whose behalf WeChat is played, with which keys, and where to: from the command line over the configuration.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use wxpay_shared::{
    config::{self, Config, ConfigError, MerchantKey},
    ids::{AppId, MchId, MerchantName},
    wechat::{
        keys::{ApiV3Key, V2Key},
        sender::SigningKey,
    },
};

use super::Api;
use crate::{client::secret, dev_merchant, wechat_sender::Payee};

#[derive(Debug, clap::Args)]
pub(super) struct MerchantArgs {
    /// The receiver's `notify_url`; that of the configuration's listener unless given.
    #[arg(long, required_unless_present = "config")]
    url: Option<Url>,
    /// Takes ids, keys and address from this configuration.
    #[arg(long, value_name = "FILE", requires = "merchant")]
    config: Option<PathBuf>,
    /// The merchant in that configuration.
    #[arg(long, requires = "config", value_parser = MerchantName::parse)]
    merchant: Option<MerchantName>,
    /// The merchant number; the service provider's in service-provider mode.
    #[arg(long, required_unless_present = "config", value_parser = MchId::parse)]
    mch_id: Option<MchId>,
    /// The application; the first of the configuration unless given.
    #[arg(long, required_unless_present = "config", value_parser = AppId::parse)]
    appid: Option<AppId>,
    /// The sub-merchant, where the merchant is a service provider; the first of the configuration unless given.
    #[arg(long, value_parser = MchId::parse)]
    sub_mch_id: Option<MchId>,
    /// The sub-merchant's application; none unless given.
    #[arg(long, value_parser = AppId::parse)]
    sub_appid: Option<AppId>,
    /// A file with the v2 key.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The v2 key; only from the environment, where other users cannot list it.
    #[arg(long, hide = true, env = "WXPAY_V2_KEY", hide_env_values = true, value_parser = secret)]
    v2_key: Option<SecretString>,
    /// A file with the `APIv3` key.
    #[arg(long, value_name = "FILE")]
    api_v3_key_file: Option<PathBuf>,
    /// The `APIv3` key; only from the environment.
    #[arg(long, hide = true, env = "WXPAY_API_V3_KEY", hide_env_values = true, value_parser = secret)]
    api_v3_key: Option<SecretString>,
    /// A file with the private key (PEM, PKCS#8) that signs v3 as the platform; the development merchant has one.
    #[arg(long, value_name = "FILE")]
    platform_key: Option<PathBuf>,
    /// The serial or public key id under which the receiver knows that key.
    #[arg(long, value_name = "ID")]
    serial: Option<String>,
}

/// On whose behalf, and where to.
pub(super) struct Target {
    pub(super) url: Url,
    pub(super) payee: Payee,
    pub(super) keys: Keys,
}

/// What WeChat needs to speak.
pub(super) enum Keys {
    V2(V2Key),
    V3 { api: ApiV3Key, platform: SigningKey, serial: String },
}

/// The merchant's section of a configuration.
struct Configured {
    config: Config,
    name: MerchantName,
    merchant: config::Merchant,
}

impl MerchantArgs {
    pub(super) fn target(&self, api: Api) -> Result<Target> {
        let configured = match (&self.config, &self.merchant) {
            (Some(file), Some(name)) => Some(Configured::load(file, name)?),
            _ => None,
        };
        let keys = match api {
            Api::V2 => Keys::V2(self.v2(configured.as_ref())?),
            Api::V3 => {
                let (serial, platform) = self.platform(configured.as_ref())?;
                Keys::V3 { api: self.v3(configured.as_ref())?, platform, serial }
            }
        };
        let from = configured.as_ref();
        let mch_id = self.mch_id.clone().or_else(|| from.map(|from| from.merchant.mch_id.clone()));
        let appid = self.appid.clone().or_else(|| from.and_then(|from| from.merchant.appids.first().cloned()));
        let (Some(mch_id), Some(appid)) = (mch_id, appid) else {
            bail!("give --config with --merchant, or --url, --mch-id and --appid");
        };
        let sub_mch_id = self.sub_mch_id.clone();
        let sub_mch_id = sub_mch_id.or_else(|| from.and_then(|from| from.merchant.sub_mch_ids.first().cloned()));
        let url = match (&self.url, from) {
            (Some(url), _) => url.clone(),
            (None, Some(from)) => from.url(api)?,
            (None, None) => bail!("--url: missing"),
        };
        Ok(Target { url, payee: Payee { mch_id, appid, sub_mch_id, sub_appid: self.sub_appid.clone() }, keys })
    }

    fn v2(&self, configured: Option<&Configured>) -> Result<V2Key> {
        let given = (self.key_file.as_deref(), self.v2_key.as_ref());
        let key = given_or_configured(given, configured, MerchantKey::V2, "--key-file", "WXPAY_V2_KEY")?;
        V2Key::parse(key.expose_secret()).map_err(|error| anyhow!("the v2 key: {error}"))
    }

    fn v3(&self, configured: Option<&Configured>) -> Result<ApiV3Key> {
        let given = (self.api_v3_key_file.as_deref(), self.api_v3_key.as_ref());
        let key = given_or_configured(given, configured, MerchantKey::ApiV3, "--api-v3-key-file", "WXPAY_API_V3_KEY")?;
        ApiV3Key::parse(key.expose_secret()).map_err(|error| anyhow!("the APIv3 key: {error}"))
    }

    fn platform(&self, configured: Option<&Configured>) -> Result<(String, SigningKey)> {
        let known = |from: &Configured| from.merchant.platform_public_keys.keys().next().cloned();
        let beside = |from: &Configured| from.config.path(Path::new(dev_merchant::PLATFORM_PRIVATE_FILE));
        let file = self.platform_key.clone().or_else(|| configured.map(beside).filter(|file| file.exists()));
        let file = file.context(
            "the platform's private key: name its file with --platform-key; only the development merchant has one of \
             its own",
        )?;
        let serial = self.serial.clone().or_else(|| configured.and_then(known));
        let serial = serial.context("--serial: say under which serial the receiver knows the platform key")?;
        let pem = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let key = SigningKey::from_pem(&serial, &pem).map_err(|error| anyhow!("{}: {error}", file.display()))?;
        Ok((serial, key))
    }
}

/// From its file, from the configuration, from the environment: the first one that is there.
fn given_or_configured(
    (file, environment): (Option<&Path>, Option<&SecretString>),
    configured: Option<&Configured>,
    key: MerchantKey,
    flag: &str,
    variable: &str,
) -> Result<SecretString> {
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).with_context(|| format!("{flag}: cannot read {}", path.display()))?;
        return Ok(text.trim_end_matches(['\r', '\n']).into());
    }
    if let Some(Configured { config, name, merchant }) = configured {
        let key_in_config = config.merchant_key(name, merchant, key)?;
        let setting = format!("merchants.{name}.{}", key.setting());
        return Ok(key_in_config.ok_or_else(|| ConfigError::new(setting, "missing"))?);
    }
    let setting = key.setting();
    environment.cloned().with_context(|| format!("the {setting}: name its file with {flag} or set {variable}"))
}

impl Configured {
    fn load(file: &Path, name: &MerchantName) -> Result<Self> {
        let config = Config::load(Some(file), config::environment()?)?;
        let missing = || ConfigError::new(format!("merchants.{name}"), "no such merchant");
        let merchant = config.merchants.get(name).ok_or_else(missing)?.clone();
        Ok(Self { config, name: name.clone(), merchant })
    }

    fn url(&self, api: Api) -> Result<Url> {
        let mut listen = self.config.ingress.listen;
        if listen.ip().is_unspecified() {
            listen.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        let api = wxpay_shared::envelope::Api::from(api).code();
        let scheme = self.config.ingress.scheme();
        Ok(Url::parse(&format!("{scheme}://{listen}/{api}/{}", self.name))?)
    }
}
