//! Players that join in a stream's first seconds and know no EXT-X-GAP: whatever a playlist lists is answered.

use std::time::Duration;

use anyhow::Result;
use millrace_tests::tape::Tape;

use super::seconds;
use crate::seen::Case;
use crate::want::Want;

pub(crate) const REPAIRS: &[(&str, u64, u64)] = &[];

pub(crate) async fn cases() -> Result<Vec<Case>> {
    let clip = Tape::numbered(seconds(), 0).await?;
    let joined = |ms: u64| {
        let case = Case::new(format!("joined_after_{ms}_ms"), clip.clone(), Want::whole());
        Case { join_after: Duration::from_millis(ms), ..case }
    };
    let mut cases: Vec<Case> = [500, 1_500, 2_500, 4_000].map(joined).into();
    let alone = clip.clone().video_alone();
    cases.push(Case::new("video_alone", alone, Want::whole()));
    Ok(cases)
}
