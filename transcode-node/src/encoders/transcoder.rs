//! The encoders of a job in child processes, one after the other.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use millrace_codec::engine::order::{EncoderKind, Order, Plan};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::Instrument;

use super::overload::Overload;
use super::process::{self, Program};
use super::sandbox::Limits;
use super::shared::Shared;
use super::{Behind, EncoderFactory, Encoders, Event};
use crate::codec_policy::CodecPolicy;
use crate::config::Config;
use crate::metrics::Metrics;

/// Orders that may wait for one child: more than the ledger has places, with their sound.
const MAX_QUEUED_ORDERS: usize = 16_384;
/// Events that may wait for the job: a second of eight rungs at 120 pictures a second.
const MAX_EVENTS: usize = 1_024;

/// The settings of child processes.
#[derive(Debug, Clone)]
pub struct ChildSettings {
    /// The program that is started: this process's own, which knows the child's command.
    pub program: PathBuf,
    /// Bytes of memory of one child.
    pub memory_bytes: u64,
    /// Nice value of a child.
    pub nice: i32,
    /// The encoders that may be opened, in the order of preference.
    pub encoders: Vec<EncoderKind>,
    /// True if nothing under the GPL may be used.
    pub lgpl_only: bool,
    /// Threads of one stream's encoders together; 0 lets them choose.
    pub threads: u32,
}

impl Default for ChildSettings {
    fn default() -> Self {
        Self {
            program: "/proc/self/exe".into(),
            memory_bytes: 2 << 30,
            nice: 5,
            encoders: vec![EncoderKind::X264],
            lgpl_only: false,
            threads: 0,
        }
    }
}

impl ChildSettings {
    /// Returns the settings of a node's children.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            encoders: config.codec_policy.encoders(&config.encoders),
            lgpl_only: config.codec_policy == CodecPolicy::Lgpl,
            threads: config.encoder_threads,
            memory_bytes: config.encoder_memory_bytes,
            nice: config.encoder_nice,
            ..Self::default()
        }
    }

    /// True if a child may open device files: an encoder in hardware is among those that may be opened.
    pub(crate) fn opens_devices(&self) -> bool {
        let in_hardware =
            |kind: &EncoderKind| matches!(kind, EncoderKind::Nvenc | EncoderKind::Vaapi | EncoderKind::Qsv);
        self.encoders.iter().any(in_hardware)
    }

    /// Returns the program with the limits of a child.
    pub(super) fn program(&self) -> Program {
        let devices = self.opens_devices();
        let limits = Limits { memory_bytes: self.memory_bytes, nice: self.nice, devices };
        Program { path: self.program.clone(), limits }
    }
}

/// Opens encoders in child processes.
#[derive(Debug)]
pub struct ProcessEncoders {
    settings: RwLock<ChildSettings>,
    metrics: Arc<Metrics>,
}

impl ProcessEncoders {
    /// Creates the factory of a node; nothing is started yet.
    pub(crate) fn new(settings: ChildSettings, metrics: Arc<Metrics>) -> Self {
        Self { settings: RwLock::new(settings), metrics }
    }

    /// Returns the settings of children that start from now on.
    pub(crate) fn settings(&self) -> ChildSettings {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Leaves encoders out that do not work here.
    pub(crate) fn use_only(&self, encoders: Vec<EncoderKind>) {
        self.settings.write().unwrap_or_else(PoisonError::into_inner).encoders = encoders;
    }

    /// Creates a factory whose metrics are collected in `registry`.
    pub fn with_metrics(settings: ChildSettings, registry: &millrace_runtime::Metrics) -> Self {
        Self::new(settings, Arc::new(Metrics::new(registry)))
    }
}

impl EncoderFactory for ProcessEncoders {
    fn open(&self, plan: &Plan) -> Box<dyn Encoders> {
        Box::new(JobEncoders {
            settings: self.settings(),
            metrics: self.metrics.clone(),
            overload: Overload::new(plan.rungs.len()),
            current: None,
        })
    }
}

/// The encoders of one job.
#[derive(Debug)]
struct JobEncoders {
    settings: ChildSettings,
    metrics: Arc<Metrics>,
    /// The decision of the transcoder before, for the next one.
    overload: Overload,
    current: Option<Transcoder>,
}

/// The handle of one child. The child is killed when it is dropped.
#[derive(Debug)]
struct Transcoder {
    orders: mpsc::Sender<Order>,
    events: mpsc::Receiver<Event>,
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Drop for Transcoder {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.close();
    }
}

impl JobEncoders {
    /// Starts a child for the plan, completed by the node's settings.
    fn start(&mut self, plan: &mut Plan) {
        self.stop();
        let ChildSettings { encoders, lgpl_only, threads, .. } = &self.settings;
        (plan.encoders, plan.lgpl_only, plan.threads) = (encoders.clone(), *lgpl_only, *threads);
        let (orders, queue) = mpsc::channel(MAX_QUEUED_ORDERS);
        let (sender, events) = mpsc::channel(MAX_EVENTS);
        let shared = Arc::new(Shared::new(plan, self.overload.clone(), self.metrics.clone()));
        let run = process::run(self.settings.program(), queue, sender, shared.clone());
        let task = tokio::spawn(run.in_current_span()).abort_handle();
        self.current = Some(Transcoder { orders, events, shared, task });
    }

    fn stop(&mut self) {
        if let Some(current) = self.current.take() {
            self.overload = current.shared.overload();
        }
    }
}

impl Encoders for JobEncoders {
    fn send(&mut self, mut order: Order) -> Result<(), Behind> {
        if let Order::Start(plan) = &mut order {
            self.start(plan);
        }
        let Some(current) = &self.current else { return Ok(()) };
        if current.shared.take(&order) && current.orders.try_send(order).is_ok() {
            return Ok(());
        }
        self.metrics.encoders_behind.inc();
        tracing::warn!(
            "the encoders are too far behind the source; the encoded rungs are out until they start anew"
        );
        self.stop();
        Err(Behind)
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        let Some(current) = &mut self.current else { return Poll::Pending };
        let Poll::Ready(Some(event)) = current.events.poll_recv(context) else { return Poll::Pending };
        if matches!(event, Event::Ended(_)) {
            self.stop();
        }
        Poll::Ready(event)
    }
}
