//! A running control node: starting its parts in order, its readiness, and its drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use millrace_node::start_report;
use millrace_runtime::http::HttpHandle;
use millrace_runtime::{ActorId, Condition, Policy, Process, Readiness, Supervisor};
use millrace_state::{SharedState, StateError};
use millrace_wire::ids::NodeId;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::audit::{AuditLog, AuditWriter};
use crate::auth::{Authenticator, Tokens};
use crate::context::{Deps, Services};
use crate::livestreams::Livestreams;
use crate::reconciler::{Reconciler, audience, purge, retention};
use crate::repo::Repo;
use crate::webhooks::{Configured, Sender, Webhooks};
use crate::{Settings, bus, http, webhooks};

/// Interval of the readiness probe of the state store.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// A state store that does not answer the probe within this time is not ready.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// The part of the process that readiness reports as degraded.
const STATE: &str = "state";

/// A draining control waits this long for its last lifecycle events to reach the journal.
const EVENTS_LIMIT: Duration = Duration::from_secs(5);

/// A control node that runs until it is drained.
pub struct Node {
    http: HttpHandle,
    events: http::EventClients,
    supervisor: Supervisor,
    services: Arc<Services>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("http", &self.http).finish_non_exhaustive()
    }
}

impl Node {
    /// Returns the address the API listens on.
    pub fn addr(&self) -> SocketAddr {
        self.http.addr()
    }

    /// Finishes open requests, stops the node's loops, gives up the leader's lease and flushes lifecycle events.
    pub async fn drain(self) {
        self.events.stop();
        self.http.stop().await;
        self.supervisor.stop().await;
        if !self.services.announcer.flush(EVENTS_LIMIT).await {
            warn!("lifecycle events not flushed in time; the next leader republishes them");
        }
        info!("control stopped");
    }
}

/// Starts a control node. Returns once it answers on the bus and over HTTP.
pub async fn start(settings: impl Into<Settings>, deps: Deps) -> anyhow::Result<Node> {
    let Settings { control: config, templates } = settings.into();
    anyhow::ensure!(
        !config.admin_token.expose().is_empty(),
        "control.admin_token is missing: set it, or admin_token_file, or MILLRACE_CONTROL_ADMIN_TOKEN"
    );
    let Process { metrics, readiness, drain, actors, .. } = &deps.process;
    readiness.follow("control.bus", deps.backends.bus.connected(), "not connected to the bus");
    let state_ready = readiness.condition("control.state", "not reached yet");
    let repo = Repo::open(deps.backends.state.clone(), &config.stream_key_secret)
        .await
        .context("control: opening the state")?;
    state_ready.hold();
    let services = Services::new(repo, templates, &deps);
    let checked_reconnect_window_s = config.key_check_reconnect_window_s;
    let services = Arc::new(Services { checked_reconnect_window_s, ..services });
    let (audit, writer) = AuditLog::new(&services, config.audit_entries);
    let audit = Arc::new(audit);
    let livestreams = Arc::new(Livestreams::new(services.clone(), audit.clone()));
    let tokens = Tokens::new(services.clone(), audit.clone());
    let authenticator =
        Authenticator::new(&config, services.clone()).context("control: tokens of the issuer")?;
    let sender = Sender::new(services.repo.sealer()?).context("control: the client of webhooks")?;
    let webhooks = Arc::new(Webhooks::new(services.clone(), audit, sender, Configured::new(&config)));

    let identity = deps.identity("control")?;
    let supervisor = Supervisor::start("control", metrics, drain, actors)?;
    spawn_audit_writer(&supervisor, writer).await?;
    spawn_bus_services(&supervisor, &livestreams).await?;
    spawn_reconciler(&supervisor, &services, &livestreams, &identity.node).await?;
    let delivering = webhooks.clone();
    supervisor
        .spawn(ActorId::new("webhooks", "control"), Policy::vital(), move |actor| {
            webhooks::run(delivering.clone(), actor)
        })
        .await?;
    start_report(&supervisor, &services.link, &deps.process, identity).await?;
    let (state, probed, readiness) = (deps.backends.state.clone(), services.clone(), readiness.clone());
    supervisor
        .spawn(ActorId::new("probe", "control"), Policy::vital(), move |actor| {
            let probe = Probe {
                state: state.clone(),
                ready: state_ready.clone(),
                readiness: readiness.clone(),
                services: probed.clone(),
            };
            probe.run(actor.stop)
        })
        .await?;
    let events = http::EventClients::default();
    let parts = http::Parts { livestreams, webhooks, events: events.clone(), tokens, authenticator };
    let http = http::serve(&config, parts, deps.process.observability()).context("control: HTTP")?;
    info!(addr = %http.addr(), "control serves the API and the dashboard");
    Ok(Node { http, events, supervisor, services })
}

async fn spawn_audit_writer(supervisor: &Supervisor, writer: AuditWriter) -> anyhow::Result<()> {
    let id = ActorId::new("audit", "control");
    supervisor.spawn(id, Policy::vital(), move |actor| writer.clone().run(actor)).await?;
    Ok(())
}

async fn spawn_bus_services(supervisor: &Supervisor, commands: &Arc<Livestreams>) -> anyhow::Result<()> {
    let id = |topic: &str| ActorId::new("bus_service", topic);
    let (claims, renewals, releases, refusals, seals) =
        (commands.clone(), commands.clone(), commands.clone(), commands.clone(), commands.clone());
    let aliases = commands.clone();
    let policy = Policy::vital();
    supervisor
        .spawn_ready(id("claim"), policy.clone(), move |actor| bus::serve_claims(claims.clone(), actor))
        .await?;
    supervisor
        .spawn_ready(id("renew"), policy.clone(), move |actor| bus::serve_renewals(renewals.clone(), actor))
        .await?;
    supervisor
        .spawn_ready(id("release"), policy.clone(), move |actor| bus::serve_releases(releases.clone(), actor))
        .await?;
    supervisor
        .spawn_ready(id("refused"), policy.clone(), move |actor| bus::serve_refusals(refusals.clone(), actor))
        .await?;
    supervisor
        .spawn_ready(id("alias"), policy.clone(), move |actor| bus::serve_aliases(aliases.clone(), actor))
        .await?;
    supervisor.spawn_ready(id("sealed"), policy, move |actor| bus::serve_seals(seals.clone(), actor)).await?;
    Ok(())
}

async fn spawn_reconciler(
    supervisor: &Supervisor,
    services: &Arc<Services>,
    livestreams: &Arc<Livestreams>,
    node: &NodeId,
) -> anyhow::Result<()> {
    let (commands, takeovers, node) = (livestreams.clone(), supervisor.clone(), node.clone());
    supervisor
        .spawn(ActorId::new("reconciler", "control"), Policy::vital(), move |actor| {
            Reconciler::new(commands.clone(), takeovers.clone(), node.clone()).run(actor)
        })
        .await?;
    let shared = services.clone();
    let id = ActorId::new("purge", "control");
    supervisor.spawn(id, Policy::vital(), move |actor| purge::run(shared.clone(), actor)).await?;
    let shared = services.clone();
    let id = ActorId::new("audience", "control");
    supervisor.spawn(id, Policy::vital(), move |actor| audience::run(shared.clone(), actor)).await?;
    let shared = services.clone();
    let id = ActorId::new("retention", "control");
    supervisor.spawn(id, Policy::vital(), move |actor| retention::run(shared.clone(), actor)).await?;
    Ok(())
}

/// Looks at the state store: readiness says whether it answers, and whether it takes changes.
struct Probe {
    state: SharedState,
    ready: Condition,
    readiness: Readiness,
    services: Arc<Services>,
}

impl Probe {
    async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        while !stop.is_cancelled() {
            self.look().await;
            tokio::select! {
                () = tokio::time::sleep(PROBE_EVERY) => {}
                () = stop.cancelled() => {}
            }
        }
        Ok(())
    }

    async fn look(&self) {
        let refusal = match tokio::time::timeout(PROBE_LIMIT, self.state.ready()).await {
            Ok(Ok(())) => {
                self.ready.hold();
                None
            }
            // Streams that run go on, so the node stays ready for what it can do.
            Ok(Err(error @ StateError::NotWritable { .. })) => {
                self.ready.hold();
                Some(error.to_string())
            }
            Ok(Err(error)) => return self.ready.fail(&error.to_string()),
            Err(_) => return self.ready.fail("does not answer"),
        };
        self.services.metrics.state_refuses_changes.set(i64::from(refusal.is_some()));
        let was = self.services.state_refusal.borrow().clone();
        if refusal != was {
            let words = refusal.as_ref().map(|reason| format!("degraded: {reason}"));
            self.readiness.set_degraded(STATE, words.as_deref());
            self.services.state_refusal.send_replace(refusal);
        }
    }
}
