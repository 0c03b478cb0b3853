//! What the operator sees of a publish: health in words, the last reason, metrics and log lines.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use millrace_testkit::http;
use millrace_tests::api::Api;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Interval of the looks at a stream's status.
const LOOK: Duration = Duration::from_millis(500);

/// Looks at a livestream's status until it is told to stop.
pub(crate) struct HealthLog {
    stop: watch::Sender<bool>,
    task: JoinHandle<Vec<Value>>,
}

impl HealthLog {
    pub(crate) fn start(api: Api, id: String) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut statuses: Vec<Value> = Vec::new();
            loop {
                if let Ok(status) = api.status(&id).await
                    && statuses.last() != Some(&status)
                {
                    statuses.push(status);
                }
                if timeout(LOOK, stopped.changed()).await.is_ok() {
                    return statuses;
                }
            }
        });
        Self { stop, task }
    }

    /// The different statuses, in order.
    pub(crate) async fn finish(self) -> Result<Vec<Value>> {
        let _ = self.stop.send(true);
        Ok(self.task.await?)
    }
}

/// The health texts of statuses, each once.
pub(crate) fn health_words(statuses: &[Value]) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for status in statuses {
        let health = &status["health"];
        let line = format!(
            "{}: {}",
            health["state"].as_str().unwrap_or("?"),
            health["message"].as_str().unwrap_or("?")
        );
        if !words.contains(&line) {
            words.push(line);
        }
    }
    words
}

/// The repairs that a node counted, by reason.
pub(crate) async fn repairs(control: &str, metric: &str) -> Result<BTreeMap<String, u64>> {
    let text = http::get_text(&format!("{}/metrics", control.trim_end_matches('/'))).await?;
    let mut counts = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with(metric)) {
        let Some((labels, value)) = line.rsplit_once(' ') else { continue };
        let Some(reason) = labels.split_once("reason=\"").and_then(|(_, rest)| rest.split('"').next()) else {
            continue;
        };
        let value: f64 = value.parse()?;
        if value > 0.0 {
            *counts.entry(reason.to_owned()).or_default() += value as u64;
        }
    }
    Ok(counts)
}
