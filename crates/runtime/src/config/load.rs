//! The loader of the configuration: it merges the layers and reads the sections.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use super::nearest::nearest;
use super::value::{Fault, Node, Value};
use super::{ConfigError, Origin, SECTIONS, Section};

/// The prefix of every environment variable that is a configuration key.
const PREFIX: &str = "MILLRACE_";

/// Variables that are not configuration keys: the path of the file itself.
const RESERVED: &[&str] = &["MILLRACE_CONFIG"];

/// The prefix of environment variables that belong to the test suite.
const TEST_PREFIX: &str = "MILLRACE_TEST_";

/// Bytes of a configuration file at most; a larger file is a mistake (a log or an image given as `--config`).
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Bytes of a secret file at most; it holds one line.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Collects the layers of the configuration, the lowest first.
#[derive(Debug, Default)]
pub struct Loader {
    sections: BTreeMap<String, Node>,
    ignored: Vec<String>,
}

/// The merged layers of the configuration, read section by section.
#[derive(Debug)]
pub struct ConfigTree {
    sections: BTreeMap<String, Node>,
    /// The variables that name no section, each with the nearest section if it looks mistyped.
    ignored: Vec<String>,
}

impl Loader {
    /// Makes a loader without layers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a loader with the usual layers: the file, if one is given, and the process's environment.
    pub fn standard(file: Option<&Path>) -> Result<Self, ConfigError> {
        let loader = match file {
            Some(path) => Self::new().file(path)?,
            None => Self::new(),
        };
        loader.env(std::env::vars_os())
    }

    /// Adds the layer of a TOML file.
    pub fn file(self, path: &Path) -> Result<Self, ConfigError> {
        let text = read_bounded(path, MAX_FILE_BYTES)
            .map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
        self.text(&text, path)
    }

    /// Adds TOML text; `path` is the name shown in errors.
    pub fn text(mut self, text: &str, path: &Path) -> Result<Self, ConfigError> {
        let table: toml::Table = toml::from_str(text)
            .map_err(|error| ConfigError::Syntax { path: path.to_owned(), message: syntax(text, &error) })?;
        let origin = Origin::File(path.to_owned());
        for (section, value) in table {
            known_section(&section, &origin)?;
            let node = Node::from_toml(value, &origin);
            if !matches!(node.value, Value::Table(_)) {
                let message = format!("is a section: write [{section}]");
                return Err(ConfigError::Value { key: section, message, origin: Some(origin) });
            }
            merge(&mut self.sections, section, node);
        }
        Ok(self)
    }

    /// Adds environment variables; an empty variable counts as not set. Service links of Kubernetes are no configuration,
    /// and a variable that names no section is ignored ([`ConfigTree::warning`]).
    pub fn env(mut self, vars: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, ConfigError> {
        for (name, value) in vars {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
            if RESERVED.contains(&name) || name.starts_with(TEST_PREFIX) {
                continue;
            }
            let fault =
                |message: &str| ConfigError::Variable { name: name.to_owned(), message: message.to_owned() };
            let rest = &name[PREFIX.len()..];
            if value.is_empty() || is_service_link(rest, &value.to_string_lossy()) {
                continue;
            }
            let (section, key) = rest.split_once('_').unwrap_or((rest, ""));
            let section = section.to_ascii_lowercase();
            if !SECTIONS.contains(&&*section) {
                let near = nearest(&section, SECTIONS.iter().copied());
                self.ignored
                    .push(near.map_or(name.to_owned(), |near| format!("{name} (did you mean [{near}]?)")));
                continue;
            }
            let value = value.to_str().ok_or_else(|| fault("its value is not UTF-8"))?;
            let origin = Origin::Env(name.to_owned());
            let path: Vec<String> = key.split("__").map(str::to_ascii_lowercase).collect();
            if path.iter().any(String::is_empty) {
                return Err(fault("expected MILLRACE_SECTION_KEY"));
            }
            self.insert(&section, &path, value, &origin);
        }
        Ok(self)
    }

    /// Adds the value of a flag, if it was given: `set("edge.listen", addr, "--edge")`.
    #[must_use]
    pub fn set(mut self, key: &str, value: Option<&str>, flag: &str) -> Self {
        if let Some(value) = value {
            let mut path = key.split('.').map(str::to_owned);
            let section = path.next().unwrap_or_default();
            let path: Vec<String> = path.collect();
            self.insert(&section, &path, value, &Origin::Flag(flag.to_owned()));
        }
        self
    }

    /// Returns the merged layers, ready to be read.
    pub fn load(self) -> ConfigTree {
        ConfigTree { sections: self.sections, ignored: self.ignored }
    }

    fn insert(&mut self, section: &str, path: &[String], value: &str, origin: &Origin) {
        let leaf = Node { origin: origin.clone(), value: Value::Text(value.to_owned()) };
        let node = path.iter().rev().fold(leaf, |node, key| Node {
            origin: origin.clone(),
            value: Value::Table(BTreeMap::from([(key.clone(), node)])),
        });
        merge(&mut self.sections, section.to_owned(), node);
    }
}

impl ConfigTree {
    /// Reads a section; an absent section has its defaults.
    ///
    /// # Errors
    /// When a key is unknown, a value has the wrong type or range, or a secret file cannot be read.
    pub fn section<S: Section>(&self) -> Result<S, ConfigError> {
        let section = match self.sections.get(S::NAME) {
            Some(node) => {
                let mut node = node.clone();
                if let Value::Table(table) = &mut node.value {
                    resolve_secret_files::<S>(table)?;
                }
                S::deserialize(node).map_err(|fault| located::<S>(fault))?
            }
            None => S::default(),
        };
        section.check().map_err(|(key, message)| ConfigError::Value {
            key: format!("{}.{key}", S::NAME),
            message,
            origin: self.origin(S::NAME, key),
        })?;
        Ok(section)
    }

    /// Returns the warning about variables that name no section; `None` if there are none.
    pub fn warning(&self) -> Option<String> {
        let names = self.ignored.join(", ");
        (!names.is_empty()).then(|| {
            let sections = SECTIONS.join(", ");
            format!("environment variables that name no section of the configuration are ignored: {names}; sections are {sections}")
        })
    }

    /// Returns true if any layer has this section.
    pub fn has_section(&self, name: &str) -> bool {
        self.sections.contains_key(name)
    }

    fn origin(&self, section: &str, key: &str) -> Option<Origin> {
        match &self.sections.get(section)?.value {
            Value::Table(table) => table.get(key).map(|node| node.origin.clone()),
            _ => None,
        }
    }
}

fn located<S: Section>(fault: Fault) -> ConfigError {
    let secret = fault.path.first().is_some_and(|key| S::SECRETS.contains(&key.as_str()));
    let message = if secret { "has the wrong type or form".to_owned() } else { fault.message };
    let path = std::iter::once(S::NAME.to_owned()).chain(fault.path);
    ConfigError::Value { key: path.collect::<Vec<_>>().join("."), message, origin: fault.origin }
}

/// Replaces `{key}_file` by the content of the file, unless a higher layer gives the key itself.
fn resolve_secret_files<S: Section>(table: &mut BTreeMap<String, Node>) -> Result<(), ConfigError> {
    for key in S::SECRETS {
        let file_key = format!("{key}_file");
        let Some(node) = table.remove(&file_key) else { continue };
        let fault = |message: String| ConfigError::Value {
            key: format!("{}.{file_key}", S::NAME),
            message,
            origin: Some(node.origin.clone()),
        };
        if let Some(given) = table.get(*key) {
            if given.origin.rank() == node.origin.rank() {
                return Err(fault(format!("{key} is given too: give one of them")));
            }
            if given.origin.rank() > node.origin.rank() {
                continue;
            }
        }
        let (Value::String(path) | Value::Text(path)) = &node.value else {
            return Err(fault("expected the path of a file".to_owned()));
        };
        let text = read_bounded(Path::new(path), MAX_SECRET_BYTES)
            .map_err(|error| fault(format!("cannot read {path}: {error}")))?;
        let secret = text.trim_end_matches(['\r', '\n']).to_owned();
        if secret.is_empty() {
            return Err(fault(format!("{path} is empty")));
        }
        table.insert((*key).to_owned(), Node { origin: node.origin.clone(), value: Value::Text(secret) });
    }
    Ok(())
}

fn read_bounded(path: &Path, limit: u64) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path)?.take(limit + 1).read_to_string(&mut text)?;
    if read as u64 > limit {
        return Err(std::io::Error::other(format!("is larger than {limit} bytes")));
    }
    Ok(text)
}

fn known_section(section: &str, origin: &Origin) -> Result<(), ConfigError> {
    if SECTIONS.contains(&section) {
        return Ok(());
    }
    Err(ConfigError::UnknownSection { section: section.to_owned(), origin: origin.clone() })
}

/// Lays a higher layer over a lower one: values are replaced, tables are joined.
fn merge(into: &mut BTreeMap<String, Node>, key: String, node: Node) {
    match (into.get_mut(&key), node) {
        (Some(Node { value: Value::Table(old), .. }), Node { value: Value::Table(new), .. }) => {
            for (key, node) in new {
                merge(old, key, node);
            }
        }
        (_, node) => {
            into.insert(key, node);
        }
    }
}

/// Returns true for the variables that Kubernetes makes of services in every pod. A service named `millrace` gives
/// `MILLRACE_SERVICE_HOST`, `MILLRACE_SERVICE_PORT`, `MILLRACE_SERVICE_PORT_HTTP`, `MILLRACE_PORT=tcp://…` and, for each of
/// its ports, `MILLRACE_PORT_8080_TCP=tcp://…` and the same with `_PROTO`, `_PORT` and `_ADDR`; one named `millrace-edge`
/// gives them with `EDGE_` behind the prefix. `rest` is the name without `MILLRACE_`.
fn is_service_link(rest: &str, value: &str) -> bool {
    // The service's own name may be all of the prefix.
    let name = format!("_{rest}");
    if name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return true;
    }
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    if name.ends_with("_PORT") && is_url {
        return true;
    }
    name.match_indices("_PORT_").any(|(at, found)| is_port_of_service(&name[at + found.len()..]))
}

/// Returns true for what stands behind `_PORT_` in a service link: number, protocol, and one of four endings.
fn is_port_of_service(port: &str) -> bool {
    let protocol = port.trim_start_matches(|char: char| char.is_ascii_digit());
    let endings = ["", "_PROTO", "_PORT", "_ADDR"];
    let is_ending = |rest: &str| endings.contains(&rest);
    protocol.len() < port.len()
        && ["_TCP", "_UDP", "_SCTP"].iter().any(|name| protocol.strip_prefix(name).is_some_and(is_ending))
}

/// Returns line and message of a syntax error, without the excerpt of the file: the line may hold a secret.
fn syntax(text: &str, error: &toml::de::Error) -> String {
    let line = error
        .span()
        .map_or(1, |span| text.as_bytes().iter().take(span.start).filter(|byte| **byte == b'\n').count() + 1);
    format!("line {line}: {}", error.message())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
