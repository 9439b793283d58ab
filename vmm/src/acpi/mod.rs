//! ACPI tables: assembled from the layout, the topology and the devices.
