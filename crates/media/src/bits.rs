//! A bounded big-endian bit reader with Exp-Golomb codes (H.264 §9.1).

use bytes::Bytes;

/// Reads bits, most significant first. Every method returns `None` once the input is exhausted.
pub(crate) struct BitReader<'a> {
    data: &'a [u8],
    bit: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) const fn new(data: &'a [u8]) -> Self {
        Self { data, bit: 0 }
    }

    pub(crate) fn flag(&mut self) -> Option<bool> {
        Some(self.bits(1)? == 1)
    }

    /// Reads a number of up to 32 bits.
    pub(crate) fn bits(&mut self, count: u32) -> Option<u32> {
        let mut value = 0u64;
        for _ in 0..count.min(32) {
            let byte = *self.data.get(self.bit / 8)?;
            value = (value << 1) | u64::from((byte >> (7 - self.bit % 8)) & 1);
            self.bit += 1;
        }
        u32::try_from(value).ok()
    }

    /// Skips the bits up to the next whole byte.
    pub(crate) const fn align(&mut self) {
        self.bit = self.bit.next_multiple_of(8);
    }

    /// Reads an unsigned Exp-Golomb code (`ue(v)`), which has at most 31 leading zeros.
    pub(crate) fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        let rest = self.bits(zeros)?;
        u32::try_from((1u64 << zeros) - 1 + u64::from(rest)).ok()
    }

    /// Reads a signed Exp-Golomb code (`se(v)`, H.264 §9.1.1).
    pub(crate) fn se(&mut self) -> Option<i64> {
        let code = i64::from(self.ue()?);
        Some(if code % 2 == 1 { (code + 1) / 2 } else { -(code / 2) })
    }
}

/// Writes bits, most significant first.
#[derive(Default)]
pub(crate) struct BitWriter {
    bytes: Vec<u8>,
    bits: u32,
}

impl BitWriter {
    /// Appends the lowest `count` bits of a value.
    pub(crate) fn put(&mut self, count: u32, value: u32) {
        for shift in (0..count).rev() {
            if self.bits.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> shift & 1) as u8) << (7 - self.bits % 8);
            }
            self.bits += 1;
        }
    }

    /// Returns the bytes; the last one is filled with zero bits.
    pub(crate) fn finish(self) -> Bytes {
        self.bytes.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reader_decodes_exp_golomb_codes() {
        // 1 | 010 | 011 | 00100 | 1... = ue 0, 1, 2, 3, 0
        let mut reader = BitReader::new(&[0b1010_0110, 0b0100_1000]);
        assert_eq!(
            (reader.ue(), reader.ue(), reader.ue(), reader.ue()),
            (Some(0), Some(1), Some(2), Some(3))
        );
        let mut reader = BitReader::new(&[0b1010_0110, 0b0100_1000]);
        assert_eq!(
            (reader.se(), reader.se(), reader.se(), reader.se()),
            (Some(0), Some(1), Some(-1), Some(2))
        );
    }

    #[test]
    fn reader_returns_none_at_the_end_of_its_input() {
        let mut reader = BitReader::new(&[0, 0]);
        assert_eq!(reader.ue(), None);
        assert_eq!(BitReader::new(&[0; 5]).ue(), None);
        assert_eq!(BitReader::new(&[]).bits(1), None);
    }
}
