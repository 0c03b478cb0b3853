//! A resource of the API: its path and a handler for each of its methods. The router is built from these values, and the
//! test against `openapi.json` reads the same ones.

use actix_web::Route;
use actix_web::http::Method;
use actix_web::web::{self, ServiceConfig};

use super::problem::method_not_allowed;

/// A path of the API with its methods.
pub(super) struct Resource {
    path: &'static str,
    routes: Vec<(Method, Route)>,
}

impl Resource {
    pub(super) fn new(path: &'static str, routes: impl IntoIterator<Item = (Method, Route)>) -> Self {
        Self { path, routes: routes.into_iter().collect() }
    }

    /// Adds the resource to the router; a method it does not have is answered with 405.
    pub(super) fn register(self, config: &mut ServiceConfig) {
        let allow: Vec<String> = self.routes.iter().map(|(method, _)| method.to_string()).collect();
        let allow = allow.join(", ");
        let mut resource = web::resource(self.path);
        for (method, route) in self.routes {
            resource = resource.route(route.method(method));
        }
        let refuse = move || {
            let refusal = method_not_allowed(&allow);
            async move { refusal }
        };
        config.service(resource.default_service(web::to(refuse)));
    }

    /// Returns the path and the methods, in lower case as OpenAPI writes them.
    #[cfg(test)]
    pub(super) fn describe(&self) -> (String, std::collections::BTreeSet<String>) {
        let methods = self.routes.iter().map(|(method, _)| method.as_str().to_ascii_lowercase());
        (format!("/api/v1{}", self.path), methods.collect())
    }
}
