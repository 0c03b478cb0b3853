//! Bidding for the session's job: rounds of offer and bids, the best of which wins, and the backlog when there is none.

use millrace_wire::ids::NodeId;
use millrace_wire::message::job::Bid;

use crate::time::Millis;

/// Bids are awaited this long after the first one came: the nearest workers answer within it.
pub const BID_MS: u64 = 20;
/// Time without a bid after which the job goes to the backlog.
pub const NO_BID_MS: u64 = 300;
/// A job in the backlog is offered again at this interval, and at once when a worker has free capacity again.
pub const REOFFER_MS: u64 = 2000;

/// The result of a round.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The bid of this node was the best, for a job of this cost.
    Won(NodeId, u64),
    /// No worker has bid in time for a job of this cost.
    NoBid(u64),
}

#[derive(Debug)]
struct OpenRound {
    since: Millis,
    /// The cost units that the job was offered for.
    cost: u64,
    first_bid: Option<Millis>,
    best: Option<Bid>,
}

impl OpenRound {
    fn due(&self) -> Millis {
        self.first_bid.map_or(self.since + NO_BID_MS, |at| at + BID_MS)
    }
}

/// The rounds of one session's job, one open at a time.
#[derive(Debug)]
pub(super) struct BidRound {
    number: u64,
    open: Option<OpenRound>,
    offer_at: Millis,
}

impl BidRound {
    /// Creates the rounds of a job that may be offered at once.
    pub(super) fn new(now: Millis) -> Self {
        Self { number: 0, open: None, offer_at: now }
    }

    /// Returns the number of the newest round.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// True if a new round may be opened: none is open, and the backlog's interval is over.
    pub(super) fn is_due(&self, now: Millis) -> bool {
        self.open.is_none() && now >= self.offer_at
    }

    /// Opens a new round for a job of `cost` and forgets the bids of the last.
    pub(super) fn open(&mut self, now: Millis, cost: u64) {
        self.number += 1;
        self.open = Some(OpenRound { since: now, cost, first_bid: None, best: None });
    }

    /// Closes the open round without a winner: no worker is needed any more.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    /// Lets the next round be opened at once: a worker has free capacity again.
    pub(super) fn on_worker_free(&mut self, now: Millis) {
        if self.open.is_none() {
            self.offer_at = now;
        }
    }

    /// Takes a bid; one of another round is ignored. A worker that already works on the stream is preferred, then the one
    /// with the most free cost units.
    pub(super) fn on_bid(&mut self, now: Millis, bid: Bid) {
        let Some(round) = self.open.as_mut().filter(|_| self.number == bid.round) else { return };
        round.first_bid.get_or_insert(now);
        let preference = |bid: &Bid| (bid.continuing, bid.free, bid.node.clone());
        if round.best.as_ref().is_none_or(|best| preference(best) < preference(&bid)) {
            round.best = Some(bid);
        }
    }

    /// Ends the open round if it has waited long enough, and returns its outcome.
    pub(super) fn poll(&mut self, now: Millis) -> Option<Outcome> {
        let round = self.open.take_if(|round| round.due() <= now)?;
        if let Some(best) = round.best {
            return Some(Outcome::Won(best.node, round.cost));
        }
        self.offer_at = now + REOFFER_MS;
        Some(Outcome::NoBid(round.cost))
    }

    /// Returns when to poll again; `None` if no round is open.
    pub(super) fn next_timeout(&self) -> Option<Millis> {
        self.open.as_ref().map(OpenRound::due)
    }
}

/// A worker that won the round for a draining primary's job, and waits until that one has quiesced.
#[derive(Debug)]
pub(super) struct Successor {
    /// The worker that won the round.
    pub(super) node: NodeId,
    /// The cost units that it has bid for.
    pub(super) cost: u64,
    /// When it is granted the job even if the primary has not quiesced.
    pub(super) grant_at: Millis,
}
