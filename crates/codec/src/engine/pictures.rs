//! Thumbnails and storyboards, and the watch over black and frozen pictures.

use std::sync::mpsc::SyncSender;

use ffmpeg_next::{format::Pixel, frame};

use super::ladder::Ended;
use super::order::VideoSource;
use super::product::{Condition, Product};
use super::watch::Steady;
use crate::CodecError;
use crate::av::{Picture, Scaler, black, is_full_range, jpeg, paste};

/// Ticks of media from one thumbnail to the next.
const THUMBNAIL_EVERY: i64 = 10 * 90_000;
/// The widest thumbnail, in pixels.
const THUMBNAIL_WIDTH: u32 = 640;
/// Size of a tile of a storyboard.
const TILE: (u32, u32) = (160, 90);
/// Tiles in a line of a storyboard's sheet, and lines of tiles.
const TILES: u32 = 5;
/// Points across and down at which a picture is looked at: fine enough for a mouse pointer at 1080 lines.
const POINTS: (usize, usize) = (160, 90);
/// The brightest sample of black, in limited range: 16 is black, and coding moves it by some.
const BLACK: u8 = 24;
/// The same in full range.
const BLACK_FULL: u8 = 10;
/// The difference of two samples that coding alone makes.
const NOISE: u8 = 8;
/// One point of so many may break a rule: a logo's edge, noise of coding.
const FEW: usize = 500;

/// The eyes of a transcoder.
pub(super) struct Pictures {
    products: SyncSender<Product>,
    scaler: Option<Scaler>,
    tile: Option<Scaler>,
    sheet: Sheet,
    next: Option<i64>,
    black: Steady,
    frozen: Steady,
    /// The points of the picture that the later ones are compared with.
    before: Vec<u8>,
    points: Vec<u8>,
}

/// A sheet of a storyboard that is not full yet.
struct Sheet {
    number: u32,
    tiles: u8,
    first_pts: i64,
    picture: frame::Video,
}

impl Pictures {
    pub(super) fn new(products: SyncSender<Product>) -> Self {
        let (black, frozen) = (Steady::new(Condition::Black), Steady::new(Condition::Frozen));
        let (before, points) = (Vec::new(), Vec::new());
        let (scaler, tile, next, sheet) = (None, None, None, Sheet::empty(0));
        Self { products, scaler, tile, sheet, next, black, frozen, before, points }
    }

    /// Begins a source: its first picture becomes a thumbnail.
    pub(super) fn configure(&mut self, source: &VideoSource) {
        let (width, height) = fit(source, (THUMBNAIL_WIDTH, u32::MAX));
        self.scaler = Some(Scaler::for_jpeg(width, height));
        let (width, height) = fit(source, TILE);
        self.tile = Some(Scaler::for_jpeg(width, height));
        self.next = None;
    }

    /// Looks at a picture that is shown for `ticks`; `small` is the same picture at a smaller size, if there is one.
    pub(super) fn look(
        &mut self,
        pts: i64,
        ticks: u64,
        picture: &Picture,
        small: Option<&Picture>,
    ) -> Result<(), Ended> {
        self.watch(small.unwrap_or(picture), ticks)?;
        // Behind a jump back the next thumbnail is made at once.
        let is_due = self.next.is_none_or(|next| pts >= next || pts < next - THUMBNAIL_EVERY);
        if !is_due {
            return Ok(());
        }
        self.next = Some(pts + THUMBNAIL_EVERY);
        match self.thumbnail(pts, picture) {
            Ok(products) => products.into_iter().try_for_each(|product| self.product(product)),
            Err(error) => {
                tracing::warn!(pts, %error, "a thumbnail is left out");
                Ok(())
            }
        }
    }

    fn thumbnail(&mut self, pts: i64, picture: &Picture) -> Result<[Product; 2], CodecError> {
        const NO_SOURCE: CodecError = CodecError::Malformed { what: "picture without a configuration" };
        let thumbnail = self.scaler.as_mut().ok_or(NO_SOURCE)?.scale(picture)?;
        let tile = self.tile.as_mut().ok_or(NO_SOURCE)?.scale(&thumbnail)?;
        let sheet = self.sheet.add(pts, &tile)?;
        Ok([Product::Thumbnail { pts, jpeg: jpeg(&thumbnail)? }, sheet])
    }

    fn watch(&mut self, picture: &Picture, ticks: u64) -> Result<(), Ended> {
        if !sample(picture, &mut self.points) {
            return Ok(());
        }
        let few = self.points.len() / FEW;
        let most = if is_full_range(picture) { BLACK_FULL } else { BLACK };
        let is_black = self.points.iter().filter(|point| **point > most).count() <= few;
        let differ = |(left, right): &(&u8, &u8)| left.abs_diff(**right) > NOISE;
        let is_same = self.before.len() == self.points.len()
            && self.before.iter().zip(&self.points).filter(differ).count() <= few;
        if !is_same {
            self.before.clone_from(&self.points);
        }
        let changes = [self.black.observe(is_black, ticks), self.frozen.observe(is_same, ticks)];
        changes.into_iter().flatten().try_for_each(|change| self.product(change))
    }

    fn product(&self, product: Product) -> Result<(), Ended> {
        self.products.send(product).map_err(|_| Ended)
    }
}

impl Sheet {
    fn empty(number: u32) -> Self {
        Self { number, tiles: 0, first_pts: 0, picture: black(TILE.0 * TILES, TILE.1 * TILES) }
    }

    /// Adds a tile and returns the sheet so far.
    fn add(&mut self, pts: i64, tile: &frame::Video) -> Result<Product, CodecError> {
        if u32::from(self.tiles) == TILES * TILES {
            *self = Self::empty(self.number + 1);
        }
        if self.tiles == 0 {
            self.first_pts = pts;
        }
        let at = u32::from(self.tiles);
        let middle = |room: u32, side: u32| (room.saturating_sub(side) / 2) & !1;
        let x = at % TILES * TILE.0 + middle(TILE.0, tile.width());
        let y = at / TILES * TILE.1 + middle(TILE.1, tile.height());
        paste(&mut self.picture, tile, x & !1, y & !1);
        self.tiles += 1;
        let Self { number, tiles, first_pts, .. } = *self;
        Ok(Product::Sheet { number, tiles, first_pts, jpeg: jpeg(&self.picture)? })
    }
}

/// Returns the largest even size within a room that keeps the source's display aspect, and is no larger than the source.
fn fit(source: &VideoSource, (room_width, room_height): (u32, u32)) -> (u32, u32) {
    let (across, down) = source.pixel_aspect;
    let (across, down) = if across == 0 || down == 0 { (1, 1) } else { (across, down) };
    let width = f64::from(source.width) * f64::from(across) / f64::from(down);
    let (width, height) = (width.max(1.0), f64::from(source.height.max(1)));
    let scale = (f64::from(room_width) / width).min(f64::from(room_height) / height).min(1.0);
    let even = |side: f64| (((side * scale / 2.0).round() * 2.0) as u32).max(2);
    (even(width).min(room_width), even(height).min(room_height))
}

/// Takes the luma samples at points spread over a picture of 8 bits. False if it has none.
fn sample(picture: &frame::Video, into: &mut Vec<u8>) -> bool {
    into.clear();
    let planar =
        [Pixel::YUV420P, Pixel::YUVJ420P, Pixel::YUV422P, Pixel::YUVJ422P, Pixel::YUV444P, Pixel::YUVJ444P];
    if !planar.contains(&picture.format()) {
        return false;
    }
    let (width, height, stride) = (picture.width() as usize, picture.height() as usize, picture.stride(0));
    let (across, down) = (POINTS.0.min(width), POINTS.1.min(height));
    let luma = picture.data(0);
    for line in 0..down {
        let start = (line * height / down) * stride;
        into.extend((0..across).filter_map(|point| luma.get(start + point * width / across)));
    }
    !into.is_empty()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use millrace_media::codec::VideoCodec;

    use super::*;

    #[test]
    fn pictures_fit_into_their_room_with_the_display_aspect() {
        let source = |width, height, pixel_aspect| VideoSource {
            codec: VideoCodec::H264,
            record: Bytes::new(),
            width,
            height,
            pixel_aspect,
            frame_rate_milli: 0,
            bitrate: 0,
            version: 0,
        };
        assert_eq!(fit(&source(1920, 1080, (1, 1)), (640, u32::MAX)), (640, 360));
        assert_eq!(fit(&source(320, 180, (1, 1)), (640, u32::MAX)), (320, 180));
        assert_eq!(fit(&source(1080, 1920, (1, 1)), TILE), (50, 90));
        assert_eq!(fit(&source(1440, 1080, (4, 3)), TILE), (160, 90));
        assert_eq!(fit(&source(16, 16, (0, 0)), TILE), (16, 16));
    }
}
