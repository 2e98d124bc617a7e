//! Times as people write and read them. In UTC, because that is what the logs of all parts are in.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds of a day.
const DAY: u64 = 86_400_000;

/// Milliseconds since the epoch.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// `10m` ago, or a time, in milliseconds since the epoch.
///
/// # Errors
/// What would have been understood.
pub fn since(text: &str) -> Result<u64, String> {
    since_from(text, now_ms())
}

fn since_from(text: &str, now: u64) -> Result<u64, String> {
    duration(text).map(|ago| now.saturating_sub(ago)).or_else(|| rfc3339(text)).ok_or_else(|| {
        "write a time span such as `10m` or `1h30m`, or a time such as `2026-11-24T09:30:00Z`".into()
    })
}

/// `1h30m` in milliseconds.
fn duration(text: &str) -> Option<u64> {
    let (mut total, mut rest) = (0u64, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match rest.get(..end)? {
            "ms" => 1,
            "s" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => DAY,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = rest.get(end..)?;
    }
    (!text.is_empty()).then_some(total)
}

/// `2026-11-24`, `2026-11-24T09:30`, `2026-11-24 09:30:00.5+01:00`; without a zone it is UTC.
pub fn rfc3339(text: &str) -> Option<u64> {
    let (date, time) = match text.get(10..11) {
        None => (text, ""),
        Some("T" | "t" | " ") => (text.get(..10)?, text.get(11..)?),
        Some(_) => return None,
    };
    let mut parts =
        date.split('-').map(|p| p.parse::<i64>().ok().filter(|_| p.bytes().all(|b| b.is_ascii_digit())));
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if date.len() != 10 || parts.next().is_some() || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let zone_at = time.find(['Z', 'z', '+', '-']).unwrap_or(time.len());
    let (clock, zone) = (time.get(..zone_at)?, time.get(zone_at..)?);
    let of_day = if time.is_empty() { 0 } else { clock_ms(clock)? };
    let offset = match zone {
        "" | "Z" | "z" => 0,
        zone => {
            let minutes = clock_ms(zone.get(1..)?)? / 1000;
            if zone.starts_with('-') { -(minutes as i64) } else { minutes as i64 }
        }
    };
    let seconds = days(year, month, day) * 86_400 - offset;
    u64::try_from(seconds * 1000 + of_day as i64).ok()
}

/// `09:30` or `09:30:00.123` in milliseconds.
fn clock_ms(text: &str) -> Option<u64> {
    let mut parts = text.split(':');
    let mut two = |most: u64| {
        let part = parts.next()?;
        let whole = part.get(..2).filter(|w| w.bytes().all(|b| b.is_ascii_digit()))?;
        let value = whole.parse::<u64>().ok().filter(|v| *v <= most)?;
        Some((value, part.get(2..)?))
    };
    let (hours, "") = two(23)? else { return None };
    let (minutes, "") = two(59)? else { return None };
    let (seconds, fraction) = two(60).unwrap_or((0, ""));
    let millis = match fraction.strip_prefix('.') {
        None if fraction.is_empty() => 0,
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            format!("{digits:0<3}").get(..3)?.parse().ok()?
        }
        _ => return None,
    };
    (text.len() == 5 || text.len() >= 8).then_some(((hours * 60 + minutes) * 60 + seconds) * 1000 + millis)
}

/// Days since the epoch of a date in the Gregorian calendar (Hinnant's `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// `2026-11-24T09:30:00.123Z`.
pub fn stamp(ms: u64) -> String {
    // Far beyond any calendar: a clock that is broken. Its number is all there is to tell.
    if ms / DAY > 3_000_000 {
        return format!("@{ms}");
    }
    let z = (ms / DAY) as i64 + 719_468;
    let (era, of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let rest = ms % DAY;
    let (h, m, s, milli) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60, rest % 1000);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{milli:03}Z")
}

/// `3 h 12 min`, as a person says it.
pub fn span(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, 0) => format!("{m} min"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, 0, _) => format!("{h} h"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, 0, _, _) => format!("{d} d"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_counted_back_from_now() {
        let now = 1_000_000_000;
        for (text, ago) in
            [("90s", 90_000), ("10m", 600_000), ("1h30m", 5_400_000), ("2d", 172_800_000), ("5ms", 5)]
        {
            assert_eq!(since_from(text, now), Ok(now - ago), "{text}");
        }
        assert_eq!(since_from("99999d", now), Ok(0), "before the epoch is the epoch");
    }

    #[test]
    fn times_are_read_with_and_without_a_zone() {
        let at = 1_795_512_600_000;
        for text in [
            "2026-11-24T09:30:00Z",
            "2026-11-24T09:30Z",
            "2026-11-24 09:30:00",
            "2026-11-24T10:30:00+01:00",
            "2026-11-24T04:00:00-05:30",
        ] {
            assert_eq!(rfc3339(text), Some(at), "{text}");
        }
        assert_eq!(rfc3339("2026-11-24T09:30:00.123456Z"), Some(at + 123));
        assert_eq!(rfc3339("1970-01-01"), Some(0));
        assert_eq!(rfc3339("2000-02-29"), Some(951_782_400_000));
    }

    #[test]
    fn nonsense_is_refused_with_what_would_do() {
        let wrong = [
            "",
            "10",
            "m",
            "10x",
            "24.11.2026",
            "2026-13-01",
            "2026-11-24T25:00",
            "2026-11-24Tnoon",
            "é",
            "1h-",
        ];
        for text in wrong {
            assert!(since_from(text, 0).is_err(), "{text}");
        }
        assert!(since_from("99999999999999999999d", 0).expect_err("too large").contains("`10m`"));
    }

    #[test]
    fn stamps_read_back() {
        for ms in [0, 951_782_400_000, 1_795_512_600_123, 4_102_444_799_999] {
            assert_eq!(rfc3339(&stamp(ms)), Some(ms), "{}", stamp(ms));
        }
        assert_eq!(stamp(1_795_512_600_123), "2026-11-24T09:30:00.123Z");
        assert!(stamp(u64::MAX).starts_with('@'));
    }

    #[test]
    fn spans_are_short() {
        assert_eq!(span(7), "7 s");
        assert_eq!(span(67), "1 min 7 s");
        assert_eq!(span(60), "1 min");
        assert_eq!(span(3_601), "1 h");
        assert_eq!(span(11_520), "3 h 12 min");
        assert_eq!(span(100_000), "1 d 3 h");
        assert_eq!(span(172_800), "2 d");
    }
}
