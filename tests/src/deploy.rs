//! The files that start the programs elsewhere say what the programs read: their settings, secrets, ports and commands.
//!
//! No container engine runs here. So what such a file says is compared with the code, setting by setting.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;
use wxpay_shared::config::Config;

use crate::harness::pair::{V2_KEY, binary};

mod compose;
mod image;
mod kubernetes;
mod systemd;

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a member of the workspace")
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The environment of one program, as a file for operations gives it.
type Environment = BTreeMap<String, String>;

/// The configuration that a program reads from its environment and no file.
fn config(environment: &Environment) -> Config {
    let directory = TempDir::with_prefix("wxpay-deploy-").unwrap();
    let empty = directory.path().join("wxpay.toml");
    fs::write(&empty, "").unwrap();
    Config::load(Some(&empty), environment.clone()).unwrap_or_else(|error| panic!("{error}"))
}

/// The environment with each secret's file in `directory` instead of where it is mounted.
fn with_secrets_in(directory: &Path, mount: &str, mounted: &[String], environment: &Environment) -> Environment {
    let local = |(name, value): (&String, &String)| {
        let Some(secret) = value.strip_prefix(mount) else { return (name.clone(), value.clone()) };
        assert!(mounted.iter().any(|mounted| mounted == secret), "{name}: {secret} is not mounted");
        (name.clone(), directory.join(secret).display().to_string())
    };
    environment.iter().map(local).collect()
}

/// A merchant's key, and what the script makes beside it.
fn secrets(store: &str) -> (TempDir, PathBuf) {
    let directory = TempDir::with_prefix("wxpay-secrets-").unwrap();
    let secrets = directory.path().join("secrets");
    fs::create_dir(&secrets).unwrap();
    fs::write(secrets.join("shop-v2-key"), V2_KEY).unwrap();
    let script = root().join("scripts/compose-secrets.sh");
    let status = Command::new("sh").arg(script).arg(store).current_dir(directory.path()).status().unwrap();
    assert!(status.success());
    (directory, secrets)
}

/// A command of ours as an image runs it: the program exists and knows the command.
fn assert_runs(command: &[&str]) {
    let output = Command::new(binary(command[0])).args(&command[1..]).arg("--help").output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An address that is reached from elsewhere, at the port that the program has by itself.
fn assert_public(setting: &str, address: SocketAddr, default: SocketAddr) {
    assert!(address.ip().is_unspecified(), "{setting}: {address} is not reached from another container");
    assert_eq!(address.port(), default.port(), "{setting}");
}
