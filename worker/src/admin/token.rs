//! The admin API's token, and what it costs to guess it.
//!
//! A wrong token is answered after a second, and so many of them at a time are the most that are looked at: while they
//! wait, no other one is compared, the right one neither. So nobody tries more than [`GUESSES`] a second, however many
//! connections he has and whether he waits for the answers or not.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::{StatusCode, header::AUTHORIZATION},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{sync::Semaphore, time::sleep};
use wxpay_shared::http::Peer;

use super::{Answer, Failure};

/// Wrong tokens within [`PAUSE`].
const GUESSES: usize = 16;
/// Until a wrong token is answered.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Token {
    token: SecretString,
    guesses: Arc<Semaphore>,
}

impl Token {
    pub(super) fn new(token: SecretString) -> Self {
        Self { token, guesses: Arc::new(Semaphore::new(GUESSES)) }
    }

    async fn admit(&self, sent: Option<&str>) -> Answer<()> {
        let wrong = || Failure::new(StatusCode::UNAUTHORIZED, "the admin token is missing or wrong");
        let sent = sent.ok_or_else(wrong)?;
        let Ok(guess) = Arc::clone(&self.guesses).try_acquire_owned() else {
            let problem = "too many wrong admin tokens at the moment; try again in a second";
            return Err(Failure::new(StatusCode::TOO_MANY_REQUESTS, problem));
        };
        if wxpay_shared::secret_eq(sent.as_bytes(), self.token.expose_secret().as_bytes()) {
            return Ok(());
        }
        // In a task of its own: whoever hangs up has had his guess all the same.
        let paused = tokio::spawn(async move {
            sleep(PAUSE).await;
            drop(guess);
        });
        paused.await.map_or_else(|_| Err(wrong()), |()| Err(wrong()))
    }
}

/// Lets a request pass that brings the token, or each one where there is none.
pub(super) async fn authorize(State(token): State<Option<Arc<Token>>>, request: Request, next: Next) -> Response {
    let Some(token) = token else { return next.run(request).await };
    let sent = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let sent = sent.and_then(|value| value.strip_prefix("Bearer "));
    match token.admit(sent).await {
        Ok(()) => next.run(request).await,
        Err(failure) => {
            // Only what was compared: of those there are at most so many a second, and of the others any number.
            if sent.is_some() && failure.0 == StatusCode::UNAUTHORIZED {
                let peer = request.extensions().get::<Peer>().map(|Peer(address)| address.to_string());
                tracing::warn!(peer, "a wrong admin token");
            }
            failure.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn guessing_the_admin_token_is_slow_however_many_try() {
        let token = Arc::new(Token::new("the right token".into()));
        let status = async |sent: Option<&str>| token.admit(sent).await.err().map(|failure| failure.0);
        let began = Instant::now();
        assert_eq!(status(Some("the right token")).await, None);
        assert_eq!(status(None).await, Some(StatusCode::UNAUTHORIZED));
        assert_eq!(began.elapsed(), Duration::ZERO, "whoever does not guess does not wait");
        assert_eq!(status(Some("the wrong token")).await, Some(StatusCode::UNAUTHORIZED));
        assert_eq!(began.elapsed(), PAUSE);

        for _ in 0..GUESSES {
            // Nobody waits for the answer.
            let guess = token.admit(Some("another"));
            assert!(tokio::time::timeout(Duration::from_millis(1), guess).await.is_err());
        }
        assert_eq!(status(Some("another")).await, Some(StatusCode::TOO_MANY_REQUESTS));
        assert_eq!(status(Some("the right token")).await, Some(StatusCode::TOO_MANY_REQUESTS));
        sleep(PAUSE).await;
        assert_eq!(status(Some("the right token")).await, None);
    }
}
