//! Measures what the process of the encoders costs: the same clip in real time through an engine in this process and through
//! one in a child, in CPU seconds and in the time from the newest picture that went in to the one that comes out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "../tests/support/flv.rs"]
mod flv;

use std::future::poll_fn;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use flv::Flv;
use millrace_codec::engine::Engine;
use millrace_codec::engine::order::{EncoderKind, Order, Plan, RungIndex, RungPlan};
use millrace_codec::engine::product::Product;
use millrace_runtime::Metrics;
use millrace_testkit::clip::{Clip, ClipSpec};
use millrace_transcode::encoders::{
    ChildSettings, EncoderFactory, Encoders, Event, ProcessEncoders, run_if_ordered,
};

/// Time from one picture to the next.
const FRAME: Duration = Duration::from_nanos(1_000_000_000 / 30);
/// The rung whose pictures are timed: the last of the chain.
const TIMED: RungIndex = RungIndex(1);
/// The processor's ticks of a second in `/proc`.
const TICKS: f64 = 100.0;

/// One way from orders to products.
trait Way {
    fn send(&mut self, order: Order);
    /// Waits for a product until `end`.
    async fn next(&mut self, end: Instant) -> Option<Product>;
}

struct Within(Engine);

impl Way for Within {
    fn send(&mut self, order: Order) {
        self.0.push(order).unwrap();
    }

    async fn next(&mut self, end: Instant) -> Option<Product> {
        self.0.next_within(end.saturating_duration_since(Instant::now())).ok()
    }
}

struct Through(Box<dyn Encoders>);

impl Way for Through {
    fn send(&mut self, order: Order) {
        self.0.send(order).unwrap();
    }

    async fn next(&mut self, end: Instant) -> Option<Product> {
        match tokio::time::timeout_at(end.into(), poll_fn(|context| self.0.poll(context))).await.ok()? {
            Event::Product(product) => Some(product),
            other => panic!("{other:?}"),
        }
    }
}

fn plan() -> Plan {
    let rung = |height| RungPlan { height, bitrate: 800_000, fps: None, preset: None };
    Plan { rungs: vec![rung(360), rung(240)], encoders: vec![EncoderKind::X264], ..Plan::default() }
}

/// Sends the clip in real time; returns the delays in milliseconds, in order.
async fn run(way: &mut impl Way, clip: &Flv) -> Vec<f64> {
    way.send(Order::Start(plan()));
    way.send(Order::VideoConfig(clip.config.clone()));
    let (mut delays, start) = (Vec::new(), Instant::now());
    for (number, picture) in (1..).zip(&clip.pictures) {
        way.send(Order::Picture(picture.clone()));
        let sent = Instant::now();
        while let Some(product) = way.next(start + FRAME * number).await {
            if matches!(&product, Product::Picture(picture) if picture.rung == TIMED) {
                delays.push(sent.elapsed().as_secs_f64() * 1000.0);
            }
        }
    }
    way.send(Order::Flush);
    while !matches!(way.next(Instant::now() + Duration::from_secs(10)).await.unwrap(), Product::Flushed) {}
    delays.sort_by(f64::total_cmp);
    delays
}

/// Returns the CPU seconds of this process, and of its children that run.
fn cpu() -> (f64, f64) {
    let of = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
        (number(1) as u32, (number(11) + number(12)) / TICKS)
    };
    let own = std::process::id();
    let all = std::fs::read_dir("/proc").unwrap();
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let children: f64 = pids.map(of).filter(|(parent, _)| *parent == own).map(|(_, seconds)| seconds).sum();
    (of(own).1, children)
}

fn print(name: &str, delays: &[f64], before: (f64, f64), after: (f64, f64)) {
    let share = |percent: usize| delays[(delays.len() * percent / 100).min(delays.len() - 1)];
    let (own, child) = (after.0 - before.0, after.1 - before.1);
    println!(
        "{name}: {:.2} CPU s ({own:.2} here, {child:.2} in the child), {:.1} ms p50, {:.1} ms p95",
        own + child,
        share(50),
        share(95)
    );
}

async fn measure() {
    let spec = ClipSpec {
        frames: 300,
        width: 1280,
        height: 720,
        gop: 60,
        b_frames: 0,
        audio: false,
        ..ClipSpec::default()
    };
    let clip = Flv::read(&Clip::flv(spec).await.unwrap().path);
    for round in 1..=3 {
        let before = cpu();
        let delays = run(&mut Within(Engine::start().unwrap()), &clip).await;
        print(&format!("{round}, engine in this process"), &delays, before, cpu());
        let encoders = ProcessEncoders::with_metrics(ChildSettings::default(), &Metrics::new());
        let mut through = Through(encoders.open(&plan()));
        let before = cpu();
        let delays = run(&mut through, &clip).await;
        print(&format!("{round}, engine in the child"), &delays, before, cpu());
    }
}

fn main() -> ExitCode {
    if let Some(code) = run_if_ordered(std::env::args_os()) {
        return code;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(measure());
    ExitCode::SUCCESS
}
