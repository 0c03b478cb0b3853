//! The outputs of a job's machine, carried out: facts, requests and heartbeats to the bus, media to the rungs, objects to
//! the store and entries to the index.

use std::time::Duration;

use millrace_protocol::job::{Input, Output, Packaged};
use millrace_wire::ids::RungId;
use millrace_wire::message::control::SealReport;
use millrace_wire::message::ladder_health::LadderHealth;
use millrace_wire::message::media::MediaMessage;
use millrace_wire::message::repair::RepairRequest;
use millrace_wire::topics;

use super::{Job, JobError};
use crate::output::storyboard::StoryboardWriter;
use crate::output::uploads::is_storage_failing;
use crate::rungs::{LadderNews, Sheet};

/// The longest time a seal report may take: control writes to the state store before it answers.
const SEAL_REPORT_LIMIT: Duration = Duration::from_secs(2);

impl Job {
    /// Carries out everything that the machine wants done.
    pub(super) fn execute_outputs(&mut self) -> Result<(), JobError> {
        while let Some(output) = self.driver.poll_output() {
            self.execute(output)?;
        }
        self.checkpoint.update(self.driver.machine());
        self.show_state();
        Ok(())
    }

    fn execute(&mut self, output: Output) -> Result<(), JobError> {
        match output {
            Output::Publish(message) => {
                // Readers repair what the bus drops from the log writer's replay buffer.
                self.context.metrics.facts_dropped.add(self.subscriptions.log.publish(message));
            }
            Output::PreRoll(units) => self.rungs.pre_roll(&units),
            Output::PreRollMissing => {
                tracing::warn!(
                    "the session no longer has all media that the encoders would begin with, or did not send them in time:                      encoded renditions may begin with a click, or lack the segments up to the next keyframe"
                );
            }
            Output::Package(message) => {
                self.sample(&message);
                self.rungs.push(message);
                self.take_packaged()?;
            }
            Output::RestartRung(id) => {
                let machine = self.driver.machine();
                let grant = machine.grant();
                let base = machine.snapshot().unwrap_or(&grant.base);
                self.rungs.restart(&id, &grant.settings, &grant.open, base);
            }
            Output::Flush(id) => {
                self.rungs.finish(&id);
                self.take_packaged()?;
            }
            Output::AskMedia(request) => self.request_media(request),
            Output::Heartbeat(mut heartbeat) => {
                heartbeat.storage_failing = is_storage_failing(&self.context.uploader);
                heartbeat.encoding = self.rungs.trouble();
                self.repairs.report(&self.rungs.repairs());
                heartbeat.ladder = self.take_ladder_news();
                self.take_thumbnail();
                if let Err(error) = self.context.link.publish(&self.heartbeats, &heartbeat) {
                    tracing::debug!(%error, "heartbeat not sent; the next one follows");
                }
            }
            Output::UploadInit(rendition, version, bytes) => {
                self.checkpoint.init_submitted();
                self.objects.upload_init(&rendition, version, bytes);
                self.show_uploads();
            }
            Output::Upload(segment, body) => {
                self.objects.upload_segment(segment, body);
                self.show_uploads();
            }
            Output::Index(fact) => {
                self.context.metrics.segments_stored.inc();
                self.checkpoint.segment_stored();
                self.index.add(self.driver.machine().grant().playback, &fact);
            }
            Output::Report(report) => self.report_seal(report),
            Output::Superseded => {
                self.superseded = true;
                self.pictures.stop();
                self.storyboard = None;
                tracing::info!("another author took over; finishing uploads");
            }
            Output::Done => {}
        }
        Ok(())
    }

    /// Counts the figures of the encoded rungs; returns their health if it has changed.
    fn take_ladder_news(&mut self) -> Option<Box<LadderHealth>> {
        let LadderNews { health, figures } = self.rungs.take_news()?;
        self.context.metrics.rungs.add(&figures);
        Some(Box::new(health))
    }

    /// Stores the newest picture, unless another worker has the stream.
    fn take_thumbnail(&mut self) {
        let jpeg = self.rungs.take_thumbnail().or_else(|| self.picture_slot.take());
        if let Some(jpeg) = jpeg.filter(|_| self.driver.machine().snapshot().is_some()) {
            self.pictures.put(jpeg);
        }
        if let Some(sheet) = self.rungs.take_sheet().filter(|_| self.driver.machine().snapshot().is_some()) {
            self.put_sheet(sheet);
        }
    }

    fn put_sheet(&mut self, sheet: Sheet) {
        let (store, grant) = (&self.context.store, self.driver.machine().grant());
        let start = || {
            let log = (grant.epoch, grant.generation);
            StoryboardWriter::start(store.clone(), grant.playback, log, grant.settings.record)
        };
        self.storyboard.get_or_insert_with(start).put(sheet);
    }

    /// Asks for a picture of a stream that is copied only, when one is due. A ladder's transcoder makes its own.
    fn sample(&mut self, message: &MediaMessage) {
        let encodes = self.driver.machine().grant().settings.plan.encodes();
        if let Some(pictures) = self.picture_service.as_ref().filter(|_| !encodes)
            && let Some(snapshot) = self.sampler.look(message)
        {
            pictures.ask(snapshot, &self.picture_slot);
        }
    }

    /// Hands the machine what a rung has made, and carries out what follows.
    pub(super) fn on_packaged(&mut self, rung: RungId, packaged: Packaged) -> Result<(), JobError> {
        self.hand_over(rung, packaged)?;
        self.take_packaged()?;
        self.execute_outputs()
    }

    /// Hands the machine everything that the rungs have made so far, unless it quiesces: then it stays with them.
    fn take_packaged(&mut self) -> Result<(), JobError> {
        while !self.driver.machine().is_quiescing()
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
            Packaged::PartTarget { .. }
            | Packaged::Segment(_)
            | Packaged::Gap(_)
            | Packaged::RenditionEnd { .. }
            | Packaged::Flushed => {}
        }
        Ok(self.driver.handle(Input::Packaged(rung, packaged))?)
    }

    /// Requests media from the session. Without an answer the machine asks again in its own time.
    fn request_media(&self, request: RepairRequest) {
        let answer = self.subscriptions.media.ask_repair(request);
        let replies = self.replies.0.clone();
        tokio::spawn(async move {
            if let Some(reply) = answer.await {
                let _ = replies.send(Input::MediaReply(reply)).await;
            }
        });
    }

    /// Reports to control that the epoch is sealed. Without an answer the machine reports again.
    fn report_seal(&self, report: SealReport) {
        let (link, replies) = (self.context.link.clone(), self.replies.0.clone());
        tokio::spawn(async move {
            match link.request(&topics::sealed(), &report, SEAL_REPORT_LIMIT).await {
                // If a newer epoch is open, its claim has recorded where this one ended: that is an answer too.
                Ok(_) => drop(replies.send(Input::Reported).await),
                Err(error) => tracing::debug!(%error, "seal report not answered; will report again"),
            }
        });
    }
}
