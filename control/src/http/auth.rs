//! Authorization of API requests by a bearer token (RFC 6750 §2.1).

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::middleware::Next;
use actix_web::web::Data;
use millrace_runtime::Secret;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::problem::Problem;

/// The digest of the admin token. Digests have equal lengths, so comparing them takes the same time for any guess.
#[derive(Clone)]
pub(crate) struct Token([u8; 32]);

impl Token {
    pub(crate) fn new(token: &Secret<String>) -> Self {
        Self(Sha256::digest(token.expose()).into())
    }

    fn matches(&self, given: &str) -> bool {
        Sha256::digest(given).as_slice().ct_eq(&self.0).into()
    }
}

pub(crate) async fn require_token(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<EitherBody<impl MessageBody + 'static>>, actix_web::Error> {
    if let Err(problem) = check(&request) {
        return Ok(request.into_response(problem.into_response()).map_into_right_body());
    }
    next.call(request).await.map(ServiceResponse::map_into_left_body)
}

fn check(request: &ServiceRequest) -> Result<(), Problem> {
    let Some(given) = request.headers().get(header::AUTHORIZATION) else {
        return Err(Problem::unauthorized("send the admin token: Authorization: Bearer TOKEN"));
    };
    let bearer = given.to_str().ok().and_then(|value| value.split_once(' '));
    let token = request.app_data::<Data<Token>>();
    match (bearer, token) {
        (Some((scheme, given)), Some(token))
            if scheme.eq_ignore_ascii_case("bearer") && token.matches(given.trim()) =>
        {
            Ok(())
        }
        _ => Err(Problem::unauthorized("the admin token is wrong")),
    }
}
