//! What only the servers can say: whether the broker's queues and the database's schema are those that the programs need.

use std::{pin::pin, time::Duration};

use anyhow::{Result, bail};
use secrecy::ExposeSecret as _;
use tokio::time::{interval, timeout};
use wxpay_shared::{
    config::{Config, ConfigError, EMBEDDED},
    queue::{Publisher as _, rabbit::RabbitPublisher},
    store::open,
};

/// How long a broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether it did.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What they said, a line each. Queues that are missing are made, as the programs would; tables are not.
///
/// # Errors
/// [`ConfigError`] where something is there that does not fit; another error where nobody answers.
pub(super) async fn ask(config: &Config) -> Result<Vec<String>> {
    let mut said = Vec::new();
    let broker = config.queue_url()?;
    if broker.expose_secret() != EMBEDDED {
        let publisher = RabbitPublisher::start(broker, config.queue_settings());
        let verdict = declared(&publisher).await;
        publisher.close().await;
        verdict?;
        said.push("broker: its exchange and queues are as they must be".to_owned());
    }
    let store = config.store_url()?;
    if store.expose_secret() != EMBEDDED {
        let steps = open::migrate(&store, false).await?;
        let missing = steps.iter().filter(|step| !step.applied).count();
        if missing > 0 {
            let problem =
                format!("the database lacks {missing} of {} migrations: `wxpayctl migrate --apply`", steps.len());
            return Err(ConfigError::new("store.url", problem).into());
        }
        said.push("database: its schema is this program's".to_owned());
    }
    Ok(said)
}

/// A publisher is ready as soon as it has declared everything.
async fn declared(publisher: &RabbitPublisher) -> Result<()> {
    let ready = async {
        let mut tick = interval(LOOK_EVERY);
        while publisher.ready().is_err() {
            tick.tick().await;
        }
    };
    let mut fatal = pin!(publisher.fatal());
    let verdict = timeout(PATIENCE, async {
        tokio::select! {
            () = ready => Ok(()),
            error = &mut fatal => Err(ConfigError::new("queue.url", error)),
        }
    });
    match verdict.await {
        Ok(verdict) => Ok(verdict?),
        Err(_) => bail!("queue.url: the broker does not let anybody publish; waited {} s", PATIENCE.as_secs()),
    }
}
