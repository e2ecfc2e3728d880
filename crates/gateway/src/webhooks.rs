//! Events for programs of the operator: a JSON body to configured URLs, signed as Standard Webhooks does it, tried again
//! with growing pauses, and dropped rather than kept without bound.
//!
//! Only URLs of the configuration are called, and redirects are not followed, so that nobody outside can make the server
//! call anything.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use rand::RngExt;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::sync::mpsc;

use crate::keys::Secret;

/// Events that wait for one receiver.
const QUEUE_MAX: usize = 256;

/// Attempts for one event.
const ATTEMPTS_MAX: u32 = 8;

/// Before the second attempt; doubled for each further one, half of it random.
const BACKOFF: Duration = Duration::from_millis(500);

/// How long one attempt may take.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(10);

/// What begins a secret that is written in base64.
const SECRET_PREFIX: &str = "whsec_";

/// One of `[[webhooks]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookOptions {
    /// Where events are sent.
    pub url: String,
    /// What they are signed with.
    pub secret: Secret,
    /// Which ones.
    pub events: Vec<EventKind>,
}

/// What can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// An upstream keeps failing and is left alone.
    UpstreamDown,
    /// It answers again.
    UpstreamUp,
    /// A context's computed state or copy was lost and has been made again.
    ContextLost,
    /// A changed configuration can't be applied.
    ReloadFailed,
    /// A budget has passed its soft limit.
    BudgetWarning,
    /// A request was refused because it could have cost more than a budget has left.
    BudgetExceeded,
}

impl EventKind {
    /// All of them.
    pub const ALL: [EventKind; 6] = [
        EventKind::UpstreamDown,
        EventKind::UpstreamUp,
        EventKind::ContextLost,
        EventKind::ReloadFailed,
        EventKind::BudgetWarning,
        EventKind::BudgetExceeded,
    ];

    /// The word in the configuration and in the body.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::UpstreamDown => "upstream_down",
            EventKind::UpstreamUp => "upstream_up",
            EventKind::ContextLost => "context_lost",
            EventKind::ReloadFailed => "reload_failed",
            EventKind::BudgetWarning => "budget_warning",
            EventKind::BudgetExceeded => "budget_exceeded",
        }
    }
}

/// The receivers.
pub struct Webhooks {
    receivers: Vec<(Vec<EventKind>, mpsc::Sender<Message>)>,
}

#[derive(Clone)]
struct Message {
    /// The same for every attempt, so that a receiver can tell repetitions.
    id: String,
    kind: EventKind,
    body: Bytes,
}

struct Receiver {
    http: reqwest::Client,
    url: String,
    key: Vec<u8>,
}

impl Webhooks {
    /// Begins to send, each receiver on a task of its own, so that one that hangs holds up nobody else.
    ///
    /// # Errors
    /// There is no HTTP client.
    pub fn start(options: &[WebhookOptions]) -> Result<Arc<Self>, String> {
        let http = reqwest::Client::builder()
            .timeout(ATTEMPT_TIME_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("no HTTP client: {error}"))?;
        let receivers = options
            .iter()
            .map(|options| {
                let (sender, queue) = mpsc::channel(QUEUE_MAX);
                let receiver = Receiver {
                    http: http.clone(),
                    url: options.url.clone(),
                    key: key_of(&options.secret),
                };
                tokio::spawn(receiver.run(queue));
                (options.events.clone(), sender)
            })
            .collect();
        Ok(Arc::new(Webhooks { receivers }))
    }

    /// Tells those who want to know.
    pub(crate) fn tell(&self, kind: EventKind, data: Value) {
        let body = json!({
            "type": kind.as_str(),
            "timestamp": jiff::Timestamp::now().to_string(),
            "data": data,
        });
        let random: u128 = rand::rng().random();
        let message = Message {
            id: format!("msg_{random:032x}"),
            kind,
            body: body.to_string().into(),
        };
        for (wanted, sender) in &self.receivers {
            if wanted.contains(&kind) && sender.try_send(message.clone()).is_err() {
                tracing::warn!(
                    event = kind.as_str(),
                    "an event is dropped: its receiver has too many waiting"
                );
            }
        }
    }
}

impl Receiver {
    async fn run(self, mut queue: mpsc::Receiver<Message>) {
        while let Some(message) = queue.recv().await {
            self.deliver(&message).await;
        }
    }

    async fn deliver(&self, message: &Message) {
        for attempt in 0..ATTEMPTS_MAX {
            if attempt > 0 {
                tokio::time::sleep(pause(attempt)).await;
            }
            let timestamp = jiff::Timestamp::now().as_second();
            let sent = self
                .http
                .post(&self.url)
                .header("content-type", "application/json")
                .header("webhook-id", &message.id)
                .header("webhook-timestamp", timestamp)
                .header(
                    "webhook-signature",
                    signature(&self.key, &message.id, timestamp, &message.body),
                )
                .body(message.body.clone())
                .send()
                .await;
            match sent {
                Ok(answer) if answer.status().is_success() => return,
                // The receiver does not want this one, and would not want it in a moment either.
                Ok(answer) if answer.status() == 410 => break,
                Ok(answer) => tracing::debug!(
                    event = message.kind.as_str(),
                    status = answer.status().as_u16(),
                    "a receiver of events refuses one"
                ),
                Err(error) => tracing::debug!(
                    event = message.kind.as_str(),
                    error = %error.without_url(),
                    "a receiver of events can't be reached"
                ),
            }
        }
        tracing::warn!(
            event = message.kind.as_str(),
            "an event is dropped: its receiver does not take it"
        );
    }
}

/// Half of it certain, half of it random, so that receivers that were away are not met by everybody at once.
fn pause(attempt: u32) -> Duration {
    let pause = BACKOFF.saturating_mul(2_u32.saturating_pow(attempt - 1));
    pause.mul_f64(rand::rng().random_range(0.5..=1.0))
}

/// `whsec_` and base64, as Standard Webhooks writes secrets; any other text is the key as it is.
fn key_of(secret: &Secret) -> Vec<u8> {
    let text = secret.expose();
    text.strip_prefix(SECRET_PREFIX)
        .and_then(|encoded| BASE64.decode(encoded.as_bytes()).ok())
        .unwrap_or_else(|| text.as_bytes().to_vec())
}

/// Over id, time and body, so that none of them can be exchanged and an old message can be told by its time.
fn signature(key: &[u8], id: &str, timestamp: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1,{}", BASE64.encode(&mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    #[test]
    fn the_signature_is_that_of_standard_webhooks() {
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let body = br#"{"test": 2432232314}"#;
        assert_eq!(
            signature(
                &key_of(&secret),
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                body
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
        assert_eq!(key_of(&Secret::new("plain text")), b"plain text");
    }
}
