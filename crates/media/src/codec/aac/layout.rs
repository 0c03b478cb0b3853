//! The channels of a program config element (ISO/IEC 14496-3 §4.4.1.1).

use super::AacError;
use crate::bits::BitReader;

/// The elements of one side of the listener, in order: true for a pair of channels.
type Elements = Vec<bool>;

/// The elements in front, around and of low frequencies of the channel configurations 1 to 7, and of 7.1 with the
/// fourth pair around.
const USUAL_ORDERS: [(&[bool], &[bool], u32); 8] = [
    (&[false], &[], 0),
    (&[true], &[], 0),
    (&[false, true], &[], 0),
    (&[false, true], &[false], 0),
    (&[false, true], &[true], 0),
    (&[false, true], &[true], 1),
    (&[false, true, true], &[true], 1),
    (&[false, true], &[true, true], 1),
];

/// Reads a program config element, which must hold the elements of a channel configuration in its
/// order (ISO/IEC 14496-3 table 1.19); returns the number of channels, whose configuration is the number
/// itself, but 7 for 8 channels.
///
/// Elements at the sides and at the back are not told apart: decoders put the surround pair of 5.1
/// wherever the room has it.
pub(super) fn channels_of_elements(bits: &mut BitReader<'_>) -> Result<u8, AacError> {
    let elements = Program::read(bits).ok_or(AacError::Truncated)?;
    let channels = elements.channels();
    let surround: Elements = elements.side.iter().chain(&elements.back).copied().collect();
    let order = (&elements.front[..], &surround[..], elements.lfe);
    if USUAL_ORDERS.contains(&order) { Ok(channels) } else { Err(AacError::Layout(channels)) }
}

struct Program {
    front: Elements,
    side: Elements,
    back: Elements,
    lfe: u32,
}

impl Program {
    fn read(bits: &mut BitReader<'_>) -> Option<Self> {
        bits.bits(4 + 2 + 4)?; // instance tag, object type, sampling rate
        let counts = [bits.bits(4)?, bits.bits(4)?, bits.bits(4)?];
        let (lfe, data, coupling) = (bits.bits(2)?, bits.bits(3)?, bits.bits(4)?);
        for width in [4, 4, 3] {
            // The mono, stereo and matrix mixdowns.
            if bits.flag()? {
                bits.bits(width)?;
            }
        }
        let mut sides = [Elements::new(), Elements::new(), Elements::new()];
        for (side, count) in sides.iter_mut().zip(counts) {
            for _ in 0..count {
                side.push(bits.flag()?);
                bits.bits(4)?; // the element's tag
            }
        }
        for _ in 0..lfe + data {
            bits.bits(4)?;
        }
        for _ in 0..coupling {
            bits.bits(5)?;
        }
        bits.align();
        for _ in 0..bits.bits(8)? {
            bits.bits(8)?; // the comment
        }
        let [front, side, back] = sides;
        Some(Self { front, side, back, lfe })
    }

    fn channels(&self) -> u8 {
        let elements = self.front.iter().chain(&self.side).chain(&self.back);
        let channels: u32 = elements.map(|is_pair| 1 + u32::from(*is_pair)).sum();
        (channels + self.lfe) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bits::BitWriter;

    fn read(front: &[bool], side: &[bool], back: &[bool], lfe: u32) -> Result<u8, AacError> {
        let mut bits = BitWriter::default();
        bits.put(10, 0x43);
        for group in [front, side, back] {
            bits.put(4, group.len() as u32);
        }
        bits.put(2, lfe);
        bits.put(3 + 4 + 3, 0);
        for is_pair in front.iter().chain(side).chain(back) {
            bits.put(5, u32::from(*is_pair) << 4);
        }
        for _ in 0..lfe {
            bits.put(4, 0);
        }
        let mut bytes = bits.finish().to_vec();
        bytes.extend([1, b'x']);
        channels_of_elements(&mut BitReader::new(&bytes))
    }

    #[test]
    fn usual_orders_are_known_and_others_are_refused_with_their_channels() {
        let (one, pair) = (&[false][..], &[true][..]);
        let front = &[false, true][..];
        assert_eq!(read(one, &[], &[], 0), Ok(1));
        assert_eq!(read(pair, &[], &[], 0), Ok(2));
        assert_eq!(read(front, &[], &[], 0), Ok(3));
        assert_eq!(read(front, &[], one, 0), Ok(4));
        assert_eq!(read(front, pair, &[], 0), Ok(5));
        assert_eq!(read(front, pair, &[], 1), Ok(6));
        assert_eq!(read(front, &[], pair, 1), Ok(6));
        assert_eq!(read(front, pair, pair, 1), Ok(8));
        assert_eq!(read(&[false, true, true], &[], pair, 1), Ok(8));
        assert_eq!(read(pair, &[], pair, 0), Err(AacError::Layout(4)), "quad");
        assert_eq!(read(pair, &[], &[], 1), Err(AacError::Layout(3)), "2.1");
        assert_eq!(read(&[], &[], &[], 0), Err(AacError::Layout(0)));
        assert_eq!(channels_of_elements(&mut BitReader::new(&[0xff; 9])), Err(AacError::Truncated));
    }
}
