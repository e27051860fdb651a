//! Durations (`1m30s`), sizes (`64KiB`), percents (`20%`) and factors (`1.25`) as people write them.
//!
//! A bare number is no duration: whether it means seconds or milliseconds is what people get wrong. A bare number
//! is a size, because bytes are the only thing it can mean.

use std::time::Duration;

/// What a duration may look like, for messages.
pub const DURATION_FORMS: &str = "10s, 500ms, 1m30s, 1h or 30d (units: d, h, m, s, ms)";
/// What a size may look like, for messages.
pub const SIZE_FORMS: &str = "512, 64KiB, 1MiB or 2GiB (a bare number is bytes)";

/// Units of a duration, largest first, with their milliseconds.
const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// Units of a size, largest first, with their bytes.
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Why a text is no duration or size. Says what to write; the caller says where and what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadUnit {
    /// What to write instead.
    pub help: String,
}

/// Reads `10s`, `500ms`, `1m30s`, `1h`, `0s`. Units go from large to small, each at most once.
///
/// # Errors
/// [`BadUnit`] with the allowed forms, and a guess when the number alone was right. Overflow is an error too.
pub fn parse_duration(text: &str) -> Result<Duration, BadUnit> {
    let bad = || BadUnit { help: format!("write a duration like {DURATION_FORMS}") };
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BadUnit {
            help: format!("a duration needs a unit: did you mean \"{text}s\" or \"{text}ms\"?"),
        });
    }
    let mut rest = text;
    let mut millis: u64 = 0;
    let mut units = DURATION_UNITS.iter();
    while !rest.is_empty() {
        let (number, after) = digits(rest).ok_or_else(bad)?;
        let unit = &after[..after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len())];
        let (_, factor) = units.find(|(name, _)| *name == unit).ok_or_else(bad)?;
        millis = number.checked_mul(*factor).and_then(|ms| millis.checked_add(ms)).ok_or_else(bad)?;
        rest = &after[unit.len()..];
    }
    if text.is_empty() { Err(bad()) } else { Ok(Duration::from_millis(millis)) }
}

/// Reads `512`, `64KiB`, `1MiB`, `2GiB`, `0` as bytes.
///
/// # Errors
/// [`BadUnit`] with the allowed forms; for `64k` or `64KB` with the binary unit spelled out. Overflow is an error.
pub fn parse_size(text: &str) -> Result<u64, BadUnit> {
    let bad = || BadUnit { help: format!("write a size like {SIZE_FORMS}") };
    let (number, unit) = digits(text).ok_or_else(bad)?;
    if unit.is_empty() {
        return Ok(number);
    }
    if let Some((_, factor)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) {
        return number.checked_mul(*factor).ok_or_else(bad);
    }
    let meant = match unit.trim().to_ascii_lowercase().as_str() {
        "k" | "kb" | "kib" | "ki" => "KiB",
        "m" | "mb" | "mib" | "mi" => "MiB",
        "g" | "gb" | "gib" | "gi" => "GiB",
        _ => return Err(bad()),
    };
    Err(BadUnit { help: format!("did you mean \"{number}{meant}\"?  a size looks like {SIZE_FORMS}") })
}

/// Writes a duration the way [`parse_duration`] reads it; what is below a millisecond is dropped.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, factor) in DURATION_UNITS {
        if millis >= factor {
            text += &format!("{}{unit}", millis / factor);
            millis %= factor;
        }
    }
    text
}

/// Writes a size the way [`parse_size`] reads it, in the largest unit that leaves no rest.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    SIZE_UNITS
        .iter()
        .find(|(name, factor)| *name != "B" && bytes >= *factor && bytes.is_multiple_of(*factor))
        .map_or_else(|| bytes.to_string(), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

/// Reads `20%` or `20` as percent.
///
/// # Errors
/// [`BadUnit`] with the allowed forms; for a fraction with the percent that it may mean. Overflow is an error.
pub fn parse_percent(text: &str) -> Result<u64, BadUnit> {
    let bad = || BadUnit { help: "write a whole percent like 20%".to_owned() };
    match digits(text).ok_or_else(bad)? {
        (percent, "" | "%") => Ok(percent),
        _ => Err(match parse_factor(text) {
            Ok(percent) if percent <= 100 => BadUnit { help: format!("did you mean \"{percent}%\"?") },
            Ok(_) | Err(_) => bad(),
        }),
    }
}

/// Reads `1.25`, `1.4` or `3` as percent: 125, 140, 300. At most two decimals.
///
/// # Errors
/// [`BadUnit`] with the allowed forms; for `125%` with the factor that it means. Overflow is an error.
pub fn parse_factor(text: &str) -> Result<u64, BadUnit> {
    let bad = || BadUnit { help: "write a factor like 1.25, with at most two decimals".to_owned() };
    let (whole, rest) = digits(text).ok_or_else(bad)?;
    if rest == "%" {
        return Err(BadUnit { help: format!("did you mean \"{}\"?", format_factor(whole)) });
    }
    let decimals = match rest.strip_prefix('.') {
        None if rest.is_empty() => "0",
        Some(decimals) if matches!(decimals.len(), 1 | 2) => decimals,
        None | Some(_) => return Err(bad()),
    };
    let (fraction, after) = digits(decimals).ok_or_else(bad)?;
    if !after.is_empty() {
        return Err(bad());
    }
    let fraction = if decimals.len() == 1 { fraction * 10 } else { fraction };
    whole.checked_mul(100).and_then(|percent| percent.checked_add(fraction)).ok_or_else(bad)
}

/// Writes percent the way [`parse_factor`] reads it.
#[must_use]
pub fn format_factor(percent: u64) -> String {
    let (whole, fraction) = (percent / 100, percent % 100);
    match fraction {
        0 => whole.to_string(),
        tenths if tenths % 10 == 0 => format!("{whole}.{}", tenths / 10),
        _ => format!("{whole}.{fraction:02}"),
    }
}

/// Splits a number off the front; `None` when there is none or it does not fit.
fn digits(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_written() {
        for (text, millis) in [
            ("10s", 10_000),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
            ("1h1m1s1ms", 3_661_001),
            ("0s", 0),
            ("90s", 90_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn bad_durations_say_what_to_write() {
        for text in [
            "",
            "s",
            "10",
            "10 s",
            "10sec",
            "-1s",
            "1.5s",
            "30s1m",
            "1s1s",
            "1w",
            "99999999999999999999s",
            "5000000000000000h",
            "1sé",
        ] {
            let bad = parse_duration(text).expect_err(text);
            assert!(bad.help.contains('s'), "{text}: {}", bad.help);
        }
        assert!(parse_duration("10").unwrap_err().help.contains("\"10s\""));
    }

    #[test]
    fn sizes_read_as_written() {
        for (text, bytes) in
            [("512", 512), ("64KiB", 65_536), ("1MiB", 1 << 20), ("2GiB", 1 << 31), ("0", 0), ("7B", 7)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn bad_sizes_say_what_to_write() {
        for text in ["", "KiB", "-1", "1.5MiB", "12TiB", "99999999999GiB", "1 x"] {
            parse_size(text).expect_err(text);
        }
        for (text, meant) in [("64k", "64KiB"), ("64KB", "64KiB"), ("10 mb", "10MiB"), ("1G", "1GiB")] {
            let help = parse_size(text).unwrap_err().help;
            assert!(help.contains(meant), "{text}: {help}");
        }
    }

    #[test]
    fn percents_and_factors_read_as_written() {
        for (text, percent) in [("20%", 20), ("20", 20), ("0", 0), ("100%", 100)] {
            assert_eq!(parse_percent(text), Ok(percent), "{text}");
        }
        for (text, percent) in
            [("1.25", 125), ("1.4", 140), ("3", 300), ("1.05", 105), ("0.5", 50), ("2.00", 200)]
        {
            assert_eq!(parse_factor(text), Ok(percent), "{text}");
        }
    }

    #[test]
    fn bad_percents_and_factors_say_what_to_write() {
        for text in ["", "%", "-1%", "20 %", "12.345", "20%%", "x", "99999999999999999999"] {
            parse_percent(text).expect_err(text);
        }
        for text in ["", ".5", "1.", "1.255", "-1", "1,25", "1.2x", "1.x", "x", "999999999999999999"] {
            parse_factor(text).expect_err(text);
        }
        assert_eq!(parse_percent("0.2").unwrap_err().help, "did you mean \"20%\"?");
        assert_eq!(parse_factor("125%").unwrap_err().help, "did you mean \"1.25\"?");
    }

    #[test]
    fn what_is_written_reads_back() {
        for percent in [0, 1, 10, 99, 100, 105, 125, 140, 10_000] {
            assert_eq!(parse_factor(&format_factor(percent)), Ok(percent));
        }
        for millis in [0, 1, 999, 1_000, 90_000, 3_661_001, 86_400_000] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
        for bytes in [0, 1, 1023, 1024, 1025, 1 << 20, 3 << 30] {
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }
    }
}
