//! Health of one DIMM: what its sensors and counters say, which thresholds are watched, and when the guest hears of it.
//!
//! ```text
//!            set_thresholds, inject          power_cycle
//!   sensors ------------------------> alarm?  ----------> injections gone, thresholds and counts kept
//! ```
//!
//! Pure: no buffers and no clock. The families' functions (`dsm/smart.rs` and its neighbours) put it into their own bytes.
//! What outlives a power cycle is [`HealthState`].

use serde::{Deserialize, Serialize};

/// A temperature in the unit of SMART: sixteenths of a degree Celsius, bit 15 the sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Temperature(pub u16);

impl Temperature {
    const SIGN: u16 = 1 << 15;

    /// `degrees` Celsius.
    pub const fn celsius(degrees: i8) -> Self {
        let magnitude = degrees.unsigned_abs() as u16 * 16;
        Self(if degrees < 0 { magnitude | Self::SIGN } else { magnitude })
    }

    /// Signed sixteenths of a degree.
    pub fn sixteenths(self) -> i32 {
        let magnitude = i32::from(self.0 & !Self::SIGN);
        if self.0 & Self::SIGN == 0 {
            magnitude
        } else {
            -magnitude
        }
    }

    /// Signed degrees, rounded towards zero.
    pub fn degrees(self) -> i32 {
        self.sixteenths() / 16
    }
}

bitflags::bitflags! {
    /// Health in the bits of SMART; none: good.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Condition: u8 {
        /// Maintenance is due.
        const NON_CRITICAL = 1 << 0;
        /// Performance or redundancy is lost.
        const CRITICAL = 1 << 1;
        /// Data may be lost.
        const FATAL = 1 << 2;
    }

    /// What an alarm can be about: the bits of alarm control and of alarm trips.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct Alarms: u16 {
        /// Spare capacity.
        const SPARES = 1 << 0;
        /// Media temperature.
        const MEDIA_TEMPERATURE = 1 << 1;
        /// Controller temperature.
        const CONTROLLER_TEMPERATURE = 1 << 2;
    }
}

/// Sensors and counters as the DIMM leaves its factory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthPlan {
    /// Health.
    pub condition: Condition,
    /// Trips that are shown whatever the sensors say, beside those that have happened.
    pub trips: Alarms,
    /// Spare capacity in percent.
    pub spares: u8,
    /// Life used in percent.
    pub life_used: u8,
    /// Temperature of the media.
    pub media_temperature: Temperature,
    /// Temperature of the controller.
    pub controller_temperature: Temperature,
    /// Unsafe shutdowns before the first power-on.
    pub shutdown_count: u32,
    /// What is watched.
    pub thresholds: Thresholds,
}

impl HealthPlan {
    /// The values of the DIMMs of Linux's `nfit_test`, which ndctl's own tests expect.
    pub const NFIT_TEST: Self = Self {
        condition: Condition::NON_CRITICAL,
        trips: Alarms::SPARES.union(Alarms::MEDIA_TEMPERATURE),
        spares: 75,
        life_used: 5,
        media_temperature: Temperature::celsius(23),
        controller_temperature: Temperature::celsius(25),
        shutdown_count: 42,
        thresholds: Thresholds {
            enabled: 0b11,
            spares: 5,
            media_temperature: Temperature::celsius(40),
            controller_temperature: Temperature::celsius(30),
        },
    };
}

impl Default for HealthPlan {
    fn default() -> Self {
        Self::NFIT_TEST
    }
}

/// Watched limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// Alarm control word as it was written; bits that [`Alarms`] does not have are kept and mean nothing.
    pub enabled: u16,
    /// Alarm at or below this many percent.
    pub spares: u8,
    /// Alarm at or above.
    pub media_temperature: Temperature,
    /// Alarm at or above.
    pub controller_temperature: Temperature,
}

impl Thresholds {
    /// The alarms that are armed.
    pub fn armed(&self) -> Alarms {
        Alarms::from_bits_truncate(self.enabled)
    }
}

/// One request to pretend something, or to stop pretending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injection {
    /// This media temperature; `None`: the real one again.
    MediaTemperature(Option<Temperature>),
    /// This spare capacity; `None`: the real one again.
    Spares(Option<u8>),
    /// This health; `None`: the real one again.
    Condition(Option<Condition>),
    /// The last shutdown was unsafe, which counts one; or it was clean.
    UnsafeShutdown(bool),
}

/// What outlives a power cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthState {
    /// Watched limits.
    pub thresholds: Thresholds,
    /// Unsafe shutdowns.
    pub shutdown_count: u32,
    /// The guest asked this time that an unsafe shutdown be counted.
    pub latched: bool,
    /// Power is on: whoever finds this set at power-on knows that the guest did not shut down.
    pub running: bool,
}

/// What the sensors read at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Health.
    pub condition: Condition,
    /// Alarms whose limits have been passed.
    pub trips: Alarms,
    /// Spare capacity in percent.
    pub spares: u8,
    /// Life used in percent.
    pub life_used: u8,
    /// Media temperature.
    pub media_temperature: Temperature,
    /// Controller temperature.
    pub controller_temperature: Temperature,
    /// Unsafe shutdowns.
    pub shutdown_count: u32,
    /// The last shutdown was unsafe.
    pub dirty: bool,
}

/// The health of one DIMM.
#[derive(Debug, Clone)]
pub struct Health {
    plan: HealthPlan,
    state: HealthState,
    spares: u8,
    media_temperature: Temperature,
    condition: Condition,
    dirty: bool,
}

impl Health {
    /// A DIMM that was never powered on.
    pub fn new(plan: HealthPlan) -> Self {
        let state = HealthState {
            thresholds: plan.thresholds,
            shutdown_count: plan.shutdown_count,
            latched: false,
            running: false,
        };
        let mut health = Self::off(plan, state);
        health.power_on();
        health
    }

    /// The DIMM that left `state`, powered on again. A shutdown that did not happen counts one if the guest had asked for
    /// it.
    pub fn restore(plan: HealthPlan, state: HealthState) -> Self {
        let mut health = Self::off(plan, state);
        health.power_on();
        health
    }

    fn off(plan: HealthPlan, state: HealthState) -> Self {
        Self {
            plan,
            state,
            spares: plan.spares,
            media_temperature: plan.media_temperature,
            condition: plan.condition,
            dirty: false,
        }
    }

    fn power_on(&mut self) {
        self.dirty = self.state.running && self.state.latched;
        if self.dirty {
            self.state.shutdown_count = self.state.shutdown_count.saturating_add(1);
        }
        self.state.latched = false;
        self.state.running = true;
    }

    /// The guest shut down, or asked for a reset: nothing was lost. Injections end with the power.
    pub fn shut_down(&mut self) {
        self.state.running = false;
        self.state.latched = false;
    }

    /// What outlives the run.
    pub fn state(&self) -> &HealthState {
        &self.state
    }

    /// Whether an unsafe shutdown shall be counted. The guest says so after each power-on anew.
    pub fn latch(&mut self, enable: bool) {
        self.state.latched = enable;
    }

    /// Watched limits.
    pub fn thresholds(&self) -> Thresholds {
        self.state.thresholds
    }

    /// Watches other limits. True: the guest hears of it.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) -> bool {
        self.state.thresholds = thresholds;
        self.is_alarming()
    }

    /// Pretends something. [`Health::is_alarming`] says afterwards whether the guest hears of it.
    pub fn inject(&mut self, injection: Injection) {
        match injection {
            Injection::MediaTemperature(at) => self.media_temperature = at.unwrap_or(self.plan.media_temperature),
            Injection::Spares(left) => self.spares = left.unwrap_or(self.plan.spares),
            Injection::Condition(health) => self.condition = health.unwrap_or(self.plan.condition),
            Injection::UnsafeShutdown(dirty) => {
                self.dirty = dirty;
                self.state.shutdown_count = self.state.shutdown_count.saturating_add(dirty.into());
            }
        }
    }

    /// Data has been lost, for as long as the power is on and whatever is injected.
    pub fn lose_data(&mut self) {
        self.plan.condition |= Condition::FATAL;
        self.condition |= Condition::FATAL;
    }

    /// What the sensors say.
    pub fn reading(&self) -> Reading {
        Reading {
            condition: self.condition,
            trips: self.plan.trips | self.passed(),
            spares: self.spares,
            life_used: self.plan.life_used,
            media_temperature: self.media_temperature,
            controller_temperature: self.plan.controller_temperature,
            shutdown_count: self.state.shutdown_count,
            dirty: self.dirty,
        }
    }

    /// Armed alarms whose limits are passed.
    fn passed(&self) -> Alarms {
        let Thresholds {
            spares,
            media_temperature,
            controller_temperature,
            ..
        } = self.state.thresholds;
        let hot = |is: Temperature, limit: Temperature| is.sixteenths() >= limit.sixteenths();
        let mut passed = Alarms::empty();
        passed.set(Alarms::SPARES, self.spares <= spares);
        passed.set(
            Alarms::MEDIA_TEMPERATURE,
            hot(self.media_temperature, media_temperature),
        );
        passed.set(
            Alarms::CONTROLLER_TEMPERATURE,
            hot(self.plan.controller_temperature, controller_temperature),
        );
        passed & self.state.thresholds.armed()
    }

    /// Whether a change is worth a notification: an armed alarm is past its limit, health is not what it is configured to
    /// be, or the last shutdown was unsafe.
    pub fn is_alarming(&self) -> bool {
        !self.passed().is_empty() || self.condition != self.plan.condition || self.dirty
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn health() -> Health {
        Health::new(HealthPlan::NFIT_TEST)
    }

    fn limits(enabled: u16) -> Thresholds {
        Thresholds {
            enabled,
            ..HealthPlan::NFIT_TEST.thresholds
        }
    }

    #[test]
    fn temperatures_are_sixteenths_with_a_sign_bit() {
        assert_eq!(Temperature::celsius(23).0, 23 * 16);
        assert_eq!(Temperature::celsius(-2), Temperature(0x8020));
        assert_eq!(Temperature(0x8020).sixteenths(), -32);
        assert_eq!(Temperature::celsius(i8::MIN).degrees(), -128);
        assert_eq!(Temperature(0x7fff).sixteenths(), 0x7fff);
    }

    #[test]
    fn a_dimm_at_rest_does_not_alarm() {
        let mut health = health();
        assert!(!health.is_alarming());
        assert!(!health.set_thresholds(limits(0b111)));
    }

    #[test]
    fn only_armed_alarms_past_their_limits_notify() {
        let hot = Injection::MediaTemperature(Some(Temperature::celsius(40)));
        for (injection, alarm) in [
            (hot, Alarms::MEDIA_TEMPERATURE),
            (Injection::Spares(Some(5)), Alarms::SPARES),
        ] {
            let mut health = health();
            health.inject(injection);
            assert!(health.is_alarming(), "{injection:?}");
            assert!(!health.set_thresholds(limits(0b111 & !alarm.bits())));
            assert!(health.set_thresholds(limits(alarm.bits())));
        }
        let mut health = health();
        let low = Thresholds {
            controller_temperature: Temperature::celsius(25),
            ..limits(0b100)
        };
        assert!(health.set_thresholds(low));
        assert!(!health.set_thresholds(Thresholds { enabled: 0b11, ..low }));
    }

    #[test]
    fn cold_media_do_not_pass_a_warm_limit() {
        let mut health = health();
        health.inject(Injection::MediaTemperature(Some(Temperature::celsius(-20))));
        assert!(!health.is_alarming());
    }

    #[test]
    fn trips_are_the_configured_ones_and_those_that_happened() {
        let plan = HealthPlan {
            trips: Alarms::empty(),
            ..HealthPlan::NFIT_TEST
        };
        let mut health = Health::new(plan);
        assert_eq!(health.reading().trips, Alarms::empty());
        health.inject(Injection::Spares(Some(0)));
        assert_eq!(health.reading().trips, Alarms::SPARES);
        assert_eq!(
            self::health().reading().trips,
            Alarms::SPARES | Alarms::MEDIA_TEMPERATURE
        );
    }

    #[test]
    fn lost_data_stays_in_the_condition() {
        let mut health = health();
        health.lose_data();
        health.inject(Injection::Condition(None));
        assert_eq!(health.reading().condition, Condition::NON_CRITICAL | Condition::FATAL);
    }

    #[test]
    fn what_is_no_longer_injected_is_as_before() {
        let before = health().reading();
        let mut health = health();
        health.inject(Injection::MediaTemperature(Some(Temperature::celsius(90))));
        health.inject(Injection::Spares(Some(1)));
        health.inject(Injection::Condition(Some(Condition::FATAL)));
        health.inject(Injection::UnsafeShutdown(true));
        let injected = health.reading();
        assert_eq!(injected.condition, Condition::FATAL);
        assert_eq!(
            (injected.spares, injected.dirty, injected.shutdown_count),
            (1, true, 43)
        );
        health.inject(Injection::MediaTemperature(None));
        health.inject(Injection::Spares(None));
        health.inject(Injection::Condition(None));
        assert!(health.is_alarming(), "the shutdown is still unsafe");
        health.inject(Injection::UnsafeShutdown(false));
        assert!(!health.is_alarming());
        // A count only grows.
        assert_eq!(
            health.reading(),
            Reading {
                shutdown_count: 43,
                ..before
            }
        );
    }

    #[test]
    fn a_latched_run_without_a_shutdown_counts_one_and_no_other_does() {
        for (latch, shut_down, counts) in [
            (false, false, false),
            (true, true, false),
            (false, true, false),
            (true, false, true),
        ] {
            let mut health = health();
            health.latch(latch);
            if shut_down {
                health.shut_down();
            }
            let mut next = Health::restore(HealthPlan::NFIT_TEST, *health.state());
            let reading = next.reading();
            assert_eq!(
                (reading.dirty, reading.shutdown_count),
                (counts, 42 + u32::from(counts))
            );
            // The guest has to ask again, and the state of the last shutdown is that of the last one.
            assert!(!next.state().latched);
            next.shut_down();
            let last = Health::restore(HealthPlan::NFIT_TEST, *next.state()).reading();
            assert_eq!((last.dirty, last.shutdown_count), (false, reading.shutdown_count));
        }
    }

    #[test]
    fn injections_end_with_the_power_and_thresholds_do_not() {
        let mut health = health();
        health.set_thresholds(limits(0b100));
        health.inject(Injection::Condition(Some(Condition::FATAL)));
        health.inject(Injection::Spares(Some(1)));
        health.shut_down();
        let next = Health::restore(HealthPlan::NFIT_TEST, *health.state());
        assert_eq!(next.thresholds(), limits(0b100));
        assert_eq!(next.reading(), self::health().reading());
    }

    fn any_injection() -> impl Strategy<Value = Injection> {
        prop_oneof![
            any::<Option<u16>>().prop_map(|t| Injection::MediaTemperature(t.map(Temperature))),
            any::<Option<u8>>().prop_map(Injection::Spares),
            any::<Option<u8>>().prop_map(|c| Injection::Condition(c.map(Condition::from_bits_truncate))),
            any::<bool>().prop_map(Injection::UnsafeShutdown),
        ]
    }

    proptest! {
        #[test]
        fn counts_never_fall_and_uninjecting_all_restores_the_sensors(
            injections in prop::collection::vec(any_injection(), 0..20),
            start in any::<u32>(),
        ) {
            let plan = HealthPlan { shutdown_count: start, ..HealthPlan::NFIT_TEST };
            let mut health = Health::new(plan);
            let mut count = start;
            for injection in injections {
                health.inject(injection);
                prop_assert!(health.reading().shutdown_count >= count);
                count = health.reading().shutdown_count;
            }
            for end in [
                Injection::MediaTemperature(None),
                Injection::Spares(None),
                Injection::Condition(None),
                Injection::UnsafeShutdown(false),
            ] {
                health.inject(end);
            }
            prop_assert!(!health.is_alarming());
            prop_assert_eq!(health.reading(), Reading { shutdown_count: count, ..Health::new(plan).reading() });
        }
    }
}
