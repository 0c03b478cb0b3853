//! The object store on S3 and on servers that speak its protocol.

mod errors;

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::operation::create_bucket::CreateBucketError;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use millrace_buf::ByteChain;

use crate::key::{check_key, check_prefix};
use crate::{
    ByteRange, DELETE_BATCH, LIST_PAGE, ListEntry, ListPage, Meta, Object, ObjectInfo, ObjectStore,
    StoreError,
};
use errors::{classify, refused};

/// The settings of a connection to a bucket.
#[derive(Clone)]
pub struct S3Config {
    /// The name of the bucket.
    pub bucket: String,
    /// `http://host:port` or `https://host`; the bucket goes into the path.
    pub endpoint: String,
    /// The region that signatures name.
    pub region: String,
    /// The id of the access key.
    pub access_key: String,
    /// The secret of the access key.
    pub secret_key: String,
    /// The time limit for making a connection.
    pub connect_timeout: Duration,
    /// For one request with its answer. Segments are a few megabytes.
    pub attempt_timeout: Duration,
}

impl S3Config {
    /// Region `us-east-1`, 2 s to connect, 15 s for a request.
    pub fn new(
        endpoint: impl Into<String>,
        bucket: impl Into<String>,
        access_key: impl Into<String>,
        secret_key: impl Into<String>,
    ) -> Self {
        Self {
            bucket: bucket.into(),
            endpoint: endpoint.into(),
            region: "us-east-1".into(),
            access_key: access_key.into(),
            secret_key: secret_key.into(),
            connect_timeout: Duration::from_secs(2),
            attempt_timeout: Duration::from_secs(15),
        }
    }
}

impl std::fmt::Debug for S3Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Config")
            .field("bucket", &self.bucket)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("access_key", &self.access_key)
            .field("secret_key", &"***")
            .finish_non_exhaustive()
    }
}

/// A bucket. One attempt per call: [`crate::RetryStore`] and [`crate::Uploader`] try again.
#[derive(Debug, Clone)]
pub struct S3Store {
    client: Client,
    bucket: String,
}

impl S3Store {
    /// A client; nothing is sent yet.
    pub fn new(config: &S3Config) -> Self {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let keys =
            Credentials::new(&config.access_key, &config.secret_key, None, None, "millrace configuration");
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(config.connect_timeout)
            .operation_attempt_timeout(config.attempt_timeout)
            .operation_timeout(config.attempt_timeout)
            .build();
        let settings = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .http_client(http)
            .credentials_provider(keys)
            .region(Region::new(config.region.clone()))
            .endpoint_url(&config.endpoint)
            .force_path_style(true)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            // Stores other than Amazon's know the newer checksums only in part.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build();
        Self { client: Client::from_conf(settings), bucket: config.bucket.clone() }
    }

    /// Makes the bucket unless it is there.
    pub async fn create_bucket(&self) -> Result<(), StoreError> {
        if self.ready().await.is_ok() {
            return Ok(());
        }
        match self.client.create_bucket().bucket(&self.bucket).send().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let owned =
                    error.as_service_error().is_some_and(CreateBucketError::is_bucket_already_owned_by_you);
                if owned { Ok(()) } else { Err(classify(&error, &self.bucket)) }
            }
        }
    }

    async fn delete_batch(&self, keys: &[String]) -> Result<(), StoreError> {
        let objects: Result<Vec<_>, _> =
            keys.iter().map(|key| ObjectIdentifier::builder().key(key).build()).collect();
        let delete = objects
            .and_then(|objects| Delete::builder().set_objects(Some(objects)).quiet(true).build())
            .map_err(|error| StoreError::invalid(error.to_string()))?;
        let done = self.client.delete_objects().bucket(&self.bucket).delete(delete).send().await;
        let done = done.map_err(|error| classify(&error, &self.bucket))?;
        match done.errors().iter().find(|error| error.code() != Some("NoSuchKey")) {
            None => Ok(()),
            Some(error) => Err(refused(error.code().unwrap_or("unknown"), error.key().unwrap_or_default())),
        }
    }
}

fn time(date: Option<&DateTime>) -> SystemTime {
    date.and_then(|date| SystemTime::try_from(*date).ok()).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn size(length: Option<i64>) -> u64 {
    length.and_then(|length| u64::try_from(length).ok()).unwrap_or(0)
}

/// First byte and whole size from `Content-Range: bytes 5-9/100`.
fn content_range(value: &str) -> Option<(u64, u64)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()?))
}

#[async_trait]
impl ObjectStore for S3Store {
    async fn put(&self, key: &str, body: ByteChain, meta: Meta) -> Result<(), StoreError> {
        check_key(key)?;
        meta.check()?;
        let put = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .set_content_type(meta.content_type)
            .set_cache_control(meta.cache_control)
            .set_metadata(Some(meta.user.into_iter().collect()))
            .body(ByteStream::from(body.contiguous()));
        put.send().await.map(drop).map_err(|error| classify(&error, key))
    }

    async fn get(&self, key: &str, range: Option<ByteRange>) -> Result<Object, StoreError> {
        check_key(key)?;
        // A range that names nothing would be ignored, and the whole object sent.
        range.map_or(Ok(()), |range| range.resolve(u64::MAX).map(drop))?;
        let get = self.client.get_object().bucket(&self.bucket).key(key);
        let get = get.set_range(range.map(ByteRange::to_header)).send().await;
        let found = get.map_err(|error| classify(&error, key))?;
        let part = found.content_range().and_then(content_range);
        let (offset, size) = part.unwrap_or((0, size(found.content_length())));
        let meta = Meta {
            content_type: found.content_type().map(str::to_owned),
            cache_control: found.cache_control().map(str::to_owned),
            user: found.metadata().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
        };
        let info = ObjectInfo { size, modified: time(found.last_modified()), meta };
        let body = found.body.collect().await.map_err(|error| StoreError::unavailable(error.to_string()))?;
        Ok(Object { info, body: body.into_bytes(), offset })
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo, StoreError> {
        check_key(key)?;
        let head = self.client.head_object().bucket(&self.bucket).key(key).send().await;
        let found = head.map_err(|error| classify(&error, key))?;
        let meta = Meta {
            content_type: found.content_type().map(str::to_owned),
            cache_control: found.cache_control().map(str::to_owned),
            user: found.metadata().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
        };
        Ok(ObjectInfo { size: size(found.content_length()), modified: time(found.last_modified()), meta })
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        check_key(key)?;
        let gone = self.client.delete_object().bucket(&self.bucket).key(key).send().await;
        match gone.map_err(|error| classify(&error, key)) {
            Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn delete_many(&self, keys: &[String]) -> Result<(), StoreError> {
        keys.iter().try_for_each(|key| check_key(key))?;
        for batch in keys.chunks(DELETE_BATCH) {
            self.delete_batch(batch).await?;
        }
        Ok(())
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        check_prefix(prefix)?;
        let limit = limit.min(LIST_PAGE);
        let list = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(prefix)
            .set_start_after(after.map(str::to_owned))
            .max_keys(limit as i32);
        let found = list.send().await.map_err(|error| classify(&error, prefix))?;
        let entries = found.contents().iter().map(|object| ListEntry {
            key: object.key().unwrap_or_default().to_owned(),
            size: size(object.size()),
            modified: time(object.last_modified()),
        });
        Ok(ListPage { entries: entries.collect(), more: found.is_truncated().unwrap_or(false) })
    }

    async fn ready(&self) -> Result<(), StoreError> {
        let head = self.client.head_bucket().bucket(&self.bucket).send().await;
        head.map(drop).map_err(|error| match classify(&error, &self.bucket) {
            StoreError::NotFound { key } => StoreError::invalid(format!("no bucket {key}")),
            other => other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let config = S3Config::new("http://localhost", "b", "id", "hunter2");
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn content_ranges_are_read() {
        assert_eq!(content_range("bytes 5-9/100"), Some((5, 100)));
        assert_eq!(content_range("bytes */100"), None);
        assert_eq!(content_range(""), None);
    }
}
