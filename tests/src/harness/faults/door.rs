//! What strangers do to ingress from outside. Honest notifications must get their reply within WeChat's limit meanwhile.

use std::time::Duration;

use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::harness::rig::Rig;

/// How long they do it.
const SPELL: Duration = Duration::from_secs(4);
const GARBAGE_LANES: u64 = 8;
const SLOW: usize = 500;
const IDLE: usize = 4_000;
const DEAF: usize = 200;
/// What a deaf client asks for, again and again without reading what it gets.
const QUESTION: &[u8] = b"POST /v2/shop HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\n<xml>";

impl Rig {
    /// Bytes that are no HTTP, and requests that are no notifications, as fast as they are taken.
    pub(super) async fn garbage(&mut self) -> Result<(), String> {
        let url = self.pair.notify_url("shop");
        let client = self.pair.client.clone();
        self.besieged(GARBAGE_LANES, move |port, lane| {
            let (client, url) = (client.clone(), url.clone());
            async move {
                let mut random = fastrand::Rng::with_seed(lane);
                let until = Instant::now() + SPELL;
                while Instant::now() < until {
                    let length = random.usize(1..4_000);
                    let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
                    if lane.is_multiple_of(2) {
                        // Whatever becomes of it.
                        drop(client.post(&url).body(bytes).send().await);
                    } else if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await {
                        stream.write_all(&bytes).await.unwrap_or_default();
                    }
                }
            }
        })
        .await
    }

    /// Headers and bodies that come a byte at a time.
    pub(super) async fn slow_loris(&mut self) -> Result<(), String> {
        self.besieged(u64::try_from(SLOW).unwrap_or(0), |port, lane| async move {
            let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { return };
            let text: &[u8] = if lane.is_multiple_of(2) { b"POST /v2/shop HT" } else { QUESTION };
            let until = Instant::now() + SPELL;
            let cut = text.len().saturating_sub(5);
            stream.write_all(&text[..cut]).await.unwrap_or_default();
            for byte in text[cut..].iter().cycle() {
                if Instant::now() > until || stream.write_all(&[*byte]).await.is_err() {
                    return;
                }
                sleep(Duration::from_millis(400)).await;
            }
        })
        .await
    }

    /// Thousands who connect and say nothing.
    pub(super) async fn idle_connections(&mut self) -> Result<(), String> {
        self.besieged(u64::try_from(IDLE).unwrap_or(0), |port, _| async move {
            let stream = TcpStream::connect(("127.0.0.1", port)).await;
            sleep(SPELL).await;
            drop(stream);
        })
        .await
    }

    /// Clients who ask on and on and read nothing, until the system takes no more of their questions.
    pub(super) async fn replies_unread(&mut self) -> Result<(), String> {
        self.besieged(u64::try_from(DEAF).unwrap_or(0), |port, _| async move {
            let questions = QUESTION.repeat(100);
            let until = Instant::now() + SPELL;
            let asking = async {
                // Each time they are cut off they come again.
                while let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await {
                    while stream.write_all(&questions).await.is_ok() {}
                }
            };
            drop(tokio::time::timeout_at(until, asking).await);
        })
        .await
    }

    /// Lets so many strangers do something to ingress at the same time, and looks what WeChat's notifications get.
    async fn besieged<F>(&self, strangers: u64, act: impl Fn(u16, u64) -> F) -> Result<(), String>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let before = self.sender.told();
        let mut acts: JoinSet<()> = (0..strangers).map(|lane| act(self.pair.ingress_port, lane)).collect();
        while acts.join_next().await.is_some() {}
        let after = self.sender.told();
        let (late, taken) = (after.late - before.late, after.successes() - before.successes());
        if late == 0 && taken > 20 {
            Ok(())
        } else {
            Err(format!(
                "beside {strangers} strangers {taken} notifications were taken and {late} got no reply in time"
            ))
        }
    }
}
