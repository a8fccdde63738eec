//! Dates and durations as HAProxy prints them.
//!
//! Pure: the wall clock is read by the engine and passed in.

use std::fmt;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A moment of the civil calendar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallTime {
    /// Microseconds since 1970-01-01 00:00 UTC.
    pub unix_us: u64,
    /// Seconds east of UTC in which it is shown.
    pub offset_s: i32,
}

/// Its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// Year.
    pub year: u64,
    /// Month, 1 to 12.
    pub month: u32,
    /// Day, 1 to 31.
    pub day: u32,
    /// Hour.
    pub hour: u32,
    /// Minute.
    pub minute: u32,
    /// Second.
    pub second: u32,
    /// Microsecond.
    pub micro: u32,
}

impl WallTime {
    /// `ms` milliseconds earlier.
    pub fn minus_ms(self, ms: u64) -> WallTime {
        WallTime { unix_us: self.unix_us.saturating_sub(ms.saturating_mul(1000)), ..self }
    }

    /// Year to microsecond.
    pub fn civil(self) -> Civil {
        let seconds = (self.unix_us / 1_000_000).saturating_add_signed(i64::from(self.offset_s));
        let (days, rest) = (seconds / 86_400, (seconds % 86_400) as u32);
        // Days counted from 0000-03-01, in eras of 400 years: the leap day is a year's last.
        let shifted = days + 719_468;
        let (era, of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * of_year + 2) / 153;
        let day = (of_year - (153 * march_month + 2) / 5 + 1) as u32;
        let month = (if march_month < 10 { march_month + 3 } else { march_month - 9 }) as u32;
        Civil {
            year: year_of_era + era * 400 + u64::from(month <= 2),
            month,
            day,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
            micro: (self.unix_us % 1_000_000) as u32,
        }
    }

    /// `20/Nov/2026:18:21:04`
    pub fn log_date(self) -> String {
        let c = self.civil();
        let month = month_name(c.month);
        let (year, day) = (c.year, c.day);
        format!("{day:02}/{month}/{year}:{:02}:{:02}:{:02}", c.hour, c.minute, c.second)
    }

    /// `20/Nov/2026:18:21:04.088`
    pub fn log_date_ms(self) -> String {
        format!("{}.{:03}", self.log_date(), self.civil().micro / 1000)
    }

    /// `Nov 20 13:17:30`, as RFC 3164 has it (the day padded with a blank).
    pub fn rfc3164(self) -> String {
        let c = self.civil();
        let (month, day) = (month_name(c.month), c.day);
        format!("{month} {day:2} {:02}:{:02}:{:02}", c.hour, c.minute, c.second)
    }

    /// `2026-11-20T13:17:30.951956+00:00`, as RFC 5424 has it.
    pub fn rfc5424(self) -> String {
        let c = self.civil();
        let (sign, east) =
            if self.offset_s < 0 { ('-', -self.offset_s) } else { ('+', self.offset_s) };
        format!(
            "{}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}{sign}{:02}:{:02}",
            c.year,
            c.month,
            c.day,
            c.hour,
            c.minute,
            c.second,
            c.micro,
            east / 3600,
            east / 60 % 60
        )
    }
}

fn month_name(month: u32) -> &'static str {
    MONTHS[(month as usize + 11) % 12]
}

/// A length of time in HAProxy's short form: its two largest units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Human(pub u64);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.0 / 1000;
        let (d, h, m) = (s / 86_400, s / 3600 % 24, s / 60 % 60);
        match (d, h, m) {
            (1.., _, _) => write!(f, "{d}d{h}h"),
            (_, 1.., _) => write!(f, "{h}h{m}m"),
            (_, _, 1..) => write!(f, "{m}m{}s", s % 60),
            _ => write!(f, "{s}s"),
        }
    }
}

/// A moment relative to now, in either direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// It is not set.
    #[default]
    Never,
    /// It is over (for moments to come).
    Past,
    /// So many ms from or before now.
    Ms(u64),
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            When::Never => f.write_str("<NEVER>"),
            When::Past => f.write_str("<PAST>"),
            When::Ms(ms) => Human(*ms).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let at =
            |unix_s: u64, offset_s| WallTime { unix_us: unix_s * 1_000_000 + 88_123, offset_s };
        assert_eq!(at(1_795_198_594, 0).log_date(), "20/Nov/2026:18:16:34");
        assert_eq!(at(1_795_198_594, 0).log_date_ms(), "20/Nov/2026:18:16:34.088");
        assert_eq!(at(1_795_198_594, 0).rfc3164(), "Nov 20 18:16:34");
        assert_eq!(at(1_795_198_594, 3600).rfc5424(), "2026-11-20T19:16:34.088123+01:00");
        assert_eq!(at(1_795_198_594, -12_600).rfc5424(), "2026-11-20T14:46:34.088123-03:30");
        assert_eq!(at(0, 0).log_date(), "01/Jan/1970:00:00:00");
        assert_eq!(at(951_782_400, 0).log_date(), "29/Feb/2000:00:00:00");
        assert_eq!(at(951_868_800, 0).rfc3164(), "Mar  1 00:00:00");
        assert_eq!(at(4_107_542_399, 0).log_date(), "28/Feb/2100:23:59:59");
        assert_eq!(at(4_107_542_400, 0).log_date(), "01/Mar/2100:00:00:00");
        assert_eq!(at(10, 0).minus_ms(20_000), WallTime::default());
    }

    #[test]
    fn durations() {
        for (ms, shown) in [
            (0, "0s"),
            (999, "0s"),
            (3_999, "3s"),
            (61_000, "1m1s"),
            (5_820_000, "1h37m"),
            (90_000_000, "1d1h"),
        ] {
            assert_eq!(Human(ms).to_string(), shown);
        }
        assert_eq!(
            format!("{} {} {}", When::Never, When::Past, When::Ms(1000)),
            "<NEVER> <PAST> 1s"
        );
    }
}
