//! Pictures of high dynamic range (BT.2100) for standard displays.

use std::sync::Arc;

use ffmpeg_next::{ffi, frame};

use super::frame::{Picture, Pool};
use crate::CodecError;

/// Nodes of the table in each direction, eight sample values apart.
const NODES: usize = 33;
/// Binary digits of the sample values between two nodes.
const STEP: u32 = 3;
/// Luminance of white on a standard display, in cd/m² (BT.2408 §2.1).
const WHITE: f32 = 203.0;
/// Luminance of the brightest sample that is told apart, in cd/m²: what most such pictures are mastered for.
const PEAK: f32 = 1000.0;
/// Luminance up to which nothing is compressed, as a part of white.
const KNEE: f32 = 0.75;

/// A curve of BT.2100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curve {
    /// Perceptual quantisation (SMPTE ST 2084).
    Pq,
    /// Hybrid log-gamma (ARIB STD-B67).
    Hlg,
}

impl Curve {
    /// Returns the curve of a picture of high dynamic range, `None` for any other.
    pub(crate) fn of(picture: &frame::Video) -> Option<Self> {
        use ffi::AVColorTransferCharacteristic as T;
        // SAFETY: the frame is valid for the borrow.
        match unsafe { (*picture.as_ptr()).color_trc } {
            T::AVCOL_TRC_SMPTE2084 => Some(Self::Pq),
            T::AVCOL_TRC_ARIB_STD_B67 => Some(Self::Hlg),
            _ => None,
        }
    }

    /// Returns the light that a colour stands for, as parts of white.
    fn light(self, coded: [f32; 3]) -> [f32; 3] {
        match self {
            Self::Pq => coded.map(|value| {
                let root = value.powf(32.0 / 2523.0);
                let linear = (root - 0.835_937_5).max(0.0) / (18.851_563 - 18.6875 * root);
                linear.powf(8192.0 / 1305.0) * 10_000.0 / WHITE
            }),
            Self::Hlg => {
                let scene = coded.map(|value| {
                    if value <= 0.5 {
                        value * value / 3.0
                    } else {
                        (((value - 0.559_910_7) / 0.178_832_77).exp() + 0.284_668_92) / 12.0
                    }
                });
                let luminance = 0.2627 * scene[0] + 0.678 * scene[1] + 0.0593 * scene[2];
                let gain = luminance.powf(0.2) * PEAK / WHITE;
                scene.map(|value| value * gain)
            }
        }
    }
}

/// A table from colours of BT.2020 with a curve of BT.2100 to colours of BT.709, all in 8 bits of limited range.
pub(crate) struct ToneMap {
    table: Vec<[f32; 3]>,
    pool: Pool,
}

impl ToneMap {
    pub(crate) fn new(curve: Curve, width: u32, height: u32) -> Self {
        let node = |at: usize| (at << STEP) as f32;
        let mut table = Vec::with_capacity(NODES * NODES * NODES);
        for blue in 0..NODES {
            for red in 0..NODES {
                table.extend((0..NODES).map(|luma| standard(curve, [node(luma), node(blue), node(red)])));
            }
        }
        Self { table, pool: Pool::new(width, height) }
    }

    /// Returns the picture for a standard display.
    pub(crate) fn map(&mut self, picture: &Picture) -> Result<Picture, CodecError> {
        let (table, source) = (&self.table, Arc::clone(picture));
        self.pool.picture(|target| {
            convert(table, &source, target);
            // SAFETY: the frame is valid and its own.
            unsafe {
                let target = target.as_mut_ptr();
                (*target).color_range = ffi::AVColorRange::AVCOL_RANGE_MPEG;
                (*target).colorspace = ffi::AVColorSpace::AVCOL_SPC_BT709;
            }
            Ok(())
        })
    }
}

/// Converts one colour: luma, the difference of blue, and that of red, of sample values of 8 bits in limited range.
fn standard(curve: Curve, [luma, blue, red]: [f32; 3]) -> [f32; 3] {
    let (luma, blue, red) = ((luma - 16.0) / 219.0, (blue - 128.0) / 224.0, (red - 128.0) / 224.0);
    let coded = [luma + 1.4746 * red, luma - 0.164_55 * blue - 0.571_35 * red, luma + 1.8814 * blue];
    let [r, g, b] = curve.light(coded.map(|value| value.clamp(0.0, 1.0)));
    // The brightest component decides, so that hues stay.
    let most = r.max(g).max(b);
    let gain = if most > KNEE { compress(most) / most } else { 1.0 };
    let narrow = [
        1.6605 * r - 0.5876 * g - 0.0728 * b,
        -0.1246 * r + 1.1329 * g - 0.0083 * b,
        -0.0182 * r - 0.1006 * g + 1.1187 * b,
    ];
    let [r, g, b] = narrow.map(|value| (value * gain).clamp(0.0, 1.0).powf(1.0 / 2.4));
    let luma = 0.2126 * r + 0.7152 * g + 0.0722 * b;
    [16.0 + 219.0 * luma, 128.0 + 224.0 * (b - luma) / 1.8556, 128.0 + 224.0 * (r - luma) / 1.5748]
}

/// Brings light above the knee below white, without a bend at the knee, and [`PEAK`] to white.
fn compress(light: f32) -> f32 {
    let room = 1.0 - KNEE;
    let (over, peak) = ((light - KNEE) / room, (PEAK / WHITE - KNEE) / room);
    KNEE + room * (over * (1.0 + over / (peak * peak)) / (1.0 + over)).min(1.0)
}

fn convert(table: &[[f32; 3]], source: &frame::Video, target: &mut frame::Video) {
    let (width, height) = (source.width() as usize / 2, source.height() as usize / 2);
    let strides: [usize; 3] = std::array::from_fn(|plane| source.stride(plane));
    let targets: [usize; 3] = std::array::from_fn(|plane| target.stride(plane));
    for line in 0..height {
        for column in 0..width {
            let blue = source.data(1)[line * strides[1] + column];
            let red = source.data(2)[line * strides[2] + column];
            let chroma = Chroma::of(blue, red);
            let mut sum = 0;
            for (down, across) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let at = |stride: usize| (2 * line + down) * stride + 2 * column + across;
                let luma = source.data(0)[at(strides[0])];
                sum += u32::from(luma);
                target.data_mut(0)[at(targets[0])] = chroma.look_up(table, luma, 0);
            }
            let mean = (sum / 4) as u8;
            target.data_mut(1)[line * targets[1] + column] = chroma.look_up(table, mean, 1);
            target.data_mut(2)[line * targets[2] + column] = chroma.look_up(table, mean, 2);
        }
    }
}

/// The four lines of the table around a pair of colour differences, and their weights.
struct Chroma([(usize, f32); 4]);

impl Chroma {
    fn of(blue: u8, red: u8) -> Self {
        let split = |value: u8| ((value >> STEP) as usize, f32::from(value & 7) / 8.0);
        let ((blue, over), (red, up)) = (split(blue), split(red));
        let line = |blue: usize, red: usize| (blue * NODES + red) * NODES;
        Self([
            (line(blue, red), (1.0 - over) * (1.0 - up)),
            (line(blue, red + 1), (1.0 - over) * up),
            (line(blue + 1, red), over * (1.0 - up)),
            (line(blue + 1, red + 1), over * up),
        ])
    }

    /// Returns a component of the colour with this luma, between the nodes around it.
    fn look_up(&self, table: &[[f32; 3]], luma: u8, component: usize) -> u8 {
        let (node, part) = ((luma >> STEP) as usize, f32::from(luma & 7) / 8.0);
        let value: f32 = self.0.iter().fold(0.5, |sum, (line, weight)| {
            let (low, high) = (table[line + node][component], table[line + node + 1][component]);
            sum + weight * (low + part * (high - low))
        });
        value as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_of_the_standard_display_stays_white_and_brighter_light_is_compressed() {
        // 58 % of PQ is 203 cd/m², black is black, and 75 % is about 1000 cd/m².
        let luma = |coded: f32| standard(Curve::Pq, [16.0 + 219.0 * coded, 128.0, 128.0]);
        assert!(luma(0.0)[0] < 17.0);
        let (white, peak) = (luma(0.5807)[0], luma(0.7518)[0]);
        assert!((210.0..232.0).contains(&white), "{white}");
        assert!((233.0..=235.5).contains(&peak), "{peak}");
        for coded in [0.1, 0.3, 0.5] {
            let [luma, blue, red] = luma(coded);
            assert!(
                (blue - 128.0).abs() < 0.6 && (red - 128.0).abs() < 0.6,
                "grey stays grey: {luma} {blue} {red}"
            );
        }
        let hlg = |coded: f32| standard(Curve::Hlg, [16.0 + 219.0 * coded, 128.0, 128.0])[0];
        assert!((210.0..232.0).contains(&hlg(0.75)), "{}", hlg(0.75));
        assert!((233.0..=235.5).contains(&hlg(1.0)), "{}", hlg(1.0));
    }

    #[test]
    fn table_gives_what_the_formula_gives() {
        let map = ToneMap::new(Curve::Pq, 16, 16);
        for (luma, blue, red) in [(64, 120, 140), (100, 128, 128), (140, 99, 161), (16, 128, 128)] {
            let exact = standard(Curve::Pq, [f32::from(luma), f32::from(blue), f32::from(red)]);
            for (component, exact) in exact.into_iter().enumerate() {
                let found = Chroma::of(blue, red).look_up(&map.table, luma, component);
                assert!((f32::from(found) - exact).abs() < 2.5, "{luma} {blue} {red}: {found} for {exact}");
            }
        }
    }
}
