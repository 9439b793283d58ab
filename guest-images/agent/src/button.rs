//! The power button: an input device of the kernel's ACPI button driver. Pressed, it turns the machine off.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    thread,
};

/// What the driver calls its input device.
const NAME: &str = "Power Button";
/// `struct input_event` on x86-64: 16 bytes of time, type, code, value.
const EVENT: usize = 24;
/// linux/input-event-codes.h.
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;
const PRESSED: i32 = 1;

/// Whether an event is the press of a power button.
fn is_press(event: &[u8; EVENT]) -> bool {
    let (_, rest) = event.split_at(16);
    let [a, b, c, d, e, f, g, h] = rest else { return false };
    u16::from_le_bytes([*a, *b]) == EV_KEY
        && u16::from_le_bytes([*c, *d]) == KEY_POWER
        && i32::from_le_bytes([*e, *f, *g, *h]) == PRESSED
}

/// Device files of power buttons below the sysfs folder of input devices.
fn find(class: &Path, devices: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(class).into_iter().flatten().flatten();
    let named = entries.filter(|e| {
        fs::read_to_string(e.path().join("device/name")).is_ok_and(|name| name.trim() == NAME)
            && e.file_name().to_string_lossy().starts_with("event")
    });
    named.map(|e| devices.join(e.file_name())).collect()
}

/// Calls `pressed` when one of the machine's power buttons is; for ever. A machine without one has nothing to heed.
pub fn heed(pressed: fn()) {
    for path in find(Path::new("/sys/class/input"), Path::new("/dev/input")) {
        let Ok(mut device) = File::open(path) else { continue };
        thread::spawn(move || {
            let mut event = [0; EVENT];
            while device.read_exact(&mut event).is_ok() {
                if is_press(&event) {
                    pressed();
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: i32) -> [u8; EVENT] {
        let mut event = [0x55; EVENT];
        event[16..18].copy_from_slice(&kind.to_le_bytes());
        event[18..20].copy_from_slice(&code.to_le_bytes());
        event[20..].copy_from_slice(&value.to_le_bytes());
        event
    }

    #[test]
    fn only_the_press_of_the_power_key_counts() {
        assert!(is_press(&event(1, 116, 1)));
        for other in [event(1, 116, 0), event(1, 142, 1), event(0, 0, 0), event(0, 116, 1)] {
            assert!(!is_press(&other));
        }
    }

    #[test]
    fn buttons_are_found_by_their_name() {
        let dir = tempfile::tempdir().unwrap();
        for (device, name) in [
            ("event0", "Sleep Button\n"),
            ("event1", "Power Button\n"),
            ("input1", "Power Button\n"),
        ] {
            let folder = dir.path().join(device).join("device");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("name"), name).unwrap();
        }
        assert_eq!(
            find(dir.path(), Path::new("/dev/input")),
            [Path::new("/dev/input/event1")]
        );
        assert!(find(Path::new("/nonexistent"), Path::new("/dev/input")).is_empty());
    }
}
