//! A merchant to try things with, whom WeChat does not know: made where nothing is configured, and kept.
//!
//! It is a configuration file like any other, with random keys beside it, so every command can be pointed at it and a
//! person can start their own from it. The platform key's private half, which no real merchant has, is there too, for
//! `wxpayctl simulate`. Only the owner can read what is made here.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use secrecy::{ExposeSecret, SecretString};
use wxpay_shared::wechat::sender::SigningKey;

use crate::random;

/// The merchant's name.
pub const NAME: &str = "dev";
/// The id of the key with which WeChat is played to it.
pub const PLATFORM_SERIAL: &str = "PUB_KEY_ID_0119000000010000000000000000000001";
/// The private half of that key, beside the configuration.
pub const PLATFORM_PRIVATE_FILE: &str = "dev-platform-private.pem";

const CONFIG_FILE: &str = "dev.toml";
const V2_KEY_FILE: &str = "dev-v2-key";
const API_V3_KEY_FILE: &str = "dev-api-v3-key";
const PLATFORM_PUBLIC_FILE: &str = "dev-platform-public.pem";
const SEAL_KEY_FILE: &str = "dev-seal-key";
/// What was written before the merchant spoke v3.
const CONFIG_V2: &str = r#"# A merchant to try things with, made by `wxpayctl`. WeChat does not know it.
data_dir = "."

[seal]
key_file = "dev-seal-key"

[merchants.dev]
mch_id = "1900000001"
appids = ["wxdev0000000000001"]
v2_key_file = "dev-v2-key"
points = "1/100"
"#;

/// The configuration file of the development merchant in this directory, and whether it was made just now. One that was
/// made before the merchant spoke v3 is completed, unless somebody changed it since.
///
/// # Errors
/// Where the directory cannot be written.
pub fn ensure(data_dir: &Path) -> Result<(PathBuf, bool)> {
    private_dir(data_dir)?;
    let file = data_dir.join(CONFIG_FILE);
    let before = match fs::read_to_string(&file) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    if before.as_deref().is_some_and(|text| text != CONFIG_V2) {
        return Ok((file, false));
    }
    for key in [V2_KEY_FILE, API_V3_KEY_FILE, SEAL_KEY_FILE] {
        stored_key(&data_dir.join(key))?;
    }
    let public = platform_key(&data_dir.join(PLATFORM_PRIVATE_FILE))?.public_pem().context("the platform key")?;
    write_private(&data_dir.join(PLATFORM_PUBLIC_FILE), &public)?;
    // Last, so that a configuration that is there has its keys.
    write_private(&file, &config())?;
    Ok((file, before.is_none()))
}

fn config() -> String {
    format!(
        "{CONFIG_V2}api_v3_key_file = \"{API_V3_KEY_FILE}\"\n\n[merchants.dev.platform_public_keys]\n\
         {PLATFORM_SERIAL} = \"{PLATFORM_PUBLIC_FILE}\"\n"
    )
}

/// The platform key in this file; a new one is written there first where there is none.
fn platform_key(file: &Path) -> Result<SigningKey> {
    if !file.exists() {
        let key = SigningKey::generate(PLATFORM_SERIAL).context("the platform key")?;
        write_private(file, key.private_pem().context("the platform key")?.expose_secret())?;
        return Ok(key);
    }
    let pem = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    SigningKey::from_pem(PLATFORM_SERIAL, &pem).with_context(|| file.display().to_string())
}

/// The key in this file; a random one is written there first where there is none.
///
/// # Errors
/// Where the file can be neither read nor written.
pub fn stored_key(file: &Path) -> Result<SecretString> {
    match fs::read_to_string(file) {
        Ok(key) => Ok(key.trim_end().into()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let key = random::hex_digits::<16>();
            write_private(file, &key)?;
            Ok(key.into())
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Makes a directory that only its owner can enter; one that is there stays as it is.
///
/// # Errors
/// Where it cannot be made.
pub fn private_dir(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("cannot make the directory {}", path.display()))
}

/// Whole or not at all: a key of which a half was written would be another key.
fn write_private(file: &Path, text: &str) -> Result<()> {
    let unfinished = file.with_extension("new");
    let write = || {
        let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        fs::rename(&unfinished, file)
    };
    write().with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use wxpay_shared::{config::Config, merchant::Merchants};

    use super::*;

    #[test]
    fn it_is_made_once_is_usable_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("data");
        let (file, new) = ensure(&data_dir).unwrap();
        let first = fs::read_to_string(data_dir.join(V2_KEY_FILE)).unwrap();
        assert!(new && first.len() == 32);
        assert_eq!(ensure(&data_dir).unwrap(), (file.clone(), false));
        assert_eq!(fs::read_to_string(data_dir.join(V2_KEY_FILE)).unwrap(), first);

        let config = Config::load(Some(&file), []).unwrap();
        assert!(config.seal_keys().unwrap().is_some());
        assert!(Merchants::open(&config).unwrap().get(NAME).unwrap().v3.is_some());
        for entry in fs::read_dir(&data_dir).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o077, 0);
        }
        assert_eq!(fs::metadata(&data_dir).unwrap().permissions().mode() & 0o077, 0);
    }

    #[test]
    fn one_from_before_v3_is_completed_and_a_changed_one_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(CONFIG_FILE);
        stored_key(&directory.path().join(V2_KEY_FILE)).unwrap();
        let key = fs::read_to_string(directory.path().join(V2_KEY_FILE)).unwrap();
        fs::write(&file, CONFIG_V2).unwrap();
        assert_eq!(ensure(directory.path()).unwrap(), (file.clone(), false));
        assert_eq!(fs::read_to_string(directory.path().join(V2_KEY_FILE)).unwrap(), key);
        assert!(Merchants::open(&Config::load(Some(&file), []).unwrap()).unwrap().get(NAME).unwrap().v3.is_some());

        let changed = format!("# mine\n{CONFIG_V2}");
        fs::write(&file, &changed).unwrap();
        assert_eq!(ensure(directory.path()).unwrap(), (file.clone(), false));
        assert_eq!(fs::read_to_string(&file).unwrap(), changed);
    }
}
