//! The encoders that a worker may open: those that are configured, within the licence that the operator accepts.

use millrace_codec::engine::order::EncoderKind;
use serde::Deserialize;

/// The licences of the software that encodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodecPolicy {
    /// Software under the GPL may be used: x264 encodes.
    #[default]
    Gpl,
    /// Nothing under the GPL is opened, and libav must be built without it: OpenH264 encodes.
    Lgpl,
}

/// All encoders, in the order of preference of a configuration that names none.
const ALL: [EncoderKind; 5] =
    [EncoderKind::X264, EncoderKind::Openh264, EncoderKind::Nvenc, EncoderKind::Vaapi, EncoderKind::Qsv];

impl CodecPolicy {
    /// Returns the policy's name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gpl => "gpl",
            Self::Lgpl => "lgpl",
        }
    }

    /// True if the policy allows the encoder.
    pub const fn allows(self, kind: EncoderKind) -> bool {
        matches!(self, Self::Gpl) || !matches!(kind, EncoderKind::X264)
    }

    /// Returns the names of the encoders that the policy allows, for an error's text.
    pub fn allowed(self) -> String {
        let names = ALL.into_iter().filter(|kind| self.allows(*kind)).map(EncoderKind::name);
        names.collect::<Vec<_>>().join(", ")
    }

    /// Returns the encoders to open, in the order of preference: those that are configured, or without any the ones on the CPU
    /// that the policy allows.
    pub fn encoders(self, configured: &[EncoderKind]) -> Vec<EncoderKind> {
        let on_cpu = [EncoderKind::X264, EncoderKind::Openh264];
        let wanted = if configured.is_empty() { &on_cpu[..] } else { configured };
        wanted.iter().copied().filter(|kind| self.allows(*kind)).collect()
    }

    /// Checks that the policy allows every encoder that is configured.
    ///
    /// # Errors
    /// The reason in words, with the encoders that are allowed.
    pub fn check(self, configured: &[EncoderKind]) -> Result<(), String> {
        match configured.iter().find(|kind| !self.allows(**kind)) {
            None => Ok(()),
            Some(kind) => Err(format!(
                "{} is under the GPL, which codec_policy = \"{}\" excludes; allowed are {}",
                kind.name(),
                self.name(),
                self.allowed()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_without_the_gpl_refuses_its_encoders_with_the_list_of_the_others() {
        let configured = [EncoderKind::Nvenc, EncoderKind::X264];
        assert_eq!(CodecPolicy::Gpl.check(&configured), Ok(()));
        let reason = CodecPolicy::Lgpl.check(&configured).unwrap_err();
        assert!(reason.starts_with("x264 is under the GPL"), "{reason}");
        assert!(reason.ends_with("allowed are openh264, nvenc, vaapi, qsv"), "{reason}");
    }

    #[test]
    fn policy_names_the_encoders_of_a_configuration_without_any() {
        assert_eq!(CodecPolicy::Gpl.encoders(&[]), [EncoderKind::X264, EncoderKind::Openh264]);
        assert_eq!(CodecPolicy::Lgpl.encoders(&[]), [EncoderKind::Openh264]);
        assert_eq!(CodecPolicy::Gpl.encoders(&[EncoderKind::Qsv]), [EncoderKind::Qsv]);
    }
}
