//! MP3: the frame header, which is all the configuration there is.

/// Why an MP3 frame header was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Mp3Error {
    /// Fewer than the four bytes of a header.
    #[error("MP3 frame header is truncated")]
    Truncated,
    /// Bytes that do not begin with the 11 bits of the sync word.
    #[error("no MP3 sync word")]
    Sync,
    /// MPEG audio of another layer.
    #[error("MPEG audio is not layer III")]
    Layer,
    /// A reserved version, bit rate or sampling rate.
    #[error("MP3 {0} is reserved")]
    Reserved(&'static str),
}

/// The version of MPEG audio, which decides sampling rates and frame length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MpegVersion {
    /// MPEG-1 (ISO/IEC 11172-3): 32 to 48 kHz.
    One,
    /// MPEG-2 (ISO/IEC 13818-3): 16 to 24 kHz.
    Two,
    /// MPEG-2.5, the usual extension to 8 to 12 kHz.
    TwoAndAHalf,
}

/// Bit rates of layer III in kb/s by index from 1 on (ISO/IEC 11172-3 §2.4.2.3, ISO/IEC 13818-3
/// §2.4.2.3): MPEG-1, and the other versions.
const BIT_RATES: [[u32; 14]; 2] = [
    [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
];

/// Sampling rates of MPEG-1 in Hz by index; MPEG-2 has half of each, MPEG-2.5 a quarter.
const RATES: [u32; 3] = [44_100, 48_000, 32_000];

/// The fields of a frame header (ISO/IEC 11172-3 §2.4.1.3) that a decoder must know in advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mp3Header {
    /// The version of MPEG audio.
    pub version: MpegVersion,
    /// The sampling rate in Hz, 8 000 to 48 000.
    pub rate: u32,
    /// The number of channels, 1 or 2.
    pub channels: u8,
}

impl Mp3Header {
    /// Reads the header at the start of a frame.
    pub fn parse(data: &[u8]) -> Result<Self, Mp3Error> {
        let &[sync, version, rates, mode, ..] = data else { return Err(Mp3Error::Truncated) };
        if sync != 0xff || version & 0xe0 != 0xe0 {
            return Err(Mp3Error::Sync);
        }
        let (version, divisor) = match version >> 3 & 3 {
            0 => (MpegVersion::TwoAndAHalf, 4),
            2 => (MpegVersion::Two, 2),
            3 => (MpegVersion::One, 1),
            _ => return Err(Mp3Error::Reserved("version")),
        };
        if data[1] >> 1 & 3 != 1 {
            return Err(Mp3Error::Layer);
        }
        if rates >> 4 == 15 {
            return Err(Mp3Error::Reserved("bit rate"));
        }
        let rate = RATES.get(usize::from(rates >> 2 & 3)).ok_or(Mp3Error::Reserved("sampling rate"))?;
        Ok(Self { version, rate: rate / divisor, channels: if mode >> 6 == 3 { 1 } else { 2 } })
    }

    /// Returns the bytes of the frame that begins with `data`, its header included; `None` for a frame of
    /// free bit rate, whose length is not stated.
    pub fn frame_bytes(data: &[u8]) -> Result<Option<usize>, Mp3Error> {
        let header = Self::parse(data)?;
        let index = usize::from(data[2] >> 4);
        let Some(index) = index.checked_sub(1) else { return Ok(None) };
        let kilobits = BIT_RATES[usize::from(header.version != MpegVersion::One)][index];
        let padding = u32::from(data[2] >> 1 & 1);
        let bytes = header.frame_samples() / 8 * kilobits * 1_000 / header.rate + padding;
        Ok(Some(bytes as usize))
    }

    /// Returns the four bytes of a header of free bit rate with these fields: the same for all
    /// frames of a stream, so that it serves as the configuration record, which MP3 has not.
    pub const fn record(&self) -> [u8; 4] {
        let (version, divisor) = match self.version {
            MpegVersion::TwoAndAHalf => (0, 4),
            MpegVersion::Two => (2, 2),
            MpegVersion::One => (3, 1),
        };
        let mut index = 0;
        while index < 2 && RATES[index] != self.rate.saturating_mul(divisor) {
            index += 1;
        }
        [0xff, 0xe3 | version << 3, (index as u8) << 2, if self.channels == 1 { 0xc0 } else { 0 }]
    }

    /// Returns the samples of each channel in a frame.
    pub const fn frame_samples(&self) -> u32 {
        match self.version {
            MpegVersion::One => 1_152,
            MpegVersion::Two | MpegVersion::TwoAndAHalf => 576,
        }
    }

    /// Returns the object type indication of an ES descriptor (ISO/IEC 14496-1 table 5): MPEG-1 or
    /// MPEG-2 audio.
    pub const fn object_type(&self) -> u8 {
        match self.version {
            MpegVersion::One => 0x6b,
            MpegVersion::Two | MpegVersion::TwoAndAHalf => 0x69,
        }
    }

    /// Returns the RFC 6381 codec string: `mp4a.` and the object type indication, `mp4a.6B` or
    /// `mp4a.69`. Apple's name for the same media is `mp4a.40.34`, which is wrong for an ES
    /// descriptor of this object type.
    pub fn codecs(&self) -> String {
        format!("mp4a.{:02X}", self.object_type())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn header_gives_version_rate_and_channels() {
        let cases: [([u8; 4], u32, u8, u32, &str); 4] = [
            ([0xff, 0xfb, 0x90, 0x64], 44_100, 2, 1_152, "mp4a.6B"), // lame, 128 kb/s, joint stereo
            ([0xff, 0xfa, 0x94, 0xc4], 48_000, 1, 1_152, "mp4a.6B"), // with CRC, mono
            ([0xff, 0xf3, 0x84, 0x64], 24_000, 2, 576, "mp4a.69"),
            ([0xff, 0xe3, 0x18, 0xc4], 8_000, 1, 576, "mp4a.69"),
        ];
        for (bytes, rate, channels, samples, codecs) in cases {
            let header = Mp3Header::parse(&bytes).unwrap();
            assert_eq!((header.rate, header.channels, header.frame_samples()), (rate, channels, samples));
            assert_eq!(header.codecs(), codecs);
        }
    }

    #[test]
    fn header_of_other_media_is_refused() {
        assert_eq!(Mp3Header::parse(&[0xff, 0xfb]), Err(Mp3Error::Truncated));
        assert_eq!(Mp3Header::parse(b"ID3\x04"), Err(Mp3Error::Sync));
        assert_eq!(Mp3Header::parse(&[0xff, 0xfd, 0x90, 0x64]), Err(Mp3Error::Layer));
        assert_eq!(Mp3Header::parse(&[0xff, 0xeb, 0x90, 0x64]), Err(Mp3Error::Reserved("version")));
        assert_eq!(Mp3Header::parse(&[0xff, 0xfb, 0xf0, 0x64]), Err(Mp3Error::Reserved("bit rate")));
        assert_eq!(Mp3Header::parse(&[0xff, 0xfb, 0x9c, 0x64]), Err(Mp3Error::Reserved("sampling rate")));
    }

    #[test]
    fn frame_length_follows_from_bit_rate_sampling_rate_and_padding() {
        for (bytes, length) in [
            ([0xff, 0xfb, 0x90, 0x64], Some(417)), // 128 kb/s at 44.1 kHz
            ([0xff, 0xfb, 0x92, 0x64], Some(418)), // padded
            ([0xff, 0xfb, 0x94, 0xc4], Some(384)), // 48 kHz
            ([0xff, 0xf3, 0x84, 0x64], Some(192)), // 64 kb/s at 24 kHz
            ([0xff, 0xfb, 0x00, 0x64], None),
        ] {
            assert_eq!(Mp3Header::frame_bytes(&bytes), Ok(length), "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn every_header_equals_its_record(data in prop::collection::vec(any::<u8>(), 0..8), version in 0xe0u8..) {
            let _ = Mp3Header::frame_bytes(&data);
            let likely = [&[0xff, version], &data[..]].concat();
            if let Ok(header) = Mp3Header::parse(&likely) {
                prop_assert_eq!(Mp3Header::parse(&header.record()), Ok(header));
                prop_assert!((8_000..=48_000).contains(&header.rate));
            }
        }
    }
}
