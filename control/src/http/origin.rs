//! The client and the host of a request: behind a trusted proxy the ones that the proxy forwards, else the connection's own.

use std::net::IpAddr;

use actix_web::HttpRequest;
use actix_web::http::header::{HOST, HeaderName, HeaderValue, X_FORWARDED_FOR, X_FORWARDED_HOST};
use actix_web::web::Data;
use millrace_runtime::TrustedProxies;

/// Returns the address of the client that sent the request.
pub(super) fn client(request: &HttpRequest) -> Option<IpAddr> {
    let peer = request.peer_addr()?.ip();
    let forwarded: Vec<&str> = texts(request, &X_FORWARDED_FOR).collect();
    Some(proxies(request).map_or(peer, |proxies| proxies.client(peer, forwarded.into_iter())))
}

/// Returns the host, with its port, that the client sent the request to.
pub(super) fn host(request: &HttpRequest) -> String {
    let peer = request.peer_addr().map(|addr| addr.ip());
    let is_proxy =
        peer.zip(proxies(request)).is_some_and(|(peer, proxies)| proxies.trusts(peer.to_canonical()));
    // The proxy next to the client writes the first value.
    let forwarded = texts(request, &X_FORWARDED_HOST).next().filter(|_| is_proxy);
    let forwarded = forwarded.and_then(|hosts| hosts.split(',').next()).map(str::trim);
    let own = || {
        let host = request.uri().authority().map(actix_web::http::uri::Authority::as_str);
        host.or_else(|| texts(request, &HOST).next()).unwrap_or("localhost")
    };
    forwarded.filter(|host| !host.is_empty()).unwrap_or_else(own).to_owned()
}

fn proxies(request: &HttpRequest) -> Option<&TrustedProxies> {
    request.app_data::<Data<TrustedProxies>>().map(|proxies| &***proxies)
}

fn texts<'a>(request: &'a HttpRequest, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    request.headers().get_all(name).filter_map(|value: &HeaderValue| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn request(peer: &str, headers: &[(&'static str, &'static str)]) -> HttpRequest {
        let proxies = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let request = TestRequest::get().peer_addr(peer.parse().unwrap()).app_data(Data::new(proxies));
        headers.iter().fold(request, |request, header| request.append_header(*header)).to_http_request()
    }

    #[test]
    fn forwarded_host_and_client_are_believed_from_a_trusted_proxy_alone() {
        let headers = [
            ("Host", "control:8080"),
            ("X-Forwarded-Host", "api.example.com, inner"),
            ("X-Forwarded-For", "192.0.2.9"),
        ];
        let behind = request("10.1.2.3:4000", &headers);
        assert_eq!(host(&behind), "api.example.com");
        assert_eq!(client(&behind), Some([192, 0, 2, 9].into()));
        let direct = request("192.0.2.1:4000", &headers);
        assert_eq!(host(&direct), "control:8080");
        assert_eq!(client(&direct), Some([192, 0, 2, 1].into()));
        assert_eq!(host(&request("10.1.2.3:4000", &headers[..1])), "control:8080");
    }
}
