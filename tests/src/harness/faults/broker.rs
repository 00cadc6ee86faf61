//! What happens to a broker and on it.

use std::time::Duration;

use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use wxpay_shared::queue::topology;

use crate::harness::{
    pair::DEADLINE,
    rig::{RECOVERY, Rig},
    wait_until,
};

/// Closes every channel as the broker does after an error of its client: here the ack of a delivery that never was.
const SPOIL_CHANNELS: &str =
    "lists:foreach(fun(Pid) -> rabbit_channel:do(Pid, {'basic.ack', 999999999, false}) end, rabbit_channel:list()).";

/// The second one of a pair.
const TIER: Duration = Duration::from_millis(400);

impl Rig {
    pub(super) fn broker_restarted(&mut self) {
        self.own_node().ctl(&["stop_app"]);
        self.own_node().ctl(&["start_app"]);
        self.node().elect();
    }

    /// As after some restarts of a broker: one retry tier takes nothing and gives nothing. Payments must go on.
    pub(super) async fn tier_without_leader(&mut self) {
        let tier = format!("{{list_to_atom(\"%2F_{}\"), node()}}", topology::retry(TIER));
        self.node().eval(&format!("sys:suspend({tier})."));
        self.recovered().await;
        self.node().eval(&format!("sys:resume({tier})."));
    }

    pub(super) fn connections_closed(&mut self) {
        self.own_node().ctl(&["close_all_connections", "closed on purpose"]);
    }

    pub(super) async fn channel_error(&mut self) {
        self.own_node().eval(SPOIL_CHANNELS);
    }

    pub(super) async fn memory_alarm(&mut self) -> Result<(), String> {
        self.alarm(["set_vm_memory_high_watermark", "0"], ["set_vm_memory_high_watermark", "0.6"]).await
    }

    pub(super) async fn disk_alarm(&mut self) -> Result<(), String> {
        self.alarm(["set_disk_free_limit", "100000GB"], ["set_disk_free_limit", "50MB"]).await
    }

    /// Blocked publishers must say FAIL in time, and ingress that it is not ready.
    async fn alarm(&mut self, raise: [&str; 2], lower: [&str; 2]) -> Result<(), String> {
        let late = self.sender.told().late;
        self.own_node().ctl(&raise);
        let port = self.pair.ops_port;
        wait_until("ingress says that it is blocked", DEADLINE, async || !self.pair.is_ready(port).await).await;
        self.own_node().ctl(&lower);
        wait_until("the alarm passes", RECOVERY, async || self.pair.is_ready(port).await).await;
        let late = self.sender.told().late - late;
        if late == 0 { Ok(()) } else { Err(format!("{late} notifications got no reply in time")) }
    }

    /// Deleted while it is empty, for what is in it goes with it. The broker cancels the consumers.
    pub(super) async fn queue_deleted(&mut self) {
        self.pause_load().await;
        self.settled().await;
        let channel = self.node().stranger(self.virtual_host_url()).await;
        let deleted = channel.queue_delete(topology::NOTIFY.into(), QueueDeleteOptions::default()).await;
        deleted.expect("the queue can be deleted");
        self.start_load();
    }

    pub(super) async fn exchange_deleted(&mut self) {
        let channel = self.node().stranger(self.virtual_host_url()).await;
        let deleted = channel.exchange_delete(topology::EXCHANGE.into(), ExchangeDeleteOptions::default()).await;
        deleted.expect("the exchange can be deleted");
    }
}
