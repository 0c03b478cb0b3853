//! The thread that takes the orders: it decodes and scales.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use super::audio::Audio;
use super::figures::{CpuClock, Waiting};
use super::ladder::Ended;
use super::order::{Order, Plan};
use super::product::{Part, Product, Refusal, Report};
use super::video::Video;

/// Time between two reports, also while nothing is ordered: they tell that the engine lives.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Takes orders until their sender or the products' reader is gone.
pub(super) fn run(orders: &Receiver<Order>, products: &SyncSender<Product>, waiting: &Waiting) {
    let mut state = State {
        products,
        waiting,
        video: None,
        audio: None,
        cpu: CpuClock::start(),
        media: 0,
        reported: Instant::now(),
    };
    // The end of the products' reader is the end of the engine, and no error.
    let _ = state.run(orders);
}

struct State<'a> {
    products: &'a SyncSender<Product>,
    waiting: &'a Waiting,
    video: Option<Video>,
    audio: Option<Audio>,
    cpu: CpuClock,
    /// Ticks of media that were decoded since the last report.
    media: u64,
    reported: Instant,
}

impl State<'_> {
    fn run(&mut self, orders: &Receiver<Order>) -> Result<(), Ended> {
        loop {
            let until = REPORT_EVERY.saturating_sub(self.reported.elapsed());
            match orders.recv_timeout(until) {
                Ok(order) => {
                    let ticks = order.media_ticks();
                    self.order(order)?;
                    self.waiting.goes(ticks);
                    self.media += ticks;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.flush(),
            }
            if self.reported.elapsed() >= REPORT_EVERY {
                self.report()?;
            }
        }
    }

    fn order(&mut self, order: Order) -> Result<(), Ended> {
        let order = match (order, &mut self.audio) {
            (Order::AudioConfig(source), Some(audio)) => return audio.configure(source),
            (Order::Sound(sound), Some(audio)) => return audio.sound(&sound),
            (order, _) => order,
        };
        match (order, &mut self.video) {
            (Order::Start(plan), _) => self.start(plan),
            (Order::VideoConfig(source), Some(video)) => video.configure(source),
            (Order::Picture(picture), Some(video)) => video.picture(&picture),
            (Order::Encode(rungs), Some(video)) => {
                video.encode_only(rungs);
                Ok(())
            }
            (Order::Flush, _) => {
                self.flush()?;
                self.product(Product::Flushed)
            }
            (
                Order::AudioConfig(_)
                | Order::Sound(_)
                | Order::VideoConfig(_)
                | Order::Picture(_)
                | Order::Encode(_),
                _,
            ) => Ok(()),
        }
    }

    fn start(&mut self, plan: Plan) -> Result<(), Ended> {
        self.audio = Some(Audio::new(self.products.clone(), plan.audio, plan.pictures));
        match Video::start(plan, self.products.clone()) {
            Ok(video) => self.video = Some(video),
            Err(error) => {
                let reason = format!("a thread for an encoder could not be started: {error}");
                self.product(Product::Refused(Refusal { part: Part::Video, source_version: 0, reason }))?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Ended> {
        self.video.as_mut().map_or(Ok(()), Video::finish)?;
        self.audio.as_mut().map_or(Ok(()), Audio::finish)
    }

    fn report(&mut self) -> Result<(), Ended> {
        self.reported = Instant::now();
        let (rungs, lost_pictures) = match &mut self.video {
            Some(video) => (video.reports(), std::mem::take(&mut video.lost_pictures)),
            None => (Vec::new(), 0),
        };
        let report = Report {
            media_us: std::mem::take(&mut self.media) * 100 / 9,
            decode_us: self.cpu.lap(),
            lost_pictures,
            waiting_ms: self.waiting.millis(),
            rungs,
        };
        self.product(Product::Report(report))
    }

    fn product(&self, product: Product) -> Result<(), Ended> {
        self.products.send(product).map_err(|_| Ended)
    }
}
