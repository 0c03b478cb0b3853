//! The ladder of a livestream: asked for at its creation, changed while it is live, resolved when a publisher connects.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Backends, Control, renewal};
use millrace_wire::ladder::Ladder;
use millrace_wire::message::control::{ClaimGrant, ClaimReply, LeaseReply};
use millrace_wire::topics;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

fn path(livestream: &Value) -> String {
    format!("/api/v1/livestreams/{}", livestream["id"].as_str().unwrap())
}

async fn grant(control: &Control, livestream: &Value, session: u128) -> ClaimGrant {
    match control.claim(livestream["stream_key"].as_str().unwrap(), session).await {
        ClaimReply::Granted(grant) => *grant,
        other => panic!("{other:?}"),
    }
}

fn heights(grant: &ClaimGrant) -> Vec<u32> {
    grant.settings.plan.rungs.iter().map(|rung| rung.height).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ladder_is_resolved_at_the_claim_and_a_change_applies_to_the_next_publish() {
    let control = Control::start(&Backends::embedded().await).await;
    let rungs =
        json!([{"height": 360, "bitrate": 700_000}, {"height": 480, "bitrate": 1_200_000, "fps": 25}]);
    let made = control.create(json!({"title": "A", "ladder": rungs})).await;
    assert_eq!(made["ladder"], rungs, "the ladder is shown as it was asked for");
    assert_eq!(heights(&grant(&control, &made, 1).await), [480, 360], "a plan has the highest rung first");

    // The publisher goes on with its ladder: a repeated claim and a renewal tell it nothing else.
    let (status, changed) =
        control.call(Method::PATCH, &path(&made), Some(json!({"ladder": "standard"}))).await;
    assert_eq!((status, &changed["ladder"]), (StatusCode::OK, &json!("standard")), "{changed}");
    assert_eq!(changed["takes_effect"], json!({"ladder": "next_publish"}));
    let first = grant(&control, &made, 1).await;
    assert_eq!(heights(&first), [480, 360]);
    let reply: LeaseReply = control.ask(topics::renew(), &renewal(&first, 1)).await;
    assert_eq!(reply, LeaseReply::Ok);
    let next = grant(&control, &made, 2).await;
    assert_eq!(heights(&next), [720, 480, 360]);
    assert_eq!(next.settings.plan.halve_fps_below, Some(720));
    assert_eq!(next.settings.ladder, Ladder::Template("standard".to_owned()));

    let title = json!({"title": "B", "description": "new"});
    let (_, changed) = control.call(Method::PATCH, &path(&made), Some(title)).await;
    assert_eq!((&changed["title"], &changed["description"]), (&json!("B"), &json!("new")));
    assert_eq!(changed["takes_effect"], json!({"title": "now", "description": "now"}));
    assert_eq!(control.post(made["id"].as_str().unwrap(), "stop").await.0, StatusCode::OK);
    let (status, over) = control.call(Method::PATCH, &path(&made), Some(json!({"title": "C"}))).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(over["detail"], "cannot change a livestream that is ended");
    control.node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_ladders_and_changes_are_refused_with_the_field() {
    let control = Control::start(&Backends::embedded().await).await;
    let made = control.create(json!({"title": "A"})).await;
    for (ladder, field) in [
        (json!("hd"), "ladder"),
        (json!([{"height": 720, "bitrate": 1}]), "ladder[0].bitrate"),
        (
            json!([{"height": 720, "bitrate": 2_000_000}, {"height": 481, "bitrate": 900_000}]),
            "ladder[1].height",
        ),
        (json!([{"height": 720, "bitrate": 2_000_000, "codec": "hevc"}]), "ladder[0].codec"),
    ] {
        let body = json!({"title": "B", "ladder": ladder});
        let created = control.call(Method::POST, "/api/v1/livestreams", Some(body)).await;
        let changed = control.call(Method::PATCH, &path(&made), Some(json!({"ladder": ladder}))).await;
        for (status, problem) in [created, changed] {
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
            assert_eq!(problem["errors"][0]["field"], field, "{problem}");
        }
    }
    for (body, field) in [(json!({"playback_id": "x"}), "playback_id"), (json!({"gop": 2}), "gop")] {
        let (status, problem) = control.call(Method::PATCH, &path(&made), Some(body)).await;
        assert_eq!(
            (status, &problem["errors"][0]["field"]),
            (StatusCode::UNPROCESSABLE_ENTITY, &json!(field))
        );
    }
    grant(&control, &made, 1).await;
    let frozen = json!({"target_duration_s": 6});
    let (status, problem) = control.call(Method::PATCH, &path(&made), Some(frozen)).await;
    assert_eq!(status, StatusCode::CONFLICT, "{problem}");
    assert_eq!(problem["errors"][0]["field"], "target_duration_s", "{problem}");
    assert_eq!(problem["errors"][0]["message"], "cannot be changed: the livestream has begun");
    let (_, list) = control.call(Method::GET, "/api/v1/templates", None).await;
    let names: Vec<_> =
        list["templates"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["copy", "audio_rescue", "standard"]);
    control.node.drain().await;
}
