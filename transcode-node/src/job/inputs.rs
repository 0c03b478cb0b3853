//! The inputs of a job: media, announcements, requests of readers, results of uploads, and orders.

use millrace_link::LogRequest;
use millrace_protocol::job::Input;
use millrace_runtime::actors::ReceivedOrder;
use millrace_wire::message::announce::{EpochAnnouncement, SessionAnnouncement};
use millrace_wire::message::media::MediaMessage;

use super::{Job, JobError, Order};
use crate::output::objects::UploadReport;

impl Job {
    /// Takes the messages that `fragments` of the epoch's media completed; 0 means that the bus closed the subscription.
    pub(super) fn on_media(
        &mut self,
        fragments: usize,
        messages: &mut Vec<MediaMessage>,
    ) -> Result<(), JobError> {
        if fragments == 0 {
            return Err(JobError::Closed("media"));
        }
        for message in messages.drain(..) {
            self.driver.handle(Input::Media(message))?;
        }
        self.execute_outputs()
    }

    /// Takes an announcement of control; a newer epoch ends this job's log.
    pub(super) fn on_epoch(&mut self, announcement: Option<EpochAnnouncement>) -> Result<(), JobError> {
        let announcement = announcement.ok_or(JobError::Closed("epoch announcements"))?;
        self.retain_last_state();
        self.handle(Input::Epoch(announcement))
    }

    /// Takes an announcement of the publisher's session.
    pub(super) fn on_session(&mut self, announcement: Option<SessionAnnouncement>) -> Result<(), JobError> {
        let announcement = announcement.ok_or(JobError::Closed("session announcements"))?;
        self.handle(Input::Session(announcement))
    }

    /// Answers a reader of the log. One that missed facts gets them again; one that asks for the newest state gets none if
    /// this job's log was never announced.
    pub(super) fn on_log_request(&mut self, request: Option<LogRequest>) -> Result<(), JobError> {
        match request.ok_or(JobError::Closed("requests of the log's readers"))? {
            LogRequest::Repair(request) => {
                let now = self.driver.now();
                let answer = self.driver.machine_mut().repair(now, &request.message);
                self.context.metrics.repair_requests.inc();
                request.respond(&answer);
                self.execute_outputs()
            }
            LogRequest::Snapshot(request) => {
                if let Some(state) = self.driver.machine().snapshot().or(self.last_state.as_ref()) {
                    request.respond(state);
                }
                Ok(())
            }
        }
    }

    fn retain_last_state(&mut self) {
        if let Some(state) = self.driver.machine().snapshot() {
            self.last_state = Some(state.clone());
        }
    }

    /// Takes the result of an upload.
    pub(super) fn on_upload(&mut self, report: UploadReport) -> Result<(), JobError> {
        self.objects.settle(report.number);
        self.show_uploads();
        let Some(segment) = report.segment else {
            self.checkpoint.init_settled(report.result.is_ok());
            self.checkpoint.update(self.driver.machine());
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

    /// Takes an order of the session or of the node.
    pub(super) fn on_order(&mut self, order: Order) -> Result<(), JobError> {
        self.handle(match order {
            Order::Revoke => Input::Revoked,
            Order::Leave => return self.leave(),
            Order::Quiesce => Input::Quiesce,
        })
    }

    /// Asks the session for a successor.
    fn leave(&mut self) -> Result<(), JobError> {
        self.leaving = true;
        self.handle(Input::Leave)
    }

    /// Carries out an operator's order: a drain asks the session for a successor, a kick ends the job at once, and the
    /// session grants it to another worker when heartbeats stay away.
    pub(super) fn on_operator_order(&mut self, order: ReceivedOrder) -> Result<(), JobError> {
        match order.order() {
            millrace_runtime::Order::Kick { reason } => {
                tracing::warn!(reason, "job ended by an operator; its session grants it to another worker");
                self.kicked = true;
                order.accept();
                Ok(())
            }
            millrace_runtime::Order::Drain => {
                order.accept();
                self.leave()
            }
            millrace_runtime::Order::Reload => {
                order.refuse("a job has no settings of its own to read again");
                Ok(())
            }
        }
    }
}
