//! One RTMP connection: the commands before a publish, and each publish as a source of the session.

use std::net::SocketAddr;
use std::sync::Arc;

use millrace_media::repair::RepairCounts;
use millrace_rtmp::{ConnectInfo, Event, PublishRequest, Refusal, Rejection};
use millrace_wire::close_reason::CloseReason;
use tracing::Instrument;

use super::media::{self, MediaReader};
use super::transport::{Socket, Transport};
use crate::admission::ConnectionPermit;
use crate::context::Context;
use crate::metrics::GaugeGuard;
use crate::paths::PathRule;
use crate::session::source::{Credential, Identity, MediaError, PublishEnd, Source, SourceEvent};
use crate::session::{publish, refused};

/// Returns the RTMP status that carries a reason; `None` if the connection is closed without one.
fn rejection(reason: CloseReason) -> Option<Rejection> {
    let code = reason.rtmp_status()?;
    Rejection::ALL.into_iter().find(|rejection| rejection.code() == code)
}

/// Returns the reason for which a session has refused its peer by itself.
fn refusal_reason(refusal: Refusal) -> CloseReason {
    match refusal {
        Refusal::Play => CloseReason::PlayRefused,
        Refusal::NoKey => CloseReason::UnknownKey,
    }
}

/// Serves one connection to its end.
pub(super) async fn serve<S: Socket>(
    socket: S,
    peer: SocketAddr,
    protocol: &'static str,
    permit: ConnectionPermit,
    context: Arc<Context>,
) {
    let _open = GaugeGuard::new(&context.metrics.connections);
    let transport = Transport::new(socket, context.clone());
    let mut connection = Connection { transport, peer, protocol, context };
    let end = connection.run(permit).await;
    Box::pin(connection.finish(end)).await;
}

/// A connection with its peer.
struct Connection<S> {
    transport: Transport<S>,
    peer: SocketAddr,
    protocol: &'static str,
    context: Arc<Context>,
}

impl<S: Socket> Connection<S> {
    /// Serves publishes, one after the other, until one ends otherwise than by an orderly unpublish.
    async fn run(&mut self, mut permit: ConnectionPermit) -> PublishEnd {
        loop {
            let request = match self.publish_request().await {
                Ok(request) => request,
                Err(end) => return end,
            };
            // Boxed: it is the largest part of a connection's state, and silent connections never need it.
            let end = Box::pin(self.publish(request, &mut permit)).await;
            if end.reason != CloseReason::PublisherLeft {
                return end;
            }
        }
    }

    /// Answers handshake and commands until a publish is requested.
    async fn publish_request(&mut self) -> Result<PublishRequest, PublishEnd> {
        let cutoff = self.context.cutoff.clone();
        let cutoff = cutoff.cancelled();
        tokio::pin!(cutoff);
        loop {
            while let Some(event) = self.transport.next_event()? {
                match event {
                    Event::ConnectRequested(info) => self.connect(&info)?,
                    Event::PublishRequested(request) => return Ok(request),
                    Event::Refused(refusal) => return Err(refused(&self.context, refusal_reason(refusal))),
                    _ => {}
                }
            }
            let received = tokio::select! {
                biased;
                received = self.transport.receive() => received?,
                () = &mut cutoff => return Err(CloseReason::Draining.into()),
            };
            self.context.metrics.received.add(received as u64);
        }
    }

    fn connect(&mut self, info: &ConnectInfo) -> Result<(), PublishEnd> {
        tracing::debug!(app = info.app, encoder = info.flash_ver, "connect");
        let rtmp = &mut self.transport.rtmp;
        if self.context.drain.is_draining() {
            let reason = CloseReason::Draining;
            rtmp.reject_connect(Rejection::ConnectRejected, reason.text())?;
            return Err(refused(&self.context, reason));
        }
        if self.context.config.paths.rule(&info.app).is_none() {
            let text = format!("Publish to the application {}.", self.context.config.paths.names());
            rtmp.reject_connect(Rejection::InvalidApp, &text)?;
            return Err(refused(&self.context, CloseReason::WrongApp));
        }
        Ok(rtmp.accept_connect()?)
    }

    async fn publish(&mut self, request: PublishRequest, permit: &mut ConnectionPermit) -> PublishEnd {
        let Some(rule) = self.context.config.paths.rule(&request.app) else {
            return refused(&self.context, CloseReason::WrongApp);
        };
        let context = self.context.clone();
        let mut source = RtmpSource {
            connection: self,
            request,
            rule,
            media: MediaReader::default(),
            fault: None,
            end: None,
        };
        publish(&context, &mut source, permit).await
    }

    /// Queues the status that informs the peer of an end it has not caused itself.
    fn queue_status(&mut self, end: &PublishEnd) {
        let rtmp = &mut self.transport.rtmp;
        if end.reason == CloseReason::PublisherLeft || rtmp.is_finished() {
            return;
        }
        if let Some(status) = rejection(end.reason)
            && let Err(error) = rtmp.kick(status, &end.text)
        {
            tracing::debug!(%error, "the status of the end cannot be sent");
        }
    }

    /// Closes the connection; the peer is informed of the reason first.
    async fn finish(mut self, end: PublishEnd) {
        tracing::debug!(%end, "connection ends");
        self.context.metrics.closed.with(&[end.reason.code()]).inc();
        if end.reason != CloseReason::ConnectionLost {
            self.queue_status(&end);
            self.transport.finish().await;
        }
    }
}

/// One publish, from the `publish` command to `deleteStream` or to the connection's end.
struct RtmpSource<'a, S> {
    connection: &'a mut Connection<S>,
    request: PublishRequest,
    rule: PathRule,
    media: MediaReader,
    /// The fault of a message whose events come first.
    fault: Option<MediaError>,
    /// The end that [`Source::receive`] ran into: the next event.
    end: Option<PublishEnd>,
}

impl<S: Socket> Source for RtmpSource<'_, S> {
    fn identity(&self) -> Identity {
        Identity {
            credential: Credential::stream_key(self.request.stream_key.expose()),
            address: self.connection.peer.ip(),
            protocol: self.connection.protocol,
            may_ask_outside: self.rule == PathRule::Key,
        }
    }

    fn accept(&mut self) -> Result<(), PublishEnd> {
        let now = self.connection.context.now();
        Ok(self.connection.transport.rtmp.accept_publish(now)?)
    }

    async fn receive(&mut self) -> usize {
        match self.connection.transport.receive().await {
            Ok(bytes) => bytes,
            Err(end) => {
                self.end = Some(end);
                0
            }
        }
    }

    fn next_event(&mut self) -> Option<Result<SourceEvent, MediaError>> {
        if let Some(event) = self.media.poll() {
            return Some(Ok(event));
        }
        if let Some(fault) = self.fault.take() {
            return Some(Err(fault));
        }
        if let Some(end) = self.end.take() {
            self.media.close_picture();
            let Some(last) = self.media.poll() else { return Some(Ok(SourceEvent::End(end))) };
            self.end = Some(end);
            return Some(Ok(last));
        }
        loop {
            let event = match self.connection.transport.next_event() {
                Ok(Some(event)) => event,
                Ok(None) => return None,
                Err(end) => return Some(Ok(SourceEvent::End(end))),
            };
            let read = match event {
                Event::Video { timestamp, data } => self.media.video(timestamp, data),
                Event::Audio { timestamp, data } => self.media.audio(timestamp, data),
                Event::Metadata { properties, .. } => {
                    return Some(Ok(SourceEvent::Metadata(media::metadata(&properties))));
                }
                Event::Unpublished => {
                    self.end = Some(CloseReason::PublisherLeft.into());
                    return self.next_event();
                }
                Event::Refused(refusal) => {
                    return Some(Ok(SourceEvent::End(refusal_reason(refusal).into())));
                }
                _ => Ok(()),
            };
            // What came of the message before its fault comes first.
            if let Some(event) = self.media.poll() {
                self.fault = read.err();
                return Some(Ok(event));
            }
            if let Err(error) = read {
                return Some(Err(error));
            }
        }
    }

    fn repairs(&self) -> RepairCounts {
        self.media.repairs()
    }

    /// The connection sends the status when the session has returned.
    async fn close(&mut self, end: &PublishEnd) {
        self.connection.queue_status(end);
    }
}

/// Runs a connection under its span.
pub(super) fn spanned(
    work: impl Future<Output = ()>,
    peer: SocketAddr,
    protocol: &'static str,
) -> impl Future<Output = ()> {
    work.instrument(tracing::info_span!("connection", protocol, %peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_close_reason_is_sent_with_the_status_of_its_row() {
        for reason in CloseReason::ALL {
            let sent = rejection(*reason).map(Rejection::code);
            // The answer to an orderly unpublish is the RTMP session's own.
            if *reason != CloseReason::PublisherLeft {
                assert_eq!(sent, reason.rtmp_status(), "{reason}");
            }
        }
        assert_eq!(rejection(CloseReason::UnknownKey), Some(Rejection::BadName));
        assert_eq!(rejection(CloseReason::Timeout), None);
    }
}
