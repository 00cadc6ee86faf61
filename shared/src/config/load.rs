//! Reading the configuration: a TOML file, the environment laid over it, and errors that name the key and its place.

use std::path::Path;

use serde::Deserialize;
use toml::{Table, Value};

use super::{Config, ConfigError, DEFAULT_FILE, ENV_PREFIX};

pub(super) fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    let mut table = match std::fs::read_to_string(path) {
        Ok(text) => parse_toml(path, &text)?,
        Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => Table::new(),
        Err(error) => return Err(ConfigError::new(path.display().to_string(), error)),
    };
    let mut from_environment = Vec::new();
    for (name, value) in environment {
        let Some(key) = name.strip_prefix(ENV_PREFIX) else { continue };
        let key = key_of(key);
        overlay(&mut table, &key, &value).map_err(|problem| ConfigError::new(&name, problem))?;
        from_environment.push((key.replace("__", "."), name));
    }
    let mut config: Config = serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
        let key = error.path().to_string();
        // The innermost key that came from the environment is where the reader must look.
        let place = from_environment.iter().find(|(known, _)| is_within(&key, known));
        let place = place.map_or_else(|| path.display().to_string(), |(_, name)| format!("environment, {name}"));
        let problem = without_values(error.inner().message());
        ConfigError::new(key, format!("{problem} ({place})"))
    })?;
    config.check()?;
    config.base_dir = path.parent().map(Path::to_path_buf).unwrap_or_default();
    Ok(config)
}

/// Whether one of two keys is the other, or lies below it.
fn is_within(one: &str, other: &str) -> bool {
    let segments = |key| str::split(key, ['.', '[']);
    segments(one).zip(segments(other)).all(|(one, other)| one == other)
}

/// The file's table. A syntax error is told by line and column; the line itself may hold a secret.
fn parse_toml(path: &Path, text: &str) -> Result<Table, ConfigError> {
    Table::deserialize(toml::Deserializer::parse(text).map_err(|error| syntax(path, text, &error))?)
        .map_err(|error| syntax(path, text, &error))
}

fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or("");
    let line = before.matches('\n').count() + 1;
    ConfigError::new(format!("{}:{line}", path.display()), without_values(error.message()))
}

/// serde quotes the value it did not expect, and that may be a secret in the wrong place.
fn without_values(message: &str) -> String {
    let Some((found, expected)) = message.split_once(", expected ") else { return message.to_owned() };
    let kind = found.split_once(['`', '"']).map_or(found, |(kind, _)| kind).trim_end();
    match found.strip_prefix("unknown field ") {
        Some(_) => format!("{found}, expected {expected}"),
        None => format!("{kind}, expected {expected}"),
    }
}

/// A key as the file spells it, from what the environment says after the prefix. All are lower case but the ids of public
/// keys, which are WeChat's.
fn key_of(name: &str) -> String {
    match name.rsplit_once("__") {
        Some((section, id)) if section.to_lowercase().ends_with("__platform_public_keys") => {
            format!("{}__{id}", section.to_lowercase())
        }
        _ => name.to_lowercase(),
    }
}

/// Sets one key of the table. Text stays text; only a list is taken apart.
fn overlay(table: &mut Table, key: &str, value: &str) -> Result<(), &'static str> {
    let (sections, leaf) = key.rsplit_once("__").map_or((None, key), |(sections, leaf)| (Some(sections), leaf));
    let mut target = table;
    for section in sections.into_iter().flat_map(|sections| sections.split("__")) {
        let next = target.entry(section).or_insert_with(|| Value::Table(Table::new()));
        target = next.as_table_mut().ok_or("lies below a key that is no section")?;
    }
    let list = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let value = match list {
        None => Value::String(value.to_owned()),
        Some(items) => {
            let items = items.split(',').map(|item| item.trim().trim_matches('"')).filter(|item| !item.is_empty());
            Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
        }
    };
    target.insert(leaf.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use secrecy::ExposeSecret;

    use super::*;
    use crate::{config::MerchantKey, ids::MerchantName};

    const SECRET: &str = "Zx8kQ2mN7pR4tV9wB3yC6dF1gH5jL0sT";

    fn load_text(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("wxpay.toml");
        std::fs::write(&file, text).unwrap();
        std::fs::write(dir.path().join("key"), format!("\u{feff}{SECRET}\r\n")).unwrap();
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let config = load(Some(&file), environment)?;
        for (name, merchant) in &config.merchants {
            assert_eq!(config.merchant_key(name, merchant, MerchantKey::V2)?.unwrap().expose_secret(), SECRET);
        }
        Ok(config)
    }

    #[test]
    fn the_environment_lies_over_the_file_and_lists_and_numbers_are_text_there() {
        let file = "[queue]\nprefetch = 7\nretry_delays = [\"250ms\", \"1h\"]\n[merchants.shop]\nmch_id = \"19\"\n\
                    appids = [\"wx1\"]\nv2_key_file = \"key\"\npoints = \"1/100\"\n";
        let config = load_text(
            file,
            &[
                ("WXPAY__QUEUE__PREFETCH", "9"),
                ("WXPAY__QUEUE__SHARDS", "4"),
                ("WXPAY__WORKER__SHARDS", "[2, 0]"),
                ("WXPAY__MERCHANTS__SHOP__APPIDS", "[wx1, \"123\"]"),
                ("WXPAY__MERCHANTS__SHOP__MCH_ID", "1900990001"),
                ("WXPAY__MERCHANTS__SHOP__PLATFORM_PUBLIC_KEYS__PUB_KEY_ID_01", "pub.pem"),
                ("WXPAY_OTHER", "ignored"),
            ],
        )
        .unwrap();
        assert_eq!((config.queue.prefetch, config.queue.shards), (9, 4));
        assert_eq!(config.worker.shards, [2, 0]);
        assert_eq!(config.queue.retry_delays, [Duration::from_millis(250), Duration::from_secs(3600)]);
        let shop = &config.merchants[&MerchantName::parse("shop").unwrap()];
        assert_eq!((shop.mch_id.as_str(), shop.appids[1].as_str()), ("1900990001", "123"));
        assert_eq!(shop.platform_public_keys["PUB_KEY_ID_01"], Path::new("pub.pem"));
        assert!(!format!("{config:?}").contains(SECRET));
    }

    #[test]
    fn each_mistake_names_its_key_and_place_and_shows_no_value() {
        let secret_as_number = "[seal]\nkey = 31415926535897932384";
        let secret_line = format!("[seal]\nkey = \"{SECRET}\" x");
        for (file, environment, expected) in [
            ("[queue]\nprefech = 7", None, "queue.prefech: unknown field `prefech`, expected one of"),
            ("[queue]\nprefetch = 0", None, "queue.prefetch: expected a positive number in range"),
            ("[queue]\nprefetch = \"x\"", None, "queue.prefetch: expected a positive number in range"),
            ("[queue]\nretry_delays = [\"1h\", \"1s\"]", None, "queue.retry_delays: expected growing delays"),
            ("[queue]\nshards = 0", None, "queue.shards: expected a positive number in range"),
            ("[queue]\nshards = 257", None, "queue.shards: expected at most 256"),
            ("[worker]\nshards = [\"a\"]", None, "worker.shards: expected numbers such as [0, 2]"),
            (
                "[worker]\nshards = [1]",
                None,
                "worker.shards: expected different numbers from 0 to 0, since queue.shards is 1",
            ),
            (
                "[queue]\nshards = 4",
                Some(("WXPAY__WORKER__SHARDS", "[2, 2]")),
                "worker.shards: expected different numbers from 0 to 3",
            ),
            ("[merchants.A]\nmch_id = \"1\"", None, "merchants.A: merchant: expected 1 to 32 of a-z"),
            ("[merchants.a]\nmch_id = \"1\"\npoints = \"1/1\"", None, "merchants.a: missing field `appids`"),
            ("[ingress]\nlisten = \"here\"", None, "ingress.listen: invalid socket address syntax"),
            (
                "[telemetry]\notlp_endpoint = \"127.0.0.1:4318\"",
                None,
                "telemetry.otlp_endpoint: expected an address such as http://",
            ),
            (&secret_line, None, "wxpay.toml:2"),
            (secret_as_number, None, "wxpay.toml:2"),
            ("[seal]\nkey = 314159", None, "seal.key: invalid type: integer, expected a string"),
            ("", Some(("WXPAY__TYPO", "1")), "typo: unknown field `typo`"),
            ("", Some(("WXPAY__QUEUE__PREFETCH", "many")), "(environment, WXPAY__QUEUE__PREFETCH)"),
            ("", Some(("WXPAY__MERCHANTS__A__APPIDS", "[a, ]b]")), "(environment, WXPAY__MERCHANTS__A__APPIDS)"),
            ("[queue]\nurl_fil = \"key\"", Some(("WXPAY__QUEUE__URL", "embedded")), "wxpay.toml)"),
            ("data_dir = \"x\"", Some(("WXPAY__DATA_DIR__X", "1")), "WXPAY__DATA_DIR__X: lies below a key"),
        ] {
            let error = load_text(file, environment.as_slice()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}\n{expected}");
            assert!(!error.contains(SECRET) && !error.contains("314159"), "{error}");
        }
    }

    #[test]
    fn the_same_bytes_are_the_same_secret_in_both_places() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        let read = |bytes: &str| {
            std::fs::write(&file, bytes).unwrap();
            let by_file = format!("[worker]\nadmin_token_file = {:?}", file.display().to_string());
            let by_value = [("WXPAY__WORKER__ADMIN_TOKEN", bytes)];
            [load_text(&by_file, &[]), load_text("", &by_value)].map(|config| {
                let token = config.unwrap().admin_token();
                token.map(|token| token.unwrap().expose_secret().to_owned()).map_err(|error| error.to_string())
            })
        };
        for bytes in [SECRET.to_owned(), format!("{SECRET}\n"), format!("{SECRET}\r\n"), format!("\u{feff}{SECRET}")] {
            assert_eq!(read(&bytes), [Ok(SECRET.to_owned()), Ok(SECRET.to_owned())], "{bytes:?}");
        }
        for bytes in [format!("{SECRET} "), format!("{SECRET}\n\n")] {
            for refused in read(&bytes) {
                assert!(refused.unwrap_err().ends_with(": begins or ends with white space"), "{bytes:?}");
            }
        }
    }

    #[test]
    fn a_secret_has_one_place() {
        let both = format!("[seal]\nkey = \"{SECRET}\"\nkey_file = \"key\"");
        let error = load_text(&both, &[]).unwrap().seal_keys().unwrap_err();
        assert_eq!(error.to_string(), "seal.key: set either seal.key or seal.key_file");
        let error = load_text("[seal]\nkey = \"short\"", &[]).unwrap().seal_keys().unwrap_err();
        assert_eq!(error.to_string(), "seal.key: expected at least 32 characters, got 5");
        let error = load_text("[seal]\nkey_file = \"nowhere\"", &[]).unwrap().seal_keys().unwrap_err();
        assert!(error.to_string().starts_with("seal.key_file: cannot read "), "{error}");
        let error = load_text("[queue]\nurl = \"redis://x:secret@y\"", &[]).unwrap().queue_url().unwrap_err();
        assert_eq!(error.to_string(), "queue.url: expected one of embedded, amqp://…, amqps://…");
        let error = load_text("[queue]\nshards = 2", &[]).unwrap().queue_url().unwrap_err();
        assert!(error.to_string().starts_with("queue.shards: the embedded queue cannot be split"), "{error}");
        let error = load_text("[worker]\nadmin_token = \"guess me\"", &[]).unwrap().admin_token().unwrap_err();
        assert_eq!(error.to_string(), "worker.admin_token: expected at least 16 characters, got 8");
        let error = load_text("[worker]\nadmin_token_file = \"/dev/null\"", &[]).unwrap().admin_token().unwrap_err();
        assert_eq!(error.to_string(), "worker.admin_token_file: expected at least 16 characters, got 0");
        let error = load_text("[worker]\nadmin_listen = \"0.0.0.0:1\"", &[]).unwrap().admin_token().unwrap_err();
        assert!(error.to_string().starts_with("worker.admin_token: required"), "{error}");
    }
    #[test]
    fn an_address_that_no_driver_reads_is_told_before_anything_starts() {
        for (section, address) in [
            ("queue", "amqp://x:secret@y:port/"),
            ("queue", "amqps://x:secret@y/v?heartbeat=secret"),
            ("store", "postgres://x:secret@y:port/z"),
            ("store", "mysql://x:secret@y/z?ssl-mode=secret"),
        ] {
            let config = load_text(&format!("[{section}]\nurl = \"{address}\""), &[]).unwrap();
            let read = if section == "queue" { config.broker_url() } else { config.store_url() };
            let error = read.unwrap_err().to_string();
            let expected = format!("{section}.url: expected an address such as ");
            assert!(error.starts_with(&expected) && !error.contains("secret"), "{error}");
        }
    }
}
