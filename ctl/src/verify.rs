//! `wxpayctl verify`: takes a saved notification, says which check it fails, and what usually causes that.
//!
//! The checks are those of ingress and worker, one by one. Keys, digests, signatures, bodies and personal fields are
//! never printed, so what is printed can be sent to somebody who helps.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use wxpay_ingress::request::BODY_MAX;
use wxpay_shared::{
    clock::{Clock as _, SystemClock},
    config::{self, Config, ConfigError},
    ids::MerchantName,
    merchant::{Merchant, Merchants, V3Keys},
};

use crate::{
    cli::Verdict,
    screen::{Grid, Screen},
    simulate::Api,
};

pub(crate) mod checklist;
mod headers;
mod content;
mod v2;
mod v2_hints;
mod v3;

use checklist::{Checklist, Outcome};

/// `wxpayctl verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wxpayctl verify body.xml --config wxpay.toml --merchant shop
  wxpayctl verify body.json --headers headers.txt --config wxpay.toml --merchant shop
  wxpayctl verify body.json --headers headers.txt --at 2026-03-18T10:20:30+08:00 --config wxpay.toml --merchant shop

FILE holds the body byte for byte: what a proxy or `tcpdump` recorded, not what a framework parsed and printed again.
For v3, the headers stand in a file of their own, one `Name: value` a line.

Nothing secret or personal is printed. Exit codes: 0 every check passed, 1 one failed, 2 it could not be done, 64 the
configuration cannot be used.")]
pub(crate) struct Args {
    /// The notification's body, byte for byte.
    file: PathBuf,
    /// The configuration; wxpay.toml, where that exists, unless given.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The merchant on whose path it came.
    #[arg(long, value_parser = MerchantName::parse)]
    merchant: MerchantName,
    /// The protocol; unless given, v3 where there are headers or the body is JSON.
    #[arg(long, value_enum)]
    api: Option<Api>,
    /// v3: a file with the request's headers, one `Name: value` a line.
    #[arg(long, value_name = "FILE")]
    headers: Option<PathBuf>,
    /// v3: the time at which it arrived. Unless given, the age of its timestamp is told and not judged.
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// v3: judges the timestamp by the present time where --at is not given.
    #[arg(long)]
    strict: bool,
}

pub(crate) fn run(args: Args, screen: &mut Screen<'_>) -> Result<Verdict> {
    let config = Config::load(args.config.as_deref(), config::environment()?)?;
    let merchants = Merchants::open(&config)?;
    let missing = || ConfigError::new(format!("merchants.{}", args.merchant), "no such merchant");
    let merchant = merchants.get(args.merchant.as_str()).ok_or_else(missing)?;
    let body = read(&args.file)?;
    let api = args.api.unwrap_or_else(|| guess(&body, args.headers.is_some()));
    let (title, list) = match api {
        _ if body.len() > BODY_MAX => ("a notification", too_large(body.len())),
        Api::V2 => {
            if args.headers.is_some() || args.at.is_some() || args.strict {
                bail!("--headers, --at and --strict: only with --api v3, since v2 has no timestamp");
            }
            if merchant.v2_keys.is_empty() {
                return Err(ConfigError::new(format!("merchants.{}.v2_key", merchant.name), "missing").into());
            }
            v2(&body, merchant)
        }
        Api::V3 => v3(&args, &body, merchant)?,
    };
    let name = args.file.display();
    if screen.is_json() {
        screen.json(&serde_json::json!({
            "file": name.to_string(), "merchant": merchant.name, "kind": title, "passed": list.passed(),
            "checks": list.checks(), "failed": list.failed(), "cause": list.cause(),
        }))?;
    } else {
        screen.line(format_args!("{name}, as {title} of merchant {}\n", merchant.name))?;
        show(screen, &list)?;
    }
    Ok(Verdict::found_if(!list.passed()))
}

/// The checks of a v2 body, and what it is.
pub(crate) fn v2(body: &[u8], merchant: &Merchant) -> (&'static str, Checklist) {
    let mut list = Checklist::default();
    let title = v2::check(body, merchant, &mut list);
    (title, list)
}

/// The checks of a v3 body's content, its signature aside.
pub(crate) fn v3_content(body: &[u8], merchant: &Merchant, keys: &V3Keys) -> Checklist {
    let mut list = Checklist::default();
    content::v3(body, merchant, keys, &mut list);
    list
}

fn v3(args: &Args, body: &[u8], merchant: &Merchant) -> Result<(&'static str, Checklist)> {
    let Some(keys) = &merchant.v3 else {
        return Err(ConfigError::new(format!("merchants.{}.api_v3_key", merchant.name), "missing").into());
    };
    let file = args.headers.as_deref().context(
        "--headers: a v3 notification is signed in its headers; save them in a file, one `Name: value` a line",
    )?;
    let text = read(file)?;
    let headers = headers::parse(&text).with_context(|| file.display().to_string())?;
    let now = SystemClock.now();
    let judged_at = args.at.or_else(|| args.strict.then_some(now));
    let mut list = Checklist::default();
    v3::check(&headers, body, keys, v3::Clocks { judged_at, now }, &mut list);
    if list.passed() {
        content::v3(body, merchant, keys, &mut list);
    }
    Ok(("a v3 notification", list))
}

fn too_large(length: usize) -> Checklist {
    let mut list = Checklist::default();
    let cause = "Real notifications have a few kilobytes: the file holds something else, or the sender is not WeChat.";
    list.fail("size", format!("{length} bytes, of which {BODY_MAX} are taken"), cause);
    list
}

fn guess(body: &[u8], with_headers: bool) -> Api {
    if with_headers || body.trim_ascii_start().starts_with(b"{") { Api::V3 } else { Api::V2 }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

fn show(screen: &mut Screen<'_>, list: &Checklist) -> Result<()> {
    let mut grid = Grid::new(["check", "result", "what was found"]);
    for check in list.checks() {
        let result = match check.result {
            Outcome::Ok => "ok",
            Outcome::Failed => "FAILED",
            Outcome::Noted => "noted",
        };
        grid.row([check.name.to_owned(), result.to_owned(), check.found.clone()]);
    }
    screen.table(grid)?;
    match (list.failed(), list.cause()) {
        (Some(failed), Some(cause)) => screen.line(format_args!("\n{failed}: {cause}")),
        _ => screen.line("\nevery check passed: ingress accepts it, and the worker can read it"),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fmt::Write as _, path::Path};

    use clap::Parser as _;
    use serde::Deserialize;

    use super::*;
    use crate::cli::{self, Cli};

    #[derive(Deserialize)]
    struct Vector {
        family: String,
        id: String,
        body: String,
        ingress: String,
        worker: Option<String>,
        #[serde(default)]
        headers: BTreeMap<String, String>,
        flags: Option<Vec<String>>,
    }

    impl Vector {
        /// Whether it must pass; `None` where the vectors leave it open.
        fn passes(&self) -> Option<bool> {
            match (self.ingress.as_str(), self.worker.as_deref()) {
                ("refuse", _) => Some(false),
                ("either", Some("never_applied")) => Some(false),
                ("accept", Some("apply" | "duplicate" | "ignore")) => Some(true),
                // These contradict the order, which only the worker knows.
                ("accept", Some("dead_letter")) if self.id.ends_with("-mismatch") || self.id.contains("currency") => {
                    Some(true)
                }
                ("accept", Some("dead_letter")) => Some(false),
                _ => None,
            }
        }

        fn merchant(&self) -> &str {
            let flags = self.flags.iter().flatten();
            flags.map(String::as_str).find(|flag| matches!(*flag, "partner" | "sandbox")).unwrap_or("shop")
        }
    }

    fn config(vectors: &Path) -> String {
        let keys = |name: &str| vectors.join("keys").join(name).display().to_string();
        let v3 = format!(
            "api_v3_key = \"v3TestKey_0123456789abcdefghijkl\"\nplatform_certificates = [{:?}, {:?}, {:?}]\n\
             platform_public_keys = {{ PUB_KEY_ID_0119009900012026031800000000000001 = {:?} }}\n",
            keys("platform_cert_a.cert.pem"),
            keys("platform_cert_b.cert.pem"),
            keys("platform_cert_expired.cert.pem"),
            keys("platform_pubkey.public.pem"),
        );
        let (key, sandbox) = ("Zx8kQ2mN7pR4tV9wB3yC6dF1gH5jL0sT", "0f1e2d3c4b5a69788796a5b4c3d2e1f0");
        let mut text = String::new();
        for (name, ids, key) in [
            ("shop", "mch_id = \"1900990001\"\nappids = [\"wxtest00000000a001\"]", key),
            ("sandbox", "mch_id = \"1900990001\"\nappids = [\"wxtest00000000a001\"]", sandbox),
            (
                "partner",
                "mch_id = \"1900990100\"\nappids = [\"wxtest00000000b001\"]\nsub_mch_ids = [\"1900990101\"]\n\
                 sub_appids = [\"wxtest00000000b002\"]",
                key,
            ),
        ] {
            writeln!(text, "[merchants.{name}]\n{ids}\npoints = \"1/100\"\nv2_key = \"{key}\"\n{v3}").unwrap();
        }
        text
    }

    /// The verdict, what was printed, and the name of the first check that failed.
    async fn verified(vector: &Vector, vectors: &Path, directory: &Path) -> (Verdict, String, Option<String>) {
        let (config, headers) = (directory.join("wxpay.toml"), directory.join("headers"));
        let lines: String = vector.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        std::fs::write(&headers, lines).unwrap();
        let path = |path: &Path| path.display().to_string();
        let mut words = ["wxpayctl", "verify", "--json", "--merchant", vector.merchant()].map(str::to_owned).to_vec();
        words.extend([path(&vectors.join(&vector.body)), "--config".to_owned(), path(&config)]);
        if vector.family == "v3" {
            words.extend(["--api", "v3", "--at", "2026-03-18T10:20:30+08:00", "--headers"].map(str::to_owned));
            words.push(path(&headers));
        } else {
            words.extend(["--api", "v2"].map(str::to_owned));
        }
        let mut out = Vec::new();
        let verdict = cli::run(Cli::try_parse_from(words).unwrap(), &mut Screen::new(&mut out, None, true)).await;
        let out = String::from_utf8(out).unwrap();
        let document: serde_json::Value = serde_json::from_str(&out).unwrap();
        (verdict.unwrap(), out, document["failed"].as_str().map(str::to_owned))
    }

    #[tokio::test]
    async fn every_vector_passes_or_fails_as_the_receiver_judges_it_and_nothing_personal_is_shown() {
        let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/vectors");
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("wxpay.toml"), config(&vectors)).unwrap();
        let manifest: Vec<Vector> =
            serde_json::from_slice(&std::fs::read(vectors.join("manifest.json")).unwrap()).unwrap();
        let mut judged = 0;
        for vector in manifest {
            let name = format!("{}/{}", vector.family, vector.id);
            let (verdict, out, failed) = verified(&vector, &vectors, directory.path()).await;
            let secrets = ["Zx8kQ2mN", "v3TestKey", "0f1e2d3c", "oTEST"];
            assert!(!secrets.iter().any(|secret| out.contains(secret)), "{name} {out}");
            if let Some(passes) = vector.passes() {
                judged += 1;
                assert_eq!(verdict == Verdict::Fine, passes, "{name} {out}");
                assert_eq!(failed.is_none(), passes, "{name} {out}");
            }
        }
        assert!(judged > 130, "{judged}");
    }
}
