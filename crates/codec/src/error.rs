use thiserror::Error;

/// The errors of libav, each with the step that failed. libav's own error type stays inside this crate.
#[derive(Debug, Error)]
pub enum CodecError {
    /// The installed libav lacks the codec.
    #[error("libav has no {codec}; install a build that includes it")]
    Missing {
        /// libav's name of the codec.
        codec: &'static str,
    },
    /// A step that libav refused.
    #[error("libav failed at {step}: {message}")]
    Libav {
        /// The step, as a verb phrase.
        step: &'static str,
        /// The error text that libav gives.
        message: String,
    },
    /// A step that OpenH264 refused.
    #[error("OpenH264 failed at {step}: {message}")]
    Openh264 {
        /// The step, as a verb phrase.
        step: &'static str,
        /// The error text that OpenH264 gives.
        message: String,
    },
    /// The input does not have the shape the codec's specification asks for.
    #[error("malformed {what}")]
    Malformed {
        /// The structure that could not be allocated or read.
        what: &'static str,
    },
}

impl CodecError {
    pub(crate) fn libav(step: &'static str) -> impl FnOnce(ffmpeg_next::Error) -> Self {
        move |error| {
            end_without_memory(step);
            Self::Libav { step, message: error.to_string() }
        }
    }
}

/// Bytes without which the process is out of memory: more than a picture of 2160 lines.
const LEAST_MEMORY: usize = 16 << 20;

/// Ends the process if there is no memory left, as an allocation of Rust's does: libav goes on without it, with pictures that are
/// damaged or missing, and its errors seldom tell. A new process has its memory back.
pub(crate) fn end_without_memory(step: &str) {
    let mut room: Vec<u8> = Vec::new();
    if std::hint::black_box(&mut room).try_reserve_exact(LEAST_MEMORY).is_err() {
        eprintln!("there is no memory left at {step}; the process ends");
        std::process::abort();
    }
    drop(std::hint::black_box(room));
}
