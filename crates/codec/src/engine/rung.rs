//! The thread of one rung: it encodes the pictures that it is given.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use bytes::Bytes;

use super::figures::{CpuClock, RungFigures};
use super::order::{EncoderKind, RungIndex, Slot};
use super::product::{CodedPicture, Part, Product, Refusal, RungStart};
use crate::av::Picture;
use crate::encoder::{self, Coded, Encoder, Settings};

/// Pictures that wait for an encoder at most: enough to even out the time that an IDR picture takes; each is up to 13 MB.
const WAITING: usize = 4;

/// One step of the work of a rung.
pub(super) enum Work {
    /// Ends the encoder that runs; the next picture begins another with these settings.
    Begin(Box<Begin>),
    Encode(Task),
    /// Ends the encoder, hands in its pictures and confirms.
    Finish(SyncSender<()>),
}

/// The settings of an encoder to begin.
pub(super) struct Begin {
    pub(super) settings: Settings,
    pub(super) source_version: u32,
}

/// A picture to encode.
pub(super) struct Task {
    pub(super) picture: Picture,
    pub(super) slot: Slot,
    pub(super) slots: u32,
    pub(super) pts: i64,
    /// Decoding time since the engine's start in 90 kHz ticks.
    pub(super) time: i64,
    pub(super) duration: u64,
    pub(super) idr: bool,
    pub(super) repeats: bool,
}

/// The end of a rung's thread that gives it work.
pub(super) struct RungThread {
    work: Option<SyncSender<Work>>,
    thread: Option<JoinHandle<()>>,
    pub(super) figures: Arc<RungFigures>,
}

impl RungThread {
    pub(super) fn start(
        rung: RungIndex,
        kinds: Vec<EncoderKind>,
        products: SyncSender<Product>,
    ) -> std::io::Result<Self> {
        let (work, orders) = sync_channel(WAITING);
        let figures = Arc::new(RungFigures::default());
        let shared = figures.clone();
        let thread = thread::Builder::new().name(format!("rung-{}", rung.0)).spawn(move || {
            let mut state = Rung {
                index: rung,
                kinds,
                left: Vec::new(),
                products,
                figures: shared,
                begin: None,
                open: None,
                started: None,
            };
            // The queue's end is the engine's.
            let _ = state.run(&orders);
        })?;
        Ok(Self { work: Some(work), thread: Some(thread), figures })
    }

    /// Gives work, and waits while the queue is full. False if the thread has ended.
    pub(super) fn give(&self, work: Work) -> bool {
        if let Work::Encode(task) = &work {
            self.figures.waiting.comes(task.duration);
        }
        self.work.as_ref().is_some_and(|queue| queue.send(work).is_ok())
    }
}

impl Drop for RungThread {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; its queue is closed.
            let _ = thread.join();
        }
    }
}

/// The products' reader is gone, which ends the thread.
struct Closed;

struct Rung {
    index: RungIndex,
    kinds: Vec<EncoderKind>,
    /// The kinds that have not failed with the settings of `begin`.
    left: Vec<EncoderKind>,
    products: SyncSender<Product>,
    figures: Arc<RungFigures>,
    begin: Option<Box<Begin>>,
    open: Option<Open>,
    /// The start that was announced last: the version of the source and the record.
    started: Option<(u32, Bytes)>,
}

struct Open {
    encoder: Box<dyn Encoder>,
    kind: EncoderKind,
    /// The pictures that the encoder holds, in order.
    held: VecDeque<Task>,
}

impl Rung {
    fn run(&mut self, orders: &Receiver<Work>) -> Result<(), Closed> {
        let mut clock = CpuClock::start();
        for work in orders {
            match work {
                Work::Begin(begin) => {
                    self.finish()?;
                    self.left.clone_from(&self.kinds);
                    self.begin = Some(begin);
                }
                Work::Encode(task) => {
                    let duration = task.duration;
                    self.encode(task)?;
                    self.figures.waiting.goes(duration);
                }
                Work::Finish(confirm) => {
                    self.finish()?;
                    // The engine may have ended meanwhile.
                    let _ = confirm.send(());
                }
            }
            self.figures.encode_us.add(clock.lap());
        }
        Ok(())
    }

    fn encode(&mut self, task: Task) -> Result<(), Closed> {
        let mut idr = task.idr;
        if self.open.is_none() {
            if !self.open_encoder()? {
                return Ok(());
            }
            idr = true;
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        let (picture, time) = (task.picture.clone(), task.time);
        open.held.push_back(task);
        let mut coded = Vec::new();
        if let Err(error) = open.encoder.encode(&picture, time, idr, &mut coded) {
            return self.fail(&error.to_string());
        }
        self.hand_in(coded)
    }

    /// Opens the first encoder that opens. False if none does, or none is to be opened any more.
    fn open_encoder(&mut self) -> Result<bool, Closed> {
        let Some(begin) = &self.begin else { return Ok(false) };
        let mut reasons = Vec::new();
        while let Some(&kind) = self.left.first() {
            match encoder::open(kind, &begin.settings) {
                Ok(encoder) => {
                    let (version, record) = (begin.source_version, encoder.record());
                    let start = RungStart {
                        rung: self.index,
                        source_version: version,
                        record: record.clone(),
                        bitrate: begin.settings.bitrate,
                        frame_rate_milli: begin.settings.frame_rate_milli,
                        encoder: kind,
                    };
                    self.open = Some(Open { encoder, kind, held: VecDeque::new() });
                    // A rung that goes on with the same configuration has been announced.
                    if self.started.replace((version, record.clone())) != Some((version, record)) {
                        self.product(Product::RungStarted(start))?;
                    }
                    return Ok(true);
                }
                Err(error) => {
                    reasons.push(format!("{kind}: {error}"));
                    self.left.remove(0);
                }
            }
        }
        self.refuse(reasons.join("; "))?;
        Ok(false)
    }

    /// Leaves an encoder that failed; the next picture opens the next kind.
    fn fail(&mut self, reason: &str) -> Result<(), Closed> {
        let Some(open) = self.open.take() else { return Ok(()) };
        tracing::warn!(rung = self.index.0, encoder = %open.kind, reason, "the encoder failed; the next kind is opened");
        self.left.retain(|kind| *kind != open.kind);
        if self.left.is_empty() {
            self.refuse(format!("{}: {reason}", open.kind))?;
        }
        Ok(())
    }

    fn refuse(&mut self, reason: String) -> Result<(), Closed> {
        let source_version = self.begin.take().map_or(0, |begin| begin.source_version);
        self.product(Product::Refused(Refusal { part: Part::Rung(self.index), source_version, reason }))
    }

    fn finish(&mut self) -> Result<(), Closed> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let mut coded = Vec::new();
        let end = open.encoder.finish(&mut coded);
        self.hand_in(coded)?;
        if let Err(error) = end {
            return self.fail(&error.to_string());
        }
        self.open = None;
        Ok(())
    }

    fn hand_in(&mut self, coded: Vec<Coded>) -> Result<(), Closed> {
        for Coded { idr, data } in coded {
            let Some(task) = self.open.as_mut().and_then(|open| open.held.pop_front()) else {
                return self.fail("it returned more pictures than it was given");
            };
            self.figures.pictures.add(1);
            self.figures.bytes.add(data.len() as u64);
            let Task { slot, slots, pts, repeats, .. } = task;
            self.product(Product::Picture(CodedPicture {
                rung: self.index,
                slot,
                slots,
                pts,
                idr,
                repeats,
                data,
            }))?;
        }
        Ok(())
    }

    fn product(&self, product: Product) -> Result<(), Closed> {
        self.products.send(product).map_err(|_| Closed)
    }
}
