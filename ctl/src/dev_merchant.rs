//! A merchant to try things with, whom WeChat does not know: made where nothing is configured, and kept.
//!
//! It is a configuration file like any other, with two random keys beside it, so every command can be pointed at it and
//! a person can start their own from it. Only the owner can read what is made here.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use secrecy::SecretString;

use crate::random;

/// The merchant's name.
pub const NAME: &str = "dev";

const CONFIG_FILE: &str = "dev.toml";
const V2_KEY_FILE: &str = "dev-v2-key";
const SEAL_KEY_FILE: &str = "dev-seal-key";
const CONFIG: &str = r#"# A merchant to try things with, made by `wxpayctl`. WeChat does not know it.
data_dir = "."

[seal]
key_file = "dev-seal-key"

[merchants.dev]
mch_id = "1900000001"
appids = ["wxdev0000000000001"]
v2_key_file = "dev-v2-key"
points = "1/100"
"#;

/// The configuration file of the development merchant in this directory, and whether it was made just now.
///
/// # Errors
/// Where the directory cannot be written.
pub fn ensure(data_dir: &Path) -> Result<(PathBuf, bool)> {
    private_dir(data_dir)?;
    let file = data_dir.join(CONFIG_FILE);
    if file.exists() {
        return Ok((file, false));
    }
    for key in [V2_KEY_FILE, SEAL_KEY_FILE] {
        stored_key(&data_dir.join(key))?;
    }
    // Last, so that a configuration that is there has its keys.
    write_private(&file, CONFIG)?;
    Ok((file, true))
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
        assert!(Merchants::open(&config).unwrap().get(NAME).is_some());
        for entry in fs::read_dir(&data_dir).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o077, 0);
        }
        assert_eq!(fs::metadata(&data_dir).unwrap().permissions().mode() & 0o077, 0);
    }
}
