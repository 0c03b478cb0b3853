//! Encoders in a child process: what it may do, what it makes, and its ends.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "support/flv.rs"]
mod flv;

use std::future::poll_fn;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use flv::Flv;
use millrace_codec::engine::order::{EncoderKind, Order, Plan, RungIndex, RungPlan, Slot, SourcePicture};
use millrace_codec::engine::product::Product;
use millrace_runtime::Metrics;
use millrace_testkit::clip::{Clip, ClipSpec};
use millrace_transcode::encoders::{
    ChildSettings, EncoderFactory, Encoders, EndCause, Ended, Event, ProcessEncoders, probe,
};
use rustix::process::{Pid, Resource, Rlimit};

const LIMIT: Duration = Duration::from_mins(1);
/// Set in the process that a test starts to be the parent of an encoder and to be killed.
const PARENT: &str = "MILLRACE_TEST_ENCODER_PARENT";

/// The settings of one test's children. Their memory limit, which shows on their command line, tells them from those of other
/// tests in this process.
fn settings(test: u64) -> ChildSettings {
    let memory_bytes = (1 << 30) + test;
    let program = env!("CARGO_BIN_EXE_millrace-transcode").into();
    ChildSettings { program, memory_bytes, ..ChildSettings::default() }
}

fn plan() -> Plan {
    let rung = |height| RungPlan { height, bitrate: 400_000, fps: None, preset: None };
    Plan { rungs: vec![rung(180), rung(90)], ..Plan::default() }
}

async fn source() -> Flv {
    let spec = ClipSpec { frames: 60, audio: false, ..ClipSpec::default() };
    Flv::read(&Clip::flv(spec).await.unwrap().path)
}

fn open(test: u64, metrics: &Metrics) -> Box<dyn Encoders> {
    ProcessEncoders::with_metrics(settings(test), metrics).open(&plan())
}

/// Waits for an event that `choose` takes; the others are passed over.
async fn wait<T>(encoders: &mut dyn Encoders, mut choose: impl FnMut(Event) -> Option<T>) -> T {
    let chosen = async {
        loop {
            let event = poll_fn(|context| encoders.poll(context)).await;
            if let Some(chosen) = choose(event) {
                return chosen;
            }
        }
    };
    tokio::time::timeout(LIMIT, chosen).await.unwrap()
}

/// Waits for the end of the transcoder, past its products.
async fn end(encoders: &mut dyn Encoders) -> Ended {
    let ended = |event| match event {
        Event::Ended(ended) => Some(ended),
        _ => None,
    };
    wait(encoders, ended).await
}

fn start(encoders: &mut dyn Encoders, source: &Flv) {
    encoders.send(Order::Start(plan())).unwrap();
    encoders.send(Order::VideoConfig(source.config.clone())).unwrap();
}

fn send(encoders: &mut dyn Encoders, pictures: &[SourcePicture]) {
    for picture in pictures {
        encoders.send(Order::Picture(picture.clone())).unwrap();
    }
}

/// Waits for the first picture, and returns the process of the test that made it.
async fn first_picture(test: u64, encoders: &mut dyn Encoders) -> u32 {
    let picture = |event| match event {
        Event::Product(Product::Picture(_)) => Some(()),
        Event::Ended(ended) => panic!("{ended}"),
        _ => None,
    };
    wait(encoders, picture).await;
    child_of(std::process::id(), test).unwrap()
}

/// The process of a test's encoders that `parent` has started.
fn child_of(parent: u32, test: u64) -> Option<u32> {
    let pid = |entry: std::io::Result<std::fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    let mut all = std::fs::read_dir("/proc").unwrap().filter_map(pid);
    all.find(|pid| is_encoder_of(*pid, parent, test))
}

fn is_encoder_of(pid: u32, parent: u32, test: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect::<Vec<_>>();
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let is_child = after_name.get(1) == Some(&parent.to_string().as_str()) && after_name[0] != "Z";
    let limit = settings(test).memory_bytes.to_string();
    is_child && command.split(|byte| *byte == 0).any(|argument| argument == limit.as_bytes())
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

/// True once the filter of system calls is in force, which is the last of the child's preparations.
fn is_confined(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.split_whitespace().eq(["Seccomp_filters:", "3"]))
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

async fn eventually(mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < LIMIT, "the condition did not come true");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn child_cannot_open_a_file_or_a_socket_or_start_a_process_and_has_no_environment() {
    let report = probe(&settings(1)).await.unwrap();
    assert!(report.isolation.holds(false), "{report:?}");
}

#[tokio::test]
async fn trial_tells_the_encoders_that_work_and_the_speed_of_the_first() {
    // Nothing in this machine answers to NVENC, or the test says nothing about falling back.
    let encoders = vec![EncoderKind::Nvenc, EncoderKind::X264, EncoderKind::Openh264];
    let settings = ChildSettings { encoders: encoders.clone(), ..settings(9) };
    let report = probe(&settings).await.unwrap();
    assert_eq!(report.encoders.iter().map(|trial| trial.kind).collect::<Vec<_>>(), encoders);
    let usable = report.usable();
    assert!(usable.ends_with(&[EncoderKind::X264, EncoderKind::Openh264]), "{report:?}");
    assert!(report.pixels_per_second > Some(1_000_000), "{report:?}");
    assert!(report.isolation.holds(true), "device files are all that it may open: {report:?}");
}

#[tokio::test]
async fn child_gets_no_descriptor_that_its_parent_was_started_with() {
    let source = source().await;
    let (mut reader, writer) = std::io::pipe().unwrap();
    // A copy without the flag that Rust sets, as a descriptor is that this process was started with.
    let inherited = rustix::io::dup(&writer).unwrap();
    let mut encoders = open(10, &Metrics::new());
    start(&mut *encoders, &source);
    send(&mut *encoders, &source.pictures);
    let child = first_picture(10, &mut *encoders).await;
    drop((writer, inherited));
    let end = tokio::task::spawn_blocking(move || reader.read(&mut [0]).unwrap());
    assert_eq!(tokio::time::timeout(LIMIT, end).await.unwrap().unwrap(), 0, "nobody else holds the pipe");
    assert!(is_alive(child));
}

#[tokio::test]
async fn child_started_by_hand_reads_nothing() {
    let run = |environment: bool, stdin: Stdio| {
        let mut command = Command::new(settings(2).program);
        if !environment {
            command.env_clear();
        }
        let output = command.args(["encoder", "1000000000", "5"]).stdin(stdin).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(run(false, Stdio::null()).contains("no socket"));
    let (_ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    assert!(run(true, std::os::fd::OwnedFd::from(theirs).into()).contains("environment is not empty"));
}

#[tokio::test]
async fn child_encodes_every_place_in_every_rung_and_answers_the_flush() {
    let source = source().await;
    let metrics = Metrics::new();
    let mut encoders = open(3, &metrics);
    start(&mut *encoders, &source);
    send(&mut *encoders, &source.pictures);
    encoders.send(Order::Flush).unwrap();
    let (mut started, mut slots) = (Vec::new(), [Vec::new(), Vec::new()]);
    let until_flushed = |event| {
        match event {
            Event::Product(Product::RungStarted(start)) => started.push(start.rung),
            Event::Product(Product::Picture(picture)) => {
                slots[usize::from(picture.rung.0)].push(picture.slot.0);
            }
            Event::Product(Product::Flushed) => return Some(()),
            Event::Product(_) => {}
            other => panic!("{other:?}"),
        }
        None
    };
    wait(&mut *encoders, until_flushed).await;
    started.sort_unstable();
    assert_eq!(started, [RungIndex(0), RungIndex(1)]);
    let all: Vec<u64> = (0..60).collect();
    assert_eq!(slots, [all.clone(), all]);
    assert!(metrics.render().contains("millrace_transcode_encoder_processes 1"));
    drop(encoders);
    eventually(|| metrics.render().contains("millrace_transcode_encoder_processes 0")).await;
}

#[tokio::test]
async fn killed_child_is_reported_and_the_next_one_encodes() {
    let source = source().await;
    let metrics = Metrics::new();
    let mut encoders = open(4, &metrics);
    for round in 1..=2 {
        start(&mut *encoders, &source);
        send(&mut *encoders, &source.pictures);
        let pid = first_picture(4, &mut *encoders).await;
        signal(pid, "-ABRT");
        let ended = end(&mut *encoders).await;
        assert_eq!(ended.cause, EndCause::Died);
        assert!(ended.text.contains("SIGABRT"), "{ended}");
        let counted = format!("millrace_transcode_encoder_ends_total{{cause=\"died\"}} {round}");
        assert!(metrics.render().contains(&counted), "{}", metrics.render());
    }
    assert_eq!(encoders.send(Order::Flush), Ok(()), "nothing takes orders until the next start");
}

#[tokio::test]
async fn hanging_child_is_killed_and_reported() {
    let source = source().await;
    let mut encoders = open(5, &Metrics::new());
    start(&mut *encoders, &source);
    send(&mut *encoders, &source.pictures);
    let pid = first_picture(5, &mut *encoders).await;
    signal(pid, "-STOP");
    encoders.send(Order::Flush).unwrap();
    let ended = end(&mut *encoders).await;
    assert_eq!(ended.cause, EndCause::Hung, "{ended}");
    eventually(|| !is_alive(pid)).await;
}

#[tokio::test]
async fn child_that_passes_its_memory_limit_ends_with_the_reason_and_the_next_one_encodes() {
    let source = source().await;
    let spec = ClipSpec { frames: 30, width: 1920, height: 1080, audio: false, ..ClipSpec::default() };
    let large = Flv::read(&Clip::flv(spec).await.unwrap().path);
    let metrics = Metrics::new();
    let mut encoders = open(11, &metrics);
    start(&mut *encoders, &source);
    send(&mut *encoders, &source.pictures);
    let pid = first_picture(11, &mut *encoders).await;
    // It has what it needs; the larger pictures that follow need more.
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    let limit = Rlimit { current: Some(kib << 10), maximum: Some(kib << 10) };
    rustix::process::prlimit(Pid::from_raw(pid as i32), Resource::Data, limit).unwrap();
    encoders.send(Order::VideoConfig(large.config.clone())).unwrap();
    for (slot, picture) in (60..).zip(&large.pictures) {
        let picture = SourcePicture { slot: Slot(slot), ..picture.clone() };
        encoders.send(Order::Picture(picture)).unwrap();
    }
    let ended = end(&mut *encoders).await;
    assert_eq!(ended.cause, EndCause::Died, "{ended}");
    assert!(ended.text.contains("SIGABRT") && ended.text.contains("memory"), "{ended}");
    start(&mut *encoders, &large);
    send(&mut *encoders, &large.pictures);
    first_picture(11, &mut *encoders).await;
}

#[tokio::test]
async fn child_without_memory_ends_and_is_reported() {
    let source = source().await;
    let small = ChildSettings { memory_bytes: 12 << 20, ..settings(6) };
    let mut encoders = ProcessEncoders::with_metrics(small, &Metrics::new()).open(&plan());
    start(&mut *encoders, &source);
    send(&mut *encoders, &source.pictures);
    let ended = end(&mut *encoders).await;
    assert_eq!(ended.cause, EndCause::Died, "{ended}");
}

#[tokio::test]
async fn program_that_does_not_start_is_reported() {
    let absent = ChildSettings { program: PathBuf::from("/nonexistent"), ..settings(7) };
    let mut encoders = ProcessEncoders::with_metrics(absent, &Metrics::new()).open(&plan());
    encoders.send(Order::Start(plan())).unwrap();
    assert_eq!(end(&mut *encoders).await.cause, EndCause::NotStarted);
}

#[tokio::test]
async fn child_dies_with_its_parent_even_if_it_hangs() {
    if std::env::var_os(PARENT).is_some() {
        // The process that the test below has started: it lives until it is killed.
        let source = source().await;
        let mut encoders = open(8, &Metrics::new());
        start(&mut *encoders, &source);
        send(&mut *encoders, &source.pictures);
        first_picture(8, &mut *encoders).await;
        std::future::pending::<()>().await;
    }
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_dies_with_its_parent_even_if_it_hangs"])
        .env(PARENT, "1")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut found = None;
    eventually(|| {
        found = child_of(parent.id(), 8);
        found.is_some_and(is_confined)
    })
    .await;
    let child = found.unwrap();
    // It does not read its socket any more: only the death signal ends it.
    signal(child, "-STOP");
    parent.kill().unwrap();
    parent.wait().unwrap();
    eventually(|| !is_alive(child)).await;
}
