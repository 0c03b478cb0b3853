//! The audit log in the state store: numbered entries of limited count, written by all controls.

use millrace_state::Tx;
use millrace_wire::state_keys;
use serde::{Deserialize, Serialize};

use super::{Repo, RepoError, json, read, retry};
use crate::domain::access::{AuditFilter, AuditRecord};

/// Old entries deleted with one write. It is more than a write adds, so that a lowered limit is reached after a while.
const TRIM: u64 = 64;

/// Entries read at once.
const PAGE: u64 = 500;

/// Entries looked at for one answer; after that it ends short, with a cursor.
const MAX_SCANNED: u64 = 20_000;

/// Entries are numbered as they are stored, and several controls tell their times: an entry may be older than the one before it by
/// this much.
const CLOCK_SKEW_MS: u64 = 60_000;

/// The numbers of the entries that are kept: from `first` up to, but without, `next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    first: u64,
    next: u64,
}

/// Entries of the audit log, the newest first.
pub(crate) struct AuditPage {
    pub(crate) entries: Vec<AuditRecord>,
    /// The number below which the next page begins; `None` on the last page.
    pub(crate) next: Option<u64>,
}

impl Repo {
    /// Appends entries, which get their numbers here, and deletes the oldest beyond the newest `keep`.
    pub(crate) async fn append_audit(&self, entries: &[AuditRecord], keep: u64) -> Result<(), RepoError> {
        retry!({
            let found = self.load::<Head>(state_keys::AUDIT_HEAD).await?;
            let version = found.as_ref().map(|found| found.version);
            let mut head = found.map_or(Head { first: 1, next: 1 }, |found| found.value);
            let mut tx = Tx::new().check(state_keys::AUDIT_HEAD, version);
            for entry in entries {
                let entry = AuditRecord { number: head.next, ..entry.clone() };
                tx = tx.put(state_keys::audit(entry.number), json(&entry));
                head.next += 1;
            }
            let kept_from = head.next.saturating_sub(keep).min(head.first + TRIM);
            for number in head.first..kept_from {
                tx = tx.delete(state_keys::audit(number));
            }
            head.first = head.first.max(kept_from);
            self.state().commit(tx.put(state_keys::AUDIT_HEAD, json(&head))).await?;
            Ok(())
        })
    }

    /// Returns up to `limit` entries below the number `before` that the filter wants, the newest first.
    pub(crate) async fn audit(
        &self,
        filter: &AuditFilter,
        before: Option<u64>,
        limit: usize,
    ) -> Result<AuditPage, RepoError> {
        let mut page = AuditPage { entries: Vec::new(), next: None };
        let Some(head) = self.load::<Head>(state_keys::AUDIT_HEAD).await? else { return Ok(page) };
        let head = head.value;
        let mut end = before.unwrap_or(head.next).min(head.next);
        let stop = end.saturating_sub(MAX_SCANNED);
        while end > head.first {
            let begin = end.saturating_sub(PAGE).max(head.first);
            // A scan begins after its key.
            let after = state_keys::audit(begin.saturating_sub(1));
            let count = usize::try_from(end - begin).unwrap_or(usize::MAX);
            let records = self.state().scan(state_keys::AUDIT, Some(&after), count).await?;
            for record in records.iter().rev() {
                let entry: AuditRecord = read(&record.key, &record.value)?;
                if entry.number >= end {
                    continue;
                }
                if page.entries.len() == limit {
                    page.next = Some(entry.number + 1);
                    return Ok(page);
                }
                if filter.since.is_some_and(|since| entry.at.0.saturating_add(CLOCK_SKEW_MS) < since.0) {
                    return Ok(page);
                }
                if filter.wants(&entry) {
                    page.entries.push(entry);
                }
            }
            end = begin;
            if end <= stop && end > head.first {
                page.next = Some(end);
                return Ok(page);
            }
        }
        Ok(page)
    }
}
