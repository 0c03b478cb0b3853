//! The templates of ladders: the built-in ones, and the operator's in `[transcode.templates.NAME]`.

use std::collections::BTreeMap;

use millrace_runtime::Section;
use millrace_wire::ladder::{HEIGHTS, Ladder, LadderPlan, LadderRung, is_template_name};
use serde::{Deserialize, Serialize};

/// Templates of the operator at most: the dashboard lists them all in one menu.
const MAX_TEMPLATES: usize = 64;

/// The name of the template that encodes nothing; the configuration cannot give it another meaning.
pub const COPY: &str = "copy";

/// A template of ladders, as the configuration writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LadderTemplate {
    /// The encoded renditions.
    pub rungs: Vec<LadderRung>,
    /// True if the audio alone is a variant of its own.
    pub audio_only: bool,
    /// Rungs of fewer lines than this have half the frame rate of a source of more than 30 frames per second.
    pub halve_fps_below: Option<u32>,
}

/// The templates that an operator configured, by name; the built-in ones are known beside them. A worker and control read them
/// from the same section, so a cluster's configuration gives both the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LadderTemplates {
    templates: BTreeMap<String, LadderTemplate>,
}

impl LadderTemplate {
    /// Returns the plan of a stream whose ladder names this template.
    pub fn plan(&self) -> LadderPlan {
        LadderPlan {
            audio_only: self.audio_only,
            halve_fps_below: self.halve_fps_below,
            ..LadderPlan::of_rungs(self.rungs.clone())
        }
    }

    /// Checks the rules of a template; `Err` is the broken rule with its place, such as `rungs[1].height must be even`.
    fn check(&self) -> Result<(), String> {
        if self.rungs.is_empty() && !self.audio_only {
            return Err("must have rungs, or audio_only = true".to_owned());
        }
        if self.halve_fps_below.is_some_and(|height| !(HEIGHTS.0..=HEIGHTS.1).contains(&height)) {
            return Err(format!("halve_fps_below must be from {} to {} lines", HEIGHTS.0, HEIGHTS.1));
        }
        if self.rungs.is_empty() {
            return Ok(());
        }
        let faults = Ladder::Rungs(self.rungs.clone()).check().err().unwrap_or_default();
        match faults.first() {
            Some(fault) => Err(format!("rungs{} {}", fault.place, fault.rule)),
            None => Ok(()),
        }
    }
}

impl LadderTemplates {
    /// Creates the templates of an operator, by name.
    pub fn new(templates: BTreeMap<String, LadderTemplate>) -> Self {
        Self { templates }
    }

    /// Returns every template by name, `copy` excepted: the operator's, and the built-in ones that the operator has not replaced.
    pub fn all(&self) -> BTreeMap<String, LadderTemplate> {
        let mut all: BTreeMap<_, _> =
            built_in().into_iter().map(|(name, it)| (name.to_owned(), it)).collect();
        all.extend(self.templates.clone());
        all
    }

    /// Returns the names of all templates, `copy` first.
    pub fn names(&self) -> Vec<String> {
        std::iter::once(COPY.to_owned()).chain(self.all().into_keys()).collect()
    }

    /// Returns the plan of a ladder; `None` if it names a template that is not known.
    pub fn plan(&self, ladder: &Ladder) -> Option<LadderPlan> {
        match ladder {
            Ladder::Copy => Some(LadderPlan::default()),
            Ladder::Rungs(rungs) => Some(LadderPlan::of_rungs(rungs.clone())),
            Ladder::Template(name) => self.all().get(name).map(LadderTemplate::plan),
        }
    }

    /// Checks the names and the rules of the operator's templates; `Err` is the first broken rule with its place.
    pub fn check(&self) -> Result<(), String> {
        if self.templates.len() > MAX_TEMPLATES {
            return Err(format!("at most {MAX_TEMPLATES} templates are allowed"));
        }
        for (name, template) in &self.templates {
            if name == COPY {
                return Err(format!("{COPY} always encodes nothing: give the template another name"));
            }
            if !is_template_name(name) {
                return Err(format!("{name:?} must have 1 to 64 lower-case letters, digits, - or _"));
            }
            template.check().map_err(|rule| format!("{name}: {rule}"))?;
        }
        Ok(())
    }
}

impl Section for LadderTemplates {
    const NAME: &'static str = "transcode";

    fn check(&self) -> Result<(), (&'static str, String)> {
        self.check().map_err(|rule| ("templates", rule))
    }
}

/// Returns the built-in templates besides `copy`.
fn built_in() -> [(&'static str, LadderTemplate); 2] {
    let rung = |height, bitrate| LadderRung { height, bitrate, fps: None, preset: None, codec: None };
    let standard = LadderTemplate {
        rungs: vec![rung(720, 2_800_000), rung(480, 1_400_000), rung(360, 800_000)],
        audio_only: false,
        halve_fps_below: Some(720),
    };
    let audio_rescue = LadderTemplate { audio_only: true, ..LadderTemplate::default() };
    [("standard", standard), ("audio_rescue", audio_rescue)]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use millrace_runtime::{ConfigError, Loader};

    use super::*;

    fn load(text: &str) -> Result<LadderTemplates, ConfigError> {
        Loader::new().text(text, Path::new("millrace.toml")).unwrap().load().section()
    }

    fn heights(templates: &LadderTemplates, name: &str) -> Option<Vec<u32>> {
        let plan = templates.plan(&Ladder::Template(name.to_owned()))?;
        Some(plan.rungs.iter().map(|rung| rung.height).collect())
    }

    #[test]
    fn built_in_templates_are_known_without_configuration() {
        let templates = load("[transcode]\nmax_jobs = 3\n").unwrap();
        assert_eq!(templates.names(), ["copy", "audio_rescue", "standard"]);
        assert_eq!(heights(&templates, "standard"), Some(vec![720, 480, 360]));
        let rescue = templates.plan(&Ladder::Template("audio_rescue".to_owned())).unwrap();
        assert!(rescue.audio_only && !rescue.encodes());
        assert_eq!(templates.plan(&Ladder::Copy), Some(LadderPlan::default()));
        assert_eq!(heights(&templates, "hd"), None);
    }

    #[test]
    fn configured_templates_are_added_and_replace_built_in_ones() {
        let text = "[transcode.templates.hd]\nrungs = [{ height = 1080, bitrate = 5000000, fps = 30, preset = \"fast\" }]\n\
            [transcode.templates.standard]\nrungs = [{ height = 480, bitrate = 1000000, codec = \"h264\" }]\n";
        let templates = load(text).unwrap();
        assert_eq!(templates.names(), ["copy", "audio_rescue", "hd", "standard"]);
        assert_eq!(heights(&templates, "hd"), Some(vec![1080]));
        assert_eq!(heights(&templates, "standard"), Some(vec![480]));
    }

    #[test]
    fn wrong_templates_are_refused_with_their_name_and_place() {
        let refused = |text: &str| load(&format!("[transcode.templates.{text}\n")).unwrap_err().to_string();
        for (text, place) in [
            ("hd]", "hd: must have rungs"),
            ("copy]\naudio_only = true", "copy always encodes nothing"),
            ("HD]\naudio_only = true", "\"HD\" must have"),
            ("hd]\nrungs = [{ height = 721, bitrate = 3000000 }]", "hd: rungs[0].height must be even"),
            ("hd]\naudio_only = true\nhalve_fps_below = 5", "hd: halve_fps_below must be"),
            (
                "hd]\nrungs = [{ height = 720, bitrate = 3000000, gop = 2 }]",
                "templates.hd.rungs.0.gop: unknown key",
            ),
        ] {
            let error = refused(text);
            assert!(error.contains(place), "{text}: {error}");
        }
    }
}
