//! How a rig ends: the load stops, what is on its way arrives, and the audit looks.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use wxpay_shared::queue::topology;

use super::{Home, RECOVERY, Rig};
use crate::harness::{
    audit::{self, Evidence},
    pair::{DEADLINE, terminate},
    sender::Told,
};

/// So long must nothing have moved before the audit, for the queues are asked one after the other.
const QUIET: Duration = Duration::from_secs(1);

/// What a rig was through.
pub(crate) struct Report {
    pub(crate) told: Told,
    pub(crate) evidence: Evidence,
    pub(crate) violations: Vec<String>,
}

impl Rig {
    /// Ends the load, waits until nothing is on its way any more, and audits.
    pub(crate) async fn finish(&mut self) -> Report {
        self.pause_load().await;
        self.settled().await;
        let told = self.sender.told();
        let mut evidence = Evidence { tellings: told.tellings.clone(), ..Evidence::default() };
        if self.home != Home::Together {
            evidence.read_broker(self.node(), &self.virtual_host).await;
        }
        if self.store_url.is_empty() {
            let directory = self.workers[0].data.clone();
            for mut program in self.ingress.take().into_iter().chain(self.workers[0].server.take()) {
                terminate(&mut program).await;
            }
            evidence.read_directory(&directory, self.home == Home::Together).await;
        } else {
            evidence.read_sql(&self.store_url).await;
        }
        let stories = self.sender.stories(0, self.sender.known());
        let violations = audit::violations(&stories, &evidence, self.strangers);
        Report { told, evidence, violations }
    }

    /// Waits until nothing is on its way, or until that took too long: the audit says where it is then.
    pub(crate) async fn settled(&self) {
        let deadline = Instant::now() + RECOVERY * 2;
        let mut quiet: Option<(u64, Instant)> = None;
        while Instant::now() < deadline {
            let (busy, dead) = self.depths().await;
            quiet = match quiet {
                Some((before, since)) if busy == 0 && dead == before => Some((before, since)),
                _ => (busy == 0).then(|| (dead, Instant::now())),
            };
            if quiet.is_some_and(|(_, since)| since.elapsed() > QUIET) {
                return;
            }
            sleep(DEADLINE / 300).await;
        }
    }

    /// Messages on their way, and dead letters.
    async fn depths(&self) -> (u64, u64) {
        if self.home == Home::Together {
            let depths: wxpay_shared::queue::Depths = self.pair.get("/queue").await;
            return (depths.notify + depths.retry, depths.dead);
        }
        let queues = self.node().queues(&self.virtual_host);
        let dead = queues.get(topology::DEAD).copied().unwrap_or_default();
        (queues.values().sum::<u64>() - dead, dead)
    }
}

impl Report {
    /// # Panics
    /// With every violation, if there is one, or if the run was too short to prove anything.
    pub(crate) fn assert_clean(&self, what: &str) {
        assert!(self.violations.is_empty(), "{what}: {:#?}", self.violations);
        let (told, applied) = (self.told.successes(), self.evidence.events.len());
        assert!(
            told > audit::LEAST_TOLD && applied > 20 && !self.evidence.dead.is_empty(),
            "{what}: {told} told, {applied} applied"
        );
    }
}
