//! Lists of texts in the configuration.

use serde::Deserialize;
use serde::de::Deserializer;

/// Reads a list of texts, or one text in which commas separate them, as environment variables give it. Spaces around a text and empty
/// texts are left out.
///
/// # Errors
/// The value is neither a text nor a list of texts.
pub fn text_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Texts {
        One(String),
        Many(Vec<String>),
    }
    let texts = match Texts::deserialize(deserializer)? {
        Texts::One(text) => text.split(',').map(str::to_owned).collect(),
        Texts::Many(texts) => texts,
    };
    Ok(texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty()).map(str::to_owned).collect())
}
