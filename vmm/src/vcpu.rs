//! vCPU threads: commands, state machine, exits.
