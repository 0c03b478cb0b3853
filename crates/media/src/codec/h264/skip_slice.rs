//! The slice that repeats the last reference picture: every macroblock is skipped.

/// Writes bits, most significant first.
#[derive(Debug, Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    used: u32,
}

impl BitWriter {
    pub(super) fn bit(&mut self, bit: bool) {
        if self.used.is_multiple_of(8) {
            self.bytes.push(0);
        }
        if let Some(byte) = self.bytes.last_mut() {
            *byte |= u8::from(bit) << (7 - self.used % 8);
        }
        self.used += 1;
    }

    pub(super) fn bits(&mut self, value: u32, count: u32) {
        (0..count).rev().for_each(|at| self.bit(value >> at & 1 == 1));
    }

    /// Writes an unsigned Exp-Golomb code (H.264 §9.1).
    pub(super) fn ue(&mut self, value: u32) {
        let code = u64::from(value) + 1;
        let length = 64 - code.leading_zeros();
        (1..length).for_each(|_| self.bit(false));
        (0..length).rev().for_each(|at| self.bit(code >> at & 1 == 1));
    }

    /// Writes a signed Exp-Golomb code (H.264 §9.1.1).
    pub(super) fn se(&mut self, value: i32) {
        self.ue(if value > 0 { 2 * value as u32 - 1 } else { 2 * value.unsigned_abs() });
    }

    /// Writes ones up to the next byte, as CABAC slices do before their data.
    fn align_with_ones(&mut self) {
        while !self.used.is_multiple_of(8) {
            self.bit(true);
        }
    }

    /// Returns the bytes with emulation prevention (H.264 §7.4.1).
    pub(super) fn into_escaped(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes.len() + 4);
        let mut zeros = 0;
        for byte in self.bytes {
            if zeros >= 2 && byte <= 3 {
                out.push(3);
                zeros = 0;
            }
            zeros = if byte == 0 { zeros + 1 } else { 0 };
            out.push(byte);
        }
        out
    }
}

/// Writes the data of a CAVLC slice of `macroblocks` skipped macroblocks, and the stop bit.
pub(super) fn write_cavlc(out: &mut BitWriter, macroblocks: u32) {
    out.ue(macroblocks); // mb_skip_run
    out.bit(true);
}

/// `rangeTabLPS` (H.264 table 9-44) of the states from [`FIRST_STATE`] to 62, which a run of most
/// probable symbols passes.
const RANGES: [[u32; 4]; 21] = [
    [16, 20, 23, 27],
    [15, 19, 22, 25],
    [14, 18, 21, 24],
    [14, 17, 20, 23],
    [13, 16, 19, 22],
    [12, 15, 18, 21],
    [12, 14, 17, 20],
    [11, 14, 16, 19],
    [11, 13, 15, 18],
    [10, 12, 15, 17],
    [10, 12, 14, 16],
    [9, 11, 13, 15],
    [9, 11, 12, 14],
    [8, 10, 12, 14],
    [8, 9, 11, 13],
    [7, 9, 11, 12],
    [7, 9, 10, 12],
    [7, 8, 10, 11],
    [6, 8, 9, 11],
    [6, 7, 9, 10],
    [6, 7, 8, 9],
];
/// QP of the slice: with it, and `cabac_init_idc` 0, `mb_skip_flag` starts in state 42 with 1 as the
/// most probable symbol (H.264 §9.3.1.1: `((23 * 51) >> 4) + 33 = 106`).
pub(super) const SLICE_QP: i32 = 51;

/// The arithmetic encoder (H.264 §9.3.4.2) for symbols that are all the most probable ones.
struct Encoder<'a> {
    out: &'a mut BitWriter,
    low: u32,
    range: u32,
    is_first: bool,
    outstanding: u32,
}

impl Encoder<'_> {
    fn put(&mut self, bit: bool) {
        if !std::mem::replace(&mut self.is_first, false) {
            self.out.bit(bit);
        }
        for _ in 0..std::mem::take(&mut self.outstanding) {
            self.out.bit(!bit);
        }
    }

    fn renormalise(&mut self) {
        while self.range < 256 {
            if self.low < 256 {
                self.put(false);
            } else if self.low >= 512 {
                self.low -= 512;
                self.put(true);
            } else {
                self.low -= 256;
                self.outstanding += 1;
            }
            self.range <<= 1;
            self.low <<= 1;
        }
    }

    fn most_probable(&mut self, state: usize) {
        self.range -= RANGES[state][(self.range >> 6 & 3) as usize];
        self.renormalise();
    }

    fn terminate(&mut self, is_end: bool) {
        self.range -= 2;
        if !is_end {
            self.renormalise();
            return;
        }
        self.low += self.range;
        self.range = 2;
        self.renormalise();
        let low = self.low;
        self.put(low >> 9 & 1 == 1);
        // The last of these bits is the stop bit.
        self.out.bits(low >> 7 & 3 | 1, 2);
    }
}

/// Writes the data of a CABAC slice of `macroblocks` skipped macroblocks, and the stop bit. A slice of pairs
/// may end behind a pair only (H.264 §7.3.4).
pub(super) fn write_cabac(out: &mut BitWriter, macroblocks: u32, is_paired: bool) {
    out.align_with_ones();
    let mut encoder = Encoder { out, low: 0, range: 510, is_first: true, outstanding: 0 };
    let mut state = 0;
    for macroblock in 1..=macroblocks {
        encoder.most_probable(state);
        state = (state + 1).min(RANGES.len() - 1);
        if !is_paired || macroblock.is_multiple_of(2) {
            encoder.terminate(macroblock == macroblocks);
        }
    }
}
