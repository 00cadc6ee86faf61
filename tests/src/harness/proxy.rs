//! A TCP proxy between two programs, whose network can turn bad: cut, slow, narrow, silent, answers swallowed.
//!
//! A program can also be stopped exactly at a step of its flow without a line of test code in it: the proxy holds the
//! bytes that the step sends or waits for, says when it holds them, and the test kills the program at that moment.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

use super::{pair::DEADLINE, wait_until};

/// AMQP: the class and method of basic.publish.
pub(crate) const PUBLISH: &[u8] = &[0, 60, 0, 40];
/// AMQP: the class and method of basic.ack. From the broker it is a publisher's confirm.
pub(crate) const ACK: &[u8] = &[0, 60, 0, 80];
/// Both SQL drivers end a transaction with this text.
pub(crate) const COMMIT: &[u8] = b"COMMIT";
/// How the reply to a notification that was taken begins, on both protocols.
pub(crate) const REPLY: &[u8] = b"HTTP/1.1 20";

const PATTERN_MAX: usize = 16;

/// What the network does. A pattern counts for each connection on its own, from the moment the weather is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Bytes pass as they come.
    Fair,
    /// Each piece comes this much later, both ways.
    Slow(Duration),
    /// So many bytes a second, each way.
    Narrow(usize),
    /// A black hole: nothing moves, no end is told. What was held goes on afterwards.
    Silent,
    /// A black hole for the connections that there are; new ones work.
    SilentForOld,
    /// What the server says is thrown away. The connection is of no use afterwards: cut it.
    AnswersSwallowed,
    /// What the client says is held from the piece with this pattern on.
    HoldRequest(&'static [u8]),
    /// What the server says is held from the piece with this pattern on.
    HoldAnswer(&'static [u8]),
    /// What the server says is held from the moment on at which the client has said this.
    HoldAnswerTo(&'static [u8]),
    /// Whoever connects is cut off at once.
    Closed,
}

/// How connections end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Both ends are told that nothing more comes.
    Fin,
    /// Both ends are told that the connection never was.
    Reset,
}

/// The way of a piece.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    ToServer,
    ToClient,
}

/// A proxy in front of one port of the loopback. It ends with this value, and its connections with it.
pub(crate) struct Proxy {
    port: u16,
    network: Arc<Network>,
    accepting: JoinHandle<()>,
}

struct Network {
    weather: watch::Sender<(u64, Weather)>,
    cut: watch::Sender<(u64, Cut)>,
    held: AtomicUsize,
    /// How many connections there are, by the weather at their beginning.
    connections: Mutex<BTreeMap<u64, usize>>,
}

impl Network {
    fn connections(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Proxy {
    /// A proxy in front of this port, in fair weather. Nobody need listen there yet.
    pub(crate) async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback has free ports");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let network = Arc::new(Network {
            weather: watch::Sender::new((0, Weather::Fair)),
            cut: watch::Sender::new((0, Cut::Fin)),
            held: AtomicUsize::new(0),
            connections: Mutex::default(),
        });
        let carried = Arc::clone(&network);
        let accepting = tokio::spawn(async move {
            loop {
                // Out of file descriptors, say: whoever connected is cut off, as by any bad network.
                if let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(carry(client, server, Arc::clone(&carried)));
                }
            }
        });
        Self { port, network, accepting }
    }

    /// Where clients connect.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Changes the weather for present and future connections.
    pub(crate) fn set(&self, weather: Weather) {
        self.network.held.store(0, Ordering::SeqCst);
        self.network.weather.send_modify(|present| *present = (present.0 + 1, weather));
    }

    /// Ends the present connections.
    pub(crate) fn cut(&self, how: Cut) {
        self.network.cut.send_modify(|present| *present = (present.0 + 1, how));
    }

    /// Connections from before the present weather.
    pub(crate) fn old_connections(&self) -> usize {
        let number = self.network.weather.borrow().0;
        self.network.connections().range(..number).map(|(_, count)| count).sum()
    }

    /// Whether this weather holds a piece of somebody's.
    pub(crate) fn is_holding(&self) -> bool {
        self.network.held.load(Ordering::SeqCst) > 0
    }

    /// Waits until it does.
    pub(crate) async fn holds(&self, what: &str) {
        wait_until(what, DEADLINE, async || self.is_holding()).await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut(Cut::Reset);
    }
}

/// One connection, from its beginning to its end.
async fn carry(mut client: TcpStream, server: u16, network: Arc<Network>) {
    let mut cuts = network.cut.subscribe();
    cuts.mark_unchanged();
    if network.weather.borrow().1 == Weather::Closed {
        // A socket that cannot be reset is closed, which serves as well.
        client.set_zero_linger().unwrap_or_default();
        return;
    }
    let Ok(mut target) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    for stream in [&client, &target] {
        stream.set_nodelay(true).unwrap_or_default();
    }
    let born = network.weather.borrow().0;
    *network.connections().entry(born).or_default() += 1;
    let how = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = target.split();
        let link = Link { network: &network, born, triggered: AtomicU64::new(0) };
        let both = async {
            tokio::try_join!(
                link.pump(from_client, to_server, Way::ToServer),
                link.pump(from_server, to_client, Way::ToClient),
            )
        };
        tokio::select! {
            // First: a connection that was cut must not meet the weather that came after the cut.
            biased;
            changed = cuts.changed() => changed.map_or(Cut::Reset, |()| cuts.borrow().1),
            _ = both => Cut::Fin,
        }
    };
    if how == Cut::Reset {
        for stream in [&client, &target] {
            stream.set_zero_linger().unwrap_or_default();
        }
    }
    *network.connections().entry(born).or_default() -= 1;
}

struct Link<'a> {
    network: &'a Network,
    /// The weather at its beginning.
    born: u64,
    /// The weather whose pattern this connection has met.
    triggered: AtomicU64,
}

impl Link<'_> {
    async fn pump(&self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, way: Way) -> io::Result<()> {
        let mut buffer = vec![0; 16 * 1024];
        let (mut seen, mut since) = (Vec::new(), 0);
        loop {
            let length = from.read(&mut buffer).await?;
            // A pattern may lie across two pieces, but not across a change of the weather.
            let number = self.network.weather.borrow().0;
            let keep = if std::mem::replace(&mut since, number) == number { PATTERN_MAX - 1 } else { 0 };
            seen.drain(..seen.len().saturating_sub(keep));
            seen.extend_from_slice(&buffer[..length]);
            let passes = self.may_pass(&seen, length, way).await;
            match (passes, length) {
                (true, 0) => return to.shutdown().await,
                // Whoever gave a lost connection up is rid of it.
                (false, 0) => return Err(io::ErrorKind::NotConnected.into()),
                (true, _) => to.write_all(&buffer[..length]).await?,
                (false, _) => {}
            }
        }
    }

    /// Waits until the piece may pass; `false` where it is thrown away.
    async fn may_pass(&self, piece: &[u8], length: usize, way: Way) -> bool {
        let mut weather = self.network.weather.subscribe();
        loop {
            let (number, now) = *weather.borrow_and_update();
            let has = |pattern: &[u8]| piece.windows(pattern.len()).any(|window| window == pattern);
            let meets = match (now, way) {
                (Weather::HoldRequest(pattern) | Weather::HoldAnswerTo(pattern), Way::ToServer)
                | (Weather::HoldAnswer(pattern), Way::ToClient) => has(pattern),
                _ => false,
            };
            if meets {
                self.triggered.store(number, Ordering::SeqCst);
            }
            let triggered = self.triggered.load(Ordering::SeqCst) == number;
            match (now, way) {
                (Weather::Slow(delay), _) => {
                    sleep(delay).await;
                    return true;
                }
                (Weather::Narrow(rate), _) => {
                    let micros = (length * 1_000_000).div_ceil(rate.max(1));
                    sleep(Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))).await;
                    return true;
                }
                (Weather::AnswersSwallowed, Way::ToClient) if length > 0 => {
                    self.network.held.fetch_add(1, Ordering::SeqCst);
                    return false;
                }
                (Weather::HoldRequest(_), Way::ToServer)
                | (Weather::HoldAnswer(_) | Weather::HoldAnswerTo(_), Way::ToClient)
                    if triggered => {}
                (Weather::Silent, _) => {}
                (Weather::SilentForOld, _) if self.born < number => return false,
                _ => return true,
            }
            self.network.held.fetch_add(1, Ordering::SeqCst);
            if weather.changed().await.is_err() {
                return true;
            }
        }
    }
}
