//! The state store on a Redis server.

mod audience;
mod scripts;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{ErrorKind, RedisError, Value};
use tokio::sync::OnceCell;

use crate::key::{check_key, check_prefix};
use crate::{Record, SCAN_PAGE, Sighting, StateError, StateStore, Tx, Version, Versioned};
use scripts::Scripts;

/// The settings of a connection to Redis.
#[derive(Clone)]
pub struct RedisConfig {
    /// The server's URL: `redis://[user:password@]host:port[/db]`.
    pub url: String,
    /// Everything is kept under this name, in braces: one hash slot, as scripts over several keys need.
    pub namespace: String,
    /// The time limit for making a connection.
    pub connect_timeout: Duration,
    /// For one command with its answer.
    pub response_timeout: Duration,
}

impl RedisConfig {
    /// Namespace `millrace`, 1 s to connect, 2 s for an answer.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            namespace: "millrace".into(),
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(2),
        }
    }
}

impl std::fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = self.url.rsplit('@').next().unwrap_or_default();
        f.debug_struct("RedisConfig")
            .field("host", &host.trim_start_matches("redis://"))
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// Redis 7. Each commit is one Lua script, so it is atomic; how durable it is is the server's setting
/// (`appendfsync`). The connection is made again by itself; calls meanwhile fail within the time limits.
pub struct RedisState {
    client: redis::Client,
    settings: ConnectionManagerConfig,
    connection: OnceCell<ConnectionManager>,
    prefix: String,
    scripts: Scripts,
    limit: Duration,
}

/// Time for which the record of a probe stays; nothing reads it.
const PROBE_TTL: Duration = Duration::from_secs(10);

/// Codes of the refusals of a Redis that answers reads: its memory is used up, or it cannot write its snapshot to the disk.
const NOT_WRITABLE: [&str; 2] = ["OOM", "MISCONF"];

fn failed(error: &RedisError) -> StateError {
    if error.code().is_some_and(|code| NOT_WRITABLE.contains(&code)) {
        return StateError::NotWritable { reason: error.to_string() };
    }
    match error.kind() {
        ErrorKind::UnexpectedReturnType | ErrorKind::Parse => StateError::corrupt(error),
        ErrorKind::InvalidClientConfig => StateError::invalid(error.to_string()),
        _ => StateError::unavailable(error),
    }
}

fn odd(value: &Value) -> StateError {
    StateError::corrupt(format!("unexpected answer {value:?}").chars().take(200).collect::<String>())
}

fn text(value: Value) -> Result<String, StateError> {
    redis::from_redis_value(value).map_err(StateError::corrupt)
}

fn number(value: Value) -> Result<u64, StateError> {
    redis::from_redis_value(value).map_err(StateError::corrupt)
}

fn data(value: Value) -> Result<Bytes, StateError> {
    match value {
        Value::BulkString(bytes) => Ok(bytes.into()),
        other => Err(odd(&other)),
    }
}

impl RedisState {
    /// Prepares a client and tries to connect; a server that is away now is connected to later.
    pub async fn connect(config: &RedisConfig) -> Result<Self, StateError> {
        let client = redis::Client::open(config.url.as_str()).map_err(|error| failed(&error))?;
        check_key(&config.namespace)?;
        let settings = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(config.connect_timeout))
            .set_response_timeout(Some(config.response_timeout))
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(20))
            .set_max_delay(Duration::from_millis(200));
        let state = Self {
            client,
            settings,
            connection: OnceCell::new(),
            prefix: format!("{{{}}}:", config.namespace),
            scripts: Scripts::new(),
            limit: config.connect_timeout + config.response_timeout,
        };
        if let Err(error) = state.connection().await {
            tracing::warn!(%error, "Redis is away");
        }
        Ok(state)
    }

    async fn connection(&self) -> Result<ConnectionManager, StateError> {
        let make = || ConnectionManager::new_with_config(self.client.clone(), self.settings.clone());
        let made = self.connection.get_or_try_init(make).await;
        made.cloned().map_err(|error| failed(&error))
    }

    /// Runs a script within the time limit.
    async fn run(&self, call: &redis::ScriptInvocation<'_>) -> Result<Value, StateError> {
        let work = async {
            let mut connection = self.connection().await?;
            call.invoke_async::<Value>(&mut connection).await.map_err(|error| failed(&error))
        };
        self.within_limit(work).await
    }

    async fn within_limit<T>(
        &self,
        work: impl Future<Output = Result<T, StateError>>,
    ) -> Result<T, StateError> {
        let done = tokio::time::timeout(self.limit, work).await;
        done.unwrap_or_else(|_| Err(StateError::unavailable("no answer from Redis within the time limit")))
    }

    fn record(&self, key: &str) -> String {
        format!("{}r:{key}", self.prefix)
    }

    fn index(&self) -> String {
        format!("{}index", self.prefix)
    }

    fn uniques(&self, uniques: &str) -> String {
        format!("{}u:{uniques}", self.prefix)
    }
}

#[async_trait]
impl StateStore for RedisState {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StateError> {
        check_key(key)?;
        match self.run(&self.scripts.get.key(self.record(key))).await? {
            Value::Nil => Ok(None),
            Value::Array(fields) => match <[Value; 2]>::try_from(fields) {
                Ok([version, value]) => {
                    Ok(Some(Versioned { value: data(value)?, version: Version(number(version)?) }))
                }
                Err(fields) => Err(odd(&Value::Array(fields))),
            },
            other => Err(odd(&other)),
        }
    }

    async fn commit(&self, tx: Tx) -> Result<Version, StateError> {
        tx.validate()?;
        let mut call = self.scripts.commit.prepare_invoke();
        call.key(format!("{}version", self.prefix)).key(self.index());
        call.arg(tx.checks.len()).arg(tx.puts.len()).arg(tx.deletes.len());
        for (key, version) in &tx.checks {
            call.key(self.record(key)).arg(version.map_or(0, |version| version.0));
        }
        for put in &tx.puts {
            let ttl = put.ttl.map_or(0, |ttl| ttl.as_millis() as u64);
            call.key(self.record(&put.key)).arg(&put.key).arg(put.value.as_ref()).arg(ttl);
        }
        for key in &tx.deletes {
            call.key(self.record(key)).arg(key);
        }
        match self.run(&call).await? {
            Value::Array(mut fields) if fields.len() == 2 => {
                let value = number(fields.remove(1))?;
                if number(fields.remove(0))? == 1 {
                    return Ok(Version(value));
                }
                let at = (value as usize).checked_sub(1);
                let key = at.and_then(|at| tx.checks.get(at)).map(|(key, _)| key.clone());
                Err(StateError::Conflict { key: key.unwrap_or_default() })
            }
            other => Err(odd(&other)),
        }
    }

    async fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Record>, StateError> {
        check_prefix(prefix)?;
        let limit = limit.min(SCAN_PAGE);
        let mut out: Vec<Record> = Vec::new();
        let mut from = match after {
            Some(after) if after >= prefix => format!("({after}"),
            _ => format!("[{prefix}"),
        };
        // Printable ASCII only: the next byte after all of them ends the range.
        let to = format!("({prefix}\u{7f}");
        while out.len() < limit {
            let mut call = self.scripts.scan.prepare_invoke();
            call.key(self.index()).arg(&from).arg(&to).arg(limit - out.len()).arg(self.record(""));
            let Value::Array(fields) = self.run(&call).await? else { break };
            let mut fields = fields.into_iter();
            // The last index entry that was read; its record may have expired.
            let last = fields.next().map(text).transpose()?.unwrap_or_default();
            while let (Some(key), Some(version), Some(value)) = (fields.next(), fields.next(), fields.next())
            {
                let (key, version) = (text(key)?, Version(number(version)?));
                out.push(Record { key, value: data(value)?, version });
            }
            if last.is_empty() {
                break;
            }
            from = format!("({last}");
        }
        Ok(out)
    }

    async fn audience_note(
        &self,
        audience: &str,
        uniques: Option<&str>,
        sightings: &[Sighting],
    ) -> Result<u64, StateError> {
        self.note(audience, uniques, sightings).await
    }

    async fn audience_count(&self, audience: &str) -> Result<u64, StateError> {
        self.note(audience, None, &[]).await
    }

    async fn audience_uniques(&self, uniques: &str) -> Result<u64, StateError> {
        check_key(uniques)?;
        number(self.run(&self.scripts.uniques.key(self.uniques(uniques))).await?)
    }

    async fn ready(&self) -> Result<(), StateError> {
        // A write: a server whose memory is used up, or that cannot write its snapshot, answers reads.
        let work = async {
            let mut connection = self.connection().await?;
            let mut probe = redis::cmd("SET");
            probe.arg(format!("{}ready", self.prefix)).arg(1).arg("EX").arg(PROBE_TTL.as_secs());
            probe.query_async::<()>(&mut connection).await.map_err(|error| failed(&error))
        };
        self.within_limit(work).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let config = RedisConfig::new("redis://me:hunter2@host:6379/0");
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
