//! Authorization of API requests by a bearer token (RFC 6750 §2.1): the guard of each route, and the caller that handlers get.

use std::future::{Ready, ready};
use std::sync::Arc;

use actix_web::body::BoxBody;
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::middleware::{Next, from_fn};
use actix_web::web::Data;
use actix_web::{FromRequest, HttpMessage, HttpRequest, Route};
use millrace_runtime::Secret;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::origin;
use super::problem::Problem;
use crate::config::{Config, ViewerEndpoints};
use crate::domain::access::{Access, Identity};
use crate::livestreams::{Caller, Principal};

/// The detail of an answer to a request without a token.
const NO_TOKEN: &str = "send a token: Authorization: Bearer TOKEN";

/// The checks of callers, as the configuration wants them.
pub(crate) struct Auth {
    admin: AdminToken,
    viewers_are_public: bool,
}

impl Auth {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            admin: AdminToken::new(&config.admin_token),
            viewers_are_public: config.viewer_endpoints == ViewerEndpoints::Public,
        }
    }

    /// Returns true if viewers' endpoints answer without a token.
    pub(super) fn viewers_are_public(&self) -> bool {
        self.viewers_are_public
    }

    /// Returns the caller of a request, or the problem to answer with.
    fn identify(&self, request: &ServiceRequest, access: Access) -> Result<Caller, Problem> {
        let from = origin::client(request.request());
        let anonymous = Caller { who: Principal::Anonymous, from };
        if access == Access::Open {
            return Ok(anonymous);
        }
        let Some(given) = request.headers().get(header::AUTHORIZATION) else {
            return match access {
                Access::Viewers if self.viewers_are_public => Ok(anonymous),
                _ => Err(Problem::unauthorized(NO_TOKEN)),
            };
        };
        let bearer = given.to_str().ok().and_then(|value| value.split_once(' '));
        let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let identity = match bearer {
            Some((_, given)) if self.admin.matches(given.trim()) => Identity::bootstrap_admin(),
            _ => return Err(Problem::unauthorized("the token is wrong")),
        };
        access.check(&identity).map_err(|denied| Problem::forbidden(&denied))?;
        Ok(Caller { who: Principal::Api(Arc::new(identity)), from })
    }
}

/// The digest of the configured admin token. Digests have equal lengths, so comparing them takes the same time for any guess.
struct AdminToken([u8; 32]);

impl AdminToken {
    fn new(token: &Secret<String>) -> Self {
        Self(Sha256::digest(token.expose()).into())
    }

    fn matches(&self, given: &str) -> bool {
        Sha256::digest(given).as_slice().ct_eq(&self.0).into()
    }
}

/// Returns the route behind its guard: a handler runs only for a request that `access` lets through, and finds its [`Caller`].
pub(super) fn guard(access: Access, route: Route) -> Route {
    route.wrap(from_fn(move |request, next| authorize(access, request, next)))
}

async fn authorize(
    access: Access,
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let auth = request.app_data::<Data<Auth>>().ok_or_else(|| Problem::unauthorized(NO_TOKEN))?;
    let caller = auth.identify(&request, access)?;
    request.extensions_mut().insert(caller);
    next.call(request).await
}

/// Handlers take the caller as an argument; the guard of their route has put it into the request.
impl FromRequest for Caller {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let caller = request.extensions().get::<Self>().cloned();
        ready(caller.ok_or_else(|| Problem::unauthorized(NO_TOKEN)))
    }
}
