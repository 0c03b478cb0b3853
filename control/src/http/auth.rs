//! Authorization of API requests by a bearer token (RFC 6750 §2.1): the guard of each route, and the caller that handlers get.

use std::future::{Ready, ready};
use std::sync::Arc;

use actix_web::body::BoxBody;
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::middleware::{Next, from_fn};
use actix_web::web::Data;
use actix_web::{FromRequest, HttpMessage, HttpRequest, Route};
use tracing::info;

use super::origin;
use super::problem::Problem;
use crate::auth::{AuthError, Authenticator, JwtError};
use crate::domain::access::{Access, BadToken};
use crate::livestreams::{Caller, Principal};

/// The detail of an answer to a request without a token.
const NO_TOKEN: &str = "send a token: Authorization: Bearer TOKEN";
/// The details of answers to callers that ask too much.
const FROM_ADDRESS: &str = "too many requests from this address";
const WITH_TOKEN: &str = "too many requests with this token";
const FAILED_OFTEN: &str = "too many wrong tokens from this address: no token is looked at for a while";

/// Returns the route behind its guard: a handler runs only for a request that `access` lets through, and finds its [`Caller`].
pub(super) fn guard(access: Access, route: Route) -> Route {
    route.wrap(from_fn(move |request, next| authorize(access, request, next)))
}

async fn authorize(
    access: Access,
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let caller = identify(&request, access).await.inspect_err(|(reason, _)| {
        if let Some(auth) = request.app_data::<Data<Authenticator>>() {
            auth.services().metrics.refused_requests.with(&[reason]).inc();
        }
    });
    request.extensions_mut().insert(caller.map_err(|(_, problem)| problem)?);
    next.call(request).await
}

/// A refusal by the name of its metric, and the problem to answer with.
type Refused = (&'static str, Problem);

/// Returns the caller of a request.
async fn identify(request: &ServiceRequest, access: Access) -> Result<Caller, Refused> {
    let unauthorized = |error: &str| ("unauthorized", Problem::unauthorized(error));
    let auth = request.app_data::<Data<Authenticator>>().ok_or_else(|| unauthorized(NO_TOKEN))?;
    let from = origin::client(request.request());
    auth.limits.of_address(from).map_err(|many| ("address_limit", Problem::too_many(many, FROM_ADDRESS)))?;
    let anonymous = Caller { who: Principal::Anonymous, from };
    if access == Access::Open {
        return Ok(anonymous);
    }
    let Some(given) = request.headers().get(header::AUTHORIZATION) else {
        return match access {
            Access::Viewers if auth.viewers_are_public => Ok(anonymous),
            _ => Err(unauthorized(NO_TOKEN)),
        };
    };
    auth.limits
        .may_authenticate(from)
        .map_err(|many| ("failed_auth_limit", Problem::too_many(many, FAILED_OFTEN)))?;
    let bearer = given.to_str().ok().and_then(|value| value.split_once(' '));
    let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let identity = match bearer {
        Some((_, token)) => auth.identify(token.trim()).await,
        None => Err(BadToken::Wrong.into()),
    };
    let identity = identity.map_err(|error| match error {
        AuthError::Repo(error) => ("unavailable", error.into()),
        AuthError::Jwt(error @ JwtError::NoKeys(_)) => {
            ("unavailable", Problem::unavailable(&format!("{error}; try again")))
        }
        error => {
            auth.limits.failed(from);
            info!(from = from.map(tracing::field::display), path = request.path(), %error,
                "request with a bad token refused with 401");
            ("bad_token", Problem::bad_token(&error.to_string()))
        }
    })?;
    auth.limits
        .of_actor(&identity.actor)
        .map_err(|many| ("token_limit", Problem::too_many(many, WITH_TOKEN)))?;
    access.check(&identity).map_err(|denied| {
        info!(who = identity.actor, from = from.map(tracing::field::display), path = request.path(), %denied,
            "request refused with 403");
        ("forbidden", Problem::forbidden(&denied))
    })?;
    Ok(Caller { who: Principal::Api(Arc::new(identity)), from })
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
