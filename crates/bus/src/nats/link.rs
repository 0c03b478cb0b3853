//! One connection to a NATS server.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::connection::State;
use async_nats::{
    Client, ConnectOptions, Event, HeaderMap, RequestErrorKind, StatusCode, Subject, Subscriber,
};
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::NatsConfig;
use super::outbox::{Outbox, Outgoing};
use crate::subscription::{Delivery, Message, Sink, Subscription};
use crate::{BusError, BusStats};

/// The time for which a new subscription waits until the server has seen it, and a command waits for room in
/// the buffer.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);
/// The reconnect delay's jitter: a cluster's clients should not come back in the same millisecond.
const RECONNECT_JITTER_MS: u64 = 15;
/// The longest pause between attempts while every server is away.
const RECONNECT_MAX_MS: u64 = 100;
/// The interval at which a waiting request checks whether the connection is back.
const RECONNECT_POLL: Duration = Duration::from_millis(10);

/// The server at the other end.
pub(super) struct Server {
    pub(super) version: String,
    pub(super) name: String,
    pub(super) jetstream: bool,
}

#[derive(Default)]
struct Shared {
    published: AtomicU64,
    dropped_disconnected: AtomicU64,
    dropped_overflow: AtomicU64,
    slow_consumer: AtomicU64,
    connects: AtomicU64,
    next_echo: AtomicU64,
    echoes: Mutex<HashMap<u64, oneshot::Sender<()>>>,
}

impl Shared {
    fn echoes(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<()>>> {
        self.echoes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on_event(&self, lane: &str, event: &Event) {
        match event {
            Event::Connected => {
                self.connects.fetch_add(1, Ordering::Relaxed);
                tracing::info!(lane, "NATS connected");
            }
            Event::Disconnected => tracing::warn!(lane, "NATS disconnected"),
            Event::SlowConsumer(_) => {
                self.slow_consumer.fetch_add(1, Ordering::Relaxed);
            }
            Event::ServerError(error) => tracing::warn!(lane, %error, "NATS server error"),
            // One a failed attempt: too many to show while a server is away.
            Event::ClientError(error) => tracing::debug!(lane, %error, "NATS client error"),
            other => tracing::info!(lane, event = %other, "NATS event"),
        }
    }
}

fn reconnect_delay(attempt: usize) -> Duration {
    let growth = (attempt as u64).saturating_sub(1).saturating_mul(10).min(RECONNECT_MAX_MS);
    Duration::from_millis(growth + rand::random_range(0..RECONNECT_JITTER_MS))
}

fn other(error: impl std::fmt::Display) -> BusError {
    BusError::Other(error.to_string())
}

fn options(config: &NatsConfig, lane: &str, capacity: usize) -> ConnectOptions {
    let mut options = ConnectOptions::new()
        .name(format!("{}-{lane}", config.name))
        .ping_interval(config.ping_interval)
        .connection_timeout(config.connect_timeout)
        .subscription_capacity(capacity)
        .client_capacity(capacity)
        .request_timeout(None)
        .retry_on_initial_connect()
        .skip_subject_validation(true)
        .reconnect_delay_callback(reconnect_delay)
        .require_tls(config.require_tls);
    if let Some((user, password)) = &config.user {
        options = options.user_and_password(user.clone(), password.clone());
    }
    if let Some(token) = &config.token {
        options = options.token(token.clone());
    }
    if let Some(path) = &config.root_ca {
        options = options.add_root_certificates(path.clone());
    }
    options
}

/// One connection, publishing without ever waiting.
pub(super) struct Link {
    client: Client,
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
    echo_subject: String,
    echo_task: AbortHandle,
    outbox_task: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.echo_task.abort();
        self.outbox_task.abort();
        self.outbox.hand_over_now(&self.client);
    }
}

impl Link {
    pub(super) async fn connect(
        config: &NatsConfig,
        lane: &'static str,
        capacity: usize,
        changed: Arc<Notify>,
    ) -> Result<Self, BusError> {
        let shared = Arc::new(Shared::default());
        let seen = shared.clone();
        let options = options(config, lane, capacity).event_callback(move |event| {
            seen.on_event(lane, &event);
            changed.notify_one();
            std::future::ready(())
        });
        let client = options.connect(&config.urls[..]).await.map_err(other)?;
        let echo_subject = client.new_inbox();
        let mut echoes = client.subscribe(echo_subject.clone()).await.map_err(other)?;
        let answers = shared.clone();
        let task = tokio::spawn(async move {
            while let Some(message) = echoes.next().await {
                let number = message.payload.as_ref().try_into().map(u64::from_be_bytes);
                let waiting = number.ok().and_then(|number| answers.echoes().remove(&number));
                // Who gave up waiting does not want to know.
                let _ = waiting.map(|waiting| waiting.send(()));
            }
        });
        let outbox = Arc::new(Outbox::new(capacity));
        let (box_of_task, sender) = (outbox.clone(), client.clone());
        let outbox_task = tokio::spawn(async move { box_of_task.run(&sender).await }).abort_handle();
        let echo_task = task.abort_handle();
        let link = Self { client, shared, outbox, echo_subject, echo_task, outbox_task };
        link.wait_connected(config.start_timeout).await?;
        link.echo(config.start_timeout).await?;
        Ok(link)
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    async fn wait_connected(&self, limit: Duration) -> Result<(), BusError> {
        let wait = async {
            while !self.is_connected() {
                tokio::time::sleep(RECONNECT_POLL).await;
            }
        };
        timeout(limit, wait).await.map_err(|_| BusError::Disconnected)
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn new_inbox(&self) -> String {
        self.client.new_inbox()
    }

    pub(super) fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    pub(super) fn server(&self) -> Server {
        let info = self.client.server_info();
        Server { version: info.version, name: info.server_name, jetstream: info.jetstream }
    }

    pub(super) fn publish(&self, subject: &str, reply: Option<&str>, payload: Bytes) -> Result<(), BusError> {
        let (size, limit) = (payload.len(), self.max_payload());
        if size > limit {
            return Err(BusError::TooLarge { size, limit });
        }
        if !self.is_connected() {
            self.shared.dropped_disconnected.fetch_add(1, Ordering::Relaxed);
            return Err(BusError::Disconnected);
        }
        let message = Outgoing { subject: subject.into(), reply: reply.map(Subject::from), payload };
        let pushed = self.outbox.push(message);
        let counter = if pushed.is_ok() { &self.shared.published } else { &self.shared.dropped_overflow };
        counter.fetch_add(1, Ordering::Relaxed);
        pushed
    }

    /// A subscription that the server is known to have seen, unless it is away.
    pub(super) async fn listen(&self, pattern: &str, group: Option<&str>) -> Result<Subscriber, BusError> {
        let pattern = pattern.to_owned();
        let subscribing = async {
            match group {
                None => self.client.subscribe(pattern).await,
                Some(group) => self.client.queue_subscribe(pattern, group.to_owned()).await,
            }
        };
        timeout(CONFIRM_TIMEOUT, subscribing).await.map_err(|_| BusError::Disconnected)?.map_err(other)
    }

    pub(super) async fn subscribe(
        &self,
        pattern: &str,
        group: Option<&str>,
        capacity: usize,
    ) -> Result<Subscription, BusError> {
        let mut source = self.listen(pattern, group).await?;
        let (sink, receiver, dropped) = Sink::channel(capacity);
        let shared = self.shared.clone();
        // The client library bounds all subscriptions alike; this hop gives each its own bound and count.
        let pump = tokio::spawn(async move {
            while let Some(message) = source.next().await {
                match sink.deliver(convert(message)) {
                    Delivery::Taken => {}
                    Delivery::Full => drop(shared.slow_consumer.fetch_add(1, Ordering::Relaxed)),
                    Delivery::Gone => break,
                }
            }
        });
        let pump = pump.abort_handle();
        let subscription = Subscription::new(receiver, dropped, Box::new(move || pump.abort()));
        // The server handles a connection's commands in order, so the echo proves that it has seen the
        // subscription. While the connection is down, the server sees the subscription when it is back.
        if self.is_connected() {
            let _ = self.echo(CONFIRM_TIMEOUT).await;
        }
        Ok(subscription)
    }

    /// A message to this connection and back through the server.
    pub(super) async fn echo(&self, limit: Duration) -> Result<Duration, BusError> {
        let number = self.shared.next_echo.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.shared.echoes().insert(number, answer);
        let start = Instant::now();
        let sent = self.publish(&self.echo_subject, None, Bytes::copy_from_slice(&number.to_be_bytes()));
        let result = match sent {
            Err(error) => Err(error),
            Ok(()) => match timeout(limit, answered).await {
                Ok(Ok(())) => Ok(start.elapsed()),
                _ => Err(BusError::Timeout { what: "loopback".into() }),
            },
        };
        self.shared.echoes().remove(&number);
        result
    }

    /// Sends a request as soon as a server is there, and waits for its answer.
    pub(super) async fn request(
        &self,
        subject: &str,
        headers: Option<HeaderMap>,
        payload: Bytes,
        limit: Duration,
    ) -> Result<Bytes, BusError> {
        let (size, max) = (payload.len(), self.max_payload());
        if size > max {
            return Err(BusError::TooLarge { size, limit: max });
        }
        let deadline = tokio::time::Instant::now() + limit;
        self.wait_connected(limit).await?;
        // An inbox of its own: the shared one keeps an entry for every request that was given up.
        let mut request = async_nats::Request::new().payload(payload).inbox(self.new_inbox()).timeout(None);
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        let asked = self.client.send_request(subject.to_owned(), request);
        match tokio::time::timeout_at(deadline, asked).await {
            Ok(Ok(message)) => Ok(message.payload),
            Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => {
                Err(BusError::NoResponders { subject: subject.to_owned() })
            }
            Ok(Err(error)) => Err(other(error)),
            Err(_) => Err(BusError::Timeout { what: subject.to_owned() }),
        }
    }

    pub(super) async fn flush(&self, limit: Duration) -> Result<(), BusError> {
        let flushed = async {
            self.outbox.hand_over(&self.client).await;
            self.client.flush().await
        };
        timeout(limit, flushed).await.map_err(|_| BusError::Timeout { what: "flush".into() })?.map_err(other)
    }

    pub(super) fn stats(&self) -> BusStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BusStats {
            published: read(&self.shared.published),
            dropped_disconnected: read(&self.shared.dropped_disconnected),
            dropped_overflow: read(&self.shared.dropped_overflow),
            slow_consumer: read(&self.shared.slow_consumer),
            reconnects: read(&self.shared.connects).saturating_sub(1),
        }
    }
}

fn convert(message: async_nats::Message) -> Message {
    let no_responders = message.status == Some(StatusCode::NO_RESPONDERS);
    let reply = message.reply.as_ref().map(|reply| reply.as_str().into());
    let mut out = Message::new(message.subject.as_str().into(), message.payload, reply);
    out.no_responders = no_responders;
    out
}
