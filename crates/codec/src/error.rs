use thiserror::Error;

/// What can go wrong in libav, with the step that failed. libav's own error type stays inside this crate.
#[derive(Debug, Error)]
pub enum CodecError {
    /// The installed libav lacks the codec.
    #[error("libav has no {codec}; install a build that includes it")]
    Missing {
        /// libav's name of the codec.
        codec: &'static str,
    },
    /// libav refused a step.
    #[error("libav failed at {step}: {message}")]
    Libav {
        /// What was being done.
        step: &'static str,
        /// libav's words.
        message: String,
    },
    /// The input does not have the shape the codec's specification asks for.
    #[error("malformed {what}")]
    Malformed {
        /// Which structure.
        what: &'static str,
    },
}

impl CodecError {
    pub(crate) fn libav(step: &'static str) -> impl FnOnce(ffmpeg_next::Error) -> Self {
        move |error| Self::Libav { step, message: error.to_string() }
    }
}
