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
        move |error| Self::Libav { step, message: error.to_string() }
    }
}
