//! The transcoder's engine in the test's process, behind the interface of a job's encoders.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use millrace_codec::engine::order::{EncoderKind, Order, Plan};
use millrace_codec::engine::{Absent, Engine, PushError};
use millrace_transcode::encoders::{Behind, EncoderFactory, Encoders, EndCause, Ended, Event};

/// Runs one engine for each start.
#[derive(Debug, Clone, Default)]
pub struct EngineFactory(Arc<Mutex<Option<Ended>>>);

impl EngineFactory {
    /// Kills the transcoder that runs.
    pub fn kill(&self) {
        let text = "signal 9".to_owned();
        *self.0.lock().unwrap() = Some(Ended { cause: EndCause::Died, text });
    }
}

impl EncoderFactory for EngineFactory {
    fn open(&self, _: &Plan) -> Box<dyn Encoders> {
        Box::new(EngineEncoders { engine: None, events: VecDeque::new(), killed: self.0.clone() })
    }
}

#[derive(Debug)]
struct EngineEncoders {
    engine: Option<Engine>,
    events: VecDeque<Event>,
    killed: Arc<Mutex<Option<Ended>>>,
}

impl EngineEncoders {
    fn collect(&mut self, within: Duration) {
        let Some(engine) = &self.engine else { return };
        match engine.next_within(within) {
            Ok(product) => self.events.push_back(Event::Product(product)),
            Err(Absent::Late) => {}
            Err(Absent::Ended) => panic!("the engine ended"),
        }
    }
}

impl Encoders for EngineEncoders {
    /// Waits while the engine's queue is full, so that a test feeds it no faster than it encodes.
    fn send(&mut self, order: Order) -> Result<(), Behind> {
        let mut order = order;
        if let Order::Start(plan) = &mut order {
            plan.encoders = vec![EncoderKind::X264];
            plan.pictures = false;
            self.events.clear();
            self.engine = Some(Engine::start().unwrap());
        }
        loop {
            let Some(engine) = &self.engine else { return Ok(()) };
            order = match engine.try_push(order) {
                Ok(()) => return Ok(()),
                Err(PushError::Full(order)) => order,
                Err(PushError::Ended(_)) => panic!("the engine ended"),
            };
            self.collect(Duration::from_millis(5));
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<Event> {
        if let Some(ended) = self.killed.lock().unwrap().take() {
            (self.engine, self.events) = (None, VecDeque::new());
            return Poll::Ready(Event::Ended(ended));
        }
        self.collect(Duration::ZERO);
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
