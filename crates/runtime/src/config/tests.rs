//! One test for each mistake that an operator can make in the configuration.

use std::io::Write;

use serde::Deserialize;

use super::*;
use crate::Secret;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct Edge {
    listen: std::net::SocketAddr,
    workers: Option<usize>,
    token: Secret<String>,
    origins: Vec<String>,
    cache: Cache,
    policy: PolicyName,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct Cache {
    size_bytes: u64,
    on: bool,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum PolicyName {
    #[default]
    Gap,
    Hold,
}

impl Default for Edge {
    fn default() -> Self {
        Self {
            listen: ([0, 0, 0, 0], 8000).into(),
            workers: None,
            token: Secret::default(),
            origins: Vec::new(),
            cache: Cache::default(),
            policy: PolicyName::Gap,
        }
    }
}

impl Section for Edge {
    const NAME: &'static str = "edge";
    const SECRETS: &'static [&'static str] = &["token"];

    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.workers == Some(0) {
            return Err(("workers", "must be at least 1".to_owned()));
        }
        Ok(())
    }
}

fn file(text: &str) -> Result<Loader, ConfigError> {
    Loader::new().text(text, Path::new("m.toml"))
}

fn env(loader: Loader, vars: &[(&str, &str)]) -> Result<Loader, ConfigError> {
    loader.env(vars.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
}

fn error(result: Result<impl std::fmt::Debug, ConfigError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn section_that_is_absent_has_its_defaults() {
    assert_eq!(Loader::new().load().section::<Edge>().unwrap(), Edge::default());
}

#[test]
fn flag_takes_precedence_over_environment_over_file() {
    let loader =
        file("[edge]\nlisten = '1.1.1.1:1'\nworkers = 1\n[edge.cache]\nsize_bytes = 5\non = true").unwrap();
    let vars =
        [("MILLRACE_EDGE_LISTEN", "2.2.2.2:2"), ("MILLRACE_EDGE_CACHE__SIZE_BYTES", "7"), ("PATH", "/bin")];
    let loader = env(loader, &vars).unwrap().set("edge.listen", Some("3.3.3.3:3"), "--edge");
    let edge: Edge = loader.set("edge.workers", None, "--workers").load().section().unwrap();
    assert_eq!(edge.listen, ([3, 3, 3, 3], 3).into());
    assert_eq!(edge.workers, Some(1));
    assert_eq!(edge.cache, Cache { size_bytes: 7, on: true });
}

#[test]
fn variable_is_read_as_the_type_of_its_key() {
    let vars = [
        ("MILLRACE_EDGE_TOKEN", "12345"),
        ("MILLRACE_EDGE_WORKERS", "4"),
        ("MILLRACE_EDGE_ORIGINS", "a, b,"),
        ("MILLRACE_EDGE_CACHE__ON", "true"),
        ("MILLRACE_EDGE_POLICY", "hold"),
    ];
    let edge: Edge = env(Loader::new(), &vars).unwrap().load().section().unwrap();
    assert_eq!(edge.token.expose(), "12345");
    assert_eq!((edge.workers, edge.cache.on, edge.policy), (Some(4), true, PolicyName::Hold));
    assert_eq!(edge.origins, ["a", "b"]);
}

#[test]
fn unknown_key_is_refused_with_its_file() {
    let message = error(file("[edge]\nlisten_addr = 'x'").unwrap().load().section::<Edge>());
    assert!(
        message.starts_with("configuration: edge.listen_addr: unknown key; known keys are listen,"),
        "{message}"
    );
    assert!(message.ends_with("(file m.toml)"), "{message}");
}

#[test]
fn unknown_nested_key_is_refused_with_its_full_name() {
    let message = error(file("[edge.cache]\nsize = 1").unwrap().load().section::<Edge>());
    assert!(message.starts_with("configuration: edge.cache.size: unknown key"), "{message}");
}

#[test]
fn unknown_variable_is_refused_with_its_name() {
    let loader = env(Loader::new(), &[("MILLRACE_EDGE_LISTN", "x")]).unwrap();
    let message = error(loader.load().section::<Edge>());
    assert!(
        message.contains("edge.listn: unknown key; did you mean listen?")
            && message.contains("MILLRACE_EDGE_LISTN"),
        "{message}"
    );
    let message = error(env(Loader::new(), &[("MILLRACE_EDGE", "x")]));
    assert!(message.contains("expected MILLRACE_SECTION_KEY"), "{message}");
}

#[test]
fn unknown_section_is_refused_with_its_name() {
    let message = error(file("[egde]\nlisten = 'x'"));
    assert!(message.contains("no section [egde] (file m.toml)"), "{message}");
}

#[test]
fn key_outside_of_a_section_is_refused() {
    let message = error(file("edge = 'x'"));
    assert!(message.contains("edge: is a section: write [edge]"), "{message}");
}

#[test]
fn value_of_the_wrong_type_is_refused_with_key_and_place() {
    let message = error(file("[edge]\nworkers = 'many'").unwrap().load().section::<Edge>());
    assert!(message.starts_with("configuration: edge.workers: invalid type"), "{message}");
    let loader = env(Loader::new(), &[("MILLRACE_EDGE_WORKERS", "-1")]).unwrap();
    let message = error(loader.load().section::<Edge>());
    assert!(message.contains("edge.workers: \"-1\" is not a whole number, 0 or more"), "{message}");
    let message = error(file("[edge]\nlisten = 'localhost'").unwrap().load().section::<Edge>());
    assert!(message.contains("edge.listen: invalid socket address"), "{message}");
    let message = error(file("[edge]\npolicy = 'slate'").unwrap().load().section::<Edge>());
    assert!(message.contains("edge.policy: unknown variant `slate`"), "{message}");
}

#[test]
fn value_out_of_range_is_refused_with_key_and_place() {
    let message = error(file("[edge]\nworkers = 0").unwrap().load().section::<Edge>());
    assert_eq!(message, "configuration: edge.workers: must be at least 1 (file m.toml)");
}

#[test]
fn syntax_error_shows_the_line_number_without_its_text() {
    let message = error(file("[edge]\ntoken = hunter2"));
    assert!(message.contains("m.toml: line 2:") && !message.contains("hunter2"), "{message}");
}

#[test]
fn error_about_a_secret_does_not_show_its_value() {
    let message = error(file("[edge]\ntoken = 31337").unwrap().load().section::<Edge>());
    assert!(message.contains("edge.token: has the wrong type") && !message.contains("31337"), "{message}");
}

#[test]
fn missing_file_is_refused_with_its_path() {
    let message = error(Loader::new().file(Path::new("/nonexistent/m.toml")));
    assert!(message.contains("/nonexistent/m.toml") && message.contains("No such file"), "{message}");
}

#[test]
fn secret_file_is_read_unless_a_higher_layer_has_the_key() {
    let mut secret = tempfile::NamedTempFile::new().unwrap();
    writeln!(secret, "hunter2").unwrap();
    let path = secret.path().to_str().unwrap();
    let over = env(file("[edge]\ntoken = 'old'").unwrap(), &[("MILLRACE_EDGE_TOKEN_FILE", path)]).unwrap();
    assert_eq!(over.load().section::<Edge>().unwrap().token.expose(), "hunter2");
    let text = format!("[edge]\ntoken_file = '{path}'");
    let under = env(file(&text).unwrap(), &[("MILLRACE_EDGE_TOKEN", "newer")]).unwrap();
    assert_eq!(under.load().section::<Edge>().unwrap().token.expose(), "newer");
    let message = error(file(&format!("{text}\ntoken = 'x'")).unwrap().load().section::<Edge>());
    assert!(message.contains("edge.token_file: token is given too"), "{message}");
}

#[test]
fn secret_file_that_is_absent_or_empty_is_refused_with_its_path() {
    let message = error(file("[edge]\ntoken_file = '/nonexistent'").unwrap().load().section::<Edge>());
    assert!(message.contains("edge.token_file: cannot read /nonexistent"), "{message}");
    let empty = tempfile::NamedTempFile::new().unwrap();
    let text = format!("[edge]\ntoken_file = '{}'", empty.path().display());
    assert!(error(file(&text).unwrap().load().section::<Edge>()).contains("is empty"));
}

#[test]
fn key_that_is_no_secret_has_no_file_form() {
    let message = error(file("[edge]\nlisten_file = 'x'").unwrap().load().section::<Edge>());
    assert!(message.contains("edge.listen_file: unknown key"), "{message}");
}

#[test]
fn service_links_of_kubernetes_are_ignored_in_every_shape() {
    let mut vars = vec![
        ("MILLRACE_CONFIG".to_owned(), "/etc/m.toml"),
        ("MILLRACE_EDGE_WORKERS".to_owned(), ""),
        ("MILLRACE_TEST_SEED".to_owned(), "7"),
    ];
    // The services `millrace`, `millrace-edge`, `millrace-control-rtmp` and `millrace-live`, of three protocols.
    for service in ["MILLRACE", "MILLRACE_EDGE", "MILLRACE_CONTROL_RTMP", "MILLRACE_LIVE"] {
        let mut link = |name: &str, value| vars.push((format!("{service}_{name}"), value));
        link("SERVICE_HOST", "10.0.0.1");
        link("SERVICE_PORT", "8000");
        link("SERVICE_PORT_HTTP", "8000");
        link("SERVICE_PORT_HTTP_METRICS", "8001");
        for (protocol, url) in
            [("TCP", "tcp://10.0.0.1:8000"), ("UDP", "udp://10.0.0.1:8000"), ("SCTP", "sctp://10.0.0.1:8000")]
        {
            link("PORT", url);
            link(&format!("PORT_8000_{protocol}"), url);
            link(&format!("PORT_8000_{protocol}_PROTO"), "tcp");
            link(&format!("PORT_8000_{protocol}_PORT"), "8000");
            link(&format!("PORT_8000_{protocol}_ADDR"), "10.0.0.1");
        }
    }
    let vars: Vec<(&str, &str)> = vars.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let tree = env(Loader::new(), &vars).unwrap().load();
    assert_eq!(tree.warning(), None);
    assert_eq!(tree.section::<Edge>().unwrap(), Edge::default());
    // What only looks like a link is configuration.
    let vars = [("MILLRACE_CONTROL_RTMP_PORT", "1935"), ("MILLRACE_EDGE_PORT_X_TCP", "1")];
    let tree = env(Loader::new(), &vars).unwrap().load();
    assert!(tree.has_section("control"));
    assert!(error(tree.section::<Edge>()).contains("edge.port_x_tcp: unknown key"));
}

#[test]
fn variables_that_name_no_section_are_one_warning() {
    let vars = [
        ("MILLRACE_HOME", "/opt/millrace"),
        ("MILLRACE_EDEG_LISTEN", "1.1.1.1:1"),
        ("MILLRACE_RELEASE_NAME", "r1"),
        ("MILLRACE_EDGE_WORKERS", "2"),
    ];
    let tree = env(Loader::new(), &vars).unwrap().load();
    assert_eq!(tree.section::<Edge>().unwrap().workers, Some(2));
    let warning = tree.warning().unwrap();
    assert!(
        warning
            .contains("MILLRACE_HOME, MILLRACE_EDEG_LISTEN (did you mean [edge]?), MILLRACE_RELEASE_NAME;"),
        "{warning}"
    );
    assert!(!warning.contains("1.1.1.1"), "no value is shown: it may be a secret");
}
