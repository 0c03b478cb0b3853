//! The resources `/api/v1/tokens` and `/api/v1/me`.

use actix_web::HttpResponse;
use actix_web::http::{Method, header};
use actix_web::web::{self, Data, Json, Path};
use jiff::Timestamp;
use millrace_wire::ids::{TokenId, UnixMillis};
use serde::Serialize;

use super::dto::timestamp;
use super::problem::Problem;
use super::resource::Resource;
use crate::auth::{Authenticator, TokenError, Tokens};
use crate::domain::access::{Access, NewToken, Owner, Role, Scope, ScopeSet, TokenRecord};
use crate::livestreams::Caller;

/// Returns the resources of tokens, relative to `/api/v1`.
pub(super) fn resources() -> Vec<Resource> {
    let (read, write) = (Access::Needs(Scope::TokensRead), Access::Needs(Scope::TokensWrite));
    vec![
        Resource::new("/me", [(Method::GET, Access::Token, web::to(me))]),
        Resource::new(
            "/tokens",
            [(Method::GET, read, web::to(list)), (Method::POST, write, web::to(create))],
        ),
        Resource::new(
            "/tokens/{id}",
            [(Method::GET, read, web::to(show)), (Method::DELETE, write, web::to(revoke))],
        ),
    ]
}

/// The state of a token in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum TokenState {
    Active,
    Expired,
    Revoked,
}

#[derive(Debug, Serialize)]
pub(super) struct TokenView {
    id: TokenId,
    name: String,
    state: TokenState,
    role: Role,
    scopes: ScopeSet,
    owner: Option<Owner>,
    created_at: Option<Timestamp>,
    created_by: String,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    /// The token itself, in the answer that makes it and in no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl TokenView {
    pub(super) fn new(token: &TokenRecord, now: UnixMillis) -> Self {
        let state = match (token.revoked_at, token.expires_at) {
            (Some(_), _) => TokenState::Revoked,
            (None, Some(at)) if at <= now => TokenState::Expired,
            (None, _) => TokenState::Active,
        };
        Self {
            id: token.id,
            name: token.name.clone(),
            state,
            role: token.role,
            scopes: token.scopes,
            owner: token.owner.clone(),
            created_at: timestamp(token.created_at),
            created_by: token.created_by.clone(),
            expires_at: token.expires_at.and_then(timestamp),
            revoked_at: token.revoked_at.and_then(timestamp),
            token: None,
        }
    }
}

#[derive(Debug, Serialize)]
struct TokenList {
    tokens: Vec<TokenView>,
}

/// The identity of a caller.
#[derive(Debug, Serialize)]
struct Me<'a> {
    actor: &'a str,
    role: Role,
    scopes: ScopeSet,
    owner: Option<&'a Owner>,
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Invalid(errors) => Self::invalid_token(errors),
            TokenError::Full => Self::conflict(&error.to_string()),
            TokenError::NotFound | TokenError::NoCaller => Self::not_found(&error.to_string()),
            TokenError::Repo(error) => error.into(),
        }
    }
}

fn parse_id(text: &str) -> Result<TokenId, Problem> {
    text.parse().map_err(|_| TokenError::NotFound.into())
}

async fn me(caller: Caller) -> Result<HttpResponse, Problem> {
    let identity = caller.identity().ok_or(TokenError::NoCaller)?;
    let me = Me {
        actor: &identity.actor,
        role: identity.role,
        scopes: identity.scopes,
        owner: identity.owner.as_ref(),
    };
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(me))
}

async fn create(
    caller: Caller,
    tokens: Data<Tokens>,
    auth: Data<Authenticator>,
    body: Json<NewToken>,
) -> Result<HttpResponse, Problem> {
    let (record, text) = tokens.create(&caller, &body).await?;
    let view = TokenView::new(&record, auth.services().wall_clock());
    Ok(HttpResponse::Created()
        .insert_header((header::LOCATION, format!("/api/v1/tokens/{}", record.id)))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(TokenView { token: Some(text.reveal().to_owned()), ..view }))
}

async fn list(tokens: Data<Tokens>, auth: Data<Authenticator>) -> Result<HttpResponse, Problem> {
    let now = auth.services().wall_clock();
    let tokens = tokens.list().await?.iter().map(|token| TokenView::new(token, now)).collect();
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(TokenList { tokens }))
}

async fn show(
    tokens: Data<Tokens>,
    auth: Data<Authenticator>,
    id: Path<String>,
) -> Result<HttpResponse, Problem> {
    let token = tokens.get(parse_id(&id)?).await?;
    let view = TokenView::new(&token, auth.services().wall_clock());
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(view))
}

async fn revoke(caller: Caller, tokens: Data<Tokens>, id: Path<String>) -> Result<HttpResponse, Problem> {
    tokens.revoke(&caller, parse_id(&id)?).await?;
    Ok(HttpResponse::NoContent().finish())
}
