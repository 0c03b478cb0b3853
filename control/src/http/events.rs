//! The event stream `GET /api/v1/events`: lifecycle events as Server-Sent Events (HTML Standard, §9.2), out of the journal.
//!
//! Each client reads the journal at its own pace, one event when its socket has room for it, so a slow one costs no memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::http::{Method, header};
use actix_web::web::{self, Bytes, Data, Query};
use actix_web::{HttpRequest, HttpResponse};
use millrace_bus::{BusError, JournalRecord};
use millrace_link::Link;
use millrace_wire::ids::StreamId;
use millrace_wire::message::control::{LifecycleEvent, LifecycleKind};
use millrace_wire::{topic, topics};
use serde::Deserialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::problem::Problem;
use super::resource::Resource;
use crate::audit::Caller;
use crate::domain::access::{Access, Owner, Role, Scope};
use crate::domain::event::PublicEvent;
use crate::events::journal;
use crate::livestreams::Livestreams;
use crate::repo::RepoError;

/// Clients of the event stream at one control: programs of operators and owners, not viewers.
const MAX_CLIENTS: usize = 256;

/// Interval of comments to a client without events: below the 60 s after which load balancers cut silent connections.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Interval at which a client that has read everything looks at the journal again.
const LOOK: Duration = Duration::from_millis(500);

/// Failures of the journal in a row after which a client is told to come again: JetStream elects a leader within 5 s.
const MAX_FAILURES: u32 = 20;

/// Events passed over between two writes to the client, so that one who wants few of many events learns his place.
const MAX_PASSED: usize = 200;

/// The clients of this control's event stream.
#[derive(Debug, Clone, Default)]
pub(crate) struct EventClients {
    count: Arc<AtomicUsize>,
    stop: CancellationToken,
}

/// The place of one client; gives it back when it is dropped.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl EventClients {
    fn enter(&self) -> Option<Place> {
        let enters = |count: usize| (count < MAX_CLIENTS).then_some(count + 1);
        self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enters).ok()?;
        Some(Place(self.count.clone()))
    }

    /// Ends the streams of all clients, who come again to another control.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }
}

/// Returns the resource of the event stream, relative to `/api/v1`.
pub(super) fn resources() -> Vec<Resource> {
    vec![Resource::new("/events", [(Method::GET, Access::Needs(Scope::EventsRead), web::to(events))])]
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    stream: Option<StreamId>,
    /// Types of events, with commas between them.
    types: Option<String>,
    /// The id of the last event, for clients that cannot set the header.
    last_event_id: Option<String>,
}

/// The events that a client gets.
#[derive(Debug, Clone)]
struct Wanted {
    stream: Option<StreamId>,
    types: Vec<String>,
    owner: Option<Owner>,
}

impl Wanted {
    /// Returns the pattern of the subjects that the client's events are on.
    fn filter(&self) -> String {
        let [all] = topics::EVENTS_SUBJECTS;
        self.stream.map_or_else(|| all.to_owned(), |stream| topics::events(stream).into_subject())
    }

    fn takes(&self, event: &LifecycleEvent) -> bool {
        let is_owned = self.owner.as_ref().is_none_or(|owner| event.owner.as_deref() == Some(owner.as_str()));
        is_owned && (self.types.is_empty() || self.types.iter().any(|kind| kind == event.kind.type_name()))
    }
}

async fn events(
    request: HttpRequest,
    caller: Caller,
    livestreams: Data<Livestreams>,
    clients: Data<EventClients>,
    query: Query<EventsQuery>,
) -> Result<HttpResponse, Problem> {
    let services = livestreams.services();
    let owner = match caller.identity() {
        Some(identity) if identity.role >= Role::Operator => None,
        Some(identity) => Some(identity.owner.clone().ok_or(RepoError::NotFound)?),
        None => return Err(RepoError::NotFound.into()),
    };
    if let Some(stream) = query.stream
        && owner.is_some()
        && !caller.owns(services.repo.stream(stream).await?.value.owner.as_ref())
    {
        return Err(RepoError::NotFound.into());
    }
    let types: Vec<String> =
        query.types.iter().flat_map(|types| types.split(',')).map(|kind| kind.trim().to_owned()).collect();
    if let Some(unknown) = types.iter().find(|kind| !LifecycleKind::TYPES.contains(&kind.as_str())) {
        return Err(Problem::bad_request(&format!("types: {unknown:?} is no type of event")));
    }
    let place = clients.enter().ok_or_else(|| {
        Problem::unavailable(&format!("{MAX_CLIENTS} clients read the events already; try again later"))
    })?;
    let header = request.headers().get("last-event-id").and_then(|value| value.to_str().ok());
    let last = header.or(query.last_event_id.as_deref()).map(str::to_owned);
    let wanted = Wanted { stream: query.stream, types, owner };
    let feed = Feed {
        link: services.link.clone(),
        filter: wanted.filter(),
        wanted,
        stop: clients.stop.clone(),
        state: State::Begin(last),
        _place: place,
    };
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        // Proxies of the kind of nginx would keep events back.
        .insert_header(("x-accel-buffering", "no"))
        .streaming(futures::stream::unfold(feed, |mut feed| async move {
            let text = feed.next().await?;
            Some((Ok::<_, actix_web::Error>(Bytes::from(text)), feed))
        })))
}

enum State {
    /// The stream begins behind this id, or with the next event.
    Begin(Option<String>),
    /// The next event is at this position or behind it.
    At(u64),
    Ended,
}

/// The events of one client.
struct Feed {
    link: Link,
    filter: String,
    wanted: Wanted,
    stop: CancellationToken,
    state: State,
    _place: Place,
}

/// The text of an event that is no lifecycle event.
fn notice(name: &str, text: &str) -> String {
    format!("event: {name}\ndata: {}\n\n", serde_json::json!({ "text": text }))
}

/// The id of an event in the stream: its position in the journal, and its own id, by which a journal that began anew is
/// told.
fn event_id(record: &JournalRecord, event: &LifecycleEvent) -> String {
    format!("{}.{}", record.position, event.id())
}

impl Feed {
    /// Returns the next piece of the stream; `None` ends it.
    async fn next(&mut self) -> Option<String> {
        let beat = Instant::now() + HEARTBEAT;
        let mut failures = 0;
        loop {
            if self.stop.is_cancelled() && !matches!(self.state, State::Ended) {
                self.state = State::Ended;
                return Some(notice("closed", "this control stops; connect again"));
            }
            match self.step().await {
                Ok(Some(text)) => return Some(text),
                Ok(None) if matches!(self.state, State::Ended) => return None,
                Ok(None) => failures = 0,
                Err(error) => {
                    debug!(%error, "journal of events not read for a client; will retry");
                    failures += 1;
                    if failures >= MAX_FAILURES {
                        self.state = State::Ended;
                        return Some(notice(
                            "closed",
                            "the journal of events does not answer; connect again",
                        ));
                    }
                }
            }
            if Instant::now() >= beat {
                return Some(":\n\n".to_owned());
            }
            let _ = tokio::time::timeout(LOOK, self.stop.cancelled()).await;
        }
    }

    /// Makes one step; `None` if there is nothing to tell now.
    async fn step(&mut self) -> Result<Option<String>, BusError> {
        match &self.state {
            State::Ended => Ok(None),
            State::Begin(last) => {
                let last = last.clone();
                self.begin(last.as_deref()).await.map(Some)
            }
            State::At(position) => self.read(*position).await,
        }
    }

    /// Finds the place at which the stream begins.
    async fn begin(&mut self, last: Option<&str>) -> Result<String, BusError> {
        let bus = self.link.bus();
        bus.journal_declare(&journal()).await?;
        let Some(last) = last else {
            self.state = State::At(bus.journal_end(topics::EVENTS_STREAM).await? + 1);
            return Ok("retry: 1000\n\n".to_owned());
        };
        let position = last.split('.').next().and_then(|position| position.parse::<u64>().ok());
        let [all] = topics::EVENTS_SUBJECTS;
        if let Some(position) = position {
            let found = bus.journal_read(topics::EVENTS_STREAM, all, position).await?;
            let is_same = found.is_some_and(|record| {
                let event = topic::decode::<LifecycleEvent>(&record.payload);
                event.is_ok_and(|event| event_id(&record, &event) == last)
            });
            if is_same {
                self.state = State::At(position + 1);
                return Ok("retry: 1000\n\n".to_owned());
            }
        }
        self.state = State::At(0);
        Ok(notice(
            "reset",
            "the last event is not kept any more; events may be missing, and all that are kept follow",
        ))
    }

    async fn read(&mut self, mut position: u64) -> Result<Option<String>, BusError> {
        for _ in 0..MAX_PASSED {
            let bus = self.link.bus();
            let Some(record) = bus.journal_read(topics::EVENTS_STREAM, &self.filter, position).await? else {
                return Ok(None);
            };
            position = record.position + 1;
            self.state = State::At(position);
            // Events of builds that did not number them have no id.
            let event =
                topic::decode::<LifecycleEvent>(&record.payload).ok().filter(|event| event.sequence > 0);
            if let Some(event) = event.filter(|event| self.wanted.takes(event)) {
                let (id, shown) = (event_id(&record, &event), PublicEvent::new(&event));
                let text = format!("id: {id}\nevent: {}\ndata: {}\n\n", shown.type_name(), shown.to_json());
                return Ok(Some(text));
            }
        }
        Ok(Some(":\n\n".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enter_gives_256_clients_a_place_and_another_one_once_a_client_has_left() {
        let clients = EventClients::default();
        let mut places: Vec<Place> = (0..MAX_CLIENTS).map(|_| clients.enter().unwrap()).collect();
        assert!(clients.enter().is_none());
        drop(places.pop());
        places.push(clients.enter().unwrap());
        assert!(clients.enter().is_none());
    }
}
