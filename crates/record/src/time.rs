//! Points in time as RFC 3339 text in UTC, always with nine digits of a second, so that text sorts as time does.

use rustix::time::{ClockId, clock_gettime};

/// A point in time: seconds and nanoseconds since 1970 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// Nanoseconds of the second, below a thousand million.
    pub nanoseconds: u32,
}

/// Length of the text of a [`Time`], in bytes.
pub const TEXT_BYTES: usize = 30;

/// The first and the last second of the years 0 to 9999.
const SECONDS: std::ops::RangeInclusive<i64> = -62_167_219_200..=253_402_300_799;

impl Time {
    /// Reads the clock.
    #[must_use]
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Realtime);
        Self { seconds: now.tv_sec, nanoseconds: u32::try_from(now.tv_nsec).unwrap_or(0) }
    }

    /// Writes `2026-11-24T08:06:02.123456789Z`. Years outside 0 to 9999 are clamped.
    #[must_use]
    pub fn text(self) -> [u8; TEXT_BYTES] {
        let seconds = self.seconds.clamp(*SECONDS.start(), *SECONDS.end());
        let (year, month, day) = civil(seconds.div_euclid(86_400));
        let of_day = seconds.rem_euclid(86_400);
        let mut text = *b"0000-00-00T00:00:00.000000000Z";
        digits(&mut text[0..4], year);
        digits(&mut text[5..7], month);
        digits(&mut text[8..10], day);
        digits(&mut text[11..13], of_day / 3600);
        digits(&mut text[14..16], of_day / 60 % 60);
        digits(&mut text[17..19], of_day % 60);
        digits(&mut text[20..29], i64::from(self.nanoseconds));
        text
    }

    /// Reads RFC 3339 text: any number of digits of a second, `Z` or an offset.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if !text.is_ascii()
            || bytes.len() < 20
            || [bytes[4], bytes[7]] != *b"--"
            || !matches!(bytes[10], b'T' | b't' | b' ')
        {
            return None;
        }
        if bytes[13] != b':' || bytes[16] != b':' {
            return None;
        }
        let number = |range: std::ops::Range<usize>, most: i64| {
            let part = &text[range];
            let digits = part.bytes().all(|b| b.is_ascii_digit());
            part.parse::<i64>().ok().filter(|n| digits && *n <= most)
        };
        let (year, month, day) = (number(0..4, 9999)?, number(5..7, 12)?, number(8..10, 31)?);
        let (hour, minute, second) = (number(11..13, 23)?, number(14..16, 59)?, number(17..19, 60)?);
        if month == 0 || day == 0 {
            return None;
        }
        let (nanoseconds, zone) = fraction(&text[19..])?;
        let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset(zone)?;
        // An offset or a leap second may lead beyond what can be written.
        (SECONDS.contains(&seconds)).then_some(Self { seconds, nanoseconds })
    }
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

/// Returns the present as text.
#[must_use]
pub fn now() -> String {
    Time::now().to_string()
}

/// Fills `out` with the last decimal digits of `value`.
fn digits(out: &mut [u8], value: i64) {
    let mut rest = value.unsigned_abs();
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// Reads `.123` into nanoseconds and returns what follows.
fn fraction(text: &str) -> Option<(u32, &str)> {
    let Some(rest) = text.strip_prefix(['.', ',']) else { return Some((0, text)) };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    if end == 0 {
        return None;
    }
    let kept: String = rest[..end].chars().chain("000000000".chars()).take(9).collect();
    Some((kept.parse().ok()?, &rest[end..]))
}

/// Reads `Z` or `+02:00` into seconds east of UTC.
fn offset(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = zone[1..].split_once(':')?;
    let number = |part: &str, most: i64| {
        let digits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| part.parse::<i64>().ok())?.filter(|n| *n <= most)
    };
    Some(sign * (number(hours, 23)? * 3600 + number(minutes, 59)? * 60))
}

/// Returns year, month and day of a day counted from 1970-01-01 (the proleptic Gregorian calendar, counted in eras
/// of 400 years that begin on the first of March, so that the leap day is the last of its year).
fn civil(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * from_march + 2) / 5 + 1)
}

/// The inverse of [`civil`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_back() {
        for (seconds, nanoseconds, text) in [
            (0, 0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, 5, "2000-02-29T00:00:00.000000005Z"),
            (1_709_251_199, 999_999_999, "2024-02-29T23:59:59.999999999Z"),
            (-1, 0, "1969-12-31T23:59:59.000000000Z"),
            (253_402_300_799, 0, "9999-12-31T23:59:59.000000000Z"),
        ] {
            let time = Time { seconds, nanoseconds };
            assert_eq!(time.to_string(), text);
            assert_eq!(Time::parse(text), Some(time));
        }
    }

    #[test]
    fn offsets_and_short_fractions_are_read_and_nonsense_is_not() {
        let time = |text| Time::parse(text).map(|t| (t.seconds, t.nanoseconds));
        assert_eq!(time("1970-01-01T02:00:00.5+02:00"), Some((0, 500_000_000)));
        assert_eq!(time("1970-01-01T00:00:00Z"), Some((0, 0)));
        for bad in [
            "",
            "1970-01-01",
            "1970-13-01T00:00:00Z",
            "1970-01-01T00:00:00",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00+2",
            "1970-01-01T00:00:00+02:+5",
            "9999-12-31T23:59:60Z",
            "0000-01-01T00:00:00+01:00",
            "+970-01-01T00:00:00Z",
        ] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }
}
