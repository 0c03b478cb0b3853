//! The changes of a claim that time alone makes due.

use millrace_wire::ids::{Msn, UnixMillis};
use millrace_wire::message::control::AwayPolicy;

use super::{AUTHOR_LOOK_MS, Claim, END_ANNOUNCED_MS, END_REPORTED_MS, Presence};

impl Claim {
    /// Returns the highest number the log writer may use for a GAP segment: one for each target duration of absence.
    fn gaps_at(&self, now: UnixMillis, since: UnixMillis) -> Option<Msn> {
        if self.settings.away == AwayPolicy::Hold {
            return None;
        }
        let target_ms = u64::from(self.settings.target_duration.max(1)) * 1_000;
        // Control's own epoch has sealed above the absence so far.
        let gaps = now.0.saturating_sub(since.max(self.granted_at).0) / target_ms;
        let base = self.sealed_msn.unwrap_or(self.open_msn.next());
        (gaps > 0).then(|| base.plus(gaps)).max(self.gaps_through)
    }
}

/// A change of a claim that time alone makes due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// No change is due now.
    Nothing,
    /// The lease lapsed: the publisher counts as away.
    Lapsed(Box<Claim>),
    /// The log writer may use more numbers for GAP segments.
    Gaps(Box<Claim>),
    /// The publisher vanished before any media came, and no log writer has seen any: the claim is deleted, and the livestream
    /// stays as it was.
    Withdraw,
    /// The reconnect window passed: the broadcast is over.
    Over,
    /// The publisher is away or the broadcast is over, and the log may have no live writer, or control writes it: a takeover
    /// has to be tried.
    Close,
    /// Every reader knows the end: the claim can be deleted.
    Forget,
}

/// Returns the change that is due for a claim at `now`.
pub fn due(now: UnixMillis, claim: &Claim) -> Due {
    match claim.presence {
        Presence::Publishing if claim.is_held(now) => Due::Nothing,
        Presence::Publishing => Due::Lapsed(Box::new(claim.away(now, false))),
        Presence::Away { since } if !claim.begun => {
            // Media may have reached a worker though control did not hear of them: its report would begin the broadcast.
            let is_settled = now.0.saturating_sub(since.0) >= END_REPORTED_MS;
            if is_settled { Due::Withdraw } else { Due::Nothing }
        }
        Presence::Away { since } => {
            if now.0.saturating_sub(since.0) >= u64::from(claim.settings.reconnect_window) * 1_000 {
                return Due::Over;
            }
            let gaps_through = claim.gaps_at(now, since);
            if gaps_through == claim.gaps_through {
                let look = claim.by_control || now.0.saturating_sub(since.0) >= AUTHOR_LOOK_MS;
                return if look { Due::Close } else { Due::Nothing };
            }
            Due::Gaps(Box::new(Claim { gaps_through, events: Vec::new(), ..claim.clone() }))
        }
        Presence::Ended { confirmed: true, .. } => Due::Forget,
        Presence::Ended { .. } => match claim.over_for_ms(now) {
            over if claim.by_control && over >= END_ANNOUNCED_MS => Due::Forget,
            over if claim.by_control || over >= END_REPORTED_MS => Due::Close,
            _ => Due::Nothing,
        },
    }
}
