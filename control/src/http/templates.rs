//! The resource `/api/v1/templates`: the ladders that a livestream can name, for the dashboard and for tools.

use actix_web::HttpResponse;
use actix_web::http::Method;
use actix_web::web::{self, Data};
use millrace_node::{COPY, LadderTemplate, LadderTemplates};
use millrace_wire::ladder::{LadderPlan, LadderRung};
use serde::Serialize;

use super::resource::Resource;
use crate::domain::access::{Access, Scope};
use crate::livestreams::Livestreams;

/// Returns the resources of templates, relative to `/api/v1`.
pub(super) fn resources() -> Vec<Resource> {
    vec![Resource::new("/templates", [(Method::GET, Access::Needs(Scope::StreamsRead), web::to(list))])]
}

#[derive(Debug, Serialize)]
struct TemplateList {
    templates: Vec<TemplateView>,
}

#[derive(Debug, Serialize)]
struct TemplateView {
    name: String,
    /// The renditions in words.
    text: String,
    rungs: Vec<LadderRung>,
    audio_only: bool,
    halve_fps_below: Option<u32>,
}

impl TemplateView {
    fn new(name: String, plan: LadderPlan) -> Self {
        let text = words(&plan);
        let LadderPlan { rungs, audio_only, halve_fps_below } = plan;
        Self { name, text, rungs, audio_only, halve_fps_below }
    }
}

impl TemplateList {
    fn new(templates: &LadderTemplates) -> Self {
        let copy = TemplateView::new(COPY.to_owned(), LadderPlan::default());
        let others =
            templates.all().into_iter().map(|(name, it)| TemplateView::new(name, LadderTemplate::plan(&it)));
        Self { templates: std::iter::once(copy).chain(others).collect() }
    }
}

async fn list(livestreams: Data<Livestreams>) -> HttpResponse {
    HttpResponse::Ok().json(TemplateList::new(&livestreams.services().templates))
}

/// Returns the renditions of a plan in words.
fn words(plan: &LadderPlan) -> String {
    let rung = |rung: &LadderRung| {
        let fps = rung.fps.map_or(String::new(), |fps| format!(" {fps} fps"));
        format!("{}p{fps} at {}", rung.height, rate(rung.bitrate))
    };
    let mut words = vec!["the source as it is".to_owned()];
    words.extend(plan.rungs.iter().map(rung));
    words.extend(plan.audio_only.then(|| "the audio alone".to_owned()));
    words.join(", ")
}

/// Returns a bitrate as operators write it: `2.8 Mb/s`, `800 kb/s`.
fn rate(bits: u64) -> String {
    match bits {
        1_000_000.. => {
            let tenths = (bits + 50_000) / 100_000;
            if tenths.is_multiple_of(10) {
                format!("{} Mb/s", tenths / 10)
            } else {
                format!("{}.{} Mb/s", tenths / 10, tenths % 10)
            }
        }
        _ => format!("{} kb/s", bits / 1_000),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns the answer of the resource as JSON.
    pub(crate) fn sample() -> serde_json::Value {
        serde_json::to_value(TemplateList::new(&LadderTemplates::default())).unwrap()
    }

    #[test]
    fn list_has_the_built_in_templates_in_words() {
        let list = sample();
        let texts: Vec<_> =
            list["templates"].as_array().unwrap().iter().map(|it| (&it["name"], &it["text"])).collect();
        let expected = [
            ("copy", "the source as it is"),
            ("audio_rescue", "the source as it is, the audio alone"),
            ("standard", "the source as it is, 720p at 2.8 Mb/s, 480p at 1.4 Mb/s, 360p at 800 kb/s"),
        ];
        assert_eq!(texts.len(), expected.len());
        for ((name, text), expected) in texts.into_iter().zip(expected) {
            assert_eq!((name.as_str(), text.as_str()), (Some(expected.0), Some(expected.1)));
        }
    }
}
