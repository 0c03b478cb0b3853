//! The field `ladder` of a request: a template's name, or a list of rungs, with errors that name the place.

use millrace_node::LadderTemplates;
use millrace_wire::ladder::{Ladder, LadderRung, RungCodec};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::FieldError;

/// The name of the field.
const FIELD: &str = "ladder";

/// The fields of a rung.
const RUNG_FIELDS: [&str; 5] = ["height", "bitrate", "fps", "preset", "codec"];

/// Reads the ladder of a request, absent or null for `copy`; `Err` holds every rule that is broken.
pub(super) fn parse(value: Option<&Value>, templates: &LadderTemplates) -> Result<Ladder, Vec<FieldError>> {
    let ladder = match value {
        None | Some(Value::Null) => Ladder::Copy,
        Some(Value::String(name)) => named(name, templates)?,
        Some(Value::Array(rungs)) => Ladder::Rungs(parse_rungs(rungs)?),
        Some(_) => {
            let rule = "must be the name of a template, or a list of rungs with height and bitrate";
            return Err(vec![FieldError::new(FIELD, rule)]);
        }
    };
    match ladder.check() {
        Ok(()) => Ok(ladder),
        Err(faults) => {
            let error = |fault: millrace_wire::ladder::LadderFault| {
                FieldError::new(format!("{FIELD}{}", fault.place), fault.rule)
            };
            Err(faults.into_iter().map(error).collect())
        }
    }
}

fn named(name: &str, templates: &LadderTemplates) -> Result<Ladder, Vec<FieldError>> {
    let names = templates.names();
    if !names.iter().any(|known| known == name) {
        let rule = format!("must name one of the templates {}", names.join(", "));
        return Err(vec![FieldError::new(FIELD, rule)]);
    }
    Ok(if name == millrace_node::COPY { Ladder::Copy } else { Ladder::Template(name.to_owned()) })
}

fn parse_rungs(rungs: &[Value]) -> Result<Vec<LadderRung>, Vec<FieldError>> {
    let (mut parsed, mut errors) = (Vec::new(), Vec::new());
    for (index, rung) in rungs.iter().enumerate() {
        let place = format!("{FIELD}[{index}]");
        match rung.as_object() {
            Some(fields) => parsed.extend(parse_rung(&place, fields, &mut errors)),
            None => errors.push(FieldError::new(place, "must be an object with height and bitrate")),
        }
    }
    if errors.is_empty() { Ok(parsed) } else { Err(errors) }
}

fn parse_rung(place: &str, fields: &Map<String, Value>, errors: &mut Vec<FieldError>) -> Option<LadderRung> {
    for unknown in fields.keys().filter(|name| !RUNG_FIELDS.contains(&name.as_str())) {
        let rule = format!("is not a field of a rung, which has {}", RUNG_FIELDS.join(", "));
        errors.push(FieldError::new(format!("{place}.{unknown}"), rule));
    }
    let mut refuse = |name: &str, rule: &str| errors.push(FieldError::new(format!("{place}.{name}"), rule));
    let height = field::<u32>(fields, "height");
    let bitrate = field::<u64>(fields, "bitrate");
    match height {
        Ok(None) => refuse("height", "is missing"),
        Err(()) => refuse("height", "must be a whole number of lines"),
        Ok(Some(_)) => {}
    }
    match bitrate {
        Ok(None) => refuse("bitrate", "is missing"),
        Err(()) => refuse("bitrate", "must be a whole number of bits per second"),
        Ok(Some(_)) => {}
    }
    let fps = field::<u32>(fields, "fps").map_err(|()| refuse("fps", "must be a whole number"));
    let preset = field::<String>(fields, "preset").map_err(|()| refuse("preset", "must be a text"));
    let codec = field::<RungCodec>(fields, "codec").map_err(|()| refuse("codec", "must be h264"));
    Some(LadderRung {
        height: height.ok()??,
        bitrate: bitrate.ok()??,
        fps: fps.ok()?,
        preset: preset.ok()?,
        codec: codec.ok()?,
    })
}

/// Returns the value of a field; `None` if it is absent or null, `Err` if it has another type.
fn field<T: DeserializeOwned>(fields: &Map<String, Value>, name: &str) -> Result<Option<T>, ()> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => serde_json::from_value(value.clone()).map(Some).map_err(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn broken(ladder: &Value) -> Vec<String> {
        let errors = parse(Some(ladder), &LadderTemplates::default()).unwrap_err();
        errors.into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn parse_reads_names_and_rungs() {
        let read = |value: Value| parse(Some(&value), &LadderTemplates::default()).unwrap();
        assert_eq!(parse(None, &LadderTemplates::default()).unwrap(), Ladder::Copy);
        assert_eq!((read(json!(null)), read(json!("copy"))), (Ladder::Copy, Ladder::Copy));
        assert_eq!(read(json!("standard")), Ladder::Template("standard".to_owned()));
        let Ladder::Rungs(rungs) = read(json!([
            {"height": 720, "bitrate": 3_000_000, "fps": 30, "preset": "fast", "codec": "h264"},
            {"height": 360, "bitrate": 800_000, "fps": null},
        ])) else {
            panic!("a list of rungs");
        };
        assert_eq!((rungs[0].fps, rungs[0].preset.as_deref()), (Some(30), Some("fast")));
        assert_eq!((rungs[1].fps, rungs[1].codec), (None, None));
    }

    #[test]
    fn parse_names_the_place_of_every_error() {
        let good = json!({"height": 720, "bitrate": 3_000_000});
        for (ladder, places) in [
            (json!("hd"), vec!["ladder"]),
            (json!({"height": 720}), vec!["ladder"]),
            (json!([]), vec!["ladder"]),
            (json!([good, 7]), vec!["ladder[1]"]),
            (json!([good, {"height": 721, "bitrate": 1}]), vec!["ladder[1].height", "ladder[1].bitrate"]),
            (json!([{"bitrate": 3_000_000}]), vec!["ladder[0].height"]),
            (json!([{"height": "720p", "bitrate": 2.5}]), vec!["ladder[0].height", "ladder[0].bitrate"]),
            (json!([{"height": 720, "bitrate": 3_000_000, "gop": 2}]), vec!["ladder[0].gop"]),
            (json!([{"height": 720, "bitrate": 3_000_000, "codec": "av1"}]), vec!["ladder[0].codec"]),
            (json!([{"height": 720, "bitrate": 3_000_000, "codec": "vp9"}]), vec!["ladder[0].codec"]),
            (json!([{"height": 720, "bitrate": 3_000_000, "preset": "quick"}]), vec!["ladder[0].preset"]),
            (json!([{"height": 720, "bitrate": 3_000_000, "fps": 0}]), vec!["ladder[0].fps"]),
            (json!([good, good]), vec!["ladder[1]"]),
        ] {
            assert_eq!(broken(&ladder), places, "{ladder}");
        }
        let error = parse(Some(&json!("hd")), &LadderTemplates::default()).unwrap_err();
        assert_eq!(error[0].message, "must name one of the templates copy, audio_rescue, standard");
    }
}
