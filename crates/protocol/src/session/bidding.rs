//! The job on offer: rounds of bids, the best of which is granted, and the backlog when nobody bids.

use millrace_wire::ids::NodeId;
use millrace_wire::message::job::Bid;

use crate::Millis;

/// Bids are awaited this long after the first one came: the nearest workers answer within it.
pub const BID_MS: u64 = 20;
/// Without a bid for this long the job goes to the backlog.
pub const NO_BID_MS: u64 = 300;
/// A job in the backlog is offered again at this interval, and at once when a worker frees up.
pub const REOFFER_MS: u64 = 2000;

/// How a round ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// This node's bid was the best.
    Won(NodeId),
    /// There was none.
    NoBid,
}

#[derive(Debug)]
struct Round {
    since: Millis,
    first_bid: Option<Millis>,
    best: Option<Bid>,
}

/// The rounds of one session, one open at a time.
#[derive(Debug)]
pub(super) struct Offers {
    round: u64,
    open: Option<Round>,
    offer_at: Millis,
}

impl Offers {
    pub(super) fn new(now: Millis) -> Self {
        Self { round: 0, open: None, offer_at: now }
    }
    /// Number of the newest round.
    pub(super) fn round(&self) -> u64 {
        self.round
    }
    /// Whether a new round may begin: the backlog is offered again in its own time.
    pub(super) fn is_due(&self, now: Millis) -> bool {
        self.open.is_none() && now >= self.offer_at
    }
    pub(super) fn open(&mut self, now: Millis) {
        self.round += 1;
        self.open = Some(Round { since: now, first_bid: None, best: None });
    }
    /// Nobody is wanted any more.
    pub(super) fn close(&mut self) {
        self.open = None;
    }
    pub(super) fn on_worker_free(&mut self, now: Millis) {
        if self.open.is_none() {
            self.offer_at = now;
        }
    }
    pub(super) fn on_bid(&mut self, now: Millis, bid: Bid) {
        let Some(round) = self.open.as_mut().filter(|_| self.round == bid.round) else { return };
        round.first_bid.get_or_insert(now);
        let rank = |b: &Bid| (b.continuing, b.free, b.node.clone());
        if round.best.as_ref().is_none_or(|best| rank(best) < rank(&bid)) {
            round.best = Some(bid);
        }
    }
    /// Ends the open round when it has waited long enough.
    pub(super) fn poll(&mut self, now: Millis) -> Option<Outcome> {
        let round = self.open.take_if(|round| round.due() <= now)?;
        if let Some(best) = round.best {
            return Some(Outcome::Won(best.node));
        }
        self.offer_at = now + REOFFER_MS;
        Some(Outcome::NoBid)
    }
    /// When to poll again.
    pub(super) fn next_timeout(&self) -> Option<Millis> {
        self.open.as_ref().map(Round::due)
    }
}

impl Round {
    fn due(&self) -> Millis {
        self.first_bid.map_or(self.since + NO_BID_MS, |at| at + BID_MS)
    }
}
