//! From the client library's errors to ours.

use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

use crate::StoreError;

type Response = aws_sdk_s3::config::http::HttpResponse;

/// Maps an error of the client library about `key` to a [`StoreError`].
pub(super) fn classify<E>(error: &SdkError<E, Response>, key: &str) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let reason = || match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        _ => DisplayErrorContext(error).to_string(),
    };
    let status = error.raw_response().map(|response| response.status().as_u16());
    match (error, status) {
        (SdkError::ConstructionFailure(_), _) => StoreError::invalid(reason()),
        // Whatever its status: 400 and 403 are in use for a full bucket beside 507. There is room again as soon as the operator
        // or retention makes some, and what waits for it is not given up before.
        _ if error.code().is_some_and(is_full) => StoreError::unavailable(reason()),
        (_, Some(404)) if error.code() == Some("NoSuchBucket") => StoreError::invalid(reason()),
        (_, Some(404)) => StoreError::not_found(key),
        (_, Some(401 | 403)) if error.code() != Some("RequestTimeTooSkewed") => {
            StoreError::Denied { reason: reason() }
        }
        (_, Some(408 | 409 | 425 | 429)) => StoreError::unavailable(reason()),
        (_, Some(status)) if (400..500).contains(&status) => StoreError::invalid(reason()),
        _ => StoreError::unavailable(reason()),
    }
}

/// True for the error codes of a bucket or a service without room: MinIO's quota and free-drive threshold, Ceph's quota.
fn is_full(code: &str) -> bool {
    ["Quota", "StorageFull", "InsufficientStorage"].iter().any(|part| code.contains(part))
}

/// One object of a batch that was not deleted.
pub(super) fn refused(code: &str, key: &str) -> StoreError {
    match code {
        "AccessDenied" => StoreError::Denied { reason: format!("delete {key}") },
        _ => StoreError::unavailable(format!("delete {key}: {code}")),
    }
}
