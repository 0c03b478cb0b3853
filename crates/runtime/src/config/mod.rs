//! Configuration: one TOML file, `MILLRACE_*` environment variables over it, flags over both.
//!
//! Every key lives in a section. `MILLRACE_EDGE_LISTEN` is key `listen` of section `[edge]`; a double
//! underscore enters a table within the section. A secret key `k` may also be given as `k_file`, the path
//! of a file that holds it (`MILLRACE_CONTROL_ADMIN_TOKEN_FILE`). Unknown keys, unknown sections and
//! unknown variables are refused with the place they came from.

mod load;
mod value;

use std::path::PathBuf;

use serde::de::DeserializeOwned;

pub use load::{ConfigTree, Loader};

/// The sections a configuration may have. A node reads its own and the common ones.
pub const SECTIONS: &[&str] =
    &["node", "log", "bus", "state", "store", "ingest", "transcode", "edge", "control", "standalone"];

/// A typed section of the configuration: `#[serde(deny_unknown_fields, default)]` on the struct, please.
pub trait Section: DeserializeOwned + Default {
    /// The section's name in the file.
    const NAME: &'static str;

    /// Keys whose value is secret: never shown in an error, and readable from a file by `{key}_file`.
    const SECRETS: &'static [&'static str] = &[];

    /// Rules beyond the types: the offending key and what is wrong with it.
    fn check(&self) -> Result<(), (&'static str, String)> {
        Ok(())
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The configuration file.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// A command line flag.
    Flag(String),
}

impl Origin {
    /// Flags over environment over file.
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

/// A mistake in the configuration, with the place to mend it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("configuration file {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not TOML.
    #[error("configuration file {}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and what was expected.
        message: String,
    },
    /// A section that does not exist.
    #[error("configuration: there is no section [{section}] ({origin}); sections are {}", SECTIONS.join(", "))]
    UnknownSection {
        /// Its name.
        section: String,
        /// Where it was found.
        origin: Origin,
    },
    /// A `MILLRACE_` variable that names no section and key.
    #[error("configuration: environment variable {name}: {message}")]
    Variable {
        /// The variable.
        name: String,
        /// What is wrong with it.
        message: String,
    },
    /// A key that does not exist, or a value of the wrong type or range.
    #[error("configuration: {key}: {message}{}", origin.as_ref().map(|o| format!(" ({o})")).unwrap_or_default())]
    Value {
        /// The full key, e.g. `edge.listen`.
        key: String,
        /// What is wrong.
        message: String,
        /// Where the value came from, when known.
        origin: Option<Origin>,
    },
}
