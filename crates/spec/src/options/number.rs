//! Numbers in flags: sizes, processors, ranges.

use bale_fault::Result;

use super::wrong;

/// Reads a size in bytes as docker does: `512m`, `1.5g`, `64KiB`, `1024`; units are powers of 1024, in any case.
///
/// # Errors
/// `InvalidInput` names `flag`.
pub fn size(flag: &str, text: &str) -> Result<i64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = (&text[..split], text[split..].trim_start().to_ascii_lowercase());
    let exponent = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" if unit != "ib" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => {
            return Err(wrong(flag, text, format!("unit {unit:?} is unknown"))
                .hint("units are b, k, m, g, t and p: 512m, 1.5g"));
        }
    };
    let value = decimal(digits, 1 << (10 * exponent));
    let value = value.and_then(|v| i64::try_from(v).ok());
    value.ok_or_else(|| wrong(flag, text, "is not a size").hint("a size is a number and a unit: 512m, 1.5g"))
}

/// Reads a decimal number times `scale`, rounded down, without floating point.
fn decimal(digits: &str, scale: u128) -> Option<u128> {
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |s: &str| s.len() <= 20 && s.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && part.is_empty()) || !plain(whole) || !plain(part) || digits.ends_with('.') {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part_digits = u32::try_from(part.len()).ok()?;
    let part: u128 = if part.is_empty() { 0 } else { part.parse().ok()? };
    whole.checked_mul(scale)?.checked_add(part.checked_mul(scale)? / 10_u128.pow(part_digits))
}

/// Reads `--cpus`: a decimal number of processors, in billionths; 0 is unlimited.
///
/// # Errors
/// `InvalidInput` names `flag`.
pub fn cpus(flag: &str, text: &str) -> Result<u64> {
    let value = decimal(text, 1_000_000_000).and_then(|v| u64::try_from(v).ok()).filter(|v| *v <= 1 << 50);
    let value = value.ok_or_else(|| {
        wrong(flag, text, "is not a number of processors").hint("a number such as 2 or 1.5")
    })?;
    // The kernel refuses a quota below 1 ms of a period of 100 ms.
    if value != 0 && value < 10_000_000 {
        return Err(wrong(flag, text, "is below the least, 0.01"));
    }
    Ok(value)
}

/// Reads a whole number within `range`.
///
/// # Errors
/// `InvalidInput` names `flag` and the range.
pub fn whole(flag: &str, text: &str, range: std::ops::RangeInclusive<i64>) -> Result<i64> {
    let plain = text.strip_prefix('-').unwrap_or(text);
    let digits = !plain.is_empty() && plain.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<i64>() {
        Ok(number) if digits && range.contains(&number) => Ok(number),
        _ => {
            let reason = match (*range.start(), *range.end()) {
                (least, i64::MAX) => format!("is not a whole number from {least} on"),
                (least, most) => format!("is not a whole number from {least} to {most}"),
            };
            Err(wrong(flag, text, reason))
        }
    }
}

/// Checks a list such as `0-3,7`.
///
/// # Errors
/// `InvalidInput` names `flag`.
pub fn set(flag: &str, text: &str) -> Result<String> {
    if is_set(text) {
        return Ok(text.to_owned());
    }
    Err(wrong(flag, text, "is not a list of numbers and ranges").hint("a list such as 0-3,7"))
}

/// Tells whether `text` is a list such as `0-3,7`.
#[must_use]
pub fn is_set(text: &str) -> bool {
    let number = |s: &str| s.parse::<u16>().ok().filter(|_| s.bytes().all(|b| b.is_ascii_digit()));
    !text.is_empty()
        && text.split(',').all(|part| match part.split_once('-') {
            Some((from, to)) => matches!((number(from), number(to)), (Some(a), Some(b)) if a <= b),
            None => number(part).is_some(),
        })
}

/// Reads `true`, `false`, `1`, `0`.
#[must_use]
pub fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "t" => Some(true),
        "false" | "0" | "f" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let good = [
            ("0", 0),
            ("1024", 1024),
            ("10b", 10),
            ("1k", 1024),
            ("1KB", 1024),
            ("1kib", 1024),
            ("64 m", 64 << 20),
            ("1.5g", 3 << 29),
            (".5k", 512),
            ("8191t", 8191 << 40),
            ("9223372036854775807", i64::MAX),
        ];
        for (text, bytes) in good {
            assert_eq!(size("--memory", text).unwrap(), bytes, "{text}");
        }
        for text in [
            "",
            "m",
            "-1",
            "+1",
            "1.k",
            "1..5k",
            "12q",
            "1ib",
            "0x10",
            "9223372036854775808",
            "8192p",
            "1e3",
            "١",
            "999999999999999999999",
        ] {
            assert!(size("--memory", text).is_err(), "{text}");
        }
        let fault = size("--memory", "12q").unwrap_err();
        assert_eq!(fault.chain(), "--memory \"12q\": unit \"q\" is unknown");
        assert_eq!(fault.innermost_hint(), Some("units are b, k, m, g, t and p: 512m, 1.5g"));
    }

    #[test]
    fn processors() {
        for (text, nano) in [
            ("1.5", 1_500_000_000),
            ("2", 2_000_000_000),
            ("0.01", 10_000_000),
            ("0", 0),
            (".5", 500_000_000),
        ] {
            assert_eq!(cpus("--cpus", text).unwrap(), nano, "{text}");
        }
        for text in ["abc", "-1", "", "0.001", "1/2", "1e9", "99999999999999999999"] {
            assert!(cpus("--cpus", text).is_err(), "{text}");
        }
    }

    #[test]
    fn lists_and_ranges() {
        for text in ["0", "0-3", "0-3,7", "1,3-3"] {
            assert!(is_set(text), "{text}");
        }
        for text in ["", "3-1", "-1", "0-", "a", "0,,1", "0 1", "+1"] {
            assert!(!is_set(text), "{text}");
        }
        assert_eq!(whole("--pids-limit", "-1", -1..=i64::MAX).unwrap(), -1);
        let fault = whole("--oom-score-adj", "1001", -1000..=1000).unwrap_err();
        assert_eq!(fault.chain(), "--oom-score-adj \"1001\": is not a whole number from -1000 to 1000");
        assert!(
            whole("x", "+1", 0..=9).is_err()
                && whole("x", "", 0..=9).is_err()
                && whole("x", "1.0", 0..=9).is_err()
        );
    }
}
