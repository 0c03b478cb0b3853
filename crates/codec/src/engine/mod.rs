//! The transcoder of one stream: it decodes the source once and encodes every rung of the ladder from the same pictures.
//!
//! [`order`] and [`product`] are the engine's two ends: orders go in, products come out. Both are plain data, so that the
//! engine can run in a process of its own, with a socket pair between it and the job.
//!
//! [`Engine`] runs one thread that decodes and scales, and one for each rung, which encodes. Pictures are shared between them.
//! Every queue is bounded; a full one makes the thread before it wait, and at last [`EngineInput::push`].

mod audio;
mod figures;
mod grid;
mod ladder;
pub mod order;
mod pictures;
pub mod places;
pub mod product;
mod rates;
mod run;
mod rung;
mod video;
mod watch;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use figures::Waiting;
use order::Order;
use product::Product;

/// Orders that wait for the decoder at most: a second of pictures at 60 a second. The decoder itself is rarely behind; its
/// queue is full when the encoders are.
const ORDERS: usize = 64;
/// Products that wait for their reader at most: two seconds of three rungs at 30 pictures a second, with sound.
const PRODUCTS: usize = 256;

/// A transcoder that runs. Dropping the input ends it, once the orders so far are done.
#[derive(Debug)]
pub struct Engine {
    input: EngineInput,
    output: EngineOutput,
}

/// The end of an engine that takes orders.
#[derive(Debug)]
pub struct EngineInput {
    orders: SyncSender<Order>,
    waiting: Arc<Waiting>,
}

/// The end of an engine that hands products out. As an iterator it waits for each product, and ends with the engine.
#[derive(Debug)]
pub struct EngineOutput(Receiver<Product>);

/// An order that an engine did not take.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The queue is full: the engine is behind.
    #[error("the transcoder's queue is full")]
    Full(Order),
    /// The engine has ended.
    #[error("the transcoder has ended")]
    Ended(Order),
}

/// The engine has not handed out a product in the time given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Absent {
    /// There was none in this time.
    #[error("the transcoder has no product yet")]
    Late,
    /// The engine has ended, and there will be none.
    #[error("the transcoder has ended")]
    Ended,
}

impl Engine {
    /// Starts an engine; its first order is [`Order::Start`].
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start() -> std::io::Result<Self> {
        let (orders, ordered) = sync_channel(ORDERS);
        let (products, made) = sync_channel(PRODUCTS);
        let waiting = Arc::new(Waiting::default());
        let shared = waiting.clone();
        thread::Builder::new()
            .name("decoder".to_owned())
            .spawn(move || run::run(&ordered, &products, &shared))?;
        Ok(Self { input: EngineInput { orders, waiting }, output: EngineOutput(made) })
    }

    /// Returns the two ends, for a thread each.
    pub fn split(self) -> (EngineInput, EngineOutput) {
        (self.input, self.output)
    }

    /// Gives an order, and waits while the queue is full. It stays full until the products are read.
    pub fn push(&self, order: Order) -> Result<(), PushError> {
        self.input.push(order)
    }

    /// Gives an order if the queue has room.
    pub fn try_push(&self, order: Order) -> Result<(), PushError> {
        self.input.try_push(order)
    }

    /// Returns the next product if there is one.
    pub fn poll(&self) -> Option<Product> {
        self.output.poll()
    }

    /// Waits for the next product.
    pub fn next_within(&self, time: Duration) -> Result<Product, Absent> {
        self.output.next_within(time)
    }
}

impl EngineInput {
    /// Gives an order, and waits while the queue is full. It stays full until the products are read.
    pub fn push(&self, order: Order) -> Result<(), PushError> {
        let ticks = order.media_ticks();
        self.waiting.comes(ticks);
        self.orders.send(order).map_err(|refused| PushError::Ended(refused.0))
    }

    /// Gives an order if the queue has room.
    pub fn try_push(&self, order: Order) -> Result<(), PushError> {
        let ticks = order.media_ticks();
        self.waiting.comes(ticks);
        self.orders.try_send(order).map_err(|refused| {
            self.waiting.goes(ticks);
            match refused {
                TrySendError::Full(order) => PushError::Full(order),
                TrySendError::Disconnected(order) => PushError::Ended(order),
            }
        })
    }
}

impl EngineOutput {
    /// Returns the next product if there is one.
    pub fn poll(&self) -> Option<Product> {
        self.0.try_recv().ok()
    }

    /// Waits for the next product.
    pub fn next_within(&self, time: Duration) -> Result<Product, Absent> {
        self.0.recv_timeout(time).map_err(|absent| match absent {
            RecvTimeoutError::Timeout => Absent::Late,
            RecvTimeoutError::Disconnected => Absent::Ended,
        })
    }
}

impl Iterator for EngineOutput {
    type Item = Product;

    fn next(&mut self) -> Option<Product> {
        self.0.recv().ok()
    }
}
