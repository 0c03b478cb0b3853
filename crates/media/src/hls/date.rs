//! ISO 8601 dates of EXT-X-PROGRAM-DATE-TIME.

use std::fmt::Write;

const DAY_MS: i64 = 86_400_000;
/// The dates that have a year of four digits, in Unix milliseconds.
const RANGE: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

/// Writes a date as `2026-11-21T05:14:21.123Z`, or the nearest one that has a year of four digits.
pub fn format_date_time(unix_ms: i64) -> String {
    let mut out = String::with_capacity(24);
    write_date_time(&mut out, unix_ms);
    out
}

pub(super) fn write_date_time(out: &mut String, unix_ms: i64) {
    let unix_ms = unix_ms.clamp(*RANGE.start(), *RANGE.end());
    let (days, ms) = (unix_ms.div_euclid(DAY_MS), unix_ms.rem_euclid(DAY_MS));
    let (year, month, day) = civil(days);
    let (hour, minute, second, milli) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z");
}

/// Reads a date with `Z`, `±hh:mm`, `±hhmm` or `±hh` as Unix milliseconds; one without a zone is
/// UTC.
pub fn parse_date_time(text: &str) -> Option<i64> {
    if !text.is_ascii() {
        return None;
    }
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let separators = text.len() >= 19
        && [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')]
            .iter()
            .all(|(at, byte)| text.as_bytes()[*at] == *byte);
    if !separators || !matches!(text.as_bytes()[10], b'T' | b't' | b' ') {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let in_range =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if !in_range {
        return None;
    }
    let mut rest = &text[19..];
    let mut milli = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        let padded = format!("{:0<3}", &fraction[..digits.min(3)]);
        milli = if digits == 0 { return None } else { padded.parse().ok()? };
        rest = &fraction[digits..];
    }
    let day_ms = hour * 3_600_000 + minute * 60_000 + second * 1000 + milli;
    Some(days(year, month, day) * DAY_MS + day_ms - zone_ms(rest)?)
}

fn zone_ms(zone: &str) -> Option<i64> {
    if matches!(zone, "" | "Z" | "z") {
        return Some(0);
    }
    let sign = match zone.as_bytes()[0] {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits: String = zone[1..].chars().filter(|c| *c != ':').collect();
    let number = |range| digits.get(range).and_then(|text: &str| text.parse::<u8>().ok()).map(i64::from);
    let minutes = if digits.len() == 4 { number(2..4)? } else { 0 };
    let hours = if matches!(digits.len(), 2 | 4) { number(0..2)? } else { return None };
    Some(sign * (hours * 60 + minutes) * 60_000)
}

/// Returns the days from 1970-01-01 to a date of the proleptic Gregorian calendar.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the leap day is the last one.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

const fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_are_written_and_read_back() {
        assert_eq!(format_date_time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(format_date_time(1_709_210_096_789), "2024-02-29T12:34:56.789Z");
        assert_eq!(parse_date_time("2024-02-29T14:34:56.789+02:00"), Some(1_709_210_096_789));
        assert_eq!(parse_date_time("2024-02-29T10:04:56.789-0230"), Some(1_709_210_096_789));
        assert_eq!(parse_date_time("2024-02-29T12:34:56Z"), Some(1_709_210_096_000));
        for bad in [
            "",
            "2024",
            "2024-13-01T00:00:00Z",
            "2024-02-29T12:34:56.Z",
            "2024-02-29T12:34:56X",
            "2024-02-29T12:34:5é",
        ] {
            assert_eq!(parse_date_time(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(ms in RANGE) {
            prop_assert_eq!(parse_date_time(&format_date_time(ms)), Some(ms));
        }

        #[test]
        fn never_panics(text in ".{0,40}", tail in "[-+:.0-9Z]{0,12}") {
            let _ = parse_date_time(&text);
            let _ = parse_date_time(&format!("2024-02-29T12:34:56{tail}"));
        }
    }
}
