//! Thumbnails, storyboards, and the conditions of pictures.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use millrace_codec::engine::order::{Order, Plan};
use millrace_codec::engine::product::{Condition, Product};
use millrace_testkit::clip::draw_number;

use crate::support::{Recipe, Timing, plan, run};

/// Eight seconds of black at five pictures a second, then numbers.
const DARK: Recipe = Recipe {
    draw: ("dark", |number, width, height| match number {
        0..40 => vec![0; width * height],
        number => draw_number(number as u16, number * 5, width, height),
    }),
    ..Recipe::h264(120, "-c:v libx264 -preset veryfast -crf 20 -pix_fmt yuv420p -bf 2 -g 10 -keyint_min 10")
};

/// The number, the count of tiles and the JPEG file of a storyboard's sheet.
type Sheet = (u32, u8, Bytes);

/// Runs the dark source through a plan: the conditions, and the JPEG files of thumbnails and sheets.
fn dark(plan: Plan) -> Result<(Vec<Product>, Vec<Bytes>, Vec<Sheet>)> {
    let source = DARK.source()?;
    let mut orders = vec![Order::Start(plan), Order::VideoConfig(source.config(5_000))];
    orders.extend(source.orders(&Timing::even(120, 18_000, 10), 0).into_iter().map(Order::Picture));
    let (mut conditions, mut thumbnails, mut sheets) = (Vec::new(), Vec::new(), Vec::new());
    for product in run(orders)? {
        match product {
            Product::Condition { .. } => conditions.push(product),
            Product::Thumbnail { jpeg, .. } => thumbnails.push(jpeg),
            Product::Sheet { number, tiles, jpeg, .. } => sheets.push((number, tiles, jpeg)),
            _ => {}
        }
    }
    Ok((conditions, thumbnails, sheets))
}

/// Returns the width and height that a JPEG file tells in its frame header.
fn size(jpeg: &[u8]) -> Result<(u16, u16)> {
    let at = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).context("a frame header")?;
    let side = |from: usize| u16::from_be_bytes([jpeg[from], jpeg[from + 1]]);
    Ok((side(at + 7), side(at + 5)))
}

#[test]
fn thumbnails_come_every_ten_seconds_and_black_and_frozen_pictures_are_told() -> Result<()> {
    let pictures = Plan { pictures: true, ..plan(&[(90, None)]) };
    let (conditions, thumbnails, sheets) = dark(pictures)?;
    let told = |condition, begins| Product::Condition { condition, begins };
    let expected = [
        told(Condition::Black, true),
        told(Condition::Frozen, true),
        told(Condition::Black, false),
        told(Condition::Frozen, false),
    ];
    assert_eq!(conditions.len(), 4, "{conditions:?}");
    assert!(expected.iter().all(|product| conditions.contains(product)), "{conditions:?}");
    // 24 s: at once, after 10 s and after 20 s.
    assert_eq!(thumbnails.len(), 3);
    assert!(thumbnails.iter().all(|jpeg| size(jpeg).unwrap() == (320, 180)));
    let counts: Vec<(u32, u8)> = sheets.iter().map(|(number, tiles, _)| (*number, *tiles)).collect();
    assert_eq!(counts, [(0, 1), (0, 2), (0, 3)]);
    assert_eq!(size(&sheets[2].2)?, (800, 450));
    Ok(())
}

#[test]
fn plan_without_rungs_makes_pictures_of_keyframes_alone() -> Result<()> {
    let (conditions, thumbnails, _) = dark(Plan { pictures: true, ..Plan::default() })?;
    assert!((2..=3).contains(&thumbnails.len()), "{}", thumbnails.len());
    assert!(
        conditions.contains(&Product::Condition { condition: Condition::Black, begins: true }),
        "{conditions:?}"
    );
    Ok(())
}
