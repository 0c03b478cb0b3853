//! The characters that a title or a description may hold: those that a reader sees, in the order in which they are
//! written.

/// Joiners, which are part of emoji and of Persian and Indic words, and make nothing of Latin letters.
const JOINERS: [char; 2] = ['\u{200c}', '\u{200d}'];
/// The black flag, which a region in tag characters follows (England, Scotland, Wales).
const FLAG: char = '\u{1f3f4}';

/// Returns the first character of `text` that is invisible or changes the direction of the text around it. `allowed` are
/// control characters that the text may hold.
pub fn first_hidden(text: &str, allowed: &[char]) -> Option<char> {
    let chars: Vec<char> = text.chars().collect();
    let is_hidden = |at: usize| {
        let char = chars[at];
        let before = at.checked_sub(1).map(|before| chars[before]);
        if allowed.contains(&char) {
            return false;
        }
        if JOINERS.contains(&char) {
            let joins = |char: Option<char>| char.is_some_and(|char| !char.is_ascii() && !is_invisible(char));
            return !joins(before) || !joins(chars.get(at + 1).copied());
        }
        if is_tag(char) {
            return !before.is_some_and(|before| before == FLAG || is_tag(before));
        }
        is_invisible(char)
    };
    (0..chars.len()).find(|at| is_hidden(*at)).map(|at| chars[at])
}

const fn is_tag(char: char) -> bool {
    matches!(char, '\u{e0020}'..='\u{e007f}')
}

/// True for control and format characters and for letters without a shape: Unicode's classes Cc and Cf, line and paragraph
/// separators, and the fillers.
const fn is_invisible(char: char) -> bool {
    matches!(char,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        | '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{115f}' | '\u{1160}'
        | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{110bd}' | '\u{110cd}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_hidden_finds_invisible_and_direction_changing_characters() {
        for hidden in [
            '\u{202e}',
            '\u{202a}',
            '\u{2066}',
            '\u{2069}',
            '\u{200f}',
            '\u{61c}',
            '\u{200b}',
            '\u{200d}',
            '\u{2060}',
            '\u{feff}',
            '\u{ad}',
            '\u{3164}',
            '\u{2800}',
            '\u{2028}',
            '\u{e0041}',
            '\u{7f}',
            '\u{0}',
            '\n',
            '\u{85}',
        ] {
            assert_eq!(first_hidden(&format!("Ma{hidden}tch"), &[]), Some(hidden), "{hidden:?}");
        }
        assert_eq!(first_hidden("one\ntwo\u{202e}", &['\n']), Some('\u{202e}'));
    }

    #[test]
    fn first_hidden_leaves_the_words_of_every_script_and_emoji_alone() {
        for text in [
            "Match – « Finale » 10:00 (HD)",
            "مباراة اليوم",
            "می‌خواهم",
            "שידור חי",
            "क्‍ष",
            "比赛　直播",
            "경기",
            "👨‍👩‍👧 ❤️ 🏴󠁧󠁢󠁥󠁮󠁧󠁿 1️⃣",
            "e\u{301}",
        ] {
            assert_eq!(first_hidden(text, &[]), None, "{text}");
        }
    }
}
