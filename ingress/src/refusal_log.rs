//! The log lines of refusals, bounded: a scanner that sends thousands of requests gets ten lines a second, and a count.

use std::sync::Mutex;

use tokio::time::{Duration, Instant};

use wxpay_shared::wechat::v3_sign::V3Refusal;

use crate::reply::Refusal;

const LINES_PER_SECOND: u32 = 10;
/// More of a path is not shown: it is the caller's to choose.
const PATH_MAX: usize = 80;

#[derive(Default)]
pub(crate) struct RefusalLog(Mutex<Option<Second>>);

struct Second {
    began: Instant,
    lines: u32,
    suppressed: u64,
}

impl RefusalLog {
    pub(crate) fn log(&self, path: &str, refusal: Refusal) {
        let Some(suppressed) = self.permit() else { return };
        let path: String = path.chars().take(PATH_MAX).collect();
        match refusal {
            // WeChat tests in this way that signatures are checked. The right notification follows.
            Refusal::V3(V3Refusal::Probe) => tracing::debug!(path, "refused a signature probe"),
            Refusal::Publish(_) | Refusal::Overloaded | Refusal::Internal => {
                tracing::error!(path, reason = refusal.code(), suppressed, "could not accept a notification");
            }
            Refusal::ForeignSource
            | Refusal::UnknownMerchant
            | Refusal::MethodNotAllowed
            | Refusal::BodyTooLarge
            | Refusal::BodyTimeout
            | Refusal::BodyUnreadable
            | Refusal::Xml(_)
            | Refusal::Sign(_)
            | Refusal::NotANotice
            | Refusal::MerchantMismatch
            | Refusal::Undecryptable
            | Refusal::V3(_) => {
                tracing::warn!(path, reason = refusal.code(), suppressed, "refused a request");
            }
        }
    }

    /// How many lines were left out since the last one, if another may be written now.
    fn permit(&self) -> Option<u64> {
        let mut second = self.0.lock().expect("nothing panics while it holds this lock");
        let now = Instant::now();
        match second.as_mut() {
            Some(second) if now - second.began < Duration::from_secs(1) => {
                if second.lines == LINES_PER_SECOND {
                    second.suppressed += 1;
                    return None;
                }
                second.lines += 1;
                Some(0)
            }
            _ => {
                let suppressed = second.as_ref().map_or(0, |second| second.suppressed);
                *second = Some(Second { began: now, lines: 1, suppressed: 0 });
                Some(suppressed)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_gets_ten_lines_a_second_and_a_count() {
        let log = RefusalLog::default();
        let written = (0..1000).filter(|_| log.permit().is_some()).count();
        assert_eq!(written, 10);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(log.permit(), Some(990));
    }
}
