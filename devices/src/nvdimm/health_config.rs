//! What the user says of a DIMM's health: the sensors it is made with, the counts it begins with and what is watched.

use super::{
    config::NvdimmConfig,
    health::{Alarms, Condition, HealthPlan, Temperature, Thresholds},
};
use serde::{Deserialize, Serialize};

/// Health as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HealthCondition {
    /// Good.
    Ok,
    /// Maintenance is due.
    NonCritical,
    /// Performance or redundancy is lost.
    Critical,
    /// Data may be lost.
    Fatal,
}

impl HealthCondition {
    fn bits(self) -> Condition {
        match self {
            Self::Ok => Condition::empty(),
            Self::NonCritical => Condition::NON_CRITICAL,
            Self::Critical => Condition::CRITICAL,
            Self::Fatal => Condition::FATAL,
        }
    }
}

/// A limit that can be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AlarmName {
    /// Spare capacity.
    Spares,
    /// Media temperature.
    MediaTemperature,
    /// Controller temperature.
    ControllerTemperature,
}

impl AlarmName {
    fn bit(self) -> Alarms {
        match self {
            Self::Spares => Alarms::SPARES,
            Self::MediaTemperature => Alarms::MEDIA_TEMPERATURE,
            Self::ControllerTemperature => Alarms::CONTROLLER_TEMPERATURE,
        }
    }
}

impl NvdimmConfig {
    /// Sensors, counts and limits of the DIMM when it is new. What is left out is that of Linux's `nfit_test`, which shows two
    /// alarms as tripped whatever its sensors say: a sensor that is configured ends that.
    pub fn health_plan(&self) -> HealthPlan {
        let plain = HealthPlan::default();
        let celsius = |said: Option<i8>, plain| said.map_or(plain, Temperature::celsius);
        let mut trips = plain.trips;
        trips.set(
            Alarms::SPARES,
            plain.trips.contains(Alarms::SPARES) && self.health_spares.is_none(),
        );
        trips.set(
            Alarms::MEDIA_TEMPERATURE,
            plain.trips.contains(Alarms::MEDIA_TEMPERATURE) && self.health_media_temperature.is_none(),
        );
        let armed = self.health_alarms.as_ref().map(|names| {
            let bits = names.iter().fold(Alarms::empty(), |bits, name| bits | name.bit());
            bits.bits()
        });
        HealthPlan {
            condition: self.health_condition.map_or(plain.condition, HealthCondition::bits),
            trips,
            spares: self.health_spares.unwrap_or(plain.spares),
            life_used: self.health_life_used.unwrap_or(plain.life_used),
            media_temperature: celsius(self.health_media_temperature, plain.media_temperature),
            controller_temperature: celsius(self.health_controller_temperature, plain.controller_temperature),
            shutdown_count: self.health_shutdown_count.unwrap_or(plain.shutdown_count),
            thresholds: Thresholds {
                enabled: armed.unwrap_or(plain.thresholds.enabled),
                spares: self.health_spares_threshold.unwrap_or(plain.thresholds.spares),
                media_temperature: celsius(
                    self.health_media_temperature_threshold,
                    plain.thresholds.media_temperature,
                ),
                controller_temperature: celsius(
                    self.health_controller_temperature_threshold,
                    plain.thresholds.controller_temperature,
                ),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvdimm::health::Health;

    #[test]
    fn a_dimm_of_which_nothing_is_said_is_nfit_tests() {
        assert_eq!(NvdimmConfig::default().health_plan(), HealthPlan::NFIT_TEST);
    }

    #[test]
    fn what_is_said_is_what_the_sensors_read() {
        let config = NvdimmConfig {
            health_condition: Some(HealthCondition::Critical),
            health_spares: Some(3),
            health_life_used: Some(90),
            health_media_temperature: Some(-4),
            health_controller_temperature: Some(70),
            health_shutdown_count: Some(7),
            health_alarms: Some(vec![AlarmName::Spares, AlarmName::ControllerTemperature]),
            health_controller_temperature_threshold: Some(60),
            ..NvdimmConfig::default()
        };
        let reading = Health::new(config.health_plan()).reading();
        assert_eq!(reading.condition, Condition::CRITICAL);
        assert_eq!((reading.spares, reading.life_used, reading.shutdown_count), (3, 90, 7));
        assert_eq!(reading.media_temperature, Temperature::celsius(-4));
        // Spares are at most 5, the controller at 60 degrees or more; the media are cold.
        assert_eq!(reading.trips, Alarms::SPARES | Alarms::CONTROLLER_TEMPERATURE);
        let unarmed = NvdimmConfig {
            health_alarms: Some(vec![]),
            health_media_temperature: Some(99),
            ..config
        };
        assert_eq!(Health::new(unarmed.health_plan()).reading().trips, Alarms::empty());
    }
}
