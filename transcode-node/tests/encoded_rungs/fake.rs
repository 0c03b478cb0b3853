//! A scripted transcoder: its pictures hold the numbers of their places, some pictures late.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use bytes::Bytes;
use millrace_codec::engine::order::{EncoderKind, Order, Plan, RungIndex, Slot};
use millrace_codec::engine::product::{AudioStart, CodedPicture, Product, RungStart};
use millrace_media::codec::h264::AvcConfig;
use millrace_media::frame::AudioConfig;
use millrace_transcode::encoders::{Behind, EncoderFactory, Encoders, EndCause, Ended, Event};

const SPS: &[u8] = &[
    0x67, 0x64, 0x00, 0x1f, 0xac, 0xd9, 0x40, 0x50, 0x05, 0xbb, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10,
    0x00, 0x00, 0x03, 0x03, 0xc0, 0xf1, 0x83, 0x19, 0x60,
];

/// The switches of a scripted transcoder, and its orders.
#[derive(Debug)]
pub struct State {
    pub orders: Vec<Order>,
    pub events: VecDeque<Event>,
    /// Pictures that the transcoder is behind.
    pub delay: usize,
    /// It is dead: it takes orders and makes nothing.
    pub dead: bool,
    /// Transcoders that die as soon as they are started.
    pub stillborn: usize,
    /// It refuses orders.
    pub behind: bool,
    /// Rungs that are larger than the source.
    pub dropped: Vec<RungIndex>,
    /// The PPS of its records.
    pub pps: u8,
    /// Places that nothing can be decoded of before the first keyframe.
    pub skip_to_keyframe: bool,
    wanted: BTreeSet<RungIndex>,
    plan: Plan,
    held: VecDeque<CodedPicture>,
    rate: (u32, i64),
}

/// A scripted transcoder and its factory.
#[derive(Debug, Clone)]
pub struct Fake(Arc<Mutex<State>>);

impl Fake {
    pub fn new(delay: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            orders: Vec::new(),
            events: VecDeque::new(),
            delay,
            dead: false,
            stillborn: 0,
            behind: false,
            dropped: Vec::new(),
            pps: 0xc0,
            skip_to_keyframe: false,
            wanted: BTreeSet::new(),
            plan: Plan::default(),
            held: VecDeque::new(),
            rate: (48_000, 0),
        })))
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The transcoder dies with everything that it holds.
    pub fn die(&self) {
        self.state().die();
    }

    /// The number of transcoders that were started.
    pub fn starts(&self) -> usize {
        self.state().orders.iter().filter(|order| matches!(order, Order::Start(_))).count()
    }
}

impl EncoderFactory for Fake {
    fn open(&self, plan: &Plan) -> Box<dyn Encoders> {
        self.state().plan = plan.clone();
        Box::new(self.clone())
    }
}

impl State {
    fn die(&mut self) {
        self.held.clear();
        self.events.clear();
        self.dead = true;
        self.events.push_back(Event::Ended(Ended { cause: EndCause::Died, text: "signal 9".to_owned() }));
    }

    fn product(&mut self, product: Product) {
        self.events.push_back(Event::Product(product));
    }

    fn rungs(&self) -> Vec<RungIndex> {
        (0..self.plan.rungs.len() as u8).map(RungIndex).collect()
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Start(_) => {
                self.dead = false;
                self.held.clear();
                self.events.clear();
                self.wanted = self.rungs().into_iter().collect();
                if let Some(left) = self.stillborn.checked_sub(1) {
                    self.stillborn = left;
                    self.die();
                }
            }
            Order::VideoConfig(source) => self.configure(source.version),
            Order::Picture(picture) => {
                self.skip_to_keyframe &= !picture.keyframe;
                if self.skip_to_keyframe {
                    return;
                }
                for rung in self.rungs() {
                    if self.dropped.contains(&rung) || !self.wanted.contains(&rung) {
                        continue;
                    }
                    let Slot(number) = picture.slot;
                    let idr = picture.starts_segment || picture.independent;
                    let data = Bytes::from([&[0, 0, 0, 9, rung.0][..], &number.to_be_bytes()].concat());
                    let (slot, pts) = (picture.slot, picture.pts);
                    self.held.push_back(CodedPicture {
                        rung,
                        slot,
                        slots: 1,
                        pts,
                        idr,
                        repeats: false,
                        data,
                    });
                }
                self.release(self.delay * self.plan.rungs.len());
            }
            Order::AudioConfig(source) => {
                self.rate = (source.rate, i64::MIN);
                let record = AudioConfig::aac_lc(48_000, 2).unwrap().record;
                self.product(Product::AudioStarted(AudioStart { record, bitrate: 128_000 }));
            }
            Order::Sound(sound) => {
                let (rate, next) = self.rate;
                let at = sound.pts * 48_000 / i64::from(rate);
                let first = if next == i64::MIN { (at + 1023).div_euclid(1024) } else { next };
                for frame in first..=at.div_euclid(1024) {
                    let data = Bytes::copy_from_slice(&frame.to_be_bytes());
                    if sound.encode {
                        self.product(Product::Sound { pts: frame * 1024, data });
                    }
                }
                self.rate.1 = (at.div_euclid(1024) + 1).max(first);
            }
            Order::Encode(rungs) => self.wanted = rungs.into_iter().collect(),
            Order::Flush => {
                self.release(0);
                self.product(Product::Flushed);
            }
        }
    }

    fn configure(&mut self, version: u32) {
        self.release(0);
        let record = AvcConfig::build(SPS, &[0x68, 0xeb, 0xe3, 0xcb, 0x22, self.pps]).unwrap();
        for rung in self.rungs() {
            let (source_version, record) = (version, record.clone());
            let start = RungStart {
                rung,
                source_version,
                record,
                bitrate: 800_000,
                frame_rate_milli: 30_000,
                encoder: EncoderKind::X264,
            };
            let product = if self.dropped.contains(&rung) {
                Product::RungDropped { rung, source_version: version }
            } else {
                Product::RungStarted(start)
            };
            self.product(product);
        }
    }

    fn release(&mut self, keep: usize) {
        while self.held.len() > keep
            && let Some(picture) = self.held.pop_front()
        {
            self.product(Product::Picture(picture));
        }
    }
}

impl Encoders for Fake {
    fn send(&mut self, order: Order) -> Result<(), Behind> {
        let mut state = self.state();
        if state.behind && matches!(order, Order::Picture(_)) {
            return Err(Behind);
        }
        state.orders.push(order.clone());
        if !state.dead || matches!(order, Order::Start(_)) {
            state.take(order);
        }
        Ok(())
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<Event> {
        self.state().events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
