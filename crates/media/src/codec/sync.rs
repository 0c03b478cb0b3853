//! The ways in which a decoder can start at a picture.

/// The way in which a decoder can start at a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SyncKind {
    /// A decoder cannot start here.
    #[default]
    None,
    /// A gradual refresh begins: a decoder that starts here shows damaged pictures until the refresh
    /// is complete (H.264: a recovery point whose frame count is not 0).
    Refresh,
    /// A decoder can start here, but pictures that follow and are shown before this one may refer to
    /// pictures before it (H.264: an I picture that is a recovery point; HEVC: CRA).
    OpenGop,
    /// A decoder can start here, and no later picture refers to an earlier one (H.264 and HEVC: IDR).
    Idr,
}

impl SyncKind {
    /// True if a decoder that starts at this picture shows it, and all that are shown later, undamaged.
    pub const fn is_keyframe(self) -> bool {
        matches!(self, Self::OpenGop | Self::Idr)
    }

    /// True if a segment is best cut here: a keyframe, or the beginning of a gradual refresh.
    pub const fn is_join(self) -> bool {
        !matches!(self, Self::None)
    }
}
