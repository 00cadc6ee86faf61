//! Keys that change without a restart.
//!
//! At SIGHUP, and when the configuration file or a key file has changed, the configuration is read again and all keys are
//! opened anew, the certificate of TLS with them. Only if every one of them can be used do they replace the old ones, all
//! at once; otherwise the old ones stay and one line says why. Ports, queue and store stay as they were at the start.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{self, Config, ConfigError},
    merchant::{LiveMerchants, Merchants},
    metric,
    tls::{LiveTls, Tls},
};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Keeps `merchants`, and `tls` where there is one, as the files say until the token fires. `file` is the configuration
/// file as it was named at the start.
///
/// # Errors
/// Where the process may not listen for signals.
pub fn watch(
    file: Option<PathBuf>,
    merchants: Arc<LiveMerchants>,
    tls: Option<Arc<LiveTls>>,
    shutdown: CancellationToken,
) -> std::io::Result<tokio::task::JoinHandle<()>> {
    let mut hangup = signal(SignalKind::hangup())?;
    let seen = footprints(file.as_deref());
    Ok(tokio::spawn(async move {
        let (mut seen, mut before) = (seen.clone(), seen);
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            let asked = tokio::select! {
                _ = hangup.recv() => true,
                _ = look.tick() => false,
                () = shutdown.cancelled() => return,
            };
            // Taken before the files are read: one that changes meanwhile is found changed the next time.
            let current = footprints(file.as_deref());
            // A file that somebody is writing may be read as another one that is whole. So it must have stayed as it is.
            let at_rest = current == before;
            before.clone_from(&current);
            if asked || (at_rest && current != seen) {
                seen = current;
                reload(file.as_deref(), &merchants, tls.as_deref());
            }
        }
    }))
}

fn reload(file: Option<&Path>, merchants: &LiveMerchants, tls: Option<&LiveTls>) {
    let opened = config::environment().and_then(|environment| Config::load(file, environment)).and_then(|config| {
        // A listener goes on as it began: with TLS or without.
        let certificate = if tls.is_some() { Tls::open(&config)? } else { None };
        Ok((Merchants::open(&config)?, certificate))
    });
    match opened {
        Ok((opened, certificate)) => {
            merchants.replace(opened);
            if let (Some(tls), Some(certificate)) = (tls, certificate) {
                tls.replace(certificate);
            }
            metric::keys_reloaded(true);
            tracing::info!("read the keys again");
        }
        Err(error) => {
            metric::keys_reloaded(false);
            tracing::error!(%error, "kept the old keys: the new ones cannot be used");
        }
    }
}

/// What tells one content of a file from another without reading it; `None` for a file that is not there.
type Footprint = Option<(SystemTime, u64)>;

fn footprints(file: Option<&Path>) -> Result<Vec<(PathBuf, Footprint)>, ConfigError> {
    let config = Config::load(file, config::environment()?)?;
    let own = file.unwrap_or(Path::new(crate::config::DEFAULT_FILE)).to_path_buf();
    let footprint = |path: PathBuf| {
        let metadata = std::fs::metadata(&path).ok();
        let footprint = metadata.and_then(|metadata| Some((metadata.modified().ok()?, metadata.len())));
        (path, footprint)
    };
    Ok(std::iter::once(own).chain(config.key_files()).map(footprint).collect())
}
