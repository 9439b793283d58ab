//! MC146818 real-time clock, as far as an operating system reads the time of day from it: registers 0 to 0xd, in BCD and
//! 24-hour form, and memory that remembers. It has no alarm and no interrupt, and cannot be set.

use crate::{BusDevice, Effect};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

const STATUS_A: u8 = 0xa;
const STATUS_B: u8 = 0xb;
const STATUS_C: u8 = 0xc;
const STATUS_D: u8 = 0xd;
/// Status A: 32768 Hz base, and an update is in progress.
const DIVIDER: u8 = 0x20;
const UPDATING: u8 = 0x80;
/// Status B: 24-hour form.
const HOURS_24: u8 = 2;
/// Status D: the time is valid.
const VALID: u8 = 0x80;
/// How long before a new second the registers count as changing: the chip's own 1984 us.
const UPDATE: Duration = Duration::from_micros(1984);
/// Where PC firmware keeps the century.
const CENTURY: u8 = 0x32;
const DAY: u64 = 86400;

/// Time since 1970, from wherever the machine has it.
pub type WallClock = Box<dyn Fn() -> Duration + Send + Sync>;

/// The clock: index port, then data port.
pub struct Rtc {
    wall: WallClock,
    state: Mutex<State>,
}

struct State {
    index: u8,
    memory: [u8; 128],
}

impl Rtc {
    /// Ports of the block.
    pub const PORTS: u64 = 2;

    /// The clock that shows `wall` in UTC.
    pub fn new(wall: WallClock) -> Self {
        let state = State {
            index: 0,
            memory: [0; 128],
        };
        Self {
            wall,
            state: Mutex::new(state),
        }
    }

    fn register(&self, index: u8, memory: &[u8; 128]) -> u8 {
        let now = (self.wall)();
        let (days, time) = (now.as_secs() / DAY, now.as_secs() % DAY);
        let date = Date::of(days);
        match index {
            0 => bcd(time % 60),
            2 => bcd(time / 60 % 60),
            4 => bcd(time / 3600),
            6 => bcd((days + 4) % 7 + 1),
            7 => bcd(date.day),
            8 => bcd(date.month),
            9 => bcd(date.year % 100),
            CENTURY => bcd(date.year / 100),
            STATUS_A => {
                let left = Duration::from_secs(1) - Duration::from_nanos(now.subsec_nanos().into());
                DIVIDER | if left <= UPDATE { UPDATING } else { 0 }
            }
            STATUS_B => HOURS_24,
            STATUS_C => 0,
            STATUS_D => VALID,
            _ => memory.get(usize::from(index)).copied().unwrap_or(0),
        }
    }
}

impl BusDevice for Rtc {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let (1, [byte]) = (offset, data) {
            *byte = self.register(state.index, &state.memory);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let index = state.index;
        match (offset, data) {
            // Bit 7 masks non-maskable interrupts, of which there are none.
            (0, [index]) => state.index = index & 0x7f,
            (1, [value]) if index > STATUS_D => {
                if let Some(byte) = state.memory.get_mut(usize::from(index)) {
                    *byte = *value;
                }
            }
            _ => {}
        }
        Effect::None
    }
}

fn bcd(value: u64) -> u8 {
    u8::try_from(value / 10 % 10 * 16 + value % 10).unwrap_or(0)
}

struct Date {
    year: u64,
    month: u64,
    day: u64,
}

impl Date {
    /// The date `days` after 1970-01-01. Years begin in March here, so that a leap day is the last day of one.
    fn of(days: u64) -> Self {
        // 719468 days lie between 0000-03-01 and 1970-01-01; the calendar repeats every 146097.
        let days = days + 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let month = if from_march < 10 {
            from_march + 3
        } else {
            from_march - 9
        };
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: of_year - (153 * from_march + 2) / 5 + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(rtc: &Rtc, index: u8) -> u8 {
        assert_eq!(rtc.write(0, &[index]), Effect::None);
        let mut data = [0];
        rtc.read(1, &mut data);
        data[0]
    }

    fn at(seconds: u64) -> [u8; 8] {
        let rtc = Rtc::new(Box::new(move || Duration::from_secs(seconds)));
        [0x32, 9, 8, 7, 4, 2, 0, 6].map(|index| read(&rtc, index))
    }

    #[test]
    fn time_of_day_is_in_bcd() {
        // date -u -d @N: the beginning, a leap day, a turn of the century, the last second of a year.
        assert_eq!(at(0), [0x19, 0x70, 1, 1, 0, 0, 0, 5]);
        assert_eq!(at(1_709_210_096), [0x20, 0x24, 2, 0x29, 0x12, 0x34, 0x56, 5]);
        assert_eq!(at(951_782_400), [0x20, 0, 2, 0x29, 0, 0, 0, 3]);
        assert_eq!(at(1_798_761_599), [0x20, 0x26, 0x12, 0x31, 0x23, 0x59, 0x59, 5]);
    }

    #[test]
    fn an_update_shows_only_before_the_next_second() {
        let status = |micros| read(&Rtc::new(Box::new(move || Duration::from_micros(micros))), STATUS_A);
        assert_eq!((status(0), status(998_000), status(998_016)), (0x20, 0x20, 0xa0));
        assert_eq!((status(999_999), status(1_000_000)), (0xa0, 0x20));
    }

    #[test]
    fn memory_remembers_and_the_time_cannot_be_set() {
        let rtc = Rtc::new(Box::new(|| Duration::ZERO));
        for (index, value, expected) in [(0x0f, 7, 7), (0, 0x59, 0), (0x7f, 1, 1), (0x0b, 0x80, 2)] {
            read(&rtc, index);
            assert_eq!(rtc.write(1, &[value]), Effect::None);
            assert_eq!(read(&rtc, index | 0x80), expected, "{index:#x}");
        }
    }

    proptest! {
        #[test]
        fn any_access_is_survived(offset: u64, data in proptest::collection::vec(any::<u8>(), 0..8), now: u32, index: u8) {
            let rtc = Rtc::new(Box::new(move || Duration::from_secs(now.into())));
            let _ = rtc.write(0, &[index]);
            let mut read = data.clone();
            rtc.read(offset, &mut read);
            let _ = rtc.write(offset, &data);
            rtc.read(1, &mut read);
        }
    }
}
