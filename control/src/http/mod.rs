//! The REST API under `/api/v1`, its description, and the dashboard.

mod analytics;
mod audit;
mod auth;
mod dto;
mod entity;
mod events;
mod keys;
mod nodes;
mod origin;
mod problem;
mod resource;
mod status;
mod streams;
mod templates;
#[cfg(test)]
mod tests;
mod tokens;
mod webhooks;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{Method, header};
use actix_web::middleware::{Next, from_fn};
use actix_web::web::{self, Data, JsonConfig, QueryConfig, ServiceConfig};
use actix_web::{App, HttpRequest, HttpResponse};
use millrace_runtime::PortOptions;
use millrace_runtime::http::{
    Deadlines, HttpHandle, Observability, ServerOptions, actors, admission, bind, listen as serve_on,
    routes as observability_routes,
};

use self::dto::Urls;
pub(crate) use self::events::EventClients;
use self::nodes::NodeDirectory;
use self::problem::Problem;
pub use self::resource::ApiRoute;
use self::resource::Resource;
use crate::Config;
use crate::auth::{Authenticator, Tokens};
use crate::domain::access::{Access, Scope};
use crate::livestreams::Livestreams;
use crate::webhooks::Webhooks;

/// Largest body of a request; the fields of a livestream fit many times.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Time for a whole request, from its head to the answer of the state store.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Time for which a stop waits for open requests.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// Connections at once: the API serves the tools of operators, not viewers.
const MAX_CONNECTIONS: usize = 1_024;

/// Connections from one address: an operator's dashboards and tools, all of them behind one proxy.
const MAX_CONNECTIONS_PER_ADDRESS: usize = 512;

/// The weight of the port's share of the process's descriptors.
const PORT_WEIGHT: usize = 1;

/// Worker threads: requests wait for the state store and compute little.
const WORKERS: usize = 1;

const DASHBOARD: &str = include_str!("../../web/index.html");
const OPENAPI: &str = include_str!("../../web/openapi.json");

/// The content security policy of the dashboard: inline script and style, requests to its own origin only, and pictures of the
/// edge, whose address is appended.
const DASHBOARD_CSP: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; img-src data:";

/// The parts that the handlers call.
pub(crate) struct Parts {
    pub(crate) livestreams: Arc<Livestreams>,
    pub(crate) webhooks: Arc<Webhooks>,
    pub(crate) events: EventClients,
    pub(crate) tokens: Tokens,
    pub(crate) authenticator: Authenticator,
}

/// Starts the HTTP server on the configured address.
pub(crate) fn serve(config: &Config, parts: Parts, observability: Observability) -> io::Result<HttpHandle> {
    let (listener, _) = bind(config.listen)?;
    let Parts { livestreams, webhooks, events, tokens, authenticator } = parts;
    let (auth, tokens, urls) = (Arc::new(authenticator), Arc::new(tokens), Urls::new(config));
    let proxies = config.trusted_proxies.clone();
    let services = livestreams.services();
    let nodes = Arc::new(NodeDirectory::new(services.link.clone(), services.clock.clone()));
    let metrics = observability.metrics.scope("control");
    let port = PortOptions::new("control", PORT_WEIGHT, MAX_CONNECTIONS_PER_ADDRESS);
    let port = observability.connections.port(port);
    let options = ServerOptions {
        workers: WORKERS,
        max_connections: port.per_worker(WORKERS, MAX_CONNECTIONS),
        shutdown: SHUTDOWN,
        admit: Some(admission(port, &metrics)),
        metrics,
        deadlines: Deadlines::default(),
    };
    serve_on(listener, options, move || {
        let (livestreams, webhooks, nodes) = (livestreams.clone(), webhooks.clone(), nodes.clone());
        let (auth, tokens) = (auth.clone(), tokens.clone());
        let (urls, proxies) = (urls.clone(), proxies.clone());
        let observability = observability.clone();
        App::new()
            .app_data(Data::from(livestreams))
            .app_data(Data::from(webhooks))
            .app_data(Data::new(events.clone()))
            .app_data(Data::from(nodes))
            .app_data(Data::from(auth))
            .app_data(Data::from(tokens))
            .app_data(Data::new(urls))
            .app_data(Data::new(proxies))
            .wrap(from_fn(limit_time))
            .configure(move |config| observability_routes(config, &observability))
            .configure(routes)
            .default_service(web::to(not_found))
    })
}

fn routes(config: &mut ServiceConfig) {
    let json =
        JsonConfig::default().limit(MAX_BODY_BYTES).error_handler(|error, _| Problem::json(&error).into());
    let query =
        QueryConfig::default().error_handler(|error, _| Problem::bad_request(&error.to_string()).into());
    config.app_data(json).app_data(query);
    for resource in open_resources() {
        resource.register(config);
    }
    operations_resource().register(config);
    config.service(
        web::scope("/api/v1")
            .configure(|config| api_resources().into_iter().for_each(|resource| resource.register(config)))
            .default_service(web::to(not_found)),
    );
}

/// Returns the resources that hold nothing of the cluster: the page of the dashboard, and the description of the API.
fn open_resources() -> [Resource; 2] {
    let both = |get, head| [(Method::GET, Access::Open, get), (Method::HEAD, Access::Open, head)];
    [
        Resource::new("/", both(web::to(dashboard), web::to(dashboard))),
        Resource::new("/api/openapi.json", both(web::to(openapi), web::to(openapi))),
    ]
}

/// Returns the one resource with a token outside of the API: the node's own actors.
fn operations_resource() -> Resource {
    Resource::new("/actors", [(Method::GET, Access::Needs(Scope::NodesRead), web::to(actors))])
}

/// Returns every route that a token or the setting of viewers' endpoints guards.
pub fn api_routes() -> Vec<ApiRoute> {
    let api = api_resources().into_iter().flat_map(|resource| resource.describe("/api/v1"));
    api.chain(operations_resource().describe("")).collect()
}

/// Returns every resource under `/api/v1`.
fn api_resources() -> Vec<Resource> {
    let resources = [
        streams::resources(),
        keys::resources(),
        analytics::resources(),
        templates::resources(),
        nodes::resources(),
        webhooks::resources(),
        events::resources(),
        tokens::resources(),
        audit::resources(),
    ];
    resources.into_iter().flatten().collect()
}

async fn not_found(request: HttpRequest) -> Result<HttpResponse, Problem> {
    Err(Problem::not_found(&format!("there is nothing at {}", request.path())))
}

async fn dashboard(request: HttpRequest, urls: Data<Urls>) -> HttpResponse {
    let edge = urls.edge(&origin::host(&request));
    // A host that is no plain address must not add rules of its own.
    let is_plain = edge.chars().all(|char| char.is_ascii_alphanumeric() || "-._~:/[]".contains(char));
    let policy = format!("{DASHBOARD_CSP} {}", if is_plain { edge_origin(&edge) } else { "" });
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, policy.trim_end()))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(DASHBOARD)
}

/// Returns scheme and host of a URL: a source of a policy with a path would allow that path alone.
fn edge_origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    url[host..].find('/').map_or(url, |end| &url[..host + end])
}

async fn openapi() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(OPENAPI)
}

/// Answers a request that takes longer than its time limit with 503.
async fn limit_time(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody + 'static>, actix_web::Error> {
    answer_within(REQUEST_TIMEOUT, request, next).await
}

/// Answers a request that takes longer than `limit` with 503. The request must not be cloned here: routing needs the only
/// handle to it.
async fn answer_within(
    limit: Duration,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody + 'static>, actix_web::Error> {
    match millrace_runtime::timeout(limit, next.call(request)).await {
        Ok(response) => response,
        Err(_) => Err(Problem::timeout().into()),
    }
}
