//! Log lines: text for people by default, one JSON object per line for machines.

use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::config::Section;

/// The default filter. The start-up lines of the HTTP server repeat those of the nodes. actix-http writes a line at ERROR for
/// each malformed request, which anyone may send; `http::server` counts them and writes a limited number at DEBUG.
const DEFAULT_FILTER: &str = "info,actix_server=warn,actix_http=off";

/// `[log]`: the form of log lines and the filter.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `true`: one JSON object per line.
    pub json: bool,
    /// `tracing` filter directives, e.g. `info` or `info,millrace_edge=debug`.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { json: false, filter: DEFAULT_FILTER.to_owned() }
    }
}

impl Section for LogConfig {
    const NAME: &'static str = "log";

    fn check(&self) -> Result<(), (&'static str, String)> {
        EnvFilter::try_new(&self.filter).map(drop).map_err(|e| ("filter", e.to_string()))
    }
}

/// Sends log lines to standard error. The first call in a process takes effect; later ones change nothing, so that tests
/// may start several nodes.
pub fn init(config: &LogConfig) {
    let filter = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    let outcome = if config.json {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    } else {
        builder.try_init()
    };
    if outcome.is_err() {
        tracing::debug!("logging was set up before");
    }
}
