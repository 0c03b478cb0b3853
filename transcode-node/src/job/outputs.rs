//! The outputs of a job's machine, carried out: facts, requests and heartbeats to the bus, media to the rungs, objects to
//! the store and entries to the index.

use std::time::Duration;

use millrace_protocol::Machine;
use millrace_protocol::job::{Input, Output, Packaged};
use millrace_protocol::log::writer::EncodedMessage;
use millrace_wire::ids::RungId;
use millrace_wire::message::control;
use millrace_wire::message::repair::{RepairReply, RepairRequest};
use millrace_wire::{subjects, topic};

use super::{Job, JobError};

/// The longest time a request for media may take. The session answers from memory: a slower one is away.
const MEDIA_REQUEST_LIMIT: Duration = Duration::from_millis(500);
/// The longest time a seal report may take: control writes to the state store before it answers.
const SEAL_REPORT_LIMIT: Duration = Duration::from_secs(2);

impl Job {
    /// Carries out everything that the machine wants done.
    pub(super) fn execute_outputs(&mut self) -> Result<(), JobError> {
        while let Some(output) = self.machine.poll_output() {
            self.execute(output)?;
        }
        self.checkpoint.update(&self.machine);
        Ok(())
    }

    fn execute(&mut self, output: Output) -> Result<(), JobError> {
        match output {
            Output::Publish(message) => self.publish(message),
            Output::Package(message) => {
                self.rungs.push(message);
                self.take_packaged()?;
            }
            Output::RestartRung(id) => {
                let grant = self.machine.grant();
                let base = self.machine.snapshot().unwrap_or(&grant.base);
                self.rungs.restart(&id, &grant.settings, &grant.open, base);
            }
            Output::Flush(id) => {
                self.rungs.finish(&id);
                self.take_packaged()?;
            }
            Output::AskMedia(request) => self.request_media(&request),
            Output::Heartbeat(heartbeat) => {
                let grant = self.machine.grant();
                self.send(&subjects::job_heartbeat(grant.stream, grant.epoch), &heartbeat);
            }
            Output::UploadInit(rendition, version, bytes) => {
                self.checkpoint.init_submitted();
                self.objects.upload_init(&rendition, version, bytes);
            }
            Output::Upload(segment, body) => self.objects.upload_segment(segment, body),
            Output::Index(fact) => {
                self.context.metrics.segments_stored.inc();
                self.checkpoint.segment_stored();
                self.context.index.add(self.machine.grant().playback, fact);
            }
            Output::Report(report) => self.report_seal(&report),
            Output::Superseded => tracing::info!("another author took over; finishing uploads"),
            Output::Done => {}
        }
        Ok(())
    }

    /// Hands the machine what a rung has made, and carries out what follows.
    pub(super) fn on_packaged(&mut self, rung: RungId, packaged: Packaged) -> Result<(), JobError> {
        self.hand_over(rung, packaged)?;
        self.take_packaged()?;
        self.execute_outputs()
    }

    /// Hands the machine everything that the rungs have made so far, unless it quiesces: then it stays with them.
    fn take_packaged(&mut self) -> Result<(), JobError> {
        while !self.machine.is_quiescing()
            && let Some((rung, packaged)) = self.rungs.try_next()
        {
            self.hand_over(rung, packaged)?;
        }
        Ok(())
    }

    fn hand_over(&mut self, rung: RungId, packaged: Packaged) -> Result<(), JobError> {
        match &packaged {
            Packaged::Init { rendition, info, .. } => self.objects.describe(rendition, info),
            Packaged::Part(..) => self.context.metrics.parts.inc(),
            Packaged::PartTarget { .. } | Packaged::Segment(_) | Packaged::Flushed => {}
        }
        Ok(self.machine.handle(self.now(), Input::Packaged(rung, packaged))?)
    }

    fn publish(&self, message: EncodedMessage) {
        let grant = self.machine.grant();
        let (stream, epoch, generation) = (grant.stream, grant.epoch, grant.generation);
        let (subject, fragments) = match message {
            EncodedMessage::Live(fragments) => (subjects::live(stream, epoch, generation), fragments),
            EncodedMessage::Digest(fragments) => (subjects::digest(stream, epoch, generation), fragments),
            EncodedMessage::Retransmit(fragments) => {
                (subjects::repair_live(stream, epoch, generation), fragments)
            }
        };
        for fragment in fragments {
            // Readers repair a dropped fragment from the log writer's replay buffer.
            if self.context.bus.publish(&subject, fragment).is_err() {
                self.context.metrics.facts_dropped.inc();
            }
        }
    }

    /// Requests media from the session. Without an answer the machine asks again in its own time.
    fn request_media(&self, request: &RepairRequest) {
        let grant = self.machine.grant();
        let subject = subjects::ring_media(grant.stream, grant.epoch);
        let Ok(request) = topic::encode(request) else { return };
        let (bus, replies) = (self.context.bus.clone(), self.replies.0.clone());
        tokio::spawn(async move {
            match bus.request(&subject, request, MEDIA_REQUEST_LIMIT).await {
                Ok(reply) => {
                    if let Ok(reply) = topic::decode::<RepairReply>(&reply) {
                        let _ = replies.send(Input::MediaReply(reply)).await;
                    }
                }
                Err(error) => tracing::debug!(%subject, %error, "no answer to a request for media"),
            }
        });
    }

    /// Reports to control that the epoch is sealed. Without an answer the machine reports again.
    fn report_seal(&self, report: &control::SealReport) {
        let Ok(request) = control::encode(report) else { return };
        let (bus, replies) = (self.context.bus.clone(), self.replies.0.clone());
        tokio::spawn(async move {
            let answer = bus.request(subjects::CONTROL_SEALED, request, SEAL_REPORT_LIMIT).await;
            match answer.map(|answer| control::decode::<control::LeaseReply>(&answer)) {
                // If a newer epoch is open, its claim has recorded where this one ended: that is an answer too.
                Ok(Ok(_)) => drop(replies.send(Input::Reported).await),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "malformed answer to a seal report; will report again")
                }
                Err(error) => tracing::debug!(%error, "seal report not answered; will report again"),
            }
        });
    }

    /// Responds to a request. An answer that the bus drops is asked for again.
    pub(super) fn respond(&self, reply: &str, answer: &impl topic::Message) {
        if let Ok(answer) = topic::encode(answer)
            && let Err(error) = self.context.bus.respond(reply, answer)
        {
            tracing::debug!(%error, "answer not sent");
        }
    }

    fn send(&self, subject: &str, body: &impl topic::Message) {
        if let Ok(body) = topic::encode(body)
            && let Err(error) = self.context.bus.publish(subject, body)
        {
            tracing::debug!(subject, %error, "message not sent");
        }
    }
}
