//! What can be wrong with a notification, and how often it is sent: the switches that all kinds share.

use anyhow::{Result, anyhow, bail};
use jiff::SignedDuration;
use wxpay_shared::{
    clock::{Clock as _, SystemClock},
    wechat::{
        keys::{ApiV3Key, V2Key},
        sender::SigningKey,
        v3_sign::{CLOCK_SKEW_MAX_S, SERIAL, SIGNATURE},
    },
};

use crate::{
    random,
    wechat_sender::{Outgoing, v3},
};

/// Copies of one notification that one run may send; more is a load test, which this is not.
const TIMES_MAX: i64 = 1000;
/// Nobody has this key.
const UNKNOWN_SERIAL: &str = "PUB_KEY_ID_0100000000000000000000000000000404";

/// How often.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Repeat {
    /// Sends the same notification so many times.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..=TIMES_MAX))]
    pub(super) times: i64,
    /// Sends all of them at once.
    #[arg(long)]
    pub(super) parallel: bool,
}

/// What is wrong.
#[derive(Debug, clap::Args)]
pub(super) struct Faults {
    /// Uses a key that is not the merchant's (v2), or not the platform's (v3).
    #[arg(long)]
    pub(super) wrong_key: bool,
    /// Changes the notification after signing or sealing, as somebody on the way would.
    #[arg(long)]
    pub(super) tamper: bool,
    /// Leaves the signature out.
    #[arg(long, conflicts_with = "wrong_key")]
    pub(super) unsigned: bool,
    /// v3: sends a wrong signature that says so (WECHATPAY/SIGNTEST/), as WeChat does to test receivers.
    #[arg(long, conflicts_with = "unsigned")]
    probe: bool,
    /// v3: signs so many seconds ago, or ahead where negative; more than 300 must be refused.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    stale: Option<i64>,
    /// v3: names a platform key that no receiver has.
    #[arg(long)]
    unknown_serial: bool,
}

impl Faults {
    /// Whether a receiver must refuse it.
    pub(super) fn must_be_refused(&self) -> bool {
        let stale = self.stale.is_some_and(|seconds| seconds.unsigned_abs() > CLOCK_SKEW_MAX_S);
        self.wrong_key || self.tamper || self.unsigned || self.probe || self.unknown_serial || stale
    }

    pub(super) fn only_v2s(&self) -> Result<()> {
        for (given, flag) in
            [(self.probe, "--probe"), (self.stale.is_some(), "--stale"), (self.unknown_serial, "--unknown-serial")]
        {
            if given {
                bail!("{flag}: only with --api v3");
            }
        }
        Ok(())
    }

    /// The v2 key to use: the merchant's, or one that nobody has.
    pub(super) fn v2_key<'k>(&self, key: &'k V2Key, other: &'k V2Key) -> &'k V2Key {
        if self.wrong_key { other } else { key }
    }

    /// A v3 notification with what is wrong with it.
    pub(super) fn v3(
        &self,
        notice: &v3::Notice,
        api: &ApiV3Key,
        platform: &SigningKey,
        serial: &str,
    ) -> Result<Outgoing> {
        let now = SystemClock.now();
        let at = now.checked_sub(SignedDuration::from_secs(self.stale.unwrap_or(0)));
        let at = at.map_err(|_| anyhow!("--stale: that is no time any more"))?;
        let body = notice.sealed(api, now);
        let mut outgoing = if self.wrong_key {
            let other = SigningKey::generate(serial).map_err(|error| anyhow!("a key: {error}"))?;
            v3::signed(body, &other, at)?
        } else {
            v3::signed(body, platform, at)?
        };
        if self.probe {
            outgoing = v3::probing(outgoing);
        }
        if self.unsigned {
            outgoing = outgoing.without_header(SIGNATURE);
        }
        if self.unknown_serial {
            outgoing = outgoing.with_header(SERIAL, UNKNOWN_SERIAL.to_owned());
        }
        if self.tamper {
            outgoing.body = outgoing.body.replacen("\"summary\":\"\"", "\"summary\":\"tampered\"", 1);
        }
        Ok(outgoing)
    }
}

/// A v2 key that no merchant has.
pub(super) fn other_v2_key() -> Result<V2Key> {
    V2Key::parse(random::hex_digits::<16>()).map_err(|error| anyhow!("{error}"))
}
