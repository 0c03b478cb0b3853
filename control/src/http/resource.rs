//! A resource of the API: its path and, for each of its methods, a handler and who may call it. The router is built from these
//! values, and the tests against `openapi.json` and against the table of roles read the same ones.

use actix_web::Route;
use actix_web::http::Method;
use actix_web::web::{self, ServiceConfig};

use super::auth;
use super::problem::method_not_allowed;
use crate::domain::access::Access;

/// A route of the API, as the router has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiRoute {
    /// The method, in upper case.
    pub method: String,
    /// The path with its placeholders, e.g. `/api/v1/livestreams/{id}`.
    pub path: String,
    /// The condition under which the route is answered.
    pub access: Access,
}

/// A path of the API with its methods.
pub(super) struct Resource {
    path: &'static str,
    routes: Vec<(Method, Access, Route)>,
}

impl Resource {
    pub(super) fn new(path: &'static str, routes: impl IntoIterator<Item = (Method, Access, Route)>) -> Self {
        Self { path, routes: routes.into_iter().collect() }
    }

    /// Adds the resource to the router; a method it does not have is answered with 405.
    pub(super) fn register(self, config: &mut ServiceConfig) {
        let allow: Vec<String> = self.routes.iter().map(|(method, ..)| method.to_string()).collect();
        let allow = allow.join(", ");
        let mut resource = web::resource(self.path);
        for (method, access, route) in self.routes {
            resource = resource.route(auth::guard(access, route).method(method));
        }
        let refuse = move || {
            let refusal = method_not_allowed(&allow);
            async move { refusal }
        };
        config.service(resource.default_service(web::to(refuse)));
    }

    /// Returns each method with the path below `prefix` and who may call it.
    pub(super) fn describe(&self, prefix: &str) -> Vec<ApiRoute> {
        let describe = |(method, access, _): &(Method, Access, Route)| ApiRoute {
            method: method.to_string(),
            path: format!("{prefix}{}", self.path),
            access: *access,
        };
        self.routes.iter().map(describe).collect()
    }
}
