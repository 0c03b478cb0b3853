//! Configuration: one TOML file, `MILLRACE_*` environment variables over it, flags over both.
//!
//! Every key lives in a section. `MILLRACE_EDGE_LISTEN` is key `listen` of section `[edge]`; a double
//! underscore enters a table within the section. A secret key `k` may also be given as `k_file`, the path
//! of a file that holds it (`MILLRACE_CONTROL_ADMIN_TOKEN_FILE`). Unknown keys, and unknown sections of
//! the file, are refused with the place they came from. A variable that names no section is not the
//! configuration's: it is ignored, and named in one warning.

mod load;
mod nearest;
mod value;

use std::path::PathBuf;

use serde::de::DeserializeOwned;

pub use load::{ConfigTree, Loader};

/// The sections that a configuration may have. A node reads its own and the common ones.
pub const SECTIONS: &[&str] =
    &["node", "log", "bus", "state", "store", "ingest", "transcode", "edge", "control", "standalone"];

/// A typed section of the configuration. The struct needs `#[serde(deny_unknown_fields, default)]`.
pub trait Section: DeserializeOwned + Default {
    /// The name of the section in the file.
    const NAME: &'static str;

    /// The keys whose values are secret: no error shows them, and `{key}_file` reads them from a file.
    const SECRETS: &'static [&'static str] = &[];

    /// Checks the rules that types cannot express. An error is the key and the rule it breaks.
    fn check(&self) -> Result<(), (&'static str, String)> {
        Ok(())
    }
}

/// The place that a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The configuration file at this path.
    File(PathBuf),
    /// The environment variable of this name.
    Env(String),
    /// The command line flag of this name.
    Flag(String),
}

impl Origin {
    /// Returns the layer's rank: flags precede the environment, which precedes the file.
    fn rank(&self) -> u8 {
        match self {
            Self::File(_) => 0,
            Self::Env(_) => 1,
            Self::Flag(_) => 2,
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A mistake in the configuration, with the place to correct it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("configuration file {}: {error}", path.display())]
    Read {
        /// The path of the file.
        path: PathBuf,
        /// The error of the operating system.
        error: std::io::Error,
    },
    /// The file is not TOML.
    #[error("configuration file {}: {message}", path.display())]
    Syntax {
        /// The path of the file.
        path: PathBuf,
        /// The line, and what was expected there.
        message: String,
    },
    /// A section that does not exist.
    #[error("configuration: there is no section [{section}] ({origin}); sections are {}", SECTIONS.join(", "))]
    UnknownSection {
        /// The name of the section.
        section: String,
        /// The place where it was found.
        origin: Origin,
    },
    /// A `MILLRACE_` variable that names no section and key.
    #[error("configuration: environment variable {name}: {message}")]
    Variable {
        /// The name of the variable.
        name: String,
        /// The rule that the variable breaks.
        message: String,
    },
    /// A key that does not exist, or a value of the wrong type or range.
    #[error("configuration: {key}: {message}{}", origin.as_ref().map(|o| format!(" ({o})")).unwrap_or_default())]
    Value {
        /// The full key, e.g. `edge.listen`.
        key: String,
        /// The rule that the value breaks.
        message: String,
        /// The place that the value came from, if it is known.
        origin: Option<Origin>,
    },
}
