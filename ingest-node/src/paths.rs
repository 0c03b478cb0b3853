//! The table of RTMP applications: the first path element of a publisher's URL, and what its publishers present.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The credential that publishers of an application present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathRule {
    /// A stream key: one of the cluster's own, or one that the service of `key_check_url` accepts.
    Key,
    /// A stream key of the cluster's own. The service outside is not asked.
    OwnKey,
}

/// The applications by name. Others are refused at `connect`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Paths(pub BTreeMap<String, PathRule>);

impl Default for Paths {
    fn default() -> Self {
        Self(BTreeMap::from([("live".to_owned(), PathRule::Key)]))
    }
}

impl Paths {
    /// Returns the rule of an application; `None` if publishers may not connect to it.
    pub(crate) fn rule(&self, app: &str) -> Option<PathRule> {
        self.0.get(app).copied()
    }

    /// Returns the names as a sentence for publishers has them.
    pub(crate) fn names(&self) -> String {
        let quoted: Vec<String> = self.0.keys().map(|name| format!("\"{name}\"")).collect();
        quoted.join(" or ")
    }

    /// Returns the rule that the table breaks.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.0.is_empty() {
            return Err("must name at least one application".to_owned());
        }
        match self.0.keys().find(|name| name.is_empty() || name.contains(['/', '?'])) {
            Some(name) => Err(format!("\"{name}\" must be one path element")),
            None => Ok(()),
        }
    }
}
