//! The inputs of a job: media, announcements, requests of readers, results of uploads, and the node's orders.

use millrace_bus::{BusError, Message, SharedBus, Subscription};
use millrace_protocol::Machine;
use millrace_protocol::job::Input;
use millrace_wire::message::job::Grant;
use millrace_wire::message::repair::RepairRequest;
use millrace_wire::{subjects, topic};

use super::{Job, JobError, Order};
use crate::output::objects::UploadReport;

/// Media messages that may wait for the rungs: four seconds of 60 pictures a second with their audio. Messages beyond
/// that are lost here and repaired from the session's replay buffer.
const MEDIA_CAPACITY: usize = 1024;
/// Announcements, repair requests and snapshot requests that may wait, each. They are repeated when they are lost.
const REQUEST_CAPACITY: usize = 128;

/// A job's subscriptions.
pub(super) struct Subscriptions {
    pub(super) media: Subscription,
    pub(super) repaired: Subscription,
    pub(super) epoch: Subscription,
    pub(super) session: Subscription,
    pub(super) fact_repair: Subscription,
    pub(super) snapshot: Subscription,
}

impl Subscriptions {
    pub(super) async fn open(bus: &SharedBus, grant: &Grant) -> Result<Self, BusError> {
        let (stream, epoch, generation) = (grant.stream, grant.epoch, grant.generation);
        let fact_repair = subjects::ring_live(stream, epoch, generation);
        Ok(Self {
            media: bus.subscribe(&subjects::media(stream, epoch), MEDIA_CAPACITY).await?,
            repaired: bus.subscribe(&subjects::repair_media(stream, epoch), MEDIA_CAPACITY).await?,
            epoch: bus.subscribe(&subjects::epoch(stream), REQUEST_CAPACITY).await?,
            session: bus.subscribe(&subjects::session(stream), REQUEST_CAPACITY).await?,
            fact_repair: bus.subscribe(&fact_repair, REQUEST_CAPACITY).await?,
            snapshot: bus.subscribe(&subjects::snap(stream), REQUEST_CAPACITY).await?,
        })
    }
}

impl Job {
    /// Takes `count` messages of the epoch's media; none means that the bus closed the subscription.
    pub(super) fn on_media(&mut self, count: usize, batch: &mut Vec<Message>) -> Result<(), JobError> {
        self.take_media(count, batch, false)
    }

    /// As [`Job::on_media`], for messages that were published again on request.
    pub(super) fn on_repaired_media(
        &mut self,
        count: usize,
        batch: &mut Vec<Message>,
    ) -> Result<(), JobError> {
        self.take_media(count, batch, true)
    }

    fn take_media(&mut self, count: usize, batch: &mut Vec<Message>, repaired: bool) -> Result<(), JobError> {
        if count == 0 {
            return Err(JobError::Closed("media"));
        }
        let now = self.now();
        for message in batch.drain(..) {
            let reader = if repaired { &mut self.readers.1 } else { &mut self.readers.0 };
            match reader.push(message.payload) {
                Ok(Some(message)) => self.machine.handle(now, Input::Media(message))?,
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "malformed media message dropped"),
            }
        }
        self.execute_outputs()
    }

    /// Takes an announcement of control; a newer epoch ends this job's log.
    pub(super) fn on_epoch(&mut self, message: Option<Message>) -> Result<(), JobError> {
        self.retain_last_state();
        self.on_announcement(message, "epoch announcements", Input::Epoch)
    }

    /// Takes an announcement of the publisher's session.
    pub(super) fn on_session(&mut self, message: Option<Message>) -> Result<(), JobError> {
        self.on_announcement(message, "session announcements", Input::Session)
    }

    fn on_announcement<T: topic::Message>(
        &mut self,
        message: Option<Message>,
        name: &'static str,
        input: impl FnOnce(T) -> Input,
    ) -> Result<(), JobError> {
        let message = message.ok_or(JobError::Closed(name))?;
        match topic::decode(&message.payload) {
            Ok(announcement) => self.handle(input(announcement)),
            Err(error) => {
                tracing::warn!(%error, subject = %message.subject, "malformed announcement dropped");
                Ok(())
            }
        }
    }

    /// Answers a reader's request for facts that it missed and publishes them again.
    pub(super) fn on_repair_request(&mut self, message: Option<Message>) -> Result<(), JobError> {
        let message = message.ok_or(JobError::Closed("fact repair requests"))?;
        let (Some(request), Some(reply)) = (RepairRequest::parse(&message.payload), &message.reply) else {
            return Ok(());
        };
        let answer = self.machine.repair(self.now(), &request);
        self.context.metrics.repair_requests.inc();
        self.respond(reply, &answer);
        self.execute_outputs()
    }

    fn retain_last_state(&mut self) {
        if let Some(state) = self.machine.snapshot() {
            self.last_state = Some(state.clone());
        }
    }

    /// Answers a request for the stream's newest state, unless this job's log was never announced.
    pub(super) fn on_snapshot_request(&self, message: Option<Message>) -> Result<(), JobError> {
        let message = message.ok_or(JobError::Closed("snapshot requests"))?;
        let state = self.machine.snapshot().or(self.last_state.as_ref());
        if let (Some(state), Some(reply)) = (state, &message.reply) {
            self.respond(reply, state);
        }
        Ok(())
    }

    /// Takes the result of an upload.
    pub(super) fn on_upload(&mut self, report: UploadReport) -> Result<(), JobError> {
        let Some(segment) = report.segment else {
            self.checkpoint.init_settled(report.result.is_ok());
            self.checkpoint.update(&self.machine);
            return Ok(());
        };
        if report.result.is_err() {
            // Without its object the segment is served from memory while it is live, and missing afterwards.
            self.checkpoint.segment_lost(segment.rendition, segment.msn);
            self.context.metrics.segments_lost.inc();
            return Ok(());
        }
        self.handle(Input::Stored(segment.rendition, segment.msn))
    }

    /// Takes an order of the node.
    pub(super) fn on_order(&mut self, order: Order) -> Result<(), JobError> {
        self.handle(match order {
            Order::Revoke => Input::Revoked,
            Order::Leave => Input::Leave,
            Order::Quiesce => Input::Yield,
        })
    }
}
