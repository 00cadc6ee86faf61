//! The network between two parts: cut, slow, narrow, silent, deaf.

use std::time::Duration;

use tokio::time::sleep;

use super::{Line, Trouble};
use crate::harness::{
    proxy::{ACK, COMMIT, Cut, Proxy, Weather},
    rig::{RECOVERY, Rig},
    wait_until,
};

/// How long a line stays bad.
const SPELL: Duration = Duration::from_secs(2);
/// Longer than a publish may take, so that ingress has to say FAIL.
const SILENCE: Duration = Duration::from_secs(4);
const DELAY: Duration = Duration::from_millis(150);
/// A telephone line's speed.
const BYTES_PER_SECOND: usize = 20_000;

impl Rig {
    pub(super) async fn network(&mut self, line: Line, trouble: Trouble) {
        let proxy = match line {
            Line::WechatToIngress => &self.door,
            Line::IngressToBroker => &self.publishing,
            Line::WorkerToBroker => &self.consuming,
            Line::WorkerToStore => &self.storing,
        };
        match trouble {
            Trouble::Closed => interrupt(proxy, Cut::Fin).await,
            Trouble::Reset => interrupt(proxy, Cut::Reset).await,
            Trouble::Slow => spell(proxy, Weather::Slow(DELAY), SPELL).await,
            Trouble::Narrow => spell(proxy, Weather::Narrow(BYTES_PER_SECOND), SPELL).await,
            Trouble::Silent => spell(proxy, Weather::Silent, SILENCE).await,
            Trouble::Lost => {
                proxy.set(Weather::SilentForOld);
                // The programs must find out by themselves, by heartbeats and time limits.
                wait_until("every lost connection was given up", RECOVERY, async || proxy.old_connections() == 0).await;
                proxy.set(Weather::Fair);
            }
        }
    }

    /// The broker stored what it confirms, and ingress never hears.
    pub(super) async fn confirm_swallowed(&mut self) {
        self.publishing.set(Weather::HoldAnswer(ACK));
        self.publishing.holds("a confirm").await;
        swallow(&self.publishing).await;
    }

    /// The database committed, and the worker never hears.
    pub(super) async fn commit_answer_swallowed(&mut self) {
        self.storing.set(Weather::HoldAnswerTo(COMMIT));
        self.storing.holds("the answer to a commit").await;
        swallow(&self.storing).await;
    }
}

/// What is held, and what follows it, is thrown away; then the connections end.
async fn swallow(proxy: &Proxy) {
    proxy.set(Weather::AnswersSwallowed);
    proxy.holds("an answer").await;
    sleep(SPELL).await;
    proxy.cut(Cut::Reset);
    proxy.set(Weather::Fair);
}

async fn interrupt(proxy: &Proxy, how: Cut) {
    proxy.set(Weather::Closed);
    proxy.cut(how);
    sleep(SPELL).await;
    proxy.set(Weather::Fair);
}

async fn spell(proxy: &Proxy, weather: Weather, length: Duration) {
    proxy.set(weather);
    sleep(length).await;
    proxy.set(Weather::Fair);
}
