//! Change windows: days and times, in UTC, at which a role may be in force.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::types::UnixMillis;

const MINUTE_MS: i64 = 60_000;
const DAY_MINUTES: i64 = 1_440;
/// 1970-01-01 was a Thursday.
const DAYS: [&str; 7] = ["thu", "fri", "sat", "sun", "mon", "tue", "wed"];

/// A change window: on these days, from one time to another, which may be on the next day. UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Days on which it begins: `mon` to `sun`; each day when empty.
    pub days: Vec<String>,
    /// When it begins: `22:00`.
    pub from: String,
    /// When it ends: `04:00`.
    pub to: String,
}

impl Window {
    pub(super) fn check(&self) -> Result<()> {
        let known = self.days.iter().all(|day| DAYS.contains(&day.as_str()));
        let span = minutes(&self.from).zip(minutes(&self.to));
        if known && self.days.len() <= DAYS.len() && span.is_some_and(|(from, to)| from != to) {
            return Ok(());
        }
        Err(Error::invalid(
            "a window is days of mon tue wed thu fri sat sun, and two different times like 22:00 \
             and 04:00, in UTC",
        ))
    }

    /// When it ends, where a moment is in it.
    fn end(&self, at: UnixMillis) -> Option<UnixMillis> {
        let (from, to) = (minutes(&self.from)?, minutes(&self.to)?);
        let length = (to - from).rem_euclid(DAY_MINUTES);
        let today = at.0.div_euclid(DAY_MINUTES * MINUTE_MS);
        // One that began yesterday may still be open.
        [today, today - 1].into_iter().filter(|day| self.begins_on(*day)).find_map(|day| {
            let begin = (day * DAY_MINUTES + from) * MINUTE_MS;
            let end = begin + length * MINUTE_MS;
            (begin <= at.0 && at.0 < end).then_some(UnixMillis(end))
        })
    }

    fn begins_on(&self, day: i64) -> bool {
        let name = usize::try_from(day.rem_euclid(7)).ok().and_then(|day| DAYS.get(day));
        self.days.is_empty() || name.is_some_and(|name| self.days.iter().any(|day| day == name))
    }
}

/// When the windows close that are open at a moment; `None` where none is. Without windows it is
/// always open: the answer has no end then.
pub(super) fn open_until(windows: &[Window], at: UnixMillis) -> Option<UnixMillis> {
    if windows.is_empty() {
        return Some(UnixMillis(i64::MAX));
    }
    windows.iter().filter_map(|window| window.end(at)).max()
}

fn minutes(text: &str) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |text: &str, most: i64| {
        let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse::<i64>().ok().filter(|_| digits)?;
        (number < most).then_some(number)
    };
    Some(two(hours, 24)? * 60 + two(minutes, 60)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(days: &[&str], from: &str, to: &str) -> Window {
        let days = days.iter().map(|day| (*day).to_owned()).collect();
        Window { days, from: from.to_owned(), to: to.to_owned() }
    }

    #[test]
    fn a_window_may_end_on_the_next_day() {
        // 2026-11-27 is a Friday; 20784 days after 1970-01-01.
        let friday = |hour: i64| UnixMillis((20_784 * 24 + hour) * 3_600_000);
        let night = [window(&["fri"], "22:00", "04:00")];
        assert_eq!(open_until(&night, friday(21)), None);
        assert_eq!(open_until(&night, friday(22)), Some(friday(28)));
        assert_eq!(open_until(&night, friday(27)), Some(friday(28)));
        assert_eq!(open_until(&night, friday(28)), None);
        assert_eq!(open_until(&night, friday(22 - 24)), None, "it begins on Fridays");
        let any = [window(&[], "00:00", "12:00")];
        assert_eq!(open_until(&any, friday(3)), Some(friday(12)));
        assert_eq!(open_until(&any, friday(12)), None);
        assert_eq!(open_until(&[], friday(12)), Some(UnixMillis(i64::MAX)));
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for bad in [
            window(&["Fri"], "22:00", "04:00"),
            window(&[], "24:00", "04:00"),
            window(&[], "22:60", "04:00"),
            window(&[], "2:00", "04:00"),
            window(&[], "+2:00", "04:00"),
            window(&[], "22:00", "22:00"),
            window(&["fri"; 8], "22:00", "04:00"),
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        assert!(window(&["mon", "sun"], "00:00", "23:59").check().is_ok());
    }
}
