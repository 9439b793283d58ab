//! Guest memory: host mappings, backings and memory slots.
