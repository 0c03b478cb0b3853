//! Rungs are in step with the source.

use crate::support::{Made, Recipe, Timing, plan, run};
use anyhow::Result;
use millrace_codec::engine::order::Order;
use millrace_codec::engine::product::Product;

/// Three B pictures with a pyramid, closed groups of 30 pictures.
const PYRAMID: &str = "-c:v libx264 -preset veryfast -crf 20 -pix_fmt yuv420p \
                       -x264-params keyint=30:min-keyint=30:scenecut=0:bframes=3:b-adapt=0:b-pyramid=normal";

#[test]
fn ladder_encodes_each_place_of_the_source_once_in_each_rung() -> Result<()> {
    let source = Recipe::h264(90, PYRAMID).source()?;
    let timing = Timing::even(90, 1500, 45);
    let mut orders = vec![
        Order::Start(plan(&[(720, None), (180, None), (90, Some(30))])),
        Order::VideoConfig(source.config(60_000)),
    ];
    orders.extend(source.orders(&timing, 0).into_iter().map(Order::Picture));
    let products = run(orders)?;
    assert!(matches!(products[0], Product::RungDropped { .. }), "{:?}", products[0]);
    assert!(matches!(products.last(), Some(Product::Flushed)));
    let upper = Made::of(&products, 1);
    assert_eq!(upper.starts.len(), 1);
    let slots: Vec<u64> = upper.pictures.iter().map(|picture| picture.slot.0).collect();
    assert_eq!(slots, (0..90).collect::<Vec<_>>());
    let idr: Vec<u64> =
        upper.pictures.iter().filter(|picture| picture.idr).map(|picture| picture.slot.0).collect();
    assert_eq!(idr, [0, 45]);
    assert_eq!(upper.numbers()?, (0..90).map(Some).collect::<Vec<_>>());
    let lower = Made::of(&products, 2);
    let expected: Vec<u16> = (0..45).step_by(2).chain((45..90).step_by(2)).collect();
    let slots: Vec<u64> = lower.pictures.iter().map(|picture| picture.slot.0).collect();
    assert_eq!(slots, expected.iter().map(|slot| u64::from(*slot)).collect::<Vec<_>>());
    assert_eq!(lower.numbers()?, expected.into_iter().map(Some).collect::<Vec<_>>());
    let lasts: Vec<(u64, u32)> = lower
        .pictures
        .iter()
        .filter(|picture| picture.slots == 1)
        .map(|picture| (picture.slot.0, picture.slots))
        .collect();
    assert_eq!(lasts, [(44, 1), (89, 1)]);
    Ok(())
}
