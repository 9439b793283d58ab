//! vCPUs, nodes and distances as the guest sees them: pure.
